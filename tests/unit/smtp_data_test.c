/*
 * smtp_data_test.c - a message through the SMTP door: what ends it, what reaches the MTA behind,
 * and which reply stands for what. The tx takes notes and says what the test wants.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "smtp_stage.h"

static int setup(void **state)
{
    (void)state;
    world_open(&world, "smtp in { socket = \"inet:1@127.0.0.1\" downstream = % }\n"
                       "smtp foul { socket = \"inet:2@127.0.0.1\" downstream = % bare = refuse }\n"
                       "limits { message_size = 64KB }\n");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_close(&world);
    return 0;
}

#define OPEN                                                                                       \
    "EHLO c.example\r\nMAIL FROM:<a@b.example> SIZE=10\r\nRCPT TO:<c@d.example>\r\n"               \
    "RCPT TO:<e@f.example>\r\nDATA\r\n"
#define OPENED "220 250 250 250 250 354"

static void begin(const char *listener)
{
    client_open(&client, &world.worker, &world.mta, world_listener(&world, listener), false, NULL);
    client_say(&client, OPEN);
}

/* ---- what ends a message (A070 to A097) ---- */

#define EVIL "MAIL FROM:<evil@x>\r\nRCPT TO:<v@w>\r\nDATA\r\nevil\r\n"
#define EVIL_TEXT "MAIL FROM:<evil@x>\r\nRCPT TO:<v@w>\r\nDATA\r\nevil\r\n"

/* The sequence between two messages, and what the MTA behind gets instead of it. */
static const struct {
    const char *name, *sequence;
    size_t n;
    const char *means;
    size_t nmeans;
} sequences[] = {
    {"A070 LF . LF", SAY("\n.\n"), SAY("\r\n..\r\n")},
    {"A071 LF . CRLF", SAY("\n.\r\n"), SAY("\r\n..\r\n")},
    {"A072 CRLF . LF", SAY("\r\n.\n"), SAY("\r\n\r\n")},
    {"A073 CRLF . CR CRLF", SAY("\r\n.\r\r\n"), SAY("\r\n \r\n")},
    {"A074 CR CRLF . CR CRLF", SAY("\r\r\n.\r\r\n"), SAY(" \r\n \r\n")},
    {"A075 CRLF . CR", SAY("\r\n.\r"), SAY("\r\n ")},
    {"A076 CRLF NUL . CRLF", SAY("\r\n\0.\r\n"), SAY("\r\n\0.\r\n")},
    {"A077 CRLF . NUL CRLF", SAY("\r\n.\0\r\n"), SAY("\r\n\0\r\n")},
    {"A078 CRLF . TAB CRLF", SAY("\r\n.\t\r\n"), SAY("\r\n\t\r\n")},
    {"A079 CRLF . blank CRLF", SAY("\r\n. \r\n"), SAY("\r\n \r\n")},
    {"A080 LF . CR", SAY("\n.\r"), SAY("\r\n.. ")},
    {"A081 CR . LF", SAY("\r.\n"), SAY(" .\r\n")},
    {"A082 CR . CR", SAY("\r.\r"), SAY(" . ")},
    {"A083 CR . CRLF", SAY("\r.\r\n"), SAY(" .\r\n")},
    {"A084 VT LF . VT LF", SAY("\x0b\n.\x0b\n"), SAY("\x0b\r\n..\x0b\r\n")},
    {"A085 U+0085", SAY("\xc2\x85.\xc2\x85"), SAY("\xc2\x85.\xc2\x85")},
    {"A087 a doubled dot", SAY("\r\n..\r\n"), SAY("\r\n..\r\n")},
};

static void one_message(size_t i, size_t cut)
{
    char sent[512], means[512];
    size_t n = 0, m = 0;
    fresh(NULL);
    begin("in");
    memcpy(sent, "first", 5), n = 5;
    memcpy(sent + n, sequences[i].sequence, sequences[i].n), n += sequences[i].n;
    n += (size_t)snprintf(sent + n, sizeof sent - n, EVIL ".\r\n");
    memcpy(means, "first", 5), m = 5;
    memcpy(means + m, sequences[i].means, sequences[i].nmeans), m += sequences[i].nmeans;
    m += (size_t)snprintf(means + m, sizeof means - m, EVIL_TEXT ".\r\n");
    client_send(&client, sent, cut);
    client_send(&client, sent + cut, n - cut);
    if (strcmp(client_codes(&client), OPENED " 250") != 0 || world.mta.messages != 1 ||
        judgements != 1)
        fail_msg("%s, cut at %zu: %s, %u messages", sequences[i].name, cut, client_codes(&client),
                 world.mta.messages);
    if (world.mta.ntext != m || memcmp(world.mta.text, means, m) != 0)
        fail_msg("%s, cut at %zu: behind got %.*s", sequences[i].name, cut, (int)world.mta.ntext,
                 world.mta.text);
    client_close(&client);
}

