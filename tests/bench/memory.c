/*
 * memory.c - the memory of the past is bounded: under a storm of 1.5 million copies, and under
 * somebody who invents messages, senders, recipients, relays and conversations as fast as he can.
 *
 * usage: memory [MB] [COPIES] [INVENTED]. MB: store.memory, 64. Prints what the process takes more
 * than at its start, in MB, at its most; exits 1 if that is over MB and a quarter.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "tx.h"

enum { CROWD = 630, AT_ONCE = 90, ALLOWED = 125 /* % of MB */ };

struct world {
    struct pipeline pipeline;
    struct config *config;
    struct keys keys;
};

static double most_mb(void)
{
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return (double)use.ru_maxrss / 1024;
}

static void judge(struct world *w, unsigned relay, unsigned first, unsigned n, struct span mail)
{
    struct tx *tx = tx_begin(&w->pipeline, w->config, &w->keys, NULL, "bench");
    struct envelope *e = tx_envelope(tx);
    uint8_t *ip = e->client.byte;
    e->client.family = 4;
    ip[10] = ip[11] = 0xff;
    for (unsigned i = 0; i < 4; i++)
        ip[12 + i] = (uint8_t)((relay + 0x50000000u) >> (24 - 8 * i));
    tx_reversepath(tx, SPAN("<promo@sender.example>"), span_of(NULL, 0));
    for (unsigned i = first; i < first + n; i++) {
        char rcpt[64];
        snprintf(rcpt, sizeof rcpt, "<user%u@customer%u.example>", i, i % 100);
        if (tx_recipient(tx, span_str(rcpt), span_of(NULL, 0)) < 0)
            abort();
    }
    tx_raw(tx, mail);
    if (tx_judge(tx, NULL, NULL) != TX_DONE)
        abort();
    tx_commit(tx);
    tx_end(&tx);
}

#define BODY                                                                                       \
    "\r\nOur best offer of the year is open until Friday, for all of you in the valley and "       \
    "the\r\n"                                                                                      \
    "towns around it. Please tell me how many places you would like to have, and we will send\r\n" \
    "the papers by return of post.\r\n"

/* One message, through three servers that send it again and again, to 630 recipients. */
static void storm(struct world *w, unsigned long copies)
{
    static char mail[4096];
    unsigned long n = 0;
    for (unsigned i = 0; n < copies; i++, n += AT_ONCE) {
        int length =
            snprintf(mail, sizeof mail,
                     "Received: from mail pickup service by sbs%u.company.example with Microsoft "
                     "SMTPSVC; Mon, 23 Jan 2006 10:%02u:%02u +0000\r\n"
                     "Received: from pop%u.isp.example by sbs%u.company.example id %08X;\r\n"
                     "\tMon, 23 Jan 2006 10:00:00 +0000\r\n"
                     "Message-ID: <promo@sender.example>\r\nFrom: promo@sender.example\r\n"
                     "Date: Mon, 23 Jan 2006 09:00:00 +0000\r\nSubject: offer\r\n"
                     "To: list of 630 <user1@customer1.example>\r\n" BODY,
                     i % 3, i / 60 % 60, i % 60, i % 3, i % 3, i);
        judge(w, i % 3, i % (CROWD / AT_ONCE) * AT_ONCE, AT_ONCE, span_of(mail, (size_t)length));
    }
}

/* Every mail everything new, and each an answer to a conversation of its own. */
static void invented(struct world *w, unsigned long mails)
{
    static char mail[4096];
    for (unsigned i = 0; i < mails; i++) {
        int length = snprintf(mail, sizeof mail,
                              "Received: from h%u.example by mx%u.example id %08X; Mon, 23 Jan "
                              "2006 10:00:00 +0000\r\n"
                              "Message-ID: <%u.new@x%u.example>\r\nFrom: u%u@x%u.example\r\n"
                              "In-Reply-To: <%u.old@x.example>\r\nAuto-Submitted: auto-replied\r\n"
                              "Date: Mon, 23 Jan 2006 09:00:00 +0000\r\nSubject: Re: offer %u\r\n"
                              "To: user%u@customer.example\r\n" BODY "%u %u %u\r\n",
                              i, i, i, i, i, i, i, i, i, i, i, i * 7, i * 13);
        judge(w, i, i, 1, span_of(mail, (size_t)length));
    }
}

static bool measure(struct world *w, const char *what, unsigned long n, unsigned mb,
                    void (*run)(struct world *, unsigned long))
{
    struct store_figures f;
    w->pipeline.store = store_memory_open(&w->config->site, (uint64_t)mb << 20);
    double before = most_mb();
    run(w, n);
    double taken = most_mb() - before;
    store_memory_figures(w->pipeline.store, &f);
    printf("%s: %lu: %.1f MB more at the most (store.memory %u MB); %llu records in %.1f MB, %llu "
           "forgotten\n",
           what, n, taken, mb, (unsigned long long)f.records, (double)f.bytes / (1 << 20),
           (unsigned long long)f.evicted);
    store_close(&w->pipeline.store);
    return taken * 100 <= (double)mb * ALLOWED;
}

int main(int argc, char **argv)
{
    unsigned mb = argc > 1 ? (unsigned)atol(argv[1]) : 64;
    unsigned long copies = argc > 2 ? strtoul(argv[2], NULL, 10) : 1500000;
    unsigned long mails = argc > 3 ? strtoul(argv[3], NULL, 10) : 600000;
    struct world w = {.pipeline = {.mode = MODE_MONITOR}};
    log_open("stderr", LOG_LEVEL_ERROR);
    w.config = config_builtin();
    if (keys_open(&w.keys, w.config->site_key) < 0)
        return 1;
    bool good = measure(&w, "copies of one message", copies, mb, storm);
    good &= measure(&w, "invented messages", mails, mb, invented);
    keys_close(&w.keys);
    config_drop(&w.config);
    return good ? 0 : 1;
}
