/* event_test.c - what is folded from events is what was observed: the same record, the same
 * signals, on every node. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "alias.h"
#include "bloomring.h"
#include "event.h"
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

static bool one_in(uint32_t n)
{
    return dice(n) == 0;
}

/* ---- any message ---- */

enum { PEOPLE = 40, DOMAINS = 12, RCPTS_MOST = 630 };

/* What one stream of messages has in common. */
struct stream {
    struct past p;
    struct span exempt[2];
    struct bloomring *ring;
    struct key k;
    uint32_t shown; /* visible addresses */
    bool storm;     /* a server of an addressee sends it on and on */
    bool tiny;      /* texts of a few words */
    int64_t now;
    const char *former; /* path of the transaction before */
};

static void people(char *out, uint32_t n, uint32_t of)
{
    size_t at = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t who = n == of ? i : dice(of);
        at += (size_t)sprintf(out + at, "r%u@d%u.example ", who, who % DOMAINS);
    }
}

static const char *any_path(struct stream *st)
{
    static const char *const host[] = {"isp",
                                       "isp/2",
                                       "isp/3",
                                       "sbs.d2.example[192.0.2.9]^",
                                       "sbs.d3.example[192.0.2.10]^",
                                       "home~",
                                       "gw=",
                                       "gw/2=",
                                       "relay.relay.example[198.51.100.7]",
                                       "mx.d5.example@r5@d5.example",
                                       "mx.d5.example[192.0.2.33]@r17@d5.example",
                                       "mx.d7.example@nobody@elsewhere.example",
                                       "?",
                                       "hub.list.example[203.0.113.4]"};
    char path[800];
    size_t at = (size_t)sprintf(path, "%s",
                                one_in(8)    ? "o2[192.0.2.200]"
                                : one_in(30) ? "o^"
                                             : "o");
    for (uint32_t i = 0, n = dice(6); i < n; i++) {
        at += (size_t)sprintf(path + at, " %s", host[dice(sizeof host / sizeof *host)]);
        if (one_in(3))
            continue;
        at += (size_t)sprintf(path + at, " h%u/%u", dice(4), dice(20));
    }
    if (st->storm && !one_in(4))
        sprintf(path + at, " sbs.d2.example[192.0.2.9]/%u^ out%u", dice(1000), dice(2));
    return arena_printf(st->p.arena, "%s", path);
}

/* The second line of a mailbox is not the first: names that people's servers call each other. */
static void any_helos(struct past *p, struct subject *s)
{
    static const char *const helo[] = {"mail.d2.example", "d5.example", "relay.example",
                                       "localhost",       "",           "192.0.2.4"};
    for (size_t i = 1; i < s->path.n; i++) {
        struct node *n = &s->path.node[i];
        if (!n->hop || !one_in(3))
            continue;
        struct hop *h = arena_alloc(p->arena, sizeof *h);
        *h = *n->hop;
        h->helo = span_str(helo[dice(6)]);
        n->hop = h;
    }
    if (one_in(3))
        ((struct envelope *)s->envelope)->helo = span_str(helo[dice(6)]);
}

/* A text of a family: words and a sketch, and what was added at its end or its head. */
static void any_content(struct stream *st, struct fingerprints *fp)
{
    struct past *p = &st->p;
    uint32_t family = one_in(40) ? 1 + dice(3) : 0;
    uint32_t old = st->tiny ? 1 + dice(2) * 3 : 60, head = one_in(5) ? dice(5) : 0;
    uint32_t foot = one_in(3) ? dice(12) : 0, n = head + old + foot;
    uint64_t *word = arena_alloc(p->arena, (n + 1) * sizeof *word);
    for (uint32_t i = 0; i < n; i++) {
        bool added = i < head || i >= head + old;
        word[i] = sip_pair(&p->keys, SIP_WORD, family + 10, added ? 1000 + i : i - head);
    }
    fp->word = word;
    fp->nwords = n;
    fp->f = fingerprint_f_of(&p->keys, fp, n, false);
    fp->sketch.n = n < MIN_WORDS ? 0 : (uint8_t)(SKETCH_MAX - dice(3) * 8);
    for (uint32_t i = 0; i < fp->sketch.n; i++)
        fp->sketch.value[i] = (family + 1) * 1000 + i * 7 + (one_in(16) ? 1 + dice(3) : 0);
    fp->from = SPAN("a@author.example");
    if (!one_in(10))
        fp->date = SPAN("999999990");
}

