/*
 * store_redis_own.h - the inside of the shared store: store_redis.c (its threads, what becomes of
 * copies, being away and back), store_log.c (what is asked of a log, and what the answer does to a
 * record), store_observe.c (one message on its way) and store_step.c (the states it touches).
 */
#ifndef STORE_REDIS_OWN_H
#define STORE_REDIS_OWN_H

#include "event.h"
#include "id.h"
#include "outbox.h"
#include "redis.h"
#include "store_own.h"

struct redisReply;

/* An event of ours on its way: whoever applies it first, in whichever thread, writes down what came
 * of it. Listed, and all but `id` and `o` changed, under the lock of the shard of its K. */
struct flight {
    struct flight *next, **at; /* at NULL: not listed */
    uint64_t id;
    const struct store_thread *t; /* that has sent it */
    struct key k;
    const struct observation *o;
    struct replication_signals *out; /* in the arena of o's subject, nobody else's meanwhile */
    bool applied;
    enum event_applied result;
    bool fresh; /* it was the first of its record */
    bool storm; /* that was a storm before */
    enum age before, after;
    struct origin origin; /* of the record */
};

struct counters {
    _Atomic uint64_t asked, degraded, handed_in, joined, compacted, remade, full;
};

struct sharing {
    struct store_ops ops;
    struct memory *memory;
    const struct redis_settings *settings;
    uint8_t site_key[32];
    uint32_t node; /* random: this process in events */
    struct outbox *outbox;
    _Atomic bool allowed;
    _Atomic unsigned away;         /* threads that have no Redis now */
    _Atomic uint64_t handed_since; /* events handed in since it came back */
    struct counters count;
    pthread_mutex_t lock; /* of the list */
    struct store_thread *threads;
    struct flight *flight[STORE_SHARDS];
};

struct store_thread {
    struct sharing *all;
    struct store_thread *next;
    struct redis *redis;
    struct keys keys;
    struct event *look; /* now and then: is Redis there, does something wait? */
    bool away;
    unsigned looks;       /* without Redis, at the start */
    unsigned handing;     /* parcels on their way */
    uint64_t random;      /* state of its generator */
    uint64_t retried;     /* id of the event that is judged here after all; 0: a new one */
    pthread_mutex_t lock; /* of the figures */
    struct redis_figures figures;
};

/* The thread's own part; NULL: this thread has none. */
struct store_thread *store_thread_here(void);
/* Random, never 0. */
uint64_t store_random(struct store_thread *);
/* Can the log of K be asked now? */
bool store_reaches(struct store_thread *, const struct key *);

/* ---- store_log.c ---- */

enum { LOG_KEY = 64 };
struct span log_key(const struct sharing *, const struct key *, char out[LOG_KEY]);
struct span alias_key(const struct sharing *, uint64_t alias, char out[LOG_KEY]);

/* What is asked of a log, and put on it. */
struct ask {
    struct key k;
    struct recordlog known;
    bool blind;        /* what is there is not wanted */
    bool check;        /* events of more may be there already */
    uint64_t after;    /* id of an event of this thread whose answer comes first; 0: none */
    struct span fresh; /* frames that make the log; empty: it is not made */
    struct span more;  /* frames that go on it */
    int64_t ttl;
    uint64_t generation; /* of a new one */
};
struct redis_call *log_ask(struct store_thread *, const struct ask *, int64_t deadline,
                           redis_done_fn *, void *arg);

enum answer_how { ANSWER_NONE, ANSWER_GONE, ANSWER_MADE, ANSWER_HERE, ANSWER_FULL };
struct answer {
    enum answer_how how; /* NONE: it is no answer of ours */
    uint64_t generation;
    uint32_t from;
    bool shorn;        /* of the generation that was known, but without what was known of it */
    struct span bytes; /* of the log, from there on */
    struct span own;   /* what we put behind them */
};
/* Spans lie in the reply and in the ask. */
void answer_read(struct answer *, const struct redisReply *, const struct ask *);

enum taken {
    TAKEN,
    TAKEN_NOTHING, /* there is no record here, and none was to be made */
    TAKEN_AGAIN    /* the record here is not where the answer begins: ask for the whole log */
};
/* The record becomes what the log says. ttl: what was asked for it; it lives on if its record is
 * worth more. make: there is to be one. */
enum { TTL_AS_IT_IS = -1 };
enum taken log_take(struct store_thread *, const struct key *, const struct answer *, int64_t ttl,
                    bool make);

/* Both under the lock. */
void flight_begin(struct sharing *, struct shard *, struct flight *);
uint64_t flight_latest(const struct store_thread *, const struct shard *, const struct key *);
/* Takes it off its list, unless it has not been applied and `only_applied`. */
void flight_end(struct sharing *, const struct key *, struct flight *, bool only_applied);

/* Every struct store_op begins with what ends it early. */
struct store_op_base {
    void (*cancel)(struct store *, struct store_op *);
};

/* ---- store_step.c: struct store_ops ---- */

enum store_state shared_step(struct store *, const struct subject *, struct signals *,
                             store_done_fn *, void *arg, struct store_op **);

/* ---- store_observe.c: struct store_ops ---- */

enum store_state shared_observe(struct store *, const struct observation *,
                                struct replication_signals *out, store_done_fn *, void *arg,
                                struct store_op **);

/* ---- store_redis.c ---- */

void shared_settle(struct store *, const struct key *, const uint64_t *rcpt, const enum fate *,
                   size_t n);
/* What waits of this message goes onto its log before anything else does. */
void shared_hand_in(struct store_thread *, const struct key *);

static inline void store_count(_Atomic uint64_t *c, uint64_t n)
{
    atomic_fetch_add_explicit(c, n, memory_order_relaxed);
}

#endif
