/* bloomring_test.c - what the long memory remembers, forgets, and never holds too little of. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "bloomring.h"

static const int64_t DAY = 86400000, START = 1700000000000;

/* Digests are keyed hashes: numbers that look like chance (splitmix64). */
static uint64_t digest(uint64_t i)
{
    i += UINT64_C(0x9e3779b97f4a7c15);
    i = (i ^ i >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    i = (i ^ i >> 27) * UINT64_C(0x94d049bb133111eb);
    return i ^ i >> 31;
}

static struct bloomring *ring_new(uint64_t budget)
{
    struct bloomring_size size = {.keep = 40 * DAY, .error = 1e-3, .budget = budget};
    return bloomring_new(&size);
}

static void add_day(struct bloomring *r, int day, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        bloomring_add(r, digest((uint64_t)day * 1000000 + i), START + day * DAY + (int64_t)i);
}

static uint64_t missing(const struct bloomring *r, int day, uint64_t n)
{
    uint64_t m = 0;
    for (uint64_t i = 0; i < n; i++)
        m += !bloomring_has(r, digest((uint64_t)day * 1000000 + i));
    return m;
}

static double false_share(const struct bloomring *r)
{
    const uint64_t asked = 300000;
    uint64_t hits = 0;
    for (uint64_t i = 0; i < asked; i++)
        hits += bloomring_has(r, digest(UINT64_C(1) << 60 | i));
    return (double)hits / (double)asked;
}

static void an_empty_ring_knows_nothing_and_since_when_it_does(void **state)
{
    (void)state;
    struct bloomring *r = ring_new(1 << 20);
    unsigned early = 7;
    assert_false(bloomring_has(r, 1));
    assert_int_equal(bloomring_since(r, &early), 0);
    assert_int_equal(early, 0);
    bloomring_add(r, 1, START);
    assert_true(bloomring_has(r, 1));
    assert_false(bloomring_has(r, 2));
    assert_int_equal(bloomring_since(r, NULL), START);
    bloomring_free(&r);
    assert_null(r);
}

static void forty_days_at_a_steady_rate_keep_the_error_promised(void **state)
{
    (void)state;
    struct bloomring *r = ring_new(UINT64_C(64) << 20);
    for (int day = 0; day < 50; day++) {
        add_day(r, day, 4000);
        bloomring_tick(r, START + (day + 1) * DAY);
    }
    for (int day = 11; day < 50; day++)
        assert_int_equal(missing(r, day, 4000), 0);
    assert_true(false_share(r) < 1.2e-3);
    /* 44 days, a quarter more than is used, 21 bits each */
    assert_true(bloomring_bytes(r) < 44 * 5 * 4000 / 4 * 3 * 5 / 4);
    bloomring_free(&r);
}

static void splits_when_more_comes_than_ever_and_keeps_the_error(void **state)
{
    (void)state;
    struct bloomring *r = ring_new(UINT64_C(64) << 20);
    for (int day = 0; day < 8; day++)
        add_day(r, day, 500);
    add_day(r, 8, 200000);
    add_day(r, 9, 200000);
    assert_int_equal(missing(r, 3, 500), 0);
    assert_int_equal(missing(r, 8, 200000), 0);
    assert_int_equal(missing(r, 9, 200000), 0);
    assert_true(false_share(r) < 1.2e-3);
    bloomring_free(&r);
}

static void forgets_after_forty_days_and_not_before(void **state)
{
    (void)state;
    struct bloomring *r = ring_new(1 << 20);
    add_day(r, 0, 500);
    bloomring_tick(r, START + 40 * DAY);
    assert_int_equal(missing(r, 0, 500), 0);
    bloomring_tick(r, START + 44 * DAY + 500); /* a period is forgotten whole */
    assert_int_equal(missing(r, 0, 500), 500);
    assert_int_equal(bloomring_since(r, NULL), 0);
    bloomring_free(&r);
}

static void a_full_budget_frees_the_oldest_and_says_since_when(void **state)
{
    (void)state;
    const uint64_t budget = 200 << 10;
    struct bloomring *r = ring_new(budget);
    unsigned early = 0;
    for (int day = 0; day < 40; day++) {
        add_day(r, day, 4000);
        assert_true(bloomring_bytes(r) <= budget);
    }
    int64_t since = bloomring_since(r, &early);
    assert_true(early > 0);
    assert_true(since > START && since < START + 39 * DAY);
    for (int day = 0; day < 40; day++)
        if (START + day * DAY >= since)
            assert_int_equal(missing(r, day, 4000), 0);
    bloomring_free(&r);
}

static void a_budget_below_everything_still_bounds_it(void **state)
{
    (void)state;
    struct bloomring *r = ring_new(1000);
    for (int day = 0; day < 5; day++) {
        add_day(r, day, 20000);
        assert_true(bloomring_bytes(r) < 4000); /* one filter of the least size */
    }
    bloomring_free(&r);
}

static void old_days_are_put_back_newest_first_while_new_ones_arrive(void **state)
{
    (void)state;
    struct bloomring *r = ring_new(UINT64_C(64) << 20);
    for (int day = 39; day >= 0; day--) {
        add_day(r, day, 2000);
        bloomring_add(r, digest(UINT64_C(1) << 50 | (uint64_t)day), START + 40 * DAY);
        assert_int_equal(bloomring_since(r, NULL), START + day * DAY);
        bloomring_tick(r, START + 40 * DAY);
    }
    for (int day = 0; day < 40; day++) {
        assert_int_equal(missing(r, day, 2000), 0);
        assert_true(bloomring_has(r, digest(UINT64_C(1) << 50 | (uint64_t)day)));
    }
    assert_true(false_share(r) < 1.2e-3);
    bloomring_free(&r);
}

static void old_days_that_do_not_fit_do_not_push_out_newer_ones(void **state)
{
    (void)state;
    const uint64_t budget = 100 << 10;
    struct bloomring *r = ring_new(budget);
    for (int day = 39; day >= 0; day--)
        add_day(r, day, 2000);
    assert_true(bloomring_bytes(r) <= budget);
    assert_int_equal(missing(r, 39, 2000), 0);
    int64_t since = bloomring_since(r, NULL);
    assert_true(since > START + 8 * DAY);
    for (int day = 0; day < 40; day++)
        if (START + day * DAY >= since)
            assert_int_equal(missing(r, day, 2000), 0);
    bloomring_free(&r);
}

static void a_digest_added_again_and_again_takes_no_room(void **state)
{
    (void)state;
    struct bloomring *r = ring_new(1 << 20);
    for (int i = 0; i < 100000; i++)
        bloomring_add(r, 42, START);
    assert_true(bloomring_bytes(r) < 5000);
    bloomring_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_ring_knows_nothing_and_since_when_it_does),
        cmocka_unit_test(a_digest_added_again_and_again_takes_no_room),
        cmocka_unit_test(forty_days_at_a_steady_rate_keep_the_error_promised),
        cmocka_unit_test(splits_when_more_comes_than_ever_and_keeps_the_error),
        cmocka_unit_test(forgets_after_forty_days_and_not_before),
        cmocka_unit_test(a_full_budget_frees_the_oldest_and_says_since_when),
        cmocka_unit_test(a_budget_below_everything_still_bounds_it),
        cmocka_unit_test(old_days_are_put_back_newest_first_while_new_ones_arrive),
        cmocka_unit_test(old_days_that_do_not_fit_do_not_push_out_newer_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
