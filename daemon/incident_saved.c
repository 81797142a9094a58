/*
 * incident_saved.c - incidents on disk: one document each, saved by the keeper once a second while
 * it changes, and read back at the start. A storm of 400 days ago is so found by its messages.
 *
 * Documents come from our own disk; still, what is missing or odd in one is taken as not said.
 */
#include <stdio.h>
#include <stdlib.h>

#include "incident.h"
#include "incident_own.h"

static const int64_t REMEMBERED = 400 * 24 * 3600 * 1000LL, LOOK_EVERY = 10 * 60 * 1000LL;

/* ---- loading ---- */

/* Hexadecimal digits, exactly n bytes of them; else all zero. */
static void read_hex(const json_t *j, const char *name, void *out, size_t n)
{
    const char *text = json_get_str(j, name);
    uint8_t *bytes = out;
    memset(out, 0, n);
    if (strlen(text) != 2 * n)
        return;
    for (size_t i = 0; i < n; i++) {
        char two[3] = {text[2 * i], text[2 * i + 1], '\0'};
        bytes[i] = (uint8_t)strtoul(two, NULL, 16);
    }
}

static void read_text(const json_t *j, const char *name, char *out, size_t size)
{
    incident_keep(out, size, span_str(json_get_str(j, name)));
}

/* A message as the document tells it. */
static struct member read_member(const json_t *in, const json_t *out)
{
    uint64_t copies = json_get_num(out, "copies"), noted = copies;
    if (json_is_integer(json_object_get(in, "noted")))
        noted = json_get_num(in, "noted");
    struct member m = {.first = json_ms(json_object_get(out, "first")),
                       .noted = noted < copies ? noted : copies,
                       .extra = noted < copies ? copies - noted : 0,
                       .recipients = (uint32_t)json_get_num(in, "recipients"),
                       .without = (uint32_t)json_get_num(in, "without")};
    read_hex(in, "k", m.k.byte, sizeof m.k.byte);
    read_hex(in, "content", &m.content, sizeof m.content);
    read_hex(in, "own", &m.own, sizeof m.own);
    read_hex(in, "visible", &m.visible, sizeof m.visible);
    read_text(out, "message_id", m.message_id, sizeof m.message_id);
    read_text(out, "joined", m.why, sizeof m.why);
    return m;
}

static void load_members(struct incidents *t, struct incident *i, const json_t *j)
{
    const json_t *shown = json_object_get(j, "members");
    const json_t *memory = json_object_get(json_object_get(j, "memory"), "members");
    for (size_t n = 0; n < json_array_size(memory) && n < MEMBERS; n++) {
        const json_t *in = json_array_get(memory, n), *out = json_array_get(shown, n);
        struct member m = read_member(in, out);
        i->copies -= m.extra < i->copies ? m.extra : i->copies;
        i->passed -= m.extra < i->passed ? m.extra : i->passed;
        incident_join(t, i, &m);
    }
}

static enum incident_kind kind_of(const char *name)
{
    unsigned kind = 0;
    while (kind < INCIDENT_KINDS - 1u &&
           strcmp(incident_kind_text((enum incident_kind)kind), name) != 0)
        kind++;
    return (enum incident_kind)kind;
}

static void load_memory(struct incidents *t, struct incident *i, const json_t *j)
{
    const json_t *memory = json_object_get(j, "memory");
    const json_t *servers = json_object_get(memory, "servers");
    const json_t *abouts = json_object_get(memory, "abouts");
    for (size_t n = 0; n < json_array_size(servers); n++)
        incident_convict(t, i, (uint32_t)json_integer_value(json_array_get(servers, n)));
    for (size_t n = 0; n < json_array_size(abouts); n++) {
        json_t *one = json_pack("{s:O}", "about", json_array_get(abouts, n));
        uint64_t about;
        read_hex(one, "about", &about, sizeof about);
        incident_about(t, i, about);
        json_decref(one);
    }
}

