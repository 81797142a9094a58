/*
 * desk.h - the desk thread: everything for people. HTTP on the control socket, the release engine,
 * saving of incidents, expiry of the bin. Mail never waits for it.
 */
#ifndef DESK_H
#define DESK_H

#include "release.h"
#include "worker.h"

struct desk;

/*
 * Starts it. Needs pipeline->keeper and a hold database that the keeper has made. workers may be
 * NULL in tests. NULL after a sentence in error. desk_stop must come before keeper_stop and
 * incidents_free: it waits until the keeper has answered what the desk asked.
 */
struct desk *desk_start(struct config *, struct pipeline *, struct workers *, char error[512]);
/* What of a new configuration is the desk's: log.daily. Any thread. */
void desk_reload(struct desk *, const struct config *);
void desk_stop(struct desk **);

#endif
