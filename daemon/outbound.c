/*
 * outbound.c - our SMTP client: one message, one connection, RFC 5321.
 *
 *   start -> connect -> banner -> EHLO [-> HELO, or STARTTLS -> TLS -> EHLO] -> MAIL -> RCPT... ->
 * DATA -> text -> dot -> over
 *
 * One table says how long each step may last and what its reply leads to. A callback of the loop
 * moves the steps on and at its very end looks whether they are over; only there `done` is called,
 * as the last thing that is done with the transaction.
 *
 * Invariants: a recipient gets a 2xx code only from the reply to the final dot. What is sent
 * between DATA and that dot contains CR only before LF and LF only after CR, and no line but the
 * last is a dot. A command is only sent when every former reply has been read and nothing else
 * came.
 */
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "dot.h"
#include "id.h"
#include "log.h"
#include "outbound.h"
#include "place.h"
#include "smtp_proto.h"

enum {
    REPLY_TEXT = 512,      /* bytes of a reply that are kept */
    INPUT_MAX = 64 << 10,  /* bytes of a line we are ready to skip: some echo a long Message-ID */
    PIECE = 64 << 10,      /* bytes of text made at a time */
    PATH_MAX_BYTES = 1000, /* far beyond RFC 5321 4.5.3.1.3 */
    PARAM_MAX = 500,
};

enum step {
    STEP_START,
    STEP_CONNECT,
    STEP_BANNER,
    STEP_EHLO,
    STEP_HELO,
    STEP_STARTTLS,
    STEP_TLS,
    STEP_MAIL,
    STEP_RCPT,
    STEP_DATA,
    STEP_TEXT,
    STEP_DOT,
    STEP_OVER,
    STEPS /* must be last */
};

enum fate_of_rcpt { RCPT_OPEN, RCPT_ACCEPTED, RCPT_DECIDED };

struct outbound {
    struct outbound_mail *mail;
    outbound_done_fn *done;
    void *arg;
    struct event_base *base;
    struct bufferevent *bev;
    struct event *timer;
    int64_t end; /* of all, clock_mono() */
    enum step step;
    struct smtp_offer offer;
    bool secure;             /* TLS is up */
    uint8_t *fates;          /* enum fate_of_rcpt of each recipient */
    size_t next;             /* the recipient whose RCPT is answered next; nrcpts: none */
    size_t accepted;         /* recipients that are */
    struct arena *spoken;    /* of the reply being read; NULL between them */
    struct smtp_reply reply; /* the one being read */
    /* the last one: its code, and all its lines as one */
    int code;
    char text[REPLY_TEXT];
    size_t ntext;
    /* the text being sent */
    struct span rest;
    struct dot_writer dots;
};

static void after_banner(struct outbound *);
static void after_ehlo(struct outbound *);
static void after_helo(struct outbound *);
static void after_starttls(struct outbound *);
static void after_mail(struct outbound *);
static void after_rcpt(struct outbound *);
static void after_data(struct outbound *);
static void after_dot(struct outbound *);
static void refused(struct outbound *);
static void begin_mail(struct outbound *);
static void set_callbacks(struct outbound *);

/* RFC 5321 4.5.3.2. */
static const struct {
    const char *name;
    int64_t limit; /* ms */
    void (*reply)(struct outbound *);
} steps[STEPS] = {
    [STEP_START] = {"nothing", 0, NULL},
    [STEP_CONNECT] = {"connect", 60 * 1000, NULL},
    [STEP_BANNER] = {"greeting", 5 * 60 * 1000, after_banner},
    [STEP_EHLO] = {"EHLO", 5 * 60 * 1000, after_ehlo},
    [STEP_HELO] = {"HELO", 5 * 60 * 1000, after_helo},
    [STEP_STARTTLS] = {"STARTTLS", 5 * 60 * 1000, after_starttls},
    [STEP_TLS] = {"TLS handshake", 60 * 1000, refused},
    [STEP_MAIL] = {"MAIL", 5 * 60 * 1000, after_mail},
    [STEP_RCPT] = {"RCPT", 5 * 60 * 1000, after_rcpt},
    [STEP_DATA] = {"DATA", 2 * 60 * 1000, after_data},
    [STEP_TEXT] = {"message text", 3 * 60 * 1000, refused}, /* for each piece */
    [STEP_DOT] = {"final dot", 10 * 60 * 1000, after_dot},
    [STEP_OVER] = {"nothing", 0, NULL},
};

/* ---- the results ---- */

