/*
 * fingerprint.h - what a message is, whatever relays did to its wrapping (detection.md 2.2, 2.3,
 * 15).
 *
 *   body bytes -> mime (parts, decoding) -> charset -> words -> F, sketch
 *              \-> F_raw (RFC 6376 3.4.4 relaxed)
 *   header     -> Message-ID, Date, From, Resent -> K
 *
 * Streaming and bounded: the body is fed in pieces of any size; the cut points never matter.
 */
#ifndef FINGERPRINT_H
#define FINGERPRINT_H

#include "address.h"
#include "keys.h"
#include "message.h"

enum { OPENING_PLAIN = 2 << 10, OPENING_HTML = 8 << 10 };
enum { SKETCH_MAX = 32, MIN_WORDS = 8, MIN_SAMPLES = 4, K_VARIANTS = 8 };

/* Bottom-k sketch of word 3-shingles: ascending distinct 32-bit values; n = 0 if < MIN_WORDS words.
 */
struct sketch {
    uint32_t value[SKETCH_MAX];
    uint8_t n;
};

/* All identities of one message. Lives in the tx's arena. */
struct fingerprints {
    struct key k; /* K or K0 when there is no Message-ID; variants by fingerprint_variant() */
    uint64_t f;   /* F: the normalised text (and attachments) */
    uint64_t raw; /* F_raw: evidence only */
    struct sketch sketch;
    uint32_t nwords;
    uint32_t nattachments;
    const uint64_t *word; /* keyed hashes of the words, nwords of them, for the tiny-body rule */
    const uint64_t *words_end; /* behind the last one, where only the ends are kept (event.h); NULL:
                                  all are */
    uint64_t body_bytes;
    struct span opening; /* the first bytes of the first text part that has words, decoded but for
                            its charset: OPENING_PLAIN, or OPENING_HTML of HTML in a reply */
    bool opening_html;
    /* header facts that identity and evidence need, in the arena */
    struct span message_id; /* without <> and blanks; empty: none */
    struct span from;       /* first From addr-spec, lower case */
    struct span subject;    /* raw, unfolded */
    struct span date;       /* epoch seconds as decimal text, or the raw text if unparsable */
    struct span list_id;    /* what is inside <> of List-Id, lower case; empty: none */
    bool list_marked;       /* any List-*, Precedence: list or bulk */
    struct span resent;     /* top-most Resent-Message-ID or Resent-Date */
};

struct fingerprinter; /* the state of one message's body; in the arena */

/* Begins when the header is complete (message_end_header done). keys must outlive it. */
struct fingerprinter *fingerprint_begin(struct arena *, const struct keys *,
                                        const struct message *);
/* Body bytes after the empty line, in pieces of any size. */
void fingerprint_body(struct fingerprinter *, struct span);
/* Fills out. */
void fingerprint_end(struct fingerprinter *, struct fingerprints *out);

/* K' of variant v (1..7): another message that reuses the same Message-ID, Date and From. */
struct key fingerprint_variant(const struct keys *, const struct key *, unsigned v);

/* F of the first (tail false) or last (tail true) n words alone; for the rule "a tiny body is the
 * head or tail of the new words". n <= nwords. */
uint64_t fingerprint_f_of(const struct keys *, const struct fingerprints *, unsigned n, bool tail);

/* Share of the smaller document found in the other; *samples says on how many values. */
double sketch_containment(const struct sketch *, const struct sketch *, unsigned *samples);

#endif
