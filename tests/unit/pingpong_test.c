/*
 * pingpong_test.c - what an answer is, the borders of what is held, and how well loops of machines
 * are told from people.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <math.h>

#include "conversation.h"
#include "conversing.h"
#include "pingpong.h"

/* One message as a test says it. */
struct mail {
    const char *from, *to; /* NULL: a@x and b@y */
    const char *id, *answers, *subject, *text;
    bool automatic;
    const char *head, *reversepath; /* more fields; NULL: from */
};

/* Two addresses, and the message read last. */
struct game {
    _Alignas(16) uint8_t state[STATE_BYTES_MAX];
    struct envelope envelope;
    struct recipient recipient[8];
    struct subject s;
    struct signals signals;
    int64_t now;
};

static struct game *game_new(void)
{
    struct game *g = arena_zero(arena, sizeof *g);
    g->now = INT64_C(1138000000000);
    return g;
}

/* Reads a whole message into g->s. */
static void read_mail(struct game *g, const struct mail *m)
{
    const char *from = m->from ? m->from : "a@x.example", *to = m->to ? m->to : "b@y.example";
    struct message *message = message_new(arena);
    const char *head = arena_printf(
        arena, "From: <%s>\nSubject: %s\nMessage-ID: <%s>\n%s%s%s%s%s\n", from,
        m->subject ? m->subject : "s", m->id ? m->id : "none@x", m->answers ? "In-Reply-To: <" : "",
        m->answers ? m->answers : "", m->answers ? ">\n" : "",
        m->automatic ? "Auto-Submitted: auto-replied\n" : "", m->head ? m->head : "");
    message_add_raw(message, span_str(head));
    message_end_header(message);
    struct fingerprinter *f = fingerprint_begin(arena, &keys, message);
    struct fingerprints fp;
    fingerprint_body(f, span_str(m->text ? m->text : ""));
    fingerprint_end(f, &fp);
    g->envelope = (struct envelope){.reversepath = span_str(m->reversepath ? m->reversepath : from),
                                    .recipients = g->recipient,
                                    .nrecipients = 1};
    g->recipient[0] = (struct recipient){.address = span_str(to)};
    subject_read(&g->s, arena, &site, &keys, &g->envelope, message, &fp, g->now);
    g->signals.pingpong = (struct pingpong_signals){0};
}

/* The advice for one more message. */
static enum advice play(struct game *g, const struct mail *m)
{
    struct about about[ABOUT_MAX];
    read_mail(g, m);
    if (pingpong_detector.about(&g->s, &g->signals, about) == 0)
        return ADVICE_PASS;
    pingpong_detector.step(g->state, &g->s, &about[0], &g->signals);
    return (enum advice)g->signals.pingpong.advice[0];
}

#define A .from = "a@x.example", .to = "b@y.example"
#define B .from = "b@y.example", .to = "a@x.example"
#define TEXT "the second offer is better because it is cheaper and the delivery would be faster"
#define OTHER "we meet on monday at noon in the small room next to the library as always then"

static void test_what_is_an_answer(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        struct mail first, second;
        bool answer;
    } cases[] = {
        {"names its Message-ID", {A, .id = "1@x"}, {B, .answers = "1@x", .subject = "other"}, true},
        {"names another one", {A, .id = "1@x"}, {B, .answers = "2@x", .subject = "other"}, false},
        {"the subject has grown", {A, .subject = "s"}, {B, .subject = "Re: s"}, true},
        {"the subject is the same, of an answer",
         {A, .subject = "Re: s"},
         {B, .subject = "Re: s"},
         true},
        {"the subject is the same, of no answer", {A, .subject = "s"}, {B, .subject = "s"}, false},
        {"another subject", {A, .subject = "s"}, {B, .subject = "Re: t"}, false},
        {"no subject at all", {A, .subject = ""}, {B, .subject = "Re:"}, false},
        {"quotes it", {A, .text = TEXT}, {B, .subject = "t", .text = "no! " TEXT " " OTHER}, true},
        {"another text", {A, .text = TEXT}, {B, .subject = "t", .text = OTHER}, false},
        {"the same side", {A, .id = "1@x"}, {A, .answers = "1@x"}, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        /* there and back once: an answer of both sides shows in flips */
        struct game *g = game_new();
        struct mail third = cases[i].first, second = cases[i].second;
        play(g, &cases[i].first);
        second.id = "second@y";
        play(g, &second);
        third.answers = "second@y";
        play(g, &third);
        bool answer = g->signals.pingpong.flips > .5;
        if (answer != cases[i].answer)
            fail_msg("%s: %s answer", cases[i].name, answer ? "an" : "no");
    }
}

