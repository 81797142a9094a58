/* ctl_ledger.c - breakwaterctl refusals, and what people decide for a while: allow, hold, entries.
 */
#include <stdlib.h>

#include "ctl.h"

enum { ADDRESS_SHOWN = 40, REASON_SHOWN = 60 };

/* ---- refusals ---- */

static const char *recipients(const struct ctl *ctl, const json_t *j)
{
    const char *first = json_string_value(json_array_get(json_object_get(j, "rcpts"), 0));
    const char *text = print_text(ctl->arena, first ? first : "", ADDRESS_SHOWN);
    uint64_t n = json_get_num(j, "recipients");
    return n > 1 ? arena_printf(ctl->arena, "%s +%llu", text, (unsigned long long)n - 1) : text;
}

static const char *sender(const struct ctl *ctl, const json_t *j)
{
    const char *s = json_get_str(j, "sender");
    return *s ? print_text(ctl->arena, s, ADDRESS_SHOWN) : "<>";
}

static const char *relay(const struct ctl *ctl, const json_t *j)
{
    return arena_printf(ctl->arena, "%s[%s]", ctl_text(ctl, j, "client_name", ADDRESS_SHOWN),
                        ctl_text(ctl, j, "client", 0));
}

void ctl_tell_refusals(const struct ctl *ctl, const json_t *list)
{
    if (json_array_size(list))
        puts("\nRefused");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *j = json_array_get(list, i);
        const char *outcome = json_get_str(j, "outcome");
        uint64_t times = json_get_num(j, "times");
        printf("  %s, from %s for %s, by %s: refused %s since %s, last at %s",
               ctl_text(ctl, j, "id", 0), sender(ctl, j), recipients(ctl, j), relay(ctl, j),
               times == 1 ? "once" : print_some(ctl->arena, times, "time", "times"),
               ctl_time(ctl, j, "first"), ctl_time(ctl, j, "last"));
        if (strcmp(outcome, "waiting") == 0)
            puts("; it has not come again yet");
        else if (strcmp(outcome, "given up") == 0)
            puts("; it did not come again for a day: its sender has given up");
        else
            printf("; %s at %s\n", outcome, ctl_time(ctl, j, "settled"));
        printf("    refused because: %s (rule %s)\n", ctl_text(ctl, j, "reason", 0),
               ctl_text(ctl, j, "rule", 0));
    }
}

static void print_refusals(const struct ctl *ctl, const json_t *list)
{
    static const char *const heads[] = {"ID",    "FIRST",  "LAST",      ">TIMES", "OUTCOME",
                                        "RELAY", "SENDER", "RECIPIENT", "RULE",   NULL};
    struct table t;
    table_begin(&t, ctl->arena, ctl->colour, heads);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *j = json_array_get(list, i);
        struct cell *row = table_row(&t);
        row[0].text = ctl_text(ctl, j, "id", 0);
        row[1].text = ctl_time(ctl, j, "first");
        row[2].text = ctl_time(ctl, j, "last");
        row[3].text = ctl_count(ctl, j, "times");
        row[4].text = ctl_text(ctl, j, "outcome", 16);
        row[5].text = relay(ctl, j);
        row[6].text = sender(ctl, j);
        row[7].text = recipients(ctl, j);
        row[8].text = ctl_text(ctl, j, "rule", 32);
    }
    if (t.nrows)
        table_print(&t, stdout);
    else
        puts("No message was refused.");
}

int ctl_refusals(const struct ctl *ctl)
{
    struct ctl_target t;
    struct ctl_reply r;
    if (!ctl_since_good(ctl))
        return CTL_USAGE;
    ctl_target(&t, ctl->arena, "refusals");
    ctl_query(&t, "rcpt", ctl->rcpt);
    ctl_query(&t, "from", ctl->sender);
    ctl_query(&t, "relay", ctl->relay);
    ctl_query(&t, "since", ctl_since(ctl));
    ctl_query(&t, "limit", ctl->limit);
    ctl_query(&t, "after", ctl->after);
    int rc = ctl_ask(ctl, &t, NULL, &r);
    const json_t *list = json_object_get(r.json, "refusals");
    if (rc == CTL_OK && ctl->json)
        ctl_json_each(list);
    else if (rc == CTL_OK)
        print_refusals(ctl, list);
    if (rc == CTL_OK && !ctl->json && *json_get_str(r.json, "next"))
        printf("There are more: add --after %s\n", ctl_text(ctl, r.json, "next", 0));
    ctl_reply_free(&r);
    return rc;
}

/* ---- allow, hold ---- */

/* "90s", "30m", "12h", "7d", "8w" as seconds; 0: none of these. */
static int64_t length_of(const char *text)
{
    static const char units[] = "smhdw";
    static const int64_t seconds[] = {1, 60, 3600, 86400, 7 * 86400};
    char *end;
    long n = strtol(text, &end, 10);
    const char *unit = *end ? strchr(units, *end) : NULL;
    return end != text && unit && !end[1] && n > 0 && n <= 400L * 86400 ? n * seconds[unit - units]
                                                                        : 0;
}

static const char *about(const struct ctl *ctl, const json_t *j)
{
    return arena_printf(ctl->arena, "%s %s", ctl_text(ctl, j, "kind", 16),
                        ctl_text(ctl, j, "what", 0));
}

static void print_decided(const struct ctl *ctl, const json_t *j)
{
    bool hold = strcmp(json_get_str(j, "do"), "hold") == 0;
    const char *until = ctl_time(ctl, j, "until");
    if (ctl->dry)
        printf("Mail of %s would be %s until %s; nothing was changed.\n", about(ctl, j),
               hold ? "held" : "let pass", until);
    else
        printf("Mail of %s is %s until %s. To end it before:  breakwaterctl entries end %s "
               "--reason \"...\"\n",
               about(ctl, j), hold ? "held" : "let pass", until, ctl_text(ctl, j, "id", 0));
}

