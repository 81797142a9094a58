/* hold_refusal.c - see hold_refusal.h. */
#include "hold_refusal.h"

#include "hold_own.h"

#define KEEP (30 * 86400000LL) /* ms */
#define BYTES(column) "length(CAST(" column " AS BLOB))"
#define SIZE                                                                                       \
    "200 + " BYTES("rcpts") " + " BYTES("sender") " + " BYTES("reason") " + " BYTES(               \
        "message_id") " + " BYTES("client_name")

const char *refusal_outcome_name(enum refusal_outcome outcome)
{
    static const char *const names[] = {"waiting", "passed", "held", "rejected"};
    return outcome < REFUSAL_OUTCOMES ? names[outcome] : "waiting";
}

static const char *text_of(const char *s)
{
    return s ? s : "";
}

int hold_refusal_put(struct hold *h, const struct refusal_row *r)
{
    return db_run(&h->db,
                  "INSERT INTO refusal(id, key, first, last, times, outcome, settled, recipients,"
                  " door, client, client_name, sender, rcpts, queue_id, message_id, rule, reason)"
                  " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                  " ON CONFLICT(id) DO UPDATE SET last = excluded.last, times = excluded.times,"
                  " outcome = excluded.outcome, settled = excluded.settled, rule = excluded.rule,"
                  " reason = excluded.reason",
                  "dulllillsssssssss", r->id, r->key, r->first, r->last, (int64_t)r->times,
                  (int)r->outcome, r->settled, (int64_t)r->recipients, text_of(r->door),
                  text_of(r->client), text_of(r->client_name), text_of(r->sender),
                  text_of(r->rcpts), text_of(r->queue_id), text_of(r->message_id), text_of(r->rule),
                  text_of(r->reason)) < 0
               ? -1
               : 0;
}

int hold_refusal_settle(struct hold *h, uint64_t id, enum refusal_outcome outcome, int64_t now)
{
    return db_run(&h->db, "UPDATE refusal SET outcome = ?2, settled = ?3 WHERE id = ?1", "dil", id,
                  (int)outcome, now) < 0
               ? -1
               : 0;
}

int hold_refusal_size(struct hold *h, uint64_t *rows, uint64_t *bytes)
{
    int64_t n = 0, sum = 0;
    if (db_ask(&h->db, &n, "SELECT count(*) FROM refusal", "") < 0 ||
        db_ask(&h->db, &sum, "SELECT sum(" SIZE ") FROM refusal", "") < 0)
        return -1;
    *rows = (uint64_t)n;
    *bytes = (uint64_t)sum;
    return 0;
}

int hold_refusal_drop(struct hold *h, uint64_t *rows, uint64_t *bytes)
{
    int64_t size = 0;
    int rc = db_ask(&h->db, &size, "SELECT " SIZE " FROM refusal ORDER BY id LIMIT 1", "");
    if (rc == 0)
        *rows = *bytes = 0;
    if (rc != 1)
        return rc;
    if (db_run(&h->db, "DELETE FROM refusal WHERE id = (SELECT min(id) FROM refusal)", "") < 0)
        return -1;
    *rows -= *rows > 0;
    *bytes -= (uint64_t)size < *bytes ? (uint64_t)size : *bytes;
    return 0;
}

int hold_refusal_purge(struct hold *h, int64_t now)
{
    uint64_t before = now > KEEP ? (uint64_t)(now - KEEP) << 22 : 0; /* ids begin with their time */
    return db_run(&h->db,
                  "DELETE FROM refusal WHERE id IN"
                  " (SELECT id FROM refusal WHERE id < ? ORDER BY id LIMIT 500)",
                  "d", before);
}

static char *column_text(struct arena *a, sqlite3_stmt *q, int column)
{
    return arena_str(a, db_span(q, column));
}

static void read_row(struct arena *a, sqlite3_stmt *q, struct refusal_row *r)
{
    *r = (struct refusal_row){
        .id = db_id(q, 0),
        .key = (uint64_t)sqlite3_column_int64(q, 1),
        .first = sqlite3_column_int64(q, 2),
        .last = sqlite3_column_int64(q, 3),
        .times = (uint32_t)sqlite3_column_int64(q, 4),
        .outcome = (enum refusal_outcome)sqlite3_column_int(q, 5),
        .settled = sqlite3_column_int64(q, 6),
        .recipients = (uint32_t)sqlite3_column_int64(q, 7),
        .door = column_text(a, q, 8),
        .client = column_text(a, q, 9),
        .client_name = column_text(a, q, 10),
        .sender = column_text(a, q, 11),
        .rcpts = column_text(a, q, 12),
        .queue_id = column_text(a, q, 13),
        .message_id = column_text(a, q, 14),
        .rule = column_text(a, q, 15),
        .reason = column_text(a, q, 16),
    };
}

/* A few ten thousand rows at most: what is not looked for by id is looked through. */
static sqlite3_stmt *select_rows(struct hold *h, const struct refusal_filter *f)
{
    return db_bind(
        &h->db,
        "SELECT id, key, first, last, times, outcome, settled, recipients, door, client,"
        " client_name, sender, rcpts, queue_id, message_id, rule, reason FROM refusal"
        " WHERE id < ?1 AND (?2 IS NULL OR instr(rcpts, char(10) || lower(?2) || char(10)) > 0)"
        " AND (?3 IS NULL OR sender = ?3 COLLATE NOCASE)"
        " AND (?4 IS NULL OR client = ?4 COLLATE NOCASE OR client_name = ?4 COLLATE NOCASE)"
        " AND (?5 IS NULL OR message_id = ?5) AND (last >= ?6 OR settled >= ?6)"
        " AND (?7 = 0 OR outcome = 0) ORDER BY id DESC LIMIT ?8",
        "dssssliu", f->after ? f->after : UINT64_MAX, f->rcpt, f->sender, f->relay, f->message_id,
        f->since, (int)f->waiting, (uint64_t)(f->limit ? f->limit : 100));
}

int hold_each_refusal(struct hold *h, const struct refusal_filter *f, refusal_fn *fn, void *arg)
{
    hold_follow(h);
    sqlite3_stmt *q = select_rows(h, f);
    int rc = q ? db_step(&h->db, q) : -1, stop = 0;
    for (; rc == 1 && !stop; rc = stop ? 0 : db_step(&h->db, q)) {
        struct arena *a = arena_new();
        struct refusal_row row;
        read_row(a, q, &row);
        stop = fn(arg, &row);
        arena_free(&a);
    }
    if (stop)
        sqlite3_reset(q);
    return rc < 0 ? -1 : 0;
}
