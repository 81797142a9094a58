/*
 * figures.c - see figures.h.
 *
 * A gauge has its counters several times, so that two mail threads do not fight for one line of
 * memory; a thread always adds to the same ones. Readers add them up.
 *
 * Order: a message adds to `received`, then to its rows, then to `answered`; each add releases. A
 * reader that looks in the opposite order, acquiring, therefore never sees an answer without its
 * rows, nor rows without their message, unless that is so.
 */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "figures.h"
#include "id.h"

enum {
    SHARDS = 4,      /* threads that add without meeting */
    OCTAVE = 8,      /* buckets while a time doubles: each 1/8 wide or less */
    BUCKETS = 240,   /* up to 2^32 us */
    FINE_MS = 10000, /* between samples of the last 10 minutes */
    FINE = 62,       /* */
    MINUTE_MS = 60000 /* between samples of the last 70 minutes */,
    MINUTES = 72,
    TEN = 10 * MINUTE_MS
};

struct shard {
    _Alignas(64) _Atomic uint64_t n[FIGURES];
    _Atomic uint32_t own[BUCKETS], added[BUCKETS];
};

/* All of a gauge at one moment. Buckets may go round: only differences are looked at. */
struct sample {
    int64_t at;
    uint64_t n[FIGURES];
    uint32_t own[BUCKETS], added[BUCKETS];
};

struct ring {
    int64_t step;
    size_t size, n, next; /* n: samples taken, at most size */
    struct sample *sample;
};

struct gauge {
    struct shard shard[SHARDS];
    char *door;
    struct ring fine, minute;
};

struct figures {
    pthread_mutex_t lock; /* of the samples: never taken by who adds */
    struct gauge *gauge;
    size_t n;
    _Atomic uint64_t held;
    struct {
        int64_t at;
        uint64_t held;
    } queue[FINE]; /* the hold queue's size, with the fine samples */
    size_t nqueue, next;
};

static void ring_open(struct ring *r, int64_t step, size_t size)
{
    *r = (struct ring){.step = step, .size = size};
    r->sample = calloc(size, sizeof *r->sample);
    if (!r->sample)
        abort();
}

static void gauge_open(struct gauge *g, const char *door)
{
    g->door = strdup(door);
    if (!g->door)
        abort();
    ring_open(&g->fine, FINE_MS, FINE);
    ring_open(&g->minute, MINUTE_MS, MINUTES);
}

struct figures *figures_new(const struct config *config)
{
    struct figures *f = calloc(1, sizeof *f);
    if (!f)
        abort();
    f->n = config->nlisteners + 1;
    f->gauge = aligned_alloc(_Alignof(struct gauge), f->n * sizeof *f->gauge);
    if (!f->gauge)
        abort();
    memset(f->gauge, 0, f->n * sizeof *f->gauge);
    for (size_t i = 0; i < config->nlisteners; i++)
        gauge_open(&f->gauge[i], config->listeners[i].name);
    gauge_open(&f->gauge[f->n - 1], "other");
    pthread_mutex_init(&f->lock, NULL);
    return f;
}

void figures_free(struct figures **fp)
{
    struct figures *f = *fp;
    *fp = NULL;
    if (!f)
        return;
    for (size_t i = 0; i < f->n; i++) {
        free(f->gauge[i].door);
        free(f->gauge[i].fine.sample);
        free(f->gauge[i].minute.sample);
    }
    pthread_mutex_destroy(&f->lock);
    free(f->gauge);
    free(f);
}

struct gauge *figures_gauge(struct figures *f, const char *door)
{
    if (!f)
        return NULL;
    size_t i = 0;
    while (i + 1 < f->n && strcmp(f->gauge[i].door, door ? door : "") != 0)
        i++;
    return &f->gauge[i];
}

/* ---- mail threads ---- */

static struct shard *my_shard(struct gauge *g)
{
    static _Atomic unsigned threads;
    static _Thread_local unsigned mine; /* + 1 */
    if (!mine)
        mine = atomic_fetch_add(&threads, 1) % SHARDS + 1;
    return &g->shard[mine - 1];
}

