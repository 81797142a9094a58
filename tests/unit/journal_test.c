/* journal_test.c - what was added is found again, newest first, around any damage. */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "id.h"
#include "journal.h"

static const int64_t day = 24 * 3600 * 1000LL, t0 = 1138037000000; /* 2006-01-23 17:23:20 UTC */

struct fixture {
    char dir[32];
    struct journal *journal;
};

/* What journal_close() goes by. */
static int64_t the_clock(void)
{
    return t0;
}

static int open_journal(void **state)
{
    char error[512] = "";
    struct fixture *f = calloc(1, sizeof *f);
    strcpy(f->dir, "/tmp/journal_test.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    f->journal = journal_open(f->dir, 30 * day, error);
    assert_string_equal(error, "");
    *state = f;
    return 0;
}

typedef void segment_fn(const char *path, void *arg);
static int each_segment(const char *dir, segment_fn *fn, void *arg)
{
    DIR *d = opendir(dir);
    char path[512];
    int n = 0;
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (fn)
            fn(path, arg);
        n++;
    }
    closedir(d);
    return n;
}

static void remove_segment(const char *path, void *arg)
{
    (void)arg;
    unlink(path);
}

static int close_journal(void **state)
{
    struct fixture *f = *state;
    journal_close(&f->journal);
    each_segment(f->dir, remove_segment, NULL);
    assert_int_equal(rmdir(f->dir), 0);
    free(f);
    return 0;
}

static struct journal_row row(uint64_t tx, int64_t time)
{
    return (struct journal_row){.tx = tx,
                                .time = time,
                                .k = {"twelve bytes"},
                                .disposition = 1,
                                .advised = 2,
                                .relation = 3,
                                .mode = 4,
                                .copies = 0xfedcba98,
                                .door = SPAN("in"),
                                .client = SPAN("192.0.2.7"),
                                .from = SPAN("a@a.example"),
                                .rcpt = SPAN("B@b.example"),
                                .queue_id = SPAN("4ABC"),
                                .rule = SPAN("duplicate"),
                                .message_id = SPAN("<1@a.example>"),
                                .incident = SPAN("S4K7QZ2MA"),
                                .blamed = SPAN("sbs.example[192.0.2.7]"),
                                .conviction = SPAN("returned it"),
                                .joined = SPAN("same chain")};
}

static void add(struct journal *j, uint64_t first, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        struct journal_row r = row(first + i, t0 + (int64_t)(first + i));
        journal_add(j, &r);
    }
}

struct found {
    uint64_t n, last, least, stop_after; /* 0: never */
    uint64_t expected;                   /* nonzero: the tx of the next row; counts down */
};
static int count(void *arg, const struct journal_row *r)
{
    struct found *f = arg;
    struct journal_row want = row(r->tx, t0 + (int64_t)r->tx);
    assert_int_equal(r->time, want.time);
    assert_memory_equal(&r->k, &want.k, sizeof want.k);
    assert_int_equal(r->disposition << 24 | r->advised << 16 | r->relation << 8 | r->mode,
                     0x1020304);
    assert_int_equal(r->copies, want.copies);
    const struct span *got[] = {&r->door,     &r->client,     &r->from,       &r->rcpt,
                                &r->queue_id, &r->rule,       &r->message_id, &r->incident,
                                &r->blamed,   &r->conviction, &r->joined};
    const struct span *wish[] = {&want.door,     &want.client,     &want.from,       &want.rcpt,
                                 &want.queue_id, &want.rule,       &want.message_id, &want.incident,
                                 &want.blamed,   &want.conviction, &want.joined};
    for (size_t i = 0; i < sizeof got / sizeof *got; i++)
        assert_true(span_eq(*got[i], *wish[i]));
    if (f->n)
        assert_true(r->tx < f->last); /* newest first */
    f->last = r->tx;
    return ++f->n == f->stop_after;
}

