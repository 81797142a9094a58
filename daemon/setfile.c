/* setfile.c - see setfile.h. Only regular files are read: nothing here may wait for a pipe. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"
#include "setfile.h"

enum { PATH_ROOM = 4096, WHY = 200 };

/* The whole file into the arena. 0, or errno. */
static int read_all(struct arena *arena, int fd, size_t most, struct span *text)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return errno;
    if (!S_ISREG(st.st_mode))
        return EINVAL;
    if (st.st_size < 0 || (uint64_t)st.st_size > most)
        return EFBIG;
    size_t size = (size_t)st.st_size, n = 0;
    uint8_t *bytes = arena_alloc(arena, size + 1);
    ssize_t got = 1;
    while (n < size && (got = read(fd, bytes + n, size - n)) > 0)
        n += (size_t)got;
    *text = span_of(bytes, n);
    return got < 0 ? errno : 0;
}

/* A file of at most `most` bytes of UTF-8. */
static bool read_file(struct arena *arena, const char *path, size_t most, struct span *text,
                      char why[WHY])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int rc = fd < 0 ? errno : read_all(arena, fd, most, text);
    if (fd >= 0)
        close(fd);
    if (rc == 0 && json_is_utf8(*text))
        return true;
    if (rc == EFBIG)
        snprintf(why, WHY, "cannot read %.80s: there may be %d KB at most, in all sets together",
                 path, SETFILES_BYTES >> 10);
    else if (rc == EINVAL)
        snprintf(why, WHY, "cannot read %.120s: it is no regular file", path);
    else
        snprintf(why, WHY, "cannot read %.120s: %s", path, rc ? strerror(rc) : "it is not UTF-8");
    return false;
}

bool setfile_text(struct arena *arena, const char *path, struct span *text, char why[WHY])
{
    return read_file(arena, path, SETFILES_BYTES, text, why);
}

/* Who may say what stands there: root and we, or anybody? Of a directory that has gone since a
 * version was stored, as those in /tmp do, a stranger can make another one. */
static bool is_strangers(const char *path)
{
    char above[PATH_ROOM];
    struct stat file, dir;
    int n = snprintf(above, sizeof above, "%s", path);
    char *slash = n > 0 && (size_t)n < sizeof above ? strrchr(above, '/') : NULL;
    if (!slash)
        return true;
    slash[slash == above] = '\0';
    return stat(path, &file) < 0 || file.st_mode & S_IWOTH || stat(above, &dir) < 0 ||
           dir.st_mode & S_IWOTH || (dir.st_uid != 0 && dir.st_uid != geteuid());
}

static bool from_disk(const struct setfiles *f, struct arena *arena, struct span path,
                      struct span *text, char why[WHY])
{
    char full[PATH_ROOM];
    bool absolute = path.n && path.p[0] == '/';
    int n = snprintf(full, sizeof full, "%s%s%.*s", absolute ? "" : f->directory,
                     absolute ? "" : "/", SPAN_ARG(path));
    if (n >= 0 && (size_t)n < sizeof full && f->stored && is_strangers(full)) {
        snprintf(why, WHY, "%.120s is gone, or others may change it", full);
        log_say(LOG_LEVEL_NOTICE, "%s: what was stored of it stays", why);
        return false;
    }
    if (n >= 0 && (size_t)n < sizeof full)
        return read_file(arena, full, SETFILES_BYTES - f->bytes, text, why);
    snprintf(why, WHY, "this path is too long");
    return false;
}

static bool from_stored(const struct setfiles *f, struct arena *arena, const char *path,
                        struct span *text, char why[WHY])
{
    const json_t *v = json_object_get(f->stored, path);
    if (!json_is_string(v))
        return false;
    if (json_string_length(v) > SETFILES_BYTES - f->bytes) {
        snprintf(why, WHY, "%.80s is too large: there may be %d KB at most, in all sets together",
                 path, SETFILES_BYTES >> 10);
        return false;
    }
    *text = span_str(arena_str(arena, span_of(json_string_value(v), json_string_length(v))));
    return true;
}

static bool read_set(void *arg, struct arena *arena, struct span path, struct span *text,
                     char why[WHY])
{
    struct setfiles *f = arg;
    snprintf(why, WHY, "the version was stored without this file");
    if (!json_is_utf8(path)) {
        snprintf(why, WHY, "the path is not UTF-8");
        return false;
    }
    const char *name = arena_str(arena, path);
    bool found = f->directory && from_disk(f, arena, path, text, why);
    if (!found && !from_stored(f, arena, name, text, why))
        return false;
    f->bytes += text->n;
    if (!f->read)
        f->read = json_object();
    json_object_set_new(f->read, name, json_text(*text));
    return true;
}

struct policy_source setfiles_source(struct setfiles *f)
{
    return (struct policy_source){.read = read_set, .arg = f};
}

void setfiles_clear(struct setfiles *f)
{
    json_decref(f->read);
    f->read = NULL;
    f->bytes = 0;
}
