/*
 * store_redis_test.c - nodes that share their past through a Redis of a few lines, which carries
 * out commands as they are sent and answers when the test says so: in order on each connection, in
 * any order between them, or never.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <event2/event.h>
#include <hiredis/hiredis.h>

#include "log.h"
#include "past.h"
#include "store_own.h"
#include "store_redis.h"
#include "store_script.h"

#define B "b@b.example"

/* ---- the Redis ---- */

enum { KEYS_MAX = 4096, CALLS = 8192, WORDS = 16 };

struct redis {
    int unused;
};
struct value {
    char key[64];
    uint8_t *bytes;
    size_t n;
};
struct redis_call {
    struct redis *redis;
    redis_done_fn *done;
    void *arg;
    redisReply *reply;
};
static struct world {
    struct value value[KEYS_MAX];
    size_t nvalues;
    struct redis_call *call[CALLS]; /* in the order they were sent */
    size_t ncalls;
    bool up, deaf; /* deaf: what is sent does not arrive */
} world;

struct redis *redis_open(struct event_base *base, const struct redis_settings *s)
{
    (void)base, (void)s;
    return calloc(1, sizeof(struct redis));
}

void redis_close(struct redis **r)
{
    free(*r);
    *r = NULL;
}

void redis_script_ready(struct redis_script *s)
{
    (void)s;
}

bool redis_up(const struct redis *r)
{
    (void)r;
    return world.up;
}

bool redis_reaches(const struct redis *r, struct span key)
{
    (void)r, (void)key;
    return world.up;
}

const char *redis_trouble(const struct redis *r)
{
    (void)r;
    return NULL;
}

void redis_figures(const struct redis *r, struct redis_figures *f)
{
    (void)r;
    *f = (struct redis_figures){.servers = 1};
}

static struct value *value_of(struct span key, bool make)
{
    for (size_t i = 0; i < world.nvalues; i++)
        if (strlen(world.value[i].key) == key.n && memcmp(world.value[i].key, key.p, key.n) == 0)
            return &world.value[i];
    if (!make)
        return NULL;
    assert_true(world.nvalues < KEYS_MAX && key.n < sizeof world.value[0].key);
    struct value *v = &world.value[world.nvalues++];
    memcpy(v->key, key.p, key.n);
    return v;
}

static void value_put(struct span key, struct span a, struct span b, struct span c)
{
    struct value *v = value_of(key, true);
    uint8_t *fresh = malloc(a.n + b.n + c.n + 1);
    memcpy(fresh, a.p, a.n);
    memcpy(fresh + a.n, b.p, b.n);
    if (c.n)
        memcpy(fresh + a.n + b.n, c.p, c.n);
    free(v->bytes);
    v->bytes = fresh;
    v->n = a.n + b.n + c.n;
}

static void flush_all(void)
{
    for (size_t i = 0; i < world.nvalues; i++)
        free(world.value[i].bytes);
    memset(world.value, 0, sizeof world.value);
    world.nvalues = 0;
}

static redisReply *reply_new(int type, struct span s)
{
    redisReply *r = calloc(1, sizeof *r);
    r->type = type;
    if (type == REDIS_REPLY_STRING) {
        r->str = malloc(s.n + 1);
        if (s.n)
            memcpy(r->str, s.p, s.n);
        r->len = s.n;
    }
    return r;
}

static void reply_free(redisReply *r)
{
    for (size_t i = 0; r && i < r->elements; i++)
        reply_free(r->element[i]);
    if (r) {
        free(r->element);
        free(r->str);
    }
    free(r);
}

static redisReply *reply_array(size_t n)
{
    redisReply *r = reply_new(REDIS_REPLY_ARRAY, SPAN(""));
    r->elements = n;
    r->element = calloc(n ? n : 1, sizeof *r->element);
    return r;
}

static redisReply *reply_number(long long n)
{
    redisReply *r = reply_new(REDIS_REPLY_INTEGER, SPAN(""));
    r->integer = n;
    return r;
}

static redisReply *reply_get(struct span key)
{
    struct value *v = value_of(key, false);
    return v && v->n ? reply_new(REDIS_REPLY_STRING, span_of(v->bytes, v->n))
                     : reply_new(REDIS_REPLY_NIL, SPAN(""));
}

static int64_t number_of(struct span s)
{
    char text[32] = "";
    memcpy(text, s.p, s.n);
    return strtoll(text, NULL, 10);
}