static void load_counts(struct incident *i, const json_t *j)
{
    i->copies = json_get_num(j, "copies");
    i->passed = json_get_num(j, "passed");
    i->tagged = json_get_num(j, "tagged");
    i->deferred = json_get_num(j, "deferred");
    i->held = json_get_num(j, "held");
    i->would_hold = json_get_num(j, "would_hold");
    i->visible = (uint32_t)json_get_num(j, "visible");
    i->storm = json_get_yes(j, "storm");
    uint64_t gone = json_get_num(json_object_get(j, "memory"), "gone");
    i->gone = gone < i->passed ? gone : i->passed;
    i->copies -= i->gone;
    i->passed -= i->gone;
}

static void load_one(struct incidents *t, const char *id, const json_t *j)
{
    struct incident *i = incident_add(t, id);
    i->kind = kind_of(json_get_str(j, "kind"));
    i->first = json_ms(json_object_get(j, "first"));
    i->last = i->history = json_ms(json_object_get(j, "last"));
    i->noted = true;
    load_counts(i, j);
    i->resurfaced = json_ms(json_object_get(json_object_get(j, "resurfaced"), "at"));
    i->slept = json_ms(json_object_get(json_object_get(j, "resurfaced"), "slept"));
    read_text(j, "from", i->from, sizeof i->from);
    read_text(j, "subject", i->subject, sizeof i->subject);
    read_text(j, "message_id", i->message_id, sizeof i->message_id);
    read_text(j, "relay", i->relay, sizeof i->relay);
    const json_t *e = json_object_get(j, "evidence");
    for (size_t n = 0; n < json_array_size(e); n++)
        incident_say(i, INCIDENT_REPLICATION, json_string_value(json_array_get(e, n)));
    i->named = i->kind == INCIDENT_FLOOD &&
               json_get_yes(json_array_get(json_object_get(j, "culprits"), 0), "named");
    if (json_is_array(json_object_get(j, "culprits")))
        i->culprits = json_deep_copy(json_object_get(j, "culprits"));
    load_members(t, i, j);
    load_memory(t, i, j);
}

/* ---- learning ---- */

static void learn_members(struct incidents *t, struct incident *i, const json_t *j)
{
    const json_t *shown = json_object_get(j, "members");
    const json_t *memory = json_object_get(json_object_get(j, "memory"), "members");
    for (size_t n = 0; n < json_array_size(memory) && n < MEMBERS; n++) {
        struct member m = read_member(json_array_get(memory, n), json_array_get(shown, n));
        m.noted = m.extra = 0;
        if (!incident_member(i, &m.k) && i->nmembers < MEMBERS)
            incident_join(t, i, &m);
    }
}

static void learn_texts(struct incident *i, const json_t *j)
{
    read_text(j, "from", i->from, sizeof i->from);
    read_text(j, "subject", i->subject, sizeof i->subject);
    read_text(j, "message_id", i->message_id, sizeof i->message_id);
    read_text(j, "relay", i->relay, sizeof i->relay);
}

void incidents_learn(struct incidents *t, const json_t *j)
{
    char id[INCIDENT_TEXT];
    int64_t first = json_ms(json_object_get(j, "first")),
            last = json_ms(json_object_get(j, "last"));
    if (!incident_parse(span_str(json_get_str(j, "id")), id) || first <= 0 || last < first)
        return;
    pthread_mutex_lock(&t->lock);
    struct incident *i = incident_find(t, id);
    bool fresh = !i;
    if (fresh)
        i = incident_add(t, id);
    if (fresh)
        i->kind = kind_of(json_get_str(j, "kind"));
    if (!i->noted)
        learn_texts(i, j);
    if (fresh || first < i->first)
        i->first = first;
    if (last > i->last)
        i->last = last;
    i->storm |= json_get_yes(j, "storm");
    learn_members(t, i, j);
    load_memory(t, i, j);
    pthread_mutex_unlock(&t->lock);
}

