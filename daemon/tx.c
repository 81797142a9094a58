/*
 * tx.c - the order in which one message is read, judged, held and answered.
 *
 *   begin -> [reversepath, recipients, fields, body] -> judge:
 *
 *     read -> token? -> count -> ask -> observe -> decide -> hold? -> finish
 *               |                                              |
 *               +-- good: pass, not judged                     +-- not durable in time: see fail()
 *
 * Every arrow may have to wait (Redis, the keeper); a step that waits returns TX_WAIT and its
 * callback goes on with the next step. Invariant: everything a message is lies in tx->arena or in
 * tx itself, except what the keeper may still be writing, which is a `struct put` of its own.
 */
#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "token.h"
#include "tx.h"

enum {
    REFUSE_FOR = 30 * 60 * 1000, /* ms a copy that cannot be held is refused before it passes */
    MEMORY_MAX = 32 << 20,       /* bytes one message may take before it is judged */
    LATE_MAX = 256               /* holds the keeper may owe us after their messages gave up */
};

struct tx {
    struct arena *arena;
    struct pipeline *pipeline;
    struct config *config;
    const struct keys *keys;
    struct mailbox *home;
    const char *door;
    uint64_t id;
    int64_t now;
    enum mode mode;

    struct envelope envelope;
    struct message *message;
    struct fingerprinter *fingerprinter;
    struct body *body; /* NULL: nothing of this message can be held */
    uint64_t bytes;
    bool indivisible; /* all recipients or none are held */
    bool unjudged;    /* passes for all: bypass, no recipients, too much of it, a released copy */
    bool beyond;      /* more recipients or memory than is judged */
    bool released;    /* carries a good release token */

    struct fingerprints fp;
    struct subject subject;
    struct tallies asks;             /* of all detectors, one after the other */
    size_t asked[DETECTORS_MAX + 1]; /* where each one's begin */
    struct tallies refusals;         /* asked only when holding failed */
    struct observation observation;
    struct signals signals;
    struct verdict verdict;

    struct store_op *op; /* waiting for the store */
    struct put *put;     /* waiting for the keeper */
    struct token_check *check;
    struct event *deadline; /* of put or check */
    tx_done_fn *done;
    void *arg;
    bool waiting; /* tx_judge has returned TX_WAIT */
    bool observed, judged, held, committed;
    const char *failure; /* why holding failed; NULL: it did not */

    const char *tag;
    const char *reply;
    unsigned strip;
    char incident[INCIDENT_TEXT];
};

/* A hold on its way to the disk. Outlives its tx when that gives up. */
struct put {
    struct job job; /* must be first */
    struct tx *tx;  /* NULL: given up; touched by the home thread only */
    _Atomic bool abandoned;
    struct pipeline *pipeline;
    struct arena *arena;
    struct held_mail mail;
};

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
static enum tx_state tx_decide(struct tx *);
static enum tx_state tx_hold(struct tx *);
static enum tx_state tx_fail(struct tx *, const char *why);
static enum tx_state tx_finish(struct tx *);

