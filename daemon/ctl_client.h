/*
 * ctl_client.h - breakwaterctl's side of the control socket: one HTTP/1.0 request, one reply, both
 * bounded in size and time. No library: the peer is our own daemon, the grammar is small.
 */
#ifndef CTL_CLIENT_H
#define CTL_CLIENT_H

#include "arena.h"
#include "json.h"

/* What to ask for: a path and its query, encoded as it is put together. */
struct ctl_target {
    struct arena *arena;
    char *text;
    bool query; /* has one already */
};
/* path: our own text, or checked to be letters and digits. */
void ctl_target(struct ctl_target *, struct arena *, const char *path);
void ctl_query(struct ctl_target *, const char *name, const char *value); /* NULL value: nothing */

struct ctl_reply {
    int status; /* HTTP; 0: there was no (whole) reply, error says why */
    char error[512];
    json_t *json;     /* NULL if the body is none */
    struct span body; /* as it came */
    char *buffer;     /* private */
};
/* body NULL: GET; else POST. Waits at most 30 s. */
void ctl_call(const char *socket, const struct ctl_target *, const json_t *body,
              struct ctl_reply *);
void ctl_reply_free(struct ctl_reply *);

/* Reads a whole reply from `text`: status and body. false: it is none, or cut short. For ctl_call
 * and its tests. */
bool ctl_parse(struct span text, int *status, struct span *body);

#endif
