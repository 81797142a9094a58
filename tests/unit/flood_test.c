/*
 * flood_test.c - the rate against a literal port of the reference, its borders, the evaluation of
 * detection.md 9, and what one message of a peer is told.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "flood.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* ---- chance ---- */

static uint64_t seed;

static double chance(void) /* 0 < . < 1 */
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return ((double)(seed >> 11) + .5) / 9007199254740992.0;
}

static uint32_t poisson(double lam)
{
    if (lam > 30) {
        double normal = sqrt(-2 * log(chance())) * cos(6.283185307179586 * chance());
        double x = lam + sqrt(lam) * normal + .5;
        return x > 0 ? (uint32_t)x : 0;
    }
    double limit = exp(-lam), p = chance();
    uint32_t k = 0;
    for (; p > limit; k++)
        p *= chance();
    return k;
}

/* ---- the reference, literally ---- */

struct reference {
    double base[24], w[24], phi, s, hist[60];
    size_t n; /* of hist, at most 60; the latest last */
    bool alarm;
};

static void reference_begin(struct reference *r)
{
    *r = (struct reference){.phi = 8};
    for (int h = 0; h < 24; h++) {
        r->base[h] = 2;
        r->w[h] = 120;
    }
}

static double sum_last(const struct reference *r, size_t n)
{
    double sum = 0;
    for (size_t i = r->n > n ? r->n - n : 0; i < r->n; i++)
        sum += r->hist[i];
    return sum;
}

static int reference_minute(struct reference *s, int64_t t, double x)
{
    int h = (int)(t / 3600 % 24);
    double lam =
        fmax(.05, .5 * s->base[h] + .25 * s->base[(h + 23) % 24] + .25 * s->base[(h + 1) % 24]);
    s->s = fmax(0, fmin(200, s->s + (x * log(10.0) - (10.0 - 1) * lam) / s->phi));
    if (s->n == 60)
        memmove(s->hist, s->hist + 1, --s->n * sizeof *s->hist);
    s->hist[s->n++] = x;
    s->alarm = !s->alarm ? s->s > 14 && sum_last(s, 60) >= 300 && sum_last(s, 5) >= 5 * 8 * lam
                         : s->s > 14 / 4.0;
    if (!s->alarm) {
        double a = fmax(1.0 / (14 * 60), 1 / (s->w[h] + 1));
        s->w[h] += 1;
        double xc = fmin(x, 10 * lam + 10);
        s->base[h] += a * (xc - s->base[h]);
        s->phi =
            fmin(60, fmax(1.5, s->phi + .002 * ((xc - lam) * (xc - lam) / fmax(lam, .5) - s->phi)));
    }
    return s->alarm && sum_last(s, 5) >= 100 * lam ? 2 : s->alarm ? 1 : 0;
}

static bool close_to(double a, double b, double share)
{
    return fabs(a - b) <= share * fmax(fabs(a), fabs(b)) + 1e-9;
}

/* The reference knows no time of learning. */
static void begin_learned(struct rate *r)
{
    rate_begin(r);
    r->hours = RATE_LEARNED;
}

/* Random days: quiet, busy, bursts, floods, silences. */
static uint32_t random_minute(int *left, double *lam)
{
    static const double rates[] = {0, 0, .05, .3, 2, 9, 40, 300, 900};
    if ((*left)-- <= 0) {
        *left = (int)(chance() * 200);
        *lam = rates[(size_t)(chance() * COUNT(rates))];
    }
    return poisson(*lam);
}

static void every_minute_is_the_references(void **state)
{
    (void)state;
    for (seed = 1; seed < 2000; seed += 97) {
        struct rate r;
        struct reference ref;
        uint64_t kept = seed;
        int left = 0;
        double lam = 0;
        begin_learned(&r);
        reference_begin(&ref);
        for (int64_t m = 18900000; m < 18900000 + 4 * 1440; m++) {
            uint32_t x = random_minute(&left, &lam);
            int want = reference_minute(&ref, m * 60, x);
            int got = (int)rate_minute(&r, m, x, 0); /* it never says more */
            if (got > want || r.alarm != ref.alarm || !close_to(r.excess, ref.s, 1e-9) ||
                !close_to(r.phi, ref.phi, 1e-9) || r.sum != (uint32_t)sum_last(&ref, 60))
                fail_msg("seed %llu, minute %lld", (unsigned long long)kept, (long long)m);
        }
        for (int h = 0; h < 24; h++)
            assert_true(close_to(r.base[h], ref.base[h], 1e-9));
        seed = kept;
    }
}

