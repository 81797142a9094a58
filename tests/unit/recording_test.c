/* recording_test.c - the envelope of stored mail, and lines of traces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "jsonl.h"

static struct keys keys;

#define FROM_LINE "line@a.example Mon Sep  2 07:30:35 2002"
#define TOP                                                                                        \
    "Received: from mail.a.example (rdns.a.example [192.0.2.7])\n\tby mx.b.example with ESMTP id " \
    "Q1\n\tfor <for@b.example>; Mon, 2 Sep 2002 08:30:36 +0100\n"
#define BELOW "Received: from pc by mail.a.example; Mon, 2 Sep 2002 08:30:30 +0100\n"
#define REST "From: A <from@a.example>\nTo: b@b.example, c@c.example\nCc: B@B.EXAMPLE\n\ntext\n"

static const struct {
    const char *name, *from_line, *message;
    const char *from, *rcpts, *client, *data;
    int64_t time; /* s; -1: unknown */
} cases[] = {
    {"all that the final delivery knows", FROM_LINE,
     "Return-Path: <rp@a.example>\nX-Original-To: alias@b.example\n"
     "Delivered-To: box@b.example\n" TOP BELOW REST,
     "rp@a.example", "box@b.example", "192.0.2.7 mail.a.example rdns.a.example Q1", BELOW REST,
     1030951836},
    {"X-Original-To", "", "X-Original-To: alias@b.example\n" TOP REST, "from@a.example",
     "alias@b.example", "192.0.2.7 mail.a.example rdns.a.example Q1", REST, 1030951836},
    {"Envelope-To of several", "", "Envelope-to: x@b.example, y@b.example\n" TOP REST,
     "from@a.example", "x@b.example y@b.example", "192.0.2.7 mail.a.example rdns.a.example Q1",
     REST, 1030951836},
    {"the server's for", FROM_LINE, TOP REST, "line@a.example", "for@b.example",
     "192.0.2.7 mail.a.example rdns.a.example Q1", REST, 1030951836},
    {"a Delivered-To of an earlier delivery is no recipient, and stays", "",
     TOP "Delivered-To: old@c.example\n" REST, "from@a.example", "for@b.example",
     "192.0.2.7 mail.a.example rdns.a.example Q1", "Delivered-To: old@c.example\n" REST,
     1030951836},
    {"but better than To", "", BELOW "Delivered-To: old@c.example\n" REST, "from@a.example",
     "old@c.example", " pc  ", "Delivered-To: old@c.example\n" REST, 1030951830},
    {"what a filter put on top stays", "", "X-Spam: no\nReturn-Path: <>\n" TOP REST, "",
     "for@b.example", "192.0.2.7 mail.a.example rdns.a.example Q1", "X-Spam: no\n" REST,
     1030951836},
    {"To and Cc, each once; the time of the From_ line", FROM_LINE, REST, "line@a.example",
     "b@b.example c@c.example", "   ", REST, 1030951835},
    {"Bcc, and the time of Date", "",
     "Bcc: d@d.example\nDate: Mon, 2 Sep 2002 07:30:34 +0000\n" REST, "from@a.example",
     "b@b.example c@c.example d@d.example", "   ",
     "Bcc: d@d.example\nDate: Mon, 2 Sep 2002 07:30:34 +0000\n" REST, 1030951834},
    {"MAILER-DAEMON is the null reverse-path", "MAILER-DAEMON Mon Sep  2 07:30:35 2002", REST, "",
     "b@b.example c@c.example", "   ", REST, 1030951835},
    {"a From_ line without a sender", "- Mon Sep  2 07:30:35 2002", REST, "from@a.example",
     "b@b.example c@c.example", "   ", REST, 1030951835},
    {"no time, no anything", "", "\nnothing\n", "", "", "   ", "\nnothing\n", -1},
    {"empty", "", "", "", "", "   ", "", -1},
    {"an unknown reverse name", "",
     "Received: from h (unknown [192.0.2.8]) by mx.b.example; Mon, 2 Sep 2002 07:30:35 GMT\n" REST,
     "from@a.example", "b@b.example c@c.example", "192.0.2.8 h  ", REST, 1030951835},
};

static void same(const char *name, const char *what, struct span got, const char *want)
{
    if (!span_eq(got, span_str(want)))
        fail_msg("%s: %s is \"%.*s\", not \"%s\"", name, what, SPAN_ARG(got), want);
}

