/*
 * engine.c - the engine alone on one thread: parse, fingerprint, count, observe, judge, policy,
 * journal none.
 *
 * usage: engine [SECONDS] [SIZE]. Distinct text mails with their own Message-ID, body, recipient
 * and Received chain, as a relay sees them: first sights, the common case. Prints engine_4k=N
 * msg/s, N us/msg as its last line. SHA-256 of the same bytes is measured in turn with it, as a
 * yardstick of the machine.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <openssl/evp.h>

#include "tx.h"

enum { MAILS = 4096, ROUNDS = 7 };

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

static size_t make_mail(char *out, size_t size, unsigned number)
{
    int n = snprintf(out, size,
                     "Received: from relay%u.isp.example (relay%u.isp.example [198.51.100.%u])\r\n"
                     "\tby mx.gateway.example (Postfix) with ESMTP id 4T%08X\r\n"
                     "\tfor <user%u@customer.example>; Mon, 23 Jan 2006 10:00:00 +0000\r\n"
                     "Received: from pc%u (unknown [192.168.1.%u])\r\n"
                     "\tby relay%u.isp.example (Postfix) with ESMTP id 5T%08X;\r\n"
                     "\tMon, 23 Jan 2006 09:59:59 +0000\r\n"
                     "Message-ID: <%08x.%u@sender%u.example>\r\n"
                     "Date: Mon, 23 Jan 2006 10:00:00 +0000\r\n"
                     "From: Sender %u <sender%u@sender%u.example>\r\n"
                     "To: <user%u@customer.example>\r\nSubject: report %u\r\n"
                     "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n"
                     "Content-Transfer-Encoding: 7bit\r\n\r\n",
                     number % 50, number % 50, number % 50 + 1, number, number, number,
                     number % 200 + 1, number % 50, number, number, number, number % 300, number,
                     number, number % 300, number, number);
    return (size_t)n + text(out + n, size - (size_t)n);
}

static void judge(struct pipeline *p, struct config *c, const struct keys *keys, struct span mail,
                  unsigned number)
{
    struct tx *tx = tx_begin(p, c, keys, NULL, "bench");
    struct envelope *e = tx_envelope(tx);
    char rcpt[64];
    e->client = (struct ipaddr){4, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 51, 100, 7}};
    e->helo = SPAN("relay.isp.example");
    e->client_name = SPAN("relay.isp.example");
    tx_reversepath(tx, SPAN("<sender@sender.example>"), span_of(NULL, 0));
    snprintf(rcpt, sizeof rcpt, "<user%u@customer.example>", number);
    if (tx_recipient(tx, span_str(rcpt), span_of(NULL, 0)) < 0)
        abort();
    tx_raw(tx, mail);
    if (tx_judge(tx, NULL, NULL) != TX_DONE || tx_verdict(tx)->count[DISP_PASS] != 1)
        abort();
    tx_commit(tx);
    tx_end(&tx);
}

int main(int argc, char **argv)
{
    double want = argc > 1 ? atof(argv[1]) : 1.0;
    size_t size = argc > 2 ? (size_t)atol(argv[2]) : 4096;
    struct config *config = config_builtin();
    struct pipeline_counters counters = {0};
    struct pipeline pipeline = {.store = store_memory_open(&config->site, 256u << 20),
                                .counters = &counters,
                                .mode = MODE_ENFORCE};
    struct keys keys;
    if (keys_open(&keys, config->site_key) < 0)
        return 1;
    char *mail = malloc(MAILS * size);
    size_t *length = calloc(MAILS, sizeof *length);
    if (!mail || !length)
        return 1;
    for (unsigned i = 0; i < MAILS; i++)
        length[i] = make_mail(mail + i * size, size, i);
    double best_engine = 1e9, best_sha = 1e9;
    unsigned number = 0;
    for (int round = 0; round < ROUNDS; round++) {
        double start = seconds(), end = start + want / ROUNDS, now;
        uint64_t n = 0;
        do {
            for (int i = 0; i < 256; i++, n++, number++) {
                char *m = mail + (number % MAILS) * size, id[9];
                snprintf(id, sizeof id, "%08x", number); /* a new Message-ID each time round */
                memcpy(strstr(m, "Message-ID: <") + 13, id, 8);
                judge(&pipeline, config, &keys, span_of(m, length[number % MAILS]), number);
            }
            now = seconds();
        } while (now < end);
        double each = (now - start) / (double)n;
        best_engine = each < best_engine ? each : best_engine;
        uint8_t digest[32];
        start = seconds();
        for (unsigned i = 0; i < MAILS; i++)
            EVP_Digest(mail + i * size, length[i], digest, NULL, EVP_sha256(), NULL);
        each = (seconds() - start) / MAILS;
        best_sha = each < best_sha ? each : best_sha;
    }
    printf("sha256: %.2f us/message, %.2f GB/s (the machine's yardstick)\n", best_sha * 1e6,
           (double)size / best_sha / 1e9);
    printf("engine over sha256: %.2f times the time\n", best_engine / best_sha);
    printf("engine_%zuk=%.0f msg/s, %.2f us/msg\n", size / 1024, 1 / best_engine,
           best_engine * 1e6);
    free(mail);
    free(length);
    store_close(&pipeline.store);
    keys_close(&keys);
    config_drop(&config);
    return 0;
}
