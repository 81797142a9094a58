/* alarm_test.c - what people are told: the command (really run, its time virtual), the mail (to
 * tests/e2e/sink.c, in the loop of the test), and how much waits at most. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define SINK_NO_MAIN
#include "../e2e/sink.c"

#include <sys/stat.h>

#include "alarm.h"

static char dir[64];

static int make(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/alarm_test.XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int unmake(void **state)
{
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command);
}

static const char *path(const char *name)
{
    static char text[2][160];
    static unsigned turn;
    char *out = text[turn++ % 2];
    snprintf(out, sizeof text[0], "%s/%s", dir, name);
    return out;
}

static void script(const char *name, const char *text)
{
    FILE *f = fopen(path(name), "w");
    fprintf(f, "#!/bin/sh\ncd %s\n%s", dir, text);
    fclose(f);
    chmod(path(name), 0700);
}

/* What a file holds; it is removed. NULL: it is not there. malloc'd. */
static char *taken(const char *name)
{
    FILE *f = fopen(path(name), "r");
    if (!f)
        return NULL;
    char *text = calloc(1, 100000);
    size_t n = fread(text, 1, 99999, f);
    text[n] = '\0';
    fclose(f);
    unlink(path(name));
    return text;
}

static struct alarm *alarm_with(const char *guard, const char *release)
{
    char text[600], error[512];
    snprintf(text, sizeof text, "node { name = mx1 }\nguard { %s }\nrelease { %s }\n", guard,
             release);
    struct config *c = config_parse("alarm.conf", span_str(text), CONFIG_READ, error);
    if (!c)
        fail_msg("%s", error);
    struct alarm *a = alarm_new(c);
    config_drop(&c);
    return a;
}

static struct alarm *with_command(const char *name)
{
    char guard[200];
    snprintf(guard, sizeof guard, "alarm = \"%s\"", path(name));
    return alarm_with(guard, "");
}

static struct alarm_figures figures(struct alarm *a)
{
    struct alarm_figures f;
    alarm_figures(a, &f);
    return f;
}

/* Ticks at this virtual time until so many commands have ended, well or badly; five real seconds at
 * most. */
static void until_ended(struct alarm *a, int64_t mono, uint64_t n)
{
    for (unsigned i = 0; i < 1000 && figures(a).commands + figures(a).command_failures < n; i++) {
        alarm_tick(a, mono);
        usleep(5000);
    }
    assert_int_equal(figures(a).commands + figures(a).command_failures, n);
}

/* ---- the command ---- */

static void test_the_command_gets_text_and_facts(void **state)
{
    (void)state;
    script("tell", "{ env | grep BREAKWATER_ | sort; echo; cat; } >told\n");
    struct alarm *a = with_command("tell");
    const struct alarm_fact facts[] = {
        {"CAUSE", "holds"}, {"REASON", "$(touch hacked) `x` \"y\""}, {NULL, NULL}};
    alarm_send(a, "the guard went to monitor", "The first line.\nThe second one.\n", facts);
    until_ended(a, 1000, 1);
    char *told = taken("told");
    assert_non_null(told);
    assert_non_null(strstr(told, "BREAKWATER_CAUSE=holds\n"));
    assert_non_null(strstr(told, "BREAKWATER_NODE=mx1\n"));
    assert_non_null(strstr(told, "BREAKWATER_REASON=$(touch hacked) `x` \"y\"\n"));
    assert_non_null(strstr(told, "BREAKWATER_SUBJECT=the guard went to monitor\n"));
    assert_non_null(strstr(told, "BREAKWATER_TIME="));
    assert_non_null(strstr(told, "\n\nThe first line.\nThe second one.\n"));
    free(told);
    assert_int_equal(figures(a).commands, 1);
    assert_int_equal(figures(a).sent, 1);
    alarm_free(&a);
}

static void test_a_long_text_does_not_wait_for_its_reader(void **state)
{
    (void)state;
    script("count", "sleep 0.1; wc -c >told\n");
    struct alarm *a = with_command("count");
    char *text = calloc(1, 300001);
    memset(text, 'x', 300000);
    alarm_send(a, "long", text, NULL);
    until_ended(a, 1000, 1);
    char *told = taken("told");
    assert_int_equal(strtol(told, NULL, 10), 300000);
    free(told);
    free(text);
    alarm_free(&a);
}

