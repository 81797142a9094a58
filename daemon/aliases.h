/*
 * aliases.h - which records the other names of messages point at (detectors/alias.h), in process.
 *
 *   alias -> row (lock) -> up to 4 keys of records; a row of 8 is given up from the plain and old
 *
 * Only pointers: whether a message joins a record is judged by the record, so an alias of a record
 * that is gone means nothing. The table has its size from the beginning and never grows; aliases of
 * storms are given up last. Thread-safe; one lock at a time.
 */
#ifndef ALIASES_H
#define ALIASES_H

#include "alias.h"

struct aliases;

/* What a key is worth when room is needed; in rising order. */
enum alias_worth { ALIAS_PLAIN, ALIAS_DUPLICATED, ALIAS_STORM };

struct aliases *aliases_new(uint64_t bytes);
void aliases_free(struct aliases **);

struct alias_found {
    struct key k;
    enum join join; /* of a name it came under before: how it was seen through then */
    bool weak;
};
/* What this alias points at, the newest first; returns how many. An alias of 0 is none. */
enum { ALIAS_CANDIDATES = 4 };
size_t aliases_find(struct aliases *, uint64_t alias, struct alias_found out[ALIAS_CANDIDATES]);
/* Points at one more record; if it does already, its worth and time are brought up to date. now in
 * ms. */
void aliases_put(struct aliases *, uint64_t alias, const struct alias_found *, enum alias_worth,
                 int64_t now);
/* All of a record's: when it is new, when it has become worth more, when it was loaded. */
void aliases_put_record(struct aliases *, const struct key *, const struct origin *,
                        enum alias_worth, int64_t now);

#endif
