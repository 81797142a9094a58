/*
 * event.c - observations, fates and records as bytes, and applying them.
 *
 *   head         version * 16 + kind [1]  id[8]  node  now
 *   observation  head flags f[8]
 *                first, whole: nwords  n[1] sketch[4]...
 *                whole:        the first and the last 7 words[8]... (what the rule for tiny texts
 *                              compares), if flagged
 *                origin, list, join: if flagged
 *                again, whole: peer_org[4]  n, shown: hash[8] text...
 *                n, node...
 *                again, whole: nvisible
 *                n, recipient...
 *   node         first: prefix[4] host[4]
 *                else:  flags prefix[4] host[4] server[4]? ordinary  server's text  bytes of it
 *                       that are the host  "for": shown?  n[1], clue: label, shown ...?
 *   recipient    hash[8]   again, whole: domain[2]   told (flagged): label * 4 + WITNESS_...
 *   fates        head n  fate or MIXED[1]  hash[8] fate[1]? ...
 *   record       head, the bytes of record_pack()
 *
 * Numbers without a size are varints, seven bits a byte, lowest first; a text is its length and its
 * bytes. `shown` are the visible addresses that a clue or a "for" points at, as people would be
 * shown them, in the order of their hashes. Labels are numbers of this event: they are only
 * compared with each other.
 *
 * Invariant: an event is read whole before the record is touched.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "alias.h"
#include "event.h"

enum {
    ENDS = MIN_WORDS - 1, /* words at either end that a tiny text can have */
    SHOWN_MAX = PATH_MAX_NODES * (CLUE_LABELS + 1),
    LABELS_MAX = PATH_MAX_NODES * CLUE_LABELS,
    WHY_MAX = 1024, /* bytes of the evidence for a join */
    VARINT_MAX = 10,
    MIXED = 255 /* fates that differ */
};

/* Of an observation. */
enum {
    HAS_TOLD = 1,
    HAS_ORIGIN = 2,
    HAS_LIST = 4,
    HAS_WORDS = 8,
    LIST_MARKED = 16,
    DATED = 32,
    TRANSIT = 64,
    ACKED = 128,
    HAS_JOIN = 256,
    JOIN_WEAK = 512,
    CONNECTOR = 1024,
    CYCLE = 2048,
    FLAGS_END = 4096
};

/* Of a node. */
enum {
    NODE_OWN = 1,
    NODE_HOP = 2,
    NODE_SERVER = 4, /* its id is not that of the host */
    NODE_KNOWN = 8,
    NODE_DIRECT = 16,
    NODE_REINJECTED = 32,
    NODE_FETCHED = 64,
    NODE_PICKUP = 128,
    NODE_FOR = 256,
    NODE_CLUE = 512,
    NODE_SILENT = 1024,
    NODE_END = 2048
};

/* Labels of recipients: those of clues follow. */
enum { LABEL_NONE, LABEL_OTHER, LABEL_FIRST };

/* ---- writing ---- */

static uint8_t *put_varint(uint8_t *p, uint64_t v)
{
    for (; v >= 128; v >>= 7)
        *p++ = (uint8_t)(v | 128);
    *p++ = (uint8_t)v;
    return p;
}

static uint8_t *put_text(uint8_t *p, struct span s)
{
    p = put_varint(p, s.n);
    if (s.n)
        memcpy(p, s.p, s.n);
    return p + s.n;
}

enum { HEAD_MAX = 1 + 8 + 2 * VARINT_MAX };

static uint8_t *put_event_head(uint8_t *p, enum event_kind kind, uint64_t id, uint32_t node,
                               int64_t now)
{
    *p++ = (uint8_t)(EVENT_VERSION * 16 + (unsigned)kind);
    p = bytes_put(p, id, 8);
    p = put_varint(p, node);
    return put_varint(p, (uint64_t)now);
}

/* What an observation refers to: made once, before it is written. */
struct telling {
    const struct observation *o;
    enum event_kind form;
    bool named;          /* the form has the names of servers */
    struct scene *scene; /* if it has */
    const struct clue *clue[PATH_MAX_NODES];
    long for_shown[PATH_MAX_NODES]; /* visible address of the hop's "for", or -1 */
    uint32_t shown[SHOWN_MAX];      /* visible addresses, rising */
    uint32_t label[LABELS_MAX];
    size_t nshown, nlabels;
    uint8_t *about; /* per recipient: WITNESS_... */
    uint32_t *code; /* per recipient: its label */
    bool told;      /* one of them is not 0 */
};

