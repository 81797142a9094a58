/*
 * incident.c - see incident.h: which message belongs to which incident, and its counts.
 *
 *   note --> by id, K, conversation ... --> incident --> members, servers (each findable in turn)
 *            (one hash table of handles)
 *
 * The lock is never held while the store or the keeper is asked. Invariant: every member, server
 * and conversation of an incident has its handle, and a handle leads to an incident in the table.
 */
#include <stdio.h>
#include <stdlib.h>

#include "incident.h"
#include "incident_own.h"

enum { BUCKETS = 1 << 14 };
static const int64_t CLOSED_AFTER = 24 * 3600 * 1000LL, JOIN_WITHIN = 7 * 24 * 3600 * 1000LL;

const char *incident_kind_text(enum incident_kind kind)
{
    static const char *const names[INCIDENT_KINDS] = {"replication", "loop",      "rule",
                                                      "reply-all",   "ping-pong", "flood"};
    return names[kind];
}

struct incidents *incidents_new(struct store *store, const struct site *site)
{
    struct incidents *t = calloc(1, sizeof *t);
    if (!t || !(t->bucket = calloc(BUCKETS, sizeof(struct handle *))))
        abort();
    t->store = store;
    t->site = site;
    pthread_mutex_init(&t->lock, NULL);
    incidents_limit(t, INCIDENTS_DAEMON);
    return t;
}

void incidents_limit(struct incidents *t, size_t limit)
{
    pthread_mutex_lock(&t->lock);
    t->limit = limit > t->n ? limit : t->n;
    t->all = realloc(t->all, t->limit * sizeof(struct incident *));
    if (!t->all)
        abort();
    pthread_mutex_unlock(&t->lock);
}

void incidents_tell(struct incidents *t, struct relays *relays)
{
    t->relays = relays;
}

void incident_clear(struct incident *i)
{
    free(i->member);
    json_decref(i->culprits);
    i->member = NULL;
    i->culprits = NULL;
}

/* ---- handles ---- */

static struct handle **bucket_of(const struct incidents *t, enum handle_of of, uint64_t value)
{
    uint64_t h = (value ^ (uint64_t)of << 56) * UINT64_C(0x9e3779b97f4a7c15); /* keyed already */
    return &t->bucket[h >> 50];
}

static struct incident *find(const struct incidents *t, enum handle_of of, uint64_t value)
{
    struct handle *h = value || of == BY_ID ? *bucket_of(t, of, value) : NULL;
    while (h && (h->value != value || h->of != of))
        h = h->next;
    return h ? h->incident : NULL;
}

static struct handle **handle_of(const struct incidents *t, const struct incident *i,
                                 enum handle_of of, uint64_t value)
{
    struct handle **at = bucket_of(t, of, value);
    while (*at && ((*at)->incident != i || (*at)->value != value || (*at)->of != of))
        at = &(*at)->next;
    return at;
}

static void handle_use(struct incidents *t, struct incident *i, enum handle_of of, uint64_t value)
{
    struct handle **at = handle_of(t, i, of, value), *h = *at;
    if (!value && of != BY_ID)
        return;
    if (!h) {
        h = calloc(1, sizeof *h);
        if (!h)
            abort();
        at = bucket_of(t, of, value); /* the latest is found first */
        *h = (struct handle){.next = *at, .incident = i, .value = value, .of = of};
        *at = h;
    }
    h->uses++;
}

static void handle_drop(struct incidents *t, const struct incident *i, enum handle_of of,
                        uint64_t value)
{
    struct handle **at = handle_of(t, i, of, value), *h = *at;
    if (!h || --h->uses)
        return;
    *at = h->next;
    free(h);
}

static uint64_t key_value(const struct key *k)
{
    uint64_t v;
    memcpy(&v, k->byte, sizeof v); /* K is a keyed hash */
    return v;
}

/* An id's 8 digits as they are: it is only compared. */
static uint64_t id_value(const char *id)
{
    uint64_t v;
    memcpy(&v, id + 1, sizeof v);
    return v;
}

static void member_handles(struct incidents *t, struct incident *i, const struct member *m,
                           bool use)
{
    const struct {
        enum handle_of of;
        uint64_t value;
    } all[] = {{BY_K, key_value(&m->k)},
               {BY_CONTENT, m->content},
               {BY_MESSAGE_ID, m->own},
               {BY_VISIBLE, m->visible}};
    for (size_t n = 0; n < sizeof all / sizeof *all; n++)
        if (use)
            handle_use(t, i, all[n].of, all[n].value);
        else
            handle_drop(t, i, all[n].of, all[n].value);
}

/* ---- the table ---- */

struct incident *incident_find(struct incidents *t, const char *id)
{
    return find(t, BY_ID, id_value(id));
}

