/*
 * tx.c - the order in which one message is read, judged, held and answered.
 *
 *   begin -> [reversepath, recipients, fields, body] -> judge:
 *
 *     read -> token? -> count -> ask -> observe -> step -> decide -> hold? -> finish
 *               |                                              |
 *               +-- good: pass, not judged                     +-- not durable in time: see
 * tx_hold.c
 *
 * Every arrow may have to wait (Redis, the keeper); a step that waits returns TX_WAIT and its
 * callback goes on with the next step. Invariant: everything a message is lies in tx->arena or in
 * tx itself, except what the keeper may still be writing, which is a `struct put` of its own.
 */
#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "stamp.h"
#include "token.h"
#include "tx.h"
#include "tx_own.h"

/* A release token on its way to be marked used. */
struct token_check {
    struct job job; /* must be first */
    struct tx *tx;
    struct token token;
    uint8_t site_key[32];
    int64_t now;
    uint64_t *rcpts; /* of this transaction */
    size_t nrcpts;
};

static enum tx_state tx_count(struct tx *);
static enum tx_state tx_observe(struct tx *);
static enum tx_state tx_step(struct tx *);
static enum tx_state tx_decide(struct tx *);

enum mode pipeline_mode(const struct pipeline *p)
{
    if (!p->rules)
        return p->mode;
    struct rules *r = rulebook_take(p->rules);
    enum mode mode = r->mode;
    rules_drop(&r);
    return mode;
}

void pipeline_set_mode(struct pipeline *p, enum mode mode)
{
    if (!p->rules) {
        p->mode = mode;
        return;
    }
    rulebook_lock(p->rules);
    struct rules *old = rulebook_take(p->rules), *fresh = rules_copy(old);
    fresh->mode = mode;
    rulebook_put(p->rules, fresh);
    rules_drop(&old);
    rulebook_unlock(p->rules);
}

void pipeline_set_door_mode(struct pipeline *p, const char *listener, enum mode mode)
{
    rulebook_lock(p->rules);
    struct rules *old = rulebook_take(p->rules), *fresh = rules_copy(old);
    rules_set_mode(fresh, listener, mode);
    rulebook_put(p->rules, fresh);
    rules_drop(&old);
    rulebook_unlock(p->rules);
}

static void begin_ruling(struct tx *tx)
{
    const struct pipeline *p = tx->pipeline;
    if (p->rules) {
        tx->rules = rulebook_take(p->rules);
        rules_ruling(tx->rules, tx->door, &tx->ruling);
    } else {
        tx->ruling = (struct ruling){.mode = p->mode, .policy = tx->config->policy};
    }
    tx->mode = tx->ruling.mode;
}

struct tx *tx_begin(struct pipeline *pipeline, struct config *config, const struct keys *keys,
                    struct mailbox *home, const char *door)
{
    struct arena *arena = arena_new();
    struct tx *tx = arena_zero(arena, sizeof *tx);
    tx->arena = arena;
    tx->pipeline = pipeline;
    tx->config = config_hold(config);
    tx->keys = keys;
    tx->home = home;
    tx->door = door;
    tx->gauge = figures_gauge(pipeline->figures, door);
    tx->now = clock_now();
    tx->id = id_next(config->node_number, tx->now);
    begin_ruling(tx);
    tx->envelope.arrival = tx->now;
    tx->message = message_new(arena);
    if (tx->mode == MODE_ENFORCE && pipeline->keeper)
        tx->body = body_new(config->hold_path, config->message_memory, config->total_memory);
    return tx;
}

struct arena *tx_arena(struct tx *tx)
{
    return tx->arena;
}

struct gauge *tx_gauge(const struct tx *tx)
{
    return tx->gauge;
}

struct envelope *tx_envelope(struct tx *tx)
{
    return &tx->envelope;
}

void tx_reversepath(struct tx *tx, struct span raw, struct span params)
{
    tx->envelope.reversepath = span_bare(span_trim(arena_span(tx->arena, raw)), '<', '>');
    tx->envelope.reversepath_params = arena_span(tx->arena, params);
}

/* More than any MTA lets through: what is there is passed unjudged, nothing more is kept. */
static bool too_much(struct tx *tx, size_t recipients)
{
    if (arena_used(tx->arena) < MEMORY_MAX &&
        tx->envelope.nrecipients + recipients <= LIMIT_RECIPIENTS)
        return false;
    tx->unjudged = tx->beyond = true;
    if (!tx->kept)
        body_drop(&tx->body);
    return true;
}

