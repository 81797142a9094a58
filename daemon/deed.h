/*
 * deed.h - one change of the policy in force: asked for by a person, a SIGHUP or the clock,
 * checked, and written down on the keeper thread. What it then does to the rules in force:
 * versions.h.
 *
 * The rows decide: of two deeds that come at once the second one sees what the first one did. A
 * deed may be run twice.
 */
#ifndef DEED_H
#define DEED_H

#include "hold_policy.h"
#include "json.h"
#include "keeper.h"
#include "lint.h"
#include "rules.h"

enum {
    VERSION_REASON = 500,           /* bytes */
    VERSION_PARTS = 32,             /* of one version */
    VERSION_WITHIN = 7 * 24 * 3600, /* seconds a version may wait to be confirmed */
};
#define DEED_SEEN "policy_file" /* setting: digest of the policy file at the last look */

struct versions;

enum deed_kind {
    DEED_APPLY,
    DEED_CONFIRM,
    DEED_ROLLBACK,
    DEED_RELOAD, /* private: a SIGHUP */
    DEED_EXPIRE, /* private: the clock */
    DEED_KINDS   /* must be last */
};

/* What becomes of the rules in force when the deed is durable. Private. */
enum deed_effect {
    EFFECT_NONE,
    EFFECT_WHOLE,     /* `policy` everywhere, none on a part */
    EFFECT_PART,      /* `policy` on `part` */
    EFFECT_NO_PART,   /* none on a part */
    EFFECT_BACK,      /* the rules before the unconfirmed version */
    EFFECT_CONFIRMED, /* they stay */
    EFFECT_REFRESH,   /* the same versions, their sets read again */
};

/* One change that is asked for, and what became of it. Strings are malloc'd, NULL: not given. */
struct deed {
    struct job job; /* must be first; private */
    enum deed_kind kind;
    char *who, *why;
    int64_t now;
    bool dry;   /* say what would change, change nothing */
    bool force; /* apply: although the rules would stop everybody's mail */

    /* apply */
    char *text;     /* the policy */
    char *path;     /* of the file it is from; its sets' relative paths start beside it */
    json_t *files;  /* what its set files hold: {path as in the policy: text} */
    json_t *only;   /* array of "listener=NAME", "domain=NAME", "node=NAME"; NULL: all mail */
    int64_t within; /* ms until it must be confirmed; -1: as configured */

    uint64_t version; /* confirm, rollback: which one is meant; 0: not said */

    /* result, when done runs */
    int status;                  /* 200; else HTTP's for what is wrong, and a sentence in `fault` */
    char fault[600];             /* of a mistake in the text it begins with LINE:COLUMN: */
    json_t *findings;            /* apply: array of {"fault","line","rule","detail"} (lint.h) */
    bool changed;                /* false: it was so already, or dry */
    uint64_t number;             /* the version this was about; 0: it would get one */
    uint64_t in_force;           /* everywhere, when it is done (or would be) */
    uint64_t base;               /* apply: the version it changes; 0: none */
    int64_t deadline;            /* of `number`, wall clock, ms; 0: needs no confirmation */
    void (*done)(struct deed *); /* in home's loop; the deed is the caller's again */
    struct mailbox *home;        /* NULL: the keeper's thread */
    void *arg;

    struct versions *versions; /* what follows is private */
    char *domain;              /* one of ours, for lint */
    bool second;               /* whoever confirms must not be the author */
    enum deed_effect effect;
    struct policy *policy, *trial;
    char *part, *files_text;
    int64_t wait; /* ms until the deadline */
    bool odd;     /* a reload whose rules lint refuses, if they are new */
    char look[65];
    char author[100], reason[VERSION_REASON + 1]; /* of `number`, for the log */
};
/* What parts of the mail there are here. */
struct deed_place {
    char *node;
    char **listeners;
    size_t nlisteners;
};

struct deed *deed_new(enum deed_kind);
void deed_free(struct deed **);
/* What is wrong with it. */
__attribute__((format(printf, 3, 4))) void deed_refuse(struct deed *, int status, const char *fmt,
                                                       ...);

/* Of an apply, before the keeper is asked: its parts, the policy compiled, what is odd about it. */
void deed_read_parts(struct deed *, const struct deed_place *);
void deed_compile(struct deed *);
void deed_look_over(struct deed *);

/* {"fault","line","rule","detail"} */
json_t *deed_finding_json(const struct lint_finding *);

/* The rest is on the keeper thread, in its transaction: a job's run. */
int deed_run(struct hold *, struct job *);
/* Stores the deed's text as a new version, which replaces those that are live. */
int deed_store(struct hold *, struct deed *, const struct policies_live *) MUSTCHECK;
/* The unconfirmed version goes, those before it come back. */
int deed_take_back(struct hold *, struct deed *, const struct policy_row *,
                   const char *verb) MUSTCHECK;
/* Notes the policy file's digest, if the deed has one. */
int deed_look_at_file(struct hold *, const struct deed *) MUSTCHECK;

/* A stored policy with the sets that are on the disk now; where these cannot be used, or would stop
 * everybody's mail, with what was stored. NULL and *error. */
struct policy *deed_policy_of_row(struct arena *, const struct policy_row *, struct policy_error *);
/* -1: the database cannot be read; else *out, NULL after a sentence in why. */
int deed_policy(struct hold *, uint64_t number, struct policy **out, char why[400]) MUSTCHECK;
/* Takes the policy's reference; part: as stored. */
void deed_set_trial(struct rules *, struct policy *, uint64_t number, const char *part);

#endif
