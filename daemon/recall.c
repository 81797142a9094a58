/*
 * recall.c - see recall.h. The snapshot is written by a thread of its own, at a lower priority;
 * storms by jobs of the keeper; digests by the keeper's tick.
 */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "digests.h"
#include "id.h"
#include "log.h"
#include "recall.h"

enum {
    STORMS_AT_ONCE = 64,
    SNAPSHOT_S = 3600,
    LAST_JOBS = 1000,
    SLOW = 10,
    LABEL = 32,
    NAME_ROOM = 64,
    KEPT_MOST = 64 /* looked at */
};
#define KEPT "memory.kept."
static const int64_t day_ms = 86400000;

struct recall {
    const struct config *config;
    uint32_t key_id;
    struct store *store;
    struct keeper *keeper;
    struct digests *digests; /* NULL: cannot be written */
    _Atomic bool saving;     /* a job is under way */
    _Atomic uint64_t unsaved;
    _Atomic int64_t snapshot;
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stopping;
    char label[LABEL]; /* of a snapshot to be kept; "": none is asked for */
    const struct snapshot_texts *texts;
};

/* ---- storms ---- */

struct save {
    struct job job; /* must be first */
    struct recall *recall;
    struct packed storm[STORMS_AT_ONCE];
    size_t n;
};

static int save_run(struct hold *hold, struct job *job)
{
    struct save *s = (struct save *)job;
    for (size_t i = 0; i < s->n; i++)
        if (hold_save_memory(hold, &s->storm[i].k, s->recall->key_id, s->storm[i].last,
                             span_of(s->storm[i].bytes, s->storm[i].n)))
            return -1;
    return 0;
}

static void save_done(struct job *job)
{
    struct save *s = (struct save *)job;
    for (size_t i = 0; i < s->n; i++) {
        if (job->result == -1)
            store_memory_unsaved(s->recall->store, &s->storm[i].k);
        free(s->storm[i].bytes);
    }
    if (job->result == -1)
        atomic_fetch_add(&s->recall->unsaved, s->n);
    atomic_store(&s->recall->saving, false);
    free(s);
}

/* true: there were as many as go into one job, and maybe more. */
static bool save_storms(struct recall *r, int64_t now, bool all)
{
    struct save *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->n = store_memory_changed(r->store, now, all, s->storm, STORMS_AT_ONCE);
    bool full = s->n == STORMS_AT_ONCE;
    if (!s->n) {
        free(s);
        return false;
    }
    s->recall = r;
    s->job.run = save_run;
    s->job.done = save_done;
    atomic_store(&r->saving, true);
    keeper_submit(r->keeper, &s->job);
    return full;
}

void recall_tick(struct recall *r, int64_t now)
{
    if (r->digests)
        digests_flush(r->digests, now);
    if (!atomic_load(&r->saving))
        (void)save_storms(r, now, false);
}

void recall_save(struct recall *r)
{
    int64_t now = clock_now();
    for (int jobs = 0; jobs < LAST_JOBS && save_storms(r, now, true); jobs++)
        ;
}

/* ---- snapshots ---- */

static void write_snapshot(struct recall *r)
{
    struct snapshot_figures f;
    char error[512];
    int64_t now = clock_now();
    if (snapshot_write(r->config->hold_path, r->key_id, r->store, r->texts, now, &f, error)) {
        log_say(LOG_LEVEL_ERROR, "%s; a crash now would forget more", error);
        return;
    }
    atomic_store(&r->snapshot, now);
    log_say(LOG_LEVEL_INFO, "memory saved: %llu messages, %llu tallies, %llu states",
            (unsigned long long)f.records, (unsigned long long)f.tallies,
            (unsigned long long)f.states);
}

/* A kept one, by name and time. */
struct kept {
    char name[NAME_ROOM];
    int64_t time;
};

static int newer_first(const void *a, const void *b)
{
    const struct kept *x = a, *y = b;
    return (x->time < y->time) - (x->time > y->time);
}

/* One that is whole, of those asked for. */
static bool is_kept(const char *name)
{
    return strncmp(name, KEPT, strlen(KEPT)) == 0 && strlen(name) < NAME_ROOM &&
           !strchr(name + strlen(KEPT), '.');
}

/* All snapshots there are, the newest first; returns how many. */
static size_t list_snapshots(const struct recall *r, struct kept out[KEPT_MOST])
{
    DIR *dir = opendir(r->config->hold_path);
    size_t n = 0;
    for (struct dirent *e; dir && n < KEPT_MOST && (e = readdir(dir));) {
        bool hourly =
            strcmp(e->d_name, SNAPSHOT_NAME) == 0 || strcmp(e->d_name, SNAPSHOT_BEFORE) == 0;
        if (!hourly && !is_kept(e->d_name))
            continue;
        memcpy(out[n].name, e->d_name, strlen(e->d_name) + 1);
        out[n].time = snapshot_time(r->config->hold_path, out[n].name, r->key_id);
        n += out[n].time != 0;
    }
    if (dir)
        closedir(dir);
    qsort(out, n, sizeof *out, newer_first);
    return n;
}

