/*
 * guard.h - watches whether we hurt the mail we are to protect, and says how far to step back: a
 * pure state machine, asked once a second.
 *
 *   enforce --a trigger--> monitor --still so, and monitor is no cure--> bypass
 *
 *   connections of the SMTP doors, while it is half as bad as a trigger or worse:
 *   limit -50-> ... -50 every 5 minutes-> 200 --still so after 20 minutes--> 100 --10 more-->
 * bypass
 *     ^------------------- better: +50 every 5 minutes ------------------------------------/
 *
 * What a detector speaks for is capped: beyond its limit it passes, and no mode changes, for a
 * stranger may have sent it. What only a rule says is a trigger, for the rule may be wrong.
 *
 * Criteria and numbers of incident 001 (PlusNet's trials of 2007). Invariant: it never steps up;
 * that is for a person to do, who gives a reason. What was wrong when they did counts anew only
 * after it has been good, or after the window it is measured in.
 */
#ifndef GUARD_H
#define GUARD_H

#include "breakwater.h"

/* What the guard looks at, once a second. Counts are of the window named. */
struct guard_reading {
    uint64_t messages_10m, messages_1m; /* messages that got a reply */
    double added_avg_10m;               /* ms added to a message, average of 10 minutes */
    double own_p99_1m; /* ms until our own reply, 99th percentile of the last minute; 0: no mail */
    uint64_t refused_10m; /* messages throttled or rejected by us, last 10 min, because a rule says
                             so; those of confirmed storms are not counted */
    uint64_t downstream_10m, downstream_errors_10m; /* replies of MTAs behind; 4xx, 5xx or lost */
    uint64_t downstream_1h, downstream_errors_1h;   /* the hour before these 10 minutes */
    uint64_t held;                                  /* copies in the hold queue now */
    int64_t held_growth_5m; /* not explained by confirmed incidents, in 5 minutes */
    uint64_t harmful_10m;   /* holds that are not harmless (DESIGN.md 5), rules of ours and
                               operators' */
    uint64_t loops_10m, replyall_10m, pingpong_10m; /* messages held as these: capped */
    uint64_t floods_10m; /* messages of floods throttled by us, and further copies that could not be
                            held: capped */
    int64_t unaccounted; /* mass balance: recipients that got lost between door and verdict; 0: good
                            (in-flight ones are left out) */
    /* The last minute alone: whether a step back was a cure shows here first. */
    double added_avg_1m; /* ms; of messages_1m */
    double own_p99_10s;  /* as own_p99_1m, of the last 10 seconds; 0: no mail */
    uint64_t downstream_1m, downstream_errors_1m;
};

enum guard_cause {
    GUARD_NONE,
    GUARD_LATENCY,    /* ms added to mail */
    GUARD_QUEUE,      /* the hold queue, and how it grows */
    GUARD_HOLDS,      /* holds that are not harmless */
    GUARD_LOOPS,      /* capped: mail that runs in circles */
    GUARD_REPLYALL,   /* capped: replies to all */
    GUARD_PINGPONG,   /* capped: answers of machines to each other */
    GUARD_FLOODS,     /* capped: 4xx of ours a detector speaks for */
    GUARD_REFUSALS,   /* other 4xx and 5xx of ours */
    GUARD_DOWNSTREAM, /* errors of the MTAs behind */
    GUARD_BALANCE,    /* messages without a verdict */
    GUARD_OWN,        /* ms until our own reply */
    GUARD_FLOOR,      /* few connections have not helped */
    GUARD_CAUSES      /* must be last */
};
/* "latency", "queue", "holds" ... */
const char *guard_cause_name(enum guard_cause);
/* What goes beyond its limit passes; it is no trigger. */
bool guard_caps(enum guard_cause);

/* 0 switches what it limits off. */
struct guard_limits {
    int64_t added;                      /* ms, average of 10 minutes */
    unsigned queue, growth;             /* copies held, and their growth in 5 minutes: both */
    unsigned holds;                     /* in 10 minutes */
    double hold_share;                  /* of the mail of 10 minutes, beyond the first 10 */
    unsigned loops, replyall, pingpong; /* in 10 minutes */
    double refused_share;               /* of the mail of 10 minutes; of floods, and of all else */
    double downstream_factor;           /* times the errors of the hour before ... */
    double downstream_share;            /* ... and at least this share of the replies */
    unsigned least;                     /* refusals, or errors, before their shares count */
    int64_t own;                        /* ms, for a minute */
    unsigned connections;               /* of the SMTP doors as configured; 0: nothing to govern */
};
/* Holds that are not harmless which 10 minutes may see; UINT64_MAX: any number. */
uint64_t guard_holds_allowed(const struct guard_limits *, uint64_t messages_10m);
/* Messages we may refuse in 10 minutes without waiting for the next look; UINT64_MAX: any number.
 * At least 200, for messages_10m may be a second old, and that second the first. */
uint64_t guard_refusals_allowed(const struct guard_limits *, uint64_t messages_10m);

/* How things stand between two steps. Zero is the beginning. */
struct guard_mark {
    int64_t since;   /* over its limit without a break since then; 0: it is not */
    int64_t stays;   /* as bad in the last minute too, in mode monitor, since then; 0: not */
    int64_t unarmed; /* a person knows of it: does not count until then, or until it was good; 0:
                        counts */
    int64_t alarmed[MODE_COUNT]; /* last alarm when the mode became that; 0: none */
};
struct guard {
    enum mode mode; /* as of the last step: the highest of any door */
    bool begun;     /* there was one */
    int64_t known;  /* how far off the balance was when somebody was told */
    struct guard_mark mark[GUARD_CAUSES];

    unsigned connections; /* in force; 0: as configured */
    int64_t stepped;      /* when they last changed */
    int64_t floored;      /* at the floor, and no better, since; 0: not */
    int64_t last;         /* at the last step before bypass since; 0: not */
};

/* What is to be done now. */
struct guard_action {
    enum mode lower;        /* no door may have a higher mode than this; MODE_COUNT: as they are */
    enum guard_cause cause; /* why; GUARD_NONE: nothing but connections */
    bool alarm;             /* somebody should know */
    char reason[240];       /* a sentence with its numbers, without a period; "": none */
    bool govern;            /* connections has changed */
    unsigned connections;   /* 0: as configured */
};
/* now: ms, monotonic, > 0. mode: the highest that is in force; higher than we left it: a person has
 * stepped up, and was told all we know. in_use: connections open now. */
void guard_step(struct guard *, const struct guard_limits *, const struct guard_reading *,
                enum mode mode, unsigned in_use, int64_t now, struct guard_action *);
/* The mail path has used up what it may hold, between two steps: the same as a trigger. */
void guard_trip(struct guard *, enum guard_cause, uint64_t limit, int64_t now,
                struct guard_action *);
/* It has used up what it may hold or throttle of a kind that is capped: somebody should know. */
void guard_cap(enum guard_cause, uint64_t limit, struct guard_action *);

/* One line of "how near is it?", for people. */
struct guard_figure {
    enum guard_cause cause;
    double value, limit; /* limit 0: switched off */
    bool bad;            /* over it; where a cause has two lines, both are needed; capped: never */
    const char *what;    /* "added to a message, average of 10 minutes" */
    const char *unit;    /* "ms", "copies", "%", "recipients" */
};
enum { GUARD_FIGURES = 12 };
void guard_figures(const struct guard_limits *, const struct guard_reading *,
                   struct guard_figure out[GUARD_FIGURES]);
/* 0: bypass, 1: monitor, 2: enforce. */
int guard_rank(enum mode);

#endif
