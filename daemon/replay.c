/*
 * replay.c - recorded mail through the same tx as live mail, in enforce mode with nothing to hold
 * in: how policies are tried before they are applied, and detectors measured. Time is the trace's.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "outcome.h"
#include "replay.h"
#include "setfile.h"
#include "tracefile.h"
#include "tx.h"

enum { COMPLAINTS = 20 }; /* said in full */

struct replay {
    struct config *config;
    struct keys keys;
    struct pipeline pipeline;
    struct standing_times times;
    struct outcome outcome;
    bool json, audience;                      /* somebody looks at the progress */
    int64_t started, said;                    /* monotonic ms */
    int64_t from, until, ticked, looked;      /* ms */
    uint64_t skipped, cut, clamped, left_out; /* messages */
    unsigned complaints;
};

static int64_t virtual_now;

static int64_t virtual_clock(void)
{
    return virtual_now;
}

/* ---- one message ---- */

/* What the daemon does once a second; here as often as it can matter. */
enum { TICK_EACH = 1000, LOOK_EACH = 10 * 60 * 1000 }; /* ms */

static void pass_time(struct replay *rp, int64_t now)
{
    struct pipeline *p = &rp->pipeline;
    if (now - rp->ticked >= TICK_EACH) {
        p->store->ops->tick(p->store, now);
        rp->ticked = now;
    }
    if (now - rp->looked >= LOOK_EACH) {
        incidents_save(p->incidents, NULL, NULL, now);
        relays_tick(p->relays, now);
        rp->looked = now;
    }
}

static void replay_message(struct replay *rp, const struct recording *rec)
{
    virtual_now = rec->time;
    pass_time(rp, rec->time);
    struct tx *tx = tx_begin(&rp->pipeline, rp->config, &rp->keys, NULL, "replay");
    struct envelope *e = tx_envelope(tx);
    ipaddr_parse(&e->client, rec->client);
    e->helo = rec->helo;
    e->client_name = rec->name;
    e->queue_id = rec->queue_id;
    tx_reversepath(tx, rec->from, span_of(NULL, 0));
    for (size_t i = 0; i < rec->nrcpts; i++)
        if (tx_recipient(tx, rec->rcpts[i], span_of(NULL, 0)) < 0)
            break;
    tx_raw(tx, rec->data);
    gauge_add(tx_gauge(tx), FIGURE_RECEIVED, e->nrecipients);
    if (tx_judge(tx, NULL, NULL) != TX_DONE)
        abort(); /* the memory store never waits */
    outcome_message(&rp->outcome, tx, rec);
    tx_commit(tx);
    tx_end(&tx);
}

/* ---- progress, on a terminal ---- */

/* Nobody reads it in the middle of other output, so not when that goes to a terminal as JSON. */
static bool has_audience(const struct replay *rp)
{
    return isatty(STDERR_FILENO) && !(rp->json && isatty(STDOUT_FILENO));
}

static void say_progress(struct replay *rp, const char *what, uint64_t done, uint64_t total)
{
    int64_t now = clock_mono();
    if (!rp->audience || now - rp->said < 250)
        return;
    rp->said = now;
    double seconds = (double)(now - rp->started) / 1000;
    fprintf(stderr, "\r\033[K%s %.1f MB", what, (double)done / 1e6);
    if (total)
        fprintf(stderr, " of %.1f, %.0f %%", (double)total / 1e6,
                100 * (double)done / (double)total);
    if (rp->outcome.messages)
        fprintf(stderr, ", %llu messages, %.0f/s", (unsigned long long)rp->outcome.messages,
                (double)rp->outcome.messages / seconds);
    if (total > done && done && seconds > 1)
        fprintf(stderr, ", %.0f s left", seconds * (double)(total - done) / (double)done);
    fflush(stderr);
}

static void end_progress(struct replay *rp)
{
    if (rp->audience && rp->said)
        fputs("\r\033[K", stderr);
    rp->said = 0;
}

static void indexing(void *arg, uint64_t done, uint64_t total)
{
    say_progress(arg, "index:", done, total);
}

/* ---- many ---- */

static void complain(struct replay *rp, const char *sentence)
{
    end_progress(rp);
    rp->complaints++;
    if (rp->complaints <= COMPLAINTS)
        fprintf(stderr, "breakwaterctl: %s\n", sentence);
    if (rp->complaints == COMPLAINTS)
        fputs("breakwaterctl: any more are only counted\n", stderr);
}

