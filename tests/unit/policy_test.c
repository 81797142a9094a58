/* policy_test.c - rules are read whole or not at all, and the first that matches decides. */
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "loop.h"
#include "policy.h"

static void mistakes_are_refused_with_their_place(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        unsigned line, column;
        const char *says;
    } t[] = {
        {"", 1, 1, "there is no rule"},
        {"# a file cut short\n", 1, 1, "there is no rule"},
        {"rule a { do hold }", 1, 6, "has no 'when'"},
        {"rule a { when true }", 1, 6, "has no 'do'"},
        {"rule a { when true do drop }", 1, 23, "pass, tag, throttle, hold or reject"},
        {"rule a { when true do hodl }", 1, 23, "did you mean 'hold'"},
        {"rule a {\n  when loop.vists > 1\n  do hold }", 2, 8, "did you mean 'loop.visits'"},
        {"rule a {\n  when true and\n    loop.vists > 1\n  do hold }", 3, 5, "did you mean"},
        {"rule a { when true do tag }\nrule A { when true do tag }", 2, 6, "names must differ"},
        {"rule a { when true when true do tag }", 1, 20, "second 'when'"},
        {"rule a { when true do tag do tag }", 1, 27, "second 'do'"},
        {"rule a { when true do tag reason \"\" reason \"\" }", 1, 37, "second 'reason'"},
        {"rule a { when true do tag reason \"x }\n}", 1, 34, "no closing quote"},
        {"rule a { when true do tag reason x }", 1, 34, "a quoted text"},
        {"rule a { when true do tag reason \"{loop.visit}\" }", 1, 34, "mean {loop.visits}"},
        {"rule a { when true do tag reason \"{loop.visits\" }", 1, 34, "'{' without '}'"},
        {"rule a { when true do tag reason \"{}\" }", 1, 34, "no such fact"},
        {"rule a { when true do tag reason \"\t\" }", 1, 34, "printable ASCII"},
        {"rule a { when true do tag reason \"\xc3\xa9\" }", 1, 34, "printable ASCII"},
        {"rule { when true do tag }", 1, 6, "the rule's name"},
        {"rule a when true do tag }", 1, 8, "'{' after the rule's name"},
        {"rule a { when true do tag", 1, 26, "the end of the file"},
        {"rule a { whne true do tag }", 1, 10, "did you mean 'when'"},
        {"rule a { when true xor true do tag }", 1, 20, "'and', 'or', 'do'"},
        {"rul a { when true do tag }", 1, 1, "did you mean 'rule'"},
        {"}", 1, 1, "found '}'"},
        {"rule a { when true do tag } x", 1, 29, "found 'x'"},
        /* codes and replies */
        {"rule a { when true do hold code 450 4.7.1 }", 1, 28,
         "only throttle and reject have a code"},
        {"rule a { when true do throttle code 550 5.7.1 }", 1, 37, "code 451 4.7.1"},
        {"rule a { when true do reject code 451 4.7.1 }", 1, 35, "code 550 5.7.1"},
        {"rule a { when true do throttle code 451 5.7.1 }", 1, 37, "throttle needs codes"},
        {"rule a { when true do throttle code 451 }", 1, 37, "throttle needs codes"},
        {"rule a { when true do throttle code 4510 4.7.1 }", 1, 37, "throttle needs codes"},
        {"rule a { when true do throttle code 461 4.7.1 }", 1, 37, "throttle needs codes"},
        {"rule a { when true do throttle code 451 4.7.1.2 }", 1, 37, "throttle needs codes"},
        {"rule a { when true do throttle code 451 4.7.1234 }", 1, 37, "throttle needs codes"},
        {"rule a { when true do throttle code 451 4..1 }", 1, 37, "throttle needs codes"},
        {"rule a { when true do throttle code 451 4.7 }", 1, 37, "throttle needs codes"},
        {"rule a { when true do throttle code 421 4.7.1 }", 1, 37, "421 would end the connection"},
        {"rule a { when true do throttle code }", 1, 37, "throttle needs codes"},
        {"rule a { when true do throttle code", 1, 36, "throttle needs codes"},
        {"rule a { when true do hold reply \"x\" }", 1, 6, "only throttle and reject give one"},
        {"rule a { when true do reject reply \"\" }", 1, 36, "says nothing"},
        {"rule a { when true do reject reply \"\r\" }", 1, 36, "a reply is printable ASCII"},
        {"rule a { when true do reject reply \"{x}\" }", 1, 36, "the reply asks for {x}"},
        {"rule a { when true do reject reply \"a\" reply \"b\" }", 1, 40, "second 'reply'"},
        {"rule a { when true do reject rply \"a\" }", 1, 30, "did you mean 'reply'"},
        /* sets */
        {"sett a (\"x\")", 1, 1, "did you mean 'set'"},
        {"set a (\"x\")", 1, 1, "there is no rule"},
        {"set (\"x\")", 1, 5, "the set's name"},
        {"set ours (\"x\")", 1, 5, "@ours is what breakwater.conf says"},
        {"set a (\"x\")\nset A (\"x\")", 2, 5, "there is a set A already"},
        {"set a \"x\"", 1, 7, "'(' or 'file' after the set's name"},
        {"set a fiel \"x\"", 1, 7, "did you mean 'file'"},
        {"set a ()", 1, 8, "a quoted text or a network"},
        {"set a (x)", 1, 8, "a quoted text or a network"},
        {"set a (\"x\" \"y\")", 1, 12, "',' or ')'"},
        {"set a (\"x\", 192.0.2.1)", 1, 13, "is one of networks, and the set began with texts"},
        {"set a (192.0.2.0/33)", 1, 8, "is no network"},
        {"set a (\"\")", 1, 8, "empty text"},
        {"set a (\"x", 1, 8, "no closing quote"},
        {"set a file x", 1, 12, "a quoted text"},
        {"set a file \"\"", 1, 12, "has no name"},
        {"set a file \"b\"", 1, 12, "cannot be read here"},
        {"rule a { when relay.helo in @b do tag } set b (\"x\")", 1, 29, "there is no set '@b'"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct policy_error error = {0};
        if (policy_load(span_str(t[i].text), NULL, &error))
            fail_msg("'%s' was taken", t[i].text);
        if (!strstr(error.text, t[i].says) || error.line != t[i].line ||
            error.column != t[i].column)
            fail_msg("'%s': %u:%u: %s", t[i].text, error.line, error.column, error.text);
    }
}

