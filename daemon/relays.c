/*
 * relays.c - a bounded table of rows behind one lock; see relays.h.
 *
 * The table in the database is the one in memory: a row that leaves here is deleted there. A full
 * table gives up who matters least: the clean, then suspects, then who misbehaves, the longest
 * silent first; a newcomer never pushes out who matters more than itself. The lock is never held
 * while the store or the keeper is asked.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "relays.h"

enum {
    ROWS = 1024,
    PARTS = 8, /* incidents remembered of one relay, the latest */
    NAME = 160,
    WHO = 64,
    TEXT = 512,
    MARK_EACH = 60 * 1000,   /* ms: known ones are marked again as often */
    MARK_LIFE = 3600 * 1000, /* ms: that long after it was cleared a relay is still known */
    LATE = 24 * 3600 * 1000, /* ms after an incident's first copy */
};

/* Its share in one incident. */
struct part {
    char incident[INCIDENT_TEXT];
    uint64_t detours;
};

/* One relay. name "": the row is free. */
struct row {
    char name[NAME]; /* "host[address]" */
    uint32_t server; /* its id: SIP_HOST of the name, unless it is called otherwise */
    uint64_t host;   /* SIP_HOST of the part before [ */
    struct standing standing;
    int64_t first;    /* ms: its first detour */
    uint64_t detours; /* in all incidents */
    struct part part[PARTS];
    size_t nparts;
    char grade[TEXT], why[TEXT];
    bool late; /* it came into a storm a day or more after the others */
    char said_by[WHO], said_why[TEXT];
    double ordinary;   /* messages seen through its host when last asked; -1: never asked */
    int64_t marked;    /* ms: when the store was last told */
    bool dirty;        /* changed since it was last handed to the keeper */
    bool saving;       /* the keeper has it */
    bool over;         /* to be deleted there, then free */
    bool stale;        /* not in the snapshot that is being put back */
    char former[NAME]; /* who had the row before and is still to be deleted there; "": nobody */
};

struct relays {
    struct store *store;
    const struct keys *keys;
    const struct standing_times *times;
    pthread_mutex_t lock;
    _Atomic bool words; /* somebody is said to be fixed, or on probation; as of the last tick */
    struct snapshot_texts texts;
    struct row row[ROWS];
};

static void each_text(void *arg, snapshot_put_fn *put, void *to);
static void begin_texts(void *arg);
static void take_text(void *arg, struct span name, struct span text);
static void end_texts(void *arg);

struct relays *relays_new(struct store *store, const struct keys *keys,
                          const struct standing_times *times)
{
    struct relays *t = calloc(1, sizeof *t);
    if (!t)
        abort();
    t->store = store;
    t->keys = keys;
    t->times = times;
    pthread_mutex_init(&t->lock, NULL);
    t->texts = (struct snapshot_texts){each_text, begin_texts, take_text, end_texts, t};
    return t;
}

void relays_free(struct relays **t)
{
    if (!*t)
        return;
    pthread_mutex_destroy(&(*t)->lock);
    free(*t);
    *t = NULL;
}

/* ---- rows ---- */

static void copy_text(char *out, size_t cap, const char *text)
{
    snprintf(out, cap, "%s", text ? text : "");
}

static struct span host_part(struct span name)
{
    return span_head(name, span_find(name, '['));
}

static uint32_t server_of(const struct relays *t, struct span name)
{
    return (uint32_t)sip_hash(t->keys, SIP_HOST, name);
}

static struct row *find(struct relays *t, struct span name)
{
    for (struct row *r = t->row; r < t->row + ROWS; r++)
        if (r->name[0] && span_eq(span_str(r->name), name))
            return r;
    return NULL;
}

/* What a row counts for, when one has to go. */
static int weight(const struct row *r)
{
    return r->name[0] ? 1 + (int)r->standing.state : 0;
}

static bool expendable(const struct row *a, const struct row *b)
{
    if (weight(a) != weight(b))
        return weight(a) < weight(b);
    return a->standing.seen < b->standing.seen;
}

static void name_row(struct relays *t, struct row *r, struct span name)
{
    memcpy(r->name, name.p, name.n);
    r->name[name.n] = '\0';
    r->server = server_of(t, name);
    r->host = sip_hash(t->keys, SIP_HOST, host_part(name));
    r->ordinary = -1;
}

