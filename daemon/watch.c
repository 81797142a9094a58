/*
 * watch.c - see watch.h. The mail path touches atomics only; all else is under one lock, taken by
 * the main thread once a second, by the desk when people ask, and by the keeper when a trip is
 * durable.
 *
 * Of each kind of hold is counted how many were taken since the start, and a second ago, two
 * seconds ago ... : what may be taken is the count of ten minutes ago and the limit. So a limit
 * holds for any ten minutes, and whoever takes needs one compare and exchange.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "watch.h"

enum {
    WINDOW = 10 * 60 * 1000,
    SAMPLES = 640, /* a second apart at least, so that ten minutes fit */
    LOOK_EVERY = 950,
    SAVE_AGAIN = 5000,
    CAPPED_FOR = 60 * 1000, /* at least */
    TRIPS_KEPT = 10,
    TRIPS_BYTES = 32 << 10
};

static const enum guard_cause cause_of[WATCH_KINDS] = {
    GUARD_HOLDS, GUARD_LOOPS, GUARD_REPLYALL, GUARD_PINGPONG, GUARD_FLOODS, GUARD_REFUSALS};

struct purse {
    _Atomic uint64_t taken, allowed;
    struct sample {
        int64_t at; /* monotonic; 0: none */
        uint64_t taken;
    } sample[SAMPLES]; /* the main thread's */
    size_t next;
    uint64_t before; /* taken before the first of them */

    _Atomic bool passed; /* something did because there is nothing left; not seen by a look yet */
    int64_t passed_at, alarmed; /* monotonic: last look at such, last alarm; 0: none */
    int64_t capped;             /* some pass since then, wall clock; 0: none does */
};

struct watch {
    struct watch_hands hands;
    struct purse purse[WATCH_KINDS];
    /* Nothing that is not harmless is held any more; 1 + the kind that was used up. */
    _Atomic unsigned stopped;
    _Atomic bool stopped_unseen; /* the main thread has not dealt with it */
    _Atomic uint64_t refused;    /* copies that passed instead */

    pthread_mutex_t lock; /* guards the rest */
    struct guard guard;
    struct guard_limits limits;
    struct guard_reading reading;
    int64_t looked; /* monotonic */
    json_t *trips;  /* the latest first */
    uint64_t tripped[GUARD_CAUSES];
    bool unsaved, saving;
    int64_t saved; /* monotonic: last try */
};

/* ---- the budget ---- */

static uint64_t limit_of(const struct guard_limits *l, enum watch_kind kind, uint64_t messages_10m)
{
    const unsigned caps[WATCH_KINDS] = {
        [WATCH_LOOPS] = l->loops, [WATCH_REPLYALL] = l->replyall, [WATCH_PINGPONG] = l->pingpong};
    if (kind == WATCH_RULES)
        return guard_holds_allowed(l, messages_10m);
    if (kind == WATCH_FLOODS || kind == WATCH_REFUSALS)
        return guard_refusals_allowed(l, messages_10m);
    return caps[kind] ? caps[kind] : UINT64_MAX;
}

