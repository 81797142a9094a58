/*
 * milter_peer.h - the MTA's side of a milter session in a test: one socketpair, one event loop, no
 * threads and no clock. What is sent is obeyed before peer_send returns.
 */
#ifndef MILTER_PEER_H
#define MILTER_PEER_H

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "milter.h"

/* Bytes to be sent: frames one after the other. */
struct wire {
    uint8_t *p;
    size_t n, cap;
};

static inline void wire_add(struct wire *w, const void *p, size_t n)
{
    if (w->cap - w->n < n) {
        w->cap = 2 * (w->n + n) + 256;
        w->p = realloc(w->p, w->cap);
        if (!w->p)
            abort();
    }
    if (n)
        memcpy(w->p + w->n, p, n);
    w->n += n;
}

static inline void wire_frame(struct wire *w, char command, const void *data, size_t n)
{
    uint8_t head[5] = {(uint8_t)((n + 1) >> 24), (uint8_t)((n + 1) >> 16), (uint8_t)((n + 1) >> 8),
                       (uint8_t)(n + 1), (uint8_t)command};
    wire_add(w, head, sizeof head);
    wire_add(w, data, n);
}

static inline void wire_offer(struct wire *w, uint32_t version, uint32_t actions, uint32_t steps)
{
    uint32_t v[3] = {version, actions, steps};
    uint8_t data[12];
    for (size_t i = 0; i < 12; i++)
        data[i] = (uint8_t)(v[i / 4] >> (24 - 8 * (i % 4)));
    wire_frame(w, 'O', data, sizeof data);
}

/* Frame of a literal, its last NUL not counted. */
#define WIRE(w, command, literal) wire_frame((w), (command), (literal), sizeof(literal) - 1)

static inline void wire_free(struct wire *w)
{
    free(w->p);
    *w = (struct wire){0};
}

struct peer {
    struct worker *worker;
    int fd;
    bool closed;        /* by the door */
    struct wire answer; /* all bytes the door has sent */
};

static inline void peer_open(struct peer *p, struct worker *w, const struct listener *listener)
{
    int sv[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv))
        abort();
    *p = (struct peer){.worker = w, .fd = sv[0]};
    milter_accept(w, sv[1], listener);
}

/* Lets the door work until it has nothing left to do, and reads what it says. */
static inline void peer_turn(struct peer *p)
{
    for (int quiet = 0; quiet < 2;) {
        uint8_t buf[65536];
        event_base_loop(p->worker->base, EVLOOP_NONBLOCK);
        ssize_t r = p->closed ? -1 : recv(p->fd, buf, sizeof buf, 0);
        if (r > 0) {
            wire_add(&p->answer, buf, (size_t)r);
            quiet = 0;
            continue;
        }
        if (r == 0 || (r < 0 && errno == ECONNRESET))
            p->closed = true;
        quiet++;
    }
}

static inline void peer_send(struct peer *p, const void *data, size_t n)
{
    const uint8_t *at = data;
    while (n && !p->closed) {
        ssize_t w = send(p->fd, at, n, MSG_NOSIGNAL);
        if (w > 0) {
            at += w;
            n -= (size_t)w;
        } else if (w < 0 && errno != EAGAIN) {
            p->closed = true;
        }
        if (w <= 0)
            peer_turn(p);
    }
    peer_turn(p);
}

/* Hangs up; the door notices. */
static inline void peer_close(struct peer *p)
{
    close(p->fd);
    event_base_loop(p->worker->base, EVLOOP_NONBLOCK);
    event_base_loop(p->worker->base, EVLOOP_NONBLOCK);
    wire_free(&p->answer);
}

/* The next frame of the answer at *at: its command, 0 at the end, '?' when it is cut short. */
static inline char peer_frame(const struct peer *p, size_t *at, struct span *data)
{
    const uint8_t *a = p->answer.p;
    if (*at == p->answer.n)
        return 0;
    if (p->answer.n - *at < 5)
        return '?';
    size_t n =
        (size_t)a[*at] << 24 | (size_t)a[*at + 1] << 16 | (size_t)a[*at + 2] << 8 | a[*at + 3];
    if (n < 1 || p->answer.n - *at - 4 < n)
        return '?';
    *data = span_of(a + *at + 5, n - 1);
    char command = (char)a[*at + 4];
    *at += 4 + n;
    return command;
}

/* The commands of all answers as a string: "Occd". */
static inline void peer_commands(const struct peer *p, char *out, size_t cap)
{
    size_t at = 0, n = 0;
    struct span data;
    for (char c; n + 1 < cap && (c = peer_frame(p, &at, &data)) != 0 && c != '?';)
        out[n++] = c;
    out[n] = 0;
}

#endif