static void nothing_but_crlf_dot_crlf_ends_a_message(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof sequences / sizeof *sequences; i++)
        for (size_t cut = 0; cut < sequences[i].n + 7; cut++)
            one_message(i, cut);
}

static void a086_crlf_dot_crlf_does(void **state)
{
    (void)state;
    begin("in");
    client_say(&client, "first\r\n.\r\nMAIL FROM:<a@b>\r\nRCPT TO:<v@w>\r\nDATA\r\n");
    client_say(&client, "second\r\n.\r\n");
    codes_are(OPENED " 250 250 250 354 250");
    assert_int_equal(world.mta.messages, 2);
    client_close(&client);
}

static void bodies_arrive_as_they_were_sent(void **state)
{
    (void)state;
    static const struct {
        const char *sent, *means;
    } bodies[] = {
        {".\r\n", ".\r\n"},
        {"\r\n.\r\n", "\r\n.\r\n"},
        {"a: b\r\n.\r\n", "a: b\r\n.\r\n"},
        {"a: b\r\n\r\n.\r\n", "a: b\r\n\r\n.\r\n"},
        {"a: b\r\n\r\nx\r\n..\r\n...\r\n.\r\n", "a: b\r\n\r\nx\r\n..\r\n...\r\n.\r\n"},
        {".a\r\n.\r\n", "a\r\n.\r\n"},
        {"\x1a\x04\x1b[2J\r\n.\r\n", "\x1a\x04\x1b[2J\r\n.\r\n"},
        {"S: \xe2\x80\xae\r\n\r\n.\r\n", "S: \xe2\x80\xae\r\n\r\n.\r\n"},
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++)
        for (size_t piece = 1; piece < 64; piece += 31) {
            fresh(NULL);
            begin("in");
            for (size_t at = 0; at < strlen(bodies[i].sent); at += piece)
                client_send(&client, bodies[i].sent + at,
                            strlen(bodies[i].sent + at) < piece ? strlen(bodies[i].sent + at)
                                                                : piece);
            codes_are(OPENED " 250");
            assert_string_equal(world.mta.text, bodies[i].means);
            client_close(&client);
        }
}

static void say_many(char c, const char *also, size_t n)
{
    size_t each = 1 + strlen(also);
    char *all = malloc(n * each);
    assert_non_null(all);
    for (size_t i = 0; i < n; i++) {
        all[i * each] = c;
        memcpy(all + i * each + 1, also, each - 1);
    }
    client_send(&client, all, n * each);
    free(all);
}

static void a091_long_lines_are_not_touched(void **state)
{
    (void)state;
    static const size_t sizes[] = {998, 999, 1000, 1001, 2048, 60000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        fresh(NULL);
        begin("in");
        say_many('x', "", sizes[i]);
        client_say(&client, "\r\n.\r\n");
        codes_are(OPENED " 250");
        assert_int_equal(world.mta.ntext, sizes[i] + 5);
        client_close(&client);
    }
}

/* At full size: a line of a million bytes, a million of bare CR or LF, a hundred thousand dots.
 * What arrives is compared byte by byte. */
