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
    double where; /* part of the file */
};
static void wound(const char *path, void *arg)
{
    const struct wound *w = arg;
    static uint8_t bytes[1 << 16];
    int fd = open(path, O_RDWR);
    ssize_t n = read(fd, bytes, sizeof bytes - 64);
    size_t at = (size_t)(w->where * (double)n);
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
            struct wound w = {kind, i / 997.0};
            char error[512];
            for (uint64_t k = 1; k <= 20; k++) {
                add(f->journal, k, 1);
                journal_flush(f->journal, t0);
            }
            journal_close(&f->journal);
            each_segment(f->dir, wound, &w);
            uint64_t n = found(f->dir, (struct journal_filter){0});
            uint64_t want = kind == CUT ? (uint64_t)(20 * w.where) : 19;
            if (n < want || n > 20)
                fail_msg("kind %d at %f: %lu rows", kind, w.where, n);
            each_segment(f->dir, remove_segment, NULL);
            f->journal = journal_open(f->dir, 30 * day, error);
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
    };
    clock_set(the_clock);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
