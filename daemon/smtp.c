/*
 * smtp.c - one client of the SMTP door: its connection, its lines, its data, and the replies in
 * their order.
 *
 * Replies: a command that downstream answers takes its turn in a ring; downstream's replies and
 * ours leave in the order of the commands, so that a client may send many at once (RFC 2920).
 * Commands that change what others mean wait until the ring is empty.
 *
 * Invariants: exactly one reply a command; nothing of a message is in the session but the tx; what
 * follows STARTTLS or DATA in the same breath is never obeyed.
 */
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proxyline.h"
#include "smtp.h"
#include "smtp_own.h"

enum {
    PROXY_MS = 5000,
    TLS_MS = 30000,
    CLOSE_MS = 10000, /* for our last words to be read */
    LOOK_MS = 60000,  /* how often the rate of data is looked at */
    PIECE = 16 << 10, /* bytes of data handed on at once */
};

/* ---- ends ---- */

static void session_free(struct session *s)
{
    tx_end(&s->tx);
    downstream_close(&s->down);
    if (s->entered)
        clients_leave(smtp_doors_clients(s->worker->pipeline->doors), &s->client.address);
    worker_part(s->worker, &s->connection);
    smtp_door_drop(&s->door);
    event_free(s->timer);
    bufferevent_free(s->bev);
    free(s->again);
    free(s);
}

/* Every callback begins with enter() and ends with leave(): a session that ended in between is
 * freed when nobody works on it any more. */
static void enter(struct session *s)
{
    s->inside = true;
}

static void leave(struct session *s)
{
    s->inside = false;
    if (s->dead)
        session_free(s);
}

static void die(struct session *s)
{
    s->dead = true;
    bufferevent_disable(s->bev, EV_READ | EV_WRITE);
}

/* ---- speaking ---- */

void smtp_say_text(struct session *s, struct span text)
{
    if (text.n && evbuffer_add(bufferevent_get_output(s->bev), text.p, text.n))
        abort();
}

void smtp_say(struct session *s, const char *line)
{
    smtp_say_text(s, span_str(line));
    smtp_say_text(s, SPAN("\r\n"));
}

void smtp_close(struct session *s, const char *last)
{
    if (last)
        smtp_say(s, last);
    if (evbuffer_get_length(bufferevent_get_output(s->bev)) == 0)
        die(s);
    else
        smtp_stage(s, STAGE_CLOSING);
}

void smtp_stage(struct session *s, enum stage stage)
{
    const struct config *c = s->door->config;
    int64_t ms = stage == STAGE_PROXY                            ? PROXY_MS
                 : stage == STAGE_TLS || stage == STAGE_STARTTLS ? TLS_MS
                 : stage == STAGE_COMMAND || stage == STAGE_AUTH ? c->smtp_idle
                 : stage == STAGE_DATA || stage == STAGE_DISCARD ? LOOK_MS
                 : stage == STAGE_CLOSING                        ? CLOSE_MS
                                                                 : 0;
    s->stage = stage;
    if (!ms) {
        event_del(s->timer); /* tx and downstream have deadlines of their own */
        return;
    }
    struct timeval tv = clock_timeval(ms);
    if (evtimer_add(s->timer, &tv))
        abort();
}

struct turn *smtp_turn(struct session *s, enum turn_kind kind)
{
    struct turn *t = &s->turn[(s->first + s->turns++) % TURNS_MAX];
    *t = (struct turn){.kind = kind};
    return t;
}

static struct turn take_turn(struct session *s)
{
    struct turn t = s->turn[s->first];
    s->first = (s->first + 1) % TURNS_MAX;
    s->turns--;
    return t;
}

/* Our own replies whose turn it is. */
static void say_turns(struct session *s)
{
    while (s->turns && s->turn[s->first].kind == TURN_LOCAL)
        smtp_say(s, take_turn(s).text);
}

void smtp_forget(struct session *s)
{
    if (!s->tx)
        return;
    tx_end(&s->tx);
    s->mail = s->forwarded = false;
    s->asked = 0;
    if (s->down && downstream_alive(s->down)) {
        smtp_turn(s, TURN_SILENT);
        downstream_command(s->down, SPAN("RSET"));
    }
}

/* ---- what downstream says ---- */

