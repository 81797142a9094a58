/*
 * api.h - the routes of /api/v1: what a request means, and its answer in JSON. Reading goes through
 * the desk's read-only connection; every change is a keeper job (change.h), answered after its
 * commit. The web console of a later issue is a client of this.
 */
#ifndef API_H
#define API_H

#include "http.h"
#include "release.h"
#include "worker.h"

/* What the routes work with; all borrowed. */
struct api {
    struct config *config;
    struct pipeline *pipeline;
    struct workers *workers; /* NULL: none (tests) */
    struct hold *view;       /* read only */
    struct release *release;
    struct mailbox *home;
    int64_t started; /* ms */
};

/* An http_handler_fn; arg: struct api. */
void api_handle(void *arg, struct http_request *);

#endif