static struct policy *load(const char *text)
{
    struct policy_error error;
    struct policy *p = policy_load(span_str(text), NULL, &error);
    if (!p)
        fail_msg("%u:%u: %s", error.line, error.column, error.text);
    return p;
}

/* The files of this test: one that is good, one that is not, and a missing one. */
static bool read_file(void *arg, struct arena *arena, struct span path, struct span *text,
                      char why[200])
{
    (void)arg;
    *text = (struct span){0};
    if (span_eq(path, SPAN("good")))
        *text = arena_span(arena, SPAN("# partners\nanna@a.example\n@b.example # all of b\n"));
    else if (span_eq(path, SPAN("sets/bad\x01")))
        *text = arena_span(arena, SPAN("# partners\nanna@a.example\n192.0.2.7\xff\n"));
    else if (span_eq(path, SPAN("none")))
        *text = SPAN("");
    else
        snprintf(why, 200, "cannot read /etc/%.*s: it is away", SPAN_ARG(path));
    return text->p != NULL;
}

static void sets_come_from_files(void **state)
{
    (void)state;
    static const struct policy_source source = {.read = read_file};
    static const struct {
        const char *text, *says; /* NULL: taken */
    } t[] = {
        {"set a file \"good\" rule r { when recipient.address in @a do tag }", NULL},
        {"set a file \"none\" rule r { when recipient.address in @a do tag }", NULL},
        {"set a file \"none\" rule r { when relay.address in @a do tag }", NULL},
        {"set a file \"good\" rule r { when relay.address in @a do tag }",
         "policy.conf:1:50: relay.address is a network address, and @a has mail addresses"},
        {"\n set a file \"away\"", "policy.conf:2:13: cannot read /etc/away: it is away"},
        {"\n set a file \"sets/bad\x01\"",
         "sets/bad?:3: '192.0.2.7?' is one of texts, and the set began with mail addresses"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct policy_error error = {0};
        char said[500];
        struct policy *p = policy_load(span_str(t[i].text), &source, &error);
        if ((p == NULL) != (t[i].says != NULL))
            fail_msg("'%s': %s", t[i].text, error.text);
        if (!p) {
            policy_error_print(&error, "policy.conf", said, sizeof said);
            assert_string_equal(said, t[i].says);
            policy_error_print(&error, "/etc/policy.conf", said, sizeof said);
            assert_true(strncmp(said, "/etc/", 5) == 0 && strcmp(said + 5, t[i].says) == 0);
        }
        policy_free(&p);
    }
}

static void rules_are_read_in_order(void **state)
{
    (void)state;
    struct policy *p = load("# nothing\nrule one{when true do pass}\n"
                            "rule two-2_x { reason \"why\" do tag when false } # end");
    assert_int_equal(policy_rules(p), 2);
    assert_string_equal(policy_rule_name(p, 0), "one");
    assert_string_equal(policy_rule_name(p, 1), "two-2_x");
    assert_string_equal(policy_rule_name(p, 2), "");
    policy_free(&p);
    assert_null(p);
    policy_free(&p);
    assert_int_equal(policy_rules(NULL), 0);
}

/* A message with its signals, n recipients r0@a.example ... and nothing odd. */
struct world {
    struct arena *arena;
    struct site site;
    struct envelope envelope;
    struct message *message;
    struct subject subject;
    struct signals signals;
};

static void world_open(struct world *w, size_t n)
{
    memset(w, 0, sizeof *w);
    w->arena = arena_new();
    site_defaults(&w->site);
    w->message = message_new(w->arena);
    w->envelope.recipients = arena_zero(w->arena, n * sizeof *w->envelope.recipients);
    w->envelope.nrecipients = n;
    w->envelope.client = (struct ipaddr){4, {[10] = 0xff, [11] = 0xff, 192, 0, 2, 7}};
    w->signals.replication.copy = arena_zero(w->arena, n * sizeof *w->signals.replication.copy);
    for (size_t i = 0; i < n; i++) {
        char *address = arena_printf(w->arena, "r%zu@a.example", i);
        w->envelope.recipients[i].address = span_str(address);
        w->signals.replication.copy[i].rule = 1;
    }
    w->subject.arena = w->arena;
    w->subject.site = &w->site;
    w->subject.envelope = &w->envelope;
    w->subject.message = w->message;
}

static void the_default_rules_decide(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        struct loop_signals loop;
        struct copy_signal copy;
        enum disposition disposition;
        const char *rule; /* "": none */
        const char *says; /* part of the reason */
    } t[] = {
        {"clean mail passes", {.hops = 3}, {.rule = 1}, DISP_PASS, "", NULL},
        {"30 hops pass", {.hops = 30}, {.rule = 1}, DISP_PASS, "", NULL},
        {"31 hops are a loop", {.hops = 31}, {.rule = 1}, DISP_HOLD, "loop-own", "31 servers"},
        {"3 visits of our own pass", {.own_visits = 3}, {.rule = 1}, DISP_PASS, "", NULL},
        {"4 visits of our own do not",
         {.own_visits = 4},
         {.rule = 1},
         DISP_HOLD,
         "loop-own",
         "our own servers 4 times"},
        {"2 visits are life", {.visits = 2}, {.copies = 1}, DISP_PASS, "", NULL},
        {"a first copy with 3 visits is tagged",
         {.visits = 3, .relay = {0}},
         {.rule = 1},
         DISP_TAG,
         "loop-seen",
         "3 times at unknown"},
        {"a further copy with 3 visits is held",
         {.visits = 3},
         {.copies = 1},
         DISP_HOLD,
         "loop-again",
         "this copy has been to unknown 3 times"},
        {"a further copy with 2 equal steps is held",
         {.edges = 2},
         {.copies = 2},
         DISP_HOLD,
         "loop-again",
         "already had this message"},
        {"a further copy with one is not", {.edges = 1}, {.copies = 2}, DISP_PASS, "", NULL},
        {"a further copy delivered to one address twice is held",
         {.delivered_to = 2},
         {.copies = 1},
         DISP_HOLD,
         "loop-again",
         NULL},
        {"a first one is tagged", {.delivered_to = 2}, {.rule = 1}, DISP_TAG, "loop-seen", NULL},
        {"what replication would hold is held",
         {.hops = 2},
         {.relation = REL_DETOUR, .advice = ADVICE_HOLD, .rule = 6, .copies = 212},
         DISP_HOLD,
         "duplicate",
         "its recipient already had this message. Brought back by: unknown."},
        {"what it would tag is tagged",
         {.hops = 2},
         {.relation = REL_SAME, .advice = ADVICE_TAG, .rule = 4, .copies = 1},
         DISP_TAG,
         "extra-copy",
         "(same)"},
        {"an exempt recipient is never held",
         {.hops = 40},
         {.relation = REL_EXEMPT},
         DISP_TAG,
         "loop-own",
         "40 servers"},
    };
    struct policy *p = load(policy_default);
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct world w;
        struct verdict v;
        world_open(&w, 1);
        w.signals.loop = t[i].loop;
        w.signals.replication.copy[0] = t[i].copy;
        policy_judge(&(struct ruling){.mode = MODE_ENFORCE, .policy = p}, &w.subject, &w.signals,
                     &v);
        const char *rule = v.copy[0].rule ? policy_rule_name(p, v.copy[0].rule - 1u) : "";
        if (v.copy[0].disposition != t[i].disposition || strcmp(rule, t[i].rule) != 0)
            fail_msg("%s: %s by '%s'", t[i].what, disposition_name(v.copy[0].disposition), rule);
        assert_int_equal(v.copy[0].reason == NULL, !*t[i].rule);
        bool loop = strcmp(rule, "loop-own") == 0 || strcmp(rule, "loop-again") == 0;
        assert_int_equal(loop_speaks(&t[i].loop, t[i].copy.copies > 0), loop);
        if (t[i].says && !strstr(v.copy[0].reason, t[i].says))
            fail_msg("%s: %s", t[i].what, v.copy[0].reason);
        assert_int_equal(v.count[t[i].disposition], 1);
        arena_free(&w.arena);
    }
    policy_free(&p);
}

