/*
 * change.h - what a person changes, as one keeper job: the change and its audit row are committed
 * together or not at all.
 */
#ifndef CHANGE_H
#define CHANGE_H

#include "id.h"
#include "json.h"
#include "keeper.h"
#include "store.h"

enum change_kind {
    CHANGE_RELEASE,
    CHANGE_DISCARD,
    CHANGE_UNDO, /* copies by id only */
    CHANGE_MODE,
    CHANGE_KINDS /* must be last */
};

/* Zero is an empty one. Strings are malloc'd, NULL: not given; freed by change_free. */
struct change {
    struct job job; /* must be first; private */
    enum change_kind kind;
    char *who, *why;
    int64_t now;
    bool dry;            /* say what would change, change nothing */
    const char *command; /* borrowed: the id under which it is done once; NULL: none */

    /* which copies: by id, or all held ones that match */
    uint64_t *ids;
    size_t nids;
    char *storm, *rcpt;
    char *rule;          /* release: those held by the rule of this name ... */
    int64_t since;       /* ... since then (ms; 0: ever) ... */
    bool first;          /* ... whose recipients had none */
    bool one_each;       /* release: one copy for each recipient of the storm who got none */
    struct store *store; /* one_each: who got one already; may be NULL */

    enum mode mode; /* CHANGE_MODE: the new one; MODE_COUNT with only: none of its own any more */
    char *only;     /* CHANGE_MODE: of this listener only */

    /* result, when done runs */
    int changed;       /* copies (or 1 for the mode); -1: nothing was changed, the disk refused */
    uint64_t left_out; /* discard by storm or recipient: copies that may be the only ones */
    bool repeated;     /* the command had been carried out already: nothing was changed now */
    json_t *refused;   /* array of {"id","detail"}: the ids that could not be changed */
    void (*done)(struct change *); /* in home's loop; the change is the caller's again */
    void *arg;
};
struct change *change_new(enum change_kind);
void change_free(struct change **);
/* Fills in what a request's body says: {"ids":[..]} or {"storm","one_per_recipient" or "all"},
 * {"rcpt"} or
 * {"rule","since","first"}, {"mode", "only": a listener}, "reason", "dry_run". NULL: the change is
 * complete; else a sentence about what is wrong. A member that the kind does not know is wrong: a
 * misspelt "dry_run" releases nothing.
 */
const char *change_read(struct change *, json_t *body) MUSTCHECK;
/* An address as people give it: <> around it are no part of it. malloc'd; NULL stays NULL. */
char *change_address(const char *text);

/* The name of the mode to be: "same" for MODE_COUNT. */
const char *change_mode_name(enum mode);

void change_submit(struct change *, struct keeper *, struct mailbox *home);

#endif
