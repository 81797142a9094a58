/*
 * date.c - date-time as words in any order: what a word means follows from its look.
 *
 *   Thu,    9     May    2012   23:34:45   +0900   (JST)
 *   day     day   month  year   time       zone    comment, ends the reading
 *
 * Each part is taken once, the first time it is seen. Linear, and bounded by DATE_BYTES.
 */
#include "date.h"

enum { DATE_BYTES = 128 };

struct date {
    int year, month, day; /* month 1..12; 0: not seen yet; year < 0: not seen yet */
    int seconds;          /* of the day; < 0: not seen yet */
    int zone;             /* seconds east of Greenwich */
    bool zoned;
};

/* Takes the number a word begins with (at most 5 digits; -1: none) and cuts it off. */
static int word_number(struct span *w)
{
    int v = -1;
    size_t i = 0;
    for (; i < w->n && i < 5 && byte_digit(w->p[i]); i++)
        v = (v < 0 ? 0 : v * 10) + (w->p[i] - '0');
    *w = span_from(*w, i);
    return v;
}

#define PACK(a, b, c) ((uint32_t)(a) << 16 | (uint32_t)(b) << 8 | (uint32_t)(c))

/* The first three letters of a word, lower case, as one number; 0 if it is shorter. */
static uint32_t word_letters(struct span w)
{
    return w.n < 3 ? 0 : PACK(byte_lower(w.p[0]), byte_lower(w.p[1]), byte_lower(w.p[2]));
}

/* 1 to 12 for a word that begins like a month, else 0. */
static int word_month(struct span w)
{
    static const uint32_t months[] = {
        PACK('j', 'a', 'n'), PACK('f', 'e', 'b'), PACK('m', 'a', 'r'), PACK('a', 'p', 'r'),
        PACK('m', 'a', 'y'), PACK('j', 'u', 'n'), PACK('j', 'u', 'l'), PACK('a', 'u', 'g'),
        PACK('s', 'e', 'p'), PACK('o', 'c', 't'), PACK('n', 'o', 'v'), PACK('d', 'e', 'c'),
    };
    uint32_t letters = word_letters(w);
    for (int m = 0; m < 12; m++)
        if (letters == months[m])
            return m + 1;
    return 0;
}

/* "23:34" or "23:34:45" (a leap second counts as the second before). */
static void date_time(struct date *d, struct span w)
{
    int part[3] = {0, 0, 0};
    for (int i = 0; i < 3 && w.n; i++) {
        part[i] = word_number(&w);
        if (part[i] < 0)
            return;
        if (w.n && w.p[0] == ':')
            w = span_from(w, 1);
    }
    if (part[0] > 23 || part[1] > 59 || part[2] > 60)
        return;
    if (d->seconds < 0)
        d->seconds = part[0] * 3600 + part[1] * 60 + (part[2] > 59 ? 59 : part[2]);
}

/* "+0900"; RFC 5322 4.3 names. Others count as -0000. */
static void date_zone(struct date *d, struct span w)
{
    static const struct {
        uint32_t name;
        int hours;
    } zones[] = {
        {PACK('e', 's', 't'), -5}, {PACK('e', 'd', 't'), -4}, {PACK('c', 's', 't'), -6},
        {PACK('c', 'd', 't'), -5}, {PACK('m', 's', 't'), -7}, {PACK('m', 'd', 't'), -6},
        {PACK('p', 's', 't'), -8}, {PACK('p', 'd', 't'), -7}, {PACK('g', 'm', 't'), 0},
        {PACK('u', 't', 'c'), 0},
    };
    if (d->zoned || w.n == 0)
        return;
    if ((w.p[0] == '+' || w.p[0] == '-') && w.n > 1) {
        int sign = w.p[0] == '-' ? -1 : 1;
        w = span_from(w, 1);
        int v = word_number(&w);
        if (v < 0 || v > 9959)
            return;
        d->zone = sign * ((v / 100) * 3600 + (v % 100) * 60);
        d->zoned = true;
        return;
    }
    for (size_t i = 0; i < sizeof zones / sizeof *zones; i++)
        if (w.n == 3 && word_letters(w) == zones[i].name) {
            d->zone = zones[i].hours * 3600;
            d->zoned = true;
        }
}

/* Day of the month, then the year: "9", "2012"; two digits after the day are a year (RFC 5322 4.3).
 */
static void date_number(struct date *d, struct span w)
{
    size_t digits = w.n;
    int v = word_number(&w);
    if (w.n || digits > 4)
        return;
    if (digits <= 2 && d->day == 0) {
        d->day = v >= 1 && v <= 31 ? v : 0;
        return;
    }
    if (d->year >= 0)
        return;
    d->year = v;
    if (digits == 2)
        d->year += v < 50 ? 2000 : 1900;
    if (digits == 3)
        d->year += 1900;
}

static void date_word(struct date *d, struct span w)
{
    if (byte_digit(w.p[0])) {
        if (span_find(w, ':') < w.n)
            date_time(d, w);
        else
            date_number(d, w);
        return;
    }
    int month = word_month(w);
    if (month && d->month == 0)
        d->month = month;
    else
        date_zone(d, w);
}

/* Days from 1970-01-01 to the given day of the proleptic Gregorian calendar: years begin in March,
 * so that the leap day is the last of its year. */
static int64_t days_since_1970(int year, int month, int day)
{
    int64_t y = month > 2 ? year : year - 1;
    int64_t m = month > 2 ? month - 3 : month + 9;
    return y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1 - 719468;
}

bool date_parse(struct span s, int64_t *seconds)
{
    struct date d = {.year = -1, .seconds = -1};
    s = span_head(span_trim(s), DATE_BYTES);
    for (size_t i = 0; i < s.n && s.p[i] != '(';) {
        size_t start = i;
        while (i < s.n && !byte_space(s.p[i]) && s.p[i] != ',' && s.p[i] != '(')
            i++;
        if (i > start)
            date_word(&d, span_of(s.p + start, i - start));
        while (i < s.n && (byte_space(s.p[i]) || s.p[i] == ','))
            i++;
    }
    if (d.day == 0 || d.month == 0 || d.seconds < 0 || d.year < 1900)
        return false;
    *seconds = days_since_1970(d.year, d.month, d.day) * 86400 + d.seconds - d.zone;
    return true;
}
