/* ctl_change.c - the commands that change something: release, discard, undo, mode. */
#include <stdlib.h>
#include <unistd.h>

#include "ctl.h"

/* ---- release, discard, undo ---- */

/* Asks a person before something large: CTL_OK, or the exit status. Scripts must have said -y. */
static int confirm(const struct ctl *ctl, const char *verb)
{
    if (!ctl->all || ctl->yes || ctl->dry)
        return CTL_OK;
    if (!isatty(STDIN_FILENO)) {
        ctl_complain("%s --all wants -y when nobody can be asked; -n shows what it would do", verb);
        return CTL_USAGE;
    }
    printf("Really %s every held copy of %s? [y/N] ", verb,
           print_text(ctl->arena,
                      ctl->storm  ? ctl->storm
                      : ctl->rcpt ? ctl->rcpt
                                  : ctl->rule,
                      0));
    fflush(stdout);
    char answer[16] = "";
    if (fgets(answer, sizeof answer, stdin) && (answer[0] == 'y' || answer[0] == 'Y'))
        return CTL_OK;
    puts("Nothing was changed.");
    return CTL_REFUSED;
}

static void set_text(json_t *o, const char *name, const char *value)
{
    if (value)
        json_object_set_new(o, name, json_text_of(value));
}

static void set_yes(json_t *o, const char *name, bool yes)
{
    if (yes)
        json_object_set_new(o, name, json_true());
}

/* The body of a change; NULL after a sentence if the arguments make none. */
static json_t *change_body(const struct ctl *ctl)
{
    json_t *body = json_object(), *ids = json_array();
    for (size_t i = 0; i < ctl->nargs; i++) {
        uint64_t id;
        if (!id_parse(&id, span_str(ctl->args[i]))) {
            ctl_complain("\"%s\" is not the id of a copy (13 letters and digits)%s",
                         print_text(ctl->arena, ctl->args[i], 64),
                         ctl->args[i][0] == 'S' ? "; a storm is named with --storm" : "");
            json_decref(ids);
            json_decref(body);
            return NULL;
        }
        json_array_append_new(ids, json_string(ctl->args[i]));
    }
    if (ctl->nargs)
        json_object_set(body, "ids", ids);
    json_decref(ids);
    set_text(body, "storm", ctl->storm);
    set_text(body, "rcpt", ctl->rcpt);
    set_text(body, "rule", ctl->rule);
    if (ctl_since(ctl))
        json_object_set_new(body, "since", json_integer(strtoll(ctl_since(ctl), NULL, 10)));
    set_yes(body, "first", ctl->first);
    set_text(body, "reason", ctl->reason);
    set_yes(body, "one_per_recipient", ctl->one_each);
    set_yes(body, "all", ctl->all);
    set_yes(body, "dry_run", ctl->dry);
    set_text(body, "node", ctl->node);
    return body;
}

/* What a change says when it is done. */
struct words {
    const char *one, *many; /* "1 copy ...", "2 copies ..." */
    const char *would;      /* "... would be" */
};

static int end_change(const struct ctl *ctl, const json_t *j, const struct words *w)
{
    uint64_t asked = json_get_num(j, "asked"), changed = json_get_num(j, "changed");
    const json_t *refused = json_object_get(j, "refused");
    const char *copies = print_some(ctl->arena, changed, "copy", "copies");
    if (ctl->json)
        ctl_json(j);
    else if (changed && ctl->dry)
        printf("%s would be %s; nothing was changed.\n", copies, w->would);
    else if (changed)
        printf("%s %s.\n", copies, changed == 1 ? w->one : w->many);
    else if (asked == 0 && ctl_answered(j))
        puts(ctl->one_each ? "No copy is needed: every recipient of this storm got one, or has one "
                             "on the way."
                           : "No held copy matches; nothing was changed.");
    for (size_t i = 0; !ctl->json && i < json_array_size(refused); i++) {
        const json_t *x = json_array_get(refused, i);
        ctl_complain("%s: %s", ctl_text(ctl, x, "id", 0), ctl_text(ctl, x, "detail", 0));
    }
    uint64_t left = json_get_num(j, "left_out");
    if (!ctl->json && left)
        printf("%s left out: each may be the only one its recipient could get. Discard them by "
               "id.\n",
               print_some(ctl->arena, left, "copy was", "copies were"));
    bool later = ctl_nodes(ctl, j) != CTL_OK;
    if (changed == asked && !later)
        return CTL_OK;
    return changed || later ? CTL_PARTIAL : CTL_REFUSED;
}

static int change(const struct ctl *ctl, const char *verb, const struct words *w)
{
    struct ctl_target t;
    struct ctl_reply r;
    json_t *body = change_body(ctl);
    if (!body)
        return CTL_USAGE;
    int rc = confirm(ctl, verb);
    if (rc != CTL_OK) {
        json_decref(body);
        return rc;
    }
    ctl_target(&t, ctl->arena, verb);
    rc = ctl_ask(ctl, &t, body, &r);
    if (rc == CTL_OK)
        rc = end_change(ctl, r.json, w);
    ctl_reply_free(&r);
    json_decref(body);
    return rc;
}

/* Which copies? Exactly one way of saying it. */
static bool scope_good(const struct ctl *ctl, const char *verb)
{
    if ((ctl->nargs > 0) + (ctl->storm || ctl->rcpt || ctl->rule) != 1) {
        ctl_complain("%s: say which copies: their ids, or --storm S, or --rcpt ADDRESS%s", verb,
                     strcmp(verb, "release") == 0 ? ", or --rule NAME" : "");
        return false;
    }
    if (!ctl_since_good(ctl))
        return false;
    if (ctl->storm && !ctl->rcpt && ctl->one_each + ctl->all != 1) {
        ctl_complain("%s --storm wants %s--all", verb,
                     strcmp(verb, "release") == 0 ? "--one-per-recipient or " : "");
        return false;
    }
    return true;
}

