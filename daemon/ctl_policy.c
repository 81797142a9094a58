/*
 * ctl_policy.c - breakwaterctl policy: the rules in force, their versions, and how new ones come in
 * force. check needs no daemon.
 */
#include <stdlib.h>
#include <unistd.h>

#include "backtest.h"
#include "config.h"
#include "ctl.h"
#include "deed.h"
#include "id.h"
#include "linediff.h"
#include "lint.h"

/* ---- a file ---- */

struct file {
    const char *name; /* as it was given */
    const char *path; /* absolute */
    struct span text;
    json_t *files; /* what its sets hold */
    struct policy *policy;
    struct policy_error error; /* line 0: it could not be read */
};

/* false after filling in what is wrong. */
static bool read_file(const struct ctl *ctl, const char *name, struct file *f)
{
    char why[200];
    char *real = realpath(name, NULL);
    *f = (struct file){.name = print_text(ctl->arena, name, 200)};
    f->path = arena_str(ctl->arena, span_str(real ? real : name));
    free(real);
    if (!setfile_text(ctl->arena, f->path, &f->text, why)) {
        snprintf(f->error.text, sizeof f->error.text, "%s", why);
        return false;
    }
    const char *slash = strrchr(f->path, '/');
    struct setfiles sets = {.directory =
                                arena_str(ctl->arena, span_of(f->path, (size_t)(slash - f->path)))};
    struct policy_source source = setfiles_source(&sets);
    f->policy = policy_load(f->text, &source, &f->error);
    f->files = sets.read;
    return f->policy != NULL;
}

static void close_file(struct file *f)
{
    json_decref(f->files);
    policy_free(&f->policy);
}

static void complain_of(const struct file *f)
{
    char said[1000];
    policy_error_print(&f->error, f->name, said, sizeof said);
    if (f->error.line)
        fprintf(stderr, "%s\n", said);
    else
        fprintf(stderr, "breakwaterctl: %s\n", f->error.text);
}

/* ---- check ---- */

/* One of our own domains, if the configuration is given; "" if there is none. */
static bool own_domain(const struct ctl *ctl, const char **domain)
{
    char error[512];
    *domain = "";
    struct config *c = ctl->conf ? config_load(ctl->conf, CONFIG_READ, error) : NULL;
    if (ctl->conf && !c) {
        ctl_complain("%s", error);
        return false;
    }
    if (c && c->site.nown_domains)
        *domain = arena_str(ctl->arena, c->site.own_domains[0]);
    config_drop(&c);
    return true;
}

/* {"file","good","rules","line","column","detail","findings"} */
static void check_json(const struct file *f, const struct lint *l, bool good)
{
    json_t *j = json_object(), *list = json_array();
    json_object_set_new(j, "file", json_text_of(*f->error.file ? f->error.file : f->name));
    json_object_set_new(j, "good", json_boolean(good));
    json_object_set_new(j, "rules", json_integer((json_int_t)policy_rules(f->policy)));
    if (!f->policy) {
        json_object_set_new(j, "set_file",
                            *f->error.file ? json_text_of(f->error.file) : json_null());
        json_object_set_new(j, "line", json_integer((json_int_t)f->error.line));
        json_object_set_new(j, "column", json_integer((json_int_t)f->error.column));
        json_object_set_new(j, "detail", json_text_of(f->error.text));
    }
    for (size_t i = 0; i < l->n; i++)
        json_array_append_new(list, deed_finding_json(&l->found[i]));
    json_object_set_new(j, "findings", list);
    ctl_json(j);
    json_decref(j);
}

static void check_text(const struct ctl *ctl, const struct file *f, const struct lint *l)
{
    if (!f->policy) {
        complain_of(f);
        return;
    }
    for (size_t i = 0; i < l->n; i++)
        fprintf(stderr, "%s:%u:1: %srule %s: %s\n", f->name, l->found[i].line,
                l->found[i].fault ? "" : "warning: ", l->found[i].rule, l->found[i].detail);
    if (!l->faults)
        printf("%s: %s good%s.\n", f->name,
               print_some(ctl->arena, policy_rules(f->policy), "rule is", "rules are"),
               l->n ? ", but see the warnings" : "");
}

static int check(const struct ctl *ctl, const char *name)
{
    struct file f;
    struct lint lint = {0};
    const char *domain;
    if (!own_domain(ctl, &domain))
        return CTL_USAGE;
    bool good = read_file(ctl, name, &f);
    if (good)
        lint_policy(ctl->arena, f.policy, span_str(domain), &lint);
    good = good && !lint.faults && !(ctl->strict && lint.n);
    if (ctl->json)
        check_json(&f, &lint, good);
    else
        check_text(ctl, &f, &lint);
    close_file(&f);
    return good ? CTL_OK : CTL_REFUSED;
}

