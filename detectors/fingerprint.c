/*
 * fingerprint.c - identities of one message, from its header and its streaming body.
 *
 *   F       SipHash over the 8-byte word hashes; with attachments a mark and their sorted digests
 *   sketch  the 32 smallest distinct of the 32-bit mixes of three words in a row
 *   K       MAC("M1", Message-ID, Date, From, Resent)
 *           MAC("M0", Date, From, Subject, F) without a Message-ID
 *
 * Alternatives: words are taken as they come; when a better one of several alternatives ends, the
 * words of the one before are cut out again. So nothing is kept but hashes.
 * Invariant: what comes out depends on header and body bytes only, not on how they were cut.
 */
#include <stdlib.h>

#include "date.h"
#include "fingerprint.h"
#include "html.h"
#include "mime.h"
#include "relaxed.h"

/* How good an alternative is as the text of the message (detection.md 15). */
enum rank { RANK_NONE, RANK_SHORT, RANK_HTML, RANK_PLAIN };

/* Where the words of something begin. */
struct mark {
    size_t n, bytes;
};

/* An open container. */
struct choice {
    bool alternative;
    enum rank best;      /* of its children so far */
    struct mark first;   /* where the best one's words begin */
    struct mark current; /* where the words of the child being read begin */
};

/* The decoded bytes of one attachment. Outside of base64 a line end is hashed as CRLF however it
 * came, and the last one belongs to the boundary. */
struct digest {
    struct sip sip;
    bool exact;
    bool cr, end; /* not hashed yet */
};

struct fingerprinter {
    struct arena *arena;
    const struct keys *keys;
    const struct message *message;
    struct mime_sink sink;
    struct mime *mime;
    struct words words;
    struct mime_leaf leaf; /* being read */
    struct charset_state decoder, utf16;
    struct html html;
    struct digest digest;
    uint64_t attachment[LIMIT_ATTACHMENTS];
    uint32_t nattachments;
    struct choice choice[LIMIT_MIME_DEPTH];
    size_t depth;
    bool opening_on;   /* bytes of the leaf being read belong to the opening */
    bool opening_html; /* what the opening is */
    uint8_t *opening;
    size_t nopening, capopening;
    struct relaxed raw;
    uint64_t body_bytes;
};

/* ---- attachments ---- */

static void digest_end_line(struct digest *d)
{
    if (d->cr)
        sip_add(&d->sip, "\r", 1);
    else if (d->end)
        sip_add(&d->sip, "\r\n", 2);
    d->cr = d->end = false;
}

static void digest_add(struct digest *d, struct span s)
{
    while (s.n && !d->exact) {
        size_t end = span_find(s, '\n');
        if (d->cr && end == 0) {
            d->cr = false;
            d->end = true;
            s = span_from(s, 1);
            continue;
        }
        digest_end_line(d);
        struct span line = span_head(s, end);
        d->end = end < s.n;
        if (line.n && line.p[line.n - 1] == '\r') {
            line.n--;
            d->cr = !d->end;
        }
        sip_add(&d->sip, line.p, line.n);
        s = span_from(s, end + 1);
    }
    if (s.n)
        sip_add(&d->sip, s.p, s.n);
}

static void attachment_end(struct fingerprinter *f)
{
    if (f->digest.cr)
        digest_end_line(&f->digest);
    if (f->nattachments < LIMIT_ATTACHMENTS)
        f->attachment[f->nattachments] = sip_end(&f->digest.sip);
    f->nattachments++;
}

/* ---- alternatives ---- */

static struct mark mark_now(const struct fingerprinter *f)
{
    return (struct mark){f->words.n, f->words.bytes};
}

/* Cuts the words from one mark to another out. */
static void words_cut(struct fingerprinter *f, struct mark from, struct mark to)
{
    struct words *w = &f->words;
    if (w->n > to.n)
        memmove(w->hash + from.n, w->hash + to.n, (w->n - to.n) * sizeof *w->hash);
    w->n -= to.n - from.n;
    w->bytes -= to.bytes - from.bytes;
    w->full = w->full && to.n == from.n;
}

