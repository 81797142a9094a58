/*
 * api_fleet.c - see api_fleet_own.h. Here: asking all nodes, and merging what is only read.
 *
 * Our own part is a request from inside like the others', so all parts look alike. Ids tell which
 * node made them: a copy is looked for where it must be.
 */
#include <stdio.h>
#include <stdlib.h>

#include "api_fleet_own.h"

enum { NODE_BITS = 10, SEQUENCE_BITS = 12, LIMIT_USUAL = 100 };

const char *api_node(const struct api *api)
{
    return (const char *)api->config->site.node.p;
}

/* ---- asking ---- */

struct gather *gather_new(struct api *api, struct http_request *r, const char *path,
                          gather_fn *merge)
{
    struct gather *g = calloc(1, sizeof *g);
    if (!g)
        abort();
    g->api = api;
    g->request = r;
    g->merge = merge;
    snprintf(g->path, sizeof g->path, "%s", path);
    return g;
}

static void gather_free(struct gather *g)
{
    for (size_t i = 0; i < g->n; i++) {
        json_decref(g->parts[i].json);
        json_decref(g->parts[i].query);
        json_decref(g->parts[i].body);
    }
    json_decref(g->note);
    free(g->parts);
    free(g);
}

struct part *gather_add(struct gather *g, const struct fellow *fellow)
{
    if (g->n == g->cap) {
        g->cap = g->cap ? 2 * g->cap : 8;
        if (!(g->parts = realloc(g->parts, g->cap * sizeof *g->parts)))
            abort();
    }
    struct part *p = &g->parts[g->n++];
    *p = (struct part){.self = !fellow, .away = fellow && !fellow->alive};
    snprintf(p->node, sizeof p->node, "%.255s", fellow ? fellow->name : api_node(g->api));
    return p;
}

static void one_less(struct gather *g)
{
    if (--g->waiting)
        return;
    g->merge(g);
    gather_free(g);
}

struct own {
    struct gather *gather;
    size_t part;
};

static void own_answered(void *arg, int status, struct span body)
{
    struct own own = *(struct own *)arg;
    struct part *p = &own.gather->parts[own.part];
    free(arg);
    p->json = json_loadb((const char *)body.p, body.n, 0, NULL);
    p->status = json_is_object(p->json) ? status : 500;
    one_less(own.gather);
}

static void ask_self(struct gather *g, size_t part)
{
    char path[160];
    struct own *own = malloc(sizeof *own);
    if (!own)
        abort();
    *own = (struct own){g, part};
    snprintf(path, sizeof path, "/api/v1/%s", g->path);
    const struct http_inner in = {.method = g->parts[part].body ? HTTP_POST : HTTP_GET,
                                  .path = path,
                                  .who = http_who(g->request),
                                  .query = g->parts[part].query,
                                  .body = g->parts[part].body,
                                  .answered = own_answered,
                                  .arg = own};
    http_inner(api_handle, g->api, &in);
}

static void others_answered(void *arg, const struct fellow_answer *answers, size_t n)
{
    struct gather *g = arg;
    size_t k = 0;
    for (size_t i = 0; i < g->n && k < n; i++) {
        if (g->parts[i].self)
            continue;
        g->parts[i].status = answers[k].status;
        g->parts[i].json = json_incref(answers[k++].json);
    }
    one_less(g);
}

static void ask_others(struct gather *g, int64_t deadline_ms)
{
    struct fellow_letter *letters = calloc(g->n, sizeof *letters);
    size_t n = 0;
    if (!letters)
        abort();
    for (size_t i = 0; i < g->n; i++) {
        const struct part *p = &g->parts[i];
        if (!p->self)
            letters[n++] = (struct fellow_letter){.node = p->node,
                                                  .path = g->path,
                                                  .query = p->query,
                                                  .body = p->body,
                                                  .away = p->away};
    }
    if (n)
        g->waiting++;
    if (n)
        fellows_send(g->api->pipeline->fellows, letters, n, g->command, http_who(g->request),
                     deadline_ms, others_answered, g);
    free(letters);
}

void gather_start(struct gather *g, int64_t deadline_ms)
{
    g->waiting = 1; /* us: it is not over before all have been asked */
    ask_others(g, deadline_ms);
    for (size_t i = 0; i < g->n; i++)
        if (g->parts[i].self) {
            g->waiting++;
            ask_self(g, i);
        }
    one_less(g);
}

/* ---- merging ---- */

bool part_good(const struct part *p)
{
    return p->status == 200;
}

void gather_silent(const struct gather *g, json_t *reply)
{
    json_t *silent = json_array();
    for (size_t i = 0; i < g->n; i++)
        if (g->parts[i].status <= 0)
            json_array_append_new(silent, json_text_of(g->parts[i].node));
    set(reply, "silent", silent);
}

