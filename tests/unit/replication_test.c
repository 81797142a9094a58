/* replication_test.c - stories of copies: how each relates to those before, and what is advised. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "bloomring.h"
#include "story.h"

struct story {
    const char *name;
    const char *visible;
    struct step step[14];
};

#define DAY INT64_C(86400000)

/* The same message from two faulty servers: a storm of which B and C have one copy each. */
#define STORM                                                                                      \
    {STEP("o isp gw", B " " C, "F+ F+")}, {STEP("o isp gw sbs^", B, "Dh")},                        \
    {                                                                                              \
        STEP("o isp gw sbs2^", B, "Dh")                                                            \
    }

static const struct story stories[] = {
    {"a first copy passes, and so does the first to somebody else",
     "",
     {{STEP("o isp gw", B, "F+")}, {STEP("o isp/2 gw", C, "F+")}}},
    {"a list's mail that begins twice at the server of a subscriber: one retry of that",
     "",
     {{STEP("o l1 gw", B, "F+"), .list = "one"},
      {STEP("sbs^/1 l1/1 gw/1", B, "Kt"), .list = "one"},
      {STEP("sbs^/2 l1/2 gw/2", B, "Rt"), .list = "one"},
      {STEP("sbs^/3 l1/3 gw/3", B, "Rh"), .list = "one"}}},
    {"or at two subscribers': each a detour",
     "",
     {{STEP("o l1 gw", B, "F+"), .list = "one"},
      {STEP("sbs^/1 l1/1 gw/1", B, "Kt"), .list = "one"},
      {STEP("sbs2^/2 l1/2 gw/2", B, "Kh"), .list = "one"}}},
    {"the same queue entry is tagged three times, then held",
     "",
     {{STEP("o isp gw", B " " C, "F+ F+")},
      {STEP("o isp gw", B " " C, "St St")},
      {STEP("o isp gw", B, "St")},
      {STEP("o isp gw", B, "St")},
      {STEP("o isp gw", B " " C, "Sh St")}}},
    {"the same queue entry again although the client saw our 250: one tag",
     "",
     {{STEP("o isp gw", B, "F+")},
      {STEP("o isp gw", B, "St"), .acked = true},
      {STEP("o isp gw", B, "Sh"), .acked = true}}},
    {"a detour: one allowance, then the server is convicted",
     "",
     {{STEP("o isp", B, "F+")},
      {STEP("o isp sbs smart", B, "Dt")},
      {STEP("o isp sbs/2 smart/2", B, "Dh")},
      {STEP("o isp sbs/3 smart/3", C, "F+")}}},
    {"a detour through ours only is internal: two passes, then a loop of ours",
     "",
     {{STEP("o isp", B, "F+")},
      {STEP("o isp filter= gw=", B, "I+")},
      {STEP("o isp filter=/2 gw=/2", B, "I+")},
      {STEP("o isp filter=/3 gw=/3", B, "Ih")}}},
    {"the direct copy, overtaken by a longer one",
     "",
     {{STEP("o isp sbs smart", B, "F+")}, {STEP("o isp", B, "At")}, {STEP("o isp", C, "F+")}}},
    {"one server gives it to the same next server twice",
     "",
     {{STEP("o isp/1 gw/1", B, "F+")},
      {STEP("o isp/1 gw/2", B, "Rt")},
      {STEP("o isp/1 gw/3", B, "Rh")}}},
    {"another branch: one allowance, then hold",
     "",
     {{STEP("o isp gw", B, "F+")},
      {STEP("o isp other gw", B, "Kt")},
      {STEP("o isp third gw", B, "Kh")}}},
    {"nothing in common: a fork from the first visible server",
     "",
     {{STEP("o isp gw", B, "F+")}, {STEP("sbs smart", B, "Kt")}, {STEP("sbs/2 smart/2", B, "Kh")}}},
    {"a handed-over copy on our own path is preferred to a fork of the same depth",
     "",
     {{STEP("o isp", B, "F+")}, {STEP("o isp x", B, "Dt")}, {STEP("o isp y", B, "Dh")}}},
    {"a list copy after the direct one, one per list, five lists",
     "",
     {{STEP("o gw", B, "F+")},
      {STEP("o l1 gw", B, "Lt"), .list = "one"},
      {STEP("o l1/2 gw", B, "Kt"), .list = "one"},
      {STEP("o l2 gw", B, "Lt"), .list = "two"},
      {STEP("o l3 gw", B, "Lt"), .list = "three"},
      {STEP("o l4 gw", B, "Lt"), .list = "four"},
      {STEP("o l5 gw", B, "Lt"), .list = "five"},
      {STEP("o l6 gw", B, "Lh"), .list = "six"}}},
    {"two lists, each its first copy",
     "",
     {{STEP("o l1 gw", B, "F+"), .list = "one"}, {STEP("o l2 gw", B, "Lt"), .list = "two"}}},
    {"mail taken out of a mailbox and sent on convicts at once",
     "",
     {{STEP("o isp", B " " C, "F+ F+")}, {STEP("o isp sbs^ smart", B " " C, "Dh Dh")}}},
    {"fetchmail of one who is in To twice: one allowance, then the server is convicted",
     "",
     {{STEP("o isp", B, "F+")},
      {STEP("o isp2 home~ smart", B, "Kt")},
      {STEP("o isp2 home~/2 smart/2", B, "Kh")},
      {STEP("o isp2 home~/3 smart/3", C, "F+")},
      {STEP("o isp2 home~/4 smart/4", C, "Kh")}}},
    {"fetchmail that sends on to several convicts at once",
     "",
     {{STEP("o isp", B " " C, "F+ F+")}, {STEP("o isp home~ smart", B " " C, "Dh Dh")}}},
    {"but not when it is where the mail began",
     "",
     {{STEP("sbs^ smart", B, "F+")}, {STEP("sbs^/2 smart/2", B, "Rt")}}},
    {"and not when it is marked as a list",
     "",
     {{STEP("o isp", B, "F+"), .list = "one"}, {STEP("o isp sbs^ smart", B, "Dt"), .list = "one"}}},
    {"the connector's signature in To convicts at once",
     "",
     {{STEP("o isp", B, "F+")}, {STEP("o isp sbs smart", B, "Dh"), .connector = true}}},
    {"a trace that is cut off is a branch each time, not a retry of the copy before",
     "",
     {{STEP("o isp gw", B, "F+")},
      {STEP("sbs[192.0.2.9]", B, "Kt")},
      {STEP("sbs[192.0.2.9]", B, "Kh")},
      {STEP("sbs[192.0.2.9] smart/1", B, "Kh")},
      {STEP("sbs[192.0.2.9] smart/2", B, "Kh")}}},
    {"nor if the machine left only a name, or not even that",
     "",
     {{STEP("o isp gw", B, "F+")},
      {STEP("pickup mbx/1", B, "Kt")},
      {STEP("pickup mbx/2", B, "Kh")},
      {STEP("? mbx/3", C, "F+")}}},
    {"but a machine that left only a name may hand over the same twice to us",
     "",
     {{STEP("o isp gw", B, "F+")}, {STEP("pc", B, "Kt")}, {STEP("pc", B, "St")}}},
    {"and what began there at first may begin there again",
     "",
     {{STEP("pickup mbx/1", B, "F+")}, {STEP("pickup mbx/2", B, "Rt")}}},
    {"but what one machine writes anew each time is no retry",
     "",
     {{STEP("o isp gw", B, "F+")},
      {STEP("sbs mbx/1", B, "Kt"), .anew = true},
      {STEP("sbs mbx/2", B, "Kh"), .anew = true}}},
    {"unless the retry is of one that was written anew",
     "",
     {{STEP("o isp gw", B, "F+")},
      {STEP("sbs mbx/1 smart/1", B, "Kt"), .anew = true},
      {STEP("sbs mbx/1 smart/2", B, "Rt"), .anew = true}}},
    {"but a machine that has the first copy's name may try again",
     "",
     {{STEP("pc", B, "F+")},
      {STEP("pc", B, "St")},
      {STEP("pc smart/1", B, "Dt")},
      {STEP("pc", B, "St")}}},
    {"cut off, and begun with a pickup: taken out of a mailbox",
     "",
     {{STEP("o isp gw", B, "F+")}, {STEP("sbs^ smart", B, "Kh")}}},
    {"the same, but the first copy did not come from further away",
     "",
     {{STEP("o gw", B, "F+")}, {STEP("sbs^ smart", B, "Kt")}}},
    {"handed to one server twice, but out of another mailbox there: no retry",
     C,
     {{STEP("o isp/1 gw/1", B, "F+")}, {STEP("o isp/2@" C " gw/2", B, "Kt")}}},
    {"and none if it was taken out of a mailbox",
     "",
     {{STEP("o isp/1 gw/1", B, "F+")}, {STEP("o isp/2 sbs^ gw/2", B, "Kh")}}},
    {"for an address that it does not show it is one: somebody's alias",
     "",
     {{STEP("o isp/1 gw/1", B, "F+")}, {STEP("o isp/2@" C " gw/2", B, "Rt")}}},
    {"a pickup on the way that copies share is nothing odd: a web mail of those days",
     "",
     {{STEP("o web^ out", B, "F+")}, {STEP("o web^ out forwarder", B, "Dt")}}},
    {"a replay of the To: line is held from its first transaction on",
     B " " C " " D,
     {{STEP("o isp", B " " C " " D, "F+ F+ F+")},
      {STEP("o isp sbs smart", B " " C " " D, "Dh Dh Dh")}}},
    {"two visible recipients are not yet a replay",
     B " " C " " D,
     {{STEP("o isp", B " " C " " D, "F+ F+ F+")}, {STEP("o isp sbs smart", B " " C, "Dt Dt")}}},
    {"three recipients of one domain are not yet a replay",
     "x@b.example y@b.example z@b.example",
     {{STEP("o isp", "x@b.example y@b.example z@b.example", "F+ F+ F+")},
      {STEP("o isp sbs smart", "x@b.example y@b.example z@b.example", "Dt Dt Dt")}}},
    {"recipients that To does not show are not a replay",
     B " " C,
     {{STEP("o isp", B " " C " " D, "F+ F+ F+")},
      {STEP("o isp sbs smart", B " " C " " D, "Dt Dt Dt")}}},
    {"a transit relay is never convicted as a replayer",
     B " " C " " D,
     {{STEP("o isp", B " " C " " D, "F+ F+ F+")},
      {STEP("o isp mx2 mx1", B " " C " " D, "Dt Dt Dt"), .transit = true}}},
    {"a path that goes round convicts, but never the first copy",
     "",
     {{STEP("o isp", B, "F+"), .cycle = true},
      {STEP("o isp sbs smart", B " " C, "Dh F+"), .cycle = true}}},
    {"a server known from another storm gets no allowance",
     "",
     {{STEP("o isp", B, "F+")}, {STEP("o isp sbs smart", B, "Dh"), .known = true}}},
    {"the first copy of a known server passes all the same",
     "",
     {{STEP("o isp sbs smart", B, "F+"), .known = true}}},
    {"a lost copy: the next try is the first again",
     "",
     {{STEP("o isp gw", B, "F+"), .fate = 'a'},
      {STEP("o isp gw", B, "F+")},
      {STEP("o isp gw", B, "St")}}},
    {"a lost extra copy gives its allowance back",
     "",
     {{STEP("o isp", B, "F+")},
      {STEP("o isp sbs smart", B, "Dt"), .fate = 'a'},
      {STEP("o other smart", B, "Kt")},
      {STEP("o third smart", B, "Kh")}}},
    {"a refused copy's next try is judged as the first try was",
     "",
     {{STEP("o isp", B, "F+")},
      {STEP("o isp sbs smart", B, "Dh"), .known = true, .fate = 'a'},
      {STEP("o isp sbs smart", B, "Dh"), .known = true, .fate = 'a'},
      {STEP("o isp", B, "St")},
      {STEP("o isp sbs smart", B, "Dh"), .known = true},
      {STEP("o isp sbs smart", B, "St"), .known = true}}},
    {"in monitor mode the verdicts are those of enforce mode",
     "",
     {{STEP("o isp gw", B, "F+"), .fate = 'w'},
      {STEP("o isp2 gw", B, "F+")},
      {STEP("o isp2 gw", B, "St")}}},
    {"a first copy that a rule held and a person released has passed",
     "",
     {{STEP("o isp gw", B, "F+"), .fate = 'r'},
      {STEP("o isp sbs smart", B, "Kt")},
      {STEP("o isp sbs/2 smart", B, "Kh")}}},
    {"a held copy is only seen: the next is the first",
     "",
     {{STEP("o isp gw", B, "F+"), .fate = 'h'},
      {STEP("o isp2 gw", B, "F+")},
      {STEP("o isp2 gw", B, "St")}}},
    {"a copy held while the other is still on its way may be the only one",
     "",
     {{STEP("o isp", B " " C, "F+ F+"), .fate = 'p'}, {STEP("o isp sbs^ smart", B, "DH")}}},
    {"postmaster is counted, never held",
     "",
     {{STEP("o isp", "postmaster@b.example", "F+")},
      {STEP("o isp sbs^ smart", "postmaster@b.example", "Xt")},
      {STEP("o isp sbs^/2 smart/2", "postmaster@b.example " C, "Xt F+")}}},
    {"a recipient named twice is one copy",
     "",
     {{STEP("o isp", B " " C " " B, "F+ F+ F+")},
      {STEP("o isp", B " " B " " B, "St St St")},
      {STEP("o isp", B, "St")},
      {STEP("o isp", B " " B, "St St")},
      {STEP("o isp", B, "Sh")}}},
    {"a stuck client within a storm is tried three times",
     "",
     {STORM,
      {STEP("o isp gw", B, "St")},
      {STEP("o isp gw", B, "St"), .later = DAY - 1},
      {STEP("o isp gw", B, "St"), .later = DAY - 1},
      {STEP("o isp gw", B, "Sh"), .later = DAY - 1}}},
    {"a queue that was opened when the storm was over for a day: nothing of it passes",
     "",
     {STORM,
      {STEP("o isp gw", B " " C, "Sh Sh"), .later = DAY},
      {STEP("o isp gw", B " " C, "Sh Sh"), .later = DAY + 1},
      {STEP("o isp gw", B " " C " " D, "Sh Sh F+"), .later = DAY + 2},
      {STEP("o isp gw", D, "St"), .later = DAY + 3}}},
    {"who got none in the storm gets one when it comes back, and may be tried again",
     "",
     {{STEP("o isp gw", B " " C, "F+ F+"), .fate = 'h'},
      {STEP("o isp gw", B, "F+")},
      {STEP("o isp gw sbs^", B, "Dh")},
      {STEP("o isp gw sbs2^", B, "Dh")},
      {STEP("o isp gw", C, "F+"), .later = 28 * DAY},
      {STEP("o isp gw", C, "St"), .later = 28 * DAY}}},
    {"one message that is no storm may be tried again after a week",
     "",
     {{STEP("o isp gw", B, "F+")}, {STEP("o isp gw", B, "St"), .later = 7 * DAY}}},
    {"no recipients", "", {{STEP("o isp", "", "")}, {STEP("o isp", B, "F+")}}},
};

