/*
 * downstream.c - a machine of phases until the session is ready; then commands and replies in
 * order, and the text of a message in pieces as the socket takes it.
 *
 * Invariant: the caller's function gets exactly one reply for the opening and for each command and
 * text, in order, or one "lost" (code 0) and then nothing.
 */
#include <errno.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dot.h"
#include "downstream.h"
#include "id.h"
#include "log.h"
#include "place.h"
#include "prompt.h"
#include "proxyline.h"

enum {
    PIECE = 64 << 10,       /* bytes of text that wait in the output */
    TURNS = 4,              /* pieces written at once, before others have their turn */
    INPUT_MAX = 64 << 10,   /* bytes of replies we let wait */
    TEXT_DEADLINE = 180000, /* ms in which a piece of text has to go (RFC 5321 4.5.3.2.5) */
    ATTRIBUTE_MAX = 128,    /* bytes of a value in XCLIENT: a line of it has 512 at most */
};

enum phase { CONNECTING, BANNER, EHLO, STARTTLS, HANDSHAKE, XCLIENT, READY, LOST };

struct downstream {
    const struct downstream_settings *settings;
    struct downstream_client client; /* spans in the arena */
    struct event_base *base;
    struct bufferevent *bev;
    struct prompt reading;
    struct event *timer;
    downstream_reply_fn *fn;
    void *arg;
    enum phase phase;
    bool secure, introduced; /* TLS is up; XCLIENT was said */
    bool plain, old;         /* TLS failed or was refused; EHLO was: HELO was said */
    bool inside, dead;       /* a callback of ours runs; it was closed meanwhile */
    char why[160];           /* when LOST */
    struct arena *arena;     /* the session's */
    struct arena *spoken;    /* of the replies being read; NULL between them */
    struct smtp_offer offer;
    struct smtp_reply reply;  /* being read */
    struct evbuffer *waiting; /* commands not sent yet, for want of PIPELINING */
    unsigned expected;        /* replies to what was sent */
    bool mail;                /* between MAIL and its end: no QUIT */
    bool text;                /* the next reply is the final one of a message */
    struct body *body;        /* being sent */
    struct body_reader reader;
    struct dot_writer dots;
};

static void arm(struct downstream *d, int64_t ms)
{
    struct timeval tv = clock_timeval(ms);
    if (evtimer_add(d->timer, &tv))
        abort();
}

/* Nothing more is said or heard. */
static void cut(struct downstream *d)
{
    d->phase = LOST;
    body_drop(&d->body);
    event_del(d->timer);
    prompt_stop(&d->reading);
    if (d->bev)
        bufferevent_disable(d->bev, EV_WRITE);
}

/* Told by the timer, so never from inside a call of the owner's. */
static void lose(struct downstream *d, const char *why)
{
    if (d->phase == LOST)
        return;
    cut(d);
    snprintf(d->why, sizeof d->why, "%s", why);
    arm(d, 0);
}

static void put(void *arg, struct span s)
{
    struct downstream *d = arg;
    if (s.n && evbuffer_add(bufferevent_get_output(d->bev), s.p, s.n))
        abort();
}

static void say(struct downstream *d, const char *word, struct span argument)
{
    put(d, span_str(word));
    put(d, argument);
    put(d, SPAN("\r\n"));
    d->expected++;
    arm(d, d->settings->command_deadline);
}

/* ---- who the client is ---- */

static bool attribute_wanted(struct span list, const char *name)
{
    while ((list = span_trim(list)).n) {
        size_t n = span_find(list, ' ');
        if (span_case_eq(span_head(list, n), span_str(name)))
            return true;
        list = span_from(list, n);
    }
    return false;
}

/* A command being written. */
struct line {
    char p[4096];
    size_t n;
};

