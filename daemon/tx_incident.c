/*
 * tx_incident.c - the storm a message belongs to: asked before its copies are held, for held copies
 * carry its id; counted when it is known what became of them.
 *
 * Most mail is asked nothing: only what is to be held, belongs to a storm or alarms a detector.
 */
#include "loop.h"
#include "tx.h"
#include "tx_own.h"

enum { NAMES = 16 };

/* What is said about a message, and the room the note's lists take. */
struct telling {
    struct incident_note note;
    struct incident_server server[NAMES], convicted[NAMES];
};

/* ---- which kind ---- */

static bool replies(const struct replyall_signals *r)
{
    return r->conversation && r->to_all && r->state >= REPLYALL_WATCH;
}

/* The pair of which the detector advises most. */
static size_t pair_of(const struct pingpong_signals *p)
{
    size_t most = 0;
    for (size_t i = 1; i < p->n; i++)
        most = p->advice[i] > p->advice[most] ? i : most;
    return most;
}

static bool plays(const struct pingpong_signals *p, enum advice least)
{
    size_t i = pair_of(p);
    return p->n && p->pair[i] && p->advice[i] >= least;
}

/* Further copies are replication, whatever else they are; new mail that is held belongs to the
 * detector that says so; and an alarm is worth an incident though all passes. false: none. */
static bool find_kind(const struct tx *tx, enum incident_kind *kind)
{
    const struct signals *s = &tx->signals;
    bool held = tx->verdict.advised[DISP_HOLD];
    if (s->replication.storm || (held && s->replication.duplicates))
        *kind = INCIDENT_REPLICATION;
    else if (held && replies(&s->replyall) && s->replyall.state == REPLYALL_STORM)
        *kind = INCIDENT_REPLYALL;
    else if (held && plays(&s->pingpong, ADVICE_HOLD))
        *kind = INCIDENT_PINGPONG;
    else if (held)
        *kind = s->loop.evidence ? INCIDENT_LOOP : INCIDENT_RULE;
    else if (replies(&s->replyall))
        *kind = INCIDENT_REPLYALL;
    else if (plays(&s->pingpong, ADVICE_TAG))
        *kind = INCIDENT_PINGPONG;
    else if (s->flood.level >= FLOOD_ALERT)
        *kind = INCIDENT_FLOOD;
    else
        return false;
    return true;
}

/* A further copy is harmless when one has passed, and no loss while one is on its way; all else is
 * new mail to its recipient (DESIGN.md 5). */
enum hold_kind tx_hold_kind(const struct tx *tx, size_t i)
{
    const struct signals *s = &tx->signals;
    const struct copy_signal *c = &s->replication.copy[i];
    if (tx->verdict.copy[i].entry)
        return HOLD_EXPLAINED;
    bool confirmed = s->replication.storm || s->replication.convicted;
    if (c->passed || (c->copies && c->advice == ADVICE_HOLD))
        return confirmed ? HOLD_EXPLAINED : HOLD_HARMLESS;
    if (confirmed && s->loop.evidence) /* a first copy, but it has been in a circle */
        return HOLD_EXPLAINED;
    if (loop_speaks(&s->loop, c->copies > 0))
        return HOLD_LOOP;
    if (s->replyall.state == REPLYALL_STORM && s->replyall.to_all)
        return HOLD_REPLYALL;
    if (i < s->pingpong.n && s->pingpong.advice[i] == ADVICE_HOLD)
        return HOLD_PINGPONG;
    return HOLD_HARMFUL;
}

enum watch_kind tx_refusal_kind(const struct tx *tx)
{
    const struct signals *s = &tx->signals;
    if (s->replication.storm || s->replication.convicted)
        return WATCH_KINDS;
    bool flood = s->flood.defer && !tx->verdict.count[DISP_REJECT];
    return flood || tx->failure ? WATCH_FLOODS : WATCH_REFUSALS;
}

/* ---- the note ---- */

/* To and Cc as one number, whatever their order; few of them tell nothing. */
static uint64_t visible_set(const struct visible *v)
{
    uint64_t set = v->n * UINT64_C(0x9e3779b97f4a7c15);
    for (size_t i = 0; i < v->n; i++)
        set ^= v->hash[i];
    return v->n >= INCIDENT_VISIBLE ? set : 0;
}

/* Servers on its path that replicated other mail a short while ago. */
static void name_known(const struct tx *tx, struct telling *t)
{
    const struct path *p = &tx->subject.path;
    for (size_t i = 0; i < p->n && t->note.nservers < NAMES; i++)
        if (tx->observation.known && tx->observation.known[i])
            t->server[t->note.nservers++] =
                (struct incident_server){p->node[i].server_id, p->node[i].server};
    t->note.server = t->server;
}

/* Servers convicted for this message; those of earlier copies are known by id alone. */
static void name_convicted(const struct tx *tx, struct telling *t)
{
    const struct replication_signals *r = &tx->signals.replication;
    if (r->conviction && r->blamed_id)
        t->convicted[t->note.nconvicted++] = (struct incident_server){r->blamed_id, r->blamed};
    for (size_t i = 0; i < r->nlearned && t->note.nconvicted < NAMES; i++)
        t->convicted[t->note.nconvicted++] = (struct incident_server){.id = r->learned[i]};
    t->note.convicted = t->convicted;
}

