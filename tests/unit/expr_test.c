/* expr_test.c - what `when` accepts, what it means, and how it refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "expr.h"

static struct facts facts;

static void set_number(enum fact f, double n)
{
    facts.value[f] = (struct fact_value){.type = TYPE_NUMBER, .number = n};
}

static void set_text(enum fact f, const char *s)
{
    facts.value[f] = (struct fact_value){.type = TYPE_STRING, .text = span_str(s)};
}

static int some_facts(void **state)
{
    (void)state;
    for (int i = 0; i < FACT_COUNT; i++)
        facts.value[i].type = fact_table[i].type;
    set_number(FACT_LOOP_VISITS, 3);
    set_number(FACT_LOOP_HOPS, 30);
    set_number(FACT_REPLICATION_COPIES, 0);
    set_number(FACT_MESSAGE_BYTES, 20.0 * 1024 * 1024);
    set_text(FACT_ENVELOPE_FROM, "");
    set_text(FACT_RECIPIENT_ADDRESS, "Ann@Example.org");
    set_text(FACT_MESSAGE_SUBJECT, "Re: \"all\"");
    facts.value[FACT_MESSAGE_LIST] = (struct fact_value){.type = TYPE_BOOL, .yes = true};
    return 0;
}

static void expressions_mean_what_they_say(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool truth;
    } t[] = {
        {"true", true},
        {"false", false},
        {"not false", true},
        {"not not true", true},
        {"message.list", true},
        {"not message.list", false},
        {"message.list == true", true},
        {"message.list != false", true},
        {"relay.trusted", false},
        /* borders of numbers */
        {"loop.visits > 2", true},
        {"loop.visits > 3", false},
        {"loop.visits >= 3", true},
        {"loop.visits >= 4", false},
        {"loop.visits < 3", false},
        {"loop.visits < 4", true},
        {"loop.visits <= 3", true},
        {"loop.visits <= 2", false},
        {"loop.visits == 3", true},
        {"loop.visits == 3.0", true},
        {"loop.visits != 3", false},
        {"3 == loop.visits", true},
        {"loop.hops > loop.visits", true},
        {"loop.visits>2 and loop.hops==30", true},
        /* units */
        {"message.bytes == 20MB", true},
        {"message.bytes == 20480KB", true},
        {"message.bytes == 20971520", true},
        {"message.bytes > 0.01GB", true},
        {"60s == 1m and 60m == 1h and 24h == 1d and 1s == 1000ms", true},
        {"5% < 6% and 50% == 50.0%", true},
        /* precedence: not binds before and, and before or */
        {"true or false and false", true},
        {"(true or false) and false", false},
        {"not false and false", false},
        {"not (false and false)", true},
        {"false and true or true", true},
        {"false or true and true", true},
        {"true and false or false or true", true},
        {"false or (false or (false or loop.visits == 3))", true},
        {"(true)", true},
        {"not (true or true) or (false and true)", false},
        /* texts */
        {"recipient.address == \"ann@example.ORG\"", true},
        {"recipient.address == \"ann@example.or\"", false},
        {"recipient.address != \"bob@example.org\"", true},
        {"envelope.from == \"\"", true},
        {"message.subject == \"re: \\\"ALL\\\"\"", true},
        /* lists */
        {"loop.visits in (1, 2, 3)", true},
        {"loop.visits in (1, 2)", false},
        {"recipient.address in (\"x\", \"ANN@example.org\")", true},
        {"not recipient.address in (\"x\")", true},
        /* patterns */
        {"recipient.address matches \"*@example.org\"", true},
        {"recipient.address matches \"*@EXAMPLE.*\"", true},
        {"recipient.address matches \"?nn@*\"", true},
        {"recipient.address matches \"??nn@*\"", false},
        {"recipient.address matches \"example.org\"", false},
        {"recipient.address matches \"*\"", true},
        {"recipient.address matches \"\"", false},
        {"envelope.from matches \"*\"", true},
        {"envelope.from matches \"**\"", true},
        {"envelope.from matches \"?\"", false},
        {"envelope.from matches \"\"", true},
        {"recipient.address matches \"*n*n*e*o*g\"", true},
        {"recipient.address matches \"*n*n*n*\"", false},
        /* comments and line ends are blanks */
        {"# why\nloop.visits # how often\n > 2", true},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct arena *arena = arena_new();
        struct expr_error error;
        size_t used;
        struct expr *e = expr_compile(arena, span_str(t[i].text), &used, &error);
        if (!e)
            fail_msg("%s: %s", t[i].text, error.text);
        if (expr_true(e, &facts) != t[i].truth)
            fail_msg("%s is not %d", t[i].text, t[i].truth);
        assert_int_equal(used, strlen(t[i].text));
        arena_free(&arena);
    }
}

