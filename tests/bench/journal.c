/*
 * journal.c - what a row of the journal costs: bytes, microseconds to add, and to read again.
 *
 * usage: journal [ROWS [DIR]]. Ordinary mail, one recipient each; one in a hundred is a further
 * copy in a storm. Rows with the facts a rule may ask for, and without, in turn. With DIR the ones
 * with facts stay there, so that breakwaterctl backtest --dir DIR can be tried.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "id.h"
#include "journal.h"
#include "log.h"

enum { SUBJECTS = 64, FLUSH = 20000, NAMES = 40 };

struct bench {
    struct arena *arena;
    struct site site;
    struct envelope envelope;
    struct recipient recipient;
    struct copy_signal copy;
    struct subject subject;
    struct signals signals;
    struct journal *journal;
    int64_t now;
    double adding; /* seconds in all */
};

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct span name(const char *fmt, unsigned long n)
{
    static char text[8][NAMES * 2];
    static unsigned next;
    char *out = text[next++ % 8];
    snprintf(out, NAMES * 2, fmt, n);
    return span_str(out);
}

/* Message number n, as detectors leave it. */
static void next_message(struct bench *b, unsigned long n)
{
    struct subject *s = &b->subject;
    struct envelope *e = &b->envelope;
    struct replication_signals *r = &b->signals.replication;
    bool again = n % 100 == 99;
    unsigned long who = again ? 7 : n;
    e->client = (struct ipaddr){4, {[10] = 0xff, [11] = 0xff, 198, 51, 100, (uint8_t)(who % 250)}};
    e->client_name = name("relay%lu.isp.example", who % 50);
    e->helo = e->client_name;
    e->reversepath = name("sender%lu@sender.example", who % 1000);
    e->queue_id = name("4T%08lX", n);
    b->recipient.address = name("user%lu@customer.example", n % 5000);
    s->fp.from = who % 3 ? e->reversepath : name("Sender%lu@list.example", who % 100);
    s->fp.subject = name("The weekly report, number %lu, and what comes next", who);
    s->fp.message_id = name("<20060123100000.%08lx@sender.example>", who);
    s->fp.body_bytes = 2000 + who * 7919 % 40000;
    s->fp.nwords = (unsigned)(s->fp.body_bytes / 7);
    s->fp.list_marked = who % 10 == 0;
    s->talk.reply = who % 4 == 0;
    b->copy = (struct copy_signal){.rule = 1};
    *r = (struct replication_signals){.copy = &b->copy, .copies = 1};
    memcpy(r->k.byte, &who, sizeof who);
    b->signals.loop.hops = 3;
    b->signals.loop.visits = 1;
    b->signals.loop.edges = 1;
    b->signals.flood.rate = (double)(who % 60) / 5;
    b->signals.flood.baseline = 3.25;
    b->signals.flood.hour = (double)(who % 500);
    b->signals.flood.learned = true;
    b->signals.flood.one_content = 0.013;
    if (!again)
        return;
    b->copy = (struct copy_signal){.rule = 6,
                                   .relation = REL_DETOUR,
                                   .advice = ADVICE_HOLD,
                                   .copies = (unsigned)n / 100,
                                   .passed = 1};
    r->storm = true;
    r->copies = n;
    r->convicted = r->duplicates = 1;
    r->blamed = SPAN("sbs.company.example[203.0.113.7]");
    r->rested = 1200;
}

/* As daemon/tx_account.c does. */
static void add(struct bench *b, struct facts *facts)
{
    const struct replication_signals *r = &b->signals.replication;
    static uint8_t of_message[FACT_PACK_MESSAGE], of_copy[FACT_PACK_COPY];
    char client[IPADDR_TEXT];
    struct journal_row row = {.tx = id_next(1, b->now),
                              .time = b->now,
                              .k = r->k,
                              .advised = b->copy.copies ? DISP_HOLD : DISP_PASS,
                              .relation = (uint8_t)b->copy.relation,
                              .copies = b->copy.copies,
                              .door = SPAN("mail"),
                              .client = span_of(client, ipaddr_print(&b->envelope.client, client)),
                              .from = b->envelope.reversepath,
                              .rcpt = b->recipient.address,
                              .queue_id = b->envelope.queue_id,
                              .rule = b->copy.copies ? SPAN("duplicate") : SPAN(""),
                              .message_id = b->subject.fp.message_id,
                              .blamed = r->blamed,
                              .facts = JOURNAL_UNJUDGED};
    if (facts) {
        facts_of_relay(facts, &b->subject, FACTS_PACKED);
        row.of_message = span_of(of_message, facts_pack(facts, false, of_message));
        facts_of_recipient(facts, &b->subject, &b->signals, 0);
        row.of_copy = span_of(of_copy, facts_pack(facts, true, of_copy));
        row.facts = JOURNAL_FACTS;
    }
    journal_add(b->journal, &row);
}

