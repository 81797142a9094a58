/*
 * store_observe.c - one message on its way to the record it belongs to, in a past that is shared.
 * The same story as store_resolve.c tells, but every look at another record is a question to Redis.
 *
 *   own     its event onto the log of its own K; in the same turn, where K is new here, the aliases
 *     |
 *     +-- the log is there, or is made, and no alias points anywhere      -> its signals
 *     +-- another content                                                 -> K' of variant 1, 2 ...
 *     |
 *   look    the logs that aliases and stamps point at; does it join one?  no -> own, its signals
 *     |
 *   unmake  its own log, if it was made: only while nobody else has put anything there
 *   join    its event onto the other log                                        its signals
 *
 * Where the aliases known here point somewhere already, the logs they point at are asked for in the
 * first turn, and its own log is not made before they were looked at.
 *
 * Why mail that no node's long memory knows is asked for all the same: asking for the aliases goes
 * in the same turn and costs Redis 0.7 us beside the 15 us of the event (nothing that could be
 * measured in messages a second or in latency); the event itself cannot wait, because what the
 * other nodes delivered is in the long memory here a second late, and a storm's first copies come
 * to all nodes in that second: each would let one through.
 *
 * Invariant: from shared_observe until its end an operation has calls open, each with a deadline;
 * the end is finish(), alone() or observe_cancel(), once.
 */
#include <stdlib.h>
#include <string.h>

#include <hiredis/hiredis.h>

#include "stamp.h"
#include "store_redis_own.h"
#include "store_script.h"

enum {
    ALIASES = 5, /* name, chain, queue, text, theme */
    NAME = 0,
    CANDIDATES_MAX = ALIASES * 2 * ALIAS_CANDIDATES + STAMPS_MAX,
    CALLS_MAX = 32,
    ROUNDS_MAX = 24, /* turns to Redis for one message */
    ALIAS_BYTES = sizeof(struct key) + 2
};

static const enum join alias_join[ALIASES] = {JOIN_NAME, JOIN_CHAIN, JOIN_QUEUE, JOIN_TEXT,
                                              JOIN_THEME};

/* A record this message may belong to. */
struct candidate {
    struct alias_found to;
    enum join by;
};

/* What an alias points at. */
struct pointers {
    struct alias_found to[ALIAS_CANDIDATES];
    size_t n;
};

struct store_op;
typedef void step_fn(struct store_op *);
struct call {
    struct store_op *op;
    struct redis_call *call; /* NULL: answered */
    unsigned what;           /* number of the alias or candidate */
};

struct store_op {
    struct store_op_base base; /* must be first */
    struct store_thread *t;
    struct arena *arena; /* its own: the subject's is not touched while an event is under way */
    struct observation o;
    struct flight flight;
    struct ask ask; /* the event under way */
    struct answer answer;
    store_done_fn *done;
    void *arg;
    int64_t until; /* monotonic ms */
    unsigned step; /* of the identity */
    unsigned rounds;
    bool whole;  /* its event did not fit: the whole one is sent */
    bool remake; /* the log is gone: it is made of the record here */
    bool again;  /* the whole log was asked for */
    bool known;  /* its own record is here */
    bool asked;  /* what its aliases point at was asked */
    bool looked; /* and looked at, or there was nothing */
    bool hinted; /* some of them point somewhere, as far as is known here */
    bool made;   /* its own log was, and has its event alone */
    bool joining;
    bool told; /* its event may be on the log of ask.k */
    struct guise guise;
    uint64_t alias[ALIASES];
    struct pointers here[ALIASES], there[ALIASES];
    struct candidate candidate[CANDIDATES_MAX];
    size_t ncandidates, at;
    struct key fetched[CALLS_MAX]; /* whose logs were asked for */
    size_t nfetched;
    struct call call[CALLS_MAX];
    unsigned ncalls, open;
    step_fn *next; /* when all calls are answered */
};

static void own(struct store_op *);
static void own_answered(struct store_op *);
static void joined_answered(struct store_op *);
static void look(struct store_op *);

