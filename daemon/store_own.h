/*
 * store_own.h - the inside of the memory store, shared by store_memory.c (the records),
 * store_resolve.c (which of them a message belongs to) and store_keep.c (what outlives the
 * process).
 */
#ifndef STORE_OWN_H
#define STORE_OWN_H

#include <pthread.h>
#include <stdatomic.h>

#include "aliases.h"
#include "bloomring.h"
#include "recordlog.h"
#include "states.h"
#include "store.h"
#include "tallies.h"

enum { STORE_SHARDS = 64 };

enum age { AGE_PLAIN, AGE_DUPLICATED, AGE_STORM, AGES };

struct entry {
    struct entry *next; /* in its bucket */
    struct entry *older, *newer;
    struct record *record;
    int64_t saved;  /* ms: when it was packed for the registry; 0: never */
    uint32_t bytes; /* counted for it */
    uint8_t age;    /* enum age: its list */
    struct key key;
    struct recordlog log; /* of a past that is shared; else zero */
};

/* An ageing list. */
struct ages {
    struct entry *oldest, *newest;
};

struct shard {
    pthread_mutex_t lock;
    struct entry **bucket;
    size_t nbuckets, n; /* nbuckets: a power of two */
    uint64_t bytes, evicted, expired;
    struct ages age[AGES];
    struct bloomring *ring; /* NULL: nothing was delivered yet */
} __attribute__((aligned(64)));

struct sharing; /* store_redis_own.h */

struct memory {
    struct store store;
    struct sharing *sharing; /* other nodes have this past too; NULL: it is this process's */
    const struct site *site;
    struct tally_table *tallies;
    struct states *states;
    struct aliases *aliases;
    uint64_t budget;        /* bytes, for records */
    uint64_t ring_budget;   /* bytes, for one shard's ring */
    _Atomic uint64_t bytes; /* of all shards */
    _Atomic int64_t whole;  /* ms: the first message; what came before may be forgotten */
    int64_t retired;        /* ms: when storms at rest were last looked for; tick only */
    store_digest_fn *on_digest;
    void *on_digest_arg;
    struct store_share share; /* functions may be NULL */
    store_storm_fn *on_storm;
    void *on_storm_arg;
    /* A message was observed in this record, here alone. Under the shard's lock. NULL: nobody asks.
     */
    void (*on_observed)(struct memory *, struct entry *, const struct observation *);
    struct shard shard[STORE_SHARDS];
};

static inline struct memory *memory_of(struct store *s)
{
    return (struct memory *)s;
}

/* store_memory.c: all of it, for a backend built on it. */
extern const struct store_ops memory_ops;

struct shard *shard_lock(struct memory *, const struct key *);
struct entry *entry_find(const struct shard *, const struct key *);
/* The same, unless it has been at rest for too long: then it is forgotten here. */
struct entry *entry_live(struct memory *, struct shard *, const struct key *, int64_t now);
enum age record_age(const struct record *);
/* NULL record: a new one. Takes it over. */
struct entry *entry_add(struct memory *, struct shard *, const struct key *, struct record *,
                        int64_t now);
/* After a change: counts its bytes anew and makes it the newest of its age. */
void entry_touch(struct memory *, struct shard *, struct entry *);
/* The same for one put back: where its last copy belongs. */
void entry_place(struct memory *, struct shard *, struct entry *);
/* The same, but it stays where it is in its list. */
void entry_recount(struct memory *, struct shard *, struct entry *);

/* After a copy was observed: touched, to be saved; makes room if need be, but not of this one. */
void entry_observed(struct memory *, struct shard *, struct entry *);

/* store_resolve.c: struct store_ops.observe. */
enum store_state memory_observe(struct store *, const struct observation *,
                                struct replication_signals *out, store_done_fn *, void *arg,
                                struct store_op **);
/* When the first message came, `now` if this is it. */
int64_t whole_since(struct memory *, int64_t now);

/* store_keep.c: the digest of a copy that is its recipient's first, under the shard's lock. */
void memory_remember(struct memory *, struct shard *, const struct key *, uint64_t rcpt,
                     int64_t now);
/* Storms at rest shrink; at most hourly. */
void memory_retire(struct memory *, int64_t now);

#endif
