/*
 * digests.c - see digests.h.
 *
 *   file  = magic[8] version[4] key_id[4] block...         (numbers little-endian)
 *   block = mark[8] time[8] count[4] crc32[4] digest[8]...  (the CRC covers time, count, digests)
 *
 * Invariant: a file only grows, or is cut back to the end of its last whole block.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "crc.h"
#include "digests.h"
#include "id.h"
#include "log.h"

enum {
    WAITING_MAX = 1 << 20, /* digests */
    BLOCK_DIGESTS = 512,
    HEAD = 16,
    BLOCK_HEAD = 24,
    BLOCK_MAX = BLOCK_HEAD + 8 * BLOCK_DIGESTS,
    READ_BYTES = 64 << 10,
    VERSION = 1,
    NAME_SIZE = sizeof "digests-YYYYMMDD-01234567.bwd"
};
static const int64_t day_ms = 86400000, sweep_pause = 3600000;
static const uint8_t magic[8] = {'B', 'W', 'D', 'I', 'G', 0, 0xff, 1};
static const uint8_t mark[8] = {'B', 'W', 'D', 'B', 0, 0xff, 0, 0xff};

struct digests {
    pthread_mutex_t lock; /* guards filling and used */
    uint64_t *filling, *writing;
    size_t used;
    _Atomic uint64_t lost, read, damaged;
    char *dir;
    uint32_t key_id;
    int64_t keep;
    /* the flusher's */
    int64_t today, swept; /* the file's day, in days; ms */
    int fd;               /* -1: no file */
    off_t size;
    bool failing; /* the last write failed: said once */
    /* the reader's */
    pthread_t thread;
    bool started;
    _Atomic bool reading, stop;
    _Atomic int64_t reached;
    int64_t from; /* ms: nothing older is read */
    digests_fn *fn;
    void *arg;
};

/* ---- names ---- */

static void file_name(int64_t day, uint32_t key_id, char out[NAME_SIZE])
{
    char date[sizeof "YYYYMMDD"] = "19700101";
    time_t s = (time_t)(day * (day_ms / 1000));
    struct tm tm;
    if (gmtime_r(&s, &tm))
        (void)strftime(date, sizeof date, "%Y%m%d", &tm);
    snprintf(out, NAME_SIZE, "digests-%s-%08x.bwd", date, key_id);
}

/* The day of the file of that name, -1: it is none of ours. */
static int64_t file_day(const char *name, uint32_t *key_id)
{
    struct tm tm = {0};
    char again[NAME_SIZE];
    const char *rest = strptime(name, "digests-%Y%m%d-", &tm);
    if (!rest)
        return -1;
    *key_id = (uint32_t)strtoul(rest, NULL, 16);
    int64_t day = (int64_t)timegm(&tm) / (day_ms / 1000);
    file_name(day, *key_id, again);
    return strcmp(name, again) == 0 ? day : -1;
}

static void path_of(const struct digests *d, const char *name, char *out, size_t size)
{
    snprintf(out, size, "%s/%s", d->dir, name);
}

struct file {
    int64_t day;
    uint32_t key_id;
};

static int later_first(const void *a, const void *b)
{
    const struct file *x = a, *y = b;
    return (x->day < y->day) - (x->day > y->day);
}

/* All files there are, the latest first; malloc'd. */
static struct file *files(const struct digests *d, size_t *n)
{
    struct file *list = NULL;
    size_t cap = *n = 0;
    DIR *dir = opendir(d->dir);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        struct file f = {0};
        if ((f.day = file_day(e->d_name, &f.key_id)) < 0)
            continue;
        if (*n == cap) {
            struct file *more = reallocarray(list, cap = 2 * cap + 16, sizeof *list);
            if (!more)
                abort();
            list = more;
        }
        list[(*n)++] = f;
    }
    if (dir)
        closedir(dir);
    if (*n)
        qsort(list, *n, sizeof *list, later_first);
    return list;
}

/* ---- writing ---- */

static void sweep(struct digests *d, int64_t now)
{
    if (now - d->swept < sweep_pause)
        return;
    d->swept = now;
    size_t n;
    struct file *list = files(d, &n);
    for (size_t i = 0; i < n; i++) {
        char name[NAME_SIZE], path[4096];
        if ((list[i].day + 1) * day_ms >= now - d->keep)
            continue;
        file_name(list[i].day, list[i].key_id, name);
        path_of(d, name, path, sizeof path);
        unlink(path);
    }
    free(list);
}

static void failed(struct digests *d, const char *what)
{
    if (!d->failing)
        log_say(LOG_LEVEL_ERROR, "digests in %s: %s: %s; mail goes on, a restart will know less",
                d->dir, what, strerror(errno));
    d->failing = true;
}

/* The whole of it, or the file is cut back to where it was. */
static int append(struct digests *d, const uint8_t *p, size_t n)
{
    ssize_t wrote = pwrite(d->fd, p, n, d->size);
    if (wrote == (ssize_t)n) {
        d->size += wrote;
        return 0;
    }
    if (wrote >= 0)
        errno = ENOSPC;
    int why = errno;
    (void)!ftruncate(d->fd, d->size);
    errno = why;
    return -1;
}

