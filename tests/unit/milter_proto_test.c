/*
 * milter_proto_test.c - frames, offers, macros and client facts of the milter protocol, and what we
 * write into replies: tables.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "milter_peer.h"
#include "milter_proto.h"

static void frames(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        struct span in;
        enum frame_state state;
    } cases[] = {
        {"nothing", {NULL, 0}, FRAME_PART},
        {"three bytes of a length", {(const uint8_t *)"\0\0\0", 3}, FRAME_PART},
        {"length 0", {(const uint8_t *)"\0\0\0\0", 4}, FRAME_BAD},
        {"length 1, no command yet", {(const uint8_t *)"\0\0\0\1", 4}, FRAME_PART},
        {"a command without data", {(const uint8_t *)"\0\0\0\1Q", 5}, FRAME_WHOLE},
        {"more than one frame", {(const uint8_t *)"\0\0\0\1Q\0", 6}, FRAME_WHOLE},
        {"data missing", {(const uint8_t *)"\0\0\0\2Q", 5}, FRAME_PART},
        {"length 2^32-1", {(const uint8_t *)"\xff\xff\xff\xff", 4}, FRAME_BAD},
        {"length 2^31-1", {(const uint8_t *)"\x7f\xff\xff\xff", 4}, FRAME_BAD},
        {"65535 bytes of body", {(const uint8_t *)"\0\1\0\0B", 5}, FRAME_PART},
        {"65536 bytes of body", {(const uint8_t *)"\0\1\0\1B", 5}, FRAME_BAD},
        {"65536 bytes of a field", {(const uint8_t *)"\0\1\0\1L", 5}, FRAME_PART},
        {"1 MiB of a field", {(const uint8_t *)"\0\x10\0\1L", 5}, FRAME_PART},
        {"1 MiB and 1 byte of a field", {(const uint8_t *)"\0\x10\0\2L", 5}, FRAME_BAD},
        {"65536 bytes of macros", {(const uint8_t *)"\0\1\0\1D", 5}, FRAME_BAD},
        {"a line of SMTP", {(const uint8_t *)"EHLO x\r\n", 8}, FRAME_BAD},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct milter_frame f;
        if (milter_frame(cases[i].in, &f) != cases[i].state)
            fail_msg("%s", cases[i].what);
    }
}

static void offers(void **state)
{
    (void)state;
    static const struct {
        uint32_t version, actions, steps; /* offered */
        bool good;
        uint32_t our_version, our_actions, our_steps;
    } cases[] = {
        {6, 0x1ff, 0x1fffff, true, 6, 0x119, 0x1ff180},   /* Postfix 3.7 */
        {6, 0x1ff, 0x301fffff, true, 6, 0x119, 0x1ff180}, /* Sendmail 8.17: no bigger chunks */
        {7, 0xffffffff, 0xffffffff, true, 6, 0x119, 0x1ff180},
        {0xffffffff, 0x1ff, 0x1fffff, true, 6, 0x119, 0x1ff180},
        {6, 0x11, 0, true, 6, 0x11, 0},
        {4, 0x3f, 0x3ff, true, 4, 0x19, 0x180},
        {3, 0x3f, 0x1ff, true, 3, 0x19, 0x180},
        {2, 0x3f, 0x7f, true, 2, 0x19, 0},
        {1, 0x3f, 0x7f, false, 0, 0, 0},
        {0, 0x3f, 0x7f, false, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct wire w = {0};
        struct milter_terms t = {0};
        wire_offer(&w, cases[i].version, cases[i].actions, cases[i].steps);
        assert_int_equal(milter_agree(span_of(w.p + 5, 12), &t), cases[i].good);
        assert_false(milter_agree(span_of(w.p + 5, 11), &t));
        if (cases[i].good) {
            assert_int_equal(t.version, cases[i].our_version);
            assert_int_equal(t.actions, cases[i].our_actions);
            assert_int_equal(t.steps, cases[i].our_steps);
        }
        wire_free(&w);
    }
    assert_null(milter_missing(&(struct milter_terms){.actions = 0x19}));
    assert_string_equal(milter_missing(&(struct milter_terms){.actions = 0x11}), "SMFIF_DELRCPT");
    assert_string_equal(milter_missing(&(struct milter_terms){0}),
                        "SMFIF_ADDHDRS SMFIF_DELRCPT SMFIF_CHGHDRS");
}

