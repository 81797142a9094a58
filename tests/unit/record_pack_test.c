/* record_pack_test.c - a record as bytes and back decides like the one it was made from. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "past.h"

static uint64_t dice_state;

static uint32_t dice(uint32_t sides)
{
    dice_state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = dice_state;
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)((z >> 32) % sides);
}

/* Copies of one message by a few hosts for a few recipients, some of them going round. */
static void any_subject(struct past *p, struct subject *s, int64_t now)
{
    static const char *const host[] = {"o",   "isp",    "isp/2", "sbs.c.example[192.0.2.9]^",
                                       "gw=", "relay/", "smart", "mx.d.example@d@d.example"};
    char path[300] = "o", rcpts[200] = "", visible[400] = "";
    for (uint32_t i = 0, n = 1 + dice(5); i < n; i++) {
        const char *h = host[dice(8)];
        snprintf(path + strlen(path), 60, h[strlen(h) - 1] == '/' ? " %s%u" : " %s", h, dice(9));
    }
    for (uint32_t i = 0, n = 1 + dice(4); i < n; i++)
        snprintf(rcpts + strlen(rcpts), 30, "r%u@d%u.example ", dice(9), dice(3));
    for (uint32_t i = 0; i < 9; i++)
        snprintf(visible + strlen(visible), 30, "r%u@d%u.example ", i, i % 3);
    past_subject(p, s, 1, 100 + dice(3), arena_printf(p->arena, "%s", path),
                 arena_printf(p->arena, "%s", rcpts), arena_printf(p->arena, "%s", visible));
    s->fp.sketch.n = 8;
    for (uint32_t i = 0; i < 8; i++)
        s->fp.sketch.value[i] = 1000 + i;
    s->fp.date = SPAN("1138036800");
    s->now = now;
    if (dice(4) == 0)
        s->fp.list_id = dice(2) ? SPAN("a.list") : SPAN("another.list");
}

static void copies_alike(const struct replication_signals *a, const struct replication_signals *b,
                         size_t n)
{
    assert_int_equal(a->copies, b->copies);
    assert_int_equal(a->duplicates, b->duplicates);
    assert_int_equal(a->storm, b->storm);
    assert_int_equal(a->convicted, b->convicted);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(a->copy[i].relation, b->copy[i].relation);
        assert_int_equal(a->copy[i].advice, b->copy[i].advice);
        assert_int_equal(a->copy[i].copies, b->copy[i].copies);
    }
}

static struct record *again(const struct record *r)
{
    size_t n, m;
    uint8_t *bytes = record_pack(r, &n);
    struct record *copy = record_unpack(span_of(bytes, n));
    assert_non_null(copy);
    uint8_t *second = record_pack(copy, &m);
    assert_int_equal(n, m);
    assert_memory_equal(bytes, second, n);
    free(bytes);
    free(second);
    return copy;
}

static enum fate any_fate(unsigned advice)
{
    if (dice(12) == 0)
        return FATE_ABORTED;
    if (advice == ADVICE_HOLD)
        return dice(5) ? FATE_HELD : FATE_WOULD_HOLD;
    return FATE_PASSED;
}

static void observe(struct record *r, const struct subject *s, struct replication_signals *out)
{
    struct tallies none = {0};
    struct observation o;
    replication_observation(&o, s, &none);
    memset(out, 0, sizeof *out);
    (void)replication_observe(r, &o, out);
}

/* One record lives on; its twin is packed and unpacked before every transaction. */
static void a_packed_record_decides_like_the_original(void **state)
{
    (void)state;
    for (unsigned stream = 0; stream < 150; stream++) {
        struct past p;
        past_open(&p);
        dice_state = stream * 977;
        struct record *live = record_new(0), *twin = record_new(0);
        for (int64_t t = 1; t < 40; t++) {
            struct subject s;
            struct replication_signals a, b;
            any_subject(&p, &s, t * 60000);
            struct record *fresh = again(twin);
            record_free(&twin);
            twin = fresh;
            observe(live, &s, &a);
            observe(twin, &s, &b);
            size_t n = s.envelope->nrecipients;
            copies_alike(&a, &b, n);
            uint64_t rcpt[8];
            enum fate fate[8];
            for (size_t i = 0; i < n; i++) {
                rcpt[i] = s.envelope->recipients[i].hash;
                fate[i] = any_fate(a.copy[i].advice);
            }
            if (dice(10) == 0)
                continue; /* left pending */
            record_settle(live, rcpt, fate, n);
            record_settle(twin, rcpt, fate, n);
        }
        struct record *last = again(live);
        record_free(&last);
        record_free(&live);
        record_free(&twin);
        past_close(&p);
    }
}

