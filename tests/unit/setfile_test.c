/* setfile_test.c - files a policy names: from the disk, or as they were stored; bounded, and never
 * waited for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "setfile.h"

static char dir[] = "/tmp/setfile.XXXXXX";

static const char *path(const char *name)
{
    static char out[200];
    snprintf(out, sizeof out, "%s/%s", dir, name);
    return out;
}

static void put(const char *name, const char *text, size_t n)
{
    FILE *f = fopen(path(name), "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    fclose(f);
}

static int set_up(void **state)
{
    (void)state;
    static char large[SETFILES_BYTES + 1];
    memset(large, 'x', sizeof large);
    assert_non_null(mkdtemp(dir));
    put("plain", "a\nb\n", 4);
    put("empty", "", 0);
    put("latin", "caf\xe9\n", 5);
    put("nul", "a\0b", 3);
    put("most", large, SETFILES_BYTES);
    put("more", large, SETFILES_BYTES + 1);
    assert_int_equal(mkfifo(path("pipe"), 0600), 0);
    assert_int_equal(mkdir(path("directory"), 0700), 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    static const char *const names[] = {"plain", "empty", "latin", "nul", "most", "more", "pipe"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlink(path(names[i]));
    rmdir(path("directory"));
    return rmdir(dir);
}

/* Asks the source as policy_load does; NULL: refused, why says why. */
static const char *ask(struct setfiles *f, struct arena *a, const char *name, char why[200])
{
    struct policy_source s = setfiles_source(f);
    struct span text;
    return s.read(s.arg, a, span_str(name), &text, why) ? arena_str(a, text) : NULL;
}

static void files_are_read_or_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text, *why;
    } t[] = {
        {"plain", "a\nb\n", NULL},
        {"./plain", "a\nb\n", NULL},
        {"empty", "", NULL},
        {"latin", NULL, "not UTF-8"},
        {"nul", NULL, "not UTF-8"},
        {"more", NULL, "4096 KB at most"},
        {"pipe", NULL, "no regular file"},
        {"directory", NULL, "no regular file"},
        {"nothing", NULL, "No such file"},
        {"", NULL, "no regular file"},
        {"/dev/zero", NULL, "no regular file"},
        {"caf\xe9", NULL, "path is not UTF-8"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct arena *a = arena_new();
        struct setfiles f = {.directory = dir};
        char why[200] = "";
        const char *text = ask(&f, a, t[i].name, why);
        if (t[i].text ? !text || strcmp(text, t[i].text) != 0 : text || !strstr(why, t[i].why))
            fail_msg("%s: %s", t[i].name, text ? text : why);
        assert_int_equal(json_object_size(f.read), t[i].text ? 1 : 0);
        setfiles_clear(&f);
        arena_free(&a);
    }
}

static void all_together_are_bounded(void **state)
{
    (void)state;
    struct arena *a = arena_new();
    struct setfiles f = {.directory = dir};
    char why[200];
    assert_non_null(ask(&f, a, "most", why));
    assert_null(ask(&f, a, "plain", why));
    assert_non_null(ask(&f, a, "empty", why));
    setfiles_clear(&f);
    assert_non_null(ask(&f, a, "plain", why));
    setfiles_clear(&f);
    arena_free(&a);
}

static void what_was_stored_takes_the_place_of_what_is_gone(void **state)
{
    (void)state;
    struct arena *a = arena_new();
    json_t *stored = json_pack("{ssss}", "plain", "old\n", "gone", "still\n");
    struct setfiles f = {.directory = dir, .stored = stored};
    char why[200];
    assert_string_equal(ask(&f, a, "plain", why), "a\nb\n");
    assert_string_equal(ask(&f, a, "gone", why), "still\n");
    assert_string_equal(json_get_str(f.read, "plain"), "a\nb\n");
    f.directory = NULL; /* as it was stored, exactly */
    assert_string_equal(ask(&f, a, "plain", why), "old\n");
    assert_null(ask(&f, a, "empty", why));
    assert_non_null(strstr(why, "stored without this file"));
    setfiles_clear(&f);
    json_decref(stored);
    arena_free(&a);
}

/* Since a version was stored its directory may have gone, and come again as somebody else's. */
static void what_anybody_may_have_put_there_is_not_read_for_a_stored_version(void **state)
{
    (void)state;
    static const struct {
        mode_t directory, file;
        const char *text;
    } t[] = {
        {0700, 0600, "a\nb\n"}, {0755, 0644, "a\nb\n"}, {0775, 0664, "a\nb\n"},
        {0777, 0644, "old\n"},  {01777, 0644, "old\n"}, {0755, 0666, "old\n"},
    };
    json_t *stored = json_pack("{ss}", "plain", "old\n");
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct arena *a = arena_new();
        struct setfiles f = {.directory = dir, .stored = stored};
        char why[200];
        assert_int_equal(chmod(path("plain"), t[i].file) | chmod(dir, t[i].directory), 0);
        assert_string_equal(ask(&f, a, "plain", why), t[i].text);
        f.stored = NULL; /* who names a file now knows what it is */
        assert_string_equal(ask(&f, a, "plain", why), "a\nb\n");
        setfiles_clear(&f);
        arena_free(&a);
    }
    json_decref(stored);
    assert_int_equal(chmod(dir, 0700), 0);
}

static void what_was_given_is_bounded_too(void **state)
{
    (void)state;
    struct arena *a = arena_new();
    static char text[SETFILES_BYTES + 2];
    char why[200];
    memset(text, 'x', SETFILES_BYTES + 1);
    json_t *given = json_pack("{ssss}", "more", text, "most", text + 1);
    struct setfiles f = {.stored = given};
    assert_null(ask(&f, a, "more", why));
    assert_non_null(strstr(why, "4096 KB at most"));
    assert_non_null(ask(&f, a, "most", why));
    assert_null(ask(&f, a, "most", why));
    setfiles_clear(&f);
    json_decref(given);
    arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_read_or_refused),
        cmocka_unit_test(all_together_are_bounded),
        cmocka_unit_test(what_was_stored_takes_the_place_of_what_is_gone),
        cmocka_unit_test(what_anybody_may_have_put_there_is_not_read_for_a_stored_version),
        cmocka_unit_test(what_was_given_is_bounded_too),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