static const char relation_letter[REL_COUNT + 1] = "FSDARKLIX";

static void describe(const struct replication_signals *out, size_t n, char *text)
{
    for (size_t i = 0; i < n; i++) {
        const struct copy_signal *c = &out->copy[i];

        if (i)
            *text++ = ' ';
        *text++ = relation_letter[c->relation];
        *text++ = c->advice == ADVICE_HOLD ? (c->passed ? 'h' : 'H') : "+t"[c->advice];
    }
    *text = 0;
}

static void test_stories(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(stories) / sizeof(*stories); i++) {
        struct past p;
        struct record *r = record_new(0);

        past_open(&p);
        for (const struct step *step = stories[i].step; step->path; step++) {
            struct replication_signals out;
            struct subject s;
            char got[256];

            observe(&p, r, step, stories[i].visible, &s, &out);
            describe(&out, s.envelope->nrecipients, got);
            if (strcmp(got, step->expect))
                fail_msg("%s: step %td: %s, expected %s", stories[i].name,
                         step - stories[i].step + 1, got, step->expect);
            settle(r, s.envelope, &out, step->fate);
        }
        record_free(&r);
        past_close(&p);
    }
}

/* Who has got a copy, whatever the verdict was: nobody is sent one more for want of one. */
static void test_who_got_one(void **state)
{
    static const struct {
        char fate;
        bool got;
    } cases[] = {{0, true}, {'h', false}, {'r', true}, {'w', true}, {'a', false}, {'p', false}};
    static const struct step step = {STEP("o isp gw", B, "F+")};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct past p;
        struct record *r = record_new(0);
        struct replication_signals out;
        struct subject s;

        past_open(&p);
        observe(&p, r, &step, "", &s, &out);
        settle(r, s.envelope, &out, cases[i].fate);
        if (record_passed(r, s.envelope->recipients[0].hash) != cases[i].got)
            fail_msg("fate '%c' leaves its recipient %s a copy", cases[i].fate,
                     cases[i].got ? "without" : "with");
        record_free(&r);
        past_close(&p);
    }
}

