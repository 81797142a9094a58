/*
 * policy.c - reads policy.conf: rules, and the sets they ask. What they say: policy_judge.c.
 *
 * Invariant: a policy is loaded whole or not at all, and never changes.
 */
#include <stdio.h>

#include "policy.h"
#include "policy_own.h"

enum { NAME_BYTES = 64, TEXT_BYTES = 256 << 10 };
enum { REASON_BYTES = 1000, REPLY_BYTES = 400 }; /* as written */

const char policy_default[] =
    "rule loop-own {\n"
    "    when loop.own_visits >= 4 or loop.hops > 30\n"
    "    do hold\n"
    "    reason \"Mail loop: the message has been through our own servers {loop.own_visits} "
    "times and through {loop.hops} servers in all.\"\n"
    "}\n"
    "rule loop-again {\n"
    "    when replication.copies >= 1\n"
    "         and (loop.visits >= 3 or loop.edges >= 2 or loop.delivered_to >= 2)\n"
    "    do hold\n"
    "    reason \"Mail loop: its recipient already had this message, and this copy has been "
    "to {loop.relay} {loop.visits} times.\"\n"
    "}\n"
    "rule duplicate {\n"
    "    when replication.advice == \"hold\"\n"
    "    do hold\n"
    "    reason \"Further copy: its recipient already had this message. Brought back by: "
    "{replication.blamed}.\"\n"
    "}\n"
    "rule reply-all {\n"
    "    when replyall.state == \"storm\" and replyall.to_all\n"
    "    do hold\n"
    "    reason \"Reply-all storm: in the last hour {replyall.senders} people wrote "
    "{replyall.replies} replies to {replyall.audience} people; {replyall.need} are a storm. "
    "This one to everybody waits for a person to decide. There is no need to send it again.\"\n"
    "}\n"
    "rule ping-pong {\n"
    "    when pingpong.advice == \"hold\"\n"
    "    do hold\n"
    "    reason \"Ping-pong: two addresses answer each other by themselves, {pingpong.flips} "
    "times each in the last hour. This answer waits for a person to decide.\"\n"
    "}\n"
    "rule flood {\n"
    "    when flood.defer\n"
    "    do throttle\n"
    "    reason \"Too much mail at once: this server sent {flood.rate} messages a minute in "
    "the last 5 minutes, {flood.baseline} are usual. Try again later; within 30 minutes the "
    "message is taken.\"\n"
    "}\n"
    "rule loop-seen {\n"
    "    when loop.visits >= 3 or loop.edges >= 2 or loop.delivered_to >= 2\n"
    "    do tag\n"
    "    reason \"First copy, but it has been in a circle: {loop.visits} times at "
    "{loop.relay}, {loop.hops} servers in all.\"\n"
    "}\n"
    "rule extra-copy {\n"
    "    when replication.advice == \"tag\"\n"
    "    do tag\n"
    "    reason \"Further copy, passed on: its recipient already had this message "
    "({replication.relation}).\"\n"
    "}\n"
    "rule seen-before {\n"
    "    when replication.seen_before\n"
    "    do tag\n"
    "    reason \"First copy known of, passed on: but its recipient probably had this "
    "message some time in the last weeks.\"\n"
    "}\n"
    "rule ping-pong-seen {\n"
    "    when pingpong.advice == \"tag\"\n"
    "    do tag\n"
    "    reason \"Two addresses answer each other often, {pingpong.flips} times each in the "
    "last hour; passed on.\"\n"
    "}\n"
    "rule visible {\n"
    "    when message.visible > 100\n"
    "    do tag\n"
    "    reason \"Passed on, but it shows {message.visible} addresses in To and Cc to everybody "
    "who gets it: answers to all of them are how storms begin. Bcc or a mailing list would "
    "not.\"\n"
    "}\n";

/* ---- reading ---- */

struct reader {
    struct policy *policy;
    const struct policy_source *source; /* NULL: no file can be read */
    struct span text;
    size_t at;
    struct expr_error error;
    struct span file; /* the set file the mistake is in; empty: none */
};

#define REFUSE(r, at, ...) (expr_error_at(&(r)->error, (r)->text, (at), __VA_ARGS__), false)

static void skip_blank(struct reader *r)
{
    r->at += expr_blank(span_from(r->text, r->at));
}

static bool take_byte(struct reader *r, uint8_t c)
{
    skip_blank(r);
    if (r->at == r->text.n || r->text.p[r->at] != c)
        return false;
    r->at++;
    return true;
}