static void count(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
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
    tx->now = clock_now();
    tx->id = id_next(config->node_number, tx->now);
    tx->mode = (enum mode)atomic_load_explicit(&pipeline->mode, memory_order_relaxed);
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

struct envelope *tx_envelope(struct tx *tx)
{
    return &tx->envelope;
}

uint64_t tx_id(const struct tx *tx)
{
    return tx->id;
}

static struct span without_brackets(struct span s)
{
    s = span_trim(s);
    if (s.n >= 2 && s.p[0] == '<' && s.p[s.n - 1] == '>')
        return span_of(s.p + 1, s.n - 2);
    return s;
}

void tx_reversepath(struct tx *tx, struct span raw, struct span params)
{
    tx->envelope.reversepath = without_brackets(arena_span(tx->arena, raw));
    tx->envelope.reversepath_params = arena_span(tx->arena, params);
}

/* More than any MTA lets through: what is there is passed unjudged, nothing more is kept. */
static bool too_much(struct tx *tx, size_t recipients)
{
    if (arena_used(tx->arena) < MEMORY_MAX &&
        tx->envelope.nrecipients + recipients <= LIMIT_RECIPIENTS)
        return false;
    tx->unjudged = tx->beyond = true;
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
    r->address = without_brackets(r->raw);
    r->params = arena_span(tx->arena, params);
    return 0;
}

void tx_indivisible(struct tx *tx)
{
    tx->indivisible = true;
}

void tx_unrecipient(struct tx *tx)
{
    assert(!tx->judged);
    if (tx->envelope.nrecipients)
        tx->envelope.nrecipients--;
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
    if (tx->fingerprinter)
        return;
    begin_body(tx);
    keep(tx, SPAN("\r\n"));
}

void tx_body(struct tx *tx, struct span s)
{
    tx->bytes += s.n;
    if (tx->fingerprinter)
        fingerprint_body(tx->fingerprinter, s);
    keep(tx, s);
}

/* Of the first bytes of the body side the empty line itself is no body. */
static struct span after_empty_line(struct span s)
{
    if (s.n && s.p[0] == '\r')
        s = span_from(s, 1);
    return s.n && s.p[0] == '\n' ? span_from(s, 1) : s;
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
        body = after_empty_line(body);
    }
    tx->bytes += body.n;
    if (tx->fingerprinter)
        fingerprint_body(tx->fingerprinter, body);
}

/* ---- waiting ---- */

static void tx_answer(struct tx *tx, enum tx_state state)
{
    if (state == TX_DONE && tx->waiting)
        tx->done(tx->arg, tx); /* the tx may be gone now */
}

static void end_deadline(struct tx *tx)
{
    if (tx->deadline)
        event_free(tx->deadline);
    tx->deadline = NULL;
}

static void start_deadline(struct tx *tx, event_callback_fn fn)
{
    int64_t ms = tx->config->hold_deadline;
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000};
    tx->deadline = evtimer_new(mailbox_base(tx->home), fn, tx);
    if (!tx->deadline || evtimer_add(tx->deadline, &tv))
        abort();
}

/* ---- reading, and the release token ---- */

static void all_pass(struct tx *tx)
{
    struct verdict *v = &tx->verdict;
    v->n = tx->envelope.nrecipients;
    v->mode = tx->mode;
    v->copy = arena_zero(tx->arena, v->n * sizeof *v->copy + 1);
    memset(v->count, 0, sizeof v->count);
    memset(v->advised, 0, sizeof v->advised);
    v->count[DISP_PASS] = v->advised[DISP_PASS] = (uint32_t)v->n;
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
    end_deadline(tx);
    tx->released = tx->unjudged = good;
    tx_answer(tx, good ? tx_finish(tx) : tx_count(tx));
}

static void token_late(evutil_socket_t fd, short what, void *arg)
{
    struct tx *tx = arg;
    (void)fd, (void)what;
    tx->check->tx = NULL;
    tx->check = NULL;
    end_deadline(tx);
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
    start_deadline(tx, token_late);
    keeper_submit(tx->pipeline->keeper, &c->job);
    return true;
}