static redisReply *answer(const char *how, struct span generation, int64_t from, struct span bytes)
{
    redisReply *r = reply_array(4);
    r->element[0] = reply_new(REDIS_REPLY_STRING, span_str(how));
    r->element[1] = reply_new(REDIS_REPLY_STRING, generation);
    r->element[2] = reply_number(from);
    r->element[3] = reply_new(REDIS_REPLY_STRING, bytes);
    return r;
}

static bool log_has(struct span log, struct span id)
{
    return log.n > 8 && memmem(log.p + 8, log.n - 8, id.p, id.n) != NULL;
}

/* What observe.lua says, in C: the script itself runs in the end-to-end tests. */
static redisReply *run_observe(struct span key, const struct span *a)
{
    struct value *v = value_of(key, false);
    int64_t from = number_of(a[1]);
    if (!v || v->n < 8) {
        redisReply *gone = reply_array(1);
        gone->element[0] = reply_new(REDIS_REPLY_STRING, SPAN("GONE"));
        if (!a[3].n)
            return gone;
        reply_free(gone);
        value_put(key, a[6], a[3], SPAN(""));
        return answer("MADE", a[6], 8, SPAN(""));
    }
    struct span log = span_of(v->bytes, v->n);
    if (from >= 0 && !(from >= 16 && memcmp(log.p, a[0].p, 8) == 0 && (int64_t)log.n >= from &&
                       memcmp(log.p + from - 8, a[2].p, 8) == 0))
        from = 8;
    const uint8_t *id = NULL;
    if (from >= 0 && a[9].n) /* it stands in the event, and behind it */
        id = memmem(log.p + from, log.n - (size_t)from, a[9].p, 8);
    if (id)
        id = memmem(id + 8, (size_t)(log.p + log.n - id - 8), a[9].p, 8);
    if (id)
        from = id + 8 - log.p;
    uint8_t more[8192];
    size_t n = 0;
    for (size_t at = 0; at < a[4].n;) {
        size_t size = 12 + (size_t)bytes_get(a[4].p + at, 4);
        bool check = a[8].p[0] == '1';
        if (!check || !log_has(log, span_of(a[4].p + at + size - 8, 8))) {
            assert_true(n + size < sizeof more);
            memcpy(more + n, a[4].p + at, size);
            n += size;
        }
        at += size;
    }
    size_t before = log.n;
    uint8_t generation[8];
    memcpy(generation, log.p, 8);
    uint8_t *old = malloc(log.n);
    memcpy(old, log.p, log.n);
    value_put(key, span_of(old, before), span_of(more, n), SPAN(""));
    free(old);
    v = value_of(key, false);
    size_t end = a[8].p[0] == '1' ? v->n : before;
    return answer("HERE", span_of(generation, 8), from,
                  from < 0 ? SPAN("") : span_of(v->bytes + from, end - (size_t)from));
}

static redisReply *run_compact(struct span key, const struct span *a)
{
    struct value *v = value_of(key, false);
    size_t cut = (size_t)number_of(a[1]);
    if (!v || v->n < cut || memcmp(v->bytes, a[0].p, 8) != 0 ||
        memcmp(v->bytes + cut - 8, a[2].p, 8) != 0)
        return reply_number(0);
    uint8_t *tail = malloc(v->n - cut + 1);
    size_t n = v->n - cut;
    memcpy(tail, v->bytes + cut, n);
    value_put(key, a[3], a[4], span_of(tail, n));
    free(tail);
    return reply_number(1);
}

static redisReply *run_unmake(struct span key, const struct span *a)
{
    struct value *v = value_of(key, false);
    if (!v || (int64_t)v->n != number_of(a[1]) || memcmp(v->bytes, a[0].p, 8) != 0)
        return reply_number(0);
    v->n = 0;
    return reply_number(1);
}

static struct redis_call *queue(struct redis *r, redisReply *reply, redis_done_fn *done, void *arg)
{
    struct redis_call *c = calloc(1, sizeof *c);
    *c = (struct redis_call){r, done, arg, reply};
    assert_true(world.ncalls < CALLS);
    world.call[world.ncalls++] = c;
    return c;
}

struct redis_call *redis_run(struct redis *r, const struct redis_script *s, struct span key,
                             const struct span *argv, size_t argc, int64_t deadline,
                             redis_done_fn *done, void *arg)
{
    redisReply *reply = NULL;
    (void)argc, (void)deadline;
    if (!world.deaf)
        reply = s == &script_observe   ? run_observe(key, argv)
                : s == &script_compact ? run_compact(key, argv)
                                       : run_unmake(key, argv);
    return queue(r, reply, done, arg);
}

