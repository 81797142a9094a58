/* address_test.c - addresses as RFC 5322 and as people write them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "address.h"

static struct keys keys;

static int open_keys(void **state)
{
    (void)state;
    const uint8_t site[32] = {7};
    return keys_open(&keys, site);
}

static int close_keys(void **state)
{
    (void)state;
    keys_close(&keys);
    return 0;
}

struct list {
    char text[2000];
    size_t n;
};

static bool append(void *arg, struct span s)
{
    struct list *l = arg;
    l->n += (size_t)snprintf(l->text + l->n, sizeof l->text - l->n, "%s%.*s", l->n ? "|" : "",
                             SPAN_ARG(s));
    return true;
}

static const struct {
    const char *name, *value, *want;
} cases[] = {
    {"one", " a@b.example", "a@b.example"},
    {"case stays as written", "A@B.Example", "A@B.Example"},
    {"two", "a@b, c@d", "a@b|c@d"},
    {"angle", "Jo <a@b>, <c@d>", "a@b|c@d"},
    {"a comma in a quoted name", "\"x,y\" <a@b>", "a@b"},
    {"an @ in a quoted name", "\"x@y\" <a@b>", "a@b"},
    {"an @ in a bare name", "x@y <a@b>", "a@b"},
    {"a comma in a comment", "a@b (x, y@z), c@d", "a@b|c@d"},
    {"nested comment, escapes", "a(x(\\)y)z)@b", "a@b"},
    {"group", "g: a@b, c@d;, e@f", "a@b|c@d|e@f"},
    {"group without a comma after", "a:b@c,d@e;", "b@c|d@e"},
    {"empty group", "undisclosed-recipients:;", ""},
    {"route", "<@r,@s:u@d>", "u@d"},
    {"blanks around dots and @", "a . b @ c . d", "a.b@c.d"},
    {"folding", "a@b,\r\n\tc@d", "a@b|c@d"},
    {"needless quotes", "\"a.b\"@c", "a.b@c"},
    {"needed quotes", "\"a b\"@c", "\"a b\"@c"},
    {"quoted @", "\"a@b\"@c", "\"a@b\"@c"},
    {"escaped quote", "\"a\\\"b\"@c", "\"a\\\"b\"@c"},
    {"literal", "u@[IPv6:::1], v@w", "u@[IPv6:::1]|v@w"},
    {"semicolons between", "a@b; c@d", "a@b|c@d"},
    {"blanks between", "a@b c@d", "a@b|c@d"},
    {"name behind", "a@b John", "a@b"},
    {"no closing >", "<a@b, c@d", "a@b|c@d"},
    {"no opening <", "a@b>, c@d", "a@b|c@d"},
    {"no closing quote", "\"x <a@b>, c@d", "a@b|c@d"},
    {"no closing paren", "(x <a@b>, c@d", "a@b|c@d"},
    {"no closing bracket", "[x <a@b>, c@d", "a@b|c@d"},
    {"mailto:", "mailto:a@b", "a@b"},
    {"nothing local", "@b, <@b>", ""},
    {"no domain", "a@, <a>, root", ""},
    {"null", "<>", ""},
    {"empty", "", ""},
    {"commas", ",,,a@b,,", "a@b"},
    {"two @", "a@b@c", "a@b@c"},
    {"8-bit", "\xc3\xa9@b", "\xc3\xa9@b"},
    {"comment before and after", "(x)a@b(y),(z)<c@d>(w)", "a@b|c@d"},
};

static void lists_give_their_addresses(void **state)
{
    (void)state;
    struct arena *a = arena_new();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct list l = {"", 0};
        address_each(a, span_str(cases[i].value), append, &l);
        if (strcmp(l.text, cases[i].want) != 0)
            fail_msg("%s: \"%s\", not \"%s\"", cases[i].name, l.text, cases[i].want);
    }
    arena_free(&a);
}

static void first_address_and_domain(void **state)
{
    (void)state;
    struct arena *a = arena_new();
    assert_true(span_eq(address_first(a, SPAN("X <A@B.C>, d@e")), SPAN("a@b.c")));
    assert_int_equal(address_first(a, SPAN("nobody")).n, 0);
    assert_true(span_eq(address_domain(SPAN("a@b@c.d")), SPAN("c.d")));
    assert_int_equal(address_domain(SPAN("postmaster")).n, 0);
    arena_free(&a);
}

static void too_long_is_no_address(void **state)
{
    (void)state;
    char text[LIMIT_ADDRESS + 10];
    struct arena *a = arena_new();
    memset(text, 'a', sizeof text);
    text[5] = '@';
    assert_int_equal(address_first(a, span_of(text, LIMIT_ADDRESS)).n, LIMIT_ADDRESS);
    assert_int_equal(address_first(a, span_of(text, LIMIT_ADDRESS + 1)).n, 0);
    memcpy(text + LIMIT_ADDRESS + 4, ",b@c", 4);
    assert_true(span_eq(address_first(a, span_of(text, LIMIT_ADDRESS + 8)), SPAN("b@c")));
    arena_free(&a);
}

static void bombs_are_linear(void **state)
{
    (void)state;
    static const char *const bombs[] = {"(",    "\"",   "[", "\\\"", "\"\\", "<",   "@",    ":",
                                        "a@b ", "((\"", ")", "\"\"", "a.",   "(\\", "<a@b,"};
    enum { SIZE = 1 << 20 };
    struct arena *a = arena_new();
    uint8_t *p = arena_alloc(a, SIZE);
    for (size_t i = 0; i < sizeof bombs / sizeof *bombs; i++) {
        size_t n = strlen(bombs[i]);
        for (size_t at = 0; at < SIZE; at++)
            p[at] = (uint8_t)bombs[i][at % n];
        struct arena *scratch = arena_new();
        struct span first = address_first(scratch, span_of(p, SIZE));
        assert_true(first.n <= LIMIT_ADDRESS);
        arena_free(&scratch);
    }
    arena_free(&a);
}

static void visible_recipients_are_distinct_and_found(void **state)
{
    (void)state;
    struct arena *a = arena_new();
    struct message *m = message_new(a);
    message_add_field(m, SPAN("To"), SPAN(" b@x, A@x, mspop3connector.q@x"));
    message_add_field(m, SPAN("Cc"), SPAN(" a@X, c@x"));
    message_add_field(m, SPAN("To"), SPAN(" d@x"));
    message_add_field(m, SPAN("Bcc"), SPAN(" no@x"));
    struct visible v;
    visible_read(&v, m, &keys);
    assert_int_equal(v.n, 5);
    assert_int_equal(v.total, 6);
    assert_true(span_eq(v.connector, SPAN("mspop3connector.q@x")));
    for (size_t i = 0; i < v.n; i++) {
        assert_int_equal(v.hash[i], keys_address(&keys, v.address[i], NULL));
        assert_true(i == 0 || v.hash[i - 1] < v.hash[i]);
    }
    assert_true(visible_find(&v, keys_address(&keys, SPAN("<A@X>"), NULL)) >= 0);
    assert_true(visible_find(&v, keys_address(&keys, SPAN("d@x"), NULL)) >= 0);
    assert_false(visible_find(&v, keys_address(&keys, SPAN("no@x"), NULL)) >= 0);
    arena_free(&a);
}

static void many_visible_recipients_are_counted_and_some_kept(void **state)
{
    (void)state;
    struct arena *a = arena_new();
    struct message *m = message_new(a);
    enum { N = 60000 };
    char *text = arena_alloc(a, N * 16);
    size_t n = 0;
    for (unsigned i = 0; i < N; i++)
        n += (size_t)sprintf(text + n, "u%u@x,\r\n ", i);
    message_add_field(m, SPAN("To"), span_of(text, n));
    struct visible v;
    visible_read(&v, m, &keys);
    assert_int_equal(v.total, N);
    assert_int_equal(v.n, LIMIT_VISIBLE);
    struct message *none = message_new(a);
    visible_read(&v, none, &keys);
    assert_int_equal(v.n + v.total, 0);
    assert_false(visible_find(&v, 1) >= 0);
    arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_give_their_addresses),
        cmocka_unit_test(first_address_and_domain),
        cmocka_unit_test(too_long_is_no_address),
        cmocka_unit_test(bombs_are_linear),
        cmocka_unit_test(visible_recipients_are_distinct_and_found),
        cmocka_unit_test(many_visible_recipients_are_counted_and_some_kept),
    };
    return cmocka_run_group_tests(tests, open_keys, close_keys);
}
