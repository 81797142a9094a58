/*
 * api_fleet_change.c - what people change on several nodes: each node carries out its own part.
 *
 *   ids          to the nodes that made them
 *   storm, rcpt  to all nodes, whether they are there now or not
 *   one copy for each recipient: in three steps, for exactly one of all nodes may send it:
 *       needs/S      to every node: whom would you send which copy, who got one that you held
 *       passed       to every node: who of these got one that passed
 *       ids          the lowest id of those offered, where nobody got one; every asker would
 *                    choose the same
 *   a dry run    is a question, and changes nothing
 *
 * Every answer has "nodes": what became of each one's part.
 */
#include <stdio.h>
#include <stdlib.h>

#include "api_fleet_own.h"
#include "change.h"

enum { IDS_EACH = 2000, HASHES_EACH = 1000 }; /* of one parcel: they must fit into a batch */

/* ---- merging ---- */

/* What became of a node's part. */
static const char *part_state(const struct part *p, bool command)
{
    if (part_good(p))
        return "done";
    if (p->status > 0)
        return "refused";
    if (p->status == FELLOW_UNTOLD)
        return "untold";
    return command ? "later" : "silent";
}

/* "There is nothing of this storm here" is no refusal where others have something. */
static bool part_empty(const struct part *p)
{
    return p->status == 404;
}

static json_t *part_told(const struct part *p, bool command)
{
    json_t *j = json_object();
    set(j, "node", json_text_of(p->node));
    set(j, "self", json_boolean(p->self));
    set(j, "state", json_string(part_empty(p) ? "done" : part_state(p, command)));
    set_num(j, "asked", p->copies ? p->copies : json_get_num(p->json, "asked"));
    set_num(j, "changed", json_get_num(p->json, "changed"));
    if (p->status > 0 && !part_good(p))
        set(j, "detail", json_text_of(json_get_str(p->json, "detail")));
    return j;
}

static json_t *parts_told(const struct gather *g)
{
    json_t *nodes = json_array();
    for (size_t i = 0; i < g->n; i++)
        json_array_append_new(nodes, part_told(&g->parts[i], g->command));
    return nodes;
}

/* Is there anything to tell but one refusal? */
static bool worth_telling(const struct gather *g)
{
    for (size_t i = 0; i < g->n; i++)
        if (part_good(&g->parts[i]) || (g->parts[i].status <= 0 && g->command))
            return true;
    return false;
}

static void merge_change(struct gather *g)
{
    uint64_t asked = 0, changed = 0, left_out = 0;
    if (!worth_telling(g)) {
        gather_problem(g);
        return;
    }
    json_t *j = json_object(), *refused = json_array();
    for (size_t i = 0; i < g->n; i++) {
        const struct part *p = &g->parts[i];
        asked += p->copies ? p->copies : json_get_num(p->json, "asked");
        changed += json_get_num(p->json, "changed");
        left_out += json_get_num(p->json, "left_out");
        json_array_extend(refused, json_object_get(p->json, "refused"));
    }
    set_num(j, "asked", asked);
    set_num(j, "changed", changed);
    set(j, "dry_run", json_boolean(!g->command));
    set(j, "refused", refused);
    if (left_out)
        set_num(j, "left_out", left_out);
    set(j, "nodes", parts_told(g));
    gather_silent(g, j);
    http_reply(g->request, 200, j);
}

/* A mode, a word about a relay: our own answer, or that of the first who did it. */
static void merge_word(struct gather *g)
{
    json_t *j = NULL;
    for (size_t i = 0; i < g->n && !j; i++)
        if (part_good(&g->parts[i]))
            j = json_deep_copy(g->parts[i].json);
    if (!j && !worth_telling(g)) {
        gather_problem(g);
        return;
    }
    j = j ? j : json_object();
    set(j, "nodes", parts_told(g));
    gather_silent(g, j);
    http_reply(g->request, 200, j);
}

/* ---- parts ---- */

static json_t *body_without(json_t *body, const char *member)
{
    json_t *copy = json_deep_copy(body);
    json_object_del(copy, member);
    return copy;
}

static void add_all(struct gather *g, const struct fellow *list, size_t n, bool self, json_t *body)
{
    if (self)
        gather_add(g, NULL)->body = json_incref(body);
    for (size_t i = 0; i < n; i++)
        gather_add(g, &list[i])->body = json_incref(body);
}

