/* fact_test.c - the table of facts is in order, and each fact says what the detectors saw. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "fact.h"

static void the_table_is_in_the_order_of_the_enumeration(void **state)
{
    (void)state;
    static const struct {
        enum fact fact;
        const char *name;
    } t[] = {
        {FACT_MESSAGE_BYTES, "message.bytes"},
        {FACT_MESSAGE_WORDS, "message.words"},
        {FACT_MESSAGE_VISIBLE, "message.visible"},
        {FACT_MESSAGE_LIST, "message.list"},
        {FACT_MESSAGE_AUTOMATIC, "message.automatic"},
        {FACT_MESSAGE_REPLY, "message.reply"},
        {FACT_MESSAGE_NOISE, "message.noise"},
        {FACT_MESSAGE_FROM, "message.from"},
        {FACT_MESSAGE_SUBJECT, "message.subject"},
        {FACT_ENVELOPE_FROM, "envelope.from"},
        {FACT_ENVELOPE_RECIPIENTS, "envelope.recipients"},
        {FACT_RECIPIENT_ADDRESS, "recipient.address"},
        {FACT_RECIPIENT_DOMAIN, "recipient.domain"},
        {FACT_RELAY_ADDRESS, "relay.address"},
        {FACT_RELAY_NAME, "relay.name"},
        {FACT_RELAY_HELO, "relay.helo"},
        {FACT_RELAY_TRUSTED, "relay.trusted"},
        {FACT_LOOP_VISITS, "loop.visits"},
        {FACT_LOOP_EDGES, "loop.edges"},
        {FACT_LOOP_OWN_VISITS, "loop.own_visits"},
        {FACT_LOOP_DELIVERED_TO, "loop.delivered_to"},
        {FACT_LOOP_HOPS, "loop.hops"},
        {FACT_LOOP_RELAY, "loop.relay"},
        {FACT_LOOP_EVIDENCE, "loop.evidence"},
        {FACT_REPLICATION_ADVICE, "replication.advice"},
        {FACT_REPLICATION_RELATION, "replication.relation"},
        {FACT_REPLICATION_COPIES, "replication.copies"},
        {FACT_REPLICATION_PASSED, "replication.passed"},
        {FACT_REPLICATION_RULE, "replication.rule"},
        {FACT_REPLICATION_STORM, "replication.storm"},
        {FACT_REPLICATION_CONVICTED, "replication.convicted"},
        {FACT_REPLICATION_DUPLICATES, "replication.duplicates"},
        {FACT_REPLICATION_BLAMED, "replication.blamed"},
        {FACT_REPLICATION_JOIN, "replication.join"},
        {FACT_REPLICATION_SEEN_BEFORE, "replication.seen_before"},
        {FACT_REPLICATION_RESTED, "replication.rested"},
        {FACT_REPLYALL_STATE, "replyall.state"},
        {FACT_REPLYALL_TO_ALL, "replyall.to_all"},
        {FACT_REPLYALL_REPLIES, "replyall.replies"},
        {FACT_REPLYALL_SENDERS, "replyall.senders"},
        {FACT_REPLYALL_AUDIENCE, "replyall.audience"},
        {FACT_REPLYALL_NEED, "replyall.need"},
        {FACT_REPLYALL_EVIDENCE, "replyall.evidence"},
        {FACT_PINGPONG_ADVICE, "pingpong.advice"},
        {FACT_PINGPONG_FLIPS, "pingpong.flips"},
        {FACT_PINGPONG_AUTOMATIC, "pingpong.automatic"},
        {FACT_PINGPONG_EVIDENCE, "pingpong.evidence"},
        {FACT_FLOOD_LEVEL, "flood.level"},
        {FACT_FLOOD_RATE, "flood.rate"},
        {FACT_FLOOD_BASELINE, "flood.baseline"},
        {FACT_FLOOD_HOUR, "flood.hour"},
        {FACT_FLOOD_DEFER, "flood.defer"},
        {FACT_FLOOD_REPLICATING, "flood.replicating"},
        {FACT_FLOOD_EVIDENCE, "flood.evidence"},
        {FACT_STORE_DEGRADED, "store.degraded"},
        {FACT_ENVELOPE_FROM_DOMAIN, "envelope.from_domain"},
        {FACT_ENVELOPE_AUTH, "envelope.auth"},
        {FACT_MESSAGE_FROM_DOMAIN, "message.from_domain"},
        {FACT_MESSAGE_CONNECTOR, "message.connector"},
        {FACT_RELAY_LISTENER, "relay.listener"},
        {FACT_REPLICATION_TOTAL, "replication.total"},
        {FACT_FLOOD_LEARNED, "flood.learned"},
        {FACT_FLOOD_DUPLICATES, "flood.duplicates"},
        {FACT_FLOOD_ONE_CONTENT, "flood.one_content"},
    };
    assert_int_equal(sizeof t / sizeof *t, FACT_COUNT);
    assert_true(FACT_COUNT <= 64); /* sets of facts are uint64_t */
    for (size_t i = 0; i < FACT_COUNT; i++) {
        const struct fact_entry *e = &fact_table[t[i].fact];
        size_t n = strlen(e->sentence);
        assert_string_equal(e->name, t[i].name);
        assert_int_equal(fact_find(span_str(e->name)), t[i].fact);
        assert_true(e->type > TYPE_NONE && e->type <= TYPE_ADDRESS);
        assert_true(n > 10 && e->sentence[n - 1] == '.');
    }
    assert_int_equal(fact_find(SPAN("loop.hop")), FACT_COUNT);
    assert_int_equal(fact_find(SPAN("")), FACT_COUNT);
}

