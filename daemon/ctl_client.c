/* ctl_client.c - see ctl_client.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "ctl_client.h"
#include "id.h"

enum { WAIT_MS = 30 * 1000, REPLY_MAX = 256 << 20, PIECE = 64 << 10 };

/* ---- what to ask for ---- */

void ctl_target(struct ctl_target *t, struct arena *arena, const char *path)
{
    *t = (struct ctl_target){arena, arena_printf(arena, "/api/v1/%s", path), false};
}

/* RFC 3986 2.3: everything but unreserved characters is written %XX. */
static char *encoded(struct arena *arena, const char *value)
{
    static const char plain[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    static const char hex[] = "0123456789ABCDEF";
    char *out = arena_alloc(arena, 3 * strlen(value) + 1), *p = out;
    for (; *value; value++) {
        if (strchr(plain, *value)) {
            *p++ = *value;
            continue;
        }
        *p++ = '%';
        *p++ = hex[(uint8_t)*value >> 4];
        *p++ = hex[(uint8_t)*value & 15];
    }
    *p = '\0';
    return out;
}

void ctl_query(struct ctl_target *t, const char *name, const char *value)
{
    if (!value)
        return;
    t->text = arena_printf(t->arena, "%s%c%s=%s", t->text, t->query ? '&' : '?', name,
                           encoded(t->arena, value));
    t->query = true;
}

/* ---- the reply ---- */

/* The value of a header field; empty: not there. */
static struct span field(struct span head, struct span name)
{
    while (head.n) {
        size_t end = span_find(head, '\n');
        struct span line = span_head(head, end);
        head = span_from(head, end + 1);
        if (line.n > name.n && line.p[name.n] == ':' && span_case_starts(line, name))
            return span_trim(span_from(line, name.n + 1));
    }
    return span_of(NULL, 0);
}

bool ctl_parse(struct span text, int *status, struct span *body)
{
    const uint8_t *end = text.p ? memmem(text.p, text.n, "\r\n\r\n", 4) : NULL;
    if (!end || !span_starts(text, SPAN("HTTP/1.")) || text.n < 12 || text.p[8] != ' ')
        return false;
    struct span head = span_of(text.p, (size_t)(end - text.p) + 2);
    *body = span_from(text, head.n + 2);
    *status = 0;
    for (size_t i = 9; i < 12; i++) {
        if (!byte_digit(text.p[i]))
            return false;
        *status = 10 * *status + text.p[i] - '0';
    }
    struct span length = field(head, SPAN("Content-Length"));
    size_t n = 0;
    for (size_t i = 0; i < length.n; i++) {
        if (!byte_digit(length.p[i]) || n > REPLY_MAX)
            return false;
        n = 10 * n + length.p[i] - '0';
    }
    return length.n == 0 || n == body->n;
}

/* ---- the call ---- */

static int fail(struct ctl_reply *r, const char *socket, const char *what)
{
    snprintf(r->error, sizeof r->error, "breakwaterd does not answer at %.200s: %s", socket, what);
    return -1;
}

static int dial(const char *path, struct ctl_reply *r)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct timeval wait = {WAIT_MS / 1000, 0};
    if (strlen(path) >= sizeof un.sun_path)
        return fail(r, path, "that path is too long for a socket");
    memcpy(un.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fail(r, path, strerror(errno));
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait) == 0 &&
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait) == 0 &&
        connect(fd, (struct sockaddr *)&un, sizeof un) == 0)
        return fd;
    int error = errno;
    close(fd);
    return fail(r, path, strerror(error));
}

static int say(int fd, const char *text, size_t n)
{
    while (n) {
        ssize_t w = send(fd, text, n, MSG_NOSIGNAL);
        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            return -1;
        text += w;
        n -= (size_t)w;
    }
    return 0;
}

static int ask(int fd, const struct ctl_target *t, const json_t *body)
{
    char *json = body ? json_line(body) : NULL;
    size_t n = json ? strlen(json) : 0;
    char *head = arena_printf(t->arena,
                              "%s %s HTTP/1.0\r\nHost: breakwater\r\nContent-Type: "
                              "application/json\r\nContent-Length: %zu\r\n\r\n",
                              body ? "POST" : "GET", t->text, n);
    int rc = say(fd, head, strlen(head));
    if (rc == 0 && n)
        rc = say(fd, json, n);
    free(json);
    return rc;
}

/* Reads to the end. NULL: fine, else what went wrong. */
static const char *hear(int fd, struct ctl_reply *r, size_t *n)
{
    size_t cap = 0;
    int64_t deadline = clock_mono() + WAIT_MS;
    for (;;) {
        if (cap - *n < PIECE && !(r->buffer = realloc(r->buffer, cap = 2 * cap + PIECE)))
            abort();
        ssize_t got = recv(fd, r->buffer + *n, cap - *n, 0);
        if (got == 0)
            return NULL;
        if (got < 0 && errno != EINTR)
            return errno == EAGAIN ? "no reply within 30 seconds" : strerror(errno);
        *n += got > 0 ? (size_t)got : 0;
        if (*n > REPLY_MAX || clock_mono() > deadline)
            return "its reply is too long";
    }
}

void ctl_call(const char *socket, const struct ctl_target *t, const json_t *body,
              struct ctl_reply *r)
{
    size_t n = 0;
    memset(r, 0, sizeof *r);
    int fd = dial(socket, r);
    if (fd < 0)
        return;
    /* A server that refuses early may close before it has read everything: still hear it. */
    int said = ask(fd, t, body);
    const char *fault = hear(fd, r, &n);
    close(fd);
    if (!fault && !ctl_parse(span_of(r->buffer, n), &r->status, &r->body)) {
        r->status = 0;
        fault = said < 0 ? "it hung up" : "its reply was cut short; what was asked may be done";
    }
    if (fault) {
        fail(r, socket, fault);
        return;
    }
    r->json = json_loadb((const char *)r->body.p, r->body.n, JSON_REJECT_DUPLICATES, NULL);
}

void ctl_reply_free(struct ctl_reply *r)
{
    json_decref(r->json);
    free(r->buffer);
    memset(r, 0, sizeof *r);
}
