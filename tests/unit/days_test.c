/* days_test.c - what rules did and would have done, from memory to the database and back: nothing
 * counted twice, nothing lost at a restart, hours summed up to days. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/thread.h>
#include <pthread.h>

#include "days.h"

enum { MINUTE = 60000, HOUR = 60 * MINUTE, DAY = 24 * HOUR };
#define T (INT64_C(20780) * DAY + 10 * HOUR + 30 * MINUTE) /* half past ten, some day */

static struct house {
    char dir[64];
    struct config *config;
    struct figures *figures;
    struct days *days;
    struct keeper *keeper;
    struct event_base *base;
    struct mailbox *home;
} h;

static void start(void)
{
    char error[512];
    h.figures = figures_new(h.config);
    h.days = days_new(h.figures);
    h.keeper = keeper_start(h.dir, error);
    assert_non_null(h.keeper);
}

static void wait_for_the_keeper(void)
{
    struct keeper_figures f;
    do {
        usleep(1000);
        event_base_loop(h.base, EVLOOP_NONBLOCK);
        keeper_figures(h.keeper, &f);
    } while (f.waiting);
    event_base_loop(h.base, EVLOOP_NONBLOCK);
}

static void stop(int64_t now)
{
    days_save(h.days, h.keeper, h.home, now, true);
    wait_for_the_keeper();
    keeper_stop(&h.keeper);
    days_free(&h.days);
    figures_free(&h.figures);
}

static int open_house(void **state)
{
    (void)state;
    h = (struct house){.dir = "/tmp/days_test.XXXXXX"};
    log_open("stderr", LOG_NOTHING);
    evthread_use_pthreads();
    assert_non_null(mkdtemp(h.dir));
    h.config = config_builtin();
    h.base = event_base_new();
    h.home = mailbox_new(h.base);
    start();
    return 0;
}

static int close_house(void **state)
{
    char command[96];
    (void)state;
    if (h.keeper)
        stop(T + 500 * (int64_t)DAY);
    mailbox_free(&h.home);
    event_base_free(h.base);
    config_drop(&h.config);
    snprintf(command, sizeof command, "rm -r %.63s", h.dir);
    return system(command);
}

/* ---- what is told ---- */

static struct {
    int64_t hour;
    char name[200];
    uint64_t copies, firsts;
} seen[64];
static size_t nseen;

static void see(void *arg, const struct day_row *r)
{
    char name[200];
    size_t i = 0;
    (void)arg;
    snprintf(name, sizeof name, "%s %s %d: %d for %d", r->listener, *r->rule ? r->rule : "-",
             r->mode, r->done, r->advised);
    while (i < nseen && (seen[i].hour != r->hour || strcmp(seen[i].name, name) != 0))
        i++;
    if (i == nseen) {
        assert_true(nseen < 64);
        seen[nseen].hour = r->hour;
        strcpy(seen[nseen].name, name);
        seen[nseen].copies = seen[nseen].firsts = 0;
        nseen++;
    }
    seen[i].copies += r->copies;
    seen[i].firsts += r->firsts;
}

static void look(int64_t from, int64_t until, bool by_day)
{
    char error[512];
    bool damaged;
    nseen = 0;
    struct hold *view = hold_open(h.dir, false, &damaged, error);
    assert_non_null(view);
    assert_int_equal(
        days_each(h.days, view, from / DAY_HOUR, until / DAY_HOUR + 1, by_day, see, NULL), 0);
    hold_close(&view);
}

static uint64_t copies_of(const char *name, uint64_t *firsts)
{
    for (size_t i = 0; i < nseen; i++)
        if (strcmp(seen[i].name, name) == 0) {
            *firsts = seen[i].firsts;
            return seen[i].copies;
        }
    return 0;
}

static void add(const char *rule, enum mode mode, unsigned done, unsigned advised, uint64_t copies,
                uint64_t firsts)
{
    days_add(h.days, &(struct day_row){.listener = "in",
                                       .rule = rule,
                                       .mode = (uint8_t)mode,
                                       .done = (uint8_t)done,
                                       .advised = (uint8_t)advised,
                                       .copies = copies,
                                       .firsts = firsts});
}

static void save(int64_t now)
{
    days_save(h.days, h.keeper, h.home, now, false);
    wait_for_the_keeper();
}

/* ---- tests ---- */

static void monitor_and_enforce_are_told_apart_and_added_up(void **state)
{
    (void)state;
    uint64_t firsts;
    save(T);
    add("duplicate", MODE_MONITOR, DISP_PASS, DISP_HOLD, 29, 0);
    add("loop-own", MODE_MONITOR, DISP_PASS, DISP_HOLD, 2, 1);
    look(T, T, false);
    assert_int_equal(copies_of("in duplicate 0: 0 for 3", &firsts), 29); /* unsaved, and seen */
    save(T + MINUTE);
    look(T, T, false);
    assert_int_equal(copies_of("in duplicate 0: 0 for 3", &firsts), 29); /* saved, seen once */
    add("duplicate", MODE_MONITOR, DISP_PASS, DISP_HOLD, 1, 0);
    add("duplicate", MODE_ENFORCE, DISP_HOLD, DISP_HOLD, 7, 0);
    look(T, T, false);
    assert_int_equal(copies_of("in duplicate 0: 0 for 3", &firsts), 30);
    assert_int_equal(copies_of("in duplicate 1: 3 for 3", &firsts), 7);
    assert_int_equal(copies_of("in loop-own 0: 0 for 3", &firsts), 2);
    assert_int_equal(firsts, 1);
}

