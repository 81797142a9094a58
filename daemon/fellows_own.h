/*
 * fellows_own.h - the inside of fellows, shared by fellows.c (wires, calls) and fellows_serve.c
 * (what others want of us). Include it after fellows.h.
 */
#ifndef FELLOWS_OWN_H
#define FELLOWS_OWN_H

#include <pthread.h>

#include "id.h"
#include "mailbox.h"

#define FELLOWS_WEEK (INT64_C(7) * 86400 * 1000) /* ms a command may wait for its node */
#define FELLOWS_SOON (INT64_C(10) * 1000)        /* and a question */

/* One batch, on its way out or in. */
struct parcel {
    struct parcel *next;
    enum fellows_wire wire;
    char node[FELLOW_NAME]; /* in: who sent it */
    char id[ID_TEXT];       /* out: by which it can be withdrawn; "": it cannot */
    size_t n;
    uint8_t bytes[];
};
struct parcels {
    struct parcel *first, **end;
    size_t bytes;
};
struct wire {
    struct fellows *fellows;
    enum fellows_wire what;
    struct fleet_topic topic;
    struct parcels out;
};
/* Tells the desk that something came in. */
struct incoming {
    struct letter letter; /* must be first */
    struct fellows *fellows;
};

struct fellows_call;
struct errand;
struct fellows {
    struct fellows_setup setup;
    uint16_t number;
    pthread_mutex_t lock; /* of the lists, woken and desk.home */
    struct wire wire[FELLOWS_WIRES];
    struct parcels in;
    bool woken;
    struct fellows_desk desk;
    struct fellows_call *calls;
    struct errand *errands; /* commands that wait for our disk */
};

/* false: it is too large for a batch. */
bool fellows_post(struct fellows *, enum fellows_wire, const char *id, struct span);
bool fellows_post_json(struct fellows *, enum fellows_wire, const char *id, const json_t *);
/* A piece of an answer to one of our calls. */
void fellows_answered(struct fellows *, const char *node, struct span parcel);
/* Whatever came in. */
void fellows_open(struct fellows *, const struct parcel *);
void fellows_serve_end(struct fellows *);

#endif
