/* sharedstates_test.c - two nodes step one state: no step is lost, and without Redis each goes on
 * alone. Detectors and Redis are played by the test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "arena.h"
#include "fake_redis.h"
#include "sharedstates.h"

/* ---- detectors that count ---- */

/* What the message says it touches: keys; 0: nothing. */
static struct {
    uint64_t strict[ABOUT_MAX], loose, own;
    uint64_t first; /* asked for, but not touched once the message is observed */
} touches;

struct counter {
    uint64_t n;
};

static size_t strict_about(const struct subject *s, const struct signals *signals,
                           struct about out[ABOUT_MAX])
{
    size_t n = 0;
    (void)s;
    for (size_t i = 0; i < ABOUT_MAX && touches.strict[i]; i++)
        if (touches.strict[i] != touches.first || !signals->replication.known)
            out[n++] =
                (struct about){.key = touches.strict[i], .shared = ABOUT_STRICTLY, .life = 3600000};
    return n;
}

static size_t own_about(const struct subject *s, const struct signals *signals,
                        struct about out[ABOUT_MAX])
{
    size_t n = 0;
    (void)s, (void)signals;
    if (touches.own)
        out[n++] = (struct about){.key = touches.own, .life = 3600000};
    if (touches.loose)
        out[n++] = (struct about){.key = touches.loose, .shared = ABOUT_LOOSELY, .life = 3600000};
    return n;
}

static void strict_step(void *state, const struct subject *s, const struct about *a,
                        struct signals *signals)
{
    struct counter *c = state;
    (void)s, (void)a;
    c->n++;
    signals->replyall.replies += (double)c->n; /* what all its states say, together */
}

static void own_step(void *state, const struct subject *s, const struct about *a,
                     struct signals *signals)
{
    struct counter *c = state;
    (void)s;
    c->n++;
    if (a->shared == ABOUT_OWN)
        signals->flood.rate = (double)c->n;
    else
        signals->pingpong.flips = (double)c->n;
}

static bool sound(const void *state)
{
    return ((const struct counter *)state)->n < 1000;
}

static const struct detector strict_detector = {.name = "strict",
                                                .state_bytes = sizeof(struct counter),
                                                .state_version = 1,
                                                .state_sound = sound,
                                                .about = strict_about,
                                                .step = strict_step};
static const struct detector own_detector = {.name = "own",
                                             .state_bytes = sizeof(struct counter),
                                             .state_version = 1,
                                             .state_sound = sound,
                                             .about = own_about,
                                             .step = own_step};
const struct detector *const detectors[] = {&strict_detector, &own_detector, NULL};

/* ---- nodes, and messages on them ---- */

struct side {
    struct states *states;
};
struct mail {
    struct arena *arena;
    struct subject subject;
    struct signals signals;
    struct shared_steps *steps;
    bool done;
};

static struct event_base *base;
static struct redis *redis;
static const struct redis_settings settings = {.prefix = (char *)(uintptr_t) "bw", .deadline = 50};
static int64_t now = INT64_C(1700000000000);

static void was_done(void *arg)
{
    ((struct mail *)arg)->done = true;
}

static void ask(struct mail *m, struct side *s)
{
    *m = (struct mail){.arena = arena_new()};
    m->subject.arena = m->arena;
    m->subject.now = now;
    m->steps = shared_steps_ask(redis, &settings, s->states, &m->subject);
}