static void any_subject(struct stream *st, struct subject *s)
{
    static char rcpts[RCPTS_MOST * 24], shown[RCPTS_MOST * 24];
    struct past *p = &st->p;
    uint32_t n = one_in(40) ? 1 + dice(RCPTS_MOST) : 1 + dice(one_in(5) ? 12 : 2);
    rcpts[0] = shown[0] = 0;
    people(rcpts, n, n > PEOPLE ? RCPTS_MOST : PEOPLE);
    people(shown, st->shown, st->shown);
    st->former = st->former && one_in(4) ? st->former : any_path(st);
    past_subject(p, s, 1, 1, st->former, arena_printf(p->arena, "%s", rcpts),
                 arena_printf(p->arena, "%s", shown));
    s->fp.k = st->k;
    s->talk.base_hash = 77;
    s->now = st->now;
    any_helos(p, s);
    any_content(st, &s->fp);
    s->path.cycle = one_in(20) ? 2 + dice(2) : 0;
    ((struct envelope *)s->envelope)->acked = one_in(4);
    if (one_in(6))
        s->fp.list_id = one_in(2) ? SPAN("a.list") : SPAN("another.list");
    s->fp.list_marked = s->fp.list_id.n || one_in(20);
    if (one_in(15))
        s->visible.connector = one_in(2) ? SPAN("mspop3connector.x@d2.example")
                                         : SPAN("mspop3connector.y@elsewhere.example");
}

static void any_observation(struct stream *st, const struct subject *s, struct observation *o,
                            struct guise *g)
{
    uint32_t *ordinary = arena_zero(st->p.arena, s->path.n * sizeof *ordinary);
    bool *known = arena_zero(st->p.arena, s->path.n), *direct = arena_zero(st->p.arena, s->path.n);
    *o = (struct observation){
        .subject = s, .ordinary = ordinary, .known = known, .direct = direct, .k = st->k};
    for (size_t i = 0; i < s->path.n; i++) {
        ordinary[i] = one_in(3) ? dice(100000) : 0;
        known[i] = one_in(30);
        direct[i] = one_in(10);
    }
    o->transit = one_in(15);
    o->ring = one_in(4) ? NULL : st->ring;
    o->whole = one_in(2) ? 0 : INT64_C(999999980000);
    if (one_in(4)) {
        guise_read(g, o);
        o->origin = &g->origin;
    }
    if (!one_in(8))
        return;
    o->join = JOIN_NAME + dice(JOINS - JOIN_NAME);
    o->join_why = one_in(6) ? NULL : "its oldest Received field is that of an earlier message";
    o->join_weak = one_in(2);
}

static void stream_open(struct stream *st, unsigned number)
{
    memset(st, 0, sizeof *st);
    past_open(&st->p);
    dice_state = number * UINT64_C(7919);
    st->exempt[0] = SPAN("postmaster@*");
    st->exempt[1] = SPAN("r3@*");
    st->p.site.exempt = st->exempt;
    st->p.site.nexempt = 2;
    memcpy(st->k.byte, "any message", 11);
    st->shown = one_in(12) ? RCPTS_MOST : dice(3) * 15 + dice(3);
    st->storm = one_in(2);
    st->tiny = one_in(4);
    st->now = 1000000000000;
    st->ring = bloomring_new(
        &(struct bloomring_size){.keep = 1LL << 40, .error = 1e-3, .budget = 1 << 20});
    for (uint32_t i = 0; i < PEOPLE; i += 7) {
        const char *who = arena_printf(st->p.arena, "r%u@d%u.example", i, i % DOMAINS);
        uint64_t hash = keys_address(&st->p.keys, span_str(who), NULL);
        bloomring_add(st->ring, record_digest(&st->k, hash), st->now);
    }
}

static void stream_close(struct stream *st)
{
    bloomring_free(&st->ring);
    past_close(&st->p);
}

/* ---- comparing ---- */

static void texts_alike(const char *a, const char *b)
{
    assert_int_equal(a == NULL, b == NULL);
    if (a)
        assert_string_equal(a, b);
}

