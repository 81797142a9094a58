/*
 * linediff.c - see linediff.h. The longest common subsequence of what is left when the same lines
 * at both ends are set aside; a table of rows times columns, at most CELLS of it.
 */
#include <stdio.h>
#include <stdlib.h>

#include "linediff.h"

enum { CELLS = 4 << 20, CONTEXT = 3 };

struct lines {
    struct span *line; /* without its line end */
    size_t n;
    bool open; /* the last one has no line end */
};

static struct lines split(struct arena *arena, struct span text)
{
    size_t n = 0;
    for (size_t i = 0; i < text.n; i++)
        n += text.p[i] == '\n';
    struct lines l = {.line = arena_alloc(arena, (n + 1) * sizeof *l.line)};
    while (text.n) {
        size_t end = span_find(text, '\n');
        l.line[l.n++] = span_head(text, end);
        l.open = end == text.n;
        text = span_from(text, end == text.n ? end : end + 1);
    }
    return l;
}

/* The last line of one that has no end is another line than the same with one. */
static bool same(const struct lines *a, size_t i, const struct lines *b, size_t k)
{
    bool a_open = a->open && i + 1 == a->n, b_open = b->open && k + 1 == b->n;
    return a_open == b_open && span_eq(a->line[i], b->line[k]);
}

/* One step of the way from a to b: ' ' both, '-' only a, '+' only b. */
struct way {
    char *step;
    size_t n;
};

/* The middle: a[from, a_to) to b[from, b_to). */
static void middle(struct way *w, const struct lines *a, const struct lines *b, size_t from,
                   size_t a_to, size_t b_to)
{
    size_t rows = a_to - from, columns = b_to - from, i = 0, k = 0;
    uint16_t *common = NULL; /* [i][k]: of what follows i and k */
    if (rows && columns && rows <= CELLS / columns)
        common = calloc((rows + 1) * (columns + 1), sizeof *common);
#define COMMON(i, k) common[(i) * (columns + 1) + (k)]
    for (size_t r = rows; common && r-- > 0;)
        for (size_t c = columns; c-- > 0;)
            COMMON(r, c) = same(a, from + r, b, from + c) ? (uint16_t)(COMMON(r + 1, c + 1) + 1)
                           : COMMON(r + 1, c) >= COMMON(r, c + 1) ? COMMON(r + 1, c)
                                                                  : COMMON(r, c + 1);
    while (i < rows || k < columns) {
        bool both = common && i < rows && k < columns && same(a, from + i, b, from + k);
        bool away = i < rows && (!common || k == columns || COMMON(i + 1, k) >= COMMON(i, k + 1));
        w->step[w->n++] = both ? ' ' : away ? '-' : '+';
        i += both || away;
        k += both || !away;
    }
#undef COMMON
    free(common);
}

static struct way find_way(struct arena *arena, const struct lines *a, const struct lines *b)
{
    size_t head = 0, tail = 0, least = a->n < b->n ? a->n : b->n;
    struct way w = {.step = arena_alloc(arena, a->n + b->n + 1)};
    while (head < least && same(a, head, b, head))
        head++;
    while (tail < least - head && same(a, a->n - 1 - tail, b, b->n - 1 - tail))
        tail++;
    memset(w.step, ' ', head);
    w.n = head;
    middle(&w, a, b, head, a->n - tail, b->n - tail);
    memset(w.step + w.n, ' ', tail);
    w.n += tail;
    return w;
}

/* ---- writing ---- */

struct paper {
    struct arena *arena;
    char *text;
    size_t n, cap;
};

static void write_bytes(struct paper *p, const void *bytes, size_t n)
{
    if (p->n + n + 1 > p->cap) {
        size_t cap = (p->n + n + 1) * 2;
        p->text = arena_grow(p->arena, p->text, p->cap, cap);
        p->cap = cap;
    }
    if (n)
        memcpy(p->text + p->n, bytes, n);
    p->n += n;
    p->text[p->n] = '\0';
}

static void write_line(struct paper *p, char step, const struct lines *of, size_t i)
{
    static const char open[] = "\n\\ No newline at end of file";
    write_bytes(p, &step, 1);
    write_bytes(p, of->line[i].p, of->line[i].n);
    if (of->open && i + 1 == of->n)
        write_bytes(p, open, sizeof open - 1);
    write_bytes(p, "\n", 1);
}

/* Where a hunk that begins at a change ends: after CONTEXT lines without another one. */
static size_t hunk_end(const struct way *w, size_t at)
{
    size_t end = at;
    for (size_t quiet = 0; at < w->n && quiet <= (size_t)2 * CONTEXT; at++) {
        quiet = w->step[at] == ' ' ? quiet + 1 : 0;
        if (w->step[at] != ' ')
            end = at + 1;
    }
    return end;
}

/* "3,7"; a range of no lines is named by the line before it. */
static const char *range(struct arena *arena, size_t from, size_t n)
{
    return n == 1 ? arena_printf(arena, "%zu", from + 1)
                  : arena_printf(arena, "%zu,%zu", n ? from + 1 : from, n);
}

static void write_hunk(struct paper *p, const struct way *w, const struct lines *a,
                       const struct lines *b, size_t from, size_t to, size_t i, size_t k)
{
    size_t rows = 0, columns = 0;
    for (size_t at = from; at < to; at++) {
        rows += w->step[at] != '+';
        columns += w->step[at] != '-';
    }
    const char *head = arena_printf(p->arena, "@@ -%s +%s @@\n", range(p->arena, i, rows),
                                    range(p->arena, k, columns));
    write_bytes(p, head, strlen(head));
    for (size_t at = from; at < to; at++) {
        if (w->step[at] == '+')
            write_line(p, '+', b, k);
        else
            write_line(p, w->step[at], a, i);
        i += w->step[at] != '+';
        k += w->step[at] != '-';
    }
}

const char *linediff(struct arena *arena, struct span a_text, struct span b_text,
                     const char *a_name, const char *b_name)
{
    struct lines a = split(arena, a_text), b = split(arena, b_text);
    struct way w = find_way(arena, &a, &b);
    struct paper p = {.arena = arena, .text = arena_zero(arena, 256), .cap = 256};
    size_t i = 0, k = 0, at = 0;
    while (at < w.n) {
        if (w.step[at] == ' ') {
            i++, k++, at++;
            continue;
        }
        size_t before = at < CONTEXT ? at : CONTEXT, end = hunk_end(&w, at);
        size_t to = w.n - end < CONTEXT ? w.n : end + CONTEXT;
        if (p.n == 0) {
            const char *head = arena_printf(arena, "--- %s\n+++ %s\n", a_name, b_name);
            write_bytes(&p, head, strlen(head));
        }
        write_hunk(&p, &w, &a, &b, at - before, to, i - before, k - before);
        for (; at < to; at++) {
            i += w.step[at] != '+';
            k += w.step[at] != '-';
        }
    }
    return p.text;
}
