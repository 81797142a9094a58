/*
 * milterload - speaks the milter protocol (version 6, MTA side) straight to a filter.
 *
 *   milterload [options] TARGET      TARGET = 127.x.y.z:port, inet:port@127.0.0.1, unix:/path
 *     -c N   parallel milter connections (1)
 *     -n N   stop after N messages            -d SEC  stop after SEC seconds (2)
 *     -i N   number of the first message (0): ids, bodies and recipients follow from the number
 *     -s N   message size in bytes, headers included (4096)
 *     -F F   send this file as the message (LF or CRLF lines) instead
 *     -k N   messages per connection, as an MTA that opens one milter connection for
 *            each SMTP session; 0 = never reconnect (0)
 *     -r N   recipients per message (1)
 *     -b     every message has a body of its own (other words throughout)
 *     -T N   addresses in the To: header (1)
 *     -R N   Received: headers in front (2)
 *     -w N   distinct recipients in the envelope (1000000)
 *     -S N   client addresses announced, round robin from 192.0.2.1 (1)
 *     -L     do not offer the no-reply (NR) and skip bits: an old, chatty MTA
 *     -M     send no macros
 * Steps a filter opts out of at negotiation are not sent; commands whose reply it opts out
 * of are sent in one write with the next one. Latency is MAIL to the reply to the end of
 * the message (on the first message of a connection: from connect()).
 * Message-ID and the ids in Received are new in every message. Prints one line of key=value pairs.
 */
#include "bench.h"

#define NOCONNECT 0x01u
#define NOHELO 0x02u
#define NOMAIL 0x04u
#define NORCPT 0x08u
#define NOBODY 0x10u
#define NOHDRS 0x20u
#define NOEOH 0x40u
#define NR_HDR 0x80u
#define NODATA 0x200u
#define NR_CONN 0x1000u
#define NR_HELO 0x2000u
#define NR_MAIL 0x4000u
#define NR_RCPT 0x8000u
#define NR_DATA 0x10000u
#define NR_EOH 0x40000u
#define NR_BODY 0x80000u
#define HDR_LEADSPC 0x100000u
#define SKIP 0x400u
#define ALL_PROTO 0x1FFFFFu
#define CHUNK 65535u

enum step { S_OPT, S_CONN, S_HELO, S_MAIL, S_RCPT, S_DATA, S_HDR, S_EOH, S_BODY, S_EOM, S_DONE };

struct mc {
    int fd;
    enum step st;
    unsigned i; /* recipient, header or body chunk within the step */
    bool want_out, dead_conn;
    uint32_t proto, acts;
    unsigned on_conn;
    uint64_t t0, seq;
    char *out;
    size_t out_n, out_o, out_cap;
    char *in;
    size_t in_n, in_cap;
};

struct hdr {
    char *name, *val;
    size_t nn, vn; /* with the NUL */
    size_t id_at;  /* where hex digits of the counter go; 0: nowhere */
    int id_digits;
};

static unsigned nconn = 1, per_conn, nrcpt = 1, nto = 1, nrecv = 2, nclient = 1;
static uint64_t first_seq, limit_n, wrap = 1000000, started, finished, connerr, conns, bytes,
                                    replies, mods, t_end;
static uint64_t f_cont, f_acc, f_rej, f_tmp, f_disc, f_code, f_quar;
static double limit_s = 2.0;
static size_t msize = 4096;
static bool distinct, legacy, nomacros;
static union addr target;
static socklen_t target_len;
static int ep;
static unsigned active;
static struct hist H;

static struct hdr hd[4096];
static unsigned nhd;
static char *body;
static size_t body_n;

static void add_hdr(const char *name, const char *fmt, ...)
{
    char *v = NULL;
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&v, fmt, ap) < 0)
        die("out of memory");
    va_end(ap);
    if (nhd == sizeof hd / sizeof hd[0])
        die("too many headers");
    hd[nhd++] =
        (struct hdr){.name = strdup(name), .val = v, .nn = strlen(name) + 1, .vn = strlen(v) + 1};
}