static void stored_mail_has_an_envelope(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct arena *a = arena_new();
        struct recording r;
        recording_of_mail(&r, a, &keys, span_str(cases[i].from_line), span_str(cases[i].message));
        const char *rcpts = "";
        for (size_t k = 0; k < r.nrcpts; k++)
            rcpts = arena_printf(a, "%s%s%.*s", rcpts, k ? " " : "", SPAN_ARG(r.rcpts[k]));
        const char *client = arena_printf(a, "%.*s %.*s %.*s %.*s", SPAN_ARG(r.client),
                                          SPAN_ARG(r.helo), SPAN_ARG(r.name), SPAN_ARG(r.queue_id));
        same(cases[i].name, "reverse-path", r.from, cases[i].from);
        same(cases[i].name, "recipients", span_str(rcpts), cases[i].rcpts);
        same(cases[i].name, "client", span_str(client), cases[i].client);
        same(cases[i].name, "message", r.data, cases[i].data);
        int64_t want = cases[i].time < 0 ? -1 : cases[i].time * 1000;
        if (r.time != want)
            fail_msg("%s: time %lld", cases[i].name, (long long)r.time);
        arena_free(&a);
    }
}

/* The header is read piece by piece, and moves as it grows. */
static void a_long_header_loses_nothing(void **state)
{
    (void)state;
    for (size_t lines = 1; lines <= 600; lines += 7) {
        struct arena *a = arena_new();
        struct recording r;
        struct span below = span_of(NULL, 0);
        for (size_t i = 0; i < lines; i++)
            below = arena_join(a, below, SPAN(BELOW), span_of(NULL, 0));
        below = arena_join(a, below, SPAN(REST), span_of(NULL, 0));
        struct span stored = arena_join(a, SPAN("X-Filter: yes\nDelivered-To: box@b.example\n" TOP),
                                        below, span_of(NULL, 0));
        recording_of_mail(&r, a, &keys, span_of(NULL, 0), stored);
        struct span want = arena_join(a, SPAN("X-Filter: yes\n"), below, span_of(NULL, 0));
        if (!span_eq(r.data, want))
            fail_msg("%zu Received fields: %zu bytes, not %zu", lines + 1, r.data.n, want.n);
        arena_free(&a);
    }
}

static void many_fields_above_cost_their_bytes(void **state)
{
    (void)state;
    enum { FIELDS = 1500, BYTES = 500 };
    struct arena *a = arena_new();
    struct recording r;
    size_t n = 0;
    char *mail = malloc(FIELDS * BYTES + 1000);
    assert_non_null(mail);
    for (int i = 0; i < FIELDS; i++)
        n += (size_t)sprintf(mail + n, "X-%d: %0*d\n", i, BYTES - 10, i);
    size_t above = n;
    n += (size_t)sprintf(mail + n, "%s%s", TOP, REST);
    recording_of_mail(&r, a, &keys, span_of(NULL, 0), span_of(mail, n));
    assert_int_equal(r.data.n, n - strlen(TOP));
    assert_memory_equal(r.data.p, mail, above);
    assert_true(arena_used(a) < 10 * n);
    arena_free(&a);
    free(mail);
}

/* Around "data". */
#define LINE(data) "{\"t\": 1.5, \"rcpt\": [\"b@b.example\"], \"data\": \"" data "\"}"

