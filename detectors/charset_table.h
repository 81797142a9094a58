/* charset_table.h - what bytes mean in the charsets of mail; U+FFFD: nothing. See charset.c. */
#ifndef CHARSET_TABLE_H
#define CHARSET_TABLE_H

#include "breakwater.h"

/* Bytes 0x80 to 0xff, by charset from CHARSET_SINGLE on. */
extern const uint16_t charset_single[30][128];

/* By lead and trail byte, without the gaps between them: GB 18030's two-byte codes; Shift_JIS, and
 * so the rows of JIS X 0208; Unified Hangul Code; Big5. */
extern const uint16_t charset_gbk[126][190], charset_jis[60][188], charset_uhc[126][178],
    charset_big5[89][157];

/* GB 18030's four-byte codes: from this number on, code points from this one on. */
struct charset_range {
    uint16_t number, point;
};
enum { CHARSET_GB_RANGES = 206 };
extern const struct charset_range charset_gb_ranges[CHARSET_GB_RANGES];

#endif
