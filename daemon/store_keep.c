/*
 * store_keep.c - what of the memory store outlives the process: digests for the long memory's
 * journal, storms for the registry, records for the snapshot. See store_own.h.
 *
 * Invariant: no lock is held while anything is written; what is packed was whole at one moment.
 */
#include <stdlib.h>
#include <string.h>

#include "store_own.h"

enum {
    SAVE_MS = 1000,      /* between two savings of one storm ... */
    SAVE_BYTES = 100000, /* ... for each so many bytes of it */
    SAVE_LOOK = 3600000, /* ms: a change is saved this long after the last copy, or later */
    RETIRE_PAUSE = 3600000
};
enum { DAY = 86400000 }; /* ms */
static const int64_t retire_after = 45LL * DAY;

/* ---- the long memory ---- */

static void ring_add(struct memory *m, struct shard *s, uint64_t digest, int64_t when)
{
    if (!s->ring) {
        struct bloomring_size size = {.keep = (int64_t)DAY * m->site->bloom_days,
                                      .error = m->site->bloom_error,
                                      .budget = m->ring_budget};
        s->ring = bloomring_new(&size);
    }
    bloomring_add(s->ring, digest, when);
}

void memory_remember(struct memory *m, struct shard *s, const struct key *k, uint64_t rcpt,
                     int64_t now)
{
    uint64_t digest = record_digest(k, rcpt);
    ring_add(m, s, digest, now);
    if (m->on_digest)
        m->on_digest(m->on_digest_arg, digest);
    if (m->share.digest)
        m->share.digest(m->share.arg, digest);
}

void store_memory_on_digest(struct store *st, store_digest_fn *fn, void *arg)
{
    struct memory *m = memory_of(st);
    m->on_digest_arg = arg;
    m->on_digest = fn;
}

void store_memory_on_share(struct store *st, const struct store_share *share)
{
    memory_of(st)->share = share ? *share : (struct store_share){0};
}

void store_memory_remember(struct store *st, const uint64_t *digest, size_t n, int64_t when)
{
    struct memory *m = memory_of(st);
    for (size_t i = 0; i < n; i++) {
        struct shard *s = &m->shard[digest[i] % STORE_SHARDS];
        pthread_mutex_lock(&s->lock);
        ring_add(m, s, digest[i], when);
        pthread_mutex_unlock(&s->lock);
    }
}

void store_memory_long(struct store *st, struct store_long *out)
{
    struct memory *m = memory_of(st);
    *out = (struct store_long){0};
    for (unsigned i = 0; i < STORE_SHARDS; i++) {
        struct shard *s = &m->shard[i];
        unsigned early = 0;
        pthread_mutex_lock(&s->lock);
        int64_t since = s->ring ? bloomring_since(s->ring, &early) : 0;
        out->bytes += s->ring ? bloomring_bytes(s->ring) : 0;
        pthread_mutex_unlock(&s->lock);
        out->early += early;
        /* while one ring had to forget, all know only that much; else the oldest of all counts */
        if (early && since > out->forgot)
            out->forgot = since;
        if (since && (!out->since || since < out->since))
            out->since = since;
    }
    if (out->forgot > out->since)
        out->since = out->forgot;
}

/* ---- storms ---- */

void store_memory_on_storm(struct store *st, store_storm_fn *fn, void *arg)
{
    struct memory *m = memory_of(st);
    m->on_storm_arg = arg;
    m->on_storm = fn;
}

void memory_retire(struct memory *m, int64_t now)
{
    if (now - m->retired < RETIRE_PAUSE)
        return;
    m->retired = now;
    for (unsigned i = 0; i < STORE_SHARDS; i++) {
        struct shard *s = &m->shard[i];
        pthread_mutex_lock(&s->lock);
        for (struct entry *e = s->age[AGE_STORM].oldest; e && now - e->record->last > retire_after;
             e = e->newer) {
            if (!e->record->nplaces && !e->record->ndossiers)
                continue;
            record_retire(e->record);
            entry_recount(m, s, e);
        }
        pthread_mutex_unlock(&s->lock);
    }
}

/* ---- packing ---- */

