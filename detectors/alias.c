/*
 * alias.c - does a message that nobody knows belong to a record all the same?
 *
 * Invariant: without evidence it does not. A message with a List-Id never joins by its text.
 */
#include "alias.h"

enum {
    SHOWN_MANY = 10, /* visible addresses from which on whom a message shows says something */
    ADDED_MOST = 2,  /* visible addresses a re-issue may have more than the first copy */
    ECHO_TENTHS = 9  /* of its recipients are visible in an echo of To */
};
static const int64_t MINUTE = 60 * INT64_C(1000), HOUR = 3600 * INT64_C(1000);

/* ---- the names ---- */

enum tag { TAG_CHAIN = 1, TAG_TEXT, TAG_THEME, TAG_KEY, TAG_QUEUE };

static uint64_t named(const struct keys *k, enum tag tag, uint64_t a, uint64_t b, uint64_t c)
{
    struct sip s;
    sip_begin(&s, k, SIP_MISC);
    sip_word(&s, tag);
    sip_word(&s, a);
    sip_word(&s, b);
    sip_word(&s, c);
    uint64_t h = sip_finish(s, 0, 32);
    return h ? h : 1;
}

uint64_t alias_of_key(const struct key *k)
{
    uint64_t w;
    memcpy(&w, k->byte, sizeof w);
    w = (w + TAG_KEY) * UINT64_C(0x9e3779b97f4a7c15); /* K is a keyed hash already */
    return w ? w : 1;
}

static const struct hop *oldest_hop(const struct path *p)
{
    return p->node[0].hop ? p->node[0].hop : p->n > 1 ? p->node[1].hop : NULL;
}

/* The version of a program ("id 14.3.123.3"), which all its lines have. */
static bool version(struct span id)
{
    for (size_t i = 0; i < id.n; i++)
        if (id.p[i] != '.' && !byte_digit(id.p[i]))
            return false;
    return span_find(id, '.') < id.n;
}

/* Only a line that tells one acceptance from the next can stand for one. Without an id it does not:
 * an alarm that is raised five times within a second is five messages. */
static bool line_unique(const struct hop *h)
{
    return h && !h->gap && h->id.n && !version(h->id);
}

/* Long enough to be the id of one message. */
static bool line_numbered(const struct hop *h)
{
    return h->id.n >= 5 && !version(h->id);
}

/* The oldest acceptance that a queue id tells from all others, near where the message began. */
static const struct hop *numbered_hop(const struct path *p)
{
    enum { NEAR = 4 };
    for (size_t i = 0; i < p->n && i < NEAR; i++)
        if (p->node[i].hop && !p->node[i].hop->gap && line_numbered(p->node[i].hop))
            return p->node[i].hop;
    return NULL;
}

/* A few words: they are told by each other person and machine, so it takes more to know them. */
static bool terse(const struct fingerprints *fp)
{
    return fp->nwords < MIN_WORDS && !fp->nattachments;
}

static void names_read(struct guise *g)
{
    const struct subject *s = g->o->subject;
    const struct fingerprints *fp = &s->fp;
    const struct hop *oldest = oldest_hop(&s->path);
    if (!fp->from.n || (!fp->nwords && !fp->nattachments))
        return;
    uint64_t from = sip_hash(s->keys, SIP_ADDRESS, fp->from);
    if (fp->nwords >= MIN_WORDS && line_unique(oldest))
        g->origin.chain = named(s->keys, TAG_CHAIN, oldest->event, from,
                                fp->resent.n ? sip_hash(s->keys, SIP_MISC, fp->resent) : 0);
    const struct hop *numbered = numbered_hop(&s->path);
    if (fp->nwords >= MIN_WORDS && numbered)
        g->queue = named(s->keys, TAG_QUEUE, numbered->event, from,
                         fp->resent.n ? sip_hash(s->keys, SIP_MISC, fp->resent) : 0);
    if (fp->list_id.n)
        return;
    g->origin.text = named(s->keys, TAG_TEXT, fp->f, from, s->talk.base_hash);
    if (s->talk.base_hash && fp->nwords >= MIN_WORDS)
        g->origin.theme = named(s->keys, TAG_THEME, 0, from, s->talk.base_hash);
}

/* ---- where it comes from ---- */

