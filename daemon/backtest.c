/* backtest.c - see backtest.h. */
#include <errno.h>
#include <stdlib.h>

#include "backtest.h"
#include "ctl_print.h"
#include "entries.h"

enum { CHANGES_MAX = 500 };

/* ---- a set of messages ---- */

struct keyset {
    struct key *slot; /* all zero: free */
    size_t n, cap;    /* cap: 0 or a power of two */
    bool zero;        /* the key of all zeros is in it */
};

/* The place of the key, or the free one it belongs in. */
static struct key *keyset_place(const struct keyset *s, const struct key *k)
{
    static const struct key none;
    uint64_t hash;
    memcpy(&hash, k->byte, sizeof hash);
    size_t i = (size_t)(hash * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (s->cap - 1);
    while (memcmp(&s->slot[i], &none, sizeof none) != 0 && memcmp(&s->slot[i], k, sizeof *k) != 0)
        i = (i + 1) & (s->cap - 1);
    return &s->slot[i];
}

static void keyset_grow(struct keyset *s)
{
    struct keyset old = *s;
    static const struct key none;
    s->cap = old.cap ? old.cap * 2 : 1024;
    if (!(s->slot = calloc(s->cap, sizeof *s->slot)))
        abort();
    for (size_t i = 0; i < old.cap; i++)
        if (memcmp(&old.slot[i], &none, sizeof none) != 0)
            *keyset_place(s, &old.slot[i]) = old.slot[i];
    free(old.slot);
}

static void keyset_add(struct keyset *s, const struct key *k)
{
    static const struct key none;
    if (memcmp(k, &none, sizeof none) == 0) {
        s->n += !s->zero;
        s->zero = true;
        return;
    }
    if (2 * (s->n + 1) > s->cap)
        keyset_grow(s);
    struct key *place = keyset_place(s, k);
    s->n += memcmp(place, k, sizeof *k) != 0;
    *place = *k;
}

/* ---- one copy ---- */

struct run {
    const struct backtest_asks *asks;
    struct backtest *out;
    uint64_t wanted; /* the facts the policy asks for */
    uint64_t tx;     /* of the row before */
    struct keyset held;
    struct facts facts;
};

static void put_text(struct facts *f, enum fact fact, struct span text)
{
    f->value[fact] = (struct fact_value){.type = TYPE_STRING, .text = text};
}

/* The facts that lie beside the packs. */
static void read_aside(struct facts *f, const struct journal_row *r)
{
    put_text(f, FACT_ENVELOPE_FROM, r->from);
    put_text(f, FACT_RECIPIENT_ADDRESS, r->rcpt);
    put_text(f, FACT_RELAY_ADDRESS, r->client);
    put_text(f, FACT_RELAY_LISTENER, r->door);
    put_text(f, FACT_REPLICATION_RELATION, span_str(relation_name((enum relation)r->relation)));
    f->value[FACT_REPLICATION_COPIES] =
        (struct fact_value){.type = TYPE_NUMBER, .number = r->copies};
}

/* Fills the facts; GAP_COUNT: all is there. */
static enum backtest_gap read_facts(struct run *run, const struct journal_row *r)
{
    if (r->facts == JOURNAL_OLD)
        return GAP_OLD;
    if (r->facts == JOURNAL_UNJUDGED)
        return GAP_UNJUDGED;
    if (r->facts != JOURNAL_FACTS || r->advised >= DISP_COUNT)
        return GAP_LOST;
    if (span_starts(r->rule, SPAN(ENTRY_RULE)))
        return GAP_PEOPLE;
    if (run->wanted & ~r->map->known) {
        run->out->unknown |= run->wanted & ~r->map->known;
        return GAP_FACTS;
    }
    read_aside(&run->facts, r);
    return facts_unpack(r->map, r->of_message, r->of_copy, &run->facts) ? GAP_COUNT : GAP_LOST;
}

static bool exempt(const struct run *run, const struct journal_row *r)
{
    return r->relation == REL_EXEMPT || (run->asks->site && site_exempt(run->asks->site, r->rcpt));
}

static bool is_new(const struct run *run, const struct journal_row *r)
{
    bool passed = r->map->known >> FACT_REPLICATION_PASSED & 1;
    return passed ? run->facts.value[FACT_REPLICATION_PASSED].number < 1 : r->copies == 0;
}

static enum backtest_kind kind_of(enum disposition then, enum disposition now, bool new_mail)
{
    if (new_mail && now >= DISP_HOLD && then < DISP_HOLD)
        return BACKTEST_HURT;
    return new_mail && now == DISP_THROTTLE && then < DISP_THROTTLE ? BACKTEST_DELAYED
                                                                    : BACKTEST_OTHER;
}

/* ---- what changes ---- */

static bool same_change(const struct backtest_change *c, const struct journal_row *r,
                        const struct copy_verdict *v, enum backtest_kind kind)
{
    return c->kind == kind && c->then.disposition == (enum disposition)r->advised &&
           c->now.disposition == v->advised && c->now.rule == v->rule_name &&
           span_eq(span_str(c->then.rule), r->rule);
}

static void note_change(struct run *run, const struct journal_row *r, const struct copy_verdict *v,
                        enum backtest_kind kind)
{
    struct backtest *b = run->out;
    size_t i = 0;
    while (i < b->nchanges && !same_change(&b->changes[i], r, v, kind))
        i++;
    if (i == CHANGES_MAX) {
        b->changes_left_out++;
        return;
    }
    if (i == b->nchanges) {
        b->nchanges++;
        b->changes[i] = (struct backtest_change){
            .then = {(enum disposition)r->advised, arena_str(b->arena, r->rule)},
            .now = {v->advised, v->rule_name},
            .kind = kind};
    }
    b->changes[i].copies++;
}

static void note_example(struct run *run, const struct journal_row *r, const struct copy_verdict *v,
                         enum backtest_kind kind)
{
    struct backtest *b = run->out;
    if (b->nexamples[kind] == run->asks->examples)
        return;
    b->examples[kind][b->nexamples[kind]++] = (struct backtest_example){
        .tx = r->tx,
        .time = r->time,
        .from = arena_span(b->arena, r->from),
        .rcpt = arena_span(b->arena, r->rcpt),
        .subject = arena_span(b->arena, run->facts.value[FACT_MESSAGE_SUBJECT].text),
        .then = {(enum disposition)r->advised, arena_str(b->arena, r->rule)},
        .now = {v->advised, v->rule_name},
        .reason =
            v->rule ? policy_reason(run->asks->policy, v->rule - 1u, b->arena, &run->facts) : NULL,
    };
}

static void note_hold(struct run *run, const struct journal_row *r, bool new_mail)
{
    run->out->held_again += !new_mail;
    run->out->held_new += new_mail;
    if (!new_mail)
        keyset_add(&run->held, &r->k);
}

static void note_copy(struct run *run, const struct journal_row *r, const struct copy_verdict *v)
{
    struct backtest *b = run->out;
    bool new_mail = is_new(run, r);
    struct backtest_rule *rule = &b->rules[v->rule ? v->rule - 1u : b->nrules - 1];
    b->copies++;
    b->transactions += r->tx != run->tx;
    run->tx = r->tx;
    b->first = b->first && b->first < r->time ? b->first : r->time;
    b->last = b->last > r->time ? b->last : r->time;
    b->then[r->advised]++;
    b->now[v->advised]++;
    rule->copies++;
    rule->new_mail += new_mail;
    rule->now[v->advised]++;
    if (v->advised == DISP_HOLD)
        note_hold(run, r, new_mail);
    if ((enum disposition)r->advised == v->advised)
        return;
    enum backtest_kind kind = kind_of((enum disposition)r->advised, v->advised, new_mail);
    b->changed++;
    b->kind[kind]++;
    note_change(run, r, v, kind);
    note_example(run, r, v, kind);
}

static int each_row(void *arg, const struct journal_row *r)
{
    struct run *run = arg;
    struct copy_verdict v;
    enum backtest_gap gap = read_facts(run, r);
    if (gap != GAP_COUNT) {
        run->out->gap[gap]++;
        return 0;
    }
    policy_judge_facts(run->asks->policy, &run->facts, &v);
    if (v.advised > DISP_TAG && exempt(run, r))
        v.advised = DISP_TAG;
    if (!v.rule_name)
        v.rule_name = "";
    note_copy(run, r, &v);
    return 0;
}

/* ---- the whole ---- */

static int most_copies(const void *a, const void *b)
{
    const struct backtest_change *x = a, *y = b;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    return (x->copies < y->copies) - (x->copies > y->copies);
}

static void begin(const struct backtest_asks *asks, struct backtest *b)
{
    *b = (struct backtest){.arena = arena_new(), .nrules = policy_rules(asks->policy) + 1};
    b->rules = arena_zero(b->arena, b->nrules * sizeof *b->rules);
    for (size_t i = 0; i < b->nrules; i++)
        b->rules[i].name = policy_rule_name(asks->policy, i);
    b->changes = arena_alloc(b->arena, CHANGES_MAX * sizeof *b->changes);
    for (unsigned k = 0; k < BACKTEST_KINDS; k++)
        b->examples[k] = arena_alloc(b->arena, asks->examples * sizeof *b->examples[k]);
}

/* The journal calls back with one argument for rows and progress. */
static void pass_progress(void *arg, uint64_t done, uint64_t total)
{
    const struct run *run = arg;
    run->asks->progress(run->asks->arg, done, total);
}

int backtest_run(const struct backtest_asks *asks, struct backtest *out)
{
    struct run *run = calloc(1, sizeof *run);
    if (!run)
        abort();
    begin(asks, out);
    run->asks = asks;
    run->out = out;
    run->facts.site = asks->site;
    run->wanted = policy_facts(asks->policy);
    struct journal_filter filter = {.since = asks->since,
                                    .until = asks->until,
                                    .oldest_first = true,
                                    .progress = asks->progress ? pass_progress : NULL};
    int rc = journal_each(asks->dir, &filter, each_row, run), error = errno;
    out->held_messages = run->held.n;
    if (out->nchanges)
        qsort(out->changes, out->nchanges, sizeof *out->changes, most_copies);
    free(run->held.slot);
    free(run);
    errno = error;
    return rc;
}

void backtest_free(struct backtest *b)
{
    arena_free(&b->arena);
}

bool backtest_hurts(const struct backtest *b)
{
    return b->kind[BACKTEST_HURT] > 0;
}

const char *backtest_sentence(const struct backtest *b, struct arena *a)
{
    if (!b->copies)
        return "There is no recorded mail to compare with.";
    const char *more = "";
    for (unsigned d = 0; d < DISP_COUNT; d++)
        if ((d == DISP_THROTTLE || d == DISP_REJECT) && (b->now[d] || b->then[d]))
            more = arena_printf(a, "%s; would %s %s, then %s", more,
                                disposition_name((enum disposition)d), print_count(a, b->now[d]),
                                print_count(a, b->then[d]));
    return arena_printf(a, "would hold %s of %s and %s; the policy in force held %s%s",
                        print_some(a, b->held_again, "copy", "copies"),
                        print_some(a, b->held_messages, "message", "messages"),
                        print_some(a, b->held_new, "other", "others"),
                        print_count(a, b->then[DISP_HOLD]), more);
}