int tx_recipient(struct tx *tx, struct span raw, struct span params)
{
    struct envelope *e = &tx->envelope;
    if (too_much(tx, 1))
        return -1;
    if (e->nrecipients == e->caprecipients) {
        size_t cap = e->caprecipients ? 2 * e->caprecipients : 8;
        e->recipients =
            arena_grow(tx->arena, e->recipients, e->caprecipients * sizeof *e->recipients,
                       cap * sizeof *e->recipients);
        e->caprecipients = cap;
    }
    struct recipient *r = &e->recipients[e->nrecipients++];
    *r = (struct recipient){.raw = arena_span(tx->arena, raw)};
    r->address = span_bare(span_trim(r->raw), '<', '>');
    r->params = arena_span(tx->arena, params);
    return 0;
}

void tx_indivisible(struct tx *tx)
{
    tx->indivisible = true;
}

void tx_keep(struct tx *tx)
{
    tx->kept = true;
    if (!tx->body)
        tx->body =
            body_new(tx->config->hold_path, tx->config->message_memory, tx->config->total_memory);
}

bool tx_bytes(struct tx *tx, struct span *head, struct body **body)
{
    const struct message *m = tx->message;
    struct span all = span_of(m->head, m->nhead);
    if (!tx->body || body_lost(tx->body))
        return false;
    body_seal(tx->body);
    *body = tx->body;
    *head = m->count[FIELD_RELEASE] ? message_without(m, FIELD_RELEASE) : all;
    return true;
}

/* Keeps bytes for the hold queue, if there is one to keep them for. */
static void keep(struct tx *tx, struct span s)
{
    if (tx->body && s.n)
        body_add(tx->body, s);
}

void tx_field(struct tx *tx, struct span name, struct span value)
{
    if (!too_much(tx, 0))
        keep(tx, message_add_field(tx->message, name, value));
}

static void begin_body(struct tx *tx)
{
    message_end_header(tx->message);
    if (!tx->fingerprinter && tx->mode != MODE_BYPASS)
        tx->fingerprinter = fingerprint_begin(tx->arena, tx->keys, tx->message);
}

void tx_header_end(struct tx *tx)
{
    if (tx->message->header_done)
        return;
    begin_body(tx);
    keep(tx, SPAN("\r\n"));
}

void tx_body(struct tx *tx, struct span s)
{
    if (tx->fingerprinter)
        fingerprint_body(tx->fingerprinter, s);
    keep(tx, s);
}

void tx_raw(struct tx *tx, struct span s)
{
    bool was_done = tx->message->header_done;
    struct span body = message_add_raw(tx->message, s);
    keep(tx, body);
    if (!tx->message->header_done)
        return;
    if (!was_done) {
        begin_body(tx);
        body = span_from(body, tx->message->blank);
    }
    if (tx->fingerprinter)
        fingerprint_body(tx->fingerprinter, body);
}

/* ---- waiting ---- */

void tx_answer(struct tx *tx, enum tx_state state)
{
    if (state == TX_DONE && tx->waiting)
        tx->done(tx->arg, tx); /* the tx may be gone now */
}

void tx_end_deadline(struct tx *tx)
{
    if (tx->deadline)
        event_free(tx->deadline);
    tx->deadline = NULL;
}

void tx_start_deadline(struct tx *tx, event_callback_fn fn)
{
    struct timeval tv = clock_timeval(tx->config->hold_deadline);
    tx->deadline = evtimer_new(mailbox_base(tx->home), fn, tx);
    if (!tx->deadline || evtimer_add(tx->deadline, &tv))
        abort();
}

/* ---- reading, and the release token ---- */

static void all_pass(struct tx *tx)
{
    struct verdict *v = &tx->verdict;
    size_t n = tx->envelope.nrecipients;
    *v = (struct verdict){.n = n, .mode = tx->mode};
    v->copy = arena_zero(tx->arena, n * sizeof *v->copy);
    v->count[DISP_PASS] = v->advised[DISP_PASS] = (uint32_t)n;
}

static int token_run(struct hold *hold, struct job *job)
{
    struct token_check *c = (struct token_check *)job;
    struct arena *arena = arena_new();
    uint8_t sha256[32];
    uint64_t *rcpts;
    size_t n;
    int used = 0;
    if (hold_token_facts(hold, arena, c->token.mail, c->token.attempt, sha256, &rcpts, &n) == 0 &&
        token_good(&c->token, c->site_key, sha256, rcpts, n, c->now)) {
        used = 1;
        for (size_t i = 0; i < c->nrcpts && used; i++) {
            used = 0;
            for (size_t k = 0; k < n && !used; k++)
                used = rcpts[k] == c->rcpts[i];
        }
        if (used)
            used = hold_token_use(hold, c->token.mail, c->token.attempt);
    }
    arena_free(&arena);
    return used;
}

static void token_done(struct job *job)
{
    struct token_check *c = (struct token_check *)job;
    struct tx *tx = c->tx;
    bool good = job->result == 1;
    free(c->rcpts);
    free(c);
    if (!tx)
        return;
    tx->check = NULL;
    tx_end_deadline(tx);
    tx->released = tx->unjudged = good;
    tx_answer(tx, good ? tx_finish(tx) : tx_count(tx));
}

