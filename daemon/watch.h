/*
 * watch.h - the guard at work: what the mail path may still hold, and once a second in the main
 * thread a look at the figures, a step of the guard (policy/guard.h) and what follows from it.
 *
 *   figures -> guard_step -> lower modes in the rulebook at once
 *                            the same as a keeper job: mode, audit row, the trip (durable)
 *                            alarm
 *                            limit of connections of the SMTP doors
 *
 *   a hold that is not harmless takes from a budget first (watch_may_hold), and so does a refusal
 *   (watch_may_refuse): an atomic counter. When that of a rule is used up the rule is stopped
 *   between two looks; when that of a detector is, what it speaks for passes until there is room
 *   again, and somebody is told once in 10 minutes
 *
 * Invariant: within any 10 minutes the mail path holds and refuses no more of a kind than the guard
 * allows, and after it was stopped nothing more until a person steps up.
 */
#ifndef WATCH_H
#define WATCH_H

#include "config.h"
#include "guard.h"
#include "json.h"
#include "keeper.h"
#include "rules.h"

struct watch;

/* What it works with; borrowed, members may be NULL. */
struct watch_hands {
    struct rulebook *rules;
    struct keeper *keeper;
    void *arg;
    /* so many connections of SMTP doors from now on; 0: as configured */
    void (*govern)(void *arg, unsigned connections);
    unsigned (*in_use)(void *arg); /* connections open now */
    /* in_force: the highest mode of a door now */
    void (*alarm)(void *arg, const char *subject, const char *text, const struct guard_action *,
                  enum mode in_force);
};

/* view: the hold database, which remembers trips; NULL: none, or unreadable. */
struct watch *watch_new(const struct config *, const struct watch_hands *, struct hold *view);
/* After the keeper has stopped. */
void watch_free(struct watch **);
/* Limits of a new configuration. */
void watch_reload(struct watch *, const struct config *);

/* What the guard counts on the mail path, by who speaks for it. Of rules copies, else messages. */
enum watch_kind {
    WATCH_RULES, /* holds of new mail no detector speaks for */
    WATCH_LOOPS,
    WATCH_REPLYALL,
    WATCH_PINGPONG,
    WATCH_FLOODS,   /* 4xx: of floods, and of further copies that cannot be held */
    WATCH_REFUSALS, /* other 4xx and 5xx */
    WATCH_KINDS     /* must be last */
};
/* May n more be held? false: none of them; of rules: the guard has stopped it, the modes have been
 * lowered; of a detector: these pass. Any thread; never waits. watch NULL: yes. */
bool watch_may_hold(struct watch *, enum watch_kind, unsigned n);
/* May one more message be refused, WATCH_FLOODS or WATCH_REFUSALS? Likewise. */
bool watch_may_refuse(struct watch *, enum watch_kind);

/* Main thread, once a second: now is the wall clock's, mono the monotonic one's. */
void watch_tick(struct watch *, const struct guard_reading *, int64_t now, int64_t mono);

/* {"state":"watching"|"tripped","trip":{..}|null,"trips":[..],"triggers":[..],"capped":[..],
 * "connections":{..}}; capped: those of the triggers of which some pass at present. Any thread; a
 * new reference. */
json_t *watch_document(struct watch *);
/* For metrics. */
struct watch_figures {
    uint64_t trips[GUARD_CAUSES]; /* since the start */
    uint64_t passed;              /* that passed because nothing more may be held or refused; of
                                     rules copies, else messages */
    unsigned connections;         /* in force; 0: as configured */
    bool tripped;
};
void watch_figures(struct watch *, struct watch_figures *);

#endif
