/*
 * recordlog.h - the log of one message as it lies in Redis: its events (event.h) in order, which
 * every node folds to the same record.
 *
 *   generation[8] then frames, each  length[4] event id[8]
 *
 * Numbers are little-endian. The generation is random and another one whenever the log is made or
 * compacted; with it and the id before an offset a node asks whether the log is the one it knows.
 * Every id is random too: an event that may have been put on the log is found by it.
 */
#ifndef RECORDLOG_H
#define RECORDLOG_H

#include "arena.h"
#include "span.h"

enum {
    RECORDLOG_HEAD = 8,
    RECORDLOG_FRAME = 4 + 8,         /* around an event */
    RECORDLOG_SMALL = 16384,         /* bytes up to which a log is not compacted */
    RECORDLOG_MAX = 16 * 1024 * 1024 /* bytes it may have: beyond, each node judges by itself */
};

/* How much of a log is in a record. All zero: nothing is known of one. */
struct recordlog {
    uint64_t generation; /* 0: the record is not what any log says */
    uint64_t last;       /* id before offset */
    uint32_t offset;
    uint32_t compact_at; /* bytes of the log at which compacting is considered next */
};

/* The event in its frame, in the arena. */
struct span recordlog_frame(struct arena *, struct span event, uint64_t id);
struct frame {
    struct span event;
    uint64_t id;
};
/* Cuts the next frame off; false: none is left, or what is left is no whole frame. */
bool recordlog_next(struct span *rest, struct frame *);

#endif
