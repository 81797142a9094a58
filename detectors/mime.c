/*
 * mime.c - the walk over the lines of a body.
 *
 *   level[0] boundary "a"          --a          <- a part of level 0: its header, then its leaf
 *   level[1] boundary "b"          --b          <- a part of the multipart inside
 *   level[2] enclosed message                   <- no boundary of its own: ends with its part
 *
 * A line that begins with a dash is gathered (as much as a boundary can be long) and compared with
 * the boundaries from the innermost out; everything else goes on in stretches of many lines.
 * Invariant: the sink is told of exactly the levels that are open; a leaf is open iff mode is
 * LEAF.
 */
#include "mime.h"
#include "transfer.h"

enum {
    BOUNDARY_MAX = 256,                  /* RFC 2046 allows 70 */
    CANDIDATE_MAX = BOUNDARY_MAX + 8,    /* of one line looked at */
    PART_HEAD_MAX = 16 << 10,            /* of one part's header looked at */
    VALUE_MAX = 8 << 10,                 /* of a Content-Type looked at */
    ENTITIES_MAX = 4 * LIMIT_MIME_PARTS, /* part headers read */
};

struct level {
    struct span boundary; /* empty: an enclosed message */
    bool digest;          /* parts are messages unless they say otherwise (RFC 2046 5.1.5) */
};

enum reading {
    PASSED, /* preamble, epilogue, what is beyond a limit */
    HEADER, /* of a part */
    LEAF,
};

struct mime {
    struct arena *arena;
    const struct mime_sink *sink;
    struct level level[LIMIT_MIME_DEPTH];
    size_t depth, nboundaries;
    unsigned leaves, entities;
    enum reading mode;
    struct message *part; /* mode HEADER */
    size_t part_bytes;
    bool wanted; /* mode LEAF: the sink wants the bytes */
    struct transfer transfer;
    bool line_begins; /* the next byte is the first of a line */
    bool line_passed; /* the rest of this line belongs to a boundary */
    size_t nline;
    uint8_t line[CANDIDATE_MAX]; /* a line that may be a boundary */
};

/* ---- Content-Type and Content-Disposition (RFC 2045 5.1) ---- */

/* Passes over blanks and comments. */
static void value_blank(struct span *s)
{
    unsigned depth = 0;
    while (s->n && (depth || byte_space(*s->p) || *s->p == '(')) {
        if (*s->p == '(')
            depth++;
        else if (*s->p == ')')
            depth--;
        *s = span_from(*s, depth && *s->p == '\\' ? 2 : 1);
    }
}

/* The bytes up to one of ; = " ( or a blank. */
static struct span value_token(struct span *s)
{
    size_t n = 0;
    value_blank(s);
    while (n < s->n && !byte_space(s->p[n]) && strchr(";=\"(", s->p[n] ? s->p[n] : 'x') == NULL)
        n++;
    struct span t = span_head(*s, n);
    *s = span_from(*s, n);
    value_blank(s);
    return t;
}

/* A parameter's value, quotes and backslashes undone; without a closing quote all that is left. */
static struct span parameter_value(struct arena *a, struct span *s)
{
    value_blank(s);
    if (s->n == 0 || *s->p != '"') {
        size_t n = 0;
        while (n < s->n && s->p[n] != ';' && !byte_space(s->p[n]))
            n++;
        struct span t = span_head(*s, n);
        *s = span_from(*s, n);
        return t;
    }
    uint8_t *p = arena_alloc(a, s->n);
    size_t n = 0, at = 1;
    for (; at < s->n && s->p[at] != '"'; at++) {
        if (s->p[at] == '\\' && at + 1 < s->n)
            at++;
        p[n++] = s->p[at];
    }
    *s = span_from(*s, at + 1);
    return span_trim(span_of(p, n));
}

void mime_value_parse(struct mime_value *v, struct arena *a, struct span s)
{
    memset(v, 0, sizeof *v);
    s = span_head(s, VALUE_MAX);
    v->type = value_token(&s);
    while (s.n) {
        if (*s.p != ';') { /* a stray byte */
            s = span_from(s, 1);
            continue;
        }
        s = span_from(s, 1);
        struct span name = value_token(&s);
        if (s.n == 0 || *s.p != '=')
            continue;
        s = span_from(s, 1);
        bool charset = span_case_eq(name, SPAN("charset"));
        bool boundary = span_case_eq(name, SPAN("boundary"));
        struct span value = parameter_value(a, &s);
        if (charset && v->charset.n == 0)
            v->charset = value;
        if (boundary && v->boundary.n == 0)
            v->boundary = value;
    }
}

/* ---- leaves ---- */

