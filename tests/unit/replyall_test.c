/*
 * replyall_test.c - the states of a conversation at both sides of every border, and how well storms
 * are told from busy conversations.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <math.h>

#include "conversing.h"
#include "replyall.h"

/* A conversation of a test: its state, and the message written next. */
struct thread {
    _Alignas(16) uint8_t state[STATE_BYTES_MAX];
    struct message message;
    struct envelope envelope;
    struct subject s;
    struct signals signals;
    int64_t now;
};

static struct thread *thread_new(size_t audience)
{
    struct thread *t = arena_zero(arena, sizeof *t);
    t->now = INT64_C(1138000000000);
    t->s = (struct subject){.arena = arena,
                            .site = &site,
                            .keys = &keys,
                            .envelope = &t->envelope,
                            .message = &t->message,
                            .visible = {.n = audience},
                            .talk = {.own = 1, .root = 1}};
    return t;
}

/* One message of it by writer number who. */
static enum replyall_state say(struct thread *t, unsigned who, bool reply, bool noise)
{
    char from[32];
    struct about about[ABOUT_MAX];
    t->s.now = t->now;
    t->s.fp.from = span_of(from, (size_t)snprintf(from, sizeof from, "p%u@a.example", who));
    t->s.talk.reply = reply;
    t->s.talk.noise = noise;
    t->s.talk.nreferences = reply;
    t->signals.replyall = (struct replyall_signals){0};
    if (replyall_detector.about(&t->s, &t->signals, about))
        replyall_detector.step(t->state, &t->s, &about[0], &t->signals);
    return t->signals.replyall.state;
}

/* n noisy replies by as many writers, a second apart. */
static enum replyall_state noise(struct thread *t, unsigned n)
{
    enum replyall_state state = REPLYALL_QUIET;
    for (unsigned i = 0; i < n; i++, t->now += SECOND)
        state = say(t, i, true, true);
    return state;
}

/* With noise need is .6 of 40, 31, 17, 10: borders at 24, 18.6, 10.2, 6. */
static void test_need_depends_on_the_audience(void **state)
{
    (void)state;
    static const struct {
        size_t audience;
        unsigned needed; /* noisy replies that make it a storm */
    } cases[] = {{50, 24}, {100, 19}, {630, 11}, {1000, 9}, {2500, 6}, {10000, 6}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct thread *t = thread_new(cases[i].audience);
        say(t, 99, false, false);
        if (cases[i].audience >= LIMIT_VISIBLE)
            t->s.visible.total = cases[i].audience;
        if (noise(t, cases[i].needed - 1) != REPLYALL_WATCH)
            fail_msg("%zu people: not watched after %u", cases[i].audience, cases[i].needed - 1);
        if (say(t, cases[i].needed, true, true) != REPLYALL_STORM)
            fail_msg("%zu people: no storm after %u", cases[i].audience, cases[i].needed);
    }
}

static void test_first_message_is_no_reply(void **state)
{
    (void)state;
    struct thread *t = thread_new(630);
    assert_int_equal(say(t, 0, false, false), REPLYALL_QUIET);
    assert_true(t->signals.replyall.conversation == 1);
    assert_int_equal(t->signals.replyall.audience, 630);
    assert_false(t->signals.replyall.to_all);
    assert_null(t->signals.replyall.evidence);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(say(t, i, false, true), REPLYALL_QUIET);
}

static void test_few_people_are_not_looked_at(void **state)
{
    (void)state;
    struct thread *t = thread_new(29);
    assert_int_equal(noise(t, 200), REPLYALL_QUIET);
    assert_true(t->signals.replyall.conversation == 0);
    t = thread_new(30);
    assert_int_equal(noise(t, 200), REPLYALL_STORM);
    t = thread_new(1);
    t->envelope.nrecipients = 30; /* the group's members */
    assert_int_equal(noise(t, 200), REPLYALL_STORM);
}

static void test_writers_count_not_messages(void **state)
{
    (void)state;
    struct thread *t = thread_new(630); /* need 10.2: five writers */
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(say(t, i % 3, true, true), REPLYALL_QUIET);
    t = thread_new(630);
    for (unsigned i = 0; i < 100; i++)
        assert_int_not_equal(say(t, i % 4, true, true), REPLYALL_STORM);
    assert_int_equal(t->signals.replyall.state, REPLYALL_WATCH);
    assert_int_equal(say(t, 4, true, true), REPLYALL_STORM);
}

static void test_more_writers_than_are_counted(void **state)
{
    (void)state;
    struct thread *t = thread_new(630);
    for (unsigned i = 0; i < 500; i++, t->now += 10 * SECOND)
        say(t, i, true, true);
    assert_int_equal(t->signals.replyall.state, REPLYALL_STORM);
    assert_true(t->signals.replyall.senders >= 64 && t->signals.replyall.senders <= 128);
}

