/* ctl_backtest.c - breakwaterctl backtest: the question, and the answer in words and in JSON. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "backtest.h"
#include "config.h"
#include "ctl.h"
#include "ctl_backtest.h"
#include "setfile.h"

static const char usage[] =
    "usage: breakwaterctl backtest --policy FILE [--since 7d|DATE] [--until 1h|DATE]\n"
    "           [--conf FILE] [--dir DIR] [--examples N] [--json]\n";

struct question {
    bool json;
    const char *conf, *dir, *policy;
    int64_t since, until;
    size_t examples;
};

/* ---- progress, on a terminal ---- */

struct progress {
    bool audience;
    int64_t started, said; /* monotonic ms */
};

static void say_progress(void *arg, uint64_t done, uint64_t total)
{
    struct progress *p = arg;
    enum { WIDTH = 30 };
    int64_t now = clock_mono();
    if (!p->audience || now - p->said < 100 || !total)
        return;
    p->said = now;
    double part = (double)done / (double)total;
    char bar[WIDTH + 1];
    memset(bar, ' ', WIDTH);
    memset(bar, '#', (size_t)(part * WIDTH));
    bar[WIDTH] = '\0';
    fprintf(stderr, "\r\033[K[%s] %3.0f %% of %.1f MB", bar, 100 * part, (double)total / 1e6);
    if (part > 0.02 && now - p->started > 1000)
        fprintf(stderr, ", %.0f s left", (double)(now - p->started) / 1000 * (1 - part) / part);
    fflush(stderr);
}

/* ---- in words ---- */

static const char *word_text(struct arena *a, const struct backtest_word *w)
{
    return arena_printf(a, "%s%s%s%s", disposition_name(w->disposition), *w->rule ? " (" : "",
                        *w->rule ? print_text(a, w->rule, 64) : "", *w->rule ? ")" : "");
}

static const char *span_text(struct arena *a, struct span s, size_t max)
{
    return print_text(a, arena_str(a, s), max);
}

static void print_examples(struct arena *a, const struct backtest *b, enum backtest_kind kind,
                           bool colour)
{
    static const char *const heads[] = {"ID", "TIME", "FROM", "TO", "SUBJECT", "THEN", "NOW", NULL};
    struct table t;
    char id[ID_TEXT];
    table_begin(&t, a, colour, heads);
    for (size_t i = 0; i < b->nexamples[kind]; i++) {
        const struct backtest_example *e = &b->examples[kind][i];
        struct cell *row = table_row(&t);
        id_print(e->tx, id);
        row[0].text = arena_str(a, span_str(id));
        row[1].text = print_time(a, e->time);
        row[2].text = e->from.n ? span_text(a, e->from, 40) : "<>";
        row[3].text = span_text(a, e->rcpt, 40);
        row[4].text = span_text(a, e->subject, 40);
        row[5].text = word_text(a, &e->then);
        row[6].text = word_text(a, &e->now);
    }
    table_print(&t, stdout);
    putchar('\n');
}

static void print_new_mail(struct arena *a, const struct backtest *b, bool colour)
{
    if (b->kind[BACKTEST_HURT]) {
        puts(print_paint(
            a, colour, PAINT_ALARM,
            arena_printf(a,
                         "NEW MAIL! It would hold or reject %s whose recipients had no other; the "
                         "policy in force did not:",
                         print_some(a, b->kind[BACKTEST_HURT], "copy", "copies"))));
        print_examples(a, b, BACKTEST_HURT, colour);
    }
    if (b->kind[BACKTEST_DELAYED]) {
        puts(print_paint(
            a, colour, PAINT_ALARM,
            arena_printf(a, "It would throttle %s of new mail; the policy in force did not:",
                         print_some(a, b->kind[BACKTEST_DELAYED], "copy", "copies"))));
        print_examples(a, b, BACKTEST_DELAYED, colour);
    }
}

static void print_rules(struct arena *a, const struct backtest *b, bool colour)
{
    static const char *const heads[] = {"RULE",      ">COPIES", ">NEW MAIL", ">PASS", ">TAG",
                                        ">THROTTLE", ">HOLD",   ">REJECT",   NULL};
    struct table t;
    table_begin(&t, a, colour, heads);
    for (size_t i = 0; i < b->nrules; i++) {
        const struct backtest_rule *r = &b->rules[i];
        struct cell *row = table_row(&t);
        row[0].text = *r->name ? r->name : "(no rule)";
        row[1].text = print_count(a, r->copies);
        row[2].text = print_count(a, r->new_mail);
        for (unsigned d = 0; d < DISP_COUNT; d++)
            row[3 + d].text = r->now[d] ? print_count(a, r->now[d]) : "-";
    }
    table_print(&t, stdout);
    putchar('\n');
}