static void run(void)
{
    event_base_loop(base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
}

static void until_done(struct mail *m)
{
    while (!m->done)
        event_base_loop(base, EVLOOP_ONCE);
}

static void go(struct mail *m, struct side *s)
{
    if (!m->steps) {
        states_step(s->states, &m->subject, &m->signals);
        m->done = true;
    } else {
        m->done = shared_steps_go(m->steps, &m->signals, was_done, m);
    }
}

static void end(struct mail *m)
{
    shared_steps_end(&m->steps);
    arena_free(&m->arena);
}

/* One message from beginning to end; returns what the conversations say. */
static double one(struct side *s)
{
    struct mail m;
    ask(&m, s);
    go(&m, s);
    until_done(&m);
    double said = m.signals.replyall.replies;
    end(&m);
    return said;
}

static struct side a, b;

static int begin(void **state)
{
    (void)state;
    fake_clear();
    base = event_base_new();
    redis = redis_open(base, &settings);
    a.states = states_new(1 << 20);
    b.states = states_new(1 << 20);
    memset(&touches, 0, sizeof touches);
    touches.strict[0] = 5;
    return 0;
}

static int finish(void **state)
{
    (void)state;
    redis_close(&redis);
    states_free(&a.states);
    states_free(&b.states);
    event_base_free(base);
    return 0;
}

static void two_nodes_step_one_state(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++)
        assert_int_equal(one(i % 2 ? &a : &b), i + 1);
    assert_int_equal(fake.gets, 10);
    assert_int_equal(fake.sets, 10);
}

static void who_was_slower_steps_again(void **state)
{
    (void)state;
    struct mail x, y;
    assert_int_equal(one(&a), 1);
    ask(&x, &a);
    ask(&y, &b); /* both read 1 */
    run();
    go(&x, &a);
    go(&y, &b);
    until_done(&x);
    until_done(&y);
    assert_int_equal(x.signals.replyall.replies, 2);
    assert_int_equal(y.signals.replyall.replies, 3);
    assert_int_equal(one(&a), 4);
    end(&x);
    end(&y);
}

/* Of a message that touches two, one is written and the other is not: what was written stays, and
 * the signals are those of the last states. */
static void of_two_states_only_the_late_one_is_written_again(void **state)
{
    (void)state;
    struct mail x, y;
    touches.strict[1] = 6;
    ask(&x, &a);
    touches.strict[0] = 6;
    touches.strict[1] = 0;
    ask(&y, &b);
    go(&y, &b);
    until_done(&y);
    touches.strict[0] = 5;
    touches.strict[1] = 6;
    go(&x, &a);
    until_done(&x);
    assert_int_equal(y.signals.replyall.replies, 1);
    assert_int_equal(x.signals.replyall.replies, 1 + 2);
    assert_int_equal(fake.sets, 3);
    touches.strict[1] = 0;
    assert_int_equal(one(&b), 2);
    end(&x);
    end(&y);
}

static void the_fourth_time_it_gives_up(void **state)
{
    (void)state;
    struct mail x;
    struct shared_steps_figures before, after;
    shared_steps_figures(&before);
    ask(&x, &a);
    run();
    for (int i = 0; i < 3; i++) { /* each time before it writes, and before the answer arrives */
        one(&b);
        if (i == 0)
            go(&x, &a);
        else
            run();
    }
    until_done(&x);
    shared_steps_figures(&after);
    assert_true(after.conflicts - before.conflicts >= 1);
    assert_true(x.signals.replyall.replies >= 1);
    /* the truth is Redis', and nothing of it was lost */
    double n = one(&a);
    assert_true(n == 4 || n == 5);
    end(&x);
}

static void what_a_further_copy_does_not_touch_is_not_stepped(void **state)
{
    (void)state;
    struct mail x;
    touches.first = 5;
    ask(&x, &a);
    x.signals.replication.known = true;
    go(&x, &a);
    assert_true(x.done);
    assert_int_equal(fake.sets, 0);
    assert_int_equal(x.signals.replyall.replies, 0);
    end(&x);
    run();
}

