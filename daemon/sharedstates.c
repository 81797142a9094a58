/* sharedstates.c - see sharedstates.h. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include <hiredis/hiredis.h>
#include <openssl/rand.h>

#include "arena.h"
#include "id.h"
#include "log.h"
#include "sharedstates.h"

enum { ROUNDS = 3, HEAD = 20, VERSION = 8, PARTS = DETECTORS_MAX * ABOUT_MAX, KEY_ROOM = 160 };
enum { OLDER = 60000 }; /* ms by which a state here must be the later one to count */

/* KEYS[1] the state; ARGV the version it is expected to have (empty: there is none), what replaces
 * it, its life in ms. 1: done. Else what is there instead, or nil. */
static struct redis_script cas = {
    .text = "local v = redis.call('GET', KEYS[1])\n"
            "if (v and string.sub(v, 1, 8) or '') ~= ARGV[1] then return v end\n"
            "redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])\n"
            "return 1\n"};

static struct {
    _Atomic uint64_t steps, conflicts, alone;
} figures;

enum answer { ANSWER_NONE, ANSWER_GOOD, ANSWER_FAILED }; /* none: or somebody was faster */

/* One state. */
struct part {
    struct shared_steps *all;
    struct redis_call *call;
    uint32_t detector;
    struct about about;
    enum answer answer;
    bool touched;              /* after all */
    bool written;              /* ours is there: only the signals are wanted of it */
    uint8_t expected[VERSION]; /* of what was read ... */
    size_t nexpected;          /* ... its bytes; 0: there was none */
    void *base;                /* before the step: zero if there was none */
    void *next;                /* after it */
    int64_t used;              /* ms: of the base */
    char key[KEY_ROOM];
};

struct shared_steps {
    struct redis *redis;
    const struct redis_settings *settings;
    struct states *states;
    const struct subject *subject;
    struct signals *signals;
    struct signals before; /* any step */
    shared_steps_fn *done;
    void *arg;
    int64_t until; /* monotonic ms */
    struct part *part;
    size_t n, waiting;
    unsigned rounds;
    bool going, later; /* done is to be called */
};

static void count(_Atomic uint64_t *figure)
{
    atomic_fetch_add_explicit(figure, 1, memory_order_relaxed);
}

void shared_steps_figures(struct shared_steps_figures *f)
{
    *f = (struct shared_steps_figures){.steps = atomic_load(&figures.steps),
                                       .conflicts = atomic_load(&figures.conflicts),
                                       .alone = atomic_load(&figures.alone)};
}

/* ---- what is in Redis ---- */

/* Something else lies under our key: away with it, but not for ever. */
static void set_aside(const struct part *p, const redisReply *r)
{
    char to[KEY_ROOM + 40];
    if (!span_starts(span_of(r->str, (size_t)r->len), SPAN("WRONGTYPE")))
        return;
    snprintf(to, sizeof to, "%s:aside-%lld", p->key, (long long)clock_now());
    const struct span argv[] = {SPAN("RENAME"), span_str(p->key), span_str(to)};
    redis_send(p->all->redis, argv[1], argv, 3, 0, NULL, NULL);
    log_say(LOG_LEVEL_ERROR, "Redis: key %s held something that is not ours; it is now %s", p->key,
            to);
}

/* Redis' state, unless ours is later by far: then it lost what it had. A state that cannot be used
 * is none, but it is what the next one replaces. */
static void take(struct part *p, struct span value)
{
    const struct detector *d = detectors[p->detector];
    bool here =
        states_get(p->all->states, p->detector, &p->about, p->all->subject->now, p->base, &p->used);
    p->answer = ANSWER_GOOD;
    p->nexpected = value.n < VERSION ? value.n : VERSION;
    if (!value.n)
        return;
    memcpy(p->expected, value.p, p->nexpected);
    if (value.n != HEAD + d->state_bytes || bytes_get(value.p + 8, 4) != d->state_version)
        return;
    int64_t used = (int64_t)bytes_get(value.p + 12, 8);
    memcpy(p->next, value.p + HEAD, d->state_bytes); /* aligned */
    if ((here && p->used > used && p->used - used > OLDER) ||
        (d->state_sound && !d->state_sound(p->next)))
        return;
    memcpy(p->base, p->next, d->state_bytes);
    p->used = used;
}

