/* summary.c - see summary.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "log.h"
#include "summary.h"

enum { DAY_MS = 24 * 3600 * 1000, TOLD = 10 };

int64_t summary_next(int64_t last, int64_t daily)
{
    time_t t = (time_t)(last / 1000);
    struct tm tm;
    if (!localtime_r(&t, &tm))
        return last + DAY_MS;
    for (int later = 0; later < 3; later++) {
        struct tm at = {.tm_year = tm.tm_year,
                        .tm_mon = tm.tm_mon,
                        .tm_mday = tm.tm_mday + later,
                        .tm_sec = (int)(daily / 1000),
                        .tm_isdst = -1};
        at.tm_hour = at.tm_sec / 3600;
        at.tm_min = at.tm_sec / 60 % 60;
        at.tm_sec %= 60;
        int64_t next = (int64_t)mktime(&at) * 1000;
        if (next > last)
            return next;
    }
    return last + DAY_MS;
}

struct page {
    char *text;
    size_t n, cap;
};

static void say(struct page *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct page *p, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0)
        return;
    if (p->n + (size_t)n + 1 > p->cap) {
        p->cap = 2 * (p->n + (size_t)n + 1);
        p->text = realloc(p->text, p->cap);
        if (!p->text)
            abort();
    }
    va_start(ap, fmt);
    p->n += (size_t)vsnprintf(p->text + p->n, p->cap - p->n, fmt, ap);
    va_end(ap);
}

static unsigned long long num(const json_t *j, const char *name)
{
    return json_get_num(j, name);
}

static const char *copies(unsigned long long n)
{
    return n == 1 ? "copy" : "copies";
}

static const char *shown(char out[200], const json_t *j, const char *name)
{
    const char *s = json_get_str(j, name);
    escape_text(out, 200, span_str(*s ? s : "-"));
    return out;
}

static bool recent(const struct summary *s, const json_t *j)
{
    return json_ms(json_object_get(j, "last")) > s->now - DAY_MS;
}

static size_t storms(const struct summary *s)
{
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(s->storms); i++)
        n += recent(s, json_array_get(s->storms, i));
    return n;
}

static bool tripped(const struct summary *s)
{
    return strcmp(json_get_str(s->guard, "state"), "tripped") == 0;
}

static void say_would(struct page *p, const json_t *d)
{
    unsigned long long would = num(d, "would_hold"), firsts = num(d, "would_hold_firsts");
    if (would)
        say(p, " enforce mode would have held %llu further %s and %llu first %s;", would - firsts,
            copies(would - firsts), firsts, copies(firsts));
}

/* All of it in one line: the log's. */
static void say_first(struct page *p, const struct summary *s)
{
    const json_t *d = s->last_day;
    unsigned long long n = num(d, "judged");
    size_t storming = storms(s);
    say(p, "in 24 hours %llu %s judged: %llu passed, %llu held, %llu refused by rules;", n,
        copies(n), num(d, "passed"), num(d, "held"), num(d, "throttled") + num(d, "rejected"));
    say_would(p, d);
    say(p, " %zu storm%s; mode %s, the guard %s; ", storming, storming == 1 ? "" : "s", s->mode,
        !json_is_object(s->guard) ? "is off"
        : tripped(s)              ? "HAS TRIPPED"
                                  : "watches");
    if (s->unaccounted)
        say(p, "%lld COPIES ARE UNACCOUNTED FOR\n", (long long)s->unaccounted);
    else
        say(p, "every message is accounted for\n");
}

static void say_rules(struct page *p, const json_t *rules)
{
    if (json_array_size(rules))
        say(p, "\nWhat enforce mode would have held\n");
    for (size_t i = 0; i < json_array_size(rules); i++) {
        char rule[200];
        const json_t *r = json_array_get(rules, i);
        unsigned long long n = num(r, "copies");
        say(p, "  rule %s: %llu %s, %llu of them first copies\n", shown(rule, r, "rule"), n,
            copies(n), num(r, "firsts"));
    }
}

static void say_storms(struct page *p, const struct summary *s)
{
    size_t told = 0;
    for (size_t i = 0; i < json_array_size(s->storms) && told < TOLD; i++) {
        char id[200], kind[200], from[200], subject[200];
        const json_t *j = json_array_get(s->storms, i);
        if (!recent(s, j))
            continue;
        if (!told++)
            say(p, "\nStorms\n");
        say(p, "  %s, %s: \"%s\" from %s, %llu %s, %llu held\n", shown(id, j, "id"),
            shown(kind, j, "kind"), shown(subject, j, "subject"), shown(from, j, "from"),
            num(j, "copies"), copies(num(j, "copies")), num(j, "held"));
    }
}

static void say_relays(struct page *p, const struct summary *s)
{
    size_t told = 0;
    for (size_t i = 0; i < json_array_size(s->relays) && told < TOLD; i++) {
        char relay[200], why[200];
        const json_t *j = json_array_get(s->relays, i);
        if (strcmp(json_get_str(j, "state"), "misbehaving") != 0)
            continue;
        if (!told++)
            say(p, "\nRelays that misbehave\n");
        say(p, "  %s: %s\n", shown(relay, j, "relay"), shown(why, j, "why"));
    }
}

char *summary_text(const struct summary *s)
{
    struct page p = {0};
    char reason[200];
    say_first(&p, s);
    if (tripped(s))
        say(&p, "\nThe guard: %s\n", shown(reason, json_object_get(s->guard, "trip"), "reason"));
    say_rules(&p, json_object_get(s->last_day, "rules"));
    say_storms(&p, s);
    say_relays(&p, s);
    return p.text;
}
