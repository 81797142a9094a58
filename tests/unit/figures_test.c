/* figures_test.c - what is counted of the mail: windows, the balance, times, many threads at once.
 * The clock of the samples is an argument; nothing sleeps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>
#include <string.h>

#include "figures.h"

enum { SECOND = 1000, MINUTE = 60 * SECOND };
#define START INT64_C(1795000020000) /* a whole minute */

static struct config *config;

static int setup(void **state)
{
    char error[512];
    (void)state;
    static const char text[] = "node { name = gw.example }\n"
                               "milter in { socket = \"inet:1@127.0.0.1\" }\n"
                               "smtp out { socket = \"inet:2@127.0.0.1\" "
                               "downstream = \"127.0.0.1:3\" }\n";
    config = config_parse("/test/breakwater.conf", span_str(text), CONFIG_READ, error);
    if (!config)
        fprintf(stderr, "%s\n", error);
    return config ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    config_drop(&config);
    return 0;
}

/* A message of n recipients that got its rows and its answer. */
static void whole(struct gauge *g, size_t n, enum disposition d)
{
    struct passing p;
    passing_begun(&p, g, n);
    gauge_add(g, FIGURE_DONE + (unsigned)d, n);
    passing_replied(&p, REPLY_ACCEPTED);
}

static void a_door_has_its_gauge_and_strangers_share_one(void **state)
{
    (void)state;
    struct figures *f = figures_new(config);
    struct gauge *in = figures_gauge(f, "in"), *other = figures_gauge(f, "nobody");
    assert_true(in == figures_gauge(f, "in"));
    assert_true(in != figures_gauge(f, "out") && in != other);
    assert_true(other == figures_gauge(f, NULL) && other == figures_gauge(f, "another"));
    assert_null(figures_gauge(NULL, "in"));
    figures_free(&f);
    assert_null(f);
}

static void without_a_gauge_nothing_happens(void **state)
{
    (void)state;
    struct passing p;
    gauge_add(NULL, FIGURE_JUDGED, 1);
    gauge_downstream(NULL, 250);
    passing_begun(&p, NULL, 3);
    passing_judged(&p);
    passing_replied(&p, REPLY_ACCEPTED);
    assert_null(p.gauge);
}

/* ---- windows ---- */

static void a_window_ends_where_it_should(void **state)
{
    (void)state;
    static const struct {
        int64_t later; /* ms after the message */
        uint64_t minute, ten;
    } table[] = {
        {0, 1, 1},           {59 * SECOND, 1, 1},          {71 * SECOND, 0, 1},
        {9 * MINUTE, 0, 1},  {10 * MINUTE - SECOND, 0, 1}, {10 * MINUTE + 11 * SECOND, 0, 0},
        {60 * MINUTE, 0, 0},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct guard_reading r;
        struct figures *f = figures_new(config);
        int64_t t = START;
        for (; t < START + 20 * MINUTE; t += SECOND)
            figures_tick(f, t);
        whole(figures_gauge(f, "in"), 1, DISP_PASS);
        for (int64_t end = t + table[i].later; t < end; t += SECOND)
            figures_tick(f, t);
        figures_read(f, t, &r);
        if (r.messages_1m != table[i].minute || r.messages_10m != table[i].ten)
            fail_msg("after %lld s: %llu in a minute, %llu in ten",
                     (long long)table[i].later / 1000, (unsigned long long)r.messages_1m,
                     (unsigned long long)r.messages_10m);
        figures_free(&f);
    }
}

/* Errors of the MTA behind: ten minutes are not in the hour before them. */
static void the_hour_before_does_not_know_the_last_ten_minutes(void **state)
{
    (void)state;
    struct guard_reading r;
    struct figures *f = figures_new(config);
    struct gauge *g = figures_gauge(f, "out");
    int64_t t = START;
    for (; t < START + 65 * MINUTE; t += 5 * SECOND) {
        figures_tick(f, t);
        gauge_downstream(g, (t - START) / (5 * SECOND) % 10 ? 250 : 451);
    }
    for (int64_t end = t + 10 * MINUTE; t < end; t += 5 * SECOND) {
        figures_tick(f, t);
        gauge_downstream(g, 0);
    }
    figures_read(f, t, &r);
    assert_in_range(r.downstream_10m, 120, 122);
    assert_in_range(r.downstream_errors_10m, 120, 121);
    assert_in_range(r.downstream_1h, 708, 732);
    assert_in_range(r.downstream_errors_1h, 70, 76);
    figures_free(&f);
}

