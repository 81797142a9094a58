/* outbox.c - see outbox.h. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "outbox.h"

enum {
    BUCKETS = 4096,
    PARCEL_MAX = 64 << 10, /* bytes of one message: beyond, its record is handed in */
    PARCEL_FIRST = 512
};

struct outbox {
    pthread_mutex_t lock;
    struct parcel *bucket[BUCKETS];
    struct parcel *oldest, *newest;
    size_t room;
    _Atomic uint64_t parcels; /* read without the lock: mostly there are none */
    struct outbox_figures figures;
};

struct outbox *outbox_new(size_t bytes)
{
    struct outbox *o = calloc(1, sizeof *o);
    if (!o)
        abort();
    pthread_mutex_init(&o->lock, NULL);
    o->room = bytes;
    return o;
}

void parcel_free(struct parcel **pp)
{
    if (*pp)
        free((*pp)->bytes);
    free(*pp);
    *pp = NULL;
}

static struct parcel **bucket_of(struct outbox *o, const struct key *k)
{
    uint64_t w;
    memcpy(&w, k->byte, sizeof w);
    return &o->bucket[w % BUCKETS];
}

static struct parcel *find(struct outbox *o, const struct key *k)
{
    struct parcel *p = *bucket_of(o, k);
    while (p && memcmp(&p->k, k, sizeof *k) != 0)
        p = p->next;
    return p;
}

static size_t cost(const struct parcel *p)
{
    return sizeof *p + p->cap;
}

static void link_newest(struct outbox *o, struct parcel *p)
{
    p->next = *bucket_of(o, &p->k);
    *bucket_of(o, &p->k) = p;
    p->newer = NULL;
    p->older = o->newest;
    *(p->older ? &p->older->newer : &o->oldest) = p;
    o->newest = p;
    o->figures.bytes += cost(p);
    o->figures.events += p->events;
    atomic_fetch_add(&o->parcels, 1);
}

static void unlink_parcel(struct outbox *o, struct parcel *p)
{
    struct parcel **at = bucket_of(o, &p->k);
    while (*at != p)
        at = &(*at)->next;
    *at = p->next;
    *(p->older ? &p->older->newer : &o->oldest) = p->newer;
    *(p->newer ? &p->newer->older : &o->newest) = p->older;
    o->figures.bytes -= cost(p);
    o->figures.events -= p->events;
    atomic_fetch_sub(&o->parcels, 1);
}

void outbox_free(struct outbox **op)
{
    struct outbox *o = *op;
    *op = NULL;
    if (!o)
        return;
    for (struct parcel *p; (p = o->oldest);) {
        unlink_parcel(o, p);
        parcel_free(&p);
    }
    pthread_mutex_destroy(&o->lock);
    free(o);
}

static void parcel_append(struct parcel *p, struct span bytes, unsigned events)
{
    if (p->n + bytes.n > p->cap) {
        p->cap = p->cap ? 2 * p->cap : PARCEL_FIRST;
        while (p->n + bytes.n > p->cap)
            p->cap *= 2;
        p->bytes = realloc(p->bytes, p->cap);
        if (!p->bytes)
            abort();
    }
    memcpy(p->bytes + p->n, bytes.p, bytes.n);
    p->n += bytes.n;
    p->events += events;
}

static struct parcel *parcel_new(const struct key *k)
{
    struct parcel *p = calloc(1, sizeof *p);
    if (!p)
        abort();
    p->k = *k;
    return p;
}

void outbox_add(struct outbox *o, const struct key *k, struct span frame)
{
    pthread_mutex_lock(&o->lock);
    struct parcel *p = find(o, k);
    bool room = o->figures.bytes + sizeof *p + 2 * frame.n + PARCEL_FIRST <= o->room &&
                (!p || p->n + frame.n <= PARCEL_MAX);
    if (room) {
        if (p)
            unlink_parcel(o, p);
        else
            p = parcel_new(k);
        parcel_append(p, frame, 1);
        link_newest(o, p);
    }
    o->figures.lost += !room;
    pthread_mutex_unlock(&o->lock);
}

bool outbox_has(struct outbox *o, const struct key *k)
{
    if (!atomic_load(&o->parcels))
        return false;
    pthread_mutex_lock(&o->lock);
    bool has = find(o, k) != NULL;
    pthread_mutex_unlock(&o->lock);
    return has;
}

struct parcel *outbox_take(struct outbox *o, const struct key *k)
{
    if (!atomic_load(&o->parcels))
        return NULL;
    pthread_mutex_lock(&o->lock);
    struct parcel *p = k ? find(o, k) : o->oldest;
    if (p)
        unlink_parcel(o, p);
    pthread_mutex_unlock(&o->lock);
    return p;
}

void outbox_put_back(struct outbox *o, struct parcel **pp)
{
    struct parcel *p = *pp;
    *pp = NULL;
    pthread_mutex_lock(&o->lock);
    struct parcel *since = find(o, &p->k);
    if (since) {
        unlink_parcel(o, since);
        parcel_append(p, span_of(since->bytes, since->n), since->events);
        parcel_free(&since);
    }
    link_newest(o, p);
    pthread_mutex_unlock(&o->lock);
}

void outbox_figures(struct outbox *o, struct outbox_figures *f)
{
    pthread_mutex_lock(&o->lock);
    *f = o->figures;
    pthread_mutex_unlock(&o->lock);
}
