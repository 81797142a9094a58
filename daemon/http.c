/*
 * http.c - see http.h.
 *
 *   accept -> evhttp (sizes, time) -> guards (RFC 9112 framing, query, JSON) -> handler -> answer
 *
 * evhttp accepts two Content-Length fields, both framings at once, and requests without Host; the
 * guards do not. A request whose client goes away before the answer keeps living until it is
 * answered, in vain: nothing that was asked for is half done because somebody hung up.
 */
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/http.h>
#include <event2/http_struct.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>

#include "http.h"
#include "place.h"

enum { HEADERS_MAX = 16 << 10, BODY_MAX = 64 << 10, TIMEOUT_S = 10, WHO = 160, PARAMETERS = 16 };

struct http {
    struct evhttp *server;
    struct event *second;
    char *path;
    http_handler_fn *handler;
    void *arg;
    const char *large; /* path to which large bodies may be sent */
};

struct http_request {
    struct evhttp_request *ev; /* NULL: the client has gone */
    enum http_method method;
    char *path;
    struct evkeyvalq query;
    json_t *body;
    char who[WHO];
    bool inner; /* came by http_inner: */
    const char *command;
    http_answered_fn *answered;
    void *arg;
};

/* ---- the life of a request ---- */

static void gone(struct evhttp_connection *c, void *arg)
{
    (void)c;
    struct http_request *r = arg;
    r->ev = NULL;
}

static void request_free(struct http_request *r)
{
    evhttp_clear_headers(&r->query);
    json_decref(r->body);
    free(r->path);
    free(r);
}

/* The uid the kernel vouches for; nothing the client says about itself counts. */
static void find_who(struct http_request *r)
{
    struct evhttp_connection *c = evhttp_request_get_connection(r->ev);
    struct ucred peer = {.uid = (uid_t)-1};
    socklen_t n = sizeof peer;
    evutil_socket_t fd = bufferevent_getfd(evhttp_connection_get_bufferevent(c));
    snprintf(r->who, sizeof r->who, "unknown");
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) < 0 || peer.uid == (uid_t)-1)
        return;
    char room[4096];
    struct passwd pw, *found = NULL;
    if (getpwuid_r(peer.uid, &pw, room, sizeof room, &found) == 0 && found)
        snprintf(r->who, sizeof r->who, "%s", found->pw_name);
    else
        snprintf(r->who, sizeof r->who, "uid:%lu", (unsigned long)peer.uid);
}

static struct http_request *request_new(struct evhttp_request *ev)
{
    struct http_request *r = calloc(1, sizeof *r);
    const char *path = evhttp_uri_get_path(evhttp_request_get_evhttp_uri(ev));
    if (!r || !(r->path = strdup(path ? path : "")))
        abort();
    TAILQ_INIT(&r->query);
    r->ev = ev;
    enum evhttp_cmd_type method = evhttp_request_get_command(ev);
    if (method == EVHTTP_REQ_GET || method == EVHTTP_REQ_HEAD)
        r->method = HTTP_GET;
    if (method == EVHTTP_REQ_POST)
        r->method = HTTP_POST;
    find_who(r);
    evhttp_connection_set_closecb(evhttp_request_get_connection(ev), gone, r);
    return r;
}

/* ---- answers ---- */

