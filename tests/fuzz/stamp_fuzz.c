/* stamp_fuzz.c - no invented stamp is ours; one of ours is, however it was folded. */
#include <stdlib.h>

#include "stamp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t site[32] = "a key the fuzzer has not";
    static struct keys keys;
    const struct key wrote = {{1, 2, 3}};
    struct key read;
    char text[STAMP_TEXT];
    if (!keys.mac && keys_open(&keys, site))
        abort();
    if (stamp_read(&keys, span_of(data, size), &read))
        abort();
    stamp_print(&keys, span_of(data, size), (int64_t)size, &wrote, text);
    if (!stamp_read(&keys, span_str(text), &read) || memcmp(&read, &wrote, sizeof read) != 0)
        abort();
    return 0;
}
