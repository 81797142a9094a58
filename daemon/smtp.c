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
#include <assert.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "prompt.h"
#include "proxyline.h"
#include "smtp.h"
#include "smtp_own.h"

enum {
    TLS_HELLO = 0x16, /* the first byte of a handshake */
    PROXY_MS = 5000,
    TLS_MS = 30000,
    CLOSE_MS = 10000, /* for our last words to be read */
    LOOK_MS = 60000,  /* how often the rate of data is looked at */
    PIECE = 16 << 10, /* bytes of data handed on at once */
};

static void go_on(struct session *);

/* ---- ends ---- */

/* A message that was on its way downstream is still the client's, who will send it again: nothing
 * of it may stay in the hold queue. Downstream may have got it all the same: it then gets it twice.
 */
static void session_free(struct session *s)
{
    if (s->tx && s->stage == STAGE_DELIVER)
        tx_refused(s->tx, 0, "lost downstream");
    smtp_end(s, REPLY_ABORTED);
    downstream_close(&s->down);
    if (s->entered)
        clients_leave(smtp_doors_clients(s->worker->pipeline->doors), &s->client.address);
    worker_part(s->worker, &s->connection);
    smtp_door_drop(&s->door);
    event_free(s->timer);
    tls_say_last(s->bev, NULL);
    prompt_end(&s->reading);
    bufferevent_free(s->bev);
    free(s);
}

static void die(struct session *s)
{
    s->dead = true;
    prompt_stop(&s->reading);
    bufferevent_disable(s->bev, EV_WRITE);
}

/* What follows from where things stand now. */
static void look(struct session *s)
{
    bool waiting = s->stage == STAGE_JUDGE || s->stage == STAGE_DELIVER;
    bool between = s->stage == STAGE_COMMAND && !s->turns;
    assert(!between || s->owed == 0);
    if (s->gone && !waiting)
        die(s);
    else if (s->eof && !waiting && s->stage != STAGE_OPENING && s->stage != STAGE_CLOSING &&
             !s->turns && evbuffer_get_length(bufferevent_get_output(s->bev)) <= OUTPUT_MAX)
        smtp_close(s, NULL);
    else if (s->worker->leaving && between && !s->tx)
        smtp_close(s, "421 4.3.2 going down; please connect again later");
}

static void written(struct session *s);

/* Every callback begins with enter() and ends with leave(): a session that ended in between is
 * freed when nobody works on it any more. */
static void enter(struct session *s)
{
    assert(!s->inside);
    s->inside = true;
}

static void leave(struct session *s)
{
    for (bool wrote = true; wrote && !s->dead;) {
        look(s);
        if (s->down)
            downstream_push(s->down);
        bool more = s->down && downstream_speaks(s->down); /* replies that go in one packet */
        wrote = !s->dead && !s->gone && !more && prompt_write(s->bev);
        if (wrote)
            written(s);
    }
    s->inside = false;
    if (s->dead)
        session_free(s);
    else
        prompt_go_on(&s->reading);
}

void smtp_note(const struct session *s, enum log_level level, const char *event, struct span why)
{
    struct logline l;
    char address[IPADDR_TEXT];
    if (!log_wants(level))
        return;
    ipaddr_print(&s->client.address, address);
    log_begin(&l, level, "smtp", span_str(s->door->listener->name));
    log_str(&l, "event", event);
    log_str(&l, "client", address);
    if (why.n)
        log_span(&l, "why", why);
    log_end(&l);
}

/* ---- speaking ---- */

static void put(struct session *s, struct span text)
{
    if (text.n && evbuffer_add(bufferevent_get_output(s->bev), text.p, text.n))
        abort();
}

void smtp_reply(struct session *s, struct span text)
{
    assert(s->owed);
    s->owed--;
    put(s, text);
}

void smtp_say(struct session *s, const char *line)
{
    char text[600];
    int n = snprintf(text, sizeof text, "%.590s\r\n", line);
    smtp_reply(s, span_of(text, (size_t)n));
}

/* Our last words are out. What the client has said meanwhile is read, for else the system would
 * take them back with a reset. */
static void linger(struct session *s)
{
    struct evbuffer *in = bufferevent_get_input(s->bev);
    int unread = 0;
    (void)ioctl(bufferevent_getfd(s->bev), FIONREAD, &unread);
    if (s->secure || s->eof || s->lingering || (!unread && !evbuffer_get_length(in))) {
        die(s);
        return;
    }
    s->lingering = true;
    evbuffer_drain(in, evbuffer_get_length(in));
    (void)shutdown(bufferevent_getfd(s->bev), SHUT_WR);
}

