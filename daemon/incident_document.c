/*
 * incident_document.c - what is told of an incident: a snapshot of it, with what the store knows of
 * its messages, in JSON.
 *
 *   table --snapshot--> ask the store about each member --> remember (table) --> document
 *
 * The store has seen the first copies too, which passed, but may forget; so what it said last is
 * kept. Copies are always passed + tagged + held.
 */
#include <math.h>
#include <stdlib.h>

#include "incident.h"
#include "incident_own.h"

static const int64_t CLOSED_AFTER = 24 * 3600 * 1000LL, LATE_AFTER = 24 * 3600 * 1000LL;
enum { CULPRIT_EVIDENCE = 8 };

/* ---- states ---- */

bool incident_is_open(int64_t last, int64_t now)
{
    return now - last < INCIDENT_OPEN_MS;
}

static const char *state_at(int64_t last, bool resurfaced, int64_t now)
{
    if (incident_is_open(last, now))
        return resurfaced ? "resurfaced" : "open";
    return now - last < CLOSED_AFTER ? "quiet" : "closed";
}

/* What only we need. */
static void forget_memory(json_t *document)
{
    json_t *culprits = json_object_get(document, "culprits");
    for (size_t i = 0; i < json_array_size(culprits); i++)
        json_object_del(json_array_get(culprits, i), "server");
    json_object_del(document, "memory");
}

void incident_restate(json_t *document, int64_t now)
{
    int64_t last = json_ms(json_object_get(document, "last"));
    bool resurfaced = json_is_object(json_object_get(document, "resurfaced"));
    json_object_set_new(document, "state", json_string(state_at(last, resurfaced, now)));
    forget_memory(document);
}

/* ---- culprits ---- */

static json_t *culprit_json(const struct culprit *c)
{
    json_t *evidence = json_array();
    for (size_t i = 0; i < c->nevidence; i++)
        json_array_append_new(evidence, json_text_of(c->evidence[i]));
    json_t *j = json_object();
    json_object_set_new(j, "relay", json_text(c->relay));
    json_object_set_new(j, "server", json_integer(c->server));
    json_object_set_new(j, "named", json_boolean(c->named));
    json_object_set_new(j, "copies", json_integer(c->detours));
    json_object_set_new(j, "score", json_real(isfinite(c->score) ? round(c->score * 10) / 10 : 0));
    json_object_set_new(j, "grade", json_text_of(c->grade));
    json_object_set_new(j, "conviction", json_text_of(c->conviction));
    json_object_set_new(j, "since", json_time(c->since));
    json_object_set_new(j, "until", json_time(c->until));
    json_object_set_new(j, "evidence", evidence);
    return j;
}

static json_t *culprit_find(const json_t *list, const json_t *like)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (json_equal(json_object_get(json_array_get(list, i), "relay"),
                       json_object_get(like, "relay")))
            return json_array_get(list, i);
    return NULL;
}

/* The earlier since, the later until; 0 is no time. */
static void widen(json_t *c, const json_t *other)
{
    int64_t since = json_ms(json_object_get(other, "since"));
    int64_t own = json_ms(json_object_get(c, "since"));
    if (since && (!own || since < own))
        json_object_set(c, "since", json_object_get(other, "since"));
    if (json_ms(json_object_get(other, "until")) > json_ms(json_object_get(c, "until")))
        json_object_set(c, "until", json_object_get(other, "until"));
}

/* What another message of the incident says about the same server. */
static void culprit_merge(json_t *c, const json_t *other)
{
    uint64_t copies = json_get_num(c, "copies") + json_get_num(other, "copies");
    json_t *evidence = json_object_get(c, "evidence");
    const json_t *more = json_object_get(other, "evidence");
    bool better = json_number_value(json_object_get(other, "score")) >
                  json_number_value(json_object_get(c, "score"));
    json_object_set_new(c, "copies", json_integer((json_int_t)copies));
    widen(c, other);
    if (json_get_yes(other, "named"))
        json_object_set_new(c, "named", json_true());
    if (better)
        json_object_set(c, "score", json_object_get(other, "score"));
    if (better)
        json_object_set(c, "grade", json_object_get(other, "grade"));
    if (!*json_get_str(c, "conviction"))
        json_object_set(c, "conviction", json_object_get(other, "conviction"));
    if (json_array_size(evidence) == 0)
        json_array_extend(evidence, (json_t *)more);
}

void incident_blame(json_t *list, json_t *culprit)
{
    json_t *same = culprit_find(list, culprit);
    if (!same) {
        json_array_append_new(list, json_deep_copy(culprit));
        return;
    }
    uint64_t a = json_get_num(same, "copies"), b = json_get_num(culprit, "copies");
    culprit_merge(same, culprit);
    json_object_set_new(same, "copies", json_integer((json_int_t)(a > b ? a : b)));
}

