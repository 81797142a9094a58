/* watch_test.c - the guard at work: the budget of the mail path, what is lowered, told, kept and
 * forgiven; on virtual time, with figures of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "id.h"
#include "watch.h"

enum { SECOND = 1000, MINUTE = 60 * SECOND, NOON = 43200 * SECOND };

/* A watch over two listeners, and whom it works with. */
struct stage {
    struct config *config;
    struct rulebook *book;
    struct keeper *keeper;
    struct watch *watch;
    char dir[64];
    int64_t mono;
    struct guard_reading reading;
    unsigned alarms, governed, governs;
    char subject[200], text[1000], cause[32];
};

static void heard(void *arg, const char *subject, const char *text, const struct guard_action *a,
                  enum mode in_force)
{
    struct stage *st = arg;
    (void)in_force;
    st->alarms++;
    snprintf(st->subject, sizeof st->subject, "%s", subject);
    snprintf(st->text, sizeof st->text, "%s", text);
    snprintf(st->cause, sizeof st->cause, "%s", guard_cause_name(a->cause));
}

static void governed(void *arg, unsigned connections)
{
    struct stage *st = arg;
    st->governs++;
    st->governed = connections;
}

static unsigned in_use(void *arg)
{
    (void)arg;
    return 400;
}

static struct config *configure(const char *guard)
{
    char text[600], error[512];
    snprintf(text, sizeof text,
             "milter one { socket = \"unix:/a\" }\n"
             "smtp two { socket = \"unix:/b\" downstream = \"unix:/c\" }\n"
             "limits { connections = 500 }\nguard { %s }\n",
             guard);
    struct config *c = config_parse("watch.conf", span_str(text), CONFIG_READ, error);
    if (!c)
        fail_msg("%s", error);
    return c;
}

static void begin_watch(struct stage *st)
{
    struct watch_hands hands = {.rules = st->book,
                                .keeper = st->keeper,
                                .arg = st,
                                .govern = governed,
                                .in_use = in_use,
                                .alarm = heard};
    char error[512];
    bool damaged;
    struct hold *view = st->keeper ? hold_open(st->dir, false, &damaged, error) : NULL;
    st->watch = watch_new(st->config, &hands, view);
    hold_close(&view);
}

static void open_stage(struct stage *st, const char *guard)
{
    memset(st, 0, sizeof *st);
    st->config = configure(guard);
    struct rules *rules = rules_copy(NULL);
    rules->mode = MODE_ENFORCE;
    st->book = rulebook_new(rules);
    st->mono = 5 * MINUTE;
    st->reading = (struct guard_reading){.messages_10m = 100000, .messages_1m = 10000};
    begin_watch(st);
}

static void close_stage(struct stage *st)
{
    if (st->keeper)
        keeper_stop(&st->keeper);
    watch_free(&st->watch);
    rulebook_free(&st->book);
    config_drop(&st->config);
}

/* A look each second. */
static void pass(struct stage *st, int64_t ms)
{
    for (int64_t end = st->mono + ms; st->mono < end;) {
        st->mono += SECOND;
        watch_tick(st->watch, &st->reading, NOON + st->mono, st->mono);
    }
}

static enum mode mode_of(struct stage *st, const char *listener)
{
    struct rules *r = rulebook_take(st->book);
    enum mode mode = rules_mode(r, listener);
    rules_drop(&r);
    return mode;
}

static void set_mode(struct stage *st, const char *listener, enum mode mode)
{
    rulebook_lock(st->book);
    struct rules *old = rulebook_take(st->book), *fresh = rules_copy(old);
    if (listener)
        rules_set_mode(fresh, listener, mode);
    else
        fresh->mode = mode;
    rulebook_put(st->book, fresh);
    rules_drop(&old);
    rulebook_unlock(st->book);
}

/* What the document says, as text: state, and cause of the trip in force. */
static void assert_state(struct stage *st, const char *state, const char *cause)
{
    json_t *j = watch_document(st->watch);
    assert_string_equal(json_get_str(j, "state"), state);
    assert_string_equal(json_get_str(json_object_get(j, "trip"), "cause"), cause);
    json_decref(j);
}

/* ---- the budget ---- */

