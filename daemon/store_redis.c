/*
 * store_redis.c - the shared store: its threads, what became of copies, and being without Redis.
 * See store_redis.h.
 *
 *   Redis there:  fates -> onto the log of K, applied here when the log says so
 *   away:         fates -> applied here -> outbox     messages -> store_resolve.c -> outbox
 *   back:         outbox -> onto the logs, those left out that had got there after all
 */
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>
#include <openssl/rand.h>

#include <hiredis/hiredis.h>

#include "log.h"
#include "store_redis.h"
#include "store_redis_own.h"
#include "store_script.h"

enum {
    LOOK_MS = 100,
    HANDING_MAX = 16,   /* parcels a thread has on their way */
    OUTBOX_SHARE = 16,  /* of the memory for records */
    LOOKS_AT_START = 20 /* before being without Redis is worth a line */
};

static _Thread_local struct store_thread *here;

struct store_thread *store_thread_here(void)
{
    return here;
}

/* splitmix64 (Steele, Lea, Flood 2014), seeded by the system. */
uint64_t store_random(struct store_thread *t)
{
    uint64_t z;
    do {
        z = t->random += UINT64_C(0x9e3779b97f4a7c15);
        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        z ^= z >> 31;
    } while (!z);
    return z;
}

static void random_seed(void *out, size_t n)
{
    if (RAND_bytes(out, (int)n) != 1)
        abort();
}

bool store_reaches(struct store_thread *t, const struct key *k)
{
    char key[LOG_KEY];
    return atomic_load_explicit(&t->all->allowed, memory_order_relaxed) &&
           redis_reaches(t->redis, log_key(t->all, k, key));
}

/* ---- handing in ---- */

struct handing {
    struct store_thread *t;
    struct parcel *parcel;
    struct arena *arena;
    struct ask ask;
};

static void handed_in(void *arg, const struct redisReply *r, const char *why)
{
    struct handing *h = arg;
    struct sharing *all = h->t->all;
    struct answer a;
    (void)why;
    answer_read(&a, r, &h->ask);
    h->t->handing--;
    if (a.how == ANSWER_MADE || a.how == ANSWER_HERE) {
        store_count(&all->count.handed_in, h->parcel->events);
        atomic_fetch_add(&all->handed_since, h->parcel->events);
        (void)log_take(h->t, &h->parcel->k, &a, h->ask.ttl, false);
        parcel_free(&h->parcel);
    } else if (a.how == ANSWER_FULL) {
        store_count(&all->count.full, h->parcel->events);
        parcel_free(&h->parcel);
    } else {
        outbox_put_back(all->outbox, &h->parcel);
    }
    arena_free(&h->arena);
    free(h);
}

/* Where there is no log it is made of the record here, which has these events already. */
static void ask_of_parcel(struct handing *h)
{
    struct memory *m = h->t->all->memory;
    struct shard *s = shard_lock(m, &h->parcel->k);
    struct entry *e = entry_find(s, &h->parcel->k);
    h->ask = (struct ask){.k = h->parcel->k,
                          .check = true,
                          .more = span_of(h->parcel->bytes, h->parcel->n),
                          .ttl = e ? record_ttl(e->record, m->site) : m->site->ttl_plain,
                          .generation = store_random(h->t)};
    h->ask.fresh = h->ask.more;
    if (e && !record_empty(e->record)) {
        uint8_t *event;
        uint64_t id = store_random(h->t);
        size_t n = event_record(h->arena, e->record, id, h->t->all->node, e->record->last, &event);
        h->ask.fresh = recordlog_frame(h->arena, span_of(event, n), id);
    }
    pthread_mutex_unlock(&s->lock);
}

static bool hand_in(struct store_thread *t, const struct key *k)
{
    struct parcel *p = outbox_take(t->all->outbox, k);
    if (!p)
        return false;
    struct handing *h = calloc(1, sizeof *h);
    if (!h)
        abort();
    *h = (struct handing){.t = t, .parcel = p, .arena = arena_new()};
    ask_of_parcel(h);
    t->handing++;
    (void)log_ask(t, &h->ask, 0, handed_in, h);
    return true;
}

