/*
 * ledger_test.c - which message it is that comes again, what is written down of refusals, and when
 * they end; on a virtual clock, with a real keeper.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/thread.h>

#include "tx.h"

#include "ledger.h"

#define MINUTE (60 * INT64_C(1000))
#define NOW INT64_C(1795000000000)

static int64_t now;

static int64_t told_time(void)
{
    return now;
}

static struct house {
    char dir[64];
    struct config *config;
    struct pipeline pipeline;
    struct keys keys;
    struct event_base *base;
    struct mailbox *home;
    struct hold *view;
} house;

static int open_house(void **state)
{
    static const char rules[] = "rule busy { when envelope.from == \"busy@x.example\" do throttle "
                                "reason \"later\" }\n";
    struct house *h = &house;
    struct pipeline *p = &h->pipeline;
    struct policy_error why;
    char error[512];
    bool damaged;
    (void)state;
    *h = (struct house){.dir = "/tmp/ledger_test.XXXXXX"};
    now = NOW;
    clock_set(told_time);
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
    assert_non_null(p->keeper);
    p->ledger = ledger_new();
    p->mode = MODE_ENFORCE;
    h->view = hold_open(h->dir, false, &damaged, error);
    assert_non_null(h->view);
    return keys_open(&h->keys, h->config->site_key);
}

static int close_house(void **state)
{
    struct house *h = &house;
    char command[96];
    (void)state;
    hold_close(&h->view);
    if (h->pipeline.keeper)
        keeper_stop(&h->pipeline.keeper);
    ledger_free(&h->pipeline.ledger);
    mailbox_free(&h->home);
    event_base_free(h->base);
    store_close(&h->pipeline.store);
    figures_free(&h->pipeline.figures);
    keys_close(&h->keys);
    config_drop(&h->config);
    snprintf(command, sizeof command, "rm -r %.63s", h->dir);
    clock_set(NULL);
    return system(command);
}

/* ---- which message ---- */

#define TOP "Received: from b by c; Mon, 23 Nov 2026 10:00:00 +0000\r\n"
#define OTHER "Received: from b by d;\r\n\tMon, 23 Nov 2026 10:05:00 +0000\r\n"
#define DEEP "Received: from a by b; Mon, 23 Nov 2026 09:59:00 +0000\r\n"
#define OURS "Received: from c by mx.y.example; Mon, 23 Nov 2026 10:00:01 +0000\r\n"
#define LATER "Received: from c by mx.y.example; Mon, 23 Nov 2026 10:05:01 +0000\r\n"
#define REST "From: a@x.example\r\nSubject: offer\r\nMessage-ID: <1@x.example>\r\n"
#define ANNA "anna@y.example"

static struct ledger_keys keys_of(const char *head, const char *to)
{
    struct arena *a = arena_new();
    struct message *m = message_new(a);
    struct recipient rcpt[4];
    struct envelope e = {.recipients = rcpt};
    struct trace trace;
    struct ledger_keys k;
    (void)message_add_raw(m, span_str(head));
    (void)message_add_raw(m, SPAN("\r\n"));
    for (struct span rest = span_str(to); rest.n;) {
        size_t n = span_find(rest, ' ');
        rcpt[e.nrecipients++] = (struct recipient){.address = span_head(rest, n)};
        rest = span_from(rest, n + 1);
    }
    trace_parse(&trace, a, &house.keys, m);
    ledger_keys(&k, &house.keys, &house.config->site, m, &trace, &e);
    arena_free(&a);
    return k;
}

