/*
 * longmemory.c - what forty days of mail take in the long memory, how long a question takes, and
 * how often it is answered wrongly: at a small site and at an ISP.
 *
 * usage: longmemory [ADDS A DAY]...; without: 7,500 (5,000 messages a day) and 1,800,000 (1.2
 * million). As the memory store has it: 64 rings.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "bloomring.h"

enum { RINGS = 64, DAYS = 45, ASKED = 1000000 };
static const int64_t day_ms = 86400000, start = 1700000000000;

/* Digests are keyed hashes: numbers that look like chance (splitmix64). */
static uint64_t digest(uint64_t i)
{
    i += UINT64_C(0x9e3779b97f4a7c15);
    i = (i ^ i >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    i = (i ^ i >> 27) * UINT64_C(0x94d049bb133111eb);
    return i ^ i >> 31;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void fill(struct bloomring *ring[RINGS], uint64_t adds)
{
    for (uint64_t day = 0; day < DAYS; day++)
        for (uint64_t i = 0; i < adds; i++) {
            uint64_t d = digest(day * adds + i);
            int64_t when = start + (int64_t)day * day_ms + (int64_t)(i * 86400000 / adds);
            bloomring_add(ring[d % RINGS], d, when);
            if (i % (adds / 24 + 1) == 0)
                for (unsigned r = 0; r < RINGS; r++)
                    bloomring_tick(ring[r], when);
        }
}

static void measure(uint64_t adds)
{
    const struct bloomring_size size = {
        .keep = 40 * day_ms, .error = 1e-3, .budget = UINT64_C(1) << 30};
    struct bloomring *ring[RINGS];
    uint64_t bytes = 0, hits = 0;
    for (unsigned r = 0; r < RINGS; r++)
        ring[r] = bloomring_new(&size);
    double begun = seconds();
    fill(ring, adds);
    double filled = seconds();
    for (uint64_t i = 0; i < ASKED; i++) {
        uint64_t d = digest(UINT64_C(1) << 60 | i);
        hits += bloomring_has(ring[d % RINGS], d);
    }
    double asked = seconds();
    for (unsigned r = 0; r < RINGS; r++) {
        bytes += bloomring_bytes(ring[r]);
        bloomring_free(&ring[r]);
    }
    printf(
        "%9llu first copies a day: %6.1f MB for 40 days; an addition %.2f us, a question %.2f us;"
        " %.4f %% wrongly known\n",
        (unsigned long long)adds, (double)bytes / 1e6,
        (filled - begun) * 1e6 / (double)(adds * DAYS), (asked - filled) * 1e6 / ASKED,
        100.0 * (double)hits / ASKED);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        measure(strtoull(argv[i], NULL, 10));
    if (argc == 1) {
        measure(7500);
        measure(1800000);
    }
    return 0;
}