static void shard_add(struct shard *s, enum figure what, uint64_t n)
{
    atomic_fetch_add_explicit(&s->n[what], n, memory_order_release);
}

void gauge_add(struct gauge *g, enum figure what, uint64_t n)
{
    if (g && n)
        shard_add(my_shard(g), what, n);
}

static unsigned bucket_of(int64_t us)
{
    if (us < OCTAVE)
        return us > 0 ? (unsigned)us : 0;
    uint64_t v = us > UINT32_MAX ? UINT32_MAX : (uint64_t)us;
    unsigned e = 63 - (unsigned)__builtin_clzll(v); /* v has e + 1 bits */
    return (e - 2) * OCTAVE + (unsigned)(v >> (e - 3) & (OCTAVE - 1));
}

/* The middle of a bucket. */
static double bucket_us(unsigned b)
{
    if (b < 2 * OCTAVE)
        return b;
    unsigned e = b / OCTAVE + 2;
    double width = (double)(UINT64_C(1) << (e - 3));
    return (b % OCTAVE + OCTAVE + 0.5) * width;
}

static void count_time(struct shard *s, _Atomic uint32_t *buckets, enum figure sum, int64_t us)
{
    atomic_fetch_add_explicit(&buckets[bucket_of(us)], 1, memory_order_relaxed);
    shard_add(s, sum, us > 0 ? (uint64_t)us : 0);
}

void passing_begun(struct passing *p, struct gauge *g, size_t recipients)
{
    *p = (struct passing){.gauge = g, .recipients = recipients};
    if (!g)
        return;
    struct shard *s = my_shard(g);
    p->began = clock_micros();
    shard_add(s, FIGURE_MESSAGES, 1);
    shard_add(s, FIGURE_RECEIVED, recipients);
}

void passing_judged(struct passing *p)
{
    if (p->gauge)
        p->judged = clock_micros();
}

void passing_replied(struct passing *p, enum reply_kind kind)
{
    struct gauge *g = p->gauge;
    if (!g)
        return;
    struct shard *s = my_shard(g);
    shard_add(s, FIGURE_REPLIES + (unsigned)kind, 1);
    shard_add(s, FIGURE_ANSWERED, p->recipients);
    p->gauge = NULL;
    if (kind == REPLY_ABORTED)
        return;
    int64_t now = clock_micros();
    count_time(s, s->own, FIGURE_OWN_US, (p->judged ? p->judged : now) - p->began);
    count_time(s, s->added, FIGURE_ADDED_US, now - p->began);
}

void gauge_downstream(struct gauge *g, int code)
{
    gauge_add(g, FIGURE_DOWN_REPLIES, 1);
    if (code / 100 != 2)
        gauge_add(g, FIGURE_DOWN_ERRORS, 1);
}

/* ---- samples ---- */

static uint64_t sum(const struct gauge *g, enum figure what)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < SHARDS; i++)
        n += atomic_load_explicit(&g->shard[i].n[what], memory_order_acquire);
    return n;
}

static void take(const struct gauge *g, int64_t now, struct sample *out)
{
    out->at = now;
    out->n[FIGURE_ANSWERED] = sum(g, FIGURE_ANSWERED); /* first: see the head of the file */
    for (unsigned f = FIGURES; f-- > 0;)
        if (f != FIGURE_ANSWERED && f != FIGURE_RECEIVED)
            out->n[f] = sum(g, f);
    out->n[FIGURE_RECEIVED] = sum(g, FIGURE_RECEIVED);
    for (unsigned b = 0; b < BUCKETS; b++) {
        out->own[b] = out->added[b] = 0;
        for (unsigned i = 0; i < SHARDS; i++) {
            out->own[b] += atomic_load_explicit(&g->shard[i].own[b], memory_order_relaxed);
            out->added[b] += atomic_load_explicit(&g->shard[i].added[b], memory_order_relaxed);
        }
    }
}

/* The i-th newest, 0: the newest. */
static const struct sample *ring_at(const struct ring *r, size_t i)
{
    /* NOLINTNEXTLINE(clang-analyzer-core.DivideZero): each ring has its size from the start */
    return &r->sample[(r->next + r->size - 1 - i) % r->size];
}