static void test_the_limit_is_exact(void **state)
{
    static const struct {
        const char *guard;
        enum watch_kind kind;
        unsigned limit;
        const char *cause;
    } cases[] = {
        {"", WATCH_RULES, 50, "holds"},
        {"hold_share = 0 holds = 7", WATCH_RULES, 7, "holds"},
        {"holds = 0 hold_share = 1%", WATCH_RULES, 1000, "holds"},
        {"", WATCH_REFUSALS, 5000, "refusals"},
        {"refused_share = 0.1%", WATCH_REFUSALS, 200, "refusals"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct stage st;
        open_stage(&st, cases[i].guard);
        pass(&st, 2 * SECOND);
        for (unsigned n = 0; n < cases[i].limit; n++)
            assert_true(watch_may_hold(st.watch, cases[i].kind, 1));
        pass(&st, 2 * SECOND);
        assert_int_equal(mode_of(&st, "one"), MODE_ENFORCE);
        assert_false(watch_may_hold(st.watch, cases[i].kind, 1));
        assert_int_equal(mode_of(&st, "one"), MODE_MONITOR); /* before anybody looks */
        assert_int_equal(mode_of(&st, "two"), MODE_MONITOR);
        pass(&st, SECOND);
        assert_state(&st, "tripped", cases[i].cause);
        assert_int_equal(st.alarms, 1);
        assert_string_equal(st.cause, cases[i].cause);
        close_stage(&st);
    }
}

/* What the document says of a cause. */
static json_t *trigger(struct stage *st, const char *cause)
{
    json_t *j = watch_document(st->watch), *t, *found = NULL;
    size_t i;
    json_array_foreach(json_object_get(j, "triggers"), i, t)
    {
        if (strcmp(json_get_str(t, "cause"), cause) == 0)
            found = json_incref(t);
    }
    json_decref(j);
    assert_non_null(found);
    return found;
}

static void assert_capped(struct stage *st, const char *cause, int64_t since)
{
    json_t *t = trigger(st, cause), *j = watch_document(st->watch);
    assert_int_equal(json_ms(json_object_get(t, "capped_since")), since);
    assert_string_equal(json_get_str(t, "beyond"), "capped");
    assert_int_equal(json_array_size(json_object_get(j, "capped")), since != 0);
    json_decref(t);
    json_decref(j);
    assert_state(st, "watching", "");
}

static void test_what_a_detector_speaks_for_passes_beyond_its_limit(void **state)
{
    static const struct {
        const char *guard;
        enum watch_kind kind;
        unsigned limit;
        const char *cause, *words;
    } cases[] = {
        {"", WATCH_LOOPS, 200, "loop", "messages in loops beyond 200 in 10 minutes pass"},
        {"loops = 7", WATCH_LOOPS, 7, "loop", "beyond 7 in 10 minutes pass"},
        {"", WATCH_REPLYALL, 1000, "reply-all", "replies to all beyond 1000 in 10 minutes pass"},
        {"pingpong = 3", WATCH_PINGPONG, 3, "ping-pong", "automatic answers beyond 3"},
        {"", WATCH_FLOODS, 5000, "flood", "beyond 5000 in 10 minutes pass"},
        {"refused_share = 0.1%", WATCH_FLOODS, 200, "flood", "beyond 200 in 10 minutes pass"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct stage st;
        open_stage(&st, cases[i].guard);
        pass(&st, 2 * SECOND);
        assert_true(watch_may_hold(st.watch, cases[i].kind, cases[i].limit));
        pass(&st, 2 * SECOND);
        assert_capped(&st, cases[i].cause, 0);
        for (unsigned n = 0; n < 5; n++)
            assert_false(watch_may_hold(st.watch, cases[i].kind, 1));
        pass(&st, SECOND);
        int64_t since = NOON + st.mono;
        assert_capped(&st, cases[i].cause, since);
        assert_int_equal(st.alarms, 1);
        assert_string_equal(st.cause, cases[i].cause);
        assert_non_null(strstr(st.text, cases[i].words));
        /* rules and the other kinds go on */
        assert_true(watch_may_hold(st.watch, WATCH_RULES, 50));
        assert_true(watch_may_refuse(st.watch, WATCH_REFUSALS));
        for (unsigned n = 0; n < 590; n++) { /* and it goes on passing: told once */
            assert_false(watch_may_hold(st.watch, cases[i].kind, 1));
            pass(&st, SECOND);
        }
        assert_capped(&st, cases[i].cause, since);
        assert_int_equal(st.alarms, 1);
        pass(&st, 15 * SECOND); /* room again, but not for long enough to say so */
        assert_capped(&st, cases[i].cause, since);
        assert_true(watch_may_hold(st.watch, cases[i].kind, cases[i].limit));
        assert_false(watch_may_hold(st.watch, cases[i].kind, 1));
        pass(&st, SECOND);
        assert_int_equal(st.alarms, 2);
        pass(&st, 11 * MINUTE);
        assert_capped(&st, cases[i].cause, 0);
        assert_true(watch_may_hold(st.watch, cases[i].kind, cases[i].limit));
        assert_int_equal(mode_of(&st, "one"), MODE_ENFORCE);
        assert_int_equal(mode_of(&st, "two"), MODE_ENFORCE);
        close_stage(&st);
    }
}

static void test_zero_caps_nothing(void **state)
{
    struct stage st;
    (void)state;
    open_stage(&st, "loops = 0 replyall = 0 pingpong = 0 refused_share = 0");
    pass(&st, SECOND);
    for (unsigned k = WATCH_LOOPS; k <= WATCH_FLOODS; k++)
        assert_true(watch_may_hold(st.watch, (enum watch_kind)k, 1000000));
    close_stage(&st);
}

static void test_before_the_first_look_it_is_the_least(void **state)
{
    struct stage st;
    (void)state;
    open_stage(&st, "");
    assert_true(watch_may_hold(st.watch, WATCH_RULES, 10));
    assert_false(watch_may_hold(st.watch, WATCH_RULES, 1));
    close_stage(&st);
}

static void test_a_message_to_many_is_held_for_all_or_none(void **state)
{
    struct stage st;
    (void)state;
    open_stage(&st, "");
    pass(&st, SECOND);
    assert_true(watch_may_hold(st.watch, WATCH_RULES, 40));
    assert_false(watch_may_hold(st.watch, WATCH_RULES, 11));
    assert_false(watch_may_hold(st.watch, WATCH_RULES, 1)); /* nothing any more */
    assert_false(watch_may_hold(st.watch, WATCH_REPLYALL, 1));
    struct watch_figures f;
    watch_figures(st.watch, &f);
    assert_int_equal(f.passed, 13);
    close_stage(&st);
}

static void test_no_watch_and_no_copies_are_no_question(void **state)
{
    struct stage st;
    (void)state;
    assert_true(watch_may_hold(NULL, WATCH_RULES, 1000));
    open_stage(&st, "");
    assert_true(watch_may_hold(st.watch, WATCH_RULES, 10));
    assert_true(watch_may_hold(st.watch, WATCH_RULES, 0));
    close_stage(&st);
}

static void test_the_limit_holds_for_any_ten_minutes(void **state)
{
    struct stage st;
    (void)state;
    open_stage(&st, "");
    pass(&st, 30 * SECOND);
    for (unsigned i = 0; i < 200; i++) { /* five an hour's tenth: 50 each ten minutes, for long */
        assert_true(watch_may_hold(st.watch, WATCH_RULES, 1));
        pass(&st, 12 * SECOND + SECOND);
    }
    assert_int_equal(mode_of(&st, "one"), MODE_ENFORCE);
    pass(&st, 11 * MINUTE);
    assert_true(watch_may_hold(st.watch, WATCH_RULES, 50));
    pass(&st, 9 * MINUTE + 58 * SECOND);
    assert_false(watch_may_hold(st.watch, WATCH_RULES, 1));
    close_stage(&st);

    open_stage(&st, "");
    pass(&st, 30 * SECOND);
    assert_true(watch_may_hold(st.watch, WATCH_RULES, 50));
    pass(&st, 10 * MINUTE + 2 * SECOND);
    assert_true(watch_may_hold(st.watch, WATCH_RULES, 50));
    close_stage(&st);
}

struct crowd {
    struct watch *watch;
    unsigned tries;
    _Atomic unsigned held;
};

static void *hold_much(void *arg)
{
    struct crowd *c = arg;
    for (unsigned i = 0; i < c->tries; i++)
        if (watch_may_hold(c->watch, WATCH_RULES, 1))
            atomic_fetch_add(&c->held, 1);
    return NULL;
}

static void test_of_many_threads_no_more_than_the_limit_get_through(void **state)
{
    enum { THREADS = 8, ROUNDS = 20 };
    struct stage st;
    pthread_t thread[THREADS];
    (void)state;
    open_stage(&st, "");
    pass(&st, SECOND);
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct crowd c = {.watch = st.watch, .tries = 2000};
        for (size_t i = 0; i < THREADS; i++)
            assert_int_equal(pthread_create(&thread[i], NULL, hold_much, &c), 0);
        for (unsigned i = 0; i < 20; i++) /* looks, and people who read, meanwhile */ {
            pass(&st, SECOND);
            json_decref(watch_document(st.watch));
        }
        for (size_t i = 0; i < THREADS; i++)
            pthread_join(thread[i], NULL);
        assert_int_equal(c.held, 50);
        pass(&st, SECOND);
        assert_int_equal(mode_of(&st, "one"), MODE_MONITOR);
        assert_int_equal(st.alarms, round + 1);
        set_mode(&st, NULL, MODE_ENFORCE); /* a person */
        pass(&st, SECOND);
        assert_state(&st, "watching", "");
    }
    close_stage(&st);
}

/* ---- modes ---- */

static void test_only_what_is_higher_is_lowered(void **state)
{
    struct stage st;
    (void)state;
    open_stage(&st, "");
    set_mode(&st, NULL, MODE_BYPASS);
    set_mode(&st, "two", MODE_ENFORCE);
    pass(&st, SECOND);
    assert_true(watch_may_hold(st.watch, WATCH_RULES, 50));
    assert_false(watch_may_hold(st.watch, WATCH_RULES, 1));
    assert_int_equal(mode_of(&st, "two"), MODE_MONITOR);
    assert_int_equal(mode_of(&st, "one"), MODE_BYPASS);
    close_stage(&st);
}

static void test_somebody_changes_the_rules_at_that_moment(void **state)
{
    struct stage st;
    (void)state;
    open_stage(&st, "");
    pass(&st, SECOND);
    rulebook_lock(st.book);
    assert_true(watch_may_hold(st.watch, WATCH_RULES, 50));
    assert_false(watch_may_hold(st.watch, WATCH_RULES, 1)); /* does not wait for the lock */
    assert_int_equal(mode_of(&st, "one"), MODE_ENFORCE);
    assert_false(watch_may_hold(st.watch, WATCH_RULES, 1));
    rulebook_unlock(st.book);
    pass(&st, SECOND);
    assert_int_equal(mode_of(&st, "one"), MODE_MONITOR);
    assert_int_equal(st.alarms, 1);
    close_stage(&st);
}

static void test_a_trigger_lowers_and_a_person_clears_it(void **state)
{
    struct stage st;
    (void)state;
    open_stage(&st, "");
    pass(&st, MINUTE);
    assert_state(&st, "watching", "");
    st.reading.refused_10m = 6000;
    pass(&st, SECOND);
    assert_int_equal(mode_of(&st, "one"), MODE_MONITOR);
    assert_state(&st, "tripped", "refusals");
    assert_string_equal(st.subject, "the guard went to mode monitor");
    assert_non_null(strstr(st.text, "refused 6000 of 100000 messages"));
    assert_non_null(strstr(st.text, "breakwaterctl mode enforce --reason"));
    st.reading.refused_10m = 0;
    pass(&st, MINUTE);
    set_mode(&st, "one", MODE_ENFORCE);
    pass(&st, SECOND);
    assert_state(&st, "watching", "");
    assert_int_equal(st.alarms, 1);
    close_stage(&st);
}

static void test_connections_are_governed_within_what_is_configured(void **state)
{
    struct stage st;
    (void)state;
    open_stage(&st, "");
    st.reading.added_avg_10m = st.reading.added_avg_1m = 31000;
    pass(&st, SECOND);
    assert_int_equal(st.governed, 350);
    st.reading.added_avg_10m = st.reading.added_avg_1m = 0;
    pass(&st, 16 * MINUTE);
    assert_int_equal(st.governed, 0);
    assert_int_equal(st.governs, 4); /* 350, 400, 450, as configured */
    close_stage(&st);
}

static void test_new_limits_count_at_the_next_look(void **state)
{
    struct stage st;
    (void)state;
    open_stage(&st, "");
    st.reading.refused_10m = 4000;
    pass(&st, MINUTE);
    assert_int_equal(mode_of(&st, "one"), MODE_ENFORCE);
    struct config *fresh = configure("refused_share = 3%");
    watch_reload(st.watch, fresh);
    config_drop(&fresh);
    pass(&st, SECOND);
    assert_int_equal(mode_of(&st, "one"), MODE_MONITOR);
    close_stage(&st);
}

/* ---- what is kept ---- */

static void make_place(struct stage *st)
{
    char error[512];
    strcpy(st->dir, "/tmp/watch_test.XXXXXX");
    assert_non_null(mkdtemp(st->dir));
    assert_non_null(st->keeper = keeper_start(st->dir, error));
}

static void remove_place(const char *dir)
{
    DIR *d = opendir(dir);
    for (struct dirent *e; (e = readdir(d));) {
        char path[400];
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (e->d_name[0] != '.')
            unlink(path);
    }
    closedir(d);
    rmdir(dir);
}

static void assert_setting(const char *dir, const char *name, const char *value)
{
    char error[512], text[300];
    bool damaged;
    struct hold *view = hold_open(dir, false, &damaged, error);
    assert_non_null(view);
    assert_int_equal(hold_setting_get(view, name, text, sizeof text), 0);
    assert_string_equal(text, value);
    hold_close(&view);
}

static void test_a_trip_outlives_the_daemon_and_is_cleared_once(void **state)
{
    struct stage st;
    char dir[64];
    (void)state;
    open_stage(&st, "");
    watch_free(&st.watch);
    make_place(&st);
    strcpy(dir, st.dir);
    begin_watch(&st);
    set_mode(&st, "two", MODE_ENFORCE);
    pass(&st, SECOND);
    st.reading.refused_10m = 6000;
    pass(&st, SECOND);
    keeper_stop(&st.keeper); /* finishes what is queued */
    assert_setting(dir, "mode", "monitor");
    assert_setting(dir, "mode.two", "monitor");
    assert_setting(dir, "mode_by", "guard");
    watch_free(&st.watch);

    char error[512];
    assert_non_null(st.keeper = keeper_start(dir, error));
    begin_watch(&st);
    assert_state(&st, "tripped", "refusals");
    pass(&st, 20 * MINUTE);
    assert_state(&st, "tripped", "refusals");
    st.reading.refused_10m = 0;
    set_mode(&st, NULL, MODE_ENFORCE);
    pass(&st, SECOND);
    assert_state(&st, "watching", "");
    keeper_stop(&st.keeper);
    watch_free(&st.watch);

    assert_non_null(st.keeper = keeper_start(dir, error));
    begin_watch(&st);
    pass(&st, SECOND);
    assert_state(&st, "watching", "");
    json_t *j = watch_document(st.watch);
    assert_int_equal(json_array_size(json_object_get(j, "trips")), 1);
    json_decref(j);
    close_stage(&st);
    remove_place(dir);
}

static void test_raised_between_two_lives_is_raised(void **state)
{
    struct stage st;
    char dir[64], error[512];
    (void)state;
    open_stage(&st, "");
    watch_free(&st.watch);
    make_place(&st);
    strcpy(dir, st.dir);
    begin_watch(&st);
    st.reading.refused_10m = 6000;
    pass(&st, SECOND);
    keeper_stop(&st.keeper);
    watch_free(&st.watch);
    set_mode(&st, NULL, MODE_ENFORCE);
    st.reading.refused_10m = 0;
    assert_non_null(st.keeper = keeper_start(dir, error));
    begin_watch(&st);
    pass(&st, SECOND);
    assert_state(&st, "watching", "");
    close_stage(&st);
    remove_place(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_limit_is_exact),
        cmocka_unit_test(test_what_a_detector_speaks_for_passes_beyond_its_limit),
        cmocka_unit_test(test_zero_caps_nothing),
        cmocka_unit_test(test_before_the_first_look_it_is_the_least),
        cmocka_unit_test(test_a_message_to_many_is_held_for_all_or_none),
        cmocka_unit_test(test_no_watch_and_no_copies_are_no_question),
        cmocka_unit_test(test_the_limit_holds_for_any_ten_minutes),
        cmocka_unit_test(test_of_many_threads_no_more_than_the_limit_get_through),
        cmocka_unit_test(test_only_what_is_higher_is_lowered),
        cmocka_unit_test(test_somebody_changes_the_rules_at_that_moment),
        cmocka_unit_test(test_a_trigger_lowers_and_a_person_clears_it),
        cmocka_unit_test(test_connections_are_governed_within_what_is_configured),
        cmocka_unit_test(test_new_limits_count_at_the_next_look),
        cmocka_unit_test(test_a_trip_outlives_the_daemon_and_is_cleared_once),
        cmocka_unit_test(test_raised_between_two_lives_is_raised),
    };
    log_open("stderr", LOG_NOTHING);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
