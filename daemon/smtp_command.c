/*
 * smtp_command.c - what each command of a client does. A row says what it needs; the functions say
 * what follows.
 */
#include <stdio.h>
#include <stdlib.h>

#include <openssl/evp.h>

#include "smtp_own.h"

enum { IDLE_COMMANDS = 100 }; /* NOOP, RSET, VRFY, HELP, DATA in vain ... between two messages */

static void local(struct session *s, const char *text)
{
    smtp_turn(s, TURN_LOCAL)->text = text;
}

/* Something that is no command, or not well-formed: too many of them and it is closed. */
static void junk(struct session *s, const char *text)
{
    if (s->baffled)
        smtp_close(s, "421 4.7.0 this is no command, and no data was asked for");
    else if (++s->junk > s->door->config->smtp_junk)
        smtp_close(s, "421 4.7.0 too many errors; please connect again");
    else
        local(s, text);
}

/* A command that brings no message nearer: some are fine. */
static bool idles(struct session *s)
{
    if (++s->idled <= IDLE_COMMANDS || s->upstream)
        return false;
    smtp_close(s, "421 4.7.0 too many commands and no message; please connect again");
    return true;
}

/* Too many recipients that were turned away: nobody has so many by mistake. Fewer are none of our
 * business, for the server behind counts them too. */
static bool turned_away(const struct session *s)
{
    return s->turned >= TURNED_TIMES * s->door->config->smtp_recipients && !s->upstream;
}

static void turn_away(struct session *s, const char *text)
{
    s->turned++;
    local(s, text);
}

static void keep_name(char out[NAME_MAX_BYTES + 1], struct span name)
{
    span_show(name, out, NAME_MAX_BYTES + 1);
}

/* Asks downstream; its reply is relayed. */
static void relay(struct session *s, enum turn_kind kind, struct span line)
{
    smtp_turn(s, kind);
    downstream_command(s->down, line);
}

/* ---- EHLO ---- */

/* What downstream offers, and we let through or do ourselves. */
static void make_offer(struct session *s)
{
    const struct smtp_offer *theirs = downstream_offer(s->down);
    uint64_t most = s->door->config->smtp_message_size;
    s->offer = (struct smtp_offer){
        .size = true,
        .size_max = theirs->size_max && theirs->size_max < most ? theirs->size_max : most,
        .eightbit = theirs->eightbit,
        .utf8 = theirs->utf8,
        .dsn = theirs->dsn,
        .enhanced = theirs->enhanced,
        .vrfy = theirs->vrfy,
        .etrn = theirs->etrn,
        .pipelining = true,
        .starttls = s->door->tls && !s->secure,
        .auth = theirs->auth && s->secure,
    };
}

/* A reply of several lines. */
struct lines {
    char p[2048];
    size_t n;
};

