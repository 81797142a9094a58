/* news_test.c - what one node learned comes to another one, once, and bounded. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "news.c" /* for hear_digest(), which the store calls for a first copy */

static int64_t time_now = INT64_C(1700000000000);
static int64_t test_clock(void)
{
    return time_now;
}

struct side {
    struct site site;
    struct store *store;
    struct news *news;
};

static void side_begin(struct side *n)
{
    site_defaults(&n->site);
    n->store = store_memory_open(&n->site, 16 << 20);
    n->news = news_new(n->store, NULL);
}

static void side_end(struct side *n)
{
    news_free(&n->news);
    store_close(&n->store);
}

static void learn(struct side *n, struct tally t)
{
    struct tallies adds = {.t = &t, .n = 1, .cap = 1};
    n->store->ops->tally_add(n->store, &adds, time_now);
}

static double knows(struct side *n, struct tally t)
{
    struct tallies asks = {.t = &t, .n = 1, .cap = 1};
    struct store_op *op = NULL;
    assert_int_equal(n->store->ops->tally_read(n->store, &asks, time_now, NULL, NULL, &op),
                     STORE_DONE);
    return t.answer;
}

/* All batches of a to b; returns how many. */
static unsigned tell(struct side *a, struct side *b, const struct fleet_topic *topic, bool past)
{
    unsigned batches = 0;
    uint8_t *bytes;
    size_t n;
    while ((n = topic->collect(a->news, false, &bytes))) {
        struct fleet_batch batch = {
            .node = SPAN("a"), .boot = 5, .at = time_now, .past = past, .bytes = {bytes, n}};
        assert_true(n <= FLEET_BATCH);
        topic->apply(b->news, &batch);
        free(bytes);
        batches++;
    }
    return batches;
}

static const struct tally count = {.kind = TALLY_COUNT, .key = 11, .amount = 1, .shared = true};
static const struct tally rate = {
    .kind = TALLY_RATE, .key = 12, .amount = 2, .length = 60000, .shared = true};
static const struct tally mark = {
    .kind = TALLY_MARK, .key = 13, .length = 604800000, .shared = true};
static struct tally member_of(uint64_t member)
{
    return (struct tally){
        .kind = TALLY_SET, .key = 14, .member = member, .length = 86400000, .shared = true};
}

static void what_one_learned_the_other_knows(void **state)
{
    (void)state;
    struct side a, b;
    side_begin(&a);
    side_begin(&b);
    for (int i = 0; i < 3; i++) {
        learn(&a, count);
        learn(&a, rate);
        learn(&a, mark);
        learn(&a, member_of(1));
        learn(&a, member_of(2));
    }
    assert_int_equal(tell(&a, &b, &news_tallies, false), 1);
    assert_true(knows(&b, count) > 2.99 && knows(&b, count) < 3.01);
    assert_true(knows(&b, rate) > 5.99 && knows(&b, rate) < 6.01);
    assert_int_equal((int64_t)knows(&b, mark), time_now);
    assert_int_equal(knows(&b, member_of(0)), 2);
    /* what b heard is no news of its own */
    assert_int_equal(tell(&b, &a, &news_tallies, false), 0);
    assert_true(knows(&a, count) < 3.01);
    side_end(&a);
    side_end(&b);
}

static void what_is_this_nodes_own_stays_here(void **state)
{
    (void)state;
    struct side a, b;
    side_begin(&a);
    side_begin(&b);
    struct tally own = mark;
    own.shared = false;
    learn(&a, own);
    assert_int_equal(tell(&a, &b, &news_tallies, false), 0);
    assert_int_equal(knows(&b, own), 0);
    side_end(&a);
    side_end(&b);
}

static void of_the_past_only_what_is_true_twice_counts(void **state)
{
    (void)state;
    struct side a, b;
    side_begin(&a);
    side_begin(&b);
    learn(&a, count);
    learn(&a, rate);
    learn(&a, mark);
    learn(&a, member_of(1));
    assert_int_equal(tell(&a, &b, &news_tallies, true), 1);
    assert_int_equal(knows(&b, count), 0);
    assert_int_equal(knows(&b, rate), 0);
    assert_int_equal((int64_t)knows(&b, mark), time_now);
    assert_int_equal(knows(&b, member_of(0)), 1);
    side_end(&a);
    side_end(&b);
}

