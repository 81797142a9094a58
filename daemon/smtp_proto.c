/*
 * smtp_proto.c - see smtp_proto.h. One table of verbs, one of parameters.
 *
 * Invariant: what a struct smtp_command gives out can be written into a command of ours as it is:
 * no control byte, no angle bracket or blank outside a quoted string, parameters one by one known.
 */
#include <stdio.h>

#include "smtp_proto.h"

/* ---- verbs ---- */

static const struct {
    const char *name;
    enum smtp_verb verb;
    bool alone; /* takes no argument */
} verbs[] = {
    {"HELO", VERB_HELO, false},
    {"EHLO", VERB_EHLO, false},
    {"MAIL", VERB_MAIL, false},
    {"RCPT", VERB_RCPT, false},
    {"DATA", VERB_DATA, true},
    {"RSET", VERB_RSET, true},
    {"NOOP", VERB_NOOP, false},
    {"QUIT", VERB_QUIT, true},
    {"VRFY", VERB_VRFY, false},
    {"EXPN", VERB_EXPN, false},
    {"HELP", VERB_HELP, false},
    {"ETRN", VERB_ETRN, false},
    {"AUTH", VERB_AUTH, false},
    {"STARTTLS", VERB_STARTTLS, true},
    {"XCLIENT", VERB_XCLIENT, false},
    {"XFORWARD", VERB_XFORWARD, false},
    {"BDAT", VERB_FOREIGN, false},
    {"XEXCH50", VERB_FOREIGN, false},
    {"X-EXPS", VERB_FOREIGN, false},
    {"X-ANONYMOUSTLS", VERB_FOREIGN, false},
    {"X-LINK2STATE", VERB_FOREIGN, false},
    {"GET", VERB_FOREIGN, false},
    {"POST", VERB_FOREIGN, false},
    {"HEAD", VERB_FOREIGN, false},
    {"PUT", VERB_FOREIGN, false},
    {"OPTIONS", VERB_FOREIGN, false},
    {"CONNECT", VERB_FOREIGN, false},
};

/* The word up to the next blank. */
static struct span word_of(struct span s)
{
    size_t n = 0;
    while (n < s.n && s.p[n] != ' ' && s.p[n] != '\t')
        n++;
    return span_head(s, n);
}

static void read_verb(struct smtp_command *c, struct span line)
{
    struct span word = word_of(line);
    c->argument = span_trim(span_from(line, word.n));
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        if (span_case_eq(word, span_str(verbs[i].name))) {
            c->verb = verbs[i].verb;
            if (verbs[i].alone && c->argument.n)
                c->wrong = "501 5.5.4 this command takes no argument";
            return;
        }
    if (line.n && line.p[0] == 0x16)
        c->verb = VERB_FOREIGN; /* a TLS handshake on a plain port */
}

/* ---- bytes ---- */

static bool has_control(struct span s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((s.p[i] < ' ' && s.p[i] != '\t') || s.p[i] == 127)
            return true;
    return false;
}

static bool is_ascii(struct span s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] >= 128)
            return false;
    return true;
}

/* Bytes of the well-formed UTF-8 sequence at the start of s, 0: it is none (RFC 3629). */
static size_t utf8_sequence(struct span s)
{
    uint8_t c = s.p[0], low = 0x80, high = 0xbf;
    size_t n = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
    if (n == 0 || n > s.n)
        return 0;
    if (c == 0xe0)
        low = 0xa0;
    else if (c == 0xed)
        high = 0x9f;
    else if (c == 0xf0)
        low = 0x90;
    else if (c == 0xf4)
        high = 0x8f;
    for (size_t i = 1; i < n; i++, low = 0x80, high = 0xbf)
        if (s.p[i] < low || s.p[i] > high)
            return 0;
    return n;
}

static bool is_utf8(struct span s)
{
    while (s.n) {
        size_t n = utf8_sequence(s);
        if (n == 0)
            return false;
        s = span_from(s, n);
    }
    return true;
}

/* xtext (RFC 3461 4) that stands for no control byte. */
static bool is_xtext(struct span s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '!' || s.p[i] > '~' || s.p[i] == '=')
            return false;
        if (s.p[i] != '+')
            continue;
        int high = i + 2 < s.n ? byte_hex(s.p[i + 1]) : -1;
        int low = i + 2 < s.n ? byte_hex(s.p[i + 2]) : -1;
        int byte = high < 0 || low < 0 ? -1 : high * 16 + low;
        if (byte < ' ' || byte == 127)
            return false;
        i += 2;
    }
    return true;
}

/* ---- paths ---- */

/* Where the path that begins after '<' ends: at '>' outside a quoted string; s.n: nowhere. */
static size_t path_end(struct span s)
{
    bool quoted = false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '\\' && quoted)
            i++;
        else if (s.p[i] == '"')
            quoted = !quoted;
        else if (s.p[i] == '>' && !quoted)
            return i;
    }
    return s.n;
}

