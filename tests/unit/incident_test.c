/* incident_test.c - storms in memory: what opens one, what a document says, bounds, and that a
 * restart takes the past in instead of writing over it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/thread.h>

#include "incident.h"
#include "log.h"

enum { HOUR = 3600 * 1000 };
static const int64_t T = 1140000000000; /* February 2006 */

static struct key key_of(uint32_t n)
{
    struct key k = {{0}};
    memcpy(k.byte, &n, sizeof n);
    k.byte[11] = 1;
    return k;
}

/* A storm's note: the common case, to be varied. */
static struct incident_note note(uint32_t k)
{
    return (struct incident_note){.k = key_of(k),
                                  .now = T,
                                  .passed = 1,
                                  .held = 3,
                                  .recipients_visible = 630,
                                  .from = SPAN("sales@a.example"),
                                  .subject = SPAN("offer")};
}

/* A store that knows one message. */
static struct report known;
static bool knows;
static bool answer(struct store *s, const struct key *k, struct arena *a, struct report *out)
{
    (void)s;
    (void)k;
    (void)a;
    *out = known;
    return knows;
}
static const struct store_ops ops = {.name = "test", .report = answer};
static struct store store = {&ops};

static void id_of(uint32_t k, char out[INCIDENT_TEXT])
{
    struct key key = key_of(k);
    incident_print(&key, out);
}

static json_t *read_document(struct incidents *t, uint32_t k, int64_t now)
{
    char id[INCIDENT_TEXT];
    id_of(k, id);
    return incident_document(t, id, now);
}

static void what_opens(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        struct incident_note n;
        bool opens;
    } cases[] = {
        {"further copies that pass open nothing", {.passed = 5}, false},
        {"tagged ones neither", {.tagged = 5}, false},
        {"a held copy does", {.held = 1}, true},
        {"one that would be held does, in monitor mode", {.passed = 1, .would_hold = 1}, true},
        {"a storm does, though all copies pass", {.passed = 1, .storm = true}, true},
        {"a turn in the path does",
         {.kind = INCIDENT_LOOP, .passed = 1, .evidence = "a b a"},
         true},
        {"a loop without a turn does not", {.kind = INCIDENT_LOOP, .passed = 1}, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct incidents *t = incidents_new(NULL, NULL);
        struct incident_note n = cases[i].n;
        n.k = key_of(1);
        n.now = T;
        if (incidents_note(t, &n) != cases[i].opens || incidents_open(t, T) != cases[i].opens)
            fail_msg("%s", cases[i].name);
        incidents_free(&t);
    }
}

static void news_once(void **state)
{
    (void)state;
    struct incidents *t = incidents_new(NULL, NULL);
    struct incident_note n = note(1);
    assert_true(incidents_note(t, &n));
    assert_false(incidents_note(t, &n));
    n.storm = true;
    assert_true(incidents_note(t, &n));
    assert_false(incidents_note(t, &n));
    incidents_free(&t);
    assert_null(t);
}

static void a_document_adds_up(void **state)
{
    (void)state;
    struct incidents *t = incidents_new(NULL, NULL);
    struct incident_note n = note(7);
    incidents_note(t, &n);
    n.now += 5000;
    n.subject = SPAN("another subject must not replace the first");
    incidents_note(t, &n);
    json_t *j = read_document(t, 7, T + 6000);
    assert_string_equal(json_get_str(j, "kind"), "replication");
    assert_string_equal(json_get_str(j, "subject"), "offer");
    assert_int_equal(json_get_num(j, "copies"), 8);
    assert_int_equal(json_get_num(j, "held"), 6);
    assert_int_equal(json_get_num(j, "visible"), 630);
    assert_int_equal(json_ms(json_object_get(j, "first")), T);
    assert_int_equal(json_ms(json_object_get(j, "last")), T + 5000);
    assert_int_equal(json_array_size(json_object_get(j, "culprits")), 0);
    json_decref(j);
    assert_null(read_document(t, 8, T));
    incidents_free(&t);
}

static void states_follow_the_last_copy(void **state)
{
    (void)state;
    static const struct {
        int64_t later;
        const char *state;
        size_t open;
    } cases[] = {
        {0, "open", 1},           {HOUR - 1, "open", 1},
        {HOUR, "quiet", 0},       {24 * HOUR - 1, "quiet", 0},
        {24 * HOUR, "closed", 0}, {-HOUR, "open", 1}, /* a clock that ran back */
    };
    struct incidents *t = incidents_new(NULL, NULL);
    struct incident_note n = note(1);
    incidents_note(t, &n);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *j = read_document(t, 1, T + cases[i].later);
        assert_string_equal(json_get_str(j, "state"), cases[i].state);
        assert_int_equal(incidents_open(t, T + cases[i].later), cases[i].open);
        json_object_set_new(j, "state", json_string("stale"));
        incident_restate(j, T + cases[i].later);
        assert_string_equal(json_get_str(j, "state"), cases[i].state);
        json_decref(j);
    }
    incidents_free(&t);
}