static void show(struct telling *t, uint32_t at)
{
    size_t i = t->nshown;
    while (i && t->shown[i - 1] > at)
        i--;
    if (i && t->shown[i - 1] == at)
        return;
    memmove(&t->shown[i + 1], &t->shown[i], (t->nshown - i) * sizeof *t->shown);
    t->shown[i] = at;
    t->nshown++;
}

static size_t shown_index(const struct telling *t, uint32_t at)
{
    size_t i = 0;
    while (t->shown[i] != at)
        i++;
    return i;
}

static uint32_t label_code(struct telling *t, uint32_t label, bool add)
{
    size_t i = 0;
    if (!label)
        return LABEL_NONE;
    while (i < t->nlabels && t->label[i] != label)
        i++;
    if (i == t->nlabels && !add)
        return LABEL_OTHER;
    if (i == t->nlabels)
        t->label[t->nlabels++] = label;
    return LABEL_FIRST + (uint32_t)i;
}

static void tell_nodes(struct telling *t)
{
    const struct subject *s = t->o->subject;
    t->scene = scene_new(NULL, t->o);
    for (size_t i = 0; i < s->path.n; i++) {
        const struct hop *h = s->path.node[i].hop;
        const struct clue *c = t->clue[i] = scene_clue(t->scene, i);
        t->for_shown[i] = h && h->for_hash ? visible_find(&s->visible, h->for_hash) : -1;
        if (t->for_shown[i] >= 0)
            show(t, (uint32_t)t->for_shown[i]);
        for (unsigned k = 0; k < c->n; k++) {
            show(t, c->at[k]);
            (void)label_code(t, c->label[k], true);
        }
    }
}

static void tell_recipients(struct telling *t)
{
    const struct subject *s = t->o->subject;
    size_t n = s->envelope->nrecipients;
    t->about = arena_zero(s->arena, n);
    t->code = arena_zero(s->arena, n * sizeof *t->code);
    for (size_t i = 0; i < n; i++) {
        if (observation_had(t->o, i))
            t->about[i] |= WITNESS_HAD;
        if (t->named && observation_exempts(t->o, i))
            t->about[i] |= WITNESS_EXEMPT;
        if (t->named && i < ENTRIES_EACH)
            t->code[i] = label_code(t, scene_label(t->scene, i), false);
        t->told |= t->about[i] || t->code[i];
    }
}

/* At most so many bytes. */
static size_t most_bytes(const struct telling *t)
{
    const struct subject *s = t->o->subject;
    size_t n = HEAD_MAX + 5 * VARINT_MAX + 8 + 1 + 4 * SKETCH_MAX + 8 * 2 * ENDS +
               sizeof(struct origin) + VARINT_MAX + WHY_MAX + 4 * VARINT_MAX;
    n += t->nshown * (8 + VARINT_MAX + DOSSIER_ADDRESS);
    for (size_t i = 0; i < s->path.n; i++)
        n += 12 + 6 * VARINT_MAX + 2 * CLUE_LABELS * VARINT_MAX + s->path.node[i].server.n;
    return n + s->envelope->nrecipients * (8 + 2 + VARINT_MAX);
}

static uint32_t flags_of(const struct telling *t)
{
    const struct observation *o = t->o;
    const struct subject *s = o->subject;
    return (t->told ? HAS_TOLD : 0u) | (o->origin ? HAS_ORIGIN : 0u) |
           (observation_list(o) ? HAS_LIST : 0u) |
           (t->form == EVENT_WHOLE && s->fp.word ? HAS_WORDS : 0u) |
           (s->fp.list_marked ? LIST_MARKED : 0u) | (s->fp.date.n ? DATED : 0u) |
           (o->transit ? TRANSIT : 0u) | (s->envelope->acked ? ACKED : 0u) |
           (o->join ? HAS_JOIN : 0u) | (o->join_weak ? JOIN_WEAK : 0u) |
           (s->visible.connector.n ? CONNECTOR : 0u) | (s->path.cycle >= 2 ? CYCLE : 0u);
}

