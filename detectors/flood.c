/*
 * flood.c - see flood.h. There is no clock: a message in a later minute closes the minutes before
 * it.
 *
 * A peer that has sent mail in less than a day's worth of hours is new: it may be a newsletter's
 * provider, or a large relay that was moved here. It is taken as it is, alarm or not, and only
 * deferred for further copies among its mail. Later on an alarm teaches nothing.
 *
 * Two rules are ours and not in detection.md, whose alarm fires once or twice a month for a relay
 * whose newsletter comes out on Mondays: what is sent in the busiest hour of each day is no flood
 * in another one; and the alarm of an hour with few messages alarms nobody.
 *
 * Invariants: a further copy is never deferred, and no message for longer than half an hour in all.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "flood.h"

enum {
    PRIOR = 2,          /* messages a minute of a relay nothing is known of ... */
    PRIOR_WEIGHT = 120, /* ... as if it had been watched for so many minutes */
    WEIGHT_MAX = 2000,
    RATIO = 10,         /* a flood: at least ten times as many as usual */
    ALARM = 14,         /* excess that raises the alarm; a quarter of it keeps it up */
    ALARM_HOUR = 300,   /* no alarm over fewer messages an hour */
    ALARM_LAST5 = 40,   /* nor when the last 5 minutes are below so many usual ones */
    FLOOD_LAST5 = 100,  /* throttle: 20 times the usual, for 5 minutes */
    ALARM_BUSIEST = 50, /* both: and 10 times, or 12 times, what is usual in its busiest hour */
    FLOOD_BUSIEST = 60,
    EXCESS_MAX = 200,
    IDLE_MAX = 24 * 60, /* minutes */
    FEW_MAX = 65535,
};
static const double LEARN = 1.0 / (14 * 60), LEARN_PHI = .002, PHI_MIN = 1.5, PHI_MAX = 60;
static const double LOG_RATIO = 2.302585092994046;
static const double SHARE_DUPLICATES = .2, SHARE_CONTENT = .5;

/* ---- the rate ---- */

void rate_begin(struct rate *r)
{
    *r = (struct rate){.phi = 8};
    for (unsigned h = 0; h < RATE_HOURS; h++) {
        r->base[h] = PRIOR;
        r->weight[h] = PRIOR_WEIGHT;
    }
    r->usual = PRIOR;
}

static unsigned hour_of(int64_t minute)
{
    return (unsigned)(minute / 60 % RATE_HOURS);
}

static double usual_at(const struct rate *r, unsigned h)
{
    double lam = .5 * r->base[h] + .25 * r->base[(h + RATE_HOURS - 1) % RATE_HOURS] +
                 .25 * r->base[(h + 1) % RATE_HOURS];
    return lam > .05 ? lam : .05;
}

static double between(double x, double least, double most)
{
    return x < least ? least : x > most ? most : x;
}

/* Writes a minute into the ring. */
static void enter(struct rate *r, int64_t minute, uint32_t x, uint32_t duplicates)
{
    unsigned at = (unsigned)(minute % RATE_MINUTES);
    r->sum -= r->count[at];
    r->further -= r->duplicates[at];
    r->count[at] = (uint16_t)(x < FEW_MAX ? x : FEW_MAX);
    r->duplicates[at] = (uint16_t)(duplicates < FEW_MAX ? duplicates : FEW_MAX);
    r->sum += r->count[at];
    r->further += r->duplicates[at];
    r->last5 = 0;
    for (unsigned i = 0; i < 5; i++)
        r->last5 += r->count[(at + RATE_MINUTES - i) % RATE_MINUTES];
}

static void learn_minute(struct rate *r, unsigned h, double x, double lam)
{
    double share = 1.0 / (r->weight[h] + 1), most = RATIO * lam + 10;
    double clipped = x < most || r->hours < RATE_LEARNED ? x : most;
    if (r->weight[h] < WEIGHT_MAX)
        r->weight[h]++;
    double off = clipped - lam;
    r->base[h] += (share > LEARN ? share : LEARN) * (clipped - r->base[h]);
    r->phi += LEARN_PHI * (off * off / (lam > .5 ? lam : .5) - r->phi);
    r->phi = between(r->phi, PHI_MIN, PHI_MAX);
}

