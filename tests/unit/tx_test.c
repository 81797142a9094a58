/*
 * tx_test.c - what is written down about a message, with a real keeper, journal and incidents: the
 * door says what became of it, and journal, balance, incident and hold queue tell one story.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/thread.h>

#include "tx.h"
#include "watch.h"

static const char rules[] =
    "rule named { when recipient.address matches \"held-*\" do hold reason \"by name\" }\n"
    "rule tagged { when recipient.address matches \"tag-*\" do tag reason \"t\" }\n"
    "rule busy { when envelope.from == \"busy@x.example\" do throttle reason \"later\" }\n"
    "rule flood { when flood.defer do throttle reason \"too much at once\" }\n"
    "rule loop { when loop.hops > 30 do hold reason \"a circle\" }\n"
    "rule never { when envelope.from == \"never@x.example\" do reject reason \"no\" }\n";

static struct house {
    char dir[64];
    struct config *config;
    struct pipeline pipeline;
    struct keys keys;
    struct event_base *base;
    struct mailbox *home;
} house;

static int64_t time_now;

static int64_t still(void)
{
    return time_now;
}

static int open_house(void **state)
{
    struct house *h = &house;
    struct pipeline *p = &h->pipeline;
    struct policy_error why;
    char error[512];
    (void)state;
    *h = (struct house){.dir = "/tmp/tx_test.XXXXXX"};
    time_now = 1795000000000; /* a Monday in November 2026 */
    clock_set(still);
    log_open("stderr", LOG_NOTHING);
    evthread_use_pthreads();
    assert_non_null(mkdtemp(h->dir));
    h->config = config_builtin();
    policy_free(&h->config->policy);
    h->config->policy = policy_load(span_str(rules), NULL, &why);
    assert_non_null(h->config->policy);
    h->base = event_base_new();
    h->home = mailbox_new(h->base);
    p->figures = figures_new(h->config);
    p->store = store_memory_open(&h->config->site, 16 << 20);
    p->keeper = keeper_start(h->dir, error);
    p->journal = journal_open(h->dir, 30 * INT64_C(86400000), error);
    p->incidents = incidents_new(p->store, &h->config->site);
    assert_non_null(p->keeper);
    assert_non_null(p->journal);
    return keys_open(&h->keys, h->config->site_key);
}

static int close_house(void **state)
{
    struct house *h = &house;
    char command[96];
    (void)state;
    keeper_stop(&h->pipeline.keeper);
    mailbox_free(&h->home);
    event_base_free(h->base);
    journal_close(&h->pipeline.journal);
    incidents_free(&h->pipeline.incidents);
    store_close(&h->pipeline.store);
    figures_free(&h->pipeline.figures);
    keys_close(&h->keys);
    config_drop(&h->config);
    snprintf(command, sizeof command, "rm -r %.63s", h->dir);
    clock_set(NULL);
    return system(command);
}

/* ---- one message ---- */

enum door { HANDS_ON, ANSWERS }; /* SMTP; milter */
enum end { COMMITTED, REFUSED_451, REFUSED_554, LOST, ENDED, UNJUDGED, UNREAD };

static void judged(void *arg, struct tx *tx)
{
    (void)tx;
    *(bool *)arg = true;
}

static void take_recipients(struct tx *tx, const char *to)
{
    for (struct span rest = span_str(to); rest.n;) {
        size_t n = span_find(rest, ' ');
        assert_int_equal(tx_recipient(tx, span_head(rest, n), span_str("")), 0);
        rest = span_from(rest, n + 1);
    }
}