/* ---- looking ---- */

static int ask_for(const struct ctl *ctl, const char *path, struct ctl_reply *r)
{
    struct ctl_target t;
    ctl_target(&t, ctl->arena, path);
    return ctl_ask(ctl, &t, NULL, r);
}

/* A version's number as it is written; NULL: it is none. */
static bool is_version(const char *text)
{
    uint64_t n;
    return span_number(span_str(text), INT64_MAX, &n) && n > 0;
}

/* "version 6", "version 6, for domain=x.example only" */
static const char *named(const struct ctl *ctl, const json_t *v)
{
    const json_t *only = json_object_get(v, "only");
    const char *text =
        arena_printf(ctl->arena, "version %llu", (unsigned long long)json_get_num(v, "version"));
    for (size_t i = 0; i < json_array_size(only); i++)
        text = arena_printf(ctl->arena, "%s%s%s", text, i ? " and " : ", on ",
                            print_text(ctl->arena, json_string_value(json_array_get(only, i)), 64));
    return text;
}

static void print_live(const struct ctl *ctl, const json_t *v, const char *where)
{
    if (!json_is_object(v))
        return;
    printf("In force %s: %s, since %s, by %s%s%s\n", where, named(ctl, v), ctl_time(ctl, v, "at"),
           ctl_text(ctl, v, "by", 64), *json_get_str(v, "reason") ? ": " : "",
           *json_get_str(v, "reason") ? ctl_text(ctl, v, "reason", 200) : "");
}

static void print_state(const struct ctl *ctl, const json_t *j)
{
    const json_t *whole = json_object_get(j, "in_force");
    uint64_t judging = json_get_num(j, "judging"), waiting = json_get_num(j, "unconfirmed");
    print_live(ctl, whole, "everywhere");
    print_live(ctl, json_object_get(j, "trial"), "on a part of the mail");
    if (judging != json_get_num(whole, "version"))
        printf("%s: %s judges in its place; the log says why.\n",
               print_paint(ctl->arena, ctl->colour, PAINT_ALARM, "It cannot be used"),
               judging ? arena_printf(ctl->arena, "version %llu", (unsigned long long)judging)
                       : "a built-in or configured policy");
    if (waiting)
        printf("Version %llu waits to be confirmed%s: in %s it is reverted.\n",
               (unsigned long long)waiting,
               json_get_yes(j, "second_person") ? " by somebody else than its author" : "",
               print_span_of_time(ctl->arena, (int64_t)json_get_num(j, "seconds_left") * 1000));
}

static int state(const struct ctl *ctl)
{
    struct ctl_reply r;
    int rc = ask_for(ctl, "policy", &r);
    if (rc == CTL_OK && ctl->json)
        ctl_json(r.json);
    else if (rc == CTL_OK)
        print_state(ctl, r.json);
    ctl_reply_free(&r);
    return rc;
}

/* "in force", "reverted by bert: too many held" */
static const char *fate(const struct ctl *ctl, const json_t *v)
{
    const char *name = json_get_str(v, "state"), *by = json_get_str(v, "ended_by");
    if (strcmp(name, "unconfirmed") == 0)
        return arena_printf(ctl->arena, "unconfirmed, until %s", ctl_time(ctl, v, "deadline"));
    if (strcmp(name, "reverted") != 0 || !*by)
        return print_text(ctl->arena, name, 16);
    const char *why = json_get_str(v, "ended_reason");
    return arena_printf(ctl->arena, "reverted by %s%s%s", print_text(ctl->arena, by, 32),
                        *why ? ": " : "", *why ? print_text(ctl->arena, why, 60) : "");
}

static void print_history(const struct ctl *ctl, const json_t *list)
{
    static const char *const heads[] = {">VERSION", "WHEN",  "BY",     "CONFIRMED BY",
                                        "ON",       "STATE", "REASON", NULL};
    struct table t;
    table_begin(&t, ctl->arena, ctl->colour, heads);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i), *only = json_object_get(v, "only");
        const char *on = json_string_value(json_array_get(only, 0));
        struct cell *row = table_row(&t);
        row[0].text = ctl_count(ctl, v, "version");
        row[1].text = ctl_time(ctl, v, "at");
        row[2].text = ctl_text(ctl, v, "by", 32);
        row[3].text = ctl_text(ctl, v, "confirmed_by", 32);
        row[4].text = !on ? "all mail"
                      : json_array_size(only) > 1
                          ? arena_printf(ctl->arena, "%s +%zu", print_text(ctl->arena, on, 48),
                                         json_array_size(only) - 1)
                          : print_text(ctl->arena, on, 48);
        row[5].text = fate(ctl, v);
        row[5].paint = strncmp(row[5].text, "unconf", 6) == 0 ? PAINT_BOLD : PAINT_NONE;
        row[6].text = ctl_text(ctl, v, "reason", 60);
    }
    table_print(&t, stdout);
}