static void test_talk_needs_two_and_a_half_times_as_much(void **state)
{
    (void)state;
    struct thread *t = thread_new(630); /* need 17; 42.5 */
    for (unsigned i = 0; i < 42; i++)
        assert_int_not_equal(say(t, i, true, false), REPLYALL_STORM);
    assert_int_equal(say(t, 42, true, false), REPLYALL_STORM);
}

static void test_half_of_it_noise_makes_need_enough(void **state)
{
    (void)state;
    struct thread *t = thread_new(630);
    for (unsigned i = 0; i < 16; i++)
        assert_int_not_equal(say(t, i, true, i % 2), REPLYALL_STORM);
    assert_int_not_equal(say(t, 16, true, false), REPLYALL_STORM); /* 8 of 17 */
    assert_int_equal(say(t, 17, true, true), REPLYALL_STORM);      /* 9 of 18 */
}

static void test_lists_need_thrice_as_much(void **state)
{
    (void)state;
    struct thread *t = thread_new(630); /* 30.6 */
    t->s.fp.list_id = SPAN("l.a.example");
    assert_int_equal(noise(t, 30), REPLYALL_WATCH);
    assert_int_equal(say(t, 30, true, true), REPLYALL_STORM);
}

static void test_hour_slides(void **state)
{
    (void)state;
    struct thread *t = thread_new(630);
    for (unsigned i = 0; i < 300; i++, t->now += 10 * MINUTE) /* six an hour, a border at ten */
        assert_int_not_equal(say(t, i, true, true), REPLYALL_STORM);
}

static void test_further_copies_count_nothing(void **state)
{
    (void)state;
    struct thread *t = thread_new(630);
    noise(t, 5);
    t->signals.replication.known = true;
    noise(t, 100);
    assert_int_equal(t->signals.replyall.state, REPLYALL_QUIET);
    assert_true(t->signals.replyall.replies > 4.9 && t->signals.replyall.replies < 5.1);
    t->signals.replication.known = false;
    noise(t, 6);
    t->signals.replication.known = true; /* but they have part in the verdict */
    assert_int_equal(say(t, 7, true, true), REPLYALL_STORM);
    assert_true(t->signals.replyall.to_all);
}

