/* ctl_relays.c - breakwaterctl relays: who misbehaves, and a person's word that one is fixed. */
#include "ctl.h"

/* ---- the list ---- */

static const char *last_incident(const struct ctl *ctl, const json_t *row)
{
    const json_t *list = json_object_get(row, "incidents");
    const char *id = json_string_value(json_array_get(list, 0));
    size_t more = json_array_size(list);
    if (!id)
        return "-";
    return more > 1 ? arena_printf(ctl->arena, "%s +%zu", print_text(ctl->arena, id, 16), more - 1)
                    : print_text(ctl->arena, id, 16);
}

static void print_relays(const struct ctl *ctl, const json_t *list)
{
    static const char *const heads[] = {"RELAY",   "STATE",  "SINCE", "LAST SEEN",
                                        ">COPIES", "STORMS", "GRADE", NULL};
    struct table t;
    table_begin(&t, ctl->arena, ctl->colour, heads);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *j = json_array_get(list, i);
        bool bad = strcmp(json_get_str(j, "state"), "misbehaving") == 0;
        struct cell *row = table_row(&t);
        row[0].text = ctl_text(ctl, j, "relay", 0);
        row[1].text = arena_printf(ctl->arena, "%s%s", ctl_text(ctl, j, "state", 16),
                                   json_get_yes(j, "late") ? ", late" : "");
        row[1].paint = bad ? PAINT_ALARM : PAINT_NONE;
        row[2].text = ctl_time(ctl, j, "since");
        row[3].text = ctl_time(ctl, j, "last");
        row[4].text = ctl_count(ctl, j, "detours");
        row[5].text = last_incident(ctl, j);
        row[6].text = ctl_text(ctl, j, "grade", 48);
    }
    if (t.nrows)
        table_print(&t, stdout);
    else
        puts(ctl->all ? "No relay has misbehaved."
                      : "No relay misbehaves; --all lists those that did.");
}

static int list(const struct ctl *ctl)
{
    struct ctl_target t;
    struct ctl_reply r;
    ctl_target(&t, ctl->arena, "relays");
    ctl_query(&t, "all", ctl->all ? "1" : NULL);
    int rc = ctl_ask(ctl, &t, NULL, &r);
    const json_t *relays = json_object_get(r.json, "relays");
    if (rc == CTL_OK && ctl->json)
        ctl_json_each(relays);
    else if (rc == CTL_OK)
        print_relays(ctl, relays);
    ctl_reply_free(&r);
    return rc;
}

/* ---- a person's word ---- */

static void print_word(const struct ctl *ctl, const json_t *j, bool fixed)
{
    const char *relay = ctl_text(ctl, j, "relay", 0);
    if (ctl->dry)
        printf("%s would be %s; nothing was changed.\n", relay, ctl_text(ctl, j, "state", 16));
    else if (fixed)
        printf("%s is said to be fixed. With its next mail it is on probation; the first further "
               "copy through it ends that.\n",
               relay);
    else
        printf("%s misbehaves, as before.\n", relay);
}

static int word(const struct ctl *ctl, bool fixed)
{
    struct ctl_target t;
    struct ctl_reply r;
    if (!ctl->reason || !*ctl->reason) {
        ctl_complain("relays %s wants --reason \"...\": it is written down", ctl->args[0]);
        return CTL_USAGE;
    }
    json_t *body = json_object();
    json_object_set_new(body, "relay", json_text_of(ctl->args[1]));
    json_object_set_new(body, "fixed", json_boolean(fixed));
    json_object_set_new(body, "reason", json_text_of(ctl->reason));
    json_object_set_new(body, "dry_run", json_boolean(ctl->dry));
    ctl_target(&t, ctl->arena, "relays");
    int rc = ctl_ask(ctl, &t, body, &r);
    if (rc == CTL_OK && ctl->json)
        ctl_json(r.json);
    else if (rc == CTL_OK)
        print_word(ctl, r.json, fixed);
    if (rc == CTL_OK)
        rc = ctl_nodes(ctl, r.json);
    ctl_reply_free(&r);
    json_decref(body);
    return rc;
}

int ctl_relays(const struct ctl *ctl)
{
    if (ctl->nargs == 0)
        return list(ctl);
    bool fixed = strcmp(ctl->args[0], "said-fixed") == 0;
    if (ctl->nargs != 2 || (!fixed && strcmp(ctl->args[0], "not-fixed") != 0)) {
        ctl_complain("relays [--all], or relays said-fixed RELAY, or relays not-fixed RELAY");
        return CTL_USAGE;
    }
    return word(ctl, fixed);
}
