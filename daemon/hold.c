/*
 * hold.c - opening the hold database, its transactions, putting mail in and getting its bytes back.
 *
 * Failpoints, in the order in which a put meets them:
 *   put.begin  content.add  content.piece  put.content  put.mail  put.copy  (word and index rows
 * lie between)  commit.before  commit.after  done.before (keeper) in a release: state.change
 * release.attempt  release.mark  token.use elsewhere: purge.copy  content.collect  checkpoint
 * salvage.copied  salvage.aside  salvage.done
 *
 * Invariant: hold_commit returning 0 means that everything of the transaction, all its counts
 * included, is on the disk; anything else means that nothing of it is.
 */
#include "hold.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "failpoint.h"
#include "hold_own.h"
#include "salvage.h"
#include "schema.h"

const char *copy_state_name(enum copy_state state)
{
    static const char *const names[] = {"none", "held", "releasing", "released", "discarded"};
    return state < COPY_STATES ? names[state] : "none";
}

/* Opening. */

static int late(void *arg)
{
    const time_t *deadline = arg;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec > *deadline;
}

/* Looks the whole file over, ten seconds at most; what takes longer is found when it is met. */
static bool looks_sound(struct db *db)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    time_t deadline = now.tv_sec + 10;
    sqlite3_progress_handler(db->raw, 10000, late, &deadline);
    sqlite3_stmt *q = db_bind(db, "PRAGMA integrity_check(1)", "");
    int rc = q ? db_step(db, q) : -1;
    bool sound = rc == 1 && strcmp((const char *)sqlite3_column_text(q, 0), "ok") == 0;
    if (rc < 0 && !schema_damage(db->fault))
        sound = true; /* interrupted, or the disk's fault */
    if (q)
        sqlite3_reset(q);
    sqlite3_progress_handler(db->raw, 0, NULL, NULL);
    return sound;
}

/* Opens the database for writing, saving what can be saved of a damaged one. */
static int open_writer(struct hold *h, bool *damaged, char error[512])
{
    if (salvage_finish(h->path, error))
        return -1;
    enum schema_state state =
        salvage_wanted(h->path) ? SCHEMA_DAMAGED : schema_open(&h->db, h->path, true, error);
    if (state == SCHEMA_READY && looks_sound(&h->db))
        return 0;
    if (state == SCHEMA_READY)
        db_close(&h->db);
    if (state == SCHEMA_REFUSED || salvage(h->path, error))
        return -1;
    *damaged = true;
    return schema_open(&h->db, h->path, true, error) == SCHEMA_READY ? 0 : -1;
}

static ino_t inode_of(const char *path)
{
    struct stat st;
    return stat(path, &st) ? 0 : st.st_ino;
}

static struct hold *hold_new(const char *dir, bool write)
{
    struct hold *h = calloc(1, sizeof(*h));
    size_t n = strlen(dir) + sizeof("/hold.db");
    if (!h || !(h->path = malloc(n)) || !(h->sha = EVP_MD_CTX_new()) ||
        !(h->sha_head = EVP_MD_CTX_new()))
        abort();
    snprintf(h->path, n, "%s/hold.db", dir);
    h->write = write;
    h->counts.db = &h->db;
    words_open(&h->words, &h->db);
    contents_open(&h->contents, &h->db, &h->counts);
    return h;
}

struct hold *hold_open(const char *dir, bool write, bool *damaged, char error[512])
{
    bool ignored;
    if (!damaged)
        damaged = &ignored;
    *damaged = false;
    struct stat st;
    if (stat(dir, &st) || !S_ISDIR(st.st_mode)) {
        snprintf(error, 512, "%s is not a directory; make it and give it to the daemon's user",
                 dir);
        return NULL;
    }
    struct hold *h = hold_new(dir, write);
    h->inode = inode_of(h->path);
    int rc = write ? open_writer(h, damaged, error)
                   : (schema_open(&h->db, h->path, false, error) == SCHEMA_READY ? 0 : -1);
    if (rc)
        hold_close(&h);
    return h;
}

