/* proxyline_test.c - right and wrong PROXY headers, whole and byte by byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proxyline.h"

#define BYTES(literal) literal, sizeof(literal) - 1
#define SIGN "\r\n\r\n\0\r\nQUIT\n"
#define V4 "\xc0\0\2\7\xc6\x33\x64\1\xc7\x38\0\x19" /* 192.0.2.7:51000 -> 198.51.100.1:25 */

struct header {
    const char *name;
    const char *in;
    size_t n;
    const char *client; /* "192.0.2.7 51000"; "": the real peer; NULL: refused */
};

static const struct header headers[] = {
    {"version 1, IPv4", BYTES("PROXY TCP4 192.0.2.7 198.51.100.1 51000 25\r\n"), "192.0.2.7 51000"},
    {"version 1, IPv6", BYTES("PROXY TCP6 2001:db8::7 ::1 51000 25\r\n"), "2001:db8::7 51000"},
    {"a mapped address is IPv4", BYTES("PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n"), "192.0.2.7 1"},
    {"unknown", BYTES("PROXY UNKNOWN\r\n"), ""},
    {"unknown with words", BYTES("PROXY UNKNOWN ffff::1 ::1 1 2\r\n"), ""},
    {"a bare LF", BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n"), NULL},
    {"a bare CR", BYTES("PROXY TCP4 1.2.3.4\r5.6.7.8 1 2\r\n"), NULL},
    {"a zero in front", BYTES("PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n"), NULL},
    {"zero itself", BYTES("PROXY TCP4 10.0.0.0 5.6.7.8 0 2\r\n"), "10.0.0.0 0"},
    {"a port with a zero in front", BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n"), NULL},
    {"a port too large", BYTES("PROXY TCP6 ::1 ::1 99999 1\r\n"), NULL},
    {"the largest port", BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 65535 2\r\n"), "1.2.3.4 65535"},
    {"two blanks", BYTES("PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n"), NULL},
    {"a word too much", BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n"), NULL},
    {"a word too few", BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n"), NULL},
    {"the other family", BYTES("PROXY TCP4 ::1 ::1 1 2\r\n"), NULL},
    {"the other family", BYTES("PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n"), NULL},
    {"UDP", BYTES("PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n"), NULL},
    {"lower case", BYTES("proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n"), NULL},
    {"SMTP", BYTES("EHLO there\r\n"), NULL},
    {"108 bytes",
     BYTES("PROXY UNKNOWN 0123456789012345678901234567890123456789012345678901234567890"
           "1234567890123456789012345678901\r\n"),
     NULL},
    {"107 bytes",
     BYTES("PROXY UNKNOWN 0123456789012345678901234567890123456789012345678901234567890"
           "123456789012345678901234567890\r\n"),
     ""},
    {"version 2, IPv4", BYTES(SIGN "\x21\x11\0\x0c" V4), "192.0.2.7 51000"},
    {"version 2 with a TLV", BYTES(SIGN "\x21\x11\0\x11" V4 "\4\0\2ab"), "192.0.2.7 51000"},
    {"version 2, local, with bytes to skip", BYTES(SIGN "\x20\0\0\3abc"), ""},
    {"version 2, unspecified", BYTES(SIGN "\x21\0\0\0"), ""},
    {"version 2, mapped",
     BYTES(SIGN "\x21\x21\0\x24\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\0\2\7"
                "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0\1\0\2"),
     "192.0.2.7 1"},
    {"version 1 in version 2", BYTES(SIGN "\x11\x11\0\x0c" V4), NULL},
    {"version 3", BYTES(SIGN "\x31\x11\0\x0c" V4), NULL},
    {"command 2", BYTES(SIGN "\x22\x11\0\x0c" V4), NULL},
    {"family 4", BYTES(SIGN "\x21\x41\0\x0c" V4), NULL},
    {"a datagram", BYTES(SIGN "\x21\x12\0\x0c" V4), NULL},
    {"too short for its family", BYTES(SIGN "\x21\x11\0\x0b" V4), NULL},
    {"a TLV that is cut", BYTES(SIGN "\x21\x11\0\x0e" V4 "\4\0"), NULL},
    {"a TLV beyond the end", BYTES(SIGN "\x21\x11\0\x11" V4 "\4\0\3ab"), NULL},
    {"a wrong checksum", BYTES(SIGN "\x21\x11\0\x13" V4 "\3\0\4\1\2\3\4"), NULL},
};

static void check(const struct header *h)
{
    struct proxyline p;
    for (size_t n = 0; n < h->n;
         n++) { /* byte by byte it is never good, and bad only if it is bad */
        enum proxyline_state s = proxyline_read(&p, span_of(h->in, n));
        if (s == PROXYLINE_GOOD || (s == PROXYLINE_BAD && h->client))
            fail_msg("%s: %d after %zu bytes", h->name, (int)s, n);
    }
    char more[256], client[IPADDR_TEXT + 8] = "";
    memcpy(more, h->in, h->n);
    memcpy(more + h->n, "EHLO x", 6);
    enum proxyline_state s = proxyline_read(&p, span_of(more, h->n + 6));
    if ((s == PROXYLINE_GOOD) != (h->client != NULL))
        fail_msg("%s: %d", h->name, (int)s);
    if (!h->client)
        return;
    assert_int_equal(p.used, h->n);
    if (p.known)
        snprintf(client + ipaddr_print(&p.client, client), 8, " %u", p.port);
    assert_string_equal(client, h->client);
}

static void test_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++)
        check(&headers[i]);
}

static void test_longest(void **state)
{
    (void)state;
    struct proxyline p;
    static uint8_t in[PROXYLINE_MAX];
    memcpy(in, SIGN "\x20\0\xff\xff", 16);
    assert_int_equal(proxyline_read(&p, span_of(in, sizeof in - 1)), PROXYLINE_MORE);
    assert_int_equal(proxyline_read(&p, span_of(in, sizeof in)), PROXYLINE_GOOD);
    assert_int_equal(p.used, PROXYLINE_MAX);
}

static void test_write(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"192.0.2.7", "198.51.100.1"}, {"2001:db8::7", "::1"}, {"192.0.2.7", "::1"}};
    for (int version = 1; version <= 2; version++)
        for (size_t i = 0; i < 3; i++) {
            struct ipaddr client, server;
            struct proxyline p;
            uint8_t out[128];
            assert_true(ipaddr_parse(&client, span_str(pairs[i][0])));
            assert_true(ipaddr_parse(&server, span_str(pairs[i][1])));
            size_t n = proxyline_write(out, sizeof out, version, &client, 51000, &server, 25);
            assert_int_equal(proxyline_read(&p, span_of(out, n)), PROXYLINE_GOOD);
            assert_int_equal(p.used, n);
            assert_int_equal(p.known, i < 2);
            if (i < 2)
                assert_memory_equal(&p.client, &client, sizeof client);
            assert_int_equal(proxyline_write(out, n - 1, version, &client, 51000, &server, 25), 0);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_longest),
        cmocka_unit_test(test_write),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
