/* place.c - see place.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "place.h"

enum { BACKLOG = 1024, PORT_MAX = 65535 };

static bool unix_address(struct span path, struct sockaddr_un *un)
{
    if (path.n == 0 || path.n >= sizeof un->sun_path)
        return false;
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, path.p, path.n);
    return true;
}

static bool inet_address(int family, struct span host, struct span port,
                         struct sockaddr_storage *out)
{
    struct sockaddr_in *in = (struct sockaddr_in *)out;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;
    bool six = family == AF_INET6;
    char text[INET6_ADDRSTRLEN];
    uint64_t number;
    if (host.n >= sizeof text || !span_number(port, PORT_MAX, &number) || number == 0)
        return false;
    memcpy(text, host.p, host.n);
    text[host.n] = '\0';
    out->ss_family = (sa_family_t)family;
    *(six ? &in6->sin6_port : &in->sin_port) = htons((uint16_t)number);
    return inet_pton(family, text, six ? (void *)&in6->sin6_addr : &in->sin_addr) == 1;
}

bool place_address(struct span s, struct sockaddr_storage *out, socklen_t *n)
{
    memset(out, 0, sizeof *out);
    *n = sizeof(struct sockaddr_un);
    if (span_starts(s, SPAN("unix:")))
        return unix_address(span_from(s, 5), (struct sockaddr_un *)out);
    bool six = span_starts(s, SPAN("inet6:"));
    bool named = six || span_starts(s, SPAN("inet:"));
    if (named)
        s = span_from(s, six ? 6 : 5);
    size_t cut = named ? span_find(s, '@') : span_rfind(s, ':');
    struct span left = span_head(s, cut), right = span_from(s, cut + 1);
    struct span host = named ? right : span_bare(left, '[', ']');
    six |= !named && host.n < left.n;
    *n = six ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    return inet_address(six ? AF_INET6 : AF_INET, host, named ? left : right, out);
}

/* A unix socket in a configuration has its path from the root. */
static bool address_good(struct span s)
{
    struct sockaddr_storage ss;
    socklen_t n;
    return place_address(s, &ss, &n) && (ss.ss_family != AF_UNIX || span_starts(s, SPAN("unix:/")));
}

bool place_listen(struct span s)
{
    return (span_starts(s, SPAN("inet")) || span_starts(s, SPAN("unix"))) && address_good(s);
}

bool place_target(struct span s)
{
    return !span_starts(s, SPAN("inet")) && address_good(s);
}

/* A unix socket file that nobody answers behind is left over from a crash: remove it. */
static void remove_stale(const struct sockaddr_storage *ss, socklen_t len)
{
    const char *path = ((const struct sockaddr_un *)ss)->sun_path;
    struct stat st;
    if (lstat(path, &st) || !S_ISSOCK(st.st_mode))
        return;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (connect(fd, (const struct sockaddr *)ss, len) < 0 && errno == ECONNREFUSED)
        unlink(path);
    close(fd);
}

int place_open(const char *text, int mode, char error[PLACE_ERROR])
{
    struct sockaddr_storage ss;
    socklen_t len;
    if (!place_address(span_str(text), &ss, &len)) {
        snprintf(error, PLACE_ERROR,
                 "\"%.200s\" is no socket address: expected inet:PORT@ADDRESS or unix:/path", text);
        return -1;
    }
    if (ss.ss_family == AF_UNIX)
        remove_stale(&ss, len);
    int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int one = 1;
    mode_t old = umask(ss.ss_family == AF_UNIX ? (mode_t)(0777 & ~mode) : 022);
    bool open = fd >= 0 &&
                (ss.ss_family == AF_UNIX ||
                 setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0) &&
                bind(fd, (const struct sockaddr *)&ss, len) == 0 && listen(fd, BACKLOG) == 0;
    umask(old);
    if (open)
        return fd;
    snprintf(error, PLACE_ERROR, "cannot listen on %.200s: %s", text, strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

int place_directory(const char *path, char error[PLACE_ERROR])
{
    struct stat st;
    if (stat(path, &st) < 0)
        snprintf(error, PLACE_ERROR, "%.150s: %s; make it and give it to breakwaterd's user", path,
                 strerror(errno));
    else if (!S_ISDIR(st.st_mode))
        snprintf(error, PLACE_ERROR, "%.150s is not a directory", path);
    else if (access(path, R_OK | W_OK | X_OK) < 0)
        snprintf(error, PLACE_ERROR, "%.150s cannot be written by this user (uid %u): %s", path,
                 (unsigned)geteuid(), strerror(errno));
    else
        return 0;
    return -1;
}

int place_file(const char *path, char error[PLACE_ERROR])
{
    char directory[4096];
    const char *slash = strrchr(path, '/');
    int n = !slash ? 0 : slash > path ? (int)(slash - path) : 1;
    snprintf(directory, sizeof directory, "%.*s", n, path);
    return place_directory(n ? directory : ".", error);
}
