/*
 * journal.h - every verdict of every recipient, pass included, in append-only segments beside the
 * hold database: "where is my mail?". A bounded queue, written four times a second, never waited
 * for; a crash of the daemon loses at most that much of its rows (one of the machine: what the
 * kernel had not written yet, there is no fsync); overflow is counted.
 *
 * Segment journal-YYYYMMDD-HHMMSS.bwj (UTC): blocks of [mark, length, crc32, rows]. Read to the
 * first bad block, then on from the next good one.
 */
#ifndef JOURNAL_H
#define JOURNAL_H

#include "fact_pack.h"

struct journal;

/* In place of a disposition: there was no reply. Never a number of enum disposition. */
enum { JOURNAL_ABORTED = 0x7f };

/* What a row says of the facts a rule may ask for. */
enum journal_facts {
    JOURNAL_OLD,      /* nothing: a version wrote it that kept none */
    JOURNAL_LOST,     /* reading: they were there, but what is needed to read them is damaged */
    JOURNAL_UNJUDGED, /* no rule was asked, or what it said did not come to pass */
    JOURNAL_FACTS,
    JOURNAL_FACTS_COUNT /* must be last */
};

/* One recipient's verdict. Spans are copied: addresses and Message-ID up to 512 bytes, the three
 * after incident up to 128, packs as they are, the rest up to 64; a NUL becomes '?'. */
struct journal_row {
    uint64_t tx;
    int64_t time;
    struct key k;
    uint8_t disposition, advised, relation, mode;
    uint32_t copies;
    struct span door, client, from, rcpt, queue_id, rule, message_id, incident;
    /* of a further copy: who brought it back, why that one is convicted, and by what the message
     * was known again under another name */
    struct span blamed, conviction, joined;
    uint8_t facts; /* enum journal_facts; with JOURNAL_FACTS there are packs (fact_pack.h), whose
                    * facts kept aside are from, rcpt, client, door, relation and copies */
    struct span of_message, of_copy;
    const struct fact_map *map; /* reading: what they mean */
};

/* NULL after a sentence in error. keep: ms after which segments are removed. */
struct journal *journal_open(const char *dir, int64_t keep, char error[512]);
/* n rows of one transaction, with the same of_message. Any thread; never blocks for disk; drops and
 * counts when 16 MiB are waiting. */
void journal_add_all(struct journal *, const struct journal_row *rows, size_t n);
void journal_add(struct journal *, const struct journal_row *); /* one */
/* Writes what waits; removes old segments. One caller at a time, any thread. */
void journal_flush(struct journal *, int64_t now);
/* Rows that overflowed or could not be written. */
uint64_t journal_lost(const struct journal *);
/* Writes what waits first; nobody may add any more. */
void journal_close(struct journal **);

/* Reading, newest row first; a row and its spans are good during the call. fn nonzero stops. */
typedef int journal_fn(void *arg, const struct journal_row *);
typedef void journal_progress_fn(void *arg, uint64_t done, uint64_t total); /* bytes */
struct journal_filter {
    uint64_t tx;                   /* 0: any */
    const char *rcpt, *from;       /* exact, case-insensitive; NULL: any */
    int64_t since, until;          /* ms; 0: open */
    bool oldest_first;             /* the other way round, and only so facts are read */
    journal_progress_fn *progress; /* NULL: none; called with fn's arg */
};
/* 0, or -1 and errno when dir or a segment in it cannot be read (the others are). Any thread, while
 * the journal is being written, too. */
int journal_each(const char *dir, const struct journal_filter *, journal_fn *, void *arg) MUSTCHECK;

#endif