struct redis_call *redis_send(struct redis *r, struct span key, const struct span *argv,
                              size_t argc, int64_t deadline, redis_done_fn *done, void *arg)
{
    redisReply *reply = NULL;
    (void)deadline;
    if (!world.deaf && span_eq(argv[0], SPAN("SET"))) {
        if (argc < 6 || !value_of(key, false))
            value_put(key, argv[2], SPAN(""), SPAN(""));
        reply = reply_number(1);
    } else if (!world.deaf && span_eq(argv[0], SPAN("MGET"))) {
        reply = reply_array(argc - 1);
        for (size_t i = 1; i < argc; i++)
            reply->element[i - 1] = reply_get(argv[i]);
    }
    return queue(r, reply, done, arg);
}

void redis_forget(struct redis_call **c)
{
    (*c)->done = NULL;
    *c = NULL;
}

static void enter_thread_of(const struct redis *);

/* Answers call i, in its thread. lost: its answer does not come. */
static void answer_call(size_t i, bool lost)
{
    struct redis_call *c = world.call[i];
    memmove(&world.call[i], &world.call[i + 1], (--world.ncalls - i) * sizeof *world.call);
    enter_thread_of(c->redis);
    if (c->done)
        c->done(c->arg, lost ? NULL : c->reply, lost || !c->reply ? "deadline" : NULL);
    store_thread_enter(NULL);
    reply_free(c->reply);
    free(c);
}

/* The oldest call of this connection. */
static bool answer_one(const struct redis *r, bool lost)
{
    for (size_t i = 0; i < world.ncalls; i++)
        if (world.call[i]->redis == r) {
            answer_call(i, lost);
            return true;
        }
    return false;
}

static void answer_all(void)
{
    while (world.ncalls)
        answer_call(0, false);
}

/* ---- nodes ---- */

enum { NODES = 3, THREADS = 2 };
static struct redis_settings settings = {.deadline = 60000, .prefix = "bw"};

static struct fleet {
    struct past past;
    struct event_base *base;
    struct node_of {
        struct store *store;
        struct store_thread *thread[THREADS];
    } node[NODES];
} fleet;

static void enter_thread_of(const struct redis *r)
{
    for (unsigned i = 0; i < NODES; i++)
        for (unsigned k = 0; k < THREADS; k++)
            if (fleet.node[i].thread[k] && store_thread_redis(fleet.node[i].thread[k]) == r)
                store_thread_enter(fleet.node[i].thread[k]);
}

static int open_fleet(void **state)
{
    static const uint8_t key[32] = "a site key for the tests only ..";
    (void)state;
    memset(&world, 0, sizeof world);
    world.up = true;
    log_open("stderr", LOG_NOTHING);
    past_open(&fleet.past);
    fleet.base = event_base_new();
    for (unsigned i = 0; i < NODES; i++) {
        struct node_of *n = &fleet.node[i];
        n->store = store_memory_open(&fleet.past.site, 16 << 20);
        store_redis_share(n->store, &settings, key);
        for (unsigned k = 0; k < THREADS; k++)
            n->thread[k] = store_thread_open(n->store, fleet.base);
    }
    return 0;
}

static int close_fleet(void **state)
{
    (void)state;
    answer_all();
    for (unsigned i = 0; i < NODES; i++) {
        for (unsigned k = 0; k < THREADS; k++)
            store_thread_close(&fleet.node[i].thread[k]);
        store_close(&fleet.node[i].store);
    }
    event_base_free(fleet.base);
    flush_all();
    past_close(&fleet.past);
    return 0;
}

/* ---- messages ---- */

struct message_under_way {
    struct node_of *node;
    unsigned thread;
    struct subject s;
    struct observation o;
    struct replication_signals out;
    struct store_op *op;
    unsigned done; /* times it was called */
};

static void told(void *arg)
{
    struct message_under_way *m = arg;
    m->op = NULL;
    m->done++;
}

static void begin(struct message_under_way *m, unsigned node, unsigned thread, uint64_t k,
                  uint64_t f, const char *path, const char *rcpts, int64_t later)
{
    static const uint32_t ordinary[PATH_MAX_NODES];
    static const bool known[PATH_MAX_NODES];
    *m = (struct message_under_way){.node = &fleet.node[node], .thread = thread};
    past_subject(&fleet.past, &m->s, k, f, path, rcpts, "");
    m->s.now += later;
    m->o = (struct observation){.subject = &m->s, .ordinary = ordinary, .known = known};
    store_thread_enter(m->node->thread[thread]);
    if (m->node->store->ops->observe(m->node->store, &m->o, &m->out, told, m, &m->op) == STORE_DONE)
        m->done++;
    store_thread_enter(NULL);
}