static void a_clock_that_jumps_loses_nothing(void **state)
{
    (void)state;
    struct guard_reading r;
    struct figures *f = figures_new(config);
    struct gauge *g = figures_gauge(f, "in");
    figures_tick(f, START);
    whole(g, 2, DISP_PASS);
    figures_read(f, START + 600 * MINUTE, &r); /* nobody looked in between: it counts as new */
    assert_int_equal(r.messages_10m, 1);
    for (int64_t t = START + 600 * MINUTE; t <= START + 611 * MINUTE; t += MINUTE)
        figures_tick(f, t);
    figures_read(f, START + 612 * MINUTE, &r);
    assert_int_equal(r.messages_10m, 0);
    assert_int_equal(figures_total(f, FIGURE_RECEIVED), 2);
    figures_free(&f);
}

/* ---- times ---- */

static void percentiles_are_good_to_a_tenth(void **state)
{
    (void)state;
    static const int64_t us[] = {1, 7, 8, 15, 16, 100, 999, 2000, 31337, 150000, 2000000, 61000000};
    for (size_t i = 0; i < sizeof us / sizeof *us; i++) {
        struct latency l;
        struct figures *f = figures_new(config);
        struct gauge *g = figures_gauge(f, "out");
        for (unsigned n = 0; n < 100; n++) {
            struct passing p;
            passing_begun(&p, g, 1);
            p.began -= n < 98 ? us[i] : 1000000000; /* two of a hundred take much longer */
            passing_judged(&p);
            gauge_add(g, FIGURE_DONE, 1);
            passing_replied(&p, REPLY_ACCEPTED);
        }
        figures_latency(f, START, MINUTE, &l);
        assert_int_equal(l.messages, 100);
        double slack = 60; /* us this machine may have taken for a message */
        if (l.own_p50 < (double)us[i] * 0.9 || l.own_p50 > (double)us[i] * 1.1 + slack)
            fail_msg("half of %lld us took %.1f us", (long long)us[i], l.own_p50);
        if (l.own_p99 < 0.9e9 || l.own_p99 > 1.1e9)
            fail_msg("the slowest of %lld us took %.1f us", (long long)us[i], l.own_p99);
        figures_free(&f);
    }
}

static void what_the_mta_behind_takes_is_added_but_not_our_own(void **state)
{
    (void)state;
    struct guard_reading r;
    struct passing p;
    struct figures *f = figures_new(config);
    struct gauge *g = figures_gauge(f, "out");
    passing_begun(&p, g, 1);
    p.began -= 90000000;
    passing_judged(&p);
    p.judged -= 89990000; /* judged after 10 ms; the rest was not ours */
    gauge_add(g, FIGURE_DONE, 1);
    passing_replied(&p, REPLY_ACCEPTED);
    figures_read(f, START, &r);
    assert_true(r.own_p99_1m > 9 && r.own_p99_1m < 11.5);
    assert_true(r.added_avg_10m >= 90000 && r.added_avg_10m < 90100);
    figures_free(&f);
}

static void a_client_that_is_gone_has_no_time(void **state)
{
    (void)state;
    struct guard_reading r;
    struct passing p;
    struct figures *f = figures_new(config);
    passing_begun(&p, figures_gauge(f, "in"), 1);
    p.began -= 600000000;
    passing_replied(&p, REPLY_ABORTED);
    figures_read(f, START, &r);
    assert_int_equal(r.messages_10m, 0);
    assert_true(r.own_p99_1m == 0 && r.added_avg_10m == 0);
    figures_free(&f);
}

/* ---- the balance ---- */

