/*
 * guard.c - see guard.h. A step is three looks: at the triggers, at what stayed bad though we
 * stepped back, at the connections.
 *
 * Averages of ten minutes say when to step back: one slow minute is none. Whether that was a cure
 * is asked of the last minute, for the average stays bad long after.
 */
#include <stdio.h>
#include <string.h>

#include "guard.h"

enum {
    MINUTE = 60 * 1000,
    WINDOW = 10 * MINUTE, /* most triggers look so far back; alarms keep so far apart */
    STAYS = MINUTE,       /* bad in mode monitor, until bypass */
    BALANCE_FOR = 2 * MINUTE,
    OWN_FOR = MINUTE,
    STEP = 50, /* connections, incident 001 */
    STEP_EVERY = 5 * MINUTE,
    FLOOR = 200,
    FLOOR_FOR = 20 * MINUTE,
    LAST = 100,             /* before bypass ... */
    LAST_FOR = 10 * MINUTE, /* ... which has to be complete after 15 minutes */
    FEW = 5,                /* messages from which on an average tells something */
    HOLDS_LEAST = 10,       /* holds from which on their share counts */
    REFUSALS_LEAST = 200    /* refusals, between two looks */
};

static const char *const names[GUARD_CAUSES] = {
    "none",  "latency",  "queue",      "holds",   "loop", "reply-all", "ping-pong",
    "flood", "refusals", "downstream", "balance", "own",  "floor"};

const char *guard_cause_name(enum guard_cause cause)
{
    return names[cause < GUARD_CAUSES ? cause : GUARD_NONE];
}

bool guard_caps(enum guard_cause cause)
{
    return cause >= GUARD_LOOPS && cause <= GUARD_FLOODS;
}

int guard_rank(enum mode mode)
{
    return mode == MODE_BYPASS ? 0 : mode == MODE_MONITOR ? 1 : 2;
}

/* ---- the triggers ---- */

static double share(uint64_t n, uint64_t of)
{
    return of ? (double)n / (double)of : 0;
}

uint64_t guard_holds_allowed(const struct guard_limits *l, uint64_t messages_10m)
{
    uint64_t allowed = l->holds ? l->holds : UINT64_MAX;
    if (l->hold_share <= 0)
        return allowed;
    double some = l->hold_share * (double)messages_10m;
    uint64_t by_share = some <= HOLDS_LEAST ? HOLDS_LEAST : (uint64_t)some;
    return by_share < allowed ? by_share : allowed;
}

uint64_t guard_refusals_allowed(const struct guard_limits *l, uint64_t messages_10m)
{
    if (l->refused_share <= 0)
        return UINT64_MAX;
    uint64_t some = (uint64_t)(l->refused_share * (double)messages_10m);
    uint64_t least = l->least > REFUSALS_LEAST ? l->least : REFUSALS_LEAST;
    return some > least ? some : least;
}

/* The share of errors from which on the MTAs behind are worse than before. */
static double downstream_limit(const struct guard_limits *l, const struct guard_reading *r)
{
    double before = share(r->downstream_errors_1h, r->downstream_1h);
    double doubled = l->downstream_factor * before;
    return doubled > l->downstream_share ? doubled : l->downstream_share;
}

static bool queue_over(const struct guard_limits *l, const struct guard_reading *r, double part)
{
    return l->queue && (double)r->held > part * (double)l->queue &&
           (double)r->held_growth_5m > part * (double)l->growth;
}

static bool latency_over(const struct guard_limits *l, const struct guard_reading *r, double part)
{
    return l->added > 0 && r->messages_10m >= FEW && r->added_avg_10m > part * (double)l->added;
}

/* A share of exactly its limit is "doubled" and "5 %" for errors, and no more than 5 % for
 * refusals: so the words of the incident reports have it. */