static void the_default_rules_know_the_other_detectors(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        struct copy_signal copy;
        struct replyall_signals replyall;
        struct pingpong_signals pingpong;
        struct flood_signals flood;
        enum disposition disposition;
        const char *rule; /* "": none */
        const char *says; /* part of the reason */
    } t[] = {
        {.what = "a reply to all in a storm is held",
         .replyall = {.state = REPLYALL_STORM,
                      .to_all = true,
                      .replies = 19.4,
                      .senders = 12,
                      .need = 17,
                      .audience = 630},
         .disposition = DISP_HOLD,
         .rule = "reply-all",
         .says = "12 people wrote 19 replies to 630 people; 17 are a storm"},
        {.what = "a reply to one of them is not",
         .replyall = {.state = REPLYALL_STORM, .replies = 19},
         .rule = ""},
        {.what = "nor one while the conversation is watched",
         .replyall = {.state = REPLYALL_WATCH, .to_all = true},
         .rule = ""},
        {.what = "nor one while it cools down",
         .replyall = {.state = REPLYALL_COOLDOWN, .to_all = true},
         .rule = ""},
        {.what = "an answer of a machine to a machine is held",
         .pingpong = {.advice = {ADVICE_HOLD}, .n = 1, .flips = 6},
         .disposition = DISP_HOLD,
         .rule = "ping-pong",
         .says = "answer each other by themselves, 6 times each"},
        {.what = "many answers are tagged",
         .pingpong = {.advice = {ADVICE_TAG}, .n = 1, .flips = 20},
         .disposition = DISP_TAG,
         .rule = "ping-pong-seen",
         .says = "20 times each"},
        {.what = "a first copy of a flood waits",
         .flood = {.level = FLOOD_THROTTLE, .rate = 123.4, .baseline = 2.25, .defer = true},
         .disposition = DISP_THROTTLE,
         .rule = "flood",
         .says = "sent 123 messages a minute in the last 5 minutes, 2.2 are usual"},
        {.what = "what is within thrice the baseline does not",
         .flood = {.level = FLOOD_THROTTLE, .rate = 123},
         .rule = ""},
        {.what = "a further copy in a flood is held, not sent back",
         .copy = {.relation = REL_DETOUR, .advice = ADVICE_HOLD, .rule = 6, .copies = 1},
         .flood = {.level = FLOOD_THROTTLE, .defer = true},
         .disposition = DISP_HOLD,
         .rule = "duplicate"},
        {.what = "what the long memory knows is tagged",
         .copy = {.rule = 1, .seen_before = true},
         .disposition = DISP_TAG,
         .rule = "seen-before",
         .says = "probably had this message"},
        {.what = "an exempt recipient gets a reply to all",
         .copy = {.relation = REL_EXEMPT},
         .replyall = {.state = REPLYALL_STORM, .to_all = true},
         .disposition = DISP_TAG,
         .rule = "reply-all"},
    };
    struct policy *p = load(policy_default);
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct world w;
        struct verdict v;
        world_open(&w, 1);
        w.signals.replication.copy[0] = t[i].copy;
        w.signals.replyall = t[i].replyall;
        w.signals.pingpong = t[i].pingpong;
        w.signals.flood = t[i].flood;
        policy_judge(&(struct ruling){.mode = MODE_ENFORCE, .policy = p}, &w.subject, &w.signals,
                     &v);
        const char *rule = v.copy[0].rule ? policy_rule_name(p, v.copy[0].rule - 1u) : "";
        if (v.copy[0].disposition != t[i].disposition || strcmp(rule, t[i].rule) != 0)
            fail_msg("%s: %s by '%s'", t[i].what, disposition_name(v.copy[0].disposition), rule);
        if (t[i].says && !strstr(v.copy[0].reason, t[i].says))
            fail_msg("%s: %s", t[i].what, v.copy[0].reason);
        arena_free(&w.arena);
    }
    policy_free(&p);
}