void gather_problem(const struct gather *g)
{
    const struct part *p = NULL;
    for (size_t i = 0; i < g->n; i++)
        if (!p || (p->status <= 0 && g->parts[i].status > 0))
            p = &g->parts[i];
    const char *detail = p ? json_get_str(p->json, "detail") : "";
    if (p && p->status > 0 && *detail)
        http_problem(g->request, p->status, "%s", detail);
    else
        http_problem(g->request, 503, "%s did not answer.", p ? p->node : "Nobody");
}

/* The first good part's answer, to be changed. NULL: none was good, and the request is answered. */
static json_t *first_good(const struct gather *g)
{
    for (size_t i = 0; i < g->n; i++)
        if (part_good(&g->parts[i]))
            return json_deep_copy(g->parts[i].json);
    gather_problem(g);
    return NULL;
}

/* All members of the parts' lists of this name, each with its node. */
static json_t *lists_of(const struct gather *g, const char *name)
{
    json_t *all = json_array();
    for (size_t i = 0; i < g->n; i++) {
        const json_t *list = json_object_get(g->parts[i].json, name);
        for (size_t k = 0; part_good(&g->parts[i]) && k < json_array_size(list); k++) {
            json_t *j = json_array_get(list, k);
            set(j, "node", json_text_of(g->parts[i].node));
            json_array_append(all, j);
        }
    }
    return all;
}

/* A new list, sorted, of at most so many. */
static json_t *list_sorted(json_t *list, int (*order)(const void *, const void *), size_t limit)
{
    size_t n = json_array_size(list);
    json_t **sorted = calloc(n + 1, sizeof(json_t *)), *out = json_array();
    if (!sorted)
        abort();
    for (size_t i = 0; i < n; i++)
        sorted[i] = json_array_get(list, i);
    qsort(sorted, n, sizeof(json_t *), order);
    for (size_t i = 0; i < n && i < limit; i++)
        json_array_append(out, sorted[i]);
    free(sorted);
    json_decref(list);
    return out;
}

static uint64_t id_of(const json_t *j)
{
    uint64_t id = 0;
    (void)id_parse(&id, span_str(json_get_str(j, "id")));
    return id;
}

static int by_id(const void *a, const void *b)
{
    uint64_t x = id_of(*(json_t *const *)a), y = id_of(*(json_t *const *)b);
    return x < y ? -1 : x > y;
}

static int by_time(const void *a, const void *b)
{
    int64_t x = json_ms(json_object_get(*(json_t *const *)a, "time"));
    int64_t y = json_ms(json_object_get(*(json_t *const *)b, "time"));
    return x < y ? -1 : x > y;
}

/* A page of all is made of a page of each: what is left over comes with the next one. */
static void merge_held(struct gather *g)
{
    json_t *j = first_good(g);
    if (!j)
        return;
    json_t *all = lists_of(g, "copies");
    bool more = json_array_size(all) > g->limit;
    for (size_t i = 0; i < g->n; i++)
        more |= json_is_string(json_object_get(g->parts[i].json, "next"));
    json_t *page = list_sorted(all, by_id, g->limit);
    const json_t *last = json_array_get(page, json_array_size(page) - 1);
    set(j, "next", more && last ? json_id(id_of(last)) : json_null());
    set(j, "copies", page);
    gather_silent(g, j);
    http_reply(g->request, 200, j);
}

static void merge_messages(struct gather *g)
{
    json_t *j = first_good(g);
    if (!j)
        return;
    bool more = false;
    for (size_t i = 0; i < g->n; i++)
        more |= json_get_yes(g->parts[i].json, "more");
    set(j, "more", json_boolean(more));
    set(j, "rows", list_sorted(lists_of(g, "rows"), by_time, SIZE_MAX));
    set(j, "copies", list_sorted(lists_of(g, "copies"), by_id, SIZE_MAX));
    if (!json_is_null(json_object_get(j, "refusals")))
        set(j, "refusals", lists_of(g, "refusals"));
    gather_silent(g, j);
    http_reply(g->request, 200, j);
}

/* The sums of what every node has in its queue. The document itself is the union of what all
 * nodes told long ago; a node that knows nothing of it has nothing queued. */