static void decide(struct outbound *o, size_t i, int code, struct span text)
{
    struct outbound_rcpt *r = &o->mail->rcpts[i];
    r->code = code;
    escape_text(r->reply, sizeof r->reply, text);
    o->fates[i] = RCPT_DECIDED;
}

/* About all of whom nothing is decided yet. */
static void decide_rest(struct outbound *o, int code, struct span text)
{
    for (size_t i = 0; i < o->mail->nrcpts; i++)
        if (o->fates[i] != RCPT_DECIDED)
            decide(o, i, code, text);
    o->step = STEP_OVER;
}

static void decide_rest_by_reply(struct outbound *o)
{
    decide_rest(o, o->code, span_of(o->text, o->ntext));
}

static void __attribute__((format(printf, 2, 3))) fail(struct outbound *o, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    decide_rest(o, 0, span_str(text));
}

/* The reply says no to the whole mail, or says what cannot be said here. */
static void refused(struct outbound *o)
{
    if (o->code >= 400)
        decide_rest_by_reply(o);
    else
        fail(o, "unexpected reply at %s: %.*s", steps[o->step].name, (int)o->ntext, o->text);
}

/* ---- commands ---- */

static void arm(struct outbound *o)
{
    int64_t ms = o->end - clock_mono();
    if (ms > steps[o->step].limit)
        ms = steps[o->step].limit;
    if (ms < 0)
        ms = 0;
    struct timeval tv = clock_timeval(ms);
    if (evtimer_add(o->timer, &tv))
        abort();
}

/* May a command be sent? Sets the step whose reply is waited for. */
static bool turn(struct outbound *o, enum step step)
{
    o->step = step;
    if (evbuffer_get_length(bufferevent_get_input(o->bev))) {
        fail(o, "the server spoke out of turn before %s", steps[step].name);
        return false;
    }
    arm(o);
    return true;
}

static void put(struct outbound *o, struct span s)
{
    if (s.n && evbuffer_add(bufferevent_get_output(o->bev), s.p, s.n))
        abort();
}

static void put_str(struct outbound *o, const char *s)
{
    put(o, span_str(s));
}

/* needs: where in what is offered it says so. */
struct param {
    const char *keyword;
    size_t needs;
};
#define NEEDS(offer) offsetof(struct smtp_offer, offer)
static const struct param mail_params[] = {
    {"BODY=7BIT", NEEDS(eightbit)}, {"BODY=8BITMIME", NEEDS(eightbit)}, {"SMTPUTF8", NEEDS(utf8)},
    {"RET=FULL", NEEDS(dsn)},       {"RET=HDRS", NEEDS(dsn)},           {"ENVID=", NEEDS(dsn)},
};
static const struct param rcpt_params[] = {{"NOTIFY=", NEEDS(dsn)}, {"ORCPT=", NEEDS(dsn)}};

/* Is it one of the table's, offered, and well-formed (RFC 5321 4.1.2 esmtp-param)? A keyword that
 * ends in '=' takes any value. */
static bool param_good(const struct outbound *o, struct span s, const struct param *table, size_t n)
{
    if (s.n > PARAM_MAX)
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] <= ' ' || s.p[i] >= 127)
            return false;
    for (size_t i = 0; i < n; i++) {
        struct span k = span_str(table[i].keyword);
        bool any = k.p[k.n - 1] == '=';
        if (any ? s.n > k.n && span_case_starts(s, k) : span_case_eq(s, k))
            return *(const bool *)((const char *)&o->offer + table[i].needs);
    }
    return false;
}

static void put_params(struct outbound *o, struct span s, const struct param *table, size_t n)
{
    while ((s = span_trim(s)).n) {
        size_t end = 0;
        while (end < s.n && !byte_space(s.p[end]))
            end++;
        struct span one = span_head(s, end);
        s = span_from(s, end);
        if (!param_good(o, one, table, n))
            continue;
        put_str(o, " ");
        put(o, one);
    }
}

static void put_mail(struct outbound *o)
{
    const struct outbound_mail *m = o->mail;
    char size[32];
    put_str(o, "MAIL FROM:<");
    put(o, m->reversepath);
    put_str(o, ">");
    if (o->offer.size) {
        snprintf(size, sizeof size, " SIZE=%zu", m->nbytes + m->extra_field.n + 2);
        put_str(o, size);
    }
    put_params(o, m->reversepath_params, mail_params, sizeof mail_params / sizeof *mail_params);
    put_str(o, "\r\n");
}

