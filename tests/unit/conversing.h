/*
 * conversing.h - what tests of conversations share: a site, its keys, and an arena for each test.
 */
#ifndef CONVERSING_H
#define CONVERSING_H

#include "detector.h"

enum { SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE };

static struct keys keys;
static struct site site;
static struct arena *arena;

static inline int begin(void **state)
{
    (void)state;
    static const uint8_t key[32] = {7};
    site_defaults(&site);
    return keys_open(&keys, key);
}

static inline int end(void **state)
{
    (void)state;
    keys_close(&keys);
    return 0;
}

static inline int fresh(void **state)
{
    (void)state;
    arena = arena_new();
    return 0;
}

static inline int forget(void **state)
{
    (void)state;
    arena_free(&arena);
    return 0;
}

#endif
