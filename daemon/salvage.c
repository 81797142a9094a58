/*
 * salvage.c - see salvage.h. The steps, each finished before the next:
 *
 *   1. copy what can be read into hold.db.salvaging, mend it, close it, sync it
 *   2. rename it to hold.db.salvaged          (from here on a crash is finished by salvage_finish)
 *   3. rename hold.db, -wal and -shm to hold.db.damaged-TIME...
 *   4. rename hold.db.salvaged to hold.db
 *
 * Every page is read by itself (pages.h), so a lost page costs the rows on it and no others. Which
 * table a row is of, its shape says: no two tables have rows alike. A copy whose mail is lost keeps
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
#include "pages.h"
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

int salvage_finish(const char *path, char error[512])
{
    char salvaged[PATH_ROOM], unfinished[PATH_ROOM];
    path_of(salvaged, path, ".salvaged");
    path_of(unfinished, path, ".salvaging");
    unlink(unfinished);
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

/* How a row is told from all others by its record, and where it goes. One letter a column:
 *   k NULL (the rowid is the key)   i integer   I integer or NULL   b blob   t text
 *   w a word: integer, blob or NULL */
static const struct shape {
    const char *types, *insert;
} shapes[] = {
    {"kbi", "word(id, text, used) VALUES(?, ?, ?)"},
    {"kbibi", "recipient(id, raw, hash, address, used) VALUES(?, ?, ?, ?, ?)"},
    {"kbtII", "storm(id, k, incident, head, body) VALUES(?, ?, ?, ?, ?)"},
    {"kibIiiib", "content(id, tag, digest, base, refs, form, size, bytes)"
                 " VALUES(?, ?, ?, ?, ?, ?, ?, ?)"},
    {"kib", "piece(id, content, bytes) VALUES(?, ?, ?)"},
    {"kiiIIibwwwwwwwwwwwwww", "mail VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"},
    {"kiiiiiiiiwIIwww", "copy VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"},
    {"kittt", "audit(id, at, who, what, why) VALUES(?, ?, ?, ?, ?)"},
    {"kittitiiiittitttbt", "policy_version VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"},
    {"kiiitttiitti", "entry VALUES(?,?,?,?,?,?,?,?,?,?,?,?)"},
    {"kiiiiiiittttttttt", "refusal VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"},
    {"tiit", "incident(id, first, last, document) VALUES(?, ?, ?, ?)"},
};
/* Tables without a rowid; and what an index knows of rows that are lost themselves. */
static const struct shape entries[] = {
    {"tt", "setting(name, value) VALUES(?, ?)"},
    {"iii", "attempt SELECT ?1, ?2, ?3 WHERE ?3 IN (0, 1)"}, /* an index of copies has big ids */
    {"biib", "memory(k, key_id, last, bytes) VALUES(?, ?, ?, ?)"},
    {"ittiiiii", "day VALUES(?, ?, ?, ?, ?, ?, ?, ?)"},
    {"tti", "command(id, who, at) VALUES(?, ?, ?)"},
    {"ttiit", "fellow(id, node, first, last, document) VALUES(?, ?, ?, ?, ?)"},
    {"tit", "relay(name, last, document) VALUES(?, ?, ?)"},
    {"bi", "word(text, id, used) VALUES(?, ?, 9223372036854775807)"},
    {"bbii", "recipient(address, raw, hash, id, used) VALUES(?, ?, ?, ?, 9223372036854775807)"},
    {"bti", "storm(k, incident, id) VALUES(?, ?, ?)"},
};
enum {
    SHAPES = sizeof(shapes) / sizeof(shapes[0]),
    ENTRIES = sizeof(entries) / sizeof(entries[0]),
};

struct carry {
    const struct shape *shapes;
    size_t n;
    sqlite3_stmt *write[SHAPES];
    int fault; /* of the new database; then nothing more is carried */
};

static bool fits(char letter, const struct value *v)
{
    switch (letter) {
    case 'k':
        return v->type == VALUE_NULL;
    case 'i':
        return v->type == VALUE_INTEGER;
    case 'I':
        return v->type == VALUE_INTEGER || v->type == VALUE_NULL;
    case 'b':
        return v->type == VALUE_BLOB;
    case 't':
        return v->type == VALUE_TEXT;
    default:
        return v->type != VALUE_TEXT;
    }
}

static bool has_shape(const struct shape *s, const struct record *r)
{
    if (strlen(s->types) != r->n)
        return false;
    for (size_t i = 0; i < r->n; i++)
        if (!fits(s->types[i], &r->column[i]))
            return false;
    return true;
}

static int bind_value(sqlite3_stmt *q, int i, const struct value *v)
{
    const void *p = v->bytes.n ? v->bytes.p : (const void *)"";
    switch (v->type) {
    case VALUE_INTEGER:
        return sqlite3_bind_int64(q, i, v->integer);
    case VALUE_TEXT:
        return sqlite3_bind_text64(q, i, p, v->bytes.n, SQLITE_STATIC, SQLITE_UTF8);
    case VALUE_BLOB:
        return sqlite3_bind_blob64(q, i, p, v->bytes.n, SQLITE_STATIC);
    default:
        return sqlite3_bind_null(q, i);
    }
}

