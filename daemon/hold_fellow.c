/* hold_fellow.c - see hold_fellow.h. */
#include "hold_fellow.h"

#include "hold_own.h"

int hold_command_take(struct hold *h, const char *id, const char *who, int64_t now)
{
    return db_run(&h->db, "INSERT OR IGNORE INTO command(id, who, at) VALUES(?, ?, ?)", "ssl", id,
                  who ? who : "", now);
}

int hold_command_known(struct hold *h, const char *id)
{
    int64_t n = 0;
    int rc = db_ask(&h->db, &n, "SELECT count(*) FROM command WHERE id = ?", "s", id);
    return rc < 0 ? -1 : n > 0;
}

int hold_fellow_save(struct hold *h, const char *node, const char *id, int64_t first, int64_t last,
                     const char *json)
{
    return db_run(&h->db,
                  "INSERT INTO fellow(node, id, first, last, document) VALUES(?1, ?2, ?3, ?4, ?5)"
                  " ON CONFLICT DO UPDATE SET first = ?3, last = ?4, document = ?5",
                  "sslls", node, id, first, last, json) < 0
               ? -1
               : 0;
}

int hold_fellow_each(struct hold *h, const char *id, fellow_fn *fn, void *arg)
{
    sqlite3_stmt *q = db_bind(
        &h->db, "SELECT node, id, document FROM fellow WHERE id = ? ORDER BY node", "s", id);
    int rc = q ? 1 : -1, stop = 0;
    while (rc == 1 && !stop && (rc = db_step(&h->db, q)) == 1)
        stop = fn(arg, (const char *)sqlite3_column_text(q, 0),
                  (const char *)sqlite3_column_text(q, 1), (const char *)sqlite3_column_text(q, 2));
    if (q)
        sqlite3_reset(q);
    return rc < 0 ? -1 : 0;
}

int hold_fellow_latest(struct hold *h, int64_t since, size_t limit, fellow_id_fn *fn, void *arg)
{
    sqlite3_stmt *q = db_bind(&h->db,
                              "SELECT id, max(last) FROM fellow WHERE last >= ?1 GROUP BY id"
                              " ORDER BY 2 DESC, id LIMIT ?2",
                              "ll", since, limit < INT32_MAX ? (int64_t)limit : INT32_MAX);
    int rc = q ? 1 : -1;
    while (rc == 1 && (rc = db_step(&h->db, q)) == 1)
        fn(arg, (const char *)sqlite3_column_text(q, 0));
    return rc < 0 ? -1 : 0;
}
