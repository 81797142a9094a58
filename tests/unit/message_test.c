/* message_test.c - both doors give the same bytes and the same fields; cuts do not matter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "message.h"

static bool is(struct span s, const char *text)
{
    return span_eq(s, span_str(text));
}

/* Feeds raw in pieces of `step` bytes; gathers the body side. */
static struct message *read_in_pieces(struct arena *a, struct span raw, size_t step,
                                      struct span *body)
{
    struct message *m = message_new(a);
    *body = SPAN("");
    for (size_t at = 0; at < raw.n; at += step) {
        struct span got = message_add_raw(m, span_head(span_from(raw, at), step));
        *body = arena_join(a, *body, got, SPAN(""));
    }
    message_end_header(m);
    message_end_header(m);
    return m;
}

static const struct raw_case {
    const char *name;
    const char *raw;
    const char *head;
    unsigned fields;
    uint8_t blank;
} raw_cases[] = {
    {"a plain message", "A: b\r\nC: d\r\n\r\nbody\r\n", "A: b\r\nC: d\r\n", 2, 2},
    {"line ends are LF", "A: b\nC: d\n\nbody\n", "A: b\nC: d\n", 2, 1},
    {"folded fields", "A: b\r\n c\r\n\td\r\nC: e\r\n\r\n", "A: b\r\n c\r\n\td\r\nC: e\r\n", 2, 2},
    {"no body at all", "A: b\r\nC: d\r\n", "A: b\r\nC: d\r\n", 2, 0},
    {"the last line is unfinished", "A: b\r\nC: d", "A: b\r\nC: d", 2, 0},
    {"the last line is an unfinished fold", "A: b\r\n d", "A: b\r\n d", 1, 0},
    {"a line without a colon ends the header", "A: b\r\nno field\r\nC: d\r\n", "A: b\r\n", 1, 0},
    {"a blank in the name ends the header", "A: b\r\nno field: x\r\n\r\n", "A: b\r\n", 1, 0},
    {"a blank before the colon does not", "A \t: b\r\n\r\n", "A \t: b\r\n", 1, 2},
    {"a fold of nothing ends the header", " x\r\nA: b\r\n\r\n", "", 0, 0},
    {"a field without a name ends the header", ": x\r\n\r\n", "", 0, 0},
    {"an empty header", "\r\nA: b\r\n\r\n", "", 0, 2},
    {"an empty message", "", "", 0, 0},
    {"a bare CR is content", "A: b\rC: d\r\n\r\n", "A: b\rC: d\r\n", 1, 2},
    {"CR CR LF is not an empty line", "A: b\r\n\r\r\nC: d\r\n", "A: b\r\n", 1, 0},
    {"a fold of blanks only", "A: b\r\n \r\nC: d\r\n\r\nx", "A: b\r\n \r\nC: d\r\n", 2, 2},
    {"8-bit in a value", "A: \xff\xfe\r\n\r\n", "A: \xff\xfe\r\n", 1, 2},
    {"8-bit in a name ends the header", "A: b\r\n\xff: d\r\n\r\n", "A: b\r\n", 1, 0},
};

static void raw_bytes_split_into_header_and_body_side(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof raw_cases / sizeof *raw_cases; i++) {
        const struct raw_case *c = &raw_cases[i];
        struct span raw = span_str(c->raw), body;
        for (size_t step = 1; step <= raw.n + 1; step++) {
            struct arena *a = arena_new();
            struct message *m = read_in_pieces(a, raw, step, &body);
            struct span head = span_of(m->head, m->nhead);
            if (!is(head, c->head) || m->nfields != c->fields || m->blank != c->blank)
                fail_msg("%s, in pieces of %zu: head \"%.*s\", %zu fields, blank %u", c->name, step,
                         SPAN_ARG(head), m->nfields, m->blank);
            assert_true(span_eq(arena_join(a, head, body, SPAN("")), raw));
            arena_free(&a);
        }
    }
}

