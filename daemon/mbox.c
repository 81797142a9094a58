/*
 * mbox.c - the lines of a mailbox, cut where a From_ line follows an empty one.
 */
#include <stdlib.h>

#include "date.h"
#include "mbox.h"

enum { PIECE = 64 << 10 }; /* of a line */

struct mbox {
    struct lines *in;
};

/* The message being read. */
struct reading {
    struct arena *arena;
    struct mbox_mail *mail;
    uint8_t *p; /* what is kept of it */
    size_t n, cap, most;
    size_t before_blank; /* n before the empty line that came last */
    bool blank;          /* the line before was empty */
    bool begins;         /* a line begins here */
    bool header;
    uint64_t length; /* Content-Length; 0: none */
    off_t until;     /* no From_ line is looked for before */
};

struct mbox *mbox_open(const char *path)
{
    struct lines *in = lines_open(path, PIECE);
    if (!in)
        return NULL;
    struct mbox *m = calloc(1, sizeof *m);
    if (!m)
        abort();
    m->in = in;
    return m;
}

void mbox_close(struct mbox **mp)
{
    struct mbox *m = *mp;
    *mp = NULL;
    if (!m)
        return;
    lines_close(&m->in);
    free(m);
}

void mbox_seek(struct mbox *m, off_t at)
{
    lines_seek(m->in, at);
}

off_t mbox_at(const struct mbox *m)
{
    return lines_at(m->in);
}

int mbox_error(const struct mbox *m)
{
    return lines_error(m->in);
}

bool mbox_from_line(struct span line, struct span *sender, struct span *date)
{
    int64_t seconds;
    if (!span_starts(line, SPAN("From ")))
        return false;
    struct span rest = span_trim(span_from(line, 5));
    *sender = span_head(rest, span_find(rest, ' '));
    *date = span_trim(span_from(rest, sender->n));
    return date_parse(*date, &seconds);
}

static bool empty_line(struct span line)
{
    return span_eq(line, SPAN("\n")) || span_eq(line, SPAN("\r\n"));
}

/* ">From ", ">>From " ... in a body: one > was added when it was stored. */
static bool quoted(struct span line)
{
    size_t n = 0;
    while (n < line.n && line.p[n] == '>')
        n++;
    return n && span_starts(span_from(line, n), SPAN("From "));
}

static void keep(struct reading *r, struct span s)
{
    size_t n = s.n < r->most - r->n ? s.n : r->most - r->n;
    r->mail->cut |= n < s.n;
    if (r->n + n > r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 16 << 10;
        while (cap < r->n + n)
            cap *= 2;
        r->p = arena_grow(r->arena, r->p, r->cap, cap);
        r->cap = cap;
    }
    if (n)
        memcpy(r->p + r->n, s.p, n);
    r->n += n;
}

/* Where a body of this length, which begins at `at`, ends, if that is the end of a message. */
static off_t believed(const struct mbox *m, off_t at, uint64_t length)
{
    uint8_t next[16];
    if (length == 0 || length > (uint64_t)(lines_size(m->in) > at ? lines_size(m->in) - at : 0))
        return 0;
    off_t end = at + (off_t)length;
    struct span s = span_of(next, lines_peek(m->in, end, next, sizeof next));
    size_t n = s.n;
    while (s.n && n - s.n < 4 && (s.p[0] == '\r' || s.p[0] == '\n'))
        s = span_from(s, 1);
    return end == lines_size(m->in) || (s.n == 0 && n < sizeof next) ||
                   span_starts(s, SPAN("From "))
               ? end
               : 0;
}

static void header_line(const struct mbox *m, struct reading *r, struct span line)
{
    static const struct span name = {(const uint8_t *)"content-length:", 15};
    if (empty_line(line)) {
        r->header = false;
        r->until = believed(m, lines_at(m->in), r->length);
    } else if (span_case_starts(line, name) &&
               !span_number(span_trim(span_from(line, name.n)), UINT32_MAX, &r->length)) {
        r->length = 0;
    }
}

static void take_line(const struct mbox *m, struct reading *r, struct span line)
{
    bool begins = r->begins, blank = begins && empty_line(line), header = r->header;
    r->begins = line.p[line.n - 1] == '\n';
    if (r->header && begins)
        header_line(m, r, line);
    else if (begins && quoted(line))
        line = span_from(line, 1);
    r->before_blank = r->n;
    r->blank = blank;
    keep(r, line);
    if (header) /* the empty line that ends it stays */
        r->before_blank = r->n;
}

bool mbox_next(struct mbox *m, struct arena *arena, size_t most, struct mbox_mail *mail)
{
    struct span line, sender, date;
    *mail = (struct mbox_mail){.at = lines_at(m->in)};
    struct reading r = {.arena = arena, .mail = mail, .most = most, .begins = true, .header = true};
    if (!lines_next(m->in, &line))
        return false;
    if (span_starts(line, SPAN("From ")))
        mail->from = arena_span(arena, span_trim(span_from(line, 5)));
    else
        lines_back(m->in);
    off_t at = lines_at(m->in);
    while (lines_next(m->in, &line)) {
        if (r.blank && at >= r.until && mbox_from_line(line, &sender, &date)) {
            lines_back(m->in);
            if (!mail->cut)
                r.n = r.before_blank; /* it belongs to the mailbox */
            break;
        }
        take_line(m, &r, line);
        at = lines_at(m->in);
    }
    mail->message = span_of(r.p, r.n);
    return true;
}