static void lines_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *name, *line, *wrong, *data;
    } lines[] = {
        {"plain", LINE("a: b"), NULL, "a: b"},
        {"escapes", LINE("a\\r\\n\\t\\\"\\\\\\/\\b\\f\\u0041"), NULL, "a\r\n\t\"\\/\b\fA"},
        {"a pair", LINE("\\ud83d\\ude00"), NULL, "\xf0\x9f\x98\x80"},
        {"half a pair", LINE("\\ud83dx\\u20ac"), NULL, "\xef\xbf\xbdx\xe2\x82\xac"},
        {"a byte by surrogateescape", LINE("\\udce9 \\u20ac"), NULL, "\xe9 \xe2\x82\xac"},
        {"UTF-8 by latin-1", LINE("\\u00c3\\u00a9"), NULL, "\xc3\xa9"},
        {"latin-1 by latin-1", LINE("caf\\u00e9!"), NULL, "caf\xe9!"},
        {"text that says it is UTF-8", LINE("charset=UTF-8 caf\\u00e9!"), NULL,
         "charset=UTF-8 caf\xc3\xa9!"},
        {"text beyond latin-1", LINE("\xc3\xa9\xe2\x82\xac"), NULL, "\xc3\xa9\xe2\x82\xac"},
        {"base64", "{\"t\":1,\"rcpt\":[],\"data_b64\":\"YQBi\"}", NULL, NULL},
        {"unknown members are passed over",
         "{\"x\": {\"y\": [1, {\"}\": \"]\"}, null]}, \"t\": 1e3, \"rcpt\": [ ], \"data\": \"d\", "
         "\"z\": -1.5}",
         NULL, "d"},
        {"no object", "[]", "not a JSON object", NULL},
        {"nothing after it", LINE("x") "x", "something follows the object", NULL},
        {"cut off", "{\"t\": 1, \"rcpt\": [\"b@b", "a string does not end on this line", NULL},
        {"no time", "{\"rcpt\": [], \"data\": \"\"}", "\"t\" (seconds since 1970) is missing",
         NULL},
        {"a time that is none", "{\"t\": \"1\", \"rcpt\": [], \"data\": \"\"}",
         "\"t\" is no time in seconds since 1970", NULL},
        {"a time without end", "{\"t\": 1e999, \"rcpt\": [], \"data\": \"\"}",
         "\"t\" is no time in seconds since 1970", NULL},
        {"a time before 1970", "{\"t\": -1, \"rcpt\": [], \"data\": \"\"}",
         "\"t\" is no time in seconds since 1970", NULL},
        {"no recipients", "{\"t\": 1, \"data\": \"\"}", "\"rcpt\" (a list of addresses) is missing",
         NULL},
        {"a number as recipient", "{\"t\": 1, \"rcpt\": [7], \"data\": \"\"}",
         "\"rcpt\" holds something that is no address", NULL},
        {"no message", "{\"t\": 1, \"rcpt\": []}",
         "none of \"data\", \"data_b64\" and \"eml\" is there", NULL},
        {"no such file", "{\"t\": 1, \"rcpt\": [], \"eml\": \"no/such\"}",
         "the file that \"eml\" names cannot be read", NULL},
        {"bad base64", "{\"t\": 1, \"rcpt\": [], \"data_b64\": \"YQ\"}",
         "\"data_b64\" is not base64", NULL},
        {"a bad escape", LINE("\\x"), "a backslash with a letter that means nothing", NULL},
        {"a bad code point", LINE("\\u12g4"), "\\u without four hexadecimal digits", NULL},
        {"too deep", "{\"x\": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
         "values nested too deeply", NULL},
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct arena *a = arena_new();
        struct recording r;
        const char *wrong = jsonl_read(&r, a, span_str(lines[i].line), "./trace.jsonl");
        if (!wrong != !lines[i].wrong || (wrong && strcmp(wrong, lines[i].wrong) != 0))
            fail_msg("%s: %s", lines[i].name, wrong ? wrong : "read");
        if (lines[i].data)
            same(lines[i].name, "data", r.data, lines[i].data);
        arena_free(&a);
    }
}

static void a_line_tells_everything(void **state)
{
    (void)state;
    struct arena *a = arena_new();
    struct recording r;
    assert_null(
        jsonl_read(&r, a,
                   SPAN("{\"t\": 1138037000.25, \"client\": \"192.0.2.7\", \"helo\": \"h\", "
                        "\"name\": \"n\", \"queue_id\": \"q\", \"from\": \"f\", \"rcpt\": "
                        "[\"x\", \"y\"], \"data_b64\": \"YQBi\", \"label\": \"l\\u00e9\"}\n"),
                   "trace"));
    assert_true(r.time == 1138037000250 && r.t == 1138037000.25);
    same("line", "client", r.client, "192.0.2.7");
    same("line", "helo", r.helo, "h");
    same("line", "name", r.name, "n");
    same("line", "queue_id", r.queue_id, "q");
    same("line", "from", r.from, "f");
    same("line", "label", r.label, "l\xc3\xa9");
    assert_int_equal(r.nrcpts, 2);
    same("line", "rcpt", r.rcpts[1], "y");
    assert_true(span_eq(r.data, SPAN("a\0b")));
    arena_free(&a);
}

int main(void)
{
    static const uint8_t site[32] = {9};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stored_mail_has_an_envelope),
        cmocka_unit_test(a_long_header_loses_nothing),
        cmocka_unit_test(many_fields_above_cost_their_bytes),
        cmocka_unit_test(lines_are_read),
        cmocka_unit_test(a_line_tells_everything),
    };
    if (keys_open(&keys, site) < 0)
        abort();
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    keys_close(&keys);
    return rc;
}
