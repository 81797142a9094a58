/*
 * redis_route.h - which servers there are, and which of them has a key: the only one, the one that
 * Sentinels name, or those of a cluster's map.
 *
 *   cluster    seeds -> CLUSTER SLOTS -> slots[16384]; again after MOVED, a lost server,
 * CLUSTERDOWN Sentinels  one after the other: get-master-addr-by-name -> connect -> ROLE; again
 * after a loss
 *
 * While something lacks it looks again after 100 ms, 200 ms ... 2 s; while nothing does, never.
 */
#ifndef REDIS_ROUTE_H
#define REDIS_ROUTE_H

#include "redis_link.h"

enum { REDIS_LINKS = 128 }; /* servers of a cluster that we know, replicas and gone ones included */

struct redis_route {
    struct event_base *base;
    const struct redis_settings *settings;
    const struct redis_link_owner *owner;
    void *arg;
    struct tls *tls;                       /* NULL: plain, or not usable yet */
    struct redis_link *links[REDIS_LINKS]; /* without a cluster the first is the only one */
    unsigned nlinks, last;                 /* last: that redis_route_any() chose */
    struct event *look;
    int64_t looked, look_in;    /* clock_mono(): the last one; ms from that until the next */
    bool stale;                 /* the map is, or there is none */
    uint8_t slots[REDIS_SLOTS]; /* number of the link + 1; 0: nobody */
    unsigned gaps;              /* slots of nobody */
    struct redis_wait map;      /* waits for CLUSTER SLOTS */
    struct redis_link *map_of;  /* who was asked; NULL: nobody */
    struct redis_link *sentinel;
    size_t sentinel_next;
    struct redis_wait master; /* waits for the master's address */
    char trouble[320];        /* until trouble_until, clock_mono() */
    int64_t trouble_until;
};

/* Begins to connect; what becomes of connections is told to owner. */
void redis_route_begin(struct redis_route *, struct event_base *, const struct redis_settings *,
                       const struct redis_link_owner *, void *arg);
/* Everybody who waits is told. */
void redis_route_end(struct redis_route *);

/* The connection to this server, which is there or is being made; NULL: there are too many. */
struct redis_link *redis_route_to(struct redis_route *, const char *address);
/* One that can be used now; NULL: none. */
struct redis_link *redis_route_any(struct redis_route *);
/* The one of a slot, usable or not; NULL: nobody's. Without a cluster that of all. */
struct redis_link *redis_route_of(const struct redis_route *, uint16_t slot);

/* MOVED: this slot is there now. */
void redis_route_moved(struct redis_route *, uint16_t slot, struct redis_link *);
/* Something is not as we believed: look again. */
void redis_route_doubt(struct redis_route *);
/* To be called when a connection is ready, or lost. false: it is the route's own matter. */
bool redis_route_ready(struct redis_route *, struct redis_link *);
bool redis_route_lost(struct redis_route *, struct redis_link *);

/* Every server that belongs to it can be used, and every slot has one. */
bool redis_route_up(const struct redis_route *);
/* Notes what is wrong with a server, for some time. */
void redis_route_complain(struct redis_route *, const char *address, const char *sentence);
/* What is wrong, or NULL. */
const char *redis_route_trouble(const struct redis_route *);

#endif
