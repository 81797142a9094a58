/*
 * replication.c - the decisions of detection.md 4.
 *
 * Three passes over one transaction: how does each copy relate to those before it (FIRST, SAME,
 * DETOUR ...); what does the whole transaction say about servers (dossiers, convictions, storm);
 * what is advised for each copy (rules R0 to R6).
 *
 * Invariant: a FIRST copy is never held here. Allowances only ever make more mail pass.
 */
#include <string.h>

#include "alias.h"
#include "bloomring.h"
#include "replication.h"

/* ---- what is asked of the past, and remembered ---- */

enum use { USE_ORDINARY, USE_KNOWN, USE_TRANSIT, USE_DIRECT };
enum { TRANSIT_UPSTREAMS = 5 };
static const int64_t TRANSIT_LIFE = 30LL * 86400 * 1000;
static const int64_t DIRECT_LIFE = 30LL * 86400 * 1000;

/* `of` is a keyed hash already: mixing in the use needs no second one. */
static struct tally ask(enum tally_kind kind, enum use use, uint64_t of)
{
    return (struct tally){.kind = kind, .key = (of + use) * 0x9e3779b97f4a7c15, .shared = true};
}

static struct tally ask_transit(const struct subject *s)
{
    struct tally t = ask(TALLY_SET, USE_TRANSIT, sip_hash(s->keys, SIP_HOST, s->client_org));
    t.length = TRANSIT_LIFE;
    return t;
}

struct tally replication_known_tally(uint32_t server, int64_t life)
{
    struct tally t = ask(TALLY_MARK, USE_KNOWN, server);
    t.length = life;
    return t;
}

struct tally replication_ordinary_tally(uint64_t host)
{
    return ask(TALLY_COUNT, USE_ORDINARY, host);
}

/* When this host last handed us ordinary mail itself. */
static struct tally ask_direct(uint64_t host)
{
    struct tally t = ask(TALLY_MARK, USE_DIRECT, host);
    t.length = DIRECT_LIFE;
    return t;
}

static struct tally ask_known(const struct subject *s, uint32_t server)
{
    return replication_known_tally(server, s->site->known_server);
}

/* Per foreign node: ordinary, known and, but for the one that hands us this message, direct; then
 * transit. replication_observation() reads this order. */
static void count(const struct subject *s, struct tallies *asks)
{
    for (size_t i = 0; i < s->path.n; i++) {
        const struct node *n = &s->path.node[i];
        if (n->own)
            continue;
        tallies_add(asks, s->arena, replication_ordinary_tally(n->host_hash));
        tallies_add(asks, s->arena, ask_known(s, n->server_id));
        if (i + 1 < s->path.n)
            tallies_add(asks, s->arena, ask_direct(n->host_hash));
    }
    tallies_add(asks, s->arena, ask_transit(s));
}

void replication_observation(struct observation *o, const struct subject *s,
                             const struct tallies *answers)
{
    uint32_t *ordinary = arena_zero(s->arena, s->path.n * sizeof *ordinary);
    bool *known = arena_zero(s->arena, s->path.n * sizeof *known);
    bool *direct = arena_zero(s->arena, s->path.n * sizeof *direct);
    size_t at = 0;
    *o = (struct observation){.subject = s, .ordinary = ordinary, .known = known, .direct = direct};
    if (!answers)
        return;
    for (size_t i = 0; i < s->path.n && at + 2 < answers->n; i++) {
        if (s->path.node[i].own)
            continue;
        double n = answers->t[at++].answer;
        double marked = answers->t[at++].answer;
        if (i + 1 < s->path.n)
            direct[i] = answers->t[at++].answer > 0;
        ordinary[i] = n < 0 ? 0 : n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
        known[i] = marked > 0 && (double)s->now - marked < (double)s->site->known_server;
    }
    o->transit = at < answers->n && answers->t[at].answer >= TRANSIT_UPSTREAMS;
}

