/*
 * relays.h - the relays that misbehave, did, or are said to be fixed: one row each, in memory and
 * in the hold database.
 *
 *   incidents' culprits --note--> table --tick--> marks in the store ("known": no allowance)
 *   people: "it is fixed" --said--^    \--saved by the keeper--> table relay
 */
#ifndef RELAYS_H
#define RELAYS_H

#include "json.h"
#include "keeper.h"
#include "standing.h"
#include "store.h"

struct relays;

struct relays *relays_new(struct store *, const struct keys *, const struct standing_times *);
void relays_free(struct relays **);
/* Puts back what the hold database has saved; before anything is noted. 0, or -1: unreadable. */
int relays_load(struct relays *, struct hold *view);

/* What an incident says about one server: its culprits, each time they are looked at. Copied. */
struct relay_note {
    struct span relay; /* "host[address]" */
    const char *incident;
    bool convicted, named;
    int64_t since, until; /* ms: its first and latest detour in this incident */
    uint64_t detours;
    const char *grade, *why;
};
void relays_note(struct relays *, const struct relay_note *, int64_t now);
/* A person says it is fixed (or fixed = false: takes that back). 0; -1: no such relay is known or
 * its state does not allow it, a sentence in error. */
int relays_say_fixed(struct relays *, struct span relay, bool fixed, const char *by,
                     const char *why, int64_t now, char error[256]);
/* Documents, the latest first: {"relay","state","since","first","last","detours","incidents":[..],
 * "grade","why","late","relapses","said":{"by","at","why"}}. New reference. */
json_t *relays_list(struct relays *, int64_t now);
/* Time passes: states change, known ones are marked in the store. Once a second, one thread. */
void relays_tick(struct relays *, int64_t now);
/* Posts a save job for each that changed; like incidents_save. */
void relays_save(struct relays *, struct keeper *, struct mailbox *home, int64_t now);

#endif
