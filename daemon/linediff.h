/* linediff.h - how one text becomes another, line by line, as diff -u would say it. */
#ifndef LINEDIFF_H
#define LINEDIFF_H

#include "arena.h"
#include "span.h"

/*
 * The difference in the unified format, with 3 lines of context, in the arena; "" if there is none.
 * a_name and b_name go into the head. Texts that differ in very much are shown as all lines of one
 * taken away and all of the other added: the work is bounded.
 */
const char *linediff(struct arena *, struct span a, struct span b, const char *a_name,
                     const char *b_name);

#endif