/* The foreign relay nearest to us: ours and trusted ones are looked through, and so is a relay that
 * brings mail of many. */
static struct span peer_of(const struct observation *o)
{
    const struct subject *s = o->subject;
    const struct path *p = &s->path;
    size_t i = p->n - 1;
    while (i > 0 && p->node[i].own)
        i--;
    if (i + 1 < p->n)
        return p->node[i].own ? s->client_org : host_org(p->node[i].host);
    return o->transit && i > 0 ? host_org(p->node[i - 1].host) : s->client_org;
}

/* Whom it shows: without the addresses that the connector adds at each pass. */
static void shown_read(struct origin *o, const struct visible *v)
{
    for (size_t i = 0; i < v->n; i++) {
        if (v->connector.n && span_case_has(v->address[i], SPAN("mspop3connector.")))
            continue;
        o->visible ^= v->hash[i];
        o->nvisible++;
    }
}

void guise_read(struct guise *g, const struct observation *o)
{
    const struct subject *s = o->subject;
    *g = (struct guise){.o = o};
    names_read(g);
    if (!g->origin.text)
        return;
    const struct hop *oldest = oldest_hop(&s->path);
    g->oldest = oldest && oldest->by.n ? host_org(oldest->by) : s->client_org;
    g->peer = peer_of(o);
    g->origin.oldest = (uint32_t)sip_hash(s->keys, SIP_HOST, g->oldest);
    g->origin.peer = (uint32_t)sip_hash(s->keys, SIP_HOST, g->peer);
    g->origin.source = s->path.node[0].server_id;
    g->origin.date = s->fp.date.n ? (uint32_t)sip_hash(s->keys, SIP_MISC, s->fp.date) | 1 : 0;
    shown_read(&g->origin, &s->visible);
}

/* ---- evidence ---- */

/* An alias lasts shorter than the record, but with it once it is a storm. */
static bool fresh(const struct record *r, int64_t now, int64_t plain, int64_t duplicated)
{
    int64_t life = r->storm || r->convicted ? INT64_MAX : r->duplicates ? duplicated : plain;
    return now - r->last <= life;
}

static bool any_pickup(const struct path *p)
{
    for (size_t i = 0; i < p->n; i++)
        if (p->node[i].hop && p->node[i].hop->reinjected)
            return true;
    return false;
}

static bool echoes(const struct subject *s)
{
    const struct envelope *e = s->envelope;
    size_t shown = 0;
    if (s->visible.n < SHOWN_MANY)
        return false;
    for (size_t i = 0; i < e->nrecipients; i++)
        shown += visible_find(&s->visible, e->recipients[i].hash) >= 0;
    return e->nrecipients && shown * 10 >= e->nrecipients * ECHO_TENTHS;
}

static bool label_is(struct span domain, struct span label)
{
    /* most domains are told apart without looking for their organisation */
    return span_case_has(domain, label) && span_eq(host_orglabel(domain), label);
}

/* Has an addressee this name, and does the message go to others than those of it? */
static bool addressee_called(const struct subject *s, struct span label)
{
    const struct envelope *e = s->envelope;
    bool shown = false, others = false;
    for (size_t i = 0; i < s->visible.n && !shown; i++)
        shown = label_is(address_domain(s->visible.address[i]), label);
    for (size_t i = 0; i < e->nrecipients && shown && !others; i++)
        others = !label_is(address_domain(e->recipients[i].address), label);
    return shown && others;
}

static void evidence_read(struct guise *g)
{
    const struct subject *s = g->o->subject;
    g->read = true;
    g->pickup = any_pickup(&s->path);
    g->signature = s->visible.connector.n > 0;
    g->echo = echoes(s);
    g->author = host_org(address_domain(s->fp.from));
    struct span author = host_orglabel(g->author);
    const struct span source[] = {host_orglabel(g->oldest), host_orglabel(s->path.node[0].host),
                                  host_orglabel(g->peer)};
    for (size_t i = 0; i < sizeof source / sizeof *source; i++) {
        g->of_author |= span_eq(source[i], author);
        g->of_addressee |= source[i].n && !g->of_addressee && addressee_called(s, source[i]);
    }
    g->of_addressee &= !g->of_author;
}