static void what_is_own_stays_and_what_is_loose_is_not_waited_for(void **state)
{
    (void)state;
    struct mail x;
    touches.strict[0] = 0;
    touches.own = 7;
    ask(&x, &a);
    assert_null(x.steps); /* nothing is shared */
    go(&x, &a);
    assert_int_equal(x.signals.flood.rate, 1);
    end(&x);
    assert_int_equal(fake.gets, 0);
    touches.loose = 8;
    for (int i = 1; i <= 4; i++) {
        struct side *s = i % 2 ? &a : &b;
        ask(&x, s);
        run(); /* it is read while the message is observed */
        go(&x, s);
        assert_true(x.done);
        assert_int_equal(x.signals.pingpong.flips, i);
        assert_int_equal(x.signals.flood.rate, i % 2 ? (i + 3) / 2 : i / 2);
        end(&x);
    }
    assert_int_equal(fake.sets, 4);
}

static void without_redis_each_goes_on_alone(void **state)
{
    (void)state;
    for (int i = 1; i <= 4; i++)
        assert_int_equal(one(i % 2 ? &a : &b), i);
    fake.away = true;
    assert_int_equal(one(&a), 4); /* it had seen 3 */
    assert_int_equal(one(&a), 5);
    assert_int_equal(one(&b), 5);
    fake.away = false;
    assert_int_equal(one(&b), 5); /* what Redis has counts: 4, and this one */
    fake.deaf = true;
    assert_int_equal(one(&b), 6); /* at the deadline */
    fake.deaf = false;
}

static void a_lost_state_begins_anew_from_what_is_here(void **state)
{
    (void)state;
    for (int i = 1; i <= 3; i++)
        assert_int_equal(one(&a), i);
    fake.strings = 0;
    assert_int_equal(one(&a), 4);
    assert_int_equal(one(&b), 5);
    /* an older replica: what is here counts where it is later by far */
    uint8_t old[64];
    size_t n = fake.string[0].n;
    memcpy(old, fake.string[0].value, n);
    now += 61000;
    assert_int_equal(one(&a), 6);
    memcpy(fake.string[0].value, old, n);
    assert_int_equal(one(&a), 7);
}

static void what_is_no_state_is_replaced(void **state)
{
    (void)state;
    static const struct {
        size_t n;     /* bytes of what is there */
        uint8_t byte; /* all of them */
    } t[] = {{0, 0}, {3, 1}, {8, 1}, {28, 1}, {28, 0xff}, {27, 0}, {29, 0}, {4000, 7}};
    assert_int_equal(one(&b), 1);
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        fake.string[0].n = t[i].n;
        memset(fake.string[0].value, t[i].byte, t[i].n);
        states_clear(a.states);
        if (t[i].n == 28) { /* of the right size and version, but not sound */
            bytes_put(fake.string[0].value + 8, 1, 4);
        }
        assert_int_equal(one(&a), 1);
        assert_int_equal(fake.string[0].n, 28);
    }
}

static void who_leaves_is_not_called(void **state)
{
    (void)state;
    struct mail x, y;
    ask(&x, &a);
    end(&x);
    ask(&y, &a);
    go(&y, &a);
    end(&y);
    for (int i = 0; i < 5; i++)
        run();
    assert_false(y.done);
}

static void something_else_under_the_key_is_renamed(void **state)
{
    (void)state;
    snprintf(fake.wrong, sizeof fake.wrong, "bw:1:s:{strict-0000000000000005}");
    assert_int_equal(one(&a), 1);
    run();
    assert_true(
        span_starts(span_str(fake.renamed[1]), SPAN("bw:1:s:{strict-0000000000000005}:aside-")));
    assert_int_equal(one(&a), 2);
    assert_int_equal(fake.sets, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, finish)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(two_nodes_step_one_state),
        TEST(who_was_slower_steps_again),
        TEST(of_two_states_only_the_late_one_is_written_again),
        TEST(the_fourth_time_it_gives_up),
        TEST(what_a_further_copy_does_not_touch_is_not_stepped),
        TEST(what_is_own_stays_and_what_is_loose_is_not_waited_for),
        TEST(without_redis_each_goes_on_alone),
        TEST(a_lost_state_begins_anew_from_what_is_here),
        TEST(what_is_no_state_is_replaced),
        TEST(who_leaves_is_not_called),
        TEST(something_else_under_the_key_is_renamed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
