/*
 * outbound.h - our SMTP client: one message per call, over libevent, every wait with a deadline.
 * RFC 5321; numeric addresses and unix sockets only (no DNS on our threads).
 */
#ifndef OUTBOUND_H
#define OUTBOUND_H

#include <event2/event.h>

#include "span.h"
#include "tls.h"

struct outbound_rcpt {
    struct span path;   /* without <> */
    struct span params; /* wished; sent only if the server offers DSN */
    /* result */
    int code;        /* the reply that decided about this recipient; 0: none did (connection lost,
                        timed out, not SMTP); 2xx only after the final dot: delivered */
    char reply[256]; /* its code and text, or a sentence; escaped, one line */
};
struct outbound_mail {
    const char *to; /* "127.0.0.1:25", "[::1]:25", "unix:/path" */
    const char *helo;
    struct tls *tls;   /* NULL: never; else STARTTLS where it is offered */
    bool tls_required; /* and nothing is sent without it */
    struct span reversepath, reversepath_params;
    struct span extra_field; /* "X-Breakwater-Release: ...", put in front; may be empty */
    const uint8_t *bytes;    /* the message; sent CRLF-ended and dot-stuffed */
    size_t nbytes;
    struct outbound_rcpt *rcpts;
    size_t nrcpts;
    int64_t deadline; /* ms for the whole transaction; per-command limits are RFC 5321's */
};
struct outbound; /* one running transaction */
/*
 * done is called once, from the loop, never from inside outbound_send; results are in mail->rcpts.
 * The handle is gone when it is called.
 */
typedef void outbound_done_fn(void *arg, struct outbound_mail *);
/*
 * mail and all it points to must live until done. Paths with control characters, or with '<', '>'
 * or a space outside a quoted local part, are refused (501) before anything is sent. Line ends of
 * the message become CRLF, a bare CR a space (so nobody downstream can see a second message in it);
 * all else is sent as it is. SIGPIPE must be ignored.
 */
struct outbound *outbound_send(struct event_base *, struct outbound_mail *, outbound_done_fn *,
                               void *arg);
void outbound_cancel(struct outbound **); /* done is not called; NULL inside is fine */

#endif