/* The part of this node that has room for one more id. fellow NULL: ours. */
static struct part *part_for(struct gather *g, const struct fellow *fellow, json_t *body)
{
    const char *name = fellow ? fellow->name : api_node(g->api);
    for (size_t i = g->n; i-- > 0;)
        if (strcmp(g->parts[i].node, name) == 0 && g->parts[i].copies < IDS_EACH)
            return &g->parts[i];
    struct part *p = gather_add(g, fellow);
    p->body = json_deep_copy(body);
    json_object_del(p->body, "storm");
    json_object_del(p->body, "one_per_recipient");
    json_object_set_new(p->body, "ids", json_array());
    return p;
}

static void add_id(struct gather *g, const struct fellow *fellow, json_t *body, json_t *id)
{
    struct part *p = part_for(g, fellow, body);
    json_array_append(json_object_get(p->body, "ids"), id);
    p->copies++;
}

/* Ids that no other node can have made are ours, to be refused or not. */
static void add_ids(struct gather *g, const struct fellow *list, size_t n, bool self, json_t *body)
{
    const json_t *ids = json_object_get(body, "ids");
    for (size_t i = 0; i < json_array_size(ids); i++) {
        json_t *text = json_array_get(ids, i);
        struct fellow maker;
        uint64_t id = 0;
        if (!id_parse(&id, span_str(json_string_value(text))))
            continue; /* change_read has looked */
        bool other = fleet_maker(list, n, id, &maker);
        add_id(g, !other && self ? NULL : other ? &maker : &list[0], body, text);
    }
}

static void start(struct gather *g, json_t *body)
{
    g->command = !json_get_yes(body, "dry_run");
    gather_start(g, g->command ? FLEET_DO_MS : FLEET_ASK_MS);
}

/* ---- one copy for each recipient ---- */

/* Of those offered the lowest, {who: [id, node]}; nobody for who has one. */
static json_t *chosen(const struct gather *g)
{
    json_t *best = json_object();
    for (size_t i = 0; i < g->n; i++) {
        const json_t *need = json_object_get(g->parts[i].json, "need");
        for (size_t k = 0; k < json_array_size(need); k++) {
            const json_t *one = json_array_get(need, k);
            const char *who = json_string_value(json_array_get(one, 0));
            const char *text = json_string_value(json_array_get(one, 1));
            uint64_t id, other = UINT64_MAX;
            if (!who || !text || !id_parse(&id, span_str(text)))
                continue;
            const json_t *before = json_array_get(json_object_get(best, who), 0);
            if (before)
                (void)id_parse(&other, span_str(json_string_value(before)));
            if (id < other)
                json_object_set_new(best, who, json_pack("[ss]", text, g->parts[i].node));
        }
    }
    return best;
}

static void leave_out(const struct gather *g, json_t *best)
{
    for (size_t i = 0; i < g->n; i++) {
        const json_t *have = json_object_get(g->parts[i].json, "have");
        for (size_t k = 0; k < json_array_size(have); k++)
            if (json_is_string(json_array_get(have, k)))
                json_object_del(best, json_string_value(json_array_get(have, k)));
    }
}

static void none_needed(struct gather *g, bool dry)
{
    json_t *j = json_object();
    set_num(j, "asked", 0);
    set_num(j, "changed", 0);
    set(j, "dry_run", json_boolean(dry));
    set(j, "refused", json_array());
    http_reply(g->request, 200, j);
}

/* Has every node answered? Else the request is answered. */
static bool all_good(const struct gather *g)
{
    for (size_t i = 0; i < g->n; i++) {
        if (part_good(&g->parts[i]))
            continue;
        if (g->parts[i].status > 0)
            http_problem(g->request, g->parts[i].status, "%s: %s", g->parts[i].node,
                         json_get_str(g->parts[i].json, "detail"));
        else
            http_problem(g->request, 409,
                         "%s did not answer. It may have sent these people a copy, or be about "
                         "to: exactly one for each cannot be promised. Say --node to let one "
                         "node alone decide; nothing was changed.",
                         g->parts[i].node);
        return false;
    }
    return true;
}

/* Third step: the chosen copies, by id, each to its node. */
static void send_chosen(struct gather *g)
{
    json_t *best = json_object_get(g->note, "best"), *body = json_object_get(g->note, "body");
    json_t *pair;
    const char *who;
    if (!all_good(g))
        return;
    leave_out(g, best);
    if (!json_object_size(best)) {
        none_needed(g, json_get_yes(body, "dry_run"));
        return;
    }
    struct gather *next = gather_new(g->api, g->request, "release", merge_change);
    json_object_foreach(best, who, pair)
    {
        const char *node = json_string_value(json_array_get(pair, 1));
        struct fellow maker = {.alive = true};
        snprintf(maker.name, sizeof maker.name, "%s", node);
        add_id(next, strcmp(node, api_node(g->api)) == 0 ? NULL : &maker, body,
               json_array_get(pair, 0));
    }
    start(next, body);
}

