/* tls.c - OpenSSL contexts, and bufferevents over them. */
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "tls.h"

struct tls {
    _Atomic unsigned references;
    SSL_CTX *ctx;
    char *name; /* client side: whom to expect; NULL: anybody */
    int64_t expires;
};

static struct tls *fail(struct tls *t, char error[512], const char *what, const char *file)
{
    const char *why = ERR_reason_error_string(ERR_peek_last_error());
    snprintf(error, 512, "%s%s%.300s: %.150s", what, file ? " " : "", file ? file : "",
             why ? why : "unknown error");
    ERR_clear_error();
    tls_drop(&t);
    return NULL;
}

static struct tls *make(const SSL_METHOD *method, char error[512])
{
    struct tls *t = calloc(1, sizeof *t);
    if (!t)
        abort();
    t->references = 1;
    ERR_clear_error();
    t->ctx = SSL_CTX_new(method);
    if (!t->ctx || SSL_CTX_set_min_proto_version(t->ctx, TLS1_2_VERSION) != 1)
        return fail(t, error, "TLS cannot be used", NULL);
    SSL_CTX_set_options(t->ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                    SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_mode(t->ctx, SSL_MODE_RELEASE_BUFFERS); /* idle sessions cost little */
    return t;
}

static int64_t ends(const X509 *cert)
{
    struct tm tm;
    const ASN1_TIME *end = cert ? X509_get0_notAfter(cert) : NULL;
    return end && ASN1_TIME_to_tm(end, &tm) == 1 ? (int64_t)timegm(&tm) * 1000 : 0;
}

/* Our certificate and key; NULL, and t is gone, if they cannot be used. */
static struct tls *load_own(struct tls *t, const struct tls_settings *s, char error[512])
{
    if (SSL_CTX_use_certificate_chain_file(t->ctx, s->cert) != 1)
        return fail(t, error, "the certificate cannot be used:", s->cert);
    if (SSL_CTX_use_PrivateKey_file(t->ctx, s->key, SSL_FILETYPE_PEM) != 1)
        return fail(t, error, "the key cannot be used, or is not the certificate's:", s->key);
    t->expires = ends(SSL_CTX_get0_certificate(t->ctx));
    return t;
}

struct tls *tls_server_new(const struct tls_settings *s, char error[512])
{
    struct tls *t = make(TLS_server_method(), error);
    if (!t || !load_own(t, s, error))
        return NULL;
    /* Sessions are resumed by ticket only: nothing is kept here. */
    SSL_CTX_set_session_cache_mode(t->ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_verify(t->ctx, SSL_VERIFY_NONE, NULL);
    return t;
}

struct tls *tls_client_new(const struct tls_settings *s, char error[512])
{
    struct tls *t = make(TLS_client_method(), error);
    if (!t || (s->cert && !load_own(t, s, error)))
        return NULL;
    if (s->ca && SSL_CTX_load_verify_file(t->ctx, s->ca) != 1)
        return fail(t, error, "the CA certificates cannot be read:", s->ca);
    SSL_CTX_set_verify(t->ctx, s->ca ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    if (s->name && !(t->name = strdup(s->name)))
        abort();
    return t;
}

struct tls *tls_hold(struct tls *t)
{
    if (t)
        t->references++;
    return t;
}

void tls_drop(struct tls **tp)
{
    struct tls *t = *tp;
    *tp = NULL;
    if (!t || --t->references)
        return;
    SSL_CTX_free(t->ctx);
    free(t->name);
    free(t);
}

int64_t tls_expires(const struct tls *t)
{
    return t->expires;
}

/* Whom the server has to be, and what is said in SNI. */
static bool expect(SSL *ssl, const char *name)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
    if (X509_VERIFY_PARAM_set1_ip_asc(param, name) == 1)
        return true;
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(ssl, name) == 1 && SSL_set_tlsext_host_name(ssl, name) == 1;
}

struct bufferevent *tls_start(struct tls *t, struct bufferevent *plain, bool server)
{
    ERR_clear_error();
    SSL *ssl = SSL_new(t->ctx);
    if (!ssl || (!server && t->name && !expect(ssl, t->name))) {
        SSL_free(ssl);
        ERR_clear_error();
        return NULL;
    }
    evutil_socket_t fd = bufferevent_getfd(plain);
    struct event_base *base = bufferevent_get_base(plain);
    bufferevent_disable(plain, EV_READ | EV_WRITE);
    bufferevent_setfd(plain, -1); /* what it has read already goes with it, unread */
    bufferevent_free(plain);
    struct bufferevent *bev = bufferevent_openssl_socket_new(
        base, fd, ssl, server ? BUFFEREVENT_SSL_ACCEPTING : BUFFEREVENT_SSL_CONNECTING,
        BEV_OPT_CLOSE_ON_FREE);
    if (!bev)
        abort(); /* memory */
    return bev;
}

void tls_say_last(struct bufferevent *bev, const char *line)
{
    SSL *ssl = bufferevent_openssl_get_ssl(bev);
    if (!ssl) {
        if (line)
            (void)!send(bufferevent_getfd(bev), line, strlen(line), MSG_DONTWAIT | MSG_NOSIGNAL);
        return;
    }
    if (!SSL_is_init_finished(ssl))
        return;
    ERR_clear_error();
    if (line)
        (void)SSL_write(ssl, line, (int)strlen(line));
    (void)SSL_shutdown(ssl);
    ERR_clear_error(); /* what failed here is no matter of the next session's */
}

const char *tls_trouble(struct bufferevent *bev)
{
    unsigned long e = bufferevent_get_openssl_error(bev);
    return e ? ERR_reason_error_string(e) : NULL;
}

const char *tls_agreed(struct bufferevent *bev)
{
    SSL *ssl = bufferevent_openssl_get_ssl(bev);
    static _Thread_local char text[96];
    if (!ssl || !SSL_is_init_finished(ssl))
        return NULL;
    snprintf(text, sizeof text, "%s %s", SSL_get_version(ssl), SSL_get_cipher_name(ssl));
    return text;
}
