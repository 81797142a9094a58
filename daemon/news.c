/* news.c - see news.h. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "id.h"
#include "news.h"
#include "tallies.h"

enum {
    LANES = 16,
    LANE_MAX = 1 << 16, /* tallies, and digests, that wait in one */
    DIGESTS_EACH = 512, /* of one batch */
    APPLY_EACH = 64,
    TOLD = 1 << 13,      /* facts we remember having told */
    TOLD_AGAIN = 60000,  /* ms after which the same is told again */
    KEEP_TALLIES = 4000, /* batches: some 20 minutes of three nodes */
    KEEP_DIGESTS = 20000 /* two hours of them, and at most 80 MB */
};
static const double AMOUNT_MAX = 1e6;
static const int64_t LENGTH_MAX = INT64_C(400) * 86400 * 1000;

/* Where some of the threads put what they learn. */
struct lane {
    pthread_mutex_t lock;
    struct tally *tally;
    uint64_t *digest;
    size_t ntallies, captallies, ndigests, capdigests;
} __attribute__((aligned(64)));

struct told {
    uint64_t what;
    int64_t at; /* ms */
};

struct news {
    struct lane lane[LANES];
    struct store *memory;
    struct recall *recall;
    _Atomic uint64_t dropped;
    /* of the fleet's thread */
    struct tally *tally; /* taken from the lanes, sorted */
    size_t at, n, cap;
    uint64_t *digest;
    size_t digest_at, ndigests, capdigests;
    struct told told[TOLD];
};

/* ---- listening ---- */

static struct lane *my_lane(struct news *news)
{
    static _Atomic unsigned threads;
    static _Thread_local unsigned mine; /* 0: not chosen yet */
    if (!mine)
        mine = atomic_fetch_add(&threads, 1) % LANES + 1;
    return &news->lane[mine - 1];
}

static void *grown(void *list, size_t *cap, size_t each)
{
    *cap = *cap ? 2 * *cap : 64;
    list = realloc(list, *cap * each);
    if (!list)
        abort();
    return list;
}

static void hear_tallies(void *arg, const struct tallies *t, int64_t now)
{
    struct news *news = arg;
    struct lane *l = my_lane(news);
    (void)now;
    pthread_mutex_lock(&l->lock);
    for (size_t i = 0; i < t->n; i++) {
        if (!t->t[i].shared)
            continue;
        if (l->ntallies == LANE_MAX) {
            atomic_fetch_add_explicit(&news->dropped, 1, memory_order_relaxed);
            continue;
        }
        if (l->ntallies == l->captallies)
            l->tally = grown(l->tally, &l->captallies, sizeof *l->tally);
        l->tally[l->ntallies++] = t->t[i];
    }
    pthread_mutex_unlock(&l->lock);
}

static void hear_digest(void *arg, uint64_t digest)
{
    struct news *news = arg;
    struct lane *l = my_lane(news);
    pthread_mutex_lock(&l->lock);
    if (l->ndigests == LANE_MAX) {
        atomic_fetch_add_explicit(&news->dropped, 1, memory_order_relaxed);
    } else {
        if (l->ndigests == l->capdigests)
            l->digest = grown(l->digest, &l->capdigests, sizeof *l->digest);
        l->digest[l->ndigests++] = digest;
    }
    pthread_mutex_unlock(&l->lock);
}

struct news *news_new(struct store *memory, struct recall *recall)
{
    struct news *news = aligned_alloc(64, (sizeof *news + 63) / 64 * 64);
    if (!news)
        abort();
    memset(news, 0, sizeof *news);
    for (size_t i = 0; i < LANES; i++)
        pthread_mutex_init(&news->lane[i].lock, NULL);
    news->memory = memory;
    news->recall = recall;
    const struct store_share share = {.arg = news, .tallies = hear_tallies, .digest = hear_digest};
    store_memory_on_share(memory, &share);
    return news;
}

void news_free(struct news **np)
{
    struct news *news = *np;
    *np = NULL;
    if (!news)
        return;
    store_memory_on_share(news->memory, NULL);
    for (size_t i = 0; i < LANES; i++) {
        free(news->lane[i].tally);
        free(news->lane[i].digest);
        pthread_mutex_destroy(&news->lane[i].lock);
    }
    free(news->tally);
    free(news->digest);
    free(news);
}

