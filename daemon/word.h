/*
 * word.h - strings that repeat in a storm are stored once: words (client, rule, subject ...) and
 * recipients. A string seen for the first time is written out in place; only when it comes again
 * does it become a word, so that what never repeats costs no row and no index.
 *
 * Nothing counts the uses of a word. Each remembers about the newest mail that used it, and goes
 * when every mail in the database is younger.
 */
#ifndef WORD_H
#define WORD_H

#include "db.h"

enum { WORD_CACHE = 1024, WORD_SEEN = 4096, WORD_CUT = 512 };

/* A word or recipient in memory, found by the hash of its bytes. */
struct word_entry {
    uint64_t hash;
    uint64_t extra; /* recipients: their keyed hash */
    int64_t id;
    uint64_t used; /* as the database has it */
    uint8_t *text;
    size_t n;
};
struct words {
    struct db *db;
    uint64_t seed;
    struct word_entry word[WORD_CACHE], recipient[WORD_CACHE];
    uint64_t seen[WORD_SEEN]; /* hashes of strings met once */
};

void words_open(struct words *, struct db *);
void words_close(struct words *);
void words_forget(struct words *); /* after a rollback: ids may be void */

/* How mail's string is to be stored; out is valid as long as text. */
int word_of(struct words *, struct span text, uint64_t mail, struct db_word *out) MUSTCHECK;
/* raw: as received; hash: keyed. */
int recipient_of(struct words *, struct span raw, uint64_t hash, uint64_t mail,
                 int64_t *id) MUSTCHECK;
/* Removes what only mails older than `oldest` can have used. */
int words_sweep(struct words *, uint64_t oldest) MUSTCHECK;

#endif