static void signals_alike(const struct replication_signals *a, const struct replication_signals *b,
                          size_t n)
{
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(a->copy[i].relation, b->copy[i].relation);
        assert_int_equal(a->copy[i].advice, b->copy[i].advice);
        assert_int_equal(a->copy[i].rule, b->copy[i].rule);
        assert_int_equal(a->copy[i].copies, b->copy[i].copies);
        assert_int_equal(a->copy[i].seen, b->copy[i].seen);
        assert_int_equal(a->copy[i].passed, b->copy[i].passed);
        assert_int_equal(a->copy[i].at, b->copy[i].at);
        assert_int_equal(a->copy[i].seen_before, b->copy[i].seen_before);
    }
    assert_int_equal(a->known, b->known);
    assert_int_equal(a->storm, b->storm);
    assert_int_equal(a->rested, b->rested);
    texts_alike(a->join, b->join);
    texts_alike(a->join_why, b->join_why);
    assert_int_equal(a->variant, b->variant);
    assert_int_equal(a->convicted, b->convicted);
    assert_int_equal(a->duplicates, b->duplicates);
    assert_int_equal(a->copies, b->copies);
    assert_true(span_eq(a->blamed, b->blamed));
    assert_int_equal(a->blamed_id, b->blamed_id);
    texts_alike(a->conviction, b->conviction);
    assert_int_equal(a->nlearned, b->nlearned);
    for (size_t i = 0; i < a->nlearned; i++)
        assert_int_equal(a->learned[i], b->learned[i]);
    assert_int_equal(a->degraded, b->degraded);
}

static void records_alike(const struct record *a, const struct record *b)
{
    size_t n, m;
    uint8_t *x = record_pack(a, &n), *y = record_pack(b, &m);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
    free(x);
    free(y);
}

/* ---- the fold ---- */

/* One record seen directly, folded on the node that saw it, and folded on another node, which
 * exempts nobody, remembers nothing and has its own arena. */
struct nodes {
    struct stream *st;
    struct record *seen, *here, *there;
    struct site other;
    unsigned applied, conflicts, unfit, storms, duplicates, first, again, whole;
};

static void nodes_open(struct nodes *n, struct stream *st)
{
    n->st = st;
    n->seen = record_new(st->now);
    n->here = record_new(0);
    n->there = record_new(7 + st->now);
    n->other = st->p.site;
    n->other.exempt = NULL;
    n->other.nexempt = 0;
}

static void nodes_close(struct nodes *n)
{
    record_free(&n->seen);
    record_free(&n->here);
    record_free(&n->there);
}

static enum event_applied fold_there(struct nodes *n, struct span event)
{
    struct arena *a = arena_new();
    enum event_applied applied = event_apply(n->there, event, &n->other, &n->st->p.keys, a, NULL);
    arena_free(&a);
    return applied;
}

static void fold_alike(struct nodes *n, struct span event)
{
    struct past *p = &n->st->p;
    assert_int_equal(event_apply(n->here, event, &p->site, &p->keys, p->arena, NULL), EVENT_OK);
    assert_int_equal(fold_there(n, event), EVENT_OK);
}

static void any_settle(struct nodes *n, const struct envelope *e,
                       const struct replication_signals *out)
{
    static uint64_t rcpt[RCPTS_MOST];
    static enum fate fate[RCPTS_MOST];
    struct arena *a = n->st->p.arena;
    uint8_t *bytes;
    enum fate same = (enum fate)dice(FATE_ABORTED + 1);
    bool mixed = one_in(6);
    size_t count = 0;
    for (size_t i = 0; i < e->nrecipients; i++) {
        if (mixed && one_in(5))
            continue; /* stays pending */
        rcpt[count] = e->recipients[i].hash;
        fate[count] = out->copy[i].advice == ADVICE_HOLD ? FATE_HELD : FATE_PASSED;
        if (mixed)
            fate[count] = one_in(5) ? same : fate[count];
        count++;
    }
    size_t size = event_fates(a, dice(1000), 2, n->st->now, rcpt, fate, count, &bytes);
    record_settle(n->seen, rcpt, fate, count);
    fold_alike(n, span_of(bytes, size));
    records_alike(n->seen, n->here);
}

static void compact(struct nodes *n)
{
    uint8_t *bytes;
    size_t size = event_record(n->st->p.arena, n->here, 5, 1, n->st->now, &bytes);
    struct record *fresh = record_new(7);
    record_free(&n->there);
    n->there = fresh;
    fold_alike(n, span_of(bytes, size));
}

