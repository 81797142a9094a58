/* versions_test.c - what puts a version of the policy in force, and what takes it back. */
#include <ftw.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "id.h"
#include "versions.h"

#define TAG(name) "rule " name " { when message.list do tag }\n"
#define MINUTE 60000

/* A daemon as far as versions know it. */
struct house {
    char dir[32];
    struct config *config;
    struct keeper *keeper;
    struct rulebook *book;
    struct versions *versions;
};

static int64_t now;
static int64_t at_now(void)
{
    return now;
}

static void write_file(const char *dir, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static struct config *read_config(struct house *h, const char *more)
{
    char text[1000], error[512], file[64];
    snprintf(
        text, sizeof text,
        "node { name = \"n1\" site_key = \"k\" }\nmilter main { socket = \"inet:1@127.0.0.1\" }\n"
        "milter second { socket = \"inet:2@127.0.0.1\" }\nhold { path = \".\" }\n"
        "control { socket = \"c\" }\n%s",
        more);
    snprintf(file, sizeof file, "%s/breakwater.conf", h->dir);
    struct config *c = config_parse(file, span_str(text), CONFIG_START, error);
    if (!c)
        fail_msg("%s", error);
    return c;
}

static void start_with(struct house *h, const char *more)
{
    char error[512];
    h->config = read_config(h, more);
    h->keeper = keeper_start(h->dir, error);
    assert_non_null(h->keeper);
    struct rules *first = rules_copy(NULL);
    h->versions = versions_start(h->config, h->keeper, first);
    h->book = rulebook_new(first);
    versions_use(h->versions, h->book, NULL);
}

static void start(struct house *h)
{
    start_with(h, "policy { file = \"policy.conf\" }\n");
}

static void stop(struct house *h)
{
    keeper_stop(&h->keeper);
    versions_free(&h->versions);
    rulebook_free(&h->book);
    config_drop(&h->config);
}

static int set_up(void **state)
{
    struct house *h = calloc(1, sizeof *h);
    strcpy(h->dir, "/tmp/versions.XXXXXX");
    assert_non_null(mkdtemp(h->dir));
    log_open("stderr", LOG_NOTHING);
    now = INT64_C(1700000000000);
    clock_set(at_now);
    write_file(h->dir, "policy.conf", TAG("one"));
    start(h);
    *state = h;
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st, (void)kind, (void)ftw;
    return remove(path);
}

static int tear_down(void **state)
{
    struct house *h = *state;
    if (h->keeper)
        stop(h);
    nftw(h->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    clock_set(NULL);
    free(h);
    return 0;
}

/* ---- deeds ---- */

static void done(struct deed *d)
{
    sem_post(d->arg);
}

/* Waits for it; the caller frees it. */
static struct deed *run(struct house *h, struct deed *d)
{
    sem_t ready;
    sem_init(&ready, 0, 0);
    d->now = now;
    d->done = done;
    d->arg = &ready;
    versions_submit(h->versions, d);
    while (sem_wait(&ready) < 0)
        ;
    sem_destroy(&ready);
    return d;
}

static struct deed *deed(enum deed_kind kind, const char *who)
{
    struct deed *d = deed_new(kind);
    d->who = strdup(who);
    d->why = strdup("a reason");
    return d;
}

static struct deed *apply_deed(const char *who, const char *text, const char *only)
{
    struct deed *d = deed(DEED_APPLY, who);
    d->text = strdup(text);
    if (only) {
        d->only = json_array();
        json_array_append_new(d->only, json_string(only));
    }
    return d;
}

/* Runs it; the status. */
static int end(struct house *h, struct deed *d)
{
    int status = run(h, d)->status;
    deed_free(&d);
    return status;
}

static int apply(struct house *h, const char *who, const char *text, const char *only)
{
    return end(h, apply_deed(who, text, only));
}

static int confirm(struct house *h, const char *who)
{
    return end(h, deed(DEED_CONFIRM, who));
}

static int rollback(struct house *h, uint64_t version)
{
    struct deed *d = deed(DEED_ROLLBACK, "bert");
    d->version = version;
    return end(h, d);
}

/* Everything the keeper has is done. */
static void barrier(struct house *h)
{
    (void)end(h, deed(DEED_CONFIRM, "nobody"));
}

/* ---- what judges ---- */

/* "one", "one/two" with two on trial: names of the first rules; of the book. */
static const char *judges(struct house *h)
{
    static char text[100];
    struct rules *r = rulebook_take(h->book);
    snprintf(text, sizeof text, "%s%s%s", policy_rule_name(r->policy, 0), r->trial ? "/" : "",
             r->trial ? policy_rule_name(r->trial, 0) : "");
    rules_drop(&r);
    return text;
}

/* The states of the versions from the first on: "in force,unconfirmed". */
static const char *states(struct house *h)
{
    static char text[400];
    char error[512];
    bool damaged;
    struct hold *view = hold_open(h->dir, false, &damaged, error);
    struct arena *a = arena_new();
    struct policy_row row;
    text[0] = '\0';
    for (uint64_t n = 1; hold_policy_row(view, a, n, &row) == 1; n++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", n > 1 ? "," : "",
                 policy_state_name(row.state));
    arena_free(&a);
    char problem[512];
    hold_close(&view);
    view = hold_open(h->dir, false, &damaged, error);
    if (hold_check(view, problem) != 0)
        fail_msg("%s", problem);
    hold_close(&view);
    return text;
}

#define IS(judging, rows)                                                                          \
    do {                                                                                           \
        assert_string_equal(judges(h), judging);                                                   \
        assert_string_equal(states(h), rows);                                                      \
    } while (0)

/* ---- the tests ---- */

static void the_first_version_is_the_file(void **state)
{
    struct house *h = *state;
    IS("one", "in force");
    stop(h);
    write_file(h->dir, "policy.conf", TAG("other")); /* nothing that a restart does by itself */
    start(h);
    IS("one", "in force");
}

static void it_comes_in_force_and_stays_when_confirmed(void **state)
{
    struct house *h = *state;
    struct deed *d = run(h, apply_deed("anna", TAG("two"), NULL));
    assert_int_equal(d->status, 200);
    assert_int_equal(d->number, 2);
    assert_int_equal(d->in_force, 2);
    assert_true(d->changed);
    assert_int_equal(d->deadline, now + 10 * MINUTE);
    deed_free(&d);
    IS("two", "replaced,unconfirmed");
    assert_int_equal(confirm(h, "anna"), 200);
    IS("two", "replaced,in force");
    versions_tick(h->versions, clock_mono() + 100 * MINUTE);
    barrier(h);
    IS("two", "replaced,in force");
    assert_int_equal(confirm(h, "anna"), 409);
}

static void nobody_confirms(void **state)
{
    struct house *h = *state;
    assert_int_equal(apply(h, "anna", TAG("two"), NULL), 200);
    versions_tick(h->versions, clock_mono() + 10 * MINUTE - 5000);
    barrier(h); /* a confirm by nobody counts, so begin anew */
    IS("two", "replaced,in force");
    assert_int_equal(apply(h, "anna", TAG("three"), NULL), 200);
    versions_tick(h->versions, clock_mono() + 10 * MINUTE + 5000);
    barrier(h);
    IS("two", "replaced,in force,reverted");
    assert_int_equal(apply(h, "anna", TAG("three"), NULL), 200); /* the next try is a new one */
    IS("three", "replaced,replaced,reverted,unconfirmed");
}

static void the_wall_clock_has_no_say_while_it_runs(void **state)
{
    struct house *h = *state;
    assert_int_equal(apply(h, "anna", TAG("two"), NULL), 200);
    now += 100 * MINUTE;
    versions_tick(h->versions, clock_mono());
    IS("two", "replaced,unconfirmed");
    now -= 200 * MINUTE;
    versions_tick(h->versions, clock_mono() + 11 * MINUTE);
    barrier(h);
    IS("one", "in force,reverted");
}

static void the_time_goes_on_over_a_restart(void **state)
{
    struct house *h = *state;
    struct versions_figures f;
    assert_int_equal(apply(h, "anna", TAG("two"), NULL), 200);
    stop(h);
    now += 4 * MINUTE;
    start(h);
    IS("two", "replaced,unconfirmed");
    versions_figures(h->versions, &f);
    assert_int_equal(f.unconfirmed, 2);
    assert_in_range(f.left, 6 * MINUTE - 5000, 6 * MINUTE);
    versions_tick(h->versions, clock_mono() + 6 * MINUTE);
    stop(h); /* what the keeper was asked it does */
    start(h);
    IS("one", "in force,reverted");
    assert_int_equal(apply(h, "anna", TAG("three"), NULL), 200);
    stop(h);
    now += 10 * MINUTE;
    start(h);
    IS("one", "in force,reverted,reverted");
    versions_figures(h->versions, &f);
    assert_int_equal(f.unconfirmed, 0);
}

static void a_clock_that_went_back_gives_no_more_time(void **state)
{
    struct house *h = *state;
    struct versions_figures f;
    assert_int_equal(apply(h, "anna", TAG("two"), NULL), 200);
    stop(h);
    now -= 1000 * MINUTE;
    start(h);
    versions_figures(h->versions, &f);
    assert_in_range(f.left, 10 * MINUTE - 5000, 10 * MINUTE);
}

static void one_waits_at_a_time(void **state)
{
    struct house *h = *state;
    assert_int_equal(apply(h, "anna", TAG("two"), NULL), 200);
    struct deed *d = run(h, apply_deed("bert", TAG("three"), NULL));
    assert_int_equal(d->status, 409);
    assert_non_null(strstr(d->fault, "Version 2 by anna is not confirmed yet"));
    deed_free(&d);
    assert_int_equal(apply(h, "bert", TAG("three"), "domain=x.example"), 409);
    d = run(h, apply_deed("anna", TAG("two"), NULL)); /* asked again: it is so already */
    assert_int_equal(d->status, 200);
    assert_int_equal(d->number, 2);
    assert_false(d->changed);
    deed_free(&d);
    IS("two", "replaced,unconfirmed");
}

static void two_at_once(void **state)
{
    struct house *h = *state;
    sem_t ready;
    struct deed *both[2] = {apply_deed("anna", TAG("two"), NULL),
                            apply_deed("bert", TAG("three"), NULL)};
    sem_init(&ready, 0, 0);
    for (int i = 0; i < 2; i++) {
        both[i]->now = now;
        both[i]->done = done;
        both[i]->arg = &ready;
        versions_submit(h->versions, both[i]);
    }
    for (int i = 0; i < 2; i++)
        while (sem_wait(&ready) < 0)
            ;
    assert_int_equal(both[0]->status, 200);
    assert_int_equal(both[1]->status, 409);
    for (int i = 0; i < 2; i++)
        deed_free(&both[i]);
    IS("two", "replaced,unconfirmed");
}

static void what_is_wrong_is_refused(void **state)
{
    struct house *h = *state;
    static const struct {
        const char *sentence, *text, *only;
        int status;
        const char *says;
    } t[] = {
        {"a mistake", "rule a {\n  when mesage.list do tag }", NULL, 400, "2:8: "},
        {"nothing", "", NULL, 400, "1:1: there is no rule"},
        {"everybody's mail", "rule a { when true do hold }", NULL, 409, "stop everybody's mail"},
        {"a strange part", TAG("two"), "main", 400, "names no part"},
        {"no name", TAG("two"), "domain=", 400, "names no part"},
        {"an address", TAG("two"), "domain=a@b.example", 400, "names no part"},
        {"an unknown listener", TAG("two"), "listener=third", 404, "no listener third"},
        {"another node", TAG("two"), "node=n2", 409, "This is node n1"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct deed *d = run(h, apply_deed("anna", t[i].text, t[i].only));
        if (d->status != t[i].status || !strstr(d->fault, t[i].says))
            fail_msg("%s: %d %s", t[i].sentence, d->status, d->fault);
        deed_free(&d);
    }
    IS("one", "in force");
    struct deed *d = apply_deed("anna", "rule a { when true do hold }", NULL);
    d->force = true;
    assert_int_equal(end(h, d), 200);
    IS("a", "replaced,unconfirmed");
}

static void dry_runs_change_nothing(void **state)
{
    struct house *h = *state;
    struct deed *d = apply_deed("anna", TAG("two"), NULL);
    d->dry = true;
    run(h, d);
    assert_int_equal(d->status, 200);
    assert_false(d->changed);
    assert_int_equal(d->deadline, now + 10 * MINUTE);
    deed_free(&d);
    IS("one", "in force");
    assert_int_equal(apply(h, "anna", TAG("two"), NULL), 200);
    d = deed(DEED_CONFIRM, "anna");
    d->dry = true;
    assert_int_equal(end(h, d), 200);
    d = deed(DEED_ROLLBACK, "anna");
    d->dry = true;
    run(h, d);
    assert_int_equal(d->in_force, 1);
    deed_free(&d);
    IS("two", "replaced,unconfirmed");
}

static void back_to_the_one_before_and_any_other(void **state)
{
    struct house *h = *state;
    static const char *const texts[] = {TAG("two"), TAG("three"), TAG("four")};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(apply(h, "anna", texts[i], NULL), 200);
        assert_int_equal(confirm(h, "bert"), 200);
    }
    IS("four", "replaced,replaced,replaced,in force");
    assert_int_equal(rollback(h, 0), 200);
    IS("three", "replaced,replaced,in force,reverted");
    assert_int_equal(rollback(h, 1), 200);
    IS("one", "in force,replaced,reverted,reverted");
    assert_int_equal(rollback(h, 0), 409); /* there is none before the first */
    assert_int_equal(rollback(h, 4), 200); /* it was confirmed once */
    IS("four", "reverted,replaced,reverted,in force");
    assert_int_equal(rollback(h, 4), 200); /* it is so already */
    assert_int_equal(rollback(h, 9), 404);
    assert_int_equal(apply(h, "anna", TAG("five"), NULL), 200);
    assert_int_equal(rollback(h, 0), 200); /* the unconfirmed one is taken back */
    IS("four", "reverted,replaced,reverted,in force,reverted");
    assert_int_equal(rollback(h, 5), 409); /* it was never confirmed */
    stop(h);
    start(h);
    IS("four", "reverted,replaced,reverted,in force,reverted");
}

static int add_many(struct hold *hold, struct job *job)
{
    (void)job;
    for (int i = 0; i < HOLD_POLICIES; i++) {
        struct policy_row row = {.state = POLICY_REVERTED, .text = SPAN(TAG("tried"))};
        if (hold_policy_add(hold, &row) < 0)
            return -1;
    }
    return 0;
}

static void added(struct job *job)
{
    (void)job;
}

/* However many were tried since: what may have to come back is kept. */
static void back_to_one_that_is_very_old(void **state)
{
    struct house *h = *state;
    struct job job = {.run = add_many, .done = added};
    struct deed *d;
    keeper_submit(h->keeper, &job);
    barrier(h);
    assert_int_equal(job.result, 0);
    assert_int_equal(apply(h, "anna", TAG("new"), NULL), 200);
    versions_tick(h->versions, clock_mono() + 11 * MINUTE);
    d = run(h, deed(DEED_CONFIRM, "nobody"));
    assert_int_equal(d->in_force, 1);
    deed_free(&d);
    assert_string_equal(judges(h), "one");
    stop(h);
    start(h);
    assert_string_equal(judges(h), "one");
    d = run(h, deed(DEED_CONFIRM, "nobody"));
    assert_int_equal(d->in_force, 1);
    deed_free(&d);
}

static void past_an_unconfirmed_one(void **state)
{
    struct house *h = *state;
    assert_int_equal(apply(h, "anna", TAG("two"), NULL), 200);
    assert_int_equal(confirm(h, "anna"), 200);
    assert_int_equal(apply(h, "anna", TAG("three"), NULL), 200);
    assert_int_equal(rollback(h, 1), 200);
    IS("one", "in force,replaced,reverted");
    versions_tick(h->versions, clock_mono() + 100 * MINUTE); /* nothing waits any more */
    barrier(h);
    IS("one", "in force,replaced,reverted");
}

static void a_second_person(void **state)
{
    struct house *h = *state;
    stop(h);
    start_with(h, "policy { file = \"policy.conf\" second_person = yes }\n");
    assert_int_equal(apply(h, "anna", TAG("two"), NULL), 200);
    struct deed *d = run(h, deed(DEED_CONFIRM, "anna"));
    assert_int_equal(d->status, 403);
    assert_non_null(strstr(d->fault, "somebody else"));
    deed_free(&d);
    IS("two", "replaced,unconfirmed");
    d = deed(DEED_CONFIRM, "bert");
    d->version = 3;
    assert_int_equal(end(h, d), 409); /* he looked at another one */
    d = deed(DEED_CONFIRM, "bert");
    d->version = 2;
    assert_int_equal(end(h, d), 200);
    IS("two", "replaced,in force");
}

static void without_confirmation(void **state)
{
    struct house *h = *state;
    stop(h);
    start_with(h, "policy { file = \"policy.conf\" confirm = 0s }\n");
    assert_int_equal(apply(h, "anna", TAG("two"), NULL), 200);
    IS("two", "replaced,in force");
    assert_int_equal(rollback(h, 1), 200);
    assert_int_equal(rollback(h, 2), 200);
    struct deed *d = apply_deed("anna", TAG("three"), NULL); /* this one time */
    d->within = MINUTE;
    assert_int_equal(end(h, d), 200);
    IS("three", "reverted,replaced,unconfirmed");
}

static void reload(struct house *);

/* The disk takes nothing, or everything again. */
static void disk_full(bool full)
{
    struct rlimit r;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &r), 0);
    signal(SIGXFSZ, SIG_IGN);
    r.rlim_cur = full ? 1 : r.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &r), 0);
}

