/* tallies.c - a set-associative table, so that bounded memory needs no lists and no growing. */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "tallies.h"

#include "window.h"

enum { SHARDS = 64, WAYS = 8, MEMBERS = 8, SWEEP_ROWS = 16 };
static const int64_t COUNT_STEP = 3600LL * 1000;           /* ageing is applied at most hourly */
static const int64_t COUNT_HALF = 15LL * 86400 * 1000;     /* to half in 15 days */
static const int64_t COUNT_LIFE = 2 * 45LL * 86400 * 1000; /* six halvings: nothing is left */

/* What one key means. */
struct value {
    int64_t used;   /* ms: last added to */
    int64_t length; /* ms: life without additions */
    uint8_t kind;   /* enum tally_kind */
    uint8_t n;      /* members */
    union {
        struct window window; /* TALLY_RATE */
        struct {
            double total;
            int64_t since;        /* ms: aged until */
        } count;                  /* TALLY_COUNT */
        uint32_t member[MEMBERS]; /* TALLY_SET: 32 bits of each */
    } is;
};

struct row {
    uint64_t key[WAYS]; /* 0: free */
    struct value value[WAYS];
};

struct tally_table {
    size_t nrows; /* a power of two, >= SHARDS */
    struct row *row;
    pthread_mutex_t lock[SHARDS]; /* of the rows with this number modulo SHARDS */
    _Atomic uint64_t used;
    size_t swept; /* tick only */
};

struct tally_table *tally_table_new(uint64_t bytes)
{
    struct tally_table *t = calloc(1, sizeof *t);
    if (!t)
        abort();
    t->nrows = SHARDS;
    while (t->nrows * 2 * sizeof(struct row) <= bytes)
        t->nrows *= 2;
    t->row = calloc(t->nrows, sizeof *t->row);
    if (!t->row)
        abort();
    for (unsigned i = 0; i < SHARDS; i++)
        pthread_mutex_init(&t->lock[i], NULL);
    return t;
}

void tally_table_free(struct tally_table **tp)
{
    struct tally_table *t = *tp;
    *tp = NULL;
    if (!t)
        return;
    for (unsigned i = 0; i < SHARDS; i++)
        pthread_mutex_destroy(&t->lock[i]);
    free(t->row);
    free(t);
}

static size_t row_lock(struct tally_table *t, uint64_t key)
{
    size_t at = key & (t->nrows - 1);
    pthread_mutex_lock(&t->lock[at % SHARDS]);
    return at;
}

static void row_unlock(struct tally_table *t, size_t at)
{
    pthread_mutex_unlock(&t->lock[at % SHARDS]);
}

static uint64_t slot_key(uint64_t key)
{
    return key ? key : 1;
}

static struct value *row_find(struct row *row, uint64_t key)
{
    for (unsigned i = 0; i < WAYS; i++)
        if (row->key[i] == key)
            return &row->value[i];
    return NULL;
}

static bool expired(const struct value *v, int64_t now)
{
    return now - v->used > v->length;
}

/* What a key seen once is worth to nobody, and what an adversary can make without end. */
static bool light(const struct value *v)
{
    return v->kind == TALLY_COUNT && v->is.count.total < 2;
}

/* Should a be given up rather than b? */
static bool lesser(const struct value *a, const struct value *b, int64_t now)
{
    if (expired(a, now) != expired(b, now))
        return expired(a, now);
    if (light(a) != light(b))
        return light(a);
    return a->used < b->used;
}

static struct value *row_take(struct tally_table *t, struct row *row, uint64_t key, int64_t now)
{
    unsigned victim = 0;
    for (unsigned i = 0; i < WAYS; i++) {
        if (!row->key[i]) {
            victim = i;
            atomic_fetch_add_explicit(&t->used, 1, memory_order_relaxed);
            break;
        }
        if (i && lesser(&row->value[i], &row->value[victim], now))
            victim = i;
    }
    row->key[victim] = key;
    memset(&row->value[victim], 0, sizeof row->value[victim]);
    return &row->value[victim];
}

static double count_read(const struct value *v, int64_t now)
{
    int64_t age = now - v->is.count.since;
    if (age < COUNT_STEP)
        return v->is.count.total;
    return v->is.count.total * exp(-log(2) * (double)age / (double)COUNT_HALF);
}

static double value_read(const struct value *v, const struct tally *q, int64_t now)
{
    switch (q->kind) {
    case TALLY_COUNT:
        return count_read(v, now);
    case TALLY_RATE:
        return window_read(&v->is.window, now, q->length);
    case TALLY_SET:
        return v->n;
    case TALLY_MARK:
        return (double)v->used;
    }
    return 0;
}

static void set_add(struct value *v, uint64_t member)
{
    uint32_t m = (uint32_t)member;
    for (unsigned i = 0; i < v->n; i++)
        if (v->is.member[i] == m)
            return;
    if (v->n < MEMBERS)
        v->is.member[v->n++] = m;
}

