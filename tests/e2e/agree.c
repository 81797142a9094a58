/*
 * agree.c - judges recorded mail with the memory store and, message by message in turn, by one or
 * more nodes that share their past in Redis, and compares what they say.
 *
 *   agree [-n NODES] [-r SEED] SERVER TRACE...      SERVER: "unix:/path", "127.0.0.1:6379"
 *
 * -r: whose turn it is chance decides. Prints the first differences and one line of figures; exit 0
 * if there are none and every message was judged with the shared past. With more nodes than one a
 * verdict that differs because a detector of conversations, pairs or floods says something else is
 * counted apart (of_states): what a relay usually sends each node counts for itself.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <event2/event.h>

#include "log.h"
#include "store_redis.h"
#include "tallies.h"
#include "tracefile.h"
#include "tx.h"

enum { NODES_MAX = 8, SHOWN = 20, TICK_MS = 1000 };

struct relay {
    struct pipeline pipeline;
    struct store_thread *thread;
    struct mailbox *mailbox;
    int64_t ticked;
};

struct agree {
    struct event_base *base;
    struct config *config;
    struct keys keys;
    struct redis_settings settings;
    struct relay alone, node[NODES_MAX];
    const struct relay *judging;
    unsigned n;
    uint64_t chance; /* 0: by turns */
    uint64_t messages, copies, differences, of_states, held, joined, conflicts;
};

static int64_t virtual_now;

static int64_t virtual_clock(void)
{
    return virtual_now;
}

/* What one node has learned the others know at once, so that all judge on the same facts. */
static void tell(void *arg, const struct tallies *t, int64_t now)
{
    struct agree *a = arg;
    for (unsigned i = 0; i < a->n; i++)
        if (&a->node[i] != a->judging)
            tally_table_add(store_memory_tallies(a->node[i].pipeline.store), t, now);
}

static void tell_digest(void *arg, uint64_t digest)
{
    struct agree *a = arg;
    for (unsigned i = 0; i < a->n; i++)
        if (&a->node[i] != a->judging)
            store_memory_remember(a->node[i].pipeline.store, &digest, 1, virtual_now);
}

static void node_open(struct agree *a, struct relay *n, bool shared)
{
    const struct store_share share = {.arg = a, .tallies = tell, .digest = tell_digest};
    n->pipeline.mode = MODE_ENFORCE;
    n->pipeline.store = store_memory_open(&a->config->site, a->config->store_memory);
    n->pipeline.figures = figures_new(a->config);
    n->mailbox = mailbox_new(a->base);
    if (!shared)
        return;
    store_redis_share(n->pipeline.store, &a->settings, a->config->site_key);
    if (a->n > 1)
        store_memory_on_share(n->pipeline.store, &share);
    n->thread = store_thread_open(n->pipeline.store, a->base);
}

static void node_close(struct relay *n)
{
    store_thread_close(&n->thread);
    mailbox_free(&n->mailbox);
    figures_free(&n->pipeline.figures);
    store_close(&n->pipeline.store);
}

/* ---- one message ---- */

static void judged(void *arg, struct tx *tx)
{
    (void)tx;
    *(bool *)arg = true;
}

static struct tx *judge(struct agree *a, struct relay *n, const struct recording *rec)
{
    bool done = false;
    if (rec->time - n->ticked >= TICK_MS) {
        n->ticked = rec->time;
        n->pipeline.store->ops->tick(n->pipeline.store, rec->time);
    }
    store_thread_enter(n->thread);
    a->judging = n;
    struct tx *tx = tx_begin(&n->pipeline, a->config, &a->keys, n->mailbox, "agree");
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
    if (tx_judge(tx, judged, &done) == TX_WAIT)
        while (!done)
            event_base_loop(a->base, EVLOOP_ONCE);
    return tx;
}

