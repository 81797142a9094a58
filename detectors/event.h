/*
 * event.h - what one node saw of a message, or what became of its copies, as bytes: so that several
 * nodes share one past.
 *
 *   log of K: event event event ...      record of K = the fold of them, in order, on any node
 *
 * All that decides lives in replication.c; here is only how an observation travels. What depends on
 * the node that saw the message (its long memory, whom it exempts, what it knows of servers, which
 * hosts are its own, its list of public suffixes) is asked there and travels as an answer. What
 * remains is the same everywhere: the bytes, the site key, the detectors' parameters
 * (site_parameters_hash()) and this code (EVENT_VERSION). Nodes that differ in these must not
 * share.
 *
 * An observation has three forms, because most of it matters seldom:
 *
 *   first   the log is new: content, path and recipients, no names of servers     255 bytes
 *   again   its content is known: the servers by name, no content             260 to 290
 *   whole   everything: fits any record                                       500 to 580
 *
 * (one recipient, four Received fields; each further recipient takes 8 bytes, or 11 where more than
 * his hash matters; whom the message shows takes a few bytes, be they one or two thousand. Fates
 * take 26 bytes and 8 for each further recipient). Choose with event_form_for() on what is known
 * here; if the log turns out to hold something else, the event is EVENT_UNFIT on every node and
 * changes nothing: the node that made it sends the whole one.
 *
 * Invariant: bytes that are no event, or not all of one, change nothing.
 */
#ifndef EVENT_H
#define EVENT_H

#include "replication.h"

enum {
    EVENT_VERSION = 1,                 /* of the bytes, and of what the fold of them is */
    EVENT_RCPTS_MAX = LIMIT_RECIPIENTS /* recipients of one event: those of one transaction */
};

enum event_kind {
    EVENT_NONE,
    EVENT_FIRST, /* observations: see above */
    EVENT_AGAIN,
    EVENT_WHOLE,
    EVENT_FATES,  /* what became of copies */
    EVENT_RECORD, /* the record itself: a compacted log begins with it */
    EVENT_KINDS   /* must be last */
};

/* What every event begins with. id: random, so that a log can be asked "is it the one I know";
 * node: who made it. */
struct event_head {
    enum event_kind kind;
    uint64_t id;
    uint32_t node;
    int64_t now; /* ms, on the clock of the fleet */
};
/* Reads no more than that; false: these bytes are no event of this version. */
bool event_head(struct span, struct event_head *);

/* The shortest observation that fits what is known of the message here; NULL: nothing is. */
enum event_kind event_form_for(const struct record *, const struct observation *);

/* Each writes one event into the arena and returns its size. An observation's o->k and o->ring are
 * those of the record it goes to; its time is the subject's. */
size_t event_observation(struct arena *, const struct observation *, enum event_kind form,
                         uint64_t id, uint32_t node, uint8_t **out);
size_t event_fates(struct arena *, uint64_t id, uint32_t node, int64_t now, const uint64_t *rcpt,
                   const enum fate *, size_t n, uint8_t **out);
size_t event_record(struct arena *, const struct record *, uint64_t id, uint32_t node, int64_t now,
                    uint8_t **out);

enum event_applied {
    EVENT_OK,
    EVENT_CONFLICT, /* another content: the message belongs to the next K' (replication_observe) */
    EVENT_UNFIT,    /* a first or again event on a record that is not so: send the whole one */
    EVENT_BAD       /* no event, or not of this version */
};

/*
 * Changes the record as replication_observe() and record_settle() would have; all but EVENT_OK
 * leaves it as it was. Signals are asked for (not NULL) by the node that made the event and answers
 * for the message: they are those of replication_observe(), in the arena, but for k, which is of
 * the record and the caller's to fill in. They are only written on EVENT_OK of an observation.
 */
enum event_applied event_apply(struct record *, struct span event, const struct site *,
                               const struct keys *, struct arena *,
                               struct replication_signals *out);

#endif