/* The record of 24 hours is gone, the long memory is not: the copy passes, and no further one. */
static void test_long_memory(void **state)
{
    static const struct bloomring_size size = {
        .keep = 40 * 86400000LL, .error = 1e-3, .budget = 1 << 20};
    static const struct step step[] = {{STEP("o isp gw", B " " C, "F+ F+")},
                                       {STEP("o other gw", B " " C, "Kh Kt")}};
    static const struct {
        const char *date;
        int64_t whole; /* seconds */
        bool seen;
    } young[] = {
        /* now is 1000000000 */
        {"999999000", 0, true},          {"999999000", 999998999, false},
        {"999999000", 999999000, false}, {"999999000", 999999001, true},
        {"1000000001", 999990000, true}, {"999913599", 900000000, true},
        {"999913601", 900000000, false}, {"last Monday", 900000000, true},
    };
    static const uint32_t ordinary[PATH_MAX_NODES];
    static const bool known[PATH_MAX_NODES];
    struct past p;
    struct record *r = record_new(0);
    struct bloomring *ring = bloomring_new(&size);
    struct replication_signals out;
    struct subject s;
    struct observation o = {
        .subject = &s, .ordinary = ordinary, .known = known, .ring = ring, .k = {{1, 2, 3}}};

    (void)state;
    past_open(&p);
    bloomring_add(ring, record_digest(&o.k, keys_address(&p.keys, span_str(B), NULL)),
                  INT64_C(999999999000));
    for (size_t i = 0; i < 2; i++) {
        char got[64];

        past_subject(&p, &s, 1, 1, step[i].path, step[i].rcpts, "");
        assert_int_equal(replication_observe(r, &o, &out), OBSERVED_OK);
        assert_int_equal(out.copy[0].seen_before, i == 0);
        assert_false(out.copy[1].seen_before);
        describe(&out, 2, got);
        assert_string_equal(got, step[i].expect);
        settle(r, s.envelope, &out, 0);
    }
    for (size_t i = 0; i < sizeof young / sizeof *young; i++) {
        record_free(&r);
        r = record_new(0);
        past_subject(&p, &s, 1, 1, step[0].path, step[0].rcpts, "");
        s.now = INT64_C(1000000000000);
        s.fp.date = span_str(young[i].date);
        o.whole = young[i].whole * 1000;
        assert_int_equal(replication_observe(r, &o, &out), OBSERVED_OK);
        if (out.copy[0].seen_before != young[i].seen)
            fail_msg("%s, memory whole since %lld", young[i].date, (long long)young[i].whole);
    }
    bloomring_free(&ring);
    record_free(&r);
    past_close(&p);
}

