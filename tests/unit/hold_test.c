/* hold_test.c - the hold queue: bytes in and out, states, counts, letting go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "hold.h"
#include "hold_own.h"
#include "id.h"
#include "signals.h"
#include <sqlite3.h>

#define DAY (INT64_C(86400000))
#define NOW (INT64_C(1138037000000))
/* As ids are made: 42 bits of time first. */
#define ID(n) (((uint64_t)NOW << 22) + (uint64_t)(n))

static char dir[64];
static struct hold *hold;

static int make(void **state)
{
    (void)state;
    char error[512];
    strcpy(dir, "/tmp/hold_test.XXXXXX");
    assert_non_null(mkdtemp(dir));
    hold = hold_open(dir, true, NULL, error);
    assert_non_null(hold);
    return 0;
}

static int unmake(void **state)
{
    (void)state;
    hold_close(&hold);
    static const char *const names[] = {"hold.db", "hold.db-wal", "hold.db-shm"};
    for (size_t i = 0; i < 3; i++) {
        char path[128];
        snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(dir), 0);
    return 0;
}

/* Writing a mail as a door would. */

struct draft {
    uint64_t id;
    const char *head, *body;
    const char *rcpt[4]; /* up to the first NULL */
    uint8_t k;
    bool later; /* something had passed */
    uint8_t relation;
    const char *reason, *rule;
    int64_t arrival;
};

static uint64_t hash_of(const char *rcpt)
{
    uint64_t h = 7;
    for (; *rcpt; rcpt++)
        h = h * 131 + byte_lower((uint8_t)*rcpt);
    return h;
}

static struct body *body_of(const void *p, size_t n)
{
    struct body *b = body_new(NULL, UINT64_C(1) << 30, UINT64_C(1) << 30);
    body_add(b, span_of(p, n));
    body_seal(b);
    return b;
}

static int put_body(const struct draft *d, struct body *body)
{
    struct held_copy copies[4];
    struct held_mail m = {.id = d->id,
                          .arrival = d->arrival ? d->arrival : NOW,
                          .door = SPAN("milter"),
                          .client = SPAN("192.0.2.7"),
                          .client_name = SPAN("sbs.example"),
                          .helo = SPAN("sbs"),
                          .queue_id = SPAN("4ABC"),
                          .reversepath = SPAN("Sender@A.example"),
                          .k = {{d->k}},
                          .incident = SPAN("SAAAAAAAA"),
                          .rule = span_str(d->rule ? d->rule : "duplicate"),
                          .reason = span_str(d->reason ? d->reason : "copy"),
                          .message_id = SPAN("<1@a.example>"),
                          .from = SPAN("A <a@a.example>"),
                          .subject = SPAN("Minutes"),
                          .head = span_str(d->head),
                          .body = body,
                          .copies = copies};
    for (size_t i = 0; i < 4 && d->rcpt[i]; i++)
        copies[m.ncopies++] = (struct held_copy){.id = d->id + 1 + i,
                                                 .rcpt = span_str(d->rcpt[i]),
                                                 .rcpt_hash = hash_of(d->rcpt[i]),
                                                 .relation = d->relation,
                                                 .number = 2,
                                                 .first = !d->later};
    return hold_put(hold, &m);
}

static int put(const struct draft *d)
{
    struct body *b = body_of(d->body, strlen(d->body));
    int rc = put_body(d, b);
    body_drop(&b);
    return rc;
}

/* Statements about the database. */

static void begin(void)
{
    assert_int_equal(hold_begin(hold), 0);
}

static void commit(void)
{
    assert_int_equal(hold_commit(hold), 0);
    char problem[512];
    int rc = hold_check(hold, problem);
    if (rc)
        fail_msg("%s", problem);
}

static void put_all(const struct draft *d, size_t n)
{
    begin();
    for (size_t i = 0; i < n; i++)
        assert_int_equal(put(&d[i]), 0);
    commit();
}

static void check_bytes(struct hold *h, uint64_t mail, const char *want)
{
    uint8_t *bytes, sha[32];
    size_t n;
    assert_int_equal(hold_bytes(h, mail, &bytes, &n, sha), 0);
    assert_int_equal(n, strlen(want));
    assert_memory_equal(bytes, want, n);
    free(bytes);
}

static enum copy_state state_of(uint64_t id)
{
    struct arena *a = arena_new();
    struct copy_row row;
    enum copy_state s = hold_copy(hold, a, id, &row) == 0 ? row.state : COPY_NONE;
    arena_free(&a);
    return s;
}

static void check_counts(uint64_t held, uint64_t releasing, uint64_t released, uint64_t discarded)
{
    struct hold_figures f;
    assert_int_equal(hold_figures(hold, NULL, &f), 0);
    assert_int_equal(f.copies[COPY_HELD], held);
    assert_int_equal(f.copies[COPY_RELEASING], releasing);
    assert_int_equal(f.copies[COPY_RELEASED], released);
    assert_int_equal(f.copies[COPY_DISCARDED], discarded);
}