static void transact(enum door door, enum mode mode, const char *from, const char *to, enum end end)
{
    struct house *h = &house;
    bool done = false;
    h->pipeline.mode = mode;
    struct tx *tx = tx_begin(&h->pipeline, h->config, &h->keys, h->home, "in");
    if (door == HANDS_ON)
        tx_keep(tx);
    tx_reversepath(tx, span_str(from), span_str(""));
    take_recipients(tx, to);
    tx_raw(tx, span_str("From: x@x.example\r\nSubject: offer\r\n\r\nbuy this and that\r\n"));
    struct passing p;
    passing_begun(&p, tx_gauge(tx), tx_envelope(tx)->nrecipients);
    if (end == UNREAD)
        tx_refused(tx, 552, "too large");
    else if (tx_judge(tx, judged, &done) == TX_WAIT && end != UNJUDGED)
        while (!done)
            event_base_loop(h->base, EVLOOP_ONCE);
    if (end == COMMITTED)
        tx_commit(tx);
    else if (end == REFUSED_451 || end == REFUSED_554)
        tx_refused(tx, end == REFUSED_451 ? 451 : 554, "refused downstream");
    else if (end == LOST)
        tx_refused(tx, 0, "lost downstream");
    tx_end(&tx);
    passing_replied(&p, end == COMMITTED ? REPLY_ACCEPTED : REPLY_ABORTED);
}

/* ---- what is told of it ---- */

static char told[2048];

static void tell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void tell(const char *fmt, ...)
{
    size_t n = strlen(told);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(told + n, sizeof told - n, fmt, ap);
    va_end(ap);
}

/* Newest first. */
static int tell_row(void *arg, const struct journal_row *r)
{
    char old[sizeof told];
    (void)arg;
    strcpy(old, told);
    told[0] = 0;
    const char *did =
        r->disposition == JOURNAL_ABORTED ? "aborted" : disposition_name(r->disposition);
    const char *advised = r->advised == JOURNAL_ABORTED ? did : disposition_name(r->advised);
    tell("%.*s %s%s%s [%.*s], %s", SPAN_ARG(r->rcpt), did, did == advised ? "" : " advised ",
         did == advised ? "" : advised, SPAN_ARG(r->rule), old);
    return 0;
}

static void wait_for_the_keeper(void)
{
    struct keeper_figures f;
    do {
        usleep(1000);
        event_base_loop(house.base, EVLOOP_NONBLOCK);
        keeper_figures(house.pipeline.keeper, &f);
    } while (f.waiting);
    event_base_loop(house.base, EVLOOP_NONBLOCK);
}

static void tell_all(void)
{
    struct figures *g = house.pipeline.figures;
    struct balance b;
    static const char *const names[DISP_COUNT] = {"passed", "tagged", "throttled", "held",
                                                  "rejected"};
    struct hold_figures f;
    char error[512];
    uint64_t advised = 0;
    told[0] = 0;
    journal_flush(house.pipeline.journal, clock_now());
    assert_int_equal(journal_each(house.dir, &(struct journal_filter){0}, tell_row, NULL), 0);
    figures_balance(g, NULL, clock_now(), &b);
    tell("received %d", (int)b.received);
    for (unsigned d = 0; d < DISP_COUNT; d++) {
        uint64_t n = figures_total(g, FIGURE_DONE + d);
        if (n)
            tell(" %s %d", names[d], (int)n);
        advised += figures_total(g, FIGURE_ADVISED + d);
    }
    if (b.refused)
        tell(" refused %d", (int)b.refused);
    if (b.aborted)
        tell(" aborted %d", (int)b.aborted);
    assert_int_equal(b.unaccounted, 0);
    assert_int_equal(b.after, 0);
    assert_int_equal(advised, b.received - b.refused - b.aborted);
    wait_for_the_keeper();
    struct hold *view = hold_open(house.dir, false, NULL, error);
    assert_int_equal(hold_figures(view, NULL, &f), 0);
    hold_close(&view);
    tell(", queue %d", (int)f.copies[COPY_HELD]);
    json_t *list = incidents_list(house.pipeline.incidents, clock_now()), *i;
    size_t at;
    json_array_foreach(list, at, i) tell(", storm passed %d deferred %d held %d",
                                         (int)json_integer_value(json_object_get(i, "passed")),
                                         (int)json_integer_value(json_object_get(i, "deferred")),
                                         (int)json_integer_value(json_object_get(i, "held")));
    json_decref(list);
}

#define A "a@b.example"
#define H "held-a@b.example"