/* RFC 5321 4.1.1.3: "@a,@b:local@domain" is local@domain. */
static struct span without_route(struct span path)
{
    size_t colon = span_find(path, ':');
    if (path.n == 0 || path.p[0] != '@' || colon == path.n)
        return path;
    return span_from(path, colon + 1);
}

bool smtp_path_good(struct span path)
{
    bool quoted = false;
    for (size_t i = 0; i < path.n; i++) {
        uint8_t c = path.p[i];
        if (c < ' ' || c == 127 || (!quoted && (c == '<' || c == '>' || c == ' ')))
            return false;
        if (c == '"')
            quoted = !quoted;
        if (c != '\\')
            continue;
        uint8_t next = i + 1 < path.n ? path.p[i + 1] : 0;
        if (quoted && (++i == path.n || next < ' ' || next == 127))
            return false;
        if (!quoted && (!next || strchr("\\\"<> ", next)))
            return false; /* servers do not agree on what it means here */
    }
    return !quoted;
}

/* "FROM:" or "TO:" and the path; the rest is params. */
static void read_path(struct smtp_command *c, const char *keyword)
{
    struct span s = c->argument;
    c->wrong = "501 5.5.4 the address is missing or not well-formed";
    if (!span_case_starts(s, span_str(keyword)))
        return;
    s = span_trim(span_from(s, span_str(keyword).n));
    if (s.n && s.p[0] == '<') {
        size_t end = path_end(span_from(s, 1));
        if (end + 1 == s.n)
            return; /* no '>' */
        c->path = span_of(s.p + 1, end);
        s = span_from(s, end + 2);
        if (s.n && s.p[0] != ' ')
            return;
    } else {
        c->path = word_of(s); /* without <>, as some clients say it */
        if (c->path.n == 0)
            return;
        s = span_from(s, c->path.n);
    }
    c->path = without_route(c->path);
    c->params = span_trim(s);
    if (c->path.n <= LIMIT_ADDRESS && smtp_path_good(c->path) &&
        (c->path.n || c->verb == VERB_MAIL))
        c->wrong = NULL;
}

/* ---- parameters ---- */

static const char *const wrong_param = "501 5.5.4 a parameter is not well-formed";
static const char *const twice = "501 5.5.4 a parameter is given twice";
static const char *const unknown_param = "555 5.5.4 a parameter is not offered here";
static const char *const too_large = "552 5.3.4 the message is larger than is taken here";

enum { ENVID_MAX = 100, ORCPT_MAX = 500 };

static const char *param_size(struct smtp_command *c, struct span v, const struct smtp_offer *o)
{
    uint64_t n = 0;
    if (!o->size)
        return unknown_param;
    for (size_t i = 0; i < v.n; i++) {
        if (!byte_digit(v.p[i]))
            return wrong_param;
        n = n > UINT64_MAX / 16 ? n : n * 10 + (uint64_t)(v.p[i] - '0');
    }
    if (v.n == 0 || v.n > 20)
        return v.n ? too_large : wrong_param;
    c->size = n;
    return o->size_max && n > o->size_max ? too_large : NULL;
}

static const char *param_body(struct smtp_command *c, struct span v, const struct smtp_offer *o)
{
    if (!o->eightbit)
        return unknown_param;
    if (span_case_eq(v, SPAN("8BITMIME")))
        c->body = BODY_8BITMIME;
    else if (!span_case_eq(v, SPAN("7BIT")))
        return unknown_param; /* BINARYMIME is not offered */
    return NULL;
}

static const char *param_utf8(struct smtp_command *c, struct span v, const struct smtp_offer *o)
{
    c->utf8 = true;
    return !o->utf8 ? unknown_param : v.p ? wrong_param : NULL;
}

static const char *param_ret(struct smtp_command *c, struct span v, const struct smtp_offer *o)
{
    (void)c;
    if (!o->dsn)
        return unknown_param;
    return span_case_eq(v, SPAN("FULL")) || span_case_eq(v, SPAN("HDRS")) ? NULL : wrong_param;
}

static const char *param_envid(struct smtp_command *c, struct span v, const struct smtp_offer *o)
{
    (void)c;
    if (!o->dsn)
        return unknown_param;
    return v.n && v.n <= ENVID_MAX && is_xtext(v) ? NULL : wrong_param;
}

static const char *param_auth(struct smtp_command *c, struct span v, const struct smtp_offer *o)
{
    (void)c;
    if (!o->auth)
        return unknown_param;
    return v.n && is_xtext(v) ? NULL : wrong_param;
}