/* Who comes back is not to be deleted. */
static void spare(struct relays *t, const char *name)
{
    for (struct row *r = t->row; r < t->row + ROWS; r++)
        if (strcmp(r->former, name) == 0)
            r->former[0] = '\0';
}

/* A row for a newcomer that will be worth `worth`; NULL: all are worth more. */
static struct row *open_row(struct relays *t, struct span name, enum standing_state worth)
{
    struct row *victim = NULL;
    for (struct row *r = t->row; r < t->row + ROWS; r++)
        if (!r->saving && (!victim || expendable(r, victim)))
            victim = r;
    if (!victim || weight(victim) > 1 + (int)worth)
        return NULL;
    struct row fresh = {0};
    memcpy(fresh.former, victim->former[0] ? victim->former : victim->name, NAME);
    *victim = fresh;
    name_row(t, victim, name);
    spare(t, victim->name);
    return victim;
}

/* ---- noting ---- */

static struct part *part_of(struct row *r, const char *incident)
{
    for (size_t i = 0; i < r->nparts; i++)
        if (strcmp(r->part[i].incident, incident) == 0)
            return &r->part[i];
    if (r->nparts == PARTS)
        memmove(r->part, r->part + 1, --r->nparts * sizeof *r->part);
    struct part *p = &r->part[r->nparts++];
    *p = (struct part){0};
    copy_text(p->incident, sizeof p->incident, incident);
    return p;
}

/* An incident that has forgotten begins to count anew. */
static bool count_detours(struct row *r, const struct relay_note *n)
{
    struct part *p = part_of(r, n->incident);
    if (p->detours == n->detours)
        return false;
    r->detours += n->detours > p->detours ? n->detours - p->detours : n->detours;
    p->detours = n->detours;
    return true;
}

static bool keep_text(char out[TEXT], const char *text)
{
    char cut[TEXT];
    copy_text(cut, sizeof cut, text);
    if (!text || strcmp(out, cut) == 0)
        return false;
    memcpy(out, cut, sizeof cut);
    return true;
}

/* "perhaps X" and "one of X -> Y" accuse nobody. */
static bool proven(const struct relay_note *n)
{
    return n->named && (n->convicted || n->storm);
}

/* What it did before a person's word says nothing about the word. */
static bool news(const struct row *r, int64_t until)
{
    const struct standing *s = &r->standing;
    bool word = s->state == STANDING_SAID_FIXED || s->state == STANDING_PROBATION;
    return until > s->seen && !(word && until <= s->said);
}

static bool judge(struct relays *t, struct row *r, const struct relay_note *n, int64_t until)
{
    enum standing_event e = proven(n) ? STANDING_CONVICTED : STANDING_BLAMED;
    int64_t seen = r->standing.seen;
    if (news(r, until))
        standing_step(&r->standing, e, until, t->times);
    else if (r->standing.state == STANDING_SUSPECT && proven(n)) /* of what was seen before */
        standing_step(&r->standing, e, seen, t->times);
    else
        return false;
    return true;
}

static void take(struct relays *t, struct row *r, const struct relay_note *n, int64_t now)
{
    int64_t until = n->until ? n->until : now, since = n->since ? n->since : until;
    bool changed = count_detours(r, n);
    if (n->server && n->server != r->server) {
        r->server = n->server;
        r->marked = 0;
        changed = true;
    }
    changed |= judge(t, r, n, until);
    changed |= keep_text(r->grade, n->grade);
    changed |= keep_text(r->why, n->why);
    if (!r->first || since < r->first) {
        r->first = since;
        changed = true;
    }
    if (!r->late && n->began && since - n->began > LATE)
        r->late = changed = true;
    r->dirty |= changed;
}

void relays_note(struct relays *t, const struct relay_note *n, int64_t now)
{
    struct span name = n->relay;
    if (span_starts(name, SPAN("perhaps ")))
        name = span_from(name, sizeof "perhaps " - 1);
    if (name.n == 0 || name.n >= NAME || span_find(name, ' ') < name.n || !n->incident)
        return;
    pthread_mutex_lock(&t->lock);
    struct row *r = find(t, name);
    if (!r)
        r = open_row(t, name, proven(n) ? STANDING_MISBEHAVING : STANDING_SUSPECT);
    if (r) {
        r->dirty |= r->over;
        r->over = false;
        take(t, r, n, now);
    }
    pthread_mutex_unlock(&t->lock);
}