static int history(const struct ctl *ctl)
{
    struct ctl_target t;
    struct ctl_reply r;
    ctl_target(&t, ctl->arena, "policy/versions");
    ctl_query(&t, "limit", ctl->limit);
    int rc = ctl_ask(ctl, &t, NULL, &r);
    const json_t *list = json_object_get(r.json, "versions");
    if (rc == CTL_OK && ctl->json)
        ctl_json_each(list);
    else if (rc == CTL_OK)
        print_history(ctl, list);
    ctl_reply_free(&r);
    return rc;
}

/* A version with its text: a number, or NULL for the one in force. */
static int get_version(const struct ctl *ctl, const char *number, struct ctl_reply *r)
{
    if (!number) {
        int rc = ask_for(ctl, "policy", r);
        uint64_t n = json_get_num(json_object_get(r->json, "in_force"), "version");
        number = arena_printf(ctl->arena, "%llu", (unsigned long long)n);
        if (rc != CTL_OK)
            return rc;
        ctl_reply_free(r);
    } else if (!is_version(number)) {
        *r = (struct ctl_reply){0};
        ctl_complain("\"%s\" is not the number of a version", print_text(ctl->arena, number, 32));
        return CTL_USAGE;
    }
    return ask_for(ctl, arena_printf(ctl->arena, "policy/versions/%s", number), r);
}

/* Lines of somebody's text: what a terminal would obey becomes '?'. */
static void print_lines(const char *text)
{
    bool terminal = isatty(STDOUT_FILENO);
    for (; *text; text++) {
        bool obeyed = (uint8_t)*text < 0x20 && *text != '\n' && *text != '\t';
        putchar(terminal && (obeyed || *text == 0x7f) ? '?' : *text);
    }
}

static int show(const struct ctl *ctl, const char *number)
{
    struct ctl_reply r;
    int rc = get_version(ctl, number, &r);
    if (rc == CTL_OK && ctl->json)
        ctl_json(r.json);
    else if (rc == CTL_OK)
        print_lines(json_get_str(r.json, "text"));
    ctl_reply_free(&r);
    return rc;
}

/* ---- diff ---- */

static void print_diff(const struct ctl *ctl, const char *diff)
{
    if (ctl->json) {
        json_t *j = json_object();
        json_object_set_new(j, "diff", json_text_of(diff));
        ctl_json(j);
        json_decref(j);
    } else if (*diff) {
        print_lines(diff);
    } else {
        puts("There is no difference.");
    }
}

static void diff_texts(const struct ctl *ctl, const json_t *a, struct span b, const char *b_name)
{
    const char *text = json_get_str(a, "text");
    print_diff(ctl, linediff(ctl->arena, span_str(text), b, named(ctl, a), b_name));
}

/* What a file would change. */
static int diff_file(const struct ctl *ctl, const char *name)
{
    struct file f;
    struct ctl_reply r;
    if (!read_file(ctl, name, &f) && !f.text.p) {
        complain_of(&f);
        return CTL_REFUSED;
    }
    int rc = get_version(ctl, NULL, &r);
    if (rc == CTL_OK)
        diff_texts(ctl, r.json, f.text, f.name);
    ctl_reply_free(&r);
    close_file(&f);
    return rc;
}

/* From version a to b (NULL: the one in force). */
static int diff_versions(const struct ctl *ctl, const char *a, const char *b)
{
    struct ctl_reply from, to = {0};
    int rc = get_version(ctl, a, &from);
    if (rc == CTL_OK)
        rc = get_version(ctl, b, &to);
    if (rc == CTL_OK)
        diff_texts(ctl, from.json, span_str(json_get_str(to.json, "text")), named(ctl, to.json));
    ctl_reply_free(&from);
    ctl_reply_free(&to);
    return rc;
}

static int diff(const struct ctl *ctl, const char *a, const char *b)
{
    struct ctl_reply r;
    if (a && !b && !is_version(a))
        return diff_file(ctl, a);
    if (a)
        return diff_versions(ctl, a, b);
    int rc = get_version(ctl, NULL, &r);
    if (rc == CTL_OK)
        print_diff(ctl, json_get_str(r.json, "diff"));
    ctl_reply_free(&r);
    return rc;
}

