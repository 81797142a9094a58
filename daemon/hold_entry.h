/*
 * hold_entry.h - people's entries (entries.h) as rows of the hold database: those in force, and for
 * 400 days those that are over.
 */
#ifndef HOLD_ENTRY_H
#define HOLD_ENTRY_H

#include "entries.h"
#include "hold.h"

/* terms.id is not stored: it is the text of id. Strings are never NULL when read; NULL is stored as
 * "". */
struct entry_row {
    uint64_t id;
    struct entry_terms terms;         /* until: when it is or was over, by itself or by a person */
    const char *ended_by, *ended_why; /* "": it ends, or ended, by itself */
};

/* All: 0, or -1 (a damaged or full disk). Writing: within a transaction. */

int hold_entry_add(struct hold *, const struct entry_row *) MUSTCHECK;
/* A person ends one that is in force. 1; 0: none of this id is; -1. */
int hold_entry_end(struct hold *, uint64_t id, int64_t now, const char *by,
                   const char *why) MUSTCHECK;
int hold_entry_used(struct hold *, uint64_t id, uint64_t used, int64_t last) MUSTCHECK;
/* Those not over at `since` (0: all), the latest made first, at most `limit`. The row is good
 * during the call; nonzero stops. */
typedef int entry_row_fn(void *arg, const struct entry_row *);
int hold_each_entry(struct hold *, int64_t since, size_t limit, entry_row_fn *,
                    void *arg) MUSTCHECK;
/* Forgets those over for 400 days: how many, or -1. */
int hold_entry_purge(struct hold *, int64_t now) MUSTCHECK;

#endif
