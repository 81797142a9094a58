/*
 * backtest.h - a policy run over recorded decisions: for each copy in the journal, what it would do
 * beside what the policy in force then advised.
 *
 * What is held changes what is counted later, and that is not played through: each copy is judged
 * with the facts as they were recorded, under the policy of that day. Modes are left aside: advised
 * is compared with advised. People's entries for a while stay as they were.
 */
#ifndef BACKTEST_H
#define BACKTEST_H

#include "journal.h"
#include "policy.h"

enum { BACKTEST_EXAMPLES = 1000 }; /* of one kind, at most */

/* Why a recorded copy could not be compared. */
enum backtest_gap {
    GAP_OLD,      /* recorded by a version that kept no facts */
    GAP_FACTS,    /* the policy asks for facts that are not recorded, or were not then */
    GAP_LOST,     /* that part of the journal is damaged */
    GAP_UNJUDGED, /* no rule was asked, or the message did not get through and came again */
    GAP_PEOPLE,   /* an entry of people decided */
    GAP_COUNT     /* must be last */
};

/* Copies the new policy would treat otherwise, by what it would do to them. New mail: the recipient
 * had got no copy of the message. */
enum backtest_kind {
    BACKTEST_HURT,    /* new mail held or rejected that was to get through, or to wait */
    BACKTEST_DELAYED, /* new mail throttled that was to get through */
    BACKTEST_OTHER,
    BACKTEST_KINDS /* must be last */
};

struct backtest_asks {
    const char *dir; /* hold.path */
    const struct policy *policy;
    const struct site *site;       /* who is exempt, ours, trusted today; NULL: nobody */
    int64_t since, until;          /* ms; 0: open */
    size_t examples;               /* of each kind */
    journal_progress_fn *progress; /* NULL: none */
    void *arg;                     /* progress's */
};

/* A decision: what, and by which rule ("": none). */
struct backtest_word {
    enum disposition disposition;
    const char *rule;
};

struct backtest_example {
    uint64_t tx;
    int64_t time;
    struct span from, rcpt, subject;
    struct backtest_word then, now;
    const char *reason;
};

/* Copies with the same change. */
struct backtest_change {
    struct backtest_word then, now;
    enum backtest_kind kind;
    uint64_t copies;
};

/* What one rule of the new policy would do; the last one stands for no rule. */
struct backtest_rule {
    const char *name;
    uint64_t copies, new_mail, now[DISP_COUNT];
};

/* Lies in an arena of its own; rule names lie in the policy. */
struct backtest {
    struct arena *arena;
    uint64_t copies, transactions; /* compared */
    uint64_t gap[GAP_COUNT];       /* copies that were not */
    uint64_t unknown;              /* GAP_FACTS: which facts, bits 1 << FACT_X */
    int64_t first, last;           /* ms, of what was compared; 0: nothing was */
    uint64_t then[DISP_COUNT], now[DISP_COUNT];
    uint64_t changed;
    uint64_t held_again, held_messages; /* copies whose recipients have one; of so many messages */
    uint64_t held_new;                  /* new mail held */
    uint64_t kind[BACKTEST_KINDS];
    struct backtest_rule *rules;
    size_t nrules;
    struct backtest_change *changes; /* most copies first */
    size_t nchanges;
    uint64_t changes_left_out; /* copies whose change is not in the list */
    struct backtest_example *examples[BACKTEST_KINDS];
    size_t nexamples[BACKTEST_KINDS];
};

/* 0, or -1 and errno when the journal cannot be read (then what could be read is in out). Takes as
 * long as it takes to read the segments: about a million rows a second. */
int backtest_run(const struct backtest_asks *, struct backtest *out) MUSTCHECK;
void backtest_free(struct backtest *);
/* The result in a sentence: "would hold 1,204 copies of 1 message and 0 others; ...". */
const char *backtest_sentence(const struct backtest *, struct arena *);
/* Would the policy hold or reject new mail that was to get through? */
bool backtest_hurts(const struct backtest *);

#endif