static void learn(const struct subject *s, const struct signals *signals, struct tallies *adds)
{
    const struct replication_signals *r = &signals->replication;
    const struct path *p = &s->path;
    for (size_t i = 0; i < r->nlearned; i++)
        tallies_add(adds, s->arena, ask_known(s, r->learned[i]));
    if (r->duplicates || r->degraded)
        return;
    for (size_t i = 0; i < p->n; i++) {
        struct tally t = replication_ordinary_tally(p->node[i].host_hash);
        t.amount = 1;
        if (!p->node[i].own)
            tallies_add(adds, s->arena, t);
    }
    if (!p->node[p->n - 1].own)
        tallies_add(adds, s->arena, ask_direct(p->node[p->n - 1].host_hash));
    if (p->n >= 3) {
        struct span upstream = host_org(p->node[p->n - 2].host);
        struct tally t = ask_transit(s);
        t.member = sip_hash(s->keys, SIP_HOST, upstream);
        if (!span_eq(upstream, s->client_org))
            tallies_add(adds, s->arena, t);
    }
}

const struct detector replication_detector = {
    .name = "replication", .count = count, .judge = NULL, .learn = learn};

/* ---- relations ---- */

/* How one copy relates to those before it; from: where its segment starts in the path; begins: it
 * begins anew, of a message that its recipient had first from further away. */
struct relating {
    enum relation relation;
    size_t from;
    bool begins;
};

/* How many nodes our path and the path to leaf have in common. *length: nodes to leaf, 0 if it is
 * forgotten. *below: the leaf's next place after them, or NULL. */
static size_t common(const struct record *r, const struct path *p, uint32_t leaf, size_t *length,
                     const struct place **below)
{
    const struct place *at = record_place(r, leaf);
    *below = NULL;
    *length = at ? at->depth + 1u : 0;
    while (at && !(at->depth < p->n && place_id(&p->node[at->depth]) == at->id)) {
        *below = at;
        at = record_place(r, at->parent);
    }
    return at ? at->depth + 1u : 0;
}

/* Has the copy no more in common with another than the machine it came from, which is no
 * acceptance, and with the first copy, whose first place is given, not even that? Then the trace
 * before it was cut off, and it is neither the same queue entry nor the same delivery again. A
 * machine without an address of its own tells that only where a server wrote down that it took the
 * copy in.
 */
static bool cut_off(const struct path *p, const struct place *first, size_t with_any)
{
    const struct node *source = &p->node[0];
    if (!first || first->depth || first->host == (uint32_t)source->host_hash)
        return false;
    bool told = p->n > 1 || span_find(source->server, '[') < source->server.n;
    return with_any == 0 || (with_any == 1 && !source->hop && told);
}

enum { FAR = 3 }; /* nodes of a path that tells where a message came from */

static struct relating relate(const struct record *r, const struct path *p, const uint32_t leaf[2])
{
    size_t top = 0, from = 0, from_length = SIZE_MAX, first_length = 0;
    const struct place *next = NULL, *first = NULL;
    for (unsigned i = 0; i < 2; i++) {
        const struct place *below;
        size_t length, k = common(r, p, leaf[i], &length, &below), rank;
        if (i == 0) {
            first = below;
            first_length = length;
        }
        if (!length)
            continue;
        rank = k == p->n && k == length ? SIZE_MAX : 1 + 2 * k + (k == length);
        if (rank <= top) /* handed over on our own path: preferred */
            continue;
        top = rank;
        from = k;
        from_length = length;
        next = below;
    }
    if (cut_off(p, first, from))
        return (struct relating){REL_FORK, 0, first_length >= FAR};
    if (top == SIZE_MAX)
        return (struct relating){.relation = REL_SAME, .from = from};
    if (from == from_length)
        return (struct relating){.relation = REL_DETOUR, .from = from};
    if (from == p->n)
        return (struct relating){.relation = REL_LATE, .from = from};
    if (next && next->host == (uint32_t)p->node[from].host_hash)
        return (struct relating){.relation = REL_RESEND, .from = from};
    return (struct relating){.relation = REL_FORK, .from = from};
}

