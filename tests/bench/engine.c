/*
 * engine.c - the engine alone on one thread, all detectors on: parse, fingerprint, count, observe,
 * step, judge, policy; memory store; no hold queue, no journal.
 *
 * usage: engine [SECONDS] [SIZE]. SECONDS for each of four mixes of text mail:
 *
 *   new    every mail its own Message-ID, subject, text, recipient and chain: first sights, the
 *          common case
 *   cron   the author, the subject and nearly the text of an earlier mail: each has to be told
 *          from a re-issue
 *   again  64 messages that come back and back to the same three recipients, each time by another
 *          way: a storm
 *   many   every mail new, for 630 recipients in one transaction, all of them in To
 *
 * SHA-256 of the same bytes is measured in turn with them, as a yardstick of the machine: on one
 * where it does 1.7 GB/s, at least 50,000 new mails of 4 KB a second are wanted. The last lines are
 * engine_4k=N msg/s, N us/msg and what that would be there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <openssl/evp.h>

#include "tx.h"

enum { MAILS = 4096, STORMS = 64, CROWD = 630, CROWD_MAILS = 64, ROUNDS = 7, HEAD = 2048 };
static const double wanted = 50000, wanted_at = 1.7e9; /* messages/s; bytes/s of SHA-256 */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint32_t random_state = 12345;

static uint32_t next_random(void)
{
    random_state = random_state * 1664525u + 1013904223u;
    return random_state >> 8;
}

/* English-looking words of 2 to 9 letters, lines of some 70 characters. */
static size_t text(char *out, size_t n)
{
    size_t at = 0, line = 0;
    while (at + 16 < n) {
        size_t len = 2 + next_random() % 8;
        for (size_t i = 0; i < len; i++)
            out[at++] = (char)('a' + next_random() % 26);
        line += len + 1;
        if (line > 66) {
            out[at++] = '\r';
            out[at++] = '\n';
            line = 0;
        } else {
            out[at++] = ' ';
        }
    }
    out[at++] = '\r';
    out[at++] = '\n';
    return at;
}

/* A mail of `size` bytes beside its To. */
static size_t make_mail(char *out, size_t size, unsigned number, const char *to)
{
    int n = snprintf(out, size + strlen(to),
                     "Received: from relay%u.isp.example (relay%u.isp.example [198.51.100.%u])\r\n"
                     "\tby mx.gateway.example (Postfix) with ESMTP id 4T%08X\r\n"
                     "\tfor <user%u@customer.example>; Mon, 23 Jan 2006 10:00:00 +0000\r\n"
                     "Received: from pc%u (unknown [192.168.1.%u])\r\n"
                     "\tby relay%u.isp.example (Postfix) with ESMTP id 5T%08X;\r\n"
                     "\tMon, 23 Jan 2006 09:59:59 +0000\r\n"
                     "Message-ID: <%08x.%u@sender%u.example>\r\n"
                     "Date: Mon, 23 Jan 2006 10:00:00 +0000\r\n"
                     "From: Sender %u <sender%u@sender%u.example>\r\n"
                     "To: %s\r\nSubject: %08x report\r\n"
                     "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n"
                     "Content-Transfer-Encoding: 7bit\r\n\r\n",
                     number % 50, number % 50, number % 50 + 1, number, number, number,
                     number % 200 + 1, number % 50, number, number, number, number % 300, number,
                     number, number % 300, to, number);
    return (size_t)n + text(out + n, size + strlen(to) - (size_t)n);
}

/* ---- one transaction ---- */

/* Where a mail's names are: its Message-ID, its oldest Received field, its text, its subject. */
static const char *const before_names[] = {"Message-ID: <", " id 5T", "\r\n\r\n", "Subject: "};
enum { NAMES = sizeof before_names / sizeof *before_names };

struct one {
    char *text;
    size_t length, name[NAMES];
};

struct bench {
    struct pipeline pipeline;
    struct config *config;
    struct keys keys;
    size_t size;
    struct one mail[MAILS], storm[STORMS], crowd[CROWD_MAILS];
    unsigned number;
};