void hold_close(struct hold **hp)
{
    struct hold *h = *hp;
    if (!h)
        return;
    *hp = NULL;
    words_close(&h->words);
    contents_close(&h->contents);
    EVP_MD_CTX_free(h->sha);
    EVP_MD_CTX_free(h->sha_head);
    db_close(&h->db);
    free(h->path);
    free(h);
}

bool hold_broken(const struct hold *h)
{
    return schema_damage(h->db.fault);
}

void hold_maintain(struct hold *h)
{
    int frames = 0, moved = 0;
    if (FAILPOINT("checkpoint") ||
        sqlite3_wal_checkpoint_v2(h->db.raw, NULL, SQLITE_CHECKPOINT_PASSIVE, &frames, &moved))
        return;
    if (moved == frames && frames > 16384)
        sqlite3_wal_checkpoint_v2(h->db.raw, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    int64_t idle;
    if (db_ask(&h->db, &idle, "PRAGMA freelist_count", "") == 1 && idle > 256 &&
        db_script(&h->db, "PRAGMA incremental_vacuum(256)"))
        return;
}

/* Transactions. */

/* Ids read or made since may be void now. */
static void forget(struct hold *h)
{
    counts_forget(&h->counts);
    words_forget(&h->words);
    contents_forget(&h->contents);
    memset(h->storms, 0, sizeof(h->storms));
    h->spoiled = false;
}

int hold_begin(struct hold *h)
{
    h->db.fault = 0;
    h->changes = sqlite3_total_changes(h->db.raw);
    return db_run(&h->db, "BEGIN IMMEDIATE", "") < 0 ? -1 : 0;
}

/* Does the commit write anything? */
static bool writes(const struct hold *h)
{
    return sqlite3_total_changes(h->db.raw) != h->changes;
}

int hold_commit(struct hold *h)
{
    if (h->spoiled || counts_flush(&h->counts) || (writes(h) && FAILPOINT("commit.before")) ||
        db_run(&h->db, "COMMIT", "") < 0) {
        hold_rollback(h);
        return -1;
    }
    (void)FAILPOINT("commit.after");
    return 0;
}

void hold_rollback(struct hold *h)
{
    int fault = h->db.fault;
    if (!sqlite3_get_autocommit(h->db.raw) && db_run(&h->db, "ROLLBACK", "") < 0)
        return; /* the next BEGIN says so */
    h->db.fault = fault;
    forget(h);
}

int hold_savepoint(struct hold *h)
{
    return counts_flush(&h->counts) || db_run(&h->db, "SAVEPOINT piece", "") < 0 ? -1 : 0;
}

int hold_release_savepoint(struct hold *h)
{
    return h->spoiled || counts_flush(&h->counts) || db_run(&h->db, "RELEASE piece", "") < 0 ? -1
                                                                                             : 0;
}

void hold_undo_savepoint(struct hold *h)
{
    bool undone =
        db_run(&h->db, "ROLLBACK TO piece", "") >= 0 && db_run(&h->db, "RELEASE piece", "") >= 0;
    forget(h);
    h->spoiled = !undone;
}

static bool is_reading(struct hold *h)
{
    sqlite3_stmt *s = NULL;
    while ((s = sqlite3_next_stmt(h->db.raw, s)))
        if (sqlite3_stmt_busy(s))
            return true;
    return !sqlite3_get_autocommit(h->db.raw);
}

void hold_follow(struct hold *h)
{
    ino_t inode = h->write ? 0 : inode_of(h->path);
    struct db fresh;
    char error[512];
    if (inode == 0 || inode == h->inode || is_reading(h) ||
        schema_open(&fresh, h->path, false, error) != SCHEMA_READY)
        return;
    db_close(&h->db);
    h->db = fresh;
    h->inode = inode;
    forget(h);
}

bool hold_view_begin(struct hold *h)
{
    hold_follow(h);
    return sqlite3_get_autocommit(h->db.raw) && db_run(&h->db, "BEGIN", "") >= 0;
}

void hold_view_end(struct hold *h, bool begun)
{
    if (begun && db_run(&h->db, "COMMIT", "") < 0)
        hold_rollback(h);
}

/* Putting. */

static int storm_read(struct hold *h, struct hold_storm *s, struct span k, const char *incident)
{
    sqlite3_stmt *q = db_bind(
        &h->db, "SELECT id, head, body FROM storm WHERE k = ? AND incident = ?", "bs", k, incident);
    int rc = q ? db_step(&h->db, q) : -1;
    if (rc != 1)
        return rc;
    s->id = sqlite3_column_int64(q, 0);
    s->reference[0] = sqlite3_column_int64(q, 1);
    s->reference[1] = sqlite3_column_int64(q, 2);
    sqlite3_reset(q);
    return 1;
}

static struct hold_storm *storm_of(struct hold *h, const struct key *key, struct span incident)
{
    struct hold_storm *s = &h->storms[key->byte[0] % HOLD_STORMS];
    struct hold_storm fresh = {.k = *key};
    snprintf(fresh.incident, sizeof(fresh.incident), "%.*s", SPAN_ARG(span_head(incident, 31)));
    if (s->id && memcmp(&s->k, key, sizeof(*key)) == 0 && strcmp(s->incident, fresh.incident) == 0)
        return s;
    struct span k = span_of(key->byte, sizeof(key->byte));
    int rc = storm_read(h, &fresh, k, fresh.incident);
    if (rc == 0) {
        rc = db_run(&h->db, "INSERT INTO storm(k, incident) VALUES(?, ?)", "bs", k, fresh.incident);
        fresh.id = sqlite3_last_insert_rowid(h->db.raw);
    }
    if (rc < 0)
        return NULL;
    *s = fresh;
    return s;
}

/* What a mail's bytes became. */
struct stored {
    int64_t head, body;
    uint8_t sha256[32];
};

static int store_contents(struct hold *h, struct hold_storm *s, const struct held_mail *m,
                          struct stored *out)
{
    uint8_t head[32];
    int64_t before[2] = {s->reference[0], s->reference[1]};
    if (EVP_DigestInit_ex(h->sha, EVP_sha256(), NULL) != 1 ||
        (m->head.n && EVP_DigestUpdate(h->sha, m->head.p, m->head.n) != 1) ||
        EVP_MD_CTX_copy_ex(h->sha_head, h->sha) != 1 ||
        EVP_DigestFinal_ex(h->sha_head, head, NULL) != 1 ||
        content_put(&h->contents, m->head, head, &s->reference[0], &out->head) ||
        content_put_body(&h->contents, m->body, h->sha, &s->reference[1], &out->body) ||
        EVP_DigestFinal_ex(h->sha, out->sha256, NULL) != 1)
        return -1;
    if (before[0] == s->reference[0] && before[1] == s->reference[1])
        return 0;
    struct db_word head_id = {.id = s->reference[0]}, body_id = {.id = s->reference[1]};
    int rc = db_run(&h->db, "UPDATE storm SET head = ?2, body = ?3 WHERE id = ?1", "lww", s->id,
                    head_id, body_id);
    return rc < 0 ? -1 : 0;
}

/* Text only people read: bounded, for it is anybody's. */
static struct db_word cut(struct span s)
{
    return (struct db_word){.text = span_head(s, WORD_CUT)};
}

static int store_mail(struct hold *h, const struct hold_storm *s, const struct held_mail *m,
                      const struct stored *c)
{
    const struct span text[] = {m->door,
                                m->client,
                                m->client_name,
                                m->helo,
                                m->auth,
                                m->reversepath,
                                m->reversepath_params,
                                m->rule,
                                span_head(m->reason, WORD_CUT),
                                span_head(m->blamed, WORD_CUT),
                                span_head(m->from, WORD_CUT),
                                span_head(m->subject, WORD_CUT)};
    enum { N = sizeof(text) / sizeof(text[0]) };
    struct db_word w[N];
    for (size_t i = 0; i < N; i++)
        if (word_of(&h->words, text[i], m->id, &w[i]))
            return -1;
    uint64_t size = m->head.n + body_size(m->body);
    int rc = db_run(&h->db,
                    "INSERT INTO mail(id, arrival, storm, head, body, size, sha256, door, client,"
                    " client_name, helo, auth, reversepath, reversepath_params, rule, reason,"
                    " blamed, sender, subject, queue_id, message_id)"
                    " VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                    "dllllubwwwwwwwwwwwwww", m->id, m->arrival, s->id, c->head, c->body, size,
                    span_of(c->sha256, 32), w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8],
                    w[9], w[10], w[11], cut(m->queue_id), cut(m->message_id));
    return rc < 0 ? -1 : count_add(&h->counts, COUNT_MAILS, s->id, 1);
}

