/* states_test.c - states are kept as long as they live, within the budget, and go to a snapshot and
 * back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "flood.h"
#include "pingpong.h"
#include "replyall.h"
#include "states.h"

enum { BUDGET = 1 << 20 };

/* A row as a snapshot has it: the flood detector's, for its state is the largest of plain bytes. */
static struct state_row row_of(uint64_t key, int64_t used, int64_t life)
{
    static uint8_t bytes[STATE_BYTES_MAX];
    memcpy(bytes, &key, sizeof key);
    return (struct state_row){.detector = "flood",
                              .version = flood_detector.state_version,
                              .key = key,
                              .used = used,
                              .life = life,
                              .bytes = span_of(bytes, flood_detector.state_bytes)};
}

static bool put(struct states *s, uint64_t key, int64_t used, int64_t life)
{
    struct state_row row = row_of(key, used, life);
    return states_put(s, &row);
}

struct seen {
    size_t n;
    uint64_t keys;
    bool good;
};

static void see(void *arg, const struct state_row *row)
{
    struct seen *seen = arg;
    uint64_t key;
    memcpy(&key, row->bytes.p, sizeof key);
    seen->n++;
    seen->keys ^= row->key;
    seen->good &= key == row->key;
}

static void short_lives_end_behind_long_ones(void **state)
{
    (void)state;
    struct states *s = states_new(64 << 20);
    enum { N = 30000 };
    for (uint64_t k = 0; k < N; k++) /* the older half lives long */
        assert_true(put(s, k * 7919, (int64_t)k, k < N / 2 ? 10000000 : 10));
    for (int i = 0; i < 64; i++)
        states_tick(s, 1000000);
    assert_int_equal(states_used(s, NULL), N / 2);
    for (int i = 0; i < 64; i++)
        states_tick(s, 100000000);
    uint64_t bytes;
    assert_int_equal(states_used(s, &bytes), 0);
    assert_int_equal(bytes, 0);
    states_free(&s);
}

static void a_life_ends_after_its_last_millisecond(void **state)
{
    (void)state;
    struct states *s = states_new(BUDGET);
    put(s, 1, 100, 50);
    for (int i = 0; i < 64; i++)
        states_tick(s, 150);
    assert_int_equal(states_used(s, NULL), 1);
    for (int i = 0; i < 64; i++)
        states_tick(s, 151);
    assert_int_equal(states_used(s, NULL), 0);
    states_free(&s);
}

static void invented_keys_stay_within_the_budget(void **state)
{
    (void)state;
    struct states *s = states_new(BUDGET);
    uint64_t bytes, worst = 0;
    for (uint64_t k = 0; k < 50000; k++) {
        put(s, k * 0x9e3779b97f4a7c15, (int64_t)k, 1000000);
        states_used(s, &bytes);
        worst = bytes > worst ? bytes : worst;
    }
    assert_true(worst <= BUDGET + 64 * (STATE_BYTES_MAX + 128)); /* one a shard is always kept */
    assert_true(bytes > BUDGET / 2);
    states_free(&s);
}

static void a_snapshot_comes_back_whole(void **state)
{
    (void)state;
    struct states *s = states_new(BUDGET);
    struct seen seen = {.good = true};
    for (uint64_t k = 0; k < 100; k++)
        assert_true(put(s, k * 131, (int64_t)k, 1000));
    assert_false(put(s, 131, 5, 5)); /* what is there is newer than what is put back */
    states_each(s, see, &seen);
    assert_int_equal(seen.n, 100);
    assert_true(seen.good);
    struct state_row strange = row_of(1, 1, 1);
    strange.detector = "weather";
    assert_false(states_put(s, &strange));
    strange = row_of(1, 1, 1);
    strange.bytes.n--;
    assert_false(states_put(s, &strange));
    strange = row_of(1, 1, 1);
    strange.version++;
    assert_false(states_put(s, &strange));
    assert_int_equal(states_used(s, NULL), 100);
    states_free(&s);
}

static void what_would_index_out_of_bounds_is_not_put_back(void **state)
{
    (void)state;
    static const struct detector *const counting[] = {&replyall_detector, &pingpong_detector};
    for (size_t i = 0; i < 2; i++) {
        struct states *s = states_new(BUDGET);
        uint8_t bytes[STATE_BYTES_MAX] = {0};
        const struct state_row row = {.detector = counting[i]->name,
                                      .version = counting[i]->state_version,
                                      .key = 1,
                                      .life = 1000,
                                      .bytes = span_of(bytes, counting[i]->state_bytes)};
        memset(bytes, 0xff, sizeof bytes);
        assert_false(states_put(s, &row));
        memset(bytes, 0, sizeof bytes);
        assert_true(states_put(s, &row));
        states_free(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_lives_end_behind_long_ones),
        cmocka_unit_test(a_life_ends_after_its_last_millisecond),
        cmocka_unit_test(invented_keys_stay_within_the_budget),
        cmocka_unit_test(a_snapshot_comes_back_whole),
        cmocka_unit_test(what_would_index_out_of_bounds_is_not_put_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
