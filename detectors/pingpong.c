/*
 * pingpong.c - two addresses that answer each other, and whether people do that.
 *
 *   a -> b   b -> a   a -> b   b -> a   a -> b      each answers the one before: linked flips,
 *              1        1        2        2         counted for each of the two in an hour
 *
 * A loop is told by what marks machines (RFC 3834 5), by both saying the same again, or by sheer
 * speed; never by how much people write. The first of any exchange flow always: three answers of
 * both sides are six messages.
 * Invariant: a further copy of a message is no answer.
 */
#include "pingpong.h"

#include "window.h"

enum {
    HOUR = 3600 * 1000,
    RECIPIENTS = ABOUT_MAX, /* a message to more is not looked at */
    REMEMBERED = 2 * HOUR,  /* after the last message */
    GAPS = 16,
    OPENING = 16,     /* first words compared */
    GAP_UNIT = 100,   /* ms */
    FAST = 20 * 1000, /* ms between answers: nobody types so fast all the time */
    SHOWN = 64,       /* bytes of an address in the evidence */
};

static const double AUTOMATIC = .4; /* of the last messages of a side */
static const double WEIGHT = .3;    /* of the newest among them */
static const double ANSWERS = .7;   /* of the former text is in the new one: an answer to it */
static const double SAME = .9;      /* the same again */

struct side {
    struct window link; /* answers to the other side */
    struct sketch sketch;
    uint16_t opening[OPENING]; /* of the first words */
    uint8_t nopening;
    uint8_t same;    /* answers in a row that say the same as the one before */
    float automatic; /* share of automatic messages, the newest weigh most */
    int64_t last;    /* ms; 0: it said nothing yet */
};

/* Two addresses. Zero: neither wrote to the other. */
struct pair {
    struct side side[2];   /* the lower address hash, the higher one */
    uint8_t turn;          /* 1 + side of the last message; 0: none */
    uint8_t ngaps, gap_at; /* ring */
    uint16_t gap[GAPS];    /* GAP_UNITs between a message and its answer */
    uint32_t subject_bytes;
    uint64_t message_id, subject; /* of the last message; hashes */
};
_Static_assert(sizeof(struct pair) <= STATE_BYTES_MAX, "a pair is a state");

static struct span writer(const struct subject *s)
{
    return s->fp.from.n ? s->fp.from : s->envelope->reversepath;
}

/* ---- which pairs ---- */

/* A copy this recipient had before, or one recipient named twice. */
static bool further_copy(const struct subject *s, const struct signals *signals, size_t i)
{
    const struct replication_signals *r = &signals->replication;
    for (size_t k = 0; k < i; k++)
        if (s->envelope->recipients[k].hash == s->envelope->recipients[i].hash)
            return true;
    return r->copy ? r->copy[i].copies > 0 : r->known;
}

static size_t about(const struct subject *s, const struct signals *signals,
                    struct about out[ABOUT_MAX])
{
    const struct envelope *e = s->envelope;
    struct span from = writer(s);
    size_t n = 0;
    if (e->nrecipients > RECIPIENTS || from.n == 0)
        return 0;
    uint64_t a = keys_address(s->keys, from, NULL);
    /* what nobody answers with begins no ping-pong: most mail need not be told to other nodes */
    enum about_shared shared = s->talk.automatic || s->talk.reply ? ABOUT_LOOSELY : ABOUT_OWN;
    for (size_t i = 0; i < e->nrecipients; i++) {
        uint64_t b = e->recipients[i].hash;
        if (a == b || further_copy(s, signals, i))
            continue;
        out[n++] = (struct about){.key = sip_pair(s->keys, SIP_MISC, a < b ? a : b, a < b ? b : a),
                                  .shared = shared,
                                  .life = REMEMBERED,
                                  .recipient = i,
                                  .use = a > b};
    }
    return n;
}

/* ---- one step ---- */

static bool contains(const struct sketch *a, const struct sketch *b, double share)
{
    unsigned samples;
    double c = sketch_containment(a, b, &samples);
    return samples >= MIN_SAMPLES && c >= share;
}

