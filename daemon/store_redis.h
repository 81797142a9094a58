/*
 * store_redis.h - the past of several nodes: the memory store of each, and between them Redis,
 * which keeps of every message the log of its events in order (recordlog.h). Every node folds the
 * same log with the same code, so every node decides the same.
 *
 *   bw:1:m:{K}   the log of a message
 *   bw:1:a:A     what an alias points at (aliases.h): at most 4, newest first, each
 *                K[12] join[1] weak[1]
 *
 *   a message -> its event onto the log of K  ->  what others put there before it, then it, are
 *                                                 applied to the record here: its signals
 *
 * A known message costs one round trip, and so does a new one whose aliases point nowhere; one that
 * joins another record two or three. What becomes of copies is an event as well, not waited for.
 *
 * Where Redis does not answer in time the memory store decides alone, as if there were no other
 * node (signals.degraded); its events wait in the outbox and are put onto their logs when Redis is
 * back. A log that was lost is made again from the record of a node that has it.
 *
 * Invariants: no message waits longer than the deadline, and none at all while the breaker is open.
 * A record whose log is known (recordlog.generation) is the fold of the log up to that offset.
 */
#ifndef STORE_REDIS_H
#define STORE_REDIS_H

#include "redis.h"
#include "store.h"

/* The memory store shares its past from now on: before traffic. It stays what it is for all of
 * store.h. The settings must stay until it is closed. */
void store_redis_share(struct store *memory, const struct redis_settings *,
                       const uint8_t site_key[32]);

/* One mail thread's part: its connections. NULL if the store does not share. Opened and closed
 * while the loop does not run; what was not handed in by then is lost. */
struct store_thread;
struct store_thread *store_thread_open(struct store *, struct event_base *);
/* The calls of this thread go through it: in the thread, before its loop. */
void store_thread_enter(struct store_thread *);
void store_thread_close(struct store_thread **); /* NULL inside is fine */
struct redis *store_thread_redis(struct store_thread *);

/* May it share now? false: it judges alone (nodes that do not judge alike must not share). Any
 * thread; begins with true. */
void store_redis_allow(struct store *, bool);

struct store_redis_figures {
    bool away;         /* it judges alone, or some thread of it does */
    uint64_t asked;    /* messages judged with the shared past */
    uint64_t degraded; /* judged without it */
    uint64_t waiting;  /* events in the outbox */
    uint64_t waiting_bytes;
    uint64_t lost;              /* events it had no room for */
    uint64_t handed_in;         /* events of messages judged alone that got onto their logs later */
    uint64_t joined;            /* messages that went to the record of another one */
    uint64_t compacted;         /* logs, by this node */
    uint64_t remade;            /* logs that were lost and made again from a record here */
    uint64_t full;              /* events that had no room on their log */
    struct redis_figures redis; /* of all threads together */
};
/* false: the store does not share. Any thread. */
bool store_redis_figures(struct store *, struct store_redis_figures *);

#endif
