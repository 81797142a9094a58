/*
 * html.c - a state machine over the bytes of an HTML part (after the tokenizer of the HTML
 * standard, with everything left out that text does not need).
 *
 * Only < and & matter in text: the bytes between them go on in one stretch.
 */
#include "html.h"

enum { NAME_MAX_KEPT = sizeof((struct html *)0)->name };

/* Elements whose content nobody sees, by number from 1. */
static const char *const unseen[] = {"", "script", "style", "head", "title"};
enum { UNSEEN = sizeof unseen / sizeof *unseen, HEAD = 3 };

/* Named references; what is not here separates words, like the punctuation it mostly is. Letters
 * only need their lower case. */
static const struct {
    const char *name;
    uint16_t point;
} references[] = {
    {"aacute", 0xe1}, {"acirc", 0xe2},  {"aelig", 0xe6},  {"agrave", 0xe0}, {"amp", '&'},
    {"apos", '\''},   {"aring", 0xe5},  {"atilde", 0xe3}, {"auml", 0xe4},   {"ccedil", 0xe7},
    {"eacute", 0xe9}, {"ecirc", 0xea},  {"egrave", 0xe8}, {"eth", 0xf0},    {"euml", 0xeb},
    {"gt", '>'},      {"iacute", 0xed}, {"icirc", 0xee},  {"igrave", 0xec}, {"iuml", 0xef},
    {"lt", '<'},      {"micro", 0xb5},  {"nbsp", 0xa0},   {"ntilde", 0xf1}, {"oacute", 0xf3},
    {"ocirc", 0xf4},  {"oelig", 0x153}, {"ograve", 0xf2}, {"ordf", 0xaa},   {"ordm", 0xba},
    {"oslash", 0xf8}, {"otilde", 0xf5}, {"ouml", 0xf6},   {"quot", '"'},    {"scaron", 0x161},
    {"shy", 0xad},    {"sup1", 0xb9},   {"sup2", 0xb2},   {"sup3", 0xb3},   {"szlig", 0xdf},
    {"thorn", 0xfe},  {"uacute", 0xfa}, {"ucirc", 0xfb},  {"ugrave", 0xf9}, {"uuml", 0xfc},
    {"yacute", 0xfd}, {"yuml", 0xff},   {"zwj", 0x200d},  {"zwnj", 0x200c},
};

void html_begin(struct html *h, struct words *w, enum charset cs)
{
    memset(h, 0, sizeof *h);
    h->words = w;
    h->charset = cs;
}

static void text(struct html *h, struct span s, bool final)
{
    if (h->skip == 0)
        words_text(h->words, h->charset, &h->decoder, s, final);
}

/* A separator, after what the decoder still waits for. */
static void separate(struct html *h)
{
    text(h, SPAN(""), true);
    if (h->skip == 0)
        words_break(h->words);
}

static void name_add(struct html *h, uint8_t c)
{
    if (h->n < NAME_MAX_KEPT)
        h->name[h->n++] = byte_lower(c);
}

static bool name_is(const struct html *h, const char *name)
{
    return span_eq(span_of(h->name, h->n), span_str(name));
}

/* After the > of a tag. "/" begins the name of an end tag. */
static void tag_ends(struct html *h)
{
    h->state = HTML_TEXT;
    if (h->skip) {
        bool end = h->n && h->name[0] == '/';
        struct span name = span_of(h->name + 1, end ? h->n - (size_t)1 : 0);
        if ((end && span_eq(name, span_str(unseen[h->skip]))) ||
            (h->skip == HEAD && name_is(h, "body")))
            h->skip = 0;
        return;
    }
    for (unsigned i = 1; i < UNSEEN; i++)
        if (name_is(h, unseen[i]))
            h->skip = (uint8_t)i;
}

/* "#233" or "#xe9"; 0: neither. */
static uint32_t numeric(const struct html *h)
{
    bool hex = h->n > 1 && h->name[1] == 'x';
    uint32_t v = 0;
    for (unsigned i = hex ? 2 : 1; i < h->n; i++) {
        int d = byte_hex(h->name[i]);
        if (d < 0 || (d > 9 && !hex) || v > 0x10ffff)
            return 0;
        v = v * (hex ? 16 : 10) + (uint32_t)d;
    }
    if (v >= 0x80 && v < 0xa0)
        return charset_cp1252((uint8_t)v);
    return v > 0x10ffff || (v >= 0xd800 && v < 0xe000) ? 0 : v;
}