static void replied(struct session *s, int code, struct span text)
{
    struct turn t = take_turn(s);
    if (t.kind != TURN_SILENT)
        smtp_say_text(s, text);
    if (t.kind == TURN_MAIL && code / 100 != 2) {
        tx_end(&s->tx);
        s->asked = 0;
    } else if (t.kind == TURN_MAIL) {
        s->mail = true;
    } else if (t.kind == TURN_RCPT && code / 100 == 2 && s->tx) {
        char bracketed[LIMIT_ADDRESS + 2];
        int n = snprintf(bracketed, sizeof bracketed, "<%.*s>", SPAN_ARG(t.path));
        if (tx_recipient(s->tx, span_of(bracketed, (size_t)n), t.params) < 0)
            tx_end(&s->tx); /* beyond what any MTA takes: DATA will be refused */
    } else if (t.kind == TURN_AUTH) {
        s->authed = code == 235;
        if (code == 334)
            smtp_stage(s, STAGE_AUTH);
    }
    say_turns(s);
}

/* All that was asked is answered with what can be said. */
static void lost(struct session *s)
{
    downstream_close(&s->down);
    while (s->turns) {
        struct turn t = take_turn(s);
        if (t.kind == TURN_LOCAL)
            smtp_say(s, t.text);
        else if (t.kind == TURN_AUTH)
            smtp_say(s, "454 4.7.0 the mail server behind was lost; please try again later");
        else if (t.kind != TURN_SILENT)
            smtp_say(s, "451 4.4.2 the mail server behind was lost; please try again later");
        if (t.kind == TURN_MAIL)
            tx_end(&s->tx);
    }
    if (s->authed) /* it knew who the client is: nobody else can be told */
        smtp_close(s, "421 4.4.2 the mail server behind was lost; please connect again");
}

static void opened(struct session *s, int code)
{
    smtp_stage(s, STAGE_COMMAND);
    if (code == 220 && s->again) {
        char *line = s->again;
        s->again = NULL;
        (void)smtp_obey(s, span_str(line));
        free(line);
        return;
    }
    if (code == 220) {
        smtp_answer_ehlo(s);
        return;
    }
    downstream_close(&s->down);
    if (s->again)
        smtp_say(s, "451 4.4.1 the mail server behind cannot be reached; please try again later");
    else
        smtp_close(s, "421 4.4.1 the mail server behind cannot be reached; please try again later");
    free(s->again);
    s->again = NULL;
}

static void on_downstream(void *arg, int code, struct span text)
{
    struct session *s = arg;
    bool outer = !s->inside;
    enter(s);
    if (s->stage == STAGE_OPENING)
        opened(s, code);
    else if (s->stage == STAGE_DELIVER && !s->turns)
        smtp_delivery_reply(s, code, text);
    else if (code == 0)
        lost(s);
    else if (s->turns)
        replied(s, code, text);
    smtp_go_on(s);
    if (outer)
        leave(s);
}

void smtp_open_downstream(struct session *s)
{
    const struct speaker *c = &s->client;
    struct downstream_client client = {.address = c->address,
                                       .port = c->port,
                                       .name = span_str(c->name),
                                       .helo = span_str(c->helo),
                                       .login = span_str(c->login),
                                       .esmtp = c->esmtp};
    downstream_close(&s->down);
    s->down = downstream_open(s->worker->base, &s->door->down, &client, on_downstream, s);
}

/* ---- the client's side: PROXY, TLS ---- */

static bool is_upstream(const struct session *s)
{
    const struct listener *l = s->door->listener;
    for (size_t i = 0; i < l->nupstreams; i++)
        if (netmask_has(&l->upstreams[i], &s->peer))
            return true;
    return false;
}

static void greet(struct session *s)
{
    char line[NAME_MAX_BYTES + 32];
    snprintf(line, sizeof line, "220 %.255s ESMTP", s->door->down.helo);
    smtp_say(s, line);
    smtp_stage(s, STAGE_COMMAND);
}

/* Who the client is stands now: may it come in? */
static void begin(struct session *s)
{
    const char *no = clients_enter(smtp_doors_clients(s->worker->pipeline->doors),
                                   &s->client.address, s->upstream);
    if (no) {
        smtp_close(s, no);
        return;
    }
    s->entered = true;
    if (s->door->listener->implicit && s->door->tls)
        smtp_starttls(s);
    else
        greet(s);
}

static void read_proxy(struct session *s)
{
    struct evbuffer *in = bufferevent_get_input(s->bev);
    struct proxyline p;
    size_t n = evbuffer_get_length(in);
    enum proxyline_state state = proxyline_read(&p, span_of(evbuffer_pullup(in, -1), n));
    if (state == PROXYLINE_MORE)
        return;
    if (state == PROXYLINE_BAD) {
        die(s);
        return;
    }
    evbuffer_drain(in, p.used);
    if (p.known) {
        s->client.address = p.client;
        s->client.port = p.port;
    }
    begin(s);
}

static void set_callbacks(struct session *);

