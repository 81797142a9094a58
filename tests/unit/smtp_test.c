/*
 * smtp_test.c - the SMTP door's commands: a scripted client, a scripted MTA behind, and a tx that
 * takes notes. Every case is played whole and byte by byte.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "smtp_stage.h"

static int setup(void **state)
{
    (void)state;
    world_open(
        &world,
        "smtp in { socket = \"inet:1@127.0.0.1\" downstream = % }\n"
        "smtp up { socket = \"inet:2@127.0.0.1\" downstream = % upstreams = { 127.0.0.0/8 } }\n");
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
#define AAAA                                                                                       \
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" \
    "aaaaaaaa"

enum how { BOTH, AT_ONCE, SPLIT, TRUSTED };

/* What is sent (at once, byte by byte, or both; or both by a trusted client), the codes that come
 * back ("x": it closes), and how the last line begins that the MTA behind heard ("": it was not
 * asked at all; NULL: whatever). */
struct play {
    const char *name;
    enum how how;
    const char *say;
    size_t n;
    const char *codes, *heard;
};

static const struct play plays[] = {
    {"A001 a NUL before the verb", BOTH, SAY("\0EHLO a\r\n"), "220 500", ""},
    {"A002 a NUL in the name", BOTH, SAY("EHLO a\0b\r\n"), "220 501", ""},
    {"A003 no name", BOTH, SAY("EHLO \r\n"), "220 501", ""},
    {"A004 two names", BOTH, SAY("EHLO a b\r\n"), "220 501", ""},
    {"A005 a name of 600 bytes", BOTH, SAY("EHLO " AAAA AAAA AAAA AAAA AAAA AAAA "\r\n"), "220 500",
     ""},
    {"A007 a bare LF ends a line", BOTH, SAY("EHLO a\nNOOP\n"), "220 250 250", "NOOP"},
    {"A008 a bare CR does not", BOTH, SAY("EHLO a\rMAIL FROM:<x@y>\r\n"), "220 501", ""},
    {"A009 HTTP", BOTH, SAY("GET / HTTP/1.1\r\nHost: a\r\n"), "220 421 x", ""},
    {"A009 HTTP, with a body", BOTH, SAY("POST / HTTP/1.1\r\n"), "220 421 x", ""},
    {"A009 a proxy", BOTH, SAY("CONNECT a:25\r\n"), "220 421 x", ""},
    {"A010 TLS on a plain port", BOTH, SAY("\x16\x03\x01\x02\x00\x01"), "220 x", ""},
    {"A012 NOOP with arguments", BOTH, SAY("NOOP " AAAA AAAA AAAA AAAA AAAA "\r\n"), "220 250", ""},
    {"A013 RSET with one", BOTH, SAY("RSET x\r\n"), "220 501", ""},
    {"A014 lower case", BOTH, SAY(E "mail from:<a@b>\r\n"), "220 250 250", "MAIL FROM:<a@b>"},
    {"A015 a blank before the path", BOTH, SAY(E "MAIL FROM: <a@b>\r\n"), "220 250 250",
     "MAIL FROM:<a@b>"},
    {"A016 no brackets", BOTH, SAY(E "MAIL FROM:a@b\r\n"), "220 250 250", "MAIL FROM:<a@b>"},
    {"A017 the null reverse-path", BOTH, SAY(E "MAIL FROM:<>\r\n"), "220 250 250", "MAIL FROM:<>"},
    {"A018 no end of it", BOTH, SAY(E "MAIL FROM:<a@b\r\n"), "220 250 501", "EHLO"},
    {"A019 two ends", BOTH, SAY(E "MAIL FROM:<a@b>>\r\n"), "220 250 501", "EHLO"},
    {"A020 CRLF in a quoted local part", BOTH, SAY(E "MAIL FROM:<\"a\r\nRCPT TO:<v@w>\"@b>\r\n"),
     "220 250 501 501", "EHLO"},
    {"A021 a source route", BOTH, SAY(E "MAIL FROM:<@a,@b:u@c>\r\n"), "220 250 250",
     "MAIL FROM:<u@c>"},
    {"A022 an address literal", BOTH, SAY(E "MAIL FROM:<u@[IPv6:::1]>\r\n"), "220 250 250",
     "MAIL FROM:<u@[IPv6:::1]>"},
    {"A023 bytes without SMTPUTF8", BOTH, SAY(E "MAIL FROM:<\xff\xfe@b>\r\n"), "220 250 501",
     "EHLO"},
    {"A024 SMTPUTF8 that is not offered", BOTH, SAY(E "MAIL FROM:<\xc0\xaf@b> SMTPUTF8\r\n"),
     "220 250 555", "EHLO"},
    {"A025 a size beyond any", BOTH, SAY(E "MAIL FROM:<a@b> SIZE=99999999999999999999\r\n"),
     "220 250 552", "EHLO"},
    {"A025 a size beyond downstream's", BOTH, SAY(E "MAIL FROM:<a@b> SIZE=1000001\r\n"),
     "220 250 552", "EHLO"},
    {"A026 less than nothing", BOTH, SAY(E "MAIL FROM:<a@b> SIZE=-1\r\n"), "220 250 501", "EHLO"},
    {"A027 hex", BOTH, SAY(E "MAIL FROM:<a@b> SIZE=0x10\r\n"), "220 250 501", "EHLO"},
    {"A028 twice", BOTH, SAY(E "MAIL FROM:<a@b> SIZE=1 SIZE=2\r\n"), "220 250 501", "EHLO"},
    {"A029 BINARYMIME", BOTH, SAY(E "MAIL FROM:<a@b> BODY=BINARYMIME\r\n"), "220 250 555", "EHLO"},
    {"A030 a vertical tab", BOTH, SAY(E "MAIL FROM:<a@b> BODY=8BITMIME\x0b\r\n"), "220 250 501",
     "EHLO"},
    {"A031 AUTH= where there is no AUTH", BOTH, SAY(E "MAIL FROM:<a@b> AUTH=<+0D+0ARCPT>\r\n"),
     "220 250 555", "EHLO"},
    {"A037 RCPT before MAIL", BOTH, SAY(E "RCPT TO:<a@b>\r\n"), "220 250 503", "EHLO"},
    {"A037 MAIL before EHLO", BOTH, SAY("MAIL FROM:<a@b>\r\n"), "220 503", ""},
    {"A041 a dot at the end", BOTH, SAY(M "RCPT TO:<a@b.>\r\n"), "220 250 250 250",
     "RCPT TO:<a@b.>"},
    {"A042 a dash at the start", BOTH, SAY(M "RCPT TO:<a@-b>\r\n"), "220 250 250 250",
     "RCPT TO:<a@-b>"},
    {"A043 a percent sign", BOTH, SAY(M "RCPT TO:<a%b@c>\r\n"), "220 250 250 250",
     "RCPT TO:<a%b@c>"},
    {"A044 a bang", BOTH, SAY(M "RCPT TO:<a!b>\r\n"), "220 250 250 250", "RCPT TO:<a!b>"},
    {"A045 DATA and no recipient", BOTH, SAY(M "DATA\r\n"), "220 250 250 554", "MAIL"},
    {"A045 and the body all the same, at once", AT_ONCE,
     SAY(M "DATA\r\nSubject: x\r\nRSET\r\n.\r\n"), "220 250 250 554 x", "MAIL"},
    {"A045 and the body all the same", SPLIT, SAY(M "DATA\r\nSubject: x\r\nRSET\r\n.\r\n"),
     "220 250 250 554 421 x", "MAIL"},
    {"A045 DATA and no MAIL", BOTH, SAY(E "DATA\r\n"), "220 250 503", "EHLO"},
    {"A045 DATA when all were refused", BOTH, SAY(M "RCPT TO:<bad@x>\r\nDATA\r\n"),
     "220 250 250 550 554", "RCPT TO:<bad@x>"},
    {"A046 DATA with an argument", BOTH, SAY(R "DATA x\r\n"), "220 250 250 250 501", "RCPT"},
    {"A047 data before 354", AT_ONCE, SAY(R "DATA\r\nSubject: a\r\n.\r\n"), "220 250 250 250 554 x",
     "RCPT"},
    {"A048 QUIT before 354", AT_ONCE, SAY(R "DATA\r\nQUIT\r\n"), "220 250 250 250 554 x", "RCPT"},
    {"A049 a second MAIL", BOTH, SAY(M "MAIL FROM:<x@y>\r\n"), "220 250 250 503",
     "MAIL FROM:<a@b.example>"},
    {"A050 EHLO in mid transaction", BOTH, SAY(R E "RCPT TO:<x@y>\r\n"), "220 250 250 250 250 503",
     "RSET"},
    {"A052 after QUIT nothing is obeyed", BOTH, SAY(E "QUIT\r\nMAIL FROM:<a@b>\r\n"),
     "220 250 221 x", NULL},
    {"A055 AUTH where there is none", BOTH, SAY(E "AUTH PLAIN AGEAYg==\r\n"), "220 250 502",
     "EHLO"},
    {"A059 XEXCH50", BOTH, SAY(E "XEXCH50 1124 2\r\nraw bytes\r\n.\r\nQUIT\r\n"), "220 250 502 x",
     NULL},
    {"A060 X-ANONYMOUSTLS", BOTH, SAY(E "X-ANONYMOUSTLS\r\n\x16\x03"), "220 250 502 x", NULL},
    {"A061 X-EXPS", BOTH, SAY(E "X-EXPS GSSAPI YII\r\n"), "220 250 502 x", NULL},
    {"A062 XCLIENT of a stranger", BOTH, SAY(E "XCLIENT ADDR=1.2.3.4\r\n"), "220 250 550", "EHLO"},
    {"A062 XFORWARD of a stranger", BOTH, SAY(E "XFORWARD ADDR=1.2.3.4\r\n"), "220 250 550",
     "EHLO"},
    {"A062 XCLIENT of ours", TRUSTED,
     SAY(E "XCLIENT ADDR=1.2.3.4 NAME=x.example\r\nMAIL FROM:<a@b>\r\n"), "220 250 220 503", NULL},
    {"A063 CR in an attribute", TRUSTED, SAY(E "XCLIENT NAME=a+0D+0AMAIL\r\n"), "220 250 501",
     "EHLO"},
    {"A064 IPv4 in IPv6", TRUSTED, SAY(E "XCLIENT ADDR=IPV6:::ffff:192.0.2.1\r\n" M),
     "220 250 220 250 250", "MAIL"},
    {"A064 no address", TRUSTED, SAY(E "XCLIENT ADDR=IPV6:::fffff\r\n"), "220 250 501", "EHLO"},
    {"A065 an attribute of 300 bytes", TRUSTED, SAY(E "XFORWARD IDENT=" AAAA AAAA AAAA "\r\n"),
     "220 250 501", "EHLO"},
    {"A066 XFORWARD in mid transaction", TRUSTED, SAY(M "XFORWARD ADDR=1.2.3.4\r\n"),
     "220 250 250 503", "MAIL"},
    {"A067 VRFY", BOTH, SAY(E "VRFY root\r\n"), "220 250 252", "EHLO"},
    {"A067 EXPN", BOTH, SAY(E "EXPN list\r\n"), "220 250 502", "EHLO"},
    {"A067 HELP", BOTH, SAY(E "HELP\r\n"), "220 250 214", "EHLO"},
    {"A101 BDAT", BOTH, SAY(R "BDAT\r\n"), "220 250 250 250 502 x", NULL},
    {"A102 BDAT -1", BOTH, SAY(R "BDAT -1\r\n"), "220 250 250 250 502 x", NULL},
    {"A103 BDAT 2^64", BOTH, SAY(R "BDAT 18446744073709551616 LAST\r\n"), "220 250 250 250 502 x",
     NULL},
    {"A104 BDAT 0", BOTH, SAY(R "BDAT 0\r\n"), "220 250 250 250 502 x", NULL},
    {"A105 BDAT 0 LAST", BOTH, SAY(R "BDAT 0 LAST\r\n"), "220 250 250 250 502 x", NULL},
    {"A106 BDAT that does not go on", BOTH, SAY(R "BDAT 10 LAST\r\n12345"), "220 250 250 250 502 x",
     NULL},
    {"A110 RCPT after BDAT", BOTH, SAY(R "BDAT 3\r\nabcRCPT TO:<v@w>\r\nBDAT 0 LAST\r\n"),
     "220 250 250 250 502 x", NULL},
    {"A110 MAIL after BDAT", BOTH,
     SAY(R "BDAT 3 LAST\r\nabcMAIL FROM:<evil@x>\r\nRCPT TO:<v@w>\r\n"), "220 250 250 250 502 x",
     NULL},
    {"A107 BDAT and its bytes", BOTH, SAY(R "BDAT 5\r\nabc\r\nDATA\r\n"), "220 250 250 250 502 x",
     NULL},
    {"A108 BDAT with a message in it", BOTH, SAY(R "bdat 3 last\r\n\n.\nMAIL FROM:<evil@x>\r\n"),
     "220 250 250 250 502 x", NULL},
    {"A109 BDAT XLAST", BOTH, SAY(R "BDAT 10 XLAST\r\n"), "220 250 250 250 502 x", NULL},
    {"A121 STARTTLS with an argument", BOTH, SAY(E "STARTTLS x\r\n"), "220 250 501", "EHLO"},
    {"A121 STARTTLS where there is none", BOTH, SAY(E "STARTTLS\r\n"), "220 250 502", "EHLO"},
    {"A137 a PROXY header where none is wanted", BOTH, SAY("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" E),
     "220 502 250", "EHLO"},
    {"an unknown verb", BOTH, SAY(E "FROB x\r\n"), "220 250 502", "EHLO"},
    {"an empty line", BOTH, SAY(E "\r\n"), "220 250 502", "EHLO"},
    {"HELO", BOTH, SAY("HELO c.example\r\nMAIL FROM:<a@b>\r\n"), "220 250 250", "MAIL"},
    {"RSET forgets", BOTH, SAY(R "RSET\r\nRCPT TO:<x@y>\r\nDATA\r\n"),
     "220 250 250 250 250 503 503", "RSET"},
    {"a second EHLO", BOTH, SAY(E E M), "220 250 250 250 250", "MAIL"},
    {"a refused recipient is downstream's word", BOTH,
     SAY(M "RCPT TO:<bad@x>\r\nRCPT TO:<later@x>\r\n"), "220 250 250 550 450", NULL},
    {"NOOP is answered in its turn", BOTH, SAY(R "NOOP\r\nRCPT TO:<bad@x>\r\nNOOP\r\n"),
     "220 250 250 250 250 550 250", NULL},
};