static void culprits_add(json_t *list, const struct report *r)
{
    for (size_t i = 0; i < r->nculprits; i++) {
        json_t *j = culprit_json(&r->culprits[i]), *same = culprit_find(list, j);
        if (same)
            culprit_merge(same, j);
        else
            json_array_append(list, j);
        json_decref(j);
    }
}

static int best_first(const void *a, const void *b)
{
    const json_t *x = *(json_t *const *)a, *y = *(json_t *const *)b;
    int named = json_get_yes(y, "named") - json_get_yes(x, "named");
    if (named)
        return named;
    double by = json_number_value(json_object_get(y, "score")) -
                json_number_value(json_object_get(x, "score"));
    if (by != 0)
        return by > 0 ? 1 : -1;
    return strcmp(json_get_str(x, "relay"), json_get_str(y, "relay"));
}

/* Best first, at most CULPRITS_MAX. Takes the list. */
json_t *incident_blamed(json_t *list)
{
    enum { MOST = 4 * CULPRITS_MAX };
    json_t *sorted[MOST] = {NULL}, *out = json_array();
    size_t n = 0;
    for (; n < json_array_size(list) && n < MOST; n++)
        sorted[n] = json_array_get(list, n);
    qsort(sorted, n, sizeof(json_t *), best_first);
    for (size_t i = 0; i < n && i < CULPRITS_MAX; i++)
        json_array_append(out, sorted[i]);
    json_decref(list);
    return out;
}

/* Those known before. The store knows better about this time; but the culprits of a wave of weeks
 * ago, or before a restart, it may have forgotten: they were named for good. */
static void culprits_remember(json_t *list, const struct incident *i)
{
    bool store_knows = json_array_size(list) > 0;
    for (size_t n = 0; n < json_array_size(i->culprits); n++) {
        json_t *old = json_array_get(i->culprits, n), *same = culprit_find(list, old);
        bool past =
            json_get_yes(old, "named") && json_ms(json_object_get(old, "until")) <= i->history;
        if (same && json_get_num(old, "copies") > json_get_num(same, "copies"))
            json_object_set(same, "copies", json_object_get(old, "copies"));
        if (same)
            widen(same, old);
        else if (!store_knows || past)
            json_array_append(list, old);
    }
}

/* Has it joined a storm that was on for a day already? */
static void mark_late(json_t *list, int64_t first)
{
    for (size_t n = 0; n < json_array_size(list); n++) {
        json_t *c = json_array_get(list, n);
        int64_t since = json_ms(json_object_get(c, "since"));
        json_object_set_new(c, "late", json_boolean(since && since - first > LATE_AFTER));
    }
}

/* Who floods is the peer itself. Where it is not known what is usual, it is a site, not a name. */
static json_t *flooder_json(const struct incident *i)
{
    const char *evidence[SENTENCES];
    for (size_t n = 0; n < i->nsentences; n++)
        evidence[n] = i->sentence[n].text;
    const struct culprit c = {.relay = span_str(i->relay),
                              .named = i->named,
                              .detours = (uint32_t)i->copies,
                              .grade = "seen directly",
                              .since = i->first,
                              .until = i->last,
                              .evidence = evidence,
                              .nevidence = i->nsentences};
    return culprit_json(&c);
}

/* ---- the store ---- */

static void ask_about(struct incidents *t, struct incident *i, struct member *m, json_t *culprits)
{
    struct arena *arena = arena_new();
    struct report r = {0};
    if (t->store && t->store->ops->report(t->store, &m->k, arena, &r)) {
        /* A record that is younger than what we know of is of a store that forgot. */
        if (!r.first || r.first <= m->first)
            m->extra = r.copies > m->noted ? r.copies - m->noted : 0;
        if (r.first && r.first < m->first)
            m->first = r.first;
        if (r.recipients > m->recipients)
            m->recipients = r.recipients;
        m->without = r.without;
        i->storm |= r.storm;
        culprits_add(culprits, &r);
    }
    arena_free(&arena);
}

static void ask_store(struct incidents *t, struct incident *i)
{
    json_t *culprits = json_array();
    for (size_t n = 0; n < i->nmembers; n++) {
        ask_about(t, i, &i->member[n], culprits);
        if (i->member[n].first < i->first)
            i->first = i->member[n].first;
    }
    if (i->kind == INCIDENT_FLOOD && i->relay[0])
        json_array_append_new(culprits, flooder_json(i));
    culprits_remember(culprits, i);
    mark_late(culprits, i->first);
    json_decref(i->culprits);
    i->culprits = incident_blamed(culprits);
}

