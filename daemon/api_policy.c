/* api_policy.c - see api_policy.h. */
#include <stdio.h>
#include <stdlib.h>

#include "api_policy.h"
#include "id.h"
#include "linediff.h"

enum { PAGE = 100, PAGE_MAX = 1000, PATH_LENGTH = 4096 };

static const char unreadable[] = "The hold database could not be read; the log says why.";

static void set(json_t *o, const char *name, json_t *value)
{
    json_object_set_new(o, name, value);
}

static json_t *number_or_null(uint64_t n)
{
    return n ? json_integer((json_int_t)n) : json_null();
}

/* ---- looking ---- */

/* Empty texts are none. */
static json_t *text_or_null(const char *s)
{
    return s && *s ? json_text_of(s) : json_null();
}

static json_t *row_json(const struct policy_row *row)
{
    json_t *j = json_object(), *only = *row->part ? json_loads(row->part, 0, NULL) : NULL;
    set(j, "version", json_integer((json_int_t)row->number));
    set(j, "state", json_string(policy_state_name(row->state)));
    set(j, "at", json_time(row->at));
    set(j, "by", json_text_of(row->who));
    set(j, "reason", text_or_null(row->why));
    set(j, "only", only ? only : json_array());
    set(j, "file", text_or_null(row->origin));
    set(j, "before", number_or_null(row->before));
    set(j, "deadline", row->state == POLICY_UNCONFIRMED ? json_time(row->deadline) : json_null());
    set(j, "confirmed", json_time(row->confirmed));
    set(j, "confirmed_by", text_or_null(row->confirmed_by));
    set(j, "confirmed_reason", text_or_null(row->confirmed_why));
    set(j, "ended", json_time(row->ended));
    set(j, "ended_by", text_or_null(row->ended_by));
    set(j, "ended_reason", text_or_null(row->ended_why));
    return j;
}

/* One version without its text; null: none. NULL: unreadable. */
static json_t *version_json(struct hold *view, uint64_t number)
{
    struct arena *a = arena_new();
    struct policy_row row;
    int rc = number ? hold_policy_row(view, a, number, &row) : 0;
    json_t *j = rc < 0 ? NULL : rc == 0 ? json_null() : row_json(&row);
    arena_free(&a);
    return j;
}

static json_t *seconds_left(const struct versions_figures *f)
{
    return f->unconfirmed ? json_integer((json_int_t)(f->left / 1000)) : json_null();
}

json_t *api_policy_brief(struct versions *v)
{
    struct versions_figures f;
    if (!v)
        return json_null();
    versions_figures(v, &f);
    json_t *j = json_object();
    set(j, "version", number_or_null(f.judging));
    set(j, "trial", number_or_null(f.judging_part));
    set(j, "unconfirmed", number_or_null(f.unconfirmed));
    set(j, "seconds_left", seconds_left(&f));
    return j;
}

static void get_state(struct versions *v, struct hold *view, struct http_request *r)
{
    struct policies_live live;
    struct versions_figures f;
    json_t *j = json_object();
    versions_figures(v, &f);
    bool readable = hold_policy_live(view, &live) == 0;
    json_t *whole = readable ? version_json(view, live.whole) : NULL;
    json_t *part = readable ? version_json(view, live.part) : NULL;
    bool good = whole && part;
    set(j, "in_force", whole ? whole : json_null());
    set(j, "trial", part ? part : json_null());
    set(j, "unconfirmed", number_or_null(f.unconfirmed));
    set(j, "seconds_left", seconds_left(&f));
    set(j, "judging", number_or_null(f.judging));
    set(j, "judging_trial", number_or_null(f.judging_part));
    set(j, "confirm", json_integer((json_int_t)(f.confirm / 1000)));
    set(j, "second_person", json_boolean(f.second_person));
    if (good) {
        http_reply(r, 200, j);
        return;
    }
    json_decref(j);
    http_problem(r, 500, "%s", unreadable);
}

static int add_row(void *list, const struct policy_row *row)
{
    json_array_append_new(list, row_json(row));
    return 0;
}

/* A number a request gives; what it is not given stays. false: refused. */
static bool query_number(struct http_request *r, const char *name, uint64_t most, uint64_t *n)
{
    const char *text = http_query(r, name);
    if (!text || (span_number(span_str(text), most, n) && *n > 0))
        return true;
    http_problem(r, 400, "%s is a number, 1 or more.", name);
    return false;
}