/* Each node is asked about all that were chosen, some at a time. */
static void ask_passed(struct gather *next, const struct part *p, const json_t *best)
{
    struct fellow maker = {.alive = true};
    snprintf(maker.name, sizeof maker.name, "%s", p->node);
    json_t *list = NULL;
    for (void *it = json_object_iter((json_t *)best); it;
         it = json_object_iter_next((json_t *)best, it)) {
        if (!list || json_array_size(list) >= HASHES_EACH) {
            list = json_array();
            gather_add(next, p->self ? NULL : &maker)->body =
                json_pack("{sb so}", "dry_run", 1, "of", list);
        }
        json_array_append_new(list, json_string(json_object_iter_key(it)));
    }
}

/* Second step: who of these got one of the node's own, without ever being held there? */
static void ask_certain(struct gather *g)
{
    if (!all_good(g))
        return;
    json_t *best = chosen(g);
    leave_out(g, best);
    if (json_object_size(best)) {
        struct gather *next = gather_new(g->api, g->request, "passed", send_chosen);
        next->note = json_pack("{sO sO}", "best", best, "body", g->note);
        for (size_t i = 0; i < g->n; i++)
            ask_passed(next, &g->parts[i], best);
        gather_start(next, FLEET_ASK_MS);
    } else {
        none_needed(g, json_get_yes(g->note, "dry_run"));
    }
    json_decref(best);
}

static void one_each(struct api *api, struct http_request *r, const struct fellow *list, size_t n,
                     const char *storm, json_t *body)
{
    char path[32];
    snprintf(path, sizeof path, "needs/%s", storm);
    struct gather *g = gather_new(api, r, path, ask_certain);
    g->note = json_deep_copy(body);
    gather_add(g, NULL);
    for (size_t i = 0; i < n; i++)
        gather_add(g, &list[i]);
    gather_start(g, FLEET_ASK_MS);
}

/* ---- the request ---- */

static enum change_kind kind_of(const char *path)
{
    return strcmp(path, "release") == 0   ? CHANGE_RELEASE
           : strcmp(path, "discard") == 0 ? CHANGE_DISCARD
           : strcmp(path, "undo") == 0    ? CHANGE_UNDO
                                          : CHANGE_MODE;
}

/* Is it well made? Else the route itself says what is wrong. Fills storm if one copy each is asked
 * for. */
static bool well_made(const char *path, json_t *body, char storm[INCIDENT_TEXT])
{
    struct change *c = change_new(kind_of(path));
    bool good = !change_read(c, body);
    if (good && c->one_each)
        memcpy(storm, c->storm, INCIDENT_TEXT);
    change_free(&c);
    return good;
}

static void send_change(struct api *api, struct http_request *r, const char *path, json_t *body,
                        const struct fellow *list, size_t n, bool self)
{
    struct gather *g = gather_new(api, r, path, merge_change);
    if (json_object_get(body, "ids"))
        add_ids(g, list, n, self, body);
    else
        add_all(g, list, n, self, body);
    start(g, body);
}

static void send_word(struct api *api, struct http_request *r, const char *path, json_t *body,
                      const struct fellow *list, size_t n, bool self)
{
    struct gather *g = gather_new(api, r, path, merge_word);
    add_all(g, list, n, self, body);
    start(g, body);
}

bool fleet_change(struct api *api, struct http_request *r, enum api_scope scope, const char *path)
{
    struct fellow list[FELLOWS_MAX];
    json_t *given = http_body(r);
    const char *node = json_string_value(json_object_get(given, "node"));
    bool self, everywhere = json_get_yes(given, "everywhere");
    char storm[INCIDENT_TEXT] = "";
    size_t n;
    if (!fleet_whom(api, r, node, list, &n, &self))
        return true;
    json_t *body = body_without(given, "node");
    json_object_del(given, "node");
    if (scope == API_MODE) {
        json_object_del(body, "everywhere");
        json_object_del(given, "everywhere");
    }
    bool mine = !n || (scope == API_MODE && !everywhere && self) ||
                (scope != API_WORD && !well_made(path, body, storm));
    if (!mine && *storm && self)
        one_each(api, r, list, n, storm, body);
    else if (!mine && scope == API_CHANGE)
        send_change(api, r, path, body, list, n, self);
    else if (!mine)
        send_word(api, r, path, body, list, n, self);
    json_decref(body);
    return !mine;
}