static void pack(struct packed *p, const struct entry *e)
{
    p->k = e->key;
    p->last = e->record->last;
    p->bytes = record_pack(e->record, &p->n);
}

static bool time_to_save(const struct entry *e, int64_t now)
{
    int64_t pause = SAVE_MS + (int64_t)e->bytes * SAVE_MS / SAVE_BYTES;
    return now - e->saved >= pause || now < e->saved;
}

size_t store_memory_changed(struct store *st, int64_t now, bool all, struct packed *out, size_t cap)
{
    struct memory *m = memory_of(st);
    size_t n = 0;
    for (unsigned i = 0; i < STORE_SHARDS && n < cap; i++) {
        struct shard *s = &m->shard[i];
        pthread_mutex_lock(&s->lock);
        for (struct entry *e = s->age[AGE_STORM].newest; e && n < cap; e = e->older) {
            if (!all && now - e->record->last > SAVE_LOOK && !e->record->changed)
                break;
            if (!e->record->changed || (!all && !time_to_save(e, now)))
                continue;
            pack(&out[n++], e);
            e->record->changed = false;
            e->saved = now;
        }
        pthread_mutex_unlock(&s->lock);
    }
    return n;
}

void store_memory_unsaved(struct store *st, const struct key *k)
{
    struct memory *m = memory_of(st);
    struct shard *s = shard_lock(m, k);
    struct entry *e = entry_find(s, k);
    if (e)
        e->record->changed = true;
    pthread_mutex_unlock(&s->lock);
}

/* Packs what the pass is for of one bucket; false: there is no room for all of it. */
static bool pack_bucket(const struct entry *e, unsigned pass, struct packed *out, size_t cap,
                        size_t *n)
{
    size_t was = *n;
    for (; e; e = e->next) {
        if ((e->age == AGE_PLAIN) != (pass == 1))
            continue;
        if (*n == cap) {
            while (*n > was)
                free(out[--*n].bytes);
            return false;
        }
        pack(&out[(*n)++], e);
    }
    return true;
}

bool store_memory_pack(struct store *st, struct store_cursor *c, struct packed *out, size_t cap,
                       size_t *n)
{
    struct memory *m = memory_of(st);
    *n = 0;
    if (c->pass == 2)
        return false;
    struct shard *s = &m->shard[c->shard];
    pthread_mutex_lock(&s->lock);
    while (c->bucket < s->nbuckets && pack_bucket(s->bucket[c->bucket], c->pass, out, cap, n))
        c->bucket++;
    bool whole = c->bucket >= s->nbuckets;
    pthread_mutex_unlock(&s->lock);
    if (!whole && !*n)
        c->bucket++; /* more in one bucket than fits at all: an accident of hashing */
    if (whole) {
        c->bucket = 0;
        c->shard = (c->shard + 1) % STORE_SHARDS;
        c->pass += c->shard == 0;
    }
    return true;
}

bool store_memory_put(struct store *st, const struct key *k, struct span bytes, int64_t now)
{
    struct memory *m = memory_of(st);
    struct record *r = record_unpack(bytes);
    if (!r)
        return false;
    record_abandon(r);
    struct shard *s = shard_lock(m, k);
    struct entry *e = entry_find(s, k);
    struct origin origin = r->origin;
    enum alias_worth worth = (enum alias_worth)record_age(r);
    int64_t last = r->last;
    bool wanted = now - last <= record_ttl(r, m->site) && !(e && e->record->last >= last) &&
                  atomic_load_explicit(&m->bytes, memory_order_relaxed) + record_bytes(r) <=
                      m->budget / 8 * 7;
    if (wanted && e) {
        record_free(&e->record);
        e->record = r;
        e->log = (struct recordlog){0};
        entry_place(m, s, e);
    } else if (wanted) {
        entry_place(m, s, entry_add(m, s, k, r, last));
    } else {
        record_free(&r);
    }
    pthread_mutex_unlock(&s->lock);
    if (wanted)
        aliases_put_record(m->aliases, k, &origin, worth, last);
    return true;
}

struct tally_table *store_memory_tallies(struct store *st)
{
    return memory_of(st)->tallies;
}

struct states *store_memory_states(struct store *st)
{
    return memory_of(st)->states;
}
