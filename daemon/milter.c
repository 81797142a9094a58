/*
 * milter.c - one session with an MTA that speaks the milter protocol; what a command is made of
 * stands in milter_proto.h.
 *
 *   O  C H  ( M R+ [T] L* N B* E )*  Q        D before any of them, A and K anywhere
 *
 * The commands of a session lie in one buffer, are read in place and go straight to the tx; the
 * session itself knows connection facts and nothing of a message. A frame of macros (D) stays in
 * the buffer until the command it belongs to has been obeyed.
 *
 * Invariants: every command that asks for a reply gets exactly one final reply, in order; while a
 * reply is owed or not yet written no further command is read; what is too late is never sent, the
 * connection is closed instead (Postfix would apply it to the next, innocent message).
 */
#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event_struct.h>

#include "milter.h"
#include "milter_proto.h"
#include "stamp.h"
#include "token.h"

enum {
    BUFFER_SMALL = 16 << 10, /* what a session begins with */
    NAME_MAX_BYTES = 255,    /* of a client name or HELO that is kept (RFC 1035 2.3.4) */
    IDLE_SECONDS = 7200,     /* MTAs keep a session as long as the SMTP session lasts */
    STALL_SECONDS = 60,      /* for the rest of a frame, or until the MTA reads a reply */
    PROGRESS_SECONDS = 5,    /* Sendmail may wait only 10 s for a sign of life */
    JUDGE_SECONDS = 150      /* then we close; the tx answers before (hold.deadline, twice) */
};

/* How far a session has come: which command may follow. */
enum phase {
    PHASE_NEW,    /* nothing agreed */
    PHASE_OPEN,   /* agreed; before the connection facts, at the start or after K */
    PHASE_IDLE,   /* between messages */
    PHASE_MAIL,   /* from here on there is a tx */
    PHASE_RCPT,   /* */
    PHASE_DATA,   /* */
    PHASE_HEADER, /* */
    PHASE_BODY,   /* */
    PHASES        /* must be last; in the table: stays as it is */
};

/* The SMTP client at the other end of the MTA. */
struct client {
    struct ipaddr addr;
    char name[NAME_MAX_BYTES + 1], helo[NAME_MAX_BYTES + 1];
};

struct session {
    struct connection connection; /* must be first */
    struct worker *worker;
    const char *door; /* the listener's name */
    int fd;
    enum phase phase;
    struct milter_terms terms;
    struct client client;
    struct tx *tx;           /* NULL between messages */
    struct passing *passing; /* its way from end to reply, in its arena; NULL: not there yet */

    uint8_t *in;       /* [at, n) is not obeyed yet */
    size_t at, n, cap; /* */
    size_t macros;     /* size of the frame of macros at `at`, 0: none */
    bool in_part;      /* a frame has begun: the MTA has STALL_SECONDS for each piece of the rest */
    struct milter_out out;
    unsigned owed;   /* final replies owed: 0 or 1 */
    bool judging;    /* the tx has said TX_WAIT */
    bool answered;   /* the final reply of the tx is in `out`; commit it when that is written */
    unsigned waited; /* seconds of judging */

    const struct timeval *idle, *stall; /* common timeouts of the base */
    struct event readable, writable, ticker;
};

/* The message is over. One that had come to its end counts as answered, so or so, once its rows are
 * written. */
static void end_message(struct session *s, enum reply_kind kind)
{
    struct passing p = s->passing ? *s->passing : (struct passing){0};
    s->passing = NULL;
    tx_end(&s->tx);
    passing_replied(&p, kind);
}

static void session_end(struct session **sp)
{
    struct session *s = *sp;
    *sp = NULL;
    end_message(s, REPLY_ABORTED);
    event_del(&s->readable);
    event_del(&s->writable);
    event_del(&s->ticker);
    close(s->fd);
    milter_out_free(&s->out);
    worker_part(s->worker, &s->connection);
    free(s->in);
    free(s);
}

/* Why a session is closed by us: always -1. */
static int complain(const struct session *s, const char *what, uint8_t command)
{
    struct logline l;
    char address[IPADDR_TEXT], letter[5];
    size_t n = ipaddr_print(&s->client.addr, address);
    escape_text(letter, sizeof letter, span_of(&command, 1));
    log_begin(&l, LOG_LEVEL_ERROR, "door", span_str(s->door));
    log_str(&l, "event", "closed");
    log_str(&l, "reason", what);
    if (command)
        log_str(&l, "command", letter);
    log_span(&l, "client", span_of(address, n));
    if (s->tx)
        log_span(&l, "qid", tx_envelope(s->tx)->queue_id);
    log_end(&l);
    return -1;
}

