/*
 * blame.c - the dossiers of a message, and the names that come out of them.
 *
 * Invariant: a name is only given on shares of what was seen, never on one copy's say-so, and to
 * nobody while nothing was proved: a list that does not mark itself leaves the same shares.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "blame.h"

static bool few_add(struct few *f, uint32_t value)
{
    for (unsigned i = 0; i < f->n; i++)
        if (f->value[i] == value)
            return false;
    if (f->n == DOSSIER_SET)
        return false;
    f->value[f->n++] = value;
    return true;
}

/* ---- the scene: which organisations the visible addressees belong to ---- */

static uint32_t label_hash(const struct subject *s, struct span host)
{
    uint32_t h = (uint32_t)sip_hash(s->keys, SIP_HOST, host_orglabel(host));
    return h ? h : 1;
}

static int labelled_order(const void *a, const void *b)
{
    const struct labelled *x = a, *y = b;
    if (x->label != y->label)
        return x->label < y->label ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

static void scene_read_labels(struct scene *sc)
{
    const struct subject *s = sc->o->subject;
    const struct visible *v = &s->visible;
    sc->label = arena_alloc(s->arena, v->n * sizeof *sc->label);
    sc->sorted = arena_alloc(s->arena, v->n * sizeof *sc->sorted);
    for (size_t i = 0; i < v->n; i++) {
        sc->label[i] = label_hash(s, address_domain(v->address[i]));
        sc->sorted[i] = (struct labelled){sc->label[i], (uint32_t)i};
    }
    sc->nlabels = v->n;
    qsort(sc->sorted, v->n, sizeof *sc->sorted, labelled_order);
}

struct scene *scene_new(struct record *r, const struct observation *o)
{
    const struct subject *s = o->subject;
    struct scene *sc = arena_zero(s->arena, sizeof *sc);
    sc->o = o;
    sc->record = r;
    if (o->witness) {
        sc->peer_org = o->witness->peer_org;
        return sc;
    }
    sc->helo_label = label_hash(s, s->envelope->helo);
    sc->peer_org = (uint32_t)sip_hash(s->keys, SIP_HOST, s->client_org);
    sc->names = arena_zero(s->arena, s->path.n * sizeof *sc->names);
    if (s->visible.n > 1) /* mail to one address says nothing about "another addressee" */
        scene_read_labels(sc);
    return sc;
}

uint32_t scene_peer(const struct scene *sc)
{
    return sc->peer_org;
}

/* The first visible address of this label, or -1. */
static long scene_find(const struct scene *sc, uint32_t label)
{
    size_t low = 0, high = sc->nlabels;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (sc->sorted[mid].label < label)
            low = mid + 1;
        else
            high = mid;
    }
    return low < sc->nlabels && sc->sorted[low].label == label ? (long)sc->sorted[low].at : -1;
}

uint32_t scene_label(const struct scene *sc, size_t i)
{
    const struct subject *s = sc->o->subject;
    const struct recipient *rcpt = &s->envelope->recipients[i];
    if (sc->o->witness)
        return sc->o->witness->label[i];
    if (!sc->nlabels)
        return 0;
    long at = visible_find(&s->visible, rcpt->hash);
    if (at >= 0)
        return sc->label[at];
    uint32_t label = label_hash(s, address_domain(rcpt->address));
    return scene_find(sc, label) >= 0 ? label : 0;
}

/* Is it the label of a visible address? Then it is one of the clue's. */
static bool clue_add(const struct scene *sc, struct clue *c, uint32_t label)
{
    long at = scene_find(sc, label);
    if (at < 0)
        return false;
    for (unsigned i = 0; i < c->n; i++)
        if (c->label[i] == label)
            return true;
    c->label[c->n] = label;
    c->at[c->n++] = (uint32_t)at;
    return true;
}

/* A name of the Internet, rather than one that a network gave itself? */
static bool host_public(struct span host)
{
    static const struct span own[] = {SPAN_INIT("local"), SPAN_INIT("lan"),
                                      SPAN_INIT("localdomain"), SPAN_INIT("internal"),
                                      SPAN_INIT("intra")};
    size_t dot = span_rfind(host, '.');
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (dot < host.n && span_eq(span_from(host, dot + 1), own[i]))
            return false;
    return dot < host.n;
}

/* What node i is called: by itself, by the next hop's HELO, by our peer's HELO. Does the machine at
 * its address call itself after another addressee, and `by` is not his? It wrote no line of its
 * own, then: `by` is whoever handed it the message, and is not to be named for it. Nor is who it
 * says it is, which anybody may say. */