/* ---- calls ---- */

static int64_t time_left(const struct store_op *op)
{
    int64_t left = op->until - clock_mono();
    return left > 1 ? left : 1;
}

static struct memory *memory_here(const struct store_op *op)
{
    return op->t->all->memory;
}

static struct call *call_new(struct store_op *op, unsigned what)
{
    struct call *c = &op->call[op->ncalls++];
    *c = (struct call){.op = op, .what = what};
    op->open++;
    return c;
}

static void calls_begin(struct store_op *op, step_fn *next)
{
    op->ncalls = op->open = 0;
    op->next = next;
    op->rounds++;
}

static void call_answered(struct call *c)
{
    c->call = NULL;
    if (--c->op->open == 0)
        c->op->next(c->op);
}

static void calls_forget(struct store_op *op)
{
    for (unsigned i = 0; i < op->ncalls; i++)
        if (op->call[i].call)
            redis_forget(&op->call[i].call);
    op->ncalls = op->open = 0;
}

/* ---- the end ---- */

static void finish(struct store_op *);

static void op_free(struct store_op *op)
{
    arena_free(&op->arena);
    free(op);
}

static void answer_tx(struct store_op *op)
{
    store_done_fn *done = op->done;
    void *arg = op->arg;
    op_free(op);
    done(arg); /* the tx may be gone now */
}

/* Redis cannot tell in time: as if there were no other node. Its event keeps its id, by which it is
 * found if it got onto the log after all. */
static void alone(struct store_op *op)
{
    struct store_op *none = NULL;
    struct memory *m = memory_here(op);
    calls_forget(op);
    flight_end(op->t->all, &op->ask.k, &op->flight, false);
    if (op->flight.applied && op->flight.result == EVENT_OK) {
        finish(op); /* another thread was told */
        return;
    }
    store_count(&op->t->all->count.degraded, 1);
    op->o.join = JOIN_OWN;
    op->o.join_why = NULL;
    op->o.join_weak = false;
    op->o.origin = NULL;
    op->t->retried = op->told ? op->flight.id : 0;
    (void)memory_observe(&m->store, &op->o, op->flight.out, NULL, NULL, &none);
    op->t->retried = 0;
    op->flight.out->degraded = true;
    answer_tx(op);
}

/* Its event is in the record here, but what it looked like then is lost: it passes. */
static void unseen(struct store_op *op)
{
    struct record *r = record_new(op->o.subject->now);
    store_count(&op->t->all->count.degraded, 1);
    (void)replication_observe(r, &op->o, op->flight.out);
    op->flight.out->k = op->ask.k;
    op->flight.out->degraded = true;
    record_free(&r);
    answer_tx(op);
}

/* ---- aliases ---- */

static void point(struct store_op *op, uint64_t alias, const struct alias_found *to,
                  const struct pointers *others, int64_t ttl)
{
    uint8_t value[ALIAS_CANDIDATES * ALIAS_BYTES], *p = value;
    char name[LOG_KEY], ms[24];
    struct span key = alias_key(op->t->all, alias, name);
    for (size_t i = 0; i <= others->n && i < ALIAS_CANDIDATES; i++) {
        const struct alias_found *a = i ? &others->to[i - 1] : to;
        if (i && memcmp(&a->k, &to->k, sizeof a->k) == 0)
            continue;
        memcpy(p, a->k.byte, sizeof a->k);
        p += sizeof a->k;
        *p++ = (uint8_t)a->join;
        *p++ = a->weak;
    }
    int n = snprintf(ms, sizeof ms, "%lld", (long long)ttl);
    const struct span argv[] = {SPAN("SET"), key, span_of(value, (size_t)(p - value)), SPAN("PX"),
                                span_of(ms, (size_t)n)};
    (void)redis_send(op->t->redis, key, argv, sizeof argv / sizeof *argv, 0, NULL, NULL);
}

