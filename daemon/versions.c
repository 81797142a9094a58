/*
 * versions.c - see versions.h. What is written down decides: a deed looks at the rows on the keeper
 * thread, so of two that come at once the second one sees the first.
 *
 * Only one thing does not wait for the disk: when the time of an unconfirmed version is over, the
 * rules before it come back even if the disk refuses to write that down, or hangs. At the next
 * start the row is past its deadline, and is reverted then.
 */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>

#include <openssl/evp.h>

#include "id.h"
#include "log.h"
#include "versions.h"

enum { PATIENCE = 10000 }; /* ms the disk has to take it that time is over */

struct versions {
    struct keeper *keeper;
    struct rulebook *book;   /* NULL before versions_use */
    struct recall *recall;   /* NULL: none */
    struct deed_place place; /* changes only with a restart */

    pthread_mutex_t lock; /* guards what follows */
    int64_t confirm;      /* ms */
    bool second;
    char *domain, *file; /* one of ours, for lint; the policy file, NULL: none */
    uint64_t unconfirmed;
    int64_t deadline;     /* monotonic */
    bool expiring;        /* the keeper has been asked */
    struct rules *before; /* what comes back; NULL: nothing is unconfirmed */
    struct rules *gone;   /* was taken back, which could not be written down */
};

static void digest_of(struct span text, char out[65])
{
    uint8_t d[32];
    if (EVP_Digest(text.p, text.n, d, NULL, EVP_sha256(), NULL) != 1)
        abort();
    hex_print(span_of(d, sizeof d), out);
}

/* ---- on the keeper thread: what follows ---- */

/* A reference for the rules. */
static struct policy *held(struct policy *p)
{
    return p ? policy_hold(p) : NULL;
}

static void put_whole(struct rules *rules, struct policy *policy, uint64_t version)
{
    policy_free(&rules->policy);
    rules->policy = held(policy);
    rules->version = version;
}

/* The trial of one into the other. */
static void put_trial(struct rules *rules, const struct rules *from)
{
    const char *listeners[VERSION_PARTS], *domains[VERSION_PARTS];
    size_t nlisteners = 0, ndomains = 0;
    struct arena *a = arena_new();
    for (; nlisteners < from->nlisteners && nlisteners < VERSION_PARTS; nlisteners++)
        listeners[nlisteners] = from->listeners[nlisteners];
    for (; ndomains < from->ndomains && ndomains < VERSION_PARTS; ndomains++)
        domains[ndomains] = arena_str(a, from->domains[ndomains]);
    rules_set_trial(rules, held(from->trial), from->trial_version, listeners, nlisteners, domains,
                    ndomains);
    arena_free(&a);
}

/* Policy and trial of one into the other; its modes and all else stay. */
static void put_back(struct rules *rules, const struct rules *before)
{
    put_whole(rules, before->policy, before->version);
    put_trial(rules, before);
}

static void refresh_rules(struct rules *rules, const struct deed *d)
{
    if (d->policy)
        put_whole(rules, d->policy, d->in_force);
    if (!d->trial || !rules->trial)
        return;
    policy_free(&rules->trial);
    rules->trial = policy_hold(d->trial);
}

/* Is something unconfirmed from here on? before: the rules that come back. */
static void await(struct versions *v, const struct deed *d, const struct rules *before)
{
    bool fresh = d->effect == EFFECT_WHOLE || d->effect == EFFECT_PART;
    rules_drop(&v->before);
    rules_drop(&v->gone);
    v->unconfirmed = 0;
    if (!fresh || d->wait <= 0)
        return;
    v->before = rules_copy(before);
    v->unconfirmed = d->number;
    v->deadline = clock_mono() + d->wait;
}

static void swap_rules(struct versions *v, struct deed *d)
{
    rulebook_lock(v->book);
    struct rules *old = rulebook_take(v->book), *fresh = rules_copy(old);
    switch (d->effect) {
    case EFFECT_WHOLE:
        put_whole(fresh, d->policy, d->number);
        rules_set_trial(fresh, NULL, 0, NULL, 0, NULL, 0);
        break;
    case EFFECT_PART:
        deed_set_trial(fresh, policy_hold(d->policy), d->number, d->part);
        break;
    case EFFECT_NO_PART:
        rules_set_trial(fresh, NULL, 0, NULL, 0, NULL, 0);
        break;
    case EFFECT_BACK:
        if (v->before)
            put_back(fresh, v->before);
        break;
    case EFFECT_REFRESH:
        if (!v->gone) /* what could not be written down: the rows say otherwise */
            refresh_rules(fresh, d);
        break;
    case EFFECT_CONFIRMED:
        if (v->gone)
            put_back(fresh, v->gone);
        break;
    case EFFECT_NONE:
        break;
    }
    rulebook_put(v->book, fresh);
    rulebook_unlock(v->book);
    if (d->effect != EFFECT_REFRESH)
        await(v, d, old);
    rules_drop(&old);
}

