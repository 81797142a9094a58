/*
 * proxyline_fuzz.c - any bytes where a PROXY header should be. A good one is good byte by byte too,
 * uses what is there, and what is known of the client can be written as a header that says the
 * same.
 */
#include <stdlib.h>

#include "proxyline.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool good)
{
    if (!good)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proxyline p, q;
    uint8_t out[256];
    enum proxyline_state state = proxyline_read(&p, span_of(data, size));
    if (state == PROXYLINE_MORE)
        must(size < PROXYLINE_MAX);
    if (state != PROXYLINE_GOOD)
        return 0;
    must(p.used > 0 && p.used <= size);
    for (size_t n = 0; n < p.used && n < 600; n++)
        must(proxyline_read(&q, span_of(data, n)) == PROXYLINE_MORE);
    if (!p.known)
        return 0;
    must(p.client.family == 4 || p.client.family == 6);
    for (int version = 1; version <= 2; version++) {
        size_t n = proxyline_write(out, sizeof out, version, &p.client, p.port, &p.client, 25);
        must(n > 0 && n <= sizeof out);
        must(proxyline_read(&q, span_of(out, n)) == PROXYLINE_GOOD && q.used == n && q.known);
        must(q.port == p.port && memcmp(q.client.byte, p.client.byte, sizeof q.client.byte) == 0);
    }
    return 0;
}