/* The pointer to a record that has become worth more lives as long as that. */
static void keep_pointing(struct store_op *op, uint64_t alias, const struct alias_found *to,
                          int64_t ttl)
{
    uint8_t value[ALIAS_BYTES];
    char name[LOG_KEY], ms[24];
    struct span key = alias_key(op->t->all, alias, name);
    memcpy(value, to->k.byte, sizeof to->k);
    value[sizeof to->k] = (uint8_t)to->join;
    value[sizeof to->k + 1] = to->weak;
    struct span life = span_of(ms, (size_t)snprintf(ms, sizeof ms, "%lld", (long long)ttl));
    const struct span set[] = {SPAN("SET"), key,  span_of(value, sizeof value),
                               SPAN("PX"),  life, SPAN("NX")},
                      expire[] = {SPAN("PEXPIRE"), key, life};
    (void)redis_send(op->t->redis, key, set, sizeof set / sizeof *set, 0, NULL, NULL);
    (void)redis_send(op->t->redis, key, expire, sizeof expire / sizeof *expire, 0, NULL, NULL);
}

static int64_t ttl_of(const struct store_op *op, enum age age)
{
    const struct site *site = memory_here(op)->site;
    return age == AGE_STORM ? site->ttl_storm : age == AGE_PLAIN ? site->ttl_plain : site->ttl_dup;
}

static void point_here(struct store_op *op, unsigned i, const struct alias_found *to)
{
    struct memory *m = memory_here(op);
    if (!op->alias[i])
        return;
    aliases_put(m->aliases, op->alias[i], to, ALIAS_PLAIN, op->o.subject->now);
    point(op, op->alias[i], to, &op->there[i], ttl_of(op, AGE_PLAIN));
}

/* As in store_resolve.c: when a record is new, when it is worth more, when it was joined. */
static void remember_aliases(struct store_op *op)
{
    const struct flight *f = &op->flight;
    const struct key *k = &op->ask.k;
    struct memory *m = memory_here(op);
    const struct alias_found queue = {*k, JOIN_QUEUE, false}, chain = {*k, JOIN_CHAIN, false},
                             name = {*k, (enum join)op->o.join, op->o.join_weak};
    if (f->fresh || f->before != f->after) {
        const uint64_t alias[] = {f->origin.chain, f->origin.text, f->origin.theme};
        static const enum join by[] = {JOIN_CHAIN, JOIN_TEXT, JOIN_THEME};
        aliases_put_record(m->aliases, k, &f->origin, (enum alias_worth)f->after,
                           op->o.subject->now);
        for (unsigned i = 0; i < 3; i++) {
            const struct alias_found to = {*k, by[i], false};
            if (alias[i] && f->fresh && op->asked)
                point(op, alias[i], &to, &op->there[i == 0 ? 1 : i + 2], ttl_of(op, f->after));
            else if (alias[i])
                keep_pointing(op, alias[i], &to, ttl_of(op, f->after));
        }
    }
    if (op->joining && !f->storm) {
        point_here(op, NAME, &name);
        point_here(op, 1, &chain);
        point_here(op, 2, &chain);
    } else if (f->fresh && op->asked) {
        point_here(op, 2, &queue);
    }
}

static void finish(struct store_op *op)
{
    struct replication_signals *out = op->flight.out;
    remember_aliases(op);
    store_count(&op->t->all->count.asked, 1);
    if (op->joining)
        store_count(&op->t->all->count.joined, 1);
    else
        out->variant = op->step;
    answer_tx(op);
}

static void read_pointers(struct pointers *out, const struct redisReply *r)
{
    *out = (struct pointers){.n = 0};
    if (!r || r->type != REDIS_REPLY_STRING)
        return;
    const uint8_t *p = (const uint8_t *)r->str;
    for (size_t left = (size_t)r->len; left >= ALIAS_BYTES && out->n < ALIAS_CANDIDATES;
         left -= ALIAS_BYTES, p += ALIAS_BYTES) {
        struct alias_found *a = &out->to[out->n++];
        memcpy(a->k.byte, p, sizeof a->k);
        a->join = p[sizeof a->k] < JOINS ? (enum join)p[sizeof a->k] : JOIN_OWN;
        a->weak = p[sizeof a->k + 1] != 0;
    }
}

