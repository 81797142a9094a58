/*
 * desk.c - see desk.h. One thread, one loop, two timers:
 *
 *   1 s   the store forgets what is old; changed incidents and relays go to the keeper; samples of
 *         the figures are taken
 *   1 h   the keeper empties the bin of what is older than 30 days
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "alarm.h"
#include "api.h"
#include "api_figures.h"
#include "decisions.h"
#include "desk.h"
#include "fellows.h"
#include "hold_fellow.h"
#include "hold_refusal.h"
#include "ledger.h"
#include "log.h"
#include "summary.h"
#include "watch.h"

struct desk {
    struct config *config;
    struct pipeline *pipeline;
    pthread_t thread;
    struct event_base *base;
    struct mailbox *mailbox;
    struct event *second, *hour;
    unsigned seconds; /* since the start */
    struct hold *view;
    struct http *http;
    struct api api;
    _Atomic int64_t daily; /* config's log.daily */
    int64_t summed;        /* ms: when the last summary was made; 0: not known */
    bool noted;            /* the next life of the daemon will know */
};

/* When the last summary was made, for the next life of the daemon. */
struct setting_job {
    struct job job; /* must be first */
    char value[32];
};

static int setting_run(struct hold *hold, struct job *job)
{
    return hold_setting_set(hold, "summed_up", ((struct setting_job *)job)->value);
}

static void setting_done(struct job *job)
{
    free(job);
}

/* ---- timers ---- */

/* How full the queue is comes from the database: the keeper counts it there. */
static void count(struct desk *d, int64_t now)
{
    struct pipeline *p = d->pipeline;
    uint64_t held;
    if (hold_held(d->view, &held) == 0)
        figures_held(p->figures, held);
    figures_tick(p->figures, now);
    if (p->days)
        days_save(p->days, p->keeper, d->mailbox, now, false);
}

/* ---- the daily summary ---- */

static void note_summary(struct desk *d)
{
    d->noted = true;
    struct setting_job *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->job = (struct job){.run = setting_run, .done = setting_done, .home = d->mailbox};
    snprintf(s->value, sizeof s->value, "%lld", (long long)d->summed);
    keeper_submit(d->pipeline->keeper, &s->job);
}

static void send_summary(struct desk *d, int64_t now)
{
    struct pipeline *p = d->pipeline;
    struct balance b = {0};
    figures_balance(p->figures, NULL, now, &b);
    json_t *day = api_figures_last_day(p->days, d->view, now);
    json_t *storms = p->incidents ? incidents_latest(p->incidents, now, 1000) : NULL;
    json_t *relays = p->relays ? relays_list(p->relays) : NULL;
    json_t *guard = p->watch ? watch_document(p->watch) : NULL;
    const struct summary s = {.mode = mode_name(pipeline_mode(p)),
                              .last_day = day,
                              .storms = storms,
                              .relays = relays,
                              .guard = guard,
                              .unaccounted = b.unaccounted,
                              .now = now};
    static const struct alarm_fact facts[] = {{"REPORT", "daily"}, {NULL, NULL}};
    char *text = summary_text(&s);
    alarm_report(p->alarm, "breakwater: the last 24 hours", text, facts);
    free(text);
    json_decref(day);
    json_decref(storms);
    json_decref(relays);
    json_decref(guard);
}

/* The first day of an installation has none to sum up; when it began is noted at its end. */
static void sum_up(struct desk *d, int64_t now)
{
    char text[32];
    int64_t daily = atomic_load(&d->daily);
    if (!d->pipeline->days || daily >= SUMMARY_NEVER)
        return;
    if (!d->summed) {
        d->noted = hold_setting_get(d->view, "summed_up", text, sizeof text) == 0;
        d->summed = d->noted ? strtoll(text, NULL, 10) : now;
        if (d->summed > now) { /* the clock was wrong then */
            d->summed = now;
            d->noted = false;
        }
    }
    if (now < summary_next(d->summed, daily))
        return;
    send_summary(d, now);
    d->summed = now;
    note_summary(d);
}

static void each_second(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct desk *d = arg;
    struct pipeline *p = d->pipeline;
    int64_t now = clock_now();
    if (p->store)
        p->store->ops->tick(p->store, now);
    if (p->figures)
        count(d, now);
    sum_up(d, now);
    if (p->incidents)
        incidents_save(p->incidents, p->keeper, d->mailbox, now);
    if (p->relays) {
        relays_tick(p->relays, now);
        relays_save(p->relays, p->keeper, d->mailbox);
    }
    if (p->rules && ++d->seconds % 10 == 0)
        decisions_save(p->rules, p->keeper, d->mailbox);
}