static bool all_own(const struct path *p, size_t from)
{
    for (size_t i = from; i < p->n; i++)
        if (!p->node[i].own)
            return false;
    return true;
}

/* ---- one transaction at work ---- */

struct copy {
    struct addressee *a; /* NULL: the record is full */
    long twin;           /* the recipient was named before, at this index; or -1 */
    struct relating rel;
    int blamed; /* dossier, or NOBODY */
};

struct turn {
    struct record *r;
    const struct observation *o;
    const struct subject *s;
    const struct envelope *e;
    struct copy *copy; /* one per recipient */
    uint32_t end;      /* where the path ends in the record; 0: not remembered */
    uint32_t list;     /* hash of List-Id; 0: none */
    bool reissue;      /* sent anew: what its path shares with others is not the same acceptance */
    bool stuck;        /* the machine of the first copy tries again under a new name */
    size_t duplicates;
    struct replication_signals *out;
};

static bool has_list(const struct record *r, const struct addressee *a, uint32_t list)
{
    const struct more *m = a->more ? &r->more[a->more - 1] : NULL;
    for (unsigned i = 0; m && i < m->nlists; i++)
        if (m->list[i] == list)
            return true;
    return false;
}

static void find_addressees(struct turn *t)
{
    size_t n = t->e->nrecipients;
    for (size_t i = 0; i < n; i++)
        record_add(t->r, t->e->recipients[i].hash);
    for (size_t i = 0; i < n; i++) {
        struct copy *c = &t->copy[i];
        *c = (struct copy){
            .a = record_find(t->r, t->e->recipients[i].hash), .twin = -1, .blamed = NOBODY};
        if (!c->a)
            continue;
        if (c->a->turn < i && t->e->recipients[c->a->turn].hash == c->a->hash)
            c->twin = (long)c->a->turn;
        else
            c->a->turn = (uint32_t)i;
    }
}

/* Was the message taken out of a mailbox, or meant for somebody else whom it shows, after it was
 * handed over for the second time? Then that was no retry: two mailboxes of one server got it, and
 * from one of them it went on. */
static bool strays(const struct turn *t, size_t from, uint64_t r)
{
    const struct path *p = &t->s->path;
    for (size_t i = from ? from : 1; i < p->n; i++) {
        const struct hop *h = p->node[i].hop;
        bool other = h && h->for_hash && h->for_hash != r && i + 1 < p->n;
        if (h && (h->reinjected || (other && visible_find(&t->s->visible, h->for_hash) >= 0)))
            return true;
    }
    return false;
}

/* Mail of a list that begins once more at the server where its latest copy began: there the trace
 * was cut off, and it came twice from there. Subscribers and lists do such things; one is allowed.
 */
static bool begins_again(const struct turn *t, const struct addressee *a)
{
    const struct place *at = record_place(t->r, a->leaf[1]);
    while (at && at->parent)
        at = record_place(t->r, at->parent);
    return t->s->fp.list_marked && at && at->host == (uint32_t)t->s->path.node[0].host_hash;
}

/* At most the machine where it began is the same, and no acceptance. */
static bool begins_alike(const struct path *p, size_t from)
{
    return from <= (p->node[0].hop ? 0 : 1);
}

static void relate_copies(struct turn *t)
{
    const struct path *p = &t->s->path;
    uint32_t leaf[2] = {0, 0};
    struct relating rel = {.relation = REL_FORK};
    for (size_t i = 0; i < t->e->nrecipients; i++) {
        struct copy *c = &t->copy[i];
        if (!c->a || c->twin >= 0 || !(c->a->pending + c->a->passed))
            continue; /* FIRST, or its twin's */
        if (memcmp(leaf, c->a->leaf, sizeof leaf) != 0 || !leaf[0]) {
            memcpy(leaf, c->a->leaf, sizeof leaf);
            rel = relate(t->r, p, leaf);
        }
        c->rel = rel;
        if (t->stuck && rel.relation != REL_DETOUR)
            c->rel = (struct relating){REL_SAME, 0, true};
        else if (t->reissue && rel.relation != REL_DETOUR &&
                 (begins_alike(p, rel.from) || rel.from == p->n))
            c->rel = (struct relating){REL_FORK, 0, true};
        else if (rel.relation == REL_FORK && rel.from == 0 && begins_again(t, c->a))
            c->rel = (struct relating){.relation = REL_RESEND};
        else if (rel.relation == REL_RESEND && strays(t, rel.from, c->a->hash))
            c->rel.relation = REL_FORK;
        if (rel.relation == REL_DETOUR && all_own(p, rel.from))
            c->rel.relation = REL_INTERNAL;
        else if (t->list && !has_list(t->r, c->a, t->list))
            c->rel.relation = REL_LIST;
        t->duplicates++;
    }
}

