/*
 * keeper.c - see keeper.h. The loop: take everything that waits (at most GROUP jobs), run it in one
 * transaction, commit, send the replies. While one group is being synced the next one gathers, so
 * a slow disk makes groups larger, not the queue longer.
 *
 * A group is run at first without savepoints. When a job in it fails, all of it is rolled back and
 * run again with a savepoint around each job; so a job's run may happen twice.
 *
 * The directory is locked as long as the keeper lives: two of them on one database would each be
 * right alone and wrong together. The lock ends with the process, however that ends.
 *
 * Invariant: every submitted job has its done called exactly once, after its group's commit or its
 * failure.
 */
#include "keeper.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "failpoint.h"
#include "id.h"
#include "log.h"

enum {
    GROUP = 500,
    TICKS_A_SECOND = 4, /* often enough that a second of verdicts is no long write at once */
    TICK_US = 1000000 / TICKS_A_SECOND
};

struct keeper {
    pthread_t thread;
    struct hold *hold; /* NULL: could not be opened again after damage */
    char *dir;
    int lock_fd; /* the directory, locked */

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t wake;
    struct job *first, **last;
    bool stopping;
    bool hurry; /* the next tick comes at once */
    void (*on_tick)(void *);
    void *on_tick_arg;
    struct keeper_figures figures;
};

/* Running a group. */

static void run_job(struct keeper *k, struct job *j)
{
    j->result = j->run(k->hold, j);
}

/* All in one go. -1: some job failed, nothing is done. */
static int run_plain(struct keeper *k, struct job *group)
{
    if (hold_begin(k->hold))
        return -1;
    for (struct job *j = group; j; j = j->next) {
        run_job(k, j);
        if (j->result == -1) {
            hold_rollback(k->hold);
            return -1;
        }
    }
    return hold_commit(k->hold);
}

/* Each job in a savepoint of its own. */
static int run_apart(struct keeper *k, struct job *group)
{
    if (hold_begin(k->hold))
        return -1;
    for (struct job *j = group; j; j = j->next) {
        j->result = -1;
        if (hold_savepoint(k->hold))
            continue;
        run_job(k, j);
        if (j->result == -1 || hold_release_savepoint(k->hold)) {
            hold_undo_savepoint(k->hold);
            j->result = -1;
        }
    }
    return hold_commit(k->hold);
}

static int run_group(struct keeper *k, struct job *group)
{
    return run_plain(k, group) && run_apart(k, group) ? -1 : 0;
}

/* The file turned out damaged while in use: what can be read is carried into a new one. */
static void reopen(struct keeper *k)
{
    char error[512] = "";
    bool damaged = false;
    hold_close(&k->hold);
    k->hold = hold_open(k->dir, true, &damaged, error);
    if (!k->hold)
        log_say(LOG_LEVEL_ERROR, "nothing can be held: %s", error);
    else
        log_say(LOG_LEVEL_ERROR, "the hold database was damaged: what could be read of it was "
                                 "carried into a new one, the old one is beside it");
    pthread_mutex_lock(&k->lock);
    k->figures.damaged |= damaged;
    pthread_mutex_unlock(&k->lock);
}

static void fail_group(struct job *group)
{
    for (struct job *j = group; j; j = j->next)
        j->result = -1;
}

static void commit_group(struct keeper *k, struct job *group)
{
    int rc = k->hold ? run_group(k, group) : -1;
    if (rc && (!k->hold || hold_broken(k->hold))) {
        reopen(k);
        rc = k->hold ? run_group(k, group) : -1;
    }
    if (rc)
        fail_group(group);
    pthread_mutex_lock(&k->lock);
    k->figures.commits += rc == 0;
    pthread_mutex_unlock(&k->lock);
}

/* Replies. */

static void job_opened(struct letter *letter)
{
    struct job *j = (struct job *)letter;
    j->done(j);
}

static void reply(struct job *group)
{
    while (group) {
        struct job *j = group;
        group = j->next; /* j is not ours any more below */
        if (!j->home) {
            j->done(j);
            continue;
        }
        (void)FAILPOINT("done.before");
        j->letter.open = job_opened;
        mailbox_post(j->home, &j->letter);
    }
}

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void work(struct keeper *k, struct job *group)
{
    int64_t start = now_us();
    uint64_t jobs = 0, failures = 0;
    commit_group(k, group);
    for (struct job *j = group; j; j = j->next) {
        jobs++;
        failures += j->result == -1;
    }
    pthread_mutex_lock(&k->lock);
    k->figures.waiting -= jobs;
    k->figures.jobs += jobs;
    k->figures.failures += failures;
    k->figures.last_commit_us = (uint64_t)(now_us() - start);
    pthread_mutex_unlock(&k->lock);
    reply(group);
}

/* The loop. */

/* Waits for a job, a hurry or the deadline (us). The group, NULL when time is up or we are to stop.
 */