enum tx_state tx_judge(struct tx *tx, tx_done_fn *done, void *arg)
{
    assert(!tx->judged && !tx->done);
    tx->done = done;
    tx->arg = arg;
    tx_header_end(tx);
    tx->strip = tx->message->count[FIELD_RELEASE];
    tx->bytes += tx->message->nhead;
    enum tx_state state = TX_WAIT;
    if (tx->mode == MODE_BYPASS || tx->unjudged || !tx->envelope.nrecipients) {
        tx->unjudged = true;
        state = tx_finish(tx);
    } else {
        fingerprint_end(tx->fingerprinter, &tx->fp);
        subject_read(&tx->subject, tx->arena, &tx->config->site, tx->keys, &tx->envelope,
                     tx->message, &tx->fp, tx->now);
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
    tx_answer(tx, tx_decide(tx));
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
    return tx_decide(tx);
}

/* ---- the verdict ---- */

/* One recipient's disposition is one reply away from the others: a 4xx or 5xx answers for the whole
 * message, so it is given only when all agree; else those copies are held like the rest. */
static void agree_on_reply(struct tx *tx)
{
    struct verdict *v = &tx->verdict;
    uint32_t refused = v->count[DISP_THROTTLE] + v->count[DISP_REJECT];
    if (!refused)
        return;
    if (refused == v->n) {
        bool all_reject = v->count[DISP_REJECT] == v->n;
        const char *reason = v->copy[0].reason ? v->copy[0].reason : "refused by policy";
        tx->reply = arena_printf(tx->arena, all_reject ? "550 5.4.6 %s" : "451 4.7.0 %s", reason);
        return;
    }
    for (size_t i = 0; i < v->n; i++)
        if (v->copy[i].disposition >= DISP_THROTTLE && v->copy[i].disposition != DISP_HOLD) {
            v->count[v->copy[i].disposition]--;
            v->copy[i].disposition = DISP_HOLD;
            v->count[DISP_HOLD]++;
        }
}

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
    policy_judge(tx->config->policy, tx->mode, &tx->subject, &tx->signals, &tx->verdict);
    learn(tx);
    const struct verdict *v = &tx->verdict;
    if (v->advised[DISP_HOLD] || tx->signals.replication.storm)
        incident_print(&tx->signals.replication.k, tx->incident);
    agree_on_reply(tx);
    return v->count[DISP_HOLD] ? tx_hold(tx) : tx_finish(tx);
}

/* ---- holding ---- */

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
    end_deadline(tx);
    tx->held = stored;
    tx_answer(tx, stored ? tx_finish(tx) : tx_fail(tx, "the hold queue could not be written"));
}

static void give_up_put(struct tx *tx)
{
    count(&tx->pipeline->late, 1);
    atomic_store(&tx->put->abandoned, true);
    tx->put->tx = NULL;
    tx->put = NULL;
}

static void put_late(evutil_socket_t fd, short what, void *arg)
{
    struct tx *tx = arg;
    (void)fd, (void)what;
    give_up_put(tx);
    end_deadline(tx);
    tx_answer(tx, tx_fail(tx, "the hold queue did not answer in time"));
}

