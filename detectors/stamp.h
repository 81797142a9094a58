/*
 * stamp.h - our own mark on mail that passed, so that it is known again whatever relays rewrite
 * (detection.md 2.5).
 *
 *   X-Breakwater-Trace: v=1; k=5fa10c22; n=mx1.a.example; t=108f3b2c8d0; m=24 hex digits; s=16
 *
 * k the id of the site key, n the node, t ms since 1970, m the K of its record, s a MAC under the
 * site key over all before "; s=". Whoever copies a stamp to other mail gains nothing: the content
 * must be the record's.
 */
#ifndef STAMP_H
#define STAMP_H

#include "keys.h"
#include "message.h"

#define STAMP_FIELD "X-Breakwater-Trace"
enum { STAMP_TEXT = 192, STAMPS_MAX = 8 };

/* The value of the field, on one line. A long node name is cut, bytes odd in it become '?'. */
void stamp_print(const struct keys *, struct span node, int64_t now, const struct key *,
                 char out[STAMP_TEXT]);
/* The K of a stamp of this site; folding and blanks around it do not matter. false: it is none, or
 * another site's, or changed. */
bool stamp_read(const struct keys *, struct span value, struct key *);
/* Those of the last STAMPS_MAX stamps of a message that are this site's, the newest (last) first;
 * returns how many. */
size_t stamps_read(const struct keys *, const struct message *, struct key out[STAMPS_MAX]);

#endif
