/*
 * change.c - see change.h. Everything between submit and done happens on the keeper thread, inside
 * its transaction; so of two people who release one copy at once the second one is told so.
 */
#include <stdio.h>
#include <stdlib.h>

#include "change.h"
#include "hold_fellow.h"
#include "log.h"
#include "policy.h"

enum { IDS_MAX = 4096, LISTENER_MAX = 255, RULE_MAX = 64 };

static const char *const names[CHANGE_KINDS] = {"release", "discard", "undo", "mode"};

struct change *change_new(enum change_kind kind)
{
    struct change *c = calloc(1, sizeof *c);
    if (!c)
        abort();
    c->kind = kind;
    return c;
}

void change_free(struct change **c)
{
    if (!*c)
        return;
    json_decref((*c)->refused);
    free((*c)->who);
    free((*c)->why);
    free((*c)->ids);
    free((*c)->storm);
    free((*c)->rcpt);
    free((*c)->rule);
    free((*c)->only);
    free(*c);
    *c = NULL;
}

/* ---- copies by id ---- */

static bool may_change(enum change_kind kind, enum copy_state state)
{
    if (kind == CHANGE_UNDO)
        return state == COPY_RELEASING || state == COPY_DISCARDED;
    return state == COPY_HELD;
}

static int change_id(struct hold *hold, const struct change *c, uint64_t id)
{
    if (c->kind == CHANGE_RELEASE)
        return hold_release_id(hold, id, c->who, c->now);
    if (c->kind == CHANGE_DISCARD)
        return hold_discard_id(hold, id, c->who, c->why, c->now);
    return hold_undo_id(hold, id, c->now);
}

/* Why the copy is left as it is, and what to do. */
static char *why_not(struct arena *a, enum change_kind kind, const struct copy_row *row)
{
    const char *by = row->by && *row->by ? row->by : "somebody";
    switch (row->state) {
    case COPY_HELD:
        return arena_printf(a, "It is held: there is nothing to undo.");
    case COPY_RELEASING:
        return kind == CHANGE_UNDO ? arena_printf(a, "It is on its way already: too late to undo.")
                                   : arena_printf(a, "%s is releasing it already.", by);
    case COPY_RELEASED:
        return arena_printf(a, "It has been sent; %s released it.", by);
    case COPY_DISCARDED:
        return arena_printf(a, "%s has discarded it: undo that first.", by);
    default:
        return arena_printf(a, "It cannot be changed.");
    }
}

static void refuse(struct change *c, uint64_t id, const char *detail)
{
    char text[ID_TEXT];
    id_print(id, text);
    json_t *j = json_object();
    json_object_set_new(j, "id", json_string(text));
    json_object_set_new(j, "detail", json_text_of(detail));
    json_array_append_new(c->refused, j);
}

static int audit_id(struct hold *hold, const struct change *c, uint64_t id)
{
    char text[ID_TEXT], what[64];
    id_print(id, text);
    snprintf(what, sizeof what, "%s copy=%s", names[c->kind], text);
    return hold_audit(hold, c->now, c->who, what, c->why);
}

/* 1: changed (or would be), 0: refused, -1: error. */
static int run_id(struct hold *hold, struct change *c, uint64_t id)
{
    struct arena *a = arena_new();
    struct copy_row row = {0};
    int n = 0;
    if (hold_copy(hold, a, id, &row) < 0)
        refuse(c, id, "There is no such copy.");
    else if (!may_change(c->kind, row.state))
        refuse(c, id, why_not(a, c->kind, &row));
    else if (c->dry)
        n = 1;
    else if ((n = change_id(hold, c, id)) == 0) /* being sent at this moment, say */
        refuse(c, id, why_not(a, c->kind, &row));
    else if (n > 0 && audit_id(hold, c, id) < 0)
        n = -1;
    arena_free(&a);
    return n;
}

static int run_ids(struct hold *hold, struct change *c)
{
    int changed = 0;
    for (size_t i = 0; i < c->nids; i++) {
        int n = run_id(hold, c, c->ids[i]);
        if (n < 0)
            return -1;
        changed += n;
    }
    return changed;
}

/* ---- copies by storm or recipient ---- */

static bool has_passed(void *arg, const struct key *k, uint64_t rcpt)
{
    struct store *store = arg;
    return store->ops->passed(store, k, rcpt);
}

