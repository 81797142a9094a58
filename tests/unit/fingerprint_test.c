/*
 * fingerprint_test.c - what relays do to a message, and what of its identity survives
 * (the table of detection.md 2.2).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <openssl/evp.h>

#include "fingerprint.h"

static struct keys keys;
static void make_vocabulary(void);

static int open_keys(void **state)
{
    (void)state;
    const uint8_t site[32] = {42};
    make_vocabulary();
    return keys_open(&keys, site);
}

static int close_keys(void **state)
{
    (void)state;
    keys_close(&keys);
    return 0;
}

static uint64_t seed = 88172645463325252u;
static uint32_t random32(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 32);
}

/* The fingerprints of a raw message, fed in random pieces of at most `step` bytes. */
static struct fingerprints read_raw(struct arena *a, struct span raw, uint32_t step)
{
    struct message *m = message_new(a);
    struct fingerprinter *f = NULL;
    struct fingerprints fp;
    for (size_t at = 0; at < raw.n;) {
        size_t n = step == UINT32_MAX ? raw.n : 1 + random32() % step;
        struct span s = message_add_raw(m, span_head(span_from(raw, at), n));
        at += n;
        if (f == NULL && m->header_done) {
            f = fingerprint_begin(a, &keys, m);
            s = span_from(s, m->blank);
        }
        if (f)
            fingerprint_body(f, s);
    }
    message_end_header(m);
    if (f == NULL)
        f = fingerprint_begin(a, &keys, m);
    fingerprint_end(f, &fp);
    return fp;
}

static struct fingerprints read_text(struct arena *a, const char *raw)
{
    return read_raw(a, span_str(raw), UINT32_MAX);
}

static struct fingerprints read_body(struct arena *a, const char *head, const char *body)
{
    return read_text(a, arena_printf(a, "From: a@b\r\n%s\r\n%s", head, body));
}

/* ---- documents and what happens to them ---- */

enum { VOCABULARY = 3000, DOCUMENT = 64 << 10 };
static char vocabulary[VOCABULARY][12];

static void make_vocabulary(void)
{
    for (size_t i = 0; i < VOCABULARY; i++) {
        size_t n = 2 + random32() % 8;
        for (size_t j = 0; j < n; j++)
            vocabulary[i][j] = (char)('a' + random32() % 26);
    }
}

/* Few words are common and many are rare, about as in a language. */
static const char *draw_word(void)
{
    uint32_t rank = random32() % VOCABULARY;
    rank = random32() % (rank + 1);
    return vocabulary[random32() % (rank + 1)];
}

static char *document(struct arena *a, unsigned words)
{
    char *text = arena_alloc(a, DOCUMENT);
    size_t n = 0;
    for (unsigned i = 0; i < words; i++)
        n += (size_t)snprintf(text + n, DOCUMENT - n, "%s%s", i ? " " : "", draw_word());
    snprintf(text + n, DOCUMENT - n, " caf\xc3\xa9 \xe2\x80\x9cquoted\xe2\x80\x9d");
    return text;
}

static char *wrapped(struct arena *a, const char *text, size_t width)
{
    char *out = arena_alloc(a, 2 * strlen(text) + 1), *to = out;
    size_t column = 0;
    for (const char *p = text; *p; p++) {
        if (*p == ' ' && column > width) {
            *to++ = '\r';
            *to++ = '\n';
            column = 0;
            continue;
        }
        *to++ = *p;
        column++;
    }
    *to = 0;
    return out;
}

static char *doubled_blanks(struct arena *a, const char *text)
{
    char *out = arena_alloc(a, 2 * strlen(text) + 8), *to = out;
    for (const char *p = text; *p; p++) {
        *to++ = *p;
        if (*p == ' ')
            *to++ = *p;
    }
    memcpy(to, "\r\n\r\n", 5);
    return out;
}

static char *quoted_printable(struct arena *a, const char *text, unsigned width)
{
    char *out = arena_alloc(a, 4 * strlen(text) + 8), *to = out;
    unsigned column = 0;
    for (const uint8_t *p = (const uint8_t *)text; *p; p++) {
        bool plain = (*p >= ' ' && *p < 127 && *p != '=') || *p == '\r' || *p == '\n';
        to += sprintf(to, plain ? "%c" : "=%02X", *p);
        column = *p == '\n' ? 0 : column + (plain ? 1 : 3);
        if (column >= width) {
            to += sprintf(to, "=\r\n");
            column = 0;
        }
    }
    return out;
}

