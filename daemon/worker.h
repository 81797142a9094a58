/*
 * worker.h - the mail threads: each its own libevent base, keys, mailbox and connections. Thread 0
 * accepts and hands connections round robin to the others. A worker never blocks.
 */
#ifndef WORKER_H
#define WORKER_H

#include <event2/bufferevent.h>
#include <event2/event.h>

#include "tx.h"

/* An open connection, as its worker knows it. A door embeds it in its session. */
struct connection {
    struct connection *next, **at;                /* private */
    void (*leave)(struct connection *, bool now); /* we stop: end now, or after the message */
};

/* A letter that asks a thread whether it still opens its letters. */
struct call {
    struct letter letter;   /* must be first */
    _Atomic int64_t posted; /* monotonic ms; 0: it is with us, answered */
};

struct worker {
    unsigned number;
    struct event_base *base;
    struct mailbox *mailbox;
    struct keys keys;
    struct pipeline *pipeline;
    struct store_thread *past; /* its part of a past that is shared; NULL: it is not */
    struct config *config;     /* what new transactions pin; swapped by reload */
    struct connection *connections;
    _Atomic unsigned sessions; /* how many those are */
    bool leaving;              /* stopping: no message is begun after this one */
    struct call call;
};

/* A door: what to do with a new connection. Takes the fd. Runs in the worker's thread. */
typedef void door_accept_fn(struct worker *, int fd, const struct listener *);
/* By enum door_kind; the table is doors.c, above all doors. */
extern door_accept_fn *const door_accepts[];

/* A door's connection begins and ends. Both in the worker's thread. */
void worker_join(struct worker *, struct connection *,
                 void (*leave)(struct connection *, bool now));
void worker_part(struct worker *, struct connection *);

struct workers;
/* Opens the listeners and starts the threads. NULL after a sentence in error. */
struct workers *workers_start(struct config *, struct pipeline *, char error[512]);
/* New transactions use `config` from now on (one reference is taken); running ones keep theirs. */
void workers_reload(struct workers *, struct config *config);
/* Stops accepting, lets sessions end (at most `ms`), joins the threads. Figures can still be asked.
 */
void workers_stop(struct workers *, int64_t ms);
/* After workers_stop: ends the sessions that did not end in time. What they still have to say to
 * the keeper they say now. */
void workers_hang_up(struct workers *);
/* After workers_stop: opens the letters that still came in; false: there were none. */
bool workers_letters(struct workers *);
/* After the keeper has stopped: its last letters are opened, then everything goes. */
void workers_free(struct workers **);
unsigned workers_sessions(const struct workers *);
/* Calls every thread that has answered the call before, and says for how long (ms) the one that has
 * owed its answer longest has; 0: none does. One thread only. */
int64_t workers_call(struct workers *, int64_t mono);

#endif