static uint8_t *put_content(uint8_t *p, const struct fingerprints *fp, enum event_kind form)
{
    if (form == EVENT_AGAIN)
        return p;
    p = put_varint(p, fp->nwords);
    *p++ = fp->sketch.n;
    for (unsigned i = 0; i < fp->sketch.n; i++)
        p = bytes_put(p, fp->sketch.value[i], 4);
    if (form == EVENT_FIRST || !fp->word)
        return p;
    uint32_t n = fp->nwords < ENDS ? fp->nwords : ENDS;
    for (uint32_t i = 0; i < n; i++)
        p = bytes_put(p, fp->word[i], 8);
    for (uint32_t i = 0; i < n; i++)
        p = bytes_put(p, fp->word[fp->nwords - n + i], 8);
    return p;
}

static uint8_t *put_origin(uint8_t *p, const struct origin *o)
{
    p = bytes_put(p, o->chain, 8);
    p = bytes_put(p, o->text, 8);
    p = bytes_put(p, o->theme, 8);
    p = bytes_put(p, o->visible, 8);
    p = put_varint(p, o->nvisible);
    p = bytes_put(p, o->oldest, 4);
    p = bytes_put(p, o->peer, 4);
    p = bytes_put(p, o->source, 4);
    return bytes_put(p, o->date, 4);
}

static uint8_t *put_shown(uint8_t *p, const struct telling *t)
{
    const struct visible *v = &t->o->subject->visible;
    p = put_varint(p, t->nshown);
    for (size_t i = 0; i < t->nshown; i++) {
        char text[DOSSIER_ADDRESS];
        span_show(addressee_shown(v, (long)t->shown[i]), text, sizeof text);
        p = bytes_put(p, v->hash[t->shown[i]], 8);
        p = put_text(p, span_str(text));
    }
    return p;
}

static uint32_t node_flags(const struct telling *t, size_t i)
{
    const struct node *n = &t->o->subject->path.node[i];
    const struct hop *h = n->hop;
    uint32_t flags = (n->own ? NODE_OWN : 0u) |
                     (n->server_id != (uint32_t)n->host_hash ? NODE_SERVER : 0u) |
                     (t->o->known && t->o->known[i] ? NODE_KNOWN : 0u) |
                     (t->o->direct && t->o->direct[i] ? NODE_DIRECT : 0u) |
                     (t->for_shown[i] >= 0 ? NODE_FOR : 0u) | (t->clue[i]->n ? NODE_CLUE : 0u) |
                     (t->clue[i]->silent ? NODE_SILENT : 0u);
    if (!h)
        return flags;
    return flags | NODE_HOP | (h->reinjected ? NODE_REINJECTED : 0u) |
           (h->fetched ? NODE_FETCHED : 0u) | (hop_pickup(h) ? NODE_PICKUP : 0u);
}

static uint8_t *put_node(uint8_t *p, struct telling *t, size_t i)
{
    const struct node *n = &t->o->subject->path.node[i];
    const struct clue *c = t->clue[i];
    if (!t->named) {
        p = bytes_put(p, n->prefix_id, 4);
        return bytes_put(p, n->host_hash, 4);
    }
    uint32_t flags = node_flags(t, i);
    p = put_varint(p, flags);
    p = bytes_put(p, n->prefix_id, 4);
    p = bytes_put(p, n->host_hash, 4);
    if (flags & NODE_SERVER)
        p = bytes_put(p, n->server_id, 4);
    p = put_varint(p, t->o->ordinary ? t->o->ordinary[i] : 0);
    p = put_text(p, n->server);
    p = put_varint(p, n->host.n < n->server.n ? n->host.n : n->server.n);
    if (flags & NODE_FOR)
        p = put_varint(p, shown_index(t, (uint32_t)t->for_shown[i]));
    if (flags & NODE_CLUE)
        *p++ = c->n;
    for (unsigned k = 0; k < c->n; k++) {
        p = put_varint(p, label_code(t, c->label[k], false));
        p = put_varint(p, shown_index(t, c->at[k]));
    }
    return p;
}