static bool word_byte(uint8_t c)
{
    return byte_letter(c) || byte_digit(c) || c == '_' || c == '-';
}

static struct span peek_word(struct reader *r)
{
    skip_blank(r);
    struct span s = span_from(r->text, r->at);
    size_t n = 0;
    while (n < s.n && word_byte(s.p[n]))
        n++;
    return span_of(s.p, n);
}

/* What stands at the reader's place, for a message. */
static const char *found(struct reader *r, char out[48])
{
    struct span word = peek_word(r);
    if (r->at == r->text.n)
        return "the end of the file";
    if (word.n == 0)
        word = span_of(r->text.p + r->at, 1);
    snprintf(out, 48, "'%.*s'", SPAN_ARG(span_head(word, 40)));
    return out;
}

/* "found 'x': expected what", with a guess from names (NULL-ended). */
static bool unexpected(struct reader *r, const char *what, const char *const *names)
{
    char buffer[48];
    struct nearest near = {.word = peek_word(r)};
    for (; names && *names; names++)
        nearest_try(&near, *names);
    if (near.name)
        return REFUSE(r, r->at, "found %s where %s should be: did you mean '%s'?", found(r, buffer),
                      what, near.name);
    return REFUSE(r, r->at, "found %s where %s should be", found(r, buffer), what);
}

static bool read_when(struct reader *r, struct rule *rule)
{
    skip_blank(r);
    size_t used;
    struct expr_error error;
    const struct sets sets = {.set = r->policy->set, .n = r->policy->nsets};
    const struct expr *when =
        expr_compile(r->policy->arena, &sets, span_from(r->text, r->at), &used, &error);
    if (!when) {
        expr_error_at(&r->error, r->text, r->at, "%s", error.text);
        r->error.column = error.line == 1 ? r->error.column + error.column - 1 : error.column;
        r->error.line += error.line - 1;
        return false;
    }
    rule->when = when;
    rule->per_recipient = expr_per_recipient(when);
    r->policy->facts |= expr_facts(when);
    r->at += used;
    return true;
}

static size_t digits(struct span s)
{
    size_t n = 0;
    while (n < s.n && byte_digit(s.p[n]))
        n++;
    return n;
}

/* How long "4.7.1" of this class is (RFC 3463 2); 0: it is none. */
static size_t enhanced_code(struct span s, uint8_t class)
{
    if (s.n < 2 || s.p[0] != class || s.p[1] != '.')
        return 0;
    size_t subject = digits(span_from(s, 2)), dot = 2 + subject;
    size_t detail = dot < s.n && s.p[dot] == '.' ? digits(span_from(s, dot + 1)) : 0;
    bool good = subject >= 1 && subject <= 3 && detail >= 1 && detail <= 3;
    return good ? dot + 1 + detail : 0;
}

/* "code 451 4.7.1" (RFC 5321 4.2.1). 421 would end the connection, and with it other people's mail.
 */
static bool read_code(struct reader *r, struct rule *rule)
{
    bool later = rule->disposition == DISP_THROTTLE;
    uint8_t class = later ? '4' : '5';
    if (!rule->code)
        return REFUSE(r, r->at, "only throttle and reject have a code");
    r->at += strlen("code");
    skip_blank(r);
    struct span code = span_head(span_from(r->text, r->at), 3);
    size_t at = r->at;
    bool good = digits(code) == 3 && code.p[0] == class && code.p[1] <= '5';
    if (good && span_eq(code, SPAN("421")))
        return REFUSE(r, at, "421 would end the connection: use another code, such as 451");
    r->at += good ? 3 : 0;
    size_t gap = expr_blank(span_from(r->text, r->at));
    struct span more = span_from(r->text, r->at + gap);
    size_t n = good && gap ? enhanced_code(more, class) : 0;
    struct span rest = span_from(more, n);
    if (n == 0 || (rest.n && (word_byte(rest.p[0]) || rest.p[0] == '.')))
        return REFUSE(r, at, "%s needs codes as: %s", disposition_name(rule->disposition),
                      later ? "code 451 4.7.1" : "code 550 5.7.1");
    r->at += gap + n;
    rule->code =
        arena_printf(r->policy->arena, "%.*s %.*s", SPAN_ARG(code), SPAN_ARG(span_head(more, n)));
    return true;
}