static bool is_bad(enum guard_cause cause, const struct guard_limits *l,
                   const struct guard_reading *r, int64_t known)
{
    switch (cause) {
    case GUARD_LATENCY:
        return latency_over(l, r, 1);
    case GUARD_QUEUE:
        return queue_over(l, r, 1);
    case GUARD_HOLDS:
        return r->harmful_10m > guard_holds_allowed(l, r->messages_10m);
    case GUARD_REFUSALS:
        return l->refused_share > 0 && r->refused_10m >= l->least &&
               (double)r->refused_10m > l->refused_share * (double)r->messages_10m;
    case GUARD_DOWNSTREAM:
        return l->downstream_factor > 0 && r->downstream_errors_10m >= l->least &&
               r->downstream_errors_10m &&
               share(r->downstream_errors_10m, r->downstream_10m) >= downstream_limit(l, r);
    case GUARD_BALANCE:
        return r->unaccounted > known;
    case GUARD_OWN:
        return l->own > 0 && r->messages_1m >= FEW && r->own_p99_10s > (double)l->own;
    default:
        return false;
    }
}

/* Nothing to judge by at this moment: neither good nor bad. */
static bool is_unknown(enum guard_cause cause, const struct guard_limits *l,
                       const struct guard_reading *r)
{
    return cause == GUARD_OWN && r->own_p99_10s <= 0 && r->own_p99_1m > (double)l->own;
}

/* How long it has to be bad until it is a trigger. */
static int64_t patience(enum guard_cause cause)
{
    return cause == GUARD_BALANCE ? BALANCE_FOR : cause == GUARD_OWN ? OWN_FOR : 0;
}

static void mark_triggers(struct guard *g, const struct guard_limits *l,
                          const struct guard_reading *r, int64_t now)
{
    for (unsigned c = GUARD_NONE + 1; c < GUARD_CAUSES; c++) {
        struct guard_mark *m = &g->mark[c];
        bool bad = is_bad((enum guard_cause)c, l, r, g->known);
        if (!bad && is_unknown((enum guard_cause)c, l, r))
            continue;
        if (!bad)
            m->since = m->unarmed = 0;
        else if (!m->since)
            m->since = now;
    }
    if (r->unaccounted < g->known)
        g->known = r->unaccounted > 0 ? r->unaccounted : 0;
}

static bool is_trigger(const struct guard *g, enum guard_cause cause, int64_t now)
{
    const struct guard_mark *m = &g->mark[cause];
    return m->since && now >= m->unarmed && now - m->since >= patience(cause);
}

/* ---- words ---- */

static void say_downstream(const struct guard_limits *l, const struct guard_reading *r,
                           char out[240])
{
    (void)l;
    snprintf(
        out, 240,
        "the MTA behind refused or lost %llu of %llu messages in the last 10 minutes (%.0f %%), "
        "in the hour before %.0f %%",
        (unsigned long long)r->downstream_errors_10m, (unsigned long long)r->downstream_10m,
        100 * share(r->downstream_errors_10m, r->downstream_10m),
        100 * share(r->downstream_errors_1h, r->downstream_1h));
}

static void say(enum guard_cause cause, const struct guard_limits *l, const struct guard_reading *r,
                char out[240])
{
    typedef unsigned long long llu;
    switch (cause) {
    case GUARD_LATENCY:
        snprintf(out, 240,
                 "mail was delayed by %.1f s on average over 10 minutes, the limit is %.1f s",
                 r->added_avg_10m / 1000, (double)l->added / 1000);
        break;
    case GUARD_QUEUE:
        snprintf(out, 240,
                 "%llu copies are held and %lld more in 5 minutes are of no confirmed storm, the "
                 "limits are %llu and %llu",
                 (llu)r->held, (long long)r->held_growth_5m, (llu)l->queue, (llu)l->growth);
        break;
    case GUARD_HOLDS:
        snprintf(
            out, 240,
            "%llu copies that are no further copies were held in 10 minutes, the limit is %llu",
            (llu)r->harmful_10m, (llu)guard_holds_allowed(l, r->messages_10m));
        break;
    case GUARD_REFUSALS:
        snprintf(out, 240,
                 "we refused %llu of %llu messages in 10 minutes (%.1f %%), the limit is %.1f %%",
                 (llu)r->refused_10m, (llu)r->messages_10m,
                 100 * share(r->refused_10m, r->messages_10m), 100 * l->refused_share);
        break;
    case GUARD_DOWNSTREAM:
        say_downstream(l, r, out);
        break;
    case GUARD_BALANCE:
        snprintf(out, 240, "%lld recipients' mail came in and nothing says what became of it",
                 (long long)r->unaccounted);
        break;
    case GUARD_OWN:
        snprintf(
            out, 240,
            "one message in 100 has waited more than %.1f s for our own reply for a minute, the "
            "limit is %.1f s",
            r->own_p99_10s / 1000, (double)l->own / 1000);
        break;
    default:
        snprintf(out, 240,
                 "it is no better after %d minutes with few connections: %.1f s are added to mail "
                 "on average, %llu copies are held",
                 FLOOR_FOR / MINUTE, r->added_avg_10m / 1000, (llu)r->held);
        break;
    }
}