void smtp_starttls(struct session *s)
{
    struct bufferevent *over = tls_start(s->door->tls, s->bev, true);
    if (!over) {
        die(s);
        return;
    }
    s->bev = over;
    s->greeted = false;
    smtp_stage(s, STAGE_TLS);
    set_callbacks(s);
}

static void shaken(struct session *s)
{
    s->secure = true;
    if (s->door->listener->implicit)
        greet(s);
    else
        smtp_stage(s, STAGE_COMMAND);
}

/* ---- the client's side: data ---- */

/* Small pieces gathered, so that the rest sees few large ones. */
struct gather {
    struct session *s;
    size_t n;
    uint8_t bytes[PIECE];
};

static void hand_on(struct gather *g)
{
    struct session *s = g->s;
    s->received += g->n;
    if (s->received > s->door->config->smtp_message_size)
        s->stage = STAGE_DISCARD;
    if (s->stage == STAGE_DATA)
        tx_raw(s->tx, span_of(g->bytes, g->n));
    g->n = 0;
}

static void gather(void *arg, struct span piece)
{
    struct gather *g = arg;
    while (piece.n) {
        size_t n = piece.n < sizeof g->bytes - g->n ? piece.n : sizeof g->bytes - g->n;
        memcpy(g->bytes + g->n, piece.p, n);
        g->n += n;
        piece = span_from(piece, n);
        if (g->n == sizeof g->bytes)
            hand_on(g);
    }
}

static void judged_later(void *arg, struct tx *tx)
{
    struct session *s = arg;
    (void)tx;
    enter(s);
    smtp_judged(s);
    smtp_go_on(s);
    leave(s);
}

static void end_data(struct session *s)
{
    const char *no = NULL;
    if (s->stage == STAGE_DISCARD)
        no = "552 5.3.4 the message is larger than is taken here";
    else if (s->door->listener->refuse_bare && (s->dots.bare_cr || s->dots.bare_lf))
        no = "550 5.6.11 the message holds CR or LF outside of a line end";
    smtp_stage(s, STAGE_COMMAND);
    if (no) {
        smtp_forget(s);
        smtp_turn(s, TURN_LOCAL)->text = no;
        say_turns(s);
        return;
    }
    smtp_stage(s, STAGE_JUDGE);
    if (tx_judge(s->tx, judged_later, s) == TX_DONE)
        smtp_judged(s);
}

static void read_data(struct session *s)
{
    struct evbuffer *in = bufferevent_get_input(s->bev);
    struct gather g = {.s = s};
    size_t n;
    while ((n = evbuffer_get_contiguous_space(in)) && !s->dots.done) {
        size_t used =
            dot_read(&s->dots, span_of(evbuffer_pullup(in, (ev_ssize_t)n), n), gather, &g);
        evbuffer_drain(in, used);
    }
    if (g.n)
        hand_on(&g);
    if (s->dots.done)
        end_data(s);
}

/* ---- the client's side: lines ---- */

/* One line, if it is there and may be obeyed. */
static bool read_line(struct session *s)
{
    struct evbuffer *in = bufferevent_get_input(s->bev);
    size_t eol, most = s->stage == STAGE_AUTH ? SMTP_AUTH_MAX : SMTP_COMMAND_MAX;
    struct evbuffer_ptr end = evbuffer_search_eol(in, NULL, &eol, EVBUFFER_EOL_CRLF);
    size_t n = end.pos < 0 ? evbuffer_get_length(in) : (size_t)end.pos;
    if (s->stage == STAGE_COMMAND && n > SMTP_COMMAND_MAX && n <= SMTP_AUTH_MAX)
        most = SMTP_AUTH_MAX; /* AUTH with an initial response (RFC 4954 4) */
    if (n > most) {
        smtp_close(s, "500 5.5.2 the line is too long");
        return false;
    }
    if (end.pos < 0)
        return false;
    const uint8_t *p = evbuffer_pullup(in, (ev_ssize_t)(n + eol));
    if (s->stage == STAGE_AUTH) {
        smtp_auth_answer(s, span_of(p, n));
    } else {
        char line[SMTP_AUTH_MAX + 1];
        memcpy(line, p, n); /* the input may change while it is obeyed */
        if (!smtp_obey(s, span_of(line, n)))
            return false;
    }
    if (!s->dead && s->stage != STAGE_TLS)
        evbuffer_drain(bufferevent_get_input(s->bev), n + eol);
    return true;
}

void smtp_go_on(struct session *s)
{
    while (!s->dead) {
        size_t out = evbuffer_get_length(bufferevent_get_output(s->bev));
        if (s->stage == STAGE_DATA || s->stage == STAGE_DISCARD) {
            read_data(s);
            if (s->stage == STAGE_DATA || s->stage == STAGE_DISCARD)
                return;
        } else if ((s->stage != STAGE_COMMAND && s->stage != STAGE_AUTH) || out > OUTPUT_MAX ||
                   s->turns == TURNS_MAX || !read_line(s)) {
            return;
        }
        say_turns(s);
    }
}