static void value_add(struct value *v, const struct tally *a, int64_t now)
{
    v->kind = (uint8_t)a->kind;
    v->used = now > v->used ? now : v->used;
    v->length = a->kind == TALLY_COUNT  ? COUNT_LIFE
                : a->kind == TALLY_RATE ? 2 * a->length
                                        : a->length;
    switch (a->kind) {
    case TALLY_COUNT:
        if (now - v->is.count.since >= COUNT_STEP) {
            v->is.count.total = count_read(v, now);
            v->is.count.since = now;
        }
        v->is.count.total += a->amount;
        break;
    case TALLY_RATE:
        window_add(&v->is.window, now, a->length, a->amount);
        break;
    case TALLY_SET:
        set_add(v, a->member);
        break;
    case TALLY_MARK:
        break;
    }
}

void tally_table_read(struct tally_table *t, struct tallies *q, int64_t now)
{
    for (size_t i = 0; i < q->n; i++) {
        struct tally *a = &q->t[i];
        size_t at = row_lock(t, slot_key(a->key));
        const struct value *v = row_find(&t->row[at], slot_key(a->key));
        a->answer = v && v->kind == a->kind && !expired(v, now) ? value_read(v, a, now) : 0;
        row_unlock(t, at);
    }
}

void tally_table_add(struct tally_table *t, const struct tallies *adds, int64_t now)
{
    for (size_t i = 0; i < adds->n; i++) {
        const struct tally *a = &adds->t[i];
        uint64_t key = slot_key(a->key);
        size_t at = row_lock(t, key);
        struct value *v = row_find(&t->row[at], key);
        if (v && (v->kind != a->kind || expired(v, now)))
            memset(v, 0, sizeof *v);
        if (!v)
            v = row_take(t, &t->row[at], key, now);
        value_add(v, a, now);
        row_unlock(t, at);
    }
}

void tally_table_tick(struct tally_table *t, int64_t now)
{
    for (unsigned n = 0; n < SWEEP_ROWS * SHARDS; n++) {
        size_t at = row_lock(t, t->swept);
        struct row *row = &t->row[at];
        for (unsigned i = 0; i < WAYS; i++)
            if (row->key[i] && expired(&row->value[i], now)) {
                row->key[i] = 0;
                atomic_fetch_sub_explicit(&t->used, 1, memory_order_relaxed);
            }
        row_unlock(t, at);
        t->swept = (t->swept + 1) & (t->nrows - 1);
    }
}

uint64_t tally_table_used(const struct tally_table *t)
{
    return atomic_load_explicit(&t->used, memory_order_relaxed);
}

void tally_table_clear(struct tally_table *t)
{
    for (size_t i = 0; i < t->nrows; i++) {
        size_t at = row_lock(t, i);
        for (unsigned w = 0; w < WAYS; w++)
            if (t->row[at].key[w]) {
                t->row[at].key[w] = 0;
                atomic_fetch_sub_explicit(&t->used, 1, memory_order_relaxed);
            }
        row_unlock(t, at);
    }
}

/* ---- snapshots ---- */

_Static_assert(sizeof(struct value) <= TALLY_VALUE, "a value fits into a row of a snapshot");

size_t tally_table_rows(struct tally_table *t, size_t *at, struct tally_row *out, size_t cap)
{
    size_t n = 0;
    for (; *at < t->nrows && n + WAYS <= cap; ++*at) {
        size_t row = row_lock(t, *at);
        for (unsigned i = 0; i < WAYS; i++)
            if (t->row[row].key[i]) {
                out[n] = (struct tally_row){.key = t->row[row].key[i]};
                memcpy(out[n++].value, &t->row[row].value[i], sizeof(struct value));
            }
        row_unlock(t, row);
    }
    return n;
}

/* Nothing that would not have been written. */
static bool sound(const struct value *v)
{
    switch ((enum tally_kind)v->kind) {
    case TALLY_COUNT:
        return v->is.count.total >= 0 && v->is.count.total < 1e15;
    case TALLY_RATE:
        return v->is.window.now >= 0 && v->is.window.before >= 0 && v->is.window.now < 1e15 &&
               v->is.window.before < 1e15;
    case TALLY_SET:
        return v->n <= MEMBERS;
    case TALLY_MARK:
        return true;
    }
    return false;
}

bool tally_table_put(struct tally_table *t, const struct tally_row *r, int64_t now)
{
    struct value v;
    memcpy(&v, r->value, sizeof v);
    if (!r->key || v.length < 0 || !sound(&v) || expired(&v, now))
        return false;
    size_t at = row_lock(t, r->key);
    bool fresh = !row_find(&t->row[at], r->key);
    if (fresh)
        *row_take(t, &t->row[at], r->key, now) = v;
    row_unlock(t, at);
    return fresh;
}