void smtp_close(struct session *s, const char *last)
{
    if (s->stage == STAGE_CLOSING || s->dead)
        return;
    downstream_close(&s->down);
    s->turns = s->owed = 0;
    if (last) {
        put(s, span_str(last));
        put(s, SPAN("\r\n"));
    }
    smtp_stage(s, STAGE_CLOSING);
    if (evbuffer_get_length(bufferevent_get_output(s->bev)) == 0)
        linger(s);
}

void smtp_greet(struct session *s)
{
    char line[NAME_MAX_BYTES + 32];
    snprintf(line, sizeof line, "220 %.255s ESMTP", s->door->down.helo);
    smtp_say(s, line);
}

/* A command has to come before the idle time is over, and between messages before the session's. */
static int64_t patience(const struct session *s)
{
    const struct config *c = s->door->config;
    int64_t rest = s->began + c->smtp_session - clock_mono();
    if (s->tx || s->turns || rest > c->smtp_idle)
        return c->smtp_idle;
    return rest > 1 ? rest : 1;
}

void smtp_stage(struct session *s, enum stage stage)
{
    static const int64_t deadlines[] = {
        [STAGE_PROXY] = PROXY_MS, [STAGE_STARTTLS] = TLS_MS, [STAGE_TLS] = TLS_MS,
        [STAGE_DATA] = LOOK_MS,   [STAGE_DISCARD] = LOOK_MS, [STAGE_CLOSING] = CLOSE_MS,
    };
    bool asked = stage == STAGE_COMMAND || stage == STAGE_AUTH;
    int64_t ms = asked ? patience(s) : deadlines[stage];
    struct timeval tv = clock_timeval(ms);
    s->stage = stage;
    if (!ms)
        event_del(s->timer); /* tx and downstream have deadlines of their own */
    else if (evtimer_add(s->timer, &tv))
        abort();
}