static void the_store_is_merged_and_outlived(void **state)
{
    (void)state;
    const char *evidence[] = {"1", "2", "3", "4"};
    struct culprit culprits[CULPRITS_MAX];
    for (size_t i = 0; i < CULPRITS_MAX; i++)
        culprits[i] = (struct culprit){.relay = SPAN("sbs.example[192.0.2.7]"),
                                       .named = i == 0,
                                       .score = 14.04,
                                       .detours = 504,
                                       .grade = "seen directly",
                                       .evidence = evidence,
                                       .nevidence = 4};
    known = (struct report){.first = T - 9000,
                            .copies = 4769,
                            .passed = 6,
                            .recipients = 3,
                            .without = 1,
                            .storm = true,
                            .culprits = culprits,
                            .nculprits = CULPRITS_MAX};
    struct incidents *t = incidents_new(&store, NULL);
    struct incident_note n = note(1);
    incidents_note(t, &n);
    for (knows = true;; knows = false) { /* the second time the store has forgotten */
        json_t *j = read_document(t, 1, T);
        json_t *list = json_object_get(j, "culprits"), *c = json_array_get(list, 0);
        assert_int_equal(json_get_num(j, "recipients"), 3);
        assert_int_equal(json_get_num(j, "without"), 1);
        assert_int_equal(json_array_size(list), CULPRITS_MAX);
        assert_true(json_get_yes(c, "named"));
        assert_int_equal(json_get_num(c, "copies"), 504);
        assert_int_equal(json_array_size(json_object_get(c, "evidence")), 4);
        assert_true(json_is_null(json_object_get(c, "conviction")));
        assert_int_equal(json_get_num(j, "copies"), knows ? 4769 : 4);
        assert_int_equal(json_get_num(j, "copies"), json_get_num(j, "passed") +
                                                        json_get_num(j, "tagged") +
                                                        json_get_num(j, "held"));
        json_decref(j);
        if (!knows)
            break;
    }
    incidents_free(&t);
}

static void hostile_text_is_still_json(void **state)
{
    (void)state;
    struct incidents *t = incidents_new(NULL, NULL);
    struct incident_note n = note(1);
    char longer[5000];
    memset(longer, 0xc3, sizeof longer);
    n.subject = span_of(longer, sizeof longer);
    n.from = SPAN("\"\\\x1b[2J\xff\xc0\x80\xed\xa0\x80\xf5\n");
    incidents_note(t, &n);
    json_t *j = read_document(t, 1, T);
    char *text = json_line(j);
    json_t *again = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(again);
    assert_null(strchr(text, '\n'));
    assert_null(strchr(text, 0x1b));
    assert_true(strlen(text) < 4096);
    json_decref(again);
    free(text);
    json_decref(j);
    incidents_free(&t);
}

static void evidence_is_bounded_and_distinct(void **state)
{
    (void)state;
    struct incidents *t = incidents_new(NULL, NULL);
    struct incident_note n = note(1);
    n.kind = INCIDENT_LOOP;
    for (int i = 0; i < 100; i++) {
        char sentence[32];
        snprintf(sentence, sizeof sentence, "turn %d", i / 10);
        n.evidence = sentence;
        incidents_note(t, &n);
    }
    json_t *j = read_document(t, 1, T);
    json_t *list = json_object_get(j, "evidence");
    assert_int_equal(json_array_size(list), 8);
    assert_string_equal(json_string_value(json_array_get(list, 7)), "turn 7");
    json_decref(j);
    incidents_free(&t);
}

