/*
 * blame_test.c - whose fault a further copy is: who is named, who is not, and on what evidence.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "story.h"

/* One message, its record, and what is said of it. */
struct trial {
    struct past p;
    struct record *r;
    struct replication_signals out;
    struct report report;
};

static void trial_open(struct trial *t)
{
    past_open(&t->p);
    t->r = record_new(0);
}

static void trial_close(struct trial *t)
{
    record_free(&t->r);
    past_close(&t->p);
}

static void put(struct trial *t, const struct step *step, const char *visible)
{
    struct subject s;

    observe(&t->p, t->r, step, visible, &s, &t->out);
    settle(t->r, s.envelope, &t->out, 0);
}

/* The first copy of all, then n more whose path is the step's, with serial numbers in it. */
static void copies(struct trial *t, const struct step *like, int n, const char *visible)
{
    put(t, &(struct step){.path = "o isp", .rcpts = like->rcpts}, visible);
    for (int i = 1; i <= n; i++) {
        struct step step = *like;
        char path[128];

        sprintf(path, like->path, i, i);
        step.path = path;
        put(t, &step, visible);
    }
    replication_report(t->r, &t->p.site, t->p.arena, &t->report);
}

/* The only culprit is called so, and is named or not. */
static void culprit_is(const struct trial *t, const char *relay, bool named)
{
    assert_int_equal(t->report.nculprits, 1);
    assert_true(span_eq(t->report.culprits[0].relay, span_str(relay)));
    assert_int_equal(t->report.culprits[0].named, named);
}

/* Three of 630 addressees run servers that fetch the mail and send it to all of To: again, each
 * through its own provider's smarthost; copies of copies too. We are the gateway of three others.
 */
static void test_shropshire(void **state)
{
    enum { ALL = 630 };
    static const char mine[] = "office@firm5.example office@firm6.example office@firm7.example";
    struct past p;
    struct record *r = record_new(0);
    char *all = malloc(ALL * 32), path[1024];
    struct replication_signals out;
    struct subject s;
    struct report report;
    size_t held = 0, passed = 0;
    uint32_t seed = 1;

    (void)state;
    past_open(&p);
    storm_addresses(all, ALL);
    for (int i = 0; i < 120; i++) {
        size_t n = (size_t)sprintf(path, "pc[192.0.2.1] relay.promo.example[192.0.2.2]/1");
        int rounds = i ? 1 + i % 3 : 0;

        for (int j = 0; j < rounds; j++) {
            unsigned who = (seed = seed * 1103515245 + 12345) >> 16 & 3;

            who = who == 3 ? 0 : who;
            n += (size_t)sprintf(
                path + n,
                " mx.isp%u.example[192.0.2.%u]/%d-%d@office@firm%u.example "
                "sbs.firm%u.example[198.51.100.%u]^/%d-%d smtp.isp%u.example[192.0.2.%u]/%d-%d",
                who, 10 + who, j, i / 4, who, who, who, j, i / 4, who, 20 + who, j, i);
        }
        observe(&p, r, &(struct step){.path = path, .rcpts = mine}, all, &s, &out);
        settle(r, s.envelope, &out, 0);
        for (size_t k = 0; k < 3; k++)
            out.copy[k].advice == ADVICE_HOLD ? held++ : passed++;
        arena_free(&p.arena);
        p.arena = arena_new();
    }
    assert_int_equal(passed, 3);
    assert_int_equal(held, 3 * 119);
    replication_report(r, &p.site, p.arena, &report);
    assert_true(report.storm);
    assert_true(out.blamed_id && out.known);
    assert_int_equal(report.copies, 360);
    assert_int_equal(report.passed, 3);
    assert_int_equal(report.recipients, 3);
    assert_int_equal(report.without, 0);
    for (size_t i = 0; i < report.nculprits; i++) {
        const struct culprit *c = &report.culprits[i];
        bool sbs = span_starts(c->relay, SPAN("sbs.firm"));

        assert_int_equal(c->named, i < 3);
        assert_int_equal(sbs, i < 3);
        assert_true(c->nevidence >= 1);
        assert_true(c->since <= c->until);
        if (i < 3)
            assert_non_null(strstr(c->evidence[0], "delivered to a mailbox (100 % of its"));
    }
    assert_true(report.nculprits >= 3);
    record_free(&r);
    past_close(&p);
    free(all);
}

