/*
 * outbound_reply_fuzz.c - a server whose every word is the fuzzer's. Byte 0xff ends what it says at
 * once; each time the client says something the next part follows; then it closes.
 *
 * done is called once; every code is 0 or one of SMTP's; nobody is delivered to before the final
 * dot; the texts are clean.
 */
#include "../../daemon/outbound.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RCPTS = 3 };
struct scene {
    struct span rest;
    struct evbuffer *heard;
    unsigned done;
};

static void say_next(struct bufferevent *bev, struct scene *sc)
{
    struct span part = span_head(sc->rest, span_find(sc->rest, 0xff));
    if (sc->rest.n == 0) {
        bufferevent_flush(bev, EV_WRITE, BEV_FINISHED);
        return;
    }
    sc->rest = span_from(sc->rest, part.n + 1);
    if (part.n)
        bufferevent_write(bev, part.p, part.n);
}

static void on_client(struct bufferevent *bev, void *arg)
{
    struct scene *sc = arg;
    evbuffer_add_buffer(sc->heard, bufferevent_get_input(bev));
    say_next(bev, sc);
}

static void on_done(void *arg, struct outbound_mail *m)
{
    struct scene *sc = arg;
    bool dot = evbuffer_search(sc->heard, "\r\n.\r\n", 5, NULL).pos >= 0;
    sc->done++;
    for (size_t i = 0; i < m->nrcpts; i++) {
        const struct outbound_rcpt *r = &m->rcpts[i];
        bool refusal = r->code >= 400 && r->code <= 599;
        if (r->code != 0 && !refusal && (r->code / 100 != 2 || !dot))
            abort();
        if (!r->reply[0] || strlen(r->reply) >= sizeof r->reply)
            abort();
        for (const char *p = r->reply; *p; p++)
            if (*p < ' ' || *p > '~')
                abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct event_base *base = event_base_new();
    struct scene sc = {.rest = span_of(data, size), .heard = evbuffer_new()};
    struct outbound_rcpt rcpts[RCPTS] = {{.path = SPAN("b@b")},
                                         {.path = SPAN("c@c")},
                                         {.path = SPAN("d@d"), .params = SPAN("NOTIFY=NEVER")}};
    struct outbound_mail m = {.to = "127.0.0.1:1",
                              .helo = "us",
                              .bytes = (const uint8_t *)"a: b\r\n\r\n.\n",
                              .nbytes = 10,
                              .rcpts = rcpts,
                              .nrcpts = RCPTS,
                              .deadline = 1000000};
    struct bufferevent *pair[2];
    bufferevent_pair_new(base, 0, pair);
    bufferevent_setcb(pair[1], on_client, NULL, NULL, &sc);
    bufferevent_enable(pair[1], EV_READ | EV_WRITE);

    struct outbound *o = outbound_send(base, &m, on_done, &sc);
    o->bev = pair[0]; /* connected already */
    o->step = STEP_BANNER;
    arm(o);
    bufferevent_setcb(o->bev, on_read, on_write, on_event, o);
    bufferevent_setwatermark(o->bev, EV_READ, 0, INPUT_MAX);
    bufferevent_enable(o->bev, EV_READ | EV_WRITE);
    say_next(pair[1], &sc);
    while (!sc.done) {
        size_t before = sc.rest.n;
        event_base_loop(base, EVLOOP_NONBLOCK);
        if (!sc.done && sc.rest.n == before) /* nobody has anything to say: go on */
            say_next(pair[1], &sc);
    }
    event_base_loop(base, EVLOOP_NONBLOCK);
    if (sc.done != 1)
        abort();
    bufferevent_free(pair[1]);
    evbuffer_free(sc.heard);
    event_base_free(base);
    return 0;
}
