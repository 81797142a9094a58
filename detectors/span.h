/* span.h - stretches of bytes: compare, cut, search. ASCII only, no locale. All pure. */
#ifndef SPAN_H
#define SPAN_H

#include <stdlib.h>
#include <string.h>

#include "breakwater.h"

#define SPAN(literal) ((struct span){(const uint8_t *)(literal), sizeof(literal) - 1})
/* the same in a static table */
#define SPAN_INIT(literal)                                                                         \
    {                                                                                              \
        (const uint8_t *)(literal), sizeof(literal) - 1                                            \
    }
/* for printf("%.*s") */
#define SPAN_ARG(s) (int)(s).n, (const char *)((s).p ? (s).p : (const uint8_t *)"")

static inline struct span span_of(const void *p, size_t n)
{
    return (struct span){p, n};
}

static inline struct span span_str(const char *s)
{
    return (struct span){(const uint8_t *)s, s ? strlen(s) : 0};
}

/* A malloc'd copy, NULL of NULL. */
static inline char *str_copy(const char *s)
{
    char *copy = s ? strdup(s) : NULL;
    if (s && !copy)
        abort();
    return copy;
}

static inline uint8_t byte_lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c | 0x20) : c;
}

/* RFC 5322 WSP plus the line ends and other ASCII space. */
static inline bool byte_space(uint8_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static inline bool byte_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static inline bool byte_letter(uint8_t c)
{
    return byte_lower(c) >= 'a' && byte_lower(c) <= 'z';
}

/* The value of a hexadecimal digit in any case; -1: it is none. */
static inline int byte_hex(uint8_t c)
{
    if (byte_digit(c))
        return c - '0';
    c = byte_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static inline bool span_eq(struct span a, struct span b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline bool span_case_eq(struct span a, struct span b)
{
    if (a.n != b.n)
        return false;
    for (size_t i = 0; i < a.n; i++)
        if (byte_lower(a.p[i]) != byte_lower(b.p[i]))
            return false;
    return true;
}

static inline bool span_starts(struct span s, struct span prefix)
{
    return s.n >= prefix.n && span_eq(span_of(s.p, prefix.n), prefix);
}

static inline bool span_case_starts(struct span s, struct span prefix)
{
    return s.n >= prefix.n && span_case_eq(span_of(s.p, prefix.n), prefix);
}

static inline struct span span_from(struct span s, size_t at)
{
    if (s.n == 0)
        return s;
    if (at > s.n)
        at = s.n;
    return span_of(s.p + at, s.n - at);
}

static inline struct span span_head(struct span s, size_t n)
{
    return span_of(s.p, n < s.n ? n : s.n);
}

static inline struct span span_trim(struct span s)
{
    while (s.n && byte_space(s.p[0]))
        s.p++, s.n--;
    while (s.n && byte_space(s.p[s.n - 1]))
        s.n--;
    return s;
}

/* Without the open and close that s begins and ends with, if it does both. */
static inline struct span span_bare(struct span s, uint8_t open, uint8_t close)
{
    bool both = s.n >= 2 && s.p[0] == open && s.p[s.n - 1] == close;
    return both ? span_of(s.p + 1, s.n - 2) : s;
}

/* All of s as a decimal number of at most 19 digits; false: it is none, or more than most. */
static inline bool span_number(struct span s, uint64_t most, uint64_t *out)
{
    uint64_t v = 0;
    if (s.n == 0 || s.n > 19) /* 19 digits cannot overflow */
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (!byte_digit(s.p[i]))
            return false;
        v = v * 10 + (uint64_t)(s.p[i] - '0');
    }
    *out = v;
    return v <= most;
}

/* A stranger's word for people: as much as fits into out, NUL-terminated; '?' for what is not
 * visible ASCII. */
static inline void span_show(struct span s, char *out, size_t size)
{
    s = span_head(s, size - 1);
    for (size_t i = 0; i < s.n; i++)
        out[i] = s.p[i] > ' ' && s.p[i] < 0x7f ? (char)s.p[i] : '?';
    out[s.n] = 0;
}

/* Writes v as n bytes, the lowest first; returns what follows them. */
static inline uint8_t *bytes_put(uint8_t *p, uint64_t v, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        *p++ = (uint8_t)(v >> 8 * i);
    return p;
}

/* Reads n bytes, the lowest first. */
static inline uint64_t bytes_get(const uint8_t *p, unsigned n)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < n; i++)
        v |= (uint64_t)p[i] << 8 * i;
    return v;
}

/* Packed bytes that are read one after the other. What is not there reads as 0, and is bad. */
struct unpack {
    struct span rest;
    bool bad;
};

/* The next n bytes as a number, the lowest first. */
static inline uint64_t unpack_get(struct unpack *in, unsigned n)
{
    if (in->rest.n < n) {
        in->bad = true;
        return 0;
    }
    uint64_t v = bytes_get(in->rest.p, n);
    in->rest = span_from(in->rest, n);
    return v;
}

/* Position of byte c, or s.n. */
static inline size_t span_find(struct span s, uint8_t c)
{
    const uint8_t *q = s.n ? memchr(s.p, c, s.n) : NULL;
    return q ? (size_t)(q - s.p) : s.n;
}

/* Position of the last byte c, or s.n. */
static inline size_t span_rfind(struct span s, uint8_t c)
{
    for (size_t i = s.n; i > 0; i--)
        if (s.p[i - 1] == c)
            return i - 1;
    return s.n;
}

/* Does s contain needle, ASCII case-insensitively? O(s.n * needle.n); needle is ours and short. */
static inline bool span_case_has(struct span s, struct span needle)
{
    for (size_t i = 0; i + needle.n <= s.n; i++)
        if (span_case_eq(span_of(s.p + i, needle.n), needle))
            return true;
    return needle.n == 0;
}

#endif
