/* words_test.c - the fast way through ASCII and the slow one give the same words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "words.h"

static struct keys keys;

static int open_keys(void **state)
{
    (void)state;
    const uint8_t site[32] = {3};
    return keys_open(&keys, site);
}

static int close_keys(void **state)
{
    (void)state;
    keys_close(&keys);
    return 0;
}

static struct words read_words(struct arena *a, struct span text, size_t step)
{
    struct words w;
    struct charset_state st = {0};
    words_begin(&w, a, &keys);
    for (; text.n; text = span_from(text, step))
        words_text(&w, CHARSET_UTF8, &st, span_head(text, step), false);
    words_text(&w, CHARSET_UTF8, &st, SPAN(""), true);
    words_break(&w);
    return w;
}

/* Words of every length at every place of a block and across chunks, in pieces and in one. */
static void a_word_is_the_siphash_of_its_lower_case(void **state)
{
    (void)state;
    static const char letters[] = "aZ0bY9cX8dW7eV6fU5gT4hS3iR2jQ1kP";
    struct arena *a = arena_new();
    uint8_t *text = arena_alloc(a, 1 << 16);
    uint64_t want[2000];
    size_t n = 0, count = 0;
    for (size_t i = 0; i < 1500; i++) {
        size_t length = i == 700 ? 3000 : 1 + i * 7 % 31, begin = n;
        for (size_t j = 0; j < length; j++)
            text[n++] = (uint8_t)letters[(i + j) % 32];
        want[count++] = sip_lower(&keys, SIP_WORD, span_of(text + begin, length));
        for (size_t j = 0; j < 1 + i % 3; j++)
            text[n++] = (uint8_t) " \r\n.,_-@[`{/:"[(i + j) % 13];
    }
    static const size_t steps[] = {1, 2, 3, 7, 63, 64, 65, 1023, 1024, 1025, 1 << 16};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        struct words w = read_words(a, span_of(text, n), steps[i]);
        assert_int_equal(w.n, count);
        assert_memory_equal(w.hash, want, count * sizeof *want);
        assert_int_equal(w.bytes <= LIMIT_TEXT && !w.full, 1);
    }
    arena_free(&a);
}

static void every_ascii_byte_is_part_of_a_word_or_not(void **state)
{
    (void)state;
    struct arena *a = arena_new();
    for (unsigned c = 0; c < 128; c++) {
        uint8_t text[3] = {'a', (uint8_t)c, 'b'};
        bool part = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        assert_int_equal(read_words(a, span_of(text, 3), 3).n, part ? 1 : 2);
        struct words slow;
        words_begin(&slow, a, &keys);
        for (unsigned i = 0; i < 3; i++)
            words_point(&slow, text[i]);
        words_break(&slow);
        assert_int_equal(slow.n, part ? 1 : 2);
        assert_int_equal(slow.hash[0], read_words(a, span_of(text, 3), 3).hash[0]);
    }
    arena_free(&a);
}

static const struct {
    const char *name, *text, *same;
    size_t n;
} cases[] = {
    {"latin capitals", "\xc3\x80\xc3\x9e", "\xc3\xa0\xc3\xbe", 1},
    {"multiplication sign separates",
     "a\xc3\x97"
     "b",
     "a b", 2},
    {"latin extended", "\xc4\x80\xc5\xbd\xc5\xb8", "\xc4\x81\xc5\xbe\xc3\xbf", 1},
    {"dotted I", "\xc4\xb0", "i", 1},
    {"greek with accents", "\xce\x86\xce\x8f", "\xce\xac\xcf\x8e", 1},
    {"cyrillic", "\xd0\x81\xd0\xaf", "\xd1\x91\xd1\x8f", 1},
    {"vietnamese", "\xe1\xba\xa0", "\xe1\xba\xa1", 1},
    {"han is letters", "\xe6\xb1\x89\xe5\xad\x97", "\xe6\xb1\x89\xe5\xad\x97", 1},
    {"han full stop separates", "\xe6\xb1\x89\xe3\x80\x82\xe5\xad\x97", "\xe6\xb1\x89 \xe5\xad\x97",
     2},
    {"dashes and ellipsis separate",
     "a\xe2\x80\x94"
     "b\xe2\x80\xa6"
     "c",
     "a b c", 3},
    {"emoji separates",
     "a\xf0\x9f\x98\x80"
     "b",
     "a b", 2},
    {"zero width joins",
     "a\xe2\x80\x8d"
     "b\xef\xbb\xbf"
     "c",
     "abc", 1},
    {"superscripts", "m\xc2\xb2", "m2", 1},
    {"an unpaired byte is latin-1", "caf\xe9", "caf\xc3\xa9", 1},
};

