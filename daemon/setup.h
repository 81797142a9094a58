/*
 * setup.h - putting breakwaterd before an MTA, and taking it away again, byte for byte.
 *
 * Before the MTA's file is changed, a copy of it is kept beside it (FILE.breakwater-before), and
 * one of what it became (FILE.breakwater-after): the way back is the first, as long as nobody has
 * changed the file since, which the second tells.
 */
#ifndef SETUP_H
#define SETUP_H

#include "config.h"
#include "ctl.h"

/* One call of breakwaterctl setup. */
struct setup {
    const struct ctl *ctl;
    const struct config *config; /* what breakwaterd is started with */
};

/* All of these return enum ctl_exit, and have said what they did or why not. */
int setup_postfix(const struct setup *);
int setup_postfix_undo(const struct setup *);

/* ---- what they share ---- */

/* The whole of a file (at most 1 MiB), into the arena; false: errno. */
bool setup_read(struct arena *, const char *path, struct span *bytes);
/* Writes a file at once or not at all: beside it, synced, then in its place, with the owner and
 * permissions of `like`. 0, or -1: errno. */
int setup_write(const char *path, struct span bytes, const char *like);
/* "FILE.breakwater-before" and "-after". */
const char *setup_before(struct arena *, const char *file);
const char *setup_after(struct arena *, const char *file);
/* What a person says to the question; CTL_OK: yes. Scripts must have said -y; with -n it is
 * CTL_REFUSED without a question. */
int setup_agreed(const struct ctl *, const char *question);

#endif
