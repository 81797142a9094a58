/*
 * release.h - the release engine, on the desk thread: takes copies in state `releasing`, sends them
 * to release.to at release.rate, marks what the MTA said, tries again with back-off (60 s doubling
 * to 1 h). Resumable: a crash leaves copies `releasing`, they are tried again; at worst delivered
 * twice.
 */
#ifndef RELEASE_H
#define RELEASE_H

#include "config.h"
#include "keeper.h"

struct release;

/* view: the desk's read-only connection. */
struct release *release_new(struct event_base *, struct config *, struct keeper *,
                            struct mailbox *home, struct hold *view, const struct keys *);
/* Something was marked releasing: look now. */
void release_kick(struct release *);
void release_free(struct release **);
struct release_figures {
    uint64_t sent, deferred, attempts, inflight;
};
void release_figures(const struct release *, struct release_figures *);

#endif
