/* salvage_test.c - damaged hold databases: what can be read is kept, the rest is owned up to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "hold.h"

enum { MAILS = 120, COPIES = 3 };
#define ID(n) ((UINT64_C(1138037000000) << 22) + (uint64_t)(n)*8)
#define NOW INT64_C(1138037000000)

static char dir[64];
static uint8_t *image; /* of a sound database */
static size_t image_size;
static size_t root_of_copies; /* page: without it no copy can be found */

static void path_of(char out[320], const char *name)
{
    snprintf(out, 320, "%s/%s", dir, name);
}

static size_t text_of(char head[512], char body[512], int n)
{
    snprintf(body, 512, "Storm %d\r\nthe same for all\r\n%d\r\n", n % 10, n % 3 ? 0 : n);
    return (size_t)snprintf(head, 512,
                            "Received: from a by b id %d\r\nMessage-ID: <%d.%d@x>\r\n"
                            "Subject: %d\r\n\r\n",
                            n * 7919, n, n * n, n % 10);
}

static void put(struct hold *h, int n)
{
    char head[512], body[512], rcpt[COPIES][32];
    struct held_copy copies[COPIES];
    size_t size = text_of(head, body, n);
    struct body *b = body_new(NULL, 1 << 20, 1 << 20);
    body_add(b, span_str(body));
    body_seal(b);
    for (int i = 0; i < COPIES; i++) {
        snprintf(rcpt[i], sizeof(rcpt[i]), "<r%d@x.example>", (n + i) % 40);
        copies[i] = (struct held_copy){
            .id = ID(n) + 1 + (uint64_t)i, .rcpt = span_str(rcpt[i]), .rcpt_hash = 5, .number = 2};
    }
    struct held_mail m = {.id = ID(n),
                          .arrival = NOW,
                          .rule = SPAN("duplicate"),
                          .k = {{(uint8_t)(n % 10 + 1)}},
                          .incident = SPAN("SAAAAAAAA"),
                          .head = span_of(head, size),
                          .body = b,
                          .copies = copies,
                          .ncopies = COPIES};
    assert_int_equal(hold_put(h, &m), 0);
    body_drop(&b);
}

static void clean(void)
{
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        char path[320];
        path_of(path, e->d_name);
        if (e->d_name[0] != '.')
            assert_int_equal(unlink(path), 0);
    }
    closedir(d);
}

static int make(void **state)
{
    (void)state;
    char error[512], path[320];
    strcpy(dir, "/tmp/salvage_test.XXXXXX");
    assert_non_null(mkdtemp(dir));
    struct hold *h = hold_open(dir, true, NULL, error);
    assert_non_null(h);
    assert_int_equal(hold_begin(h), 0);
    for (int n = 0; n < MAILS; n++)
        put(h, n);
    assert_int_equal(hold_release_id(h, ID(5) + 1, "me", NOW), 1);
    assert_int_equal(hold_discard_id(h, ID(6) + 1, "me", "why", NOW), 1);
    assert_int_equal(hold_setting_set(h, "mode", "enforce"), 0);
    assert_int_equal(hold_save_incident(h, "SAAAAAAAA", NOW, NOW, "{}"), 0);
    assert_int_equal(hold_commit(h), 0);
    hold_close(&h);
    path_of(path, "hold.db");
    sqlite3 *db;
    sqlite3_stmt *q;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db,
                                        "SELECT rootpage FROM sqlite_schema WHERE name = 'copy'",
                                        -1, &q, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(q), SQLITE_ROW);
    root_of_copies = (size_t)sqlite3_column_int(q, 0);
    sqlite3_finalize(q);
    sqlite3_close(db);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    image = malloc(1 << 22);
    assert_non_null(image);
    image_size = fread(image, 1, 1 << 22, f);
    fclose(f);
    clean();
    return 0;
}

static int unmake(void **state)
{
    (void)state;
    clean();
    free(image);
    return rmdir(dir);
}

static void write_image(const uint8_t *p, size_t n)
{
    char path[320];
    path_of(path, "hold.db");
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    fclose(f);
}

static bool set_aside(void)
{
    bool found = false;
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        found |= strncmp(e->d_name, "hold.db.damaged-", 16) == 0;
    closedir(d);
    return found;
}

struct tally {
    int copies, good, lost; /* rows; with exact bytes; whose bytes are said to be lost */
};

