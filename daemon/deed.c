/* deed.c - see deed.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "deed.h"
#include "log.h"
#include "setfile.h"

/* ---- deeds ---- */

struct deed *deed_new(enum deed_kind kind)
{
    struct deed *d = calloc(1, sizeof *d);
    if (!d)
        abort();
    d->kind = kind;
    d->within = -1;
    d->status = 200;
    return d;
}

void deed_free(struct deed **place)
{
    struct deed *d = *place;
    *place = NULL;
    if (!d)
        return;
    free(d->who);
    free(d->why);
    free(d->text);
    free(d->path);
    free(d->part);
    free(d->files_text);
    free(d->domain);
    json_decref(d->files);
    json_decref(d->only);
    json_decref(d->findings);
    policy_free(&d->policy);
    policy_free(&d->trial);
    free(d);
}

__attribute__((format(printf, 3, 4))) void deed_refuse(struct deed *d, int status, const char *fmt,
                                                       ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(d->fault, sizeof d->fault, fmt, ap);
    va_end(ap);
    d->status = status;
}

/* ---- compiling ---- */

/* The directory of a file; NULL: it has none. */
static const char *directory_of(struct arena *a, const char *path)
{
    const char *slash = path && *path == '/' ? strrchr(path, '/') : NULL;
    return slash ? arena_str(a, span_of(path, (size_t)(slash - path))) : NULL;
}

/* With what is on the disk now; where that is no good, with what was stored. */
/* directory NULL: exactly as it was stored. */
static struct policy *compile_with(struct span text, const char *directory, const json_t *stored,
                                   struct policy_error *e)
{
    struct setfiles sets = {.directory = directory, .stored = stored};
    struct policy_source source = setfiles_source(&sets);
    struct policy *p = policy_load(text, &source, e);
    setfiles_clear(&sets);
    return p;
}

static bool lets_letters_pass(const struct policy *p)
{
    struct arena *a = arena_new();
    struct lint lint;
    lint_policy(a, p, span_of(NULL, 0), &lint);
    arena_free(&a);
    return lint.faults == 0;
}

struct policy *deed_policy_of_row(struct arena *a, const struct policy_row *row,
                                  struct policy_error *e)
{
    json_t *stored = json_loads(row->files, 0, NULL);
    const char *directory = json_object_size(stored) ? directory_of(a, row->origin) : NULL;
    struct policy_error now;
    struct policy *p = compile_with(row->text, NULL, stored, e);
    struct policy *fresh = directory ? compile_with(row->text, directory, stored, &now) : NULL;
    json_decref(stored);
    if (!directory || (!p && !fresh))
        return p;
    if (fresh && (!p || lets_letters_pass(fresh) || !lets_letters_pass(p))) {
        policy_free(&p);
        return fresh;
    }
    log_say(LOG_LEVEL_ERROR,
            "policy version %llu keeps its sets as they were stored: with the files as they are "
            "now it %s%.400s",
            (unsigned long long)row->number,
            fresh ? "would stop everybody's mail" : "is broken: ", fresh ? "" : now.text);
    policy_free(&fresh);
    return p;
}

/* -1: the database cannot be read; else *out, NULL after a sentence in why. */
int deed_policy(struct hold *hold, uint64_t number, struct policy **out, char why[400])
{
    struct arena *a = arena_new();
    struct policy_row row;
    struct policy_error e = {0};
    int rc = hold_policy_row(hold, a, number, &row);
    *out = rc == 1 ? deed_policy_of_row(a, &row, &e) : NULL;
    if (rc == 0)
        snprintf(why, 400, "it is not stored any more");
    else if (rc == 1 && !*out)
        policy_error_print(&e, "the rules", why, 400);
    arena_free(&a);
    return rc < 0 ? -1 : 0;
}

json_t *deed_finding_json(const struct lint_finding *f)
{
    json_t *j = json_object();
    json_object_set_new(j, "fault", json_boolean(f->fault));
    json_object_set_new(j, "line", json_integer((json_int_t)f->line));
    json_object_set_new(j, "rule", json_text_of(f->rule));
    json_object_set_new(j, "detail", json_text_of(f->detail));
    return j;
}

