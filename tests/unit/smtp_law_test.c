/*
 * smtp_law_test.c - the law of the house (DESIGN.md 2) at the SMTP door, with the real pipeline:
 * for random sequences of transactions, given up and refused ones between, the replies and what
 * reaches the MTA behind in one session equal those each in a session of its own. The store
 * remembers nothing; there is no keeper, so a hold is a hold without a queue.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>

#include <cmocka.h>

#include "smtp_peer.h"

enum { TRANSACTIONS = 1500 };

static const char rules[] =
    "rule sender { when envelope.from == \"held@sender.example\" do hold reason \"s\" }\n"
    "rule null { when envelope.from == \"\" and envelope.recipients > 2 do hold reason \"n\" }\n"
    "rule rcpt { when recipient.address == \"u3@a.example\" do hold reason \"r\" }\n"
    "rule refuse { when envelope.from == \"busy@sender.example\" and envelope.recipients == 1\n"
    "    do throttle reason \"{message.subject} 100% of {envelope.from}\" }\n"
    "rule reject { when message.subject == \"reject\" do reject reason \"{message.from}\" }\n"
    "rule visible { when message.visible > 4 do tag reason \"v\" }\n"
    "rule words { when message.words > 60 do hold reason \"w\" }\n"
    "rule size { when message.bytes > 3000 do tag reason \"b\" }\n";

static const char *const senders[] = {"", "held@sender.example", "busy@sender.example",
                                      "x@sender.example", "\"a b\"@sender.example"};
static const char *const subjects[] = {"hello", "reject", "=?utf-8?Q?caf=C3=A9?=", "a\r\n\tb", ""};

static char dir[] = "/tmp/smtp_law_test.XXXXXX"; /* of the journal */
static struct world world;
static struct client client;
static uint64_t seed;

static unsigned random_below(unsigned n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)((seed >> 20) % n);
}

static int64_t still(void)
{
    return 1795000000000; /* a Monday in November 2026 */
}

static int setup(void **state)
{
    struct policy_error error;
    char why[512];
    (void)state;
    clock_set(still);
    world_open(&world, "smtp in { socket = \"inet:1@127.0.0.1\" downstream = % received = never }\n"
                       "limits { messages = 1000000 junk = 10000 session = 1d }\n");
    policy_free(&world.config->policy);
    world.config->policy = policy_load(span_str(rules), NULL, &error);
    world.pipeline.store = store_none_open();
    world.pipeline.mode = MODE_ENFORCE;
    if (!mkdtemp(dir) || !(world.pipeline.journal = journal_open(dir, INT64_C(86400000), why)))
        return -1;
    return world.config->policy ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", dir);
    journal_close(&world.pipeline.journal);
    store_close(&world.pipeline.store);
    world_close(&world);
    clock_set(NULL);
    return system(command);
}

/* ---- one transaction, as a function of the seed ---- */

static char mail[16384];

