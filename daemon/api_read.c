/*
 * api_read.c - the routes that read: storms, the hold queue, and what became of a message.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "api.h"
#include "api_ledger.h"
#include "api_own.h"
#include "api_relays.h"
#include "change.h"
#include "hold_fellow.h"
#include "log.h"

enum {
    PAGE = 100,
    PAGE_MAX = 1000,
    STORM_NODES = 64,
    ROWS_MAX = 1000,
    HEAD_SHOWN = 64 << 10, /* bytes of a header or text shown in JSON */
};

static const char unreadable[] = "The hold database could not be read; the log says why.";

static json_t *json_key(const struct key *k)
{
    char hex[2 * sizeof k->byte + 1];
    hex_print(span_of(k->byte, sizeof k->byte), hex);
    return json_string(hex);
}

/* The limit a request wants. false: refused. */
static bool page_limit(struct http_request *r, size_t *limit)
{
    const char *text = http_query(r, "limit");
    uint64_t n = PAGE;
    bool good = !text || (span_number(span_str(text), PAGE_MAX, &n) && n > 0);
    *limit = n;
    if (good)
        return true;
    http_problem(r, 400, "limit is a number from 1 to %d.", PAGE_MAX);
    return false;
}

json_t *queue_json(const struct api *api, const char *incident)
{
    struct hold_figures f = {0};
    if (hold_figures(api->view, incident, &f) < 0)
        return NULL;
    json_t *j = json_object();
    for (int s = COPY_HELD; s < COPY_STATES; s++)
        set_num(j, copy_state_name((enum copy_state)s), f.copies[s]);
    set(j, "oldest", json_time(f.oldest));
    if (incident)
        return j;
    set_num(j, "mails", f.mails);
    set_num(j, "contents", f.contents);
    set_num(j, "content_bytes", f.content_bytes);
    set_num(j, "file_bytes", f.file_bytes);
    set_num(j, "max_bytes", api->config->hold_max_bytes);
    set(j, "full", json_boolean(atomic_load(&api->pipeline->hold_full)));
    return j;
}

/* ---- storms ---- */

/* A document of one node; id -> array of pairs [node, document]. */
static void add_part(json_t *by_id, const char *id, const char *node, json_t *document)
{
    json_t *parts = json_object_get(by_id, id), *pair = json_array();
    if (!parts)
        json_object_set_new(by_id, id, parts = json_array());
    json_array_append_new(pair, json_text_of(node));
    json_array_append(pair, document);
    json_array_append_new(parts, pair);
}

static int read_part(void *by_id, const char *node, const char *id, const char *text)
{
    json_t *j = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    if (json_is_object(j))
        add_part(by_id, id, node, j);
    json_decref(j);
    return 0;
}

struct saved {
    json_t *by_id;
    const char *node; /* ours */
};

/* Memory knows better. */
static int read_saved(void *arg, const char *id, const char *text)
{
    const struct saved *s = arg;
    return json_object_get(s->by_id, id) ? 0 : read_part(s->by_id, s->node, id, text);
}

/* Of all nodes one document each storm, ready to be shown; node: only what that one knows. Takes
 * by_id. */
static json_t *storms_merged(json_t *by_id, const char *node)
{
    json_t *out = json_object(), *parts;
    const char *id;
    json_object_foreach(by_id, id, parts)
    {
        json_t *documents[STORM_NODES];
        const char *nodes[STORM_NODES];
        size_t n = 0;
        for (size_t i = 0; i < json_array_size(parts) && n < STORM_NODES; i++) {
            const json_t *pair = json_array_get(parts, i);
            nodes[n] = json_string_value(json_array_get(pair, 0));
            documents[n] = json_array_get(pair, 1);
            n += !node || strcmp(nodes[n], node) == 0;
        }
        if (!n)
            continue;
        json_t *j = n == 1 && !node && json_array_size(parts) == 1
                        ? json_deep_copy(documents[0])
                        : incident_union(documents, nodes, n);
        incident_restate(j, clock_now());
        json_object_set_new(out, id, j);
    }
    json_decref(by_id);
    return out;
}