static int begin_file(struct digests *d, int64_t day)
{
    char name[NAME_SIZE], path[4096];
    struct stat st;
    if (d->fd >= 0)
        close(d->fd);
    file_name(day, d->key_id, name);
    path_of(d, name, path, sizeof path);
    d->today = day;
    d->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (d->fd < 0 || fstat(d->fd, &st))
        return -1;
    d->size = st.st_size;
    if (d->size)
        return 0;
    uint8_t head[HEAD], *p = head;
    memcpy(p, magic, sizeof magic);
    p = bytes_put(p + sizeof magic, VERSION, 4);
    bytes_put(p, d->key_id, 4);
    return append(d, head, sizeof head);
}

static int write_block(struct digests *d, const uint64_t *digest, size_t n, int64_t now)
{
    uint8_t block[BLOCK_MAX], *p = block + BLOCK_HEAD;
    memcpy(block, mark, sizeof mark);
    bytes_put(block + 8, (uint64_t)now, 8);
    bytes_put(block + 16, n, 4);
    for (size_t i = 0; i < n; i++)
        p = bytes_put(p, digest[i], 8);
    bytes_put(block + 20, crc32_add(crc32_add(0, block + 8, 12), block + BLOCK_HEAD, 8 * n), 4);
    return append(d, block, BLOCK_HEAD + 8 * n);
}

void digests_flush(struct digests *d, int64_t now)
{
    pthread_mutex_lock(&d->lock);
    uint64_t *writing = d->filling;
    size_t n = d->used;
    d->filling = d->writing;
    d->writing = writing;
    d->used = 0;
    pthread_mutex_unlock(&d->lock);

    sweep(d, now);
    if (!n)
        return;
    int64_t day = now / day_ms;
    if ((d->fd < 0 || day != d->today) && begin_file(d, day)) {
        failed(d, "no new file");
        if (d->fd >= 0)
            close(d->fd);
        d->fd = -1;
        atomic_fetch_add(&d->lost, n);
        return;
    }
    for (size_t at = 0; at < n; at += BLOCK_DIGESTS) {
        size_t some = n - at < BLOCK_DIGESTS ? n - at : BLOCK_DIGESTS;
        if (write_block(d, writing + at, some, now)) {
            failed(d, "cannot write");
            atomic_fetch_add(&d->lost, n - at);
            return;
        }
    }
    if (d->failing)
        log_say(LOG_LEVEL_NOTICE, "digests in %s: written again", d->dir);
    d->failing = false;
}

void digests_add(void *digests, uint64_t digest)
{
    struct digests *d = digests;
    pthread_mutex_lock(&d->lock);
    bool room = d->used < WAITING_MAX;
    if (room)
        d->filling[d->used++] = digest;
    pthread_mutex_unlock(&d->lock);
    if (!room)
        atomic_fetch_add(&d->lost, 1);
}

/* ---- reading back ---- */

/* A file being read: bytes from `at` on lie in buffer. */
struct input {
    int fd;
    off_t at;
    size_t n; /* bytes in buffer */
    uint8_t buffer[READ_BYTES];
};

/* Makes sure there are `want` bytes at the front, if the file has as many. */
static bool fill(struct input *in, size_t want)
{
    if (in->n >= want)
        return true;
    ssize_t more =
        pread(in->fd, in->buffer + in->n, sizeof in->buffer - in->n, in->at + (off_t)in->n);
    in->n += more > 0 ? (size_t)more : 0;
    return in->n >= want;
}

static void skip(struct input *in, size_t n)
{
    memmove(in->buffer, in->buffer + n, in->n - n);
    in->n -= n;
    in->at += (off_t)n;
}

/* The digests in the block at the front; 0: it is not whole. */
static size_t block_good(struct input *in, uint64_t *digest, int64_t *when)
{
    if (!fill(in, BLOCK_HEAD) || memcmp(in->buffer, mark, sizeof mark) != 0)
        return 0;
    size_t n = bytes_get(in->buffer + 16, 4);
    if (n == 0 || n > BLOCK_DIGESTS || !fill(in, BLOCK_HEAD + 8 * n))
        return 0;
    uint32_t crc = crc32_add(crc32_add(0, in->buffer + 8, 12), in->buffer + BLOCK_HEAD, 8 * n);
    if (crc != bytes_get(in->buffer + 20, 4))
        return 0;
    *when = (int64_t)bytes_get(in->buffer + 8, 8);
    for (size_t i = 0; i < n; i++)
        digest[i] = bytes_get(in->buffer + BLOCK_HEAD + 8 * i, 8);
    return n;
}

/* To the next mark after the front; false: there is none. */
static bool find_mark(struct input *in)
{
    skip(in, 1);
    while (fill(in, sizeof mark)) {
        const uint8_t *hit = memmem(in->buffer, in->n, mark, sizeof mark);
        if (hit) {
            skip(in, (size_t)(hit - in->buffer));
            return true;
        }
        skip(in, in->n - sizeof mark + 1);
    }
    return false;
}

