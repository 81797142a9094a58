/*
 * api.c - see api.h.
 *
 * Here: status, changes, and the table of all routes; what reads is in api_read.c.
 *
 * One table. A parameter or member that a route does not know is refused, never ignored: a
 * misspelt "dry_run" must not release anything.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "api.h"
#include "api_figures.h"
#include "api_guard.h"
#include "api_ledger.h"
#include "api_own.h"
#include "api_policy.h"
#include "api_relays.h"
#include "api_undo.h"
#include "change.h"
#include "fleet.h"
#include "hold_fellow.h"
#include "log.h"
#include "recall.h"

static const char unreadable[] = "The hold database could not be read; the log says why.";

/* ---- status ---- */

static json_t *doors_json(const struct api *api)
{
    json_t *list = json_array();
    struct rules *rules = api->pipeline->rules ? rulebook_take(api->pipeline->rules) : NULL;
    for (size_t i = 0; i < api->config->nlisteners; i++) {
        const struct listener *l = &api->config->listeners[i];
        json_t *j = json_object();
        set(j, "name", json_text_of(l->name));
        set(j, "kind", json_string(l->kind == DOOR_MILTER ? "milter" : "smtp"));
        set(j, "address", json_text_of(l->socket));
        set(j, "mode",
            json_string(
                mode_name(rules ? rules_mode(rules, l->name) : pipeline_mode(api->pipeline))));
        json_array_append_new(list, j);
    }
    rules_drop(&rules);
    return list;
}

static json_t *mode_json(const struct api *api)
{
    char text[600];
    json_t *j = json_object();
    set(j, "mode", json_string(mode_name(pipeline_mode(api->pipeline))));
    bool known = hold_setting_get(api->view, "mode_since", text, sizeof text) == 0;
    set(j, "since", known ? json_time(strtoll(text, NULL, 10)) : json_null());
    known = hold_setting_get(api->view, "mode_by", text, sizeof text) == 0;
    set(j, "by", json_text_of(known ? text : NULL));
    known = hold_setting_get(api->view, "mode_reason", text, sizeof text) == 0;
    set(j, "reason", json_text_of(known ? text : NULL));
    set(j, "listeners", doors_json(api));
    return j;
}

static json_t *release_json(const struct api *api)
{
    struct release_figures f;
    release_figures(api->release, &f);
    json_t *j = json_object();
    set(j, "to", json_text_of(api->config->release_to));
    set_num(j, "sent", f.sent);
    set_num(j, "deferred", f.deferred);
    set_num(j, "attempts", f.attempts);
    set_num(j, "inflight", f.inflight);
    return j;
}

struct others_open {
    struct incidents *incidents;
    size_t n;
};

static void count_other(void *arg, const char *id)
{
    struct others_open *o = arg;
    o->n += !incidents_has(o->incidents, id);
}

/* Ours, and those that only other nodes see. */
static size_t storms_open(const struct api *api)
{
    struct incidents *incidents = api->pipeline->incidents;
    struct others_open o = {incidents, 0};
    int64_t now = clock_now();
    if (!incidents)
        return 0;
    if (api->pipeline->fellows && hold_fellow_latest(api->view, now - INCIDENT_OPEN_MS + 1,
                                                     INCIDENTS_DAEMON, count_other, &o) < 0)
        o.n = 0;
    return incidents_open(incidents, now) + o.n;
}

static void get_status(struct api *api, struct http_request *r, const char *arg)
{
    (void)arg;
    struct pipeline *p = api->pipeline;
    json_t *queue = queue_json(api, NULL);
    json_t *j = json_object();
    set(j, "version", json_string(BREAKWATER_VERSION));
    set(j, "now", json_time(clock_now()));
    set(j, "started", json_time(api->started));
    set(j, "mode", mode_json(api));
    set(j, "policy", api_policy_brief(p->versions));
    set(j, "guard", api_guard_brief(p->watch));
    set(j, "doors", doors_json(api));
    set_num(j, "sessions", api->workers ? workers_sessions(api->workers) : 0);
    set(j, "counters", p->figures ? api_figures_counters(p->figures) : json_null());
    set(j, "latency", p->figures ? api_figures_latency(p->figures, clock_now()) : json_null());
    set(j, "last_day", api_figures_last_day(p->days, api->view, clock_now()));
    set(j, "hold", queue ? queue : json_null());
    set(j, "keeper", api_figures_keeper(p->keeper));
    set_num(j, "journal_lost", p->journal ? journal_lost(p->journal) : 0);
    set(j, "store", api_figures_store(p->store));
    set(j, "memory", api_figures_recall(p->recall));
    set(j, "release", release_json(api));
    set(j, "relays", api_relays_count(p->relays));
    set(j, "ledger", api_ledger_count(p->ledger));
    set(j, "fleet", fleet_document(p->fleet));
    set_num(j, "storms_open", storms_open(api));
    http_reply(r, 200, j);
}

