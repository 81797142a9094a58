/*
 * record_pack.c - a record as bytes, and back.
 *
 *   version[1] flags[1] variants[1] ring[1]
 *   origin: chain[8] text[8] theme[8] visible[8] nvisible[4] oldest[4] peer[4] source[4]
 *           date[4]
 *   first[8] last[8] copies[8] passed[8] held[8] duplicates[8]
 *   duplicate_transactions[4] joined[4] convicted[4] sweep_at[4]
 *   addressees[4] places[4] more[4] dossiers[4]
 *   variant... more... addressee... (by hash) place... (by id) dossier...
 *
 * Numbers are little-endian. Addressees and places are written in rising order, so equal records
 * make equal bytes, and nothing can be there twice. Only what is used is written.
 *
 * Invariant: record_unpack gives what record.c could have made, or NULL: every index is in range
 * and every path ends.
 */
#include <stdlib.h>
#include <string.h>

#include "record.h"

enum {
    VERSION = 3,
    FLAG_STORM = 1,
    USED_GOT = 1, /* of an addressee */
    HEAD = 4 + 4 * 8 + 5 * 4 + 6 * 8 + 4 * 4 + 4 * 4,
    ADDRESSEE = 8 + 6 * 4 + 2 * 2 + 6,
    PLACE = 4 * 3 + 3,
    MORE = 4 * (ADDRESSEE_LISTS + ADDRESSEE_SERVERS) + 2,
    VARIANT_HEAD = 8 + 4 + 1,
    FEW = 4 * DOSSIER_SET + 1,
    DOSSIER = 4 * 8 + 3 * FEW + 4 + 8 * QUICK_RCPTS + 2 * QUICK_DOMAINS + 4 * 3 + 8 * 2 +
              DOSSIER_NAME + DOSSIER_ADDRESS
};

/* ---- writing ---- */

static uint8_t *put_few(uint8_t *p, const struct few *f)
{
    *p++ = f->n;
    for (unsigned i = 0; i < DOSSIER_SET; i++)
        p = bytes_put(p, f->value[i], 4);
    return p;
}

static uint8_t *put_head(uint8_t *p, const struct record *r)
{
    const struct origin *o = &r->origin;
    *p++ = VERSION;
    *p++ = r->storm ? FLAG_STORM : 0;
    *p++ = r->nvariants;
    *p++ = r->ring;
    p = bytes_put(p, o->chain, 8);
    p = bytes_put(p, o->text, 8);
    p = bytes_put(p, o->theme, 8);
    p = bytes_put(p, o->visible, 8);
    p = bytes_put(p, o->nvisible, 4);
    p = bytes_put(p, o->oldest, 4);
    p = bytes_put(p, o->peer, 4);
    p = bytes_put(p, o->source, 4);
    p = bytes_put(p, o->date, 4);
    p = bytes_put(p, (uint64_t)r->first, 8);
    p = bytes_put(p, (uint64_t)r->last, 8);
    p = bytes_put(p, r->copies, 8);
    p = bytes_put(p, r->passed, 8);
    p = bytes_put(p, r->held, 8);
    p = bytes_put(p, r->duplicates, 8);
    p = bytes_put(p, r->duplicate_transactions, 4);
    p = bytes_put(p, r->joined, 4);
    p = bytes_put(p, r->convicted, 4);
    p = bytes_put(p, r->sweep_at, 4);
    p = bytes_put(p, r->naddressees, 4);
    p = bytes_put(p, r->nplaces, 4);
    p = bytes_put(p, r->nmore, 4);
    return bytes_put(p, r->ndossiers, 4);
}

static uint8_t *put_variant(uint8_t *p, const struct variant *v)
{
    p = bytes_put(p, v->f, 8);
    p = bytes_put(p, v->nwords, 4);
    *p++ = v->sketch.n;
    for (unsigned i = 0; i < v->sketch.n; i++)
        p = bytes_put(p, v->sketch.value[i], 4);
    return p;
}

