/* entries_test.c - what people write about a relay, a sender, a storm; whom it is about; and what
 * follows from it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "entries.h"

enum { NOW = 1000000, LENGTH = 1000 };

#define RELAY ENTRY_RELAY
#define SENDER ENTRY_SENDER
#define STORM ENTRY_STORM

static struct entry *make(enum entry_kind kind, bool hold, const char *what, int64_t at,
                          const char *id)
{
    char error[200] = "";
    const struct entry_terms t = {.id = id,
                                  .kind = kind,
                                  .hold = hold,
                                  .what = what,
                                  .who = "anna",
                                  .why = "they called",
                                  .at = at,
                                  .until = at + LENGTH};
    return entry_new(&t, error);
}

static void what_people_write(void **state)
{
    (void)state;
    static const struct {
        const char *sentence;
        enum entry_kind kind;
        const char *text, *what; /* as it is read; NULL: refused */
    } t[] = {
        {"an address", RELAY, "192.0.2.7", "192.0.2.7"},
        {"an IPv6 address, in its short form", RELAY, "2001:DB8:0::7", "2001:db8::7"},
        {"a network loses the bits beyond its length", RELAY, "192.0.2.77/24", "192.0.2.0/24"},
        {"an IPv6 network", RELAY, "2001:db8:5::/48", "2001:db8:5::/48"},
        {"a network of one host is the host", RELAY, "192.0.2.7/32", "192.0.2.7"},
        {"a /8 is the widest", RELAY, "10.1.2.3/8", "10.0.0.0/8"},
        {"a /7 is too wide", RELAY, "10.0.0.0/7", NULL},
        {"everybody is too wide", RELAY, "0.0.0.0/0", NULL},
        {"a /16 of IPv6 is the widest", RELAY, "2001::/16", "2001::/16"},
        {"a /15 of IPv6 is too wide", RELAY, "2000::/15", NULL},
        {"a length that is none", RELAY, "192.0.2.0/33", NULL},
        {"as relays are listed: the address counts", RELAY, "mx.a.example[192.0.2.7]", "192.0.2.7"},
        {"the same without a name", RELAY, "[192.0.2.7]", "192.0.2.7"},
        {"brackets with something else in them", RELAY, "mx.a.example[here]", NULL},
        {"a host's name in any case", RELAY, " Mail.A.Example ", "mail.a.example"},
        {"a host of one word", RELAY, "localhost", "localhost"},
        {"all hosts below one", RELAY, ".a.example", ".a.example"},
        {"the same with a star", RELAY, "*.A.example", ".a.example"},
        {"a top-level domain is too much", RELAY, ".example", NULL},
        {"a star alone", RELAY, "*", NULL},
        {"a star in the middle", RELAY, "mail.*.example", NULL},
        {"a blank in it", RELAY, "mail a.example", NULL},
        {"an empty label", RELAY, "mail..example", NULL},
        {"a dot at the end", RELAY, "mail.example.", NULL},
        {"part of an address", RELAY, "192.0.2", NULL},
        {"an address of mail", RELAY, "anna@a.example", NULL},
        {"nothing", RELAY, "", NULL},
        {"a sender", SENDER, "Anna@A.example", "anna@a.example"},
        {"a sender in brackets", SENDER, "<anna@a.example>", "anna@a.example"},
        {"the null one", SENDER, "<>", "<>"},
        {"a domain", SENDER, "@A.example", "@a.example"},
        {"a domain with a star", SENDER, "*@a.example", "@a.example"},
        {"domains below one", SENDER, "@.a.example", "@.a.example"},
        {"the same with stars", SENDER, "*@*.a.example", "@.a.example"},
        {"below a top-level domain is too much", SENDER, "@.example", NULL},
        {"a name anywhere", SENDER, "Bounces@*", "bounces@*"},
        {"everybody", SENDER, "*@*", NULL},
        {"everybody, shorter", SENDER, "@", NULL},
        {"a star within a name", SENDER, "bounces-*@a.example", NULL},
        {"no domain", SENDER, "anna", NULL},
        {"a quoted @: the last one counts", SENDER, "a@b@c.example", "a@b@c.example"},
        {"a blank in the name", SENDER, "an na@a.example", NULL},
        {"nothing at all", SENDER, "", NULL},
        {"a storm in any case", STORM, "s4k7qz2ma", "S4K7QZ2MA"},
        {"a storm too short", STORM, "S4K7QZ2M", NULL},
        {"a storm too long", STORM, "S4K7QZ2MAB", NULL},
        {"no storm's letter", STORM, "T4K7QZ2MA", NULL},
        {"a digit that base32 lacks", STORM, "S4K7QZ2M1", NULL},
        {"a kind that is none", ENTRY_KINDS, "192.0.2.7", NULL},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct entry *e = make(t[i].kind, true, t[i].text, NOW, "ID");
        if (!e != !t[i].what || (e && strcmp(e->what, t[i].what) != 0))
            fail_msg("%s: \"%s\" is read as %s", t[i].sentence, t[i].text, e ? e->what : "nothing");
        entry_drop(&e);
    }
}

