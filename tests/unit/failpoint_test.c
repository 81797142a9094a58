/* failpoint_test.c - armed points act when they should and only then. Builds its own copy with
 * failpoints, whatever the library was built with. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/wait.h>

#include <cmocka.h>

#ifndef BREAKWATER_FAILPOINTS
#define BREAKWATER_FAILPOINTS
#endif
#include "failpoint.c" /* for arm(), so that one program can try many specifications */

static void disarm(void)
{
    memset(points, 0, sizeof points);
    npoints = 0;
}

static void points_act_at_their_passing(void **state)
{
    (void)state;
    static const struct {
        const char *specification;
        const char *failures; /* of passings 1 to 4 of point "p": '1' failed */
    } t[] = {
        {"p:fail", "1000"},     {"p:fail:1", "1000"},        {"p:fail:3", "0010"},
        {"p:fail:2+", "0111"},  {"p:off", "0000"},           {"q:fail", "0000"},
        {"p:delay=1", "0000"},  {"q:fail,p:fail:2", "0100"}, {"p:fail:1,p:fail:4", "1001"},
        {"pp:fail:1+", "0000"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        disarm();
        assert_true(arm(t[i].specification));
        char got[5] = "";
        for (int j = 0; j < 4; j++)
            got[j] = FAILPOINT("p") ? '1' : '0';
        assert_string_equal(got, t[i].failures);
    }
}

static void values_are_told_at_every_passing(void **state)
{
    (void)state;
    disarm();
    assert_true(arm("p:value=-300000,q:value=12"));
    for (int i = 0; i < 2; i++) {
        assert_int_equal(FAILPOINT_MS("p"), -300000);
        assert_int_equal(FAILPOINT_MS("q"), 12);
        assert_int_equal(FAILPOINT_MS("r"), 0);
        assert_int_equal(FAILPOINT("p"), 0);
    }
}

static void kill_kills(void **state)
{
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        disarm();
        arm("p:kill:2");
        (void)FAILPOINT("p");
        (void)FAILPOINT("p");
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void what_cannot_be_read_is_refused(void **state)
{
    (void)state;
    static const char *const t[] = {
        "p",         "p:",       ":fail",     "p:explode",   "p:fail:0", "p:fail:",
        "p:fail:x",  "p:delay",  "p:delay=",  "p:delay=-1",  "p:fail,",  "p:fail:1:2",
        "p:fail:-1", "p:value=", "p:value=x", "p:value=--1",
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        disarm();
        if (arm(t[i]))
            fail_msg("'%s' was taken", t[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(points_act_at_their_passing),
        cmocka_unit_test(values_are_told_at_every_passing),
        cmocka_unit_test(kill_kills),
        cmocka_unit_test(what_cannot_be_read_is_refused),
    };
    unsetenv("BREAKWATER_FAILPOINT");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
