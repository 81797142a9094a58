/* charset_test.c - bytes to code points, whole and byte by byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <iconv.h>

#include <cmocka.h>

#include "charset.h"
#include "fingerprint.h"

static const struct {
    const char *name;
    enum charset charset;
    struct span bytes;
    size_t n;
    uint32_t want[8];
} cases[] = {
#define BYTES(s)                                                                                   \
    {                                                                                              \
        (const uint8_t *)(s), sizeof(s) - 1                                                        \
    }
    {"ASCII", CHARSET_UTF8, BYTES("a\0b"), 3, {'a', 0, 'b'}},
    {"two, three and four bytes",
     CHARSET_UTF8,
     BYTES("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"),
     3,
     {0xe9, 0x20ac, 0x1f600}},
    {"the last of each length",
     CHARSET_UTF8,
     BYTES("\xdf\xbf\xef\xbf\xbf\xf4\x8f\xbf\xbf"),
     3,
     {0x7ff, 0xffff, 0x10ffff}},
    {"overlong", CHARSET_UTF8, BYTES("\xc0\xaf\xe0\x80"), 4, {0xc0, 0xaf, 0xe0, 0x80}},
    {"surrogate", CHARSET_UTF8, BYTES("\xed\xa0\x80"), 3, {0xed, 0xa0, 0x80}},
    {"beyond U+10FFFF", CHARSET_UTF8, BYTES("\xf4\x90\x80\x80"), 4, {0xf4, 0x90, 0x80, 0x80}},
    {"latin-1 in UTF-8", CHARSET_UTF8, BYTES("\xe9t\xe9"), 3, {0xe9, 't', 0xe9}},
    {"cut at the end", CHARSET_UTF8, BYTES("a\xe2\x82"), 3, {'a', 0xe2, 0x82}},
    {"broken off in the middle", CHARSET_UTF8, BYTES("\xe2\x82x"), 3, {0xe2, 0x82, 'x'}},
    {"a lead byte before a character",
     CHARSET_UTF8,
     BYTES("\xf0\x9f\xc3\xa9"),
     3,
     {0xf0, 0x9f, 0xe9}},
    {"latin-1", CHARSET_LATIN1, BYTES("\xc3\xa9\x80"), 3, {0xc3, 0xa9, 0x80}},
    {"windows-1252",
     CHARSET_CP1252,
     BYTES("\x80\x93\x9f\x81\xe9"),
     5,
     {0x20ac, 0x201c, 0x178, 0xfffd, 0xe9}},
    {"UTF-16 without a mark", CHARSET_UTF16, BYTES("\0a\x20\xac"), 2, {'a', 0x20ac}},
    {"UTF-16 with a big mark", CHARSET_UTF16, BYTES("\xfe\xff\0a"), 2, {0xfeff, 'a'}},
    {"UTF-16 with a little mark",
     CHARSET_UTF16,
     BYTES("\xff\xfe"
           "a\0"),
     2,
     {0xfeff, 'a'}},
    {"a pair", CHARSET_UTF16BE, BYTES("\xd8\x3d\xde\x00"), 1, {0x1f600}},
    {"a pair, little", CHARSET_UTF16LE, BYTES("\x3d\xd8\x00\xde"), 1, {0x1f600}},
    {"half a pair", CHARSET_UTF16BE, BYTES("\xd8\x3d\0a\xdc\0"), 3, {0xfffd, 'a', 0xfffd}},
    {"half a unit", CHARSET_UTF16BE, BYTES("\0a\0"), 2, {'a', 0xfffd}},
    {"half a pair at the end", CHARSET_UTF16BE, BYTES("\xd8\x3d"), 1, {0xfffd}},
    {"nothing", CHARSET_UTF8, BYTES(""), 0, {0}},
    {"KOI8-R", CHARSET_KOI8_R, BYTES("\xd7\xa3x"), 3, {0x432, 0x451, 'x'}},
    {"ISO-8859-15", CHARSET_8859_15, BYTES("\xa4\xbc"), 2, {0x20ac, 0x152}},
    {"no such byte", CHARSET_8859_3, BYTES("\xa5z"), 2, {0xfffd, 'z'}},
    {"GBK", CHARSET_GB18030, BYTES("\xc4\xe3@\x80\x81\x40"), 4, {0x4f60, '@', 0x20ac, 0x4e02}},
    {"GB18030, four bytes",
     CHARSET_GB18030,
     BYTES("\x81\x30\x81\x30\x90\x30\x81\x30\xe3\x32\x9a\x35\x84\x31\xa4\x37"),
     4,
     {0x80, 0x10000, 0x10ffff, 0xfffd}},
    {"GB18030 beyond Unicode", CHARSET_GB18030, BYTES("\xe3\x32\x9a\x36"), 1, {0xfffd}},
    {"GB18030 broken off",
     CHARSET_GB18030,
     BYTES("\x81\x30\x81!\x81 \xc4"),
     7,
     {0xfffd, '0', 0xfffd, '!', 0xfffd, ' ', 0xfffd}},
    {"Shift_JIS",
     CHARSET_SHIFT_JIS,
     BYTES("\x93\xfa\x96\x7b\x83\x5c\xb1"),
     4,
     {0x65e5, 0x672c, 0x30bd, 0xff71}},
    {"a broken pair leaves the ASCII",
     CHARSET_SHIFT_JIS,
     BYTES("\x93\n\xfd"),
     3,
     {0xfffd, '\n', 0xfffd}},
    {"EUC-JP",
     CHARSET_EUC_JP,
     BYTES("\xc6\xfc\x8e\xb1\x8f\xb0\xa1q"),
     4,
     {0x65e5, 0xff71, 0xfffd, 'q'}},
    {"ISO-2022-JP",
     CHARSET_ISO_2022_JP,
     BYTES("a\x1b$BF|\x1b(B<\x1b(I1\x1b$BF\nF"),
     7,
     {'a', 0x65e5, '<', 0xff71, 0xfffd, '\n', 'F'}},
    {"EUC-KR", CHARSET_EUC_KR, BYTES("\xc7\xd1\x81\x41\xff"), 3, {0xd55c, 0xac02, 0xfffd}},
    {"Big5", CHARSET_BIG5, BYTES("\xa4\xa4\xa6\x40\x81\x40"), 4, {0x4e2d, 0x5171, 0xfffd, '@'}},
};

/* Decodes in pieces of `step` bytes into room for `cap` code points at a time. */
static size_t decode(size_t i, size_t step, size_t cap, uint32_t *out)
{
    struct charset_state st = {0};
    struct span rest = cases[i].bytes;
    size_t n = 0, used;
    while (rest.n) {
        struct span piece = span_head(rest, step);
        n += charset_decode(cases[i].charset, &st, piece, false, out + n, cap, &used);
        rest = span_from(rest, used);
    }
    for (size_t more = 1; more; n += more)
        more = charset_decode(cases[i].charset, &st, rest, true, out + n, cap, &used);
    return n;
}

