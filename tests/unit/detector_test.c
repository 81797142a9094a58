/* detector_test.c - what all detectors are given: questions, and the subject of a transaction. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "detector.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static void questions_are_kept_in_order_up_to_a_limit(void **state)
{
    (void)state;
    struct arena *a = arena_new();
    struct tallies t = {0};
    for (size_t i = 0; i < TALLIES_MAX + 10; i++) {
        arena_alloc(a, 8); /* so that it cannot grow in place */
        size_t at = tallies_add(&t, a, (struct tally){.key = i});
        assert_int_equal(at, i < TALLIES_MAX ? i : TALLIES_MAX);
    }
    assert_int_equal(t.n, TALLIES_MAX);
    for (size_t i = 0; i < t.n; i++)
        assert_int_equal(t.t[i].key, i);
    arena_free(&a);
}

/* Same content each time; what else must be equal for it to be the same message? */
static void without_id_and_date_content_does_not_identify(void **state)
{
    (void)state;
    static const struct {
        const char *name, *one, *other, *message_id, *date;
        bool same;
    } cases[] = {
        {"nothing at all: new each time", "", "", "", "", false},
        {"one acceptance", "Received: by a.example id 1\r\n", "Received: by a.example id 1\r\n", "",
         "", true},
        {"another acceptance", "Received: by a.example id 1\r\n", "Received: by a.example id 2\r\n",
         "", "", false},
        {"one acceptance, another way on", "Received: by a.example id 1\r\n",
         "Received: by b.example id 7\r\nReceived: by a.example id 1\r\n", "", "", true},
        {"a Date is enough", "", "", "", "1138010400", true},
        {"a Message-ID is enough", "", "", "1@a.example", "", true},
    };
    static const uint8_t key[32] = {5};
    struct keys keys;
    struct site site;
    assert_int_equal(keys_open(&keys, key), 0);
    site_defaults(&site);
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct arena *a = arena_new();
        struct key k[2];
        for (int64_t t = 0; t < 2; t++) {
            struct message *m = message_new(a);
            message_add_raw(m, span_str(t ? cases[i].other : cases[i].one));
            message_end_header(m);
            struct envelope e = {0};
            struct fingerprints fp = {.k = {{7}},
                                      .message_id = span_str(cases[i].message_id),
                                      .date = span_str(cases[i].date)};
            struct subject s;
            subject_read(&s, a, &site, &keys, &e, m, &fp, 1000 + t);
            k[t] = s.fp.k;
        }
        if ((memcmp(&k[0], &k[1], sizeof k[0]) == 0) != cases[i].same)
            fail_msg("%s: taken for %s", cases[i].name, cases[i].same ? "two" : "one");
        arena_free(&a);
    }
    keys_close(&keys);
}

static void subjects(void **state)
{
    (void)state;
    static const struct {
        const char *name, *client_name, *helo, *host, *org;
    } cases[] = {
        {"the name its address resolves to", "MX1.A.Example", "other.example", "mx1.a.example",
         "a.example"},
        {"no such name: what it said", "", "Mail.B.co.uk.", "mail.b.co.uk", "b.co.uk"},
        {"Postfix could not find one", "unknown", "mail.b.example", "mail.b.example", "b.example"},
        {"Sendmail puts the address there", "[192.0.2.1]", "mail.b.example", "mail.b.example",
         "b.example"},
        {"it said its address", "unknown", "[192.0.2.1]", "192.0.2.1", "192.0.2.1"},
        {"it said nothing", "", "", "", ""},
    };
    static const uint8_t key[32] = {5};
    struct keys keys;
    struct site site;
    assert_int_equal(keys_open(&keys, key), 0);
    site_defaults(&site);
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct arena *a = arena_new();
        struct message *m = message_new(a);
        message_add_raw(m, SPAN("Received: from pc ([192.0.2.9]) by mx.a.example id 1\r\n"
                                "To: joe@b.example, Ann@B.example\r\n"));
        message_end_header(m);
        struct recipient rcpt[] = {
            {.raw = SPAN("<Joe@B.example>"), .address = SPAN("Joe@B.example")},
            {.raw = SPAN("<x@c.example>"), .address = SPAN("x@c.example")}};
        struct envelope e = {.client_name = span_str(cases[i].client_name),
                             .helo = span_str(cases[i].helo),
                             .recipients = rcpt,
                             .nrecipients = COUNT(rcpt)};
        assert_true(ipaddr_parse(&e.client, SPAN("192.0.2.1")));
        struct fingerprints fp = {.f = 77};
        struct subject s;
        subject_read(&s, a, &site, &keys, &e, m, &fp, 1234);
        if (!span_eq(s.client_host, span_str(cases[i].host)) ||
            !span_eq(s.client_org, span_str(cases[i].org)))
            fail_msg("%s: %.*s, %.*s", cases[i].name, SPAN_ARG(s.client_host),
                     SPAN_ARG(s.client_org));
        assert_int_equal(s.now, 1234);
        assert_int_equal(s.fp.f, 77);
        assert_int_equal(s.trace.nhops, 1);
        assert_int_equal(s.path.n, 2);
        assert_true(span_eq(s.path.node[1].server, SPAN("mx.a.example[192.0.2.1]")));
        assert_int_equal(s.visible.n, 2);
        assert_true(visible_find(&s.visible, rcpt[0].hash) >= 0);
        assert_false(visible_find(&s.visible, rcpt[1].hash) >= 0);
        uint16_t domain;
        assert_int_equal(rcpt[1].hash, keys_address(&keys, SPAN("X@C.example"), &domain));
        assert_int_equal(rcpt[1].domain, domain);
        arena_free(&a);
    }
    keys_close(&keys);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(questions_are_kept_in_order_up_to_a_limit),
        cmocka_unit_test(without_id_and_date_content_does_not_identify),
        cmocka_unit_test(subjects),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