static void test_only_replies_to_all_may_be_held(void **state)
{
    (void)state;
    struct thread *t = thread_new(1000);
    noise(t, 20);
    static const struct {
        size_t audience;
        bool to_all, counts;
    } cases[] = {{1000, true, true},
                 {800, true, true},
                 {799, false, true},
                 {500, false, true},
                 {499, false, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double before = t->signals.replyall.replies;
        t->s.visible.n = cases[i].audience;
        assert_int_equal(say(t, 50, true, true), REPLYALL_STORM);
        assert_int_equal(t->signals.replyall.to_all, cases[i].to_all);
        assert_int_equal(t->signals.replyall.replies > before + .5, cases[i].counts);
    }
    t->s.visible.n = 1000;
    say(t, 50, false, true);
    assert_false(t->signals.replyall.to_all);
}

static void test_storm_ends_after_four_hours(void **state)
{
    (void)state;
    struct thread *t = thread_new(630);
    noise(t, 11);
    int64_t since = t->now - SECOND;
    while (t->now <= since + 4 * HOUR) {
        assert_int_equal(say(t, (unsigned)(t->now / MINUTE % 50), true, true), REPLYALL_STORM);
        t->now += MINUTE;
    }
    t->now = since + 4 * HOUR + 1;
    say(t, 1, false, false); /* time alone ends it; the next reply may begin another */
    assert_int_equal(t->signals.replyall.state, REPLYALL_COOLDOWN);
    assert_int_equal(say(t, 1, true, true), REPLYALL_STORM);
}

static void test_storm_ends_when_it_is_calm(void **state)
{
    (void)state;
    struct thread *t = thread_new(630); /* .3 of 10.2: three replies an hour keep it up */
    noise(t, 11);
    t->now += 2 * HOUR;
    assert_int_equal(say(t, 1, true, true), REPLYALL_STORM);
    t->now += 29 * MINUTE;
    assert_int_equal(say(t, 1, true, true), REPLYALL_STORM);
    t->now += 2 * MINUTE;
    assert_int_equal(say(t, 1, true, true), REPLYALL_COOLDOWN);
    assert_non_null(t->signals.replyall.evidence);
}

static void test_next_storm_needs_half(void **state)
{
    (void)state;
    struct thread *t = thread_new(630);
    noise(t, 11);
    t->now += 4 * HOUR;
    assert_int_equal(noise(t, 4), REPLYALL_COOLDOWN);
    assert_int_equal(say(t, 4, true, true), REPLYALL_COOLDOWN); /* 5 of 5.1 */
    assert_int_equal(say(t, 5, true, true), REPLYALL_STORM);
    t = thread_new(630);
    noise(t, 11);
    t->now += 8 * HOUR; /* over */
    assert_int_equal(noise(t, 5), REPLYALL_QUIET);
    assert_int_equal(say(t, 5, true, true), REPLYALL_WATCH);
}

static void test_watch_ends(void **state)
{
    (void)state;
    struct thread *t = thread_new(630);
    assert_int_equal(noise(t, 6), REPLYALL_WATCH);
    t->now += 3 * HOUR;
    assert_int_equal(say(t, 1, true, true), REPLYALL_QUIET);
    assert_null(t->signals.replyall.evidence);
}

static void test_keys(void **state)
{
    (void)state;
    struct about a[ABOUT_MAX], b[ABOUT_MAX];
    struct thread *t = thread_new(100);
    uint64_t hashes[100];
    for (uint64_t i = 0; i < 100; i++)
        hashes[i] = 1000 + i;
    t->s.visible.hash = hashes;
    t->s.fp.from = SPAN("x@a.example");
    t->s.talk.base_hash = 77;
    /* the first message: itself, and its index */
    assert_int_equal(replyall_detector.about(&t->s, &t->signals, a), 1);
    t->s.talk.index = 55;
    assert_int_equal(replyall_detector.about(&t->s, &t->signals, a), 2);
    assert_true(a[0].key == 1 && a[1].key == 55);
    /* a reply that says neither what it answers nor an index: subject and recipients */
    t->s.talk = (struct conversation){.own = 9, .root = 9, .base_hash = 77, .reply = true};
    assert_int_equal(replyall_detector.about(&t->s, &t->signals, a), 1);
    t->s.fp.from = SPAN("y@a.example");
    t->s.visible.n = 99;
    assert_int_equal(replyall_detector.about(&t->s, &t->signals, b), 1);
    assert_true(a[0].key == b[0].key && a[0].life == 24 * HOUR);
    t->s.talk.base_hash = 78;
    replyall_detector.about(&t->s, &t->signals, b);
    assert_true(a[0].key != b[0].key);
    t->s.talk.base_hash = 77;
    t->s.visible.hash = hashes + 50; /* other people */
    t->s.visible.n = 50;
    replyall_detector.about(&t->s, &t->signals, b);
    assert_true(a[0].key != b[0].key);
}

static void test_worst_state_speaks(void **state)
{
    (void)state;
    struct thread *t = thread_new(630), *other = thread_new(630);
    noise(t, 11);
    say(other, 1, true, true);
    struct about about = {.key = 5};
    t->signals.replyall = (struct replyall_signals){0};
    t->s.now = t->now;
    replyall_detector.step(other->state, &t->s, &about, &t->signals);
    about.key = 6;
    replyall_detector.step(t->state, &t->s, &about, &t->signals);
    assert_int_equal(t->signals.replyall.state, REPLYALL_STORM);
    assert_true(t->signals.replyall.conversation == 6);
}

/* Each answers another message and says no more than that: the subject holds them together. */
static void test_a_storm_has_one_name(void **state)
{
    (void)state;
    struct thread *storm = thread_new(630);
    for (uint64_t i = 0; i < 20; i++) {
        struct thread *one = thread_new(630);
        struct about by_id = {.key = 100 + i}, by_subject = {.key = 6};
        char from[32];
        one->s.now = storm->now + (int64_t)i * SECOND;
        one->s.talk.reply = one->s.talk.noise = true;
        one->s.fp.from = span_of(from, (size_t)sprintf(from, "p%u@a.example", (unsigned)i));
        replyall_detector.step(one->state, &one->s, &by_id, &one->signals);
        assert_true(one->signals.replyall.conversation == 100 + i);
        replyall_detector.step(storm->state, &one->s, &by_subject, &one->signals);
        assert_true(one->signals.replyall.state == REPLYALL_QUIET ||
                    one->signals.replyall.conversation == 6);
        assert_true(i < 10 || one->signals.replyall.state == REPLYALL_STORM);
    }
}

static void test_evidence(void **state)
{
    (void)state;
    struct thread *t = thread_new(630);
    for (unsigned i = 0; i < 23; i++, t->now += SECOND)
        say(t, i % 19, true, i < 14);
    assert_string_equal(t->signals.replyall.evidence,
                        "23 replies to all 630 people of this conversation in the last hour, by 19 "
                        "writers; 14 of them say little");
    t = thread_new(630);
    noise(t, 6);
    assert_string_equal(t->signals.replyall.evidence,
                        "6 replies to all 630 people of this conversation in the last hour, by 6 "
                        "writers; 6 of them say little; a storm begins at 11");
}

/* ---- how well it tells ---- */

static uint64_t seed;
static uint32_t random_below(uint32_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)((seed >> 32) * n >> 32);
}