const struct clue *scene_clue(const struct scene *sc, size_t i)
{
    if (sc->o->witness)
        return &sc->o->witness->clue[i];
    const struct subject *s = sc->o->subject;
    const struct path *p = &s->path;
    const struct node *node = &p->node[i];
    struct names *names = &sc->names[i];
    struct clue *c = &names->clue;
    if (names->read)
        return c;
    names->read = true;
    if (!sc->nlabels)
        return c;
    bool by = clue_add(sc, c, label_hash(s, node->host)), helo = false;
    if (i + 1 < p->n && p->node[i + 1].hop && !p->node[i + 1].hop->reinjected)
        helo = clue_add(sc, c, label_hash(s, p->node[i + 1].hop->helo));
    if (i + 1 == p->n)
        helo = clue_add(sc, c, sc->helo_label);
    c->silent =
        helo && !by && node->hop && node->server.n != node->host.n && host_public(node->host);
    return c;
}

/* ---- entering ---- */

enum { RARE = 64 }; /* detours: of a server with fewer each one is worth entering */

static int dossier_find(const struct record *r, uint32_t server)
{
    for (uint32_t i = 0; i < r->ndossiers; i++)
        if (r->dossier[i].server == server)
            return (int)i;
    return NOBODY;
}

static void dossier_name(struct dossier *d, const struct scene *sc, size_t i)
{
    const struct node *node = &sc->o->subject->path.node[i];
    size_t n = 0;
    if (scene_clue(sc, i)->silent)
        d->name[n++] = '?';
    span_show(n ? span_from(node->server, node->host.n) : node->server, d->name + n,
              sizeof d->name - n);
}

/* Who is nobody: a place that left neither its name nor an address. */
static bool somebody(const struct node *n)
{
    return !n->own && !span_eq(n->server, SPAN("?"));
}

/* A new dossier; when there are as many as may be, instead of the one with the fewest detours that
 * is neither convicted nor of this moment: who invents names pushes out his own. Or NOBODY. */
static int dossier_room(struct record *r, int64_t now)
{
    int least = NOBODY;
    if (r->ndossiers < DOSSIERS_MAX) {
        if (r->ndossiers == r->capdossiers) {
            r->capdossiers = r->capdossiers ? 2 * r->capdossiers : 4;
            r->dossier = realloc(r->dossier, r->capdossiers * sizeof *r->dossier);
            if (!r->dossier)
                abort();
        }
        return (int)r->ndossiers++;
    }
    for (int i = 0; i < DOSSIERS_MAX; i++) {
        const struct dossier *d = &r->dossier[i];
        if (!d->conviction && d->until < now && (least == NOBODY || d->n < r->dossier[least].n))
            least = i;
    }
    return least;
}

static int dossier_open(const struct scene *sc, size_t i)
{
    struct record *r = sc->record;
    const struct node *node = &sc->o->subject->path.node[i];
    int at = dossier_find(r, node->server_id);
    if (at != NOBODY || (at = dossier_room(r, sc->o->subject->now)) == NOBODY)
        return at;
    struct dossier *d = &r->dossier[at];
    memset(d, 0, sizeof *d);
    d->server = node->server_id;
    dossier_name(d, sc, i);
    return at;
}

bool blame_rare(const struct record *r, const struct path *p, size_t from)
{
    for (size_t i = from; i < p->n; i++) {
        if (!somebody(&p->node[i]))
            continue;
        int at = dossier_find(r, p->node[i].server_id);
        if (at == NOBODY ? r->ndossiers < DOSSIERS_MAX : r->dossier[at].n < RARE)
            return true;
    }
    return false;
}

/* Delivery should have ended below or here: it was accepted "for" another visible addressee, and
 * yet the message went on to r. Returns that addressee, or -1. */
static long ended_for(const struct subject *s, size_t i, uint64_t r)
{
    const struct hop *below = i ? s->path.node[i - 1].hop : NULL;
    const struct hop *here = s->path.node[i].hop;
    uint64_t to = below ? below->for_hash : 0;
    if (to && to != r && !(here && here->for_hash == to)) {
        long at = visible_find(&s->visible, to);
        if (at >= 0)
            return at;
    }
    if (!here || i + 1 < s->path.n || !here->for_hash || here->for_hash == r)
        return -1;
    return visible_find(&s->visible, here->for_hash);
}

