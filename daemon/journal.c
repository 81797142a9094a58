/*
 * journal.c - every verdict of every recipient, in append-only segments.
 *
 *   mail threads -> [16 MiB being filled] <-swap-> [16 MiB being written] -> journal-DATE-TIME.bwj
 *
 *   segment = block...
 *   block   = mark[8] length[4] crc32[4] row...          (numbers little-endian; the CRC covers
 *   row     = length[2] fixed part (length, text)...      length and rows; a block <= 64 KiB)
 *             [kind, (length, pack of message), (length, pack of copy)]
 *
 * The packs hold the facts a rule may ask about (fact_pack.h); what is the same for all recipients
 * of a message stands in the first of its rows, and again every 32 KiB. A row without them was
 * written by an older version. A row of kind DESCRIPTION begins each segment, and stands again
 * after each MiB: it names the facts, as numbered by whoever wrote the segment.
 *
 * A text never holds a NUL, the mark does, with bytes around it that no length can be: so what
 * strangers write into a row can never look like the beginning of a block, and a reader that lost
 * its place finds the next true one. Invariant: a segment only grows, or is cut back to the end of
 * its last whole block.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "crc.h"
#include "id.h"
#include "journal.h"
#include "log.h"

enum {
    WAITING_MAX = 16 << 20, /* a second of 100,000 rows */
    BLOCK_MAX = 64 << 10,
    BLOCK_HEAD = 16,
    SEGMENT_MAX = 64 << 20,
    NAME_SIZE = sizeof "journal-YYYYMMDD-HHMMSS.bwj",
    ROW_FIXED = 8 + 8 + 12 + 4 + 4, /* tx, time, k, four bytes, copies */
    ROW_TEXTS = 11,
    ROW_MAX = 8 << 10,
    DESCRIBE_EACH = 1 << 20,
};
/* What follows the texts of a row. None is NUL. */
enum row_kind {
    ROW_OLD, /* nothing */
    ROW_UNJUDGED,
    ROW_FACTS,       /* both packs */
    ROW_MORE,        /* the pack of the message is in a row before it, of the same transaction */
    ROW_DESCRIPTION, /* in place of the pack of a message; its tx is 0 */
};
static const int64_t segment_age = 24 * 3600 * 1000LL, sweep_pause = 3600 * 1000LL;
static const uint8_t mark[8] = {'B', 'W', 'J', '1', 0, 0xff, 0, 0xff};

struct journal {
    pthread_mutex_t lock; /* guards filling and used */
    uint8_t *filling, *writing;
    size_t used;
    _Atomic uint64_t lost;
    /* the flusher's */
    char *dir;
    int64_t keep, begun, swept; /* begun: when the segment was; swept: when old ones were removed */
    int fd;                     /* -1: no segment yet */
    off_t size, describe_at;    /* describe_at: from where on a description is due */
    bool failing;               /* the last write failed: said once */
};

/* ---- checksum ---- */

static uint32_t block_crc(const uint8_t *head, const uint8_t *rows, size_t n)
{
    return crc32_add(crc32_add(0, head + sizeof mark, 4), rows, n);
}

/* ---- rows ---- */

/* The texts of a row in the order they are written, and how much of each is kept. */
static const struct {
    size_t at;
    size_t most;
} row_texts[ROW_TEXTS] = {
    {offsetof(struct journal_row, door), 64},
    {offsetof(struct journal_row, client), 64},
    {offsetof(struct journal_row, from), LIMIT_ADDRESS},
    {offsetof(struct journal_row, rcpt), LIMIT_ADDRESS},
    {offsetof(struct journal_row, queue_id), 64},
    {offsetof(struct journal_row, rule), 64},
    {offsetof(struct journal_row, message_id), LIMIT_ADDRESS},
    {offsetof(struct journal_row, incident), 16},
    {offsetof(struct journal_row, blamed), 128},
    {offsetof(struct journal_row, conviction), 128},
    {offsetof(struct journal_row, joined), 128},
};

static struct span row_text(const struct journal_row *r, int i)
{
    struct span s;
    memcpy(&s, (const char *)r + row_texts[i].at, sizeof s);
    return span_head(s, row_texts[i].most);
}

