/*
 * release_test.c - the release engine between a real hold database with its keeper and an SMTP
 * server that can misbehave, all in one loop. The clock is the test's: nobody waits a minute.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define SINK_NO_MAIN
#include "../e2e/sink.c"

#include <sqlite3.h>

#include "id.h"
#include "release.h"
#include "token.h"

enum { MAILS = 8, RCPTS = 5, RULES = 4 };

struct stage {
    char dir[40];
    struct event_base *base;
    struct event *watchdog;
    struct mailbox *home;
    struct keeper *keeper;
    struct hold *view;
    struct config *config;
    struct sink *sink;
    struct release *release;
    char *rules[RULES];
    unsigned delivered, taken; /* messages, recipients */
    uint8_t *data;             /* of the last one */
    size_t ndata;
};

static int64_t the_time = 1138037000000;
static int64_t the_clock(void)
{
    return the_time;
}

static const char message[] = "Subject: x\r\n\r\n.\r\n..\r\n.hidden\r\nb\xc3\xbc\0r\r\n\r\n.";

static void delivered(void *arg, const struct sink_message *m)
{
    struct stage *st = arg;
    st->delivered++;
    st->taken += (unsigned)m->nrcpts;
    st->data = realloc(st->data, m->data.n + 1);
    memcpy(st->data, m->data.p, m->data.n);
    st->ndata = m->data.n;
}

static void bark(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what, (void)arg;
    fail_msg("hangs");
}

static void begin_release(struct stage *st)
{
    st->release = release_new(st->base, st->config, st->keeper, st->home, st->view);
}

static void open_stage(struct stage *st, const char *const *rules)
{
    char error[512] = "";
    memset(st, 0, sizeof *st);
    strcpy(st->dir, "/tmp/release_test.XXXXXX");
    assert_non_null(mkdtemp(st->dir));
    st->base = event_base_new();
    st->watchdog = evtimer_new(st->base, bark, NULL);
    event_add(st->watchdog, &(struct timeval){20, 0});
    st->home = mailbox_new(st->base);
    st->keeper = keeper_start(st->dir, error);
    st->view = hold_open(st->dir, false, NULL, error);
    assert_string_equal(error, "");
    st->sink = sink_new(st->base, "127.0.0.1:0");
    st->sink->deliver = delivered;
    st->sink->arg = st;
    for (size_t i = 0; rules && rules[i]; i++)
        assert_true(sink_rule_add(st->sink, st->rules[i] = strdup(rules[i])));
    st->config = config_builtin();
    st->config->release_to = st->sink->address;
    st->config->release_helo = "us.example";
    st->config->release_rate = 1000;
    st->config->release_token = false;
}

/* A piece of writing, done when this returns. */
struct deed {
    struct job job; /* must be first */
    struct event_base *base;
    uint64_t mail;
    size_t n; /* its copies: mail + 1 ... mail + n */
};

static int put(struct hold *hold, struct job *job)
{
    struct deed *d = (struct deed *)job;
    struct held_copy copies[RCPTS];
    static const char *const rcpts[RCPTS] = {"<b@b.example>", "c@c.example", "<d@d.example>",
                                             "e@e.example", "f@f.example"};
    struct held_mail m = {.id = d->mail,
                          .arrival = the_time,
                          .door = SPAN("in"),
                          .reversepath = SPAN("a@a.example"),
                          .reversepath_params = SPAN("RET=HDRS"),
                          .k = {"twelve bytes"},
                          .incident = SPAN("S4K7QZ2MA"),
                          .head = span_of(message, 14),
                          .body = body_new(NULL, 1 << 20, 1 << 20),
                          .copies = copies,
                          .ncopies = d->n};
    body_add(m.body, span_of(message + 14, sizeof message - 1 - 14));
    body_seal(m.body);
    for (size_t i = 0; i < d->n; i++)
        copies[i] = (struct held_copy){.id = d->mail + 1 + i,
                                       .rcpt = span_str(rcpts[i]),
                                       .params = SPAN("NOTIFY=NEVER"),
                                       .rcpt_hash = 100 + i};
    int rc = hold_put(hold, &m);
    body_drop(&m.body);
    return rc;
}