/* The same where downstream offers DSN. */
static const struct play dsn_plays[] = {
    {"A032 no hex in xtext", BOTH, SAY(E "MAIL FROM:<a@b> ENVID=+ZZ\r\n"), "220 250 501", "EHLO"},
    {"A032 half of it", BOTH, SAY(E "MAIL FROM:<a@b> ENVID=a+4\r\n"), "220 250 501", "EHLO"},
    {"A033 RET twice", BOTH, SAY(E "MAIL FROM:<a@b> RET=FULL RET=HDRS\r\n"), "220 250 501", "EHLO"},
    {"A033 RET of neither kind", BOTH, SAY(E "MAIL FROM:<a@b> RET=BODY\r\n"), "220 250 501",
     "EHLO"},
    {"A034 an ENVID of 1000 bytes", BOTH,
     SAY(E "MAIL FROM:<a@b> ENVID=" AAAA AAAA AAAA AAAA AAAA AAAA AAAA AAAA AAAA AAAA "\r\n"),
     "220 250 501", "EHLO"},
    {"A034 one of 100", BOTH, SAY(E "MAIL FROM:<a@b> ENVID=" AAAA "\r\n"), "220 250 250",
     "MAIL FROM:<a@b> ENVID=" AAAA},
    {"A035 NEVER and something", BOTH, SAY(M "RCPT TO:<a@b> NOTIFY=NEVER,DELAY\r\n"),
     "220 250 250 501", "MAIL"},
    {"A035 NEVER", BOTH, SAY(M "RCPT TO:<a@b> NOTIFY=NEVER\r\n"), "220 250 250 250",
     "RCPT TO:<a@b> NOTIFY=NEVER"},
    {"A035 two that go together", BOTH, SAY(M "RCPT TO:<a@b> NOTIFY=SUCCESS,DELAY\r\n"),
     "220 250 250 250", "RCPT TO:<a@b> NOTIFY=SUCCESS,DELAY"},
    {"A036 LF in ORCPT", BOTH, SAY(M "RCPT TO:<a@b> ORCPT=rfc822;a+0Ab\r\n"), "220 250 250 501",
     "MAIL"},
    {"A036 a plus sign in ORCPT", BOTH, SAY(M "RCPT TO:<a@b> ORCPT=rfc822;a+2Bb@c\r\n"),
     "220 250 250 250", "RCPT TO:<a@b> ORCPT=rfc822;a+2Bb@c"},
    {"A031 CRLF in AUTH=", BOTH, SAY(E "MAIL FROM:<a@b> AUTH=<+0D+0ARCPT>\r\n"), "220 250 555",
     "EHLO"},
};

