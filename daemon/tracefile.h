/*
 * tracefile.h - recorded mail to replay: .jsonl traces (DESIGN.md 9), one message a line, sorted by
 * time.
 *
 *   {"t": seconds, "client": "192.0.2.7", "helo": "..", "name": "..", "queue_id": "..",
 *    "from": "a@a.example", "rcpt": ["b@b.example"],
 *    "data": "..." | "data_b64": "..." | "eml": "path", "label": "..."}
 */
#ifndef TRACEFILE_H
#define TRACEFILE_H

#include "recording.h"

struct tracefile;

/* NULL after a sentence in error. */
struct tracefile *tracefile_open(const char *path, char error[512]);
/* 1: one read; 0: end; -1: a sentence "file:line: ..." in error. */
int tracefile_next(struct tracefile *, struct arena *, struct recording *, char error[512]);
/* How far, 0..1, for a progress line. */
double tracefile_progress(const struct tracefile *);
void tracefile_close(struct tracefile **);

#endif