/* A form that does not fit is refused everywhere, and changes nothing. */
static void refuse_unfit(struct nodes *n, const struct observation *o, enum event_kind fitting)
{
    uint8_t *bytes;
    enum event_kind form = fitting == EVENT_FIRST ? EVENT_AGAIN : EVENT_FIRST;
    if (o->join && form == EVENT_FIRST)
        return;
    size_t size = event_observation(n->st->p.arena, o, form, 3, 1, &bytes), was;
    uint8_t *before = record_pack(n->there, &was);
    assert_int_equal(fold_there(n, span_of(bytes, size)), EVENT_UNFIT);
    struct record *unchanged = record_unpack(span_of(before, was));
    records_alike(n->there, unchanged);
    record_free(&unchanged);
    free(before);
    n->unfit++;
}

static void one_message(struct nodes *n)
{
    struct stream *st = n->st;
    struct past *p = &st->p;
    struct subject s;
    struct observation o;
    struct guise g;
    struct replication_signals direct = {0}, folded = {0};
    uint8_t *bytes;
    if (!record_empty(n->seen))
        st->now += one_in(50) ? 86400000 + dice(9) : one_in(20) ? -(int64_t)dice(400) : dice(60000);
    any_subject(st, &s);
    any_observation(st, &s, &o, &g);
    if (one_in(30))
        compact(n);
    enum event_kind form = event_form_for(n->here, &o);
    if (one_in(10))
        refuse_unfit(n, &o, form);
    if (one_in(8))
        form = EVENT_WHOLE;
    size_t size = event_observation(p->arena, &o, form, dice(99), 1, &bytes);
    enum observed observed = replication_observe(n->seen, &o, &direct);
    enum event_applied applied =
        event_apply(n->here, span_of(bytes, size), &p->site, &p->keys, p->arena, &folded);
    assert_int_equal(fold_there(n, span_of(bytes, size)), applied);
    assert_int_equal(applied, observed == OBSERVED_OK ? EVENT_OK : EVENT_CONFLICT);
    records_alike(n->seen, n->here);
    records_alike(n->seen, n->there);
    n->conflicts += applied == EVENT_CONFLICT;
    if (applied == EVENT_CONFLICT)
        return;
    n->applied++;
    n->first += form == EVENT_FIRST;
    n->again += form == EVENT_AGAIN;
    n->whole += form == EVENT_WHOLE;
    signals_alike(&direct, &folded, s.envelope->nrecipients);
    n->duplicates += direct.duplicates > 0;
    if (!one_in(12))
        any_settle(n, s.envelope, &direct);
}

static void a_fold_is_what_was_observed(void **state)
{
    (void)state;
    struct nodes n = {0};
    for (unsigned i = 0; i < 900; i++) {
        struct stream st;
        stream_open(&st, i);
        nodes_open(&n, &st);
        for (unsigned k = 0; k < 32; k++)
            one_message(&n);
        struct report a, b;
        replication_report(n.seen, &st.p.site, st.p.arena, &a);
        replication_report(n.there, &n.other, st.p.arena, &b);
        assert_int_equal(a.nculprits, b.nculprits);
        for (size_t c = 0; c < a.nculprits; c++) {
            assert_true(span_eq(a.culprits[c].relay, b.culprits[c].relay));
            assert_int_equal(a.culprits[c].nevidence, b.culprits[c].nevidence);
            for (size_t e = 0; e < a.culprits[c].nevidence; e++)
                assert_string_equal(a.culprits[c].evidence[e], b.culprits[c].evidence[e]);
        }
        n.storms += n.seen->storm;
        nodes_close(&n);
        stream_close(&st);
    }
    print_message("%u applied (%u first, %u again, %u whole), %u with duplicates, %u conflicts, "
                  "%u unfit, %u storms\n",
                  n.applied, n.first, n.again, n.whole, n.duplicates, n.conflicts, n.unfit,
                  n.storms);
    assert_true(n.applied > 20000 && n.duplicates > 5000 && n.conflicts > 300 && n.unfit > 500);
    assert_true(n.first > 500 && n.again > 5000 && n.whole > 2000 && n.storms > 100);
}

/* ---- sizes ---- */

#define FOUR_HOPS                                                                                  \
    "pc17.firm.example[192.0.2.77] smtp.firm.example[192.0.2.10] "                                 \
    "mx-out03.provider.example[198.51.100.23]/q1 relay1.hoster.example[203.0.113.8]/q2 "           \
    "mail.customer.example[203.0.113.200]/q3"

static size_t size_of(struct past *p, const struct observation *o, enum event_kind form)
{
    uint8_t *bytes;
    return event_observation(p->arena, o, form, UINT64_C(0x1122334455667788), 3, &bytes);
}