/* ---- silence ---- */

static void silence_is_minutes_of_nothing(void **state)
{
    (void)state;
    static const int64_t gaps[] = {0, 1, 4, 5, 59, 60, 61, 90, 200, 777, 1439, 1440};
    for (size_t i = 0; i < COUNT(gaps); i++) {
        struct rate r;
        struct reference ref;
        int64_t m = 18900000 + (int64_t)i * 37;
        seed = 4711 + i;
        begin_learned(&r);
        reference_begin(&ref);
        for (int d = 0; d < 3000; d++, m++) {
            uint32_t x = poisson(d > 2990 && i % 2 ? 400 : 6); /* some end in an alarm */
            rate_minute(&r, m, x, 0);
            reference_minute(&ref, m * 60, x);
        }
        rate_idle(&r, m, gaps[i]);
        for (int64_t k = 0; k < gaps[i]; k++, m++)
            reference_minute(&ref, m * 60, 0);
        double share = gaps[i] <= 60 ? 1e-9 : .03;
        for (int h = 0; h < 24; h++)
            if (!close_to(r.base[h], ref.base[h], share))
                fail_msg("%lld idle minutes, hour %d: %f, not %f", (long long)gaps[i], h, r.base[h],
                         ref.base[h]);
        assert_true(close_to(r.phi, ref.phi, 2 * share));
        assert_int_equal(r.alarm, ref.alarm);
        assert_int_equal(r.sum, (uint32_t)sum_last(&ref, 60));
    }
}

static void absence_is_cheap_and_says_nothing(void **state)
{
    (void)state;
    struct rate day, month;
    int64_t m = 18900000;
    rate_begin(&day);
    for (int d = 0; d < 3000; d++, m++)
        rate_minute(&day, m, 6, 0);
    for (int d = 0; d < 20; d++, m++)
        rate_minute(&day, m, 900, 0);
    assert_true(day.alarm);
    month = day;
    rate_idle(&day, m, 1440);
    rate_idle(&month, m, INT64_C(1) << 40);
    assert_false(month.alarm);
    assert_true(month.excess <= 0);
    for (int h = 0; h < 24; h++)
        assert_true(close_to(month.base[h], day.base[h], 1e-9));
    assert_true(month.base[0] > 3);
}

/* ---- borders ---- */

/* A relay's minute: `usual` is usual now, `busiest` in another hour; the 4 minutes before had
 * `before` messages in all, this one makes it `last5`, and the hour `sum`. */
