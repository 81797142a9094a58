/*
 * event_fuzz.c - a log in which honest events and any bytes take turns.
 *
 * Input: steps of a length byte. 0..15: an honest transaction made of the next 6 bytes, observed
 * directly and folded: the same record. Else: so many bytes are an event. 255: the last honest
 * event with a byte changed, the next two bytes say where and how; 254: the record as an event, so
 * changed. What is refused changes nothing;
 * what any log makes is a record that can be packed, read back and reported.
 */
#include <stdlib.h>

#include "event.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
    if (!ok)
        abort();
}

static struct keys keys;
static struct site site;

/* The log so far. direct: what the honest events alone would have made; NULL once others came. */
struct past {
    struct arena *arena;
    struct record *direct, *folded;
    struct span last;
    int64_t now;
};

static bool same(const struct record *a, const struct record *b)
{
    size_t n, m;
    uint8_t *x = record_pack(a, &n), *y = record_pack(b, &m);
    bool equal = n == m && memcmp(x, y, n) == 0;
    free(x);
    free(y);
    return equal;
}

static struct record *copied(const struct record *r)
{
    size_t n;
    uint8_t *bytes = record_pack(r, &n);
    struct record *copy = record_unpack(span_of(bytes, n));
    free(bytes);
    must(copy != NULL);
    return copy;
}

static enum event_applied apply(struct past *p, struct span event)
{
    struct record *before = copied(p->folded);
    uint8_t *bytes = malloc(event.n ? event.n : 1); /* its end is the end of memory */
    must(bytes != NULL);
    if (event.n)
        memcpy(bytes, event.p, event.n);
    struct replication_signals out = {0};
    enum event_applied applied =
        event_apply(p->folded, span_of(bytes, event.n), &site, &keys, p->arena, &out);
    free(bytes);
    struct record *again = copied(p->folded);
    must(same(again, p->folded));
    must(applied == EVENT_OK || same(before, p->folded));
    struct report report;
    replication_report(p->folded, &site, p->arena, &report);
    record_free(&again);
    record_free(&before);
    return applied;
}

/* One of 8 hosts, some of them reinjecting, some "for" somebody. */
static void node_of(struct arena *a, struct node *n, unsigned which, unsigned how, uint32_t before)
{
    static const char *const host[8] = {"o",  "isp",          "sbs.d1.example[192.0.2.9]",
                                        "gw", "a.example",    "mx.d2.example[192.0.2.1]",
                                        "?",  "relay.example"};
    struct hop *h = arena_zero(a, sizeof *h);
    n->server = span_str(host[which]);
    n->host = span_head(n->server, span_find(n->server, '['));
    n->host_hash = sip_hash(&keys, SIP_HOST, n->host);
    n->server_id = (uint32_t)sip_hash(&keys, SIP_HOST, n->server);
    n->prefix_id = (uint32_t)sip_pair(&keys, SIP_EVENT, before, which + how / 4 % 2 * 8);
    n->own = which == 3;
    h->reinjected = which == 2 || how % 7 == 1;
    h->line = which == 2 ? HOP_PICKUP : SPAN("");
    h->helo = how & 1 ? SPAN("d1.example") : SPAN("isp");
    if (how & 2)
        h->for_hash = keys_address(&keys, SPAN("b@d1.example"), NULL);
    n->hop = before ? h : NULL;
}

static void visible_of(struct arena *a, struct visible *v, const struct recipient *who, size_t n)
{
    v->hash = arena_alloc(a, n * sizeof *v->hash);
    v->address = arena_alloc(a, n * sizeof *v->address);
    v->n = v->total = n;
    for (size_t i = 0; i < n; i++) {
        size_t at = i;
        for (; at && v->hash[at - 1] > who[i].hash; at--) {
            v->hash[at] = v->hash[at - 1];
            v->address[at] = v->address[at - 1];
        }
        v->hash[at] = who[i].hash;
        v->address[at] = who[i].address;
    }
}