static void macros(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        struct span data;
        uint8_t command;
        const char *value;
    } cases[] = {
#define D(literal) {(const uint8_t *)(literal), sizeof(literal) - 1}
        {"the queue id", D("Ti\0004T7\0"), 'T', "4T7"},
        {"in braces", D("T{i}\0004T7\0"), 'T', "4T7"},
        {"of another command", D("Ri\0004T7\0"), 'T', ""},
        {"after another macro", D("Tj\0mx\0i\0004T7\0"), 'T', "4T7"},
        {"a value that looks like it", D("Tj\0i\0i\0004T7\0"), 'T', "4T7"},
        {"without its value", D("Ti\0"), 'T', ""},
        {"without the last NUL", D("Ti\0004T7"), 'T', "4T7"},
        {"no macros", D("T"), 'T', ""},
        {"not even a command", D(""), 'T', ""},
        {"an unknown stage", D("zi\0004T7\0"), 'T', ""},
#undef D
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct span v = milter_macro(cases[i].data, cases[i].command, SPAN("i"));
        if (!span_eq(v, span_str(cases[i].value)))
            fail_msg("%s: got \"%.*s\"", cases[i].what, SPAN_ARG(v));
    }
}

static void clients(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        struct span data;
        const char *name, *addr;
    } cases[] = {
#define D(literal) {(const uint8_t *)(literal), sizeof(literal) - 1}
        {"IPv4",
         D("mx.example\0004\0\31"
           "192.0.2.7\0"),
         "mx.example", "192.0.2.7"},
        {"IPv6 as Sendmail writes it", D("x\0006\0\31IPv6:::1\0"), "x", "::1"},
        {"IPv6 as Postfix writes it",
         D("x\0006\0\31"
           "2001:db8::1\0"),
         "x", "2001:db8::1"},
        {"no NUL at the end",
         D("x\0004\0\31"
           "192.0.2.7"),
         "x", "192.0.2.7"},
        {"a local client", D("x\0L\0\0/var/run/s\0"), "x", ""},
        {"an unknown client", D("x\0U"), "x", ""},
        {"family without port", D("x\0004"), "x", ""},
        {"half a port", D("x\0004\31"), "x", ""},
        {"family and port only", D("x\0004\0\31"), "x", ""},
        {"an unknown family",
         D("x\0X\0\31"
           "192.0.2.7\0"),
         "x", ""},
        {"a wrong address",
         D("x\0004\0\31"
           "192.0.2.700\0"),
         "x", ""},
        {"only a name, without NUL", D("x"), "x", ""},
        {"nothing", D(""), "", ""},
#undef D
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct span name;
        struct ipaddr addr;
        char text[48];
        milter_client(cases[i].data, &name, &addr);
        ipaddr_print(&addr, text);
        if (!span_eq(name, span_str(cases[i].name)) || strcmp(text, cases[i].addr) != 0)
            fail_msg("%s: %.*s [%s]", cases[i].what, SPAN_ARG(name), text);
    }
}

/* A172, A173: what strangers chose cannot end a line, and a single % would be eaten by Postfix. */
static void replies_are_one_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *wire;
    } cases[] = {
        {"451 4.7.0 wait", "451 4.7.0 wait"},
        {"451 4.7.0 100%", "451 4.7.0 100%%"},
        {"451 4.7.0 a\r\nb\tc", "451 4.7.0 a??b?c"},
        {"451 4.7.0 \x80\xff\x7f", "451 4.7.0 ???"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct milter_out o = {0};
        milter_put_reply(&o, cases[i].text);
        assert_int_equal(o.p[4], 'y');
        assert_int_equal(o.n, 5 + strlen(cases[i].wire) + 1);
        assert_string_equal((char *)o.p + 5, cases[i].wire);
        milter_out_free(&o);
    }
    char longer[2001];
    for (size_t at = 0; at < 4; at++) { /* a %% is never cut in two, wherever the cut falls */
        struct milter_out o = {0};
        memset(longer, '%', sizeof longer);
        memset(longer, 'x', at);
        longer[2000] = 0;
        milter_put_reply(&o, longer);
        size_t n = strlen((char *)o.p + 5);
        assert_in_range(n, SMTP_REPLY - 3, SMTP_REPLY - 1);
        assert_int_equal((n - at) % 2, 0);
        milter_out_free(&o);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames),
        cmocka_unit_test(offers),
        cmocka_unit_test(macros),
        cmocka_unit_test(clients),
        cmocka_unit_test(replies_are_one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
