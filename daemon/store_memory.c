/*
 * store_memory.c - the past of one process: records by K, and tallies.
 *
 *   K -> shard (lock) -> buckets -> entry -> record
 *                    \-> three ageing lists: plain, duplicated, storm (oldest first)
 *   other names -> aliases -> K      which of them it is: store_resolve.c
 *
 * Invariant: the bytes of all records stay below the budget, whatever strangers invent; what goes
 * first is what was seen once, what goes last is a storm. No lock is held while taking another.
 */
#include <stdlib.h>
#include <string.h>

#include "store_own.h"

enum { BUCKETS_FIRST = 16, EXPIRE_AT_ONCE = 512 };

/* ---- counting ---- */

static void account(struct memory *m, struct shard *s, int64_t delta)
{
    s->bytes += (uint64_t)delta;
    atomic_fetch_add_explicit(&m->bytes, (uint64_t)delta, memory_order_relaxed);
}

static uint64_t key_word(const struct key *k)
{
    uint64_t w;
    memcpy(&w, k->byte, sizeof w); /* K is a keyed hash already */
    return w;
}

struct shard *shard_lock(struct memory *m, const struct key *k)
{
    struct shard *s = &m->shard[key_word(k) % STORE_SHARDS];
    pthread_mutex_lock(&s->lock);
    return s;
}

static struct entry **bucket_of(const struct shard *s, const struct key *k)
{
    return &s->bucket[key_word(k) / STORE_SHARDS & (s->nbuckets - 1)];
}

/* ---- lists ---- */

static void list_remove(struct shard *s, struct entry *e)
{
    struct ages *a = &s->age[e->age];
    if (e->older)
        e->older->newer = e->newer;
    else
        a->oldest = e->newer;
    if (e->newer)
        e->newer->older = e->older;
    else
        a->newest = e->older;
    e->older = e->newer = NULL;
}

static void list_append(struct shard *s, struct entry *e, enum age age)
{
    struct ages *a = &s->age[age];
    e->age = (uint8_t)age;
    e->older = a->newest;
    e->newer = NULL;
    if (a->newest)
        a->newest->newer = e;
    else
        a->oldest = e;
    a->newest = e;
}

enum age record_age(const struct record *r)
{
    if (r->storm || r->convicted)
        return AGE_STORM;
    return r->duplicates ? AGE_DUPLICATED : AGE_PLAIN;
}

/* ---- entries ---- */

struct entry *entry_find(const struct shard *s, const struct key *k)
{
    struct entry *e = s->nbuckets ? *bucket_of(s, k) : NULL;
    while (e && memcmp(&e->key, k, sizeof *k) != 0)
        e = e->next;
    return e;
}

static void entry_free(struct memory *m, struct shard *s, struct entry *e)
{
    struct entry **at = bucket_of(s, &e->key);
    while (*at != e)
        at = &(*at)->next;
    *at = e->next;
    list_remove(s, e);
    account(m, s, -(int64_t)e->bytes);
    s->n--;
    record_free(&e->record);
    free(e);
}

static void buckets_grow(struct memory *m, struct shard *s)
{
    size_t n = s->nbuckets ? 2 * s->nbuckets : BUCKETS_FIRST;
    struct entry **old = s->bucket;
    size_t nold = s->nbuckets;
    s->bucket = calloc(n, sizeof(struct entry *));
    if (!s->bucket)
        abort();
    s->nbuckets = n;
    for (size_t i = 0; i < nold; i++)
        for (struct entry *e = old[i], *next; e; e = next) {
            struct entry **to = bucket_of(s, &e->key);
            next = e->next;
            e->next = *to;
            *to = e;
        }
    free(old);
    account(m, s, (int64_t)((n - nold) * sizeof(struct entry *)));
}

struct entry *entry_add(struct memory *m, struct shard *s, const struct key *k,
                        struct record *record, int64_t now)
{
    struct entry *e = calloc(1, sizeof *e);
    if (!e)
        abort();
    if (s->n >= s->nbuckets)
        buckets_grow(m, s);
    e->key = *k;
    e->record = record ? record : record_new(now);
    e->next = *bucket_of(s, k);
    *bucket_of(s, k) = e;
    list_append(s, e, AGE_PLAIN);
    s->n++;
    return e;
}

