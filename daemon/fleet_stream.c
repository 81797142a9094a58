/* fleet_stream.c - one topic's stream: batches out, one after the other; others' batches in. */
#include <stdio.h>
#include <stdlib.h>

#include <hiredis/hiredis.h>

#include "fleet.h"
#include "fleet_own.h"
#include "id.h"
#include "log.h"

enum {
    COLLECT_MOST = 64,     /* batches at once */
    WAITING_MAX = 4 << 20, /* bytes of batches that wait */
    READ_AT_ONCE = 16,
    FIELDS = 6
};

static struct span reply_span(const redisReply *r)
{
    bool text = r->type == REDIS_REPLY_STRING || r->type == REDIS_REPLY_STATUS;
    return text ? span_of(r->str, (size_t)r->len) : span_of(NULL, 0);
}

/* "1700000000000-3": its time; false: not an id. */
static bool id_time(struct span id, uint64_t *ms)
{
    size_t at = 0;
    uint64_t number;
    while (at < id.n && id.p[at] != '-')
        at++;
    return id.n < FLEET_ID && at < id.n && span_number(span_head(id, at), INT64_MAX, ms) &&
           span_number(span_from(id, at + 1), INT64_MAX, &number);
}

/* ---- out ---- */

static void drop_oldest(struct stream *s)
{
    /* the first may be under way */
    struct outgoing **at = s->telling ? &s->first->next : &s->first, *o = *at;
    if (!o)
        return;
    *at = o->next;
    if (!o->next)
        s->end = at;
    s->waiting -= o->n;
    free(o);
    pthread_mutex_lock(&s->fleet->lock);
    s->fleet->dropped++;
    pthread_mutex_unlock(&s->fleet->lock);
}

static void queue(struct stream *s, const uint8_t *bytes, size_t n)
{
    struct outgoing *o = malloc(sizeof *o + n);
    if (!o)
        abort();
    *o = (struct outgoing){.number = ++s->number, .at = fleet_time(s->fleet), .n = n};
    memcpy(o->bytes, bytes, n);
    *s->end = o;
    s->end = &o->next;
    s->waiting += n;
}

void stream_collect(struct stream *s, bool last)
{
    if (!s->topic->collect)
        return;
    for (unsigned i = 0; i < COLLECT_MOST; i++) {
        uint8_t *bytes = NULL;
        size_t n = s->topic->collect(s->arg, last, &bytes);
        if (!n)
            return;
        queue(s, bytes, n < FLEET_BATCH ? n : FLEET_BATCH);
        free(bytes);
        while (s->waiting > WAITING_MAX && s->first->next)
            drop_oldest(s);
    }
}

static void first_done(struct stream *s)
{
    struct outgoing *o = s->first;
    s->first = o->next;
    if (!s->first)
        s->end = &s->first;
    s->waiting -= o->n;
    free(o);
}

void stream_drop_all(struct stream *s)
{
    while (s->first)
        first_done(s);
}

static void complain(struct stream *s, const redisReply *r)
{
    char words[120];
    struct span text = span_of(r->str, (size_t)r->len);
    if (fleet_set_aside(s->fleet, s->key, text))
        return;
    span_show(text, words, sizeof words);
    if (!s->said)
        log_say(LOG_LEVEL_ERROR, "Redis: stream %s: %s", s->key, words);
    s->said = true;
}

/* Our own entry has an id below the last one read: the stream was lost, or its clock went back.
 * What is there now is read from its beginning; what was heard already is known by its number. */
static void check_order(struct stream *s, struct span id)
{
    uint64_t ms;
    if (!id_time(id, &ms) || ms >= s->last_ms)
        return;
    snprintf(s->last, sizeof s->last, "0-0");
    s->last_ms = 0;
}

static void let_expire(struct stream *s)
{
    char lasts[24];
    snprintf(lasts, sizeof lasts, "%lld", (long long)s->topic->lasts);
    const struct span argv[] = {SPAN("PEXPIRE"), span_str(s->key), span_str(lasts)};
    redis_send(s->fleet->redis, argv[1], argv, 3, FLEET_DEADLINE, NULL, NULL);
}

static void told(void *arg, const struct redisReply *r, const char *why)
{
    struct stream *s = arg;
    (void)why;
    s->telling = NULL;
    if (!r)
        return; /* perhaps it arrived: the same again, at the next tick */
    if (r->type == REDIS_REPLY_ERROR) {
        complain(s, r);
        return;
    }
    check_order(s, reply_span(r));
    first_done(s);
    if (s->topic->lasts)
        let_expire(s);
    pthread_mutex_lock(&s->fleet->lock);
    s->fleet->told++;
    pthread_mutex_unlock(&s->fleet->lock);
    stream_tell(s);
}

void stream_tell(struct stream *s)
{
    struct fleet *f = s->fleet;
    const struct outgoing *o = s->first;
    char keep[24], boot[24], number[24], like[24], at[24];
    if (!o || s->telling || !atomic_load(&f->shares) || !redis_up(f->redis))
        return;
    snprintf(keep, sizeof keep, "%u", s->topic->keep);
    snprintf(boot, sizeof boot, "%016llx", (unsigned long long)f->me.boot);
    snprintf(number, sizeof number, "%llu", (unsigned long long)o->number);
    snprintf(like, sizeof like, "%016llx", (unsigned long long)member_likeness(&f->me));
    snprintf(at, sizeof at, "%lld", (long long)o->at);
    const struct span argv[] = {SPAN("XADD"),   span_str(s->key),
                                SPAN("MAXLEN"), SPAN("~"),
                                span_str(keep), SPAN("*"),
                                SPAN("n"),      span_str(f->me.name),
                                SPAN("b"),      span_str(boot),
                                SPAN("s"),      span_str(number),
                                SPAN("h"),      span_str(like),
                                SPAN("t"),      span_str(at),
                                SPAN("d"),      span_of(o->bytes, o->n)};
    s->telling =
        redis_send(f->redis, argv[1], argv, sizeof argv / sizeof *argv, FLEET_DEADLINE, told, s);
}