static uint8_t *put_more(uint8_t *p, const struct more *m)
{
    for (unsigned i = 0; i < ADDRESSEE_LISTS; i++)
        p = bytes_put(p, m->list[i], 4);
    for (unsigned i = 0; i < ADDRESSEE_SERVERS; i++)
        p = bytes_put(p, m->server[i], 4);
    *p++ = m->nlists;
    *p++ = m->nservers;
    return p;
}

static uint8_t *put_addressee(uint8_t *p, const struct addressee *a)
{
    p = bytes_put(p, a->hash, 8);
    p = bytes_put(p, a->leaf[0], 4);
    p = bytes_put(p, a->leaf[1], 4);
    p = bytes_put(p, a->before, 4);
    p = bytes_put(p, a->seen, 4);
    p = bytes_put(p, a->turn, 4);
    p = bytes_put(p, a->more, 4);
    p = bytes_put(p, a->pending, 2);
    p = bytes_put(p, a->passed, 2);
    *p++ = a->extra;
    *p++ = a->same;
    *p++ = a->resend;
    *p++ = a->internal;
    *p++ = a->last;
    *p++ = a->got ? USED_GOT : 0;
    return p;
}

static uint8_t *put_place(uint8_t *p, const struct place *a)
{
    p = bytes_put(p, a->id, 4);
    p = bytes_put(p, a->host, 4);
    p = bytes_put(p, a->parent, 4);
    *p++ = a->depth;
    *p++ = a->kids;
    *p++ = a->direct;
    return p;
}

static uint8_t *put_dossier(uint8_t *p, const struct dossier *d)
{
    const uint32_t counts[8] = {d->server, d->ordinary, d->n,     d->reinjected,
                                d->label,  d->ended,    d->first, d->branch};
    for (unsigned i = 0; i < 8; i++)
        p = bytes_put(p, counts[i], 4);
    p = put_few(p, &d->before);
    p = put_few(p, &d->after);
    p = put_few(p, &d->peers);
    *p++ = (uint8_t)(d->direct | d->pickup << 1 | d->delivers << 2);
    *p++ = d->conviction;
    *p++ = d->nrcpts;
    *p++ = d->ndomains;
    for (unsigned i = 0; i < QUICK_RCPTS; i++)
        p = bytes_put(p, d->rcpt[i], 8);
    for (unsigned i = 0; i < QUICK_DOMAINS; i++)
        p = bytes_put(p, d->domain[i], 2);
    p = bytes_put(p, d->all, 4);
    p = bytes_put(p, d->visible, 4);
    p = bytes_put(p, d->turn, 4);
    p = bytes_put(p, (uint64_t)d->since, 8);
    p = bytes_put(p, (uint64_t)d->until, 8);
    memcpy(p, d->name, DOSSIER_NAME);
    memcpy(p + DOSSIER_NAME, d->addressee, DOSSIER_ADDRESS);
    return p + DOSSIER_NAME + DOSSIER_ADDRESS;
}

static int by_hash(const void *a, const void *b)
{
    uint64_t x = (*(const struct addressee *const *)a)->hash;
    uint64_t y = (*(const struct addressee *const *)b)->hash;
    return (x > y) - (x < y);
}

static int by_id(const void *a, const void *b)
{
    uint32_t x = (*(const struct place *const *)a)->id, y = (*(const struct place *const *)b)->id;
    return (x > y) - (x < y);
}

static uint8_t *put_addressees(uint8_t *p, const struct record *r, const void **order)
{
    size_t n = 0;
    for (uint32_t i = 0; i < r->capaddressees; i++)
        if (r->addressee[i].used)
            order[n++] = &r->addressee[i];
    qsort(order, n, sizeof *order, by_hash);
    for (size_t i = 0; i < n; i++)
        p = put_addressee(p, order[i]);
    return p;
}

static uint8_t *put_places(uint8_t *p, const struct record *r, const void **order)
{
    size_t n = 0;
    for (uint32_t i = 0; i < r->capplaces; i++)
        if (r->place[i].id)
            order[n++] = &r->place[i];
    qsort(order, n, sizeof *order, by_id);
    for (size_t i = 0; i < n; i++)
        p = put_place(p, order[i]);
    return p;
}

