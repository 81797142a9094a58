/* bench.h - what the load generators share: clock, histogram, loopback addresses, text. */
#ifndef BENCH_H
#define BENCH_H
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static inline void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(2);
}

static inline uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static inline double self_cpu(void)
{
    struct rusage ru;
    getrusage(RUSAGE_SELF, &ru);
    return (double)ru.ru_utime.tv_sec + (double)ru.ru_stime.tv_sec +
           (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6;
}

static inline void *xcalloc(size_t n, size_t sz)
{
    void *p = calloc(n ? n : 1, sz ? sz : 1);
    if (!p)
        die("out of memory");
    return p;
}

/* Latency histogram: 64 linear sub-buckets in each power of two (error < 1.6 %). */
#define HSUB 64
struct hist {
    uint64_t n, max;
    uint64_t b[64 * HSUB];
};

static inline unsigned hist_idx(uint64_t v)
{
    if (v < HSUB)
        return (unsigned)v;
    unsigned e = 63u - (unsigned)__builtin_clzll(v); /* >= 6 */
    return (e - 5u) * HSUB + (unsigned)((v >> (e - 6u)) & (HSUB - 1));
}

static inline uint64_t hist_val(unsigned i)
{
    if (i < HSUB)
        return i;
    unsigned e = i / HSUB + 5u;
    return ((uint64_t)HSUB + i % HSUB) << (e - 6u);
}

static inline void hist_add(struct hist *h, uint64_t v)
{
    h->b[hist_idx(v)]++;
    h->n++;
    if (v > h->max)
        h->max = v;
}

static inline uint64_t hist_q(const struct hist *h, double q)
{
    uint64_t want = (uint64_t)(q * (double)h->n), seen = 0;
    for (unsigned i = 0; i < 64 * HSUB; i++) {
        seen += h->b[i];
        if (seen > want)
            return hist_val(i);
    }
    return h->max;
}

/* Targets: host:port, inet:host:port, inet:port@host, port, unix:/path, /path.
 * Only numeric loopback addresses are accepted: these tools never leave the machine. */
union addr {
    struct sockaddr sa;
    struct sockaddr_in in;
    struct sockaddr_un un;
};

static inline socklen_t parse_addr(const char *s, union addr *a)
{
    char host[64] = "127.0.0.1";
    const char *port = s, *c;
    memset(a, 0, sizeof *a);
    if (!strncmp(s, "unix:", 5))
        s += 5;
    if (*s == '/') {
        a->un.sun_family = AF_UNIX;
        if (strlen(s) >= sizeof a->un.sun_path)
            die("path too long: %s", s);
        strcpy(a->un.sun_path, s);
        return sizeof a->un;
    }
    if (!strncmp(s, "inet:", 5))
        s += 5;
    if ((c = strchr(s, '@'))) {
        snprintf(host, sizeof host, "%s", c + 1);
        port = s;
    } else if ((c = strrchr(s, ':'))) {
        snprintf(host, sizeof host, "%.*s", (int)(c - s), s);
        port = c + 1;
    } else {
        port = s;
    }
    if (!strcmp(host, "localhost"))
        strcpy(host, "127.0.0.1");
    a->in.sin_family = AF_INET;
    a->in.sin_port = htons((uint16_t)atoi(port));
    if (inet_pton(AF_INET, host, &a->in.sin_addr) != 1 ||
        (ntohl(a->in.sin_addr.s_addr) >> 24) != 127)
        die("refusing non-loopback target: %s", s);
    return sizeof a->in;
}

static inline void nodelay(int fd)
{
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static inline int listen_on(const char *s)
{
    union addr a;
    socklen_t l = parse_addr(s, &a);
    int one = 1, fd = socket(a.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (a.sa.sa_family == AF_UNIX)
        unlink(a.un.sun_path);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd < 0 || bind(fd, &a.sa, l) < 0 || listen(fd, 4096) < 0)
        die("listen %s: %s", s, strerror(errno));
    return fd;
}

/* Deterministic text, 76 characters a line, CRLF; no line starts with a dot. */
static inline void fill_text(char *p, size_t n, uint64_t seed)
{
    static const char al[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint64_t x = seed * 0x9E3779B97F4A7C15u + 1;
    size_t col = 0;
    for (size_t i = 0; i < n; i++) {
        if (n - i == 2 || (col >= 76 && n - i > 2)) {
            p[i++] = '\r';
            p[i] = '\n';
            col = 0;
            continue;
        }
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        p[i] = (col % 9 == 8) ? ' ' : al[(x >> 33) & 63];
        col++;
    }
    if (n >= 2) {
        p[n - 2] = '\r';
        p[n - 1] = '\n';
    }
}

static inline void put_hex(char *p, uint64_t v, int digits)
{
    for (int i = digits - 1; i >= 0; i--, v >>= 4)
        p[i] = "0123456789abcdef"[v & 15];
}
#endif