static void alias_answered(void *arg, const struct redisReply *r, const char *why)
{
    struct call *c = arg;
    (void)why; /* an alias nobody tells points nowhere */
    read_pointers(&c->op->there[c->what], r);
    call_answered(c);
}

static void aliases_answered(void *arg, const struct redisReply *r, const char *why)
{
    struct call *c = arg;
    size_t k = 0;
    (void)why;
    for (unsigned i = 0; i < ALIASES; i++)
        if (c->op->alias[i] && r && r->type == REDIS_REPLY_ARRAY && k < r->elements)
            read_pointers(&c->op->there[i], r->element[k++]);
    call_answered(c);
}

/* One command where all keys are on one server, else one for each. */
static void ask_aliases(struct store_op *op)
{
    char name[ALIASES][LOG_KEY];
    struct span argv[ALIASES + 1] = {SPAN("MGET")};
    size_t n = 1;
    bool cluster = op->t->all->settings->cluster;
    op->asked = true;
    for (unsigned i = 0; i < ALIASES; i++) {
        if (!op->alias[i])
            continue;
        argv[n++] = alias_key(op->t->all, op->alias[i], name[i]);
        if (!cluster)
            continue;
        struct call *c = call_new(op, i);
        const struct span get[] = {SPAN("GET"), argv[n - 1]};
        c->call = redis_send(op->t->redis, get[1], get, 2, time_left(op), alias_answered, c);
    }
    if (cluster || n == 1)
        return;
    struct call *c = call_new(op, 0);
    c->call = redis_send(op->t->redis, argv[1], argv, n, time_left(op), aliases_answered, c);
}

/* Its other names, and what they point at as far as is known here. */
static void read_names(struct store_op *op)
{
    struct memory *m = memory_here(op);
    const struct subject *s = op->o.subject;
    struct key stamp[STAMPS_MAX];
    guise_read(&op->guise, &op->o);
    op->o.origin = &op->guise.origin;
    const uint64_t alias[ALIASES] = {alias_of_key(&s->fp.k), op->guise.origin.chain,
                                     op->guise.queue, op->guise.origin.text,
                                     op->guise.origin.theme};
    for (unsigned i = 0; i < ALIASES; i++) {
        op->alias[i] = alias[i];
        op->here[i].n = aliases_find(m->aliases, alias[i], op->here[i].to);
        op->hinted |= op->here[i].n > 0;
    }
    op->hinted |= s->message && stamps_read(s->keys, s->message, stamp) > 0;
}

/* ---- candidates ---- */

static void add_candidate(struct store_op *op, const struct alias_found *to, enum join by)
{
    for (size_t i = 0; i < op->ncandidates; i++)
        if (op->candidate[i].by == by && memcmp(&op->candidate[i].to.k, &to->k, sizeof to->k) == 0)
            return;
    if (op->ncandidates < CANDIDATES_MAX)
        op->candidate[op->ncandidates++] = (struct candidate){*to, by};
}

static void add_pointers(struct store_op *op, unsigned i)
{
    for (size_t k = 0; k < op->here[i].n; k++)
        add_candidate(op, &op->here[i].to[k], alias_join[i]);
    for (size_t k = 0; k < op->there[i].n; k++)
        add_candidate(op, &op->there[i].to[k], alias_join[i]);
}

static void gather_candidates(struct store_op *op)
{
    op->ncandidates = 0;
    const struct subject *s = op->o.subject;
    struct key stamp[STAMPS_MAX];
    add_pointers(op, NAME);
    size_t n = s->message ? stamps_read(s->keys, s->message, stamp) : 0;
    for (size_t i = 0; i < n; i++)
        add_candidate(op, &(struct alias_found){stamp[i], JOIN_STAMP, false}, JOIN_STAMP);
    for (unsigned i = NAME + 1; i < ALIASES; i++)
        add_pointers(op, i);
}

