/*
 * hold_deed.c - what is done with held copies: release, discard, undo, release attempts, purge.
 *
 *   held --release--> releasing --MTA's 250--> released
 *    | ^---undo---------'
 *    | ^---undo---------.
 *    `----discard--> discarded --30 days--> purged
 *
 * Invariant: a change names the states it may start from, so doing it twice changes nothing.
 */
#include <stdlib.h>

#include "crc.h"
#include "failpoint.h"
#include "hold.h"
#include "hold_own.h"
#include "replication.h"

#define BIN_MS (INT64_C(30) * 86400 * 1000)
#define STORM_MS (INT64_C(400) * 86400 * 1000)
enum { PURGE_STEP = 1000 };

static int spoil(struct hold *h)
{
    h->spoiled = true;
    return -1;
}

/* A string of ours (who, why) as a word; belongs to no mail, so to the newest. */
static int deed_word(struct hold *h, const char *text, struct db_word *out)
{
    *out = (struct db_word){0};
    if (!text || !*text)
        return 0;
    sqlite3_stmt *q = db_bind(&h->db, "SELECT max(id) FROM mail", "");
    int rc = q ? db_step(&h->db, q) : -1;
    if (rc != 1)
        return -1;
    uint64_t newest = db_id(q, 0);
    sqlite3_reset(q);
    return word_of(&h->words, span_head(span_str(text), WORD_CUT), newest, out);
}

/* 1: the copy is in one of the states of `from` (bits) and counted as `to` now; 0: it is not; -1 */
static int recount(struct hold *h, uint64_t id, unsigned from, enum copy_state to)
{
    sqlite3_stmt *q = db_bind(&h->db, "SELECT state, storm FROM copy WHERE id = ?", "d", id);
    int rc = q ? db_step(&h->db, q) : -1;
    if (rc != 1)
        return rc;
    int state = sqlite3_column_int(q, 0);
    int64_t storm = sqlite3_column_int64(q, 1);
    sqlite3_reset(q);
    if (state < 0 || state >= COPY_STATES || !(from & 1u << state))
        return 0;
    if (FAILPOINT("state.change") || count_add(&h->counts, COUNT_COPIES + state, storm, -1) ||
        count_add(&h->counts, COUNT_COPIES + (int)to, storm, 1))
        return -1;
    return 1;
}

#define FROM(state) (1u << (state))

/* Who did something and why, ready to be bound. */
struct deed {
    struct db_word by, why;
    int64_t now;
};

static int release_one(struct hold *h, uint64_t id, const struct deed *d)
{
    int rc = recount(h, id, FROM(COPY_HELD), COPY_RELEASING);
    if (rc == 1)
        rc = db_run(&h->db,
                    "UPDATE copy SET state = 2, changed = ?2, next_attempt = ?2, actor = ?3,"
                    " why = NULL, reply = NULL WHERE id = ?1",
                    "dlw", id, d->now, d->by);
    return rc < 0 ? spoil(h) : rc;
}

static int discard_one(struct hold *h, uint64_t id, const struct deed *d)
{
    int rc = recount(h, id, FROM(COPY_HELD), COPY_DISCARDED);
    if (rc == 1)
        rc = db_run(&h->db,
                    "UPDATE copy SET state = 4, changed = ?2, actor = ?3, why = ?4 WHERE id = ?1",
                    "dlww", id, d->now, d->by, d->why);
    return rc < 0 ? spoil(h) : rc;
}

int hold_release_id(struct hold *h, uint64_t copy, const char *by, int64_t now)
{
    struct deed d = {.now = now};
    return deed_word(h, by, &d.by) ? -1 : release_one(h, copy, &d);
}

int hold_discard_id(struct hold *h, uint64_t copy, const char *by, const char *why, int64_t now)
{
    struct deed d = {.now = now};
    return deed_word(h, by, &d.by) || deed_word(h, why, &d.why) ? -1 : discard_one(h, copy, &d);
}