/* Tests. */

static void test_bytes_come_back(void **state)
{
    (void)state;
    char head[3000], head2[3000];
    memset(head, 'x', sizeof(head));
    memcpy(head, "Received: one\r\n", 15);
    strcpy(head + sizeof(head) - 5, "\r\n\r\n");
    memcpy(head2, head, sizeof(head));
    memcpy(head2, "Received: two\r\n", 15);
    const struct draft d[] = {
        {ID(10), head, "body\r\n", {"<a@x>"}, .k = 0},
        {ID(20), head2, "body\r\n", {"<b@x>"}, .k = 0},        /* header as a delta, body shared */
        {ID(30), head, "body\r\n", {"<c@x>"}, .k = 0},         /* both shared */
        {ID(40), head, "another body\r\n", {"<c@x>"}, .k = 0}, /* a delta that may not pay */
        {ID(50), head, "", {"<c@x>"}, .k = 1},                 /* empty body, another message */
        {ID(60), "", "body\r\n", {"<c@x>"}, .k = 2},           /* empty header */
    };
    enum { N = sizeof(d) / sizeof(d[0]) };
    put_all(d, N);
    char error[512];
    struct hold *view = hold_open(dir, false, NULL, error);
    assert_non_null(view);
    for (size_t i = 0; i < N; i++) {
        char want[4000];
        snprintf(want, sizeof(want), "%s%s", d[i].head, d[i].body);
        check_bytes(hold, d[i].id, want);
        check_bytes(view, d[i].id, want);
    }
    hold_close(&view);
    struct hold_figures f;
    assert_int_equal(hold_figures(hold, NULL, &f), 0);
    assert_int_equal(f.mails, N);
    assert_int_equal(f.contents, 5); /* head, head2, two bodies, "" */
    assert_true(f.content_bytes < 500);
    assert_int_equal(f.oldest, NOW);
}

static void test_rows_come_back(void **state)
{
    (void)state;
    const struct draft d[] = {
        {ID(10), "h\r\n\r\n", "b", {"<A@x.example>", "b@x"}, .reason = "copy 2 of this"},
        {ID(20), "h\r\n\r\n", "b", {"<a@X.example>"}, .reason = "copy 2 of this", .later = true},
        {ID(30), "h\r\n\r\n", "b", {"<a@x.example>"}, .k = 3, .relation = REL_SAME},
    };
    put_all(d, 3);
    struct arena *a = arena_new();
    struct copy_row r;
    assert_int_equal(hold_copy(hold, a, ID(21), &r), 0);
    assert_int_equal(r.mail, ID(20));
    assert_int_equal(r.state, COPY_HELD);
    assert_int_equal(r.arrival, NOW);
    assert_int_equal(r.changed, NOW);
    assert_int_equal(r.number, 2);
    assert_false(r.first);
    assert_int_equal(r.size, 6);
    assert_int_equal(r.rcpt_hash, hash_of("<a@X.example>"));
    assert_string_equal(r.rcpt, "<a@X.example>");
    assert_string_equal(r.params, "");
    assert_string_equal(r.reversepath, "Sender@A.example");
    assert_string_equal(r.client, "192.0.2.7");
    assert_string_equal(r.client_name, "sbs.example");
    assert_string_equal(r.helo, "sbs");
    assert_string_equal(r.queue_id, "4ABC");
    assert_string_equal(r.door, "milter");
    assert_string_equal(r.incident, "SAAAAAAAA");
    assert_string_equal(r.rule, "duplicate");
    assert_string_equal(r.reason, "copy 2 of this");
    assert_string_equal(r.blamed, "");
    assert_string_equal(r.message_id, "<1@a.example>");
    assert_string_equal(r.from, "A <a@a.example>");
    assert_string_equal(r.subject, "Minutes");
    assert_string_equal(r.by, "");
    assert_int_equal(hold_copy(hold, a, ID(31), &r), 0);
    assert_int_equal(r.k.byte[0], 3);
    assert_int_equal(r.relation, REL_SAME);
    assert_int_equal(hold_copy(hold, a, ID(22), &r), -1);
    arena_free(&a);
}

static int add_id(void *arg, const struct copy_row *row)
{
    char *list = arg, one[32];
    snprintf(one, sizeof(one), " %llu", (unsigned long long)(row->id - ID(0)));
    strcat(list, one);
    return 0;
}