static void add(struct lines *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add(struct lines *l, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(l->p + l->n, sizeof l->p - l->n, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof l->p - l->n)
        abort();
    l->n += (size_t)n;
}

void smtp_answer_ehlo(struct session *s)
{
    struct lines l = {.n = 0};
    make_offer(s);
    s->greeted = true;
    add(&l, "250%c%.255s\r\n", s->client.esmtp ? '-' : ' ', s->door->down.helo);
    const struct smtp_offer *o = &s->offer;
    const struct {
        bool yes;
        const char *keyword;
    } words[] = {{true, "PIPELINING"},
                 {o->eightbit, "8BITMIME"},
                 {o->utf8, "SMTPUTF8"},
                 {o->dsn, "DSN"},
                 {o->enhanced, "ENHANCEDSTATUSCODES"},
                 {o->vrfy, "VRFY"},
                 {o->etrn, "ETRN"},
                 {o->starttls, "STARTTLS"},
                 {s->upstream, "XCLIENT NAME ADDR PORT PROTO HELO LOGIN"},
                 {s->upstream, "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE"}};
    for (size_t i = 0; s->client.esmtp && i < sizeof words / sizeof *words; i++)
        if (words[i].yes)
            add(&l, "250-%s\r\n", words[i].keyword);
    if (s->client.esmtp && o->auth)
        add(&l, "250-AUTH%.*s\r\n", SPAN_ARG(downstream_offer(s->down)->mechanisms));
    if (s->client.esmtp)
        add(&l, "250 SIZE %llu\r\n", (unsigned long long)o->size_max);
    smtp_reply(s, span_of(l.p, l.n));
}

static void ehlo(struct session *s, const struct smtp_command *c)
{
    char name[NAME_MAX_BYTES + 1];
    keep_name(name, c->argument);
    bool same = strcmp(name, s->client.helo) == 0;
    if (idles(s))
        return;
    smtp_forget(s, REPLY_ABORTED);
    memcpy(s->client.helo, name, sizeof name);
    s->client.esmtp = c->verb == VERB_EHLO;
    if (smtp_down_alive(s) && (same || s->authed)) {
        smtp_answer_ehlo(s); /* RSET's answer, if any, is for nobody */
        return;
    }
    if (s->authed) {
        smtp_close(s, "421 4.4.2 the mail server behind was lost; please connect again");
        return;
    }
    s->turns = 0; /* only such an answer was to come */
    smtp_stage(s, STAGE_OPENING);
    smtp_open_downstream(s);
}

/* ---- the envelope ---- */

static void fill_envelope(struct session *s)
{
    struct arena *a = tx_arena(s->tx);
    struct envelope *e = tx_envelope(s->tx);
    const struct speaker *who = s->forwarded ? &s->origin : &s->client;
    e->client = who->address;
    e->helo = arena_span(a, span_str(who->helo));
    e->client_name = arena_span(a, span_str(who->name));
    e->auth = arena_span(a, span_str(s->authed ? s->client.login : who->login));
}

/* "VERB:<path> params" as we say it. */
static void envelope_line(struct session *s, enum turn_kind kind, const char *verb,
                          struct span path, struct span params)
{
    char line[SMTP_COMMAND_MAX + 32];
    int n = snprintf(line, sizeof line, "%s:<%.*s>%s%.*s", verb, SPAN_ARG(path),
                     params.n ? " " : "", SPAN_ARG(params));
    relay(s, kind, span_of(line, (size_t)n));
}

bool smtp_say_origin(struct session *s)
{
    const struct speaker *who = s->forwarded ? &s->origin : &s->client;
    struct downstream_client client = {.address = who->address,
                                       .port = who->port,
                                       .name = span_str(who->name),
                                       .helo = span_str(who->helo),
                                       .esmtp = who->esmtp};
    if (!s->door->down.xforward || !downstream_offer(s->down)->xforward.p)
        return false;
    downstream_forward(s->down, &client);
    return true;
}

static void say_mail(struct session *s)
{
    const struct envelope *e = tx_envelope(s->tx);
    if (smtp_say_origin(s))
        smtp_turn(s, TURN_SILENT);
    struct span params = e->reversepath_params;
    if (!downstream_offer(s->down)->size)
        params = smtp_without_size(tx_arena(s->tx), params);
    envelope_line(s, TURN_MAIL, "MAIL FROM", e->reversepath, params);
}

static void say_rcpt(struct session *s, const struct asked *asked)
{
    envelope_line(s, TURN_RCPT, "RCPT TO", asked->path, asked->params);
    struct turn *t = &s->turn[(s->first + s->turns - 1) % TURNS_MAX];
    t->asked = asked;
}

void smtp_say_again(struct session *s)
{
    struct turn old[TURNS_MAX];
    unsigned n = s->turns;
    for (unsigned i = 0; i < n; i++)
        old[i] = s->turn[(s->first + i) % TURNS_MAX];
    s->turns = 0;
    for (unsigned i = 0; i < n; i++)
        if (old[i].kind == TURN_LOCAL)
            local(s, old[i].text);
        else if (old[i].kind == TURN_MAIL)
            say_mail(s);
        else if (old[i].kind == TURN_RCPT)
            say_rcpt(s, old[i].asked);
        else if (old[i].kind == TURN_RELAY)
            relay(s, TURN_RELAY, SPAN("NOOP")); /* all others wait until MAIL is answered */
}

static void begin_message(struct session *s, const struct smtp_command *c)
{
    s->tx = tx_begin(s->worker->pipeline, s->worker->config, &s->worker->keys, s->worker->mailbox,
                     s->door->listener->name);
    s->now = arena_zero(tx_arena(s->tx), sizeof *s->now);
    tx_keep(s->tx);
    fill_envelope(s);
    tx_reversepath(s->tx, c->path, c->params);
}

static void mail(struct session *s, const struct smtp_command *c)
{
    const struct config *config = s->door->config;
    if (s->tx) {
        junk(s, "503 5.5.1 a message is under way already");
        return;
    }
    if (s->idled > IDLE_COMMANDS && !s->upstream) { /* it was refused so often */
        (void)idles(s);
        return;
    }
    if (s->messages >= config->smtp_messages || clock_mono() - s->began > config->smtp_session) {
        smtp_close(s, "421 4.7.0 enough for this connection; please connect again");
        return;
    }
    bool alive = smtp_down_alive(s);
    if (!alive && s->authed) {
        smtp_close(s, "421 4.4.2 the mail server behind was lost; please connect again");
        return;
    }
    begin_message(s, c);
    if (alive) {
        say_mail(s);
        return;
    }
    smtp_turn(s, TURN_MAIL); /* said when there is a session */
    s->now->again = true;
    smtp_stage(s, STAGE_OPENING);
    smtp_open_downstream(s);
}

static void rcpt(struct session *s, const struct smtp_command *c)
{
    if (turned_away(s))
        smtp_close(s, "421 4.7.0 too many recipients were refused; please connect again");
    else if (!s->tx) /* many of them may have been said at once after a MAIL that is refused */
        turn_away(s, "503 5.5.1 MAIL comes first");
    else if (s->now->asked >= s->door->config->smtp_recipients)
        turn_away(s, "452 4.5.3 too many recipients; please send the rest in another message");
    else if (!smtp_down_alive(s))
        local(s, "451 4.4.2 the mail server behind was lost; please try again later");
    else {
        struct arena *a = tx_arena(s->tx);
        struct asked *asked = arena_alloc(a, sizeof *asked);
        *asked = (struct asked){arena_span(a, c->path), arena_span(a, c->params)};
        s->now->asked++;
        say_rcpt(s, asked);
    }
}

/* What follows DATA in the same breath would be taken for data by us and for commands by others. */
static bool spoke_too_soon(struct session *s)
{
    return evbuffer_get_length(bufferevent_get_input(s->bev)) > s->line_bytes;
}

static void data(struct session *s)
{
    const char *no = !s->tx || !s->now->open                ? "503 5.5.1 MAIL and RCPT come first"
                     : tx_envelope(s->tx)->nrecipients == 0 ? "554 5.5.1 no valid recipients"
                                                            : NULL;
    if (spoke_too_soon(s)) {
        smtp_close(s, no ? no : "554 5.5.0 data came before it was asked for");
        return;
    }
    if (no && idles(s))
        return;
    if (no) {
        s->baffled = true;
        local(s, no);
        return;
    }
    smtp_say(s, "354 End data with <CR><LF>.<CR><LF>");
    smtp_stage(s, STAGE_DATA);
}

static void rset(struct session *s)
{
    if (idles(s))
        return;
    smtp_end(s, REPLY_ABORTED);
    s->forwarded = false;
    if (smtp_down_alive(s)) /* what it says is for nobody: forgotten it is, even if it is gone */
        relay(s, TURN_SILENT, SPAN("RSET"));
    local(s, "250 2.0.0 ok");
}

/* ---- TLS and AUTH ---- */

static void starttls(struct session *s)
{
    if (!s->door->tls || s->secure || !s->client.esmtp) {
        junk(s, s->secure ? "503 5.5.1 TLS is up already" : "502 5.5.1 no TLS here");
        return;
    }
    if (s->tx) {
        junk(s, "503 5.5.1 not in the middle of a message");
        return;
    }
    smtp_say(s, "220 2.0.0 go ahead");
    smtp_stage(s, STAGE_STARTTLS); /* on when that is written; what waits in the input goes */
}

/* The login out of what a client says for AUTH. Nothing else of it is kept. */
static void note_login(struct session *s, struct span base64)
{
    uint8_t plain[SMTP_AUTH_MAX];
    enum login_form form = s->login;
    s->login = LOGIN_NONE;
    if (form == LOGIN_NONE || base64.n == 0 || base64.n % 4 || base64.n > SMTP_AUTH_MAX)
        return;
    int n = EVP_DecodeBlock(plain, base64.p, (int)base64.n);
    for (size_t i = base64.n; n > 0 && i > 0 && base64.p[i - 1] == '='; i--)
        n--; /* it counts the padding */
    if (n <= 0)
        return;
    struct span all = span_of(plain, (size_t)n);
    if (form == LOGIN_PLAIN)
        all = span_from(all, span_find(all, 0) + 1);
    else if (form == LOGIN_XOAUTH2 && span_case_starts(all, SPAN("user=")))
        all = span_from(all, 5);
    if (form != LOGIN_ALONE)
        all = span_head(all, span_find(all, form == LOGIN_PLAIN ? 0 : 1));
    keep_name(s->claimed, all);
    OPENSSL_cleanse(plain, sizeof plain);
}

void smtp_authed(struct session *s, bool good)
{
    s->authed = good;
    if (!good)
        s->junk++; /* a password that is guessed */
    if (good)
        memcpy(s->client.login, s->claimed, sizeof s->claimed);
}

static bool mechanism_good(const struct session *s, struct span word)
{
    struct span list = downstream_offer(s->down)->mechanisms;
    while ((list = span_trim(list)).n) {
        size_t n = span_find(list, ' ');
        if (span_case_eq(span_head(list, n), word))
            return true;
        list = span_from(list, n);
    }
    return false;
}

static enum login_form login_form(struct span mechanism)
{
    return span_case_eq(mechanism, SPAN("PLAIN"))     ? LOGIN_PLAIN
           : span_case_eq(mechanism, SPAN("LOGIN"))   ? LOGIN_ALONE
           : span_case_eq(mechanism, SPAN("XOAUTH2")) ? LOGIN_XOAUTH2
                                                      : LOGIN_NONE;
}

static void auth(struct session *s, const struct smtp_command *c, struct span line)
{
    struct span word = span_head(c->argument, span_find(c->argument, ' '));
    const char *no = !s->offer.auth             ? "502 5.5.1 no AUTH here"
                     : s->authed || s->tx       ? "503 5.5.1 not now"
                     : !smtp_down_alive(s)      ? "454 4.7.0 not now; please try again later"
                     : !mechanism_good(s, word) ? "504 5.5.4 this mechanism is not offered"
                                                : NULL;
    if (no || s->junk >= s->door->config->smtp_junk) {
        junk(s, no);
        return;
    }
    s->login = login_form(word);
    s->claimed[0] = '\0';
    struct span initial = span_trim(span_from(c->argument, word.n));
    if (initial.n)
        note_login(s, initial);
    relay(s, TURN_AUTH, line);
}

/* base64, or "*": anything else is a cancelled exchange (RFC 4954 4). */
static bool is_answer(struct span s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!byte_letter(s.p[i]) && !byte_digit(s.p[i]) && !memchr("+/=", s.p[i], 3))
            return false;
    return true;
}