/* ---- stepping back ---- */

static void alarm_once(struct guard *g, enum guard_cause cause, enum mode mode, int64_t now,
                       struct guard_action *a)
{
    int64_t *last = &g->mark[cause].alarmed[mode];
    a->alarm = !*last || now - *last >= WINDOW;
    if (!a->alarm)
        return;
    a->cause = cause;
    *last = now;
}

static void step_back(struct guard *g, enum guard_cause cause, enum mode to, int64_t now,
                      struct guard_action *a)
{
    g->mode = a->lower = to;
    a->cause = cause;
    for (unsigned c = 0; c < GUARD_CAUSES; c++)
        g->mark[c].stays = 0;
    alarm_once(g, cause, to, now, a);
}

/* A person has stepped up: what is wrong at this moment they know. */
static void step_up(struct guard *g, const struct guard_limits *l, const struct guard_reading *r,
                    int64_t now)
{
    g->known = r->unaccounted > 0 ? r->unaccounted : 0;
    g->last = g->floored = 0;
    for (unsigned c = 0; c < GUARD_CAUSES; c++) {
        bool bad = is_bad((enum guard_cause)c, l, r, g->known);
        g->mark[c] = (struct guard_mark){.unarmed = bad ? now + WINDOW : 0};
    }
}

static void look_at_triggers(struct guard *g, const struct guard_limits *l,
                             const struct guard_reading *r, int64_t now, struct guard_action *a)
{
    for (unsigned i = GUARD_NONE + 1; i < GUARD_CAUSES; i++) {
        enum guard_cause c = (enum guard_cause)i;
        if (!is_trigger(g, c, now))
            continue;
        if (g->mode == MODE_ENFORCE)
            step_back(g, c, MODE_MONITOR, now, a);
        else if (c == GUARD_BALANCE) /* no step back is a cure, but somebody must know */
            alarm_once(g, c, g->mode, now, a);
        if (!a->alarm && a->lower == MODE_COUNT)
            continue;
        say(c, l, r, a->reason);
        if (c == GUARD_BALANCE) {
            g->known = r->unaccounted;
            g->mark[c].since = 0;
        }
        return;
    }
}

/* ---- what a step to monitor has not cured ---- */

/* Is it as bad in the last minute? -1: there was no mail to tell by. */
static int bad_lately(enum guard_cause cause, const struct guard_limits *l,
                      const struct guard_reading *r)
{
    if (cause == GUARD_LATENCY)
        return r->messages_1m ? r->added_avg_1m > (double)l->added : -1;
    if (cause == GUARD_OWN)
        return r->own_p99_10s > 0 ? r->own_p99_10s > (double)l->own : -1;
    return r->downstream_1m
               ? share(r->downstream_errors_1m, r->downstream_1m) >= downstream_limit(l, r)
               : -1;
}

static bool stays(struct guard *g, enum guard_cause cause, const struct guard_limits *l,
                  const struct guard_reading *r, int64_t now)
{
    struct guard_mark *m = &g->mark[cause];
    int lately = bad_lately(cause, l, r);
    if (!is_trigger(g, cause, now) || lately == 0)
        m->stays = 0;
    else if (lately == 1 && !m->stays)
        m->stays = now;
    return lately == 1 && m->stays && now - m->stays >= STAYS;
}

static unsigned at_most(unsigned n, unsigned ceiling)
{
    return n < ceiling ? n : ceiling;
}

static void set_connections(struct guard *g, unsigned n, int64_t now, struct guard_action *a)
{
    g->connections = n;
    g->stepped = now;
    a->govern = true;
    a->connections = n;
}

