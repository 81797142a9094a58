/*
 * detector.h - the table of detectors. A detector is pure: count says what it would like to know of
 * the past, the store answers, judge reads the answers and writes signals, learn says what to
 * remember. What cannot be said in tallies is a state: about says which states a message touches
 * (a conversation, a pair of correspondents, a relay), step changes one, atomically. To add one: a
 * file, a line in the table in table.c, its signals in signals.h.
 *
 *   count -> tallies read -> replication observes -> about, step -> judge -> policy -> learn
 */
#ifndef DETECTOR_H
#define DETECTOR_H

#include "conversation.h"
#include "signals.h"
#include "trace.h"

/* Everything known of one message without looking at the past. Lives in the tx's arena. */
struct subject {
    struct arena *arena;
    const struct site *site;
    const struct keys *keys;
    const struct envelope *envelope;
    const struct message *message;
    struct trace trace;
    struct path path;
    struct visible visible;
    struct fingerprints fp;
    struct conversation talk;
    struct span client_host; /* client name if usable, else HELO */
    struct span client_org;
    struct span listener; /* its name; empty: none */
    int64_t now;          /* ms */
};

/* Parses trace, path, visible recipients and copies fp; sets hashes of the envelope's recipients.
 */
void subject_read(struct subject *, struct arena *, const struct site *, const struct keys *,
                  struct envelope *, const struct message *, const struct fingerprints *,
                  int64_t now);

/* A question to the past, its answer; or something to remember. */
enum tally_kind {
    TALLY_COUNT, /* add: += amount. answer: the total (aged: halved every 15 days) */
    TALLY_RATE,  /* add: += amount in a sliding window. answer: the window's count */
    TALLY_SET,   /* add: member. answer: how many distinct members, at most 8 kept */
    TALLY_MARK,  /* add: marks now. answer: ms of the last mark, 0: never */
};
struct tally {
    enum tally_kind kind;
    uint64_t key;    /* keyed hash, distinct per use */
    uint64_t member; /* TALLY_SET */
    double amount;   /* TALLY_COUNT, TALLY_RATE */
    int64_t length;  /* ms: window of TALLY_RATE; life of TALLY_SET and TALLY_MARK */
    bool shared;     /* a fact of the world: other nodes with the same past are told it */
    double answer;
};
enum { TALLIES_MAX = 256 };
struct tallies {
    struct tally *t; /* arena */
    size_t n, cap;
};
/* Appends (no-op beyond TALLIES_MAX) and returns its index. */
size_t tallies_add(struct tallies *, struct arena *, struct tally);

/* Whose a state is. */
enum about_shared {
    ABOUT_OWN,      /* this node's */
    ABOUT_LOOSELY,  /* of all nodes; a step may be lost when two are made at once */
    ABOUT_STRICTLY, /* of all nodes; no step is lost */
};
/* One state a message touches. */
struct about {
    uint64_t key; /* keyed hash of the conversation, pair, relay */
    enum about_shared shared;
    int64_t life;     /* ms it is kept untouched */
    size_t recipient; /* of the envelope, where it is about one; else 0 */
    unsigned use;     /* the detector's own */
};
enum { ABOUT_MAX = 4, STATE_BYTES_MAX = 2048 };

struct detector {
    const char *name;
    void (*count)(const struct subject *, struct tallies *asks);
    void (*judge)(const struct subject *, const struct tallies *answers, struct signals *);
    void (*learn)(const struct subject *, const struct signals *, struct tallies *adds);
    /* States: plain data without pointers, so that a store can keep, save and send it as bytes. */
    size_t state_bytes;     /* 0: none; else at most STATE_BYTES_MAX */
    unsigned state_version; /* of what the bytes mean: one more whenever that changes */
    /* Can a state that was read back be stepped: is every index in range? NULL: any can. */
    bool (*state_sound)(const void *state);
    /* Which it touches; returns how many. */
    size_t (*about)(const struct subject *, const struct signals *, struct about out[ABOUT_MAX]);
    /* Goes one step. A state nothing is known of is all zero. */
    void (*step)(void *state, const struct subject *, const struct about *, struct signals *);
};
/* NULL-ended, at most DETECTORS_MAX. Functions may be NULL. */
enum { DETECTORS_MAX = 8 };
extern const struct detector *const detectors[];

#endif