static uint8_t *put_recipients(uint8_t *p, const struct telling *t)
{
    const struct envelope *e = t->o->subject->envelope;
    p = put_varint(p, e->nrecipients);
    for (size_t i = 0; i < e->nrecipients; i++) {
        p = bytes_put(p, e->recipients[i].hash, 8);
        if (t->named)
            p = bytes_put(p, e->recipients[i].domain, 2);
        if (t->told)
            p = put_varint(p, t->code[i] * 4 + t->about[i]);
    }
    return p;
}

static uint8_t *put_observation(uint8_t *p, struct telling *t)
{
    const struct observation *o = t->o;
    const struct subject *s = o->subject;
    p = put_varint(p, flags_of(t));
    p = bytes_put(p, s->fp.f, 8);
    p = put_content(p, &s->fp, t->form);
    if (o->origin)
        p = put_origin(p, o->origin);
    if (observation_list(o))
        p = bytes_put(p, observation_list(o), 4);
    if (o->join) {
        *p++ = (uint8_t)o->join;
        p = put_text(p, span_head(span_str(o->join_why), WHY_MAX));
    }
    if (t->named) {
        p = bytes_put(p, scene_peer(t->scene), 4);
        p = put_shown(p, t);
    }
    p = put_varint(p, s->path.n);
    for (size_t i = 0; i < s->path.n; i++)
        p = put_node(p, t, i);
    if (t->named)
        p = put_varint(p, observation_visible(o));
    return put_recipients(p, t);
}

size_t event_observation(struct arena *a, const struct observation *o, enum event_kind form,
                         uint64_t id, uint32_t node, uint8_t **out)
{
    struct telling t = {.o = o, .form = form, .named = form != EVENT_FIRST};
    assert(form == EVENT_FIRST || form == EVENT_AGAIN || form == EVENT_WHOLE);
    assert(!(form == EVENT_FIRST && o->join));
    if (t.named)
        tell_nodes(&t);
    tell_recipients(&t);
    size_t most = most_bytes(&t);
    *out = arena_alloc(a, most);
    uint8_t *p = put_event_head(*out, form, id, node, o->subject->now);
    p = put_observation(p, &t);
    assert((size_t)(p - *out) <= most);
    return (size_t)(p - *out);
}

size_t event_fates(struct arena *a, uint64_t id, uint32_t node, int64_t now, const uint64_t *rcpt,
                   const enum fate *fate, size_t n, uint8_t **out)
{
    bool mixed = false;
    for (size_t i = 1; i < n; i++)
        mixed |= fate[i] != fate[0];
    *out = arena_alloc(a, HEAD_MAX + VARINT_MAX + 1 + 9 * n);
    uint8_t *p = put_event_head(*out, EVENT_FATES, id, node, now);
    p = put_varint(p, n);
    *p++ = mixed ? MIXED : n ? (uint8_t)fate[0] : 0;
    for (size_t i = 0; i < n; i++) {
        p = bytes_put(p, rcpt[i], 8);
        if (mixed)
            *p++ = (uint8_t)fate[i];
    }
    return (size_t)(p - *out);
}

size_t event_record(struct arena *a, const struct record *r, uint64_t id, uint32_t node,
                    int64_t now, uint8_t **out)
{
    size_t n;
    uint8_t *packed = record_pack(r, &n);
    *out = arena_alloc(a, HEAD_MAX + n);
    uint8_t *p = put_event_head(*out, EVENT_RECORD, id, node, now);
    memcpy(p, packed, n);
    free(packed);
    return (size_t)(p - *out) + n;
}

/* ---- reading ---- */

static uint64_t get_varint(struct unpack *in)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t byte = (uint8_t)unpack_get(in, 1);
        v |= (uint64_t)(byte & 127) << shift;
        if (byte < 128)
            return v;
    }
    in->bad = true;
    return 0;
}

/* A number that may be at most `most`. */
static uint32_t get_most(struct unpack *in, uint32_t most)
{
    uint64_t v = get_varint(in);
    in->bad |= v > most;
    return v > most ? 0 : (uint32_t)v;
}

/* How many there are, of `each` bytes at least: so many bytes are left. */
static size_t get_count(struct unpack *in, uint32_t most, size_t each)
{
    size_t n = get_most(in, most);
    if (n * each <= in->rest.n)
        return n;
    in->bad = true;
    return 0;
}

