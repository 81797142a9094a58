/* record_fuzz.c - what unpacks packs again to the same record, and can be judged on, settled,
 * abandoned and retired. */
#include <stdlib.h>

#include "record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(struct record *r)
{
    uint64_t rcpt[64];
    enum fate fate[64];
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->capaddressees && n < 64; i++)
        if (r->addressee[i].used) {
            fate[n] = (enum fate)(i % (FATE_ABORTED + 1));
            rcpt[n++] = r->addressee[i].hash;
        }
    record_settle(r, rcpt, fate, n);
    record_abandon(r);
    record_retire(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct record *r = record_unpack(span_of(data, size));
    if (!r)
        return 0;
    size_t n, m;
    uint8_t *first = record_pack(r, &n);
    struct record *again = record_unpack(span_of(first, n));
    if (!again)
        abort();
    uint8_t *second = record_pack(again, &m);
    if (n != m || memcmp(first, second, n) != 0)
        abort();
    use(again);
    free(first);
    free(second);
    record_free(&again);
    record_free(&r);
    return 0;
}
