/* fleetclock_test.c - the offset to Redis' clock: measured, believed, approached. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "fleetclock.h"

/* Three answers that took no time; returns what the round said. */
static enum fleetclock_said hear(struct fleetclock *c, int64_t a, int64_t b, int64_t d)
{
    assert_int_equal(fleetclock_hear(c, 1000000, 0, 1000000 + a), FLEETCLOCK_MORE);
    assert_int_equal(fleetclock_hear(c, 1000000, 0, 1000000 + b), FLEETCLOCK_MORE);
    return fleetclock_hear(c, 1000000, 0, 1000000 + d);
}

static void the_median_of_three_counts(void **state)
{
    (void)state;
    static const struct {
        int64_t ask[3], offset;
    } t[] = {
        {{1, 2, 3}, 2},       {{3, 2, 1}, 2}, {{2, 3, 1}, 2},
        {{2, 1, 3}, 2},       {{1, 3, 2}, 2}, {{3, 1, 2}, 2},
        {{-9, -9, 5000}, -9}, {{7, 7, 7}, 7}, {{-300000, -300020, -299990}, -300000},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct fleetclock c = {0};
        assert_int_equal(hear(&c, t[i].ask[0], t[i].ask[1], t[i].ask[2]), FLEETCLOCK_FIRST);
        assert_int_equal(c.offset, t[i].offset);
        assert_int_equal(c.target, t[i].offset);
    }
}

static void half_of_the_way_there_is_taken_off(void **state)
{
    (void)state;
    struct fleetclock c = {0};
    fleetclock_hear(&c, 1000, 40, 1020);
    fleetclock_hear(&c, 2000, 10, 2005);
    assert_int_equal(fleetclock_hear(&c, 3000, 200, 3100), FLEETCLOCK_FIRST);
    assert_int_equal(c.offset, 0);
}

static void slow_and_wrong_answers_tell_nothing(void **state)
{
    (void)state;
    struct fleetclock c = {0};
    assert_int_equal(fleetclock_hear(&c, 1000, 1001, 9000), FLEETCLOCK_MORE);
    assert_int_equal(fleetclock_hear(&c, 1000, -1, 9000), FLEETCLOCK_MORE);
    assert_int_equal(fleetclock_hear(&c, 1000, 5, 0), FLEETCLOCK_MORE);
    assert_int_equal(c.nasks, 0);
    assert_int_equal(fleetclock_hear(&c, 1000, 1000, 9000), FLEETCLOCK_MORE);
    assert_int_equal(c.nasks, 1);
    fleetclock_again(&c);
    assert_int_equal(c.nasks, 0);
}

static void a_jump_is_believed_the_third_time(void **state)
{
    (void)state;
    const int64_t hour = 3600000;
    struct fleetclock c = {0};
    hear(&c, 10, 10, 10);
    assert_int_equal(hear(&c, 5010, 5010, 5010), FLEETCLOCK_GOOD); /* as far as is followed */
    assert_int_equal(c.target, 5010);
    assert_int_equal(hear(&c, hour, hour, hour), FLEETCLOCK_DOUBT);
    assert_int_equal(hear(&c, hour, hour, hour), FLEETCLOCK_DOUBT);
    assert_int_equal(hear(&c, 0, 0, 0), FLEETCLOCK_DOUBT); /* 5010 ms back */
    assert_int_equal(hear(&c, hour, hour, hour), FLEETCLOCK_DOUBT);
    assert_int_equal(hear(&c, hour, hour, hour), FLEETCLOCK_DOUBT);
    assert_int_equal(c.target, 5010);
    assert_int_equal(hear(&c, hour + 9, hour + 9, hour + 9), FLEETCLOCK_JUMPED);
    assert_int_equal(c.target, hour + 9);
    assert_int_equal(c.offset, 10); /* it is on its way */
}

static void the_offset_moves_slowly(void **state)
{
    (void)state;
    struct fleetclock c = {.known = true, .target = 2500};
    const int64_t ahead[] = {1000, 2000, 2500};
    for (size_t i = 0; i < 3; i++) {
        assert_true(fleetclock_step(&c));
        assert_int_equal(c.offset, ahead[i]);
    }
    assert_false(fleetclock_step(&c));
    c.target = 1400;
    const int64_t back[] = {2000, 1500, 1400};
    for (size_t i = 0; i < 3; i++) {
        assert_true(fleetclock_step(&c));
        assert_int_equal(c.offset, back[i]);
    }
    assert_false(fleetclock_step(&c));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_median_of_three_counts),
        cmocka_unit_test(half_of_the_way_there_is_taken_off),
        cmocka_unit_test(slow_and_wrong_answers_tell_nothing),
        cmocka_unit_test(a_jump_is_believed_the_third_time),
        cmocka_unit_test(the_offset_moves_slowly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