static void fields_are_found_by_name(void **state)
{
    (void)state;
    struct arena *a = arena_new();
    struct span body, raw = SPAN("Received: one\r\nFROM: a@b\r\nreceived : two\r\n  folded\r\n"
                                 "List-Post: x\r\nList-ID:y\r\nX-Received: no\r\nTo:\r\n\r\n");
    struct message *m = read_in_pieces(a, raw, 7, &body);
    const struct field *f = message_first(m, FIELD_RECEIVED);
    assert_true(f && is(f->name, "Received") && is(f->value, " one"));
    f = message_next(m, f);
    assert_true(f && is(f->name, "received") && is(f->value, " two\r\n  folded"));
    assert_null(message_next(m, f));
    assert_int_equal(m->count[FIELD_RECEIVED], 2);
    assert_true(is(message_value(m, FIELD_FROM), "a@b"));
    assert_true(is(message_value(m, FIELD_LIST_OTHER), "x"));
    assert_true(is(message_value(m, FIELD_LIST_ID), "y"));
    assert_true(message_first(m, FIELD_TO) && message_value(m, FIELD_TO).n == 0);
    assert_null(message_first(m, FIELD_CC));
    assert_int_equal(message_value(m, FIELD_CC).n, 0);
    assert_int_equal(m->count[FIELD_OTHER], 1);
    arena_free(&a);
}

static void every_known_name_is_known(void **state)
{
    (void)state;
    static const char *const names[FIELD_NAMES] = {"X-Other",
                                                   "Received",
                                                   "From",
                                                   "To",
                                                   "CC",
                                                   "Date",
                                                   "Subject",
                                                   "Message-Id",
                                                   "References",
                                                   "In-Reply-To",
                                                   "Resent-Message-ID",
                                                   "Resent-Date",
                                                   "List-Id",
                                                   "List-Help",
                                                   "Precedence",
                                                   "Auto-Submitted",
                                                   "X-Autoreply",
                                                   "Thread-Index",
                                                   "Delivered-To",
                                                   "Content-Type",
                                                   "Content-Transfer-Encoding",
                                                   "Content-Disposition",
                                                   "X-Breakwater-Release",
                                                   "X-Breakwater-Trace"};
    struct arena *a = arena_new();
    struct message *m = message_new(a);
    for (size_t i = 0; i < FIELD_NAMES; i++)
        message_add_field(m, span_str(names[i]), SPAN(" v"));
    for (size_t i = 0; i < FIELD_NAMES; i++) {
        assert_int_equal(m->count[i], 1);
        assert_true(is(message_first(m, (enum field_name)i)->name, names[i]));
    }
    arena_free(&a);
}