/* What breaks a rule of the new table stays behind. */
static void carry_record(void *arg, const struct record *r)
{
    struct carry *c = arg;
    size_t at = 0;
    while (at < c->n && !has_shape(&c->shapes[at], r))
        at++;
    if (at == c->n || c->fault)
        return;
    sqlite3_stmt *q = c->write[at];
    int rc = SQLITE_OK;
    for (size_t i = 0; i < r->n && rc == SQLITE_OK; i++)
        rc = c->shapes[at].types[i] == 'k' ? sqlite3_bind_int64(q, (int)i + 1, r->rowid)
                                           : bind_value(q, (int)i + 1, &r->column[i]);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(q);
    sqlite3_reset(q);
    if (rc != SQLITE_DONE && rc != SQLITE_CONSTRAINT && rc != SQLITE_MISMATCH)
        c->fault = rc;
}

static int carry(struct pages *from, struct db *to, bool tables)
{
    struct carry c = {.shapes = tables ? shapes : entries, .n = tables ? SHAPES : ENTRIES};
    for (size_t i = 0; i < c.n && !c.fault; i++) {
        char sql[256];
        snprintf(sql, sizeof(sql), "INSERT OR IGNORE INTO %s", c.shapes[i].insert);
        c.fault = sqlite3_prepare_v2(to->raw, sql, -1, &c.write[i], NULL);
    }
    if (!c.fault)
        pages_each(from, tables, carry_record, &c);
    for (size_t i = 0; i < c.n; i++)
        sqlite3_finalize(c.write[i]);
    to->fault = c.fault;
    return c.fault ? -1 : 0;
}

/* Mending: what the copies and mails name is made to be there, and everything is counted anew. */
static const char mend[] =
    /* Of versions in force there is one everywhere and one on a part; the latest wins. */
    "UPDATE policy_version SET state = 3 WHERE state IN (1, 2) AND part = ''"
    " AND number < (SELECT max(number) FROM policy_version WHERE state IN (1, 2) AND part = '');"
    "UPDATE policy_version SET state = 3 WHERE state IN (1, 2) AND part <> ''"
    " AND number < (SELECT max(number) FROM policy_version WHERE state IN (1, 2) AND part <> '');"
    "UPDATE policy_version SET state = 2 WHERE state = 1"
    " AND number < (SELECT max(number) FROM policy_version WHERE state = 1);"
    "UPDATE policy_version SET state = 3 WHERE state NOT IN (1, 2, 3, 4);"
    /* Values no put would have written. */
    "UPDATE copy SET state = 1 WHERE state NOT IN (1, 2, 3, 4);"
    "UPDATE copy SET next_attempt = 0 WHERE state = 2 AND next_attempt IS NULL;"
    "UPDATE copy SET changed = 0 WHERE state > 1 AND changed IS NULL;"
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
    /* Numbers of attempts go on where they were: no token is good twice. */
    "INSERT OR IGNORE INTO attempt SELECT mail, max(attempts), 1 FROM copy WHERE attempts > 0"
    " GROUP BY mail;"
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
    "INSERT INTO count SELECT 0, what, sum(n) FROM count GROUP BY what;"
    "INSERT INTO count SELECT 0, 10, count(*) FROM content;"
    "INSERT INTO count SELECT 0, 11, ifnull((SELECT sum(length(bytes)) FROM content), 0)"
    " + ifnull((SELECT sum(length(bytes)) FROM piece), 0);";

static int fill(struct pages *from, struct db *to)
{
    return db_script(to, "BEGIN") || carry(from, to, true) || carry(from, to, false) ||
                   db_script(to, mend) || db_script(to, "COMMIT")
               ? -1
               : 0;
}

/* All steps. */

static int copy_into(const char *path, const char *fresh, char error[512])
{
    struct db to;
    char wal[PATH_ROOM];
    path_of(wal, path, "-wal");
    unlink(fresh);
    if (schema_open(&to, fresh, true, error) != SCHEMA_READY)
        return -1;
    int file = open(path, O_RDONLY | O_CLOEXEC), log = open(wal, O_RDONLY | O_CLOEXEC);
    struct pages *from = pages_open(file, log);
    int rc = fill(from, &to);
    if (rc == 0)
        rc = db_script(&to, "PRAGMA wal_checkpoint(TRUNCATE); PRAGMA journal_mode = DELETE");
    if (rc)
        snprintf(error, 512, "cannot save what is readable of %.200s: %.200s", path,
                 sqlite3_errstr(to.fault));
    pages_close(&from);
    if (file >= 0)
        close(file);
    if (log >= 0)
        close(log);
    db_close(&to);
    return rc;
}

bool salvage_wanted(const char *path)
{
    char wal[PATH_ROOM];
    struct stat st;
    path_of(wal, path, "-wal");
    bool empty = stat(path, &st) ? errno == ENOENT : st.st_size == 0;
    return empty && stat(wal, &st) == 0 && st.st_size > 0;
}

int salvage(const char *path, char error[512])
{
    char fresh[PATH_ROOM], salvaged[PATH_ROOM];
    path_of(fresh, path, ".salvaging");
    path_of(salvaged, path, ".salvaged");
    if (copy_into(path, fresh, error)) {
        unlink(fresh);
        return -1;
    }
    if (FAILPOINT("salvage.copied"))
        return -1;
    if (sync_path(fresh) || rename(fresh, salvaged) || sync_directory(path)) {
        snprintf(error, 512, "cannot finish %.200s: %s", salvaged, strerror(errno));
        return -1;
    }
    if (FAILPOINT("salvage.done"))
        return -1;
    return salvage_finish(path, error);
}
