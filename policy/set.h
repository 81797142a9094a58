/*
 * set.h - a named set of policy.conf: many texts or networks, found without looking at each.
 *
 *   texts       any text                     a fact that says the same
 *               .example.org                 ... a host name below example.org ("*." is the same)
 *   addresses   anna@example.org             this mail address
 *               @example.org, *@example.org  all of the domain
 *               @.example.org                ... of the domains below it
 *               anna@*                       of all domains
 *               <>                           the null reverse-path
 *   networks    192.0.2.0/24, 2001:db8::1
 *
 * The first entry says which of the three a set has. Letters count in any case (ASCII). Invariant:
 * once sealed it is sorted, and asking it costs some binary searches, whatever it holds.
 */
#ifndef SET_H
#define SET_H

#include "fact.h"

enum {
    SET_ENTRIES = 1000000,  /* of one set */
    SET_BYTES = 64 << 20,   /* of one file */
    SET_ENTRY_BYTES = 1000, /* of one entry: facts are no longer */
    SET_WHY = 200
};

enum set_kind {
    SET_EMPTY, /* fits everywhere, has nothing */
    SET_TEXTS,
    SET_ADDRESSES,
    SET_NETWORKS,
    SET_KINDS /* must be last */
};
/* "texts", "mail addresses", "networks". */
const char *set_kind_name(enum set_kind);

struct set; /* lies in an arena; once sealed it never changes */

struct set *set_new(struct arena *, const char *name);
/* Adds one entry (copied). false, and a sentence in why: it is none, or not of the set's kind. */
bool set_add(struct set *, struct span entry, char why[SET_WHY]) MUSTCHECK;
/* Adds all of a file: one entry a line; # begins a comment, at the start of a line or after a
 * blank. 0, or the number of the first line with a mistake, and a sentence in why. */
unsigned set_read(struct set *, struct span text, char why[SET_WHY]) MUSTCHECK;
/* Nothing is added any more. */
void set_seal(struct set *);

const char *set_label(const struct set *);
enum set_kind set_kind(const struct set *);
size_t set_size(const struct set *);
/* Is this text, of a fact of that shape, in a sealed set of texts or addresses? */
bool set_has_text(const struct set *, enum shape, struct span);
/* Is this address in one of networks? IPv4 is never in an IPv6 network. */
bool set_has_address(const struct set *, const struct ipaddr *);

/* Is it the address, or in the network? m->addr.family 0: the unknown address. */
bool network_has(const struct netmask *m, const struct ipaddr *);

#endif
