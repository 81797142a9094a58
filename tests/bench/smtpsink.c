/*
 * smtpsink - takes what smtpload sends, checks every byte of it, counts (epoll, one thread).
 *
 *   smtpsink -S FILE LISTEN...
 *     -S FILE  three 64-bit counters, mapped: messages that came whole and unchanged, their bytes,
 * wrong ones
 *
 * Fields in front of smtpload's own are let through (a proxy may add some). Ends on SIGTERM.
 */
#include "letter.h"

enum stage { COMMANDS, HEAD, BODY, DOT };
enum { HEAD_MAX = 8192 };

struct conn {
    int fd;
    enum stage stage;
    bool closing;
    uint64_t number;
    const char *want; /* what the body goes on with */
    size_t left;      /* bytes of it, or of the final dot */
    size_t n;         /* in buffer */
    size_t bytes;
    char buffer[HEAD_MAX];
    char out[1024];
    size_t nout;
};

static uint64_t *counter;
static int ep;
static volatile sig_atomic_t stop;

static void on_signal(int sig)
{
    (void)sig;
    stop = 1;
}

static void say(struct conn *c, const char *line)
{
    size_t n = strlen(line);
    if (c->nout + n > sizeof c->out)
        die("too many commands at once");
    memcpy(c->out + c->nout, line, n);
    c->nout += n;
}

