/*
 * charset.c - bytes to code points, without iconv (which loads modules from disk).
 *
 * Every decoder looks at up to four bytes and says how many make the next code point, or 0: more
 * bytes are needed. What stands at the end of a piece and may go on in the next waits in `pending`.
 * Of a broken pair only the lead byte is lost where the trail byte is ASCII: it might be a blank or
 * the end of the line. Invariant: the code points do not depend on where the pieces were cut.
 */
#include "charset.h"
#include "charset_table.h"

enum { NAME_BYTES = 24 };
static const struct {
    char text[NAME_BYTES]; /* lower case, letters and digits only */
    uint8_t n;
    uint8_t charset;
} names[] = {
/* clang-format would give each a line */
/* clang-format off */
#define NAME(text, cs) {text, sizeof(text) - 1, CHARSET_##cs}
    NAME("utf8", UTF8), NAME("usascii", UTF8), NAME("iso88591", LATIN1), NAME("ascii", UTF8),
    NAME("windows1252", CP1252), NAME("cp1252", CP1252), NAME("xcp1252", CP1252), NAME("utf16",
    UTF16), NAME("utf16le", UTF16LE), NAME("utf16be", UTF16BE), NAME("iso88592", 8859_2),
    NAME("88592", 8859_2), NAME("latin2", 8859_2), NAME("l2", 8859_2), NAME("isoir101", 8859_2),
    NAME("isolatin2", 8859_2), NAME("csisolatin2", 8859_2), NAME("iso88593", 8859_3),
    NAME("88593", 8859_3), NAME("latin3", 8859_3), NAME("l3", 8859_3), NAME("isoir109", 8859_3),
    NAME("csisolatin3", 8859_3), NAME("iso88594", 8859_4), NAME("88594", 8859_4), NAME("latin4",
    8859_4), NAME("l4", 8859_4), NAME("isoir110", 8859_4), NAME("csisolatin4", 8859_4),
    NAME("iso88595", 8859_5), NAME("88595", 8859_5), NAME("cyrillic", 8859_5), NAME("isoir144",
    8859_5), NAME("csisolatincyrillic", 8859_5), NAME("iso88596", 8859_6), NAME("88596", 8859_6),
    NAME("arabic", 8859_6), NAME("isoir127", 8859_6), NAME("iso88596i", 8859_6), NAME("iso88596e",
    8859_6), NAME("ecma114", 8859_6), NAME("asmo708", 8859_6), NAME("csisolatinarabic", 8859_6),
    NAME("iso88597", 8859_7), NAME("88597", 8859_7), NAME("greek", 8859_7), NAME("greek8",
    8859_7), NAME("isoir126", 8859_7), NAME("ecma118", 8859_7), NAME("elot928", 8859_7),
    NAME("csisolatingreek", 8859_7), NAME("iso88598", 8859_8), NAME("88598", 8859_8),
    NAME("hebrew", 8859_8), NAME("isoir138", 8859_8), NAME("iso88598i", 8859_8), NAME("iso88598e",
    8859_8), NAME("visual", 8859_8), NAME("logical", 8859_8), NAME("csisolatinhebrew", 8859_8),
    NAME("iso88599", 8859_9), NAME("88599", 8859_9), NAME("latin5", 8859_9), NAME("l5", 8859_9),
    NAME("isoir148", 8859_9), NAME("csisolatin5", 8859_9), NAME("iso885910", 8859_10),
    NAME("885910", 8859_10), NAME("latin6", 8859_10), NAME("l6", 8859_10), NAME("isoir157",
    8859_10), NAME("csisolatin6", 8859_10), NAME("iso885913", 8859_13), NAME("885913", 8859_13),
    NAME("latin7", 8859_13), NAME("l7", 8859_13), NAME("iso885914", 8859_14), NAME("885914",
    8859_14), NAME("latin8", 8859_14), NAME("l8", 8859_14), NAME("iso885915", 8859_15),
    NAME("885915", 8859_15), NAME("latin9", 8859_15), NAME("l9", 8859_15), NAME("latin0",
    8859_15), NAME("iso885916", 8859_16), NAME("885916", 8859_16), NAME("latin10", 8859_16),
    NAME("l10", 8859_16), NAME("windows874", CP874), NAME("cp874", CP874), NAME("dos874", CP874),
    NAME("ibm874", CP874), NAME("tis620", CP874), NAME("tis62025331", CP874), NAME("iso885911",
    CP874), NAME("885911", CP874), NAME("windows1250", CP1250), NAME("cp1250", CP1250),
    NAME("xcp1250", CP1250), NAME("win1250", CP1250), NAME("windows1251", CP1251), NAME("cp1251",
    CP1251), NAME("xcp1251", CP1251), NAME("win1251", CP1251), NAME("windows1253", CP1253),
    NAME("cp1253", CP1253), NAME("xcp1253", CP1253), NAME("win1253", CP1253), NAME("windows1254",
    CP1254), NAME("cp1254", CP1254), NAME("xcp1254", CP1254), NAME("win1254", CP1254),
    NAME("windows1255", CP1255), NAME("cp1255", CP1255), NAME("xcp1255", CP1255), NAME("win1255",
    CP1255), NAME("windows1256", CP1256), NAME("cp1256", CP1256), NAME("xcp1256", CP1256),
    NAME("win1256", CP1256), NAME("windows1257", CP1257), NAME("cp1257", CP1257), NAME("xcp1257",
    CP1257), NAME("win1257", CP1257), NAME("windows1258", CP1258), NAME("cp1258", CP1258),
    NAME("xcp1258", CP1258), NAME("win1258", CP1258), NAME("win1252", CP1252), NAME("koi8r",
    KOI8_R), NAME("koi8", KOI8_R), NAME("koi", KOI8_R), NAME("cskoi8r", KOI8_R), NAME("koi8u",
    KOI8_U), NAME("koi8ru", KOI8_U), NAME("ibm437", IBM437), NAME("cp437", IBM437), NAME("437",
    IBM437), NAME("csibm437", IBM437), NAME("ibm850", IBM850), NAME("cp850", IBM850), NAME("850",
    IBM850), NAME("csibm850", IBM850), NAME("ibm852", IBM852), NAME("cp852", IBM852), NAME("852",
    IBM852), NAME("csibm852", IBM852), NAME("ibm866", IBM866), NAME("cp866", IBM866), NAME("866",
    IBM866), NAME("csibm866", IBM866), NAME("macintosh", MACINTOSH), NAME("mac", MACINTOSH),
    NAME("macroman", MACINTOSH), NAME("xmacroman", MACINTOSH), NAME("csmacintosh", MACINTOSH),
    NAME("gb18030", GB18030), NAME("gbk", GB18030), NAME("gb2312", GB18030), NAME("gb231280",
    GB18030), NAME("xgbk", GB18030), NAME("cp936", GB18030), NAME("ms936", GB18030),
    NAME("windows936", GB18030), NAME("chinese", GB18030), NAME("csgb2312", GB18030),
    NAME("euccn", GB18030), NAME("isoir58", GB18030), NAME("csiso58gb231280", GB18030),
    NAME("shiftjis", SHIFT_JIS), NAME("sjis", SHIFT_JIS), NAME("xsjis", SHIFT_JIS),
    NAME("mskanji", SHIFT_JIS), NAME("csshiftjis", SHIFT_JIS), NAME("windows31j", SHIFT_JIS),
    NAME("cp932", SHIFT_JIS), NAME("ms932", SHIFT_JIS), NAME("windows932", SHIFT_JIS),
    NAME("eucjp", EUC_JP), NAME("xeucjp", EUC_JP), NAME("xeuc", EUC_JP), NAME("ujis", EUC_JP),
    NAME("eucjpms", EUC_JP), NAME("cseucpkdfmtjapanese", EUC_JP), NAME("iso2022jp", ISO_2022_JP),
    NAME("csiso2022jp", ISO_2022_JP), NAME("iso2022jp1", ISO_2022_JP), NAME("iso2022jp2",
    ISO_2022_JP), NAME("iso2022jpms", ISO_2022_JP), NAME("cp50220", ISO_2022_JP), NAME("cp50221",
    ISO_2022_JP), NAME("euckr", EUC_KR), NAME("cseuckr", EUC_KR), NAME("ksc5601", EUC_KR),
    NAME("ksc56011987", EUC_KR), NAME("ksc56011989", EUC_KR), NAME("korean", EUC_KR), NAME("uhc",
    EUC_KR), NAME("cp949", EUC_KR), NAME("ms949", EUC_KR), NAME("windows949", EUC_KR),
    NAME("isoir149", EUC_KR), NAME("csksc56011987", EUC_KR), NAME("big5", BIG5), NAME("cnbig5",
    BIG5), NAME("xxbig5", BIG5), NAME("xbig5", BIG5), NAME("csbig5", BIG5), NAME("cp950", BIG5),
    NAME("ms950", BIG5), NAME("windows950", BIG5), NAME("big5hkscs", BIG5), NAME("big5eten",
    BIG5),
    /* clang-format on */
};

