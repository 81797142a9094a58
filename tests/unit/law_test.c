/*
 * law_test.c - the law of the house (DESIGN.md 2): for random sequences of transactions, aborted
 * and refused ones between, the verdicts in one session equal the verdicts each in a session of its
 * own. Through the milter door and the real pipeline; the store remembers nothing.
 *
 * The mails are made here, from small vocabularies, so that every rule below is met often.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "milter_peer.h"

enum { TRANSACTIONS = 10000, RECIPIENTS = 6 };

/* One rule for each thing that could leak from one message into the next. */
static const char rules[] =
    "rule sender { when envelope.from == \"held@sender.example\" do hold reason \"s\" }\n"
    "rule null { when envelope.from == \"\" and envelope.recipients > 2 do hold reason \"n\" }\n"
    "rule list { when message.list and recipient.domain == \"b.example\" do hold reason \"l\" }\n"
    "rule rcpt { when recipient.address == \"u3@a.example\" do hold reason \"r\" }\n"
    "rule refuse { when envelope.from == \"busy@sender.example\" and envelope.recipients == 1\n"
    "    do throttle reason \"{message.subject} 100% of {envelope.from}\" }\n"
    "rule reject { when message.subject == \"reject\" do reject reason \"{message.from}\" }\n"
    "rule visible { when message.visible > 4 do tag reason \"v\" }\n"
    "rule words { when message.words > 60 do hold reason \"w\" }\n"
    "rule size { when message.bytes > 3000 do tag reason \"b\" }\n"
    "rule circle { when loop.visits >= 2 or loop.delivered_to >= 2 do tag reason \"c\" }\n"
    "rule hops { when loop.hops > 6 do hold reason \"h\" }\n";

static const char *const senders[] = {"<>",
                                      "<held@sender.example>",
                                      "<busy@sender.example>",
                                      "<x@sender.example>",
                                      "x@sender.example",
                                      "<\"a b\"@sender.example>"};
static const char *const subjects[] = {"hello", "reject", "=?utf-8?Q?caf=C3=A9?=", "a\n\tb", ""};
static const char *const queue_ids[] = {"4T1AAA", "4T2BBB", "4T3CCC"};

static uint64_t seed;
static unsigned random_below(unsigned n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)((seed >> 20) % n);
}
#define ANY(list) ((list)[random_below(sizeof(list) / sizeof(list)[0])])

static void add_macro(struct wire *w, char stage, const char *name, const char *value)
{
    char data[128];
    int n = snprintf(data, sizeof data, "%c%s%c%s%c", stage, name, 0, value, 0);
    wire_frame(w, 'D', data, (size_t)n);
}