static uint64_t found(const char *dir, struct journal_filter filter)
{
    struct found f = {0};
    assert_int_equal(journal_each(dir, &filter, count, &f), 0);
    return f.n;
}

static void rows_come_back_newest_first(void **state)
{
    struct fixture *f = *state;
    add(f->journal, 1, 5000);                                       /* several blocks */
    assert_int_equal(found(f->dir, (struct journal_filter){0}), 0); /* not written yet */
    journal_flush(f->journal, t0);
    add(f->journal, 5001, 3);
    journal_flush(f->journal, t0 + 1000);
    journal_flush(f->journal, t0 + 2000); /* nothing to write: nothing written */
    assert_int_equal(found(f->dir, (struct journal_filter){0}), 5003);
    assert_int_equal(each_segment(f->dir, NULL, NULL), 1);
    assert_int_equal(journal_lost(f->journal), 0);

    struct found some = {.stop_after = 7};
    assert_int_equal(journal_each(f->dir, &(struct journal_filter){0}, count, &some), 0);
    assert_int_equal(some.n, 7);
    assert_int_equal(some.last, 4997);
}

static void filters(void **state)
{
    struct fixture *f = *state;
    add(f->journal, 1, 100);
    journal_flush(f->journal, t0 + 100);
    const struct {
        const char *name;
        struct journal_filter filter;
        uint64_t n;
    } cases[] = {
        {"a transaction", {.tx = 50}, 1},
        {"no such transaction", {.tx = 101}, 0},
        {"a recipient in any case", {.rcpt = "b@B.EXAMPLE"}, 100},
        {"not a part of it", {.rcpt = "b@b.exampl"}, 0},
        {"a sender", {.from = "A@a.example"}, 100},
        {"another sender", {.from = "b@b.example"}, 0},
        {"since, inclusive", {.since = t0 + 91}, 10},
        {"until, inclusive", {.until = t0 + 10}, 10},
        {"a window", {.since = t0 + 5, .until = t0 + 6}, 2},
        {"a window before all", {.until = t0}, 0},
        {"a window after all", {.since = t0 + 101}, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (found(f->dir, cases[i].filter) != cases[i].n)
            fail_msg("%s", cases[i].name);
}

static int first_row(void *arg, const struct journal_row *r)
{
    struct journal_row *out = arg;
    *out = *r;
    static uint8_t kept[4][1024];
    const struct span from[] = {r->from, r->rcpt, r->client, r->incident};
    struct span *to[] = {&out->from, &out->rcpt, &out->client, &out->incident};
    for (size_t i = 0; i < 4; i++) {
        memcpy(kept[i], from[i].p, from[i].n);
        *to[i] = span_of(kept[i], from[i].n);
    }
    return 1;
}

static void texts_are_bounded_and_free_of_nul(void **state)
{
    struct fixture *f = *state;
    static char flood[100000];
    memset(flood, 'x', sizeof flood);
    struct journal_row r = row(1, t0), back;
    r.from = r.client = r.incident = r.blamed = span_of(flood, sizeof flood);
    r.rcpt = span_of("BWJ1\0\xff\0\xff", 8);
    journal_add(f->journal, &r);
    journal_flush(f->journal, t0);
    assert_int_equal(journal_each(f->dir, &(struct journal_filter){0}, first_row, &back), 0);
    assert_int_equal(back.from.n, LIMIT_ADDRESS);
    assert_int_equal(back.client.n, 64);
    assert_int_equal(back.incident.n, 16);
    assert_int_equal(back.blamed.n, 128);
    assert_true(span_eq(back.rcpt, SPAN("BWJ1?\xff?\xff")));
}

static void a_day_or_a_restart_begins_a_segment(void **state)
{
    struct fixture *f = *state;
    char error[512];
    add(f->journal, 1, 1);
    journal_flush(f->journal, t0);
    add(f->journal, 2, 1);
    journal_flush(f->journal, t0 + day - 1);
    assert_int_equal(each_segment(f->dir, NULL, NULL), 1);
    add(f->journal, 3, 1);
    journal_flush(f->journal, t0 + day);
    assert_int_equal(each_segment(f->dir, NULL, NULL), 2);
    journal_close(&f->journal);
    f->journal = journal_open(f->dir, 30 * day, error);
    add(f->journal, 4, 1);
    journal_flush(f->journal, t0 + day); /* in the same second: a name of its own */
    assert_int_equal(each_segment(f->dir, NULL, NULL), 3);
    assert_int_equal(found(f->dir, (struct journal_filter){0}), 4);
}

static void old_segments_go(void **state)
{
    struct fixture *f = *state;
    char alien[64];
    snprintf(alien, sizeof alien, "%s/journal-2006.bwj", f->dir);
    close(open(alien, O_CREAT | O_WRONLY, 0600));
    add(f->journal, 1, 1);
    journal_flush(f->journal, t0);
    add(f->journal, 2, 1);
    journal_flush(f->journal, t0 + 20 * day);
    assert_int_equal(each_segment(f->dir, NULL, NULL), 3);
    journal_flush(f->journal, t0 + 31 * day); /* its last row may be 30 days old today */
    assert_int_equal(found(f->dir, (struct journal_filter){0}), 2);
    journal_flush(f->journal, t0 + 31 * day + 3600 * 1000);
    assert_int_equal(found(f->dir, (struct journal_filter){0}), 1);
    assert_int_equal(each_segment(f->dir, NULL, NULL), 2); /* what is not ours stays */
}

static void overflow_is_counted(void **state)
{
    struct fixture *f = *state;
    uint64_t many = 200000; /* of ~120 bytes: more than 16 MiB */
    add(f->journal, 1, many);
    uint64_t lost = journal_lost(f->journal);
    assert_true(lost > 0 && lost < many);
    journal_flush(f->journal, t0);
    assert_int_equal(found(f->dir, (struct journal_filter){0}), many - lost);
    add(f->journal, many + 1, 1);
    assert_int_equal(journal_lost(f->journal), lost); /* room again */
    journal_flush(f->journal, t0);
}

static void an_unwritable_directory_costs_rows_not_mail(void **state)
{
    struct fixture *f = *state;
    char away[64], error[512];
    snprintf(away, sizeof away, "%s.away", f->dir);
    rename(f->dir, away);
    add(f->journal, 1, 10);
    journal_flush(f->journal, t0);
    assert_int_equal(journal_lost(f->journal), 10);
    rename(away, f->dir);
    add(f->journal, 11, 1);
    journal_flush(f->journal, t0 + 1000);
    assert_int_equal(journal_lost(f->journal), 10);
    assert_int_equal(found(f->dir, (struct journal_filter){0}), 1);
    assert_null(journal_open(away, day, error));
    assert_non_null(strstr(error, away));
    assert_int_equal(journal_each(away, &(struct journal_filter){0}, count, NULL), -1);
}

/* Damage. The segment under the knife has 20 blocks of one row each. */
enum wound_kind { CUT, FLIP, ERASE, INSERT };
struct wound {
    enum wound_kind kind;
    double where;  /* part of the file */
    uint64_t left; /* whole rows before that */
};

/* The block that begins a segment. */
static size_t description_bytes(void)
{
    char text[FACT_DESCRIPTION];
    return 16 + 2 + 36 + 11 * 2 + 1 + 2 + facts_describe(text);
}

static void wound(const char *path, void *arg)
{
    struct wound *w = arg;
    static uint8_t bytes[1 << 16];
    int fd = open(path, O_RDWR);
    ssize_t n = read(fd, bytes, sizeof bytes - 64);
    size_t at = (size_t)(w->where * (double)n), head = description_bytes();
    assert_int_equal(((size_t)n - head) % 20, 0);
    w->left = at < head ? 0 : (at - head) / (((size_t)n - head) / 20);
    switch (w->kind) {
    case CUT:
        n = (ssize_t)at;
        break;
    case FLIP:
        bytes[at] ^= 1;
        break;
    case ERASE:
        memmove(bytes + at, bytes + at + 1, (size_t)n - at - 1);
        n--;
        break;
    case INSERT: /* a mark that begins nothing */
        memmove(bytes + at + 8, bytes + at, (size_t)n - at);
        memcpy(bytes + at, "BWJ1\0\xff\0\xff", 8);
        n += 8;
    }
    assert_int_equal(pwrite(fd, bytes, (size_t)n, 0), n);
    assert_int_equal(ftruncate(fd, n), 0);
    close(fd);
}

static void damage_costs_only_what_it_touches(void **state)
{
    struct fixture *f = *state;
    for (enum wound_kind kind = CUT; kind <= INSERT; kind++)
        for (int i = 0; i < 997; i += kind == CUT ? 40 : 7) {
            struct wound w = {kind, i / 997.0, 0};
            char error[512];
            for (uint64_t k = 1; k <= 20; k++) {
                add(f->journal, k, 1);
                journal_flush(f->journal, t0);
            }
            journal_close(&f->journal);
            each_segment(f->dir, wound, &w);
            uint64_t n = found(f->dir, (struct journal_filter){0});
            uint64_t want = kind == CUT ? w.left : 19;
            if (n < want || n > 20)
                fail_msg("kind %d at %f: %lu rows", kind, w.where, n);
            each_segment(f->dir, remove_segment, NULL);
            f->journal = journal_open(f->dir, 30 * day, error);
        }
}

/* ---- facts ---- */

struct told {
    uint64_t n, tx[64];
    uint8_t facts[64];
    char text[64][64]; /* packs, as "message/copy" */
};
static int tell(void *arg, const struct journal_row *r)
{
    struct told *t = arg;
    t->tx[t->n] = r->tx;
    t->facts[t->n] = r->facts;
    snprintf(t->text[t->n], sizeof t->text[0], "%.*s/%.*s", (int)r->of_message.n,
             (const char *)r->of_message.p, (int)r->of_copy.n, (const char *)r->of_copy.p);
    if (r->facts == JOURNAL_FACTS)
        assert_true(r->map->known != FACTS_KEPT_ASIDE);
    return ++t->n == 64;
}

static struct told oldest_first(const char *dir)
{
    struct told t = {0};
    assert_int_equal(journal_each(dir, &(struct journal_filter){.oldest_first = true}, tell, &t),
                     0);
    return t;
}

/* n rows of transaction tx, with facts. */
static void add_message(struct journal *j, uint64_t tx, size_t n, const char *of_message)
{
    struct journal_row rows[300] = {0};
    for (size_t i = 0; i < n; i++) {
        rows[i] = row(tx, t0);
        rows[i].facts = JOURNAL_FACTS;
        rows[i].of_message = span_str(of_message);
        rows[i].of_copy = SPAN("copy");
    }
    journal_add_all(j, rows, n);
}

static void facts_come_back_oldest_first(void **state)
{
    struct fixture *f = *state;
    struct journal_row none = row(3, t0);
    none.facts = JOURNAL_UNJUDGED;
    add_message(f->journal, 1, 3, "one");
    add_message(f->journal, 2, 1, "two");
    journal_add(f->journal, &none);
    add_message(f->journal, 4, 1, "");
    journal_flush(f->journal, t0);
    struct told t = oldest_first(f->dir);
    static const struct {
        uint64_t tx;
        enum journal_facts facts;
        const char *text;
    } want[] = {{1, JOURNAL_FACTS, "one/copy"}, {1, JOURNAL_FACTS, "one/copy"},
                {1, JOURNAL_FACTS, "one/copy"}, {2, JOURNAL_FACTS, "two/copy"},
                {3, JOURNAL_UNJUDGED, "/"},     {4, JOURNAL_FACTS, "/copy"}};
    assert_int_equal(t.n, sizeof want / sizeof *want);
    for (size_t i = 0; i < t.n; i++) {
        assert_int_equal(t.tx[i], want[i].tx);
        assert_int_equal(t.facts[i], want[i].facts);
        assert_string_equal(t.text[i], want[i].text);
    }
}

static int count_facts(void *arg, const struct journal_row *r)
{
    unsigned *n = arg;
    n[r->facts]++;
    return 0;
}

static void count_all(const char *dir, unsigned n[JOURNAL_FACTS_COUNT])
{
    memset(n, 0, JOURNAL_FACTS_COUNT * sizeof *n);
    assert_int_equal(
        journal_each(dir, &(struct journal_filter){.oldest_first = true}, count_facts, n), 0);
}

/* Its pack is said again and again, across pieces and blocks. */
static void a_message_to_many_is_understood_to_the_end(void **state)
{
    struct fixture *f = *state;
    unsigned n[JOURNAL_FACTS_COUNT];
    for (uint64_t tx = 1; tx <= 40; tx++)
        add_message(f->journal, tx, 300, "many");
    journal_flush(f->journal, t0);
    count_all(f->dir, n);
    assert_int_equal(n[JOURNAL_FACTS], 40 * 300);
}

static void cut_out(const char *path, void *arg)
{
    const size_t *range = arg; /* [from, to) */
    static uint8_t bytes[1 << 20];
    int fd = open(path, O_RDWR);
    ssize_t n = read(fd, bytes, sizeof bytes);
    assert_true(n > (ssize_t)range[1]);
    memmove(bytes + range[0], bytes + range[1], (size_t)n - range[1]);
    n -= (ssize_t)(range[1] - range[0]);
    assert_int_equal(pwrite(fd, bytes, (size_t)n, 0), n);
    assert_int_equal(ftruncate(fd, n), 0);
    close(fd);
}

/* Without the block that has the message's pack, its other rows are lost to a backtest; they do not
 * get that of the message before. */
static void messages_are_not_mixed_up(void **state)
{
    struct fixture *f = *state;
    unsigned n[JOURNAL_FACTS_COUNT];
    add_message(f->journal, 1, 1, "one");
    journal_flush(f->journal, t0);
    struct stat st;
    char path[64];
    snprintf(path, sizeof path, "%s/journal-20060123-172320.bwj", f->dir);
    assert_int_equal(stat(path, &st), 0);
    size_t second = (size_t)st.st_size;
    for (uint64_t tx = 2; tx <= 4; tx++)
        add_message(f->journal, tx, 150, "many"); /* more than a block, less than two */
    journal_flush(f->journal, t0);
    count_all(f->dir, n);
    assert_int_equal(n[JOURNAL_FACTS], 451);
    size_t gone[2] = {second, second + 100};
    each_segment(f->dir, cut_out, gone);
    count_all(f->dir, n);
    assert_true(n[JOURNAL_LOST] > 0);
    assert_true(n[JOURNAL_FACTS] > 1);
    struct told t = oldest_first(f->dir);
    assert_string_equal(t.text[0], "one/copy");
    for (size_t i = 1; i < t.n; i++)
        assert_string_equal(t.text[i], t.facts[i] == JOURNAL_LOST ? "/copy" : "many/copy");
}

static int one_more(void *arg, const struct journal_row *r)
{
    (void)r;
    ++*(uint64_t *)arg;
    return 0;
}

static uint64_t found_any(const char *dir)
{
    uint64_t n = 0;
    assert_int_equal(journal_each(dir, &(struct journal_filter){0}, one_more, &n), 0);
    return n;
}

struct progress {
    uint64_t calls, last, total;
};
static void note_progress(void *arg, uint64_t done, uint64_t total)
{
    struct progress *p = arg;
    assert_true(done >= p->last && done <= total);
    *p = (struct progress){p->calls + 1, done, total};
}
static int note_nothing(void *arg, const struct journal_row *r)
{
    (void)arg, (void)r;
    return 0;
}

static void a_description_stands_again_after_a_mebibyte(void **state)
{
    struct fixture *f = *state;
    unsigned n[JOURNAL_FACTS_COUNT];
    for (uint64_t tx = 1; tx <= 10000; tx++)
        add_message(f->journal, tx, 1, "one");
    journal_flush(f->journal, t0);
    static const uint8_t zero[100];
    char path[64];
    snprintf(path, sizeof path, "%s/journal-20060123-172320.bwj", f->dir);
    int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, zero, sizeof zero, 0), sizeof zero);
    close(fd);
    count_all(f->dir, n);
    assert_int_equal(n[JOURNAL_FACTS] + n[JOURNAL_LOST], 10000);
    assert_true(n[JOURNAL_LOST] > 3000 && n[JOURNAL_LOST] < 7000);
    assert_int_equal(found_any(f->dir), 10000); /* explain does not mind */
}

