/* store_keep_test.c - what of the past outlives its process, and in what shape. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "past.h"

#define B "b@b.example"
#define C "c@c.example"
static const uint64_t ROOM = 64 << 20;
static const int64_t DAY = 86400000;

struct told {
    uint64_t digest[64];
    size_t n;
};

static void tell(void *arg, uint64_t digest)
{
    struct told *t = arg;
    assert_true(t->n < 64);
    t->digest[t->n++] = digest;
}

/* Observes; what was not to be held has the fate given. */
static enum advice copy(struct store *store, const struct subject *s, enum fate fate)
{
    struct tallies none = {0};
    struct observation o;
    struct replication_signals out = {0};
    struct store_op *op = NULL;
    replication_observation(&o, s, &none);
    assert_int_equal(store->ops->observe(store, &o, &out, NULL, NULL, &op), STORE_DONE);
    for (size_t i = 0; i < s->envelope->nrecipients; i++) {
        enum fate f = out.copy[i].advice == ADVICE_HOLD ? FATE_HELD : fate;
        store->ops->settle(store, &out.k, &s->envelope->recipients[i].hash, &f, 1);
    }
    return out.copy[0].advice;
}

/* A storm of one message: the same server returns it again and again. */
static void storm(struct past *p, struct store *store, uint64_t k, int64_t now)
{
    for (unsigned i = 0; i < 30; i++) {
        struct subject s;
        past_subject(p, &s, k, k,
                     i ? arena_printf(p->arena, "o isp sbs^/%u smart/%u", i, i) : "o isp", B " " C,
                     B " " C);
        s.now = now + i * 1000;
        copy(store, &s, FATE_PASSED);
    }
}

static void only_a_first_copy_that_passed_is_remembered_for_long(void **state)
{
    (void)state;
    struct past p;
    struct told told = {0};
    struct subject s;
    struct store_long l;
    past_open(&p);
    struct store *store = store_memory_open(&p.site, ROOM);
    store_memory_on_digest(store, tell, &told);
    store_memory_long(store, &l);
    assert_int_equal(l.since, 0);
    assert_int_equal(l.bytes, 0); /* nothing is taken before it is needed */
    past_subject(&p, &s, 1, 1, "o isp", B, "");
    copy(store, &s, FATE_ABORTED);
    assert_int_equal(told.n, 0);
    copy(store, &s, FATE_PASSED);
    assert_int_equal(told.n, 1);
    assert_true(told.digest[0] == record_digest(&s.fp.k, s.envelope->recipients[0].hash));
    copy(store, &s, FATE_PASSED);
    assert_int_equal(told.n, 1);
    past_subject(&p, &s, 1, 1, "o isp/2", C, "");
    copy(store, &s, FATE_PASSED);
    assert_int_equal(told.n, 2);
    past_subject(&p, &s, 2, 2, "o isp", C, "");
    copy(store, &s, FATE_WOULD_HOLD); /* monitor mode: he has it */
    assert_int_equal(told.n, 3);
    store_memory_long(store, &l);
    assert_int_equal(l.since, s.now);
    store_memory_remember(store, told.digest, told.n, s.now - 30 * DAY);
    store_memory_long(store, &l);
    assert_int_equal(l.since, s.now - 30 * DAY);
    store_close(&store);
    past_close(&p);
}

static void storms_are_saved_when_they_change_and_not_too_often(void **state)
{
    (void)state;
    struct past p;
    struct packed packed[4];
    past_open(&p);
    struct store *store = store_memory_open(&p.site, ROOM);
    const int64_t now = 1000000000000;
    struct subject s;
    past_subject(&p, &s, 9, 9, "o isp", B, "");
    copy(store, &s, FATE_PASSED);
    assert_int_equal(store_memory_changed(store, now, false, packed, 4),
                     0); /* a plain one is not */
    storm(&p, store, 1, now);
    assert_int_equal(store_memory_changed(store, now + 60000, false, packed, 4), 1);
    free(packed[0].bytes);
    assert_int_equal(store_memory_changed(store, now + 70000, false, packed, 4), 0);
    storm(&p, store, 1, now + 70000);
    assert_int_equal(store_memory_changed(store, now + 60500, false, packed, 4), 0); /* too early */
    assert_int_equal(store_memory_changed(store, now + 62000, false, packed, 4), 1);
    store_memory_unsaved(store, &packed[0].k);
    free(packed[0].bytes);
    assert_int_equal(store_memory_changed(store, now + 64000, false, packed, 4), 1);
    free(packed[0].bytes);
    store_close(&store);
    past_close(&p);
}

static void carry(struct store *from, struct store *to, int64_t now, size_t want)
{
    struct store_cursor c = {0};
    struct packed packed[200];
    size_t n, all = 0;
    while (store_memory_pack(from, &c, packed, 200, &n))
        for (size_t i = 0; i < n; i++) {
            assert_true(
                store_memory_put(to, &packed[i].k, span_of(packed[i].bytes, packed[i].n), now));
            free(packed[i].bytes);
            all++;
        }
    assert_int_equal(all, want);
}

