/* fleet.c - the fleet's thread: a second at a time. See fleet.h and fleet_own.h. */
#include <stdio.h>
#include <stdlib.h>

#include <openssl/rand.h>

#include "event.h"
#include "fleet.h"
#include "fleet_own.h"
#include "id.h"
#include "log.h"

enum {
    START_MS = 300,
    END_MS = 900,
    QUICK_MS = 200,
    ROUND_MS = 60000, /* TIME is asked this often ... */
    SOON_MS = 5000    /* ... and, after a jump, this often */
};

int64_t fleet_time(const struct fleet *f)
{
    return clock_own() + f->clock.target;
}

bool fleet_set_aside(struct fleet *f, const char *key, struct span error)
{
    char to[FLEET_KEY + 40];
    if (!span_starts(error, SPAN("WRONGTYPE")))
        return false;
    snprintf(to, sizeof to, "{%s}:aside-%lld", key, (long long)fleet_time(f));
    const struct span argv[] = {SPAN("RENAME"), span_str(key), span_str(to)};
    redis_send(f->redis, argv[1], argv, 3, FLEET_DEADLINE, NULL, NULL);
    log_say(LOG_LEVEL_ERROR, "Redis: key %s held something that is not ours; it is now %s", key,
            to);
    return true;
}

/* ---- a second ---- */

static bool time_is_due(const struct fleet *f)
{
    int64_t pause = f->clock.rounds ? SOON_MS : ROUND_MS;
    return !f->timed || clock_mono() - f->timed >= pause;
}

static void talk(struct fleet *f)
{
    for (size_t i = 0; i < f->nstreams; i++) {
        stream_collect(&f->stream[i], f->stopping);
        stream_tell(&f->stream[i]);
        stream_read(&f->stream[i]);
    }
}

static void look_at_it(struct fleet *f)
{
    const char *trouble = redis_trouble(f->redis);
    pthread_mutex_lock(&f->lock);
    f->now = fleet_time(f);
    f->offset = f->clock.offset;
    pthread_mutex_unlock(&f->lock);
    if (!redis_up(f->redis))
        fleet_enter(f, FLEET_AWAY, trouble ? trouble : "Redis does not answer");
}

static void each_second(evutil_socket_t fd, short what, void *arg)
{
    struct fleet *f = arg;
    (void)fd, (void)what;
    if (fleetclock_step(&f->clock))
        clock_shift(f->clock.offset, false);
    look_at_it(f);
    if (time_is_due(f))
        fleet_ask_time(f);
    if (f->seconds++ % 2 == 0)
        fleet_greet(f);
    talk(f);
}

static void some_times(evutil_socket_t fd, short what, void *arg)
{
    struct fleet *f = arg;
    (void)fd, (void)what;
    for (size_t i = 0; i < f->nstreams; i++) {
        struct stream *s = &f->stream[i];
        if (!s->topic->quick)
            continue;
        stream_collect(s, false);
        stream_tell(s);
        stream_read(s);
    }
}

static void hurry(struct letter *l)
{
    struct fleet *f = ((struct fleet_letter *)l)->fleet;
    free(l);
    atomic_store(&f->hurried, false);
    talk(f);
}

static void post(struct fleet *f, void (*open)(struct letter *))
{
    struct fleet_letter *l = malloc(sizeof *l);
    if (!l)
        abort();
    *l = (struct fleet_letter){.letter.open = open, .fleet = f};
    mailbox_post(f->mailbox, &l->letter);
}

void fleet_hurry(struct fleet *f)
{
    if (f && !atomic_exchange(&f->hurried, true))
        post(f, hurry);
}

/* ---- beginning ---- */

static void stream_key(struct fleet *f, const char *name, char out[FLEET_KEY])
{
    snprintf(out, FLEET_KEY, "%.64s:1:x:%.32s", f->setup.redis->prefix, name);
}

static void introduce(struct fleet *f)
{
    const struct config *c = f->setup.config;
    struct member *me = &f->me;
    if (RAND_bytes((unsigned char *)&me->boot, sizeof me->boot) != 1)
        abort();
    me->boot += !me->boot;
    span_show(c->site.node, me->name, sizeof me->name);
    me->number = c->node_number % MEMBER_NUMBERS;
    snprintf(me->version, sizeof me->version, "%s", BREAKWATER_VERSION);
    me->key = f->setup.key_id;
    me->parameters = site_parameters_hash(&c->site);
    me->events = EVENT_VERSION;
}