void smtp_auth_answer(struct session *s, struct span line)
{
    s->owed++;
    smtp_stage(s, STAGE_COMMAND);
    if (!smtp_down_alive(s)) {
        local(s, "454 4.7.0 the mail server behind was lost; please try again later");
        return;
    }
    note_login(s, line);
    relay(s, TURN_AUTH, is_answer(line) ? line : SPAN("*"));
}

/* ---- XCLIENT and XFORWARD, from those who may ---- */

/* xtext (RFC 3461 4) decoded; false: it is none, or holds control characters. */
static bool xtext(struct span in, char out[NAME_MAX_BYTES + 1])
{
    size_t n = 0;
    for (size_t i = 0; i < in.n; i++) {
        int c = in.p[i];
        if (c == '+') {
            int high = i + 2 < in.n ? byte_hex(in.p[i + 1]) : -1;
            int low = i + 2 < in.n ? byte_hex(in.p[i + 2]) : -1;
            c = high < 0 || low < 0 ? -1 : high * 16 + low;
            i += 2;
        }
        if (c < ' ' || c == 127 || n == NAME_MAX_BYTES)
            return false;
        out[n++] = (char)c;
    }
    out[n] = '\0';
    return true;
}

static bool set_attribute(struct speaker *who, struct span name, const char *value)
{
    bool unknown = value[0] == '[' &&
                   (strcmp(value, "[UNAVAILABLE]") == 0 || strcmp(value, "[TEMPUNAVAIL]") == 0);
    const char *v = unknown ? "" : value;
    uint64_t port;
    if (span_case_eq(name, SPAN("NAME")))
        keep_name(who->name, span_str(v));
    else if (span_case_eq(name, SPAN("HELO")))
        keep_name(who->helo, span_str(v));
    else if (span_case_eq(name, SPAN("LOGIN")))
        keep_name(who->login, span_str(v));
    else if (span_case_eq(name, SPAN("ADDR")))
        return unknown ? (who->address = (struct ipaddr){0}, true)
                       : ipaddr_parse(&who->address, span_str(v));
    else if (span_case_eq(name, SPAN("PORT")))
        return unknown ||
               (span_number(span_str(v), 65535, &port) && (who->port = (uint16_t)port, true));
    else if (span_case_eq(name, SPAN("PROTO")))
        who->esmtp = span_case_eq(span_str(v), SPAN("ESMTP"));
    else
        return span_case_eq(name, SPAN("IDENT")) || span_case_eq(name, SPAN("SOURCE"));
    return true;
}

