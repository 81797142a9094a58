/* ctl_guard.c - breakwaterctl guard: how near the guard is to stepping back, and when it did. */
#include <stdio.h>

#include "ctl.h"

static double number(const json_t *j, const char *name)
{
    return json_number_value(json_object_get(j, name));
}

/* "40 ms", "0.3 %", "1,204 copies", "-" for a limit that is off. */
static const char *amount(const struct ctl *ctl, const json_t *j, const char *name)
{
    double n = number(j, name);
    const char *unit = ctl_text(ctl, j, "unit", 16);
    if (!json_is_number(json_object_get(j, name)))
        return "off";
    if (*unit == '%')
        return arena_printf(ctl->arena, "%.1f %%", n);
    return arena_printf(ctl->arena, "%s%s %s", n < 0 ? "-" : "",
                        print_count(ctl->arena, (uint64_t)(n < 0 ? -n : n)), unit);
}

static bool capped(const json_t *j)
{
    return json_ms(json_object_get(j, "capped_since")) != 0;
}

/* "steps back", "capped", "capped since 10:32". */
static const char *beyond(const struct ctl *ctl, const json_t *j)
{
    const char *word = ctl_text(ctl, j, "beyond", 16);
    return capped(j)
               ? arena_printf(ctl->arena, "%s since %s", word, ctl_time(ctl, j, "capped_since"))
               : word;
}

static void print_triggers(const struct ctl *ctl, const json_t *list)
{
    static const char *const heads[] = {"TRIGGER", ">NOW", ">LIMIT", "BEYOND IT", "WHAT", NULL};
    struct table t;
    table_begin(&t, ctl->arena, ctl->colour, heads);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *j = json_array_get(list, i);
        bool over = json_get_yes(j, "over");
        struct cell *row = table_row(&t);
        row[0].text =
            arena_printf(ctl->arena, "%s%s", ctl_text(ctl, j, "cause", 16), over ? ", over" : "");
        row[0].paint = over ? PAINT_ALARM : PAINT_NONE;
        row[1].text = amount(ctl, j, "value");
        row[2].text = amount(ctl, j, "limit");
        row[3].text = beyond(ctl, j);
        row[3].paint = capped(j) ? PAINT_ALARM : PAINT_NONE;
        row[4].text = ctl_text(ctl, j, "what", 0);
    }
    table_print(&t, stdout);
}

static void print_trips(const struct ctl *ctl, const json_t *list)
{
    static const char *const heads[] = {"TIME", "FROM", "TO", "CAUSE", "UP AGAIN", "REASON", NULL};
    struct table t;
    if (!json_array_size(list))
        return;
    putchar('\n');
    table_begin(&t, ctl->arena, ctl->colour, heads);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *j = json_array_get(list, i);
        struct cell *row = table_row(&t);
        row[0].text = ctl_time(ctl, j, "time");
        row[1].text = ctl_text(ctl, j, "from", 16);
        row[2].text = ctl_text(ctl, j, "to", 16);
        row[3].text = ctl_text(ctl, j, "cause", 16);
        row[4].text = ctl_time(ctl, j, "over");
        row[5].text = ctl_text(ctl, j, "reason", 0);
    }
    table_print(&t, stdout);
}

void ctl_guard_brief(const struct ctl *ctl, const json_t *guard)
{
    struct arena *a = ctl->arena;
    const json_t *trip = json_object_get(guard, "trip");
    const json_t *connections = json_object_get(guard, "connections");
    if (json_is_object(trip)) {
        const char *to = json_get_str(trip, "to");
        printf("%s\n", print_paint(a, ctl->colour, PAINT_ALARM,
                                   arena_printf(a, "The guard went to %s at %s: %s.", to,
                                                ctl_time(ctl, trip, "time"),
                                                ctl_text(ctl, trip, "reason", 0))));
        printf("When its cause is gone: breakwaterctl mode %s --reason \"...\"\n",
               strcmp(to, "bypass") == 0 ? "monitor" : "enforce");
    }
    for (size_t i = 0; i < json_array_size(json_object_get(guard, "capped")); i++) {
        const json_t *j = json_array_get(json_object_get(guard, "capped"), i);
        printf("Capped since %s: at most %s are %s; more pass, the mode stays.\n",
               ctl_time(ctl, j, "capped_since"), amount(ctl, j, "limit"),
               ctl_text(ctl, j, "what", 0));
    }
    if (json_get_yes(connections, "governed"))
        printf("The guard allows %s SMTP connections of %s until it is better.\n",
               ctl_count(ctl, connections, "limit"), ctl_count(ctl, connections, "configured"));
}

int ctl_guard(const struct ctl *ctl)
{
    struct ctl_target t;
    struct ctl_reply r;
    ctl_target(&t, ctl->arena, "guard");
    int rc = ctl_ask(ctl, &t, NULL, &r);
    if (rc == CTL_OK && ctl->json)
        ctl_json(r.json);
    if (rc == CTL_OK && !ctl->json) {
        if (!json_is_object(json_object_get(r.json, "trip")))
            puts("The guard watches; nothing makes it step back.");
        ctl_guard_brief(ctl, r.json);
        putchar('\n');
        print_triggers(ctl, json_object_get(r.json, "triggers"));
        print_trips(ctl, json_object_get(r.json, "trips"));
    }
    ctl_reply_free(&r);
    return rc;
}