/* ---- replies ---- */

/* One of the replies that end an event. */
static void final_reply(struct session *s)
{
    assert(s->owed == 1);
    s->owed--;
}

static void reply(struct session *s, uint8_t command)
{
    final_reply(s);
    milter_put(&s->out, command, NULL, 0);
}

/* Writes what waits. 0: all written, 1: the rest when the socket takes it, -1: the MTA is gone. */
static int flush(struct session *s)
{
    struct milter_out *o = &s->out;
    while (o->at < o->n) {
        ssize_t w = send(s->fd, o->p + o->at, o->n - o->at, MSG_NOSIGNAL);
        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            event_add(&s->writable, s->stall);
            return 1;
        }
        if (w < 0)
            return -1;
        o->at += (size_t)w;
    }
    o->at = o->n = 0;
    if (o->cap > BUFFER_SMALL)
        milter_out_free(o);
    return 0;
}

/* ---- the verdict, as commands for the MTA ---- */

static void say_edits(struct session *s)
{
    const struct verdict *v = tx_verdict(s->tx);
    const struct envelope *e = tx_envelope(s->tx);
    for (size_t i = 0; i < v->n && v->count[DISP_HOLD]; i++)
        if (v->copy[i].disposition == DISP_HOLD)
            milter_put_delrcpt(&s->out, e->recipients[i].raw);
    if (s->terms.actions & ACT_CHGHDRS)
        for (uint32_t i = tx_strip(s->tx); i > 0; i--) /* the last first: indexes stay true */
            milter_put_delheader(&s->out, SPAN(TOKEN_FIELD), i);
    if (tx_tag(s->tx) && s->terms.actions & ACT_ADDHDRS)
        milter_put_addheader(&s->out, &s->terms, SPAN("X-Breakwater"), tx_tag(s->tx));
    const char *stamp = tx_stamp(s->tx);
    if (stamp && s->terms.actions & ACT_ADDHDRS)
        milter_put_addheader(&s->out, &s->terms, SPAN(STAMP_FIELD), stamp);
}

static void say_verdict(struct session *s)
{
    const struct verdict *v = tx_verdict(s->tx);
    if (tx_reply(s->tx)) {
        final_reply(s);
        milter_put_reply(&s->out, tx_reply(s->tx));
        return;
    }
    if (v->n && v->count[DISP_HOLD] == v->n) {
        reply(s, 'd');
        return;
    }
    say_edits(s);
    reply(s, 'c');
}

static enum reply_kind reply_kind(const struct tx *tx)
{
    const char *reply = tx_reply(tx);
    return !reply ? REPLY_ACCEPTED : *reply == '5' ? REPLY_REFUSED : REPLY_LATER;
}

/* Writes the verdict. Only when the MTA has it the tx is committed. */
static int deliver(struct session *s)
{
    int rc = flush(s);
    if (rc)
        return rc < 0 ? -1 : 0;
    if (s->answered) {
        s->answered = false;
        tx_commit(s->tx);
        end_message(s, reply_kind(s->tx));
    }
    return 0;
}

static int answer(struct session *s)
{
    say_verdict(s);
    s->answered = true;
    return deliver(s);
}

/* ---- commands: 0, or -1 to close the session ---- */

struct command {
    unsigned phases; /* bits of the phases it is allowed in */
    enum phase next; /* PHASES: stays */
    uint32_t quiet;  /* the step that says: no reply wanted */
    bool generic;    /* gets SMFIR_CONTINUE unless quiet */
    int (*obey)(struct session *, struct span data, struct span macros);
};

static int obey_offer(struct session *s, struct span data, struct span macros)
{
    static atomic_bool said;
    (void)macros;
    if (!milter_agree(data, &s->terms))
        return complain(s, "the MTA's offer cannot be read, or is for a version before 2", 'O');
    const char *missing = milter_missing(&s->terms);
    if (missing && !atomic_exchange(&said, true))
        log_say(LOG_LEVEL_ERROR,
                "%s: the MTA does not let us use %s: recipients cannot be held one by one, or "
                "headers not be added or removed; allow it for this milter",
                s->door, missing);
    milter_put_terms(&s->out, &s->terms);
    return 0;
}