struct fleet *fleet_new(const struct fleet_setup *setup)
{
    struct fleet *f = calloc(1, sizeof *f);
    if (!f || pthread_mutex_init(&f->lock, NULL))
        abort();
    f->setup = *setup;
    introduce(f);
    stream_key(f, "nodes", f->nodes_key);
    f->base = event_base_new();
    if (!f->base)
        abort();
    f->mailbox = mailbox_new(f->base);
    return f;
}

void fleet_tell(struct fleet *f, const struct fleet_topic *topic, void *arg)
{
    if (f->nstreams == FLEET_TOPICS)
        abort();
    struct stream *s = &f->stream[f->nstreams++];
    s->fleet = f;
    s->topic = topic;
    s->arg = arg;
    s->end = &s->first;
    stream_key(f, topic->name, s->key);
    snprintf(s->last, sizeof s->last, "0-0");
}

static struct event *timer(struct fleet *f, event_callback_fn fn, short what, int64_t ms)
{
    struct timeval tv = clock_timeval(ms);
    struct event *e = event_new(f->base, -1, what, fn, f);
    if (!e || event_add(e, &tv))
        abort();
    return e;
}

static void start_over(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    event_base_loopbreak(((struct fleet *)arg)->base);
}

/* Before any mail is dated: the time, and whether we may share. */
static void look_first(struct fleet *f)
{
    int64_t until = clock_mono() + START_MS;
    while (!f->listed && clock_mono() < until) {
        struct event *e = timer(f, start_over, EV_TIMEOUT, 10);
        if (!f->clock.known)
            fleet_ask_time(f);
        event_base_dispatch(f->base);
        event_free(e);
    }
    if (f->clock.known)
        clock_shift(f->clock.offset, true);
    look_at_it(f);
}

static void *run(void *arg)
{
    struct fleet *f = arg;
    event_base_loop(f->base, EVLOOP_NO_EXIT_ON_EMPTY);
    return NULL;
}

int fleet_start(struct fleet *f, char error[512])
{
    f->redis = redis_open(f->base, f->setup.redis);
    look_first(f);
    f->second = timer(f, each_second, EV_PERSIST, 1000);
    f->quick = timer(f, some_times, EV_PERSIST, QUICK_MS);
    if (pthread_create(&f->thread, NULL, run, f) == 0)
        return 0;
    snprintf(error, 512, "the fleet's thread could not be started");
    return -1;
}

/* ---- a reload ---- */

struct parameters {
    struct fleet_letter letter; /* must be first */
    uint64_t hash;
};

static void take_parameters(struct letter *l)
{
    struct parameters *p = (struct parameters *)l;
    struct fleet *f = p->letter.fleet;
    if (p->hash != f->me.parameters) {
        pthread_mutex_lock(&f->lock);
        f->me.parameters = p->hash;
        f->me.since = fleet_time(f);
        pthread_mutex_unlock(&f->lock);
        atomic_store(&f->shares, false); /* until it is known who else has them */
        fleet_greet(f);
    }
    free(p);
}

void fleet_reload(struct fleet *f, const struct config *config)
{
    if (!f)
        return;
    struct parameters *p = calloc(1, sizeof *p);
    if (!p)
        abort();
    p->letter.letter.open = take_parameters;
    p->letter.fleet = f;
    p->hash = site_parameters_hash(&config->site);
    mailbox_post(f->mailbox, &p->letter.letter);
}

/* ---- the end ---- */

static void left(void *arg, const struct redisReply *r, const char *why)
{
    struct fleet *f = arg;
    (void)r, (void)why;
    f->greeting = NULL;
    event_base_loopbreak(f->base);
}

static bool all_told(const struct fleet *f)
{
    for (size_t i = 0; i < f->nstreams; i++)
        if (f->stream[i].first)
            return false;
    return true;
}

