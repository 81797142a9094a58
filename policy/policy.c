/*
 * policy.c - reads policy.conf and asks its rules, in order, about every recipient.
 *
 * A rule that asks nothing about the recipient is asked once per message, however many recipients
 * there are; the costly facts are read only if some rule asks for them.
 */
#include <stdatomic.h>
#include <stdio.h>

#include "policy.h"

enum { RULES_MAX = 256, NAME_BYTES = 64, REASON_BYTES = 1000, TEXT_BYTES = 256 << 10 };
enum { SHOWN_BYTES = 200 }; /* of one fact in a reason */

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
    "}\n";

struct rule {
    const char *name;
    const struct expr *when;
    bool per_recipient;        /* `when` must be asked for each */
    bool reason_per_recipient; /* the reason differs between recipients */
    bool has_do;
    enum disposition disposition;
    const char *reason; /* as written; never NULL in a loaded policy */
    uint64_t reason_facts;
    size_t at; /* of its name in the text */
    unsigned line;
};

struct policy {
    struct arena *arena;
    _Atomic unsigned references;
    struct rule rules[RULES_MAX];
    size_t n;
    uint64_t facts; /* all `when` ask for */
};

/* ---- reading ---- */

struct reader {
    struct policy *policy;
    struct span text;
    size_t at;
    struct expr_error error;
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
    const struct expr *when =
        expr_compile(r->policy->arena, NULL, span_from(r->text, r->at), &used, &error);
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

static bool read_do(struct reader *r, struct rule *rule)
{
    const char *names[DISP_COUNT + 1] = {NULL};
    struct span word = peek_word(r);
    for (unsigned i = 0; i < DISP_COUNT; i++) {
        names[i] = disposition_name((enum disposition)i);
        if (span_eq(word, span_str(names[i]))) {
            rule->has_do = true;
            rule->disposition = (enum disposition)i;
            r->at += word.n;
            return true;
        }
    }
    return unexpected(r, "pass, tag, throttle, hold or reject", names);
}

/* The fact whose placeholder "{name}" begins at text[0] == '{'; *n: its length with braces.
 * FACT_COUNT if it is none. */
static enum fact placeholder(struct span text, size_t *n)
{
    size_t close = span_find(text, '}');
    *n = close + 1;
    return close == text.n ? FACT_COUNT : fact_find(span_of(text.p + 1, close - 1));
}

static bool check_placeholder(struct reader *r, size_t at, struct span text)
{
    size_t n;
    if (placeholder(text, &n) != FACT_COUNT)
        return true;
    if (n > text.n)
        return REFUSE(r, at,
                      "the reason has a '{' without '}': braces stand around names of facts");
    struct span name = span_of(text.p + 1, n - 2);
    struct nearest near = {.word = name};
    for (size_t i = 0; i < FACT_COUNT; i++)
        nearest_try(&near, fact_table[i].name);
    return REFUSE(r, at, "the reason asks for {%.*s}, and there is no such fact%s%s%s",
                  SPAN_ARG(span_head(name, 60)), near.name ? ": did you mean {" : "",
                  near.name ? near.name : "", near.name ? "}?" : "");
}

/* A reason goes into replies and header fields: printable ASCII on one line. */
static bool check_reason(struct reader *r, size_t at, struct span text, struct rule *rule)
{
    if (text.n > REASON_BYTES)
        return REFUSE(r, at, "this reason is longer than %d bytes", REASON_BYTES);
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] < 0x20 || text.p[i] > 0x7e)
            return REFUSE(r, at, "a reason is printable ASCII: byte %zu of it is 0x%02x", i + 1,
                          text.p[i]);
        if (text.p[i] != '{')
            continue;
        size_t n;
        if (!check_placeholder(r, at, span_from(text, i)))
            return false;
        enum fact fact = placeholder(span_from(text, i), &n);
        rule->reason_facts |= UINT64_C(1) << fact;
        rule->reason_per_recipient |= fact_table[fact].per_recipient;
    }
    return true;
}

