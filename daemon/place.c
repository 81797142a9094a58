/* place.c - see place.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "place.h"

static bool port(struct span s)
{
    unsigned value = 0;
    if (s.n == 0 || s.n > 5)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (!byte_digit(s.p[i]))
            return false;
        value = value * 10 + (unsigned)(s.p[i] - '0');
    }
    return value > 0 && value <= 65535;
}

/* Is s the text of an address of this family? */
static bool address(int family, struct span s)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr binary;
    if (s.n >= sizeof text)
        return false;
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    return inet_pton(family, text, &binary) == 1;
}

/* "unix:/path" that fits a socket address. */
static bool unix_socket(struct span s)
{
    return span_starts(s, SPAN("unix:/")) && s.n - 5 < sizeof((struct sockaddr_un *)0)->sun_path;
}

bool place_listen(struct span s)
{
    bool six = span_starts(s, SPAN("inet6:"));
    if (!six && !span_starts(s, SPAN("inet:")))
        return unix_socket(s);
    s = span_from(s, six ? 6 : 5);
    size_t at = span_find(s, '@');
    return at < s.n && port(span_head(s, at)) &&
           address(six ? AF_INET6 : AF_INET, span_from(s, at + 1));
}

bool place_target(struct span s)
{
    size_t colon = span_rfind(s, ':');
    if (unix_socket(s))
        return true;
    if (colon == s.n || !port(span_from(s, colon + 1)))
        return false;
    s = span_head(s, colon);
    if (s.n > 2 && s.p[0] == '[' && s.p[s.n - 1] == ']')
        return address(AF_INET6, span_of(s.p + 1, s.n - 2));
    return address(AF_INET, s);
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