enum charset charset_named(struct span name)
{
    char plain[NAME_BYTES];
    size_t n = 0;
    name = span_trim(name);
    if (name.n == 0)
        return CHARSET_UTF8;
    for (size_t i = 0; i < name.n && name.p[i] != ':'; i++) { /* ISO_8859-2:1987 */
        if (!byte_letter(name.p[i]) && !byte_digit(name.p[i]))
            continue;
        if (n == NAME_BYTES)
            return CHARSET_LATIN1;
        plain[n++] = (char)byte_lower(name.p[i]);
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].n == n && memcmp(names[i].text, plain, n) == 0)
            return (enum charset)names[i].charset;
    return CHARSET_LATIN1;
}

uint32_t charset_cp1252(uint8_t byte)
{
    return byte < 0x80 ? byte : charset_single[CHARSET_CP1252 - CHARSET_SINGLE][byte - 0x80];
}

/* RFC 3629; a byte that begins no valid sequence stands for itself in latin-1. */
static size_t utf8_next(const uint8_t *p, size_t n, uint32_t *out)
{
    static const struct {
        uint8_t low, high; /* of the second byte: no overlong form, no surrogate, <= U+10FFFF */
    } second[5] = {{0x80, 0xbf}, {0xa0, 0xbf}, {0x80, 0x9f}, {0x90, 0xbf}, {0x80, 0x8f}};
    uint8_t c = *p;
    *out = c;
    if (c < 0xc2 || c > 0xf4)
        return 1;
    size_t length = c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    size_t rule = c == 0xe0 ? 1 : c == 0xed ? 2 : c == 0xf0 ? 3 : c == 0xf4 ? 4 : 0;
    uint32_t v = c & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if (i == n)
            return 0;
        uint8_t low = i == 1 ? second[rule].low : 0x80, high = i == 1 ? second[rule].high : 0xbf;
        if (p[i] < low || p[i] > high)
            return 1;
        v = v << 6 | (p[i] & 0x3f);
    }
    *out = v;
    return length;
}