static uint8_t *put_text(uint8_t *p, struct span s)
{
    p = bytes_put(p, s.n, 2);
    if (s.n)
        memcpy(p, s.p, s.n);
    for (uint8_t *nul = p; (nul = memchr(nul, 0, s.n - (size_t)(nul - p)));)
        *nul = '?';
    return p + s.n;
}

static size_t row_write(uint8_t out[ROW_MAX], const struct journal_row *r, enum row_kind kind)
{
    uint8_t *p = out + 2;
    p = bytes_put(p, r->tx, 8);
    p = bytes_put(p, (uint64_t)r->time, 8);
    memcpy(p, r->k.byte, sizeof r->k.byte);
    p += sizeof r->k.byte;
    *p++ = r->disposition;
    *p++ = r->advised;
    *p++ = r->relation;
    *p++ = r->mode;
    p = bytes_put(p, r->copies, 4);
    for (int i = 0; i < ROW_TEXTS; i++)
        p = put_text(p, row_text(r, i));
    *p++ = (uint8_t)kind;
    if (kind == ROW_FACTS || kind == ROW_DESCRIPTION)
        p = put_text(p, span_head(r->of_message, FACT_PACK_MESSAGE));
    if (kind == ROW_FACTS || kind == ROW_MORE)
        p = put_text(p, span_head(r->of_copy, FACT_PACK_COPY));
    bytes_put(out, (uint64_t)(p - out), 2);
    return (size_t)(p - out);
}

/* Takes one off the front of *s. false: there is none. */
static bool take_text(struct span *s, struct span *text)
{
    if (s->n < 2 || s->n - 2 < bytes_get(s->p, 2))
        return false;
    *text = span_of(s->p + 2, bytes_get(s->p, 2));
    *s = span_from(*s, 2 + text->n);
    return true;
}

/* What follows the texts. A kind that is not known says nothing. */
static enum row_kind kind_read(struct journal_row *r, struct span s)
{
    enum row_kind kind = s.n ? (enum row_kind)s.p[0] : ROW_OLD;
    bool good = true;
    s = span_from(s, 1);
    if (kind == ROW_FACTS || kind == ROW_DESCRIPTION)
        good = take_text(&s, &r->of_message);
    if (kind == ROW_FACTS || kind == ROW_MORE)
        good = good && take_text(&s, &r->of_copy);
    return good && kind <= ROW_DESCRIPTION ? kind : ROW_OLD;
}

/* Reads the row at the start of s; its texts point into s. Returns its length, 0: not a row. */
static size_t row_read(struct journal_row *r, enum row_kind *kind, struct span s)
{
    size_t n = s.n < 2 ? 0 : bytes_get(s.p, 2);
    if (n < 2 + ROW_FIXED || n > s.n)
        return 0;
    const uint8_t *p = s.p + 2;
    *r = (struct journal_row){.tx = bytes_get(p, 8), .time = (int64_t)bytes_get(p + 8, 8)};
    memcpy(r->k.byte, p + 16, sizeof r->k.byte);
    p += 16 + sizeof r->k.byte;
    r->disposition = p[0];
    r->advised = p[1];
    r->relation = p[2];
    r->mode = p[3];
    r->copies = (uint32_t)bytes_get(p + 4, 4);
    s = span_from(span_head(s, n), 2 + ROW_FIXED);
    for (int i = 0; i < ROW_TEXTS && s.n; i++) { /* older versions wrote fewer */
        struct span text;
        if (!take_text(&s, &text))
            return 0;
        memcpy((char *)r + row_texts[i].at, &text, sizeof text);
    }
    *kind = kind_read(r, s);
    return n;
}

/* ---- segments: names sort like times ---- */

static void segment_name(int64_t now, char out[NAME_SIZE])
{
    time_t s = (time_t)(now / 1000);
    struct tm tm;
    if (!gmtime_r(&s, &tm) || !strftime(out, NAME_SIZE, "journal-%Y%m%d-%H%M%S.bwj", &tm))
        memcpy(out, "journal-19700101-000000.bwj", NAME_SIZE);
}

/* When the segment of that name was begun, in ms; -1: not a segment's name. */
static int64_t segment_time(const char *name)
{
    struct tm tm = {0};
    char again[NAME_SIZE];
    if (!strptime(name, "journal-%Y%m%d-%H%M%S.bwj", &tm))
        return -1;
    int64_t t = (int64_t)timegm(&tm) * 1000;
    segment_name(t, again);
    return strcmp(name, again) == 0 ? t : -1;
}