void relays_note_culprits(struct relays *t, const json_t *incident, int64_t now)
{
    const json_t *list = json_object_get(incident, "culprits");
    if (strcmp(json_get_str(incident, "kind"), "flood") == 0)
        return; /* it sends too much, but nothing again */
    for (size_t n = 0; n < json_array_size(list); n++) {
        const json_t *c = json_array_get(list, n);
        const char *grade = json_get_str(c, "grade"), *why = json_get_str(c, "conviction");
        const struct relay_note note = {.relay = span_str(json_get_str(c, "relay")),
                                        .server = (uint32_t)json_get_num(c, "server"),
                                        .incident = json_get_str(incident, "id"),
                                        .began = json_ms(json_object_get(incident, "first")),
                                        .convicted = *why,
                                        .named = json_get_yes(c, "named"),
                                        .storm = json_get_yes(incident, "storm"),
                                        .since = json_ms(json_object_get(c, "since")),
                                        .until = json_ms(json_object_get(c, "until")),
                                        .detours = json_get_num(c, "copies"),
                                        .grade = *grade ? grade : NULL,
                                        .why = *why ? why : NULL};
        relays_note(t, &note, now);
    }
}

static bool on_word(const struct row *r)
{
    return r->name[0] &&
           (r->standing.state == STANDING_SAID_FIXED || r->standing.state == STANDING_PROBATION);
}

void relays_blame(struct relays *t, uint32_t server, int64_t now)
{
    if (!atomic_load_explicit(&t->words, memory_order_relaxed))
        return;
    pthread_mutex_lock(&t->lock);
    for (struct row *r = t->row; r < t->row + ROWS; r++)
        if (r->server == server && on_word(r) && news(r, now))
            r->dirty |= standing_step(&r->standing, STANDING_BLAMED, now, t->times);
    pthread_mutex_unlock(&t->lock);
}

/* ---- a person's word ---- */

static bool names(const struct row *r, struct span relay)
{
    struct span name = span_str(r->name), host = host_part(name);
    struct span address = span_bare(span_from(name, host.n), '[', ']');
    return span_case_eq(name, relay) || (host.n && span_case_eq(host, relay)) ||
           (address.n && span_case_eq(address, relay));
}

/* The one row that is meant; NULL: a sentence in error. */
static struct row *find_meant(struct relays *t, struct span relay, char error[256])
{
    struct row *found = find(t, relay);
    if (found)
        return found;
    size_t n = 0;
    for (struct row *r = t->row; r < t->row + ROWS; r++)
        if (r->name[0] && !r->over && names(r, relay)) {
            found = r;
            n++;
        }
    if (n == 0)
        snprintf(error, 256, "No such relay is known; breakwaterctl relays --all lists them.");
    else if (n > 1)
        snprintf(error, 256, "%zu relays go by that name: say host[address].", n);
    return n == 1 ? found : NULL;
}

static const char *refusal(const struct row *r, bool fixed)
{
    switch (r->standing.state) {
    case STANDING_CLEAN:
        return "It is clean.";
    case STANDING_SUSPECT:
        return "It is only suspected: there is nothing yet that could be fixed.";
    case STANDING_MISBEHAVING:
        return fixed ? NULL : "Nobody has said that it is fixed.";
    default:
        return fixed ? "That was said already." : NULL;
    }
}

static int word(struct relays *t, struct row *r, bool fixed, const char *by, const char *why,
                int64_t now, char error[256])
{
    const char *not = refusal(r, fixed);
    if (not ) {
        snprintf(error, 256, "%s", not );
        return -1;
    }
    standing_step(&r->standing, fixed ? STANDING_SAID : STANDING_UNSAID, now, t->times);
    copy_text(r->said_by, sizeof r->said_by, by);
    copy_text(r->said_why, sizeof r->said_why, why);
    r->ordinary = -1;
    r->marked = 0;
    r->dirty = true;
    return 0;
}

int relays_say_fixed(struct relays *t, struct span relay, bool fixed, const char *by,
                     const char *why, int64_t now, char error[256])
{
    pthread_mutex_lock(&t->lock);
    struct row *r = find_meant(t, relay, error);
    int rc = r ? word(t, r, fixed, by, why, now, error) : -1;
    if (r) /* a word that came too late may be on disk by now */
        r->dirty = true;
    pthread_mutex_unlock(&t->lock);
    return rc;
}

/* ---- documents ---- */

