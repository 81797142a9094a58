/*
 * hold_bench.c - what one more copy of the 630-recipient mail costs, in bytes and in time.
 *
 * A mail of 28,000 bytes, most of it one To: field of 630 addresses, comes back again and again to
 * one recipient each, with Received fields, Message-ID and Date of its own. The copies are put by
 * the keeper, many waiting at a time, and the growth of the file is measured when all is in it.
 *
 * hold_bench [DIR [COPIES]]
 */
#include "bench.h"

#include <pthread.h>

#include "id.h"
#include "keeper.h"

enum { RECIPIENTS = 630, MAIL = 28000, WINDOW = 2000, BODY = 6400 };

struct copy {
    struct job job; /* must be first */
    struct held_mail mail;
    struct held_copy to;
    char head[MAIL], rcpt[64], message_id[80], reason[80], queue_id[16];
};

static char to_field[MAIL];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static unsigned waiting, failed;

static uint64_t random_state = 88172645463325252u;

static uint32_t random32(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 16);
}

static void make_to(void)
{
    size_t n = 0;
    for (int i = 0; i < RECIPIENTS; i++)
        n += (size_t)snprintf(to_field + n, sizeof(to_field) - n,
                              "%sC%03d <pc%03d@p%03d.gov.example>", i ? ",\r\n\t" : "To: ", i, i,
                              i * 7 % RECIPIENTS);
}

static struct body *make_body(void)
{
    static const char *const words[] = {"minutes ", "council ", "meeting ", "of ",        "the ",
                                        "village ", "hall ",    "roof ",    "agenda\r\n", "and "};
    char text[BODY + 16];
    size_t n = 0;
    while (n < BODY)
        n += (size_t)sprintf(text + n, "%s", words[random32() % 10]);
    struct body *b = body_new(NULL, 1 << 20, 1 << 20);
    body_add(b, span_of(text, BODY));
    body_seal(b);
    return b;
}

static int run_put(struct hold *hold, struct job *job)
{
    return hold_put(hold, &((struct copy *)job)->mail);
}

static void put_done(struct job *job)
{
    pthread_mutex_lock(&lock);
    failed += job->result != 0;
    waiting--;
    pthread_cond_signal(&wake);
    pthread_mutex_unlock(&lock);
}

static void make_copy(struct copy *c, struct body *body, unsigned i, int64_t now)
{
    static const char *const sbs[] = {"sbs1.parish.example", "mail.sbs2.example",
                                      "server.sbs3.example"};
    const char *by = sbs[i % 3];
    unsigned s = i % 60, m = i / 60 % 60;
    uint32_t r = random32(), r2 = random32();
    int n =
        snprintf(c->head, sizeof(c->head),
                 "Received: from %s (%s [192.0.2.%u])\r\n\tby mx.relay.example (Postfix) with "
                 "ESMTP id %010X\r\n"
                 "\tfor <pc%03u@p%03u.gov.example>; Mon, 23 Jan 2006 17:%02u:%02u +0000 (GMT)\r\n"
                 "Received: from mail pickup service by %s with Microsoft SMTPSVC;\r\n"
                 "\t Mon, 23 Jan 2006 17:%02u:%02u +0000\r\n"
                 "Message-ID: <%08X%08X.%u@%s>\r\nDate: Mon, 23 Jan 2006 17:%02u:%02u -0000\r\n"
                 "From: \"The clerk\" <clerk@county.example>\r\nSubject: Minutes of the meeting\r\n"
                 "MIME-Version: 1.0\r\nContent-Type: text/plain\r\n%s\r\n\r\n",
                 by, by, i % 3 + 1, r, i % RECIPIENTS, i * 7 % RECIPIENTS, m, s, by, m, s, r2,
                 r * 31 + i, i, by, m, s, to_field);
    snprintf(c->rcpt, sizeof(c->rcpt), "<pc%03u@p%03u.gov.example>", i % RECIPIENTS,
             i * 7 % RECIPIENTS);
    snprintf(c->message_id, sizeof(c->message_id), "<%08X%08X.%u@%s>", r2, r * 31 + i, i, by);
    snprintf(c->reason, sizeof(c->reason), "copy %u of a message this recipient has already",
             i / RECIPIENTS + 2);
    snprintf(c->queue_id, sizeof(c->queue_id), "%010X", r);
    c->to = (struct held_copy){.id = id_next(1, now),
                               .rcpt = span_str(c->rcpt),
                               .rcpt_hash = i % RECIPIENTS * UINT64_C(0x9E3779B97F4A7C15),
                               .relation = 2,
                               .number = i / RECIPIENTS + 2};
    c->mail = (struct held_mail){.id = id_next(1, now),
                                 .arrival = now,
                                 .door = SPAN("postfix"),
                                 .client = SPAN("192.0.2.7"),
                                 .client_name = span_str(by),
                                 .helo = span_str(by),
                                 .queue_id = span_str(c->queue_id),
                                 .reversepath = SPAN("clerk@county.example"),
                                 .k = {{1, 2, 3}},
                                 .incident = SPAN("SAEBAGAAA"),
                                 .rule = SPAN("duplicate"),
                                 .reason = span_str(c->reason),
                                 .blamed = span_str(by),
                                 .message_id = span_str(c->message_id),
                                 .from = SPAN("\"The clerk\" <clerk@county.example>"),
                                 .subject = SPAN("Minutes of the meeting"),
                                 .head = span_of(c->head, (size_t)n),
                                 .body = body,
                                 .copies = &c->to,
                                 .ncopies = 1};
    c->job = (struct job){.run = run_put, .done = put_done};
}

