/*
 * content.h - the bytes of held messages: each header and each body once.
 *
 *   plain   as they are            packed  zstd
 *   delta   zstd against another content of the same storm, its reference, which is never a
 *           delta itself
 *   pieces  packed, too large for one row: cut into the table `piece`
 *
 * Found by SHA-256 (the first 22 bytes of it are kept: tag and digest). Invariant: refs of a
 * content = mails that name it + deltas against it + storms whose reference it is; at 0 it is
 * collected.
 */
#ifndef CONTENT_H
#define CONTENT_H

#include <openssl/evp.h>
#include <zstd.h>

#include "body.h"
#include "count.h"

enum content_form { CONTENT_PLAIN, CONTENT_PACKED, CONTENT_DELTA, CONTENT_PIECES };
enum {
    CONTENT_WHOLE = 8 << 20, /* bytes up to which a content is one row and may be a delta */
    CONTENT_HOT = 16,        /* references kept in memory */
    CONTENT_HOT_BYTES = 32 << 20,
};

/* A growing stretch of memory, reused from mail to mail. */
struct content_bytes {
    uint8_t *p;
    size_t n, cap;
};

struct content_hot {
    int64_t id;
    uint8_t *bytes;
    size_t n;
    ZSTD_CDict *dict; /* NULL: too large to be worth one */
    uint64_t used;
};

struct contents {
    struct db *db;
    struct counts *counts;
    ZSTD_CCtx *pack;
    ZSTD_DCtx *unpack;
    struct content_bytes body, out, spare;
    struct content_hot hot[CONTENT_HOT];
    size_t hot_bytes;
    uint64_t clock;
};

void contents_open(struct contents *, struct db *, struct counts *);
void contents_close(struct contents *);
void contents_forget(struct contents *); /* after a rollback: ids may be void */

/*
 * Stores bytes once more: *id gains a reference. What is there already is read back first: nothing
 * is acknowledged on the strength of damaged bytes, they are written anew. sha256: theirs, if it is
 * known already; NULL. *reference is the storm's, 0: none yet; then it is set to a content fit to
 * be one and that has gained a second reference.
 */
int content_put(struct contents *, struct span, const uint8_t *sha256, int64_t *reference,
                int64_t *id) MUSTCHECK;
/* The same for a body of any size. whole: a running SHA-256 that the body is added to. */
int content_put_body(struct contents *, const struct body *, EVP_MD_CTX *whole, int64_t *reference,
                     int64_t *id) MUSTCHECK;

/* Appends the content to out. -1: not there or unreadable database; -2: damaged. */
int content_read(struct contents *, int64_t id, struct content_bytes *out) MUSTCHECK;

/* One reference less. */
int content_drop(struct contents *, int64_t id) MUSTCHECK;
/* Removes contents nobody refers to. */
int contents_collect(struct contents *) MUSTCHECK;

#endif