static const char *status_name(int status)
{
    static const struct {
        int status;
        const char *name;
    } names[] = {
        {200, "OK"},
        {400, "Bad Request"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {409, "Conflict"},
        {413, "Content Too Large"},
        {500, "Internal Server Error"},
        {503, "Service Unavailable"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].status == status)
            return names[i].name;
    return "Error";
}

static void set_header(struct http_request *r, const char *name, const char *value)
{
    if (r->ev)
        evhttp_add_header(evhttp_request_get_output_headers(r->ev), name, value);
}

static void answer(struct http_request *r, int status, const char *type, const void *p, size_t n)
{
    if (r->inner)
        r->answered(r->arg, status, span_of(p, n));
    if (r->ev) {
        char length[32];
        snprintf(length, sizeof length, "%zu", n);
        set_header(r, "Content-Type", type);
        set_header(r, "Content-Length", length);
        set_header(r, "Cache-Control", "no-store");
        set_header(r, "X-Content-Type-Options", "nosniff");
        evhttp_connection_set_closecb(evhttp_request_get_connection(r->ev), NULL, NULL);
        struct evbuffer *b = evbuffer_new();
        if (!b)
            abort();
        if (evhttp_request_get_command(r->ev) != EVHTTP_REQ_HEAD)
            evbuffer_add(b, p, n);
        evhttp_send_reply(r->ev, status, status_name(status), b);
        evbuffer_free(b);
    }
    request_free(r);
}

static void answer_json(struct http_request *r, int status, const char *type, json_t *j)
{
    char *text = json_line(j);
    json_decref(j);
    answer(r, status, type, text, strlen(text));
    free(text);
}

void http_reply(struct http_request *r, int status, json_t *j)
{
    answer_json(r, status, "application/json", j);
}

void http_reply_bytes(struct http_request *r, const char *type, const void *p, size_t n)
{
    answer(r, 200, type, p, n);
}

void http_problem(struct http_request *r, int status, const char *detail, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, detail);
    vsnprintf(text, sizeof text, detail, ap);
    va_end(ap);
    json_t *j = json_object();
    json_object_set_new(j, "title", json_string(status_name(status)));
    json_object_set_new(j, "status", json_integer(status));
    json_object_set_new(j, "detail", json_text_of(text));
    answer_json(r, status, "application/problem+json", j);
}

void http_method_refused(struct http_request *r, const char *allowed)
{
    set_header(r, "Allow", allowed);
    http_problem(r, 405, "This can only be asked with %s.", allowed);
}

/* ---- guards ---- */

static unsigned count_fields(const struct evkeyvalq *fields, const char *name)
{
    unsigned n = 0;
    const struct evkeyval *f;
    for (f = TAILQ_FIRST(fields); f; f = TAILQ_NEXT(f, next))
        n += evutil_ascii_strcasecmp(f->key, name) == 0;
    return n;
}

/* RFC 9112 3.2 and 6.3: what would let two readers of one request disagree. NULL: fine. */
static const char *framing_fault(struct evhttp_request *ev)
{
    const struct evkeyvalq *fields = evhttp_request_get_input_headers(ev);
    unsigned hosts = count_fields(fields, "Host");
    unsigned lengths = count_fields(fields, "Content-Length");
    if (lengths > 1)
        return "There is more than one Content-Length.";
    if (lengths && count_fields(fields, "Transfer-Encoding"))
        return "There are both Content-Length and Transfer-Encoding.";
    if (hosts > 1 || (hosts == 0 && (ev->major > 1 || ev->minor > 0)))
        return "HTTP/1.1 wants exactly one Host.";
    return NULL;
}

static const char *query_fault(struct http_request *r)
{
    const char *text = evhttp_uri_get_query(evhttp_request_get_evhttp_uri(r->ev));
    if (!text || !*text)
        return NULL;
    if (strstr(text, "%00"))
        return "The query contains a NUL byte.";
    if (evhttp_parse_query_str(text, &r->query) < 0)
        return "The query is not made of name=value pairs.";
    const struct evkeyval *q;
    unsigned n = 0;
    for (q = TAILQ_FIRST(&r->query); q; q = TAILQ_NEXT(q, next))
        if (++n > PARAMETERS)
            return "The query has too many parameters.";
    for (q = TAILQ_FIRST(&r->query); q; q = TAILQ_NEXT(q, next))
        if (count_fields(&r->query, q->key) > 1)
            return "A query parameter is given twice.";
    return NULL;
}

/* Reads the body, if there is one. false: it has been refused. */
static bool read_body(const struct http *http, struct http_request *r)
{
    struct evbuffer *b = evhttp_request_get_input_buffer(r->ev);
    size_t n = evbuffer_get_length(b);
    json_error_t error;
    if (n == 0)
        return true;
    size_t most = http->large && strcmp(r->path, http->large) == 0 ? HTTP_LARGE : BODY_MAX;
    if (n > most) { /* chunked: evhttp looks at each chunk only */
        http_problem(r, 413, "The body is larger than %zu bytes.", most);
        return false;
    }
    const char *text = (const char *)evbuffer_pullup(b, -1);
    r->body = json_loadb(text, n, JSON_REJECT_DUPLICATES, &error);
    if (json_is_object(r->body))
        return true;
    http_problem(r, 400, "The body is no JSON object: %s (line %d).",
                 r->body ? "it is another value" : error.text, error.line > 0 ? error.line : 1);
    return false;
}