static void it_is_reverted_though_the_disk_is_full(void **state)
{
    struct house *h = *state;
    assert_int_equal(apply(h, "anna", TAG("two"), NULL), 200);
    disk_full(true);
    assert_int_equal(apply(h, "anna", TAG("three"), NULL), 409); /* that is only read */
    versions_tick(h->versions, clock_mono() + 11 * MINUTE);
    assert_int_equal(confirm(h, "anna"), 503);
    reload(h); /* which only reads the rows */
    disk_full(false);
    IS("one", "replaced,unconfirmed");
    versions_tick(h->versions, clock_mono() + 12 * MINUTE); /* the disk is asked again */
    barrier(h);
    IS("one", "in force,reverted");
}

static sem_t hanging;

static int hang(struct hold *hold, struct job *job)
{
    (void)hold, (void)job;
    return sem_wait(&hanging);
}

static void hung(struct job *job)
{
    (void)job;
}

static void it_is_reverted_though_the_disk_hangs(void **state)
{
    struct house *h = *state;
    struct job job = {.run = hang, .done = hung};
    int64_t over = clock_mono() + 11 * MINUTE;
    sem_init(&hanging, 0, 0);
    assert_int_equal(apply(h, "anna", TAG("two"), NULL), 200);
    keeper_submit(h->keeper, &job);
    versions_tick(h->versions, over);
    assert_string_equal(judges(h), "two");
    versions_tick(h->versions, over + MINUTE);
    assert_string_equal(judges(h), "one");
    versions_tick(h->versions, over + 2 * MINUTE); /* nobody is asked twice */
    sem_post(&hanging);
    barrier(h);
    IS("one", "in force,reverted");
    sem_destroy(&hanging);
}

