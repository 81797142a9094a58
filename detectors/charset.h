/* charset.h - decoded text to Unicode, by small tables: UTF-8, UTF-16, ISO-8859-1, windows-1252;
 * anything unknown is read as latin-1, undecodable bytes become separators. Never fails. */
#ifndef CHARSET_H
#define CHARSET_H

#include "span.h"

enum charset {
    CHARSET_UTF8, /* also US-ASCII and none given; falls back per byte to latin-1 */
    CHARSET_LATIN1,
    CHARSET_CP1252,
    CHARSET_UTF16, /* by BOM, else big-endian */
    CHARSET_UTF16LE,
    CHARSET_UTF16BE,
    CHARSET_COUNT /* must be last */
};

enum charset charset_named(struct span name);

/* Decoder state across pieces. Zero is a fresh one. */
struct charset_state {
    uint8_t pending[4];
    uint8_t npending;
    uint8_t order; /* UTF-16: 0 unknown, 1 big, 2 little */
};

/* Decodes bytes into code points, at most cap; U+FFFD for what cannot be decoded. Returns how many
 * were written and sets *used to the bytes taken. final: no more input, flush what is pending. */
size_t charset_decode(enum charset, struct charset_state *, struct span, bool final, uint32_t *out,
                      size_t cap, size_t *used);

/* One windows-1252 byte as a code point; HTML reads &#128; to &#159; so too. */
uint32_t charset_cp1252(uint8_t byte);

#endif
