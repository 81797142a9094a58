/* lint_test.c - rules that would stop everybody's mail are told from rules that do not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "lint.h"

static struct lint look(struct arena *arena, const char *text, const char *domain)
{
    struct policy_error e;
    struct lint out;
    struct policy *p = policy_load(span_str(text), NULL, &e);
    if (!p)
        fail_msg("%s: %u:%u: %s", text, e.line, e.column, e.text);
    lint_policy(arena, p, span_str(domain), &out);
    for (size_t i = 0; i < out.n; i++) /* names die with the policy */
        out.found[i].rule = arena_str(arena, span_str(out.found[i].rule));
    policy_free(&p);
    return out;
}

static void findings(void **state)
{
    (void)state;
    static const struct {
        const char *sentence, *text;
        size_t faults, warnings;
        const char *says; /* the first finding */
    } t[] = {
        {"the built-in rules", policy_default, 0, 0, NULL},
        {"letting all pass", "rule a { when true do pass }", 0, 0, NULL},
        {"tagging all", "rule a { when true do tag }", 0, 0, NULL},
        {"holding all", "rule a { when true do hold }", 1, 1, "stop everybody's mail"},
        {"rejecting all", "rule a { when true do reject }", 1, 1, "would be rejected"},
        {"refusing all for a time", "rule a { when true do throttle }", 1, 0, "refused for a time"},
        {"every message is a storm",
         "rule storm { when replication.storm or replication.copies >= 0 do hold }", 1, 0,
         "the first copy of an ordinary letter"},
        {"one copy too early", "rule a { when replication.passed < 1 do hold }", 1, 0, "stop"},
        {"further copies", "rule a { when replication.copies >= 1 do hold }", 0, 0, NULL},
        {"a storm's copies", "rule a { when replication.storm do hold }", 0, 0, NULL},
        {"whoever is not trusted", "rule a { when not relay.trusted do hold }", 1, 0, "stop"},
        {"whoever is trusted", "rule a { when relay.trusted do hold }", 0, 1,
         "a letter through a trusted server would be held"},
        {"all but newsletters",
         "rule a { when message.list do pass }\nrule b { when true do hold }", 1, 1, "stop"},
        {"the letter passes first", "rule a { when true do pass }\nrule b { when true do hold }", 0,
         2, "never asked: a before it"},
        {"answers", "rule a { when message.reply do hold }", 0, 2, "an answer to a letter would"},
        {"newsletters", "rule a { when message.list do reject }", 0, 2, "a newsletter would"},
        {"the null reverse-path", "rule a { when envelope.from == \"\" do hold }", 0, 2, "machine"},
        {"large mail", "rule a { when message.bytes > 10MB do hold }", 0, 2, "20 MB"},
        {"larger mail", "rule a { when message.bytes > 40MB do hold }", 0, 1, "asks nothing"},
        {"many recipients", "rule a { when message.visible > 40 do throttle }", 0, 1, "50 people"},
        {"without memory", "rule a { when store.degraded do throttle }", 0, 1, "memory"},
        {"one stranger", "rule a { when relay.name == \"bad.example\" do reject }", 0, 0, NULL},
        {"one sender", "rule a { when message.from == \"bad@bad.example\" do hold }", 0, 1,
         "asks nothing about replication"},
        {"our domain", "rule a { when recipient.domain == \"ours.example\" do hold }", 1, 1,
         "stop"},
        {"another domain", "rule a { when recipient.domain == \"theirs.example\" do hold }", 0, 1,
         "asks nothing"},
        {"what never matches", "rule a { when false do hold }\nrule b { when true do pass }", 0, 2,
         "never matches"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct arena *arena = arena_new();
        struct lint l = look(arena, t[i].text, "ours.example");
        if (l.faults != t[i].faults || l.n - l.faults != t[i].warnings)
            fail_msg("%s: %zu faults, %zu warnings: %s", t[i].sentence, l.faults, l.n - l.faults,
                     l.n ? l.found[0].detail : "");
        if (t[i].says && !strstr(l.found[0].detail, t[i].says))
            fail_msg("%s: %s", t[i].sentence, l.found[0].detail);
        arena_free(&arena);
    }
}

static void a_finding_names_its_rule_and_line(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct lint l = look(arena,
                         "# first\nrule quiet { when false do tag }\n\n"
                         "rule loud {\n when true do hold }\nrule late { when true do pass }\n",
                         "");
    assert_int_equal(l.n, 4);
    assert_true(l.found[0].fault);
    assert_string_equal(l.found[0].rule, "loud");
    assert_int_equal(l.found[0].line, 4);
    assert_string_equal(l.found[1].rule, "quiet");
    assert_int_equal(l.found[1].line, 2);
    assert_string_equal(l.found[2].rule, "late");
    assert_int_equal(l.found[2].line, 6);
    arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(findings),
        cmocka_unit_test(a_finding_names_its_rule_and_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
