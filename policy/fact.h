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
    TYPE_ADDRESS /* of the network: facts.client, and its text */
};

/* What a text is, so that it is only looked for in sets of such. */
enum shape {
    SHAPE_TEXT,
    SHAPE_MAILBOX, /* anna@example.org */
    SHAPE_HOST,    /* the name of a host or a domain */
};

/* What a number counts, so that `message.bytes > 10m` (minutes!) is a mistake found when loaded. */
enum unit {
    UNIT_NONE,  /* a plain number; fits everywhere */
    UNIT_TIME,  /* milliseconds: ms s m h d */
    UNIT_BYTES, /* KB MB GB, of 1024 */
    UNIT_SHARE, /* 0 to 1: % */
};

struct fact_value {
    enum fact_type type;
    union { /* by type */
        bool yes;
        double number;
        struct span text;
    };
};

/* Kept in the order of fact_table. */
enum fact {
    FACT_MESSAGE_BYTES,
    FACT_MESSAGE_WORDS,
    FACT_MESSAGE_VISIBLE,   /* distinct To/Cc addresses */
    FACT_MESSAGE_LIST,      /* bool: List-* or Precedence list/bulk */
    FACT_MESSAGE_AUTOMATIC, /* bool */
    FACT_MESSAGE_REPLY,     /* bool */
    FACT_MESSAGE_NOISE,     /* bool */
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
    FACT_LOOP_EVIDENCE,
    FACT_REPLICATION_ADVICE,   /* "pass", "tag", "hold" */
    FACT_REPLICATION_RELATION, /* "first", "same", "detour", ... */
    FACT_REPLICATION_COPIES,   /* k: copies this recipient had before */
    FACT_REPLICATION_PASSED,
    FACT_REPLICATION_RULE,  /* "R6" */
    FACT_REPLICATION_STORM, /* bool */
    FACT_REPLICATION_CONVICTED,
    FACT_REPLICATION_DUPLICATES,
    FACT_REPLICATION_BLAMED,
    FACT_REPLICATION_JOIN,        /* "own", "name", "stamp", ... */
    FACT_REPLICATION_SEEN_BEFORE, /* bool */
    FACT_REPLICATION_RESTED,      /* ms */
    FACT_REPLYALL_STATE,          /* "quiet", "watch", "storm", "cooldown" */
    FACT_REPLYALL_TO_ALL,         /* bool */
    FACT_REPLYALL_REPLIES,
    FACT_REPLYALL_SENDERS,
    FACT_REPLYALL_AUDIENCE,
    FACT_REPLYALL_NEED,
    FACT_REPLYALL_EVIDENCE,
    FACT_PINGPONG_ADVICE, /* "pass", "tag", "hold" */
    FACT_PINGPONG_FLIPS,
    FACT_PINGPONG_AUTOMATIC, /* bool */
    FACT_PINGPONG_EVIDENCE,
    FACT_FLOOD_LEVEL,       /* "none", "alert", "throttle" */
    FACT_FLOOD_RATE,        /* messages a minute */
    FACT_FLOOD_BASELINE,    /* messages a minute */
    FACT_FLOOD_HOUR,        /* messages */
    FACT_FLOOD_DEFER,       /* bool */
    FACT_FLOOD_REPLICATING, /* bool */
    FACT_FLOOD_EVIDENCE,
    FACT_STORE_DEGRADED, /* bool */
    FACT_ENVELOPE_FROM_DOMAIN,
    FACT_ENVELOPE_AUTH,
    FACT_MESSAGE_FROM_DOMAIN,
    FACT_MESSAGE_CONNECTOR, /* bool */
    FACT_RELAY_LISTENER,
    FACT_REPLICATION_TOTAL,
    FACT_FLOOD_LEARNED,     /* bool */
    FACT_FLOOD_DUPLICATES,  /* share */
    FACT_FLOOD_ONE_CONTENT, /* share */
    FACT_COUNT              /* must be last */
};

struct fact_entry {
    const char *name; /* "replication.copies" */
    enum fact_type type;
    enum unit unit;
    bool per_recipient;   /* differs between the recipients of one message */
    const char *sentence; /* for the manual */
};
extern const struct fact_entry fact_table[FACT_COUNT];

enum { FACT_TEXT_MAX = 1000 };

struct facts {
    struct fact_value value[FACT_COUNT];
    struct ipaddr client;      /* relay.address */
    const struct site *site;   /* whose are @ours, @trusted ...; NULL: these are empty */
    char address[IPADDR_TEXT]; /* the text of relay.address: do not copy a struct facts */
};

/* Those that cost more than all others together: read only when they are asked for. */
#define FACTS_COSTLY (UINT64_C(1) << FACT_RELAY_ADDRESS | UINT64_C(1) << FACT_RELAY_TRUSTED)

/* The facts of a message; then those of one recipient of it (overwrites the former recipient's).
 * Texts are cut at FACT_TEXT_MAX bytes. Costly ones that are not in the set (bits
 * 1 << FACT_X, so there are at most 64 facts) are left out. */
void facts_of_message(struct facts *, const struct subject *, const struct signals *, uint64_t set);
/* The costly ones alone. */
void facts_of_relay(struct facts *, const struct subject *, uint64_t set);
void facts_of_recipient(struct facts *, const struct subject *, const struct signals *, size_t i);

/* Fills in what follows from other facts: domains from addresses, the client from the text of
 * relay.address. For facts that were not read from a message. */
void facts_derive(struct facts *);

/* The fact of this name, or FACT_COUNT. */
enum fact fact_find(struct span name);
enum shape fact_shape(enum fact);
const char *fact_type_name(enum fact_type);

/* Looks for the name a mistyped word was meant to be: set word, try all names, read name. */
struct nearest {
    struct span word;
    const char *name;  /* the nearest so far; NULL: none is near */
    unsigned distance; /* letters to change */
};
void nearest_try(struct nearest *, const char *name);

/* Reads a number with its unit ("10m", "20MB", "5%", "3") at the start of text. Returns the bytes
 * taken, 0 if it does not start with a digit or the unit is unknown. Time in ms, bytes, share of 1.
 */
size_t quantity_read(struct span text, double *value, enum unit *unit);

const char *relation_name(enum relation);
const char *advice_name(enum advice);
const char *flood_level_name(enum flood_level);
const char *disposition_name(enum disposition);
const char *mode_name(enum mode);
bool mode_find(const char *name, enum mode *); /* false: no mode is called so */

#endif