static void count_storm(void *arg)
{
    ++*(unsigned *)arg;
}

static void a_new_storm_is_told_once(void **state)
{
    (void)state;
    struct past p;
    struct subject s;
    unsigned storms = 0;
    past_open(&p);
    struct store *store = store_memory_open(&p.site, ROOM);
    store_memory_on_storm(store, count_storm, &storms);
    past_subject(&p, &s, 2, 2, "o isp", B, "");
    copy(store, &s, FATE_PASSED);
    copy(store, &s, FATE_PASSED); /* a retry is none */
    assert_int_equal(storms, 0);
    storm(&p, store, 1, 1000000000000);
    assert_int_equal(storms, 1);
    storm(&p, store, 3, 1000000000000);
    assert_int_equal(storms, 2);
    store_close(&store);
    past_close(&p);
}

static void what_is_carried_over_decides_as_before(void **state)
{
    (void)state;
    struct past p;
    past_open(&p);
    struct store *store = store_memory_open(&p.site, ROOM);
    struct store *next = store_memory_open(&p.site, ROOM);
    const int64_t now = 1000000000000;
    struct subject s;
    storm(&p, store, 1, now);
    for (uint64_t k = 100; k < 1100; k++) {
        past_subject(&p, &s, k, k, "o isp", B, "");
        copy(store, &s, FATE_PASSED);
    }
    carry(store, next, now + 30000, 1001);
    struct store_figures f;
    store_memory_figures(next, &f);
    assert_int_equal(f.records, 1001);
    /* the storm goes on: held; who had the others has them */
    past_subject(&p, &s, 1, 1, "o isp sbs^/99 smart/99", B, B " " C);
    s.now = now + 40000;
    assert_int_equal(copy(next, &s, FATE_PASSED), ADVICE_HOLD);
    for (uint64_t k = 100; k < 1100; k++) {
        past_subject(&p, &s, k, k, "o isp", B, "");
        assert_true(next->ops->passed(next, &s.fp.k, s.envelope->recipients[0].hash));
    }
    /* carried over once more, the later one stays */
    carry(store, next, now + 50000, 1001);
    past_subject(&p, &s, 1, 1, "o isp sbs^/98 smart/98", C, B " " C);
    s.now = now + 60000;
    assert_int_equal(copy(next, &s, FATE_PASSED), ADVICE_HOLD);
    assert_false(store_memory_put(next, &s.fp.k, SPAN("not a record"), now));
    store_close(&store);
    store_close(&next);
    past_close(&p);
}

static void what_has_outlived_its_life_is_not_put_back(void **state)
{
    (void)state;
    struct past p;
    past_open(&p);
    struct store *store = store_memory_open(&p.site, ROOM);
    struct store *next = store_memory_open(&p.site, ROOM);
    const int64_t now = 1000000000000;
    struct store_figures f;
    struct subject s;
    past_subject(&p, &s, 5, 5, "o isp", B, "");
    copy(store, &s, FATE_PASSED);
    storm(&p, store, 1, now);
    carry(store, next, now + 10 * DAY, 2);
    store_memory_figures(next, &f);
    assert_int_equal(f.records, 1); /* the storm */
    store_close(&store);
    store_close(&next);
    past_close(&p);
}

static void a_storm_at_rest_shrinks_and_still_holds(void **state)
{
    (void)state;
    struct past p;
    past_open(&p);
    struct store *store = store_memory_open(&p.site, ROOM);
    const int64_t now = 1000000000000;
    struct store_figures before, after;
    struct subject s;
    storm(&p, store, 1, now);
    store->ops->tick(store, now + 44 * DAY);
    store_memory_figures(store, &before);
    store->ops->tick(store, now + 46 * DAY);
    store_memory_figures(store, &after);
    assert_true(after.bytes < before.bytes / 2);
    for (int day = 300; day < 400; day += 99) {
        past_subject(&p, &s, 1, 1, arena_printf(p.arena, "o isp other/%d", day), B, B " " C);
        s.now = now + day * DAY;
        assert_int_equal(copy(store, &s, FATE_PASSED), ADVICE_HOLD);
        past_subject(&p, &s, 1, 1, "o isp other", arena_printf(p.arena, "late%d@d.example", day),
                     B " " C);
        s.now = now + day * DAY + 1000;
        assert_int_not_equal(copy(store, &s, FATE_PASSED), ADVICE_HOLD); /* his first */
    }
    store_close(&store);
    past_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_a_first_copy_that_passed_is_remembered_for_long),
        cmocka_unit_test(storms_are_saved_when_they_change_and_not_too_often),
        cmocka_unit_test(a_new_storm_is_told_once),
        cmocka_unit_test(what_is_carried_over_decides_as_before),
        cmocka_unit_test(what_has_outlived_its_life_is_not_put_back),
        cmocka_unit_test(a_storm_at_rest_shrinks_and_still_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
