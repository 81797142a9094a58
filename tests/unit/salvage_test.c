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

#include "hold_entry.h"
#include "hold_refusal.h"

enum { MAILS = 240, COPIES = 3, GONE = 240, LATE = 20, PAGES = 2048 };
/* Those that will have gone lie between the others, so that their pages are merged. */
#define ID(n)                                                                                      \
    ((UINT64_C(1138037000000) << 22) + (uint64_t)((n) < MAILS ? (n)*8 : ((n)-MAILS) * 8 + 4))
#define NOW INT64_C(1138037000000)

static char dir[64];
static uint8_t *image, *wal; /* of a sound database; of one with its last mails in the log */
static size_t image_size, wal_size;
static uint8_t *older; /* the file that goes with wal */
static size_t older_size;

/* What SQLite says of each page. */
static struct {
    char name[32], type; /* of table or index; i interior, l leaf, o overflow, 0 none of these */
    int cells;
} pages[PAGES];

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

static void ask_pages(const char *path)
{
    sqlite3 *db;
    sqlite3_stmt *q;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(
        sqlite3_prepare_v2(db, "SELECT pageno, name, pagetype, ncell FROM dbstat", -1, &q, NULL),
        SQLITE_OK);
    while (sqlite3_step(q) == SQLITE_ROW) {
        int n = sqlite3_column_int(q, 0);
        assert_in_range(n, 1, PAGES - 1);
        snprintf(pages[n].name, sizeof(pages[n].name), "%s", sqlite3_column_text(q, 1));
        pages[n].type = (char)sqlite3_column_text(q, 2)[0];
        pages[n].cells = sqlite3_column_int(q, 3);
    }
    sqlite3_finalize(q);
    assert_int_equal(sqlite3_prepare_v2(db, "PRAGMA freelist_count", -1, &q, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(q), SQLITE_ROW);
    assert_in_range(sqlite3_column_int(q, 0), 2, PAGES);
    sqlite3_finalize(q);
    sqlite3_close(db);
}

static uint8_t *load(const char *name, size_t *n)
{
    char path[320];
    path_of(path, name);
    uint8_t *p = malloc(PAGES * 4096);
    FILE *f = fopen(path, "rb");
    assert_true(f && p);
    *n = fread(p, 1, PAGES * 4096, f);
    assert_in_range(*n, 1, PAGES * 4096 - 1);
    fclose(f);
    return p;
}

static bool of_page(size_t n, const char *name)
{
    return strcmp(pages[n].name, name) == 0;
}

/* Copies that sit on the page. */
static int copies_on(size_t n)
{
    return of_page(n, "copy") && pages[n].type == 'l' ? pages[n].cells : 0;
}

/* Free pages get old rows back: not every SQLite is built to wipe them. */
static void unwipe(void)
{
    static const uint8_t wiped[8];
    size_t from = 3, n = 0;
    for (size_t page = 3; page <= image_size / 4096; page++) {
        if (pages[page].type || memcmp(image + (page - 1) * 4096, wiped, 8) != 0)
            continue;
        while (from <= older_size / 4096 && copies_on(from) == 0)
            from++;
        assert_in_range(from, 3, older_size / 4096);
        memcpy(image + (page - 1) * 4096, older + (from++ - 1) * 4096, 4096);
        n++;
    }
    assert_in_range(n, 2, PAGES);
}

/* Packed records, for all the database knows: the longer ones go on to pages of their own. */
enum { STORMS = 30 };
static uint8_t storm_bytes[400 * STORMS];

/* A database with a past: mails came and went. */
static int make(void **state)
{
    (void)state;
    char error[512], path[320];
    /* In memory: hundreds of databases, none of which has to outlive anything. */
    snprintf(dir, sizeof(dir), "%s/salvage_test.XXXXXX",
             access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    assert_non_null(mkdtemp(dir));
    for (size_t i = 0; i < sizeof storm_bytes; i++)
        storm_bytes[i] = (uint8_t)(i * 7 + 1);
    struct hold *h = hold_open(dir, true, NULL, error);
    assert_non_null(h);
    assert_int_equal(hold_begin(h), 0);
    for (int n = 0; n < MAILS - LATE; n++)
        put(h, n);
    for (unsigned n = 0; n < STORMS; n++)
        assert_int_equal(hold_save_memory(h, &(struct key){{(uint8_t)n, 7}}, 99, NOW + n,
                                          span_of(storm_bytes, 400 * (n + 1))),
                         0);
    assert_int_equal(hold_save_relay(h, "mail.faulty.example", NOW, "{\"name\":1}"), 0);
    assert_int_equal(hold_save_relay(h, "mail.other.example", NOW, "{}"), 0);
    const struct entry_row entry = {
        .id = 77,
        .terms = {.kind = ENTRY_SENDER, .what = "a@b.example", .at = NOW, .until = NOW + 1}};
    const struct refusal_row refusal = {.id = 78, .key = 9, .first = NOW, .last = NOW, .times = 2};
    assert_int_equal(hold_entry_add(h, &entry), 0);
    assert_int_equal(hold_refusal_put(h, &refusal), 0);
    for (int n = MAILS; n < MAILS + GONE; n++)
        put(h, n);
    assert_int_equal(hold_commit(h), 0);
    hold_close(&h);
    older = load("hold.db", &older_size);
    h = hold_open(dir, true, NULL, error);
    assert_non_null(h);
    assert_int_equal(hold_begin(h), 0);
    for (int n = MAILS - LATE; n < MAILS; n++)
        put(h, n);
    for (int n = MAILS; n < MAILS + GONE; n++)
        assert_int_equal(hold_unput(h, ID(n)), 0);
    for (int n = 0; n < MAILS; n += 5)
        assert_int_equal(hold_release_id(h, ID(n) + 1, "me", NOW), 1);
    assert_int_equal(hold_discard_id(h, ID(6) + 1, "me", "why", NOW), 1);
    assert_int_equal(hold_setting_set(h, "mode", "enforce"), 0);
    assert_int_equal(hold_save_incident(h, "SAAAAAAAA", NOW, NOW, "{}"), 0);
    assert_int_equal(hold_commit(h), 0);
    wal = load("hold.db-wal", &wal_size);
    hold_close(&h);
    image = load("hold.db", &image_size);
    path_of(path, "hold.db");
    ask_pages(path);
    unwipe();
    clean();
    return 0;
}

static int unmake(void **state)
{
    (void)state;
    clean();
    free(image);
    free(older);
    free(wal);
    return rmdir(dir);
}

static void write_file(const char *name, const uint8_t *p, size_t n)
{
    char path[320];
    path_of(path, name);
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

struct found {
    int copies, good, lost; /* rows; with exact bytes; whose bytes are said to be lost */
    int nameless, revived;  /* without their recipient, rule or incident; that had gone */
    bool mode;              /* the setting is there */
};

static void look_at_bytes(struct hold *h, const struct copy_row *row, int n, struct found *t)
{
    char head[512], body[512];
    uint8_t *bytes, sha[32];
    size_t size;
    int rc = hold_bytes(h, row->mail, &bytes, &size, sha);
    assert_true(rc == 0 || rc == -2);
    t->lost += rc != 0;
    if (rc)
        return;
    size_t k = text_of(head, body, n);
    assert_int_equal(size, k + strlen(body));
    assert_memory_equal(bytes, head, k);
    assert_memory_equal(bytes + k, body, size - k);
    free(bytes);
    t->good++;
}

struct look {
    struct hold *h;
    struct found *t;
};

static int look_at_copy(void *arg, const struct copy_row *row)
{
    const struct look *l = arg;
    uint64_t at = row->id - ID(0);
    int n = (int)(at / 8), i = (int)(at % 4) - 1;
    char rcpt[32];
    snprintf(rcpt, sizeof(rcpt), "<r%d@x.example>", (n + i) % 40);
    if (row->id < ID(0) || n >= MAILS || i < 0)
        return 0; /* a bit of the number flipped */
    if (at & 4) {
        l->t->revived++;
        return 0;
    }
    l->t->copies++;
    if (strcmp(row->rcpt, rcpt) != 0 || strcmp(row->rule, "duplicate") != 0 ||
        strcmp(row->incident, "SAAAAAAAA") != 0)
        l->t->nameless++;
    if (row->mail == ID(n))
        look_at_bytes(l->h, row, n, l->t);
    else
        l->t->lost++; /* likewise */
    return 0;
}

static void look_at(struct hold *h, struct found *t)
{
    char mode[16];
    struct look l = {h, t};
    struct hold_filter all = {.state = -1, .limit = 10 * MAILS * COPIES};
    t->mode = hold_setting_get(h, "mode", mode, sizeof(mode)) == 0 && strcmp(mode, "enforce") == 0;
    assert_int_equal(hold_each(h, &all, look_at_copy, &l), 0);
}

/* Opens what is there, damaged or not; it works afterwards. */
static struct found open_and_look(bool *damaged, const char *what)
{
    char error[512] = "", problem[512];
    struct found t = {0};
    struct hold *h = hold_open(dir, true, damaged, error);
    if (!h)
        fail_msg("%s: %s", what, error);
    assert_int_equal(*damaged, set_aside());
    if (*damaged && hold_check(h, problem))
        fail_msg("%s: %s", what, problem);
    look_at(h, &t);
    if (*damaged) {
        assert_int_equal(hold_begin(h), 0);
        put(h, 5 * MAILS);
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
    write_file("hold.db", image, image_size);
    struct found t = open_and_look(&damaged, "sound");
    assert_false(damaged);
    assert_int_equal(t.good, MAILS * COPIES);
}

static void complain(const char *what, const struct found *t)
{
    fail_msg("%s: %d copies, %d whole, %d lost, %d nameless, %d revived", what, t->copies, t->good,
             t->lost, t->nameless, t->revived);
}

/* Any one page gone costs the rows that were on it, and bytes that need a content that was. */
static void test_each_page(void **state)
{
    (void)state;
    uint8_t *p = malloc(image_size);
    assert_non_null(p);
    int leaves = 0, inside = 0;
    for (size_t n = 1; n <= image_size / 4096; n++) {
        if (n > 2 && !pages[n].type) /* free, or more of the map */
            continue;
        char what[64];
        bool damaged;
        snprintf(what, sizeof(what), "page %zu (%s, %c)", n, pages[n].name, pages[n].type);
        memcpy(p, image, image_size);
        memset(p + (n - 1) * 4096, 0xA5, 4096);
        write_file("hold.db", p, image_size);
        struct found t = open_and_look(&damaged, what);
        assert_true(damaged);
        bool bytes = of_page(n, "content") || of_page(n, "mail");
        if (t.copies != MAILS * COPIES - copies_on(n) || t.good + t.lost != t.copies || t.revived ||
            (t.lost && (!bytes || pages[n].type == 'i')) ||
            (t.nameless && (!of_page(n, "mail") || t.nameless > pages[n].cells * COPIES)) ||
            t.mode == of_page(n, "setting"))
            complain(what, &t);
        leaves += copies_on(n) > 0;
        inside += of_page(n, "copy") && pages[n].type == 'i';
    }
    assert_true(leaves > 3 && inside > 0);
    free(p);
}

/* Every page that leads to others gone, the first and the map included: the leaves hold it all. */
static void test_no_way_to_the_leaves(void **state)
{
    (void)state;
    uint8_t *p = malloc(image_size);
    bool damaged;
    assert_non_null(p);
    memcpy(p, image, image_size);
    for (size_t n = 2; n <= image_size / 4096; n++)
        if (pages[n].type == 'i' && strncmp(pages[n].name, "sqlite_autoindex", 16) != 0)
            memset(p + (n - 1) * 4096, 0, 4096);
    write_file("hold.db", p, image_size);
    struct found t = open_and_look(&damaged, "no interior pages");
    assert_true(damaged);
    if (t.good != MAILS * COPIES || t.nameless || t.revived)
        complain("no interior pages", &t);
    memset(p, 0, 4096);
    write_file("hold.db", p, image_size);
    t = open_and_look(&damaged, "nor a first one");
    if (t.good != MAILS * COPIES || t.nameless || t.revived)
        complain("nor a first one", &t);
    memset(p + 4096, 0, 4096);
    write_file("hold.db", p, image_size);
    t = open_and_look(&damaged, "nor a map"); /* then nobody knows what had gone */
    if (t.good != MAILS * COPIES || t.nameless || !t.revived)
        complain("nor a map", &t);
    free(p);
}

/* A flipped bit costs a row, or the bytes of the mails that refer to it. */
static void test_flips(void **state)
{
    (void)state;
    uint8_t *p = malloc(image_size);
    assert_non_null(p);
    for (int i = 0; i < 40; i++) {
        char what[64];
        bool damaged;
        memcpy(p, image, image_size);
        size_t at = 4096 + draw() % (image_size - 4096);
        snprintf(what, sizeof(what), "round %d: bit of byte %zu", i, at);
        p[at] ^= (uint8_t)(1u << draw() % 8);
        write_file("hold.db", p, image_size);
        struct found t = open_and_look(&damaged, what);
        size_t n = at / 4096 + 1;
        if (t.copies < MAILS * COPIES - copies_on(n) || t.good + t.lost != t.copies || t.revived)
            complain(what, &t);
    }
    free(p);
}

/* What is left of a file cut off is all there. */
/* Is nothing kept behind n? The rest of the last page may be empty, or the page free. */
static bool nothing_from(size_t n)
{
    size_t last = image_size / 4096, at = n;
    if (n <= image_size - 4096)
        return false;
    while (at < image_size && !image[at])
        at++;
    return at == image_size || !pages[last].type;
}

static void test_truncation(void **state)
{
    (void)state;
    for (int i = 0; i < 30; i++) {
        char what[64];
        bool damaged;
        size_t n = i == 0 ? 4096 : 4097 + draw() % (image_size - 4097);
        snprintf(what, sizeof(what), "cut at %zu", n);
        write_file("hold.db", image, n);
        struct found t = open_and_look(&damaged, what);
        if (!damaged && !nothing_from(n))
            fail_msg("%s: not noticed", what);
        int left = 0;
        for (size_t page = 1; page <= n / 4096; page++)
            left += copies_on(page);
        if (t.copies != left || t.good + t.lost != t.copies || t.revived)
            complain(what, &t);
    }
}

/* What is committed to the log counts, whatever became of the file; what is not, does not. */
static void test_log(void **state)
{
    (void)state;
    bool damaged;
    uint8_t *p = malloc(older_size);
    assert_non_null(p);
    memcpy(p, older, older_size);
    memset(p, 0xA5, 4096);
    write_file("hold.db", p, older_size);
    write_file("hold.db-wal", wal, wal_size);
    struct found t = open_and_look(&damaged, "the first page is in the log only");
    if (t.good != MAILS * COPIES || t.nameless || t.revived)
        complain("the first page is in the log only", &t);
    write_file("hold.db", p, older_size);
    write_file("hold.db-wal", wal, wal_size - 1);
    t = open_and_look(&damaged, "the log's end is torn");
    assert_true(damaged);
    assert_int_equal(t.good, (MAILS - LATE) * COPIES);
    assert_int_equal(t.revived, GONE * COPIES); /* they had not gone yet */
    write_file("hold.db", p, 0);
    write_file("hold.db-wal", wal, wal_size);
    t = open_and_look(&damaged, "the file is empty");
    assert_true(damaged);
    assert_true(t.copies >= LATE * COPIES && t.good + t.lost == t.copies);
    write_file("hold.db-wal", wal, wal_size);
    t = open_and_look(&damaged, "the file is gone");
    assert_true(t.copies >= LATE * COPIES && t.good + t.lost == t.copies);
    free(p);
}

static void count_storm(void *arg, const struct key *k, struct span bytes)
{
    unsigned n = k->byte[0];
    assert_in_range(n, 0, STORMS - 1);
    assert_int_equal(bytes.n, 400 * (n + 1));
    assert_memory_equal(bytes.p, storm_bytes, bytes.n);
    ++*(unsigned *)arg;
}

static int count_relay(void *arg, const char *name, const char *json)
{
    assert_true(strlen(name) > 5 && json[0] == '{');
    ++*(unsigned *)arg;
    return 0;
}

static int count_entry(void *arg, const struct entry_row *row)
{
    assert_int_equal(row->id, 77);
    assert_string_equal(row->terms.what, "a@b.example");
    assert_int_equal(row->terms.until, NOW + 1);
    ++*(unsigned *)arg;
    return 0;
}

static int count_refusal(void *arg, const struct refusal_row *row)
{
    assert_int_equal(row->id, 78);
    assert_int_equal(row->times, 2);
    ++*(unsigned *)arg;
    return 0;
}

/* What people decided and who was refused are carried over with every page but their own. */
static void others_are_there(struct hold *h, size_t lost)
{
    unsigned entries = 0, refusals = 0;
    assert_int_equal(hold_each_entry(h, 0, 100, count_entry, &entries), 0);
    assert_int_equal(hold_each_refusal(h, &(struct refusal_filter){0}, count_refusal, &refusals),
                     0);
    assert_int_equal(entries, of_page(lost, "entry") ? 0 : 1);
    assert_int_equal(refusals, of_page(lost, "refusal") ? 0 : 1);
}

/* What is remembered of storms and relays is carried over like the rest. */
static void test_memory_and_relays(void **state)
{
    (void)state;
    uint8_t *p = malloc(image_size);
    assert_non_null(p);
    unsigned whole = 0, pages_lost = 0;
    for (size_t n = 3; n <= image_size / 4096; n++) {
        bool mine = of_page(n, "memory"), relay = of_page(n, "relay");
        bool other = of_page(n, "entry") || of_page(n, "refusal");
        if (!mine && !relay && !other && !copies_on(n))
            continue;
        char error[512];
        bool damaged;
        uint64_t torn;
        unsigned storms = 0, relays = 0;
        memcpy(p, image, image_size);
        memset(p + (n - 1) * 4096, 0xA5, 4096);
        write_file("hold.db", p, image_size);
        struct hold *h = hold_open(dir, true, &damaged, error);
        assert_non_null(h);
        assert_int_equal(hold_each_memory(h, 99, count_storm, &storms, &torn), 0);
        assert_int_equal(torn, 0);
        assert_int_equal(hold_each_memory(h, 98, count_storm, &storms, &torn), 0);
        assert_int_equal(hold_each_relay(h, 100, count_relay, &relays), 0);
        if (!mine)
            assert_int_equal(storms, STORMS);
        else
            assert_true(storms < STORMS || pages[n].type != 'l');
        if (!relay)
            assert_int_equal(relays, 2);
        others_are_there(h, n);
        whole += storms == STORMS;
        pages_lost += storms < STORMS;
        hold_close(&h);
        clean();
    }
    assert_true(whole > 3 && pages_lost > 3);
    free(p);
}

/* Somebody who reads while the file is set aside goes on with the new one. */
static void test_reader_follows(void **state)
{
    (void)state;
    char error[512], path[320];
    bool damaged;
    write_file("hold.db", image, image_size);
    struct hold *view = hold_open(dir, false, NULL, error);
    if (!view)
        fail_msg("%s", error);
    struct found t = {0};
    look_at(view, &t);
    assert_int_equal(t.good, MAILS * COPIES);
    path_of(path, "hold.db");
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    for (size_t n = 2; n <= image_size / 4096; n++)
        if (of_page(n, "copy_mail") && pages[n].type == 'l') {
            assert_int_equal(fseek(f, (long)(n - 1) * 4096, SEEK_SET), 0);
            assert_int_equal(fwrite("damaged!", 1, 8, f), 8);
        }
    assert_int_equal(fclose(f), 0);
    struct hold *h = hold_open(dir, true, &damaged, error);
    assert_non_null(h);
    assert_true(damaged);
    assert_int_equal(hold_begin(h), 0);
    assert_int_equal(hold_discard_id(h, ID(1) + 1, "me", "why", NOW), 1);
    assert_int_equal(hold_commit(h), 0);
    struct hold_figures figures;
    assert_int_equal(hold_figures(view, NULL, &figures), 0);
    assert_int_equal(figures.copies[COPY_DISCARDED], 2);
    t = (struct found){0};
    look_at(view, &t);
    assert_int_equal(t.good, MAILS * COPIES);
    hold_close(&view);
    hold_close(&h);
    clean();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sound),
        cmocka_unit_test(test_each_page),
        cmocka_unit_test(test_flips),
        cmocka_unit_test(test_no_way_to_the_leaves),
        cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_memory_and_relays),
        cmocka_unit_test(test_reader_follows),
    };
    return cmocka_run_group_tests(tests, make, unmake);
}