/* An attempt is under way from hold_attempt until its reply, or until it is due again. */
int hold_undo_id(struct hold *h, uint64_t copy, int64_t now)
{
    int64_t busy;
    int rc = db_ask(&h->db, &busy,
                    "SELECT state = 2 AND attempts > 0 AND reply IS NULL AND next_attempt > ?2"
                    " FROM copy WHERE id = ?1",
                    "dl", copy, now);
    if (rc <= 0 || busy)
        return rc < 0 ? -1 : 0;
    rc = recount(h, copy, FROM(COPY_RELEASING) | FROM(COPY_DISCARDED), COPY_HELD);
    if (rc == 1)
        rc = db_run(&h->db,
                    "UPDATE copy SET state = 1, changed = ?2, next_attempt = NULL, actor = NULL,"
                    " why = NULL WHERE id = ?1",
                    "dl", copy, now);
    return rc < 0 ? spoil(h) : rc;
}

/* Many copies: first their ids, then the changes. */

struct ids {
    uint64_t *id;
    size_t n, cap;
};

static void ids_add(struct ids *ids, uint64_t id)
{
    if (ids->n == ids->cap) {
        ids->cap = ids->cap ? ids->cap * 2 : 256;
        ids->id = realloc(ids->id, ids->cap * sizeof(*ids->id));
        if (!ids->id)
            abort();
    }
    ids->id[ids->n++] = id;
}

typedef int deed_fn(struct hold *, uint64_t id, const struct deed *);

static int each_id(struct hold *h, const struct ids *ids, deed_fn *fn, const struct deed *d)
{
    int changed = 0;
    for (size_t i = 0; i < ids->n; i++) {
        int rc = fn(h, ids->id[i], d);
        if (rc < 0)
            return -1;
        changed += rc;
    }
    return changed;
}

/* The held copies a filter asks for. same: those that may be the only copy too. */
static int held_ids(struct hold *h, const struct hold_filter *filter, bool same, struct ids *ids)
{
    if (filter->state >= 0 && filter->state != COPY_HELD)
        return 0;
    struct hold_filter f = *filter;
    f.state = COPY_HELD;
    sqlite3_stmt *q = hold_select(h, "c.id, c.relation", &f, f.limit);
    int rc = q ? 1 : -1;
    while (rc == 1 && (rc = db_step(&h->db, q)) == 1)
        if (same || sqlite3_column_int(q, 1) != REL_SAME)
            ids_add(ids, db_id(q, 0));
    sqlite3_finalize(q);
    return rc;
}

static int filter_deed(struct hold *h, const struct hold_filter *f, bool same, deed_fn *fn,
                       const struct deed *d, bool dry)
{
    struct ids ids = {0};
    int rc = held_ids(h, f, same, &ids);
    if (rc == 0)
        rc = dry ? (int)ids.n : each_id(h, &ids, fn, d);
    free(ids.id);
    return rc;
}

int hold_release_filter(struct hold *h, const struct hold_filter *f, const char *by, int64_t now,
                        bool dry)
{
    struct deed d = {.now = now};
    return deed_word(h, by, &d.by) ? -1 : filter_deed(h, f, true, release_one, &d, dry);
}

int hold_discard_filter(struct hold *h, const struct hold_filter *f, const char *by,
                        const char *why, int64_t now, bool dry)
{
    struct deed d = {.now = now};
    if (deed_word(h, by, &d.by) || deed_word(h, why, &d.why))
        return -1;
    return filter_deed(h, f, f->mail != 0, discard_one, &d, dry);
}

/* One copy for each recipient. */

/* The copies of one message to one recipient, oldest first, as they go by. */
struct group {
    struct key k;
    uint64_t rcpt;
    bool open;
    bool none_passed; /* when the oldest was held */
    bool on_its_way;  /* one is released or releasing */
    uint64_t oldest;  /* held, in the incident; 0: none */
};

/* Whoever wants to know of each message and recipient. */
struct needs {
    passed_fn *passed; /* may veto; NULL: nobody does */
    void *passed_arg;
    need_fn *fn;
    void *arg;
};

static void group_end(const struct group *g, const struct needs *n)
{
    if (!g->open)
        return;
    bool none = g->oldest && g->none_passed && !g->on_its_way &&
                !(n->passed && n->passed(n->passed_arg, &g->k, g->rcpt));
    n->fn(n->arg, &g->k, g->rcpt, none ? g->oldest : 0);
}