static void set(json_t *j, const char *name, json_t *value)
{
    json_object_set_new(j, name, value);
}

static json_t *said_json(const struct row *r)
{
    if (!r->standing.said)
        return json_null();
    json_t *j = json_object();
    set(j, "by", json_text_of(r->said_by));
    set(j, "at", json_time(r->standing.said));
    set(j, "why", json_text_of(r->said_why));
    return j;
}

static json_t *document(const struct row *r)
{
    json_t *j = json_object(), *incidents = json_array();
    for (size_t i = r->nparts; i > 0; i--)
        json_array_append_new(incidents, json_text_of(r->part[i - 1].incident));
    set(j, "relay", json_text_of(r->name));
    set(j, "state", json_string(standing_name(r->standing.state)));
    set(j, "since", json_time(r->standing.since));
    set(j, "first", json_time(r->first));
    set(j, "last", json_time(r->standing.seen));
    set(j, "detours", json_integer((json_int_t)r->detours));
    set(j, "incidents", incidents);
    set(j, "grade", json_text_of(r->grade[0] ? r->grade : NULL));
    set(j, "why", json_text_of(r->why[0] ? r->why : NULL));
    set(j, "late", json_boolean(r->late));
    set(j, "relapses", json_integer(r->standing.relapses));
    set(j, "said", said_json(r));
    return j;
}

/* What is only of use to us when it is read again. */
static char *saved_document(const struct relays *t, const struct row *r)
{
    json_t *j = document(r), *parts = json_object();
    for (size_t i = 0; i < r->nparts; i++)
        set(parts, r->part[i].incident, json_integer((json_int_t)r->part[i].detours));
    set(j, "parts", parts);
    set(j, "was", json_boolean(r->standing.was));
    if (r->server != server_of(t, span_str(r->name)))
        set(j, "server", json_integer(r->server));
    char *text = json_line(j);
    json_decref(j);
    return text;
}

int relays_ask_fixed(struct relays *t, struct span relay, bool fixed, const char *by,
                     const char *why, int64_t now, char **name, char **out, char error[256])
{
    struct row *copy = calloc(1, sizeof *copy);
    if (!copy)
        abort();
    pthread_mutex_lock(&t->lock);
    const struct row *r = find_meant(t, relay, error);
    if (r)
        *copy = *r;
    pthread_mutex_unlock(&t->lock);
    int rc = r ? word(t, copy, fixed, by, why, now, error) : -1;
    if (rc == 0) {
        *name = strdup(copy->name);
        if (!*name)
            abort();
        *out = saved_document(t, copy);
    }
    free(copy);
    return rc;
}

static int later_first(const void *a, const void *b)
{
    const struct row *x = a, *y = b;
    if (x->standing.seen != y->standing.seen)
        return x->standing.seen < y->standing.seen ? 1 : -1;
    return strcmp(x->name, y->name);
}

json_t *relays_list(struct relays *t)
{
    size_t n = 0;
    struct row *rows = calloc(ROWS, sizeof *rows);
    if (!rows)
        abort();
    pthread_mutex_lock(&t->lock);
    for (const struct row *r = t->row; r < t->row + ROWS; r++)
        if (r->name[0] && !r->over)
            rows[n++] = *r;
    pthread_mutex_unlock(&t->lock);
    qsort(rows, n, sizeof *rows, later_first);
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, document(&rows[i]));
    free(rows);
    return list;
}

void relays_count(struct relays *t, size_t count[STANDING_STATES])
{
    memset(count, 0, STANDING_STATES * sizeof *count);
    pthread_mutex_lock(&t->lock);
    for (const struct row *r = t->row; r < t->row + ROWS; r++)
        if (r->name[0] && !r->over)
            count[r->standing.state]++;
    pthread_mutex_unlock(&t->lock);
}

/* ---- reading them again ---- */

static void read_parts(struct row *r, const json_t *j)
{
    const json_t *ids = json_object_get(j, "incidents"), *parts = json_object_get(j, "parts");
    for (size_t i = json_array_size(ids); i > 0; i--) {
        const char *id = json_string_value(json_array_get(ids, i - 1));
        char good[INCIDENT_TEXT];
        if (id && incident_parse(span_str(id), good))
            part_of(r, good)->detours = json_get_num(parts, good);
    }
}

static void read_said(struct row *r, const json_t *said)
{
    r->standing.said = json_ms(json_object_get(said, "at"));
    copy_text(r->said_by, sizeof r->said_by, json_get_str(said, "by"));
    copy_text(r->said_why, sizeof r->said_why, json_get_str(said, "why"));
}