static void write_log(const struct deed *d)
{
    static const char *const verbs[DEED_KINDS] = {"apply", "confirm", "rollback", "apply",
                                                  "revert"};
    struct logline l;
    log_begin(&l, d->kind == DEED_EXPIRE ? LOG_LEVEL_ERROR : LOG_LEVEL_NOTICE, "policy",
              span_str(verbs[d->kind]));
    log_num(&l, "version", (long long)d->number);
    log_str(&l, "author", d->author);
    log_str(&l, "for", d->reason);
    log_str(&l, "by", d->who);
    log_str(&l, "reason", d->why);
    log_str(&l, "only", d->part && *d->part ? d->part : NULL);
    log_num(&l, "in-force", (long long)d->in_force);
    if (d->wait > 0 && d->deadline)
        log_num(&l, "confirm-within-s", d->wait / 1000);
    log_end(&l);
}

/* What was learned by the rules until now can be had back. Before a version goes it is another
 * thing than before it came. */
static void keep_learned(const struct versions *v, const struct deed *d)
{
    char label[32];
    bool comes = d->kind == DEED_APPLY || d->kind == DEED_RELOAD;
    snprintf(label, sizeof label, "v%llu%s", (unsigned long long)d->number, comes ? "" : "back");
    if (v->recall && d->changed && d->effect != EFFECT_CONFIRMED)
        recall_keep(v->recall, label);
}

static void settle(struct versions *v, struct deed *d)
{
    keep_learned(v, d);
    pthread_mutex_lock(&v->lock);
    if (d->effect != EFFECT_NONE)
        swap_rules(v, d);
    pthread_mutex_unlock(&v->lock);
    if (d->changed)
        write_log(d);
}

static void deed_back(struct letter *letter)
{
    struct deed *d = (struct deed *)letter;
    d->done(d);
}

static void deed_done(struct job *job)
{
    struct deed *d = (struct deed *)job;
    if (job->result < 0) {
        d->effect = EFFECT_NONE;
        d->changed = false;
        deed_refuse(d, 503,
                    "The hold database did not take it; nothing was changed. The log says why.");
    }
    if (d->status == 200)
        settle(d->versions, d);
    if (!d->home) {
        d->done(d);
        return;
    }
    d->job.letter.open = deed_back;
    mailbox_post(d->home, &d->job.letter);
}

static void send_deed(struct versions *v, struct deed *d)
{
    d->versions = v;
    d->job.run = deed_run;
    d->job.done = deed_done;
    keeper_submit(v->keeper, &d->job);
}

/* What the configuration says at this moment. */
static void take_terms(const struct versions *v, struct deed *d)
{
    if (d->kind == DEED_APPLY || d->kind == DEED_RELOAD)
        d->wait = d->within < 0 ? v->confirm : d->within;
    d->second = v->second;
    d->domain = str_copy(v->domain);
}

void versions_submit(struct versions *v, struct deed *d)
{
    pthread_mutex_lock(&v->lock);
    take_terms(v, d);
    if (d->kind == DEED_APPLY && v->file && d->path && strcmp(v->file, d->path) == 0)
        digest_of(span_str(d->text), d->look); /* SIGHUP need not take it again */
    pthread_mutex_unlock(&v->lock);
    if (d->kind == DEED_APPLY) {
        deed_read_parts(d, &v->place);
        if (d->status == 200)
            deed_compile(d);
    }
    if (d->status == 200)
        send_deed(v, d);
    else
        d->done(d);
}

/* ---- the clock, and SIGHUP ---- */

/* The rules before the unconfirmed version come back, written down or not. Locked. */
static void go_back(struct versions *v)
{
    rulebook_lock(v->book);
    struct rules *old = rulebook_take(v->book), *fresh = rules_copy(old);
    put_back(fresh, v->before);
    rulebook_put(v->book, fresh);
    rulebook_unlock(v->book);
    if (!v->gone)
        v->gone = rules_copy(old);
    rules_drop(&old);
}

