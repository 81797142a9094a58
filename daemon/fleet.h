/*
 * fleet.h - what several nodes with one past tell each other beside mail: a thread of its own, with
 * its own connection to Redis. Nothing of mail waits for it.
 *
 *   bw:1:x:nodes    HASH    name -> document: who there is (written every 2 s; alive: 10 s)
 *   bw:1:x:TOPIC    STREAM  batches: n name, b boot, s number, h hash, t time (ms), d bytes
 *
 *   a topic's collect -> queue, bounded -> XADD \
 *                                                } once a second
 *   a topic's apply <- others' batches <-- XREAD /
 *
 * A batch whose fate is unknown is sent again; who reads drops what he had by boot and number: each
 * comes once, and in order. While Redis is away batches wait; of too many the oldest are dropped
 * and counted.
 *
 * Nodes share only if they judge alike: same site key, same detection parameters, same code of
 * events. Of those that live, the one whose parameters are in force longest is right; one that
 * differs shares nothing, says so once and is shown with the reason. Batches of another hash are
 * not read.
 *
 * Invariant: the thread ends within a second of being asked to, whatever Redis does.
 */
#ifndef FLEET_H
#define FLEET_H

#include "config.h"
#include "json.h"
#include "redis.h"

struct fleet;

/* What it works with; all borrowed for its life. */
struct fleet_setup {
    const struct config *config;
    const struct redis_settings *redis;
    uint32_t key_id;
    void *arg;
    const char *(*mode)(void *arg); /* its name; NULL: unknown */
    json_t *(*figures)(void *arg);  /* an object for the others' status; NULL: none */
    void (*alarm)(void *arg, const char *subject, const char *text); /* NULL: by the log alone */
};
/* Never fails: Redis may come later. */
struct fleet *fleet_new(const struct fleet_setup *);

/* Of one batch. */
enum { FLEET_BATCH = 64 << 10 };
struct fleet_batch {
    struct span node; /* who tells it */
    uint64_t boot;    /* that life of it */
    int64_t at;       /* ms, fleet's clock, never in the future: when it was made */
    bool past;        /* it was there before this node began to read: may have been heard before */
    struct span bytes;
};
/* What nodes tell each other about. Both functions run in the fleet's thread and do not wait. */
struct fleet_topic {
    const char *name; /* a word: part of the stream's key */
    unsigned keep;    /* batches kept in the stream, about */
    int64_t lasts;    /* ms after the last batch the stream is gone from Redis; 0: it stays */
    bool quick;       /* somebody waits for it: five times a second */
    /* The next batch, malloc'd, at most FLEET_BATCH bytes; 0: nothing more now. Some times a
     * second; last: we stop. NULL: only listens. */
    size_t (*collect)(void *arg, bool last, uint8_t **bytes);
    /* Others' batches, in order; not this process's own, but those of a former life of it. */
    void (*apply)(void *arg, const struct fleet_batch *);
};
/* Before fleet_start; at most FLEET_TOPICS. */
enum { FLEET_TOPICS = 8 };
void fleet_tell(struct fleet *, const struct fleet_topic *, void *arg);

/* Asks Redis for the time, at most 300 ms; then the thread begins. Before mail; main thread. */
int fleet_start(struct fleet *, char error[512]) MUSTCHECK;
/* There is something to tell now, not in a second. Any thread. */
void fleet_hurry(struct fleet *);
/* After a reload: the parameters of the new configuration count from now on. Main thread. */
void fleet_reload(struct fleet *, const struct config *);
/* Tells what waits, says that this node is gone; at most a second. */
void fleet_stop(struct fleet **);

/* May this node share its past? false: refused, or not known yet. While Redis is away it stays what
 * it was. Any thread; an atomic load. */
bool fleet_shares(const struct fleet *);
/* And does Redis answer the fleet's thread, so that what is told now is heard now? Any thread. */
bool fleet_speaks(const struct fleet *);

/*
 * {"state":"sharing"|"away"|"refused","why":null|"..","offset_ms":3,"told":n,
 *  "heard":n,"dropped":n,"nodes":[{"name","self","alive","number","version","mode","started",
 *  "seen","shared","why"},..]}; any thread; a new reference. fleet NULL: null.
 */
json_t *fleet_document(struct fleet *);

#endif