/* Each run is a bounded piece: goes round until there is nothing left to do. */
struct purge {
    struct job job; /* must be first */
    struct desk *desk;
};

static int purge_run(struct hold *hold, struct job *job)
{
    const struct purge *p = (const struct purge *)job;
    int64_t now = clock_now();
    int n = hold_purge(hold, now), over = n < 0 ? -1 : hold_entry_purge(hold, now);
    int old = over < 0 ? -1 : hold_refusal_purge(hold, now);
    if (old > 0 && p->desk->pipeline->ledger)
        ledger_recount(p->desk->pipeline->ledger);
    return old < 0 ? -1 : n + over + old;
}

static void purge_done(struct job *job)
{
    struct purge *p = (struct purge *)job;
    bool more = job->result > 0 && p->desk->hour; /* no hour: the desk is closing */
    if (more)
        keeper_submit(p->desk->pipeline->keeper, job);
    else
        free(p);
}

static void each_hour(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct desk *d = arg;
    struct purge *p = calloc(1, sizeof *p);
    if (!p)
        abort();
    p->job = (struct job){.run = purge_run, .done = purge_done, .home = d->mailbox};
    p->desk = d;
    keeper_submit(d->pipeline->keeper, &p->job);
}

static struct event *timer(struct desk *d, int seconds, event_callback_fn fn)
{
    struct event *ev = event_new(d->base, -1, EV_PERSIST, fn, d);
    if (!ev || event_add(ev, &(struct timeval){seconds, 0}) < 0)
        abort();
    return ev;
}

void desk_reload(struct desk *d, const struct config *config)
{
    atomic_store(&d->daily, config->log_daily);
}

/* ---- stopping ---- */

struct farewell {
    struct letter letter; /* must be first */
    struct desk *desk;
};

/* Goes to the keeper and back, behind every job the desk has sent. Twice: what
 * changed while it was being saved is saved in the second round. */
struct barrier {
    struct job job; /* must be first */
    struct desk *desk;
    unsigned rounds;
};

static int barrier_run(struct hold *hold, struct job *job)
{
    (void)hold;
    (void)job;
    return 0;
}

static void barrier_back(struct job *job);

static void send_barrier(struct barrier *b)
{
    struct pipeline *p = b->desk->pipeline;
    if (p->incidents)
        incidents_save(p->incidents, p->keeper, b->desk->mailbox, clock_now());
    if (p->relays)
        relays_save(p->relays, p->keeper, b->desk->mailbox);
    if (p->rules)
        decisions_save(p->rules, p->keeper, b->desk->mailbox);
    if (p->days)
        days_save(p->days, p->keeper, b->desk->mailbox, clock_now(), true);
    if (b->desk->summed && !b->desk->noted)
        note_summary(b->desk);
    b->job = (struct job){.run = barrier_run, .done = barrier_back, .home = b->desk->mailbox};
    b->rounds--;
    keeper_submit(p->keeper, &b->job);
}

static void barrier_back(struct job *job)
{
    struct barrier *b = (struct barrier *)job;
    if (b->rounds) {
        send_barrier(b);
        return;
    }
    event_base_loopbreak(b->desk->base);
    free(b);
}

/* From here on nothing asks the keeper but the barrier. */
static void close_for_people(struct desk *d)
{
    http_close(&d->http);
    if (d->pipeline->fellows && d->second)
        fellows_leave(d->pipeline->fellows);
    release_free(&d->api.release);
    if (d->pipeline->alarm)
        alarm_leave(d->pipeline->alarm);
    if (d->second)
        event_free(d->second);
    if (d->hour)
        event_free(d->hour);
    d->second = d->hour = NULL;
}

static void say_farewell(struct letter *letter)
{
    struct barrier *b = calloc(1, sizeof *b);
    if (!b)
        abort();
    b->desk = ((struct farewell *)letter)->desk;
    b->rounds = 2;
    free(letter);
    close_for_people(b->desk);
    send_barrier(b);
}

static void desk_free(struct desk *d)
{
    close_for_people(d);
    mailbox_free(&d->mailbox);
    hold_close(&d->view);
    event_base_free(d->base);
    config_drop(&d->config);
    free(d);
}

