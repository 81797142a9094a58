/*
 * fact.h - everything a rule may ask about: one table of names, types and sentences.
 *
 * The manual's list and the evaluator both come from this table.
 */
#ifndef FACT_H
#define FACT_H

#include "detector.h"

enum fact_type {
    TYPE_NONE,
    TYPE_BOOL,
    TYPE_NUMBER,
    TYPE_STRING, /* compared ASCII case-insensitively */
};

struct fact_value {
    enum fact_type type;
    bool yes;
    double number;
    struct span text;
};

/* Kept in the order of fact_table. */
enum fact {
    FACT_MESSAGE_BYTES,
    FACT_MESSAGE_WORDS,
    FACT_MESSAGE_VISIBLE, /* distinct To/Cc addresses */
    FACT_MESSAGE_LIST,    /* bool: List-* or Precedence list/bulk */
    FACT_MESSAGE_FROM,
    FACT_MESSAGE_SUBJECT,
    FACT_ENVELOPE_FROM, /* reverse-path, "" for null */
    FACT_ENVELOPE_RECIPIENTS,
    FACT_RECIPIENT_ADDRESS,
    FACT_RECIPIENT_DOMAIN,
    FACT_RELAY_ADDRESS,
    FACT_RELAY_NAME,
    FACT_RELAY_HELO,
    FACT_RELAY_TRUSTED, /* bool */
    FACT_LOOP_VISITS,
    FACT_LOOP_EDGES,
    FACT_LOOP_OWN_VISITS,
    FACT_LOOP_DELIVERED_TO,
    FACT_LOOP_HOPS,
    FACT_LOOP_RELAY,
    FACT_REPLICATION_ADVICE,   /* "pass", "tag", "hold" */
    FACT_REPLICATION_RELATION, /* "first", "same", "detour", ... */
    FACT_REPLICATION_COPIES,   /* k: copies this recipient had before */
    FACT_REPLICATION_PASSED,
    FACT_REPLICATION_RULE,  /* "R6" */
    FACT_REPLICATION_STORM, /* bool */
    FACT_REPLICATION_CONVICTED,
    FACT_REPLICATION_DUPLICATES,
    FACT_REPLICATION_BLAMED,
    FACT_STORE_DEGRADED, /* bool */
    FACT_COUNT           /* must be last */
};

struct fact_entry {
    const char *name; /* "replication.copies" */
    enum fact_type type;
    const char *sentence; /* for the manual */
};
extern const struct fact_entry fact_table[FACT_COUNT];

struct facts {
    struct fact_value value[FACT_COUNT];
};

/* The facts of a message; then those of one recipient of it (overwrites the former recipient's). */
void facts_of_message(struct facts *, const struct subject *, const struct signals *);
void facts_of_recipient(struct facts *, const struct subject *, const struct signals *, size_t i);

const char *relation_name(enum relation);
const char *advice_name(enum advice);
const char *disposition_name(enum disposition);
const char *mode_name(enum mode);

#endif