static void put_rcpt(struct outbound *o, size_t i)
{
    const struct outbound_rcpt *r = &o->mail->rcpts[i];
    put_str(o, "RCPT TO:<");
    put(o, r->path);
    put_str(o, ">");
    put_params(o, r->params, rcpt_params, sizeof rcpt_params / sizeof *rcpt_params);
    put_str(o, "\r\n");
}

/* The first recipient from i on that has not been decided about, or nrcpts. */
static size_t open_from(const struct outbound *o, size_t i)
{
    while (i < o->mail->nrcpts && o->fates[i] != RCPT_OPEN)
        i++;
    return i;
}

/* ---- the text (RFC 5321 4.5.2, 2.3.8) ---- */

static void put_text(void *arg, struct span s)
{
    put(arg, s);
}

/* Keeps between one and two pieces in the output until all is there. */
static void send_text(struct outbound *o)
{
    struct evbuffer *out = bufferevent_get_output(o->bev);
    while (o->rest.n && evbuffer_get_length(out) < 2 * PIECE) {
        struct span piece = span_head(o->rest, PIECE);
        dot_write(&o->dots, piece, put_text, o);
        o->rest = span_from(o->rest, piece.n);
    }
    if (o->rest.n == 0) {
        dot_end(&o->dots, put_text, o);
        o->step = STEP_DOT;
    }
    arm(o);
}

static void begin_text(struct outbound *o)
{
    o->step = STEP_TEXT;
    o->dots = (struct dot_writer){0};
    dot_write(&o->dots, o->mail->extra_field, put_text, o);
    dot_end_line(&o->dots, put_text, o);
    o->rest = span_of(o->mail->bytes, o->mail->nbytes);
    send_text(o);
}

/* ---- what follows which reply ---- */

static void say_ehlo(struct outbound *o)
{
    o->offer = (struct smtp_offer){0}; /* what was offered without TLS counts no more */
    if (!turn(o, STEP_EHLO))
        return;
    put_str(o, "EHLO ");
    put_str(o, o->mail->helo);
    put_str(o, "\r\n");
}

static void after_banner(struct outbound *o)
{
    if (o->code == 220)
        say_ehlo(o);
    else
        refused(o);
}

static void after_starttls(struct outbound *o)
{
    if (o->code != 220) {
        if (o->mail->tls_required)
            refused(o);
        else
            begin_mail(o);
        return;
    }
    if (!turn(o, STEP_TLS)) /* what came with the 220 was not said under TLS (nostarttls.info) */
        return;
    struct bufferevent *over = tls_start(o->mail->tls, o->bev, false);
    if (!over) {
        fail(o, "TLS cannot be begun");
        return;
    }
    o->bev = over;
    set_callbacks(o);
}

/* MAIL, and if the server takes them together, every RCPT (RFC 2920). Never DATA: it is sent when
 * somebody is there to receive. */
static void begin_mail(struct outbound *o)
{
    if (!turn(o, STEP_MAIL))
        return;
    o->next = open_from(o, 0);
    put_mail(o);
    if (o->offer.pipelining)
        for (size_t i = o->next; i < o->mail->nrcpts; i = open_from(o, i + 1))
            put_rcpt(o, i);
}

static void after_ehlo(struct outbound *o)
{
    bool tls = o->mail->tls && !o->secure;
    if (o->code == 250 && tls && o->offer.starttls) {
        if (turn(o, STEP_STARTTLS))
            put_str(o, "STARTTLS\r\n");
        return;
    }
    if (tls && o->mail->tls_required && (o->code == 250 || o->code >= 500)) {
        fail(o, "the server offers no STARTTLS");
        return;
    }
    if (o->code == 250) {
        begin_mail(o);
        return;
    }
    if (o->code < 500) {
        refused(o);
        return;
    }
    o->offer = (struct smtp_offer){0}; /* RFC 5321 3.2: an old server */
    if (!turn(o, STEP_HELO))
        return;
    put_str(o, "HELO ");
    put_str(o, o->mail->helo);
    put_str(o, "\r\n");
}

static void after_helo(struct outbound *o)
{
    if (o->code == 250)
        begin_mail(o);
    else
        refused(o);
}

static void ask_rcpt(struct outbound *o)
{
    if (o->offer.pipelining) {
        o->step = STEP_RCPT;
        arm(o);
    } else if (turn(o, STEP_RCPT)) {
        put_rcpt(o, o->next);
    }
}

