/*
 * ownwords.c - the lines of a text that are neither quoted nor added by a program.
 *
 *   please remove me!                          own: "please remove me"
 *   On Mon, 23 Jan 2006, A. Person wrote:      introduces the quote: taken back when it comes
 *   > The meeting is at ten.                   quoted
 *   --                                         a signature: the end
 *
 * HTML becomes lines first: tags that begin a block end a line, a quote block is the end.
 * Invariant: one walk; what is kept is bounded, whatever the text.
 */
#include "ownwords.h"

enum {
    ENTITY = 10, /* bytes of "&name;" */
    KEPT = 1024, /* bytes of own words kept for the phrases */
    LINE = 400,  /* bytes of one line looked at */
    TAG = 200,   /* bytes of one tag looked at */
    BEFORE = 3,  /* lines that may introduce a quote */
};

/* Letters, digits and one blank between words. */
struct own {
    char p[KEPT + 1];
    size_t n;
    unsigned words;
    struct {
        size_t n;
        unsigned words;
    } intro;        /* what there was before the line that may introduce a quote */
    bool colon;     /* the last line that was not empty ends with a colon */
    unsigned since; /* lines since intro */
    bool over;
};

/* ---- one line ---- */

static bool line_quoted(struct span s)
{
    return s.n && (s.p[0] == '>' || s.p[0] == '|');
}

/* What nobody's own words come after. */
static bool line_ends_text(struct span s)
{
    static const struct span starts[] = {
        SPAN_INIT("-----"), SPAN_INIT("_____"), SPAN_INIT("from: "),        SPAN_INIT("von: "),
        SPAN_INIT("de: "),  SPAN_INIT("de : "), SPAN_INIT("van: "),         SPAN_INIT("fra: "),
        SPAN_INIT("da: "),  SPAN_INIT("od: "),  SPAN_INIT("fr\xc3\xa5n: "), SPAN_INIT("*from:* "),
    };
    if (s.n == 2 && s.p[0] == '-' && s.p[1] == '-')
        return true;
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
        if (span_case_starts(s, starts[i]))
            return true;
    return false;
}

/* What programs write under a text. */
static bool line_of_program(struct span s)
{
    static const struct span starts[] = {
        SPAN_INIT("sent from "),     SPAN_INIT("get outlook for "),
        SPAN_INIT("von meinem "),    SPAN_INIT("envoy\xc3\xa9 de mon "),
        SPAN_INIT("enviado desde "), SPAN_INIT("inviato da "),
    };
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
        if (span_case_starts(s, starts[i]))
            return true;
    return false;
}

/* "On Monday ...": how the line that introduces a quote begins. */
static bool line_begins_intro(struct span s)
{
    static const struct span starts[] = {
        SPAN_INIT("on "), SPAN_INIT("am "), SPAN_INIT("le "),  SPAN_INIT("el "),   SPAN_INIT("il "),
        SPAN_INIT("op "), SPAN_INIT("em "), SPAN_INIT("den "), SPAN_INIT("dnia "), SPAN_INIT("at "),
    };
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
        if (span_case_starts(s, starts[i]))
            return true;
    return false;
}

static bool word_byte(uint8_t c)
{
    return byte_letter(c) || byte_digit(c) || c >= 0x80;
}

static void own_add(struct own *o, struct span s)
{
    bool inside = false;
    for (size_t i = 0; i < s.n; i++) {
        bool in = word_byte(s.p[i]);
        o->words += in && !inside;
        if (in && !inside && o->n && o->n < KEPT)
            o->p[o->n++] = ' ';
        if (in && o->n < KEPT)
            o->p[o->n++] = (char)byte_lower(s.p[i]);
        inside = in;
    }
}

/* A quote begins: the line before it that says so is nobody's words. */
static void own_take_back(struct own *o)
{
    if (o->colon && o->since < BEFORE) {
        o->n = o->intro.n;
        o->words = o->intro.words;
    }
    o->colon = false;
}

static void own_line(struct own *o, struct span s)
{
    s = span_trim(span_head(s, LINE));
    if (s.n == 0 || o->over)
        return;
    if (line_quoted(s)) {
        own_take_back(o);
        return;
    }
    if (line_ends_text(s)) {
        o->over = true;
        return;
    }
    if (line_of_program(s))
        return;
    if (line_begins_intro(s) || o->since + 1 >= BEFORE || !o->words) {
        o->intro.n = o->n;
        o->intro.words = o->words;
        o->since = 0;
    } else {
        o->since++;
    }
    o->colon = s.p[s.n - 1] == ':';
    own_add(o, s);
}

static void own_text(struct own *o, struct span s)
{
    while (s.n && !o->over) {
        size_t end = span_find(s, '\n');
        own_line(o, span_head(s, end));
        s = span_from(s, end + 1);
    }
}

/* ---- HTML ---- */

static bool tag_is(struct span tag, struct span name)
{
    return span_case_starts(tag, name) && (tag.n == name.n || !byte_letter(tag.p[name.n]));
}

