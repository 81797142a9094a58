/*
 * main.c - breakwaterd: reads the configuration, starts the three kinds of threads, waits for
 * signals.
 *
 *   SIGHUP   read the configuration again; if anything is wrong with it, keep the old one
 *   SIGTERM, SIGINT   stop accepting, let sessions end, finish every hold, exit 0
 */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/thread.h>

#include "alarm.h"
#include "decisions.h"
#include "desk.h"
#include "fellows.h"
#include "fleet.h"
#include "ledger.h"
#include "news.h"
#include "recall.h"
#include "smtp_door.h"
#include "store_redis.h"
#include "versions.h"
#include "watch.h"

enum { DRAIN_MS = 10000, LOOK_MS = 250, READ_MS = 950, SILENT_MS = 5000 };

struct daemon {
    const char *file;
    struct config *config;
    struct pipeline pipeline;
    struct keys keys;
    struct standing_times times; /* of relays, while the daemon runs */
    struct workers *workers;
    struct desk *desk;
    struct news *news; /* for the fleet */
    int64_t watchdog;  /* ms the service manager waits for a sign of life; 0: it does not */
    int64_t alive;     /* monotonic: when the last was sent */
    bool silent;       /* a mail thread does not answer */
    struct guard_reading reading;
    int64_t read; /* monotonic: when */
};

static void usage(FILE *to)
{
    fputs("usage: breakwaterd [-htV] [-f FILE]\n"
          "  -f FILE  configuration (default /etc/breakwater/breakwater.conf)\n"
          "  -t       check the configuration and exit: 0 good, 1 with one sentence\n"
          "  -h       print this\n"
          "  -V       print the version\n",
          to);
}

/* Tells systemd (Type=notify) without its library: sd_notify(3) is one datagram. */
static void notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    size_t n = path ? strlen(path) : 0;
    if (n == 0 || n >= sizeof un.sun_path)
        return;
    memcpy(un.sun_path, path, n);
    if (un.sun_path[0] == '@')
        un.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
    if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&un, len) < 0)
        log_say(LOG_LEVEL_ERROR, "cannot notify the service manager: %s", strerror(errno));
    close(fd);
}

/* ---- the guard, and the signs of life ---- */

/* How long the service manager waits (sd_watchdog_enabled(3)). */
static int64_t watchdog_ms(void)
{
    const char *us = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    if (!us || (pid && strtol(pid, NULL, 10) != (long)getpid()))
        return 0;
    long long n = strtoll(us, NULL, 10) / 1000;
    return n > 0 ? n : 0;
}

/* While all mail threads answer: a daemon that hangs is killed and started anew, and the MTA lets
 * mail pass meanwhile. The desk and the keeper may be slow; mail does not wait for them. */
static void sign_of_life(struct daemon *d, int64_t mono)
{
    int64_t limit = d->watchdog ? d->watchdog / 2 : SILENT_MS;
    bool silent = workers_call(d->workers, mono) >= limit;
    if (silent != d->silent)
        log_say(silent ? LOG_LEVEL_ERROR : LOG_LEVEL_NOTICE, "%s",
                silent ? "a mail thread does not answer" : "all mail threads answer again");
    d->silent = silent;
    if (!d->watchdog || silent || mono - d->alive < d->watchdog / 4)
        return;
    d->alive = mono;
    notify("WATCHDOG=1");
}

static void govern(void *arg, unsigned connections)
{
    struct daemon *d = arg;
    clients_govern(smtp_doors_clients(d->pipeline.doors), connections);
}

static unsigned in_use(void *arg)
{
    struct daemon *d = arg;
    return clients_count(smtp_doors_clients(d->pipeline.doors));
}

static void raise_alarm(void *arg, const char *subject, const char *text,
                        const struct guard_action *a, enum mode in_force)
{
    struct daemon *d = arg;
    const struct alarm_fact facts[] = {{"CAUSE", guard_cause_name(a->cause)},
                                       {"MODE", mode_name(in_force)},
                                       {"REASON", a->reason},
                                       {NULL, NULL}};
    alarm_send(d->pipeline.alarm, subject, text, facts);
}

static void begin_watch(struct daemon *d)
{
    char error[512];
    bool damaged;
    struct watch_hands hands = {.rules = d->pipeline.rules,
                                .keeper = d->pipeline.keeper,
                                .arg = d,
                                .govern = govern,
                                .in_use = in_use,
                                .alarm = raise_alarm};
    /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): start() has the configuration in hand */
    struct hold *view = hold_open(d->config->hold_path, false, &damaged, error);
    d->pipeline.alarm = alarm_new(d->config);
    d->pipeline.watch = watch_new(d->config, &hands, view);
    hold_close(&view);
    d->watchdog = watchdog_ms();
}