static struct span get_bytes(struct unpack *in, size_t n)
{
    if (in->rest.n < n) {
        in->bad = true;
        return (struct span){0};
    }
    struct span s = span_head(in->rest, n);
    in->rest = span_from(in->rest, n);
    return s;
}

static bool get_head(struct unpack *in, struct event_head *h)
{
    uint8_t first = (uint8_t)unpack_get(in, 1);
    h->kind = (enum event_kind)(first % 16);
    h->id = unpack_get(in, 8);
    h->node = get_most(in, UINT32_MAX);
    h->now = (int64_t)get_varint(in);
    in->bad |= first / 16 != EVENT_VERSION || h->kind == EVENT_NONE || h->kind >= EVENT_KINDS ||
               h->now < 0;
    return !in->bad;
}

bool event_head(struct span event, struct event_head *out)
{
    struct unpack in = {.rest = event};
    return get_head(&in, out);
}

/* One observation, read; it is what a subject is to replication_observe(). */
struct heard {
    struct arena *arena;
    enum event_kind form;
    bool named;
    uint32_t flags;
    struct subject s;
    struct envelope e;
    struct observation o;
    struct witness witness;
    struct origin origin;
    uint64_t word[2 * ENDS];
};

static void get_content(struct unpack *in, struct heard *h)
{
    struct fingerprints *fp = &h->s.fp;
    if (h->form == EVENT_AGAIN)
        return;
    fp->nwords = get_most(in, UINT32_MAX);
    fp->sketch.n = (uint8_t)get_count(in, SKETCH_MAX, 4);
    for (unsigned i = 0; i < fp->sketch.n; i++)
        fp->sketch.value[i] = (uint32_t)unpack_get(in, 4);
    fp->word = h->word;
    fp->words_end = h->word + 2 * ENDS;
    if (!(h->flags & HAS_WORDS))
        return;
    uint32_t n = fp->nwords < ENDS ? fp->nwords : ENDS;
    for (uint32_t i = 0; i < n; i++)
        h->word[i] = unpack_get(in, 8);
    for (uint32_t i = 0; i < n; i++)
        h->word[2 * ENDS - n + i] = unpack_get(in, 8);
}

static void get_origin(struct unpack *in, struct heard *h)
{
    struct origin *o = &h->origin;
    o->chain = unpack_get(in, 8);
    o->text = unpack_get(in, 8);
    o->theme = unpack_get(in, 8);
    o->visible = unpack_get(in, 8);
    o->nvisible = get_most(in, UINT32_MAX);
    o->oldest = (uint32_t)unpack_get(in, 4);
    o->peer = (uint32_t)unpack_get(in, 4);
    o->source = (uint32_t)unpack_get(in, 4);
    o->date = (uint32_t)unpack_get(in, 4);
    h->o.origin = o;
}

static void get_join(struct unpack *in, struct heard *h)
{
    h->o.join = (unsigned)unpack_get(in, 1);
    in->bad |= h->o.join == JOIN_OWN || h->o.join >= JOINS;
    struct span why = get_bytes(in, get_most(in, WHY_MAX));
    h->o.join_why = why.n ? arena_str(h->arena, why) : NULL;
}

/* Of the visible addresses those that matter, as people are shown them already. */
static void get_shown(struct unpack *in, struct heard *h)
{
    struct visible *v = &h->s.visible;
    v->n = v->total = get_count(in, SHOWN_MAX, 9);
    v->hash = arena_alloc(h->arena, v->n * sizeof *v->hash);
    v->address = arena_alloc(h->arena, v->n * sizeof *v->address);
    for (size_t i = 0; i < v->n; i++) {
        v->hash[i] = unpack_get(in, 8);
        v->address[i] = get_bytes(in, get_most(in, DOSSIER_ADDRESS - 1));
        in->bad |= i && v->hash[i] <= v->hash[i - 1];
    }
    if (h->flags & CONNECTOR)
        v->connector = SPAN("mspop3connector.@ "); /* of nobody's domain: it is not shown again */
}

static void get_clue(struct unpack *in, struct heard *h, struct clue *c)
{
    c->n = (uint8_t)unpack_get(in, 1);
    in->bad |= c->n > CLUE_LABELS;
    for (unsigned i = 0; i < c->n && !in->bad; i++) {
        c->label[i] = get_most(in, LABEL_FIRST + LABELS_MAX);
        c->at[i] = get_most(in, SHOWN_MAX);
        in->bad |= c->label[i] < LABEL_FIRST || c->at[i] >= h->s.visible.n;
    }
}

