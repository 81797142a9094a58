/*
 * api_undo.h - the route that takes back what a wrong rule did.
 *
 *   POST undo-rule   {"rule","since","first","keep_learned","reason","dry_run"}
 *
 * What the rule held since then is released; what was learned since then - counters, baselines,
 * states, relays - is put back as it was before (recall.h), unless it is to be kept.
 */
#ifndef API_UNDO_H
#define API_UNDO_H

#include "http.h"
#include "release.h"
#include "tx.h"

/* The answer comes when the copies are on their way: {"changed","rule","since","in_force",
 * "learned": the time it is as of, or null, "learned_detail": why not, "dry_run"}. */
void api_undo_rule(struct pipeline *, struct release *, struct mailbox *home,
                   struct http_request *);

#endif