static void values_are_unfolded(void **state)
{
    (void)state;
    static const char *const cases[][2] = {{" plain", "plain"},
                                           {" a\r\n b", "a b"},
                                           {" a \r\n\t b", "a b"},
                                           {" a  b\tc ", "a b c"},
                                           {"", ""},
                                           {" \r\n ", ""},
                                           {" a\r\n \r\n b", "a b"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct arena *a = arena_new();
        struct message *m = message_new(a);
        message_add_field(m, SPAN("Subject"), span_str(cases[i][0]));
        assert_true(is(message_value(m, FIELD_SUBJECT), cases[i][1]));
        arena_free(&a);
    }
}

static void milter_fields_become_the_bytes_of_the_header(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        {"A", " b", "A: b\r\n"},
        {"A", "", "A:\r\n"},
        {"A", " b\n c", "A: b\r\n c\r\n"},
        {"A", " b\r\n c", "A: b\r\n c\r\n"},
        {"A", " b\n\tc\n d", "A: b\r\n\tc\r\n d\r\n"},
        {"A", " b\rc", "A: b\rc\r\n"},
        {"A", " b\nEvil: x", "A: b\r\n Evil: x\r\n"},
        {"A", " b\n\n", "A: b\r\n"},
        {"A", "\n", "A:\r\n"},
        {"A", " b\n\nc", "A: b\r\n \r\n c\r\n"},
        {"A: x\r\nB", " b", "A??x??B: b\r\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct arena *a = arena_new();
        struct message *m = message_new(a);
        assert_int_equal(message_add_field(m, span_str(cases[i][0]), span_str(cases[i][1])).n, 0);
        message_end_header(m);
        struct span head = span_of(m->head, m->nhead), body;
        if (!is(head, cases[i][2]))
            fail_msg("case %zu: \"%.*s\"", i, SPAN_ARG(head));
        struct message *again = read_in_pieces(a, head, 3, &body);
        assert_int_equal(again->nfields, 1);
        assert_int_equal(body.n, 0);
        assert_true(span_eq(again->fields[0].name, m->fields[0].name));
        assert_true(span_eq(again->fields[0].value, m->fields[0].value));
        arena_free(&a);
    }
}

static void a_field_count_beyond_the_limit_is_still_counted(void **state)
{
    (void)state;
    struct arena *a = arena_new();
    struct message *m = message_new(a);
    for (size_t i = 0; i < LIMIT_FIELDS + 500; i++)
        message_add_field(m, SPAN("Received"), SPAN(" x"));
    assert_int_equal(m->nfields, LIMIT_FIELDS);
    assert_int_equal(m->count[FIELD_RECEIVED], LIMIT_FIELDS + 500);
    assert_int_equal(m->nhead, (LIMIT_FIELDS + 500) * 13);
    arena_free(&a);
}

static void a_head_that_is_full_gives_the_rest_back(void **state)
{
    (void)state;
    struct arena *a = arena_new();
    uint8_t *large = arena_alloc(a, LIMIT_HEAD);
    memset(large, 'x', LIMIT_HEAD);
    struct message *m = message_new(a);
    message_add_field(m, SPAN("A"), SPAN(" b"));
    struct span over = message_add_field(m, SPAN("B"), span_of(large, LIMIT_HEAD));
    assert_int_equal(over.n, LIMIT_HEAD + 4);
    assert_true(m->head_full);
    assert_true(is(message_add_field(m, SPAN("C"), SPAN(" d")), "C: d\r\n"));
    assert_int_equal(m->nfields, 1);

    struct message *raw = message_new(a);
    assert_int_equal(message_add_raw(raw, SPAN("A: b\r\nC: ")).n, 0);
    struct span body = message_add_raw(raw, span_of(large, LIMIT_HEAD));
    assert_int_equal(body.n, LIMIT_HEAD + 3);
    assert_true(raw->head_full && raw->header_done && raw->nfields == 1 && raw->blank == 0);
    assert_int_equal(message_add_raw(raw, SPAN("\r\nD: e\r\n")).n, 8);
    arena_free(&a);
}

static void a_field_is_taken_out_of_a_head_that_has_moved_as_it_grew(void **state)
{
    (void)state;
    struct arena *a = arena_new();
    struct span body, before = SPAN("Subject: a\r\n"), token = SPAN("X-Breakwater-Release: b\r\n");
    struct span filler = span_of(arena_alloc(a, 9000), 9000);
    memset((void *)(uintptr_t)filler.p, 'x', filler.n);
    struct span rest = arena_join(a, SPAN("To: "), filler, SPAN("\r\n"));
    rest = arena_join(a, rest, rest,
                      SPAN("X: y\r\n")); /* a field is known when the next one is here */
    struct span head = arena_join(a, before, rest, SPAN(""));
    struct span all =
        arena_join(a, arena_join(a, before, token, rest), SPAN("\r\nbody\r\n"), SPAN(""));
    for (size_t step = 1; step < 9100; step += 1297) {
        struct message *m = read_in_pieces(a, all, step, &body);
        assert_true(span_eq(message_without(m, FIELD_RELEASE), head));
    }
    arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(raw_bytes_split_into_header_and_body_side),
        cmocka_unit_test(fields_are_found_by_name),
        cmocka_unit_test(every_known_name_is_known),
        cmocka_unit_test(values_are_unfolded),
        cmocka_unit_test(milter_fields_become_the_bytes_of_the_header),
        cmocka_unit_test(a_field_count_beyond_the_limit_is_still_counted),
        cmocka_unit_test(a_head_that_is_full_gives_the_rest_back),
        cmocka_unit_test(a_field_is_taken_out_of_a_head_that_has_moved_as_it_grew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