static int store_copy(struct hold *h, const struct hold_storm *s, const struct held_mail *m,
                      const struct held_copy *c)
{
    int64_t recipient;
    struct db_word params;
    if (FAILPOINT("put.copy") ||
        recipient_of(&h->words, c->rcpt, c->rcpt_hash, m->id, &recipient) ||
        word_of(&h->words, c->params, m->id, &params) ||
        db_run(
            &h->db,
            "INSERT INTO copy(id, mail, storm, recipient, state, first, relation, number, params)"
            " VALUES(?, ?, ?, ?, 1, ?, ?, ?, ?)",
            "ddlliilw", c->id, m->id, s->id, recipient, (int)c->first, (int)c->relation,
            (int64_t)c->number, params) < 0)
        return -1;
    return count_add(&h->counts, COUNT_COPIES + COPY_HELD, s->id, 1);
}

static int put(struct hold *h, const struct held_mail *m)
{
    struct stored contents;
    struct hold_storm *s = storm_of(h, &m->k, m->incident);
    if (!s || store_contents(h, s, m, &contents) || FAILPOINT("put.content") ||
        store_mail(h, s, m, &contents) || FAILPOINT("put.mail"))
        return -1;
    for (size_t i = 0; i < m->ncopies; i++)
        if (store_copy(h, s, m, &m->copies[i]))
            return -1;
    return 0;
}

