/*
 * milter.h - the milter door: protocol v6 as Postfix 3.7 and Sendmail 8.17 speak it, over libevent.
 * Exactly one final reply per event; never SMFIR_SHUTDOWN.
 */
#ifndef MILTER_H
#define MILTER_H

#include "worker.h"

/* A door_accept_fn. */
void milter_accept(struct worker *, int fd, const struct listener *);

#endif