/* Of the file the rules are from, without its directories. */
static const char *file_name(const struct deed *d)
{
    const char *slash = d->path ? strrchr(d->path, '/') : NULL;
    return slash ? slash + 1 : d->path ? d->path : "the rules";
}

/* What is odd about the deed's rules; a fault refuses them, unless forced. */
void deed_look_over(struct deed *d)
{
    struct arena *a = arena_new();
    struct lint lint;
    lint_policy(a, d->policy, span_str(d->domain ? d->domain : ""), &lint);
    d->findings = json_array();
    for (size_t i = 0; i < lint.n; i++)
        json_array_append_new(d->findings, deed_finding_json(&lint.found[i]));
    if (lint.faults && !d->force)
        deed_refuse(d, 409, "%s:%u:1: rule %s: %s.", file_name(d), lint.found[0].line,
                    lint.found[0].rule, lint.found[0].detail);
    arena_free(&a);
}

void deed_compile(struct deed *d)
{
    struct policy_error e;
    struct setfiles sets = {.stored = d->files};
    struct policy_source source = setfiles_source(&sets);
    d->policy = policy_load(span_str(d->text), &source, &e);
    d->files_text = sets.read ? json_line(sets.read) : str_copy("{}");
    setfiles_clear(&sets);
    if (!d->policy && *e.file)
        deed_refuse(d, 400, "%s:%u: %s.", e.file, e.line, e.text);
    else if (!d->policy)
        deed_refuse(d, 400, "%s:%u:%u: %s.", file_name(d), e.line, e.column, e.text);
    else
        deed_look_over(d);
}

/* ---- parts of the mail ---- */

static bool is_listener(const struct deed_place *p, const char *name)
{
    for (size_t i = 0; i < p->nlisteners; i++)
        if (strcmp(p->listeners[i], name) == 0)
            return true;
    return false;
}

static bool is_domain(const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < n; i++)
        if ((uint8_t)name[i] <= 0x20 || name[i] == 0x7f || name[i] == '@')
            return false;
    return n > 0 && n <= 255;
}

/* One word of --only into the array. */
static void read_part(struct deed *d, const struct deed_place *p, const char *word, json_t *parts)
{
    if (strncmp(word, "node=", 5) == 0) {
        if (strcasecmp(word + 5, p->node) != 0)
            deed_refuse(
                d, 409,
                "This is node %s: a version is stored on each node by itself, so apply it at "
                "node %.60s.",
                p->node, word + 5);
    } else if (strncmp(word, "listener=", 9) == 0) {
        if (!is_listener(p, word + 9))
            deed_refuse(d, 404, "There is no listener %.60s.", word + 9);
        json_array_append_new(parts, json_string(word));
    } else if (strncmp(word, "domain=", 7) == 0 && is_domain(word + 7)) {
        char *lower = str_copy(word);
        for (char *c = lower; *c; c++)
            *c = (char)byte_lower((uint8_t)*c);
        json_array_append_new(parts, json_string(lower));
        free(lower);
    } else {
        deed_refuse(d, 400, "\"%.60s\" names no part: listener=NAME, domain=NAME or node=NAME.",
                    word);
    }
}

void deed_read_parts(struct deed *d, const struct deed_place *p)
{
    json_t *parts = json_array();
    size_t n = json_array_size(d->only), i = 0;
    if (n > VERSION_PARTS)
        deed_refuse(d, 400, "A version can be tried on %d parts at most.", VERSION_PARTS);
    while (d->status == 200 && i < n) {
        const char *word = json_string_value(json_array_get(d->only, i++));
        read_part(d, p, word ? word : "", parts);
    }
    d->part = json_array_size(parts) ? json_line(parts) : str_copy("");
    json_decref(parts);
}

