/* fact_pack_test.c - facts come back from their packs, also when the table has changed since. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fact_pack.h"

struct packs {
    uint8_t of_message[FACT_PACK_MESSAGE], of_copy[FACT_PACK_COPY];
    struct span message, copy;
    struct fact_map map;
};

/* As facts_of_message() leaves those of a message of which nothing is known. */
static void usual(struct facts *f)
{
    struct subject s = {0};
    struct envelope e = {0};
    struct recipient r = {.address = SPAN("b@b.example")};
    struct site site = {0};
    struct signals signals = {.loop = {.visits = 1, .edges = 1}, .replication = {.copies = 1}};
    e.recipients = &r;
    e.nrecipients = 1;
    s.envelope = &e;
    s.site = &site;
    facts_of_message(f, &s, &signals, UINT64_MAX & ~(UINT64_C(1) << FACT_RELAY_TRUSTED));
    facts_of_recipient(f, &s, &signals, 0);
}

static void pack(struct packs *p, const struct facts *f)
{
    char text[FACT_DESCRIPTION];
    size_t n = facts_pack(f, false, p->of_message);
    assert_true(n <= FACT_PACK_MESSAGE);
    p->message = span_of(p->of_message, n);
    n = facts_pack(f, true, p->of_copy);
    assert_true(n <= FACT_PACK_COPY);
    p->copy = span_of(p->of_copy, n);
    assert_null(p->message.n ? memchr(p->message.p, 0, p->message.n) : NULL);
    assert_null(p->copy.n ? memchr(p->copy.p, 0, p->copy.n) : NULL);
    n = facts_describe(text);
    assert_null(memchr(text, 0, n));
    fact_map_read(&p->map, span_of(text, n));
}

/* Facts beside the packs, as whoever keeps them brings them. */
static void bring(const struct facts *from, struct facts *to)
{
    memset(to, 0, sizeof *to);
    for (unsigned i = 0; i < FACT_COUNT; i++)
        if (FACTS_KEPT_ASIDE >> i & 1)
            to->value[i] = from->value[i];
}

static bool same(const struct fact_value *a, const struct fact_value *b)
{
    if (a->type != b->type)
        return false;
    switch (a->type) {
    case TYPE_BOOL:
        return a->yes == b->yes;
    case TYPE_NUMBER:
        return a->number - b->number < 0.001 && b->number - a->number < 0.001;
    case TYPE_STRING:
    case TYPE_ADDRESS:
        return span_eq(a->text, b->text);
    case TYPE_NONE:
        break;
    }
    return true;
}

/* Domains follow from addresses. */
static const uint64_t derived = UINT64_C(1) << FACT_ENVELOPE_FROM_DOMAIN |
                                UINT64_C(1) << FACT_MESSAGE_FROM_DOMAIN |
                                UINT64_C(1) << FACT_RECIPIENT_DOMAIN;

static void expect_same(const struct facts *want, const struct facts *got)
{
    for (unsigned i = 0; i < FACT_COUNT; i++)
        if (!(derived >> i & 1) && !(FACTS_NOT_PACKED >> i & 1 && !(FACTS_KEPT_ASIDE >> i & 1)) &&
            !same(&want->value[i], &got->value[i]))
            fail_msg("%s", fact_table[i].name);
}

static void ordinary_mail_needs_nothing(void **state)
{
    (void)state;
    static struct packs p;
    struct facts f, back;
    usual(&f);
    pack(&p, &f);
    assert_int_equal(p.message.n, 0);
    assert_int_equal(p.copy.n, 0);
    bring(&f, &back);
    assert_true(facts_unpack(&p.map, p.message, p.copy, &back));
    expect_same(&f, &back);
    assert_true(p.map.known == (((UINT64_C(1) << (FACT_COUNT - 1)) * 2 - 1) &
                                (~FACTS_NOT_PACKED | FACTS_KEPT_ASIDE | derived)));
}

static void every_fact_comes_back(void **state)
{
    (void)state;
    static struct packs p;
    static const double numbers[] = {1, 2, 127, 0.5, 1234.567, 1e9, 1e15, 9e15, 3600e3};
    struct facts f, back;
    for (unsigned i = 0; i < FACT_COUNT; i++)
        for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++) {
            usual(&f);
            struct fact_value *v = &f.value[i];
            v->yes = v->type == TYPE_BOOL;
            if (v->type == TYPE_NUMBER)
                v->number = numbers[k];
            if (v->type == TYPE_STRING)
                v->text = k % 2 ? SPAN("x") : SPAN("");
            pack(&p, &f);
            bring(&f, &back);
            assert_true(facts_unpack(&p.map, p.message, p.copy, &back));
            expect_same(&f, &back);
        }
}

static void a_text_like_another_is_not_kept_twice(void **state)
{
    (void)state;
    static struct packs p;
    struct facts f, back;
    usual(&f);
    f.value[FACT_ENVELOPE_FROM].text = f.value[FACT_MESSAGE_FROM].text = SPAN("a@a.example");
    f.value[FACT_RELAY_NAME].text = f.value[FACT_RELAY_HELO].text = SPAN("mail.a.example");
    pack(&p, &f);
    assert_int_equal(p.message.n, 2 + 14);
    bring(&f, &back);
    assert_true(facts_unpack(&p.map, p.message, p.copy, &back));
    expect_same(&f, &back);
    assert_true(span_eq(back.value[FACT_MESSAGE_FROM_DOMAIN].text, SPAN("a.example")));
    assert_true(span_eq(back.value[FACT_ENVELOPE_FROM_DOMAIN].text, SPAN("a.example")));
    f.value[FACT_MESSAGE_FROM].text = SPAN(""); /* empty, and not the other */
    pack(&p, &f);
    bring(&f, &back);
    assert_true(facts_unpack(&p.map, p.message, p.copy, &back));
    expect_same(&f, &back);
}