static void keep_text(char out[NAME_MAX_BYTES + 1], struct span text)
{
    text = span_head(text, NAME_MAX_BYTES);
    memcpy(out, text.p, text.n);
    out[text.n] = 0;
}

static int obey_connect(struct session *s, struct span data, struct span macros)
{
    struct span name;
    (void)macros;
    milter_client(data, &name, &s->client.addr);
    keep_text(s->client.name, name);
    return 0;
}

/* EHLO in mid transaction ends it (RFC 5321 4.1.4). */
static int obey_helo(struct session *s, struct span data, struct span macros)
{
    (void)macros;
    end_message(s, REPLY_ABORTED);
    keep_text(s->client.helo, milter_string(&data));
    return 0;
}

static void read_queue_id(struct session *s, uint8_t command, struct span macros)
{
    struct envelope *e = tx_envelope(s->tx);
    struct span id = milter_macro(macros, command, SPAN("i"));
    if (id.n && !e->queue_id.n)
        e->queue_id = arena_span(tx_arena(s->tx), id);
}

/* The arguments after the first, joined with blanks: in place, in the buffer. */
static struct span params(struct session *s, struct span rest)
{
    for (size_t i = 0; i < rest.n; i++)
        if (!rest.p[i])
            s->in[rest.p + i - s->in] = ' ';
    return span_trim(rest);
}

static int obey_mail(struct session *s, struct span data, struct span macros)
{
    struct worker *w = s->worker;
    if (!data.n)
        return complain(s, "a command without its argument", 'M');
    end_message(s, REPLY_ABORTED);
    s->tx = tx_begin(w->pipeline, w->config, &w->keys, w->mailbox, s->door);
    struct arena *a = tx_arena(s->tx);
    struct envelope *e = tx_envelope(s->tx);
    e->client = s->client.addr;
    e->client_name = arena_span(a, span_str(s->client.name));
    e->helo = arena_span(a, span_str(s->client.helo));
    e->auth = arena_span(a, milter_macro(macros, 'M', SPAN("auth_authen")));
    read_queue_id(s, 'M', macros);
    if (!(s->terms.actions & ACT_DELRCPT))
        tx_indivisible(s->tx);
    struct span raw = milter_string(&data);
    tx_reversepath(s->tx, raw, params(s, data));
    return 0;
}

static int obey_rcpt(struct session *s, struct span data, struct span macros)
{
    if (!data.n)
        return complain(s, "a command without its argument", 'R');
    read_queue_id(s, 'R', macros);
    struct span raw = milter_string(&data);
    (void)tx_recipient(s->tx, raw, params(s, data)); /* too many: the tx passes them all */
    return 0;
}

static int obey_data(struct session *s, struct span data, struct span macros)
{
    (void)data;
    read_queue_id(s, 'T', macros);
    return 0;
}

static int obey_field(struct session *s, struct span data, struct span macros)
{
    (void)macros;
    struct span name = milter_string(&data);
    struct span value = milter_string(&data);
    if (!(s->terms.steps & STEP_LEADSPC))
        value = arena_join(tx_arena(s->tx), SPAN(" "), value, SPAN(""));
    tx_field(s->tx, name, value);
    return 0;
}

static int obey_header_end(struct session *s, struct span data, struct span macros)
{
    (void)data, (void)macros;
    tx_header_end(s->tx);
    return 0;
}

static int obey_body(struct session *s, struct span data, struct span macros)
{
    (void)macros;
    tx_body(s->tx, data);
    return 0;
}

static void judged(void *arg, struct tx *);

/* Sendmail may put the last piece of the body into the end of message. */
static int obey_end(struct session *s, struct span data, struct span macros)
{
    read_queue_id(s, 'E', macros);
    if (data.n)
        tx_body(s->tx, data);
    s->passing = arena_alloc(tx_arena(s->tx), sizeof *s->passing);
    passing_begun(s->passing, tx_gauge(s->tx), tx_envelope(s->tx)->nrecipients);
    if (tx_judge(s->tx, judged, s) == TX_DONE)
        return answer(s);
    struct timeval tv = {PROGRESS_SECONDS, 0};
    s->judging = true;
    s->waited = 0;
    event_add(&s->ticker, &tv);
    return 0;
}

static int obey_abort(struct session *s, struct span data, struct span macros)
{
    (void)data, (void)macros;
    end_message(s, REPLY_ABORTED);
    if (s->phase > PHASE_IDLE)
        s->phase = PHASE_IDLE;
    return 0;
}