void shared_hand_in(struct store_thread *t, const struct key *k)
{
    (void)hand_in(t, k);
}

/* ---- away and back ---- */

static void tell_away(struct store_thread *t)
{
    const char *why = redis_trouble(t->redis);
    log_say(LOG_LEVEL_ERROR, "the shared past is away%s%s: judging by what this node knows",
            why ? ": " : "", why ? why : "");
}

static void set_away(struct store_thread *t, bool away)
{
    struct sharing *all = t->all;
    t->away = away;
    if (away) {
        if (atomic_fetch_add(&all->away, 1) == 0)
            tell_away(t);
        return;
    }
    if (atomic_fetch_sub(&all->away, 1) == 1)
        log_say(LOG_LEVEL_NOTICE, "the shared past is back");
}

/* Once all that was made meanwhile has got there. */
static void tell_handed_in(struct store_thread *t)
{
    struct outbox_figures f;
    if (!atomic_load(&t->all->handed_since) || t->handing)
        return;
    outbox_figures(t->all->outbox, &f);
    if (f.events || atomic_load(&t->all->away))
        return;
    uint64_t n = atomic_exchange(&t->all->handed_since, 0);
    if (n)
        log_say(LOG_LEVEL_NOTICE, "the shared past has what was judged without it: %llu event%s",
                (unsigned long long)n, n == 1 ? "" : "s");
}

static void publish(struct store_thread *t)
{
    pthread_mutex_lock(&t->lock);
    redis_figures(t->redis, &t->figures);
    pthread_mutex_unlock(&t->lock);
}

static void look(evutil_socket_t fd, short what, void *arg)
{
    struct store_thread *t = arg;
    bool up = redis_up(t->redis);
    (void)fd, (void)what;
    publish(t);
    if (up)
        t->looks = LOOKS_AT_START;
    else if (t->looks < LOOKS_AT_START)
        t->looks++;
    if (t->looks == LOOKS_AT_START && up == t->away)
        set_away(t, !up);
    while (up && t->handing < HANDING_MAX &&
           atomic_load_explicit(&t->all->allowed, memory_order_relaxed) && hand_in(t, NULL))
        ;
    if (up)
        tell_handed_in(t);
}

/* ---- what became of copies ---- */

/* Fates on their way to their log. */
struct settling {
    struct store_thread *t;
    struct arena *arena;
    struct ask ask;
    struct span event;
};

/* The log does not have them, or nobody knows: the record here does. */
static void settle_here(struct store_thread *t, const struct key *k, struct span event, bool dirty)
{
    struct memory *m = t->all->memory;
    struct arena *arena = arena_little();
    struct shard *s = shard_lock(m, k);
    struct entry *e = entry_find(s, k);
    if (e) {
        (void)event_apply(e->record, event, m->site, &t->keys, arena, NULL);
        e->record->changed = true;
        if (dirty)
            e->log = (struct recordlog){0};
    }
    pthread_mutex_unlock(&s->lock);
    arena_free(&arena);
}

static void settled(void *arg, const struct redisReply *r, const char *why)
{
    struct settling *st = arg;
    struct store_thread *t = st->t;
    struct answer a;
    (void)why;
    answer_read(&a, r, &st->ask);
    if (a.how == ANSWER_HERE)
        (void)log_take(t, &st->ask.k, &a, st->ask.ttl, false);
    else
        settle_here(t, &st->ask.k, st->event, a.how == ANSWER_NONE);
    if (a.how == ANSWER_FULL)
        store_count(&t->all->count.full, 1);
    if (a.how == ANSWER_NONE)
        outbox_add(t->all->outbox, &st->ask.k, st->ask.more);
    arena_free(&st->arena);
    free(st);
}

/* The long memory takes who gets his first copy by this, as in store_memory.c: here, not when it is
 * applied, because a log that is folded anew would tell it twice. */
static void remember(struct memory *m, struct shard *s, const struct entry *e, const uint64_t *rcpt,
                     const enum fate *fate, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (fate[i] != FATE_HELD && fate[i] != FATE_ABORTED && !record_passed(e->record, rcpt[i]))
            memory_remember(m, s, &e->key, rcpt[i], e->record->last);
}

