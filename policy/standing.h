/*
 * standing.h - what a relay is held to be, as a pure state machine.
 *
 *   clean -> suspect -> misbehaving -> said-fixed -> probation -> clean
 *                            ^______________|____________|   any new detour: relapse, at once
 *
 *   suspect, misbehaving or said-fixed without a sign of it for long: clean by itself
 */
#ifndef STANDING_H
#define STANDING_H

#include "breakwater.h"

enum standing_state {
    STANDING_CLEAN,
    STANDING_SUSPECT,     /* blamed, not convicted, not named */
    STANDING_MISBEHAVING, /* convicted, and named or in a storm */
    STANDING_SAID_FIXED,  /* a person said so; no mail of it was seen since */
    STANDING_PROBATION,   /* mail of it was seen since; no allowance for further copies */
    STANDING_STATES       /* must be last */
};

struct standing {
    enum standing_state state;
    int64_t since;     /* ms: in this state */
    int64_t seen;      /* ms: last copy blamed on it */
    int64_t said;      /* ms: when a person said it is fixed; 0: never */
    unsigned relapses; /* times it came back after it was said to be fixed, or after clean */
    bool was;          /* it has misbehaved before */
};

enum standing_event {
    STANDING_BLAMED,    /* a detour is blamed on it */
    STANDING_CONVICTED, /* it is convicted, or named in a storm */
    STANDING_SAID,      /* a person says it is fixed */
    STANDING_UNSAID,    /* a person takes that back */
    STANDING_MAIL,      /* ordinary mail came through it */
    STANDING_TIME,      /* nothing but time */
    STANDING_EVENTS     /* must be last */
};
struct standing_times {
    int64_t probation; /* ms; default 30 d */
    int64_t suspect;   /* ms until a suspect is clean again; default 7 d */
    int64_t memory;    /* ms until a misbehaving one that is silent is clean again; default 400 d */
};
extern const struct standing_times standing_defaults;
/* True if the state changed. */
bool standing_step(struct standing *, enum standing_event, int64_t now,
                   const struct standing_times *);
/* Is it to be treated as a known replicator: no allowance for further copies through it? */
bool standing_known(const struct standing *);
/* "clean", "suspect", "misbehaving", "said-fixed", "probation"; and back: false: none of these. */
const char *standing_name(enum standing_state);
bool standing_find(const char *name, enum standing_state *);

#endif
