/*
 * states.c - a sharded hash table of blocks, each in a list by last use.
 *
 * Invariant: all blocks together stay below the budget, whatever keys strangers invent.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "states.h"

enum { SHARDS = 64, BUCKETS_FIRST = 16, TICKS = 60 };

struct block {
    struct block *next; /* in its bucket */
    struct block *older, *newer;
    uint64_t key;
    int64_t used, life; /* ms */
    uint32_t detector;  /* index in detectors[] */
    _Alignas(16) uint8_t bytes[];
};

struct shard {
    pthread_mutex_t lock;
    struct block **bucket;
    size_t nbuckets, n; /* nbuckets: a power of two */
    struct block *oldest, *newest;
    size_t swept; /* bucket looked at last */
} __attribute__((aligned(64)));

struct states {
    uint64_t budget;
    _Atomic uint64_t bytes, used;
    struct shard shard[SHARDS];
};

struct states *states_new(uint64_t bytes)
{
    struct states *s = aligned_alloc(64, (sizeof *s + 63) / 64 * 64);
    if (!s)
        abort();
    memset(s, 0, sizeof *s);
    s->budget = bytes;
    for (unsigned i = 0; i < SHARDS; i++)
        pthread_mutex_init(&s->shard[i].lock, NULL);
    return s;
}

static size_t block_bytes(uint32_t detector)
{
    return sizeof(struct block) + detectors[detector]->state_bytes + 16;
}

static struct block **bucket_of(const struct shard *s, uint64_t key)
{
    return &s->bucket[key / SHARDS & (s->nbuckets - 1)];
}

static void list_remove(struct shard *s, struct block *b)
{
    *(b->older ? &b->older->newer : &s->oldest) = b->newer;
    *(b->newer ? &b->newer->older : &s->newest) = b->older;
    b->older = b->newer = NULL;
}

static void list_append(struct shard *s, struct block *b)
{
    b->older = s->newest;
    *(s->newest ? &s->newest->newer : &s->oldest) = b;
    s->newest = b;
}

static void block_free(struct states *st, struct shard *s, struct block *b)
{
    struct block **at = bucket_of(s, b->key);
    while (*at != b)
        at = &(*at)->next;
    *at = b->next;
    list_remove(s, b);
    s->n--;
    atomic_fetch_sub_explicit(&st->bytes, block_bytes(b->detector), memory_order_relaxed);
    atomic_fetch_sub_explicit(&st->used, 1, memory_order_relaxed);
    free(b);
}

void states_free(struct states **sp)
{
    struct states *st = *sp;
    *sp = NULL;
    if (!st)
        return;
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *s = &st->shard[i];
        while (s->oldest)
            block_free(st, s, s->oldest);
        free(s->bucket);
        pthread_mutex_destroy(&s->lock);
    }
    free(st);
}

static void buckets_grow(struct shard *s)
{
    size_t nold = s->nbuckets;
    struct block **old = s->bucket;
    s->nbuckets = nold ? 2 * nold : BUCKETS_FIRST;
    s->bucket = calloc(s->nbuckets, sizeof(struct block *));
    if (!s->bucket)
        abort();
    for (size_t i = 0; i < nold; i++)
        for (struct block *b = old[i], *next; b; b = next) {
            struct block **to = bucket_of(s, b->key);
            next = b->next;
            b->next = *to;
            *to = b;
        }
    free(old);
}

static struct block *block_find(const struct shard *s, uint32_t detector, uint64_t key)
{
    struct block *b = s->nbuckets ? *bucket_of(s, key) : NULL;
    while (b && (b->key != key || b->detector != detector))
        b = b->next;
    return b;
}

static struct block *block_new(struct states *st, struct shard *s, uint32_t detector, uint64_t key)
{
    if (s->n >= s->nbuckets)
        buckets_grow(s);
    struct block *b = calloc(1, block_bytes(detector));
    if (!b)
        abort();
    b->key = key;
    b->detector = detector;
    b->next = *bucket_of(s, key);
    *bucket_of(s, key) = b;
    list_append(s, b);
    s->n++;
    atomic_fetch_add_explicit(&st->bytes, block_bytes(detector), memory_order_relaxed);
    atomic_fetch_add_explicit(&st->used, 1, memory_order_relaxed);
    return b;
}

static void trim(struct states *st, struct shard *s, const struct block *keep)
{
    while (s->oldest && s->oldest != keep &&
           atomic_load_explicit(&st->bytes, memory_order_relaxed) > st->budget)
        block_free(st, s, s->oldest);
}

/* Of one shard, locked; key 0 is as good as any. */
static struct shard *shard_lock(struct states *st, uint64_t key)
{
    struct shard *s = &st->shard[key % SHARDS];
    pthread_mutex_lock(&s->lock);
    return s;
}

/* The living one; NULL: none. */
static struct block *block_live(struct states *st, struct shard *s, uint32_t detector, uint64_t key,
                                int64_t now)
{
    struct block *b = block_find(s, detector, key);
    if (!b || now - b->used <= b->life)
        return b;
    block_free(st, s, b);
    return NULL;
}

