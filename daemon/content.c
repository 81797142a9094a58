/*
 * content.c - see content.h. The references of current storms stay in memory, with a zstd
 * dictionary made from them: the usual further copy of a storm costs one comparison for its body
 * and one small compression for its header.
 */
#include "content.h"

#include <stdlib.h>

#include "failpoint.h"

enum {
    LEVEL = 3,            /* for what is packed once */
    DICT_LEVEL = 6,       /* for deltas: with a dictionary ready made it is the faster one */
    DICT_MAX = 256 << 10, /* references up to this size get a dictionary */
    PIECE = 1 << 20,      /* packed bytes in one row of `piece` */
    DIGEST = 22,          /* bytes of the SHA-256 that are kept */
    TAG = 6,              /* of these, in the indexed integer */
};
#define CONTENT_LIMIT                                                                              \
    (UINT64_C(4) << 30) /* no content is larger: a damaged size is not believed                    \
                         */

static void room(struct content_bytes *b, size_t more)
{
    if (b->cap - b->n >= more)
        return;
    size_t cap = b->cap ? b->cap : 4096;
    while (cap - b->n < more)
        cap *= 2;
    b->p = realloc(b->p, cap);
    if (!b->p)
        abort();
    b->cap = cap;
}

static void append(struct content_bytes *b, struct span s)
{
    room(b, s.n);
    if (s.n)
        memcpy(b->p + b->n, s.p, s.n);
    b->n += s.n;
}

void contents_open(struct contents *c, struct db *db, struct counts *counts)
{
    *c = (struct contents){.db = db, .counts = counts};
    c->pack = ZSTD_createCCtx();
    c->unpack = ZSTD_createDCtx();
    if (!c->pack || !c->unpack)
        abort();
}

static void cool(struct contents *c, struct content_hot *h)
{
    c->hot_bytes -= h->n;
    ZSTD_freeCDict(h->dict);
    free(h->bytes);
    *h = (struct content_hot){0};
}

void contents_forget(struct contents *c)
{
    for (size_t i = 0; i < CONTENT_HOT; i++)
        cool(c, &c->hot[i]);
}

void contents_close(struct contents *c)
{
    contents_forget(c);
    ZSTD_freeCCtx(c->pack);
    ZSTD_freeDCtx(c->unpack);
    free(c->body.p);
    free(c->out.p);
    free(c->spare.p);
    *c = (struct contents){0};
}

/* Digests. */

struct digest {
    int64_t tag;
    struct span rest;
    uint8_t sha[32];
};

static void digest_cut(struct digest *d)
{
    d->tag = 0;
    for (size_t i = 0; i < TAG; i++)
        d->tag = d->tag << 8 | d->sha[i];
    d->rest = span_of(d->sha + TAG, DIGEST - TAG);
}

static void digest_of(struct digest *d, struct span bytes, const uint8_t *sha256)
{
    if (sha256)
        memcpy(d->sha, sha256, sizeof(d->sha));
    else if (EVP_Digest(bytes.p ? bytes.p : (const uint8_t *)"", bytes.n, d->sha, NULL,
                        EVP_sha256(), NULL) != 1)
        abort();
    digest_cut(d);
}

/* Are these the bytes that were stored? */
static bool is_sound(struct contents *c, int64_t id, struct span bytes)
{
    struct digest d;
    int64_t same;
    digest_of(&d, bytes, NULL);
    return db_ask(c->db, &same, "SELECT tag = ?2 AND digest = ?3 FROM content WHERE id = ?1", "llb",
                  id, d.tag, d.rest) == 1 &&
           same;
}

/* References in memory. */

static struct content_hot *coldest(struct contents *c)
{
    struct content_hot *old = &c->hot[0];
    for (size_t i = 1; i < CONTENT_HOT; i++)
        if (c->hot[i].used < old->used)
            old = &c->hot[i];
    return old;
}

static struct content_hot *heat(struct contents *c, int64_t id, struct span bytes)
{
    struct content_hot *h;
    do {
        h = coldest(c);
        cool(c, h);
    } while (c->hot_bytes && c->hot_bytes + bytes.n > CONTENT_HOT_BYTES);
    h->bytes = malloc(bytes.n + 1);
    if (!h->bytes)
        abort();
    if (bytes.n)
        memcpy(h->bytes, bytes.p, bytes.n);
    h->n = bytes.n;
    c->hot_bytes += bytes.n;
    h->id = id;
    h->used = ++c->clock;
    if (bytes.n >= 16 && bytes.n <= DICT_MAX)
        h->dict = ZSTD_createCDict(h->bytes, h->n, DICT_LEVEL);
    return h;
}

