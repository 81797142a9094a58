/*
 * store_log.c - what is asked of the log of a message, and what the answer does to the record here.
 *
 *   answer: bytes of the log from an offset on, and our own events behind them
 *
 *   the record here has the log up to there, or further   the rest is applied to it
 *   it is of another log, or there is none                the whole log is folded anew
 *   the log has fewer copies than the record              it was lost (Redis was emptied, or is an
 *                                                         older replica): the record stays, what is
 *                                                         younger is applied to it, and it takes
 *                                                         the place of the log
 *
 * Invariant: a record and how much of its log it has are changed together, under the shard's lock;
 * events are applied in the log's order, each once.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <hiredis/hiredis.h>

#include "store_redis_own.h"
#include "store_script.h"

/* ---- keys ---- */

static struct span key_text(const struct sharing *all, const char *kind, const char *open,
                            struct span id, const char *shut, char out[LOG_KEY])
{
    char hex[2 * sizeof(struct key) + 1];
    hex_print(id, hex);
    int n =
        snprintf(out, LOG_KEY, "%.20s:1:%s:%s%s%s", all->settings->prefix, kind, open, hex, shut);
    return span_of(out, (size_t)n);
}

struct span log_key(const struct sharing *all, const struct key *k, char out[LOG_KEY])
{
    return key_text(all, "m", "{", span_of(k->byte, sizeof k->byte), "}", out);
}

struct span alias_key(const struct sharing *all, uint64_t alias, char out[LOG_KEY])
{
    uint8_t bytes[8];
    bytes_put(bytes, alias, sizeof bytes);
    return key_text(all, "a", "", span_of(bytes, sizeof bytes), "", out);
}

/* ---- asking ---- */

static struct span number(char out[24], int64_t n)
{
    return span_of(out, (size_t)snprintf(out, 24, "%" PRId64, n));
}

struct redis_call *log_ask(struct store_thread *t, const struct ask *a, int64_t deadline,
                           redis_done_fn *done, void *arg)
{
    char key[LOG_KEY], offset[24], ttl[24], most[24];
    uint8_t generation[8], last[8], fresh[8], after[8];
    bytes_put(after, a->after, 8);
    bytes_put(generation, a->known.generation, 8);
    bytes_put(last, a->known.last, 8);
    bytes_put(fresh, a->generation, 8);
    const struct span argv[] = {span_of(generation, 8),
                                number(offset, a->blind              ? -1
                                               : a->known.generation ? (int64_t)a->known.offset
                                                                     : 0),
                                span_of(last, 8),
                                a->fresh,
                                a->more,
                                number(ttl, a->ttl),
                                span_of(fresh, 8),
                                number(most, RECORDLOG_MAX),
                                a->check ? SPAN("1") : SPAN("0"),
                                span_of(after, a->after ? 8 : 0)};
    return redis_run(t->redis, &script_observe, log_key(t->all, &a->k, key), argv,
                     sizeof argv / sizeof *argv, deadline, done, arg);
}