static void token_late(evutil_socket_t fd, short what, void *arg)
{
    struct tx *tx = arg;
    (void)fd, (void)what;
    tx->check->tx = NULL;
    tx->check = NULL;
    tx_end_deadline(tx);
    tx_answer(tx, tx_count(tx));
}

/* Asks the keeper whether the token is good and unused; false: no token, or nobody to ask. */
static bool check_token(struct tx *tx)
{
    struct token token;
    const struct field *f = message_first(tx->message, FIELD_RELEASE);
    if (!f || !tx->pipeline->keeper || !token_parse(&token, f->value) || !tx->envelope.nrecipients)
        return false;
    struct token_check *c = calloc(1, sizeof *c);
    if (!c)
        abort();
    c->job.run = token_run;
    c->job.done = token_done;
    c->job.home = tx->home;
    c->tx = tx;
    c->token = token;
    c->now = tx->now;
    memcpy(c->site_key, tx->config->site_key, sizeof c->site_key);
    c->nrcpts = tx->envelope.nrecipients;
    c->rcpts = calloc(c->nrcpts, sizeof *c->rcpts);
    if (!c->rcpts)
        abort();
    for (size_t i = 0; i < c->nrcpts; i++)
        c->rcpts[i] = tx->envelope.recipients[i].hash;
    tx->check = c;
    tx_start_deadline(tx, token_late);
    keeper_submit(tx->pipeline->keeper, &c->job);
    return true;
}

enum tx_state tx_judge(struct tx *tx, tx_done_fn *done, void *arg)
{
    assert(!tx->ended);
    tx->ended = true;
    tx->done = done;
    tx->arg = arg;
    if (!tx->kept)
        tx_header_end(tx);
    else if (!tx->message->header_done)
        begin_body(tx); /* all header, without an empty line: it stays so */
    tx->strip = tx->message->count[FIELD_RELEASE];
    enum tx_state state = TX_WAIT;
    if (tx->mode == MODE_BYPASS || tx->unjudged || !tx->envelope.nrecipients) {
        tx->unjudged = true;
        state = tx_finish(tx);
    } else {
        fingerprint_end(tx->fingerprinter, &tx->fp);
        subject_read(&tx->subject, tx->arena, &tx->config->site, tx->keys, &tx->envelope,
                     tx->message, &tx->fp, tx->now);
        tx->subject.listener = span_str(tx->door);
        if (!check_token(tx))
            state = tx_count(tx);
    }
    tx->waiting = state == TX_WAIT;
    return state;
}

/* ---- the past ---- */

/* The answers to what detector i asked. */
static struct tallies answers(const struct tx *tx, size_t i)
{
    size_t n = tx->asked[i + 1] - tx->asked[i];
    return (struct tallies){.t = n ? tx->asks.t + tx->asked[i] : NULL, .n = n};
}

static void counted(void *arg)
{
    struct tx *tx = arg;
    tx->op = NULL;
    tx_answer(tx, tx_observe(tx));
}

static enum tx_state tx_count(struct tx *tx)
{
    struct store *store = tx->pipeline->store;
    for (size_t i = 0; detectors[i]; i++) {
        tx->asked[i] = tx->asks.n;
        if (detectors[i]->count)
            detectors[i]->count(&tx->subject, &tx->asks);
        tx->asked[i + 1] = tx->asks.n;
    }
    if (store->ops->tally_read(store, &tx->asks, tx->now, counted, tx, &tx->op) == STORE_WAIT)
        return TX_WAIT;
    return tx_observe(tx);
}

static void observed(void *arg)
{
    struct tx *tx = arg;
    tx->op = NULL;
    tx_answer(tx, tx_step(tx));
}

static enum tx_state tx_observe(struct tx *tx)
{
    struct store *store = tx->pipeline->store;
    size_t i = 0;
    while (detectors[i] != &replication_detector)
        i++;
    struct tallies past = answers(tx, i);
    replication_observation(&tx->observation, &tx->subject, &past);
    tx->observed = true;
    if (store->ops->observe(store, &tx->observation, &tx->signals.replication, observed, tx,
                            &tx->op) == STORE_WAIT)
        return TX_WAIT;
    return tx_step(tx);
}

static void stepped(void *arg)
{
    struct tx *tx = arg;
    tx->op = NULL;
    tx_answer(tx, tx_decide(tx));
}

static enum tx_state tx_step(struct tx *tx)
{
    struct store *store = tx->pipeline->store;
    if (store->ops->step(store, &tx->subject, &tx->signals, stepped, tx, &tx->op) == STORE_WAIT)
        return TX_WAIT;
    return tx_decide(tx);
}

/* ---- the verdict ---- */

