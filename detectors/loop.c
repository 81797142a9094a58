/*
 * loop.c - one message's own trace, read for circles. Needs no past.
 *
 *   a -> b -> b -> c -> a -> b -> a        runs: a b c a b a
 *                                          visits of a: 3; edge a -> b: 2
 *
 * What honest mail does must not count: hops over loopback (content filters), hops without a usable
 * name, and the same server several times in a row. What is left visits one host three times in one
 * of 100,000 messages.
 */
#include "loop.h"

#include <stdarg.h>
#include <stdio.h>

enum {
    /* from here on the evidence is written down; honest mail stays below: */
    ODD_VISITS = 3,
    ODD_EDGES = 2,
    ODD_OWN_VISITS = 3, /* out to a list and back are two */
    ODD_DELIVERED_TO = 2,
    ODD_HOPS = 25, /* 22 were seen */
    /* from here on no honest mail is: */
    SURE_OWN_VISITS = 4,
    SURE_HOPS = 31,
    SURE_DELIVERED_TO = 3,
    TEXT_BYTES = 1024,      /* of evidence */
    TEXT_HOST = 64,         /* of one name in it */
    TEXT_TURN = 8,          /* hosts of a turn */
    TEXT_TURNS = 6,         /* turns whose time is told */
    PLAUSIBLE = 30 * 86400, /* seconds a turn can take */
};

/* The hops that count, oldest first. */
struct chain {
    const struct hop *hop[LIMIT_HOPS + 1];
    size_t n;
};

/* Over loopback, or by a server without a name of its own. */
static bool hop_counts(const struct hop *h, const struct site *site)
{
    struct ipaddr ip;
    if (h->gap || h->by.n == 0 || ipaddr_loopback(&h->ip) || host_loopback(h->by) ||
        host_loopback(h->helo))
        return false;
    if (span_find(h->by, '.') == h->by.n)
        return site_owns_host(site, h->by);
    return !ipaddr_parse(&ip, h->by);
}

static bool same_by(const struct hop *a, const struct hop *b)
{
    return span_eq(a->by, b->by);
}

static bool same_edge(const struct hop *a, const struct hop *b)
{
    return span_eq(a->by, b->by) && span_eq(a->helo, b->helo);
}

typedef bool same_fn(const struct hop *, const struct hop *);

/* Hops of t that count, adjacent repeats once; named: only those that say where from. */
static void chain_read(struct chain *c, const struct trace *t, const struct site *site,
                       same_fn *same, bool named)
{
    c->n = 0;
    for (size_t i = t->nhops; i-- > 0;) {
        const struct hop *h = &t->hops[i];
        if (!hop_counts(h, site) || (named && h->helo.n == 0))
            continue;
        if (c->n == 0 || !same(c->hop[c->n - 1], h))
            c->hop[c->n++] = h;
    }
}

/* How often the hop seen most is in the chain; *most is its newest occurrence. */
static unsigned chain_repeats(const struct chain *c, same_fn *same, const struct hop **most)
{
    unsigned best = 0;
    for (size_t i = c->n; i-- > 0;) {
        unsigned times = 0;
        for (size_t j = 0; j <= i; j++)
            times += same(c->hop[i], c->hop[j]);
        if (times > best) {
            best = times;
            *most = c->hop[i];
        }
    }
    return best;
}

/* How often the message came back to hosts of ours: runs of them. */
static unsigned own_visits(const struct chain *c, const struct site *site)
{
    unsigned runs = 0;
    bool inside = false;
    for (size_t i = 0; i < c->n; i++) {
        bool own = site_owns_host(site, c->hop[i]->by);
        runs += own && !inside;
        inside = own;
    }
    return runs;
}

static unsigned delivered_to(const struct trace *t, struct span *most)
{
    unsigned best = 0;
    for (size_t i = 0; i < t->ndelivered_to; i++) {
        unsigned times = 0;
        for (size_t j = i; j < t->ndelivered_to; j++)
            times += span_eq(t->delivered_to[i], t->delivered_to[j]);
        if (times > best) {
            best = times;
            *most = t->delivered_to[i];
        }
    }
    return best;
}

/* ---- the turn in words ---- */

struct text {
    char p[TEXT_BYTES];
    size_t n;
};

__attribute__((format(printf, 2, 3))) static void text_add(struct text *t, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(t->p + t->n, sizeof t->p - t->n, fmt, args);
    va_end(args);
    if (n > 0)
        t->n = t->n + (size_t)n < sizeof t->p ? t->n + (size_t)n : sizeof t->p - 1;
}

/* A name out of the mail: cut, and only visible ASCII of it. */
static void text_name(struct text *t, struct span s)
{
    char name[TEXT_HOST + 1];
    span_show(s, name, sizeof name);
    text_add(t, "%s%s", name, s.n > TEXT_HOST ? "..." : "");
}