/* n transactions that went through a server, each a second after the one before. */
static void storm_through(struct past *p, struct record *r, const char *form, int n)
{
    for (int i = 0; i < n; i++) {
        struct replication_signals out;
        struct subject s;
        char path[128];
        int serial = (int)r->duplicate_transactions;

        sprintf(path, form, serial, serial);
        observe(
            p, r,
            &(struct step){.path = path, .rcpts = B " " C " " D, .later = 1000LL * serial + 1000},
            "", &s, &out);
        settle(r, s.envelope, &out, 0);
        arena_free(&p->arena);
        p->arena = arena_new();
    }
}

static bool names(struct past *p, const struct record *r, const char *server)
{
    struct report report;
    bool found = false;

    replication_report(r, &p->site, p->arena, &report);
    for (size_t i = 0; i < report.nculprits; i++)
        found |= report.culprits[i].named && span_eq(report.culprits[i].relay, span_str(server));
    return found;
}

/* Who joins a long storm late, and with few copies, is named as well; and names that somebody
 * invents, as many as he likes, push out neither those nor who comes after them. */
static void test_late_joiners(void **state)
{
    struct past p;
    struct record *r = record_new(0);

    (void)state;
    past_open(&p);
    storm_through(&p, r, "o isp", 1);
    storm_through(&p, r, "o isp one[192.0.2.1]^/%d smart/%d", 300);
    assert_true(r->storm);
    storm_through(&p, r, "o isp two[192.0.2.2]^/%d smart/%d", 3);
    assert_true(names(&p, r, "one[192.0.2.1]"));
    assert_true(names(&p, r, "two[192.0.2.2]"));
    storm_through(&p, r, "o isp x%d y%d", 2000);
    assert_int_equal(r->ndossiers, DOSSIERS_MAX);
    storm_through(&p, r, "o isp three[192.0.2.3]^/%d smart/%d", 20);
    assert_int_equal(r->ndossiers, DOSSIERS_MAX);
    assert_true(names(&p, r, "one[192.0.2.1]"));
    assert_true(names(&p, r, "two[192.0.2.2]"));
    assert_true(names(&p, r, "three[192.0.2.3]"));
    record_free(&r);
    past_close(&p);
}

/* A server that left neither its name nor an address is nobody's, and nobody is blamed for it. */
static void test_nobody(void **state)
{
    struct past p;
    struct record *r = record_new(0);

    (void)state;
    past_open(&p);
    storm_through(&p, r, "o isp", 1);
    storm_through(&p, r, "? sbs/%d smart/%d", 8);
    assert_int_equal(r->ndossiers, 2);
    for (size_t i = 0; i < r->ndossiers; i++)
        assert_string_not_equal(r->dossier[i].name, "?");
    record_free(&r);
    past_close(&p);
}

/* Nothing but host names that anybody could have: no name, the site. */
static void test_no_name_without_a_lead(void **state)
{
    struct trial t;

    (void)state;
    trial_open(&t);
    copies(&t, &(struct step){.path = "o isp a/%d b/%d", .rcpts = B}, 5, "");
    culprit_is(&t, "one of a -> b", false);
    assert_string_equal(t.report.culprits[0].grade, "claimed by one relay only");
    trial_close(&t);
}

struct naming {
    const char *name;
    struct step step;
    int copies;
    bool named;
};

static void check_namings(const struct naming *cases, size_t n, const char *server)
{
    for (size_t i = 0; i < n; i++) {
        struct trial t;

        trial_open(&t);
        copies(&t, &cases[i].step, cases[i].copies, "");
        bool named = t.report.nculprits && t.report.culprits[0].named;
        if (named != cases[i].named ||
            (named && !span_eq(t.report.culprits[0].relay, span_str(server))))
            fail_msg("%s: %snamed", cases[i].name, named ? "" : "not ");
        trial_close(&t);
    }
}