static size_t utf16_next(const uint8_t *p, size_t n, bool little, uint32_t *out)
{
    unsigned hi = little ? 1 : 0, lo = 1 - hi;
    *out = 0xfffd;
    if (n < 2)
        return 0;
    uint32_t unit = (uint32_t)p[hi] << 8 | p[lo];
    if (unit < 0xd800 || unit > 0xdfff) {
        *out = unit;
        return 2;
    }
    if (unit > 0xdbff)
        return 2;
    if (n < 4)
        return 0;
    uint32_t pair = (uint32_t)p[2 + hi] << 8 | p[2 + lo];
    if (pair < 0xdc00 || pair > 0xdfff)
        return 2;
    *out = 0x10000 + ((unit - 0xd800) << 10) + (pair - 0xdc00);
    return 4;
}

static size_t utf16_by_mark(struct charset_state *st, const uint8_t *p, size_t n, uint32_t *out)
{
    if (st->order == 0 && n >= 2)
        st->order = p[0] == 0xff && p[1] == 0xfe ? 2 : 1;
    return utf16_next(p, n, st->order == 2, out);
}

/* ---- two bytes and more ---- */

enum { NOTHING = 0xfffd };

/* What a pair means, given where it stands in its table, or that it is none. */
static size_t pair(uint32_t point, const uint8_t *p, uint32_t *out)
{
    *out = point;
    return point == NOTHING && p[1] < 0x80 ? 1 : 2;
}

static bool within(uint8_t c, uint8_t first, uint8_t last)
{
    return c >= first && c <= last;
}

/* 0x40 to 0x7e and 0x80 to 0xfe as 0 to 189. */
static unsigned trail_index(uint8_t c)
{
    return c < 0x80 ? c - 0x40u : c - 0x41u;
}

static uint32_t gb_four(const uint8_t *p)
{
    uint32_t n =
        ((p[0] - 0x81u) * 10 + (p[1] - 0x30u)) * 1260 + (p[2] - 0x81u) * 10 + (p[3] - 0x30u);
    if (n >= 189000 && n <= 189000 + 0xfffff)
        return n - 189000 + 0x10000;
    if (n >= 39420)
        return NOTHING;
    unsigned low = 0, high = CHARSET_GB_RANGES; /* the last range that begins at n or before */
    while (high - low > 1) {
        unsigned middle = (low + high) / 2;
        if (charset_gb_ranges[middle].number <= n)
            low = middle;
        else
            high = middle;
    }
    return charset_gb_ranges[low].point + (n - charset_gb_ranges[low].number);
}

