/*
 * redis_link.h - one connection to one Redis server, or Sentinel: made, greeted, written, read,
 * lost and made again.
 *
 *   DOWN -> CONNECTING [-> TLS] -> GREETING: AUTH, SELECT, ROLE, PING -> READY
 *    ^ after 100 ms .. 10 s            any failure, or 2 s                |
 *    +--------------------------------------------------------------------+
 *
 * Replies come in the order of the commands: each command leaves a redis_wait at the end of the
 * line, each reply is for the first in it. Who does not want its reply any more stays in the line.
 * A reply when nobody waits, bytes that are no reply, a reply of more than 64 MB, a million
 * elements or 7 levels, and one that is late by more than a second end the connection.
 */
#ifndef REDIS_LINK_H
#define REDIS_LINK_H

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <hiredis/hiredis.h>
#include <sys/queue.h>

#include "prompt.h"
#include "redis_cluster.h"
#include "redis_settings.h"
#include "tls.h"

/* One that waits for one reply: embedded in what its owner knows of it. */
struct redis_wait {
    TAILQ_ENTRY(redis_wait) next;
    /* Called once; the wait is its owner's again. reply NULL: the connection was lost. */
    void (*answer)(struct redis_wait *, const redisReply *);
    int64_t due; /* clock_mono() */
};
TAILQ_HEAD(redis_waits, redis_wait);

enum redis_state { REDIS_DOWN, REDIS_CONNECTING, REDIS_GREETING, REDIS_READY };

/* What becomes of a connection; none of these may free it. */
struct redis_link;
struct redis_link_owner {
    void (*ready)(void *arg, struct redis_link *);
    void (*lost)(void *arg, struct redis_link *);    /* or could not be made */
    void (*written)(void *arg, struct redis_link *); /* there are bytes to flush */
};

struct redis_reader {
    redisReader *hiredis; /* NULL: not connected */
    redisReplyObjectFunctions make;
    void *(*array)(const redisReadTask *, int); /* hiredis' own */
    size_t elements, bytes;                     /* of the reply that is not complete */
};

struct redis_breaker {
    bool open, probing;
    unsigned row;     /* failures since the last good reply */
    unsigned number;  /* failures since second */
    int64_t second;   /* clock_mono() */
    int64_t probe_at; /* when the next PING leaves */
};

struct redis_link {
    struct event_base *base;
    const struct redis_settings *settings;
    struct tls *tls; /* NULL: plain */
    const struct redis_link_owner *owner;
    void *arg;
    bool sentinel;   /* it is one: greeted without SELECT */
    bool master;     /* it has to be a master: ROLE says */
    bool persistent; /* makes itself again when it is lost */
    bool used;       /* its owner wants it now */
    uint8_t number;  /* its owner's */

    char address[REDIS_ADDRESS];
    enum redis_state state;
    struct bufferevent *bev;
    struct prompt prompt;
    struct redis_reader reader;
    struct evbuffer *out; /* of this turn of the loop */
    struct redis_waits waits;
    unsigned nwaits;
    struct event
        *timer;      /* DOWN: the next try; until READY: its end; then: what is late, the probe */
    int64_t backoff; /* ms until the next try, without jitter */
    int64_t ready_since; /* clock_mono(); 0: this connection was not READY, or not yet */
    struct redis_breaker breaker;
    char trouble[192]; /* why it is not up; empty: it is, or was not tried yet */
    uint64_t connections, openings, broken;
};

/* A connection that is not made yet. tls is held if it is not NULL. */
struct redis_link *redis_link_new(struct event_base *, const struct redis_settings *, struct tls *,
                                  const struct redis_link_owner *, void *arg);
/* Whoever waits is told first. */
void redis_link_free(struct redis_link **);

/* Connects to this address ("127.0.0.1:6379", "unix:/path"), unless it does already. */
void redis_link_connect(struct redis_link *, const char *address);
/* Disconnects, if it is not down; whoever waits is told, the owner is not. */
void redis_link_rest(struct redis_link *);
/* The same because of what came, or did not; the owner is told, and it is made again. */
void redis_link_fail(struct redis_link *, const char *why);

/* One command, READY or not; the wait comes at the end of the line. */
void redis_link_send(struct redis_link *, struct redis_wait *, const char *bytes, size_t n);
/* What was sent leaves. */
void redis_link_flush(struct redis_link *);

/* A deadline was missed, or a reply says that the server cannot work now. */
void redis_link_bad(struct redis_link *);
/* A reply came in time. */
static inline void redis_link_good(struct redis_link *l)
{
    l->breaker.row = 0;
}
static inline bool redis_link_up(const struct redis_link *l)
{
    return l->state == REDIS_READY && !l->breaker.open;
}

/* What stays wrong until somebody acts: every thread meets it, one says so, once a minute. */
void redis_complain(_Atomic int64_t *said, const char *address, const char *sentence);

/* What the reader makes of bytes; redis_link and its fuzz target. */
void redis_reader_open(struct redis_reader *);
void redis_reader_close(struct redis_reader *);
/* false: no more of this connection can be read. */
bool redis_reader_feed(struct redis_reader *, struct span);
/* The next complete reply in *reply, for freeReplyObject; NULL: there is none yet. false: the bytes
 * are no reply, or too much of one. */
bool redis_reader_next(struct redis_reader *, redisReply **reply);

#endif