static void a091_to_a094_at_full_size(void **state)
{
    (void)state;
    enum { MOST = 3200000 };
    static const struct {
        const char *name, *piece, *means; /* of the text that is sent, and of what arrives */
        size_t times;
    } sizes[] = {
        {"A091 a line of 65,536 bytes", "x", "x", 65536},
        {"A091 a line of a million bytes", "x", "x", 1000000},
        {"A092 a million CR", "\r", " ", 1000000},
        {"A093 a million LF", "\n", "\r\n", 1000000},
        {"A094 a hundred thousand lines of two dots", "\r\n..", "\r\n..", 100000},
    };
    char *sent = malloc(MOST), *means = malloc(MOST);
    uint64_t size = world.config->smtp_message_size;
    world.config->smtp_message_size = 50 << 20;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t n = 0, m = 0, p = strlen(sizes[i].piece), q = strlen(sizes[i].means);
        fresh(NULL);
        world.mta.offers = "PIPELINING\n8BITMIME\nSIZE\n";
        begin("in");
        for (size_t k = 0; k < sizes[i].times; k++, n += p, m += q) {
            memcpy(sent + n, sizes[i].piece, p);
            memcpy(means + m, sizes[i].means, q);
        }
        /* a CR before it would be its line end's, a dot alone on a line the end */
        n += (size_t)snprintf(sent + n, MOST - n, "y\r\n.\r\n");
        m += (size_t)snprintf(means + m, MOST - m, "y\r\n.\r\n");
        client_send(&client, sent, n);
        if (strcmp(client_codes(&client), OPENED " 250") != 0 || world.mta.messages != 1)
            fail_msg("%s: %s", sizes[i].name, client_codes(&client));
        if (world.mta.ntext != m || memcmp(world.mta.text, means, m) != 0)
            fail_msg("%s: %zu bytes arrived, not these %zu", sizes[i].name, world.mta.ntext, m);
        client_close(&client);
    }
    world.config->smtp_message_size = size;
    free(sent);
    free(means);
}

/* The first of them ends the message; the rest are no commands. */
static void a094_a_hundred_thousand_dots(void **state)
{
    (void)state;
    begin("in");
    say_many('\r', "\n.", 100000);
    assert_non_null(strstr(client.said, "queued behind\r\n502 5.5.1"));
    assert_non_null(strstr(client.said, "\r\n421 4.7.0 too many errors"));
    assert_true(client.closed);
    assert_int_equal(world.mta.messages, 1);
    assert_string_equal(world.mta.text, "\r\n.\r\n");
    client_close(&client);
}

static void a098_exactly_the_size_and_one_more(void **state)
{
    (void)state;
    for (size_t more = 0; more < 2; more++) {
        fresh(NULL);
        begin("in");
        say_many('x', "", 65534 + more);
        client_say(&client, "\r\n.\r\nNOOP\r\n");
        codes_are(more ? OPENED " 552 250" : OPENED " 250 250");
        assert_int_equal(judgements, !more);
        client_close(&client);
    }
}

static void a092_odd_line_ends_by_the_thousand(void **state)
{
    (void)state;
    static const struct {
        char c;
        const char *also;
        size_t bytes;
    } kinds[] = {{'\r', "", 1}, {'\n', "", 2}, {'\r', "\n..", 4}, {'\n', ".", 4}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        fresh(NULL);
        begin("in");
        say_many(kinds[i].c, kinds[i].also, 10000);
        client_say(&client, "x\r\n.\r\n");
        codes_are(OPENED " 250");
        assert_int_equal(world.mta.messages, 1);
        client_close(&client);
    }
}

