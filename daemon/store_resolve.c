/*
 * store_resolve.c - which record a message belongs to, and judging it there.
 *
 *   own K known, content the same? -> it
 *                another content   -> K' of variant 1, 2 ...
 *                unknown           -> a name it came under, its stamp, chain, text, theme; else a
 * new one
 *
 * Invariant: a record is found, judged and observed under one lock, and no two locks are held.
 */
#include <stdlib.h>

#include "stamp.h"
#include "store_own.h"

enum tried { TRIED_OK, TRIED_CONFLICT, TRIED_NONE };

/* One message on its way to its record. */
struct resolving {
    struct memory *m;
    struct observation o;
    struct guise guise;
    struct replication_signals *out;
};

int64_t whole_since(struct memory *m, int64_t now)
{
    int64_t since = 0;
    if (atomic_load_explicit(&m->whole, memory_order_relaxed) == 0)
        (void)atomic_compare_exchange_strong(&m->whole, &since, now);
    return atomic_load_explicit(&m->whole, memory_order_relaxed);
}

static enum tried observe_entry(struct resolving *r, struct shard *s, struct entry *e,
                                const struct key *k)
{
    r->o.k = *k;
    r->o.ring = s->ring;
    r->o.whole = whole_since(r->m, r->o.subject->now);
    if (replication_observe(e->record, &r->o, r->out) != OBSERVED_OK)
        return TRIED_CONFLICT;
    r->out->k = *k;
    if (r->m->on_observed)
        r->m->on_observed(r->m, e, &r->o);
    entry_observed(r->m, s, e);
    return TRIED_OK;
}

/* Its aliases are remembered when a record is new, and anew when it is worth more: after the shard
 * was unlocked. */
static enum tried observe_unlock(struct resolving *r, struct shard *s, struct entry *e,
                                 const struct key *k)
{
    bool fresh = !e->record->copies;
    enum age before = record_age(e->record);
    enum tried tried = observe_entry(r, s, e, k);
    enum age age = record_age(e->record);
    struct origin origin = e->record->origin;
    pthread_mutex_unlock(&s->lock);
    if (tried == TRIED_OK && (fresh || age != before))
        aliases_put_record(r->m->aliases, k, &origin, (enum alias_worth)age, r->o.subject->now);
    if (age == AGE_STORM && before != AGE_STORM && r->m->on_storm)
        r->m->on_storm(r->m->on_storm_arg);
    return tried;
}

static enum tried observe_known(struct resolving *r, const struct key *k)
{
    struct shard *s = shard_lock(r->m, k);
    struct entry *e = entry_live(r->m, s, k, r->o.subject->now);
    if (e)
        return observe_unlock(r, s, e, k);
    pthread_mutex_unlock(&s->lock);
    return TRIED_NONE;
}

static enum tried observe_new(struct resolving *r, const struct key *k)
{
    struct shard *s = shard_lock(r->m, k);
    struct entry *e = entry_live(r->m, s, k, r->o.subject->now);
    if (!e)
        e = entry_add(r->m, s, k, NULL, r->o.subject->now);
    enum tried tried = observe_unlock(r, s, e, k);
    if (tried == TRIED_OK)
        aliases_put(r->m->aliases, r->guise.queue, &(struct alias_found){*k, JOIN_QUEUE, false},
                    ALIAS_PLAIN, r->o.subject->now);
    return tried;
}

/* Joins the record of K if it is one by that way; judged and observed under one lock. */
static bool join_record(struct resolving *r, const struct alias_found *to, enum join by)
{
    struct shard *s = shard_lock(r->m, &to->k);
    struct entry *e = entry_live(r->m, s, &to->k, r->o.subject->now);
    struct joining j = {.why = NULL};
    if (e && e->record->copies)
        j = alias_joins(by, e->record, &r->guise);
    if (!j.why) {
        pthread_mutex_unlock(&s->lock);
        return false;
    }
    r->o.join = by == JOIN_NAME ? to->join : j.join;
    r->o.join_why = j.why;
    r->o.join_weak = by == JOIN_NAME ? to->weak : j.weak;
    bool storm = e->record->storm;
    enum tried tried = observe_unlock(r, s, e, &to->k);
    if (tried == TRIED_OK && !storm) {
        /* What comes under the same new name, or goes on from the same place, is this one too. */
        const struct alias_found name = {to->k, (enum join)r->o.join, r->o.join_weak},
                                 chain = {to->k, JOIN_CHAIN, false};
        int64_t now = r->o.subject->now;
        aliases_put(r->m->aliases, alias_of_key(&r->o.subject->fp.k), &name, ALIAS_PLAIN, now);
        aliases_put(r->m->aliases, r->guise.origin.chain, &chain, ALIAS_PLAIN, now);
        aliases_put(r->m->aliases, r->guise.queue, &chain, ALIAS_PLAIN, now);
    }
    r->o.join = JOIN_OWN;
    return tried == TRIED_OK;
}

static bool join_alias(struct resolving *r, uint64_t alias, enum join by)
{
    struct alias_found found[ALIAS_CANDIDATES];
    size_t n = aliases_find(r->m->aliases, alias, found);
    for (size_t i = 0; i < n; i++)
        if (join_record(r, &found[i], by))
            return true;
    return false;
}

static bool join_stamp(struct resolving *r)
{
    const struct subject *s = r->o.subject;
    struct key k[STAMPS_MAX];
    size_t n = s->message ? stamps_read(s->keys, s->message, k) : 0;
    for (size_t i = 0; i < n; i++)
        if (join_record(r, &(struct alias_found){k[i], JOIN_STAMP, false}, JOIN_STAMP))
            return true;
    return false;
}

static bool join_any(struct resolving *r)
{
    const struct origin *o = &r->guise.origin;
    return join_alias(r, alias_of_key(&r->o.subject->fp.k), JOIN_NAME) || join_stamp(r) ||
           join_alias(r, o->chain, JOIN_CHAIN) || join_alias(r, r->guise.queue, JOIN_QUEUE) ||
           join_alias(r, o->text, JOIN_TEXT) || join_alias(r, o->theme, JOIN_THEME);
}

/* Its own K, if that is known and the content is the same; K' of those after a conflict; where one
 * of them is unknown, another name it is known by; else it is new. */
enum store_state memory_observe(struct store *st, const struct observation *o,
                                struct replication_signals *out, store_done_fn *done, void *arg,
                                struct store_op **op)
{
    struct resolving r = {.m = memory_of(st), .o = *o, .out = out};
    (void)done, (void)arg, (void)op;
    for (unsigned step = 0; step < STORE_STEPS; step++) {
        struct key k = store_identity(o->subject, step);
        enum tried tried = observe_known(&r, &k);
        if (tried == TRIED_NONE && !r.guise.o) {
            guise_read(&r.guise, &r.o);
            r.o.origin = &r.guise.origin;
            if (join_any(&r))
                return STORE_DONE;
        }
        if (tried == TRIED_NONE)
            tried = observe_new(&r, &k);
        if (tried == TRIED_CONFLICT)
            continue;
        out->variant = step;
        return STORE_DONE;
    }
    abort(); /* the last identity holds F: its content is the same */
}