static enum flood_level level_of(const struct rate *r)
{
    double busiest = 0;
    for (unsigned h = 0; r->alarm && h < RATE_HOURS; h++)
        busiest = r->base[h] > busiest ? r->base[h] : busiest;
    if (!r->alarm || r->last5 < ALARM_BUSIEST * busiest)
        return FLOOD_NONE;
    return r->last5 >= FLOOD_LAST5 * r->usual && r->last5 >= FLOOD_BUSIEST * busiest
               ? FLOOD_THROTTLE
               : FLOOD_ALERT;
}

enum flood_level rate_minute(struct rate *r, int64_t minute, uint32_t x, uint32_t duplicates)
{
    unsigned h = hour_of(minute);
    double lam = usual_at(r, h), n = x;
    enter(r, minute, x, duplicates);
    r->usual = lam;
    r->excess = between(r->excess + (n * LOG_RATIO - (RATIO - 1) * lam) / r->phi, 0, EXCESS_MAX);
    r->alarm = r->alarm
                   ? r->excess > ALARM / 4.0
                   : r->excess > ALARM && r->sum >= ALARM_HOUR && r->last5 >= ALARM_LAST5 * lam;
    if (!r->alarm || r->hours < RATE_LEARNED)
        learn_minute(r, h, n, lam);
    if (r->hours < RATE_LEARNED && x && minute / 60 != r->hour) {
        r->hour = minute / 60;
        r->hours++;
    }
    return level_of(r);
}

/* m minutes of zero, of one hour, at once: what learn_minute() would come to. */
static void learn_zeros(struct rate *r, unsigned h, int64_t m, double lam)
{
    int64_t slow = (int64_t)(1 / LEARN) - 1; /* from this weight on the share is LEARN */
    int64_t fast = slow > r->weight[h] ? slow - r->weight[h] : 0;
    fast = fast < m ? fast : m;
    r->base[h] *= (double)r->weight[h] / (double)(r->weight[h] + fast);
    r->base[h] *= pow(1 - LEARN, (double)(m - fast));
    r->weight[h] = (uint16_t)between((double)(r->weight[h] + m), 0, WEIGHT_MAX);
    double aim = lam * lam / (lam > .5 ? lam : .5);
    r->phi = between(aim + (r->phi - aim) * pow(1 - LEARN_PHI, (double)m), PHI_MIN, PHI_MAX);
}

/* m idle minutes of one hour, after an hour of them. */
static void idle_hour(struct rate *r, unsigned h, int64_t m)
{
    double lam = usual_at(r, h), fall = (RATIO - 1) * lam / r->phi;
    double left = (r->excess - ALARM / 4.0) / fall; /* minutes until the alarm is over */
    r->excess = between(r->excess - (double)m * fall, 0, EXCESS_MAX);
    r->usual = lam;
    if (r->alarm && left > (double)m)
        return;
    if (r->alarm && left >= 1)
        m -= (int64_t)left;
    r->alarm = false;
    learn_zeros(r, h, m, lam);
}

void rate_idle(struct rate *r, int64_t minute, int64_t n)
{
    bool absent = n > IDLE_MAX;
    int64_t end = minute + (absent ? IDLE_MAX : n);
    for (int64_t hour = minute + RATE_MINUTES; minute < end && minute < hour; minute++)
        rate_minute(r, minute, 0, 0);
    while (minute < end) {
        int64_t m = 60 - minute % 60;
        m = m < end - minute ? m : end - minute;
        idle_hour(r, hour_of(minute), m);
        minute += m;
    }
    if (absent) {
        r->excess = 0;
        r->alarm = false;
    }
}

/* ---- one peer ---- */

enum { TEXTS = 8, RECENT = 8 };

