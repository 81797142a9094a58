/* api_undo.c - see api_undo.h. The release is a change like any other; then the memory. */
#include <stdlib.h>
#include <string.h>

#include "api_undo.h"
#include "change.h"
#include "log.h"
#include "recall.h"

struct undoing {
    struct pipeline *pipeline;
    struct release *release;
    struct http_request *request;
    bool keep; /* what was learned */
};

static void set(json_t *o, const char *name, json_t *value)
{
    json_object_set_new(o, name, value);
}

/* Does the policy in force, or the one on trial, have a rule of this name? */
static bool in_force(const struct pipeline *p, const char *rule)
{
    if (!p->rules)
        return false;
    struct rules *r = rulebook_take(p->rules);
    const struct policy *policies[] = {r->policy, r->trial};
    bool found = false;
    for (size_t k = 0; k < 2; k++)
        for (size_t i = 0; i < policy_rules(policies[k]); i++)
            found |= strcmp(policy_rule_name(policies[k], i), rule) == 0;
    rules_drop(&r);
    return found;
}

/* What was learned, as of before: its time, or why it stays as it is. */
static void unlearn(const struct undoing *u, const struct change *c, json_t *j)
{
    char error[512] = "it is kept, as was asked for";
    int64_t as_of = 0;
    if (!u->keep && !u->pipeline->recall)
        strcpy(error, "the store remembers nothing");
    else if (!u->keep && recall_learned(u->pipeline->recall, c->since, c->dry, &as_of, error) < 0)
        as_of = 0;
    set(j, "learned", as_of ? json_time(as_of) : json_null());
    set(j, "learned_detail", as_of ? json_null() : json_text_of(error));
    if (!as_of && !u->keep && !c->dry)
        log_say(LOG_LEVEL_ERROR, "undo of rule %s: what was learned stays as it is: %s", c->rule,
                error);
}

static void released(struct change *c)
{
    struct undoing *u = c->arg;
    if (c->changed < 0) {
        http_problem(u->request, 503,
                     "The hold database did not take it; nothing was changed. The log says why.");
    } else {
        json_t *j = json_object();
        if (c->changed && !c->dry)
            release_kick(u->release);
        set(j, "changed", json_integer(c->changed));
        set(j, "rule", json_text_of(c->rule));
        set(j, "since", json_time(c->since));
        set(j, "in_force", json_boolean(in_force(u->pipeline, c->rule)));
        unlearn(u, c, j);
        set(j, "dry_run", json_boolean(c->dry));
        http_reply(u->request, 200, j);
    }
    free(u);
    change_free(&c);
}

/* The body as a release; NULL after the answer. */
static struct change *read_body(struct http_request *r, bool *keep)
{
    json_t *body = json_deep_copy(http_body(r)), *member = json_object_get(body, "keep_learned");
    struct change *c = change_new(CHANGE_RELEASE);
    const char *fault =
        member && !json_is_boolean(member) ? "keep_learned is true or false." : NULL;
    *keep = json_is_true(member);
    json_object_del(body, "keep_learned");
    if (!fault)
        fault = change_read(c, body);
    if (!fault && (!c->rule || !c->since || c->nids || c->storm || c->rcpt))
        fault = "Say which rule, and since when: rule and since.";
    if (!fault && !(c->why && *c->why))
        fault = "To take a rule's work back wants a reason.";
    json_decref(body);
    if (!fault)
        return c;
    http_problem(r, 400, "%s", fault);
    change_free(&c);
    return NULL;
}

void api_undo_rule(struct pipeline *p, struct release *release, struct mailbox *home,
                   struct http_request *r)
{
    bool keep;
    struct change *c = read_body(r, &keep);
    if (!c)
        return;
    struct undoing *u = malloc(sizeof *u);
    if (!u || !(c->who = strdup(http_who(r))))
        abort();
    *u = (struct undoing){p, release, r, keep};
    c->now = clock_now();
    c->done = released;
    c->arg = u;
    change_submit(c, p->keeper, home);
}
