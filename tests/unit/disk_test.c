/*
 * disk_test.c - the keeper on disks that fill up, break and come back: nothing is acknowledged that
 * is not there afterwards, and nothing refused is. On file systems of its own, so only for root.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "keeper.h"
#include "log.h"

enum { MAILS = 2000, BODY = 12000 };
#define ID(n) ((UINT64_C(1138037000000) << 22) + (uint64_t)(n)*8)
#define NOW INT64_C(1138037000000)

static char dir[64], disk[96], image[96];
static const char *why_not; /* file systems cannot be mounted here */
static struct keeper *keeper;
static int answer[MAILS]; /* to each put: 1 done, -1 refused, 0 not asked */

static int make(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/disk_test.XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(disk, sizeof(disk), "%s/disk", dir);
    snprintf(image, sizeof(image), "%s/image", dir);
    log_open("stderr", LOG_NOTHING);
    if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
        why_not = strerror(errno);
    return 0;
}

static int unmake(void **state)
{
    (void)state;
    return rmdir(dir);
}

static int make_disk(void **state)
{
    (void)state;
    memset(answer, 0, sizeof(answer));
    return mkdir(disk, 0700);
}

static int unmake_disk(void **state)
{
    (void)state;
    if (keeper)
        keeper_stop(&keeper);
    umount2(disk, MNT_DETACH);
    unlink(image);
    return rmdir(disk);
}

/* cmocka's skip() says no reason. */
#define SKIP_IF(problem)                                                                           \
    do {                                                                                           \
        if (problem) {                                                                             \
            printf("skip: %s: no file system can be mounted: %s\n", __func__, problem);            \
            skip();                                                                                \
        }                                                                                          \
    } while (0)

static void mount_memory(const char *size)
{
    assert_int_equal(mount("tmpfs", disk, "tmpfs", 0, size), 0);
}

static void grow_memory(const char *size)
{
    assert_int_equal(mount("tmpfs", disk, "tmpfs", MS_REMOUNT, size), 0);
}

static void start(void)
{
    char error[512] = "";
    keeper = keeper_start(disk, error);
    if (!keeper)
        fail_msg("%s", error);
}

/* Puts, each an own mail with a body no compression makes smaller. */

static uint8_t *body_of(int n)
{
    uint8_t *p = malloc(BODY);
    uint64_t x = (uint64_t)n * UINT64_C(0x9E3779B97F4A7C15) + 1;
    assert_non_null(p);
    for (size_t i = 0; i < BODY; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        p[i] = (uint8_t)x;
    }
    return p;
}

struct request {
    struct job job; /* must be first */
    int n;
};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static int waiting;

static int run_put(struct hold *h, struct job *job)
{
    int n = ((struct request *)job)->n;
    uint8_t *text = body_of(n);
    struct body *b = body_new(NULL, 1 << 20, 1 << 20);
    body_add(b, span_of(text, BODY));
    body_seal(b);
    struct held_copy copy = {
        .id = ID(n) + 1, .rcpt = SPAN("<r@x.example>"), .rcpt_hash = 5, .number = 2};
    struct held_mail m = {.id = ID(n),
                          .arrival = NOW,
                          .rule = SPAN("duplicate"),
                          .k = {{1}},
                          .head = SPAN("Subject: one of many\r\n\r\n"),
                          .body = b,
                          .copies = &copy,
                          .ncopies = 1};
    int rc = hold_put(h, &m);
    body_drop(&b);
    free(text);
    return rc;
}

static void put_done(struct job *job)
{
    struct request *r = (struct request *)job;
    pthread_mutex_lock(&lock);
    assert_int_equal(answer[r->n], 0);
    answer[r->n] = r->job.result == 0 ? 1 : -1;
    waiting--;
    pthread_cond_signal(&wake);
    pthread_mutex_unlock(&lock);
    free(r);
}

/* Puts mails from..to-1 together and waits for the answers; how many were done. */
static int put(int from, int to)
{
    int done = 0;
    waiting = to - from;
    for (int n = from; n < to; n++) {
        struct request *r = calloc(1, sizeof(*r));
        assert_non_null(r);
        *r = (struct request){.job = {.run = run_put, .done = put_done}, .n = n};
        keeper_submit(keeper, &r->job);
    }
    pthread_mutex_lock(&lock);
    while (waiting)
        pthread_cond_wait(&wake, &lock);
    for (int n = from; n < to; n++)
        done += answer[n] == 1;
    pthread_mutex_unlock(&lock);
    return done;
}

/* Ten at a time: what is put together is kept or refused together. */
static int put_by_tens(int from, int to)
{
    int done = 0;
    for (int n = from; n < to; n += 10)
        done += put(n, n + 10);
    return done;
}

static void check_mail(struct hold *h, int n)
{
    static const char head[] = "Subject: one of many\r\n\r\n";
    uint8_t *bytes, sha[32], *text = body_of(n);
    size_t size;
    int rc = hold_bytes(h, ID(n), &bytes, &size, sha);
    if (rc != (answer[n] == 1 ? 0 : -1))
        fail_msg("mail %d was answered %d, its bytes %d", n, answer[n], rc);
    if (rc == 0) {
        assert_int_equal(size, sizeof(head) - 1 + BODY);
        assert_memory_equal(bytes, head, sizeof(head) - 1);
        assert_memory_equal(bytes + sizeof(head) - 1, text, BODY);
        free(bytes);
    }
    free(text);
}

