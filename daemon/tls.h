/*
 * tls.h - TLS of our doors and of our SMTP clients, over bufferevents: contexts that can be read
 * again without a restart, TLS 1.2 and newer, no renegotiation.
 */
#ifndef TLS_H
#define TLS_H

#include <event2/bufferevent.h>
#include <openssl/ssl.h>

#include <stdbool.h>
#include <stdint.h>

struct tls; /* a context; reference-counted */

struct tls_settings {
    const char *cert, *key; /* PEM files: the chain, the key */
    const char *ca;         /* client side: PEM of CAs to verify with; NULL: not verified */
    const char *name;       /* client side: name the certificate must have; NULL: not checked */
};
/* NULL after a sentence in error ("key.pem does not belong to cert.pem" ...). */
struct tls *tls_server_new(const struct tls_settings *, char error[512]);
struct tls *tls_client_new(const struct tls_settings *, char error[512]);
struct tls *tls_hold(struct tls *);
void tls_drop(struct tls **);
int64_t tls_expires(const struct tls *); /* ms: when the certificate ends; 0: none */

/* Puts TLS over an open, idle bufferevent whose input was emptied (a plaintext tail must not
 * survive: CVE-2011-0411). Returns the new bufferevent (callbacks have to be set again), or NULL:
 * `plain` is still there then. server: we are the server. */
struct bufferevent *tls_start(struct tls *, struct bufferevent *plain, bool server);
/* Writes a last line at once if it can be, over TLS or not, and says that no more will come. NULL:
 * only the latter. Before bufferevent_free. */
void tls_say_last(struct bufferevent *, const char *line);
/* Why TLS failed, or NULL: it did not. */
const char *tls_trouble(struct bufferevent *);
/* What was agreed, for logs and the Received field: "TLSv1.3 TLS_AES_256_GCM_SHA384". */
const char *tls_agreed(struct bufferevent *);

#endif
