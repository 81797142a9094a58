/* body_test.c - what is put into a body comes out, or the body says it is lost. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "body.h"

static uint8_t *pattern; /* 1 MiB that repeats nowhere near a chunk's length */
enum { PATTERN = 1 << 20 };

struct reading {
    size_t at, pieces, stop_after; /* stop_after 0: never */
};

static int compare(void *arg, struct span s)
{
    struct reading *r = arg;
    assert_true(s.n > 0 && r->at + s.n <= PATTERN);
    assert_memory_equal(s.p, pattern + r->at, s.n);
    r->at += s.n;
    r->pieces++;
    return r->pieces == r->stop_after;
}

static void fill(struct body *b, size_t n, size_t step)
{
    for (size_t at = 0; at < n; at += step)
        body_add(b, span_of(pattern + at, step < n - at ? step : n - at));
}

static void bytes_come_back(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        const char *dir;
        size_t bytes, step;
        uint64_t memory, total;
        bool lost;
    } cases[] = {
        {"an empty body", NULL, 0, 1, 1 << 20, 1 << 20, false},
        {"one byte", NULL, 1, 1, 1 << 20, 1 << 20, false},
        {"a full first chunk", NULL, 4096, 4096, 1 << 20, 1 << 20, false},
        {"one byte more", NULL, 4097, 4097, 1 << 20, 1 << 20, false},
        {"many small pieces", NULL, 200000, 7, 1 << 20, 1 << 20, false},
        {"exactly the memory of a message", NULL, 100000, 333, 100000, 1 << 20, false},
        {"one byte beyond it and no directory", NULL, 100001, 333, 100000, 1 << 20, true},
        {"one byte beyond it goes to the file", "/tmp", 100001, 333, 100000, 1 << 20, false},
        {"no memory at all", "/tmp", 300000, 65536, 0, 1 << 20, false},
        {"all messages' memory is used up", "/tmp", 300000, 65536, 1 << 20, 5000, false},
        {"the same without a directory", NULL, 300000, 65536, 1 << 20, 5000, true},
        {"a directory that is not there", "/nonexistent", 5000, 100, 10, 1 << 20, true},
        {"a directory that is a file", "/dev/null", 5000, 100, 10, 1 << 20, true},
        {"one great piece through chunks and file", "/tmp", PATTERN, PATTERN, 300000, 1 << 20,
         false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        print_message("  %s\n", cases[i].name);
        struct body *b = body_new(cases[i].dir, cases[i].memory, cases[i].total);
        struct reading r = {0};
        fill(b, cases[i].bytes, cases[i].step);
        body_seal(b);
        assert_int_equal(body_lost(b), cases[i].lost);
        assert_int_equal(body_size(b), cases[i].lost ? 0 : cases[i].bytes);
        assert_int_equal(body_each(b, compare, &r), cases[i].lost ? -1 : 0);
        assert_int_equal(r.at, body_size(b));
        body_drop(&b);
        assert_null(b);
    }
}

static void memory_is_given_back(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++) { /* would not fit in `total` if anything stayed counted */
        struct body *b = body_new(NULL, 200000, 300000), *lost = body_new(NULL, 10, 300000);
        fill(b, 150000, 1000);
        fill(lost, 100, 10);
        assert_false(body_lost(b));
        assert_true(body_lost(lost));
        body_drop(&b);
        body_drop(&lost);
    }
}

static void reading_stops_when_told(void **state)
{
    (void)state;
    struct body *b = body_new("/tmp", 5000, 1 << 20);
    struct reading first = {.stop_after = 1}, third = {.stop_after = 3};
    fill(b, 200000, 1000);
    assert_int_equal(body_each(b, compare, &first), -1);
    assert_int_equal(body_each(b, compare, &third), -1);
    assert_int_equal(first.pieces, 1);
    assert_int_equal(third.pieces, 3);
    body_drop(&b);
}

static void the_last_one_frees(void **state)
{
    (void)state;
    struct body *b = body_new("/tmp", 5000, 1 << 20), *keeper;
    struct reading r = {0};
    fill(b, 20000, 1000);
    body_seal(b);
    keeper = body_hold(b);
    body_drop(&b);
    assert_int_equal(body_each(keeper, compare, &r), 0);
    assert_int_equal(r.at, 20000);
    body_drop(&keeper);
    body_drop(&keeper); /* NULL inside is fine */
}

static void the_file_has_no_name(void **state)
{
    (void)state;
    char dir[] = "/tmp/body_test.XXXXXX";
    assert_non_null(mkdtemp(dir));
    struct body *b = body_new(dir, 10, 1 << 20);
    fill(b, 100000, 1000);
    assert_false(body_lost(b));
    assert_int_equal(rmdir(dir), 0); /* empty */
    struct reading r = {0};
    assert_int_equal(body_each(b, compare, &r), 0);
    body_drop(&b);
}

static int make_pattern(void **state)
{
    (void)state;
    pattern = malloc(PATTERN);
    uint32_t x = 1;
    for (size_t i = 0; i < PATTERN; i++)
        pattern[i] = (uint8_t)((x = x * 1664525 + 1013904223) >> 24);
    return pattern ? 0 : -1;
}

static int free_pattern(void **state)
{
    (void)state;
    free(pattern);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_come_back),         cmocka_unit_test(memory_is_given_back),
        cmocka_unit_test(reading_stops_when_told), cmocka_unit_test(the_last_one_frees),
        cmocka_unit_test(the_file_has_no_name),
    };
    return cmocka_run_group_tests(tests, make_pattern, free_pattern);
}
