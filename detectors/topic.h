/*
 * topic.h - what a Subject line is about, without what replies, forwards and machines put before
 * it.
 */
#ifndef TOPIC_H
#define TOPIC_H

#include "arena.h"
#include "span.h"

enum { TOPIC_BYTES = 1024 }; /* of a Subject looked at */

struct topic {
    struct span base;  /* lower case (ASCII), blanks collapsed, encoded words decoded (RFC 2047), as
                          UTF-8; without "Re:", "AW[2]:", "Fwd:", "[tag]" ...; in the arena */
    unsigned prefixes; /* how many of them were taken off, tags aside */
    bool reply;        /* one of them marks an answer */
    bool automatic;    /* the outermost is one that machines write: "Out of office:" */
};

/* Of an unfolded Subject value. Never fails. */
void topic_read(struct topic *, struct arena *, struct span subject);

#endif
