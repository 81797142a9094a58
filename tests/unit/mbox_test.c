/* mbox_test.c - mailboxes into messages: one case a line, each with LF and with CRLF. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "mbox.h"

#define F "From a@a.example Mon Sep  2 07:30:35 2002\n"
#define H "Subject: x\n\n"

static const struct {
    const char *name, *text;
    const char *want[4]; /* messages; NULL: no more */
} cases[] = {
    {"one message", F H "body\n", {H "body\n"}},
    {"two, and the empty line between is nobody's",
     F H "body\n\n" F H "more\n",
     {H "body\n", H "more\n"}},
    {"an empty line of the body stays", F H "body\n\n\n" F H "more\n", {H "body\n\n", H "more\n"}},
    {"an empty line at the end stays", F H "body\n\n", {H "body\n\n"}},
    {"no body", F "Subject: x\n\n" F H "more\n", {"Subject: x\n\n", H "more\n"}},
    {"a From_ line without an empty one before it is text",
     F H "body\n" F "more\n",
     {H "body\n" F "more\n"}},
    {"a sentence that begins with From is text",
     F H "\nFrom here to there at 10:00\n",
     {H "\nFrom here to there at 10:00\n"}},
    {"one > is taken away",
     F H ">From the start\n>>From b\n> From c\n",
     {H "From the start\n>From b\n> From c\n"}},
    {"not in the header", F "X: y\n>From z\n\n", {"X: y\n>From z\n\n"}},
    {"a Content-Length that leads to the next is believed",
     F "Content-Length: 47\n\nx\n\n" F "\n\n\n" F H "more\n",
     {"Content-Length: 47\n\nx\n\n" F "\n\n", H "more\n"}},
    {"one that leads to the end is",
     F "Content-Length: 45\n\n\n" F "x\n",
     {"Content-Length: 45\n\n\n" F "x\n"}},
    {"one that leads elsewhere is not",
     F "Content-Length: 44\n\nx\n\n" F "y\n",
     {"Content-Length: 44\n\nx\n", "y\n"}},
    {"one that is far too large is not",
     F "Content-Length: 4000000000\n\nx\n\n" F "y\n",
     {"Content-Length: 4000000000\n\nx\n", "y\n"}},
    {"the last line may lack its end", F H "body", {H "body"}},
    {"a date of another form",
     F H "x\n\nFrom b Tue, 3 Sep 2002 10:00:00 +0200\nY: z\n\n",
     {H "x\n", "Y: z\n\n"}},
    {"only a From_ line", F, {""}},
};

static struct mbox *open_text(const char *text, bool crlf)
{
    char path[] = "/tmp/mbox-testXXXXXX";
    int fd = mkstemp(path);
    FILE *f = fdopen(fd, "wb");
    for (; *text; text++) {
        if (crlf && *text == '\n')
            fputc('\r', f);
        fputc(*text, f);
    }
    fclose(f);
    struct mbox *m = mbox_open(path);
    unlink(path);
    assert_non_null(m);
    return m;
}

/* Without CR, so that one expectation does for both. */
static bool same_text(struct span got, const char *want)
{
    size_t w = 0;
    for (size_t i = 0; i < got.n; i++)
        if (got.p[i] != '\r' && (char)got.p[i] != want[w++])
            return false;
    return want[w] == 0;
}

static void check(size_t i, bool crlf)
{
    struct mbox *m = open_text(cases[i].text, crlf);
    struct arena *a = arena_new();
    struct mbox_mail mail;
    off_t at[4];
    size_t n = 0;
    for (; cases[i].want[n]; n++) {
        if (!mbox_next(m, a, 1 << 20, &mail))
            fail_msg("%s: no message %zu", cases[i].name, n + 1);
        if (!same_text(mail.message, cases[i].want[n]))
            fail_msg("%s, message %zu: \"%.*s\"", cases[i].name, n + 1, SPAN_ARG(mail.message));
        at[n] = mail.at;
    }
    if (mbox_next(m, a, 1 << 20, &mail))
        fail_msg("%s: one message more", cases[i].name);
    while (n-- > 0) { /* any of them can be found again */
        mbox_seek(m, at[n]);
        assert_true(mbox_next(m, a, 1 << 20, &mail));
        assert_true(same_text(mail.message, cases[i].want[n]));
    }
    arena_free(&a);
    mbox_close(&m);
}

static void messages_end_where_the_next_begins(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check(i, false);
        if (!strstr(cases[i].text, "Content-Length: 4")) /* a length counts bytes */
            check(i, true);
    }
}

static void what_is_too_long_is_cut_and_the_next_is_found(void **state)
{
    (void)state;
    static char text[400000];
    size_t n = (size_t)snprintf(text, sizeof text, "%s%s", F, H);
    memset(text + n, 'x', 300000); /* one line, longer than any buffer begins */
    snprintf(text + n + 300000, sizeof text - n - 300000, "\n\n%s%s", F, H "more\n");
    struct mbox *m = open_text(text, false);
    struct arena *a = arena_new();
    struct mbox_mail mail;
    assert_true(mbox_next(m, a, 1000, &mail));
    assert_true(mail.cut);
    assert_int_equal(mail.message.n, 1000);
    assert_true(mbox_next(m, a, 1000, &mail));
    assert_false(mail.cut);
    assert_true(same_text(mail.message, H "more\n"));
    mbox_seek(m, 0);
    assert_true(mbox_next(m, a, 1 << 20, &mail));
    assert_false(mail.cut);
    assert_int_equal(mail.message.n, strlen(H) + 300001);
    arena_free(&a);
    mbox_close(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_end_where_the_next_begins),
        cmocka_unit_test(what_is_too_long_is_cut_and_the_next_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