/* Is this message an answer to the last one, which went the other way? */
static bool answers(const struct pair *p, const struct subject *s, unsigned d)
{
    const struct conversation *c = &s->talk;
    if (p->turn != 2 - d) /* 1 + the other side */
        return false;
    for (size_t i = 0; i < c->nreferences; i++)
        if (c->reference[i] == p->message_id)
            return true;
    if (p->subject && c->base_hash == p->subject &&
        (c->prefixes || s->fp.subject.n > p->subject_bytes))
        return true;
    return contains(&p->side[1 - d].sketch, &s->fp.sketch, ANSWERS);
}

static uint8_t opening_read(uint16_t out[OPENING], const struct fingerprints *fp)
{
    uint8_t n = 0;
    for (; n < OPENING && n < fp->nwords; n++)
        out[n] = (uint16_t)fp->word[n];
    return n;
}

/* Does this side say what it said last? The text that it answers may come back with every message
 * and grow: so the begin counts as well, where people write something of their own and programs the
 * time of what they quote. One word of it may change: the number of a ticket. */
static bool same_again(const struct side *side, const struct fingerprints *fp)
{
    uint16_t opening[OPENING];
    uint8_t n = opening_read(opening, fp), most = n > side->nopening ? n : side->nopening;
    unsigned equal = 0;
    for (uint8_t i = 0; i < n && i < side->nopening; i++)
        equal += opening[i] == side->opening[i];
    return most && equal + 1u >= most && contains(&side->sketch, &fp->sketch, SAME);
}

static void gap_add(struct pair *p, int64_t ms)
{
    int64_t units = ms < 0 ? 0 : ms / GAP_UNIT;
    p->gap[p->gap_at] = (uint16_t)(units < UINT16_MAX ? units : UINT16_MAX);
    p->gap_at = (uint8_t)((p->gap_at + 1) % GAPS);
    p->ngaps = (uint8_t)(p->ngaps < GAPS ? p->ngaps + 1 : GAPS);
}

/* ms; of the last GAPS answers, the one in the middle. */
static int64_t gap_median(const struct pair *p)
{
    uint16_t sorted[GAPS];
    for (unsigned i = 0; i < p->ngaps; i++) {
        unsigned k = i;
        for (; k > 0 && sorted[k - 1] > p->gap[i]; k--)
            sorted[k] = sorted[k - 1];
        sorted[k] = p->gap[i];
    }
    return p->ngaps ? (int64_t)sorted[p->ngaps / 2] * GAP_UNIT : INT64_MAX;
}

/* Takes the message in; d: its side. true: it is an answer. */
static bool pair_add(struct pair *p, const struct subject *s, unsigned d)
{
    struct side *side = &p->side[d];
    bool linked = answers(p, s, d);
    if (linked) {
        window_add(&side->link, s->now, HOUR, 1);
        gap_add(p, s->now - p->side[1 - d].last);
    }
    bool again = linked && s->now - side->last <= HOUR && same_again(side, &s->fp);
    side->same = (uint8_t)(!again ? 0 : side->same < UINT8_MAX ? side->same + 1 : UINT8_MAX);
    side->sketch = s->fp.sketch;
    side->nopening = opening_read(side->opening, &s->fp);
    side->automatic = (float)((1 - WEIGHT) * side->automatic + WEIGHT * s->talk.automatic);
    side->last = s->now;
    p->turn = (uint8_t)(1 + d);
    p->message_id = s->talk.own;
    p->subject = s->talk.base_hash;
    p->subject_bytes = (uint32_t)s->fp.subject.n;
    return linked;
}

/* ---- what it means ---- */

enum sort { SORT_PEOPLE, SORT_BOTH, SORT_ONE, SORT_SAME, SORT_PLAIN, SORT_FAST };

struct view {
    double flips;  /* of the slower side */
    unsigned same; /* of the side that says it less often; */
    unsigned most; /* of the other one */
    enum sort sort;
};

/* answer: this message is one. What is not is no part of a game, however fast that goes: strangers
 * may play it in the names of two who write to each other. */