/* What became of copies is on the logs before the next node looks. */
static void let_arrive(struct agree *a, struct relay *n)
{
    struct redis_figures f;
    for (;;) {
        uint64_t unanswered = 0;
        redis_figures(store_thread_redis(n->thread), &f);
        for (unsigned i = 0; i < REDIS_FAULTS; i++)
            unanswered += f.faults[i];
        if (f.calls == f.replies + unanswered)
            return;
        event_base_loop(a->base, EVLOOP_ONCE);
    }
}

static bool text_same(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

/* What the detectors that keep states say. */
static bool states_differ(const struct signals *p, const struct signals *q)
{
    return p->replyall.state != q->replyall.state || p->replyall.to_all != q->replyall.to_all ||
           p->pingpong.n != q->pingpong.n || p->pingpong.flips < q->pingpong.flips ||
           p->pingpong.flips > q->pingpong.flips || p->pingpong.same != q->pingpong.same ||
           p->flood.level != q->flood.level || p->flood.defer != q->flood.defer;
}

static bool verdict_differs(const struct verdict *v, const struct verdict *w)
{
    for (size_t i = 0; i < v->n; i++)
        if (v->copy[i].disposition != w->copy[i].disposition ||
            !text_same(v->copy[i].rule_name, w->copy[i].rule_name))
            return true;
    return v->n != w->n;
}

static const char OF_STATES[] = "of states";

static const char *difference(const struct agree *a, struct tx *x, struct tx *y)
{
    const struct replication_signals *p = &tx_signals(x)->replication,
                                     *q = &tx_signals(y)->replication;
    const struct verdict *v = tx_verdict(x), *w = tx_verdict(y);
    if (!p->copy || !q->copy)
        return p->copy || q->copy ? "judged at all" : NULL;
    if (q->degraded)
        return "degraded";
    if (memcmp(&p->k, &q->k, sizeof p->k) != 0)
        return "K";
    if (p->known != q->known || p->variant != q->variant)
        return "known, variant";
    if (!text_same(p->join, q->join) || !text_same(p->join_why, q->join_why))
        return "join";
    if (p->storm != q->storm || p->convicted != q->convicted)
        return "storm, convicted";
    if (p->duplicates != q->duplicates || p->copies != q->copies || p->rested != q->rested)
        return "counts";
    if (!span_eq(p->blamed, q->blamed) || p->blamed_id != q->blamed_id ||
        !text_same(p->conviction, q->conviction) || p->nlearned != q->nlearned)
        return "blamed";
    for (size_t i = 0; i < v->n; i++) {
        const struct copy_signal *c = &p->copy[i], *d = &q->copy[i];
        if (c->relation != d->relation || c->advice != d->advice || c->rule != d->rule ||
            c->copies != d->copies || c->seen != d->seen || c->passed != d->passed ||
            c->at != d->at)
            return "a copy's signal";
        if (c->seen_before != d->seen_before)
            return "seen before";
    }
    if (!verdict_differs(v, w))
        return NULL;
    return a->n > 1 && states_differ(tx_signals(x), tx_signals(y)) ? OF_STATES : "verdict";
}

/* xorshift64. */
static struct relay *whose_turn(struct agree *a)
{
    if (!a->chance)
        return &a->node[a->messages % a->n];
    a->chance ^= a->chance << 13;
    a->chance ^= a->chance >> 7;
    a->chance ^= a->chance << 17;
    return &a->node[(a->chance >> 32) % a->n];
}

static void compare(struct agree *a, const struct recording *rec)
{
    struct relay *n = whose_turn(a);
    virtual_now = rec->time > virtual_now ? rec->time : virtual_now;
    struct tx *x = judge(a, &a->alone, rec), *y = judge(a, n, rec);
    const char *what = difference(a, x, y);
    const struct replication_signals *p = &tx_signals(x)->replication;
    a->messages++;
    a->copies += rec->nrcpts;
    a->held += tx_verdict(x)->count[DISP_HOLD];
    a->joined += p->join != NULL;
    a->conflicts += p->variant > 0;
    uint64_t *count = what == OF_STATES ? &a->of_states : &a->differences;
    if (what && (*count)++ < SHOWN)
        printf("message %llu (%.*s): %s\n", (unsigned long long)a->messages,
               SPAN_ARG(span_head(rec->label, 80)), what);
    store_thread_enter(NULL);
    tx_commit(x);
    tx_end(&x);
    store_thread_enter(n->thread);
    tx_commit(y);
    tx_end(&y);
    if (a->n > 1)
        let_arrive(a, n);
}

static int compare_all(struct agree *a, char **path, size_t n)
{
    char error[512];
    struct recording rec;
    struct tracefile_options options = {.keys = &a->keys};
    struct tracefile *t = tracefile_open(path, n, &options, error);
    int rc;
    if (!t) {
        fprintf(stderr, "agree: %s\n", error);
        return 2;
    }
    while ((rc = tracefile_next(t, &rec, error)) != 0)
        if (rc > 0)
            compare(a, &rec);
    tracefile_close(&t);
    return 0;
}

static void wait_for_redis(struct agree *a)
{
    int64_t until = clock_mono() + 5000;
    for (unsigned i = 0; i < a->n; i++)
        while (!redis_up(store_thread_redis(a->node[i].thread)) && clock_mono() < until)
            event_base_loop(a->base, EVLOOP_ONCE);
}

static void print_figures(struct agree *a, double seconds)
{
    struct store_redis_figures f, sum = {0};
    for (unsigned i = 0; i < a->n; i++) {
        store_redis_figures(a->node[i].pipeline.store, &f);
        sum.compacted += f.compacted;
        sum.remade += f.remade;
        sum.degraded += f.degraded;
    }
    printf("messages=%llu copies=%llu held=%llu joined=%llu conflicts=%llu compacted=%llu "
           "remade=%llu degraded=%llu differences=%llu of_states=%llu messages_per_second=%.0f\n",
           (unsigned long long)a->messages, (unsigned long long)a->copies,
           (unsigned long long)a->held, (unsigned long long)a->joined,
           (unsigned long long)a->conflicts, (unsigned long long)sum.compacted,
           (unsigned long long)sum.remade, (unsigned long long)sum.degraded,
           (unsigned long long)a->differences, (unsigned long long)a->of_states,
           (double)a->messages / seconds);
}

int main(int argc, char **argv)
{
    static struct agree a = {.n = 1};
    int o;
    while ((o = getopt(argc, argv, "n:r:")) != -1)
        if (o == 'n')
            a.n = (unsigned)strtoul(optarg, NULL, 10);
        else if (o == 'r')
            a.chance = strtoull(optarg, NULL, 10) + 1;
        else
            a.n = 0;
    if (optind + 2 > argc || a.n < 1 || a.n > NODES_MAX) {
        fputs("usage: agree [-n NODES] [-r SEED] SERVER TRACE...\n", stderr);
        return 2;
    }
    struct span server = span_str(argv[optind]);
    a.settings = (struct redis_settings){
        .servers = &server, .nservers = 1, .deadline = 2000, .in_flight = 4096, .prefix = "bw"};
    clock_set(virtual_clock);
    log_open("stderr", LOG_LEVEL_ERROR);
    a.base = event_base_new();
    a.config = config_builtin();
    if (!a.base || keys_open(&a.keys, a.config->site_key) < 0)
        abort();
    node_open(&a, &a.alone, false);
    for (unsigned i = 0; i < a.n; i++)
        node_open(&a, &a.node[i], true);
    wait_for_redis(&a);
    int64_t began = clock_mono();
    int rc = compare_all(&a, argv + optind + 1, (size_t)(argc - optind - 1));
    print_figures(&a, (double)(clock_mono() - began + 1) / 1000);
    node_close(&a.alone);
    for (unsigned i = 0; i < a.n; i++)
        node_close(&a.node[i]);
    event_base_free(a.base);
    keys_close(&a.keys);
    config_drop(&a.config);
    return rc ? rc : a.differences != 0 || a.messages == 0;
}
