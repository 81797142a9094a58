/*
 * journal_fuzz.c - a segment of good blocks with the fuzzer's bytes in front, between and behind:
 * the good rows are all found, newest first, and none twice; and so the other way round, with the
 * facts that were packed, unless their description is taken for another.
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
#define good_pack SPAN("\1\2")

struct seen {
    bool oldest_first;
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
    if (r->facts == JOURNAL_FACTS) {
        struct facts facts = {0};
        s->sum += facts_unpack(r->map, r->of_message, r->of_copy, &facts);
        for (unsigned i = 0; i < FACT_COUNT; i++)
            for (size_t k = 0; facts.value[i].type == TYPE_STRING && k < facts.value[i].text.n; k++)
                s->sum += facts.value[i].text.p[k];
    }
    if (r->time != good_time || r->tx - s->salt >= GOOD)
        return 0;
    if (r->tx != s->salt + (s->oldest_first ? s->good : GOOD - 1 - s->good))
        abort();
    if (s->oldest_first && (r->facts != JOURNAL_FACTS || !span_eq(r->of_message, good_pack) ||
                            !span_eq(r->of_copy, SPAN("c"))))
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

static off_t append_block(int fd, off_t at, const struct journal_row *r, enum row_kind kind)
{
    uint8_t block[BLOCK_HEAD + ROW_MAX];
    size_t n = row_write(block + BLOCK_HEAD, r, kind);
    memcpy(block, mark, sizeof mark);
    bytes_put(block + 8, n, 4);
    bytes_put(block + 12, block_crc(block, block + BLOCK_HEAD, n), 4);
    return append(fd, at, block, BLOCK_HEAD + n);
}

static off_t append_good(int fd, off_t at, uint64_t tx)
{
    char text[FACT_DESCRIPTION];
    struct journal_row d = {.of_message = span_of(text, facts_describe(text))};
    struct journal_row r = {.tx = tx,
                            .time = good_time,
                            .rcpt = SPAN("b@b.example"),
                            .of_message = good_pack,
                            .of_copy = SPAN("c")};
    at = append_block(fd, at, &d, ROW_DESCRIPTION);
    return append_block(fd, at, &r, ROW_FACTS);
}

static void read_again(const char *dir, struct seen s, bool oldest_first)
{
    s.oldest_first = oldest_first;
    if (journal_each(dir, &(struct journal_filter){.oldest_first = oldest_first}, look, &s) ||
        s.good != GOOD)
        abort();
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
    read_again(dir, s, false);
    read_again(dir, s, true);
    unlink(path);
    rmdir(dir);
    made = false;
    memcpy(dir + sizeof dir - 7, "XXXXXX", 6);
    return 0;
}
