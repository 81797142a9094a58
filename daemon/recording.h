/*
 * recording.h - one recorded message: what a door would have handed over, and when.
 */
#ifndef RECORDING_H
#define RECORDING_H

#include "arena.h"
#include "span.h"

/* Everything lies in an arena of whoever read it. */
struct recording {
    int64_t time; /* ms since 1970 */
    double t;     /* the same in seconds, as written */
    struct span client, helo, name, queue_id, from, label;
    struct span *rcpts;
    size_t nrcpts;
    struct span data; /* the message */
    bool cut;         /* it was larger than RECORDING_BYTES */
};

enum { RECORDING_BYTES = 64 << 20 }; /* of one message */

#endif