static void get_mode(struct api *api, struct http_request *r, const char *arg)
{
    (void)arg;
    http_reply(r, 200, mode_json(api));
}

static void get_guard(struct api *api, struct http_request *r, const char *arg)
{
    (void)arg;
    api_guard(api->pipeline->watch, api->pipeline->alarm, r);
}

/* ---- changes ---- */

struct asked {
    struct api *api;
    struct http_request *request;
};

static void mode_changed(struct pipeline *p, const struct change *c)
{
    if (c->only)
        pipeline_set_door_mode(p, c->only, c->mode);
    else
        pipeline_set_mode(p, c->mode);
}

static void changed(struct change *c)
{
    struct asked *asked = c->arg;
    struct http_request *r = asked->request;
    struct api *api = asked->api;
    free(asked);
    if (c->changed < 0) {
        http_problem(r, 503,
                     "The hold database did not take it; nothing was changed. "
                     "The log says why.");
        change_free(&c);
        return;
    }
    if (c->kind == CHANGE_MODE && !c->dry && !c->repeated)
        mode_changed(api->pipeline, c);
    if (c->kind == CHANGE_RELEASE && c->changed && !c->dry)
        release_kick(api->release);
    json_t *j = json_object();
    set_num(j, "asked", c->nids ? c->nids : (uint64_t)c->changed);
    set_num(j, "changed", (uint64_t)c->changed);
    set(j, "dry_run", json_boolean(c->dry));
    set(j, "refused", json_incref(c->refused));
    if (c->left_out)
        set_num(j, "left_out", c->left_out);
    if (c->repeated)
        set(j, "repeated", json_true());
    if (c->kind == CHANGE_MODE)
        set(j, "mode", json_string(change_mode_name(c->mode)));
    if (c->kind == CHANGE_MODE)
        set(j, "only", json_text_of(c->only));
    http_reply(r, 200, j);
    change_free(&c);
}

static void submit(struct api *api, struct http_request *r, struct change *c)
{
    struct asked *asked = malloc(sizeof *asked);
    if (!asked)
        abort();
    *asked = (struct asked){api, r};
    c->who = strdup(http_who(r));
    if (!c->who)
        abort();
    c->now = clock_now();
    c->command = http_command(r);
    c->store = api->pipeline->store;
    c->done = changed;
    c->arg = asked;
    change_submit(c, api->pipeline->keeper, api->home);
}

static bool is_listener(const struct config *config, const char *name)
{
    for (size_t i = 0; i < config->nlisteners; i++)
        if (strcmp(config->listeners[i].name, name) == 0)
            return true;
    return false;
}

/* Refuses what cannot work now, though the request is well made. false: answered. */
static bool feasible(struct api *api, struct http_request *r, const struct change *c)
{
    if (c->kind == CHANGE_RELEASE && !api->config->release_to) {
        http_problem(r, 409,
                     "Nothing can be released: the configuration does not say where to. Set "
                     "release { to = \"127.0.0.1:25\" } and restart.");
        return false;
    }
    if (c->only && (!api->pipeline->rules || !is_listener(api->config, c->only))) {
        http_problem(r, 404, "There is no listener %.64s.", c->only);
        return false;
    }
    if (!c->storm)
        return true;
    json_t *queue = queue_json(api, c->storm);
    bool known = queue && queue_size(queue) > 0;
    if (!queue)
        http_problem(r, 500, "%s", unreadable);
    else if (!known)
        http_problem(r, 404, "No copy of storm %s is in the hold queue.", c->storm);
    json_decref(queue);
    return known;
}

