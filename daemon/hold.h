/*
 * hold.h - the hold queue: one SQLite database, contents once, copies many (DESIGN.md 6).
 *
 *   content   head or body bytes, once by SHA-256; or a depth-1 zstd delta against the reference
 *             content of the same K; references counted
 *   mail      one held transaction: envelope, contents, whole SHA-256, K, incident, rule, reason
 *   copy      one recipient of it: state, attempts, by whom
 *   storm     the mails of one K and incident: their reference contents
 *   attempt   one try to release a mail: was its token used?
 *   word, recipient, count, incident, audit, setting (the mode and the like): small tables
 *
 * States of a copy: held -> releasing -> released | discarded (bin: 30 days) ; releasing -> held by
 * undo. From the commit of a put on the copy is sacred. Only the keeper thread opens it for
 * writing.
 */
#ifndef HOLD_H
#define HOLD_H

#include "arena.h"
#include "body.h"

enum copy_state {
    COPY_NONE,
    COPY_HELD,
    COPY_RELEASING,
    COPY_RELEASED,
    COPY_DISCARDED,
    COPY_STATES /* must be last */
};
const char *copy_state_name(enum copy_state);

struct hold; /* one connection, one thread */

/*
 * Opens dir/hold.db (made if `write`). A damaged database: when writing, what can be read is
 * carried into a new file, the damaged one is set aside as hold.db.damaged-TIME, *damaged is set; a
 * database of a newer version is refused. A reader turns to the new file by itself. NULL after a
 * sentence in error.
 */
struct hold *hold_open(const char *dir, bool write, bool *damaged, char error[512]);
void hold_close(struct hold **);
/* The last failure came from a damaged file: close and open again. */
bool hold_broken(const struct hold *);
/* Checkpoint and a little vacuum, for when there is nothing else to do. */
void hold_maintain(struct hold *);
/* Every reference, count and row against each other. 0: sound; else how many things are wrong, the
 * first of them as a sentence; -1: cannot be read. Slow. */
int hold_check(struct hold *, char problem[512]) MUSTCHECK;

int hold_begin(struct hold *) MUSTCHECK;
int hold_commit(struct hold *) MUSTCHECK; /* durable when it returns 0; on -1 rolled back */
void hold_rollback(struct hold *);
/* Nested undo for one piece of a group. */
int hold_savepoint(struct hold *) MUSTCHECK;
int hold_release_savepoint(struct hold *) MUSTCHECK;
void hold_undo_savepoint(struct hold *);

/* One recipient to be held. */
struct held_copy {
    uint64_t id;
    struct span rcpt; /* raw, as received */
    struct span params;
    uint64_t rcpt_hash;
    uint8_t relation; /* enum relation */
    uint32_t number;  /* which copy for this recipient: k + 1 */
    bool first;       /* nothing had passed to this recipient when it was held */
};
/* One transaction to be held. */
struct held_mail {
    uint64_t id; /* the tx's */
    int64_t arrival;
    struct span door, client, client_name, helo, queue_id, auth;
    struct span reversepath, reversepath_params;
    struct key k;
    struct span incident; /* "S...", may be empty */
    struct span rule, reason, blamed;
    struct span message_id, from, subject; /* for people; hostile */
    struct span head;                      /* header bytes */
    struct body *body;                     /* rest; head + body is the message */
    struct held_copy *copies;
    size_t ncopies;
};
/* Within a transaction. 0, or -1 (nothing of it is stored). */
int hold_put(struct hold *, const struct held_mail *) MUSTCHECK;
/* Removes a mail whose put committed after its tx gave up. */
int hold_unput(struct hold *, uint64_t mail) MUSTCHECK;

/* The message, exact bytes, SHA-256 verified. bytes is malloc'd. -1: not there; -2: damaged. */
int hold_bytes(struct hold *, uint64_t mail, uint8_t **bytes, size_t *n,
               uint8_t sha256[32]) MUSTCHECK;

/* A copy with its mail, as read; strings NUL-terminated in the arena. */
struct copy_row {
    uint64_t id, mail;
    enum copy_state state;
    int64_t arrival, changed; /* ms; changed: when the state last did */
    char *rcpt, *params, *reversepath, *reversepath_params, *client, *client_name, *helo, *queue_id;
    char *door, *incident, *rule, *reason, *blamed, *message_id, *from, *subject;
    char *by, *why, *reply; /* who released or discarded, why, the MTA's reply */
    uint8_t relation;
    uint32_t number, attempts;
    int64_t next_attempt; /* releasing: not before */
    bool first;
    uint64_t rcpt_hash, size;
    struct key k;
    uint8_t sha256[32];
};
struct hold_filter {
    const char *incident; /* NULL: any */
    const char *rcpt;     /* exact address, ASCII case-insensitive; NULL: any */
    const char *sender;   /* reverse-path likewise */
    int state;            /* enum copy_state or -1: any */
    const char *rule;     /* by whose name they are held */
    int64_t since;        /* ms: held since then; 0: any */
    bool first;           /* those whose recipients had none when they were held */
    uint64_t mail;        /* 0: any */
    uint64_t after;       /* copies with a greater id (cursor) */
    size_t limit;         /* 0: 100 */
};
typedef int copy_fn(void *arg, const struct copy_row *); /* nonzero stops */
int hold_each(struct hold *, const struct hold_filter *, copy_fn *, void *arg) MUSTCHECK;
int hold_copy(struct hold *, struct arena *, uint64_t id,
              struct copy_row *out) MUSTCHECK; /* -1: none */