static void group_row(struct group *g, sqlite3_stmt *q, const struct needs *n)
{
    struct span k = db_span(q, 0);
    struct group next = {.open = true, .rcpt = (uint64_t)sqlite3_column_int64(q, 1)};
    memcpy(next.k.byte, k.p, k.n < sizeof(next.k.byte) ? k.n : sizeof(next.k.byte));
    if (!g->open || g->rcpt != next.rcpt || memcmp(&g->k, &next.k, sizeof(next.k)) != 0) {
        group_end(g, n);
        next.none_passed = sqlite3_column_int(q, 4) != 0;
        *g = next;
    }
    int state = sqlite3_column_int(q, 3);
    if (state == COPY_RELEASING || state == COPY_RELEASED)
        g->on_its_way = true;
    if (state == COPY_HELD && !g->oldest && sqlite3_column_int(q, 5))
        g->oldest = db_id(q, 2);
}

static int each_need(struct hold *h, const char *incident, const struct needs *n)
{
    sqlite3_stmt *q =
        db_bind(&h->db,
                "SELECT s.k, r.hash, c.id, c.state, c.first, s.incident = ?1"
                " FROM copy c JOIN storm s ON s.id = c.storm JOIN recipient r ON r.id = c.recipient"
                " WHERE c.storm IN (SELECT id FROM storm WHERE k IN"
                " (SELECT k FROM storm WHERE incident = ?1))"
                " ORDER BY s.k, r.hash, c.id",
                "s", incident);
    struct group g = {0};
    int rc = q ? 1 : -1;
    while (rc == 1 && (rc = db_step(&h->db, q)) == 1)
        group_row(&g, q, n);
    if (rc == 0)
        group_end(&g, n);
    return rc;
}

int hold_each_need(struct hold *h, const char *incident, passed_fn *passed, void *passed_arg,
                   need_fn *fn, void *arg)
{
    const struct needs n = {passed, passed_arg, fn, arg};
    return each_need(h, incident, &n);
}

static void note_need(void *arg, const struct key *k, uint64_t rcpt, uint64_t copy)
{
    (void)k, (void)rcpt;
    if (copy)
        ids_add(arg, copy);
}

int hold_release_one_each(struct hold *h, const char *incident, const char *by, int64_t now,
                          passed_fn *passed, void *arg, bool dry)
{
    struct deed d = {.now = now};
    struct ids ids = {0};
    const struct needs n = {passed, arg, note_need, &ids};
    int rc = deed_word(h, by, &d.by) ? -1 : each_need(h, incident, &n);
    if (rc == 0)
        rc = dry ? (int)ids.n : each_id(h, &ids, release_one, &d);
    free(ids.id);
    return rc;
}

/* The release engine's side. */

int hold_attempt(struct hold *h, uint64_t mail, int64_t now, int64_t next_attempt)
{
    int64_t number = 0;
    if (FAILPOINT("release.attempt") ||
        db_ask(&h->db, &number, "SELECT max(number) FROM attempt WHERE mail = ?", "d", mail) < 0)
        return -1;
    number++;
    int due = db_run(&h->db,
                     "UPDATE copy SET attempts = ?3, next_attempt = ?4, reply = NULL"
                     " WHERE mail = ?1 AND state = 2 AND next_attempt <= ?2",
                     "dlll", mail, now, number, next_attempt);
    if (due <= 0)
        return -1;
    if (db_run(&h->db, "INSERT INTO attempt(mail, number, used) VALUES(?, ?, 0)", "dl", mail,
               number) < 0)
        return spoil(h);
    return (int)number;
}

static struct db_word reply_word(const char *reply)
{
    return (struct db_word){.text = span_head(span_str(reply), WORD_CUT)};
}

int hold_released(struct hold *h, uint64_t copy, const char *reply, int64_t now)
{
    int rc = FAILPOINT("release.mark")
                 ? -1
                 : recount(h, copy, FROM(COPY_HELD) | FROM(COPY_RELEASING), COPY_RELEASED);
    if (rc == 1)
        rc = db_run(&h->db,
                    "UPDATE copy SET state = 3, changed = ?2, next_attempt = NULL, reply = ?3"
                    " WHERE id = ?1",
                    "dlw", copy, now, reply_word(reply));
    return rc < 0 ? spoil(h) : rc;
}

int hold_deferred(struct hold *h, uint64_t copy, const char *reply, int64_t next_attempt)
{
    if (!reply || !*reply)
        reply = "no reply";
    return db_run(&h->db,
                  "UPDATE copy SET next_attempt = ?2, reply = ?3 WHERE id = ?1 AND state = 2",
                  "dlw", copy, next_attempt, reply_word(reply));
}