static void expired(struct deed *d)
{
    struct versions *v = d->versions;
    pthread_mutex_lock(&v->lock);
    v->expiring = false;
    if (d->status != 200 && v->unconfirmed == d->version && v->before) {
        go_back(v);              /* the disk refuses: the rules come back all the same */
        v->deadline += PATIENCE; /* then the disk is asked again */
        log_say(LOG_LEVEL_ERROR,
                "policy version %llu was not confirmed in time: the rules before it are in force; "
                "the hold database did not take that, it is asked again",
                (unsigned long long)d->version);
    }
    pthread_mutex_unlock(&v->lock);
    deed_free(&d);
}

void versions_tick(struct versions *v, int64_t mono)
{
    pthread_mutex_lock(&v->lock);
    bool over = v->unconfirmed && mono >= v->deadline && !v->expiring;
    uint64_t number = v->unconfirmed;
    bool hangs = v->expiring && mono >= v->deadline + PATIENCE && v->before && !v->gone;
    v->expiring |= over;
    if (hangs)
        go_back(v);
    pthread_mutex_unlock(&v->lock);
    if (hangs)
        log_say(LOG_LEVEL_ERROR,
                "policy version %llu was not confirmed in time: the rules before it are in force; "
                "the hold database does not answer",
                (unsigned long long)number);
    if (!over)
        return;
    struct deed *d = deed_new(DEED_EXPIRE);
    d->version = number;
    d->who = str_copy("breakwaterd");
    d->why = str_copy("nobody confirmed it in time");
    d->now = clock_now();
    d->done = expired;
    send_deed(v, d);
}

static void take_settings(struct versions *v, const struct config *c)
{
    struct span domain = c->site.nown_domains ? c->site.own_domains[0] : span_str("");
    v->confirm = c->policy_confirm;
    v->second = c->policy_second;
    free(v->domain);
    free(v->file);
    v->domain = strndup(domain.n ? (const char *)domain.p : "", domain.n);
    v->file = str_copy(c->policy_file);
    if (!v->domain)
        abort();
}

static void reloaded(struct deed *d)
{
    if (d->status != 200)
        log_say(LOG_LEVEL_ERROR, "the policy file was not taken, the rules in force stay: %s",
                d->fault);
    deed_free(&d);
}

/* The text and sets of a configuration's policy. */
static void take_policy(struct deed *d, const struct config *c)
{
    d->text = strndup(c->policy_text.n ? (const char *)c->policy_text.p : "", c->policy_text.n);
    if (!d->text)
        abort();
    d->path = str_copy(c->policy_file);
    d->part = str_copy("");
    d->policy = held(c->policy);
    d->files_text = c->policy_sets ? json_line(c->policy_sets) : str_copy("{}");
    digest_of(span_str(d->text), d->look);
}

void versions_reload(struct versions *v, const struct config *c)
{
    struct deed *d = deed_new(DEED_RELOAD);
    pthread_mutex_lock(&v->lock);
    take_settings(v, c);
    take_terms(v, d);
    pthread_mutex_unlock(&v->lock);
    d->who = str_copy("reload");
    d->why = str_copy("the policy file has changed");
    d->now = clock_now();
    d->done = reloaded;
    take_policy(d, c);
    deed_look_over(d);
    d->odd = d->status != 200;
    send_deed(v, d);
}

void versions_figures(struct versions *v, struct versions_figures *out)
{
    struct rules *rules = rulebook_take(v->book);
    pthread_mutex_lock(&v->lock);
    int64_t left = v->deadline - clock_mono();
    *out = (struct versions_figures){
        .judging = rules->version,
        .judging_part = rules->trial_version,
        .unconfirmed = v->unconfirmed,
        .left = v->unconfirmed && left > 0 ? left : 0,
        .confirm = v->confirm,
        .second_person = v->second,
    };
    pthread_mutex_unlock(&v->lock);
    rules_drop(&rules);
}

/* ---- the start ---- */

struct starting {
    struct job job; /* must be first */
    sem_t done;
    const struct config *config;
    struct deed *deed; /* as whom it is done */
    uint64_t version, part_version, unconfirmed;
    struct policy *policy;
    struct rules *trial;  /* its trial is what counts */
    struct rules *before; /* of an unconfirmed one */
    int64_t left;
    bool moved; /* the file is not what it was at the last look */
};

