/* fleet_registry.c - who there is, whether we may share with them, and what time it is. */
#include <stdio.h>
#include <stdlib.h>

#include <hiredis/hiredis.h>

#include "fleet.h"
#include "fleet_own.h"
#include "id.h"
#include "log.h"

/* ---- what it forgets ---- */

/* The value of "name:" in what INFO says. */
static struct span info_value(struct span text, struct span name)
{
    while (text.n) {
        size_t end = span_find(text, '\n');
        struct span line = span_trim(span_head(text, end));
        if (span_starts(line, name))
            return span_from(line, name.n);
        text = span_from(text, end + 1);
    }
    return span_of(NULL, 0);
}

/* A full Redis must give up what would be forgotten first anyway, or nothing at all. */
static void sized(void *arg, const struct redisReply *r, const char *why)
{
    struct fleet *f = arg;
    (void)why;
    f->sizing = NULL;
    if (!r || r->type != REDIS_REPLY_STRING)
        return; /* this user may not ask, say */
    struct span text = span_of(r->str, (size_t)r->len);
    struct span most = info_value(text, SPAN("maxmemory:"));
    struct span policy = info_value(text, SPAN("maxmemory_policy:"));
    bool bad = policy.n && !span_eq(most, SPAN("0")) && !span_starts(policy, SPAN("volatile-")) &&
               !span_eq(policy, SPAN("noeviction"));
    if (bad && !f->forgets)
        log_say(LOG_LEVEL_ERROR,
                "Redis has maxmemory-policy %.*s: when it is full it forgets storms as soon as "
                "plain mail; contrib/redis says volatile-ttl",
                SPAN_ARG(span_head(policy, 40)));
    f->forgets = bad;
}

static void ask_memory(struct fleet *f)
{
    const struct span argv[] = {SPAN("INFO"), SPAN("memory")};
    if (!f->sizing && redis_up(f->redis))
        f->sizing = redis_send(f->redis, span_of(NULL, 0), argv, 2, FLEET_DEADLINE, sized, f);
}

/* ---- what time it is ---- */

static void say_clock(const struct fleet *f, enum fleetclock_said said)
{
    const struct fleetclock *c = &f->clock;
    if (said == FLEETCLOCK_FIRST && (c->offset > 1000 || c->offset < -1000))
        log_say(LOG_LEVEL_NOTICE,
                "this machine's clock is %.1f s %s Redis'; mail is dated by Redis' clock",
                (double)(c->offset < 0 ? -c->offset : c->offset) / 1000,
                c->offset > 0 ? "behind" : "ahead of");
    if (said == FLEETCLOCK_DOUBT && c->rounds == 1)
        log_say(LOG_LEVEL_ERROR,
                "Redis' clock and this machine's have moved apart by %.1f s; not believed yet",
                (double)(c->doubted - c->target) / 1000);
    if (said == FLEETCLOCK_JUMPED)
        log_say(LOG_LEVEL_NOTICE, "Redis' clock has stayed so: it is followed, slowly");
}

/* Seconds and microseconds. */
static int64_t time_of(const redisReply *r)
{
    uint64_t s, us;
    if (r->type != REDIS_REPLY_ARRAY || r->elements != 2 ||
        r->element[0]->type != REDIS_REPLY_STRING || r->element[1]->type != REDIS_REPLY_STRING ||
        !span_number(span_of(r->element[0]->str, (size_t)r->element[0]->len), UINT32_MAX, &s) ||
        !span_number(span_of(r->element[1]->str, (size_t)r->element[1]->len), 999999, &us))
        return 0;
    return (int64_t)(s * 1000 + us / 1000);
}

static void begin_life(struct fleet *f)
{
    f->joined = fleet_time(f);
    pthread_mutex_lock(&f->lock);
    f->me.started = f->me.since = f->joined;
    pthread_mutex_unlock(&f->lock);
}