static void bytes_become_code_points(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t step = 1; step <= cases[i].bytes.n + 1; step++)
            for (size_t cap = 1; cap <= 3; cap++) {
                uint32_t out[32];
                size_t n = decode(i, step, cap, out);
                if (n != cases[i].n || memcmp(out, cases[i].want, n * sizeof *out) != 0)
                    fail_msg("%s, in pieces of %zu, %zu at a time: %zu points, first %x",
                             cases[i].name, step, cap, n, out[0]);
            }
}

static void names_are_known(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum charset charset;
    } names[] = {
        {"UTF-8", CHARSET_UTF8},
        {" utf8 ", CHARSET_UTF8},
        {"", CHARSET_UTF8},
        {"US-ASCII", CHARSET_UTF8},
        {"Windows-1252", CHARSET_CP1252},
        {"iso-8859-1", CHARSET_LATIN1},
        {"koi8-r", CHARSET_KOI8_R},
        {"ISO_8859-2:1987", CHARSET_8859_2},
        {"iso-8859-8-i", CHARSET_8859_8},
        {"cp1251", CHARSET_CP1251},
        {"TIS-620", CHARSET_CP874},
        {"x-mac-roman", CHARSET_MACINTOSH},
        {"IBM850", CHARSET_IBM850},
        {"gb2312", CHARSET_GB18030},
        {"Shift_JIS", CHARSET_SHIFT_JIS},
        {"ISO-2022-JP", CHARSET_ISO_2022_JP},
        {"EUC-JP", CHARSET_EUC_JP},
        {"ks_c_5601-1987", CHARSET_EUC_KR},
        {"big5", CHARSET_BIG5},
        {"hz-gb-2312", CHARSET_LATIN1},
        {"a-name-that-is-much-longer-than-any-charset-has", CHARSET_LATIN1},
        {"UTF-16LE", CHARSET_UTF16LE},
        {"utf-16", CHARSET_UTF16},
        {"unknown-8bit", CHARSET_LATIN1},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_int_equal(charset_named(span_str(names[i].name)), names[i].charset);
}