static void what_comes_again_is_known(void **state)
{
    (void)state;
    static const struct {
        const char *sentence, *first, *to, *again, *to_again;
        bool known, copy; /* the same message; this very copy of it */
    } t[] = {
        {"the same queue entry", TOP DEEP REST, ANNA, TOP DEEP REST, ANNA, 1, 1},
        {"through another host of the same farm", TOP DEEP REST, ANNA, OTHER DEEP REST, ANNA, 1, 0},
        {"through a host of ours, which writes anew", OURS REST, ANNA, LATER REST, ANNA, 1, 1},
        {"through two of ours", OURS OURS TOP REST, ANNA, LATER LATER TOP REST, ANNA, 0, 1},
        {"two copies through a host of ours", OURS TOP REST, ANNA, LATER OTHER REST, ANNA, 0, 0},
        {"through ours long ago", TOP OURS REST, ANNA, TOP LATER REST, ANNA, 0, 0},
        {"through the fallback relay", DEEP REST, ANNA, TOP DEEP REST, ANNA, 1, 0},
        {"straight from its author's machine", REST, ANNA, REST, ANNA, 1, 1},
        {"from there, and then through a relay", REST, ANNA, TOP REST, ANNA, 1, 0},
        {"a field of the last server above", TOP DEEP REST, ANNA, "X-A: b\r\n" OTHER DEEP REST,
         ANNA, 1, 0},
        {"recipients in another order", TOP REST, "a@y.example b@y.example", TOP REST,
         "B@Y.example a@y.example", 1, 1},
        {"a recipient less", TOP REST, "a@y.example b@y.example", TOP REST, "a@y.example", 0, 0},
        {"another recipient", TOP REST, ANNA, TOP REST, "bob@y.example", 0, 0},
        {"one recipient twice is not two others", TOP REST, "a@y.example a@y.example", TOP REST,
         "b@y.example b@y.example", 0, 0},
        {"another message", TOP REST, ANNA, TOP "From: b@x.example\r\n", ANNA, 0, 0},
        {"a further copy that came another way", TOP DEEP REST, ANNA, TOP OTHER REST, ANNA, 0, 0},
        {"a copy that went round first", TOP DEEP REST, ANNA, OTHER TOP TOP DEEP REST, ANNA, 0, 0},
    };
    static struct span ours = {(const uint8_t *)"y.example", 9};
    house.config->site.own_domains = &ours;
    house.config->site.nown_domains = 1;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct ledger_keys a = keys_of(t[i].first, t[i].to), b = keys_of(t[i].again, t[i].to_again);
        bool known = b.key[0] == a.key[0] || (b.key[1] && b.key[1] == a.key[0]);
        if (known != t[i].known)
            fail_msg("%s: %s", t[i].sentence, known ? "known" : "not known");
        if ((a.copy == b.copy) != t[i].copy)
            fail_msg("%s: %s", t[i].sentence, t[i].copy ? "another copy" : "the same copy");
    }
}

/* ---- rows ---- */

static struct ledger_keys key(uint64_t k)
{
    return (struct ledger_keys){.key = {k}};
}

static void refuse(uint64_t k, uint64_t tx, bool final, const char *to)
{
    struct recipient rcpt = {.address = span_str(to)};
    struct envelope e = {
        .recipients = &rcpt, .nrecipients = 1, .reversepath = SPAN("a\nb@x.example")};
    struct refusal r = {
        .tx = tx, .now = now, .final = final, .door = "in", .envelope = &e, .rule = "busy"};
    struct ledger_keys keys = key(k);
    ledger_refused(house.pipeline.ledger, &keys, &r);
}

static void settle(uint64_t k, enum refusal_outcome outcome)
{
    struct ledger_keys keys = key(k);
    ledger_settled(house.pipeline.ledger, &keys, outcome, now);
}

/* All that is queued is written when this returns. */
static void written(void)
{
    struct house *h = &house;
    char error[512];
    bool damaged;
    ledger_flush(h->pipeline.ledger, h->pipeline.keeper);
    keeper_stop(&h->pipeline.keeper);
    hold_close(&h->view);
    h->pipeline.keeper = keeper_start(h->dir, error);
    h->view = hold_open(h->dir, false, &damaged, error);
    assert_non_null(h->pipeline.keeper);
    assert_non_null(h->view);
}

static char told[4000];

static int tell_row(void *arg, const struct refusal_row *r)
{
    size_t n = strlen(told);
    (void)arg;
    snprintf(told + n, sizeof told - n, "%llu x%u %s%s; ", (unsigned long long)r->id, r->times,
             refusal_outcome_name(r->outcome), r->settled ? " then" : "");
    assert_string_equal(r->sender, "a?b@x.example");
    return 0;
}

static const char *rows(struct refusal_filter f)
{
    told[0] = '\0';
    assert_int_equal(hold_each_refusal(house.view, &f, tell_row, NULL), 0);
    return told;
}

