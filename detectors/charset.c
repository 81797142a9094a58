/*
 * charset.c - bytes to code points, without iconv (which loads modules from disk).
 *
 * Every decoder looks at up to four bytes and says how many make the next code point, or 0: more
 * bytes are needed. What stands at the end of a piece and may go on in the next waits in `pending`.
 * Invariant: the code points do not depend on where the pieces were cut.
 */
#include "charset.h"

#define NAME(text, charset)                                                                        \
    {                                                                                              \
        text, sizeof(text) - 1, charset                                                            \
    }
static const struct {
    const char *text; /* lower case */
    size_t n;
    enum charset charset;
} names[] = {
    NAME("utf-8", CHARSET_UTF8),          NAME("utf8", CHARSET_UTF8),
    NAME("us-ascii", CHARSET_UTF8),       NAME("ascii", CHARSET_UTF8),
    NAME("windows-1252", CHARSET_CP1252), NAME("cp1252", CHARSET_CP1252),
    NAME("cp-1252", CHARSET_CP1252),      NAME("x-cp1252", CHARSET_CP1252),
    NAME("utf-16", CHARSET_UTF16),        NAME("utf16", CHARSET_UTF16),
    NAME("utf-16le", CHARSET_UTF16LE),    NAME("utf-16be", CHARSET_UTF16BE),
    NAME("utf16le", CHARSET_UTF16LE),     NAME("utf16be", CHARSET_UTF16BE),
};

/* windows-1252 0x80 to 0x9f; 0xfffd where nothing is assigned. */
static const uint16_t cp1252[32] = {0x20ac, 0xfffd, 0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021,
                                    0x02c6, 0x2030, 0x0160, 0x2039, 0x0152, 0xfffd, 0x017d, 0xfffd,
                                    0xfffd, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014,
                                    0x02dc, 0x2122, 0x0161, 0x203a, 0x0153, 0xfffd, 0x017e, 0x0178};

enum charset charset_named(struct span name)
{
    name = span_trim(name);
    if (name.n == 0)
        return CHARSET_UTF8;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (span_case_eq(span_of(names[i].text, names[i].n), name))
            return names[i].charset;
    return CHARSET_LATIN1;
}

uint32_t charset_cp1252(uint8_t byte)
{
    return byte >= 0x80 && byte < 0xa0 ? cp1252[byte - 0x80] : byte;
}

/* RFC 3629; a byte that begins no valid sequence stands for itself in latin-1. */
static size_t utf8_next(const uint8_t *p, size_t n, uint32_t *out)
{
    static const struct {
        uint8_t low, high; /* of the second byte: no overlong form, no surrogate, <= U+10FFFF */
    } second[5] = {{0x80, 0xbf}, {0xa0, 0xbf}, {0x80, 0x9f}, {0x90, 0xbf}, {0x80, 0x8f}};
    uint8_t c = *p;
    *out = c;
    if (c < 0xc2 || c > 0xf4)
        return 1;
    size_t length = c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    size_t rule = c == 0xe0 ? 1 : c == 0xed ? 2 : c == 0xf0 ? 3 : c == 0xf4 ? 4 : 0;
    uint32_t v = c & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if (i == n)
            return 0;
        uint8_t low = i == 1 ? second[rule].low : 0x80, high = i == 1 ? second[rule].high : 0xbf;
        if (p[i] < low || p[i] > high)
            return 1;
        v = v << 6 | (p[i] & 0x3f);
    }
    *out = v;
    return length;
}

static size_t utf16_next(const uint8_t *p, size_t n, bool little, uint32_t *out)
{
    unsigned hi = little ? 1 : 0, lo = 1 - hi;
    *out = 0xfffd;
    if (n < 2)
        return 0;
    uint32_t unit = (uint32_t)p[hi] << 8 | p[lo];
    if (unit < 0xd800 || unit > 0xdfff) {
        *out = unit;
        return 2;
    }
    if (unit > 0xdbff)
        return 2;
    if (n < 4)
        return 0;
    uint32_t pair = (uint32_t)p[2 + hi] << 8 | p[2 + lo];
    if (pair < 0xdc00 || pair > 0xdfff)
        return 2;
    *out = 0x10000 + ((unit - 0xd800) << 10) + (pair - 0xdc00);
    return 4;
}

static size_t utf16_by_mark(struct charset_state *st, const uint8_t *p, size_t n, uint32_t *out)
{
    if (st->order == 0 && n >= 2)
        st->order = p[0] == 0xff && p[1] == 0xfe ? 2 : 1;
    return utf16_next(p, n, st->order == 2, out);
}

static size_t next(enum charset cs, struct charset_state *st, const uint8_t *p, size_t n,
                   uint32_t *out)
{
    switch (cs) {
    case CHARSET_UTF8:
        return utf8_next(p, n, out);
    case CHARSET_CP1252:
        *out = charset_cp1252(*p);
        return 1;
    case CHARSET_UTF16:
        return utf16_by_mark(st, p, n, out);
    case CHARSET_UTF16LE:
        return utf16_next(p, n, true, out);
    case CHARSET_UTF16BE:
        return utf16_next(p, n, false, out);
    case CHARSET_LATIN1:
    case CHARSET_COUNT:
        break;
    }
    *out = *p;
    return 1;
}

/* The last bytes, which no decoder wanted: latin-1 in UTF-8, one mark for half a unit. */
static size_t leftover(enum charset cs, const uint8_t *p, size_t n, uint32_t *out)
{
    *out = cs == CHARSET_UTF8 ? *p : 0xfffd;
    return cs == CHARSET_UTF8 || n < 2 ? 1 : 2;
}

size_t charset_decode(enum charset cs, struct charset_state *st, struct span in, bool final,
                      uint32_t *out, size_t cap, size_t *used)
{
    size_t at = 0, written = 0;
    while (written < cap) {
        uint8_t window[4];
        size_t had = st->npending, fresh = in.n - at < 4 - had ? in.n - at : 4 - had;
        const uint8_t *p = window;
        if (had + fresh == 0)
            break;
        if (had == 0) {
            p = in.p + at;
        } else {
            memcpy(window, st->pending, had);
            if (fresh)
                memcpy(window + had, in.p + at, fresh);
        }
        size_t length = next(cs, st, p, had + fresh, &out[written]);
        if (length == 0 && !final) {
            memmove(st->pending, p, had + fresh);
            st->npending = (uint8_t)(had + fresh);
            at += fresh;
            break;
        }
        if (length == 0)
            length = leftover(cs, p, had + fresh, &out[written]);
        written++;
        if (length >= had) {
            at += length - had;
            st->npending = 0;
        } else {
            memmove(st->pending, p + length, had - length);
            st->npending = (uint8_t)(had - length);
        }
    }
    *used = at;
    return written;
}
