/* date_test.c - header dates: one case a line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "date.h"

/* No date in it. */
#define NONE INT64_MIN

static void dates(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text;
        int64_t want;
    } cases[] = {
        {"the form of RFC 5322", "Mon, 2 Sep 2002 08:30:35 +0100 (IST)", 1030951835},
        {"the epoch", "Thu, 1 Jan 1970 00:00:00 +0000", 0},
        {"before the epoch", "Wed, 31 Dec 1969 23:59:59 +0000", -1},
        {"no weekday", "2 Sep 2002 08:30:35 +0100", 1030951835},
        {"no seconds", "2 Sep 2002 08:30 +0100", 1030951800},
        {"the same instant in another zone", "Mon, 2 Sep 2002 00:30:35 -0700", 1030951835},
        {"a zone by name", "Mon, 2 Sep 2002 00:30:35 PDT", 1030951835},
        {"an unknown zone is UTC", "Mon, 2 Sep 2002 07:30:35 XYZ", 1030951835},
        {"no zone is UTC", "Mon, 2 Sep 2002 07:30:35", 1030951835},
        {"half an hour of zone", "Mon, 2 Sep 2002 13:00:35 +0530", 1030951835},
        {"a year of two digits, this century", "2 Sep 02 07:30:35 GMT", 1030951835},
        {"a year of two digits, the last", "31 Dec 99 23:59:59 GMT", 946684799},
        {"a year of three digits", "2 Sep 102 07:30:35 GMT", 1030951835},
        {"asctime", "Mon Sep  2 07:30:35 2002", 1030951835},
        {"folded", "Mon,\r\n\t2 Sep 2002 08:30:35 +0100", 1030951835},
        {"the leap day", "29 Feb 2000 00:00:00 +0000", 951782400},
        {"the day after", "1 Mar 2000 00:00:00 +0000", 951868800},
        {"1900 was no leap year", "1 Mar 1900 00:00:00 +0000", -2203891200},
        {"a leap second", "31 Dec 2016 23:59:60 +0000", 1483228799},
        {"a full month name", "2 September 2002 07:30:35 +0000", 1030951835},
        {"empty", "", NONE},
        {"no time", "Mon, 2 Sep 2002", NONE},
        {"no year", "Mon, 2 Sep 08:30:35 +0100", NONE},
        {"hour 24", "Mon, 2 Sep 2002 24:30:35 +0100", NONE},
        {"day 32", "Mon, 32 Sep 2002 04:30:35 +0100", NONE},
        {"day 0", "Mon, 0 Sep 2002 04:30:35 +0100", NONE},
        {"no month of that name", "Mon, 2 Foo 2002 04:30:35 +0100", NONE},
        {"words", "the day before yesterday", NONE},
        {"all in a comment", "(Mon, 2 Sep 2002 08:30:35 +0100)", NONE},
        {"colons", ":::::: 1:2:3:4", NONE},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int64_t got = NONE;
        bool ok = date_parse(span_str(cases[i].text), &got);
        if (got != cases[i].want || ok != (cases[i].want != NONE))
            fail_msg("%s: %s: %lld", cases[i].name, cases[i].text, (long long)got);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(dates)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
