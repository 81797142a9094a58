/* expr_test.c - what `when` accepts, what it means, and how it refuses. */
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "expr.h"

static struct facts facts;

static void set_number(enum fact f, double n)
{
    facts.value[f] = (struct fact_value){.type = TYPE_NUMBER, .number = n};
}

static void set_text(enum fact f, const char *s)
{
    facts.value[f] = (struct fact_value){.type = TYPE_STRING, .text = span_str(s)};
}

static struct site site;
static struct arena *house;
static struct set *set[6];
static const struct sets sets = {set, 6};

static struct set *new_set(const char *name, const char *const *entries)
{
    struct set *s = set_new(house, name);
    char why[SET_WHY];
    for (; *entries; entries++)
        if (!set_add(s, span_str(*entries), why))
            fail_msg("%s: %s", *entries, why);
    set_seal(s);
    return s;
}

static void some_sets(void)
{
    static struct span domains[] = {SPAN_INIT("ours.example")},
                       hosts[] = {SPAN_INIT("mx.host.example")},
                       trusted[] = {SPAN_INIT("friend.example")};
    static struct netmask nets[2];
    house = arena_new();
    set[0] = new_set("people", (const char *const[]){"bert@b.example", "@example.org", NULL});
    set[1] = new_set("partners", (const char *const[]){"a.example", ".b.example", NULL});
    set[2] = new_set("customers-4", (const char *const[]){"192.0.2.0/25", NULL});
    set[3] = new_set("customers-6", (const char *const[]){"2001:db8::/32", NULL});
    set[4] = new_set("nobody", (const char *const[]){NULL});
    set[5] = new_set("subjects", (const char *const[]){"re: \"all\"", NULL});
    site_defaults(&site);
    assert_true(netmask_parse(&nets[0], SPAN("192.0.2.0/24")));
    assert_true(netmask_parse(&nets[1], SPAN("198.51.100.0/24")));
    site.own_domains = domains, site.nown_domains = 1;
    site.own_hosts = hosts, site.nown_hosts = 1;
    site.trusted = trusted, site.ntrusted = 1;
    site.own_nets = &nets[0], site.nown_nets = 1;
    site.trusted_nets = &nets[1], site.ntrusted_nets = 1;
    facts.site = &site;
}

static int some_facts(void **state)
{
    (void)state;
    for (int i = 0; i < FACT_COUNT; i++)
        facts.value[i].type = fact_table[i].type;
    some_sets();
    facts.value[FACT_RELAY_ADDRESS].text = SPAN("192.0.2.7");
    set_text(FACT_RECIPIENT_DOMAIN, "Example.org");
    set_text(FACT_RELAY_NAME, "MX.Ours.Example");
    set_text(FACT_RELAY_HELO, "192.0.2.7");
    set_text(FACT_LOOP_RELAY, "mx.host.example");
    set_text(FACT_REPLICATION_BLAMED, "sub.friend.example");
    set_number(FACT_LOOP_VISITS, 3);
    set_number(FACT_LOOP_HOPS, 30);
    set_number(FACT_REPLICATION_COPIES, 0);
    set_number(FACT_MESSAGE_BYTES, 20.0 * 1024 * 1024);
    set_text(FACT_ENVELOPE_FROM, "");
    set_text(FACT_RECIPIENT_ADDRESS, "Ann@Example.org");
    set_text(FACT_MESSAGE_SUBJECT, "Re: \"all\"");
    facts.value[FACT_MESSAGE_LIST] = (struct fact_value){.type = TYPE_BOOL, .yes = true};
    assert_true(ipaddr_parse(&facts.client, SPAN("192.0.2.7")));
    return 0;
}

static int no_facts(void **state)
{
    (void)state;
    arena_free(&house);
    return 0;
}

