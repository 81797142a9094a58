/* mime_fuzz.c - the fingerprints of any message do not depend on where its bytes were cut. */
#include <stdlib.h>

#include "fingerprint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
    if (!ok)
        abort();
}

/* step 0: in one piece; else in pieces of 1 to step bytes, by a small generator. */
static struct fingerprints read_raw(struct arena *a, const struct keys *k, struct span raw,
                                    uint32_t step)
{
    struct message *m = message_new(a);
    struct fingerprinter *f = NULL;
    struct fingerprints fp;
    uint32_t seed = step;
    for (size_t at = 0, n; at < raw.n; at += n) {
        seed = seed * 1664525u + 1013904223u;
        n = step ? 1 + (seed >> 8) % step : raw.n;
        struct span s = message_add_raw(m, span_head(span_from(raw, at), n));
        if (f == NULL && m->header_done) {
            f = fingerprint_begin(a, k, m);
            s = span_from(s, m->blank);
        }
        if (f)
            fingerprint_body(f, s);
    }
    message_end_header(m);
    if (f == NULL)
        f = fingerprint_begin(a, k, m);
    fingerprint_end(f, &fp);
    return fp;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct keys keys;
    const uint8_t site[32] = {1};
    if (keys.mac == NULL && keys_open(&keys, site) != 0)
        return 0;
    if (size < 1)
        return 0;
    struct arena *a = arena_new();
    struct span raw = span_of(data + 1, size - 1);
    struct fingerprints whole = read_raw(a, &keys, raw, 0);
    struct fingerprints cut = read_raw(a, &keys, raw, 1 + data[0]);
    must(whole.nwords <= LIMIT_WORDS && whole.sketch.n <= SKETCH_MAX);
    must(whole.nwords >= MIN_WORDS || whole.sketch.n == 0);
    for (unsigned i = 1; i < whole.sketch.n; i++)
        must(whole.sketch.value[i - 1] < whole.sketch.value[i]);
    must(whole.nattachments || fingerprint_f_of(&keys, &whole, whole.nwords, false) == whole.f);
    must(whole.f == cut.f && whole.raw == cut.raw && whole.nwords == cut.nwords);
    must(whole.nattachments == cut.nattachments && whole.body_bytes == cut.body_bytes);
    must(memcmp(&whole.sketch, &cut.sketch, sizeof cut.sketch) == 0);
    must(memcmp(&whole.k, &cut.k, sizeof cut.k) == 0);
    arena_free(&a);
    return 0;
}