static long other_label(const struct clue *n, uint32_t rlabel)
{
    for (unsigned i = 0; i < n->n; i++)
        if (n->label[i] != rlabel)
            return (long)n->at[i];
    return -1;
}

static bool branches(const struct record *r, const struct node *node)
{
    const struct place *p = record_place(r, place_id(node));
    return p && p->kids + p->direct >= 2;
}

/* Of two addresses in one domain, the one that the connector wrote says more. */
struct span addressee_shown(const struct visible *v, long at)
{
    bool same =
        v->connector.n && span_eq(address_domain(v->connector), address_domain(v->address[at]));
    return same ? v->connector : v->address[at];
}

/* Adds one detour through node i to its dossier. */
static void dossier_add(const struct scene *sc, struct dossier *d, size_t i, size_t from,
                        bool begins, uint64_t r, uint32_t rlabel)
{
    const struct subject *s = sc->o->subject;
    const struct path *p = &s->path;
    const struct hop *hop = p->node[i].hop;
    long label = other_label(scene_clue(sc, i), rlabel);
    long ended = ended_for(s, i, r);
    long example = label >= 0 ? label : ended;
    d->ordinary = sc->o->ordinary[i];
    d->delivers = sc->o->direct && sc->o->direct[i];
    d->n++;
    if (!d->since || s->now < d->since)
        d->since = s->now;
    if (s->now > d->until)
        d->until = s->now;
    if (hop && hop->reinjected && (i || begins)) {
        d->reinjected++;
        d->pickup |= hop_pickup(hop);
    }
    d->label += label >= 0;
    d->ended += ended >= 0;
    d->first += i == from;
    d->branch += branches(sc->record, &p->node[i]);
    if (i)
        few_add(&d->before, p->node[i - 1].server_id);
    few_add(&d->after, i + 1 < p->n ? p->node[i + 1].server_id : 0);
    if (i + 1 < p->n)
        few_add(&d->peers, sc->peer_org);
    else
        d->direct = true;
    if (example >= 0 && !d->addressee[0])
        span_show(addressee_shown(&s->visible, example), d->addressee, sizeof d->addressee);
}

int blame_enter(struct scene *sc, size_t from, bool begins, uint64_t r, uint32_t rlabel)
{
    const struct path *p = &sc->o->subject->path;
    struct record *record = sc->record;
    int entered[PATH_MAX_NODES], best = NOBODY;
    size_t n = 0;
    double top = 0;
    for (size_t i = from; i < p->n; i++) {
        int at = somebody(&p->node[i]) ? dossier_open(sc, i) : NOBODY;
        bool again = false;
        for (size_t j = 0; j < n; j++)
            again |= entered[j] == at;
        if (at == NOBODY || again)
            continue;
        entered[n++] = at;
        dossier_add(sc, &record->dossier[at], i, from, begins, r, rlabel);
        double score = blame_score(record, &record->dossier[at]);
        if (best == NOBODY || (score > top && !(begins && p->node[from].hop))) {
            best = at;
            top = score;
        }
    }
    return best;
}

int blame_convicted(const struct record *r, const struct path *p, size_t from)
{
    for (size_t i = from; i < p->n; i++) {
        int at = dossier_find(r, p->node[i].server_id);
        if (at != NOBODY && r->dossier[at].conviction)
            return at;
    }
    return NOBODY;
}

/* ---- scores and names ---- */

/* A waist between a funnel and a fan-out: many ways in, one way through, many ways out. */
static bool waist(const struct record *r, const struct dossier *d)
{
    if (d->before.n != 1 || d->after.n != 1)
        return false;
    int a = dossier_find(r, d->before.value[0]);
    int b = dossier_find(r, d->after.value[0]);
    return a != NOBODY && b != NOBODY && r->dossier[a].before.n >= 2 &&
           r->dossier[a].after.n == 1 && r->dossier[b].before.n == 1 && r->dossier[b].after.n >= 2;
}

/* Convicted, and all its copies begin with it: it handed them to us itself, and no line tells of
 * anybody before it. The trace was lost there, or the message was made there. */
static bool begins_here(const struct dossier *d)
{
    return d->conviction && d->direct && !d->before.n && d->first == d->n;
}

double blame_score(const struct record *r, const struct dossier *d)
{
    double points =
        5.0 * d->reinjected + 3.0 * d->label + 3.0 * d->ended + 1.0 * d->first + 1.0 * d->branch;
    return points / d->n + (waist(r, d) ? 2 : 0) + (begins_here(d) ? 3 : 0) -
           log10(1.0 + d->ordinary);
}