/* What this node knows of a storm, in memory or saved. -1: unreadable. */
static int add_own(struct api *api, json_t *by_id, const char *id)
{
    struct incidents *incidents = api->pipeline->incidents;
    const char *node = (const char *)api->config->site.node.p;
    json_t *j = incidents ? incident_whole(incidents, id, clock_now()) : NULL;
    char *text = NULL;
    int saved = j ? 0 : hold_incident(api->view, id, &text);
    if (j)
        add_part(by_id, id, node, j);
    if (saved > 0)
        read_part(by_id, node, id, text);
    json_decref(j);
    free(text);
    return saved < 0 ? -1 : 0;
}

static void note_id(void *ids, const char *id)
{
    json_object_set_new(ids, id, json_true());
}

/* What all other nodes know of these, and of the latest ones of theirs. -1: unreadable. */
static int add_fellows(struct api *api, json_t *by_id, size_t limit)
{
    json_t *ids = json_object();
    int rc = hold_fellow_latest(api->view, INT64_MIN, limit, note_id, ids);
    for (void *i = json_object_iter(ids); rc == 0 && i; i = json_object_iter_next(ids, i))
        if (!json_object_get(by_id, json_object_iter_key(i)))
            rc = add_own(api, by_id, json_object_iter_key(i));
    for (void *i = json_object_iter(by_id); i; i = json_object_iter_next(by_id, i))
        note_id(ids, json_object_iter_key(i));
    for (void *i = json_object_iter(ids); rc == 0 && i; i = json_object_iter_next(ids, i))
        rc = hold_fellow_each(api->view, json_object_iter_key(i), read_part, by_id);
    json_decref(ids);
    return rc;
}

/* The latest documents, saved or in memory, of all nodes or one: id -> document. NULL:
 * unreadable. */
static json_t *storms_by_id(struct api *api, size_t limit, const char *node)
{
    struct saved s = {json_object(), (const char *)api->config->site.node.p};
    struct incidents *incidents = api->pipeline->incidents;
    json_t *live = incidents ? incidents_whole(incidents, clock_now(), limit) : json_array();
    for (size_t i = 0; i < json_array_size(live); i++) {
        json_t *j = json_array_get(live, i);
        add_part(s.by_id, json_get_str(j, "id"), s.node, j);
    }
    json_decref(live);
    if (hold_each_incident(api->view, INT64_MIN, limit, read_saved, &s) < 0 ||
        add_fellows(api, s.by_id, limit) < 0) {
        json_decref(s.by_id);
        return NULL;
    }
    return storms_merged(s.by_id, node);
}

/* One document; null: not known. NULL: unreadable. */
static json_t *storm_by_id(struct api *api, const char *id, const char *node)
{
    json_t *by_id = json_object();
    if (add_own(api, by_id, id) < 0 || hold_fellow_each(api->view, id, read_part, by_id) < 0) {
        json_decref(by_id);
        return NULL;
    }
    json_t *merged = storms_merged(by_id, node);
    json_t *j = json_incref(json_object_get(merged, id));
    json_decref(merged);
    return j ? j : json_null();
}

/* What the relays named in a storm are held to be by now: culprits' "state". */
static void add_states(const struct api *api, const json_t *storm, const json_t *relays)
{
    const json_t *list = json_object_get(storm, "culprits");
    for (size_t i = 0; api->pipeline->relays && i < json_array_size(list); i++) {
        json_t *culprit = json_array_get(list, i), *state = NULL;
        const json_t *name = json_object_get(culprit, "relay");
        for (size_t k = 0; !state && k < json_array_size(relays); k++) {
            const json_t *relay = json_array_get(relays, k);
            if (json_equal(json_object_get(relay, "relay"), name))
                state = json_object_get(relay, "state");
        }
        set(culprit, "state", state ? json_incref(state) : json_null());
    }
}

static json_t *relays_known(const struct api *api)
{
    return api->pipeline->relays ? relays_list(api->pipeline->relays) : json_array();
}