static bool wants_reason(const struct ctl *ctl, const char *command)
{
    if (ctl->reason && *ctl->reason)
        return true;
    ctl_complain("%s wants --reason \"...\": it is written down", command);
    return false;
}

static int decide(const struct ctl *ctl, const char *verb)
{
    struct ctl_target t;
    struct ctl_reply r;
    const char *const what[] = {ctl->relay, ctl->sender, ctl->storm};
    static const char *const kinds[] = {"relay", "sender", "storm"};
    int64_t seconds = ctl->lasts ? length_of(ctl->lasts) : 0;
    if (!ctl->relay + !ctl->sender + !ctl->storm != 2) {
        ctl_complain("%s: say whose mail: --relay R, --sender A or --storm S", verb);
        return CTL_USAGE;
    }
    if (ctl->lasts && !seconds) {
        ctl_complain("--for wants a length: 12h, 7d, 8w; at most 400d");
        return CTL_USAGE;
    }
    if (!wants_reason(ctl, verb))
        return CTL_USAGE;
    json_t *body = json_object();
    json_object_set_new(body, "do", json_string(verb));
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (what[i])
            json_object_set_new(body, kinds[i], json_text_of(what[i]));
    if (seconds)
        json_object_set_new(body, "for", json_integer(seconds));
    json_object_set_new(body, "reason", json_text_of(ctl->reason));
    json_object_set_new(body, "dry_run", json_boolean(ctl->dry));
    ctl_target(&t, ctl->arena, "entries");
    int rc = ctl_ask(ctl, &t, body, &r);
    if (rc == CTL_OK && ctl->json)
        ctl_json(r.json);
    else if (rc == CTL_OK)
        print_decided(ctl, r.json);
    ctl_reply_free(&r);
    json_decref(body);
    return rc;
}

int ctl_allow(const struct ctl *ctl)
{
    return decide(ctl, "allow");
}

int ctl_hold(const struct ctl *ctl)
{
    return decide(ctl, "hold");
}

/* ---- entries ---- */

static const char *end_of(const struct ctl *ctl, const json_t *j)
{
    const char *until = ctl_time(ctl, j, "until");
    if (*json_get_str(j, "ended_by"))
        return arena_printf(ctl->arena, "ended by %s %s", ctl_text(ctl, j, "ended_by", 32), until);
    return json_get_yes(j, "in_force") ? until : arena_printf(ctl->arena, "over %s", until);
}

static void print_entries(const struct ctl *ctl, const json_t *list)
{
    static const char *const heads[] = {"ENTRY", "DOES", "WHOSE MAIL", "BY", "UNTIL",
                                        ">USED", "LAST", "REASON",     NULL};
    struct table t;
    table_begin(&t, ctl->arena, ctl->colour, heads);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *j = json_array_get(list, i);
        struct cell *row = table_row(&t);
        row[0].text = ctl_text(ctl, j, "id", 0);
        row[1].text = ctl_text(ctl, j, "do", 16);
        row[2].text = about(ctl, j);
        row[3].text = ctl_text(ctl, j, "by", 32);
        row[4].text = end_of(ctl, j);
        row[5].text = ctl_count(ctl, j, "used");
        row[6].text = ctl_time(ctl, j, "last");
        row[7].text = ctl_text(ctl, j, "reason", REASON_SHOWN);
    }
    if (t.nrows)
        table_print(&t, stdout);
    else
        puts(ctl->all ? "Nobody has decided anything for a while."
                      : "No entry is in force; --all lists those that are over.");
}

static int list_entries(const struct ctl *ctl)
{
    struct ctl_target t;
    struct ctl_reply r;
    ctl_target(&t, ctl->arena, "entries");
    ctl_query(&t, "all", ctl->all ? "1" : NULL);
    int rc = ctl_ask(ctl, &t, NULL, &r);
    const json_t *list = json_object_get(r.json, "entries");
    if (rc == CTL_OK && ctl->json)
        ctl_json_each(list);
    else if (rc == CTL_OK)
        print_entries(ctl, list);
    ctl_reply_free(&r);
    return rc;
}

static int end_entry(const struct ctl *ctl, const char *arg)
{
    struct ctl_target t;
    struct ctl_reply r;
    uint64_t id;
    char text[ID_TEXT];
    if (!id_parse(&id, span_str(arg))) {
        ctl_complain("\"%s\" is not the id of an entry (13 letters and digits)",
                     print_text(ctl->arena, arg, 64));
        return CTL_USAGE;
    }
    if (!wants_reason(ctl, "entries end"))
        return CTL_USAGE;
    id_print(id, text);
    json_t *body = json_object();
    json_object_set_new(body, "reason", json_text_of(ctl->reason));
    json_object_set_new(body, "dry_run", json_boolean(ctl->dry));
    ctl_target(&t, ctl->arena, arena_printf(ctl->arena, "entries/%s/end", text));
    int rc = ctl_ask(ctl, &t, body, &r);
    if (rc == CTL_OK && ctl->json)
        ctl_json(r.json);
    else if (rc == CTL_OK)
        printf(ctl->dry ? "Entry %s would be ended; nothing was changed.\n" : "Entry %s is over.\n",
               text);
    ctl_reply_free(&r);
    json_decref(body);
    return rc;
}

int ctl_entries(const struct ctl *ctl)
{
    if (ctl->nargs == 0)
        return list_entries(ctl);
    if (ctl->nargs == 2 && strcmp(ctl->args[0], "end") == 0)
        return end_entry(ctl, ctl->args[1]);
    ctl_complain("entries [--all], or entries end ID --reason TEXT");
    return CTL_USAGE;
}
