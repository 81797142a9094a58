/*
 * hold_day.h - what rules did with mail, and what they would have done, as rows of the hold
 * database: one for each listener, rule, mode and outcome in an hour; after three days, in a day
 * (UTC). Kept for 400 days.
 */
#ifndef HOLD_DAY_H
#define HOLD_DAY_H

#include "hold.h"

enum {
    DAY_HOUR = 3600 * 1000, /* ms */
    DAY_NAME = 64           /* bytes of a listener's or rule's name, with NUL */
};

/* What was done, where it is none of enum disposition; the numbers are on disk. */
enum { DAY_REFUSED = 16, /* not taken, by the MTA behind or the door */ DAY_ABORTED = 17 };

struct day_row {
    int64_t hour;                /* since 1970; of a sum of days: 0 */
    const char *listener, *rule; /* "": no rule was about them */
    uint8_t mode, done, advised; /* advised: what enforce would have done */
    uint64_t copies;
    uint64_t firsts; /* of them, to recipients who had none that passed */
};

/* Writer only, in a transaction; 0 or -1. Adds to the row that is there. */
int hold_day_add(struct hold *, const struct day_row *) MUSTCHECK;
/* Sums up the hours of days that are over, forgets what is too old. */
int hold_day_tidy(struct hold *, int64_t now) MUSTCHECK;

/* Rows of the hours from..until-1, added up by day (hour: the day's first), or all in one. */
typedef void day_fn(void *arg, const struct day_row *);
int hold_day_each(struct hold *, int64_t from, int64_t until, bool by_day, day_fn *,
                  void *arg) MUSTCHECK;

#endif
