/* word.c - see word.h. */
#include "word.h"

#include <openssl/rand.h>
#include <stdlib.h>

/* How far a word's memory of its newest mail may lag behind: a day, in ids (22 bits a ms). */
#define WORD_SLACK ((UINT64_C(86400000)) << 22)

void words_open(struct words *w, struct db *db)
{
    *w = (struct words){.db = db};
    if (RAND_bytes((unsigned char *)&w->seed, sizeof w->seed) != 1)
        abort();
}

static void forget(struct word_entry *e)
{
    for (size_t i = 0; i < WORD_CACHE; i++) {
        free(e[i].text);
        e[i] = (struct word_entry){0};
    }
}

void words_forget(struct words *w)
{
    forget(w->word);
    forget(w->recipient);
}

void words_close(struct words *w)
{
    words_forget(w);
}

/* Seeded, not a MAC: a collision made on purpose costs a look-up in the database, no more. */
static uint64_t hash_of(const struct words *w, struct span s)
{
    uint64_t h = w->seed ^ s.n;
    for (size_t i = 0; i < s.n; i++)
        h = (h ^ s.p[i]) * UINT64_C(0x9E3779B97F4A7C15);
    h ^= h >> 32;
    return h ? h : 1;
}

static bool entry_is(const struct word_entry *e, uint64_t hash, uint64_t extra, struct span text)
{
    return e->id && e->hash == hash && e->extra == extra && span_eq(span_of(e->text, e->n), text);
}

static void remember(struct word_entry *e, struct word_entry fresh, struct span text)
{
    free(e->text);
    *e = fresh;
    e->n = text.n;
    e->text = malloc(text.n + 1);
    if (!e->text)
        abort();
    if (text.n)
        memcpy(e->text, text.p, text.n);
}

/* Tells the database that `mail` uses the entry, once a day of mails. */
static int touch(struct words *w, struct word_entry *e, uint64_t mail, const char *sql)
{
    if (mail <= e->used || mail - e->used < WORD_SLACK)
        return 0;
    if (db_run(w->db, sql, "ld", e->id, mail) < 0)
        return -1;
    e->used = mail;
    return 0;
}

static int touch_word(struct words *w, struct word_entry *e, uint64_t mail)
{
    return touch(w, e, mail, "UPDATE word SET used = ?2 WHERE id = ?1");
}

static int touch_recipient(struct words *w, struct word_entry *e, uint64_t mail)
{
    return touch(w, e, mail, "UPDATE recipient SET used = ?2 WHERE id = ?1");
}

/* The word's entry, read from the database. 1, 0: is none, -1. */
static int word_read(struct words *w, struct word_entry *e, uint64_t hash, struct span text)
{
    sqlite3_stmt *q = db_bind(w->db, "SELECT id, used FROM word WHERE text = ?", "b", text);
    int rc = q ? db_step(w->db, q) : -1;
    if (rc != 1)
        return rc;
    remember(
        e, (struct word_entry){.hash = hash, .id = sqlite3_column_int64(q, 0), .used = db_id(q, 1)},
        text);
    sqlite3_reset(q);
    return 1;
}

static int word_add(struct words *w, struct word_entry *e, uint64_t hash, struct span text,
                    uint64_t mail)
{
    if (db_run(w->db, "INSERT INTO word(text, used) VALUES(?, ?)", "bd", text, mail) < 0)
        return -1;
    remember(e,
             (struct word_entry){
                 .hash = hash, .id = sqlite3_last_insert_rowid(w->db->raw), .used = mail},
             text);
    return 0;
}

int word_of(struct words *w, struct span text, uint64_t mail, struct db_word *out)
{
    *out = (struct db_word){0};
    if (text.n == 0)
        return 0;
    out->text = text;
    uint64_t hash = hash_of(w, text);
    struct word_entry *e = &w->word[hash % WORD_CACHE];
    if (!entry_is(e, hash, 0, text)) {
        int rc = word_read(w, e, hash, text);
        if (rc < 0)
            return -1;
        uint64_t *seen = &w->seen[hash % WORD_SEEN];
        if (rc == 0 && *seen != hash) {
            *seen = hash;
            return 0;
        }
        if (rc == 0 && word_add(w, e, hash, text, mail))
            return -1;
    }
    out->id = e->id;
    return touch_word(w, e, mail);
}

/* The address inside raw, lower-cased into out. */
static struct span address_of(struct span raw, uint8_t *out, size_t cap)
{
    raw = span_head(span_bare(raw, '<', '>'), cap);
    for (size_t i = 0; i < raw.n; i++)
        out[i] = byte_lower(raw.p[i]);
    return span_of(out, raw.n);
}

static int recipient_read(struct words *w, struct word_entry *e, uint64_t hash, uint64_t extra,
                          struct span raw, struct span address)
{
    sqlite3_stmt *q =
        db_bind(w->db, "SELECT id, used FROM recipient WHERE address = ? AND raw = ? AND hash = ?",
                "bbu", address, raw, extra);
    int rc = q ? db_step(w->db, q) : -1;
    if (rc != 1)
        return rc;
    remember(
        e,
        (struct word_entry){
            .hash = hash, .extra = extra, .id = sqlite3_column_int64(q, 0), .used = db_id(q, 1)},
        raw);
    sqlite3_reset(q);
    return 1;
}

static int recipient_add(struct words *w, struct word_entry *e, uint64_t hash, uint64_t extra,
                         struct span raw, struct span address, uint64_t mail)
{
    if (db_run(w->db, "INSERT INTO recipient(raw, hash, address, used) VALUES(?, ?, ?, ?)", "bubd",
               raw, extra, address, mail) < 0)
        return -1;
    remember(e,
             (struct word_entry){.hash = hash,
                                 .extra = extra,
                                 .id = sqlite3_last_insert_rowid(w->db->raw),
                                 .used = mail},
             raw);
    return 0;
}

int recipient_of(struct words *w, struct span raw, uint64_t extra, uint64_t mail, int64_t *id)
{
    uint64_t hash = hash_of(w, raw);
    struct word_entry *e = &w->recipient[hash % WORD_CACHE];
    if (!entry_is(e, hash, extra, raw)) {
        uint8_t lower[WORD_CUT];
        struct span address = address_of(raw, lower, sizeof lower);
        int rc = recipient_read(w, e, hash, extra, raw, address);
        if (rc < 0 || (rc == 0 && recipient_add(w, e, hash, extra, raw, address, mail)))
            return -1;
    }
    *id = e->id;
    return touch_recipient(w, e, mail);
}

int words_sweep(struct words *w, uint64_t oldest)
{
    if (oldest <= WORD_SLACK)
        return 0;
    if (db_run(w->db, "DELETE FROM word WHERE used < ?", "d", oldest - WORD_SLACK) < 0 ||
        db_run(w->db, "DELETE FROM recipient WHERE used < ?", "d", oldest - WORD_SLACK) < 0)
        return -1;
    words_forget(w);
    return 0;
}
