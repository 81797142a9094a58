/* arena_test.c - pieces are aligned, apart, and grow in place when they can. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "arena.h"
#include "span.h"

static void pieces_are_aligned_and_do_not_overlap(void **state)
{
    (void)state;
    enum { N = 2000 };
    uint8_t *piece[N];
    for (int little = 0; little < 2; little++) {
        struct arena *a = little ? arena_little() : arena_new();
        assert_true(arena_used(a) <= (little ? 1000 : 32 << 10));
        for (size_t i = 0; i < N; i++) {
            piece[i] = arena_alloc(a, i % 300);
            assert_int_equal((uintptr_t)piece[i] % 16, 0);
            memset(piece[i], (int)(i & 0xff), i % 300);
        }
        for (size_t i = 0; i < N; i++)
            for (size_t j = 0; j < i % 300; j++)
                assert_int_equal(piece[i][j], i & 0xff);
        arena_free(&a);
        assert_null(a);
        arena_free(&a);
    }
}

static void the_last_piece_grows_in_place_others_move(void **state)
{
    (void)state;
    struct arena *a = arena_new();
    uint8_t *p = arena_alloc(a, 10);
    memcpy(p, "0123456789", 10);
    assert_ptr_equal(arena_grow(a, p, 10, 4000), p);
    uint8_t *q = arena_alloc(a, 1);
    *q = 'q';
    uint8_t *moved = arena_grow(a, p, 10, 5000);
    assert_ptr_not_equal(moved, p);
    assert_memory_equal(moved, "0123456789", 10);
    assert_int_equal(*q, 'q');
    uint8_t *large = arena_grow(a, moved, 5000, 3 << 20);
    assert_memory_equal(large, "0123456789", 10);
    large[(3 << 20) - 1] = 1;
    assert_ptr_equal(arena_grow(a, large, 3 << 20, 5), large);
    assert_non_null(arena_grow(a, NULL, 0, 5));
    arena_free(&a);
}

static void many_small_pieces_cost_little_more_than_their_bytes(void **state)
{
    (void)state;
    struct arena *a = arena_new();
    for (size_t i = 0; i < 10000; i++)
        assert_non_null(arena_zero(a, 1024));
    assert_true(arena_used(a) >= 10000 * 1024);
    assert_true(arena_used(a) <= 10000 * 1024 + (3 << 20));
    arena_free(&a);
}

static void texts_are_copied_joined_and_printed(void **state)
{
    (void)state;
    struct arena *a = arena_new();
    struct span s = arena_join(a, SPAN("one "), span_of(NULL, 0), SPAN("two\0three"));
    assert_int_equal(s.n, 13);
    assert_memory_equal(s.p, "one two\0three", 14);
    assert_int_equal(arena_span(a, span_of(NULL, 0)).n, 0);
    assert_string_equal(arena_str(a, SPAN("abc")), "abc");
    assert_string_equal(arena_str(a, span_of(NULL, 0)), "");
    assert_string_equal(arena_printf(a, "%d-%s", 5, "x"), "5-x");
    arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_are_aligned_and_do_not_overlap),
        cmocka_unit_test(the_last_piece_grows_in_place_others_move),
        cmocka_unit_test(many_small_pieces_cost_little_more_than_their_bytes),
        cmocka_unit_test(texts_are_copied_joined_and_printed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
