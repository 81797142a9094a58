/*
 * schema.c - see schema.h. What the columns mean:
 *
 *   setting    name, value
 *   word       strings that repeat (word.h); used: newest mail about to use it
 *   recipient  raw as received; hash keyed; address lower-cased without <>
 *   storm      (k, incident); head, body: reference contents (content.h)
 *   content, piece   see content.h
 *   mail       one held transaction. head NULL: its bytes were let go, the record stays;
 *              head without a content: lost to damage. Strings: word id, or bytes in place.
 *   copy       one recipient of it. changed NULL: since the mail's arrival
 *   attempt    (mail, number): one release attempt; used: its token has been seen
 *   incident, audit   documents and deeds
 *   memory     packed records of storms, by K: what must not be forgotten for 400 days
 *   relay      documents of relays that misbehave or did
 *   count      numbers kept (count.h); id 0: of everything
 *   policy_version   the rules people put in force (hold_policy.h); part: JSON array of the mail it
 *              is for, empty: all; before, before_part: the versions that come back when it goes;
 *              deadline: to be confirmed by then; ended: when it was replaced or reverted;
 *              origin: where paths of its sets start; files: JSON object, what these sets held.
 *              Times: ms, 0: not
 *   day        copies by what a rule did with them, and would have done (hold_day.h); hour: since
 *              1970, or the first of its day; firsts: to recipients who had none that passed
 *   entry      what people decided for a while (hold_entry.h); until: the end it had or has; used,
 *              last: copies it decided about, and when; ended_by: who ended it, empty: nobody
 *   command    what people at other nodes had done here (hold_fellow.h), by whom, when
 *   fellow     incidents as the other nodes know them (hold_fellow.h)
 *   refusal    messages that were refused, and what became of them (hold_refusal.h)
 *
 * Ids of mails, copies, entries and refusals are stored by db_from_id. Invariant: what a row names
 * is there (hold_check proves it), save for the mails marked as damaged.
 */
#include "schema.h"

#include <stdio.h>

