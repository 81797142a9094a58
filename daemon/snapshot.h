/*
 * snapshot.h - the whole memory of a store in one file beside the hold database: written at a clean
 * stop and each hour, read at start. What a crash leaves is at most an hour old; what must not be
 * (storms, who had what) is on disk by other ways, see recall.h.
 */
#ifndef SNAPSHOT_H
#define SNAPSHOT_H

#include "store.h"

/* The file and the one before it. */
#define SNAPSHOT_NAME "memory.snapshot"
#define SNAPSHOT_BEFORE "memory.snapshot.before"

struct snapshot_figures {
    uint64_t records, tallies, states, texts;
    int64_t time; /* ms: when it was begun */
};
/* What others have learned: texts by name (relays' documents). each calls put for every one, under
 * no lock that mail waits for; begin, take ... end put them back. */
typedef int snapshot_put_fn(void *to, struct span name, struct span text); /* nonzero: stop */
struct snapshot_texts {
    void (*each)(void *arg, snapshot_put_fn *put, void *to);
    void (*begin)(void *arg);
    void (*take)(void *arg, struct span name, struct span text);
    void (*end)(void *arg);
    void *arg;
};

/*
 * Writes dir's snapshot: under another name, synced, then in its place; the former one stays as
 * SNAPSHOT_BEFORE. Mail goes on meanwhile. -1 after a sentence in error.
 */
int snapshot_write(const char *dir, uint32_t key_id, struct store *, const struct snapshot_texts *,
                   int64_t now, struct snapshot_figures *, char error[512]) MUSTCHECK;
/* The same, but to be kept beside it as dir/name. texts may be NULL. */
int snapshot_keep(const char *dir, const char *name, uint32_t key_id, struct store *,
                  const struct snapshot_texts *, int64_t now, struct snapshot_figures *,
                  char error[512]) MUSTCHECK;
/*
 * Puts back what dir/name holds. 0: there is none; 1: done; -1 after a sentence in error: it is
 * damaged, of another version or of another site key, and nothing of it was taken.
 */
int snapshot_read(const char *dir, const char *name, uint32_t key_id, struct store *, int64_t now,
                  struct snapshot_figures *, char error[512]) MUSTCHECK;
/* When dir/name was written (ms); 0: it is not there, or not one of ours. */
int64_t snapshot_time(const char *dir, const char *name, uint32_t key_id);
/*
 * What had been learned takes the place of what was learned since: tallies, states and texts; the
 * records of messages stay, who has what is no opinion. 1: done; -1 after a sentence in error:
 * nothing was changed.
 */
int snapshot_learned(const char *dir, const char *name, uint32_t key_id, struct store *,
                     const struct snapshot_texts *, int64_t now, struct snapshot_figures *,
                     char error[512]) MUSTCHECK;

#endif