static bool take(struct purse *p, unsigned n)
{
    uint64_t taken = atomic_load_explicit(&p->taken, memory_order_relaxed);
    do {
        if (taken + n > atomic_load_explicit(&p->allowed, memory_order_relaxed))
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&p->taken, &taken, taken + n,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

/* What had been taken ten minutes ago. */
static uint64_t taken_before(const struct purse *p, int64_t mono)
{
    uint64_t before = p->before;
    int64_t latest = 0;
    for (size_t i = 0; i < SAMPLES; i++) {
        const struct sample *s = &p->sample[i];
        if (s->at && s->at <= mono - WINDOW && s->at > latest) {
            latest = s->at;
            before = s->taken;
        }
    }
    return before;
}

/* How much was taken in ten minutes; sets what may be. */
static uint64_t fill(struct purse *p, uint64_t limit, int64_t mono)
{
    uint64_t taken = atomic_load(&p->taken), before = taken_before(p, mono);
    p->sample[p->next++ % SAMPLES] = (struct sample){mono, taken};
    atomic_store(&p->allowed, limit > UINT64_MAX / 2 ? UINT64_MAX / 2 : before + limit);
    return taken - before;
}

/* A person has stepped up: what was taken is theirs to know. */
static void empty(struct purse *p)
{
    memset(p->sample, 0, sizeof p->sample);
    p->next = 0;
    p->before = atomic_load(&p->taken);
}

/* ---- modes ---- */

static enum mode highest(struct rulebook *book)
{
    if (!book)
        return MODE_MONITOR;
    struct rules *r = rulebook_take(book);
    enum mode mode = r->mode;
    for (size_t i = 0; i < r->ndoors; i++)
        if (guard_rank(r->doors[i].mode) > guard_rank(mode))
            mode = r->doors[i].mode;
    rules_drop(&r);
    return mode;
}

/* No door has a higher mode than this. The book is locked. */
static void lower_locked(struct rulebook *book, enum mode to)
{
    struct rules *old = rulebook_take(book), *fresh = rules_copy(old);
    if (guard_rank(fresh->mode) > guard_rank(to))
        fresh->mode = to;
    for (size_t i = 0; i < fresh->ndoors; i++)
        if (guard_rank(fresh->doors[i].mode) > guard_rank(to))
            fresh->doors[i].mode = to;
    rulebook_put(book, fresh);
    rules_drop(&old);
}

static void lower(struct rulebook *book, enum mode to)
{
    if (!book || guard_rank(highest(book)) <= guard_rank(to))
        return;
    rulebook_lock(book);
    lower_locked(book, to);
    rulebook_unlock(book);
}

/* The first one whom the budget refuses lowers the modes, unless somebody changes the rules right
 * now: then the main thread does it; nothing more is held meanwhile. */
static void stop(struct watch *w, enum watch_kind kind)
{
    unsigned none = 0;
    if (!atomic_compare_exchange_strong(&w->stopped, &none, 1u + (unsigned)kind))
        return;
    atomic_store(&w->stopped_unseen, true); /* before the modes: so that it is known why */
    if (w->hands.rules && rulebook_trylock(w->hands.rules)) {
        lower_locked(w->hands.rules, MODE_MONITOR);
        rulebook_unlock(w->hands.rules);
    }
}

bool watch_may_hold(struct watch *w, enum watch_kind kind, unsigned n)
{
    if (!w || n == 0)
        return true;
    bool stopped = atomic_load_explicit(&w->stopped, memory_order_acquire) != 0;
    if (!stopped && take(&w->purse[kind], n))
        return true;
    if (!stopped && guard_caps(cause_of[kind]))
        atomic_store_explicit(&w->purse[kind].passed, true, memory_order_relaxed);
    else if (!stopped)
        stop(w, kind);
    atomic_fetch_add_explicit(&w->refused, n, memory_order_relaxed);
    return false;
}

bool watch_may_refuse(struct watch *w, enum watch_kind kind)
{
    return watch_may_hold(w, kind, 1);
}

/* ---- what is durable ---- */

struct save {
    struct job job; /* must be first */
    struct watch *watch;
    bool modes; /* they were lowered */
    struct rules *rules;
    int64_t now;
    char *trips, *reason;
};

static int save_mode(struct hold *hold, const struct save *s, const char *listener, enum mode mode)
{
    char name[300], before[32], what[400];
    snprintf(name, sizeof name, "mode%s%.250s", *listener ? "." : "", listener);
    if (hold_setting_get(hold, name, before, sizeof before) < 0)
        snprintf(before, sizeof before, "unset");
    if (strcmp(before, mode_name(mode)) == 0)
        return 0;
    snprintf(what, sizeof what, "mode %s -> %s%s%.250s", before, mode_name(mode),
             *listener ? " only=" : "", listener);
    if (hold_setting_set(hold, name, mode_name(mode)) < 0)
        return -1;
    return hold_audit(hold, s->now, "guard", what, s->reason);
}

static int save_modes(struct hold *hold, const struct save *s)
{
    char now[32];
    snprintf(now, sizeof now, "%lld", (long long)s->now);
    if (save_mode(hold, s, "", s->rules->mode) < 0)
        return -1;
    for (size_t i = 0; i < s->rules->ndoors; i++)
        if (save_mode(hold, s, s->rules->doors[i].listener, s->rules->doors[i].mode) < 0)
            return -1;
    return hold_setting_set(hold, "mode_since", now) < 0 ||
                   hold_setting_set(hold, "mode_by", "guard") < 0 ||
                   hold_setting_set(hold, "mode_reason", s->reason) < 0
               ? -1
               : 0;
}

static int save_run(struct hold *hold, struct job *job)
{
    const struct save *s = (const struct save *)job;
    if (s->modes && s->rules && save_modes(hold, s) < 0)
        return -1;
    return hold_setting_set(hold, "guard_trips", s->trips);
}

static void save_done(struct job *job)
{
    struct save *s = (struct save *)job;
    struct watch *w = s->watch;
    pthread_mutex_lock(&w->lock);
    w->saving = false;
    if (job->result < 0)
        w->unsaved = true;
    pthread_mutex_unlock(&w->lock);
    if (job->result < 0)
        log_say(LOG_LEVEL_ERROR, "guard: what it did could not be written to the hold database; "
                                 "trying again");
    rules_drop(&s->rules);
    free(s->trips);
    free(s->reason);
    free(s);
}

static bool trip_in_force(const struct watch *w)
{
    const json_t *first = json_array_get(w->trips, 0);
    return first && json_is_null(json_object_get(first, "over"));
}

static char *text_of(const char *s)
{
    char *copy = strdup(s);
    if (!copy)
        abort();
    return copy;
}

/* Locked. */
static struct save *save_new(struct watch *w, int64_t now)
{
    struct save *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->job = (struct job){.run = save_run, .done = save_done};
    s->watch = w;
    s->now = now;
    s->modes = trip_in_force(w);
    s->trips = json_line(w->trips);
    s->reason = text_of(json_get_str(json_array_get(w->trips, 0), "reason"));
    if (w->hands.rules)
        s->rules = rulebook_take(w->hands.rules);
    return s;
}

static void save(struct watch *w, int64_t now, int64_t mono)
{
    struct save *s = NULL;
    pthread_mutex_lock(&w->lock);
    if (w->unsaved && !w->saving && w->hands.keeper &&
        (!w->saved || mono - w->saved >= SAVE_AGAIN)) {
        w->unsaved = false;
        w->saving = true;
        w->saved = mono;
        s = save_new(w, now);
    }
    pthread_mutex_unlock(&w->lock);
    if (s)
        keeper_submit(w->hands.keeper, &s->job);
}

/* ---- trips ---- */

/* Locked. */
static void note_trip(struct watch *w, const struct guard_action *a, enum mode from, int64_t now)
{
    json_t *t = json_object();
    json_object_set_new(t, "time", json_time(now));
    json_object_set_new(t, "from", json_string(mode_name(from)));
    json_object_set_new(t, "to", json_string(mode_name(a->lower)));
    json_object_set_new(t, "cause", json_string(guard_cause_name(a->cause)));
    json_object_set_new(t, "reason", json_text_of(a->reason));
    json_object_set_new(t, "over", json_null());
    json_array_insert_new(w->trips, 0, t);
    while (json_array_size(w->trips) > TRIPS_KEPT)
        json_array_remove(w->trips, json_array_size(w->trips) - 1);
    w->tripped[a->cause]++;
    w->unsaved = true;
    w->saved = 0; /* at once */
}

/* The rank of the mode we left: at the last look, or in the life before this one. Only this thread
 * changes it. */
static int left_at(const struct watch *w)
{
    enum mode to = MODE_ENFORCE;
    if (w->guard.begun)
        return guard_rank(w->guard.mode);
    if (trip_in_force(w))
        (void)mode_find(json_get_str(json_array_get(w->trips, 0), "to"), &to);
    return guard_rank(to);
}

/* Locked. A person has stepped up. */
static void forgive(struct watch *w, int64_t now)
{
    for (size_t i = 0; i < json_array_size(w->trips); i++) {
        json_t *t = json_array_get(w->trips, i);
        if (json_is_null(json_object_get(t, "over"))) {
            json_object_set_new(t, "over", json_time(now));
            w->unsaved = true;
        }
    }
    for (unsigned k = 0; k < WATCH_KINDS; k++)
        empty(&w->purse[k]);
}

static void tell(const struct watch *w, const struct guard_action *a, enum mode now_in_force)
{
    char subject[200], text[1000];
    bool stepped = a->lower != MODE_COUNT;
    bool capped = guard_caps(a->cause);
    if (stepped)
        snprintf(subject, sizeof subject, "the guard went to mode %s", mode_name(a->lower));
    else if (capped)
        snprintf(subject, sizeof subject, "the guard lets some mail pass (%s)",
                 guard_cause_name(a->cause));
    else
        snprintf(subject, sizeof subject, "the guard found something wrong");
    snprintf(
        text, sizeof text,
        "%s: %s.\n\n%s\nbreakwaterctl guard shows what it looks at, breakwaterctl status how "
        "things stand.\n",
        subject, a->reason,
        capped     ? "When less of it comes it is held or made to wait again, by itself."
        : !stepped ? "No mode was changed."
        : a->lower == MODE_BYPASS
            ? "Mail passes unjudged. Held copies stay where they are. When the cause is gone: "
              "breakwaterctl mode monitor --reason \"...\"."
            : "Nothing more is held or refused. Held copies stay where they are; breakwaterctl "
              "undo-rule NAME --since 1h releases what a wrong rule held. When the cause is gone: "
              "breakwaterctl mode enforce --reason \"...\".");
    if (w->hands.alarm)
        w->hands.alarm(w->hands.arg, subject, text, a, now_in_force);
    else
        log_say(LOG_LEVEL_ERROR, "%s: %s", subject, a->reason);
}

/* ---- a look ---- */

/* What the guard says is done: modes first. */
static void act(struct watch *w, const struct guard_action *a, enum mode from, int64_t now)
{
    if (a->lower != MODE_COUNT) {
        unsigned none = 0; /* what began in enforce mode holds nothing more either */
        (void)atomic_compare_exchange_strong(&w->stopped, &none, 1u + WATCH_RULES);
        lower(w->hands.rules, a->lower);
        pthread_mutex_lock(&w->lock);
        note_trip(w, a, from, now);
        pthread_mutex_unlock(&w->lock);
    }
    if (a->alarm)
        tell(w, a, a->lower != MODE_COUNT ? a->lower : from);
    if (!a->govern)
        return;
    if (w->hands.govern)
        w->hands.govern(w->hands.arg, a->connections);
    if (a->connections)
        log_say(LOG_LEVEL_NOTICE, "guard: at most %u SMTP connections from now on", a->connections);
    else
        log_say(LOG_LEVEL_NOTICE, "guard: as many SMTP connections as configured again");
}

/* The mail path has stopped holding between two looks. */
static bool look_at_stop(struct watch *w, int64_t now, int64_t mono)
{
    struct guard_action a;
    if (!atomic_exchange(&w->stopped_unseen, false))
        return false;
    enum watch_kind kind = (enum watch_kind)(atomic_load(&w->stopped) - 1);
    pthread_mutex_lock(&w->lock);
    uint64_t limit = limit_of(&w->limits, kind, w->reading.messages_10m);
    w->guard.mode = MODE_ENFORCE; /* else nothing would have been held */
    guard_trip(&w->guard, cause_of[kind], limit, mono, &a);
    pthread_mutex_unlock(&w->lock);
    act(w, &a, MODE_ENFORCE, now);
    return true;
}

/* Locked. The budget's own counts of holds are exact. What was refused counts when its reply has
 * left, as the mail it is a share of does. */
static void read_purses(struct watch *w, int64_t mono)
{
    uint64_t refused = 0;
    struct guard_reading *r = &w->reading;
    uint64_t *const out[WATCH_KINDS] = {&r->harmful_10m,  &r->loops_10m,  &r->replyall_10m,
                                        &r->pingpong_10m, &r->floods_10m, &refused};
    for (unsigned k = 0; k < WATCH_KINDS; k++)
        *out[k] = fill(&w->purse[k],
                       limit_of(&w->limits, (enum watch_kind)k, w->reading.messages_10m), mono);
}

/* Locked. Is more of it passing than before? Then somebody should know, once in 10 minutes. */
static bool look_at_cap(struct purse *p, int64_t now, int64_t mono)
{
    bool room = atomic_load(&p->taken) < atomic_load(&p->allowed);
    if (!atomic_exchange(&p->passed, false)) {
        if (room && mono - p->passed_at >= CAPPED_FOR)
            p->capped = 0;
        return false;
    }
    p->passed_at = mono;
    p->capped = p->capped ? p->capped : now;
    if (p->alarmed && mono - p->alarmed < WINDOW)
        return false;
    p->alarmed = mono;
    return true;
}

static void look_at_caps(struct watch *w, int64_t now, int64_t mono)
{
    for (unsigned k = 0; k < WATCH_KINDS; k++) {
        struct guard_action a;
        if (!guard_caps(cause_of[k]))
            continue;
        pthread_mutex_lock(&w->lock);
        bool alarm = look_at_cap(&w->purse[k], now, mono);
        guard_cap(cause_of[k], limit_of(&w->limits, (enum watch_kind)k, w->reading.messages_10m),
                  &a);
        pthread_mutex_unlock(&w->lock);
        if (alarm)
            tell(w, &a, highest(w->hands.rules));
    }
}

void watch_tick(struct watch *w, const struct guard_reading *r, int64_t now, int64_t mono)
{
    struct guard_action a;
    /* The mode first: the mail path says that it stops before it lowers it. */
    enum mode mode = highest(w->hands.rules);
    if (look_at_stop(w, now, mono))
        mode = highest(w->hands.rules);
    bool raised = guard_rank(mode) > left_at(w); /* not made to wait for a second */
    if (!raised && w->looked && mono - w->looked < LOOK_EVERY) {
        save(w, now, mono);
        return;
    }
    unsigned in_use = w->hands.in_use ? w->hands.in_use(w->hands.arg) : 0;
    pthread_mutex_lock(&w->lock);
    w->looked = mono;
    w->reading = *r;
    if (raised)
        forgive(w, now);
    read_purses(w, mono);
    if (raised)
        atomic_store(&w->stopped, 0); /* now that there is something to take again */
    guard_step(&w->guard, &w->limits, &w->reading, mode, in_use, mono, &a);
    pthread_mutex_unlock(&w->lock);
    act(w, &a, mode, now);
    look_at_caps(w, now, mono);
    save(w, now, mono);
}

/* ---- for people ---- */

static json_t *connections_document(const struct watch *w)
{
    json_t *j = json_object();
    unsigned all = w->limits.connections, now = w->guard.connections ? w->guard.connections : all;
    json_object_set_new(j, "configured", json_integer(all));
    json_object_set_new(j, "limit", json_integer(now));
    json_object_set_new(j, "governed", json_boolean(w->guard.connections != 0));
    return j;
}

/* Since when some of it pass. */
static int64_t capped_since(const struct watch *w, enum guard_cause cause)
{
    for (unsigned k = 0; k < WATCH_KINDS; k++)
        if (cause_of[k] == cause)
            return w->purse[k].capped;
    return 0;
}

static json_t *triggers_document(const struct watch *w)
{
    json_t *list = json_array();
    struct guard_figure f[GUARD_FIGURES];
    guard_figures(&w->limits, &w->reading, f);
    for (size_t i = 0; i < GUARD_FIGURES; i++) {
        json_t *j = json_object();
        json_object_set_new(j, "cause", json_string(guard_cause_name(f[i].cause)));
        json_object_set_new(j, "what", json_string(f[i].what));
        json_object_set_new(j, "unit", json_string(f[i].unit));
        json_object_set_new(j, "value", json_real(f[i].value));
        json_object_set_new(j, "limit", f[i].limit > 0 ? json_real(f[i].limit) : json_null());
        json_object_set_new(j, "over", json_boolean(f[i].bad));
        json_object_set_new(j, "beyond",
                            json_string(guard_caps(f[i].cause) ? "capped" : "steps back"));
        json_object_set_new(j, "capped_since", json_time(capped_since(w, f[i].cause)));
        json_array_append_new(list, j);
    }
    return list;
}

static json_t *capped_document(const json_t *triggers)
{
    json_t *list = json_array(), *j;
    size_t i;
    json_array_foreach(triggers, i, j)
    {
        if (!json_is_null(json_object_get(j, "capped_since")))
            json_array_append(list, j);
    }
    return list;
}

json_t *watch_document(struct watch *w)
{
    json_t *j = json_object();
    pthread_mutex_lock(&w->lock);
    json_t *triggers = triggers_document(w);
    bool tripped = trip_in_force(w);
    json_object_set_new(j, "state", json_string(tripped ? "tripped" : "watching"));
    json_object_set_new(j, "trip",
                        tripped ? json_deep_copy(json_array_get(w->trips, 0)) : json_null());
    json_object_set_new(j, "trips", json_deep_copy(w->trips));
    json_object_set_new(j, "triggers", triggers);
    json_object_set_new(j, "capped", capped_document(triggers));
    json_object_set_new(j, "connections", connections_document(w));
    json_object_set_new(j, "passed_instead", json_integer((json_int_t)atomic_load(&w->refused)));
    pthread_mutex_unlock(&w->lock);
    return j;
}

void watch_figures(struct watch *w, struct watch_figures *out)
{
    pthread_mutex_lock(&w->lock);
    memcpy(out->trips, w->tripped, sizeof out->trips);
    out->passed = atomic_load(&w->refused);
    out->connections = w->guard.connections ? w->guard.connections : w->limits.connections;
    out->tripped = trip_in_force(w);
    pthread_mutex_unlock(&w->lock);
}

/* ---- beginning and end ---- */

static bool has_smtp(const struct config *c)
{
    for (size_t i = 0; i < c->nlisteners; i++)
        if (c->listeners[i].kind == DOOR_SMTP)
            return true;
    return false;
}

static struct guard_limits limits_of(const struct config *c)
{
    struct guard_limits l = c->guard;
    l.connections = has_smtp(c) ? c->smtp_connections : 0;
    return l;
}

/* What was remembered; whatever it is not is left out. */
static json_t *trips_saved(struct hold *view)
{
    char *text = malloc(TRIPS_BYTES);
    if (!text)
        abort();
    json_t *saved = view && hold_setting_get(view, "guard_trips", text, TRIPS_BYTES) == 0
                        ? json_loads(text, 0, NULL)
                        : NULL;
    free(text);
    if (json_is_array(saved))
        return saved;
    json_decref(saved);
    return json_array();
}

struct watch *watch_new(const struct config *config, const struct watch_hands *hands,
                        struct hold *view)
{
    struct watch *w = calloc(1, sizeof *w);
    if (!w)
        abort();
    pthread_mutex_init(&w->lock, NULL);
    w->hands = *hands;
    w->limits = limits_of(config);
    w->trips = trips_saved(view);
    for (unsigned k = 0; k < WATCH_KINDS; k++) {
        uint64_t limit = limit_of(&w->limits, (enum watch_kind)k, 0);
        atomic_store(&w->purse[k].allowed, limit > UINT64_MAX / 2 ? UINT64_MAX / 2 : limit);
    }
    return w;
}

void watch_free(struct watch **place)
{
    struct watch *w = *place;
    *place = NULL;
    if (!w)
        return;
    json_decref(w->trips);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

void watch_reload(struct watch *w, const struct config *config)
{
    pthread_mutex_lock(&w->lock);
    w->limits = limits_of(config);
    pthread_mutex_unlock(&w->lock);
}