/* A peer's address, or its network. */
struct peer {
    struct rate rate;
    bool begun;                /* false: nothing is known */
    int64_t minute;            /* being counted */
    uint32_t now, now_further; /* messages in it, further copies among them */
    enum flood_level level;    /* by the rate alone */
    /* The commonest text of about the last hour (Misra and Gries 1982): each share is the least it
     * can be. */
    double texts;
    struct {
        uint64_t f;
        double n;
    } text[TEXTS];
    double replicating;       /* SPRT: 0.2 % of its messages come again, or 80 % */
    uint32_t counted[RECENT]; /* messages that spoke against it, the latest */
    uint32_t ncounted;
    int64_t arrival;    /* ms: theoretical arrival time of the GCRA */
    int64_t deferring;  /* hour in which ... */
    uint32_t deferrals; /* ... so many were deferred */
};
_Static_assert(sizeof(struct peer) <= STATE_BYTES_MAX, "a state has its limit");

static void texts_age(struct peer *p, int64_t minutes)
{
    double left = minutes < 10 * 60 ? pow(59.0 / 60, (double)minutes) : 0;
    p->texts *= left;
    for (unsigned i = 0; i < TEXTS; i++)
        p->text[i].n *= left;
}

static void texts_add(struct peer *p, uint64_t f)
{
    unsigned least = 0;
    p->texts++;
    for (unsigned i = 0; i < TEXTS; i++) {
        if (p->text[i].f == f && p->text[i].n > 0) {
            p->text[i].n++;
            return;
        }
        if (p->text[i].n < p->text[least].n)
            least = i;
    }
    if (p->text[least].n <= 0) {
        p->text[least].f = f;
        p->text[least].n = 1;
        return;
    }
    double give = p->text[least].n < 1 ? p->text[least].n : 1;
    for (unsigned i = 0; i < TEXTS; i++)
        p->text[i].n -= give;
}

static double commonest(const struct peer *p)
{
    double most = 0;
    for (unsigned i = 0; i < TEXTS; i++)
        most = p->text[i].n > most ? p->text[i].n : most;
    return p->texts > 0 ? most / p->texts : 0;
}

/* Closes the minute that was counted, and those after it in which nothing came. */
static void close_minutes(struct peer *p, int64_t minute)
{
    if (p->minute - minute > IDLE_MAX) { /* the clock was wrong, and was put right */
        p->minute = minute;
        p->now = p->now_further = 0;
    }
    if (minute <= p->minute) /* time runs backwards: it counts as now */
        return;
    p->level = rate_minute(&p->rate, p->minute, p->now, p->now_further);
    if (minute - p->minute > 1) {
        rate_idle(&p->rate, p->minute + 1, minute - p->minute - 1);
        p->level = level_of(&p->rate);
    }
    texts_age(p, minute - p->minute);
    p->minute = minute;
    p->now = p->now_further = 0;
}

/* ---- replicating ---- */

enum { SUSPECTED_AT_MOST = 50 };
static const double SPRT_DUPLICATE = 5.99, SPRT_FIRST = 1.61, SPRT_SURE = 13.8;

/* A message of which copies come again and again speaks once. */
static bool counted(struct peer *p, const struct key *k)
{
    uint32_t id;
    memcpy(&id, k->byte, sizeof id);
    for (unsigned i = 0; i < RECENT; i++)
        if (p->counted[i] == id)
            return true;
    p->counted[p->ncounted++ % RECENT] = id;
    return false;
}

static bool unexplained(const struct replication_signals *r, size_t n)
{
    for (size_t i = 0; r->copy && i < n; i++)
        if (r->copy[i].relation == REL_DETOUR || r->copy[i].relation == REL_FORK)
            return true;
    return false;
}

static void weigh_copies(struct peer *p, const struct subject *s,
                         const struct replication_signals *r)
{
    if (!r->duplicates)
        p->replicating = between(p->replicating - SPRT_FIRST, 0, SUSPECTED_AT_MOST);
    else if (unexplained(r, s->envelope->nrecipients) && !counted(p, &r->k))
        p->replicating = between(p->replicating + SPRT_DUPLICATE, 0, SUSPECTED_AT_MOST);
}

