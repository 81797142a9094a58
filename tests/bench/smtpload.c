/*
 * smtpload - SMTP clients, many at once (epoll, one thread); the messages are those of letter.h.
 *
 *   smtpload [-c CONNECTIONS (1)] [-d SECONDS (2)] [-s BYTES (4096)] [-k MESSAGES] [-i NUMBER]
 * TARGET -k  messages of one connection, then QUIT and a new one (0: one connection all the time)
 *     -i  number of the first message (0)
 *
 * MAIL, RCPT and DATA go in one write (RFC 2920); the message follows the 354. Any other reply than
 * the hoped-for ends the program: figures of refused mail are none. Latency: from MAIL (on the
 * first message of a connection: from connect()) to the reply to the final dot. Prints one line of
 * key=value pairs.
 */
#include "letter.h"

enum phase { BANNER, EHLO, ENVELOPE, FINAL, QUIT };

struct session {
    int fd;
    enum phase phase;
    bool connecting, waiting; /* for room to write */
    unsigned replies;         /* still to come in this phase */
    unsigned messages;        /* of this connection */
    uint64_t number, began;
    char head[1024 + 256];
    struct iovec out[3];
    int nout;
    size_t nin;
    char in[1024];
};

static unsigned per_connection;
static size_t lines;
static uint64_t next_number, sent, ended_at;
static union addr target;
static socklen_t target_len;
static int ep;
static struct hist latency;
static size_t live;

static void flush(struct session *s)
{
    while (s->nout) {
        ssize_t w = writev(s->fd, s->out, s->nout);
        if (w < 0 && errno == EAGAIN)
            break;
        if (w < 0)
            die("smtpload: write: %s", strerror(errno));
        size_t n = (size_t)w;
        int gone = 0;
        while (gone < s->nout && n >= s->out[gone].iov_len)
            n -= s->out[gone++].iov_len;
        s->nout -= gone;
        memmove(s->out, s->out + gone, (size_t)s->nout * sizeof *s->out);
        if (s->nout) {
            s->out[0].iov_base = (char *)s->out[0].iov_base + n;
            s->out[0].iov_len -= n;
        }
    }
    bool wait = s->nout > 0;
    if (wait == s->waiting)
        return;
    s->waiting = wait;
    struct epoll_event e = {.events = EPOLLIN | (wait ? (uint32_t)EPOLLOUT : 0u), .data.ptr = s};
    epoll_ctl(ep, EPOLL_CTL_MOD, s->fd, &e);
}

static void say(struct session *s, enum phase phase, unsigned replies, size_t n)
{
    s->phase = phase;
    s->replies = replies;
    s->out[0] = (struct iovec){s->head, n};
    s->nout = 1;
    flush(s);
}

static void start(struct session *s)
{
    s->fd = socket(target.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    nodelay(s->fd);
    s->began = now_ns();
    s->phase = BANNER;
    s->replies = 1;
    s->messages = 0;
    s->nin = 0;
    s->nout = 0;
    s->waiting = false;
    if (connect(s->fd, &target.sa, target_len) < 0 && errno != EINPROGRESS)
        die("smtpload: connect: %s", strerror(errno));
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = s};
    epoll_ctl(ep, EPOLL_CTL_ADD, s->fd, &e);
    live++;
}

static void finish(struct session *s)
{
    close(s->fd);
    live--;
    if (now_ns() < ended_at)
        start(s);
}

static void envelope(struct session *s)
{
    if (now_ns() >= ended_at || (per_connection && s->messages == per_connection)) {
        say(s, QUIT, 1, (size_t)sprintf(s->head, "QUIT\r\n"));
        return;
    }
    if (s->messages++)
        s->began = now_ns();
    s->number = next_number++;
    int n = sprintf(s->head,
                    "MAIL FROM:<someone@bench.example>\r\n"
                    "RCPT TO:<user%016llx@rcpt.example>\r\nDATA\r\n",
                    (unsigned long long)s->number);
    say(s, ENVELOPE, 3, (size_t)n);
}