/* Two rows as they were written before facts were kept. */
static const uint8_t old_segment[] = {
    0x42, 0x57, 0x4a, 0x31, 0x00, 0xff, 0x00, 0xff, 0x32, 0x01, 0x00, 0x00, 0x5f, 0xbd, 0x00, 0x5a,
    0x99, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x41, 0x87, 0x4a, 0xf8, 0x08, 0x01,
    0x00, 0x00, 0x74, 0x77, 0x65, 0x6c, 0x76, 0x65, 0x20, 0x62, 0x79, 0x74, 0x65, 0x73, 0x00, 0x03,
    0x02, 0x01, 0x07, 0x00, 0x00, 0x00, 0x02, 0x00, 0x69, 0x6e, 0x09, 0x00, 0x31, 0x39, 0x32, 0x2e,
    0x30, 0x2e, 0x32, 0x2e, 0x37, 0x0b, 0x00, 0x61, 0x40, 0x61, 0x2e, 0x65, 0x78, 0x61, 0x6d, 0x70,
    0x6c, 0x65, 0x0b, 0x00, 0x62, 0x40, 0x62, 0x2e, 0x65, 0x78, 0x61, 0x6d, 0x70, 0x6c, 0x65, 0x04,
    0x00, 0x34, 0x41, 0x42, 0x43, 0x09, 0x00, 0x64, 0x75, 0x70, 0x6c, 0x69, 0x63, 0x61, 0x74, 0x65,
    0x0d, 0x00, 0x3c, 0x31, 0x40, 0x61, 0x2e, 0x65, 0x78, 0x61, 0x6d, 0x70, 0x6c, 0x65, 0x3e, 0x09,
    0x00, 0x53, 0x34, 0x4b, 0x37, 0x51, 0x5a, 0x32, 0x4d, 0x41, 0x0b, 0x00, 0x73, 0x62, 0x73, 0x2e,
    0x65, 0x78, 0x61, 0x6d, 0x70, 0x6c, 0x65, 0x09, 0x00, 0x63, 0x61, 0x6d, 0x65, 0x20, 0x62, 0x61,
    0x63, 0x6b, 0x05, 0x00, 0x63, 0x68, 0x61, 0x69, 0x6e, 0x99, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x42, 0x87, 0x4a, 0xf8, 0x08, 0x01, 0x00, 0x00, 0x74, 0x77, 0x65, 0x6c, 0x76,
    0x65, 0x20, 0x62, 0x79, 0x74, 0x65, 0x73, 0x00, 0x03, 0x02, 0x01, 0x07, 0x00, 0x00, 0x00, 0x02,
    0x00, 0x69, 0x6e, 0x09, 0x00, 0x31, 0x39, 0x32, 0x2e, 0x30, 0x2e, 0x32, 0x2e, 0x37, 0x0b, 0x00,
    0x61, 0x40, 0x61, 0x2e, 0x65, 0x78, 0x61, 0x6d, 0x70, 0x6c, 0x65, 0x0b, 0x00, 0x62, 0x40, 0x62,
    0x2e, 0x65, 0x78, 0x61, 0x6d, 0x70, 0x6c, 0x65, 0x04, 0x00, 0x34, 0x41, 0x42, 0x43, 0x09, 0x00,
    0x64, 0x75, 0x70, 0x6c, 0x69, 0x63, 0x61, 0x74, 0x65, 0x0d, 0x00, 0x3c, 0x31, 0x40, 0x61, 0x2e,
    0x65, 0x78, 0x61, 0x6d, 0x70, 0x6c, 0x65, 0x3e, 0x09, 0x00, 0x53, 0x34, 0x4b, 0x37, 0x51, 0x5a,
    0x32, 0x4d, 0x41, 0x0b, 0x00, 0x73, 0x62, 0x73, 0x2e, 0x65, 0x78, 0x61, 0x6d, 0x70, 0x6c, 0x65,
    0x09, 0x00, 0x63, 0x61, 0x6d, 0x65, 0x20, 0x62, 0x61, 0x63, 0x6b, 0x05, 0x00, 0x63, 0x68, 0x61,
    0x69, 0x6e};

