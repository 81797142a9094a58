/*
 * outbox.h - events that wait for Redis, by the message they are of: made while it was away, handed
 * in when it is back.
 *
 * Bounded: what finds no room is let go and counted; the record of that message then has more than
 * its log, and takes its place (store_fold.c). Thread-safe; its lock is taken last.
 */
#ifndef OUTBOX_H
#define OUTBOX_H

#include "span.h"

struct outbox;

struct outbox *outbox_new(size_t bytes);
void outbox_free(struct outbox **);

/* The events of one message, in order: frames of recordlog.h. */
struct parcel {
    struct key k;
    uint8_t *bytes; /* malloc'd */
    size_t n, cap;
    unsigned events;
    struct parcel *next;          /* in its bucket */
    struct parcel *older, *newer; /* in the order they came */
};
/* One frame more for this message. */
void outbox_add(struct outbox *, const struct key *, struct span frame);
bool outbox_has(struct outbox *, const struct key *);
/* Takes out what waits for this message, or (NULL) the message that waits longest; NULL: nothing.
 * parcel_free or outbox_put_back is the caller's. */
struct parcel *outbox_take(struct outbox *, const struct key *);
/* It could not be handed in: before what has come meanwhile. Takes it over. */
void outbox_put_back(struct outbox *, struct parcel **);
void parcel_free(struct parcel **);

struct outbox_figures {
    uint64_t events, bytes; /* waiting */
    uint64_t lost;          /* events let go */
};
void outbox_figures(struct outbox *, struct outbox_figures *);

#endif