static int count_one(void *arg, const struct copy_row *row)
{
    (void)row;
    ++*(uint64_t *)arg;
    return 0;
}

/* Held copies that match; discarding leaves out those that may be the only ones. */
static int count_matching(struct hold *hold, const struct change *c, uint64_t *n)
{
    struct hold_filter f = {
        .incident = c->storm, .rcpt = c->rcpt, .state = COPY_HELD, .limit = SIZE_MAX};
    struct hold_figures figures;
    if (c->rcpt)
        return hold_each(hold, &f, count_one, n);
    if (hold_figures(hold, c->storm, &figures) < 0)
        return -1;
    *n = figures.copies[COPY_HELD];
    return 0;
}

static int change_matching(struct hold *hold, const struct change *c)
{
    const struct hold_filter f = {.incident = c->storm,
                                  .rcpt = c->rcpt,
                                  .rule = c->rule,
                                  .since = c->since,
                                  .first = c->first,
                                  .state = COPY_HELD};
    if (c->one_each)
        return hold_release_one_each(hold, c->storm, c->who, c->now, c->store ? has_passed : NULL,
                                     c->store, c->dry);
    if (c->kind == CHANGE_RELEASE)
        return hold_release_filter(hold, &f, c->who, c->now, c->dry);
    return hold_discard_filter(hold, &f, c->who, c->why, c->now, c->dry);
}

static int run_matching(struct hold *hold, struct change *c)
{
    char what[800];
    uint64_t matching = 0;
    if (c->kind == CHANGE_DISCARD && count_matching(hold, c, &matching) < 0)
        return -1;
    int n = change_matching(hold, c);
    c->left_out = n >= 0 && matching > (uint64_t)n ? matching - (uint64_t)n : 0;
    if (n <= 0 || c->dry)
        return n;
    snprintf(what, sizeof what, "%s%s%s%s%.512s%s%s%s%s copies=%d", names[c->kind],
             c->storm ? " storm=" : "", c->storm ? c->storm : "", c->rcpt ? " rcpt=" : "",
             c->rcpt ? c->rcpt : "", c->rule ? " rule=" : "", c->rule ? c->rule : "",
             c->first ? " first" : "", c->one_each ? " one_per_recipient" : "", n);
    return hold_audit(hold, c->now, c->who, what, c->why) < 0 ? -1 : n;
}

/* ---- the mode ---- */

const char *change_mode_name(enum mode mode)
{
    return mode == MODE_COUNT ? "same" : mode_name(mode);
}

/* The settings of all listeners are "mode", "mode_since" ...; of one, "mode.NAME" ... */
static int set_mode_setting(struct hold *hold, const struct change *c, const char *name,
                            const char *value)
{
    char full[LISTENER_MAX + 32];
    snprintf(full, sizeof full, "%s%s%s", name, c->only ? "." : "", c->only ? c->only : "");
    return hold_setting_set(hold, full, value);
}

static int run_mode(struct hold *hold, struct change *c)
{
    char before[32] = "unset", what[LISTENER_MAX + 96], now[32], name[LISTENER_MAX + 32];
    snprintf(name, sizeof name, "mode%s%s", c->only ? "." : "", c->only ? c->only : "");
    if (hold_setting_get(hold, name, before, sizeof before) < 0)
        snprintf(before, sizeof before, "%s", c->only ? "same" : "unset");
    snprintf(what, sizeof what, "mode%s%s %s -> %s", c->only ? " listener=" : "",
             c->only ? c->only : "", before, change_mode_name(c->mode));
    snprintf(now, sizeof now, "%lld", (long long)c->now);
    if (c->dry)
        return 1;
    if (set_mode_setting(hold, c, "mode", change_mode_name(c->mode)) < 0 ||
        set_mode_setting(hold, c, "mode_since", now) < 0 ||
        set_mode_setting(hold, c, "mode_by", c->who) < 0 ||
        set_mode_setting(hold, c, "mode_reason", c->why ? c->why : "") < 0)
        return -1;
    return hold_audit(hold, c->now, c->who, what, c->why) < 0 ? -1 : 1;
}

/* ---- the job ---- */

static int run(struct hold *hold, struct job *job)
{
    struct change *c = (struct change *)job;
    json_decref(c->refused); /* the keeper may have to run it twice */
    c->refused = json_array();
    int take = c->command && !c->dry ? hold_command_take(hold, c->command, c->who, c->now) : 1;
    c->repeated = take == 0;
    if (take <= 0)
        return take;
    if (c->kind == CHANGE_MODE)
        return run_mode(hold, c);
    return c->nids ? run_ids(hold, c) : run_matching(hold, c);
}