/* The reference's bytes; NULL when it cannot be one (gone, damaged, too large). */
static struct content_hot *hot(struct contents *c, int64_t id)
{
    if (id == 0)
        return NULL;
    for (size_t i = 0; i < CONTENT_HOT; i++)
        if (c->hot[i].id == id) {
            c->hot[i].used = ++c->clock;
            return &c->hot[i];
        }
    int64_t base;
    if (db_ask(c->db, &base, "SELECT form FROM content WHERE id = ?", "l", id) != 1 ||
        base > CONTENT_PACKED)
        return NULL;
    c->spare.n = 0;
    if (content_read(c, id, &c->spare) || !is_sound(c, id, span_of(c->spare.p, c->spare.n)))
        return NULL;
    return heat(c, id, span_of(c->spare.p, c->spare.n));
}

/* Packing. */

static int window_log(size_t n)
{
    int log = 10;
    while (log < 27 && ((size_t)1 << log) < n)
        log++;
    return log;
}

/* Packs bytes into c->out after `at`; 0 when that failed. */
static size_t pack(struct contents *c, struct span bytes, const struct content_hot *ref, size_t at)
{
    c->out.n = at;
    room(&c->out, ZSTD_compressBound(bytes.n));
    size_t rc = ZSTD_CCtx_reset(c->pack, ZSTD_reset_session_and_parameters);
    if (!ZSTD_isError(rc))
        rc = ZSTD_CCtx_setParameter(c->pack, ZSTD_c_compressionLevel, LEVEL);
    if (!ZSTD_isError(rc) && ref && ref->dict)
        rc = ZSTD_CCtx_refCDict(c->pack, ref->dict);
    if (!ZSTD_isError(rc) && ref && !ref->dict) {
        /* As `zstd --patch-from`: the window spans both, long matches are looked for first. */
        rc = ZSTD_CCtx_setParameter(c->pack, ZSTD_c_windowLog, window_log(ref->n + bytes.n));
        if (!ZSTD_isError(rc))
            rc = ZSTD_CCtx_setParameter(c->pack, ZSTD_c_enableLongDistanceMatching, 1);
        if (!ZSTD_isError(rc))
            rc = ZSTD_CCtx_refPrefix(c->pack, ref->bytes, ref->n);
    }
    if (!ZSTD_isError(rc))
        rc = ZSTD_compress2(c->pack, c->out.p + at, c->out.cap - at, bytes.p ? bytes.p : c->out.p,
                            bytes.n);
    return ZSTD_isError(rc) ? 0 : rc;
}

/* What is written for a content, and how. */
struct packed {
    enum content_form form;
    int64_t base;
    struct span stored;
};

/* The smallest of delta, packed and plain. */
static struct packed squeeze(struct contents *c, struct span bytes, const struct content_hot *ref)
{
    struct packed best = {CONTENT_PLAIN, 0, bytes};
    size_t delta = ref ? pack(c, bytes, ref, 0) : 0;
    if (delta && delta < best.stored.n)
        best = (struct packed){CONTENT_DELTA, ref->id, span_of(c->out.p, delta)};
    if (best.form == CONTENT_DELTA && delta < bytes.n / 8)
        return best;
    size_t n = pack(c, bytes, NULL, delta);
    if (best.form == CONTENT_DELTA)
        best.stored.p = c->out.p; /* it may have moved */
    if (n && n < best.stored.n)
        best = (struct packed){CONTENT_PACKED, 0, span_of(c->out.p + delta, n)};
    return best;
}

/* Finding and adding. */

/* 1: *id has it, *fit says what may be a reference for it (0: nothing); 0; -1. */
static int find(struct contents *c, const struct digest *d, uint64_t size, int64_t *id,
                int64_t *fit)
{
    sqlite3_stmt *q = db_bind(c->db,
                              "SELECT id, base, form FROM content"
                              " WHERE tag = ? AND digest = ? AND size = ?",
                              "lbu", d->tag, d->rest, size);
    int rc = q ? db_step(c->db, q) : -1;
    if (rc != 1)
        return rc;
    *id = sqlite3_column_int64(q, 0);
    *fit = sqlite3_column_int64(q, 1); /* a delta's base will do */
    if (sqlite3_column_int(q, 2) <= CONTENT_PACKED)
        *fit = *id;
    sqlite3_reset(q);
    return 1;
}