static void add(size_t *n, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add(size_t *n, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    *n += (size_t)vsnprintf(mail + *n, sizeof mail - *n, fmt, ap);
    va_end(ap);
    assert_true(*n < sizeof mail);
}

static void make_mail(void)
{
    size_t n = 0;
    unsigned visible = random_below(7);
    for (unsigned i = 0; i < visible; i++)
        add(&n, "%sv%u@v.example", i ? ", " : "To: ", random_below(20));
    if (visible)
        add(&n, "\r\n");
    if (random_below(8))
        add(&n, "From: Sender %u <f%u@sender.example>\r\n", random_below(3), random_below(3));
    if (random_below(8))
        add(&n, "Subject: %s\r\n", subjects[random_below(5)]);
    if (random_below(8))
        add(&n, "Message-ID: <%X.%X@m.example>\r\n", random_below(1 << 20), random_below(4));
    if (random_below(8) == 0)
        add(&n, "X-Breakwater-Release: junk%u\r\n", random_below(2));
    if (random_below(16))
        add(&n, "\r\n");
    for (unsigned i = random_below(random_below(4) ? 30 : 300); i > 0; i--)
        add(&n, "%s%u%s", random_below(20) ? "word" : "..", random_below(2000),
            random_below(10)   ? " "
            : random_below(30) ? "\r\n"
                               : "\n");
    add(&n, "\r\n.\r\n");
}

static void transact(void)
{
    enum { MAIL, RCPT, DATA, END } last = random_below(4) ? END : random_below(END);
    char line[256];
    snprintf(line, sizeof line, "MAIL FROM:<%s>%s\r\n", senders[random_below(5)],
             random_below(2) ? " SIZE=5" : "");
    client_say(&client, line);
    for (unsigned i = random_below(6) + 1; last >= RCPT && i > 0; i--) {
        snprintf(line, sizeof line, "RCPT TO:<%s%u@%c.example>\r\n", random_below(5) ? "u" : "bad",
                 random_below(5), (char)('a' + random_below(3)));
        client_say(&client, line);
    }
    if (last >= DATA) {
        client_say(&client, "DATA\r\n");
        make_mail();
        if (client.nsaid > 4 && strstr(client.said, "\r\n354") && last == END) {
            client_say(&client, mail);
            return;
        }
        if (strstr(client.said, "\r\n354")) /* in mid data there is no way back but this */
            client_say(&client, "\r\n.\r\n");
    }
    client_say(&client, random_below(2) ? "RSET\r\n" : "EHLO c.example\r\n");
}

/* Ids are new for every transaction and are the only thing that may differ. */
static void mask_ids(char *p)
{
    static const char *const marks[] = {"held as ", "; id="};
    for (size_t i = 0; i < 2; i++)
        for (char *at = p; (at = strstr(at, marks[i]));)
            for (at += strlen(marks[i]); *at && *at != '\r' && *at != ';'; at++)
                *at = '#';
}

struct outcome {
    char said[1 << 16];
    char text[1 << 15];
};

static void play(uint64_t its_seed, struct outcome *out)
{
    seed = its_seed;
    client.nsaid = 0;
    client.said[0] = 0;
    world.mta.ntext = world.mta.nheard = 0;
    world.mta.text[0] = world.mta.heard[0] = 0;
    transact();
    assert_false(client.closed);
    mask_ids(client.said);
    mask_ids(world.mta.text);
    snprintf(out->said, sizeof out->said, "%s", client.said);
    snprintf(out->text, sizeof out->text, "%s", world.mta.text);
}

static void one_session_equals_many(void **state)
{
    (void)state;
    static struct outcome together[TRANSACTIONS / 10], alone;
    unsigned held = 0, passed = 0, refused = 0, tagged = 0;
    for (unsigned round = 0; round < 10; round++) {
        uint64_t first = 1 + round * (TRANSACTIONS / 10);
        client_open(&client, &world.worker, &world.mta, world_listener(&world, "in"), false, NULL);
        client_say(&client, "EHLO c.example\r\n");
        for (unsigned i = 0; i < TRANSACTIONS / 10; i++)
            play(0x9e3779b97f4a7c15u * (first + i), &together[i]);
        client_close(&client);
        for (unsigned i = 0; i < TRANSACTIONS / 10; i++) {
            client_open(&client, &world.worker, &world.mta, world_listener(&world, "in"), false,
                        NULL);
            client_say(&client, "EHLO c.example\r\n");
            play(0x9e3779b97f4a7c15u * (first + i), &alone);
            client_close(&client);
            if (strcmp(alone.said, together[i].said) != 0)
                fail_msg("transaction %u is answered differently after others:\n%s\n%s", i,
                         together[i].said, alone.said);
            if (strcmp(alone.text, together[i].text) != 0)
                fail_msg("transaction %u reaches the MTA differently after others", i);
            held += strstr(alone.said, "held as") != NULL;
            passed += strstr(alone.said, "queued behind") != NULL;
            refused += strstr(alone.said, "\r\n451 4.7.0") || strstr(alone.said, "\r\n550 5.4.6");
            tagged += strstr(alone.text, "X-Breakwater:") != NULL;
        }
    }
    if (held < 50 || passed < 50 || refused < 20 || tagged < 20)
        fail_msg("held %u, passed %u, refused %u, tagged %u", held, passed, refused, tagged);
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
    figures_balance(world.pipeline.figures, NULL, clock_now(), &b);
    assert_true(b.received > TRANSACTIONS);
    assert_int_equal(b.unaccounted, 0);
    assert_int_equal(b.after, 0);
    assert_int_equal(b.received,
                     b.passed + b.held + b.throttled + b.rejected + b.refused + b.aborted);
    assert_true(figures_total(world.pipeline.figures, FIGURE_GIVEN_UP) > TRANSACTIONS / 10);
    journal_flush(world.pipeline.journal, clock_now());
    assert_int_equal(journal_lost(world.pipeline.journal), 0);
    assert_int_equal(journal_each(dir, &(struct journal_filter){0}, count_row, &n), 0);
    assert_int_equal(n.all, b.received);
    assert_int_equal(n.aborted, b.aborted);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_session_equals_many),
        cmocka_unit_test(the_balance_holds),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