/* The newest version up to `number` that this program can use. */
static int find_usable(struct hold *hold, uint64_t number, uint64_t *found, struct policy **policy)
{
    char why[400];
    *policy = NULL;
    for (*found = number; *found;) {
        if (deed_policy(hold, *found, policy, why) < 0)
            return -1;
        if (*policy)
            return 0;
        log_say(LOG_LEVEL_ERROR,
                "policy version %llu is in force, but cannot be used by this program: %s; an "
                "earlier one takes its place",
                (unsigned long long)*found, why);
        if (hold_policy_good(hold, *found, found) < 0)
            return -1;
    }
    return 0;
}

/* The version on a part of the mail into rules; one that cannot be used is left out. */
static int find_part(struct hold *hold, uint64_t number, struct rules *rules)
{
    struct arena *a = arena_new();
    struct policy_row row;
    struct policy_error e;
    char said[400];
    int rc = number ? hold_policy_row(hold, a, number, &row) : 0;
    struct policy *policy = rc == 1 ? deed_policy_of_row(a, &row, &e) : NULL;
    if (policy)
        deed_set_trial(rules, policy, number, row.part);
    else if (rc == 1) {
        policy_error_print(&e, "the rules", said, sizeof said);
        log_say(LOG_LEVEL_ERROR,
                "policy version %llu, on trial, cannot be used by this program: %s; it is left out",
                (unsigned long long)number, said);
    }
    arena_free(&a);
    return rc < 0 ? -1 : 0;
}

/* Past its time: reverted. Else what comes back when it is. */
static int meet_unconfirmed(struct hold *hold, struct arena *a, struct starting *s, uint64_t number)
{
    struct policy_row row;
    int rc = number ? hold_policy_row(hold, a, number, &row) : 0;
    if (rc != 1)
        return rc;
    int64_t whole = row.deadline - row.at, left = row.deadline - s->deed->now;
    s->left = left > whole ? whole : left; /* a clock that went back gives no more time */
    if (s->left <= 0)
        return deed_take_back(hold, s->deed, &row, "revert");
    s->unconfirmed = number;
    s->before = rules_copy(NULL);
    return find_usable(hold, row.before, &s->before->version, &s->before->policy) < 0 ||
                   find_part(hold, row.before_part, s->before) < 0
               ? -1
               : 0;
}

/* The rules in force are built in, and this program brings others. */
static int built_in_moved(struct hold *hold, struct arena *a, const struct starting *s,
                          const struct policies_live *live)
{
    struct policy_row row;
    if (s->config->policy_file || live->part || live->unconfirmed)
        return 0;
    int rc = live->whole ? hold_policy_row(hold, a, live->whole, &row) : 0;
    return rc == 1 ? !*row.origin && strcmp(row.who, "installation") == 0 &&
                         !span_eq(row.text, s->config->policy_text)
                   : rc;
}

/* What the configuration names becomes a version where nothing is stored. */
static int meet_file(struct hold *hold, struct arena *a, struct starting *s,
                     struct policies_live *live)
{
    char last[65];
    struct deed *d = s->deed;
    int fresh = live->last == 0 ? 1 : built_in_moved(hold, a, s, live);
    if (fresh < 0 || !s->config->policy)
        return fresh < 0 ? -1 : 0;
    if (fresh == 0 && !live->whole) { /* lost to damage */
        if (hold_policy_good(hold, 0, &live->whole) < 0 ||
            (live->whole && hold_policy_revive(hold, live->whole) < 0))
            return -1;
    }
    if (fresh) {
        free(d->who);
        free(d->why);
        d->who = str_copy("installation");
        d->why = str_copy(live->last ? "the program brought other rules" : "the first start");
        return deed_store(hold, d, live) < 0 || deed_look_at_file(hold, d) < 0 ||
                       hold_policy_live(hold, live) < 0
                   ? -1
                   : 0;
    }
    s->moved =
        hold_setting_get(hold, DEED_SEEN, last, sizeof last) < 0 || strcmp(last, d->look) != 0;
    return 0;
}

static void forget_start(struct starting *s)
{
    policy_free(&s->policy);
    rules_drop(&s->before);
    rules_drop(&s->trial);
    s->unconfirmed = s->version = 0;
    s->moved = false;
}

static int run_start(struct hold *hold, struct job *job)
{
    struct starting *s = (struct starting *)job;
    struct arena *a = arena_new();
    struct policies_live live;
    forget_start(s); /* it may be the second run */
    s->trial = rules_copy(NULL);
    int rc = hold_policy_live(hold, &live) < 0 ||
                     meet_unconfirmed(hold, a, s, live.unconfirmed) < 0 ||
                     hold_policy_live(hold, &live) < 0 || meet_file(hold, a, s, &live) < 0 ||
                     find_usable(hold, live.whole, &s->version, &s->policy) < 0 ||
                     find_part(hold, live.part, s->trial) < 0
                 ? -1
                 : 0;
    s->part_version = live.part;
    arena_free(&a);
    return rc;
}