static struct tx *begin(struct bench *b, unsigned relay)
{
    struct tx *tx = tx_begin(&b->pipeline, b->config, &b->keys, NULL, "bench");
    struct envelope *e = tx_envelope(tx);
    e->client = (struct ipaddr){4, {[10] = 0xff, [11] = 0xff, 198, 51, 100, (uint8_t)relay}};
    e->helo = SPAN("relay.isp.example");
    e->client_name = SPAN("relay.isp.example");
    tx_reversepath(tx, SPAN("<sender@sender.example>"), span_of(NULL, 0));
    return tx;
}

static void add_recipient(struct tx *tx, unsigned user, unsigned domain)
{
    char rcpt[64];
    snprintf(rcpt, sizeof rcpt, "<user%u@customer%u.example>", user, domain);
    if (tx_recipient(tx, span_str(rcpt), span_of(NULL, 0)) < 0)
        abort();
}

static void judge(struct tx *tx, struct span mail)
{
    tx_raw(tx, mail);
    if (tx_judge(tx, NULL, NULL) != TX_DONE)
        abort();
    tx_commit(tx);
    tx_end(&tx);
}

/* ---- the mixes ---- */

/* Each time round a new message: else it would be recognised. The first so many of its names. */
static void renumber(struct one *m, unsigned number, size_t names)
{
    char id[9];
    snprintf(id, sizeof id, "%08x", number);
    for (size_t i = 0; i < names; i++)
        memcpy(m->text + m->name[i], id, 8);
}

static void first_mail(struct bench *b, size_t names)
{
    unsigned n = b->number++;
    struct one *m = &b->mail[n % MAILS];
    renumber(m, n, names);
    struct tx *tx = begin(b, n % 250);
    add_recipient(tx, n, 0);
    judge(tx, span_of(m->text, m->length));
}

static void new_mail(struct bench *b)
{
    first_mail(b, NAMES);
}

static void cron_mail(struct bench *b)
{
    first_mail(b, NAMES - 1); /* the subject stays */
}

static void storm_mail(struct bench *b)
{
    static char back[HEAD + (1 << 20)];
    unsigned n = b->number++;
    const struct one *m = &b->storm[n % STORMS];
    int head = snprintf(back, HEAD,
                        "Received: from sbs%u.company.example (sbs%u.company.example "
                        "[203.0.113.%u])\r\n"
                        "\tby relay.isp.example (Postfix) with ESMTP id 6T%08X;\r\n"
                        "\tMon, 23 Jan 2006 10:15:00 +0000\r\n"
                        "Received: from mail pickup service by sbs%u.company.example with "
                        "Microsoft SMTPSVC;\r\n\t Mon, 23 Jan 2006 10:14:%02u +0000\r\n",
                        n % 3, n % 3, n % 3 + 1, n, n % 3, n % 60);
    memcpy(back + head, m->text, m->length);
    struct tx *tx = begin(b, 7);
    for (unsigned i = 0; i < 3; i++)
        add_recipient(tx, i, i);
    judge(tx, span_of(back, (size_t)head + m->length));
}

static void crowd_mail(struct bench *b)
{
    unsigned n = b->number++;
    struct one *m = &b->crowd[n % CROWD_MAILS];
    renumber(m, n, NAMES);
    struct tx *tx = begin(b, n % 250);
    for (unsigned i = 0; i < CROWD; i++)
        add_recipient(tx, i, i % 100);
    judge(tx, span_of(m->text, m->length));
}

static const struct mix {
    const char *name;
    void (*one)(struct bench *);
    unsigned batch; /* mails between two looks at the clock */
} mixes[] = {{"new", new_mail, 256},
             {"many", crowd_mail, 4},
             {"cron", cron_mail, 256},
             {"again", storm_mail, 256}};
enum { MIXES = sizeof mixes / sizeof *mixes };

/* ---- */

static void make_one(struct one *m, size_t size, unsigned number, const char *to)
{
    m->text = malloc(size + strlen(to) + 1);
    if (!m->text)
        abort();
    m->length = make_mail(m->text, size, number, to);
    for (size_t i = 0; i < NAMES; i++)
        m->name[i] = (size_t)(strstr(m->text, before_names[i]) - m->text) + strlen(before_names[i]);
}

