/* store_test.c - the past of a process: what it remembers, for how long, and how little it takes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>

#include "past.h"

#define B "b@b.example"
static const uint64_t ROOM = 64 << 20;

static enum relation observe(struct past *p, struct store *store, struct subject *s,
                             struct replication_signals *out)
{
    static const uint32_t ordinary[PATH_MAX_NODES];
    static const bool known[PATH_MAX_NODES];
    struct observation o = {.subject = s, .ordinary = ordinary, .known = known};
    struct store_op *op = NULL;

    (void)p;
    assert_int_equal(store->ops->observe(store, &o, out, NULL, NULL, &op), STORE_DONE);
    return out->copy[0].relation;
}

static void settle(struct store *store, const struct subject *s,
                   const struct replication_signals *out, enum fate fate)
{
    store->ops->settle(store, &out->k, &s->envelope->recipients[0].hash, &fate, 1);
}

/* Observes, and the copy passes. */
static enum relation pass(struct past *p, struct store *store, struct subject *s)
{
    struct replication_signals out;
    enum relation r = observe(p, store, s, &out);

    settle(store, s, &out, FATE_PASSED);
    return r;
}

static void test_none_forgets(void **state)
{
    struct past p;
    struct subject s;
    struct replication_signals out;
    struct report report;
    struct tally asked[] = {{.kind = TALLY_MARK, .key = 1, .answer = 3}};
    struct tallies t = {asked, 1, 1};
    struct store *store;

    (void)state;
    past_open(&p);
    store = store_none_open();
    past_subject(&p, &s, 1, 1, "o isp", B, "");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pass(&p, store, &s), REL_FIRST);
        assert_int_equal(observe(&p, store, &s, &out), REL_FIRST);
        assert_true(out.degraded);
        assert_int_equal(out.copy[0].advice, ADVICE_PASS);
    }
    assert_false(store->ops->report(store, &out.k, p.arena, &report));
    assert_false(store->ops->passed(store, &out.k, s.envelope->recipients[0].hash));
    store->ops->tally_add(store, &t, 1000);
    assert_int_equal(store->ops->tally_read(store, &t, 1000, NULL, NULL, NULL), STORE_DONE);
    assert_true(asked[0].answer == 0);
    store->ops->tick(store, 1000);
    store_close(&store);
    assert_null(store);
    store_close(&store);
    past_close(&p);
}

static void test_memory_remembers(void **state)
{
    struct past p;
    struct subject s;
    struct replication_signals out;
    struct report report;
    struct store *store;
    uint64_t b;

    (void)state;
    past_open(&p);
    store = store_memory_open(&p.site, ROOM);
    past_subject(&p, &s, 1, 1, "o isp", B, "");
    b = s.envelope->recipients[0].hash;
    assert_int_equal(observe(&p, store, &s, &out), REL_FIRST);
    assert_false(out.degraded);
    assert_false(store->ops->passed(store, &out.k, b));
    settle(store, &s, &out, FATE_PASSED);
    assert_true(store->ops->passed(store, &out.k, b));
    assert_false(store->ops->passed(store, &out.k, b + 1));
    assert_int_equal(observe(&p, store, &s, &out), REL_SAME);
    assert_true(out.known);
    settle(store, &s, &out, FATE_HELD);
    assert_true(store->ops->report(store, &out.k, p.arena, &report));
    assert_int_equal(report.copies, 2);
    assert_int_equal(report.passed, 1);
    assert_int_equal(report.held, 1);
    assert_int_equal(report.duplicates, 1);
    out.k.byte[0] ^= 1;
    assert_false(store->ops->report(store, &out.k, p.arena, &report));
    store_close(&store);
    past_close(&p);
}

static void test_reused_message_id_is_another_message(void **state)
{
    struct past p;
    struct subject s;
    struct replication_signals out;
    struct store *store;
    struct key first[12];

    (void)state;
    past_open(&p);
    store = store_memory_open(&p.site, ROOM);
    for (unsigned i = 0; i < 12; i++) { /* more contents than there are variants */
        past_subject(&p, &s, 1, 100 + i, "o isp", B, "");
        assert_int_equal(observe(&p, store, &s, &out), REL_FIRST);
        assert_int_equal(out.variant, i < 8 ? i : 8);
        first[i] = out.k;
        for (unsigned j = 0; j < i; j++)
            assert_memory_not_equal(first[j].byte, out.k.byte, sizeof(out.k.byte));
        settle(store, &s, &out, FATE_PASSED);
    }
    for (unsigned i = 0; i < 12; i++) {
        past_subject(&p, &s, 1, 100 + i, "o isp", B, "");
        assert_int_equal(observe(&p, store, &s, &out), REL_SAME);
        assert_memory_equal(first[i].byte, out.k.byte, sizeof(out.k.byte));
    }
    store_close(&store);
    past_close(&p);
}

/* --- time --- */

