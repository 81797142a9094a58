/*
 * hold_refusal.h - the ledger of refusals (ledger.h) as rows of the hold database. A row is one
 * message for one set of recipients, however often it was refused.
 */
#ifndef HOLD_REFUSAL_H
#define HOLD_REFUSAL_H

#include "hold.h"

/* What became of it. */
enum refusal_outcome {
    REFUSAL_WAITING,  /* refused for now; it has not come again yet */
    REFUSAL_PASSED,   /* it came again, and passed */
    REFUSAL_HELD,     /* it came again, and copies of it are held */
    REFUSAL_REJECTED, /* refused for good (5xx): its sender was told */
    REFUSAL_OUTCOMES  /* must be last */
};
/* "waiting", "passed", "held", "rejected". */
const char *refusal_outcome_name(enum refusal_outcome);

/* Strings are never NULL when read; NULL is stored as "". Times: ms. */
struct refusal_row {
    uint64_t id;  /* of the transaction that was refused first */
    uint64_t key; /* ledger_keys */
    int64_t first, last;
    uint32_t times;
    enum refusal_outcome outcome;
    int64_t settled; /* when it passed, was held or rejected; 0: not */
    const char *door, *client, *client_name, *sender;
    const char
        *rcpts; /* "\na@a.example\nb@b.example\n", lower case; cut after REFUSAL_RCPTS bytes */
    uint32_t recipients;
    const char *queue_id, *message_id, *rule, *reason;
};
enum { REFUSAL_RCPTS = 32 << 10 };

/* All: 0, or -1 (a damaged or full disk). Writing: within a transaction. */

/* Refused for the first time, or again: the row of this id is made or brought up to date. */
int hold_refusal_put(struct hold *, const struct refusal_row *) MUSTCHECK;
int hold_refusal_settle(struct hold *, uint64_t id, enum refusal_outcome, int64_t now) MUSTCHECK;
/* Rows there are, and their bytes, roughly. */
int hold_refusal_size(struct hold *, uint64_t *rows, uint64_t *bytes) MUSTCHECK;
/* Removes the oldest row, and takes it off both; there is none: both are 0. */
int hold_refusal_drop(struct hold *, uint64_t *rows, uint64_t *bytes) MUSTCHECK;
/* Removes those first refused 30 days ago: a bounded piece; how many, or -1. */
int hold_refusal_purge(struct hold *, int64_t now) MUSTCHECK;

struct refusal_filter {
    const char *rcpt, *sender; /* exact, case-insensitive; NULL: any */
    const char *relay;         /* the client's address or name, likewise */
    const char *message_id;    /* exact; NULL: any */
    int64_t since;             /* refused or settled since (ms); 0: any */
    bool waiting;              /* only those */
    uint64_t after;            /* ids below this one (cursor); 0: from the latest on */
    size_t limit;
};
/* The latest first. The row is good during the call; nonzero stops. */
typedef int refusal_fn(void *arg, const struct refusal_row *);
int hold_each_refusal(struct hold *, const struct refusal_filter *, refusal_fn *,
                      void *arg) MUSTCHECK;

#endif
