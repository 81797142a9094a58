/*
 * topic.c - the base of a Subject line.
 *
 *   =?utf-8?q?Re=3A_AW=5B2=5D=3A?= [list]  Figures   decoded, lower case, blanks collapsed:
 *   re: aw[2]: [list] figures                        prefixes and tags off, from the left:
 *   figures
 *
 * Invariant: linear in the bytes looked at, which are TOPIC_BYTES.
 */
#include "topic.h"

#include "charset.h"
#include "transfer.h"
#include "words.h"

enum kind { KIND_REPLY, KIND_FORWARD, KIND_MACHINE };

struct prefix {
    struct span text;
    enum kind kind;
};

/* Words before a colon; they may carry a count: "re[2]:", "re (3):", "re^4:". */
static const struct prefix prefixes[] = {
    {SPAN_INIT("re"), KIND_REPLY},
    {SPAN_INIT("aw"), KIND_REPLY},                       /* German */
    {SPAN_INIT("antw"), KIND_REPLY},                     /* Dutch, German */
    {SPAN_INIT("sv"), KIND_REPLY},                       /* Danish, Norwegian, Swedish */
    {SPAN_INIT("vs"), KIND_REPLY},                       /* Finnish */
    {SPAN_INIT("ref"), KIND_REPLY},                      /* French */
    {SPAN_INIT("r"), KIND_REPLY},                        /* Italian */
    {SPAN_INIT("rif"), KIND_REPLY},                      /* Italian */
    {SPAN_INIT("odp"), KIND_REPLY},                      /* Polish */
    {SPAN_INIT("res"), KIND_REPLY},                      /* Portuguese */
    {SPAN_INIT("ynt"), KIND_REPLY},                      /* Turkish */
    {SPAN_INIT("atb"), KIND_REPLY},                      /* Welsh */
    {SPAN_INIT("\xe5\x9b\x9e\xe5\xa4\x8d"), KIND_REPLY}, /* Chinese: hui fu, da fu */
    {SPAN_INIT("\xe5\x9b\x9e\xe8\xa6\x86"), KIND_REPLY},
    {SPAN_INIT("\xe7\xad\x94\xe5\xa4\x8d"), KIND_REPLY},
    {SPAN_INIT("fw"), KIND_FORWARD},
    {SPAN_INIT("fwd"), KIND_FORWARD},
    {SPAN_INIT("wg"), KIND_FORWARD},                       /* German */
    {SPAN_INIT("tr"), KIND_FORWARD},                       /* French */
    {SPAN_INIT("i"), KIND_FORWARD},                        /* Italian */
    {SPAN_INIT("vb"), KIND_FORWARD},                       /* Swedish */
    {SPAN_INIT("vl"), KIND_FORWARD},                       /* Finnish */
    {SPAN_INIT("rv"), KIND_FORWARD},                       /* Spanish */
    {SPAN_INIT("enc"), KIND_FORWARD},                      /* Portuguese */
    {SPAN_INIT("pd"), KIND_FORWARD},                       /* Polish */
    {SPAN_INIT("doorst"), KIND_FORWARD},                   /* Dutch */
    {SPAN_INIT("\xe8\xbd\xac\xe5\x8f\x91"), KIND_FORWARD}, /* Chinese: zhuan fa, zhuan ji */
    {SPAN_INIT("\xe8\xbd\x89\xe5\xaf\x84"), KIND_FORWARD},
    {SPAN_INIT("auto"), KIND_MACHINE},
    {SPAN_INIT("autoreply"), KIND_MACHINE},
    {SPAN_INIT("auto-reply"), KIND_MACHINE},
    {SPAN_INIT("auto reply"), KIND_MACHINE},
    {SPAN_INIT("auto response"), KIND_MACHINE},
    {SPAN_INIT("automatic reply"), KIND_MACHINE},
    {SPAN_INIT("automatic response"), KIND_MACHINE},
    {SPAN_INIT("out of office"), KIND_MACHINE},
    {SPAN_INIT("out of the office"), KIND_MACHINE},
    {SPAN_INIT("out of office autoreply"), KIND_MACHINE},
    {SPAN_INIT("vacation"), KIND_MACHINE},
    {SPAN_INIT("undeliverable"), KIND_MACHINE},
    {SPAN_INIT("undelivered"), KIND_MACHINE},
    {SPAN_INIT("returned mail"), KIND_MACHINE},
    {SPAN_INIT("delivery failure"), KIND_MACHINE},
    {SPAN_INIT("abwesend"), KIND_MACHINE},
    {SPAN_INIT("abwesenheitsnotiz"), KIND_MACHINE},
    {SPAN_INIT("automatische antwort"), KIND_MACHINE},
    {SPAN_INIT("unzustellbar"), KIND_MACHINE},
    {SPAN_INIT("automatisch antwoord"), KIND_MACHINE},
    {SPAN_INIT("automatiskt svar"), KIND_MACHINE},
    {SPAN_INIT("automatisk svar"), KIND_MACHINE},
    {SPAN_INIT("autosvar"), KIND_MACHINE},
    {SPAN_INIT("automaattinen vastaus"), KIND_MACHINE},
    {SPAN_INIT("r\xc3\xa9ponse automatique"), KIND_MACHINE},
    {SPAN_INIT("non remis"), KIND_MACHINE},
    {SPAN_INIT("respuesta autom\xc3\xa1tica"), KIND_MACHINE},
    {SPAN_INIT("no se puede entregar"), KIND_MACHINE},
    {SPAN_INIT("resposta autom\xc3\xa1tica"), KIND_MACHINE},
    {SPAN_INIT("risposta automatica"), KIND_MACHINE},
    {SPAN_INIT("non recapitabile"), KIND_MACHINE},
    {SPAN_INIT("odpowied\xc5\xba automatyczna"), KIND_MACHINE},
    {SPAN_INIT("automatick\xc3\xa1 odpov\xc4\x9b\xc4\x8f"), KIND_MACHINE},
    {SPAN_INIT("automatikus v\xc3\xa1lasz"), KIND_MACHINE},
    {SPAN_INIT("\xd0\x90\xd0\xb2\xd1\x82\xd0\xbe\xd0\xbe\xd1\x82\xd0\xb2\xd0\xb5\xd1\x82"),
     KIND_MACHINE}, /* Russian, its first letter as most write it */
    {SPAN_INIT("\xe8\x87\xaa\xe5\x8a\xa8\xe7\xad\x94\xe5\xa4\x8d"), KIND_MACHINE}, /* Chinese */
    {SPAN_INIT("\xe8\x87\xaa\xe5\x8b\x95\xe5\xbf\x9c\xe7\xad\x94"), KIND_MACHINE}, /* Japanese */
};

