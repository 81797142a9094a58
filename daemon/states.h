/*
 * states.h - what detectors keep of conversations, pairs and relays, in process: blocks of plain
 * bytes by key, bounded; the longest untouched goes first. Thread-safe, sharded.
 */
#ifndef STATES_H
#define STATES_H

#include "detector.h"

struct states;

struct states *states_new(uint64_t bytes);
void states_free(struct states **);
/* All steps of all detectors for one message: each state atomically, no two locks at once. */
void states_step(struct states *, const struct subject *, struct signals *);
/* One of these steps. */
void states_step_one(struct states *, uint32_t detector, const struct about *,
                     const struct subject *, struct signals *);
/* The same in two parts, for a state that is not only here: its bytes, and when it was last used
 * (false: there is none; zeroed); and what became of it. detector: its index in detectors[]. */
bool states_get(struct states *, uint32_t detector, const struct about *, int64_t now, void *bytes,
                int64_t *used);
void states_set(struct states *, uint32_t detector, const struct about *, const void *bytes,
                int64_t used);
/* Forgets what has outlived its life; about once a second. */
void states_tick(struct states *, int64_t now);
uint64_t states_used(const struct states *, uint64_t *bytes);

/* Forgets everything. Mail may go on meanwhile. */
void states_clear(struct states *);

/* For snapshots: every state, and one put back (detector by name; one of an unknown detector, of
 * another version or size, or that is not sound is skipped: false). */
struct state_row {
    const char *detector;
    unsigned version; /* the detector's state_version */
    uint64_t key;
    int64_t used, life; /* ms */
    struct span bytes;
};
typedef void state_fn(void *arg, const struct state_row *);
void states_each(struct states *, state_fn *, void *arg); /* fn runs under a shard lock */
bool states_put(struct states *, const struct state_row *);

#endif