/* Five nodes, a text of 400 words, origin and one recipient; then more of everything. */
static void an_event_is_small(void **state)
{
    (void)state;
    static char many[RCPTS_MOST * 24];
    struct past p;
    struct subject s;
    struct guise g;
    struct observation o;
    uint64_t word[400], rcpt[RCPTS_MOST];
    enum fate fate[RCPTS_MOST];
    uint8_t *bytes;
    past_open(&p);
    people(many, RCPTS_MOST, RCPTS_MOST);
    for (unsigned round = 0; round < 3; round++) {
        const char *shown = round ? many : "b@customer.example";
        past_subject(&p, &s, 1, 1, FOUR_HOPS, round < 2 ? "b@customer.example" : many, shown);
        s.now = INT64_C(1795000000000);
        for (uint32_t i = 0; i < 400; i++)
            word[i] = sip_pair(&p.keys, SIP_WORD, i, i);
        s.fp.word = word;
        s.fp.nwords = 400;
        s.fp.sketch.n = SKETCH_MAX;
        s.fp.from = SPAN("a@firm.example");
        s.fp.date = SPAN("1795000000");
        replication_observation(&o, &s, NULL);
        guise_read(&g, &o);
        o.origin = &g.origin;
        size_t first = size_of(&p, &o, EVENT_FIRST), whole = size_of(&p, &o, EVENT_WHOLE);
        o.origin = NULL; /* of a record that is known nothing of the kind is kept */
        size_t again = size_of(&p, &o, EVENT_AGAIN);
        print_message("%zu recipient%s, %zu shown: first %zu, again %zu, whole %zu bytes\n",
                      s.envelope->nrecipients, s.envelope->nrecipients == 1 ? "" : "s", s.visible.n,
                      first, again, whole);
        size_t others = s.envelope->nrecipients - 1;
        assert_true(first <= 280 + 8 * others);
        assert_true(again <= 300 + 11 * others);
        assert_true(whole <= 600 + 11 * others);
    }
    for (size_t i = 0; i < RCPTS_MOST; i++) {
        rcpt[i] = i;
        fate[i] = FATE_PASSED;
    }
    assert_true(event_fates(p.arena, 1, 3, s.now, rcpt, fate, 1, &bytes) <= 30);
    assert_true(event_fates(p.arena, 1, 3, s.now, rcpt, fate, RCPTS_MOST, &bytes) <=
                30 + 8 * RCPTS_MOST);
    past_close(&p);
}

/* ---- bytes that are no event ---- */

enum { KEPT = 24 };

/* Some events of a stream in their order, and the record they make. */
struct kept {
    struct span event[KEPT];
    size_t n;
    struct record *record;
};

static void keep(struct kept *k, struct stream *st, const uint8_t *bytes, size_t size)
{
    struct past *p = &st->p;
    if (k->n == KEPT)
        return;
    if (event_apply(k->record, span_of(bytes, size), &p->site, &p->keys, p->arena, NULL) ==
        EVENT_OK)
        k->event[k->n++] = span_of(bytes, size);
}

static void keep_some(struct kept *k, struct stream *st)
{
    k->n = 0;
    k->record = record_new(0);
    for (unsigned i = 0; i < 14; i++) {
        struct subject s;
        struct guise g;
        struct observation o;
        uint8_t *bytes;
        enum fate fate = (enum fate)dice(FATE_ABORTED + 1);
        st->now += dice(60000);
        any_subject(st, &s);
        any_observation(st, &s, &o, &g);
        if (s.envelope->nrecipients > 12)
            continue;
        enum event_kind form = event_form_for(k->record, &o);
        size_t size = event_observation(st->p.arena, &o, form, dice(9), dice(400), &bytes);
        keep(k, st, bytes, size);
        size = event_fates(st->p.arena, dice(9), 1, st->now, &s.envelope->recipients[0].hash, &fate,
                           1, &bytes);
        keep(k, st, bytes, size);
    }
    uint8_t *bytes;
    size_t size = event_record(st->p.arena, k->record, 1, 1, st->now, &bytes);
    k->n -= k->n == KEPT;
    keep(k, st, bytes, size);
}

/* The record when the first n events were applied. */
static struct record *folded(const struct kept *k, struct stream *st, size_t n)
{
    struct past *p = &st->p;
    struct record *r = record_new(0);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(event_apply(r, k->event[i], &p->site, &p->keys, p->arena, NULL), EVENT_OK);
    return r;
}

