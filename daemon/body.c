/*
 * body.c - the bytes of a message that may be held.
 *
 *   head -> [4 KiB] -> [64 KiB] -> [64 KiB] -> then an unlinked file, once the message's or the
 *   process's share of memory is used up
 *
 * Invariant: a body holds all bytes it was given, in order, or it is lost and holds none. Once the
 * file is begun nothing more goes to memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "body.h"
#include "failpoint.h"

enum { CHUNK_FIRST = 4 << 10, CHUNK_NEXT = 64 << 10 };

struct chunk {
    struct chunk *next;
    size_t used, cap;
    uint8_t bytes[];
};
struct body {
    atomic_uint users;
    bool lost, sealed;
    char *dir;              /* NULL: memory only */
    uint64_t memory, total; /* limits: of this message, of all */
    uint64_t held;          /* bytes of chunks, as counted in memory_used */
    uint64_t size, filed;   /* bytes in all, bytes in the file */
    struct chunk *first, *last;
    int fd; /* -1: no file yet */
};

static _Atomic uint64_t memory_used; /* by the chunks of all bodies */

static void body_empty(struct body *b)
{
    for (struct chunk *c = b->first; c;) {
        struct chunk *next = c->next;
        free(c);
        c = next;
    }
    atomic_fetch_sub(&memory_used, b->held);
    if (b->fd >= 0)
        close(b->fd);
    b->first = b->last = NULL;
    b->held = b->size = b->filed = 0;
    b->fd = -1;
}

struct body *body_new(const char *dir, uint64_t memory, uint64_t total)
{
    struct body *b = calloc(1, sizeof *b);
    if (!b)
        abort();
    atomic_init(&b->users, 1);
    b->memory = memory;
    b->total = total;
    b->fd = -1;
    if (dir && !(b->dir = strdup(dir)))
        abort();
    return b;
}

/* A new chunk at the end, as large as the limits allow. false: memory has no more room for us. */
static bool chunk_add(struct body *b)
{
    uint64_t cap = b->first ? CHUNK_NEXT : CHUNK_FIRST;
    if (cap > b->memory - b->held)
        cap = b->memory - b->held;
    if (cap == 0)
        return false;
    if (atomic_fetch_add(&memory_used, cap) + cap > b->total) {
        atomic_fetch_sub(&memory_used, cap);
        return false;
    }
    struct chunk *c = malloc(sizeof *c + cap);
    if (!c)
        abort();
    *c = (struct chunk){.cap = cap};
    if (b->last)
        b->last->next = c;
    else
        b->first = c;
    b->last = c;
    b->held += cap;
    return true;
}

/* Puts into memory what fits; the rest comes back. */
static struct span body_remember(struct body *b, struct span s)
{
    while (s.n) {
        if ((!b->last || b->last->used == b->last->cap) && !chunk_add(b))
            break;
        struct chunk *c = b->last;
        size_t n = s.n < c->cap - c->used ? s.n : c->cap - c->used;
        memcpy(c->bytes + c->used, s.p, n);
        c->used += n;
        b->size += n;
        s = span_from(s, n);
    }
    return s;
}

static int file_open(const char *dir)
{
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT && errno != EINVAL))
        return fd;
    char path[4096]; /* a file system without O_TMPFILE */
    if (snprintf(path, sizeof path, "%s/.body-XXXXXX", dir) >= (int)sizeof path)
        return -1;
    fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0)
        unlink(path);
    return fd;
}

static int body_spill(struct body *b, struct span s)
{
    if (FAILPOINT("body.spill"))
        return -1;
    if (b->fd < 0 && (!b->dir || (b->fd = file_open(b->dir)) < 0))
        return -1;
    while (s.n) {
        ssize_t n = pwrite(b->fd, s.p, s.n, (off_t)b->filed);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        b->filed += (uint64_t)n;
        b->size += (uint64_t)n;
        s = span_from(s, (size_t)n);
    }
    return 0;
}

void body_add(struct body *b, struct span s)
{
    if (b->sealed)
        abort();
    if (b->lost)
        return;
    if (b->fd < 0)
        s = body_remember(b, s);
    if (s.n && body_spill(b, s)) {
        body_empty(b);
        b->lost = true;
    }
}

bool body_lost(const struct body *b)
{
    return b->lost;
}

uint64_t body_size(const struct body *b)
{
    return b->size;
}

void body_seal(struct body *b)
{
    b->sealed = true;
}

struct body *body_hold(struct body *b)
{
    atomic_fetch_add(&b->users, 1);
    return b;
}

void body_drop(struct body **bp)
{
    struct body *b = *bp;
    *bp = NULL;
    if (!b || atomic_fetch_sub(&b->users, 1) > 1)
        return;
    body_empty(b);
    free(b->dir);
    free(b);
}

int body_next(const struct body *b, struct body_reader *r, uint8_t room[BODY_ROOM],
              struct span *out)
{
    if (b->lost)
        return -1;
    const struct chunk *c = r->begun ? r->chunk : b->first;
    r->begun = true;
    if (c) {
        r->chunk = c->next;
        *out = span_of(c->bytes, c->used);
        return 1;
    }
    if (r->at == b->filed)
        return 0;
    ssize_t n;
    do
        n = pread(b->fd, room, BODY_ROOM, (off_t)r->at);
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        return -1;
    r->at += (uint64_t)n;
    *out = span_of(room, (size_t)n);
    return 1;
}

int body_each(const struct body *b, body_fn *fn, void *arg)
{
    struct body_reader r = {0};
    uint8_t room[BODY_ROOM];
    struct span s;
    int more;
    while ((more = body_next(b, &r, room, &s)) > 0)
        if (fn(arg, s))
            return -1;
    return more;
}
