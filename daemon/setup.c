/* setup.c - see setup.h: the files, and the question. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "setup.h"

enum { FILE_BYTES = 1 << 20 };

bool setup_read(struct arena *arena, const char *path, struct span *bytes)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    uint8_t *p = arena_alloc(arena, FILE_BYTES + 1);
    ssize_t got = 0;
    size_t n = 0;
    while (n <= FILE_BYTES && (got = read(fd, p + n, FILE_BYTES + 1 - n)) > 0)
        n += (size_t)got;
    int why = n > FILE_BYTES ? EFBIG : got < 0 ? errno : 0;
    close(fd);
    errno = why;
    *bytes = span_of(p, n);
    return !why;
}

static int write_all(int fd, struct span s)
{
    while (s.n) {
        ssize_t n = write(fd, s.p, s.n);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        s = span_from(s, (size_t)n);
    }
    return fsync(fd);
}

static int sync_directory(const char *path)
{
    char copy[4096];
    snprintf(copy, sizeof copy, "%s", path);
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int rc = fsync(fd);
    close(fd);
    return rc;
}

int setup_write(const char *path, struct span bytes, const char *like)
{
    char fresh[4096];
    struct stat st;
    if (stat(like, &st) < 0)
        return -1;
    if ((size_t)snprintf(fresh, sizeof fresh, "%s.breakwater-new", path) >= sizeof fresh) {
        errno = ENAMETOOLONG;
        return -1;
    }
    (void)unlink(fresh); /* of a call that was killed */
    int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    int rc = write_all(fd, bytes) < 0 || fchown(fd, st.st_uid, st.st_gid) < 0 ||
                     fchmod(fd, st.st_mode & 07777) < 0
                 ? -1
                 : 0;
    int why = errno;
    close(fd);
    if (rc == 0 && rename(fresh, path) == 0)
        return sync_directory(path);
    why = rc ? why : errno;
    unlink(fresh);
    errno = why;
    return -1;
}

const char *setup_before(struct arena *arena, const char *file)
{
    return arena_printf(arena, "%s.breakwater-before", file);
}

const char *setup_after(struct arena *arena, const char *file)
{
    return arena_printf(arena, "%s.breakwater-after", file);
}

int setup_agreed(const struct ctl *ctl, const char *question)
{
    char answer[16] = "";
    if (ctl->dry)
        return CTL_REFUSED;
    if (ctl->yes)
        return CTL_OK;
    if (!isatty(STDIN_FILENO)) {
        ctl_complain("setup wants -y when nobody can be asked; -n shows what it would do");
        return CTL_USAGE;
    }
    printf("%s [y/N] ", question);
    fflush(stdout);
    if (fgets(answer, sizeof answer, stdin) && (answer[0] == 'y' || answer[0] == 'Y'))
        return CTL_OK;
    puts("Nothing was changed.");
    return CTL_REFUSED;
}