int hold_due(struct hold *h, int64_t now, uint64_t *mails, size_t cap)
{
    hold_follow(h);
    sqlite3_stmt *q = db_bind(&h->db,
                              "SELECT DISTINCT mail FROM copy INDEXED BY copy_releasing"
                              " WHERE state = 2 AND next_attempt <= ?"
                              " ORDER BY mail LIMIT ?",
                              "lu", now, (uint64_t)cap);
    int rc = q ? 1 : -1;
    size_t n = 0;
    while (rc == 1 && n < cap && (rc = db_step(&h->db, q)) == 1)
        mails[n++] = db_id(q, 0);
    if (q)
        sqlite3_reset(q);
    return rc < 0 ? -1 : (int)n;
}

static int attempt_recipients(struct hold *h, struct arena *a, uint64_t mail, uint32_t attempt,
                              uint64_t **rcpts, size_t *n)
{
    sqlite3_stmt *q = db_bind(&h->db,
                              "SELECT r.hash FROM copy c JOIN recipient r ON r.id = c.recipient"
                              " WHERE c.mail = ? AND c.attempts = ?",
                              "dl", mail, (int64_t)attempt);
    int rc = q ? 1 : -1;
    *n = 0;
    *rcpts = NULL;
    while (rc == 1 && (rc = db_step(&h->db, q)) == 1) {
        *rcpts = arena_grow(a, *rcpts, *n * sizeof(**rcpts), (*n + 1) * sizeof(**rcpts));
        (*rcpts)[(*n)++] = (uint64_t)sqlite3_column_int64(q, 0);
    }
    return rc < 0 || *n == 0 ? -1 : 0;
}

int hold_token_facts(struct hold *h, struct arena *a, uint64_t mail, uint32_t attempt,
                     uint8_t sha256[32], uint64_t **rcpts, size_t *n)
{
    if (attempt == 0)
        return -1;
    bool begun = hold_view_begin(h);
    sqlite3_stmt *q = db_bind(&h->db, "SELECT sha256 FROM mail WHERE id = ?", "d", mail);
    int rc = q && db_step(&h->db, q) == 1 ? 0 : -1;
    struct span sha = rc == 0 ? db_span(q, 0) : (struct span){0};
    if (sha.n == 32)
        memcpy(sha256, sha.p, 32);
    else
        rc = -1;
    if (q)
        sqlite3_reset(q);
    if (rc == 0)
        rc = attempt_recipients(h, a, mail, attempt, rcpts, n);
    hold_view_end(h, begun);
    return rc;
}

int hold_token_use(struct hold *h, uint64_t mail, uint32_t attempt)
{
    if (FAILPOINT("token.use"))
        return -1;
    return db_run(&h->db, "UPDATE attempt SET used = 1 WHERE mail = ? AND number = ? AND used = 0",
                  "dl", mail, (int64_t)attempt);
}

/* Letting go. */

/* A storm with nothing but records left needs no reference; one that goes on takes a new one. */
static int let_go_references(struct hold *h, uint64_t mail)
{
    int64_t storm, busy;
    if (counts_flush(&h->counts) ||
        db_ask(&h->db, &storm, "SELECT storm FROM mail WHERE id = ?", "d", mail) != 1 ||
        db_ask(&h->db, &busy, "SELECT sum(n) FROM count WHERE id = ?1 AND what IN (?2, ?3, ?4)",
               "liii", storm, COUNT_COPIES + COPY_HELD, COUNT_COPIES + COPY_RELEASING,
               COUNT_COPIES + COPY_DISCARDED) < 0)
        return -1;
    return busy ? 0 : hold_storm_unrefer(h, storm);
}

/* Lets go of a mail's bytes if all its copies were released, the last of them long ago. */
static int let_go(struct hold *h, uint64_t mail, int64_t before)
{
    int64_t wanted, head, body;
    int rc = db_ask(&h->db, &wanted,
                    "SELECT 1 FROM copy WHERE mail = ? AND (state <> 3 OR changed > ?) LIMIT 1",
                    "dl", mail, before);
    if (rc)
        return rc < 0 ? -1 : 0;
    rc = db_ask(&h->db, &head, "SELECT head FROM mail WHERE id = ?", "d", mail);
    if (rc == 1)
        rc = db_ask(&h->db, &body, "SELECT body FROM mail WHERE id = ?", "d", mail);
    if (rc != 1)
        return rc;
    if (content_drop(&h->contents, head) || content_drop(&h->contents, body) ||
        db_run(&h->db, "UPDATE mail SET head = NULL, body = NULL WHERE id = ?", "d", mail) < 0)
        return -1;
    return let_go_references(h, mail);
}