static void settle(struct message_under_way *m, enum fate fate)
{
    const struct envelope *e = m->s.envelope;
    uint64_t rcpt[8];
    enum fate fates[8];
    for (size_t i = 0; i < e->nrecipients; i++) {
        rcpt[i] = e->recipients[i].hash;
        fates[i] = fate;
    }
    store_thread_enter(m->node->thread[m->thread]);
    m->node->store->ops->settle(m->node->store, &m->out.k, rcpt, fates, e->nrecipients);
    store_thread_enter(NULL);
}

static struct redis *connection(unsigned node, unsigned thread)
{
    return store_thread_redis(fleet.node[node].thread[thread]);
}

/* One message from its beginning to its end, everything answered at once. */
static enum relation pass(unsigned node, uint64_t k, uint64_t f, const char *path)
{
    struct message_under_way m;
    begin(&m, node, 0, k, f, path, B, 0);
    answer_all();
    assert_int_equal(m.done, 1);
    settle(&m, FATE_PASSED);
    answer_all();
    return m.out.copy[0].relation;
}

static void node_figures(unsigned node, struct store_redis_figures *f)
{
    assert_true(store_redis_figures(fleet.node[node].store, f));
}

/* Lets the nodes look around, and Redis answer, until nothing waits. */
static void let_hand_in(void)
{
    for (int i = 0; i < 200; i++) {
        uint64_t waiting = world.ncalls;
        for (unsigned n = 0; n < NODES; n++) {
            struct store_redis_figures f;
            node_figures(n, &f);
            waiting += f.waiting;
        }
        if (!waiting)
            return;
        event_base_loop(fleet.base, EVLOOP_ONCE);
        answer_all();
    }
    fail_msg("something waits for ever");
}

/* ---- the tests ---- */

static void nodes_know_what_each_other_saw(void **state)
{
    (void)state;
    assert_int_equal(pass(0, 1, 1, "o isp"), REL_FIRST);
    assert_int_equal(pass(1, 1, 1, "o isp"), REL_SAME);
    assert_int_equal(pass(2, 1, 1, "o isp sbs^ smart"), REL_DETOUR);
    assert_int_equal(pass(0, 1, 1, "o isp sbs^/2 smart"), REL_DETOUR);
    for (unsigned i = 0; i < NODES; i++) {
        struct store_redis_figures f;
        node_figures(i, &f);
        assert_int_equal(f.degraded, 0);
        assert_int_equal(f.waiting, 0);
    }
}

static void the_log_says_which_of_two_came_first(void **state)
{
    (void)state;
    for (int other = 0; other < 2; other++) { /* on one node, on two */
        for (int order = 0; order < 2; order++) {
            struct message_under_way m[2];
            uint64_t k = 10 + (uint64_t)(2 * other + order);
            begin(&m[0], 0, 0, k, 1, "o isp", B, 0);
            begin(&m[1], other ? 1 : 0, 1, k, 1, "o isp", B, 0);
            /* the answers overtake each other */
            for (int i = 0; i < 2; i++) {
                unsigned first = (unsigned)(order ^ i);
                while (answer_one(connection(first && other ? 1 : 0, first), false))
                    ;
            }
            assert_int_equal(m[0].done + m[1].done, 2);
            assert_int_equal(m[0].out.copy[0].relation, REL_FIRST);
            assert_int_equal(m[1].out.copy[0].relation, REL_SAME);
            assert_false(m[0].out.degraded || m[1].out.degraded);
        }
    }
}

static void another_content_is_another_message_everywhere(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 12; i++)
        assert_int_equal(pass(i % NODES, 1, 100 + i, "o isp"), REL_FIRST);
    for (unsigned i = 0; i < 12; i++)
        assert_int_equal(pass((i + 1) % NODES, 1, 100 + i, "o isp"), REL_SAME);
}