/* Duplicate rules never hold a first copy: whatever else is known, advice and copies decide. */
static void no_default_rule_of_duplicates_holds_a_first_copy(void **state)
{
    (void)state;
    struct policy *p = load(policy_default);
    for (unsigned bits = 0; bits < 64; bits++) {
        struct world w;
        struct verdict v;
        world_open(&w, 1);
        struct copy_signal *copy = &w.signals.replication.copy[0];
        copy->seen_before = bits & 1;
        w.signals.replication.storm = bits & 2;
        w.signals.replication.convicted = bits & 4 ? 3 : 0;
        w.signals.replication.known = bits & 8;
        w.signals.flood.replicating = bits & 16;
        w.signals.loop.visits = bits & 32 ? 9 : 0;
        policy_judge(&(struct ruling){.mode = MODE_ENFORCE, .policy = p}, &w.subject, &w.signals,
                     &v);
        assert_true(v.copy[0].disposition <= DISP_TAG);
        arena_free(&w.arena);
    }
    policy_free(&p);
}

static void each_mode_does_what_it_says(void **state)
{
    (void)state;
    static const struct {
        enum mode mode;
        enum disposition done, advised;
    } t[] = {
        {MODE_ENFORCE, DISP_HOLD, DISP_HOLD},
        {MODE_MONITOR, DISP_PASS, DISP_HOLD},
        {MODE_BYPASS, DISP_PASS, DISP_PASS},
    };
    struct policy *p = load("rule all { when true do hold }");
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct world w;
        struct verdict v;
        world_open(&w, 3);
        policy_judge(&(struct ruling){.mode = t[i].mode, .policy = p}, &w.subject, &w.signals, &v);
        assert_int_equal(v.n, 3);
        assert_int_equal(v.mode, t[i].mode);
        assert_int_equal(v.copy[2].disposition, t[i].done);
        assert_int_equal(v.copy[2].advised, t[i].advised);
        assert_int_equal(v.count[t[i].done], 3);
        assert_int_equal(v.advised[t[i].advised], 3);
        arena_free(&w.arena);
    }
    struct world w;
    struct verdict v;
    world_open(&w, 2);
    policy_judge(&(struct ruling){.mode = MODE_ENFORCE, .policy = NULL}, &w.subject, &w.signals,
                 &v);
    assert_int_equal(v.count[DISP_PASS], 2);
    arena_free(&w.arena);
    policy_free(&p);
}

