/* smtp_proto_test.c - command lines, replies and EHLO keywords as clients and servers write them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "smtp_proto.h"

static const struct smtp_offer all = {
    .size = true, .eightbit = true, .utf8 = true, .dsn = true, .auth = true, .size_max = 1000000};
static const struct smtp_offer none = {0};

#define LINE(literal) literal, sizeof(literal) - 1

struct line {
    const char *in;
    size_t n;
    enum smtp_verb verb;
    int wrong;        /* code; 0: it is good */
    const char *path; /* NULL: not looked at */
};

static const struct line lines[] = {
    {LINE("EHLO a.example"), VERB_EHLO, 0, NULL},
    {LINE("ehlo [192.0.2.1]"), VERB_EHLO, 0, NULL},
    {LINE("EHLO "), VERB_EHLO, 501, NULL},
    {LINE("EHLO"), VERB_EHLO, 501, NULL},
    {LINE("EHLO a b"), VERB_EHLO, 501, NULL},
    {LINE("EHLO a\0b"), VERB_EHLO, 501, NULL},
    {LINE("EHLO a\rMAIL FROM:<x@y>"), VERB_EHLO, 501, NULL},
    {LINE("\0EHLO a"), VERB_UNKNOWN, 500, NULL},
    {LINE("GET / HTTP/1.1"), VERB_FOREIGN, 0, NULL},
    {LINE("CONNECT x:25 HTTP/1.1"), VERB_FOREIGN, 0, NULL},
    {LINE("\x16\x03\x01\x02\0\x01"), VERB_FOREIGN, 0, NULL},
    {LINE("XEXCH50 1124 2"), VERB_FOREIGN, 0, NULL},
    {LINE("X-ANONYMOUSTLS"), VERB_FOREIGN, 0, NULL},
    {LINE("X-EXPS GSSAPI abc"), VERB_FOREIGN, 0, NULL},
    {LINE("BDAT 10 LAST"), VERB_FOREIGN, 0, NULL},
    {LINE("XSHADOW abc"), VERB_UNKNOWN, 0, NULL},
    {LINE("NOOP what you like"), VERB_NOOP, 0, NULL},
    {LINE("RSET x"), VERB_RSET, 501, NULL},
    {LINE("DATA x"), VERB_DATA, 501, NULL},
    {LINE("STARTTLS x"), VERB_STARTTLS, 501, NULL},
    {LINE("QUIT"), VERB_QUIT, 0, NULL},
    {LINE("VRFY"), VERB_VRFY, 501, NULL},
    {LINE("VRFY root"), VERB_VRFY, 0, NULL},
    {LINE("AUTH"), VERB_AUTH, 501, NULL},
    {LINE("mail from:<a@b>"), VERB_MAIL, 0, "a@b"},
    {LINE("MAIL FROM: <a@b>"), VERB_MAIL, 0, "a@b"},
    {LINE("MAIL FROM:a@b"), VERB_MAIL, 0, "a@b"},
    {LINE("MAIL FROM:<>"), VERB_MAIL, 0, ""},
    {LINE("MAIL FROM:"), VERB_MAIL, 501, NULL},
    {LINE("MAIL TO:<a@b>"), VERB_MAIL, 501, NULL},
    {LINE("MAIL FROM:<a@b"), VERB_MAIL, 501, NULL},
    {LINE("MAIL FROM:<a@b>>"), VERB_MAIL, 501, NULL},
    {LINE("MAIL FROM:<a b@c>"), VERB_MAIL, 501, NULL},
    {LINE("MAIL FROM:<\"a b\"@c>"), VERB_MAIL, 0, "\"a b\"@c"},
    {LINE("MAIL FROM:<\"a>b\"@c>"), VERB_MAIL, 0, "\"a>b\"@c"},
    {LINE("MAIL FROM:<\"a>b@c>"), VERB_MAIL, 501, NULL},
    {LINE("MAIL FROM:<\"a\\\"@c>"), VERB_MAIL, 501, NULL},
    {LINE("MAIL FROM:<\"a\tb\"@c>"), VERB_MAIL, 501, NULL},
    {LINE("MAIL FROM:<a\\b@c>"), VERB_MAIL, 0, "a\\b@c"},
    {LINE("MAIL FROM:<a\\>"), VERB_MAIL, 501, NULL},
    {LINE("MAIL FROM:<a\\>b@c>"), VERB_MAIL, 501, NULL},
    {LINE("MAIL FROM:<a\\\" <x>\"b@c>"), VERB_MAIL, 501, NULL},
    {LINE("MAIL FROM:<a\\\\b@c>"), VERB_MAIL, 501, NULL},
    {LINE("MAIL FROM:<@a,@b:u@c>"), VERB_MAIL, 0, "u@c"},
    {LINE("MAIL FROM:<u@[IPv6:::1]>"), VERB_MAIL, 0, "u@[IPv6:::1]"},
    {LINE("MAIL FROM:<\xff\xfe@b>"), VERB_MAIL, 501, NULL},
    {LINE("MAIL FROM:<\xc3\xa4@b>"), VERB_MAIL, 501, NULL},
    {LINE("MAIL FROM:<\xc3\xa4@b> SMTPUTF8"), VERB_MAIL, 0, "\xc3\xa4@b"},
    {LINE("MAIL FROM:<\xc0\xaf@b> SMTPUTF8"), VERB_MAIL, 501, NULL},
    {LINE("MAIL FROM:<\xed\xa0\x80@b> SMTPUTF8"), VERB_MAIL, 501, NULL},
    {LINE("MAIL FROM:<a@b> SMTPUTF8=1"), VERB_MAIL, 501, NULL},
    {LINE("MAIL FROM:<a@b> SIZE=1000000"), VERB_MAIL, 0, NULL},
    {LINE("MAIL FROM:<a@b> SIZE=1000001"), VERB_MAIL, 552, NULL},
    {LINE("MAIL FROM:<a@b> SIZE=99999999999999999999"), VERB_MAIL, 552, NULL},
    {LINE("MAIL FROM:<a@b> SIZE=999999999999999999999"), VERB_MAIL, 552, NULL},
    {LINE("MAIL FROM:<a@b> SIZE=-1"), VERB_MAIL, 501, NULL},
    {LINE("MAIL FROM:<a@b> SIZE=0x10"), VERB_MAIL, 501, NULL},
    {LINE("MAIL FROM:<a@b> SIZE="), VERB_MAIL, 501, NULL},
    {LINE("MAIL FROM:<a@b> SIZE=1 SIZE=2"), VERB_MAIL, 501, NULL},
    {LINE("MAIL FROM:<a@b> BODY=8BITMIME"), VERB_MAIL, 0, NULL},
    {LINE("MAIL FROM:<a@b> BODY=BINARYMIME"), VERB_MAIL, 555, NULL},
    {LINE("MAIL FROM:<a@b> BODY=8BITMIME\x0b"), VERB_MAIL, 501, NULL},
    {LINE("MAIL FROM:<a@b> AUTH=<>"), VERB_MAIL, 0, NULL},
    {LINE("MAIL FROM:<a@b> AUTH=<+0D+0ARCPT>"), VERB_MAIL, 501, NULL},
    {LINE("MAIL FROM:<a@b> ENVID=+ZZ"), VERB_MAIL, 501, NULL},
    {LINE("MAIL FROM:<a@b> ENVID=a+2Bb"), VERB_MAIL, 0, NULL},
    {LINE("MAIL FROM:<a@b> ENVID=a+2"), VERB_MAIL, 501, NULL},
    {LINE("MAIL FROM:<a@b> RET=FULL"), VERB_MAIL, 0, NULL},
    {LINE("MAIL FROM:<a@b> RET=FULL RET=HDRS"), VERB_MAIL, 501, NULL},
    {LINE("MAIL FROM:<a@b> NOTIFY=NEVER"), VERB_MAIL, 555, NULL},
    {LINE("MAIL FROM:<a@b> XYZ=1"), VERB_MAIL, 555, NULL},
    {LINE("RCPT TO:<a@b>"), VERB_RCPT, 0, "a@b"},
    {LINE("RCPT TO:<>"), VERB_RCPT, 501, NULL},
    {LINE("RCPT TO:<postmaster>"), VERB_RCPT, 0, "postmaster"},
    {LINE("RCPT TO:<a%b@c>"), VERB_RCPT, 0, "a%b@c"},
    {LINE("RCPT TO:<a!b>"), VERB_RCPT, 0, "a!b"},
    {LINE("RCPT TO:<a@b.>"), VERB_RCPT, 0, "a@b."},
    {LINE("RCPT TO:<a@b> NOTIFY=NEVER"), VERB_RCPT, 0, NULL},
    {LINE("RCPT TO:<a@b> NOTIFY=NEVER,DELAY"), VERB_RCPT, 501, NULL},
    {LINE("RCPT TO:<a@b> NOTIFY=DELAY,FAILURE"), VERB_RCPT, 0, NULL},
    {LINE("RCPT TO:<a@b> NOTIFY=DELAY,"), VERB_RCPT, 501, NULL},
    {LINE("RCPT TO:<a@b> NOTIFY="), VERB_RCPT, 501, NULL},
    {LINE("RCPT TO:<a@b> ORCPT=rfc822;a+2Bb@c"), VERB_RCPT, 0, NULL},
    {LINE("RCPT TO:<a@b> ORCPT=rfc822;a+0Ab"), VERB_RCPT, 501, NULL},
    {LINE("RCPT TO:<a@b> ORCPT=rfc822;"), VERB_RCPT, 501, NULL},
    {LINE("RCPT TO:<a@b>x"), VERB_RCPT, 501, NULL},
};

