/* set_test.c - what a set holds, what is no entry of one, and what it costs to ask. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "set.h"

static struct arena *arena;

static int begin(void **state)
{
    (void)state;
    arena = arena_new();
    return 0;
}

static int end(void **state)
{
    (void)state;
    arena_free(&arena);
    return 0;
}

/* A set of what stands in a file. */
static struct set *of(const char *text)
{
    struct set *set = set_new(arena, "it");
    char why[SET_WHY];
    unsigned line = set_read(set, span_str(text), why);
    if (line)
        fail_msg("%u: %s", line, why);
    set_seal(set);
    return set;
}

static void what_is_in_a_set(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        enum shape shape;
        const char *text;
        bool in;
    } t[] = {
        {"a.example\nb.example", SHAPE_HOST, "a.example", true},
        {"a.example\nb.example", SHAPE_HOST, "B.EXAMPLE", true},
        {"A.Example", SHAPE_HOST, "a.example", true},
        {"a.example", SHAPE_HOST, "c.example", false},
        {"a.example", SHAPE_HOST, "x.a.example", false},
        {"a.example", SHAPE_HOST, "a.exampl", false},
        {"a.example", SHAPE_HOST, "", false},
        {"", SHAPE_HOST, "", false},
        {".a.example", SHAPE_HOST, "x.a.example", true},
        {".a.example", SHAPE_HOST, "y.x.A.example", true},
        {".a.example", SHAPE_HOST, "a.example", false},
        {".a.example", SHAPE_HOST, ".a.example", false},
        {".a.example", SHAPE_HOST, "xa.example", false},
        {"*.a.example", SHAPE_HOST, "x.a.example", true},
        {"*.a.example", SHAPE_HOST, "a.example", false},
        {".a.example\na.example", SHAPE_HOST, "a.example", true},
        {".a.example", SHAPE_TEXT, "x.a.example", false}, /* a text is no host name */
        {"out of office", SHAPE_TEXT, "Out Of Office", true},
        {"out of office", SHAPE_TEXT, "out of office ", false},
        {"anna@a.example", SHAPE_MAILBOX, "Anna@A.example", true},
        {"anna@a.example", SHAPE_MAILBOX, "hanna@a.example", false},
        {"anna@a.example", SHAPE_MAILBOX, "anna@a.example.org", false},
        {"@a.example", SHAPE_MAILBOX, "bert@a.example", true},
        {"*@a.example", SHAPE_MAILBOX, "bert@a.example", true},
        {"@a.example", SHAPE_MAILBOX, "bert@x.a.example", false},
        {"@a.example", SHAPE_MAILBOX, "\"x@y\"@a.example", true},
        {"@a.example", SHAPE_MAILBOX, "x@a.example@b.example", false},
        {"@.a.example", SHAPE_MAILBOX, "bert@x.a.example", true},
        {"@.a.example", SHAPE_MAILBOX, "bert@a.example", false},
        {"*@*.a.example", SHAPE_MAILBOX, "bert@x.a.example", true},
        {"anna@*", SHAPE_MAILBOX, "anna@z.example", true},
        {"anna@*", SHAPE_MAILBOX, "anna", true},
        {"anna@*", SHAPE_MAILBOX, "bert@z.example", false},
        {"anna@*", SHAPE_MAILBOX, "anna@", true},
        {"<>", SHAPE_MAILBOX, "", true},
        {"<>", SHAPE_MAILBOX, "anna@a.example", false},
        {"@a.example", SHAPE_MAILBOX, "", false},
        {"@a.example", SHAPE_MAILBOX, "a.example", false},
        {"<>\n@a.example", SHAPE_MAILBOX, "x@a.example", true},
        /* comments, blanks, line ends */
        {"# all\r\n  a.example \t# one\r\n\r\nb.example#c\r\n", SHAPE_HOST, "a.example", true},
        {"# all\r\n  a.example # one\r\nb.example#c", SHAPE_HOST, "b.example", false},
        {"# all\r\n  a.example # one\r\nb.example#c", SHAPE_TEXT, "b.example#c", true},
        {"\xef\xbb\xbf"
         "a.example\n",
         SHAPE_HOST, "a.example", true},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++)
        if (set_has_text(of(t[i].file), t[i].shape, span_str(t[i].text)) != t[i].in)
            fail_msg("'%s' in '%s' is not %d", t[i].text, t[i].file, t[i].in);
}

static void which_networks_have_an_address(void **state)
{
    (void)state;
    static const struct {
        const char *file, *address;
        bool in;
    } t[] = {
        {"192.0.2.7", "192.0.2.7", true},
        {"192.0.2.7", "192.0.2.6", false},
        {"192.0.2.7", "192.0.2.8", false},
        {"192.0.2.0/24", "192.0.2.0", true},
        {"192.0.2.0/24", "192.0.2.255", true},
        {"192.0.2.0/24", "192.0.3.0", false},
        {"192.0.2.0/24", "192.0.1.255", false},
        {"192.0.2.77/24", "192.0.2.1", true},
        {"192.0.2.0/25\n192.0.2.192/26", "192.0.2.128", false},
        {"192.0.2.0/25\n192.0.2.192/26", "192.0.2.192", true},
        {"192.0.2.192/26\n192.0.2.0/25", "192.0.2.127", true},
        /* one within another: the inner one hides nothing of the outer one */
        {"10.0.0.0/8\n10.1.0.0/16", "10.2.0.0", true},
        {"10.1.0.0/16\n10.0.0.0/8", "10.255.255.255", true},
        {"10.0.0.0/8\n10.1.0.0/16\n12.0.0.0/8", "11.0.0.0", false},
        {"0.0.0.0/0", "255.255.255.255", true},
        {"0.0.0.0/0", "2001:db8::1", false},
        {"::/0", "2001:db8::1", true},
        {"::/0", "192.0.2.7", false},
        {"::/0\n192.0.2.7", "192.0.2.7", true},
        {"2001:db8::/33", "2001:db8:7fff::1", true},
        {"2001:db8::/33", "2001:db8:8000::1", false},
        {"2001:db8::7", "2001:db8::7", true},
        {"", "192.0.2.7", false},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct ipaddr a;
        assert_true(ipaddr_parse(&a, span_str(t[i].address)));
        if (set_has_address(of(t[i].file), &a) != t[i].in)
            fail_msg("%s in '%s' is not %d", t[i].address, t[i].file, t[i].in);
    }
    assert_false(set_has_address(of("0.0.0.0/0\n::/0"), &(struct ipaddr){0}));
}

