/*
 * message.c - header bytes to indexed fields (RFC 5322 2.2).
 *
 *   head:  Received: from a\r\n      <- fields[0]
 *            by b; date\r\n
 *          Subject: x\r\n            <- fields[1], `open` while its continuation may follow
 *          To: some                  <- `line`, not complete yet
 *
 * A field is indexed when the next one begins. head moves when it grows; spans of fields indexed
 * before keep pointing to the old place, which the arena keeps as well.
 * Invariant (raw reading): open <= line <= nhead, and nothing after `line` holds an LF.
 */
#include "message.h"

#define KNOWN(name, id)                                                                            \
    {                                                                                              \
        name, sizeof(name) - 1, id                                                                 \
    }
static const struct {
    const char *name; /* lower case */
    size_t n;
    enum field_name id;
} known[] = {
    KNOWN("received", FIELD_RECEIVED),
    KNOWN("from", FIELD_FROM),
    KNOWN("to", FIELD_TO),
    KNOWN("cc", FIELD_CC),
    KNOWN("date", FIELD_DATE),
    KNOWN("subject", FIELD_SUBJECT),
    KNOWN("message-id", FIELD_MESSAGE_ID),
    KNOWN("references", FIELD_REFERENCES),
    KNOWN("in-reply-to", FIELD_IN_REPLY_TO),
    KNOWN("resent-message-id", FIELD_RESENT_MESSAGE_ID),
    KNOWN("resent-date", FIELD_RESENT_DATE),
    KNOWN("list-id", FIELD_LIST_ID),
    KNOWN("precedence", FIELD_PRECEDENCE),
    KNOWN("auto-submitted", FIELD_AUTO_SUBMITTED),
    KNOWN("x-autoreply", FIELD_AUTOREPLY),
    KNOWN("x-autorespond", FIELD_AUTOREPLY),
    KNOWN("thread-index", FIELD_THREAD_INDEX),
    KNOWN("delivered-to", FIELD_DELIVERED_TO),
    KNOWN("content-type", FIELD_CONTENT_TYPE),
    KNOWN("content-transfer-encoding", FIELD_CONTENT_ENCODING),
    KNOWN("content-disposition", FIELD_CONTENT_DISPOSITION),
    KNOWN("x-breakwater-release", FIELD_RELEASE),
    KNOWN("x-breakwater-trace", FIELD_STAMP),
};

static enum field_name field_named(struct span name)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].n == name.n && known[i].name[0] == (char)byte_lower(name.p[0]) &&
            span_case_eq(span_of(known[i].name, known[i].n), name))
            return known[i].id;
    return span_case_starts(name, SPAN("list-")) ? FIELD_LIST_OTHER : FIELD_OTHER;
}

/* Room for n bytes more. */
static void head_reserve(struct message *m, size_t n)
{
    if (m->caphead - m->nhead >= n)
        return;
    size_t cap = m->caphead ? m->caphead * 2 : 4096;
    while (cap < m->nhead + n)
        cap *= 2;
    m->head = arena_grow(m->arena, m->head, m->nhead, cap);
    m->caphead = cap;
}

struct message *message_new(struct arena *a)
{
    struct message *m = arena_zero(a, sizeof *m);
    m->arena = a;
    head_reserve(m, 1);
    return m;
}

static void field_index(struct message *m, size_t at, struct span name, struct span value)
{
    enum field_name id = field_named(name);
    m->count[id]++;
    if (m->nfields == LIMIT_FIELDS)
        return;
    if (m->nfields == m->capfields) {
        size_t cap = m->capfields ? m->capfields * 2 : 32;
        m->fields = arena_grow(m->arena, m->fields, m->nfields * sizeof *m->fields,
                               cap * sizeof *m->fields);
        m->capfields = cap;
    }
    m->fields[m->nfields++] = (struct field){id, name, value, 0, (uint32_t)at};
    uint32_t number = (uint32_t)m->nfields;
    if (m->first[id] == 0)
        m->first[id] = number;
    else
        m->fields[m->last[id] - 1].next = number;
    m->last[id] = number;
}

static bool name_byte(uint8_t c)
{
    return c > ' ' && c < 127 && c != ':';
}

/* Where the colon of a field line is, or line.n if it is no field. Blanks before the colon are
 * obsolete syntax (RFC 5322 4.5); *name gets the bytes before them. */
static size_t field_colon(struct span line, size_t *name)
{
    size_t at = 0;
    while (at < line.n && name_byte(line.p[at]))
        at++;
    *name = at;
    while (at < line.n && (line.p[at] == ' ' || line.p[at] == '\t'))
        at++;
    return *name && at < line.n && line.p[at] == ':' ? at : line.n;
}

/* The line without its LF or CRLF. */
static struct span line_text(struct span line)
{
    if (line.n && line.p[line.n - 1] == '\n')
        line.n--;
    if (line.n && line.p[line.n - 1] == '\r')
        line.n--;
    return line;
}

/* Indexes the field that lies in head from open to end. */
static void field_close(struct message *m, size_t end)
{
    struct span all = line_text(span_of(m->head + m->open, end - m->open));
    size_t name, colon = field_colon(all, &name);
    if (colon < all.n)
        field_index(m, m->open, span_head(all, name), span_from(all, colon + 1));
    m->open = end;
}

/* Writes value with every line end as CRLF and a blank after it; none at its end. */
static uint8_t *value_write(uint8_t *to, struct span value)
{
    while (value.n && value.p[value.n - 1] == '\n')
        value = line_text(value);
    for (size_t i = 0; i < value.n; i++) {
        if (value.p[i] == '\n' && (i == 0 || value.p[i - 1] != '\r'))
            *to++ = '\r';
        *to++ = value.p[i];
        if (value.p[i] == '\n' && value.p[i + 1] != ' ' && value.p[i + 1] != '\t')
            *to++ = ' ';
    }
    return to;
}