/* The last command the MTA behind heard before the connection ended. */
static const char *last_heard(void)
{
    static char out[MTA_HEARD];
    char *last = out;
    strcpy(out, world.mta.heard);
    for (char *bar = out; (bar = strpbrk(bar, "|^$"));) {
        *bar++ = 0;
        if (*bar && *bar != '^' && *bar != '$')
            last = bar;
    }
    return last;
}

static void play(const struct play *p, bool split, const char *offers)
{
    fresh(NULL);
    world.mta.offers = offers;
    client_open(&client, &world.worker, &world.mta,
                world_listener(&world, p->how == TRUSTED ? "up" : "in"), p->how == TRUSTED, NULL);
    for (size_t i = 0; split && i < p->n; i++)
        client_send(&client, p->say + i, 1);
    if (!split)
        client_send(&client, p->say, p->n);
    const char *codes = client_codes(&client);
    if (strcmp(codes, p->codes) != 0)
        fail_msg("%s%s: %s, expected %s", p->name, split ? " (split)" : "", codes, p->codes);
    const char *heard = last_heard();
    if (p->heard && (strncmp(heard, p->heard, strlen(p->heard)) != 0 || !*p->heard != !*heard))
        fail_msg("%s%s: behind heard %s", p->name, split ? " (split)" : "", world.mta.heard);
    client_close(&client);
    if (living || world.worker.sessions)
        fail_msg("%s: something is left", p->name);
}