static void it_is_confirmed_after_all(void **state)
{
    struct house *h = *state;
    assert_int_equal(apply(h, "anna", TAG("two"), NULL), 200);
    disk_full(true);
    versions_tick(h->versions, clock_mono() + 11 * MINUTE);
    assert_int_equal(rollback(h, 0), 503);
    disk_full(false);
    assert_string_equal(judges(h), "one");
    assert_int_equal(confirm(h, "anna"), 200); /* what is written down decides */
    IS("two", "replaced,in force");
}

/* ---- on a part of the mail ---- */

static const struct policy *ruling(struct house *h, const char *listener, const char *domain)
{
    struct rules *r = rulebook_take(h->book);
    struct ruling out;
    rules_ruling(r, listener, &out);
    const struct policy *p = out.policy;
    for (size_t i = 0; i < out.ndomains; i++)
        if (span_eq(out.domains[i], span_str(domain)))
            p = out.trial;
    rules_drop(&r); /* the book keeps it */
    return p;
}

static void first_on_one_listener(void **state)
{
    struct house *h = *state;
    assert_int_equal(apply(h, "anna", TAG("two"), "listener=second"), 200);
    IS("one/two", "in force,unconfirmed");
    assert_string_equal(policy_rule_name(ruling(h, "main", ""), 0), "one");
    assert_string_equal(policy_rule_name(ruling(h, "second", ""), 0), "two");
    stop(h);
    start(h);
    IS("one/two", "in force,unconfirmed");
    assert_string_equal(policy_rule_name(ruling(h, "second", ""), 0), "two");
    assert_int_equal(confirm(h, "anna"), 200);
    IS("one/two", "in force,in force");
    assert_int_equal(apply(h, "anna", TAG("two"), NULL), 200); /* then everywhere */
    IS("two", "replaced,replaced,unconfirmed");
    versions_tick(h->versions, clock_mono() + 11 * MINUTE);
    barrier(h);
    IS("one/two", "in force,in force,reverted");
    assert_string_equal(policy_rule_name(ruling(h, "second", ""), 0), "two");
    assert_int_equal(rollback(h, 0), 200);
    IS("one", "in force,reverted,reverted");
    assert_int_equal(rollback(h, 2), 409); /* it was for a part only */
}

