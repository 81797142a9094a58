/*
 * address.h - addresses in header fields (RFC 5322 3.4, and what people write instead).
 *
 * Linear in the input: groups, comments, quoted strings, routes, missing brackets, 8-bit.
 */
#ifndef ADDRESS_H
#define ADDRESS_H

#include "keys.h"
#include "message.h"

/* Calls fn with each addr-spec in value (local@domain; as written, blanks and comments removed,
 * quoted local parts unquoted when they need no quotes). Stops when fn returns false. */
typedef bool address_fn(void *arg, struct span addr_spec);
void address_each(struct arena *, struct span value, address_fn *, void *arg);

/* The first addr-spec of value, ASCII lower case; empty if none. */
struct span address_first(struct arena *, struct span value);

/* The domain of an address (after the last @), or empty. */
struct span address_domain(struct span address);

/* The visible recipients: distinct addr-specs of all To and Cc fields, as keyed hashes. */
struct visible {
    uint64_t *hash;       /* sorted, distinct, at most LIMIT_VISIBLE */
    struct span *address; /* in the same order, lower case */
    size_t n;
    size_t total;          /* distinct or not, counted without limit */
    struct span connector; /* an address with "mspop3connector." in it, or empty */
};
/* Fills v from the To and Cc fields of m. */
void visible_read(struct visible *v, const struct message *m, const struct keys *);
/* Where the address of this hash is in v, or -1. */
long visible_find(const struct visible *, uint64_t address_hash);

#endif