/* ---- what the transaction says about servers ---- */

static void quick_add(struct dossier *d, const struct recipient *rcpt)
{
    unsigned i = 0;
    while (i < d->nrcpts && d->rcpt[i] != rcpt->hash)
        i++;
    if (i == d->nrcpts && i < QUICK_RCPTS)
        d->rcpt[d->nrcpts++] = rcpt->hash;
    for (i = 0; i < d->ndomains && d->domain[i] != rcpt->domain;)
        i++;
    if (i == d->ndomains && i < QUICK_DOMAINS)
        d->domain[d->ndomains++] = rcpt->domain;
}

size_t observation_visible(const struct observation *o)
{
    const struct envelope *e = o->subject->envelope;
    size_t n = 0;
    if (o->witness)
        return o->witness->nvisible;
    for (size_t i = 0; i < e->nrecipients; i++)
        n += visible_find(&o->subject->visible, e->recipients[i].hash) >= 0;
    return n;
}

static bool blamed_before(const struct record *r, const struct addressee *a, uint32_t server)
{
    const struct more *m = a->more ? &r->more[a->more - 1] : NULL;
    for (unsigned i = 0; m && i < m->nservers; i++)
        if (m->server[i] == server)
            return true;
    return false;
}

/* Was it taken out of a mailbox after it had left the way of the earlier copies? Where a message
 * begins, a pickup is nothing odd; where one begins anew, it is. Who has fetchmail bring the mail
 * of his other address to one of them does no harm, though both are in To. */
static bool reinjected(const struct turn *t, const struct relating *rel)
{
    const struct path *p = &t->s->path;
    bool one = t->e->nrecipients == 1;
    for (size_t i = rel->from || rel->begins ? rel->from : 1; i < p->n; i++) {
        const struct hop *h = p->node[i].hop;
        if (h && h->reinjected && !(h->fetched && one))
            return true;
    }
    return false;
}

static bool quick(const struct turn *t, const struct dossier *d)
{
    const struct site *site = t->s->site;
    unsigned rcpts = site->quick_rcpts < QUICK_RCPTS ? site->quick_rcpts : QUICK_RCPTS;
    unsigned domains = site->quick_domains < QUICK_DOMAINS ? site->quick_domains : QUICK_DOMAINS;
    return !t->s->fp.list_marked && !t->o->transit && !t->o->join_weak && d->nrcpts >= rcpts &&
           d->ndomains >= domains && d->visible >= site->quick_visible * d->all;
}

static enum conviction convict(const struct turn *t, const struct dossier *d, const struct copy *c)
{
    const struct subject *s = t->s;
    if (blamed_before(t->r, c->a, d->server))
        return CONVICTION_AGAIN;
    if (quick(t, d))
        return CONVICTION_QUICK;
    if (!s->fp.list_marked && (reinjected(t, &c->rel) || s->visible.connector.n))
        return CONVICTION_STRUCT;
    return s->path.cycle >= 2 ? CONVICTION_CYCLE : CONVICTION_NONE;
}