/* What mail programs put around the text they answer. */
static bool tag_quotes(struct span tag)
{
    static const struct span marks[] = {SPAN_INIT("gmail_quote"), SPAN_INIT("divRplyFwdMsg"),
                                        SPAN_INIT("border-top:solid"), SPAN_INIT("moz-cite-prefix"),
                                        SPAN_INIT("yahoo_quoted")};
    if (tag_is(tag, SPAN("blockquote")))
        return true;
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (span_case_has(tag, marks[i]))
            return true;
    return false;
}

static bool tag_breaks(struct span tag)
{
    static const struct span names[] = {SPAN_INIT("br"), SPAN_INIT("p"),  SPAN_INIT("div"),
                                        SPAN_INIT("tr"), SPAN_INIT("li"), SPAN_INIT("hr"),
                                        SPAN_INIT("td"), SPAN_INIT("h1")};
    tag = span_from(tag, tag.n && tag.p[0] == '/');
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (tag_is(tag, names[i]))
            return true;
    return false;
}

/* Where the text goes on after a tag; s begins with its '>'. The content of some nobody reads: it
 * goes on with the tag that ends it. */
static struct span after_tag(struct span s, struct span tag)
{
    static const struct {
        struct span name, end;
    } unread[] = {{SPAN_INIT("style"), SPAN_INIT("</style")},
                  {SPAN_INIT("script"), SPAN_INIT("</script")},
                  {SPAN_INIT("title"), SPAN_INIT("</title")},
                  {SPAN_INIT("!--"), SPAN_INIT("-->")}};
    for (size_t i = 0; i < sizeof unread / sizeof *unread; i++) {
        if (!span_case_starts(tag, unread[i].name))
            continue;
        while (s.n && !span_case_starts(s, unread[i].end))
            s = span_from(s, 1 + span_find(span_from(s, 1), unread[i].end.p[0]));
        return unread[i].end.p[0] == '<' ? s : span_from(s, unread[i].end.n);
    }
    return span_from(s, 1);
}

static void own_html(struct own *o, struct span s)
{
    uint8_t line[LINE];
    size_t n = 0;
    while (s.n && !o->over) {
        size_t end = span_find(s, '<');
        for (size_t i = 0; i < end; i++) {
            struct span near = span_head(span_from(s, i), s.p[i] == '&' ? ENTITY : 0);
            size_t entity = span_find(near, ';'); /* &nbsp; is the usual one */
            bool blank = byte_space(s.p[i]) || s.p[i] == '&';
            uint8_t c = blank ? ' ' : s.p[i];
            i += entity < near.n ? entity : 0;
            if (n < sizeof line)
                line[n++] = c;
        }
        s = span_from(s, end + 1);
        if (end == s.n && s.n == 0)
            break;
        end = span_find(s, '>');
        struct span tag = span_head(span_head(s, end), TAG);
        s = span_from(s, end);
        if (tag_breaks(tag) || tag_quotes(tag)) {
            own_line(o, span_of(line, n));
            n = 0;
        }
        if (tag_quotes(tag)) {
            own_take_back(o);
            o->over = true;
        }
        s = after_tag(s, tag);
    }
    own_line(o, span_of(line, n));
}

/* ---- phrases ---- */

/* Words that ask to be left alone, and what is said of such a storm while it blows: lower case, one
 * blank between words. A word may go on: "unsubscribed". */
static const char *const phrases[] = {
    "unsubscribe",        "remove me",        "take me off",      "stop replying",
    "reply all",          "reply to all",     "replying to all",  "replying all",
    "please stop",        "stop sending",     "stop emailing",    "me too",
    "wrong person",       "not for me",       "wrong list",       "off this list",
    "off the list",       "off of this",      "why am i getting", "why am i receiving",
    "stop this",          "bitte nicht mehr", "abmelden",         "allen antworten",
    "an alle antworten",  "ne plus recevoir", "dar de baja",      "no responder a todos",
    "rispondere a tutti",
};

static const char *stop_phrase(const struct own *o)
{
    for (size_t i = 0; i < sizeof phrases / sizeof *phrases; i++) {
        const char *at = o->p;
        while ((at = strstr(at, phrases[i])) && at > o->p && at[-1] != ' ')
            at++;
        if (at)
            return phrases[i];
    }
    return NULL;
}

void ownwords_read(struct ownwords *w, const struct fingerprints *fp)
{
    struct own o;
    o.n = 0;
    o.words = 0;
    o.intro.n = 0;
    o.intro.words = 0;
    o.colon = o.over = false;
    o.since = 0;
    if (fp->opening_html)
        own_html(&o, fp->opening);
    else
        own_text(&o, fp->opening);
    o.p[o.n] = 0;
    bool cut = fp->opening.n >= (fp->opening_html ? OPENING_HTML : OPENING_PLAIN);
    *w = (struct ownwords){
        .n = o.words, .unknown = o.words == 0 && cut && !o.over, .stop = stop_phrase(&o)};
}
