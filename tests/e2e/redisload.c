/*
 * redisload.c - calls to a Redis, as a mail thread makes them: prints as one JSON line what became
 * of them and how long they took.
 *
 * redisload [-s server]... [-c] [-S sentinel]... [-M master] [-u user] [-P password_file]
 *           [-n database] [-t] [-a ca] [-N name] [-C certificate] [-K key] [-d deadline_ms]
 *           [-w depth] [-l calls] [-T seconds] [-k keys] [-x incr|get|script|ping] [-i] [-v]
 *
 * -c a cluster; -w calls open at any time; -k different keys; -i does not wait for a connection;
 * -v a line each half second, with what went wrong since the last. SIGTERM ends it before its time.
 */
#include <event2/event.h>
#include <getopt.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "id.h"
#include "log.h"
#include "redis.h"

enum { DEPTH_MAX = 10000, SAMPLES = 1 << 20 };

static struct redis_script increase = {
    .text = "return redis.call('INCRBY', KEYS[1], ARGV[1])",
};

struct lane {
    struct event *retry;
    unsigned key;
    int64_t sent; /* us */
};

static struct load {
    struct event_base *base;
    struct redis *redis;
    struct redis_settings settings;
    char what;
    unsigned depth, keys, open;
    long long limit, calls, ok, errors;
    int64_t seconds, begun, end; /* s; us; us */
    bool impatient, verbose, over;
    long long bad, worst; /* since the last line */
    unsigned nsamples;
    uint32_t *samples;
    struct lane lanes[DEPTH_MAX];
    char first_error[200];
} load;

static void go(struct lane *);

static void done(void *arg, const struct redisReply *r, const char *why)
{
    struct lane *l = arg;
    int64_t us = clock_micros() - l->sent;
    load.open--;
    if (us > load.worst)
        load.worst = us;
    if (load.nsamples < SAMPLES)
        load.samples[load.nsamples++] = (uint32_t)us;
    bool error = !r || r->type == REDIS_REPLY_ERROR;
    load.ok += !error;
    load.errors += error;
    load.bad += error;
    if (error && !load.first_error[0])
        snprintf(load.first_error, sizeof load.first_error, "%s", r ? r->str : why);
    static const struct timeval soon = {.tv_usec = 1000};
    if (error)
        evtimer_add(l->retry, &soon);
    else
        go(l);
}

static void stop_if_over(void)
{
    if (load.over && load.open == 0)
        event_base_loopbreak(load.base);
}

static void go(struct lane *l)
{
    char key[64];
    int64_t now = clock_micros();
    load.over |= (load.limit && load.calls >= load.limit) || (load.end && now >= load.end);
    if (load.over) {
        stop_if_over();
        return;
    }
    int n = snprintf(key, sizeof key, "bwload:%u", l->key++ % load.keys);
    struct span k = span_of(key, (size_t)n), one = SPAN("1");
    load.calls++;
    load.open++;
    l->sent = now;
    if (load.what == 's') {
        redis_run(load.redis, &increase, k, &one, 1, 0, done, l);
        return;
    }
    struct span ping = SPAN("PING"), get[] = {SPAN("GET"), k}, incr[] = {SPAN("INCR"), k};
    if (load.what == 'p')
        redis_send(load.redis, k, &ping, 1, 0, done, l);
    else
        redis_send(load.redis, k, load.what == 'g' ? get : incr, 2, 0, done, l);
}

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    go(arg);
}

static void begin(void)
{
    load.begun = clock_micros();
    load.end = load.seconds ? load.begun + load.seconds * 1000000 : 0;
    for (unsigned i = 0; i < load.depth; i++) {
        load.lanes[i].key = i * 7919;
        go(&load.lanes[i]);
    }
}

/* Until it is connected; then every half second. */
static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    static int waited, ticks;
    (void)fd;
    (void)what;
    (void)arg;
    if (!load.begun && (redis_up(load.redis) || load.impatient || ++waited > 1000))
        begin();
    if (!load.begun || ++ticks % 50 || !load.verbose)
        return;
    const char *trouble = redis_trouble(load.redis);
    printf("{\"t\":%.1f,\"ok\":%lld,\"bad\":%lld,\"worst_us\":%lld,\"up\":%s,\"trouble\":\"%s\"}\n",
           (double)(clock_micros() - load.begun) / 1e6, load.ok, load.bad, load.worst,
           redis_up(load.redis) ? "true" : "false", trouble ? trouble : "");
    fflush(stdout);
    load.bad = load.worst = 0;
}

static void on_term(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
    load.over = true;
    stop_if_over();
}