static bool head_good(struct digests *d, struct input *in)
{
    bool good = fill(in, HEAD) && memcmp(in->buffer, magic, sizeof magic) == 0 &&
                bytes_get(in->buffer + 8, 4) == VERSION &&
                bytes_get(in->buffer + 12, 4) == d->key_id;
    if (good)
        skip(in, HEAD);
    return good;
}

static void read_blocks(struct digests *d, struct input *in, int64_t day)
{
    uint64_t digest[BLOCK_DIGESTS];
    int64_t when;
    while (fill(in, 1) && !atomic_load_explicit(&d->stop, memory_order_relaxed)) {
        size_t n = block_good(in, digest, &when);
        if (!n) {
            atomic_fetch_add(&d->damaged, 1);
            if (!find_mark(in))
                return;
            continue;
        }
        skip(in, BLOCK_HEAD + 8 * n);
        /* the file's name is as good a witness as the block */
        if (when < day * day_ms || when >= (day + 1) * day_ms)
            when = day * day_ms;
        if (when >
            d->from + d->keep) /* the clock was wrong: they were not written later than now */
            when = d->from + d->keep;
        d->fn(d->arg, digest, n, when);
        atomic_fetch_add(&d->read, n);
    }
}

static void read_file(struct digests *d, struct input *in, const struct file *f)
{
    char name[NAME_SIZE], path[4096];
    file_name(f->day, f->key_id, name);
    path_of(d, name, path, sizeof path);
    in->at = 0;
    in->n = 0;
    in->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (in->fd < 0)
        return;
    if (head_good(d, in)) {
        read_blocks(d, in, f->day);
    } else {
        atomic_fetch_add(&d->damaged, 1);
        log_say(LOG_LEVEL_ERROR, "%s: not a file of digests of this version; skipped", path);
    }
    close(in->fd);
}

static void *read_all(void *arg)
{
    struct digests *d = arg;
    size_t n, foreign = 0;
    struct file *list = files(d, &n);
    struct input *in = malloc(sizeof *in);
    if (!in)
        abort();
    for (size_t i = 0; i < n && !atomic_load(&d->stop); i++) {
        if ((list[i].day + 1) * day_ms < d->from)
            break;
        foreign += list[i].key_id != d->key_id;
        if (list[i].key_id != d->key_id)
            continue;
        read_file(d, in, &list[i]);
        atomic_store(&d->reached, list[i].day * day_ms);
    }
    if (foreign)
        log_say(LOG_LEVEL_NOTICE,
                "%zu files of digests in %s were made with another site key: they are of no use "
                "and will be removed when they are old",
                foreign, d->dir);
    uint64_t damaged = atomic_load(&d->damaged);
    if (damaged)
        log_say(LOG_LEVEL_ERROR, "digests in %s: %llu damaged blocks were skipped", d->dir,
                (unsigned long long)damaged);
    free(in);
    free(list);
    atomic_store(&d->reading, false);
    return NULL;
}

void digests_read(struct digests *d, int64_t now, digests_fn *fn, void *arg)
{
    d->from = now - d->keep;
    d->fn = fn;
    d->arg = arg;
    atomic_store(&d->reading, true);
    d->started = pthread_create(&d->thread, NULL, read_all, d) == 0;
    if (!d->started)
        (void)read_all(d); /* without a thread: before service starts */
}

void digests_figures(struct digests *d, struct digests_figures *f)
{
    *f = (struct digests_figures){.reading = atomic_load(&d->reading),
                                  .reached = atomic_load(&d->reached),
                                  .read = atomic_load(&d->read),
                                  .damaged = atomic_load(&d->damaged),
                                  .lost = atomic_load(&d->lost)};
}

/* ---- life ---- */

struct digests *digests_open(const char *dir, uint32_t key_id, int64_t keep, char error[512])
{
    if (access(dir, R_OK | W_OK | X_OK)) {
        snprintf(error, 512, "digests: cannot write in %s: %s", dir, strerror(errno));
        return NULL;
    }
    struct digests *d = calloc(1, sizeof *d);
    if (!d || pthread_mutex_init(&d->lock, NULL) || !(d->dir = strdup(dir)) ||
        !(d->filling = malloc(WAITING_MAX * sizeof *d->filling)) ||
        !(d->writing = malloc(WAITING_MAX * sizeof *d->writing)))
        abort();
    d->key_id = key_id;
    d->keep = keep;
    d->swept = INT64_MIN / 2;
    d->fd = -1;
    return d;
}

void digests_close(struct digests **dp)
{
    struct digests *d = *dp;
    *dp = NULL;
    if (!d)
        return;
    atomic_store(&d->stop, true);
    if (d->started)
        pthread_join(d->thread, NULL);
    digests_flush(d, clock_now());
    if (d->fd >= 0)
        close(d->fd);
    pthread_mutex_destroy(&d->lock);
    free(d->filling);
    free(d->writing);
    free(d->dir);
    free(d);
}
