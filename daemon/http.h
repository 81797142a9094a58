/*
 * http.h - the HTTP server of the desk: evhttp over the unix control socket, with our own guards in
 * front of the routes. JSON in, JSON out; errors are application/problem+json (RFC 9457).
 */
#ifndef HTTP_H
#define HTTP_H

#include <event2/event.h>

#include "json.h"

struct http;
struct http_request; /* from its arrival to its one answer */

enum http_method {
    HTTP_OTHER, /* must be first: nothing of ours answers to it */
    HTTP_GET,   /* HEAD too */
    HTTP_POST,
};

/* Called in the loop for each request that the guards let in. Must answer it once, now or later. */
typedef void http_handler_fn(void *arg, struct http_request *);

/*
 * Listens on a unix socket with these permissions. A socket file nobody answers at is removed; one
 * that lives, or another kind of file, is left and refused. NULL after a sentence in error.
 */
struct http *http_open(struct event_base *, const char *path, int mode, http_handler_fn *handler,
                       void *arg, char error[512]);
/* Closes connections, removes the socket. Requests not yet answered may still be, in vain. */
void http_close(struct http **);
/* Bodies sent to this path may have HTTP_LARGE bytes instead of 64 KiB; path lives as long. One. */
enum { HTTP_LARGE = 6 << 20 };
void http_large(struct http *, const char *path);

enum http_method http_method(const struct http_request *);
const char *http_path(const struct http_request *); /* undecoded, without the query */
/* Who asks: the user name of the peer's uid, or "uid:N". */
const char *http_who(const struct http_request *);
/* A decoded query parameter, NULL: not given. */
const char *http_query(const struct http_request *, const char *name);
/* The first parameter that is not in the NULL-ended list; NULL: all are. */
const char *http_query_unknown(const struct http_request *, const char *const *known);
/* The JSON object in the body, borrowed; NULL: no body or none that is an object. */
json_t *http_body(const struct http_request *);

json_t *http_queries(const struct http_request *); /* all of them: name -> text; a new reference */

/*
 * A request that comes from inside the process, of another node's desk say: handled as any other;
 * its answer goes to answered, once, now or later, in this thread. Members are borrowed, command
 * until the answer, all others for the call.
 */
typedef void http_answered_fn(void *arg, int status, struct span body);
struct http_inner {
    enum http_method method;
    const char *path, *who;
    json_t *query, *body; /* NULL: none. query: name -> text */
    const char *command;  /* the id under which it may be carried out once; NULL: none */
    http_answered_fn *answered;
    void *arg;
};
void http_inner(http_handler_fn *, void *handler_arg, const struct http_inner *);
bool http_is_inner(const struct http_request *);
const char *http_command(const struct http_request *); /* NULL: none */

/* The answer; each ends the request. json is stolen. detail: a sentence that says what to do. */
void http_reply(struct http_request *, int status, json_t *);
void http_reply_bytes(struct http_request *, const char *type, const void *, size_t);
void http_problem(struct http_request *, int status, const char *detail, ...)
    __attribute__((format(printf, 3, 4)));
void http_method_refused(struct http_request *, const char *allowed); /* 405 */

#endif
