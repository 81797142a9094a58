/* hold_policy.c - see hold_policy.h. */
#include "hold_policy.h"

#include "hold_own.h"

#define COLUMNS                                                                                    \
    "number, at, who, why, state, part, before, before_part, deadline, confirmed, confirmed_by,"   \
    " confirmed_why, ended, ended_by, ended_why, origin"

const char *policy_state_name(enum policy_state state)
{
    static const char *const names[] = {"none", "unconfirmed", "in force", "replaced", "reverted"};
    return state < POLICY_STATES ? names[state] : "none";
}

static const char *text_of(const char *s)
{
    return s ? s : "";
}

/* ---- writing ---- */

int hold_policy_add(struct hold *h, struct policy_row *r)
{
    struct policies_live live;
    if (hold_policy_live(h, &live) < 0)
        return -1;
    r->number = live.last + 1;
    if (db_run(&h->db,
               "INSERT INTO policy_version(" COLUMNS ", text, files)"
               " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
               "ulssisuullsslsssbs", r->number, r->at, text_of(r->who), text_of(r->why),
               (int)r->state, text_of(r->part), r->before, r->before_part, r->deadline,
               r->confirmed, text_of(r->confirmed_by), text_of(r->confirmed_why), r->ended,
               text_of(r->ended_by), text_of(r->ended_why), text_of(r->origin), r->text,
               text_of(r->files)) < 0)
        return -1;
    return db_run(&h->db,
                  "DELETE FROM policy_version WHERE number <= ? - ? AND state NOT IN (1, 2)"
                  " AND number NOT IN (?, ?)",
                  "uiuu", r->number, (int)HOLD_POLICIES, r->before, r->before_part) < 0
               ? -1
               : 0;
}

int hold_policy_end(struct hold *h, uint64_t number, enum policy_state state, int64_t now,
                    const char *by, const char *why)
{
    return db_run(&h->db,
                  "UPDATE policy_version SET state = ?, ended = ?, ended_by = ?, ended_why = ?"
                  " WHERE number = ?",
                  "ilssu", (int)state, now, text_of(by), text_of(why), number) < 0
               ? -1
               : 0;
}

int hold_policy_confirm(struct hold *h, uint64_t number, int64_t now, const char *by,
                        const char *why)
{
    return db_run(&h->db,
                  "UPDATE policy_version SET state = 2, confirmed = ?, confirmed_by = ?,"
                  " confirmed_why = ? WHERE number = ?",
                  "lssu", now, text_of(by), text_of(why), number) < 0
               ? -1
               : 0;
}

int hold_policy_revive(struct hold *h, uint64_t number)
{
    return db_run(&h->db,
                  "UPDATE policy_version SET state = 2, ended = 0, ended_by = '', ended_why = ''"
                  " WHERE number = ?",
                  "u", number) < 0
               ? -1
               : 0;
}

/* ---- reading ---- */

static char *column_text(struct arena *a, sqlite3_stmt *q, int column)
{
    return arena_str(a, db_span(q, column));
}

static void read_row(struct arena *a, sqlite3_stmt *q, struct policy_row *r)
{
    *r = (struct policy_row){
        .number = (uint64_t)sqlite3_column_int64(q, 0),
        .at = sqlite3_column_int64(q, 1),
        .who = column_text(a, q, 2),
        .why = column_text(a, q, 3),
        .state = (enum policy_state)sqlite3_column_int(q, 4),
        .part = column_text(a, q, 5),
        .before = (uint64_t)sqlite3_column_int64(q, 6),
        .before_part = (uint64_t)sqlite3_column_int64(q, 7),
        .deadline = sqlite3_column_int64(q, 8),
        .confirmed = sqlite3_column_int64(q, 9),
        .confirmed_by = column_text(a, q, 10),
        .confirmed_why = column_text(a, q, 11),
        .ended = sqlite3_column_int64(q, 12),
        .ended_by = column_text(a, q, 13),
        .ended_why = column_text(a, q, 14),
        .origin = column_text(a, q, 15),
        .files = "",
    };
}

int hold_policy_row(struct hold *h, struct arena *a, uint64_t number, struct policy_row *r)
{
    hold_follow(h);
    sqlite3_stmt *q =
        db_bind(&h->db, "SELECT " COLUMNS ", text, files FROM policy_version WHERE number = ?", "u",
                number);
    int rc = q ? db_step(&h->db, q) : -1;
    if (rc != 1)
        return rc;
    read_row(a, q, r);
    r->text = span_str(column_text(a, q, 16));
    r->files = column_text(a, q, 17);
    sqlite3_reset(q);
    return 1;
}

static int ask_number(struct hold *h, const char *sql, uint64_t below, uint64_t *out)
{
    int64_t n = 0;
    int rc = db_ask(&h->db, &n, sql, "u", below);
    *out = rc == 1 ? (uint64_t)n : 0;
    return rc < 0 ? -1 : 0;
}

int hold_policy_live(struct hold *h, struct policies_live *live)
{
    hold_follow(h);
    bool begun = hold_view_begin(h);
    int rc = ask_number(h,
                        "SELECT max(number) FROM policy_version WHERE state IN (1, 2)"
                        " AND part = '' AND number > ?",
                        0, &live->whole) ||
                     ask_number(h,
                                "SELECT max(number) FROM policy_version WHERE state IN (1, 2)"
                                " AND part <> '' AND number > ?",
                                0, &live->part) ||
                     ask_number(h,
                                "SELECT max(number) FROM policy_version WHERE state = 1"
                                " AND number > ?",
                                0, &live->unconfirmed) ||
                     ask_number(h, "SELECT max(number) FROM policy_version WHERE number > ?", 0,
                                &live->last)
                 ? -1
                 : 0;
    hold_view_end(h, begun);
    return rc;
}

int hold_policy_good(struct hold *h, uint64_t below, uint64_t *number)
{
    hold_follow(h);
    return ask_number(h,
                      "SELECT max(number) FROM policy_version WHERE confirmed > 0 AND part = ''"
                      " AND (number < ?1 OR ?1 = 0)",
                      below, number);
}

int hold_each_policy(struct hold *h, uint64_t below, size_t limit, policy_row_fn *fn, void *arg)
{
    hold_follow(h);
    sqlite3_stmt *q = db_bind(&h->db,
                              "SELECT " COLUMNS " FROM policy_version"
                              " WHERE number < ?1 OR ?1 = 0 ORDER BY number DESC LIMIT ?2",
                              "uu", below, (uint64_t)limit);
    int rc = q ? db_step(&h->db, q) : -1, stop = 0;
    for (; rc == 1 && !stop; rc = stop ? 0 : db_step(&h->db, q)) {
        struct arena *a = arena_new();
        struct policy_row row;
        read_row(a, q, &row);
        stop = fn(arg, &row);
        arena_free(&a);
    }
    if (stop)
        sqlite3_reset(q);
    return rc < 0 ? -1 : 0;
}