static bool was_fetched(const struct store_op *op, const struct key *k)
{
    for (size_t i = 0; i < op->nfetched; i++)
        if (memcmp(&op->fetched[i], k, sizeof *k) == 0)
            return true;
    return false;
}

static void fetched(void *arg, const struct redisReply *r, const char *why)
{
    static const struct ask nothing;
    struct call *c = arg;
    struct answer a;
    (void)why; /* a log that nobody tells is joined by what is known here, or not */
    answer_read(&a, r, &nothing);
    if (a.how == ANSWER_HERE)
        (void)log_take(c->op->t, &c->op->fetched[c->what], &a, TTL_AS_IT_IS, true);
    call_answered(c);
}

/* What the logs of the candidates have, but those that were asked already. */
static void fetch_candidates(struct store_op *op)
{
    struct memory *m = memory_here(op);
    for (size_t i = 0; i < op->ncandidates; i++) {
        struct ask ask = {.k = op->candidate[i].to.k};
        if (op->ncalls == CALLS_MAX || op->nfetched == CALLS_MAX || was_fetched(op, &ask.k))
            continue;
        struct shard *s = shard_lock(m, &ask.k);
        struct entry *e = entry_find(s, &ask.k);
        if (e)
            ask.known = e->log;
        pthread_mutex_unlock(&s->lock);
        struct call *c = call_new(op, (unsigned)op->nfetched);
        op->fetched[op->nfetched++] = ask.k;
        c->call = log_ask(op->t, &ask, time_left(op), fetched, c);
    }
}

/* ---- an event onto a log ---- */

static struct span observation_frame(struct store_op *op, enum event_kind form)
{
    uint8_t *event;
    size_t n = event_observation(op->arena, &op->o, form, op->flight.id, op->t->all->node, &event);
    return recordlog_frame(op->arena, span_of(event, n), op->flight.id);
}

/* The record here, and then this message: for a log that is gone. */
static struct span remade(struct store_op *op, const struct record *r, struct span more)
{
    uint8_t *event;
    uint64_t id = store_random(op->t);
    size_t n = event_record(op->arena, r, id, op->t->all->node, r->last, &event);
    struct span frame = recordlog_frame(op->arena, span_of(event, n), id);
    return arena_join(op->arena, frame, more, SPAN(""));
}

/* Its event as it fits the record here (NULL: none), under the shard's lock: the long memory is
 * asked meanwhile. */
static void write_event(struct store_op *op, struct shard *s, const struct entry *e,
                        const struct key *k)
{
    struct memory *m = memory_here(op);
    int64_t now = op->o.subject->now;
    enum event_kind form = EVENT_WHOLE;
    if (e && e->log.generation && !op->whole && !op->remake)
        form = event_form_for(e->record, &op->o);
    op->o.k = *k;
    op->o.ring = s->ring;
    op->o.whole = whole_since(m, now);
    op->flight.id = store_random(op->t);
    op->ask = (struct ask){.k = *k, .ttl = m->site->ttl_plain};
    if (e) {
        op->ask.known = e->log;
        op->ask.ttl = record_ttl(e->record, m->site);
    }
    op->ask.generation = store_random(op->t);
    op->ask.more = observation_frame(op, form);
    if (op->remake && e)
        op->ask.fresh = remade(op, e->record, op->ask.more);
    else if (!e && !op->joining && !op->hinted)
        op->ask.fresh = observation_frame(op, EVENT_FIRST);
    op->ask.after = flight_latest(op->t, s, k);
    op->flight.k = *k;
    flight_begin(op->t->all, s, &op->flight);
}

static void log_answered(void *arg, const struct redisReply *r, const char *why)
{
    struct call *c = arg;
    struct store_op *op = c->op;
    struct answer a;
    (void)why;
    answer_read(&a, r, &op->ask);
    a.bytes = a.bytes.n ? arena_span(op->arena, a.bytes) : a.bytes;
    op->answer = a;
    call_answered(c);
}