static int add(struct contents *c, const struct digest *d, uint64_t size, struct packed p,
               int64_t *id)
{
    if (FAILPOINT("content.add") ||
        db_run(c->db,
               "INSERT INTO content(tag, digest, base, refs, form, size, bytes)"
               " VALUES(?, ?, ?, 1, ?, ?, ?)",
               "lbwiub", d->tag, d->rest, (struct db_word){.id = p.base}, (int)p.form, size,
               p.stored) < 0)
        return -1;
    *id = sqlite3_last_insert_rowid(c->db->raw);
    if (p.base && count_add(c->counts, COUNT_REFERENCES, p.base, 1))
        return -1;
    if (count_add(c->counts, COUNT_CONTENTS, 0, 1) ||
        count_add(c->counts, COUNT_BYTES, 0, (int64_t)p.stored.n))
        return -1;
    return 0;
}

/* The storm takes `fit` as its reference. */
static int refer(struct contents *c, int64_t *reference, int64_t fit)
{
    if (*reference || !fit)
        return 0;
    *reference = fit;
    return count_add(c->counts, COUNT_REFERENCES, fit, 1);
}

static int put_fresh(struct contents *c, struct span bytes, const struct digest *d,
                     const struct content_hot *ref, int64_t *reference, int64_t *id)
{
    struct packed p = squeeze(c, bytes, ref);
    if (add(c, d, bytes.n, p, id))
        return -1;
    if (*reference)
        return 0;
    heat(c, *id, bytes);
    return refer(c, reference, *id);
}

static bool reads_as(struct contents *c, int64_t id, struct span bytes)
{
    c->spare.n = 0;
    return content_read(c, id, &c->spare) == 0 && span_eq(bytes, span_of(c->spare.p, c->spare.n));
}

/* A content that was damaged and whose bytes have come again is written anew. */
static int heal(struct contents *c, int64_t id, struct span bytes)
{
    sqlite3_stmt *q =
        db_bind(c->db, "SELECT base, length(bytes) FROM content WHERE id = ?", "l", id);
    if (!q || db_step(c->db, q) != 1)
        return -1;
    int64_t base = sqlite3_column_int64(q, 0), before = sqlite3_column_int64(q, 1);
    sqlite3_reset(q);
    struct packed p = squeeze(c, bytes, NULL);
    if (db_run(c->db, "UPDATE content SET base = NULL, form = ?2, bytes = ?3 WHERE id = ?1", "lib",
               id, (int)p.form, p.stored) < 0 ||
        (base > 0 && count_add(c->counts, COUNT_REFERENCES, base, -1)))
        return -1;
    return count_add(c->counts, COUNT_BYTES, 0, (int64_t)p.stored.n - before);
}

int content_put(struct contents *c, struct span bytes, const uint8_t *sha256, int64_t *reference,
                int64_t *id)
{
    const struct content_hot *ref = hot(c, *reference);
    if (ref && span_eq(bytes, span_of(ref->bytes, ref->n))) {
        *id = ref->id;
        return count_add(c->counts, COUNT_REFERENCES, *id, 1);
    }
    struct digest d;
    digest_of(&d, bytes, sha256);
    int64_t fit = 0;
    int rc = find(c, &d, bytes.n, id, &fit);
    if (rc < 0)
        return -1;
    if (rc == 0)
        return put_fresh(c, bytes, &d, ref, reference, id);
    if (!reads_as(c, *id, bytes)) {
        fit = *id;
        if (heal(c, *id, bytes))
            return -1;
    }
    if (count_add(c->counts, COUNT_REFERENCES, *id, 1))
        return -1;
    return refer(c, reference, fit);
}

/* Bodies too large for one row: two passes, one to know them, one to pack them. */

struct stream {
    struct contents *c;
    EVP_MD_CTX *whole, *part;
    int64_t id, stored;
};

static int hash_part(void *arg, struct span s)
{
    struct stream *st = arg;
    return EVP_DigestUpdate(st->whole, s.p, s.n) == 1 && EVP_DigestUpdate(st->part, s.p, s.n) == 1
               ? 0
               : -1;
}