static void arrived(struct evhttp_request *ev, void *arg)
{
    struct http *http = arg;
    struct http_request *r = request_new(ev);
    const char *fault = framing_fault(ev);
    if (fault)
        set_header(r, "Connection", "close");
    if (!fault)
        fault = query_fault(r);
    if (fault)
        http_problem(r, 400, "%s", fault);
    else if (read_body(http, r))
        http->handler(http->arg, r);
}

/* ---- the server ---- */

/* No descriptors left, say: looking again at once would be a busy loop. */
static void accept_failed(struct evconnlistener *listener, void *arg)
{
    (void)arg; /* evhttp's */
    evconnlistener_disable(listener);
}

/* Each second: what paused goes on. */
static void go_on(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    evconnlistener_enable(arg);
}

struct http *http_open(struct event_base *base, const char *path, int mode,
                       http_handler_fn *handler, void *arg, char error[512])
{
    char name[512];
    snprintf(name, sizeof name, "unix:%s", path);
    int fd = place_open(name, mode, error);
    if (fd < 0)
        return NULL;
    struct http *http = calloc(1, sizeof *http);
    struct evconnlistener *listener =
        evconnlistener_new(base, NULL, NULL, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
    if (!http || !listener || !(http->path = strdup(path)) || !(http->server = evhttp_new(base)) ||
        !(http->second = event_new(base, -1, EV_PERSIST, go_on, listener)) ||
        event_add(http->second, &(struct timeval){1, 0}) < 0 ||
        !evhttp_bind_listener(http->server, listener))
        abort();
    evconnlistener_set_error_cb(listener, accept_failed);
    http->handler = handler;
    http->arg = arg;
    evhttp_set_max_headers_size(http->server, HEADERS_MAX);
    evhttp_set_max_body_size(http->server, BODY_MAX);
    evhttp_set_timeout(http->server, TIMEOUT_S);
    evhttp_set_gencb(http->server, arrived, http);
    return http;
}

void http_large(struct http *http, const char *path)
{
    http->large = path;
    evhttp_set_max_body_size(http->server, HTTP_LARGE);
}

void http_close(struct http **http)
{
    if (!*http)
        return;
    event_free((*http)->second);
    evhttp_free((*http)->server); /* and the listener */
    unlink((*http)->path);
    free((*http)->path);
    free(*http);
    *http = NULL;
}

/* ---- requests that come from inside ---- */

void http_inner(http_handler_fn *handler, void *handler_arg, const struct http_inner *in)
{
    struct http_request *r = calloc(1, sizeof *r);
    const char *name;
    json_t *value;
    if (!r || !(r->path = strdup(in->path)))
        abort();
    TAILQ_INIT(&r->query);
    json_object_foreach(in->query, name, value)
    {
        if (json_is_string(value))
            evhttp_add_header(&r->query, name, json_string_value(value));
    }
    r->inner = true;
    r->method = in->method;
    r->body = json_incref(in->body);
    r->command = in->command;
    r->answered = in->answered;
    r->arg = in->arg;
    snprintf(r->who, sizeof r->who, "%s", in->who);
    handler(handler_arg, r);
}

bool http_is_inner(const struct http_request *r)
{
    return r->inner;
}

const char *http_command(const struct http_request *r)
{
    return r->command;
}

/* ---- what a request asks ---- */

enum http_method http_method(const struct http_request *r)
{
    return r->method;
}

const char *http_path(const struct http_request *r)
{
    return r->path;
}

const char *http_who(const struct http_request *r)
{
    return r->who;
}

const char *http_query(const struct http_request *r, const char *name)
{
    return evhttp_find_header(&r->query, name);
}

json_t *http_queries(const struct http_request *r)
{
    json_t *all = json_object();
    const struct evkeyval *q;
    for (q = TAILQ_FIRST(&r->query); q; q = TAILQ_NEXT(q, next))
        json_object_set_new(all, q->key, json_text_of(q->value));
    return all;
}

const char *http_query_unknown(const struct http_request *r, const char *const *known)
{
    const struct evkeyval *q;
    for (q = TAILQ_FIRST(&r->query); q; q = TAILQ_NEXT(q, next)) {
        const char *const *k = known;
        while (*k && strcmp(*k, q->key) != 0)
            k++;
        if (!*k)
            return q->key;
    }
    return NULL;
}

json_t *http_body(const struct http_request *r)
{
    return r->body;
}