static void send_event(struct store_op *op)
{
    struct call *c = call_new(op, 0);
    if (outbox_has(op->t->all->outbox, &op->ask.k))
        shared_hand_in(op->t, &op->ask.k);
    op->told = true;
    c->call = log_ask(op->t, &op->ask, time_left(op), log_answered, c);
}

static bool out_of_time(const struct store_op *op)
{
    return op->rounds >= ROUNDS_MAX || clock_mono() >= op->until;
}

static void send_again(struct store_op *op)
{
    calls_begin(op, op->joining ? joined_answered : own_answered);
    send_event(op);
}

/* Another content: the next candidate, or the next K'. */
static void conflicts(struct store_op *op)
{
    op->whole = op->again = op->remake = op->told = false;
    if (!op->joining) {
        op->step++;
        own(op);
        return;
    }
    op->joining = false;
    op->at++;
    look(op);
}

/* The log has other content than the record here had: the event has to bring all it knows. */
static void send_whole(struct store_op *op)
{
    struct memory *m = memory_here(op);
    struct key k = op->ask.k;
    if (op->whole || out_of_time(op)) {
        alone(op);
        return;
    }
    op->whole = true;
    op->again = false;
    struct shard *s = shard_lock(m, &k);
    write_event(op, s, entry_find(s, &k), &k);
    pthread_mutex_unlock(&s->lock);
    send_again(op);
}

/* Its event was applied, by whichever thread. */
static void landed(struct store_op *op)
{
    if (op->flight.result == EVENT_OK)
        finish(op);
    else if (op->flight.result == EVENT_CONFLICT)
        conflicts(op);
    else
        send_whole(op);
}

/* Its event is on the log: the record here becomes what the log says, and tells what it saw. */
static void on_log(struct store_op *op)
{
    struct sharing *all = op->t->all;
    enum taken taken = log_take(op->t, &op->ask.k, &op->answer, op->ask.ttl, true);
    bool again = taken == TAKEN_AGAIN && !op->again && !out_of_time(op);
    flight_end(all, &op->ask.k, &op->flight, again);
    if (op->flight.at) { /* the record here is elsewhere by now: the whole log tells */
        op->again = true;
        op->ask.known = (struct recordlog){0};
        op->ask.fresh = op->ask.more = SPAN("");
        op->ask.after = 0;
        send_again(op);
        return;
    }
    if (op->flight.applied)
        landed(op);
    else if (taken == TAKEN_AGAIN)
        alone(op);
    else
        unseen(op);
}

/* What the log has is worth knowing all the same; it may be compacted now. */
static void full(struct store_op *op)
{
    store_count(&op->t->all->count.full, 1);
    (void)log_take(op->t, &op->ask.k, &op->answer, op->ask.ttl, true);
    op->told = false;
    alone(op);
}

/* There is no log of a record that is here: it is made again. */
static void make_again(struct store_op *op)
{
    struct memory *m = memory_here(op);
    struct key k = op->ask.k;
    flight_end(op->t->all, &k, &op->flight, false);
    op->told = false;
    if (op->again || op->remake || out_of_time(op)) {
        alone(op);
        return;
    }
    op->remake = true;
    struct shard *s = shard_lock(m, &k);
    struct entry *e = entry_find(s, &k);
    bool known = e && !record_empty(e->record);
    if (known)
        write_event(op, s, e, &k);
    pthread_mutex_unlock(&s->lock);
    if (!known) {
        alone(op); /* forgotten in this very moment */
        return;
    }
    store_count(&op->t->all->count.remade, 1);
    send_again(op);
}

/* ---- its own K ---- */

enum standing { STANDS_UNKNOWN, STANDS_KNOWN, STANDS_OTHER };

/* What is known here of the identity to try. Its event is written, but not of one that is unknown
 * before its names were read. */