static bool is_number(const struct facts *f, enum fact fact, double n)
{
    const struct fact_value *v = &f->value[fact];
    return v->type == TYPE_NUMBER && v->number >= n && v->number <= n;
}

static bool is_text(const struct facts *f, enum fact fact, const char *s)
{
    const struct fact_value *v = &f->value[fact];
    return v->type >= TYPE_STRING && span_eq(v->text, span_str(s));
}

static bool is_bool(const struct facts *f, enum fact fact, bool yes)
{
    const struct fact_value *v = &f->value[fact];
    return v->type == TYPE_BOOL && v->yes == yes;
}

static void facts_are_what_was_seen(void **state)
{
    (void)state;
    static uint8_t long_subject[FACT_TEXT_MAX + 1];
    struct arena *arena = arena_new();
    struct site site;
    struct netmask net;
    site_defaults(&site);
    assert_true(netmask_parse(&net, SPAN("192.0.2.0/24")));
    site.own_nets = &net;
    site.nown_nets = 1;
    struct recipient rcpt[] = {{.address = SPAN("a@b@c.example")}, {.address = SPAN("postmaster")}};
    struct envelope e = {.client_name = SPAN("n.example"),
                         .helo = SPAN("h.example"),
                         .reversepath = SPAN("s@example"),
                         .auth = SPAN("sandra"),
                         .recipients = rcpt,
                         .nrecipients = 2};
    assert_true(ipaddr_parse(&e.client, SPAN("192.0.2.7")));
    struct message *m = message_new(arena);
    m->nhead = 100;
    struct subject s = {.arena = arena,
                        .site = &site,
                        .envelope = &e,
                        .message = m,
                        .listener = SPAN("main"),
                        .visible = {.n = 630, .connector = SPAN("x@mspop3connector.example")},
                        .fp = {.body_bytes = 23,
                               .nwords = 7,
                               .list_marked = true,
                               .from = SPAN("f@example"),
                               .subject = span_of(long_subject, sizeof long_subject)},
                        .talk = {.automatic = true, .reply = true, .noise = true}};
    struct copy_signal copy[] = {
        {.relation = REL_DETOUR, .advice = ADVICE_HOLD, .rule = 6, .copies = 212, .passed = 2},
        {.rule = 200, .seen_before = true}};
    struct signals signals = {.loop = {1, 2, 3, 4, 5, SPAN("loop.example"), "round and round"},
                              .replication = {.copy = copy,
                                              .storm = true,
                                              .convicted = 3,
                                              .duplicates = 9,
                                              .copies = 4711,
                                              .blamed = SPAN("sbs.example"),
                                              .join = "chain",
                                              .rested = 86400000,
                                              .degraded = true},
                              .replyall = {.state = REPLYALL_STORM,
                                           .to_all = true,
                                           .replies = 19,
                                           .senders = 12,
                                           .need = 17,
                                           .audience = 630,
                                           .evidence = "everybody"},
                              .pingpong = {.advice = {ADVICE_TAG, ADVICE_HOLD},
                                           .n = 1,
                                           .flips = 6,
                                           .automatic = true,
                                           .evidence = "to and fro"},
                              .flood = {.level = FLOOD_THROTTLE,
                                        .rate = 120,
                                        .baseline = 2,
                                        .hour = 700,
                                        .learned = true,
                                        .duplicates = 0.5,
                                        .one_content = 0.25,
                                        .defer = true,
                                        .replicating = true,
                                        .evidence = "a flood"}};
    struct facts f;
    facts_of_message(&f, &s, &signals, UINT64_MAX);
    assert_true(is_number(&f, FACT_MESSAGE_BYTES, 123));
    assert_true(is_number(&f, FACT_MESSAGE_WORDS, 7));
    assert_true(is_number(&f, FACT_MESSAGE_VISIBLE, 630));
    assert_true(is_bool(&f, FACT_MESSAGE_LIST, true));
    assert_true(is_text(&f, FACT_MESSAGE_FROM, "f@example"));
    assert_int_equal(f.value[FACT_MESSAGE_SUBJECT].text.n, FACT_TEXT_MAX);
    assert_true(is_text(&f, FACT_ENVELOPE_FROM, "s@example"));
    assert_true(is_number(&f, FACT_ENVELOPE_RECIPIENTS, 2));
    assert_true(is_text(&f, FACT_RELAY_ADDRESS, "192.0.2.7"));
    assert_true(is_text(&f, FACT_RELAY_NAME, "n.example"));
    assert_true(is_text(&f, FACT_RELAY_HELO, "h.example"));
    assert_true(is_bool(&f, FACT_RELAY_TRUSTED, true));
    assert_true(is_number(&f, FACT_LOOP_VISITS, 1));
    assert_true(is_number(&f, FACT_LOOP_EDGES, 2));
    assert_true(is_number(&f, FACT_LOOP_OWN_VISITS, 3));
    assert_true(is_number(&f, FACT_LOOP_DELIVERED_TO, 4));
    assert_true(is_number(&f, FACT_LOOP_HOPS, 5));
    assert_true(is_text(&f, FACT_LOOP_RELAY, "loop.example"));
    assert_true(is_bool(&f, FACT_REPLICATION_STORM, true));
    assert_true(is_number(&f, FACT_REPLICATION_CONVICTED, 3));
    assert_true(is_number(&f, FACT_REPLICATION_DUPLICATES, 9));
    assert_true(is_text(&f, FACT_REPLICATION_BLAMED, "sbs.example"));
    assert_true(is_bool(&f, FACT_STORE_DEGRADED, true));
    assert_true(is_bool(&f, FACT_MESSAGE_AUTOMATIC, true));
    assert_true(is_bool(&f, FACT_MESSAGE_REPLY, true));
    assert_true(is_bool(&f, FACT_MESSAGE_NOISE, true));
    assert_true(is_text(&f, FACT_LOOP_EVIDENCE, "round and round"));
    assert_true(is_text(&f, FACT_REPLICATION_JOIN, "chain"));
    assert_true(is_number(&f, FACT_REPLICATION_RESTED, 86400000));
    assert_true(is_text(&f, FACT_REPLYALL_STATE, "storm"));
    assert_true(is_bool(&f, FACT_REPLYALL_TO_ALL, true));
    assert_true(is_number(&f, FACT_REPLYALL_REPLIES, 19));
    assert_true(is_number(&f, FACT_REPLYALL_SENDERS, 12));
    assert_true(is_number(&f, FACT_REPLYALL_NEED, 17));
    assert_true(is_number(&f, FACT_REPLYALL_AUDIENCE, 630));
    assert_true(is_text(&f, FACT_REPLYALL_EVIDENCE, "everybody"));
    assert_true(is_number(&f, FACT_PINGPONG_FLIPS, 6));
    assert_true(is_bool(&f, FACT_PINGPONG_AUTOMATIC, true));
    assert_true(is_text(&f, FACT_PINGPONG_EVIDENCE, "to and fro"));
    assert_true(is_text(&f, FACT_FLOOD_LEVEL, "throttle"));
    assert_true(is_number(&f, FACT_FLOOD_RATE, 120));
    assert_true(is_number(&f, FACT_FLOOD_BASELINE, 2));
    assert_true(is_number(&f, FACT_FLOOD_HOUR, 700));
    assert_true(is_bool(&f, FACT_FLOOD_DEFER, true));
    assert_true(is_bool(&f, FACT_FLOOD_REPLICATING, true));
    assert_true(is_text(&f, FACT_FLOOD_EVIDENCE, "a flood"));
    assert_true(is_text(&f, FACT_ENVELOPE_FROM_DOMAIN, "example"));
    assert_true(is_text(&f, FACT_ENVELOPE_AUTH, "sandra"));
    assert_true(is_text(&f, FACT_MESSAGE_FROM_DOMAIN, "example"));
    assert_true(is_bool(&f, FACT_MESSAGE_CONNECTOR, true));
    assert_true(is_text(&f, FACT_RELAY_LISTENER, "main"));
    assert_true(is_number(&f, FACT_REPLICATION_TOTAL, 4711));
    assert_true(is_bool(&f, FACT_FLOOD_LEARNED, true));
    assert_true(is_number(&f, FACT_FLOOD_DUPLICATES, 0.5));
    assert_true(is_number(&f, FACT_FLOOD_ONE_CONTENT, 0.25));
    assert_true(f.site == &site && memcmp(&f.client, &e.client, sizeof e.client) == 0);
    for (size_t i = 0; i < FACT_COUNT; i++) /* every fact has the type the table says */
        assert_int_equal(f.value[i].type, fact_table[i].type);

    facts_of_recipient(&f, &s, &signals, 0);
    assert_true(is_text(&f, FACT_RECIPIENT_ADDRESS, "a@b@c.example"));
    assert_true(is_text(&f, FACT_RECIPIENT_DOMAIN, "c.example"));
    assert_true(is_text(&f, FACT_REPLICATION_ADVICE, "hold"));
    assert_true(is_text(&f, FACT_REPLICATION_RELATION, "detour"));
    assert_true(is_number(&f, FACT_REPLICATION_COPIES, 212));
    assert_true(is_number(&f, FACT_REPLICATION_PASSED, 2));
    assert_true(is_text(&f, FACT_REPLICATION_RULE, "R6"));
    assert_true(is_bool(&f, FACT_REPLICATION_SEEN_BEFORE, false));
    assert_true(is_text(&f, FACT_PINGPONG_ADVICE, "tag"));
    facts_of_recipient(&f, &s, &signals, 1);
    assert_true(is_text(&f, FACT_RECIPIENT_ADDRESS, "postmaster"));
    assert_true(is_text(&f, FACT_RECIPIENT_DOMAIN, ""));
    assert_true(is_text(&f, FACT_REPLICATION_ADVICE, "pass"));
    assert_true(is_text(&f, FACT_REPLICATION_RELATION, "first"));
    assert_true(is_text(&f, FACT_REPLICATION_RULE, ""));
    assert_true(is_bool(&f, FACT_REPLICATION_SEEN_BEFORE, true));
    assert_true(is_text(&f, FACT_PINGPONG_ADVICE, "pass")); /* not looked at */

    signals.pingpong.n = 9; /* more than there is room for */
    facts_of_recipient(&f, &s, &signals, 1);
    assert_true(is_text(&f, FACT_PINGPONG_ADVICE, "hold"));
    struct signals quiet = {0};
    facts_of_message(&f, &s, &quiet, UINT64_MAX);
    facts_of_recipient(&f, &s, &quiet, 1);
    assert_true(is_text(&f, FACT_REPLICATION_JOIN, "own"));
    assert_true(is_text(&f, FACT_REPLYALL_STATE, "quiet"));
    assert_true(is_text(&f, FACT_REPLYALL_EVIDENCE, ""));
    assert_true(is_text(&f, FACT_PINGPONG_ADVICE, "pass"));
    assert_true(is_text(&f, FACT_FLOOD_LEVEL, "none"));

    site.nown_nets = 0;
    facts_of_message(&f, &s, &signals, UINT64_MAX);
    assert_true(is_bool(&f, FACT_RELAY_TRUSTED, false));
    arena_free(&arena);
}