static void test_lines(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        const struct line *l = &lines[i];
        struct smtp_command c;
        smtp_command_read(&c, span_of(l->in, l->n), &all);
        int wrong = c.wrong ? atoi(c.wrong) : 0;
        if (c.verb != l->verb || wrong != l->wrong)
            fail_msg("\"%s\": verb %d, %s", l->in, (int)c.verb, c.wrong ? c.wrong : "good");
        if (l->path && !span_eq(c.path, span_str(l->path)))
            fail_msg("\"%s\": path %.*s", l->in, SPAN_ARG(c.path));
    }
}

/* What was not offered is refused. */
static void test_not_offered(void **state)
{
    (void)state;
    static const char *const in[] = {"MAIL FROM:<a@b> SIZE=1",   "MAIL FROM:<a@b> BODY=7BIT",
                                     "MAIL FROM:<a@b> SMTPUTF8", "MAIL FROM:<a@b> RET=HDRS",
                                     "MAIL FROM:<a@b> AUTH=<>",  "RCPT TO:<a@b> NOTIFY=NEVER"};
    for (size_t i = 0; i < sizeof in / sizeof *in; i++) {
        struct smtp_command c;
        smtp_command_read(&c, span_str(in[i]), &none);
        assert_true(c.wrong && atoi(c.wrong) == 555);
    }
}

