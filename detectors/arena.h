/*
 * arena.h - the memory of one transaction: given out piece by piece, freed in one call.
 *
 * Nothing in an arena is ever freed or reset by itself, so nothing of one message can be left
 * over for the next. Allocation failure aborts the process (the MTA lets mail pass meanwhile).
 */
#ifndef ARENA_H
#define ARENA_H

#include "breakwater.h"

struct arena;

struct arena *arena_new(void);
/* The same for something that is mostly small, as a reply: it begins with a thousand bytes. */
struct arena *arena_little(void);
/* Frees everything and nulls the pointer. NULL inside is fine. */
void arena_free(struct arena **);
/* n bytes, 16-aligned, not zeroed; never NULL. */
void *arena_alloc(struct arena *, size_t n) __attribute__((returns_nonnull, malloc));
/* The same, zeroed. */
void *arena_zero(struct arena *, size_t n) __attribute__((returns_nonnull, malloc));
/* Grows p (may be NULL) from old to n bytes, in place if it was the last piece given out. */
void *arena_grow(struct arena *, void *p, size_t old, size_t n) __attribute__((returns_nonnull));
struct span arena_span(struct arena *, struct span);  /* a copy; NUL follows it, not counted */
struct span arena_lower(struct arena *, struct span); /* the same in ASCII lower case */
char *arena_str(struct arena *, struct span);         /* a NUL-terminated copy; inner NULs stay */
struct span arena_join(struct arena *, struct span, struct span,
                       struct span); /* a+b+c, NUL after */
/* Formatted, NUL-terminated text. */
char *arena_printf(struct arena *, const char *fmt, ...)
    __attribute__((format(printf, 2, 3), returns_nonnull));
size_t arena_used(const struct arena *); /* bytes held from malloc */

#endif
