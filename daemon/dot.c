/*
 * dot.c - a machine of five states to read, of three to write.
 *
 *   LINE -.-> DOT -CR-> DOT_CR -LF-> done        LINE: right after a CRLF, or at the beginning
 *   LINE, DOT -other-> TEXT -CR-> CR -LF-> LINE  DOT drops its dot
 *
 * Invariant: what is given out holds CR only before LF and LF only after CR, and the data ends
 * nowhere but at CRLF "." CRLF.
 */
#include "dot.h"

enum { LINE, TEXT, CR, DOT, DOT_CR };

static void give(dot_fn *fn, void *arg, struct span s)
{
    if (s.n)
        fn(arg, s);
}

static void end_line(struct dot_reader *r, bool bare, dot_fn *fn, void *arg)
{
    give(fn, arg, SPAN("\r\n"));
    r->bare_lf += bare;
    r->longest = r->line > r->longest ? r->line : r->longest;
    r->line = 0;
    r->state = bare ? TEXT : LINE;
}

static void bare_cr(struct dot_reader *r, dot_fn *fn, void *arg)
{
    give(fn, arg, SPAN(" "));
    r->bare_cr++;
    r->line++;
}

/* Text up to the next CR or LF. */
static size_t read_run(struct dot_reader *r, struct span in, dot_fn *fn, void *arg)
{
    struct span run = span_head(in, span_find(in, '\n'));
    run = span_head(run, span_find(run, '\r'));
    give(fn, arg, run);
    r->line += run.n;
    r->state = TEXT;
    return run.n;
}

/* CR was read, maybe after the dot; returns whether c belongs to it. */
static bool after_cr(struct dot_reader *r, uint8_t c, dot_fn *fn, void *arg)
{
    if (c == '\n') {
        r->done = r->state == DOT_CR;
        if (!r->done)
            end_line(r, false, fn, arg);
        return true;
    }
    bare_cr(r, fn, arg);
    r->state = c == '\r' ? CR : TEXT;
    return c == '\r';
}

size_t dot_read(struct dot_reader *r, struct span in, dot_fn *fn, void *arg)
{
    size_t at = 0;
    while (at < in.n && !r->done) {
        uint8_t c = in.p[at];
        if (r->state == CR || r->state == DOT_CR)
            at += after_cr(r, c, fn, arg);
        else if (c == '\r') {
            r->state = r->state == DOT ? DOT_CR : CR;
            at++;
        } else if (c == '\n') {
            end_line(r, true, fn, arg);
            at++;
        } else if (c == '.' && r->state == LINE) {
            r->state = DOT;
            at++;
        } else {
            at += read_run(r, span_from(in, at), fn, arg);
        }
    }
    r->longest = r->line > r->longest ? r->line : r->longest;
    return at;
}

/* ---- writing ---- */

static void write_run(struct dot_writer *w, struct span run, dot_fn *fn, void *arg)
{
    if (w->state == LINE && run.p[0] == '.')
        fn(arg, SPAN("."));
    fn(arg, run);
    w->state = TEXT;
}

void dot_write(struct dot_writer *w, struct span s, dot_fn *fn, void *arg)
{
    while (s.n) {
        bool lf = s.p[0] == '\n';
        if (w->state == CR && !lf) {
            fn(arg, SPAN(" "));
            w->state = TEXT;
        } else if (lf || s.p[0] == '\r') {
            if (lf)
                fn(arg, SPAN("\r\n"));
            w->state = lf ? LINE : CR;
            s = span_from(s, 1);
        } else {
            struct span run = span_head(s, span_find(s, '\n'));
            run = span_head(run, span_find(run, '\r'));
            write_run(w, run, fn, arg);
            s = span_from(s, run.n);
        }
    }
}

void dot_end_line(struct dot_writer *w, dot_fn *fn, void *arg)
{
    if (w->state == CR)
        fn(arg, SPAN(" "));
    if (w->state != LINE)
        fn(arg, SPAN("\r\n"));
    w->state = LINE;
}

void dot_end(struct dot_writer *w, dot_fn *fn, void *arg)
{
    dot_end_line(w, fn, arg);
    fn(arg, SPAN(".\r\n"));
}
