/*
 * tx_hold.c - a hold on its way to the disk, and what happens when it does not get there (DESIGN.md
 * 6).
 *
 *   put --keeper--> durable: the verdict stands          (only then the reply may leave)
 *    |
 *    +-- deadline, error, no room: a transaction with a FIRST copy passes whole, tagged; a pure
 *        duplicate gets 452 some times, then passes too
 *
 * Invariant: a put that commits after its tx gave up is taken out of the queue again.
 */
#include <stdlib.h>

#include "tx.h"
#include "tx_own.h"

/* A hold on its way to the disk. Outlives its tx when that gives up. */
struct put {
    struct job job; /* must be first */
    struct tx *tx;  /* NULL: given up; touched by the home thread only */
    _Atomic bool abandoned;
    struct pipeline *pipeline;
    struct arena *arena;
    struct held_mail mail;
};

static int put_run(struct hold *hold, struct job *job)
{
    struct put *put = (struct put *)job;
    if (atomic_load(&put->abandoned))
        return 0;
    return hold_put(hold, &put->mail) == 0 ? 1 : -1;
}

static void put_free(struct put *put)
{
    body_drop(&put->mail.body);
    struct arena *arena = put->arena;
    arena_free(&arena); /* put lies in it */
}

static int unput_run(struct hold *hold, struct job *job)
{
    return hold_unput(hold, ((struct put *)job)->mail.id);
}

static void unput_done(struct job *job)
{
    struct put *put = (struct put *)job;
    if (job->result < 0) {
        char id[ID_TEXT];
        struct logline l;
        id_print(put->mail.id, id);
        log_begin(&l, LOG_LEVEL_ERROR, "tx", span_str(id));
        log_str(&l, "hold-failed",
                "the message went another way, but its copy could not be taken out of the hold "
                "queue again");
        log_span(&l, "qid", put->mail.queue_id);
        log_end(&l);
    }
    put_free(put);
}

static void put_done(struct job *job)
{
    struct put *put = (struct put *)job;
    struct tx *tx = put->tx;
    bool stored = job->result == 1;
    if (!tx)
        atomic_fetch_sub_explicit(&put->pipeline->late, 1, memory_order_relaxed);
    if (!tx && stored) { /* committed after its tx gave up: the message went another way */
        put->job.run = unput_run;
        put->job.done = unput_done;
        keeper_submit(put->pipeline->keeper, &put->job);
        return;
    }
    put_free(put);
    if (!tx)
        return;
    tx->put = NULL;
    tx_end_deadline(tx);
    tx_answer(tx, stored ? tx_finish(tx) : tx_fail(tx, "the hold queue could not be written"));
}

void tx_give_up_put(struct tx *tx)
{
    tx_tally(&tx->pipeline->late, 1);
    atomic_store(&tx->put->abandoned, true);
    tx->put->tx = NULL;
    tx->put = NULL;
}

void tx_unput(struct tx *tx)
{
    struct arena *a = arena_new();
    struct put *put = arena_zero(a, sizeof *put);
    put->arena = a;
    put->pipeline = tx->pipeline;
    put->job = (struct job){.run = unput_run, .done = unput_done, .home = tx->home};
    put->mail.id = tx->id;
    put->mail.queue_id = arena_span(a, tx->envelope.queue_id);
    keeper_submit(tx->pipeline->keeper, &put->job);
}

static void put_late(evutil_socket_t fd, short what, void *arg)
{
    struct tx *tx = arg;
    (void)fd, (void)what;
    tx_give_up_put(tx);
    tx_end_deadline(tx);
    tx_answer(tx, tx_fail(tx, "the hold queue did not answer in time"));
}

static struct span address_text(struct arena *arena, const struct ipaddr *ip)
{
    char text[IPADDR_TEXT];
    return arena_span(arena, span_of(text, ipaddr_print(ip, text)));
}

static void put_copies(struct put *put, const struct tx *tx)
{
    const struct verdict *v = &tx->verdict;
    struct arena *a = put->arena;
    put->mail.copies = arena_zero(a, v->count[DISP_HOLD] * sizeof *put->mail.copies);
    for (size_t i = 0; i < v->n; i++) {
        if (v->copy[i].disposition != DISP_HOLD)
            continue;
        const struct recipient *r = &tx->envelope.recipients[i];
        const struct copy_signal *c = &tx->signals.replication.copy[i];
        struct held_copy *h = &put->mail.copies[put->mail.ncopies++];
        h->id = id_next(tx->config->node_number, tx->now);
        h->rcpt = arena_span(a, r->raw);
        h->params = arena_span(a, r->params);
        h->rcpt_hash = r->hash;
        h->relation = (uint8_t)c->relation;
        h->number = c->copies + 1;
        h->first = c->passed == 0;
    }
}

/* The first held recipient's rule stands for the mail. */
static void put_reason(struct put *put, const struct tx *tx)
{
    const struct verdict *v = &tx->verdict;
    for (size_t i = 0; i < v->n; i++) {
        if (v->copy[i].disposition != DISP_HOLD)
            continue;
        put->mail.rule = arena_span(put->arena, span_str(v->copy[i].rule_name));
        put->mail.reason = arena_span(put->arena, span_str(v->copy[i].reason));
        return;
    }
}

