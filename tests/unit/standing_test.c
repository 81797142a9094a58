/* standing_test.c - what a relay is held to be: every state with every event, and the borders. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "standing.h"

static const struct standing_times times = {.probation = 300, .suspect = 70, .memory = 4000};

enum { NOW = 1000000 };

#define CLEAN STANDING_CLEAN
#define SUSPECT STANDING_SUSPECT
#define BAD STANDING_MISBEHAVING
#define SAID STANDING_SAID_FIXED
#define PROBATION STANDING_PROBATION

static void every_state_meets_every_event(void **state)
{
    (void)state;
    static const struct {
        const char *sentence;
        enum standing_state from;
        bool was;
        enum standing_event event;
        enum standing_state to;
        unsigned relapses;
    } t[] = {
        {"the first further copy makes a suspect", CLEAN, 0, STANDING_BLAMED, SUSPECT, 0},
        {"a conviction needs no suspicion before", CLEAN, 0, STANDING_CONVICTED, BAD, 0},
        {"one forgotten that is convicted again relapsed", CLEAN, 1, STANDING_CONVICTED, BAD, 1},
        {"one forgotten is a suspect like any other", CLEAN, 1, STANDING_BLAMED, SUSPECT, 0},
        {"nothing is to be fixed at a clean one", CLEAN, 0, STANDING_SAID, CLEAN, 0},
        {"nothing is to be taken back either", CLEAN, 1, STANDING_UNSAID, CLEAN, 0},
        {"mail does nothing to a clean one", CLEAN, 0, STANDING_MAIL, CLEAN, 0},
        {"time does nothing to a clean one", CLEAN, 1, STANDING_TIME, CLEAN, 0},
        {"a suspect stays one", SUSPECT, 0, STANDING_BLAMED, SUSPECT, 0},
        {"a suspect is convicted", SUSPECT, 0, STANDING_CONVICTED, BAD, 0},
        {"a suspect convicted before relapsed", SUSPECT, 1, STANDING_CONVICTED, BAD, 1},
        {"a suspicion cannot be fixed", SUSPECT, 0, STANDING_SAID, SUSPECT, 0},
        {"mail does not clear a suspect", SUSPECT, 0, STANDING_MAIL, SUSPECT, 0},
        {"it goes on", BAD, 1, STANDING_BLAMED, BAD, 0},
        {"and on", BAD, 1, STANDING_CONVICTED, BAD, 0},
        {"a person says it is fixed", BAD, 1, STANDING_SAID, SAID, 0},
        {"what was not said cannot be taken back", BAD, 1, STANDING_UNSAID, BAD, 0},
        {"mail does not clear it", BAD, 1, STANDING_MAIL, BAD, 0},
        {"said again changes nothing", SAID, 1, STANDING_SAID, SAID, 0},
        {"it was not fixed: at once", SAID, 1, STANDING_BLAMED, BAD, 1},
        {"it was not fixed, convicted", SAID, 1, STANDING_CONVICTED, BAD, 1},
        {"taken back is no relapse", SAID, 1, STANDING_UNSAID, BAD, 0},
        {"its first mail begins the probation", SAID, 1, STANDING_MAIL, PROBATION, 0},
        {"more mail changes nothing", PROBATION, 1, STANDING_MAIL, PROBATION, 0},
        {"one further copy ends the probation", PROBATION, 1, STANDING_BLAMED, BAD, 1},
        {"so does a conviction", PROBATION, 1, STANDING_CONVICTED, BAD, 1},
        {"said again does not end it", PROBATION, 1, STANDING_SAID, PROBATION, 0},
        {"taken back in probation", PROBATION, 1, STANDING_UNSAID, BAD, 0},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct standing s = {
            .state = t[i].from, .was = t[i].was, .since = NOW - 9, .seen = NOW - 9};
        bool changed = standing_step(&s, t[i].event, NOW, &times);
        bool copy = t[i].event == STANDING_BLAMED || t[i].event == STANDING_CONVICTED;
        if (s.state != t[i].to || changed != (t[i].from != t[i].to) ||
            s.relapses != t[i].relapses || s.since != (changed ? NOW : NOW - 9) ||
            s.seen != (copy ? NOW : NOW - 9))
            fail_msg("%s: became %s, %u relapses", t[i].sentence, standing_name(s.state),
                     s.relapses);
    }
}

static void time_heals_at_its_border(void **state)
{
    (void)state;
    static const struct {
        enum standing_state state;
        int64_t since, seen, now; /* before NOW; after NOW */
        bool clean;
    } t[] = {{SUSPECT, 500, 70, 0, true},      {SUSPECT, 500, 69, 0, false},
             {BAD, 9000, 4000, 0, true},       {BAD, 9000, 3999, 0, false},
             {SAID, 4000, 9000, 0, true},      {SAID, 3999, 9000, 0, false},
             {PROBATION, 300, 9000, 0, true},  {PROBATION, 299, 9000, 0, false},
             {CLEAN, 9000, 9000, 99999, false}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct standing s = {
            .state = t[i].state, .was = true, .since = NOW - t[i].since, .seen = NOW - t[i].seen};
        if (standing_step(&s, STANDING_TIME, NOW + t[i].now, &times) != t[i].clean ||
            s.state != (t[i].clean ? CLEAN : t[i].state))
            fail_msg("row %zu: %s", i, standing_name(s.state));
    }
}

static void a_story(void **state)
{
    (void)state;
    struct standing s = {0};
    assert_true(standing_step(&s, STANDING_BLAMED, 10, &times));
    assert_false(standing_known(&s));
    assert_true(standing_step(&s, STANDING_CONVICTED, 20, &times));
    assert_true(standing_known(&s));
    assert_true(standing_step(&s, STANDING_SAID, 30, &times));
    assert_int_equal(s.said, 30);
    assert_true(standing_known(&s));
    assert_true(standing_step(&s, STANDING_MAIL, 40, &times));
    assert_true(standing_known(&s));
    assert_true(standing_step(&s, STANDING_BLAMED, 50, &times));
    assert_int_equal(s.state, BAD);
    assert_true(standing_step(&s, STANDING_SAID, 60, &times));
    assert_true(standing_step(&s, STANDING_MAIL, 70, &times));
    assert_false(standing_step(&s, STANDING_TIME, 369, &times));
    assert_true(standing_step(&s, STANDING_TIME, 370, &times));
    assert_false(standing_known(&s));
    assert_true(standing_step(&s, STANDING_CONVICTED, 500, &times));
    assert_int_equal(s.relapses, 2);
    assert_int_equal(s.seen, 500);
}

static void a_copy_seen_late_is_no_step_back(void **state)
{
    (void)state;
    struct standing s = {.state = BAD, .was = true, .seen = NOW};
    standing_step(&s, STANDING_BLAMED, NOW - 5, &times);
    assert_int_equal(s.seen, NOW);
}

static void names_go_there_and_back(void **state)
{
    (void)state;
    enum standing_state s;
    for (unsigned i = 0; i < STANDING_STATES; i++) {
        assert_true(standing_find(standing_name((enum standing_state)i), &s));
        assert_int_equal(s, i);
    }
    assert_false(standing_find("fixed", &s));
    assert_false(standing_find("", &s));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_state_meets_every_event),
        cmocka_unit_test(time_heals_at_its_border),
        cmocka_unit_test(a_story),
        cmocka_unit_test(a_copy_seen_late_is_no_step_back),
        cmocka_unit_test(names_go_there_and_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