/* Between --from and --until, and not before the message before. */
static bool place_in_time(struct replay *rp, struct recording *rec)
{
    if (rec->time < rp->from || rec->time >= rp->until) {
        rp->left_out++;
        return false;
    }
    if (rec->time < virtual_now) {
        rp->clamped++;
        rec->time = virtual_now;
    }
    return true;
}

static void replay_all(struct replay *rp, struct tracefile *t)
{
    char error[512];
    struct recording rec;
    uint64_t done, total;
    int rc;
    while ((rc = tracefile_next(t, &rec, error)) != 0) {
        if (rc < 0) {
            rp->skipped++;
            complain(rp, error);
            continue;
        }
        if (!place_in_time(rp, &rec))
            continue;
        if (rec.cut) {
            rp->cut++;
            snprintf(error, sizeof error, "%.*s: larger than %d MB, cut there",
                     SPAN_ARG(span_head(rec.label, 300)), RECORDING_BYTES >> 20);
            complain(rp, error);
        }
        replay_message(rp, &rec);
        if (rp->audience && rp->outcome.messages % 16 == 0) {
            tracefile_progress(t, &done, &total);
            say_progress(rp, "replay:", done, total);
        }
    }
    end_progress(rp);
}

static int replay_files(struct replay *rp, char **path, size_t n, bool in_order)
{
    char error[512];
    struct tracefile_options options = {
        .in_order = in_order, .indexing = indexing, .arg = rp, .keys = &rp->keys};
    struct tracefile *t = tracefile_open(path, n, &options, error);
    end_progress(rp);
    if (!t) {
        fprintf(stderr, "breakwaterctl: %s\n", error);
        return 1;
    }
    replay_all(rp, t);
    tracefile_close(&t);
    return 0;
}

static void summary(struct replay *rp)
{
    json_t *incidents = incidents_list(rp->pipeline.incidents, virtual_now), *incident;
    size_t i;
    json_array_foreach(incidents, i, incident)
    {
        relays_note_culprits(rp->pipeline.relays, incident, virtual_now);
    }
    relays_tick(rp->pipeline.relays, virtual_now);
    json_t *relays = relays_list(rp->pipeline.relays);
    struct outcome_end end = {
        .figures = rp->pipeline.figures,
        .incidents = incidents,
        .relays = relays,
        .skipped = rp->skipped,
        .cut = rp->cut,
        .clamped = rp->clamped,
        .left_out = rp->left_out,
        .seconds = (double)(clock_mono() - rp->started) / 1000,
    };
    outcome_summary(&rp->outcome, &end);
    json_decref(incidents);
    json_decref(relays);
}

/* What the command line says. */
struct asked {
    bool json, summary_only, in_order;
    enum outcome_form form;
    enum mode mode;
    const char *conf, *policy;
    int64_t from, until; /* ms */
};

/* --policy FILE replaces the rules of the configuration. */
static int use_policy(struct config *config, const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f) {
        fprintf(stderr, "breakwaterctl: %s: cannot be opened\n", path);
        return -1;
    }
    static char text[1 << 20], said[1000];
    size_t n = fread(text, 1, sizeof text, f), slash = span_rfind(span_str(path), '/');
    fclose(f);
    struct policy_error error;
    struct setfiles sets = {.directory = slash < strlen(path)
                                             ? arena_str(config->arena, span_of(path, slash + 1))
                                             : "."};
    struct policy_source source = setfiles_source(&sets);
    struct policy *policy = policy_load(span_of(text, n), &source, &error);
    setfiles_clear(&sets);
    if (!policy) {
        policy_error_print(&error, path, said, sizeof said);
        fprintf(stderr, "%s\n", said);
        return -1;
    }
    policy_free(&config->policy);
    config->policy = policy;
    return 0;
}

static int open_replay(struct replay *rp, const struct asked *o)
{
    char error[512];
    rp->config = o->conf ? config_load(o->conf, CONFIG_READ, error) : config_builtin();
    if (!rp->config) {
        fprintf(stderr, "breakwaterctl: %s\n", error);
        return -1;
    }
    if (o->policy && use_policy(rp->config, o->policy) < 0) {
        config_drop(&rp->config);
        return -1;
    }
    if (keys_open(&rp->keys, rp->config->site_key) < 0)
        abort();
    struct pipeline *p = &rp->pipeline;
    p->store = rp->config->store_backend == STORE_NONE
                   ? store_none_open()
                   : store_memory_open(&rp->config->site, rp->config->store_memory);
    p->incidents = incidents_new(p->store, &rp->config->site);
    incidents_limit(p->incidents, INCIDENTS_REPLAY);
    rp->times = standing_defaults;
    rp->times.probation = rp->config->site.relay_probation;
    p->relays = relays_new(p->store, &rp->keys, &rp->times);
    incidents_tell(p->incidents, p->relays);
    p->figures = figures_new(rp->config);
    p->mode = o->mode;
    rp->started = clock_mono();
    rp->json = o->form != OUTCOME_PEOPLE;
    rp->audience = has_audience(rp);
    rp->from = o->from;
    rp->until = o->until;
    outcome_begin(&rp->outcome, rp->config->policy, o->mode, o->form);
    clock_set(virtual_clock);
    log_open("stderr", LOG_LEVEL_ERROR);
    return 0;
}