static void mistakes_are_refused_with_their_place(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        unsigned line, column;
        const char *says; /* part of the sentence */
    } t[] = {
        {"", 1, 1, "ends where"},
        {"loop.vists > 3", 1, 1, "did you mean 'loop.visits'"},
        {"true and\n  replication.copy > 1", 2, 3, "did you mean 'replication.copies'"},
        {"zzzzzzzzzz", 1, 1, "policy.conf(5)"},
        {"loop.visits", 1, 1, "expected a comparison"},
        {"3", 1, 1, "expected a comparison"},
        {"\"x\"", 1, 1, "expected a comparison"},
        {"loop.visits > \"3\"", 1, 1, "a number and cannot be compared with a text"},
        {"envelope.from == 3", 1, 1, "a text and cannot be compared with a number"},
        {"message.list == 1", 1, 1, "true or false and cannot be compared"},
        {"message.list > false", 1, 1, "only numbers are less or more"},
        {"envelope.from < \"b\"", 1, 1, "only numbers are less or more"},
        {"message.bytes > 10m", 1, 1, "a size in bytes and cannot be compared with a time"},
        {"loop.visits > 3s", 1, 1, "a plain number and cannot be compared with a time"},
        {"loop.visits in (1, \"x\")", 1, 20, "a number and cannot be compared with a text"},
        {"loop.visits in 1", 1, 16, "expected '('"},
        {"loop.visits in (1", 1, 18, "expected ',' or ')'"},
        {"loop.visits in ()", 1, 17, "found ')'"},
        {"loop.visits matches \"*\"", 1, 1, "only a text can match"},
        {"envelope.from matches 3", 1, 23, "expected a pattern"},
        {"envelope.from matches recipient.address", 1, 23, "expected a pattern"},
        {"envelope.from == \"abc", 1, 18, "no closing quote"},
        {"envelope.from == \"abc\n\"", 1, 18, "no closing quote"},
        {"envelope.from == \"abc\\", 1, 18, "no closing quote"},
        {"loop.visits = 3", 1, 13, "write '=='"},
        {"true && true", 1, 6, "write 'and'"},
        {"true || true", 1, 6, "write 'or'"},
        {"!true", 1, 1, "write 'not'"},
        {"1 < loop.visits < 3", 1, 17, "cannot be chained"},
        {"loop.visits > 3x", 1, 15, "is no number"},
        {"loop.visits > 3mb", 1, 15, "is no number"},
        {"loop.visits > 9999999999999999", 1, 15, "is no number"},
        {"(true", 1, 1, "not closed"},
        {"true and (true or\n(false)", 1, 10, "not closed"},
        {"true and", 1, 9, "ends where"},
        {"and true", 1, 1, "there is no fact 'and'"},
        {"loop.visits > \x01", 1, 15, "found '?'"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct arena *arena = arena_new();
        struct expr_error error = {0};
        size_t used;
        if (expr_compile(arena, span_str(t[i].text), &used, &error))
            fail_msg("'%s' was taken", t[i].text);
        if (!strstr(error.text, t[i].says) || error.line != t[i].line ||
            error.column != t[i].column)
            fail_msg("'%s': %u:%u: %s", t[i].text, error.line, error.column, error.text);
        arena_free(&arena);
    }
}

static void reading_stops_where_the_expression_ends(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t used;
    } t[] = {
        {"true do hold", 5},     {"loop.visits > 3 do", 16},        {"(true) }", 7},
        {"message.list\n}", 13}, {"loop.visits in (1) reason", 19},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct arena *arena = arena_new();
        struct expr_error error;
        size_t used = 0;
        assert_non_null(expr_compile(arena, span_str(t[i].text), &used, &error));
        assert_int_equal(used, t[i].used);
        arena_free(&arena);
    }
}

/* Fills out with n times `piece` between `before` and `after`. */
static void repeat(char *out, const char *before, const char *piece, int n, const char *after)
{
    out += sprintf(out, "%s", before);
    for (int i = 0; i < n; i++)
        out += sprintf(out, "%s", piece);
    sprintf(out, "%s", after);
}

static void size_is_bounded(void **state)
{
    (void)state;
    static const struct {
        const char *before, *piece;
        int n;
        const char *after, *says; /* NULL: taken */
    } t[] = {
        {"", "(", 31, "true", "not closed"},
        {"", "(", 32, "true", "nested deeper"},
        {"", "not ", 31, "true", NULL},
        {"", "not ", 32, "true", "nested deeper"},
        {"", "true and ", 999, "true", NULL},
        {"", "true and ", 1000, "true", "too long"},
        {"loop.visits in (0", ",1", 999, ")", NULL},
        {"loop.visits in (0", ",1", 1000, ")", "list is too long"},
        {"envelope.from matches \"", "a", 256, "\"", NULL},
        {"envelope.from matches \"", "a", 257, "\"", "longer than"},
        {"", "(", 9000, "", "nested deeper"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        static char text[20000];
        struct arena *arena = arena_new();
        struct expr_error error = {0};
        size_t used;
        repeat(text, t[i].before, t[i].piece, t[i].n, t[i].after);
        bool taken = expr_compile(arena, span_str(text), &used, &error) != NULL;
        if (taken != !t[i].says || (t[i].says && !strstr(error.text, t[i].says)))
            fail_msg("case %zu: %d %s", i, taken, error.text);
        arena_free(&arena);
    }
}

static void who_must_be_asked_for_each_recipient(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool each;
    } t[] = {
        {"loop.hops > 3", false},
        {"recipient.domain == \"x\"", true},
        {"true or replication.copies > 0", true},
        {"replication.storm", false},
        {"replication.advice == \"hold\"", true},
        {"loop.visits in (replication.passed)", true},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct arena *arena = arena_new();
        struct expr_error error;
        size_t used;
        struct expr *e = expr_compile(arena, span_str(t[i].text), &used, &error);
        assert_non_null(e);
        assert_int_equal(expr_per_recipient(e), t[i].each);
        arena_free(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(expressions_mean_what_they_say),
        cmocka_unit_test(mistakes_are_refused_with_their_place),
        cmocka_unit_test(reading_stops_where_the_expression_ends),
        cmocka_unit_test(size_is_bounded),
        cmocka_unit_test(who_must_be_asked_for_each_recipient),
    };
    return cmocka_run_group_tests(tests, some_facts, NULL);
}