static void add(struct line *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add(struct line *l, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(l->p + l->n, sizeof l->p - l->n, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof l->p - l->n)
        abort(); /* the values have limits */
    l->n += (size_t)n;
}

/* " NAME=value" in xtext; an empty value is said to be unavailable, and so is one too long. */
static void add_attribute(struct line *l, struct span list, const char *name, struct span v)
{
    if (!attribute_wanted(list, name))
        return;
    add(l, " %s=%s", name, v.n == 0 || v.n > ATTRIBUTE_MAX ? "[UNAVAILABLE]" : "");
    for (size_t i = 0; v.n <= ATTRIBUTE_MAX && i < v.n; i++) {
        bool plain = v.p[i] > ' ' && v.p[i] < 127 && v.p[i] != '+' && v.p[i] != '=';
        add(l, plain ? "%c" : "+%02X", v.p[i]);
    }
}

/* list: the attributes that are wanted. */
static void tell_client(struct line *l, const char *verb, struct span list,
                        const struct downstream_client *c)
{
    char address[IPADDR_TEXT + 5] = "", port[8] = "";
    size_t skip = c->address.family == 6 ? 5 : 0;
    if (c->address.family) {
        memcpy(address, "IPV6:", skip);
        ipaddr_print(&c->address, address + skip);
    }
    if (c->port)
        snprintf(port, sizeof port, "%u", c->port);
    l->n = 0;
    add(l, "%s", verb);
    add_attribute(l, list, "NAME", c->name);
    add_attribute(l, list, "ADDR", span_str(address));
    add_attribute(l, list, "PORT", span_str(port));
    add_attribute(l, list, "PROTO", c->esmtp ? SPAN("ESMTP") : SPAN("SMTP"));
    add_attribute(l, list, "HELO", c->helo);
    if (c->login.n)
        add_attribute(l, list, "LOGIN", c->login);
}

static void put_proxy(struct downstream *d)
{
    struct sockaddr_storage sa;
    socklen_t n;
    struct ipaddr server = {0};
    uint8_t out[128];
    uint16_t port = 0;
    if (place_address(span_str(d->settings->to), &sa, &n) && sa.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&sa;
        server.family = 4;
        server.byte[10] = server.byte[11] = 0xff;
        memcpy(server.byte + 12, &in->sin_addr, 4);
        port = ntohs(in->sin_port);
    } else if (n && sa.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)&sa;
        server.family = 6;
        memcpy(server.byte, &in->sin6_addr, 16);
        port = ntohs(in->sin6_port);
    }
    put(d, span_of(out, proxyline_write(out, sizeof out, (int)d->settings->proxy_protocol,
                                        &d->client.address, d->client.port, &server, port)));
}

/* ---- opening ---- */

/* May it stand in a command of ours? */
static bool is_word(struct span s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] <= ' ' || s.p[i] >= 127)
            return false;
    return s.n > 0;
}

static void say_hello(struct downstream *d, const char *verb)
{
    bool theirs = d->settings->xclient && is_word(d->client.helo);
    say(d, verb, theirs ? d->client.helo : span_str(d->settings->helo));
}

static void greet(struct downstream *d)
{
    d->phase = EHLO;
    d->offer = (struct smtp_offer){0};
    say_hello(d, "EHLO ");
}

static void ready(struct downstream *d, struct span text)
{
    d->phase = READY;
    event_del(d->timer);
    d->fn(d->arg, 220, text);
}

/* XCLIENT, where it is wanted and was not said yet; else all is ready. */
static void introduce(struct downstream *d)
{
    if (d->settings->xclient && d->offer.xclient.p && !d->introduced) {
        struct line l;
        d->phase = XCLIENT;
        d->introduced = true;
        tell_client(&l, "XCLIENT", d->offer.xclient, &d->client);
        say(d, "", span_of(l.p, l.n));
    } else {
        ready(d, d->reply.text);
    }
}

/* RFC 5321 3.2: who does not know EHLO may know HELO. It offers nothing then. */
static void after_ehlo(struct downstream *d, int code)
{
    if ((code == 500 || code == 502) && !d->old) {
        d->old = true;
        say_hello(d, "HELO ");
        return;
    }
    if (code / 100 != 2) {
        lose(d, "the server behind refuses EHLO");
        return;
    }
    smtp_offer_read(&d->offer, d->arena, &d->reply);
    bool tls = d->settings->tls && !d->secure && !d->plain;
    if (tls && d->offer.starttls) {
        d->phase = STARTTLS;
        say(d, "STARTTLS", span_of(NULL, 0));
    } else if (tls && d->settings->tls_required) {
        lose(d, "the server behind offers no STARTTLS");
    } else {
        introduce(d);
    }
}

