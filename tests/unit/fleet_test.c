/* fleet_test.c - nodes tell each other, once and in order, whatever Redis does. Redis is played in
 * process; each node is a fleet with one topic of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

#include <event2/thread.h>

#include "fake_redis.h"
#include "fleet.h"
#include "log.h"

enum { SAID = 20000, PATIENCE_MS = 8000 };

/* A node, with what its topic says and hears: numbers. */
struct side {
    struct config config;
    struct fleet *fleet;
    pthread_mutex_t lock;
    unsigned say[64];
    size_t nsay;
    size_t pad; /* bytes a batch has besides */
    unsigned heard[SAID], npast, alarms;
    size_t nheard;
    char alarm[500], from[64];
};

static struct redis_settings settings = {.prefix = (char *)(uintptr_t) "bw"};

static size_t collect(void *arg, bool last, uint8_t **bytes)
{
    struct side *s = arg;
    size_t n = 0;
    (void)last;
    pthread_mutex_lock(&s->lock);
    if (s->nsay) {
        n = sizeof s->say[0] + s->pad;
        *bytes = calloc(1, n);
        memcpy(*bytes, &s->say[0], sizeof s->say[0]);
        memmove(s->say, s->say + 1, --s->nsay * sizeof s->say[0]);
    }
    pthread_mutex_unlock(&s->lock);
    return n;
}

static void apply(void *arg, const struct fleet_batch *b)
{
    struct side *s = arg;
    pthread_mutex_lock(&s->lock);
    assert_true(b->bytes.n >= sizeof s->heard[0] && s->nheard < SAID);
    memcpy(&s->heard[s->nheard++], b->bytes.p, sizeof s->heard[0]);
    s->npast += b->past;
    span_show(b->node, s->from, sizeof s->from);
    pthread_mutex_unlock(&s->lock);
}

static void alarm_raised(void *arg, const char *subject, const char *text)
{
    struct side *s = arg;
    (void)subject;
    pthread_mutex_lock(&s->lock);
    s->alarms++;
    snprintf(s->alarm, sizeof s->alarm, "%s", text);
    pthread_mutex_unlock(&s->lock);
}

static void assert_alarms(struct side *s, unsigned n, const char *words)
{
    pthread_mutex_lock(&s->lock);
    assert_int_equal(s->alarms, n);
    if (!strstr(s->alarm, words))
        fail_msg("'%s' does not say '%s'", s->alarm, words);
    pthread_mutex_unlock(&s->lock);
}

static const char *mode(void *arg)
{
    (void)arg;
    return "enforce";
}

static const struct fleet_topic topic = {
    .name = "test", .keep = 1000, .collect = collect, .apply = apply};

static void join(struct side *s, const char *name, uint16_t number)
{
    char error[512];
    struct fleet_setup setup = {
        .config = &s->config, .redis = &settings, .arg = s, .mode = mode, .alarm = alarm_raised};
    if (!s->config.site.storm_dups)
        site_defaults(&s->config.site);
    s->config.site.node = span_str(name);
    s->config.node_number = number;
    pthread_mutex_init(&s->lock, NULL);
    s->fleet = fleet_new(&setup);
    fleet_tell(s->fleet, &topic, s);
    assert_int_equal(fleet_start(s->fleet, error), 0);
}

static void leave(struct side *s)
{
    fleet_stop(&s->fleet);
    pthread_mutex_destroy(&s->lock);
}

static void say(struct side *s, unsigned what)
{
    pthread_mutex_lock(&s->lock);
    assert_true(s->nsay < 64);
    s->say[s->nsay++] = what;
    pthread_mutex_unlock(&s->lock);
    fleet_hurry(s->fleet);
}

static size_t heard(struct side *s)
{
    pthread_mutex_lock(&s->lock);
    size_t n = s->nheard;
    pthread_mutex_unlock(&s->lock);
    return n;
}

static void until_heard(struct side *s, size_t n)
{
    for (int i = 0; heard(s) < n; i++) {
        if (i == PATIENCE_MS / 10)
            fail_msg("%zu of %zu were heard", heard(s), n);
        fleet_hurry(s->fleet);
        usleep(10000);
    }
}

static void until_said(struct side *s)
{
    for (bool all = false; !all;) {
        usleep(10000);
        pthread_mutex_lock(&s->lock);
        all = s->nsay == 0;
        pthread_mutex_unlock(&s->lock);
    }
}

