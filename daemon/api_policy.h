/*
 * api_policy.h - the routes about versions of the policy.
 *
 *   GET  policy                       what is in force, on trial, and what waits to be confirmed
 *   GET  policy/versions?limit,before the latest first, before that number
 *   GET  policy/versions/N            one with its text, its sets' files, and what it changed
 *   POST policy/apply     {"text","files":{path:text},"path","only":["listener=a",..],
 *                          "confirm_within":seconds,"force","reason","dry_run"}
 *   POST policy/confirm   {"version","reason","dry_run"}
 *   POST policy/rollback  {"version","reason","dry_run"}
 *
 * To apply what is in force already changes nothing and is no mistake, so asking again is safe.
 */
#ifndef API_POLICY_H
#define API_POLICY_H

#include "http.h"
#include "versions.h"

/* For status: {"version","trial","unconfirmed","seconds_left"}; null without versions. */
json_t *api_policy_brief(struct versions *);
/* Any of them; arg: N. versions NULL: there are none (tests). */
void api_policy(struct versions *, struct hold *view, struct mailbox *home, struct http_request *,
                const char *arg);

#endif