static char *base64_lines(struct arena *a, const char *text, size_t n, size_t width)
{
    uint8_t *whole = arena_alloc(a, 4 * n / 3 + 8);
    int length = EVP_EncodeBlock(whole, (const uint8_t *)text, (int)n);
    char *out = arena_alloc(a, 2 * (size_t)length + 8), *to = out;
    for (size_t i = 0; i < (size_t)length; i++) {
        *to++ = (char)whole[i];
        if (i % width == width - 1) {
            *to++ = '\r';
            *to++ = '\n';
        }
    }
    *to = 0;
    return out;
}

/* The test documents hold no other 8-bit text than what is replaced here. */
static char *replaced(struct arena *a, const char *text, const char *const (*pairs)[2], size_t n)
{
    char *out = arena_alloc(a, 8 * strlen(text) + 1), *to = out;
    while (*text) {
        size_t i = 0;
        while (i < n && strncmp(text, pairs[i][0], strlen(pairs[i][0])) != 0)
            i++;
        if (i == n) {
            *to++ = *text++;
            continue;
        }
        to += sprintf(to, "%s", pairs[i][1]);
        text += strlen(pairs[i][0]);
    }
    *to = 0;
    return out;
}

static char *windows_1252(struct arena *a, const char *text)
{
    static const char *const pairs[][2] = {
        {"\xc3\xa9", "\xe9"}, {"\xe2\x80\x9c", "\x93"}, {"\xe2\x80\x9d", "\x94"}};
    return replaced(a, text, pairs, 3);
}

static char *html(struct arena *a, const char *text)
{
    static const char *const pairs[][2] = {{"\xc3\xa9", "&eacute;"},
                                           {"\xe2\x80\x9c", "&ldquo;"},
                                           {"\xe2\x80\x9d", "&#8221;"},
                                           {" b", "</p><p class=\"x>y\">b"},
                                           {" c", "&nbsp;c"}};
    return arena_printf(a,
                        "<html><head><title>no</title><style>p{x:y}</style></head><body><!-- not "
                        "this -> --><p>%s</p></body></html>",
                        replaced(a, text, pairs, 5));
}

static const char footer[] =
    "\r\n-- \r\nThis e-mail and any attachments are confidential and intended solely for the "
    "addressee. If you have received it in error please notify the sender and delete it.";

enum mutation {
    REWRAPPED,
    BLANKS,
    QUOTED,
    QUOTED_OTHERWISE,
    BASE64,
    BASE64_CP1252,
    HTML_ONLY,
    ALTERNATIVE,
    ALTERNATIVE_HTML_FIRST,
    LF_ONLY,
    DISCLAIMER,
    BANNER,
    LIST_FOOTER,
    QUOTED_REPLY,
    TRUNCATED,
    MUTATIONS
};

static const struct {
    const char *name;
    bool exact;
    unsigned from_words; /* shorter documents are not promised to survive it */
} mutations[MUTATIONS] = {
    [REWRAPPED] = {"wrapped at 60", true, 0},
    [BLANKS] = {"more blanks and empty lines", true, 0},
    [QUOTED] = {"quoted-printable", true, 0},
    [QUOTED_OTHERWISE] = {"quoted-printable, soft breaks elsewhere", true, 0},
    [BASE64] = {"base64", true, 0},
    [BASE64_CP1252] = {"base64 at another width in windows-1252", true, 0},
    [HTML_ONLY] = {"as HTML", true, 0},
    [ALTERNATIVE] = {"as text and HTML", true, 0},
    [ALTERNATIVE_HTML_FIRST] = {"as HTML and text", true, 0},
    [LF_ONLY] = {"LF line ends", true, 0},
    [DISCLAIMER] = {"a disclaimer below", false, 10},
    [BANNER] = {"a banner above", false, 10},
    [LIST_FOOTER] = {"a list footer", false, 10},
    [QUOTED_REPLY] = {"quoted in a reply", false, 10},
    [TRUNCATED] = {"cut in half", false, 30},
};

#define ALTERNATIVE_HEAD "Content-Type: multipart/alternative; boundary=\"b=1\"\r\n"
#define TEXT_HEAD "Content-Type: text/plain; charset=\"UTF-8\"\r\n"

