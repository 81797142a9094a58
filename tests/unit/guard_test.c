/* guard_test.c - when the guard steps back, how far, and what it does to the connections: on
 * virtual time, both sides of each border. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "guard.h"

enum { SECOND = 1000, MINUTE = 60 * SECOND, START = 1000 * 1000 };

static const struct guard_limits defaults = {
    .added = 60000,
    .queue = 10000,
    .growth = 1000,
    .holds = 50,
    .hold_share = 0.01,
    .loops = 200,
    .replyall = 1000,
    .pingpong = 200,
    .refused_share = 0.05,
    .downstream_factor = 2,
    .downstream_share = 0.05,
    .least = 20,
    .own = 2000,
    .connections = 2000,
};

/* A site with 10,000 messages in 10 minutes and nothing wrong. */
static const struct guard_reading healthy = {
    .messages_10m = 10000,
    .messages_1m = 1000,
    .added_avg_10m = 40,
    .own_p99_1m = 12,
    .refused_10m = 10,
    .downstream_10m = 10000,
    .downstream_errors_10m = 100,
    .downstream_1h = 60000,
    .downstream_errors_1h = 600,
    .held = 400,
    .held_growth_5m = 3,
    .harmful_10m = 2,
    .added_avg_1m = 40,
    .own_p99_10s = 12,
    .downstream_1m = 1000,
    .downstream_errors_1m = 10,
};

/* A guard, the world it looks at, and what it did. */
struct play {
    struct guard guard;
    struct guard_limits limits;
    struct guard_reading reading;
    enum mode mode;
    unsigned in_use, limit; /* limit: 0: as configured */
    int64_t now;
    struct guard_action last; /* the last with anything in it */
    unsigned alarms, raises;
};

static struct play play_new(enum mode mode)
{
    return (struct play){
        .limits = defaults, .reading = healthy, .mode = mode, .in_use = 390, .now = START};
}

static void take(struct play *p, const struct guard_action *a)
{
    if (a->lower != MODE_COUNT) {
        if (guard_rank(a->lower) >= guard_rank(p->mode))
            p->raises++; /* or did nothing, which is as wrong */
        p->mode = a->lower;
    }
    if (a->govern)
        p->limit = a->connections;
    p->alarms += a->alarm;
    if (a->lower != MODE_COUNT || a->alarm || a->govern)
        p->last = *a;
}

/* A look each second. */
static void run(struct play *p, int64_t ms)
{
    for (int64_t end = p->now + ms; p->now < end; p->now += SECOND) {
        struct guard_action a;
        guard_step(&p->guard, &p->limits, &p->reading, p->mode, p->in_use, p->now, &a);
        take(p, &a);
    }
}

/* ---- each trigger ---- */

static void latency(struct guard_reading *r, double ms)
{
    r->added_avg_10m = r->added_avg_1m = ms;
}

static void own(struct guard_reading *r, double ms)
{
    r->own_p99_1m = r->own_p99_10s = ms;
}

#define SET(...) __VA_ARGS__
#define TRIGGER(name_, cause_, good_, bad_)                                                        \
    static void name_##_good(struct guard_reading *r)                                              \
    {                                                                                              \
        good_;                                                                                     \
    }                                                                                              \
    static void name_##_bad(struct guard_reading *r)                                               \
    {                                                                                              \
        bad_;                                                                                      \
    }
TRIGGER(minute, GUARD_LATENCY, latency(r, 60000), latency(r, 60001))
TRIGGER(queue, GUARD_QUEUE, SET(r->held = 10000; r->held_growth_5m = 5000),
        SET(r->held = 10001; r->held_growth_5m = 1001))
TRIGGER(growth, GUARD_QUEUE, SET(r->held = 50000; r->held_growth_5m = 1000),
        SET(r->held = 50000; r->held_growth_5m = 1001))