static bool all_visible(struct span s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] <= ' ' || s.p[i] > '~')
            return false;
    return true;
}

static void get_hop(struct unpack *in, struct heard *h, struct node *n, uint32_t flags)
{
    const struct visible *v = &h->s.visible;
    struct hop *hop = NULL;
    if (flags & NODE_HOP) {
        n->hop = hop = arena_zero(h->arena, sizeof *hop);
        hop->reinjected = flags & NODE_REINJECTED;
        hop->fetched = flags & NODE_FETCHED;
        hop->line = flags & NODE_PICKUP ? HOP_PICKUP : SPAN("");
    }
    if (!(flags & NODE_FOR))
        return;
    uint32_t at = get_most(in, SHOWN_MAX);
    in->bad |= !hop || at >= v->n;
    if (!in->bad)
        hop->for_hash = v->hash[at];
}

/* The answers that go with a node. */
struct answers {
    uint32_t *ordinary;
    bool *known, *direct;
    struct clue *clue;
};

static void get_node(struct unpack *in, struct heard *h, size_t i, struct answers *a)
{
    struct node *n = &h->s.path.node[i];
    uint32_t flags = h->named ? get_most(in, NODE_END - 1) : 0;
    n->prefix_id = (uint32_t)unpack_get(in, 4);
    n->host_hash = unpack_get(in, 4);
    n->server_id = (uint32_t)(flags & NODE_SERVER ? unpack_get(in, 4) : n->host_hash);
    if (!h->named)
        return;
    a->ordinary[i] = get_most(in, UINT32_MAX);
    a->known[i] = flags & NODE_KNOWN;
    a->direct[i] = flags & NODE_DIRECT;
    n->own = flags & NODE_OWN;
    n->server = get_bytes(in, get_most(in, SERVER_NAME));
    n->host = span_head(n->server, get_most(in, SERVER_NAME));
    in->bad |= !all_visible(n->server);
    get_hop(in, h, n, flags);
    if (flags & NODE_CLUE)
        get_clue(in, h, &a->clue[i]);
    a->clue[i].silent = flags & NODE_SILENT;
}

static void get_path(struct unpack *in, struct heard *h)
{
    struct path *p = &h->s.path;
    p->n = get_count(in, PATH_MAX_NODES, 8);
    in->bad |= !p->n;
    p->node = arena_zero(h->arena, p->n * sizeof *p->node);
    p->cycle = h->flags & CYCLE ? 2 : 0;
    struct answers a = {.ordinary = arena_zero(h->arena, p->n * sizeof *a.ordinary),
                        .known = arena_zero(h->arena, p->n * sizeof *a.known),
                        .direct = arena_zero(h->arena, p->n * sizeof *a.direct),
                        .clue = arena_zero(h->arena, p->n * sizeof *a.clue)};
    for (size_t i = 0; i < p->n && !in->bad; i++)
        get_node(in, h, i, &a);
    h->o.ordinary = a.ordinary;
    h->o.known = a.known;
    h->o.direct = a.direct;
    h->witness.clue = a.clue;
}

static void get_recipients(struct unpack *in, struct heard *h)
{
    size_t n = get_count(in, EVENT_RCPTS_MAX, h->named ? 10 : 8);
    struct recipient *r = arena_zero(h->arena, n * sizeof *r);
    uint32_t *label = arena_zero(h->arena, n * sizeof *label);
    uint8_t *about = arena_zero(h->arena, n);
    for (size_t i = 0; i < n && !in->bad; i++) {
        r[i].hash = unpack_get(in, 8);
        r[i].domain = h->named ? (uint16_t)unpack_get(in, 2) : 0;
        uint32_t told = h->flags & HAS_TOLD ? get_most(in, (LABEL_FIRST + LABELS_MAX) * 4u + 3) : 0;
        label[i] = told / 4;
        about[i] = told % 4;
    }
    h->e.recipients = r;
    h->e.nrecipients = n;
    h->witness.label = label;
    h->witness.recipient = about;
}