static void first_for_one_domain(void **state)
{
    struct house *h = *state;
    assert_int_equal(apply(h, "anna", TAG("two"), "domain=X.Example"), 200);
    assert_string_equal(policy_rule_name(ruling(h, "main", "x.example"), 0), "two");
    assert_string_equal(policy_rule_name(ruling(h, "main", "y.example"), 0), "one");
    versions_tick(h->versions, clock_mono() + 11 * MINUTE);
    barrier(h);
    IS("one", "in force,reverted");
}

static void another_part_takes_its_place(void **state)
{
    struct house *h = *state;
    assert_int_equal(apply(h, "anna", TAG("two"), "domain=x.example"), 200);
    assert_int_equal(confirm(h, "anna"), 200);
    assert_int_equal(apply(h, "anna", TAG("three"), "listener=main"), 200);
    IS("one/three", "in force,replaced,unconfirmed");
    versions_tick(h->versions, clock_mono() + 11 * MINUTE);
    barrier(h);
    IS("one/two", "in force,in force,reverted");
    assert_string_equal(policy_rule_name(ruling(h, "main", "x.example"), 0), "two");
}

static void this_node_is_everywhere(void **state)
{
    struct house *h = *state;
    assert_int_equal(apply(h, "anna", TAG("two"), "node=N1"), 200);
    IS("two", "replaced,unconfirmed");
}

