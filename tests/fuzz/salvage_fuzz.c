/*
 * salvage_fuzz.c - any bytes as the pages of a damaged database and of its write-ahead log.
 *
 * input: how many pages, how many of them are in the log (its sums are made right, or nothing of it
 * would be read), then as many bytes for each: the first 48 begin the page, the others end it.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pages.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HEAD = 48, MOST = 12 };

static void put_be32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void write_all(int fd, const uint8_t *p, size_t n)
{
    if (write(fd, p, n) != (ssize_t)n)
        abort();
}

static void add_sum(uint32_t sum[2], const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        sum[0] += be32(p + i) + sum[1];
        sum[1] += be32(p + i + 4) + sum[0];
    }
}

static void spread(uint8_t page[PAGES_SIZE], struct span s)
{
    memset(page, 0, PAGES_SIZE);
    size_t head = s.n < HEAD ? s.n : HEAD;
    if (head)
        memcpy(page, s.p, head);
    s = span_head(span_from(s, head), PAGES_SIZE - HEAD);
    if (s.n)
        memcpy(page + PAGES_SIZE - s.n, s.p, s.n);
}

static void begin_log(int wal, uint32_t sum[2])
{
    uint8_t log[32] = {0};
    put_be32(log, 0x377f0683);
    put_be32(log + 4, 3007000);
    put_be32(log + 8, PAGES_SIZE);
    add_sum(sum, log, 24);
    put_be32(log + 24, sum[0]);
    put_be32(log + 28, sum[1]);
    write_all(wal, log, sizeof(log));
}

static void add_frame(int wal, uint32_t sum[2], uint32_t number, const uint8_t page[PAGES_SIZE])
{
    uint8_t frame[24] = {0};
    put_be32(frame, number);
    put_be32(frame + 4, number & 1 ? MOST : 0); /* a commit */
    add_sum(sum, frame, 8);
    add_sum(sum, page, PAGES_SIZE);
    put_be32(frame + 16, sum[0]);
    put_be32(frame + 20, sum[1]);
    write_all(wal, frame, sizeof(frame));
    write_all(wal, page, PAGES_SIZE);
}

struct tally {
    size_t records;
    unsigned sum;
};

static void look(void *arg, const struct record *r)
{
    struct tally *t = arg;
    if (r->n > PAGES_COLUMNS || ++t->records > MOST * PAGES_SIZE)
        abort();
    for (size_t i = 0; i < r->n; i++) {
        struct span s = r->column[i].bytes;
        if (s.n > PAGES_RECORD || (s.n && r->column[i].type < VALUE_TEXT))
            abort();
        for (size_t k = 0; k < s.n; k++)
            t->sum += s.p[k]; /* every byte is there */
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    uint32_t n = 1 + data[0] % MOST, in_log = data[1] % (n + 1), sum[2] = {0};
    struct span rest = span_of(data + 2, size - 2);
    size_t each = rest.n / n;
    int db = memfd_create("db", 0), wal = memfd_create("wal", 0);
    if (db < 0 || wal < 0)
        abort();
    begin_log(wal, sum);
    for (uint32_t i = 0; i < n; i++) {
        uint8_t page[PAGES_SIZE];
        spread(page, span_head(span_from(rest, i * each), each));
        if (i < n - in_log)
            write_all(db, page, PAGES_SIZE);
        else
            add_frame(wal, sum, i, page);
    }
    struct pages *p = pages_open(db, wal);
    struct tally t = {0};
    pages_each(p, true, look, &t);
    pages_each(p, false, look, &t);
    pages_close(&p);
    close(db);
    close(wal);
    return 0;
}