static int obey_quit(struct session *s, struct span data, struct span macros)
{
    (void)s, (void)data, (void)macros;
    return -1;
}

/* QUIT_NC: the MTA keeps the session for its next client. */
static int obey_next_client(struct session *s, struct span data, struct span macros)
{
    (void)data, (void)macros;
    end_message(s, REPLY_ABORTED);
    s->client = (struct client){0};
    if (s->phase > PHASE_OPEN)
        s->phase = PHASE_OPEN;
    return 0;
}

static int obey_unknown(struct session *s, struct span data, struct span macros)
{
    (void)s, (void)data, (void)macros;
    return 0;
}

#define IN(phase) (1u << PHASE_##phase)
enum {
    IN_ANY = (1u << PHASES) - 1,
    IN_AGREED = IN_ANY & ~IN(NEW),
    IN_FIELDS = IN(MAIL) | IN(RCPT) | IN(DATA) | IN(HEADER)
};

/* MAIL without an ABORT before it is what an MTA sends after a message it gave up. */
static const struct command commands[] = {
    ['O'] = {IN(NEW), PHASE_OPEN, 0, false, obey_offer},
    ['C'] = {IN(OPEN), PHASE_IDLE, STEP_NR_CONN, true, obey_connect},
    ['H'] = {IN_AGREED, PHASE_IDLE, STEP_NR_HELO, true, obey_helo},
    ['M'] = {IN_AGREED, PHASE_MAIL, STEP_NR_MAIL, true, obey_mail},
    ['R'] = {IN(MAIL) | IN(RCPT), PHASE_RCPT, STEP_NR_RCPT, true, obey_rcpt},
    ['T'] = {IN(MAIL) | IN(RCPT), PHASE_DATA, STEP_NR_DATA, true, obey_data},
    ['L'] = {IN_FIELDS, PHASE_HEADER, STEP_NR_HDR, true, obey_field},
    ['N'] = {IN_FIELDS, PHASE_BODY, STEP_NR_EOH, true, obey_header_end},
    ['B'] = {IN(BODY), PHASE_BODY, STEP_NR_BODY, true, obey_body},
    ['E'] = {IN(BODY), PHASE_IDLE, 0, false, obey_end},
    ['A'] = {IN_ANY, PHASES, 0, false, obey_abort},
    ['Q'] = {IN_ANY, PHASES, 0, false, obey_quit},
    ['K'] = {IN_ANY, PHASES, 0, false, obey_next_client},
    ['U'] = {IN_AGREED, PHASES, STEP_NR_UNKN, true, obey_unknown},
};
#undef IN

static int obey(struct session *s, const struct milter_frame *f, struct span macros)
{
    const struct command *c =
        f->command < sizeof commands / sizeof commands[0] ? &commands[f->command] : NULL;
    if (!c || !c->obey)
        return complain(s, "not a milter command", f->command);
    if (!(c->phases & 1u << s->phase))
        return complain(s, "the command is out of order", f->command);
    if (f->command == 'E' || (c->generic && !(s->terms.steps & c->quiet)))
        s->owed++;
    if (c->next != PHASES)
        s->phase = c->next;
    if (c->obey(s, f->data, macros) < 0)
        return -1;
    if (c->generic && s->owed)
        reply(s, 'c');
    assert(s->owed == (s->judging ? 1u : 0u));
    return 0;
}

/* ---- the bytes that come in ---- */

/* No command is read while the MTA has to wait for us, or we for it. */
static bool busy(const struct session *s)
{
    return s->judging || s->answered || event_pending(&s->writable, EV_WRITE, NULL);
}

/* Obeys what is in the buffer, then writes the replies in one go. */
static int obey_all(struct session *s)
{
    s->in_part = false;
    while (!busy(s)) {
        struct milter_frame f;
        size_t begin = s->at + s->macros;
        enum frame_state state = milter_frame(span_of(s->in + begin, s->n - begin), &f);
        if (state == FRAME_BAD)
            return complain(s, "a frame of length 0 or longer than is allowed", 0);
        if (state == FRAME_PART) {
            s->in_part = begin < s->n;
            break;
        }
        if (f.command == 'D') { /* the newest stays */
            s->at = begin;
            s->macros = f.size;
            continue;
        }
        struct span macros = s->macros
                                 ? span_of(s->in + s->at + MILTER_FRAME, s->macros - MILTER_FRAME)
                                 : span_of(NULL, 0);
        s->at = begin + f.size;
        s->macros = 0;
        if (obey(s, &f, macros) < 0)
            return -1;
    }
    return s->out.n ? deliver(s) : 0;
}