static const struct {
    const char *name;
    enum door door;
    enum mode mode;
    const char *from, *to;
    enum end end;
    const char *told;
} cases[] = {
    {"it was taken", HANDS_ON, MODE_ENFORCE, "x@x.example", A, COMMITTED,
     A " pass [], received 1 passed 1, queue 0"},
    {"it was taken for one and held for the other", HANDS_ON, MODE_ENFORCE, "x@x.example", A " " H,
     COMMITTED,
     A " pass [], " H " hold [named], received 2 passed 1 held 1, queue 1, "
       "storm passed 1 deferred 0 held 1"},
    {"refused for now", HANDS_ON, MODE_ENFORCE, "x@x.example", A, REFUSED_451,
     A " throttle [refused downstream], received 1 refused 1, queue 0"},
    {"refused for ever", HANDS_ON, MODE_ENFORCE, "x@x.example", A, REFUSED_554,
     A " reject [refused downstream], received 1 refused 1, queue 0"},
    {"lost", HANDS_ON, MODE_ENFORCE, "x@x.example", A, LOST,
     A " throttle [lost downstream], received 1 refused 1, queue 0"},
    {"refused after one copy was held: it is taken back", HANDS_ON, MODE_ENFORCE, "x@x.example",
     A " " H, REFUSED_451,
     A " throttle [refused downstream], " H " throttle [refused downstream], "
       "received 2 refused 2, queue 0"},
    {"the same, for ever", HANDS_ON, MODE_ENFORCE, "x@x.example", A " " H, REFUSED_554,
     A " reject [refused downstream], " H " reject [refused downstream], "
       "received 2 refused 2, queue 0"},
    {"refused what monitor would have held", HANDS_ON, MODE_MONITOR, "x@x.example", H, REFUSED_451,
     H " throttle [refused downstream], received 1 refused 1, queue 0"},
    {"refused in bypass", HANDS_ON, MODE_BYPASS, "x@x.example", A, REFUSED_554,
     A " reject [refused downstream], received 1 refused 1, queue 0"},
    {"taken, with a tag", HANDS_ON, MODE_ENFORCE, "x@x.example", "tag-a@b.example", COMMITTED,
     "tag-a@b.example tag [tagged], received 1 tagged 1, queue 0"},
    {"a rule makes it wait", HANDS_ON, MODE_ENFORCE, "busy@x.example", A, ENDED,
     A " throttle [busy], received 1 throttled 1, queue 0"},
    {"a rule refuses it", HANDS_ON, MODE_ENFORCE, "never@x.example", A, ENDED,
     A " reject [never], received 1 rejected 1, queue 0"},
    {"a milter's verdict is what became of it", ANSWERS, MODE_ENFORCE, "x@x.example", A " " H,
     COMMITTED,
     A " pass [], " H " hold [named], received 2 passed 1 held 1, queue 1, "
       "storm passed 1 deferred 0 held 1"},
    {"a client that was gone before the reply has it still", ANSWERS, MODE_ENFORCE, "x@x.example",
     A, ENDED, A " aborted advised pass [gone before the reply], received 1 aborted 1, queue 0"},
    {"but what is held stays held", ANSWERS, MODE_ENFORCE, "x@x.example", A " " H, ENDED,
     A " aborted advised pass [gone before the reply], " H
       " hold [named], received 2 held 1 aborted 1, queue 1, storm passed 0 deferred 0 held 1"},
    {"gone while it was being held: no copy stays", HANDS_ON, MODE_ENFORCE, "x@x.example", H,
     UNJUDGED, H " aborted advised hold [gone before the reply], received 1 aborted 1, queue 0"},
    {"what the door takes no such of is refused unread", HANDS_ON, MODE_ENFORCE, "x@x.example", A,
     UNREAD, A " reject [too large], received 1 refused 1, queue 0"},
};

static void one_story_is_told(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        open_house(NULL);
        transact(cases[i].door, cases[i].mode, cases[i].from, cases[i].to, cases[i].end);
        tell_all();
        if (strcmp(told, cases[i].told) != 0)
            fail_msg("%s: %s, expected %s", cases[i].name, told, cases[i].told);
        assert_int_equal(close_house(NULL), 0);
    }
}

