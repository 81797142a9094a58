/* digests_test.c - what the long memory is read back from: whole, newest day first, whatever the
 * disk did to it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "digests.h"
#include "id.h"

static const int64_t DAY = 86400000, NOW = 20000 * 86400000LL + 5000000;
static char dir[] = "/tmp/digests_test_XXXXXX";

/* What digests_close() goes by. */
static int64_t the_clock(void)
{
    return NOW;
}

static int clear(void **state)
{
    (void)state;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (e->d_name[0] != '.')
            unlink(path);
    }
    closedir(d);
    return 0;
}

static unsigned count_files(void)
{
    unsigned n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static struct digests *open_digests(uint32_t key_id)
{
    char error[512];
    struct digests *d = digests_open(dir, key_id, 40 * DAY, error);
    assert_non_null(d);
    return d;
}

/* n digests of each of the days before NOW. */
static void write_days(unsigned days, uint64_t n)
{
    struct digests *d = open_digests(7);
    for (unsigned day = days; day-- > 0;) {
        for (uint64_t i = 0; i < n; i++)
            digests_add(d, day * 10000 + i);
        digests_flush(d, NOW - day * DAY);
    }
    digests_close(&d);
}

struct got {
    uint64_t n, sum;
    int64_t last;
    bool in_order;
};

static void take(void *arg, const uint64_t *digest, size_t n, int64_t when)
{
    struct got *g = arg;
    g->in_order &= when <= g->last;
    g->last = when;
    for (size_t i = 0; i < n; i++) {
        assert_true(when / DAY == NOW / DAY - (int64_t)(digest[i] / 10000));
        g->n++;
        g->sum += digest[i];
    }
}

static struct got read_back(uint32_t key_id, struct digests_figures *f)
{
    struct got g = {.last = INT64_MAX, .in_order = true};
    struct digests *d = open_digests(key_id);
    digests_read(d, NOW, take, &g);
    do {
        usleep(1000);
        digests_figures(d, f);
    } while (f->reading);
    digests_close(&d);
    return g;
}

static uint64_t sum(unsigned days, uint64_t n)
{
    uint64_t s = 0;
    for (uint64_t day = 0; day < days; day++)
        s += n * day * 10000 + n * (n - 1) / 2;
    return s;
}

static void what_was_written_is_read_back_newest_day_first(void **state)
{
    (void)state;
    struct digests_figures f;
    write_days(20, 3000);
    assert_int_equal(count_files(), 20);
    struct got g = read_back(7, &f);
    assert_int_equal(g.n, 60000);
    assert_true(g.sum == sum(20, 3000));
    assert_true(g.in_order);
    assert_int_equal(f.read, 60000);
    assert_int_equal(f.damaged, 0);
    assert_int_equal(f.lost, 0);
    assert_int_equal(f.reached, (NOW / DAY - 19) * DAY);
}

static void a_second_life_goes_on_in_the_same_file(void **state)
{
    (void)state;
    struct digests_figures f;
    write_days(1, 100);
    write_days(1, 100);
    assert_int_equal(count_files(), 1);
    assert_int_equal(read_back(7, &f).n, 200);
}

static void take_today(void *arg, const uint64_t *digest, size_t n, int64_t when)
{
    (void)digest;
    assert_true(when == NOW);
    *(size_t *)arg += n;
}

static void what_a_clock_dated_ahead_is_of_now(void **state)
{
    (void)state;
    struct digests_figures f;
    size_t n = 0;
    struct digests *d = open_digests(7);
    digests_add(d, 4711);
    digests_flush(d, NOW + 4000 * DAY);
    digests_close(&d);
    d = open_digests(7);
    digests_read(d, NOW, take_today, &n);
    do {
        usleep(1000);
        digests_figures(d, &f);
    } while (f.reading);
    digests_close(&d);
    assert_int_equal(n, 1);
}

static void old_files_go_and_are_not_read(void **state)
{
    (void)state;
    struct digests_figures f;
    write_days(50, 10);
    struct got g = read_back(7, &f);
    assert_true(g.n >= 410 && g.n <= 420); /* 40 days and the one they begin in */
    struct digests *d = open_digests(7);
    digests_flush(d, NOW);
    digests_close(&d);
    assert_true(count_files() <= 42);
}

static void another_site_key_reads_nothing_and_harms_nothing(void **state)
{
    (void)state;
    struct digests_figures f;
    write_days(2, 10);
    assert_int_equal(read_back(8, &f).n, 0);
    assert_int_equal(f.damaged, 0);
    assert_int_equal(read_back(7, &f).n, 20);
}

static void path_of_today(char path[512])
{
    DIR *d = opendir(dir);
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.')
            snprintf(path, 512, "%s/%s", dir, e->d_name);
    closedir(d);
}

static void any_damage_costs_its_block_only(void **state)
{
    static const struct {
        const char *name;
        off_t at; /* a byte is changed here, < 0: the file is cut short by so much */
        uint64_t left, damaged;
    } cases[] = {
        {"the head", 3, 0, 1},
        {"the mark of the first block", 16, 2488, 1},
        {"a time", 16 + 8, 2488, 1},
        {"a count", 16 + 16, 2488, 1},
        {"a checksum", 16 + 20, 2488, 1},
        {"a digest of the second block", 16 + 4120 + 100, 2488, 1},
        {"a torn end", -5, 2560, 1},
        {"a torn end of a head", -(24 + 440 * 8 - 10), 2560, 1},
        {"nothing but a head", -(5 * 4120 + 24 + 440 * 8), 0, 0},
        {"less than a head", -(5 * 4120 + 24 + 440 * 8 + 3), 0, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct digests_figures f;
        char path[512];
        struct stat st;
        uint8_t byte;
        clear(state);
        write_days(1, 3000);
        path_of_today(path);
        int fd = open(path, O_RDWR);
        assert_int_equal(fstat(fd, &st), 0);
        if (cases[i].at < 0) {
            assert_int_equal(ftruncate(fd, st.st_size + cases[i].at), 0);
        } else {
            assert_int_equal(pread(fd, &byte, 1, cases[i].at), 1);
            byte ^= 0x10;
            assert_int_equal(pwrite(fd, &byte, 1, cases[i].at), 1);
        }
        close(fd);
        struct got g = read_back(7, &f);
        if (g.n != cases[i].left || f.damaged != cases[i].damaged)
            fail_msg("%s: %llu left, %llu damaged", cases[i].name, (unsigned long long)g.n,
                     (unsigned long long)f.damaged);
    }
}

static void what_comes_after_a_torn_end_is_read(void **state)
{
    (void)state;
    struct digests_figures f;
    char path[512];
    struct stat st;
    write_days(1, 100);
    path_of_today(path);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, st.st_size - 3), 0);
    write_days(1, 200);
    assert_int_equal(read_back(7, &f).n, 200);
    assert_int_equal(f.damaged, 1);
}