TRIGGER(shrink, GUARD_QUEUE, SET(r->held = 50000; r->held_growth_5m = -20000),
        SET(r->held = 50000; r->held_growth_5m = 20000))
TRIGGER(holds, GUARD_HOLDS, r->harmful_10m = 50, r->harmful_10m = 51)
TRIGGER(hold_share, GUARD_HOLDS, SET(r->messages_10m = 3000; r->harmful_10m = 30),
        SET(r->messages_10m = 3000; r->harmful_10m = 31))
TRIGGER(few_holds, GUARD_HOLDS, SET(r->messages_10m = 12; r->harmful_10m = 10),
        SET(r->messages_10m = 12; r->harmful_10m = 11))
TRIGGER(refused, GUARD_REFUSALS, r->refused_10m = 500, r->refused_10m = 501)
TRIGGER(few_refused, GUARD_REFUSALS, SET(r->messages_10m = 30; r->refused_10m = 19),
        SET(r->messages_10m = 30; r->refused_10m = 20))
TRIGGER(five_percent, GUARD_DOWNSTREAM, r->downstream_errors_10m = 499,
        r->downstream_errors_10m = 500)
TRIGGER(doubled, GUARD_DOWNSTREAM,
        SET(r->downstream_errors_1h = 6000; r->downstream_errors_10m = 1999),
        SET(r->downstream_errors_1h = 6000; r->downstream_errors_10m = 2000))
TRIGGER(few_errors, GUARD_DOWNSTREAM, SET(r->downstream_10m = 25; r->downstream_errors_10m = 19),
        SET(r->downstream_10m = 25; r->downstream_errors_10m = 20))
TRIGGER(first_hour, GUARD_DOWNSTREAM,
        SET(r->downstream_1h = r->downstream_errors_1h = 0; r->downstream_errors_10m = 499),
        SET(r->downstream_1h = r->downstream_errors_1h = 0; r->downstream_errors_10m = 500))
TRIGGER(balance, GUARD_BALANCE, r->unaccounted = 0, r->unaccounted = 1)
TRIGGER(own, GUARD_OWN, own(r, 2000), own(r, 2001))
TRIGGER(own_few, GUARD_OWN, SET(r->messages_1m = 4; own(r, 9000)),
        SET(r->messages_1m = 5; own(r, 9000)))
TRIGGER(latency_few, GUARD_LATENCY, SET(r->messages_10m = 4; latency(r, 90000)),
        SET(r->messages_10m = 5; latency(r, 90000)))

static const struct {
    const char *name;
    void (*good)(struct guard_reading *), (*bad)(struct guard_reading *);
    enum guard_cause cause;
    int64_t after; /* ms it has to be bad */
} triggers[] = {
    {"more than a minute on average of 10", minute_good, minute_bad, GUARD_LATENCY, 0},
    {"10,000 held are no trigger, however they grow", queue_good, queue_bad, GUARD_QUEUE, 0},
    {"many held, and they grow by more than 1,000", growth_good, growth_bad, GUARD_QUEUE, 0},
    {"a queue that shrinks fast is no trigger", shrink_good, shrink_bad, GUARD_QUEUE, 0},
    {"the 51st hold", holds_good, holds_bad, GUARD_HOLDS, 0},
    {"1 % of the mail, where that is less", hold_share_good, hold_share_bad, GUARD_HOLDS, 0},
    {"10 holds are allowed whatever their share", few_holds_good, few_holds_bad, GUARD_HOLDS, 0},
    {"more than 5 % refused by us", refused_good, refused_bad, GUARD_REFUSALS, 0},
    {"19 refusals are few, whatever their share", few_refused_good, few_refused_bad, GUARD_REFUSALS,
     0},
    {"5 % refused behind, 1 % before", five_percent_good, five_percent_bad, GUARD_DOWNSTREAM, 0},
    {"twice as many as the hour before", doubled_good, doubled_bad, GUARD_DOWNSTREAM, 0},
    {"19 errors are few", few_errors_good, few_errors_bad, GUARD_DOWNSTREAM, 0},
    {"in the first hour 5 %", first_hour_good, first_hour_bad, GUARD_DOWNSTREAM, 0},
    {"one recipient unaccounted for, two minutes", balance_good, balance_bad, GUARD_BALANCE,
     2 * MINUTE},
    {"p99 of our own reply above 2 s for a minute", own_good, own_bad, GUARD_OWN, MINUTE},
    {"5 messages are enough for p99", own_few_good, own_few_bad, GUARD_OWN, MINUTE},
    {"and for the average", latency_few_good, latency_few_bad, GUARD_LATENCY, 0},
};

