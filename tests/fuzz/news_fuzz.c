/* news_fuzz.c - a batch of tallies from another node: whatever it holds, what is taken from it is a
 * tally, and packs again to the same bytes. */
#include <stdlib.h>

#include "news.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct span rest = span_of(data, n);
    struct tally t;
    uint8_t again[32];
    for (;;) {
        const uint8_t *from = rest.p;
        size_t before = rest.n, used;
        if (!news_unpack(&rest, &t))
            return 0;
        if (t.kind > TALLY_MARK || t.length < 0 || t.amount < 0 || rest.n >= before ||
            news_pack(&t, 1, again, sizeof again, &used) != 1 || used != before - rest.n ||
            memcmp(again, from, used) != 0)
            abort();
    }
}