/* ---- changes ---- */

static int post(const struct ctl *ctl, const char *verb, json_t *body, struct ctl_reply *r)
{
    struct ctl_target t;
    if (ctl->reason)
        json_object_set_new(body, "reason", json_text_of(ctl->reason));
    json_object_set_new(body, "dry_run", json_boolean(ctl->dry));
    ctl_target(&t, ctl->arena, arena_printf(ctl->arena, "policy/%s", verb));
    int rc = ctl_ask(ctl, &t, body, r);
    json_decref(body);
    if (rc == CTL_OK && ctl->json)
        ctl_json(r->json);
    return rc;
}

static bool has_reason(const struct ctl *ctl, const char *verb)
{
    if (ctl->reason && *ctl->reason)
        return true;
    ctl_complain("policy %s wants --reason \"...\": it is kept with the version", verb);
    return false;
}

/* Seconds of --confirm-within; 0: not given. false after a sentence. */
static bool confirm_seconds(const struct ctl *ctl, json_int_t *seconds)
{
    double ms;
    enum unit unit;
    size_t n = ctl->within ? quantity_read(span_str(ctl->within), &ms, &unit) : 0;
    *seconds = 0;
    if (!ctl->within)
        return true;
    if (n == 0 || ctl->within[n] || unit != UNIT_TIME || ms < 1000 ||
        ms > VERSION_WITHIN * 1000.0) {
        ctl_complain("--confirm-within wants a time from 1s to 7d, such as 10m");
        return false;
    }
    *seconds = (json_int_t)(ms / 1000);
    return true;
}

static json_t *apply_body(const struct ctl *ctl, const struct file *f, json_int_t within)
{
    json_t *body = json_object(), *only = json_array();
    for (size_t i = 0; i < ctl->nonly; i++)
        json_array_append_new(only, json_text_of(ctl->only[i]));
    json_object_set_new(body, "text", json_text(f->text));
    json_object_set_new(body, "path", json_text_of(f->path));
    if (f->files)
        json_object_set(body, "files", f->files);
    json_object_set_new(body, "only", only);
    if (within)
        json_object_set_new(body, "confirm_within", json_integer(within));
    json_object_set_new(body, "force", json_boolean(ctl->yes));
    return body;
}

/* What the mail of the last days says to it, where that may be read. */
static void print_hint(const struct ctl *ctl, const struct file *f)
{
    char error[512];
    const char *conf = ctl->conf ? ctl->conf : "/etc/breakwater/breakwater.conf";
    struct backtest b;
    struct config *c = config_load(conf, CONFIG_READ, error);
    if (!c)
        return;
    const struct backtest_asks asks = {.dir = c->hold_path,
                                       .policy = f->policy,
                                       .site = &c->site,
                                       .since = clock_now() - INT64_C(7) * 86400 * 1000};
    if (backtest_run(&asks, &b) == 0 && b.copies)
        printf("Of the mail of the last 7 days it %s.%s\n", backtest_sentence(&b, ctl->arena),
               b.changed ? " breakwaterctl backtest shows which." : "");
    backtest_free(&b);
    config_drop(&c);
}

static void print_applied(const struct ctl *ctl, const struct file *f, const json_t *j)
{
    const json_t *findings = json_object_get(j, "findings");
    const char *where = ctl->nonly ? "on that part of the mail" : "everywhere";
    uint64_t seconds = json_get_num(j, "seconds"), n = json_get_num(j, "version");
    for (size_t i = 0; i < json_array_size(findings); i++) {
        const json_t *x = json_array_get(findings, i);
        fprintf(stderr, "%s:%s:1: warning: rule %s: %s\n", f->name, ctl_count(ctl, x, "line"),
                ctl_text(ctl, x, "rule", 64), ctl_text(ctl, x, "detail", 0));
    }
    if (ctl->dry && !n) {
        print_lines(json_get_str(j, "diff"));
        print_hint(ctl, f);
        printf("It would be in force %s%s; nothing was changed.\n", where,
               seconds ? arena_printf(ctl->arena, ", to be confirmed within %s",
                                      print_span_of_time(ctl->arena, (int64_t)seconds * 1000))
                       : "");
    } else if (!json_get_yes(j, "changed")) {
        printf("Version %llu says just that; nothing was changed.\n", (unsigned long long)n);
    } else if (seconds) {
        printf("Version %llu is in force %s. In %s it is reverted, unless somebody says:\n"
               "  breakwaterctl policy confirm %llu\n",
               (unsigned long long)n, where,
               print_span_of_time(ctl->arena, (int64_t)seconds * 1000), (unsigned long long)n);
    } else {
        printf("Version %llu is in force %s.\n", (unsigned long long)n, where);
    }
}