static void test_both_sides_of_each_trigger(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof triggers / sizeof *triggers; i++) {
        struct play p = play_new(MODE_ENFORCE);
        print_message("%s\n", triggers[i].name);
        run(&p, MINUTE);
        triggers[i].good(&p.reading);
        run(&p, 15 * MINUTE);
        assert_int_equal(p.mode, MODE_ENFORCE);
        assert_int_equal(p.alarms, 0);
        triggers[i].bad(&p.reading);
        run(&p, triggers[i].after);
        assert_int_equal(p.mode, MODE_ENFORCE);
        run(&p, 5 * SECOND);
        assert_int_equal(p.mode, MODE_MONITOR);
        assert_int_equal(p.alarms, 1);
    }
}

/* Strangers may have sent it, as much as they like. */
static void test_what_detectors_speak_for_is_no_trigger(void **state)
{
    (void)state;
    struct play p = play_new(MODE_ENFORCE);
    p.reading.loops_10m = p.reading.replyall_10m = 1000000;
    p.reading.pingpong_10m = p.reading.floods_10m = 1000000;
    run(&p, 40 * MINUTE);
    assert_int_equal(p.mode, MODE_ENFORCE);
    assert_int_equal(p.alarms, 0);
}

static void test_a_cap_is_told_and_changes_nothing(void **state)
{
    static const struct {
        enum guard_cause cause;
        const char *name, *words;
    } cases[] = {
        {GUARD_LOOPS, "loop", "messages in loops beyond 7 in 10 minutes pass"},
        {GUARD_REPLYALL, "reply-all", "replies to all beyond 7 in 10 minutes pass"},
        {GUARD_PINGPONG, "ping-pong", "automatic answers beyond 7 in 10 minutes pass"},
        {GUARD_FLOODS, "flood", "messages of floods, and copies that cannot be held, beyond 7"},
    };
    unsigned capped = 0;
    (void)state;
    for (unsigned c = 0; c < GUARD_CAUSES; c++)
        capped += guard_caps((enum guard_cause)c);
    assert_int_equal(capped, sizeof cases / sizeof *cases);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct guard_action a;
        guard_cap(cases[i].cause, 7, &a);
        assert_true(guard_caps(cases[i].cause));
        assert_string_equal(guard_cause_name(cases[i].cause), cases[i].name);
        assert_true(a.alarm && a.lower == MODE_COUNT && !a.govern);
        assert_int_equal(a.cause, cases[i].cause);
        assert_non_null(strstr(a.reason, cases[i].words));
    }
}