static void what_follows_from_other_facts_is_filled_in(void **state)
{
    (void)state;
    struct facts f = {0};
    struct ipaddr client;
    f.value[FACT_ENVELOPE_FROM].text = SPAN("a@b@c.example");
    f.value[FACT_MESSAGE_FROM].text = SPAN("nobody");
    f.value[FACT_RECIPIENT_ADDRESS].text = SPAN("r@d.example");
    f.value[FACT_RELAY_ADDRESS].text = SPAN("2001:db8::7");
    facts_derive(&f);
    assert_true(is_text(&f, FACT_ENVELOPE_FROM_DOMAIN, "c.example"));
    assert_true(is_text(&f, FACT_MESSAGE_FROM_DOMAIN, ""));
    assert_true(is_text(&f, FACT_RECIPIENT_DOMAIN, "d.example"));
    assert_true(ipaddr_parse(&client, SPAN("2001:db8::7")));
    assert_memory_equal(&f.client, &client, sizeof client);
    assert_int_equal(f.value[FACT_RELAY_ADDRESS].type, TYPE_ADDRESS);
    f.value[FACT_RELAY_ADDRESS].text = SPAN("");
    facts_derive(&f);
    assert_int_equal(f.client.family, 0);
}

static void numbers_are_read_with_their_units(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t used;
        double value;
        enum unit unit;
    } t[] = {
        {"0", 1, 0, UNIT_NONE},
        {"10ms", 4, 10, UNIT_TIME},
        {"60s", 3, 60000, UNIT_TIME},
        {"10m", 3, 600000, UNIT_TIME},
        {"4h", 2, 14400000, UNIT_TIME},
        {"28d", 3, 2419200000.0, UNIT_TIME},
        {"1.5h", 4, 5400000, UNIT_TIME},
        {"20KB", 4, 20480, UNIT_BYTES},
        {"20MB", 4, 20971520, UNIT_BYTES},
        {"1GB)", 3, 1073741824, UNIT_BYTES},
        {"50%", 3, 0.5, UNIT_SHARE},
        {"3 h", 1, 3, UNIT_NONE},
        {"3.", 1, 3, UNIT_NONE},
        {"3.5.6", 3, 3.5, UNIT_NONE},
        {"999999999999999", 15, 999999999999999, UNIT_NONE},
        {"9999999999999999", 0, 0, UNIT_NONE},
        {"1.9999999999999999", 0, 0, UNIT_NONE},
        {"", 0, 0, UNIT_NONE},
        {"-1", 0, 0, UNIT_NONE},
        {".5", 0, 0, UNIT_NONE},
        {"h", 0, 0, UNIT_NONE},
        {"3hh", 0, 0, UNIT_NONE},
        {"3mb", 0, 0, UNIT_NONE},
        {"0x10", 0, 0, UNIT_NONE},
        {"1e3", 0, 0, UNIT_NONE},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        double value = 0;
        enum unit unit = UNIT_NONE;
        size_t used = quantity_read(span_str(t[i].text), &value, &unit);
        if (used != t[i].used ||
            (used && (value < t[i].value || value > t[i].value || unit != t[i].unit)))
            fail_msg("'%s': %zu bytes, %f, unit %d", t[i].text, used, value, unit);
    }
}