static void recipients_are_judged_one_by_one(void **state)
{
    (void)state;
    struct policy *p = load("rule r1 { when recipient.address == \"r1@a.example\" do hold "
                            "reason \"{recipient.address} from {relay.address}\" }"
                            "rule many { when envelope.recipients > 2 do tag "
                            "reason \"{envelope.recipients}\" }");
    struct world w;
    struct verdict v;
    world_open(&w, 3);
    policy_judge(&(struct ruling){.mode = MODE_ENFORCE, .policy = p}, &w.subject, &w.signals, &v);
    assert_int_equal(v.copy[0].disposition, DISP_TAG);
    assert_int_equal(v.copy[1].disposition, DISP_HOLD);
    assert_int_equal(v.copy[2].disposition, DISP_TAG);
    assert_string_equal(v.copy[1].reason, "r1@a.example from 192.0.2.7");
    assert_string_equal(v.copy[2].reason, "3");
    assert_ptr_equal(v.copy[0].reason, v.copy[2].reason);
    assert_int_equal(v.count[DISP_TAG], 2);
    arena_free(&w.arena);
    policy_free(&p);
}

static void recorded_facts_are_judged_alike(void **state)
{
    (void)state;
    struct policy *p = load("rule r1 { when recipient.address == \"r1@a.example\" do hold "
                            "reason \"{recipient.address} from {relay.address}\" }"
                            "rule many { when envelope.recipients > 2 do tag }");
    struct world w;
    struct verdict v;
    struct copy_verdict c;
    struct facts facts;
    for (size_t n = 2; n <= 3; n++) {
        world_open(&w, n);
        policy_judge(&(struct ruling){.mode = MODE_ENFORCE, .policy = p}, &w.subject, &w.signals,
                     &v);
        facts_of_message(&facts, &w.subject, &w.signals, UINT64_MAX);
        for (size_t i = 0; i < n; i++) {
            facts_of_recipient(&facts, &w.subject, &w.signals, i);
            policy_judge_facts(p, &facts, &c);
            assert_int_equal(c.advised, v.copy[i].advised);
            assert_int_equal(c.disposition, v.copy[i].disposition);
            assert_int_equal(c.rule, v.copy[i].rule);
            assert_ptr_equal(c.rule_name, v.copy[i].rule_name);
            if (c.rule)
                assert_string_equal(policy_reason(p, c.rule - 1u, w.arena, &facts),
                                    v.copy[i].reason);
        }
        arena_free(&w.arena);
    }
    assert_true(policy_facts(p) ==
                (UINT64_C(1) << FACT_RECIPIENT_ADDRESS | UINT64_C(1) << FACT_ENVELOPE_RECIPIENTS));
    policy_free(&p);
}