static struct put *put_new(struct tx *tx)
{
    struct arena *a = arena_new();
    struct put *put = arena_zero(a, sizeof *put);
    const struct envelope *e = &tx->envelope;
    put->arena = a;
    put->tx = tx;
    put->pipeline = tx->pipeline;
    put->job.run = put_run;
    put->job.done = put_done;
    put->job.home = tx->home;
    struct held_mail *m = &put->mail;
    m->id = tx->id;
    m->arrival = tx->now;
    m->door = arena_span(a, span_str(tx->door));
    m->client = address_text(a, &e->client);
    m->client_name = arena_span(a, e->client_name);
    m->helo = arena_span(a, e->helo);
    m->queue_id = arena_span(a, e->queue_id);
    m->auth = arena_span(a, e->auth);
    m->reversepath = arena_span(a, e->reversepath);
    m->reversepath_params = arena_span(a, e->reversepath_params);
    m->k = tx->signals.replication.k;
    m->incident = arena_span(a, span_str(tx->incident));
    m->blamed = arena_span(a, tx->signals.replication.blamed);
    m->message_id = arena_span(a, tx->fp.message_id);
    m->from = arena_span(a, tx->fp.from);
    m->subject = arena_span(a, span_head(tx->fp.subject, 200));
    m->head = arena_span(a, span_of(tx->message->head, tx->message->nhead));
    m->body = body_hold(tx->body);
    put_copies(put, tx);
    put_reason(put, tx);
    return put;
}

/* ---- what the guard allows ---- */

/* What holds recipient i's copy, if the guard counts it. */
static enum watch_kind kind_of(const struct tx *tx, size_t i)
{
    static const enum watch_kind kinds[HOLD_KINDS] = {
        [HOLD_EXPLAINED] = WATCH_KINDS,   [HOLD_HARMLESS] = WATCH_KINDS,
        [HOLD_HARMFUL] = WATCH_RULES,     [HOLD_LOOP] = WATCH_LOOPS,
        [HOLD_REPLYALL] = WATCH_REPLYALL, [HOLD_PINGPONG] = WATCH_PINGPONG,
    };
    return kinds[tx_hold_kind(tx, i)];
}

static void pass_held(struct verdict *v, size_t i)
{
    v->copy[i].disposition = DISP_TAG;
    v->count[DISP_HOLD]--;
    v->count[DISP_TAG]++;
}

/* Copies of a kind that is capped pass, the others are held; when a rule is stopped all pass.
 * false: nothing of it is held. */
static bool guard_allows(struct tx *tx)
{
    static const char *const refused[WATCH_KINDS] = {
        "the guard has stopped holding", "the guard lets no more loops be held now",
        "the guard lets no more replies to all be held now",
        "the guard lets no more automatic answers be held now"};
    struct verdict *v = &tx->verdict;
    unsigned n[WATCH_KINDS + 1] = {0};
    for (size_t i = 0; i < v->n; i++)
        if (v->copy[i].disposition == DISP_HOLD)
            n[kind_of(tx, i)]++;
    for (unsigned k = 0; k < WATCH_KINDS; k++) {
        unsigned counted = k == WATCH_RULES ? n[k] : n[k] > 0; /* one answer, to however many */
        if (watch_may_hold(tx->pipeline->watch, (enum watch_kind)k, counted))
            continue;
        tx->failure = refused[k];
        if (k == WATCH_RULES)
            return false;
        for (size_t i = 0; i < v->n; i++)
            if (v->copy[i].disposition == DISP_HOLD && kind_of(tx, i) == (enum watch_kind)k)
                pass_held(v, i);
    }
    return v->count[DISP_HOLD] && (!tx->indivisible || v->count[DISP_HOLD] == v->n);
}

enum tx_state tx_hold(struct tx *tx)
{
    if (tx->indivisible && tx->verdict.count[DISP_HOLD] < tx->verdict.n)
        return tx_fail(tx, "the MTA does not let us remove single recipients");
    if (!tx->pipeline->keeper) /* replay: a hold is a hold without a queue */
        return tx_finish(tx);
    if (!tx->body || body_lost(tx->body)) {
        gauge_add(tx->gauge, FIGURE_TOO_LARGE, 1);
        return tx_fail(tx, "the message is too large to hold");
    }
    if (atomic_load_explicit(&tx->pipeline->hold_full, memory_order_relaxed))
        return tx_fail(tx, "the hold queue is full (hold.max_bytes)");
    if (atomic_load_explicit(&tx->pipeline->late, memory_order_relaxed) >= LATE_MAX)
        return tx_fail(tx, "the hold queue does not keep up");
    if (!guard_allows(tx))
        return tx_pass_instead(tx);
    body_seal(tx->body);
    tx->put = put_new(tx);
    tx_start_deadline(tx, put_late);
    keeper_submit(tx->pipeline->keeper, &tx->put->job);
    return TX_WAIT;
}

/* ---- when holding fails ---- */

enum tx_state tx_pass_instead(struct tx *tx)
{
    struct verdict *v = &tx->verdict;
    for (size_t i = 0; i < v->n; i++)
        if (v->copy[i].disposition == DISP_HOLD)
            pass_held(v, i);
    return tx_finish(tx);
}

enum tx_state tx_fail(struct tx *tx, const char *why)
{
    tx->failure = why;
    gauge_add(tx->gauge, FIGURE_HOLD_FAILED, 1);
    bool duplicates_only = tx->verdict.count[DISP_HOLD] == tx->verdict.n;
    for (size_t i = 0; i < tx->verdict.n; i++)
        if (tx->signals.replication.copy[i].passed == 0)
            duplicates_only = false;
    if (!duplicates_only)
        return tx_pass_instead(tx);
    return tx_refuse_unheld(tx);
}
