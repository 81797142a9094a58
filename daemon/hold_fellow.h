/*
 * hold_fellow.h - what other nodes told us, as rows of the hold database: commands of their people
 * that were carried out here, and incidents as they know them.
 *
 * Invariant: a command's row is committed together with what it did, so it is done once.
 */
#ifndef HOLD_FELLOW_H
#define HOLD_FELLOW_H

#include "hold.h"

/* Writer, in a transaction. 1: it is to be done now; 0: that was done already; -1. */
int hold_command_take(struct hold *, const char *id, const char *who, int64_t now) MUSTCHECK;
/* 1: it was done; 0: not; -1. */
int hold_command_known(struct hold *, const char *id) MUSTCHECK;

/* A node's document of an incident takes the place of its former one. */
int hold_fellow_save(struct hold *, const char *node, const char *id, int64_t first, int64_t last,
                     const char *json) MUSTCHECK;
/* All documents of this incident. */
typedef int fellow_fn(void *arg, const char *node, const char *id, const char *json);
int hold_fellow_each(struct hold *, const char *id, fellow_fn *, void *arg) MUSTCHECK;
/* Which incidents there are documents of: those with a copy since then (ms), the latest first, at
 * most `limit`. */
typedef void fellow_id_fn(void *arg, const char *id);
int hold_fellow_latest(struct hold *, int64_t since, size_t limit, fellow_id_fn *,
                       void *arg) MUSTCHECK;

#endif
