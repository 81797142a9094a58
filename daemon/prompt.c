/* prompt.c - the loop's part is taken over as long as the socket takes, or has, everything. */
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "prompt.h"

void prompt_rest(struct bufferevent *bev)
{
    if (evbuffer_get_length(bufferevent_get_output(bev)) == 0 && !bufferevent_openssl_get_ssl(bev))
        bufferevent_disable(bev, EV_WRITE);
}

bool prompt_write(struct bufferevent *bev)
{
    struct evbuffer *out = bufferevent_get_output(bev);
    if (evbuffer_get_length(out) == 0 || bufferevent_get_enabled(bev) & EV_WRITE)
        return false;
    evbuffer_unfreeze(out, 1);
    (void)evbuffer_write(out, bufferevent_getfd(bev)); /* what fails here fails in the loop too */
    evbuffer_freeze(out, 1);
    if (evbuffer_get_length(out) == 0)
        return true;
    bufferevent_enable(bev, EV_WRITE);
    return false;
}

/* ---- reading ---- */

void prompt_stop(struct prompt *p)
{
    p->over = true;
    if (p->on && p->readable)
        event_del(p->readable);
    else if (p->on)
        bufferevent_disable(p->bev, EV_READ);
    p->on = false;
}

void prompt_go_on(struct prompt *p)
{
    if (!p->bev || p->over)
        return;
    bool room = evbuffer_get_length(bufferevent_get_input(p->bev)) < p->most;
    if (room == p->on)
        return;
    p->on = room;
    if (!p->readable && room)
        bufferevent_enable(p->bev, EV_READ);
    else if (!p->readable)
        bufferevent_disable(p->bev, EV_READ);
    else if (room ? event_add(p->readable, NULL) : event_del(p->readable))
        abort();
}

static void keep(struct prompt *p, void *arg, struct span s)
{
    struct evbuffer *in = bufferevent_get_input(p->bev);
    if (p->taste && evbuffer_get_length(in) == 0)
        s = span_from(s, p->taste(arg, s));
    evbuffer_unfreeze(in, 0);
    if (s.n && evbuffer_add(in, s.p, s.n))
        abort();
    evbuffer_freeze(in, 0);
}

/* The callbacks may end the owner, and p with it; they say prompt_go_on(). */
static void on_readable(evutil_socket_t fd, short what, void *at)
{
    struct prompt *p = at;
    bufferevent_data_cb read;
    bufferevent_event_cb event;
    void *arg;
    uint8_t room[PROMPT_ROOM];
    (void)what;
    ssize_t n = recv(fd, room, sizeof room, 0);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    bufferevent_getcb(p->bev, &read, NULL, &event, &arg);
    if (n > 0) {
        keep(p, arg, span_of(room, (size_t)n));
        read(p->bev, arg);
        return;
    }
    int error = errno;
    prompt_stop(p);
    errno = error;
    event(p->bev, BEV_EVENT_READING | (n == 0 ? BEV_EVENT_EOF : BEV_EVENT_ERROR), arg);
}

void prompt_begin(struct prompt *p, struct bufferevent *bev, size_t most, prompt_taste_fn *taste)
{
    *p = (struct prompt){.bev = bev, .most = most, .taste = taste};
    bufferevent_disable(bev, EV_READ);
    if (bufferevent_openssl_get_ssl(bev)) {
        prompt_go_on(p);
        return;
    }
    p->readable = event_new(bufferevent_get_base(bev), bufferevent_getfd(bev), EV_READ | EV_PERSIST,
                            on_readable, p);
    if (!p->readable)
        abort();
    prompt_go_on(p);
}

void prompt_end(struct prompt *p)
{
    if (p->readable)
        event_free(p->readable);
    *p = (struct prompt){0};
}