static void test_the_reason_is_a_sentence_with_its_numbers(void **state)
{
    static const struct {
        void (*bad)(struct guard_reading *);
        const char *words;
    } cases[] = {
        {minute_bad, "delayed by 60.0 s on average over 10 minutes, the limit is 60.0 s"},
        {queue_bad, "10001 copies are held and 1001 more"},
        {holds_bad,
         "51 copies that are no further copies were held in 10 minutes, the limit is 50"},
        {hold_share_bad, "the limit is 30"},
        {refused_bad, "refused 501 of 10000 messages in 10 minutes (5.0 %)"},
        {doubled_bad,
         "2000 of 10000 messages in the last 10 minutes (20 %), in the hour before 10 %"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct play p = play_new(MODE_ENFORCE);
        cases[i].bad(&p.reading);
        run(&p, SECOND);
        if (!strstr(p.last.reason, cases[i].words))
            print_message("%s\n", p.last.reason);
        assert_non_null(strstr(p.last.reason, cases[i].words));
    }
}

static void test_zero_switches_a_trigger_off(void **state)
{
    (void)state;
    struct play p = play_new(MODE_ENFORCE);
    p.limits = (struct guard_limits){.connections = 2000};
    for (size_t i = 0; i < sizeof triggers / sizeof *triggers; i++)
        if (triggers[i].cause != GUARD_BALANCE) /* nobody wants to lose mail */
            triggers[i].bad(&p.reading);
    run(&p, 40 * MINUTE);
    assert_int_equal(p.mode, MODE_ENFORCE);
    assert_int_equal(p.alarms, 0);
}

static void test_how_many_holds_are_allowed(void **state)
{
    static const struct {
        unsigned holds;
        double share;
        uint64_t messages, allowed;
    } cases[] = {
        {50, 0.01, 0, 10},    {50, 0.01, 1000, 10},    {50, 0.01, 1100, 11},
        {50, 0.01, 5000, 50}, {50, 0.01, 1000000, 50}, {5, 0.01, 1000000, 5},
        {50, 0, 0, 50},       {0, 0.01, 100000, 1000}, {0, 0, 100000, UINT64_MAX},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct guard_limits l = {.holds = cases[i].holds, .hold_share = cases[i].share};
        assert_int_equal(guard_holds_allowed(&l, cases[i].messages), cases[i].allowed);
    }
}

/* ---- how far ---- */

static void test_what_monitor_cures_stops_there(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof triggers / sizeof *triggers; i++) {
        enum guard_cause c = triggers[i].cause;
        if (c == GUARD_LATENCY || c == GUARD_DOWNSTREAM || c == GUARD_OWN)
            continue;
        struct play p = play_new(MODE_ENFORCE);
        triggers[i].bad(&p.reading);
        run(&p, 5 * MINUTE);
        p.reading.held_growth_5m = 0; /* nothing is held any more */
        run(&p, 60 * MINUTE);
        assert_int_equal(p.mode, MODE_MONITOR);
        assert_int_equal(p.alarms, 1);
    }
}

static void test_what_stays_bad_goes_on_to_bypass(void **state)
{
    static const enum guard_cause causes[] = {GUARD_LATENCY, GUARD_DOWNSTREAM, GUARD_OWN};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct play p = play_new(MODE_ENFORCE);
        latency(&p.reading, causes[i] == GUARD_LATENCY ? 60001 : 5);
        own(&p.reading, causes[i] == GUARD_OWN ? 2001 : 5);
        if (causes[i] == GUARD_DOWNSTREAM) {
            p.reading.downstream_errors_10m = 5000;
            p.reading.downstream_errors_1m = 500;
        }
        run(&p, (causes[i] == GUARD_OWN ? MINUTE : 0) + SECOND);
        assert_int_equal(p.mode, MODE_MONITOR);
        run(&p, MINUTE - SECOND);
        assert_int_equal(p.mode, MODE_MONITOR);
        run(&p, 2 * SECOND); /* fewest connections first ... */
        assert_int_equal(p.limit, 100);
        run(&p, 3 * SECOND); /* ... within 5 s of the trigger bypass */
        assert_int_equal(p.mode, MODE_BYPASS);
        assert_int_equal(p.last.cause, causes[i]);
        assert_int_equal(p.alarms, 2);
    }
}