static void set_callbacks(struct downstream *);

static void after_starttls(struct downstream *d, int code)
{
    if (code != 220 && d->settings->tls_required) {
        lose(d, "the server behind refuses STARTTLS");
        return;
    }
    if (code != 220) {
        d->plain = true;
        introduce(d);
        return;
    }
    /* What came after the 220 was not said under TLS: it goes (CVE-2011-0411's twin). */
    prompt_end(&d->reading);
    struct bufferevent *over = tls_start(d->settings->tls, d->bev, false);
    if (!over) {
        lose(d, "TLS with the server behind cannot be begun");
        return;
    }
    d->bev = over;
    d->phase = HANDSHAKE;
    set_callbacks(d);
    prompt_begin(&d->reading, d->bev, INPUT_MAX, NULL);
    arm(d, d->settings->connect_deadline);
}

static void opening(struct downstream *d, int code)
{
    switch (d->phase) {
    case BANNER:
        if (code == 220)
            greet(d);
        else
            lose(d, "the server behind does not greet");
        break;
    case EHLO:
        after_ehlo(d, code);
        break;
    case STARTTLS:
        after_starttls(d, code);
        break;
    case XCLIENT:
        if (code == 220)
            greet(d);
        else
            lose(d, "the server behind refuses XCLIENT");
        break;
    default:
        lose(d, "the server behind spoke out of turn");
    }
}

/* ---- replies ---- */

static void send_waiting(struct downstream *d)
{
    size_t n;
    char *line = evbuffer_readln(d->waiting, &n, EVBUFFER_EOL_CRLF_STRICT);
    if (!line)
        return;
    say(d, "", span_of(line, n));
    free(line);
}

/* A whole reply is there. */
static void answered(struct downstream *d)
{
    int code = d->reply.code;
    struct span text = d->reply.text;
    if (code < 0) {
        lose(d, "what the server behind says is not SMTP");
        return;
    }
    if (code == 421) { /* it closes: nothing of what was asked was done */
        char why[160];
        snprintf(why, sizeof why, "the server behind closes: %.*s",
                 SPAN_ARG(span_head(text, span_find(text, '\r'))));
        lose(d, why);
        return;
    }
    if (d->expected == 0) {
        lose(d, "the server behind spoke out of turn");
        return;
    }
    if (--d->expected)
        arm(d, d->settings->command_deadline);
    else
        event_del(d->timer);
    if (d->phase != READY) {
        opening(d, code);
        return;
    }
    bool early = d->text && (d->body || evbuffer_get_length(bufferevent_get_output(d->bev)));
    d->text = false;
    if (early && code < 400) {
        lose(d, "the server behind takes a message it has not seen");
        return;
    }
    if (early) /* no command can follow */
        cut(d);
    else if (d->expected == 0)
        send_waiting(d);
    d->fn(d->arg, code, text);
}

static bool read_line(struct downstream *d)
{
    size_t n;
    char *line = evbuffer_readln(bufferevent_get_input(d->bev), &n, EVBUFFER_EOL_CRLF);
    if (!line)
        return false;
    if (!d->spoken)
        d->spoken = arena_little();
    bool whole = smtp_reply_line(&d->reply, d->spoken, span_of(line, n));
    free(line);
    if (!whole)
        return true;
    answered(d);
    d->reply = (struct smtp_reply){0};
    arena_free(&d->spoken);
    return true;
}

/* ---- the text ---- */

static void send_text(struct downstream *d)
{
    uint8_t room[BODY_ROOM];
    struct span s;
    int more = 1;
    while (d->body && evbuffer_get_length(bufferevent_get_output(d->bev)) < PIECE) {
        more = body_next(d->body, &d->reader, room, &s);
        if (more < 0) {
            lose(d, "the message cannot be read back");
            return; /* no dot was sent */
        }
        if (more) {
            dot_write(&d->dots, s, put, d);
            continue;
        }
        dot_end(&d->dots, put, d);
        body_drop(&d->body);
    }
    arm(d, d->body ? TEXT_DEADLINE : d->settings->final_deadline);
}