/* What was refused comes again: it is the first copy still, and counts once. */
static void what_comes_again_counts_once(void **state)
{
    (void)state;
    open_house(NULL);
    transact(HANDS_ON, MODE_ENFORCE, "x@x.example", A " " H, REFUSED_451);
    transact(HANDS_ON, MODE_ENFORCE, "x@x.example", A " " H, COMMITTED);
    tell_all();
    assert_string_equal(told,
                        A " throttle [refused downstream], " H " throttle [refused downstream], " A
                          " pass [], " H " hold [named], received 4 passed 1 held 1 refused 2, "
                          "queue 1, storm passed 1 deferred 0 held 1");
    assert_int_equal(close_house(NULL), 0);
}

/* The guard compares it with messages: to however many people one was. */
static void a_refused_message_counts_once(void **state)
{
    (void)state;
    open_house(NULL);
    transact(HANDS_ON, MODE_ENFORCE, "busy@x.example", A " b@b.example c@b.example", ENDED);
    assert_int_equal(figures_total(house.pipeline.figures, FIGURE_DEFERRED), 1);
    transact(HANDS_ON, MODE_ENFORCE, "never@x.example", A " b@b.example", ENDED);
    assert_int_equal(figures_total(house.pipeline.figures, FIGURE_DEFERRED), 2);
    transact(HANDS_ON, MODE_ENFORCE, "x@x.example", A " b@b.example", COMMITTED);
    assert_int_equal(figures_total(house.pipeline.figures, FIGURE_DEFERRED), 2);
    assert_int_equal(close_house(NULL), 0);
}

/* ---- the guard ---- */

struct guarded {
    struct rulebook *book;
    unsigned alarms;
    char reason[300];
    int64_t mono;
};

static void heard(void *arg, const char *subject, const char *text, const struct guard_action *a,
                  enum mode in_force)
{
    struct guarded *g = arg;
    (void)subject;
    (void)text;
    g->alarms++;
    assert_int_equal(in_force, MODE_ENFORCE);
    snprintf(g->reason, sizeof g->reason, "%s", a->reason);
}

static void begin_guard(struct guarded *g)
{
    struct rules *enforce = rules_copy(NULL);
    enforce->mode = MODE_ENFORCE;
    *g = (struct guarded){.book = rulebook_new(enforce), .mono = 1000};
    const struct watch_hands hands = {.rules = g->book, .arg = g, .alarm = heard};
    house.pipeline.watch = watch_new(house.config, &hands, NULL);
}

static void end_guard(struct guarded *g)
{
    watch_free(&house.pipeline.watch);
    rulebook_free(&g->book);
}

/* A look at the figures as they are; the mode is enforce, whatever they are. */
static void look(struct guarded *g)
{
    struct guard_reading r = {0};
    g->mono += 1000;
    figures_tick(house.pipeline.figures, clock_now());
    figures_read(house.pipeline.figures, clock_now(), &r);
    watch_tick(house.pipeline.watch, &r, clock_now(), g->mono);
    struct rules *now = rulebook_take(g->book);
    assert_int_equal(now->mode, MODE_ENFORCE);
    rules_drop(&now);
    struct watch_figures f;
    watch_figures(house.pipeline.watch, &f);
    assert_false(f.tripped);
}

/* Message n of a relay, with fields before it. What became of its copies, a letter each: pass, tag,
 * throttle (4), hold. */