struct span message_add_field(struct message *m, struct span name, struct span value)
{
    size_t most = name.n + value.n + 3;
    for (struct span rest = value; rest.n; rest = span_from(rest, span_find(rest, '\n') + 1))
        most += 2;
    bool fits = !m->head_full && m->nhead + most <= LIMIT_HEAD;
    if (fits)
        head_reserve(m, most);
    uint8_t *begin = fits ? m->head + m->nhead : arena_alloc(m->arena, most), *to = begin;
    for (size_t i = 0; i < name.n; i++)
        *to++ = name_byte(name.p[i]) ? name.p[i] : '?';
    *to++ = ':';
    to = value_write(to, value);
    *to++ = '\r';
    *to++ = '\n';
    struct span all = span_of(begin, (size_t)(to - begin));
    if (!fits) {
        m->head_full = true;
        return all;
    }
    size_t at = m->nhead;
    m->nhead += all.n;
    m->open = m->line = m->nhead;
    if (name.n)
        field_index(m, at, span_head(all, name.n), line_text(span_from(all, name.n + 1)));
    return span_of(NULL, 0);
}

enum line_kind { LINE_FIELD, LINE_CONTINUED, LINE_ENDS_HEADER };

static enum line_kind line_kind(const struct message *m, struct span line)
{
    size_t name;
    if (line_text(line).n == 0)
        return LINE_ENDS_HEADER;
    if (line.p[0] == ' ' || line.p[0] == '\t')
        return m->open < m->line ? LINE_CONTINUED : LINE_ENDS_HEADER;
    return field_colon(line, &name) < line.n ? LINE_FIELD : LINE_ENDS_HEADER;
}

/* The header ends before the line that begins in head at `line`; rest follows it in the input.
 * Returns both. */
static struct span header_ends(struct message *m, struct span rest)
{
    struct span begun = span_of(m->head + m->line, m->nhead - m->line);
    if (begun.n)
        rest = arena_join(m->arena, begun, rest, SPAN(""));
    m->nhead = m->line;
    message_end_header(m);
    return rest;
}

/* Takes the bytes of one line, or of the part of it that is there. False: the header is over, and
 * nothing of this piece was taken. */
static bool line_take(struct message *m, struct span piece, bool complete)
{
    if (m->nhead + piece.n > LIMIT_HEAD) {
        m->head_full = true;
        return false;
    }
    head_reserve(m, piece.n);
    memcpy(m->head + m->nhead, piece.p, piece.n);
    if (!complete) {
        m->nhead += piece.n;
        return true;
    }
    struct span line = span_of(m->head + m->line, m->nhead + piece.n - m->line);
    enum line_kind kind = line_kind(m, line);
    if (kind == LINE_ENDS_HEADER) {
        m->blank = line_text(line).n == 0 ? (uint8_t)line.n : 0;
        return false;
    }
    if (kind == LINE_FIELD)
        field_close(m, m->line);
    m->nhead += piece.n;
    m->line = m->nhead;
    return true;
}

struct span message_add_raw(struct message *m, struct span raw)
{
    while (!m->header_done && raw.n) {
        size_t end = span_find(raw, '\n');
        bool complete = end < raw.n;
        struct span piece = span_head(raw, complete ? end + 1 : end);
        if (!line_take(m, piece, complete))
            return header_ends(m, raw);
        raw = span_from(raw, piece.n);
    }
    return raw;
}

void message_end_header(struct message *m)
{
    if (m->header_done)
        return;
    m->header_done = true;
    if (m->line < m->nhead) { /* an unfinished line: a field of its own, or continued */
        struct span line = span_of(m->head + m->line, m->nhead - m->line);
        if (line_kind(m, line) != LINE_CONTINUED)
            field_close(m, m->line);
    }
    if (m->open < m->nhead)
        field_close(m, m->nhead);
}

const struct field *message_first(const struct message *m, enum field_name id)
{
    return m->first[id] ? &m->fields[m->first[id] - 1] : NULL;
}

const struct field *message_next(const struct message *m, const struct field *f)
{
    return f->next ? &m->fields[f->next - 1] : NULL;
}

/* Where in the head the line after this field begins. */
static size_t field_end(const struct message *m, const struct field *f)
{
    size_t at = f->at + f->name.n;
    if (f->value.n)
        at = f->at + (size_t)(f->value.p - f->name.p) + f->value.n;
    while (at < m->nhead && m->head[at++] != '\n')
        ;
    return at;
}

struct span message_without(const struct message *m, enum field_name id)
{
    uint8_t *p = arena_alloc(m->arena, m->nhead + 1);
    size_t n = 0, from = 0;
    for (const struct field *f = message_first(m, id); f; f = message_next(m, f)) {
        memcpy(p + n, m->head + from, f->at - from);
        n += f->at - from;
        from = field_end(m, f);
    }
    if (from < m->nhead)
        memcpy(p + n, m->head + from, m->nhead - from);
    return span_of(p, n + m->nhead - from);
}

struct span message_value(const struct message *m, enum field_name id)
{
    const struct field *f = message_first(m, id);
    if (f == NULL)
        return span_of(NULL, 0);
    struct span s = span_trim(f->value);
    uint8_t *p = arena_alloc(m->arena, s.n), *to = p;
    for (size_t i = 0; i < s.n; i++)
        if (!byte_space(s.p[i]))
            *to++ = s.p[i];
        else if (!byte_space(s.p[i - 1])) /* i > 0: s is trimmed */
            *to++ = ' ';
    return span_of(p, (size_t)(to - p));
}