static void senders_are_told_what_the_rule_says(void **state)
{
    (void)state;
    static const struct {
        const char *rule, *reply[2]; /* of r0 and r1; NULL: none */
    } t[] = {
        {"do throttle reason \"Busy.\"", {"451 4.7.0 Busy.", "451 4.7.0 Busy."}},
        {"do throttle", {"451 4.7.0 Rule a.", "451 4.7.0 Rule a."}},
        {"do reject reason \"No.\"", {"550 5.4.6 No.", "550 5.4.6 No."}},
        {"do reject code 554 5.7.1 reason \"No.\"", {"554 5.7.1 No.", "554 5.7.1 No."}},
        {"do throttle code 450 4.2.100 reply \"Wait.\" reason \"Busy.\"",
         {"450 4.2.100 Wait.", "450 4.2.100 Wait."}},
        {"do throttle reply \"{recipient.address} from {relay.address}, 5%\"",
         {"451 4.7.0 r0@a.example from 192.0.2.7, 5%",
          "451 4.7.0 r1@a.example from 192.0.2.7, 5%"}},
        {"do throttle code # why\n 451\n 4.7.1 reason \"{recipient.address}\"",
         {"451 4.7.1 r0@a.example", "451 4.7.1 r1@a.example"}},
        {"do throttle reply \"{message.subject}\"", {"451 4.7.0 x?Y: z", "451 4.7.0 x?Y: z"}},
        {"do hold", {NULL, NULL}},
        {"do tag", {NULL, NULL}},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char text[300];
        struct world w;
        struct verdict v;
        snprintf(text, sizeof text, "rule a { when true %s }", t[i].rule);
        struct policy *p = load(text);
        world_open(&w, 2);
        w.subject.fp.subject = SPAN("x\nY: z");
        policy_judge(&(struct ruling){.mode = MODE_ENFORCE, .policy = p}, &w.subject, &w.signals,
                     &v);
        for (size_t r = 0; r < 2; r++) {
            assert_int_equal(v.copy[r].reply == NULL, t[i].reply[r] == NULL);
            if (v.copy[r].reply)
                assert_string_equal(v.copy[r].reply, t[i].reply[r]);
        }
        arena_free(&w.arena);
        policy_free(&p);
    }
}

static void a_reply_fits_its_line(void **state)
{
    (void)state;
    static char big[1000];
    memset(big, 'a', sizeof big - 1);
    struct policy *p =
        load("rule a { when true do reject code 550 5.123.123 reply "
             "\"{message.subject}{message.subject}{message.subject}{message.subject}\" }");
    struct world w;
    struct verdict v;
    world_open(&w, 1);
    w.subject.fp.subject = span_str(big);
    policy_judge(&(struct ruling){.mode = MODE_ENFORCE, .policy = p}, &w.subject, &w.signals, &v);
    assert_true(strlen(v.copy[0].reply) > 470 && strlen(v.copy[0].reply) < 490);
    arena_free(&w.arena);
    policy_free(&p);
}

static void what_a_trial_judged_says_so(void **state)
{
    (void)state;
    static const struct {
        bool listener, domain, trial[2]; /* a.example is the domain of r0 */
    } t[] = {
        {false, false, {false, false}},
        {true, false, {true, true}},
        {false, true, {true, false}},
    };
    struct span domain = SPAN("a.example");
    struct policy *p = load("rule a { when true do tag }");
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct world w;
        struct verdict v;
        world_open(&w, 2);
        w.envelope.recipients[1].address = SPAN("r1@b.example");
        struct ruling ruling = {.mode = MODE_MONITOR,
                                .policy = p,
                                .on_trial = t[i].listener,
                                .trial = t[i].domain ? p : NULL,
                                .domains = &domain,
                                .ndomains = 1};
        policy_judge(&ruling, &w.subject, &w.signals, &v);
        assert_int_equal(v.copy[0].trial, t[i].trial[0]);
        assert_int_equal(v.copy[1].trial, t[i].trial[1]);
        arena_free(&w.arena);
    }
    policy_free(&p);
}