static void print_changes(struct arena *a, const struct backtest *b, bool colour)
{
    static const char *const heads[] = {">COPIES", "THEN", "NOW", "", NULL};
    static const char *const notes[BACKTEST_KINDS] = {"new mail!", "new mail", ""};
    struct table t;
    if (!b->changed) {
        puts("Every copy would be treated as it was.");
        return;
    }
    table_begin(&t, a, colour, heads);
    for (size_t i = 0; i < b->nchanges && i < 20; i++) {
        const struct backtest_change *c = &b->changes[i];
        struct cell *row = table_row(&t);
        row[0].text = print_count(a, c->copies);
        row[1].text = word_text(a, &c->then);
        row[2].text = word_text(a, &c->now);
        row[3] = (struct cell){notes[c->kind], PAINT_ALARM};
    }
    table_print(&t, stdout);
    if (b->nchanges > 20 || b->changes_left_out)
        puts("and more; --json lists them.");
    putchar('\n');
    if (b->nexamples[BACKTEST_OTHER])
        print_examples(a, b, BACKTEST_OTHER, colour);
}

static const char *const gap_names[GAP_COUNT] = {"old", "facts", "lost", "unjudged", "people"};

static const char *unknown_names(struct arena *a, const struct backtest *b)
{
    const char *names = "";
    for (unsigned i = 0; i < FACT_COUNT; i++)
        if (b->unknown >> i & 1)
            names = arena_printf(a, "%s%s%s", names, *names ? ", " : "", fact_table[i].name);
    return names;
}

static void print_gaps(struct arena *a, const struct backtest *b)
{
    const char *const words[GAP_COUNT] = {
        "recorded by a version that kept no facts",
        arena_printf(a, "recorded without what the policy asks for (%s)", unknown_names(a, b)),
        "in a part of the journal that is damaged",
        "not judged, or that did not get through and came again",
        "decided by people's entries, and would be again"};
    for (unsigned g = 0; g < GAP_COUNT; g++)
        if (b->gap[g])
            printf("Left out: %s %s.\n", print_some(a, b->gap[g], "copy", "copies"), words[g]);
}

static void answer_words(struct arena *a, const struct backtest *b, const struct question *q)
{
    bool colour = isatty(STDOUT_FILENO) && !getenv("NO_COLOR");
    print_new_mail(a, b, colour);
    if (b->copies)
        printf("%s: %s.\n", print_text(a, q->policy, 0), backtest_sentence(b, a));
    else
        puts(backtest_sentence(b, a));
    if (b->copies)
        printf("Compared: %s in %s, recorded from %s to %s.\n",
               print_some(a, b->copies, "copy", "copies"),
               print_some(a, b->transactions, "transaction", "transactions"),
               print_time(a, b->first), print_time(a, b->last));
    print_gaps(a, b);
    if (!b->copies)
        return;
    putchar('\n');
    print_rules(a, b, colour);
    print_changes(a, b, colour);
    puts("Each copy was judged with what was known of it then. What the new policy would have held "
         "or passed\nwould have changed what was counted after it; that is not played through.");
}

/* ---- in JSON ---- */

static void set_num(json_t *j, const char *name, uint64_t n)
{
    json_object_set_new(j, name, json_integer((json_int_t)n));
}

static json_t *dispositions(const uint64_t n[DISP_COUNT])
{
    json_t *j = json_object();
    for (unsigned d = 0; d < DISP_COUNT; d++)
        set_num(j, disposition_name((enum disposition)d), n[d]);
    return j;
}

static json_t *word_json(const struct backtest_word *w)
{
    json_t *j = json_object();
    json_object_set_new(j, "disposition", json_string(disposition_name(w->disposition)));
    json_object_set_new(j, "rule", *w->rule ? json_text_of(w->rule) : json_null());
    return j;
}

static const char *const kind_names[BACKTEST_KINDS] = {"hurt", "delayed", "other"};

static json_t *rules_json(const struct backtest *b)
{
    json_t *list = json_array();
    for (size_t i = 0; i < b->nrules; i++) {
        const struct backtest_rule *r = &b->rules[i];
        json_t *j = dispositions(r->now);
        json_object_set_new(j, "rule", *r->name ? json_text_of(r->name) : json_null());
        set_num(j, "copies", r->copies);
        set_num(j, "new_mail", r->new_mail);
        json_array_append_new(list, j);
    }
    return list;
}