static void remove_old_kept(const struct recall *r)
{
    struct kept all[KEPT_MOST];
    size_t n = list_snapshots(r, all), seen = 0;
    for (size_t i = 0; i < n; i++) {
        char path[2 * 4096];
        if (!is_kept(all[i].name) || seen++ < RECALL_KEPT)
            continue;
        snprintf(path, sizeof path, "%s/%s", r->config->hold_path, all[i].name);
        unlink(path);
    }
}

static void keep_snapshot(struct recall *r, const char *label)
{
    struct snapshot_figures f;
    char error[512], name[NAME_ROOM];
    snprintf(name, sizeof name, KEPT "%s", label);
    if (snapshot_keep(r->config->hold_path, name, r->key_id, r->store, r->texts, clock_now(), &f,
                      error)) {
        log_say(LOG_LEVEL_ERROR, "%s; what is learned from now on cannot be undone", error);
        return;
    }
    remove_old_kept(r);
}

/* Until there is a label, or an hour is over (label ""). false: we stop. */
static bool wait_for_work(struct recall *r, int64_t hour, char label[LABEL])
{
    struct timespec until = {.tv_sec = hour / 1000, .tv_nsec = hour % 1000 * 1000000};
    pthread_mutex_lock(&r->lock);
    while (!r->stopping && !r->label[0])
        if (pthread_cond_timedwait(&r->wake, &r->lock, &until) == ETIMEDOUT)
            break;
    bool stop = r->stopping;
    memcpy(label, r->label, LABEL);
    r->label[0] = '\0';
    pthread_mutex_unlock(&r->lock);
    return !stop;
}

static void *write_snapshots(void *arg)
{
    struct recall *r = arg;
    char label[LABEL];
    int64_t hour = clock_mono() + SNAPSHOT_S * 1000;
    /* of this thread alone: Linux */
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), SLOW);
    while (wait_for_work(r, hour, label)) {
        if (label[0])
            keep_snapshot(r, label);
        if (clock_mono() < hour)
            continue;
        write_snapshot(r);
        hour = clock_mono() + SNAPSHOT_S * 1000;
    }
    return NULL;
}

void recall_keep(struct recall *r, const char *label)
{
    pthread_mutex_lock(&r->lock);
    snprintf(r->label, sizeof r->label, "%s", label);
    pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->lock);
}

void recall_texts(struct recall *r, const struct snapshot_texts *texts)
{
    pthread_mutex_lock(&r->lock);
    r->texts = texts;
    pthread_mutex_unlock(&r->lock);
}

int recall_learned(struct recall *r, int64_t since, bool dry, int64_t *as_of, char error[512])
{
    struct kept all[KEPT_MOST];
    struct snapshot_figures f;
    size_t n = list_snapshots(r, all), i = 0;
    while (i < n && all[i].time > since)
        i++;
    if (i == n) {
        snprintf(error, 512, "nothing was kept of what had been learned before that time");
        return -1;
    }
    *as_of = all[i].time;
    if (dry)
        return 0;
    if (snapshot_learned(r->config->hold_path, all[i].name, r->key_id, r->store, r->texts,
                         clock_now(), &f, error) < 0)
        return -1;
    log_say(
        LOG_LEVEL_NOTICE,
        "what was learned is as it was %lld minutes ago: %llu tallies, %llu states, %llu relays",
        (long long)(clock_now() - f.time) / 60000, (unsigned long long)f.tallies,
        (unsigned long long)f.states, (unsigned long long)f.texts);
    return 0;
}

static void begin_snapshots(struct recall *r)
{
    pthread_condattr_t attr;
    if (pthread_mutex_init(&r->lock, NULL) || pthread_condattr_init(&attr) ||
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) || pthread_cond_init(&r->wake, &attr))
        abort();
    pthread_condattr_destroy(&attr);
    r->started = pthread_create(&r->thread, NULL, write_snapshots, r) == 0;
    if (!r->started)
        log_say(LOG_LEVEL_ERROR, "no thread for snapshots: memory is saved at a clean stop only");
}

/* ---- reading ---- */

static void set_aside(const struct recall *r, const char *name)
{
    char from[4096], to[4200];
    snprintf(from, sizeof from, "%s/%s", r->config->hold_path, name);
    snprintf(to, sizeof to, "%s.damaged-%lld", from, (long long)time(NULL));
    if (rename(from, to) == 0)
        log_say(LOG_LEVEL_NOTICE, "it was set aside as %s", to);
}

