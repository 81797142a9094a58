/*
 * tallies.h - small facts in a bounded table: counts, windows, sets and marks, by keyed hash.
 *
 *   key -> shard (lock) -> row of 8 slots: the 8 keys in one cache line, then their values
 *
 * The table has its size from the beginning (untouched pages cost nothing) and never grows: a full
 * row gives up an expired slot, else its lightest and then its oldest, so that invented keys push
 * out invented keys first. Thread-safe; one lock at a time.
 */
#ifndef TALLIES_H
#define TALLIES_H

#include "detector.h"

struct tally_table;

struct tally_table *tally_table_new(uint64_t bytes);
void tally_table_free(struct tally_table **);
/* Answers in place. */
void tally_table_read(struct tally_table *, struct tallies *, int64_t now);
void tally_table_add(struct tally_table *, const struct tallies *, int64_t now);
/* Frees what is expired in the next few rows; for figures only, reading never sees it. */
void tally_table_tick(struct tally_table *, int64_t now);
uint64_t tally_table_used(const struct tally_table *);

/* Forgets everything. Mail may go on meanwhile. */
void tally_table_clear(struct tally_table *);

/* For snapshots: rows as plain bytes of this version. */
enum { TALLY_VERSION = 1, TALLY_VALUE = 56 };
struct tally_row {
    uint64_t key;
    uint8_t value[TALLY_VALUE];
};
/* Some more of them; *at begins at 0. Returns how many, 0: that was all. cap is at least 8. */
size_t tally_table_rows(struct tally_table *, size_t *at, struct tally_row *, size_t cap);
/* Puts one back; false: not a value, or it is there already, or has outlived its life. */
bool tally_table_put(struct tally_table *, const struct tally_row *, int64_t now);

#endif