static void learn(struct tx *tx)
{
    struct tallies adds = {0};
    for (size_t i = 0; detectors[i]; i++)
        if (detectors[i]->learn)
            detectors[i]->learn(&tx->subject, &tx->signals, &adds);
    if (adds.n)
        tx->pipeline->store->ops->tally_add(tx->pipeline->store, &adds, tx->now);
}

static enum tx_state tx_decide(struct tx *tx)
{
    for (size_t i = 0; detectors[i]; i++)
        if (detectors[i]->judge) {
            struct tallies past = answers(tx, i);
            detectors[i]->judge(&tx->subject, &past, &tx->signals);
        }
    policy_judge(&tx->ruling, &tx->subject, &tx->signals, &tx->verdict);
    learn(tx);
    tx_place(tx);
    tx_ask_people(tx);
    return tx_agree(tx);
}

/* ---- the end ---- */

enum tx_state tx_finish(struct tx *tx)
{
    if (tx->unjudged)
        all_pass(tx);
    tx->judged = true;
    tx_make_tag(tx);
    return TX_DONE;
}

const struct verdict *tx_verdict(const struct tx *tx)
{
    assert(tx->judged);
    return &tx->verdict;
}

const struct signals *tx_signals(const struct tx *tx)
{
    return &tx->signals;
}

uint64_t tx_id(const struct tx *tx)
{
    return tx->id;
}

const char *tx_tag(const struct tx *tx)
{
    return tx->tag;
}

const char *tx_stamp(const struct tx *tx)
{
    if (!tx->config->stamp || tx->mode != MODE_ENFORCE || !tx->observed || tx->unjudged)
        return NULL;
    char *text = arena_alloc(tx->arena, STAMP_TEXT);
    stamp_print(tx->keys, tx->config->site.node, tx->now, &tx->signals.replication.k, text);
    return text;
}

unsigned tx_strip(const struct tx *tx)
{
    return tx->strip;
}

const char *tx_reply(const struct tx *tx)
{
    return tx->reply;
}

const char *tx_incident(const struct tx *tx)
{
    return tx->incident[0] ? tx->incident : NULL;
}

/* ---- what became of the copies ---- */

static enum fate fate_of(const struct tx *tx, const struct copy_verdict *c)
{
    if (tx->refused)
        return FATE_ABORTED;
    if (c->disposition == DISP_HOLD)
        return FATE_HELD;
    if (c->disposition == DISP_THROTTLE || c->disposition == DISP_REJECT)
        return FATE_ABORTED;
    if (!tx->committed)
        return FATE_ABORTED;
    if (tx->released)
        return FATE_RELEASED;
    return c->advised == DISP_HOLD && !tx->failure ? FATE_WOULD_HOLD : FATE_PASSED;
}

static void settle(struct tx *tx)
{
    size_t n = tx->envelope.nrecipients;
    uint64_t *rcpt = arena_alloc(tx->arena, n * sizeof *rcpt);
    enum fate *fate = arena_alloc(tx->arena, n * sizeof *fate);
    for (size_t i = 0; i < n; i++) {
        rcpt[i] = tx->envelope.recipients[i].hash;
        fate[i] = tx->judged ? fate_of(tx, &tx->verdict.copy[i]) : FATE_ABORTED;
    }
    struct store *store = tx->pipeline->store;
    const struct key *k = tx->observed ? &tx->signals.replication.k : &tx->fp.k;
    store->ops->settle(store, k, rcpt, fate, n);
}

void tx_commit(struct tx *tx)
{
    assert(tx->judged && !tx->committed);
    tx->committed = true;
    tx_account(tx);
    if (tx->observed || tx->released)
        settle(tx);
}

void tx_refused(struct tx *tx, int code, const char *why)
{
    assert(!tx->committed);
    if (!tx->judged) {
        tx->ended = tx->unjudged = true;
        all_pass(tx);
        tx->judged = true;
    }
    if (tx->verdict.count[DISP_HOLD] && tx->pipeline->keeper)
        tx_unput(tx);
    tx->refused = why;
    tx_account_refusal(tx, code);
}

void tx_end(struct tx **txp)
{
    struct tx *tx = *txp;
    *txp = NULL;
    if (!tx)
        return;
    tx_end_deadline(tx);
    if (tx->op)
        tx->pipeline->store->ops->cancel(tx->pipeline->store, &tx->op);
    else if (tx->observed && !tx->committed)
        settle(tx);
    if (tx->put)
        tx_give_up_put(tx);
    if (tx->check)
        tx->check->tx = NULL;
    if (!tx->ended)
        gauge_add(tx->gauge, FIGURE_GIVEN_UP, 1);
    else if (!tx->accounted)
        tx_account(tx);
    body_drop(&tx->body);
    rules_drop(&tx->rules);
    config_drop(&tx->config);
    struct arena *arena = tx->arena;
    arena_free(&arena);
}
