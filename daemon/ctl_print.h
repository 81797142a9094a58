/*
 * ctl_print.h - text for people: tables, numbers, times, hostile strings made harmless. What it
 * returns lies in the arena. Colour only ever doubles what a word says already.
 */
#ifndef CTL_PRINT_H
#define CTL_PRINT_H

#include <stdio.h>

#include "arena.h"
#include "json.h"

const char *print_count(struct arena *, uint64_t);          /* "1,204" */
const char *print_size(struct arena *, uint64_t bytes);     /* "17.3 MiB" */
const char *print_time(struct arena *, int64_t ms);         /* local; "-" for 0 */
const char *print_span_of_time(struct arena *, int64_t ms); /* "3 d 4 h", "12 min", "8 s" */
/* Hostile text with escapes, cut at `max` characters (0: uncut) with "..."; "-" if empty. */
const char *print_text(struct arena *, const char *, size_t max);
/* "1 copy", "1,204 copies" */
const char *print_some(struct arena *, uint64_t n, const char *one, const char *many);

enum paint {
    PAINT_NONE,
    PAINT_BOLD,
    PAINT_ALARM,
    PAINT_GOOD,
};
/* text between colour codes, if `colour`. */
const char *print_paint(struct arena *, bool colour, enum paint, const char *text);

enum { COLUMNS_MAX = 10 };
struct cell {
    const char *text;
    enum paint paint;
};
struct table {
    struct arena *arena;
    bool colour;
    size_t ncolumns;
    const char *head[COLUMNS_MAX];
    bool right[COLUMNS_MAX]; /* numbers */
    struct cell *cells;      /* row by row */
    size_t nrows;
};
/* heads: NULL-ended; one that begins with '>' is a column of numbers. */
void table_begin(struct table *, struct arena *, bool colour, const char *const *heads);
/* A row of ncolumns empty cells, to be filled in. */
struct cell *table_row(struct table *);
void table_print(const struct table *, FILE *);

/* "label   value" lines, aligned. */
void print_fact(FILE *, const char *label, const char *value);

#endif
