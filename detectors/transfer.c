/*
 * transfer.c - base64 and quoted-printable (RFC 2045 6.7, 6.8).
 *
 * Invariant: what comes out depends on the bytes that went in, not on how they were cut.
 */
#include "transfer.h"

enum { OUT = 3072, BASE64_PAD = 0xfe, BASE64_NONE = 0xff };

static const uint8_t base64[256] = {
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3e, 0xff, 0xff, 0xff, 0x3f,
    0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0xff, 0xff, 0xff, 0xfe, 0xff, 0xff,
    0xff, 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e,
    0x0f, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28,
    0x29, 0x2a, 0x2b, 0x2c, 0x2d, 0x2e, 0x2f, 0x30, 0x31, 0x32, 0x33, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

enum transfer_encoding transfer_named(struct span name)
{
    name = span_trim(name);
    if (span_case_eq(name, SPAN("base64")))
        return TRANSFER_BASE64;
    return span_case_eq(name, SPAN("quoted-printable")) ? TRANSFER_QUOTED : TRANSFER_IDENTITY;
}

/* One character. Returns the bytes written, 0 or 1. After a pad a new quantum begins: concatenated
 * base64 is read on. */
static size_t base64_one(struct transfer *t, uint8_t c, uint8_t *out)
{
    uint8_t v = base64[c];
    if (v == BASE64_NONE)
        return 0;
    if (v == BASE64_PAD) {
        t->nbits = 0;
        return 0;
    }
    t->bits = t->bits << 6 | v;
    t->nbits = (uint8_t)(t->nbits + 6);
    if (t->nbits < 8)
        return 0;
    t->nbits = (uint8_t)(t->nbits - 8);
    *out = (uint8_t)(t->bits >> t->nbits);
    return 1;
}

static void base64_add(struct transfer *t, struct span s, transfer_fn *fn, void *arg)
{
    uint8_t out[OUT];
    size_t n = 0;
    while (s.n) {
        const uint8_t *p = s.p;
        if (t->nbits == 0 && s.n >= 4 &&
            (base64[p[0]] | base64[p[1]] | base64[p[2]] | base64[p[3]]) < 64) {
            uint32_t v = (uint32_t)base64[p[0]] << 18 | (uint32_t)base64[p[1]] << 12 |
                         (uint32_t)base64[p[2]] << 6 | base64[p[3]];
            out[n++] = (uint8_t)(v >> 16);
            out[n++] = (uint8_t)(v >> 8);
            out[n++] = (uint8_t)v;
            s = span_from(s, 4);
        } else {
            n += base64_one(t, *p, out + n);
            s = span_from(s, 1);
        }
        if (n > OUT - 3) {
            fn(arg, span_of(out, n));
            n = 0;
        }
    }
    if (n)
        fn(arg, span_of(out, n));
}

/* One byte after an =. Writes at most two bytes; false: c is to be read again as text. */
static bool quoted_one(struct transfer *t, uint8_t c, uint8_t *out, size_t *n)
{
    bool blank = c == ' ' || c == '\t';
    enum quoted_state was = t->quoted;
    t->quoted = QUOTED_TEXT;
    if (was == QUOTED_CR)
        return c == '\n';
    if (was == QUOTED_HEX) {
        unsigned high = (unsigned)byte_hex(t->hex);
        if (byte_hex(c) >= 0) {
            out[(*n)++] = (uint8_t)(high << 4 | (unsigned)byte_hex(c));
            return true;
        }
        out[(*n)++] = '=';
        out[(*n)++] = t->hex;
        return false;
    }
    if (c == '\n')
        return true;
    if (c == '\r' || blank) {
        t->quoted = blank ? QUOTED_BLANK : QUOTED_CR;
        return true;
    }
    if (was == QUOTED_EQUALS && byte_hex(c) >= 0) {
        t->quoted = QUOTED_HEX;
        t->hex = c;
        return true;
    }
    out[(*n)++] = '=';
    if (was == QUOTED_BLANK)
        out[(*n)++] = ' ';
    return false;
}

static void quoted_add(struct transfer *t, struct span s, transfer_fn *fn, void *arg)
{
    uint8_t out[OUT];
    size_t n = 0;
    while (s.n) {
        if (t->quoted == QUOTED_TEXT) {
            size_t text = span_find(span_head(s, OUT - 2 - n), '=');
            memcpy(out + n, s.p, text);
            n += text;
            s = span_from(s, text);
            if (s.n && *s.p == '=' && n < OUT - 2) {
                t->quoted = QUOTED_EQUALS;
                s = span_from(s, 1);
            }
        } else if (quoted_one(t, *s.p, out, &n)) {
            s = span_from(s, 1);
        }
        if (n >= OUT - 2) {
            fn(arg, span_of(out, n));
            n = 0;
        }
    }
    if (n)
        fn(arg, span_of(out, n));
}

void transfer_add(struct transfer *t, struct span s, transfer_fn *fn, void *arg)
{
    if (t->encoding == TRANSFER_BASE64)
        base64_add(t, s, fn, arg);
    else if (t->encoding == TRANSFER_QUOTED)
        quoted_add(t, s, fn, arg);
    else if (s.n)
        fn(arg, s);
}

void transfer_end(struct transfer *t, transfer_fn *fn, void *arg)
{
    if (t->quoted != QUOTED_HEX)
        return;
    const uint8_t out[2] = {'=', t->hex};
    fn(arg, span_of(out, 2));
}