const char *conviction_text(enum conviction c)
{
    static const char *const text[CONVICTIONS] = {
        [CONVICTION_NONE] = NULL,
        [CONVICTION_AGAIN] = "returned the same message a second time",
        [CONVICTION_QUICK] = "replays the message to every address of its To: line",
        [CONVICTION_STRUCT] = "re-injects mail that had already been delivered",
        [CONVICTION_CYCLE] = "mail runs in a circle through it",
    };
    return text[c];
}

static const char *sentence(struct arena *a, const struct dossier *d, const char *what,
                            uint32_t share)
{
    return arena_printf(a, "%s (%u %% of its %u detours)", what, share * 100 / d->n, d->n);
}

enum { SENTENCES = 9 };

static void evidence(struct culprit *c, struct arena *a, const struct dossier *d)
{
    const char *who = d->addressee[0] ? d->addressee : "see the message";
    c->evidence = arena_alloc(a, SENTENCES * sizeof *c->evidence);
    if (d->reinjected * 2 >= d->n)
        c->evidence[c->nevidence++] = sentence(
            a, d, "it re-injects mail that had already been delivered to a mailbox", d->reinjected);
    if (d->label * 2 >= d->n)
        c->evidence[c->nevidence++] = sentence(
            a, d,
            arena_printf(a, "it is the mail server of another addressee of this message (%s)", who),
            d->label);
    if (d->ended * 2 >= d->n)
        c->evidence[c->nevidence++] = sentence(
            a, d,
            arena_printf(a, "what was meant for another addressee alone (%s) went on from there",
                         who),
            d->ended);
    if (d->first * 2 >= d->n)
        c->evidence[c->nevidence++] =
            sentence(a, d, "it is where the path leaves the normal one", d->first);
    if (begins_here(d))
        c->evidence[c->nevidence++] =
            "it handed all of them to us itself, and nothing tells of anybody before it";
    if (d->branch * 2 >= d->n)
        c->evidence[c->nevidence++] =
            sentence(a, d, "one acceptance there became many copies", d->branch);
    if (span_case_has(span_str(who), SPAN("mspop3connector.")))
        c->evidence[c->nevidence++] =
            arena_printf(a, "To or Cc shows the mark of a POP3 connector at %.*s",
                         SPAN_ARG(address_domain(span_str(who))));
    if (d->pickup)
        c->evidence[c->nevidence++] = "this is what the POP3 connector of Windows Small Business "
                                      "Server 2003 does without the "
                                      "correction of Microsoft KB 835734";
    if (d->ordinary)
        c->evidence[c->nevidence++] =
            arena_printf(a, "in its favour: %u other message%s came through it in normal flow",
                         d->ordinary, d->ordinary == 1 ? "" : "s");
}

static const char *grade(struct arena *a, const struct dossier *d)
{
    if (d->direct)
        return "seen directly";
    if (d->peers.n > 1)
        return arena_printf(a, "reported by %u independent relays", d->peers.n);
    return "claimed by one relay only";
}

/* A server that hands us its own mail itself, and is accused by one other relay only: whoever
 * writes Received lines can write its name into them. */
static bool hearsay(const struct dossier *d)
{
    return d->delivers && !d->direct && d->peers.n <= 1;
}

/* One dossier while culprits are looked for. */
struct suspect {
    const struct dossier *d;
    double score;
    int next;  /* suspect that is its only way out, or NOBODY */
    bool head; /* nobody's only way out */
    bool done;
};

static int suspect_order(const void *a, const void *b)
{
    const struct suspect *x = a, *y = b;
    return strcmp(x->d->name, y->d->name);
}

static size_t suspects_read(const struct record *r, const struct site *site, struct suspect *s)
{
    size_t n = 0;
    for (uint32_t i = 0; i < r->ndossiers; i++)
        if (r->dossier[i].n && r->dossier[i].n >= site->name_min_detours)
            s[n++] = (struct suspect){.d = &r->dossier[i],
                                      .score = blame_score(r, &r->dossier[i]),
                                      .next = NOBODY,
                                      .head = true};
    if (n > 1)
        qsort(s, n, sizeof *s, suspect_order);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n && s[i].d->after.n == 1; j++)
            if (s[j].d->server == s[i].d->after.value[0]) {
                s[i].next = (int)j;
                s[j].head = false;
            }
    return n;
}