static void one_row_for_one_message(void **state)
{
    (void)state;
    refuse(1, 101, false, ANNA);
    now += MINUTE;
    refuse(2, 102, false, "Bob@Y.example");
    refuse(1, 103, false, ANNA);
    refuse(3, 104, true, ANNA);
    refuse(4, 105, false, ANNA);
    now += MINUTE;
    settle(1, REFUSAL_PASSED);
    settle(9, REFUSAL_PASSED); /* nobody waits by this key */
    settle(4, REFUSAL_HELD);
    written();
    assert_string_equal(
        rows((struct refusal_filter){0}),
        "105 x1 held then; 104 x1 rejected then; 102 x1 waiting; 101 x2 passed then; ");
    assert_string_equal(rows((struct refusal_filter){.rcpt = "bob@y.EXAMPLE"}), "102 x1 waiting; ");
    assert_string_equal(rows((struct refusal_filter){.rcpt = "ob@y.example"}), "");
    assert_string_equal(rows((struct refusal_filter){.waiting = true}), "102 x1 waiting; ");
    assert_string_equal(rows((struct refusal_filter){.after = 104}),
                        "102 x1 waiting; 101 x2 passed then; ");
    assert_string_equal(rows((struct refusal_filter){.limit = 1}), "105 x1 held then; ");
    assert_string_equal(rows((struct refusal_filter){.since = now}),
                        "105 x1 held then; 101 x2 passed then; ");
    assert_string_equal(rows((struct refusal_filter){.since = now + 1}), "");
}

/* Known in memory, and to the next life: until a day after the last refusal. */
static void who_waits_is_known(void **state)
{
    (void)state;
    uint32_t times = 0;
    int64_t first = 0;
    struct ledger_keys k = key(7), through_another = {.key = {8, 7}};
    struct ledger *l = house.pipeline.ledger;
    assert_false(ledger_waiting(l));
    refuse(7, 101, false, ANNA);
    now += MINUTE;
    refuse(7, 102, false, ANNA);
    assert_true(ledger_waiting(l));
    assert_true(ledger_known(l, &k, now, &times, &first) && times == 2 && first == NOW);
    assert_true(ledger_known(l, &through_another, now, &times, &first) && times == 2);
    written();
    struct ledger *next = ledger_new();
    now += LEDGER_GONE - 1;
    assert_int_equal(ledger_load(next, house.view, now), 0);
    assert_true(ledger_known(next, &k, now, &times, &first) && times == 2 && first == NOW);
    assert_false(ledger_known(next, &k, now + 1, &times, &first));
    assert_false(ledger_waiting(next));
    ledger_free(&next);
    next = ledger_new();
    assert_int_equal(ledger_load(next, house.view, now + 1), 0);
    assert_false(ledger_waiting(next));
    ledger_free(&next);
}

static int purge(struct hold *hold, struct job *job)
{
    (void)job;
    return hold_refusal_purge(hold, now);
}

static void purged(struct job *job)
{
    (void)job;
}

static void rows_are_kept_for_thirty_days(void **state)
{
    (void)state;
    const int64_t days = 30 * 24 * 60 * MINUTE;
    struct job job = {.run = purge, .done = purged};
    refuse(1, (uint64_t)NOW << 22, false, ANNA);
    now = NOW + days;
    written();
    keeper_submit(house.pipeline.keeper, &job);
    written();
    assert_int_equal(job.result, 0);
    now++;
    keeper_submit(house.pipeline.keeper, &job);
    written();
    assert_int_equal(job.result, 1);
    assert_string_equal(rows((struct refusal_filter){0}), "");
}

static const struct refusal_row two_bytes = {.id = 7,
                                             .sender = "\xc3\xbc@x.example",
                                             .rcpts = "\n\xc3\xbc@y.example\n",
                                             .reason = "\xc3\xbc"};
static uint64_t rows_of[3], bytes_of[3];

