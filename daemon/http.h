/*
 * http.h - the desk's HTTP server (evhttp) over the unix control socket, and the routes of /api/v1.
 * JSON in, JSON out; errors are application/problem+json. The REST API of a later issue is this
 * code.
 */
#ifndef HTTP_H
#define HTTP_H

#include "release.h"
#include "worker.h"

struct desk; /* the desk thread: HTTP, release engine, snapshots, expiry */

/* NULL after a sentence in error. workers may be NULL in tests. */
struct desk *desk_start(struct config *, struct pipeline *, struct workers *, char error[512]);
void desk_stop(struct desk **);

#endif
