/*
 * block.h - 64 bytes looked at at once: a bit for every byte that has some property. Bit i is byte
 * i. With SSE2 a few instructions each; without it what the compiler makes of a loop. All pure.
 */
#ifndef BLOCK_H
#define BLOCK_H

#include "span.h"

#if defined(__SSE2__) && !defined(BREAKWATER_PLAIN)
#include <emmintrin.h>
#endif

enum { BLOCK = 64 };

/* The 64 bytes from s.p + at on; what lies behind the end is filled with `with`. */
static inline const uint8_t *block_at(struct span s, size_t at, uint8_t room[BLOCK], uint8_t with)
{
    if (s.n - at >= BLOCK)
        return s.p + at;
    memset(room, with, BLOCK);
    return memcpy(room, s.p + at, s.n - at);
}

/* Which are c? */
static inline uint64_t block_equal(const uint8_t *p, uint8_t c)
{
    uint64_t bits = 0;
#if defined(__SSE2__) && !defined(BREAKWATER_PLAIN)
    const __m128i wanted = _mm_set1_epi8((char)c);
    for (unsigned i = 0; i < BLOCK; i += 16) {
        __m128i row = _mm_loadu_si128((const __m128i *)(const void *)(p + i));
        bits |= (uint64_t)(unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(row, wanted)) << i;
    }
#else
    for (unsigned i = 0; i < BLOCK; i++)
        bits |= (uint64_t)(p[i] == c) << i;
#endif
    return bits;
}

/* Which are at most c? */
static inline uint64_t block_upto(const uint8_t *p, uint8_t c)
{
    uint64_t bits = 0;
#if defined(__SSE2__) && !defined(BREAKWATER_PLAIN)
    const __m128i most = _mm_set1_epi8((char)c);
    for (unsigned i = 0; i < BLOCK; i += 16) {
        __m128i row = _mm_loadu_si128((const __m128i *)(const void *)(p + i));
        __m128i small = _mm_cmpeq_epi8(_mm_min_epu8(row, most), row);
        bits |= (uint64_t)(unsigned)_mm_movemask_epi8(small) << i;
    }
#else
    for (unsigned i = 0; i < BLOCK; i++)
        bits |= (uint64_t)(p[i] <= c) << i;
#endif
    return bits;
}

#endif