/* contents, content_bytes and file_bytes are of the whole database, whatever the incident. */
struct hold_figures {
    uint64_t copies[COPY_STATES]; /* by state */
    uint64_t mails, contents, content_bytes, file_bytes;
    int64_t oldest; /* arrival of the oldest held copy, 0: none */
};
int hold_figures(struct hold *, const char *incident, struct hold_figures *) MUSTCHECK;
/* Copies held now: one row, however many they are. */
int hold_held(struct hold *, uint64_t *copies) MUSTCHECK;

/* State changes; writer only, in a transaction. Each returns how many copies changed, or -1. */
int hold_release_id(struct hold *, uint64_t copy, const char *by, int64_t now) MUSTCHECK;
/* One copy for each recipient of the incident who has none: none passed (by `first` of its oldest
 * copy and no released or releasing copy). passed() may veto a recipient; NULL: nobody vetoes. */
typedef bool passed_fn(void *arg, const struct key *, uint64_t rcpt_hash);
int hold_release_one_each(struct hold *, const char *incident, const char *by, int64_t now,
                          passed_fn *passed, void *arg, bool dry) MUSTCHECK;
/* The same question, for each message and recipient of the incident: copy is the one that would be
 * released, 0: one passed or is on its way, or none is held. Reads only. 0 or -1. */
typedef void need_fn(void *arg, const struct key *, uint64_t rcpt_hash, uint64_t copy);
int hold_each_need(struct hold *, const char *incident, passed_fn *passed, void *passed_arg,
                   need_fn *, void *arg) MUSTCHECK;
int hold_release_filter(struct hold *, const struct hold_filter *, const char *by, int64_t now,
                        bool dry) MUSTCHECK;
int hold_discard_id(struct hold *, uint64_t copy, const char *by, const char *why,
                    int64_t now) MUSTCHECK;
int hold_discard_filter(struct hold *, const struct hold_filter *, const char *by, const char *why,
                        int64_t now, bool dry) MUSTCHECK;
/* Back to held: from releasing (no attempt under way) or discarded (in the bin). */
int hold_undo_id(struct hold *, uint64_t copy, int64_t now) MUSTCHECK;

/* Release engine. A new attempt for the mail's releasing copies that are due at `now`: counts it,
 * sets their attempts to its number and their next attempt (should we crash) to next_attempt;
 * returns the number, or -1 (also when nothing is due). */
int hold_attempt(struct hold *, uint64_t mail, int64_t now, int64_t next_attempt) MUSTCHECK;
int hold_released(struct hold *, uint64_t copy, const char *reply, int64_t now) MUSTCHECK;
int hold_deferred(struct hold *, uint64_t copy, const char *reply, int64_t next_attempt) MUSTCHECK;
/* Next mails with copies to send at `now`, oldest first; returns how many ids were written, -1 on
 * error. */
int hold_due(struct hold *, int64_t now, uint64_t *mails, size_t cap) MUSTCHECK;
/* What a token of (mail, attempt) must have been made from: the message's SHA-256 and the recipient
 * hashes of the copies of that attempt (in the arena). -1: no such attempt. */
int hold_token_facts(struct hold *, struct arena *, uint64_t mail, uint32_t attempt,
                     uint8_t sha256[32], uint64_t **rcpts, size_t *n) MUSTCHECK;
/* Marks token (mail, attempt) used. 1: now used; 0: was used already or is not the mail's; -1:
 * error. */
int hold_token_use(struct hold *, uint64_t mail, uint32_t attempt) MUSTCHECK;

/* Purges discarded copies older than the bin's 30 days, lets go of the bytes of mails released as
 * long ago (the record stays), contents nobody refers to, and incidents that nothing is held of:
 * after 30 days, storms after 400, their records likewise. A bounded piece of work: how many of
 * these it went through, call again while it is not 0; or -1. */
int hold_purge(struct hold *, int64_t now) MUSTCHECK;

/* Incidents: one JSON document each, kept as text. */
int hold_save_incident(struct hold *, const char *id, int64_t first, int64_t last,
                       const char *json) MUSTCHECK;
/* The document of one, malloc'd. 1; 0: none; -1. */
int hold_incident(struct hold *, const char *id, char **json) MUSTCHECK;
/* Those with a copy since then (ms), the latest first, at most `limit`. */
typedef int incident_fn(void *arg, const char *id, const char *json); /* nonzero stops */
int hold_each_incident(struct hold *, int64_t since, size_t limit, incident_fn *,
                       void *arg) MUSTCHECK;
int hold_incidents(struct hold *, uint64_t *n) MUSTCHECK; /* how many there are */

/* Relays: one document each, by name (relays.h). */
int hold_save_relay(struct hold *, const char *name, int64_t last, const char *json) MUSTCHECK;
int hold_remove_relay(struct hold *, const char *name) MUSTCHECK;
/* The latest first, at most `limit`. */
typedef int relay_fn(void *arg, const char *name, const char *json); /* nonzero stops */
int hold_each_relay(struct hold *, size_t limit, relay_fn *, void *arg) MUSTCHECK;

/* The registry of storms: packed records by K (record.h). each: of this site key, the oldest first;
 * one that is damaged is left out and counted. */
int hold_save_memory(struct hold *, const struct key *, uint32_t key_id, int64_t last,
                     struct span bytes) MUSTCHECK;
typedef void memory_fn(void *arg, const struct key *, struct span bytes);
int hold_each_memory(struct hold *h, uint32_t key_id, memory_fn *fn, void *arg,
                     uint64_t *damaged) MUSTCHECK;

int hold_audit(struct hold *, int64_t now, const char *who, const char *what,
               const char *why) MUSTCHECK;
/* Settings: mode and the like. get: NUL-terminated into out, or -1. */
int hold_setting_set(struct hold *, const char *name, const char *value) MUSTCHECK;
int hold_setting_get(struct hold *, const char *name, char *out, size_t cap) MUSTCHECK;

#endif
