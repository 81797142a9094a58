/*
 * relays.h - the relays that misbehave, did, or are said to be fixed: one row each, in memory and
 * in the hold database.
 *
 *   incidents' culprits --note--> table --tick--> marks in the store ("known": no allowance)
 *   people: "it is fixed" --said--^    \--saved by the keeper--> table relay
 */
#ifndef RELAYS_H
#define RELAYS_H

#include "id.h"
#include "json.h"
#include "keeper.h"
#include "snapshot.h"
#include "standing.h"
#include "store.h"

struct relays;

/* store may be NULL: then nothing is marked. keys and times are used for the table's whole life. */
struct relays *relays_new(struct store *, const struct keys *, const struct standing_times *);
void relays_free(struct relays **);
/* Puts back what the hold database has saved; before anything is noted. 0, or -1: unreadable. */
int relays_load(struct relays *, struct hold *view);

/* What an incident says about one server: its culprits, each time they are looked at. Copied. The
 * same again changes nothing, so it may be said as often as one looks. */
struct relay_note {
    struct span relay;    /* "host[address]", or "perhaps host[address]"; a site is nobody */
    uint32_t server;      /* its id (struct node); 0: that of its name */
    const char *incident; /* its id */
    int64_t began;        /* ms: first copy of the incident; 0: not known */
    bool convicted, named;
    bool storm;           /* the incident is a storm */
    int64_t since, until; /* ms: its first and latest detour in this incident; 0: not known */
    uint64_t detours;
    const char *grade, *why; /* NULL: none */
};
/* Any thread; short lock. Misbehaving is who is two of these three: convicted, named, in a storm;
 * else a suspect. */
void relays_note(struct relays *, const struct relay_note *, int64_t now);

/* The same of all culprits of an incident, as its document has them (incident.h). */
void relays_note_culprits(struct relays *, const json_t *incident, int64_t now);

/* A further copy came back through this server: if it is said to be fixed, it is not, at once. Any
 * thread; costs nothing while nobody is said to be. */
void relays_blame(struct relays *, uint32_t server, int64_t now);

/* A person says it is fixed (or fixed = false: takes that back). relay: "host[address]", or as much
 * of it, host or address, as names one only. 0; -1: no such relay is known or its state does not
 * allow it, a sentence in error. */
int relays_say_fixed(struct relays *, struct span relay, bool fixed, const char *by,
                     const char *why, int64_t now, char error[256]);
/* The same, but only says what would be: what hold_save_relay has to be given so that the word is
 * durable before it counts. name and document are malloc'd. */
int relays_ask_fixed(struct relays *, struct span relay, bool fixed, const char *by,
                     const char *why, int64_t now, char **name, char **document, char error[256]);

/* Their documents as a snapshot takes and brings them; lives as long as the table. */
const struct snapshot_texts *relays_texts(struct relays *);

/* Documents, the latest first: {"relay","state","since","first","last","detours","incidents":[..],
 * "grade","why","late","relapses","said":{"by","at","why"} or null}. New reference. */
json_t *relays_list(struct relays *);
/* How many are in each state. */
void relays_count(struct relays *, size_t count[STANDING_STATES]);
/* Time passes: states change, known ones are marked in the store. Once a second, one thread. */
void relays_tick(struct relays *, int64_t now);
/* Posts a save job for each that changed; like incidents_save. */
void relays_save(struct relays *, struct keeper *, struct mailbox *home);

#endif