static struct span address_text(struct arena *arena, const struct ipaddr *ip)
{
    char text[48];
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
        if (v->copy[i].rule)
            put->mail.rule = arena_span(
                put->arena, span_str(policy_rule_name(tx->config->policy, v->copy[i].rule - 1u)));
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

static enum tx_state tx_hold(struct tx *tx)
{
    if (tx->indivisible && tx->verdict.count[DISP_HOLD] < tx->verdict.n)
        return tx_fail(tx, "the MTA does not let us remove single recipients");
    if (!tx->pipeline->keeper) { /* replay: a hold is a hold without a queue */
        tx->held = true;
        return tx_finish(tx);
    }
    if (!tx->body || body_lost(tx->body)) {
        count(&tx->pipeline->counters->too_large, 1);
        return tx_fail(tx, "the message is too large to hold");
    }
    if (atomic_load_explicit(&tx->pipeline->hold_full, memory_order_relaxed))
        return tx_fail(tx, "the hold queue is full (hold.max_bytes)");
    if (atomic_load_explicit(&tx->pipeline->late, memory_order_relaxed) >= LATE_MAX)
        return tx_fail(tx, "the hold queue does not keep up");
    body_seal(tx->body);
    tx->put = put_new(tx);
    start_deadline(tx, put_late);
    keeper_submit(tx->pipeline->keeper, &tx->put->job);
    return TX_WAIT;
}

/* ---- when holding fails (DESIGN.md 6) ---- */

static void pass_instead(struct tx *tx)
{
    struct verdict *v = &tx->verdict;
    for (size_t i = 0; i < v->n; i++)
        if (v->copy[i].disposition == DISP_HOLD) {
            v->copy[i].disposition = DISP_TAG;
            v->count[DISP_HOLD]--;
            v->count[DISP_TAG]++;
        }
}

static void refuse_instead(struct tx *tx)
{
    struct verdict *v = &tx->verdict;
    for (size_t i = 0; i < v->n; i++)
        v->copy[i].disposition = DISP_THROTTLE;
    memset(v->count, 0, sizeof v->count);
    v->count[DISP_THROTTLE] = (uint32_t)v->n;
    tx->reply = "452 4.3.1 This copy could not be held safely; please try again later";
}

/* This copy, and whoever hands it to us again: the same header to the same recipients. Other copies
 * of a storm must not use up its refusals. */
static uint64_t copy_key(const struct tx *tx)
{
    struct sip s;
    sip_begin(&s, tx->keys, SIP_MISC);
    sip_add(&s, tx->message->head, tx->message->nhead);
    uint64_t key = sip_end(&s);
    for (size_t i = 0; i < tx->envelope.nrecipients; i++)
        key ^= sip_pair(tx->keys, SIP_MISC, tx->envelope.recipients[i].hash, 452);
    return key;
}

/* Has this copy been refused often or long enough? answers: count in half an hour, first time. */
static enum tx_state fail_answered(struct tx *tx)
{
    double refused = tx->refusals.t[0].answer;
    int64_t since = (int64_t)tx->refusals.t[1].answer;
    if (refused >= tx->config->refuse_max || (since && tx->now - since >= REFUSE_FOR)) {
        pass_instead(tx);
        return tx_finish(tx);
    }
    struct tallies adds = {.t = tx->refusals.t, .n = since ? 1 : 2};
    adds.t[0].amount = 1;
    tx->pipeline->store->ops->tally_add(tx->pipeline->store, &adds, tx->now);
    refuse_instead(tx);
    return tx_finish(tx);
}

static void fail_asked(void *arg)
{
    struct tx *tx = arg;
    tx->op = NULL;
    tx_answer(tx, fail_answered(tx));
}

static enum tx_state tx_fail(struct tx *tx, const char *why)
{
    struct store *store = tx->pipeline->store;
    tx->failure = why;
    count(&tx->pipeline->counters->hold_failed, 1);
    bool duplicates_only = tx->verdict.count[DISP_HOLD] == tx->verdict.n;
    for (size_t i = 0; i < tx->verdict.n; i++)
        if (tx->signals.replication.copy[i].passed == 0)
            duplicates_only = false;
    if (!duplicates_only) {
        pass_instead(tx);
        return tx_finish(tx);
    }
    uint64_t key = copy_key(tx);
    tallies_add(&tx->refusals, tx->arena,
                (struct tally){.kind = TALLY_RATE, .key = key, .length = REFUSE_FOR});
    tallies_add(&tx->refusals, tx->arena,
                (struct tally){.kind = TALLY_MARK, .key = key + 1, .length = 24 * 3600 * 1000});
    if (store->ops->tally_read(store, &tx->refusals, tx->now, fail_asked, tx, &tx->op) ==
        STORE_WAIT)
        return TX_WAIT;
    return fail_answered(tx);
}

/* ---- the end ---- */

static const char *rule_name(const struct tx *tx, const struct copy_verdict *c)
{
    return c->rule ? policy_rule_name(tx->config->policy, c->rule - 1u) : NULL;
}

/* The recipient whose verdict says most: the highest disposition advised. */
static size_t telling(const struct tx *tx)
{
    size_t best = 0;
    for (size_t i = 1; i < tx->verdict.n; i++)
        if (tx->verdict.copy[i].advised > tx->verdict.copy[best].advised)
            best = i;
    return best;
}

/* X-Breakwater, in enforce mode only: monitor and bypass add nothing to a message. */
static void make_tag(struct tx *tx)
{
    const struct verdict *v = &tx->verdict;
    if (!v->count[DISP_TAG] || tx->mode != MODE_ENFORCE)
        return;
    size_t i = 0;
    while (v->copy[i].disposition != DISP_TAG)
        i++;
    const struct copy_signal *c = &tx->signals.replication.copy[i];
    char id[ID_TEXT], via[200];
    id_print(tx->id, id);
    escape_text(via, sizeof via, span_head(tx->signals.replication.blamed, 100));
    const char *rule = rule_name(tx, &v->copy[i]);
    tx->tag = arena_printf(tx->arena, "act=%s; rule=%s; rel=%s; k=%u%s%s; id=%s",
                           tx->failure ? "hold-failed" : "tag", rule ? rule : "none",
                           relation_name(c->relation), c->copies, *via ? "; via=" : "", via, id);
}

static void write_journal(struct tx *tx)
{
    struct journal *journal = tx->pipeline->journal;
    if (!journal)
        return;
    const struct verdict *v = &tx->verdict;
    char client[48];
    struct journal_row row = {
        .tx = tx->id,
        .time = tx->now,
        .k = tx->unjudged ? tx->fp.k : tx->signals.replication.k,
        .mode = (uint8_t)tx->mode,
        .door = span_str(tx->door),
        .client = span_of(client, ipaddr_print(&tx->envelope.client, client)),
        .from = tx->envelope.reversepath,
        .queue_id = tx->envelope.queue_id,
        .message_id = tx->fp.message_id,
        .incident = span_str(tx->incident),
    };
    for (size_t i = 0; i < v->n; i++) {
        row.rcpt = tx->envelope.recipients[i].address;
        row.disposition = (uint8_t)v->copy[i].disposition;
        row.advised = (uint8_t)v->copy[i].advised;
        row.rule = tx->released ? SPAN("released") : span_str(rule_name(tx, &v->copy[i]));
        if (!tx->unjudged) {
            row.relation = (uint8_t)tx->signals.replication.copy[i].relation;
            row.copies = tx->signals.replication.copy[i].copies;
        }
        journal_add(journal, &row);
    }
}

static void note_incident(struct tx *tx)
{
    const struct verdict *v = &tx->verdict;
    if (!tx->pipeline->incidents || !tx->incident[0])
        return;
    const struct replication_signals *r = &tx->signals.replication;
    bool would = v->mode == MODE_MONITOR;
    struct incident_note note = {
        .k = r->k,
        .kind = r->duplicates || r->storm ? INCIDENT_REPLICATION : INCIDENT_LOOP,
        .now = tx->now,
        .passed = v->count[DISP_PASS],
        .tagged = v->count[DISP_TAG],
        .held = v->count[DISP_HOLD],
        .would_hold = would ? v->advised[DISP_HOLD] : 0,
        .recipients_visible = (uint32_t)tx->subject.visible.n,
        .from = tx->fp.from,
        .subject = tx->fp.subject,
        .message_id = tx->fp.message_id,
        .relay = r->blamed.n ? r->blamed : tx->signals.loop.relay,
        .evidence = tx->signals.loop.evidence,
        .storm = r->storm,
    };
    if (!incidents_note(tx->pipeline->incidents, &note))
        return;
    struct logline l;
    log_begin(&l, LOG_LEVEL_NOTICE, "incident", span_str(tx->incident));
    log_str(&l, "event", r->storm ? "storm" : "opened");
    log_span(&l, "from", tx->fp.from);
    log_span(&l, "subject", tx->fp.subject);
    log_span(&l, "relay", note.relay);
    log_str(&l, "conviction", r->conviction);
    log_num(&l, "copies", (long long)r->copies);
    log_end(&l);
}

static void write_log(struct tx *tx)
{
    const struct verdict *v = &tx->verdict;
    bool plain = v->advised[DISP_PASS] == v->n && !tx->failure && !tx->released && !tx->beyond;
    enum log_level level = tx->failure ? LOG_LEVEL_ERROR
                           : plain     ? LOG_LEVEL_INFO
                                       : LOG_LEVEL_NOTICE;
    if (!log_wants(level))
        return;
    struct logline l;
    char id[ID_TEXT];
    id_print(tx->id, id);
    size_t i = v->n ? telling(tx) : 0;
    log_begin(&l, level, "tx", span_str(id));
    if (v->n) {
        log_str(&l, "verdict", disposition_name(v->copy[i].disposition));
        if (v->copy[i].advised != v->copy[i].disposition)
            log_str(&l, "advised", disposition_name(v->copy[i].advised));
        log_str(&l, "rule", tx->released ? "released" : rule_name(tx, &v->copy[i]));
    }
    log_str(&l, "mode", mode_name(tx->mode));
    log_span(&l, "qid", tx->envelope.queue_id);
    log_span(&l, "from", tx->envelope.reversepath);
    if (v->n)
        log_span(&l, "to", tx->envelope.recipients[i].address);
    log_num(&l, "rcpts", (long long)v->n);
    if (v->count[DISP_HOLD])
        log_num(&l, "held", v->count[DISP_HOLD]);
    if (!plain && !tx->unjudged) {
        log_str(&l, "relation", relation_name(tx->signals.replication.copy[i].relation));
        log_num(&l, "copies", (long long)tx->signals.replication.copies);
        log_span(&l, "relay", tx->signals.replication.blamed);
        log_span(&l, "incident", span_str(tx->incident));
    }
    log_str(&l, "hold-failed", tx->failure);
    if (tx->beyond)
        log_str(&l, "unjudged", "more recipients, or a larger header, than is judged");
    log_end(&l);
}

static void keep_balance(struct tx *tx)
{
    struct pipeline_counters *c = tx->pipeline->counters;
    count(&c->messages, 1);
    count(&c->received, tx->verdict.n);
    for (unsigned d = 0; d < DISP_COUNT; d++) {
        if (tx->verdict.count[d])
            count(&c->disposition[d], tx->verdict.count[d]);
        if (tx->verdict.advised[d])
            count(&c->advised[d], tx->verdict.advised[d]);
    }
    if (tx->released)
        count(&c->released_through, 1);
    if (tx->beyond)
        count(&c->too_large, 1);
    if (tx->observed && tx->signals.replication.degraded)
        count(&c->degraded, 1);
}

static enum tx_state tx_finish(struct tx *tx)
{
    if (tx->unjudged)
        all_pass(tx);
    tx->judged = true;
    make_tag(tx);
    keep_balance(tx);
    note_incident(tx);
    write_journal(tx);
    write_log(tx);
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

const struct subject *tx_subject(const struct tx *tx)
{
    return &tx->subject;
}

const char *tx_tag(const struct tx *tx)
{
    return tx->tag;
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

/* In monitor mode the record changes as if we had held: it must say what enforcing would have done.
 */
static enum fate fate_of(const struct tx *tx, const struct copy_verdict *c)
{
    if (c->disposition == DISP_HOLD)
        return FATE_HELD;
    if (c->disposition == DISP_THROTTLE || c->disposition == DISP_REJECT)
        return FATE_ABORTED;
    if (!tx->committed)
        return FATE_ABORTED;
    return c->advised == DISP_HOLD && !tx->failure ? FATE_HELD : FATE_PASSED;
}

static void settle(struct tx *tx)
{
    size_t n = tx->envelope.nrecipients;
    uint64_t *rcpt = arena_alloc(tx->arena, n * sizeof *rcpt + 1);
    enum fate *fate = arena_alloc(tx->arena, n * sizeof *fate + 1);
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
    if (tx->observed || tx->released)
        settle(tx);
}

void tx_end(struct tx **txp)
{
    struct tx *tx = *txp;
    *txp = NULL;
    if (!tx)
        return;
    end_deadline(tx);
    if (tx->op)
        tx->pipeline->store->ops->cancel(tx->pipeline->store, &tx->op);
    else if (tx->observed && !tx->committed)
        settle(tx);
    if (tx->put)
        give_up_put(tx);
    if (tx->check)
        tx->check->tx = NULL;
    if (!tx->judged) {
        count(&tx->pipeline->counters->aborted_messages, 1);
        count(&tx->pipeline->counters->received, tx->envelope.nrecipients);
        count(&tx->pipeline->counters->aborted, tx->envelope.nrecipients);
    }
    body_drop(&tx->body);
    config_drop(&tx->config);
    struct arena *arena = tx->arena;
    arena_free(&arena);
}
