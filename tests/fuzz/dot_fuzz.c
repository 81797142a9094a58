/*
 * dot_fuzz.c - message data in pieces of any size. What is read holds CR only before LF and LF only
 * after CR; where the pieces are cut never matters; the data ends at the first CRLF "." CRLF and
 * nowhere else; what is written and read again is the same.
 */
#include <stdlib.h>

#include "dot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct sink {
    uint8_t *p;
    size_t n;
};

static void take(void *arg, struct span s)
{
    struct sink *k = arg;
    if (s.n)
        memcpy(k->p + k->n, s.p, s.n);
    k->n += s.n;
}

static void must(bool good)
{
    if (!good)
        abort();
}

static struct sink sink_for(size_t n)
{
    struct sink k = {.p = malloc(4 * n + 64)};
    must(k.p != NULL);
    return k;
}

/* Where the data ends by the letter of RFC 5321 4.5.2; SIZE_MAX: it does not. */
static size_t end_of(struct span s)
{
    if (s.n >= 3 && memcmp(s.p, ".\r\n", 3) == 0)
        return 3;
    const uint8_t *at = s.n ? memmem(s.p, s.n, "\r\n.\r\n", 5) : NULL;
    return at ? (size_t)(at - s.p) + 5 : SIZE_MAX;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    size_t piece = (size_t)data[0] % 17 + 1;
    struct span all = span_of(data + 1, size - 1);
    struct sink whole = sink_for(size), cut = sink_for(size), wire = sink_for(2 * size),
                again = sink_for(4 * size);
    struct dot_reader a = {0}, b = {0}, c = {0};
    struct dot_writer w = {0};
    size_t used = dot_read(&a, all, take, &whole), at = 0;
    while (at < all.n && !b.done)
        at += dot_read(&b, span_head(span_from(all, at), piece), take, &cut);
    must(a.done == b.done && used == at && whole.n == cut.n && memcmp(whole.p, cut.p, cut.n) == 0);
    must(a.done ? used == end_of(all) : end_of(all) == SIZE_MAX && used == all.n);
    for (size_t i = 0; i < whole.n; i++) {
        must(whole.p[i] != '\r' || (i + 1 < whole.n && whole.p[i + 1] == '\n'));
        must(whole.p[i] != '\n' || (i && whole.p[i - 1] == '\r'));
    }
    for (size_t i = 0; i < whole.n; i += piece)
        dot_write(&w, span_head(span_of(whole.p + i, whole.n - i), piece), take, &wire);
    dot_end(&w, take, &wire);
    must(dot_read(&c, span_of(wire.p, wire.n), take, &again) == wire.n && c.done);
    must(again.n >= whole.n && again.n <= whole.n + 2 && memcmp(again.p, whole.p, whole.n) == 0);
    must(c.bare_cr == 0 && c.bare_lf == 0);
    free(whole.p);
    free(cut.p);
    free(wire.p);
    free(again.p);
    return 0;
}
