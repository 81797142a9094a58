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
    bool seen_before;      /* FIRST, but the long memory thinks this recipient had it */
};

struct replication_signals {
    struct copy_signal *copy; /* one per envelope recipient, in order */
    struct key k;             /* the identity in force: K, or K' after a conflict */
    bool known;               /* this message was seen before this transaction */
    bool storm;
    int64_t rested; /* ms since the copy before this one; 0: there was none */
    const char
        *join; /* another name it was known by: "stamp", "chain", "text", "theme"; NULL: its own */
    const char *join_why;    /* the evidence for that, in words; NULL: none */
    unsigned variant;        /* v of K'; 0: K itself */
    uint32_t convicted;      /* servers convicted for this message */
    uint32_t duplicates;     /* further copies in this transaction */
    uint64_t copies;         /* (message, recipient) arrivals so far, this transaction included */
    struct span blamed;      /* server this transaction's detours point at; empty: none */
    uint32_t blamed_id;      /* its server id (keyed hash); 0: none */
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

enum replyall_state {
    REPLYALL_QUIET,
    REPLYALL_WATCH, /* alert only */
    REPLYALL_STORM,
    REPLYALL_COOLDOWN
};

struct replyall_signals {
    uint64_t conversation; /* keyed hash of the one that speaks, of those this message belongs to;
                              0: not a message to many */
    enum replyall_state state;
    bool to_all;                    /* this message is a reply to at least 80 % of the audience */
    double replies, senders, noise; /* in the last hour */
    double need;                    /* replies at which it is a storm */
    unsigned audience;              /* people it goes to, the most seen */
    const char *evidence;           /* NULL while quiet */
};

struct pingpong_signals {
    uint64_t
        pair[4]; /* keyed hash of (writer, recipient); 0: not looked at; at most 4 recipients */
    uint8_t advice[4];    /* enum advice, by recipient of the envelope */
    size_t n;             /* recipients looked at */
    double flips;         /* answers of the slower side to the other one, in the last hour */
    unsigned same;        /* times in a row both said the same again */
    bool automatic;       /* this message is marked as written by a machine */
    const char *evidence; /* NULL: nothing odd */
};

enum flood_level { FLOOD_NONE, FLOOD_ALERT, FLOOD_THROTTLE };

struct flood_signals {
    uint64_t relay; /* keyed hash of its address; 0: not looked at (unknown, own, trusted) */
    enum flood_level level;
    double rate;        /* messages in the last 5 minutes, a minute */
    double baseline;    /* what is usual at this hour, a minute */
    double hour;        /* messages in the last 60 minutes */
    double duplicates;  /* share of further copies among them */
    double one_content; /* share of the commonest text among them */
    bool learned;       /* its baseline rests on a day at least */
    bool defer;       /* this message should be deferred: beyond thrice the baseline, a first copy,
                         not deferred for 30 minutes yet */
    int64_t deferred; /* ms: when this message was deferred first; 0: never */
    bool replicating; /* it brings further copies of mail, far beyond what is usual (SPRT) */
    const char *evidence; /* NULL: nothing odd */
};

struct signals {
    struct loop_signals loop;
    struct replication_signals replication;
    struct replyall_signals replyall;
    struct pingpong_signals pingpong;
    struct flood_signals flood;
};

#endif