/* Should a go before b? Those that are no storm, then saved ones, then the longest quiet. */
static bool expendable(const struct incident *a, const struct incident *b)
{
    if (a->storm != b->storm)
        return b->storm;
    if (a->dirty != b->dirty)
        return b->dirty;
    return a->last < b->last;
}

static void drop(struct incidents *t, struct incident *i)
{
    handle_drop(t, i, BY_ID, id_value(i->id));
    for (size_t n = 0; n < i->nmembers; n++)
        member_handles(t, i, &i->member[n], false);
    for (size_t n = 0; n < i->nservers; n++)
        handle_drop(t, i, BY_SERVER, i->server[n]);
    for (size_t n = 0; n < i->nabouts; n++)
        handle_drop(t, i, BY_ABOUT, i->about[n]);
    incident_clear(i);
    free(i);
}

void incidents_free(struct incidents **tp)
{
    struct incidents *t = *tp;
    *tp = NULL;
    if (!t)
        return;
    for (size_t i = 0; i < t->n; i++)
        drop(t, t->all[i]);
    pthread_mutex_destroy(&t->lock);
    free(t->bucket);
    free(t->all);
    free(t);
}

static void make_room(struct incidents *t)
{
    size_t worst = 0;
    for (size_t i = 1; i < t->n; i++)
        if (expendable(t->all[i], t->all[worst]))
            worst = i;
    drop(t, t->all[worst]);
    t->all[worst] = t->all[--t->n];
    t->forgotten++;
}

struct incident *incident_add(struct incidents *t, const char *id)
{
    if (t->n == t->limit)
        make_room(t);
    struct incident *i = calloc(1, sizeof *i);
    if (!i)
        abort();
    t->all[t->n++] = i;
    memcpy(i->id, id, sizeof i->id);
    handle_use(t, i, BY_ID, id_value(id));
    return i;
}

struct member *incident_member(struct incident *i, const struct key *k)
{
    for (size_t n = i->nmembers; n-- > 0;)
        if (memcmp(&i->member[n].k, k, sizeof *k) == 0)
            return &i->member[n];
    return NULL;
}

void incident_join(struct incidents *t, struct incident *i, const struct member *m)
{
    if (i->nmembers == MEMBERS) {
        member_handles(t, i, &i->member[1], false);
        i->gone += i->member[1].extra;
        memmove(&i->member[1], &i->member[2], (MEMBERS - 2) * sizeof *i->member);
        i->nmembers--;
    }
    if (i->nmembers == i->capmembers) {
        i->capmembers = i->capmembers ? 2 * i->capmembers : 1;
        i->member = realloc(i->member, i->capmembers * sizeof *i->member);
        if (!i->member)
            abort();
    }
    i->member[i->nmembers++] = *m;
    member_handles(t, i, m, true);
}

void incident_convict(struct incidents *t, struct incident *i, uint32_t server)
{
    for (size_t n = 0; n < i->nservers; n++)
        if (i->server[n] == server)
            return;
    if (i->nservers == SERVERS || !server)
        return;
    i->server[i->nservers++] = server;
    handle_use(t, i, BY_SERVER, server);
}

void incident_about(struct incidents *t, struct incident *i, uint64_t about)
{
    if (!about || i->nabouts == ABOUTS || find(t, BY_ABOUT, about) == i)
        return;
    i->about[i->nabouts++] = about;
    handle_use(t, i, BY_ABOUT, about);
}

/* ---- words ---- */

void incident_keep(char *out, size_t size, struct span s)
{
    s = span_head(s, size - 1);
    if (s.n)
        memcpy(out, s.p, s.n);
    out[s.n] = '\0';
}

void incident_slept(int64_t ms, char out[32])
{
    long long hours = (ms + 1800 * 1000) / (3600 * 1000);
    bool days = hours >= 48;
    long long n = days ? (hours + 12) / 24 : hours;
    snprintf(out, 32, "%lld %s%s", n, days ? "day" : "hour", n == 1 ? "" : "s");
}

/* The first text seen stays: later copies of a storm are worse witnesses. */
static void keep_first(char out[INCIDENT_FIELD], struct span s)
{
    if (!out[0])
        incident_keep(out, INCIDENT_FIELD, s);
}

/* Detectors that count say the same with other figures: the latest stands, and each has its place.
 */
static struct sentence *place_for(struct incident *i, enum incident_kind kind, const char *text)
{
    for (size_t n = 0; n < i->nsentences; n++)
        if ((kind >= INCIDENT_REPLYALL && i->sentence[n].of == kind) ||
            strcmp(i->sentence[n].text, text) == 0)
            return &i->sentence[n];
    size_t most = kind >= INCIDENT_REPLYALL ? SENTENCES : SENTENCES_OF_TURNS;
    return i->nsentences < most ? &i->sentence[i->nsentences++] : NULL;
}

