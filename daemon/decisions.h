/*
 * decisions.h - people's entries (policy/entries.h) at work: read at start, put into the rules in
 * force, how often they were used on its way to the disk.
 */
#ifndef DECISIONS_H
#define DECISIONS_H

#include "hold_entry.h"
#include "keeper.h"
#include "rules.h"

enum {
    DECISIONS_MAX = 10000, /* in force at the same time */
    DECISION_DAYS = 7,     /* how long one is in force unless it is said */
    DECISION_DAYS_MAX = 400
};

/* Those in force, before mail; NULL: the database cannot be read. */
struct entries *decisions_load(struct hold *view, int64_t now);
/* New ones in force: without the one of this id (NULL: none), with one more (NULL: none), whose
 * reference is taken; those that are over are let go. Any thread but a mail thread. */
void decisions_change(struct rulebook *, int64_t now, const char *without, struct entry *more);
/* How many are in force. */
size_t decisions_count(struct rulebook *, int64_t now);
/* Hands to the keeper how often each was used, where that has changed; one thread. */
void decisions_save(struct rulebook *, struct keeper *, struct mailbox *home);

#endif