/* A long path is refused, whatever else is on the line. */
static void test_long_path(void **state)
{
    (void)state;
    char line[SMTP_COMMAND_MAX];
    struct smtp_command c;
    for (unsigned n = LIMIT_ADDRESS; n <= LIMIT_ADDRESS + 1; n++) {
        int at = snprintf(line, sizeof line, "RCPT TO:<%0*d>", (int)n, 1);
        smtp_command_read(&c, span_of(line, (size_t)at), &all);
        assert_int_equal(c.wrong == NULL, n == LIMIT_ADDRESS);
    }
}

struct conversation {
    const char *lines[4];
    int code;
    const char *text;
};
static const struct conversation replies[] = {
    {{"250 ok"}, 250, "250 ok\r\n"},
    {{"250-a", "250-b", "250 c"}, 250, "250-a\r\n250-b\r\n250 c\r\n"},
    {{"250"}, 250, "250\r\n"},
    {{"451-4.7.0 a", "451 4.7.0 b"}, 451, "451-4.7.0 a\r\n451 4.7.0 b\r\n"},
    {{"250 \x1b[2J"}, 250, "250  [2J\r\n"},
    {{"hello"}, -1, NULL},
    {{"25"}, -1, NULL},
    {{"150 x"}, -1, NULL},
    {{"600 x"}, -1, NULL},
    {{"250x"}, -1, NULL},
    {{"250-a", "251-b", "550 c"}, 550, "550-a\r\n550-b\r\n550 c\r\n"},
    {{"550-a", "250"}, 250, "250-a\r\n250\r\n"},
    {{"250-a", ""}, -1, NULL},
};