int hold_put(struct hold *h, const struct held_mail *m)
{
    if (m->ncopies == 0 || body_lost(m->body) || FAILPOINT("put.begin"))
        return -1;
    if (put(h, m) == 0)
        return 0;
    h->spoiled = true;
    return -1;
}

/* Taking out. */

int hold_storm_unrefer(struct hold *h, int64_t storm)
{
    static const char *const ask[2] = {"SELECT head FROM storm WHERE id = ?",
                                       "SELECT body FROM storm WHERE id = ?"};
    memset(h->storms, 0, sizeof(h->storms));
    for (int i = 0; i < 2; i++) {
        int64_t reference;
        int rc = db_ask(&h->db, &reference, ask[i], "l", storm);
        if (rc < 0 || (rc == 1 && content_drop(&h->contents, reference)))
            return -1;
    }
    return db_run(&h->db, "UPDATE storm SET head = NULL, body = NULL WHERE id = ?", "l", storm) < 0
               ? -1
               : 0;
}

int hold_storm_remove(struct hold *h, int64_t storm)
{
    int64_t there;
    int rc = db_ask(&h->db, &there, "SELECT 1 FROM copy WHERE storm = ? LIMIT 1", "l", storm);
    if (rc)
        return rc < 0 ? -1 : 0;
    if (hold_storm_unrefer(h, storm) || counts_flush(&h->counts) ||
        db_run(&h->db, "DELETE FROM count WHERE id = ?", "l", storm) < 0 ||
        db_run(&h->db, "DELETE FROM storm WHERE id = ?", "l", storm) < 0)
        return -1;
    return 0;
}