/* Applies it to a copy: refused it changes nothing; else what it makes is a record. */
static enum event_applied try(struct stream *st, const struct record *before, struct span event)
{
    struct past *p = &st->p;
    struct arena *a = arena_new();
    size_t n, m;
    uint8_t *was = record_pack(before, &n);
    struct record *r = record_unpack(span_of(was, n));
    assert_non_null(r);
    uint8_t *bytes = malloc(event.n ? event.n : 1); /* its end is the end of memory */
    assert_non_null(bytes);
    memcpy(bytes, event.p, event.n);
    enum event_applied applied =
        event_apply(r, span_of(bytes, event.n), &p->site, &p->keys, a, NULL);
    free(bytes);
    uint8_t *is = record_pack(r, &m);
    struct record *again = record_unpack(span_of(is, m));
    assert_non_null(again);
    if (applied != EVENT_OK) {
        assert_int_equal(n, m);
        assert_memory_equal(was, is, n);
    }
    record_free(&again);
    record_free(&r);
    arena_free(&a);
    free(was);
    free(is);
    return applied;
}

static void a_part_of_an_event_changes_nothing(void **state)
{
    (void)state;
    for (unsigned number = 0; number < 12; number++) {
        struct stream st;
        struct kept k;
        stream_open(&st, 4000 + number);
        keep_some(&k, &st);
        assert_true(k.n > 6);
        for (size_t i = 0; i < k.n; i++) {
            struct record *before = folded(&k, &st, i);
            struct span e = k.event[i];
            size_t step = e.n > 1000 ? 37 : 1;
            for (size_t n = 0; n < e.n; n += step)
                assert_int_equal(try(&st, before, span_head(e, n)), EVENT_BAD);
            const uint8_t *more = arena_join(st.p.arena, e, SPAN("x"), SPAN("")).p;
            assert_int_equal(try(&st, before, span_of(more, e.n + 1)), EVENT_BAD);
            assert_int_equal(try(&st, before, e), EVENT_OK);
            record_free(&before);
        }
        record_free(&k.record);
        stream_close(&st);
    }
}

static void a_changed_event_is_refused_or_harmless(void **state)
{
    (void)state;
    unsigned refused = 0, applied = 0;
    for (unsigned number = 0; number < 6; number++) {
        struct stream st;
        struct kept k;
        stream_open(&st, 5000 + number);
        keep_some(&k, &st);
        for (size_t i = 0; i < k.n; i++) {
            struct record *before = folded(&k, &st, i);
            struct span e = k.event[i];
            for (size_t bit = 0; bit<8 * e.n; bit += e.n> 400 ? 61 : 1 + dice(6)) {
                uint8_t *other = arena_alloc(st.p.arena, e.n);
                memcpy(other, e.p, e.n);
                other[bit / 8] ^= (uint8_t)(1 << bit % 8);
                bool ok = try(&st, before, span_of(other, e.n)) == EVENT_OK;
                applied += ok;
                refused += !ok;
            }
            record_free(&before);
        }
        record_free(&k.record);
        stream_close(&st);
    }
    assert_true(refused > 1000 && applied > 1000);
}

static void a_head_says_whose_it_is(void **state)
{
    (void)state;
    struct past p;
    struct event_head h;
    uint8_t *bytes;
    uint64_t rcpt = 7;
    enum fate fate = FATE_HELD;
    past_open(&p);
    size_t n = event_fates(p.arena, UINT64_MAX - 3, 70000, 1234567890123, &rcpt, &fate, 1, &bytes);
    assert_true(event_head(span_of(bytes, n), &h));
    assert_int_equal(h.kind, EVENT_FATES);
    assert_true(h.id == UINT64_MAX - 3);
    assert_int_equal(h.node, 70000);
    assert_int_equal(h.now, 1234567890123);
    bytes[0] = (uint8_t)(bytes[0] + 16); /* of the next version */
    assert_false(event_head(span_of(bytes, n), &h));
    struct record *r = record_new(0);
    assert_int_equal(event_apply(r, span_of(bytes, n), &p.site, &p.keys, p.arena, NULL), EVENT_BAD);
    assert_true(record_empty(r));
    record_free(&r);
    assert_false(event_head(span_of("", 0), &h));
    past_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_head_says_whose_it_is),
        cmocka_unit_test(an_event_is_small),
        cmocka_unit_test(a_part_of_an_event_changes_nothing),
        cmocka_unit_test(a_changed_event_is_refused_or_harmless),
        cmocka_unit_test(a_fold_is_what_was_observed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