/* The run of suspects always crossed together, from `at` on. */
static size_t site_run(const struct suspect *s, int at, int *run)
{
    size_t n = 0;
    while (at != NOBODY) {
        for (size_t i = 0; i < n; i++)
            if (run[i] == at)
                return n;
        run[n++] = at;
        at = s[at].next;
    }
    return n;
}

static struct span site_text(struct arena *a, const struct suspect *s, const int *run, size_t n)
{
    const char *text = "one of ";
    if (n == 1)
        return span_str(arena_printf(a, "perhaps %s", s[run[0]].d->name));
    for (size_t i = 0; i < n && i < 8; i++)
        text = arena_printf(a, "%s%s%s", text, i ? " -> " : "", s[run[i]].d->name);
    return span_str(n > 8 ? arena_printf(a, "%s -> ...", text) : text);
}

/* Judges one site; false: nothing to say, or its best was reported already. */
static bool site_judge(const struct record *r, struct suspect *s, int head, const struct site *site,
                       struct arena *a, struct culprit *out)
{
    int run[DOSSIERS_MAX], best = NOBODY;
    size_t n = site_run(s, head, run);
    double second = -HUGE_VAL;
    for (size_t i = 0; i < n; i++) {
        int j = run[i];
        if (best == NOBODY || s[j].score > s[best].score ||
            (j > best && s[j].score == s[best].score)) {
            if (best != NOBODY)
                second = s[best].score;
            best = j;
        } else if (s[j].score > second) {
            second = s[j].score;
        }
    }
    if (s[best].done || (s[best].score < 1 && n < 2))
        return false;
    s[best].done = true;
    *out = (struct culprit){
        .named = (r->storm || s[best].d->conviction) && s[best].d->name[0] != '?' &&
                 !hearsay(s[best].d) && s[best].score >= site->name_min_score &&
                 (n == 1 || s[best].score - second >= site->name_margin),
        .server = s[best].d->server,
        .score = s[best].score,
        .detours = s[best].d->n,
        .since = s[best].d->since,
        .until = s[best].d->until,
        .grade = grade(a, s[best].d),
        .conviction = conviction_text((enum conviction)s[best].d->conviction),
    };
    out->relay =
        out->named ? span_str(arena_printf(a, "%s", s[best].d->name)) : site_text(a, s, run, n);
    evidence(out, a, s[best].d);
    return true;
}

static int culprit_order(const void *a, const void *b)
{
    const struct culprit *x = a, *y = b;
    if (x->named != y->named)
        return x->named ? -1 : 1;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return (int)y->detours - (int)x->detours;
}

static struct span relay_host(const struct culprit *c)
{
    return span_head(c->relay, span_find(c->relay, '['));
}

/* The same host with its egress address, or NULL. */
static struct culprit *addressed(struct culprit *c, size_t n, struct span host)
{
    for (size_t i = 0; i < n; i++)
        if (c[i].named && relay_host(&c[i]).n < c[i].relay.n && span_eq(relay_host(&c[i]), host))
            return &c[i];
    return NULL;
}

/* A server seen both with and without its egress address is shown once, with the address. */
static size_t culprits_merge(struct culprit *c, size_t n)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        bool bare = c[i].named && relay_host(&c[i]).n == c[i].relay.n;
        struct culprit *same = bare ? addressed(c, n, c[i].relay) : NULL;
        if (!same)
            continue;
        same->detours += c[i].detours;
        same->since = c[i].since < same->since ? c[i].since : same->since;
        same->until = c[i].until > same->until ? c[i].until : same->until;
        c[i].detours = 0;
    }
    for (size_t i = 0; i < n; i++)
        if (c[i].detours)
            c[kept++] = c[i];
    return kept;
}

size_t blame_culprits(const struct record *r, const struct site *site, struct arena *a,
                      struct culprit **out)
{
    struct suspect s[DOSSIERS_MAX];
    size_t nsuspects = suspects_read(r, site, s), n = 0;
    bool heads = false;
    *out = arena_alloc(a, DOSSIERS_MAX * sizeof **out);
    for (size_t i = 0; i < nsuspects; i++)
        heads |= s[i].head;
    for (size_t i = 0; i < nsuspects; i++)
        if (s[i].head || !heads)
            n += site_judge(r, s, (int)i, site, a, &(*out)[n]);
    qsort(*out, n, sizeof **out, culprit_order);
    n = culprits_merge(*out, n);
    return n < CULPRITS_MAX ? n : CULPRITS_MAX;
}
