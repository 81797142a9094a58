/* backtest_test.c - what a policy would have done is told from recorded copies, one by one. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "backtest.h"
#include "id.h"

static const int64_t t0 = 1138037000000, day = 24 * 3600 * 1000LL;

struct fixture {
    char dir[32];
    struct journal *journal;
    struct policy *policy;
    struct site site;
    struct backtest b;
    struct arena *arena;
    uint64_t tx;
};

static int64_t the_clock(void)
{
    return t0;
}

static int open_fixture(void **state)
{
    char error[512];
    struct fixture *f = calloc(1, sizeof *f);
    strcpy(f->dir, "/tmp/backtest_test.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    assert_non_null(f->journal = journal_open(f->dir, 30 * day, error));
    f->arena = arena_new();
    site_defaults(&f->site);
    *state = f;
    return 0;
}

static int close_fixture(void **state)
{
    struct fixture *f = *state;
    journal_close(&f->journal);
    DIR *d = opendir(f->dir);
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.')
            unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
    rmdir(f->dir);
    if (f->b.arena)
        backtest_free(&f->b);
    policy_free(&f->policy);
    arena_free(&f->arena);
    free(f);
    return 0;
}

/* A copy as it was recorded. */
struct copy {
    const char *rcpt, *subject;
    unsigned copies, passed;
    enum relation relation;
    enum disposition advised;
    const char *rule;
    uint8_t k;
    bool alone; /* a transaction of its own */
};

/* NULL facts: rows of that kind without. */
static void record(struct fixture *f, const struct copy *c, enum journal_facts kind)
{
    uint8_t of_message[FACT_PACK_MESSAGE], of_copy[FACT_PACK_COPY];
    struct recipient rcpt = {.address = span_str(c->rcpt)};
    struct envelope e = {.recipients = &rcpt, .nrecipients = 1, .reversepath = SPAN("a@a.example")};
    struct subject s = {.envelope = &e, .site = &f->site, .listener = SPAN("in")};
    struct copy_signal copy = {
        .relation = c->relation, .copies = c->copies, .passed = c->passed, .rule = 1};
    struct signals signals = {.replication = {.copy = &copy}};
    struct facts facts;
    s.fp.from = e.reversepath;
    s.fp.subject = span_str(c->subject);
    facts_of_message(&facts, &s, &signals, FACTS_PACKED);
    facts_of_recipient(&facts, &s, &signals, 0);
    size_t m = facts_pack(&facts, false, of_message), n = facts_pack(&facts, true, of_copy);
    f->tx += c->alone || !f->tx;
    struct journal_row r = {
        .tx = f->tx,
        .time = t0 + (int64_t)f->tx * 1000,
        .k = {{c->k}},
        .disposition = DISP_PASS,
        .advised = (uint8_t)c->advised,
        .relation = (uint8_t)c->relation,
        .copies = c->copies,
        .from = e.reversepath,
        .rcpt = rcpt.address,
        .client = SPAN("192.0.2.7"),
        .door = SPAN("in"),
        .rule = span_str(c->rule),
        .facts = (uint8_t)kind,
        .of_message = span_of(of_message, m),
        .of_copy = span_of(of_copy, n),
    };
    journal_add(f->journal, &r);
}

static const struct backtest *run(struct fixture *f, const char *rules, int64_t since)
{
    struct policy_error error;
    struct backtest_asks asks = {.dir = f->dir, .site = &f->site, .examples = 2, .since = since};
    journal_flush(f->journal, t0);
    if (f->b.arena)
        backtest_free(&f->b);
    policy_free(&f->policy);
    f->policy = policy_load(span_str(rules), NULL, &error);
    if (!f->policy)
        fail_msg("%s", error.text);
    asks.policy = f->policy;
    assert_int_equal(backtest_run(&asks, &f->b), 0);
    return &f->b;
}

static const char hold_all[] = "rule duplicate { when replication.copies >= 0 do hold "
                               "reason \"copy {replication.copies} of {message.subject}\" }";