static int apply(const struct ctl *ctl, const char *name)
{
    struct file f;
    struct ctl_reply r;
    json_int_t within;
    if (!has_reason(ctl, "apply") || !confirm_seconds(ctl, &within))
        return CTL_USAGE;
    if (!read_file(ctl, name, &f)) {
        complain_of(&f);
        close_file(&f);
        return CTL_REFUSED;
    }
    int rc = post(ctl, "apply", apply_body(ctl, &f, within), &r);
    if (rc == CTL_OK && !ctl->json)
        print_applied(ctl, &f, r.json);
    ctl_reply_free(&r);
    close_file(&f);
    return rc;
}

/* {"version":N} or {}; NULL after a sentence. */
static json_t *version_body(const struct ctl *ctl, const char *number)
{
    uint64_t n = 0;
    if (number && !(span_number(span_str(number), INT64_MAX, &n) && n)) {
        ctl_complain("\"%s\" is not the number of a version", print_text(ctl->arena, number, 32));
        return NULL;
    }
    json_t *body = json_object();
    if (n)
        json_object_set_new(body, "version", json_integer((json_int_t)n));
    return body;
}

static int confirm(const struct ctl *ctl, const char *number)
{
    struct ctl_reply r;
    json_t *body = version_body(ctl, number);
    if (!body)
        return CTL_USAGE;
    int rc = post(ctl, "confirm", body, &r);
    if (rc == CTL_OK && !ctl->json)
        printf("Version %s %s.\n", ctl_count(ctl, r.json, "version"),
               ctl->dry ? "would be confirmed; nothing was changed" : "is confirmed: it stays");
    ctl_reply_free(&r);
    return rc;
}

static int rollback(const struct ctl *ctl, const char *number)
{
    struct ctl_reply r;
    if (!has_reason(ctl, "rollback"))
        return CTL_USAGE;
    json_t *body = version_body(ctl, number);
    if (!body)
        return CTL_USAGE;
    int rc = post(ctl, "rollback", body, &r);
    const char *in_force = rc == CTL_OK ? ctl_count(ctl, r.json, "in_force") : "";
    if (rc == CTL_OK && !ctl->json && ctl->dry)
        printf("Version %s would be in force everywhere; nothing was changed.\n", in_force);
    else if (rc == CTL_OK && !ctl->json)
        printf(json_get_yes(r.json, "changed")
                   ? "Version %s is in force everywhere, at once and for good.\n"
                   : "Version %s is in force already; nothing was changed.\n",
               in_force);
    ctl_reply_free(&r);
    return rc;
}

/* ---- which of them ---- */

static int usage(void)
{
    ctl_complain("policy [check FILE | diff [FILE | A [B]] | apply FILE | confirm [VERSION] | "
                 "rollback [VERSION] | history | show [VERSION]]");
    return CTL_USAGE;
}

int ctl_policy(const struct ctl *ctl)
{
    static const struct {
        const char *name;
        size_t least, most; /* words behind it */
    } verbs[] = {{"check", 1, 1},    {"apply", 1, 1},   {"show", 0, 1}, {"confirm", 0, 1},
                 {"rollback", 0, 1}, {"history", 0, 0}, {"diff", 0, 2}};
    static int (*const run[])(const struct ctl *, const char *) = {check, apply, show, confirm,
                                                                   rollback};
    const char *verb = ctl->nargs ? ctl->args[0] : "", *a = ctl->nargs > 1 ? ctl->args[1] : NULL;
    size_t i = 0, n = sizeof verbs / sizeof *verbs;
    if (!ctl->nargs)
        return state(ctl);
    while (i < n && strcmp(verbs[i].name, verb) != 0)
        i++;
    if (i == n || ctl->nargs - 1 < verbs[i].least || ctl->nargs - 1 > verbs[i].most)
        return usage();
    if (strcmp(verb, "apply") != 0 && (ctl->nonly || ctl->within)) {
        ctl_complain("--only and --confirm-within go with policy apply");
        return CTL_USAGE;
    }
    if (strcmp(verb, "history") == 0)
        return history(ctl);
    if (strcmp(verb, "diff") == 0)
        return diff(ctl, a, ctl->nargs > 2 ? ctl->args[2] : NULL);
    return run[i](ctl, a);
}