static int write_piece(struct stream *st)
{
    struct content_bytes *out = &st->c->out;
    if (out->n == 0)
        return 0;
    if (FAILPOINT("content.piece") ||
        db_run(st->c->db, "INSERT INTO piece(content, bytes) VALUES(?, ?)", "lb", st->id,
               span_of(out->p, out->n)) < 0)
        return -1;
    st->stored += (int64_t)out->n;
    out->n = 0;
    return 0;
}

static int pack_some(struct stream *st, struct span s, ZSTD_EndDirective end)
{
    struct content_bytes *out = &st->c->out;
    ZSTD_inBuffer in = {s.p, s.n, 0};
    for (;;) {
        ZSTD_outBuffer to = {out->p, PIECE, out->n};
        size_t left = ZSTD_compressStream2(st->c->pack, &to, &in, end);
        if (ZSTD_isError(left))
            return -1;
        out->n = to.pos;
        if (out->n == PIECE && write_piece(st))
            return -1;
        if (end == ZSTD_e_end ? left == 0 : in.pos == in.size)
            return 0;
    }
}

static int pack_part(void *arg, struct span s)
{
    return pack_some(arg, s, ZSTD_e_continue);
}

static int pack_pieces(struct stream *st, const struct body *body)
{
    struct contents *c = st->c;
    c->out.n = 0;
    room(&c->out, PIECE);
    if (ZSTD_isError(ZSTD_CCtx_reset(c->pack, ZSTD_reset_session_and_parameters)) ||
        ZSTD_isError(ZSTD_CCtx_setPledgedSrcSize(c->pack, body_size(body))) ||
        body_each(body, pack_part, st) || pack_some(st, (struct span){0}, ZSTD_e_end) ||
        write_piece(st))
        return -1;
    return count_add(c->counts, COUNT_BYTES, 0, st->stored);
}

static int put_large(struct stream *st, const struct body *body, int64_t *id)
{
    struct contents *c = st->c;
    struct digest d;
    if (EVP_DigestInit_ex(st->part, EVP_sha256(), NULL) != 1 || body_each(body, hash_part, st) ||
        EVP_DigestFinal_ex(st->part, d.sha, NULL) != 1)
        return -1;
    digest_cut(&d);
    int64_t fit;
    int rc = find(c, &d, body_size(body), id, &fit);
    if (rc < 0)
        return -1;
    if (rc == 1)
        return count_add(c->counts, COUNT_REFERENCES, *id, 1);
    if (add(c, &d, body_size(body), (struct packed){.form = CONTENT_PIECES}, &st->id))
        return -1;
    *id = st->id;
    return pack_pieces(st, body);
}

static int gather(void *arg, struct span s)
{
    append(arg, s);
    return 0;
}

int content_put_body(struct contents *c, const struct body *body, EVP_MD_CTX *whole,
                     int64_t *reference, int64_t *id)
{
    if (body_size(body) > CONTENT_WHOLE) {
        struct stream st = {.c = c, .whole = whole, .part = EVP_MD_CTX_new()};
        int rc = st.part ? put_large(&st, body, id) : -1;
        EVP_MD_CTX_free(st.part);
        return rc;
    }
    c->body.n = 0;
    room(&c->body, body_size(body));
    if (body_each(body, gather, &c->body))
        return -1;
    struct span bytes = span_of(c->body.p, c->body.n);
    if (bytes.n && EVP_DigestUpdate(whole, bytes.p, bytes.n) != 1)
        return -1;
    return content_put(c, bytes, NULL, reference, id);
}

/* Reading. */

static int unpack(struct contents *c, struct span stored, struct span base, uint64_t size,
                  struct content_bytes *out)
{
    if (size > CONTENT_LIMIT)
        return -2;
    room(out, size + 1);
    size_t rc = ZSTD_DCtx_reset(c->unpack, ZSTD_reset_session_and_parameters);
    if (!ZSTD_isError(rc) && base.n)
        rc = ZSTD_DCtx_refPrefix(c->unpack, base.p, base.n);
    if (!ZSTD_isError(rc))
        rc = ZSTD_decompressDCtx(c->unpack, out->p + out->n, size + 1, stored.p, stored.n);
    if (ZSTD_isError(rc) || rc != size)
        return -2;
    out->n += size;
    return 0;
}