static void play_all(const struct play *all, size_t n, const char *offers)
{
    for (size_t i = 0; i < n; i++) {
        if (all[i].how != SPLIT)
            play(&all[i], false, offers);
        if (all[i].how != AT_ONCE)
            play(&all[i], true, offers);
    }
}

static void every_command(void **state)
{
    (void)state;
    play_all(plays, sizeof plays / sizeof *plays, NULL);
    play_all(dsn_plays, sizeof dsn_plays / sizeof *dsn_plays, "PIPELINING\nDSN\n");
}

/* ---- many and large ---- */

static void say_times(const char *line, unsigned n)
{
    size_t one = strlen(line);
    char *all = malloc(one * n + 1);
    assert_non_null(all);
    for (unsigned i = 0; i < n; i++)
        memcpy(all + i * one, line, one);
    client_send(&client, all, one * n);
    free(all);
}

static unsigned count(const char *text, const char *what)
{
    unsigned n = 0;
    while ((text = strstr(text, what))) {
        text += strlen(what);
        n++;
    }
    return n;
}

static void a006_no_line_end_at_all(void **state)
{
    (void)state;
    open_client("in");
    say_times("0123456789abcdef", 4096);
    codes_are("220 500 x");
    client_close(&client);
}

static void a011_a_thousand_noops(void **state)
{
    (void)state;
    open_client("in");
    client_say(&client, E);
    say_times("NOOP\r\n", 1000);
    assert_int_equal(count(client.said, "250 2.0.0 behind"), 99); /* EHLO is one of the hundred */
    assert_non_null(strstr(client.said, "421 4.7.0 too many commands"));
    assert_true(client.closed);
    client_close(&client);
}

static void twenty_errors_are_enough(void **state)
{
    (void)state;
    open_client("in");
    say_times("FROB\r\n", 30);
    assert_int_equal(count(client.said, "502 5.5.1"), 20);
    assert_non_null(strstr(client.said, "421 4.7.0 too many errors"));
    assert_true(client.closed);
    client_close(&client);
}

/* How often a line is obeyed, or refused, before the connection ends; with limits.recipients 100.
 */
static const struct {
    const char *name, *first, *line, *reply;
    unsigned times;
    const char *last;
} patience[] = {
    {"HELP", E, "HELP\r\n", "214", 99, "421 4.7.0 too many commands"},
    {"ETRN", E, "ETRN x\r\n", "458", 99, "421 4.7.0 too many commands"},
    {"VRFY", E, "VRFY x\r\n", "252", 99, "421 4.7.0 too many commands"},
    {"RSET", E, "RSET\r\n", "250 2.0.0", 99, "421 4.7.0 too many commands"},
    {"DATA and nothing to send", E, "DATA\r\n", "503", 99, "421 4.7.0 too many commands"},
    {"MAIL that is refused", E, "MAIL FROM:<no@x>\r\n", "450", 100, "421 4.7.0 too many commands"},
    {"a second MAIL", M, "MAIL FROM:<a@b>\r\n", "503", 20, "421 4.7.0 too many errors"},
    {"EXPN", E, "EXPN x\r\n", "502", 20, "421 4.7.0 too many errors"},
    {"recipients that are refused", M, "RCPT TO:<bad@x>\r\n", "550", 100, NULL},
    {"recipients without MAIL", E, "RCPT TO:<c@d>\r\n", "503", 500, "421 4.7.0 too many recip"},
};

static void what_brings_no_message_nearer_comes_to_an_end(void **state)
{
    (void)state;
    unsigned recipients = world.config->smtp_recipients;
    world.config->smtp_recipients = 100;
    for (size_t i = 0; i < sizeof patience / sizeof *patience; i++) {
        unsigned times = patience[i].times;
        char reply[32];
        fresh(NULL);
        world.mta.offers = "PIPELINING\nETRN\nVRFY\n";
        world.mta.play[0] = (struct line_of_play){"MAIL FROM:<no", 0, "450 4.7.1 no\r\n", 0};
        world.mta.play[1] = (struct line_of_play){"ETRN", 0, "458 5.0.0 no\r\n", 0};
        open_client("in");
        client_say(&client, patience[i].first);
        for (unsigned k = 0; k < times; k++)
            client_say(&client, patience[i].line);
        snprintf(reply, sizeof reply, "\r\n%s", patience[i].reply);
        if (count(client.said, reply) < times || client.closed)
            fail_msg("%s: %s", patience[i].name, client_codes(&client));
        say_times(patience[i].line, 1);
        if (patience[i].last ? !strstr(client.said, patience[i].last) || !client.closed
                             : client.closed)
            fail_msg("%s, once too often: %s", patience[i].name, client_codes(&client));
        client_close(&client);
    }
    world.config->smtp_recipients = recipients;
}