/* Asks a table of one. */
static bool matches(enum entry_kind kind, bool hold, const char *what, struct entry_question q)
{
    struct entry *e = make(kind, hold, what, NOW, "ID");
    assert_non_null(e);
    struct entries *t = entries_new(&e, 1);
    q.now = NOW + 1;
    bool found = entries_find(t, &q);
    entries_drop(&t);
    return found;
}

static void whom_it_is_about(void **state)
{
    (void)state;
    static const struct {
        const char *sentence;
        const char *what, *client, *name, *helo;
        bool hold, allow;
    } relays[] = {
        {"its address", "192.0.2.7", "192.0.2.7", "", "", 1, 1},
        {"another address", "192.0.2.7", "192.0.2.8", "", "", 0, 0},
        {"no address (a pipe)", "192.0.2.7", "", "", "", 0, 0},
        {"the first of a network", "192.0.2.0/25", "192.0.2.0", "", "", 1, 1},
        {"the last of it", "192.0.2.0/25", "192.0.2.127", "", "", 1, 1},
        {"the one after it", "192.0.2.0/25", "192.0.2.128", "", "", 0, 0},
        {"IPv6", "2001:db8::/32", "2001:db8:ffff::1", "", "", 1, 1},
        {"beside it", "2001:db8::/32", "2001:db9::1", "", "", 0, 0},
        {"its name, in any case", "mail.a.example", "192.0.2.7", "Mail.A.Example", "x", 1, 1},
        {"its name with a final dot", "mail.a.example", "192.0.2.7", "mail.a.example.", "x", 1, 1},
        {"a HELO is only a claim", "mail.a.example", "192.0.2.7", "unknown", "mail.a.example", 1,
         0},
        {"below a name", "mail.a.example", "192.0.2.7", "x.mail.a.example", "", 0, 0},
        {"below a domain", ".a.example", "192.0.2.7", "x.mail.a.example", "", 1, 1},
        {"right below it", ".a.example", "192.0.2.7", "mail.a.example", "", 1, 1},
        {"the domain itself is not below it", ".a.example", "192.0.2.7", "a.example", "", 0, 0},
        {"another that ends so", ".a.example", "192.0.2.7", "mail.b-a.example", "", 0, 0},
        {"a HELO below it", ".a.example", "192.0.2.7", "", "mail.a.example", 1, 0},
    };
    for (size_t i = 0; i < sizeof relays / sizeof *relays; i++) {
        struct entry_question q = {.client_name = span_str(relays[i].name),
                                   .helo = span_str(relays[i].helo)};
        (void)ipaddr_parse(&q.client, span_str(relays[i].client));
        if (matches(RELAY, true, relays[i].what, q) != relays[i].hold ||
            matches(RELAY, false, relays[i].what, q) != relays[i].allow)
            fail_msg("%s", relays[i].sentence);
    }
    static const struct {
        const char *sentence, *what, *sender;
        bool found;
    } senders[] = {
        {"the address", "anna@a.example", "Anna@A.Example", 1},
        {"another of the domain", "anna@a.example", "bob@a.example", 0},
        {"the null one", "<>", "", 1},
        {"a sender is not the null one", "<>", "anna@a.example", 0},
        {"nobody is not in a domain", "@a.example", "", 0},
        {"its domain", "@a.example", "bob@A.example", 1},
        {"below its domain", "@a.example", "bob@b.a.example", 0},
        {"the same, asked for", "@.a.example", "bob@c.b.a.example", 1},
        {"the domain itself", "@.a.example", "bob@a.example", 0},
        {"a name in one domain", "bounces@*", "bounces@a.example", 1},
        {"and in another", "bounces@*", "BOUNCES@b.example", 1},
        {"a longer name", "bounces@*", "bounces-1@b.example", 0},
        {"a sender without a domain", "bounces@*", "bounces", 0},
        {"the last @ counts", "@a.example", "x@b.example@a.example", 1},
    };
    for (size_t i = 0; i < sizeof senders / sizeof *senders; i++)
        if (matches(SENDER, true, senders[i].what,
                    (struct entry_question){.sender = span_str(senders[i].sender)}) !=
            senders[i].found)
            fail_msg("%s", senders[i].sentence);
    assert_true(
        matches(STORM, true, "S4K7QZ2MA", (struct entry_question){.incident = SPAN("S4K7QZ2MA")}));
    assert_false(
        matches(STORM, true, "S4K7QZ2MA", (struct entry_question){.incident = SPAN("S4K7QZ2MB")}));
    assert_false(matches(STORM, true, "S4K7QZ2MA", (struct entry_question){0}));
}