static int read_pieces(struct contents *c, int64_t id, uint64_t size, struct content_bytes *out)
{
    if (size > CONTENT_LIMIT || ZSTD_isError(ZSTD_DCtx_reset(c->unpack, ZSTD_reset_session_only)))
        return -2;
    room(out, size + 1);
    ZSTD_outBuffer to = {out->p + out->n, size + 1, 0};
    sqlite3_stmt *q =
        db_bind(c->db, "SELECT bytes FROM piece WHERE content = ? ORDER BY id", "l", id);
    int rc = q ? 1 : -1;
    while (rc == 1 && (rc = db_step(c->db, q)) == 1) {
        struct span s = db_span(q, 0);
        ZSTD_inBuffer in = {s.p, s.n, 0};
        while (in.pos < in.size && to.pos <= size)
            if (ZSTD_isError(ZSTD_decompressStream(c->unpack, &to, &in)))
                break;
        if (in.pos < in.size)
            rc = -2;
    }
    if (q)
        sqlite3_reset(q);
    if (rc == 0 && to.pos != size)
        rc = -2;
    if (rc == 0)
        out->n += size;
    return rc;
}

static int read_delta(struct contents *c, struct span stored, int64_t base, uint64_t size,
                      struct content_bytes *out)
{
    int64_t form;
    int rc = db_ask(c->db, &form, "SELECT form FROM content WHERE id = ?", "l", base);
    if (rc <= 0 || form > CONTENT_PACKED)
        return rc < 0 ? -1 : -2; /* its reference is gone */
    struct content_bytes from = {0}, mine = {0};
    append(&mine, stored); /* the statement is about to read the reference */
    rc = content_read(c, base, &from);
    if (rc == 0)
        rc = unpack(c, span_of(mine.p, mine.n), span_of(from.p, from.n), size, out);
    free(from.p);
    free(mine.p);
    return rc;
}

int content_read(struct contents *c, int64_t id, struct content_bytes *out)
{
    sqlite3_stmt *q =
        db_bind(c->db, "SELECT form, base, size, bytes FROM content WHERE id = ?", "l", id);
    int rc = q ? db_step(c->db, q) : -1;
    if (rc != 1)
        return -1;
    int form = sqlite3_column_int(q, 0);
    int64_t base = sqlite3_column_int64(q, 1);
    uint64_t size = (uint64_t)sqlite3_column_int64(q, 2);
    struct span stored = db_span(q, 3);
    rc = -2;
    if (form == CONTENT_PLAIN && stored.n == size) {
        append(out, stored);
        rc = 0;
    } else if (form == CONTENT_PACKED) {
        rc = unpack(c, stored, (struct span){0}, size, out);
    } else if (form == CONTENT_DELTA) {
        return read_delta(c, stored, base, size, out);
    } else if (form == CONTENT_PIECES) {
        rc = read_pieces(c, id, size, out);
    }
    sqlite3_reset(q);
    return rc;
}

/* Letting go. */

int content_drop(struct contents *c, int64_t id)
{
    return count_add(c->counts, COUNT_REFERENCES, id, -1);
}

static int pieces_bytes(struct contents *c, int64_t id, int64_t *n)
{
    *n = 0;
    return db_ask(c->db, n, "SELECT sum(length(bytes)) FROM piece WHERE content = ?", "l", id) < 0
               ? -1
               : 0;
}

static int collect_one(struct contents *c, int64_t id, int64_t base, int64_t stored)
{
    for (size_t i = 0; i < CONTENT_HOT; i++)
        if (c->hot[i].id == id)
            cool(c, &c->hot[i]);
    int64_t more;
    if (FAILPOINT("content.collect") || pieces_bytes(c, id, &more) ||
        db_run(c->db, "DELETE FROM piece WHERE content = ?", "l", id) < 0 ||
        db_run(c->db, "DELETE FROM content WHERE id = ?", "l", id) < 0)
        return -1;
    if (base && content_drop(c, base))
        return -1;
    if (count_add(c->counts, COUNT_CONTENTS, 0, -1) ||
        count_add(c->counts, COUNT_BYTES, 0, -(stored + more)))
        return -1;
    return 0;
}

int contents_collect(struct contents *c)
{
    for (;;) {
        if (counts_flush(c->counts))
            return -1;
        sqlite3_stmt *q =
            db_bind(c->db, "SELECT id, base, length(bytes) FROM content WHERE refs = 0", "");
        int rc = q ? db_step(c->db, q) : -1;
        if (rc != 1)
            return rc;
        int64_t id = sqlite3_column_int64(q, 0), base = sqlite3_column_int64(q, 1),
                stored = sqlite3_column_int64(q, 2);
        sqlite3_reset(q);
        if (collect_one(c, id, base, stored))
            return -1;
    }
}