/* Puts what only the store knew back into the table, in case the store forgets. */
static void remember(struct incidents *t, const struct incident *snap)
{
    pthread_mutex_lock(&t->lock);
    struct incident *i = incident_find(t, snap->id);
    for (size_t n = 0; i && n < snap->nmembers; n++) {
        const struct member *known = &snap->member[n];
        struct member *m = incident_member(i, &known->k);
        if (!m)
            continue;
        m->first = known->first;
        m->extra = known->extra;
        m->recipients = known->recipients;
        m->without = known->without;
    }
    if (i) {
        i->first = snap->first;
        i->storm |= snap->storm;
        json_decref(i->culprits);
        i->culprits = json_deep_copy(snap->culprits);
    }
    pthread_mutex_unlock(&t->lock);
}

/* ---- documents ---- */

static void set(json_t *j, const char *name, json_t *value)
{
    json_object_set_new(j, name, value);
}

static void set_count(json_t *j, const char *name, uint64_t n)
{
    set(j, name, json_integer((json_int_t)n));
}

static void set_hex(json_t *j, const char *name, const void *bytes, size_t n)
{
    char hex[2 * sizeof(struct key) + 1];
    hex_print(span_of(bytes, n), hex);
    set(j, name, json_string(hex));
}

static void set_hash(json_t *j, const char *name, uint64_t hash)
{
    if (hash)
        set_hex(j, name, &hash, sizeof hash);
}

static void set_counts(json_t *j, const struct incident *i)
{
    uint64_t extra = i->gone, recipients = 0, without = 0;
    for (size_t n = 0; n < i->nmembers; n++) {
        const struct member *m = &i->member[n];
        extra += m->extra;
        recipients = m->recipients > recipients ? m->recipients : recipients;
        without += m->without;
    }
    set_count(j, "copies", i->copies + extra);
    set_count(j, "passed", i->passed + extra);
    set_count(j, "tagged", i->tagged);
    set_count(j, "deferred", i->deferred);
    set_count(j, "held", i->held);
    set_count(j, "would_hold", i->would_hold);
    set_count(j, "recipients", recipients);
    set_count(j, "without", without);
    set_count(j, "visible", i->visible);
}

static json_t *members_json(const struct incident *i)
{
    json_t *list = json_array();
    for (size_t n = 0; n < i->nmembers; n++) {
        const struct member *m = &i->member[n];
        json_t *j = json_object();
        set(j, "message_id", json_text_of(m->message_id));
        set(j, "first", json_time(m->first));
        set_count(j, "copies", m->noted + m->extra);
        set(j, "joined", json_text_of(m->why[0] ? m->why : NULL));
        json_array_append_new(list, j);
    }
    return list;
}

/* What people need not see: by what its messages are found again. */
static json_t *memory_json(const struct incident *i)
{
    json_t *members = json_array(), *servers = json_array(), *abouts = json_array();
    for (size_t n = 0; n < i->nmembers; n++) {
        const struct member *m = &i->member[n];
        json_t *j = json_object();
        set_hex(j, "k", m->k.byte, sizeof m->k.byte);
        set_hash(j, "content", m->content);
        set_hash(j, "own", m->own);
        set_hash(j, "visible", m->visible);
        set_count(j, "recipients", m->recipients);
        set_count(j, "without", m->without);
        set_count(j, "noted", m->noted);
        json_array_append_new(members, j);
    }
    for (size_t n = 0; n < i->nservers; n++)
        json_array_append_new(servers, json_integer(i->server[n]));
    for (size_t n = 0; n < i->nabouts; n++) {
        char hex[17];
        hex_print(span_of(&i->about[n], sizeof i->about[n]), hex);
        json_array_append_new(abouts, json_string(hex));
    }
    json_t *j = json_object();
    set(j, "members", members);
    set(j, "servers", servers);
    set(j, "abouts", abouts);
    set_count(j, "gone", i->gone);
    return j;
}

static json_t *evidence_json(const struct incident *i)
{
    json_t *list = json_array();
    for (size_t n = 0; n < i->nsentences; n++)
        json_array_append_new(list, json_text_of(i->sentence[n].text));
    return list;
}

static json_t *resurfaced_json(const struct incident *i)
{
    if (!i->resurfaced)
        return json_null();
    char after[32];
    incident_slept(i->slept, after);
    json_t *j = json_object();
    set(j, "at", json_time(i->resurfaced));
    set(j, "after", json_string(after));
    set(j, "slept", json_time(i->slept));
    return j;
}