/* The same people as those of the first copy, apart from a few more? Sets are compared by the XOR
 * of their hashes: what differs is one new hash, or the XOR of two. */
static bool shows_the_same(const struct origin *first, const struct guise *g)
{
    const struct visible *v = &g->o->subject->visible;
    uint64_t rest = first->visible ^ g->origin.visible;
    uint32_t n = g->origin.nvisible;
    if (n < first->nvisible || n - first->nvisible > ADDED_MOST)
        return false;
    if (n == first->nvisible)
        return rest == 0;
    if (n == first->nvisible + 1)
        return visible_find(v, rest) >= 0;
    for (size_t i = 0; i < v->n; i++)
        if (visible_find(v, v->hash[i] ^ rest) > (long)i)
            return true;
    return false;
}

static const char *reissue_words(const struct guise *g, enum join join, const char *evidence)
{
    return arena_printf(g->o->subject->arena,
                        "%s text, author and subject of an earlier message, sent anew: %s",
                        join == JOIN_TEXT ? "the" : "nearly the", evidence);
}

/* Has it the Date of the first copy, and the same many people? A person or a script that sends
 * again writes a new one. But alarms of one second share it as well. */
static bool dated(const struct record *r, const struct guise *g, bool many, bool same)
{
    const struct origin *first = &r->origin, *mine = &g->origin;
    bool moved = mine->source != first->source;
    return many && same && mine->date && mine->date == first->date && !g->of_author &&
           g->o->subject->now - r->first >= (moved ? MINUTE : 10 * MINUTE);
}

/* From where the first copy came as well: then that was a re-issue already. So speaks a relay in
 * front of one faulty server only, and many mails that are honest: it must be the server of an
 * addressee or show the connector, or send to many what it took out of a mailbox; in a storm, not
 * be the machine that began it. */
static bool from_same_source(const struct record *r, const struct guise *g, bool many, bool same)
{
    if (g->of_author || !fresh(r, g->o->subject->now, 6 * HOUR, 6 * HOUR))
        return false;
    if (r->storm && many && (same || g->echo) && g->origin.source != r->origin.source)
        return true;
    if (g->pickup && (g->signature || (many && same)))
        return true;
    return g->of_addressee && (g->signature || (many && (g->pickup || g->echo)));
}

/* The machine that sent the first copy, minutes or hours later: a client that cannot stop, and
 * writes a new Message-ID at each try. It may have the retries that such a client has. */
static struct joining stuck(const struct guise *g)
{
    return (struct joining){
        JOIN_DATE,
        arena_printf(g->o->subject->arena,
                     "the text, author, subject, Date and %u people of an earlier message, from "
                     "the same machine under a new Message-ID",
                     g->origin.nvisible),
        true};
}

/* Few words are a re-issue only with the connector's signature, or if the server of an addressee,
 * not of the author, took them out of a mailbox and shows the same many people. "Backup done" goes
 * to the same dozen from each branch of a firm, through pickups as well. */
static bool terse_reissue(const struct guise *g, bool elsewhere, bool many, bool same)
{
    return g->signature ||
           (g->pickup && many && same && elsewhere && g->of_addressee && !g->of_author);
}

/* Detection.md 2.6: a message with the author, subject and content of an earlier one is a re-issue
 * if somebody else than its author sent it, and there is a sign of how he came by it. */