void incident_say(struct incident *i, enum incident_kind kind, const char *text)
{
    char cut[INCIDENT_FIELD];
    if (!text || !*text)
        return;
    incident_keep(cut, sizeof cut, span_str(text));
    if (strlen(text) >= sizeof cut)
        memcpy(cut + sizeof cut - 4, "...", 4);
    struct sentence *s = place_for(i, kind, cut);
    if (!s)
        return;
    s->of = kind;
    memcpy(s->text, cut, sizeof cut);
}

/* ---- which incident ---- */

/* Further copies that pass and alarm nobody (lists, resends) are no incident. */
static bool opens(const struct incident_note *n)
{
    return n->held || n->would_hold || n->storm || n->alert;
}

static bool recent(const struct incident *i, const struct incident_note *n)
{
    return i && n->now - i->last <= JOIN_WITHIN;
}

/* Writes why the message joins what it is found by; "": it needs no reason. */
#define REASON sizeof((struct incident_news *)0)->joined

static struct incident *by_server(const struct incidents *t, const struct incident_note *n,
                                  const struct incident_server *server, size_t nservers,
                                  char why[REASON])
{
    for (size_t s = 0; s < nservers; s++) {
        struct incident *i = find(t, BY_SERVER, server[s].id);
        struct span name = span_head(server[s].name, 64);
        if (!recent(i, n))
            continue;
        snprintf(why, REASON, "it was brought back by a server convicted in this storm%s%.*s",
                 name.n > 1 ? ": " : "", SPAN_ARG(span_head(name, name.n > 1 ? name.n : 0)));
        return i;
    }
    return NULL;
}

static struct incident *by_visible(const struct incidents *t, const struct incident_note *n,
                                   char why[REASON])
{
    struct incident *i = find(t, BY_VISIBLE, n->visible);
    snprintf(why, REASON, "it goes to the same %u addresses in To and Cc", n->recipients_visible);
    return recent(i, n) ? i : NULL;
}

static struct incident *by_reference(const struct incidents *t, const struct incident_note *n,
                                     char why[REASON])
{
    snprintf(why, REASON, "it answers a message of this storm (References)");
    for (size_t r = 0; r < n->nreferences; r++) {
        struct incident *i = find(t, BY_MESSAGE_ID, n->reference[r]);
        if (recent(i, n))
            return i;
    }
    return NULL;
}

static struct incident *by_content(const struct incidents *t, const struct incident_note *n,
                                   char why[REASON])
{
    snprintf(why, REASON, "it has the same text as a message of this storm");
    return find(t, BY_CONTENT, n->content);
}

/* An incident the message belongs to though nothing of it was there before. Two machines that
 * answer each other, a relay that floods and what a rule holds are cases of their own. */
static struct incident *join_of(const struct incidents *t, const struct incident_note *n,
                                char why[REASON])
{
    struct incident *i = NULL;
    if (n->kind == INCIDENT_PINGPONG || n->kind == INCIDENT_FLOOD || n->kind == INCIDENT_RULE)
        return NULL;
    if (n->kind != INCIDENT_REPLYALL) {
        i = by_content(t, n, why);
        i = i ? i : by_server(t, n, n->convicted, n->nconvicted, why);
        i = i ? i : by_server(t, n, n->server, n->nservers, why);
    }
    i = i ? i : by_reference(t, n, why);
    return i ? i : by_visible(t, n, why);
}

/* What a rule holds, until its one message turned out to be a storm. */
static struct incident *by_about(const struct incidents *t, const struct incident_note *n)
{
    struct incident *i = find(t, BY_ABOUT, n->about);
    return i && n->kind == INCIDENT_RULE && i->kind != INCIDENT_RULE ? NULL : i;
}

/* The id of a new one: of its first message's K, or of what it is about. */
static void name_it(const struct incident_note *n, char id[INCIDENT_TEXT])
{
    struct key k = n->k;
    for (unsigned b = 0; n->about && n->kind != INCIDENT_RULE && b < 8; b++)
        k.byte[b] = (uint8_t)(n->about >> 8 * b);
    incident_print(&k, id);
}

static struct incident *open_one(struct incidents *t, const struct incident_note *n, const char *id)
{
    struct incident *i = incident_add(t, id);
    i->kind = n->kind;
    i->first = i->last = n->now;
    i->news = 1u << INCIDENT_OPENED;
    if (n->storm && n->rested >= CLOSED_AFTER) { /* a storm of long ago that nobody wrote down */
        i->resurfaced = n->now;
        i->slept = n->rested;
        i->news |= 1u << INCIDENT_RESURFACED;
    }
    return i;
}