static void until_shares(struct side *s, bool shares)
{
    for (int i = 0; fleet_shares(s->fleet) != shares; i++) {
        if (i == PATIENCE_MS / 10)
            fail_msg("it %s", shares ? "does not share" : "shares");
        usleep(10000);
    }
}

/* A member of the fleet's document, or of a node in it. */
static json_t *shown(struct side *s, const char *node, const char *what)
{
    json_t *d = fleet_document(s->fleet), *o = d;
    for (size_t i = 0; node && i < json_array_size(json_object_get(d, "nodes")); i++) {
        json_t *n = json_array_get(json_object_get(d, "nodes"), i);
        if (strcmp(json_get_str(n, "name"), node) == 0)
            o = n;
    }
    json_t *v = json_incref(json_object_get(o, what));
    if (o == d && node)
        v = NULL;
    json_decref(d);
    return v;
}

static bool shows(struct side *s, const char *node, const char *what, const char *value)
{
    json_t *v = shown(s, node, what);
    bool same = v && json_is_string(v) && strstr(json_string_value(v), value);
    json_decref(v);
    return same;
}

static void until_shown(struct side *s, const char *node, const char *what, const char *value)
{
    for (int i = 0; !shows(s, node, what, value); i++) {
        if (i == PATIENCE_MS / 10)
            fail_msg("%s of %s is not shown as %s", what, node ? node : "the fleet", value);
        usleep(10000);
    }
}

static void each_hears_the_others_once_and_in_order(void **state)
{
    (void)state;
    static struct side a, b, c;
    fake_clear();
    join(&a, "a", 1);
    join(&b, "b", 2);
    join(&c, "c", 3);
    for (unsigned i = 0; i < 40; i++)
        say(&a, i);
    until_heard(&b, 40);
    until_heard(&c, 40);
    say(&b, 100);
    until_heard(&a, 1);
    until_heard(&c, 41);
    for (unsigned i = 0; i < 40; i++)
        assert_true(b.heard[i] == i && c.heard[i] == i);
    assert_int_equal(a.heard[0], 100);
    assert_int_equal(a.nheard, 1); /* not its own */
    assert_int_equal(b.nheard, 40);
    assert_string_equal(a.from, "b");
    assert_alarms(&a, 0, "");
    assert_alarms(&b, 0, "");
    assert_alarms(&c, 0, "");
    until_shown(&a, "c", "mode", "enforce");
    until_shown(&a, NULL, "state", "sharing");
    leave(&a);
    leave(&b);
    leave(&c);
}

static void a_lost_answer_makes_no_second_batch(void **state)
{
    (void)state;
    static struct side a, b;
    fake_clear();
    join(&a, "a", 1);
    join(&b, "b", 2);
    pthread_mutex_lock(&fake.lock);
    fake.lose = 2;
    pthread_mutex_unlock(&fake.lock);
    say(&a, 1);
    say(&a, 2);
    for (int i = 0; heard(&b) < 2 && i < PATIENCE_MS / 10; i++) {
        fleet_hurry(a.fleet);
        until_heard(&b, 1);
        usleep(10000);
    }
    until_heard(&b, 2);
    assert_int_equal(fake_entries(), 4); /* the first three times */
    assert_true(b.heard[0] == 1 && b.heard[1] == 2);
    assert_int_equal(heard(&b), 2);
    leave(&a);
    leave(&b);
}

static void who_joins_hears_what_was_said_as_past(void **state)
{
    (void)state;
    static struct side a, b;
    fake_clear();
    join(&a, "a", 1);
    say(&a, 7);
    for (int i = 0; !fake_entries() && i < PATIENCE_MS / 10; i++)
        usleep(10000);
    usleep(20000); /* the next millisecond at least */
    join(&b, "b", 2);
    until_heard(&b, 1);
    assert_int_equal(b.npast, 1);
    say(&a, 8);
    until_heard(&b, 2);
    assert_int_equal(b.npast, 1);
    leave(&b);
    /* another life of it: what it said itself is heard, as past */
    leave(&a);
    a.nheard = a.npast = 0;
    usleep(20000);
    join(&a, "a", 1);
    until_heard(&a, 2);
    assert_int_equal(a.npast, 2);
    leave(&a);
}