static void build(const char *file)
{
    if (file) {
        FILE *f = fopen(file, "rb");
        struct stat sb;
        if (!f || fstat(fileno(f), &sb))
            die("cannot read %s", file);
        char *p = xcalloc((size_t)sb.st_size + 2, 1), *end;
        size_t n = fread(p, 1, (size_t)sb.st_size, f), k = 0;
        fclose(f);
        for (size_t i = 0; i < n; i++) /* to LF */
            if (p[i] != '\r' || (i + 1 < n && p[i + 1] != '\n'))
                p[k++] = p[i];
        end = p + k;
        *end = 0;
        while (p < end && *p != '\n') {
            char *e = p, *c;
            do
                e = (char *)memchr(e, '\n', (size_t)(end - e)) + 1;
            while (e < end && (*e == ' ' || *e == '\t'));
            e[-1] = 0;
            c = strchr(p, ':');
            if (!c)
                die("bad header line in %s", file);
            *c++ = 0;
            if (*c == ' ')
                c++;
            add_hdr(p, "%s", c);
            p = e;
        }
        if (p < end)
            p++;
        body = xcalloc((size_t)(end - p) * 2 + 2, 1);
        for (; p < end; p++) {
            if (*p == '\n')
                body[body_n++] = '\r';
            body[body_n++] = *p;
        }
        return;
    }
    size_t n = 0;
    for (unsigned i = 0; i < nrecv; i++) {
        add_hdr("Received",
                "from hop%u.example.test (hop%u.example.test [127.0.%u.%u])\n"
                "\tby hop%u.example.test (Postfix) with ESMTP id 4T%08X\n"
                "\tfor <list@example.test>; Mon, 2 Oct 2006 10:%02u:00 +0200",
                i + 1, i + 1, i / 250, i % 250 + 1, i, 0u, i % 60);
        hd[nhd - 1].id_at = (size_t)(strstr(hd[nhd - 1].val, " id 4T") + 6 - hd[nhd - 1].val);
        hd[nhd - 1].id_digits = 8;
    }
    add_hdr("Message-ID", "<0000000000000000@bench.example.test>");
    hd[nhd - 1].id_at = 1;
    hd[nhd - 1].id_digits = 16;
    add_hdr("Date", "Mon, 2 Oct 2006 10:00:00 +0200");
    add_hdr("From", "Bench Sender <sender@example.test>");
    char *to = xcalloc(nto, 64);
    for (unsigned i = 0, k = 0; i < nto; i++)
        k += (unsigned)sprintf(to + k, "%s<user%04u.name@example.test>", i ? ",\n\t" : "", i);
    add_hdr("To", "%s", to);
    free(to);
    add_hdr("Subject", "bench message");
    add_hdr("MIME-Version", "1.0");
    add_hdr("Content-Type", "text/plain; charset=us-ascii");
    add_hdr("Content-Transfer-Encoding", "7bit");
    for (unsigned i = 0; i < nhd; i++)
        n += hd[i].nn + hd[i].vn + 2;
    body_n = msize > n + 64 ? msize - n : 64;
    body = xcalloc(body_n + 64, 1);
    fill_text(body, body_n, 42);
}

static void need(struct mc *c, size_t n)
{
    if (c->out_n + n <= c->out_cap)
        return;
    c->out_cap = (c->out_n + n) * 2 + 4096;
    c->out = realloc(c->out, c->out_cap);
    if (!c->out)
        die("out of memory");
}

static char *packet(struct mc *c, char cmd, size_t n)
{
    need(c, n + 5);
    char *p = c->out + c->out_n;
    uint32_t l = htonl((uint32_t)n + 1);
    memcpy(p, &l, 4);
    p[4] = cmd;
    c->out_n += n + 5;
    return p + 5;
}