/* A copy leaves the bin; its mail and storm go with their last copy. */
static int purge_copy(struct hold *h, uint64_t id, uint64_t mail, int64_t storm, int64_t before)
{
    int64_t more;
    if (FAILPOINT("purge.copy") ||
        count_add(&h->counts, COUNT_COPIES + COPY_DISCARDED, storm, -1) ||
        db_run(&h->db, "DELETE FROM copy WHERE id = ?", "d", id) < 0)
        return -1;
    int rc = db_ask(&h->db, &more, "SELECT 1 FROM copy WHERE mail = ? LIMIT 1", "d", mail);
    if (rc < 0 || (rc == 1 ? let_go(h, mail, before) : hold_mail_remove(h, mail)))
        return -1;
    return hold_storm_remove(h, storm);
}

static int purge_bin(struct hold *h, int64_t before)
{
    int n = 0;
    while (n < PURGE_STEP) {
        sqlite3_stmt *q = db_bind(&h->db,
                                  "SELECT id, mail, storm FROM copy INDEXED BY copy_discarded"
                                  " WHERE state = 4 AND changed <= ? ORDER BY changed LIMIT 1",
                                  "l", before);
        int rc = q ? db_step(&h->db, q) : -1;
        if (rc != 1)
            return rc < 0 ? -1 : n;
        uint64_t id = db_id(q, 0), mail = db_id(q, 1);
        int64_t storm = sqlite3_column_int64(q, 2);
        sqlite3_reset(q);
        if (purge_copy(h, id, mail, storm, before))
            return -1;
        n++;
    }
    return n;
}

/* Goes through the released copies in the order of their release, once each. */
static int purge_released(struct hold *h, int64_t before)
{
    int64_t at = 0;
    int n = 0;
    struct ids mails = {0};
    if (db_ask(&h->db, &at, "SELECT value FROM setting WHERE name = 'released_purged'", "") < 0)
        return -1;
    sqlite3_stmt *q = db_bind(&h->db,
                              "SELECT mail, changed FROM copy INDEXED BY copy_released"
                              " WHERE state = 3 AND changed > ?"
                              " AND changed <= ? ORDER BY changed",
                              "ll", at, before);
    int rc = q ? 1 : -1;
    while (rc == 1 && (rc = db_step(&h->db, q)) == 1) {
        int64_t changed = sqlite3_column_int64(q, 1);
        if (n >= PURGE_STEP && changed != at)
            break;
        ids_add(&mails, db_id(q, 0));
        at = changed;
        n++;
    }
    if (q)
        sqlite3_reset(q);
    for (size_t i = 0; rc >= 0 && i < mails.n; i++)
        rc = let_go(h, mails.id[i], before);
    free(mails.id);
    if (rc >= 0 && n)
        rc = db_run(&h->db,
                    "INSERT INTO setting(name, value) VALUES('released_purged', ?1)"
                    " ON CONFLICT DO UPDATE SET value = ?1",
                    "l", at);
    return rc < 0 ? -1 : n;
}

static int sweep_words(struct hold *h)
{
    sqlite3_stmt *q = db_bind(&h->db, "SELECT min(id) FROM mail", "");
    int rc = q ? db_step(&h->db, q) : -1;
    if (rc != 1)
        return -1;
    bool any = sqlite3_column_type(q, 0) != SQLITE_NULL;
    uint64_t oldest = db_id(q, 0);
    sqlite3_reset(q);
    return words_sweep(&h->words, any ? oldest : UINT64_MAX);
}

/* What anybody can make by sending a message twice must go again. */
static int purge_incidents(struct hold *h, int64_t now)
{
    return db_run(&h->db,
                  "DELETE FROM incident WHERE id IN (SELECT id FROM incident WHERE last < ?1"
                  " AND (last < ?2 OR document NOT LIKE '%\"storm\":true%')"
                  " AND NOT EXISTS (SELECT 1 FROM storm s WHERE s.incident = incident.id)"
                  " ORDER BY last LIMIT ?3)",
                  "lll", now - BIN_MS, now - STORM_MS, (int64_t)PURGE_STEP);
}