static void what_no_rule_was_about_comes_from_the_figures(void **state)
{
    (void)state;
    uint64_t firsts;
    struct gauge *g = figures_gauge(h.figures, "other");
    save(T);
    gauge_add(g, FIGURE_PLAIN + MODE_ENFORCE, 500);
    gauge_add(g, FIGURE_ABORTED, 3);
    save(T + MINUTE);
    gauge_add(g, FIGURE_PLAIN + MODE_ENFORCE, 1);
    gauge_add(g, FIGURE_REFUSED, 2);
    look(T, T, false);
    assert_int_equal(copies_of("other - 1: 0 for 0", &firsts), 501);
    assert_int_equal(copies_of("other - 0: 17 for 17", &firsts), 3);
    assert_int_equal(copies_of("other - 0: 16 for 16", &firsts), 2);
}

static void a_restart_loses_nothing(void **state)
{
    (void)state;
    uint64_t firsts;
    for (int life = 0; life < 3; life++) {
        add("duplicate", MODE_ENFORCE, DISP_HOLD, DISP_HOLD, 5, 0);
        stop(T + life * MINUTE);
        start();
    }
    save(T + 10 * MINUTE);
    look(T, T, false);
    assert_int_equal(copies_of("in duplicate 1: 3 for 3", &firsts), 15);
}

static void mail_counts_for_the_hour_it_came_in(void **state)
{
    (void)state;
    uint64_t firsts;
    int64_t midnight = (T / DAY + 1) * DAY;
    save(midnight - 2000);
    add("duplicate", MODE_ENFORCE, DISP_HOLD, DISP_HOLD, 5, 0);
    save(midnight + 500); /* the first look after midnight: it came before */
    add("duplicate", MODE_ENFORCE, DISP_HOLD, DISP_HOLD, 2, 0);
    save(midnight + 2 * MINUTE);
    look(midnight - HOUR, midnight - 1, true);
    assert_int_equal(copies_of("in duplicate 1: 3 for 3", &firsts), 5);
    look(midnight, midnight, true);
    assert_int_equal(copies_of("in duplicate 1: 3 for 3", &firsts), 2);
    look(midnight - HOUR, midnight, true);
    assert_int_equal(nseen, 2);
    assert_int_equal(seen[0].hour % 24, 0);
}

/* A year and more, a day at a time; each day the same. */
static void days_are_summed_up_and_forgotten(void **state)
{
    (void)state;
    for (int day = 0; day < 410; day++)
        for (int hour = 0; hour < 24; hour += 11) {
            int64_t now = T / DAY * DAY + day * (int64_t)DAY + hour * HOUR;
            add("duplicate", MODE_ENFORCE, DISP_HOLD, DISP_HOLD, 1, 1);
            save(now);
        }
    look(0, T + 500 * (int64_t)DAY, false);
    assert_int_equal(nseen, 1);
    uint64_t firsts, n = copies_of("in duplicate 1: 3 for 3", &firsts);
    assert_in_range(n, 3 * 400, 3 * 402);
    assert_int_equal(n, firsts);
    nseen = 0;
    look(T + 100 * (int64_t)DAY, T + 101 * (int64_t)DAY, true); /* from half past ten: two days' */
    assert_int_equal(nseen, 1);
}

static void too_many_rules_are_counted_as_left_out(void **state)
{
    (void)state;
    char rule[32];
    for (int i = 0; i < 5000; i++) {
        snprintf(rule, sizeof rule, "rule-%d", i);
        add(rule, MODE_ENFORCE, DISP_HOLD, DISP_HOLD, 1, 0);
    }
    assert_in_range(days_left_out(h.days), 5000 - 2048, 5000 - 1800);
    add("rule-1", MODE_ENFORCE, DISP_HOLD, DISP_HOLD, 1, 0); /* a known one counts on */
    assert_true(days_left_out(h.days) < 5000 - 1800);
    add("a name that is far longer than any rule's name that people would type, or read",
        MODE_ENFORCE, DISP_HOLD, DISP_HOLD, 1, 0);
}

enum { THREADS = 4, EACH = 20000 };

static void *much_mail(void *arg)
{
    char rule[32];
    (void)arg;
    for (int i = 0; i < EACH; i++) {
        snprintf(rule, sizeof rule, "rule-%d", i % 20);
        add(rule, MODE_MONITOR, DISP_PASS, DISP_HOLD, 1, (uint64_t)i % 2);
    }
    return NULL;
}

static void threads_lose_nothing(void **state)
{
    (void)state;
    pthread_t thread[THREADS];
    uint64_t copies = 0, firsts = 0;
    save(T);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, much_mail, NULL), 0);
    for (int i = 1; i < 10; i++)
        save(T + i * MINUTE);
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    save(T + 20 * MINUTE);
    look(T, T, false);
    assert_int_equal(nseen, 20);
    for (size_t i = 0; i < nseen; i++) {
        copies += seen[i].copies;
        firsts += seen[i].firsts;
    }
    assert_int_equal(copies, THREADS * EACH);
    assert_int_equal(firsts, THREADS * EACH / 2);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, open_house, close_house)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(monitor_and_enforce_are_told_apart_and_added_up),
        TEST(what_no_rule_was_about_comes_from_the_figures),
        TEST(a_restart_loses_nothing),
        TEST(mail_counts_for_the_hour_it_came_in),
        TEST(days_are_summed_up_and_forgotten),
        TEST(too_many_rules_are_counted_as_left_out),
        TEST(threads_lose_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