/* Five times as many as a message may have, in all; then no more. A trusted client is not counted.
 */
static void recipients_that_are_refused_come_to_an_end(void **state)
{
    (void)state;
    unsigned recipients = world.config->smtp_recipients;
    world.config->smtp_recipients = 100;
    for (int trusted = 0; trusted < 2; trusted++) {
        fresh(NULL);
        open_client(trusted ? "up" : "in");
        client_say(&client, M);
        say_times("RCPT TO:<bad@x>\r\n", 500);
        assert_int_equal(count(client.said, "\r\n550 5.1.1"), 100);
        assert_int_equal(count(client.said, "\r\n452 4.5.3"), 400);
        say_times("RCPT TO:<good@x>\r\n", 2);
        assert_int_equal(client.closed, !trusted);
        assert_int_equal(count(client.said, "\r\n421 4.7.0 too many recipients"), !trusted);
        client_close(&client);
    }
    world.config->smtp_recipients = recipients;
}

/* What came before a message is forgotten when it is through. */
static void a_message_makes_up_for_recipients_that_were_refused(void **state)
{
    (void)state;
    unsigned recipients = world.config->smtp_recipients;
    world.config->smtp_recipients = 100;
    open_client("in");
    client_say(&client, E);
    for (int i = 0; i < 12; i++) {
        client_say(&client, "MAIL FROM:<a@b>\r\n");
        say_times("RCPT TO:<bad@x>\r\n", 99);
        client_say(&client, "RCPT TO:<good@x>\r\nDATA\r\n");
        client_say(&client, "x\r\n.\r\n");
    }
    assert_false(client.closed);
    assert_int_equal(commits, 12);
    client_close(&client);
    world.config->smtp_recipients = recipients;
}

static void a038_the_1001st_recipient(void **state)
{
    (void)state;
    open_client("in");
    client_say(&client, M);
    say_times("RCPT TO:<c@d.example>\r\n", 1001);
    assert_int_equal(count(client.said, "250 2.1.5 ok recipient"), 1000);
    assert_int_equal(count(client.said, "452 4.5.3 too many recipients"), 1);
    assert_false(client.closed);
    client_close(&client);
}

static void a039_630_recipients_at_once_are_answered_in_order(void **state)
{
    (void)state;
    static char all[1 << 16];
    size_t n = 0;
    open_client("in");
    client_say(&client, M);
    client.nsaid = 0;
    for (unsigned i = 0; i < 630; i++)
        n += (size_t)snprintf(all + n, sizeof all - n, "RCPT TO:<%s%u@d.example>\r\n",
                              i % 7 ? "u" : "bad", i);
    client_send(&client, all, n);
    char *line = client.said;
    for (unsigned i = 0; i < 630; i++, line = strchr(line, '\n') + 1)
        assert_memory_equal(line, i % 7 ? "250" : "550", 3);
    assert_int_equal(*line, 0);
    assert_int_equal(count(world.mta.heard, "RCPT"), 630);
    client_close(&client);
}

static void a040_long_local_parts(void **state)
{
    (void)state;
    static const size_t sizes[] = {600, 1900, 5000};
    static char line[6000];
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        memset(line, 'a', sizeof line);
        memcpy(line, "RCPT TO:<", 9);
        snprintf(line + 9 + sizes[i], 32, "@b.example>\r\n");
        open_client("in");
        client_say(&client, M);
        client_say(&client, line);
        codes_are(sizes[i] > 2048 ? "220 250 250 500" : "220 250 250 501");
        client_close(&client);
    }
}

static void a051_who_speaks_first(void **state)
{
    (void)state;
    client_open(&client, &world.worker, &world.mta, world_listener(&world, "in"), false, E M);
    codes_are("554 x");
    assert_int_equal(world.mta.connections, 0);
    client_close(&client);
}