uint64_t news_dropped(const struct news *news)
{
    return atomic_load_explicit(&news->dropped, memory_order_relaxed);
}

/* ---- collecting tallies ---- */

static bool summed(enum tally_kind kind)
{
    return kind == TALLY_COUNT || kind == TALLY_RATE;
}

static int by_fact(const void *a, const void *b)
{
    const struct tally *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    if (x->length != y->length)
        return x->length < y->length ? -1 : 1;
    return x->kind != TALLY_SET ? 0 : (x->member > y->member) - (x->member < y->member);
}

static void take_tallies(struct news *news)
{
    news->at = news->n = 0;
    for (size_t i = 0; i < LANES; i++) {
        struct lane *l = &news->lane[i];
        pthread_mutex_lock(&l->lock);
        while (news->cap < news->n + l->ntallies)
            news->tally = grown(news->tally, &news->cap, sizeof *news->tally);
        if (l->ntallies)
            memcpy(news->tally + news->n, l->tally, l->ntallies * sizeof *l->tally);
        news->n += l->ntallies;
        l->ntallies = 0;
        pthread_mutex_unlock(&l->lock);
    }
}

/* What is only ever true, and was said within the last minute, need not be said again. */
static bool just_told(struct news *news, const struct tally *t, int64_t now)
{
    if (summed(t->kind))
        return false;
    uint64_t what = t->key ^ (t->member + 1) * UINT64_C(0x9e3779b97f4a7c15);
    struct told *told = &news->told[what % TOLD];
    if (told->what == what && now - told->at < TOLD_AGAIN && now >= told->at)
        return true;
    *told = (struct told){.what = what, .at = now};
    return false;
}

/* One of each, with the sum of its amounts. */
static void sum_up(struct news *news, int64_t now)
{
    size_t kept = 0;
    if (news->n)
        qsort(news->tally, news->n, sizeof *news->tally, by_fact);
    for (size_t i = 0; i < news->n; i++) {
        struct tally *t = &news->tally[i], *last = kept ? &news->tally[kept - 1] : NULL;
        if (last && by_fact(last, t) == 0)
            last->amount += t->amount;
        else if (!just_told(news, t, now))
            news->tally[kept++] = *t;
    }
    news->n = kept;
}

static uint64_t whole(double amount)
{
    return amount > 0 ? (uint64_t)((amount < AMOUNT_MAX ? amount : AMOUNT_MAX) + 0.5) : 0;
}

size_t news_pack(const struct tally *t, size_t n, uint8_t *out, size_t cap, size_t *used)
{
    uint8_t *p = out;
    size_t i = 0;
    for (; i < n && (size_t)(p - out) + 17 <= cap; i++) {
        *p++ = (uint8_t)t[i].kind;
        p = bytes_put(p, t[i].key, 8);
        if (summed(t[i].kind))
            p = bytes_put(p, whole(t[i].amount), 4);
        if (t[i].kind == TALLY_SET)
            p = bytes_put(p, t[i].member, 4);
        if (t[i].kind != TALLY_COUNT)
            p = bytes_put(p, (uint64_t)(t[i].length / 1000), 4);
    }
    *used = (size_t)(p - out);
    return i;
}

static size_t collect_tallies(void *arg, bool last, uint8_t **bytes)
{
    struct news *news = arg;
    (void)last;
    if (news->at == news->n) {
        take_tallies(news);
        sum_up(news, clock_now());
    }
    if (news->at == news->n)
        return 0;
    size_t used;
    uint8_t *out = malloc(FLEET_BATCH);
    if (!out)
        abort();
    out[0] = NEWS_VERSION;
    news->at +=
        news_pack(news->tally + news->at, news->n - news->at, out + 1, FLEET_BATCH - 1, &used);
    *bytes = out;
    return used + 1;
}

/* ---- hearing of others' ---- */