static int let_go(struct hold *hold, struct job *job)
{
    struct deed *d = (struct deed *)job;
    for (size_t i = 0; i < d->n; i++)
        if (hold_release_id(hold, d->mail + 1 + i, "me", the_time) != 1)
            return -1;
    return 0;
}

static void deed_done(struct job *job)
{
    event_base_loopbreak(((struct deed *)job)->base);
}

static int nothing(struct hold *hold, struct job *job)
{
    (void)hold, (void)job;
    return 0;
}

static void do_it(struct stage *st, int (*run)(struct hold *, struct job *), uint64_t mail,
                  size_t n)
{
    struct deed d = {.job = {.run = run, .done = deed_done, .home = st->home},
                     .base = st->base,
                     .mail = mail,
                     .n = n};
    keeper_submit(st->keeper, &d.job);
    event_base_loop(st->base, EVLOOP_NO_EXIT_ON_EMPTY);
    assert_int_equal(d.job.result, 0);
}

/* A mail to n recipients, held and wanted to be released. */
static void hold_and_let_go(struct stage *st, uint64_t mail, size_t n)
{
    do_it(st, put, mail, n);
    do_it(st, let_go, mail, n);
}

static struct release_figures until(struct stage *st, uint64_t results)
{
    struct release_figures f;
    for (;;) {
        release_kick(st->release);
        release_figures(st->release, &f);
        if (f.sent + f.deferred >= results && !f.inflight)
            return f;
        event_base_loop(st->base, EVLOOP_ONCE);
    }
}

static struct copy_row copy(struct stage *st, struct arena *a, uint64_t id)
{
    struct copy_row row;
    assert_int_equal(hold_copy(st->view, a, id, &row), 0);
    return row;
}

static void expect(struct stage *st, uint64_t id, enum copy_state state, uint32_t attempts,
                   int64_t wait, const char *reply)
{
    struct arena *a = arena_new();
    struct copy_row row = copy(st, a, id);
    assert_int_equal(row.state, state);
    assert_int_equal(row.attempts, attempts);
    if (state == COPY_RELEASING)
        assert_int_equal(row.next_attempt, the_time + wait);
    if (reply && (!row.reply || strncmp(row.reply, reply, strlen(reply)) != 0))
        fail_msg("%s", row.reply ? row.reply : "no reply");
    arena_free(&a);
}

static void close_stage(struct stage *st)
{
    release_free(&st->release);
    assert_null(st->release);
    keeper_stop(&st->keeper);
    mailbox_free(&st->home); /* opens what the keeper gave back */
    while (st->sink->connections)
        event_base_loop(st->base, EVLOOP_ONCE);
    hold_close(&st->view);
    evconnlistener_free(st->sink->listener);
    free(st->sink->rules);
    free(st->sink);
    st->config->release_to = st->config->release_helo = NULL;
    config_drop(&st->config);
    event_free(st->watchdog);
    event_base_free(st->base);
    free(st->data);
    for (size_t i = 0; i < RULES; i++)
        free(st->rules[i]);
    static const char *const names[] = {"hold.db", "hold.db-wal", "hold.db-shm"};
    for (size_t i = 0; i < 3; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", st->dir, names[i]);
        unlink(path);
    }
    rmdir(st->dir);
}