/* ---- deferring ---- */

enum { TOLERANCE = 60 * 1000, DEFERRALS = 16384 };
static const int64_t DEFER_MS = 30 * 60 * 1000, DEFERRED_LIFE = 24 * 3600 * 1000;

/* GCRA (ITU-T I.371) at three times what is usual: is this message beyond it? One that is takes
 * nothing from those that follow. At most DEFERRALS an hour, for each has to be remembered. */
static bool beyond(struct peer *p, int64_t now)
{
    int64_t each = (int64_t)(60000 / (3 * p->rate.usual));
    int64_t next = (p->arrival > now ? p->arrival : now) + each;
    if (next - now <= (each > TOLERANCE ? each : TOLERANCE)) {
        p->arrival = next;
        return false;
    }
    if (now / 3600000 != p->deferring) {
        p->deferring = now / 3600000;
        p->deferrals = 0;
    }
    return p->deferrals < DEFERRALS && p->deferrals++ < DEFERRALS;
}

/* ---- words ---- */

static const char *with_commas(struct arena *a, double n)
{
    char digits[32], out[48];
    size_t at = 0, len = (size_t)snprintf(digits, sizeof digits, "%.0f", n);
    for (size_t i = 0; i < len; i++) {
        if (i && (len - i) % 3 == 0)
            out[at++] = ',';
        out[at++] = digits[i];
    }
    return arena_str(a, span_of(out, at));
}

static const char *amount(struct arena *a, double n)
{
    return n < 9.95 ? arena_printf(a, "%.1f", n) : with_commas(a, n);
}

static const char *evidence(struct arena *a, const struct flood_signals *f, bool network)
{
    const char *duplicates = "", *text = "", *who = network ? "its network sent " : "";
    if (f->duplicates >= SHARE_DUPLICATES)
        duplicates = arena_printf(a, "; %.0f %% of them further copies", 100 * f->duplicates);
    if (f->one_content >= SHARE_CONTENT)
        text = arena_printf(a, "; %.0f %% of them the same text", 100 * f->one_content);
    if (f->level == FLOOD_NONE)
        return arena_printf(a,
                            "it brings further copies of one message after the other; %s "
                            "messages in the last hour%s",
                            with_commas(a, f->hour), duplicates);
    return arena_printf(a,
                        "%s%s messages a minute in the last 5 minutes where %s are usual at this "
                        "hour (%s times); %s in the last hour%s%s%s",
                        who, amount(a, f->rate), amount(a, f->baseline),
                        with_commas(a, f->rate / f->baseline), with_commas(a, f->hour), duplicates,
                        text, f->learned ? "" : "; it has not sent mail for a day yet");
}

/* ---- the detector ---- */

enum flood_use { USE_ADDRESS, USE_NETWORK };
static const int64_t LIFE = 15LL * 86400 * 1000;

/* Only a name that the MTA has found for the address counts; a HELO is anybody's word. */
static bool looked_at(const struct subject *s)
{
    const struct envelope *e = s->envelope;
    struct span name = span_trim(e->client_name);
    bool named = name.n && name.p[0] != '[' && !span_case_eq(name, SPAN("unknown"));
    return e->client.family && !site_trusts_addr(s->site, &e->client) &&
           !(named && site_trusts_host(s->site, s->client_host));
}

static uint64_t peer_key(const struct subject *s, enum flood_use use)
{
    const struct ipaddr *a = &s->envelope->client;
    size_t whole = use == USE_ADDRESS ? 16 : a->family == 4 ? 15 : 6;
    uint8_t bytes[17] = {0};
    memcpy(bytes, a->byte, whole);
    bytes[16] = (uint8_t)use;
    return sip_hash(s->keys, SIP_MISC, span_of(bytes, sizeof bytes));
}

