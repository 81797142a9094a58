/*
 * hold_view.c - reading the hold queue: copies by filter, figures, incidents, settings. Works on
 * the writer's connection and on read-only ones.
 */
#include <stdio.h>
#include <sys/stat.h>

#include "crc.h"
#include "hold.h"
#include "hold_own.h"
#include "id.h"

/* A string of a row: its word, or the bytes in place. */
#define TEXT(column) "ifnull((SELECT text FROM word WHERE id = " column "), " column ")"

/* clang-format off */
static const char row_columns[] =
    "c.id, c.mail, c.state, m.arrival, ifnull(c.changed, m.arrival), c.relation, c.number,"
    " c.attempts, c.next_attempt, c.first, r.hash, m.size, s.k, m.sha256,"
    " r.raw, " TEXT("c.params") ", " TEXT("m.reversepath") ", " TEXT("m.reversepath_params") ", "
    TEXT("m.client") ", " TEXT("m.client_name") ", " TEXT("m.helo") ", " TEXT("m.queue_id") ", "
    TEXT("m.door") ", s.incident, " TEXT("m.rule") ", " TEXT("m.reason") ", " TEXT("m.blamed") ", "
    TEXT("m.message_id") ", " TEXT("m.sender") ", " TEXT("m.subject") ", "
    TEXT("c.actor") ", " TEXT("c.why") ", " TEXT("c.reply");
/* clang-format on */

static void fixed_bytes(uint8_t *out, size_t n, struct span s)
{
    memset(out, 0, n);
    if (s.n == n)
        memcpy(out, s.p, n);
}

static void row_read(sqlite3_stmt *q, struct arena *a, struct copy_row *row)
{
    *row = (struct copy_row){.id = db_id(q, 0),
                             .mail = db_id(q, 1),
                             .state = (enum copy_state)sqlite3_column_int(q, 2),
                             .arrival = sqlite3_column_int64(q, 3),
                             .changed = sqlite3_column_int64(q, 4),
                             .relation = (uint8_t)sqlite3_column_int(q, 5),
                             .number = (uint32_t)sqlite3_column_int64(q, 6),
                             .attempts = (uint32_t)sqlite3_column_int64(q, 7),
                             .next_attempt = sqlite3_column_int64(q, 8),
                             .first = sqlite3_column_int(q, 9) != 0,
                             .rcpt_hash = (uint64_t)sqlite3_column_int64(q, 10),
                             .size = (uint64_t)sqlite3_column_int64(q, 11)};
    fixed_bytes(row->k.byte, sizeof(row->k.byte), db_span(q, 12));
    fixed_bytes(row->sha256, sizeof(row->sha256), db_span(q, 13));
    char **const text[] = {
        &row->rcpt,   &row->params,      &row->reversepath, &row->reversepath_params,
        &row->client, &row->client_name, &row->helo,        &row->queue_id,
        &row->door,   &row->incident,    &row->rule,        &row->reason,
        &row->blamed, &row->message_id,  &row->from,        &row->subject,
        &row->by,     &row->why,         &row->reply};
    for (size_t i = 0; i < sizeof(text) / sizeof(text[0]); i++)
        *text[i] = arena_str(a, db_span(q, 14 + (int)i));
}

/* Filters. */

static struct span bare_address(const char *text)
{
    struct span s = span_str(text);
    if (s.n >= 2 && s.p[0] == '<' && s.p[s.n - 1] == '>')
        s = span_of(s.p + 1, s.n - 2);
    return span_head(s, WORD_CUT);
}

/* One storm or recipient, as mostly, is asked for by =: then its index gives the copies in the
 * order of their ids, and a page of them costs no sorting of all. Of several indexes the one
 * expected to lead to the fewest copies is left to be used; + hides the others' columns. NULL:
 * failure. */
static const char *incident_clause(struct hold *h, const struct hold_filter *f)
{
    int64_t storms = 0;
    if (!f->incident)
        return "";
    if (db_ask(&h->db, &storms, "SELECT count(*) FROM storm WHERE incident = ?", "s", f->incident) <
        0)
        return NULL;
    if (f->rcpt || f->mail)
        return " AND +c.storm IN (SELECT id FROM storm WHERE incident = ?1)";
    return storms == 1 ? " AND c.storm = (SELECT id FROM storm WHERE incident = ?1)"
                       : " AND c.storm IN (SELECT id FROM storm WHERE incident = ?1)";
}