static struct span fates_frame(struct arena *a, uint64_t id, uint32_t node, const uint64_t *rcpt,
                               const enum fate *fate, size_t n)
{
    uint8_t *event;
    size_t bytes = event_fates(a, id, node, clock_now(), rcpt, fate, n, &event);
    return recordlog_frame(a, span_of(event, bytes), id);
}

static struct span event_of(struct span frame)
{
    return span_of(frame.p + 4, frame.n - RECORDLOG_FRAME);
}

static void settle_alone(struct sharing *all, const struct key *k, const uint64_t *rcpt,
                         const enum fate *fate, size_t n)
{
    uint64_t id;
    struct arena *arena = arena_little();
    random_seed(&id, sizeof id);
    memory_ops.settle(&all->memory->store, k, rcpt, fate, n);
    struct shard *s = shard_lock(all->memory, k);
    struct entry *e = entry_find(s, k);
    if (e)
        e->log = (struct recordlog){0};
    pthread_mutex_unlock(&s->lock);
    outbox_add(all->outbox, k, fates_frame(arena, id | 1, all->node, rcpt, fate, n));
    arena_free(&arena);
}

void shared_settle(struct store *st, const struct key *k, const uint64_t *rcpt,
                   const enum fate *fate, size_t n)
{
    struct memory *m = memory_of(st);
    struct sharing *all = m->sharing;
    struct store_thread *t = here;
    if (!n)
        return;
    if (!t || t->all != all || !store_reaches(t, k) || outbox_has(all->outbox, k)) {
        settle_alone(all, k, rcpt, fate, n);
        return;
    }
    struct settling *g = calloc(1, sizeof *g);
    if (!g)
        abort();
    *g = (struct settling){.t = t, .arena = arena_little()};
    g->ask = (struct ask){.k = *k, .ttl = m->site->ttl_plain, .blind = true};
    g->ask.more = fates_frame(g->arena, store_random(t), all->node, rcpt, fate, n);
    g->event = event_of(g->ask.more);
    struct shard *s = shard_lock(m, k);
    struct entry *e = entry_find(s, k);
    if (e) {
        remember(m, s, e, rcpt, fate, n);
        g->ask.known = e->log;
        g->ask.after = flight_latest(t, s, k);
        g->ask.blind = false;
        g->ask.ttl = record_ttl(e->record, m->site);
    }
    pthread_mutex_unlock(&s->lock);
    (void)log_ask(t, &g->ask, 0, settled, g);
}

/* A message was judged here alone: its log is to have it when it can. Under the shard's lock. */
static void note_alone(struct memory *m, struct entry *e, const struct observation *o)
{
    struct sharing *all = m->sharing;
    struct store_thread *t = here;
    struct arena *arena = arena_little();
    uint64_t id = t ? t->retried : 0;
    uint8_t *event;
    if (!id)
        random_seed(&id, sizeof id);
    id |= !id;
    size_t n = event_observation(arena, o, EVENT_WHOLE, id, all->node, &event);
    outbox_add(all->outbox, &e->key, recordlog_frame(arena, span_of(event, n), id));
    e->log = (struct recordlog){0};
    arena_free(&arena);
}

/* ---- the interface ---- */

static void shared_cancel(struct store *st, struct store_op **opp)
{
    struct store_op *op = *opp;
    *opp = NULL;
    ((struct store_op_base *)op)->cancel(st, op);
}

static void shared_close(struct store *st)
{
    struct sharing *all = memory_of(st)->sharing;
    outbox_free(&all->outbox);
    pthread_mutex_destroy(&all->lock);
    free(all);
    memory_ops.close(st);
}

void store_redis_share(struct store *st, const struct redis_settings *settings,
                       const uint8_t site_key[32])
{
    struct memory *m = memory_of(st);
    struct sharing *all = calloc(1, sizeof *all);
    if (!all)
        abort();
    store_scripts_ready();
    all->ops = memory_ops;
    all->ops.name = "redis";
    all->ops.observe = shared_observe;
    all->ops.step = shared_step;
    all->ops.settle = shared_settle;
    all->ops.cancel = shared_cancel;
    all->ops.close = shared_close;
    all->memory = m;
    all->settings = settings;
    memcpy(all->site_key, site_key, sizeof all->site_key);
    random_seed(&all->node, sizeof all->node);
    all->outbox = outbox_new(m->budget / OUTBOX_SHARE);
    atomic_store(&all->allowed, true);
    pthread_mutex_init(&all->lock, NULL);
    m->sharing = all;
    m->on_observed = note_alone;
    st->ops = &all->ops;
}

