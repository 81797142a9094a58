/* store.c - what all backends share: which identity a message goes by, and closing. */
#include "store.h"

/*
 * The step-th identity to try for a message: its own K; K' of variants 1..7 when another content
 * has it already; last a key bound to the content itself, which cannot conflict.
 * (Aliases and our stamp will be resolved here as well.)
 */
struct key store_identity(const struct subject *s, unsigned step)
{
    struct key k = s->fp.k;
    if (!step)
        return k;
    if (step < K_VARIANTS)
        return fingerprint_variant(s->keys, &s->fp.k, step);
    keys_mac(s->keys, "M1x",
             (struct span[]){span_of(s->fp.k.byte, sizeof s->fp.k.byte),
                             span_of(&s->fp.f, sizeof s->fp.f)},
             2, k.byte, sizeof k.byte);
    return k;
}

void store_close(struct store **s)
{
    if (*s)
        (*s)->ops->close(*s);
    *s = NULL;
}
