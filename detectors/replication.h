/*
 * replication.h - who already got this message, by which paths, and whose fault another copy is
 * (detection.md 4 and 5).
 *
 *   record (the past of one K) + observation (this transaction) -> signals, changed record
 *
 * replication_observe() is the one place that decides; the memory store calls it under a shard
 * lock, Redis will run the same as a script. It is pure: no clock, no I/O, no memory but the
 * record's.
 */
#ifndef REPLICATION_H
#define REPLICATION_H

#include "detector.h"

extern const struct detector replication_detector;

struct record; /* the past of one message; heap memory of its own */

/* What the store is asked. Pointers live as long as the tx. */
struct observation {
    const struct subject *subject;
    const uint32_t *ordinary; /* per path node: messages seen through this host in normal flow */
    const bool *known; /* per path node: convicted in another storm, at most known_server ago */
    bool transit;      /* the peer is a transit relay: never "quick"-convicted */
};

/* Builds the observation from the answers to what replication_detector.count asked. */
void replication_observation(struct observation *, const struct subject *,
                             const struct tallies *answers);

enum observed {
    OBSERVED_OK,
    OBSERVED_CONFLICT /* the same K, another content: repeat with the next K' */
};

struct record *record_new(int64_t now);
void record_free(struct record **);
size_t record_bytes(const struct record *); /* memory it holds */
/* How long it may rest unused: ttl_plain, ttl_dup or ttl_storm. */
int64_t record_ttl(const struct record *, const struct site *);

/*
 * Judges one transaction against the record and changes the record: every recipient's copy is seen,
 * and pending until commit or abort. out->copy is allocated by the callee (subject's arena), one
 * per envelope recipient. On OBSERVED_CONFLICT nothing is changed.
 */
enum observed replication_observe(struct record *, const struct observation *,
                                  struct replication_signals *out);

/* What became of one recipient's copy. */
enum fate {
    FATE_PASSED,  /* handed on: downstream's 2xx, or our milter reply */
    FATE_HELD,    /* in the hold queue (or would be, in monitor mode) */
    FATE_ABORTED, /* refused or lost: its next try is the first again, allowances are given back */
};
void record_settle(struct record *, const uint64_t *rcpt, const enum fate *, size_t n);

/* Who is to blame, for people. All text in the arena. */
struct culprit {
    struct span relay; /* "host[address]", or "one of a -> b -> c" when no name is clear */
    bool named;        /* a name, not a site */
    double score;
    uint32_t detours;  /* "copies" through it on which this rests */
    const char *grade; /* "seen directly", "reported by 3 independent relays", "claimed by one relay
                          only" */
    const char *conviction; /* or NULL */
    const char **evidence;  /* nevidence sentences */
    size_t nevidence;
};
struct report {
    int64_t first, last;           /* ms */
    uint64_t copies, passed, held; /* (message, recipient) arrivals */
    uint64_t duplicates;
    uint32_t recipients; /* distinct */
    uint32_t without;    /* recipients of whom no copy passed */
    bool storm;
    struct culprit *culprits; /* named first, best first */
    size_t nculprits;
};
void replication_report(const struct record *, const struct site *, struct arena *,
                        struct report *out);
/* Did a copy pass to this recipient (keyed address hash)? For "one per recipient". */
bool record_passed(const struct record *, uint64_t rcpt);

#endif