static void message(struct session *s)
{
    size_t n = letter_head(s->head, s->number, lines);
    s->phase = FINAL;
    s->replies = 1;
    s->out[0] = (struct iovec){s->head, n};
    s->out[1] = (struct iovec){(void *)(uintptr_t)letter_lines(s->number), lines * LINE};
    s->out[2] = (struct iovec){(void *)(uintptr_t) ".\r\n", 3};
    s->nout = 3;
    flush(s);
}

static void reply(struct session *s, const char *line)
{
    static const char hoped[] = "22222"; /* by phase; the envelope ends with 354 */
    char want = s->phase == ENVELOPE && s->replies == 1 ? '3' : hoped[s->phase];
    if (*line != want)
        die("smtpload: message %llx: %s", (unsigned long long)s->number, line);
    if (--s->replies)
        return;
    switch (s->phase) {
    case BANNER:
        say(s, EHLO, 1, (size_t)sprintf(s->head, "EHLO client.bench.example\r\n"));
        break;
    case EHLO:
        envelope(s);
        break;
    case ENVELOPE:
        message(s);
        break;
    case FINAL:
        sent++;
        hist_add(&latency, now_ns() - s->began);
        envelope(s);
        break;
    default:
        break;
    }
}

static void on_event(struct session *s, uint32_t events)
{
    if (events & EPOLLOUT)
        flush(s);
    if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        return;
    ssize_t r = read(s->fd, s->in + s->nin, sizeof s->in - 1 - s->nin);
    if (r < 0 && errno == EAGAIN)
        return;
    if (r <= 0) {
        if (s->phase != QUIT)
            die("smtpload: the connection ended in phase %d", (int)s->phase);
        finish(s);
        return;
    }
    s->nin += (size_t)r;
    s->in[s->nin] = '\0';
    char *p = s->in, *nl;
    while ((nl = strchr(p, '\n'))) {
        *nl = '\0';
        if (nl - p > 3 && p[3] != '-')
            reply(s, p);
        p = nl + 1;
    }
    s->nin = (size_t)(s->in + s->nin - p);
    memmove(s->in, p, s->nin);
}

int main(int argc, char **argv)
{
    size_t size = 4096, n = 1;
    double seconds = 2;
    for (int c; (c = getopt(argc, argv, "c:d:s:k:i:")) != -1;) {
        if (c == 'c')
            n = strtoul(optarg, NULL, 10);
        else if (c == 'd')
            seconds = strtod(optarg, NULL);
        else if (c == 's')
            size = strtoul(optarg, NULL, 10);
        else if (c == 'k')
            per_connection = (unsigned)strtoul(optarg, NULL, 10);
        else if (c == 'i')
            next_number = strtoull(optarg, NULL, 10);
        else
            die("usage: smtpload [-c N] [-d SECONDS] [-s BYTES] [-k N] [-i N] TARGET");
    }
    if (optind != argc - 1)
        die("usage: smtpload [-c N] [-d SECONDS] [-s BYTES] [-k N] [-i N] TARGET");
    target_len = parse_addr(argv[optind], &target);
    signal(SIGPIPE, SIG_IGN);
    letter_make();
    lines = letter_lines_of(size);
    ep = epoll_create1(EPOLL_CLOEXEC);
    struct session *all = xcalloc(n, sizeof *all);
    uint64_t begin = now_ns();
    ended_at = begin + (uint64_t)(seconds * 1e9);
    for (size_t i = 0; i < n; i++)
        start(&all[i]);
    while (live) {
        struct epoll_event ev[512];
        int k = epoll_wait(ep, ev, 512, 10000);
        if (k == 0)
            die("smtpload: nothing happened for ten seconds");
        for (int i = 0; i < k; i++)
            on_event(ev[i].data.ptr, ev[i].events);
    }
    double took = (double)(now_ns() - begin) / 1e9;
    printf("msgs=%llu secs=%.3f rate=%.0f p50_us=%.0f p99_us=%.0f p999_us=%.0f max_us=%.0f\n",
           (unsigned long long)sent, took, (double)sent / took, (double)hist_q(&latency, 0.5) / 1e3,
           (double)hist_q(&latency, 0.99) / 1e3, (double)hist_q(&latency, 0.999) / 1e3,
           (double)latency.max / 1e3);
    return 0;
}