static void the_nearest_name_is_found(void **state)
{
    (void)state;
    static const struct {
        const char *word, *name; /* NULL: none is near */
    } t[] = {
        {"hold", "hold"}, {"hodl", "hold"},       {"Hold", "hold"}, {"hol", "hold"},
        {"tga", "tag"},   {"xyz", NULL},          {"", NULL},       {"throttel", "throttle"},
        {"ta", "tag"},    {"holdholdhold", NULL}, {"foo", NULL},    {"pats", "pass"},
        {"hgo", NULL},    {"rejetc", "reject"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct nearest near = {.word = span_str(t[i].word)};
        for (unsigned d = 0; d < DISP_COUNT; d++)
            nearest_try(&near, disposition_name((enum disposition)d));
        if ((near.name == NULL) != (t[i].name == NULL) ||
            (near.name && strcmp(near.name, t[i].name) != 0))
            fail_msg("'%s': %s", t[i].word, near.name ? near.name : "none");
    }
}

static void enumerations_have_words(void **state)
{
    (void)state;
    assert_string_equal(relation_name(REL_FIRST), "first");
    assert_string_equal(relation_name(REL_EXEMPT), "exempt");
    assert_string_equal(relation_name(REL_COUNT), "unknown");
    assert_string_equal(advice_name(ADVICE_HOLD), "hold");
    assert_string_equal(disposition_name(DISP_REJECT), "reject");
    assert_string_equal(mode_name(MODE_BYPASS), "bypass");
    assert_string_equal(mode_name(MODE_COUNT), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_is_in_the_order_of_the_enumeration),
        cmocka_unit_test(facts_are_what_was_seen),
        cmocka_unit_test(what_follows_from_other_facts_is_filled_in),
        cmocka_unit_test(numbers_are_read_with_their_units),
        cmocka_unit_test(the_nearest_name_is_found),
        cmocka_unit_test(enumerations_have_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
