/*
 * fellows.h - the desks of the other nodes: what we ask them and have them do, and what they ask
 * and have done here. All of it travels as topics of the fleet (fleet.h).
 *
 *   ours    call --ask / do--> topic ... topic --> a request from inside (http.h) --> its answer
 *           done <------------ topic "answer", in pieces <-------------------------------'
 *
 *   ask     looks only; forgotten when its time is over
 *   do      changes something; stays in the stream for the node it is for, which reads it when it
 *           starts: so it is done though the asking node died, or that node was away. At most a
 *           week later, and once: its id is written down together with what it did.
 *   storms  documents of incidents that changed
 *
 * Bytes of held messages never travel. What others send is bounded and believed no more than what
 * comes in through the control socket; only some paths can be asked for.
 *
 * The wires are used by the fleet's thread, all else by the desk's. Nothing of mail waits.
 */
#ifndef FELLOWS_H
#define FELLOWS_H

#include "fleet.h"
#include "http.h"
#include "keeper.h"

struct fellows;

struct fellows_setup {
    const char *node; /* our name */
    uint16_t number;  /* in ids */
    void *arg;
    /* who there is, us too: [{"name","alive","shared","number",..}]; a new reference */
    json_t *(*nodes)(void *arg);
    void (*hurry)(void *arg);  /* there is something to tell; any thread */
    bool (*shares)(void *arg); /* can it be told now? any thread */
};
struct fellows *fellows_new(const struct fellows_setup *); /* borrowed strings */
void fellows_free(struct fellows **);                      /* after the fleet has stopped */

enum fellows_wire {
    FELLOWS_ASK,
    FELLOWS_ANSWER,
    FELLOWS_DO,
    FELLOWS_STORMS,
    FELLOWS_WIRES /* must be last */
};
/* What the fleet is to carry, and the arg that goes with it. */
const struct fleet_topic *fellows_topic(struct fellows *, enum fellows_wire, void **arg);

/* What comes in is worked on by the desk from join to leave; before, it waits. */
struct fellows_desk {
    struct mailbox *home;
    struct keeper *keeper;
    struct hold *view;
    http_handler_fn *handler; /* of requests that come from other nodes */
    void *arg;
    /* an incident's document of another node; borrowed */
    void (*storm)(void *arg, const char *node, json_t *document);
    void *storm_arg;
};
void fellows_join(struct fellows *, const struct fellows_desk *);
/* Calls that wait are told that nobody answered. */
void fellows_leave(struct fellows *);

/* ---- desk thread ---- */

enum { FELLOW_NAME = 256, FELLOWS_MAX = 64 };
struct fellow {
    char name[FELLOW_NAME];
    uint16_t number; /* in its ids */
    bool alive;      /* and shares its past with us */
};
/* The other nodes by name, at most FELLOWS_MAX; returns how many. fellows NULL: none. */
size_t fellows_list(struct fellows *, struct fellow out[FELLOWS_MAX]);
const char *fellows_self(const struct fellows *);

struct fellow_letter {
    const char *node;
    const char *path; /* below /api/v1/ */
    json_t *query;    /* to ask: name -> text; NULL: none */
    json_t *body;     /* to do, or to ask what would be done */
    bool away;        /* is not waited for; an ask is not even sent */
};
enum { FELLOW_SILENT = 0, FELLOW_UNTOLD = -1 };
struct fellow_answer {
    int status;   /* HTTP's; FELLOW_SILENT: none in time, what was to be done it will do when it
                     can; FELLOW_UNTOLD: it could not be told, nothing will be done */
    json_t *json; /* borrowed; NULL with those */
};
typedef void fellows_done_fn(void *arg, const struct fellow_answer *, size_t n);
/* Sends n letters; done is called once, later, in the order of the letters. command: they are to
 * be done, else they ask. After fellows_leave nobody is told, and done is called at once. */
void fellows_send(struct fellows *, const struct fellow_letter *, size_t n, bool command,
                  const char *who, int64_t deadline_ms, fellows_done_fn *, void *arg);
/* Tells the others of an incident; borrowed. */
void fellows_tell_storm(struct fellows *, const json_t *document);

#endif