static void what_is_no_entry_is_refused_with_its_line(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        unsigned line;
        const char *says;
    } t[] = {
        {"a.example\n192.0.2.7\n", 2, "is one of networks, and the set began with texts"},
        {"192.0.2.7\n\n# x\nanna@a.example", 4, "is one of mail addresses, and the set began with"},
        {"anna@a.example\na.example", 2, "is one of texts, and the set began with mail addresses"},
        {"192.0.2.0/33", 1, "'192.0.2.0/33' is no network"},
        {"192.0.2.256", 1, "is no network"},
        {"2001:db8::/129", 1, "is no network"},
        {"\"a.example\"", 1, "without quotes"},
        {"a*.example", 1, "a set * stands only"},
        {"anna@a.*", 1, "a set * stands only"},
        {"a*@a.example", 1, "a set * stands only"},
        {"*", 1, "a set * stands only"},
        {"*@*", 1, "is none of"},
        {"@*", 1, "is none of"},
        {"anna@", 1, "is none of"},
        {"@", 1, "is none of"},
        {"@.", 1, NULL},
        {"anna@.a.example", 1, "is none of"},
        {"anna@a.example bert@a.example", 1, "has a blank in it"},
        {"a\x01", 1, "control character"},
        {"a\x7f", 1, "control character"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct set *set = set_new(arena, "it");
        char why[SET_WHY] = "";
        unsigned line = set_read(set, span_str(t[i].file), why);
        if (line != (t[i].says ? t[i].line : 0) || (t[i].says && !strstr(why, t[i].says)))
            fail_msg("'%s': %u: %s", t[i].file, line, why);
    }
    static char longest[SET_ENTRY_BYTES + 2];
    char why[SET_WHY];
    memset(longest, 'a', SET_ENTRY_BYTES);
    assert_true(set_add(set_new(arena, "it"), span_str(longest), why));
    longest[SET_ENTRY_BYTES] = 'a';
    assert_false(set_add(set_new(arena, "it"), span_str(longest), why));
    assert_false(set_add(set_new(arena, "it"), SPAN(""), why));
}

static void large_sets_are_complete(void **state)
{
    (void)state;
    enum { N = 100000 };
    struct set *names = set_new(arena, "names"), *nets = set_new(arena, "nets");
    char why[SET_WHY], text[64];
    for (unsigned i = 0; i < N; i++) {
        unsigned k = i * 7919u % N; /* not in order */
        snprintf(text, sizeof text, "user%u@domain%u.example", k, k % 1000);
        assert_true(set_add(names, span_str(text), why));
        snprintf(text, sizeof text, "10.%u.%u.%u", k >> 15 & 255, k >> 7 & 255, 2 * k & 255);
        assert_true(set_add(nets, span_str(text), why));
    }
    set_seal(names);
    set_seal(nets);
    assert_int_equal(set_size(names), N);
    for (unsigned i = 0; i < N; i++) {
        struct ipaddr a;
        snprintf(text, sizeof text, "user%u@domain%u.example", i, i % 1000);
        assert_true(set_has_text(names, SHAPE_MAILBOX, span_str(text)));
        snprintf(text, sizeof text, "user%u@domain%u.example", i, (i + 1) % 1000);
        assert_false(set_has_text(names, SHAPE_MAILBOX, span_str(text)));
        snprintf(text, sizeof text, "10.%u.%u.%u", i >> 15 & 255, i >> 7 & 255, 2 * i & 255);
        assert_true(ipaddr_parse(&a, span_str(text)));
        assert_true(set_has_address(nets, &a));
        a.byte[15] ^= 1;
        assert_false(set_has_address(nets, &a));
    }
}

static void a_set_has_an_end(void **state)
{
    (void)state;
    size_t n = 2 * (size_t)SET_ENTRIES + 2;
    uint8_t *text = malloc(n);
    char why[SET_WHY] = "";
    assert_non_null(text);
    for (size_t i = 0; i < n; i += 2)
        memcpy(text + i, "a\n", 2);
    struct set *set = set_new(arena, "it");
    assert_int_equal(set_read(set, span_of(text, n - 2), why), 0);
    assert_int_equal(set_read(set_new(arena, "it"), span_of(text, n), why), SET_ENTRIES + 1);
    assert_non_null(strstr(why, "more than 1000000 entries"));
    assert_int_equal(set_read(set, span_of(text, (size_t)SET_BYTES + 1), why), 1);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_in_a_set),
        cmocka_unit_test(which_networks_have_an_address),
        cmocka_unit_test(what_is_no_entry_is_refused_with_its_line),
        cmocka_unit_test(large_sets_are_complete),
        cmocka_unit_test(a_set_has_an_end),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