static bool ring_due(const struct ring *r, int64_t now)
{
    return !r->n || now / r->step > ring_at(r, 0)->at / r->step;
}

static void ring_put(struct ring *r, const struct sample *s)
{
    r->sample[r->next] = *s;
    r->next = (r->next + 1) % r->size;
    r->n += r->n < r->size;
}

static const struct sample none; /* before the start */

/* The newest that is as old as t; before the first of them there was nothing. */
static const struct sample *ring_before(const struct ring *r, int64_t t)
{
    for (size_t i = 0; i < r->n; i++)
        if (ring_at(r, i)->at <= t)
            return ring_at(r, i);
    return r->n < r->size ? &none : ring_at(r, r->n - 1);
}

static void remember_queue(struct figures *f, int64_t now)
{
    f->queue[f->next].at = now;
    f->queue[f->next].held = atomic_load_explicit(&f->held, memory_order_relaxed);
    f->next = (f->next + 1) % FINE;
    f->nqueue += f->nqueue < FINE;
}

static void tick(struct figures *f, int64_t now)
{
    struct sample s;
    if (ring_due(&f->gauge[0].fine, now))
        remember_queue(f, now);
    for (size_t i = 0; i < f->n; i++) {
        struct gauge *g = &f->gauge[i];
        bool fine = ring_due(&g->fine, now), minute = ring_due(&g->minute, now);
        if (fine || minute)
            take(g, now, &s);
        if (fine)
            ring_put(&g->fine, &s);
        if (minute)
            ring_put(&g->minute, &s);
    }
}

void figures_tick(struct figures *f, int64_t now)
{
    pthread_mutex_lock(&f->lock);
    tick(f, now);
    pthread_mutex_unlock(&f->lock);
}

uint64_t figures_held_now(struct figures *f)
{
    return atomic_load_explicit(&f->held, memory_order_relaxed);
}

void figures_held(struct figures *f, uint64_t copies)
{
    atomic_store_explicit(&f->held, copies, memory_order_relaxed);
}

struct gauge *figures_at(struct figures *f, size_t i)
{
    return i < f->n ? &f->gauge[i] : NULL;
}

const char *gauge_door(const struct gauge *g)
{
    return g->door;
}

uint64_t gauge_total(const struct gauge *g, enum figure what)
{
    return sum(g, what);
}

uint64_t figures_total(struct figures *f, enum figure what)
{
    uint64_t n = 0;
    for (size_t i = 0; i < f->n; i++)
        n += sum(&f->gauge[i], what);
    return n;
}

/* ---- the balance ---- */

static uint64_t rows_of(const struct sample *s)
{
    uint64_t rows = s->n[FIGURE_REFUSED] + s->n[FIGURE_ABORTED];
    for (unsigned d = 0; d < DISP_COUNT; d++)
        rows += s->n[FIGURE_DONE + d];
    return rows;
}

/* Answered without a row; negative: rows without a message. */
static int64_t lost(const struct sample *s)
{
    uint64_t rows = rows_of(s), received = s->n[FIGURE_RECEIVED], answered = s->n[FIGURE_ANSWERED];
    if (rows < answered)
        return (int64_t)(answered - rows);
    return rows > received ? -(int64_t)(rows - received) : 0;
}

static uint64_t under_way(const struct sample *s)
{
    return (uint64_t)((int64_t)(s->n[FIGURE_RECEIVED] - rows_of(s)) - lost(s));
}

static uint64_t since(const struct sample *a, const struct sample *b, unsigned figure)
{
    return b->n[figure] - a->n[figure];
}

static void balance_between(const struct sample *a, const struct sample *b, struct balance *out)
{
    *out = (struct balance){
        .from = a->at,
        .until = b->at,
        .received = since(a, b, FIGURE_RECEIVED),
        .passed = since(a, b, FIGURE_DONE + DISP_PASS) + since(a, b, FIGURE_DONE + DISP_TAG),
        .held = since(a, b, FIGURE_DONE + DISP_HOLD),
        .throttled = since(a, b, FIGURE_DONE + DISP_THROTTLE),
        .rejected = since(a, b, FIGURE_DONE + DISP_REJECT),
        .refused = since(a, b, FIGURE_REFUSED),
        .aborted = since(a, b, FIGURE_ABORTED),
        .before = under_way(a),
        .after = under_way(b),
        .unaccounted = lost(b) - lost(a),
    };
}

