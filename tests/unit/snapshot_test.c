/* snapshot_test.c - the memory of one life in a file, read by the next; or set aside, whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "past.h"
#include "snapshot.h"

#define B "b@b.example"
static const uint64_t ROOM = 16 << 20;
static const int64_t NOW = 1000000000000;
static char dir[] = "/tmp/snapshot_test_XXXXXX", error[512];

static int clear(void **state)
{
    (void)state;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (e->d_name[0] != '.')
            unlink(path);
    }
    closedir(d);
    return 0;
}

static void pass(struct store *store, const struct subject *s)
{
    struct tallies none = {0};
    struct observation o;
    struct replication_signals out = {0};
    struct store_op *op = NULL;
    const enum fate fate = FATE_PASSED;
    replication_observation(&o, s, &none);
    assert_int_equal(store->ops->observe(store, &o, &out, NULL, NULL, &op), STORE_DONE);
    store->ops->settle(store, &out.k, &s->envelope->recipients[0].hash, &fate, 1);
}

static double asked(struct store *store, enum tally_kind kind, uint64_t key)
{
    struct tally t = {.kind = kind, .key = key, .length = 3600000};
    struct tallies q = {&t, 1, 1};
    store->ops->tally_read(store, &q, NOW + 1000, NULL, NULL, NULL);
    return t.answer;
}

/* 500 messages and 400 tallies. */
static struct store *a_past(struct past *p)
{
    struct store *store = store_memory_open(&p->site, ROOM);
    struct subject s;
    for (uint64_t k = 1; k <= 500; k++) {
        past_subject(p, &s, k, k, "o isp gw", B, "");
        pass(store, &s);
    }
    for (uint64_t k = 1; k <= 400; k++) {
        struct tally t = {.kind = (enum tally_kind)(k % 4),
                          .key = k * UINT64_C(0x9e3779b97f4a7c15),
                          .member = k,
                          .amount = 3,
                          .length = 3600000};
        struct tallies adds = {&t, 1, 1};
        store->ops->tally_add(store, &adds, NOW);
    }
    return store;
}

static void the_next_life_knows_what_the_last_one_did(void **state)
{
    (void)state;
    struct past p;
    struct snapshot_figures w, r;
    past_open(&p);
    struct store *store = a_past(&p), *next = store_memory_open(&p.site, ROOM);
    assert_int_equal(snapshot_read(dir, SNAPSHOT_NAME, 7, next, NOW, &r, error), 0);
    assert_int_equal(snapshot_write(dir, 7, store, NULL, NOW, &w, error), 0);
    assert_int_equal(snapshot_read(dir, SNAPSHOT_NAME, 7, next, NOW + 1000, &r, error), 1);
    assert_int_equal(w.records, 500);
    assert_int_equal(r.records, 500);
    assert_int_equal(w.tallies, r.tallies);
    assert_true(r.tallies >= 400);
    assert_int_equal(r.time, NOW);
    for (uint64_t k = 1; k <= 500; k++) {
        struct subject s;
        past_subject(&p, &s, k, k, "o isp gw", B, "");
        assert_true(next->ops->passed(next, &s.fp.k, s.envelope->recipients[0].hash));
    }
    for (uint64_t k = 1; k <= 400; k++) {
        uint64_t key = k * UINT64_C(0x9e3779b97f4a7c15);
        enum tally_kind kind = (enum tally_kind)(k % 4);
        assert_true(asked(next, kind, key) == asked(store, kind, key));
        assert_true(asked(next, kind, key) > 0);
    }
    store_close(&store);
    store_close(&next);
    past_close(&p);
}

static void the_one_before_stays(void **state)
{
    (void)state;
    struct past p;
    struct snapshot_figures f;
    past_open(&p);
    struct store *store = a_past(&p), *next = store_memory_open(&p.site, ROOM);
    assert_int_equal(snapshot_write(dir, 7, store, NULL, NOW, &f, error), 0);
    assert_int_equal(snapshot_write(dir, 7, store, NULL, NOW + 5000, &f, error), 0);
    assert_int_equal(snapshot_read(dir, SNAPSHOT_BEFORE, 7, next, NOW, &f, error), 1);
    assert_int_equal(f.time, NOW);
    assert_int_equal(snapshot_read(dir, SNAPSHOT_NAME, 7, next, NOW, &f, error), 1);
    assert_int_equal(f.time, NOW + 5000);
    store_close(&store);
    store_close(&next);
    past_close(&p);
}

static void what_is_not_whole_is_not_believed(void **state)
{
    (void)state;
    struct past p;
    struct snapshot_figures f;
    struct store_figures figures;
    struct stat st;
    char path[512];
    past_open(&p);
    struct store *store = a_past(&p), *next = store_memory_open(&p.site, ROOM);
    assert_int_equal(snapshot_write(dir, 7, store, NULL, NOW, &f, error), 0);
    snprintf(path, sizeof path, "%s/" SNAPSHOT_NAME, dir);
    assert_int_equal(stat(path, &st), 0);
    int fd = open(path, O_RDWR);
    for (off_t at = 0; at < st.st_size; at += 1 + st.st_size / 300) {
        uint8_t was, now;
        assert_int_equal(pread(fd, &was, 1, at), 1);
        now = was ^ 0x40;
        assert_int_equal(pwrite(fd, &now, 1, at), 1);
        error[0] = 0;
        if (snapshot_read(dir, SNAPSHOT_NAME, 7, next, NOW, &f, error) != -1 || !error[0])
            fail_msg("a changed byte at %lld was believed", (long long)at);
        assert_int_equal(pwrite(fd, &was, 1, at), 1);
    }
    for (off_t left = st.st_size - 1; left > 0; left -= 1 + st.st_size / 300) {
        assert_int_equal(ftruncate(fd, left), 0);
        if (snapshot_read(dir, SNAPSHOT_NAME, 7, next, NOW, &f, error) != -1)
            fail_msg("cut to %lld it was believed", (long long)left);
    }
    close(fd);
    store_memory_figures(next, &figures);
    assert_int_equal(figures.records, 0); /* nothing of it was taken */
    store_close(&store);
    store_close(&next);
    past_close(&p);
}