static void a_message_given_up_at_any_moment_is_no_copy(void **state)
{
    (void)state;
    for (unsigned answered = 0; answered < 6; answered++) {
        struct message_under_way m;
        begin(&m, 0, 0, 20 + answered, 1, "o isp", B, 0);
        for (unsigned i = 0; i < answered; i++)
            answer_one(connection(0, 0), false);
        store_thread_enter(m.node->thread[0]);
        if (m.op) {
            m.node->store->ops->cancel(m.node->store, &m.op);
            assert_null(m.op);
            assert_int_equal(m.done, 0);
        } else {
            settle(&m, FATE_ABORTED);
        }
        store_thread_enter(NULL);
        answer_all();
        assert_int_equal(m.done, m.done ? 1 : 0);
        assert_int_equal(pass(1, 20 + answered, 1, "o isp"), REL_FIRST);
        assert_int_equal(pass(0, 20 + answered, 1, "o isp"), REL_SAME);
    }
}

static void an_answer_that_does_not_come_costs_no_copy(void **state)
{
    (void)state;
    for (int arrived = 0; arrived < 2; arrived++) {
        struct message_under_way m;
        struct report report;
        uint64_t k = 30 + (uint64_t)arrived;
        world.deaf = !arrived;
        begin(&m, 0, 0, k, 1, "o isp", B, 0);
        world.deaf = false;
        while (answer_one(connection(0, 0), true))
            ;
        assert_int_equal(m.done, 1);
        assert_true(m.out.degraded);
        assert_int_equal(m.out.copy[0].relation, REL_FIRST);
        settle(&m, FATE_PASSED);
        let_hand_in();
        assert_int_equal(pass(1, k, 1, "o isp"), REL_SAME);
        assert_int_equal(pass(0, k, 1, "o isp"), REL_SAME);
        assert_true(m.node->store->ops->report(m.node->store, &m.out.k, fleet.past.arena, &report));
        assert_int_equal(report.copies, 3); /* not 4: it is known by its id */
        assert_int_equal(report.passed, 3);
    }
}

static void without_redis_each_goes_on_alone(void **state)
{
    (void)state;
    struct store_redis_figures f;
    assert_int_equal(pass(0, 1, 1, "o isp"), REL_FIRST);
    world.up = false;
    assert_int_equal(pass(0, 1, 1, "o isp"), REL_SAME);
    assert_int_equal(pass(0, 2, 2, "o isp"), REL_FIRST);
    assert_int_equal(pass(1, 3, 3, "o isp"), REL_FIRST);
    assert_int_equal(world.ncalls, 0); /* nothing was asked */
    node_figures(0, &f);
    assert_int_equal(f.degraded, 2);
    assert_int_equal(f.waiting, 4); /* two messages, what became of them */
    world.up = true;
    let_hand_in();
    assert_int_equal(pass(1, 2, 2, "o isp"), REL_SAME);
    assert_int_equal(pass(2, 3, 3, "o isp"), REL_SAME);
    node_figures(0, &f);
    assert_int_equal(f.handed_in, 4);
}

static void a_log_that_is_lost_is_made_again(void **state)
{
    (void)state;
    struct store_redis_figures f;
    assert_int_equal(pass(0, 1, 1, "o isp"), REL_FIRST);
    assert_int_equal(pass(1, 1, 1, "o isp"), REL_SAME);
    flush_all();
    assert_int_equal(pass(1, 1, 1, "o isp"), REL_SAME);
    assert_int_equal(pass(2, 1, 1, "o isp"), REL_SAME);
    node_figures(1, &f);
    assert_int_equal(f.remade, 1);
    /* by one who has less of it than another */
    flush_all();
    assert_int_equal(pass(0, 1, 1, "o isp sbs^ smart"), REL_DETOUR);
    assert_int_equal(pass(2, 1, 1, "o isp sbs^/2 smart"), REL_DETOUR);
}

/* ---- whatever happens, all come to the same ---- */

static uint64_t dice;

static unsigned roll(unsigned n)
{
    dice = dice * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (unsigned)(dice >> 33) % n;
}

static uint8_t *packed(unsigned node, const struct key *k, size_t *n)
{
    struct memory *m = memory_of(fleet.node[node].store);
    struct shard *s = shard_lock(m, k);
    struct entry *e = entry_find(s, k);
    uint8_t *bytes = e ? record_pack(e->record, n) : NULL;
    pthread_mutex_unlock(&s->lock);
    return bytes;
}

enum { UNDER_WAY = 8, STEPS = 600 };

static void answer_some(bool trouble)
{
    unsigned node = roll(NODES), thread = roll(THREADS);
    bool lost = trouble && roll(12) == 0;
    for (unsigned n = roll(4); n && answer_one(connection(node, thread), lost); n--)
        ;
}