static void balance_sum(struct balance *all, const struct balance *b)
{
    all->from = b->from;
    all->until = b->until;
    all->received += b->received;
    all->passed += b->passed;
    all->held += b->held;
    all->throttled += b->throttled;
    all->rejected += b->rejected;
    all->refused += b->refused;
    all->aborted += b->aborted;
    all->before += b->before;
    all->after += b->after;
    all->unaccounted += b->unaccounted;
}

void figures_balance(struct figures *f, const struct gauge *gauge, int64_t now, struct balance *out)
{
    struct sample s;
    struct balance one;
    *out = (struct balance){0};
    for (size_t i = 0; i < f->n; i++) {
        if (gauge && gauge != &f->gauge[i])
            continue;
        take(&f->gauge[i], now, &s);
        balance_between(&none, &s, &one);
        balance_sum(out, &one);
    }
}

static void each_minute_of(const struct gauge *g, int64_t now, unsigned minutes, balance_fn *fn,
                           void *arg)
{
    struct sample last;
    struct balance b;
    const struct ring *r = &g->minute;
    size_t n = minutes < r->n ? minutes : r->n;
    const struct sample *before = n < r->n ? ring_at(r, n) : r->n < r->size ? &none : NULL;
    for (size_t i = n; i-- > 0; before = ring_at(r, i)) {
        if (!before)
            continue;
        balance_between(before, ring_at(r, i), &b);
        fn(arg, g->door, &b);
    }
    take(g, now, &last);
    balance_between(before ? before : &none, &last, &b);
    fn(arg, g->door, &b);
}

void figures_each_minute(struct figures *f, int64_t now, unsigned minutes, balance_fn *fn,
                         void *arg)
{
    pthread_mutex_lock(&f->lock);
    for (size_t i = 0; i < f->n; i++)
        each_minute_of(&f->gauge[i], now, minutes, fn, arg);
    pthread_mutex_unlock(&f->lock);
}

/* ---- windows ---- */

/* What all doors did between two moments: a difference, summed. */
struct window_of {
    uint64_t n[FIGURES];
    uint64_t own[BUCKETS], added[BUCKETS];
    int64_t lost; /* of all doors, whichever way */
};

static void add_window(struct window_of *w, const struct sample *a, const struct sample *b)
{
    for (unsigned i = 0; i < FIGURES; i++)
        w->n[i] += since(a, b, i);
    for (unsigned i = 0; i < BUCKETS; i++) {
        w->own[i] += b->own[i] - a->own[i];
        w->added[i] += b->added[i] - a->added[i];
    }
    w->lost += llabs(lost(b) - lost(a));
}

/* From `from` ms ago to now. Call with the lock held. */
static void last(struct figures *f, int64_t now, int64_t from, struct window_of *w)
{
    struct sample s;
    memset(w, 0, sizeof *w);
    for (size_t i = 0; i < f->n; i++) {
        take(&f->gauge[i], now, &s);
        add_window(w, ring_before(&f->gauge[i].fine, now - from), &s);
    }
}

/* The hour before the last 10 minutes. */
static void hour_before(struct figures *f, int64_t now, struct window_of *w)
{
    memset(w, 0, sizeof *w);
    for (size_t i = 0; i < f->n; i++) {
        const struct ring *r = &f->gauge[i].minute;
        add_window(w, ring_before(r, now - TEN - 60 * MINUTE_MS), ring_before(r, now - TEN));
    }
}

static uint64_t replies(const struct window_of *w)
{
    uint64_t n = 0;
    for (unsigned k = 0; k < REPLY_ABORTED; k++)
        n += w->n[FIGURE_REPLIES + k];
    return n;
}

