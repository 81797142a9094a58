/*
 * jsonl.c - JSON (RFC 8259) as far as a trace needs it. Every function moves `p` and never beyond
 * `end`; the first mistake sets `wrong` and nothing is read after it.
 *
 * The bytes of a message in "data": JSON has no bytes, so writers either decode the mail or write
 * each byte as the code point of the same number (latin-1). Where all code points are below U+0100
 * the latter is assumed when that gives UTF-8, or when the message does not say that it is UTF-8.
 * A lone surrogate U+DC80 to U+DCFF is the byte 80 to FF (Python's "surrogateescape").
 */
#include "jsonl.h"

#include <stdlib.h>

#include <openssl/evp.h>

#include "json.h"

enum { DEPTH_MAX = 32 };

struct in {
    const uint8_t *p, *end;
    struct arena *arena;
    const char *wrong;
};

static void fail(struct in *in, const char *why)
{
    if (!in->wrong)
        in->wrong = why;
    in->p = in->end;
}

static void skip_blanks(struct in *in)
{
    while (in->p < in->end && (*in->p == ' ' || *in->p == '\t' || *in->p == '\n' || *in->p == '\r'))
        in->p++;
}

/* The next byte that is no blank, 0 at the end. */
static uint8_t peek(struct in *in)
{
    skip_blanks(in);
    return in->p < in->end ? *in->p : 0;
}

static bool take(struct in *in, uint8_t c)
{
    if (peek(in) != c || in->p == in->end)
        return false;
    in->p++;
    return true;
}

/* ---- strings ---- */

/* Past the string that opens at p; its inside, escapes and all. */
static struct span raw_string(struct in *in, bool *escaped)
{
    *escaped = false;
    if (!take(in, '"')) {
        fail(in, "a string was expected");
        return span_of(NULL, 0);
    }
    const uint8_t *begin = in->p, *quote = begin - 1;
    for (;;) {
        if (quote < in->p) /* else it is still ahead: each byte is searched once */
            quote = in->p < in->end ? memchr(in->p, '"', (size_t)(in->end - in->p)) : NULL;
        if (!quote) {
            fail(in, "a string does not end on this line");
            return span_of(NULL, 0);
        }
        const uint8_t *slash = memchr(in->p, '\\', (size_t)(quote - in->p));
        if (!slash) {
            in->p = quote + 1;
            return span_of(begin, (size_t)(quote - begin));
        }
        *escaped = true;
        in->p = slash + 2;
    }
}

/* Four hexadecimal digits at p; -1: they are none. */
static int32_t hex4(const uint8_t *p, const uint8_t *end)
{
    int32_t v = 0;
    if (end - p < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        int d = byte_hex(p[i]);
        if (d < 0)
            return -1;
        v = v << 4 | d;
    }
    return v;
}

static uint8_t *put_point(uint8_t *out, uint32_t c)
{
    if (c < 0x80) {
        *out++ = (uint8_t)c;
    } else if (c < 0x800) {
        *out++ = (uint8_t)(0xc0 | c >> 6);
        *out++ = (uint8_t)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *out++ = (uint8_t)(0xe0 | c >> 12);
        *out++ = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        *out++ = (uint8_t)(0x80 | (c & 0x3f));
    } else {
        *out++ = (uint8_t)(0xf0 | c >> 18);
        *out++ = (uint8_t)(0x80 | (c >> 12 & 0x3f));
        *out++ = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        *out++ = (uint8_t)(0x80 | (c & 0x3f));
    }
    return out;
}

/* \uXXXX whose digits are at p, perhaps the first of a pair. Returns what follows. */
static const uint8_t *unicode(struct in *in, const uint8_t *p, const uint8_t *end, uint8_t **out)
{
    int32_t c = hex4(p, end);
    if (c < 0) {
        fail(in, "\\u without four hexadecimal digits");
        return end;
    }
    p += 4;
    bool pair = c >= 0xd800 && c < 0xdc00 && end - p >= 6 && p[0] == '\\' && p[1] == 'u';
    int32_t low = pair ? hex4(p + 2, end) : -1;
    if (low >= 0xdc00 && low < 0xe000) {
        *out =
            put_point(*out, 0x10000u + ((uint32_t)(c - 0xd800) << 10) + (uint32_t)(low - 0xdc00));
        return p + 6;
    }
    if (c >= 0xdc80 && c <= 0xdcff)
        *(*out)++ = (uint8_t)(c - 0xdc00);
    else
        *out = put_point(*out, c >= 0xd800 && c < 0xe000 ? 0xfffd : (uint32_t)c);
    return p;
}

