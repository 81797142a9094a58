/* guard.c - see guard.h. */
#include "guard.h"

static const char *const names[GUARD_CAUSES] = {"none",      "latency",   "queue",    "holds",
                                                "reply-all", "ping-pong", "refusals", "downstream",
                                                "balance",   "own",       "floor"};

const struct guard_limits guard_defaults = {
    .added = 60e3,
    .queue = 10000,
    .growth = 1000,
    .holds = 50,
    .hold_share = 0.01,
    .replyall = 1000,
    .pingpong = 200,
    .refused_share = 0.05,
    .downstream_factor = 2,
    .downstream_share = 0.05,
    .least = 20,
    .own = 2000,
};

const char *guard_cause_name(enum guard_cause cause)
{
    return cause < GUARD_CAUSES ? names[cause] : names[GUARD_NONE];
}