/* ---- SIGHUP ---- */

static void reload(struct house *h)
{
    struct config *c = read_config(h, "policy { file = \"policy.conf\" }\n");
    versions_reload(h->versions, c);
    config_drop(&c);
    struct deed *d = deed(DEED_ROLLBACK, "nobody"); /* waits for the keeper, changes nothing */
    d->dry = true;
    (void)end(h, d);
}

static void a_changed_file_is_a_new_version(void **state)
{
    struct house *h = *state;
    reload(h);
    IS("one", "in force");
    write_file(h->dir, "policy.conf", TAG("two"));
    reload(h);
    IS("two", "replaced,unconfirmed");
    reload(h);
    IS("two", "replaced,unconfirmed");
    versions_tick(h->versions, clock_mono() + 11 * MINUTE);
    barrier(h);
    reload(h); /* the file is what it was at the last look: it stays reverted */
    IS("one", "in force,reverted");
    write_file(h->dir, "policy.conf", TAG("three"));
    reload(h);
    IS("three", "replaced,reverted,unconfirmed");
    write_file(h->dir, "policy.conf", TAG("four"));
    reload(h); /* not while another one waits, but later */
    IS("three", "replaced,reverted,unconfirmed");
    assert_int_equal(confirm(h, "anna"), 200);
    reload(h);
    IS("four", "replaced,reverted,replaced,unconfirmed");
}

