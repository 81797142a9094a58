/*
 * incident.c - see incident.h.
 *
 *   mail threads --note--> table (256 slots, one lock) --snapshot--> document <-- store's report
 *                                     |  once a second, if dirty         |
 *                                     +----> keeper: hold_save_incident --+--> desk: storms, show
 *
 * The lock is never held while the store or the keeper is asked. A slot is given to a newer
 * incident when all are taken, the longest quiet first; the saved document stays. When a storm
 * comes back (after a restart, or 28 days) its slot is fresh: the first save finds the saved
 * document and takes its past in, instead of writing over it.
 */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "incident.h"
#include "log.h"

enum {
    SLOTS = 256,
    EVIDENCE = 8, /* sentences kept of one incident */
    TEXT = 256,   /* bytes kept of one field of the mail */
};
static const int64_t CLOSED_AFTER = 24 * 3600 * 1000LL;
static const char *const kind_name[INCIDENT_KINDS] = {"replication", "loop", "reply-all",
                                                      "ping-pong", "flood"};

/* One storm. */
struct incident {
    char id[INCIDENT_TEXT]; /* "": the slot is free */
    struct key k;
    enum incident_kind kind;
    int64_t first, last;                               /* ms, of further copies */
    uint64_t copies, passed, tagged, held, would_hold; /* further copies, one per recipient */
    uint32_t visible;             /* addresses in To and Cc, the largest seen */
    uint32_t recipients, without; /* as the store last knew */
    bool storm;
    bool dirty;  /* changed since it was last handed to the keeper */
    bool saving; /* the keeper has it */
    bool fresh;  /* nobody has looked yet whether a document of it is saved */
    char from[TEXT], subject[TEXT], message_id[TEXT], relay[TEXT];
    char evidence[EVIDENCE][TEXT];
    size_t nevidence;
    json_t *culprits; /* as last known; NULL: nobody named */
};

struct incidents {
    struct store *store;
    const struct site *site;
    pthread_mutex_t lock;
    struct incident slot[SLOTS];
};

struct incidents *incidents_new(struct store *store, const struct site *site)
{
    struct incidents *t = calloc(1, sizeof *t);
    if (!t)
        abort();
    t->store = store;
    t->site = site;
    pthread_mutex_init(&t->lock, NULL);
    return t;
}

void incidents_free(struct incidents **t)
{
    if (!*t)
        return;
    for (size_t i = 0; i < SLOTS; i++)
        json_decref((*t)->slot[i].culprits);
    pthread_mutex_destroy(&(*t)->lock);
    free(*t);
    *t = NULL;
}

/* ---- noting ---- */

static struct incident *find_key(struct incidents *t, const struct key *k)
{
    for (size_t i = 0; i < SLOTS; i++)
        if (t->slot[i].id[0] && memcmp(&t->slot[i].k, k, sizeof *k) == 0)
            return &t->slot[i];
    return NULL;
}

static struct incident *find_id(struct incidents *t, const char *id)
{
    for (size_t i = 0; i < SLOTS; i++)
        if (t->slot[i].id[0] && strcmp(t->slot[i].id, id) == 0)
            return &t->slot[i];
    return NULL;
}

/* Should a go before b? Free slots first, then saved ones, then the longest quiet. */
static bool expendable(const struct incident *a, const struct incident *b)
{
    if (!a->id[0] || !b->id[0])
        return !a->id[0] && b->id[0];
    if (a->dirty != b->dirty)
        return b->dirty;
    return a->last < b->last;
}

static struct incident *open_slot(struct incidents *t, const struct incident_note *n)
{
    struct incident *worst = &t->slot[0];
    for (size_t i = 1; i < SLOTS; i++)
        if (expendable(&t->slot[i], worst))
            worst = &t->slot[i];
    json_decref(worst->culprits);
    *worst = (struct incident){.k = n->k, .kind = n->kind, .first = n->now, .fresh = true};
    incident_print(&n->k, worst->id);
    return worst;
}

/* Further copies that pass and alarm nobody (lists, resends) are no incident. */
static bool opens(const struct incident_note *n)
{
    return n->held || n->would_hold || n->storm || (n->kind == INCIDENT_LOOP && n->evidence);
}