static void batches_wait_while_redis_is_away_and_the_oldest_go(void **state)
{
    (void)state;
    static struct side a, b;
    fake_clear();
    join(&a, "a", 1);
    join(&b, "b", 2);
    until_shown(&a, "b", "mode", "enforce");
    fake_set(&fake.away, true);
    until_shown(&a, NULL, "state", "away");
    until_shown(&a, NULL, "why", "it is not there");
    a.pad = FLEET_BATCH - sizeof(unsigned);
    for (unsigned i = 0; i < 60; i++) /* 64 are 4 MiB */
        say(&a, i);
    until_said(&a);
    for (unsigned i = 60; i < 70; i++)
        say(&a, i);
    until_said(&a);
    fake_set(&fake.away, false);
    until_heard(&b, 64);
    assert_int_equal(b.heard[0], 6);
    assert_int_equal(b.heard[63], 69);
    json_t *dropped = shown(&a, NULL, "dropped");
    assert_int_equal(json_integer_value(dropped), 6);
    json_decref(dropped);
    leave(&a);
    leave(&b);
}

static void who_judges_otherwise_is_left_out(void **state)
{
    (void)state;
    static struct side a, b;
    fake_clear();
    join(&a, "a", 1);
    usleep(20000);
    site_defaults(&b.config.site);
    b.config.site.storm_dups += 1;
    join(&b, "b", 2);
    assert_false(fleet_shares(b.fleet));
    assert_true(fleet_shares(a.fleet));
    assert_alarms(&b, 1, "section detect");
    assert_alarms(&b, 1, "node a");
    until_shown(&b, NULL, "state", "refused");
    until_shown(&b, "b", "why", "section detect");
    until_shown(&a, "b", "why", "section detect");
    say(&a, 1);
    say(&b, 2);
    usleep(300000);
    assert_int_equal(heard(&a) + heard(&b), 0);
    struct config same = b.config;
    same.site.storm_dups -= 1;
    fleet_reload(b.fleet, &same);
    until_shares(&b, true);
    until_heard(&a, 1); /* it waited */
    until_heard(&b, 1);
    assert_alarms(&b, 1, "");
    assert_alarms(&a, 0, "");
    leave(&a);
    leave(&b);
}

static void a_number_or_a_name_is_of_one_node(void **state)
{
    (void)state;
    static struct side a, b, c;
    fake_clear();
    join(&a, "a", 5);
    usleep(20000);
    join(&b, "b", 5);
    assert_alarms(&b, 1, "number 5");
    assert_int_equal(id_next(5, 1) >> 12 & 1023, 6);
    assert_true(fleet_shares(b.fleet));
    join(&c, "a", 9);
    until_shares(&c, false);
    until_shown(&c, NULL, "why", "another node is called a");
    assert_true(fleet_shares(a.fleet));
    assert_alarms(&a, 0, "");
    leave(&a); /* now the name is free */
    until_shares(&c, true);
    leave(&b);
    leave(&c);
}

static void the_last_words_are_heard(void **state)
{
    (void)state;
    static struct side a, b;
    fake_clear();
    join(&a, "a", 1);
    join(&b, "b", 2);
    pthread_mutex_lock(&a.lock);
    a.say[0] = 42;
    a.nsay = 1;
    pthread_mutex_unlock(&a.lock);
    leave(&a);
    until_heard(&b, 1);
    assert_int_equal(b.heard[0], 42);
    for (int i = 0; i < PATIENCE_MS / 10; i++) {
        json_t *gone = shown(&b, "a", "left");
        bool yes = json_is_true(gone);
        json_decref(gone);
        if (yes)
            break;
        assert_true(i < PATIENCE_MS / 10 - 1);
        usleep(10000);
    }
    leave(&b);
}

static void a_deaf_redis_holds_nobody_up(void **state)
{
    (void)state;
    static struct side a;
    fake_clear();
    join(&a, "a", 1);
    fake_set(&fake.deaf, true);
    say(&a, 1);
    usleep(50000);
    leave(&a); /* returns */
    fake_set(&fake.deaf, true);
    join(&a, "a", 1);
    assert_false(fleet_shares(a.fleet));
    leave(&a);
}

static void a_lost_stream_begins_anew(void **state)
{
    (void)state;
    static struct side a, b;
    fake_clear();
    join(&a, "a", 1);
    join(&b, "b", 2);
    say(&a, 1);
    until_heard(&b, 1);
    say(&b, 9);
    until_heard(&a, 1);
    pthread_mutex_lock(&fake.lock); /* another server, whose clock is behind */
    for (size_t i = 0; i < fake.entries; i++)
        for (size_t k = 0; k < fake.entry[i].words; k++)
            free(fake.entry[i].word[k]);
    memset(fake.entry, 0, sizeof fake.entry);
    fake.entries = 0;
    fake.last = 0;
    fake.ahead = -60000;
    pthread_mutex_unlock(&fake.lock);
    say(&b, 10); /* each sees by its own that ids began anew */
    say(&a, 2);
    until_heard(&a, 2);
    until_heard(&b, 2);
    assert_true(a.heard[1] == 10 && b.heard[1] == 2);
    leave(&a);
    leave(&b);
}

