/* ctl_print.c - see ctl_print.h. */
#include <time.h>

#include "ctl_print.h"
#include "log.h"

const char *print_count(struct arena *a, uint64_t n)
{
    char digits[24];
    int len = snprintf(digits, sizeof digits, "%llu", (unsigned long long)n);
    char *out = arena_alloc(a, (size_t)len + (size_t)len / 3 + 1), *p = out;
    for (int i = 0; i < len; i++) {
        if (i && (len - i) % 3 == 0)
            *p++ = ',';
        *p++ = digits[i];
    }
    *p = '\0';
    return out;
}

const char *print_some(struct arena *a, uint64_t n, const char *one, const char *many)
{
    return arena_printf(a, "%s %s", print_count(a, n), n == 1 ? one : many);
}

const char *print_size(struct arena *a, uint64_t bytes)
{
    static const char *const unit[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double n = (double)bytes;
    size_t u = 0;
    for (; n >= 1024 && u < 4; u++)
        n /= 1024;
    return u ? arena_printf(a, "%.1f %s", n, unit[u]) : print_some(a, bytes, "byte", "bytes");
}

const char *print_time(struct arena *a, int64_t ms)
{
    time_t t = (time_t)(ms / 1000);
    struct tm tm;
    char text[32];
    if (ms <= 0 || !localtime_r(&t, &tm) || !strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &tm))
        return "-";
    return arena_str(a, span_str(text));
}

const char *print_span_of_time(struct arena *a, int64_t ms)
{
    long long s = ms > 0 ? ms / 1000 : 0;
    if (s < 60)
        return arena_printf(a, "%lld s", s);
    if (s < 3600)
        return arena_printf(a, "%lld min", s / 60);
    if (s < 86400)
        return arena_printf(a, "%lld h %lld min", s / 3600, s / 60 % 60);
    return arena_printf(a, "%lld d %lld h", s / 86400, s / 3600 % 24);
}

/* On a terminal a quote is harmless, and a tab is a blank: people read these. A backslash stays
 * escaped, so that nothing looks like an escape that is none. Returns the new length. */
static size_t ease(char *text, size_t n)
{
    size_t to = 0;
    for (size_t i = 0; i < n; i++, to++) {
        bool quote = n - i >= 4 && memcmp(text + i, "\\x22", 4) == 0;
        bool tab = n - i >= 4 && memcmp(text + i, "\\x09", 4) == 0;
        text[to] = quote ? '"' : tab ? ' ' : text[i];
        i += quote || tab ? 3 : 0;
    }
    text[to] = '\0';
    return to;
}

const char *print_text(struct arena *a, const char *text, size_t max)
{
    struct span s = span_str(text);
    if (s.n == 0)
        return "-";
    size_t cap = 4 * s.n + 1;
    char *out = arena_alloc(a, cap);
    size_t n = ease(out, escape_text(out, cap, s));
    if (max > 3 && n > max)
        memcpy(out + max - 3, "...", 4);
    return out;
}

const char *print_paint(struct arena *a, bool colour, enum paint paint, const char *text)
{
    static const char *const code[] = {"", "1", "1;31", "32"};
    if (!colour || paint == PAINT_NONE)
        return text;
    return arena_printf(a, "\033[%sm%s\033[0m", code[paint], text);
}

/* ---- tables ---- */

void table_begin(struct table *t, struct arena *a, bool colour, const char *const *heads)
{
    *t = (struct table){.arena = a, .colour = colour};
    for (; heads[t->ncolumns] && t->ncolumns < COLUMNS_MAX; t->ncolumns++) {
        const char *head = heads[t->ncolumns];
        t->right[t->ncolumns] = *head == '>';
        t->head[t->ncolumns] = *head == '>' ? head + 1 : head;
    }
}

struct cell *table_row(struct table *t)
{
    size_t had = t->nrows * t->ncolumns * sizeof(struct cell);
    size_t more = t->ncolumns * sizeof(struct cell);
    t->cells = arena_grow(t->arena, t->cells, had, had + more);
    struct cell *row = t->cells + t->nrows++ * t->ncolumns;
    memset(row, 0, more);
    return row;
}

static const char *cell_text(const struct cell *c)
{
    return c->text ? c->text : "";
}

static void put_cell(const struct table *t, FILE *to, size_t column, const struct cell *c,
                     int width)
{
    const char *text = cell_text(c);
    int pad = width - (int)strlen(text);
    bool last = column + 1 == t->ncolumns;
    if (t->right[column])
        fprintf(to, "%*s", pad > 0 ? pad : 0, "");
    fputs(print_paint(t->arena, t->colour, c->paint, text), to);
    if (!last)
        fprintf(to, "%*s", (t->right[column] || pad < 0 ? 0 : pad) + 2, "");
}

void table_print(const struct table *t, FILE *to)
{
    size_t width[COLUMNS_MAX] = {0};
    for (size_t c = 0; c < t->ncolumns; c++) {
        width[c] = strlen(t->head[c]);
        for (size_t r = 0; r < t->nrows; r++) {
            size_t n = strlen(cell_text(&t->cells[r * t->ncolumns + c]));
            width[c] = n > width[c] ? n : width[c];
        }
    }
    for (size_t c = 0; c < t->ncolumns; c++)
        put_cell(t, to, c, &(struct cell){t->head[c], PAINT_BOLD}, (int)width[c]);
    putc('\n', to);
    for (size_t r = 0; r < t->nrows; r++) {
        for (size_t c = 0; c < t->ncolumns; c++)
            put_cell(t, to, c, &t->cells[r * t->ncolumns + c], (int)width[c]);
        putc('\n', to);
    }
}

void print_fact(FILE *to, const char *label, const char *value)
{
    fprintf(to, "%-14s %s\n", label, value);
}