static void after_mail(struct outbound *o)
{
    if (o->code / 100 == 2)
        ask_rcpt(o);
    else
        refused(o);
}

static void after_rcpt(struct outbound *o)
{
    int class = o->code / 100;
    if (class == 3 || o->code == 421) {
        refused(o); /* 421: the connection ends, for all of them */
        return;
    }
    if (class == 2) {
        o->fates[o->next] = RCPT_ACCEPTED;
        o->accepted++;
    } else {
        decide(o, o->next, o->code, span_of(o->text, o->ntext));
    }
    o->next = open_from(o, o->next + 1);
    if (o->next < o->mail->nrcpts)
        ask_rcpt(o);
    else if (o->accepted == 0)
        o->step = STEP_OVER;
    else if (turn(o, STEP_DATA))
        put_str(o, "DATA\r\n");
}

static void after_data(struct outbound *o)
{
    if (o->code == 354 && evbuffer_get_length(bufferevent_get_input(o->bev)) == 0)
        begin_text(o);
    else
        refused(o);
}

static void after_dot(struct outbound *o)
{
    if (o->code / 100 == 2)
        decide_rest_by_reply(o);
    else
        refused(o);
}

/* ---- replies ---- */

static void add_text(struct outbound *o, struct span s)
{
    s = span_head(s, sizeof o->text - o->ntext);
    if (s.n)
        memcpy(o->text + o->ntext, s.p, s.n);
    o->ntext += s.n;
}

/* Its lines as one, after the code of the last. */
static void keep_reply(struct outbound *o)
{
    struct span rest = o->reply.text;
    o->code = o->reply.code;
    o->ntext = (size_t)snprintf(o->text, sizeof o->text, "%d", o->code);
    while (rest.n) {
        size_t n = span_find(rest, '\r');
        struct span line = span_head(rest, n);
        if (line.n > 4) {
            add_text(o, SPAN(" "));
            add_text(o, span_from(line, 4));
        }
        rest = span_from(rest, n + 2);
    }
}

/* One line of a reply. 1: it was the last; 0: more to come; -1: that is not SMTP. Of a line longer
 * than SMTP lets it be the rest is nothing to us: some echo a long Message-ID. */
static int reply_line(struct outbound *o, struct span line)
{
    if (!o->spoken)
        o->spoken = arena_new();
    if (!smtp_reply_line(&o->reply, o->spoken, span_head(line, SMTP_REPLY_MAX)))
        return 0;
    bool good = o->reply.code > 0;
    if (good)
        keep_reply(o);
    if (good && o->step == STEP_EHLO)
        smtp_offer_read(&o->offer, o->spoken, &o->reply);
    o->offer.mechanisms = o->offer.xclient = o->offer.xforward = span_of(NULL, 0); /* in spoken */
    o->reply = (struct smtp_reply){0};
    arena_free(&o->spoken);
    return good ? 1 : -1;
}

/* The next whole reply. 1: it is there; 0: not yet; -1: that is not SMTP. */
static int read_reply(struct outbound *o)
{
    struct evbuffer *in = bufferevent_get_input(o->bev);
    size_t n;
    char *line;
    while ((line = evbuffer_readln(in, &n, EVBUFFER_EOL_CRLF))) {
        int state = reply_line(o, span_of(line, n));
        free(line);
        if (state)
            return state;
    }
    return evbuffer_get_length(in) < INPUT_MAX ? 0 : -1;
}

/* ---- the loop's side ---- */

static void outbound_free(struct outbound *o)
{
    if (o->bev)
        bufferevent_free(o->bev);
    event_free(o->timer);
    arena_free(&o->spoken);
    free(o->fates);
    free(o);
}

/* Good manners: QUIT, if the server can be listening to a command; its answer is not waited for. */
static void quit(struct outbound *o)
{
    if (o->bev && evbuffer_get_length(bufferevent_get_output(o->bev)) == 0)
        tls_say_last(o->bev, "QUIT\r\n");
}

/* The last line of every callback. */
static void look_if_over(struct outbound *o)
{
    if (o->step != STEP_OVER)
        return;
    outbound_done_fn *done = o->done;
    struct outbound_mail *mail = o->mail;
    void *arg = o->arg;
    outbound_free(o);
    done(arg, mail);
}

