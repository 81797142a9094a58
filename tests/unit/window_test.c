/* window_test.c - the sliding counter, one sequence a line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "window.h"

enum { LENGTH = 1000, T = 1000000 };

static void counts(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int64_t add[4]; /* one each at these ms after T, until < -900000 */
        int64_t read;
        double want;
    } cases[] = {
        {"nothing was added", {INT64_MIN}, 0, 0},
        {"now", {0, INT64_MIN}, 0, 1},
        {"at the end of its bucket", {0, INT64_MIN}, 999, 1},
        {"just over: all of it is still within the length", {0, INT64_MIN}, 1000, 1},
        {"half of the former bucket is over", {0, 0, INT64_MIN}, 1500, 1},
        {"nearly all of it", {0, INT64_MIN}, 1999, 0.001},
        {"over", {0, INT64_MIN}, 2000, 0},
        {"long over", {0, INT64_MIN}, 900000, 0},
        {"two buckets add up", {0, 1000, INT64_MIN}, 1250, 1.75},
        {"a pause of two lengths begins anew", {0, 2000, INT64_MIN}, 2999, 1},
        {"time that runs backwards is now", {500, 100, INT64_MIN}, 500, 2},
        {"reading the past is now", {500, INT64_MIN}, -1000, 1},
        {"a bucket begins where the one before ended", {0, 1900, INT64_MIN}, 2000, 1},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct window w = {0};
        for (size_t j = 0; j < 4 && cases[i].add[j] != INT64_MIN; j++)
            window_add(&w, T + cases[i].add[j], LENGTH, 1);
        const struct window before = w;
        double got = window_read(&w, T + cases[i].read, LENGTH);
        if (got < cases[i].want - 1e-9 || got > cases[i].want + 1e-9)
            fail_msg("%s: %f", cases[i].name, got);
        assert_memory_equal(&w, &before, sizeof(w));
    }
}

static void a_steady_rate_is_read_as_it_is(void **state)
{
    (void)state;
    struct window w = {0};
    for (int64_t t = 0; t < 20 * LENGTH; t += 10) {
        window_add(&w, T + t, LENGTH, 1);
        double got = window_read(&w, T + t, LENGTH);
        if (t >= LENGTH && (got < 99 || got > 102))
            fail_msg("%lld: %f", (long long)t, got);
    }
}

static void a_length_of_nothing_counts_nothing(void **state)
{
    (void)state;
    struct window w = {0};
    window_add(&w, T, 0, 1);
    assert_true(window_read(&w, T, 0) <= 0);
    window_add(&w, T, -5, 1);
    assert_true(window_read(&w, T, -5) <= 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts),
        cmocka_unit_test(a_steady_rate_is_read_as_it_is),
        cmocka_unit_test(a_length_of_nothing_counts_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