static void each_kind_of_change_is_told_apart(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *name;
        struct copy copy;
        const char *rules;
        enum disposition now;
        int kind; /* -1: no change */
    } cases[] = {
        {"a first copy held is new mail",
         {"b@b.example", "hi", 0, 0, REL_FIRST, DISP_PASS, "", 1, true},
         hold_all,
         DISP_HOLD,
         BACKTEST_HURT},
        {"a second copy, while the first was not passed on, too",
         {"b@b.example", "hi", 1, 0, REL_SAME, DISP_PASS, "", 1, true},
         hold_all,
         DISP_HOLD,
         BACKTEST_HURT},
        {"a further copy held is not",
         {"b@b.example", "hi", 1, 1, REL_DETOUR, DISP_PASS, "", 1, true},
         hold_all,
         DISP_HOLD,
         BACKTEST_OTHER},
        {"what was held is held",
         {"b@b.example", "hi", 0, 0, REL_FIRST, DISP_HOLD, "replyall", 1, true},
         hold_all,
         DISP_HOLD,
         -1},
        {"held as well, what was rejected",
         {"b@b.example", "hi", 0, 0, REL_FIRST, DISP_REJECT, "mine", 1, true},
         hold_all,
         DISP_HOLD,
         BACKTEST_OTHER},
        {"held for good, what was to wait",
         {"b@b.example", "hi", 0, 0, REL_FIRST, DISP_THROTTLE, "flood", 1, true},
         hold_all,
         DISP_HOLD,
         BACKTEST_HURT},
        {"who is exempt gets it, tagged",
         {"postmaster@b.example", "hi", 0, 0, REL_FIRST, DISP_PASS, "", 1, true},
         hold_all,
         DISP_TAG,
         BACKTEST_OTHER},
        {"who was exempt gets it, tagged",
         {"b@b.example", "hi", 3, 1, REL_EXEMPT, DISP_TAG, "duplicate", 1, true},
         hold_all,
         DISP_TAG,
         -1},
        {"new mail rejected is worse than held",
         {"b@b.example", "hi", 0, 0, REL_FIRST, DISP_PASS, "", 1, true},
         "rule no { when envelope.from matches \"*@a.example\" do reject }",
         DISP_REJECT,
         BACKTEST_HURT},
        {"new mail throttled waits",
         {"b@b.example", "hi", 0, 0, REL_FIRST, DISP_TAG, "", 1, true},
         "rule slow { when relay.address == \"192.0.2.7\" do throttle }",
         DISP_THROTTLE,
         BACKTEST_DELAYED},
        {"a further copy throttled harms nobody",
         {"b@b.example", "hi", 1, 1, REL_DETOUR, DISP_TAG, "", 1, true},
         "rule slow { when recipient.domain == \"b.example\" do throttle }",
         DISP_THROTTLE,
         BACKTEST_OTHER},
        {"no rule matches: it passes",
         {"b@b.example", "hi", 1, 1, REL_DETOUR, DISP_HOLD, "duplicate", 1, true},
         "rule never { when message.subject == \"ho\" do hold }",
         DISP_PASS,
         BACKTEST_OTHER},
        {"networks, domains and listeners are known",
         {"b@b.example", "hi", 0, 0, REL_FIRST, DISP_PASS, "", 1, true},
         "rule net { when relay.address in 192.0.2.0/24 and envelope.from_domain == \"a.example\" "
         "and message.from_domain == \"a.example\" and recipient.domain == \"b.example\" "
         "and relay.listener == \"in\" do tag }",
         DISP_TAG,
         BACKTEST_OTHER},
        {"so are the sets of the configuration",
         {"postmaster@b.example", "hi", 0, 0, REL_FIRST, DISP_PASS, "", 1, true},
         "rule postmasters { when recipient.address in @exempt do tag }",
         DISP_TAG,
         BACKTEST_OTHER},
        {"the Subject decides",
         {"b@b.example", "hi", 1, 1, REL_DETOUR, DISP_HOLD, "duplicate", 1, true},
         "rule one { when message.subject == \"hi\" and replication.relation == \"detour\" do tag "
         "}",
         DISP_TAG,
         BACKTEST_OTHER},
    };
    int64_t since = t0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        record(f, &cases[i].copy, JOURNAL_FACTS);
        since = t0 + (int64_t)f->tx * 1000; /* the last one only */
        const struct backtest *b = run(f, cases[i].rules, since);
        bool good = b->copies == 1 && b->now[cases[i].now] == 1 &&
                    b->then[cases[i].copy.advised] == 1 && b->changed == (cases[i].kind >= 0);
        for (int k = 0; k < BACKTEST_KINDS; k++)
            good &= b->kind[k] == (k == cases[i].kind) && b->nexamples[k] == b->kind[k];
        if (!good || backtest_hurts(b) != (cases[i].kind == BACKTEST_HURT))
            fail_msg("%s", cases[i].name);
    }
}