/* Blames one copy's detour on a server and weighs the evidence against it. */
static void blame_copy(struct turn *t, size_t i, size_t nvisible)
{
    struct copy *c = &t->copy[i];
    struct record *r = t->r;
    if (c->blamed == NOBODY)
        return;
    struct dossier *d = &r->dossier[c->blamed];
    quick_add(d, &t->e->recipients[i]);
    if (d->turn != r->duplicate_transactions) {
        d->turn = r->duplicate_transactions;
        d->all += (uint32_t)t->e->nrecipients;
        d->visible += (uint32_t)nvisible;
    }
    if (d->conviction)
        return;
    d->conviction = (uint8_t)convict(t, d, c);
    r->convicted += d->conviction != CONVICTION_NONE;
}

/* What is left of an allowance: nothing, and no use of it is counted any more. */
enum { SPENT = UINT8_MAX };

/* Nobody tries again so often: the same queue entry, or the same message begun anew by the same
 * machine, beyond what is allowed. Then who brings it, or begins it, is blamed. */
static bool repeats(const struct turn *t, struct copy *c)
{
    const struct site *site = t->s->site;
    const struct path *p = &t->s->path;
    if (c->rel.relation == REL_SAME && c->a->same >= site->a_same && c->a->same < SPENT) {
        c->rel.from = c->rel.begins ? 0 : p->n - 1;
        return true;
    }
    if (c->rel.relation != REL_RESEND || !begins_alike(p, c->rel.from) ||
        (c->a->resend < site->a_resend && !t->r->storm))
        return false;
    c->rel.from = 0;
    c->rel.begins = true;
    return true;
}

/* Is somebody to be blamed for this copy? */
static bool blamable(const struct turn *t, struct copy *c)
{
    return c->rel.relation == REL_DETOUR || c->rel.relation == REL_FORK || repeats(t, c);
}

/* In a storm most of the evidence is in: from ENTERED_ALL on only some transactions are entered,
 * and those of servers that were hardly seen. */
enum { ENTERED_ALL = 256, ENTERED_ONE_IN = 16 };

static bool entered(const struct turn *t)
{
    const struct record *r = t->r;
    uint32_t n = r->duplicate_transactions;
    if (!r->storm || n <= ENTERED_ALL || n % ENTERED_ONE_IN == 0)
        return true;
    size_t from = t->s->path.n;
    for (size_t i = 0; i < t->e->nrecipients; i++)
        if (t->copy[i].rel.from < from && blamable(t, &t->copy[i]))
            from = t->copy[i].rel.from;
    return blame_rare(r, &t->s->path, from);
}

static void blame_copies(struct turn *t)
{
    const struct path *p = &t->s->path;
    int cache[PATH_MAX_NODES]; /* per start: what was entered for all without a label of their own
                                */
    bool cached[PATH_MAX_NODES] = {false}, enter = entered(t);
    struct scene *scene = enter ? scene_new(t->r, t->o) : NULL;
    size_t nvisible = enter ? observation_visible(t->o) : 0;
    for (size_t i = 0; i < t->e->nrecipients; i++) {
        struct copy *c = &t->copy[i];
        if (!blamable(t, c))
            continue;
        if (!enter) {
            c->blamed = blame_convicted(t->r, p, c->rel.from);
            continue;
        }
        uint32_t label = i < ENTRIES_EACH ? scene_label(scene, i) : 0;
        if (label || !cached[c->rel.from]) {
            c->blamed = blame_enter(scene, c->rel.from, c->rel.begins, c->a->hash, label);
            cached[c->rel.from] |= !label;
            if (!label)
                cache[c->rel.from] = c->blamed;
        } else {
            c->blamed = cache[c->rel.from];
        }
        blame_copy(t, i, nvisible);
    }
}

/* Is the server to be known for the next storm: convicted, or at one of a few looks at the evidence
 * a clear suspect? */
enum { TEACHES_DETOURS = 3, TEACHES_SCORE = 5 };

static bool teaches(const struct record *r, const struct dossier *d)
{
    uint32_t n = r->duplicate_transactions;
    if (d->conviction)
        return true;
    return (n == 8 || n == 32 || n == 128 || n % 512 == 0) && d->n >= TEACHES_DETOURS &&
           blame_score(r, d) >= TEACHES_SCORE;
}

