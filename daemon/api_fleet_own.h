/*
 * api_fleet_own.h - the inside of routes that are about all nodes: api_fleet.c asks and merges what
 * is read, api_fleet_change.c what is changed.
 *
 *   request --> every node it is about, we too --> merge --> one answer, with "node" and "silent"
 */
#ifndef API_FLEET_OWN_H
#define API_FLEET_OWN_H

#include "api.h"
#include "api_own.h"
#include "fellows.h"

/* What one node said. */
struct part {
    char node[FELLOW_NAME];
    bool self;
    bool away;  /* it was not there, and was not waited for */
    int status; /* as in fellows.h; of HTTP */
    json_t *json;
    json_t *query, *body; /* what it is asked, or is to do */
    size_t copies;        /* by id: so many it is asked about */
};

struct gather;
typedef void gather_fn(struct gather *);
struct gather {
    struct api *api;
    struct http_request *request;
    char path[128];
    bool command;
    struct part *parts;
    size_t n, cap, waiting;
    gather_fn *merge; /* must answer the request; the gather is freed after it */
    json_t *note;     /* the merge's own; NULL: none */
    size_t limit;     /* held: of the page */
};

struct gather *gather_new(struct api *, struct http_request *, const char *path, gather_fn *merge);
/* fellow NULL: ourselves. */
struct part *gather_add(struct gather *, const struct fellow *);
void gather_start(struct gather *, int64_t deadline_ms);

bool part_good(const struct part *);
/* {"silent":[..]} gets its members: who did not answer. */
void gather_silent(const struct gather *, json_t *reply);
/* Nobody had a good answer: what the first one said. */
void gather_problem(const struct gather *);

/* The other nodes, or the one that is named. false: the request has been answered. *self: we too
 * are asked. */
bool fleet_whom(struct api *, struct http_request *, const char *node,
                struct fellow list[FELLOWS_MAX], size_t *n, bool *self);

enum { FLEET_ASK_MS = 2000, FLEET_DO_MS = 5000 };

/* Which of the other nodes made this id. false: none that is known. */
bool fleet_maker(const struct fellow *list, size_t n, uint64_t id, struct fellow *out);
const char *api_node(const struct api *); /* our name */

/* api_fleet_change.c */
bool fleet_change(struct api *, struct http_request *, enum api_scope, const char *path);

#endif
