/*
 * journal.h - every verdict of every recipient, pass included, in append-only segments beside the
 * hold database: "where is my mail?". A bounded queue, written once a second, never waited for; a
 * crash loses at most one second of pass rows; overflow is counted.
 *
 * Segment journal-YYYYMMDD-HHMMSS.bwj: blocks of [magic, length, crc32, rows]. Read to the first
 * bad block, then on from the next good one.
 */
#ifndef JOURNAL_H
#define JOURNAL_H

#include "arena.h"
#include "span.h"

struct journal;

/* One recipient's verdict. Spans are copied. */
struct journal_row {
    uint64_t tx;
    int64_t time;
    struct key k;
    uint8_t disposition, advised, relation, mode;
    uint32_t copies;
    struct span door, client, from, rcpt, queue_id, rule, message_id, incident;
};

/* NULL after a sentence in error. keep: ms after which segments are removed. */
struct journal *journal_open(const char *dir, int64_t keep, char error[512]);
/* Any thread; never blocks for disk; drops and counts when 8 MiB are waiting. */
void journal_add(struct journal *, const struct journal_row *);
/* Writes what waits (one caller). */
void journal_flush(struct journal *, int64_t now);
uint64_t journal_lost(const struct journal *);
void journal_close(struct journal **);

/* Reading, newest segment first; each row in arena. fn nonzero stops. */
struct journal_filter {
    uint64_t tx;             /* 0: any */
    const char *rcpt, *from; /* exact, case-insensitive; NULL: any */
    int64_t since, until;    /* ms; 0: open */
};
typedef int journal_fn(void *arg, const struct journal_row *);
int journal_each(const char *dir, const struct journal_filter *, journal_fn *, void *arg) MUSTCHECK;

#endif