/* Measured; removed, though more is said to be there; and once more when there is none. */
static int measure(struct hold *hold, struct job *job)
{
    (void)job;
    if (hold_refusal_put(hold, &two_bytes) < 0 ||
        hold_refusal_size(hold, &rows_of[0], &bytes_of[0]) < 0)
        return -1;
    rows_of[1] = rows_of[0];
    bytes_of[1] = bytes_of[0] + 1000;
    if (hold_refusal_drop(hold, &rows_of[1], &bytes_of[1]) < 0)
        return -1;
    rows_of[2] = rows_of[1];
    bytes_of[2] = bytes_of[1];
    return hold_refusal_drop(hold, &rows_of[2], &bytes_of[2]);
}

/* Whoever removes rows until the sum is small enough comes to an end. */
static void an_empty_table_has_no_size(void **state)
{
    struct job job = {.run = measure, .done = purged};
    (void)state;
    keeper_submit(house.pipeline.keeper, &job);
    written();
    assert_int_equal(job.result, 0);
    assert_int_equal(rows_of[0], 1);
    assert_int_equal(bytes_of[0], 200 + strlen(two_bytes.sender) + strlen(two_bytes.rcpts) +
                                      strlen(two_bytes.reason));
    assert_int_equal(rows_of[1], 0);
    assert_int_equal(bytes_of[1], 1000);
    assert_int_equal(bytes_of[2], 0);
}

/* What does not fit is counted, not waited for. */
static void the_queue_is_bounded(void **state)
{
    (void)state;
    struct ledger_figures f;
    for (uint64_t i = 1; i <= 40000; i++)
        refuse(i, 100 + i, false, ANNA);
    ledger_figures(house.pipeline.ledger, &f);
    assert_int_equal(f.refused, 40000);
    assert_true(f.lost > 0 && f.lost < 40000);
    assert_true(f.waiting > 30000 && f.waiting <= 65536);
    written();
    uint64_t n, bytes;
    assert_int_equal(hold_refusal_size(house.view, &n, &bytes), 0);
    assert_int_equal(n, 40000 - f.lost);
}

/* ---- when refusals end ---- */

static void judged(void *arg, struct tx *tx)
{
    (void)tx;
    *(bool *)arg = true;
}

/* One message of this subject: "pass", "tag", "refuse", "hold" for each recipient's copy. */
static const char *bring(const char *subject, const char *from, const char *to)
{
    struct house *h = &house;
    bool done = false;
    static char said[64];
    struct tx *tx = tx_begin(&h->pipeline, h->config, &h->keys, h->home, "in");
    tx_reversepath(tx, span_str(from), span_str(""));
    for (struct span rest = span_str(to); rest.n;) {
        size_t n = span_find(rest, ' ');
        assert_int_equal(tx_recipient(tx, span_head(rest, n), span_str("")), 0);
        rest = span_from(rest, n + 1);
    }
    tx_raw(tx, span_str("Received: from a by b; Mon, 23 Nov 2026 09:59:00 +0000\r\nFrom: "
                        "x@x.example\r\nSubject: "));
    tx_raw(tx, span_str(subject));
    tx_raw(tx, span_str("\r\n\r\nbuy this and that in words enough\r\n"));
    if (tx_judge(tx, judged, &done) == TX_WAIT)
        while (!done)
            event_base_loop(h->base, EVLOOP_ONCE);
    const struct verdict *v = tx_verdict(tx);
    said[0] = '\0';
    for (size_t i = 0; i < v->n; i++) {
        static const char *const names[DISP_COUNT] = {"pass", "tag", "refuse", "hold", "reject"};
        strcat(strcat(said, i ? " " : ""), names[v->copy[i].disposition]);
    }
    assert_int_equal(!tx_reply(tx), v->count[DISP_THROTTLE] == 0);
    tx_commit(tx);
    tx_end(&tx);
    return said;
}

#define BUSY "busy@x.example"

static void refusals_end_by_count(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        assert_string_equal(bring("one", BUSY, ANNA), "refuse");
    assert_string_equal(bring("two", BUSY, ANNA), "refuse");            /* another message */
    assert_string_equal(bring("one", BUSY, "bob@y.example"), "refuse"); /* another recipient */
    assert_string_equal(bring("one", BUSY, ANNA), "tag");
    assert_string_equal(bring("one", BUSY, ANNA), "hold"); /* she has it now */
}

