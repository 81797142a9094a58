/* redis_settings.c - the password file. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "redis_settings.h"

static int read_open(int fd, const char *path, char password[REDIS_PASSWORD],
                     char error[REDIS_SETTINGS_ERROR])
{
    struct stat st;
    ssize_t n = fstat(fd, &st) < 0 ? -1 : read(fd, password, REDIS_PASSWORD);
    if (n < 0) {
        snprintf(error, REDIS_SETTINGS_ERROR, "cannot read %.150s: %s", path, strerror(errno));
        return -1;
    }
    if (st.st_mode & (S_IROTH | S_IWOTH)) {
        snprintf(error, REDIS_SETTINGS_ERROR,
                 "everybody can read or write the secret %.150s: chmod 600 it", path);
        return -1;
    }
    size_t end = span_find(span_of(password, (size_t)n), '\n');
    if (end > 0 && password[end - 1] == '\r')
        end--;
    if (end == 0 || end == REDIS_PASSWORD) {
        snprintf(error, REDIS_SETTINGS_ERROR, "the first line of %.150s is %s", path,
                 end ? "too long: a password has at most 511 bytes" : "empty");
        return -1;
    }
    password[end] = '\0';
    return 0;
}

int redis_password_read(const char *path, char password[REDIS_PASSWORD],
                        char error[REDIS_SETTINGS_ERROR])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        snprintf(error, REDIS_SETTINGS_ERROR, "cannot read %.150s: %s", path, strerror(errno));
        return -1;
    }
    int rc = read_open(fd, path, password, error);
    close(fd);
    return rc;
}