static struct choice *parent_choice(struct fingerprinter *f)
{
    return f->depth && f->choice[f->depth - 1].alternative ? &f->choice[f->depth - 1] : NULL;
}

static void child_begin(struct fingerprinter *f)
{
    struct choice *c = parent_choice(f);
    if (c)
        c->current = mark_now(f);
}

/* A child of an alternative is over: keeps its words or the best one's before it. */
static void child_end(struct fingerprinter *f, enum rank rank)
{
    struct choice *c = parent_choice(f);
    if (c == NULL || f->words.n == c->current.n)
        return;
    if (rank <= c->best) {
        words_cut(f, c->current, mark_now(f));
        return;
    }
    words_cut(f, c->first, c->current);
    c->best = rank;
}

/* Has an alternative around us its text already? */
static bool decided(const struct fingerprinter *f)
{
    for (size_t i = 0; i < f->depth; i++)
        if (f->choice[i].alternative && f->choice[i].best == RANK_PLAIN)
            return true;
    return false;
}

/* ---- the opening ---- */

/* The first leaf that has words is the one people read first. HTML says little in many bytes: kept
 * only of a reply, the only one whose own words are asked for. */
static void opening_begin(struct fingerprinter *f)
{
    const uint32_t *first = f->message->first;
    bool reply = first[FIELD_IN_REPLY_TO] || first[FIELD_REFERENCES] || first[FIELD_THREAD_INDEX];
    f->opening_on =
        f->words.n == 0 && (f->leaf.kind == MIME_TEXT || (f->leaf.kind == MIME_HTML && reply));
    if (!f->opening_on)
        return;
    f->nopening = 0;
    f->opening_html = f->leaf.kind == MIME_HTML;
}

static void opening_add(struct fingerprinter *f, struct span s)
{
    s = span_head(s, (f->opening_html ? OPENING_HTML : OPENING_PLAIN) - f->nopening);
    if (s.n == 0)
        return;
    if (f->capopening - f->nopening < s.n) {
        size_t cap = f->nopening + s.n < OPENING_PLAIN ? OPENING_PLAIN : OPENING_HTML;
        f->opening = arena_grow(f->arena, f->opening, f->nopening, cap);
        f->capopening = cap;
    }
    memcpy(f->opening + f->nopening, s.p, s.n);
    f->nopening += s.n;
}

/* ---- what mime tells ---- */

static void part_open(void *arg, bool alternative)
{
    struct fingerprinter *f = arg;
    child_begin(f);
    struct mark now = mark_now(f);
    f->choice[f->depth++] = (struct choice){alternative, RANK_NONE, now, now};
}

static void part_close(void *arg)
{
    struct fingerprinter *f = arg;
    f->depth--;
    child_end(f, RANK_HTML);
}

static bool leaf_begin(void *arg, const struct mime_leaf *leaf)
{
    struct fingerprinter *f = arg;
    f->leaf = *leaf;
    child_begin(f);
    opening_begin(f);
    if (leaf->kind == MIME_ATTACHMENT) {
        f->digest = (struct digest){.exact = leaf->exact};
        sip_begin(&f->digest.sip, f->keys, SIP_PART);
        return true;
    }
    memset(&f->decoder, 0, sizeof f->decoder);
    memset(&f->utf16, 0, sizeof f->utf16);
    bool wide = leaf->charset >= CHARSET_WIDE;
    if (leaf->kind == MIME_HTML)
        html_begin(&f->html, &f->words, wide ? CHARSET_UTF8 : leaf->charset);
    return !decided(f);
}

/* Text in a charset that is ASCII below 0x80. */
static void narrow_text(struct fingerprinter *f, enum charset cs, struct span s)
{
    if (f->opening_on)
        opening_add(f, s);
    if (f->leaf.kind == MIME_HTML)
        html_add(&f->html, s);
    else
        words_text(&f->words, cs, &f->decoder, s, false);
}

/* UTF-16 and ISO-2022-JP become UTF-8 first, so that HTML and words see ASCII as ASCII. */
static void wide_text(struct fingerprinter *f, struct span s, bool final)
{
    while (s.n || (final && f->utf16.npending)) {
        uint32_t point[64];
        uint8_t utf8[4 * 64];
        size_t used, n = 0;
        size_t points = charset_decode(f->leaf.charset, &f->utf16, s, final, point, 64, &used);
        for (size_t i = 0; i < points; i++)
            n += utf8_write(utf8 + n, point[i]);
        narrow_text(f, CHARSET_UTF8, span_of(utf8, n));
        s = span_from(s, used);
    }
}