static void fill_row(struct row *r, enum standing_state state, const json_t *j)
{
    r->standing = (struct standing){.state = state,
                                    .since = json_ms(json_object_get(j, "since")),
                                    .seen = json_ms(json_object_get(j, "last")),
                                    .relapses = (unsigned)json_get_num(j, "relapses"),
                                    .was = json_get_yes(j, "was")};
    if (json_get_num(j, "server"))
        r->server = (uint32_t)json_get_num(j, "server");
    r->first = json_ms(json_object_get(j, "first"));
    r->detours = json_get_num(j, "detours");
    r->late = json_get_yes(j, "late");
    r->nparts = 0;
    copy_text(r->grade, sizeof r->grade, json_get_str(j, "grade"));
    copy_text(r->why, sizeof r->why, json_get_str(j, "why"));
    read_parts(r, j);
    read_said(r, json_object_get(j, "said"));
}

/* The row a document is about, filled; NULL: it is none, or there is no room. */
static struct row *take_document(struct relays *t, struct span name, struct span text)
{
    json_t *j = json_loadb((const char *)text.p, text.n, JSON_REJECT_DUPLICATES, NULL);
    enum standing_state state;
    struct row *r = NULL;
    if (json_is_object(j) && name.n && name.n < NAME &&
        standing_find(json_get_str(j, "state"), &state)) {
        r = find(t, name);
        r = r ? r : open_row(t, name, STANDING_CLEAN);
    }
    if (r)
        fill_row(r, state, j);
    json_decref(j);
    return r;
}

static int read_row(void *arg, const char *name, const char *text)
{
    if (!find(arg, span_str(name)))
        (void)take_document(arg, span_str(name), span_str(text));
    return 0;
}

int relays_load(struct relays *t, struct hold *view)
{
    return hold_each_relay(view, ROWS, read_row, t);
}

/* ---- as of an earlier time ---- */

const struct snapshot_texts *relays_texts(struct relays *t)
{
    return &t->texts;
}

/* Nothing is written under the lock. */
static void each_text(void *arg, snapshot_put_fn *put, void *to)
{
    struct relays *t = arg;
    for (size_t i = 0; i < ROWS; i++) {
        char name[NAME], *text = NULL;
        pthread_mutex_lock(&t->lock);
        const struct row *r = &t->row[i];
        if (r->name[0] && !r->over) {
            memcpy(name, r->name, sizeof name);
            text = saved_document(t, r);
        }
        pthread_mutex_unlock(&t->lock);
        if (text && put(to, span_str(name), span_str(text)))
            i = ROWS;
        free(text);
    }
}

static void begin_texts(void *arg)
{
    struct relays *t = arg;
    pthread_mutex_lock(&t->lock);
    for (struct row *r = t->row; r < t->row + ROWS; r++)
        r->stale = r->name[0] && !r->over;
    pthread_mutex_unlock(&t->lock);
}

static void take_text(void *arg, struct span name, struct span text)
{
    struct relays *t = arg;
    pthread_mutex_lock(&t->lock);
    struct row *r = take_document(t, name, text);
    if (r) {
        r->stale = r->over = false;
        r->dirty = true;
        r->marked = 0;
    }
    pthread_mutex_unlock(&t->lock);
}

/* Who was not there then is not there now. */
static void end_texts(void *arg)
{
    struct relays *t = arg;
    pthread_mutex_lock(&t->lock);
    for (struct row *r = t->row; r < t->row + ROWS; r++) {
        if (r->stale)
            r->over = r->dirty = true;
        r->stale = false;
    }
    pthread_mutex_unlock(&t->lock);
}

/* ---- time ---- */

/* A known row, as the store is told of it or asked about it without the lock. */
struct look {
    size_t at;
    uint32_t server;
    uint64_t host;
    bool mark, mail; /* tell that it is known; ask for ordinary mail */
    double ordinary;
};