/* Macros: a list of NUL-terminated strings, already joined. */
static void macros(struct mc *c, char cmd, const char *p, size_t n)
{
    if (nomacros)
        return;
    char *q = packet(c, 'D', n + 1);
    *q = cmd;
    memcpy(q + 1, p, n);
}

static bool more(void)
{
    return limit_n ? started < limit_n : now_ns() < t_end;
}

/* Queue commands up to and including the first that needs a reply. */
static void go(struct mc *c)
{
    char b[512];
    size_t n;
    for (;;) {
        switch (c->st) {
        case S_OPT: {
            char *p = packet(c, 'O', 12);
            uint32_t v[3] = {htonl(6), htonl(0x1FF),
                             htonl(legacy ? 0x7Fu | NODATA | 0x100u : ALL_PROTO)};
            memcpy(p, v, 12);
            return;
        }
        case S_CONN:
            if (!(c->proto & NOCONNECT)) {
                static unsigned rr;
                unsigned k = rr++ % nclient;
                static const char m[] =
                    "j\0mx.example.test\0{daemon_name}\0mx.example.test\0v\0bench 1";
                macros(c, 'C', m, sizeof m);
                n = (size_t)sprintf(b, "client%u.example.test", k) + 1;
                b[n++] = '4';
                b[n++] = (char)(40000 >> 8);
                b[n++] = (char)(40000 & 255);
                n += (size_t)sprintf(b + n, "192.0.%u.%u", 2 + k / 250, k % 250 + 1) + 1;
                memcpy(packet(c, 'C', n), b, n);
                if (!(c->proto & NR_CONN))
                    return;
            }
            c->st = S_HELO;
            break;
        case S_HELO:
            if (!(c->proto & NOHELO)) {
                n = (size_t)sprintf(b, "client.example.test") + 1;
                memcpy(packet(c, 'H', n), b, n);
                if (!(c->proto & NR_HELO))
                    return;
            }
            c->st = S_MAIL;
            break;
        case S_MAIL:
            if (!(c->proto & NOMAIL)) {
                static const char m[] = "{mail_addr}\0sender@example.test\0{mail_host}\0example."
                                        "test\0{mail_mailer}\0smtp";
                macros(c, 'M', m, sizeof m);
                n = (size_t)sprintf(b, "<sender@example.test>") + 1;
                memcpy(packet(c, 'M', n), b, n);
                c->i = 0;
                if (!(c->proto & NR_MAIL))
                    return;
            }
            c->i = 0;
            c->st = S_RCPT;
            break;
        case S_RCPT:
            if (c->proto & NORCPT)
                c->i = nrcpt;
            while (c->i < nrcpt) {
                unsigned long long a = (c->seq * nrcpt + c->i) % wrap;
                n = (size_t)sprintf(b,
                                    "{rcpt_addr}%cu%llu@example.test%c{rcpt_host}%cexample.test%c{"
                                    "rcpt_mailer}%csmtp",
                                    0, a, 0, 0, 0, 0) +
                    1;
                macros(c, 'R', b, n);
                n = (size_t)sprintf(b, "<u%llu@example.test>", a) + 1;
                memcpy(packet(c, 'R', n), b, n);
                if (!(c->proto & NR_RCPT))
                    return;
                c->i++;
            }
            c->st = S_DATA;
            break;
        case S_DATA:
            if (!(c->proto & NODATA)) {
                n = (size_t)sprintf(b, "i%c4T%014llX", 0, (unsigned long long)c->seq) + 1;
                macros(c, 'T', b, n);
                packet(c, 'T', 0);
                if (!(c->proto & NR_DATA))
                    return;
            }
            c->i = 0;
            c->st = S_HDR;
            break;
        case S_HDR:
            if (c->proto & NOHDRS)
                c->i = nhd;
            while (c->i < nhd) {
                struct hdr *h = &hd[c->i];
                bool sp = c->proto & HDR_LEADSPC;
                char *p = packet(c, 'L', h->nn + h->vn + sp);
                memcpy(p, h->name, h->nn);
                if (sp)
                    p[h->nn] = ' ';
                memcpy(p + h->nn + sp, h->val, h->vn);
                if (h->id_at)
                    put_hex(p + h->nn + sp + h->id_at, c->seq, h->id_digits);
                if (!(c->proto & NR_HDR))
                    return;
                c->i++;
            }
            c->st = S_EOH;
            break;
        case S_EOH:
            if (!(c->proto & NOEOH)) {
                packet(c, 'N', 0);
                if (!(c->proto & NR_EOH)) {
                    return;
                }
            }
            c->i = 0;
            c->st = S_BODY;
            break;
        case S_BODY:
            if (!(c->proto & NOBODY)) {
                while ((size_t)c->i * CHUNK < body_n) {
                    size_t at = (size_t)c->i * CHUNK, k = body_n - at < CHUNK ? body_n - at : CHUNK;
                    char *p = packet(c, 'B', k);
                    if (distinct)
                        fill_text(p, k, c->seq * 64 + c->i + 1);
                    else
                        memcpy(p, body + at, k);
                    if (!(c->proto & NR_BODY))
                        return;
                    c->i++;
                }
            }
            c->st = S_EOM;
            break;
        case S_EOM:
            n = (size_t)sprintf(b, "i%c4T%014llX", 0, (unsigned long long)c->seq) + 1;
            macros(c, 'E', b, n);
            packet(c, 'E', 0);
            return;
        case S_DONE:
            return;
        }
    }
}