static int purge_memory(struct hold *h, int64_t now)
{
    return db_run(&h->db,
                  "DELETE FROM memory WHERE k IN"
                  " (SELECT k FROM memory WHERE last < ? ORDER BY last LIMIT ?)",
                  "ll", now - STORM_MS, (int64_t)PURGE_STEP);
}

/* Like incidents of our own; commands are not carried out after a week. */
static int purge_fellows(struct hold *h, int64_t now)
{
    int n = db_run(&h->db,
                   "DELETE FROM fellow WHERE (id, node) IN (SELECT id, node FROM fellow"
                   " WHERE last < ?1 AND (last < ?2 OR document NOT LIKE '%\"storm\":true%')"
                   " ORDER BY last LIMIT ?3)",
                   "lll", now - BIN_MS, now - STORM_MS, (int64_t)PURGE_STEP);
    int old = n < 0 ? -1
                    : db_run(&h->db,
                             "DELETE FROM command WHERE id IN"
                             " (SELECT id FROM command WHERE at < ? LIMIT ?)",
                             "ll", now - BIN_MS, (int64_t)PURGE_STEP);
    return old < 0 ? -1 : n + old;
}

int hold_purge(struct hold *h, int64_t now)
{
    int64_t before = now - BIN_MS;
    int bin = purge_bin(h, before);
    int released = bin < 0 ? -1 : purge_released(h, before);
    if (released < 0 || contents_collect(&h->contents))
        return spoil(h);
    if (bin && sweep_words(h))
        return spoil(h);
    int incidents = purge_incidents(h, now);
    int storms = incidents < 0 ? -1 : purge_memory(h, now);
    int fellows = storms < 0 ? -1 : purge_fellows(h, now);
    return fellows < 0 ? spoil(h) : bin + released + incidents + storms + fellows;
}

/* Documents and settings. */

int hold_save_incident(struct hold *h, const char *id, int64_t first, int64_t last,
                       const char *json)
{
    return db_run(&h->db,
                  "INSERT INTO incident(id, first, last, document) VALUES(?1, ?2, ?3, ?4)"
                  " ON CONFLICT DO UPDATE SET first = ?2, last = ?3, document = ?4",
                  "slls", id, first, last, json) < 0
               ? -1
               : 0;
}

int hold_save_memory(struct hold *h, const struct key *k, uint32_t key_id, int64_t last,
                     struct span bytes)
{
    uint8_t *whole = malloc(bytes.n + 4);
    if (!whole)
        abort();
    memcpy(whole, bytes.p, bytes.n);
    bytes_put(whole + bytes.n, crc32_add(0, bytes.p, bytes.n), 4);
    int rc = db_run(&h->db,
                    "INSERT INTO memory(k, key_id, last, bytes) VALUES(?1, ?2, ?3, ?4)"
                    " ON CONFLICT DO UPDATE SET key_id = ?2, last = ?3, bytes = ?4",
                    "bllb", span_of(k->byte, sizeof k->byte), (int64_t)key_id, last,
                    span_of(whole, bytes.n + 4));
    free(whole);
    return rc < 0 ? -1 : 0;
}

int hold_save_relay(struct hold *h, const char *name, int64_t last, const char *json)
{
    return db_run(&h->db,
                  "INSERT INTO relay(name, last, document) VALUES(?1, ?2, ?3)"
                  " ON CONFLICT DO UPDATE SET last = ?2, document = ?3",
                  "sls", name, last, json) < 0
               ? -1
               : 0;
}

int hold_remove_relay(struct hold *h, const char *name)
{
    return db_run(&h->db, "DELETE FROM relay WHERE name = ?", "s", name) < 0 ? -1 : 0;
}

int hold_audit(struct hold *h, int64_t now, const char *who, const char *what, const char *why)
{
    return db_run(&h->db, "INSERT INTO audit(at, who, what, why) VALUES(?, ?, ?, ?)", "lsss", now,
                  who ? who : "", what ? what : "", why ? why : "") < 0
               ? -1
               : 0;
}

int hold_setting_set(struct hold *h, const char *name, const char *value)
{
    return db_run(&h->db,
                  "INSERT INTO setting(name, value) VALUES(?1, ?2)"
                  " ON CONFLICT DO UPDATE SET value = ?2",
                  "ss", name, value) < 0
               ? -1
               : 0;
}
