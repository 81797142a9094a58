/*
 * fleetclock.h - how far this machine's clock is from Redis', so that what all nodes observe lies
 * on one time axis. Pure: answers come in, an offset comes out.
 *
 *   TIME, three times -> median -> target;   each second the offset goes some way to the target
 *
 * A target that jumps (Redis failed over to a machine with another clock) is believed when three
 * rounds in a row say the same. Invariant: after the first round the offset never moves faster than
 * half a second back, or one second ahead, in a second.
 */
#ifndef FLEETCLOCK_H
#define FLEETCLOCK_H

#include "breakwater.h"

enum { FLEETCLOCK_ASKS = 3, FLEETCLOCK_JUMP = 5000 /* ms */ };

struct fleetclock {
    int64_t ask[FLEETCLOCK_ASKS]; /* offsets of this round */
    unsigned nasks;
    bool known;             /* there was a round */
    int64_t target, offset; /* ms that Redis is ahead of us; where we are with that */
    int64_t doubted;        /* a target that is not believed yet ... */
    unsigned rounds;        /* ... and how many rounds in a row said so */
};

enum fleetclock_said {
    FLEETCLOCK_MORE,   /* ask again */
    FLEETCLOCK_FIRST,  /* the first round: the offset is the target at once */
    FLEETCLOCK_GOOD,   /* a round */
    FLEETCLOCK_DOUBT,  /* a jump, not believed yet */
    FLEETCLOCK_JUMPED, /* believed */
};
/* An answer of TIME: when it was asked on our own clock (clock_own()), how long it took, and what
 * it was; all ms. One that took longer than a second tells nothing. */
enum fleetclock_said fleetclock_hear(struct fleetclock *, int64_t asked, int64_t took,
                                     int64_t theirs);
/* A round that was not finished is not. */
void fleetclock_again(struct fleetclock *);
/* A second has passed; true: the offset moved. */
bool fleetclock_step(struct fleetclock *);

#endif