static void leaf_bytes(void *arg, struct span s)
{
    struct fingerprinter *f = arg;
    if (f->leaf.kind == MIME_ATTACHMENT)
        digest_add(&f->digest, s);
    else if (f->leaf.charset >= CHARSET_WIDE)
        wide_text(f, s, false);
    else
        narrow_text(f, f->leaf.charset, s);
}

static void leaf_end(void *arg)
{
    struct fingerprinter *f = arg;
    if (f->leaf.kind == MIME_ATTACHMENT) {
        attachment_end(f);
        child_end(f, RANK_NONE);
        return;
    }
    if (f->leaf.charset >= CHARSET_WIDE)
        wide_text(f, SPAN(""), true);
    if (f->leaf.kind == MIME_HTML)
        html_end(&f->html);
    else
        words_text(&f->words, f->leaf.charset, &f->decoder, SPAN(""), true);
    words_break(&f->words);
    struct choice *c = parent_choice(f);
    bool enough = c && f->words.n - c->current.n >= MIN_WORDS;
    child_end(f, f->leaf.kind == MIME_HTML ? RANK_HTML
                 : f->leaf.plain && enough ? RANK_PLAIN
                                           : RANK_SHORT);
}

struct fingerprinter *fingerprint_begin(struct arena *a, const struct keys *k,
                                        const struct message *m)
{
    struct fingerprinter *f = arena_alloc(a, sizeof *f);
    memset(f, 0, offsetof(struct fingerprinter, raw));
    f->body_bytes = 0;
    f->arena = a;
    f->keys = k;
    f->message = m;
    f->sink = (struct mime_sink){f, part_open, part_close, leaf_begin, leaf_bytes, leaf_end};
    words_begin(&f->words, a, k);
    relaxed_begin(&f->raw, k);
    f->mime = mime_begin(a, m, &f->sink);
    return f;
}

void fingerprint_body(struct fingerprinter *f, struct span s)
{
    f->body_bytes += s.n;
    relaxed_add(&f->raw, s);
    mime_body(f->mime, s);
}

/* ---- F and the sketch ---- */