static void a_file_that_would_stop_all_mail_is_left(void **state)
{
    struct house *h = *state;
    write_file(h->dir, "policy.conf", "rule a { when true do hold }");
    reload(h);
    IS("one", "in force");
}

static void what_people_applied_is_not_taken_again(void **state)
{
    struct house *h = *state;
    write_file(h->dir, "policy.conf", TAG("two"));
    struct deed *d = apply_deed("anna", TAG("two"), NULL);
    d->path = strdup(h->config->policy_file);
    assert_int_equal(end(h, d), 200);
    assert_int_equal(rollback(h, 0), 200);
    reload(h);
    IS("one", "in force,reverted");
}

/* ---- what is broken ---- */

static void without_its_file(void **state)
{
    struct house *h = *state;
    stop(h);
    write_file(h->dir, "policy.conf", "rule {");
    start(h);
    assert_non_null(h->config->policy_fault);
    IS("one", "in force");
    assert_true(versions_stored(h->dir));
    assert_false(versions_stored("/nonexistent"));
}

/* A job that spoils stored texts, as a newer program would. */
struct spoil {
    struct job job;
    sem_t done;
};

static int run_spoil(struct hold *hold, struct job *job)
{
    (void)job;
    struct policy_row row = {.at = now,
                             .who = "later",
                             .state = POLICY_IN_FORCE,
                             .confirmed = now,
                             .before = 1,
                             .text = SPAN("rule a { when new.fact do tag }")};
    return hold_policy_end(hold, 1, POLICY_REPLACED, now, "later", "") < 0
               ? -1
               : hold_policy_add(hold, &row);
}