static void get_observation(struct unpack *in, struct heard *h)
{
    struct subject *s = &h->s;
    h->flags = get_most(in, FLAGS_END - 1);
    s->fp.f = unpack_get(in, 8);
    get_content(in, h);
    if (h->flags & HAS_ORIGIN)
        get_origin(in, h);
    if (h->flags & HAS_LIST)
        h->witness.list = (uint32_t)unpack_get(in, 4);
    if (h->flags & HAS_JOIN)
        get_join(in, h);
    if (h->named) {
        h->witness.peer_org = (uint32_t)unpack_get(in, 4);
        get_shown(in, h);
    }
    get_path(in, h);
    if (h->named)
        h->witness.nvisible = get_most(in, EVENT_RCPTS_MAX);
    get_recipients(in, h);
    s->fp.list_marked = h->flags & LIST_MARKED;
    s->fp.date = h->flags & DATED ? SPAN("?") : SPAN("");
    h->e.acked = h->flags & ACKED;
    h->o.transit = h->flags & TRANSIT;
    h->o.join_weak = h->flags & JOIN_WEAK;
}

/* ---- applying ---- */

static bool has_content(const struct record *r, uint64_t f)
{
    for (unsigned i = 0; i < r->nvariants; i++)
        if (r->variant[i].f == f)
            return true;
    return false;
}

enum event_kind event_form_for(const struct record *r, const struct observation *o)
{
    if (!r || record_empty(r))
        return o->join ? EVENT_WHOLE : EVENT_FIRST;
    return has_content(r, o->subject->fp.f) ? EVENT_AGAIN : EVENT_WHOLE;
}

static bool fits(const struct record *r, enum event_kind form, uint64_t f)
{
    if (form == EVENT_FIRST)
        return record_empty(r);
    return form == EVENT_WHOLE || has_content(r, f);
}

static enum event_applied apply_observation(struct record *r, struct unpack *in, struct heard *h,
                                            struct replication_signals *out)
{
    struct replication_signals unasked;
    get_observation(in, h);
    if (in->bad || in->rest.n)
        return EVENT_BAD;
    if (!fits(r, h->form, h->s.fp.f))
        return EVENT_UNFIT;
    if (record_empty(r))
        r->first = r->last = h->s.now; /* whenever this node made room for it */
    if (replication_observe(r, &h->o, out ? out : &unasked) != OBSERVED_OK)
        return EVENT_CONFLICT;
    return EVENT_OK;
}

static enum event_applied apply_fates(struct record *r, struct unpack *in, struct arena *a)
{
    size_t n = get_count(in, EVENT_RCPTS_MAX, 8);
    uint8_t all = (uint8_t)unpack_get(in, 1);
    uint64_t *rcpt = arena_alloc(a, n * sizeof *rcpt);
    enum fate *fate = arena_alloc(a, n * sizeof *fate);
    for (size_t i = 0; i < n && !in->bad; i++) {
        rcpt[i] = unpack_get(in, 8);
        fate[i] = (enum fate)(all == MIXED ? unpack_get(in, 1) : all);
        in->bad |= fate[i] > FATE_ABORTED;
    }
    if (in->bad || in->rest.n)
        return EVENT_BAD;
    record_settle(r, rcpt, fate, n);
    return EVENT_OK;
}

static enum event_applied apply_record(struct record *r, struct unpack *in)
{
    struct record *packed = record_unpack(in->rest);
    if (!packed)
        return EVENT_BAD;
    record_replace(r, &packed);
    return EVENT_OK;
}

enum event_applied event_apply(struct record *r, struct span event, const struct site *site,
                               const struct keys *keys, struct arena *a,
                               struct replication_signals *out)
{
    struct unpack in = {.rest = event};
    struct event_head head;
    if (!get_head(&in, &head))
        return EVENT_BAD;
    if (head.kind == EVENT_FATES)
        return apply_fates(r, &in, a);
    if (head.kind == EVENT_RECORD)
        return apply_record(r, &in);
    struct heard h = {.arena = a, .form = head.kind, .named = head.kind != EVENT_FIRST};
    h.s =
        (struct subject){.arena = a, .site = site, .keys = keys, .envelope = &h.e, .now = head.now};
    h.o.subject = &h.s;
    h.o.witness = &h.witness;
    return apply_observation(r, &in, &h, out);
}