static void test_a_cure_shows_in_the_last_minute_first(void **state)
{
    (void)state;
    struct play p = play_new(MODE_ENFORCE);
    latency(&p.reading, 90000);
    run(&p, 30 * SECOND);
    assert_int_equal(p.mode, MODE_MONITOR);
    p.reading.added_avg_1m = 40; /* the average of 10 minutes is bad for long */
    run(&p, 9 * MINUTE);
    assert_int_equal(p.mode, MODE_MONITOR);
    p.reading.added_avg_10m = 40;
    run(&p, 60 * MINUTE);
    assert_int_equal(p.mode, MODE_MONITOR);
}

static void test_without_mail_nothing_is_worse(void **state)
{
    (void)state;
    struct play p = play_new(MODE_ENFORCE);
    latency(&p.reading, 90000);
    run(&p, SECOND);
    p.reading.messages_1m = 0;
    run(&p, 4 * MINUTE);
    assert_int_equal(p.mode, MODE_MONITOR);
}

static void test_in_monitor_from_the_beginning_the_same_leads_to_bypass(void **state)
{
    (void)state;
    struct play p = play_new(MODE_MONITOR);
    latency(&p.reading, 60001);
    run(&p, MINUTE);
    assert_int_equal(p.mode, MODE_MONITOR);
    run(&p, 6 * SECOND);
    assert_int_equal(p.mode, MODE_BYPASS);
}

static void test_one_slow_moment_is_no_minute(void **state)
{
    (void)state;
    struct play p = play_new(MODE_ENFORCE);
    own(&p.reading, 9000);
    run(&p, 11 * SECOND);
    p.reading.own_p99_10s = 12; /* the last minute's stays bad for long */
    run(&p, MINUTE);
    assert_int_equal(p.mode, MODE_ENFORCE);
    p.reading.own_p99_10s = 9000; /* now and then no mail: that is neither good nor bad */
    run(&p, 30 * SECOND);
    p.reading.own_p99_10s = 0;
    run(&p, 20 * SECOND);
    p.reading.own_p99_10s = 9000;
    run(&p, 9 * SECOND);
    assert_int_equal(p.mode, MODE_ENFORCE);
    run(&p, 5 * SECOND);
    assert_int_equal(p.mode, MODE_MONITOR);
}

static void test_a_trip_between_two_looks(void **state)
{
    static const struct {
        enum mode before, after;
        bool alarm;
    } cases[] = {{MODE_ENFORCE, MODE_MONITOR, true},
                 {MODE_MONITOR, MODE_MONITOR, false},
                 {MODE_BYPASS, MODE_BYPASS, false}};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct guard_action a;
        struct play p = play_new(cases[i].before);
        run(&p, SECOND);
        guard_trip(&p.guard, GUARD_HOLDS, 50, p.now, &a);
        take(&p, &a);
        run(&p, MINUTE);
        assert_int_equal(p.mode, cases[i].after);
        assert_int_equal(p.alarms, cases[i].alarm);
    }
}

/* ---- up again: a person ---- */

static void test_a_person_steps_up_and_the_same_counts_anew_only_after_it_was_good(void **state)
{
    (void)state;
    struct play p = play_new(MODE_ENFORCE);
    p.reading.refused_10m = 501;
    run(&p, MINUTE);
    assert_int_equal(p.mode, MODE_MONITOR);
    p.mode = MODE_ENFORCE; /* the last ten minutes are still bad */
    run(&p, 9 * MINUTE);
    assert_int_equal(p.mode, MODE_ENFORCE);
    p.reading.refused_10m = 500;
    run(&p, SECOND);
    p.reading.refused_10m = 501;
    run(&p, SECOND);
    assert_int_equal(p.mode, MODE_MONITOR);
    assert_int_equal(p.alarms, 2); /* the first one is dealt with */
}

static void test_or_after_the_window_it_is_measured_in(void **state)
{
    (void)state;
    struct play p = play_new(MODE_ENFORCE);
    p.reading.refused_10m = 501;
    run(&p, MINUTE);
    p.mode = MODE_ENFORCE;
    run(&p, 10 * MINUTE);
    assert_int_equal(p.mode, MODE_ENFORCE);
    run(&p, 5 * SECOND);
    assert_int_equal(p.mode, MODE_MONITOR);
}