static int hash_compare(const void *a, const void *b)
{
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

/* SipHash of the words, then of the attachments after a mark. */
static uint64_t f_end(struct sip s, size_t nwords, uint64_t *attachment, size_t nattachments)
{
    if (nattachments == 0)
        return sip_finish(s, 0, nwords * 8);
    qsort(attachment, nattachments, sizeof *attachment, hash_compare);
    sip_word(&s, UINT64_MAX);
    for (size_t i = 0; i < nattachments; i++)
        sip_word(&s, attachment[i]);
    return sip_finish(s, 0, (nwords + 1 + nattachments) * 8);
}

uint64_t fingerprint_f_of(const struct keys *k, const struct fingerprints *fp, unsigned n,
                          bool tail)
{
    const uint64_t *word = fp->word;
    if (tail && n)
        word = (fp->words_end ? fp->words_end : fp->word + fp->nwords) - n;
    struct sip s;
    sip_begin(&s, k, SIP_TEXT);
    for (size_t i = 0; i < n; i++)
        sip_word(&s, word[i]);
    return f_end(s, n, NULL, 0);
}

/* One walk for both: the shingles are computed while SipHash waits for itself. out[i] is the
 * shingle that ends with word i. */
static struct sip f_and_shingles(const struct keys *k, const uint64_t *word, size_t n,
                                 uint32_t *out)
{
    struct sip s;
    sip_begin(&s, k, SIP_TEXT);
    const uint64_t m0 = k->mix[0], m1 = k->mix[1], m2 = k->mix[2];
    uint64_t first = 0, second = 0; /* of the two words before, mixed */
    for (size_t i = 0; i < n; i++) {
        uint64_t w = word[i];
        sip_word(&s, w);
        uint64_t h = first ^ SIP_ROTATE(w * m2, 46);
        out[i] = (uint32_t)((h ^ h >> 32) * m0 >> 32);
        first = second ^ SIP_ROTATE(w * m1, 23);
        second = w * m0;
    }
    return s;
}

enum { CANDIDATES = 96, ROW = 4 };

/* How many of n candidates, a multiple of ROW, are less than v. */
static inline size_t rank_of(const uint32_t *candidate, size_t n, uint32_t v)
{
    typedef uint32_t row __attribute__((vector_size(4 * ROW), aligned(4), may_alias));
    row less = {0};
    for (size_t i = 0; i < n; i += ROW)
        less -= (row)(*(const row *)(const void *)(candidate + i) < v);
    uint32_t rank = 0;
    for (size_t i = 0; i < ROW; i++)
        rank += less[i];
    return rank;
}

/* The smallest distinct of n candidates, ascending. Each goes to the place that its rank says;
 * equal ones go to the same place and leave a gap behind them. No branch depends on a value. */
static void sketch_of(struct sketch *s, uint32_t candidate[CANDIDATES], size_t n)
{
    uint32_t place[CANDIDATES];
    bool taken[CANDIDATES] = {false};
    size_t rows = (n + ROW - 1) / ROW * ROW;
    for (size_t i = n; i < rows; i++)
        candidate[i] = UINT32_MAX; /* less than none */
    for (size_t i = 0; i < n; i++) {
        size_t rank = rank_of(candidate, rows, candidate[i]);
        place[rank] = candidate[i];
        taken[rank] = true;
    }
    s->n = 0;
    for (size_t i = 0; i < n && s->n < SKETCH_MAX; i++)
        if (taken[i])
            s->value[s->n++] = place[i];
}

/* All values not above the limit. */
static void sketch_below(struct sketch *s, const uint32_t *value, size_t n, uint32_t limit)
{
    uint32_t candidate[CANDIDATES];
    size_t have = 0;
    for (size_t i = 0; i < n; i++) {
        candidate[have] = value[i];
        have += value[i] <= limit;
        if (have < CANDIDATES)
            continue;
        sketch_of(s, candidate, have);
        have = s->n;
        memcpy(candidate, s->value, have * sizeof *candidate);
        if (have == SKETCH_MAX)
            limit = s->value[SKETCH_MAX - 1];
    }
    sketch_of(s, candidate, have);
}

static void sketch_make(struct sketch *s, const uint32_t *shingle, size_t n)
{
    /* The 32 smallest of n even values mostly lie below 48 / n of all: look there first. */
    if (n > 96)
        sketch_below(s, shingle, n, (uint32_t)((UINT64_C(48) << 32) / n));
    if (s->n < SKETCH_MAX)
        sketch_below(s, shingle, n, UINT32_MAX);
}

double sketch_containment(const struct sketch *a, const struct sketch *b, unsigned *samples)
{
    uint32_t limit = UINT32_MAX;
    *samples = 0;
    if (a->n == 0 || b->n == 0)
        return 0;
    if (a->n == SKETCH_MAX)
        limit = a->value[SKETCH_MAX - 1];
    if (b->n == SKETCH_MAX && b->value[SKETCH_MAX - 1] < limit)
        limit = b->value[SKETCH_MAX - 1];
    unsigned na = 0, nb = 0, both = 0;
    while (na < a->n && a->value[na] <= limit)
        na++;
    while (nb < b->n && b->value[nb] <= limit)
        nb++;
    for (unsigned i = 0, j = 0; i < na && j < nb;) {
        both += a->value[i] == b->value[j];
        bool a_first = a->value[i] <= b->value[j], b_first = a->value[i] >= b->value[j];
        i += a_first;
        j += b_first;
    }
    *samples = na < nb ? na : nb;
    return *samples ? (double)both / *samples : 0;
}

/* ---- header facts ---- */

/* What is inside of the first <>, or everything; without blanks. */
static struct span identifier(struct arena *a, struct span value)
{
    size_t open = span_find(value, '<');
    struct span inner = span_from(value, open + 1);
    size_t close = span_find(inner, '>');
    if (open < value.n && close < inner.n)
        value = span_head(inner, close);
    uint8_t *p = arena_alloc(a, value.n);
    size_t n = 0;
    for (size_t i = 0; i < value.n; i++)
        if (!byte_space(value.p[i]) && value.p[i] != '<' && value.p[i] != '>')
            p[n++] = value.p[i];
    return span_of(p, n);
}

static struct span date_text(struct arena *a, struct span value)
{
    int64_t seconds;
    if (!date_parse(value, &seconds))
        return value;
    return span_str(arena_printf(a, "%lld", (long long)seconds));
}

static struct span lower_copy(struct arena *a, struct span s)
{
    uint8_t *p = arena_alloc(a, s.n);
    for (size_t i = 0; i < s.n; i++)
        p[i] = byte_lower(s.p[i]);
    return span_of(p, s.n);
}

static bool list_marked(const struct message *m)
{
    if (m->count[FIELD_LIST_ID] || m->count[FIELD_LIST_OTHER])
        return true;
    for (const struct field *f = message_first(m, FIELD_PRECEDENCE); f; f = message_next(m, f)) {
        struct span v = span_trim(f->value);
        if (span_case_eq(v, SPAN("list")) || span_case_eq(v, SPAN("bulk")))
            return true;
    }
    return false;
}

static void header_facts(struct fingerprints *out, struct arena *a, const struct message *m)
{
    const struct field *from = message_first(m, FIELD_FROM);
    out->message_id = identifier(a, message_value(m, FIELD_MESSAGE_ID));
    if (from)
        out->from = address_first(a, from->value);
    out->subject = message_value(m, FIELD_SUBJECT);
    out->date = date_text(a, message_value(m, FIELD_DATE));
    out->list_id = lower_copy(a, identifier(a, message_value(m, FIELD_LIST_ID)));
    out->list_marked = list_marked(m);
    out->resent = identifier(a, message_value(m, FIELD_RESENT_MESSAGE_ID));
    if (out->resent.n == 0)
        out->resent = date_text(a, message_value(m, FIELD_RESENT_DATE));
}

static void key_make(struct fingerprints *out, const struct keys *k)
{
    if (out->message_id.n) {
        const struct span parts[] = {out->message_id, out->date, out->from, out->resent};
        keys_mac(k, "M1", parts, 4, out->k.byte, sizeof out->k.byte);
        return;
    }
    uint8_t f[8];
    for (unsigned i = 0; i < 8; i++)
        f[i] = (uint8_t)(out->f >> 8 * i);
    const struct span parts[] = {out->date, out->from, out->subject, span_of(f, 8)};
    keys_mac(k, "M0", parts, 4, out->k.byte, sizeof out->k.byte);
}

void fingerprint_end(struct fingerprinter *f, struct fingerprints *out)
{
    mime_end(f->mime);
    memset(out, 0, sizeof *out);
    const struct words *w = &f->words;
    uint32_t digests = f->nattachments;
    if (digests > LIMIT_ATTACHMENTS)
        digests = LIMIT_ATTACHMENTS;
    uint32_t *shingle = arena_alloc(f->arena, w->n * sizeof *shingle);
    struct sip text = f_and_shingles(f->keys, w->hash, w->n, shingle);
    out->f = f_end(text, w->n, f->attachment, digests);
    if (w->n >= MIN_WORDS)
        sketch_make(&out->sketch, shingle + 2, w->n - 2);
    out->raw = relaxed_end(&f->raw);
    out->nwords = (uint32_t)w->n;
    out->nattachments = f->nattachments;
    out->word = w->hash;
    out->body_bytes = f->body_bytes;
    out->opening = span_of(f->opening, f->nopening);
    out->opening_html = f->opening_html;
    header_facts(out, f->arena, f->message);
    key_make(out, f->keys);
}

struct key fingerprint_variant(const struct keys *k, const struct key *key, unsigned v)
{
    struct key out = {0};
    const uint8_t number[4] = {(uint8_t)v, (uint8_t)(v >> 8), 0, 0};
    const struct span parts[] = {span_of(key->byte, sizeof key->byte), span_of(number, 4)};
    keys_mac(k, "M1v", parts, 2, out.byte, sizeof out.byte);
    return out;
}