static void test_replies(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof replies / sizeof *replies; i++) {
        struct arena *a = arena_new();
        struct smtp_reply r = {0};
        size_t k = 0;
        while (!smtp_reply_line(&r, a, span_str(replies[i].lines[k])))
            k++;
        assert_int_equal(r.code, replies[i].code);
        if (replies[i].text && !span_eq(r.text, span_str(replies[i].text)))
            fail_msg("case %zu: %.*s", i, SPAN_ARG(r.text));
        arena_free(&a);
    }
}

static void test_endless_reply(void **state)
{
    (void)state;
    struct arena *a = arena_new();
    struct smtp_reply r = {0};
    unsigned n = 0;
    while (!smtp_reply_line(&r, a, SPAN("250-more")))
        n++;
    assert_int_equal(n, SMTP_REPLY_LINES);
    assert_int_equal(r.code, -1);
    arena_free(&a);
}

static void test_offers(void **state)
{
    (void)state;
    static const char *const exchange[] = {"SIZE 37748736",
                                           "PIPELINING",
                                           "DSN",
                                           "ENHANCEDSTATUSCODES",
                                           "STARTTLS",
                                           "X-ANONYMOUSTLS",
                                           "AUTH NTLM LOGIN",
                                           "X-EXPS GSSAPI NTLM",
                                           "8BITMIME",
                                           "BINARYMIME",
                                           "CHUNKING",
                                           "XEXCH50",
                                           "XRDST",
                                           "XSHADOWREQUEST"};
    struct arena *a = arena_new();
    struct smtp_offer o = {0};
    for (size_t i = 0; i < sizeof exchange / sizeof *exchange; i++)
        smtp_offer_keyword(&o, a, span_str(exchange[i]));
    assert_true(o.size && o.size_max == 37748736 && o.pipelining && o.dsn && o.enhanced);
    assert_true(o.starttls && o.eightbit && !o.utf8 && !o.vrfy && o.auth);
    assert_true(span_eq(o.mechanisms, SPAN(" LOGIN")));
    arena_free(&a);
}

static void test_without_size(void **state)
{
    (void)state;
    static const char *const cases[][2] = {{"", ""},
                                           {"SIZE=1", ""},
                                           {"SIZE=1 BODY=8BITMIME", "BODY=8BITMIME"},
                                           {"BODY=7BIT  size=2 RET=FULL", "BODY=7BIT RET=FULL"}};
    struct arena *a = arena_new();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_true(span_eq(smtp_without_size(a, span_str(cases[i][0])), span_str(cases[i][1])));
    arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_size), cmocka_unit_test(test_lines),
        cmocka_unit_test(test_not_offered),  cmocka_unit_test(test_long_path),
        cmocka_unit_test(test_replies),      cmocka_unit_test(test_endless_reply),
        cmocka_unit_test(test_offers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
