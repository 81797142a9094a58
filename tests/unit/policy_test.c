/* policy_test.c - rules are read whole or not at all, and the first that matches decides. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

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
        cmocka_unit_test(rules_are_read_in_order),
        cmocka_unit_test(mistakes_are_refused_with_their_place),
        cmocka_unit_test(the_default_rules_decide),
        cmocka_unit_test(the_default_rules_know_the_other_detectors),
        cmocka_unit_test(no_default_rule_of_duplicates_holds_a_first_copy),
        cmocka_unit_test(each_mode_does_what_it_says),
        cmocka_unit_test(recipients_are_judged_one_by_one),
        cmocka_unit_test(recorded_facts_are_judged_alike),
        cmocka_unit_test(an_exempt_recipient_gets_the_copy_whatever_rules_say),
        cmocka_unit_test(an_exempt_recipient_gets_first_copies_too),
        cmocka_unit_test(signals_may_be_missing),
        cmocka_unit_test(reasons_are_made_harmless),
        cmocka_unit_test(the_sample_is_the_default),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