/* Fewest connections first, bypass at the next step: what is under way then is little. */
static void begin_last(struct guard *g, const struct guard_limits *l, int64_t now,
                       struct guard_action *a)
{
    g->last = now;
    if (l->connections)
        set_connections(g, at_most(LAST, l->connections), now, a);
}

static void look_at_cures(struct guard *g, const struct guard_limits *l,
                          const struct guard_reading *r, int64_t now, struct guard_action *a)
{
    static const enum guard_cause no_cure[] = {GUARD_LATENCY, GUARD_DOWNSTREAM, GUARD_OWN};
    if (g->mode != MODE_MONITOR)
        return;
    for (unsigned i = 0; i < sizeof no_cure / sizeof *no_cure; i++) {
        if (!stays(g, no_cure[i], l, r, now))
            continue;
        if (!g->last && l->connections) {
            begin_last(g, l, now, a);
            return;
        }
        if (now == g->last)
            return;
        step_back(g, no_cure[i], MODE_BYPASS, now, a);
        say(no_cure[i], l, r, a->reason);
        return;
    }
}

/* ---- connections ---- */

static bool is_pressed(const struct guard *g, const struct guard_limits *l,
                       const struct guard_reading *r)
{
    return g->mode != MODE_BYPASS && /* then we are no longer in the way */
           (latency_over(l, r, 0.5) || queue_over(l, r, 0.5) || g->mark[GUARD_DOWNSTREAM].since ||
            g->mark[GUARD_OWN].since);
}

/* The first step begins at what is in use: taking away what nobody uses helps nobody. */
static unsigned first_step(const struct guard_limits *l, unsigned in_use)
{
    unsigned used = (in_use + STEP - 1) / STEP * STEP;
    return at_most(used, l->connections);
}

static void step_down(struct guard *g, const struct guard_limits *l, unsigned in_use, int64_t now,
                      struct guard_action *a)
{
    unsigned floor = at_most(FLOOR, l->connections);
    unsigned from = g->connections ? g->connections : first_step(l, in_use);
    if (g->connections && (g->connections <= floor || now - g->stepped < STEP_EVERY))
        return;
    set_connections(g, from > floor + STEP ? from - STEP : floor, now, a);
}

static void step_again(struct guard *g, const struct guard_limits *l, int64_t now,
                       struct guard_action *a)
{
    g->floored = g->last = 0;
    if (!g->connections || now - g->stepped < STEP_EVERY)
        return;
    unsigned more = g->connections + STEP;
    set_connections(g, more < l->connections ? more : 0, now, a);
}

/* Few connections for a long time, and no better. */
static void look_at_floor(struct guard *g, const struct guard_limits *l,
                          const struct guard_reading *r, int64_t now, struct guard_action *a)
{
    enum mode to = MODE_MONITOR;
    if (g->connections > at_most(FLOOR, l->connections))
        return;
    if (!g->floored)
        g->floored = now;
    if (now - g->floored < FLOOR_FOR)
        return;
    if (!g->last)
        begin_last(g, l, now, a);
    else if (now - g->last >= LAST_FOR)
        to = MODE_BYPASS;
    if (guard_rank(g->mode) <= guard_rank(to))
        return;
    step_back(g, GUARD_FLOOR, to, now, a);
    say(GUARD_FLOOR, l, r, a->reason);
}

static void look_at_connections(struct guard *g, const struct guard_limits *l,
                                const struct guard_reading *r, unsigned in_use, int64_t now,
                                struct guard_action *a)
{
    if (!l->connections) { /* none are governed (any more) */
        if (g->connections)
            set_connections(g, 0, now, a);
        return;
    }
    if (!is_pressed(g, l, r)) {
        step_again(g, l, now, a);
        return;
    }
    step_down(g, l, in_use, now, a);
    if (a->lower == MODE_COUNT)
        look_at_floor(g, l, r, now, a);
}

/* ---- a step ---- */

void guard_step(struct guard *g, const struct guard_limits *l, const struct guard_reading *r,
                enum mode mode, unsigned in_use, int64_t now, struct guard_action *a)
{
    *a = (struct guard_action){.lower = MODE_COUNT};
    if (g->begun && guard_rank(mode) > guard_rank(g->mode))
        step_up(g, l, r, now);
    g->begun = true;
    g->mode = mode;
    mark_triggers(g, l, r, now);
    look_at_triggers(g, l, r, now, a);
    if (a->lower == MODE_COUNT)
        look_at_cures(g, l, r, now, a);
    look_at_connections(g, l, r, in_use, now, a);
}