static enum standing own_event(struct store_op *op, const struct key *k)
{
    const struct subject *sub = op->o.subject;
    struct memory *m = memory_here(op);
    struct shard *s = shard_lock(m, k);
    struct entry *e = entry_live(m, s, k, sub->now);
    enum standing standing = STANDS_KNOWN;
    if (!e || record_empty(e->record))
        standing = STANDS_UNKNOWN;
    else if (e->log.generation && op->step + 1 < STORE_STEPS &&
             !record_same_content(e->record, sub->keys, &sub->fp))
        standing = STANDS_OTHER;
    if (standing == STANDS_KNOWN || (standing == STANDS_UNKNOWN && op->guise.o))
        write_event(op, s, standing == STANDS_KNOWN ? e : NULL, k);
    pthread_mutex_unlock(&s->lock);
    op->known = standing == STANDS_KNOWN;
    return standing;
}

static void own(struct store_op *op)
{
    if (out_of_time(op)) {
        alone(op);
        return;
    }
    for (;; op->step++) {
        struct key k = store_identity(op->o.subject, op->step);
        enum standing standing = own_event(op, &k);
        if (standing == STANDS_UNKNOWN && !op->guise.o) {
            read_names(op);
            standing = own_event(op, &k);
        }
        if (standing != STANDS_OTHER)
            break;
    }
    calls_begin(op, own_answered);
    send_event(op);
    if (op->guise.o && !op->asked) {
        ask_aliases(op);
        gather_candidates(op);
        fetch_candidates(op);
    }
}

/* It is new; which records may it belong to all the same? Its event is not under way meanwhile:
 * joining needs the subject's arena. */
static void look_first(struct store_op *op)
{
    flight_end(op->t->all, &op->ask.k, &op->flight, false);
    if (op->flight.applied) { /* with the answer to another message, in another thread */
        op->made = false;
        landed(op);
        return;
    }
    op->told = false;
    op->looked = true;
    gather_candidates(op);
    look(op);
}

static void own_answered(struct store_op *op)
{
    bool unlooked = op->asked && !op->looked;
    switch (op->answer.how) {
    case ANSWER_NONE:
        alone(op);
        return;
    case ANSWER_FULL:
        full(op);
        return;
    case ANSWER_HERE:
        on_log(op);
        return;
    case ANSWER_MADE:
        op->made = unlooked;
        if (unlooked)
            look_first(op);
        else
            on_log(op);
        return;
    case ANSWER_GONE:
        break;
    }
    if (unlooked && !op->known)
        look_first(op);
    else
        make_again(op);
}

/* It joins none: it is its own. */
static void own_after_all(struct store_op *op)
{
    struct memory *m = memory_here(op);
    op->hinted = false;
    if (!op->made) {
        own(op);
        return;
    }
    struct shard *s = shard_lock(m, &op->ask.k);
    flight_begin(op->t->all, s, &op->flight);
    pthread_mutex_unlock(&s->lock);
    op->made = false;
    op->told = true;
    on_log(op);
}

/* ---- the records it may belong to ---- */

/* Does it join this record, as it is here? If so, and its own log was not made, its event is
 * written. */
static bool fits(struct store_op *op, const struct candidate *c)
{
    struct memory *m = memory_here(op);
    struct joining j = {.why = NULL};
    struct shard *s = shard_lock(m, &c->to.k);
    struct entry *e = entry_live(m, s, &c->to.k, op->o.subject->now);
    op->o.join = JOIN_OWN;
    if (e && e->record->copies)
        j = alias_joins(c->by, e->record, &op->guise);
    if (j.why && !op->made) {
        op->o.join = c->by == JOIN_NAME ? c->to.join : j.join;
        op->o.join_why = j.why;
        op->o.join_weak = c->by == JOIN_NAME ? c->to.weak : j.weak;
        op->joining = true;
        write_event(op, s, e, &c->to.k);
    }
    pthread_mutex_unlock(&s->lock);
    return j.why != NULL;
}

static void joined_answered(struct store_op *op)
{
    if (op->answer.how == ANSWER_NONE)
        alone(op);
    else if (op->answer.how == ANSWER_FULL)
        full(op);
    else if (op->answer.how == ANSWER_GONE)
        make_again(op);
    else
        on_log(op);
}