/* One escape; p is behind the backslash. Never writes more bytes than it reads. */
static const uint8_t *escape(struct in *in, const uint8_t *p, const uint8_t *end, uint8_t **out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    uint8_t c = *p++;
    if (c == 'u')
        return unicode(in, p, end, out);
    const char *at = memchr(from, c, sizeof from - 1);
    if (!at) {
        fail(in, "a backslash with a letter that means nothing");
        return end;
    }
    *(*out)++ = (uint8_t)to[at - from];
    return p;
}

static struct span string(struct in *in)
{
    bool escaped;
    struct span raw = raw_string(in, &escaped);
    if (in->wrong)
        return raw;
    if (!escaped)
        return arena_span(in->arena, raw);
    uint8_t *begin = arena_alloc(in->arena, raw.n + 1), *out = begin;
    const uint8_t *p = raw.p, *end = raw.p + raw.n;
    while (p < end) {
        const uint8_t *slash = memchr(p, '\\', (size_t)(end - p));
        size_t plain = (size_t)((slash ? slash : end) - p);
        memcpy(out, p, plain);
        out += plain;
        p += plain;
        if (slash)
            p = escape(in, p + 1, end, &out);
    }
    return span_of(begin, (size_t)(out - begin));
}

/* ---- what is passed over ---- */

static void skip_word(struct in *in)
{
    const uint8_t *begin = in->p;
    while (in->p < in->end && (byte_letter(*in->p) || byte_digit(*in->p) || *in->p == '-' ||
                               *in->p == '+' || *in->p == '.'))
        in->p++;
    if (in->p == begin)
        fail(in, "a value was expected");
}

static void skip_value(struct in *in)
{
    uint8_t close[DEPTH_MAX];
    size_t depth = 0;
    bool escaped;
    do {
        uint8_t c = peek(in);
        if (depth && c == close[depth - 1]) {
            in->p++;
            depth--;
        } else if (depth && (c == ',' || c == ':')) {
            in->p++;
        } else if (c == '"') {
            raw_string(in, &escaped);
        } else if (c == '{' || c == '[') {
            if (depth == DEPTH_MAX) {
                fail(in, "values nested too deeply");
                return;
            }
            in->p++;
            close[depth++] = c == '{' ? '}' : ']';
        } else {
            skip_word(in);
        }
    } while (depth && !in->wrong);
}

/* ---- members ---- */

/* A string, or nothing for any other value. */
static struct span text(struct in *in)
{
    if (peek(in) == '"')
        return string(in);
    skip_value(in);
    return span_of(NULL, 0);
}

static void read_time(struct in *in, struct recording *r)
{
    char number[64];
    peek(in);
    const uint8_t *begin = in->p;
    skip_value(in);
    size_t n = (size_t)(in->p - begin);
    bool digit = n && (byte_digit(*begin) || *begin == '-');
    char *end = number;
    if (!in->wrong && digit && n < sizeof number) {
        memcpy(number, begin, n);
        number[n] = 0;
        r->t = strtod(number, &end);
        digit = end == number + n;
    }
    if (!in->wrong && (!digit || !(r->t >= 0 && r->t < 1e11)))
        fail(in, "\"t\" is no time in seconds since 1970");
    if (!in->wrong)
        r->time = (int64_t)(r->t * 1000);
}

static void read_recipients(struct in *in, struct recording *r)
{
    size_t cap = 0;
    r->nrcpts = 0;
    r->rcpts = NULL;
    if (!take(in, '[')) {
        fail(in, "\"rcpt\" is no list of addresses");
        return;
    }
    if (take(in, ']'))
        return;
    do {
        if (peek(in) != '"') {
            fail(in, "\"rcpt\" holds something that is no address");
            return;
        }
        struct span address = string(in);
        if (r->nrcpts == cap) {
            cap = cap ? 2 * cap : 8;
            r->rcpts = arena_grow(in->arena, r->rcpts, r->nrcpts * sizeof *r->rcpts,
                                  cap * sizeof *r->rcpts);
        }
        r->rcpts[r->nrcpts++] = address;
    } while (take(in, ','));
    if (!take(in, ']'))
        fail(in, "\"rcpt\" does not end");
}

/* ---- the message ---- */

static bool says_utf8(struct span s)
{
    for (const uint8_t *p = s.p, *end = s.p + s.n; p < end; p++) {
        p = memchr(p, '8', (size_t)(end - p));
        if (!p)
            return false;
        size_t before = (size_t)(p - s.p);
        if ((before >= 4 && span_case_eq(span_of(p - 4, 4), SPAN("utf-"))) ||
            (before >= 3 && span_case_eq(span_of(p - 3, 3), SPAN("utf"))))
            return true;
    }
    return false;
}