/* The table is asked what holds at a time, and says by its id. */
static const char *found_at(const struct entries *t, int64_t now)
{
    struct entry_question q = {
        .sender = SPAN("anna@a.example"), .client_name = SPAN("mail.a.example"), .now = now};
    (void)ipaddr_parse(&q.client, SPAN("192.0.2.7"));
    const struct entry *e = entries_find(t, &q);
    return e ? e->id : "none";
}

static void the_latest_in_force_wins(void **state)
{
    (void)state;
    struct entry *e[] = {
        make(RELAY, false, "192.0.2.0/24", NOW + 20, "net"),
        make(SENDER, true, "@a.example", NOW + 10, "domain"),
        make(SENDER, true, "@a.example", NOW, "older"),
        make(RELAY, true, "mail.a.example", NOW - 500, "name"),
        make(RELAY, true, "192.0.2.8", NOW + 30, "another"),
    };
    struct entries *t = entries_new(e, 5);
    assert_string_equal(found_at(t, NOW + 25), "net");
    assert_string_equal(found_at(t, NOW + 20 + LENGTH - 1), "net");
    assert_string_equal(found_at(t, NOW + 20 + LENGTH), "none");
    struct entries *without = entries_change(t, NOW + 25, "net", NULL);
    assert_string_equal(found_at(without, NOW + 25), "domain");
    assert_string_equal(found_at(without, NOW + 10 + LENGTH - 1), "domain");
    assert_string_equal(found_at(without, NOW + 10 + LENGTH), "none");
    struct entries *older = entries_change(without, NOW + 25, "domain", NULL);
    assert_string_equal(found_at(older, NOW + 25), "older");
    struct entries *name = entries_change(older, NOW + 25, "older", NULL);
    assert_string_equal(found_at(name, NOW + 25), "name");
    assert_string_equal(found_at(name, NOW + 500), "none");
    struct entries *over =
        entries_change(name, NOW + 500, NULL, make(RELAY, 1, ".a.example", NOW + 40, "new"));
    assert_int_equal(entries_count(over), 2); /* "name" is over, "another" and "new" are not */
    assert_string_equal(found_at(over, NOW + 500), "new");
    assert_string_equal(entries_at(over, 0)->id, "new");
    struct entries *all[] = {t, without, older, name, over};
    for (size_t i = 0; i < 5; i++)
        entries_drop(&all[i]);
}

static void nothing_is_found_in_nothing(void **state)
{
    (void)state;
    struct entries *t = entries_new(NULL, 0);
    assert_string_equal(found_at(NULL, NOW), "none");
    assert_string_equal(found_at(t, NOW), "none");
    entries_drop(&t);
    t = entries_change(NULL, NOW, NULL, NULL);
    assert_int_equal(entries_count(t), 0);
    entries_drop(&t);
}

/* Ten thousand of all kinds: each is found, nobody else is. */
static void there_may_be_many(void **state)
{
    (void)state;
    enum { MANY = 10000 };
    static struct entry *e[MANY];
    char what[64], id[ENTRY_ID];
    for (int i = 0; i < MANY; i++) {
        snprintf(id, sizeof id, "%d", i);
        if (i % 2)
            snprintf(what, sizeof what, "10.%d.%d.0/24", i / 256, i % 256);
        else
            snprintf(what, sizeof what, "user%d@a.example", i);
        e[i] = make(i % 2 ? RELAY : SENDER, true, what, NOW, id);
    }
    struct entries *t = entries_new(e, MANY);
    for (int i = 0; i < MANY; i++) {
        struct entry_question q = {.now = NOW};
        snprintf(what, sizeof what, i % 2 ? "10.%d.%d.9" : "user%d@a.example", i % 2 ? i / 256 : i,
                 i % 256);
        if (i % 2)
            assert_true(ipaddr_parse(&q.client, span_str(what)));
        else
            q.sender = span_str(what);
        struct entry *found = entries_find(t, &q);
        assert_non_null(found);
        assert_int_equal(atoi(found->id), i);
    }
    assert_null(
        entries_find(t, &(struct entry_question){.sender = SPAN("user1@a.example"), .now = NOW}));
    entries_drop(&t);
}