/* Who tries again and again is convicted in the end, and remembered: the queue may stand still. */
static void test_endless_retries(void **state)
{
    static const char *const endless[][2] = {{"o isp gw", "o isp gw"}, {"sbs^/%d", "sbs^/%d"}};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct past p;
        struct record *r = record_new(0);
        struct replication_signals out;
        struct subject s;

        past_open(&p);
        for (int n = 0; n < 14; n++) {
            char path[32];

            snprintf(path, sizeof(path), endless[i][0], n);
            observe(&p, r, &(struct step){.path = path, .rcpts = B}, "", &s, &out);
            if (n < 2)
                assert_int_equal(out.convicted, 0);
            settle(r, s.envelope, &out, 0);
        }
        assert_true(out.storm);
        assert_int_equal(out.convicted, 1);
        assert_int_equal(r->passed, i ? 2 : 1 + 3);
        assert_int_equal(record_ttl(r, &p.site), p.site.ttl_storm);
        record_free(&r);
        past_close(&p);
    }
}

static void test_signals(void **state)
{
    struct past p;
    struct record *r = record_new(0);
    struct replication_signals out;
    struct subject s;
    struct step first = {.path = "o isp", .rcpts = B " " C},
                again = {.path = "o isp sbs[192.0.2.9]^ smart", .rcpts = B " " C};

    (void)state;
    past_open(&p);
    observe(&p, r, &first, "", &s, &out);
    assert_false(out.known);
    assert_int_equal(out.duplicates, 0);
    assert_int_equal(out.copy[1].seen, 1);
    settle(r, s.envelope, &out, 0);
    observe(&p, r, &again, "", &s, &out);
    assert_true(out.known);
    assert_int_equal(out.duplicates, 2);
    assert_int_equal(out.copies, 4);
    assert_int_equal(out.convicted, 1);
    assert_false(out.storm);
    assert_true(span_eq(out.blamed, SPAN("sbs[192.0.2.9]")));
    assert_string_equal(out.conviction, "re-injects mail that had already been delivered");
    assert_int_equal(out.copy[0].rule, 6);
    assert_int_equal(out.copy[0].copies, 1);
    assert_int_equal(out.copy[0].seen, 2);
    assert_int_equal(out.copy[0].passed, 1);
    assert_int_equal(out.copy[0].at, 2);
    settle(r, s.envelope, &out, 0);
    for (int i = 0; i < 4; i++) {
        again.path = i % 2 ? "o isp sbs[192.0.2.9]^/3 smart" : "o isp sbs[192.0.2.9]^/4 smart";
        observe(&p, r, &again, "", &s, &out);
        settle(r, s.envelope, &out, 0);
    }
    assert_true(out.storm);
    assert_int_equal(out.nlearned, 1);
    assert_int_equal(out.learned[0], s.path.node[2].server_id);
    assert_int_equal(r->passed, 2);
    assert_int_equal(r->held, 10);
    record_free(&r);
    past_close(&p);
}

