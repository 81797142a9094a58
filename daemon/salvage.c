/*
 * salvage.c - see salvage.h. The steps, each finished before the next:
 *
 *   1. copy what can be read into hold.db.salvaging, mend it, close it, sync it
 *   2. rename it to hold.db.salvaged          (from here on a crash is finished by salvage_finish)
 *   3. rename hold.db, -wal and -shm to hold.db.damaged-TIME...
 *   4. rename hold.db.salvaged to hold.db
 *
 * Rows are read in the order of their rowid; where a page cannot be read, the reading goes on
 * behind it: jumps of doubling length find the next readable row. A copy whose mail is lost keeps
 * its row, with a mail that says so (its head names no content).
 */
#include "salvage.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "failpoint.h"
#include "schema.h"

enum { PATH_ROOM = 4096, JUMPS = 20000 };

static void path_of(char out[PATH_ROOM], const char *path, const char *suffix)
{
    snprintf(out, PATH_ROOM, "%s%s", path, suffix);
}

static bool there(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

static int sync_path(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int rc = fsync(fd);
    close(fd);
    return rc;
}

static int sync_directory(const char *path)
{
    char dir[PATH_ROOM];
    snprintf(dir, sizeof(dir), "%s", path);
    char *slash = strrchr(dir, '/');
    if (slash)
        slash[slash == dir] = '\0';
    return sync_path(slash ? dir : ".");
}

/* Step 3 for one of the files; a file that is not there is none to move. */
static int move_aside(const char *path, const char *part, long long time)
{
    char from[PATH_ROOM], to[PATH_ROOM + 64];
    path_of(from, path, part);
    snprintf(to, sizeof(to), "%s.damaged-%lld%s", path, time, part);
    return there(from) ? rename(from, to) : 0;
}

static void remove_patient(const char *path)
{
    static const char *const parts[] = {".patient", ".patient-wal", ".patient-shm"};
    char name[PATH_ROOM];
    for (size_t i = 0; i < 3; i++) {
        path_of(name, path, parts[i]);
        unlink(name);
    }
}

int salvage_finish(const char *path, char error[512])
{
    char salvaged[PATH_ROOM], unfinished[PATH_ROOM];
    path_of(salvaged, path, ".salvaged");
    path_of(unfinished, path, ".salvaging");
    unlink(unfinished);
    remove_patient(path);
    if (!there(salvaged))
        return 0;
    long long now = (long long)time(NULL);
    if (move_aside(path, "", now) || FAILPOINT("salvage.aside") || move_aside(path, "-wal", now) ||
        move_aside(path, "-shm", now) || rename(salvaged, path) || sync_directory(path)) {
        snprintf(error, 512, "cannot put %.200s in the place of the damaged database: %s", salvaged,
                 strerror(errno));
        return -1;
    }
    return 0;
}

/* Copying. */

/* One table: its columns but the key, in order. */
struct table {
    const char *name, *key, *columns;
    int n; /* columns with the key */
};
static const struct table tables[] = {
    {"word", "id", "text, used", 3},
    {"recipient", "id", "raw, hash, address, used", 5},
    {"storm", "id", "k, incident, head, body", 5},
    {"content", "id", "tag, digest, base, refs, form, size, bytes", 8},
    {"piece", "id", "content, bytes", 3},
    {"mail", "id",
     "arrival, storm, head, body, size, sha256, door, client, client_name, helo, queue_id, auth,"
     " reversepath, reversepath_params, rule, reason, blamed, message_id, sender, subject",
     21},
    {"copy", "id",
     "mail, storm, recipient, state, first, relation, number, attempts, params, changed,"
     " next_attempt, actor, why, reply",
     15},
    {"audit", "id", "at, who, what, why", 5},
    /* Small ones; the key is SQLite's own or the name: one pass, as far as it goes. */
    {"incident", "rowid", "id, first, last, document", 5},
    {"setting", NULL, "name, value", 2},
    {"attempt", NULL, "mail, number, used", 3},
};

struct carry {
    sqlite3_stmt *read, *write;
    int n;
    bool keyed;
    uint64_t rows;
};

/* The row a step led to. A damaged tree may lead in circles: a key below the wanted one is damage
 * too, so that every row read is further on than the one before. */
static int arrived(const struct carry *c, int rc, int64_t key)
{
    if (rc != SQLITE_ROW)
        return rc == SQLITE_DONE ? 0 : -1;
    return c->keyed && sqlite3_column_int64(c->read, 0) < key ? -1 : 1;
}

/* Reads from key on. 1: a row; 0: no more; -1: unreadable. */
static int seek(struct carry *c, int64_t key)
{
    sqlite3_reset(c->read);
    if (c->keyed)
        sqlite3_bind_int64(c->read, 1, key);
    return arrived(c, sqlite3_step(c->read), key);
}

/* Carries the row the reading stands on; what breaks a rule of the new table stays behind. */
static void carry_row(struct carry *c)
{
    sqlite3_reset(c->write);
    for (int i = 0; i < c->n; i++)
        sqlite3_bind_value(c->write, i + 1, sqlite3_column_value(c->read, i));
    if (sqlite3_step(c->write) == SQLITE_DONE)
        c->rows++;
    sqlite3_reset(c->write);
}

/* Carries rows until the end (0) or damage (-1); *key is the next key to try then. */
static int carry_run(struct carry *c, int64_t *key)
{
    int rc = seek(c, *key);
    while (rc == 1) {
        int64_t at = sqlite3_column_int64(c->read, 0);
        if (at == INT64_MAX)
            return 0;
        *key = at + 1;
        carry_row(c);
        rc = arrived(c, sqlite3_step(c->read), *key);
    }
    return rc;
}

/* The first readable key behind damage at `key`: doubles the jump until a row (or the end) can be
 * read, then halves its way back. false: nothing more. */
static bool behind_damage(struct carry *c, int64_t *key)
{
    int64_t bad = *key, good = *key;
    uint64_t jump = 1;
    int rc;
    do {
        if (jump > (uint64_t)INT64_MAX || bad > INT64_MAX - (int64_t)jump)
            return false;
        good = bad + (int64_t)jump;
        rc = seek(c, good);
        jump *= 2;
    } while (rc < 0);
    while (good - bad > 1) {
        int64_t middle = bad + (good - bad) / 2;
        if (seek(c, middle) < 0)
            bad = middle;
        else
            good = middle;
    }
    *key = good;
    return true;
}

static void carry_keyed(struct carry *c)
{
    int64_t key = INT64_MIN;
    for (int i = 0; i < JUMPS && carry_run(c, &key) < 0; i++)
        if (!behind_damage(c, &key))
            return;
}

static void carry_plain(struct carry *c)
{
    uint64_t rows = 0, vain = 0;
    for (int rc = seek(c, 0); rc == 1 && vain < JUMPS; rc = arrived(c, sqlite3_step(c->read), 0)) {
        carry_row(c);
        vain = c->rows == rows ? vain + 1 : 0; /* in circles nothing new comes */
        rows = c->rows;
    }
}

static void carry_table(struct db *from, struct db *to, const struct table *t)
{
    char sql[1024];
    struct carry c = {.n = t->n, .keyed = t->key != NULL};
    if (c.keyed)
        snprintf(sql, sizeof(sql), "SELECT %s, %s FROM %s NOT INDEXED WHERE %s >= ? ORDER BY %s",
                 t->key, t->columns, t->name, t->key, t->key);
    else
        snprintf(sql, sizeof(sql), "SELECT %s FROM %s", t->columns, t->name);
    if (sqlite3_prepare_v2(from->raw, sql, -1, &c.read, NULL) != SQLITE_OK)
        return;
    int n = snprintf(sql, sizeof(sql), "INSERT OR IGNORE INTO %s(%s%s%s) VALUES(?", t->name,
                     c.keyed ? t->key : "", c.keyed ? ", " : "", t->columns);
    for (int i = 1; i < t->n; i++)
        n += snprintf(sql + n, sizeof(sql) - (size_t)n, ", ?");
    snprintf(sql + n, sizeof(sql) - (size_t)n, ")");
    if (sqlite3_prepare_v2(to->raw, sql, -1, &c.write, NULL) == SQLITE_OK) {
        if (c.keyed)
            carry_keyed(&c);
        else
            carry_plain(&c);
    }
    sqlite3_finalize(c.read);
    sqlite3_finalize(c.write);
}

/* Mending: what the copies and mails name is made to be there, and everything is counted anew. */
static const char mend[] =
    /* Values no put would have written. */
    "DELETE FROM copy WHERE typeof(mail) <> 'integer';"
    "UPDATE copy SET state = 1 WHERE state NOT IN (1, 2, 3, 4);"
    "UPDATE copy SET next_attempt = 0 WHERE state = 2 AND typeof(next_attempt) <> 'integer';"
    "UPDATE copy SET changed = 0 WHERE state > 1 AND typeof(changed) <> 'integer';"
    "UPDATE storm SET head = NULL WHERE head NOT IN (SELECT id FROM content WHERE form < 2);"
    "UPDATE storm SET body = NULL WHERE body NOT IN (SELECT id FROM content WHERE form < 2);"
    "UPDATE content SET base = NULL WHERE form <> 2;"
    "UPDATE content SET base = 0 WHERE form = 2 AND base NOT IN (SELECT id FROM content);"
    /* Lost mails, storms and recipients of copies that are there. */
    "INSERT OR IGNORE INTO mail(id, arrival, storm, head, body, size, sha256)"
    " SELECT mail, 0, storm, -1, -1, 0, x'' FROM copy WHERE mail NOT IN (SELECT id FROM mail);"
    "UPDATE mail SET arrival = ((id - (-9223372036854775807 - 1)) >> 22) & 4398046511103"
    " WHERE sha256 = x'';"
    "INSERT OR IGNORE INTO storm(id, k, incident)"
    " SELECT DISTINCT storm, CAST('lost ' || storm AS BLOB), '' FROM copy"
    " WHERE storm NOT IN (SELECT id FROM storm);"
    "UPDATE mail SET storm = (SELECT storm FROM copy WHERE mail = mail.id LIMIT 1)"
    " WHERE storm NOT IN (SELECT id FROM storm);"
    "INSERT OR IGNORE INTO recipient(id, raw, hash, address, used)"
    " SELECT DISTINCT recipient, x'', recipient, x'', 9223372036854775807 FROM copy"
    " WHERE recipient NOT IN (SELECT id FROM recipient);"
    "DELETE FROM mail WHERE id NOT IN (SELECT mail FROM copy);"
    "DELETE FROM storm WHERE id NOT IN (SELECT storm FROM copy);"
    "DELETE FROM attempt WHERE mail NOT IN (SELECT id FROM mail);"
    "UPDATE mail SET head = -1, body = -1 WHERE head IS NOT NULL"
    " AND (head NOT IN (SELECT id FROM content) OR body NOT IN (SELECT id FROM content));"
    /* Contents nobody refers to; deltas first. */
    "CREATE TEMP TABLE wanted(id INTEGER PRIMARY KEY);"
    "INSERT OR IGNORE INTO wanted SELECT head FROM mail WHERE head > 0"
    " UNION SELECT body FROM mail WHERE body > 0 UNION SELECT head FROM storm WHERE head > 0"
    " UNION SELECT body FROM storm WHERE body > 0;"
    "DELETE FROM content WHERE form = 2 AND id NOT IN (SELECT id FROM wanted);"
    "INSERT OR IGNORE INTO wanted SELECT base FROM content WHERE base > 0;"
    "DELETE FROM content WHERE id NOT IN (SELECT id FROM wanted);"
    "DELETE FROM piece WHERE content NOT IN (SELECT id FROM content);"
    "DROP TABLE wanted;"
    /* References and counts. */
    "CREATE TEMP TABLE uses(id INTEGER PRIMARY KEY, n INTEGER);"
    "INSERT INTO uses SELECT id, sum(n) FROM ("
    " SELECT head AS id, count(*) AS n FROM mail WHERE head > 0 GROUP BY head"
    " UNION ALL SELECT body, count(*) FROM mail WHERE body > 0 GROUP BY body"
    " UNION ALL SELECT base, count(*) FROM content WHERE base > 0 GROUP BY base"
    " UNION ALL SELECT head, count(*) FROM storm WHERE head > 0 GROUP BY head"
    " UNION ALL SELECT body, count(*) FROM storm WHERE body > 0 GROUP BY body) GROUP BY id;"
    "UPDATE content SET refs = ifnull((SELECT n FROM uses WHERE uses.id = content.id), 0);"
    "DROP TABLE uses;"
    "DELETE FROM count;"
    "INSERT INTO count SELECT storm, 1 + state, count(*) FROM copy GROUP BY storm, state;"
    "INSERT INTO count SELECT storm, 9, count(*) FROM mail GROUP BY storm;"
    "INSERT INTO count SELECT 0, 10, count(*) FROM content;"
    "INSERT INTO count SELECT 0, 11, ifnull((SELECT sum(length(bytes)) FROM content), 0)"
    " + ifnull((SELECT sum(length(bytes)) FROM piece), 0);";

static int fill(struct db *from, struct db *to)
{
    if (db_script(to, "BEGIN"))
        return -1;
    for (size_t i = 0; from->raw && i < sizeof(tables) / sizeof(tables[0]); i++)
        carry_table(from, to, &tables[i]);
    return db_script(to, mend) || db_script(to, "COMMIT") ? -1 : 0;
}

/* How many tables and indexes can be seen; -1: the first page cannot be read. */
static int64_t schema_size(struct db *db)
{
    int64_t n = 0;
    return db->raw && db_ask(db, &n, "SELECT count(*) FROM sqlite_schema", "") == 1 ? n : -1;
}

/* Opens a damaged database only to read. It is left as it is: its journal is not folded in. */
static void open_damaged(struct db *from, const char *path)
{
    char ignored[512];
    if (db_open(from, path, SQLITE_OPEN_READWRITE, ignored))
        return;
    sqlite3_db_config(from->raw, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    if (db_script(from, "PRAGMA writable_schema = ON; PRAGMA cell_size_check = ON;"
                        "PRAGMA query_only = ON;"))
        return; /* then there is little to read, and carry_table finds that out */
}

/* The first page. */

static int copy_file(const char *from, const char *to)
{
    char buffer[1 << 16];
    int in = open(from, O_RDONLY | O_CLOEXEC);
    int out = in < 0 ? -1 : open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ssize_t n = out < 0 ? -1 : 1;
    while (n > 0 && (n = read(in, buffer, sizeof(buffer))) > 0)
        if (write(out, buffer, (size_t)n) != n)
            n = -1;
    if (in >= 0)
        close(in);
    if (out >= 0)
        close(out);
    return n < 0 ? -1 : 0;
}

static void put_be32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

/* The first page says where the tables begin, and they begin where they do in any new database of
 * this version: so a new one's first page reads the old one's tables. */
static int transplant(const char *fresh, const char *patient)
{
    uint8_t page[4096];
    struct stat st;
    int in = open(fresh, O_RDONLY | O_CLOEXEC), out = open(patient, O_WRONLY | O_CLOEXEC);
    int rc = -1;
    if (in >= 0 && out >= 0 && fstat(out, &st) == 0 &&
        pread(in, page, sizeof(page), 0) == (ssize_t)sizeof(page)) {
        put_be32(page + 28, (uint32_t)(st.st_size / (off_t)sizeof(page))); /* its size in pages */
        memcpy(page + 92, page + 24, 4);                                   /* that this is true */
        memset(page + 32, 0, 8);                                           /* no free pages */
        rc = pwrite(out, page, sizeof(page), 0) == (ssize_t)sizeof(page) ? 0 : -1;
    }
    if (in >= 0)
        close(in);
    if (out >= 0)
        close(out);
    return rc;
}

/* Opens a copy of the damaged database, its first page replaced. */
static void open_transplanted(struct db *from, const char *path, const char *fresh)
{
    char copy[PATH_ROOM], wal[PATH_ROOM], copy_wal[PATH_ROOM];
    path_of(copy, path, ".patient");
    path_of(wal, path, "-wal");
    path_of(copy_wal, path, ".patient-wal");
    if (copy_file(path, copy) == 0 && (!there(wal) || copy_file(wal, copy_wal) == 0) &&
        transplant(fresh, copy) == 0)
        open_damaged(from, copy);
}

/* All steps. */

static int copy_into(const char *path, const char *fresh, char error[512])
{
    struct db from = {0}, to;
    unlink(fresh);
    if (schema_open(&to, fresh, true, error) != SCHEMA_READY)
        return -1;
    open_damaged(&from, path);
    if (schema_size(&from) < schema_size(&to)) {
        db_close(&from);
        if (db_script(&to, "PRAGMA wal_checkpoint(TRUNCATE)") == 0)
            open_transplanted(&from, path, fresh);
    }
    int rc = fill(&from, &to);
    if (rc)
        snprintf(error, 512, "cannot save what is readable of %.200s: %.200s", path,
                 sqlite3_errmsg(to.raw));
    db_close(&from);
    remove_patient(path);
    if (rc == 0 && db_script(&to, "PRAGMA wal_checkpoint(TRUNCATE); PRAGMA journal_mode = DELETE"))
        rc = -1;
    db_close(&to);
    return rc;
}

int salvage(const char *path, char error[512])
{
    char fresh[PATH_ROOM], salvaged[PATH_ROOM];
    path_of(fresh, path, ".salvaging");
    path_of(salvaged, path, ".salvaged");
    if (copy_into(path, fresh, error) || FAILPOINT("salvage.copied"))
        return -1;
    if (sync_path(fresh) || rename(fresh, salvaged) || sync_directory(path)) {
        snprintf(error, 512, "cannot finish %.200s: %s", salvaged, strerror(errno));
        return -1;
    }
    if (FAILPOINT("salvage.done"))
        return -1;
    return salvage_finish(path, error);
}