/* What machines begin a Subject with, without a colon. */
static const struct span machines[] = {
    SPAN_INIT("undelivered mail returned to sender"),
    SPAN_INIT("delivery status notification"),
    SPAN_INIT("mail delivery failed"),
    SPAN_INIT("mail delivery failure"),
    SPAN_INIT("delivery notification"),
    SPAN_INIT("failure notice"),
};

/* ---- decoded (RFC 2047) ---- */

struct text {
    uint8_t p[TOPIC_BYTES];
    size_t n;
};

static void text_add(struct text *t, struct span s)
{
    s = span_head(s, sizeof t->p - t->n);
    if (s.n)
        memcpy(t->p + t->n, s.p, s.n);
    t->n += s.n;
}

/* The bytes of one encoded word, before its charset is known to them. */
static void word_bytes(void *arg, struct span s)
{
    text_add(arg, s);
}

static void word_decode(struct text *bytes, bool base64, struct span s)
{
    if (base64) {
        struct transfer t = {.encoding = TRANSFER_BASE64};
        transfer_add(&t, s, word_bytes, bytes);
        transfer_end(&t, word_bytes, bytes);
        return;
    }
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = s.p[i] == '_' ? ' ' : s.p[i];
        if (c == '=' && i + 2 < s.n && byte_hex(s.p[i + 1]) >= 0 && byte_hex(s.p[i + 2]) >= 0) {
            c = (uint8_t)(byte_hex(s.p[i + 1]) << 4 | byte_hex(s.p[i + 2]));
            i += 2;
        }
        text_add(bytes, span_of(&c, 1));
    }
}

static void text_add_charset(struct text *t, enum charset cs, struct span s)
{
    struct charset_state st = {0};
    while (s.n || st.npending) {
        uint32_t point[64];
        size_t used, n = charset_decode(cs, &st, s, true, point, 64, &used);
        for (size_t i = 0; i < n; i++) {
            uint8_t utf8[4];
            text_add(t, span_of(utf8, utf8_write(utf8, point[i])));
        }
        if (n == 0 && used == 0)
            return;
        s = span_from(s, used);
    }
}

/* s begins with "=?". Adds the encoded word; returns its bytes, 0: it is none. */
static size_t word_add(struct text *t, struct span s)
{
    struct span rest = span_from(s, 2);
    size_t end = span_find(rest, '?');
    struct span charset = span_head(rest, end);
    charset = span_head(charset, span_find(charset, '*')); /* RFC 2231 5: a language after it */
    rest = span_from(rest, end + 1);
    if (charset.n == 0 || rest.n < 2 || rest.p[1] != '?')
        return 0;
    uint8_t encoding = byte_lower(rest.p[0]);
    rest = span_from(rest, 2);
    for (end = span_find(rest, '?'); end + 1 < rest.n && rest.p[end + 1] != '=';)
        end += 1 + span_find(span_from(rest, end + 1), '?');
    if (end + 1 >= rest.n || (encoding != 'b' && encoding != 'q'))
        return 0;
    struct text bytes;
    bytes.n = 0;
    word_decode(&bytes, encoding == 'b', span_head(rest, end));
    text_add_charset(t, charset_named(charset), span_of(bytes.p, bytes.n));
    return (size_t)(rest.p + end + 2 - s.p);
}