static void exact_bytes_to_those_released(void **state)
{
    (void)state;
    struct stage st;
    open_stage(&st, NULL);
    st.sink->transcript = evbuffer_new();
    do_it(&st, put, 1000, 3);
    do_it(&st, let_go, 1000, 2);
    begin_release(&st);
    struct release_figures f = until(&st, 2);
    assert_int_equal(f.sent, 2);
    assert_int_equal(f.attempts, 1);
    assert_int_equal(st.delivered, 1);
    assert_int_equal(st.taken, 2);
    assert_int_equal(st.ndata, sizeof message - 1 + 2); /* the line end it lacked */
    assert_int_equal(memcmp(st.data, message, sizeof message - 1), 0);
    expect(&st, 1001, COPY_RELEASED, 1, 0, "250 2.0.0 Ok: swallowed as 1");
    expect(&st, 1002, COPY_RELEASED, 1, 0, "250 2.0.0 Ok: swallowed as 1");
    expect(&st, 1003, COPY_HELD, 0, 0, NULL);
    const char said[] =
        "EHLO us.example\r\nMAIL FROM:<a@a.example> SIZE=42 RET=HDRS\r\n"
        "RCPT TO:<b@b.example> NOTIFY=NEVER\r\n"
        "RCPT TO:<c@c.example> NOTIFY=NEVER\r\nDATA\r\nSubject: x\r\n\r\n..\r\n...\r\n";
    evbuffer_add(st.sink->transcript, "", 1);
    const char *heard = (const char *)evbuffer_pullup(st.sink->transcript, -1);
    if (strncmp(heard, said, sizeof said - 1) != 0)
        fail_msg("%s", heard);
    evbuffer_free(st.sink->transcript);
    st.sink->transcript = NULL;
    until(&st, 2);
    assert_int_equal(st.delivered, 1); /* once is enough */
    close_stage(&st);
}

static void a_token_that_the_door_will_know(void **state)
{
    (void)state;
    struct stage st;
    open_stage(&st, NULL);
    st.config->release_token = true;
    hold_and_let_go(&st, 1000, 3);
    begin_release(&st);
    until(&st, 3);
    struct span line =
        span_head(span_of(st.data, st.ndata), span_find(span_of(st.data, st.ndata), '\n'));
    struct token t;
    assert_true(span_starts(line, SPAN("X-Breakwater-Release: ")));
    assert_true(token_parse(&t, span_from(line, 21)));
    assert_int_equal(t.mail, 1000);
    assert_int_equal(t.attempt, 1);
    assert_int_equal(st.ndata, line.n + 1 + sizeof message - 1 + 2);

    uint8_t sha256[32];
    uint64_t *rcpts;
    size_t n;
    struct arena *a = arena_new();
    assert_int_equal(hold_token_facts(st.view, a, t.mail, t.attempt, sha256, &rcpts, &n), 0);
    assert_int_equal(n, 3);
    assert_true(token_good(&t, st.config->site_key, sha256, rcpts, n, the_time + 20 * 60 * 1000));
    assert_false(
        token_good(&t, st.config->site_key, sha256, rcpts, n, the_time + 24 * 3600 * 1000));
    arena_free(&a);
    close_stage(&st);
}

static void what_is_not_taken_is_tried_again(void **state)
{
    (void)state;
    struct stage st;
    open_stage(&st, (const char *const[]){"rcpt:1=450 4.2.1 later", NULL});
    hold_and_let_go(&st, 1000, 1);
    begin_release(&st);
    until(&st, 1);
    expect(&st, 1001, COPY_RELEASING, 1, 60 * 1000, "450 4.2.1 later");
    the_time += 60 * 1000 - 1;
    struct release_figures f = until(&st, 1);
    event_base_loop(st.base, EVLOOP_ONCE);
    assert_int_equal(f.attempts, 1); /* not yet */
    the_time += 1;
    f = until(&st, 2);
    assert_int_equal(f.sent, 1);
    assert_int_equal(f.deferred, 1);
    expect(&st, 1001, COPY_RELEASED, 2, 0, "250 ");
    assert_int_equal(st.delivered, 1);
    close_stage(&st);
}

static void the_pause_doubles_up_to_an_hour(void **state)
{
    (void)state;
    struct stage st;
    open_stage(&st, (const char *const[]){"mail=451 4.3.0 disk", NULL});
    hold_and_let_go(&st, 1000, 1);
    begin_release(&st);
    static const int64_t minutes[] = {1, 2, 4, 8, 16, 32, 60, 60};
    for (uint32_t i = 0; i < 8; i++) {
        until(&st, i + 1);
        expect(&st, 1001, COPY_RELEASING, i + 1, minutes[i] * 60 * 1000, "451 4.3.0 disk");
        the_time += minutes[i] * 60 * 1000;
    }
    close_stage(&st);
}

