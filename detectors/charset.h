/* charset.h - decoded text to Unicode, by tables: UTF-8, UTF-16, ISO-8859, windows-125x and -874,
 * KOI8, IBM437/850/852/866, Macintosh, GB18030, Shift_JIS, EUC-JP, ISO-2022-JP, EUC-KR, Big5, under
 * all their usual names. Anything unknown is read as latin-1, undecodable bytes become separators.
 * Never fails. */
#ifndef CHARSET_H
#define CHARSET_H

#include "span.h"

enum charset {
    CHARSET_UTF8, /* also US-ASCII and none given; falls back per byte to latin-1 */
    CHARSET_LATIN1,
    CHARSET_SINGLE, /* from here on one byte, by charset_single[], in its order */
    CHARSET_CP1252 = CHARSET_SINGLE,
    CHARSET_8859_2,
    CHARSET_8859_3,
    CHARSET_8859_4,
    CHARSET_8859_5,
    CHARSET_8859_6,
    CHARSET_8859_7,
    CHARSET_8859_8,
    CHARSET_8859_9,
    CHARSET_8859_10,
    CHARSET_8859_13,
    CHARSET_8859_14,
    CHARSET_8859_15,
    CHARSET_8859_16,
    CHARSET_CP874, /* also TIS-620 and ISO-8859-11 */
    CHARSET_CP1250,
    CHARSET_CP1251,
    CHARSET_CP1253,
    CHARSET_CP1254,
    CHARSET_CP1255,
    CHARSET_CP1256,
    CHARSET_CP1257,
    CHARSET_CP1258,
    CHARSET_KOI8_R,
    CHARSET_KOI8_U,
    CHARSET_IBM437,
    CHARSET_IBM850,
    CHARSET_IBM852,
    CHARSET_IBM866,
    CHARSET_MACINTOSH,
    CHARSET_GB18030, /* also GBK, GB2312 */
    CHARSET_SHIFT_JIS,
    CHARSET_EUC_JP, /* without JIS X 0212 */
    CHARSET_EUC_KR, /* also Unified Hangul Code */
    CHARSET_BIG5,
    CHARSET_WIDE, /* from here on bytes below 0x80 are not always ASCII */
    CHARSET_ISO_2022_JP = CHARSET_WIDE,
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
    uint8_t order; /* UTF-16: 0 unknown, 1 big, 2 little; ISO-2022-JP: what was switched to */
};

/* Decodes bytes into code points, at most cap; U+FFFD for what cannot be decoded. Returns how many
 * were written and sets *used to the bytes taken. final: no more input, flush what is pending. */
size_t charset_decode(enum charset, struct charset_state *, struct span, bool final, uint32_t *out,
                      size_t cap, size_t *used);

/* One windows-1252 byte as a code point; HTML reads &#128; to &#159; so too. */
uint32_t charset_cp1252(uint8_t byte);

#endif