/* What a set or the site says is asked of the message at hand, and of facts that were recorded. */
static void sets_are_asked(void **state)
{
    (void)state;
    struct policy *p = load("set people (\"r1@a.example\", \"@b.example\")\n"
                            "set nets (192.0.2.0/29, 2001:db8::/32)\n"
                            "rule one { when recipient.address in @people do tag }"
                            "rule two { when relay.address in @nets and recipient.domain in @ours "
                            "do tag }");
    struct span ours = SPAN("a.example");
    struct world w;
    struct verdict v;
    struct facts facts;
    struct copy_verdict c;
    world_open(&w, 2);
    for (int mine = 0; mine < 2; mine++) {
        w.site.own_domains = &ours;
        w.site.nown_domains = (size_t)mine;
        policy_judge(&(struct ruling){.mode = MODE_ENFORCE, .policy = p}, &w.subject, &w.signals,
                     &v);
        assert_int_equal(v.copy[0].rule, mine ? 2 : 0);
        assert_int_equal(v.copy[1].rule, 1);
        facts_of_message(&facts, &w.subject, &w.signals, UINT64_MAX);
        struct mallinfo2 before = mallinfo2();
        for (size_t i = 0; i < 200; i++) {
            facts_of_recipient(&facts, &w.subject, &w.signals, i % 2);
            policy_judge_facts(p, &facts, &c);
            assert_int_equal(c.rule, v.copy[i % 2].rule);
        }
        assert_int_equal(before.uordblks, mallinfo2().uordblks); /* it takes no memory */
    }
    arena_free(&w.arena);
    policy_free(&p);
}

static void an_exempt_recipient_gets_the_copy_whatever_rules_say(void **state)
{
    (void)state;
    static const struct {
        const char *policy;
        enum disposition exempt, other;
    } t[] = {
        {"rule a { when true do pass }", DISP_PASS, DISP_PASS},
        {"rule a { when true do tag }", DISP_TAG, DISP_TAG},
        {"rule a { when true do throttle }", DISP_TAG, DISP_THROTTLE},
        {"rule a { when true do hold }", DISP_TAG, DISP_HOLD},
        {"rule a { when true do reject }", DISP_TAG, DISP_REJECT},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct policy *p = load(t[i].policy);
        struct world w;
        struct verdict v;
        world_open(&w, 2);
        w.signals.replication.copy[0].relation = REL_EXEMPT;
        policy_judge(&(struct ruling){.mode = MODE_ENFORCE, .policy = p}, &w.subject, &w.signals,
                     &v);
        assert_int_equal(v.copy[0].disposition, t[i].exempt);
        assert_int_equal(v.copy[1].disposition, t[i].other);
        arena_free(&w.arena);
        policy_free(&p);
    }
}

static void an_exempt_recipient_gets_first_copies_too(void **state)
{
    (void)state;
    struct policy *p = load(policy_default);
    struct world w;
    struct verdict v;
    world_open(&w, 2);
    w.envelope.recipients[0].address = SPAN("Postmaster@a.example");
    w.signals.replyall = (struct replyall_signals){.state = REPLYALL_STORM, .to_all = true};
    policy_judge(&(struct ruling){.mode = MODE_ENFORCE, .policy = p}, &w.subject, &w.signals, &v);
    assert_int_equal(v.copy[0].disposition, DISP_TAG);
    assert_int_equal(v.copy[1].disposition, DISP_HOLD);
    arena_free(&w.arena);
    policy_free(&p);
}

static void signals_may_be_missing(void **state)
{
    (void)state;
    struct policy *p = load(policy_default);
    struct world w;
    struct verdict v;
    world_open(&w, 2);
    w.signals.replication.copy = NULL; /* the store did not answer */
    w.signals.replication.degraded = true;
    policy_judge(&(struct ruling){.mode = MODE_ENFORCE, .policy = p}, &w.subject, &w.signals, &v);
    assert_int_equal(v.count[DISP_PASS], 2);
    w.envelope.nrecipients = 0;
    policy_judge(&(struct ruling){.mode = MODE_ENFORCE, .policy = p}, &w.subject, &w.signals, &v);
    assert_int_equal(v.n, 0);
    arena_free(&w.arena);
    policy_free(&p);
}

