/* dot_test.c - what ends the data, what does not, and what is made of it; cut at every byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dot.h"

struct text {
    char p[4096];
    size_t n;
};

static void take(void *arg, struct span s)
{
    struct text *t = arg;
    assert_true(t->n + s.n <= sizeof t->p);
    memcpy(t->p + t->n, s.p, s.n);
    t->n += s.n;
}

/* Too much to be kept. */
struct sum {
    uint64_t n, sum;
};

static void add_up(void *arg, struct span s)
{
    struct sum *t = arg;
    for (size_t i = 0; i < s.n; i++)
        t->sum = t->sum * 31 + s.p[i];
    t->n += s.n;
}

#define TEXT(literal) literal, sizeof(literal) - 1

struct reading {
    const char *name;
    const char *in;
    size_t nin;
    const char *out;
    size_t nout;
    size_t used; /* 0: it does not end */
    unsigned bare_lf, bare_cr;
};

/* The seventeen sequences known to end the data somewhere: each is followed by a second "message".
 */
static const struct reading readings[] = {
    {"the end", TEXT("a\r\n.\r\nX"), TEXT("a\r\n"), 6, 0, 0},
    {"an empty message", TEXT(".\r\nX"), TEXT(""), 3, 0, 0},
    {"a doubled dot is one", TEXT("..a\r\n...\r\n.\r\n"), TEXT(".a\r\n..\r\n"), 13, 0, 0},
    {"a dot that is not doubled goes", TEXT(".a\r\n.\r\n"), TEXT("a\r\n"), 7, 0, 0},
    {"LF . LF", TEXT("a\n.\nX"), TEXT("a\r\n.\r\nX"), 0, 2, 0},
    {"LF . CRLF", TEXT("a\n.\r\nX"), TEXT("a\r\n.\r\n"), 0, 1, 0},
    {"CRLF . LF", TEXT("a\r\n.\nX"), TEXT("a\r\n\r\nX"), 0, 1, 0},
    {"CRLF . CR CRLF", TEXT("a\r\n.\r\r\nX"), TEXT("a\r\n \r\n"), 0, 0, 1},
    {"CR CRLF . CR CRLF", TEXT("a\r\r\n.\r\r\nX"), TEXT("a \r\n \r\n"), 0, 0, 2},
    {"CRLF . CR", TEXT("a\r\n.\rX"), TEXT("a\r\n X"), 0, 0, 1},
    {"CRLF NUL . CRLF", TEXT("a\r\n\0.\r\nX"), TEXT("a\r\n\0.\r\n"), 0, 0, 0},
    {"CRLF . NUL CRLF", TEXT("a\r\n.\0\r\nX"), TEXT("a\r\n\0\r\n"), 0, 0, 0},
    {"CRLF . TAB CRLF", TEXT("a\r\n.\t\r\nX"), TEXT("a\r\n\t\r\n"), 0, 0, 0},
    {"CRLF . SP CRLF", TEXT("a\r\n. \r\nX"), TEXT("a\r\n \r\n"), 0, 0, 0},
    {"LF . CR", TEXT("a\n.\rX"), TEXT("a\r\n. X"), 0, 1, 1},
    {"CR . LF", TEXT("a\r.\nX"), TEXT("a .\r\nX"), 0, 1, 1},
    {"CR . CR", TEXT("a\r.\rX"), TEXT("a . X"), 0, 0, 2},
    {"CR . CRLF", TEXT("a\r.\r\nX"), TEXT("a .\r\n"), 0, 0, 1},
    {"VT LF . VT LF", TEXT("a\x0b\n.\x0b\nX"), TEXT("a\x0b\r\n.\x0b\r\nX"), 0, 2, 0},
    {"next line of Latin-1", TEXT("a\x85.\x85X"), TEXT("a\x85.\x85X"), 0, 0, 0},
    {"the true end after a false one", TEXT("a\n.\nb\r\n.\r\nX"), TEXT("a\r\n.\r\nb\r\n"), 10, 2,
     0},
    {"CR at the very end waits", TEXT("a\r\n.\r"), TEXT("a\r\n"), 0, 0, 0},
};

/* Up to the X or the end; an X right after a line end that is none is the next line's. */
static void check(const struct reading *c, size_t cut)
{
    struct dot_reader r = {0};
    struct text t = {.n = 0};
    struct span in = span_of(c->in, c->nin);
    size_t used = dot_read(&r, span_head(in, cut), take, &t);
    if (used == cut && !r.done)
        used += dot_read(&r, span_from(in, cut), take, &t);
    if (r.done != (c->used > 0) || (r.done && used != c->used))
        fail_msg("%s, cut at %zu: done %d, used %zu", c->name, cut, r.done, used);
    size_t n = t.n;
    if (!r.done && n > c->nout) /* the X */
        n = c->nout;
    if (n != c->nout || memcmp(t.p, c->out, n) != 0)
        fail_msg("%s, cut at %zu: gives \"%.*s\"", c->name, cut, (int)t.n, t.p);
    assert_int_equal(r.bare_lf, c->bare_lf);
    assert_int_equal(r.bare_cr, c->bare_cr);
}

static void test_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof readings / sizeof *readings; i++)
        for (size_t cut = 0; cut <= readings[i].nin; cut++)
            check(&readings[i], cut);
}