static void write_rows(struct bench *b, const char *dir, unsigned long rows, bool with_facts)
{
    char error[512];
    b->journal = journal_open(dir, INT64_MAX / 4, error);
    if (!b->journal) {
        fprintf(stderr, "%s\n", error);
        exit(1);
    }
    b->now = clock_now() - (int64_t)rows;
    b->adding = 0;
    for (unsigned long n = 0; n < rows; n++, b->now++) {
        struct facts facts; /* judging has read them */
        next_message(b, n);
        facts_of_message(&facts, &b->subject, &b->signals, 0);
        double start = n % 16 ? 0 : seconds(CLOCK_THREAD_CPUTIME_ID);
        add(b, with_facts ? &facts : NULL);
        b->adding += n % 16 ? 0 : seconds(CLOCK_THREAD_CPUTIME_ID) - start;
        if (n % FLUSH == FLUSH - 1)
            journal_flush(b->journal, b->now);
    }
    if (journal_lost(b->journal))
        fputs("rows were lost\n", stderr);
    journal_close(&b->journal);
}

static int look(void *arg, const struct journal_row *r)
{
    *(unsigned long *)arg += r->facts == JOURNAL_FACTS;
    return 0;
}

/* The bytes of all segments; removes them where asked. */
static double segments(const char *dir, bool away)
{
    double bytes = 0;
    char path[512];
    struct stat st;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (strncmp(e->d_name, "journal-", 8) == 0 && stat(path, &st) == 0)
            bytes += (double)st.st_size;
        if (away && strncmp(e->d_name, "journal-", 8) == 0)
            unlink(path);
    }
    if (d)
        closedir(d);
    return bytes;
}

/* What looking at the clock costs by itself. */
static double clock_cost(void)
{
    double start = seconds(CLOCK_THREAD_CPUTIME_ID), now = start;
    for (int i = 0; i < 10000; i++)
        now = seconds(CLOCK_THREAD_CPUTIME_ID);
    return (now - start) / 10000;
}

int main(int argc, char **argv)
{
    static struct bench b;
    static char own[] = "/tmp/bench_journal.XXXXXX";
    unsigned long rows = argc > 1 ? strtoul(argv[1], NULL, 10) : 300000, n = 0;
    const char *dir = argc > 2 ? argv[2] : mkdtemp(own);
    if (!rows || !dir)
        return 2;
    log_open("stderr", LOG_LEVEL_ERROR);
    b.arena = arena_new();
    site_defaults(&b.site);
    b.envelope.recipients = &b.recipient;
    b.envelope.nrecipients = 1;
    b.subject.arena = b.arena;
    b.subject.site = &b.site;
    b.subject.envelope = &b.envelope;
    b.subject.listener = SPAN("mail");
    double tick = clock_cost();
    for (int with = 0; with < 2; with++) {
        segments(dir, true);
        write_rows(&b, dir, rows, with);
        printf("%s facts: %.0f bytes a row, %.2f us to add\n", with ? "with" : "without",
               segments(dir, false) / (double)rows, (b.adding / ((double)rows / 16) - tick) * 1e6);
    }
    double start = seconds(CLOCK_MONOTONIC);
    if (journal_each(dir, &(struct journal_filter){.oldest_first = true}, look, &n))
        return 1;
    printf("read: %.0f rows/s\n", (double)n / (seconds(CLOCK_MONOTONIC) - start));
    arena_free(&b.arena);
    if (argc > 2)
        return 0;
    segments(dir, true);
    return rmdir(dir) != 0;
}