static bool word_begins(struct span s)
{
    return s.n >= 2 && s.p[0] == '=' && s.p[1] == '?';
}

/* Blanks between two encoded words are not part of the text (RFC 2047 6.2). A word that is none
 * makes all that follows plain: so no byte is looked at twice. */
static void decode(struct text *t, struct span s)
{
    while (s.n) {
        size_t plain = 0, taken = 0;
        while (plain < s.n && !word_begins(span_from(s, plain)))
            plain++;
        text_add(t, span_head(s, plain));
        s = span_from(s, plain);
        if (s.n == 0 || (taken = word_add(t, s)) == 0)
            break;
        s = span_from(s, taken);
        struct span next = span_trim(s);
        if (word_begins(next))
            s = next;
    }
    text_add(t, s);
}

/* Lower case, each run of blanks one blank. */
static struct span simplified(struct arena *a, struct span s)
{
    s = span_trim(s);
    uint8_t *p = arena_alloc(a, s.n), *to = p;
    for (size_t i = 0; i < s.n; i++)
        if (!byte_space(s.p[i]))
            *to++ = byte_lower(s.p[i]);
        else if (!byte_space(s.p[i - 1])) /* i > 0: s is trimmed */
            *to++ = ' ';
    return span_of(p, (size_t)(to - p));
}

/* ---- taken off ---- */

static size_t colon_bytes(struct span s)
{
    static const struct span wide = SPAN_INIT("\xef\xbc\x9a");
    if (s.n && s.p[0] == ':')
        return 1;
    return span_starts(s, wide) ? wide.n : 0;
}

/* "[2]", "(2)", "^2", "*2" after a prefix; how many bytes. */
static size_t count_bytes(struct span s)
{
    if (s.n < 2 || (s.p[0] != '[' && s.p[0] != '(' && s.p[0] != '^' && s.p[0] != '*'))
        return 0;
    size_t n = 1;
    while (n < s.n && n < 8 && byte_digit(s.p[n]))
        n++;
    if (n == 1)
        return 0;
    if (s.p[0] == '^' || s.p[0] == '*')
        return n;
    return n < s.n && s.p[n] == (s.p[0] == '[' ? ']' : ')') ? n + 1 : 0;
}

/* The prefix s begins with, how many bytes it takes with its colon; 0: none. */
static size_t prefix_bytes(struct span s, enum kind *kind)
{
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        const struct prefix *p = &prefixes[i];
        if (s.p[0] != p->text.p[0] || !span_starts(s, p->text))
            continue;
        struct span rest = span_from(s, p->text.n);
        rest = span_from(rest, count_bytes(rest));
        rest = span_from(rest, rest.n && rest.p[0] == ' ');
        rest = span_from(rest, count_bytes(rest));
        size_t colon = colon_bytes(rest);
        if (colon) {
            *kind = p->kind;
            return s.n - rest.n + colon;
        }
    }
    for (size_t i = 0; i < sizeof machines / sizeof *machines; i++) {
        bool whole = span_starts(s, machines[i]) &&
                     (s.n == machines[i].n || !byte_letter(s.p[machines[i].n]));
        if (whole) {
            *kind = KIND_MACHINE;
            return machines[i].n;
        }
    }
    return 0;
}

/* "[tag]" or "***tag***", as filters write it, before something; how many bytes. */
static size_t tag_bytes(struct span s)
{
    enum { TAG_BYTES = 48 };
    static const struct span stars = SPAN_INIT("***");
    struct span head = span_head(s, TAG_BYTES), inside = span_from(head, stars.n);
    size_t close = 0;
    if (s.p[0] == '[')
        close = span_find(head, ']') + 1;
    else if (span_starts(s, stars))
        close = stars.n + span_find(inside, '*') + stars.n;
    if (close > head.n || !span_trim(span_from(s, close)).n)
        return 0;
    return s.p[0] == '[' || span_starts(span_from(s, close - stars.n), stars) ? close : 0;
}

void topic_read(struct topic *t, struct arena *a, struct span subject)
{
    *t = (struct topic){0};
    subject = span_head(subject, TOPIC_BYTES);
    struct text decoded;
    if (subject.n && memmem(subject.p, subject.n, "=?", 2)) {
        decoded.n = 0;
        decode(&decoded, subject);
        subject = span_of(decoded.p, decoded.n);
    }
    struct span s = simplified(a, subject);
    while (s.n) {
        enum kind kind = KIND_FORWARD;
        size_t tag = tag_bytes(s), n = tag ? tag : prefix_bytes(s, &kind);
        struct span rest = span_trim(span_from(s, n));
        if (n == 0)
            break;
        if (!tag) {
            t->automatic |= t->prefixes == 0 && kind == KIND_MACHINE;
            t->reply |= kind == KIND_REPLY || kind == KIND_MACHINE;
            t->prefixes++;
        }
        if (rest.n == 0 && kind == KIND_MACHINE)
            break; /* "Failure notice": that is all it is about */
        s = rest;
    }
    t->base = s;
}
