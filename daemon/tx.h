/*
 * tx.h - one transaction is one message, MAIL to final reply. The only place that knows the order:
 *
 *   envelope, fields, body -> fingerprints -> subject -> count -> store -> judge -> policy
 *                                                                           -> hold -> done
 *
 * tx_begin takes a fresh arena, tx_end frees it and nulls the pointer. There is nothing to reset.
 */
#ifndef TX_H
#define TX_H

#include "body.h"
#include "config.h"
#include "days.h"
#include "figures.h"
#include "id.h"
#include "incident.h"
#include "journal.h"
#include "keeper.h"
#include "relays.h"
#include "rules.h"
#include "store.h"

struct alarm;
struct fleet;
struct fellows;
struct recall;
struct ledger;
struct versions;
struct watch;

/* What every transaction of a process works with. Members may be NULL: no keeper = nothing can be
 * held (replay, bench), no journal, no incidents, no relays. */
struct pipeline {
    struct store *store;
    struct keeper *keeper;
    struct journal *journal;
    struct incidents *incidents;
    struct recall *recall; /* what outlives the process; only the desk asks */
    struct relays *relays;
    struct smtp_doors *doors;  /* NULL: no SMTP door is open */
    struct rulebook *rules;    /* NULL: the configuration's policy, and mode */
    struct versions *versions; /* what puts rules into the book; only the desk asks */
    struct ledger *ledger;     /* of refusals */
    struct watch *watch;       /* the guard; NULL: none */
    struct fellows *fellows;   /* the other nodes' desks, only ours asks; NULL: we are alone */
    struct alarm *alarm;       /* how people are told; NULL: by the log alone */
    struct fleet *fleet;       /* the other nodes; NULL: the past is not shared */
    enum mode mode;            /* only where there is no rulebook */
    _Atomic bool hold_full;    /* the hold database is at hold.max_bytes */
    _Atomic uint64_t late;     /* holds the keeper still has whose messages went another way */
    struct figures *figures;
    struct days *days; /* NULL, too */
};

/* The mode of listeners without one of their own, as in force now; and to change it. Any thread. */
enum mode pipeline_mode(const struct pipeline *);
void pipeline_set_mode(struct pipeline *, enum mode);
/* The same of one listener; MODE_COUNT: none of its own any more. Needs a rulebook. */
void pipeline_set_door_mode(struct pipeline *, const char *listener, enum mode);

struct tx; /* opaque: doors ask through functions */

/* begin: at MAIL. Pins config and rules, fixes mode and time. keys: the thread's own. home: where
 * waiting ends; may be NULL when pipeline->keeper is NULL. door: the listener's name. */
struct tx *tx_begin(struct pipeline *, struct config *, const struct keys *, struct mailbox *home,
                    const char *door);
/* Ends it in any state: cancels what is pending, settles as aborted what was not committed, frees,
 * nulls. Of a message that was judged and neither committed nor refused, copies that were to pass
 * were aborted: the client was gone. What is held or refused by a rule stays so. */
void tx_end(struct tx **);

struct arena *tx_arena(struct tx *);
struct gauge *tx_gauge(const struct tx *); /* of its door; NULL: nothing is counted */
struct envelope *tx_envelope(struct tx *); /* the door fills client facts */
/* Spans are copied. raw: with or without <>. */
void tx_reversepath(struct tx *, struct span raw, struct span params);
/* 0, or -1 beyond LIMIT_RECIPIENTS or when the message has taken more memory than any real one does
 * (then it is passed unjudged for all). */
int tx_recipient(struct tx *, struct span raw, struct span params);

/* The door cannot take single recipients away: where only some copies would be held all pass,
 * tagged. Before tx_judge. */
void tx_indivisible(struct tx *);

/* A door that hands the message on itself needs its bytes in every mode. Before any of them. */
void tx_keep(struct tx *);
/* What was kept, once all of it is there: the header without what doors strip (in the tx's arena),
 * and the body side, from the empty line on. false: there was no room for it (452). */
bool tx_bytes(struct tx *, struct span *head, struct body **body);

void tx_field(struct tx *, struct span name, struct span value); /* milter */
void tx_header_end(struct tx *);                                 /* milter: EOH */
void tx_body(struct tx *, struct span);                          /* milter: after the empty line */
void tx_raw(struct tx *, struct span); /* SMTP, files: header and body bytes */

/*
 * The end of the message: judges, holds what is to be held, then calls done once - never before
 * tx_judge has returned TX_WAIT; TX_DONE means the verdict is there already and done is not called.
 * After a hold could not be made durable in time the verdict says what happens instead.
 */
enum tx_state { TX_DONE, TX_WAIT };
typedef void tx_done_fn(void *arg, struct tx *);
enum tx_state tx_judge(struct tx *, tx_done_fn *, void *arg) MUSTCHECK;

/* After the judgement: what the door must do. */
const struct verdict *tx_verdict(const struct tx *);
const struct signals *tx_signals(const struct tx *);
uint64_t tx_id(const struct tx *);
/* Headers to add ("X-Breakwater" value) or NULL; a release header to strip: how many fields, 0:
 * none. */
const char *tx_tag(const struct tx *);
unsigned tx_strip(const struct tx *);
/* Value of the X-Breakwater-Trace field to add, in the tx's arena; NULL: none. */
const char *tx_stamp(const struct tx *);
/* Reply for throttle or reject: "451 4.7.0 text" or "550 5.4.6 text", for the whole message; NULL:
 * none. */
const char *tx_reply(const struct tx *);
const char *tx_incident(const struct tx *); /* "S...", or NULL */

/* What was to pass could not be handed on, and the client is told so (code; 0: nothing, or 451):
 * the copies that are held already are taken out of the hold queue again, nothing counts as
 * delivered or held. why: in a few words that live as long as the process; they stand in the
 * journal instead of the rule. Before tx_end, instead of tx_commit; or instead of tx_judge, when
 * the door takes no such message. */
void tx_refused(struct tx *, int code, const char *why);

/* The door's reply has left (milter) or downstream said 2xx: passed copies are passed for good. */
void tx_commit(struct tx *);

#endif
