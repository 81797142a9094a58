/*
 * signals.h - what the detectors saw, in values; words are made from them later. Types only.
 */
#ifndef SIGNALS_H
#define SIGNALS_H

#include "breakwater.h"

/* How a copy's path relates to the paths its recipient already got the message by (detection.md 4).
 */
enum relation {
    REL_FIRST,    /* nothing of it passed to this recipient, nothing is pending */
    REL_SAME,     /* the same queue entry handed to us again */
    REL_DETOUR,   /* went on from where an earlier copy was handed over, and came back */
    REL_LATE,     /* the direct copy, overtaken by a longer one */
    REL_RESEND,   /* one server gave it to the same next server twice */
    REL_FORK,     /* another branch */
    REL_LIST,     /* through a mailing list this recipient did not get it by yet */
    REL_INTERNAL, /* detour through our own or trusted servers only */
    REL_EXEMPT,   /* recipient is never held */
    REL_COUNT     /* must be last */
};

/* What replication advises; policy decides. */
enum advice {
    ADVICE_PASS,
    ADVICE_TAG,
    ADVICE_HOLD,
    ADVICE_COUNT /* must be last */
};

/* One recipient's copy. */
struct copy_signal {
    enum relation relation;
    enum advice advice;
    uint8_t rule;          /* 0..6: R0 ... R6 of detection.md 4 */
    uint32_t copies;       /* copies of it seen for this recipient before this one (k) */
    uint32_t seen, passed; /* after this one: seen for this recipient; passed for good */
    uint8_t at;            /* where the segment starts in the path, for DETOUR, FORK, RESEND */
};

struct replication_signals {
    struct copy_signal *copy; /* one per envelope recipient, in order */
    struct key k;             /* the identity in force: K, or K' after a conflict */
    bool known;               /* this message was seen before this transaction */
    bool storm;
    unsigned variant;        /* v of K'; 0: K itself */
    uint32_t convicted;      /* servers convicted for this message */
    uint32_t duplicates;     /* further copies in this transaction */
    uint64_t copies;         /* (message, recipient) arrivals so far, this transaction included */
    struct span blamed;      /* server this transaction's detours point at; empty: none */
    const char *conviction;  /* why it is convicted, in words; NULL: it is not */
    const uint32_t *learned; /* server ids to remember as known replicators */
    size_t nlearned;
    bool degraded; /* judged without the store's memory: everything looks FIRST */
};

struct loop_signals {
    unsigned visits;       /* most separated visits of one host */
    unsigned edges;        /* most non-adjacent repeats of one from -> by edge */
    unsigned own_visits;   /* visits of our own hosts */
    unsigned delivered_to; /* most repeats of one Delivered-To */
    unsigned hops;         /* Received fields */
    struct span relay;     /* the host visited most; empty: none */
    const char *evidence;  /* the turn in words; NULL if nothing is odd */
};

struct signals {
    struct loop_signals loop;
    struct replication_signals replication;
};

#endif
