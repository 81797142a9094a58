/*
 * incident.h - storms while they happen, and those of the last 400 days: a bounded table in memory,
 * fed by the mail threads, read by the desk, saved by the keeper once a second while it changes.
 *
 * One incident has several messages: the original, its re-issues, the "please stop" reply. A
 * message that would open an incident joins one that there is:
 *
 *   same message (K)                            always
 *   same content (F)                            always: a storm that comes back after weeks
 *   a server convicted in it brought the copy   \
 *   the same visible recipients, 10 or more      > within 7 days of its last copy
 *   it answers one of its messages              /
 *
 * Conversations (reply-all), pairs (ping-pong) and relays (flood) have one incident each.
 */
#ifndef INCIDENT_H
#define INCIDENT_H

#include "id.h"
#include "json.h"
#include "keeper.h"
#include "relays.h"
#include "store.h"

struct incidents;

enum {
    INCIDENT_OPEN_MS = 3600 * 1000, /* without a copy, until it is quiet */
    INCIDENT_VISIBLE = 10 /* To and Cc addresses from which on their set tells something */
};

enum incident_kind {
    INCIDENT_REPLICATION,
    INCIDENT_LOOP,
    INCIDENT_RULE, /* new mail no detector speaks against: a rule of the operator's, or an entry */
    INCIDENT_REPLYALL,
    INCIDENT_PINGPONG,
    INCIDENT_FLOOD,
    INCIDENT_KINDS /* must be last */
};

const char *incident_kind_text(enum incident_kind); /* "replication", "loop", "rule" ... */

/* How many are kept: the longest quiet goes first, storms last. */
enum { INCIDENTS_DAEMON = 1024, INCIDENTS_REPLAY = 16384 };

struct incidents *incidents_new(struct store *, const struct site *); /* INCIDENTS_DAEMON */
void incidents_limit(struct incidents *, size_t limit);               /* not below what there is */
/* Who is told of culprits whenever an incident is saved; before anything is noted. */
void incidents_tell(struct incidents *, struct relays *);
void incidents_free(struct incidents **);
/* Puts back what the hold database has saved of the last 400 days; before anything is noted. 0, or
 * -1: unreadable. */
int incidents_load(struct incidents *, struct hold *view, int64_t now) MUSTCHECK;

/* A server on a message's path. */
struct incident_server {
    uint32_t id;      /* keyed hash */
    struct span name; /* "host[address]"; empty: unknown */
};

/* What one transaction adds. Copied. Any thread; short lock. */
struct incident_note {
    struct key k;
    enum incident_kind kind;
    uint64_t about; /* keyed hash of the conversation, pair, relay or rule of those kinds; else 0 */
    int64_t now;
    uint32_t passed, tagged, deferred, held, would_hold; /* recipients */
    uint32_t recipients_visible;
    struct span from, subject, message_id, relay;
    const char *evidence; /* the turn of a loop, the figures of a detector in words */
    bool storm;
    bool alert;     /* opens an incident although nothing is held */
    bool named;     /* flood: the relay is to be named, for what is usual of it is known */
    int64_t rested; /* ms since the message was seen before; 0: it was not */

    /* by what it may be joined; keyed hashes, 0: by nothing of the kind */
    uint64_t content, own, visible;
    const uint64_t *reference;
    size_t nreferences;
    const struct incident_server *server; /* said to replicate: is one convicted in a storm? */
    size_t nservers;
    const struct incident_server *convicted; /* for this message */
    size_t nconvicted;
};

/* Where this transaction's copies belong, asked before they are held: opens or joins an incident if
 * need be. false: they belong to none. */
bool incidents_place(struct incidents *, const struct incident_note *, char id[INCIDENT_TEXT]);

enum incident_event {
    INCIDENT_RESURFACED,
    INCIDENT_OPENED,
    INCIDENT_JOINED,
    INCIDENT_STORM,
    INCIDENT_EVENTS /* must be last */
};
/* What is worth a log line. */
struct incident_news {
    unsigned events; /* bits 1 << INCIDENT_X, each told once */
    char id[INCIDENT_TEXT];
    char joined[128];  /* why, in words */
    char slept[32];    /* resurfaced after: "28 days" */
    uint64_t copies;   /* so far */
    unsigned messages; /* of the incident */
};
/* Counts the transaction; places it first if that has not been done. false: it belongs to none. */
bool incidents_note(struct incidents *, const struct incident_note *, struct incident_news *);

/*
 * Documents for people; times as in json.h; what the store knows of the messages is merged in:
 * {"id","kind","state","storm","first","last","copies","passed","tagged","deferred","held",
 * "would_hold",
 * "recipients","without","visible","from","subject","message_id","relay","evidence":[..],
 * "resurfaced":{"at","after","slept"} or null,"members":[{"message_id","first","copies","joined"}],
 * "culprits":[{"relay","named","copies","score","grade","conviction","since","until","late",
 * "evidence":[..]}]}. Deferred copies come again, and are no part of "copies".
 * New references; the list has the most recent first.
 */
json_t *incidents_list(struct incidents *, int64_t now);
json_t *incidents_latest(struct incidents *, int64_t now, size_t limit); /* at most so many */
json_t *incident_document(struct incidents *, const char *id,
                          int64_t now); /* NULL: not in memory */
/* The same as they are saved, with what only we need; incident_restate takes that away. */
json_t *incident_whole(struct incidents *, const char *id, int64_t now);
json_t *incidents_whole(struct incidents *, int64_t now, size_t limit);

/*
 * The same storm as several nodes of one past know it: whole documents, and whose they are; n > 0.
 * What each counted itself is added up; what only the shared record of a message tells is counted
 * once: the largest figure is the latest. First, last, culprits, members: of all. A new reference,
 * with "nodes":[{"node","copies","passed","held","first","last"}]; incident_restate it.
 */
json_t *incident_union(json_t *const *documents, const char *const *nodes, size_t n);
/* What another node knows: messages of its storms are known here from now on, its counts are not
 * ours. Any thread. */
void incidents_learn(struct incidents *, const json_t *document);
/* Who is told of each document that is saved, whole; before anything is noted. */
void incidents_on_save(struct incidents *, void (*saved)(void *arg, const json_t *), void *arg);
bool incidents_has(struct incidents *, const char *id); /* did it come here, too? */

/* "open"; "resurfaced": open again after it was closed; "quiet": no copy for an hour; "closed":
 * none for a day. Sets "state" of a saved one, and takes away what only we need. */
void incident_restate(json_t *document, int64_t now);
bool incident_is_open(int64_t last, int64_t now);
size_t incidents_open(struct incidents *, int64_t now); /* how many are open */
uint64_t incidents_forgotten(struct incidents *);       /* how many had to go for lack of room */

/* Posts a save job for every incident that changed since the last call; desk thread, once a second.
 * The incidents must outlive the jobs: their done functions run in `home`. keeper NULL (replay):
 * nothing is saved, only what the store knows is taken in before it forgets; call as often as you
 * like, it does something every ten minutes. */
void incidents_save(struct incidents *, struct keeper *, struct mailbox *home, int64_t now);

#endif