static enum relation seen_after(struct past *p, struct store *store, uint64_t k, const char *path,
                                int64_t ms, bool tick)
{
    struct subject s;

    past_subject(p, &s, k, 1, path, B, "");
    s.now += ms;
    if (tick)
        store->ops->tick(store, s.now);
    return pass(p, store, &s);
}

static void test_life(void **state)
{
    static const int64_t DAY = 86400LL * 1000;
    struct past p;
    struct store_figures f;

    (void)state;
    for (int tick = 0; tick < 2; tick++) { /* expiry does not depend on the tick */
        struct store *store;

        past_open(&p);
        store = store_memory_open(&p.site, ROOM);
        assert_int_equal(seen_after(&p, store, 1, "o isp", 0, tick), REL_FIRST);
        assert_int_equal(seen_after(&p, store, 1, "o isp", DAY, tick), REL_SAME);
        /* duplicated now: seven days */
        assert_int_equal(seen_after(&p, store, 1, "o isp", 8 * DAY, tick), REL_SAME);
        assert_int_equal(seen_after(&p, store, 1, "o isp", 15 * DAY + 1, tick), REL_FIRST);
        /* plain: one day */
        assert_int_equal(seen_after(&p, store, 2, "o isp", 16 * DAY, tick), REL_FIRST);
        assert_int_equal(seen_after(&p, store, 2, "o isp", 17 * DAY + 1, tick), REL_FIRST);
        /* a convicted server: 400 days, so the queue frozen for 28 is held at once */
        assert_int_equal(seen_after(&p, store, 3, "o isp", 20 * DAY, tick), REL_FIRST);
        assert_int_equal(seen_after(&p, store, 3, "o isp sbs^ smart", 20 * DAY, tick), REL_DETOUR);
        assert_int_equal(seen_after(&p, store, 3, "o isp sbs^/2 smart", 65 * DAY, tick),
                         REL_DETOUR);
        assert_int_equal(seen_after(&p, store, 3, "o isp sbs^/3 smart", 465 * DAY + 1, tick),
                         REL_FIRST);
        store_memory_figures(store, &f);
        assert_true(f.expired >= 3);
        store->ops->tick(store, 1000000000000 + 900 * DAY);
        store_memory_figures(store, &f);
        assert_int_equal(f.records, 0);
        store_close(&store);
        past_close(&p);
    }
}

/* --- tallies --- */

static double asked(struct store *store, struct tally q, int64_t now)
{
    struct tallies t = {&q, 1, 1};

    store->ops->tally_read(store, &t, now, NULL, NULL, NULL);
    return q.answer;
}

static void told(struct store *store, struct tally a, int64_t now)
{
    struct tallies t = {&a, 1, 1};

    store->ops->tally_add(store, &t, now);
}

static void test_tallies(void **state)
{
    static const int64_t DAY = 86400LL * 1000, T = 1000000000000;
    const struct tally count = {.kind = TALLY_COUNT, .key = 1, .amount = 64},
                       rate = {.kind = TALLY_RATE, .key = 2, .amount = 5, .length = 60000},
                       mark = {.kind = TALLY_MARK, .key = 3, .length = DAY};
    struct tally set = {.kind = TALLY_SET, .key = 4, .length = 30 * DAY};
    struct past p;
    struct store *store;

    (void)state;
    past_open(&p);
    store = store_memory_open(&p.site, ROOM);
    assert_true(asked(store, count, T) == 0);
    told(store, count, T);
    told(store, count, T);
    assert_true(asked(store, count, T) == 128);
    assert_true(asked(store, count, T + 15 * DAY) > 63.9);
    assert_true(asked(store, count, T + 15 * DAY) < 64.1);
    told(store, count, T + 15 * DAY);
    assert_true(asked(store, count, T + 15 * DAY) > 127.9);
    told(store, rate, T);
    assert_true(asked(store, rate, T) == 5);
    assert_true(asked(store, rate, T + 300000) == 0);
    assert_true(asked(store, mark, T) == 0);
    told(store, mark, T);
    assert_true(asked(store, mark, T + DAY) == (double)T);
    assert_true(asked(store, mark, T + DAY + 1) == 0);
    for (set.member = 0; set.member < 40; set.member++) {
        told(store, set, T);
        told(store, set, T);
        assert_true(asked(store, set, T) == (double)(set.member < 8 ? set.member + 1 : 8));
    }
    assert_true(asked(store, set, T + 31 * DAY) == 0);
    store_close(&store);
    past_close(&p);
}

static void test_invented_keys_do_not_push_out_what_counts(void **state)
{
    static const int64_t T = 1000000000000;
    const struct tally known = {.kind = TALLY_MARK, .key = 0x123456789, .length = 1LL << 40};
    struct past p;
    struct store *store;

    (void)state;
    past_open(&p);
    store = store_memory_open(&p.site, 1 << 20);
    told(store, known, T);
    for (uint64_t i = 1; i <= 100000; i++)
        told(store,
             (struct tally){
                 .kind = TALLY_COUNT, .key = sip_pair(&p.keys, SIP_MISC, i, i), .amount = 1},
             T + (int64_t)i);
    assert_true(asked(store, known, T + 1000) == (double)T);
    store_close(&store);
    past_close(&p);
}

