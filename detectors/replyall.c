/*
 * replyall.c - counts who answers everybody, one conversation at a time.
 *
 *           n >= need/2, 4 writers        n >= need, half of it noise; or n >= 2.5 need
 *   QUIET -------------------------> WATCH ---------------------------------> STORM
 *     ^ ^------- n < .3 need ----------'                                        |
 *     |                                          n < .3 need for 30 min, or 4 h |
 *     '------------- after 4 h ------------- COOLDOWN <-------------------------'
 *                                               '----- half of need -----> STORM
 *
 * n: replies to all in the last hour. A conversation goes by the first Message-ID of References, by
 * Thread-Index, or, for clients that send neither, by subject and recipients: a message goes a step
 * in each of them that it names, and the worst of them speaks.
 * Invariant: a message that was seen before (another transaction, another copy) counts nothing.
 */
#include "replyall.h"

#include <math.h>

#include "window.h"

enum {
    HOUR = 3600 * 1000,
    SENDERS = 64,               /* distinct ones counted in an hour */
    CALM = HOUR / 2,            /* below LOW so long: over */
    REMEMBERED = 7 * 24 * HOUR, /* after the last message */
    SAME_SUBJECT = 24 * HOUR,   /* the same of a conversation that only its subject tells */
    WATCH_SENDERS = 4,
    STORM_SENDERS = 5,
    NEED_LEAST = 10,
    NEED_MOST = 40,
};

static const double NEED_AUDIENCE = 2500, NEED_POWER = .35; /* 10 replies to 2,500 people */
static const double LIST = 3;                               /* lists are busy: so many times need */
static const double NOISY = .6;   /* share of noise, and what need is multiplied by then */
static const double AGAIN = .5;   /* what need is multiplied by in COOLDOWN */
static const double MANY = 2.5;   /* times need: a storm whatever they say */
static const double LOW = .3;     /* of need */
static const double TO_ALL = .8;  /* of the audience: such a reply may be held */
static const double TO_MOST = .5; /* of the audience: such a reply counts */

/* A conversation. Zero: nothing was seen of it. */
struct talk {
    struct window replies, noise;
    int64_t since;               /* ms: begin of the current bucket of senders */
    uint32_t sender[2][SENDERS]; /* in this bucket, in the one before */
    uint32_t nsenders[2];
    uint32_t audience; /* the most people one message of it went to */
    uint32_t state;    /* enum replyall_state */
    int64_t until;     /* ms: when STORM or COOLDOWN ends at the latest */
    int64_t calm;      /* ms: since when there were few replies; 0: there are not */
};
_Static_assert(sizeof(struct talk) <= STATE_BYTES_MAX, "a conversation is a state");

const char *replyall_state_name(enum replyall_state state)
{
    static const char *const names[] = {"quiet", "watch", "storm", "cooldown"};
    return names[state];
}

/* ---- which conversations ---- */

enum use { USE_ID, USE_SUBJECT };

static unsigned audience_of(const struct subject *s)
{
    size_t visible = s->visible.n < LIMIT_VISIBLE ? s->visible.n : s->visible.total;
    size_t n = visible > s->envelope->nrecipients ? visible : s->envelope->nrecipients;
    return n < UINT32_MAX ? (unsigned)n : UINT32_MAX;
}

static uint64_t writer_of(const struct subject *s)
{
    struct span from = s->fp.from.n ? s->fp.from : s->envelope->reversepath;
    return keys_address(s->keys, from, NULL);
}

/* Base subject and recipients. Who answers all is no recipient of his own answer, and the one he
 * answers is: so writer and recipients are one set, and its least member stands for it. One who
 * joins or leaves rarely changes that. */
static uint64_t subject_key(const struct subject *s)
{
    uint64_t least = writer_of(s);
    if (s->visible.n && s->visible.hash[0] < least)
        least = s->visible.hash[0];
    return sip_pair(s->keys, SIP_MISC, s->talk.base_hash, least);
}

