/*
 * program.h - another program is run and what it says is read: without a shell, with a deadline.
 */
#ifndef PROGRAM_H
#define PROGRAM_H

#include "arena.h"

enum { PROGRAM_OUTPUT = 64 << 10 };

/*
 * Runs argv[0] (searched in PATH, /usr/sbin and /sbin), NULL-ended, for at most `ms`. What it wrote
 * to stdout (at most PROGRAM_OUTPUT bytes, NUL-terminated, line end at its end cut off) goes into
 * the arena, what it wrote to stderr likewise. Returns its exit status; -1 after a sentence in
 * *said when it could not be run, was killed, or did not end in time (then it is killed).
 */
int program_run(struct arena *, const char *const *argv, int64_t ms, char **out, char **said);

#endif