static const char *from_relay(unsigned n, const char *fields, const char *to, bool indivisible)
{
    static char letters[8];
    struct house *h = &house;
    struct passing p;
    bool done = false;
    h->pipeline.mode = MODE_ENFORCE;
    struct tx *tx = tx_begin(&h->pipeline, h->config, &h->keys, h->home, "in");
    assert_true(ipaddr_parse(&tx_envelope(tx)->client, SPAN("203.0.113.9")));
    if (indivisible)
        tx_indivisible(tx);
    tx_reversepath(tx, SPAN("news@relay.example"), SPAN(""));
    take_recipients(tx, to);
    char text[500];
    snprintf(text, sizeof text,
             "From: x@x.example\r\nMessage-ID: <%u@relay.example>\r\nSubject: offer\r\n\r\n"
             "buy this and that, it is cheaper than ever, and tell all of your friends\r\n",
             n);
    tx_raw(tx, span_str(fields));
    tx_raw(tx, span_str(text));
    passing_begun(&p, tx_gauge(tx), tx_envelope(tx)->nrecipients);
    if (tx_judge(tx, judged, &done) == TX_WAIT)
        while (!done)
            event_base_loop(h->base, EVLOOP_ONCE);
    const struct verdict *v = tx_verdict(tx);
    for (size_t i = 0; i <= v->n; i++)
        letters[i] = i < v->n ? "pt4hr"[v->copy[i].disposition] : '\0';
    bool refused = letters[0] == '4';
    if (!refused)
        tx_commit(tx);
    tx_end(&tx);
    passing_replied(&p, refused ? REPLY_LATER : REPLY_ACCEPTED);
    return letters;
}

/* A relay that is known for a day sends a hundred times as much, to the end of the budget, and goes
 * on: 200 of its messages wait, the others pass. */
static void a_flood_does_not_take_enforce_mode_away(void **state)
{
    enum { MINUTE = 60 * 1000 };
    struct guarded g;
    char to[40];
    unsigned n = 0, did[128] = {0};
    (void)state;
    open_house(NULL);
    begin_guard(&g);
    for (unsigned hour = 0; hour < 25; hour++, time_now += 60 * MINUTE)
        assert_string_equal(from_relay(n++, "", A, false), "p");
    for (unsigned minute = 0; minute < 12; minute++, time_now += MINUTE) {
        for (unsigned i = 0; i < 100; i++) {
            snprintf(to, sizeof to, "r%u@b.example", n);
            did[(unsigned char)*from_relay(n++, "", to, false)]++;
        }
        look(&g);
    }
    assert_int_equal(did['4'], 200);
    assert_true(did['t'] > 100); /* for want of room */
    assert_int_equal(did['4'] + did['t'] + did['p'], 1200);
    assert_int_equal(figures_total(house.pipeline.figures, FIGURE_DEFERRED), 0);
    assert_int_equal(g.alarms, 1);
    assert_non_null(strstr(g.reason, "messages of floods"));
    end_guard(&g);
    assert_int_equal(close_house(NULL), 0);
}

/* Who has the message already does not get it again, whatever passes for the others. */
static void beyond_the_limit_only_copies_of_that_kind_pass(void **state)
{
    struct guarded g;
    char circle[4000] = "";
    (void)state;
    for (unsigned i = 31; i > 0; i--)
        snprintf(circle + strlen(circle), sizeof circle - strlen(circle),
                 "Received: from h%u.example by h%u.example; Mon, 23 Jan 2006 10:00:%02u +0000\r\n",
                 i, i + 1, i);
    open_house(NULL);
    house.config->guard.loops = 1;
    begin_guard(&g);
    assert_string_equal(from_relay(1, "", A, false), "p");
    assert_string_equal(from_relay(2, circle, "b@b.example c@b.example", false), "hh");
    look(&g);
    assert_int_equal(g.alarms, 0);
    assert_string_equal(from_relay(1, circle, A " b@b.example", false), "ht");
    assert_string_equal(from_relay(1, circle, A " d@b.example", true), "tt");
    look(&g);
    assert_int_equal(g.alarms, 1);
    assert_string_equal(from_relay(3, circle, A, false), "t");
    assert_string_equal(from_relay(4, circle, "held-e@b.example", false), "t");
    assert_string_equal(from_relay(5, "", H " f@b.example", false), "hp"); /* a rule says so */
    look(&g);
    assert_int_equal(g.alarms, 1);
    end_guard(&g);
    assert_int_equal(close_house(NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_story_is_told),
        cmocka_unit_test(what_comes_again_counts_once),
        cmocka_unit_test(a_refused_message_counts_once),
        cmocka_unit_test(beyond_the_limit_only_copies_of_that_kind_pass),
        cmocka_unit_test(a_flood_does_not_take_enforce_mode_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