static size_t about(const struct subject *s, const struct signals *signals,
                    struct about out[ABOUT_MAX])
{
    const struct conversation *c = &s->talk;
    size_t n = 0;
    (void)signals;
    if (audience_of(s) < s->site->replyall_audience)
        return 0;
    if (c->nreferences || (c->own && !c->reply))
        out[n++] = (struct about){
            .key = c->root, .shared = ABOUT_STRICTLY, .life = REMEMBERED, .use = USE_ID};
    if (c->index)
        out[n++] = (struct about){
            .key = c->index, .shared = ABOUT_STRICTLY, .life = REMEMBERED, .use = USE_ID};
    if (c->reply && c->base_hash && !c->index && !s->message->first[FIELD_REFERENCES])
        out[n++] = (struct about){.key = subject_key(s),
                                  .shared = ABOUT_STRICTLY,
                                  .life = SAME_SUBJECT,
                                  .use = USE_SUBJECT};
    return n;
}

/* ---- one step ---- */

/* Distinct senders in the last hour or, in the first half of a bucket, somewhat more. */
static unsigned senders_add(struct talk *t, int64_t now, uint32_t who)
{
    if (now - t->since >= HOUR) {
        bool next = now - t->since < 2 * HOUR;
        t->nsenders[1] = next ? t->nsenders[0] : 0;
        memcpy(t->sender[1], t->sender[0], sizeof t->sender[1]);
        t->nsenders[0] = 0;
        t->since = next ? t->since + HOUR : now;
    }
    bool known = false;
    for (uint32_t i = 0; i < t->nsenders[0]; i++)
        known |= t->sender[0][i] == who;
    if (!known && t->nsenders[0] < SENDERS)
        t->sender[0][t->nsenders[0]++] = who;
    return t->nsenders[0];
}

static unsigned senders_count(const struct talk *t, int64_t now)
{
    unsigned n = t->nsenders[0];
    if (now - t->since >= HOUR / 2)
        return now - t->since < HOUR ? n : 0;
    for (uint32_t i = 0; i < t->nsenders[1]; i++) {
        bool both = false;
        for (uint32_t k = 0; k < t->nsenders[0]; k++)
            both |= t->sender[0][k] == t->sender[1][i];
        n += !both;
    }
    return n;
}

/* What is known after this message. */
struct view {
    double n, noise, need;
    unsigned senders;
};

static struct view view_at(const struct talk *t, int64_t now, bool list)
{
    struct view v = {.n = window_read(&t->replies, now, HOUR),
                     .noise = window_read(&t->noise, now, HOUR),
                     .senders = senders_count(t, now)};
    double need = 10 * pow(NEED_AUDIENCE / (t->audience ? t->audience : 1), NEED_POWER);
    need = ceil(need < NEED_LEAST ? NEED_LEAST : need > NEED_MOST ? NEED_MOST : need);
    if (list)
        need *= LIST;
    if (v.n > 0 && v.noise >= NOISY * v.n)
        need *= NOISY;
    if (t->state == REPLYALL_COOLDOWN)
        need *= AGAIN;
    v.need = need;
    return v;
}

static bool blows(const struct view *v)
{
    double writers = .35 * v->need > STORM_SENDERS ? .35 * v->need : STORM_SENDERS;
    return v->senders >= writers &&
           ((v->n >= v->need && v->noise >= .5 * v->n) || v->n >= MANY * v->need);
}

/* What ends by time alone. */
static void expire(struct talk *t, int64_t now, int64_t lasts)
{
    if (t->state == REPLYALL_STORM && now > t->until) {
        t->state = REPLYALL_COOLDOWN;
        t->until += lasts;
        t->calm = 0;
    }
    if (t->state == REPLYALL_COOLDOWN && now > t->until)
        t->state = REPLYALL_QUIET;
}

static void ebb(struct talk *t, const struct view *v, int64_t now, int64_t lasts)
{
    if (v->n >= LOW * v->need)
        t->calm = 0;
    else if (t->calm == 0)
        t->calm = now;
    if (t->calm == 0 || now - t->calm <= CALM)
        return;
    t->state = REPLYALL_COOLDOWN;
    t->until = now + lasts;
    t->calm = 0;
}

