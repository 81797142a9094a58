/*
 * ctl.h - one call of breakwaterctl: what was asked, how it asks the daemon, and the commands.
 *
 * Exit: 0 ok, 1 refused, 2 usage, 3 daemon unreachable, 4 done in part.
 */
#ifndef CTL_H
#define CTL_H

#include "ctl_client.h"
#include "ctl_print.h"
#include "id.h"

enum ctl_exit { CTL_OK, CTL_REFUSED, CTL_USAGE, CTL_UNREACHABLE, CTL_PARTIAL };

enum { CTL_ONLY = 32 };

struct ctl {
    struct arena *arena;
    const char *socket, *conf;
    bool json, dry, yes, one_each, all, headers, text, message, undo, first, keep_learned, colour,
        strict, everywhere;
    const char *reason, *storm, *rcpt, *sender, *state, *from, *after, *since, *limit, *config_dir,
        *rule, *relay, *lasts, *within, *node;
    const char *only[CTL_ONLY]; /* --only, in order */
    size_t nonly;
    size_t nargs;
    char **args;
};

/* "breakwaterctl: ..." to stderr. */
void ctl_complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Asks; CTL_OK when there is a good reply in r, else the exit status, after a sentence. */
int ctl_ask(const struct ctl *, const struct ctl_target *, const json_t *body, struct ctl_reply *r);
void ctl_json(const json_t *);      /* one line to stdout */
void ctl_json_each(const json_t *); /* the same for each member of an array */

/* What --since says, an age or a date, as seconds since 1970; NULL: nothing, or it is neither. */
const char *ctl_since(const struct ctl *);
bool ctl_since_good(const struct ctl *); /* false after a sentence: it is neither */

/* What explain says of refusals. */
void ctl_tell_refusals(const struct ctl *, const json_t *list);

/* Members of a document as text for people. max: characters shown, 0: all. */
const char *ctl_count(const struct ctl *, const json_t *, const char *name);
const char *ctl_text(const struct ctl *, const json_t *, const char *name, size_t max);
const char *ctl_time(const struct ctl *, const json_t *, const char *name);

/* The commands; each returns the exit status. */
typedef int ctl_run_fn(const struct ctl *);
ctl_run_fn ctl_status, ctl_storms, ctl_show, ctl_held, ctl_explain, ctl_mode_now; /* ctl_read.c */
ctl_run_fn ctl_policy;                                                            /* ctl_policy.c */
ctl_run_fn ctl_relays;                                                            /* ctl_relays.c */
ctl_run_fn ctl_guard;                                                             /* ctl_guard.c */
ctl_run_fn ctl_release, ctl_discard, ctl_undo, ctl_undo_rule, ctl_mode;           /* ctl_change.c */
ctl_run_fn ctl_refusals, ctl_allow, ctl_hold, ctl_entries;                        /* ctl_ledger.c */
ctl_run_fn ctl_setup;                                                             /* ctl_setup.c */
ctl_run_fn ctl_balance, ctl_report; /* ctl_figures.c */

/* Of several nodes (ctl_fleet.c). Who did not answer, and what is missing therefore: CTL_PARTIAL,
 * or CTL_OK. What became of each node's part of a change, likewise. */
int ctl_silent(const struct ctl *, const json_t *reply, const char *missing);
int ctl_nodes(const struct ctl *, const json_t *reply);
bool ctl_answered(const json_t *reply); /* did anybody do his part? */

/* What people must know of the guard before anything else; nothing while it only watches. */
void ctl_guard_brief(const struct ctl *, const json_t *guard);

#endif