static const char *param_notify(struct smtp_command *c, struct span v, const struct smtp_offer *o)
{
    (void)c;
    if (!o->dsn)
        return unknown_param;
    if (span_case_eq(v, SPAN("NEVER")))
        return NULL;
    do {
        struct span one = span_head(v, span_find(v, ','));
        if (!span_case_eq(one, SPAN("SUCCESS")) && !span_case_eq(one, SPAN("FAILURE")) &&
            !span_case_eq(one, SPAN("DELAY")))
            return wrong_param;
        if (one.n + 1 == v.n)
            return wrong_param; /* ends in a comma */
        v = span_from(v, one.n + 1);
    } while (v.n);
    return NULL;
}

static const char *param_orcpt(struct smtp_command *c, struct span v, const struct smtp_offer *o)
{
    (void)c;
    size_t type = span_find(v, ';');
    if (!o->dsn)
        return unknown_param;
    return type && type + 1 < v.n && v.n <= ORCPT_MAX && is_xtext(span_head(v, type)) &&
                   is_xtext(span_from(v, type + 1))
               ? NULL
               : wrong_param;
}

static const struct {
    const char *name;
    enum smtp_verb verb;
    const char *(*read)(struct smtp_command *, struct span value, const struct smtp_offer *);
} params[] = {
    {"SIZE", VERB_MAIL, param_size},     {"BODY", VERB_MAIL, param_body},
    {"SMTPUTF8", VERB_MAIL, param_utf8}, {"RET", VERB_MAIL, param_ret},
    {"ENVID", VERB_MAIL, param_envid},   {"AUTH", VERB_MAIL, param_auth},
    {"NOTIFY", VERB_RCPT, param_notify}, {"ORCPT", VERB_RCPT, param_orcpt},
};
enum { PARAMS = sizeof params / sizeof *params };

/* One "KEYWORD" or "KEYWORD=value"; seen: bits of those read before. */
static const char *read_param(struct smtp_command *c, struct span s, const struct smtp_offer *o,
                              unsigned *seen)
{
    size_t eq = span_find(s, '=');
    struct span value = eq < s.n ? span_from(s, eq + 1) : span_of(NULL, 0);
    if (eq < s.n && !value.p)
        value = span_of("", 0);
    for (size_t i = 0; i < PARAMS; i++) {
        if (params[i].verb != c->verb || !span_case_eq(span_head(s, eq), span_str(params[i].name)))
            continue;
        if (*seen >> i & 1)
            return twice;
        *seen |= 1u << i;
        return params[i].read(c, value, o);
    }
    return unknown_param;
}

static void read_params(struct smtp_command *c, const struct smtp_offer *o)
{
    struct span rest = c->params;
    unsigned seen = 0;
    while (rest.n && !c->wrong) {
        struct span one = word_of(rest);
        c->wrong = read_param(c, one, o, &seen);
        rest = span_trim(span_from(rest, one.n));
    }
    if (c->wrong || is_ascii(c->path))
        return;
    if (!c->utf8 && c->verb == VERB_MAIL)
        c->wrong = "501 5.6.7 an address that is not ASCII needs SMTPUTF8";
    else if (!is_utf8(c->path))
        c->wrong = "501 5.6.7 the address is not UTF-8";
}

struct span smtp_without_size(struct arena *arena, struct span list)
{
    struct span out = span_of(NULL, 0);
    while ((list = span_trim(list)).n) {
        struct span one = word_of(list);
        list = span_from(list, one.n);
        if (!span_case_starts(one, SPAN("SIZE=")))
            out = arena_join(arena, out, out.n ? SPAN(" ") : SPAN(""), one);
    }
    return out;
}

/* ---- commands ---- */

static void read_name(struct smtp_command *c)
{
    struct span name = word_of(c->argument);
    if (name.n == 0 || name.n != c->argument.n || !is_ascii(name))
        c->wrong = "501 5.5.4 one host name is wanted";
    else if (name.n > 255) /* RFC 5321 4.5.3.1.2 */
        c->wrong = "500 5.5.2 the name is too long";
}

void smtp_command_read(struct smtp_command *c, struct span line, const struct smtp_offer *o)
{
    *c = (struct smtp_command){0};
    read_verb(c, line);
    if (c->verb == VERB_FOREIGN || c->wrong)
        return;
    if (has_control(line)) {
        c->wrong = c->verb ? "501 5.5.4 a control character is not allowed here"
                           : "500 5.5.2 this is no command";
        return;
    }
    if (c->verb == VERB_HELO || c->verb == VERB_EHLO)
        read_name(c);
    else if (c->verb == VERB_MAIL || c->verb == VERB_RCPT) {
        read_path(c, c->verb == VERB_MAIL ? "FROM:" : "TO:");
        if (!c->wrong)
            read_params(c, o);
    } else if ((c->verb == VERB_VRFY || c->verb == VERB_EXPN || c->verb == VERB_ETRN ||
                c->verb == VERB_AUTH || c->verb == VERB_XCLIENT || c->verb == VERB_XFORWARD) &&
               c->argument.n == 0) {
        c->wrong = "501 5.5.4 an argument is missing";
    }
}