static void under_way_is_not_lost_and_lost_is_not_under_way(void **state)
{
    (void)state;
    struct balance b;
    struct passing p, q;
    struct figures *f = figures_new(config);
    struct gauge *g = figures_gauge(f, "in");
    whole(g, 4, DISP_HOLD);
    passing_begun(&p, g, 3);
    passing_begun(&q, g, 5);
    figures_balance(f, g, START, &b);
    assert_int_equal(b.received, 12);
    assert_int_equal(b.after, 8);
    assert_int_equal(b.unaccounted, 0);
    gauge_add(g, FIGURE_DONE + DISP_TAG, 3); /* a row, and not answered yet */
    figures_balance(f, g, START, &b);
    assert_int_equal(b.passed, 3);
    assert_int_equal(b.after, 5);
    assert_int_equal(b.unaccounted, 0);
    passing_replied(&p, REPLY_ACCEPTED);
    passing_replied(&q, REPLY_ABORTED); /* and nobody wrote a row for it */
    figures_balance(f, NULL, START, &b);
    assert_int_equal(b.after, 0);
    assert_int_equal(b.unaccounted, 5);
    assert_int_equal(b.received, b.passed + b.held + 5);
    figures_free(&f);
}

static void rows_without_a_message_are_unaccounted_too(void **state)
{
    (void)state;
    struct balance b;
    struct guard_reading r;
    struct figures *f = figures_new(config);
    whole(figures_gauge(f, "in"), 2, DISP_PASS);
    gauge_add(figures_gauge(f, "in"), FIGURE_DONE, 2); /* written down twice */
    figures_balance(f, NULL, START, &b);
    assert_int_equal(b.unaccounted, -2);
    whole(figures_gauge(f, "out"), 2, DISP_PASS);
    struct passing p;
    passing_begun(&p, figures_gauge(f, "out"), 2);
    passing_replied(&p, REPLY_LATER); /* another door loses as many: they do not cancel out */
    figures_read(f, START, &r);
    assert_int_equal(r.unaccounted, 4);
    figures_free(&f);
}

struct rows {
    struct balance row[300];
    char door[300];
    size_t n;
};

static void keep_row(void *arg, const char *door, const struct balance *b)
{
    struct rows *r = arg;
    assert_true(r->n < 300);
    r->door[r->n] = door[0];
    r->row[r->n++] = *b;
}

static void each_minute_has_its_row_by_door(void **state)
{
    (void)state;
    static struct rows rows;
    memset(&rows, 0, sizeof rows);
    struct figures *f = figures_new(config);
    struct gauge *in = figures_gauge(f, "in"), *out = figures_gauge(f, "out");
    struct passing late = {0};
    for (int64_t t = START; t < START + 100 * MINUTE; t += 10 * SECOND) {
        figures_tick(f, t);
        int64_t minute = (t - START) / MINUTE;
        whole(in, 1, DISP_PASS);
        if (minute % 2)
            whole(out, 2, DISP_HOLD);
        if (t == START + 98 * MINUTE + 50 * SECOND)
            passing_begun(&late, in, 7);
    }
    gauge_add(in, FIGURE_REFUSED, 7); /* comes in one minute, ends in the next */
    passing_replied(&late, REPLY_LATER);
    figures_each_minute(f, START + 100 * MINUTE - SECOND, 3, keep_row, &rows);
    assert_int_equal(rows.n, 3 * 4); /* three doors, three minutes and the running one */
    for (size_t i = 0; i < rows.n; i++) {
        const struct balance *b = &rows.row[i];
        assert_int_equal(b->unaccounted, 0);
        assert_int_equal(b->received + b->before - b->after, b->passed + b->held + b->throttled +
                                                                 b->rejected + b->refused +
                                                                 b->aborted);
    }
    assert_int_equal(rows.row[0].from, START + 96 * MINUTE);
    assert_int_equal(rows.row[0].until, START + 97 * MINUTE);
    assert_int_equal(rows.row[0].received, 6);
    assert_int_equal(rows.row[2].received, 6 + 7);
    assert_int_equal(rows.row[2].after, 7);
    assert_int_equal(rows.row[3].before, 7);
    assert_int_equal(rows.row[3].refused, 7);
    assert_int_equal(rows.row[4].received, 0); /* out, an even minute */
    assert_int_equal(rows.row[5].held, 12);
    assert_int_equal(rows.door[4], 'o');
    rows.n = 0;
    figures_each_minute(f, START + 100 * MINUTE - SECOND, 1000, keep_row, &rows);
    assert_int_equal(rows.n, 3 * 72); /* 71 whole ones are kept */
    figures_free(&f);
}

/* ---- the hold queue ---- */