bool incidents_has(struct incidents *t, const char *id)
{
    pthread_mutex_lock(&t->lock);
    const struct incident *i = incident_find(t, id);
    bool has = i && i->noted;
    pthread_mutex_unlock(&t->lock);
    return has;
}

void incidents_on_save(struct incidents *t, void (*saved)(void *, const json_t *), void *arg)
{
    t->saved = saved;
    t->saved_arg = arg;
}

struct loading {
    struct incidents *table;
    bool storms; /* this pass takes storms; the other one the rest */
};

static int load_saved(void *arg, const char *id, const char *text)
{
    struct loading *l = arg;
    struct incidents *t = l->table;
    char parsed[INCIDENT_TEXT];
    json_t *j = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    if (json_is_object(j) && incident_parse(span_str(id), parsed) && t->n < t->limit &&
        json_get_yes(j, "storm") == l->storms && !incident_find(t, parsed))
        load_one(t, parsed, j);
    json_decref(j);
    return t->n == t->limit;
}

int incidents_load(struct incidents *t, struct hold *view, int64_t now)
{
    int64_t since = now > REMEMBERED ? now - REMEMBERED : 0;
    struct loading l = {.table = t, .storms = true};
    pthread_mutex_lock(&t->lock);
    int rc = hold_each_incident(view, since, 64 * t->limit, load_saved, &l);
    l.storms = false;
    if (rc == 0)
        rc = hold_each_incident(view, since, t->limit, load_saved, &l);
    pthread_mutex_unlock(&t->lock);
    return rc;
}

/* ---- saving ---- */

struct save {
    struct job job; /* must be first */
    struct incidents *table;
    char id[INCIDENT_TEXT];
    int64_t first, last;
    char *json;
};

static int save_run(struct hold *hold, struct job *job)
{
    struct save *s = (struct save *)job;
    return hold_save_incident(hold, s->id, s->first, s->last, s->json);
}

static void save_done(struct job *job)
{
    struct save *s = (struct save *)job;
    pthread_mutex_lock(&s->table->lock);
    struct incident *i = incident_find(s->table, s->id);
    if (i) {
        i->saving = false;
        i->dirty |= job->result < 0;
    }
    pthread_mutex_unlock(&s->table->lock);
    free(s->json);
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
    s->last = snap->last;
    json_t *j = incident_paper(t, snap, now, true);
    s->first = json_ms(json_object_get(j, "first"));
    s->json = json_line(j);
    if (t->relays)
        relays_note_culprits(t->relays, j, now);
    if (t->saved)
        t->saved(t->saved_arg, j);
    json_decref(j);
    keeper_submit(keeper, &s->job);
}

/* Without a keeper: takes in what the store knows, before it forgets. */
static void look(struct incidents *t, int64_t now)
{
    size_t n;
    if (now - t->looked < LOOK_EVERY)
        return;
    t->looked = now;
    struct incident *snap = incident_snapshots(t, &n);
    for (size_t i = 0; i < n; i++) {
        char id[INCIDENT_TEXT];
        memcpy(id, snap[i].id, sizeof id);
        json_t *paper = incident_paper(t, &snap[i], now, true);
        if (t->relays)
            relays_note_culprits(t->relays, paper, now);
        json_decref(paper);
        pthread_mutex_lock(&t->lock);
        struct incident *seen = incident_find(t, id);
        if (seen)
            seen->saving = false;
        pthread_mutex_unlock(&t->lock);
    }
    free(snap);
}

void incidents_save(struct incidents *t, struct keeper *keeper, struct mailbox *home, int64_t now)
{
    size_t n;
    if (!keeper) {
        look(t, now);
        return;
    }
    struct incident *snap = incident_snapshots(t, &n);
    for (size_t i = 0; i < n; i++)
        save(t, &snap[i], keeper, home, now);
    free(snap);
}