/* The first that holds a copy, or would. */
static const char *holding_rule(const struct tx *tx)
{
    for (size_t i = 0; i < tx->verdict.n; i++)
        if (tx->verdict.copy[i].advised == DISP_HOLD && tx->verdict.copy[i].rule_name)
            return tx->verdict.copy[i].rule_name;
    return "unknown";
}

/* What the detectors say of this kind. */
static void tell_kind(const struct tx *tx, struct incident_note *n)
{
    const struct signals *s = &tx->signals;
    n->storm = s->replication.storm;
    if (n->kind == INCIDENT_REPLYALL) {
        n->about = s->replyall.conversation;
        n->evidence = s->replyall.evidence;
        n->storm = s->replyall.state == REPLYALL_STORM;
        n->alert = true;
    } else if (n->kind == INCIDENT_PINGPONG) {
        n->about = s->pingpong.pair[pair_of(&s->pingpong)];
        n->evidence = s->pingpong.evidence;
        n->alert = true;
    } else if (n->kind == INCIDENT_FLOOD) {
        n->about = s->flood.relay;
        n->evidence = s->flood.evidence;
        n->alert = true;
        n->named = s->flood.level == FLOOD_THROTTLE && s->flood.learned;
    } else if (n->kind == INCIDENT_RULE) {
        const char *rule = holding_rule(tx);
        n->about = sip_hash(tx->keys, SIP_MISC, span_str(rule)) | 1;
        n->evidence = arena_printf(tx->arena, "Rule %s says so, and no detector does.", rule);
    } else {
        n->evidence = s->loop.evidence;
    }
}

/* "host[address]", as relays are called. */
static struct span peer_name(const struct subject *s)
{
    char ip[IPADDR_TEXT];
    ipaddr_print(&s->envelope->client, ip);
    return span_str(
        arena_printf(s->arena, "%.*s[%s]", SPAN_ARG(span_head(s->client_host, SERVER_NAME)), ip));
}

static void make_note(const struct tx *tx, enum incident_kind kind, struct telling *t)
{
    const struct replication_signals *r = &tx->signals.replication;
    const struct subject *s = &tx->subject;
    bool tells = tx->fp.nwords >= MIN_WORDS || tx->fp.nattachments;
    t->note = (struct incident_note){
        .k = r->k,
        .kind = kind,
        .now = tx->now,
        .recipients_visible = (uint32_t)s->visible.n,
        .from = tx->fp.from,
        .subject = tx->fp.subject,
        .message_id = tx->fp.message_id,
        .relay = r->blamed.n ? r->blamed : tx->signals.loop.relay,
        .rested = r->rested,
        .content = tells ? tx->fp.f : 0,
        .own = s->talk.own,
        .reference = s->talk.reference,
        .nreferences = s->talk.nreferences,
        .visible = visible_set(&s->visible),
    };
    if (kind == INCIDENT_FLOOD)
        t->note.relay = peer_name(s);
    tell_kind(tx, &t->note);
    name_known(tx, t);
    name_convicted(tx, t);
}

void tx_place(struct tx *tx)
{
    struct telling t = {0};
    enum incident_kind kind;
    if (!find_kind(tx, &kind))
        return;
    make_note(tx, kind, &t);
    t.note.would_hold = tx->verdict.advised[DISP_HOLD];
    if (tx->pipeline->incidents)
        (void)incidents_place(tx->pipeline->incidents, &t.note, tx->incident);
    else
        incident_print(&t.note.k, tx->incident);
}

/* ---- what became of it ---- */

static void say(const struct tx *tx, const struct incident_note *n, const struct incident_news *w)
{
    static const char *const names[INCIDENT_EVENTS] = {"resurfaced", "opened", "joined", "storm"};
    for (unsigned e = 0; e < INCIDENT_EVENTS; e++) {
        struct logline l;
        if (!(w->events & 1u << e))
            continue;
        log_begin(&l, LOG_LEVEL_NOTICE, "incident", span_str(w->id));
        log_str(&l, "event", names[e]);
        if (e == INCIDENT_RESURFACED)
            log_str(&l, "after", w->slept);
        if (e == INCIDENT_JOINED)
            log_str(&l, "because", w->joined);
        log_str(&l, "kind", incident_kind_text(n->kind));
        log_span(&l, "from", tx->fp.from);
        log_span(&l, "subject", tx->fp.subject);
        log_span(&l, "relay", n->relay);
        log_str(&l, "conviction", tx->signals.replication.conviction);
        log_num(&l, "copies", (long long)w->copies);
        if (w->messages > 1)
            log_num(&l, "messages", w->messages);
        log_end(&l);
    }
}

void tx_incident_note(struct tx *tx)
{
    const struct verdict *v = &tx->verdict;
    struct telling t = {0};
    struct incident_news news;
    enum incident_kind kind;
    if (!tx->pipeline->incidents || !tx->incident[0] || !find_kind(tx, &kind))
        return;
    make_note(tx, kind, &t);
    t.note.passed = v->count[DISP_PASS];
    t.note.tagged = v->count[DISP_TAG];
    t.note.deferred = v->count[DISP_THROTTLE];
    t.note.held = v->count[DISP_HOLD];
    t.note.would_hold = v->mode == MODE_MONITOR ? v->advised[DISP_HOLD] : 0;
    if (incidents_note(tx->pipeline->incidents, &t.note, &news))
        say(tx, &t.note, &news);
}