static void expressions_mean_what_they_say(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool truth;
    } t[] = {
        {"true", true},
        {"false", false},
        {"not false", true},
        {"not not true", true},
        {"message.list", true},
        {"not message.list", false},
        {"message.list == true", true},
        {"message.list != false", true},
        {"relay.trusted", false},
        /* borders of numbers */
        {"loop.visits > 2", true},
        {"loop.visits > 3", false},
        {"loop.visits >= 3", true},
        {"loop.visits >= 4", false},
        {"loop.visits < 3", false},
        {"loop.visits < 4", true},
        {"loop.visits <= 3", true},
        {"loop.visits <= 2", false},
        {"loop.visits == 3", true},
        {"loop.visits == 3.0", true},
        {"loop.visits != 3", false},
        {"3 == loop.visits", true},
        {"loop.hops > loop.visits", true},
        {"loop.visits>2 and loop.hops==30", true},
        /* units */
        {"message.bytes == 20MB", true},
        {"message.bytes == 20480KB", true},
        {"message.bytes == 20971520", true},
        {"message.bytes > 0.01GB", true},
        {"60s == 1m and 60m == 1h and 24h == 1d and 1s == 1000ms", true},
        {"5% < 6% and 50% == 50.0%", true},
        /* precedence: not binds before and, and before or */
        {"true or false and false", true},
        {"(true or false) and false", false},
        {"not false and false", false},
        {"not (false and false)", true},
        {"false and true or true", true},
        {"false or true and true", true},
        {"true and false or false or true", true},
        {"false or (false or (false or loop.visits == 3))", true},
        {"(true)", true},
        {"not (true or true) or (false and true)", false},
        /* texts */
        {"recipient.address == \"ann@example.ORG\"", true},
        {"recipient.address == \"ann@example.or\"", false},
        {"recipient.address != \"bob@example.org\"", true},
        {"envelope.from == \"\"", true},
        {"message.subject == \"re: \\\"ALL\\\"\"", true},
        /* lists */
        {"loop.visits in (1, 2, 3)", true},
        {"loop.visits in (1, 2)", false},
        {"recipient.address in (\"x\", \"ANN@example.org\")", true},
        {"not recipient.address in (\"x\")", true},
        /* patterns */
        {"recipient.address matches \"*@example.org\"", true},
        {"recipient.address matches \"*@EXAMPLE.*\"", true},
        {"recipient.address matches \"?nn@*\"", true},
        {"recipient.address matches \"??nn@*\"", false},
        {"recipient.address matches \"example.org\"", false},
        {"recipient.address matches \"*\"", true},
        {"recipient.address matches \"\"", false},
        {"envelope.from matches \"*\"", true},
        {"envelope.from matches \"**\"", true},
        {"envelope.from matches \"?\"", false},
        {"envelope.from matches \"\"", true},
        {"recipient.address matches \"*n*n*e*o*g\"", true},
        {"recipient.address matches \"*n*n*n*\"", false},
        /* network addresses */
        {"relay.address == 192.0.2.7", true},
        {"192.0.2.7 == relay.address", true},
        {"relay.address == 192.0.2.8", false},
        {"relay.address != 192.0.2.7", false},
        {"relay.address != 192.0.2.8", true},
        {"not relay.address == 192.0.2.7", false},
        {"relay.address == \"192.0.2.7\"", true},
        {"relay.address == \"192.000.002.007\"", true},
        {"relay.address == \"\"", false},
        {"relay.address == ::ffff:192.0.2.7", true},
        {"relay.address in 192.0.2.0/29", true},
        {"relay.address in 192.0.2.8/29", false},
        {"relay.address in 192.0.2.7", true},
        {"relay.address in (198.51.100.0/24, 192.0.2.0/24)", true},
        {"relay.address in (198.51.100.0/24, 2001:db8::/32)", false},
        {"relay.address in (\"192.0.2.7\", \"\")", true},
        {"relay.address in ::/0", false}, /* IPv4 is in no IPv6 network */
        {"relay.address in 0.0.0.0/0", true},
        {"relay.address in 192.0.2.0/24 and true", true},
        {"relay.address matches \"192.0.*\"", true},
        {"relay.address == relay.helo", true}, /* their texts */
        {"relay.helo == relay.address", true},
        {"relay.helo != relay.address", false},
        /* sets */
        {"recipient.address in @people", true},
        {"not recipient.address in @people", false},
        {"envelope.from in @people", false},
        {"recipient.domain in @partners", false},
        {"relay.address in @customers-4", true},
        {"relay.address in @customers-6", false},
        {"recipient.address in @nobody", false},
        {"recipient.domain in @nobody", false},
        {"relay.address in @nobody", false},
        {"message.subject in @subjects", true},
        {"relay.address in @customers-6 or relay.address in @customers-4", true},
        {"recipient.domain in @ours", false},
        {"relay.name in @ours", true},
        {"recipient.address in @ours", false},
        {"relay.name in @own_hosts", false},
        {"loop.relay in @own_hosts", true},
        {"relay.address in @own_nets", true},
        {"relay.address in @trusted", false},
        {"replication.blamed in @trusted", true},
        {"relay.name in @trusted", false},
        {"recipient.address in @exempt", false},
        /* comments and line ends are blanks */
        {"# why\nloop.visits # how often\n > 2", true},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct arena *arena = arena_new();
        struct expr_error error;
        size_t used;
        struct expr *e = expr_compile(arena, &sets, span_str(t[i].text), &used, &error);
        if (!e)
            fail_msg("%s: %s", t[i].text, error.text);
        if (expr_true(e, &facts) != t[i].truth)
            fail_msg("%s is not %d", t[i].text, t[i].truth);
        assert_int_equal(used, strlen(t[i].text));
        arena_free(&arena);
    }
}

