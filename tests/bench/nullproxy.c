/*
 * nullproxy - the least a proxy can do: copies bytes both ways (epoll, one thread), understands
 * nothing.
 *
 *   nullproxy LISTEN BACKEND
 *
 * A side that cannot take more stops the other from being read: one buffer each, nothing queued.
 */
#include "bench.h"

enum { CAPACITY = 128 << 10 };

struct side {
    int fd;
    struct side *peer;
    bool ended, connecting, dead;
    uint32_t events;   /* what epoll watches; UINT32_MAX: not yet */
    size_t n, done;    /* bytes read here; of them, written to the peer */
    struct side *next; /* in the list of the dead */
    char buffer[CAPACITY];
};

static int ep;
static struct side *dead;

static void watch(struct side *s, uint32_t events)
{
    if (s->events == events)
        return;
    struct epoll_event e = {.events = events, .data.ptr = s};
    epoll_ctl(ep, s->events == UINT32_MAX ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, s->fd, &e);
    s->events = events;
}

static void watch_both(struct side *s)
{
    for (int i = 0; i < 2; i++, s = s->peer) {
        struct side *p = s->peer;
        uint32_t in =
            !s->ended && !s->n && !s->connecting && !p->connecting ? (uint32_t)EPOLLIN : 0;
        uint32_t out = p->n || s->connecting ? (uint32_t)EPOLLOUT : 0;
        watch(s, in | out);
    }
}

/* Both sides; freed when no event of this round can mean them. */
static void end(struct side *s)
{
    for (int i = 0; i < 2; i++, s = s->peer) {
        if (s->dead)
            return;
        s->dead = true;
        close(s->fd);
        s->next = dead;
        dead = s;
    }
}

/* What s has read goes to its peer, as much as it takes. */
static void push(struct side *s)
{
    while (s->done < s->n) {
        ssize_t w = write(s->peer->fd, s->buffer + s->done, s->n - s->done);
        if (w < 0 && errno == EAGAIN)
            return;
        if (w < 0) {
            end(s);
            return;
        }
        s->done += (size_t)w;
    }
    s->n = s->done = 0;
    if (!s->ended)
        return;
    shutdown(s->peer->fd, SHUT_WR);
    if (s->peer->ended && !s->peer->n)
        end(s);
}

static void pull(struct side *s)
{
    ssize_t r = read(s->fd, s->buffer, CAPACITY);
    if (r < 0 && errno == EAGAIN)
        return;
    if (r < 0) {
        end(s);
        return;
    }
    s->n = (size_t)r;
    s->ended = r == 0;
    push(s);
}

static void on_event(struct side *s, uint32_t events)
{
    int error = 0;
    socklen_t n = sizeof error;
    if (s->dead)
        return;
    if (s->connecting) {
        getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &n);
        s->connecting = false;
        if (error)
            end(s);
    }
    if (!s->dead && events & EPOLLOUT)
        push(s->peer);
    if (!s->dead && events & (EPOLLIN | EPOLLHUP | EPOLLERR) && !s->n && !s->ended)
        pull(s);
    else if (!s->dead && events & EPOLLERR)
        end(s);
    if (!s->dead)
        watch_both(s);
}

static struct side *side_new(int fd)
{
    struct side *s = malloc(sizeof *s);
    if (!s)
        die("out of memory");
    memset(s, 0, offsetof(struct side, buffer));
    s->fd = fd;
    s->events = UINT32_MAX;
    nodelay(fd);
    return s;
}

static void accept_all(int lfd, const union addr *to, socklen_t len)
{
    for (int i = 0; i < 64; i++) {
        int fd = accept4(lfd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        int out = socket(to->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        struct side *a = side_new(fd), *b = side_new(out);
        a->peer = b;
        b->peer = a;
        b->connecting = connect(out, &to->sa, len) < 0;
        if (b->connecting && errno != EINPROGRESS)
            end(a);
        else
            watch_both(a);
    }
}

int main(int argc, char **argv)
{
    union addr to;
    if (argc != 3)
        die("usage: nullproxy LISTEN BACKEND");
    int lfd = listen_on(argv[1]);
    socklen_t len = parse_addr(argv[2], &to);
    signal(SIGPIPE, SIG_IGN);
    ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event le = {.events = EPOLLIN};
    epoll_ctl(ep, EPOLL_CTL_ADD, lfd, &le);
    for (;;) {
        struct epoll_event ev[512];
        int n = epoll_wait(ep, ev, 512, -1);
        for (int i = 0; i < n; i++) {
            if (ev[i].data.ptr)
                on_event(ev[i].data.ptr, ev[i].events);
            else
                accept_all(lfd, &to, len);
        }
        for (struct side *s; (s = dead);) {
            dead = s->next;
            free(s);
        }
    }
}
