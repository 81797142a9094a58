/*
 * incident_own.h - the inside of an incident, shared by incident.c (which message belongs where),
 * incident_document.c (what is told of it) and incident_saved.c (disk). Include it after
 * incident.h.
 */
#ifndef INCIDENT_OWN_H
#define INCIDENT_OWN_H

#include <pthread.h>

enum {
    MEMBERS = 64,  /* messages of one incident: the first, and the newest */
    SERVERS = 64,  /* convicted ones */
    ABOUTS = 8,    /* conversations, pairs, relays */
    SENTENCES = 8, /* of evidence */
    SENTENCES_OF_TURNS = SENTENCES - (INCIDENT_KINDS - INCIDENT_REPLYALL), /* of loops and joins */
    INCIDENT_FIELD = 256 /* bytes kept of one field of the mail */
};

/* One message of it. */
struct member {
    struct key k;
    uint64_t content, own, visible; /* keyed hashes; 0: none */
    int64_t first;                  /* ms */
    uint64_t noted; /* copies counted here: further ones, and new mail that was held */
    uint64_t extra; /* copies only the store counted: the first ones */
    uint32_t recipients, without; /* as the store last knew */
    char message_id[96];
    char why[sizeof((struct incident_news *)0)->joined]; /* it joined; "": it was the first */
};

/* One storm. */
struct incident {
    char id[INCIDENT_TEXT];
    enum incident_kind kind;
    int64_t first, last; /* ms */
    int64_t resurfaced;  /* ms: when it came back after it was closed; 0: it did not */
    int64_t slept;       /* ms, before that */
    int64_t history;     /* ms: culprits not seen since are kept though the store forgot them */
    uint64_t copies, passed, tagged, held, would_hold; /* noted, one per recipient */
    uint64_t deferred;                                 /* no part of copies: they come again */
    uint64_t gone;    /* copies only the store counted, of members that had to go */
    uint32_t visible; /* addresses in To and Cc, the largest seen */
    bool storm;
    bool named;    /* flood: its relay is */
    bool noted;    /* something was counted: else it is placed only, and not shown */
    bool dirty;    /* changed since it was last handed to the keeper */
    bool saving;   /* the keeper has it */
    unsigned news; /* events not told yet */
    char from[INCIDENT_FIELD], subject[INCIDENT_FIELD], message_id[INCIDENT_FIELD],
        relay[INCIDENT_FIELD];
    struct sentence {
        enum incident_kind of; /* detectors that count replace theirs, loops add */
        char text[INCIDENT_FIELD];
    } sentence[SENTENCES];
    size_t nsentences;
    struct member *member;
    size_t nmembers, capmembers;
    uint32_t server[SERVERS];
    size_t nservers;
    uint64_t about[ABOUTS];
    size_t nabouts;
    json_t *culprits; /* as last known; NULL: nobody named */
};

/* By what an incident is found. */
enum handle_of { BY_ID, BY_K, BY_ABOUT, BY_CONTENT, BY_SERVER, BY_VISIBLE, BY_MESSAGE_ID };
struct handle {
    struct handle *next;
    struct incident *incident;
    uint64_t value;
    enum handle_of of;
    uint32_t uses; /* members that share it */
};

struct incidents {
    struct store *store;
    const struct site *site;
    struct relays *relays;                            /* NULL: nobody is told */
    void (*saved)(void *arg, const json_t *document); /* NULL: likewise */
    void *saved_arg;
    size_t limit, n;
    uint64_t forgotten;
    int64_t looked; /* ms: when the store was asked without a keeper */
    pthread_mutex_t lock;
    struct incident **all; /* limit places */
    struct handle **bucket;
};

/* All with the lock held. */
struct incident *incident_find(struct incidents *, const char *id);
struct incident *incident_add(struct incidents *, const char *id); /* there is none of this id */
struct member *incident_member(struct incident *, const struct key *);
/* Copies m; of 64 the second oldest goes. */
void incident_join(struct incidents *, struct incident *, const struct member *m);
void incident_convict(struct incidents *, struct incident *, uint32_t server);
void incident_about(struct incidents *, struct incident *, uint64_t about);
/* One more sentence of evidence; NULL: none. */
void incident_say(struct incident *, enum incident_kind, const char *);

/* "28 days", "25 hours". */
void incident_slept(int64_t ms, char out[32]);
/* Cuts and NUL-terminates. */
void incident_keep(char *out, size_t size, struct span);

/* Snapshots, which share nothing with the table, of those that changed, which are marked as being
 * saved. malloc'd. The document ends the snapshot. whole: with what is needed to load it again. */
struct incident *incident_snapshots(struct incidents *, size_t *n);
json_t *incident_paper(struct incidents *, struct incident *snapshot, int64_t now, bool whole);
/* One more culprit among those of the same storm, told by another node of the same past: of one
 * server the larger count stands. Then best first, at most CULPRITS_MAX; takes the list. */
void incident_blame(json_t *list, json_t *culprit);
json_t *incident_blamed(json_t *list);
void incident_clear(struct incident *); /* frees what it owns, not itself */

#endif