static int newest_first(const void *a, const void *b)
{
    int64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x < y) - (x > y);
}

/* The times of all segments in dir, newest first, malloc'd. -1: dir cannot be read. */
static int segment_list(const char *dir, int64_t **times, size_t *n)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    size_t cap = 0;
    *times = NULL;
    *n = 0;
    if (!d)
        return -1;
    for (struct dirent *e; (e = readdir(d));) {
        int64_t t = segment_time(e->d_name);
        if (t < 0)
            continue;
        if (*n == cap && !(*times = reallocarray(*times, cap = cap * 2 + 16, sizeof **times)))
            abort();
        (*times)[(*n)++] = t;
    }
    closedir(d);
    if (*n)
        qsort(*times, *n, sizeof **times, newest_first);
    return 0;
}

static char *segment_path(const char *dir, int64_t time)
{
    char name[NAME_SIZE], *path;
    segment_name(time, name);
    if (asprintf(&path, "%s/%s", dir, name) < 0)
        abort();
    return path;
}

/* A segment's last row is at most segment_age younger than its name. */
static void segments_sweep(struct journal *j, int64_t now)
{
    int64_t *times;
    size_t n;
    if (now < j->swept + sweep_pause && now >= j->swept)
        return;
    j->swept = now;
    if (segment_list(j->dir, &times, &n))
        return;
    for (size_t i = 0; i < n; i++) {
        if (times[i] + segment_age >= now - j->keep || times[i] == j->begun)
            continue;
        char *path = segment_path(j->dir, times[i]);
        unlink(path);
        free(path);
    }
    free(times);
}

/* Opens a new segment when there is none or this one has had its bytes or its day. 0 or -1. */
static int segment_ready(struct journal *j, int64_t now)
{
    if (j->fd >= 0 && j->size < SEGMENT_MAX && now < j->begun + segment_age && now >= j->begun)
        return 0;
    if (j->fd >= 0)
        close(j->fd);
    j->size = j->describe_at = 0;
    j->fd = -1;
    /* a name is taken only after quick restarts: the next second will do */
    for (int tries = 0; j->fd < 0 && tries < 60; tries++, now += 1000) {
        char *path = segment_path(j->dir, now);
        j->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
        free(path);
        if (j->fd < 0 && errno != EEXIST)
            return -1;
        j->begun = now / 1000 * 1000;
    }
    return j->fd < 0 ? -1 : 0;
}

/* ---- writing ---- */

static int block_write(struct journal *j, const uint8_t *rows, size_t n)
{
    uint8_t head[BLOCK_HEAD];
    memcpy(head, mark, sizeof mark);
    bytes_put(head + 8, n, 4);
    bytes_put(head + 12, block_crc(head, rows, n), 4);
    struct iovec v[2] = {{head, sizeof head}, {(void *)(uintptr_t)rows, n}};
    ssize_t done = pwritev(j->fd, v, 2, j->size);
    if (done != (ssize_t)(sizeof head + n)) {
        int e = done < 0 ? errno : ENOSPC;
        (void)!ftruncate(j->fd, j->size); /* a reader would step over the torn block as well */
        errno = e;
        return -1;
    }
    j->size += done;
    return 0;
}

/* Says what the facts of the rows to come mean, where that is due. 0 or -1. */
static int describe(struct journal *j)
{
    uint8_t row[ROW_MAX];
    char text[FACT_DESCRIPTION];
    if (j->size < j->describe_at)
        return 0;
    struct journal_row r = {.of_message = span_of(text, facts_describe(text))};
    if (block_write(j, row, row_write(row, &r, ROW_DESCRIPTION)))
        return -1;
    j->describe_at = j->size + DESCRIBE_EACH;
    return 0;
}

/* As many whole rows as one block takes: their bytes, and their number. */
static size_t block_cut(const uint8_t *rows, size_t n, uint64_t *nrows)
{
    size_t used = 0;
    for (*nrows = 0; used < n; ++*nrows) {
        size_t row = bytes_get(rows + used, 2);
        if (used + row > BLOCK_MAX)
            break;
        used += row;
    }
    return used;
}

