/*
 * smtp_time_test.c - every wait of the SMTP door ends: how long it waits for whom, to the
 * millisecond, and what it says then. No time passes really.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "smtp_stage.h"

enum { SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE };

static int setup(void **state)
{
    (void)state;
    world_open(
        &world,
        "smtp in { socket = \"inet:1@127.0.0.1\" downstream = % }\n"
        "smtp proxied { socket = \"inet:2@127.0.0.1\" downstream = % proxy_protocol = yes }\n"
        "limits { message_size = 64KB }\n");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_close(&world);
    return 0;
}

#define E "EHLO c.example\r\n"
#define M E "MAIL FROM:<a@b.example>\r\n"
#define R M "RCPT TO:<c@d.example>\r\n"
#define D R "RCPT TO:<e@f.example>\r\nDATA\r\n"
#define DATA_CODES "220 250 250 250 250 354"

/* ---- the client ---- */

/* What was said, for how long nothing follows, and the codes then. */
static const struct {
    const char *name, *listener, *say;
    int64_t ms;
    const char *codes;
} silences[] = {
    {"A139 before the PROXY header", "proxied", "", 5 * SECOND, " x"},
    {"A139 in mid header", "proxied", "PROXY TCP4 1.2.3.4", 5 * SECOND, " x"},
    {"after the greeting", "in", "", 5 * MINUTE, "220 421 x"},
    {"after EHLO", "in", E, 5 * MINUTE, "220 250 421 x"},
    {"in mid line", "in", E "NOO", 5 * MINUTE, "220 250 421 x"},
    {"in mid transaction", "in", R, 5 * MINUTE, "220 250 250 250 421 x"},
    {"after 354", "in", D, MINUTE, DATA_CODES " 421 x"},
};

static void who_says_nothing_is_sent_away(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof silences / sizeof *silences; i++) {
        fresh(NULL);
        open_client(silences[i].listener);
        client_say(&client, silences[i].say);
        pass(silences[i].ms - 10);
        if (client.closed)
            fail_msg("%s: too soon", silences[i].name);
        pass(20);
        if (strcmp(client_codes(&client), silences[i].codes) != 0)
            fail_msg("%s: %s", silences[i].name, client_codes(&client));
        client_close(&client);
    }
}

static void a_session_does_not_last_for_ever(void **state)
{
    (void)state;
    open_client("in");
    client_say(&client, E);
    for (int i = 0; i < 14; i++) {
        pass(4 * MINUTE);
        client_say(&client, "NOOP\r\n");
    }
    assert_false(client.closed);
    pass(5 * MINUTE + SECOND); /* since its last command, at the latest */
    assert_non_null(strstr(client.said, "421 4.4.2"));
    assert_true(client.closed);
    client_close(&client);
}

static void after_its_time_a_message_is_finished_and_none_begun(void **state)
{
    (void)state;
    open_client("in");
    client_say(&client, E);
    for (int i = 0; i < 14; i++) {
        pass(4 * MINUTE);
        client_say(&client, "NOOP\r\n");
    }
    client_say(&client, "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
    pass(4 * MINUTE + SECOND);
    client.nsaid = 0;
    client_say(&client, "DATA\r\n");
    client_say(&client, "x\r\n.\r\n");
    client_say(&client, "MAIL FROM:<a@b>\r\n"); /* a slow machine has said 421 before it */
    codes_are("354 250 421 x");
    client_close(&client);
}

static void say_many(size_t n)
{
    static char line[1002];
    memset(line, 'x', sizeof line);
    memcpy(line + 998, "\r\n", 2);
    for (; n > 0; n -= n < 1000 ? n : 1000)
        client_send(&client, line + 1000 - (n < 1000 ? n : 1000), n < 1000 ? n : 1000);
}

/* 500 bytes a second are 30,000 a minute. */
static void a099_data_has_to_come_at_a_rate(void **state)
{
    (void)state;
    static const struct {
        size_t first, second;
        const char *codes;
    } rates[] = {{60, 0, DATA_CODES " 421 x"},
                 {29999, 0, DATA_CODES " 421 x"},
                 {30000, 60, DATA_CODES " 421 x"},
                 {30000, 29999, DATA_CODES " 421 x"},
                 {30000, 30000, DATA_CODES}};
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
        fresh(NULL);
        open_client("in");
        client_say(&client, D);
        say_many(rates[i].first);
        pass(MINUTE + 10);
        if (rates[i].second)
            assert_false(client.closed);
        say_many(rates[i].second);
        pass(MINUTE + 10);
        codes_are(rates[i].codes);
        client_close(&client);
    }
}

/* ---- too much of it ---- */

static void what_is_too_large_is_not_listened_to_for_ever(void **state)
{
    (void)state;
    open_client("in");
    client_say(&client, D);
    say_many(2 * (64 << 10));
    codes_are(DATA_CODES);
    say_many(2000);
    codes_are(DATA_CODES " 552 x");
    client_close(&client);
    assert_int_equal(judgements, 0);
}

static void nor_longer_than_a_session(void **state)
{
    (void)state;
    int64_t session = world.config->smtp_session;
    world.config->smtp_session = 3 * MINUTE;
    open_client("in");
    client_say(&client, D);
    say_many(66000);
    pass(MINUTE + 10);
    say_many(30000);
    pass(MINUTE + 10);
    codes_are(DATA_CODES);
    say_many(30000);
    pass(MINUTE + 10);
    codes_are(DATA_CODES " 552 x");
    client_close(&client);
    world.config->smtp_session = session;
}