static void make_mails(struct bench *b)
{
    static char to[CROWD * 40];
    char one[64];
    size_t n = 0;
    for (unsigned i = 0; i < CROWD; i++)
        n += (size_t)snprintf(to + n, sizeof to - n, "%suser%u@customer%u.example",
                              i ? ",\r\n\t" : "", i, i % 100);
    for (unsigned i = 0; i < MAILS + STORMS; i++) {
        snprintf(one, sizeof one, "<user%u@customer.example>", i);
        make_one(i < MAILS ? &b->mail[i] : &b->storm[i - MAILS], b->size, i, one);
    }
    for (unsigned i = 0; i < CROWD_MAILS; i++)
        make_one(&b->crowd[i], b->size, MAILS + STORMS + i, to);
}

/* Seconds a message, over `want` seconds. */
static double measure(struct bench *b, const struct mix *mix, double want)
{
    double start = seconds(), now;
    uint64_t n = 0;
    do {
        for (unsigned i = 0; i < mix->batch; i++, n++)
            mix->one(b);
        now = seconds();
    } while (now < start + want);
    return (now - start) / (double)n;
}

/* Seconds a byte. */
static double measure_sha(struct bench *b)
{
    uint8_t digest[32];
    size_t bytes = 0;
    double start = seconds();
    for (unsigned i = 0; i < MAILS; i++) {
        EVP_Digest(b->mail[i].text, b->mail[i].length, digest, NULL, EVP_sha256(), NULL);
        bytes += b->mail[i].length;
    }
    return (seconds() - start) / (double)bytes;
}

static void print(const struct bench *b, const double best[MIXES], double sha)
{
    printf("sha256: %.2f us/message, %.2f GB/s (the machine's yardstick)\n",
           sha * (double)b->size * 1e6, 1 / sha / 1e9);
    for (size_t i = 1; i < MIXES; i++)
        printf("%s: %.0f msg/s, %.2f us/msg\n", mixes[i].name, 1 / best[i], best[i] * 1e6);
    printf("many: %.0f recipients/s, %.2f us each\n", CROWD / best[1], best[1] * 1e6 / CROWD);
    printf("engine over sha256: %.2f times the time\n", best[0] / (sha * (double)b->size));
    printf("engine_%zuk=%.0f msg/s, %.2f us/msg\n", b->size / 1024, 1 / best[0], best[0] * 1e6);
    printf("engine_%zuk / (SHA-256 / 1.7 GB/s) = %.0f msg/s, wanted %.0f\n", b->size / 1024,
           1 / best[0] * sha * wanted_at, wanted);
}

int main(int argc, char **argv)
{
    static struct bench b;
    double want = argc > 1 ? atof(argv[1]) : 1.0, best[MIXES] = {1e9, 1e9, 1e9, 1e9}, sha = 1;
    b.size = argc > 2 ? (size_t)atol(argv[2]) : 4096;
    if (b.size < HEAD || b.size > 1 << 20) {
        fputs("usage: engine [SECONDS] [SIZE]; SIZE 2048 to 1048576\n", stderr);
        return 2;
    }
    log_open("stderr", LOG_LEVEL_ERROR);
    b.config = config_builtin();
    b.pipeline = (struct pipeline){.store = store_memory_open(&b.config->site, 256u << 20),
                                   .figures = figures_new(b.config),
                                   .mode = MODE_MONITOR};
    if (keys_open(&b.keys, b.config->site_key) < 0)
        return 1;
    make_mails(&b);
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < MIXES; i++) {
            double each = measure(&b, &mixes[i], want / ROUNDS);
            best[i] = each < best[i] ? each : best[i];
        }
        double each = measure_sha(&b);
        sha = each < sha ? each : sha;
    }
    print(&b, best, sha);
    for (unsigned i = 0; i < MAILS; i++)
        free(b.mail[i].text);
    for (unsigned i = 0; i < STORMS; i++)
        free(b.storm[i].text);
    for (unsigned i = 0; i < CROWD_MAILS; i++)
        free(b.crowd[i].text);
    store_close(&b.pipeline.store);
    figures_free(&b.pipeline.figures);
    keys_close(&b.keys);
    config_drop(&b.config);
    return 0;
}