static void reasons_are_made_harmless(void **state)
{
    (void)state;
    static char big[5000];
    memset(big, 'a', sizeof big - 1);
    struct facts f = {0};
    struct arena *arena = arena_new();
    f.value[FACT_MESSAGE_SUBJECT] =
        (struct fact_value){.type = TYPE_STRING, .text = SPAN("a\r\nX: {loop.hops}\x7f\xc3\0")};
    f.value[FACT_MESSAGE_FROM] = (struct fact_value){.type = TYPE_STRING, .text = span_str(big)};
    f.value[FACT_ENVELOPE_FROM] = (struct fact_value){.type = TYPE_STRING};
    f.value[FACT_LOOP_RELAY] = (struct fact_value){.type = TYPE_STRING};
    f.value[FACT_LOOP_HOPS] = (struct fact_value){.type = TYPE_NUMBER, .number = 31};
    f.value[FACT_MESSAGE_BYTES] = (struct fact_value){.type = TYPE_NUMBER, .number = 1e9};
    f.value[FACT_MESSAGE_LIST] = (struct fact_value){.type = TYPE_BOOL, .yes = true};
    f.value[FACT_REPLYALL_EVIDENCE] = (struct fact_value){.type = TYPE_STRING};
    f.value[FACT_REPLICATION_RESTED] =
        (struct fact_value){.type = TYPE_NUMBER, .number = 28.9 * 86400e3};
    f.value[FACT_REPLICATION_COPIES] = (struct fact_value){.type = TYPE_NUMBER, .number = 1e300};
    f.value[FACT_FLOOD_RATE] = (struct fact_value){.type = TYPE_NUMBER, .number = 99.6};
    f.value[FACT_FLOOD_BASELINE] = (struct fact_value){.type = TYPE_NUMBER, .number = 2.04};
    f.value[FACT_FLOOD_HOUR] = (struct fact_value){.type = TYPE_NUMBER, .number = 0};
    static const struct {
        const char *text, *expanded;
    } t[] = {
        {"", ""},
        {"{replyall.evidence}", "nothing odd"},
        {"{replication.rested} {replication.copies}", "28 days 1e+300"},
        {"{flood.rate} {flood.baseline} {flood.hour}", "100 2 0"},
        {"plain", "plain"},
        {"{loop.hops}", "31"},
        {"a{loop.hops}{loop.hops}b", "a3131b"},
        {"{message.bytes} {message.list}", "1000000000 yes"},
        {"[{message.subject}]", "[a??X: {loop.hops}???]"}, /* once: no expansion of a value */
        {"{envelope.from} {loop.relay}", "<> unknown"},
        {"{nothing} {", "{nothing} {"}, /* refused when loaded; here left alone */
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++)
        assert_string_equal(reason_expand(arena, t[i].text, &f), t[i].expanded);
    assert_int_equal(strlen(reason_expand(arena, "{message.from}.", &f)), 201);
    arena_free(&arena);
}

/* The words of a policy, comments removed, one blank between. */
static char *words(struct arena *arena, struct span text)
{
    char *out = arena_alloc(arena, text.n + 1);
    size_t n = 0;
    bool quoted = false;
    for (size_t i = 0; i < text.n; i++) {
        size_t blank = quoted ? 0 : expr_blank(span_from(text, i));
        if (blank) {
            out[n++] = ' ';
            i += blank - 1;
            continue;
        }
        quoted ^= text.p[i] == '"';
        out[n++] = (char)text.p[i];
    }
    out[n] = '\0';
    return span_trim(span_of(out, n)).n ? (char *)(out + (*out == ' ')) : out;
}

static void the_sample_is_the_default(void **state)
{
    (void)state;
    static uint8_t text[100000];
    FILE *f = fopen("contrib/policy.conf", "r");
    if (!f)
        f = fopen("../contrib/policy.conf", "r");
    if (!f)
        skip(); /* not run from the source directory */
    size_t n = fread(text, 1, sizeof text, f);
    fclose(f);
    struct arena *arena = arena_new();
    struct span builtin = span_str(policy_default);
    assert_string_equal(words(arena, span_of(text, n)), words(arena, builtin));
    arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sets_come_from_files),
        cmocka_unit_test(rules_are_read_in_order),
        cmocka_unit_test(mistakes_are_refused_with_their_place),
        cmocka_unit_test(the_default_rules_decide),
        cmocka_unit_test(the_default_rules_know_the_other_detectors),
        cmocka_unit_test(no_default_rule_of_duplicates_holds_a_first_copy),
        cmocka_unit_test(each_mode_does_what_it_says),
        cmocka_unit_test(recipients_are_judged_one_by_one),
        cmocka_unit_test(recorded_facts_are_judged_alike),
        cmocka_unit_test(senders_are_told_what_the_rule_says),
        cmocka_unit_test(a_reply_fits_its_line),
        cmocka_unit_test(what_a_trial_judged_says_so),
        cmocka_unit_test(sets_are_asked),
        cmocka_unit_test(an_exempt_recipient_gets_the_copy_whatever_rules_say),
        cmocka_unit_test(an_exempt_recipient_gets_first_copies_too),
        cmocka_unit_test(signals_may_be_missing),
        cmocka_unit_test(reasons_are_made_harmless),
        cmocka_unit_test(the_sample_is_the_default),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