static void a_loop_that_hands_out_copies_is_replication(void **state)
{
    (void)state;
    static const struct {
        enum incident_kind first, second;
        const char *kind;
    } cases[] = {
        {INCIDENT_LOOP, INCIDENT_LOOP, "loop"},
        {INCIDENT_LOOP, INCIDENT_REPLICATION, "replication"},
        {INCIDENT_REPLICATION, INCIDENT_LOOP, "replication"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct incidents *t = incidents_new(NULL, NULL);
        struct incident_note n = note(1);
        n.kind = cases[i].first;
        incidents_note(t, &n);
        n.kind = cases[i].second;
        incidents_note(t, &n);
        json_t *j = read_document(t, 1, T);
        assert_string_equal(json_get_str(j, "kind"), cases[i].kind);
        json_decref(j);
        incidents_free(&t);
    }
}

static void the_table_is_bounded(void **state)
{
    (void)state;
    struct incidents *t = incidents_new(NULL, NULL);
    for (uint32_t k = 0; k < 300; k++) {
        struct incident_note n = note(k);
        n.now = T + (k == 0 ? 1000 : k);
        incidents_note(t, &n);
    }
    json_t *list = incidents_list(t, T);
    assert_int_equal(json_array_size(list), 256);
    int64_t before = INT64_MAX;
    for (size_t i = 0; i < json_array_size(list); i++) {
        int64_t last = json_ms(json_object_get(json_array_get(list, i), "last"));
        assert_true(last <= before);
        before = last;
    }
    json_decref(list);
    json_t *kept = read_document(t, 0, T); /* the oldest, but not the longest quiet */
    assert_non_null(kept);
    json_decref(kept);
    assert_null(read_document(t, 1, T));
    incidents_free(&t);
}

/* ---- saving ---- */

struct saving {
    char dir[64];
    struct event_base *base;
    struct mailbox *home;
    struct keeper *keeper;
};

static int begin(void **state)
{
    struct saving *s = calloc(1, sizeof *s);
    char error[512];
    evthread_use_pthreads();
    strcpy(s->dir, "/tmp/incident_test.XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    s->base = event_base_new();
    s->home = mailbox_new(s->base);
    s->keeper = keeper_start(s->dir, error);
    assert_non_null(s->keeper);
    *state = s;
    return 0;
}

static int end(void **state)
{
    struct saving *s = *state;
    char command[128];
    keeper_stop(&s->keeper);
    mailbox_free(&s->home);
    event_base_free(s->base);
    snprintf(command, sizeof command, "rm -rf %s", s->dir);
    int rc = system(command);
    free(s);
    return rc;
}

static int nothing(struct hold *h, struct job *j)
{
    (void)h;
    (void)j;
    return 0;
}

static bool back;
static void is_back(struct job *j)
{
    (void)j;
    back = true;
}

/* Saves, and waits until all that was asked for has been done. */
static void save_all(struct saving *s, struct incidents *t, int64_t now)
{
    struct job last = {.run = nothing, .done = is_back, .home = s->home};
    back = false;
    incidents_save(t, s->keeper, s->home, now);
    keeper_submit(s->keeper, &last);
    while (!back)
        event_base_loop(s->base, EVLOOP_ONCE);
}

static int collect(void *arg, const char *id, const char *json)
{
    json_object_set_new(arg, id, json_loads(json, 0, NULL));
    return 0;
}

static json_t *saved(struct saving *s)
{
    char error[512];
    bool damaged;
    struct hold *view = hold_open(s->dir, false, &damaged, error);
    assert_non_null(view);
    json_t *all = json_object();
    assert_int_equal(hold_each_incident(view, 0, SIZE_MAX, collect, all), 0);
    hold_close(&view);
    return all;
}

static void only_changed_ones_are_saved(void **state)
{
    struct saving *s = *state;
    struct keeper_figures before, after;
    struct incidents *t = incidents_new(NULL, NULL);
    struct incident_note n = note(1);
    incidents_note(t, &n);
    save_all(s, t, T);
    json_t *all = saved(s);
    assert_int_equal(json_object_size(all), 1);
    json_decref(all);
    keeper_figures(s->keeper, &before);
    save_all(s, t, T);
    keeper_figures(s->keeper, &after);
    assert_int_equal(after.jobs, before.jobs + 1); /* the one that waits */
    incidents_free(&t);
}

static void a_restart_takes_the_past_in(void **state)
{
    struct saving *s = *state;
    char id[INCIDENT_TEXT];
    id_of(1, id);
    for (int life = 1; life <= 3; life++) {
        struct incidents *t = incidents_new(NULL, NULL);
        struct incident_note n = note(1);
        n.now = T + life * 28 * 24 * (int64_t)HOUR;
        n.storm = life == 1;
        incidents_note(t, &n);
        save_all(s, t, n.now); /* looks, finds the past */
        incidents_note(t, &n);
        save_all(s, t, n.now); /* saves the sum */
        save_all(s, t, n.now); /* nothing is added twice */
        json_t *all = saved(s), *j = json_object_get(all, id);
        assert_int_equal(json_get_num(j, "held"), 6 * life);
        assert_int_equal(json_ms(json_object_get(j, "first")), T + 28 * 24 * (int64_t)HOUR);
        assert_int_equal(json_ms(json_object_get(j, "last")), n.now);
        assert_true(json_get_yes(j, "storm"));
        json_decref(all);
        incidents_free(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_opens),
        cmocka_unit_test(news_once),
        cmocka_unit_test(a_document_adds_up),
        cmocka_unit_test(states_follow_the_last_copy),
        cmocka_unit_test(the_store_is_merged_and_outlived),
        cmocka_unit_test(hostile_text_is_still_json),
        cmocka_unit_test(evidence_is_bounded_and_distinct),
        cmocka_unit_test(a_loop_that_hands_out_copies_is_replication),
        cmocka_unit_test(the_table_is_bounded),
        cmocka_unit_test_setup_teardown(only_changed_ones_are_saved, begin, end),
        cmocka_unit_test_setup_teardown(a_restart_takes_the_past_in, begin, end),
    };
    log_open("stderr", LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