/* --- bounds --- */

static uint64_t flood(struct past *p, struct store *store, uint64_t from, uint64_t n)
{
    struct subject s;
    uint64_t most = 0;

    past_subject(p, &s, 9, 9, "o isp a b gw", B, "");
    for (uint64_t i = from; i < from + n; i++) {
        uint64_t k = sip_pair(&p->keys, SIP_MISC, 0xf100d, i);
        struct replication_signals out;

        if (i % 1024 == 0) {
            struct store_figures f;

            arena_free(&p->arena);
            p->arena = arena_new();
            past_subject(p, &s, 9, 9, "o isp a b gw", B, "");
            store_memory_figures(store, &f);
            most = f.bytes > most ? f.bytes : most;
        }
        memcpy(s.fp.k.byte, &k, sizeof(k));
        observe(p, store, &s, &out);
        settle(store, &s, &out, FATE_PASSED);
    }
    return most;
}

static void test_a_flood_of_invented_messages_is_bounded(void **state)
{
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
    enum { FLOOD = 200000 };
#else
    enum { FLOOD = 2000000 };
#endif
    static const uint64_t BUDGET = 16 << 20;
    struct past p;
    struct subject s;
    struct replication_signals out;
    struct store_figures f;
    struct store *store;

    (void)state;
    past_open(&p);
    store = store_memory_open(&p.site, BUDGET);
    assert_int_equal(seen_after(&p, store, 1, "o isp", 0, false), REL_FIRST);
    assert_int_equal(seen_after(&p, store, 1, "o isp sbs^ smart", 0, false), REL_DETOUR);
    assert_int_equal(seen_after(&p, store, 2, "o isp", 0, false), REL_FIRST);
    assert_true(flood(&p, store, 0, FLOOD) <= BUDGET);
    store_memory_figures(store, &f);
    assert_true(f.records + f.evicted == FLOOD + 2);
    assert_true(f.records > 10000);
    past_subject(&p, &s, 1, 1, "o isp sbs^/2 smart", B, ""); /* the storm is remembered */
    assert_int_equal(observe(&p, store, &s, &out), REL_DETOUR);
    assert_int_equal(out.copy[0].advice, ADVICE_HOLD);
    past_subject(&p, &s, 2, 1, "o isp", B, ""); /* what was seen once is not */
    assert_int_equal(observe(&p, store, &s, &out), REL_FIRST);
    store_close(&store);
    past_close(&p);
}

/* --- threads --- */

struct worker {
    struct store *store;
    unsigned number;
    size_t first, further;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    struct past p;

    past_open(&p);
    for (uint64_t i = 0; i < 4000; i++) {
        struct subject s;
        struct replication_signals out;
        struct report report;
        struct tally t = {.kind = TALLY_COUNT, .key = i % 7 + 1, .amount = 1};

        arena_free(&p.arena);
        p.arena = arena_new();
        past_subject(&p, &s, i % 1000, 1, "o isp gw", B, "");
        observe(&p, w->store, &s, &out);
        out.copy[0].relation == REL_FIRST ? w->first++ : w->further++;
        settle(w->store, &s, &out, FATE_PASSED);
        told(w->store, t, s.now);
        asked(w->store, t, s.now);
        if (w->number == 0 && i % 64 == 0) /* from one thread */
            w->store->ops->tick(w->store, s.now);
        if (i % 100 == 0)
            w->store->ops->report(w->store, &out.k, p.arena, &report);
    }
    past_close(&p);
    return NULL;
}

static void test_threads_agree(void **state)
{
    struct past p;
    struct store *store;
    struct worker w[4];
    pthread_t thread[4];
    size_t first = 0, further = 0;
    double total = 0;

    (void)state;
    past_open(&p);
    store = store_memory_open(&p.site, ROOM);
    for (unsigned i = 0; i < 4; i++) {
        w[i] = (struct worker){.store = store, .number = i};
        assert_int_equal(pthread_create(&thread[i], NULL, work, &w[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(thread[i], NULL);
        first += w[i].first;
        further += w[i].further;
    }
    assert_int_equal(first, 1000); /* every message was first exactly once */
    assert_int_equal(further, 15000);
    for (uint64_t k = 1; k <= 7; k++)
        total += asked(store, (struct tally){.kind = TALLY_COUNT, .key = k}, 1000000000000);
    assert_true(total == 16000);
    store_close(&store);
    past_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_none_forgets),
        cmocka_unit_test(test_memory_remembers),
        cmocka_unit_test(test_reused_message_id_is_another_message),
        cmocka_unit_test(test_life),
        cmocka_unit_test(test_tallies),
        cmocka_unit_test(test_invented_keys_do_not_push_out_what_counts),
        cmocka_unit_test(test_a_flood_of_invented_messages_is_bounded),
        cmocka_unit_test(test_threads_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