static size_t gb_next(const uint8_t *p, size_t n, uint32_t *out)
{
    *out = *p == 0x80 ? 0x20ac : NOTHING;
    if (!within(*p, 0x81, 0xfe))
        return 1;
    if (n < 2)
        return 0;
    if (within(p[1], 0x40, 0x7e) || within(p[1], 0x80, 0xfe))
        return pair(charset_gbk[*p - 0x81][trail_index(p[1])], p, out);
    if (!within(p[1], 0x30, 0x39))
        return 1;
    if (n < 3)
        return 0;
    if (!within(p[2], 0x81, 0xfe))
        return 1;
    if (n < 4)
        return 0;
    if (!within(p[3], 0x30, 0x39))
        return 1;
    *out = gb_four(p);
    return 4;
}

static size_t shift_jis_next(const uint8_t *p, size_t n, uint32_t *out)
{
    bool half_width = within(*p, 0xa1, 0xdf), low = within(*p, 0x81, 0x9f);
    *out = half_width ? 0xff61u + (*p - 0xa1u) : NOTHING;
    if (!low && !within(*p, 0xe0, 0xfc))
        return 1;
    if (n < 2)
        return 0;
    if (!within(p[1], 0x40, 0x7e) && !within(p[1], 0x80, 0xfc))
        return 1;
    return pair(charset_jis[low ? *p - 0x81 : *p - 0xe0 + 31][trail_index(p[1])], p, out);
}

/* Row and cell of JIS X 0208, from 0: Shift_JIS has two rows behind one lead byte. */
static uint32_t jis_point(unsigned row, unsigned cell)
{
    return charset_jis[row / 2][row % 2 * 94 + cell];
}

static size_t euc_jp_next(const uint8_t *p, size_t n, uint32_t *out)
{
    *out = NOTHING;
    if (*p != 0x8e && *p != 0x8f && !within(*p, 0xa1, 0xfe))
        return 1;
    if (n < 2)
        return 0;
    if (!within(p[1], 0xa1, 0xfe))
        return 1;
    if (*p == 0x8e)
        return pair(p[1] < 0xe0 ? 0xff61u + (p[1] - 0xa1u) : NOTHING, p, out);
    if (*p == 0x8f) /* JIS X 0212 */
        return n < 3 ? 0 : within(p[2], 0xa1, 0xfe) ? 3 : 1;
    return pair(jis_point(*p - 0xa1u, p[1] - 0xa1u), p, out);
}

static size_t euc_kr_next(const uint8_t *p, size_t n, uint32_t *out)
{
    *out = NOTHING;
    if (!within(*p, 0x81, 0xfe))
        return 1;
    if (n < 2)
        return 0;
    unsigned trail = within(p[1], 0x41, 0x5a)   ? p[1] - 0x41u
                     : within(p[1], 0x61, 0x7a) ? p[1] - 0x61u + 26
                     : within(p[1], 0x81, 0xfe) ? p[1] - 0x81u + 52
                                                : 178;
    return trail == 178 ? 1 : pair(charset_uhc[*p - 0x81][trail], p, out);
}

static size_t big5_next(const uint8_t *p, size_t n, uint32_t *out)
{
    *out = NOTHING;
    if (!within(*p, 0x81, 0xfe))
        return 1;
    if (n < 2)
        return 0;
    bool low = within(p[1], 0x40, 0x7e);
    if (!low && !within(p[1], 0xa1, 0xfe))
        return 1;
    if (!within(*p, 0xa1, 0xf9)) /* extensions of one's own */
        return pair(NOTHING, p, out);
    return pair(charset_big5[*p - 0xa1][low ? p[1] - 0x40u : p[1] - 0xa1u + 63], p, out);
}

/* ---- ISO-2022-JP (RFC 1468) ---- */

enum { JP_ASCII, JP_KATAKANA, JP_KANJI, JP_OTHER }; /* charset_state.order */
static const uint32_t SILENT = UINT32_MAX;          /* a code that says nothing by itself */