static void write_log(const struct change *c)
{
    struct logline l;
    log_begin(&l, LOG_LEVEL_NOTICE, "change", span_str(names[c->kind]));
    log_str(&l, "by", c->who);
    if (c->kind == CHANGE_MODE)
        log_str(&l, "mode", change_mode_name(c->mode));
    else
        log_num(&l, "copies", c->changed);
    log_str(&l, "listener", c->only);
    log_str(&l, "storm", c->storm);
    log_str(&l, "rcpt", c->rcpt);
    log_str(&l, "rule", c->rule);
    if (c->one_each)
        log_str(&l, "one-per-recipient", "yes");
    log_str(&l, "reason", c->why);
    log_end(&l);
}

static void done(struct job *job)
{
    struct change *c = (struct change *)job;
    c->changed = job->result;
    if (c->changed > 0 && !c->dry)
        write_log(c);
    c->done(c);
}

void change_submit(struct change *c, struct keeper *keeper, struct mailbox *home)
{
    c->job = (struct job){.run = run, .done = done, .home = home};
    keeper_submit(keeper, &c->job);
}

/* ---- as JSON ---- */

char *change_address(const char *text)
{
    if (!text)
        return NULL;
    struct span s = span_bare(span_trim(span_str(text)), '<', '>');
    char *bare = strndup((const char *)s.p, s.n);
    if (!bare)
        abort();
    return bare;
}

/* One member of a body into a change. NULL, or what is wrong. */
typedef const char *member_fn(struct change *, const json_t *);

static const char *read_ids(struct change *c, const json_t *v)
{
    size_t n = json_array_size(v);
    if (n == 0 || n > IDS_MAX)
        return "ids is an array of 1 to 4096 ids of copies.";
    if (!(c->ids = calloc(n, sizeof *c->ids)))
        abort();
    c->nids = n;
    for (size_t i = 0; i < n; i++) {
        const char *text = json_string_value(json_array_get(v, i));
        if (!text || !id_parse(&c->ids[i], span_str(text)))
            return "ids is an array of ids of copies: 13 letters or digits each.";
    }
    return NULL;
}

static const char *read_storm(struct change *c, const json_t *v)
{
    char id[INCIDENT_TEXT];
    const char *text = json_string_value(v);
    if (!text || !incident_parse(span_str(text), id))
        return "storm is a storm's id: S and 8 letters or digits.";
    c->storm = str_copy(id);
    return NULL;
}

static const char *read_rcpt(struct change *c, const json_t *v)
{
    const char *text = json_string_value(v);
    if (!text || !*text || strlen(text) > LIMIT_ADDRESS)
        return "rcpt is an address.";
    c->rcpt = change_address(text);
    return NULL;
}

static const char *read_rule(struct change *c, const json_t *v)
{
    const char *text = json_string_value(v);
    if (!text || !*text || strlen(text) > RULE_MAX)
        return "rule is the name of a rule.";
    c->rule = str_copy(text);
    return NULL;
}

static const char *read_since(struct change *c, const json_t *v)
{
    double seconds = json_number_value(v);
    if (!json_is_number(v) || !(seconds > 0 && seconds < 1e11))
        return "since is a time in seconds since 1970.";
    c->since = (int64_t)(seconds * 1000);
    return NULL;
}

static const char *read_first(struct change *c, const json_t *v)
{
    c->first = json_is_true(v);
    return json_is_boolean(v) ? NULL : "first is true or false.";
}

static const char *read_reason(struct change *c, const json_t *v)
{
    const char *text = json_string_value(v);
    if (!text || strlen(text) > JSON_REASON)
        return "reason is a text of at most 500 bytes.";
    c->why = str_copy(text);
    return NULL;
}

static const char *read_dry(struct change *c, const json_t *v)
{
    c->dry = json_is_true(v);
    return json_is_boolean(v) ? NULL : "dry_run is true or false.";
}

static const char *read_one_each(struct change *c, const json_t *v)
{
    c->one_each = json_is_true(v);
    return json_is_boolean(v) ? NULL : "one_per_recipient is true or false.";
}