static struct record *a_storm(struct past *p, unsigned copies)
{
    struct record *r = record_new(0);
    for (unsigned i = 0; i < copies; i++) {
        struct subject s;
        struct replication_signals out;
        any_subject(p, &s, i * 60000);
        observe(r, &s, &out);
        for (size_t k = 0; k < s.envelope->nrecipients; k++) {
            enum fate fate = any_fate(out.copy[k].advice);
            record_settle(r, &s.envelope->recipients[k].hash, &fate, 1);
        }
    }
    return r;
}

static void bytes_cut_short_or_too_long_are_refused(void **state)
{
    (void)state;
    struct past p;
    past_open(&p);
    dice_state = 5;
    struct record *r = a_storm(&p, 30);
    size_t n;
    uint8_t *bytes = record_pack(r, &n);
    for (size_t cut = 0; cut < n; cut++) {
        uint8_t *exact = malloc(cut ? cut : 1); /* reading beyond is seen by the sanitizer */
        memcpy(exact, bytes, cut);
        assert_null(record_unpack(span_of(exact, cut)));
        free(exact);
    }
    uint8_t *longer = calloc(1, n + 1);
    memcpy(longer, bytes, n);
    assert_null(record_unpack(span_of(longer, n + 1)));
    free(longer);
    free(bytes);
    record_free(&r);
    past_close(&p);
}

/* What is read from flipped bytes is nothing, or a record that can be used. */
static void damaged_bytes_give_nothing_or_a_sound_record(void **state)
{
    (void)state;
    struct past p;
    past_open(&p);
    dice_state = 6;
    struct record *r = a_storm(&p, 30);
    size_t n;
    uint8_t *bytes = record_pack(r, &n);
    assert_int_equal(bytes[0], 3);
    bytes[0] = 2;
    assert_null(record_unpack(span_of(bytes, n))); /* another version */
    bytes[0] = 3;
    for (unsigned i = 0; i < 3000; i++) {
        size_t at = 1 + dice((uint32_t)n - 1);
        uint8_t was = bytes[at];
        bytes[at] = (uint8_t)dice(256);
        struct record *got = record_unpack(span_of(bytes, n));
        if (got) {
            struct subject s;
            struct replication_signals out;
            any_subject(&p, &s, 99 * 60000);
            observe(got, &s, &out);
            record_abandon(got);
            record_free(&got);
        }
        bytes[at] = was;
    }
    free(bytes);
    record_free(&r);
    past_close(&p);
}

static void a_retired_record_still_knows_who_had_it(void **state)
{
    (void)state;
    struct past p;
    past_open(&p);
    dice_state = 7;
    struct record *r = a_storm(&p, 60);
    size_t before = record_bytes(r);
    assert_true(r->storm);
    bool had[9][3];
    char address[40];
    for (unsigned i = 0; i < 27; i++) {
        snprintf(address, sizeof address, "r%u@d%u.example", i / 3, i % 3);
        had[i / 3][i % 3] = record_passed(r, keys_address(&p.keys, span_str(address), NULL));
    }
    record_retire(r);
    assert_true(record_bytes(r) < before / 2);
    struct record *back = again(r);
    unsigned n = 0;
    for (unsigned i = 0; i < 27; i++) {
        snprintf(address, sizeof address, "r%u@d%u.example", i / 3, i % 3);
        uint64_t rcpt = keys_address(&p.keys, span_str(address), NULL);
        assert_int_equal(record_passed(back, rcpt), had[i / 3][i % 3]);
        n += record_passed(back, rcpt);
    }
    assert_true(n > 5);
    /* who had it gets no more; who had none gets the first */
    struct subject s;
    struct replication_signals out;
    snprintf(address, sizeof address, "%s", had[0][0] ? "r0@d0.example" : "r1@d1.example");
    past_subject(&p, &s, 1, 100, "o isp sbs.c.example[192.0.2.9]^ back", address, address);
    observe(back, &s, &out);
    assert_int_equal(out.copy[0].advice, ADVICE_HOLD);
    past_subject(&p, &s, 1, 100, "o isp sbs.c.example[192.0.2.9]^ back", "new@n.example", address);
    observe(back, &s, &out);
    assert_int_equal(out.copy[0].relation, REL_FIRST);
    assert_int_not_equal(out.copy[0].advice, ADVICE_HOLD);
    record_free(&back);
    record_free(&r);
    past_close(&p);
}