static void unmade(void *arg, const struct redisReply *r, const char *why)
{
    struct call *c = arg;
    struct store_op *op = c->op;
    (void)why;
    c->call = NULL;
    op->open = 0;
    if (!r) {
        op->told = true; /* its event may be on its own log */
        alone(op);
        return;
    }
    if (r->type == REDIS_REPLY_INTEGER && r->integer == 1) {
        op->made = false;
        look(op);
        return;
    }
    own_after_all(op); /* somebody else has it as what it is called */
}

/* Its own log is taken back before it joins another. */
static void unmake(struct store_op *op)
{
    char name[LOG_KEY], size[24];
    uint8_t generation[8];
    bytes_put(generation, op->answer.generation, 8);
    int n = snprintf(size, sizeof size, "%zu", RECORDLOG_HEAD + op->ask.fresh.n);
    const struct span argv[] = {span_of(generation, 8), span_of(size, (size_t)n)};
    calls_begin(op, look);
    struct call *c = call_new(op, 0);
    c->call = redis_run(op->t->redis, &script_unmake, log_key(op->t->all, &op->ask.k, name), argv,
                        2, time_left(op), unmade, c);
}

/* Goes through the candidates in their order. */
static void look(struct store_op *op)
{
    for (; op->at < op->ncandidates; op->at++) {
        const struct candidate *c = &op->candidate[op->at];
        if (!was_fetched(op, &c->to.k) && op->nfetched < CALLS_MAX)
            break;
        if (!fits(op, c))
            continue;
        if (out_of_time(op))
            alone(op);
        else if (op->made)
            unmake(op);
        else
            send_again(op);
        return;
    }
    if (op->at == op->ncandidates || out_of_time(op)) {
        own_after_all(op);
        return;
    }
    calls_begin(op, look);
    fetch_candidates(op);
}

/* ---- the interface ---- */

static void observe_alone(struct store *st, const struct observation *o,
                          struct replication_signals *out)
{
    struct store_op *none = NULL;
    (void)memory_observe(st, o, out, NULL, NULL, &none);
    out->degraded = true;
    store_count(&memory_of(st)->sharing->count.degraded, 1);
}

/* What its event has done is undone like that of a message whose client was gone. */
static void observe_cancel(struct store *st, struct store_op *op)
{
    const struct envelope *e = op->o.subject->envelope;
    calls_forget(op);
    flight_end(op->t->all, &op->ask.k, &op->flight, false);
    if ((op->told || op->made) && e->nrecipients) {
        uint64_t *rcpt = arena_alloc(op->arena, e->nrecipients * sizeof *rcpt);
        enum fate *fate = arena_alloc(op->arena, e->nrecipients * sizeof *fate);
        for (size_t i = 0; i < e->nrecipients; i++) {
            rcpt[i] = e->recipients[i].hash;
            fate[i] = FATE_ABORTED;
        }
        shared_settle(st, &op->ask.k, rcpt, fate, e->nrecipients);
    }
    op_free(op);
}

enum store_state shared_observe(struct store *st, const struct observation *o,
                                struct replication_signals *out, store_done_fn *done, void *arg,
                                struct store_op **opp)
{
    struct store_thread *t = store_thread_here();
    struct key k = store_identity(o->subject, 0);
    if (!t || t->all != memory_of(st)->sharing || !store_reaches(t, &k)) {
        observe_alone(st, o, out);
        return STORE_DONE;
    }
    struct store_op *op = calloc(1, sizeof *op);
    if (!op)
        abort();
    op->base.cancel = observe_cancel;
    op->t = t;
    op->arena = arena_little();
    op->o = *o;
    op->flight.o = &op->o;
    op->flight.t = t;
    op->flight.out = out;
    op->done = done;
    op->arg = arg;
    op->until = clock_mono() + t->all->settings->deadline;
    own(op);
    *opp = op;
    return STORE_WAIT;
}