static void text_seconds(struct text *t, int64_t s)
{
    static const struct {
        int64_t below, unit;
        const char *name;
    } units[] = {{120, 1, "s"}, {7200, 60, "min"}, {172800, 3600, "h"}, {INT64_MAX, 86400, "d"}};
    size_t i = 0;
    while (s >= units[i].below)
        i++;
    text_add(t, "%lld %s", (long long)(s / units[i].unit), units[i].name);
}

/* The last turn of the host visited most: "a -> b -> c -> a". */
static void text_turn(struct text *t, const struct chain *runs, const struct hop *most)
{
    size_t end = 0, begin = 0;
    for (size_t i = 0; i < runs->n; i++)
        if (same_by(runs->hop[i], most)) {
            begin = end;
            end = i;
        }
    for (size_t i = begin; i <= end; i++) {
        if (i - begin == TEXT_TURN && i < end) {
            text_add(t, "-> (%zu more) ", end - i);
            i = end;
        }
        text_add(t, "%s", i > begin ? "-> " : "");
        text_name(t, runs->hop[i]->by);
        text_add(t, "%s", i < end ? " " : "");
    }
}

/* How long each turn took, by the hosts' own clocks and only where they make sense. */
static void text_times(struct text *t, const struct chain *runs, const struct hop *most)
{
    int64_t former = 0;
    unsigned turns = 0;
    for (size_t i = 0; i < runs->n; i++) {
        const struct hop *h = runs->hop[i];
        if (!same_by(h, most))
            continue;
        int64_t took = h->date - former;
        if (former && h->date && took >= 0 && took <= PLAUSIBLE && turns < TEXT_TURNS) {
            text_add(t, "%s", turns++ ? ", " : "; turns took ");
            text_seconds(t, took);
        }
        former = h->date;
    }
}

static void text_visits(struct text *t, const struct chain *runs, const struct hop *most,
                        unsigned visits)
{
    text_name(t, most->by);
    text_add(t, " was visited %u times: ", visits);
    text_turn(t, runs, most);
    text_times(t, runs, most);
}

/* What was found, in one line; NULL if nothing is odd. */
static const char *evidence(const struct loop_signals *l, struct arena *a, const struct chain *runs,
                            const struct hop *most, const struct hop *edge, struct span delivered)
{
    struct text t = {.n = 0};
    t.p[0] = 0;
    if (l->visits >= ODD_VISITS || (l->edges >= ODD_EDGES && l->visits >= 2))
        text_visits(&t, runs, most, l->visits);
    if (l->edges >= ODD_EDGES) {
        text_add(&t, "%s", t.n ? "; " : "");
        text_name(&t, edge->helo);
        text_add(&t, " handed it to ");
        text_name(&t, edge->by);
        text_add(&t, " %u times", l->edges);
    }
    if (l->own_visits >= ODD_OWN_VISITS)
        text_add(&t, "%sit came to our own hosts %u times", t.n ? "; " : "", l->own_visits);
    if (l->delivered_to >= ODD_DELIVERED_TO) {
        text_add(&t, "%sit was delivered to ", t.n ? "; " : "");
        text_name(&t, delivered);
        text_add(&t, " %u times before", l->delivered_to);
    }
    if (l->hops >= ODD_HOPS || t.n)
        text_add(&t, "%s%u Received fields", t.n ? "; " : "", l->hops);
    return t.n ? arena_str(a, span_of(t.p, t.n)) : NULL;
}

static void loop_judge(const struct subject *s, const struct tallies *answers, struct signals *out)
{
    (void)answers;
    struct loop_signals *l = &out->loop;
    const struct hop *most = NULL, *edge = NULL;
    struct span delivered = {0};
    struct chain runs, edges;
    chain_read(&runs, &s->trace, s->site, same_by, false);
    chain_read(&edges, &s->trace, s->site, same_edge, true);
    *l = (struct loop_signals){
        .visits = chain_repeats(&runs, same_by, &most),
        .edges = chain_repeats(&edges, same_edge, &edge),
        .own_visits = own_visits(&runs, s->site),
        .delivered_to = delivered_to(&s->trace, &delivered),
        .hops = (unsigned)s->trace.total,
    };
    if (l->visits >= 2)
        l->relay = most->by;
    l->evidence = evidence(l, s->arena, &runs, most, edge, delivered);
}

bool loop_speaks(const struct loop_signals *l, bool again)
{
    if (l->own_visits >= SURE_OWN_VISITS || l->hops >= SURE_HOPS ||
        l->delivered_to >= SURE_DELIVERED_TO)
        return true;
    return again && (l->visits >= ODD_VISITS || l->edges >= ODD_EDGES ||
                     l->delivered_to >= ODD_DELIVERED_TO);
}

const struct detector loop_detector = {.name = "loop", .judge = loop_judge};