static void test_filters(void **state)
{
    (void)state;
    const struct draft d[] = {
        {ID(10), "h", "b", {"<a@x>", "<b@x>"}, .k = 0},
        {ID(20), "h", "b", {"A@x"}, .k = 2},
        {ID(30), "h", "b", {"<c@x>"}, .k = 0},
    };
    put_all(d, 3);
    begin();
    assert_int_equal(hold_discard_id(hold, ID(31), "me", "junk", NOW), 1);
    commit();
    static const struct {
        const char *what;
        struct hold_filter f;
        const char *ids;
    } table[] = {
        {"everything", {.state = -1}, " 11 12 21 31"},
        {"held", {.state = COPY_HELD}, " 11 12 21"},
        {"discarded", {.state = COPY_DISCARDED}, " 31"},
        {"of an incident", {.state = -1, .incident = "SAAAAAAAA"}, " 11 12 21 31"},
        {"of another incident", {.state = -1, .incident = "SBBBBBBBB"}, ""},
        {"recipient in any case", {.state = -1, .rcpt = "a@X"}, " 11 21"},
        {"recipient with brackets", {.state = -1, .rcpt = "<a@x>"}, " 11 21"},
        {"recipient is no pattern", {.state = -1, .rcpt = "%"}, ""},
        {"sender", {.state = -1, .sender = "sender@a.EXAMPLE"}, " 11 12 21 31"},
        {"another sender", {.state = -1, .sender = "sender@a"}, ""},
        {"one mail", {.state = -1, .mail = ID(10)}, " 11 12"},
        {"two at a time", {.state = -1, .limit = 2}, " 11 12"},
        {"the next two", {.state = -1, .limit = 2, .after = ID(12)}, " 21 31"},
        {"everything at once",
         {.state = COPY_HELD,
          .incident = "SAAAAAAAA",
          .rcpt = "b@x",
          .sender = "sender@a.example",
          .mail = ID(10),
          .after = ID(1),
          .limit = 5},
         " 12"},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        char list[256] = "";
        assert_int_equal(hold_each(hold, &table[i].f, add_id, list), 0);
        if (strcmp(list, table[i].ids) != 0)
            fail_msg("%s: want%s, have%s", table[i].what, table[i].ids, list);
    }
}

/* What a rule held since a time, and whose recipients had none: to take a wrong rule back. */
static void test_filters_by_rule(void **state)
{
    (void)state;
    const uint64_t old = id_of_time(NOW - 1000), new = id_of_time(NOW);
    const struct draft d[] = {
        {old + 10, "h", "b", {"<a@x>"}, .k = 1, .rule = "wrong"},
        {new + 10, "h", "b", {"<a@x>", "<b@x>"}, .k = 2, .rule = "wrong"},
        {new + 20, "h", "b", {"<a@x>"}, .k = 3},
        {new + 30, "h", "b", {"<a@x>"}, .k = 2, .rule = "wrong", .later = true},
    };
    static const struct {
        struct hold_filter f;
        int copies;
    } table[] = {
        {{.state = -1, .rule = "wrong"}, 4},
        {{.state = -1, .rule = "WRONG"}, 0},
        {{.state = -1, .rule = "wrong", .since = NOW - 1000}, 4},
        {{.state = -1, .rule = "wrong", .since = NOW - 999}, 3},
        {{.state = -1, .rule = "wrong", .since = NOW}, 3},
        {{.state = -1, .rule = "wrong", .since = NOW + 1}, 0},
        {{.state = -1, .rule = "wrong", .since = NOW, .first = true}, 2},
        {{.state = -1, .since = NOW}, 4},
        {{.state = -1, .rule = "duplicate", .since = 1}, 1},
    };
    put_all(d, 4);
    begin();
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        assert_int_equal(hold_release_filter(hold, &table[i].f, "x", NOW, true), table[i].copies);
    assert_int_equal(hold_release_filter(hold, &table[6].f, "x", NOW, false), 2);
    commit();
    assert_int_equal(state_of(new + 11), COPY_RELEASING);
    assert_int_equal(state_of(new + 31), COPY_HELD);
    assert_int_equal(state_of(old + 11), COPY_HELD);
}

static void test_states(void **state)
{
    (void)state;
    const struct draft d[] = {{ID(10), "h", "b", {"<a@x>", "<b@x>", "<c@x>"}, .k = 0}};
    put_all(d, 1);
    begin();
    assert_int_equal(hold_undo_id(hold, ID(11), NOW), 0); /* nothing to undo */
    assert_int_equal(hold_release_id(hold, ID(11), "anna", NOW + 5), 1);
    assert_int_equal(hold_release_id(hold, ID(11), "bert", NOW + 6), 0); /* done already */
    assert_int_equal(hold_discard_id(hold, ID(11), "bert", "no", NOW + 6), 0);
    assert_int_equal(hold_discard_id(hold, ID(12), "bert", "no", NOW + 6), 1);
    assert_int_equal(hold_release_id(hold, ID(12), "bert", NOW + 7), 0);
    assert_int_equal(hold_release_id(hold, ID(99), "bert", NOW + 7), 0); /* is none */
    commit();
    check_counts(1, 1, 0, 1);
    struct arena *a = arena_new();
    struct copy_row r;
    assert_int_equal(hold_copy(hold, a, ID(11), &r), 0);
    assert_string_equal(r.by, "anna");
    assert_int_equal(r.changed, NOW + 5);
    assert_int_equal(hold_copy(hold, a, ID(12), &r), 0);
    assert_string_equal(r.by, "bert");
    assert_string_equal(r.why, "no");
    begin();
    assert_int_equal(hold_undo_id(hold, ID(11), NOW + 8), 1);
    assert_int_equal(hold_undo_id(hold, ID(12), NOW + 8), 1);
    assert_int_equal(hold_undo_id(hold, ID(12), NOW + 8), 0);
    commit();
    check_counts(3, 0, 0, 0);
    assert_int_equal(hold_copy(hold, a, ID(12), &r), 0);
    assert_string_equal(r.by, "");
    arena_free(&a);
}

