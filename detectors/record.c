/*
 * record.c - the memory of one message: tables that grow, and are bounded.
 *
 * Invariant: an addressee's leaves are places, and every place's parent is a place.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "record.h"

static const double SAME_SHARE = 0.6; /* of the smaller text found in the other */
enum { MALLOC_HEAD = 16, PLACES_FIRST = 8, SWEEP_FIRST = 512 };

static void *grown(void *p, size_t n, size_t size)
{
    void *q = realloc(p, n * size);
    if (!q)
        abort();
    return q;
}

static void *zeroed(size_t n, size_t size)
{
    void *p = calloc(n, size);
    if (!p)
        abort();
    return p;
}

struct record *record_new(int64_t now)
{
    struct record *r = zeroed(1, sizeof *r);
    r->first = r->last = now;
    r->sweep_at = SWEEP_FIRST;
    r->addressee = &r->one;
    r->capaddressees = 1;
    r->variant = &r->only;
    return r;
}

void record_free(struct record **rp)
{
    struct record *r = *rp;
    *rp = NULL;
    if (!r)
        return;
    if (r->addressee != &r->one)
        free(r->addressee);
    if (r->variant != &r->only)
        free(r->variant);
    free(r->place);
    free(r->more);
    free(r->dossier);
    free(r);
}

size_t record_bytes(const struct record *r)
{
    size_t n = sizeof *r + MALLOC_HEAD;
    if (r->addressee != &r->one)
        n += r->capaddressees * sizeof(struct addressee) + MALLOC_HEAD;
    if (r->capplaces)
        n += r->capplaces * sizeof(struct place) + MALLOC_HEAD;
    if (r->capmore)
        n += r->capmore * sizeof(struct more) + MALLOC_HEAD;
    if (r->variant != &r->only)
        n += K_VARIANTS * sizeof(struct variant) + MALLOC_HEAD;
    if (r->capdossiers)
        n += r->capdossiers * sizeof(struct dossier) + MALLOC_HEAD;
    return n;
}

bool record_empty(const struct record *r)
{
    return !r->nvariants && !r->naddressees && !r->copies;
}

void record_replace(struct record *r, struct record **with)
{
    struct record *from = *with, old = *r;
    *r = *from;
    if (from->addressee == &from->one)
        r->addressee = &r->one;
    if (from->variant == &from->only)
        r->variant = &r->only;
    r->changed = true;
    *from = old;
    if (old.addressee == &r->one)
        from->addressee = &from->one;
    if (old.variant == &r->only)
        from->variant = &from->only;
    record_free(with);
}

int64_t record_ttl(const struct record *r, const struct site *site)
{
    if (r->storm || r->convicted)
        return site->ttl_storm;
    return r->duplicates ? site->ttl_dup : site->ttl_plain;
}

/* ---- contents ---- */

/* A tiny old text that is the head or the tail of the new one: a footer was added. */
static bool tiny_inside(const struct variant *v, const struct keys *keys,
                        const struct fingerprints *fp)
{
    if (!v->nwords || v->nwords >= MIN_WORDS || fp->nwords <= v->nwords)
        return false;
    return v->f == fingerprint_f_of(keys, fp, v->nwords, false) ||
           v->f == fingerprint_f_of(keys, fp, v->nwords, true);
}

static bool similar(const struct variant *v, const struct fingerprints *fp)
{
    unsigned samples = 0;
    double share = sketch_containment(&v->sketch, &fp->sketch, &samples);
    return samples >= MIN_SAMPLES && share >= SAME_SHARE;
}

bool record_same_content(const struct record *r, const struct keys *keys,
                         const struct fingerprints *fp)
{
    if (!r->nvariants)
        return true;
    for (unsigned i = 0; i < r->nvariants; i++)
        if (r->variant[i].f == fp->f)
            return true;
    if (!fp->date.n)
        return false; /* a device or script that knows no time: one Message-ID, another count or
                         another scan */
    for (unsigned i = 0; i < r->nvariants; i++)
        if (tiny_inside(&r->variant[i], keys, fp) || similar(&r->variant[i], fp))
            return true;
    return false;
}

