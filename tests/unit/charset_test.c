/* charset_test.c - bytes to code points, whole and byte by byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "charset.h"

static const struct {
    const char *name;
    enum charset charset;
    struct span bytes;
    size_t n;
    uint32_t want[8];
} cases[] = {
#define BYTES(s)                                                                                   \
    {                                                                                              \
        (const uint8_t *)(s), sizeof(s) - 1                                                        \
    }
    {"ASCII", CHARSET_UTF8, BYTES("a\0b"), 3, {'a', 0, 'b'}},
    {"two, three and four bytes",
     CHARSET_UTF8,
     BYTES("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"),
     3,
     {0xe9, 0x20ac, 0x1f600}},
    {"the last of each length",
     CHARSET_UTF8,
     BYTES("\xdf\xbf\xef\xbf\xbf\xf4\x8f\xbf\xbf"),
     3,
     {0x7ff, 0xffff, 0x10ffff}},
    {"overlong", CHARSET_UTF8, BYTES("\xc0\xaf\xe0\x80"), 4, {0xc0, 0xaf, 0xe0, 0x80}},
    {"surrogate", CHARSET_UTF8, BYTES("\xed\xa0\x80"), 3, {0xed, 0xa0, 0x80}},
    {"beyond U+10FFFF", CHARSET_UTF8, BYTES("\xf4\x90\x80\x80"), 4, {0xf4, 0x90, 0x80, 0x80}},
    {"latin-1 in UTF-8", CHARSET_UTF8, BYTES("\xe9t\xe9"), 3, {0xe9, 't', 0xe9}},
    {"cut at the end", CHARSET_UTF8, BYTES("a\xe2\x82"), 3, {'a', 0xe2, 0x82}},
    {"broken off in the middle", CHARSET_UTF8, BYTES("\xe2\x82x"), 3, {0xe2, 0x82, 'x'}},
    {"a lead byte before a character",
     CHARSET_UTF8,
     BYTES("\xf0\x9f\xc3\xa9"),
     3,
     {0xf0, 0x9f, 0xe9}},
    {"latin-1", CHARSET_LATIN1, BYTES("\xc3\xa9\x80"), 3, {0xc3, 0xa9, 0x80}},
    {"windows-1252",
     CHARSET_CP1252,
     BYTES("\x80\x93\x9f\x81\xe9"),
     5,
     {0x20ac, 0x201c, 0x178, 0xfffd, 0xe9}},
    {"UTF-16 without a mark", CHARSET_UTF16, BYTES("\0a\x20\xac"), 2, {'a', 0x20ac}},
    {"UTF-16 with a big mark", CHARSET_UTF16, BYTES("\xfe\xff\0a"), 2, {0xfeff, 'a'}},
    {"UTF-16 with a little mark",
     CHARSET_UTF16,
     BYTES("\xff\xfe"
           "a\0"),
     2,
     {0xfeff, 'a'}},
    {"a pair", CHARSET_UTF16BE, BYTES("\xd8\x3d\xde\x00"), 1, {0x1f600}},
    {"a pair, little", CHARSET_UTF16LE, BYTES("\x3d\xd8\x00\xde"), 1, {0x1f600}},
    {"half a pair", CHARSET_UTF16BE, BYTES("\xd8\x3d\0a\xdc\0"), 3, {0xfffd, 'a', 0xfffd}},
    {"half a unit", CHARSET_UTF16BE, BYTES("\0a\0"), 2, {'a', 0xfffd}},
    {"half a pair at the end", CHARSET_UTF16BE, BYTES("\xd8\x3d"), 1, {0xfffd}},
    {"nothing", CHARSET_UTF8, BYTES(""), 0, {0}},
};

/* Decodes in pieces of `step` bytes into room for `cap` code points at a time. */
static size_t decode(size_t i, size_t step, size_t cap, uint32_t *out)
{
    struct charset_state st = {0};
    struct span rest = cases[i].bytes;
    size_t n = 0, used;
    while (rest.n) {
        struct span piece = span_head(rest, step);
        n += charset_decode(cases[i].charset, &st, piece, false, out + n, cap, &used);
        rest = span_from(rest, used);
    }
    for (size_t more = 1; more; n += more)
        more = charset_decode(cases[i].charset, &st, rest, true, out + n, cap, &used);
    return n;
}

static void bytes_become_code_points(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t step = 1; step <= cases[i].bytes.n + 1; step++)
            for (size_t cap = 1; cap <= 3; cap++) {
                uint32_t out[32];
                size_t n = decode(i, step, cap, out);
                if (n != cases[i].n || memcmp(out, cases[i].want, n * sizeof *out) != 0)
                    fail_msg("%s, in pieces of %zu, %zu at a time: %zu points, first %x",
                             cases[i].name, step, cap, n, out[0]);
            }
}

static void names_are_known(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum charset charset;
    } names[] = {
        {"UTF-8", CHARSET_UTF8},
        {" utf8 ", CHARSET_UTF8},
        {"", CHARSET_UTF8},
        {"US-ASCII", CHARSET_UTF8},
        {"Windows-1252", CHARSET_CP1252},
        {"iso-8859-1", CHARSET_LATIN1},
        {"koi8-r", CHARSET_LATIN1},
        {"UTF-16LE", CHARSET_UTF16LE},
        {"utf-16", CHARSET_UTF16},
        {"unknown-8bit", CHARSET_LATIN1},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_int_equal(charset_named(span_str(names[i].name)), names[i].charset);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_become_code_points),
        cmocka_unit_test(names_are_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
