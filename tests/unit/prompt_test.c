/* prompt_test.c - what is read for a bufferevent: all of it, in order, no more than there is room
 * for, and the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include <event2/buffer.h>
#include <event2/event.h>

#include "prompt.h"

enum { MOST = 10000, ALL = 1 << 20 };

struct owner {
    struct event_base *base;
    struct bufferevent *bev;
    struct prompt reading;
    int fd; /* the other end */
    bool lazy, tasting;
    size_t got, tasted, longest; /* bytes taken; of them, at once; most that waited */
    short what;
};

static uint8_t byte_at(size_t i)
{
    return (uint8_t)(i % 251);
}

static void check(struct owner *o, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != byte_at(o->got + i))
            fail_msg("byte %zu is another", o->got + i);
    o->got += n;
}

static void take(struct owner *o)
{
    struct evbuffer *in = bufferevent_get_input(o->bev);
    size_t n = evbuffer_get_length(in);
    o->longest = n > o->longest ? n : o->longest;
    if (o->lazy)
        return;
    check(o, evbuffer_pullup(in, -1), n);
    evbuffer_drain(in, n);
}

static size_t taste(void *arg, struct span s)
{
    struct owner *o = arg;
    assert_int_equal(evbuffer_get_length(bufferevent_get_input(o->bev)), 0);
    size_t n = o->tasting ? s.n / 2 : 0;
    check(o, s.p, n);
    o->tasted += n;
    return n;
}

static void on_read(struct bufferevent *bev, void *arg)
{
    struct owner *o = arg;
    assert_ptr_equal(bev, o->bev);
    take(o);
    prompt_go_on(&o->reading);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct owner *o = arg;
    (void)bev;
    assert_int_equal(o->what, 0); /* once */
    o->what = what;
    prompt_go_on(&o->reading);
}

static void open_owner(struct owner *o)
{
    int fd[2];
    *o = (struct owner){.base = event_base_new()};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
    o->fd = fd[1];
    o->bev = bufferevent_socket_new(o->base, fd[0], BEV_OPT_CLOSE_ON_FREE);
    bufferevent_setcb(o->bev, on_read, NULL, on_event, o);
    prompt_begin(&o->reading, o->bev, MOST, taste);
}

static void close_owner(struct owner *o)
{
    prompt_end(&o->reading);
    bufferevent_free(o->bev);
    event_base_free(o->base);
    if (o->fd >= 0)
        close(o->fd);
}

/* As much of ALL as the socket takes. */
static size_t send_from(struct owner *o, size_t at)
{
    static uint8_t piece[5000];
    size_t n = ALL - at < sizeof piece ? ALL - at : sizeof piece;
    for (size_t i = 0; i < n; i++)
        piece[i] = byte_at(at + i);
    ssize_t sent = n ? send(o->fd, piece, n, MSG_NOSIGNAL) : 0;
    return sent > 0 ? (size_t)sent : 0;
}

static void send_all(struct owner *o)
{
    for (size_t at = 0; at < ALL || o->got < ALL;) {
        at += send_from(o, at);
        event_base_loop(o->base, EVLOOP_NONBLOCK);
    }
}

static void all_of_it_in_order(void **state)
{
    (void)state;
    for (int tasting = 0; tasting < 2; tasting++) {
        struct owner o;
        open_owner(&o);
        o.tasting = tasting;
        send_all(&o);
        assert_int_equal(o.got, ALL);
        assert_int_equal(o.tasted > 0, tasting);
        close_owner(&o);
    }
}

static void no_more_than_there_is_room_for(void **state)
{
    (void)state;
    struct owner o;
    open_owner(&o);
    o.lazy = true;
    size_t at = 0;
    for (unsigned idle = 0; idle < 100; idle++) {
        size_t n = send_from(&o, at);
        at += n;
        idle = n ? 0 : idle;
        event_base_loop(o.base, EVLOOP_NONBLOCK);
    }
    assert_true(o.longest >= MOST && o.longest < MOST + PROMPT_ROOM);
    assert_true(at < ALL);
    o.lazy = false;
    take(&o); /* there is room again */
    prompt_go_on(&o.reading);
    while (o.got < ALL) {
        at += send_from(&o, at);
        event_base_loop(o.base, EVLOOP_NONBLOCK);
    }
    close_owner(&o);
}

static void the_end_is_told_once(void **state)
{
    (void)state;
    struct owner o;
    open_owner(&o);
    assert_int_equal(send_from(&o, 0), 5000);
    close(o.fd);
    o.fd = -1;
    for (unsigned i = 0; i < 10; i++)
        event_base_loop(o.base, EVLOOP_NONBLOCK);
    assert_int_equal(o.got, 5000);
    assert_int_equal(o.what, BEV_EVENT_READING | BEV_EVENT_EOF);
    close_owner(&o);
}

static void stopped_it_reads_no_more(void **state)
{
    (void)state;
    struct owner o;
    open_owner(&o);
    prompt_stop(&o.reading);
    prompt_go_on(&o.reading);
    send_from(&o, 0);
    event_base_loop(o.base, EVLOOP_NONBLOCK);
    assert_int_equal(o.longest, 0);
    close_owner(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_of_it_in_order),
        cmocka_unit_test(no_more_than_there_is_room_for),
        cmocka_unit_test(the_end_is_told_once),
        cmocka_unit_test(stopped_it_reads_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
