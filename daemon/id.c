/*
 * id.c - identifiers and the clock they are made of.
 *
 *   bit 63        22 21      12 11     0
 *      | time in ms |   node   | number |     printed as RFC 4648 base32, 13 digits, no padding
 *
 * Time and number are one rising counter: when a millisecond has had its 4096 ids, or the clock
 * runs back, ids go on from the last one.
 */
#include <stdatomic.h>
#include <time.h>

#include "failpoint.h"
#include "id.h"

enum { TIME_BITS = 42, NODE_BITS = 10, NUMBER_BITS = 12 };

static const char base32[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

static _Atomic int other_node = -1; /* -1: none */

void id_use_node(uint16_t node)
{
    atomic_store(&other_node, node);
}

uint64_t id_next(uint16_t node, int64_t now_ms)
{
    int other = atomic_load_explicit(&other_node, memory_order_relaxed);
    static _Atomic uint64_t last;
    uint64_t ms = now_ms > 0 ? (uint64_t)now_ms : 0;
    uint64_t now = (ms & ((UINT64_C(1) << TIME_BITS) - 1)) << NUMBER_BITS;
    uint64_t before = atomic_load(&last), next;
    do
        next = now > before ? now : before + 1;
    while (!atomic_compare_exchange_weak(&last, &before, next));
    uint64_t number = next & ((1 << NUMBER_BITS) - 1);
    uint64_t place = (other < 0 ? node : (unsigned)other) & ((1 << NODE_BITS) - 1);
    return (next >> NUMBER_BITS) << (NODE_BITS + NUMBER_BITS) | place << NUMBER_BITS | number;
}

uint64_t id_of_time(int64_t ms)
{
    const uint64_t most = (UINT64_C(1) << TIME_BITS) - 1;
    uint64_t time = ms > 0 ? (uint64_t)ms : 0;
    return (time < most ? time : most) << (NODE_BITS + NUMBER_BITS);
}

void id_print(uint64_t id, char out[ID_TEXT])
{
    for (int i = 0; i < 12; i++)
        out[i] = base32[id >> (59 - 5 * i) & 31];
    out[12] = base32[id << 1 & 31]; /* 13 digits are 65 bits: the last one is zero */
    out[13] = '\0';
}

/* The value of a base32 digit in any case, or -1. */
static int digit(uint8_t c)
{
    c = byte_lower(c);
    if (c >= 'a' && c <= 'z')
        return c - 'a';
    return c >= '2' && c <= '7' ? c - '2' + 26 : -1;
}

bool id_parse(uint64_t *id, struct span text)
{
    if (text.n != ID_TEXT - 1)
        return false;
    uint64_t value = 0;
    for (size_t i = 0; i < 12; i++) {
        int d = digit(text.p[i]);
        if (d < 0)
            return false;
        value = value << 5 | (uint64_t)d;
    }
    int d = digit(text.p[12]);
    if (d < 0 || d & 1)
        return false;
    *id = value << 4 | (uint64_t)(d >> 1);
    return true;
}

void incident_print(const struct key *k, char out[INCIDENT_TEXT])
{
    uint64_t v = 0;
    for (int i = 0; i < 5; i++)
        v = v << 8 | k->byte[i];
    out[0] = 'S';
    for (int i = 0; i < 8; i++)
        out[i + 1] = base32[v >> (35 - 5 * i) & 31];
    out[9] = '\0';
}

bool incident_parse(struct span text, char out[INCIDENT_TEXT])
{
    if (text.n != INCIDENT_TEXT - 1 || byte_lower(text.p[0]) != 's')
        return false;
    char made[INCIDENT_TEXT] = "S";
    for (size_t i = 1; i < INCIDENT_TEXT - 1; i++) {
        int d = digit(text.p[i]);
        if (d < 0)
            return false;
        made[i] = base32[d];
    }
    memcpy(out, made, INCIDENT_TEXT);
    return true;
}

void hex_print(struct span s, char *out)
{
    for (size_t i = 0; i < s.n; i++) {
        *out++ = "0123456789abcdef"[s.p[i] >> 4];
        *out++ = "0123456789abcdef"[s.p[i] & 15];
    }
    *out = '\0';
}

static int64_t ms_of(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int64_t real_clock(void)
{
    return ms_of(CLOCK_REALTIME) + FAILPOINT_MS("clock");
}

static int64_t (*_Atomic clock_fn)(void) = real_clock;
static _Atomic int64_t clock_floor; /* the latest time told */
static _Atomic int64_t shift;       /* ms */

int64_t clock_now(void)
{
    int64_t now = atomic_load(&clock_fn)() + atomic_load_explicit(&shift, memory_order_relaxed);
    int64_t told = atomic_load(&clock_floor);
    while (now > told)
        if (atomic_compare_exchange_weak(&clock_floor, &told, now))
            return now;
    return told;
}

void clock_set(int64_t (*fn)(void))
{
    atomic_store(&clock_fn, fn ? fn : real_clock);
    atomic_store(&shift, 0);
    atomic_store(&clock_floor, 0); /* another clock, another time: replay lives in the past */
}

void clock_shift(int64_t ms, bool first)
{
    atomic_store(&shift, ms);
    if (first)
        atomic_store(&clock_floor, 0);
}

int64_t clock_own(void)
{
    return atomic_load(&clock_fn)();
}

int64_t clock_mono(void)
{
    return ms_of(CLOCK_MONOTONIC);
}

int64_t clock_micros(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}