/* The first text seen stays: later copies of a storm are worse witnesses. */
static void keep_text(char out[TEXT], struct span s)
{
    if (out[0])
        return;
    s = span_head(s, TEXT - 1);
    if (s.n)
        memcpy(out, s.p, s.n);
    out[s.n] = '\0';
}

static void keep_evidence(struct incident *i, const char *sentence)
{
    if (!sentence || !*sentence || i->nevidence == EVIDENCE)
        return;
    char cut[TEXT] = "";
    keep_text(cut, span_str(sentence));
    for (size_t e = 0; e < i->nevidence; e++)
        if (strcmp(i->evidence[e], cut) == 0)
            return;
    memcpy(i->evidence[i->nevidence++], cut, TEXT);
}

static void add(struct incident *i, const struct incident_note *n)
{
    if (n->kind == INCIDENT_REPLICATION) /* a loop that hands out copies is one */
        i->kind = n->kind;
    i->last = n->now > i->last ? n->now : i->last;
    i->copies += (uint64_t)n->passed + n->tagged + n->held;
    i->passed += n->passed;
    i->tagged += n->tagged;
    i->held += n->held;
    i->would_hold += n->would_hold;
    if (n->recipients_visible > i->visible)
        i->visible = n->recipients_visible;
    i->storm |= n->storm;
    keep_text(i->from, n->from);
    keep_text(i->subject, n->subject);
    keep_text(i->message_id, n->message_id);
    keep_text(i->relay, n->relay);
    keep_evidence(i, n->evidence);
    i->dirty = true;
}

bool incidents_note(struct incidents *t, const struct incident_note *n)
{
    bool news = false;
    pthread_mutex_lock(&t->lock);
    struct incident *i = find_key(t, &n->k);
    if (i || opens(n)) {
        news = !i || (n->storm && !i->storm);
        if (!i)
            i = open_slot(t, n);
        add(i, n);
    }
    pthread_mutex_unlock(&t->lock);
    return news;
}

/* ---- documents ---- */

bool incident_is_open(int64_t last, int64_t now)
{
    return now - last < INCIDENT_OPEN_MS;
}

static const char *state_at(int64_t last, int64_t now)
{
    if (incident_is_open(last, now))
        return "open";
    return now - last < CLOSED_AFTER ? "quiet" : "closed";
}

void incident_restate(json_t *document, int64_t now)
{
    int64_t last = json_ms(json_object_get(document, "last"));
    json_object_set_new(document, "state", json_string(state_at(last, now)));
}

static json_t *culprit_json(const struct culprit *c)
{
    json_t *evidence = json_array();
    for (size_t i = 0; i < c->nevidence; i++)
        json_array_append_new(evidence, json_text_of(c->evidence[i]));
    json_t *j = json_object();
    json_object_set_new(j, "relay", json_text(c->relay));
    json_object_set_new(j, "named", json_boolean(c->named));
    json_object_set_new(j, "copies", json_integer(c->detours));
    json_object_set_new(j, "score", json_real(isfinite(c->score) ? round(c->score * 10) / 10 : 0));
    json_object_set_new(j, "grade", json_text_of(c->grade));
    json_object_set_new(j, "conviction", json_text_of(c->conviction));
    json_object_set_new(j, "evidence", evidence);
    return j;
}

static json_t *culprits_json(const struct report *r)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->nculprits; i++)
        json_array_append_new(list, culprit_json(&r->culprits[i]));
    return list;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* What the store knows of the message goes into the snapshot. The store has seen the first copies
 * too, which passed, but forgets with the process; so the larger number is the better one. Copies
 * are always passed + tagged + held. */
static void ask_store(struct incidents *t, struct incident *i)
{
    struct arena *arena = arena_new();
    struct report r = {0};
    if (t->store && t->store->ops->report(t->store, &i->k, arena, &r)) {
        i->first = r.first && r.first < i->first ? r.first : i->first;
        uint64_t first = r.copies > i->copies ? r.copies - i->copies : 0;
        i->copies += first;
        i->passed += first;
        i->recipients = (uint32_t)larger(i->recipients, r.recipients);
        i->without = r.without;
        i->storm |= r.storm;
        if (r.nculprits) {
            json_decref(i->culprits);
            i->culprits = culprits_json(&r);
        }
    }
    arena_free(&arena);
}