static const char *recipient_clause(struct hold *h, const struct hold_filter *f)
{
    int64_t recipients = 0;
    if (!f->rcpt)
        return "";
    if (db_ask(&h->db, &recipients, "SELECT count(*) FROM recipient WHERE address = fold(?)", "b",
               bare_address(f->rcpt)) < 0)
        return NULL;
    if (f->mail)
        return " AND +c.recipient IN (SELECT id FROM recipient WHERE address = fold(?2))";
    return recipients == 1
               ? " AND c.recipient = (SELECT id FROM recipient WHERE address = fold(?2))"
               : " AND c.recipient IN (SELECT id FROM recipient WHERE address = fold(?2))";
}

static int bind_bytes(sqlite3_stmt *q, int i, struct span s)
{
    return sqlite3_bind_blob64(q, i, s.n ? s.p : (const void *)"", s.n, SQLITE_TRANSIENT);
}

static int bind_filter(sqlite3_stmt *q, const struct hold_filter *f, size_t limit)
{
    int rc = SQLITE_OK;
    if (f->incident)
        rc = sqlite3_bind_text(q, 1, f->incident, -1, SQLITE_TRANSIENT);
    if (f->rcpt && rc == SQLITE_OK)
        rc = bind_bytes(q, 2, bare_address(f->rcpt));
    if (f->sender && rc == SQLITE_OK)
        rc = bind_bytes(q, 3, bare_address(f->sender));
    if (f->state >= 0 && rc == SQLITE_OK)
        rc = sqlite3_bind_int(q, 4, f->state);
    if (f->mail && rc == SQLITE_OK)
        rc = sqlite3_bind_int64(q, 5, db_from_id(f->mail));
    if (f->after && rc == SQLITE_OK)
        rc = sqlite3_bind_int64(q, 6, db_from_id(f->after));
    if (f->rule && rc == SQLITE_OK)
        rc = bind_bytes(q, 8, span_str(f->rule));
    if (f->since && rc == SQLITE_OK)
        rc = sqlite3_bind_int64(q, 9, db_from_id(id_of_time(f->since)));
    if (limit && rc == SQLITE_OK)
        rc = sqlite3_bind_int64(q, 7, limit < INT32_MAX ? (int64_t)limit : INT32_MAX);
    return rc == SQLITE_OK ? 0 : -1;
}

sqlite3_stmt *hold_select(struct hold *h, const char *columns, const struct hold_filter *f,
                          size_t limit)
{
    hold_follow(h);
    const char *incident = incident_clause(h, f), *recipient = recipient_clause(h, f);
    if (!incident || !recipient)
        return NULL;
    bool narrow = f->incident || f->rcpt || f->mail;
    char sql[4096];
    snprintf(sql, sizeof(sql),
             "SELECT %s FROM copy c LEFT JOIN mail m ON m.id = c.mail"
             " LEFT JOIN storm s ON s.id = c.storm LEFT JOIN recipient r ON r.id = c.recipient"
             " WHERE 1%s%s%s%s%s%s%s%s%s ORDER BY c.id%s",
             columns, incident, recipient,
             f->sender ? " AND fold(ifnull(" TEXT("m.reversepath") ", x'')) = fold(?3)" : "",
             f->state < 0 ? ""
             : narrow     ? " AND +c.state = ?4"
                          : " AND c.state = ?4",
             f->mail ? " AND c.mail = ?5" : "", f->after ? " AND c.id > ?6" : "",
             f->since ? " AND c.id >= ?9" : "", f->first ? " AND c.first = 1" : "",
             f->rule ? " AND ifnull(" TEXT("m.rule") ", x'') = ?8" : "", limit ? " LIMIT ?7" : "");
    sqlite3_stmt *q = NULL;
    if (sqlite3_prepare_v2(h->db.raw, sql, -1, &q, NULL) == SQLITE_OK &&
        bind_filter(q, f, limit) == 0)
        return q;
    h->db.fault = sqlite3_extended_errcode(h->db.raw);
    sqlite3_finalize(q);
    return NULL;
}