static void what_was_pending_when_the_process_ended_was_never_there(void **state)
{
    (void)state;
    struct past p;
    past_open(&p);
    struct record *r = record_new(0);
    struct subject s;
    struct replication_signals out;
    past_subject(&p, &s, 1, 1, "o isp gw", "b@b.example", "");
    observe(r, &s, &out);
    struct record *back = again(r);
    record_abandon(back);
    observe(back, &s, &out);
    assert_int_equal(out.copy[0].relation, REL_FIRST);
    record_free(&back);
    record_free(&r);
    past_close(&p);
}

static void digests_differ_by_key_and_recipient_and_lead_to_the_shard(void **state)
{
    (void)state;
    enum { N = 20000 };
    static uint64_t seen[1 << 16];
    unsigned same = 0;
    for (uint64_t i = 0; i < N; i++) {
        struct key k = {{0}};
        uint64_t word = (i / 100 + 1) * UINT64_C(0x9e3779b97f4a7c15);
        memcpy(k.byte, &word, sizeof word);
        k.byte[8] = (uint8_t)(i / 100);
        uint64_t d = record_digest(&k, i % 100 * UINT64_C(0xc4ceb9fe1a85ec53));
        assert_int_equal(d & 63, word & 63);
        same += seen[d >> 48] == d;
        seen[d >> 48] = d;
    }
    assert_int_equal(same, 0);
    struct key a = {{1, 2, 3}}, b = {{1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 1}};
    assert_true(record_digest(&a, 5) != record_digest(&b, 5));
    assert_true(record_digest(&a, 5) != record_digest(&a, 6));
}

/* Ids of acceptances have 32 bits: in a large record two can be alike. */
static void two_acceptances_of_one_id_make_a_record_that_unpacks(void **state)
{
    (void)state;
    struct past p;
    struct subject one, other;
    past_open(&p);
    past_subject(&p, &one, 1, 1, "o isp gw mx", "b@b.example", "");
    past_subject(&p, &other, 1, 1, "x y z relay mx2", "c@c.example", "");
    for (size_t i = 0; i < one.path.n; i++)
        for (size_t k = 0; k < other.path.n; k++) {
            struct replication_signals out;
            struct record *r = record_new(0);
            uint32_t id = other.path.node[k].prefix_id;
            observe(r, &one, &out);
            other.path.node[k].prefix_id = one.path.node[i].prefix_id;
            observe(r, &other, &out);
            struct record *copy = again(r);
            other.path.node[k].prefix_id = id;
            record_free(&copy);
            record_free(&r);
        }
    past_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_packed_record_decides_like_the_original),
        cmocka_unit_test(two_acceptances_of_one_id_make_a_record_that_unpacks),
        cmocka_unit_test(bytes_cut_short_or_too_long_are_refused),
        cmocka_unit_test(damaged_bytes_give_nothing_or_a_sound_record),
        cmocka_unit_test(a_retired_record_still_knows_who_had_it),
        cmocka_unit_test(what_was_pending_when_the_process_ended_was_never_there),
        cmocka_unit_test(digests_differ_by_key_and_recipient_and_lead_to_the_shard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
