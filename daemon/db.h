/*
 * db.h - SQLite with less ceremony: a connection, its kept statements, and typed arguments.
 *
 * Arguments are described by one letter each:
 *   i int   l int64_t   u uint64_t (its bits)   d uint64_t id (keeps its order)   s text or NULL
 *   b struct span (bytes)   w struct db_word (a number, or bytes, or NULL when both are empty)
 */
#ifndef DB_H
#define DB_H

#include <sqlite3.h>

#include "span.h"

enum { DB_KEPT = 128 };

/* A connection; one thread. */
struct db {
    sqlite3 *raw;
    struct {
        const char *sql; /* the literal itself: compared by address */
        sqlite3_stmt *stmt;
    } kept[DB_KEPT];
    unsigned nkept;
    int fault; /* SQLite's code of the last failure, 0: none */
};

/* A string that is either in a table of its own (id) or written out in place. */
struct db_word {
    int64_t id;
    struct span text;
};

/* flags as sqlite3_open_v2. -1 after a sentence in error; the connection is closed then. */
int db_open(struct db *, const char *path, int flags, char error[512]) MUSTCHECK;
void db_close(struct db *);

/* SQL without arguments and rows, one or more statements. */
int db_script(struct db *, const char *sql) MUSTCHECK;
/* A kept statement, reset and bound; sql must be a literal. NULL on failure. The bytes bound must
 * live until it is done. */
sqlite3_stmt *db_bind(struct db *, const char *sql, const char *types, ...) MUSTCHECK;
/* 1: a row; 0: no more; -1: failure. The statement is reset on 0 and -1. */
int db_step(struct db *, sqlite3_stmt *) MUSTCHECK;
/* Runs to the end: how many rows changed, or -1. */
int db_run(struct db *, const char *sql, const char *types, ...) MUSTCHECK;
/* First column of the first row as a number. 1, 0: no row or NULL, -1. */
int db_ask(struct db *, int64_t *out, const char *sql, const char *types, ...) MUSTCHECK;

struct span db_span(sqlite3_stmt *, int column); /* until the next step */
uint64_t db_id(sqlite3_stmt *, int column);

/* Ids are unsigned and rise; SQLite's integers are signed. This keeps their order. */
static inline int64_t db_from_id(uint64_t id)
{
    uint64_t flipped = id ^ (UINT64_C(1) << 63);
    int64_t out;
    memcpy(&out, &flipped, sizeof(out));
    return out;
}

static inline int64_t db_from_bits(uint64_t bits)
{
    int64_t out;
    memcpy(&out, &bits, sizeof(out));
    return out;
}

#endif