/* ---- the loop's side ---- */

static void on_read(struct bufferevent *bev, void *arg)
{
    struct session *s = arg;
    (void)bev;
    enter(s);
    if (s->stage == STAGE_PROXY)
        read_proxy(s);
    if (s->stage == STAGE_COMMAND && s->turns == 0)
        smtp_stage(s, STAGE_COMMAND); /* the client lives */
    smtp_go_on(s);
    leave(s);
}

/* All is written. */
static void on_write(struct bufferevent *bev, void *arg)
{
    struct session *s = arg;
    (void)bev;
    enter(s);
    if (s->stage == STAGE_CLOSING)
        die(s);
    else if (s->stage == STAGE_STARTTLS)
        smtp_starttls(s);
    else
        smtp_go_on(s);
    leave(s);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct session *s = arg;
    (void)bev;
    enter(s);
    if (what & BEV_EVENT_CONNECTED && s->stage == STAGE_TLS)
        shaken(s);
    else if (what & BEV_EVENT_EOF && s->stage >= STAGE_JUDGE && s->stage <= STAGE_DELIVER)
        bufferevent_disable(s->bev, EV_READ); /* it may still listen to the final reply */
    else if (!(what & BEV_EVENT_CONNECTED))
        die(s);
    leave(s);
}

static void too_slow(struct session *s)
{
    uint64_t due = s->door->config->smtp_min_rate * (LOOK_MS / 1000);
    if (s->received - s->looked < due) {
        smtp_close(s, "421 4.4.2 the data comes too slowly");
        return;
    }
    s->looked = s->received;
    smtp_stage(s, s->stage);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct session *s = arg;
    (void)fd, (void)what;
    enter(s);
    if (s->stage == STAGE_DATA || s->stage == STAGE_DISCARD)
        too_slow(s);
    else if (s->stage == STAGE_COMMAND || s->stage == STAGE_AUTH)
        smtp_close(s, "421 4.4.2 nothing was said for too long");
    else
        die(s);
    leave(s);
}

static void set_callbacks(struct session *s)
{
    bufferevent_setcb(s->bev, on_read, on_write, on_event, s);
    bufferevent_setwatermark(s->bev, EV_READ, 0, INPUT_MAX);
    bufferevent_enable(s->bev, EV_READ | EV_WRITE);
}

/* We stop: between messages it is told so, inside one it may finish. */
static void leave_client(struct connection *c, bool now)
{
    struct session *s = (struct session *)c;
    enter(s);
    if (now)
        die(s);
    else if (s->stage == STAGE_COMMAND && !s->tx && !s->turns)
        smtp_close(s, "421 4.3.2 going down; please connect again later");
    leave(s);
}

static void peer_of(int fd, struct ipaddr *ip, uint16_t *port)
{
    struct sockaddr_storage sa;
    socklen_t n = sizeof sa;
    *ip = (struct ipaddr){0};
    if (getpeername(fd, (struct sockaddr *)&sa, &n))
        return;
    if (sa.ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&sa;
        ip->family = 4;
        ip->byte[10] = ip->byte[11] = 0xff;
        memcpy(ip->byte + 12, &in->sin_addr, 4);
        *port = ntohs(in->sin_port);
    } else if (sa.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)&sa;
        ip->family = IN6_IS_ADDR_V4MAPPED(&in->sin6_addr) ? 4 : 6;
        memcpy(ip->byte, &in->sin6_addr, 16);
        *port = ntohs(in->sin6_port);
    }
}

void smtp_accept(struct worker *worker, int fd, const struct listener *listener)
{
    struct smtp_door *door = smtp_door_take(worker->pipeline->doors, listener->name);
    if (!door) {
        close(fd);
        return;
    }
    struct session *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->worker = worker;
    s->door = door;
    s->bev = bufferevent_socket_new(worker->base, fd, BEV_OPT_CLOSE_ON_FREE);
    s->timer = evtimer_new(worker->base, on_timer, s);
    if (!s->bev || !s->timer)
        abort();
    peer_of(fd, &s->peer, &s->client.port);
    s->client.address = s->peer;
    s->upstream = is_upstream(s);
    s->began = clock_mono();
    worker_join(worker, &s->connection, leave_client);
    set_callbacks(s);
    enter(s);
    if (listener->proxy_protocol)
        smtp_stage(s, STAGE_PROXY);
    else
        begin(s);
    leave(s);
}