static const char *const steps[] = {
    /* 0 -> 1 */
    "CREATE TABLE setting(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE word(id INTEGER PRIMARY KEY, text BLOB NOT NULL UNIQUE, used INTEGER NOT NULL);"
    "CREATE TABLE recipient(id INTEGER PRIMARY KEY, raw BLOB NOT NULL, hash INTEGER NOT NULL,"
    " address BLOB NOT NULL, used INTEGER NOT NULL, UNIQUE(address, raw, hash));"
    "CREATE TABLE storm(id INTEGER PRIMARY KEY, k BLOB NOT NULL, incident TEXT NOT NULL,"
    " head INTEGER, body INTEGER, UNIQUE(k, incident));"
    "CREATE INDEX storm_incident ON storm(incident);"
    "CREATE TABLE content(id INTEGER PRIMARY KEY, tag INTEGER NOT NULL, digest BLOB NOT NULL,"
    " base INTEGER, refs INTEGER NOT NULL, form INTEGER NOT NULL, size INTEGER NOT NULL,"
    " bytes BLOB NOT NULL);"
    "CREATE INDEX content_tag ON content(tag);"
    "CREATE INDEX content_free ON content(refs) WHERE refs = 0;"
    "CREATE TABLE piece(id INTEGER PRIMARY KEY, content INTEGER NOT NULL, bytes BLOB NOT NULL);"
    "CREATE INDEX piece_content ON piece(content);"
    "CREATE TABLE mail(id INTEGER PRIMARY KEY, arrival INTEGER NOT NULL, storm INTEGER NOT NULL,"
    " head INTEGER, body INTEGER, size INTEGER NOT NULL, sha256 BLOB NOT NULL,"
    " door, client, client_name, helo, queue_id, auth, reversepath, reversepath_params,"
    " rule, reason, blamed, message_id, sender, subject);"
    "CREATE TABLE copy(id INTEGER PRIMARY KEY, mail INTEGER NOT NULL, storm INTEGER NOT NULL,"
    " recipient INTEGER NOT NULL, state INTEGER NOT NULL, first INTEGER NOT NULL,"
    " relation INTEGER NOT NULL, number INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,"
    " params, changed INTEGER, next_attempt INTEGER, actor, why, reply);"
    "CREATE INDEX copy_mail ON copy(mail);"
    "CREATE INDEX copy_storm ON copy(storm);"
    "CREATE INDEX copy_recipient ON copy(recipient);"
    "CREATE INDEX copy_state ON copy(state);"
    "CREATE INDEX copy_releasing ON copy(mail, next_attempt) WHERE state = 2;"
    "CREATE INDEX copy_released ON copy(changed) WHERE state = 3;"
    "CREATE INDEX copy_discarded ON copy(changed) WHERE state = 4;"
    "CREATE TABLE attempt(mail INTEGER, number INTEGER, used INTEGER NOT NULL,"
    " PRIMARY KEY(mail, number)) WITHOUT ROWID;"
    "CREATE TABLE incident(id TEXT PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL,"
    " document TEXT NOT NULL);"
    "CREATE INDEX incident_last ON incident(last);"
    "CREATE TABLE audit(id INTEGER PRIMARY KEY, at INTEGER NOT NULL, who TEXT NOT NULL,"
    " what TEXT NOT NULL, why TEXT NOT NULL);"
    "CREATE TABLE count(id INTEGER, what INTEGER, n INTEGER NOT NULL, PRIMARY KEY(id, what))"
    " WITHOUT ROWID;",
    /* 1 -> 2 */
    "CREATE TABLE memory(k BLOB PRIMARY KEY, key_id INTEGER NOT NULL, last INTEGER NOT NULL,"
    " bytes BLOB NOT NULL) WITHOUT ROWID;"
    "CREATE INDEX memory_last ON memory(last);"
    "CREATE TABLE relay(name TEXT PRIMARY KEY, last INTEGER NOT NULL, document TEXT NOT NULL)"
    " WITHOUT ROWID;"
    "CREATE INDEX relay_last ON relay(last);",
    /* 2 -> 3 */
    "CREATE TABLE policy_version(number INTEGER PRIMARY KEY, at INTEGER NOT NULL,"
    " who TEXT NOT NULL, why TEXT NOT NULL, state INTEGER NOT NULL, part TEXT NOT NULL,"
    " before INTEGER NOT NULL, before_part INTEGER NOT NULL, deadline INTEGER NOT NULL,"
    " confirmed INTEGER NOT NULL, confirmed_by TEXT NOT NULL, confirmed_why TEXT NOT NULL,"
    " ended INTEGER NOT NULL, ended_by TEXT NOT NULL, ended_why TEXT NOT NULL,"
    " origin TEXT NOT NULL, text BLOB NOT NULL, files TEXT NOT NULL);"
    "CREATE TABLE day(hour INTEGER, listener TEXT, rule TEXT, mode INTEGER, done INTEGER,"
    " advised INTEGER, copies INTEGER NOT NULL, firsts INTEGER NOT NULL,"
    " PRIMARY KEY(hour, listener, rule, mode, done, advised)) WITHOUT ROWID;"
    "CREATE TABLE entry(id INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind INTEGER NOT NULL,"
    " hold INTEGER NOT NULL, what TEXT NOT NULL, who TEXT NOT NULL, why TEXT NOT NULL,"
    " until INTEGER NOT NULL, used INTEGER NOT NULL, ended_by TEXT NOT NULL,"
    " ended_why TEXT NOT NULL, last INTEGER NOT NULL);"
    "CREATE TABLE refusal(id INTEGER PRIMARY KEY, key INTEGER NOT NULL, first INTEGER NOT NULL,"
    " last INTEGER NOT NULL, times INTEGER NOT NULL, outcome INTEGER NOT NULL,"
    " settled INTEGER NOT NULL, recipients INTEGER NOT NULL, door TEXT NOT NULL,"
    " client TEXT NOT NULL, client_name TEXT NOT NULL, sender TEXT NOT NULL, rcpts TEXT NOT NULL,"
    " queue_id TEXT NOT NULL, message_id TEXT NOT NULL, rule TEXT NOT NULL,"
    " reason TEXT NOT NULL);"
    "CREATE TABLE command(id TEXT PRIMARY KEY, who TEXT NOT NULL, at INTEGER NOT NULL)"
    " WITHOUT ROWID;"
    "CREATE TABLE fellow(node TEXT, id TEXT, first INTEGER NOT NULL, last INTEGER NOT NULL,"
    " document TEXT NOT NULL, PRIMARY KEY(id, node)) WITHOUT ROWID;"
    "CREATE INDEX fellow_last ON fellow(last);",
};
enum { VERSION = sizeof(steps) / sizeof(steps[0]) };