static void block_used(struct states *st, struct shard *s, struct block *b, const struct about *a,
                       int64_t now)
{
    b->used = now > b->used ? now : b->used;
    b->life = a->life;
    list_remove(s, b);
    list_append(s, b);
    trim(st, s, b);
}

void states_step_one(struct states *st, uint32_t detector, const struct about *a,
                     const struct subject *subject, struct signals *signals)
{
    struct shard *s = shard_lock(st, a->key);
    struct block *b = block_live(st, s, detector, a->key, subject->now);
    if (!b)
        b = block_new(st, s, detector, a->key);
    detectors[detector]->step(b->bytes, subject, a, signals);
    block_used(st, s, b, a, subject->now);
    pthread_mutex_unlock(&s->lock);
}

bool states_get(struct states *st, uint32_t detector, const struct about *a, int64_t now,
                void *bytes, int64_t *used)
{
    struct shard *s = shard_lock(st, a->key);
    const struct block *b = block_live(st, s, detector, a->key, now);
    if (b)
        memcpy(bytes, b->bytes, detectors[detector]->state_bytes);
    else
        memset(bytes, 0, detectors[detector]->state_bytes);
    *used = b ? b->used : 0;
    pthread_mutex_unlock(&s->lock);
    return b != NULL;
}

void states_set(struct states *st, uint32_t detector, const struct about *a, const void *bytes,
                int64_t used)
{
    struct shard *s = shard_lock(st, a->key);
    struct block *b = block_find(s, detector, a->key);
    if (!b)
        b = block_new(st, s, detector, a->key);
    memcpy(b->bytes, bytes, detectors[detector]->state_bytes);
    block_used(st, s, b, a, used);
    pthread_mutex_unlock(&s->lock);
}

void states_step(struct states *st, const struct subject *subject, struct signals *signals)
{
    struct about about[ABOUT_MAX];
    for (uint32_t i = 0; detectors[i]; i++) {
        size_t n = detectors[i]->about ? detectors[i]->about(subject, signals, about) : 0;
        for (size_t k = 0; k < n; k++)
            states_step_one(st, i, &about[k], subject, signals);
    }
}

/* Lives differ, so the list says nothing about who is over: every bucket is looked at in turn, a
 * part of them each time, and all of them in a minute. */
void states_tick(struct states *st, int64_t now)
{
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *s = &st->shard[i];
        pthread_mutex_lock(&s->lock);
        for (size_t n = s->nbuckets / TICKS + 1; n && s->nbuckets; n--) {
            s->swept = (s->swept + 1) & (s->nbuckets - 1);
            for (struct block *b = s->bucket[s->swept], *next; b; b = next) {
                next = b->next;
                if (now - b->used > b->life)
                    block_free(st, s, b);
            }
        }
        pthread_mutex_unlock(&s->lock);
    }
}

uint64_t states_used(const struct states *st, uint64_t *bytes)
{
    if (bytes)
        *bytes = atomic_load_explicit(&st->bytes, memory_order_relaxed);
    return atomic_load_explicit(&st->used, memory_order_relaxed);
}

void states_clear(struct states *st)
{
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *s = &st->shard[i];
        pthread_mutex_lock(&s->lock);
        while (s->oldest)
            block_free(st, s, s->oldest);
        pthread_mutex_unlock(&s->lock);
    }
}

/* ---- snapshots ---- */

void states_each(struct states *st, state_fn *fn, void *arg)
{
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *s = &st->shard[i];
        pthread_mutex_lock(&s->lock);
        for (const struct block *b = s->oldest; b; b = b->newer) {
            const struct detector *d = detectors[b->detector];
            struct state_row row = {.detector = d->name,
                                    .version = d->state_version,
                                    .key = b->key,
                                    .used = b->used,
                                    .life = b->life,
                                    .bytes = span_of(b->bytes, d->state_bytes)};
            fn(arg, &row);
        }
        pthread_mutex_unlock(&s->lock);
    }
}

static bool usable(const struct detector *d, const struct state_row *row)
{
    _Alignas(16) uint8_t state[STATE_BYTES_MAX];
    if (!row->bytes.n || d->state_bytes != row->bytes.n || d->state_version != row->version)
        return false;
    memcpy(state, row->bytes.p, row->bytes.n);
    return !d->state_sound || d->state_sound(state);
}

bool states_put(struct states *st, const struct state_row *row)
{
    uint32_t i = 0;
    while (detectors[i] && strcmp(detectors[i]->name, row->detector) != 0)
        i++;
    if (!detectors[i] || !usable(detectors[i], row))
        return false;
    struct shard *s = shard_lock(st, row->key);
    bool fresh = !block_find(s, i, row->key);
    if (fresh) {
        struct block *b = block_new(st, s, i, row->key);
        memcpy(b->bytes, row->bytes.p, row->bytes.n);
        b->used = row->used;
        b->life = row->life;
        trim(st, s, b);
    }
    pthread_mutex_unlock(&s->lock);
    return fresh;
}