/* Texts of others: "one" was there, "two" came since. */
static int begun, ended;
static char taken[64];
static void each_text(void *arg, snapshot_put_fn *put, void *to)
{
    (void)arg;
    assert_int_equal(put(to, SPAN("one"), SPAN("what it was")), 0);
    assert_int_equal(put(to, SPAN("none"), SPAN("")), 0);
}
static void begin_texts(void *arg)
{
    (void)arg;
    begun++;
}
static void take_text(void *arg, struct span name, struct span text)
{
    (void)arg;
    size_t n = strlen(taken);
    snprintf(taken + n, sizeof taken - n, "%.*s=%.*s;", SPAN_ARG(name), SPAN_ARG(text));
}
static void end_texts(void *arg)
{
    (void)arg;
    ended++;
}

static void what_was_learned_since_is_unlearned(void **state)
{
    (void)state;
    struct past p;
    struct snapshot_figures f;
    struct store_figures before, after;
    const struct snapshot_texts texts = {each_text, begin_texts, take_text, end_texts, NULL};
    const uint64_t old = UINT64_C(0x9e3779b97f4a7c15) * 4, new = 77;
    past_open(&p);
    struct store *store = a_past(&p);
    assert_int_equal(snapshot_keep(dir, "memory.kept.v1", 7, store, &texts, NOW, &f, error), 0);
    assert_int_equal(f.texts, 2);
    assert_int_equal(snapshot_time(dir, "memory.kept.v1", 7), NOW);
    assert_int_equal(snapshot_time(dir, "memory.kept.v1", 8), 0);
    assert_int_equal(snapshot_time(dir, "memory.kept.v2", 7), 0);
    double was = asked(store, TALLY_COUNT, old);
    struct tally t[] = {{.kind = TALLY_COUNT, .key = old, .amount = 100},
                        {.kind = TALLY_COUNT, .key = new, .amount = 100}};
    store->ops->tally_add(store, &(struct tallies){t, 2, 2}, NOW + 1);
    struct subject s;
    past_subject(&p, &s, 501, 501, "o isp gw", B, "");
    pass(store, &s);
    store_memory_figures(store, &before);
    assert_int_equal(snapshot_learned(dir, "memory.kept.v2", 7, store, &texts, NOW, &f, error), -1);
    assert_true(asked(store, TALLY_COUNT, new) > 0);
    assert_int_equal(begun, 0);
    assert_int_equal(snapshot_learned(dir, "memory.kept.v1", 7, store, &texts, NOW, &f, error), 1);
    assert_true(asked(store, TALLY_COUNT, old) == was);
    assert_true(asked(store, TALLY_COUNT, new) == 0);
    store_memory_figures(store, &after);
    assert_int_equal(after.records, before.records); /* who has what stays */
    assert_true(store->ops->passed(store, &s.fp.k, s.envelope->recipients[0].hash));
    assert_int_equal(begun * 10 + ended, 11);
    assert_string_equal(taken, "one=what it was;none=;");
    store_close(&store);
    past_close(&p);
}

static void another_key_or_a_longer_file_is_refused(void **state)
{
    (void)state;
    struct past p;
    struct snapshot_figures f;
    char path[512];
    past_open(&p);
    struct store *store = a_past(&p), *next = store_memory_open(&p.site, ROOM);
    assert_int_equal(snapshot_write(dir, 7, store, NULL, NOW, &f, error), 0);
    assert_int_equal(snapshot_read(dir, SNAPSHOT_NAME, 8, next, NOW, &f, error), -1);
    assert_non_null(strstr(error, "site key"));
    snprintf(path, sizeof path, "%s/" SNAPSHOT_NAME, dir);
    int fd = open(path, O_WRONLY | O_APPEND);
    assert_int_equal(write(fd, "x", 1), 1);
    close(fd);
    assert_int_equal(snapshot_read(dir, SNAPSHOT_NAME, 7, next, NOW, &f, error), -1);
    assert_int_equal(snapshot_write("/nowhere", 7, store, NULL, NOW, &f, error), -1);
    store_close(&store);
    store_close(&next);
    past_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_next_life_knows_what_the_last_one_did, clear),
        cmocka_unit_test_setup(the_one_before_stays, clear),
        cmocka_unit_test_setup(what_is_not_whole_is_not_believed, clear),
        cmocka_unit_test_setup(what_was_learned_since_is_unlearned, clear),
        cmocka_unit_test_setup(another_key_or_a_longer_file_is_refused, clear),
    };
    if (!mkdtemp(dir))
        return 1;
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    clear(NULL);
    rmdir(dir);
    return rc;
}