/* ---- replies ---- */

/* All its lines say what the last one says, for there are readers who look at the first only (RFC
 * 5321 4.2.1). The text is a copy of ours in the arena. */
static void agree(struct smtp_reply *r, struct span last)
{
    uint8_t *text = (uint8_t *)r->text.p;
    for (size_t at = 0; at < r->text.n;) {
        memcpy(text + at, last.p, 3);
        at += span_find(span_from(r->text, at), '\n') + 1;
    }
}

bool smtp_reply_line(struct smtp_reply *r, struct arena *arena, struct span line)
{
    bool digits = line.n >= 3 && line.p[0] >= '2' && line.p[0] <= '5' && byte_digit(line.p[1]) &&
                  byte_digit(line.p[2]);
    bool more = digits && line.n > 3 && line.p[3] == '-';
    int code = digits ? (line.p[0] - '0') * 100 + (line.p[1] - '0') * 10 + (line.p[2] - '0') : -1;
    if (!digits || (line.n > 3 && line.p[3] != ' ' && !more) || line.n > SMTP_REPLY_MAX ||
        ++r->lines > SMTP_REPLY_LINES) {
        r->code = -1;
        return true;
    }
    uint8_t *clean = arena_alloc(arena, line.n + 1);
    for (size_t i = 0; i < line.n;
         i++) /* nothing of it may end a line of ours, or speak to a terminal */
        clean[i] = line.p[i] < ' ' || line.p[i] == 127 ? ' ' : line.p[i];
    r->text = arena_join(arena, r->text, span_of(clean, line.n), SPAN("\r\n"));
    if (more)
        return false;
    r->code = code;
    agree(r, line);
    return true;
}

/* ---- EHLO ---- */

/* Mechanisms that do not bind to the channel we end: those pass through a proxy. */
static const char *const mechanisms[] = {"PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER"};

static void offer_mechanisms(struct smtp_offer *o, struct arena *arena, struct span list)
{
    while ((list = span_trim(list)).n) {
        struct span one = word_of(list);
        list = span_from(list, one.n);
        for (size_t i = 0; i < sizeof mechanisms / sizeof *mechanisms; i++)
            if (span_case_eq(one, span_str(mechanisms[i])))
                o->mechanisms =
                    arena_join(arena, o->mechanisms, SPAN(" "), span_str(mechanisms[i]));
    }
    o->auth = o->mechanisms.n > 0;
}

static uint64_t size_of(struct span s)
{
    uint64_t n = 0;
    for (size_t i = 0; i < s.n && i < 18 && byte_digit(s.p[i]); i++)
        n = n * 10 + (uint64_t)(s.p[i] - '0');
    return n;
}

void smtp_offer_keyword(struct smtp_offer *o, struct arena *arena, struct span keyword)
{
    struct span word = word_of(keyword), rest = span_trim(span_from(keyword, word.n));
    const struct {
        const char *name;
        bool *flag;
    } flags[] = {{"8BITMIME", &o->eightbit}, {"SMTPUTF8", &o->utf8},
                 {"DSN", &o->dsn},           {"ENHANCEDSTATUSCODES", &o->enhanced},
                 {"VRFY", &o->vrfy},         {"ETRN", &o->etrn},
                 {"STARTTLS", &o->starttls}, {"PIPELINING", &o->pipelining},
                 {"SIZE", &o->size}};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (span_case_eq(word, span_str(flags[i].name)))
            *flags[i].flag = true;
    if (span_case_eq(word, SPAN("SIZE")))
        o->size_max = size_of(rest);
    if (span_case_eq(word, SPAN("XCLIENT")))
        o->xclient = arena_span(arena, rest);
    if (span_case_eq(word, SPAN("XFORWARD")))
        o->xforward = arena_span(arena, rest);
    if (span_case_eq(word, SPAN("AUTH")))
        offer_mechanisms(o, arena, rest);
    else if (span_case_starts(word, SPAN("AUTH=")))
        offer_mechanisms(o, arena, span_from(word, 5)); /* as some old servers say it */
}

void smtp_offer_read(struct smtp_offer *o, struct arena *arena, const struct smtp_reply *r)
{
    struct span rest = r->text;
    for (bool first = true; rest.n; first = false) {
        size_t n = span_find(rest, '\n');
        struct span line = span_trim(span_head(rest, n));
        if (!first && line.n > 4)
            smtp_offer_keyword(o, arena, span_from(line, 4));
        rest = span_from(rest, n + 1);
    }
}