static void mistakes_are_refused_with_their_place(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        unsigned line, column;
        const char *says; /* part of the sentence */
    } t[] = {
        {"", 1, 1, "ends where"},
        {"loop.vists > 3", 1, 1, "did you mean 'loop.visits'"},
        {"true and\n  replication.copy > 1", 2, 3, "did you mean 'replication.copies'"},
        {"zzzzzzzzzz", 1, 1, "policy.conf(5)"},
        {"loop.visits", 1, 1, "expected a comparison"},
        {"3", 1, 1, "expected a comparison"},
        {"\"x\"", 1, 1, "expected a comparison"},
        {"loop.visits > \"3\"", 1, 1, "a number and cannot be compared with a text"},
        {"envelope.from == 3", 1, 1, "a text and cannot be compared with a number"},
        {"message.list == 1", 1, 1, "true or false and cannot be compared"},
        {"message.list > false", 1, 1, "only numbers are less or more"},
        {"envelope.from < \"b\"", 1, 1, "only numbers are less or more"},
        {"message.bytes > 10m", 1, 1, "a size in bytes and cannot be compared with a time"},
        {"loop.visits > 3s", 1, 1, "a plain number and cannot be compared with a time"},
        {"loop.visits in (1, \"x\")", 1, 20, "a number and cannot be compared with a text"},
        {"loop.visits in 1", 1, 16, "expected '('"},
        {"loop.visits in (1", 1, 18, "expected ',' or ')'"},
        {"loop.visits in ()", 1, 17, "found ')'"},
        {"loop.visits matches \"*\"", 1, 1, "only a text can match"},
        {"envelope.from matches 3", 1, 23, "expected a pattern"},
        {"envelope.from matches recipient.address", 1, 23, "expected a pattern"},
        {"envelope.from == \"abc", 1, 18, "no closing quote"},
        {"envelope.from == \"abc\n\"", 1, 18, "no closing quote"},
        {"envelope.from == \"abc\\", 1, 18, "no closing quote"},
        {"loop.visits = 3", 1, 13, "write '=='"},
        {"true && true", 1, 6, "write 'and'"},
        {"true || true", 1, 6, "write 'or'"},
        {"!true", 1, 1, "write 'not'"},
        {"1 < loop.visits < 3", 1, 17, "cannot be chained"},
        {"loop.visits > 3x", 1, 15, "is no number"},
        {"loop.visits > 3mb", 1, 15, "is no number"},
        {"loop.visits > 9999999999999999", 1, 15, "is no number"},
        {"(true", 1, 1, "not closed"},
        {"true and (true or\n(false)", 1, 10, "not closed"},
        {"true and", 1, 9, "ends where"},
        {"and true", 1, 1, "there is no fact 'and'"},
        {"loop.visits > \x01", 1, 15, "found '?'"},
        {"relay.address == 192.0.2.0/24", 1, 1, "write 'in' instead"},
        {"relay.address == 192.0.2.300", 1, 18, "is no network address"},
        {"relay.address == \"mail.example\"", 1, 1, "'mail.example' is no network address"},
        {"relay.address in (192.0.2.1, 192.0.2.1/33)", 1, 30, "is no network address"},
        {"relay.address in 192.0.2/24", 1, 18, "is no network address"},
        {"relay.address in 2001:db8::1::", 1, 18, "is no network address"},
        {"relay.address in (1, 2)", 1, 19, "cannot be compared with a number"},
        {"relay.address in (relay.helo)", 1, 19, "cannot stand here"},
        {"relay.address == 3", 1, 1, "cannot be compared with a number"},
        {"relay.address < 192.0.2.7", 1, 1, "only numbers are less or more"},
        {"relay.address", 1, 1, "expected a comparison"},
        {"relay.name == 192.0.2.7", 1, 1, "is a text and cannot be compared with a network"},
        {"message.bytes == 192.0.2.7", 1, 1, "is a number and cannot be compared with a network"},
        {"192.0.2.7 == 192.0.2.7", 1, 1, "the value is a network address and cannot"},
        {"192.0.2.7 in 192.0.2.0/24", 1, 14, "only relay.address"},
        {"192.0.2.7x == relay.address", 1, 1, "is no network address"},
        {"recipient.address in @peopel", 1, 22, "did you mean '@people'"},
        {"relay.address in @own_net", 1, 18, "did you mean '@own_nets'"},
        {"relay.address in @zzzzzzzz", 1, 18, "declare it before the rules"},
        {"relay.address in @", 1, 18, "there is no set '@'"},
        {"recipient.address in @partners", 1, 22,
         "is a mail address, and @partners has texts: @exam"},
        {"recipient.domain in @people", 1, 21, "name of a host or domain, and @people has mail"},
        {"relay.address in @people", 1, 18, "a network address, and @people has mail addresses"},
        {"relay.name in @customers-4", 1, 15, "and @customers-4 has networks"},
        {"message.subject in @people", 1, 20, "a text, and @people has mail addresses"},
        {"message.bytes in @people", 1, 18, "a number: only a fact that is a text"},
        {"\"x\" in @people", 1, 8, "only a fact that is a text"},
        {"message.subject in @ours", 1, 20, "a text, and @ours has domains"},
        {"relay.address in @ours", 1, 18, "a network address, and @ours has domains"},
        {"recipient.address in @own_hosts", 1, 22, "and @own_hosts has host names"},
        {"relay.name in @own_nets", 1, 15, "and @own_nets has networks"},
        {"recipient.domain in @exempt", 1, 21, "and @exempt has mail addresses"},
        {"recipient.domain in ours", 1, 21, "expected '(' or a set after 'in'"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct arena *arena = arena_new();
        struct expr_error error = {0};
        size_t used;
        if (expr_compile(arena, &sets, span_str(t[i].text), &used, &error))
            fail_msg("'%s' was taken", t[i].text);
        if (!strstr(error.text, t[i].says) || error.line != t[i].line ||
            error.column != t[i].column)
            fail_msg("'%s': %u:%u: %s", t[i].text, error.line, error.column, error.text);
        arena_free(&arena);
    }
}

