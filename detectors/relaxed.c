/*
 * relaxed.c - most lines are in the relaxed form already: those are found a block at a time and
 * hashed as they lie there, many lines at once; the others go byte by byte.
 */
#include "relaxed.h"
#include "block.h"

void relaxed_begin(struct relaxed *r, const struct keys *k)
{
    sip_begin(&r->sip, k, SIP_RAW);
    r->ends = 0;
    r->blank = r->cr = r->middle = false;
    r->n = 0;
}

static void out_add(struct relaxed *r, const uint8_t *p, size_t n)
{
    if (n > sizeof r->out - r->n) {
        sip_add(&r->sip, r->out, r->n);
        r->n = 0;
    }
    if (n > sizeof r->out) {
        sip_add(&r->sip, p, n);
        return;
    }
    memcpy(r->out + r->n, p, n);
    r->n = (uint16_t)(r->n + n);
}

/* What came before a byte that counts. */
static void settle(struct relaxed *r)
{
    for (; r->ends; r->ends--)
        out_add(r, (const uint8_t *)"\r\n", 2);
    if (r->blank)
        out_add(r, (const uint8_t *)" ", 1);
    if (r->cr)
        out_add(r, (const uint8_t *)"\r", 1);
    r->blank = r->cr = false;
}

static void byte_add(struct relaxed *r, uint8_t c)
{
    bool blank = c == ' ' || c == '\t';
    r->middle = c != '\n';
    if (c == '\n') {
        r->ends++;
        r->blank = r->cr = false;
        return;
    }
    if (r->cr)
        settle(r);
    if (c == '\r') {
        r->cr = true;
    } else if (blank) {
        r->blank = true;
    } else {
        settle(r);
        out_add(r, &c, 1);
    }
}

/*
 * How many bytes at the beginning of s are in the relaxed form as they are: CR and LF only in line
 * ends, no other control byte, no blank before a blank or a line end. s begins with a line.
 */
static size_t relaxed_part(struct span s)
{
    struct block b[BLOCKS];
    uint64_t cr_before = 0, blank_before = 0; /* of the block before, its last byte */
    for (size_t at = 0, most = 1, k; at < s.n; most = most < BLOCKS ? 2 * most : BLOCKS) {
        k = block_look(b, span_from(s, at), most, ' ', '\t');
        for (size_t i = 0; i < k; i++, at += BLOCK) {
            uint64_t cr = b[i].cr, lf = b[i].lf, blank = b[i].other;
            uint64_t odd = (b[i].control & ~(cr | lf)) | (lf ^ (cr << 1 | cr_before)) |
                           ((blank | cr) & (blank << 1 | blank_before));
            if (odd)
                return at + (unsigned)__builtin_ctzll(odd);
            cr_before = cr >> (BLOCK - 1);
            blank_before = blank >> (BLOCK - 1);
        }
    }
    return s.n;
}

/* Lines in the relaxed form. Those at the end that are empty count when something follows. */
static void lines_add(struct relaxed *r, struct span s)
{
    uint64_t ends = 0;
    for (; s.n && s.p[s.n - 1] == '\n'; s.n -= 2)
        ends++;
    if (s.n) {
        settle(r);
        out_add(r, s.p, s.n);
    }
    r->ends += ends;
}

/* A whole line without its end. */
static void line_add(struct relaxed *r, struct span s)
{
    while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
        s.n--;
    if (s.n) {
        settle(r);
        size_t i = relaxed_part(s); /* all of it, when only the line end is another */
        out_add(r, s.p, i);
        while (i < s.n) {
            uint8_t piece[64];
            size_t n = 0;
            for (; n < sizeof piece && i < s.n; i++) {
                bool blank = s.p[i] == ' ' || s.p[i] == '\t';
                bool again = i > 0 && (s.p[i - 1] == ' ' || s.p[i - 1] == '\t');
                piece[n] = blank ? ' ' : s.p[i];
                n += !(blank && again);
            }
            out_add(r, piece, n);
        }
    }
    r->ends++;
}

void relaxed_add(struct relaxed *r, struct span s)
{
    while (s.n) {
        struct span lines = span_head(s, r->middle ? 0 : relaxed_part(s));
        while (lines.n && lines.p[lines.n - 1] != '\n')
            lines.n--;
        lines_add(r, lines);
        s = span_from(s, lines.n);
        if (s.n == 0)
            return;
        size_t end = span_find(s, '\n');
        struct span line = span_head(s, end);
        if (line.n && line.p[line.n - 1] == '\r')
            line.n--;
        if (!r->middle && end < s.n)
            line_add(r, line);
        else
            for (size_t i = 0; i <= end && i < s.n; i++)
                byte_add(r, s.p[i]);
        s = span_from(s, end + 1);
    }
}

uint64_t relaxed_end(struct relaxed *r)
{
    if (r->cr)
        settle(r);
    bool empty = r->sip.len == 0 && r->n == 0;
    if (!empty) /* a body that is not empty ends with a line end */
        out_add(r, (const uint8_t *)"\r\n", 2);
    sip_add(&r->sip, r->out, r->n);
    return sip_end(&r->sip);
}