static struct job *take(struct keeper *k, int64_t deadline, bool *hurry, bool *stop)
{
    struct timespec until = {.tv_sec = (time_t)(deadline / 1000000),
                             .tv_nsec = (long)(deadline % 1000000) * 1000};
    pthread_mutex_lock(&k->lock);
    while (!k->first && !k->stopping && !k->hurry)
        if (pthread_cond_timedwait(&k->wake, &k->lock, &until) == ETIMEDOUT)
            break;
    struct job *group = k->first, *j = group;
    for (int n = 1; j && j->next && n < GROUP; n++)
        j = j->next;
    if (j) {
        k->first = j->next;
        j->next = NULL;
    }
    if (!k->first)
        k->last = &k->first;
    *hurry = k->hurry;
    k->hurry = false;
    *stop = k->stopping && !group;
    pthread_mutex_unlock(&k->lock);
    return group;
}

static void each_tick(struct keeper *k)
{
    pthread_mutex_lock(&k->lock);
    void (*fn)(void *) = k->on_tick;
    void *arg = k->on_tick_arg;
    pthread_mutex_unlock(&k->lock);
    if (fn)
        fn(arg);
}

static void *keeper_main(void *arg)
{
    struct keeper *k = arg;
    int64_t tick = now_us() + TICK_US;
    unsigned ticks = 0;
    bool hurry = false, stop = false, busy = false;
    for (;;) {
        struct job *group = take(k, tick, &hurry, &stop);
        if (stop) /* no tick any more: nobody would do the jobs that it submits */
            break;
        if (group) {
            work(k, group);
            busy = true;
        }
        if (hurry)
            each_tick(k);
        if (now_us() < tick)
            continue;
        if (++ticks % TICKS_A_SECOND == 0) {
            if (!busy && k->hold)
                hold_maintain(k->hold);
            busy = false;
        }
        each_tick(k);
        tick = now_us() + TICK_US;
    }
    return NULL;
}

/* From other threads. */

static void init_wait(struct keeper *k)
{
    pthread_condattr_t attr;
    if (pthread_mutex_init(&k->lock, NULL) || pthread_condattr_init(&attr) ||
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) || pthread_cond_init(&k->wake, &attr))
        abort();
    pthread_condattr_destroy(&attr);
    k->last = &k->first;
}

static void keeper_free(struct keeper **kp)
{
    struct keeper *k = *kp;
    *kp = NULL;
    hold_close(&k->hold);
    pthread_mutex_destroy(&k->lock);
    pthread_cond_destroy(&k->wake);
    if (k->lock_fd >= 0)
        close(k->lock_fd);
    free(k->dir);
    free(k);
}

static int lock_directory(struct keeper *k, char error[512])
{
    k->lock_fd = open(k->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (k->lock_fd < 0) {
        snprintf(error, 512, "cannot open %s: %s; make it and give it to the daemon's user", k->dir,
                 strerror(errno));
        return -1;
    }
    if (flock(k->lock_fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (errno == EWOULDBLOCK)
        snprintf(error, 512,
                 "another breakwaterd uses %s: stop it, or give this one a hold.path of its own",
                 k->dir);
    else
        snprintf(error, 512, "cannot lock %s: %s; it must be on a local disk", k->dir,
                 strerror(errno));
    return -1;
}

struct keeper *keeper_start(const char *dir, char error[512])
{
    struct keeper *k = calloc(1, sizeof(*k));
    if (!k || !(k->dir = strdup(dir)))
        abort();
    init_wait(k);
    if (lock_directory(k, error) == 0)
        k->hold = hold_open(dir, true, &k->figures.damaged, error);
    if (!k->hold) {
        keeper_free(&k);
        return NULL;
    }
    int rc = pthread_create(&k->thread, NULL, keeper_main, k);
    if (rc) {
        snprintf(error, 512, "cannot start the keeper thread: %s", strerror(rc));
        keeper_free(&k);
    }
    return k;
}

void keeper_submit(struct keeper *k, struct job *j)
{
    assert(j->run && j->done);
    j->next = NULL;
    pthread_mutex_lock(&k->lock);
    assert(!k->stopping || pthread_equal(k->thread, pthread_self())); /* in a tick, say */
    *k->last = j;
    k->last = &j->next;
    k->figures.waiting++;
    pthread_cond_signal(&k->wake);
    pthread_mutex_unlock(&k->lock);
}

void keeper_hurry(struct keeper *k)
{
    pthread_mutex_lock(&k->lock);
    k->hurry = true;
    pthread_cond_signal(&k->wake);
    pthread_mutex_unlock(&k->lock);
}

void keeper_stop(struct keeper **kp)
{
    struct keeper *k = *kp;
    if (!k)
        return;
    pthread_mutex_lock(&k->lock);
    k->stopping = true;
    pthread_cond_signal(&k->wake);
    pthread_mutex_unlock(&k->lock);
    pthread_join(k->thread, NULL);
    keeper_free(kp);
}

void keeper_on_tick(struct keeper *k, void (*fn)(void *), void *arg)
{
    pthread_mutex_lock(&k->lock);
    k->on_tick_arg = arg;
    k->on_tick = fn;
    pthread_mutex_unlock(&k->lock);
}

void keeper_figures(struct keeper *k, struct keeper_figures *out)
{
    pthread_mutex_lock(&k->lock);
    *out = k->figures;
    pthread_mutex_unlock(&k->lock);
}
