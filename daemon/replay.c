/*
 * replay.c - recorded mail through the same tx as live mail, in enforce mode with nothing to hold
 * in: how policies are tried before they are applied, and detectors measured. Time is the trace's.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "outcome.h"
#include "replay.h"
#include "tracefile.h"
#include "tx.h"

struct replay {
    struct config *config;
    struct keys keys;
    struct pipeline pipeline;
    struct pipeline_counters counters;
    bool json;
    struct outcome outcome;
    int64_t started; /* monotonic ms */
};

static int64_t virtual_now;

static int64_t virtual_clock(void)
{
    return virtual_now;
}

/* ---- one message ---- */

static void replay_message(struct replay *rp, const struct recording *rec)
{
    virtual_now = rec->time;
    struct store *store = rp->pipeline.store;
    store->ops->tick(store, rec->time);
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
    if (tx_judge(tx, NULL, NULL) != TX_DONE)
        abort(); /* the memory store never waits */
    outcome_message(&rp->outcome, tx, rec);
    tx_commit(tx);
    tx_end(&tx);
}

/* ---- many ---- */

static void progress(const struct replay *rp, const struct tracefile *t, const char *path)
{
    if (rp->json || !isatty(STDERR_FILENO) || rp->outcome.messages % 1000)
        return;
    fprintf(stderr, "\r%s: %3.0f %%, %llu messages", path, 100 * tracefile_progress(t),
            (unsigned long long)rp->outcome.messages);
}

static int replay_file(struct replay *rp, const char *path)
{
    char error[512];
    struct recording rec;
    int rc;
    struct tracefile *t = tracefile_open(path, error);
    if (!t) {
        fprintf(stderr, "breakwaterctl: %s\n", error);
        return 1;
    }
    do {
        struct arena *arena = arena_new();
        rc = tracefile_next(t, arena, &rec, error);
        if (rc == 1)
            replay_message(rp, &rec);
        arena_free(&arena);
        progress(rp, t, path);
    } while (rc == 1);
    if (isatty(STDERR_FILENO) && !rp->json && rp->outcome.messages >= 1000)
        fputc('\n', stderr);
    if (rc < 0)
        fprintf(stderr, "breakwaterctl: %s\n", error);
    tracefile_close(&t);
    return rc < 0 ? 1 : 0;
}

static void summary(struct replay *rp)
{
    json_t *incidents = incidents_list(rp->pipeline.incidents, virtual_now);
    struct outcome_end end = {
        .counters = &rp->counters,
        .incidents = incidents,
        .seconds = (double)(clock_mono() - rp->started) / 1000,
    };
    outcome_summary(&rp->outcome, &end);
    json_decref(incidents);
}

/* --policy FILE replaces the rules of the configuration. */
static int use_policy(struct config *config, const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f) {
        fprintf(stderr, "breakwaterctl: %s: cannot be opened\n", path);
        return -1;
    }
    static char text[1 << 20];
    size_t n = fread(text, 1, sizeof text, f);
    fclose(f);
    struct policy_error error;
    struct policy *policy = policy_load(span_of(text, n), &error);
    if (!policy) {
        fprintf(stderr, "breakwaterctl: %s:%u: column %u: %s\n", path, error.line, error.column,
                error.text);
        return -1;
    }
    policy_free(&config->policy);
    config->policy = policy;
    return 0;
}

static int open_replay(struct replay *rp, const char *conf, const char *policy)
{
    char error[512];
    rp->config = conf ? config_load(conf, CONFIG_READ, error) : config_builtin();
    if (!rp->config) {
        fprintf(stderr, "breakwaterctl: %s\n", error);
        return -1;
    }
    if (policy && use_policy(rp->config, policy) < 0) {
        config_drop(&rp->config);
        return -1;
    }
    if (keys_open(&rp->keys, rp->config->site_key) < 0)
        abort();
    struct pipeline *p = &rp->pipeline;
    p->store = rp->config->store_none
                   ? store_none_open()
                   : store_memory_open(&rp->config->site, rp->config->store_memory);
    p->incidents = incidents_new(p->store, &rp->config->site);
    p->counters = &rp->counters;
    p->mode = MODE_ENFORCE;
    rp->started = clock_mono();
    outcome_begin(&rp->outcome, rp->config->policy, MODE_ENFORCE,
                  rp->json ? OUTCOME_JSON : OUTCOME_PEOPLE);
    clock_set(virtual_clock);
    log_open("stderr", LOG_LEVEL_ERROR);
    return 0;
}

static void close_replay(struct replay *rp)
{
    clock_set(NULL);
    outcome_end(&rp->outcome);
    incidents_free(&rp->pipeline.incidents);
    store_close(&rp->pipeline.store);
    keys_close(&rp->keys);
    config_drop(&rp->config);
}

int replay_main(int argc, char **argv, bool json, const char *conf)
{
    static const char usage[] =
        "usage: breakwaterctl replay [--json] [--conf FILE] [--policy FILE] TRACE.jsonl...\n";
    static const struct option options[] = {{"json", no_argument, NULL, 'j'},
                                            {"conf", required_argument, NULL, 'f'},
                                            {"policy", required_argument, NULL, 'p'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    static struct replay rp;
    const char *policy = NULL;
    int o, rc = 0;
    rp.json = json;
    optind = 0;
    while ((o = getopt_long(argc, argv, "jf:p:h", options, NULL)) != -1) {
        if (o == 'j')
            rp.json = true;
        else if (o == 'f')
            conf = optarg;
        else if (o == 'p')
            policy = optarg;
        else {
            fputs(usage, o == 'h' ? stdout : stderr);
            return o == 'h' ? 0 : 2;
        }
    }
    if (optind == argc) {
        fputs(usage, stderr);
        return 2;
    }
    if (open_replay(&rp, conf, policy) < 0)
        return 1;
    for (int i = optind; i < argc; i++)
        rp.outcome.at_once |= strcmp(argv[i], "-") == 0;
    for (int i = optind; i < argc && rc == 0; i++)
        rc = replay_file(&rp, argv[i]);
    summary(&rp);
    close_replay(&rp);
    return rc;
}