static json_t *changes_json(const struct backtest *b)
{
    json_t *list = json_array();
    for (size_t i = 0; i < b->nchanges; i++) {
        const struct backtest_change *c = &b->changes[i];
        json_t *j = json_object();
        json_object_set_new(j, "kind", json_string(kind_names[c->kind]));
        json_object_set_new(j, "then", word_json(&c->then));
        json_object_set_new(j, "now", word_json(&c->now));
        set_num(j, "copies", c->copies);
        json_array_append_new(list, j);
    }
    return list;
}

static json_t *examples_json(const struct backtest *b)
{
    json_t *list = json_array();
    char id[ID_TEXT];
    for (unsigned k = 0; k < BACKTEST_KINDS; k++)
        for (size_t i = 0; i < b->nexamples[k]; i++) {
            const struct backtest_example *e = &b->examples[k][i];
            json_t *j = json_object();
            id_print(e->tx, id);
            json_object_set_new(j, "kind", json_string(kind_names[k]));
            json_object_set_new(j, "tx", json_string(id));
            json_object_set_new(j, "time", json_time(e->time));
            json_object_set_new(j, "sender", json_text(e->from));
            json_object_set_new(j, "rcpt", json_text(e->rcpt));
            json_object_set_new(j, "subject", json_text(e->subject));
            json_object_set_new(j, "then", word_json(&e->then));
            json_object_set_new(j, "now", word_json(&e->now));
            json_object_set_new(j, "reason", json_text_of(e->reason));
            json_array_append_new(list, j);
        }
    return list;
}

static json_t *gaps_json(struct arena *a, const struct backtest *b)
{
    json_t *j = json_object();
    for (unsigned g = 0; g < GAP_COUNT; g++)
        set_num(j, gap_names[g], b->gap[g]);
    json_object_set_new(j, "unknown_facts", json_string(unknown_names(a, b)));
    return j;
}

static void answer_json(struct arena *a, const struct backtest *b, const struct question *q)
{
    json_t *j = json_object();
    json_object_set_new(j, "policy", json_text_of(q->policy));
    json_object_set_new(j, "sentence", json_text_of(backtest_sentence(b, a)));
    json_object_set_new(j, "hurts", json_boolean(backtest_hurts(b)));
    set_num(j, "copies", b->copies);
    set_num(j, "transactions", b->transactions);
    json_object_set_new(j, "first", json_time(b->first));
    json_object_set_new(j, "last", json_time(b->last));
    json_object_set_new(j, "then", dispositions(b->then));
    json_object_set_new(j, "now", dispositions(b->now));
    set_num(j, "changed", b->changed);
    set_num(j, "held_again", b->held_again);
    set_num(j, "held_messages", b->held_messages);
    set_num(j, "held_new", b->held_new);
    for (unsigned k = 0; k < BACKTEST_KINDS; k++)
        set_num(j, kind_names[k], b->kind[k]);
    json_object_set_new(j, "left_out", gaps_json(a, b));
    json_object_set_new(j, "rules", rules_json(b));
    json_object_set_new(j, "changes", changes_json(b));
    json_object_set_new(j, "examples", examples_json(b));
    ctl_json(j);
    json_decref(j);
}

/* ---- the question ---- */

/* NULL after a complaint. Relative names of sets start where the file is. */
static struct policy *load_policy(struct arena *a, const char *path)
{
    enum { MOST = 1 << 20 };
    char *text = arena_alloc(a, MOST);
    FILE *f = fopen(path, "rb");
    if (!f) {
        ctl_complain("%s: %s", path, strerror(errno));
        return NULL;
    }
    size_t n = fread(text, 1, MOST, f), slash = span_rfind(span_str(path), '/');
    fclose(f);
    char said[1000];
    struct policy_error error;
    struct setfiles files = {
        .directory = slash < strlen(path) ? arena_str(a, span_of(path, slash + 1)) : "."};
    struct policy_source source = setfiles_source(&files);
    struct policy *p = policy_load(span_of(text, n), &source, &error);
    setfiles_clear(&files);
    if (p)
        return p;
    policy_error_print(&error, path, said, sizeof said);
    fprintf(stderr, "%s\n", said);
    return NULL;
}