/* --- contents --- */

static void test_conflict(void **state)
{
    struct past p;
    struct record *r = record_new(0);
    struct replication_signals out;
    struct subject s;
    struct observation o = {.subject = &s};
    uint32_t zero[PATH_MAX_NODES] = {0};
    bool known[PATH_MAX_NODES] = {false};

    (void)state;
    past_open(&p);
    o.ordinary = zero;
    o.known = known;
    past_subject(&p, &s, 1, 1, "o isp", B, "");
    s.fp.date = SPAN("1138010400");
    s.fp.sketch.n = 8;
    for (uint32_t i = 0; i < 8; i++)
        s.fp.sketch.value[i] = 100 + i;
    assert_int_equal(replication_observe(r, &o, &out), OBSERVED_OK);
    s.fp.f = 2;
    for (uint32_t i = 0; i < 4; i++)
        s.fp.sketch.value[i] = 50 + i; /* 4 of 8 in common */
    assert_int_equal(replication_observe(r, &o, &out), OBSERVED_CONFLICT);
    assert_int_equal(r->copies, 1);
    assert_int_equal(r->nvariants, 1);
    s.fp.sketch.value[3] = 100; /* 5 of 8 */
    assert_int_equal(replication_observe(r, &o, &out), OBSERVED_OK);
    assert_int_equal(r->nvariants, 2);
    s.fp.sketch.n = 3; /* too few samples, another F */
    s.fp.f = 3;
    assert_int_equal(replication_observe(r, &o, &out), OBSERVED_CONFLICT);
    for (uint64_t f = 10; f < 40; f++) { /* footers upon footers: bounded, the first is kept */
        s.fp.f = f;
        s.fp.sketch.n = 8;
        assert_int_equal(replication_observe(r, &o, &out), OBSERVED_OK);
    }
    assert_int_equal(r->nvariants, K_VARIANTS);
    assert_int_equal(r->variant[0].f, 1);
    s.fp.f = 99; /* nearly the same words and no Date: what cron counted, or another scan */
    s.fp.date = (struct span){0};
    assert_int_equal(replication_observe(r, &o, &out), OBSERVED_CONFLICT);
    s.fp.nattachments = 1;
    assert_int_equal(replication_observe(r, &o, &out), OBSERVED_CONFLICT);
    s.fp.date = SPAN("1138010400");
    assert_int_equal(replication_observe(r, &o, &out), OBSERVED_OK);
    s.fp.date = (struct span){0}; /* exactly the same, without Date: a copy */
    assert_int_equal(replication_observe(r, &o, &out), OBSERVED_OK);
    record_free(&r);
    past_close(&p);
}