static int latest_first(const void *a, const void *b)
{
    int64_t x = json_ms(json_object_get(*(json_t *const *)a, "last"));
    int64_t y = json_ms(json_object_get(*(json_t *const *)b, "last"));
    return x < y ? 1 : x > y ? -1 : 0;
}

void get_storms(struct api *api, struct http_request *r, const char *arg)
{
    (void)arg;
    size_t limit, n = 0;
    if (!page_limit(r, &limit))
        return;
    json_t *by_id = storms_by_id(api, limit, http_query(r, "node"));
    uint64_t known;
    if (!by_id || hold_incidents(api->view, &known) < 0) {
        json_decref(by_id);
        http_problem(r, 500, "%s", unreadable);
        return;
    }
    json_t **sorted = calloc(json_object_size(by_id) + 1, sizeof(json_t *));
    if (!sorted)
        abort();
    json_t *list = json_array(), *reply = json_object(), *relays = relays_known(api);
    for (void *m = json_object_iter(by_id); m; m = json_object_iter_next(by_id, m))
        sorted[n++] = json_object_iter_value(m);
    qsort(sorted, n, sizeof(json_t *), latest_first);
    for (size_t i = 0; i < n && i < limit; i++) {
        add_states(api, sorted[i], relays);
        json_array_append(list, sorted[i]);
    }
    json_decref(relays);
    set(reply, "storms", list);
    set_num(reply, "known", known > n ? known : n);
    free(sorted);
    json_decref(by_id);
    http_reply(r, 200, reply);
}

uint64_t queue_size(const json_t *queue)
{
    uint64_t n = 0;
    for (int s = COPY_HELD; s < COPY_STATES; s++)
        n += json_get_num(queue, copy_state_name((enum copy_state)s));
    return n;
}

void get_storm(struct api *api, struct http_request *r, const char *arg)
{
    char id[INCIDENT_TEXT];
    if (!incident_parse(span_str(arg), id)) {
        http_problem(r, 404, "A storm's id is S and 8 letters or digits.");
        return;
    }
    json_t *j = storm_by_id(api, id, http_query(r, "node")), *queue = queue_json(api, id);
    bool known = json_is_object(j);
    if (!j || !queue) {
        http_problem(r, 500, "%s", unreadable);
    } else if (!known && queue_size(queue) == 0) {
        http_problem(r, 404, "Nothing is known of storm %s.", id);
    } else {
        if (!known)
            j = json_pack("{ss}", "id", id); /* null needs no decref */
        json_t *relays = relays_known(api);
        add_states(api, j, relays);
        json_decref(relays);
        set(j, "queue", json_incref(queue));
        http_reply(r, 200, json_incref(j));
    }
    json_decref(j);
    json_decref(queue);
}

/* ---- the hold queue ---- */

/* SAME: the MTA may hand us the copy again because it could not keep the one before. */
static bool may_be_only(const struct copy_row *c)
{
    return c->first || c->relation == REL_SAME;
}

static json_t *copy_json(const struct copy_row *c)
{
    json_t *j = json_object();
    char sha[65];
    hex_print(span_of(c->sha256, sizeof c->sha256), sha);
    set(j, "id", json_id(c->id));
    set(j, "mail", json_id(c->mail));
    set(j, "state", json_string(copy_state_name(c->state)));
    set(j, "arrival", json_time(c->arrival));
    set(j, "changed", json_time(c->changed));
    set(j, "rcpt", json_text(span_bare(span_str(c->rcpt), '<', '>')));
    set(j, "sender", json_text_of(c->reversepath));
    set(j, "from", json_text_of(c->from));
    set(j, "subject", json_text_of(c->subject));
    set(j, "message_id", json_text_of(c->message_id));
    set(j, "storm", json_text_of(c->incident));
    set(j, "k", json_key(&c->k));
    set(j, "rule", json_text_of(c->rule));
    set(j, "reason", json_text_of(c->reason));
    set(j, "blamed", json_text_of(c->blamed));
    set(j, "relation", json_text_of(c->relation < REL_COUNT ? relation_name(c->relation) : NULL));
    set_num(j, "number", c->number);
    set(j, "may_be_only", json_boolean(may_be_only(c)));
    set(j, "door", json_text_of(c->door));
    set(j, "client", json_text_of(c->client));
    set(j, "client_name", json_text_of(c->client_name));
    set(j, "helo", json_text_of(c->helo));
    set(j, "queue_id", json_text_of(c->queue_id));
    set_num(j, "size", c->size);
    set(j, "sha256", json_string(sha));
    set_num(j, "attempts", c->attempts);
    set(j, "next_attempt", json_time(c->next_attempt));
    set(j, "by", json_text_of(c->by));
    set(j, "why", json_text_of(c->why));
    set(j, "reply", json_text_of(c->reply));
    return j;
}