void guard_trip(struct guard *g, enum guard_cause cause, uint64_t limit, int64_t now,
                struct guard_action *a)
{
    static const char *const what[GUARD_CAUSES] = {
        [GUARD_HOLDS] = "copies that are no further copies were to be held",
        [GUARD_REFUSALS] = "messages were to be refused"};
    *a = (struct guard_action){.lower = MODE_COUNT};
    if (g->begun && guard_rank(g->mode) <= guard_rank(MODE_MONITOR))
        return;
    step_back(g, cause, MODE_MONITOR, now, a);
    snprintf(a->reason, sizeof a->reason,
             "more than %llu %s within 10 minutes, which is the limit; the rest passes",
             (unsigned long long)limit, what[cause]);
}

void guard_cap(enum guard_cause cause, uint64_t limit, struct guard_action *a)
{
    static const char *const what[GUARD_CAUSES] = {
        [GUARD_LOOPS] = "messages in loops",
        [GUARD_REPLYALL] = "replies to all",
        [GUARD_PINGPONG] = "automatic answers",
        [GUARD_FLOODS] = "messages of floods, and copies that cannot be held,"};
    *a = (struct guard_action){.lower = MODE_COUNT, .cause = cause, .alarm = true};
    snprintf(a->reason, sizeof a->reason,
             "%s beyond %llu in 10 minutes pass, tagged; the mode stays", what[cause],
             (unsigned long long)limit);
}

/* ---- for people ---- */

void guard_figures(const struct guard_limits *l, const struct guard_reading *r,
                   struct guard_figure out[GUARD_FIGURES])
{
    uint64_t allowed = guard_holds_allowed(l, r->messages_10m);
    uint64_t floods = guard_refusals_allowed(l, r->messages_10m);
    const struct guard_figure f[GUARD_FIGURES] = {
        {GUARD_LATENCY, r->added_avg_10m, (double)l->added, false,
         "added to a message, average of 10 minutes", "ms"},
        {GUARD_QUEUE, (double)r->held, (double)l->queue, false, "copies held", "copies"},
        {GUARD_QUEUE, (double)r->held_growth_5m, l->queue ? (double)l->growth : 0, false,
         "more of them in 5 minutes, of no confirmed storm", "copies"},
        {GUARD_HOLDS, (double)r->harmful_10m, allowed == UINT64_MAX ? 0 : (double)allowed, false,
         "held in 10 minutes that are no further copies", "copies"},
        {GUARD_LOOPS, (double)r->loops_10m, (double)l->loops, false,
         "held in 10 minutes because they run in circles", "messages"},
        {GUARD_REPLYALL, (double)r->replyall_10m, (double)l->replyall, false,
         "held in 10 minutes in reply-all storms", "replies"},
        {GUARD_PINGPONG, (double)r->pingpong_10m, (double)l->pingpong, false,
         "held in 10 minutes because machines answer each other", "answers"},
        {GUARD_FLOODS, (double)r->floods_10m, floods == UINT64_MAX ? 0 : (double)floods, false,
         "made to wait in 10 minutes because of floods", "messages"},
        {GUARD_REFUSALS, 100 * share(r->refused_10m, r->messages_10m), 100 * l->refused_share,
         false, "refused by us in 10 minutes, because a rule says so", "%"},
        {GUARD_DOWNSTREAM, 100 * share(r->downstream_errors_10m, r->downstream_10m),
         l->downstream_factor > 0 ? 100 * downstream_limit(l, r) : 0, false,
         "refused or lost by the MTA behind in 10 minutes", "%"},
        {GUARD_BALANCE, (double)r->unaccounted, 1, false,
         "of whom nothing says what became of their mail", "recipients"},
        {GUARD_OWN, r->own_p99_1m, (double)l->own, false,
         "until our own reply, 99th percentile of a minute", "ms"},
    };
    memcpy(out, f, sizeof f);
    for (size_t i = 0; i < GUARD_FIGURES; i++)
        out[i].bad = is_bad(out[i].cause, l, r, 0);
}