/* Only there so that nobody sends a whole storm by leaving a word out; checked in scope_fault. */
static const char *read_all(struct change *c, const json_t *v)
{
    (void)c;
    return json_is_boolean(v) ? NULL : "all is true or false.";
}

static const char *read_mode(struct change *c, const json_t *v)
{
    const char *text = json_string_value(v);
    if (text && strcmp(text, "same") == 0) {
        c->mode = MODE_COUNT;
        return NULL;
    }
    return text && mode_find(text, &c->mode) ? NULL
                                             : "mode is one of monitor, enforce, bypass, same.";
}

static const char *read_only(struct change *c, const json_t *v)
{
    const char *text = json_string_value(v);
    if (!text || !*text || strlen(text) > LISTENER_MAX)
        return "only is the name of a listener.";
    c->only = str_copy(text);
    return NULL;
}

enum {
    FOR_RELEASE = 1 << CHANGE_RELEASE,
    FOR_DISCARD = 1 << CHANGE_DISCARD,
    FOR_UNDO = 1 << CHANGE_UNDO,
    FOR_MODE = 1 << CHANGE_MODE,
    FOR_ALL = FOR_RELEASE | FOR_DISCARD | FOR_UNDO | FOR_MODE,
};
static const struct {
    const char *name;
    int kinds;
    member_fn *read;
} members[] = {
    {"ids", FOR_RELEASE | FOR_DISCARD | FOR_UNDO, read_ids},
    {"storm", FOR_RELEASE | FOR_DISCARD, read_storm},
    {"rcpt", FOR_RELEASE | FOR_DISCARD, read_rcpt},
    {"rule", FOR_RELEASE, read_rule},
    {"since", FOR_RELEASE, read_since},
    {"first", FOR_RELEASE, read_first},
    {"one_per_recipient", FOR_RELEASE, read_one_each},
    {"all", FOR_RELEASE | FOR_DISCARD, read_all},
    {"mode", FOR_MODE, read_mode},
    {"only", FOR_MODE, read_only},
    {"reason", FOR_ALL, read_reason},
    {"dry_run", FOR_ALL, read_dry},
};

static const char *read_member(struct change *c, const char *name, const json_t *value)
{
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        if ((members[i].kinds >> c->kind & 1) && strcmp(members[i].name, name) == 0)
            return members[i].read(c, value);
    return "The body has a member that is not known here.";
}

/* Is it clear, and clear enough, which copies are meant? */
static const char *scope_fault(const struct change *c, const json_t *body)
{
    bool all = json_get_yes(body, "all");
    if (c->nids)
        return c->storm || c->rcpt || c->rule || c->since || c->first || c->one_each || all
                   ? "Give either ids, or a storm or recipient, not both."
                   : NULL;
    if (c->kind == CHANGE_UNDO)
        return "Say which copies: ids.";
    if (!c->storm && !c->rcpt && !c->rule)
        return c->kind == CHANGE_RELEASE ? "Say which copies: ids, storm, rcpt or rule."
                                         : "Say which copies: ids, storm or rcpt.";
    if (c->one_each && (c->rule || c->since || c->first))
        return "one_per_recipient goes with a storm and nothing else.";
    if (c->one_each && (!c->storm || c->rcpt || all))
        return "one_per_recipient goes with a storm and nothing else.";
    if (c->storm && !c->rcpt && !c->one_each && !all)
        return c->kind == CHANGE_RELEASE
                   ? "Say one_per_recipient or all: which copies of the storm are meant."
                   : "Say all: every held copy of the storm is meant.";
    return NULL;
}

const char *change_read(struct change *c, json_t *body)
{
    if (!body)
        return "A JSON object is wanted.";
    for (void *m = json_object_iter(body); m; m = json_object_iter_next(body, m)) {
        const char *fault = read_member(c, json_object_iter_key(m), json_object_iter_value(m));
        if (fault)
            return fault;
    }
    bool reason = c->why && *c->why;
    if (c->kind == CHANGE_MODE)
        return !json_object_get(body, "mode") ? "Say which mode: monitor, enforce or bypass."
               : c->mode == MODE_COUNT && !c->only
                   ? "same is for one listener: the mode that all others have."
               : reason ? NULL
                        : "A change of mode wants a reason.";
    if (c->kind == CHANGE_DISCARD && !reason)
        return "Discarding wants a reason.";
    return scope_fault(c, body);
}