struct page {
    json_t *copies;
    uint64_t last;
    int64_t since; /* ms; earlier ones are left out */
};

static int add_copy(void *arg, const struct copy_row *c)
{
    struct page *p = arg;
    p->last = c->id;
    if (c->arrival >= p->since)
        json_array_append_new(p->copies, copy_json(c));
    return 0;
}

/* Reads storm, state and after. false: refused. */
static bool held_filter(struct http_request *r, struct hold_filter *f, char storm[INCIDENT_TEXT])
{
    const char *text = http_query(r, "storm");
    if (text && !incident_parse(span_str(text), storm)) {
        http_problem(r, 400, "A storm's id is S and 8 letters or digits.");
        return false;
    }
    f->incident = text ? storm : NULL;
    f->state = -1;
    text = http_query(r, "state");
    for (int s = COPY_HELD; text && s < COPY_STATES; s++)
        if (strcmp(text, copy_state_name((enum copy_state)s)) == 0)
            f->state = s;
    if (text && f->state < 0) {
        http_problem(r, 400, "state is one of held, releasing, released, discarded.");
        return false;
    }
    text = http_query(r, "after");
    if (!text || id_parse(&f->after, span_str(text)))
        return page_limit(r, &f->limit);
    http_problem(r, 400, "after is the id of a copy.");
    return false;
}

/* "since", in seconds since 1970, as ms. false: refused. */
static bool read_since(struct http_request *r, int64_t *ms)
{
    const char *since = http_query(r, "since");
    uint64_t seconds = 0;
    bool good = !since || (span_number(span_str(since), UINT64_C(1) << 40, &seconds) && seconds);
    *ms = (int64_t)seconds * 1000;
    if (!good)
        http_problem(r, 400, "since is a time in seconds since 1970.");
    return good;
}

void get_held(struct api *api, struct http_request *r, const char *arg)
{
    (void)arg;
    struct hold_filter f = {0};
    char storm[INCIDENT_TEXT];
    if (!held_filter(r, &f, storm) || !read_since(r, &f.since))
        return;
    char *rcpt = change_address(http_query(r, "rcpt"));
    char *sender = change_address(http_query(r, "sender"));
    f.rcpt = rcpt;
    f.sender = sender;
    f.rule = http_query(r, "rule");
    struct page p = {.copies = json_array()};
    int rc = hold_each(api->view, &f, add_copy, &p);
    free(rcpt);
    free(sender);
    if (rc < 0) {
        json_decref(p.copies);
        http_problem(r, 500, "%s", unreadable);
        return;
    }
    json_t *j = json_object();
    bool more = json_array_size(p.copies) == f.limit;
    set(j, "copies", p.copies);
    set(j, "next", more ? json_id(p.last) : json_null());
    http_reply(r, 200, j);
}

/* ---- whom a storm owes a copy ---- */

struct needs {
    json_t *need, *have;
};

static bool got_one(void *arg, const struct key *k, uint64_t rcpt)
{
    struct store *store = arg;
    return store->ops->passed(store, k, rcpt);
}