int hold_each(struct hold *h, const struct hold_filter *f, copy_fn *fn, void *arg)
{
    sqlite3_stmt *q = hold_select(h, row_columns, f, f->limit ? f->limit : 100);
    int rc = q ? 1 : -1, stop = 0;
    while (rc == 1 && !stop && (rc = db_step(&h->db, q)) == 1) {
        struct arena *a = arena_new();
        struct copy_row row;
        row_read(q, a, &row);
        stop = fn(arg, &row);
        arena_free(&a);
    }
    sqlite3_finalize(q);
    return rc < 0 ? -1 : 0;
}

int hold_copy(struct hold *h, struct arena *a, uint64_t id, struct copy_row *out)
{
    struct hold_filter one = {.state = -1, .after = id ? id - 1 : 0};
    sqlite3_stmt *q = hold_select(h, row_columns, &one, 1);
    int rc = q ? db_step(&h->db, q) : -1;
    bool found = rc == 1 && db_id(q, 0) == id;
    if (found)
        row_read(q, a, out);
    sqlite3_finalize(q);
    return found ? 0 : -1;
}

/* Figures. */

static void figure(struct hold_figures *out, int what, uint64_t n)
{
    if (what > COUNT_COPIES && what < COUNT_COPIES + COPY_STATES)
        out->copies[what - COUNT_COPIES] = n;
    else if (what == COUNT_MAILS)
        out->mails = n;
    else if (what == COUNT_CONTENTS)
        out->contents = n;
    else if (what == COUNT_BYTES)
        out->content_bytes = n;
}

static int read_some(struct hold *h, sqlite3_stmt *q, struct hold_figures *out)
{
    int rc = q ? 1 : -1;
    while (rc == 1 && (rc = db_step(&h->db, q)) == 1)
        figure(out, sqlite3_column_int(q, 0), (uint64_t)sqlite3_column_int64(q, 1));
    return rc;
}

/* Sums are kept of everything; of an incident, its storms are summed. */
static int read_counts(struct hold *h, const char *incident, struct hold_figures *out)
{
    if (read_some(h, db_bind(&h->db, "SELECT what, n FROM count WHERE id = 0", ""), out))
        return -1;
    if (!incident)
        return 0;
    out->mails = 0;
    memset(out->copies, 0, sizeof(out->copies));
    return read_some(h,
                     db_bind(&h->db,
                             "SELECT what, sum(n) FROM count WHERE id IN"
                             " (SELECT id FROM storm WHERE incident = ?) GROUP BY what",
                             "s", incident),
                     out);
}

int hold_held(struct hold *h, uint64_t *copies)
{
    int64_t n = 0;
    hold_follow(h);
    int rc = db_ask(&h->db, &n, "SELECT n FROM count WHERE id = 0 AND what = ?", "i",
                    COUNT_COPIES + COPY_HELD);
    *copies = (uint64_t)n;
    return rc < 0 ? -1 : 0;
}

static uint64_t file_size(const char *path, const char *suffix)
{
    char name[4096];
    struct stat st;
    snprintf(name, sizeof(name), "%s%s", path, suffix);
    return stat(name, &st) == 0 ? (uint64_t)st.st_size : 0;
}

static int read_oldest(struct hold *h, const char *incident, int64_t *oldest)
{
    struct hold_filter held = {.incident = incident, .state = COPY_HELD};
    sqlite3_stmt *q = hold_select(h, "m.arrival", &held, 1);
    int rc = q ? db_step(&h->db, q) : -1;
    if (rc == 1)
        *oldest = sqlite3_column_int64(q, 0);
    sqlite3_finalize(q);
    return rc < 0 ? -1 : 0;
}

int hold_figures(struct hold *h, const char *incident, struct hold_figures *out)
{
    *out = (struct hold_figures){0};
    if (h->write && counts_flush(&h->counts))
        return -1;
    bool begun = hold_view_begin(h);
    int rc = read_counts(h, incident, out);
    if (rc == 0 && out->copies[COPY_HELD])
        rc = read_oldest(h, incident, &out->oldest);
    hold_view_end(h, begun);
    out->file_bytes = file_size(h->path, "") + file_size(h->path, "-wal");
    return rc < 0 ? -1 : 0;
}

