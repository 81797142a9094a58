/*
 * figures.h - what is counted of the mail, by door and minute: how much came, what became of it,
 * how long it took. From it come the balance, the guard's readings, status and metrics.
 *
 *   mail threads --add--> gauges (one a door, counters that only rise)
 *                            | once a second: figures_tick()
 *                            v
 *                         samples, every 10 s for 10 minutes, every minute for 70: a window is the
 *                         difference of two
 *
 * The balance. A message is counted twice, by two parts that know nothing of each other: by the
 * door when its end has come and when its reply has left, or the client was gone; and by tx when
 * the row of each recipient is written. A path that ends a message without a row shows as
 * unaccounted. Messages under way are left out: nothing is missing of what may still come.
 *
 *   received = passed + held + throttled + rejected + refused + aborted    (+ what is under way)
 *
 * Invariant: adding never waits, never allocates; a counter never falls.
 */
#ifndef FIGURES_H
#define FIGURES_H

#include <stdatomic.h>

#include "config.h"
#include "guard.h"

/* How the door ended a message that had come to its end. */
enum reply_kind {
    REPLY_ACCEPTED, /* 2xx, or the MTA goes on */
    REPLY_LATER,    /* 4xx */
    REPLY_REFUSED,  /* 5xx */
    REPLY_ABORTED,  /* the client was gone before the reply */
    REPLY_KINDS     /* must be last */
};

/* Whom a hold of new mail or of further copies can hurt (DESIGN.md 5). */
enum hold_kind {
    HOLD_EXPLAINED, /* a further copy in a confirmed storm, or while a server is convicted of it; or
                     * a person's wish */
    HOLD_HARMLESS,  /* any other, to a recipient who has one or has one on its way */
    HOLD_HARMFUL,   /* new mail of which only a rule speaks: what the guard is there for */
    HOLD_LOOP,      /* new mail that runs in a circle, as the detector says: capped */
    HOLD_REPLYALL,  /* of people who answer everybody: capped */
    HOLD_PINGPONG,  /* of machines that answer each other: capped */
    HOLD_KINDS      /* must be last */
};

/* Recipients, unless it says messages. */
enum figure {
    /* the door's side */
    FIGURE_MESSAGES,                                /* messages that came to their end */
    FIGURE_RECEIVED,                                /* their recipients */
    FIGURE_ANSWERED,                                /* of those that were answered or aborted */
    FIGURE_REPLIES,                                 /* messages, by reply_kind */
    FIGURE_GIVEN_UP = FIGURE_REPLIES + REPLY_KINDS, /* messages that did not come to their end */
    FIGURE_OWN_US,                                  /* sum: our own time to the reply, us */
    FIGURE_ADDED_US,                                /* sum: all time to the reply, us */
    FIGURE_DOWN_REPLIES,                            /* of MTAs behind, to messages */
    FIGURE_DOWN_ERRORS,                             /* 4xx, 5xx or lost, of them */
    /* the tx's side */
    FIGURE_JUDGED,                             /* messages with a verdict that came true */
    FIGURE_DONE,                               /* by disposition */
    FIGURE_REFUSED = FIGURE_DONE + DISP_COUNT, /* by the MTA behind or the door, unjudged */
    FIGURE_ABORTED,                            /* of messages ended without a verdict */
    FIGURE_ABORTED_MESSAGES,                   /* messages */
    FIGURE_ADVISED,                            /* by disposition, in any mode */
    FIGURE_PLAIN =
        FIGURE_ADVISED + DISP_COUNT,          /* no rule was about them and they passed; by mode */
    FIGURE_HOLDS = FIGURE_PLAIN + MODE_COUNT, /* by hold_kind */
    FIGURE_DEFERRED =
        FIGURE_HOLDS + HOLD_KINDS, /* messages refused by us because of a rule alone */
    FIGURE_HOLD_FAILED,            /* messages */
    FIGURE_RELEASED_THROUGH,       /* messages */
    FIGURE_TOO_LARGE,              /* messages */
    FIGURE_DEGRADED,               /* messages */
    FIGURES                        /* must be last */
};

struct figures;
struct gauge; /* one door's counters */

/* A gauge for each listener, and one for whatever else judges ("other"). */
struct figures *figures_new(const struct config *);
void figures_free(struct figures **);
/* The door of that name; figures NULL: NULL, which every function below takes and ignores. */
struct gauge *figures_gauge(struct figures *, const char *door);

/* ---- mail threads ---- */

void gauge_add(struct gauge *, enum figure, uint64_t n);

/* A message between its end and its reply, as its door sees it; lies with the tx. */
struct passing {
    struct gauge *gauge;
    size_t recipients;
    int64_t began, judged; /* monotonic us; judged 0: not yet */
};
/* The message's end has come. */
void passing_begun(struct passing *, struct gauge *, size_t recipients);
/* We are through with it; what follows is the MTA's behind. Only where there is one. */
void passing_judged(struct passing *);
/* Exactly once: the door's final reply has left, or there is nobody to read it. */
void passing_replied(struct passing *, enum reply_kind);
/* What the MTA behind said to a message; 0: it was lost. */
void gauge_downstream(struct gauge *, int code);

/* ---- the main thread and the desk ---- */

/* Once a second or so: keeps samples. now: wall clock, ms. */
void figures_tick(struct figures *, int64_t now);
/* Copies in the hold queue now, from whoever reads the hold database. */
void figures_held(struct figures *, uint64_t copies);
uint64_t figures_held_now(struct figures *); /* as last said; any thread */
/* What the guard looks at. Windows may be up to 10 s longer than they are called. */
void figures_read(struct figures *, int64_t now, struct guard_reading *out);
/* The i-th door's, NULL after the last; its name, and one figure of it since the start. */
struct gauge *figures_at(struct figures *, size_t i);
const char *gauge_door(const struct gauge *);
uint64_t gauge_total(const struct gauge *, enum figure);
/* One figure of all doors since the start. */
uint64_t figures_total(struct figures *, enum figure);

/* What came and what became of it between two moments at one door, in recipients. */
struct balance {
    int64_t from, until; /* ms; from 0: the start */
    uint64_t received, passed, held, throttled, rejected, refused, aborted;
    uint64_t before, after; /* under way at `from` and at `until` */
    int64_t unaccounted;    /* lost; negative: answered for twice */
};
/* Since the start, of one door or of all (gauge NULL). */
void figures_balance(struct figures *, const struct gauge *, int64_t now, struct balance *out);
/* By minute and door, the oldest first, the running minute last; at most the last `minutes`. */
typedef void balance_fn(void *arg, const char *door, const struct balance *);
void figures_each_minute(struct figures *, int64_t now, unsigned minutes, balance_fn *, void *arg);

/* Of all doors, in the last ms (10 minutes at most): messages answered; time in us, percentiles
 * good to a tenth. */
struct latency {
    uint64_t messages;
    double own_average, own_p50, own_p99, added_average, added_p50, added_p99;
};
void figures_latency(struct figures *, int64_t now, int64_t ms, struct latency *out);

#endif