static void get_versions(struct hold *view, struct http_request *r)
{
    uint64_t limit = PAGE, before = 0;
    if (!query_number(r, "limit", PAGE_MAX, &limit) ||
        !query_number(r, "before", INT64_MAX, &before))
        return;
    json_t *list = json_array(), *j = json_object();
    int rc = hold_each_policy(view, before, limit, add_row, list);
    set(j, "versions", list);
    if (rc == 0) {
        http_reply(r, 200, j);
        return;
    }
    json_decref(j);
    http_problem(r, 500, "%s", unreadable);
}

/* What `text` changes of a version; "" if that one is not stored any more. */
static json_t *diff_json(struct hold *view, uint64_t from, struct span text, const char *name)
{
    struct arena *a = arena_new();
    struct policy_row row;
    const char *diff = "";
    if (from && hold_policy_row(view, a, from, &row) == 1)
        diff = linediff(a, row.text, text,
                        arena_printf(a, "version %llu", (unsigned long long)from), name);
    json_t *j = json_text_of(diff);
    arena_free(&a);
    return j;
}

static void get_version(struct hold *view, struct http_request *r, const char *arg)
{
    uint64_t n;
    struct policy_row row;
    if (!span_number(span_str(arg), INT64_MAX, &n) || n == 0) {
        http_problem(r, 404, "A version is a number.");
        return;
    }
    struct arena *a = arena_new();
    int rc = hold_policy_row(view, a, n, &row);
    if (rc == 1) {
        json_t *j = row_json(&row), *files = json_loads(row.files, 0, NULL);
        set(j, "text", json_text(row.text));
        set(j, "files", files ? files : json_object());
        set(j, "diff", diff_json(view, row.before, row.text, arena_printf(a, "version %s", arg)));
        http_reply(r, 200, j);
    } else if (rc == 0) {
        http_problem(r, 404, "There is no version %s.", arg);
    } else {
        http_problem(r, 500, "%s", unreadable);
    }
    arena_free(&a);
}

/* ---- changes ---- */

struct asked {
    struct hold *view;
    struct http_request *request;
};

static void answered(struct deed *d)
{
    struct asked *asked = d->arg;
    struct http_request *r = asked->request;
    if (d->status != 200) {
        http_problem(r, d->status, "%s", d->fault);
    } else {
        json_t *j = json_object();
        set(j, "version", number_or_null(d->number));
        set(j, "in_force", number_or_null(d->in_force));
        set(j, "changed", json_boolean(d->changed));
        set(j, "dry_run", json_boolean(d->dry));
        set(j, "deadline", json_time(d->deadline));
        if (d->kind == DEED_APPLY) {
            set(j, "findings", json_incref(d->findings));
            set(j, "seconds", json_integer((json_int_t)(d->deadline ? d->wait / 1000 : 0)));
            set(j, "diff",
                diff_json(asked->view, d->base, span_str(d->text), d->dry ? "new" : "this one"));
        }
        http_reply(r, 200, j);
    }
    free(asked);
    deed_free(&d);
}

/* One member of a body into a deed. NULL, or what is wrong. */
typedef const char *member_fn(struct deed *, const json_t *);

static const char *read_text(struct deed *d, const json_t *v)
{
    if (!json_is_string(v) || strlen(json_string_value(v)) != json_string_length(v))
        return "text is the policy, without NUL bytes.";
    d->text = str_copy(json_string_value(v));
    return NULL;
}

static const char *read_path(struct deed *d, const json_t *v)
{
    const char *text = json_string_value(v);
    if (!text || *text != '/' || strlen(text) >= PATH_LENGTH)
        return "path is the absolute path of the policy's file.";
    d->path = str_copy(text);
    return NULL;
}

static const char *read_files(struct deed *d, const json_t *v)
{
    const char *name;
    json_t *text;
    if (!json_is_object(v))
        return "files is an object: what each file of a set holds, by its path.";
    json_object_foreach((json_t *)(uintptr_t)v, name,
                        text) if (!json_is_string(text)) return "files is an object: what each "
                                                                "file of a set holds, by its path.";
    d->files = json_deep_copy(v);
    return NULL;
}

static const char *read_only(struct deed *d, const json_t *v)
{
    if (!json_is_array(v) || json_array_size(v) > VERSION_PARTS)
        return "only is an array of at most 32 texts: listener=NAME, domain=NAME or node=NAME.";
    for (size_t i = 0; i < json_array_size(v); i++)
        if (!json_is_string(json_array_get(v, i)))
            return "only is an array of texts: listener=NAME, domain=NAME or node=NAME.";
    d->only = json_deep_copy(v);
    return NULL;
}