static void test_another_cause_counts_at_once(void **state)
{
    (void)state;
    struct play p = play_new(MODE_ENFORCE);
    p.reading.refused_10m = 501;
    run(&p, MINUTE);
    p.mode = MODE_ENFORCE;
    run(&p, SECOND);
    p.reading.harmful_10m = 51;
    run(&p, SECOND);
    assert_int_equal(p.mode, MODE_MONITOR);
    assert_int_equal(p.last.cause, GUARD_HOLDS);
}

static void test_who_is_told_of_a_broken_balance_is_told_once(void **state)
{
    (void)state;
    struct play p = play_new(MODE_ENFORCE);
    p.reading.unaccounted = 3;
    run(&p, 60 * MINUTE);
    assert_int_equal(p.mode, MODE_MONITOR);
    assert_int_equal(p.alarms, 1);
    p.mode = MODE_ENFORCE;
    run(&p, 60 * MINUTE);
    assert_int_equal(p.mode, MODE_ENFORCE);
    p.reading.unaccounted = 4;
    run(&p, 3 * MINUTE);
    assert_int_equal(p.mode, MODE_MONITOR);
    p.reading.unaccounted = 9; /* nowhere to step to that helps; but somebody must know */
    run(&p, 20 * MINUTE);
    assert_int_equal(p.mode, MODE_MONITOR);
    assert_int_equal(p.alarms, 3);
}

/* ---- connections ---- */

static void test_connections_step_down_and_up(void **state)
{
    (void)state;
    struct play p = play_new(MODE_ENFORCE);
    p.limits.connections = 400;
    latency(&p.reading, 30000); /* half of the trigger is none */
    run(&p, 10 * MINUTE);
    assert_int_equal(p.limit, 0);
    latency(&p.reading, 30001);
    static const unsigned down[] = {350, 300, 250, 200, 200};
    for (size_t i = 0; i < 5; i++) {
        run(&p, SECOND);
        assert_int_equal(p.limit, down[i]);
        run(&p, 5 * MINUTE - SECOND);
        assert_int_equal(p.limit, down[i]);
    }
    latency(&p.reading, 40);
    static const unsigned up[] = {250, 300, 350, 0, 0}; /* 0: as configured */
    for (size_t i = 0; i < 5; i++) {
        run(&p, SECOND);
        assert_int_equal(p.limit, up[i]);
        run(&p, 5 * MINUTE - SECOND);
        assert_int_equal(p.limit, up[i]);
    }
    assert_int_equal(p.mode, MODE_ENFORCE);
    assert_int_equal(p.alarms, 0);
}

static void test_the_first_step_begins_at_what_is_in_use(void **state)
{
    static const struct {
        unsigned configured, in_use, first;
    } cases[] = {{2000, 390, 350}, {2000, 1990, 1950}, {2000, 5000, 1950}, {2000, 12, 200},
                 {150, 100, 150},  {60, 60, 60},       {0, 500, 0}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct play p = play_new(MODE_ENFORCE);
        p.limits.connections = cases[i].configured;
        p.in_use = cases[i].in_use;
        latency(&p.reading, 31000);
        run(&p, 10 * SECOND);
        assert_int_equal(p.limit, cases[i].first);
    }
}

static void test_half_of_the_queue_trigger_presses_too(void **state)
{
    (void)state;
    struct play p = play_new(MODE_ENFORCE);
    p.reading.held = 5001;
    p.reading.held_growth_5m = 500;
    run(&p, 5 * SECOND);
    assert_int_equal(p.limit, 0);
    p.reading.held_growth_5m = 501;
    run(&p, 5 * SECOND);
    assert_int_equal(p.limit, 350);
}