static void segments_of_older_versions_are_read(void **state)
{
    struct fixture *f = *state;
    char path[64];
    snprintf(path, sizeof path, "%s/journal-20060123-172320.bwj", f->dir);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(fd, old_segment, sizeof old_segment), sizeof old_segment);
    close(fd);
    struct told t = oldest_first(f->dir);
    assert_int_equal(t.n, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(t.tx[i], i + 1);
        assert_int_equal(t.facts[i], JOURNAL_OLD);
        assert_string_equal(t.text[i], "/");
    }
    struct journal_row back;
    assert_int_equal(
        journal_each(f->dir, &(struct journal_filter){.rcpt = "b@b.example"}, first_row, &back), 0);
    assert_int_equal(back.tx, 2);
    assert_int_equal(back.advised, 3);
    assert_int_equal(back.copies, 7);
    assert_true(span_eq(back.rcpt, SPAN("b@b.example")));
    assert_true(span_eq(back.incident, SPAN("S4K7QZ2MA")));
    /* a new segment beside it */
    add_message(f->journal, 3, 2, "new");
    journal_flush(f->journal, t0);
    t = oldest_first(f->dir);
    assert_int_equal(t.n, 4);
    assert_int_equal(t.facts[1], JOURNAL_OLD);
    assert_int_equal(t.facts[2], JOURNAL_FACTS);
}

