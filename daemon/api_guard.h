/*
 * api_guard.h - the route about the guard: what it looks at, how near that is, what it did.
 *
 *   GET  guard    watch_document(), and "alarms":{..}
 */
#ifndef API_GUARD_H
#define API_GUARD_H

#include "alarm.h"
#include "http.h"
#include "watch.h"

/* watch NULL: 404. alarm may be NULL. */
void api_guard(struct watch *, struct alarm *, struct http_request *);
/* For status: {"state","trip","connections"}; watch NULL: null. */
json_t *api_guard_brief(struct watch *);

#endif
