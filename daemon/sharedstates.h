/*
 * sharedstates.h - conversations and pairs of the whole fleet: states (states.h) whose truth is in
 * Redis. The detectors step them here, in C; Redis only says whether somebody else was faster.
 *
 *   bw:1:s:{DETECTOR-KEY}   STRING   version[8] of the bytes[4] used[8] the state
 *                                    (version: random; of the bytes: the detector's state_version)
 *
 *   ask, in the tick of the observation: GET each   (which is a superset: what a further copy
 *                                                    does not touch is not stepped)
 *   go, once it is observed: step each -> compare and set: changed meanwhile? again, from what is
 *                                         there now; 3 rounds, and no longer than the deadline
 *
 * What is shared loosely (struct about) is written without waiting, and its step is lost if
 * somebody was faster. Where Redis does not answer, and after the last round, the state here is
 * stepped; it is a copy of the last one seen, so a lost key begins anew from there.
 *
 * Invariant: without Redis it is exactly states_step().
 */
#ifndef SHAREDSTATES_H
#define SHAREDSTATES_H

#include "redis.h"
#include "states.h"

struct shared_steps; /* of one message; lies in the subject's arena */

/* Asks for the states the message may touch. NULL: none that is shared. All of it must stay until
 * the end. */
struct shared_steps *shared_steps_ask(struct redis *, const struct redis_settings *,
                                      struct states *, const struct subject *);
/* All steps of all detectors, into signals, which hold the observation. true: they are made; false:
 * done is called when they are, from the loop. */
typedef void shared_steps_fn(void *arg);
bool shared_steps_go(struct shared_steps *, struct signals *, shared_steps_fn *done, void *arg);
/* In any state: done is not called any more. NULL inside is fine. */
void shared_steps_end(struct shared_steps **);

struct shared_steps_figures {
    uint64_t steps;     /* of states in Redis */
    uint64_t conflicts; /* somebody was faster */
    uint64_t alone;     /* steps made on the state here, for want of an answer in time */
};
void shared_steps_figures(struct shared_steps_figures *); /* of the process; any thread */

#endif