int ctl_release(const struct ctl *ctl)
{
    static const struct words w = {"is on its way to its recipient",
                                   "are on their way to their recipients", "released"};
    return scope_good(ctl, "release") ? change(ctl, "release", &w) : CTL_USAGE;
}

int ctl_discard(const struct ctl *ctl)
{
    static const struct words w = {"is in the bin; undo brings it back for 30 days",
                                   "are in the bin; undo brings them back for 30 days",
                                   "put in the bin"};
    if (!scope_good(ctl, "discard"))
        return CTL_USAGE;
    if (!ctl->reason || !*ctl->reason) {
        ctl_complain("discard wants --reason \"...\": it is kept with the copies");
        return CTL_USAGE;
    }
    return change(ctl, "discard", &w);
}

int ctl_undo(const struct ctl *ctl)
{
    static const struct words w = {"is held again", "are held again", "held again"};
    return change(ctl, "undo", &w);
}

/* ---- a wrong rule ---- */

static int tell_undone(const struct ctl *ctl, const json_t *j)
{
    uint64_t n = json_get_num(j, "changed");
    const char *rule = ctl_text(ctl, j, "rule", 0), *not = json_get_str(j, "learned_detail");
    bool learned = !*not || ctl->keep_learned;
    printf("%s that rule %s held since %s %s.\n", print_some(ctl->arena, n, "copy", "copies"), rule,
           ctl_time(ctl, j, "since"),
           ctl->dry ? "would be released"
           : n == 1 ? "is on its way to its recipient"
                    : "are on their way to their recipients");
    if (!*not )
        printf("What was learned - counters, baselines, relays - %s as it was at %s.\n",
               ctl->dry ? "would be" : "is", ctl_time(ctl, j, "learned"));
    else if (!ctl->keep_learned)
        ctl_complain("what was learned since stays: %s", print_text(ctl->arena, not, 0));
    if (json_get_yes(j, "in_force"))
        printf("A rule of this name is still in force: see breakwaterctl policy rollback.\n");
    if (ctl->dry)
        puts("Nothing was changed.");
    return learned ? CTL_OK : CTL_PARTIAL;
}

int ctl_undo_rule(const struct ctl *ctl)
{
    struct ctl_target t;
    struct ctl_reply r;
    if (!ctl->since) {
        ctl_complain("undo-rule wants --since: when did the rule begin to be wrong?");
        return CTL_USAGE;
    }
    if (!ctl->reason || !*ctl->reason) {
        ctl_complain("undo-rule wants --reason \"...\": it is written down");
        return CTL_USAGE;
    }
    if (!ctl_since_good(ctl))
        return CTL_USAGE;
    json_t *body = json_object();
    set_text(body, "rule", ctl->args[0]);
    json_object_set_new(body, "since", json_integer(strtoll(ctl_since(ctl), NULL, 10)));
    set_yes(body, "first", ctl->first);
    set_yes(body, "keep_learned", ctl->keep_learned);
    set_text(body, "reason", ctl->reason);
    set_yes(body, "dry_run", ctl->dry);
    ctl_target(&t, ctl->arena, "undo-rule");
    int rc = ctl_ask(ctl, &t, body, &r);
    if (rc == CTL_OK && ctl->json)
        ctl_json(r.json);
    else if (rc == CTL_OK)
        rc = tell_undone(ctl, r.json);
    ctl_reply_free(&r);
    json_decref(body);
    return rc;
}

/* ---- mode ---- */

static int set_mode(const struct ctl *ctl, const char *mode)
{
    struct ctl_target t;
    struct ctl_reply r;
    if (!ctl->reason || !*ctl->reason) {
        ctl_complain("mode %s wants --reason \"...\": it is written down",
                     print_text(ctl->arena, mode, 16));
        return CTL_USAGE;
    }
    if (ctl->nonly > 1) {
        ctl_complain("mode takes one --only LISTENER at a time");
        return CTL_USAGE;
    }
    json_t *body = json_object();
    set_text(body, "mode", mode);
    set_text(body, "only", ctl->nonly ? ctl->only[0] : NULL);
    set_text(body, "node", ctl->node);
    set_yes(body, "everywhere", ctl->everywhere);
    set_text(body, "reason", ctl->reason);
    set_yes(body, "dry_run", ctl->dry);
    ctl_target(&t, ctl->arena, "mode");
    int rc = ctl_ask(ctl, &t, body, &r);
    if (rc == CTL_OK && ctl->json)
        ctl_json(r.json);
    else if (rc == CTL_OK)
        printf("The mode%s%s %s %s%s.\n", ctl->nonly ? " of listener " : "",
               ctl->nonly ? print_text(ctl->arena, ctl->only[0], 64) : "",
               ctl->dry ? "would be" : "is now",
               strcmp(mode, "same") == 0 ? "that of all others" : print_text(ctl->arena, mode, 16),
               ctl->dry ? "; nothing was changed" : "");
    if (rc == CTL_OK)
        rc = ctl_nodes(ctl, r.json);
    ctl_reply_free(&r);
    json_decref(body);
    return rc;
}

int ctl_mode(const struct ctl *ctl)
{
    if (ctl->nonly && !ctl->nargs) {
        ctl_complain("mode --only LISTENER wants the mode: monitor, enforce, bypass or same");
        return CTL_USAGE;
    }
    return ctl->nargs ? set_mode(ctl, ctl->args[0]) : ctl_mode_now(ctl);
}