static void reading_stops_where_the_expression_ends(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t used;
    } t[] = {
        {"true do hold", 5},     {"loop.visits > 3 do", 16},        {"(true) }", 7},
        {"message.list\n}", 13}, {"loop.visits in (1) reason", 19},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct arena *arena = arena_new();
        struct expr_error error;
        size_t used = 0;
        assert_non_null(expr_compile(arena, &sets, span_str(t[i].text), &used, &error));
        assert_int_equal(used, t[i].used);
        arena_free(&arena);
    }
}

/* Fills out with n times `piece` between `before` and `after`. */
static void repeat(char *out, const char *before, const char *piece, int n, const char *after)
{
    out += sprintf(out, "%s", before);
    for (int i = 0; i < n; i++)
        out += sprintf(out, "%s", piece);
    sprintf(out, "%s", after);
}

static void size_is_bounded(void **state)
{
    (void)state;
    static const struct {
        const char *before, *piece;
        int n;
        const char *after, *says; /* NULL: taken */
    } t[] = {
        {"", "(", 31, "true", "not closed"},
        {"", "(", 32, "true", "nested deeper"},
        {"", "not ", 31, "true", NULL},
        {"", "not ", 32, "true", "nested deeper"},
        {"", "true and ", 999, "true", NULL},
        {"", "true and ", 1000, "true", "too long"},
        {"loop.visits in (0", ",1", 999, ")", NULL},
        {"loop.visits in (0", ",1", 1000, ")", "list is too long"},
        {"envelope.from matches \"", "a", 256, "\"", NULL},
        {"envelope.from matches \"", "a", 257, "\"", "longer than"},
        {"", "(", 9000, "", "nested deeper"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        static char text[20000];
        struct arena *arena = arena_new();
        struct expr_error error = {0};
        size_t used;
        repeat(text, t[i].before, t[i].piece, t[i].n, t[i].after);
        bool taken = expr_compile(arena, &sets, span_str(text), &used, &error) != NULL;
        if (taken != !t[i].says || (t[i].says && !strstr(error.text, t[i].says)))
            fail_msg("case %zu: %d %s", i, taken, error.text);
        arena_free(&arena);
    }
}

static void whom_an_address_does_not_reach(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool unknown, six, no_site; /* for an unknown client, for 2001:db8::7, without a site */
    } t[] = {
        {"relay.address == \"\"", true, false, false},
        {"relay.address != \"\"", false, true, true},
        {"relay.address in (0.0.0.0/0, ::/0)", false, true, true},
        {"relay.address in ::/0", false, true, false},
        {"relay.address in @customers-4", false, false, true},
        {"relay.address in @customers-6", false, true, false},
        {"relay.address in @own_nets or relay.name in @ours and recipient.address in @exempt",
         false, false, false},
    };
    struct facts f = facts; /* its texts do not lie in it */
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct arena *arena = arena_new();
        struct expr_error error;
        size_t used;
        struct expr *e = expr_compile(arena, &sets, span_str(t[i].text), &used, &error);
        assert_non_null(e);
        f.client = (struct ipaddr){0};
        bool unknown = expr_true(e, &f);
        assert_true(ipaddr_parse(&f.client, SPAN("2001:db8::7")));
        bool six = expr_true(e, &f);
        f.client = facts.client;
        f.site = NULL;
        bool no_site = expr_true(e, &f);
        f.site = facts.site;
        if (unknown != t[i].unknown || six != t[i].six || no_site != t[i].no_site)
            fail_msg("%s: %d %d %d", t[i].text, unknown, six, no_site);
        arena_free(&arena);
    }
}