static void weigh_storm(struct turn *t)
{
    struct record *r = t->r;
    if (!r->storm && r->convicted && (r->duplicates >= t->s->site->storm_dups || r->convicted >= 2))
        r->storm = true;
    if (!r->storm || !r->ndossiers)
        return;
    uint32_t *learned = arena_alloc(t->s->arena, r->ndossiers * sizeof *learned);
    for (uint32_t i = 0; i < r->ndossiers; i++)
        if (teaches(r, &r->dossier[i]))
            learned[t->out->nlearned++] = r->dossier[i].server;
    t->out->learned = learned;
}

/* ---- what is advised ---- */

static void up(uint8_t *n)
{
    *n = (uint8_t)(*n + (*n < UINT8_MAX));
}

/* Counts an allowance; within its limit the copy is let through as `otherwise`. */
static enum advice allow(struct addressee *a, uint8_t *used, enum allowance which, unsigned limit,
                         enum advice otherwise)
{
    up(used);
    a->last = (uint8_t)which;
    return *used <= limit ? otherwise : ADVICE_HOLD;
}

static void remember_leaf(struct addressee *a, uint32_t end)
{
    if (!end || a->leaf[0] == end || a->leaf[1] == end)
        return;
    a->leaf[a->leaf[0] ? 1 : 0] = end;
}

static void remember_list(struct record *r, struct addressee *a, uint32_t list)
{
    struct more *m = record_more(r, a);
    if (m->nlists < ADDRESSEE_LISTS)
        m->list[m->nlists++] = list;
}

static void remember_server(struct record *r, struct addressee *a, uint32_t server)
{
    if (!blamed_before(r, a, server)) {
        struct more *m = record_more(r, a);
        if (m->nservers < ADDRESSEE_SERVERS)
            m->server[m->nservers++] = server;
    }
}

/* R1. Whatever it had before was held, refused or lost: it starts anew. */
static enum advice decide_first(struct turn *t, struct addressee *a)
{
    a->extra = a->same = a->resend = a->internal = 0;
    a->leaf[0] = a->leaf[1] = 0;
    if (a->more)
        memset(&t->r->more[a->more - 1], 0, sizeof *t->r->more);
    if (t->list)
        remember_list(t->r, a, t->list);
    return ADVICE_PASS;
}

/* Was it written within the time for which exact records are kept, and are whole? Then the long
 * memory, which errs once in a thousand times, knows nothing that the record would not. */
static bool young(const struct observation *o)
{
    const struct subject *s = o->subject;
    uint64_t seconds;
    if (!o->whole || !span_number(s->fp.date, (uint64_t)INT64_MAX / 1000, &seconds))
        return false;
    int64_t written = (int64_t)seconds * 1000, age = s->now - written;
    return written >= o->whole && age >= 0 && age < s->site->ttl_plain;
}

bool observation_had(const struct observation *o, size_t i)
{
    if (o->witness)
        return o->witness->recipient[i] & WITNESS_HAD;
    uint64_t rcpt = o->subject->envelope->recipients[i].hash;
    return o->ring && !young(o) && bloomring_has(o->ring, record_digest(&o->k, rcpt));
}

/* The long memory thinks that a recipient this record knows nothing of had it: the copy passes, and
 * no further one will. */
static bool had_before(const struct turn *t, struct addressee *a, size_t i)
{
    if (a->seen || !observation_had(t->o, i))
        return false;
    unsigned most = t->s->site->a_extra;
    a->extra = (uint8_t)(most < UINT8_MAX ? most : UINT8_MAX);
    return true;
}

/* R6. */
static enum advice decide_extra(struct turn *t, struct copy *c)
{
    struct record *r = t->r;
    const struct dossier *d = c->blamed == NOBODY ? NULL : &r->dossier[c->blamed];
    bool known = d && d->conviction;
    for (size_t i = c->rel.from; d && i < t->s->path.n; i++)
        known |= t->s->path.node[i].server_id == d->server && t->o->known[i];
    if (known || r->storm || c->a->extra >= t->s->site->a_extra)
        return ADVICE_HOLD;
    up(&c->a->extra);
    c->a->last = ALLOWANCE_EXTRA;
    return ADVICE_TAG;
}