static void journal_failed(struct journal *j, const char *what)
{
    if (!j->failing)
        log_say(LOG_LEVEL_ERROR, "journal in %s: %s (%s); mail goes on, its verdicts are not kept",
                j->dir, what, strerror(errno));
    j->failing = true;
}

void journal_flush(struct journal *j, int64_t now)
{
    pthread_mutex_lock(&j->lock);
    uint8_t *rows = j->filling;
    size_t n = j->used;
    j->filling = j->writing;
    j->writing = rows;
    j->used = 0;
    pthread_mutex_unlock(&j->lock);

    segments_sweep(j, now);
    uint64_t nrows, failed = 0;
    for (size_t at = 0, block; at < n; at += block) {
        block = block_cut(rows + at, n - at, &nrows);
        if (!failed && segment_ready(j, now))
            journal_failed(j, "no new segment");
        else if (!failed && (describe(j) || block_write(j, rows + at, block)))
            journal_failed(j, "cannot write");
        else if (!failed) {
            if (j->failing)
                log_say(LOG_LEVEL_NOTICE, "journal in %s: written again", j->dir);
            j->failing = false;
            continue;
        }
        failed += nrows;
    }
    atomic_fetch_add(&j->lost, failed);
}

static void put_rows(struct journal *j, const uint8_t *rows, size_t n, size_t nrows)
{
    pthread_mutex_lock(&j->lock);
    bool room = n <= WAITING_MAX - j->used;
    if (room) {
        memcpy(j->filling + j->used, rows, n);
        j->used += n;
    }
    pthread_mutex_unlock(&j->lock);
    if (!room)
        atomic_fetch_add(&j->lost, nrows);
}

/* Rows that lean on the first of them are put in one piece: no other thread's come between. */
void journal_add_all(struct journal *j, const struct journal_row *rows, size_t n)
{
    uint8_t piece[4 * ROW_MAX];
    size_t used = 0, first = 0;
    bool packed = false; /* the pack of the message is in the piece */
    for (size_t i = 0; i < n; i++) {
        if (used > sizeof piece - ROW_MAX) {
            put_rows(j, piece, used, i - first);
            used = 0;
            first = i;
            packed = false;
        }
        bool facts = rows[i].facts == JOURNAL_FACTS;
        used += row_write(piece + used, &rows[i],
                          !facts   ? ROW_UNJUDGED
                          : packed ? ROW_MORE
                                   : ROW_FACTS);
        packed |= facts;
    }
    if (used)
        put_rows(j, piece, used, n - first);
}

void journal_add(struct journal *j, const struct journal_row *row)
{
    journal_add_all(j, row, 1);
}

uint64_t journal_lost(const struct journal *j)
{
    return atomic_load(&j->lost);
}

struct journal *journal_open(const char *dir, int64_t keep, char error[512])
{
    if (access(dir, R_OK | W_OK | X_OK)) {
        snprintf(error, 512, "journal: cannot write in %s: %s", dir, strerror(errno));
        return NULL;
    }
    struct journal *j = calloc(1, sizeof *j);
    if (!j || pthread_mutex_init(&j->lock, NULL) || !(j->dir = strdup(dir)) ||
        !(j->filling = malloc(WAITING_MAX)) || !(j->writing = malloc(WAITING_MAX)))
        abort();
    j->keep = keep;
    j->begun = j->swept = INT64_MIN / 2;
    j->fd = -1;
    return j;
}

void journal_close(struct journal **jp)
{
    struct journal *j = *jp;
    if (!j)
        return;
    journal_flush(j, clock_now());
    *jp = NULL;
    if (j->fd >= 0)
        close(j->fd);
    pthread_mutex_destroy(&j->lock);
    free(j->filling);
    free(j->writing);
    free(j->dir);
    free(j);
}

/* ---- reading ---- */

struct block {
    off_t at;
    size_t n;
};
struct blocks {
    struct block *list; /* oldest first */
    size_t n, cap;
};
struct segment {
    int fd;
    off_t end;
    const struct journal_filter *filter;
    journal_fn *fn;
    void *arg;
    uint64_t done, total; /* bytes: of the segments before it, of all */
    uint8_t block[BLOCK_HEAD + BLOCK_MAX];
    /* where facts are read */
    bool described;
    struct fact_map map;
    uint64_t tx; /* whose pack of_message is; 0: nobody's */
    size_t n;
    uint8_t of_message[FACT_PACK_MESSAGE];
};