json_t *incident_paper(struct incidents *t, struct incident *i, int64_t now, bool whole)
{
    ask_store(t, i);
    remember(t, i);
    json_t *j = json_object();
    set(j, "id", json_string(i->id));
    set(j, "kind", json_string(incident_kind_text(i->kind)));
    set(j, "state", json_string(state_at(i->last, i->resurfaced, now)));
    set(j, "storm", json_boolean(i->storm));
    set(j, "first", json_time(i->first));
    set(j, "last", json_time(i->last));
    set_counts(j, i);
    set(j, "from", json_text_of(i->from));
    set(j, "subject", json_text_of(i->subject));
    set(j, "message_id", json_text_of(i->message_id));
    set(j, "relay", json_text_of(i->relay));
    set(j, "resurfaced", resurfaced_json(i));
    set(j, "evidence", evidence_json(i));
    set(j, "members", members_json(i));
    set(j, "culprits", json_incref(i->culprits));
    if (whole)
        set(j, "memory", memory_json(i));
    else
        forget_memory(j);
    incident_clear(i);
    return j;
}

/* ---- snapshots ---- */

static void snapshot(struct incident *out, const struct incident *i)
{
    *out = *i;
    out->culprits = json_deep_copy(i->culprits);
    out->capmembers = i->nmembers;
    out->member = calloc(i->nmembers + 1, sizeof *out->member);
    if (!out->member)
        abort();
    if (i->nmembers)
        memcpy(out->member, i->member, i->nmembers * sizeof *out->member);
}

struct incident *incident_snapshots(struct incidents *t, size_t *n)
{
    *n = 0;
    pthread_mutex_lock(&t->lock);
    size_t wanted = 0;
    for (size_t i = 0; i < t->n; i++)
        wanted += t->all[i]->noted && t->all[i]->dirty && !t->all[i]->saving;
    struct incident *snap = calloc(wanted + 1, sizeof *snap);
    if (!snap)
        abort();
    for (size_t k = 0; k < t->n; k++) {
        struct incident *i = t->all[k];
        if (!i->noted || !i->dirty || i->saving)
            continue;
        snapshot(&snap[(*n)++], i);
        i->dirty = false;
        i->saving = true;
    }
    pthread_mutex_unlock(&t->lock);
    return snap;
}

static json_t *document(struct incidents *t, const char *id, int64_t now, bool whole)
{
    struct incident snap = {0};
    pthread_mutex_lock(&t->lock);
    const struct incident *i = incident_find(t, id);
    bool shown = i && i->noted;
    if (shown)
        snapshot(&snap, i);
    pthread_mutex_unlock(&t->lock);
    return shown ? incident_paper(t, &snap, now, whole) : NULL;
}

json_t *incident_document(struct incidents *t, const char *id, int64_t now)
{
    return document(t, id, now, false);
}

json_t *incident_whole(struct incidents *t, const char *id, int64_t now)
{
    return document(t, id, now, true);
}

/* One that is to be shown. */
struct listed {
    char id[INCIDENT_TEXT];
    int64_t last;
};

static int later_first(const void *a, const void *b)
{
    const struct listed *x = a, *y = b;
    return x->last < y->last ? 1 : x->last > y->last ? -1 : strcmp(x->id, y->id);
}

/* All of them, the latest first; malloc'd. */
static struct listed *incidents_index(struct incidents *t, size_t *n)
{
    *n = 0;
    pthread_mutex_lock(&t->lock);
    struct listed *list = calloc(t->n + 1, sizeof *list);
    if (!list)
        abort();
    for (size_t i = 0; i < t->n; i++) {
        if (!t->all[i]->noted)
            continue;
        list[*n].last = t->all[i]->last;
        memcpy(list[(*n)++].id, t->all[i]->id, sizeof list->id);
    }
    pthread_mutex_unlock(&t->lock);
    qsort(list, *n, sizeof *list, later_first);
    return list;
}

/* Mail goes on meanwhile: the lock is taken for each of them, and only as long as it is copied. */
static json_t *latest(struct incidents *t, int64_t now, size_t limit, bool whole)
{
    size_t n;
    struct listed *index = incidents_index(t, &n);
    json_t *list = json_array();
    for (size_t i = 0; i < n && i < limit; i++) {
        json_t *one = document(t, index[i].id, now, whole);
        if (one)
            json_array_append_new(list, one);
    }
    free(index);
    return list;
}

json_t *incidents_latest(struct incidents *t, int64_t now, size_t limit)
{
    return latest(t, now, limit, false);
}

json_t *incidents_whole(struct incidents *t, int64_t now, size_t limit)
{
    return latest(t, now, limit, true);
}

json_t *incidents_list(struct incidents *t, int64_t now)
{
    return incidents_latest(t, now, SIZE_MAX);
}