static void leaf_bytes(void *arg, struct span decoded)
{
    struct mime *m = arg;
    m->sink->bytes(m->sink->arg, decoded);
}

static void leaf_begin(struct mime *m, const struct mime_leaf *leaf, enum transfer_encoding e)
{
    if (m->leaves == LIMIT_MIME_PARTS) {
        m->mode = PASSED;
        return;
    }
    m->leaves++;
    m->mode = LEAF;
    m->transfer = (struct transfer){.encoding = e};
    m->wanted = m->sink->leaf(m->sink->arg, leaf);
}

static void leaf_end(struct mime *m)
{
    if (m->mode != LEAF)
        return;
    if (m->wanted)
        transfer_end(&m->transfer, leaf_bytes, m);
    m->sink->leaf_end(m->sink->arg);
    m->mode = PASSED;
}

/* ---- containers ---- */

static void level_push(struct mime *m, struct span boundary, bool digest, bool alternative)
{
    m->level[m->depth++] = (struct level){boundary, digest};
    m->nboundaries += boundary.n > 0;
    m->sink->open(m->sink->arg, alternative);
}

static void level_pop(struct mime *m)
{
    m->depth--;
    m->nboundaries -= m->level[m->depth].boundary.n > 0;
    m->sink->close(m->sink->arg);
}

static void header_begin(struct mime *m)
{
    m->mode = PASSED;
    if (m->entities == ENTITIES_MAX)
        return;
    m->entities++;
    m->mode = HEADER;
    m->part = message_new(m->arena);
    m->part_bytes = 0;
}

/* Is this type's name `name`, or below it if name ends with a slash? */
static bool type_is(const struct mime_value *v, struct span name)
{
    return name.p[name.n - 1] == '/' ? span_case_starts(v->type, name)
                                     : span_case_eq(v->type, name);
}

static struct span first_value(const struct message *m, enum field_name id)
{
    const struct field *f = message_first(m, id);
    return f ? f->value : span_of(NULL, 0);
}

static void leaf_of(struct mime *m, const struct message *fields, struct mime_value *type,
                    enum transfer_encoding e)
{
    struct mime_value disposition;
    mime_value_parse(&disposition, m->arena, first_value(fields, FIELD_CONTENT_DISPOSITION));
    bool html = type_is(type, SPAN("text/html"));
    struct mime_leaf leaf = {MIME_ATTACHMENT, charset_named(type->charset), false,
                             e == TRANSFER_BASE64};
    if (type_is(type, SPAN("text/")) && !span_case_eq(disposition.type, SPAN("attachment"))) {
        leaf.kind = html ? MIME_HTML : MIME_TEXT;
        leaf.plain = type_is(type, SPAN("text/plain"));
    }
    leaf_begin(m, &leaf, e);
}

/* What begins after a header: a container or a leaf. */
static void entity_begin(struct mime *m, const struct message *fields)
{
    struct mime_value type;
    mime_value_parse(&type, m->arena, first_value(fields, FIELD_CONTENT_TYPE));
    struct mime_value encoding;
    mime_value_parse(&encoding, m->arena, first_value(fields, FIELD_CONTENT_ENCODING));
    enum transfer_encoding e = transfer_named(encoding.type);
    bool room = m->depth < LIMIT_MIME_DEPTH;
    bool bounded = type.boundary.n && type.boundary.n <= BOUNDARY_MAX;
    bool digest = m->depth && m->level[m->depth - 1].digest;
    bool multipart = type_is(&type, SPAN("multipart/"));
    if (span_find(type.type, '/') == type.type.n) /* none, or not a type: RFC 2045 5.2 */
        type.type = digest ? SPAN("message/rfc822") : SPAN("text/plain");
    if (multipart && !bounded) {
        type.type = SPAN("text/plain"); /* no way to part it, but it can be read */
        multipart = false;
    }
    bool enclosed =
        type_is(&type, SPAN("message/rfc822")) || type_is(&type, SPAN("message/global"));
    if (room && multipart) {
        level_push(m, type.boundary, type_is(&type, SPAN("multipart/digest")),
                   type_is(&type, SPAN("multipart/alternative")));
        m->mode = PASSED;
    } else if (room && enclosed && e == TRANSFER_IDENTITY) {
        level_push(m, span_of(NULL, 0), false, false);
        header_begin(m);
    } else {
        leaf_of(m, fields, &type, e);
    }
}

/* ---- lines ---- */

static void content_add(struct mime *m, struct span s);