static void honest(struct past *p, const uint8_t b[6])
{
    static const char *const who[4] = {"b@d1.example", "c@d2.example", "d@d1.example",
                                       "postmaster@d3.example"};
    struct arena *a = p->arena;
    struct envelope e = {.recipients = arena_zero(a, 4 * sizeof(struct recipient)),
                         .helo = SPAN("d2.example"),
                         .acked = b[0] & 1};
    struct recipient all[4] = {0};
    struct subject s = {.arena = a, .site = &site, .keys = &keys, .envelope = &e};
    for (unsigned i = 0; i < 4; i++) {
        all[i].address = span_str(who[i]);
        all[i].hash = keys_address(&keys, all[i].address, &all[i].domain);
        if (b[1] >> i & 1)
            e.recipients[e.nrecipients++] = all[i];
    }
    visible_of(a, &s.visible, all, b[1] >> 4 & 3);
    s.path = (struct path){.node = arena_zero(a, 4 * sizeof(struct node)), .n = 1u + b[1] / 64u};
    for (size_t i = 0; i < s.path.n; i++)
        node_of(a, &s.path.node[i], b[2 + i] % 8, b[2 + i] / 8,
                i ? s.path.node[i - 1].prefix_id : 0);
    s.now = p->now += 1000 + (b[0] & 2 ? 86400000 : 0);
    s.fp.f = b[0] & 4 ? 8 : 9;
    s.fp.nwords = 30;
    s.fp.date = b[0] & 8 ? SPAN("1") : SPAN("");
    s.fp.list_id = b[0] & 16 ? SPAN("a.list") : SPAN("");
    s.fp.list_marked = b[0] & 16;
    s.visible.connector = b[0] & 32 ? SPAN("mspop3connector.b@d1.example") : SPAN("");
    struct observation o;
    replication_observation(&o, &s, NULL);
    o.transit = b[0] & 64;
    uint8_t *bytes;
    enum event_kind form = b[0] & 128 ? EVENT_WHOLE : event_form_for(p->folded, &o);
    size_t n = event_observation(a, &o, form, b[0], b[1], &bytes);
    p->last = span_of(bytes, n);
    struct replication_signals out;
    enum event_applied applied = apply(p, p->last);
    if (!p->direct)
        return;
    if (record_empty(p->direct))
        p->direct->first = p->direct->last = s.now; /* a folded one begins with its first event */
    enum observed observed = replication_observe(p->direct, &o, &out);
    must(applied == (observed == OBSERVED_OK ? EVENT_OK : EVENT_CONFLICT));
    must(same(p->direct, p->folded));
}

static void changed(struct past *p, struct span event, const uint8_t b[2])
{
    if (!event.n)
        return;
    uint8_t *bytes = arena_alloc(p->arena, event.n);
    memcpy(bytes, event.p, event.n);
    bytes[b[0] * event.n / 256] ^= b[1];
    (void)apply(p, span_of(bytes, event.n));
}

static struct span compacted(struct past *p)
{
    uint8_t *bytes;
    size_t n = event_record(p->arena, p->folded, 1, 1, p->now, &bytes);
    return span_of(bytes, n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t key[32] = {3};
    if (!site.exempt) {
        site_defaults(&site);
        must(keys_open(&keys, key) == 0);
    }
    struct past p = {.arena = arena_new(),
                     .direct = record_new(0),
                     .folded = record_new(0),
                     .now = 1000000000000};
    struct span rest = span_of(data, size);
    while (rest.n >= 7) {
        uint8_t step = rest.p[0];
        rest = span_from(rest, 1);
        if (step < 16) {
            honest(&p, rest.p);
            rest = span_from(rest, 6);
            continue;
        }
        record_free(&p.direct);
        if (step >= 254)
            changed(&p, step == 255 ? p.last : compacted(&p), rest.p);
        else
            (void)apply(&p, span_head(rest, step));
        rest = span_from(rest, step >= 254 ? 2 : step);
    }
    record_free(&p.direct);
    record_free(&p.folded);
    arena_free(&p.arena);
    return 0;
}