static void timed(void *arg, const struct redisReply *r, const char *why)
{
    struct fleet *f = arg;
    (void)why;
    f->timing = NULL;
    int64_t theirs = r ? time_of(r) : 0;
    if (!theirs) {
        fleetclock_again(&f->clock);
        return;
    }
    enum fleetclock_said said =
        fleetclock_hear(&f->clock, f->asked_own, clock_mono() - f->asked_mono, theirs);
    say_clock(f, said);
    if (said == FLEETCLOCK_MORE) {
        fleet_ask_time(f);
        return;
    }
    f->timed = clock_mono();
    ask_memory(f);
    if (said != FLEETCLOCK_FIRST)
        return;
    begin_life(f);
    fleet_greet(f);
}

void fleet_ask_time(struct fleet *f)
{
    const struct span argv[] = {SPAN("TIME")};
    if (f->timing || !redis_up(f->redis))
        return;
    f->asked_own = clock_own();
    f->asked_mono = clock_mono();
    f->timing = redis_send(f->redis, span_of(NULL, 0), argv, 1, FLEET_DEADLINE, timed, f);
}

/* ---- may we share? ---- */

/* Somebody should know now. */
static void raise_alarm(const struct fleet *f, const char *subject, const char *text)
{
    if (f->setup.alarm)
        f->setup.alarm(f->setup.arg, subject, text);
    else
        log_say(LOG_LEVEL_ERROR, "%s", text);
}

static void say_state(struct fleet *f)
{
    char text[500];
    if (f->state == FLEET_SHARING && f->refused)
        log_say(LOG_LEVEL_NOTICE, "this node shares its past again");
    if (f->state == FLEET_REFUSED && !f->refused) {
        snprintf(text, sizeof text, "This node does not share its past: %s.", f->why);
        raise_alarm(f, "a node is left out of the fleet", text);
    }
    if (f->state != FLEET_AWAY)
        f->refused = f->state == FLEET_REFUSED;
}

void fleet_enter(struct fleet *f, enum fleet_state state, const char *why)
{
    pthread_mutex_lock(&f->lock);
    f->state = state;
    snprintf(f->why, sizeof f->why, "%s", why);
    pthread_mutex_unlock(&f->lock);
    atomic_store(&f->speaks, state == FLEET_SHARING);
    if (state != FLEET_AWAY) /* then nothing is shared, and nothing has changed */
        atomic_store(&f->shares, state == FLEET_SHARING);
    say_state(f);
}

static void choose_number(struct fleet *f, int64_t now)
{
    const struct member *m = members_namesake(&f->members, &f->me, now);
    if (!m)
        return;
    uint16_t fresh = members_free_number(&f->members, &f->me);
    char text[500];
    snprintf(text, sizeof text,
             "Node %.200s has node number %u, too, which is made of the name: new identifiers of "
             "this node use number %u instead. Other names avoid that.",
             m->name, m->number, fresh);
    pthread_mutex_lock(&f->lock);
    f->me.number = fresh;
    pthread_mutex_unlock(&f->lock);
    id_use_node(fresh);
    raise_alarm(f, "two nodes have the same number", text);
}

static const struct member *entry_of_mine(const struct fleet *f)
{
    for (size_t i = 0; i < f->members.n; i++)
        if (strcmp(f->members.m[i].name, f->me.name) == 0)
            return &f->members.m[i];
    return NULL;
}

/* Another process writes under our name, though we have written since we began. */
static bool name_is_taken(const struct fleet *f, int64_t now)
{
    const struct member *m = entry_of_mine(f);
    return m && f->greeted && m->boot != f->me.boot && member_alive(m, now) &&
           member_elder(m, &f->me);
}

/* false: we are not to write into the registry. */
static bool judge(struct fleet *f)
{
    char why[320];
    int64_t now = fleet_time(f);
    if (name_is_taken(f, now)) {
        snprintf(why, sizeof why, "another node is called %.200s as well; node.name must differ",
                 f->me.name);
        fleet_enter(f, FLEET_REFUSED, why);
        return false;
    }
    choose_number(f, now);
    const struct member *model = members_model(&f->members, &f->me, now);
    const char *differs = member_differs(model, &f->me);
    if (differs) {
        snprintf(why, sizeof why, "%s than that of node %.200s", differs, model->name);
        fleet_enter(f, FLEET_REFUSED, why);
    } else {
        fleet_enter(f, FLEET_SHARING, "");
    }
    return true;
}