static void the_largest_facts_fit(void **state)
{
    (void)state;
    static struct packs p;
    static uint8_t flood[2 * FACT_TEXT_MAX];
    struct facts f, back;
    memset(flood, 0xff, sizeof flood);
    flood[7] = 0;
    usual(&f);
    for (unsigned i = 0; i < FACT_COUNT; i++) {
        struct fact_value *v = &f.value[i];
        bool word = strstr(fact_table[i].name, "advice") || strstr(fact_table[i].name, "rule");
        v->yes = v->type == TYPE_BOOL;
        if (v->type == TYPE_NUMBER)
            v->number = 1e300;
        if (v->type == TYPE_STRING)
            v->text = word ? SPAN("unknown") : span_of(flood, sizeof flood);
    }
    f.value[FACT_ENVELOPE_FROM].text = SPAN("a@a.example");
    f.value[FACT_RELAY_NAME].text = SPAN("a");
    pack(&p, &f);
    bring(&f, &back);
    assert_true(facts_unpack(&p.map, p.message, p.copy, &back));
    assert_int_equal(back.value[FACT_MESSAGE_SUBJECT].text.n, FACT_PACK_TEXT);
    assert_int_equal(back.value[FACT_MESSAGE_SUBJECT].text.p[7], '?');
    assert_true(back.value[FACT_MESSAGE_BYTES].number > 9e15);
    /* one that is too large is not cut in the middle */
    f.value[FACT_REPLICATION_ADVICE].text = f.value[FACT_PINGPONG_ADVICE].text =
        span_of(flood, sizeof flood);
    assert_true(facts_pack(&f, true, p.of_copy) == SIZE_MAX);
}

/* ---- another program's descriptions ---- */

static void names_count_not_numbers(void **state)
{
    (void)state;
    static struct fact_map map;
    struct facts f, back;
    usual(&f);
    bring(&f, &back);
    /* a table that has lost, got, renamed and retyped some, and thinks other things usual */
    fact_map_read(&map, SPAN("message.subject s \n"
                             "message.colour s red\n"
                             "loop.visits n 7\n"
                             "message.bytes s \n"
                             "replication.storm b \n"
                             "relay.helo s =message.subject\n"
                             "nonsense\n"
                             "flood.level s alert"));
    uint64_t known = FACTS_KEPT_ASIDE;
    const enum fact recorded[] = {FACT_MESSAGE_SUBJECT, FACT_LOOP_VISITS, FACT_REPLICATION_STORM,
                                  FACT_RELAY_HELO, FACT_FLOOD_LEVEL};
    for (size_t i = 0; i < sizeof recorded / sizeof *recorded; i++)
        known |= UINT64_C(1) << recorded[i];
    assert_true(map.known == known);
    assert_true(facts_unpack(&map, SPAN("\1\3hi\2\4red\4\2x\5"), SPAN(""), &back));
    assert_true(span_eq(back.value[FACT_MESSAGE_SUBJECT].text, SPAN("hi")));
    assert_true(span_eq(back.value[FACT_RELAY_HELO].text, SPAN("hi")));
    assert_true(span_eq(back.value[FACT_FLOOD_LEVEL].text, SPAN("alert")));
    assert_true(back.value[FACT_LOOP_VISITS].number > 6.9);
    assert_true(back.value[FACT_REPLICATION_STORM].yes);
    assert_false(back.value[FACT_MESSAGE_LIST].yes);
    assert_true(back.value[FACT_MESSAGE_BYTES].type == TYPE_NUMBER);
}

static void what_is_no_pack_is_refused(void **state)
{
    (void)state;
    static struct fact_map map;
    struct facts f;
    const struct {
        const char *name;
        struct span pack;
        bool good;
    } cases[] = {
        {"nothing", SPAN(""), true},
        {"a number", SPAN("\1\3"), true},
        {"a number without its value", SPAN("\1"), false},
        {"a number that does not end", SPAN("\1\xff\xff"), false},
        {"a number that is too long", SPAN("\1\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\1"),
         false},
        {"a text", SPAN("\2\3hi"), true},
        {"a text that is too short", SPAN("\2\4hi"), false},
        {"a number of no fact", SPAN("\xfe\3"), false},
        {"a NUL", SPAN("\0"), false},
        {"a fact of the other pack is passed over", SPAN("\3\3hi"), true},
    };
    usual(&f);
    fact_map_read(&map, SPAN("message.bytes n \nmessage.subject s \nreplication.advice s pass"));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (facts_unpack(&map, cases[i].pack, SPAN(""), &f) != cases[i].good)
            fail_msg("%s", cases[i].name);
    fact_map_read(&map, SPAN(""));
    assert_true(map.known == FACTS_KEPT_ASIDE);
    assert_false(facts_unpack(&map, SPAN("\1\3"), SPAN(""), &f));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ordinary_mail_needs_nothing),
        cmocka_unit_test(every_fact_comes_back),
        cmocka_unit_test(a_text_like_another_is_not_kept_twice),
        cmocka_unit_test(the_largest_facts_fit),
        cmocka_unit_test(names_count_not_numbers),
        cmocka_unit_test(what_is_no_pack_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
