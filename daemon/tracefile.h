/*
 * tracefile.h - recorded mail to replay, out of many files at once, merged by time:
 *
 *   .jsonl traces  sorted by "t" and streamed; also "-", standard input, and pipes
 *   mbox           by an index of (time, file, place) made first
 *   .eml files     likewise; also of directories: *.eml below it, and what is in Maildirs
 *
 * What a file is its content says. One message is in memory at a time for each .jsonl file and one
 * for all others; the index takes 24 bytes a message and has at most TRACEFILE_INDEX of them.
 */
#ifndef TRACEFILE_H
#define TRACEFILE_H

#include "recording.h"

struct tracefile;

enum {
    TRACEFILE_INDEX = 10000000, /* messages of mbox and .eml files: 240 MB */
    TRACEFILE_FILES = 1000000,
};

struct tracefile_options {
    bool in_order; /* file after file instead of merged: needs no index */
    /* Told now and then while the index is made; may be NULL. Bytes. */
    void (*indexing)(void *arg, uint64_t done, uint64_t total);
    void *arg;
    const struct keys *keys;
};

/* NULL after a sentence in error: a file cannot be read, or is no recorded mail. */
struct tracefile *tracefile_open(char *const *path, size_t n, const struct tracefile_options *,
                                 char error[512]);
/* 1: one read, valid until the next call; 0: end; -1: a sentence "file:line: ..." in error about
 * something that is left out: go on. */
int tracefile_next(struct tracefile *, struct recording *, char error[512]);
/* How far, in bytes; total 0: unknown. */
void tracefile_progress(const struct tracefile *, uint64_t *done, uint64_t *total);
void tracefile_close(struct tracefile **);

#endif