static double percentile(const uint64_t *buckets, double share)
{
    uint64_t all = 0, seen = 0;
    for (unsigned b = 0; b < BUCKETS; b++)
        all += buckets[b];
    if (!all)
        return 0;
    uint64_t rank = (uint64_t)ceil(share * (double)all);
    for (unsigned b = 0; b < BUCKETS; b++)
        if ((seen += buckets[b]) >= rank)
            return bucket_us(b);
    return 0;
}

static double average(uint64_t total, uint64_t n)
{
    return n ? (double)total / (double)n : 0;
}

/* How much the queue has grown in 5 minutes, and not by more than what was put into it that no
 * confirmed incident explains. New mail under caps of its own does not count. */
static int64_t growth(struct figures *f, int64_t now, uint64_t held)
{
    struct window_of w;
    uint64_t then = 0;
    for (size_t i = 0; i < f->nqueue; i++) {
        size_t at = (f->next + FINE - 1 - i) % FINE;
        then = f->queue[at].held;
        if (f->queue[at].at <= now - 5 * MINUTE_MS)
            break;
    }
    last(f, now, 5 * MINUTE_MS, &w);
    int64_t grown = (int64_t)held - (int64_t)then;
    int64_t put = (int64_t)(w.n[FIGURE_HOLDS + HOLD_HARMLESS] + w.n[FIGURE_HOLDS + HOLD_HARMFUL]);
    return grown < put ? grown : put;
}

void figures_read(struct figures *f, int64_t now, struct guard_reading *out)
{
    struct window_of w;
    uint64_t held = atomic_load_explicit(&f->held, memory_order_relaxed);
    pthread_mutex_lock(&f->lock);
    tick(f, now);
    last(f, now, FINE_MS, &w);
    *out = (struct guard_reading){.own_p99_10s = percentile(w.own, 0.99) / 1000, .held = held};
    last(f, now, MINUTE_MS, &w);
    out->messages_1m = replies(&w);
    out->own_p99_1m = percentile(w.own, 0.99) / 1000;
    out->added_avg_1m = average(w.n[FIGURE_ADDED_US], replies(&w)) / 1000;
    out->downstream_1m = w.n[FIGURE_DOWN_REPLIES];
    out->downstream_errors_1m = w.n[FIGURE_DOWN_ERRORS];
    last(f, now, TEN, &w);
    out->messages_10m = replies(&w);
    out->added_avg_10m = average(w.n[FIGURE_ADDED_US], replies(&w)) / 1000;
    out->refused_10m = w.n[FIGURE_DEFERRED];
    out->downstream_10m = w.n[FIGURE_DOWN_REPLIES];
    out->downstream_errors_10m = w.n[FIGURE_DOWN_ERRORS];
    out->harmful_10m = w.n[FIGURE_HOLDS + HOLD_HARMFUL];
    out->loops_10m = w.n[FIGURE_HOLDS + HOLD_LOOP];
    out->replyall_10m = w.n[FIGURE_HOLDS + HOLD_REPLYALL];
    out->pingpong_10m = w.n[FIGURE_HOLDS + HOLD_PINGPONG];
    out->unaccounted = w.lost;
    hour_before(f, now, &w);
    out->downstream_1h = w.n[FIGURE_DOWN_REPLIES];
    out->downstream_errors_1h = w.n[FIGURE_DOWN_ERRORS];
    out->held_growth_5m = growth(f, now, held);
    pthread_mutex_unlock(&f->lock);
}

void figures_latency(struct figures *f, int64_t now, int64_t ms, struct latency *out)
{
    struct window_of w;
    pthread_mutex_lock(&f->lock);
    last(f, now, ms, &w);
    pthread_mutex_unlock(&f->lock);
    *out = (struct latency){
        .messages = replies(&w),
        .own_average = average(w.n[FIGURE_OWN_US], replies(&w)),
        .own_p50 = percentile(w.own, 0.5),
        .own_p99 = percentile(w.own, 0.99),
        .added_average = average(w.n[FIGURE_ADDED_US], replies(&w)),
        .added_p50 = percentile(w.added, 0.5),
        .added_p99 = percentile(w.added, 0.99),
    };
}
