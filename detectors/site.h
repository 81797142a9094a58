/*
 * site.h - what is ours, whom we trust, and the detectors' parameters (detection.md 3.4 and 12).
 *
 * Built by the configuration, read-only afterwards. All names are lower case.
 */
#ifndef SITE_H
#define SITE_H

#include "span.h"

struct netmask {
    struct ipaddr addr;
    uint8_t bits; /* 0..128, counted on the mapped form: an IPv4 /24 is 120 */
};

struct site {
    struct span node;       /* name of this node, for evidence */
    struct span *own_hosts; /* exact host names */
    size_t nown_hosts;
    struct span *own_domains; /* registrable domains: a host below one is ours */
    size_t nown_domains;
    struct netmask *own_nets;
    size_t nown_nets;
    struct span *trusted; /* host names or domains of trusted relays */
    size_t ntrusted;
    struct netmask *trusted_nets;
    size_t ntrusted_nets;
    struct span *exempt; /* recipients counted but never held: "postmaster@*", full addresses */
    size_t nexempt;

    /* replication (detection.md 12) */
    unsigned a_extra, a_same, a_resend, a_list, a_internal;
    unsigned quick_rcpts, quick_domains;
    double quick_visible;
    unsigned storm_dups;
    int64_t ttl_plain, ttl_dup, ttl_storm, known_server; /* ms */
    unsigned name_min_detours;
    double name_min_score, name_margin;
    unsigned bloom_days;     /* the long memory */
    double bloom_error;      /* of all its generations together */
    int64_t relay_probation; /* ms */

    /* reply-all (detection.md 8) */
    unsigned replyall_audience; /* people from which on a conversation is watched */
    int64_t replyall_lasts;     /* ms: the longest storm; and how long it counts as just over */

    /* ping-pong (detection.md 9): answers of the slower side to the other's, in an hour */
    unsigned pingpong_marked; /* both are marked as machines; twice as many if one is */
    unsigned pingpong_same;   /* both say the same again */
    unsigned pingpong_plain;  /* neither: the mail is tagged */
};

/* Of the parameters by which nodes that share one past have to judge alike; 0 is no hash. */
uint64_t site_parameters_hash(const struct site *);
/* Fills in the defaults of detection.md 12; lists empty but exempt = postmaster@*, abuse@*: a
 * constant list, to be replaced, never grown or freed. */
void site_defaults(struct site *);
/* Is this host one of ours or trusted (exact name, or below one of the domains)? */
bool site_trusts_host(const struct site *, struct span host);
/* Is it one of ours (own_hosts, own_domains)? */
bool site_owns_host(const struct site *, struct span host);
bool site_trusts_addr(const struct site *, const struct ipaddr *);
/* Is it in this one list: below one of own_domains, exactly one of own_hosts, below one of trusted,
 * in one of own_nets, in one of trusted_nets? */
bool site_has_domain(const struct site *, struct span host);
bool site_has_host(const struct site *, struct span host);
bool site_has_trusted(const struct site *, struct span host);
bool site_has_addr(const struct site *, const struct ipaddr *);
bool site_has_trusted_addr(const struct site *, const struct ipaddr *);
/* Does the address match an exempt pattern ("*" for either side of the @)? */
bool site_exempt(const struct site *, struct span address);
/* The registrable domain of a host (lower case; libpsl): "mx.a.co.uk" is "a.co.uk". An address, a
 * single label, a public suffix and whatever is no DNS name are themselves. */
struct span host_org(struct span host);
/* Its first label: "a"; of an address all of it. */
struct span host_orglabel(struct span host);

/* localhost, localhost.localdomain, 127.0.0.1 ... */
bool host_loopback(struct span host);

/* Addresses: text to struct and back. */
enum { IPADDR_TEXT = 48 };
bool ipaddr_parse(struct ipaddr *, struct span); /* "192.0.2.1", "IPv6:::1", "2001:db8::1" */
size_t ipaddr_print(const struct ipaddr *,
                    char out[IPADDR_TEXT]);  /* bytes without the NUL; "" for family 0 */
bool ipaddr_private(const struct ipaddr *);  /* RFC 1918, loopback, link-local, fc00::/7 */
bool ipaddr_loopback(const struct ipaddr *); /* 127/8, ::1 */
bool netmask_parse(struct netmask *, struct span);
bool netmask_has(const struct netmask *, const struct ipaddr *);

#endif