static void reference_ends(struct html *h)
{
    uint32_t point = h->n && h->name[0] == '#' ? numeric(h) : 0;
    h->state = HTML_TEXT;
    for (size_t i = 0; point == 0 && i < sizeof references / sizeof *references; i++)
        if (name_is(h, references[i].name))
            point = references[i].point;
    if (h->skip)
        return;
    text(h, SPAN(""), true);
    words_point(h->words, point ? point : ' ');
}

/* Takes text up to the next < or &; inside of what is left out only < matters. */
static size_t take_text(struct html *h, struct span s)
{
    size_t n = span_find(s, '<');
    if (h->skip == 0)
        n = span_find(span_head(s, n), '&');
    text(h, span_head(s, n), false);
    if (n == s.n)
        return n;
    h->n = 0;
    h->state = s.p[n] == '<' ? HTML_LESS : HTML_REFERENCE;
    return n + 1;
}

/* Does c after a < make it markup? In what is left out only its end does. */
static bool begins_markup(const struct html *h, uint8_t c)
{
    if (h->skip)
        return c == '/' || (h->skip == HEAD && byte_lower(c) == 'b');
    return byte_letter(c) || c == '/' || c == '!' || c == '?';
}

/* One byte inside of markup. False: it is not part of it and is to be read again. */
static bool take_markup(struct html *h, uint8_t c)
{
    switch (h->state) {
    case HTML_LESS:
        separate(h);
        if (!begins_markup(h, c)) {
            h->state = HTML_TEXT;
            return false;
        }
        h->dashes = h->equals = 0;
        h->state = c == '!' ? HTML_BANG : HTML_NAME;
        if (c != '!')
            name_add(h, c);
        return true;
    case HTML_BANG:
        if (c != '-') {
            h->state = HTML_TAG;
            return false;
        }
        if (++h->dashes == 2) {
            h->state = HTML_COMMENT;
            h->dashes = 0;
        }
        return true;
    case HTML_NAME:
        if (byte_space(c) || c == '>' || (c == '/' && h->n > 0)) {
            h->state = HTML_TAG;
            return false;
        }
        name_add(h, c);
        return true;
    case HTML_TAG:
        if (c == '>') {
            tag_ends(h);
        } else if ((c == '"' || c == '\'') && h->equals) {
            h->quote = c;
            h->state = HTML_QUOTED;
        } else if (!byte_space(c)) {
            h->equals = c == '=';
        }
        return true;
    case HTML_COMMENT:
        if (c == '>' && h->dashes == 2)
            h->state = HTML_TEXT;
        h->dashes = c == '-' ? (h->dashes < 2 ? h->dashes + 1 : 2) : 0;
        return true;
    case HTML_REFERENCE:
        if (byte_letter(c) || byte_digit(c) || (c == '#' && h->n == 0)) {
            name_add(h, c);
            return true;
        }
        reference_ends(h);
        return c == ';';
    case HTML_QUOTED:
    case HTML_TEXT:
        break;
    }
    return true;
}

/* Skips to the quote that ends an attribute value. */
static size_t take_quoted(struct html *h, struct span s)
{
    size_t n = span_find(s, h->quote);
    if (n == s.n)
        return n;
    h->state = HTML_TAG;
    h->equals = 0;
    return n + 1;
}

void html_add(struct html *h, struct span s)
{
    while (s.n && !h->words->full) {
        if (h->state == HTML_TEXT)
            s = span_from(s, take_text(h, s));
        else if (h->state == HTML_QUOTED)
            s = span_from(s, take_quoted(h, s));
        else if (take_markup(h, s.p[0]))
            s = span_from(s, 1);
    }
}

void html_end(struct html *h)
{
    if (h->state == HTML_REFERENCE)
        reference_ends(h);
    separate(h);
}
