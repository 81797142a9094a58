/* window.h - a sliding counter in two buckets: now and before, weighted by overlap. Zero is a fresh
 * one. */
#ifndef WINDOW_H
#define WINDOW_H

#include "breakwater.h"

struct window {
    int64_t start; /* ms: begin of the current bucket */
    double now, before;
};
/* Adds n at time t (ms) to a window of `length` ms. Time running backwards counts as "now". */
void window_add(struct window *, int64_t t, int64_t length, double n);
/* The count over the last `length` ms, estimated. Does not change the window. */
double window_read(const struct window *, int64_t t, int64_t length);

#endif
