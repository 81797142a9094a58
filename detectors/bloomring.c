/*
 * bloomring.c - see bloomring.h. Time is cut into periods of a tenth of what is kept; a digest goes
 * into the generation of its period, whenever that is put back. So generations are few, a lookup
 * asks a dozen filters, and what is forgotten is a whole period at a time.
 *
 * A generation never takes more than it was made for: its errors would grow without bound. When it
 * is full its period gets another one (a split). The first of a period has the size of the fullest
 * period of the last week and a quarter more; where nothing is known it starts small, and each
 * split doubles what its period can take.
 *
 * Limits of libbloom 1.6: entries >= 1000, and its number of bits is an int.
 *
 * Invariant: the bytes of all generations stay below the budget, save for one of the least size.
 */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <bloom.h>

#include "bloomring.h"

enum {
    PERIODS = 10,       /* in what is kept */
    GENERATIONS = 12,   /* the error is shared among as many; more are made only by splits */
    ENTRIES_MIN = 1000, /* of libbloom */
    BITS_MAX = INT32_MAX - 8,
    NEIGHBOURS = 2 /* periods on either side that say how large one gets: a week */
};
static const double BITS_PER = 0.4804530139182014; /* ln(2)^2 */

struct generation {
    struct generation *next; /* older, or of the same period and made before */
    int64_t period, first;   /* number; ms of the oldest digest in it */
    uint64_t entries, n;     /* what it takes; what it has */
    uint64_t bytes;
    struct bloom bloom;
};

struct bloomring {
    struct bloomring_size size;
    int64_t period; /* ms */
    double error;   /* of one generation */
    uint64_t bytes;
    int64_t floor; /* ms: what is older was freed for want of room, or is too old */
    unsigned early;
    struct generation *newest;
};

struct bloomring *bloomring_new(const struct bloomring_size *size)
{
    assert(size->keep >= PERIODS && size->error > 0 && size->error < 1);
    struct bloomring *r = calloc(1, sizeof *r);
    if (!r)
        abort();
    r->size = *size;
    r->period = size->keep / PERIODS;
    r->error = size->error / GENERATIONS;
    r->bytes = sizeof *r;
    r->floor = INT64_MIN;
    return r;
}

/* Frees the generation that *at points to. */
static void drop(struct bloomring *r, struct generation **at)
{
    struct generation *g = *at;
    *at = g->next;
    r->bytes -= g->bytes;
    bloom_free(&g->bloom);
    free(g);
}

void bloomring_free(struct bloomring **rp)
{
    struct bloomring *r = *rp;
    *rp = NULL;
    if (!r)
        return;
    while (r->newest)
        drop(r, &r->newest);
    free(r);
}

/* Rounded down, before 1970 too. */
static int64_t period_of(const struct bloomring *r, int64_t when)
{
    return when / r->period - (when % r->period < 0);
}

/* ---- sizes ---- */

static double bits_per_entry(const struct bloomring *r)
{
    return -log(r->error) / BITS_PER;
}

static uint64_t bytes_for(const struct bloomring *r, uint64_t entries)
{
    return (uint64_t)((double)entries * bits_per_entry(r) / 8) + sizeof(struct generation) + 32;
}

/* Digests of a period, whatever number of generations they are in. */
static uint64_t period_adds(const struct bloomring *r, int64_t period)
{
    uint64_t n = 0;
    for (const struct generation *g = r->newest; g; g = g->next)
        n += g->period == period ? g->n : 0;
    return n;
}

static uint64_t entries_for(const struct bloomring *r, int64_t period)
{
    uint64_t n = period_adds(r, period), most = 0;
    for (int64_t p = period - NEIGHBOURS; p <= period + NEIGHBOURS && !n; p++) {
        uint64_t adds = period_adds(r, p);
        most = adds > most ? adds : most;
    }
    n = n ? n : most + most / 4;
    uint64_t least = ENTRIES_MIN;
    uint64_t limit = (uint64_t)(BITS_MAX / bits_per_entry(r)) - 1;
    uint64_t room = (uint64_t)((double)r->size.budget / bits_per_entry(r) * 8);
    limit = limit < room ? limit : room;
    n = n < limit ? n : limit;
    return n > least ? n : least;
}

/* ---- generations ---- */

static struct generation **oldest(struct bloomring *r)
{
    struct generation **at = &r->newest;
    while (*at && (*at)->next)
        at = &(*at)->next;
    return at;
}

/* Frees the oldest generations until there is room. false: what is asked for is the oldest. */
static bool make_room(struct bloomring *r, uint64_t bytes, int64_t period)
{
    while (r->newest && r->bytes + bytes > r->size.budget) {
        struct generation **last = oldest(r);
        int64_t end = ((*last)->period + 1) * r->period;
        if (period < (*last)->period) {
            r->floor = (*last)->period * r->period;
            return false;
        }
        if (end > r->floor && (*last)->period < period)
            r->floor = end;
        drop(r, last);
        r->early++;
    }
    return true;
}

static struct generation *generation_new(struct bloomring *r, int64_t period)
{
    uint64_t entries = entries_for(r, period), bytes = bytes_for(r, entries);
    if (!make_room(r, bytes, period))
        return NULL;
    struct generation *g = calloc(1, sizeof *g);
    if (!g || bloom_init(&g->bloom, (int)entries, r->error))
        abort();
    g->period = period;
    g->entries = entries;
    g->bytes = bytes;
    g->first = INT64_MAX;
    r->bytes += bytes;
    struct generation **at = &r->newest;
    while (*at && (*at)->period > period)
        at = &(*at)->next;
    g->next = *at;
    *at = g;
    return g;
}

/* The one of that period that takes more, or NULL: the latest made comes first. */
static struct generation *generation_open(const struct bloomring *r, int64_t period)
{
    struct generation *g = r->newest;
    while (g && g->period > period)
        g = g->next;
    return g && g->period == period && g->n < g->entries ? g : NULL;
}

void bloomring_add(struct bloomring *r, uint64_t digest, int64_t when)
{
    if (when < r->floor)
        return;
    int64_t period = period_of(r, when);
    struct generation *g = generation_open(r, period);
    if (!g && !(g = generation_new(r, period)))
        return;
    /* those that look as if they were there take no room */
    g->n += bloom_add(&g->bloom, &digest, sizeof digest) == 0;
    g->first = when < g->first ? when : g->first;
}

bool bloomring_has(const struct bloomring *r, uint64_t digest)
{
    for (struct generation *g = r->newest; g; g = g->next)
        if (bloom_check(&g->bloom, &digest, sizeof digest) == 1)
            return true;
    return false;
}

void bloomring_tick(struct bloomring *r, int64_t now)
{
    while (r->newest) {
        struct generation **last = oldest(r);
        int64_t end = ((*last)->period + 1) * r->period;
        if (end > now - r->size.keep)
            break;
        drop(r, last);
    }
}

uint64_t bloomring_bytes(const struct bloomring *r)
{
    return r->bytes;
}

int64_t bloomring_since(const struct bloomring *r, unsigned *early)
{
    int64_t since = 0;
    for (const struct generation *g = r->newest; g; g = g->next)
        since = since && since < g->first ? since : g->first; /* none is ever empty */
    if (early)
        *early = r->early;
    return since > r->floor ? since : since ? r->floor : 0;
}
