/* hold_day.c - see hold_day.h. */
#include "hold_day.h"

#include "hold_own.h"

enum { HOURS_APART = 3, KEPT = 400 }; /* days */

int hold_day_add(struct hold *h, const struct day_row *r)
{
    return db_run(&h->db,
                  "INSERT INTO day(hour, listener, rule, mode, done, advised, copies, firsts)"
                  " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO UPDATE SET"
                  " copies = copies + ?7, firsts = firsts + ?8",
                  "lssiiiuu", r->hour, r->listener, r->rule, r->mode, r->done, r->advised,
                  r->copies, r->firsts) < 0
               ? -1
               : 0;
}

int hold_day_tidy(struct hold *h, int64_t now)
{
    int64_t day = now / DAY_HOUR / 24;
    if (db_run(&h->db,
               "INSERT INTO day(hour, listener, rule, mode, done, advised, copies, firsts)"
               " SELECT hour / 24 * 24, listener, rule, mode, done, advised, copies, firsts"
               " FROM day WHERE hour < ? AND hour % 24 <> 0 ORDER BY hour"
               " ON CONFLICT DO UPDATE SET copies = copies + excluded.copies,"
               " firsts = firsts + excluded.firsts",
               "l", (day - HOURS_APART) * 24) < 0)
        return -1;
    if (db_run(&h->db, "DELETE FROM day WHERE hour < ?1 AND hour % 24 <> 0", "l",
               (day - HOURS_APART) * 24) < 0)
        return -1;
    return db_run(&h->db, "DELETE FROM day WHERE hour < ?", "l", (day - KEPT) * 24) < 0 ? -1 : 0;
}

static const char *text(sqlite3_stmt *q, int column)
{
    const char *s = (const char *)sqlite3_column_text(q, column);
    return s ? s : "";
}

int hold_day_each(struct hold *h, int64_t from, int64_t until, bool by_day, day_fn *fn, void *arg)
{
    int rc = 1;
    hold_follow(h);
    sqlite3_stmt *q = db_bind(&h->db,
                              "SELECT hour / ?3 * ?3 AS at, listener, rule, mode, done, advised,"
                              " sum(copies), sum(firsts) FROM day WHERE hour >= ?1 AND hour < ?2"
                              " GROUP BY at, listener, rule, mode, done, advised"
                              " ORDER BY at, listener, rule, mode, done, advised",
                              "lll", from, until, by_day ? INT64_C(24) : INT64_C(1) << 40);
    if (!q)
        return -1;
    while ((rc = db_step(&h->db, q)) == 1) {
        struct day_row r = {.hour = sqlite3_column_int64(q, 0),
                            .listener = text(q, 1),
                            .rule = text(q, 2),
                            .mode = (uint8_t)sqlite3_column_int(q, 3),
                            .done = (uint8_t)sqlite3_column_int(q, 4),
                            .advised = (uint8_t)sqlite3_column_int(q, 5),
                            .copies = (uint64_t)sqlite3_column_int64(q, 6),
                            .firsts = (uint64_t)sqlite3_column_int64(q, 7)};
        fn(arg, &r);
    }
    return rc;
}