struct store_thread *store_thread_open(struct store *st, struct event_base *base)
{
    struct sharing *all = st->ops->close == shared_close ? memory_of(st)->sharing : NULL;
    if (!all)
        return NULL;
    struct store_thread *t = calloc(1, sizeof *t);
    if (!t || keys_open(&t->keys, all->site_key) < 0)
        abort();
    t->all = all;
    t->redis = redis_open(base, all->settings);
    random_seed(&t->random, sizeof t->random);
    pthread_mutex_init(&t->lock, NULL);
    t->look = event_new(base, -1, EV_PERSIST, look, t);
    struct timeval tv = clock_timeval(LOOK_MS);
    if (!t->look || event_add(t->look, &tv) < 0)
        abort();
    pthread_mutex_lock(&all->lock);
    t->next = all->threads;
    all->threads = t;
    pthread_mutex_unlock(&all->lock);
    return t;
}

void store_thread_enter(struct store_thread *t)
{
    here = t;
}

struct redis *store_thread_redis(struct store_thread *t)
{
    return t->redis;
}

void store_thread_close(struct store_thread **tp)
{
    struct store_thread *t = *tp;
    *tp = NULL;
    if (!t)
        return;
    event_free(t->look);
    redis_close(&t->redis);
    pthread_mutex_lock(&t->all->lock);
    struct store_thread **at = &t->all->threads;
    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    pthread_mutex_unlock(&t->all->lock);
    if (here == t)
        here = NULL;
    pthread_mutex_destroy(&t->lock);
    keys_close(&t->keys);
    free(t);
}

void store_redis_allow(struct store *st, bool allowed)
{
    struct sharing *all = memory_of(st)->sharing;
    if (st->ops->close == shared_close)
        atomic_store(&all->allowed, allowed);
}

/* ---- figures ---- */

static void add_figures(struct redis_figures *sum, const struct redis_figures *f)
{
    sum->servers += f->servers;
    sum->up += f->up;
    sum->calls += f->calls;
    sum->replies += f->replies;
    sum->errors += f->errors;
    sum->connections += f->connections;
    sum->openings += f->openings;
    sum->redirections += f->redirections;
    sum->scripts += f->scripts;
    sum->broken += f->broken;
    sum->late += f->late;
    for (unsigned i = 0; i < REDIS_FAULTS; i++)
        sum->faults[i] += f->faults[i];
    for (unsigned i = 0; i < REDIS_TIMES; i++)
        sum->time[i] += f->time[i];
}

bool store_redis_figures(struct store *st, struct store_redis_figures *f)
{
    *f = (struct store_redis_figures){.away = false};
    if (!st || st->ops->close != shared_close)
        return false;
    struct sharing *all = memory_of(st)->sharing;
    struct outbox_figures waiting;
    outbox_figures(all->outbox, &waiting);
    f->away = atomic_load(&all->away) || !atomic_load(&all->allowed);
    f->asked = atomic_load(&all->count.asked);
    f->degraded = atomic_load(&all->count.degraded);
    f->waiting = waiting.events;
    f->waiting_bytes = waiting.bytes;
    f->lost = waiting.lost;
    f->handed_in = atomic_load(&all->count.handed_in);
    f->joined = atomic_load(&all->count.joined);
    f->compacted = atomic_load(&all->count.compacted);
    f->remade = atomic_load(&all->count.remade);
    f->full = atomic_load(&all->count.full);
    pthread_mutex_lock(&all->lock);
    for (struct store_thread *t = all->threads; t; t = t->next) {
        pthread_mutex_lock(&t->lock);
        add_figures(&f->redis, &t->figures);
        pthread_mutex_unlock(&t->lock);
    }
    pthread_mutex_unlock(&all->lock);
    return true;
}
