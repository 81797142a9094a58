/*
 * window.c - a sliding counter in two buckets.
 *
 *      before      now
 *   |----------|-------+--|      now at t counts whole, before by the share of it
 *   start-L  start     t         that still lies within (t - L, t]
 */
#include "window.h"

/* The window as it stands at t: buckets that are over are moved back or forgotten. */
static struct window window_at(struct window w, int64_t t, int64_t length)
{
    if (t < w.start || t - w.start < length)
        return w;
    if (t - w.start < 2 * length)
        return (struct window){.start = w.start + length, .before = w.now};
    return (struct window){.start = t};
}

void window_add(struct window *w, int64_t t, int64_t length, double n)
{
    if (length < 1)
        return;
    *w = window_at(*w, t, length);
    w->now += n;
}

double window_read(const struct window *w, int64_t t, int64_t length)
{
    if (length < 1)
        return 0;
    struct window at = window_at(*w, t, length);
    int64_t into = t > at.start ? t - at.start : 0;
    return at.now + at.before * (double)(length - into) / (double)length;
}