static void advance(struct talk *t, const struct view *v, int64_t now, int64_t lasts)
{
    if (t->state == REPLYALL_STORM) {
        ebb(t, v, now, lasts);
    } else if (blows(v)) {
        t->state = REPLYALL_STORM;
        t->until = now + lasts;
        t->calm = 0;
    } else if (t->state == REPLYALL_QUIET && v->n >= .5 * v->need && v->senders >= WATCH_SENDERS) {
        t->state = REPLYALL_WATCH;
    } else if (t->state == REPLYALL_WATCH && v->n < LOW * v->need) {
        t->state = REPLYALL_QUIET;
    }
}

/* ---- what is said ---- */

static const char *evidence_of(struct arena *a, const struct talk *t, const struct view *v)
{
    const char *text = arena_printf(
        a,
        "%.0f repl%s to all %u people of this conversation in the last hour, by %u%s writer%s; "
        "%.0f of them say%s little",
        v->n, v->n < 1.5 ? "y" : "ies", t->audience, v->senders,
        v->senders >= SENDERS ? " or more" : "", v->senders == 1 ? "" : "s", v->noise,
        v->noise >= .5 && v->noise < 1.5 ? "s" : "");
    if (t->state == REPLYALL_WATCH)
        return arena_printf(a, "%s; a storm begins at %.0f", text, ceil(v->need));
    if (t->state == REPLYALL_COOLDOWN)
        return arena_printf(a, "%s; a storm of them is just over, the next begins at %.0f", text,
                            ceil(v->need));
    return text;
}

/* Which state speaks where a message belongs to several. */
static unsigned rank(uint32_t state)
{
    static const uint8_t ranks[] = {
        [REPLYALL_QUIET] = 0, [REPLYALL_COOLDOWN] = 1, [REPLYALL_WATCH] = 2, [REPLYALL_STORM] = 3};
    return ranks[state];
}

static void tell(struct replyall_signals *out, const struct talk *t, const struct view *v,
                 const struct subject *s, const struct about *a)
{
    bool first = out->conversation == 0;
    if (!first &&
        (rank(t->state) < rank(out->state) || (t->state == out->state && v->n <= out->replies)))
        return;
    out->conversation = a->key;
    out->state = (enum replyall_state)t->state;
    out->to_all = s->talk.reply && audience_of(s) >= TO_ALL * t->audience;
    out->replies = v->n;
    out->senders = v->senders;
    out->noise = v->noise;
    out->need = v->need;
    out->audience = t->audience;
    out->evidence = t->state == REPLYALL_QUIET ? NULL : evidence_of(s->arena, t, v);
}

static void step(void *state, const struct subject *s, const struct about *a,
                 struct signals *signals)
{
    struct talk *t = state;
    unsigned audience = audience_of(s);
    int64_t lasts = s->site->replyall_lasts;
    bool list = s->fp.list_id.n > 0;
    if (t->audience < audience)
        t->audience = audience;
    expire(t, s->now, lasts);
    bool counts = s->talk.reply && !signals->replication.known && audience >= TO_MOST * t->audience;
    if (counts) {
        window_add(&t->replies, s->now, HOUR, 1);
        window_add(&t->noise, s->now, HOUR, s->talk.noise);
        senders_add(t, s->now, (uint32_t)writer_of(s));
    }
    struct view v = view_at(t, s->now, list);
    if (counts)
        advance(t, &v, s->now, lasts);
    tell(&signals->replyall, t, &v, s, a);
}

static bool sound(const void *state)
{
    const struct talk *t = state;
    return t->nsenders[0] <= SENDERS && t->nsenders[1] <= SENDERS && t->state <= REPLYALL_COOLDOWN;
}

const struct detector replyall_detector = {.name = "replyall",
                                           .state_bytes = sizeof(struct talk),
                                           .state_version = 1,
                                           .state_sound = sound,
                                           .about = about,
                                           .step = step};
