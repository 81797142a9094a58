/*
 * replay.c - recorded mail through the same tx as live mail, in enforce mode with nothing to hold
 * in: how policies are tried before they are applied, and detectors measured. Time is the trace's.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "json.h"
#include "replay.h"
#include "tracefile.h"
#include "tx.h"

struct replay {
    struct config *config;
    struct keys keys;
    struct pipeline pipeline;
    struct pipeline_counters counters;
    bool json;
    uint64_t messages;
    int64_t started; /* monotonic ms */
};

static int64_t virtual_now;

static int64_t virtual_clock(void)
{
    return virtual_now;
}

static void print_json(json_t *value)
{
    char *line = json_line(value);
    puts(line);
    free(line);
    json_decref(value);
}

/* ---- one message ---- */

/* The mildest disposition of all recipients: "hold" only when nobody gets it. */
static enum disposition overall(const struct verdict *v)
{
    for (unsigned d = 0; d < DISP_COUNT; d++)
        if (v->count[d])
            return (enum disposition)d;
    return DISP_PASS;
}

static json_t *signals_json(const struct signals *s)
{
    const struct replication_signals *r = &s->replication;
    json_t *replication =
        json_pack("{s:I,s:I,s:b,s:I,s:I,s:b}", "copies", (json_int_t)r->copies, "duplicates",
                  (json_int_t)r->duplicates, "storm", r->storm, "convicted",
                  (json_int_t)r->convicted, "variant", (json_int_t)r->variant, "known", r->known);
    if (r->blamed.n)
        json_object_set_new(replication, "blamed", json_text(r->blamed));
    if (r->conviction)
        json_object_set_new(replication, "conviction", json_string(r->conviction));
    const struct loop_signals *l = &s->loop;
    json_t *loop = json_pack("{s:i,s:i,s:i,s:i,s:i}", "visits", (int)l->visits, "edges",
                             (int)l->edges, "own_visits", (int)l->own_visits, "delivered_to",
                             (int)l->delivered_to, "hops", (int)l->hops);
    if (l->evidence)
        json_object_set_new(loop, "evidence", json_text(span_str(l->evidence)));
    return json_pack("{s:o,s:o}", "replication", replication, "loop", loop);
}

static void print_message(struct replay *rp, struct tx *tx, const struct recording *rec)
{
    const struct verdict *v = tx_verdict(tx);
    const struct signals *s = tx_signals(tx);
    json_t *rcpt = json_object(), *relation = json_object();
    const char *rule = NULL;
    for (size_t i = 0; i < v->n; i++) {
        char *address = arena_str(tx_arena(tx), rec->rcpts[i]);
        json_object_set_new(rcpt, address, json_string(disposition_name(v->copy[i].disposition)));
        json_object_set_new(relation, address,
                            json_string(relation_name(s->replication.copy[i].relation)));
        if (!rule && v->copy[i].rule)
            rule = policy_rule_name(rp->config->policy, v->copy[i].rule - 1u);
    }
    char fp[2 * sizeof s->replication.k.byte + 1];
    hex_print(span_of(s->replication.k.byte, sizeof s->replication.k.byte), fp);
    json_t *o = json_pack("{s:I,s:f,s:o,s:s,s:o,s:o,s:s?,s:s?,s:s}", "n", (json_int_t)rp->messages,
                          "t", rec->t, "label", rec->label.n ? json_text(rec->label) : json_null(),
                          "verdict", disposition_name(overall(v)), "rcpt", rcpt, "relations",
                          relation, "rule", rule, "incident", tx_incident(tx), "fp", fp);
    json_object_set_new(o, "signals", v->n ? signals_json(s) : json_object());
    print_json(o);
}

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
    rp->messages++;
    if (rp->json && rec->nrcpts)
        print_message(rp, tx, rec);
    tx_commit(tx);
    tx_end(&tx);
}

/* ---- many ---- */

static void progress(const struct replay *rp, const struct tracefile *t, const char *path)
{
    if (rp->json || !isatty(STDERR_FILENO) || rp->messages % 1000)
        return;
    fprintf(stderr, "\r%s: %3.0f %%, %llu messages", path, 100 * tracefile_progress(t),
            (unsigned long long)rp->messages);
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
    if (isatty(STDERR_FILENO) && !rp->json && rp->messages >= 1000)
        fputc('\n', stderr);
    if (rc < 0)
        fprintf(stderr, "breakwaterctl: %s\n", error);
    tracefile_close(&t);
    return rc < 0 ? 1 : 0;
}

static void print_people(const struct replay *rp, const json_t *incidents, uint64_t passed)
{
    const struct pipeline_counters *c = &rp->counters;
    printf("%llu messages, %llu copies: %llu pass, %llu held, %llu throttled, %llu rejected\n",
           (unsigned long long)rp->messages, (unsigned long long)c->received,
           (unsigned long long)passed, (unsigned long long)c->disposition[DISP_HOLD],
           (unsigned long long)c->disposition[DISP_THROTTLE],
           (unsigned long long)c->disposition[DISP_REJECT]);
    size_t i, k;
    json_t *o, *culprit;
    json_array_foreach(incidents, i, o)
    {
        char subject[200];
        escape_text(subject, sizeof subject, span_str(json_get_str(o, "subject")));
        printf("\n%s %s: \"%s\", %lld copies, %lld held, %lld recipients\n", json_get_str(o, "id"),
               json_get_str(o, "kind"), subject, (long long)json_get_num(o, "copies"),
               (long long)json_get_num(o, "held"), (long long)json_get_num(o, "recipients"));
        json_array_foreach(json_object_get(o, "culprits"), k, culprit)
        {
            char relay[400];
            escape_text(relay, sizeof relay, span_str(json_get_str(culprit, "relay")));
            printf("  %s %s (%s)\n", json_get_yes(culprit, "named") ? "faulty:" : "site:", relay,
                   json_get_str(culprit, "grade"));
        }
    }
}

static void summary(struct replay *rp)
{
    struct pipeline_counters *c = &rp->counters;
    double seconds = (double)(clock_mono() - rp->started) / 1000;
    json_t *incidents = incidents_list(rp->pipeline.incidents, virtual_now);
    uint64_t passed = c->disposition[DISP_PASS] + c->disposition[DISP_TAG];
    if (!rp->json) {
        print_people(rp, incidents, passed);
        json_decref(incidents);
        return;
    }
    json_t *s = json_pack(
        "{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o,s:f,s:f}", "messages", (json_int_t)rp->messages, "copies",
        (json_int_t)c->received, "pass", (json_int_t)passed, "tag",
        (json_int_t)c->disposition[DISP_TAG], "hold", (json_int_t)c->disposition[DISP_HOLD],
        "throttle", (json_int_t)c->disposition[DISP_THROTTLE], "reject",
        (json_int_t)c->disposition[DISP_REJECT], "incidents", incidents, "seconds", seconds,
        "messages_per_second", seconds > 0 ? (double)rp->messages / seconds : 0.0);
    print_json(json_pack("{s:o}", "summary", s));
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
    clock_set(virtual_clock);
    log_open("stderr", LOG_LEVEL_ERROR);
    return 0;
}

static void close_replay(struct replay *rp)
{
    clock_set(NULL);
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
    for (int i = optind; i < argc && rc == 0; i++)
        rc = replay_file(&rp, argv[i]);
    summary(&rp);
    close_replay(&rp);
    return rc;
}