static bool set_attributes(struct speaker *who, struct span list)
{
    char value[NAME_MAX_BYTES + 1];
    while ((list = span_trim(list)).n) {
        struct span one = span_head(list, span_find(list, ' '));
        size_t eq = span_find(one, '=');
        list = span_from(list, one.n);
        if (eq == one.n || !xtext(span_from(one, eq + 1), value) ||
            !set_attribute(who, span_head(one, eq), value))
            return false;
    }
    return true;
}

static void xclient(struct session *s, const struct smtp_command *c)
{
    struct speaker who = s->client;
    if (!s->upstream) {
        junk(s, "550 5.7.0 this is not for you");
        return;
    }
    if (s->tx) {
        local(s, "503 5.5.1 not in the middle of a message");
        return;
    }
    if (!set_attributes(&who, c->argument)) {
        local(s, "501 5.5.4 an attribute is not well-formed");
        return;
    }
    struct clients *clients = smtp_doors_clients(s->worker->pipeline->doors);
    clients_leave(clients, &s->client.address);
    s->client = who;
    (void)clients_enter(clients, &s->client.address, true);
    s->greeted = s->authed = s->forwarded = false;
    downstream_close(&s->down); /* it knows another client */
    smtp_greet(s);
}

static void xforward(struct session *s, const struct smtp_command *c)
{
    struct speaker who = s->forwarded ? s->origin : (struct speaker){.esmtp = true};
    if (!s->upstream)
        junk(s, "550 5.7.0 this is not for you");
    else if (s->tx)
        local(s, "503 5.5.1 not in the middle of a message");
    else if (!set_attributes(&who, c->argument))
        local(s, "501 5.5.4 an attribute is not well-formed");
    else {
        s->origin = who;
        s->forwarded = true;
        local(s, "250 2.0.0 ok");
    }
}

