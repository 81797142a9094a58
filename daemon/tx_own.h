/*
 * tx_own.h - the inside of struct tx, shared by tx.c (the order), tx_hold.c (a hold on its way to
 * the disk, and what happens when it does not get there), tx_incident.c (the storm it belongs to)
 * and tx_account.c (what is written down about a verdict). Include it after tx.h.
 */
#ifndef TX_OWN_H
#define TX_OWN_H

#include <stdatomic.h>

#include "ledger.h"
#include "watch.h"

enum {
    REFUSE_FOR = 30 * 60 * 1000, /* ms a copy that cannot be held is refused before it passes */
    MEMORY_MAX = 32 << 20,       /* bytes one message may take before it is judged */
    LATE_MAX = 256               /* holds the keeper may owe us after their messages gave up */
};

struct tx {
    struct arena *arena;
    struct pipeline *pipeline;
    struct config *config;
    const struct keys *keys;
    struct mailbox *home;
    const char *door;
    struct gauge *gauge; /* its figures; NULL: nothing is counted */
    uint64_t id;
    int64_t now;
    struct rules *rules;  /* what ruling points into; NULL: into config */
    struct ruling ruling; /* what judges this message */
    enum mode mode;       /* ruling's */

    struct envelope envelope;
    struct message *message;
    struct fingerprinter *fingerprinter;
    struct body *body; /* NULL: nothing of this message can be held */
    bool indivisible;  /* all recipients or none are held */
    bool kept;         /* the door needs the body, whatever becomes of the message */
    bool unjudged;     /* passes for all: bypass, no recipients, too much of it, a released copy */
    bool beyond;       /* more recipients or memory than is judged */
    bool released;     /* carries a good release token */

    struct fingerprints fp;
    struct subject subject;
    struct tallies asks;             /* of all detectors, one after the other */
    size_t asked[DETECTORS_MAX + 1]; /* where each one's begin */
    struct tallies refusals;         /* asked only when it is to be refused */
    struct ledger_keys ledger_keys;  /* found when they are wanted first */
    struct observation observation;
    struct signals signals;
    struct verdict verdict;

    struct store_op *op; /* waiting for the store */
    struct put *put;     /* waiting for the keeper */
    struct token_check *check;
    struct event *deadline; /* of put or check */
    tx_done_fn *done;
    void *arg;
    bool waiting; /* tx_judge has returned TX_WAIT */
    bool ended;   /* its last byte is there: what becomes of it is written down */
    bool observed, judged, committed;
    const char *refused; /* why the verdict did not come to pass; NULL: it did */
    bool accounted;      /* what became of the message is written down */
    const char *failure; /* why holding failed; NULL: it did not */

    const char *tag;
    const char *reply;
    unsigned strip;
    char incident[INCIDENT_TEXT];
};

/* Steps that lie in another file than the one before them; each may have to wait. */
enum tx_state tx_hold(struct tx *);                  /* the verdict holds copies */
enum tx_state tx_agree(struct tx *);                 /* refused, if all are to be; else held */
enum tx_state tx_fail(struct tx *, const char *why); /* they cannot be held */
enum tx_state tx_refuse_unheld(struct tx *);         /* so they are refused, for a while */
enum tx_state tx_pass_instead(struct tx *);          /* what was to be held passes, tagged */
enum tx_state tx_finish(struct tx *);                /* the verdict stands */

/* Ends a wait: calls done if the step was the last; the tx may be gone then. */
void tx_answer(struct tx *, enum tx_state);
/* The deadline of whatever the tx waits for: config's hold.deadline. */
void tx_start_deadline(struct tx *, event_callback_fn);
void tx_end_deadline(struct tx *);
/* What was put is taken out of the hold queue. */
void tx_unput(struct tx *);
/* The hold under way is no longer waited for. */
void tx_give_up_put(struct tx *);

/* Where its copies belong, before they are held: fills incident. */
void tx_place(struct tx *);
/* A person's entry, if one matches, decides instead of the rules. */
void tx_ask_people(struct tx *);
/* The ledger hears of a refusal of ours, or what became of a message that was refused before. */
void tx_note_refusal(struct tx *);
/* ... and of one by the server behind; code as in tx_refused(). */
void tx_note_refusal_behind(struct tx *, int code);
/* What became of them is counted there. */
void tx_incident_note(struct tx *);
/* The tag a message with copies to be tagged carries: fills tag. */
void tx_make_tag(struct tx *);
/* Whom the hold of copy i can hurt. */
enum hold_kind tx_hold_kind(const struct tx *, size_t i);
/* Who speaks for its refusal; WATCH_KINDS: it is of a confirmed storm, and nobody counts it. */
enum watch_kind tx_refusal_kind(const struct tx *);
/* Writes down what became of the message, once: balance, incident, journal, log. Copies that were
 * to pass and were not committed were aborted; so were all of a message without a verdict. */
void tx_account(struct tx *);
/* The same, when the verdict did not come to pass; code as in tx_refused(). */
void tx_account_refusal(struct tx *, int code);

static inline const char *tx_rule_name(const struct tx *tx, const struct copy_verdict *c)
{
    (void)tx;
    return c->rule_name;
}

static inline void tx_tally(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

#endif