static size_t about(const struct subject *s, const struct signals *signals,
                    struct about out[ABOUT_MAX])
{
    (void)signals;
    if (!looked_at(s))
        return 0;
    for (enum flood_use use = USE_ADDRESS; use <= USE_NETWORK; use++)
        out[use] = (struct about){.key = peer_key(s, use), .life = LIFE, .use = use};
    return 2;
}

static struct flood_signals read_peer(const struct peer *p)
{
    double hour = p->rate.sum + p->now, further = p->rate.further + p->now_further;
    struct flood_signals f = {.level = p->level,
                              .rate = p->rate.last5 / 5.0,
                              .baseline = p->rate.usual,
                              .hour = hour,
                              .duplicates = hour > 0 ? further / hour : 0,
                              .one_content = commonest(p),
                              .learned = p->rate.hours >= RATE_LEARNED,
                              .replicating = p->replicating > SPRT_SURE};
    bool copies = f.duplicates >= SHARE_DUPLICATES;
    if (hour < ALARM_HOUR) /* an alarm that is fading out alarms nobody */
        f.level = FLOOD_NONE;
    if (f.level == FLOOD_ALERT && (copies || f.one_content >= SHARE_CONTENT))
        f.level = FLOOD_THROTTLE;
    if (f.level == FLOOD_THROTTLE && !f.learned && !copies)
        f.level = FLOOD_ALERT;
    return f;
}

static void step_peer(struct peer *p, const struct subject *s, const struct signals *signals)
{
    const struct replication_signals *r = &signals->replication;
    int64_t minute = s->now > 0 ? s->now / 60000 : 0;
    if (!p->begun) {
        rate_begin(&p->rate);
        p->begun = true;
        p->minute = minute;
    }
    close_minutes(p, minute);
    p->now++;
    p->now_further += r->duplicates > 0;
    texts_add(p, s->fp.f);
    weigh_copies(p, s, r);
}

static void step(void *state, const struct subject *s, const struct about *a,
                 struct signals *signals)
{
    struct peer *p = state;
    struct flood_signals *out = &signals->flood;
    step_peer(p, s, signals);
    struct flood_signals f = read_peer(p);
    if (a->use == USE_NETWORK) {
        if (f.level == FLOOD_NONE || out->level != FLOOD_NONE)
            return;
        out->level = f.level = FLOOD_ALERT;
        out->evidence = evidence(s->arena, &f, true);
        return;
    }
    *out = f;
    out->relay = a->key;
    if (f.level == FLOOD_THROTTLE && !signals->replication.duplicates)
        out->defer = beyond(p, s->now);
    if (f.level != FLOOD_NONE || f.replicating)
        out->evidence = evidence(s->arena, &f, false);
}

/* When was this message deferred first? It may be tried again from another address near by. */
static struct tally ask_deferred(const struct subject *s)
{
    uint64_t k = s->fp.f; /* without both, the next try has another K */
    if (s->fp.message_id.n || s->fp.date.n)
        memcpy(&k, s->fp.k.byte, sizeof k);
    return (struct tally){.kind = TALLY_MARK,
                          .key = sip_pair(s->keys, SIP_MISC, k, peer_key(s, USE_NETWORK)),
                          .length = DEFERRED_LIFE};
}

static void count(const struct subject *s, struct tallies *asks)
{
    if (looked_at(s))
        tallies_add(asks, s->arena, ask_deferred(s));
}

static void judge(const struct subject *s, const struct tallies *answers, struct signals *signals)
{
    struct flood_signals *f = &signals->flood;
    if (answers->n)
        f->deferred = (int64_t)answers->t[0].answer;
    if (f->deferred && s->now - f->deferred >= DEFER_MS)
        f->defer = false;
}

static void learn(const struct subject *s, const struct signals *signals, struct tallies *adds)
{
    if (signals->flood.defer && !signals->flood.deferred)
        tallies_add(adds, s->arena, ask_deferred(s));
}

const struct detector flood_detector = {.name = "flood",
                                        .count = count,
                                        .judge = judge,
                                        .learn = learn,
                                        .state_bytes = sizeof(struct peer),
                                        .state_version = 1,
                                        .about = about,
                                        .step = step};
