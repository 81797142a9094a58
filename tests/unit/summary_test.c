/* summary_test.c - when the daily summary is due, across the changes of summer time, and what it
 * says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "summary.h"

enum { HOUR = 3600 * 1000 };

static int64_t utc(const char *text)
{
    struct tm tm = {0};
    assert_non_null(strptime(text, "%Y-%m-%d %H:%M:%S", &tm));
    return (int64_t)timegm(&tm) * 1000;
}

static void it_is_due_once_a_day_at_a_local_time(void **state)
{
    (void)state;
    static const struct {
        const char *name, *zone, *last;
        int64_t daily;
        const char *next;
    } table[] = {
        {"later today", "UTC0", "2026-11-21 06:59:59", 7 * HOUR, "2026-11-21 07:00:00"},
        {"it has just been", "UTC0", "2026-11-21 07:00:00", 7 * HOUR, "2026-11-22 07:00:00"},
        {"tomorrow, next month", "UTC0", "2026-11-30 08:00:00", 7 * HOUR, "2026-12-01 07:00:00"},
        {"tomorrow, next year", "UTC0", "2026-12-31 08:00:00", 7 * HOUR, "2027-01-01 07:00:00"},
        {"midnight", "UTC0", "2026-11-21 00:00:00", 0, "2026-11-22 00:00:00"},
        {"with minutes and seconds", "UTC0", "2026-11-21 00:00:00", 7 * HOUR + 90500,
         "2026-11-21 07:01:30"},
        {"east of Greenwich, in winter", "CET-1CEST,M3.5.0,M10.5.0/3", "2026-11-21 06:00:00",
         7 * HOUR, "2026-11-22 06:00:00"},
        {"the same, in summer", "CET-1CEST,M3.5.0,M10.5.0/3", "2026-07-21 06:00:00", 7 * HOUR,
         "2026-07-22 05:00:00"},
        {"over the night in which an hour is left out", "CET-1CEST,M3.5.0,M10.5.0/3",
         "2026-03-28 06:00:00", 7 * HOUR, "2026-03-29 05:00:00"},
        {"over the night in which one comes twice", "CET-1CEST,M3.5.0,M10.5.0/3",
         "2026-10-24 05:00:00", 7 * HOUR, "2026-10-25 06:00:00"},
        {"at a time that does not exist that night", "CET-1CEST,M3.5.0,M10.5.0/3",
         "2026-03-28 02:00:00", 2 * HOUR + HOUR / 2, "2026-03-29 01:30:00"},
        {"at a time that exists twice: not again an hour later", "CET-1CEST,M3.5.0,M10.5.0/3",
         "2026-10-25 01:30:00", 2 * HOUR + HOUR / 2, "2026-10-26 01:30:00"},
        {"far west", "HST10", "2026-11-21 17:00:00", 7 * HOUR, "2026-11-22 17:00:00"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        setenv("TZ", table[i].zone, 1);
        tzset();
        int64_t next = summary_next(utc(table[i].last), table[i].daily);
        if (next != utc(table[i].next)) {
            time_t t = (time_t)(next / 1000);
            fail_msg("%s: %s", table[i].name, asctime(gmtime(&t)));
        }
    }
    unsetenv("TZ");
    tzset();
}

static json_t *json(const char *text)
{
    json_t *j = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(j);
    return j;
}

static char *told(const char *day, const char *guard, const char *storms, int64_t unaccounted)
{
    json_t *d = json(day), *g = json(guard), *s = json(storms);
    json_t *r = json("[{\"relay\":\"gw[192.0.2.1]\",\"state\":\"misbehaving\",\"why\":\"it "
                     "re-sends\\u001b[31m\"},{\"relay\":\"ok[192.0.2.2]\",\"state\":\"clean\"}]");
    const struct summary summary = {.mode = "monitor",
                                    .last_day = d,
                                    .storms = s,
                                    .relays = r,
                                    .guard = g,
                                    .unaccounted = unaccounted,
                                    .now = INT64_C(1795000000000)};
    char *text = summary_text(&summary);
    json_decref(d);
    json_decref(g);
    json_decref(s);
    json_decref(r);
    return text;
}

static void it_says_what_was_held_and_what_would_have_been(void **state)
{
    (void)state;
    char *text =
        told("{\"judged\":1204,\"passed\":1200,\"held\":3,\"throttled\":1,\"would_hold\":31,"
             "\"would_hold_firsts\":1,\"rules\":[{\"rule\":\"duplicate\",\"copies\":31,"
             "\"firsts\":1}]}",
             "{\"state\":\"watching\"}",
             "[{\"id\":\"SAAAA\",\"kind\":\"replication\",\"subject\":\"a\\nb\",\"from\":"
             "\"x@y.example\",\"copies\":7,\"held\":3,\"last\":1794999000},"
             "{\"id\":\"SBBBB\",\"last\":1794000000}]",
             0);
    assert_string_equal(
        text,
        "in 24 hours 1204 copies judged: 1200 passed, 3 held, 1 refused by rules; enforce mode "
        "would have held 30 further copies and 1 first copy; 1 storm; mode monitor, the guard "
        "watches; every message is accounted for\n"
        "\nWhat enforce mode would have held\n"
        "  rule duplicate: 31 copies, 1 of them first copies\n"
        "\nStorms\n"
        "  SAAAA, replication: \"a\\x0ab\" from x@y.example, 7 copies, 3 held\n"
        "\nRelays that misbehave\n"
        "  gw[192.0.2.1]: it re-sends\\x1b[31m\n");
    free(text);
}

static void what_is_wrong_stands_in_the_first_line(void **state)
{
    (void)state;
    char *text =
        told("{}", "{\"state\":\"tripped\",\"trip\":{\"reason\":\"too many holds\"}}", "[]", 2);
    *strchr(text, '\n') = '\0';
    assert_non_null(strstr(text, "HAS TRIPPED"));
    assert_non_null(strstr(text, "2 COPIES ARE UNACCOUNTED FOR"));
    assert_non_null(strstr(text + strlen(text) + 1, "too many holds"));
    free(text);
    text = told("null", "null", "null", 0);
    assert_non_null(strstr(text, "the guard is off"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_due_once_a_day_at_a_local_time),
        cmocka_unit_test(it_says_what_was_held_and_what_would_have_been),
        cmocka_unit_test(what_is_wrong_stands_in_the_first_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
