/*
 * store.h - the past: message records and tallies, behind one interface. Backends: memory (here,
 * in process), none (forgets everything), Redis (a later issue).
 *
 * Calls answer at once (STORE_DONE) or later through done (STORE_WAIT): done never runs before the
 * call has returned, and not at all after cancel.
 */
#ifndef STORE_H
#define STORE_H

#include "replication.h"

struct store;
struct states;
struct tally_table;

enum store_state {
    STORE_DONE,
    STORE_WAIT,
};
typedef void store_done_fn(void *arg);
struct store_op; /* a waiting call, owned by the tx */

struct store_ops {
    const char *name;
    /* Answers tallies in place. */
    enum store_state (*tally_read)(struct store *, struct tallies *, int64_t now, store_done_fn *,
                                   void *arg, struct store_op **);
    /* Remembers; fire and forget. */
    void (*tally_add)(struct store *, const struct tallies *, int64_t now);
    /* Picks the identity (resolve: K, later aliases and stamp; conflicts go to K') and judges on
     * it, atomically. */
    enum store_state (*observe)(struct store *, const struct observation *,
                                struct replication_signals *out, store_done_fn *, void *arg,
                                struct store_op **);
    /* One step of every state the message touches (detector.h), into signals. */
    enum store_state (*step)(struct store *, const struct subject *, struct signals *,
                             store_done_fn *, void *arg, struct store_op **);
    /* What became of each recipient's copy of K; fire and forget. */
    void (*settle)(struct store *, const struct key *, const uint64_t *rcpt, const enum fate *,
                   size_t n);
    /* For people. false: nothing known of K. */
    bool (*report)(struct store *, const struct key *, struct arena *, struct report *out);
    bool (*passed)(struct store *, const struct key *, uint64_t rcpt);
    /* Expires; call about once a second from one thread. */
    void (*tick)(struct store *, int64_t now);
    void (*cancel)(struct store *, struct store_op **);
    void (*close)(struct store *);
};
struct store {
    const struct store_ops *ops;
};

/* For backends: the identity to try at this step, 0..STORE_STEPS-1, after conflicts. */
enum { STORE_STEPS = K_VARIANTS + 1 };
struct key store_identity(const struct subject *, unsigned step);

/* Sharded, thread-safe, bounded: when `bytes` are used the oldest plain records go first, storms
 * last. */
struct store *store_memory_open(const struct site *, uint64_t bytes);
struct store *store_none_open(void);
void store_close(struct store **);
/* Figures for status and tests. */
struct store_figures {
    uint64_t records, tallies, bytes, evicted, expired; /* bytes: records, with their index */
};
void store_memory_figures(struct store *, struct store_figures *);

/* ---- what outlives the process; of the memory store only ---- */

/* A recipient got a first copy: its digest, for the journal. Called under a lock: must be quick.
 * Set before traffic. */
typedef void store_digest_fn(void *arg, uint64_t digest);
void store_memory_on_digest(struct store *, store_digest_fn *, void *arg);
/* What other nodes should know, as it happens. Copied; NULL: nobody asks. Set before traffic. */
struct store_share {
    void *arg;
    /* Some of these are shared. Called under no lock; must be quick. */
    void (*tallies)(void *arg, const struct tallies *, int64_t now);
    /* As store_digest_fn. */
    void (*digest)(void *arg, uint64_t digest);
};
void store_memory_on_share(struct store *, const struct store_share *);
/* A message has become a storm, or a server was convicted for it: it is to be saved now. Called
 * under no lock; must be quick. Set before traffic. */
typedef void store_storm_fn(void *arg);
void store_memory_on_storm(struct store *, store_storm_fn *, void *arg);
/* Puts digests of that time (ms) back into the long memory. */
void store_memory_remember(struct store *, const uint64_t *digest, size_t n, int64_t when);
struct store_long {
    int64_t since;  /* ms: remembered whole since; 0: nothing is */
    int64_t forgot; /* ms: what was freed early for want of room reached to here; 0: nothing was */
    uint64_t bytes;
    unsigned early; /* generations freed early */
};
void store_memory_long(struct store *, struct store_long *);

/* A record as bytes (malloc'd). */
struct packed {
    struct key k;
    int64_t last; /* ms */
    uint8_t *bytes;
    size_t n;
};
/* The storms that changed since they were last packed, each at most about once a second and large
 * ones less often (`all`: however short ago); returns how many. */
size_t store_memory_changed(struct store *, int64_t now, bool all, struct packed *out, size_t cap);
/* That could not be saved after all. */
void store_memory_unsaved(struct store *, const struct key *);
/* All records, some at a time: storms and duplicated ones first. Begin with a zeroed cursor; false:
 * that was all. Mail goes on meanwhile; what changes may be seen twice or in its later form. */
struct store_cursor {
    unsigned pass, shard;
    size_t bucket;
};
bool store_memory_pack(struct store *, struct store_cursor *, struct packed *out, size_t cap,
                       size_t *n);
/* Puts a packed record back; copies that were pending are lost. The later one of two stays; one
 * that has outlived its life, or for which there is no room, is let go. false: no record. */
bool store_memory_put(struct store *, const struct key *, struct span packed, int64_t now);
struct tally_table *store_memory_tallies(struct store *);
struct states *store_memory_states(struct store *);

#endif