/* ---- the loop's side ---- */

void downstream_push(struct downstream *d)
{
    if (d->phase == CONNECTING)
        return;
    for (int i = 0; d->phase != LOST && prompt_write(d->bev) && d->body; i++) {
        send_text(d);
        if (i == TURNS && d->phase != LOST) {
            bufferevent_enable(d->bev, EV_WRITE);
            return;
        }
    }
}

static void leave(struct downstream *d)
{
    if (!d->dead)
        downstream_push(d);
    d->inside = false;
    if (!d->dead) {
        prompt_go_on(&d->reading);
        return;
    }
    prompt_end(&d->reading);
    if (d->bev)
        bufferevent_free(d->bev);
    event_free(d->timer);
    evbuffer_free(d->waiting);
    body_drop(&d->body);
    arena_free(&d->arena);
    arena_free(&d->spoken);
    free(d);
}

static void on_read(struct bufferevent *bev, void *arg)
{
    struct downstream *d = arg;
    (void)bev;
    d->inside = true;
    while (!d->dead && d->phase != LOST && d->phase != HANDSHAKE && read_line(d))
        ;
    if (!d->dead && d->phase != LOST &&
        evbuffer_get_length(bufferevent_get_input(d->bev)) >= INPUT_MAX)
        lose(d, "the server behind says too much");
    leave(d);
}

static void on_write(struct bufferevent *bev, void *arg)
{
    struct downstream *d = arg;
    d->inside = true;
    if (d->body && d->phase == READY)
        send_text(d);
    prompt_rest(bev);
    leave(d);
}

static void begin(struct downstream *);

/* TLS was begun and came to nothing, which is no reason to keep mail waiting where it need not be:
 * all over again without it, once. false: it has to be. */
static bool again_in_plain(struct downstream *d, const char *why)
{
    if (d->phase != HANDSHAKE || d->settings->tls_required)
        return false;
    log_say(LOG_LEVEL_NOTICE, "%s: TLS failed: %s; going on without it", d->settings->to, why);
    prompt_end(&d->reading);
    bufferevent_free(d->bev);
    d->bev = NULL;
    d->phase = CONNECTING;
    d->plain = true;
    begin(d);
    return true;
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct downstream *d = arg;
    char why[160];
    (void)bev;
    d->inside = true;
    if (what & BEV_EVENT_CONNECTED && d->phase == HANDSHAKE) {
        d->secure = true;
        greet(d);
    } else if (what & BEV_EVENT_CONNECTED) {
        d->phase = BANNER;
        d->expected = 1;
        prompt_begin(&d->reading, d->bev, INPUT_MAX, NULL);
        if (d->settings->proxy_protocol)
            put_proxy(d);
    } else {
        const char *tls = tls_trouble(d->bev);
        const char *trouble = what & BEV_EVENT_EOF ? "closed" : tls ? tls : strerror(errno);
        snprintf(why, sizeof why, "%s: %s",
                 d->phase == CONNECTING  ? "the server behind cannot be reached"
                 : d->phase == HANDSHAKE ? "TLS with the server behind failed"
                                         : "the server behind is gone",
                 trouble);
        if (!again_in_plain(d, trouble))
            lose(d, why);
    }
    leave(d);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct downstream *d = arg;
    (void)fd, (void)what;
    d->inside = true;
    if (d->phase == LOST)
        d->fn(d->arg, 0, span_str(d->why));
    else if (!again_in_plain(d, "no handshake in time"))
        lose(d, d->phase == READY        ? "the server behind does not answer in time"
                : d->phase == CONNECTING ? "the server behind cannot be reached"
                                         : "the server behind did not get ready in time");
    leave(d);
}