/* Incidents and settings. */

int hold_incident(struct hold *h, const char *id, char **json)
{
    sqlite3_stmt *q = db_bind(&h->db, "SELECT document FROM incident WHERE id = ?", "s", id);
    int rc = q ? db_step(&h->db, q) : -1;
    if (rc != 1)
        return rc;
    *json = strdup((const char *)sqlite3_column_text(q, 0));
    if (!*json)
        abort();
    sqlite3_reset(q);
    return 1;
}

int hold_each_incident(struct hold *h, int64_t since, size_t limit, incident_fn *fn, void *arg)
{
    sqlite3_stmt *q =
        db_bind(&h->db, "SELECT id, document FROM incident WHERE last >= ? ORDER BY last DESC, id",
                "l", since);
    int rc = q ? 1 : -1, stop = 0;
    while (rc == 1 && !stop && limit-- > 0 && (rc = db_step(&h->db, q)) == 1)
        stop = fn(arg, (const char *)sqlite3_column_text(q, 0),
                  (const char *)sqlite3_column_text(q, 1));
    if (q)
        sqlite3_reset(q);
    return rc < 0 ? -1 : 0;
}

int hold_each_relay(struct hold *h, size_t limit, relay_fn *fn, void *arg)
{
    sqlite3_stmt *q =
        db_bind(&h->db, "SELECT name, document FROM relay ORDER BY last DESC, name LIMIT ?", "l",
                limit < INT32_MAX ? (int64_t)limit : INT32_MAX);
    int rc = q ? 1 : -1, stop = 0;
    while (rc == 1 && !stop && (rc = db_step(&h->db, q)) == 1)
        stop = fn(arg, (const char *)sqlite3_column_text(q, 0),
                  (const char *)sqlite3_column_text(q, 1));
    if (q)
        sqlite3_reset(q);
    return rc < 0 ? -1 : 0;
}

/* Behind the record its CRC: SQLite has none of its own. */
static bool memory_whole(struct span *bytes)
{
    if (bytes->n < 4)
        return false;
    bytes->n -= 4;
    return crc32_add(0, bytes->p, bytes->n) == bytes_get(bytes->p + bytes->n, 4);
}

int hold_each_memory(struct hold *h, uint32_t key_id, memory_fn *fn, void *arg, uint64_t *damaged)
{
    sqlite3_stmt *q = db_bind(&h->db, "SELECT k, bytes FROM memory WHERE key_id = ? ORDER BY last",
                              "l", (int64_t)key_id);
    int rc = q ? 1 : -1;
    *damaged = 0;
    while (rc == 1 && (rc = db_step(&h->db, q)) == 1) {
        struct span k = db_span(q, 0), bytes = db_span(q, 1);
        struct key key;
        bool whole = k.n == sizeof key.byte && memory_whole(&bytes);
        *damaged += !whole;
        if (!whole)
            continue;
        memcpy(key.byte, k.p, sizeof key.byte);
        fn(arg, &key, bytes);
    }
    if (q)
        sqlite3_reset(q);
    return rc < 0 ? -1 : 0;
}

int hold_incidents(struct hold *h, uint64_t *n)
{
    int64_t count;
    if (db_ask(&h->db, &count, "SELECT count(*) FROM incident", "") != 1)
        return -1;
    *n = (uint64_t)count;
    return 0;
}

int hold_setting_get(struct hold *h, const char *name, char *out, size_t cap)
{
    hold_follow(h);
    sqlite3_stmt *q = db_bind(&h->db, "SELECT value FROM setting WHERE name = ?", "s", name);
    int rc = q ? db_step(&h->db, q) : -1;
    if (rc != 1)
        return -1;
    int n = snprintf(out, cap, "%s", (const char *)sqlite3_column_text(q, 0));
    sqlite3_reset(q);
    return n >= 0 && (size_t)n < cap ? 0 : -1;
}