static struct fingerprints mutated(struct arena *a, enum mutation m, const char *t)
{
    switch (m) {
    case REWRAPPED:
        return read_body(a, TEXT_HEAD, wrapped(a, t, 60));
    case BLANKS:
        return read_body(a, "", doubled_blanks(a, t));
    case QUOTED:
        return read_body(a, TEXT_HEAD "Content-Transfer-Encoding: quoted-printable\r\n",
                         quoted_printable(a, t, 70));
    case QUOTED_OTHERWISE:
        return read_body(a, TEXT_HEAD "Content-Transfer-Encoding: QUOTED-PRINTABLE\r\n",
                         quoted_printable(a, wrapped(a, t, 90), 33));
    case BASE64:
        return read_body(a, TEXT_HEAD "Content-Transfer-Encoding: base64\r\n",
                         base64_lines(a, t, strlen(t), 76));
    case BASE64_CP1252: {
        const char *w = windows_1252(a, t);
        return read_body(a,
                         "Content-Type: text/plain; charset=Windows-1252\r\n"
                         "Content-Transfer-Encoding: base64\r\n",
                         base64_lines(a, w, strlen(w), 64));
    }
    case HTML_ONLY:
        return read_body(a, "Content-Type: text/html\r\n", html(a, t));
    case ALTERNATIVE:
    case ALTERNATIVE_HTML_FIRST: {
        const char *plain = arena_printf(a, TEXT_HEAD "\r\n%s", t);
        const char *rich = arena_printf(a, "Content-Type: text/html\r\n\r\n%s more", html(a, t));
        bool html_first = m == ALTERNATIVE_HTML_FIRST;
        return read_body(a, ALTERNATIVE_HEAD,
                         arena_printf(a, "pre\r\n--b=1\r\n%s\r\n--b=1\r\n%s\r\n--b=1--\r\n",
                                      html_first ? rich : plain, html_first ? plain : rich));
    }
    case LF_ONLY:
        return read_text(a, arena_printf(a, "From: a@b\n\n%s\n\n", t));
    case DISCLAIMER:
        return read_body(a, "", arena_printf(a, "%s%s", t, footer));
    case BANNER:
        return read_body(a, "",
                         arena_printf(a,
                                      "CAUTION: this message came from outside, do not click "
                                      "links.\r\n%s",
                                      t));
    case LIST_FOOTER:
        return read_body(
            a, "", arena_printf(a, "%s\r\n_______\r\nList mailing list\r\nList@lists.x\r\n", t));
    case QUOTED_REPLY: {
        static const char *const pairs[][2] = {{"\r\n", "\r\n> "}};
        return read_body(a, "",
                         arena_printf(a, "Please stop sending this to everybody!\r\n> %s",
                                      replaced(a, wrapped(a, t, 60), pairs, 1)));
    }
    case TRUNCATED:
        return read_body(a, "", arena_printf(a, "%.*s", (int)(strlen(t) / 2), t));
    case MUTATIONS:
        break;
    }
    abort();
}

static bool same_content(const struct fingerprints *x, const struct fingerprints *y)
{
    unsigned samples;
    double c = sketch_containment(&x->sketch, &y->sketch, &samples);
    return x->f == y->f || (samples >= MIN_SAMPLES && c >= 0.6);
}

static void rewriting_keeps_f_and_additions_keep_containment(void **state)
{
    (void)state;
    static const unsigned lengths[] = {10, 30, 100, 400, 2000};
    enum { TIMES = 20 };
    for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
        unsigned kept[MUTATIONS] = {0};
        for (unsigned i = 0; i < TIMES; i++) {
            struct arena *a = arena_new();
            const char *t = document(a, lengths[l]);
            struct fingerprints original = read_body(a, TEXT_HEAD, t);
            for (int m = 0; m < MUTATIONS; m++) {
                struct fingerprints fp = mutated(a, (enum mutation)m, t);
                if (mutations[m].exact && fp.f != original.f)
                    fail_msg("%u words, %s: another F", lengths[l], mutations[m].name);
                if (mutations[m].exact)
                    assert_memory_equal(&fp.sketch, &original.sketch, sizeof fp.sketch);
                else
                    assert_true(fp.f != original.f);
                kept[m] += same_content(&fp, &original);
            }
            arena_free(&a);
        }
        for (int m = 0; m < MUTATIONS; m++)
            if (lengths[l] >= mutations[m].from_words && kept[m] * 100 < TIMES * 95)
                fail_msg("%u words, %s: the same for %u of %u", lengths[l], mutations[m].name,
                         kept[m], TIMES);
    }
}

