/* ctl_figures.c - breakwaterctl balance and report: is every message accounted for, and what did
 * rules do, or would have done, day by day. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "ctl.h"

enum { MINUTES_SHOWN = 10 };

/* ---- balance ---- */

static void fill_balance(const struct ctl *ctl, struct cell *row, const json_t *b, const char *when)
{
    static const char *const names[] = {"received", "passed",  "held",    "throttled",
                                        "rejected", "refused", "aborted", "under_way"};
    row[0].text = when;
    row[1].text = ctl_text(ctl, b, "door", 32);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        row[2 + i].text = ctl_count(ctl, b, names[i]);
    if (json_integer_value(json_object_get(b, "unaccounted")))
        row[0].paint = PAINT_ALARM;
}

static void say_even(const struct ctl *ctl, const json_t *j)
{
    json_int_t lost = 0, twice = 0;
    const json_t *doors = json_object_get(j, "doors");
    for (size_t i = 0; i < json_array_size(doors); i++) {
        json_int_t n = json_integer_value(json_object_get(json_array_get(doors, i), "unaccounted"));
        lost += n > 0 ? n : 0;
        twice -= n < 0 ? n : 0;
    }
    if (!lost && !twice) {
        puts("Every message that came in is accounted for.");
        return;
    }
    const char *alarm = print_paint(ctl->arena, ctl->colour, PAINT_ALARM, "ALARM");
    if (lost)
        printf("%s: what became of %s that came in is not written down.\n", alarm,
               print_some(ctl->arena, (uint64_t)lost, "copy", "copies"));
    if (twice)
        printf("%s: %s more were written down than came in.\n", alarm,
               print_some(ctl->arena, (uint64_t)twice, "copy", "copies"));
    puts("This is a fault of breakwaterd: please report it, with the log.");
}

static void print_balance(const struct ctl *ctl, const json_t *j)
{
    static const char *const heads[] = {"WHEN",     "DOOR",       ">RECEIVED", ">PASSED",
                                        ">HELD",    ">THROTTLED", ">REJECTED", ">REFUSED",
                                        ">ABORTED", ">UNDER WAY", NULL};
    const json_t *doors = json_object_get(j, "doors"), *minutes = json_object_get(j, "minutes");
    struct table t;
    table_begin(&t, ctl->arena, ctl->colour, heads);
    for (size_t i = 0; i < json_array_size(doors); i++)
        fill_balance(ctl, table_row(&t), json_array_get(doors, i), "since the start");
    for (size_t i = 0; i < json_array_size(minutes); i++) {
        const json_t *b = json_array_get(minutes, i);
        fill_balance(ctl, table_row(&t), b, ctl_time(ctl, b, "from"));
    }
    table_print(&t, stdout);
    say_even(ctl, j);
}

int ctl_balance(const struct ctl *ctl)
{
    struct ctl_reply r;
    struct ctl_target t;
    char shown[8];
    snprintf(shown, sizeof shown, "%d", MINUTES_SHOWN);
    ctl_target(&t, ctl->arena, "balance");
    ctl_query(&t, "minutes", ctl->limit ? ctl->limit : ctl->json ? NULL : shown);
    int rc = ctl_ask(ctl, &t, NULL, &r);
    if (rc == CTL_OK && ctl->json)
        ctl_json(r.json);
    else if (rc == CTL_OK)
        print_balance(ctl, r.json);
    if (rc == CTL_OK && !json_get_yes(r.json, "even"))
        rc = CTL_REFUSED;
    ctl_reply_free(&r);
    return rc;
}

/* ---- report ---- */

/* What a rule advised beyond letting pass, so that a rule that only tags is a line, too. */
static const char *const weights[] = {"tag", "throttle", "hold", "reject"};

static uint64_t weighty(const json_t *counts)
{
    uint64_t n = 0;
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++)
        n += json_get_num(counts, weights[i]);
    return n;
}

static const char *mode_of(const struct ctl *ctl, const json_t *j)
{
    return *json_get_str(j, "mode") ? ctl_text(ctl, j, "mode", 16) : "-";
}

