/*
 * arena.c - memory that dies in one call.
 *
 *   arena -> block (newest) -> block -> ... -> the block the arena itself lies in
 *            [header|piece|piece|.... free ....]
 *
 * Pieces come from the newest block; a piece too big for what is left there opens a new one, each
 * twice the one before up to 1 MiB, so that n bytes cost O(log n) calls of malloc.
 * Invariant: at <= size in the newest block; everything before `at` belongs to somebody.
 */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "arena.h"
#include "span.h"

enum { ALIGN = 16, FIRST_BLOCK = 32 << 10, LITTLE_BLOCK = 1000, LARGEST_BLOCK = 1 << 20 };

struct block {
    struct block *older;
    size_t size; /* of the whole block, this header included */
    size_t at;   /* first free byte, counted from the block's begin */
    void *pad;   /* keeps the header a multiple of ALIGN */
};
_Static_assert(sizeof(struct block) % ALIGN == 0, "pieces are aligned by offset");

struct arena {
    struct block *newest;
    uint8_t *last; /* the piece given out last: it can grow in place */
    size_t held;
    void *pad;
};
_Static_assert(sizeof(struct arena) % ALIGN == 0, "pieces are aligned by offset");

static size_t aligned(size_t n)
{
    if (n > SIZE_MAX / 4)
        abort();
    return (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
}

static struct block *block_new(struct block *older, size_t size)
{
    struct block *b = malloc(size);
    if (b == NULL)
        abort();
    b->older = older;
    b->size = size;
    b->at = sizeof *b;
    return b;
}

static struct arena *arena_of(size_t first)
{
    struct block *b = block_new(NULL, first);
    struct arena *a = (struct arena *)(void *)((uint8_t *)b + b->at);
    b->at += sizeof *a;
    a->newest = b;
    a->last = NULL;
    a->held = b->size;
    return a;
}

struct arena *arena_new(void)
{
    return arena_of(FIRST_BLOCK);
}

struct arena *arena_little(void)
{
    return arena_of(LITTLE_BLOCK);
}

void arena_free(struct arena **ap)
{
    struct arena *a = *ap;
    *ap = NULL;
    struct block *b = a ? a->newest : NULL; /* the last block freed holds *a itself */
    while (b) {
        struct block *older = b->older;
        free(b);
        b = older;
    }
}

/* A block with room for n (aligned) bytes more. */
static struct block *arena_extend(struct arena *a, size_t n)
{
    size_t size = a->newest->size * 2;
    if (size > LARGEST_BLOCK)
        size = LARGEST_BLOCK;
    if (size < n + sizeof(struct block))
        size = n + sizeof(struct block);
    a->newest = block_new(a->newest, size);
    a->held += size;
    return a->newest;
}

void *arena_alloc(struct arena *a, size_t n)
{
    size_t need = aligned(n ? n : 1);
    struct block *b = a->newest;
    if (b->size - b->at < need)
        b = arena_extend(a, need);
    a->last = (uint8_t *)b + b->at;
    b->at += need;
    return a->last;
}

void *arena_zero(struct arena *a, size_t n)
{
    return memset(arena_alloc(a, n), 0, n);
}

void *arena_grow(struct arena *a, void *p, size_t old, size_t n)
{
    if (p == NULL)
        return arena_alloc(a, n);
    if (n <= old)
        return p;
    struct block *b = a->newest;
    size_t need = aligned(n);
    if (p == a->last && need <= b->size - (size_t)(a->last - (uint8_t *)b)) {
        b->at = (size_t)(a->last - (uint8_t *)b) + need;
        return p;
    }
    void *moved = arena_alloc(a, n);
    if (old)
        memcpy(moved, p, old);
    return moved;
}

struct span arena_join(struct arena *a, struct span x, struct span y, struct span z)
{
    const struct span part[] = {x, y, z};
    uint8_t *p = arena_alloc(a, x.n + y.n + z.n + 1), *at = p;
    for (size_t i = 0; i < 3; i++) {
        if (part[i].n)
            memcpy(at, part[i].p, part[i].n);
        at += part[i].n;
    }
    *at = 0;
    return span_of(p, (size_t)(at - p));
}

struct span arena_span(struct arena *a, struct span s)
{
    return arena_join(a, s, SPAN(""), SPAN(""));
}

struct span arena_lower(struct arena *a, struct span s)
{
    uint8_t *p = arena_alloc(a, s.n + 1);
    for (size_t i = 0; i < s.n; i++)
        p[i] = byte_lower(s.p[i]);
    p[s.n] = 0;
    return span_of(p, s.n);
}

char *arena_str(struct arena *a, struct span s)
{
    return (char *)(uintptr_t)arena_span(a, s).p; /* our own copy */
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
    assert(fmt != NULL);
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *p = arena_alloc(a, n < 0 ? 1 : (size_t)n + 1);
    p[0] = 0;
    if (n >= 0)
        vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    return p;
}

size_t arena_used(const struct arena *a)
{
    return a->held;
}
