/*
 * tx_refuse.c - what a person decided, and refusals: who is told to come again, how often, and what
 * happens then.
 *
 *   all recipients are refused --+-- not too often yet: 4xx, counted
 *                                +-- policy.refusals times, or for policy.defer_max: a further copy
 *                                    is held, a first copy passes, tagged
 *
 * What is counted lies in the store, by the message and its recipients (ledger.h), so that all
 * nodes count together and nobody waits for the disk; what the ledger knows of those who wait
 * outlives the store. A copy that cannot be held is counted for itself. Invariant: whatever the
 * rules say, no message is refused for longer than policy.defer_max (when holding fails: half an
 * hour) after it was refused first.
 */
#include <limits.h>
#include <stdio.h>

#include "tx.h"
#include "tx_own.h"

enum {
    COUNTED = 4 * 3600 * 1000, /* ms refusals count: the longest policy.defer_max */
    MARKED = 24 * 3600 * 1000  /* ms the first one is remembered */
};

/* ---- what a person decided ---- */

void tx_ask_people(struct tx *tx)
{
    const struct envelope *e = &tx->envelope;
    const struct entry_question q = {.client = e->client,
                                     .client_name = e->client_name,
                                     .helo = e->helo,
                                     .sender = e->reversepath,
                                     .incident = span_str(tx->incident),
                                     .now = tx->now};
    struct entry *entry = entries_find(tx->ruling.entries, &q);
    if (!entry)
        return;
    entry_apply(entry, &tx->subject, &tx->signals, &tx->verdict);
    if (!entry->hold && entry->kind != ENTRY_STORM && !tx->signals.replication.storm)
        tx->incident[0] = '\0'; /* what passes makes no incident */
}

/* ---- how often it was refused ---- */

static void find_keys(struct tx *tx)
{
    if (!tx->ledger_keys.key[0])
        ledger_keys(&tx->ledger_keys, tx->keys, &tx->config->site, tx->message, &tx->subject.trace,
                    &tx->envelope);
}

/* Fills tx->refusals with how often, and since when. */
static enum store_state ask_refusals(struct tx *tx, store_done_fn *done)
{
    struct store *store = tx->pipeline->store;
    find_keys(tx);
    uint64_t key = tx->ledger_keys.key[0];
    tx->refusals.n = 0;
    tallies_add(&tx->refusals, tx->arena,
                (struct tally){.kind = TALLY_RATE, .key = key, .length = COUNTED});
    tallies_add(&tx->refusals, tx->arena,
                (struct tally){.kind = TALLY_MARK, .key = key + 1, .length = MARKED});
    return store->ops->tally_read(store, &tx->refusals, tx->now, done, tx, &tx->op);
}

struct past {
    double times;
    int64_t first; /* ms; 0: never */
};

static struct past past_refusals(const struct tx *tx)
{
    struct past p = {.times = tx->refusals.t[0].answer, .first = (int64_t)tx->refusals.t[1].answer};
    struct ledger *ledger = tx->pipeline->ledger;
    uint32_t times;
    int64_t first;
    if (!ledger || !ledger_known(ledger, &tx->ledger_keys, tx->now, &times, &first))
        return p;
    p.times = times > p.times ? times : p.times;
    p.first = !p.first || first < p.first ? first : p.first;
    return p;
}

/* Often or long enough? The window is a sliding one: its count is a little low at times. */
static bool spent(const struct tx *tx, const struct past *p, unsigned most, int64_t longest)
{
    return p->times + 0.5 >= most || (p->first && tx->now - p->first >= longest);
}

static void count_refusal(struct tx *tx, bool again)
{
    struct tallies adds = {.t = tx->refusals.t, .n = again ? 1 : 2};
    adds.t[0].amount = 1;
    tx->pipeline->store->ops->tally_add(tx->pipeline->store, &adds, tx->now);
}

/* ---- refused by a rule ---- */

static enum tx_state carry_out(struct tx *tx)
{
    return tx->verdict.count[DISP_HOLD] ? tx_hold(tx) : tx_finish(tx);
}

static void change(struct verdict *v, size_t i, enum disposition d)
{
    v->count[v->copy[i].disposition]--;
    v->count[d]++;
    v->copy[i].disposition = d;
}

/* What was to wait passes: the first copy of an innocent is not held because of a flood. What was
 * to be refused for good is held. */
static void soften(struct tx *tx)
{
    struct verdict *v = &tx->verdict;
    for (size_t i = 0; i < v->n; i++)
        if (v->copy[i].disposition == DISP_THROTTLE)
            change(v, i, DISP_TAG);
        else if (v->copy[i].disposition == DISP_REJECT)
            change(v, i, DISP_HOLD);
}

/* Enough: who has the message already gets a further copy held; all others get theirs. */
static void relent(struct tx *tx, const struct past *p)
{
    struct verdict *v = &tx->verdict;
    for (size_t i = 0; i < v->n; i++) {
        struct copy_verdict *c = &v->copy[i];
        bool has = tx->signals.replication.copy[i].passed > 0;
        if (c->disposition != DISP_THROTTLE && c->disposition != DISP_REJECT)
            continue;
        bool held = c->disposition == DISP_REJECT || has;
        change(v, i, held ? DISP_HOLD : DISP_TAG);
        v->advised[c->advised]--;
        c->advised = c->disposition;
        v->advised[c->advised]++;
        c->reason = arena_printf(tx->arena, "%s (refused %.0f times before)",
                                 c->reason ? c->reason : "refused by policy", p->times);
    }
    if (v->count[DISP_HOLD] && !tx->incident[0])
        tx_place(tx);
}

