/*
 * digests.h - the journal of the long memory: the 8-byte digest of each first copy that passed, in
 * one append-only file a day beside the hold database. A bounded queue, written four times a
 * second, never waited for, no fsync; at start read back, newest day first, in a thread of its own
 * while mail goes on.
 *
 * digests-YYYYMMDD-KEYID.bwd: a head, then blocks with a time and a CRC. What is damaged is skipped
 * and counted. Digests are keyed: a file made with another site key is of no use, and is not read.
 */
#ifndef DIGESTS_H
#define DIGESTS_H

#include "span.h"

struct digests;

/* keep: ms after which files are removed. NULL after a sentence in error. */
struct digests *digests_open(const char *dir, uint32_t key_id, int64_t keep, char error[512]);
/* Any thread (a store_digest_fn); never blocks for disk; drops and counts when a million wait. */
void digests_add(void *digests, uint64_t digest);
/* Writes what waits, removes old files. One caller at a time. */
void digests_flush(struct digests *, int64_t now);

/* Starts the thread that reads back what is there now, at most `keep` old; fn is called on it. */
typedef void digests_fn(void *arg, const uint64_t *digest, size_t n, int64_t when);
void digests_read(struct digests *, int64_t now, digests_fn *, void *arg);
struct digests_figures {
    bool reading;
    int64_t reached;  /* ms: read back to here; 0: nothing yet */
    uint64_t read;    /* digests read back */
    uint64_t damaged; /* blocks, or files without a head, that were skipped */
    uint64_t lost;    /* digests that overflowed or could not be written */
};
void digests_figures(struct digests *, struct digests_figures *);
/* Ends the thread, writes what waits. */
void digests_close(struct digests **);

#endif