static void spoil_done(struct job *job)
{
    sem_post(&((struct spoil *)job)->done);
}

static void a_version_of_another_program(void **state)
{
    struct house *h = *state;
    struct spoil s = {.job = {.run = run_spoil, .done = spoil_done}};
    sem_init(&s.done, 0, 0);
    keeper_submit(h->keeper, &s.job);
    while (sem_wait(&s.done) < 0)
        ;
    stop(h);
    start(h);
    IS("one", "replaced,in force"); /* the newest that can be used judges */
    assert_int_equal(rollback(h, 0), 200);
    IS("one", "in force,reverted");
    assert_int_equal(rollback(h, 2), 409);
}

/* Long enough for pages of its own. */
static char *padded(const char *text)
{
    enum { MORE = 100000 };
    char *out = malloc(strlen(text) + MORE + 1);
    assert_non_null(out);
    size_t n = (size_t)sprintf(out, "%s", text);
    for (size_t i = 0; i < MORE; i++)
        out[n + i] = i % 80 ? '#' : '\n';
    out[n + MORE] = '\0';
    return out;
}

static void versions_outlive_a_damaged_database(void **state)
{
    struct house *h = *state;
    struct keeper_figures f;
    char path[64], *text = padded(TAG("two"));
    assert_int_equal(apply(h, "anna", text, NULL), 200);
    assert_int_equal(confirm(h, "anna"), 200);
    assert_int_equal(apply(h, "anna", TAG("three"), "listener=main"), 200);
    stop(h);
    snprintf(path, sizeof path, "%s/hold.db", h->dir);
    FILE *file = fopen(path, "r+");
    assert_non_null(file);
    fseek(file, 100, SEEK_SET); /* where the names of the tables stand */
    for (int i = 0; i < 200; i++)
        fputc(0xff, file);
    fclose(file);
    start(h);
    keeper_figures(h->keeper, &f);
    assert_true(f.damaged);
    IS("two/three", "replaced,in force,unconfirmed");
    struct deed *d = run(h, apply_deed("anna", text, "listener=main"));
    assert_int_equal(d->status, 409);
    deed_free(&d);
    assert_int_equal(rollback(h, 0), 200);
    d = run(h, apply_deed("anna", text, NULL));
    assert_false(d->changed); /* byte for byte what is in force */
    assert_int_equal(d->number, 2);
    deed_free(&d);
    free(text);
}

static void built_in_rules_of_a_new_program(void **state)
{
    struct house *h = *state;
    stop(h);
    start_with(h, ""); /* no file named any more: the stored version stays */
    IS("one", "in force");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
        TEST(the_first_version_is_the_file),
        TEST(it_comes_in_force_and_stays_when_confirmed),
        TEST(nobody_confirms),
        TEST(the_wall_clock_has_no_say_while_it_runs),
        TEST(the_time_goes_on_over_a_restart),
        TEST(a_clock_that_went_back_gives_no_more_time),
        TEST(one_waits_at_a_time),
        TEST(two_at_once),
        TEST(what_is_wrong_is_refused),
        TEST(dry_runs_change_nothing),
        TEST(back_to_the_one_before_and_any_other),
        TEST(back_to_one_that_is_very_old),
        TEST(past_an_unconfirmed_one),
        TEST(a_second_person),
        TEST(without_confirmation),
        TEST(it_is_reverted_though_the_disk_is_full),
        TEST(it_is_reverted_though_the_disk_hangs),
        TEST(it_is_confirmed_after_all),
        TEST(first_on_one_listener),
        TEST(first_for_one_domain),
        TEST(another_part_takes_its_place),
        TEST(this_node_is_everywhere),
        TEST(a_changed_file_is_a_new_version),
        TEST(a_file_that_would_stop_all_mail_is_left),
        TEST(what_people_applied_is_not_taken_again),
        TEST(without_its_file),
        TEST(a_version_of_another_program),
        TEST(versions_outlive_a_damaged_database),
        TEST(built_in_rules_of_a_new_program),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
