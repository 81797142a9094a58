/*
 * policy_judge.c - asks the rules of a policy, in order, about every recipient of a message, and
 * says why in words.
 *
 * A rule that asks nothing about the recipient is asked once per message, however many recipients
 * there are; the costly facts are read only if some rule asks for them.
 */
#include <stdio.h>

#include "policy.h"
#include "policy_own.h"

enum { REPLY_LINE = 480 };  /* of a reply with its code: a line has 512 (RFC 5321 4.5.3.1.5) */
enum { SHOWN_BYTES = 200 }; /* of one fact in a reason */

/* ---- reasons ---- */

enum fact policy_placeholder(struct span text, size_t *n)
{
    size_t close = span_find(text, '}');
    *n = close + 1;
    return close == text.n ? FACT_COUNT : fact_find(span_of(text.p + 1, close - 1));
}

/* Words for a text that is empty: a sentence with a hole in it helps nobody. */
static const char *empty_text(enum fact fact)
{
    switch (fact) {
    case FACT_ENVELOPE_FROM:
        return "<>";
    case FACT_ENVELOPE_AUTH:
        return "nobody";
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
    if (unit == UNIT_SHARE)
        return snprintf(out, size, "%.0f %%", n * 100);
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
        enum fact fact = plain ? FACT_COUNT : policy_placeholder(s, &used);
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
    const char *reply;
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

/* A text of a rule for recipient r; *known: the same for all of the message, once it is. */
static const char *say(struct judge *j, size_t r, const struct phrase *phrase, const char **known)
{
    const char *text = *known;
    if (text)
        return text;
    if (phrase->facts & ~j->have & FACTS_COSTLY) {
        j->have |= phrase->facts;
        facts_of_message(j->facts, j->subject, j->signals, j->have);
        facts_of_recipient(j->facts, j->subject, j->signals, r);
    }
    text = reason_expand(j->subject->arena, phrase->text, j->facts);
    if (!phrase->per_recipient)
        *known = text;
    return text;
}

/* "451 4.7.0 text", the text being the reason where there is no other. */
static const char *say_reply(struct judge *j, size_t r, size_t i, const char *reason)
{
    const struct rule *rule = &j->policy->rules[i];
    const struct phrase *phrase = rule->reply.text ? &rule->reply : &rule->reason;
    const char *text = j->asked[i].reply, *own = NULL;
    if (text)
        return text;
    text = rule->reply.text ? say(j, r, phrase, &own) : reason;
    text = arena_printf(j->subject->arena, "%s %.*s", rule->code, REPLY_LINE - 12, text);
    if (!phrase->per_recipient)
        j->asked[i].reply = text;
    return text;
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
        const struct rule *rule = &j->policy->rules[i];
        out->advised = rule->disposition;
        out->rule = (uint16_t)(i + 1);
        out->rule_name = rule->name;
        out->reason = say(j, r, &rule->reason, &j->asked[i].reason);
        if (rule->code)
            out->reply = say_reply(j, r, i, out->reason);
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
    for (size_t r = 0; ruling->on_trial && r < n; r++)
        out->copy[r].trial = true;
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
    return reason_expand(arena, policy->rules[i].reason.text, facts);
}