static void letters_beyond_ascii(void **state)
{
    (void)state;
    struct arena *a = arena_new();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t step = 1; step < 8; step++) {
            struct words w = read_words(a, span_str(cases[i].text), step);
            struct words same = read_words(a, span_str(cases[i].same), 100);
            if (w.n != cases[i].n || same.n != w.n ||
                memcmp(w.hash, same.hash, w.n * sizeof *w.hash) != 0)
                fail_msg("%s: %zu words, not %zu", cases[i].name, w.n, cases[i].n);
        }
    arena_free(&a);
}

static void code_points_are_written_as_utf8(void **state)
{
    (void)state;
    static const uint32_t points[] = {0, 0x7f, 0x80, 0x7ff, 0x800, 0xffff, 0x10000, 0x10ffff};
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        struct charset_state st = {0};
        uint8_t utf8[4];
        uint32_t back;
        size_t used, n = utf8_write(utf8, points[i]);
        assert_int_equal(charset_decode(CHARSET_UTF8, &st, span_of(utf8, n), true, &back, 1, &used),
                         1);
        assert_true(back == points[i] && used == n);
    }
}

/* What is remembered of the letters before must not show. */
static void a_letter_is_hashed_alike_after_any_other(void **state)
{
    (void)state;
    struct arena *a = arena_new();
    struct words long_lived;
    words_begin(&long_lived, a, &keys);
    for (uint32_t i = 0; i < 0x20000; i++) {
        uint32_t c = i % 2 ? i / 2 : (i * UINT32_C(2654435761) >> 8) % 0x20000;
        struct arena *b = arena_new();
        struct words fresh;
        words_begin(&fresh, b, &keys);
        words_point(&fresh, 'x');
        words_point(&fresh, c);
        words_break(&fresh);
        size_t before = long_lived.n;
        words_point(&long_lived, 'x');
        words_point(&long_lived, c);
        words_break(&long_lived);
        if (long_lived.n - before != fresh.n || long_lived.hash[before] != fresh.hash[0])
            fail_msg("U+%04X", c);
        long_lived.n = long_lived.bytes = 0; /* its place is used again */
        arena_free(&b);
    }
    arena_free(&a);
}

static void nothing_is_taken_after_a_word_that_does_not_fit(void **state)
{
    (void)state;
    struct arena *a = arena_new();
    uint8_t *text = arena_alloc(a, 2 * LIMIT_TEXT);
    size_t n = 0, want = (LIMIT_TEXT - 5) / 3;
    for (size_t i = 0; i < want; i++, n += 3)
        memcpy(text + n, "ab ", 3);
    memcpy(text + n, "toolongtofit c d e", 18);
    for (size_t step = 1; step < 4000; step = step * 3 + 1) {
        struct words w = read_words(a, span_of(text, n + 18), step);
        assert_true(w.full);
        assert_int_equal(w.n, want);
    }
    arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_ascii_byte_is_part_of_a_word_or_not),
        cmocka_unit_test(a_word_is_the_siphash_of_its_lower_case),
        cmocka_unit_test(letters_beyond_ascii),
        cmocka_unit_test(a_letter_is_hashed_alike_after_any_other),
        cmocka_unit_test(nothing_is_taken_after_a_word_that_does_not_fit),
        cmocka_unit_test(code_points_are_written_as_utf8),
    };
    return cmocka_run_group_tests(tests, open_keys, close_keys);
}
