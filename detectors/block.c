/* block.c - the same loop for each kind of processor. */
#include "block.h"

#if defined(__x86_64__) && !defined(BREAKWATER_PLAIN)
#include <immintrin.h>

static void look_sse2(struct block *out, const uint8_t *p, size_t n, uint8_t other)
{
    const __m128i cr = _mm_set1_epi8('\r'), lf = _mm_set1_epi8('\n');
    const __m128i control = _mm_set1_epi8(' ' - 1), c = _mm_set1_epi8((char)other);
    for (; n; n--, out++) {
        *out = (struct block){0};
        for (unsigned i = 0; i < BLOCK; i += 16, p += 16) {
            __m128i r = _mm_loadu_si128((const __m128i *)(const void *)p);
            __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(r, control), r);
            out->cr |= (uint64_t)(unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(r, cr)) << i;
            out->lf |= (uint64_t)(unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(r, lf)) << i;
            out->control |= (uint64_t)(unsigned)_mm_movemask_epi8(low) << i;
            out->other |= (uint64_t)(unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(r, c)) << i;
        }
    }
}

__attribute__((target("avx2"))) static void look_avx2(struct block *out, const uint8_t *p, size_t n,
                                                      uint8_t other)
{
    const __m256i cr = _mm256_set1_epi8('\r'), lf = _mm256_set1_epi8('\n');
    const __m256i control = _mm256_set1_epi8(' ' - 1), c = _mm256_set1_epi8((char)other);
    for (; n; n--, out++) {
        *out = (struct block){0};
        for (unsigned i = 0; i < BLOCK; i += 32, p += 32) {
            __m256i r = _mm256_loadu_si256((const __m256i *)(const void *)p);
            __m256i low = _mm256_cmpeq_epi8(_mm256_min_epu8(r, control), r);
            out->cr |= (uint64_t)(unsigned)_mm256_movemask_epi8(_mm256_cmpeq_epi8(r, cr)) << i;
            out->lf |= (uint64_t)(unsigned)_mm256_movemask_epi8(_mm256_cmpeq_epi8(r, lf)) << i;
            out->control |= (uint64_t)(unsigned)_mm256_movemask_epi8(low) << i;
            out->other |= (uint64_t)(unsigned)_mm256_movemask_epi8(_mm256_cmpeq_epi8(r, c)) << i;
        }
    }
}

__attribute__((target("avx512bw"))) static void look_avx512(struct block *out, const uint8_t *p,
                                                            size_t n, uint8_t other)
{
    const __m512i cr = _mm512_set1_epi8('\r'), lf = _mm512_set1_epi8('\n');
    const __m512i blank = _mm512_set1_epi8(' '), c = _mm512_set1_epi8((char)other);
    for (; n; n--, out++, p += BLOCK) {
        __m512i r = _mm512_loadu_si512(p);
        out->cr = _mm512_cmpeq_epi8_mask(r, cr);
        out->lf = _mm512_cmpeq_epi8_mask(r, lf);
        out->control = _mm512_cmplt_epu8_mask(r, blank);
        out->other = _mm512_cmpeq_epi8_mask(r, c);
    }
}

static void look(struct block *out, const uint8_t *p, size_t n, uint8_t other)
{
    if (__builtin_cpu_supports("avx512bw"))
        look_avx512(out, p, n, other);
    else if (__builtin_cpu_supports("avx2"))
        look_avx2(out, p, n, other);
    else
        look_sse2(out, p, n, other);
}
#else
static void look(struct block *out, const uint8_t *p, size_t n, uint8_t other)
{
    for (; n; n--, out++) {
        *out = (struct block){0};
        for (unsigned i = 0; i < BLOCK; i++, p++) {
            out->cr |= (uint64_t)(*p == '\r') << i;
            out->lf |= (uint64_t)(*p == '\n') << i;
            out->control |= (uint64_t)(*p < ' ') << i;
            out->other |= (uint64_t)(*p == other) << i;
        }
    }
}
#endif

size_t block_look(struct block out[BLOCKS], struct span s, size_t most, uint8_t other, uint8_t fill)
{
    uint8_t room[BLOCK];
    size_t n = s.n / BLOCK < most ? s.n / BLOCK : most;
    if (n) {
        look(out, s.p, n, other);
        return n;
    }
    memset(room, fill, sizeof room);
    memcpy(room, s.p, s.n);
    look(out, room, 1, other);
    return 1;
}