static bool list_allowed(struct turn *t, struct copy *c)
{
    unsigned limit = t->s->site->a_list < ADDRESSEE_LISTS ? t->s->site->a_list : ADDRESSEE_LISTS;
    if (record_more(t->r, c->a)->nlists >= limit)
        return false;
    remember_list(t->r, c->a, t->list);
    c->a->last = ALLOWANCE_LIST;
    return true;
}

/* R4: how often one queue entry may come again. In a storm a path without any trace field proves
 * none. */
static unsigned same_allowed(const struct turn *t)
{
    const struct path *p = &t->s->path;
    if (t->r->storm && !p->node[p->n - 1].hop)
        return 0;
    return t->e->acked ? 1 : t->s->site->a_same;
}

static enum advice decide(struct turn *t, struct copy *c, uint8_t *rule)
{
    const struct site *site = t->s->site;
    struct addressee *a = c->a;
    a->last = ALLOWANCE_NONE;
    if (c->blamed != NOBODY)
        remember_server(t->r, a, t->r->dossier[c->blamed].server);
    switch (c->rel.relation) {
    case REL_FIRST:
        *rule = 1;
        return decide_first(t, a);
    case REL_INTERNAL:
        *rule = 2;
        return allow(a, &a->internal, ALLOWANCE_INTERNAL, site->a_internal, ADVICE_PASS);
    case REL_SAME:
        *rule = 4;
        return allow(a, &a->same, ALLOWANCE_SAME, same_allowed(t), ADVICE_TAG);
    case REL_RESEND:
        *rule = 5;
        return allow(a, &a->resend, ALLOWANCE_RESEND, t->r->storm ? 0 : site->a_resend, ADVICE_TAG);
    case REL_LIST:
        *rule = 3;
        if (list_allowed(t, c))
            return ADVICE_TAG;
        break;
    default:
        break;
    }
    *rule = 6;
    return decide_extra(t, c);
}

bool observation_exempts(const struct observation *o, size_t i)
{
    if (o->witness)
        return o->witness->recipient[i] & WITNESS_EXEMPT;
    return site_exempt(o->subject->site, o->subject->envelope->recipients[i].address);
}

/* Decides one copy and counts it: seen, and pending until it is settled. */
static void decide_copy(struct turn *t, size_t i)
{
    struct copy_signal *out = &t->out->copy[i];
    struct copy *c = &t->copy[i];
    struct addressee *a = c->a;
    if (!a) {
        *out = (struct copy_signal){.rule = 1, .seen = 1};
        return;
    }
    if (c->twin >= 0) {
        *out = t->out->copy[c->twin];
        return;
    }
    *out = (struct copy_signal){.relation = c->rel.relation,
                                .copies = a->seen,
                                .at = (uint8_t)c->rel.from,
                                .passed = a->passed + a->got};
    out->advice = decide(t, c, &out->rule);
    out->seen_before = out->relation == REL_FIRST && had_before(t, a, i);
    if (out->relation != REL_FIRST && observation_exempts(t->o, i)) {
        out->relation = REL_EXEMPT;
        out->rule = 0;
        out->advice = ADVICE_TAG;
    }
    a->before = a->leaf[1];
    if (c->rel.relation != REL_SAME)
        remember_leaf(a, t->end);
    if (a->pending < UINT16_MAX)
        a->pending++;
    out->seen = ++a->seen;
    t->r->copies++;
}

static void decide_copies(struct turn *t)
{
    size_t handed = 0;
    for (size_t i = 0; i < t->e->nrecipients; i++) {
        decide_copy(t, i);
        handed += t->out->copy[i].advice != ADVICE_HOLD;
    }
    record_direct(t->r, t->end, handed);
}