static void merge_storm(struct gather *g)
{
    json_t *j = first_good(g), *sum = json_object();
    if (!j) {
        json_decref(sum);
        return;
    }
    for (int s = COPY_HELD; s < COPY_STATES; s++) {
        uint64_t n = 0;
        for (size_t i = 0; i < g->n; i++)
            n += json_get_num(json_object_get(g->parts[i].json, "queue"),
                              copy_state_name((enum copy_state)s));
        set_num(sum, copy_state_name((enum copy_state)s), n);
    }
    json_t *oldest = json_null();
    for (size_t i = 0; i < g->n; i++) {
        json_t *o = json_object_get(json_object_get(g->parts[i].json, "queue"), "oldest");
        if (json_ms(o) && (!json_ms(oldest) || json_ms(o) < json_ms(oldest)))
            oldest = o;
    }
    set(sum, "oldest", json_incref(oldest));
    set(j, "queue", sum);
    gather_silent(g, j);
    http_reply(g->request, 200, j);
}

/* One node's answer as it is. */
static void merge_one(struct gather *g)
{
    json_t *j = first_good(g);
    if (!j)
        return;
    set(j, "node", json_text_of(g->parts[0].node));
    http_reply(g->request, 200, j);
}

/* ---- whom ---- */

bool fleet_whom(struct api *api, struct http_request *r, const char *node,
                struct fellow list[FELLOWS_MAX], size_t *n, bool *self)
{
    size_t all = fellows_list(api->pipeline->fellows, list);
    *n = all;
    *self = !node || strcmp(node, api_node(api)) == 0;
    if (!node)
        return true;
    *n = 0;
    for (size_t i = 0; !*self && i < all && *n == 0; i++)
        if (strcmp(list[i].name, node) == 0) {
            list[0] = list[i];
            *n = 1;
        }
    if (*self || *n)
        return true;
    http_problem(r, 404, "There is no node %.64s. breakwaterctl status names those there are.",
                 node);
    return false;
}

/* The query for the others: ours, without who is asked. */
static json_t *query_for_all(const struct http_request *r)
{
    json_t *q = http_queries(r);
    json_object_del(q, "node");
    return q;
}

static bool read_all(struct api *api, struct http_request *r, const char *path, gather_fn *merge)
{
    struct fellow list[FELLOWS_MAX];
    size_t n;
    bool self;
    if (!fleet_whom(api, r, http_query(r, "node"), list, &n, &self))
        return true;
    if (!n)
        return false;
    struct gather *g = gather_new(api, r, path, merge);
    uint64_t limit = LIMIT_USUAL;
    const char *text = http_query(r, "limit");
    if (text && !span_number(span_str(text), 1 << 20, &limit))
        limit = LIMIT_USUAL; /* every part refuses it */
    g->limit = limit;
    if (self)
        gather_add(g, NULL)->query = query_for_all(r);
    for (size_t i = 0; i < n; i++)
        gather_add(g, &list[i])->query = query_for_all(r);
    gather_start(g, FLEET_ASK_MS);
    return true;
}

/* ---- one copy ---- */

static bool have_copy(struct api *api, uint64_t id)
{
    struct arena *a = arena_new();
    struct copy_row row = {0};
    bool have = hold_copy(api->view, a, id, &row) == 0;
    arena_free(&a);
    return have;
}

/* Which of the other nodes made this id. false: none that is known. */
bool fleet_maker(const struct fellow *list, size_t n, uint64_t id, struct fellow *out)
{
    uint64_t number = id >> SEQUENCE_BITS & ((1 << NODE_BITS) - 1);
    for (size_t i = 0; i < n; i++)
        if (list[i].number == number) {
            *out = list[i];
            return true;
        }
    return false;
}

static bool read_copy(struct api *api, struct http_request *r, const char *path, const char *arg,
                      bool bytes)
{
    struct fellow list[FELLOWS_MAX], maker;
    uint64_t id;
    size_t n = fellows_list(api->pipeline->fellows, list);
    if (!n || !id_parse(&id, span_str(arg)) || have_copy(api, id) ||
        !fleet_maker(list, n, id, &maker))
        return false;
    if (bytes || http_query(r, "text")) {
        http_problem(r, 409, "That copy is on %s, and texts of mail do not travel: ask there.",
                     maker.name);
        return true;
    }
    struct gather *g = gather_new(api, r, path, merge_one);
    gather_add(g, &maker)->query = query_for_all(r);
    gather_start(g, FLEET_ASK_MS);
    return true;
}

bool api_fleet(struct api *api, struct http_request *r, enum api_scope scope, const char *path,
               const char *arg)
{
    if (scope == API_ALONE || http_is_inner(r))
        return false;
    switch (scope) {
    case API_STORM:
        return read_all(api, r, path, merge_storm);
    case API_HELD:
        return read_all(api, r, path, merge_held);
    case API_MESSAGES:
        return read_all(api, r, path, merge_messages);
    case API_COPY:
    case API_TEXT:
        return read_copy(api, r, path, arg, scope == API_TEXT);
    default:
        return fleet_change(api, r, scope, path);
    }
}