static double random_share(void)
{
    return (random_below(1u << 31) + .5) / (double)(1u << 31);
}

/* ms between events of a Poisson process, so many a second. */
static int64_t random_gap(double rate)
{
    return (int64_t)(-log(random_share()) / rate * SECOND) + 1;
}

static int compare(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

/* Replies until one storm is seen, of at most 400 in two hours; 0: it never was. Each recipient
 * answers with a small probability; more the more noise there is. */
static int one_storm(size_t audience)
{
    struct thread *t = thread_new(audience);
    t->s.visible.total = audience;
    say(t, 0, false, false);
    int64_t begin = t->now;
    for (int n = 1; n <= 400 && t->now - begin < 2 * HOUR; n++) {
        double rate = (.15 * sqrt((double)audience / 50) + .04 * (n < 41 ? n - 1 : 40)) / 60;
        t->now += random_gap(rate);
        if (say(t, random_below((uint32_t)audience), true, random_below(6) < 5) == REPLYALL_STORM)
            return n;
    }
    return 0;
}

static void test_storms_are_found(void **state)
{
    (void)state;
    static const struct {
        size_t audience;
        int median;
    } cases[] = {{50, 24}, {100, 19}, {630, 11}, {2500, 6}, {10000, 6}};
    enum { TRIALS = 40 };
    seed = 88172645463325252u;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int replies[TRIALS];
        for (int k = 0; k < TRIALS; k++) {
            replies[k] = one_storm(cases[i].audience);
            if (replies[k] == 0)
                fail_msg("a storm among %zu people was not found", cases[i].audience);
        }
        qsort(replies, TRIALS, sizeof *replies, compare);
        if (replies[TRIALS / 2] > cases[i].median)
            fail_msg("%zu people: found after %d replies", cases[i].audience, replies[TRIALS / 2]);
    }
}

/* Colleagues, busy lists, lively discussions without list headers. Returns the worst state. */
static enum replyall_state one_conversation(void)
{
    double kind = random_share();
    uint32_t people = 30 + random_below(90), writers = 5 + random_below(7),
             messages = 15 + random_below(25), gap = 240;
    bool list = false;
    if (kind < .6) {
        people = 5 + random_below(55), writers = 2 + random_below(5);
        messages = 3 + random_below(27), gap = 600;
    } else if (kind < .9) {
        people = 50 + random_below(350), writers = 8 + random_below(22);
        messages = 40 + random_below(80), gap = 800, list = true;
    }
    struct thread *t = thread_new(people);
    t->s.fp.list_id = list ? SPAN("l.a.example") : SPAN("");
    enum replyall_state worst = REPLYALL_QUIET;
    for (uint32_t i = 0; i < messages; i++) {
        t->now += random_gap(1. / gap);
        enum replyall_state s = say(t, random_below(writers), i > 0, random_below(4) == 0);
        worst = s == REPLYALL_STORM || worst == REPLYALL_QUIET ? s : worst;
    }
    return worst;
}

static void test_busy_conversations_are_no_storms(void **state)
{
    (void)state;
    unsigned count[4] = {0};
    seed = 88172645463325252u;
    for (int i = 0; i < 3000; i++) {
        struct arena *kept = arena;
        arena = arena_new();
        count[one_conversation()]++;
        arena_free(&arena);
        arena = kept;
    }
    print_message("3000 busy conversations: %u storms, %u watched\n", count[REPLYALL_STORM],
                  count[REPLYALL_WATCH]);
    assert_true(count[REPLYALL_STORM] <= 2);
    assert_true(count[REPLYALL_WATCH] <= 160 && count[REPLYALL_WATCH] > 0);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, fresh, forget)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_need_depends_on_the_audience),
        CASE(test_first_message_is_no_reply),
        CASE(test_few_people_are_not_looked_at),
        CASE(test_writers_count_not_messages),
        CASE(test_more_writers_than_are_counted),
        CASE(test_talk_needs_two_and_a_half_times_as_much),
        CASE(test_half_of_it_noise_makes_need_enough),
        CASE(test_lists_need_thrice_as_much),
        CASE(test_hour_slides),
        CASE(test_further_copies_count_nothing),
        CASE(test_only_replies_to_all_may_be_held),
        CASE(test_storm_ends_after_four_hours),
        CASE(test_storm_ends_when_it_is_calm),
        CASE(test_next_storm_needs_half),
        CASE(test_watch_ends),
        CASE(test_keys),
        CASE(test_worst_state_speaks),
        CASE(test_a_storm_has_one_name),
        CASE(test_evidence),
        CASE(test_storms_are_found),
        CASE(test_busy_conversations_are_no_storms),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