/* Moves what is left to the front of the buffer; a session that is idle keeps none. */
static void tidy(struct session *s)
{
    if (s->at) {
        memmove(s->in, s->in + s->at, s->n - s->at);
        s->n -= s->at;
        s->at = 0;
    }
    if (s->n == 0 && !s->tx) {
        free(s->in);
        s->in = NULL;
        s->cap = 0;
    }
}

/* Goes on after anything that happened. Ends the session if need be: touch nothing after it. */
static void proceed(struct session *s)
{
    bool was_part = s->in_part;
    if (!busy(s) && obey_all(s) < 0) {
        (void)flush(s); /* what was answered before the end */
        session_end(&s);
        return;
    }
    tidy(s);
    if (s->worker->leaving && !s->tx && s->n == 0 && !busy(s)) {
        session_end(&s);
        return;
    }
    if (s->n == s->cap && s->cap && busy(s))
        event_del(&s->readable); /* full; goes on when we are no longer busy */
    else if (s->in_part != was_part || !event_pending(&s->readable, EV_READ, NULL))
        event_add(&s->readable, s->in_part ? s->stall : s->idle);
}

/* The longest frame and its macros limit the growth. */
static void make_room(struct session *s)
{
    if (s->n < s->cap)
        return;
    s->cap = s->cap ? 2 * s->cap : BUFFER_SMALL;
    assert(s->cap <= 4u * LIMIT_HEAD);
    s->in = realloc(s->in, s->cap);
    if (!s->in)
        abort();
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct session *s = arg;
    if (what & EV_TIMEOUT) {
        if (busy(s)) /* waiting has deadlines of its own */
            return;
        if (s->in_part || s->tx)
            complain(s, "the MTA stopped in the middle of a message", 0);
        session_end(&s);
        return;
    }
    make_room(s);
    ssize_t r = recv(fd, s->in + s->n, s->cap - s->n, 0);
    if (r < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    if (r <= 0) {
        if (s->judging || s->answered)
            complain(s, "the MTA was gone before it had the verdict", 0);
        session_end(&s);
        return;
    }
    s->n += (size_t)r;
    proceed(s);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct session *s = arg;
    (void)fd;
    event_del(&s->writable);
    if (what & EV_TIMEOUT) {
        complain(s, "the MTA does not read its replies", 0);
        session_end(&s);
        return;
    }
    if (deliver(s) < 0) {
        session_end(&s);
        return;
    }
    proceed(s);
}

/* ---- waiting for the verdict ---- */

static void judged(void *arg, struct tx *tx)
{
    struct session *s = arg;
    assert(tx == s->tx && s->judging);
    event_del(&s->ticker);
    s->judging = false;
    if (answer(s) < 0) {
        session_end(&s);
        return;
    }
    proceed(s);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct session *s = arg;
    (void)fd, (void)what;
    s->waited += PROGRESS_SECONDS;
    if (s->waited >= JUDGE_SECONDS) {
        complain(s, "no verdict in time", 0);
        session_end(&s);
        return;
    }
    milter_put(&s->out, 'p', NULL, 0);
    if (flush(s) < 0)
        session_end(&s);
}

static void leave(struct connection *c, bool now)
{
    struct session *s = (struct session *)c;
    if (now)
        session_end(&s);
    else
        proceed(s);
}

void milter_accept(struct worker *w, int fd, const struct listener *listener)
{
    static const struct timeval idle = {IDLE_SECONDS, 0}, stall = {STALL_SECONDS, 0};
    struct session *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->worker = w;
    s->door = listener->name;
    s->fd = fd;
    s->idle = event_base_init_common_timeout(w->base, &idle);
    s->stall = event_base_init_common_timeout(w->base, &stall);
    evutil_make_socket_nonblocking(fd);
    event_assign(&s->readable, w->base, fd, EV_READ | EV_PERSIST, on_readable, s);
    event_assign(&s->writable, w->base, fd, EV_WRITE, on_writable, s);
    event_assign(&s->ticker, w->base, -1, EV_PERSIST, on_tick, s);
    worker_join(w, &s->connection, leave);
    s->in_part = true; /* an MTA negotiates at once */
    if (event_add(&s->readable, s->stall))
        abort();
}