static int ask(struct arena *a, const struct question *q, const struct config *c,
               const struct policy *policy)
{
    struct backtest b;
    struct progress progress = {.audience =
                                    isatty(STDERR_FILENO) && !(q->json && isatty(STDOUT_FILENO)),
                                .started = clock_mono()};
    const struct backtest_asks asks = {.dir = q->dir ? q->dir : c->hold_path,
                                       .policy = policy,
                                       .site = &c->site,
                                       .since = q->since,
                                       .until = q->until,
                                       .examples = q->examples,
                                       .progress = say_progress,
                                       .arg = &progress};
    int rc = backtest_run(&asks, &b), error = errno;
    if (progress.said)
        fputs("\r\033[K", stderr);
    if (rc)
        ctl_complain("the journal in %s cannot be read: %s%s", asks.dir, strerror(error),
                     error == EACCES || error == EPERM
                         ? "; ask as the user breakwaterd runs as, or as root"
                         : "");
    else if (q->json)
        answer_json(a, &b, q);
    else
        answer_words(a, &b, q);
    rc = rc || backtest_hurts(&b) || !b.copies ? CTL_REFUSED : CTL_OK;
    backtest_free(&b);
    return rc;
}

/* Without --conf: the usual one, if it is there. */
static struct config *load_config(const char *conf)
{
    static const char usual[] = "/etc/breakwater/breakwater.conf";
    char error[512];
    if (!conf && access(usual, F_OK))
        return config_builtin();
    struct config *c = config_load(conf ? conf : usual, CONFIG_READ, error);
    if (!c)
        ctl_complain("%s", error);
    return c;
}

/* An age or a date, as ms; -1: neither, after a complaint. */
static int64_t moment(struct arena *a, const char *option, const char *text)
{
    const struct ctl ctl = {.arena = a, .since = text};
    const char *seconds = ctl_since(&ctl);
    if (seconds)
        return (int64_t)strtoll(seconds, NULL, 10) * 1000;
    ctl_complain("backtest: %s wants an age (90m, 2h, 3d) or a date (2026-11-20, "
                 "\"2026-11-20 10:00\")",
                 option);
    return -1;
}

/* One option; false: its value makes no sense. */
static bool take_option(struct arena *a, struct question *q, int o)
{
    uint64_t n;
    switch (o) {
    case 'j':
        q->json = true;
        return true;
    case 'f':
        q->conf = optarg;
        return true;
    case 'd':
        q->dir = optarg;
        return true;
    case 'p':
        q->policy = optarg;
        return true;
    case 'S':
        return (q->since = moment(a, "--since", optarg)) >= 0;
    case 'U':
        return (q->until = moment(a, "--until", optarg)) >= 0;
    case 'x':
        if (!span_number(span_str(optarg), BACKTEST_EXAMPLES, &n)) {
            ctl_complain("backtest: --examples wants a number, 0 to %d", BACKTEST_EXAMPLES);
            return false;
        }
        q->examples = (size_t)n;
        return true;
    default:
        return false;
    }
}

static int run(struct arena *a, int argc, char **argv, struct question *q)
{
    static const struct option options[] = {{"json", no_argument, NULL, 'j'},
                                            {"conf", required_argument, NULL, 'f'},
                                            {"dir", required_argument, NULL, 'd'},
                                            {"policy", required_argument, NULL, 'p'},
                                            {"since", required_argument, NULL, 'S'},
                                            {"until", required_argument, NULL, 'U'},
                                            {"examples", required_argument, NULL, 'x'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    int o;
    optind = 0;
    while ((o = getopt_long(argc, argv, "jf:p:h", options, NULL)) != -1)
        if (!take_option(a, q, o)) {
            fputs(usage, o == 'h' ? stdout : stderr);
            return o == 'h' ? CTL_OK : CTL_USAGE;
        }
    if (optind != argc || !q->policy) {
        fputs(usage, stderr);
        return CTL_USAGE;
    }
    struct policy *policy = load_policy(a, q->policy);
    struct config *c = policy ? load_config(q->conf) : NULL;
    int rc = c ? ask(a, q, c, policy) : CTL_REFUSED;
    config_drop(&c);
    policy_free(&policy);
    return rc;
}

int backtest_main(int argc, char **argv, bool json, const char *conf)
{
    struct arena *a = arena_new();
    struct question q = {.json = json,
                         .conf = conf,
                         .examples = 5,
                         .since = clock_now() - INT64_C(7) * 86400 * 1000};
    int rc = run(a, argc, argv, &q);
    arena_free(&a);
    return rc;
}