/* What is said without `code`. */
static const char *usual_code(enum disposition d)
{
    return d == DISP_THROTTLE ? "451 4.7.0" : d == DISP_REJECT ? "550 5.4.6" : NULL;
}

static bool read_do(struct reader *r, struct rule *rule)
{
    const char *names[DISP_COUNT + 1] = {NULL};
    struct span word = peek_word(r);
    for (unsigned i = 0; i < DISP_COUNT; i++) {
        names[i] = disposition_name((enum disposition)i);
        if (span_eq(word, span_str(names[i]))) {
            rule->has_do = true;
            rule->disposition = (enum disposition)i;
            rule->code = usual_code(rule->disposition);
            r->at += word.n;
            word = peek_word(r);
            return !span_eq(word, SPAN("code")) || read_code(r, rule);
        }
    }
    return unexpected(r, "pass, tag, throttle, hold or reject", names);
}

static bool check_placeholder(struct reader *r, size_t at, const char *what, struct span text)
{
    size_t n;
    if (policy_placeholder(text, &n) != FACT_COUNT)
        return true;
    if (n > text.n)
        return REFUSE(r, at, "the %s has a '{' without '}': braces stand around names of facts",
                      what);
    struct span name = span_of(text.p + 1, n - 2);
    struct nearest near = {.word = name};
    for (size_t i = 0; i < FACT_COUNT; i++)
        nearest_try(&near, fact_table[i].name);
    return REFUSE(r, at, "the %s asks for {%.*s}, and there is no such fact%s%s%s", what,
                  SPAN_ARG(span_head(name, 60)), near.name ? ": did you mean {" : "",
                  near.name ? near.name : "", near.name ? "}?" : "");
}

/* It goes into replies and header fields: printable ASCII on one line. */
static bool check_phrase(struct reader *r, size_t at, const char *what, size_t most,
                         struct span text, struct phrase *phrase)
{
    if (text.n > most)
        return REFUSE(r, at, "this %s is longer than %zu bytes", what, most);
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] < 0x20 || text.p[i] > 0x7e)
            return REFUSE(r, at, "a %s is printable ASCII: byte %zu of it is 0x%02x", what, i + 1,
                          text.p[i]);
        if (text.p[i] != '{')
            continue;
        size_t n;
        if (!check_placeholder(r, at, what, span_from(text, i)))
            return false;
        enum fact fact = policy_placeholder(span_from(text, i), &n);
        phrase->facts |= UINT64_C(1) << fact;
        phrase->per_recipient |= fact_table[fact].per_recipient;
    }
    return true;
}

/* A quoted text; 0: refused. */
static size_t read_text(struct reader *r, struct span *text)
{
    skip_blank(r);
    if (r->at == r->text.n || r->text.p[r->at] != '"')
        return unexpected(r, "a quoted text", NULL);
    return expr_string(r->policy->arena, r->text, r->at, text, &r->error);
}

static bool read_phrase(struct reader *r, const char *what, size_t most, struct phrase *phrase)
{
    struct span text;
    size_t n = read_text(r, &text);
    if (n == 0 || !check_phrase(r, r->at, what, most, text, phrase))
        return false;
    phrase->text = arena_str(r->policy->arena, text);
    r->at += n;
    return true;
}

static bool read_reason(struct reader *r, struct rule *rule)
{
    return read_phrase(r, "reason", REASON_BYTES, &rule->reason);
}

static bool read_reply(struct reader *r, struct rule *rule)
{
    size_t at = (skip_blank(r), r->at);
    if (!read_phrase(r, "reply", REPLY_BYTES, &rule->reply))
        return false;
    if (*rule->reply.text == '\0')
        return REFUSE(r, at, "this reply says nothing");
    return true;
}

static bool read_clause(struct reader *r, struct rule *rule)
{
    static const char *const names[] = {"when", "do", "reason", "reply", NULL};
    bool (*const read[])(struct reader *, struct rule *) = {read_when, read_do, read_reason,
                                                            read_reply};
    const bool given[] = {rule->when != NULL, rule->has_do, rule->reason.text != NULL,
                          rule->reply.text != NULL};
    struct span word = peek_word(r);
    for (size_t i = 0; names[i]; i++) {
        if (!span_eq(word, span_str(names[i])))
            continue;
        if (given[i])
            return REFUSE(r, r->at, "rule %s has a second '%s'", rule->name, names[i]);
        r->at += word.n;
        return read[i](r, rule);
    }
    if (rule->when && !rule->has_do)
        return unexpected(r, "'and', 'or', 'do', 'reason', 'reply' or '}'", names);
    return unexpected(r, "'when', 'do', 'reason', 'reply' or '}'", names);
}