/* false: there was something, and it could not be used. */
static bool read_snapshot(const struct recall *r, const char *name, int64_t now)
{
    struct snapshot_figures f;
    char error[512];
    int rc = snapshot_read(r->config->hold_path, name, r->key_id, r->store, now, &f, error);
    if (rc < 0) {
        log_say(LOG_LEVEL_ERROR, "%s", error);
        set_aside(r, name);
        return false;
    }
    if (rc)
        log_say(LOG_LEVEL_NOTICE,
                "memory of %lld minutes ago read: %llu messages, %llu tallies, %llu states",
                (long long)(now - f.time) / 60000, (unsigned long long)f.records,
                (unsigned long long)f.tallies, (unsigned long long)f.states);
    return rc == 1;
}

struct put_back {
    struct recall *recall;
    int64_t now;
    uint64_t n, damaged;
};

static void put_back(void *arg, const struct key *k, struct span bytes)
{
    struct put_back *p = arg;
    bool whole = store_memory_put(p->recall->store, k, bytes, p->now);
    p->n += whole;
    p->damaged += !whole;
}

static void read_registry(struct recall *r, int64_t now)
{
    struct put_back p = {.recall = r, .now = now};
    char error[512] = "the hold database cannot be read";
    bool damaged;
    uint64_t torn = 0;
    struct hold *view = hold_open(r->config->hold_path, false, &damaged, error);
    if (!view || hold_each_memory(view, r->key_id, put_back, &p, &torn) < 0)
        log_say(LOG_LEVEL_ERROR, "storms of the past: %s", error);
    hold_close(&view);
    if (p.n)
        log_say(LOG_LEVEL_NOTICE, "storms remembered: %llu", (unsigned long long)p.n);
    if (p.damaged + torn)
        log_say(LOG_LEVEL_ERROR, "storms that were damaged on disk and are forgotten: %llu",
                (unsigned long long)p.damaged + torn);
}

static void remember(void *arg, const uint64_t *digest, size_t n, int64_t when)
{
    store_memory_remember(arg, digest, n, when);
}

static void begin_digests(struct recall *r, int64_t now)
{
    char error[512];
    int64_t keep = r->config->site.bloom_days * day_ms;
    r->digests = digests_open(r->config->hold_path, r->key_id, keep, error);
    if (!r->digests) {
        log_say(LOG_LEVEL_ERROR, "%s; a restart will know less", error);
        return;
    }
    store_memory_on_digest(r->store, digests_add, r->digests);
    digests_read(r->digests, now, remember, r->store);
}

void recall_heard(struct recall *r, const uint64_t *digest, size_t n)
{
    for (size_t i = 0; r->digests && i < n; i++)
        digests_add(r->digests, digest[i]);
}

static void hurry(void *keeper)
{
    keeper_hurry(keeper);
}

struct recall *recall_start(const struct config *config, uint32_t key_id, struct store *store,
                            struct keeper *keeper)
{
    struct recall *r = calloc(1, sizeof *r);
    if (!r)
        abort();
    r->config = config;
    r->key_id = key_id;
    r->store = store;
    r->keeper = keeper;
    int64_t now = clock_now();
    if (!read_snapshot(r, SNAPSHOT_NAME, now))
        (void)read_snapshot(r, SNAPSHOT_BEFORE, now);
    read_registry(r, now);
    begin_digests(r, now);
    store_memory_on_storm(store, hurry, keeper);
    begin_snapshots(r);
    return r;
}

void recall_stop(struct recall **rp)
{
    struct recall *r = *rp;
    *rp = NULL;
    if (!r)
        return;
    pthread_mutex_lock(&r->lock);
    r->stopping = true;
    pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->lock);
    if (r->started)
        pthread_join(r->thread, NULL);
    write_snapshot(r);
    store_memory_on_storm(r->store, NULL, NULL);
    store_memory_on_digest(r->store, NULL, NULL);
    digests_close(&r->digests);
    pthread_cond_destroy(&r->wake);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

void recall_figures(struct recall *r, struct recall_figures *f)
{
    struct store_long known;
    struct digests_figures d = {0};
    store_memory_long(r->store, &known);
    if (r->digests)
        digests_figures(r->digests, &d);
    *f = (struct recall_figures){
        .since = known.since,
        .reading = d.reading,
        .digests = d.read,
        .damaged = d.damaged,
        .lost = d.lost,
        .bytes = known.bytes,
        .early = known.early,
        .snapshot = atomic_load(&r->snapshot),
        .unsaved = atomic_load(&r->unsaved),
    };
}
