/* members_test.c - the registry's documents, and who of the nodes is right. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "members.h"

static const int64_t now = INT64_C(1700000000000);

static struct member member(const char *name, int64_t since)
{
    struct member m = {.boot = 0x1234 + (uint64_t)since,
                       .number = 7,
                       .key = 0xabcdef01,
                       .parameters = 0x1122334455667788,
                       .events = 1,
                       .version = "1.0",
                       .mode = "enforce",
                       .started = since,
                       .since = since,
                       .seen = now};
    span_show(span_str(name), m.name, sizeof m.name);
    return m;
}

static void a_document_is_read_back(void **state)
{
    (void)state;
    struct member m = member("relay-a", now - 5000), back;
    m.figures = json_pack("{s:i}", "held", 3);
    m.left = true;
    char *text = member_print(&m);
    assert_true(member_read(&back, SPAN("relay-a"), span_str(text)));
    assert_string_equal(back.name, "relay-a");
    assert_true(back.boot == m.boot && back.number == 7 && back.key == m.key);
    assert_true(back.parameters == m.parameters && back.events == 1 && back.left);
    assert_string_equal(back.version, "1.0");
    assert_string_equal(back.mode, "enforce");
    assert_int_equal(back.started, m.started);
    assert_int_equal(back.since, m.since);
    assert_int_equal(back.seen, m.seen);
    assert_int_equal(json_get_num(back.figures, "held"), 3);
    member_clear(&back);
    member_clear(&m);
    free(text);
}

#define REST                                                                                       \
    "\"key\":\"abcdef01\",\"parameters\":\"0000000000000001\",\"seen\":1700000000.5,\"events\":1}"
#define BOOT "{\"boot\":\"0000000000000009\","

static void what_is_no_document_is_nobody(void **state)
{
    (void)state;
    static const struct {
        const char *name, *document;
        bool good;
    } t[] = {
        {"a", BOOT "\"number\":5," REST, true},
        {"a", BOOT "\"number\":1023," REST, true},
        {"a", BOOT "\"number\":1024," REST, false},
        {"a", BOOT REST, true}, /* number 0 */
        {"", BOOT REST, false},
        {"a b", BOOT REST, false},
        {"a\033[2J", BOOT REST, false},
        {"a", "", false},
        {"a", "7", false},
        {"a", "[]", false},
        {"a", "{}", false},
        {"a", "{\"boot\":\"9\"," REST, false},
        {"a", "{\"boot\":\"000000000000000g\"," REST, false},
        {"a", "{\"boot\":17," REST, false},
        {"a", BOOT "\"seen\":0,\"key\":\"abcdef01\",\"parameters\":\"0000000000000001\"}", false},
        {"a", BOOT "\"figures\":[1]," REST, true}, /* left out */
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct member m;
        bool good = member_read(&m, span_str(t[i].name), span_str(t[i].document));
        if (good != t[i].good)
            fail_msg("line %zu: %s", i, t[i].document);
        assert_null(m.figures);
    }
    struct member m;
    char long_name[MEMBER_NAME + 1], *long_document = calloc(1, MEMBER_DOCUMENT + 200);
    memset(long_name, 'x', sizeof long_name);
    assert_true(member_read(&m, span_of(long_name, MEMBER_NAME - 1), span_str(BOOT REST)));
    assert_false(member_read(&m, span_of(long_name, MEMBER_NAME), span_str(BOOT REST)));
    memset(long_document, ' ', MEMBER_DOCUMENT + 100);
    memcpy(long_document, BOOT REST, strlen(BOOT REST));
    assert_true(member_read(&m, SPAN("a"), span_of(long_document, MEMBER_DOCUMENT)));
    assert_false(member_read(&m, SPAN("a"), span_of(long_document, MEMBER_DOCUMENT + 1)));
    free(long_document);
}

static void who_must_differ_in_nothing(void **state)
{
    (void)state;
    struct member a = member("a", now), b = member("b", now - 1);
    b.mode[0] = 'm';
    assert_null(member_differs(&a, &b));
    assert_true(member_likeness(&a) == member_likeness(&b));
    b.key++;
    assert_non_null(strstr(member_differs(&a, &b), "site key"));
    assert_true(member_likeness(&a) != member_likeness(&b));
    b = member("b", now);
    b.parameters++;
    assert_non_null(strstr(member_differs(&a, &b), "detect"));
    assert_true(member_likeness(&a) != member_likeness(&b));
    b = member("b", now);
    b.events++;
    assert_non_null(strstr(member_differs(&a, &b), "version"));
    assert_true(member_likeness(&a) != member_likeness(&b));
}

static void the_longest_in_force_is_the_model(void **state)
{
    (void)state;
    struct members ms = {.n = 3,
                         .m = {member("a", now - 50), member("b", now - 70),
                               member("me", now - 90) /* a former life */}};
    struct member me = member("me", now - 60);
    assert_string_equal(members_model(&ms, &me, now)->name, "b");
    ms.m[1].seen = now - MEMBER_ALIVE + 1;
    assert_string_equal(members_model(&ms, &me, now)->name, "b");
    ms.m[1].seen = now - MEMBER_ALIVE;
    assert_ptr_equal(members_model(&ms, &me, now), &me);
    ms.m[1].seen = now;
    ms.m[1].left = true;
    assert_ptr_equal(members_model(&ms, &me, now), &me);
    ms.m[1].left = false;
    ms.m[1].since = now - 10; /* it was given new parameters: it must fit in */
    assert_ptr_equal(members_model(&ms, &me, now), &me);
    ms.m[0].since = me.since; /* at once: the elder, the same for all */
    ms.m[0].started = me.started - 1;
    assert_string_equal(members_model(&ms, &me, now)->name, "a");
}

static void numbers_are_of_one_node(void **state)
{
    (void)state;
    struct members ms = {.n = 2, .m = {member("a", now - 50), member("b", now - 10)}};
    struct member me = member("me", now - 30);
    assert_string_equal(members_namesake(&ms, &me, now)->name, "a");
    assert_null(members_namesake(&ms, &ms.m[0], now)); /* who was first keeps it */
    ms.m[0].number = 8;
    assert_null(members_namesake(&ms, &me, now)); /* b came later: it gives way */
    assert_int_equal(members_free_number(&ms, &me), 9);
    me.number = 1023;
    ms.m[1].number = 0;
    assert_int_equal(members_free_number(&ms, &me), 1);
    ms.m[0].number = 1023;
    ms.m[0].left = true;
    assert_null(members_namesake(&ms, &me, now));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_document_is_read_back),
        cmocka_unit_test(what_is_no_document_is_nobody),
        cmocka_unit_test(who_must_differ_in_nothing),
        cmocka_unit_test(the_longest_in_force_is_the_model),
        cmocka_unit_test(numbers_are_of_one_node),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