/* ---- all of them ---- */

/* Only these do not change what others mean; all the rest waits for the replies before it. */
static bool waits(enum smtp_verb verb)
{
    return verb != VERB_RCPT && verb != VERB_NOOP;
}

static void foreign(struct session *s, struct span line)
{
    bool known = span_case_starts(line, SPAN("X")) || span_case_starts(line, SPAN("BDAT"));
    smtp_close(s, known ? "502 5.5.1 not offered here; what follows cannot be understood"
                        : "421 4.7.0 this is a mail server");
}

static void other(struct session *s, const struct smtp_command *c, struct span line)
{
    switch (c->verb) {
    case VERB_NOOP:
        if (idles(s))
            break;
        if (smtp_down_alive(s))
            relay(s, TURN_RELAY, SPAN("NOOP"));
        else
            local(s, "250 2.0.0 ok");
        break;
    case VERB_VRFY:
        if (idles(s))
            break;
        if (s->offer.vrfy && smtp_down_alive(s))
            relay(s, TURN_RELAY, line);
        else
            local(s, "252 2.1.5 send some mail, it will be tried");
        break;
    case VERB_ETRN:
        if (idles(s))
            break;
        if (s->offer.etrn && smtp_down_alive(s))
            relay(s, TURN_RELAY, line);
        else
            junk(s, "502 5.5.1 not offered here");
        break;
    case VERB_HELP:
        if (idles(s))
            break;
        local(s, "214 2.0.0 see RFC 5321");
        break;
    case VERB_QUIT:
        smtp_close(s, "221 2.0.0 goodbye");
        break;
    default:
        junk(s, "502 5.5.1 not offered here");
    }
}

