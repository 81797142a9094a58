/* linediff_test.c - differences as diff -u says them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "linediff.h"

static void differences(void **state)
{
    (void)state;
    static const struct {
        const char *sentence, *a, *b, *diff; /* without the head of two lines */
    } t[] = {
        {"nothing", "", "", ""},
        {"no difference", "a\nb\n", "a\nb\n", ""},
        {"all is new", "", "a\nb\n", "@@ -0,0 +1,2 @@\n+a\n+b\n"},
        {"all is gone", "a\n", "", "@@ -1 +0,0 @@\n-a\n"},
        {"one line", "a\nb\nc\n", "a\nx\nc\n", "@@ -1,3 +1,3 @@\n a\n-b\n+x\n c\n"},
        {"one more at the end", "a\n", "a\nb\n", "@@ -1 +1,2 @@\n a\n+b\n"},
        {"one more at the start", "b\n", "a\nb\n", "@@ -1 +1,2 @@\n+a\n b\n"},
        {"the last line gets its end", "a", "a\n",
         "@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a\n"},
        {"the last line loses it", "a\nb\n", "a\nb",
         "@@ -1,2 +1,2 @@\n a\n-b\n+b\n\\ No newline at end of file\n"},
        {"three lines around", "1\n2\n3\n4\n5\n6\n7\n8\n9\n", "1\n2\n3\n4\nx\n6\n7\n8\n9\n",
         "@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+x\n 6\n 7\n 8\n"},
        {"six lines between are one hunk", "x\n1\n2\n3\n4\n5\n6\ny\n", "X\n1\n2\n3\n4\n5\n6\nY\n",
         "@@ -1,8 +1,8 @@\n-x\n+X\n 1\n 2\n 3\n 4\n 5\n 6\n-y\n+Y\n"},
        {"seven are two", "x\n1\n2\n3\n4\n5\n6\n7\ny\n", "X\n1\n2\n3\n4\n5\n6\n7\nY\n",
         "@@ -1,4 +1,4 @@\n-x\n+X\n 1\n 2\n 3\n@@ -6,4 +6,4 @@\n 5\n 6\n 7\n-y\n+Y\n"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct arena *arena = arena_new();
        const char *d = linediff(arena, span_str(t[i].a), span_str(t[i].b), "old", "new");
        const char *head = "--- old\n+++ new\n";
        if (*d && strncmp(d, head, strlen(head)) != 0)
            fail_msg("%s: %s", t[i].sentence, d);
        if (strcmp(*d ? d + strlen(head) : d, t[i].diff) != 0)
            fail_msg("%s: %s", t[i].sentence, d);
        arena_free(&arena);
    }
}

/* Whatever the texts: taking what the diff takes and adding what it adds leads from a to b. */
static void the_difference_leads_from_one_to_the_other(void **state)
{
    (void)state;
    srand(5);
    for (int round = 0; round < 2000; round++) {
        struct arena *arena = arena_new();
        char a[200] = "", b[200] = "", out[400] = "";
        int na = rand() % 40, nb = rand() % 40, an = 0;
        for (int i = 0; i < na; i++)
            snprintf(a + 2 * i, 3, "%c\n", 'a' + rand() % 3);
        for (int i = 0; i < nb; i++)
            snprintf(b + 2 * i, 3, "%c\n", 'a' + rand() % 3);
        const char *d = linediff(arena, span_str(a), span_str(b), "a", "b");
        for (const char *line = d; *line; line = strchr(line, '\n') + 1) {
            int from, count = 1;
            if (strncmp(line, "---", 3) == 0 || strncmp(line, "+++", 3) == 0)
                continue;
            if (*line == '@') {
                assert_true(sscanf(line, "@@ -%d,%d", &from, &count) >= 1);
                from -= count > 0;
                strncat(out, a + 2 * an, (size_t)(2 * (from - an)));
                an = from;
                continue;
            }
            if (*line != '-')
                strncat(out, line + 1, 2);
            an += *line != '+';
        }
        strcat(out, a + 2 * an);
        assert_string_equal(out, b);
        arena_free(&arena);
    }
}

static void very_different_texts_are_bounded(void **state)
{
    (void)state;
    enum { LINES = 60000 };
    struct arena *arena = arena_new();
    char *a = arena_alloc(arena, 2 * LINES + 1), *b = arena_alloc(arena, 2 * LINES + 1);
    for (int i = 0; i < LINES; i++) {
        memcpy(a + 2 * i, i % 2 ? "x\n" : "y\n", 3);
        memcpy(b + 2 * i, i % 2 ? "y\n" : "z\n", 3);
    }
    const char *d = linediff(arena, span_str(a), span_str(b), "a", "b");
    assert_int_equal(strlen(d), strlen("--- a\n+++ b\n@@ -1,60000 +1,60000 @@\n") + 6 * LINES);
    arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(differences),
        cmocka_unit_test(the_difference_leads_from_one_to_the_other),
        cmocka_unit_test(very_different_texts_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