/* Puts what only the store knew back into the slot, in case the store forgets. */
static void remember(struct incidents *t, const struct incident *snap)
{
    pthread_mutex_lock(&t->lock);
    struct incident *i = find_id(t, snap->id);
    if (i) {
        i->recipients = snap->recipients;
        i->without = snap->without;
        json_decref(i->culprits);
        i->culprits = json_deep_copy(snap->culprits);
    }
    pthread_mutex_unlock(&t->lock);
}

static json_t *evidence_json(const struct incident *i)
{
    json_t *list = json_array();
    for (size_t e = 0; e < i->nevidence; e++)
        json_array_append_new(list, json_text_of(i->evidence[e]));
    return list;
}

static void set_count(json_t *j, const char *name, uint64_t n)
{
    json_object_set_new(j, name, json_integer((json_int_t)n));
}

/* Consumes the snapshot's culprits. */
static json_t *document(struct incidents *t, struct incident *i, int64_t now)
{
    ask_store(t, i);
    remember(t, i);
    json_t *j = json_object();
    json_object_set_new(j, "id", json_string(i->id));
    json_object_set_new(j, "kind", json_string(kind_name[i->kind]));
    json_object_set_new(j, "state", json_string(state_at(i->last, now)));
    json_object_set_new(j, "storm", json_boolean(i->storm));
    json_object_set_new(j, "first", json_time(i->first));
    json_object_set_new(j, "last", json_time(i->last));
    set_count(j, "copies", i->copies);
    set_count(j, "passed", i->passed);
    set_count(j, "tagged", i->tagged);
    set_count(j, "held", i->held);
    set_count(j, "would_hold", i->would_hold);
    set_count(j, "recipients", i->recipients);
    set_count(j, "without", i->without);
    set_count(j, "visible", i->visible);
    json_object_set_new(j, "from", json_text_of(i->from));
    json_object_set_new(j, "subject", json_text_of(i->subject));
    json_object_set_new(j, "message_id", json_text_of(i->message_id));
    json_object_set_new(j, "relay", json_text_of(i->relay));
    json_object_set_new(j, "evidence", evidence_json(i));
    json_object_set_new(j, "culprits", i->culprits ? i->culprits : json_array());
    i->culprits = NULL;
    return j;
}

static void snapshot(struct incident *out, const struct incident *i)
{
    *out = *i;
    out->culprits = json_deep_copy(i->culprits);
}

static int later_first(const void *a, const void *b)
{
    const struct incident *x = a, *y = b;
    return x->last < y->last ? 1 : x->last > y->last ? -1 : strcmp(x->id, y->id);
}

/* Snapshots of all (or only the dirty ones, which are marked as being saved); malloc'd. */
static struct incident *snapshots(struct incidents *t, bool to_save, size_t *n)
{
    struct incident *snap = calloc(SLOTS, sizeof *snap);
    if (!snap)
        abort();
    *n = 0;
    pthread_mutex_lock(&t->lock);
    for (struct incident *i = t->slot; i < t->slot + SLOTS; i++) {
        if (!i->id[0] || (to_save && (!i->dirty || i->saving)))
            continue;
        snapshot(&snap[(*n)++], i);
        if (to_save) {
            i->dirty = false;
            i->saving = true;
        }
    }
    pthread_mutex_unlock(&t->lock);
    qsort(snap, *n, sizeof *snap, later_first);
    return snap;
}

json_t *incidents_list(struct incidents *t, int64_t now)
{
    size_t n;
    struct incident *snap = snapshots(t, false, &n);
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, document(t, &snap[i], now));
    free(snap);
    return list;
}

json_t *incident_document(struct incidents *t, const char *id, int64_t now)
{
    struct incident snap = {0};
    pthread_mutex_lock(&t->lock);
    const struct incident *i = find_id(t, id);
    if (i)
        snapshot(&snap, i);
    pthread_mutex_unlock(&t->lock);
    return i ? document(t, &snap, now) : NULL;
}