struct turn *smtp_turn(struct session *s, enum turn_kind kind)
{
    assert(s->turns < TURNS_MAX);
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

/* It counts as answered once its rows are written. */
void smtp_end(struct session *s, enum reply_kind kind)
{
    struct passing p = s->now ? s->now->passing : (struct passing){0};
    s->now = NULL;
    tx_end(&s->tx);
    passing_replied(&p, kind);
}

enum reply_kind smtp_reply_kind(const struct session *s, struct span reply)
{
    if (s->gone)
        return REPLY_ABORTED;
    return *reply.p == '2' ? REPLY_ACCEPTED : *reply.p == '5' ? REPLY_REFUSED : REPLY_LATER;
}

bool smtp_down_alive(const struct session *s)
{
    return s->down && downstream_alive(s->down);
}

void smtp_forget(struct session *s, enum reply_kind kind)
{
    if (!s->tx)
        return;
    smtp_end(s, kind);
    s->forwarded = false;
    if (smtp_down_alive(s)) {
        smtp_turn(s, TURN_SILENT);
        downstream_command(s->down, SPAN("RSET"));
    }
}

/* ---- what downstream says ---- */

static void recipient_accepted(struct session *s, const struct asked *asked)
{
    char bracketed[LIMIT_ADDRESS + 3];
    int n = snprintf(bracketed, sizeof bracketed, "<%.*s>", SPAN_ARG(asked->path));
    if (tx_recipient(s->tx, span_of(bracketed, (size_t)n), asked->params) < 0)
        die(s); /* cannot be: limits.recipients is far below; nothing was promised yet */
}

static void replied(struct session *s, int code, struct span text)
{
    struct turn t = take_turn(s);
    if (t.kind != TURN_SILENT)
        smtp_reply(s, text);
    if (t.kind == TURN_RCPT && code / 100 != 2)
        s->turned++;
    if (t.kind == TURN_MAIL && code / 100 != 2) {
        s->idled++;
        smtp_end(s, REPLY_ABORTED);
    } else if (t.kind == TURN_MAIL)
        s->now->open = true;
    else if (t.kind == TURN_RCPT && code / 100 == 2 && s->now && s->now->open)
        recipient_accepted(s, t.asked);
    else if (t.kind == TURN_AUTH && code == 334)
        smtp_stage(s, STAGE_AUTH);
    else if (t.kind == TURN_AUTH)
        smtp_authed(s, code == 235);
    say_turns(s);
}

/* All that was asked is answered with what can be said. */
static void fail_turns(struct session *s)
{
    while (s->turns) {
        struct turn t = take_turn(s);
        if (t.kind == TURN_LOCAL)
            smtp_say(s, t.text);
        else if (t.kind == TURN_AUTH)
            smtp_say(s, "454 4.7.0 the mail server behind was lost; please try again later");
        else if (t.kind != TURN_SILENT)
            smtp_say(s, "451 4.4.2 the mail server behind was lost; please try again later");
        if (t.kind == TURN_MAIL)
            smtp_end(s, REPLY_ABORTED);
    }
}

/* Downstream is gone. A MAIL it did not answer is said again to a new session, once; recipients it
 * accepted are said again when the message is there. */
static void lost(struct session *s)
{
    downstream_close(&s->down);
    if (s->now && !s->now->open && !s->now->again && !s->authed) {
        s->now->again = true;
        smtp_stage(s, STAGE_OPENING);
        smtp_open_downstream(s);
        return;
    }
    fail_turns(s);
    if (s->authed && (s->stage == STAGE_COMMAND || s->stage == STAGE_AUTH))
        /* The login was relayed and is not kept, so a new session cannot be told who the client is;
         * and the client, told 451, would go on as if it still were logged in. 421 makes it begin
         * anew (RFC 5321 3.8), which all clients that log in can do. */
        smtp_close(s, "421 4.4.2 the mail server behind was lost; please connect again");
}

static void opened(struct session *s, int code)
{
    smtp_stage(s, STAGE_COMMAND);
    if (code == 220 && s->turns) {
        smtp_say_again(s);
        say_turns(s);
    } else if (code == 220) {
        smtp_answer_ehlo(s);
    } else {
        downstream_close(&s->down);
        if (s->turns)
            fail_turns(s);
        else
            smtp_close(s, "421 4.4.1 the mail server behind cannot be reached; please try again "
                          "later");
    }
}

/* 3xx is a word only in AUTH. Relayed, it would tell the client that its data are waited for. */
static bool strange(const struct session *s, int code)
{
    return s->turns && code / 100 == 3 && (s->turn[s->first].kind != TURN_AUTH || code != 334);
}

static void on_downstream(void *arg, int code, struct span text)
{
    struct session *s = arg;
    enter(s);
    if (code == 0)
        smtp_note(s, LOG_LEVEL_NOTICE, "downstream lost", text);
    if (s->stage == STAGE_OPENING)
        opened(s, code);
    else if (s->stage == STAGE_DELIVER)
        smtp_delivery_reply(s, code, text);
    else if (code == 0 || strange(s, code))
        lost(s);
    else if (s->turns)
        replied(s, code, text);
    go_on(s);
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
        if (netmask_has(&l->upstreams[i], &s->client.address))
            return true;
    return false;
}

/* Has the client said something already? It may not, before we greet (RFC 5321 3.1). */
static bool spoke_early(struct session *s)
{
    uint8_t byte;
    return evbuffer_get_length(bufferevent_get_input(s->bev)) ||
           recv(bufferevent_getfd(s->bev), &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

static void greet(struct session *s)
{
    if (!s->secure && spoke_early(s)) {
        smtp_close(s, "554 5.5.0 this is not how SMTP begins: the server speaks first");
        return;
    }
    s->owed++;
    smtp_greet(s);
    smtp_stage(s, STAGE_COMMAND);
}

static void set_callbacks(struct session *);

static void start_tls(struct session *s)
{
    prompt_end(&s->reading);
    struct bufferevent *over = tls_start(s->door->tls, s->bev, true);
    if (!over) {
        die(s);
        return;
    }
    s->bev = over;
    s->greeted = s->forwarded = false;
    s->client.helo[0] = '\0';
    smtp_stage(s, STAGE_TLS);
    set_callbacks(s);
}

/* Who the client is stands now: may it come in? */
static void begin(struct session *s)
{
    s->upstream = is_upstream(s);
    const char *no = clients_enter(smtp_doors_clients(s->worker->pipeline->doors),
                                   &s->client.address, s->upstream);
    if (no) {
        smtp_note(s, LOG_LEVEL_INFO, "refused", span_str(no));
        smtp_close(s, no);
        return;
    }
    s->entered = true;
    if (s->door->listener->implicit && s->door->tls)
        start_tls(s);
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

static void hand_on(struct session *s, struct span piece)
{
    s->now->received += piece.n;
    if (s->now->received > s->offer.size_max)
        s->stage = STAGE_DISCARD;
    if (s->stage == STAGE_DATA && piece.n)
        tx_raw(s->tx, piece);
}

static void hand_gathered(struct gather *g)
{
    size_t n = g->n;
    g->n = 0;
    hand_on(g->s, span_of(g->bytes, n));
}

static void gather(void *arg, struct span piece)
{
    struct gather *g = arg;
    if (piece.n > sizeof g->bytes - g->n)
        hand_gathered(g);
    if (piece.n > sizeof g->bytes) {
        hand_on(g->s, piece);
        return;
    }
    memcpy(g->bytes + g->n, piece.p, piece.n);
    g->n += piece.n;
}

/* Data, as far as it goes. Returns how many bytes were. */
static size_t take_data(struct session *s, struct span in)
{
    struct gather g; /* not zeroed: most of it is room */
    g.s = s;
    g.n = 0;
    size_t used = dot_read(&s->now->dots, in, gather, &g);
    hand_gathered(&g);
    return used;
}

/* Data goes from the socket to the tx without lying in the input. */
static size_t taste(void *arg, struct span in)
{
    struct session *s = arg;
    bool data = s->stage == STAGE_DATA || s->stage == STAGE_DISCARD;
    return data && !s->now->dots.done ? take_data(s, in) : 0;
}

static void judged_later(void *arg, struct tx *tx)
{
    struct session *s = arg;
    (void)tx;
    enter(s);
    smtp_judged(s);
    go_on(s);
    leave(s);
}

static const char too_large[] = "552 5.3.4 the message is larger than is taken here";

static void end_data(struct session *s)
{
    const struct dot_reader *dots = &s->now->dots;
    const char *no = NULL;
    s->owed++;
    passing_begun(&s->now->passing, tx_gauge(s->tx), tx_envelope(s->tx)->nrecipients);
    if (s->stage == STAGE_DISCARD)
        no = too_large;
    else if (s->door->listener->refuse_bare && (dots->bare_cr || dots->bare_lf))
        no = "550 5.6.11 the message holds CR or LF outside of a line end";
    if (no) {
        tx_refused(s->tx, no == too_large ? 552 : 550,
                   no == too_large ? "too large" : "bare CR or LF");
        smtp_forget(s, REPLY_REFUSED);
        smtp_say(s, no);
        smtp_stage(s, STAGE_COMMAND);
        return;
    }
    smtp_stage(s, STAGE_JUDGE);
    if (tx_judge(s->tx, judged_later, s) == TX_DONE)
        smtp_judged(s);
}

static void read_data(struct session *s)
{
    struct evbuffer *in = bufferevent_get_input(s->bev);
    struct dot_reader *dots = &s->now->dots;
    size_t n;
    while ((n = evbuffer_get_contiguous_space(in)) && !dots->done) {
        const uint8_t *p = evbuffer_pullup(in, (ev_ssize_t)n);
        evbuffer_drain(in, take_data(s, span_of(p, n)));
    }
    if (dots->done)
        end_data(s);
    else if (s->stage == STAGE_DISCARD && s->now->received / 2 > s->offer.size_max)
        smtp_close(s, too_large); /* its end may never come */
}

/* ---- the client's side: lines ---- */

/* One line, if it is there and may be obeyed. */
static bool read_line(struct session *s)
{
    struct evbuffer *in = bufferevent_get_input(s->bev);
    char line[SMTP_AUTH_MAX + 1]; /* AUTH may be longer than other commands (RFC 4954 4) */
    size_t eol = 0, all = evbuffer_get_length(in);
    struct evbuffer_ptr end = evbuffer_search_eol(in, NULL, &eol, EVBUFFER_EOL_CRLF);
    size_t n = end.pos < 0 ? all : (size_t)end.pos;
    if (n > SMTP_AUTH_MAX && s->turns)
        return false; /* first what was asked before is answered */
    if (n > SMTP_AUTH_MAX) {
        smtp_close(s, "500 5.5.2 the line is too long");
        return false;
    }
    if (n && evbuffer_copyout(in, line, 1) == 1 && line[0] == TLS_HELLO && !s->secure &&
        s->stage == STAGE_COMMAND) {
        smtp_close(s, NULL); /* TLS, where none was asked for */
        return false;
    }
    if (end.pos < 0)
        return false;
    evbuffer_copyout(in, line, n);
    s->line_bytes = n + eol;
    if (s->stage == STAGE_AUTH)
        smtp_auth_answer(s, span_of(line, n));
    else if (!smtp_obey(s, span_of(line, n)))
        return false;
    if (!s->dead)
        evbuffer_drain(in, n + eol < evbuffer_get_length(in) ? n + eol : evbuffer_get_length(in));
    if (s->stage == STAGE_COMMAND)
        smtp_stage(s, STAGE_COMMAND); /* the client lives: its time begins anew */
    return true;
}

/* Obeys what waits in the input, as far as that can be. */
static void go_on(struct session *s)
{
    while (!s->dead) {
        size_t out = evbuffer_get_length(bufferevent_get_output(s->bev));
        if (s->stage == STAGE_DATA || s->stage == STAGE_DISCARD) {
            read_data(s);
            if (s->stage == STAGE_DATA || s->stage == STAGE_DISCARD)
                return;
        } else if ((s->stage != STAGE_COMMAND && s->stage != STAGE_AUTH) || out > OUTPUT_MAX ||
                   s->turns >= TURNS_MAX - TURNS_OURS || !read_line(s)) {
            return;
        }
        say_turns(s);
    }
}

/* ---- the loop's side ---- */

static void on_read(struct bufferevent *bev, void *arg)
{
    struct session *s = arg;
    enter(s);
    if (s->stage == STAGE_PROXY)
        read_proxy(s);
    else if (s->stage == STAGE_CLOSING)
        evbuffer_drain(bufferevent_get_input(bev), evbuffer_get_length(bufferevent_get_input(bev)));
    go_on(s);
    leave(s);
}

/* All is. */
static void written(struct session *s)
{
    if (s->stage == STAGE_CLOSING)
        linger(s);
    else if (s->stage == STAGE_STARTTLS)
        start_tls(s);
    else
        go_on(s);
}

static void on_write(struct bufferevent *bev, void *arg)
{
    struct session *s = arg;
    enter(s);
    prompt_rest(bev);
    written(s);
    leave(s);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct session *s = arg;
    enter(s);
    if (what & BEV_EVENT_CONNECTED) {
        if (s->stage == STAGE_TLS)
            shaken(s);
    } else {
        const char *why = tls_trouble(bev);
        if (s->stage == STAGE_TLS)
            smtp_note(s, LOG_LEVEL_INFO, "TLS failed", span_str(why ? why : "closed"));
        s->eof = true;
        s->gone |= !(what & BEV_EVENT_EOF) || s->lingering;
        prompt_stop(&s->reading);
        go_on(s);
    }
    leave(s);
}

static void too_slow(struct session *s)
{
    uint64_t due = (uint64_t)s->door->config->smtp_min_rate * (LOOK_MS / 1000);
    if (s->now->received - s->now->looked < due) {
        smtp_close(s, "421 4.4.2 the data comes too slowly");
        return;
    }
    if (s->stage == STAGE_DISCARD && clock_mono() - s->began > s->door->config->smtp_session) {
        smtp_close(s, too_large);
        return;
    }
    s->now->looked = s->now->received;
    smtp_stage(s, s->stage);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct session *s = arg;
    (void)fd, (void)what;
    enter(s);
    if (s->stage == STAGE_DATA || s->stage == STAGE_DISCARD)
        too_slow(s);
    else if (s->stage == STAGE_COMMAND && s->turns)
        smtp_stage(s, STAGE_COMMAND); /* it waits for us */
    else if (s->stage == STAGE_COMMAND || s->stage == STAGE_AUTH)
        smtp_close(s, "421 4.4.2 no command came in time");
    else
        die(s);
    leave(s);
}

static void set_callbacks(struct session *s)
{
    bufferevent_setcb(s->bev, on_read, on_write, on_event, s);
    bufferevent_enable(s->bev, EV_WRITE);
    prompt_begin(&s->reading, s->bev, INPUT_MAX, taste);
    prompt_rest(s->bev);
}

/* We stop: between messages it is told so (look()), inside one it may finish. */
static void leave_client(struct connection *c, bool now)
{
    struct session *s = (struct session *)c;
    enter(s);
    if (now || s->stage == STAGE_PROXY || s->stage == STAGE_TLS || s->lingering)
        die(s);
    leave(s);
}

static void peer_of(int fd, struct ipaddr *ip, uint16_t *port)
{
    struct sockaddr_storage sa = {0};
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
    s->began = clock_mono();
    worker_join(worker, &s->connection, leave_client);
    set_callbacks(s);
    enter(s);
    if (door->listener->proxy_protocol)
        smtp_stage(s, STAGE_PROXY);
    else
        begin(s);
    leave(s);
}