static void post_change(struct api *api, struct http_request *r, enum change_kind kind)
{
    struct change *c = change_new(kind);
    const char *fault = change_read(c, http_body(r));
    if (fault)
        http_problem(r, 400, "%s", fault);
    if (fault || !feasible(api, r, c)) {
        change_free(&c);
        return;
    }
    submit(api, r, c);
}

static void post_release(struct api *api, struct http_request *r, const char *arg)
{
    (void)arg;
    post_change(api, r, CHANGE_RELEASE);
}

static void post_discard(struct api *api, struct http_request *r, const char *arg)
{
    (void)arg;
    post_change(api, r, CHANGE_DISCARD);
}

static void post_undo(struct api *api, struct http_request *r, const char *arg)
{
    (void)arg;
    post_change(api, r, CHANGE_UNDO);
}

static void post_mode(struct api *api, struct http_request *r, const char *arg)
{
    (void)arg;
    post_change(api, r, CHANGE_MODE);
}

/* ---- relays ---- */

static void get_relays(struct api *api, struct http_request *r, const char *arg)
{
    (void)arg;
    if (api->pipeline->relays)
        api_relays_list(api->pipeline->relays, r);
    else
        http_problem(r, 404, "No relays are remembered here.");
}

static void post_undo_rule(struct api *api, struct http_request *r, const char *arg)
{
    (void)arg;
    api_undo_rule(api->pipeline, api->release, api->home, r);
}

static void post_relays(struct api *api, struct http_request *r, const char *arg)
{
    (void)arg;
    if (api->pipeline->relays)
        api_relays_word(api->pipeline->relays, api->pipeline->keeper, api->home, r);
    else
        http_problem(r, 404, "No relays are remembered here.");
}

/* ---- figures ---- */

static void get_balance(struct api *api, struct http_request *r, const char *arg)
{
    (void)arg;
    if (api->pipeline->figures)
        api_figures_balance(api->pipeline->figures, r);
    else
        http_problem(r, 404, "Nothing is counted here.");
}

static void get_report(struct api *api, struct http_request *r, const char *arg)
{
    (void)arg;
    if (api->pipeline->days)
        api_figures_report(api->pipeline->days, api->view, r);
    else
        http_problem(r, 404, "Nothing is counted here.");
}

/* ---- refusals, and what people decide for a while ---- */

static void get_refusals(struct api *api, struct http_request *r, const char *arg)
{
    (void)arg;
    api_refusals(api->view, r);
}

static void get_entries(struct api *api, struct http_request *r, const char *arg)
{
    (void)arg;
    api_entries(api->pipeline->rules, api->view, r);
}

static void post_entries(struct api *api, struct http_request *r, const char *arg)
{
    (void)arg;
    const struct pipeline *p = api->pipeline;
    api_entry_add(p->rules, p->keeper, api->home, api->config->node_number, r);
}

static void post_entry_end(struct api *api, struct http_request *r, const char *id)
{
    api_entry_end(api->pipeline->rules, api->pipeline->keeper, api->home, r, id);
}

static void any_policy(struct api *api, struct http_request *r, const char *arg)
{
    api_policy(api->pipeline->versions, api->view, api->home, r, arg);
}

/* ---- routes ---- */

static const char root[] = "/api/v1/";
enum { QUERY_MAX = 12, ARG_MAX = 64 };