bool news_unpack(struct span *s, struct tally *t)
{
    if (s->n < 1 || s->p[0] > TALLY_MARK)
        return false;
    enum tally_kind kind = (enum tally_kind)s->p[0];
    size_t need = kind == TALLY_COUNT || kind == TALLY_MARK ? 13 : 17;
    if (s->n < need)
        return false;
    *t = (struct tally){.kind = kind, .key = bytes_get(s->p + 1, 8)};
    const uint8_t *p = s->p + 9;
    if (summed(kind) || kind == TALLY_SET) {
        uint64_t v = bytes_get(p, 4);
        t->amount = summed(kind) ? (double)v : 0;
        t->member = summed(kind) ? 0 : v;
        p += 4;
    }
    if (kind != TALLY_COUNT)
        t->length = (int64_t)bytes_get(p, 4) * 1000;
    *s = span_from(*s, need);
    return t->amount <= AMOUNT_MAX && t->length <= LENGTH_MAX &&
           (kind == TALLY_COUNT || t->length > 0);
}

/* What was told before we listened may be known already: what is true twice is true, what is
 * counted twice is not. */
static void apply_tallies(void *arg, const struct fleet_batch *b)
{
    struct news *news = arg;
    struct tally some[APPLY_EACH];
    struct tallies adds = {.t = some, .cap = APPLY_EACH};
    struct tally_table *table = store_memory_tallies(news->memory);
    struct span rest = span_from(b->bytes, 1);
    if (!b->bytes.n || b->bytes.p[0] != NEWS_VERSION)
        return;
    while (news_unpack(&rest, &some[adds.n])) {
        if (b->past && summed(some[adds.n].kind))
            continue;
        if (++adds.n < APPLY_EACH)
            continue;
        tally_table_add(table, &adds, b->at);
        adds.n = 0;
    }
    tally_table_add(table, &adds, b->at);
}

const struct fleet_topic news_tallies = {
    .name = "tally", .keep = KEEP_TALLIES, .collect = collect_tallies, .apply = apply_tallies};

/* ---- digests ---- */

static void take_digests(struct news *news)
{
    news->digest_at = news->ndigests = 0;
    for (size_t i = 0; i < LANES; i++) {
        struct lane *l = &news->lane[i];
        pthread_mutex_lock(&l->lock);
        while (news->capdigests < news->ndigests + l->ndigests)
            news->digest = grown(news->digest, &news->capdigests, sizeof *news->digest);
        if (l->ndigests)
            memcpy(news->digest + news->ndigests, l->digest, l->ndigests * sizeof *l->digest);
        news->ndigests += l->ndigests;
        l->ndigests = 0;
        pthread_mutex_unlock(&l->lock);
    }
}

static size_t collect_digests(void *arg, bool last, uint8_t **bytes)
{
    struct news *news = arg;
    (void)last;
    if (news->digest_at == news->ndigests)
        take_digests(news);
    size_t n = news->ndigests - news->digest_at;
    if (!n)
        return 0;
    n = n < DIGESTS_EACH ? n : DIGESTS_EACH;
    uint8_t *p = malloc(1 + 8 * n);
    if (!p)
        abort();
    *bytes = p;
    *p++ = NEWS_VERSION;
    for (size_t i = 0; i < n; i++)
        p = bytes_put(p, news->digest[news->digest_at++], 8);
    return (size_t)(p - *bytes);
}

static void apply_digests(void *arg, const struct fleet_batch *b)
{
    struct news *news = arg;
    uint64_t digest[DIGESTS_EACH];
    if (b->bytes.n < 1 || b->bytes.p[0] != NEWS_VERSION)
        return;
    size_t n = (b->bytes.n - 1) / 8;
    n = n < DIGESTS_EACH ? n : DIGESTS_EACH;
    for (size_t i = 0; i < n; i++)
        digest[i] = bytes_get(b->bytes.p + 1 + 8 * i, 8);
    store_memory_remember(news->memory, digest, n, b->at);
    if (news->recall && !b->past)
        recall_heard(news->recall, digest, n);
}

const struct fleet_topic news_digests = {
    .name = "digest", .keep = KEEP_DIGESTS, .collect = collect_digests, .apply = apply_digests};
