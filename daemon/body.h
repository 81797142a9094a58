/*
 * body.h - the bytes of a message that may be held: a chain of chunks in memory, beyond its share
 * in an unlinked file. Counted, because the keeper may still read it when the tx is gone.
 *
 * Sealed (body_seal) before it is shared; read-only afterwards.
 */
#ifndef BODY_H
#define BODY_H

#include "span.h"

struct body;

/* dir: where the unlinked file goes (NULL: memory only). per message and total limits in bytes. */
struct body *body_new(const char *dir, uint64_t memory, uint64_t total);
/* Appends. After the first failure (no room) the body is marked lost and keeps nothing. */
void body_add(struct body *, struct span);
bool body_lost(const struct body *); /* no room: the message cannot be held */
uint64_t body_size(const struct body *);
void body_seal(struct body *);
struct body *body_hold(struct body *);
void body_drop(struct body **);
/* Calls fn with every stretch in order; stops and returns -1 when fn does or a read fails. */
typedef int body_fn(void *arg, struct span);
int body_each(const struct body *, body_fn *, void *arg) MUSTCHECK;

/* The same at the reader's own pace. A zeroed reader is at the beginning. 1: *out is the next
 * stretch (good until the next call; what lies in the file is read into room); 0: the end; -1: a
 * read failed, or the body is lost. */
struct body_reader {
    const void *chunk; /* private */
    bool begun;
    uint64_t at;
};
enum { BODY_ROOM = 32 << 10 };
int body_next(const struct body *, struct body_reader *, uint8_t room[BODY_ROOM],
              struct span *out) MUSTCHECK;

#endif