static int by_size(const void *a, const void *b)
{
    uint32_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

static unsigned quantile(double q)
{
    return load.nsamples ? load.samples[(size_t)(q * (load.nsamples - 1))] : 0;
}

static void report(void)
{
    struct redis_figures f;
    double s = (double)(clock_micros() - load.begun) / 1e6;
    redis_figures(load.redis, &f);
    qsort(load.samples, load.nsamples, sizeof *load.samples, by_size);
    printf("{\"calls\":%lld,\"ok\":%lld,\"errors\":%lld,\"seconds\":%.3f,\"per_second\":%.0f,"
           "\"p50_us\":%u,\"p99_us\":%u,\"max_us\":%u,\"faults\":{",
           load.calls, load.ok, load.errors, s, (double)load.ok / s, quantile(0.5), quantile(0.99),
           quantile(1));
    const char *comma = "";
    for (int i = 1; i < REDIS_FAULTS; i++) {
        if (f.faults[i])
            printf("%s\"%s\":%llu", comma, redis_fault_name((enum redis_fault)i),
                   (unsigned long long)f.faults[i]);
        comma = f.faults[i] ? "," : comma;
    }
    printf("},\"servers\":%u,\"up\":%u,\"connections\":%llu,\"openings\":%llu,"
           "\"redirections\":%llu,\"scripts\":%llu,\"broken\":%llu,\"late\":%llu,"
           "\"first_error\":\"%s\"}\n",
           f.servers, f.up, (unsigned long long)f.connections, (unsigned long long)f.openings,
           (unsigned long long)f.redirections, (unsigned long long)f.scripts,
           (unsigned long long)f.broken, (unsigned long long)f.late, load.first_error);
}

static void add(struct span **list, size_t *n, const char *value)
{
    struct span *grown = realloc(*list, (*n + 1) * sizeof **list);
    if (!grown)
        abort();
    grown[(*n)++] = span_str(value);
    *list = grown;
}

static void options(int argc, char **argv)
{
    struct redis_settings *s = &load.settings;
    static char password[REDIS_PASSWORD], error[REDIS_SETTINGS_ERROR];
    int c;
    *s = (struct redis_settings){.deadline = 50, .prefix = (char[]){"bw"}};
    load.depth = 64;
    load.keys = 1000;
    load.what = 'i';
    while ((c = getopt(argc, argv, "s:cS:M:u:P:n:ta:N:C:K:d:w:l:T:k:x:iv")) != -1) {
        switch (c) {
        case 's':
            add(&s->servers, &s->nservers, optarg);
            break;
        case 'c':
            s->cluster = true;
            break;
        case 'S':
            add(&s->sentinels, &s->nsentinels, optarg);
            break;
        case 'M':
            s->master = optarg;
            break;
        case 'u':
            s->user = optarg;
            break;
        case 'P':
            s->password_file = optarg;
            break;
        case 'n':
            s->database = (unsigned)atoi(optarg);
            break;
        case 't':
            s->tls = true;
            break;
        case 'a':
            s->ca = optarg;
            break;
        case 'N':
            s->name = optarg;
            break;
        case 'C':
            s->certificate = optarg;
            break;
        case 'K':
            s->key = optarg;
            break;
        case 'd':
            s->deadline = atoi(optarg);
            break;
        case 'w':
            load.depth = (unsigned)atoi(optarg);
            break;
        case 'l':
            load.limit = atoll(optarg);
            break;
        case 'T':
            load.seconds = atoi(optarg);
            break;
        case 'k':
            load.keys = (unsigned)atoi(optarg);
            break;
        case 'x':
            load.what = *optarg;
            break;
        case 'i':
            load.impatient = true;
            break;
        case 'v':
            load.verbose = true;
            break;
        default:
            exit(2);
        }
    }
    s->in_flight = 2 * load.depth + 16;
    if (s->password_file && redis_password_read(s->password_file, password, error) < 0)
        log_die("%s", error);
    s->password = s->password_file ? password : NULL;
    if (load.depth == 0 || load.depth > DEPTH_MAX || load.keys == 0 ||
        (!load.limit && !load.seconds) || (!s->nservers && !s->nsentinels))
        log_die("redisload: see the head of redisload.c for what it wants");
}

int main(int argc, char **argv)
{
    const struct timeval tick = {.tv_usec = 10 * 1000};
    log_open("stderr", LOG_LEVEL_INFO);
    options(argc, argv);
    redis_script_ready(&increase);
    load.base = event_base_new();
    load.samples = malloc(SAMPLES * sizeof *load.samples);
    struct event *ticks = event_new(load.base, -1, EV_PERSIST, on_tick, NULL);
    struct event *term = evsignal_new(load.base, SIGTERM, on_term, NULL);
    if (!load.base || !load.samples || !ticks || !term)
        abort();
    event_add(term, NULL);
    for (unsigned i = 0; i < load.depth; i++)
        load.lanes[i].retry = evtimer_new(load.base, on_retry, &load.lanes[i]);
    load.redis = redis_open(load.base, &load.settings);
    event_add(ticks, &tick);
    event_base_dispatch(load.base);
    report();
    redis_close(&load.redis);
    for (unsigned i = 0; i < load.depth; i++)
        event_free(load.lanes[i].retry);
    event_free(ticks);
    event_free(term);
    event_base_free(load.base);
    free(load.samples);
    free(load.settings.servers);
    free(load.settings.sentinels);
    return load.ok ? 0 : 1;
}