/* What an escape sequence switches to; its length, 0: more is needed, 1: it is none. */
static size_t jp_escape(struct charset_state *st, const uint8_t *p, size_t n)
{
    static const struct {
        char text[4];
        uint8_t n, to;
    } escapes[] = {
        {"\x1b(B", 3, JP_ASCII}, {"\x1b(J", 3, JP_ASCII},  {"\x1b(I", 3, JP_KATAKANA},
        {"\x1b$@", 3, JP_KANJI}, {"\x1b$B", 3, JP_KANJI},  {"\x1b$(D", 4, JP_OTHER},
        {"\x1b$A", 3, JP_OTHER}, {"\x1b$(C", 4, JP_OTHER},
    };
    for (size_t i = 0; i < sizeof escapes / sizeof *escapes; i++) {
        size_t same = n < escapes[i].n ? n : escapes[i].n;
        if (memcmp(p, escapes[i].text, same) != 0)
            continue;
        if (same < escapes[i].n)
            return 0;
        st->order = escapes[i].to;
        return escapes[i].n;
    }
    return 1;
}

static size_t iso_2022_jp_next(struct charset_state *st, const uint8_t *p, size_t n, uint32_t *out)
{
    *out = *p;
    if (*p == 0x1b) {
        size_t length = jp_escape(st, p, n);
        *out = length > 1 ? SILENT : ' ';
        return length;
    }
    if (*p == '\n' || *p == '\r') { /* RFC 1468: each line ends in ASCII */
        st->order = JP_ASCII;
        return 1;
    }
    if (st->order == JP_ASCII || !within(*p, 0x21, 0x7e)) {
        *out = *p < 0x80 ? *p : NOTHING;
        return 1;
    }
    if (st->order == JP_KATAKANA) {
        *out = *p < 0x60 ? 0xff61u + (*p - 0x21u) : NOTHING;
        return 1;
    }
    *out = NOTHING;
    if (n < 2)
        return 0;
    if (!within(p[1], 0x21, 0x7e))
        return 1;
    *out = st->order == JP_KANJI ? jis_point(*p - 0x21u, p[1] - 0x21u) : NOTHING;
    return 2;
}

static size_t next(enum charset cs, struct charset_state *st, const uint8_t *p, size_t n,
                   uint32_t *out)
{
    if (cs == CHARSET_UTF8)
        return utf8_next(p, n, out);
    if (cs < CHARSET_WIDE && *p < 0x80) {
        *out = *p;
        return 1;
    }
    switch (cs) {
    case CHARSET_GB18030:
        return gb_next(p, n, out);
    case CHARSET_SHIFT_JIS:
        return shift_jis_next(p, n, out);
    case CHARSET_EUC_JP:
        return euc_jp_next(p, n, out);
    case CHARSET_EUC_KR:
        return euc_kr_next(p, n, out);
    case CHARSET_BIG5:
        return big5_next(p, n, out);
    case CHARSET_ISO_2022_JP:
        return iso_2022_jp_next(st, p, n, out);
    case CHARSET_UTF16:
        return utf16_by_mark(st, p, n, out);
    case CHARSET_UTF16LE:
        return utf16_next(p, n, true, out);
    case CHARSET_UTF16BE:
        return utf16_next(p, n, false, out);
    default:
        *out = cs == CHARSET_LATIN1 ? *p : charset_single[cs - CHARSET_SINGLE][*p - 0x80];
        return 1;
    }
}

/* The last bytes, which no decoder wanted: latin-1 in UTF-8, one mark for half a unit of UTF-16,
 * else one for the lead byte. */
static size_t leftover(enum charset cs, const uint8_t *p, size_t n, uint32_t *out)
{
    *out = cs == CHARSET_UTF8 ? *p : NOTHING;
    return cs < CHARSET_UTF16 || n < 2 ? 1 : 2;
}

size_t charset_decode(enum charset cs, struct charset_state *st, struct span in, bool final,
                      uint32_t *out, size_t cap, size_t *used)
{
    size_t at = 0, written = 0;
    while (written < cap) {
        uint8_t window[4];
        size_t had = st->npending, fresh = in.n - at < 4 - had ? in.n - at : 4 - had;
        const uint8_t *p = window;
        if (had + fresh == 0)
            break;
        if (had == 0) {
            p = in.p + at;
        } else {
            memcpy(window, st->pending, had);
            if (fresh)
                memcpy(window + had, in.p + at, fresh);
        }
        size_t length = next(cs, st, p, had + fresh, &out[written]);
        if (length == 0 && !final) {
            memmove(st->pending, p, had + fresh);
            st->npending = (uint8_t)(had + fresh);
            at += fresh;
            break;
        }
        if (length == 0)
            length = leftover(cs, p, had + fresh, &out[written]);
        written += out[written] != SILENT;
        if (length >= had) {
            at += length - had;
            st->npending = 0;
        } else {
            memmove(st->pending, p + length, had - length);
            st->npending = (uint8_t)(had - length);
        }
    }
    *used = at;
    return written;
}