static struct joining judge_reissue(enum join join, const struct record *r, const struct guise *g)
{
    const struct origin *first = &r->origin, *mine = &g->origin;
    const struct subject *s = g->o->subject;
    struct joining no = {JOIN_OWN, NULL, false}, yes = {join, NULL, false};
    bool elsewhere = mine->oldest != first->oldest && mine->peer != first->peer;
    bool many = mine->nvisible >= SHOWN_MANY, same = shows_the_same(first, g);
    bool of_then = dated(r, g, many, same), moved = mine->source != first->source;
    if (span_eq(g->peer, g->author) || (!elsewhere && g->of_author))
        return no;
    if (terse(&s->fp) && !terse_reissue(g, elsewhere, many, same))
        return no;
    if (join == JOIN_THEME && !many && !(same && mine->nvisible > 1))
        return no;
    if (!elsewhere && !(of_then && moved) && !from_same_source(r, g, many, same))
        return of_then && fresh(r, s->now, 6 * HOUR, 6 * HOUR) ? stuck(g) : no;
    yes.weak = !g->signature && !(g->pickup && (elsewhere || g->of_addressee));
    if (g->signature) {
        yes.why = arena_printf(s->arena,
                               "it shows an address that only the POP3 connector of "
                               "Windows Small Business Server 2003 writes (%.*s)",
                               SPAN_ARG(span_head(s->visible.connector, 96)));
    } else if (g->pickup && (many || (same && mine->nvisible > 1))) {
        yes.why = "it was taken out of a mailbox and sent on (mail pickup service)";
    } else if (of_then && moved) {
        yes.weak = false;
        yes.why = arena_printf(s->arena,
                               "another machine sends it to the same %u people under its old Date",
                               mine->nvisible);
    } else {
        if (elsewhere && g->of_author)
            return no;
        if (g->echo)
            yes.why = arena_printf(
                s->arena, "another relay sends it to those whom To and Cc show, %u of them",
                mine->nvisible);
        else if (many && same)
            yes.why =
                arena_printf(s->arena, "another relay sends it, and it shows the same %u people",
                             mine->nvisible);
        else
            return no;
        yes.weak = !elsewhere || !g->of_addressee;
    }
    yes.why = reissue_words(g, join, yes.why);
    return yes;
}

/* ---- by each way ---- */

static bool same_text(const struct record *r, uint64_t f)
{
    for (unsigned i = 0; i < r->nvariants; i++)
        if (r->variant[i].f == f)
            return true;
    return false;
}

/* A text of the record is exactly the head or the tail of this one: a footer or a banner was added.
 */
static bool longer_text(const struct record *r, const struct subject *s)
{
    const struct fingerprints *fp = &s->fp;
    for (unsigned i = 0; i < r->nvariants; i++) {
        const struct variant *v = &r->variant[i];
        if (v->nwords < MIN_WORDS || v->nwords >= fp->nwords)
            continue;
        if (v->f == fingerprint_f_of(s->keys, fp, v->nwords, false) ||
            v->f == fingerprint_f_of(s->keys, fp, v->nwords, true))
            return true;
    }
    return false;
}

static struct joining judge_chain(const struct record *r, const struct guise *g)
{
    const struct subject *s = g->o->subject;
    struct joining j = {JOIN_CHAIN, NULL, false};
    if (!fresh(r, s->now, 6 * HOUR, 24 * HOUR))
        return j;
    if (same_text(r, s->fp.f))
        j.why =
            "its text, its author and its oldest Received field are those of an earlier message";
    else if (longer_text(r, s))
        j.why = "its author and its oldest Received field are those of an earlier message, and its "
                "text but for something added";
    return j;
}

struct joining alias_joins(enum join join, const struct record *r, struct guise *g)
{
    const struct subject *s = g->o->subject;
    struct joining j = {join, NULL, false};
    switch (join) {
    case JOIN_NAME:
    case JOIN_STAMP:
        if (record_same_content(r, s->keys, &s->fp))
            j.why = join == JOIN_STAMP
                        ? "its X-Breakwater-Trace stamp was written here for this mail"
                        : "an earlier copy of this message had the same new Message-ID";
        return j;
    case JOIN_CHAIN:
        return judge_chain(r, g);
    case JOIN_QUEUE:
        if (fresh(r, s->now, 6 * HOUR, 24 * HOUR) && record_same_content(r, s->keys, &s->fp))
            j.why = "its author and a Received field with its queue id are those of an earlier "
                    "message, and so is most of its text";
        return j;
    case JOIN_TEXT:
    case JOIN_THEME:
        if (!fresh(r, s->now, 24 * HOUR, 7 * 24 * HOUR))
            return j;
        if (join == JOIN_TEXT ? !same_text(r, s->fp.f) : !record_same_content(r, s->keys, &s->fp))
            return j;
        if (!g->read)
            evidence_read(g);
        return judge_reissue(join, r, g);
    default:
        return j;
    }
}

bool join_reissue(enum join join)
{
    return join == JOIN_TEXT || join == JOIN_THEME;
}

const char *join_name(enum join join)
{
    static const char *const name[JOINS] = {"own",   "name", "stamp", "chain",
                                            "chain", "text", "theme", "date"};
    return name[join];
}
