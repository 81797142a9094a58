/*
 * jsonl.h - one line of a .jsonl trace (DESIGN.md 9):
 *
 *   {"t": seconds, "client": "192.0.2.7", "helo": "..", "name": "..", "queue_id": "..",
 *    "from": "a@a.example", "rcpt": ["b@b.example"],
 *    "data": "..." | "data_b64": "..." | "eml": "path", "label": "..."}
 *
 * A reader of its own, because most of a replay's time would go into a general one: strings are
 * copied once, what nobody asks for is passed over.
 */
#ifndef JSONL_H
#define JSONL_H

#include "recording.h"

/* Reads a line into r, in the arena; NULL, or what is wrong with it. "eml" is relative to the
 * directory of `trace`. Unknown members do not matter; of one that comes twice, the last counts. */
const char *jsonl_read(struct recording *r, struct arena *, struct span line, const char *trace);

#endif