static bool read_reason(struct reader *r, struct rule *rule)
{
    skip_blank(r);
    if (r->at == r->text.n || r->text.p[r->at] != '"')
        return unexpected(r, "a quoted text", NULL);
    struct span text;
    size_t n = expr_string(r->policy->arena, r->text, r->at, &text, &r->error);
    if (n == 0 || !check_reason(r, r->at, text, rule))
        return false;
    rule->reason = arena_str(r->policy->arena, text);
    r->at += n;
    return true;
}

static bool read_clause(struct reader *r, struct rule *rule)
{
    static const char *const names[] = {"when", "do", "reason", NULL};
    bool (*const read[])(struct reader *, struct rule *) = {read_when, read_do, read_reason};
    const bool given[] = {rule->when != NULL, rule->has_do, rule->reason != NULL};
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
        return unexpected(r, "'and', 'or', 'do', 'reason' or '}'", names);
    return unexpected(r, "'when', 'do', 'reason' or '}'", names);
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
    static const char *const names[] = {"rule", NULL};
    struct rule rule = {0};
    struct span word = peek_word(r);
    if (!span_eq(word, SPAN("rule")))
        return unexpected(r, "'rule'", names);
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
    if (!rule.reason)
        rule.reason = arena_printf(r->policy->arena, "Rule %s.", rule.name);
    r->policy->rules[r->policy->n++] = rule;
    return true;
}

static bool read_rules(struct reader *r)
{
    if (r->text.n > TEXT_BYTES)
        return REFUSE(r, 0, "the policy is larger than %d KB", TEXT_BYTES >> 10);
    for (skip_blank(r); r->at < r->text.n; skip_blank(r))
        if (!read_rule(r))
            return false;
    return true;
}