static void where_bare_line_ends_are_refused(void **state)
{
    (void)state;
    begin("foul");
    client_say(&client, "a\nb\r\n.\r\nNOOP\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
    client_say(&client, "a\r\n.\r\n");
    codes_are(OPENED " 550 250 250 250 354 250");
    assert_int_equal(world.mta.messages, 1);
    client_close(&client);
}

/* ---- verdicts ---- */

#define TEXT "Subject: x\r\n\r\nx\r\n.\r\n"

static void what_passes_gets_downstreams_reply(void **state)
{
    (void)state;
    begin("in");
    client_say(&client, TEXT);
    assert_non_null(strstr(client.said, "250 2.0.0 queued behind\r\n"));
    assert_non_null(strstr(story, "to(<c@d.example>|) to(<e@f.example>|) judge() commit end\n"));
    client_close(&client);
}

static void what_is_held_for_all_goes_nowhere(void **state)
{
    (void)state;
    verdict.held = "c@d.example e@f.example";
    begin("in");
    client_say(&client, TEXT "NOOP\r\n");
    codes_are(OPENED " 250 250");
    assert_non_null(strstr(client.said, "250 2.0.0 held as "));
    assert_null(strstr(world.mta.heard, "DATA"));
    assert_non_null(strstr(world.mta.heard, "RCPT TO:<e@f.example>|RSET|NOOP|"));
    assert_int_equal(commits, 1);
    client_close(&client);
}

static void what_is_held_for_some_goes_to_the_rest(void **state)
{
    (void)state;
    verdict.held = "c@d.example";
    begin("in");
    client_say(&client, TEXT);
    codes_are(OPENED " 250");
    assert_non_null(strstr(
        world.mta.heard, "|RSET|MAIL FROM:<a@b.example> SIZE=10|RCPT TO:<e@f.example>|DATA|dot|"));
    assert_non_null(strstr(client.said, "queued behind"));
    assert_int_equal(commits, 1);
    client_close(&client);
}

static void what_downstream_refuses_is_taken_back(void **state)
{
    (void)state;
    static const struct {
        const char *at;
        unsigned nth;
        const char *say, *code;
    } kinds[] = {
        {"dot", 1, "554 5.7.1 spam\r\n", "554"},
        {"dot", 1, "451 4.3.0 full\r\n", "451"},
        {"DATA", 1, "451 4.5.0 not now\r\n", "451"},
        {"DATA", 1, "250 what\r\n", "451"},
        {"MAIL", 2, "452 4.3.1 full\r\n", "452"},
        {"RCPT", 3, "450-4.2\r\n450 4.2.0 y\r\n", "450"},
        {"dot", 1, "421 4.4.2 bye\r\n", "451"},
        {"dot", 1, NULL, "451"},
        {"text", 1, "552 5.3.4 large\r\n", "552"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char expected[64];
        fresh(NULL);
        verdict.held = "c@d.example";
        world.mta.play[0] = (struct line_of_play){kinds[i].at, kinds[i].nth, kinds[i].say, 0};
        begin("in");
        say_many('x', "yyyyyyyy\r\n", 20);
        client_say(&client, ".\r\n");
        snprintf(expected, sizeof expected, OPENED " %s", kinds[i].code);
        codes_are(expected);
        assert_int_equal(commits, 0);
        assert_int_equal(refusals, 1);
        /* and the session goes on */
        client_say(&client, "MAIL FROM:<a@b>\r\nRCPT TO:<g@h>\r\nDATA\r\n");
        client_say(&client, "x\r\n.\r\n");
        strcat(expected, " 250 250 354 250");
        codes_are(expected);
        client_close(&client);
    }
}

/* The envelope is said again for three of four recipients, whom the server behind had accepted. */
static void who_is_refused_when_said_again_takes_nobody_with_him(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        struct line_of_play play[3];
        const char *code, *text;
    } kinds[] = {
        {"nobody", {{"never", 1, "", 0}}, "250", "queued behind"},
        {"one, for ever", {{"RCPT", 6, "550 5.1.1 gone\r\n", 0}}, "451", ": 550 5.1.1 gone\r\n"},
        {"the last", {{"RCPT", 7, "550-a\r\n550 b\r\n", 0}}, "451", ": 550 b\r\n"},
        {"one, for now", {{"RCPT", 6, "452 4.5.3 many\r\n", 0}}, "452", "\r\n452 4.5.3 many\r\n"},
        {"two",
         {{"RCPT", 5, "550 5.1.1 gone\r\n", 0}, {"RCPT", 6, "452 4.5.3 many\r\n", 0}},
         "451",
         ": 550 5.1.1 gone\r\n"},
        {"all",
         {{"RCPT TO:<e", 2, "550 5.1.1 e\r\n", 0},
          {"RCPT TO:<g", 2, "550 5.1.1 g\r\n", 0},
          {"RCPT TO:<i", 2, "550 5.1.1 i\r\n", 0}},
         "550",
         "\r\n550 5.1.1 e\r\n"},
        {"the sender", {{"MAIL", 2, "550 5.1.8 who\r\n", 0}}, "550", "\r\n550 5.1.8 who\r\n"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        bool good = kinds[i].code[0] == '2';
        char expected[64];
        fresh(NULL);
        verdict.held = "c@d.example";
        memcpy(world.mta.play, kinds[i].play, sizeof kinds[i].play);
        open_client("in");
        client_say(&client, "EHLO c.example\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d.example>\r\n"
                            "RCPT TO:<e@d>\r\nRCPT TO:<g@d>\r\nRCPT TO:<i@d>\r\nDATA\r\n");
        client_say(&client, TEXT "NOOP\r\n");
        snprintf(expected, sizeof expected, "220 250 250 250 250 250 250 354 %s 250",
                 kinds[i].code);
        if (strcmp(client_codes(&client), expected) != 0 || !strstr(client.said, kinds[i].text))
            fail_msg("%s: %s", kinds[i].name, client.said);
        assert_int_equal(world.mta.messages, good);
        assert_int_equal(commits, good);
        assert_int_equal(refusals, !good);
        snprintf(expected, sizeof expected, "refused(%s)", kinds[i].code);
        if (!good && !strstr(story, expected))
            fail_msg("%s: %s", kinds[i].name, story);
        client_close(&client);
    }
}

static void what_is_lost_before_the_text_is_said_again(void **state)
{
    (void)state;
    static const struct line_of_play kinds[] = {{"DATA", 1, NULL, 0},
                                                {"DATA", 1, "421 4.4.2 bye\r\n", 0},
                                                {"MAIL", 2, NULL, 0},
                                                {"RSET", 1, NULL, 0},
                                                {"RCPT", 3, NULL, 0}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        fresh(NULL);
        verdict.held = "c@d.example";
        world.mta.play[0] = kinds[i];
        begin("in");
        client_say(&client, TEXT);
        codes_are(OPENED " 250");
        if (!strstr(world.mta.heard, "EHLO c.example|MAIL FROM:<a@b.example> SIZE=10|"
                                     "RCPT TO:<e@f.example>|DATA|dot|"))
            fail_msg("%s: behind heard %s", kinds[i].at, world.mta.heard);
        assert_int_equal(world.mta.messages, 1);
        assert_int_equal(commits, 1);
        client_close(&client);
    }
}

static void what_is_lost_twice_is_not(void **state)
{
    (void)state;
    world.mta.play[0] = (struct line_of_play){"DATA", 0, NULL, 0};
    begin("in");
    client_say(&client, TEXT);
    codes_are(OPENED " 451");
    assert_int_equal(world.mta.connections, 2);
    assert_int_equal(refusals, 1);
    client_close(&client);
}

static void a_rule_that_refuses(void **state)
{
    (void)state;
    verdict.reply = "451 4.7.0 a storm";
    begin("in");
    client_say(&client, TEXT "NOOP\r\n");
    codes_are(OPENED " 451 250");
    assert_int_equal(commits, 0);
    assert_null(strstr(world.mta.heard, "DATA"));
    client_close(&client);
}

static void no_room_for_the_message(void **state)
{
    (void)state;
    verdict.no_room = true;
    begin("in");
    client_say(&client, TEXT);
    codes_are(OPENED " 452");
    assert_int_equal(refusals, 1);
    client_close(&client);
}

static void a_tag_and_a_stamp_are_put_in_front(void **state)
{
    (void)state;
    verdict.tag = "rule=x";
    verdict.stamp = "v=1; k=0";
    begin("in");
    client_say(&client, TEXT);
    codes_are(OPENED " 250");
    assert_memory_equal(world.mta.text, "Received: from c.example (", 26);
    assert_non_null(strstr(world.mta.text, "\r\nX-Breakwater: rule=x\r\n"
                                           "X-Breakwater-Trace: v=1; k=0\r\nSubject: x\r\n"));
    client_close(&client);
}

/* ---- waiting, and clients that leave ---- */

static void while_it_is_judged_nothing_is_obeyed(void **state)
{
    (void)state;
    verdict.wait = true;
    begin("in");
    client_say(&client, TEXT "MAIL FROM:<x@y>\r\nRCPT TO:<z@z>\r\n");
    codes_are(OPENED);
    waiting->done(waiting->arg, waiting);
    client_turn(&client);
    codes_are(OPENED " 250 250 250");
    client_close(&client);
}

static void downstream_lost_while_it_is_judged(void **state)
{
    (void)state;
    verdict.wait = true;
    begin("in");
    client_say(&client, TEXT);
    mta_end(world.mta.sessions);
    client_turn(&client);
    waiting->done(waiting->arg, waiting);
    client_turn(&client);
    codes_are(OPENED " 250");
    assert_int_equal(world.mta.messages, 1);
    client_close(&client);
}

static void who_leaves_in_mid_message_has_sent_none(void **state)
{
    (void)state;
    const char all[] = OPEN TEXT;
    for (size_t cut = 0; cut + 1 < sizeof all - 1; cut++) {
        fresh(NULL);
        client_open(&client, &world.worker, &world.mta, world_listener(&world, "in"), false, NULL);
        for (size_t i = 0; i < cut; i++)
            client_send(&client, all + i, 1);
        client_close(&client);
        if (world.mta.messages || living || world.worker.sessions)
            fail_msg("cut at %zu: something is left", cut);
    }
}

static void who_leaves_after_the_dot_has_sent_one(void **state)
{
    (void)state;
    verdict.wait = true;
    begin("in");
    client_say(&client, TEXT);
    client_close(&client);
    assert_int_equal(living, 1);
    waiting->done(waiting->arg, waiting);
    client_turn(&client);
    assert_int_equal(world.mta.messages, 1);
    assert_int_equal(commits, 1);
}

/* The client's host is gone without a word, before the reply: it is not written to any more, and
 * the message goes its way. */
static void a054_a_reset_after_the_dot(void **state)
{
    (void)state;
    for (int held = 0; held < 2; held++) {
        fresh(NULL);
        verdict.wait = true;
        verdict.held = held ? "c@d.example e@f.example" : NULL;
        client_open(&client, &world.worker, &world.mta, world_listener(&world, "in"), true, NULL);
        client_say(&client, OPEN);
        client_say(&client, TEXT);
        setsockopt(client.fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
        client_close(&client);
        assert_int_equal(living, 1);
        assert_int_equal(world.worker.sessions, 1);
        waiting->done(waiting->arg, waiting);
        client_turn(&client);
        assert_int_equal(world.mta.messages, !held);
        assert_int_equal(commits, 1);
        assert_int_equal(refusals, 0);
    }
}

/* The time of a stop is over while downstream has the message and some copies are held already. */
static void at_the_end_of_a_stop_what_is_not_through_is_taken_back(void **state)
{
    (void)state;
    static const struct line_of_play kinds[] = {
        {"dot", 1, "", 0}, {"DATA", 1, "", 0}, {"MAIL", 2, "", 0}, {"RCPT", 3, "", 0}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        fresh(NULL);
        verdict.held = "c@d.example";
        world.mta.play[0] = kinds[i];
        begin("in");
        client_say(&client, TEXT);
        codes_are(OPENED);
        world.worker.connections->leave(world.worker.connections, true);
        client_turn(&client);
        codes_are(OPENED " x");
        assert_int_equal(commits, 0);
        assert_int_equal(refusals, 1);
        assert_non_null(strstr(story, "judge() refused(0) end\n"));
        client_close(&client);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DOOR(nothing_but_crlf_dot_crlf_ends_a_message),
        DOOR(a086_crlf_dot_crlf_does),
        DOOR(bodies_arrive_as_they_were_sent),
        DOOR(a091_long_lines_are_not_touched),
        DOOR(a091_to_a094_at_full_size),
        DOOR(a094_a_hundred_thousand_dots),
        DOOR(a098_exactly_the_size_and_one_more),
        DOOR(a092_odd_line_ends_by_the_thousand),
        DOOR(where_bare_line_ends_are_refused),
        DOOR(what_passes_gets_downstreams_reply),
        DOOR(what_is_held_for_all_goes_nowhere),
        DOOR(what_is_held_for_some_goes_to_the_rest),
        DOOR(what_downstream_refuses_is_taken_back),
        DOOR(who_is_refused_when_said_again_takes_nobody_with_him),
        DOOR(what_is_lost_before_the_text_is_said_again),
        DOOR(what_is_lost_twice_is_not),
        DOOR(a_rule_that_refuses),
        DOOR(no_room_for_the_message),
        DOOR(a_tag_and_a_stamp_are_put_in_front),
        DOOR(while_it_is_judged_nothing_is_obeyed),
        DOOR(downstream_lost_while_it_is_judged),
        DOOR(who_leaves_in_mid_message_has_sent_none),
        DOOR(who_leaves_after_the_dot_has_sent_one),
        DOOR(a054_a_reset_after_the_dot),
        DOOR(at_the_end_of_a_stop_what_is_not_through_is_taken_back),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
