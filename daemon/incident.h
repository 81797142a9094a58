/*
 * incident.h - storms while they happen: a small bounded table in memory, fed by the mail threads
 * after each verdict on a further copy, read by the desk, saved by the keeper once a second while
 * it changes.
 */
#ifndef INCIDENT_H
#define INCIDENT_H

#include "id.h"
#include "json.h"
#include "keeper.h"
#include "store.h"

struct incidents;

enum { INCIDENT_OPEN_MS = 3600 * 1000 }; /* without a copy, until it is quiet */

enum incident_kind {
    INCIDENT_REPLICATION,
    INCIDENT_LOOP,
    INCIDENT_REPLYALL,
    INCIDENT_PINGPONG,
    INCIDENT_FLOOD,
    INCIDENT_KINDS /* must be last */
};

struct incidents *incidents_new(struct store *, const struct site *);
void incidents_free(struct incidents **);

/* What one transaction adds. Copied. Any thread; short lock. */
struct incident_note {
    struct key k;
    enum incident_kind kind;
    int64_t now;
    uint32_t passed, tagged, held, would_hold; /* recipients */
    uint32_t recipients_visible;
    struct span from, subject, message_id, relay;
    const char *evidence; /* loop: the turn in words */
    bool storm;
};
/* Returns true when this note opened the incident or made it a storm (worth a log line). */
bool incidents_note(struct incidents *, const struct incident_note *);

/*
 * Documents for people; times as in json.h; what the store knows of the message is merged in:
 * {"id","kind","state","storm","first","last","copies","passed","tagged","held","would_hold",
 * "recipients","without","visible","from","subject","message_id","relay","evidence":[..],
 * "culprits":[{"relay","named","copies","score","grade","conviction","evidence":[..]}]}.
 * New references; the list has the most recent first.
 */
json_t *incidents_list(struct incidents *, int64_t now);
json_t *incident_document(struct incidents *, const char *id,
                          int64_t now); /* NULL: not in memory */
/* "open"; "quiet": no copy for an hour; "closed": none for a day. Sets "state" of a saved one. */
void incident_restate(json_t *document, int64_t now);
bool incident_is_open(int64_t last, int64_t now);
size_t incidents_open(struct incidents *, int64_t now); /* how many are open */
bool incidents_has(struct incidents *, const char *id); /* in memory? */

/* Posts a save job for every incident that changed since the last call; desk thread, once a second.
 * The incidents must outlive the jobs: their done functions run in `home`. */
void incidents_save(struct incidents *, struct keeper *, struct mailbox *home, int64_t now);

#endif
