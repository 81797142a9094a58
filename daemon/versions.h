/*
 * versions.h - the stored versions of the policy, and what puts them in force.
 *
 *   policy.conf, SIGHUP ---\                        +--> somebody confirms: it stays
 *   breakwaterctl policy --+--> checks --> a row --> in force, unconfirmed
 *                                                   +--> nobody does: reverted by itself
 *
 * Every change is a keeper job; once it is durable the keeper thread swaps the rules, so they come
 * in force in the order in which they were written down. Messages under way keep the rules they
 * began with.
 *
 * Invariant: at most one version is in force everywhere, at most one on a part of the mail, at most
 * one is unconfirmed. Whatever is wrong with a new text, the rules in force stay.
 */
#ifndef VERSIONS_H
#define VERSIONS_H

#include "config.h"
#include "deed.h"
#include "recall.h"

struct versions;

/*
 * Finds what is in force, before any mail: an unconfirmed version that is past its time is reverted
 * first; where nothing is stored version 1 is made of the configuration's policy. A version that
 * cannot be compiled by this program is passed over, with an alarm in the log, for the newest
 * confirmed one that can, at last for the built-in rules. Fills in policy, version and trial of
 * `first`, which the caller then makes the book of. Main thread; waits for the keeper.
 */
struct versions *versions_start(struct config *, struct keeper *, struct rules *first);
/* The book in which versions come in force, and what keeps a snapshot of all that was learned
 * before each of them (NULL: nobody does); before any change. */
void versions_use(struct versions *, struct rulebook *, struct recall *);
/* After keeper_stop. */
void versions_free(struct versions **);
/* Is a version stored in this hold database? Then a daemon can begin without its policy file. */
bool versions_stored(const char *hold_path);

/* Once a second, any one thread, with the monotonic clock: reverts the unconfirmed version when its
 * time is over. The wall clock has no say while the daemon runs. */
void versions_tick(struct versions *, int64_t mono);
/* At a reload: the time to confirm and the like; and the policy file, if its text is another than
 * at the last look, as a new version by "reload". Does not wait. */
void versions_reload(struct versions *, const struct config *);

/* ---- changes, and looking ---- */

/* Any thread. A text that cannot be compiled is refused, done is called, before this returns. */
void versions_submit(struct versions *, struct deed *);

/* What the clock and the rulebook say of them. */
struct versions_figures {
    uint64_t judging, judging_part; /* the versions whose rules judge; 0: the built-in, none */
    uint64_t unconfirmed;           /* 0: none */
    int64_t left;                   /* ms until it is reverted */
    int64_t confirm;                /* ms new ones have, as configured */
    bool second_person;
};
void versions_figures(struct versions *, struct versions_figures *);

#endif