static void fail(struct part *p)
{
    p->answer = ANSWER_FAILED;
    (void)states_get(p->all->states, p->detector, &p->about, p->all->subject->now, p->base,
                     &p->used);
    count(&figures.alone);
}

static void go_on(struct shared_steps *);

static void was_read(void *arg, const struct redisReply *r, const char *why)
{
    struct part *p = arg;
    struct shared_steps *s = p->all;
    (void)why;
    p->call = NULL;
    s->waiting--;
    if (r && r->type == REDIS_REPLY_STRING)
        take(p, span_of(r->str, (size_t)r->len));
    else if (r && r->type == REDIS_REPLY_NIL)
        take(p, span_of(NULL, 0));
    else
        fail(p);
    if (r && r->type == REDIS_REPLY_ERROR)
        set_aside(p, r);
    if (s->going && !s->waiting)
        go_on(s);
}

/* ---- asking ---- */

static void add_part(struct shared_steps *s, uint32_t detector, const struct about *a)
{
    const struct detector *d = detectors[detector];
    struct arena *arena = s->subject->arena;
    struct part *p = &s->part[s->n++];
    *p = (struct part){.all = s, .detector = detector, .about = *a};
    p->base = arena_zero(arena, d->state_bytes);
    p->next = arena_zero(arena, d->state_bytes);
    snprintf(p->key, sizeof p->key, "%.64s:1:s:{%s-%016llx}", s->settings->prefix, d->name,
             (unsigned long long)a->key);
    if (!redis_reaches(s->redis, span_str(p->key))) {
        fail(p);
        return;
    }
    const struct span argv[] = {SPAN("GET"), span_str(p->key)};
    p->call = redis_send(s->redis, argv[1], argv, 2, 0, was_read, p);
    s->waiting++;
}

static void ready(void)
{
    redis_script_ready(&cas);
}

struct shared_steps *shared_steps_ask(struct redis *redis, const struct redis_settings *settings,
                                      struct states *states, const struct subject *subject)
{
    static const struct signals nothing;
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct shared_steps *s = NULL;
    struct about about[ABOUT_MAX];
    for (uint32_t i = 0; detectors[i]; i++) {
        size_t n = detectors[i]->about ? detectors[i]->about(subject, &nothing, about) : 0;
        for (size_t k = 0; k < n; k++) {
            if (about[k].shared == ABOUT_OWN)
                continue;
            if (!s) {
                pthread_once(&once, ready);
                s = arena_zero(subject->arena, sizeof *s);
                *s = (struct shared_steps){
                    .redis = redis, .settings = settings, .states = states, .subject = subject};
                s->part = arena_zero(subject->arena, PARTS * sizeof *s->part);
                s->until = clock_mono() + settings->deadline;
            }
            add_part(s, i, &about[k]);
        }
    }
    return s;
}

/* ---- stepping ---- */

static struct part *part_of(struct shared_steps *s, uint32_t detector, const struct about *a)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->part[i].detector == detector && s->part[i].about.key == a->key)
            return &s->part[i];
    return NULL;
}

/* What is this node's own is stepped here; of what was asked, what is touched after all. */
static void sort_out(struct shared_steps *s)
{
    struct about about[ABOUT_MAX];
    for (uint32_t i = 0; detectors[i]; i++) {
        size_t n = detectors[i]->about ? detectors[i]->about(s->subject, s->signals, about) : 0;
        for (size_t k = 0; k < n; k++) {
            struct part *p = part_of(s, i, &about[k]);
            if (!p || p->touched) {
                states_step_one(s->states, i, &about[k], s->subject, s->signals);
                continue;
            }
            p->touched = true;
            p->about = about[k];
        }
    }
}

static void forget(struct part *p)
{
    if (!p->call)
        return;
    redis_forget(&p->call);
    p->all->waiting--;
}

static void step(struct part *p)
{
    struct shared_steps *s = p->all;
    const struct detector *d = detectors[p->detector];
    memcpy(p->next, p->base, d->state_bytes);
    d->step(p->next, s->subject, &p->about, s->signals);
}

static void was_written(void *arg, const struct redisReply *r, const char *why)
{
    struct part *p = arg;
    struct shared_steps *s = p->all;
    (void)why;
    p->call = NULL;
    s->waiting--;
    if (r && r->type == REDIS_REPLY_INTEGER) {
        p->written = true;
    } else if (r && (r->type == REDIS_REPLY_STRING || r->type == REDIS_REPLY_NIL)) {
        count(&figures.conflicts);
        take(p, r->type == REDIS_REPLY_NIL ? span_of(NULL, 0) : span_of(r->str, (size_t)r->len));
        p->answer = ANSWER_NONE; /* of ours */
    } else {
        p->answer = ANSWER_FAILED;
    }
    if (!s->waiting)
        go_on(s);
}