static void what_follows(void **state)
{
    (void)state;
    static const struct {
        const char *sentence;
        bool hold;
        enum mode mode;
        const char *rcpt;
        enum disposition before, advised, done;
    } t[] = {
        {"held", 1, MODE_ENFORCE, "bob@x.example", DISP_PASS, DISP_HOLD, DISP_HOLD},
        {"would be held", 1, MODE_MONITOR, "bob@x.example", DISP_PASS, DISP_HOLD, DISP_PASS},
        {"an exempt one is tagged", 1, MODE_ENFORCE, "postmaster@x.example", DISP_PASS, DISP_TAG,
         DISP_TAG},
        {"what was refused is held", 1, MODE_ENFORCE, "bob@x.example", DISP_REJECT, DISP_HOLD,
         DISP_HOLD},
        {"what was held passes", 0, MODE_ENFORCE, "bob@x.example", DISP_HOLD, DISP_PASS, DISP_PASS},
        {"what would have been held, too", 0, MODE_MONITOR, "bob@x.example", DISP_HOLD, DISP_PASS,
         DISP_PASS},
        {"what was refused passes", 0, MODE_ENFORCE, "bob@x.example", DISP_THROTTLE, DISP_PASS,
         DISP_PASS},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct site site;
        site_defaults(&site);
        struct recipient rcpt = {.address = span_str(t[i].rcpt)};
        struct envelope envelope = {.recipients = &rcpt, .nrecipients = 1};
        struct subject subject = {.site = &site, .envelope = &envelope, .now = NOW + 5};
        struct signals signals = {0};
        struct copy_verdict copy = {.advised = t[i].before, .disposition = t[i].before, .rule = 3};
        struct verdict v = {.copy = &copy, .n = 1, .mode = t[i].mode};
        v.count[t[i].before] = v.advised[t[i].before] = 1;
        struct entry *e = make(RELAY, t[i].hold, "192.0.2.7", NOW, "ABC");
        entry_apply(e, &subject, &signals, &v);
        if (copy.advised != t[i].advised || copy.disposition != t[i].done ||
            v.count[t[i].done] != 1 || v.advised[t[i].advised] != 1)
            fail_msg("%s", t[i].sentence);
        assert_ptr_equal(copy.entry, e);
        assert_int_equal(copy.rule, 0);
        assert_string_equal(copy.rule_name, "entry:ABC");
        assert_string_equal(copy.reason,
                            t[i].hold ? "held by anna until 1970-01-01 00:16 UTC: they called"
                                      : "allowed by anna until 1970-01-01 00:16 UTC: they called");
        assert_int_equal(e->used, 1);
        assert_int_equal(e->last, NOW + 5);
        entry_drop(&e);
    }
}

static void the_end_is_said_as_a_date(void **state)
{
    (void)state;
    static const struct {
        int64_t until;
        const char *date;
    } t[] = {
        {INT64_C(951782399999), "2000-02-28 23:59"},  {INT64_C(951782400000), "2000-02-29 00:00"},
        {INT64_C(951868800000), "2000-03-01 00:00"},  {INT64_C(1798761540000), "2026-12-31 23:59"},
        {INT64_C(1798761600000), "2027-01-01 00:00"}, {INT64_C(4107542400000), "2100-03-01 00:00"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char error[200], reason[120];
        const struct entry_terms terms = {.id = "X",
                                          .kind = STORM,
                                          .what = "S4K7QZ2MA",
                                          .who = "an\x01na",
                                          .why = "\xc3\xa4h",
                                          .until = t[i].until};
        struct entry *e = entry_new(&terms, error);
        snprintf(reason, sizeof reason, "allowed by an?na until %s UTC: ??h", t[i].date);
        assert_string_equal(e->reason, reason);
        entry_drop(&e);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_people_write),         cmocka_unit_test(whom_it_is_about),
        cmocka_unit_test(the_latest_in_force_wins),  cmocka_unit_test(nothing_is_found_in_nothing),
        cmocka_unit_test(there_may_be_many),         cmocka_unit_test(what_follows),
        cmocka_unit_test(the_end_is_said_as_a_date),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