static void run_dice(uint64_t seed, bool trouble, unsigned contents)
{
    static const char *const path[] = {"o isp", "o isp sbs^ smart", "o isp sbs^/2 smart", "o isp/2",
                                       "o alt isp"};
    static const char *const rcpts[] = {"a@a.example", "b@b.example a@a.example", "c@c.example"};
    struct message_under_way *m = calloc(UNDER_WAY, sizeof *m);
    dice = seed;
    for (unsigned step = 0; step < STEPS; step++) {
        struct message_under_way *one = &m[roll(UNDER_WAY)];
        world.deaf = trouble && roll(10) == 0;
        if (trouble && roll(20) == 0)
            world.up = !world.up;
        if (!one->node)
            begin(one, roll(NODES), roll(THREADS), 1 + roll(3), 1 + roll(contents), path[roll(5)],
                  rcpts[roll(3)], step);
        else if (one->op && roll(20) == 0) {
            store_thread_enter(one->node->thread[one->thread]);
            one->node->store->ops->cancel(one->node->store, &one->op);
            store_thread_enter(NULL);
            one->node = NULL;
        } else if (one->done) {
            assert_int_equal(one->done, 1);
            settle(one, (enum fate[]){FATE_PASSED, FATE_HELD, FATE_ABORTED}[roll(3)]);
            one->node = NULL;
        } else
            answer_some(trouble);
    }
    world.deaf = false;
    world.up = true;
    answer_all();
    for (unsigned i = 0; i < UNDER_WAY; i++)
        if (m[i].node) {
            assert_int_equal(m[i].done, 1);
            settle(&m[i], FATE_PASSED);
        }
    free(m);
    let_hand_in();
}

/* Each node looks at the log's end; what it says there is of nobody, and changes nothing. */
static void look_at(const struct key *k)
{
    const uint64_t nobody = 1;
    const enum fate fate = FATE_PASSED;
    for (unsigned n = 0; n < NODES; n++) {
        store_thread_enter(fleet.node[n].thread[0]);
        fleet.node[n].store->ops->settle(fleet.node[n].store, k, &nobody, &fate, 1);
        store_thread_enter(NULL);
        answer_all();
    }
}

static void all_have_the_same(uint64_t seed, unsigned contents)
{
    for (unsigned k = 1; k <= 3; k++)
        for (unsigned f = 1; f <= contents; f++) {
            struct message_under_way m;
            size_t size[NODES];
            uint8_t *bytes[NODES];
            for (unsigned n = 0; n < NODES; n++) {
                begin(&m, n, 0, k, f, "o isp", B, STEPS);
                answer_all();
                settle(&m, FATE_PASSED);
                answer_all();
            }
            look_at(&m.out.k);
            for (unsigned n = 0; n < NODES; n++) {
                bytes[n] = packed(n, &m.out.k, &size[n]);
                assert_non_null(bytes[n]);
            }
            for (unsigned n = 1; n < NODES; n++)
                if (size[n] != size[0] || memcmp(bytes[n], bytes[0], size[0]) != 0)
                    fail_msg("seed %llu: node %u has another record", (unsigned long long)seed, n);
            for (unsigned n = 0; n < NODES; n++)
                free(bytes[n]);
        }
}

/* Which of two contents a K stands for may differ between nodes that judged alone. */
static void each_seed(bool trouble, unsigned contents)
{
    for (uint64_t seed = 1; seed <= 60; seed++) {
        void *none = NULL;
        run_dice(seed, trouble, contents);
        all_have_the_same(seed, contents);
        close_fleet(&none);
        open_fleet(&none);
    }
}

static void whatever_order_answers_have_all_nodes_have_one_past(void **state)
{
    (void)state;
    each_seed(false, 2);
}

static void nor_what_fails_meanwhile(void **state)
{
    (void)state;
    each_seed(true, 1);
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, open_fleet, close_fleet)
    const struct CMUnitTest tests[] = {
        TEST(nodes_know_what_each_other_saw),
        TEST(the_log_says_which_of_two_came_first),
        TEST(another_content_is_another_message_everywhere),
        TEST(a_message_given_up_at_any_moment_is_no_copy),
        TEST(an_answer_that_does_not_come_costs_no_copy),
        TEST(without_redis_each_goes_on_alone),
        TEST(a_log_that_is_lost_is_made_again),
        TEST(whatever_order_answers_have_all_nodes_have_one_past),
        TEST(nor_what_fails_meanwhile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