/* path: below /api/v1/; '*' stands for one segment, given to the function. */
static const struct route {
    enum http_method method;
    const char *path;
    void (*run)(struct api *, struct http_request *, const char *arg);
    const char *query[QUERY_MAX]; /* NULL-ended */
    enum api_scope scope;
} routes[] = {
    {HTTP_GET, "status", get_status, {NULL}, API_ALONE},
    {HTTP_GET, "storms", get_storms, {"limit", "node", NULL}, API_ALONE},
    {HTTP_GET, "storms/*", get_storm, {"node", NULL}, API_STORM},
    {HTTP_GET,
     "held",
     get_held,
     {"storm", "rcpt", "sender", "state", "rule", "since", "after", "limit", "node", NULL},
     API_HELD},
    {HTTP_GET, "copies/*", get_copy, {"headers", "text", NULL}, API_COPY},
    {HTTP_GET, "copies/*/message", get_message, {NULL}, API_TEXT},
    {HTTP_GET,
     "messages",
     get_messages,
     {"tx", "rcpt", "from", "since", "queue_id", "node", NULL},
     API_MESSAGES},
    {HTTP_GET, "needs/*", get_needs, {NULL}, API_ALONE},
    {HTTP_POST, "passed", post_passed, {NULL}, API_ALONE},
    {HTTP_GET, "balance", get_balance, {"minutes", NULL}, API_ALONE},
    {HTTP_GET, "report", get_report, {"from", "until", NULL}, API_ALONE},
    {HTTP_GET, "mode", get_mode, {NULL}, API_ALONE},
    {HTTP_GET, "guard", get_guard, {NULL}, API_ALONE},
    {HTTP_GET, "relays", get_relays, {"all", NULL}, API_ALONE},
    {HTTP_GET,
     "refusals",
     get_refusals,
     {"rcpt", "from", "relay", "message_id", "since", "after", "limit", NULL},
     API_ALONE},
    {HTTP_GET, "entries", get_entries, {"all", NULL}, API_ALONE},
    {HTTP_POST, "entries", post_entries, {NULL}, API_ALONE},
    {HTTP_POST, "entries/*/end", post_entry_end, {NULL}, API_ALONE},
    {HTTP_POST, "relays", post_relays, {NULL}, API_WORD},
    {HTTP_POST, "release", post_release, {NULL}, API_CHANGE},
    {HTTP_POST, "discard", post_discard, {NULL}, API_CHANGE},
    {HTTP_POST, "undo", post_undo, {NULL}, API_CHANGE},
    {HTTP_POST, "undo-rule", post_undo_rule, {NULL}, API_ALONE},
    {HTTP_POST, "mode", post_mode, {NULL}, API_MODE},
    {HTTP_GET, "policy", any_policy, {NULL}, API_ALONE},
    {HTTP_GET, "policy/versions", any_policy, {"limit", "before", NULL}, API_ALONE},
    {HTTP_GET, "policy/versions/*", any_policy, {NULL}, API_ALONE},
    {HTTP_POST, "policy/apply", any_policy, {NULL}, API_ALONE},
    {HTTP_POST, "policy/confirm", any_policy, {NULL}, API_ALONE},
    {HTTP_POST, "policy/rollback", any_policy, {NULL}, API_ALONE},
};

/* Does path fit the pattern? Fills arg with what the star stands for: letters and digits only. */
static bool fits(const char *pattern, const char *path, char arg[ARG_MAX])
{
    arg[0] = '\0';
    for (; *pattern; pattern++) {
        if (*pattern != '*') {
            if (*pattern != *path++)
                return false;
            continue;
        }
        size_t n = strspn(path, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789");
        if (n == 0 || n >= ARG_MAX)
            return false;
        memcpy(arg, path, n);
        arg[n] = '\0';
        path += n;
    }
    return *path == '\0';
}

static void run_route(struct api *api, struct http_request *r, const struct route *route,
                      const char *arg)
{
    const char *strange = http_query_unknown(r, route->query);
    if (strange)
        http_problem(r, 400, "The parameter \"%.64s\" is not known here.", strange);
    else if (!api_fleet(api, r, route->scope, http_path(r) + sizeof root - 1, arg))
        route->run(api, r, arg);
}

void api_handle(void *api, struct http_request *r)
{
    char arg[ARG_MAX];
    const char *path = http_path(r), *allowed = NULL;
    if (strncmp(path, root, sizeof root - 1) != 0) {
        http_problem(r, 404, "Everything is below %s.", root);
        return;
    }
    path += sizeof root - 1;
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        if (!fits(routes[i].path, path, arg))
            continue;
        if (routes[i].method == http_method(r)) {
            run_route(api, r, &routes[i], arg);
            return;
        }
        bool get = routes[i].method == HTTP_GET;
        allowed = allowed ? "GET, POST" : get ? "GET" : "POST";
    }
    if (allowed)
        http_method_refused(r, allowed);
    else
        http_problem(r, 404, "There is no such thing below %s.", root);
}
