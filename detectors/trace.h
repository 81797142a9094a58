/*
 * trace.h - the Received fields as hops, and the path they describe (detection.md 3, 15).
 *
 * The parser is total: a line it does not understand is still a hop with an event of its own.
 */
#ifndef TRACE_H
#define TRACE_H

#include "fingerprint.h"
#include "site.h"

/* One Received field: one acceptance of the message by one server. Spans lie in the arena, lower
 * case except `line` and `id`. Empty where the field does not say. */
struct hop {
    struct span line; /* unfolded, blanks collapsed: the evidence */
    struct span by, helo, with, id, for_;
    struct ipaddr ip;  /* the client address its writer saw */
    uint64_t event;    /* keyed hash of the line */
    uint64_t for_hash; /* keyed hash of for_, 0 if none */
    int64_t date;      /* seconds since 1970, 0: none; for display only */
    bool reinjected;   /* mail pickup service, POP3, fetchmail ...: taken out of a mailbox */
    bool fetched;      /* and by fetchmail or getmail, which people run for themselves */
    bool local;        /* loopback, localhost, mapi, local, lmtp */
    bool gap;          /* stands for the lines left out between the newest 16 and the oldest 48 */
};

struct trace {
    struct hop *hops;          /* newest first, as in the header */
    size_t nhops;              /* kept, <= LIMIT_HOPS + 1 gap */
    size_t total;              /* Received fields in the header */
    struct span *delivered_to; /* Delivered-To values, lower case */
    size_t ndelivered_to;
};

/* Reads the trace fields of m into the arena. */
void trace_parse(struct trace *, struct arena *, const struct keys *, const struct message *m);
/* One Received value (after the colon), for tests and tables. */
void trace_parse_hop(struct hop *, struct arena *, const struct keys *, struct span value);

/* Was it written by the pickup service of Microsoft's SMTP server? */
#define HOP_PICKUP SPAN("from mail pickup service")
bool hop_pickup(const struct hop *);

/* A host name as a door hands it over (HELO, reverse name), made comparable with those of a trace:
 * lower case, no brackets, no trailing dot; a copy in the arena. */
struct span host_comparable(struct arena *, struct span host);

enum { SERVER_NAME = 127 };

/* One step of a path: one acceptance at one server, oldest first. */
struct node {
    struct span server; /* "host[egress]", or "host" where the egress address is unknown or private;
                           visible ASCII, at most SERVER_NAME bytes: of a longer host the end */
    struct span host;   /* the part before [ */
    uint64_t host_hash; /* SIP_HOST of host */
    uint32_t server_id; /* 32 bits of SIP_HOST of server */
    uint32_t prefix_id; /* 32 bits of Sip(prefix of former, event): equal <=> same acceptance */
    const struct hop *hop; /* NULL: the source node */
    bool own;              /* ours or trusted (or a gap): never blamed */
};

enum { PATH_MAX_NODES = LIMIT_HOPS + 2 };

struct path {
    struct node *node; /* oldest first */
    size_t n;          /* >= 1 */
    bool reinjected;   /* a re-injection hop that is not the oldest */
    unsigned cycle;    /* times the mail went one org -> org edge, if twice or more; else 0 */
};

/* The path of a trace as it reached us from client (its address) saying helo. */
void path_build(struct path *, struct arena *, const struct keys *, const struct site *,
                const struct trace *, const struct ipaddr *client, struct span helo);

#endif