bool smtp_obey(struct session *s, struct span line)
{
    struct smtp_command c;
    smtp_command_read(&c, line, &s->offer);
    bool last =
        s->idled >= IDLE_COMMANDS || s->junk >= s->door->config->smtp_junk || turned_away(s);
    if (s->turns && (last || waits(c.verb)))
        return false;
    s->owed++;
    if (c.verb != VERB_UNKNOWN && !c.wrong)
        s->baffled = false;
    if (line.n > SMTP_COMMAND_MAX && c.verb != VERB_AUTH)
        junk(s, "500 5.5.2 the line is too long");
    else if (c.verb == VERB_FOREIGN)
        foreign(s, line);
    else if (c.wrong)
        junk(s, c.wrong);
    else if (!s->greeted && (c.verb == VERB_MAIL || c.verb == VERB_RCPT || c.verb == VERB_DATA ||
                             c.verb == VERB_AUTH || c.verb == VERB_STARTTLS))
        local(s, "503 5.5.1 EHLO comes first");
    else if (c.verb == VERB_EHLO || c.verb == VERB_HELO)
        ehlo(s, &c);
    else if (c.verb == VERB_MAIL)
        mail(s, &c);
    else if (c.verb == VERB_RCPT)
        rcpt(s, &c);
    else if (c.verb == VERB_DATA)
        data(s);
    else if (c.verb == VERB_RSET)
        rset(s);
    else if (c.verb == VERB_STARTTLS)
        starttls(s);
    else if (c.verb == VERB_AUTH)
        auth(s, &c, line);
    else if (c.verb == VERB_XCLIENT)
        xclient(s, &c);
    else if (c.verb == VERB_XFORWARD)
        xforward(s, &c);
    else
        other(s, &c, line);
    return true;
}
