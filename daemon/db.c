/*
 * db.c - see db.h. Statements are prepared once per connection and found again by the address of
 * their text, so that a put costs no parsing.
 */
#include "db.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

/* fold(bytes): ASCII lower case, for comparing addresses. */
static void sql_fold(sqlite3_context *context, int argc, sqlite3_value **argv)
{
    (void)argc;
    const uint8_t *in = sqlite3_value_blob(argv[0]);
    int n = sqlite3_value_bytes(argv[0]);
    uint8_t *out = sqlite3_malloc(n + 1);
    if (!out) {
        sqlite3_result_error_nomem(context);
        return;
    }
    for (int i = 0; i < n; i++)
        out[i] = byte_lower(in[i]);
    sqlite3_result_blob(context, out, n, sqlite3_free);
}

int db_open(struct db *db, const char *path, int flags, char error[512])
{
    *db = (struct db){0};
    int rc = sqlite3_open_v2(path, &db->raw, flags | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_extended_result_codes(db->raw, 1);
    if (rc == SQLITE_OK)
        rc = sqlite3_busy_timeout(db->raw, 10000);
    if (rc == SQLITE_OK)
        rc = sqlite3_create_function(db->raw, "fold", 1, SQLITE_UTF8 | SQLITE_DETERMINISTIC, NULL,
                                     sql_fold, NULL, NULL);
    if (rc == SQLITE_OK)
        return 0;
    snprintf(error, 512, "cannot open %s: %s", path,
             db->raw ? sqlite3_errmsg(db->raw) : sqlite3_errstr(rc));
    db_close(db);
    db->fault = rc;
    return -1;
}

void db_close(struct db *db)
{
    for (unsigned i = 0; i < db->nkept; i++)
        sqlite3_finalize(db->kept[i].stmt);
    sqlite3_close(db->raw);
    *db = (struct db){0};
}

static int failed(struct db *db, int rc)
{
    db->fault = rc;
    return -1;
}

int db_script(struct db *db, const char *sql)
{
    int rc = sqlite3_exec(db->raw, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : failed(db, rc);
}

static sqlite3_stmt *kept(struct db *db, const char *sql)
{
    for (unsigned i = 0; i < db->nkept; i++)
        if (db->kept[i].sql == sql)
            return db->kept[i].stmt;
    assert(db->nkept < DB_KEPT);
    sqlite3_stmt *stmt;
    int rc = sqlite3_prepare_v3(db->raw, sql, -1, SQLITE_PREPARE_PERSISTENT, &stmt, NULL);
    if (rc != SQLITE_OK) {
        failed(db, rc);
        return NULL;
    }
    db->kept[db->nkept].sql = sql;
    db->kept[db->nkept++].stmt = stmt;
    return stmt;
}

static int bind_span(sqlite3_stmt *stmt, int i, struct span s)
{
    return s.n ? sqlite3_bind_blob64(stmt, i, s.p, s.n, SQLITE_STATIC)
               : sqlite3_bind_zeroblob(stmt, i, 0);
}

static int bind_word(sqlite3_stmt *stmt, int i, struct db_word w)
{
    if (w.id)
        return sqlite3_bind_int64(stmt, i, w.id);
    return w.text.n ? bind_span(stmt, i, w.text) : sqlite3_bind_null(stmt, i);
}

static int bind_one(sqlite3_stmt *stmt, int i, char type, va_list *ap)
{
    switch (type) {
    case 'i':
        return sqlite3_bind_int(stmt, i, va_arg(*ap, int));
    case 'l':
        return sqlite3_bind_int64(stmt, i, va_arg(*ap, int64_t));
    case 'u':
        return sqlite3_bind_int64(stmt, i, db_from_bits(va_arg(*ap, uint64_t)));
    case 'd':
        return sqlite3_bind_int64(stmt, i, db_from_id(va_arg(*ap, uint64_t)));
    case 's':
        return sqlite3_bind_text(stmt, i, va_arg(*ap, const char *), -1, SQLITE_STATIC);
    case 'b':
        return bind_span(stmt, i, va_arg(*ap, struct span));
    case 'w':
        return bind_word(stmt, i, va_arg(*ap, struct db_word));
    default:
        assert(0 && "a type letter of db.h");
        return SQLITE_MISUSE;
    }
}

static sqlite3_stmt *bind_all(struct db *db, const char *sql, const char *types, va_list *ap)
{
    sqlite3_stmt *stmt = kept(db, sql);
    if (!stmt)
        return NULL;
    sqlite3_reset(stmt);
    for (int i = 0; types[i]; i++) {
        int rc = bind_one(stmt, i + 1, types[i], ap);
        if (rc != SQLITE_OK) {
            failed(db, rc);
            return NULL;
        }
    }
    return stmt;
}

sqlite3_stmt *db_bind(struct db *db, const char *sql, const char *types, ...)
{
    va_list ap;
    va_start(ap, types);
    sqlite3_stmt *stmt = bind_all(db, sql, types, &ap);
    va_end(ap);
    return stmt;
}

int db_step(struct db *db, sqlite3_stmt *stmt)
{
    int rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW)
        return 1;
    sqlite3_reset(stmt);
    return rc == SQLITE_DONE ? 0 : failed(db, rc);
}

int db_run(struct db *db, const char *sql, const char *types, ...)
{
    va_list ap;
    va_start(ap, types);
    sqlite3_stmt *stmt = bind_all(db, sql, types, &ap);
    va_end(ap);
    if (!stmt)
        return -1;
    int rc;
    do
        rc = db_step(db, stmt);
    while (rc == 1);
    return rc < 0 ? -1 : sqlite3_changes(db->raw);
}

int db_ask(struct db *db, int64_t *out, const char *sql, const char *types, ...)
{
    va_list ap;
    va_start(ap, types);
    sqlite3_stmt *stmt = bind_all(db, sql, types, &ap);
    va_end(ap);
    if (!stmt)
        return -1;
    int rc = db_step(db, stmt);
    if (rc != 1)
        return rc;
    bool there = sqlite3_column_type(stmt, 0) != SQLITE_NULL;
    *out = sqlite3_column_int64(stmt, 0);
    sqlite3_reset(stmt);
    return there;
}

struct span db_span(sqlite3_stmt *stmt, int column)
{
    const void *p = sqlite3_column_blob(stmt, column);
    return span_of(p, (size_t)sqlite3_column_bytes(stmt, column));
}

uint64_t db_id(sqlite3_stmt *stmt, int column)
{
    return (uint64_t)sqlite3_column_int64(stmt, column) ^ (UINT64_C(1) << 63);
}