static void test_what_cannot_be_run_or_fails_is_counted(void **state)
{
    (void)state;
    struct alarm *a = with_command("missing");
    alarm_send(a, "s", "t\n", NULL);
    until_ended(a, 1000, 1);
    assert_int_equal(figures(a).command_failures, 1);
    alarm_free(&a);
    script("fail", "exit 3\n");
    a = with_command("fail");
    alarm_send(a, "s", "t\n", NULL);
    until_ended(a, 1000, 1);
    assert_int_equal(figures(a).command_failures, 1);
    alarm_free(&a);
}

/* A process that nobody has reaped yet does not. */
static bool lives(const char *pid)
{
    char name[64], state = 'Z';
    snprintf(name, sizeof name, "/proc/%ld/stat", strtol(pid, NULL, 10));
    FILE *f = fopen(name, "r");
    if (!f)
        return false;
    if (fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
        state = 'Z';
    fclose(f);
    return state != 'Z' && state != 'X';
}

static void test_one_that_hangs_is_killed_with_its_children_and_the_next_runs(void **state)
{
    (void)state;
    script("hang", "[ -e hung ] && exit 0\nsleep 1000 &\necho $! >child\ntouch hung\nsleep 1000\n");
    struct alarm *a = with_command("hang");
    alarm_send(a, "s", "t\n", NULL);
    alarm_send(a, "s", "t\n", NULL);
    for (unsigned i = 0; i < 400 && access(path("hung"), F_OK) != 0; i++) {
        alarm_tick(a, 1000 + i);
        usleep(5000);
    }
    alarm_tick(a, 30999);
    assert_int_equal(figures(a).command_failures, 0); /* not yet, and never two at once */
    until_ended(a, 31001, 1);
    assert_int_equal(figures(a).command_failures, 1);
    char *child = taken("child");
    for (unsigned i = 0; i < 1000 && lives(child); i++)
        usleep(5000);
    assert_false(lives(child));
    free(child);
    until_ended(a, 31002, 2);
    assert_int_equal(figures(a).commands, 1);
    unlink(path("hung"));
    alarm_free(&a);
}

static void test_ten_at_once_then_one_each_two_minutes_and_sixteen_wait(void **state)
{
    (void)state;
    script("note", "echo >>notes\n");
    struct alarm *a = with_command("note");
    for (unsigned i = 0; i < 30; i++)
        alarm_send(a, "s", "t\n", NULL);
    assert_int_equal(figures(a).dropped, 14);
    until_ended(a, 1000, 10);
    for (unsigned i = 0; i < 50; i++) {
        alarm_tick(a, 120000);
        usleep(1000);
    }
    assert_int_equal(figures(a).commands, 10);
    until_ended(a, 1000 + 120000, 11);
    alarm_free(&a);
}

static void test_without_a_command_it_is_a_log_line(void **state)
{
    (void)state;
    struct alarm *a = alarm_with("", "");
    alarm_send(a, "s", "t\n", NULL);
    alarm_report(a, "s", "t\n", NULL);
    alarm_send(NULL, "s", "t\n", NULL);
    alarm_tick(a, 1000);
    assert_int_equal(figures(a).sent, 1); /* a report is no alarm */
    assert_int_equal(figures(a).commands, 0);
    alarm_free(&a);
}

/* ---- the mail ---- */

struct stage {
    struct event_base *base;
    struct mailbox *home;
    struct sink *sink;
    struct event *watchdog;
    struct alarm *alarm;
    char *rule, *mail, from[100], to[100];
    unsigned delivered;
};

static void delivered(void *arg, const struct sink_message *m)
{
    struct stage *st = arg;
    free(st->mail);
    st->mail = strndup((const char *)m->data.p, m->data.n);
    st->delivered++;
    event_base_loopbreak(st->base);
}

static void bark(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what, (void)arg;
    fail_msg("hangs");
}

static void open_stage(struct stage *st, const char *rule)
{
    char release[200];
    memset(st, 0, sizeof *st);
    st->base = event_base_new();
    st->home = mailbox_new(st->base);
    st->sink = sink_new(st->base, "127.0.0.1:0");
    st->sink->transcript = evbuffer_new();
    st->sink->deliver = delivered;
    st->sink->arg = st;
    if (rule)
        assert_true(sink_rule_add(st->sink, st->rule = strdup(rule)));
    st->watchdog = evtimer_new(st->base, bark, NULL);
    event_add(st->watchdog, &(struct timeval){20, 0});
    snprintf(release, sizeof release, "to = \"%s\"", st->sink->address);
    st->alarm = alarm_with("mail_to = \"postmaster@own.example\"", release);
    alarm_join(st->alarm, st->base, st->home);
}

static void close_stage(struct stage *st)
{
    alarm_leave(st->alarm);
    mailbox_free(&st->home);
    alarm_free(&st->alarm);
    event_free(st->watchdog);
    event_base_loop(st->base, EVLOOP_NONBLOCK); /* the sink sees that we are gone */
    evconnlistener_free(st->sink->listener);
    evbuffer_free(st->sink->transcript);
    free(st->sink->rules);
    free(st->sink);
    event_base_free(st->base);
    free(st->rule);
    free(st->mail);
}

static void test_the_mail_says_who_wrote_it_and_that_nobody_may_answer(void **state)
{
    static const char *const parts[] = {"From: breakwater <breakwater@mx1>\r\n",
                                        "To: <postmaster@own.example>\r\n",
                                        "Subject: [breakwater mx1] the guard went to monitor\r\n",
                                        "Auto-Submitted: auto-generated\r\n",
                                        "Message-ID: <",
                                        "\r\nDate: ",
                                        "\r\n\r\nThe reason.\r\nSecond line ??.\r\n"};
    struct stage st;
    (void)state;
    open_stage(&st, NULL);
    alarm_send(st.alarm, "the guard went to monitor", "The reason.\nSecond line \xc3\xa9.\n", NULL);
    event_base_dispatch(st.base);
    assert_int_equal(st.delivered, 1);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!strstr(st.mail, parts[i]))
            fail_msg("not there: %s\n%s", parts[i], st.mail);
    close_stage(&st);
}