static void on_read(struct bufferevent *bev, void *arg)
{
    struct outbound *o = arg;
    (void)bev;
    int state = 0;
    while (o->step != STEP_OVER && (state = read_reply(o)) > 0) {
        bool text = o->step == STEP_TEXT;
        steps[o->step].reply(o);
        if (o->step == STEP_OVER && !text)
            quit(o);
    }
    if (state < 0 && o->step != STEP_OVER)
        fail(o, "what came at %s is not SMTP", steps[o->step].name);
    look_if_over(o);
}

static void on_write(struct bufferevent *bev, void *arg)
{
    struct outbound *o = arg;
    (void)bev;
    if (o->step == STEP_TEXT)
        send_text(o);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct outbound *o = arg;
    const char *tls = tls_trouble(bev);
    const char *why = what & BEV_EVENT_EOF ? "closed by the server" : tls ? tls : strerror(errno);
    if (what & BEV_EVENT_CONNECTED && o->step == STEP_TLS) {
        o->secure = true;
        say_ehlo(o);
    } else if (what & BEV_EVENT_CONNECTED) {
        o->step = STEP_BANNER;
        arm(o);
    } else if (o->step == STEP_CONNECT) {
        fail(o, "cannot connect to %s: %s", o->mail->to, why);
    } else {
        fail(o, "connection lost at %s%s: %s", steps[o->step].name,
             o->step == STEP_DOT ? " (it may have been delivered)" : "", why);
    }
    look_if_over(o);
}

static void set_callbacks(struct outbound *o)
{
    bufferevent_setcb(o->bev, on_read, on_write, on_event, o);
    bufferevent_setwatermark(o->bev, EV_READ, 0, INPUT_MAX);
    bufferevent_setwatermark(o->bev, EV_WRITE, PIECE, 0);
    bufferevent_enable(o->bev, EV_READ | EV_WRITE);
}

static void begin_connection(struct outbound *o)
{
    struct sockaddr_storage sa;
    socklen_t n;
    int on = 1;
    o->step = STEP_CONNECT;
    if (!place_address(span_str(o->mail->to), &sa, &n)) {
        fail(o, "\"%s\" is not an address and port", o->mail->to);
        return;
    }
    int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        fail(o, "no socket: %s", strerror(errno));
        return;
    }
    if (sa.ss_family != AF_UNIX)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    o->bev = bufferevent_socket_new(o->base, fd, BEV_OPT_CLOSE_ON_FREE);
    if (!o->bev)
        abort();
    set_callbacks(o);
    arm(o);
    if (bufferevent_socket_connect(o->bev, (struct sockaddr *)&sa, (int)n))
        fail(o, "cannot connect to %s: %s", o->mail->to, strerror(errno));
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct outbound *o = arg;
    (void)fd, (void)what;
    if (o->step == STEP_START)
        begin_connection(o);
    else if (o->step != STEP_OVER)
        fail(o, "timed out at %s%s", steps[o->step].name,
             o->step == STEP_DOT ? " (it may have been delivered)" : "");
    look_if_over(o);
}

static bool path_good(struct span path)
{
    return path.n <= PATH_MAX_BYTES && smtp_path_good(path);
}

static void check_paths(struct outbound *o)
{
    struct outbound_mail *m = o->mail;
    bool sender_good = path_good(m->reversepath);
    for (size_t i = 0; i < m->nrcpts; i++) {
        m->rcpts[i].code = 0;
        m->rcpts[i].reply[0] = '\0';
        if (!sender_good)
            decide(o, i, 501,
                   SPAN("501 5.1.7 not sent: the reverse-path cannot be written in SMTP"));
        else if (m->rcpts[i].path.n == 0 || !path_good(m->rcpts[i].path))
            decide(o, i, 501, SPAN("501 5.1.3 not sent: the address cannot be written in SMTP"));
    }
}

struct outbound *outbound_send(struct event_base *base, struct outbound_mail *mail,
                               outbound_done_fn *done, void *arg)
{
    struct outbound *o = calloc(1, sizeof *o);
    if (!o || !(o->fates = calloc(mail->nrcpts + 1, 1)) ||
        !(o->timer = evtimer_new(base, on_timer, o)))
        abort();
    o->mail = mail;
    o->done = done;
    o->arg = arg;
    o->base = base;
    o->end = clock_mono() + mail->deadline;
    check_paths(o);
    if (open_from(o, 0) == mail->nrcpts)
        o->step = STEP_OVER;
    struct timeval now = {0};
    if (evtimer_add(o->timer, &now))
        abort();
    return o;
}

void outbound_cancel(struct outbound **op)
{
    if (*op)
        outbound_free(*op);
    *op = NULL;
}
