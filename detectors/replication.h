/*
 * replication.h - who already got this message, by which paths, and whose fault another copy is
 * (detection.md 4 and 5).
 *
 *   record (the past of one K) + observation (this transaction) -> signals, changed record
 *
 * replication_observe() is the one place that decides; the memory store calls it under a shard
 * lock, and nodes that share one past fold its events with it (event.h). It is pure: no clock, no
 * I/O, no memory but the record's.
 */
#ifndef REPLICATION_H
#define REPLICATION_H

#include "blame.h"

extern const struct detector replication_detector;

/* Builds the observation from the answers to what replication_detector.count asked. */
void replication_observation(struct observation *, const struct subject *,
                             const struct tallies *answers);

/* Recipients of one transaction whose organisations are looked at; the rest go with the others. */
enum { ENTRIES_EACH = 1024 };

/* What a record cannot know, of recipient i or of the whole transaction: does the long memory think
 * that he had the message; is he never held; how many of them does the message show; which list is
 * it of (a keyed hash; 0: none). Answered from o->witness where that is there. */
bool observation_had(const struct observation *, size_t i);
bool observation_exempts(const struct observation *, size_t i);
size_t observation_visible(const struct observation *);
uint32_t observation_list(const struct observation *);

enum observed {
    OBSERVED_OK,
    OBSERVED_CONFLICT /* the same K, another content: repeat with the next K' */
};

/*
 * Judges one transaction against the record and changes the record: every recipient's copy is seen,
 * and pending until it is settled. out is overwritten; out->copy lies in the subject's arena, one
 * per envelope recipient. On OBSERVED_CONFLICT nothing is changed.
 */
enum observed replication_observe(struct record *, const struct observation *,
                                  struct replication_signals *out);

/*
 * What others may tell or ask the past in this detector's words: a server (its id) is a known
 * replicator for the next `life` ms; how much ordinary mail came through a host (SIP_HOST of its
 * name).
 */
struct tally replication_known_tally(uint32_t server, int64_t life);
struct tally replication_ordinary_tally(uint64_t host);

/* What is known of one message, for people. */
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

#endif