/* 001: 20 minutes at the floor without getting better, then 100, then all of it. */
static void test_still_bad_at_the_floor_is_a_full_roll_back(void **state)
{
    (void)state;
    struct play p = play_new(MODE_ENFORCE);
    p.limits.connections = 300;
    latency(&p.reading, 45000);
    run(&p, 5 * MINUTE + SECOND); /* 250, 200 */
    assert_int_equal(p.limit, 200);
    run(&p, 20 * MINUTE - SECOND);
    assert_int_equal(p.limit, 200);
    assert_int_equal(p.mode, MODE_ENFORCE);
    run(&p, SECOND);
    assert_int_equal(p.limit, 100);
    assert_int_equal(p.mode, MODE_MONITOR);
    run(&p, 15 * MINUTE);
    assert_int_equal(p.mode, MODE_BYPASS);
    assert_int_equal(p.last.cause == GUARD_FLOOR || p.last.govern, true);
    run(&p, 60 * MINUTE); /* out of the way: they come back whatever the mail does */
    assert_int_equal(p.limit, 0);
}

static void test_better_before_the_last_step_stays_in_monitor(void **state)
{
    (void)state;
    struct play p = play_new(MODE_ENFORCE);
    p.limits.connections = 300;
    latency(&p.reading, 45000);
    run(&p, 26 * MINUTE);
    assert_int_equal(p.limit, 100);
    latency(&p.reading, 40);
    run(&p, 5 * MINUTE);
    assert_int_equal(p.limit, 150);
    run(&p, 60 * MINUTE);
    assert_int_equal(p.limit, 0);
    assert_int_equal(p.mode, MODE_MONITOR);
}

/* ---- whatever the readings are ---- */

static uint64_t seed = 12345;
static uint64_t any(uint64_t below)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (seed >> 33) % below;
}

static void invent(struct guard_reading *r)
{
    *r = (struct guard_reading){.messages_10m = any(20000),
                                .messages_1m = any(2000),
                                .added_avg_10m = (double)any(120000),
                                .own_p99_1m = (double)any(5000),
                                .refused_10m = any(3) ? 0 : any(3000),
                                .downstream_10m = any(20000),
                                .downstream_errors_10m = any(3) ? 0 : any(4000),
                                .downstream_1h = any(100000),
                                .downstream_errors_1h = any(10000),
                                .held = any(30000),
                                .held_growth_5m = (int64_t)any(4000) - 2000,
                                .harmful_10m = any(4) ? 0 : any(80),
                                .loops_10m = any(1100),
                                .replyall_10m = any(5000),
                                .pingpong_10m = any(1100),
                                .floods_10m = any(5000),
                                .unaccounted = any(5) ? 0 : (int64_t)any(5),
                                .added_avg_1m = (double)any(120000),
                                .own_p99_10s = (double)any(5000),
                                .downstream_1m = any(2000),
                                .downstream_errors_1m = any(400)};
}

/* When the alarms about a cause and a mode were. */
struct diary {
    int64_t alarmed[GUARD_CAUSES][MODE_COUNT];
    int64_t last_began; /* 100 connections, and no better since */
};

static void check_step(struct play *p, struct diary *d, bool person)
{
    struct guard_action a;
    if (person) {
        p->mode = MODE_ENFORCE;
        memset(d, 0, sizeof *d);
    }
    enum mode before = p->mode;
    guard_step(&p->guard, &p->limits, &p->reading, p->mode, p->in_use, p->now, &a);
    take(p, &a);
    assert_int_equal(p->raises, 0);
    if (a.alarm) {
        int64_t *at = &d->alarmed[a.cause][p->mode];
        assert_true(*at == 0 || p->now - *at >= 10 * MINUTE);
        assert_true(a.cause != GUARD_NONE && *a.reason);
        *at = p->now;
    }
    assert_false(guard_caps(a.cause));
    assert_true(a.lower == MODE_COUNT || a.alarm); /* nobody steps back in silence */
    assert_true(!a.govern || a.connections <= p->limits.connections);
    assert_true(!a.govern || a.connections == 0 || a.connections >= 100 ||
                a.connections == p->limits.connections);
    assert_true(!(before == MODE_ENFORCE && p->mode == MODE_BYPASS)); /* one step at a time */
    if (!p->guard.last || p->mode == MODE_BYPASS)
        d->last_began = 0;
    else if (!d->last_began)
        d->last_began = p->now;
    assert_true(!d->last_began || p->now - d->last_began <= 15 * MINUTE);
}

