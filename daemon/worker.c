/*
 * worker.c - the mail threads, and how they get their connections.
 *
 * Every listening socket belongs to thread 0. A new connection is a letter to the thread whose turn
 * it is. When descriptors run out the listener rests for a second instead of spinning.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/listener.h>

#include "failpoint.h"
#include "place.h"
#include "store_redis.h"
#include "worker.h"

enum { DRAIN_LOOK_MS = 20 };

struct workers {
    struct worker *worker;
    pthread_t *thread;
    size_t n, turn;
    struct config *config;
    struct door {
        struct workers *all;
        const struct listener *listener;
        struct evconnlistener *ev;
        struct event *rest; /* runs while the listener pauses */
    } * doors;
    size_t ndoors;
};

/* ---- handing connections on ---- */

struct arrival {
    struct letter letter; /* must be first */
    struct worker *worker;
    const struct listener *listener;
    int fd;
};

static void arrive(struct letter *letter)
{
    struct arrival *a = (struct arrival *)letter;
    if (a->worker->leaving)
        close(a->fd);
    else
        door_accepts[a->listener->kind](a->worker, a->fd, a->listener);
    free(a);
}

static void accepted(struct evconnlistener *ev, evutil_socket_t fd, struct sockaddr *sa, int len,
                     void *arg)
{
    struct door *door = arg;
    struct workers *all = door->all;
    struct worker *to = &all->worker[all->turn++ % all->n];
    int one = 1;
    (void)ev, (void)len;
    if (sa->sa_family != AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (to == &all->worker[0]) {
        door_accepts[door->listener->kind](to, fd, door->listener);
        return;
    }
    struct arrival *a = calloc(1, sizeof *a);
    if (!a)
        abort();
    *a = (struct arrival){{NULL, arrive}, to, door->listener, fd};
    mailbox_post(to->mailbox, &a->letter);
}

static void rested(evutil_socket_t fd, short what, void *arg)
{
    struct door *door = arg;
    (void)fd, (void)what;
    evconnlistener_enable(door->ev);
}

static void accept_failed(struct evconnlistener *ev, void *arg)
{
    struct door *door = arg;
    struct timeval second = {1, 0};
    log_say(LOG_LEVEL_ERROR, "%s: cannot accept connections: %s; trying again in a second",
            door->listener->socket, strerror(errno));
    evconnlistener_disable(ev);
    evtimer_add(door->rest, &second);
}

void worker_join(struct worker *w, struct connection *c,
                 void (*leave)(struct connection *, bool now))
{
    c->leave = leave;
    c->next = w->connections;
    c->at = &w->connections;
    if (c->next)
        c->next->at = &c->next;
    w->connections = c;
    atomic_fetch_add(&w->sessions, 1);
}

void worker_part(struct worker *w, struct connection *c)
{
    *c->at = c->next;
    if (c->next)
        c->next->at = c->at;
    atomic_fetch_sub(&w->sessions, 1);
}

/* ---- starting and ending ---- */

static void *run(void *arg)
{
    struct worker *w = arg;
    store_thread_enter(w->past);
    event_base_loop(w->base, EVLOOP_NO_EXIT_ON_EMPTY);
    return NULL;
}

static int open_door(struct workers *all, size_t i, const struct listener *listener,
                     char error[512])
{
    struct door *door = &all->doors[i];
    int fd = place_open(listener->socket, listener->socket_mode, error);
    if (fd < 0)
        return -1;
    struct event_base *base = all->worker[0].base;
    door->all = all;
    door->listener = listener;
    door->rest = evtimer_new(base, rested, door);
    door->ev = evconnlistener_new(base, accepted, door,
                                  LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
    if (!door->ev || !door->rest)
        abort();
    evconnlistener_set_error_cb(door->ev, accept_failed);
    return 0;
}

void workers_hang_up(struct workers *all)
{
    for (size_t i = 0; i < all->n; i++)
        while (all->worker[i].connections)
            all->worker[i].connections->leave(all->worker[i].connections, true);
}

static void free_all(struct workers *all)
{
    workers_hang_up(all);
    for (size_t i = 0; i < all->ndoors; i++) {
        struct door *d = &all->doors[i];
        if (d->ev)
            evconnlistener_free(d->ev);
        if (d->rest)
            event_free(d->rest);
        if (d->listener && strncmp(d->listener->socket, "unix:", 5) == 0)
            unlink(d->listener->socket + 5);
    }
    for (size_t i = 0; i < all->n; i++) {
        struct worker *w = &all->worker[i];
        store_thread_close(&w->past);
        mailbox_free(&w->mailbox);
        keys_close(&w->keys);
        config_drop(&w->config);
        event_base_free(w->base);
    }
    config_drop(&all->config);
    free(all->doors);
    free(all->worker);
    free(all->thread);
    free(all);
}

static void worker_init(struct worker *w, unsigned number, struct config *config,
                        struct pipeline *pipeline)
{
    w->number = number;
    w->base = event_base_new();
    if (!w->base || keys_open(&w->keys, config->site_key) < 0)
        abort();
    w->mailbox = mailbox_new(w->base);
    w->pipeline = pipeline;
    w->config = config_hold(config);
    w->past = store_thread_open(pipeline->store, w->base);
}

/* Those we may run on: taskset and cpusets count. */
static size_t processors(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? (size_t)CPU_COUNT(&set) : 1;
}

struct workers *workers_start(struct config *config, struct pipeline *pipeline, char error[512])
{
    struct workers *all = calloc(1, sizeof *all);
    size_t n = config->workers ? config->workers : processors();
    if (!all || !(all->worker = calloc(n, sizeof *all->worker)) ||
        !(all->thread = calloc(n, sizeof *all->thread)) ||
        !(all->doors = calloc(config->nlisteners + 1, sizeof *all->doors)))
        abort();
    all->n = n;
    all->config = config_hold(config); /* the listeners' names live in it */
    for (size_t i = 0; i < n; i++)
        worker_init(&all->worker[i], (unsigned)i, config, pipeline);
    for (size_t i = 0; i < config->nlisteners; i++) {
        if (open_door(all, i, &config->listeners[i], error) < 0) {
            free_all(all);
            return NULL;
        }
        all->ndoors = i + 1;
    }
    for (size_t i = 0; i < n; i++)
        if (pthread_create(&all->thread[i], NULL, run, &all->worker[i]))
            abort();
    return all;
}

/* ---- do they live? ---- */

static void called(struct letter *letter)
{
    (void)FAILPOINT("mail-thread");
    atomic_store(&((struct call *)letter)->posted, 0);
}

int64_t workers_call(struct workers *all, int64_t mono)
{
    int64_t longest = 0;
    for (size_t i = 0; i < all->n; i++) {
        struct call *c = &all->worker[i].call;
        int64_t posted = atomic_load(&c->posted);
        if (posted) {
            longest = mono - posted > longest ? mono - posted : longest;
            continue;
        }
        c->letter.open = called;
        atomic_store(&c->posted, mono);
        mailbox_post(all->worker[i].mailbox, &c->letter);
    }
    return longest;
}

struct reload {
    struct letter letter; /* must be first */
    struct worker *worker;
    struct config *config;
};

static void reloaded(struct letter *letter)
{
    struct reload *r = (struct reload *)letter;
    config_drop(&r->worker->config);
    r->worker->config = r->config;
    free(r);
}

void workers_reload(struct workers *all, struct config *config)
{
    for (size_t i = 0; i < all->n; i++) {
        struct reload *r = calloc(1, sizeof *r);
        if (!r)
            abort();
        *r = (struct reload){{NULL, reloaded}, &all->worker[i], config_hold(config)};
        mailbox_post(all->worker[i].mailbox, &r->letter);
    }
}

/* Stopping runs in every thread; the listeners are thread 0's. */
struct stop {
    struct letter letter; /* must be first */
    struct workers *all;
    struct worker *worker;
};

/* Closed at once: an MTA that is refused does at once what it does without us; one that waits in
 * the backlog would be hung up on later. */
static void stop_accepting(struct workers *all)
{
    for (size_t i = 0; i < all->ndoors; i++) {
        event_del(all->doors[i].rest);
        evconnlistener_free(all->doors[i].ev);
        all->doors[i].ev = NULL;
    }
}

static void stop_worker(struct letter *letter)
{
    struct stop *stop = (struct stop *)letter;
    struct worker *w = stop->worker;
    if (w->number == 0)
        stop_accepting(stop->all);
    free(stop);
    w->leaving = true;
    for (struct connection *c = w->connections, *next; c; c = next) {
        next = c->next;
        c->leave(c, false);
    }
}

unsigned workers_sessions(const struct workers *all)
{
    unsigned n = 0;
    for (size_t i = 0; i < all->n; i++)
        n += atomic_load(&all->worker[i].sessions);
    return n;
}

void workers_stop(struct workers *all, int64_t ms)
{
    for (size_t i = 0; i < all->n; i++) {
        struct stop *stop = calloc(1, sizeof *stop);
        if (!stop)
            abort();
        *stop = (struct stop){{NULL, stop_worker}, all, &all->worker[i]};
        mailbox_post(all->worker[i].mailbox, &stop->letter);
    }
    int64_t until = clock_mono() + ms;
    while (workers_sessions(all) && clock_mono() < until)
        usleep(DRAIN_LOOK_MS * 1000);
    for (size_t i = 0; i < all->n; i++)
        event_base_loopexit(all->worker[i].base, NULL);
    for (size_t i = 0; i < all->n; i++)
        pthread_join(all->thread[i], NULL);
}

bool workers_letters(struct workers *all)
{
    bool any = false;
    for (size_t i = 0; i < all->n; i++)
        any |= mailbox_open(all->worker[i].mailbox);
    return any;
}

void workers_free(struct workers **allp)
{
    if (*allp)
        free_all(*allp);
    *allp = NULL;
}