static void test_attempts(void **state)
{
    (void)state;
    const struct draft d[] = {{ID(10), "h", "b", {"<a@x>", "<b@x>", "<c@x>"}, .k = 0},
                              {ID(20), "h", "b", {"<a@x>"}, .k = 0}};
    put_all(d, 2);
    uint64_t due[4];
    uint8_t sha[32];
    uint64_t *rcpts;
    size_t n;
    struct arena *a = arena_new();
    begin();
    assert_int_equal(hold_due(hold, NOW, due, 4), 0);
    assert_int_equal(hold_attempt(hold, ID(10), NOW, NOW + 60), -1); /* nothing is due */
    assert_int_equal(hold_token_facts(hold, a, ID(10), 1, sha, &rcpts, &n), -1);
    assert_int_equal(hold_release_id(hold, ID(21), "x", NOW), 1);
    assert_int_equal(hold_release_id(hold, ID(11), "x", NOW), 1);
    assert_int_equal(hold_release_id(hold, ID(12), "x", NOW), 1);
    assert_int_equal(hold_due(hold, NOW - 1, due, 4), 0);
    assert_int_equal(hold_due(hold, NOW, due, 4), 2);
    assert_int_equal(due[0], ID(10)); /* oldest first */
    assert_int_equal(due[1], ID(20));
    assert_int_equal(hold_due(hold, NOW, due, 1), 1);
    assert_int_equal(hold_attempt(hold, ID(10), NOW, NOW + 60), 1);
    assert_int_equal(hold_due(hold, NOW, due, 4), 1); /* under way */
    assert_int_equal(hold_due(hold, NOW + 60, due, 4), 2);
    assert_int_equal(hold_token_facts(hold, a, ID(10), 1, sha, &rcpts, &n), 0);
    assert_int_equal(n, 2);
    assert_int_equal(rcpts[0] + rcpts[1], hash_of("<a@x>") + hash_of("<b@x>"));
    assert_int_equal(hold_undo_id(hold, ID(11), NOW + 1), 0); /* an attempt is under way */
    assert_int_equal(hold_token_use(hold, ID(10), 1), 1);
    assert_int_equal(hold_token_use(hold, ID(10), 1), 0); /* once only */
    assert_int_equal(hold_token_use(hold, ID(10), 2), 0);
    assert_int_equal(hold_token_use(hold, ID(20), 1), 0);
    assert_int_equal(hold_released(hold, ID(11), "250 ok", NOW + 2), 1);
    assert_int_equal(hold_released(hold, ID(11), "250 ok", NOW + 2), 0);
    assert_int_equal(hold_deferred(hold, ID(12), "451 later", NOW + 100), 1);
    assert_int_equal(hold_deferred(hold, ID(11), "451 later", NOW + 100), 0);
    assert_int_equal(hold_attempt(hold, ID(10), NOW + 99, NOW + 200), -1);
    assert_int_equal(hold_attempt(hold, ID(10), NOW + 100, NOW + 200), 2);
    assert_int_equal(hold_token_facts(hold, a, ID(10), 2, sha, &rcpts, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(hold_deferred(hold, ID(12), "451 later", NOW + 300), 1);
    assert_int_equal(hold_undo_id(hold, ID(12), NOW + 250), 1); /* between two attempts */
    commit();
    check_counts(2, 1, 1, 0);
    arena_free(&a);
}

static bool veto(void *arg, const struct key *k, uint64_t rcpt)
{
    return k->byte[0] == 1 && rcpt == hash_of(arg);
}

static void test_one_each(void **state)
{
    (void)state;
    const struct draft d[] = {
        {ID(10), "h", "b", {"<none@x>", "<got@x>", "<veto@x>"}, .k = 1},
        {ID(20), "h", "b", {"<none@x>", "<had@x>", "<bin@x>"}, .k = 1},
        {ID(30), "h", "b", {"<none@x>", "<got@x>", "<bin@x>"}, .k = 1},
        {ID(40), "h", "b", {"<passed@x>"}, .k = 1, .later = true},
        {ID(50), "h", "b", {"<none@x>"}, .k = 2}, /* another message, the same incident */
    };
    put_all(d, 5);
    begin();
    assert_int_equal(hold_release_id(hold, ID(12), "x", NOW), 1);
    assert_int_equal(hold_attempt(hold, ID(10), NOW, NOW), 1);
    assert_int_equal(hold_released(hold, ID(12), "250", NOW), 1);     /* got@x */
    assert_int_equal(hold_release_id(hold, ID(22), "x", NOW), 1);     /* had@x */
    assert_int_equal(hold_discard_id(hold, ID(23), "x", "", NOW), 1); /* bin@x: one is left */
    char v[] = "<veto@x>";
    assert_int_equal(hold_release_one_each(hold, "SAAAAAAAA", "x", NOW, veto, v, true), 3);
    assert_int_equal(state_of(ID(11)), COPY_HELD);
    assert_int_equal(hold_release_one_each(hold, "SAAAAAAAA", "x", NOW, veto, v, false), 3);
    assert_int_equal(hold_release_one_each(hold, "SAAAAAAAA", "x", NOW, veto, v, false), 0);
    assert_int_equal(hold_release_one_each(hold, "SBBBBBBBB", "x", NOW, NULL, NULL, false), 0);
    commit();
    assert_int_equal(state_of(ID(11)), COPY_RELEASING); /* the oldest */
    assert_int_equal(state_of(ID(21)), COPY_HELD);
    assert_int_equal(state_of(ID(33)), COPY_RELEASING);
    assert_int_equal(state_of(ID(51)), COPY_RELEASING);
    assert_int_equal(state_of(ID(13)), COPY_HELD);
    assert_int_equal(state_of(ID(41)), COPY_HELD);
}

static void test_bulk(void **state)
{
    (void)state;
    const struct draft d[] = {
        {ID(10), "h", "b", {"<a@x>", "<b@x>"}, .k = 0},
        {ID(20), "h", "b", {"<a@x>"}, .relation = REL_SAME},
        {ID(30), "h", "b", {"<a@x>"}, .k = 0},
    };
    put_all(d, 3);
    const struct hold_filter a = {.state = -1, .rcpt = "a@x"}, all = {.state = -1},
                             released = {.state = COPY_RELEASED},
                             same = {.state = COPY_HELD, .mail = ID(20)};
    begin();
    assert_int_equal(hold_release_filter(hold, &released, "x", NOW, false), 0);
    assert_int_equal(hold_release_filter(hold, &a, "x", NOW, true), 3);
    assert_int_equal(hold_discard_filter(hold, &a, "x", "y", NOW, true), 2);
    assert_int_equal(hold_discard_filter(hold, &all, "x", "y", NOW, false), 3);
    assert_int_equal(state_of(ID(21)), COPY_HELD); /* may be the only copy */
    assert_int_equal(hold_discard_filter(hold, &same, "x", "y", NOW, false), 1);
    assert_int_equal(hold_release_filter(hold, &all, "x", NOW, false), 0);
    assert_int_equal(hold_undo_id(hold, ID(31), NOW), 1);
    assert_int_equal(hold_release_filter(hold, &all, "x", NOW, false), 1);
    commit();
    check_counts(0, 1, 0, 3);
}

static void test_unput(void **state)
{
    (void)state;
    const struct draft d[] = {{ID(10), "head", "body", {"<a@x>", "<b@x>"}, .k = 0},
                              {ID(20), "head 2", "body", {"<a@x>"}, .k = 0}};
    put_all(d, 2);
    begin();
    assert_int_equal(hold_unput(hold, ID(10)), 0);
    assert_int_equal(hold_unput(hold, ID(99)), 0);
    commit();
    check_bytes(hold, ID(20), "head 2body");
    assert_int_equal(state_of(ID(11)), COPY_NONE);
    begin();
    assert_int_equal(hold_unput(hold, ID(20)), 0);
    commit();
    struct hold_figures f;
    assert_int_equal(hold_figures(hold, NULL, &f), 0);
    assert_int_equal(f.mails + f.contents + f.content_bytes + f.copies[COPY_HELD], 0);
    put_all(d, 2); /* caches hold nothing that is gone */
    check_bytes(hold, ID(10), "headbody");
}

static void test_purge(void **state)
{
    (void)state;
    const struct draft d[] = {{ID(10), "head", "body", {"<a@x>", "<b@x>"}, .k = 0},
                              {ID(20), "head", "other", {"<a@x>"}, .k = 0},
                              {ID(30), "third", "x", {"<c@x>"}, .k = 9}};
    put_all(d, 3);
    begin();
    assert_int_equal(hold_discard_id(hold, ID(11), "x", "y", NOW), 1);
    assert_int_equal(hold_release_id(hold, ID(12), "x", NOW), 1);
    assert_int_equal(hold_released(hold, ID(12), "250", NOW), 1);
    assert_int_equal(hold_discard_id(hold, ID(31), "x", "y", NOW + DAY), 1);
    assert_int_equal(hold_purge(hold, NOW + 30 * DAY - 1), 0);
    assert_int_equal(hold_purge(hold, NOW + 30 * DAY), 2);
    commit();
    assert_int_equal(state_of(ID(11)), COPY_NONE);
    assert_int_equal(state_of(ID(12)), COPY_RELEASED); /* the record */
    uint8_t *bytes, sha[32];
    size_t n;
    assert_int_equal(hold_bytes(hold, ID(10), &bytes, &n, sha), -1); /* its bytes are gone */
    check_bytes(hold, ID(20), "headother");
    check_bytes(hold, ID(30), "thirdx");
    begin();
    assert_int_equal(hold_purge(hold, NOW + 31 * DAY), 1);
    assert_int_equal(hold_purge(hold, NOW + 3100 * DAY), 0); /* held copies stay for ever */
    commit();
    assert_int_equal(state_of(ID(31)), COPY_NONE);
    assert_int_equal(state_of(ID(21)), COPY_HELD);
}

static void test_large(void **state)
{
    (void)state;
    enum { SIZE = 20 << 20 };
    uint8_t *big = malloc(SIZE);
    assert_non_null(big);
    uint32_t x = 1;
    for (size_t i = 0; i < SIZE; i++) {
        x = x * 1664525 + 1013904223;
        big[i] = (uint8_t)(x >> 24 & (i < SIZE / 2 ? 0x3f : 0xff));
    }
    /* Above and below the size of one row; the small one twice, with another last byte. */
    static const struct {
        uint64_t id;
        size_t n;
    } table[] = {{ID(10), SIZE}, {ID(20), SIZE}, {ID(30), 6 << 20}, {ID(40), (6 << 20) - 1}};
    begin();
    for (size_t i = 0; i < 4; i++) {
        struct draft d = {table[i].id, "head\r\n\r\n", NULL, {"<a@x>"}, .k = (uint8_t)(i / 2)};
        struct body *b = body_of(big, table[i].n);
        assert_int_equal(put_body(&d, b), 0);
        body_drop(&b);
    }
    commit();
    for (size_t i = 0; i < 4; i++) {
        uint8_t *bytes, sha[32];
        size_t n;
        assert_int_equal(hold_bytes(hold, table[i].id, &bytes, &n, sha), 0);
        assert_int_equal(n, table[i].n + 8);
        assert_memory_equal(bytes + 8, big, table[i].n);
        free(bytes);
    }
    struct hold_figures f;
    assert_int_equal(hold_figures(hold, NULL, &f), 0);
    assert_true(f.content_bytes < SIZE + (6 << 20)); /* each once */
    begin();
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(hold_unput(hold, table[i].id), 0);
    commit();
    free(big);
}

static void test_rollback(void **state)
{
    (void)state;
    const struct draft a = {ID(10), "head a", "body a", {"<a@x>"}, .k = 1},
                       b = {ID(20), "head b", "body b", {"<a@x>"}, .k = 1},
                       twice = {ID(20), "head c", "body c", {"<b@x>"}, .k = 1};
    begin();
    assert_int_equal(put(&a), 0);
    hold_rollback(hold);
    begin();
    assert_int_equal(put(&b), 0);
    assert_int_equal(hold_savepoint(hold), 0);
    assert_int_equal(put(&twice), -1); /* breaks off halfway */
    hold_undo_savepoint(hold);
    assert_int_equal(hold_savepoint(hold), 0);
    assert_int_equal(put(&a), 0);
    assert_int_equal(hold_release_savepoint(hold), 0);
    commit();
    check_bytes(hold, ID(10), "head abody a");
    check_bytes(hold, ID(20), "head bbody b");
    begin();
    assert_int_equal(put(&twice), -1);
    assert_int_equal(hold_commit(hold), -1); /* nothing half-done is ever committed */
    check_counts(2, 0, 0, 0);
}

static int one_incident(void *arg, const char *id, const char *json)
{
    char *list = arg;
    strcat(strcat(strcat(list, id), json), " ");
    return 0;
}

static void test_documents(void **state)
{
    (void)state;
    char list[256] = "", value[16];
    begin();
    assert_int_equal(hold_save_incident(hold, "SB", NOW, NOW + 2, "{2}"), 0);
    assert_int_equal(hold_save_incident(hold, "SA", NOW, NOW + 1, "{1}"), 0);
    assert_int_equal(hold_save_incident(hold, "SA", NOW, NOW + 3, "{3}"), 0);
    assert_int_equal(hold_audit(hold, NOW, "me", "did", NULL), 0);
    assert_int_equal(hold_setting_set(hold, "mode", "monitor"), 0);
    assert_int_equal(hold_setting_set(hold, "mode", "enforce"), 0);
    commit();
    assert_int_equal(hold_each_incident(hold, 0, 9, one_incident, list), 0);
    assert_string_equal(list, "SA{3} SB{2} ");
    list[0] = 0;
    assert_int_equal(hold_each_incident(hold, 0, 1, one_incident, list), 0);
    assert_string_equal(list, "SA{3} ");
    list[0] = 0;
    assert_int_equal(hold_each_incident(hold, NOW + 4, 9, one_incident, list), 0);
    assert_string_equal(list, "");
    char *json = NULL;
    uint64_t n = 0;
    assert_int_equal(hold_incident(hold, "SA", &json), 1);
    assert_string_equal(json, "{3}");
    free(json);
    assert_int_equal(hold_incident(hold, "SC", &json), 0);
    assert_int_equal(hold_incidents(hold, &n), 0);
    assert_int_equal(n, 2);
    assert_int_equal(hold_setting_get(hold, "mode", value, sizeof(value)), 0);
    assert_string_equal(value, "enforce");
    assert_int_equal(hold_setting_get(hold, "mode", value, 4), -1);
    assert_int_equal(hold_setting_get(hold, "none", value, sizeof(value)), -1);
}

/* What an incident was is kept as long as something of it is held; then 30 days, a storm 400. */
static void test_incidents_go(void **state)
{
    (void)state;
    static const struct {
        const char *what, *id, *json;
        int64_t age; /* days */
        bool stays;
    } cases[] = {
        {"29 days old", "S0", "{}", 29, true},
        {"31 days old", "S1", "{}", 31, false},
        {"31 days old, not a storm", "S2", "{\"storm\":false}", 31, false},
        {"a storm, 399 days old", "S3", "{\"id\":1,\"storm\":true}", 399, true},
        {"a storm, 401 days old", "S4", "{\"storm\":true}", 401, false},
        {"one who would be a storm", "S5", "{\"subject\":\"\\\"storm\\\":true\"}", 31, false},
        {"31 days old, with a copy held", "SAAAAAAAA", "{}", 31, true},
    };
    enum { N = sizeof cases / sizeof *cases };
    struct draft d = {.id = ID(10), .head = "a", .body = "b", .rcpt = {"a@b.example"}};
    begin();
    assert_int_equal(put(&d), 0);
    for (size_t i = 0; i < N; i++)
        assert_int_equal(hold_save_incident(hold, cases[i].id, NOW - cases[i].age * DAY,
                                            NOW - cases[i].age * DAY, cases[i].json),
                         0);
    assert_int_equal(hold_purge(hold, NOW), 4);
    assert_int_equal(hold_purge(hold, NOW), 0);
    commit();
    for (size_t i = 0; i < N; i++) {
        char *json = NULL;
        if (hold_incident(hold, cases[i].id, &json) != cases[i].stays)
            fail_msg("%s: %s", cases[i].what, cases[i].stays ? "is gone" : "is there");
        free(json);
    }
}

static void check_damaged(uint64_t mail, int want)
{
    uint8_t *bytes, sha[32];
    size_t n;
    int rc = hold_bytes(hold, mail, &bytes, &n, sha);
    assert_int_equal(rc, want);
    if (rc == 0)
        free(bytes);
}

/* A damaged reference: what needs it is said to be damaged and stays; when its bytes come again,
 * all of it is whole again. */
static void test_damaged_reference(void **state)
{
    (void)state;
    static const char text[] = "The minutes of the meeting of the parish council of Much Wenlock, "
                               "held on 23 January 2006 at 7 pm in the Guildhall.\r\n";
    static const char changed[] = "The minutes of the meeting of the parish council of Much "
                                  "Wenlock, held on 23 January 2006 at 7 pm in the Guildhall.\r\n"
                                  "-- \r\nfooter 2\r\n";
    const struct draft first[] = {{.id = ID(10), "a: 1\r\n\r\n", text, {"<a@x>"}, .k = 1},
                                  {.id = ID(20), "a: 2\r\n\r\n", changed, {"<b@x>"}, .k = 1}};
    const struct draft other = {.id = ID(30), "a: 3\r\n\r\n", changed, {"<c@x>"}, .k = 2};
    const struct draft again = {.id = ID(40), "a: 4\r\n\r\n", text, {"<d@x>"}, .k = 1};
    put_all(first, 2);
    hold_close(&hold);
    char path[128], error[512], list[64] = "";
    sqlite3 *db;
    snprintf(path, sizeof(path), "%s/hold.db", dir);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db,
                                  "UPDATE content SET bytes = zeroblob(length(bytes))"
                                  " WHERE id = (SELECT body FROM storm)",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_changes(db), 1);
    sqlite3_close(db);
    hold = hold_open(dir, true, NULL, error);
    assert_non_null(hold);
    check_damaged(ID(10), -2);
    check_damaged(ID(20), -2);

    begin(); /* a release that cannot go on */
    assert_int_equal(hold_release_id(hold, ID(11), "me", NOW), 1);
    assert_int_equal(hold_attempt(hold, ID(10), NOW, NOW + 1000), 1);
    assert_int_equal(hold_deferred(hold, ID(11), "damaged", NOW + 1000), 1);
    assert_int_equal(hold_purge(hold, NOW + 40 * DAY), 0);
    commit();
    struct hold_filter all = {.state = -1};
    assert_int_equal(hold_each(hold, &all, add_id, list), 0);
    assert_string_equal(list, " 11 21");
    check_counts(1, 1, 0, 0);

    put_all(&other, 1); /* of the damaged delta */
    check_bytes(hold, ID(30),
                "a: 3\r\n\r\nThe minutes of the meeting of the parish council of Much "
                "Wenlock, held on 23 January 2006 at 7 pm in the Guildhall.\r\n"
                "-- \r\nfooter 2\r\n");
    check_damaged(ID(20), 0);
    check_damaged(ID(10), -2);
    put_all(&again, 1); /* of the reference itself */
    check_damaged(ID(10), 0);
    check_damaged(ID(40), 0);
}

static void test_refusals(void **state)
{
    (void)state;
    char error[512] = "", path[128];
    assert_null(hold_open("/nonexistent/hold", true, NULL, error));
    assert_non_null(strstr(error, "is not a directory"));
    assert_null(hold_open("/nonexistent/hold", false, NULL, error));
    assert_null(hold_open("/proc", true, NULL, error));
    assert_non_null(strstr(error, "/proc/hold.db"));
    hold_close(&hold);
    sqlite3 *db;
    snprintf(path, sizeof(path), "%s/hold.db", dir);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA user_version = 99", NULL, NULL, NULL), SQLITE_OK);
    assert_null(hold_open(dir, true, NULL, error));
    assert_non_null(strstr(error, "newer"));
    assert_null(hold_open(dir, false, NULL, error));
    assert_int_equal(
        sqlite3_exec(db, "PRAGMA user_version = 1; PRAGMA application_id = 7", NULL, NULL, NULL),
        SQLITE_OK);
    assert_null(hold_open(dir, true, NULL, error));
    assert_non_null(strstr(error, "another program"));
    sqlite3_close(db);
}

struct storms {
    unsigned n, wrong;
    uint8_t order[8];
};

static void note_storm(void *arg, const struct key *k, struct span bytes)
{
    struct storms *s = arg;
    s->order[s->n++ % 8] = k->byte[0];
    s->wrong += !span_eq(bytes, SPAN("of the second saving"));
}

static void test_storms_are_kept_for_400_days_and_damage_is_seen(void **state)
{
    (void)state;
    struct storms s = {0};
    uint64_t damaged;
    const struct key a = {{1}}, b = {{2}}, c = {{3}}, foreign = {{4}};
    assert_int_equal(hold_save_memory(hold, &a, 7, NOW + DAY, SPAN("of the second saving")), 0);
    assert_int_equal(hold_save_memory(hold, &b, 7, NOW, SPAN("first")), 0);
    assert_int_equal(hold_save_memory(hold, &b, 7, NOW + 2 * DAY, SPAN("of the second saving")), 0);
    assert_int_equal(hold_save_memory(hold, &c, 7, NOW, SPAN("of the second saving")), 0);
    assert_int_equal(hold_save_memory(hold, &foreign, 8, NOW, SPAN("of another key")), 0);
    assert_int_equal(hold_each_memory(hold, 7, note_storm, &s, &damaged), 0);
    assert_int_equal(s.n, 3);
    assert_int_equal(s.wrong, 0);
    assert_int_equal(damaged, 0);
    assert_memory_equal(s.order, ((uint8_t[]){3, 1, 2}), 3); /* the oldest first */
    /* SQLite would not see this */
    assert_int_equal(db_script(&hold->db, "UPDATE memory SET bytes = CAST('of the second saxing' AS"
                                          " BLOB) || substr(bytes, -4) WHERE k = X'"
                                          "010000000000000000000000'"),
                     0);
    s = (struct storms){0};
    assert_int_equal(hold_each_memory(hold, 7, note_storm, &s, &damaged), 0);
    assert_int_equal(s.n, 2);
    assert_int_equal(s.wrong, 0);
    assert_int_equal(damaged, 1);
    assert_int_equal(hold_purge(hold, NOW + 400 * DAY), 0);
    assert_int_equal(hold_purge(hold, NOW + 400 * DAY + 1), 2);
    assert_int_equal(hold_purge(hold, NOW + 500 * DAY), 2);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, make, unmake)
    const struct CMUnitTest tests[] = {
        T(test_storms_are_kept_for_400_days_and_damage_is_seen),
        T(test_bytes_come_back),
        T(test_rows_come_back),
        T(test_filters),
        T(test_filters_by_rule),
        T(test_states),
        T(test_attempts),
        T(test_one_each),
        T(test_bulk),
        T(test_unput),
        T(test_purge),
        T(test_large),
        T(test_rollback),
        T(test_documents),
        T(test_incidents_go),
        T(test_damaged_reference),
        T(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
