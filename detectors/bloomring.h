/*
 * bloomring.h - the long memory (detection.md 7): was this message delivered to this recipient in
 * the last 40 days? Generations of libbloom filters; the newest takes, all are asked, the oldest
 * is freed whole. Only ever "perhaps": a hit never holds anything.
 *
 *   newest [ 4 days so far ] [ 4 days ] [ the same, was full: split ] ... oldest [ 40 days ago ]
 *
 * A generation spans a tenth of what is kept: a lookup asks a dozen filters at a few cache misses
 * each, and is on the way of every new message. So what is forgotten is forgotten 40 to 44 days
 * after.
 *
 * Digests are keyed hashes: libbloom's own hash has a public seed.
 */
#ifndef BLOOMRING_H
#define BLOOMRING_H

#include "breakwater.h"

struct bloomring;

struct bloomring_size {
    int64_t keep;    /* ms a digest is remembered: 40 days */
    double error;    /* of all generations together: 1e-3 */
    uint64_t budget; /* bytes; when reached the oldest generation is freed early */
};

struct bloomring *bloomring_new(const struct bloomring_size *);
void bloomring_free(struct bloomring **);
/* Remembers a digest as seen at `when` (ms; any time not older than keep: at start old days are put
 * back, newest first, while new ones arrive). */
void bloomring_add(struct bloomring *, uint64_t digest, int64_t when);
bool bloomring_has(const struct bloomring *, uint64_t digest);
/* Forgets; about once a second. */
void bloomring_tick(struct bloomring *, int64_t now);
uint64_t bloomring_bytes(const struct bloomring *);
/* The oldest time still remembered whole, ms; 0: nothing is. `early`: generations freed for want of
 * room. */
int64_t bloomring_since(const struct bloomring *, unsigned *early);

#endif