static void test_lines_end_before_they_are_too_long(void **state)
{
    struct stage st;
    char text[3000] = "";
    (void)state;
    open_stage(&st, NULL);
    memset(text, 'x', 2500);
    alarm_report(st.alarm, "a\r\nBcc: b@b.example", text, NULL);
    event_base_dispatch(st.base);
    assert_non_null(strstr(st.mail, "Subject: [breakwater mx1] a??Bcc: b@b.example\r\n"));
    for (const char *p = st.mail, *end; (end = strstr(p, "\r\n")); p = end + 2)
        assert_true(end - p <= 998);
    close_stage(&st);
}

static void end_loop(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    event_base_loopbreak(arg);
}

/* Runs the loop until the alarm's figures say so. */
static void until_failed(struct stage *st, uint64_t n)
{
    while (figures(st->alarm).mail_failures < n)
        event_base_once(st->base, -1, EV_TIMEOUT, end_loop, st->base, &(struct timeval){0, 10000}),
            event_base_dispatch(st->base);
}

static void test_a_deferral_is_tried_again_a_refusal_is_not(void **state)
{
    struct stage st;
    (void)state;
    open_stage(&st, "rcpt=450 4.2.1 later");
    alarm_send(st.alarm, "s", "t\n", NULL);
    until_failed(&st, 1);
    alarm_leave(st.alarm);
    alarm_free(&st.alarm); /* says that one was not told */
    st.alarm = alarm_with("", "");
    close_stage(&st);

    open_stage(&st, "rcpt=550 5.1.1 nobody");
    alarm_send(st.alarm, "s", "t\n", NULL);
    until_failed(&st, 1);
    assert_int_equal(st.delivered, 0);
    assert_int_equal(figures(st.alarm).mail_failures, 1);
    close_stage(&st);
}

static void test_what_was_sent_before_the_desk_stood_is_mailed_then(void **state)
{
    struct stage st;
    (void)state;
    open_stage(&st, NULL);
    alarm_leave(st.alarm);
    alarm_send(st.alarm, "early", "t\n", NULL);
    alarm_join(st.alarm, st.base, st.home);
    event_base_dispatch(st.base);
    assert_non_null(strstr(st.mail, "early"));
    close_stage(&st);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_a_command_it_is_a_log_line),
        cmocka_unit_test(test_the_command_gets_text_and_facts),
        cmocka_unit_test(test_a_long_text_does_not_wait_for_its_reader),
        cmocka_unit_test(test_what_cannot_be_run_or_fails_is_counted),
        cmocka_unit_test(test_one_that_hangs_is_killed_with_its_children_and_the_next_runs),
        cmocka_unit_test(test_ten_at_once_then_one_each_two_minutes_and_sixteen_wait),
        cmocka_unit_test(test_the_mail_says_who_wrote_it_and_that_nobody_may_answer),
        cmocka_unit_test(test_lines_end_before_they_are_too_long),
        cmocka_unit_test(test_a_deferral_is_tried_again_a_refusal_is_not),
        cmocka_unit_test(test_what_was_sent_before_the_desk_stood_is_mailed_then),
    };
    log_open("stderr", LOG_NOTHING);
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, make, unmake);
}