static void until_told(evutil_socket_t fd, short what, void *arg)
{
    struct fleet *f = arg;
    (void)fd, (void)what;
    if (!redis_up(f->redis)) {
        event_base_loopbreak(f->base);
        return;
    }
    if (f->me.left || (atomic_load(&f->shares) && !all_told(f)))
        return;
    if (f->greeted)
        fleet_leave(f, left);
    else
        event_base_loopbreak(f->base);
}

static void farewell(struct letter *l)
{
    struct fleet *f = ((struct fleet_letter *)l)->fleet;
    free(l);
    f->stopping = true;
    event_free(f->second);
    event_free(f->quick);
    f->quick = NULL;
    f->end = timer(f, start_over, EV_TIMEOUT, END_MS);
    f->second = timer(f, until_told, EV_PERSIST, 10);
    talk(f);
}

static void fleet_free(struct fleet *f)
{
    mailbox_free(&f->mailbox);
    redis_close(&f->redis); /* calls that wait are told so: streams still stand */
    for (size_t i = 0; i < f->nstreams; i++)
        stream_drop_all(&f->stream[i]);
    if (f->second)
        event_free(f->second);
    if (f->quick)
        event_free(f->quick);
    if (f->end)
        event_free(f->end);
    event_base_free(f->base);
    members_clear(&f->members);
    member_clear(&f->me);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

void fleet_stop(struct fleet **fp)
{
    struct fleet *f = *fp;
    if (!f)
        return;
    post(f, farewell);
    pthread_join(f->thread, NULL); /* until then its topics may look at *fp */
    *fp = NULL;
    fleet_free(f);
}

/* ---- for others ---- */

bool fleet_shares(const struct fleet *f)
{
    return f && atomic_load_explicit(&f->shares, memory_order_relaxed);
}

bool fleet_speaks(const struct fleet *f)
{
    return f && atomic_load_explicit(&f->speaks, memory_order_relaxed);
}

static json_t *member_json(const struct fleet *f, const struct member *m, int64_t now)
{
    const struct member *model = members_model(&f->members, &f->me, now);
    bool self = m == &f->me, alive = self || member_alive(m, now);
    const char *why = !alive ? NULL : member_differs(model, m);
    if (self && f->state == FLEET_REFUSED && !why)
        why = f->why;
    json_t *o = json_object();
    json_object_set_new(o, "name", json_text_of(m->name));
    json_object_set_new(o, "self", json_boolean(self));
    json_object_set_new(o, "alive", json_boolean(alive));
    json_object_set_new(o, "left", json_boolean(m->left));
    json_object_set_new(o, "number", json_integer(m->number));
    json_object_set_new(o, "version", json_text_of(m->version));
    json_object_set_new(o, "mode", m->mode[0] ? json_string(m->mode) : json_null());
    json_object_set_new(o, "started", json_time(m->started));
    json_object_set_new(o, "seen", json_time(self ? now : m->seen));
    json_object_set_new(o, "shared", json_boolean(alive && !why));
    json_object_set_new(o, "why", json_text_of(why));
    json_object_set_new(o, "figures", m->figures ? json_deep_copy(m->figures) : json_null());
    return o;
}

static json_t *members_json(const struct fleet *f, int64_t now)
{
    json_t *list = json_array();
    json_array_append_new(list, member_json(f, &f->me, now));
    for (size_t i = 0; i < f->members.n; i++)
        if (strcmp(f->members.m[i].name, f->me.name) != 0)
            json_array_append_new(list, member_json(f, &f->members.m[i], now));
    return list;
}

json_t *fleet_document(struct fleet *f)
{
    static const char *const states[] = {"away", "sharing", "refused"};
    if (!f)
        return json_null();
    json_t *o = json_object();
    pthread_mutex_lock(&f->lock);
    json_object_set_new(o, "state", json_string(states[f->state]));
    json_object_set_new(o, "why", f->why[0] ? json_text_of(f->why) : json_null());
    json_object_set_new(o, "offset_ms", json_integer(f->offset));
    json_object_set_new(o, "told", json_integer((json_int_t)f->told));
    json_object_set_new(o, "heard", json_integer((json_int_t)f->heard));
    json_object_set_new(o, "dropped", json_integer((json_int_t)f->dropped));
    json_object_set_new(o, "nodes", members_json(f, f->now));
    pthread_mutex_unlock(&f->lock);
    return o;
}