void desk_stop(struct desk **desk)
{
    struct desk *d = *desk;
    if (!d)
        return;
    struct farewell *f = calloc(1, sizeof *f);
    if (!f)
        abort();
    f->letter.open = say_farewell;
    f->desk = d;
    mailbox_post(d->mailbox, &f->letter);
    pthread_join(d->thread, NULL);
    desk_free(d);
    *desk = NULL;
}

/* ---- starting ---- */

static void *run(void *arg)
{
    struct desk *d = arg;
    event_base_loop(d->base, EVLOOP_NO_EXIT_ON_EMPTY);
    return NULL;
}

/* What the routes work with, once the base stands. false: error says why. */
static bool open_for_people(struct desk *d, struct workers *workers, char error[512])
{
    struct config *c = d->config;
    bool damaged;
    d->view = hold_open(c->hold_path, false, &damaged, error);
    if (!d->view)
        return false;
    d->api = (struct api){.config = c,
                          .pipeline = d->pipeline,
                          .workers = workers,
                          .view = d->view,
                          .home = d->mailbox,
                          .started = clock_now()};
    d->api.release = release_new(d->base, c, d->pipeline->keeper, d->mailbox, d->view);
    if (d->pipeline->alarm)
        alarm_join(d->pipeline->alarm, d->base, d->mailbox);
    d->http = http_open(d->base, c->control_socket, c->control_mode, api_handle, &d->api, error);
    if (d->http)
        http_large(d->http, "/api/v1/policy/apply");
    return d->http;
}

/* ---- storms of all nodes ---- */

/* An incident as another node knows it, on its way to the disk. */
struct heard_storm {
    struct job job; /* must be first */
    char node[FELLOW_NAME], id[INCIDENT_TEXT];
    int64_t first, last;
    char *json;
};

static int heard_run(struct hold *hold, struct job *job)
{
    const struct heard_storm *s = (const struct heard_storm *)job;
    return hold_fellow_save(hold, s->node, s->id, s->first, s->last, s->json);
}

static void heard_done(struct job *job)
{
    free(((struct heard_storm *)job)->json);
    free(job);
}

static void hear_storm(void *arg, const char *node, json_t *document)
{
    struct desk *d = arg;
    struct heard_storm *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->job = (struct job){.run = heard_run, .done = heard_done, .home = d->mailbox};
    s->first = json_ms(json_object_get(document, "first"));
    s->last = json_ms(json_object_get(document, "last"));
    if (!incident_parse(span_str(json_get_str(document, "id")), s->id) || s->first <= 0) {
        free(s);
        return;
    }
    snprintf(s->node, sizeof s->node, "%s", node);
    s->json = json_line(document);
    if (d->pipeline->incidents)
        incidents_learn(d->pipeline->incidents, document);
    keeper_submit(d->pipeline->keeper, &s->job);
}

static void tell_storm(void *arg, const json_t *document)
{
    fellows_tell_storm(((struct desk *)arg)->pipeline->fellows, document);
}

static void join_fellows(struct desk *d)
{
    const struct fellows_desk desk = {.home = d->mailbox,
                                      .keeper = d->pipeline->keeper,
                                      .view = d->view,
                                      .handler = api_handle,
                                      .arg = &d->api,
                                      .storm = hear_storm,
                                      .storm_arg = d};
    if (!d->pipeline->fellows)
        return;
    fellows_join(d->pipeline->fellows, &desk);
    if (d->pipeline->incidents)
        incidents_on_save(d->pipeline->incidents, tell_storm, d);
}

struct desk *desk_start(struct config *config, struct pipeline *pipeline, struct workers *workers,
                        char error[512])
{
    struct desk *d = calloc(1, sizeof *d);
    if (!d)
        abort();
    d->config = config_hold(config);
    d->daily = config->log_daily;
    d->pipeline = pipeline;
    d->base = event_base_new();
    if (!d->base)
        abort();
    d->mailbox = mailbox_new(d->base);
    if (!open_for_people(d, workers, error)) {
        desk_free(d);
        return NULL;
    }
    join_fellows(d);
    d->second = timer(d, 1, each_second);
    d->hour = timer(d, 3600, each_hour);
    if (pthread_create(&d->thread, NULL, run, d) == 0)
        return d;
    snprintf(error, 512, "the desk thread could not be started");
    desk_free(d);
    return NULL;
}