static const char *rule_of(const struct ctl *ctl, const json_t *j)
{
    const json_t *done = json_object_get(j, "done");
    if (*json_get_str(j, "rule"))
        return ctl_text(ctl, j, "rule", 32);
    if (json_get_num(done, "refused") + json_get_num(done, "aborted"))
        return json_get_num(done, "refused") ? "(not taken, or client gone)" : "(client gone)";
    return "(no rule)";
}

static void print_report(const struct ctl *ctl, const json_t *days)
{
    static const char *const heads[] = {"DAY",           "DOOR",  "MODE",     "RULE",
                                        ">COPIES",       ">TAG",  ">4XX/5XX", ">HOLD",
                                        ">FIRST COPIES", ">DONE", NULL};
    struct table t;
    table_begin(&t, ctl->arena, ctl->colour, heads);
    for (size_t i = 0; i < json_array_size(days); i++) {
        const json_t *j = json_array_get(days, i), *would = json_object_get(j, "would");
        const json_t *firsts = json_object_get(j, "firsts");
        uint64_t first = json_get_num(firsts, "hold") + json_get_num(firsts, "throttle") +
                         json_get_num(firsts, "reject");
        struct cell *row = table_row(&t);
        row[0].text = ctl_text(ctl, j, "day", 10);
        row[1].text = ctl_text(ctl, j, "listener", 24);
        row[2].text = mode_of(ctl, j);
        row[3].text = rule_of(ctl, j);
        row[4].text = ctl_count(ctl, j, "copies");
        row[5].text = ctl_count(ctl, would, "tag");
        row[6].text = print_count(ctl->arena,
                                  json_get_num(would, "throttle") + json_get_num(would, "reject"));
        row[7].text = ctl_count(ctl, would, "hold");
        row[8] = (struct cell){print_count(ctl->arena, first), first ? PAINT_ALARM : PAINT_NONE};
        row[9].text = print_count(ctl->arena, weighty(json_object_get(j, "done")));
    }
    if (!t.nrows) {
        puts("No mail came in these days.");
        return;
    }
    table_print(&t, stdout);
    puts("TAG, 4XX/5XX and HOLD are what the rule says; FIRST COPIES those it would refuse or hold "
         "of recipients who had none; DONE what was really done. Days are UTC.");
}

/* The day of a time in seconds since 1970. */
static const char *utc_day(struct arena *a, const char *seconds)
{
    char day[16];
    time_t t = (time_t)strtoll(seconds, NULL, 10);
    struct tm tm;
    if (!gmtime_r(&t, &tm) || !strftime(day, sizeof day, "%Y-%m-%d", &tm))
        return NULL;
    return arena_str(a, span_str(day));
}

int ctl_report(const struct ctl *ctl)
{
    struct ctl_reply r;
    struct ctl_target t;
    if (ctl->nargs && ctl->since) {
        ctl_complain("report takes a day, or --since, not both");
        return CTL_USAGE;
    }
    if (!ctl_since_good(ctl))
        return CTL_USAGE;
    const char *day = ctl->nargs ? ctl->args[0] : NULL;
    ctl_target(&t, ctl->arena, "report");
    ctl_query(&t, "from", day ? day : ctl->since ? utc_day(ctl->arena, ctl_since(ctl)) : NULL);
    ctl_query(&t, "until", day);
    int rc = ctl_ask(ctl, &t, NULL, &r);
    const json_t *days = json_object_get(r.json, "days");
    if (rc == CTL_OK && ctl->json)
        ctl_json_each(days);
    else if (rc == CTL_OK)
        print_report(ctl, days);
    if (rc == CTL_OK && !ctl->json && json_get_num(r.json, "left_out"))
        printf("%s came with more rules than are told apart, and are missing here.\n",
               print_some(ctl->arena, json_get_num(r.json, "left_out"), "copy", "copies"));
    ctl_reply_free(&r);
    return rc;
}