static void look_at(struct hold *h, struct tally *t)
{
    for (int n = 0; n < MAILS; n++)
        for (int i = 0; i < COPIES; i++) {
            struct arena *a = arena_new();
            struct copy_row row;
            uint8_t *bytes, sha[32];
            size_t size;
            if (hold_copy(h, a, ID(n) + 1 + (uint64_t)i, &row) == 0) {
                int rc = hold_bytes(h, row.mail, &bytes, &size, sha);
                assert_true(rc == 0 || rc == -2 || rc == -1);
                t->copies++;
                t->lost += rc != 0;
                if (rc == 0 && row.mail == ID(n)) {
                    char head[512], body[512];
                    size_t k = text_of(head, body, n);
                    assert_int_equal(size, k + strlen(body));
                    assert_memory_equal(bytes, head, k);
                    assert_memory_equal(bytes + k, body, size - k);
                    t->good++;
                }
                if (rc == 0)
                    free(bytes);
            }
            arena_free(&a);
        }
}

/* Opens what is there, damaged or not; it works afterwards. */
static struct tally open_and_look(bool *damaged, const char *what)
{
    char error[512] = "", problem[512];
    struct tally t = {0};
    struct hold *h = hold_open(dir, true, damaged, error);
    if (!h)
        fail_msg("%s: %s", what, error);
    assert_int_equal(*damaged, set_aside());
    if (*damaged && hold_check(h, problem))
        fail_msg("%s: %s", what, problem);
    look_at(h, &t);
    if (*damaged) {
        assert_int_equal(hold_begin(h), 0);
        put(h, 5000);
        assert_int_equal(hold_commit(h), 0);
        if (hold_check(h, problem))
            fail_msg("%s: after a put: %s", what, problem);
    }
    hold_close(&h);
    clean();
    return t;
}

static uint32_t draw(void)
{
    static uint32_t x = 42;
    x = x * 1664525u + 1013904223u;
    return x >> 8;
}

static void test_sound(void **state)
{
    (void)state;
    bool damaged;
    write_image(image, image_size);
    struct tally t = open_and_look(&damaged, "sound");
    assert_false(damaged);
    assert_int_equal(t.good, MAILS * COPIES);
}

/* One page gone, the first included: most copies sit on other pages (the top page of the table of
 * copies is the exception). */
static void test_each_page(void **state)
{
    (void)state;
    uint8_t *p = malloc(image_size);
    assert_non_null(p);
    for (size_t page = 0; page < image_size / 4096; page += page < 12 ? 1 : 4) {
        char what[64];
        bool damaged;
        snprintf(what, sizeof(what), "page %zu", page + 1);
        memcpy(p, image, image_size);
        memset(p + page * 4096, 0xA5, 4096);
        write_image(p, image_size);
        struct tally t = open_and_look(&damaged, what);
        assert_true(damaged);
        if ((page + 1 != root_of_copies && t.copies < MAILS * COPIES * 2 / 3) ||
            t.good + t.lost != t.copies)
            fail_msg("%s: of %d copies %d are there, %d whole", what, MAILS * COPIES, t.copies,
                     t.good);
    }
    free(p);
}

/* A flipped bit costs a row, or the bytes of the mails that refer to it. */
static void test_flips(void **state)
{
    (void)state;
    uint8_t *p = malloc(image_size);
    assert_non_null(p);
    for (int i = 0; i < 12; i++) {
        char what[64];
        bool damaged;
        memcpy(p, image, image_size);
        size_t at = 4096 + draw() % (image_size - 4096);
        snprintf(what, sizeof(what), "round %d: bit of byte %zu", i, at);
        p[at] ^= (uint8_t)(1u << draw() % 8);
        write_image(p, image_size);
        struct tally t = open_and_look(&damaged, what);
        if (t.copies < MAILS * COPIES * 2 / 3 || t.good + t.lost != t.copies)
            fail_msg("%s: of %d copies %d are there, %d whole", what, MAILS * COPIES, t.copies,
                     t.good);
    }
    free(p);
}

static void test_truncation(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++) {
        char what[64];
        bool damaged;
        size_t n = i == 0 ? 4096 : 4097 + draw() % (image_size - 4097);
        snprintf(what, sizeof(what), "cut at %zu", n);
        write_image(image, n);
        struct tally t = open_and_look(&damaged, what);
        assert_int_equal(t.good + t.lost, t.copies);
        assert_true(damaged);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sound),
        cmocka_unit_test(test_each_page),
        cmocka_unit_test(test_flips),
        cmocka_unit_test(test_truncation),
    };
    return cmocka_run_group_tests(tests, make, unmake);
}
