/*
 * release.h - the release engine, on the desk thread: takes copies in state `releasing`, sends them
 * to release.to at release.rate, marks what the MTA said, tries again with back-off (60 s doubling
 * to 1 h; a 5xx waits 1 h at once). It never discards. Resumable: what a crash or a stop
 * interrupted is still `releasing` and is tried again at the next start; at worst it is delivered
 * twice.
 */
#ifndef RELEASE_H
#define RELEASE_H

#include "config.h"
#include "keeper.h"

struct release;

/* view: the desk's read-only connection. Starts with the loop of base, which must be home's.
 * Without release.to copies wait, which is said once. */
struct release *release_new(struct event_base *, struct config *, struct keeper *,
                            struct mailbox *home, struct hold *view);
/* Something was marked releasing: look now. */
void release_kick(struct release *);
/* Stops at once, in mid-transaction, too. Jobs that are with the keeper come back to home later. */
void release_free(struct release **);
struct release_figures {
    uint64_t sent, deferred;     /* copies: the MTA took them; it did not, this time */
    uint64_t attempts, inflight; /* transactions: begun, under way */
};
void release_figures(const struct release *, struct release_figures *);

#endif
