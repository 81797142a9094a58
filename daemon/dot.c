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
#include "block.h"

enum { LINE, TEXT, CR, DOT, DOT_CR };

/*
 * How much of `in` is the same read and written: up to a line that begins with a dot, or a CR or LF
 * that is bare or whose fellow is not here. fresh: at the beginning of a line, before and after.
 * Large pieces are what makes reading and writing cheap. What is looked at beyond the plain part is
 * no more than twice as much and a block, so that many bare CRs are no more work than as much text.
 */
static size_t plain(bool *fresh, struct span in)
{
    struct block b[BLOCKS];
    uint64_t cr_before = 0, lf_before = *fresh, odd = 0; /* of the block before, its last byte */
    size_t n = in.n;
    for (size_t at = 0, most = 1, k; at < in.n && !odd; most = most < BLOCKS ? 2 * most : BLOCKS) {
        k = block_look(b, span_from(in, at), most, '.', 'a');
        for (size_t i = 0; i < k && !odd; i++, at += BLOCK) {
            uint64_t due = b[i].cr << 1 | cr_before; /* where an LF has to be, and nowhere else */
            odd = (b[i].lf ^ due) | (b[i].other & (b[i].lf << 1 | lf_before));
            cr_before = b[i].cr >> (BLOCK - 1);
            lf_before = b[i].lf >> (BLOCK - 1);
            if (odd) {
                n = at + (unsigned)__builtin_ctzll(odd);
                cr_before = due >> (n - at) & 1;
            }
        }
    }
    n -= cr_before; /* it waits for its LF, or has none */
    if (n)
        *fresh = in.p[n - 1] == '\n';
    return n;
}

static void give(dot_fn *fn, void *arg, struct span s)
{
    if (s.n)
        fn(arg, s);
}

static void end_line(struct dot_reader *r, bool bare, dot_fn *fn, void *arg)
{
    give(fn, arg, SPAN("\r\n"));
    r->bare_lf += bare;
    r->state = bare ? TEXT : LINE;
}

static void bare_cr(struct dot_reader *r, dot_fn *fn, void *arg)
{
    give(fn, arg, SPAN(" "));
    r->bare_cr++;
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

static size_t read_plain(struct dot_reader *r, struct span in, dot_fn *fn, void *arg)
{
    bool fresh = r->state == LINE;
    size_t n = plain(&fresh, in);
    give(fn, arg, span_head(in, n));
    r->state = fresh ? LINE : TEXT;
    return n;
}

/* One byte that is not plain; returns whether it was used. */
static bool read_odd(struct dot_reader *r, uint8_t c, dot_fn *fn, void *arg)
{
    if (r->state == CR || r->state == DOT_CR)
        return after_cr(r, c, fn, arg);
    if (c == '\r')
        r->state = r->state == DOT ? DOT_CR : CR;
    else if (c == '\n')
        end_line(r, true, fn, arg);
    else
        r->state = r->state == LINE ? DOT : TEXT;
    return c == '\r' || c == '\n' || r->state == DOT;
}

size_t dot_read(struct dot_reader *r, struct span in, dot_fn *fn, void *arg)
{
    size_t at = 0;
    while (at < in.n && !r->done) {
        if (r->state == LINE || r->state == TEXT)
            at += read_plain(r, span_from(in, at), fn, arg);
        if (at < in.n)
            at += read_odd(r, in.p[at], fn, arg);
    }
    return at;
}

/* ---- writing ---- */

void dot_write(struct dot_writer *w, struct span s, dot_fn *fn, void *arg)
{
    while (s.n) {
        if (w->state != CR) {
            bool fresh = w->state == LINE;
            size_t n = plain(&fresh, s);
            give(fn, arg, span_head(s, n));
            w->state = fresh ? LINE : TEXT;
            s = span_from(s, n);
        }
        if (!s.n)
            return;
        if (s.p[0] == '\n' || s.p[0] == '\r') {
            if (s.p[0] == '\n')
                fn(arg, SPAN("\r\n"));
            else if (w->state == CR)
                fn(arg, SPAN(" "));
            w->state = s.p[0] == '\n' ? LINE : CR;
            s = span_from(s, 1);
        } else {
            fn(arg, w->state == CR ? SPAN(" ") : SPAN(".")); /* a bare CR; a dot to be doubled */
            w->state = TEXT;
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