/* The length of the rows of a block that seems to begin at `at`, or 0. */
static size_t block_seems(const struct segment *s, off_t at)
{
    uint8_t head[BLOCK_HEAD];
    if (pread(s->fd, head, sizeof head, at) != (ssize_t)sizeof head ||
        memcmp(head, mark, sizeof mark) != 0)
        return 0;
    size_t n = bytes_get(head + 8, 4);
    return n <= BLOCK_MAX && at + BLOCK_HEAD + (off_t)n <= s->end ? n : 0;
}

/* Reads it whole. false: damaged. */
static bool block_load(struct segment *s, off_t at, size_t n)
{
    if (pread(s->fd, s->block, BLOCK_HEAD + n, at) != (ssize_t)(BLOCK_HEAD + n))
        return false;
    return block_crc(s->block, s->block + BLOCK_HEAD, n) == bytes_get(s->block + 12, 4);
}

/* Where the next mark is, from `at` on; s->end: nowhere. */
static off_t next_mark(struct segment *s, off_t at)
{
    while (at < s->end) {
        ssize_t n = pread(s->fd, s->block, sizeof s->block, at);
        if (n < (ssize_t)sizeof mark)
            break;
        const uint8_t *hit = memmem(s->block, (size_t)n, mark, sizeof mark);
        if (hit)
            return at + (hit - s->block);
        at += n - (ssize_t)sizeof mark + 1;
    }
    return s->end;
}

/*
 * The blocks that begin in [at, end). Steps from head to head; where the step leads to no other
 * block, or when `prove` says so, a block must prove itself by its checksum, or the next mark is
 * looked for.
 */
static struct blocks find_blocks(struct segment *s, off_t at, off_t end, bool prove)
{
    struct blocks b = {0};
    while (at < end) {
        size_t n = block_seems(s, at);
        off_t next = at + BLOCK_HEAD + (off_t)n;
        bool leads = n && !prove && (next == s->end || block_seems(s, next));
        if (!leads && !(n && block_load(s, at, n))) {
            at = next_mark(s, at + 1);
            continue;
        }
        if (b.n == b.cap &&
            !(b.list = reallocarray(b.list, b.cap = b.cap * 2 + 64, sizeof *b.list)))
            abort();
        b.list[b.n++] = (struct block){at, n};
        at = next;
    }
    return b;
}

static bool wanted(const struct journal_filter *f, const struct journal_row *r)
{
    return (f->tx == 0 || f->tx == r->tx) &&
           (!f->rcpt || span_case_eq(r->rcpt, span_str(f->rcpt))) &&
           (!f->from || span_case_eq(r->from, span_str(f->from))) &&
           (f->since == 0 || r->time >= f->since) && (f->until == 0 || r->time <= f->until);
}

/* The packs of a row, or why there are none. */
static void read_facts(struct segment *s, struct journal_row *r, enum row_kind kind)
{
    if (kind == ROW_FACTS && r->of_message.n <= sizeof s->of_message) {
        s->tx = r->tx;
        s->n = r->of_message.n;
        if (s->n)
            memcpy(s->of_message, r->of_message.p, s->n);
    }
    bool lost = (kind == ROW_FACTS || kind == ROW_MORE) && (!s->described || s->tx != r->tx);
    r->facts = kind == ROW_OLD        ? JOURNAL_OLD
               : kind == ROW_UNJUDGED ? JOURNAL_UNJUDGED
               : lost                 ? JOURNAL_LOST
                                      : JOURNAL_FACTS;
    r->of_message = span_of(s->of_message, r->facts == JOURNAL_FACTS ? s->n : 0);
    r->map = &s->map;
}

static int one_row(struct segment *s, struct journal_row *r, enum row_kind kind)
{
    if (kind == ROW_DESCRIPTION) {
        if (s->filter->oldest_first)
            fact_map_read(&s->map, r->of_message);
        s->described = true;
        return 0;
    }
    if (s->filter->oldest_first)
        read_facts(s, r, kind);
    return wanted(s->filter, r) ? s->fn(s->arg, r) : 0;
}