/* ---- in ---- */

/* One entry, as it lies in the stream. */
struct entry {
    struct span name, bytes;
    uint64_t boot, number, like, at;
};

static bool hex64(struct span s, uint64_t *out)
{
    uint64_t v = 0;
    if (s.n != 16)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        int d = byte_hex(s.p[i]);
        if (d < 0)
            return false;
        v = v << 4 | (uint64_t)d;
    }
    *out = v;
    return true;
}

static bool read_field(struct entry *e, struct span name, struct span value)
{
    if (name.n != 1)
        return true; /* of a later version */
    switch (name.p[0]) {
    case 'n':
        e->name = value;
        return value.n > 0 && value.n < MEMBER_NAME;
    case 'b':
        return hex64(value, &e->boot);
    case 's':
        return span_number(value, INT64_MAX, &e->number);
    case 'h':
        return hex64(value, &e->like);
    case 't':
        return span_number(value, INT64_MAX, &e->at);
    case 'd':
        e->bytes = value;
        return value.n > 0 && value.n <= FLEET_BATCH;
    default:
        return true;
    }
}

static bool read_entry(struct entry *e, const redisReply *fields)
{
    *e = (struct entry){0};
    if (fields->type != REDIS_REPLY_ARRAY)
        return false;
    for (size_t i = 0; i + 1 < fields->elements; i += 2)
        if (!read_field(e, reply_span(fields->element[i]), reply_span(fields->element[i + 1])))
            return false;
    return e->name.n && e->bytes.n && e->boot && e->number;
}

/* Has this one been heard before? Remembers that it was. */
static bool heard_before(struct stream *s, uint64_t boot, uint64_t number)
{
    struct heard *h = &s->heard[0];
    for (size_t i = 0; i < FLEET_HEARD; i++) {
        struct heard *one = &s->heard[i];
        if (one->boot == boot) {
            h = one;
            break;
        }
        if (one->at < h->at)
            h = one; /* nobody, or who was silent longest */
    }
    if (h->boot == boot && number <= h->number)
        return true;
    *h = (struct heard){.boot = boot, .number = number, .at = clock_mono()};
    return false;
}

static void hear(struct stream *s, const struct entry *e, uint64_t ms)
{
    struct fleet *f = s->fleet;
    int64_t now = clock_now(), at = (int64_t)(e->at < ms ? e->at : ms);
    if (e->boot == f->me.boot || e->like != member_likeness(&f->me) ||
        heard_before(s, e->boot, e->number))
        return;
    pthread_mutex_lock(&f->lock);
    f->heard++;
    pthread_mutex_unlock(&f->lock);
    const struct fleet_batch b = {.node = e->name,
                                  .boot = e->boot,
                                  .at = at < now ? at : now,
                                  .past = (int64_t)ms < f->joined,
                                  .bytes = e->bytes};
    s->topic->apply(s->arg, &b);
}

static void hear_entry(struct stream *s, const redisReply *r)
{
    struct entry e;
    uint64_t ms;
    if (r->type != REDIS_REPLY_ARRAY || r->elements != 2)
        return;
    struct span id = reply_span(r->element[0]);
    if (!id_time(id, &ms))
        return;
    span_show(id, s->last, sizeof s->last);
    s->last_ms = ms;
    if (read_entry(&e, r->element[1]))
        hear(s, &e, ms);
}

/* [[key, [entry, ...]]], or nil. */
static void was_read(void *arg, const struct redisReply *r, const char *why)
{
    struct stream *s = arg;
    (void)why;
    s->reading = NULL;
    if (!r)
        return;
    if (r->type == REDIS_REPLY_ERROR) {
        complain(s, r);
        return;
    }
    s->said = false;
    if (r->type != REDIS_REPLY_ARRAY || r->elements != 1 ||
        r->element[0]->type != REDIS_REPLY_ARRAY || r->element[0]->elements != 2)
        return;
    const redisReply *entries = r->element[0]->element[1];
    if (entries->type != REDIS_REPLY_ARRAY)
        return;
    for (size_t i = 0; i < entries->elements; i++)
        hear_entry(s, entries->element[i]);
    if (entries->elements >= READ_AT_ONCE)
        stream_read(s);
}

void stream_read(struct stream *s)
{
    struct fleet *f = s->fleet;
    char count[8];
    if (s->reading || !s->topic->apply || !f->joined || f->stopping || !atomic_load(&f->shares) ||
        !redis_up(f->redis))
        return;
    snprintf(count, sizeof count, "%d", READ_AT_ONCE);
    const struct span argv[] = {SPAN("XREAD"),   SPAN("COUNT"),    span_str(count),
                                SPAN("STREAMS"), span_str(s->key), span_str(s->last)};
    s->reading = redis_send(f->redis, argv[4], argv, sizeof argv / sizeof *argv, FLEET_DEADLINE,
                            was_read, s);
}