static void a_storm_is_summed_up_in_a_sentence(void **state)
{
    struct fixture *f = *state;
    static const char storm[] = "rule again { when replication.copies > 3 do hold }";
    char rcpt[32];
    for (unsigned i = 0; i < 301; i++) {
        snprintf(rcpt, sizeof rcpt, "r%u@b.example", i);
        for (unsigned k = 0; k < 8; k++)
            record(f,
                   &(struct copy){rcpt, "storm", k, k > 0, k ? REL_DETOUR : REL_FIRST, DISP_PASS,
                                  "", 7, i % 50 == 0},
                   JOURNAL_FACTS);
    }
    const struct backtest *b = run(f, storm, 0);
    assert_string_equal(backtest_sentence(b, f->arena),
                        "would hold 1,204 copies of 1 message and 0 others; the policy in force "
                        "held 0");
    assert_false(backtest_hurts(b));
    assert_int_equal(b->copies, 8 * 301);
    assert_int_equal(b->transactions, 7 * 8);
    assert_int_equal(b->changed, 1204);
    assert_int_equal(b->nchanges, 1);
    assert_string_equal(b->changes[0].now.rule, "again");
    assert_string_equal(b->changes[0].then.rule, "");
    assert_int_equal(b->nexamples[BACKTEST_OTHER], 2);
    assert_int_equal(b->nrules, 2);
    assert_int_equal(b->rules[0].copies, 1204);
    assert_int_equal(b->rules[0].now[DISP_HOLD], 1204);
    assert_int_equal(b->rules[1].new_mail, 301);
    b = run(f, hold_all, 0);
    assert_string_equal(backtest_sentence(b, f->arena),
                        "would hold 2,107 copies of 1 message and 301 others; the policy in force "
                        "held 0");
    assert_true(backtest_hurts(b));
    assert_int_equal(b->changes[0].kind, BACKTEST_HURT); /* first, though there are more others */
    assert_int_equal(b->changes[0].copies, 301);
    assert_string_equal(b->examples[BACKTEST_HURT][0].reason, "copy 0 of storm");
    assert_true(span_eq(b->examples[BACKTEST_HURT][1].rcpt, SPAN("r1@b.example")));
}

static void messages_held_are_counted_once(void **state)
{
    struct fixture *f = *state;
    for (unsigned i = 0; i < 5000; i++) {
        struct copy c = {"b@b.example", "x", 1, 1, REL_DETOUR, DISP_HOLD, "d", 0, true};
        c.k = (uint8_t)(i % 200); /* 0: a key of zeros */
        record(f, &c, JOURNAL_FACTS);
    }
    const struct backtest *b = run(f, hold_all, 0);
    assert_int_equal(b->held_again, 5000);
    assert_int_equal(b->held_messages, 200);
    assert_int_equal(b->changed, 0);
    assert_int_equal(b->then[DISP_HOLD], 5000);
}

static void what_cannot_be_compared_is_counted(void **state)
{
    struct fixture *f = *state;
    const struct copy c = {"b@b.example", "hi", 0, 0, REL_FIRST, DISP_PASS, "", 1, true};
    struct copy by_people = c;
    by_people.rule = "entry:AAAAAAAAAAAAA"; /* as entry_new() calls it */
    record(f, &c, JOURNAL_UNJUDGED);
    record(f, &by_people, JOURNAL_FACTS);
    const struct backtest *b = run(f, hold_all, 0);
    assert_int_equal(b->copies, 0);
    assert_int_equal(b->gap[GAP_UNJUDGED], 1);
    assert_int_equal(b->gap[GAP_PEOPLE], 1);
    assert_false(backtest_hurts(b));
    assert_string_equal(backtest_sentence(b, f->arena),
                        "There is no recorded mail to compare with.");
    record(f, &c, JOURNAL_FACTS);
    b = run(f, "rule e { when flood.evidence matches \"*odd*\" do hold }", 0);
    assert_int_equal(b->copies, 0);
    assert_int_equal(b->gap[GAP_FACTS], 1);
    assert_true(b->unknown == UINT64_C(1) << FACT_FLOOD_EVIDENCE);
    b = run(f, hold_all, 0);
    assert_int_equal(b->copies, 1);
}

static void many_different_changes_are_bounded(void **state)
{
    struct fixture *f = *state;
    char rule[16];
    for (unsigned i = 0; i < 700; i++) {
        snprintf(rule, sizeof rule, "rule%u", i);
        record(f, &(struct copy){"b@b.example", "x", 1, 1, REL_DETOUR, DISP_PASS, rule, 1, true},
               JOURNAL_FACTS);
    }
    const struct backtest *b = run(f, hold_all, 0);
    assert_int_equal(b->changed, 700);
    assert_int_equal(b->nchanges + b->changes_left_out, 700);
    assert_true(b->changes_left_out > 0);
}

static void a_journal_that_cannot_be_read_is_an_error(void **state)
{
    struct fixture *f = *state;
    run(f, hold_all, 0);
    struct backtest b;
    struct backtest_asks asks = {.dir = "/nowhere/at/all", .policy = f->policy};
    assert_int_equal(backtest_run(&asks, &b), -1);
    assert_int_equal(errno, ENOENT);
    assert_int_equal(b.copies, 0);
    backtest_free(&b);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, open_fixture, close_fixture)
int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(each_kind_of_change_is_told_apart),  CASE(a_storm_is_summed_up_in_a_sentence),
        CASE(messages_held_are_counted_once),     CASE(what_cannot_be_compared_is_counted),
        CASE(many_different_changes_are_bounded), CASE(a_journal_that_cannot_be_read_is_an_error),
    };
    clock_set(the_clock);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