/* A mail of three words, and the same with a footer after it or a banner before it. */
static void test_tiny_text(void **state)
{
    static const struct {
        const char *name;
        unsigned words[12], n;
        bool same;
    } cases[] = {
        {"a footer after it", {1, 2, 3, 9, 9, 9, 9, 9, 9, 9}, 10, true},
        {"a banner before it", {9, 9, 9, 9, 9, 9, 9, 1, 2, 3}, 10, true},
        {"both: neither head nor tail", {9, 9, 1, 2, 3, 9, 9, 9, 9, 9}, 10, false},
        {"other words", {1, 2, 4, 9, 9, 9, 9, 9, 9, 9}, 10, false},
        {"fewer words", {1, 2}, 2, false},
    };
    struct past p;

    (void)state;
    past_open(&p);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        uint64_t old[] = {1001, 1002, 1003}, word[12];
        struct fingerprints tiny = {.word = old, .nwords = 3},
                            fp = {.word = word, .date = SPAN("1138010400")};
        struct record *r = record_new(0);

        tiny.f = fingerprint_f_of(&p.keys, &tiny, 3, false);
        for (unsigned j = 0; j < cases[i].n; j++)
            word[j] = 1000 + cases[i].words[j];
        fp.nwords = cases[i].n;
        fp.f = 77;
        record_add_content(r, &tiny);
        if (record_same_content(r, &p.keys, &fp) != cases[i].same)
            fail_msg("%s", cases[i].name);
        record_free(&r);
    }
    past_close(&p);
}