bool schema_damage(int code)
{
    int kind = code & 0xff;
    return kind == SQLITE_CORRUPT || kind == SQLITE_NOTADB || kind == SQLITE_FORMAT ||
           code == SQLITE_IOERR_SHORT_READ;
}

static enum schema_state fail(struct db *db, const char *path, char error[512])
{
    int code = db->raw ? sqlite3_extended_errcode(db->raw) : db->fault;
    snprintf(error, 512, "cannot use %s: %s", path,
             db->raw ? sqlite3_errmsg(db->raw) : sqlite3_errstr(code));
    db_close(db);
    return schema_damage(code) ? SCHEMA_DAMAGED : SCHEMA_REFUSED;
}

/* One step in one transaction, together with the version it leads to. */
static int step(struct db *db, int64_t from)
{
    char version[64];
    snprintf(version, sizeof(version), "PRAGMA user_version = %lld", (long long)from + 1);
    if (db_script(db, "BEGIN IMMEDIATE") || db_script(db, steps[from]) || db_script(db, version) ||
        db_script(db, "COMMIT")) {
        sqlite3_exec(db->raw, "ROLLBACK", NULL, NULL, NULL);
        return -1;
    }
    return 0;
}

static int prepare_new(struct db *db)
{
    char id[64];
    snprintf(id, sizeof(id), "PRAGMA application_id = %d", (int)SCHEMA_APPLICATION);
    return db_script(db, "PRAGMA page_size = 4096; PRAGMA auto_vacuum = INCREMENTAL") ||
                   db_script(db, id)
               ? -1
               : 0;
}

static int set_up(struct db *db, bool write)
{
    if (db_script(db, "PRAGMA temp_store = MEMORY; PRAGMA cache_size = -16000;"
                      "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;"))
        return -1;
    if (!write)
        return db_script(db, "PRAGMA query_only = ON");
    return db_script(db, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
                         "PRAGMA wal_autocheckpoint = 4000;"
                         "PRAGMA journal_size_limit = 67108864;");
}

static int facts(struct db *db, int64_t *application, int64_t *version, int64_t *tables)
{
    return db_ask(db, application, "PRAGMA application_id", "") == 1 &&
                   db_ask(db, version, "PRAGMA user_version", "") == 1 &&
                   db_ask(db, tables, "SELECT count(*) FROM sqlite_schema", "") == 1
               ? 0
               : -1;
}

static enum schema_state refuse(struct db *db, char error[512], const char *path, const char *why)
{
    snprintf(error, 512, "%s %s", path, why);
    db_close(db);
    return SCHEMA_REFUSED;
}

static enum schema_state check_version(struct db *db, const char *path, bool write, char error[512])
{
    int64_t application, version, tables;
    if (facts(db, &application, &version, &tables))
        return fail(db, path, error);
    bool fresh = application == 0 && version == 0 && tables == 0;
    if (!fresh && application != SCHEMA_APPLICATION)
        return refuse(db, error, path, "is an SQLite database of another program; move it away");
    if (version > VERSION)
        return refuse(db, error, path,
                      "was written by a newer breakwater; install that version again");
    if (!write)
        return version == VERSION
                   ? SCHEMA_READY
                   : refuse(db, error, path, "has not been prepared yet; start breakwaterd first");
    if (fresh && prepare_new(db))
        return fail(db, path, error);
    if (set_up(db, true))
        return fail(db, path, error);
    for (; version < VERSION; version++)
        if (step(db, version))
            return fail(db, path, error);
    return SCHEMA_READY;
}

enum schema_state schema_open(struct db *db, const char *path, bool write, char error[512])
{
    int flags = write ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READONLY;
    if (db_open(db, path, flags, error))
        return schema_damage(db->fault) ? SCHEMA_DAMAGED : SCHEMA_REFUSED;
    enum schema_state state = check_version(db, path, write, error);
    if (state != SCHEMA_READY || write)
        return state;
    return set_up(db, false) ? fail(db, path, error) : SCHEMA_READY;
}