static void resurface(struct incident *i, const struct incident_note *n)
{
    int64_t slept = n->now - i->last;
    if (slept < CLOSED_AFTER || i->resurfaced > i->last)
        return;
    i->resurfaced = n->now;
    i->slept = slept;
    i->history = i->last;
    i->news |= 1u << INCIDENT_RESURFACED;
}

static void take_in(struct incidents *t, struct incident *i, const struct incident_note *n,
                    const char *why)
{
    struct member m = {
        .k = n->k, .content = n->content, .own = n->own, .visible = n->visible, .first = n->now};
    incident_keep(m.message_id, sizeof m.message_id, n->message_id);
    if (*why) {
        char sentence[INCIDENT_FIELD];
        incident_keep(m.why, sizeof m.why, span_str(why));
        snprintf(sentence, sizeof sentence, "Another message belongs to it: %s.", why);
        incident_say(i, INCIDENT_REPLICATION, sentence);
        i->news |= 1u << INCIDENT_JOINED;
    }
    incident_join(t, i, &m);
}

/* The incident this belongs to, with the message among its members. NULL: none. */
static struct incident *place(struct incidents *t, const struct incident_note *n)
{
    char why[REASON] = "", id[INCIDENT_TEXT];
    struct incident *i = by_about(t, n);
    i = i ? i : find(t, BY_K, key_value(&n->k));
    if (!i) {
        name_it(n, id);
        i = incident_find(t, id);
    }
    if (!i && !opens(n))
        return NULL;
    bool joins = !i && (i = join_of(t, n, why)) != NULL;
    i = i ? i : open_one(t, n, id);
    resurface(i, n);
    if (n->kind != INCIDENT_FLOOD && !incident_member(i, &n->k))
        take_in(t, i, n, joins ? why : "");
    incident_about(t, i, n->about);
    for (size_t c = 0; c < n->nconvicted; c++)
        incident_convict(t, i, n->convicted[c].id);
    return i;
}

bool incidents_place(struct incidents *t, const struct incident_note *n, char id[INCIDENT_TEXT])
{
    pthread_mutex_lock(&t->lock);
    const struct incident *i = place(t, n);
    if (i)
        memcpy(id, i->id, INCIDENT_TEXT);
    pthread_mutex_unlock(&t->lock);
    return i;
}

/* ---- counting ---- */

static void add(struct incident *i, const struct incident_note *n)
{
    uint64_t copies = (uint64_t)n->passed + n->tagged + n->held;
    struct member *m = incident_member(i, &n->k);
    if (m)
        m->noted += copies;
    /* A loop that hands out copies is one; so is the only message a rule has held. */
    if (n->kind == INCIDENT_REPLICATION && (i->kind != INCIDENT_RULE || i->nmembers < 2))
        i->kind = n->kind;
    i->last = n->now > i->last ? n->now : i->last;
    i->copies += copies;
    i->passed += n->passed;
    i->tagged += n->tagged;
    i->deferred += n->deferred;
    i->held += n->held;
    i->would_hold += n->would_hold;
    if (n->recipients_visible > i->visible)
        i->visible = n->recipients_visible;
    if (n->storm && !i->storm)
        i->news |= 1u << INCIDENT_STORM;
    i->storm |= n->storm;
    i->named |= n->named;
    keep_first(i->from, n->from);
    keep_first(i->subject, n->subject);
    keep_first(i->message_id, n->message_id);
    keep_first(i->relay, n->relay);
    incident_say(i, n->kind, n->evidence);
    i->noted = i->dirty = true;
}

static void tell(struct incident *i, const struct incident_note *n, struct incident_news *news)
{
    const struct member *m = incident_member(i, &n->k);
    *news = (struct incident_news){
        .events = i->news, .copies = i->copies, .messages = (unsigned)i->nmembers};
    memcpy(news->id, i->id, sizeof news->id);
    if (m)
        memcpy(news->joined, m->why, sizeof news->joined);
    incident_slept(i->slept, news->slept);
    i->news = 0;
}

bool incidents_note(struct incidents *t, const struct incident_note *n, struct incident_news *news)
{
    pthread_mutex_lock(&t->lock);
    struct incident *i = place(t, n);
    if (i) {
        add(i, n);
        tell(i, n, news);
    }
    pthread_mutex_unlock(&t->lock);
    return i;
}

size_t incidents_open(struct incidents *t, int64_t now)
{
    size_t n = 0;
    pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < t->n; i++)
        n += t->all[i]->noted && incident_is_open(t->all[i]->last, now);
    pthread_mutex_unlock(&t->lock);
    return n;
}

uint64_t incidents_forgotten(struct incidents *t)
{
    pthread_mutex_lock(&t->lock);
    uint64_t n = t->forgotten;
    pthread_mutex_unlock(&t->lock);
    return n;
}