static void each_recipient_is_looked_at(void **state)
{
    (void)state;
    assert_string_equal(bring("one", "quiet@x.example", ANNA), "pass");
    for (int i = 0; i < 3; i++)
        assert_string_equal(bring("one", BUSY, ANNA " bob@y.example"), "refuse refuse");
    assert_string_equal(bring("one", BUSY, ANNA " bob@y.example"), "hold tag");
}

static void refusals_end_by_time(void **state)
{
    (void)state;
    house.config->policy_refusals = 0;
    assert_string_equal(bring("one", BUSY, ANNA), "refuse");
    for (int i = 1; i < 30; i++) {
        now = NOW + i * MINUTE;
        assert_string_equal(bring("one", BUSY, ANNA), "refuse");
    }
    now = NOW + 30 * MINUTE - 1;
    assert_string_equal(bring("one", BUSY, ANNA), "refuse");
    now = NOW + 30 * MINUTE;
    assert_string_equal(bring("one", BUSY, ANNA), "tag");
}

/* A store that forgets everything must not refuse for ever. */
static void they_end_without_a_store(void **state)
{
    (void)state;
    store_close(&house.pipeline.store);
    house.pipeline.store = store_none_open();
    for (int i = 0; i < 3; i++)
        assert_string_equal(bring("one", BUSY, ANNA), "refuse");
    assert_string_equal(bring("one", BUSY, ANNA), "tag");
}

/* The next life of the daemon, or one without a ledger, counts on. */
static void they_end_after_a_restart_and_without_a_ledger(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++)
        assert_string_equal(bring("one", BUSY, ANNA), "refuse");
    written();
    store_close(&house.pipeline.store);
    house.pipeline.store = store_memory_open(&house.config->site, 16 << 20);
    ledger_free(&house.pipeline.ledger);
    house.pipeline.ledger = ledger_new();
    assert_int_equal(ledger_load(house.pipeline.ledger, house.view, now), 0);
    assert_string_equal(bring("one", BUSY, ANNA), "refuse");
    assert_string_equal(bring("one", BUSY, ANNA), "tag");
    ledger_free(&house.pipeline.ledger);
    for (int i = 0; i < 3; i++)
        assert_string_equal(bring("two", BUSY, ANNA), "refuse");
    assert_string_equal(bring("two", BUSY, ANNA), "tag");
}

static void monitor_counts_nothing(void **state)
{
    (void)state;
    struct ledger_figures f;
    house.pipeline.mode = MODE_MONITOR;
    for (int i = 0; i < 5; i++)
        assert_string_equal(bring("one", BUSY, ANNA), "pass");
    ledger_figures(house.pipeline.ledger, &f);
    assert_int_equal(f.refused, 0);
    house.pipeline.mode = MODE_ENFORCE;
    assert_string_equal(bring("two", BUSY, ANNA), "refuse");
}

/* When holding fails, a further copy is refused hold.refuse_max times, and passes then. */
static void what_cannot_be_held_is_refused_for_a_while(void **state)
{
    (void)state;
    assert_string_equal(bring("one", "quiet@x.example", ANNA), "pass");
    house.config->policy_refusals = 1;
    atomic_store(&house.pipeline.hold_full, true);
    assert_string_equal(bring("one", BUSY, ANNA), "refuse");
    for (int i = 0; i < 3; i++) /* held, were there room: so this limit counts from here */
        assert_string_equal(bring("one", BUSY, ANNA), "refuse");
    assert_string_equal(bring("one", BUSY, ANNA), "tag");
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, open_house, close_house)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_comes_again_is_known),
        TEST(one_row_for_one_message),
        TEST(who_waits_is_known),
        TEST(rows_are_kept_for_thirty_days),
        TEST(an_empty_table_has_no_size),
        TEST(the_queue_is_bounded),
        TEST(refusals_end_by_count),
        TEST(each_recipient_is_looked_at),
        TEST(refusals_end_by_time),
        TEST(they_end_without_a_store),
        TEST(they_end_after_a_restart_and_without_a_ledger),
        TEST(monitor_counts_nothing),
        TEST(what_cannot_be_held_is_refused_for_a_while),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