static size_t packed_size(const struct record *r)
{
    size_t n = HEAD + (size_t)r->nmore * MORE + (size_t)r->naddressees * ADDRESSEE +
               (size_t)r->nplaces * PLACE + (size_t)r->ndossiers * DOSSIER;
    for (unsigned i = 0; i < r->nvariants; i++)
        n += VARIANT_HEAD + 4u * r->variant[i].sketch.n;
    return n;
}

static void *room(size_t n)
{
    void *p = malloc(n ? n : 1);
    if (!p)
        abort();
    return p;
}

uint8_t *record_pack(const struct record *r, size_t *n)
{
    size_t most = r->naddressees > r->nplaces ? r->naddressees : r->nplaces;
    *n = packed_size(r);
    uint8_t *out = room(*n), *p = put_head(out, r);
    const void **order = room(most * sizeof *order);
    for (unsigned i = 0; i < r->nvariants; i++)
        p = put_variant(p, &r->variant[i]);
    for (uint32_t i = 0; i < r->nmore; i++)
        p = put_more(p, &r->more[i]);
    p = put_addressees(p, r, order);
    p = put_places(p, r, order);
    for (uint32_t i = 0; i < r->ndossiers; i++)
        p = put_dossier(p, &r->dossier[i]);
    free(order);
    return out;
}

/* ---- reading ---- */

static uint32_t get4(struct unpack *in)
{
    return (uint32_t)unpack_get(in, 4);
}

static uint8_t get1(struct unpack *in)
{
    return (uint8_t)unpack_get(in, 1);
}

/* A number that may be at most `most`. */
static uint32_t get_count(struct unpack *in, unsigned bytes, uint32_t most)
{
    uint64_t v = unpack_get(in, bytes);
    in->bad |= v > most;
    return v > most ? 0 : (uint32_t)v;
}

static void get_text(struct unpack *in, char *out, size_t n)
{
    if (in->rest.n < n) {
        in->bad = true;
        return;
    }
    memcpy(out, in->rest.p, n);
    in->bad |= out[n - 1] != 0;
    in->rest = span_from(in->rest, n);
}

static void get_few(struct unpack *in, struct few *f)
{
    f->n = (uint8_t)get_count(in, 1, DOSSIER_SET);
    for (unsigned i = 0; i < DOSSIER_SET; i++)
        f->value[i] = get4(in);
}

/* How many of each there are: checked against the bytes that are left before room is made. */
struct counts {
    uint32_t addressees, places, more, dossiers;
};

static void get_head(struct unpack *in, struct record *r, struct counts *c)
{
    struct origin *o = &r->origin;
    in->bad |= get1(in) != VERSION;
    r->storm = get_count(in, 1, FLAG_STORM) == FLAG_STORM;
    r->nvariants = (uint8_t)get_count(in, 1, K_VARIANTS);
    r->ring = (uint8_t)get_count(in, 1, K_VARIANTS - 2);
    o->chain = unpack_get(in, 8);
    o->text = unpack_get(in, 8);
    o->theme = unpack_get(in, 8);
    o->visible = unpack_get(in, 8);
    o->nvisible = get4(in);
    o->oldest = get4(in);
    o->peer = get4(in);
    o->source = get4(in);
    o->date = get4(in);
    r->first = (int64_t)unpack_get(in, 8);
    r->last = (int64_t)unpack_get(in, 8);
    in->bad |= r->first < 0 || r->last < 0;
    r->copies = unpack_get(in, 8);
    r->passed = unpack_get(in, 8);
    r->held = unpack_get(in, 8);
    r->duplicates = unpack_get(in, 8);
    r->duplicate_transactions = get4(in);
    r->joined = get4(in);
    r->convicted = get4(in);
    r->sweep_at = get4(in);
    c->addressees = get_count(in, 4, ADDRESSEES_MAX);
    c->places = get_count(in, 4, PLACES_MAX);
    c->more = get_count(in, 4, c->addressees);
    c->dossiers = get_count(in, 4, DOSSIERS_MAX);
    in->bad |= (size_t)c->addressees * ADDRESSEE + (size_t)c->places * PLACE +
                   (size_t)c->more * MORE + (size_t)c->dossiers * DOSSIER >
               in->rest.n;
}