static void what_is_not_ours_is_set_aside(void **state)
{
    (void)state;
    static struct side a, b;
    fake_clear();
    join(&a, "a", 1);
    join(&b, "b", 2);
    pthread_mutex_lock(&fake.lock);
    snprintf(fake.wrong, sizeof fake.wrong, "bw:1:x:test");
    pthread_mutex_unlock(&fake.lock);
    say(&a, 1);
    until_heard(&b, 1);
    assert_string_equal(fake.renamed[0], "bw:1:x:test");
    assert_true(span_starts(span_str(fake.renamed[1]), SPAN("{bw:1:x:test}:aside-")));
    leave(&a);
    leave(&b);
}

/* One entry as a stranger may write it. */
static void add_entry(const char *fields[FAKE_WORDS])
{
    struct span argv[6 + FAKE_WORDS] = {SPAN("XADD"), SPAN("bw:1:x:test")};
    struct wire w = {0};
    size_t n = 6;
    for (size_t i = 0; fields[i]; i++)
        argv[n++] = span_str(fields[i]);
    pthread_mutex_lock(&fake.lock);
    fake_xadd(&w, argv, n);
    pthread_mutex_unlock(&fake.lock);
    free(w.text);
}

static void strange_entries_are_nobodys(void **state)
{
    (void)state;
    static struct side a, b;
    fake_clear();
    static const char *t[][FAKE_WORDS] = {
        {"d", "1111"},
        {"n", "x", "b", "0", "s", "1", "h", "0", "t", "1", "d", "1111"},
        {"n", "x", "b", "000000000000000g", "s", "1"},
        {"n", "", "b", "0000000000000007", "s", "1", "d", "1111"},
        {"n", "x", "b", "0000000000000007", "s", "-1", "d", "1111"},
        {"n", "x", "b", "0000000000000007", "s", "1", "h", "0000000000000001", "t", "1", "d",
         "1111"}, /* it judges otherwise */
        {"n"},
        {"later", "version", "n"},
    };
    join(&a, "a", 1);
    join(&b, "b", 2);
    for (size_t i = 0; i < sizeof t / sizeof *t; i++)
        add_entry(t[i]);
    pthread_mutex_lock(&fake.lock);
    fake_hset(SPAN("strange"), SPAN("{\"boot\":7}"));
    pthread_mutex_unlock(&fake.lock);
    say(&a, 3);
    until_heard(&b, 1);
    assert_int_equal(b.heard[0], 3);
    assert_int_equal(heard(&a), 0);
    leave(&a);
    leave(&b);
}

static void the_clock_is_redis(void **state)
{
    (void)state;
    static struct side a;
    fake_clear();
    fake.ahead = 300000;
    join(&a, "a", 1);
    int64_t off = clock_now() - clock_own();
    assert_true(off > 299000 && off < 301000);
    json_t *shown_offset = shown(&a, NULL, "offset_ms");
    off = json_integer_value(shown_offset);
    json_decref(shown_offset);
    assert_true(off > 299000 && off < 301000);
    leave(&a);
    clock_set(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_hears_the_others_once_and_in_order),
        cmocka_unit_test(a_lost_answer_makes_no_second_batch),
        cmocka_unit_test(who_joins_hears_what_was_said_as_past),
        cmocka_unit_test(batches_wait_while_redis_is_away_and_the_oldest_go),
        cmocka_unit_test(who_judges_otherwise_is_left_out),
        cmocka_unit_test(a_number_or_a_name_is_of_one_node),
        cmocka_unit_test(the_last_words_are_heard),
        cmocka_unit_test(a_deaf_redis_holds_nobody_up),
        cmocka_unit_test(a_lost_stream_begins_anew),
        cmocka_unit_test(what_is_not_ours_is_set_aside),
        cmocka_unit_test(strange_entries_are_nobodys),
        cmocka_unit_test(the_clock_is_redis),
    };
    evthread_use_pthreads();
    log_open("stderr", LOG_NOTHING);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