static void add_need(void *arg, const struct key *k, uint64_t rcpt, uint64_t copy)
{
    struct needs *n = arg;
    uint8_t both[sizeof k->byte + sizeof rcpt];
    char hex[2 * sizeof both + 1];
    memcpy(both, k->byte, sizeof k->byte);
    memcpy(both + sizeof k->byte, &rcpt, sizeof rcpt);
    hex_print(span_of(both, sizeof both), hex);
    if (!copy) {
        json_array_append_new(n->have, json_string(hex));
        return;
    }
    json_t *pair = json_array();
    json_array_append_new(pair, json_string(hex));
    json_array_append_new(pair, json_id(copy));
    json_array_append_new(n->need, pair);
}

/* HASH as add_need writes it. */
static bool read_hash(const char *text, struct key *k, uint64_t *rcpt)
{
    uint8_t both[sizeof k->byte + sizeof *rcpt];
    if (!text || strlen(text) != 2 * sizeof both)
        return false;
    for (size_t i = 0; i < sizeof both; i++) {
        int high = byte_hex((uint8_t)text[2 * i]), low = byte_hex((uint8_t)text[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        both[i] = (uint8_t)(high << 4 | low);
    }
    memcpy(k->byte, both, sizeof k->byte);
    memcpy(rcpt, both + sizeof k->byte, sizeof *rcpt);
    return true;
}

/* Likewise: of {"of":[HASH,..]} those who got a copy that passed here: {"have":[HASH,..]}. */
void post_passed(struct api *api, struct http_request *r, const char *arg)
{
    (void)arg;
    struct store *store = api->pipeline->store;
    const json_t *of = json_object_get(http_body(r), "of");
    json_t *have = json_array(), *j = json_object();
    for (size_t i = 0; store && i < json_array_size(of); i++) {
        json_t *text = json_array_get(of, i);
        struct key k;
        uint64_t rcpt;
        if (read_hash(json_string_value(text), &k, &rcpt) && got_one(store, &k, rcpt))
            json_array_append(have, text);
    }
    set(j, "have", have);
    http_reply(r, 200, j);
}

/* For the desk of another node: {"need":[[HASH, copy],..],"have":[HASH,..]}, HASH of message and
 * recipient. */
void get_needs(struct api *api, struct http_request *r, const char *arg)
{
    char id[INCIDENT_TEXT];
    if (!incident_parse(span_str(arg), id)) {
        http_problem(r, 404, "A storm's id is S and 8 letters or digits.");
        return;
    }
    struct needs n = {json_array(), json_array()};
    struct store *store = api->pipeline->store;
    int rc = hold_each_need(api->view, id, store ? got_one : NULL, store, add_need, &n);
    json_t *j = json_object();
    set(j, "need", n.need);
    set(j, "have", n.have);
    if (rc == 0) {
        http_reply(r, 200, j);
        return;
    }
    json_decref(j);
    http_problem(r, 500, "%s", unreadable);
}

/* Finds the copy a path names. false: answered. */
static bool find_copy(struct api *api, struct http_request *r, struct arena *a, const char *arg,
                      struct copy_row *row)
{
    uint64_t id;
    if (id_parse(&id, span_str(arg)) && hold_copy(api->view, a, id, row) == 0)
        return true;
    http_problem(r, 404, "There is no such copy in the hold queue.");
    return false;
}

/* The message's bytes, malloc'd; NULL: answered. */
static uint8_t *copy_bytes(struct api *api, struct http_request *r, const struct copy_row *row,
                           size_t *n)
{
    uint8_t *bytes = NULL, sha[32];
    int rc = hold_bytes(api->view, row->mail, &bytes, n, sha);
    if (rc == 0)
        return bytes;
    if (rc == -1)
        http_problem(r, 404, "The message is not there any more.");
    else
        http_problem(r, 500, "The stored message is damaged: its SHA-256 does not match.");
    return NULL;
}

/* Somebody read a stranger's mail: that is written down, but nobody waits for it. */
struct reading {
    struct job job; /* must be first */
    char who[64], what[64];
};

static int reading_run(struct hold *hold, struct job *job)
{
    struct reading *g = (struct reading *)job;
    return hold_audit(hold, clock_now(), g->who, g->what, "");
}

static void reading_done(struct job *job)
{
    free(job);
}

static void audit_reading(struct api *api, const struct http_request *r, uint64_t copy)
{
    struct reading *g = calloc(1, sizeof *g);
    if (!g)
        abort();
    char id[ID_TEXT];
    id_print(copy, id);
    g->job = (struct job){.run = reading_run, .done = reading_done, .home = api->home};
    snprintf(g->who, sizeof g->who, "%s", http_who(r));
    snprintf(g->what, sizeof g->what, "read copy=%s", id);
    keeper_submit(api->pipeline->keeper, &g->job);
}

/* Bytes up to and with the empty line. */
static size_t head_size(struct span m)
{
    const uint8_t *crlf = memmem(m.p, m.n, "\r\n\r\n", 4), *lf = memmem(m.p, m.n, "\n\n", 2);
    if (crlf && (!lf || crlf < lf))
        return (size_t)(crlf - m.p) + 4;
    return lf ? (size_t)(lf - m.p) + 2 : m.n;
}

void get_copy(struct api *api, struct http_request *r, const char *arg)
{
    struct arena *a = arena_new();
    struct copy_row row = {0};
    uint8_t *bytes = NULL;
    size_t n = 0;
    if (!find_copy(api, r, a, arg, &row))
        goto out;
    bool headers = http_query(r, "headers"), text = http_query(r, "text");
    if ((headers || text) && !(bytes = copy_bytes(api, r, &row, &n)))
        goto out;
    json_t *j = copy_json(&row);
    struct span m = span_of(bytes, n);
    size_t head = bytes ? head_size(m) : 0;
    if (headers)
        set(j, "headers", json_text(span_head(span_head(m, head), HEAD_SHOWN)));
    if (text) {
        set(j, "text", json_text(span_head(span_from(m, head), HEAD_SHOWN)));
        audit_reading(api, r, row.id);
    }
    http_reply(r, 200, j);
out:
    free(bytes);
    arena_free(&a);
}

void get_message(struct api *api, struct http_request *r, const char *arg)
{
    struct arena *a = arena_new();
    struct copy_row row = {0};
    uint8_t *bytes = NULL;
    size_t n = 0;
    if (find_copy(api, r, a, arg, &row) && (bytes = copy_bytes(api, r, &row, &n))) {
        audit_reading(api, r, row.id);
        http_reply_bytes(r, "message/rfc822", bytes, n);
    }
    free(bytes);
    arena_free(&a);
}

/* ---- where is my mail? ---- */

struct search {
    struct journal_filter filter;
    const char *queue_id; /* the MTA's; NULL: any */
    json_t *rows;
    bool more;
};

static json_t *row_json(const struct journal_row *w)
{
    json_t *j = json_object();
    set(j, "tx", json_id(w->tx));
    set(j, "time", json_time(w->time));
    set(j, "door", json_text(w->door));
    set(j, "client", json_text(w->client));
    set(j, "sender", json_text(w->from));
    set(j, "rcpt", json_text(w->rcpt));
    if (w->disposition == JOURNAL_ABORTED)
        set(j, "disposition", json_string("aborted"));
    if (w->disposition < DISP_COUNT)
        set(j, "disposition", json_string(disposition_name(w->disposition)));
    if (w->advised < DISP_COUNT)
        set(j, "advised", json_string(disposition_name(w->advised)));
    if (w->relation < REL_COUNT)
        set(j, "relation", json_string(relation_name(w->relation)));
    if (w->mode < MODE_COUNT)
        set(j, "mode", json_string(mode_name(w->mode)));
    set_num(j, "copies", w->copies);
    set(j, "queue_id", json_text(w->queue_id));
    set(j, "rule", json_text(w->rule));
    set(j, "message_id", json_text(w->message_id));
    set(j, "storm", json_text(w->incident));
    set(j, "blamed", json_text(w->blamed));
    set(j, "conviction", json_text(w->conviction));
    set(j, "joined", json_text(w->joined));
    set(j, "k", json_key(&w->k));
    return j;
}

static int add_row(void *arg, const struct journal_row *w)
{
    struct search *s = arg;
    if (s->queue_id && !span_eq(w->queue_id, span_str(s->queue_id)))
        return 0;
    if (json_array_size(s->rows) == ROWS_MAX) {
        s->more = true;
        return 1;
    }
    json_array_append_new(s->rows, row_json(w));
    return 0;
}

/* Held copies of the same search; nothing to find by the MTA's queue id but through the rows. */
static int add_held(struct api *api, const struct search *s, json_t *copies)
{
    struct page p = {.copies = copies, .since = s->filter.since};
    struct hold_filter f = {.rcpt = s->filter.rcpt,
                            .sender = s->filter.from,
                            .mail = s->filter.tx,
                            .state = -1,
                            .limit = PAGE_MAX};
    uint64_t tx;
    if (s->queue_id) {
        json_t *row = json_array_get(s->rows, 0);
        if (!id_parse(&tx, span_str(json_get_str(row, "tx"))))
            return 0;
        f.mail = tx;
    }
    return hold_each(api->view, &f, add_copy, &p);
}

/* tx may also be the id of a held copy: then its mail's is meant, and what it did for that copy's
 * recipient, who goes to *rcpt. Rows of an id are looked for within an hour of the time in it. */
static void search_id(struct api *api, struct search *s, uint64_t id, char **rcpt)
{
    enum { HOUR = 3600 * 1000 };
    struct arena *a = arena_new();
    struct copy_row row = {0};
    bool copy = hold_copy(api->view, a, id, &row) == 0;
    s->filter.tx = copy ? row.mail : id;
    if (copy && !*rcpt)
        *rcpt = change_address(row.rcpt);
    arena_free(&a);
    int64_t t = (int64_t)(s->filter.tx >> 22);
    s->filter.since = t > HOUR ? t - HOUR : 0;
    s->filter.until = t + HOUR;
}

/* Fills the search but for the addresses. false: refused. */
static bool read_search(struct api *api, struct http_request *r, struct search *s, char **rcpt)
{
    const char *tx = http_query(r, "tx");
    int64_t since;
    uint64_t id = 0;
    s->queue_id = http_query(r, "queue_id");
    if (!tx && !s->queue_id && !http_query(r, "rcpt") && !http_query(r, "from")) {
        http_problem(r, 400, "Say which message: tx, queue_id, rcpt or from.");
        return false;
    }
    if (tx && !id_parse(&id, span_str(tx))) {
        http_problem(r, 400, "tx is the id of a transaction or of a held copy.");
        return false;
    }
    if (!read_since(r, &since))
        return false;
    if (tx)
        search_id(api, s, id, rcpt);
    if (since)
        s->filter.since = since;
    return true;
}

void get_messages(struct api *api, struct http_request *r, const char *arg)
{
    (void)arg;
    struct search s = {0};
    char *rcpt = change_address(http_query(r, "rcpt"));
    if (!read_search(api, r, &s, &rcpt)) {
        free(rcpt);
        return;
    }
    char *from = change_address(http_query(r, "from"));
    s.filter.rcpt = rcpt;
    s.filter.from = from;
    s.rows = json_array();
    json_t *copies = json_array(), *j = json_object();
    int rc = journal_each(api->config->hold_path, &s.filter, add_row, &s);
    bool held = add_held(api, &s, copies) == 0;
    bool by_id = s.filter.tx || s.queue_id;
    json_t *refused = api_refusals_of(api->view, by_id ? s.rows : NULL, rcpt, from, s.filter.since);
    free(rcpt);
    free(from);
    set(j, "rows", s.rows);
    set(j, "more", json_boolean(s.more));
    set(j, "copies", copies);
    set(j, "refusals", refused ? json_incref(refused) : json_null());
    json_decref(refused);
    if (rc >= 0 && held && refused) {
        http_reply(r, 200, j);
        return;
    }
    json_decref(j);
    http_problem(r, 500, "The journal or the hold database could not be read; the log says why.");
}
