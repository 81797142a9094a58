/*
 * fleet_own.h - the inside of the fleet's thread, shared by fleet.c (the thread), fleet_registry.c
 * (who there is, and what time it is) and fleet_stream.c (what topics tell and hear). Include
 * fleet.h before it.
 */
#ifndef FLEET_OWN_H
#define FLEET_OWN_H

#include <pthread.h>
#include <stdatomic.h>

#include <event2/event.h>

#include "fleetclock.h"
#include "mailbox.h"
#include "members.h"

enum { FLEET_DEADLINE = 1000 /* ms */, FLEET_KEY = 160, FLEET_ID = 48, FLEET_HEARD = 256 };

/* A batch on its way out. */
struct outgoing {
    struct outgoing *next;
    uint64_t number;
    int64_t at; /* ms */
    size_t n;
    uint8_t bytes[];
};

/* The last batch heard of one life of a node. */
struct heard {
    uint64_t boot, number;
    int64_t at; /* ms, monotonic */
};

struct stream {
    struct fleet *fleet;
    const struct fleet_topic *topic;
    void *arg;
    char key[FLEET_KEY];
    struct outgoing *first, **end;
    size_t waiting;  /* bytes in the queue */
    uint64_t number; /* of the next batch */
    struct redis_call *telling, *reading;
    char last[FLEET_ID]; /* id of the last entry read */
    uint64_t last_ms;    /* its time */
    struct heard heard[FLEET_HEARD];
    bool said; /* that something is wrong with it */
};

enum fleet_state { FLEET_AWAY, FLEET_SHARING, FLEET_REFUSED };

struct fleet {
    struct fleet_setup setup;
    struct event_base *base;
    struct mailbox *mailbox;
    struct redis *redis;
    struct event *second, *quick, *end;
    pthread_t thread;
    struct stream stream[FLEET_TOPICS];
    size_t nstreams;
    char nodes_key[FLEET_KEY];
    struct fleetclock clock;
    struct redis_call *timing, *listing, *greeting, *sizing;
    int64_t asked_own, asked_mono; /* TIME was asked then */
    int64_t timed;                 /* monotonic ms: the last round of it */
    int64_t joined;                /* ms, Redis': we began to read; 0: not yet */
    int64_t greeted;               /* monotonic ms: our document was last taken; 0: never */
    unsigned seconds;
    bool stopping;
    bool refused; /* and that was said */
    bool listed;  /* the registry was read once */
    bool forgets; /* Redis gives up what is young when it is full, and that was said */
    _Atomic bool shares, speaks, hurried;
    pthread_mutex_t lock; /* of what fleet_document() shows */
    struct members members;
    struct member me;
    enum fleet_state state;
    char why[320];       /* not sharing; "": no reason */
    int64_t now, offset; /* ms: fleet_time() and the clock's offset, of this second */
    uint64_t told, heard, dropped;
};

struct fleet_letter {
    struct letter letter; /* must be first */
    struct fleet *fleet;
};

/* ms on the clock of the fleet. */
int64_t fleet_time(const struct fleet *);

/* fleet_registry.c */
void fleet_enter(struct fleet *, enum fleet_state, const char *why);
void fleet_ask_time(struct fleet *);
void fleet_greet(struct fleet *); /* reads the registry, then writes ours into it */
void fleet_leave(struct fleet *, redis_done_fn *done);

/* fleet_stream.c */
void stream_collect(struct stream *, bool last);
void stream_tell(struct stream *);
void stream_read(struct stream *);
void stream_drop_all(struct stream *);

/* If the error is that a key of ours holds something else, that is renamed, and said; never
 * deleted. false: it is another error. */
bool fleet_set_aside(struct fleet *, const char *key, struct span error);

#endif