static struct view view_of(const struct pair *p, const struct subject *s, bool answer)
{
    const struct site *site = s->site;
    double l0 = window_read(&p->side[0].link, s->now, HOUR);
    double l1 = window_read(&p->side[1].link, s->now, HOUR);
    uint8_t s0 = p->side[0].same, s1 = p->side[1].same;
    struct view v = {
        .flips = l0 < l1 ? l0 : l1, .same = s0 < s1 ? s0 : s1, .most = s0 < s1 ? s1 : s0};
    unsigned marked = p->side[0].automatic > AUTOMATIC;
    marked += p->side[1].automatic > AUTOMATIC;
    if (s->talk.automatic && marked == 2 && v.flips >= site->pingpong_marked)
        v.sort = SORT_BOTH;
    else if (s->talk.automatic && marked && v.flips >= 2 * site->pingpong_marked)
        v.sort = SORT_ONE;
    else if (v.most >= site->pingpong_same && v.same + 1 >= site->pingpong_same)
        v.sort = SORT_SAME;
    else if (answer && v.flips >= 2 * site->pingpong_plain && gap_median(p) < FAST)
        v.sort = SORT_FAST;
    else if (v.flips >= site->pingpong_plain)
        v.sort = SORT_PLAIN;
    return v;
}

static const char *evidence_of(const struct subject *s, const struct pair *p, const struct view *v,
                               struct span recipient)
{
    char from[SHOWN + 1], to[SHOWN + 1];
    span_show(writer(s), from, sizeof from);
    span_show(recipient, to, sizeof to);
    const char *text =
        arena_printf(s->arena, "%s and %s answered each other %.0f times each in the last hour",
                     from, to, v->flips);
    const char *why = s->talk.automatic_why ? s->talk.automatic_why : "";
    switch (v->sort) {
    case SORT_BOTH:
        return arena_printf(s->arena, "%s; both are marked as machines (this mail: %s)", text, why);
    case SORT_ONE:
        return arena_printf(s->arena, "%s; one is marked as a machine (this mail: %s)", text, why);
    case SORT_SAME:
        return arena_printf(s->arena, "%s; they said the same again %u and %u times in a row", text,
                            v->most, v->same);
    case SORT_FAST:
        return arena_printf(s->arena, "%s; half of the answers came within %.0f seconds", text,
                            (double)gap_median(p) / 1000);
    default:
        return text;
    }
}

static void step(void *state, const struct subject *s, const struct about *a,
                 struct signals *signals)
{
    static const enum advice advices[] = {
        [SORT_PEOPLE] = ADVICE_PASS, [SORT_BOTH] = ADVICE_HOLD, [SORT_ONE] = ADVICE_HOLD,
        [SORT_SAME] = ADVICE_HOLD,   [SORT_PLAIN] = ADVICE_TAG, [SORT_FAST] = ADVICE_HOLD,
    };
    struct pingpong_signals *out = &signals->pingpong;
    struct pair *p = state;
    bool answer = pair_add(p, s, a->use);
    struct view v = view_of(p, s, answer);
    enum advice advice = advices[v.sort], worst = ADVICE_PASS;
    for (size_t i = 0; i < out->n; i++)
        worst = out->advice[i] > worst ? (enum advice)out->advice[i] : worst;
    out->pair[a->recipient] = a->key;
    out->advice[a->recipient] = (uint8_t)advice;
    out->n = out->n > a->recipient ? out->n : a->recipient + 1;
    out->automatic = s->talk.automatic;
    if (out->flips < v.flips)
        out->flips = v.flips;
    if (out->same < v.same)
        out->same = v.same;
    if (advice > worst)
        out->evidence = evidence_of(s, p, &v, s->envelope->recipients[a->recipient].address);
}

static bool sound(const void *state)
{
    const struct pair *p = state;
    bool good = p->turn <= 2 && p->ngaps <= GAPS && p->gap_at < GAPS;
    for (unsigned d = 0; d < 2; d++)
        good &= p->side[d].nopening <= OPENING && p->side[d].sketch.n <= SKETCH_MAX;
    return good;
}

const struct detector pingpong_detector = {.name = "pingpong",
                                           .state_bytes = sizeof(struct pair),
                                           .state_version = 1,
                                           .state_sound = sound,
                                           .about = about,
                                           .step = step};