/* Rounds of both, each naming the one before; which is marked, what they say. */
struct rally {
    bool marked[2];
    const char *text[2];
    int64_t gap;
};

/* Messages passed before the first of the advice, at most 200. */
static unsigned passes(const struct rally *r, enum advice advice)
{
    struct game *g = game_new();
    for (unsigned i = 0; i < 200; i++, g->now += r->gap) {
        struct mail m = {.from = i % 2 ? "b@y.example" : "a@x.example",
                         .to = i % 2 ? "a@x.example" : "b@y.example",
                         .id = arena_printf(arena, "%u@x", i),
                         .answers = i ? arena_printf(arena, "%u@x", i - 1) : NULL,
                         .automatic = r->marked[i % 2],
                         .text = r->text[i % 2]};
        if (!m.text)
            m.text = arena_printf(arena, "%u %u %u %u %u %u %u %u %u %u", i * 7, i * 11, i * 13,
                                  i * 17, i * 19, i * 23, i * 29, i * 31, i * 37, i * 41);
        if (play(g, &m) == advice)
            return i;
    }
    return 200;
}

static void test_borders(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        struct rally rally;
        unsigned hold, tag; /* passes before; 200: never */
    } cases[] = {
        {"both marked", {{true, true}, {0}, MINUTE}, 6, 200},
        {"one marked: only its own mail is held", {{true, false}, {0}, MINUTE}, 12, 41},
        {"the other one", {{false, true}, {0}, MINUTE}, 13, 40},
        {"both the same again", {{false, false}, {TEXT, OTHER}, MINUTE}, 8, 200},
        {"one the same again", {{false, false}, {TEXT, NULL}, 25 * SECOND}, 200, 40},
        {"people who write fast", {{false, false}, {0}, 25 * SECOND}, 200, 40},
        {"faster than people", {{false, false}, {0}, 15 * SECOND}, 80, 40},
        {"twenty seconds", {{false, false}, {0}, 20 * SECOND}, 200, 40},
        {"a chat of less than twenty an hour", {{false, false}, {0}, 100 * SECOND}, 200, 200},
        {"marked, but less than three an hour", {{true, true}, {0}, 13 * MINUTE}, 200, 200},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        unsigned hold = passes(&cases[i].rally, ADVICE_HOLD);
        unsigned tag = passes(&cases[i].rally, ADVICE_TAG);
        if (hold != cases[i].hold || tag != cases[i].tag)
            fail_msg("%s: held after %u, tagged after %u", cases[i].name, hold, tag);
    }
}

/* Each puts some words before all that was said so far. */
static void quote_everything(const char *const words[12])
{
    struct game *g = game_new();
    const char *all = TEXT;
    for (unsigned i = 0; i < 36; i++, g->now += 2 * MINUTE) {
        all = arena_printf(arena, "%s\nOn Monday 23 Jan 2006 at 10:%02u, %s Example wrote:\n%s",
                           words[i * 5 % 12], i, i % 2 ? "A" : "B", all);
        struct mail m = {.from = i % 2 ? "b@y.example" : "a@x.example",
                         .to = i % 2 ? "a@x.example" : "b@y.example",
                         .id = arena_printf(arena, "%u@x", i),
                         .answers = i ? arena_printf(arena, "%u@x", i - 1) : NULL,
                         .text = all};
        if (play(g, &m) != ADVICE_PASS)
            fail_msg("message %u: %s", i, g->signals.pingpong.evidence);
    }
    assert_true(g->signals.pingpong.flips > 10);
}