static void a053_who_says_no_more_still_gets_his_replies(void **state)
{
    (void)state;
    open_client("in");
    client_say(&client, R "DATA\r\n");
    client_say(&client, "Subject: x\r\n\r\nx\r\n.\r\nNOOP\r\n");
    assert_non_null(strstr(client.said, "queued behind"));
    client_say(&client, "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
    client.nsaid = 0;
    (void)!send(client.fd, "RCPT TO:<e@f>\r\nNOOP\r\n", 21, MSG_NOSIGNAL);
    shutdown(client.fd, SHUT_WR);
    client_turn(&client);
    codes_are("250 250 x");
    assert_int_equal(living, 0);
    client_close(&client);
}

/* ---- who the client is ---- */

static void the_mta_behind_is_told(void **state)
{
    (void)state;
    world.mta.offers = "PIPELINING\nXCLIENT NAME ADDR PORT PROTO HELO LOGIN\n";
    open_client("up");
    client_say(&client, E);
    assert_non_null(strstr(world.mta.heard, "|XCLIENT NAME=[UNAVAILABLE] ADDR=127.0.0.1 PORT="));
    assert_non_null(strstr(world.mta.heard, " PROTO=ESMTP HELO=c.example|EHLO c.example|"));
    client_say(&client,
               "XCLIENT ADDR=IPV6:2001:db8::7 NAME=mail.x.example HELO=x+20y LOGIN=anna\r\n" E);
    assert_non_null(strstr(world.mta.heard, "QUIT|"));
    assert_non_null(
        strstr(world.mta.heard, "|XCLIENT NAME=mail.x.example ADDR=IPV6:2001:db8::7 PORT="));
    assert_non_null(strstr(world.mta.heard, " HELO=c.example LOGIN=anna|EHLO"));
    client_say(&client, "MAIL FROM:<a@b>\r\n");
    codes_are("220 250 220 250 250");
    assert_non_null(strstr(story, "client(2001:db8::7 mail.x.example c.example) auth(anna)"));
    client_close(&client);
}

static void a_forwarded_message_is_its_clients(void **state)
{
    (void)state;
    world.mta.offers = "PIPELINING\nXFORWARD NAME ADDR PORT PROTO HELO\n";
    open_client("up");
    client_say(&client, E "XFORWARD ADDR=192.0.2.7 NAME=mx.x.example\r\nXFORWARD HELO=x\r\n"
                          "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
    assert_non_null(strstr(world.mta.heard, "|XFORWARD NAME=mx.x.example ADDR=192.0.2.7 "
                                            "PORT=[UNAVAILABLE] PROTO=ESMTP HELO=x|MAIL"));
    assert_non_null(strstr(story, "client(192.0.2.7 mx.x.example x)"));
    client_say(&client, "x\r\n.\r\nMAIL FROM:<a@b>\r\n"); /* the next is its own again */
    assert_non_null(strstr(strstr(story, "end"), "client(127.0.0.1  c.example)"));
    codes_are("220 250 250 250 250 250 354 250 250");
    client_close(&client);
}

/* ---- AUTH is offered under TLS only: smtp_tls_test.c ---- */

/* ---- the MTA behind goes away ---- */

static void a_session_lost_between_messages_is_opened_again(void **state)
{
    (void)state;
    open_client("in");
    client_say(&client, E);
    mta_end(world.mta.sessions);
    client_turn(&client);
    client_say(&client, "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<bad@d>\r\nDATA\r\n");
    codes_are("220 250 250 250 550 354");
    assert_int_equal(world.mta.connections, 2);
    client_close(&client);
}

static void a_mail_answered_421_is_said_again_with_all_after_it(void **state)
{
    (void)state;
    world.mta.play[0] = (struct line_of_play){"MAIL", 1, "421 4.4.2 enough for today\r\n", 0};
    world.mta.hangs_up_after = true;
    open_client("in");
    client_say(&client,
               E "MAIL FROM:<a@b> SIZE=10\r\nRCPT TO:<c@d>\r\nNOOP\r\nRCPT TO:<bad@d>\r\n");
    codes_are("220 250 250 250 250 550");
    assert_int_equal(world.mta.connections, 2);
    assert_non_null(strstr(world.mta.heard, "MAIL FROM:<a@b> SIZE=10|RCPT TO:<c@d>|NOOP|RCPT"));
    client_close(&client);
}

static void a_mail_answered_421_twice_is_not(void **state)
{
    (void)state;
    world.mta.play[0] = (struct line_of_play){"MAIL", 0, "421 4.4.2 never\r\n", 0};
    open_client("in");
    client_say(&client, E "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nNOOP\r\n");
    codes_are("220 250 451 451 451");
    assert_int_equal(world.mta.connections, 2);
    assert_int_equal(living, 0);
    client_close(&client);
}

static void a_recipient_on_whom_it_is_lost_gets_451(void **state)
{
    (void)state;
    world.mta.play[0] = (struct line_of_play){"RCPT TO:<two", 1, NULL, 0};
    open_client("in");
    client_say(&client, M "RCPT TO:<one@d>\r\n");
    client_say(&client, "RCPT TO:<two@d>\r\n");
    codes_are("220 250 250 250 451");
    client_say(&client, "RCPT TO:<three@d>\r\nDATA\r\n");
    codes_are("220 250 250 250 451 451 354");
    client_say(&client, "x\r\n.\r\n");
    codes_are("220 250 250 250 451 451 354 250"); /* to the one it had accepted */
    assert_string_equal(strrchr(world.mta.heard, '^'),
                        "^EHLO c.example|MAIL FROM:<a@b.example>|RCPT TO:<one@d>|DATA|dot|");
    client_close(&client);
}

/* RFC 5321 3.2. */
static void a_server_behind_that_knows_no_ehlo_is_told_helo(void **state)
{
    (void)state;
    static const struct {
        const char *ehlo, *helo, *codes, *heard;
    } kinds[] = {
        {"502 5.5.1 what?\r\n", NULL, "220 250 250 250 354 250", "^EHLO c|HELO c|MAIL FROM:<a@b>|"},
        {"500 what?\r\n", NULL, "220 250 250 250 354 250", "^EHLO c|HELO c|MAIL FROM:<a@b>|"},
        {"550 go away\r\n", NULL, "220 421 x", "^EHLO c|"},
        {"450 not now\r\n", NULL, "220 421 x", "^EHLO c|"},
        {"502 what?\r\n", "502 what?\r\n", "220 421 x", "^EHLO c|HELO c|"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        fresh(NULL);
        world.mta.play[0] = (struct line_of_play){"EHLO", 0, kinds[i].ehlo, 0};
        if (kinds[i].helo)
            world.mta.play[1] = (struct line_of_play){"HELO", 0, kinds[i].helo, 0};
        open_client("in");
        client_say(&client, "EHLO c\r\n");
        if (!client.closed) {
            assert_null(strstr(client.said, "8BITMIME"));
            client_say(&client, "MAIL FROM:<a@b> SIZE=5\r\nRCPT TO:<c@d>\r\nDATA\r\n");
            client_say(&client, "x\r\n.\r\n");
        }
        codes_are(kinds[i].codes);
        if (strncmp(world.mta.heard, kinds[i].heard, strlen(kinds[i].heard)) != 0)
            fail_msg("%s: behind heard %s", kinds[i].ehlo, world.mta.heard);
        assert_int_equal(world.mta.connections, 1);
        client_close(&client);
    }
}

static void rset_is_obeyed_whether_or_not_somebody_is_behind(void **state)
{
    (void)state;
    static const char *const says[] = {"250 ok\r\n", "451 no\r\n", "421 bye\r\n", NULL};
    for (size_t i = 0; i < sizeof says / sizeof *says; i++) {
        fresh(NULL);
        world.mta.play[0] = (struct line_of_play){"RSET", 1, says[i], 0};
        open_client("in");
        client_say(&client, R "RSET\r\nRSET\r\n");
        codes_are("220 250 250 250 250 250");
        assert_int_equal(living, 0);
        client_say(&client, "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
        client_say(&client, "x\r\n.\r\n");
        codes_are("220 250 250 250 250 250 250 250 354 250");
        assert_int_equal(world.mta.connections, i < 2 ? 1 : 2);
        client_close(&client);
    }
}

/* All that was asked is said again to a new session, and XFORWARD besides: there is room for it. */
static void a_full_ring_is_said_again_with_xforward(void **state)
{
    (void)state;
    world.mta.offers = "PIPELINING\nXFORWARD NAME ADDR PORT PROTO HELO\n";
    open_client("in");
    client_say(&client, E);
    bufferevent_disable(world.mta.sessions->bev, EV_READ);
    client_say(&client, "MAIL FROM:<a@b>\r\n");
    say_times("RCPT TO:<c@d>\r\n", 200);
    codes_are("220 250");
    mta_end(world.mta.sessions);
    client_turn(&client);
    assert_int_equal(count(client.said, "250 2.1.5 ok recipient"), 200);
    assert_int_equal(count(client.said, "\r\n250 "), 202); /* EHLO, MAIL and those */
    assert_int_equal(world.mta.connections, 2);
    assert_int_equal(count(world.mta.heard, "|XFORWARD"), 1);
    client_close(&client);
}

/* The descriptors have run out: the client is told, and served when there are some again. */
static void no_descriptor_for_downstream(void **state)
{
    (void)state;
    struct rlimit old, none;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    for (int late = 0; late < 2; late++) {
        fresh(NULL);
        open_client("in");
        if (late) {
            client_say(&client, E);
            mta_end(world.mta.sessions);
            client_turn(&client);
        }
        int lowest = dup(client.fd);
        close(lowest);
        none = (struct rlimit){(rlim_t)lowest, old.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
        client_say(&client, late ? "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n" : E);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
        codes_are(late ? "220 250 451 503" : "220 421 x");
        if (late) {
            client_say(&client, "RSET\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
            codes_are("220 250 451 503 250 250 250");
        }
        client_close(&client);
    }
}

/* ---- who does not read, and who says more than he may ---- */

/* Says it as often as the door takes it, reading nothing; how many bytes that were. */
static size_t say_unheard(const char *line, size_t most)
{
    size_t n = strlen(line), said = 0, idle = 0;
    while (said < most * n && idle < 20) {
        const char *at = line + said % n;
        ssize_t w = send(client.fd, at, strlen(at), MSG_NOSIGNAL | MSG_DONTWAIT);
        said += w > 0 ? (size_t)w : 0;
        idle = w > 0 ? 0 : idle + 1;
        if (w < 0)
            event_base_loop(world.worker.base, EVLOOP_NONBLOCK);
    }
    return said;
}

/* Who never reads is not obeyed any more; who reads after all gets every reply, be they
 * downstream's or (when there are too many recipients) ours. */
static void a_client_that_does_not_read(void **state)
{
    (void)state;
    enum { MOST = 20000 };
    static const char line[] = "RCPT TO:<bad@x>\r\n";
    static const unsigned limits[] = {4001, 40000};
    unsigned recipients = world.config->smtp_recipients;
    for (size_t i = 0; i < 2; i++) {
        fresh(NULL);
        world.config->smtp_recipients = limits[i];
        open_client("in");
        client_say(&client, M);
        size_t n = sizeof line - 1, said = say_unheard(line, MOST), heard = 0;
        assert_true(said < MOST * n);
        for (int quiet = 0; quiet < 5; quiet++) {
            event_base_loop(world.worker.base, EVLOOP_NONBLOCK);
            for (ssize_t got; (got = recv(client.fd, client.said, 1 << 16, MSG_DONTWAIT)) > 0;) {
                quiet = 0;
                for (ssize_t k = 0; k < got; k++)
                    heard += client.said[k] == '\n';
            }
        }
        assert_int_equal(heard, said / n);
        client_close(&client);
    }
    world.config->smtp_recipients = recipients;
}

/* Words that have to wait: they are taken up to a point, cost no work meanwhile (the loop comes to
 * rest), and are obeyed in the end. */
static void who_says_more_than_is_obeyed_yet(void **state)
{
    (void)state;
    enum { MOST = 100000 };
    verdict.wait = true;
    open_client("in");
    client_say(&client, R "DATA\r\n");
    client_say(&client, "x\r\n.\r\n");
    client.nsaid = 0;
    size_t said = say_unheard("RCPT TO:<c@d>\r\n", MOST);
    assert_true(said < (size_t)MOST * 15);
    waiting->done(waiting->arg, waiting);
    client_turn(&client);
    assert_memory_equal(client.said, "250 2.0.0 queued behind\r\n503 5.5.1", 34);
    client_close(&client);
}

static void nobody_behind(void **state)
{
    (void)state;
    world.mta.play[0] = (struct line_of_play){"banner", 0, "554 no\r\n", 0};
    open_client("in");
    client_say(&client, E);
    codes_are("220 421 x");
    client_close(&client);
}

static void nonsense_from_behind(void **state)
{
    (void)state;
    static const char *const says[] = {"hello\r\n", "25\r\n",        "250_x\r\n",
                                       "650 x\r\n", "354 go on\r\n", "250 ok\r\n250 too much\r\n"};
    for (size_t i = 0; i < sizeof says / sizeof *says; i++) {
        mta_fresh(&world.mta);
        world.mta.play[0] = (struct line_of_play){"MAIL", 1, says[i], 0};
        open_client("in");
        client_say(&client, M);
        codes_are("220 250 250"); /* said again, or the first of two */
        client_say(&client, "RCPT TO:<c@d>\r\n");
        codes_are(i == 5 ? "220 250 250 451" : "220 250 250 250");
        client_close(&client);
    }
}

static void a_reply_with_control_bytes_is_harmless(void **state)
{
    (void)state;
    world.mta.play[0] =
        (struct line_of_play){"RCPT", 1, "550-5.1.1 \033[2J\r550 x\001\r\n550 5.1.1 y\r\n", 0};
    open_client("in");
    client_say(&client, M "RCPT TO:<c@d>\r\n");
    assert_non_null(strstr(client.said, "\r\n550-5.1.1  [2J 550 x \r\n550 5.1.1 y\r\n"));
    client_close(&client);
}

static void without_pipelining_behind_all_comes_in_order_all_the_same(void **state)
{
    (void)state;
    world.mta.offers = "8BITMIME\n";
    open_client("in");
    client_say(&client, R "RCPT TO:<bad@x>\r\nRCPT TO:<later@x>\r\nDATA\r\n");
    client_say(&client, "x\r\n.\r\nQUIT\r\n");
    codes_are("220 250 250 250 550 450 354 250 221 x");
    client_close(&client);
}

/* ---- the end ---- */

static void stop(bool now)
{
    struct connection *c = world.worker.connections;
    world.worker.leaving = true;
    if (c)
        c->leave(c, now);
    client_turn(&client);
}

static void at_a_stop_who_is_between_messages_is_told(void **state)
{
    (void)state;
    open_client("in");
    client_say(&client, E);
    stop(false);
    codes_are("220 250 421 x");
    world.worker.leaving = false;
    client_close(&client);
}

static void at_a_stop_a_message_under_way_is_finished(void **state)
{
    (void)state;
    open_client("in");
    client_say(&client, R);
    stop(false);
    client_say(&client, "DATA\r\n");
    client_say(&client, "x\r\n.\r\n");
    codes_are("220 250 250 250 354 250 421 x");
    assert_int_equal(commits, 1);
    world.worker.leaving = false;
    client_close(&client);
}

static void at_the_end_of_a_stop_all_end(void **state)
{
    (void)state;
    verdict.wait = true;
    open_client("in");
    client_say(&client, R "DATA\r\n");
    client_say(&client, "x\r\n.\r\n");
    stop(true);
    assert_true(client.closed);
    assert_int_equal(living, 0);
    world.worker.leaving = false;
    client_close(&client);
}

static void what_is_not_answered_behind_keeps_the_rest_waiting(void **state)
{
    (void)state;
    world.mta.play[0] = (struct line_of_play){"RCPT", 1, "", 0};
    world.mta.play[1] = (struct line_of_play){"NOOP", 1, "", 0};
    open_client("in");
    client_say(&client, M "RCPT TO:<c@d>\r\nNOOP\r\n");
    codes_are("220 250 250");
    client_close(&client); /* it may only have said its last word: it would get its replies */
    assert_int_equal(living, 1);
    mta_fresh(&world.mta);
    client_turn(&client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DOOR(every_command),
        DOOR(a006_no_line_end_at_all),
        DOOR(a011_a_thousand_noops),
        DOOR(twenty_errors_are_enough),
        DOOR(what_brings_no_message_nearer_comes_to_an_end),
        DOOR(recipients_that_are_refused_come_to_an_end),
        DOOR(a_message_makes_up_for_recipients_that_were_refused),
        DOOR(a038_the_1001st_recipient),
        DOOR(a039_630_recipients_at_once_are_answered_in_order),
        DOOR(a040_long_local_parts),
        DOOR(a051_who_speaks_first),
        DOOR(a053_who_says_no_more_still_gets_his_replies),
        DOOR(the_mta_behind_is_told),
        DOOR(a_forwarded_message_is_its_clients),
        DOOR(a_session_lost_between_messages_is_opened_again),
        DOOR(a_mail_answered_421_is_said_again_with_all_after_it),
        DOOR(a_mail_answered_421_twice_is_not),
        DOOR(a_recipient_on_whom_it_is_lost_gets_451),
        DOOR(a_server_behind_that_knows_no_ehlo_is_told_helo),
        DOOR(rset_is_obeyed_whether_or_not_somebody_is_behind),
        DOOR(a_full_ring_is_said_again_with_xforward),
        DOOR(no_descriptor_for_downstream),
        DOOR(a_client_that_does_not_read),
        DOOR(who_says_more_than_is_obeyed_yet),
        DOOR(nobody_behind),
        DOOR(nonsense_from_behind),
        DOOR(a_reply_with_control_bytes_is_harmless),
        DOOR(without_pipelining_behind_all_comes_in_order_all_the_same),
        DOOR(at_a_stop_who_is_between_messages_is_told),
        DOOR(at_a_stop_a_message_under_way_is_finished),
        DOOR(at_the_end_of_a_stop_all_end),
        DOOR(what_is_not_answered_behind_keeps_the_rest_waiting),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
