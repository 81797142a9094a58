/*
 * hold_policy.h - the stored versions of the policy, as rows of the hold database (versions.h says
 * what becomes of them).
 *
 *   unconfirmed -> in force -> replaced (by a later one) | reverted (by a person, or by the clock)
 *        \---> reverted            \<--- rolled back to ---/
 *
 * The last HOLD_POLICIES are kept, those in force, and those that the latest may have to give way
 * to.
 */
#ifndef HOLD_POLICY_H
#define HOLD_POLICY_H

#include "hold.h"

enum { HOLD_POLICIES = 200 };

enum policy_state {
    POLICY_NONE,
    POLICY_UNCONFIRMED, /* in force, everywhere or on a part, until its deadline */
    POLICY_IN_FORCE,
    POLICY_REPLACED,
    POLICY_REVERTED,
    POLICY_STATES /* must be last */
};
const char *policy_state_name(enum policy_state);

/* One version. Strings are never NULL when read; NULL is stored as "". Times: ms, 0: not. */
struct policy_row {
    uint64_t number; /* 1 and up */
    int64_t at;
    const char *who, *why;
    enum policy_state state;
    const char *part; /* JSON array of "listener=NAME" and "domain=NAME"; "": all mail */
    uint64_t before, before_part; /* in force before it, everywhere and on a part; 0: none */
    int64_t deadline;             /* to be confirmed by then; 0: needs none */
    int64_t confirmed, ended;
    const char *confirmed_by, *confirmed_why;
    const char *ended_by, *ended_why;
    const char *origin; /* directory that relative paths of sets start at; "": none are read */
    struct span text;
    const char *files; /* JSON object: path -> text */
};

/* All: 0, or -1 (a damaged or full disk). Writing: within a transaction. */

/* Stores it as the version after the last; fills in its number. */
int hold_policy_add(struct hold *, struct policy_row *) MUSTCHECK;
/* Replaced or reverted. */
int hold_policy_end(struct hold *, uint64_t number, enum policy_state, int64_t now, const char *by,
                    const char *why) MUSTCHECK;
int hold_policy_confirm(struct hold *, uint64_t number, int64_t now, const char *by,
                        const char *why) MUSTCHECK;
/* Back in force. */
int hold_policy_revive(struct hold *, uint64_t number) MUSTCHECK;

/* 1: found, in the arena; 0: there is none. */
int hold_policy_row(struct hold *, struct arena *, uint64_t number, struct policy_row *) MUSTCHECK;
/* Which is in force everywhere, which on a part, which of them is unconfirmed, and the last number
 * given; 0: none. */
struct policies_live {
    uint64_t whole, part, unconfirmed, last;
};
int hold_policy_live(struct hold *, struct policies_live *) MUSTCHECK;
/* Those before number `below` (0: all), the latest first; text and files are left empty. */
typedef int policy_row_fn(void *arg, const struct policy_row *); /* nonzero stops */
int hold_each_policy(struct hold *, uint64_t below, size_t limit, policy_row_fn *,
                     void *arg) MUSTCHECK;
/* The newest version before `below` (0: any) that was in force everywhere and confirmed; 0: none.
 */
int hold_policy_good(struct hold *, uint64_t below, uint64_t *number) MUSTCHECK;

#endif