/* Some times a second, in the main thread: nothing here waits. */
static void look_around(struct daemon *d)
{
    int64_t mono = clock_mono();
    if (!d->read || mono - d->read >= READ_MS) {
        figures_read(d->pipeline.figures, clock_now(), &d->reading);
        d->read = mono;
    }
    watch_tick(d->pipeline.watch, &d->reading, clock_now(), mono);
    alarm_tick(d->pipeline.alarm, mono);
    if (d->pipeline.fleet)
        store_redis_allow(d->pipeline.store, fleet_shares(d->pipeline.fleet));
    versions_tick(d->pipeline.versions, mono);
    sign_of_life(d, mono);
}

static uint64_t size_of(const char *dir, const char *name)
{
    char path[4096];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

/* The keeper's work beside holding, four times a second. */
static void each_tick(void *arg)
{
    struct daemon *d = arg;
    const char *dir = d->config->hold_path;
    journal_flush(d->pipeline.journal, clock_now());
    ledger_flush(d->pipeline.ledger, d->pipeline.keeper);
    if (d->pipeline.recall)
        recall_tick(d->pipeline.recall, clock_now());
    bool full = size_of(dir, "hold.db") + size_of(dir, "hold.db-wal") >= d->config->hold_max_bytes;
    if (full != atomic_exchange(&d->pipeline.hold_full, full))
        log_say(
            full ? LOG_LEVEL_ERROR : LOG_LEVEL_NOTICE, "%s",
            full ? "the hold queue has reached hold.max_bytes: further copies pass or are refused"
                 : "the hold queue has room again");
}

/* Modes of listeners' own: settings "mode.NAME"; "same" is none. */
static void own_modes(const struct config *config, struct hold *view, struct rules *rules)
{
    for (size_t i = 0; i < config->nlisteners; i++) {
        enum mode mode;
        char setting[300], name[32];
        snprintf(setting, sizeof setting, "mode.%s", config->listeners[i].name);
        if (hold_setting_get(view, setting, name, sizeof name) == 0 && mode_find(name, &mode))
            rules_set_mode(rules, config->listeners[i].name, mode);
    }
}

/* The mode lives in the hold database; unreadable means monitor, absent what the configuration
 * says. */
static enum mode mode_in_force(const struct config *config, struct rules *rules)
{
    char error[512], name[32];
    bool damaged;
    struct hold *view = hold_open(config->hold_path, false, &damaged, error);
    if (!view) {
        log_say(LOG_LEVEL_ERROR, "%s; starting in monitor mode", error);
        return MODE_MONITOR;
    }
    enum mode mode = config->mode;
    if (hold_setting_get(view, "mode", name, sizeof name) == 0 && !mode_find(name, &mode))
        mode = MODE_MONITOR;
    own_modes(config, view, rules);
    hold_close(&view);
    return mode;
}

/* Before any mail: the first further copy through a relay that is known is held. */
static void know_relays(struct daemon *d, const struct config *c)
{
    struct pipeline *p = &d->pipeline;
    bool damaged;
    char error[512];
    if (keys_open(&d->keys, c->site_key) < 0)
        abort();
    d->times = standing_defaults;
    d->times.probation = c->site.relay_probation;
    p->relays = relays_new(p->store, &d->keys, &d->times);
    struct hold *view = hold_open(c->hold_path, false, &damaged, error);
    if (!view || relays_load(p->relays, view) < 0)
        log_say(LOG_LEVEL_ERROR, "the relays that misbehaved cannot be read: %s",
                view ? "the hold database is damaged" : error);
    hold_close(&view);
    relays_tick(p->relays, clock_now());
}

/* Storms of the last 400 days, by which one that comes back is known again. */
static void know_incidents(struct daemon *d, const struct config *c)
{
    char error[512];
    bool damaged;
    struct pipeline *p = &d->pipeline;
    p->incidents = incidents_new(p->store, &c->site);
    incidents_tell(p->incidents, p->relays);
    struct hold *view = hold_open(c->hold_path, false, &damaged, error);
    if (!view || incidents_load(p->incidents, view, clock_now()) < 0)
        log_say(LOG_LEVEL_ERROR, "the storms of the past cannot be read: %s",
                view ? "the hold database is damaged" : error);
    hold_close(&view);
}

/* Who was told to come again is known when he does. */
static void know_refusals(struct pipeline *p, const struct config *c)
{
    char error[512];
    bool damaged;
    p->ledger = ledger_new();
    struct hold *view = hold_open(c->hold_path, false, &damaged, error);
    if (!view || ledger_load(p->ledger, view, clock_now()) < 0)
        log_say(LOG_LEVEL_ERROR, "the refusals of the last day cannot be read: %s",
                view ? "the hold database is damaged" : error);
    hold_close(&view);
}

/* What people decided for a while and is not over yet. */
static struct entries *entries_in_force(const struct config *config)
{
    char error[512];
    bool damaged;
    struct hold *view = hold_open(config->hold_path, false, &damaged, error);
    struct entries *entries = view ? decisions_load(view, clock_now()) : NULL;
    if (!entries)
        log_say(LOG_LEVEL_ERROR, "what people decided for a while cannot be read: %s",
                view ? "the hold database is damaged" : error);
    hold_close(&view);
    return entries;
}

static struct rules *first_rules(const struct config *config)
{
    struct rules *rules = rules_copy(NULL);
    rules->entries = entries_in_force(config);
    rules->mode = mode_in_force(config, rules);
    return rules;
}

/* Before any mail: the version in force, and its modes. */
static void know_rules(struct daemon *d, struct config *c)
{
    struct pipeline *p = &d->pipeline;
    struct rules *rules = first_rules(c);
    p->versions = versions_start(c, p->keeper, rules);
    p->rules = rulebook_new(rules);
    versions_use(p->versions, p->rules, p->recall);
}

/* ---- the fleet ---- */

static const char *mode_of(void *arg)
{
    return mode_name(pipeline_mode(&((struct daemon *)arg)->pipeline));
}

static void fleet_alarm(void *arg, const char *subject, const char *text)
{
    alarm_send(((struct daemon *)arg)->pipeline.alarm, subject, text, NULL);
}

/* What the other nodes' status shows of this one. */
static json_t *fleet_figures(void *arg)
{
    struct pipeline *p = &((struct daemon *)arg)->pipeline;
    struct watch_figures w = {0};
    json_t *j = json_object();
    if (p->watch)
        watch_figures(p->watch, &w);
    json_object_set_new(j, "held", json_integer((json_int_t)figures_held_now(p->figures)));
    json_object_set_new(j, "guard", json_string(w.tripped ? "tripped" : "watching"));
    return j;
}

static json_t *fellows_nodes(void *arg)
{
    json_t *all = fleet_document(((struct daemon *)arg)->pipeline.fleet);
    json_t *nodes = json_incref(json_object_get(all, "nodes"));
    json_decref(all);
    return nodes;
}

static void fellows_hurry(void *arg)
{
    fleet_hurry(((struct daemon *)arg)->pipeline.fleet);
}

static bool fellows_share(void *arg)
{
    return fleet_speaks(((struct daemon *)arg)->pipeline.fleet);
}

/* People at one node see and change what all have. */
static void know_fellows(struct daemon *d)
{
    struct pipeline *p = &d->pipeline;
    const struct fellows_setup setup = {.node = (const char *)d->config->site.node.p,
                                        .number = d->config->node_number,
                                        .arg = d,
                                        .nodes = fellows_nodes,
                                        .hurry = fellows_hurry,
                                        .shares = fellows_share};
    p->fellows = fellows_new(&setup);
    for (unsigned i = 0; i < FELLOWS_WIRES; i++) {
        void *arg;
        const struct fleet_topic *topic = fellows_topic(p->fellows, (enum fellows_wire)i, &arg);
        fleet_tell(p->fleet, topic, arg);
    }
}

/* After everything of the past was read, before mail. */
static void join_fleet(struct daemon *d)
{
    char error[512];
    struct pipeline *p = &d->pipeline;
    const struct fleet_setup setup = {.config = d->config,
                                      .redis = &d->config->redis,
                                      .key_id = d->keys.id,
                                      .arg = d,
                                      .mode = mode_of,
                                      .figures = fleet_figures,
                                      .alarm = fleet_alarm};
    if (d->config->store_backend != STORE_REDIS)
        return;
    p->fleet = fleet_new(&setup);
    d->news = news_new(p->store, p->recall);
    fleet_tell(p->fleet, &news_tallies, d->news);
    fleet_tell(p->fleet, &news_digests, d->news);
    know_fellows(d);
    if (fleet_start(p->fleet, error) < 0)
        log_die("%s", error);
    store_redis_allow(p->store, fleet_shares(p->fleet));
}

static void tell_listener(const struct listener *l)
{
    if (l->kind == DOOR_SMTP)
        log_say(LOG_LEVEL_NOTICE, "listening: smtp %s on %s, before %s%s", l->name, l->socket,
                l->downstream,
                !l->certificate ? ""
                : l->implicit   ? ", TLS"
                                : ", STARTTLS");
    else
        log_say(LOG_LEVEL_NOTICE, "listening: milter %s on %s", l->name, l->socket);
}

static void start(struct daemon *d)
{
    char error[512];
    struct config *c = d->config;
    struct pipeline *p = &d->pipeline;
    p->figures = figures_new(d->config);
    p->days = days_new(p->figures);
    if (!(p->keeper = keeper_start(c->hold_path, error)))
        log_die("%s", error);
    struct keeper_figures figures;
    keeper_figures(p->keeper, &figures);
    if (figures.damaged)
        log_say(LOG_LEVEL_ERROR,
                "the hold database was damaged: what could be read was kept, the "
                "damaged file was set aside in %s",
                c->hold_path);
    if (!(p->journal = journal_open(c->hold_path, c->journal_keep, error)))
        log_die("%s", error);
    p->store = c->store_backend == STORE_NONE ? store_none_open()
                                              : store_memory_open(&c->site, c->store_memory);
    if (c->store_backend == STORE_REDIS)
        store_redis_share(p->store, &c->redis, c->site_key);
    know_relays(d, c);
    if (c->store_backend != STORE_NONE)
        p->recall = recall_start(c, d->keys.id, p->store, p->keeper);
    if (p->recall)
        recall_texts(p->recall, relays_texts(p->relays));
    know_incidents(d, c);
    know_refusals(p, c);
    know_rules(d, c);
    if (!(p->doors = smtp_doors_new(c, error)))
        log_die("%s", error);
    begin_watch(d);
    join_fleet(d);
    keeper_on_tick(p->keeper, each_tick, d);
    if (!(d->workers = workers_start(c, p, error)))
        log_die("%s", error);
    if (!(d->desk = desk_start(c, p, d->workers, error)))
        log_die("%s", error);
    const char *mode = mode_name(pipeline_mode(p));
    for (size_t i = 0; i < c->nlisteners; i++)
        tell_listener(&c->listeners[i]);
    log_say(LOG_LEVEL_NOTICE, "breakwaterd " BREAKWATER_VERSION " started, mode %s", mode);
    notify("READY=1");
}

static void reload(struct daemon *d)
{
    char error[512];
    struct config *fresh = config_load(d->file, CONFIG_RUN, error);
    if (!fresh) {
        log_say(LOG_LEVEL_ERROR, "%s; the old configuration stays in force", error);
        return;
    }
    if (smtp_doors_reload(d->pipeline.doors, fresh, error) < 0) {
        log_say(LOG_LEVEL_ERROR, "%s; the old configuration stays in force", error);
        config_drop(&fresh);
        return;
    }
    /* Threads keep pointers into the first configuration (its site, its paths): it stays alive as
     * d->config; policy, limits and detector parameters of new transactions come from the fresh
     * one. */
    workers_reload(d->workers, fresh);
    desk_reload(d->desk, fresh);
    versions_reload(d->pipeline.versions, fresh);
    fleet_reload(d->pipeline.fleet, fresh);
    watch_reload(d->pipeline.watch, fresh);
    alarm_reload(d->pipeline.alarm, fresh);
    log_open(fresh->log_to, fresh->log_level);
    config_drop(&fresh);
    log_say(LOG_LEVEL_NOTICE,
            "configuration read again: limits, parameters and certificates are in force; "
            "sockets, paths and sizes need a restart");
}

/* A job behind all others: when it is done, their done letters have been posted. */
struct last_job {
    struct job job; /* must be first */
    sem_t done;
};

static int last_run(struct hold *hold, struct job *job)
{
    (void)hold, (void)job;
    return 0;
}

static void last_done(struct job *job)
{
    sem_post(&((struct last_job *)job)->done);
}

/* A hold that became durable after its message went another way is taken out again by the letter
 * that says so; that is another job, so it takes turns until there is no letter. */
static void settle_holds(struct daemon *d)
{
    do {
        struct last_job last = {.job = {.run = last_run, .done = last_done}};
        sem_init(&last.done, 0, 0);
        keeper_submit(d->pipeline.keeper, &last.job);
        while (sem_wait(&last.done) && errno == EINTR)
            ;
        sem_destroy(&last.done);
    } while (workers_letters(d->workers));
}

static void stop(struct daemon *d)
{
    struct pipeline *p = &d->pipeline;
    log_say(LOG_LEVEL_NOTICE, "stopping: %u sessions open", workers_sessions(d->workers));
    notify("STOPPING=1");
    workers_stop(d->workers, DRAIN_MS);
    desk_stop(&d->desk);
    settle_holds(d); /* what became durable meanwhile is still answered */
    workers_hang_up(d->workers);
    settle_holds(d); /* what was held of messages that did not get through is taken out again */
    if (p->recall)
        recall_save(p->recall);
    ledger_flush(p->ledger, p->keeper);
    keeper_stop(&p->keeper);
    workers_free(&d->workers);
    fleet_stop(&p->fleet);
    fellows_free(&p->fellows);
    news_free(&d->news);
    watch_free(&p->watch);
    alarm_free(&p->alarm);
    smtp_doors_free(&p->doors);
    journal_flush(p->journal, clock_now());
    journal_close(&p->journal);
    recall_stop(&p->recall);
    incidents_free(&p->incidents);
    relays_free(&p->relays);
    days_free(&p->days);
    figures_free(&p->figures);
    keys_close(&d->keys);
    store_close(&p->store);
    versions_free(&p->versions);
    rulebook_free(&p->rules);
    ledger_free(&p->ledger);
    log_say(LOG_LEVEL_NOTICE, "stopped");
    config_drop(&d->config);
}

/* Every connection is a descriptor; the soft limit is meant for select(2), which we never call. */
static void want_descriptors(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
        r.rlim_cur = r.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &r);
    }
}