static void start_done(struct job *job)
{
    sem_post(&((struct starting *)job)->done);
}

static void wait_for_start(struct keeper *keeper, struct starting *s)
{
    s->job.run = run_start;
    s->job.done = start_done;
    sem_init(&s->done, 0, 0);
    keeper_submit(keeper, &s->job);
    while (sem_wait(&s->done) && errno == EINTR)
        ;
    sem_destroy(&s->done);
}

/* The configuration's policy, or the built-in one: nothing stored can be used. */
static struct policy *last_resort(const struct config *c)
{
    struct policy_error e;
    if (c->policy)
        return policy_hold(c->policy);
    return policy_load(span_str(policy_default), NULL, &e);
}

static void tell_start(const struct starting *s, const struct rules *first)
{
    if (s->job.result < 0)
        log_say(LOG_LEVEL_ERROR,
                "the stored policies cannot be read: the rules of the configuration are in force");
    else if (!first->version)
        log_say(LOG_LEVEL_ERROR, "no stored policy can be used: the rules of the %s are in force",
                s->config->policy ? "configuration" : "program");
    else
        log_say(LOG_LEVEL_NOTICE, "policy version %llu is in force%s",
                (unsigned long long)first->version,
                s->unconfirmed ? "; one version waits to be confirmed" : "");
    if (s->config->policy_fault)
        log_say(LOG_LEVEL_ERROR, "the policy file is left aside: %s", s->config->policy_fault);
    else if (s->moved)
        log_say(LOG_LEVEL_NOTICE,
                "the policy file is not what it was when it was last taken: SIGHUP, or "
                "breakwaterctl policy apply, makes a version of it");
}

static struct versions *new_versions(const struct config *c, struct keeper *keeper)
{
    struct versions *v = calloc(1, sizeof *v);
    if (!v || !(v->place.listeners = calloc(c->nlisteners + 1, sizeof *v->place.listeners)))
        abort();
    pthread_mutex_init(&v->lock, NULL);
    v->keeper = keeper;
    v->place.node = strndup((const char *)c->site.node.p, c->site.node.n);
    for (size_t i = 0; i < c->nlisteners; i++)
        v->place.listeners[v->place.nlisteners++] = str_copy(c->listeners[i].name);
    take_settings(v, c);
    return v;
}

struct versions *versions_start(struct config *c, struct keeper *keeper, struct rules *first)
{
    struct versions *v = new_versions(c, keeper);
    struct starting s = {.config = c, .deed = deed_new(DEED_EXPIRE)};
    s.deed->who = str_copy("breakwaterd");
    s.deed->why = str_copy("not confirmed in time");
    s.deed->now = clock_now();
    take_policy(s.deed, c);
    wait_for_start(keeper, &s);
    if (s.job.result < 0)
        forget_start(&s);
    first->policy = s.policy ? policy_hold(s.policy) : last_resort(c);
    first->version = s.version;
    if (s.trial)
        put_trial(first, s.trial);
    if (s.unconfirmed) {
        v->unconfirmed = s.unconfirmed;
        v->before = s.before;
        v->deadline = clock_mono() + s.left;
        s.before = NULL;
    }
    tell_start(&s, first);
    if (s.deed->changed && s.deed->effect == EFFECT_BACK)
        write_log(s.deed);
    forget_start(&s);
    deed_free(&s.deed);
    return v;
}

void versions_use(struct versions *v, struct rulebook *book, struct recall *recall)
{
    v->book = book;
    v->recall = recall;
}

void versions_free(struct versions **place)
{
    struct versions *v = *place;
    *place = NULL;
    if (!v)
        return;
    rules_drop(&v->before);
    rules_drop(&v->gone);
    for (size_t i = 0; i < v->place.nlisteners; i++)
        free(v->place.listeners[i]);
    free(v->place.listeners);
    free(v->place.node);
    free(v->domain);
    free(v->file);
    pthread_mutex_destroy(&v->lock);
    free(v);
}

bool versions_stored(const char *hold_path)
{
    char error[512];
    bool damaged;
    struct policies_live live = {0};
    struct hold *view = hold_open(hold_path, false, &damaged, error);
    bool stored = view && hold_policy_live(view, &live) == 0 && live.last > 0;
    hold_close(&view);
    return stored;
}
