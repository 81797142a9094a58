/*
 * recall.h - what one life of the daemon hands to the next.
 *
 *             written                                       a crash loses
 *   digests   four times a second, in the background        a quarter of a second of first copies
 *   registry  new storms at once, then once a second        a second of a storm, more of a huge one
 *   snapshot  at a clean stop, and each hour                what is in neither, up to an hour
 *
 * At start the snapshot and the registry are read before any mail, the digests while it goes on.
 */
#ifndef RECALL_H
#define RECALL_H

#include "config.h"
#include "keeper.h"
#include "snapshot.h"

struct recall;

/* Reads; begins to write. Only with a memory store. Never fails: what cannot be read is said and
 * set aside. The store is the caller's and must live longer. */
struct recall *recall_start(const struct config *, uint32_t key_id, struct store *,
                            struct keeper *);
/* What others learned goes into snapshots, too; lives as long. Before recall_tick. */
void recall_texts(struct recall *, const struct snapshot_texts *);
/* Digests that other nodes told of, for the journal. Any thread. */
void recall_heard(struct recall *, const uint64_t *digest, size_t n);
/* Asks for a snapshot now, beside the hourly ones: what was learned before this moment. Soon, by
 * another thread; the last RECALL_KEPT of them stay. label: up to 31 letters and digits ("v12"). */
enum { RECALL_KEPT = 8 };
void recall_keep(struct recall *, const char *label);
/* Puts back what had been learned - counters, baselines, states, relays - as of the newest snapshot
 * before `since` (ms), whose time goes to *as_of. dry: only says which. May take seconds. -1 after
 * a sentence in error: there is none, or it cannot be used; nothing was changed. */
int recall_learned(struct recall *, int64_t since, bool dry, int64_t *as_of, char error[512]);

/* On the keeper's thread, four times a second, and at once when there is a new storm. */
void recall_tick(struct recall *, int64_t now);
/* The last storms, while the keeper still takes jobs and no mail goes on any more ... */
void recall_save(struct recall *);
/* ... and the snapshot, when it has ended. */
void recall_stop(struct recall **);

struct recall_figures {
    int64_t since;    /* ms: whom what was delivered to is known since; 0: nothing is */
    bool reading;     /* still going back */
    uint64_t digests; /* read back at start */
    uint64_t damaged; /* blocks of them skipped */
    uint64_t lost;    /* digests that could not be written */
    uint64_t bytes;   /* of the long memory */
    unsigned early;   /* generations of it freed for want of room */
    int64_t snapshot; /* ms: the last one written; 0: none yet */
    uint64_t unsaved; /* times a storm could not be saved */
};
void recall_figures(struct recall *, struct recall_figures *);

#endif
