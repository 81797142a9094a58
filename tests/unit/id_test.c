/* id_test.c - ids are unique, rising and readable; the clock never runs back. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "id.h"

static void ids_hold_time_node_and_number(void **state)
{
    (void)state;
    int64_t now = clock_now() + 1000000;
    uint64_t id = id_next(1023, now);
    assert_int_equal(id >> 22, now);
    assert_int_equal(id >> 12 & 1023, 1023);
    assert_int_equal(id & 4095, 0);
    assert_int_equal(id_next(1023, now) - id, 1);
    assert_int_equal(id_next(0xffff, now) >> 12 & 1023, 1023);
}

static void ids_rise_whatever_the_clock_does(void **state)
{
    (void)state;
    int64_t now = clock_now() + 2000000;
    const int64_t clock[] = {now, now, now - 5000, 0, -1, INT64_MIN, now + 1, now};
    uint64_t last = id_next(7, now);
    for (size_t i = 0; i < sizeof clock / sizeof *clock; i++) {
        uint64_t id = id_next(7, clock[i]);
        assert_true(id > last);
        last = id;
    }
    for (int i = 0; i < 10000; i++) { /* more than a millisecond has numbers */
        uint64_t id = id_next(7, now);
        assert_true(id > last);
        last = id;
    }
}

enum { THREADS = 4, EACH = 20000 };

static void *take(void *arg)
{
    uint64_t *ids = arg;
    for (int i = 0; i < EACH; i++)
        ids[i] = id_next(3, 1000 - i);
    return NULL;
}

static int ascending(const void *a, const void *b)
{
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

static void ids_of_many_threads_differ(void **state)
{
    (void)state;
    static uint64_t ids[THREADS * EACH];
    pthread_t thread[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, take, ids + i * EACH), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    for (int i = 0; i < THREADS; i++)
        for (int j = 1; j < EACH; j++)
            assert_true(ids[i * EACH + j] > ids[i * EACH + j - 1]);
    qsort(ids, THREADS * EACH, sizeof *ids, ascending);
    for (int i = 1; i < THREADS * EACH; i++)
        assert_true(ids[i] != ids[i - 1]);
}

static void ids_are_read_back(void **state)
{
    (void)state;
    static const struct {
        uint64_t id;
        const char *text;
    } t[] = {
        /* RFC 4648 base32 of the 8 bytes, big-endian */
        {0, "AAAAAAAAAAAAA"},
        {UINT64_MAX, "7777777777776"},
        {0x666f6f6261720000, "MZXW6YTBOIAAA"}, /* "foobar", RFC 4648 10 */
        {1, "AAAAAAAAAAAAC"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char text[ID_TEXT], lower[ID_TEXT];
        uint64_t id = 5;
        id_print(t[i].id, text);
        assert_string_equal(text, t[i].text);
        assert_true(id_parse(&id, span_str(text)) && id == t[i].id);
        for (int j = 0; j < ID_TEXT; j++)
            lower[j] = (char)byte_lower((uint8_t)text[j]);
        id = 5;
        assert_true(id_parse(&id, span_str(lower)) && id == t[i].id);
    }
}

static void what_is_not_an_id_is_refused(void **state)
{
    (void)state;
    const struct span t[] = {
        SPAN(""),
        SPAN("AAAAAAAAAAAA"),   /* too short */
        SPAN("AAAAAAAAAAAAAA"), /* too long */
        SPAN("AAAAAAAAAAAAB"),  /* a 65th bit */
        SPAN("AAAAAA0AAAAAA"),  /* 0, 1, 8, 9 are no digits */
        SPAN("AAAAAA1AAAAAA"),
        SPAN("AAAAAA8AAAAAA"),
        SPAN("AAAAAA AAAAAA"),
        SPAN("AAAAAA\0AAAAAA"),
        SPAN("AAAAAAAAAAAA="),
        {NULL, 0},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        uint64_t id = 5;
        assert_false(id_parse(&id, t[i]));
        assert_int_equal(id, 5);
    }
}

static void incidents_are_named_after_their_key(void **state)
{
    (void)state;
    struct key k = {.byte = {'f', 'o', 'o', 'b', 'a', 'r'}};
    char text[INCIDENT_TEXT], same[INCIDENT_TEXT];
    incident_print(&k, text);
    assert_string_equal(text, "SMZXW6YTB");
    assert_true(incident_parse(SPAN("smzxw6ytb"), same));
    assert_string_equal(same, text);
    const struct span bad[] = {
        SPAN("SMZXW6YT"), SPAN("SMZXW6YTBB"), SPAN("TMZXW6YTB"), SPAN("SMZXW6YT1"), SPAN(""),
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(incident_parse(bad[i], same));
    assert_string_equal(same, text);
}

static int64_t test_now;

static int64_t test_clock(void)
{
    return test_now;
}

static void the_clock_never_runs_back(void **state)
{
    (void)state;
    assert_true(clock_now() > 1500000000000);
    clock_set(test_clock); /* into the past: another clock starts anew */
    test_now = 1000;
    assert_int_equal(clock_now(), 1000);
    test_now = 900;
    assert_int_equal(clock_now(), 1000);
    test_now = 1001;
    assert_int_equal(clock_now(), 1001);
    clock_set(NULL);
    assert_true(clock_now() > 1500000000000);
    int64_t mono = clock_mono();
    assert_true(clock_mono() >= mono);
}

static void a_shifted_clock_never_runs_back(void **state)
{
    (void)state;
    clock_set(test_clock);
    test_now = 10000;
    assert_int_equal(clock_now(), 10000);
    clock_shift(500, false);
    assert_int_equal(clock_now(), 10500);
    assert_int_equal(clock_own(), 10000);
    clock_shift(-500, false); /* it stands still */
    assert_int_equal(clock_now(), 10500);
    test_now = 11000;
    assert_int_equal(clock_now(), 10500);
    test_now = 11001;
    assert_int_equal(clock_now(), 10501);
    clock_shift(-5000, true); /* nothing was dated yet */
    assert_int_equal(clock_now(), 6001);
    clock_set(test_clock); /* another clock has no shift */
    assert_int_equal(clock_now(), 11001);
    clock_set(NULL);
}

/* The last one: it lasts as long as the process. */
static void ids_are_of_another_node_if_it_must_be(void **state)
{
    (void)state;
    assert_int_equal(id_next(5, 1) >> 12 & 1023, 5);
    id_use_node(1023);
    assert_int_equal(id_next(5, 1) >> 12 & 1023, 1023);
    id_use_node(0);
    assert_int_equal(id_next(5, 1) >> 12 & 1023, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_hold_time_node_and_number),
        cmocka_unit_test(ids_rise_whatever_the_clock_does),
        cmocka_unit_test(ids_of_many_threads_differ),
        cmocka_unit_test(ids_are_read_back),
        cmocka_unit_test(what_is_not_an_id_is_refused),
        cmocka_unit_test(incidents_are_named_after_their_key),
        cmocka_unit_test(the_clock_never_runs_back),
        cmocka_unit_test(a_shifted_clock_never_runs_back),
        cmocka_unit_test(ids_are_of_another_node_if_it_must_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