static void test_properties_of_any_readings(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 60; round++) {
        struct play p = play_new(any(2) ? MODE_ENFORCE : MODE_MONITOR);
        struct diary d = {0};
        p.limits.connections = (unsigned)any(3) ? (unsigned)any(3000) : 0;
        for (unsigned s = 0; s < 7200; s++, p.now += SECOND) {
            if (any(100 * (1 + round % 8)) == 0)
                invent(&p.reading);
            p.in_use = (unsigned)any(2500);
            check_step(&p, &d, any(2000) == 0);
        }
    }
}

static void test_healthy_mail_is_left_alone(void **state)
{
    (void)state;
    struct play p = play_new(MODE_ENFORCE);
    run(&p, 600 * MINUTE);
    assert_int_equal(p.mode, MODE_ENFORCE);
    assert_int_equal(p.alarms, 0);
    assert_int_equal(p.limit, 0);
}

static void test_figures_say_which_is_over(void **state)
{
    (void)state;
    struct guard_figure f[GUARD_FIGURES];
    struct guard_reading r = healthy;
    r.harmful_10m = 51;
    guard_figures(&defaults, &r, f);
    for (size_t i = 0; i < GUARD_FIGURES; i++) {
        assert_int_equal(f[i].bad, f[i].cause == GUARD_HOLDS);
        assert_true(*f[i].what && *f[i].unit && f[i].limit > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_healthy_mail_is_left_alone),
        cmocka_unit_test(test_both_sides_of_each_trigger),
        cmocka_unit_test(test_what_detectors_speak_for_is_no_trigger),
        cmocka_unit_test(test_a_cap_is_told_and_changes_nothing),
        cmocka_unit_test(test_the_reason_is_a_sentence_with_its_numbers),
        cmocka_unit_test(test_zero_switches_a_trigger_off),
        cmocka_unit_test(test_how_many_holds_are_allowed),
        cmocka_unit_test(test_what_monitor_cures_stops_there),
        cmocka_unit_test(test_what_stays_bad_goes_on_to_bypass),
        cmocka_unit_test(test_a_cure_shows_in_the_last_minute_first),
        cmocka_unit_test(test_without_mail_nothing_is_worse),
        cmocka_unit_test(test_in_monitor_from_the_beginning_the_same_leads_to_bypass),
        cmocka_unit_test(test_one_slow_moment_is_no_minute),
        cmocka_unit_test(test_a_trip_between_two_looks),
        cmocka_unit_test(test_a_person_steps_up_and_the_same_counts_anew_only_after_it_was_good),
        cmocka_unit_test(test_or_after_the_window_it_is_measured_in),
        cmocka_unit_test(test_another_cause_counts_at_once),
        cmocka_unit_test(test_who_is_told_of_a_broken_balance_is_told_once),
        cmocka_unit_test(test_connections_step_down_and_up),
        cmocka_unit_test(test_the_first_step_begins_at_what_is_in_use),
        cmocka_unit_test(test_half_of_the_queue_trigger_presses_too),
        cmocka_unit_test(test_still_bad_at_the_floor_is_a_full_roll_back),
        cmocka_unit_test(test_better_before_the_last_step_stays_in_monitor),
        cmocka_unit_test(test_figures_say_which_is_over),
        cmocka_unit_test(test_properties_of_any_readings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