static void growth_is_what_no_confirmed_storm_explains(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint64_t explained, harmless, harmful, replyall, then, now;
        int64_t growth;
    } table[] = {
        {"a confirmed storm", 50000, 0, 0, 0, 100, 50100, 0},
        {"a wrong rule", 0, 0, 2000, 0, 100, 2100, 2000},
        {"further copies of what is no storm yet", 0, 300, 0, 0, 0, 300, 300},
        {"both at once", 50000, 0, 2000, 0, 0, 52000, 2000},
        {"people release as much as comes", 0, 0, 2000, 0, 5000, 5000, 0},
        {"people release more than comes", 0, 0, 2000, 0, 9000, 5000, -4000},
        {"answers to everybody have a cap of their own", 0, 0, 0, 900, 0, 900, 0},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct guard_reading r;
        struct figures *f = figures_new(config);
        struct gauge *g = figures_gauge(f, "in");
        int64_t t = START;
        figures_held(f, table[i].then);
        for (; t < START + 7 * MINUTE; t += 10 * SECOND)
            figures_tick(f, t);
        gauge_add(g, FIGURE_HOLDS + HOLD_EXPLAINED, table[i].explained);
        gauge_add(g, FIGURE_HOLDS + HOLD_HARMLESS, table[i].harmless);
        gauge_add(g, FIGURE_HOLDS + HOLD_HARMFUL, table[i].harmful);
        gauge_add(g, FIGURE_HOLDS + HOLD_REPLYALL, table[i].replyall);
        figures_held(f, table[i].now);
        figures_read(f, t + 30 * SECOND, &r);
        if (r.held_growth_5m != table[i].growth || r.held != table[i].now)
            fail_msg("%s: %lld", table[i].name, (long long)r.held_growth_5m);
        assert_int_equal(r.harmful_10m, table[i].harmful);
        assert_int_equal(r.replyall_10m, table[i].replyall);
        figures_free(&f);
    }
}

/* ---- many threads ---- */

enum { THREADS = 6, EACH = 20000 };
static struct figures *shared;
static _Atomic unsigned running;

static void *much_mail(void *arg)
{
    struct gauge *g = figures_gauge(shared, *(const char *)arg == 'i' ? "in" : "out");
    for (unsigned i = 0; i < EACH; i++)
        whole(g, 1 + i % 3, i % 7 ? DISP_PASS : DISP_HOLD);
    atomic_fetch_sub(&running, 1);
    return NULL;
}

/* While six threads count, every look at the balance finds nothing missing. */
static void a_look_at_any_moment_finds_the_balance_even(void **state)
{
    (void)state;
    static char doors[] = "ioioio";
    pthread_t thread[THREADS];
    struct balance b;
    struct guard_reading r;
    int64_t now = START;
    shared = figures_new(config);
    atomic_store(&running, THREADS);
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, much_mail, &doors[i]), 0);
    while (atomic_load(&running)) {
        figures_read(shared, now += SECOND, &r);
        assert_int_equal(r.unaccounted, 0);
        figures_balance(shared, NULL, now, &b);
        assert_int_equal(b.unaccounted, 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    figures_balance(shared, NULL, now, &b);
    assert_int_equal(figures_total(shared, FIGURE_MESSAGES), THREADS * EACH);
    assert_int_equal(b.after, 0);
    assert_int_equal(b.received, b.passed + b.held);
    figures_free(&shared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_door_has_its_gauge_and_strangers_share_one),
        cmocka_unit_test(without_a_gauge_nothing_happens),
        cmocka_unit_test(a_window_ends_where_it_should),
        cmocka_unit_test(the_hour_before_does_not_know_the_last_ten_minutes),
        cmocka_unit_test(a_clock_that_jumps_loses_nothing),
        cmocka_unit_test(percentiles_are_good_to_a_tenth),
        cmocka_unit_test(what_the_mta_behind_takes_is_added_but_not_our_own),
        cmocka_unit_test(a_client_that_is_gone_has_no_time),
        cmocka_unit_test(under_way_is_not_lost_and_lost_is_not_under_way),
        cmocka_unit_test(rows_without_a_message_are_unaccounted_too),
        cmocka_unit_test(each_minute_has_its_row_by_door),
        cmocka_unit_test(growth_is_what_no_confirmed_storm_explains),
        cmocka_unit_test(a_look_at_any_moment_finds_the_balance_even),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