static void borders(void **state)
{
    (void)state;
    static const struct {
        const char *sentence;
        double usual, busiest;
        uint32_t last5, sum;
        bool alarm; /* before */
        double excess;
        bool alarm_after;
        enum flood_level level;
    } t[] = {
        {"10 times the usual for 5 minutes", 10, 10, 500, 500, 0, 100, 1, FLOOD_ALERT},
        {"8 times the usual: an alarm that nobody hears", 10, 10, 400, 400, 0, 100, 1, FLOOD_NONE},
        {"a little less is none", 10, 10, 399, 399, 0, 100, 0, FLOOD_NONE},
        {"a little less than 10 times the usual", 10, 10, 499, 499, 0, 100, 1, FLOOD_NONE},
        {"300 in the hour", 1, 1, 99, 300, 0, 100, 1, FLOOD_ALERT},
        {"299 in the hour", 1, 1, 99, 299, 0, 100, 0, FLOOD_NONE},
        {"20 times the usual for 5 minutes", 10, 10, 1000, 1000, 0, 100, 1, FLOOD_THROTTLE},
        {"a little less than 20 times", 10, 10, 999, 999, 0, 100, 1, FLOOD_ALERT},
        {"as much as 12 times its busiest hour", 2, 10, 600, 600, 0, 100, 1, FLOOD_THROTTLE},
        {"a little less", 2, 10, 599, 599, 0, 100, 1, FLOOD_ALERT},
        {"as much as 10 times its busiest hour", 2, 10, 500, 500, 0, 100, 1, FLOOD_ALERT},
        {"a little less", 2, 10, 499, 499, 0, 100, 1, FLOOD_NONE},
        {"a relay that never sends", 0, 0, 300, 300, 0, 100, 1, FLOOD_THROTTLE},
        {"the alarm stays up", 10, 10, 600, 600, 1, 12.5, 1, FLOOD_ALERT},
        {"the alarm is over", 10, 10, 0, 600, 1, 12.5, 0, FLOOD_NONE},
        {"not yet raised by the same excess", 10, 10, 500, 500, 0, 12.5, 0, FLOOD_NONE},
    };
    for (size_t i = 0; i < COUNT(t); i++) {
        struct rate r;
        int64_t minute = 18900000;
        begin_learned(&r);
        for (unsigned h = 0; h < RATE_HOURS; h++) {
            r.base[h] = h == 12 ? t[i].busiest : t[i].usual;
            r.weight[h] = 2000;
        }
        uint32_t now = t[i].excess > 99 ? t[i].last5 / 5 : t[i].last5 ? 4 : 0;
        rate_minute(&r, minute - 30, t[i].sum - t[i].last5, 0);
        rate_minute(&r, minute - 1, t[i].last5 - now, 0);
        for (unsigned h = 0; h < RATE_HOURS; h++)
            r.base[h] = h == 12 ? t[i].busiest : t[i].usual;
        r.phi = 20;
        r.alarm = t[i].alarm;
        r.excess = t[i].excess;
        double grows = ((double)now * 2.302585 - 9 * fmax(.05, t[i].usual)) / r.phi;
        if (t[i].excess < 99) /* where it is to be when this minute is closed: at the border */
            r.excess = (t[i].alarm_after ? 3.51 : t[i].alarm ? 3.49 : 13.9) - grows;
        enum flood_level got = rate_minute(&r, minute, now, 0);
        if (got != t[i].level || r.alarm != t[i].alarm_after)
            fail_msg("%s: level %d, alarm %d (excess %.2f, hour %u, last 5 %u)", t[i].sentence,
                     (int)got, r.alarm, r.excess, r.sum, r.last5);
    }
}

static void a_new_relay_is_taken_as_it_is(void **state)
{
    (void)state;
    struct rate r;
    int64_t m = 18900000;
    rate_begin(&r);
    for (int i = 0; i < 23 * 60; i++, m++)
        assert_true(rate_minute(&r, m, 67, 0) < FLOOD_THROTTLE || i < 120);
    assert_int_equal(r.hours, 23);
    rate_minute(&r, m, 67, 0);
    assert_int_equal(r.hours, RATE_LEARNED);
    for (int i = 0; i < 1440; i++)
        assert_int_equal(rate_minute(&r, ++m, 67, 0), FLOOD_NONE);
    int known = 0;
    for (int h = 0; h < 24; h++)
        known += r.base[h] > 20;
    assert_true(known >= 22);
}

static void an_alarm_teaches_nothing(void **state)
{
    (void)state;
    struct rate r;
    int64_t m = 18900000;
    begin_learned(&r);
    for (int h = 0; h < 24; h++)
        r.base[h] = 10;
    for (int i = 0; i < 600; i++)
        rate_minute(&r, m++, 400, 0);
    assert_true(r.alarm);
    for (int h = 0; h < 24; h++)
        assert_true(r.base[h] < 11.9); /* but for the minutes before it is sure */
}

/* ---- the evaluation ---- */

struct scores {
    int false_alert, false_throttle, found, small, delays[64];
};