/* --- memory --- */

static void test_size(void **state)
{
    struct past p;
    struct record *r = record_new(0);
    struct replication_signals out;
    struct subject s;
    char *all = malloc(630 * 32);
    size_t many;

    (void)state;
    past_open(&p);
    observe(&p, r, &(struct step){.path = "o isp a b c gw", .rcpts = B}, "", &s, &out);
    assert_true(record_bytes(r) < 600);
    record_free(&r);
    r = record_new(0);
    storm_addresses(all, 630);
    observe(&p, r, &(struct step){.path = "o isp a b c gw", .rcpts = all}, "", &s, &out);
    many = record_bytes(r);
    assert_true(many < 65536); /* 630 recipients of one transaction share one path */
    assert_int_equal(r->nplaces, 6);
    record_free(&r);
    past_close(&p);
    free(all);
}

/* Paths invented without end, all to one recipient: places that nobody's path needs are swept. */
static void test_places_are_bounded(void **state)
{
    struct past p;
    struct record *r = record_new(0);
    struct replication_signals out;
    struct subject s;
    char path[128];

    (void)state;
    past_open(&p);
    for (int i = 0; i < 3000; i++) {
        sprintf(path, "o/%d a/%d b/%d c/%d", i, i, i, i);
        observe(&p, r, &(struct step){.path = path, .rcpts = B}, "", &s, &out);
        settle(r, s.envelope, &out, 0);
        arena_free(&p.arena);
        p.arena = arena_new();
    }
    assert_true(r->nplaces < 1024);
    assert_true(record_bytes(r) < 65536);
    /* the first path is still known */
    observe(&p, r, &(struct step){.path = "o/0 a/0 b/0 c/0", .rcpts = B}, "", &s, &out);
    assert_int_equal(out.copy[0].relation, REL_SAME);
    record_free(&r);
    past_close(&p);
}

static void test_addressees_are_bounded(void **state)
{
    struct record *r = record_new(0);

    (void)state;
    for (uint64_t i = 1; i <= ADDRESSEES_MAX; i++)
        assert_non_null(record_add(r, i * 0x9e3779b97f4a7c15));
    assert_null(record_add(r, 7));
    assert_non_null(record_add(r, 0x9e3779b97f4a7c15));
    assert_int_equal(r->naddressees, ADDRESSEES_MAX);
    for (uint64_t i = 1; i <= ADDRESSEES_MAX; i++)
        assert_non_null(record_find(r, i * 0x9e3779b97f4a7c15));
    assert_null(record_find(r, 7));
    record_free(&r);
}

/* --- laws --- */

static uint32_t dice(uint32_t *seed, uint32_t sides)
{
    *seed = *seed * 1103515245 + 12345;
    return (*seed >> 16) % sides;
}

/* A path of up to five of six hosts, a few acceptances each; and some of four recipients. */
static void random_step(uint32_t *seed, char path[128], char rcpts[128], struct step *step)
{
    static const char *const who[] = {B " ", C " ", D " ", E " "};
    size_t n = (size_t)sprintf(path, "o");

    for (uint32_t i = dice(seed, 5); i > 0; i--)
        n += (size_t)sprintf(path + n, " h%u%s/%u", dice(seed, 6), dice(seed, 8) ? "" : "^",
                             dice(seed, 3));
    for (n = 0; n == 0;)
        for (unsigned i = 0; i < 4; i++)
            if (dice(seed, 3) == 0)
                n += (size_t)sprintf(rcpts + n, "%s", who[i]);
    *step = (struct step){.path = path,
                          .rcpts = rcpts,
                          .fate = "\0\0\0aph"[dice(seed, 6)],
                          .acked = dice(seed, 9) == 0,
                          .known = dice(seed, 9) == 0,
                          .list = dice(seed, 9) ? NULL : "list"};
}

