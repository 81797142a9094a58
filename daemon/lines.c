/*
 * lines.c - one buffer, which grows to the longest line.
 *
 *   buffer: [ read before | line | not yet looked at | free ]
 *                         back   start             end    cap
 */
#include "lines.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FIRST_CAP = 256 << 10 };

struct lines {
    int fd;
    int error;
    bool end_seen;
    uint8_t *buffer;
    size_t back, start, end, cap, most;
    off_t base; /* of the buffer in the file */
    off_t size;
};

struct lines *lines_open(const char *path, size_t most)
{
    int fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0)
        return NULL;
    if (fstat(fd, &st) < 0 || S_ISDIR(st.st_mode)) {
        int error = errno;
        close(fd);
        errno = error ? error : EISDIR;
        return NULL;
    }
    struct lines *l = calloc(1, sizeof *l);
    if (!l)
        abort();
    l->fd = fd;
    l->most = most;
    l->size = st.st_size;
    return l;
}

void lines_close(struct lines **lp)
{
    struct lines *l = *lp;
    *lp = NULL;
    if (!l)
        return;
    close(l->fd);
    free(l->buffer);
    free(l);
}

/* Room for more behind what is not yet given out. */
static void make_room(struct lines *l)
{
    if (l->start > 0 && l->end - l->start <= l->cap / 2) {
        memmove(l->buffer, l->buffer + l->start, l->end - l->start);
        l->base += (off_t)l->start;
        l->end -= l->start;
        l->start = 0;
    }
    if (l->end < l->cap)
        return;
    l->cap = l->cap ? 2 * l->cap : FIRST_CAP;
    l->buffer = realloc(l->buffer, l->cap);
    if (!l->buffer)
        abort();
}

/* False: nothing more comes. */
static bool read_more(struct lines *l)
{
    if (l->end_seen)
        return false;
    make_room(l);
    ssize_t n;
    do {
        n = read(l->fd, l->buffer + l->end, l->cap - l->end);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        l->error = errno;
    l->end_seen = n <= 0;
    l->end += n > 0 ? (size_t)n : 0;
    return n > 0;
}

bool lines_next(struct lines *l, struct span *line)
{
    size_t searched = 0, n = 0;
    for (;;) {
        size_t have = l->end - l->start;
        const uint8_t *p = have ? l->buffer + l->start : NULL;
        const uint8_t *newline =
            have > searched ? memchr(p + searched, '\n', have - searched) : NULL;
        n = newline ? (size_t)(newline - p) + 1 : have;
        searched = have;
        if (newline || have >= l->most || !read_more(l))
            break;
    }
    n = n < l->most ? n : l->most;
    *line = span_of(n ? l->buffer + l->start : NULL, n);
    l->back = l->start;
    l->start += n;
    return n > 0;
}

void lines_back(struct lines *l)
{
    l->start = l->back;
}

void lines_seek(struct lines *l, off_t at)
{
    if (at >= l->base && at <= l->base + (off_t)l->end) {
        l->back = l->start = (size_t)(at - l->base);
        return;
    }
    l->error = lseek(l->fd, at, SEEK_SET) < 0 ? errno : 0;
    l->end_seen = l->error != 0;
    l->base = at;
    l->back = l->start = l->end = 0;
}

off_t lines_at(const struct lines *l)
{
    return l->base + (off_t)l->start;
}

off_t lines_size(const struct lines *l)
{
    return l->size;
}

int lines_error(const struct lines *l)
{
    return l->error;
}

size_t lines_peek(const struct lines *l, off_t at, void *out, size_t n)
{
    ssize_t got = pread(l->fd, out, n, at);
    return got > 0 ? (size_t)got : 0;
}