static bool read_name(struct reader *r, struct rule *rule)
{
    struct span name = peek_word(r);
    if (name.n == 0)
        return unexpected(r, "the rule's name", NULL);
    if (name.n > NAME_BYTES)
        return REFUSE(r, r->at, "this name is longer than %d letters", NAME_BYTES);
    for (size_t i = 0; i < r->policy->n; i++)
        if (span_case_eq(name, span_str(r->policy->rules[i].name)))
            return REFUSE(r, r->at, "there is a rule %s already: names must differ",
                          r->policy->rules[i].name);
    rule->name = arena_str(r->policy->arena, name);
    struct expr_error here;
    expr_error_at(&here, r->text, r->at, "here");
    rule->at = r->at;
    rule->line = here.line;
    r->at += name.n;
    return true;
}

static bool read_rule(struct reader *r)
{
    struct rule rule = {0};
    struct span word = peek_word(r);
    if (r->policy->n == RULES_MAX)
        return REFUSE(r, r->at, "more than %d rules", RULES_MAX);
    r->at += word.n;
    if (!read_name(r, &rule))
        return false;
    if (!take_byte(r, '{'))
        return unexpected(r, "'{' after the rule's name", NULL);
    while (!take_byte(r, '}'))
        if (!read_clause(r, &rule))
            return false;
    if (!rule.when)
        return REFUSE(r, rule.at, "rule %s has no 'when': use 'when true' for always", rule.name);
    if (!rule.has_do)
        return REFUSE(r, rule.at, "rule %s has no 'do': pass, tag, throttle, hold or reject",
                      rule.name);
    if (rule.reply.text && !rule.code)
        return REFUSE(r, rule.at, "rule %s has a reply, and only throttle and reject give one",
                      rule.name);
    if (!rule.reason.text)
        rule.reason.text = arena_printf(r->policy->arena, "Rule %s.", rule.name);
    r->policy->rules[r->policy->n++] = rule;
    return true;
}

/* ---- reading sets ---- */

/* Its name, new; NULL: refused. */
static const char *read_set_name(struct reader *r)
{
    struct span name = peek_word(r);
    const char *text = NULL;
    if (name.n == 0)
        unexpected(r, "the set's name", NULL);
    else if (name.n > NAME_BYTES)
        (void)REFUSE(r, r->at, "this name is longer than %d letters", NAME_BYTES);
    else if (expr_site_set(name))
        (void)REFUSE(r, r->at, "@%.*s is what breakwater.conf says: choose another name",
                     SPAN_ARG(name));
    else
        text = arena_str(r->policy->arena, name);
    for (size_t i = 0; text && i < r->policy->nsets; i++)
        if (span_case_eq(name, span_str(set_label(r->policy->set[i])))) {
            (void)REFUSE(r, r->at, "there is a set %s already: names must differ", text);
            text = NULL;
        }
    r->at += text ? name.n : 0;
    return text;
}

static bool read_entry(struct reader *r, struct set *set)
{
    char why[SET_WHY];
    skip_blank(r);
    struct span entry = expr_network(span_from(r->text, r->at));
    size_t n = entry.n, at = r->at;
    if (n == 0 && (r->at == r->text.n || r->text.p[r->at] != '"'))
        return unexpected(r, "a quoted text or a network", NULL);
    if (n == 0 && (n = read_text(r, &entry)) == 0)
        return false;
    r->at += n;
    return set_add(set, entry, why) || REFUSE(r, at, "%s", why);
}

static bool read_entries(struct reader *r, struct set *set)
{
    do
        if (!read_entry(r, set))
            return false;
    while (take_byte(r, ','));
    return take_byte(r, ')') || unexpected(r, "',' or ')'", NULL);
}

/* What the file holds, as of now. */
static bool read_set_file(struct reader *r, struct set *set)
{
    struct span path, text = {NULL, 0};
    char why[SET_WHY] = "";
    size_t n = read_text(r, &path), at = r->at;
    if (n == 0)
        return false;
    r->at += n;
    if (path.n == 0)
        return REFUSE(r, at, "this file has no name");
    if (!r->source)
        return REFUSE(r, at, "files of sets cannot be read here");
    struct arena *arena = arena_new(); /* the set keeps a copy */
    bool read = r->source->read(r->source->arg, arena, path, &text, why);
    unsigned line = read ? set_read(set, text, why) : 0;
    arena_free(&arena);
    if (read && line == 0)
        return true;
    (void)REFUSE(r, at, "%s", why);
    if (line) {
        r->file = path;
        r->error.line = line;
        r->error.column = 0;
    }
    return false;
}