static int by_number(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static void watch_relay(struct scores *s, int days)
{
    double lam0 = pow(10, -.8 + 2.5 * chance());
    int64_t m = 18900000, end = m + days * 1440, first = m;
    enum flood_level worst = FLOOD_NONE;
    int burst = 0;
    struct rate r;
    rate_begin(&r);
    for (; m < end; m++) {
        double h = (double)(m / 60 % 24), week = m / 1440 % 7 < 5 ? 1 : .35;
        double lam = lam0 * (.15 + 1.2 * exp(-pow((h - 11) / 4.5, 2))) * week;
        if (chance() < 1 / 4000.0)
            burst = 5 + (int)(35 * chance());
        lam *= (burst > 0 ? 4 : 1) * -.5 * (log(chance()) + log(chance()));
        burst -= burst > 0;
        enum flood_level level = rate_minute(&r, m, poisson(lam), 0);
        if (m < first + 7 * 1440 && level == FLOOD_THROTTLE && r.hours < RATE_LEARNED)
            level = FLOOD_NONE; /* new ones are not throttled */
        if ((m > first + 7 * 1440 || level == FLOOD_THROTTLE) && level > worst)
            worst = level;
    }
    s->false_alert += worst >= FLOOD_ALERT;
    s->false_throttle += worst >= FLOOD_THROTTLE;
    for (int i = 1; i <= 30; i++, m++)
        if (rate_minute(&r, m, poisson(fmin(lam0 * 50, 3000)), 0) == FLOOD_THROTTLE) {
            s->delays[s->found++] = i;
            return;
        }
    s->small += lam0 * 50 * 30 < 330; /* even its flood stays below 300 an hour for so long */
}

static void forty_relays_for_thirty_days(void **state)
{
    (void)state;
    for (uint64_t run = 0; run < 3; run++) {
        struct scores s = {0};
        seed = 88172645463325252ull + run * 7919;
        for (int i = 0; i < 40; i++)
            watch_relay(&s, 30);
        qsort(s.delays, (size_t)s.found, sizeof *s.delays, by_number);
        print_message("false alerts %d, false throttle %d, found %d/40, too small %d, median %d "
                      "min, max %d\n",
                      s.false_alert, s.false_throttle, s.found, s.small, s.delays[s.found / 2],
                      s.delays[s.found - 1]);
        assert_int_equal(s.false_throttle, 0);
        assert_true(s.false_alert <= 7);
        assert_int_equal(s.found + s.small, 40);
        assert_true(s.delays[s.found / 2] <= 3);
    }
}

/* ---- one message ---- */

static struct keys keys;
static struct site site;
static const int64_t T = 1140000000000; /* February 2006 */

struct peer_bed {
    struct arena *arena;
    struct envelope envelope;
    struct recipient recipient;
    struct subject subject;
    struct copy_signal copy;
    struct signals signals;
    struct tallies asks, adds;
    uint8_t address[STATE_BYTES_MAX], network[STATE_BYTES_MAX];
    uint64_t serial;
    bool same_text;
};

static int begin(void **state)
{
    static const uint8_t key[32] = {7};
    struct peer_bed *b = calloc(1, sizeof *b);
    site_defaults(&site);
    b->arena = arena_new();
    b->envelope.recipients = &b->recipient;
    b->envelope.nrecipients = 1;
    ipaddr_parse(&b->envelope.client, SPAN("192.0.2.7"));
    b->subject =
        (struct subject){.arena = b->arena, .site = &site, .keys = &keys, .envelope = &b->envelope};
    *state = b;
    return keys_open(&keys, key);
}

static int end(void **state)
{
    struct peer_bed *b = *state;
    arena_free(&b->arena);
    free(b);
    keys_close(&keys);
    return 0;
}

/* One message, a further copy if so. `again`: the same message as before. */
static const struct flood_signals *send(struct peer_bed *b, int64_t now, bool copy, bool again,
                                        double deferred)
{
    struct about about[ABOUT_MAX];
    arena_free(&b->arena);
    b->subject.arena = b->arena = arena_new();
    b->serial += !again;
    b->subject.now = now;
    memcpy(b->subject.fp.k.byte, &b->serial, sizeof b->serial);
    b->subject.fp.message_id = SPAN("id");
    b->subject.fp.f = b->same_text ? 1 : b->serial * 0x9e3779b97f4a7c15;
    b->copy = (struct copy_signal){.relation = copy ? REL_DETOUR : REL_FIRST};
    b->signals = (struct signals){
        .replication = {.copy = &b->copy, .k = b->subject.fp.k, .duplicates = copy}};
    b->asks = b->adds = (struct tallies){0};
    flood_detector.count(&b->subject, &b->asks);
    for (size_t i = 0; i < b->asks.n; i++)
        b->asks.t[i].answer = deferred;
    size_t n = flood_detector.about(&b->subject, &b->signals, about);
    for (size_t i = 0; i < n; i++)
        flood_detector.step(about[i].use ? b->network : b->address, &b->subject, &about[i],
                            &b->signals);
    flood_detector.judge(&b->subject, &b->asks, &b->signals);
    flood_detector.learn(&b->subject, &b->signals, &b->adds);
    return &b->signals.flood;
}

/* n messages a minute, evenly; returns when it ends. */
static int64_t send_minutes(struct peer_bed *b, int64_t now, int minutes, int n, bool copies)
{
    for (int m = 0; m < minutes; m++, now += 60000)
        for (int i = 0; i < n; i++)
            send(b, now + i * (60000 / n), copies, copies && b->serial, 0);
    return now;
}

static void who_is_looked_at(void **state)
{
    struct peer_bed *b = *state;
    struct netmask net, ours;
    struct span trusted = SPAN("smarthost.example");
    assert_true(netmask_parse(&net, SPAN("198.51.100.0/24")));
    assert_true(netmask_parse(&ours, SPAN("10.0.0.0/8")));
    site.own_nets = &ours;
    site.nown_nets = 1;
    site.trusted_nets = &net;
    site.ntrusted_nets = 1;
    site.trusted = &trusted;
    site.ntrusted = 1;
    static const struct {
        const char *client, *name, *helo;
        bool looked_at;
    } t[] = {
        {"192.0.2.7", "", "", true},
        {"2001:db8::7", "", "", true},
        {"", "", "", false},
        {"10.1.2.3", "", "", false},
        {"198.51.100.9", "", "", false},
        {"192.0.2.7", "mx.smarthost.example", "x", false},
        {"192.0.2.7", "unknown", "mx.smarthost.example", true},
        {"192.0.2.7", "[192.0.2.7]", "mx.smarthost.example", true},
        {"192.0.2.7", "", "mx.smarthost.example", true},
    };
    for (size_t i = 0; i < COUNT(t); i++) {
        struct about about[ABOUT_MAX];
        b->envelope.client = (struct ipaddr){0};
        if (*t[i].client)
            ipaddr_parse(&b->envelope.client, span_str(t[i].client));
        b->envelope.client_name = span_str(t[i].name);
        b->subject.client_host = span_str(*t[i].name == 'm' ? t[i].name : t[i].helo);
        size_t n = flood_detector.about(&b->subject, &b->signals, about);
        if (n != (t[i].looked_at ? 2 : 0))
            fail_msg("row %zu: %zu states", i, n);
    }
}

static void near_addresses_share_a_network(void **state)
{
    struct peer_bed *b = *state;
    static const struct {
        const char *a, *b;
        bool same;
    } t[] = {{"192.0.2.7", "192.0.2.250", true},
             {"192.0.2.7", "192.0.3.7", false},
             {"2001:db8:1:2::7", "2001:db8:1:3::8", true},
             {"2001:db8:1:2::7", "2001:db8:2:2::7", false}};
    for (size_t i = 0; i < COUNT(t); i++) {
        struct about x[ABOUT_MAX], y[ABOUT_MAX];
        ipaddr_parse(&b->envelope.client, span_str(t[i].a));
        flood_detector.about(&b->subject, &b->signals, x);
        ipaddr_parse(&b->envelope.client, span_str(t[i].b));
        flood_detector.about(&b->subject, &b->signals, y);
        assert_true(x[0].key != y[0].key);
        assert_true(x[0].key != x[1].key);
        if ((x[1].key == y[1].key) != t[i].same)
            fail_msg("row %zu", i);
    }
}

static void messages_make_the_minutes(void **state)
{
    struct peer_bed *b = *state;
    struct rate r;
    int64_t minute = T / 60000;
    rate_begin(&r);
    seed = 99;
    for (int i = 0; i < 2000; i++, minute++) {
        uint32_t x = poisson(i % 300 < 20 ? 50 : 1.5);
        if (i == 0 && x == 0)
            x = 1; /* it begins with a message */
        for (uint32_t k = 0; k < x; k++)
            send(b, minute * 60000 + k, false, false, 0);
        if (x) /* what is known before this minute is closed */
            assert_true(close_to(b->signals.flood.baseline, r.usual, 1e-9));
        rate_minute(&r, minute, x, 0);
    }
}

static void a_new_relay_alarms_but_is_not_deferred(void **state)
{
    struct peer_bed *b = *state;
    int64_t now = send_minutes(b, T, 10, 400, false);
    const struct flood_signals *f = send(b, now, false, false, 0);
    assert_int_equal(f->level, FLOOD_ALERT);
    assert_false(f->learned);
    assert_false(f->defer);
    assert_non_null(strstr(f->evidence, "has not sent mail for a day yet"));
}

static void a_new_relay_full_of_further_copies_is(void **state)
{
    struct peer_bed *b = *state;
    int64_t now = T;
    for (int m = 0; m < 10; m++, now += 60000)
        for (int i = 0; i < 400; i++)
            send(b, now + i * 150, i % 4 == 0, false, 0);
    const struct flood_signals *f = send(b, now, false, false, 0);
    assert_int_equal(f->level, FLOOD_THROTTLE);
    assert_true(f->duplicates > .24 && f->duplicates < .26);
    assert_non_null(strstr(f->evidence, "25 % of them further copies"));
}

/* A relay that sent `usual` a minute for two days, then a flood of x for ten minutes. */
static int64_t flooded(struct peer_bed *b, int usual, int x)
{
    int64_t now = send_minutes(b, T, 2 * 1440, usual, false);
    return send_minutes(b, now, 10, x, false);
}

static void a_known_relay_is_deferred_at_20_times_the_usual(void **state)
{
    struct peer_bed *b = *state;
    int64_t now = flooded(b, 6, 412);
    const struct flood_signals *f = send(b, now, false, false, 0);
    assert_int_equal(f->level, FLOOD_THROTTLE);
    assert_true(f->learned);
    assert_string_equal(f->evidence, "412 messages a minute in the last 5 minutes where 4.0 are "
                                     "usual at this hour (103 times); 4,421 in the last hour");
    int passed = 0;
    for (int i = 1; i < 600; i++) /* a minute and a half of it */
        passed += !send(b, now + i * 150, false, false, 0)->defer;
    assert_in_range(passed, 17, 31); /* thrice the usual, and a minute in advance */
    f = send(b, now + 90001, true, false, 0);
    assert_false(f->defer); /* a further copy is held, not deferred */
}

static void eight_times_the_usual_only_alarms(void **state)
{
    struct peer_bed *b = *state;
    int64_t now = flooded(b, 6, 60);
    const struct flood_signals *f = send(b, now, false, false, 0);
    assert_int_equal(f->level, FLOOD_ALERT);
    assert_false(f->defer);
}

static void one_text_makes_an_alarm_a_flood(void **state)
{
    struct peer_bed *b = *state;
    int64_t now = send_minutes(b, T, 2 * 1440, 6, false);
    for (int m = 0; m < 40; m++, now += 60000)
        for (int i = 0; i < 60; i++) {
            b->same_text = i % 3 != 0;
            send(b, now + i * 1000, false, false, 0);
        }
    const struct flood_signals *f = send(b, now, false, false, 0);
    assert_int_equal(f->level, FLOOD_THROTTLE);
    assert_true(f->one_content > .5 && f->one_content < .7);
}

static void no_message_is_deferred_for_longer_than_half_an_hour(void **state)
{
    struct peer_bed *b = *state;
    enum { HALF = 30 * 60000 };
    int64_t now = flooded(b, 6, 412);
    for (int i = 0; i < 100 && !send(b, now, false, false, 0)->defer; i++)
        ;
    assert_true(b->signals.flood.defer);
    assert_int_equal(b->adds.n, 1); /* first deferral: remembered */
    assert_true(b->adds.t[0].key == b->asks.t[0].key);
    assert_true(send(b, now, false, true, (double)(now - HALF + 1))->defer);
    assert_int_equal(b->adds.n, 0); /* and not again: it is the first that counts */
    assert_int_equal(b->signals.flood.deferred, now - HALF + 1);
    assert_false(send(b, now, false, true, (double)(now - HALF))->defer);
    int deferred = 0; /* and not without end */
    for (int i = 0; i < 20000; i++)
        deferred += send(b, now, false, false, 0)->defer;
    assert_in_range(deferred, 1, 16384);
}

static void a_network_alarms_and_no_more(void **state)
{
    struct peer_bed *b = *state;
    int64_t now = send_minutes(b, T, 2 * 1440, 6, false);
    uint8_t address[200][16];
    memset(address, 0, sizeof address);
    for (int m = 0; m < 10; m++, now += 60000)
        for (int i = 0; i < 400; i++) { /* each address is new, and sends little */
            memset(b->address, 0, sizeof b->address);
            send(b, now + i * 150, false, false, 0);
        }
    const struct flood_signals *f = send(b, now, false, false, 0);
    assert_int_equal(f->level, FLOOD_ALERT);
    assert_false(f->defer);
    assert_non_null(strstr(f->evidence, "its network sent 400 messages a minute"));
}

static void replicating_takes_three_messages_not_three_copies(void **state)
{
    struct peer_bed *b = *state;
    for (int i = 0; i < 50; i++) /* one message again and again */
        send(b, T + i * 1000, true, i > 0, 0);
    assert_false(b->signals.flood.replicating);
    assert_false(send(b, T + 60000, true, false, 0)->replicating);
    const struct flood_signals *f = send(b, T + 61000, true, false, 0);
    assert_true(f->replicating);
    assert_non_null(f->evidence);
    for (int i = 0; i < 3; i++)
        f = send(b, T + 62000 + i, false, false, 0);
    assert_false(f->replicating);
    for (int i = 0; i < 300; i++) /* now and then one comes twice: that is life */
        assert_false(send(b, T + 70000 + i * 500, i % 30 == 29, false, 0)->replicating);
}

static void time_runs_backwards(void **state)
{
    struct peer_bed *b = *state;
    send(b, T, false, false, 0);
    send(b, T - 5000000, false, false, 0);
    send(b, T - 24 * 60 * 60000, false, false, 0);
    assert_true(b->signals.flood.hour > 2.9 && b->signals.flood.hour < 3.1);
}

/* What came while the clock was days ahead is not counted together in one minute days later. */
static void a_clock_is_put_right(void **state)
{
    struct peer_bed *b = *state;
    send(b, T, false, false, 0);
    for (int i = 0; i < 500; i++)
        send(b, T + INT64_C(200) * 86400000, false, false, 0);
    send(b, T + 60000, false, false, 0);
    assert_true(b->signals.flood.hour < 1.1);
    send(b, -5, false, false, 0);
    assert_true(b->signals.flood.hour < 1.1);
    assert_int_equal(send_minutes(b, T + 120000, 30, 2, false), T + 120000 + 30 * 60000);
    assert_int_equal(b->signals.flood.level, FLOOD_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_minute_is_the_references),
        cmocka_unit_test(silence_is_minutes_of_nothing),
        cmocka_unit_test(absence_is_cheap_and_says_nothing),
        cmocka_unit_test(borders),
        cmocka_unit_test(a_new_relay_is_taken_as_it_is),
        cmocka_unit_test(an_alarm_teaches_nothing),
        cmocka_unit_test(forty_relays_for_thirty_days),
        cmocka_unit_test_setup_teardown(who_is_looked_at, begin, end),
        cmocka_unit_test_setup_teardown(near_addresses_share_a_network, begin, end),
        cmocka_unit_test_setup_teardown(messages_make_the_minutes, begin, end),
        cmocka_unit_test_setup_teardown(a_new_relay_alarms_but_is_not_deferred, begin, end),
        cmocka_unit_test_setup_teardown(a_new_relay_full_of_further_copies_is, begin, end),
        cmocka_unit_test_setup_teardown(a_known_relay_is_deferred_at_20_times_the_usual, begin,
                                        end),
        cmocka_unit_test_setup_teardown(eight_times_the_usual_only_alarms, begin, end),
        cmocka_unit_test_setup_teardown(one_text_makes_an_alarm_a_flood, begin, end),
        cmocka_unit_test_setup_teardown(no_message_is_deferred_for_longer_than_half_an_hour, begin,
                                        end),
        cmocka_unit_test_setup_teardown(a_network_alarms_and_no_more, begin, end),
        cmocka_unit_test_setup_teardown(replicating_takes_three_messages_not_three_copies, begin,
                                        end),
        cmocka_unit_test_setup_teardown(time_runs_backwards, begin, end),
        cmocka_unit_test_setup_teardown(a_clock_is_put_right, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
