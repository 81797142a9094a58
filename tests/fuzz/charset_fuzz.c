/* charset_fuzz.c - any bytes in any charset: the code points do not depend on where they were cut,
 * and none is beyond Unicode. */
#include <stdlib.h>

#include "charset.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
    if (!ok)
        abort();
}

/* In pieces of 1 to step bytes, by a small generator; room for `cap` code points at a time. */
static size_t decode(enum charset cs, struct span s, uint32_t step, size_t cap, uint32_t *out)
{
    struct charset_state st = {0};
    size_t n = 0, used;
    uint32_t seed = step;
    while (s.n) {
        seed = seed * 1664525u + 1013904223u;
        struct span piece = span_head(s, 1 + (seed >> 8) % step);
        size_t got = charset_decode(cs, &st, piece, false, out + n, cap, &used);
        must(got <= cap && used <= piece.n && st.npending <= sizeof st.pending);
        must(got || used);
        n += got;
        s = span_from(s, used);
    }
    for (size_t more = 1; more; n += more) {
        more = charset_decode(cs, &st, s, true, out + n, cap, &used);
        must(more <= cap);
    }
    must(st.npending == 0);
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > 4096)
        return 0;
    struct span s = span_of(data + 2, size - 2);
    uint32_t *whole = calloc(size + 64, sizeof *whole), *cut = calloc(size + 64, sizeof *cut);
    must(whole && cut);
    enum charset cs = (enum charset)(data[0] % CHARSET_COUNT);
    size_t n = decode(cs, s, 1 << 20, 64, whole);
    must(n <= s.n);
    must(decode(cs, s, 1 + data[1] % 7, 1 + data[1] / 7, cut) == n);
    must(memcmp(whole, cut, n * sizeof *whole) == 0);
    for (size_t i = 0; i < n; i++)
        must(whole[i] <= 0x10ffff);
    must(charset_named(s) < CHARSET_COUNT);
    free(whole);
    free(cut);
    return 0;
}