/* A name that a thousand others have, but it handed the copies to us itself, from its address, and
 * they begin with it: that a postmaster can find. */
static void test_name_by_address(void **state)
{
#define LOCAL "server.local[192.0.2.9]"
    static const struct naming cases[] = {
        {"no trace before it", {.path = LOCAL, .rcpts = B}, 4, true},
        {"ordinary mail comes from it, too", {.path = LOCAL, .rcpts = B, .ordinary = 9}, 4, true},
        {"it hands on the mail of many", {.path = LOCAL, .rcpts = B, .ordinary = 10}, 4, false},
        {"seen twice", {.path = LOCAL, .rcpts = B}, 2, false},
        {"it says who gave it the copies",
         {.path = "pc%d[192.0.2.20] " LOCAL, .rcpts = B},
         4,
         false},
        {"a relay says so", {.path = LOCAL " relay/%d", .rcpts = B}, 4, false},
    };

    (void)state;
    check_namings(cases, sizeof cases / sizeof *cases, LOCAL);
}

/* Whoever writes Received lines can write a victim's name into them. A server that hands us its
 * own mail itself is not named on the word of one other relay. */
static void test_hearsay(void **state)
{
#define SBS "o sbs[192.0.2.9]^/%d"
    static const struct naming cases[] = {
        {"one relay tells of a server we never met",
         {.path = SBS " relay/%d", .rcpts = B},
         5,
         true},
        {"one relay tells of a server that comes itself",
         {.path = SBS " relay/%d", .rcpts = B, .delivers = true},
         5,
         false},
        {"it came itself with the copies", {.path = SBS, .rcpts = B, .delivers = true}, 5, true},
    };

    (void)state;
    check_namings(cases, sizeof cases / sizeof *cases, "sbs[192.0.2.9]");
}

/* A list that does not mark itself leaves the shares of a faulty server in its dossier; it is named
 * when it does what a list does not do. */
static void test_no_name_without_a_proof(void **state)
{
    static const char to[] = "all@l.example friends@l.example";
    static const struct step steps[] = {
        {.path = "o isp", .rcpts = B " " C " " D},
        {.path = "o isp/1@all@l.example list[192.0.2.9]/1", .rcpts = B},
        {.path = "o isp/1@all@l.example list[192.0.2.9]/2", .rcpts = C},
        {.path = "o isp/1@all@l.example list[192.0.2.9]/3", .rcpts = D},
        {.path = "o isp/2@all@l.example list[192.0.2.9]/4", .rcpts = B},
    };
    struct trial t;

    (void)state;
    trial_open(&t);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        put(&t, &steps[i], to);
        replication_report(t.r, &t.p.site, t.p.arena, &t.report);
        assert_int_equal(t.report.nculprits, i >= 3);
        if (i >= 3)
            assert_int_equal(t.report.culprits[0].named, i > 3);
    }
    culprit_is(&t, "list[192.0.2.9]", true);
    trial_close(&t);
}

/* A server that writes no Received field: its address follows the name of who handed it the mail.
 * What it calls itself may be somebody else's name. */
static void test_silent_server(void **state)
{
    struct trial t;

    (void)state;
    trial_open(&t);
    copies(&t,
           &(struct step){.path = "o isp mx.provider.example[192.0.2.9]/%d",
                          .rcpts = B,
                          .helo = "sbs.firm7.local"},
           5, "x@firm7.example y@firm8.example");
    culprit_is(&t, "perhaps ?[192.0.2.9]", false);
    trial_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shropshire),
        cmocka_unit_test(test_late_joiners),
        cmocka_unit_test(test_nobody),
        cmocka_unit_test(test_no_name_without_a_lead),
        cmocka_unit_test(test_name_by_address),
        cmocka_unit_test(test_hearsay),
        cmocka_unit_test(test_no_name_without_a_proof),
        cmocka_unit_test(test_silent_server),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