static void add_field(struct wire *w, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void add_field(struct wire *w, const char *name, const char *fmt, ...)
{
    char value[1000], data[1100];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(value, sizeof value, fmt, ap);
    va_end(ap);
    int n = snprintf(data, sizeof data, "%s%c %s%c", name, 0, value, 0);
    wire_frame(w, 'L', data, (size_t)n);
}

static void add_trace(struct wire *w)
{
    for (unsigned i = random_below(9); i > 0; i--) {
        unsigned a = random_below(5), b = random_below(5);
        add_field(w, "Received",
                  "from h%u.example (h%u.example [192.0.2.%u])\n\tby h%u.example (Postfix) with "
                  "ESMTP id %X;\n\tMon, 16 Nov 2026 10:%02u:00 +0000",
                  a, a, a + 1, b, random_below(1 << 20), i);
    }
    for (unsigned i = random_below(8); i > 6; i--)
        add_field(w, "Delivered-To", "u%u@a.example", random_below(2));
}

static void add_fields(struct wire *w)
{
    char to[400];
    int n = 0;
    add_trace(w);
    for (unsigned i = random_below(7); i > 0; i--)
        n += snprintf(to + n, sizeof to - (size_t)n, "%sv%u@v.example", n ? ", " : "",
                      random_below(20));
    if (n)
        add_field(w, "To", "%s", to);
    if (random_below(8))
        add_field(w, "From", "Sender %u <f%u@sender.example>", random_below(3), random_below(3));
    if (random_below(8))
        add_field(w, "Subject", "%s", ANY(subjects));
    if (random_below(8))
        add_field(w, "Message-ID", "<%X.%X@m.example>", random_below(1 << 20), random_below(4));
    if (random_below(4) == 0)
        add_field(w, "List-Id", "<l%u.list.example>", random_below(2));
    if (random_below(8) == 0)
        add_field(w, "X-Breakwater-Release", "junk%u", random_below(2));
    if (random_below(4) == 0)
        add_field(w, "Content-Transfer-Encoding", random_below(2) ? "base64" : "quoted-printable");
    if (random_below(4) == 0)
        add_field(w, "Content-Type", "multipart/mixed; boundary=\"b%u\"", random_below(2));
}

static void add_body(struct wire *w)
{
    char text[5000];
    size_t n = 0;
    for (unsigned i = random_below(random_below(4) ? 30 : 300); i > 0 && n + 64 < sizeof text; i--)
        n +=
            (size_t)snprintf(text + n, sizeof text - n, "%s%u%s", random_below(20) ? "word" : "--b",
                             random_below(2000), random_below(10) ? " " : "\r\n");
    size_t cut = n ? random_below((unsigned)n) : 0;
    if (cut)
        wire_frame(w, 'B', text, cut);
    wire_frame(w, 'B', text + cut, n - cut);
}

/*
 * One transaction, as a function of the seed: whole, or given up after any of its steps. How it is
 * given up differs: ABORT, or a HELO or MAIL that simply follows. True: it gets a reply.
 */
static bool add_transaction(struct wire *w)
{
    enum { MAIL, RCPT, DATA, HEADER, BODY, END, STEPS } last = END;
    if (random_below(4) == 0)
        last = random_below(END);
    if (random_below(2))
        add_macro(w, 'M', "i", ANY(queue_ids));
    else if (random_below(2))
        add_macro(w, 'M', "{auth_authen}", "user");
    const char *from = ANY(senders);
    char data[128];
    int n = snprintf(data, sizeof data, "%s%c%s", from, 0, random_below(2) ? "SIZE=5" : "");
    wire_frame(w, 'M', data, (size_t)n + (data[n - 1] != 0));
    for (unsigned i = random_below(RECIPIENTS) + 1; last >= RCPT && i > 0; i--) {
        n = snprintf(data, sizeof data, "<u%u@%c.example>", random_below(5),
                     (char)('a' + random_below(3)));
        wire_frame(w, 'R', data, (size_t)n + 1);
    }
    if (last >= DATA && random_below(2))
        add_macro(w, 'T', "i", ANY(queue_ids));
    if (last >= DATA)
        wire_frame(w, 'T', NULL, 0);
    if (last >= HEADER)
        add_fields(w);
    if (last >= BODY) {
        wire_frame(w, 'N', NULL, 0);
        add_body(w);
    }
    if (last == END)
        wire_frame(w, 'E', NULL, 0);
    else if (random_below(3))
        wire_frame(w, 'A', NULL, 0);
    else if (random_below(2))
        WIRE(w, 'H', "helo.example\0");
    return last == END;
}

static void add_opening(struct wire *w)
{
    wire_offer(w, 6, 0x1ff, 0x1fffff);
    WIRE(w, 'C',
         "mx.example\0004\x9c\x40"
         "192.0.2.7\0");
    WIRE(w, 'H', "helo.example\0");
}

/* ---- the pipeline ---- */

static struct worker worker;
static struct pipeline pipeline;
static char dir[] = "/tmp/law_test.XXXXXX"; /* of the journal */
static const struct listener listener = {.name = (char *)"in"};

static int64_t still(void)
{
    return 1795000000000; /* a Monday in November 2026 */
}

static int setup(void **state)
{
    struct policy_error error;
    char why[512];
    (void)state;
    log_open("stderr", LOG_NOTHING);
    clock_set(still);
    worker.config = config_builtin();
    policy_free(&worker.config->policy);
    worker.config->policy = policy_load(span_str(rules), NULL, &error);
    if (!worker.config->policy) {
        fprintf(stderr, "line %u: %s\n", error.line, error.text);
        return -1;
    }
    pipeline.store = store_none_open();
    pipeline.figures = figures_new(worker.config);
    if (!mkdtemp(dir) || !(pipeline.journal = journal_open(dir, INT64_C(86400000), why)))
        return -1;
    pipeline.mode = MODE_ENFORCE;
    worker.pipeline = &pipeline;
    worker.base = event_base_new();
    worker.mailbox = mailbox_new(worker.base);
    return keys_open(&worker.keys, worker.config->site_key);
}

static int teardown(void **state)
{
    (void)state;
    mailbox_free(&worker.mailbox);
    keys_close(&worker.keys);
    event_base_free(worker.base);
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", dir);
    journal_close(&pipeline.journal);
    figures_free(&pipeline.figures);
    store_close(&pipeline.store);
    config_drop(&worker.config);
    clock_set(NULL);
    return system(command);
}

/* Ids are new for every transaction and are the only thing that may differ. */
static void mask_ids(uint8_t *p, size_t n)
{
    static const char mark[] = "; id=";
    for (uint8_t *at = p; (at = memmem(at, n - (size_t)(at - p), mark, strlen(mark)));)
        for (at += strlen(mark); *at; at++)
            *at = '#';
}

/* What is answered to the transaction of this seed in a session of its own. */
static void alone(uint64_t its_seed, struct wire *answer)
{
    struct wire w = {0};
    struct peer p;
    add_opening(&w);
    peer_open(&p, &worker, &listener);
    peer_send(&p, w.p, w.n);
    size_t skip = p.answer.n;
    w.n = 0;
    seed = its_seed;
    add_transaction(&w);
    peer_send(&p, w.p, w.n);
    assert_false(p.closed);
    answer->n = 0;
    wire_add(answer, p.answer.p + skip, p.answer.n - skip);
    peer_close(&p);
    wire_free(&w);
}

static void one_session_equals_many(void **state)
{
    (void)state;
    struct wire w = {0}, own = {0};
    struct peer p;
    unsigned answered[256] = {0};
    add_opening(&w);
    peer_open(&p, &worker, &listener);
    peer_send(&p, w.p, w.n);
    for (uint64_t i = 0; i < TRANSACTIONS; i++) {
        uint64_t its_seed = 0x9e3779b97f4a7c15u * (i + 1);
        w.n = p.answer.n = 0;
        seed = its_seed;
        bool whole = add_transaction(&w);
        peer_send(&p, w.p, w.n);
        assert_false(p.closed);
        alone(its_seed, &own);
        mask_ids(p.answer.p, p.answer.n);
        mask_ids(own.p, own.n);
        if (p.answer.n != own.n || (own.n && memcmp(p.answer.p, own.p, own.n) != 0))
            fail_msg("transaction %u is answered differently after others", (unsigned)i);
        assert_int_equal(whole, own.n > 0);
        size_t at = 0;
        struct span data = {NULL, 0};
        for (char c; (c = peer_frame(&p, &at, &data)) != 0;)
            answered[(uint8_t)c]++;
    }
    peer_close(&p);
    wire_free(&w);
    wire_free(&own);
    for (const char *c = "cdyh-m"; *c; c++) /* each kind of answer was among them, often */
        if (answered[(uint8_t)*c] < TRANSACTIONS / 100)
            fail_msg("only %u answers '%c'", answered[(uint8_t)*c], *c);
    assert_int_equal(worker.sessions, 0);
}

struct rows {
    uint64_t all, aborted;
};

static int count_row(void *arg, const struct journal_row *row)
{
    struct rows *n = arg;
    n->aborted += row->disposition == JOURNAL_ABORTED;
    n->all++;
    return 0;
}

/* Everything that came to its end was passed, held or refused, and has its row; what was given up
 * before has none. The door's count and that of the rows say the same. */
static void the_balance_holds(void **state)
{
    struct balance b;
    struct rows n = {0};
    (void)state;
    figures_balance(pipeline.figures, NULL, clock_now(), &b);
    assert_true(b.received > TRANSACTIONS);
    assert_int_equal(b.unaccounted, 0);
    assert_int_equal(b.after, 0);
    assert_int_equal(b.received, b.passed + b.held + b.throttled + b.rejected);
    assert_true(figures_total(pipeline.figures, FIGURE_GIVEN_UP) > TRANSACTIONS / 5);
    journal_flush(pipeline.journal, clock_now());
    assert_int_equal(journal_lost(pipeline.journal), 0);
    assert_int_equal(journal_each(dir, &(struct journal_filter){0}, count_row, &n), 0);
    assert_int_equal(n.all, b.received);
    assert_int_equal(n.aborted, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_session_equals_many),
        cmocka_unit_test(the_balance_holds),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
