/*
 * pages.h - the rows of an SQLite file, read page by page without SQLite: a row is found on its own
 * page, whatever became of the pages that led to it (sqlite.org/fileformat.html).
 *
 * For files of schema.c: pages of 4096 bytes, UTF-8, auto_vacuum. Any bytes are taken; the work is
 * linear in their number.
 */
#ifndef PAGES_H
#define PAGES_H

#include "span.h"

enum {
    PAGES_SIZE = 4096,
    PAGES_COLUMNS = 24,              /* a record with more is none of ours */
    PAGES_RECORD = (16 << 20) + 512, /* bytes; a larger one neither */
};

enum value_type { VALUE_NULL, VALUE_INTEGER, VALUE_TEXT, VALUE_BLOB };
struct value {
    enum value_type type;
    int64_t integer;
    struct span bytes; /* text and blobs */
};
/* A row of a table, or an entry of an index or of a table WITHOUT ROWID. */
struct record {
    int64_t rowid; /* of tables; else 0 */
    size_t n;
    struct value column[PAGES_COLUMNS];
};

struct pages;
/* db, wal: open for reading, or -1; they stay the caller's. Frames committed to the write-ahead log
 * come before what the file says. A page that cannot be read is a lost page. */
struct pages *pages_open(int db, int wal);
void pages_close(struct pages **);

typedef void record_fn(void *arg, const struct record *); /* bytes: until it returns */
/* Every record that can be made out: of tables, or of the other kind. Those on pages known to be in
 * use come first; then those on pages of which that is not known, where old ones may lie. */
void pages_each(struct pages *, bool tables, record_fn *, void *arg);

#endif