/* One line of a part's header, or a piece of one. */
static void header_add(struct mime *m, struct span s)
{
    struct message *part = m->part;
    struct span taken = span_head(s, PART_HEAD_MAX - m->part_bytes);
    struct span body = message_add_raw(part, taken);
    m->part_bytes += taken.n;
    if (!part->header_done && m->part_bytes < PART_HEAD_MAX)
        return;
    message_end_header(part);
    entity_begin(m, part);
    content_add(m, span_from(body, part->blank));
    content_add(m, span_from(s, taken.n));
}

static void content_add(struct mime *m, struct span s)
{
    if (s.n && m->mode == HEADER)
        header_add(m, s);
    else if (s.n && m->mode == LEAF && m->wanted)
        transfer_add(&m->transfer, s, leaf_bytes, m);
}

/* The level whose boundary this line is, counted from 1; 0: none. Blanks may follow it (RFC 2046
 * 5.1.1). */
static size_t boundary_level(const struct mime *m, bool *last)
{
    struct span line = span_of(m->line + 2, m->nline - 2);
    while (line.n && byte_space(line.p[line.n - 1]))
        line.n--;
    for (size_t i = m->depth; i > 0; i--) {
        struct span boundary = m->level[i - 1].boundary;
        if (boundary.n == 0 || !span_starts(line, boundary))
            continue;
        struct span rest = span_from(line, boundary.n);
        *last = span_eq(rest, SPAN("--"));
        if (*last || rest.n == 0)
            return i;
    }
    return 0;
}

/* A part of level i (counted from 1) is over; another begins unless the boundary was the last. */
static void boundary_take(struct mime *m, size_t i, bool last)
{
    if (m->mode == HEADER) { /* a part that is all header */
        message_end_header(m->part);
        entity_begin(m, m->part);
    }
    leaf_end(m);
    while (m->depth > i)
        level_pop(m);
    m->mode = PASSED;
    if (last)
        level_pop(m);
    else
        header_begin(m);
}

/* The gathered line is no boundary, or one; either way it is done with. */
static void candidate_end(struct mime *m, bool line_ends)
{
    struct span line = span_of(m->line, m->nline);
    bool last, dashes = span_starts(line, SPAN("--"));
    size_t i = dashes ? boundary_level(m, &last) : 0;
    m->line_begins = line_ends;
    if (i) {
        boundary_take(m, i, last);
        m->line_passed = !line_ends;
    } else {
        content_add(m, line);
    }
    m->nline = 0;
}

/* Gathers a line that begins with a dash. */
static size_t candidate_add(struct mime *m, struct span s)
{
    size_t end = span_find(s, '\n');
    bool line_ends = end < s.n;
    size_t n = line_ends ? end + 1 : end, room = CANDIDATE_MAX - m->nline;
    if (n > room) {
        n = room;
        line_ends = false;
    }
    memcpy(m->line + m->nline, s.p, n);
    m->nline += n;
    bool other = m->nline >= 2 && m->line[1] != '-';
    if (line_ends || other || m->nline == CANDIDATE_MAX)
        candidate_end(m, line_ends);
    return n;
}

/* How many bytes can go on without a look at the lines in them. */
static size_t stretch(const struct mime *m, struct span s)
{
    if (m->mode != HEADER && m->nboundaries == 0)
        return s.n;
    size_t at = 0;
    for (;;) {
        at += span_find(span_from(s, at), '\n') + 1;
        if (at > s.n)
            return s.n;
        if (m->mode == HEADER || at == s.n || s.p[at] == '-')
            return at;
    }
}

/* Takes some bytes; returns how many. */
static size_t step(struct mime *m, struct span s)
{
    if (m->line_passed) {
        size_t end = span_find(s, '\n');
        m->line_passed = end == s.n;
        m->line_begins = !m->line_passed;
        return end < s.n ? end + 1 : end;
    }
    if (m->nline || (m->line_begins && m->nboundaries && *s.p == '-'))
        return candidate_add(m, s);
    size_t n = stretch(m, s);
    m->line_begins = s.p[n - 1] == '\n';
    content_add(m, span_head(s, n));
    return n;
}

struct mime *mime_begin(struct arena *a, const struct message *fields, const struct mime_sink *sink)
{
    struct mime *m = arena_zero(a, sizeof *m);
    m->arena = a;
    m->sink = sink;
    m->line_begins = true;
    entity_begin(m, fields);
    return m;
}

void mime_body(struct mime *m, struct span s)
{
    while (s.n)
        s = span_from(s, step(m, s));
}

void mime_end(struct mime *m)
{
    if (m->nline)
        candidate_end(m, false);
    while (m->mode == HEADER) { /* an enclosed message may begin another header */
        message_end_header(m->part);
        entity_begin(m, m->part);
    }
    leaf_end(m);
    while (m->depth)
        level_pop(m);
}