static void each_copy_has_its_own_fate(void **state)
{
    (void)state;
    struct stage st;
    const char *const rules[] = {"rcpt:c@c=550 5.1.1 who?", "rcpt:d@d=450 4.2.2 full",
                                 "rcpt:3+=452 4.5.3 many", NULL};
    open_stage(&st, rules);
    hold_and_let_go(&st, 1000, 5);
    begin_release(&st);
    struct release_figures f = until(&st, 5);
    assert_int_equal(f.sent, 1);
    assert_int_equal(f.deferred, 4);
    expect(&st, 1001, COPY_RELEASED, 1, 0, "250 ");
    expect(&st, 1002, COPY_RELEASING, 1, 3600 * 1000, "550 5.1.1 who?"); /* never thrown away */
    expect(&st, 1003, COPY_RELEASING, 1, 60 * 1000, "450 4.2.2 full");
    expect(&st, 1004, COPY_RELEASING, 1, 1000, "452 4.5.3 many"); /* too many at once: go on */
    expect(&st, 1005, COPY_RELEASING, 1, 1000, "452 4.5.3 many");
    st.sink->nrules = 1;
    the_time += 1000;
    f = until(&st, 7);
    assert_int_equal(f.sent, 3);
    expect(&st, 1004, COPY_RELEASED, 2, 0, "250 ");
    expect(&st, 1005, COPY_RELEASED, 2, 0, "250 ");
    close_stage(&st);
}

static void nobody_there(void **state)
{
    (void)state;
    struct stage st;
    open_stage(&st, NULL);
    st.config->release_to = "127.0.0.1:1";
    hold_and_let_go(&st, 1000, 2);
    begin_release(&st);
    until(&st, 2);
    expect(&st, 1001, COPY_RELEASING, 1, 60 * 1000,
           "cannot connect to 127.0.0.1:1: Connection refused");
    st.config->release_to = st.sink->address;
    the_time += 60 * 1000;
    until(&st, 4);
    expect(&st, 1001, COPY_RELEASED, 2, 0, "250 ");
    close_stage(&st);
}

static void nowhere_to_release_to(void **state)
{
    (void)state;
    struct stage st;
    open_stage(&st, NULL);
    st.config->release_to = NULL;
    hold_and_let_go(&st, 1000, 1);
    begin_release(&st);
    for (int i = 0; i < 5; i++)
        until(&st, 0), event_base_loop(st.base, EVLOOP_ONCE);
    expect(&st, 1001, COPY_RELEASING, 0, 0, NULL);
    close_stage(&st);
}

static void damaged_mail_is_not_sent(void **state)
{
    (void)state;
    struct stage st;
    open_stage(&st, NULL);
    hold_and_let_go(&st, 1000, 1);
    char path[128];
    sqlite3 *db;
    snprintf(path, sizeof path, "%s/hold.db", st.dir);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    sqlite3_busy_timeout(db, 5000);
    assert_int_equal(sqlite3_exec(db, "UPDATE mail SET sha256 = zeroblob(32)", NULL, NULL, NULL),
                     SQLITE_OK);
    sqlite3_close(db);
    begin_release(&st);
    until(&st, 1);
    expect(&st, 1001, COPY_RELEASING, 1, 3600 * 1000,
           "not sent: the message in the hold database is damaged");
    assert_int_equal(st.sink->seen[SINK_CONNECT], 0);
    close_stage(&st);
}