static void the_same_is_said_once_a_minute(void **state)
{
    (void)state;
    struct side a, b;
    side_begin(&a);
    side_begin(&b);
    static const struct {
        int64_t later; /* ms */
        unsigned batches;
    } t[] = {{0, 1}, {1000, 0}, {58999, 0}, {1, 1}, {1, 0}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        time_now += t[i].later;
        learn(&a, mark);
        if (tell(&a, &b, &news_tallies, false) != t[i].batches)
            fail_msg("line %zu", i);
    }
    learn(&a, member_of(3)); /* another fact */
    assert_int_equal(tell(&a, &b, &news_tallies, false), 1);
    for (int i = 0; i < 2; i++) { /* an amount is new each time */
        learn(&a, count);
        assert_int_equal(tell(&a, &b, &news_tallies, false), 1);
    }
    assert_true(knows(&b, count) > 1.99);
    side_end(&a);
    side_end(&b);
}

static void many_make_several_batches_and_too_many_are_dropped(void **state)
{
    (void)state;
    struct side a, b;
    side_begin(&a);
    side_begin(&b);
    const unsigned most = 1 << 16; /* of one thread */
    for (unsigned i = 0; i < most + 10; i++) {
        struct tally t = count;
        t.key = 1000 + i;
        learn(&a, t);
    }
    assert_int_equal(news_dropped(a.news), 10);
    assert_int_equal(tell(&a, &b, &news_tallies, false), (most * 13 + 65518) / 65519);
    struct tally last = count;
    last.key = 1000 + most - 1;
    assert_int_equal(knows(&b, last), 1);
    side_end(&a);
    side_end(&b);
}

static void digests_come_five_hundred_and_twelve_at_a_time(void **state)
{
    (void)state;
    struct side a, b;
    side_begin(&a);
    side_begin(&b);
    struct store_long known;
    assert_int_equal(tell(&a, &b, &news_digests, false), 0);
    for (uint64_t i = 1; i <= 512; i++)
        hear_digest(a.news, i * UINT64_C(0x9e3779b97f4a7c15));
    assert_int_equal(tell(&a, &b, &news_digests, false), 1);
    for (uint64_t i = 1; i <= 513; i++)
        hear_digest(a.news, i * UINT64_C(0x9e3779b97f4a7c15));
    assert_int_equal(tell(&a, &b, &news_digests, false), 2);
    store_memory_long(b.store, &known);
    assert_int_equal(known.since, time_now);
    for (unsigned i = 0; i < LANE_MAX + 7; i++)
        hear_digest(a.news, i);
    assert_int_equal(news_dropped(a.news), 7);
    assert_int_equal(tell(&a, &b, &news_digests, false), LANE_MAX / 512);
    side_end(&a);
    side_end(&b);
}

static void broken_batches_change_nothing_wrong(void **state)
{
    (void)state;
    struct side b;
    side_begin(&b);
    uint8_t good[14] = {NEWS_VERSION, TALLY_MARK, 13};
    bytes_put(good + 10, 604800, 4);
    const struct {
        struct span bytes;
        bool known;
    } t[] = {
        {{NULL, 0}, false},
        {{good, 1}, false},
        {{good, 13}, false},
        {SPAN_INIT("\2\3\15\0\0\0\0\0\0\0\200\72\11\0"), false},     /* another version */
        {SPAN_INIT("\1\4\15\0\0\0\0\0\0\0\200\72\11\0"), false},     /* another kind */
        {SPAN_INIT("\1\3\15\0\0\0\0\0\0\0\0\0\0\0"), false},         /* no life */
        {SPAN_INIT("\1\3\15\0\0\0\0\0\0\0\377\377\377\377"), false}, /* 136 years */
        {SPAN_INIT("\1\0\15\0\0\0\0\0\0\0\377\377\377\377"), false}, /* 4 billion mails */
        {{good, 14}, true},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct fleet_batch batch = {.node = SPAN("a"), .at = time_now, .bytes = t[i].bytes};
        news_tallies.apply(b.news, &batch);
        if ((knows(&b, mark) > 0) != t[i].known)
            fail_msg("line %zu", i);
    }
    side_end(&b);
}

static int begin(void **state)
{
    (void)state;
    clock_set(test_clock);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_one_learned_the_other_knows),
        cmocka_unit_test(what_is_this_nodes_own_stays_here),
        cmocka_unit_test(of_the_past_only_what_is_true_twice_counts),
        cmocka_unit_test(the_same_is_said_once_a_minute),
        cmocka_unit_test(many_make_several_batches_and_too_many_are_dropped),
        cmocka_unit_test(digests_come_five_hundred_and_twelve_at_a_time),
        cmocka_unit_test(broken_batches_change_nothing_wrong),
    };
    return cmocka_run_group_tests(tests, begin, NULL);
}
