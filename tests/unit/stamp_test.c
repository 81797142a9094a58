/* stamp_test.c - stamps of ours, and what is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "past.h"
#include "stamp.h"

static const struct key K = {{0xde, 0xad, 0xbe, 0xef, 1, 2, 3, 4, 5, 6, 7, 0xff}};

static void test_written_and_read(void **state)
{
    static const char *const node[] = {
        "mx1.example.net", "", "odd ; name\r\n",
        "a.very.long.name.of.a.node.that.nobody.would.give.to.any.machine.of.his.example.net"};
    struct past p;
    struct key got;
    char text[STAMP_TEXT];

    (void)state;
    past_open(&p);
    for (size_t i = 0; i < 4; i++) {
        stamp_print(&p.keys, span_str(node[i]), INT64_C(1138036800000), &K, text);
        assert_null(strpbrk(text, "\r\n"));
        assert_true(stamp_read(&p.keys, span_str(text), &got));
        assert_memory_equal(&got, &K, sizeof(K));
    }
    past_close(&p);
}

static void test_changed_is_none(void **state)
{
    static const uint8_t other[32] = "another site";
    struct past p;
    struct keys keys;
    struct key got;
    char text[STAMP_TEXT], folded[2 * STAMP_TEXT];
    size_t n;

    (void)state;
    past_open(&p);
    assert_int_equal(keys_open(&keys, other), 0);
    stamp_print(&p.keys, SPAN("mx1"), 1, &K, text);
    assert_false(stamp_read(&keys, span_str(text), &got));
    n = strlen(text);
    for (size_t i = 0; i < n; i++) {
        text[i] ^= 1;
        assert_false(stamp_read(&p.keys, span_str(text), &got));
        text[i] ^= 1;
        assert_false(stamp_read(&p.keys, span_of(text, i), &got));
    }
    assert_true(stamp_read(&p.keys, span_str(text), &got));
    snprintf(folded, sizeof(folded), " %.*s\r\n\t%s \r\n", 4, text, text + 4);
    assert_true(stamp_read(&p.keys, span_str(folded), &got));
    snprintf(folded, sizeof(folded), "%s x", text);
    assert_false(stamp_read(&p.keys, span_str(folded), &got));
    keys_close(&keys);
    past_close(&p);
}

static void test_the_last_eight_of_a_message(void **state)
{
    struct past p;
    struct key got[STAMPS_MAX], k = K;
    struct message *m;
    char text[STAMP_TEXT];

    (void)state;
    past_open(&p);
    m = message_new(p.arena);
    for (uint8_t i = 0; i < 12; i++) {
        k.byte[0] = i;
        stamp_print(&p.keys, SPAN("mx1"), i, &k, text);
        if (i == 9)
            text[0] = 'w'; /* no stamp */
        message_add_field(m, SPAN("x-breakwater-trace"), span_str(text));
    }
    message_end_header(m);
    assert_int_equal(stamps_read(&p.keys, m, got), 7);
    assert_int_equal(got[0].byte[0], 11);
    assert_int_equal(got[2].byte[0], 8);
    assert_int_equal(got[6].byte[0], 4);
    past_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_written_and_read),
        cmocka_unit_test(test_changed_is_none),
        cmocka_unit_test(test_the_last_eight_of_a_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