static void test_people_who_quote_everything_are_no_machines(void **state)
{
    (void)state;
    static const char *const words[12] = {"fine by me", "and the room",     "no idea",
                                          "ask her",    "she is away",      "then on tuesday",
                                          "at ten",     "too early for me", "at noon then",
                                          "all right",  "see you there",    "bring the papers"};
    static const char *const terse[12] = {"yes",  "no",     "why",     "ok",  "fine", "thanks",
                                          "when", "monday", "tuesday", "ten", "noon", "never"};
    quote_everything(words);
    quote_everything(terse);
}

/* Two subscribers of a list that says Precedence: bulk, in a lively mood. */
static void test_people_on_a_list_are_no_machines(void **state)
{
    (void)state;
    struct game *g = game_new();
    for (unsigned i = 0; i < 20; i++, g->now += 3 * MINUTE) {
        struct mail m = {.from = i % 2 ? "b@y.example" : "a@x.example",
                         .to = i % 2 ? "a@x.example" : "b@y.example",
                         .id = arena_printf(arena, "%u@x", i),
                         .answers = i ? arena_printf(arena, "%u@x", i - 1) : NULL,
                         .head = "Precedence: bulk\n",
                         .reversepath = "owner-list@l.example"};
        assert_int_equal(play(g, &m), ADVICE_PASS);
    }
    assert_true(g->signals.pingpong.flips > 8);
}

static void test_who_is_looked_at(void **state)
{
    (void)state;
    struct game *g = game_new();
    struct about a[ABOUT_MAX], b[ABOUT_MAX];
    static const struct mail there = {A}, back = {B}, self = {.to = "a@x.example"};
    read_mail(g, &there);
    assert_int_equal(pingpong_detector.about(&g->s, &g->signals, a), 1);
    read_mail(g, &back);
    assert_int_equal(pingpong_detector.about(&g->s, &g->signals, b), 1);
    assert_true(a[0].key == b[0].key && a[0].use != b[0].use);
    read_mail(g, &self);
    assert_int_equal(pingpong_detector.about(&g->s, &g->signals, a), 0);
    for (size_t n = 1; n <= 5; n++) {
        read_mail(g, &there);
        for (size_t i = 0; i < n; i++)
            g->recipient[i].hash = 100 + i;
        g->envelope.nrecipients = n;
        assert_int_equal(pingpong_detector.about(&g->s, &g->signals, a), n <= 4 ? n : 0);
    }
    g->envelope.nrecipients = 3;
    g->recipient[2].hash = g->recipient[0].hash; /* named twice */
    assert_int_equal(pingpong_detector.about(&g->s, &g->signals, a), 2);
    struct copy_signal copies[3] = {{.copies = 1}, {.copies = 0}, {.copies = 2}};
    g->signals.replication.copy = copies;
    assert_int_equal(pingpong_detector.about(&g->s, &g->signals, a), 1);
    assert_int_equal(a[0].recipient, 1);
}

static void test_each_recipient_has_its_advice(void **state)
{
    (void)state;
    struct game *g = game_new(), *other = game_new();
    static const struct mail there = {A, .automatic = true};
    for (unsigned i = 0; i < 7; i++, g->now += MINUTE) {
        struct mail m = {.from = i % 2 ? "b@y.example" : "a@x.example",
                         .to = i % 2 ? "a@x.example" : "b@y.example",
                         .id = arena_printf(arena, "%u@x", i),
                         .answers = i ? arena_printf(arena, "%u@x", i - 1) : NULL,
                         .automatic = true};
        play(g, &m);
    }
    struct mail last = there;
    last.answers = "6@x"; /* its own: no answer, but in the same hour */
    read_mail(g, &last);
    g->envelope.nrecipients = 2;
    g->recipient[1] = g->recipient[0];
    g->recipient[0] = (struct recipient){.address = SPAN("c@z.example"), .hash = 4711};
    struct about about[ABOUT_MAX];
    assert_int_equal(pingpong_detector.about(&g->s, &g->signals, about), 2);
    pingpong_detector.step(other->state, &g->s, &about[0], &g->signals);
    pingpong_detector.step(g->state, &g->s, &about[1], &g->signals);
    assert_int_equal(g->signals.pingpong.n, 2);
    assert_int_equal(g->signals.pingpong.advice[0], ADVICE_PASS);
    assert_int_equal(g->signals.pingpong.advice[1], ADVICE_HOLD);
    assert_true(g->signals.pingpong.pair[0] != g->signals.pingpong.pair[1]);
    assert_string_equal(g->signals.pingpong.evidence,
                        "a@x.example and b@y.example answered each other 3 times each in the last "
                        "hour; both are marked as machines (this mail: Auto-Submitted: "
                        "auto-replied)");
}

