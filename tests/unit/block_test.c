/* block_test.c - what every kind of processor sees in a block is what a byte at a time shows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "block.c" /* all kinds, not only this machine's */

typedef void look_fn(struct block *, const uint8_t *, size_t, uint8_t);

static uint64_t seed = 88172645463325252u;
static unsigned random_below(unsigned n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)(seed >> 33) % n;
}

static void check(look_fn *fn, const char *name)
{
    static const uint8_t edges[] = {0, '\t', '\n', '\r', 31, 32, 33, '.', 127, 128, 160, 255};
    uint8_t bytes[3 * BLOCK + 1];
    for (unsigned round = 0; round < 5000; round++) {
        const uint8_t *p = bytes + (round & 1); /* aligned or not */
        uint8_t other = round & 2 ? ' ' : '.';
        struct block b[3];
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] =
                random_below(2) ? edges[random_below(sizeof edges)] : (uint8_t)random_below(256);
        fn(b, p, 3, other);
        for (size_t i = 0; i < (size_t)3 * BLOCK; i++) {
            const struct block *at = &b[i / BLOCK];
            unsigned bit = i % BLOCK;
            if ((at->cr >> bit & 1) != (p[i] == '\r') || (at->lf >> bit & 1) != (p[i] == '\n') ||
                (at->control >> bit & 1) != (p[i] < ' ') ||
                (at->other >> bit & 1) != (p[i] == other))
                fail_msg("%s: byte %u", name, p[i]);
        }
    }
}

static void every_kind_sees_the_same(void **state)
{
    (void)state;
    check(look, "this one");
#if defined(__x86_64__) && !defined(BREAKWATER_PLAIN)
    check(look_sse2, "SSE2");
    if (__builtin_cpu_supports("avx2"))
        check(look_avx2, "AVX2");
    if (__builtin_cpu_supports("avx512bw"))
        check(look_avx512, "AVX-512");
#endif
}

static void the_last_is_filled_up(void **state)
{
    (void)state;
    struct block b[BLOCKS];
    uint8_t text[BLOCK * (BLOCKS + 1) + 3];
    memset(text, '.', sizeof text);
    struct span all = span_of(text, sizeof text);
    assert_int_equal(block_look(b, all, BLOCKS, '.', 'a'), BLOCKS);
    assert_int_equal(block_look(b, all, 3, '.', 'a'), 3);
    assert_int_equal(block_look(b, span_head(all, 2 * BLOCK + 1), BLOCKS, '.', 'a'), 2);
    assert_int_equal(block_look(b, span_head(all, 3), BLOCKS, '.', '\t'), 1);
    assert_int_equal(b[0].other, 7);
    assert_int_equal(b[0].control, ~UINT64_C(7));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_sees_the_same),
        cmocka_unit_test(the_last_is_filled_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
