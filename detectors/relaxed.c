/*
 * relaxed.c - most lines are in the relaxed form already: those are found a word at a time and
 * copied whole; the others go byte by byte.
 */
#include "relaxed.h"

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

/* No control byte and no two blanks in a row? */
static bool is_relaxed(struct span s)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), high = ones << 7;
    size_t at = 0;
    for (; at + 9 <= s.n; at += 8) {
        uint64_t w, next;
        memcpy(&w, s.p + at, 8);
        memcpy(&next, s.p + at + 1, 8);
        uint64_t x = (w ^ ones * ' ') | (next ^ ones * ' ');
        uint64_t control = (w - ones * ' ') & ~w & high;
        uint64_t blanks = (x - ones) & ~x & high;
        if (control | blanks)
            return false;
    }
    for (uint8_t before = 0; at < s.n; before = s.p[at++])
        if (s.p[at] < ' ' || (s.p[at] == ' ' && before == ' '))
            return false;
    return true;
}

/* A whole line without its end. */
static void line_add(struct relaxed *r, struct span s)
{
    while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
        s.n--;
    if (s.n) {
        settle(r);
        if (is_relaxed(s))
            out_add(r, s.p, s.n);
        else
            for (size_t i = 0; i < s.n;) {
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