/* The names of a kind in a stored part, into the array; how many. */
static size_t part_names(const json_t *parts, const char *kind, const char *out[VERSION_PARTS])
{
    size_t n = 0, length = strlen(kind);
    for (size_t i = 0; i < json_array_size(parts) && n < VERSION_PARTS; i++) {
        const char *word = json_string_value(json_array_get(parts, i));
        if (word && strncmp(word, kind, length) == 0)
            out[n++] = word + length;
    }
    return n;
}

/* Takes the policy's reference. */
void deed_set_trial(struct rules *rules, struct policy *policy, uint64_t number, const char *part)
{
    const char *listeners[VERSION_PARTS], *domains[VERSION_PARTS];
    json_t *parts = json_loads(part, 0, NULL);
    size_t nlisteners = part_names(parts, "listener=", listeners);
    size_t ndomains = part_names(parts, "domain=", domains);
    rules_set_trial(rules, policy, number, listeners, nlisteners, domains, ndomains);
    json_decref(parts);
}

/* ---- on the keeper thread: what is written down ---- */

static const char *reason_of(const struct deed *d)
{
    return d->why ? d->why : "";
}

__attribute__((format(printf, 3, 4))) static int audit(struct hold *hold, const struct deed *d,
                                                       const char *fmt, ...)
{
    char what[1200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return hold_audit(hold, d->now, d->who, what, reason_of(d));
}

static void about(struct deed *d, const struct policy_row *row)
{
    d->number = row->number;
    d->deadline = row->state == POLICY_UNCONFIRMED ? row->deadline : 0;
    snprintf(d->author, sizeof d->author, "%s", row->who);
    snprintf(d->reason, sizeof d->reason, "%s", row->why);
}

/* Is the deed's text already what this row says? */
static bool same_as(const struct deed *d, const struct policy_row *row)
{
    return span_eq(row->text, span_str(d->text)) && strcmp(row->part, d->part) == 0 &&
           strcmp(row->files, d->files_text) == 0;
}

/* Nothing is to be done because it is so already: the row it is so by. 1: so; 0; -1. */
static int already(struct hold *hold, struct arena *a, struct deed *d,
                   const struct policies_live *live)
{
    struct policy_row row;
    bool part = *d->part != '\0';
    uint64_t number = part ? live->part : live->whole;
    int rc = number && (part || !live->part) ? hold_policy_row(hold, a, number, &row) : 0;
    if (rc == 1 && !same_as(d, &row))
        return 0;
    if (rc == 1)
        about(d, &row);
    return rc;
}

/* Somebody else's change waits: nothing new before that is settled. */
static int refuse_waiting(struct hold *hold, struct arena *a, struct deed *d, uint64_t number)
{
    struct policy_row row;
    if (hold_policy_row(hold, a, number, &row) != 1)
        return -1;
    deed_refuse(d, 409,
                "Version %llu by %s is not confirmed yet: confirm it, or roll it back, first.",
                (unsigned long long)number, row.who);
    return 0;
}

static int end_live(struct hold *hold, const struct deed *d, uint64_t number,
                    enum policy_state state)
{
    return number ? hold_policy_end(hold, number, state, d->now, d->who, reason_of(d)) : 0;
}

int deed_store(struct hold *hold, struct deed *d, const struct policies_live *live)
{
    bool part = *d->part != '\0', waits = d->wait > 0;
    struct policy_row row = {
        .at = d->now,
        .who = d->who,
        .why = reason_of(d),
        .state = waits ? POLICY_UNCONFIRMED : POLICY_IN_FORCE,
        .part = d->part,
        .before = live->whole,
        .before_part = live->part,
        .deadline = waits ? d->now + d->wait : 0,
        .confirmed = waits ? 0 : d->now,
        .origin = d->path,
        .text = span_str(d->text),
        .files = d->files_text,
    };
    if ((!part && end_live(hold, d, live->whole, POLICY_REPLACED) < 0) ||
        end_live(hold, d, live->part, POLICY_REPLACED) < 0 || hold_policy_add(hold, &row) < 0)
        return -1;
    about(d, &row);
    d->changed = true;
    d->effect = part ? EFFECT_PART : EFFECT_WHOLE;
    d->in_force = part ? live->whole : row.number;
    return audit(hold, d, "policy apply version=%llu%s%.900s", (unsigned long long)row.number,
                 part ? " only=" : "", d->part);
}

int deed_look_at_file(struct hold *hold, const struct deed *d)
{
    return *d->look && !d->dry ? hold_setting_set(hold, DEED_SEEN, d->look) : 0;
}

static int run_apply(struct hold *hold, struct arena *a, struct deed *d)
{
    struct policies_live live;
    if (hold_policy_live(hold, &live) < 0)
        return -1;
    d->in_force = d->base = live.whole;
    int rc = already(hold, a, d, &live);
    if (rc < 0)
        return -1;
    if (rc == 1)
        return deed_look_at_file(hold, d);
    if (live.unconfirmed)
        return refuse_waiting(hold, a, d, live.unconfirmed);
    if (!d->dry)
        return deed_store(hold, d, &live) < 0 ? -1 : deed_look_at_file(hold, d);
    d->deadline = d->wait > 0 ? d->now + d->wait : 0;
    return 0;
}

/* The sets of what is in force, read again. */
static int refresh(struct hold *hold, struct deed *d, const struct policies_live *live)
{
    char why[400];
    policy_free(&d->policy);
    policy_free(&d->trial);
    if ((live->whole && deed_policy(hold, live->whole, &d->policy, why) < 0) ||
        (live->part && deed_policy(hold, live->part, &d->trial, why) < 0))
        return -1;
    d->in_force = live->whole;
    d->effect = EFFECT_REFRESH;
    return 0;
}

static int run_reload(struct hold *hold, struct arena *a, struct deed *d)
{
    char last[65];
    struct policies_live live;
    if (!d->policy || (hold_setting_get(hold, DEED_SEEN, last, sizeof last) == 0 &&
                       strcmp(last, d->look) == 0)) /* no other text than at the last look */
        return hold_policy_live(hold, &live) < 0 ? -1 : refresh(hold, d, &live);
    if (!d->odd)
        return run_apply(hold, a, d);
    d->status = 409; /* the sentence is there already */
    return 0;
}

static int run_confirm(struct hold *hold, struct arena *a, struct deed *d)
{
    struct policies_live live;
    struct policy_row row;
    if (hold_policy_live(hold, &live) < 0)
        return -1;
    d->in_force = live.whole;
    if (!live.unconfirmed) {
        deed_refuse(d, 409, "No version waits to be confirmed.");
        return 0;
    }
    if (hold_policy_row(hold, a, live.unconfirmed, &row) != 1)
        return -1;
    if (d->version && d->version != row.number)
        deed_refuse(d, 409, "Version %llu by %s is the one that waits to be confirmed.",
                    (unsigned long long)row.number, row.who);
    else if (d->second && strcmp(row.who, d->who) == 0)
        deed_refuse(
            d, 403,
            "Version %llu is your own (%s): the configuration wants somebody else to confirm "
            "it.",
            (unsigned long long)row.number, row.who);
    if (d->status != 200)
        return 0;
    about(d, &row);
    if (d->dry)
        return 0;
    d->changed = true;
    d->effect = EFFECT_CONFIRMED;
    d->deadline = 0;
    return hold_policy_confirm(hold, row.number, d->now, d->who, reason_of(d)) < 0
               ? -1
               : audit(hold, d, "policy confirm version=%llu", (unsigned long long)row.number);
}

/* The unconfirmed version goes, those before it come back. */
int deed_take_back(struct hold *hold, struct deed *d, const struct policy_row *row,
                   const char *verb)
{
    bool part = *row->part != '\0';
    about(d, row);
    d->deadline = 0;
    d->in_force = row->before;
    if (d->dry)
        return 0;
    d->changed = true;
    d->effect = EFFECT_BACK;
    if (end_live(hold, d, row->number, POLICY_REVERTED) < 0 ||
        (!part && row->before && hold_policy_revive(hold, row->before) < 0) ||
        (row->before_part && hold_policy_revive(hold, row->before_part) < 0))
        return -1;
    return audit(hold, d, "policy %s version=%llu", verb, (unsigned long long)row->number);
}

static int run_expire(struct hold *hold, struct arena *a, struct deed *d)
{
    struct policies_live live;
    struct policy_row row;
    if (hold_policy_live(hold, &live) < 0)
        return -1;
    if (live.unconfirmed != d->version) /* settled at the last moment */
        return 0;
    int rc = hold_policy_row(hold, a, live.unconfirmed, &row);
    return rc == 1 ? deed_take_back(hold, d, &row, "revert") : -1;
}

/* Back to a confirmed version by its number. */
static int return_to(struct hold *hold, struct arena *a, struct deed *d, uint64_t number,
                     const struct policies_live *live)
{
    struct policy_row row;
    char why[400];
    unsigned long long n = number;
    int rc = hold_policy_row(hold, a, number, &row);
    if (rc < 0)
        return -1;
    if (rc == 0)
        deed_refuse(d, 404, "There is no version %llu.", n);
    else if (*row.part)
        deed_refuse(d, 409, "Version %llu was for a part of the mail only: apply its text anew.",
                    n);
    else if (!row.confirmed)
        deed_refuse(d, 409, "Version %llu was never confirmed: apply its text anew.", n);
    else if (deed_policy(hold, number, &d->policy, why) < 0)
        return -1;
    else if (!d->policy)
        deed_refuse(d, 409, "Version %llu cannot be used by this program: %s.", n, why);
    if (d->status != 200)
        return 0;
    about(d, &row);
    d->deadline = 0;
    d->in_force = number;
    if (d->dry || (number == live->whole && !live->part))
        return 0;
    d->changed = true;
    d->effect = EFFECT_WHOLE;
    if ((number != live->whole && end_live(hold, d, live->whole, POLICY_REVERTED) < 0) ||
        end_live(hold, d, live->part, POLICY_REVERTED) < 0 || hold_policy_revive(hold, number) < 0)
        return -1;
    return audit(hold, d, "policy rollback version=%llu", n);
}

/* The version on a part goes; nothing else changes. */
static int end_part(struct hold *hold, struct deed *d, const struct policy_row *row)
{
    about(d, row);
    if (d->dry)
        return 0;
    d->changed = true;
    d->effect = EFFECT_NO_PART;
    return end_live(hold, d, row->number, POLICY_REVERTED) < 0
               ? -1
               : audit(hold, d, "policy rollback from=%llu", (unsigned long long)row->number);
}

static int run_rollback(struct hold *hold, struct arena *a, struct deed *d)
{
    struct policies_live live;
    struct policy_row row = {0};
    policy_free(&d->policy); /* of a run before this one */
    if (hold_policy_live(hold, &live) < 0)
        return -1;
    d->in_force = live.whole;
    uint64_t latest = live.unconfirmed ? live.unconfirmed : live.part ? live.part : live.whole;
    if (latest && hold_policy_row(hold, a, latest, &row) != 1)
        return -1;
    if (d->version)
        return return_to(hold, a, d, d->version, &live);
    if (live.unconfirmed)
        return deed_take_back(hold, d, &row, "rollback from");
    if (live.part)
        return end_part(hold, d, &row);
    if (row.before)
        return return_to(hold, a, d, row.before, &live);
    deed_refuse(d, 409, "There is no version before the one in force.");
    return 0;
}

int deed_run(struct hold *hold, struct job *job)
{
    static int (*const run[DEED_KINDS])(struct hold *, struct arena *, struct deed *) = {
        run_apply, run_confirm, run_rollback, run_reload, run_expire};
    struct deed *d = (struct deed *)job;
    struct arena *a = arena_new();
    d->status = 200; /* it may be the second run */
    d->effect = EFFECT_NONE;
    d->changed = false;
    d->number = 0;
    d->deadline = 0;
    int rc = run[d->kind](hold, a, d);
    arena_free(&a);
    return rc;
}