/* Words of many scripts. */
#define LATIN                                                                                      \
    "Die Gr\u00f6\u00dfe der Stra\u00dfe, na\u00efve caf\u00e9 d\u00e9j\u00e0 vu, \u00fcber "      \
    "\u00c4pfel"
#define CENTRAL                                                                                    \
    "P\u0159\u00edli\u0161 \u017elu\u0165ou\u010dk\u00fd k\u016f\u0148, "                          \
    "za\u017c\u00f3\u0142\u0107 g\u0119\u015bl\u0105 ja\u017a\u0144"
#define TURKISH "\u015eim\u015fir \u0131\u015f\u0131k \u011fa \u00e7ocuk"
#define BALTIC "\u0160\u012f ry\u017eo \u010d\u0117 k\u0173 \u0101 \u0137"
#define CYRILLIC                                                                                   \
    "\u0421\u044a\u0435\u0448\u044c \u0435\u0449\u0451 \u044d\u0442\u0438\u0445 "                  \
    "\u043c\u044f\u0433\u043a\u0438\u0445 \u0431\u0443\u043b\u043e\u043a"
#define GREEK                                                                                      \
    "\u039e\u03b5\u03c3\u03ba\u03b5\u03c0\u03ac\u03b6\u03c9 \u03c4\u03b7\u03bd "                   \
    "\u03c8\u03c5\u03c7\u03ae"
#define HEBREW "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd \u05d8\u05d5\u05d1"
#define ARABIC                                                                                     \
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645 \u0643\u0644\u0647"
#define THAI                                                                                       \
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u0e04\u0e23\u0e31\u0e1a \u0e17\u0e38\u0e01\u0e04\u0e19"
#define WELSH "T\u0177 g\u0175r \u1e85e \u1e0bo"
#define MALTESE "\u0126obb \u0121o \u0109u \u016d"
#define NORDIC "\u0110uokko \u014bi \u0167a \u00fe\u00f0"
#define CHINESE "\u4f60\u597d \u4e2d\u6587 \u90f5\u4ef6 \u5171\u540c"
#define SIMPLE "\u4f60\u597d \u4e2d\u6587 \u90ae\u4ef6 \u8fd9\u4e2a"
#define JAPANESE                                                                                   \
    "\u65e5\u672c\u8a9e \u30e1\u30fc\u30eb \u3067\u3059 \u8868\u793a\u30bd \u4e88\u5b9a"
#define KOREAN "\ud55c\uad6d\uc5b4 \uba54\uc77c \uc785\ub2c8\ub2e4 \uac02\ub625"
#define AROUND                                                                                     \
    " and around it a plain sentence of ten words or so, wrapped\r\nwherever it was wrapped"