/* A message that is not too large may come slowly, if it does come. */
static void what_is_not_too_large_may_outlast_its_session(void **state)
{
    (void)state;
    int64_t session = world.config->smtp_session;
    world.config->smtp_session = MINUTE;
    open_client("in");
    client_say(&client, D);
    say_many(30000);
    pass(MINUTE + 10);
    say_many(30000);
    pass(MINUTE + 10);
    client_say(&client, "\r\n.\r\n");
    assert_non_null(strstr(client.said, "queued behind"));
    client_close(&client);
    world.config->smtp_session = session;
}

/* ---- the MTA behind ---- */

/* Where it falls silent, for how long, what the client hears then, and how many connections the MTA
 * behind got in all. */
static const struct {
    const char *at, *say;
    int64_t ms;
    const char *codes;
    unsigned connections;
    int refusals;
} waits[] = {
    {"banner", E, 30 * SECOND, "220 421 x", 1, 0},
    {"EHLO", E, 5 * MINUTE, "220 421 x", 1, 0},
    {"RCPT", R, 5 * MINUTE, "220 250 250 451", 1, 0},
    {"NOOP", E "NOOP\r\n", 5 * MINUTE, "220 250 451", 1, 0},
    {"dot", D "x\r\n.\r\n", 10 * MINUTE, DATA_CODES " 451", 1, 1},
};

static void a_server_behind_that_falls_silent_costs_its_deadline(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof waits / sizeof *waits; i++) {
        const char *say = waits[i].say, *text = strstr(say, "DATA\r\n");
        fresh(NULL);
        world.mta.play[0] = (struct line_of_play){waits[i].at, 0, "", 0};
        open_client("in");
        client_send(&client, say, text ? (size_t)(text - say) + 6 : strlen(say));
        if (text)
            client_say(&client, text + 6);
        char before[256];
        snprintf(before, sizeof before, "%s", client_codes(&client));
        pass(waits[i].ms - 10);
        if (strcmp(client_codes(&client), before) != 0)
            fail_msg("%s: too soon: %s", waits[i].at, client_codes(&client));
        pass(20);
        if (strcmp(client_codes(&client), waits[i].codes) != 0)
            fail_msg("%s: %s", waits[i].at, client_codes(&client));
        assert_int_equal(world.mta.connections, waits[i].connections);
        assert_int_equal(refusals, waits[i].refusals);
        client_close(&client);
    }
}

/* What can be said again is, to a new session; that has its own time. */
static void before_the_text_silence_is_a_reason_to_try_again_once(void **state)
{
    (void)state;
    static const char *const at[] = {"MAIL", "DATA"};
    for (size_t i = 0; i < 2; i++) {
        fresh(NULL);
        world.mta.play[0] = (struct line_of_play){at[i], 0, "", 0};
        open_client("in");
        client_say(&client, i ? D : M);
        if (i)
            client_say(&client, "x\r\n.\r\n");
        pass(5 * MINUTE + 10);
        assert_null(strstr(client.said, "\r\n451"));
        assert_int_equal(world.mta.connections, 2);
        pass(5 * MINUTE + 10);
        assert_non_null(strstr(client.said, "\r\n451 4.4.2"));
        assert_int_equal(world.mta.connections, 2);
        client_close(&client);
    }
}

/* A server that does not read a message: no piece of it goes for three minutes. */
static void a_server_behind_that_does_not_read(void **state)
{
    (void)state;
    uint64_t size = world.config->smtp_message_size;
    world.config->smtp_message_size = 50 << 20;
    world.mta.offers = "PIPELINING\n";
    world.mta.deaf = true;
    open_client("in");
    client_say(&client, D);
    say_many(16 << 20);
    client_say(&client, "\r\n.\r\n");
    codes_are(DATA_CODES);
    pass(3 * MINUTE - 100);
    codes_are(DATA_CODES);
    pass(200);
    codes_are(DATA_CODES " 451");
    assert_int_equal(refusals, 1);
    client_close(&client);
    world.config->smtp_message_size = size;
}

/* ---- our last words ---- */

static void who_does_not_hear_them_is_left_after_ten_seconds(void **state)
{
    (void)state;
    open_client("in");
    client_say(&client, E "BDAT 100000 LAST\r\n");
    client_say(&client, "more, that nobody reads");
    pass(10 * SECOND + 10);
    assert_int_equal(world.worker.sessions, 0);
    codes_are("220 250 502 x");
    client_close(&client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DOOR(who_says_nothing_is_sent_away),
        DOOR(a_session_does_not_last_for_ever),
        DOOR(after_its_time_a_message_is_finished_and_none_begun),
        DOOR(a099_data_has_to_come_at_a_rate),
        DOOR(what_is_too_large_is_not_listened_to_for_ever),
        DOOR(nor_longer_than_a_session),
        DOOR(what_is_not_too_large_may_outlast_its_session),
        DOOR(a_server_behind_that_falls_silent_costs_its_deadline),
        DOOR(before_the_text_silence_is_a_reason_to_try_again_once),
        DOOR(a_server_behind_that_does_not_read),
        DOOR(who_does_not_hear_them_is_left_after_ten_seconds),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