/* What the first copy with this disposition is answered. */
static const char *reply_of(const struct verdict *v, enum disposition d, const char *otherwise)
{
    for (size_t i = 0; i < v->n; i++)
        if (v->copy[i].disposition == d)
            return v->copy[i].reply ? v->copy[i].reply : otherwise;
    return otherwise;
}

static bool guard_allows(const struct tx *tx)
{
    enum watch_kind kind = tx_refusal_kind(tx);
    return kind == WATCH_KINDS || watch_may_refuse(tx->pipeline->watch, kind);
}

/* The guard allows no more: passes, tagged. */
static enum tx_state pass_unrefused(struct tx *tx)
{
    struct verdict *v = &tx->verdict;
    bool flood = tx_refusal_kind(tx) == WATCH_FLOODS;
    for (size_t i = 0; i < v->n; i++)
        if (v->copy[i].disposition > DISP_TAG)
            change(v, i, DISP_TAG);
    tx->failure = flood ? "the guard lets no more mail of floods be deferred now"
                        : "the guard has stopped refusing";
    return tx_finish(tx);
}

static enum tx_state refuse_answered(struct tx *tx)
{
    const struct past p = past_refusals(tx);
    unsigned most = tx->config->policy_refusals ? tx->config->policy_refusals : UINT_MAX;
    if (spent(tx, &p, most, tx->config->policy_defer_max)) {
        relent(tx, &p);
        return carry_out(tx);
    }
    if (!guard_allows(tx))
        return pass_unrefused(tx);
    count_refusal(tx, p.first != 0);
    tx->reply = reply_of(&tx->verdict, DISP_THROTTLE, "451 4.7.0 refused by policy");
    return tx_finish(tx);
}

static void refuse_asked(void *arg)
{
    struct tx *tx = arg;
    tx->op = NULL;
    tx_answer(tx, refuse_answered(tx));
}

/* A 4xx or 5xx answers for the whole message, so it is given only when all agree. */
enum tx_state tx_agree(struct tx *tx)
{
    const struct verdict *v = &tx->verdict;
    uint32_t refused = v->count[DISP_THROTTLE] + v->count[DISP_REJECT];
    if (refused == 0)
        return carry_out(tx);
    if (refused < v->n) {
        soften(tx);
        return carry_out(tx);
    }
    if (v->count[DISP_REJECT] == v->n) {
        if (!guard_allows(tx))
            return pass_unrefused(tx);
        tx->reply = reply_of(v, DISP_REJECT, "550 5.4.6 refused by policy");
        return tx_finish(tx);
    }
    if (ask_refusals(tx, refuse_asked) == STORE_WAIT)
        return TX_WAIT;
    return refuse_answered(tx);
}

/* ---- refused because it cannot be held ---- */

static enum tx_state unheld_answered(struct tx *tx)
{
    const struct past p = past_refusals(tx);
    struct verdict *v = &tx->verdict;
    if (spent(tx, &p, tx->config->refuse_max, REFUSE_FOR) || !guard_allows(tx))
        return tx_pass_instead(tx);
    count_refusal(tx, p.first != 0);
    for (size_t i = 0; i < v->n; i++)
        change(v, i, DISP_THROTTLE);
    tx->reply = "452 4.3.1 This copy could not be held safely; please try again later";
    return tx_finish(tx);
}

static void unheld_asked(void *arg)
{
    struct tx *tx = arg;
    tx->op = NULL;
    tx_answer(tx, unheld_answered(tx));
}

/* Each copy of a storm has refusals of its own: else only the first ones are kept out. Nobody waits
 * for these, the recipients have the message. */
enum tx_state tx_refuse_unheld(struct tx *tx)
{
    find_keys(tx);
    tx->ledger_keys = (struct ledger_keys){.key = {tx->ledger_keys.copy}};
    if (ask_refusals(tx, unheld_asked) == STORE_WAIT)
        return TX_WAIT;
    return unheld_answered(tx);
}

/* ---- the ledger ---- */

static void note_refusal(struct tx *tx, bool final, const char *rule, const char *reason)
{
    const struct refusal r = {.tx = tx->id,
                              .now = tx->now,
                              .final = final,
                              .door = tx->door,
                              .envelope = &tx->envelope,
                              .message_id = tx->fp.message_id,
                              .rule = rule,
                              .reason = reason};
    find_keys(tx);
    ledger_refused(tx->pipeline->ledger, &tx->ledger_keys, &r);
}

void tx_note_refusal(struct tx *tx)
{
    struct ledger *ledger = tx->pipeline->ledger;
    const struct verdict *v = &tx->verdict;
    if (!ledger || !v->n)
        return;
    if (tx->reply) {
        const struct copy_verdict *c = &v->copy[0];
        note_refusal(tx, v->count[DISP_REJECT] == v->n, tx_rule_name(tx, c),
                     tx->failure ? tx->failure : c->reason);
        return;
    }
    if (!ledger_waiting(ledger) || !tx->message->header_done)
        return;
    find_keys(tx);
    ledger_settled(ledger, &tx->ledger_keys, v->count[DISP_HOLD] ? REFUSAL_HELD : REFUSAL_PASSED,
                   tx->now);
}

void tx_note_refusal_behind(struct tx *tx, int code)
{
    char reason[64];
    if (!tx->pipeline->ledger || !tx->envelope.nrecipients || !tx->message->header_done)
        return;
    snprintf(reason, sizeof reason, "the server behind answered %d", code);
    note_refusal(tx, code / 100 == 5, tx->refused, code ? reason : NULL);
}