static int64_t used_now(const struct part *p)
{
    int64_t now = p->all->subject->now;
    return now > p->used ? now : p->used;
}

/* version[8] of the bytes[4] used[8] bytes */
static struct span value_of(struct part *p)
{
    const struct detector *d = detectors[p->detector];
    struct shared_steps *s = p->all;
    uint8_t *value = arena_alloc(s->subject->arena, HEAD + d->state_bytes), *v = value + VERSION;
    if (RAND_bytes(value, VERSION) != 1)
        memset(value, 0xff, VERSION);
    v = bytes_put(v, d->state_version, 4);
    v = bytes_put(v, (uint64_t)used_now(p), 8);
    memcpy(v, p->next, d->state_bytes);
    return span_of(value, HEAD + d->state_bytes);
}

static void write_it(struct part *p)
{
    struct shared_steps *s = p->all;
    char life[24];
    bool strict = p->about.shared == ABOUT_STRICTLY;
    int64_t left = s->until - clock_mono();
    snprintf(life, sizeof life, "%lld", (long long)(p->about.life > 1 ? p->about.life : 1));
    const struct span argv[] = {span_of(p->expected, p->nexpected), value_of(p), span_str(life)};
    count(&figures.steps);
    struct redis_call *call =
        redis_run(s->redis, &cas, span_str(p->key), argv, 3, left > 1 ? left : 1,
                  strict ? was_written : NULL, strict ? p : NULL);
    p->answer = ANSWER_GOOD;
    p->written = !strict;
    if (!strict)
        return;
    p->call = call;
    s->waiting++;
}

/* What lost the last race is what the other made of it. */
static void keep_here(struct shared_steps *s)
{
    for (size_t i = 0; i < s->n; i++) {
        struct part *p = &s->part[i];
        if (p->touched)
            states_set(s->states, p->detector, &p->about,
                       p->answer == ANSWER_NONE ? p->base : p->next, used_now(p));
    }
}

static void finish(struct shared_steps *s)
{
    keep_here(s);
    s->going = false;
    if (s->later)
        s->done(s->arg);
}

static bool to_be_written(const struct part *p)
{
    size_t n = detectors[p->detector]->state_bytes;
    return p->touched && !p->written && p->answer != ANSWER_FAILED &&
           memcmp(p->base, p->next, n) != 0;
}

/* All parts are read. Each round begins with the signals as they were, so that what they say at the
 * end is what the last states say. */
static void round_begin(struct shared_steps *s)
{
    s->rounds++;
    *s->signals = s->before;
    for (size_t i = 0; i < s->n; i++)
        if (s->part[i].touched)
            step(&s->part[i]);
    for (size_t i = 0; i < s->n; i++)
        if (to_be_written(&s->part[i]))
            write_it(&s->part[i]);
}

static bool lost_a_race(const struct shared_steps *s)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->part[i].touched && s->part[i].answer == ANSWER_NONE)
            return true;
    return false;
}

/* Nothing is waited for. */
static void go_on(struct shared_steps *s)
{
    bool again = s->rounds == 0 || lost_a_race(s);
    if (again && (s->rounds == 0 || (s->rounds < ROUNDS && clock_mono() < s->until)))
        round_begin(s);
    else if (again) /* as if nobody else were there */
        count(&figures.alone);
    if (!s->waiting)
        finish(s);
}

bool shared_steps_go(struct shared_steps *s, struct signals *signals, shared_steps_fn *done,
                     void *arg)
{
    s->signals = signals;
    s->done = done;
    s->arg = arg;
    sort_out(s);
    for (size_t i = 0; i < s->n; i++)
        if (!s->part[i].touched)
            forget(&s->part[i]);
    s->before = *signals;
    s->going = true;
    if (!s->waiting)
        go_on(s);
    s->later = s->waiting > 0;
    return !s->later;
}

void shared_steps_end(struct shared_steps **sp)
{
    struct shared_steps *s = *sp;
    *sp = NULL;
    for (size_t i = 0; s && i < s->n; i++)
        forget(&s->part[i]);
}