static bool read_set(struct reader *r)
{
    static const char *const names[] = {"file", NULL};
    struct policy *p = r->policy;
    if (p->nsets == SETS_MAX)
        return REFUSE(r, r->at, "more than %d sets", SETS_MAX);
    r->at += peek_word(r).n;
    const char *name = read_set_name(r);
    if (!name)
        return false;
    struct set *set = set_new(p->arena, name);
    bool file = span_eq(peek_word(r), SPAN("file"));
    if (!file && !take_byte(r, '('))
        return unexpected(r, "'(' or 'file' after the set's name", names);
    r->at += file ? strlen("file") : 0;
    if (!(file ? read_set_file(r, set) : read_entries(r, set)))
        return false;
    set_seal(set);
    p->set[p->nsets++] = set;
    return true;
}

/* ---- the whole ---- */

static bool read_rules(struct reader *r)
{
    static const char *const names[] = {"rule", "set", NULL};
    if (r->text.n > TEXT_BYTES)
        return REFUSE(r, 0, "the policy is larger than %d KB", TEXT_BYTES >> 10);
    for (skip_blank(r); r->at < r->text.n; skip_blank(r)) {
        struct span word = peek_word(r);
        bool set = span_eq(word, SPAN("set"));
        if (!set && !span_eq(word, SPAN("rule")))
            return unexpected(r, "'rule' or 'set'", names);
        if (!(set ? read_set(r) : read_rule(r)))
            return false;
    }
    return true;
}

static void put_error(const struct reader *r, struct policy_error *error)
{
    *error = (struct policy_error){.line = r->error.line, .column = r->error.column};
    snprintf(error->text, sizeof error->text, "%s", r->error.text);
    span_show(r->file, error->file, sizeof error->file);
}

void policy_error_print(const struct policy_error *e, const char *file, char *out, size_t size)
{
    const char *slash = strrchr(file, '/');
    bool beside = slash && *e->file && *e->file != '/';
    int folder = beside ? (int)(slash - file) + 1 : 0;
    if (e->column)
        snprintf(out, size, "%s:%u:%u: %s", file, e->line, e->column, e->text);
    else
        snprintf(out, size, "%.*s%s:%u: %s", folder, file, *e->file ? e->file : file, e->line,
                 e->text);
}

struct policy *policy_load(struct span text, const struct policy_source *source,
                           struct policy_error *error)
{
    struct arena *arena = arena_new();
    struct policy *policy = arena_zero(arena, sizeof *policy);
    policy->arena = arena;
    atomic_init(&policy->references, 1);
    struct reader r = {.policy = policy, .source = source, .text = text};
    if (read_rules(&r) && policy->n)
        return policy;
    if (!r.error.line)
        expr_error_at(
            &r.error, text, 0,
            "there is no rule; to let all mail pass, write: rule all { when true do pass }");
    put_error(&r, error); /* what it names lies in the policy's arena */
    policy_free(&policy);
    return NULL;
}

struct policy *policy_hold(struct policy *p)
{
    atomic_fetch_add(&p->references, 1);
    return p;
}

void policy_free(struct policy **place)
{
    struct policy *p = *place;
    *place = NULL;
    if (!p || atomic_fetch_sub(&p->references, 1) != 1)
        return;
    struct arena *arena = p->arena; /* the policy itself lies in it */
    arena_free(&arena);
}

size_t policy_rules(const struct policy *p)
{
    return p ? p->n : 0;
}

const char *policy_rule_name(const struct policy *p, size_t i)
{
    return p && i < p->n ? p->rules[i].name : "";
}

const struct expr *policy_rule_when(const struct policy *p, size_t i)
{
    return p->rules[i].when;
}

enum disposition policy_rule_does(const struct policy *p, size_t i)
{
    return p->rules[i].disposition;
}

unsigned policy_rule_line(const struct policy *p, size_t i)
{
    return p->rules[i].line;
}

uint64_t policy_facts(const struct policy *p)
{
    return p->facts;
}