static const char *read_within(struct deed *d, const json_t *v)
{
    json_int_t n = json_integer_value(v);
    if (!json_is_integer(v) || n < 1 || n > VERSION_WITHIN)
        return "confirm_within is a number of seconds from 1 to 604800.";
    d->within = n * 1000;
    return NULL;
}

static const char *read_force(struct deed *d, const json_t *v)
{
    d->force = json_is_true(v);
    return json_is_boolean(v) ? NULL : "force is true or false.";
}

static const char *read_version(struct deed *d, const json_t *v)
{
    if (!json_is_integer(v) || json_integer_value(v) < 1)
        return "version is a number, 1 or more.";
    d->version = (uint64_t)json_integer_value(v);
    return NULL;
}

static const char *read_reason(struct deed *d, const json_t *v)
{
    const char *text = json_string_value(v);
    if (!text || strlen(text) > VERSION_REASON)
        return "reason is a text of at most 500 bytes.";
    d->why = str_copy(text);
    return NULL;
}

static const char *read_dry(struct deed *d, const json_t *v)
{
    d->dry = json_is_true(v);
    return json_is_boolean(v) ? NULL : "dry_run is true or false.";
}

static const struct {
    const char *name;
    int kinds;
    member_fn *read;
} members[] = {
    {"text", 1 << DEED_APPLY, read_text},
    {"path", 1 << DEED_APPLY, read_path},
    {"files", 1 << DEED_APPLY, read_files},
    {"only", 1 << DEED_APPLY, read_only},
    {"confirm_within", 1 << DEED_APPLY, read_within},
    {"force", 1 << DEED_APPLY, read_force},
    {"version", 1 << DEED_CONFIRM | 1 << DEED_ROLLBACK, read_version},
    {"reason", 1 << DEED_APPLY | 1 << DEED_CONFIRM | 1 << DEED_ROLLBACK, read_reason},
    {"dry_run", 1 << DEED_APPLY | 1 << DEED_CONFIRM | 1 << DEED_ROLLBACK, read_dry},
};

static const char *read_member(struct deed *d, const char *name, const json_t *value)
{
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        if ((members[i].kinds >> d->kind & 1) && strcmp(members[i].name, name) == 0)
            return members[i].read(d, value);
    return "The body has a member that is not known here.";
}

/* Fills it in; NULL, or what is wrong. */
static const char *read_body(struct deed *d, json_t *body)
{
    if (!body)
        return "A JSON object is wanted.";
    for (void *m = json_object_iter(body); m; m = json_object_iter_next(body, m)) {
        const char *fault = read_member(d, json_object_iter_key(m), json_object_iter_value(m));
        if (fault)
            return fault;
    }
    bool reason = d->why && *d->why;
    if (d->kind == DEED_APPLY && !d->text)
        return "text is missing: the policy.";
    return reason || d->kind == DEED_CONFIRM ? NULL : "A change of the policy wants a reason.";
}

static void post(struct versions *v, struct hold *view, struct mailbox *home,
                 struct http_request *r, enum deed_kind kind)
{
    struct deed *d = deed_new(kind);
    const char *fault = read_body(d, http_body(r));
    struct asked *asked = malloc(sizeof *asked);
    if (!asked)
        abort();
    if (fault) {
        http_problem(r, 400, "%s", fault);
        free(asked);
        deed_free(&d);
        return;
    }
    *asked = (struct asked){view, r};
    d->who = str_copy(http_who(r));
    d->now = clock_now();
    d->home = home;
    d->done = answered;
    d->arg = asked;
    versions_submit(v, d);
}

void api_policy(struct versions *v, struct hold *view, struct mailbox *home, struct http_request *r,
                const char *arg)
{
    const char *last = strrchr(http_path(r), '/') + 1;
    if (!v)
        http_problem(r, 404, "No versions of the policy are kept here.");
    else if (*arg)
        get_version(view, r, arg);
    else if (strcmp(last, "policy") == 0)
        get_state(v, view, r);
    else if (strcmp(last, "versions") == 0)
        get_versions(view, r);
    else
        post(v, view, home, r,
             strcmp(last, "apply") == 0     ? DEED_APPLY
             : strcmp(last, "confirm") == 0 ? DEED_CONFIRM
                                            : DEED_ROLLBACK);
}