/* The rows of the loaded block. Nonzero: fn stopped. */
static int block_each(struct segment *s, size_t n)
{
    uint32_t at[BLOCK_MAX / (2 + ROW_FIXED)];
    const uint8_t *rows = s->block + BLOCK_HEAD;
    size_t nrows = 0;
    int stop = 0;
    struct journal_row r;
    enum row_kind kind;
    for (size_t i = 0, row; (row = row_read(&r, &kind, span_of(rows + i, n - i))); i += row) {
        at[nrows++] = (uint32_t)i;
        if (s->filter->oldest_first && (stop = one_row(s, &r, kind)))
            return stop;
    }
    while (!s->filter->oldest_first && nrows-- > 0 && !stop) {
        row_read(&r, &kind, span_of(rows + at[nrows], n - at[nrows]));
        stop = one_row(s, &r, kind);
    }
    return stop;
}

static void say_progress(const struct segment *s, off_t at)
{
    if (s->filter->progress)
        s->filter->progress(s->arg, s->done + (uint64_t)at, s->total);
}

/* A block that led on well but is damaged: its length may be what is wrong, and good blocks lie
 * within. So look again, and trust nothing. */
static int range_each(struct segment *s, off_t at, off_t end, bool prove)
{
    int stop = 0;
    struct blocks b = find_blocks(s, at, end, prove);
    for (size_t i = 0; i < b.n && !stop; i++) {
        struct block *k = &b.list[s->filter->oldest_first ? i : b.n - 1 - i];
        if (block_load(s, k->at, k->n))
            stop = block_each(s, k->n);
        else if (!prove)
            stop = range_each(s, k->at + 1, k->at + BLOCK_HEAD + (off_t)k->n, true);
        if (!prove)
            say_progress(s, s->filter->oldest_first ? k->at : s->end - k->at);
    }
    free(b.list);
    return stop;
}

/* Nonzero: fn stopped. A segment that may not be read is noted in *error, one that is gone was
 * swept away meanwhile. */
static int segment_each(struct segment *s, const char *path, int *error)
{
    struct stat st;
    int stop = 0;
    s->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (s->fd < 0) {
        *error = errno == ENOENT ? *error : errno;
        return 0;
    }
    s->described = false;
    if (fstat(s->fd, &st) == 0) {
        s->end = st.st_size;
        stop = range_each(s, 0, s->end, false);
        s->done += (uint64_t)s->end;
    }
    close(s->fd);
    return stop;
}

/* May segment i hold rows of the time that is asked for? times: newest first. */
static bool in_time(const int64_t *times, size_t i, const struct journal_filter *f)
{
    /* all of it was written before the next newer segment began; a minute for the clock */
    if (f->since && i > 0 && times[i - 1] + 60000 < f->since)
        return false;
    /* a row bears the time of its MAIL, which may be long before it was written */
    return !f->until || times[i] - segment_age <= f->until;
}

static uint64_t segment_bytes(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

/* The paths of the segments that are asked for, in the order they are read in; malloc'd. */
static int segments_wanted(const char *dir, const struct journal_filter *f, char ***paths,
                           size_t *npaths)
{
    int64_t *times;
    size_t n;
    *npaths = 0;
    if (segment_list(dir, &times, &n))
        return -1;
    if (!(*paths = calloc(n + 1, sizeof **paths)))
        abort();
    for (size_t k = 0; k < n; k++) {
        size_t i = f->oldest_first ? n - 1 - k : k;
        if (in_time(times, i, f))
            (*paths)[(*npaths)++] = segment_path(dir, times[i]);
    }
    free(times);
    return 0;
}

int journal_each(const char *dir, const struct journal_filter *f, journal_fn *fn, void *arg)
{
    char **paths;
    size_t n;
    int error = 0, stop = 0;
    if (segments_wanted(dir, f, &paths, &n))
        return -1;
    struct segment *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->filter = f;
    s->fn = fn;
    s->arg = arg;
    for (size_t i = 0; f->progress && i < n; i++)
        s->total += segment_bytes(paths[i]);
    for (size_t i = 0; i < n; i++) {
        stop = stop ? stop : segment_each(s, paths[i], &error);
        free(paths[i]);
    }
    free(paths);
    free(s);
    errno = error;
    return error ? -1 : 0;
}
