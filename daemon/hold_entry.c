/* hold_entry.c - see hold_entry.h. */
#include "hold_entry.h"

#include "hold_own.h"

#define MEMORY (400 * 86400000LL) /* ms */

static const char *text_of(const char *s)
{
    return s ? s : "";
}

int hold_entry_add(struct hold *h, const struct entry_row *r)
{
    const struct entry_terms *t = &r->terms;
    return db_run(&h->db,
                  "INSERT INTO entry(id, at, kind, hold, what, who, why, until, used, ended_by,"
                  " ended_why, last) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                  "dliissslussl", r->id, t->at, (int)t->kind, (int)t->hold, text_of(t->what),
                  text_of(t->who), text_of(t->why), t->until, t->used, text_of(r->ended_by),
                  text_of(r->ended_why), t->last) < 0
               ? -1
               : 0;
}

int hold_entry_end(struct hold *h, uint64_t id, int64_t now, const char *by, const char *why)
{
    return db_run(&h->db,
                  "UPDATE entry SET until = ?2, ended_by = ?3, ended_why = ?4"
                  " WHERE id = ?1 AND until > ?2",
                  "dlss", id, now, text_of(by), text_of(why));
}

int hold_entry_used(struct hold *h, uint64_t id, uint64_t used, int64_t last)
{
    return db_run(&h->db, "UPDATE entry SET used = ?2, last = ?3 WHERE id = ?1", "dul", id, used,
                  last) < 0
               ? -1
               : 0;
}

static char *column_text(struct arena *a, sqlite3_stmt *q, int column)
{
    return arena_str(a, db_span(q, column));
}

static void read_row(struct arena *a, sqlite3_stmt *q, struct entry_row *r)
{
    *r = (struct entry_row){
        .id = db_id(q, 0),
        .terms = {.at = sqlite3_column_int64(q, 1),
                  .kind = (enum entry_kind)sqlite3_column_int(q, 2),
                  .hold = sqlite3_column_int(q, 3) != 0,
                  .what = column_text(a, q, 4),
                  .who = column_text(a, q, 5),
                  .why = column_text(a, q, 6),
                  .until = sqlite3_column_int64(q, 7),
                  .used = (uint64_t)sqlite3_column_int64(q, 8),
                  .last = sqlite3_column_int64(q, 11)},
        .ended_by = column_text(a, q, 9),
        .ended_why = column_text(a, q, 10),
    };
}

int hold_each_entry(struct hold *h, int64_t since, size_t limit, entry_row_fn *fn, void *arg)
{
    hold_follow(h);
    sqlite3_stmt *q = db_bind(&h->db,
                              "SELECT id, at, kind, hold, what, who, why, until, used, ended_by,"
                              " ended_why, last FROM entry WHERE until > ?1 OR ?1 = 0"
                              " ORDER BY id DESC LIMIT ?2",
                              "lu", since, (uint64_t)limit);
    int rc = q ? db_step(&h->db, q) : -1, stop = 0;
    for (; rc == 1 && !stop; rc = stop ? 0 : db_step(&h->db, q)) {
        struct arena *a = arena_new();
        struct entry_row row;
        read_row(a, q, &row);
        stop = fn(arg, &row);
        arena_free(&a);
    }
    if (stop)
        sqlite3_reset(q);
    return rc < 0 ? -1 : 0;
}

int hold_entry_purge(struct hold *h, int64_t now)
{
    return db_run(&h->db,
                  "DELETE FROM entry WHERE id IN"
                  " (SELECT id FROM entry WHERE until < ? LIMIT 500)",
                  "l", now - MEMORY);
}