/* Puts copies [from, to), at most WINDOW waiting; seconds of the keeper's work on them. */
static double put_many(struct keeper *k, struct copy *ring, struct body *body, unsigned from,
                       unsigned to)
{
    double seconds = 0;
    for (unsigned i = from; i < to; i += WINDOW) {
        unsigned n = to - i < WINDOW ? to - i : WINDOW;
        for (unsigned j = 0; j < n; j++)
            make_copy(&ring[j], body, i + j, 1138037000000 + (int64_t)i);
        uint64_t start = now_ns();
        pthread_mutex_lock(&lock);
        waiting = n;
        pthread_mutex_unlock(&lock);
        for (unsigned j = 0; j < n; j++)
            keeper_submit(k, &ring[j].job);
        pthread_mutex_lock(&lock);
        while (waiting)
            pthread_cond_wait(&wake, &lock);
        pthread_mutex_unlock(&lock);
        seconds += (double)(now_ns() - start) / 1e9;
    }
    return seconds;
}

static uint64_t file_bytes(const char *dir)
{
    char error[512], path[512];
    struct stat st;
    struct hold *h = hold_open(dir, true, NULL, error);
    if (!h)
        die("%s", error);
    char problem[512];
    if (hold_check(h, problem))
        die("%s", problem);
    hold_close(&h); /* the last one to close folds the journal in */
    snprintf(path, sizeof(path), "%s/hold.db", dir);
    if (stat(path, &st))
        die("%s: %s", path, strerror(errno));
    return (uint64_t)st.st_size;
}

static struct keeper *start(const char *dir)
{
    char error[512];
    struct keeper *k = keeper_start(dir, error);
    if (!k)
        die("%s", error);
    return k;
}

int main(int argc, char **argv)
{
    char own[] = "/tmp/hold_bench.XXXXXX";
    const char *dir = argc > 1 ? argv[1] : mkdtemp(own);
    unsigned copies = argc > 2 ? (unsigned)atoi(argv[2]) : 20000;
    struct copy *ring = xcalloc(WINDOW, sizeof(*ring));
    make_to();
    struct body *body = make_body();
    struct keeper *k = start(dir);
    put_many(k, ring, body, 0, RECIPIENTS);
    size_t size = ring[0].mail.head.n + BODY;
    keeper_stop(&k);
    uint64_t before = file_bytes(dir);
    k = start(dir);
    double seconds = put_many(k, ring, body, RECIPIENTS, RECIPIENTS + copies);
    keeper_stop(&k);
    uint64_t after = file_bytes(dir);
    printf(
        "hold: %u copies of a mail of %zu bytes: %.1f bytes of file each, %.0f puts/s, %u failed\n",
        copies, size, (double)(after - before) / copies, copies / seconds, failed);
    body_drop(&body);
    free(ring);
    if (argc <= 1) {
        char path[512];
        snprintf(path, sizeof(path), "%s/hold.db", dir);
        unlink(path);
        rmdir(dir);
    }
    return failed || after - before >= 512ull * copies;
}
