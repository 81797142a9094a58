/* sitekey.c - reads and makes the site key file. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "id.h"
#include "sitekey.h"

enum { HEX_DIGITS = 2 * SITEKEY_BYTES, FILE_BYTES = 256 };

static bool parse(uint8_t key[SITEKEY_BYTES], struct span s)
{
    if (s.n == SITEKEY_BYTES) {
        memcpy(key, s.p, SITEKEY_BYTES);
        return true;
    }
    s = span_trim(s);
    if (s.n != HEX_DIGITS)
        return false;
    for (size_t i = 0; i < SITEKEY_BYTES; i++) {
        int high = byte_hex(s.p[2 * i]), low = byte_hex(s.p[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        key[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static int read_open(int fd, const char *path, uint8_t key[SITEKEY_BYTES],
                     char error[SITEKEY_ERROR])
{
    struct stat st;
    uint8_t bytes[FILE_BYTES];
    ssize_t n = fstat(fd, &st) < 0 ? -1 : read(fd, bytes, sizeof bytes);
    if (n < 0) {
        snprintf(error, SITEKEY_ERROR, "cannot read %.150s: %s", path, strerror(errno));
        return -1;
    }
    if (st.st_mode & (S_IROTH | S_IWOTH)) {
        snprintf(error, SITEKEY_ERROR,
                 "everybody can read or write the secret %.150s: chmod 600 it", path);
        return -1;
    }
    if (!parse(key, span_of(bytes, (size_t)n))) {
        snprintf(error, SITEKEY_ERROR, "%.150s has %lld bytes, expected 64 hex digits", path,
                 (long long)st.st_size);
        return -1;
    }
    return 0;
}

int sitekey_read(const char *path, uint8_t key[SITEKEY_BYTES], char error[SITEKEY_ERROR])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return 1;
    if (fd < 0) {
        snprintf(error, SITEKEY_ERROR, "cannot read %.150s: %s", path, strerror(errno));
        return -1;
    }
    int rc = read_open(fd, path, key, error);
    close(fd);
    return rc;
}

static int write_key(int fd, const uint8_t key[SITEKEY_BYTES])
{
    char text[HEX_DIGITS + 2];
    hex_print(span_of(key, SITEKEY_BYTES), text);
    text[HEX_DIGITS] = '\n';
    return write(fd, text, HEX_DIGITS + 1) == HEX_DIGITS + 1 ? fsync(fd) : -1;
}

/* Complete under another name first, so that nobody ever reads half a key. */
int sitekey_make(const char *path, uint8_t key[SITEKEY_BYTES], char error[SITEKEY_ERROR])
{
    char fresh[4096];
    if ((size_t)snprintf(fresh, sizeof fresh, "%s.new", path) >= sizeof fresh ||
        RAND_bytes(key, SITEKEY_BYTES) != 1) {
        snprintf(error, SITEKEY_ERROR,
                 "cannot make a key: no random bytes, or the path is too long");
        return -1;
    }
    (void)unlink(fresh);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool written = fd >= 0 && write_key(fd, key) == 0;
    bool there = written && link(fresh, path) == 0;
    int why = errno;
    if (fd >= 0) {
        close(fd);
        unlink(fresh);
    }
    if (there)
        return 0;
    snprintf(error, SITEKEY_ERROR, "cannot make %.150s: %s", path, strerror(why));
    return -1;
}