static void get_variants(struct unpack *in, struct record *r)
{
    if (r->nvariants > 1) {
        r->variant = calloc(K_VARIANTS, sizeof *r->variant);
        if (!r->variant)
            abort();
    }
    for (unsigned i = 0; i < r->nvariants; i++) {
        struct variant *v = &r->variant[i];
        v->f = unpack_get(in, 8);
        v->nwords = get4(in);
        v->sketch.n = (uint8_t)get_count(in, 1, sizeof v->sketch.value / sizeof *v->sketch.value);
        for (unsigned k = 0; k < v->sketch.n; k++)
            v->sketch.value[k] = get4(in);
    }
}

static void get_more(struct unpack *in, struct record *r, uint32_t n)
{
    r->more = n ? room(n * sizeof *r->more) : NULL;
    r->nmore = r->capmore = n;
    for (uint32_t i = 0; i < n; i++) {
        struct more *m = &r->more[i];
        memset(m, 0, sizeof *m);
        for (unsigned k = 0; k < ADDRESSEE_LISTS; k++)
            m->list[k] = get4(in);
        for (unsigned k = 0; k < ADDRESSEE_SERVERS; k++)
            m->server[k] = get4(in);
        m->nlists = (uint8_t)get_count(in, 1, ADDRESSEE_LISTS);
        m->nservers = (uint8_t)get_count(in, 1, ADDRESSEE_SERVERS);
    }
}

static void get_addressee(struct unpack *in, struct addressee *a, uint32_t nmore)
{
    a->leaf[0] = get4(in);
    a->leaf[1] = get4(in);
    a->before = get4(in);
    a->seen = get4(in);
    a->turn = get4(in);
    a->more = get_count(in, 4, nmore);
    a->pending = (uint16_t)unpack_get(in, 2);
    a->passed = (uint16_t)unpack_get(in, 2);
    a->extra = get1(in);
    a->same = get1(in);
    a->resend = get1(in);
    a->internal = get1(in);
    a->last = (uint8_t)get_count(in, 1, ALLOWANCE_INTERNAL);
    a->got = get_count(in, 1, USED_GOT) == USED_GOT;
}

/* Is there what an aborted copy would give back? */
static bool can_give_back(const struct record *r, const struct addressee *a)
{
    switch ((enum allowance)a->last) {
    case ALLOWANCE_EXTRA:
        return a->extra;
    case ALLOWANCE_SAME:
        return a->same;
    case ALLOWANCE_RESEND:
        return a->resend;
    case ALLOWANCE_INTERNAL:
        return a->internal;
    case ALLOWANCE_LIST:
        return a->more && r->more[a->more - 1].nlists;
    case ALLOWANCE_NONE:
        break;
    }
    return true;
}

static void get_addressees(struct unpack *in, struct record *r, uint32_t n)
{
    uint64_t before = 0;
    for (uint32_t i = 0; i < n && !in->bad; i++) {
        uint64_t hash = unpack_get(in, 8);
        in->bad |= i && hash <= before;
        before = hash;
        if (in->bad)
            return;
        struct addressee *a = record_add(r, hash);
        get_addressee(in, a, r->nmore);
        in->bad |= !can_give_back(r, a);
    }
}

static void get_places(struct unpack *in, struct record *r, uint32_t n)
{
    uint32_t before = 0;
    for (uint32_t i = 0; i < n && !in->bad; i++) {
        struct place p = {.id = get4(in), .host = get4(in), .parent = get4(in)};
        p.depth = get1(in);
        p.kids = get1(in);
        p.direct = get1(in);
        in->bad |= p.id <= before;
        before = p.id;
        if (!in->bad)
            record_put_place(r, &p);
    }
    /* up the tree it gets shallower: every path ends */
    for (uint32_t i = 0; i < r->capplaces && !in->bad; i++) {
        const struct place *p = &r->place[i], *up = record_place(r, p->parent);
        in->bad |= p->id && p->parent && (!up || up->depth >= p->depth);
    }
}