void record_add_content(struct record *r, const struct fingerprints *fp)
{
    for (unsigned i = 0; i < r->nvariants; i++)
        if (r->variant[i].f == fp->f)
            return;
    if (r->nvariants == 1 && r->variant == &r->only) {
        r->variant = zeroed(K_VARIANTS, sizeof *r->variant);
        r->variant[0] = r->only;
    }
    struct variant *v;
    if (r->nvariants < K_VARIANTS) {
        v = &r->variant[r->nvariants++];
    } else {
        v = &r->variant[1 + r->ring];
        r->ring = (uint8_t)((r->ring + 1) % (K_VARIANTS - 1));
    }
    v->f = fp->f;
    v->nwords = fp->nwords;
    v->sketch = fp->sketch;
}

/* ---- addressees ---- */

static struct addressee *addressee_slot(const struct record *r, uint64_t hash)
{
    uint32_t mask = r->capaddressees - 1;
    uint32_t at = (uint32_t)hash & mask;
    for (uint32_t i = 0; i < r->capaddressees; i++, at = (at + 1) & mask) {
        struct addressee *a = &r->addressee[at];
        if (!a->used || a->hash == hash)
            return a;
    }
    return NULL;
}

struct addressee *record_find(const struct record *r, uint64_t hash)
{
    struct addressee *a = addressee_slot(r, hash);
    return a && a->used ? a : NULL;
}

static void addressees_grow(struct record *r)
{
    struct addressee *old = r->addressee;
    uint32_t n = r->capaddressees;
    r->capaddressees = 2 * n;
    r->addressee = zeroed(r->capaddressees, sizeof *old);
    for (uint32_t i = 0; i < n; i++)
        if (old[i].used)
            *addressee_slot(r, old[i].hash) = old[i];
    if (old != &r->one)
        free(old);
}

struct addressee *record_add(struct record *r, uint64_t hash)
{
    struct addressee *a = record_find(r, hash);
    if (a)
        return a;
    if (r->naddressees >= ADDRESSEES_MAX)
        return NULL;
    /* one, two and four may fill up; larger tables keep a quarter free */
    if (r->capaddressees <= 4 ? r->naddressees == r->capaddressees
                              : r->naddressees >= r->capaddressees / 4 * 3)
        addressees_grow(r);
    a = addressee_slot(r, hash);
    assert(a && !a->used);
    a->hash = hash;
    a->used = true;
    r->naddressees++;
    return a;
}

struct more *record_more(struct record *r, struct addressee *a)
{
    if (a->more)
        return &r->more[a->more - 1];
    if (r->nmore == r->capmore) {
        r->capmore = r->capmore ? 2 * r->capmore : 1;
        r->more = grown(r->more, r->capmore, sizeof *r->more);
    }
    memset(&r->more[r->nmore], 0, sizeof *r->more);
    a->more = ++r->nmore;
    return &r->more[r->nmore - 1];
}

/* ---- places ---- */

uint32_t place_id(const struct node *n)
{
    return n->prefix_id ? n->prefix_id : 1;
}

static struct place *place_slot(const struct record *r, uint32_t id)
{
    uint32_t mask = r->capplaces - 1;
    uint32_t at = id & mask;
    while (r->place[at].id && r->place[at].id != id)
        at = (at + 1) & mask;
    return &r->place[at];
}

static struct place *place_find(const struct record *r, uint32_t id)
{
    if (!r->capplaces || !id)
        return NULL;
    struct place *p = place_slot(r, id);
    return p->id ? p : NULL;
}

const struct place *record_place(const struct record *r, uint32_t id)
{
    return place_find(r, id);
}

static void places_rebuild(struct record *r, uint32_t cap, bool live_only)
{
    struct place *old = r->place;
    uint32_t n = r->capplaces;
    r->place = zeroed(cap, sizeof *old);
    r->capplaces = cap;
    r->nplaces = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct place p = old[i];
        if (!p.id || (live_only && !p.live))
            continue;
        p.live = false;
        *place_slot(r, p.id) = p;
        r->nplaces++;
    }
    free(old);
}

/* Forgets the places that no addressee's path goes through any more. */
static void places_sweep(struct record *r)
{
    for (uint32_t i = 0; i < r->capaddressees; i++)
        for (unsigned j = 0; j < 2 && r->addressee[i].used; j++)
            for (struct place *p = place_find(r, r->addressee[i].leaf[j]); p && !p->live;
                 p = place_find(r, p->parent))
                p->live = true;
    places_rebuild(r, r->capplaces, true);
    r->sweep_at = 2 * r->nplaces;
    if (r->sweep_at < SWEEP_FIRST)
        r->sweep_at = SWEEP_FIRST;
    if (r->sweep_at > PLACES_MAX && r->nplaces < PLACES_MAX / 4 * 3)
        r->sweep_at = PLACES_MAX;
}

