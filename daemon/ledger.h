/*
 * ledger.h - every refusal is written down: a sender who is told to come again must not vanish.
 *
 *   mail threads --refused, settled--> queue --keeper--> table refusal (hold_refusal.h)
 *                 \--> who waits (in memory, 65,536 messages) --> refused how often, since when?
 *
 * A message that was refused for now waits; it comes again and passes, or is held; one that did not
 * come again for a day has been given up by its sender (LEDGER_GONE: said when the row is read,
 * nothing is written). A row says nothing of what the sender then did: most send a bounce.
 *
 * Which message it is: the keys. Nothing here waits for the disk; what does not fit into the queue
 * is counted as lost.
 */
#ifndef LEDGER_H
#define LEDGER_H

#include "hold_refusal.h"
#include "keeper.h"
#include "keys.h"
#include "message.h"
#include "trace.h"

enum { LEDGER_GONE = 24 * 3600 * 1000 }; /* ms without a retry */

/*
 * The same message for the same recipients, come again: key[0] of the header below the topmost
 * Received field, for the host that wrote that one may have been another of several; and key[1] (0:
 * none) of the header below the second one, for a server that could not get rid of it may have
 * given it to another (smtp_fallback_relay), which wrote one more. Further copies of a storm came
 * another way: their chains differ further down. The order of recipients and letters' case do not
 * matter.
 *
 * copy: of the whole header, but for what hosts of ours wrote on top (they write it anew at each
 * try). It tells the copies of a storm apart even when each of them came straight from its sender;
 * a message that comes again another way has another one.
 */
struct ledger_keys {
    uint64_t key[2], copy;
};
void ledger_keys(struct ledger_keys *, const struct keys *, const struct site *,
                 const struct message *, const struct trace *, const struct envelope *);

struct ledger;
struct ledger *ledger_new(void);
void ledger_free(struct ledger **);
/* Those who wait, before mail. 0, or -1: cannot be read. */
int ledger_load(struct ledger *, struct hold *view, int64_t now);

/* One refusal, as it is told. Spans are copied. */
struct refusal {
    uint64_t tx;
    int64_t now;
    bool final; /* 5xx */
    const char *door;
    const struct envelope *envelope;
    struct span message_id;
    const char *rule, *reason; /* NULL: none */
};
/* Any thread; a short lock. */
void ledger_refused(struct ledger *, const struct ledger_keys *, const struct refusal *);
/* Does anybody wait? If not, ledger_settled need not be called. Any thread, no lock. */
bool ledger_waiting(const struct ledger *);
/* A message came, and was not refused: if it is one that waits, this became of it. */
void ledger_settled(struct ledger *, const struct ledger_keys *, enum refusal_outcome, int64_t now);
/* How often a message that waits was refused, and since when; false: it does not wait. */
bool ledger_known(struct ledger *, const struct ledger_keys *, int64_t now, uint32_t *times,
                  int64_t *first);

/* Hands what is queued to the keeper; in its tick, or before it stops. */
void ledger_flush(struct ledger *, struct keeper *);
/* Rows were removed beside it: it looks how many there are. On the keeper thread. */
void ledger_recount(struct ledger *);
struct ledger_figures {
    uint64_t refused, settled, waiting, lost; /* lost: rows that could not be written */
};
void ledger_figures(struct ledger *, struct ledger_figures *);

#endif