static void command(struct conn *c, const char *line)
{
    static const struct {
        const char *verb, *reply;
    } rows[] = {{"EHLO", "250-sink.example\r\n250-PIPELINING\r\n250-SIZE 104857600\r\n"
                         "250-ENHANCEDSTATUSCODES\r\n250 8BITMIME\r\n"},
                {"HELO", "250 sink.example\r\n"},
                {"MAIL", "250 2.1.0 Ok\r\n"},
                {"RCPT", "250 2.1.5 Ok\r\n"},
                {"DATA", "354 go ahead\r\n"},
                {"RSET", "250 2.0.0 Ok\r\n"},
                {"NOOP", "250 2.0.0 Ok\r\n"},
                {"QUIT", "221 2.0.0 Bye\r\n"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (strncasecmp(line, rows[i].verb, 4) != 0)
            continue;
        say(c, rows[i].reply);
        c->stage = i == 4 ? HEAD : COMMANDS;
        c->closing = i == 7;
        return;
    }
    say(c, "502 5.5.2 not here\r\n");
}

static void wrong(struct conn *c, const char *why)
{
    counter[2]++;
    fprintf(stderr, "smtpsink: message %llx: %s\n", (unsigned long long)c->number, why);
    c->closing = true;
}

/* The head is complete: the first of the body's lines stands behind it. */
static void head_read(struct conn *c)
{
    unsigned long long number, lines;
    char first[64];
    c->buffer[c->n] = '\0';
    const char *p = strstr(c->buffer, "\r\nX-Bench: ");
    if (!p || sscanf(p + 11, "%llx %llx", &number, &lines) != 2 || lines > LINES_MAX) {
        wrong(c, "no X-Bench field");
        return;
    }
    snprintf(first, sizeof first, "Message %016llx\r\n", number);
    c->number = number;
    c->want = letter_lines(number);
    c->left = (size_t)lines * LINE;
    c->stage = BODY;
    if (strcmp(c->buffer + c->n - FIRST_LINE, first) != 0)
        wrong(c, "another one's body");
}

/* Takes what belongs to the head, up to the end of the body's first line. */
static size_t take_head(struct conn *c, const char *p, size_t n)
{
    size_t i = 0;
    while (i < n && c->stage == HEAD && !c->closing) {
        const char *nl = memchr(p + i, '\n', n - i);
        size_t k = nl ? (size_t)(nl - (p + i)) + 1 : n - i;
        if (c->n + k >= sizeof c->buffer) {
            wrong(c, "its head does not end");
            return n;
        }
        memcpy(c->buffer + c->n, p + i, k);
        c->n += k;
        i += k;
        bool first_line = c->n > FIRST_LINE + 4 && nl &&
                          memcmp(c->buffer + c->n - FIRST_LINE - 4, "\r\n\r\n", 4) == 0;
        if (first_line)
            head_read(c);
    }
    return i;
}

static size_t take_body(struct conn *c, const char *p, size_t n)
{
    size_t k = n < c->left ? n : c->left;
    if (memcmp(p, c->want, k) != 0)
        wrong(c, c->stage == DOT ? "it does not end where it should" : "its body was changed");
    c->want += k;
    c->left -= k;
    if (c->left)
        return k;
    if (c->stage == BODY) {
        c->stage = DOT;
        c->want = ".\r\n";
        c->left = 3;
        return k;
    }
    counter[0]++;
    c->stage = COMMANDS;
    say(c, "250 2.0.0 Ok: checked\r\n");
    c->n = 0;
    return k;
}

static size_t take_command(struct conn *c, const char *p, size_t n)
{
    const char *nl = memchr(p, '\n', n);
    size_t k = nl ? (size_t)(nl - p) + 1 : n;
    if (c->n + k >= sizeof c->buffer)
        die("a command does not end");
    memcpy(c->buffer + c->n, p, k);
    c->n += k;
    if (nl) {
        c->buffer[c->n] = '\0';
        c->n = 0;
        command(c, c->buffer);
    }
    return k;
}

static void end(struct conn *c)
{
    close(c->fd);
    free(c);
}

static void on_event(struct conn *c)
{
    static char in[256 << 10];
    ssize_t r = read(c->fd, in, sizeof in);
    if (r <= 0) {
        if (r == 0 || errno != EAGAIN)
            end(c);
        return;
    }
    for (size_t i = 0, n = (size_t)r; i < n && !c->closing;) {
        size_t k = c->stage == COMMANDS ? take_command(c, in + i, n - i)
                   : c->stage == HEAD   ? take_head(c, in + i, n - i)
                                        : take_body(c, in + i, n - i);
        counter[1] += c->stage == COMMANDS ? 0 : k;
        i += k;
    }
    if (c->nout && write(c->fd, c->out, c->nout) != (ssize_t)c->nout) {
        end(c);
        return;
    }
    c->nout = 0;
    if (c->closing)
        end(c);
}

static void accept_all(int lfd)
{
    for (int i = 0; i < 64; i++) {
        int fd = accept4(lfd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        nodelay(fd);
        struct conn *c = xcalloc(1, sizeof *c);
        c->fd = fd;
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
        if (write(fd, "220 sink.example ESMTP\r\n", 24) != 24)
            end(c);
    }
}

int main(int argc, char **argv)
{
    int fd = -1, lfd;
    if (argc != 4 || strcmp(argv[1], "-S") != 0 ||
        (fd = open(argv[2], O_RDWR | O_CREAT | O_TRUNC, 0644)) < 0 || ftruncate(fd, 24))
        die("usage: smtpsink -S FILE LISTEN");
    counter = mmap(NULL, 24, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (counter == MAP_FAILED)
        die("%s: %s", argv[2], strerror(errno));
    signal(SIGPIPE, SIG_IGN);
    struct sigaction sa = {.sa_handler = on_signal};
    sigaction(SIGTERM, &sa, NULL);
    letter_make();
    ep = epoll_create1(EPOLL_CLOEXEC);
    lfd = listen_on(argv[3]);
    struct epoll_event le = {.events = EPOLLIN};
    epoll_ctl(ep, EPOLL_CTL_ADD, lfd, &le);
    while (!stop) {
        struct epoll_event ev[512];
        int n = epoll_wait(ep, ev, 512, 1000);
        for (int i = 0; i < n; i++) {
            if (ev[i].data.ptr)
                on_event(ev[i].data.ptr);
            else
                accept_all(lfd);
        }
    }
    return 0;
}