/* See the head of this file. */
static struct span bytes_of_text(struct arena *arena, struct span s)
{
    size_t i = 0, n = 0;
    while (i < s.n && s.p[i] < 0x80)
        i++;
    if (i == s.n)
        return s;
    uint8_t *out = arena_alloc(arena, s.n);
    for (i = 0; i < s.n; i++) {
        uint8_t c = s.p[i];
        if (c >= 0x80) {
            if ((c != 0xc2 && c != 0xc3) || i + 1 == s.n || (s.p[i + 1] & 0xc0) != 0x80)
                return s;
            c = (uint8_t)(c << 6 | (s.p[++i] & 0x3f));
        }
        out[n++] = c;
    }
    struct span bytes = span_of(out, n);
    return json_is_utf8(bytes) || !says_utf8(bytes) ? bytes : s;
}

static const char *base64(struct arena *arena, struct span in, struct span *out)
{
    uint8_t *p = arena_alloc(arena, in.n / 4 * 3 + 4);
    int n = in.n % 4 || in.n > INT32_MAX ? -1 : EVP_DecodeBlock(p, in.p, (int)in.n);
    if (in.n && n < 0)
        return "\"data_b64\" is not base64";
    for (size_t k = 1; k <= 2 && k <= in.n && in.p[in.n - k] == '='; k++)
        n--;
    *out = span_of(p, in.n ? (size_t)n : 0);
    return NULL;
}

static const char *file(struct recording *r, struct arena *arena, struct span name,
                        const char *trace)
{
    const char *slash = strrchr(trace, '/');
    bool whole = (name.n && name.p[0] == '/') || !slash;
    const char *path =
        whole ? arena_str(arena, name)
              : arena_printf(arena, "%.*s/%.*s", (int)(slash - trace), trace, SPAN_ARG(name));
    return recording_file(arena, path, &r->data, &r->cut) < 0
               ? "the file that \"eml\" names cannot be read"
               : NULL;
}

/* What stands in an object, as far as it matters. */
struct seen {
    bool t, rcpt, data, data_b64, eml;
    struct span text, base64, path;
};

static void read_member(struct in *in, struct recording *r, struct seen *seen)
{
    static const struct {
        struct span name;
        size_t offset;
    } texts[] = {
#define TEXT(member)                                                                               \
    {{(const uint8_t *)#member, sizeof #member - 1}, offsetof(struct recording, member)}
        TEXT(client), TEXT(helo), TEXT(name), TEXT(queue_id), TEXT(from), TEXT(label),
    };
    struct span name = string(in);
    if (!take(in, ':'))
        fail(in, "a colon was expected");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (span_eq(name, texts[i].name)) {
            struct span value = text(in);
            memcpy((char *)r + texts[i].offset, &value, sizeof value);
            return;
        }
    bool is_text = peek(in) == '"';
    if (span_eq(name, SPAN("t"))) {
        seen->t = true;
        read_time(in, r);
    } else if (span_eq(name, SPAN("rcpt"))) {
        seen->rcpt = true;
        read_recipients(in, r);
    } else if (is_text && span_eq(name, SPAN("data"))) {
        seen->data = true;
        seen->text = string(in);
    } else if (is_text && span_eq(name, SPAN("data_b64"))) {
        seen->data_b64 = true;
        seen->base64 = string(in);
    } else if (is_text && span_eq(name, SPAN("eml"))) {
        seen->eml = true;
        seen->path = string(in);
    } else {
        skip_value(in);
    }
}

static const char *read_message(struct recording *r, struct arena *arena, const struct seen *seen,
                                const char *trace)
{
    const char *wrong = NULL;
    if (seen->data)
        r->data = bytes_of_text(arena, seen->text);
    else if (seen->data_b64)
        wrong = base64(arena, seen->base64, &r->data);
    else if (seen->eml)
        wrong = file(r, arena, seen->path, trace);
    else
        wrong = "none of \"data\", \"data_b64\" and \"eml\" is there";
    if (r->data.n > RECORDING_BYTES) {
        r->data.n = RECORDING_BYTES;
        r->cut = true;
    }
    return wrong;
}

const char *jsonl_read(struct recording *r, struct arena *arena, struct span line,
                       const char *trace)
{
    struct in in = {.p = line.p, .end = line.p + line.n, .arena = arena};
    struct seen seen = {0};
    *r = (struct recording){0};
    if (!take(&in, '{'))
        return "not a JSON object";
    if (!take(&in, '}')) {
        do {
            read_member(&in, r, &seen);
        } while (!in.wrong && take(&in, ','));
        if (!in.wrong && !take(&in, '}'))
            fail(&in, "a comma or the end of the object was expected");
    }
    if (!in.wrong && (skip_blanks(&in), in.p < in.end))
        fail(&in, "something follows the object");
    if (in.wrong)
        return in.wrong;
    if (!seen.t)
        return "\"t\" (seconds since 1970) is missing";
    if (!seen.rcpt)
        return "\"rcpt\" (a list of addresses) is missing";
    return read_message(r, arena, &seen, trace);
}
