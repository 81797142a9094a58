/*
 * entries.h - what people decided for a while: let pass, or hold, the mail of a relay, of a sender,
 * of a storm.
 *
 *   relay    192.0.2.7, 2001:db8::7   the client, by its address
 *            192.0.2.0/24             ... in this network; a /8 at most (IPv6: a /16)
 *            host[192.0.2.7]          as `breakwaterctl relays` writes it: by the address
 *            mail.a.example           the client's name as the MTA verified it; to hold, its HELO
 * too .a.example               the same, of every host below a.example sender   anna@a.example the
 * reverse-path; the null one is <>
 *            @a.example               ... whoever writes from this domain (*@a.example is the same)
 *            @.a.example              ... from a domain below it
 *            anna@*                   ... from whatever domain
 *   storm    S4K7QZ2MA                what belongs to this incident
 *
 * A HELO is only a claim: who makes it may have his own mail held by it, but lets nothing pass.
 * Letters count in any case. Of several that match, the latest made wins.
 *
 * An entry is counted, and shared by the tables that have it; but for how often it was used it
 * never changes. A table is one value: immutable, counted, swapped whole. Asking one of 10,000
 * entries costs a few hashes of the client's name and the sender's address.
 */
#ifndef ENTRIES_H
#define ENTRIES_H

#include "policy.h"

enum entry_kind {
    ENTRY_RELAY,
    ENTRY_SENDER,
    ENTRY_STORM,
    ENTRY_KINDS /* must be last */
};
/* "relay", "sender", "storm"; and back: ENTRY_KINDS: none of these. */
const char *entry_kind_name(enum entry_kind);
enum entry_kind entry_kind_find(const char *name);

enum {
    ENTRY_ID = 14,   /* an id's text, with NUL */
    ENTRY_WHAT = 280 /* likewise what an entry is about */
};

/* What an entry is made of. Texts are copied; who and why are cut at 64 and 500 bytes. */
struct entry_terms {
    const char *id; /* at most ENTRY_ID - 1 bytes */
    enum entry_kind kind;
    bool hold; /* else let pass */
    const char *what, *who, *why;
    int64_t at, until; /* ms */
    uint64_t used;     /* copies it decided about, so far */
    int64_t last;      /* ms: the latest of them; 0: none */
};

#define ENTRY_RULE "entry:" /* no rule of a policy begins so */

struct entry {
    _Atomic unsigned references;
    enum entry_kind kind;
    bool hold;
    int64_t at, until;
    char id[ENTRY_ID];
    char what[ENTRY_WHAT]; /* as people read it: lower case, without superfluous bits */
    char *who, *why;
    char rule[ENTRY_ID + 8]; /* ENTRY_RULE and its id */
    char *reason;            /* "held by anna until 2026-11-28 10:00 UTC: her words" */
    _Atomic uint64_t used;
    _Atomic int64_t last;
    uint64_t saved; /* its keeper's: what of used is on disk */
    /* private */
    uint8_t form;
    uint8_t bits; /* of a network */
    uint8_t *key;
    size_t nkey;
    uint64_t hash;
};
/* One reference. NULL after a sentence in error: what it is about cannot be read. */
struct entry *entry_new(const struct entry_terms *, char error[200]);
void entry_drop(struct entry **);

struct entries;
/* Takes the references of the n entries; they may come in any order. */
struct entries *entries_new(struct entry *const *, size_t n);
/* The same as `from` (NULL: none) without those that are over at `now` and without the one of this
 * id (NULL: no other), with one more (NULL: none), whose reference is taken. */
struct entries *entries_change(const struct entries *from, int64_t now, const char *without,
                               struct entry *more);
struct entries *entries_hold(struct entries *);
void entries_drop(struct entries **); /* one reference less; nulls */
size_t entries_count(const struct entries *);
/* The latest made first; good as long as the table. */
struct entry *entries_at(const struct entries *, size_t i);

/* A message, as entries see it. Words of strangers. */
struct entry_question {
    struct ipaddr client;
    struct span client_name; /* verified; may be empty, "unknown" or "[address]" */
    struct span helo;
    struct span sender;   /* reverse-path without <> */
    struct span incident; /* "S...", may be empty */
    int64_t now;
};
/* The latest entry that matches and is not over; NULL: none. Any thread. */
struct entry *entries_find(const struct entries *, const struct entry_question *);

/* Every copy goes the entry's way: passes, or is held (in monitor mode: would be). Exempt
 * recipients get theirs, at most tagged. Says so in the verdict, counts it. */
void entry_apply(struct entry *, const struct subject *, const struct signals *, struct verdict *);

#endif
