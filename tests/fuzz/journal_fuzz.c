/*
 * journal_fuzz.c - a segment of good blocks with the fuzzer's bytes in front, between and behind:
 * the good rows are all found, newest first, and none twice.
 *
 * The bytes may hold blocks that are good in themselves (then their rows are rows) and heads that
 * claim good blocks as theirs. For those they cannot make a good checksum, because a good row holds
 * a number that is new each time; so nothing is lost.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../../daemon/journal.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { GOOD = 3 };
static const int64_t good_time = 0x123456789abcdef;

struct seen {
    unsigned good;
    uint64_t salt;
    uint64_t sum;
};

static int look(void *arg, const struct journal_row *r)
{
    struct seen *s = arg;
    for (int i = 0; i < ROW_TEXTS; i++) { /* every byte is ours to read */
        struct span text = row_text(r, i);
        for (size_t k = 0; k < text.n; k++)
            s->sum += text.p[k];
    }
    if (r->time != good_time || r->tx - s->salt >= GOOD)
        return 0;
    if (r->tx != s->salt + GOOD - 1 - s->good)
        abort();
    s->good++;
    return 0;
}

static off_t append(int fd, off_t at, const void *p, size_t n)
{
    if (n && pwrite(fd, p, n, at) != (ssize_t)n)
        abort();
    return at + (off_t)n;
}

static off_t append_good(int fd, off_t at, uint64_t tx)
{
    uint8_t block[BLOCK_HEAD + ROW_MAX];
    struct journal_row r = {.tx = tx, .time = good_time, .rcpt = SPAN("b@b.example")};
    size_t n = row_write(block + BLOCK_HEAD, &r);
    memcpy(block, mark, sizeof mark);
    bytes_put(block + 8, n, 4);
    bytes_put(block + 12, block_crc(block, block + BLOCK_HEAD, n), 4);
    return append(fd, at, block, BLOCK_HEAD + n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char dir[] = "/tmp/journal_fuzz.XXXXXX", path[128];
    static bool made;
    struct seen s = {0};
    if (getentropy(&s.salt, sizeof s.salt))
        abort();
    if (size > 20000)
        return 0;
    if (!made && !mkdtemp(dir))
        abort();
    made = true;
    snprintf(path, sizeof path, "%s/journal-20060123-172320.bwj", dir);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    size_t third = size / 3;
    off_t at = 0;
    for (uint64_t i = 0; i < GOOD; i++) {
        at = append(fd, at, data + i * third, third);
        at = append_good(fd, at, s.salt + i);
    }
    append(fd, at, data + GOOD * third, size - GOOD * third);
    close(fd);
    if (journal_each(dir, &(struct journal_filter){0}, look, &s) || s.good != GOOD)
        abort();
    unlink(path);
    rmdir(dir);
    made = false;
    memcpy(dir + sizeof dir - 7, "XXXXXX", 6);
    return 0;
}