static void get_dossier(struct unpack *in, struct dossier *d)
{
    uint32_t *const counts[8] = {&d->server, &d->ordinary, &d->n,     &d->reinjected,
                                 &d->label,  &d->ended,    &d->first, &d->branch};
    for (unsigned i = 0; i < 8; i++)
        *counts[i] = get4(in);
    get_few(in, &d->before);
    get_few(in, &d->after);
    get_few(in, &d->peers);
    uint32_t flags = get_count(in, 1, 7);
    d->direct = flags & 1;
    d->pickup = flags & 2;
    d->delivers = flags & 4;
    d->conviction = (uint8_t)get_count(in, 1, CONVICTIONS - 1);
    d->nrcpts = (uint8_t)get_count(in, 1, QUICK_RCPTS);
    d->ndomains = (uint8_t)get_count(in, 1, QUICK_DOMAINS);
    for (unsigned i = 0; i < QUICK_RCPTS; i++)
        d->rcpt[i] = unpack_get(in, 8);
    for (unsigned i = 0; i < QUICK_DOMAINS; i++)
        d->domain[i] = (uint16_t)unpack_get(in, 2);
    d->all = get4(in);
    d->visible = get4(in);
    d->turn = get4(in);
    d->since = (int64_t)unpack_get(in, 8);
    d->until = (int64_t)unpack_get(in, 8);
    get_text(in, d->name, sizeof d->name);
    get_text(in, d->addressee, sizeof d->addressee);
}

static void get_dossiers(struct unpack *in, struct record *r, uint32_t n)
{
    r->dossier = n ? calloc(n, sizeof *r->dossier) : NULL;
    if (n && !r->dossier)
        abort();
    r->ndossiers = r->capdossiers = n;
    for (uint32_t i = 0; i < n; i++)
        get_dossier(in, &r->dossier[i]);
}

struct record *record_unpack(struct span s)
{
    struct unpack in = {.rest = s};
    struct counts c = {0};
    struct record *r = record_new(0);
    get_head(&in, r, &c);
    if (!in.bad) {
        get_variants(&in, r);
        get_more(&in, r, c.more);
        get_addressees(&in, r, c.addressees);
        get_places(&in, r, c.places);
        get_dossiers(&in, r, c.dossiers);
    }
    if (in.bad || in.rest.n)
        record_free(&r);
    return r;
}

/* ---- growing old ---- */

void record_retire(struct record *r)
{
    free(r->place);
    free(r->dossier);
    r->place = NULL;
    r->dossier = NULL;
    r->nplaces = r->capplaces = 0;
    r->ndossiers = r->capdossiers = 0;
    for (uint32_t i = 0; i < r->capaddressees; i++) {
        struct addressee *a = &r->addressee[i];
        a->leaf[0] = a->leaf[1] = a->before = 0;
    }
}

void record_abandon(struct record *r)
{
    const enum fate lost = FATE_ABORTED;
    for (uint32_t i = 0; i < r->capaddressees; i++)
        while (r->addressee[i].used && r->addressee[i].pending)
            record_settle(r, &r->addressee[i].hash, &lost, 1);
}

/* K and the recipient are keyed hashes both: mixing them well is enough. */
uint64_t record_digest(const struct key *k, uint64_t rcpt)
{
    uint64_t head, d;
    uint32_t tail;
    memcpy(&head, k->byte, sizeof head);
    memcpy(&tail, k->byte + sizeof head, sizeof tail);
    d = (head ^ rcpt) * UINT64_C(0xff51afd7ed558ccd);
    d = (d ^ d >> 32 ^ rcpt << 1 ^ tail) * UINT64_C(0xc4ceb9fe1a85ec53);
    d = (d ^ d >> 29 ^ head >> 7) * UINT64_C(0x9e3779b97f4a7c15);
    d ^= d >> 32;
    return (d & ~UINT64_C(63)) | (head & 63);
}