static void want(struct mc *c, bool out)
{
    if (c->want_out == out)
        return;
    c->want_out = out;
    struct epoll_event ev = {.events = EPOLLIN | (out ? (uint32_t)EPOLLOUT : 0u), .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &ev);
}

static int flush_out(struct mc *c)
{
    while (c->out_o < c->out_n) {
        ssize_t w = write(c->fd, c->out + c->out_o, c->out_n - c->out_o);
        if (w < 0) {
            if (errno == EAGAIN) {
                want(c, true);
                return 0;
            }
            return -1;
        }
        bytes += (uint64_t)w;
        c->out_o += (size_t)w;
    }
    c->out_o = c->out_n = 0;
    want(c, false);
    return 0;
}

static void open_conn(struct mc *c)
{
    int fd = socket(target.sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket: %s", strerror(errno));
    if (target.sa.sa_family == AF_INET)
        nodelay(fd);
    c->fd = fd;
    c->st = S_OPT;
    c->on_conn = 0;
    c->in_n = c->out_n = c->out_o = 0;
    c->t0 = now_ns();
    conns++;
    int tries = 0;
    while (connect(fd, &target.sa, target_len) < 0) {
        if (errno == EINPROGRESS)
            break;
        if (errno != EAGAIN || ++tries > 2000) /* EAGAIN: the backlog of a UNIX socket is full */
            die("connect: %s", strerror(errno));
        usleep(500);
    }
    c->want_out = true;
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
    go(c);
}

static void next_or_end(struct mc *c)
{
    c->fd = -1;
    if (more()) {
        c->seq = first_seq + started++;
        active++;
        open_conn(c);
    }
}

static void drop(struct mc *c, bool err)
{
    close(c->fd);
    if (err) {
        connerr++;
        if (c->st != S_DONE) {
            active--;
            finished++;
        }
        if (connerr > 1000 && finished == connerr)
            die("more than 1000 connection errors and no message finished");
    }
    next_or_end(c);
}

/* The message is over. Returns false when the connection was ended. */
static bool message_done(struct mc *c)
{
    uint64_t t = now_ns();
    hist_add(&H, t - c->t0);
    finished++;
    active--;
    c->on_conn++;
    c->st = S_DONE;
    if (!(per_conn && c->on_conn >= per_conn) && !c->dead_conn && more()) {
        c->seq = first_seq + started++;
        active++;
        c->t0 = t;
        c->st = S_MAIL;
        go(c);
        return true;
    }
    c->dead_conn = false;
    packet(c, 'Q', 0);
    flush_out(c);
    drop(c, false);
    return false;
}

/* Returns 0, or -1 to drop with error, or 1 when the connection was ended. */
static int reply(struct mc *c, char cmd, const char *p, size_t n)
{
    replies++;
    if (c->st == S_OPT) {
        uint32_t v[3];
        if (cmd != 'O' || n < 12)
            return -1;
        memcpy(v, p, 12);
        c->acts = ntohl(v[1]);
        c->proto = ntohl(v[2]);
        c->st = S_CONN;
        go(c);
        return 0;
    }
    switch (cmd) {
    case 'h':
    case 'i':
    case 'm': /* header changes */
        mods++;
        return 0;
    case '+':
    case '-':
    case '2':
    case 'b':
    case 'e':
    case 'l':
        mods++;
        return 0;
    case 'q':
        f_quar++;
        return 0;
    case 'p':
        return 0;
    }
    bool final = c->st == S_EOM;
    switch (cmd) {
    case 'c':
    case 's':
        if (final) {
            f_cont++;
            return message_done(c) ? 0 : 1;
        }
        break;
    case 'a':
        f_acc++;
        final = true;
        break;
    case 'r':
        f_rej++;
        final = true;
        break;
    case 't':
        f_tmp++;
        final = true;
        break;
    case 'd':
        f_disc++;
        final = true;
        break;
    case 'y':
        f_code++;
        final = true;
        break;
    default:
        return -1;
    }
    if (final) {
        if (c->st <= S_HELO)
            c->dead_conn = true; /* the verdict holds for the connection */
        else if (c->st == S_RCPT && cmd != 'a' && cmd != 'd') { /* this recipient only */
            if (cmd == 'r')
                f_rej--;
            else if (cmd == 't')
                f_tmp--;
            else
                f_code--;
            goto step;
        }
        return message_done(c) ? 0 : 1;
    }
step:
    switch (c->st) {
    case S_CONN:
        c->st = S_HELO;
        break;
    case S_HELO:
        c->st = S_MAIL;
        break;
    case S_MAIL:
        c->st = S_RCPT;
        c->i = 0;
        break;
    case S_RCPT:
        c->i++;
        break;
    case S_DATA:
        c->st = S_HDR;
        c->i = 0;
        break;
    case S_HDR:
        c->i++;
        break;
    case S_EOH:
        c->st = S_BODY;
        c->i = 0;
        break;
    case S_BODY:
        if (cmd == 's')
            c->st = S_EOM;
        else
            c->i++;
        break;
    default:
        return -1;
    }
    go(c);
    return 0;
}

static void on_event(struct mc *c, uint32_t e)
{
    if (e & (EPOLLIN | EPOLLERR | EPOLLHUP)) {
        if (c->in_cap - c->in_n < 8192) {
            c->in_cap = c->in_cap * 2 + 16384;
            c->in = realloc(c->in, c->in_cap);
            if (!c->in)
                die("out of memory");
        }
        ssize_t r = read(c->fd, c->in + c->in_n, c->in_cap - c->in_n);
        if (r <= 0) {
            if (r < 0 && (errno == EAGAIN || errno == EINTR))
                return;
            drop(c, true);
            return;
        }
        c->in_n += (size_t)r;
        size_t at = 0;
        while (c->in_n - at >= 5) {
            uint32_t l;
            memcpy(&l, c->in + at, 4);
            l = ntohl(l);
            if (l == 0 || l > 1u << 24) {
                drop(c, true);
                return;
            }
            if (c->in_n - at < 4 + (size_t)l)
                break;
            int k = reply(c, c->in[at + 4], c->in + at + 5, l - 1);
            if (k) {
                if (k < 0)
                    drop(c, true);
                return;
            }
            at += 4 + (size_t)l;
        }
        memmove(c->in, c->in + at, c->in_n - at);
        c->in_n -= at;
    }
    if (flush_out(c) < 0)
        drop(c, true);
}

int main(int argc, char **argv)
{
    const char *file = NULL;
    int o;
    while ((o = getopt(argc, argv, "c:n:i:d:s:F:k:r:bT:R:w:S:LM")) != -1) {
        switch (o) {
        case 'c':
            nconn = (unsigned)atoi(optarg);
            break;
        case 'n':
            limit_n = strtoull(optarg, NULL, 10);
            break;
        case 'i':
            first_seq = strtoull(optarg, NULL, 10);
            break;
        case 'd':
            limit_s = atof(optarg);
            break;
        case 's':
            msize = (size_t)atol(optarg);
            break;
        case 'F':
            file = optarg;
            break;
        case 'k':
            per_conn = (unsigned)atoi(optarg);
            break;
        case 'r':
            nrcpt = (unsigned)atoi(optarg);
            break;
        case 'b':
            distinct = true;
            break;
        case 'T':
            nto = (unsigned)atoi(optarg);
            break;
        case 'R':
            nrecv = (unsigned)atoi(optarg);
            break;
        case 'w':
            wrap = strtoull(optarg, NULL, 10);
            break;
        case 'S':
            nclient = (unsigned)atoi(optarg);
            break;
        case 'L':
            legacy = true;
            break;
        case 'M':
            nomacros = true;
            break;
        default:
            die("usage: see the head of milterload.c");
        }
    }
    if (optind + 1 != argc || !nconn || !nrcpt || !nclient || !wrap || !nto)
        die("usage: milterload [options] TARGET (see the head of milterload.c)");
    signal(SIGPIPE, SIG_IGN);
    target_len = parse_addr(argv[optind], &target);
    build(file);
    ep = epoll_create1(EPOLL_CLOEXEC);
    struct mc *C = xcalloc(nconn, sizeof *C);
    uint64_t t0 = now_ns();
    t_end = t0 + (uint64_t)(limit_s * 1e9);
    for (unsigned i = 0; i < nconn; i++)
        next_or_end(&C[i]);
    while (active) {
        struct epoll_event ev[512];
        int n = epoll_wait(ep, ev, 512, 15000);
        if (n == 0)
            die("no progress for 15 s (%llu finished)", (unsigned long long)finished);
        for (int i = 0; i < n; i++) {
            struct mc *c = ev[i].data.ptr;
            if (c->fd >= 0)
                on_event(c, ev[i].events);
        }
    }
    double secs = (double)(now_ns() - t0) / 1e9;
    uint64_t done = f_cont + f_acc + f_rej + f_tmp + f_disc + f_code;
    printf("tool=milterload msgs=%llu cont=%llu accept=%llu reject=%llu tempfail=%llu discard=%llu "
           "code=%llu "
           "quarantine=%llu mods=%llu connerr=%llu conns=%llu proto=0x%x size=%zu secs=%.3f "
           "rate=%.1f mbps=%.1f "
           "rt_per_msg=%.2f p50_us=%.1f p90_us=%.1f p99_us=%.1f p999_us=%.1f max_us=%.1f "
           "gen_cpu=%.3f\n",
           (unsigned long long)done, (unsigned long long)f_cont, (unsigned long long)f_acc,
           (unsigned long long)f_rej, (unsigned long long)f_tmp, (unsigned long long)f_disc,
           (unsigned long long)f_code, (unsigned long long)f_quar, (unsigned long long)mods,
           (unsigned long long)connerr, (unsigned long long)conns, C[0].proto, msize, secs,
           (double)done / secs, (double)bytes / secs / 1e6,
           done ? (double)replies / (double)done : 0, (double)hist_q(&H, .5) / 1e3,
           (double)hist_q(&H, .9) / 1e3, (double)hist_q(&H, .99) / 1e3,
           (double)hist_q(&H, .999) / 1e3, (double)H.max / 1e3, self_cpu());
    return connerr ? 1 : 0;
}