static void unrelated_texts_are_never_the_same(void **state)
{
    (void)state;
    static const unsigned lengths[] = {12, 40, 150, 600};
    enum { N = 400 };
    static struct fingerprints fp[N];
    for (unsigned i = 0; i < N; i++) {
        struct arena *a = arena_new();
        fp[i] = read_body(a, "", document(a, lengths[random32() % 4]));
        for (unsigned j = 0; j < i; j++)
            assert_false(same_content(&fp[i], &fp[j]));
        arena_free(&a);
    }
}

static void containment_is_bounded_by_the_fuller_sketch(void **state)
{
    (void)state;
    static const struct {
        struct sketch a, b;
        double c;
        unsigned samples;
    } cases[] = {
        {{{1, 2, 3, 4}, 4}, {{1, 2, 3, 4}, 4}, 1, 4},
        {{{1, 2, 3, 4}, 4}, {{1, 2, 5, 6, 7, 8}, 6}, 0.5, 4},
        {{{1, 2, 3, 4}, 4}, {{0}, 0}, 0, 0},
        {{{1}, 1}, {{2}, 1}, 0, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        unsigned samples, other;
        assert_true(sketch_containment(&cases[i].a, &cases[i].b, &samples) == cases[i].c);
        assert_true(sketch_containment(&cases[i].b, &cases[i].a, &other) == cases[i].c);
        assert_int_equal(samples, cases[i].samples);
        assert_int_equal(other, cases[i].samples);
    }
    struct sketch full = {.n = SKETCH_MAX}, few = {{1, 3, 5, 1000}, 4};
    for (uint32_t i = 0; i < SKETCH_MAX; i++)
        full.value[i] = 2 * i + 1;
    unsigned samples;
    assert_true(sketch_containment(&full, &few, &samples) == 1); /* 1000 is out of sight */
    assert_int_equal(samples, 3);
}

/* ---- the same or another F ---- */

static const struct {
    const char *name, *one, *other;
    bool same;
} pairs[] = {
    {"a digit more", "\r\nout of 10", "\r\nout of 100", false},
    {"case", "\r\nHello World", "\r\nhello world", true},
    {"order of words", "\r\na b c", "\r\nb a c", false},
    {"cut of words", "\r\nab c", "\r\na bc", false},
    {"a soft hyphen", "\r\nco\xc2\xadoperate", "\r\ncooperate", true},
    {"a zero width space", "\r\nco\xe2\x80\x8boperate", "\r\ncooperate", true},
    {"a no-break space",
     "\r\na\xc2\xa0"
     "b",
     "\r\na b", true},
    {"curly and straight quotes", "\r\n\xe2\x80\x9cit\xe2\x80\x99s\xe2\x80\x9d", "\r\n\"it's\"",
     true},
    {"fullwidth letters", "\r\n\xef\xbc\xa1\xef\xbd\x82", "\r\nab", true},
    {"ligature",
     "\r\no\xef\xac\x83"
     "ce",
     "\r\noffice", true},
    {"upper case beyond ASCII", "\r\n\xc3\x89t\xc3\xa9 \xd0\x96 \xce\xa3",
     "\r\n\xc3\xa9t\xc3\xa9 \xd0\xb6 \xcf\x83", true},
    {"latin-1 unmarked", "\r\ncaf\xe9 x", "\r\ncaf\xc3\xa9 x", true},
    {"latin-1 marked", "Content-Type: text/plain; charset=iso-8859-1\r\n\r\ncaf\xe9 x",
     "\r\ncaf\xc3\xa9 x", true},
    {"UTF-16",
     "Content-Type: text/plain; charset=utf-16\r\nContent-Transfer-Encoding: base64\r\n"
     "\r\n/v8AYQDpACAAYg==",
     "\r\na\xc3\xa9 b", true},
    {"an attachment or none",
     "Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\ntext\r\n--x\r\n"
     "Content-Type: image/png\r\n\r\nPNG\r\n--x--\r\n",
     "\r\ntext", false},
    {"another boundary, encoding and file name",
     "Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\ntext\r\n--x\r\n"
     "Content-Type: image/png; name=a\r\nContent-Transfer-Encoding: "
     "base64\r\n\r\nUE5H\r\n--x--\r\n",
     "Content-Type: multipart/mixed; boundary=\"==y\"\r\n\r\n--==y\r\n\r\ntext\r\n--==y\r\n"
     "Content-Type: image/png; name=b\r\nContent-Transfer-Encoding: BASE64\r\n\r\nUE\r\n5H\r\n"
     "--==y--\r\n",
     true},
    {"another content of the attachment",
     "Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\ntext\r\n--x\r\n"
     "Content-Type: image/png\r\n\r\nPNG\r\n--x--\r\n",
     "Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\ntext\r\n--x\r\n"
     "Content-Type: image/png\r\n\r\nPNGA\r\n--x--\r\n",
     false},
    {"attachments in another order",
     "Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: a/b\r\n\r\n1\r\n--x\r\n"
     "Content-Type: a/b\r\n\r\n2\r\n--x--\r\n",
     "Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: a/b\r\n\r\n2\r\n--x\r\n"
     "Content-Type: a/b\r\n\r\n1\r\n--x--\r\n",
     true},
    {"an attached text is no text",
     "Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\none\r\n--x\r\n"
     "Content-Disposition: attachment; filename=a\r\n\r\ntwo\r\n--x--\r\n",
     "\r\none two", false},
    {"two text parts are one text",
     "Content-Type: multipart/mixed; "
     "boundary=x\r\n\r\n--x\r\n\r\none\r\n--x\r\n\r\ntwo\r\n--x--\r\n",
     "\r\none two", true},
    {"preamble and epilogue do not count",
     "Content-Type: multipart/mixed; boundary=x\r\n\r\npre\r\n--x\r\n\r\none\r\n--x--\r\npost\r\n",
     "\r\none", true},
    {"the end is missing", "Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\none",
     "\r\none", true},
    {"a boundary in unbalanced quotes",
     "Content-Type: multipart/mixed; boundary=\"x\r\n\r\n--x\r\n\r\none\r\n--x--\r\n", "\r\none",
     true},
    {"a boundary longer than 70",
     "Content-Type: multipart/mixed; "
     "boundary=aaaaaaaaaabbbbbbbbbbaaaaaaaaaabbbbbbbbbbaaaaaaaaaabbbbb"
     "bbbbbaaaaaaaaaabbbbbbbbbb\r\n\r\n--"
     "aaaaaaaaaabbbbbbbbbbaaaaaaaaaabbbbbbbbbbaaaaaaaaaabbbbbbbbb"
     "baaaaaaaaaabbbbbbbbbb\r\n\r\none\r\n",
     "\r\none", true},
    {"no boundary: all of it is text", "Content-Type: multipart/mixed\r\n\r\none", "\r\none", true},
    {"an inner boundary that begins like the outer",
     "Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: multipart/mixed; "
     "boundary=xy\r\n\r\n--xy\r\n\r\none\r\n--xy\r\n\r\ntwo\r\n--x\r\n\r\nthree\r\n--x--\r\n",
     "\r\none two three", true},
    {"a line that only begins like a boundary",
     "Content-Type: multipart/mixed; "
     "boundary=x\r\n\r\n--x\r\n\r\none\r\n--xa\r\n-\r\n--\r\n--x--\r\n",
     "\r\none xa", true},
    {"blanks behind a boundary",
     "Content-Type: multipart/mixed; boundary=x\r\n\r\n--x \t\r\n\r\none\r\n--x-- \r\n", "\r\none",
     true},
    {"an enclosed message",
     "Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: message/rfc822\r\n\r\n"
     "Subject: not this\r\nContent-Type: "
     "text/html\r\n\r\n<b>one</b>\r\n--x\r\n\r\ntwo\r\n--x--\r\n",
     "\r\none two", true},
    {"a digest of messages",
     "Content-Type: multipart/digest; boundary=x\r\n\r\n--x\r\n\r\nSubject: "
     "s\r\n\r\none\r\n--x--\r\n",
     "\r\none", true},
    {"short text with HTML: the HTML",
     "Content-Type: multipart/alternative; boundary=x\r\n\r\n--x\r\n\r\nshort\r\n--x\r\n"
     "Content-Type: text/html\r\n\r\n<p>one</p>\r\n--x--\r\n",
     "\r\none", true},
    {"short text with HTML that says nothing: the text",
     "Content-Type: multipart/alternative; boundary=x\r\n\r\n--x\r\n\r\nshort\r\n--x\r\n"
     "Content-Type: text/html\r\n\r\n<img src=x>\r\n--x--\r\n",
     "\r\nshort", true},
    {"HTML beside an image in an alternative, then a list's footer",
     "Content-Type: multipart/mixed; boundary=y\r\n\r\n--y\r\n"
     "Content-Type: multipart/alternative; boundary=x\r\n\r\n--x\r\n\r\na b c d e f g h\r\n--x\r\n"
     "Content-Type: multipart/related; boundary=z\r\n\r\n--z\r\nContent-Type: text/html\r\n\r\nrich"
     "\r\n--z--\r\n--x--\r\n--y\r\n\r\nfooter\r\n--y--\r\n",
     "\r\na b c d e f g h footer", true},
    {"entities", "Content-Type: text/html\r\n\r\ncaf&eacute; &#99;&#x61; &nbsp;&unknown;&amp x",
     "\r\ncaf\xc3\xa9 ca x", true},
    {"no entities, no tags", "Content-Type: text/html\r\n\r\na < b & c; d &", "\r\na b c d", true},
    {"a script that holds tags",
     "Content-Type: text/html\r\n\r\none<script>if (a<b) x=\"'</p>\";</script>two", "\r\none two",
     true},
    {"a head that never ends", "Content-Type: text/html\r\n\r\n<head><title>x</title><body y=1>one",
     "\r\none", true},
    {"quoted-printable with errors",
     "Content-Transfer-Encoding: quoted-printable\r\n\r\no=\r\nne =XY t=77o =", "\r\none =XY two",
     true},
    {"base64 with junk and a pad within",
     "Content-Transfer-Encoding: base64\r\n\r\nb2 5l!I A==\r\ndHdv", "\r\none two", true},
};

static void pairs_have_the_same_text_or_not(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        struct arena *a = arena_new();
        struct fingerprints one = read_text(a, pairs[i].one), other = read_text(a, pairs[i].other);
        if (one.nwords + one.nattachments == 0 || other.nwords + other.nattachments == 0)
            fail_msg("%s: %u and %u words", pairs[i].name, one.nwords, other.nwords);
        if ((one.f == other.f) != pairs[i].same)
            fail_msg("%s: %s, %u and %u words", pairs[i].name,
                     pairs[i].same ? "another F" : "the same F", one.nwords, other.nwords);
        arena_free(&a);
    }
}