static void test_person_gets_through_a_loop_of_machines(void **state)
{
    (void)state;
    struct game *g = game_new();
    for (unsigned i = 0; i < 30; i++, g->now += SECOND) {
        struct mail m = {.from = i % 2 ? "b@y.example" : "a@x.example",
                         .to = i % 2 ? "a@x.example" : "b@y.example",
                         .id = arena_printf(arena, "%u@x", i),
                         .answers = i ? arena_printf(arena, "%u@x", i - 1) : NULL,
                         .automatic = true,
                         .text = i % 2 ? TEXT : OTHER};
        play(g, &m);
    }
    assert_int_equal(g->signals.pingpong.advice[0], ADVICE_HOLD);
    assert_int_equal(play(g, &(struct mail){A, .text = "Call me, your mail runs in circles"}),
                     ADVICE_PASS);
}

static void test_new_mail_gets_through_a_fast_game(void **state)
{
    (void)state;
    struct game *g = game_new();
    for (unsigned i = 0; i < 90; i++, g->now += SECOND) {
        struct mail m = {.from = i % 2 ? "b@y.example" : "a@x.example",
                         .to = i % 2 ? "a@x.example" : "b@y.example",
                         .id = arena_printf(arena, "%u@x", i),
                         .answers = i ? arena_printf(arena, "%u@x", i - 1) : NULL,
                         .text = arena_printf(arena, "%u", i)};
        play(g, &m);
    }
    assert_int_equal(g->signals.pingpong.advice[0], ADVICE_HOLD);
    assert_int_equal(play(g, &(struct mail){A, .subject = "lunch", .id = "new@x", .text = OTHER}),
                     ADVICE_TAG);
    assert_int_equal(play(g, &(struct mail){B, .subject = "Re: lunch", .answers = "new@x"}),
                     ADVICE_HOLD);
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

static int64_t random_gap(double rate)
{
    double share = (random_below(1u << 31) + .5) / (double)(1u << 31);
    return (int64_t)(-log(share) / rate * SECOND) + 1;
}

static const char *repeat(const char *text, unsigned n)
{
    const char *all = "";
    for (unsigned i = 0; i < n; i++)
        all = arena_printf(arena, "%s%s", all, text);
    return all;
}

#define AWAY                                                                                       \
    "I am out of the office until Monday and will answer your message when I return to my desk"

typedef void write_fn(struct mail *, unsigned i, const char *former);

static void write_away(struct mail *m, unsigned i, const char *former)
{
    (void)former;
    m->subject = arena_printf(arena, "%sfigures", repeat("Automatic reply: ", i + 1));
    m->text = arena_printf(arena, AWAY " ref %u", i);
    m->automatic = true;
}

static void write_unmarked(struct mail *m, unsigned i, const char *former)
{
    m->subject = arena_printf(arena, "%sfigures", repeat("Re: ", i + 1));
    m->text = AWAY;
    m->answers = former;
}

static void write_ticket(struct mail *m, unsigned i, const char *former)
{
    m->subject = "Re: [T77] figures";
    m->text = arena_printf(arena, AWAY " ticket %u %s", i, repeat("quoted ", i));
    m->answers = former;
    m->automatic = i % 2 == 0;
}

static void write_bounce(struct mail *m, unsigned i, const char *former)
{
    (void)former;
    m->subject = arena_printf(arena, "%sfigures", repeat("Undeliverable: ", i + 1));
    m->text = arena_printf(arena, "this is the mail system could not be delivered " AWAY " %u", i);
    m->automatic = true;
}

static void write_chat(struct mail *m, unsigned i, const char *former)
{
    static const char *const words[] = {"yes", "no",     "maybe", "lunch", "at",    "noon", "then",
                                        "see", "you",    "there", "ok",    "fine",  "what", "about",
                                        "the", "report", "is",    "it",    "ready", "soon"};
    const char *text = "";
    (void)i;
    for (unsigned k = 0; k < 15; k++)
        text = arena_printf(arena, "%s %s", text, words[random_below(20)]);
    m->subject = "Re: figures";
    m->text = text;
    m->answers = former;
}

static void write_alert(struct mail *m, unsigned i, const char *former)
{
    m->automatic = true;
    if (i % 2) {
        m->subject = arena_printf(arena, "ALERT disk %u", i);
        m->text =
            arena_printf(arena, "disk usage on host %u is %u percent please check the volume now",
                         random_below(99), random_below(100));
        return;
    }
    m->subject = arena_printf(arena, "[T%u] received", i);
    m->text = arena_printf(
        arena, "we received your message and opened ticket number %u for you thank you", i);
    m->answers = former;
}

/* 60 messages; how many are held; *first: passes before. */
static unsigned one_game(write_fn *write, bool people, unsigned *first)
{
    struct game *g = game_new();
    unsigned held = 0;
    const char *former = "m0@x";
    for (unsigned i = 0; i < 60; i++) {
        static const int64_t gaps[] = {4 * SECOND, 30 * SECOND, 300 * SECOND};
        struct mail m = {.from = i % 2 ? "a@x" : "b@y",
                         .to = i % 2 ? "b@y" : "a@x",
                         .id = arena_printf(arena, "m%u@x", i)};
        g->now += people ? random_gap(.01) : gaps[random_below(3)];
        write(&m, i, former);
        former = m.id;
        if (play(g, &m) == ADVICE_HOLD && held++ == 0)
            *first = i;
    }
    return held;
}

static int compare(const void *a, const void *b)
{
    unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
    return (x > y) - (x < y);
}

static void test_loops_are_broken_and_people_are_not(void **state)
{
    (void)state;
    enum { GAMES = 50 };
    static const struct {
        const char *name;
        write_fn *write;
        bool people;
        unsigned broken, median; /* of GAMES; passes before */
    } cases[] = {
        {"two who are away", write_away, false, GAMES, 6},
        {"unmarked, the same text", write_unmarked, false, GAMES, 8},
        {"one away, one ticket system", write_ticket, false, GAMES, 12},
        {"bounces of bounces", write_bounce, false, GAMES, 6},
        {"people", write_chat, true, 0, 0},
        {"alerts and acknowledgements", write_alert, false, 0, 0},
    };
    seed = 88172645463325252u;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        unsigned broken = 0, first[GAMES];
        for (unsigned k = 0; k < GAMES; k++) {
            struct arena *kept = arena;
            arena = arena_new();
            broken += one_game(cases[i].write, cases[i].people, &first[broken]) > 0;
            arena_free(&arena);
            arena = kept;
        }
        qsort(first, broken, sizeof *first, compare);
        if (broken != cases[i].broken || (broken && first[broken / 2] > cases[i].median))
            fail_msg("%s: broken %u times, after %u", cases[i].name, broken,
                     broken ? first[broken / 2] : 0);
        if (broken && first[0] < 6)
            fail_msg("%s: held after %u", cases[i].name, first[0]);
    }
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, fresh, forget)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_what_is_an_answer),
        CASE(test_borders),
        CASE(test_people_who_quote_everything_are_no_machines),
        CASE(test_people_on_a_list_are_no_machines),
        CASE(test_who_is_looked_at),
        CASE(test_each_recipient_has_its_advice),
        CASE(test_person_gets_through_a_loop_of_machines),
        CASE(test_new_mail_gets_through_a_fast_game),
        CASE(test_loops_are_broken_and_people_are_not),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
