/* keeper_test.c - jobs: groups, failures, order, replies in the thread that sent them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "id.h"
#include "keeper.h"

static char dir[64];
static struct keeper *keeper;

static int make(void **state)
{
    (void)state;
    char error[512];
    strcpy(dir, "/tmp/keeper_test.XXXXXX");
    assert_non_null(mkdtemp(dir));
    keeper = keeper_start(dir, error);
    assert_non_null(keeper);
    return 0;
}

static int unmake(void **state)
{
    (void)state;
    keeper_stop(&keeper);
    static const char *const names[] = {"hold.db", "hold.db-wal", "hold.db-shm"};
    for (size_t i = 0; i < 3; i++) {
        char path[128];
        snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(dir), 0);
    return 0;
}

/* A job that writes one setting, and is told to fail or not. */
struct note {
    struct job job; /* must be first */
    char name[16], value[16];
    int want;
    pthread_t done_in;
    struct event_base *loop; /* ended by the last */
    int *order, at;
};

static int run_note(struct hold *hold, struct job *job)
{
    struct note *n = (struct note *)job;
    if (hold_setting_set(hold, n->name, n->value))
        return -1;
    return n->want;
}

static void note_done(struct job *job)
{
    struct note *n = (struct note *)job;
    n->done_in = pthread_self();
    n->at = (*n->order)++;
    if (n->loop)
        event_base_loopbreak(n->loop);
}

static void check_setting(const char *name, const char *want)
{
    char value[16], error[512];
    struct hold *view = hold_open(dir, false, NULL, error);
    assert_non_null(view);
    int rc = hold_setting_get(view, name, value, sizeof(value));
    assert_int_equal(rc, want ? 0 : -1);
    if (want)
        assert_string_equal(value, want);
    hold_close(&view);
}

/* More jobs than one group takes; every 50th fails alone; replies come here, in order. */
static void test_groups(void **state)
{
    (void)state;
    enum { N = 1200 };
    struct event_base *base = event_base_new();
    struct mailbox *home = mailbox_new(base);
    struct note *n = calloc(N, sizeof(*n));
    int order = 0;
    for (int i = 0; i < N; i++) {
        n[i] = (struct note){.job = {.run = run_note, .done = note_done, .home = home},
                             .want = i % 50 == 7 ? -1 : i,
                             .order = &order};
        snprintf(n[i].name, sizeof(n[i].name), "n%d", i);
        snprintf(n[i].value, sizeof(n[i].value), "%d", i);
    }
    n[N - 1].loop = base;
    for (int i = 0; i < N; i++)
        keeper_submit(keeper, &n[i].job);
    event_base_loop(base, EVLOOP_NO_EXIT_ON_EMPTY);
    for (int i = 0; i < N; i++) {
        assert_int_equal(n[i].job.result, n[i].want);
        assert_int_equal(n[i].at, i);
        assert_true(pthread_equal(n[i].done_in, pthread_self()));
    }
    check_setting("n6", "6");
    check_setting("n7", NULL);
    check_setting("n8", "8");
    check_setting("n1199", "1199");
    struct keeper_figures f;
    keeper_figures(keeper, &f);
    assert_int_equal(f.jobs, N);
    assert_int_equal(f.waiting, 0);
    assert_int_equal(f.failures, N / 50);
    assert_true(f.commits >= 3 && f.commits < N);
    assert_false(f.damaged);
    mailbox_free(&home);
    event_base_free(base);
    free(n);
}

/* What was submitted before the stop is done and durable after it; without a home, on the keeper's
 * own thread. */
static void test_stop_finishes(void **state)
{
    (void)state;
    enum { N = 700 };
    struct note *n = calloc(N, sizeof(*n));
    int order = 0;
    for (int i = 0; i < N; i++) {
        n[i] = (struct note){.job = {.run = run_note, .done = note_done}, .order = &order};
        snprintf(n[i].name, sizeof(n[i].name), "n%d", i);
        strcpy(n[i].value, "x");
        keeper_submit(keeper, &n[i].job);
    }
    keeper_stop(&keeper);
    assert_null(keeper);
    assert_int_equal(order, N);
    assert_false(pthread_equal(n[0].done_in, pthread_self()));
    check_setting("n699", "x");
    free(n);
}

static void on_tick(void *arg)
{
    int *end = arg;
    ssize_t n = write(*end, "", 1);
    assert_int_equal(n, 1);
}

static void test_tick_when_idle(void **state)
{
    (void)state;
    int ends[2];
    char c;
    assert_int_equal(pipe(ends), 0);
    keeper_on_tick(keeper, on_tick, &ends[1]);
    assert_int_equal(read(ends[0], &c, 1), 1);
    keeper_stop(&keeper);
    close(ends[0]);
    close(ends[1]);
}

/* Waiting for a tick each time, it would take ten seconds. */
static void test_hurry(void **state)
{
    (void)state;
    struct timespec begin, done;
    int ends[2];
    char c;
    assert_int_equal(pipe(ends), 0);
    keeper_on_tick(keeper, on_tick, &ends[1]);
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int i = 0; i < 40; i++) {
        keeper_hurry(keeper);
        assert_int_equal(read(ends[0], &c, 1), 1);
    }
    clock_gettime(CLOCK_MONOTONIC, &done);
    assert_true(done.tv_sec - begin.tv_sec < 8);
    keeper_stop(&keeper);
    close(ends[0]);
    close(ends[1]);
}

/* Submits a job each time. */
static unsigned submitted, done;

static int run_nothing(struct hold *hold, struct job *job)
{
    (void)hold, (void)job;
    return -1; /* as on a disk that fails */
}

static void count_done(struct job *job)
{
    done++;
    free(job);
}

static void submit_one(void *arg)
{
    struct job *job = calloc(1, sizeof *job);
    (void)arg;
    job->run = run_nothing;
    job->done = count_done;
    submitted++;
    keeper_submit(keeper, job);
}

static void test_tick_while_stopping(void **state)
{
    (void)state;
    char error[512];
    submitted = done = 0;
    for (int i = 0; i < 40; i++) {
        keeper_on_tick(keeper, submit_one, NULL);
        keeper_hurry(keeper);
        usleep((useconds_t)i * 20);
        keeper_stop(&keeper);
        assert_int_equal(done, submitted);
        keeper = keeper_start(dir, error);
        assert_non_null(keeper);
    }
    assert_true(submitted > 0);
}

static void test_refusal(void **state)
{
    (void)state;
    char error[512] = "";
    assert_null(keeper_start("/nonexistent", error));
    assert_non_null(strstr(error, "/nonexistent"));
    assert_null(keeper_start(dir, error)); /* this one has it */
    assert_non_null(strstr(error, "another breakwaterd uses "));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, make, unmake)
    const struct CMUnitTest tests[] = {
        T(test_groups), T(test_stop_finishes),       T(test_tick_when_idle),
        T(test_hurry),  T(test_tick_while_stopping), T(test_refusal)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