struct policy *policy_load(struct span text, const struct policy_source *source,
                           struct policy_error *error)
{
    struct arena *arena = arena_new();
    struct policy *policy = arena_zero(arena, sizeof *policy);
    policy->arena = arena;
    atomic_init(&policy->references, 1);
    (void)source; /* no rule can name a file yet */
    struct reader r = {.policy = policy, .text = text};
    if (read_rules(&r) && policy->n)
        return policy;
    if (!r.error.line)
        expr_error_at(
            &r.error, text, 0,
            "there is no rule; to let all mail pass, write: rule all { when true do pass }");
    *error = (struct policy_error){.line = r.error.line, .column = r.error.column};
    snprintf(error->text, sizeof error->text, "%s", r.error.text);
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

/* ---- reasons ---- */

/* Words for a text that is empty: a sentence with a hole in it helps nobody. */
static const char *empty_text(enum fact fact)
{
    switch (fact) {
    case FACT_ENVELOPE_FROM:
        return "<>";
    case FACT_LOOP_EVIDENCE:
    case FACT_REPLYALL_EVIDENCE:
    case FACT_PINGPONG_EVIDENCE:
    case FACT_FLOOD_EVIDENCE:
        return "nothing odd";
    default:
        return "unknown";
    }
}

/* Times with their unit; whole numbers as they are, others as precise as people need. */
static int show_number(char *out, size_t size, enum unit unit, double n)
{
    static const struct {
        double ms;
        const char *name;
    } units[] = {{86400e3, "days"}, {3600e3, "hours"}, {60e3, "minutes"}, {1000, "seconds"}};
    for (size_t i = 0; unit == UNIT_TIME && i < sizeof units / sizeof *units; i++)
        if (n >= 2 * units[i].ms)
            return snprintf(out, size, "%.15g %s", (double)(int64_t)(n / units[i].ms),
                            units[i].name);
    if (unit == UNIT_TIME)
        return snprintf(out, size, "%.15g ms", n);
    if (n >= 10 && n < 1e15)
        n = (double)(int64_t)(n + 0.5);
    return snprintf(out, size, n < 10 ? "%.2g" : "%.15g", n);
}

/* One fact in words of at most SHOWN_BYTES; returns how many bytes. */
static size_t show_fact(char out[SHOWN_BYTES + 1], enum fact fact, const struct fact_value *v)
{
    struct span text;
    int n = 0;
    switch (v->type) {
    case TYPE_NUMBER:
        n = show_number(out, SHOWN_BYTES + 1, fact_table[fact].unit, v->number);
        break;
    case TYPE_STRING:
    case TYPE_ADDRESS:
        text = v->text.n ? v->text : span_str(empty_text(fact));
        for (; (size_t)n < text.n && n < SHOWN_BYTES; n++)
            out[n] = text.p[n] < 0x20 || text.p[n] > 0x7e ? '?' : (char)text.p[n];
        break;
    case TYPE_BOOL:
        n = snprintf(out, SHOWN_BYTES + 1, "%s", v->yes ? "yes" : "no");
        break;
    case TYPE_NONE:
        break;
    }
    return (size_t)n;
}

char *reason_expand(struct arena *arena, const char *text, const struct facts *facts)
{
    size_t n = 0, cap = strlen(text) + 1, used;
    char *out = arena_alloc(arena, cap);
    for (struct span s = span_str(text); s.n; s = span_from(s, used)) {
        char shown[SHOWN_BYTES + 1];
        size_t plain = span_find(s, '{');
        enum fact fact = plain ? FACT_COUNT : placeholder(s, &used);
        const void *piece = fact == FACT_COUNT ? (const void *)s.p : shown;
        size_t length;
        if (fact != FACT_COUNT)
            length = show_fact(shown, fact, &facts->value[fact]);
        else
            used = length = plain ? plain : 1;
        if (n + length + 1 > cap) {
            size_t more = (n + length + 1) * 2;
            out = arena_grow(arena, out, cap, more);
            cap = more;
        }
        memcpy(out + n, piece, length);
        n += length;
    }
    out[n] = '\0';
    return out;
}

/* ---- judging ---- */

/* What is known of one rule while one message is judged. */
struct asked {
    bool known, yes;    /* the answer of a rule that does not ask about the recipient */
    const char *reason; /* likewise */
};

struct judge {
    const struct policy *policy;
    const struct subject *subject;
    const struct signals *signals;
    struct facts *facts;
    uint64_t have; /* the facts that were read */
    struct asked asked[RULES_MAX];
};

static bool rule_matches(struct judge *j, size_t i)
{
    const struct rule *rule = &j->policy->rules[i];
    struct asked *asked = &j->asked[i];
    if (rule->per_recipient)
        return expr_true(rule->when, j->facts);
    if (!asked->known) {
        asked->yes = expr_true(rule->when, j->facts);
        asked->known = true;
    }
    return asked->yes;
}

/* The reason of rule i for recipient r. */
static const char *rule_reason(struct judge *j, size_t i, size_t r)
{
    const struct rule *rule = &j->policy->rules[i];
    if (j->asked[i].reason)
        return j->asked[i].reason;
    if (rule->reason_facts & ~j->have & FACTS_COSTLY) {
        j->have |= rule->reason_facts;
        facts_of_message(j->facts, j->subject, j->signals, j->have);
        facts_of_recipient(j->facts, j->subject, j->signals, r);
    }
    const char *reason = reason_expand(j->subject->arena, rule->reason, j->facts);
    if (!rule->reason_per_recipient)
        j->asked[i].reason = reason;
    return reason;
}

/* A first copy is FIRST to the replication detector whoever gets it: so the list is asked too. */
bool policy_exempt(const struct subject *subject, const struct signals *signals, size_t r)
{
    const struct copy_signal *copies = signals->replication.copy;
    return (copies && copies[r].relation == REL_EXEMPT) ||
           site_exempt(subject->site, subject->envelope->recipients[r].address);
}

/* What enforce mode does with recipient r's copy. */
static void judge_copy(struct judge *j, size_t r, struct copy_verdict *out)
{
    facts_of_recipient(j->facts, j->subject, j->signals, r);
    for (size_t i = 0; i < j->policy->n; i++) {
        if (!rule_matches(j, i))
            continue;
        out->advised = j->policy->rules[i].disposition;
        out->rule = (uint16_t)(i + 1);
        out->rule_name = j->policy->rules[i].name;
        out->reason = rule_reason(j, i, r);
        break;
    }
    if (out->advised > DISP_TAG && policy_exempt(j->subject, j->signals, r))
        out->advised = DISP_TAG; /* a refusal too: where recipients disagree it becomes a hold */
}

static void judge_begin(struct judge *j, const struct policy *policy, const struct subject *subject,
                        const struct signals *signals)
{
    j->policy = policy; /* not zeroed: large, and what is read is filled */
    j->subject = subject;
    j->signals = signals;
    j->have = policy->facts;
    memset(j->asked, 0, policy->n * sizeof *j->asked);
    j->facts = arena_alloc(subject->arena, sizeof *j->facts);
    facts_of_message(j->facts, subject, signals, j->have);
}

static void judge_all(const struct policy *policy, const struct subject *subject,
                      const struct signals *signals, struct verdict *out)
{
    struct judge j;
    judge_begin(&j, policy, subject, signals);
    for (size_t r = 0; r < out->n; r++)
        judge_copy(&j, r, &out->copy[r]);
    out->facts = j.facts;
}

/* Is the policy on trial tried on this recipient? */
static bool on_trial(const struct ruling *ruling, struct span address)
{
    struct span domain = span_from(address, span_rfind(address, '@') + 1);
    for (size_t i = 0; i < ruling->ndomains; i++)
        if (span_case_eq(domain, ruling->domains[i]))
            return true;
    return false;
}

/* Judged anew by the policy on trial: those it is tried on. */
static void judge_trial(const struct ruling *ruling, const struct subject *subject,
                        const struct signals *signals, struct verdict *out)
{
    struct judge j;
    bool begun = false;
    for (size_t r = 0; r < out->n; r++) {
        if (!on_trial(ruling, subject->envelope->recipients[r].address))
            continue;
        if (!begun)
            judge_begin(&j, ruling->trial, subject, signals);
        begun = true;
        out->copy[r] = (struct copy_verdict){.trial = true};
        judge_copy(&j, r, &out->copy[r]);
    }
}

void policy_judge(const struct ruling *ruling, const struct subject *subject,
                  const struct signals *signals, struct verdict *out)
{
    size_t n = subject->envelope->nrecipients;
    *out = (struct verdict){.n = n, .mode = ruling->mode};
    out->copy = arena_zero(subject->arena, n * sizeof *out->copy);
    if (ruling->policy && ruling->mode != MODE_BYPASS)
        judge_all(ruling->policy, subject, signals, out);
    if (ruling->trial && ruling->mode != MODE_BYPASS)
        judge_trial(ruling, subject, signals, out);
    for (size_t r = 0; r < n; r++) {
        struct copy_verdict *copy = &out->copy[r];
        copy->disposition = ruling->mode == MODE_ENFORCE ? copy->advised : DISP_PASS;
        out->count[copy->disposition]++;
        out->advised[copy->advised]++;
    }
}

void policy_judge_facts(const struct policy *policy, const struct facts *facts,
                        struct copy_verdict *out)
{
    size_t i = 0;
    *out = (struct copy_verdict){0};
    while (i < policy->n && !expr_true(policy->rules[i].when, facts))
        i++;
    if (i == policy->n)
        return;
    out->advised = out->disposition = policy->rules[i].disposition;
    out->rule = (uint16_t)(i + 1);
    out->rule_name = policy->rules[i].name;
}

const char *policy_reason(const struct policy *policy, size_t i, struct arena *arena,
                          const struct facts *facts)
{
    return reason_expand(arena, policy->rules[i].reason, facts);
}

uint64_t policy_facts(const struct policy *p)
{
    return p->facts;
}