static void progress_goes_from_nothing_to_all(void **state)
{
    struct fixture *f = *state;
    add(f->journal, 1, 20000);
    journal_flush(f->journal, t0);
    for (int oldest = 0; oldest < 2; oldest++) {
        struct journal_filter filter = {.oldest_first = oldest, .progress = note_progress};
        struct progress p = {0};
        assert_int_equal(journal_each(f->dir, &filter, note_nothing, &p), 0);
        assert_true(p.calls > 10 && p.last > p.total / 2 && p.last <= p.total);
    }
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, open_journal, close_journal)
int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(rows_come_back_newest_first),
        CASE(filters),
        CASE(texts_are_bounded_and_free_of_nul),
        CASE(a_day_or_a_restart_begins_a_segment),
        CASE(old_segments_go),
        CASE(overflow_is_counted),
        CASE(an_unwritable_directory_costs_rows_not_mail),
        CASE(damage_costs_only_what_it_touches),
        CASE(facts_come_back_oldest_first),
        CASE(a_message_to_many_is_understood_to_the_end),
        CASE(messages_are_not_mixed_up),
        CASE(a_description_stands_again_after_a_mebibyte),
        CASE(segments_of_older_versions_are_read),
        CASE(progress_goes_from_nothing_to_all),
    };
    clock_set(the_clock);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