bool incidents_has(struct incidents *t, const char *id)
{
    pthread_mutex_lock(&t->lock);
    bool has = find_id(t, id) != NULL;
    pthread_mutex_unlock(&t->lock);
    return has;
}

size_t incidents_open(struct incidents *t, int64_t now)
{
    size_t n = 0;
    pthread_mutex_lock(&t->lock);
    for (const struct incident *i = t->slot; i < t->slot + SLOTS; i++)
        n += i->id[0] && incident_is_open(i->last, now);
    pthread_mutex_unlock(&t->lock);
    return n;
}

/* ---- saving ---- */

struct save {
    struct job job; /* must be first */
    struct incidents *table;
    char id[INCIDENT_TEXT];
    int64_t first, last;
    char *json;
    bool look;  /* is there a saved document of a former life? */
    char *past; /* that document */
};

/* On the keeper thread. A past that is found must be taken in first: nothing is written. */
static int save_run(struct hold *hold, struct job *job)
{
    struct save *s = (struct save *)job;
    free(s->past); /* the keeper may have to run it twice */
    s->past = NULL;
    if (s->look && hold_incident(hold, s->id, &s->past) < 0)
        return -1;
    if (s->past)
        return 0;
    return hold_save_incident(hold, s->id, s->first, s->last, s->json);
}

/* Adds the saved document of a former life to a slot. */
static void absorb(struct incident *i, const char *past)
{
    json_t *j = json_loads(past, JSON_REJECT_DUPLICATES, NULL);
    int64_t first = json_ms(json_object_get(j, "first"));
    i->first = first && first < i->first ? first : i->first;
    i->copies += json_get_num(j, "copies");
    i->passed += json_get_num(j, "passed");
    i->tagged += json_get_num(j, "tagged");
    i->held += json_get_num(j, "held");
    i->would_hold += json_get_num(j, "would_hold");
    i->recipients = (uint32_t)larger(i->recipients, json_get_num(j, "recipients"));
    i->visible = (uint32_t)larger(i->visible, json_get_num(j, "visible"));
    i->storm |= json_get_yes(j, "storm");
    if (strcmp(json_get_str(j, "kind"), kind_name[INCIDENT_REPLICATION]) == 0)
        i->kind = INCIDENT_REPLICATION;
    const json_t *e = json_object_get(j, "evidence");
    for (size_t n = 0; n < json_array_size(e); n++)
        keep_evidence(i, json_string_value(json_array_get(e, n)));
    if (!i->culprits && json_array_size(json_object_get(j, "culprits")))
        i->culprits = json_deep_copy(json_object_get(j, "culprits"));
    json_decref(j);
}

static void save_done(struct job *job)
{
    struct save *s = (struct save *)job;
    pthread_mutex_lock(&s->table->lock);
    struct incident *i = find_id(s->table, s->id);
    if (i) {
        i->saving = false;
        if (job->result < 0 || s->past)
            i->dirty = true;
        if (s->past && i->fresh)
            absorb(i, s->past);
        if (job->result >= 0)
            i->fresh = false;
    }
    pthread_mutex_unlock(&s->table->lock);
    free(s->json);
    free(s->past);
    free(s);
}

static void save(struct incidents *t, struct incident *snap, struct keeper *keeper,
                 struct mailbox *home, int64_t now)
{
    struct save *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->job = (struct job){.run = save_run, .done = save_done, .home = home};
    s->table = t;
    memcpy(s->id, snap->id, sizeof s->id);
    s->look = snap->fresh;
    json_t *j = document(t, snap, now);
    s->first = json_ms(json_object_get(j, "first"));
    s->last = snap->last;
    s->json = json_line(j);
    json_decref(j);
    keeper_submit(keeper, &s->job);
}

void incidents_save(struct incidents *t, struct keeper *keeper, struct mailbox *home, int64_t now)
{
    size_t n;
    struct incident *snap = snapshots(t, true, &n);
    for (size_t i = 0; i < n; i++)
        save(t, &snap[i], keeper, home, now);
    free(snap);
}