static void a_directory_that_is_gone_costs_digests_not_mail(void **state)
{
    (void)state;
    struct digests_figures f;
    char error[512];
    assert_null(digests_open("/nowhere/at/all", 7, DAY, error));
    assert_true(strlen(error) > 10);
    char gone[] = "/tmp/digests_gone_XXXXXX";
    assert_non_null(mkdtemp(gone));
    struct digests *d = digests_open(gone, 7, 40 * DAY, error);
    rmdir(gone);
    digests_add(d, 1);
    digests_flush(d, NOW);
    digests_figures(d, &f);
    assert_int_equal(f.lost, 1);
    digests_close(&d);
}

static void what_waits_is_bounded(void **state)
{
    (void)state;
    struct digests_figures f;
    struct digests *d = open_digests(7);
    for (unsigned i = 0; i < (1 << 20) + 10; i++)
        digests_add(d, i);
    digests_figures(d, &f);
    assert_int_equal(f.lost, 10);
    digests_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(what_was_written_is_read_back_newest_day_first, clear),
        cmocka_unit_test_setup(a_second_life_goes_on_in_the_same_file, clear),
        cmocka_unit_test_setup(what_a_clock_dated_ahead_is_of_now, clear),
        cmocka_unit_test_setup(old_files_go_and_are_not_read, clear),
        cmocka_unit_test_setup(another_site_key_reads_nothing_and_harms_nothing, clear),
        cmocka_unit_test_setup(any_damage_costs_its_block_only, clear),
        cmocka_unit_test_setup(what_comes_after_a_torn_end_is_read, clear),
        cmocka_unit_test_setup(a_directory_that_is_gone_costs_digests_not_mail, clear),
        cmocka_unit_test_setup(what_waits_is_bounded, clear),
    };
    clock_set(the_clock);
    if (!mkdtemp(dir))
        return 1;
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    clear(NULL);
    rmdir(dir);
    return rc;
}