static const struct {
    const char *charset, *text;
} scripts[] = {
    {"ISO-8859-1", LATIN},
    {"ISO-8859-2", CENTRAL},
    {"ISO-8859-3", MALTESE},
    {"ISO-8859-4", BALTIC},
    {"ISO-8859-5", CYRILLIC},
    {"ISO-8859-6", ARABIC},
    {"ISO-8859-7", GREEK},
    {"ISO-8859-8", HEBREW},
    {"ISO-8859-9", TURKISH},
    {"ISO-8859-10", NORDIC},
    {"ISO-8859-11", THAI},
    {"ISO-8859-13", "\u0160\u012f ry\u017eo \u010d\u0117"},
    {"ISO-8859-14", WELSH},
    {"ISO-8859-15", LATIN "\u0153"},
    {"ISO-8859-16", "\u0219i \u021bar\u0103 \u0153"},
    {"windows-874", THAI},
    {"TIS-620", THAI},
    {"windows-1250", CENTRAL},
    {"windows-1251", CYRILLIC},
    {"windows-1252", LATIN},
    {"windows-1253", GREEK},
    {"windows-1254", TURKISH},
    {"windows-1255", HEBREW},
    {"windows-1256", ARABIC},
    {"windows-1257", BALTIC},
    {"windows-1258", "\u0111\u01b0\u01a1 \u00e0"},
    {"KOI8-R", CYRILLIC},
    {"KOI8-U", "\u0457\u0436\u0430\u043a \u0454 \u0456 \u0491"},
    {"IBM437", LATIN},
    {"IBM850", LATIN},
    {"IBM852", CENTRAL},
    {"IBM866", CYRILLIC},
    {"macintosh", LATIN},
    {"GB18030", SIMPLE KOREAN "\U00020000"},
    {"GBK", SIMPLE CHINESE},
    {"GB2312", SIMPLE},
    {"Shift_JIS", JAPANESE},
    {"EUC-JP", JAPANESE},
    {"ISO-2022-JP", JAPANESE},
    {"EUC-KR", "\ud55c\uad6d\uc5b4 \uba54\uc77c"},
    {"UHC", KOREAN},
    {"Big5", CHINESE},
    {"UTF-16", LATIN CHINESE},
    {"UTF-16LE", KOREAN GREEK},
};

/* F of a text part in this charset, its body in pieces of `step` bytes. */
static uint64_t f_of(const struct keys *keys, const char *charset, const char *type,
                     struct span body, size_t step)
{
    struct arena *a = arena_new();
    struct message *m = message_new(a);
    struct fingerprints fp;
    const char *content = arena_printf(a, " text/%s; charset=\"%s\"", type, charset);
    message_add_field(m, SPAN("Content-Type"), span_str(content));
    message_end_header(m);
    struct fingerprinter *f = fingerprint_begin(a, keys, m);
    for (; body.n; body = span_from(body, step))
        fingerprint_body(f, span_head(body, step));
    fingerprint_end(f, &fp);
    uint64_t got = fp.f;
    arena_free(&a);
    return got;
}

static struct span encoded(char out[4096], const char *charset, const char *text)
{
    iconv_t cd = iconv_open(charset, "UTF-8");
    if (cd == (iconv_t)-1)
        return span_of(NULL, 0);
    char *in = (char *)(uintptr_t)text, *at = out;
    size_t left = strlen(text), room = 4096;
    size_t rc = iconv(cd, &in, &left, &at, &room);
    if (rc != (size_t)-1)
        iconv(cd, NULL, NULL, &at, &room);
    iconv_close(cd);
    if (rc == (size_t)-1)
        fail_msg("%s cannot say \"%s\"", charset, in);
    return span_of(out, (size_t)(at - out));
}

static void the_same_text_has_the_same_fingerprint_in_every_charset(void **state)
{
    (void)state;
    static const uint8_t site[32] = {1};
    struct keys keys;
    size_t known = 0;
    assert_int_equal(keys_open(&keys, site), 0);
    for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++) {
        static const char *const type[] = {"plain", "html"};
        char text[2048], bytes[4096];
        const char *name = scripts[i].charset;
        snprintf(text, sizeof text, "%s%s <b>%s</b>", scripts[i].text, AROUND, scripts[i].text);
        struct span s = encoded(bytes, name, text);
        known += s.n != 0;
        for (size_t t = 0; t < 2 && s.n; t++) {
            uint64_t want = f_of(&keys, "utf-8", type[t], span_str(text), 4096);
            for (size_t step = 1; step < 6; step++)
                if (f_of(&keys, name, type[t], s, step) != want)
                    fail_msg("%s, %s, in pieces of %zu", name, type[t], step);
            assert_true(f_of(&keys, name, type[t], s, 4096) == want);
            char shorter[2048];
            snprintf(shorter, sizeof shorter, "%s %s", AROUND, AROUND);
            assert_true(want != f_of(&keys, "utf-8", type[t], span_str(shorter), 4096));
        }
    }
    keys_close(&keys);
    if (known == 0)
        skip(); /* iconv has no tables here */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_become_code_points),
        cmocka_unit_test(names_are_known),
        cmocka_unit_test(the_same_text_has_the_same_fingerprint_in_every_charset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
