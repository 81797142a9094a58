/*
 * hold_own.h - the inside of struct hold, shared by hold.c (put, bytes), hold_view.c (reading) and
 * hold_deed.c (release, discard, undo, purge).
 */
#ifndef HOLD_OWN_H
#define HOLD_OWN_H

#include <sys/types.h>

#include "content.h"
#include "word.h"

struct hold_filter;

enum { HOLD_STORMS = 64 };

/* One (K, incident), as the database has it. */
struct hold_storm {
    int64_t id;
    struct key k;
    char incident[32];
    int64_t reference[2]; /* head, body; 0: none yet */
};

struct hold {
    struct db db;
    bool write;
    bool spoiled; /* a put broke off halfway: this transaction must not be committed */
    char *path;   /* of hold.db */
    ino_t inode;  /* of a view: the file it reads */
    int changes;  /* rows changed by this connection when the transaction began */
    struct counts counts;
    struct words words;
    struct contents contents;
    EVP_MD_CTX *sha, *sha_head;            /* of the message being put, of its header */
    struct hold_storm storms[HOLD_STORMS]; /* by their K, the latest */
};

/* Removes a mail that has no copies left, its contents and attempts. */
int hold_mail_remove(struct hold *, uint64_t mail) MUSTCHECK;
/* The storm gives up its reference contents. */
int hold_storm_unrefer(struct hold *, int64_t storm) MUSTCHECK;
/* Removes a storm that has no copies left. */
int hold_storm_remove(struct hold *, int64_t storm) MUSTCHECK;
/* SELECT ... FROM copy c, mail m, storm s, recipient r for what the filter asks, in the order of
 * ids. limit 0: all. NULL on failure; finalize it. */
sqlite3_stmt *hold_select(struct hold *, const char *columns, const struct hold_filter *,
                          size_t limit) MUSTCHECK;
/* A view turns to the new file when the one it reads was set aside as damaged. */
void hold_follow(struct hold *);
/* Several reads that must agree; nested in a transaction they do nothing. */
bool hold_view_begin(struct hold *);
void hold_view_end(struct hold *, bool begun);

#endif