void entry_recount(struct memory *m, struct shard *s, struct entry *e)
{
    uint32_t bytes = (uint32_t)(sizeof *e + 16 + record_bytes(e->record));
    account(m, s, (int64_t)bytes - (int64_t)e->bytes);
    e->bytes = bytes;
}

void entry_touch(struct memory *m, struct shard *s, struct entry *e)
{
    entry_recount(m, s, e);
    list_remove(s, e);
    list_append(s, e, record_age(e->record));
}

void entry_place(struct memory *m, struct shard *s, struct entry *e)
{
    entry_touch(m, s, e);
    struct ages *a = &s->age[e->age];
    struct entry *before = e->older;
    while (before && before->record->last > e->record->last)
        before = before->older;
    if (before == e->older)
        return;
    list_remove(s, e);
    e->older = before;
    e->newer = before ? before->newer : a->oldest;
    *(before ? &before->newer : &a->oldest) = e;
    e->newer->older = e; /* there is one: it was not the newest */
}

static bool entry_expired(const struct memory *m, const struct entry *e, int64_t now)
{
    return now - e->record->last > record_ttl(e->record, m->site);
}

struct entry *entry_live(struct memory *m, struct shard *s, const struct key *k, int64_t now)
{
    struct entry *e = entry_find(s, k);
    if (!e || !entry_expired(m, e, now))
        return e;
    entry_free(m, s, e);
    s->expired++;
    return NULL;
}

/* Evicts while the whole store is over its budget: plain records of this shard first; duplicated
 * ones and storms only if this shard itself is over its share. Never `keep`. */
static void shard_trim(struct memory *m, struct shard *s, const struct entry *keep)
{
    for (unsigned age = 0; age < AGES; age++)
        for (;;) {
            struct entry *e = s->age[age].oldest;
            if (e == keep && e)
                e = e->newer;
            if (!e || atomic_load_explicit(&m->bytes, memory_order_relaxed) <= m->budget ||
                (age != AGE_PLAIN && s->bytes <= m->budget / STORE_SHARDS))
                break;
            entry_free(m, s, e);
            s->evicted++;
        }
}

void entry_observed(struct memory *m, struct shard *s, struct entry *e)
{
    e->record->changed = true;
    entry_touch(m, s, e);
    shard_trim(m, s, e);
}

/* ---- the interface ---- */

static enum store_state memory_read(struct store *st, struct tallies *t, int64_t now,
                                    store_done_fn *done, void *arg, struct store_op **op)
{
    (void)done, (void)arg, (void)op;
    tally_table_read(memory_of(st)->tallies, t, now);
    return STORE_DONE;
}

static void memory_add(struct store *st, const struct tallies *t, int64_t now)
{
    struct memory *m = memory_of(st);
    tally_table_add(m->tallies, t, now);
    if (m->share.tallies)
        m->share.tallies(m->share.arg, t, now);
}

static enum store_state memory_step(struct store *st, const struct subject *s,
                                    struct signals *signals, store_done_fn *done, void *arg,
                                    struct store_op **op)
{
    (void)done, (void)arg, (void)op;
    states_step(memory_of(st)->states, s, signals);
    return STORE_DONE;
}

/* The long memory takes who got his first copy by this. */
static void entry_settle(struct memory *m, struct shard *s, struct entry *e, const uint64_t *rcpt,
                         const enum fate *fate, size_t n)
{
    bool *had = malloc(n * sizeof *had);
    if (!had)
        abort();
    for (size_t i = 0; i < n; i++)
        had[i] = record_passed(e->record, rcpt[i]);
    record_settle(e->record, rcpt, fate, n);
    e->record->changed = true;
    for (size_t i = 0; i < n; i++)
        if (!had[i] && record_passed(e->record, rcpt[i]))
            memory_remember(m, s, &e->key, rcpt[i], e->record->last);
    free(had);
}

static void memory_settle(struct store *st, const struct key *k, const uint64_t *rcpt,
                          const enum fate *fate, size_t n)
{
    struct memory *m = memory_of(st);
    struct shard *s = shard_lock(m, k);
    struct entry *e = entry_find(s, k);
    if (e && n)
        entry_settle(m, s, e, rcpt, fate, n);
    pthread_mutex_unlock(&s->lock);
}