static void set_callbacks(struct downstream *d)
{
    bufferevent_setcb(d->bev, on_read, on_write, on_event, d);
    bufferevent_setwatermark(d->bev, EV_WRITE, PIECE / 2, 0);
    bufferevent_enable(d->bev, EV_WRITE);
    prompt_rest(d->bev);
}

/* Begins to connect; what cannot be begun is told by the timer, never from inside the call. */
static void begin(struct downstream *d)
{
    struct sockaddr_storage sa;
    socklen_t n;
    int on = 1, fd;
    arm(d, d->settings->connect_deadline);
    if (!place_address(span_str(d->settings->to), &sa, &n) ||
        (fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) < 0) {
        arm(d, 0);
        return;
    }
    if (sa.ss_family != AF_UNIX)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    d->bev = bufferevent_socket_new(d->base, fd, BEV_OPT_CLOSE_ON_FREE);
    if (!d->bev)
        abort();
    set_callbacks(d);
    if (bufferevent_socket_connect(d->bev, (struct sockaddr *)&sa, (int)n))
        arm(d, 0);
}

struct downstream *downstream_open(struct event_base *base,
                                   const struct downstream_settings *settings,
                                   const struct downstream_client *client, downstream_reply_fn *fn,
                                   void *arg)
{
    struct downstream *d = calloc(1, sizeof *d);
    if (!d || !(d->timer = evtimer_new(base, on_timer, d)) || !(d->waiting = evbuffer_new()))
        abort();
    d->settings = settings;
    d->arena = arena_little();
    d->client = *client;
    d->client.name = arena_span(d->arena, client->name);
    d->client.helo = arena_span(d->arena, client->helo);
    d->client.login = arena_span(d->arena, client->login);
    d->base = base;
    d->fn = fn;
    d->arg = arg;
    begin(d);
    return d;
}

const struct smtp_offer *downstream_offer(const struct downstream *d)
{
    return &d->offer;
}

void downstream_command(struct downstream *d, struct span line)
{
    if (d->phase == LOST)
        return;
    if (span_case_starts(line, SPAN("MAIL")))
        d->mail = true;
    else if (span_case_starts(line, SPAN("RSET")))
        d->mail = false;
    if (d->expected && !d->offer.pipelining) {
        evbuffer_add(d->waiting, line.p, line.n);
        evbuffer_add(d->waiting, "\r\n", 2);
    } else {
        say(d, "", line);
    }
}

void downstream_forward(struct downstream *d, const struct downstream_client *client)
{
    struct line l;
    tell_client(&l, "XFORWARD", d->offer.xforward, client);
    downstream_command(d, span_of(l.p, l.n));
}

void downstream_data(struct downstream *d, struct span fields, struct body *body)
{
    if (d->phase == LOST)
        return;
    if (evbuffer_get_length(bufferevent_get_input(d->bev))) { /* no reply to this can be here yet */
        lose(d, "the server behind spoke out of turn");
        return;
    }
    d->body = body_hold(body);
    d->text = true;
    d->reader = (struct body_reader){0};
    d->dots = (struct dot_writer){0};
    d->expected++;
    d->mail = false;
    dot_write(&d->dots, fields, put, d);
    send_text(d);
}

bool downstream_speaks(const struct downstream *d)
{
    if (d->phase == LOST || !d->bev)
        return false;
    struct evbuffer *in = bufferevent_get_input(d->bev);
    return evbuffer_get_length(in) &&
           evbuffer_search_eol(in, NULL, NULL, EVBUFFER_EOL_CRLF).pos >= 0;
}

bool downstream_alive(const struct downstream *d)
{
    return d->phase == READY;
}

void downstream_close(struct downstream **dp)
{
    struct downstream *d = *dp;
    *dp = NULL;
    if (!d)
        return;
    if (d->phase == READY && !d->expected && !d->mail && !d->body &&
        evbuffer_get_length(bufferevent_get_output(d->bev)) == 0)
        tls_say_last(d->bev, "QUIT\r\n"); /* goes at once if it can, or not at all */
    d->phase = LOST;
    d->dead = true;
    bool inside = d->inside;
    if (!inside)
        leave(d);
}