/* The contents of mail, 0 where let go. 1, 0: no such mail, -1. */
static int mail_contents(struct hold *h, uint64_t mail, int64_t *head, int64_t *body,
                         int64_t *storm)
{
    sqlite3_stmt *q = db_bind(&h->db, "SELECT head, body, storm FROM mail WHERE id = ?", "d", mail);
    int rc = q ? db_step(&h->db, q) : -1;
    *head = *body = *storm = 0;
    if (rc != 1)
        return rc;
    *head = sqlite3_column_int64(q, 0);
    *body = sqlite3_column_int64(q, 1);
    *storm = sqlite3_column_int64(q, 2);
    sqlite3_reset(q);
    return 1;
}

int hold_mail_remove(struct hold *h, uint64_t mail)
{
    int64_t head, body, storm;
    int rc = mail_contents(h, mail, &head, &body, &storm);
    if (rc <= 0)
        return rc;
    if ((head && content_drop(&h->contents, head)) || (body && content_drop(&h->contents, body)) ||
        count_add(&h->counts, COUNT_MAILS, storm, -1) ||
        db_run(&h->db, "DELETE FROM attempt WHERE mail = ?", "d", mail) < 0 ||
        db_run(&h->db, "DELETE FROM mail WHERE id = ?", "d", mail) < 0)
        return -1;
    return 0;
}

/* Deletes the mail's copies; how many, or -1. */
static int copies_remove(struct hold *h, uint64_t mail)
{
    sqlite3_stmt *q = db_bind(&h->db, "SELECT storm, state FROM copy WHERE mail = ?", "d", mail);
    int rc = q ? 1 : -1;
    while (rc == 1 && (rc = db_step(&h->db, q)) == 1)
        if (count_add(&h->counts, COUNT_COPIES + sqlite3_column_int(q, 1),
                      sqlite3_column_int64(q, 0), -1))
            rc = -1;
    if (q)
        sqlite3_reset(q);
    return rc < 0 ? -1 : db_run(&h->db, "DELETE FROM copy WHERE mail = ?", "d", mail);
}

int hold_unput(struct hold *h, uint64_t mail)
{
    int64_t head, body, storm;
    int there = mail_contents(h, mail, &head, &body, &storm);
    if (there <= 0)
        return there;
    if (copies_remove(h, mail) < 0 || hold_mail_remove(h, mail) || hold_storm_remove(h, storm) ||
        contents_collect(&h->contents)) {
        h->spoiled = true;
        return -1;
    }
    return 0;
}

/* Getting the bytes back. */

static int read_mail(struct hold *h, uint64_t mail, struct content_bytes *out, uint8_t sha256[32])
{
    sqlite3_stmt *q =
        db_bind(&h->db, "SELECT head, body, sha256, size FROM mail WHERE id = ?", "d", mail);
    int rc = q ? db_step(&h->db, q) : -1;
    if (rc != 1)
        return -1;
    bool kept = sqlite3_column_type(q, 0) != SQLITE_NULL;
    int64_t head = sqlite3_column_int64(q, 0), body = sqlite3_column_int64(q, 1);
    uint64_t size = (uint64_t)sqlite3_column_int64(q, 3);
    struct span sha = db_span(q, 2);
    bool known = sha.n == 32;
    if (known)
        memcpy(sha256, sha.p, 32);
    sqlite3_reset(q);
    if (!kept)
        return -1;
    uint8_t found[32] = {0};
    if (!known || content_read(&h->contents, head, out) || content_read(&h->contents, body, out) ||
        out->n != size ||
        EVP_Digest(out->p ? out->p : found, out->n, found, NULL, EVP_sha256(), NULL) != 1 ||
        memcmp(found, sha256, 32) != 0)
        return -2;
    return 0;
}

int hold_bytes(struct hold *h, uint64_t mail, uint8_t **bytes, size_t *n, uint8_t sha256[32])
{
    struct content_bytes out = {0};
    bool begun = hold_view_begin(h);
    int rc = read_mail(h, mail, &out, sha256);
    hold_view_end(h, begun);
    if (rc) {
        free(out.p);
        return rc;
    }
    *bytes = out.p ? out.p : malloc(1);
    if (!*bytes)
        abort();
    *n = out.n;
    return 0;
}