/* Whatever happens: a first copy is never held (I1); per recipient no more passes than the
 * allowances say (I2); the sums agree. */
static void test_laws(void **state)
{
    uint32_t seed = 7;

    (void)state;
    for (int story = 0; story < 200; story++) {
        struct past p;
        struct record *r = record_new(0);
        uint64_t seen = 0, passed = 0;

        past_open(&p);
        for (int i = 0; i < 40; i++) {
            char path[128], rcpts[128];
            struct replication_signals out;
            struct subject s;
            struct step step;

            random_step(&seed, path, rcpts, &step);
            observe(&p, r, &step, B " " C " " D, &s, &out);
            for (size_t k = 0; k < s.envelope->nrecipients; k++)
                if (out.copy[k].relation == REL_FIRST)
                    assert_int_equal(out.copy[k].advice, ADVICE_PASS);
            settle(r, s.envelope, &out, step.fate);
        }
        for (uint32_t i = 0; i < r->capaddressees; i++) {
            const struct addressee *a = &r->addressee[i];

            assert_true(!a->used || a->passed <= 1 + 1 + 3 + 1 + 1);
            seen += a->seen;
            passed += a->passed;
        }
        assert_int_equal(seen, r->copies);
        assert_int_equal(passed, r->passed);
        record_free(&r);
        past_close(&p);
    }
}

/* --- asking and answering --- */

static void test_observation_maps_answers(void **state)
{
    struct past p;
    struct subject s;
    struct tallies t = {0};
    struct observation o;

    (void)state;
    past_open(&p);
    past_subject(&p, &s, 1, 1, "o own= isp gw", B, "");
    replication_detector.count(&s, &t);
    assert_int_equal(t.n, 2 * 3 + 2 + 1);
    for (size_t i = 0; i < t.n; i++)
        t.t[i].answer = (double)i + 1;
    t.t[7].answer = (double)(s.now - p.site.known_server + 1); /* gw */
    t.t[4].answer = (double)(s.now - p.site.known_server);     /* isp: too long ago */
    t.t[5].answer = 0;
    t.t[8].answer = 4;
    replication_observation(&o, &s, &t);
    assert_int_equal(o.ordinary[0], 1);
    assert_int_equal(o.ordinary[1], 0);
    assert_int_equal(o.ordinary[2], 4);
    assert_int_equal(o.ordinary[3], 7);
    assert_true(o.direct[0]);
    assert_false(o.direct[1]);
    assert_false(o.direct[2]);
    assert_false(o.direct[3]);
    assert_false(o.known[0]);
    assert_false(o.known[2]);
    assert_true(o.known[3]);
    assert_false(o.transit);
    t.t[8].answer = 5;
    replication_observation(&o, &s, &t);
    assert_true(o.transit);
    past_close(&p);
}

static void test_learn(void **state)
{
    struct past p;
    struct subject s;
    struct tallies t = {0};
    struct signals signals = {0};
    uint32_t server = 77;

    (void)state;
    past_open(&p);
    past_subject(&p, &s, 1, 1, "o.example up.example2 gw.example3", B, "");
    replication_detector.learn(&s, &signals, &t);
    assert_int_equal(t.n, 5);
    assert_int_equal(t.t[0].kind, TALLY_COUNT);
    assert_int_equal(t.t[3].kind, TALLY_MARK); /* gw hands us ordinary mail itself */
    assert_int_equal(t.t[4].kind, TALLY_SET);
    t.n = 0;
    signals.replication.duplicates = 1; /* a storm teaches nothing about normal flow */
    signals.replication.learned = &server;
    signals.replication.nlearned = 1;
    replication_detector.learn(&s, &signals, &t);
    assert_int_equal(t.n, 1);
    assert_int_equal(t.t[0].kind, TALLY_MARK);
    past_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stories),
        cmocka_unit_test(test_who_got_one),
        cmocka_unit_test(test_long_memory),
        cmocka_unit_test(test_endless_retries),
        cmocka_unit_test(test_signals),
        cmocka_unit_test(test_conflict),
        cmocka_unit_test(test_tiny_text),
        cmocka_unit_test(test_size),
        cmocka_unit_test(test_places_are_bounded),
        cmocka_unit_test(test_addressees_are_bounded),
        cmocka_unit_test(test_laws),
        cmocka_unit_test(test_observation_maps_answers),
        cmocka_unit_test(test_learn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
