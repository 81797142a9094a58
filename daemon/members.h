/*
 * members.h - the nodes that share one past, as the registry in Redis has them: one JSON document a
 * node, written by itself every two seconds.
 *
 *   {"boot":"16 hex","number":0..1023,"version":"..","mode":"..","key":"8 hex","parameters":"16
 * hex", "events":1,"started":time,"since":time,"seen":time,"left":false,"figures":{..}}
 *
 * What is read was written by others: bounded, and what is no such document is nobody. Times are
 * Redis' (fleetclock.h).
 */
#ifndef MEMBERS_H
#define MEMBERS_H

#include "json.h"

enum {
    MEMBERS_MAX = 64,
    MEMBER_NAME = 256,
    MEMBER_WORD = 32,
    MEMBER_DOCUMENT = 16 << 10,
    MEMBER_ALIVE = 10000,         /* ms without a sign of it, after which it is away */
    MEMBER_FORGOTTEN = 604800000, /* ... and forgotten */
    MEMBER_NUMBERS = 1024
};

struct member {
    char name[MEMBER_NAME];
    uint64_t boot;       /* random, of this life of it */
    uint16_t number;     /* in its ids */
    uint32_t key;        /* id of its site key */
    uint64_t parameters; /* site_parameters_hash() */
    uint32_t events;     /* EVENT_VERSION */
    char version[MEMBER_WORD], mode[MEMBER_WORD];
    int64_t started; /* ms */
    int64_t since;   /* ms: its parameters are in force */
    int64_t seen;    /* ms: last sign of it */
    bool left;       /* it was stopped */
    json_t *figures; /* an object; NULL: none */
};
struct members {
    struct member m[MEMBERS_MAX];
    size_t n;
};

char *member_print(const struct member *); /* its document, malloc'd */
/* false: not a document of a node; nothing is to be freed. */
bool member_read(struct member *, struct span name, struct span document);
void member_clear(struct member *); /* frees its figures */
void members_clear(struct members *);

bool member_alive(const struct member *, int64_t now);
/* What nodes must have in common to share, as one number. */
uint64_t member_likeness(const struct member *);
/* In what b differs from a, in words: "its site key is another one"; NULL: in nothing. */
const char *member_differs(const struct member *a, const struct member *b);
/* Whom the others must be like: of those alive (me included) the one whose parameters are in force
 * longest. Every node that reads the same registry finds the same. */
const struct member *members_model(const struct members *, const struct member *me, int64_t now);
/* One alive that was there before me and has my number; NULL: none. */
const struct member *members_namesake(const struct members *, const struct member *me, int64_t now);
/* A number nobody has who was seen in the last days, from mine on. */
uint16_t members_free_number(const struct members *, const struct member *me);
/* Was a there before b? */
bool member_elder(const struct member *a, const struct member *b);

#endif