/* The next signal; between them there is something to look at. */
static int next_signal(struct daemon *d, const sigset_t *set)
{
    for (;;) {
        int sig = sigtimedwait(set, NULL, &(struct timespec){.tv_nsec = LOOK_MS * 1000000L});
        if (sig > 0)
            return sig;
        if (errno == EAGAIN)
            look_around(d);
    }
}

static void serve(struct daemon *d)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* before any thread starts: all inherit it */
    signal(SIGPIPE, SIG_IGN);
    umask(0077);              /* what we write is other people's mail */
    signal(SIGXFSZ, SIG_IGN); /* a file at its limit is a full disk, not the end */
    want_descriptors();
    start(d);
    while (next_signal(d, &set) == SIGHUP) {
        reload(d);
        look_around(d); /* however many of them come */
    }
    stop(d);
}

int main(int argc, char **argv)
{
    static struct daemon d = {.file = "/etc/breakwater/breakwater.conf"};
    bool check = false;
    int o;
    while ((o = getopt(argc, argv, "f:tVhk")) != -1) {
        switch (o) {
        case 'f':
            d.file = optarg;
            break;
        case 't':
            check = true;
            break;
        case 'k': /* for tests/options.sh */
            config_print_keys(stdout);
            return 0;
        case 'V':
            puts("breakwaterd " BREAKWATER_VERSION);
            return 0;
        default:
            usage(o == 'h' ? stdout : stderr);
            return o == 'h' ? 0 : 2;
        }
    }
    if (optind != argc) {
        usage(stderr);
        return 2;
    }
    if (evthread_use_pthreads() < 0)
        log_die("libevent has no threads here");
    char error[512];
    d.config = config_load(d.file, check ? CONFIG_CHECK : CONFIG_START, error);
    if (!d.config) {
        fprintf(stderr, "breakwaterd: %s\n", error);
        return 1;
    }
    if (d.config->policy_fault && !versions_stored(d.config->hold_path)) {
        fprintf(stderr, "breakwaterd: %s\n", d.config->policy_fault);
        config_drop(&d.config);
        return 1;
    }
    if (check) {
        printf("%s: the configuration is good (%zu rules%s)\n", d.file,
               policy_rules(d.config->policy),
               d.config->nlisteners ? "" : "; no milter or smtp section: no mail will be judged");
        config_drop(&d.config);
        return 0;
    }
    log_open(d.config->log_to, d.config->log_level);
    serve(&d);
    return 0;
}