static void places_reserve(struct record *r, uint32_t more)
{
    uint32_t cap = r->capplaces ? r->capplaces : PLACES_FIRST;
    while (r->nplaces + more > cap - cap / 8)
        cap *= 2;
    if (cap != r->capplaces)
        places_rebuild(r, cap, false);
}

uint32_t record_walk(struct record *r, const struct path *path)
{
    uint32_t parent = 0, known = 0;
    if (r->nplaces + path->n > r->sweep_at)
        places_sweep(r);
    for (; known < path->n; parent = place_id(&path->node[known++])) {
        const struct place *p = place_find(r, place_id(&path->node[known]));
        if (!p)
            break;
        if (p->depth != known)
            return 0; /* two acceptances of one id: this path is not remembered */
    }
    if (known == path->n)
        return parent;
    if (r->nplaces + path->n > PLACES_MAX)
        return 0;
    places_reserve(r, (uint32_t)path->n - known);
    for (size_t i = known; i < path->n; i++) {
        uint32_t id = place_id(&path->node[i]);
        struct place *p = place_slot(r, id);
        if (p->id && p->depth != i)
            return 0;
        if (!p->id) {
            struct place *up = place_find(r, parent);
            *p = (struct place){.id = id,
                                .host = (uint32_t)path->node[i].host_hash,
                                .parent = parent,
                                .depth = (uint8_t)i};
            r->nplaces++;
            if (up && up->kids < UINT8_MAX)
                up->kids++;
        }
        parent = id;
    }
    return parent;
}

void record_put_place(struct record *r, const struct place *p)
{
    places_reserve(r, 1);
    struct place *at = place_slot(r, p->id);
    r->nplaces += !at->id;
    *at = *p;
}

void record_direct(struct record *r, uint32_t id, size_t n)
{
    struct place *p = place_find(r, id);
    if (p)
        p->direct = (uint8_t)(n > UINT8_MAX - (size_t)p->direct ? UINT8_MAX : p->direct + n);
}

/* ---- fates ---- */

static void give_back(struct record *r, struct addressee *a)
{
    switch ((enum allowance)a->last) {
    case ALLOWANCE_EXTRA:
        a->extra--;
        break;
    case ALLOWANCE_SAME:
        a->same--;
        break;
    case ALLOWANCE_RESEND:
        a->resend--;
        break;
    case ALLOWANCE_INTERNAL:
        a->internal--;
        break;
    case ALLOWANCE_LIST:
        r->more[a->more - 1].nlists--;
        break;
    case ALLOWANCE_NONE:
        break;
    }
    a->last = ALLOWANCE_NONE;
}

static void pass_one(struct record *r, struct addressee *a)
{
    if (a->passed < UINT16_MAX)
        a->passed++;
    r->passed++;
}

static void settle_one(struct record *r, struct addressee *a, enum fate fate)
{
    if (fate == FATE_RELEASED) { /* it was settled as held */
        r->held -= r->held > 0;
        pass_one(r, a);
        return;
    }
    if (!a->pending)
        return;
    a->pending--;
    switch (fate) {
    case FATE_PASSED:
    case FATE_RELEASED:
        pass_one(r, a);
        break;
    case FATE_WOULD_HOLD:
        a->got = true;
        r->held++;
        break;
    case FATE_HELD:
        r->held++;
        break;
    case FATE_ABORTED:
        give_back(r, a);
        a->leaf[1] = a->before; /* else its next try would be the SAME as one that passed */
        a->seen--;
        r->copies--;
        break;
    }
}

void record_settle(struct record *r, const uint64_t *rcpt, const enum fate *fate, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct addressee *a = record_find(r, rcpt[i]);
        if (!a || (a->turn < i && rcpt[a->turn] == rcpt[i]))
            continue; /* unknown, or named twice */
        a->turn = (uint32_t)i;
        settle_one(r, a, fate[i]);
    }
}

bool record_passed(const struct record *r, uint64_t rcpt)
{
    const struct addressee *a = record_find(r, rcpt);
    return a && (a->passed || a->got);
}