/* ---- the registry ---- */

static struct span text_of(const redisReply *r)
{
    return r->type == REDIS_REPLY_STRING ? span_of(r->str, (size_t)r->len) : span_of(NULL, 0);
}

static void forget(struct fleet *f, struct span name)
{
    const struct span argv[] = {SPAN("HDEL"), span_str(f->nodes_key), name};
    redis_send(f->redis, argv[1], argv, 3, FLEET_DEADLINE, NULL, NULL);
}

/* Names and documents in turn. */
static void read_registry(struct fleet *f, const redisReply *r)
{
    int64_t now = fleet_time(f);
    pthread_mutex_lock(&f->lock);
    members_clear(&f->members);
    for (size_t i = 0; i + 1 < r->elements && f->members.n < MEMBERS_MAX; i += 2) {
        struct member *m = &f->members.m[f->members.n];
        struct span name = text_of(r->element[i]);
        bool good = member_read(m, name, text_of(r->element[i + 1]));
        if (good && m->seen > now)
            m->seen = now;
        if (good && now - m->seen < MEMBER_FORGOTTEN) {
            f->members.n++;
            continue;
        }
        member_clear(m);
        forget(f, name);
    }
    pthread_mutex_unlock(&f->lock);
}

static void greeted(void *arg, const struct redisReply *r, const char *why)
{
    struct fleet *f = arg;
    (void)why;
    f->greeting = NULL;
    if (r && r->type != REDIS_REPLY_ERROR)
        f->greeted = clock_mono();
}

static void write_ours(struct fleet *f, redis_done_fn *done)
{
    const char *mode = f->setup.mode ? f->setup.mode(f->setup.arg) : NULL;
    json_t *figures = f->setup.figures && !f->me.left ? f->setup.figures(f->setup.arg) : NULL;
    pthread_mutex_lock(&f->lock);
    json_decref(f->me.figures);
    f->me.figures = figures;
    f->me.seen = fleet_time(f);
    snprintf(f->me.mode, sizeof f->me.mode, "%s", mode ? mode : "");
    char *document = member_print(&f->me);
    pthread_mutex_unlock(&f->lock);
    const struct span argv[] = {SPAN("HSET"), span_str(f->nodes_key), span_str(f->me.name),
                                span_str(document)};
    if (f->greeting)
        redis_forget(&f->greeting);
    f->greeting = redis_send(f->redis, argv[1], argv, 4, FLEET_DEADLINE, done, f);
    free(document);
}

static void listed(void *arg, const struct redisReply *r, const char *why)
{
    struct fleet *f = arg;
    (void)why;
    f->listing = NULL;
    if (!r || f->stopping)
        return;
    if (r->type != REDIS_REPLY_ARRAY) {
        if (r->type == REDIS_REPLY_ERROR)
            (void)fleet_set_aside(f, f->nodes_key, span_of(r->str, (size_t)r->len));
        return;
    }
    read_registry(f, r);
    if (judge(f))
        write_ours(f, greeted);
    bool first = !f->listed;
    f->listed = true;
    if (first)
        for (size_t i = 0; i < f->nstreams; i++)
            stream_read(&f->stream[i]);
}

void fleet_greet(struct fleet *f)
{
    const struct span argv[] = {SPAN("HGETALL"), span_str(f->nodes_key)};
    if (f->listing || !f->clock.known || !redis_up(f->redis))
        return;
    f->listing = redis_send(f->redis, argv[1], argv, 2, FLEET_DEADLINE, listed, f);
}

void fleet_leave(struct fleet *f, redis_done_fn *done)
{
    pthread_mutex_lock(&f->lock);
    f->me.left = true;
    pthread_mutex_unlock(&f->lock);
    write_ours(f, done);
}
