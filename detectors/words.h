/*
 * words.h - text to keyed hashes of its words (detection.md 2.2.3).
 *
 * A word is a run of letters and digits, lower case, as UTF-8. Everything else separates; soft
 * hyphens and zero-width characters do not even that. Where the text was cut, wrapped or how it was
 * encoded does not matter.
 */
#ifndef WORDS_H
#define WORDS_H

#include "arena.h"
#include "charset.h"
#include "keys.h"

/* A range of code points. */
struct points {
    uint32_t first, last;
};

struct words {
    struct arena *arena;
    const struct keys *keys;
    uint64_t *hash; /* of whole words, in order */
    size_t n, cap;
    size_t bytes;       /* of the whole words, and one more for each: at most LIMIT_TEXT */
    bool full;          /* a word did not fit: nothing is taken any more */
    struct sip open;    /* the word being read; len 0: none */
    struct points same; /* letters seen last that are lower case; none below 0x80 */
};

/* Takes nothing yet; all memory comes from the arena. */
void words_begin(struct words *, struct arena *, const struct keys *);

/* Text in a charset that is ASCII below 0x80, but for trail bytes (below CHARSET_WIDE). final:
 * flush what the decoder waits for. */
void words_text(struct words *, enum charset, struct charset_state *, struct span, bool final);
/* One code point. */
void words_point(struct words *, uint32_t point);
/* A separator. */
void words_break(struct words *);

/* UTF-8 of a code point; how many bytes. */
size_t utf8_write(uint8_t out[4], uint32_t point);

#endif