static bool look_at(struct relays *t, size_t at, int64_t now, struct look *l)
{
    struct row *r = &t->row[at];
    if (!r->name[0] || r->over)
        return false;
    r->dirty |= standing_step(&r->standing, STANDING_TIME, now, t->times);
    if (r->standing.state == STANDING_CLEAN && now - r->standing.seen >= t->times->memory)
        r->over = r->dirty = true;
    if (!standing_known(&r->standing))
        return false;
    *l = (struct look){.at = at,
                       .server = r->server,
                       .host = r->host,
                       .mark = !r->marked || now - r->marked >= MARK_EACH,
                       .mail = r->standing.state == STANDING_SAID_FIXED};
    if (l->mark)
        r->marked = now;
    return l->mark || l->mail;
}

static double ask(struct store *store, struct tally tally, int64_t now)
{
    struct tallies q = {.t = &tally, .n = 1, .cap = 1};
    struct store_op *op = NULL;
    if (store->ops->tally_read(store, &q, now, NULL, NULL, &op) == STORE_DONE)
        return tally.answer;
    store->ops->cancel(store, &op);
    return -1;
}

static void tell(struct store *store, struct tally tally, int64_t now)
{
    struct tallies adds = {.t = &tally, .n = 1, .cap = 1};
    store->ops->tally_add(store, &adds, now);
}

/* More ordinary mail than at the look before: its first since the word was given. */
static void hear(struct relays *t, const struct look *l, int64_t now)
{
    struct row *r = &t->row[l->at];
    if (l->ordinary < 0 || r->server != l->server || r->standing.state != STANDING_SAID_FIXED)
        return;
    if (r->ordinary >= 0 && l->ordinary > r->ordinary)
        r->dirty |= standing_step(&r->standing, STANDING_MAIL, now, t->times);
    r->ordinary = l->ordinary;
}

void relays_tick(struct relays *t, int64_t now)
{
    struct look look[ROWS];
    size_t n = 0;
    bool words = false;
    pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < ROWS; i++) {
        n += look_at(t, i, now, &look[n]);
        words |= on_word(&t->row[i]);
    }
    atomic_store_explicit(&t->words, words, memory_order_relaxed);
    pthread_mutex_unlock(&t->lock);
    for (size_t i = 0; t->store && i < n; i++) {
        struct look *l = &look[i];
        if (l->mark)
            tell(t->store, replication_known_tally(l->server, MARK_LIFE), now);
        l->ordinary = l->mail ? ask(t->store, replication_ordinary_tally(l->host), now) : -1;
    }
    pthread_mutex_lock(&t->lock);
    for (size_t i = 0; t->store && i < n; i++)
        hear(t, &look[i], now);
    pthread_mutex_unlock(&t->lock);
}

/* ---- saving ---- */

struct save {
    struct job job; /* must be first */
    struct relays *table;
    size_t at;
    char name[NAME], former[NAME];
    int64_t last;
    char *document; /* NULL: delete it */
};

static int save_run(struct hold *hold, struct job *job)
{
    const struct save *s = (const struct save *)job;
    if (s->former[0] && hold_remove_relay(hold, s->former) < 0)
        return -1;
    return s->document ? hold_save_relay(hold, s->name, s->last, s->document)
                       : hold_remove_relay(hold, s->name);
}

static void save_done(struct job *job)
{
    struct save *s = (struct save *)job;
    pthread_mutex_lock(&s->table->lock);
    struct row *r = &s->table->row[s->at]; /* not given up while it was saved */
    r->saving = false;
    if (job->result < 0)
        r->dirty = true;
    else if (r->over && !s->document)
        *r = (struct row){0};
    else
        r->former[0] = '\0';
    pthread_mutex_unlock(&s->table->lock);
    free(s->document);
    free(s);
}

static struct save *save_of(struct relays *t, size_t at, struct mailbox *home)
{
    struct row *r = &t->row[at];
    struct save *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->job = (struct job){.run = save_run, .done = save_done, .home = home};
    s->table = t;
    s->at = at;
    memcpy(s->name, r->name, sizeof s->name);
    memcpy(s->former, r->former, sizeof s->former);
    s->last = r->standing.seen;
    s->document = r->over ? NULL : saved_document(t, r);
    r->dirty = false;
    r->saving = true;
    return s;
}

void relays_save(struct relays *t, struct keeper *keeper, struct mailbox *home)
{
    struct save *out[ROWS];
    size_t n = 0;
    pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < ROWS; i++)
        if (t->row[i].name[0] && t->row[i].dirty && !t->row[i].saving)
            out[n++] = save_of(t, i, home);
    pthread_mutex_unlock(&t->lock);
    for (size_t i = 0; i < n; i++)
        keeper_submit(keeper, &out[i]->job);
}