static void pieces_do_not_matter(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        for (uint32_t step = 1; step <= 24; step++) {
            struct arena *a = arena_new();
            struct fingerprints whole = read_text(a, pairs[i].one);
            struct fingerprints cut = read_raw(a, span_str(pairs[i].one), step);
            if (whole.f != cut.f || whole.raw != cut.raw || whole.nwords != cut.nwords ||
                whole.nattachments != cut.nattachments)
                fail_msg("%s, in pieces of up to %u", pairs[i].name, step);
            assert_memory_equal(&whole.k, &cut.k, sizeof cut.k);
            arena_free(&a);
        }
    }
}

/* ---- F_raw ---- */

static void raw_is_the_relaxed_body(void **state)
{
    (void)state;
    static const struct {
        const char *one, *other;
        bool same;
    } cases[] = {
        {"a b\r\n", "a \t b \t\r\n\r\n\r\n", true},
        {"a b\r\n", "a b", true},
        {"a b\r\n", "a b\n", true},
        {"a b\r\n", " a b\r\n", false},
        {"a\r\n\r\nb\r\n", "a\r\nb\r\n", false},
        {"a\r\n\r\nb\r\n", "a  \r\n \t \r\nb\r\n  \r\n", true},
        {"a\rb", "ab", false},
        {"", "\r\n \r\n", true},
        {"", "a", false},
        {"a\r", "a", false},
        {"0123456789abcdef  x", "0123456789abcdef x", true},
        {"01234567  abcdef0x", "01234567 abcdef0x", true},
        {"0123456  89abcdefx", "0123456 89abcdefx", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct arena *a = arena_new();
        uint64_t one = read_body(a, "", cases[i].one).raw;
        if ((one == read_body(a, "", cases[i].other).raw) != cases[i].same)
            fail_msg("case %zu", i);
        arena_free(&a);
    }
}

/* ---- identity ---- */

static const char base_head[] = "Message-ID: <a@b>\r\nDate: Mon, 23 Jan 2006 10:00:00 +0000\r\n"
                                "From: A <a@b>\r\nSubject: s\r\n";

static const struct {
    const char *name, *head, *body;
    bool same;
} identities[] = {
    {"another body", "Message-ID: <a@b>\r\nDate: Mon, 23 Jan 2006 10:00:00 +0000\r\nFrom: a@b\r\n",
     "other", true},
    {"the same instant elsewhere",
     "Message-ID: <a@b>\r\nDate: 23 Jan 06 11:00 +0100 (CET)\r\nFrom: a@b\r\n", "", true},
    {"blanks in the Message-ID",
     "Message-ID: < a@\r\n b >\r\nDate: Mon, 23 Jan 2006 05:00:00 EST\r\nFrom: <A@B>\r\n", "",
     true},
    {"a second Message-ID below",
     "Message-ID: <a@b>\r\nMessage-ID: <c@d>\r\nDate: Mon, 23 Jan 2006 10:00:00 GMT\r\nFrom: "
     "a@b\r\n",
     "", true},
    {"another date", "Message-ID: <a@b>\r\nDate: Mon, 23 Jan 2006 10:00:01 +0000\r\nFrom: a@b\r\n",
     "", false},
    {"another author",
     "Message-ID: <a@b>\r\nDate: Mon, 23 Jan 2006 10:00:00 +0000\r\nFrom: c@b\r\n", "", false},
    {"a redirect",
     "Message-ID: <a@b>\r\nDate: Mon, 23 Jan 2006 10:00:00 +0000\r\nFrom: a@b\r\n"
     "Resent-Message-ID: <r@s>\r\n",
     "", false},
    {"no Message-ID", "Date: Mon, 23 Jan 2006 10:00:00 +0000\r\nFrom: a@b\r\nSubject: s\r\n", "",
     false},
};

static bool key_eq(const struct key *a, const struct key *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

static void identity_is_id_date_author_and_redirect(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof identities / sizeof *identities; i++) {
        struct arena *a = arena_new();
        struct fingerprints base = read_text(a, arena_printf(a, "%s\r\n", base_head));
        struct fingerprints fp =
            read_text(a, arena_printf(a, "%s\r\n%s", identities[i].head, identities[i].body));
        if (key_eq(&base.k, &fp.k) != identities[i].same)
            fail_msg("%s", identities[i].name);
        arena_free(&a);
    }
}

static void without_a_message_id_the_content_is_part_of_it(void **state)
{
    (void)state;
    struct arena *a = arena_new();
    struct fingerprints one = read_body(a, "Subject: s\r\n", "one two");
    struct fingerprints same = read_body(a, "Subject: s\r\n", "one\r\n two");
    struct fingerprints other = read_body(a, "Subject: s\r\n", "one three");
    struct fingerprints subject = read_body(a, "Subject: t\r\n", "one two");
    assert_true(key_eq(&one.k, &same.k));
    assert_false(key_eq(&one.k, &other.k));
    assert_false(key_eq(&one.k, &subject.k));
    struct key v1 = fingerprint_variant(&keys, &one.k, 1),
               v2 = fingerprint_variant(&keys, &one.k, 2);
    assert_false(key_eq(&v1, &v2) || key_eq(&v1, &one.k));
    arena_free(&a);
}

static void header_facts_are_read(void **state)
{
    (void)state;
    struct arena *a = arena_new();
    struct fingerprints fp =
        read_text(a, "Message-ID: <x@y>\r\nFrom: \"A, B\" <Al@B>\r\nSubject: =?x?\r\n two\r\n"
                     "Date: never\r\nList-Id: The List <L.example>\r\nResent-Date: Thu, 1 Jan 1970 "
                     "00:00:10 +0000"
                     "\r\n\r\none two three");
    assert_true(span_eq(fp.message_id, SPAN("x@y")));
    assert_true(span_eq(fp.from, SPAN("al@b")));
    assert_true(span_eq(fp.subject, SPAN("=?x? two")));
    assert_true(span_eq(fp.date, SPAN("never")));
    assert_true(span_eq(fp.list_id, SPAN("l.example")));
    assert_true(span_eq(fp.resent, SPAN("10")));
    assert_true(fp.list_marked && fp.nwords == 3 && fp.sketch.n == 0 && fp.body_bytes == 13);
    assert_int_equal(fingerprint_f_of(&keys, &fp, 3, false), fp.f);
    struct fingerprints head = read_body(a, "Precedence: Bulk\r\n", "one two");
    struct fingerprints tail = read_body(a, "Precedence: first-class\r\n", "two three");
    assert_int_equal(fingerprint_f_of(&keys, &fp, 2, false), head.f);
    assert_int_equal(fingerprint_f_of(&keys, &fp, 2, true), tail.f);
    assert_true(head.list_marked && !tail.list_marked);
    arena_free(&a);
}

/* ---- limits ---- */

static char *repeated(struct arena *a, const char *head, const char *unit, size_t times,
                      struct span *raw)
{
    size_t nhead = strlen(head), n = strlen(unit);
    char *p = arena_alloc(a, nhead + n * times + 1);
    memcpy(p, head, nhead);
    for (size_t i = 0; i < times; i++)
        memcpy(p + nhead + i * n, unit, n);
    *raw = span_of(p, nhead + n * times);
    return p;
}

static void text_beyond_the_limit_does_not_count(void **state)
{
    (void)state;
    struct arena *a = arena_new();
    struct span raw;
    char *p = repeated(a, "\r\n", "four ", 20000, &raw);
    struct fingerprints fp = read_raw(a, raw, UINT32_MAX);
    assert_int_equal(fp.nwords, LIMIT_TEXT / 5);
    memcpy(p + raw.n - 5, "five", 4);
    assert_int_equal(read_raw(a, raw, 500).f, fp.f);
    memcpy(p + 2, "five", 4);
    assert_true(read_raw(a, raw, 500).f != fp.f);
    repeated(a, "\r\n", "x", 200000, &raw);
    assert_int_equal(read_raw(a, raw, 5000).nwords, 0);
    repeated(a, "\r\n", "x ", 200000, &raw);
    assert_int_equal(read_raw(a, raw, UINT32_MAX).nwords, LIMIT_WORDS);
    arena_free(&a);
}

static void bombs_are_linear_and_small(void **state)
{
    (void)state;
    static const char *const bombs[][2] = {
        {"\r\n", "\r"},
        {"\r\n", "\n"},
        {"\r\n", " \r\n"},
        {"Content-Transfer-Encoding: quoted-printable\r\n\r\n", "=\r\n"},
        {"Content-Transfer-Encoding: quoted-printable\r\n\r\n", "="},
        {"Content-Transfer-Encoding: base64\r\n\r\n", "===="},
        {"Content-Type: text/html\r\n\r\n", "<"},
        {"Content-Type: text/html\r\n\r\n", "<!--"},
        {"Content-Type: text/html\r\n\r\n", "<a b='"},
        {"Content-Type: text/html\r\n\r\n", "&#9"},
        {"Content-Type: text/html\r\n\r\n", "</script <script>"},
        {"Content-Type: multipart/mixed; boundary=x\r\n\r\n", "--x\r\n"},
        {"Content-Type: multipart/mixed; boundary=x\r\n\r\n", "--x\r\n\r\na\r\n"},
        {"Content-Type: multipart/mixed; boundary=x\r\n\r\n",
         "--x\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n"},
        {"Content-Type: multipart/mixed; boundary=x\r\n\r\n",
         "--x\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n--y\r\n"},
        {"Content-Type: multipart/mixed; boundary=x\r\n\r\n", "--x\r\na: b\r\n"},
        {"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n", "a: b\r\n"},
        {"Content-Type: multipart/mixed; boundary=x\r\n\r\n", "--x --"},
        {"Content-Type: message/rfc822\r\n\r\n", "Content-Type: message/rfc822\r\n\r\n"},
        {"\r\n", "\xe2\x80"},
        {"Content-Type: text/plain; charset=utf-16\r\n\r\n", "\xd8"},
    };
    for (size_t i = 0; i < sizeof bombs / sizeof *bombs; i++) {
        struct arena *a = arena_new(), *input = arena_new();
        struct span raw;
        repeated(input, bombs[i][0], bombs[i][1], 300000, &raw);
        struct fingerprints whole = read_raw(a, raw, UINT32_MAX);
        assert_true(arena_used(a) < 16 << 20);
        assert_int_equal(whole.f, read_raw(a, raw, 3000).f);
        arena_free(&a);
        arena_free(&input);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pairs_have_the_same_text_or_not),
        cmocka_unit_test(pieces_do_not_matter),
        cmocka_unit_test(raw_is_the_relaxed_body),
        cmocka_unit_test(identity_is_id_date_author_and_redirect),
        cmocka_unit_test(without_a_message_id_the_content_is_part_of_it),
        cmocka_unit_test(header_facts_are_read),
        cmocka_unit_test(rewriting_keeps_f_and_additions_keep_containment),
        cmocka_unit_test(unrelated_texts_are_never_the_same),
        cmocka_unit_test(containment_is_bounded_by_the_fuller_sketch),
        cmocka_unit_test(text_beyond_the_limit_does_not_count),
        cmocka_unit_test(bombs_are_linear_and_small),
    };
    return cmocka_run_group_tests(tests, open_keys, close_keys);
}