/* Bytes that a run of many of them must not make dear, in one piece of a million. */
static void test_many_odd(void **state)
{
    (void)state;
    static const char *const odd[] = {"\r", "\n", "\r.", "\n.", "\r\n.a", "\r\n..", ".", "a\r"};
    enum { MANY = 1000000 };
    char *in = malloc(MANY);
    assert_non_null(in);
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        struct dot_reader r = {0}, bytewise = {0};
        struct dot_writer w = {0};
        struct sum whole = {.sum = 1}, cut = {.sum = 1}, wire = {.sum = 1};
        for (size_t k = 0; k < MANY; k++)
            in[k] = odd[i][k % strlen(odd[i])];
        assert_int_equal(dot_read(&r, span_of(in, MANY), add_up, &whole), MANY);
        for (size_t k = 0; k < MANY; k++)
            dot_read(&bytewise, span_of(in + k, 1), add_up, &cut);
        assert_int_equal(whole.n, cut.n);
        assert_int_equal(whole.sum, cut.sum);
        dot_write(&w, span_of(in, MANY), add_up, &wire);
        assert_true(wire.n >= MANY / 2);
    }
    free(in);
}

/* A line of every length before it: what is odd stands anywhere in what is looked at at once. */
static void test_anywhere(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof readings / sizeof *readings; i++)
        for (size_t before = 0; before < 150; before++) {
            const struct reading *c = &readings[i];
            char in[256];
            struct text t = {.n = 0};
            struct dot_reader r = {0};
            memset(in, 'a', before);
            memcpy(in + before, "\r\n", 2);
            memcpy(in + before + 2, c->in, c->nin);
            size_t used = dot_read(&r, span_of(in, before + 2 + c->nin), take, &t);
            if (r.done != (c->used > 0) || (r.done && used != before + 2 + c->used) ||
                t.n < before + 2 + c->nout || memcmp(t.p, in, before + 2) != 0 ||
                memcmp(t.p + before + 2, c->out, c->nout) != 0)
                fail_msg("%s, after %zu bytes: gives \"%.*s\"", c->name, before, (int)t.n, t.p);
        }
}

struct writing {
    const char *in, *out;
};
static const struct writing writings[] = {
    {"a\r\n", "a\r\n.\r\n"},
    {"a", "a\r\n.\r\n"},
    {"", ".\r\n"},
    {".\r\n", "..\r\n.\r\n"},
    {".a\r\n..b\r\n", "..a\r\n...b\r\n.\r\n"},
    {"a\n.\nb", "a\r\n..\r\nb\r\n.\r\n"},
    {"a\r.\rb", "a . b\r\n.\r\n"},
    {"a\r", "a \r\n.\r\n"},
    {"\r\r\n", " \r\n.\r\n"},
};

static void test_write(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof writings / sizeof *writings; i++)
        for (size_t cut = 0; cut <= strlen(writings[i].in); cut++) {
            struct dot_writer w = {0};
            struct text t = {.n = 0};
            struct span in = span_str(writings[i].in);
            dot_write(&w, span_head(in, cut), take, &t);
            dot_write(&w, span_from(in, cut), take, &t);
            dot_end(&w, take, &t);
            if (t.n != strlen(writings[i].out) || memcmp(t.p, writings[i].out, t.n) != 0)
                fail_msg("case %zu, cut at %zu: \"%.*s\"", i, cut, (int)t.n, t.p);
        }
    for (size_t i = 0; i < sizeof writings / sizeof *writings; i++)
        for (size_t before = 0; before < 150; before++) {
            struct dot_writer w = {0};
            struct text t = {.n = 0};
            char in[256];
            int n = snprintf(in, sizeof in, "%0*d\r\n%s", (int)before, 0, writings[i].in);
            dot_write(&w, span_of(in, (size_t)n), take, &t);
            dot_end(&w, take, &t);
            size_t same = (size_t)n - strlen(writings[i].in);
            if (t.n != same + strlen(writings[i].out) || memcmp(t.p, in, same) != 0 ||
                memcmp(t.p + same, writings[i].out, t.n - same) != 0)
                fail_msg("case %zu, after %zu bytes: \"%.*s\"", i, before, (int)t.n, t.p);
        }
}

/* Whatever is read, written and read again is the same, and one message. */
static void test_round(void **state)
{
    (void)state;
    static const char letters[] = "\r\n.a";
    for (unsigned seed = 0; seed < 1 << 16; seed++) {
        char in[8 + 5];
        for (unsigned i = 0; i < 8; i++)
            in[i] = letters[seed >> 2 * i & 3];
        memcpy(in + 8, "\r\n.\r\n", 5);
        struct dot_reader r = {0}, again = {0};
        struct dot_writer w = {0};
        struct text once = {.n = 0}, wire = {.n = 0}, twice = {.n = 0};
        dot_read(&r, span_of(in, sizeof in), take, &once);
        if (!r.done)
            continue; /* "\r" before the end made it text */
        dot_write(&w, span_of(once.p, once.n), take, &wire);
        dot_end(&w, take, &wire);
        assert_int_equal(dot_read(&again, span_of(wire.p, wire.n), take, &twice), wire.n);
        assert_true(again.done && !again.bare_cr && !again.bare_lf);
        assert_int_equal(twice.n, once.n);
        assert_memory_equal(twice.p, once.p, once.n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),     cmocka_unit_test(test_anywhere),
        cmocka_unit_test(test_many_odd), cmocka_unit_test(test_write),
        cmocka_unit_test(test_round),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
