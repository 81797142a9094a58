/* mime_test.c - the parts a sink is told of, as one line of text a message. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "mime.h"

struct told {
    char text[4000];
    size_t n;
    int depth, leaf;
};

static void tell(struct told *t, const char *what, struct span s)
{
    int n = snprintf(t->text + t->n, sizeof t->text - t->n, "%s%.*s", what, SPAN_ARG(s));
    assert_true(n >= 0 && t->n + (size_t)n < sizeof t->text);
    t->n += (size_t)n;
}

static void on_open(void *arg, bool alternative)
{
    struct told *t = arg;
    assert_int_equal(t->leaf, 0);
    t->depth++;
    tell(t, alternative ? "alt(" : "(", SPAN(""));
}

static void on_close(void *arg)
{
    struct told *t = arg;
    assert_int_equal(t->leaf, 0);
    t->depth--;
    tell(t, ")", SPAN(""));
}

static bool on_leaf(void *arg, const struct mime_leaf *leaf)
{
    struct told *t = arg;
    assert_int_equal(t->leaf++, 0);
    tell(t,
         leaf->kind == MIME_ATTACHMENT ? "att"
         : leaf->kind == MIME_HTML     ? "html"
                                       : "text",
         SPAN("["));
    return true;
}

static void on_bytes(void *arg, struct span s)
{
    struct told *t = arg;
    assert_int_equal(t->leaf, 1);
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] != '\r')
            tell(t, "", s.p[i] == '\n' ? SPAN("/") : span_of(s.p + i, 1));
}

static void on_leaf_end(void *arg)
{
    struct told *t = arg;
    t->leaf--;
    tell(t, "]", SPAN(""));
}

static void read_parts(struct told *t, struct span raw, size_t step)
{
    const struct mime_sink sink = {t, on_open, on_close, on_leaf, on_bytes, on_leaf_end};
    struct arena *a = arena_new();
    struct message *m = message_new(a);
    struct span body = message_add_raw(m, raw);
    message_end_header(m);
    body = span_from(body, m->blank);
    *t = (struct told){.n = 0};
    struct mime *mime = mime_begin(a, m, &sink);
    for (; body.n; body = span_from(body, step))
        mime_body(mime, span_head(body, step));
    mime_end(mime);
    assert_int_equal(t->depth + t->leaf, 0);
    arena_free(&a);
}

#define MIXED "Content-Type: multipart/mixed; boundary=x\n\n"
static const struct {
    const char *name, *raw, *want;
} cases[] = {
    {"plain", "\nhello\n", "text[hello/]"},
    {"nothing", "", "text[]"},
    {"HTML", "Content-Type: Text/HTML\n\n<p>", "html[<p>]"},
    {"no type", "Content-Type: text\n\nx", "text[x]"},
    {"a comment in the type", "Content-Type: (c) text/html (d); x=y\n\nx", "html[x]"},
    {"an image", "Content-Type: image/png\nContent-Transfer-Encoding: base64\n\naGk=\n", "att[hi]"},
    {"an attached text", "Content-Disposition: ATTACHMENT; filename=x\n\nx", "att[x]"},
    {"an inline text", "Content-Disposition: inline; filename=x\n\nx", "text[x]"},
    {"two parts", MIXED "--x\n\na\n--x\n\nb\n--x--\n", "(text[a/]text[b/])"},
    {"preamble and epilogue", MIXED "pre\n--x\n\na\n--x--\npost\n--x\nno\n", "(text[a/])"},
    {"no end", MIXED "--x\n\na", "(text[a])"},
    {"no part", MIXED "nothing", "()"},
    {"a part without an empty line", MIXED "--x\nContent-Type: text/html\n--x\n\nb\n--x--\n",
     "(html[]text[b/])"},
    {"a part whose header is none", MIXED "--x\nhello there\n--x--\n", "(text[hello there/])"},
    {"an empty part", MIXED "--x\n--x\n\n--x--", "(text[]text[])"},
    {"the boundary in the header is none", MIXED "--x\nA: b\n --x\n\nc\n--x--", "(text[c/])"},
    {"lines like a boundary", MIXED "--x\n\n--\n-x\n--xx\n --x\n--x -\n--x--y\n--x--\n",
     "(text[--/-x/--xx/ --x/--x -/--x--y/])"},
    {"blanks after the boundary", MIXED "--x \t\r\n\na\n--x-- \n", "(text[a/])"},
    {"quotes and blanks",
     "Content-Type: multipart/mixed; charset=\"a\\\"b\"; boundary = \"x y \"\n\n"
     "--x y\n\na\n--x y--\n",
     "(text[a/])"},
    {"an unbalanced quote", "Content-Type: multipart/mixed; boundary=\"x\n\n--x\n\na\n--x--",
     "(text[a/])"},
    {"an empty boundary", "Content-Type: multipart/mixed; boundary=\"\"\n\n--\n\na\n",
     "text[--//a/]"},
    {"the first of two boundaries",
     "Content-Type: multipart/mixed; boundary=x; boundary=y\n\n--x\n\na", "(text[a])"},
    {"nested",
     MIXED "--x\nContent-Type: multipart/alternative; boundary=y\n\n--y\n\na\n--y--\nno\n--x"
           "\n\nb\n--x--\n",
     "(alt(text[a/])text[b/])"},
    {"nested without an end",
     MIXED "--x\nContent-Type: multipart/alternative; boundary=y\n\n--y\n\na\n"
           "--x\n\nb\n",
     "(alt(text[a/])text[b/])"},
    {"nested with a boundary that begins alike",
     MIXED
     "--x\nContent-Type: multipart/mixed; boundary=xy\n\n--xy\n\na\n--xy--\n--x\n\nb\n--x--\n",
     "((text[a/])text[b/])"},
    {"the outer begins with the inner one",
     "Content-Type: multipart/mixed; boundary=xy\n\n--xy\nContent-Type: multipart/mixed; "
     "boundary=x\n\n"
     "--x\n\na\n--x--\n--xy\n\nb\n--xy--\n",
     "((text[a/])text[b/])"},
    {"an enclosed message", MIXED "--x\nContent-Type: message/rfc822\n\nSubject: s\n\na\n--x--\n",
     "((text[a/]))"},
    {"an enclosed multipart",
     MIXED
     "--x\nContent-Type: message/rfc822\n\nContent-Type: multipart/mixed; boundary=y\n\n--y\n\na\n"
     "--y--\n--x--\n",
     "(((text[a/])))"},
    {"an enclosed message in base64",
     MIXED "--x\nContent-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\naGk=\n--x--\n",
     "(att[hi])"},
    {"an enclosed message of nothing", MIXED "--x\nContent-Type: message/rfc822\n\n", "((text[]))"},
    {"a digest", "Content-Type: multipart/digest; boundary=x\n\n--x\n\nS: s\n\na\n--x--\n",
     "((text[a/]))"},
    {"quoted-printable", "Content-Transfer-Encoding: quoted-printable\n\na=\n=3Db=3\n= c =  \nd=x=",
     "text[a=b=3/= c d=x]"},
    {"base64", "Content-Transfer-Encoding: Base64\n\naG!k=aA==\naG", "text[hihh]"},
    {"an unknown encoding", "Content-Transfer-Encoding: x-uuencode\n\nbegin", "text[begin]"},
};

static void parts_are_told_however_they_are_cut(void **state)
{
    (void)state;
    static struct told t;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct span raw = span_str(cases[i].raw);
        for (size_t step = 1; step <= raw.n + 1; step++) {
            read_parts(&t, raw, step);
            if (strcmp(t.text, cases[i].want) != 0)
                fail_msg("%s, in pieces of %zu: %s, not %s", cases[i].name, step, t.text,
                         cases[i].want);
        }
    }
}

static void too_deep_is_one_opaque_leaf(void **state)
{
    (void)state;
    static struct told t;
    char raw[4000] = MIXED;
    size_t n = strlen(raw);
    for (int i = 0; i < LIMIT_MIME_DEPTH + 3; i++)
        n += (size_t)sprintf(raw + n, "--x%.*s\nContent-Type: multipart/mixed; boundary=x%.*s\n\n",
                             i, "abcdefghijklmn", i + 1, "abcdefghijklmn");
    read_parts(&t, span_of(raw, n), n);
    assert_int_equal(strspn(t.text, "("), LIMIT_MIME_DEPTH);
    assert_memory_equal(t.text + LIMIT_MIME_DEPTH, "att[--x", 7);
}

static void no_more_leaves_than_the_limit(void **state)
{
    (void)state;
    static struct told t;
    char raw[4000] = MIXED;
    size_t n = strlen(raw), leaves = 0;
    for (int i = 0; i < LIMIT_MIME_PARTS + 5; i++)
        n += (size_t)sprintf(raw + n, "--x\n\na\n");
    read_parts(&t, span_of(raw, n), n);
    for (const char *p = t.text; (p = strstr(p, "text[a/]")) != NULL; p++)
        leaves++;
    assert_int_equal(leaves, LIMIT_MIME_PARTS);
}

static void values_have_a_type_and_parameters(void **state)
{
    (void)state;
    static const struct {
        const char *value, *type, *charset, *boundary;
    } values[] = {
        {" text/plain; charset=utf-8", "text/plain", "utf-8", ""},
        {" text/plain ;\r\n\tcharset = \"utf-8\" ; format=flowed", "text/plain", "utf-8", ""},
        {"multipart/mixed;boundary=\"a;b=c\"", "multipart/mixed", "", "a;b=c"},
        {"multipart/mixed; boundary=a/b=c", "multipart/mixed", "", "a/b=c"},
        {"multipart/mixed; boundary=\"a\\\"b\"", "multipart/mixed", "", "a\"b"},
        {"a/b; x; charset=c; ;; y=\"", "a/b", "c", ""},
        {"(x (y) \\) z) a/b", "a/b", "", ""},
        {"a/b (unclosed ; charset=c", "a/b", "", ""},
        {"; charset=c", "", "c", ""},
        {"", "", "", ""},
        {"a/b; CHARSET=c; charset=d", "a/b", "c", ""},
    };
    struct arena *a = arena_new();
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        struct mime_value v;
        mime_value_parse(&v, a, span_str(values[i].value));
        if (!span_eq(v.type, span_str(values[i].type)) ||
            !span_eq(v.charset, span_str(values[i].charset)) ||
            !span_eq(v.boundary, span_str(values[i].boundary)))
            fail_msg("%s: \"%.*s\", \"%.*s\", \"%.*s\"", values[i].value, SPAN_ARG(v.type),
                     SPAN_ARG(v.charset), SPAN_ARG(v.boundary));
    }
    arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_have_a_type_and_parameters),
        cmocka_unit_test(parts_are_told_however_they_are_cut),
        cmocka_unit_test(too_deep_is_one_opaque_leaf),
        cmocka_unit_test(no_more_leaves_than_the_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
