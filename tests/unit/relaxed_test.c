/* relaxed_test.c - the hash of a body beside that of its relaxed form made a byte at a time, for
 * bodies of every kind, in pieces of every size. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "relaxed.h"

enum { BODY = 400 };

static struct keys keys;

static int open_keys(void **state)
{
    (void)state;
    const uint8_t site[32] = {42};
    return keys_open(&keys, site);
}

static int close_keys(void **state)
{
    (void)state;
    keys_close(&keys);
    return 0;
}

/* One line, without its end, as RFC 6376 3.4.4 wants it. */
static size_t relax_line(struct span line, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < line.n; i++) {
        bool blank = line.p[i] == ' ' || line.p[i] == '\t';
        if (!blank || n == 0 || out[n - 1] != ' ')
            out[n++] = blank ? ' ' : (char)line.p[i];
    }
    return n && out[n - 1] == ' ' ? n - 1 : n;
}

static uint64_t expected(struct span body)
{
    static char out[2 * BODY + 2];
    size_t n = 0, whole = 0; /* up to the last line that is not empty */
    struct sip sip;
    while (body.n) {
        size_t end = span_find(body, '\n');
        struct span line = span_head(body, end);
        if (end < body.n && line.n && line.p[line.n - 1] == '\r')
            line.n--;
        size_t text = relax_line(line, out + n);
        n += text;
        out[n++] = '\r';
        out[n++] = '\n';
        whole = text ? n : whole;
        body = span_from(body, end + 1);
    }
    sip_begin(&sip, &keys, SIP_RAW);
    sip_add(&sip, out, whole);
    return sip_end(&sip);
}

static uint64_t hashed(struct span body, size_t step)
{
    struct relaxed r;
    relaxed_begin(&r, &keys);
    for (size_t at = 0; at < body.n; at += step)
        relaxed_add(&r, span_head(span_from(body, at), step));
    return relaxed_end(&r);
}

static uint64_t seed = 88172645463325252u;
static unsigned below(unsigned n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)(seed >> 33) % n;
}

/* Mostly plain lines; what is odd comes once in `odd` pieces. */
static struct span body_of(unsigned odd)
{
    static const char *const plain[] = {"a",    "word ",    "x y",
                                        "\r\n", "\xc3\xa4", "longer-than-eight"};
    static const char *const strange[] = {" ",     "  ",       "\t", "\r",  "\n",
                                          " \r\n", "\r\n\r\n", "\v", "\x7f"};
    static char body[BODY];
    size_t n = 0, most = below(BODY - 20);
    while (n < most) {
        const char *piece = below(odd) ? plain[below(6)] : strange[below(9)];
        memcpy(body + n, piece, strlen(piece));
        n += strlen(piece);
    }
    return span_of(body, n);
}

static void same_as_made_byte_by_byte(void **state)
{
    (void)state;
    static const unsigned odd[] = {1, 2, 5, 20, 200};
    static const size_t steps[] = {BODY, 1, 7, 63, 64, 65};
    for (size_t i = 0; i < 20000; i++) {
        struct span body = body_of(odd[i % 5]);
        uint64_t want = expected(body);
        for (size_t k = 0; k < sizeof steps / sizeof *steps; k++)
            if (hashed(body, steps[k]) != want)
                fail_msg("body %zu of %zu bytes in pieces of %zu", i, body.n, steps[k]);
    }
}

/* One odd place after a stretch of every length that is looked at at once. */
static void wherever_it_stands(void **state)
{
    (void)state;
    static const char *const odd[] = {"a  b\r\n", "a \r\n",   " a\r\n",  "a\tb\r\n", "a\rb\r\n",
                                      "a\nb\r\n", "a\r\r\n",  "\r\n",    "\r\n\r\n", " ",
                                      "\r",       "a\r\n\nb", "\r\n\t x"};
    char body[BODY];
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        for (int before = 1; before < 150; before++)
            for (int lines = 0; lines < 2; lines++) {
                int n =
                    snprintf(body, sizeof body, "%0*d%s%s", before, 0, lines ? "\r\n" : "", odd[i]);
                struct span s = span_of(body, (size_t)n);
                if (hashed(s, BODY) != expected(s))
                    fail_msg("case %zu after %d bytes", i, before);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_as_made_byte_by_byte),
        cmocka_unit_test(wherever_it_stands),
    };
    return cmocka_run_group_tests(tests, open_keys, close_keys);
}