/* In mid-transaction: what was taken may come twice, never not at all. */
static void a_stop_is_made_good(void **state)
{
    (void)state;
    static const struct {
        const char *rule;
        enum sink_event event;
        unsigned delivered;
    } cases[] = {
        {"mail:1=mute", SINK_MAIL, 1}, {"data:1=mute", SINK_DATA, 1}, {"dot:1=mute", SINK_DOT, 2}};
    for (size_t i = 0; i < 3; i++) {
        struct stage st;
        open_stage(&st, (const char *const[]){cases[i].rule, NULL});
        hold_and_let_go(&st, 1000, 2);
        begin_release(&st);
        while (!st.sink->seen[cases[i].event])
            event_base_loop(st.base, EVLOOP_ONCE);
        release_free(&st.release);
        begin_release(&st); /* the next start; no clock had to move */
        struct release_figures f = until(&st, 2);
        assert_int_equal(f.sent, 2);
        assert_int_equal(st.delivered, cases[i].delivered);
        expect(&st, 1001, COPY_RELEASED, 2, 0, "250 ");
        close_stage(&st);
    }
}

/* Freed at every turn of the loop: nothing leaks, nothing is touched (asan), nothing is lost. */
static void a_stop_at_any_moment(void **state)
{
    (void)state;
    bool last = false;
    for (int turns = 0; !last; turns++) {
        struct stage st;
        struct release_figures f = {0};
        open_stage(&st, NULL);
        hold_and_let_go(&st, 1000, 2);
        begin_release(&st);
        for (int i = 0; i < turns && f.sent < 2; i++) {
            event_base_loop(st.base, EVLOOP_ONCE);
            release_figures(st.release, &f);
        }
        last = f.sent == 2;
        release_free(&st.release);
        do_it(&st, nothing, 0, 0); /* a stop waits for the keeper */
        begin_release(&st);
        struct arena *a = arena_new();
        while (release_kick(st.release), copy(&st, a, 1001).state != COPY_RELEASED)
            event_base_loop(st.base, EVLOOP_ONCE);
        arena_free(&a);
        assert_in_range(st.delivered, 1, 2);
        close_stage(&st);
        assert_true(turns < 200);
    }
}

static void many_mails_few_at_a_time(void **state)
{
    (void)state;
    struct stage st;
    open_stage(&st, NULL);
    for (uint64_t i = 1; i <= 20; i++)
        hold_and_let_go(&st, 1000 * i, 1);
    begin_release(&st);
    struct release_figures f;
    do {
        event_base_loop(st.base, EVLOOP_ONCE);
        release_figures(st.release, &f);
        assert_true(f.inflight <= 4 && st.sink->connections <= 5);
    } while (f.sent < 20);
    assert_int_equal(st.delivered, 20);
    close_stage(&st);
}

static void no_faster_than_the_rate(void **state)
{
    (void)state;
    struct stage st;
    open_stage(&st, NULL);
    st.config->release_rate = 0.001; /* one now, the next in a quarter of an hour */
    for (uint64_t i = 1; i <= 3; i++)
        hold_and_let_go(&st, 1000 * i, 1);
    begin_release(&st);
    struct release_figures f = until(&st, 0);
    for (int i = 0; i < 20; i++) {
        f = until(&st, 0);
        event_base_loop(st.base, EVLOOP_NONBLOCK);
    }
    assert_true(f.attempts <= 1);
    until(&st, 1);
    expect(&st, 2001, COPY_RELEASING, 0, 0, NULL);
    close_stage(&st);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_bytes_to_those_released),
        cmocka_unit_test(a_token_that_the_door_will_know),
        cmocka_unit_test(what_is_not_taken_is_tried_again),
        cmocka_unit_test(the_pause_doubles_up_to_an_hour),
        cmocka_unit_test(each_copy_has_its_own_fate),
        cmocka_unit_test(nobody_there),
        cmocka_unit_test(nowhere_to_release_to),
        cmocka_unit_test(damaged_mail_is_not_sent),
        cmocka_unit_test(many_mails_few_at_a_time),
        cmocka_unit_test(no_faster_than_the_rate),
        cmocka_unit_test(a_stop_is_made_good),
        cmocka_unit_test(a_stop_at_any_moment),
    };
    signal(SIGPIPE, SIG_IGN);
    clock_set(the_clock);
    log_open("stderr", LOG_NOTHING);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
