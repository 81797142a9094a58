/*
 * redis.h - one thread's connections to Redis: one server, the master that Sentinels name, or every
 * shard of a Redis Cluster. Unix socket, TCP or TLS.
 *
 *   calls of one turn of the loop -> one write -> replies in order -> done, once, at the deadline
 *                                                                     at the latest
 *
 * hiredis reads and formats (its reader cannot be made to allocate without bound here); its
 * connections are not used: they have neither deadlines nor TLS, and abort the process when a reply
 * comes that nobody asked for. We drop such a connection and make a new one.
 *
 * Nothing waits: a call that cannot be sent now (not connected, breaker open, too many in flight)
 * is refused, with a reason, in the same turn of the loop. Nothing is sent twice after a connection
 * was lost: nobody knows what became of it. What is followed, within the deadline: MOVED, ASK,
 * TRYAGAIN, NOSCRIPT.
 *
 * The breaker of each server opens after 3 failures in a row, or 20 in a second (a failure: a
 * deadline missed, or the server says that it is loading or down). It lets one PING through each
 * second and closes when that is answered in time.
 *
 * All functions are of the one thread whose loop it is.
 */
#ifndef REDIS_H
#define REDIS_H

#include "redis_settings.h"

struct event_base;
struct redisReply; /* <hiredis/hiredis.h> */

struct redis;
struct redis_call;

/* The settings must stay until redis_close. Never fails: what is wrong is logged and tried again.
 */
struct redis *redis_open(struct event_base *, const struct redis_settings *);
/* Calls that wait are told "closed" first, before this returns. Not to be called by a done. */
void redis_close(struct redis **);

/* Is called exactly once, later, from the loop. The reply is borrowed; it may be an error of the
 * server's (REDIS_REPLY_ERROR) that is none of those below. NULL: there is none, why says so in
 * some words for a log ("deadline", "busy", "not connected", "LOADING" ...). After this the call's
 * handle is no longer valid. */
typedef void redis_done_fn(void *arg, const struct redisReply *, const char *why);

enum { REDIS_ARGS = 256 };
/*
 * Sends one command of at most REDIS_ARGS words, which are copied. key picks the shard, by its
 * {hash tag} if it has one; empty: any server. deadline_ms 0: the configured one. done NULL: nobody
 * wants to know (the reply is counted). Returns a handle for redis_forget.
 *
 * NULL with a reason, not a reply: LOADING, CLUSTERDOWN, MASTERDOWN, READONLY, NOAUTH, WRONGPASS,
 * NOPERM, OOM, MISCONF, and a redirection that leads nowhere.
 */
struct redis_call *redis_send(struct redis *, struct span key, const struct span *argv, size_t argc,
                              int64_t deadline_ms, redis_done_fn *, void *arg);
/* done is not called any more. The command may have been carried out or not. */
void redis_forget(struct redis_call **);

/* A script by its text; redis_script_ready once, before threads use it. */
struct redis_script {
    const char *text;
    char sha[41];
};
void redis_script_ready(struct redis_script *);
/* Runs it with KEYS[1] = key (none if it is empty) and ARGV = argv: EVALSHA, and EVAL with the text
 * where the server does not know it yet. */
struct redis_call *redis_run(struct redis *, const struct redis_script *, struct span key,
                             const struct span *argv, size_t argc, int64_t deadline_ms,
                             redis_done_fn *, void *arg);

/* All shards are connected and their breakers closed. */
bool redis_up(const struct redis *);
/* The shard of this key is. */
bool redis_reaches(const struct redis *, struct span key);
/* What is wrong, for people, or NULL: nothing; until the next call of the loop. */
const char *redis_trouble(const struct redis *);

/* Why calls had no reply. */
enum redis_fault {
    REDIS_NO_FAULT,
    REDIS_NOT_CONNECTED, /* or its breaker was open */
    REDIS_BUSY,          /* too many in flight */
    REDIS_DEADLINE,
    REDIS_LOST,     /* the connection, while it waited */
    REDIS_LOADING,  /* LOADING, MASTERDOWN, CLUSTERDOWN */
    REDIS_READONLY, /* not the master any more */
    REDIS_DENIED,   /* NOAUTH, WRONGPASS, NOPERM */
    REDIS_FULL,     /* OOM, MISCONF: it takes no writes */
    REDIS_ASTRAY,   /* redirected too often, or to nowhere */
    REDIS_FAULTS    /* must be last */
};
const char *redis_fault_name(enum redis_fault);

enum { REDIS_TIMES = 22 };
struct redis_figures {
    unsigned servers, up;           /* that belong to it now; connected, breaker closed */
    uint64_t calls, replies;        /* replies: errors of the server's included */
    uint64_t faults[REDIS_FAULTS];  /* calls without a reply */
    uint64_t errors;                /* replies that were errors */
    uint64_t connections;           /* made, in all */
    uint64_t openings;              /* of breakers */
    uint64_t redirections, scripts; /* MOVED, ASK, TRYAGAIN followed; texts sent */
    uint64_t broken;                /* connections dropped for bytes that were no reply to us */
    uint64_t late;                  /* replies that came after their deadline */
    uint64_t time[REDIS_TIMES];     /* replies by time: [i] in less than 2^i us; the last: longer */
};
void redis_figures(const struct redis *, struct redis_figures *);

#endif