static bool memory_report(struct store *st, const struct key *k, struct arena *a,
                          struct report *out)
{
    struct memory *m = memory_of(st);
    struct shard *s = shard_lock(m, k);
    struct entry *e = entry_find(s, k);
    if (e)
        replication_report(e->record, m->site, a, out);
    pthread_mutex_unlock(&s->lock);
    return e != NULL;
}

static bool memory_passed(struct store *st, const struct key *k, uint64_t rcpt)
{
    struct shard *s = shard_lock(memory_of(st), k);
    struct entry *e = entry_find(s, k);
    bool passed = e && record_passed(e->record, rcpt);
    pthread_mutex_unlock(&s->lock);
    return passed;
}

static void shard_expire(struct memory *m, struct shard *s, int64_t now)
{
    unsigned n = 0;
    for (unsigned age = 0; age < AGES; age++)
        while (s->age[age].oldest && n < EXPIRE_AT_ONCE &&
               entry_expired(m, s->age[age].oldest, now)) {
            entry_free(m, s, s->age[age].oldest);
            s->expired++;
            n++;
        }
}

static void memory_tick(struct store *st, int64_t now)
{
    struct memory *m = memory_of(st);
    for (unsigned i = 0; i < STORE_SHARDS; i++) {
        pthread_mutex_lock(&m->shard[i].lock);
        shard_expire(m, &m->shard[i], now);
        shard_trim(m, &m->shard[i], NULL);
        if (m->shard[i].ring)
            bloomring_tick(m->shard[i].ring, now);
        pthread_mutex_unlock(&m->shard[i].lock);
    }
    memory_retire(m, now);
    tally_table_tick(m->tallies, now);
    states_tick(m->states, now);
}

static void memory_cancel(struct store *st, struct store_op **op)
{
    (void)st;
    *op = NULL; /* nothing ever waits here */
}

static void memory_close(struct store *st)
{
    struct memory *m = memory_of(st);
    for (unsigned i = 0; i < STORE_SHARDS; i++) {
        struct shard *s = &m->shard[i];
        for (unsigned age = 0; age < AGES; age++)
            while (s->age[age].oldest)
                entry_free(m, s, s->age[age].oldest);
        free(s->bucket);
        bloomring_free(&s->ring);
        pthread_mutex_destroy(&s->lock);
    }
    tally_table_free(&m->tallies);
    states_free(&m->states);
    aliases_free(&m->aliases);
    free(m);
}

const struct store_ops memory_ops = {
    .name = "memory",
    .tally_read = memory_read,
    .tally_add = memory_add,
    .observe = memory_observe,
    .step = memory_step,
    .settle = memory_settle,
    .report = memory_report,
    .passed = memory_passed,
    .tick = memory_tick,
    .cancel = memory_cancel,
    .close = memory_close,
};

struct store *store_memory_open(const struct site *site, uint64_t bytes)
{
    struct memory *m = aligned_alloc(64, (sizeof *m + 63) / 64 * 64);
    if (!m)
        abort();
    memset(m, 0, sizeof *m);
    m->store.ops = &memory_ops;
    m->site = site;
    m->tallies = tally_table_new(bytes / 8);
    m->states = states_new(bytes / 8);
    m->aliases = aliases_new(bytes / 16);
    m->ring_budget = bytes / 16 * 3 / STORE_SHARDS;
    m->budget = bytes / 2;
    for (unsigned i = 0; i < STORE_SHARDS; i++)
        pthread_mutex_init(&m->shard[i].lock, NULL);
    return &m->store;
}

void store_memory_figures(struct store *st, struct store_figures *f)
{
    struct memory *m = memory_of(st);
    *f = (struct store_figures){.tallies = tally_table_used(m->tallies)};
    for (unsigned i = 0; i < STORE_SHARDS; i++) {
        struct shard *s = &m->shard[i];
        pthread_mutex_lock(&s->lock);
        f->records += s->n;
        f->bytes += s->bytes;
        f->evicted += s->evicted;
        f->expired += s->expired;
        pthread_mutex_unlock(&s->lock);
    }
}