static enum answer_how how_of(const struct redisReply *r)
{
    static const struct {
        struct span word;
        enum answer_how how;
    } words[] = {{SPAN_INIT("GONE"), ANSWER_GONE},
                 {SPAN_INIT("MADE"), ANSWER_MADE},
                 {SPAN_INIT("HERE"), ANSWER_HERE},
                 {SPAN_INIT("FULL"), ANSWER_FULL}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (span_eq(span_of(r->str, (size_t)r->len), words[i].word))
            return words[i].how;
    return ANSWER_NONE;
}

void answer_read(struct answer *a, const struct redisReply *r, const struct ask *asked)
{
    *a = (struct answer){.how = ANSWER_NONE};
    if (!r || r->type != REDIS_REPLY_ARRAY || r->elements < 1 ||
        r->element[0]->type != REDIS_REPLY_STRING)
        return;
    enum answer_how how = how_of(r->element[0]);
    if (how == ANSWER_GONE)
        a->how = how;
    if (how <= ANSWER_GONE || r->elements != 4 || r->element[1]->type != REDIS_REPLY_STRING ||
        r->element[1]->len != 8 || r->element[2]->type != REDIS_REPLY_INTEGER ||
        r->element[3]->type != REDIS_REPLY_STRING)
        return;
    a->how = how;
    a->generation = bytes_get((const uint8_t *)r->element[1]->str, 8);
    a->from = r->element[2]->integer > 0 ? (uint32_t)r->element[2]->integer : 0;
    a->shorn =
        asked->known.generation == a->generation && !asked->blind && a->from < asked->known.offset;
    a->bytes = span_of(r->element[3]->str, (size_t)r->element[3]->len);
    if (how == ANSWER_MADE)
        a->own = asked->fresh;
    if (how == ANSWER_HERE && !asked->check)
        a->own = asked->more;
}

/* ---- events of ours under way ---- */

void flight_begin(struct sharing *all, struct shard *s, struct flight *f)
{
    struct flight **list = &all->flight[s - all->memory->shard];
    f->applied = false;
    f->next = *list;
    if (f->next)
        f->next->at = &f->next;
    f->at = list;
    *list = f;
}

void flight_end(struct sharing *all, const struct key *k, struct flight *f, bool only_applied)
{
    struct shard *s = shard_lock(all->memory, k);
    if (f->at && (f->applied || !only_applied)) {
        *f->at = f->next;
        if (f->next)
            f->next->at = f->at;
        f->at = NULL;
    }
    pthread_mutex_unlock(&s->lock);
}

uint64_t flight_latest(const struct store_thread *t, const struct shard *s, const struct key *k)
{
    const struct flight *f = t->all->flight[s - t->all->memory->shard];
    while (f && (f->t != t || memcmp(&f->k, k, sizeof *k) != 0))
        f = f->next;
    return f ? f->id : 0;
}

static struct flight *flight_of(const struct sharing *all, const struct shard *s, uint64_t id)
{
    struct flight *f = all->flight[s - all->memory->shard];
    while (f && (f->id != id || f->applied))
        f = f->next;
    return f;
}

/* ---- folding ---- */

struct fold {
    struct store_thread *t;
    const struct shard *shard;
    const struct key *k;
    struct arena *arena;
    struct record *record;
    uint64_t last;     /* id of the frame read last; 0: none was */
    int64_t later;     /* only events of a later time count */
    bool broken;       /* what is left is no frame */
    bool became_storm; /* by one of our own messages */
};

/* A record that has rested for its whole life is forgotten, on every node at the same event. */
static void fold_expire(struct fold *f, const struct event_head *h)
{
    struct record *r = f->record;
    if (h->kind == EVENT_FATES || h->kind == EVENT_RECORD || record_empty(r) ||
        h->now - r->last <= record_ttl(r, f->t->all->memory->site))
        return;
    struct record *anew = record_new(h->now);
    record_replace(r, &anew);
}

static void fold_ours(struct fold *f, struct span event, struct flight *ours)
{
    struct record *r = f->record;
    ours->fresh = record_empty(r);
    ours->storm = r->storm;
    ours->before = record_age(r);
    ours->result = event_apply(r, event, f->t->all->memory->site, &f->t->keys,
                               ours->o->subject->arena, ours->out);
    ours->applied = true;
    ours->after = record_age(r);
    ours->origin = r->origin;
    if (ours->result == EVENT_OK) {
        ours->out->k = *f->k;
        ours->out->blamed =
            arena_span(ours->o->subject->arena, ours->out->blamed); /* the event's */
    }
    f->became_storm |= ours->after == AGE_STORM && ours->before != AGE_STORM;
}

static void fold_frames(struct fold *f, struct span frames)
{
    struct frame frame;
    while (recordlog_next(&frames, &frame)) {
        struct event_head head;
        f->last = frame.id;
        if (!event_head(frame.event, &head) || head.now <= f->later)
            continue;
        struct flight *ours = flight_of(f->t->all, f->shard, frame.id);
        fold_expire(f, &head);
        if (ours)
            fold_ours(f, frame.event, ours);
        else
            (void)event_apply(f->record, frame.event, f->t->all->memory->site, &f->t->keys,
                              f->arena, NULL);
    }
    f->broken |= frames.n > 0;
}

static int64_t first_time(struct span frames, int64_t now)
{
    struct frame frame;
    struct event_head head;
    return recordlog_next(&frames, &frame) && event_head(frame.event, &head) ? head.now : now;
}

/* ---- compacting ---- */

/* A record on its way into the place of its events. */
struct compacting {
    struct store_thread *t;
    struct key k;
    uint64_t old, generation, id;
    uint32_t cut, size;
    bool lost; /* the log was: the record here is not what it says, until this is done */
};

static void compacted(void *arg, const struct redisReply *r, const char *why)
{
    struct compacting *c = arg;
    struct memory *m = c->t->all->memory;
    bool done = r && r->type == REDIS_REPLY_INTEGER && r->integer == 1;
    (void)why;
    struct shard *s = shard_lock(m, &c->k);
    struct entry *e = done ? entry_find(s, &c->k) : NULL;
    if (e && c->lost && e->log.generation == 0 && e->log.last == c->id)
        e->log = (struct recordlog){c->generation, c->id, c->size, 2 * c->size};
    else if (e && !c->lost && e->log.generation == c->old && e->log.offset >= c->cut) {
        e->log.generation = c->generation;
        e->log.last = e->log.offset == c->cut ? c->id : e->log.last;
        e->log.offset = c->size + (e->log.offset - c->cut);
        e->log.compact_at = 2 * c->size;
    }
    pthread_mutex_unlock(&s->lock);
    if (done)
        store_count(c->lost ? &c->t->all->count.remade : &c->t->all->count.compacted, 1);
    free(c);
}

/* The record of this frame goes into the place of what the log has up to `end`. */
static void compact(struct store_thread *t, const struct key *k, const struct recordlog *end,
                    struct span frame, uint64_t id, bool lost)
{
    struct compacting *c = calloc(1, sizeof *c);
    if (!c)
        abort();
    *c = (struct compacting){.t = t,
                             .k = *k,
                             .old = end->generation,
                             .generation = store_random(t),
                             .id = id,
                             .cut = end->offset,
                             .size = RECORDLOG_HEAD + (uint32_t)frame.n,
                             .lost = lost};
    char key[LOG_KEY], cut[24];
    uint8_t old[8], last[8], fresh[8];
    bytes_put(old, c->old, 8);
    bytes_put(last, end->last, 8);
    bytes_put(fresh, c->generation, 8);
    const struct span argv[] = {span_of(old, 8), number(cut, c->cut), span_of(last, 8),
                                span_of(fresh, 8), frame};
    (void)redis_run(t->redis, &script_compact, log_key(t->all, k, key), argv,
                    sizeof argv / sizeof *argv, 0, compacted, c);
}

static struct span record_frame(struct fold *f, uint64_t id)
{
    uint8_t *event;
    size_t n = event_record(f->arena, f->record, id, f->t->all->node, f->record->last, &event);
    return recordlog_frame(f->arena, span_of(event, n), id);
}

/* ---- taking an answer ---- */

/* What an answer asks to be sent, after the lock was given back. */
struct after {
    struct recordlog end; /* of the log, as answered */
    struct span frame;    /* the record, if it is to take its place */
    uint64_t id;
    bool lost;
    int64_t ttl; /* it is to live that long; 0: it does */
};

static size_t frames_end(const struct answer *a)
{
    return a->from + a->bytes.n + a->own.n;
}

/* The record has the log up to somewhere behind the answer's beginning. */
static void take_rest(struct fold *f, struct entry *e, const struct answer *a)
{
    size_t skip = e->log.offset - a->from;
    f->record = e->record;
    if (skip <= a->bytes.n) {
        fold_frames(f, span_from(a->bytes, skip));
        skip = 0;
    } else {
        skip -= a->bytes.n;
    }
    if (skip < a->own.n)
        fold_frames(f, span_from(a->own, skip));
    if (frames_end(a) > e->log.offset) {
        e->log.offset = (uint32_t)frames_end(a);
        e->log.last = f->last ? f->last : e->log.last;
    }
}

/* The log has less than the record here, or is no log. Ours are applied whatever their time. */
static void take_lost(struct fold *f, struct entry *e, const struct answer *a, struct after *after)
{
    f->record = e->record;
    f->later = e->record->last;
    fold_frames(f, a->bytes);
    f->later = INT64_MIN;
    fold_frames(f, a->own);
    after->id = store_random(f->t);
    after->frame = record_frame(f, after->id);
    after->lost = true;
    e->log = (struct recordlog){.last = after->id};
}

/* The whole log, folded anew. */
static void take_whole(struct fold *f, struct entry *e, const struct answer *a, struct after *after)
{
    struct record *r = record_new(first_time(a->bytes.n ? a->bytes : a->own, e->record->last));
    f->record = r;
    fold_frames(f, a->bytes);
    if (f->broken || (a->how != ANSWER_MADE && r->copies < e->record->copies)) {
        record_free(&r);
        take_lost(f, e, a, after);
        return;
    }
    fold_frames(f, a->own);
    record_replace(e->record, &r);
    f->record = e->record;
    e->log = (struct recordlog){.generation = a->generation,
                                .last = f->last,
                                .offset = (uint32_t)frames_end(a),
                                .compact_at = RECORDLOG_SMALL};
}

/* A log that is more than twice its record is to be replaced by it, by the node that made it so. */
static void consider_compacting(struct fold *f, struct entry *e, const struct answer *a,
                                struct after *after)
{
    struct recordlog *log = &e->log;
    if (log->offset <= log->compact_at || !(a->own.n || a->how == ANSWER_FULL))
        return;
    after->id = store_random(f->t);
    struct span frame = record_frame(f, after->id);
    log->compact_at = 2 * (uint32_t)frame.n;
    if (log->offset <= log->compact_at)
        return;
    log->compact_at = 2 * log->offset; /* until it is done, or another one has done it */
    after->frame = frame;
    after->end = *log;
}

static enum taken take(struct fold *f, struct shard *s, struct entry *e, const struct answer *a,
                       struct after *after)
{
    const struct recordlog *log = &e->log;
    if (log->generation && log->generation == a->generation && log->offset >= a->from &&
        !a->shorn) {
        take_rest(f, e, a);
    } else if (a->from == RECORDLOG_HEAD) {
        after->end =
            (struct recordlog){.generation = a->generation, .offset = (uint32_t)frames_end(a)};
        take_whole(f, e, a, after);
        after->end.last = f->last;
    } else {
        return TAKEN_AGAIN;
    }
    if (!after->lost)
        consider_compacting(f, e, a, after);
    after->ttl = record_ttl(e->record, f->t->all->memory->site);
    entry_observed(f->t->all->memory, s, e);
    return TAKEN;
}

static void live_on(struct store_thread *t, const struct key *k, int64_t ttl)
{
    char key[LOG_KEY], ms[24];
    struct span name = log_key(t->all, k, key);
    const struct span argv[] = {SPAN("PEXPIRE"), name, number(ms, ttl)};
    (void)redis_send(t->redis, name, argv, sizeof argv / sizeof *argv, 0, NULL, NULL);
}

enum taken log_take(struct store_thread *t, const struct key *k, const struct answer *a,
                    int64_t ttl, bool make)
{
    struct memory *m = t->all->memory;
    struct arena *arena = arena_little();
    struct after after = {.ttl = ttl};
    enum taken taken = TAKEN_NOTHING;
    struct shard *s = shard_lock(m, k);
    struct fold f = {.t = t, .shard = s, .k = k, .arena = arena, .later = INT64_MIN};
    struct entry *e = entry_find(s, k);
    if (!e && make && a->from == RECORDLOG_HEAD)
        e = entry_add(m, s, k, NULL, first_time(a->bytes.n ? a->bytes : a->own, 0));
    if (e || make)
        taken = e ? take(&f, s, e, a, &after) : TAKEN_AGAIN;
    pthread_mutex_unlock(&s->lock);
    if (after.frame.n)
        compact(t, k, &after.end, after.frame, after.id, after.lost);
    if (taken == TAKEN && ttl != TTL_AS_IT_IS && after.ttl != ttl)
        live_on(t, k, after.ttl);
    if (f.became_storm && m->on_storm)
        m->on_storm(m->on_storm_arg);
    arena_free(&arena);
    return taken;
}