/* What was acknowledged is there, what was refused is not, and the database is sound. */
static void check_all(void)
{
    char error[512], problem[512];
    bool damaged;
    struct hold *h = hold_open(disk, true, &damaged, error);
    if (!h)
        fail_msg("%s", error);
    assert_false(damaged);
    if (hold_check(h, problem))
        fail_msg("%s", problem);
    for (int n = 0; n < MAILS; n++)
        check_mail(h, n);
    hold_close(&h);
}

/* Takes all room but `left` bytes. */
static void fill(size_t left)
{
    char path[128], zero[4096] = {0};
    snprintf(path, sizeof(path), "%s/filler", disk);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    off_t n = 0;
    for (ssize_t k; (k = write(fd, zero, sizeof(zero))) > 0; n += k)
        ;
    assert_int_equal(errno, ENOSPC);
    assert_int_equal(ftruncate(fd, n > (off_t)left ? n - (off_t)left : 0), 0);
    close(fd);
}

static void unfill(void)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/filler", disk);
    assert_int_equal(unlink(path), 0);
}

/* The disk fills up in the middle of puts, stays full for a while, and grows. */
static void test_full_and_back(void **state)
{
    (void)state;
    SKIP_IF(why_not);
    mount_memory("size=4m");
    start();
    assert_in_range(put_by_tens(0, 500), 100, 350); /* 4 MB of 12 KB each */
    assert_in_range(put_by_tens(500, 600), 0, 90);  /* a checkpoint may make room for some */
    grow_memory("size=32m");
    assert_int_equal(put(600, 700), 100);
    keeper_stop(&keeper);
    check_all();
}

/* Stopped and started while full: what was acknowledged can still be read. */
static void test_stopped_while_full(void **state)
{
    (void)state;
    SKIP_IF(why_not);
    mount_memory("size=4m");
    start();
    assert_in_range(put_by_tens(0, 500), 100, 350);
    keeper_stop(&keeper);
    check_all();
    grow_memory("size=32m");
    start();
    assert_int_equal(put(600, 700), 100);
    keeper_stop(&keeper);
    check_all();
}

/* Room for 0, 1, 2 ... more pages of 4 KiB: the put breaks off at each of them once. */
static void test_full_at_each_page(void **state)
{
    (void)state;
    SKIP_IF(why_not);
    mount_memory("size=12m");
    start();
    int refused = 0, taken = 0, n = 0;
    assert_int_equal(put(0, 5), 5);
    n = 5;
    for (size_t left = 0; left < 40; left++) {
        fill(left * 4096);
        int done = put(n, n + 4);
        refused += 4 - done;
        taken += done;
        unfill();
        assert_int_equal(put(n + 4, n + 5), 1);
        n += 5;
    }
    assert_true(refused > 8 && taken > 8);
    keeper_stop(&keeper);
    check_all();
}

/* The disk does not let itself be written to any more, as after an error the kernel took for
 * grave; then the machine starts anew. */
static void test_broken_disk(void **state)
{
    (void)state;
    SKIP_IF(why_not);
    char command[512];
    const char *problem = NULL;
    snprintf(command, sizeof(command),
             "{ truncate -s 24M %s && /sbin/mkfs.ext4 -q %s && mount -o loop %s %s; } 2>/dev/null",
             image, image, image, disk);
    if (system(command) != 0)
        problem = "no loop devices or no mkfs.ext4";
    SKIP_IF(problem);
    start();
    assert_int_equal(put(0, 100), 100);
    int fd = open(disk, O_RDONLY), without_flushing = 2;
    assert_true(fd >= 0);
    assert_int_equal(ioctl(fd, _IOR('X', 125, uint32_t), &without_flushing),
                     0); /* EXT4_IOC_SHUTDOWN */
    close(fd);
    assert_int_equal(put(100, 150), 0);
    assert_int_equal(put(150, 160), 0);
    keeper_stop(&keeper);
    assert_int_equal(umount(disk), 0);
    snprintf(command, sizeof(command), "mount -o loop %s %s", image, disk);
    assert_int_equal(system(command), 0);
    check_all();
    start();
    assert_int_equal(put(200, 250), 50);
    keeper_stop(&keeper);
    check_all();
}

/* A disk that may only be read: said at the start; what is there can be looked at. */
static void test_read_only(void **state)
{
    (void)state;
    SKIP_IF(why_not);
    char error[512] = "";
    mount_memory("size=16m");
    start();
    assert_int_equal(put(0, 100), 100);
    keeper_stop(&keeper);
    assert_int_equal(mount("tmpfs", disk, "tmpfs", MS_REMOUNT | MS_RDONLY, NULL), 0);
    assert_null(keeper_start(disk, error));
    assert_non_null(strstr(error, "hold.db"));
    assert_int_equal(mount("tmpfs", disk, "tmpfs", MS_REMOUNT, NULL), 0);
    check_all();
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, make_disk, unmake_disk)
    const struct CMUnitTest tests[] = {T(test_full_and_back), T(test_stopped_while_full),
                                       T(test_full_at_each_page), T(test_broken_disk),
                                       T(test_read_only)};
    return cmocka_run_group_tests(tests, make, unmake);
}