/* However often it is asked, no memory is taken. */
static void asking_takes_no_memory(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    struct expr_error error;
    size_t used;
    struct expr *e = expr_compile(
        arena, &sets,
        SPAN("not (envelope.from in @people or relay.name in @partners or relay.name in @own_hosts "
             "or relay.address in 198.51.100.0/24 or message.subject matches \"*a*b*c*\" or "
             "loop.visits in (7, 8, 9)) and recipient.address in @people and relay.name in @ours"),
        &used, &error);
    assert_non_null(e);
    size_t arenas = arena_used(arena) + arena_used(house);
    struct mallinfo2 before = mallinfo2();
    for (int i = 0; i < 1000; i++)
        assert_true(expr_true(e, &facts));
    struct mallinfo2 after = mallinfo2();
    assert_int_equal(before.uordblks + before.hblkhd, after.uordblks + after.hblkhd);
    assert_int_equal(arena_used(arena) + arena_used(house), arenas);
    arena_free(&arena);
}

static void who_must_be_asked_for_each_recipient(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool each;
    } t[] = {
        {"loop.hops > 3", false},
        {"recipient.domain == \"x\"", true},
        {"true or replication.copies > 0", true},
        {"replication.storm", false},
        {"replication.advice == \"hold\"", true},
        {"loop.visits in (replication.passed)", true},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct arena *arena = arena_new();
        struct expr_error error;
        size_t used;
        struct expr *e = expr_compile(arena, &sets, span_str(t[i].text), &used, &error);
        assert_non_null(e);
        assert_int_equal(expr_per_recipient(e), t[i].each);
        arena_free(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(expressions_mean_what_they_say),
        cmocka_unit_test(mistakes_are_refused_with_their_place),
        cmocka_unit_test(reading_stops_where_the_expression_ends),
        cmocka_unit_test(size_is_bounded),
        cmocka_unit_test(whom_an_address_does_not_reach),
        cmocka_unit_test(asking_takes_no_memory),
        cmocka_unit_test(who_must_be_asked_for_each_recipient),
    };
    return cmocka_run_group_tests(tests, some_facts, no_facts);
}