static void close_replay(struct replay *rp)
{
    clock_set(NULL);
    outcome_end(&rp->outcome);
    incidents_free(&rp->pipeline.incidents);
    relays_free(&rp->pipeline.relays);
    store_close(&rp->pipeline.store);
    keys_close(&rp->keys);
    config_drop(&rp->config);
}

/* ---- the command line ---- */

static const char usage[] =
    "usage: breakwaterctl replay [--json] [--summary-only] [--in-order] [--mode monitor|enforce]\n"
    "           [--from WHEN] [--until WHEN] [--conf FILE] [--policy FILE] FILE|DIRECTORY|- ...\n";

/* Seconds since 1970, "2006-01-23" or "2006-01-23 17:20" in local time, as ms; -1: neither. */
static int64_t moment(const char *text)
{
    uint64_t seconds;
    struct tm tm = {.tm_isdst = -1};
    if (span_number(span_str(text), 100000000000, &seconds))
        return (int64_t)seconds * 1000;
    const char *rest = strptime(text, "%Y-%m-%d", &tm);
    if (rest && *rest)
        rest = strptime(rest, " %H:%M", &tm);
    return rest && !*rest ? (int64_t)mktime(&tm) * 1000 : -1;
}

static bool wants(const char *what, bool given)
{
    if (!given)
        fprintf(stderr, "breakwaterctl: replay: %s\n", what);
    return given;
}

/* One option; false: its value makes no sense. */
static bool take_option(struct asked *a, int o)
{
    switch (o) {
    case 'j':
        a->json = true;
        return true;
    case 's':
        a->summary_only = true;
        return true;
    case 'o':
        a->in_order = true;
        return true;
    case 'f':
        a->conf = optarg;
        return true;
    case 'p':
        a->policy = optarg;
        return true;
    case 'm':
        a->mode = strcmp(optarg, "monitor") == 0 ? MODE_MONITOR : MODE_ENFORCE;
        return wants("--mode is one of monitor, enforce",
                     a->mode == MODE_MONITOR || strcmp(optarg, "enforce") == 0);
    case 'F':
        a->from = moment(optarg);
        return wants("--from wants a time such as 2006-01-23 or \"2006-01-23 17:20\"",
                     a->from >= 0);
    case 'U':
        a->until = moment(optarg);
        return wants("--until wants a time such as 2006-01-23 or \"2006-01-23 17:20\"",
                     a->until >= 0);
    default:
        return false;
    }
}

int replay_main(int argc, char **argv, bool json, const char *conf)
{
    static const struct option options[] = {
        {"json", no_argument, NULL, 'j'},         {"summary-only", no_argument, NULL, 's'},
        {"in-order", no_argument, NULL, 'o'},     {"conf", required_argument, NULL, 'f'},
        {"policy", required_argument, NULL, 'p'}, {"mode", required_argument, NULL, 'm'},
        {"from", required_argument, NULL, 'F'},   {"until", required_argument, NULL, 'U'},
        {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0}};
    static struct replay rp;
    struct asked a = {.json = json, .conf = conf, .mode = MODE_ENFORCE, .until = INT64_MAX};
    int o;
    optind = 0;
    while ((o = getopt_long(argc, argv, "jf:p:h", options, NULL)) != -1)
        if (!take_option(&a, o)) {
            fputs(usage, o == 'h' ? stdout : stderr);
            return o == 'h' ? 0 : 2;
        }
    if (optind == argc) {
        fputs(usage, stderr);
        return 2;
    }
    a.form = !a.json ? OUTCOME_PEOPLE : a.summary_only ? OUTCOME_SUMMARY_JSON : OUTCOME_JSON;
    if (open_replay(&rp, &a) < 0)
        return 1;
    for (int i = optind; i < argc; i++)
        rp.outcome.at_once |= strcmp(argv[i], "-") == 0;
    int rc = replay_files(&rp, argv + optind, (size_t)(argc - optind), a.in_order);
    if (rc == 0)
        summary(&rp);
    close_replay(&rp);
    return rc || rp.skipped ? 1 : 0;
}
