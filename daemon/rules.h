/*
 * rules.h - the rules in force: what judges the mail of each listener at this moment, as one value
 * that is swapped whole.
 *
 *   people, guard, reload --put--> rulebook --take--> rules, pinned by each transaction
 *
 * Invariant: rules never change once they are in a book; a transaction keeps those it began with.
 */
#ifndef RULES_H
#define RULES_H

#include "entries.h"

/* A mode of one listener's own. */
struct door_mode {
    char *listener;
    enum mode mode;
};

/* Strings are malloc'd; all of it is freed with the last reference. */
struct rules {
    _Atomic unsigned references;
    enum mode mode; /* of the listeners without one of their own */
    struct door_mode *doors;
    size_t ndoors;
    struct policy *policy;   /* NULL: all pass */
    uint64_t version;        /* its number; 0: not a stored one */
    struct entries *entries; /* people's, for a while; NULL: none */
    /* a version that is tried on a part of the mail; NULL: none */
    struct policy *trial;
    uint64_t trial_version;
    char **listeners; /* all mail of these ... */
    size_t nlisteners;
    struct span *domains; /* ... and that for recipients of these domains, lower case */
    size_t ndomains;
};

/* A copy to be changed and put: it has one reference; NULL: empty ones, monitor. */
struct rules *rules_copy(const struct rules *);
void rules_drop(struct rules **); /* one reference less; nulls */
/* A listener's own mode; MODE_COUNT takes it away. Only before rules are put. */
void rules_set_mode(struct rules *, const char *listener, enum mode);
/* The policy on trial and where; policy NULL: none. Takes the policy's reference, copies the rest.
 * Only before rules are put. */
void rules_set_trial(struct rules *, struct policy *, uint64_t version,
                     const char *const *listeners, size_t nlisteners, const char *const *domains,
                     size_t ndomains);
/* The mode of a listener. */
enum mode rules_mode(const struct rules *, const char *listener);
/* What judges the mail of a listener; it points into the rules. */
void rules_ruling(const struct rules *, const char *listener, struct ruling *out);

struct rulebook;
/* rules: the first ones; takes the reference. */
struct rulebook *rulebook_new(struct rules *);
void rulebook_free(struct rulebook **);
/* The rules in force: one reference more. Any thread, once a message: a short lock. */
struct rules *rulebook_take(struct rulebook *);
/* New ones come in force; takes the reference. One thread at a time: whoever changes rules does
 * take, copy, change, put between rulebook_lock and rulebook_unlock. */
void rulebook_put(struct rulebook *, struct rules *);
void rulebook_lock(struct rulebook *);
bool rulebook_trylock(struct rulebook *); /* never waits; false: somebody changes them */
void rulebook_unlock(struct rulebook *);

#endif
