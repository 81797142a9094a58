/*
 * worker.c - the mail threads, and the sockets they get their connections from.
 *
 * Every listening socket belongs to thread 0. A new connection is a letter to the thread whose turn
 * it is. When descriptors run out the listener rests for a second instead of spinning.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/listener.h>

#include "worker.h"

enum { BACKLOG = 1024, DRAIN_LOOK_MS = 20 };

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
        char *address;
    } * doors;
    size_t ndoors;
};

/* ---- sockets ---- */

/* "HOST:PORT", "[HOST]:PORT" or "PORT@HOST" into its two parts; false if it is neither. */
static bool host_port(const char *text, char host[64], unsigned long *port)
{
    const char *at = strchr(text, '@');
    const char *colon = strrchr(text, ':');
    const char *h = at ? at + 1 : text;
    const char *p = at ? text : colon ? colon + 1 : NULL;
    if (!p)
        return false;
    size_t n = at ? strlen(h) : (size_t)(colon - text);
    if (n >= 2 && h[0] == '[' && h[n - 1] == ']')
        h++, n -= 2;
    if (n == 0 || n >= 64)
        return false;
    memcpy(host, h, n);
    host[n] = '\0';
    char *end;
    if (*p < '0' || *p > '9')
        return false;
    *port = strtoul(p, &end, 10);
    return *port <= 65535 && (at ? end == at : *end == '\0');
}

int socket_parse(const char *text, struct sockaddr_storage *out, socklen_t *len)
{
    memset(out, 0, sizeof *out);
    if (strncmp(text, "unix:", 5) == 0) {
        struct sockaddr_un *un = (struct sockaddr_un *)out;
        un->sun_family = AF_UNIX;
        size_t n = strlen(text + 5);
        if (n == 0 || n >= sizeof un->sun_path)
            return -1;
        memcpy(un->sun_path, text + 5, n + 1);
        *len = sizeof *un;
        return 0;
    }
    if (strncmp(text, "inet:", 5) == 0)
        text += 5;
    else if (strncmp(text, "inet6:", 6) == 0)
        text += 6;
    char host[64];
    unsigned long port;
    if (!host_port(text, host, &port))
        return -1;
    struct sockaddr_in *in = (struct sockaddr_in *)out;
    if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        in->sin_port = htons((uint16_t)port);
        *len = sizeof *in;
        return 0;
    }
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;
    if (inet_pton(AF_INET6, host, &in6->sin6_addr) != 1)
        return -1;
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons((uint16_t)port);
    *len = sizeof *in6;
    return 0;
}

/* A unix socket file that nobody answers behind is left over from a crash: remove it. */
static void remove_stale(const struct sockaddr_storage *ss, socklen_t len)
{
    const char *path = ((const struct sockaddr_un *)ss)->sun_path;
    struct stat st;
    if (lstat(path, &st) || !S_ISSOCK(st.st_mode))
        return;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (connect(fd, (const struct sockaddr *)ss, len) < 0 && errno == ECONNREFUSED)
        unlink(path);
    close(fd);
}

int listen_open(const char *text, int mode, char error[512])
{
    struct sockaddr_storage ss;
    socklen_t len;
    if (socket_parse(text, &ss, &len) < 0) {
        snprintf(error, 512,
                 "\"%.200s\" is no socket address: expected inet:PORT@ADDRESS or unix:/path", text);
        return -1;
    }
    if (ss.ss_family == AF_UNIX)
        remove_stale(&ss, len);
    int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int one = 1;
    mode_t old = umask(ss.ss_family == AF_UNIX ? (mode_t)(0777 & ~mode) : 022);
    bool open = fd >= 0 &&
                (ss.ss_family == AF_UNIX ||
                 setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0) &&
                bind(fd, (const struct sockaddr *)&ss, len) == 0 && listen(fd, BACKLOG) == 0;
    umask(old);
    if (open)
        return fd;
    snprintf(error, 512, "cannot listen on %.200s: %s", text, strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

/* The address a socket got, in the form listen_open takes. */
static char *address_of(int fd, const char *text)
{
    struct sockaddr_storage ss;
    socklen_t len = sizeof ss;
    char host[INET6_ADDRSTRLEN] = "", *out = NULL;
    memset(&ss, 0, sizeof ss);
    if (strncmp(text, "unix:", 5) == 0 || getsockname(fd, (struct sockaddr *)&ss, &len) < 0)
        return strdup(text);
    bool six = ss.ss_family == AF_INET6;
    const void *addr = six ? (const void *)&((struct sockaddr_in6 *)&ss)->sin6_addr
                           : (const void *)&((struct sockaddr_in *)&ss)->sin_addr;
    unsigned port = ntohs(six ? ((struct sockaddr_in6 *)&ss)->sin6_port
                              : ((struct sockaddr_in *)&ss)->sin_port);
    inet_ntop(ss.ss_family, addr, host, sizeof host);
    if (asprintf(&out, "%s:%u@%s", six ? "inet6" : "inet", port, host) < 0)
        abort();
    return out;
}

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
            door->address, strerror(errno));
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
    event_base_loop(w->base, EVLOOP_NO_EXIT_ON_EMPTY);
    return NULL;
}

static int open_door(struct workers *all, size_t i, const struct listener *listener,
                     char error[512])
{
    struct door *door = &all->doors[i];
    int fd = listen_open(listener->socket, listener->socket_mode, error);
    if (fd < 0)
        return -1;
    struct event_base *base = all->worker[0].base;
    door->all = all;
    door->listener = listener;
    door->address = address_of(fd, listener->socket);
    door->rest = evtimer_new(base, rested, door);
    door->ev = evconnlistener_new(base, accepted, door,
                                  LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
    if (!door->ev || !door->rest)
        abort();
    evconnlistener_set_error_cb(door->ev, accept_failed);
    return 0;
}

static void free_all(struct workers *all)
{
    for (size_t i = 0; i < all->ndoors; i++) {
        struct door *d = &all->doors[i];
        if (d->ev)
            evconnlistener_free(d->ev);
        if (d->rest)
            event_free(d->rest);
        if (d->listener && strncmp(d->listener->socket, "unix:", 5) == 0)
            unlink(d->listener->socket + 5);
        free(d->address);
    }
    for (size_t i = 0; i < all->n; i++) {
        struct worker *w = &all->worker[i];
        while (w->connections) /* those that did not end in time */
            w->connections->leave(w->connections, true);
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

const char *workers_address(struct workers *all, size_t i)
{
    return i < all->ndoors ? all->doors[i].address : NULL;
}
