/*
 * alias.h - other names a message goes by when relays rewrite it (detection.md 2.3, 2.5, 2.6).
 *
 *   K      Message-ID, Date, From, Resent          its own name
 *   stamp  our own X-Breakwater-Trace              whatever was rewritten, if the content is the
 * same chain  O: oldest Received field, From, Resent  a new Message-ID at each pass, trace lines
 * kept text   C: F, From, base subject                all rewritten, trace lost: only with evidence
 *   theme  From, base subject                      the same with a changed text (a footer):
 * likewise
 *
 * An alias only points at a record; whether the message joins it is judged against the record, by
 * content and evidence. Content alone never identifies.
 */
#ifndef ALIAS_H
#define ALIAS_H

#include "conversation.h"
#include "record.h"

enum join {
    JOIN_OWN, /* by its own K, or it is new */
    JOIN_STAMP,
    JOIN_CHAIN,
    JOIN_TEXT, /* a re-issue */
    JOIN_THEME /* a re-issue, changed */
};

/* Is the message this record's, by that way? Pure; evidence in words for people when it is, else
 * NULL. */
const char *alias_joins(enum join, const struct record *, const struct subject *);
const char *join_name(enum join); /* "own", "stamp", "chain", "text", "theme" */

#endif
