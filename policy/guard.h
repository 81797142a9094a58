/*
 * guard.h - what the guard looks at. Types only, so far as others need them.
 */
#ifndef GUARD_H
#define GUARD_H

#include <stdint.h>

/* What the guard looks at, once a second. Counts are of the window named. */
struct guard_reading {
    uint64_t messages_10m, messages_1m; /* messages that got a reply */
    double added_avg_10m;               /* ms added to a message, average of 10 minutes */
    double own_p99_1m; /* ms until our own reply, 99th percentile of the last minute; 0: no mail */
    uint64_t refused_10m; /* throttled or rejected by us (recipients' messages), last 10 min; those
                             of confirmed storms are not counted */
    uint64_t downstream_10m, downstream_errors_10m; /* replies of MTAs behind; 4xx, 5xx or lost */
    uint64_t downstream_1h, downstream_errors_1h;   /* the hour before these 10 minutes */
    uint64_t held;                                  /* copies in the hold queue now */
    int64_t held_growth_5m; /* not explained by confirmed incidents, in 5 minutes */
    uint64_t
        harmful_10m; /* holds that are not harmless (DESIGN.md 5), rules of ours and operators' */
    uint64_t replyall_10m, pingpong_10m; /* holds of new mail by these; under caps of their own */
    int64_t unaccounted; /* mass balance: recipients that got lost between door and verdict; 0: good
                            (in-flight ones are left out) */
};

#endif