/* Which server this transaction's detours point at, and why it is convicted. */
static void name_blamed(struct turn *t)
{
    const struct path *p = &t->s->path;
    const struct dossier *best = NULL;
    size_t from = 0;
    for (size_t i = 0; i < t->e->nrecipients; i++) {
        const struct copy *c = &t->copy[i];
        if (c->blamed == NOBODY)
            continue;
        if (!best || (t->r->dossier[c->blamed].conviction && !best->conviction)) {
            best = &t->r->dossier[c->blamed];
            from = c->rel.from;
        }
    }
    for (size_t i = from; best && i < p->n; i++) {
        if (p->node[i].server_id != best->server)
            continue;
        t->out->blamed = p->node[i].server;
        t->out->blamed_id = best->server;
        t->out->conviction = conviction_text((enum conviction)best->conviction);
        if (!t->out->conviction && t->o->known[i])
            t->out->conviction = "replicated other mail a short while ago";
        return;
    }
}

uint32_t observation_list(const struct observation *o)
{
    const struct subject *s = o->subject;
    if (o->witness)
        return o->witness->list;
    return s->fp.list_id.n ? (uint32_t)sip_hash(s->keys, SIP_MISC, s->fp.list_id) | 1 : 0;
}

/* By which name it came; and where from, if it is new. */
static void note_name(struct record *r, const struct observation *o,
                      struct replication_signals *out)
{
    if (o->join) {
        out->join = join_name((enum join)o->join);
        out->join_why = o->join_why;
        r->joined += (uint32_t)o->subject->envelope->nrecipients;
    }
    if (!out->known && o->origin)
        r->origin = *o->origin;
}

static const int64_t CLOSED_AFTER = 24 * 3600 * INT64_C(1000);

/* A storm that had rested for a day comes back: a queue that was frozen is opened, maybe. Whoever
 * has his copy needs no second one, not even as a retry. */
static void reopen(struct record *r)
{
    for (uint32_t i = 0; i < r->capaddressees; i++)
        r->addressee[i].same = SPENT;
}

enum observed replication_observe(struct record *r, const struct observation *o,
                                  struct replication_signals *out)
{
    const struct subject *s = o->subject;
    const struct envelope *e = s->envelope;
    struct turn t = {.r = r,
                     .o = o,
                     .s = s,
                     .e = e,
                     .reissue = join_reissue((enum join)o->join),
                     .stuck = o->join == JOIN_DATE,
                     .list = observation_list(o),
                     .out = out};
    if (!record_same_content(r, s->keys, &s->fp))
        return OBSERVED_CONFLICT;
    record_add_content(r, &s->fp);
    *out = (struct replication_signals){.k = s->fp.k, .known = r->copies > 0};
    if (out->known && s->now > r->last)
        out->rested = s->now - r->last;
    if (r->storm && out->rested >= CLOSED_AFTER)
        reopen(r);
    note_name(r, o, out);
    out->copy = arena_alloc(s->arena, e->nrecipients * sizeof *out->copy);
    t.copy = arena_alloc(s->arena, e->nrecipients * sizeof *t.copy);
    r->last = s->now > r->last ? s->now : r->last;
    t.end = record_walk(r, &s->path);
    find_addressees(&t);
    relate_copies(&t);
    if (t.duplicates) {
        r->duplicate_transactions++;
        r->duplicates += t.duplicates;
        blame_copies(&t);
        weigh_storm(&t);
        name_blamed(&t);
    }
    decide_copies(&t);
    out->storm = r->storm;
    out->convicted = r->convicted;
    out->duplicates = (uint32_t)t.duplicates;
    out->copies = r->copies;
    return OBSERVED_OK;
}

void replication_report(const struct record *r, const struct site *site, struct arena *a,
                        struct report *out)
{
    *out = (struct report){.first = r->first,
                           .last = r->last,
                           .copies = r->copies,
                           .passed = r->passed,
                           .held = r->held,
                           .duplicates = r->duplicates,
                           .recipients = r->naddressees,
                           .storm = r->storm};
    for (uint32_t i = 0; i < r->capaddressees; i++) {
        const struct addressee *to = &r->addressee[i];
        out->without += to->used && !to->passed && !to->got && !to->pending;
    }
    out->nculprits = blame_culprits(r, site, a, &out->culprits);
}
