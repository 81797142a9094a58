/*
 * outbound_test.c - our SMTP client against a server that can misbehave (tests/e2e/sink.c), both in
 * one loop. Nothing here sleeps; a test that hangs is ended by a watchdog.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define SINK_NO_MAIN
#include "../e2e/sink.c"

#include "outbound.h"

enum { RCPTS = 4, RULES = 4 };

struct stage {
    struct event_base *base;
    struct sink *sink;
    struct event *watchdog;
    struct outbound_rcpt rcpts[RCPTS];
    struct outbound_mail mail;
    struct outbound *running;
    unsigned done, delivered;
    bool inside;
    char *rules[RULES];
    uint8_t *data; /* of the last delivered message */
    size_t ndata, nrcpts;
    unsigned stray;
};

static void finished(void *arg, struct outbound_mail *m)
{
    struct stage *st = arg;
    assert_false(st->inside);
    assert_ptr_equal(m, &st->mail);
    st->done++;
    st->running = NULL;
    event_base_loopbreak(st->base);
}

static void delivered(void *arg, const struct sink_message *m)
{
    struct stage *st = arg;
    st->delivered++;
    st->nrcpts = m->nrcpts;
    st->stray = m->stray;
    st->data = realloc(st->data, m->data.n + 1);
    if (m->data.n)
        memcpy(st->data, m->data.p, m->data.n);
    st->ndata = m->data.n;
}

static void bark(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what, (void)arg;
    fail_msg("hangs");
}

static void open_stage(struct stage *st, const char *offers, const char *const *rules)
{
    memset(st, 0, sizeof *st);
    st->base = event_base_new();
    st->sink = sink_new(st->base, "127.0.0.1:0");
    st->sink->transcript = evbuffer_new();
    st->sink->deliver = delivered;
    st->sink->arg = st;
    if (offers)
        st->sink->offers = offers;
    for (size_t i = 0; rules && rules[i]; i++)
        assert_true(sink_rule_add(st->sink, st->rules[i] = strdup(rules[i])));
    st->watchdog = evtimer_new(st->base, bark, NULL);
    event_add(st->watchdog, &(struct timeval){20, 0});
    for (size_t i = 0; i < RCPTS; i++) {
        static const char *const paths[RCPTS] = {"b@b.example", "c@c.example", "d@d.example",
                                                 "e@e.example"};
        st->rcpts[i].path = span_str(paths[i]);
    }
    st->mail = (struct outbound_mail){.to = st->sink->address,
                                      .helo = "us.example",
                                      .reversepath = SPAN("a@a.example"),
                                      .bytes = (const uint8_t *)"Subject: x\r\n\r\nhello\r\n",
                                      .nbytes = 21,
                                      .rcpts = st->rcpts,
                                      .nrcpts = 1,
                                      .deadline = 60 * 1000};
}

static void send_it(struct stage *st)
{
    st->inside = true;
    st->running = outbound_send(st->base, &st->mail, finished, st);
    st->inside = false;
    assert_non_null(st->running);
}

/* Until done, and until the server has seen the end of the connection. */
static void run(struct stage *st)
{
    send_it(st);
    event_base_dispatch(st->base);
    while (st->sink->connections)
        event_base_loop(st->base, EVLOOP_ONCE);
    assert_int_equal(st->done, 1);
}

static const char *transcript(struct stage *st)
{
    evbuffer_add(st->sink->transcript, "", 1);
    return (const char *)evbuffer_pullup(st->sink->transcript, -1);
}

static void close_stage(struct stage *st)
{
    event_free(st->watchdog);
    evconnlistener_free(st->sink->listener);
    evbuffer_free(st->sink->transcript);
    for (size_t i = 0; i < RULES; i++)
        free(st->rules[i]);
    free(st->sink->rules);
    free(st->sink);
    event_base_free(st->base);
    free(st->data);
}

static void what_is_said(void **state)
{
    (void)state;
    static const struct {
        const char *name, *offers, *rule, *from, *from_params, *params, *said;
    } cases[] = {
        {"everything offered", NULL, NULL, "a@a.example", "", "",
         "EHLO us.example\r\nMAIL FROM:<a@a.example> SIZE=23\r\nRCPT TO:<b@b.example>\r\nDATA\r\n"
         "Subject: x\r\n\r\nhello\r\n.\r\nQUIT\r\n"},
        {"nothing offered", "", NULL, "a@a.example", "BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=q",
         "NOTIFY=NEVER", "EHLO us.example\r\nMAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\n"},
        {"an old server", NULL, "ehlo=502 5.5.2 what?", "a@a.example", "RET=HDRS", "NOTIFY=NEVER",
         "EHLO us.example\r\nHELO us.example\r\nMAIL FROM:<a@a.example>\r\nRCPT "
         "TO:<b@b.example>\r\n"},
        {"the null reverse-path", "", NULL, "", "", "", "EHLO us.example\r\nMAIL FROM:<>\r\n"},
        {"the sender's wishes", "DSN,8bitmime,SMTPUTF8", NULL, "a@a.example",
         "body=8BITMIME SMTPUTF8 RET=HDRS ENVID=q+2B1", "NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x",
         "EHLO us.example\r\nMAIL FROM:<a@a.example> body=8BITMIME SMTPUTF8 RET=HDRS "
         "ENVID=q+2B1\r\n"
         "RCPT TO:<b@b.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x\r\n"},
        {"wishes nobody may pass on", "DSN,8BITMIME,SMTPUTF8", NULL, "a@a.example",
         "SIZE=99999 AUTH=<> BODY=BINARYMIME RET=BOTH SMTPUTF8=1 XEVIL ENVID=\x01 ENVID=",
         "BODY=7BIT", "EHLO us.example\r\nMAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\n"},
        {"wishes in wild space", "DSN", NULL, "a@a.example", "  RET=FULL\r\nRSET \t ENVID=x\n",
         "\r\n",
         "EHLO us.example\r\nMAIL FROM:<a@a.example> RET=FULL ENVID=x\r\nRCPT "
         "TO:<b@b.example>\r\n"},
        {"a quoted local part", "", NULL, "\"a <b> \\\" c\"@a.example", "", "",
         "EHLO us.example\r\nMAIL FROM:<\"a <b> \\\" c\"@a.example>\r\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct stage st;
        open_stage(&st, cases[i].offers, (const char *const[]){cases[i].rule, NULL});
        st.mail.reversepath = span_str(cases[i].from);
        st.mail.reversepath_params = span_str(cases[i].from_params);
        st.rcpts[0].params = span_str(cases[i].params);
        run(&st);
        if (strncmp(transcript(&st), cases[i].said, strlen(cases[i].said)) != 0)
            fail_msg("%s: %s", cases[i].name, transcript(&st));
        assert_int_equal(st.rcpts[0].code, 250);
        assert_string_equal(st.rcpts[0].reply, "250 2.0.0 Ok: swallowed as 1");
        close_stage(&st);
    }
}

/* Three recipients; codes of each, the beginning of the first one's text, messages that arrived. */
static void what_is_made_of_replies(void **state)
{
    (void)state;
    static const struct {
        const char *name, *rule, *rule2;
        int code[3];
        const char *reply;
        unsigned delivered;
    } cases[] = {
        {"all is well", NULL, NULL, {250, 250, 250}, "250 2.0.0 Ok", 1},
        {"a greeting of many lines",
         "connect=220-hello|220-hello|220 hello",
         NULL,
         {250, 250, 250},
         "250 ",
         1},
        {"no service", "connect=554 5.3.2 no", NULL, {554, 554, 554}, "554 5.3.2 no", 0},
        {"busy", "connect=421 4.3.2 busy", NULL, {421, 421, 421}, "421 4.3.2 busy", 0},
        {"a greeting that is a 250",
         "connect=250 hi",
         NULL,
         {0, 0, 0},
         "unexpected reply at greeting: 250 hi",
         0},
        {"closes at once", "connect=close", NULL, {0, 0, 0}, "connection lost at greeting", 0},
        {"EHLO refused for now", "ehlo=450 4.3.2 wait", NULL, {450, 450, 450}, "450 4.3.2 wait", 0},
        {"EHLO and HELO refused",
         "ehlo=550 no",
         "helo=550 5.7.1 no",
         {550, 550, 550},
         "550 5.7.1 no",
         0},
        {"EHLO ends the connection", "ehlo=421 bye", NULL, {421, 421, 421}, "421 bye", 0},
        {"sender refused", "mail=550 5.7.1 not you", NULL, {550, 550, 550}, "550 5.7.1 not you", 0},
        {"sender refused for now", "mail=451 4.3.0 disk", NULL, {451, 451, 451}, "451 4.3.0", 0},
        {"closes at MAIL", "mail=close", NULL, {0, 0, 0}, "connection lost at MAIL", 0},
        {"first recipient refused",
         "rcpt:1=550 5.1.1 who?",
         NULL,
         {550, 250, 250},
         "550 5.1.1 who?",
         1},
        {"last recipient later", "rcpt:3=452 4.5.3 too many", NULL, {250, 250, 452}, "250 ", 1},
        {"one of each", "rcpt:2=550 no", "rcpt:3=450 later", {250, 550, 450}, "250 ", 1},
        {"will forward", "rcpt:1=251 elsewhere", NULL, {250, 250, 250}, "250 ", 1},
        {"nobody accepted", "rcpt=550 5.1.1 no", NULL, {550, 550, 550}, "550 5.1.1 no", 0},
        {"a recipient answered with 354",
         "rcpt:2=354 go",
         NULL,
         {0, 0, 0},
         "unexpected reply at RCPT: 354 go",
         0},
        {"421 in mid-envelope", "rcpt:2=421 4.3.2 stop", NULL, {421, 421, 421}, "421 4.3.2", 0},
        {"refused, then 421", "rcpt:1=550 no", "rcpt:2=421 stop", {550, 421, 421}, "550 no", 0},
        {"closes at RCPT", "rcpt:2=close", NULL, {0, 0, 0}, "connection lost at RCPT: closed", 0},
        {"DATA refused", "data=451 4.3.0 no", NULL, {451, 451, 451}, "451 4.3.0", 0},
        {"DATA refused for good",
         "data=554 5.5.1 no",
         "rcpt:2=450 x",
         {554, 450, 554},
         "554 5.5.1",
         0},
        {"DATA answered with 250",
         "data=250 fine",
         NULL,
         {0, 0, 0},
         "unexpected reply at DATA: 250 fine",
         0},
        {"dot refused", "dot=550 5.7.1 spam", NULL, {550, 550, 550}, "550 5.7.1 spam", 0},
        {"dot refused for now", "dot=451 4.3.0 disk", "rcpt:1=551 x", {551, 451, 451}, "551 x", 0},
        {"dot answered in many lines",
         "dot=250-2.0.0 Ok|250-at|250 last",
         NULL,
         {250, 250, 250},
         "250 2.0.0 Ok at last",
         1},
        {"dot answered with 354",
         "dot=354 more",
         NULL,
         {0, 0, 0},
         "unexpected reply at final dot: 354 more",
         1},
        {"closes after the dot",
         "dot=close",
         NULL,
         {0, 0, 0},
         "connection lost at final dot (it may have been delivered)",
         1},
        {"of two codes the last counts",
         "dot=250-fine|451 no",
         NULL,
         {451, 451, 451},
         "451 fine no",
         1},
        {"an answer before its question",
         "ehlo=250 hi|250 ok",
         NULL,
         {0, 0, 0},
         "the server spoke out of turn",
         0},
        {"an answer too many",
         "rcpt:3=250 ok|250 ok",
         NULL,
         {0, 0, 0},
         "the server spoke out of turn before DATA",
         0},
        {"a reply with control bytes",
         "dot=550 a\x1b[31m\x01\"",
         NULL,
         {550, 550, 550},
         "550 a [31m ",
         0},
        {"HTTP",
         "connect=HTTP/1.1 400 Bad Request",
         NULL,
         {0, 0, 0},
         "what came at greeting is not SMTP",
         0},
        {"a code of two digits", "mail=25", NULL, {0, 0, 0}, "what came at MAIL is not SMTP", 0},
        {"a code without text", "mail=250", "dot=250", {250, 250, 250}, "250", 1},
        {"a code of four digits",
         "mail=2500 x",
         NULL,
         {0, 0, 0},
         "what came at MAIL is not SMTP",
         0},
        {"a preliminary code", "mail=150 x", NULL, {0, 0, 0}, "what came at MAIL is not SMTP", 0},
        {"refused in mid-text", "text=552 5.3.4 too big", NULL, {552, 552, 552}, "552 5.3.4", 0},
    };
    for (size_t i = 0; i < 2 * sizeof cases / sizeof *cases; i++) {
        struct stage st;
        const char *offers = i % 2 ? "PIPELINING" : "";
        size_t k = i / 2;
        open_stage(&st, offers, (const char *const[]){cases[k].rule, cases[k].rule2, NULL});
        st.mail.nrcpts = 3;
        run(&st);
        for (size_t r = 0; r < 3; r++)
            if (st.rcpts[r].code != cases[k].code[r])
                fail_msg("%s (%s): recipient %zu got %d %s", cases[k].name, offers, r,
                         st.rcpts[r].code, st.rcpts[r].reply);
        /* pipelined, the last RCPTs are under way when a server closes */
        if (strncmp(st.rcpts[0].reply, cases[k].reply, strlen(cases[k].reply)) != 0)
            fail_msg("%s (%s): %s", cases[k].name, offers, st.rcpts[0].reply);
        assert_int_equal(st.delivered, cases[k].delivered);
        close_stage(&st);
    }
}

static void silence_ends_at_the_deadline(void **state)
{
    (void)state;
    static const char *const events[] = {"connect", "ehlo", "mail", "rcpt", "data", "dot"};
    for (size_t i = 0; i < sizeof events / sizeof *events; i++) {
        struct stage st;
        char rule[32];
        snprintf(rule, sizeof rule, "%s=mute", events[i]);
        open_stage(&st, NULL, (const char *const[]){rule, NULL});
        st.mail.deadline = 60;
        run(&st);
        assert_int_equal(st.rcpts[0].code, 0);
        assert_memory_equal(st.rcpts[0].reply, "timed out at ", 13);
        close_stage(&st);
    }
}

static void slowness_does_not_matter(void **state)
{
    (void)state;
    struct stage st;
    const char *const rules[] = {"connect=wait=5", "ehlo=wait=5", "rcpt:2=wait=5", "dot=wait=5",
                                 NULL};
    open_stage(&st, NULL, rules);
    st.mail.nrcpts = 3;
    run(&st);
    assert_int_equal(st.rcpts[2].code, 250);
    assert_int_equal(st.nrcpts, 3);
    close_stage(&st);
}

static void paths_that_cannot_be_written(void **state)
{
    (void)state;
    const struct {
        const char *name;
        struct span path;
        bool good;
    } cases[] = {
        {"plain", SPAN("b@b.example"), true},
        {"an address literal", SPAN("b@[192.0.2.1]"), true},
        {"a source route", SPAN("@x,@y:b@b.example"), true},
        {"UTF-8", SPAN("b\xc3\xbc@b.example"), true},
        {"quoted space", SPAN("\"b b\"@b.example"), true},
        {"quoted quote", SPAN("\"b\\\" b\"@b.example"), true},
        {"nobody", SPAN(""), false},
        {"CRLF and a command", SPAN("b@b.example>\r\nRCPT TO:<evil@x"), false},
        {"LF", SPAN("b\n@b.example"), false},
        {"CR", SPAN("b\r@b.example"), false},
        {"NUL", SPAN("b\0@b.example"), false},
        {"DEL", SPAN("b\x7f@b.example"), false},
        {"parameters", SPAN("b@b.example> NOTIFY=NEVER"), false},
        {"space", SPAN("b b@b.example"), false},
        {"less-than", SPAN("<b@b.example"), false},
        {"greater-than", SPAN("b@b.example>"), false},
        {"a quote that does not end", SPAN("\"b b@b.example"), false},
        {"a backslash hides the ending quote", SPAN("\"b b\\\"@b.example"), false},
        {"quoted LF", SPAN("\"b\nb\"@b.example"), false},
        {"backslash and LF", SPAN("\"b\\\nb\"@b.example"), false},
        {"backslash outside of quotes hides nothing", SPAN("b\\>@b.example"), false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct stage st;
        open_stage(&st, NULL, NULL);
        st.mail.nrcpts = 2;
        st.rcpts[0].path = cases[i].path;
        run(&st);
        if (st.rcpts[0].code != (cases[i].good ? 250 : 501) || st.rcpts[1].code != 250)
            fail_msg("%s: %s", cases[i].name, st.rcpts[0].reply);
        assert_int_equal(st.nrcpts, cases[i].good ? 2 : 1);
        assert_null(strstr(transcript(&st), "evil"));
        close_stage(&st);
        if (cases[i].path.n == 0)
            continue;
        open_stage(&st, NULL, NULL); /* the same as reverse-path: then nothing is sent at all */
        st.mail.reversepath = cases[i].path;
        run(&st);
        assert_int_equal(st.rcpts[0].code, cases[i].good ? 250 : 501);
        assert_int_equal(st.delivered, cases[i].good);
        assert_int_equal(st.sink->seen[SINK_CONNECT], cases[i].good);
        close_stage(&st);
    }
    static uint8_t flood[1001];
    struct stage st;
    open_stage(&st, NULL, NULL);
    st.mail.nrcpts = 2;
    st.rcpts[0].path = span_of(memset(flood, 'x', sizeof flood), 1000);
    st.rcpts[1].path = span_of(flood, 1001);
    run(&st);
    assert_int_equal(st.rcpts[0].code, 250);
    assert_int_equal(st.rcpts[1].code, 501);
    close_stage(&st);
}

static void text_on_the_wire(void **state)
{
    (void)state;
    const struct {
        const char *name;
        struct span bytes;
        const char *wire; /* between DATA and QUIT */
    } cases[] = {
        {"an empty message", SPAN(""), ".\r\n"},
        {"no line end", SPAN("x"), "x\r\n.\r\n"},
        {"a line", SPAN("x\r\n"), "x\r\n.\r\n"},
        {"a dot alone", SPAN(".\r\n"), "..\r\n.\r\n"},
        {"a dot without line end", SPAN("."), "..\r\n.\r\n"},
        {"two dots", SPAN("..\r\n"), "...\r\n.\r\n"},
        {"a dot begins a line", SPAN("a\r\n.b\r\n"), "a\r\n..b\r\n.\r\n"},
        {"dots within stay", SPAN("a.b.\r\n"), "a.b.\r\n.\r\n"},
        {"bare LF", SPAN("a\nb\n"), "a\r\nb\r\n.\r\n"},
        {"bare LF and dot", SPAN("a\n.\nb"), "a\r\n..\r\nb\r\n.\r\n"},
        {"bare CR", SPAN("a\rb\r\n"), "a b\r\n.\r\n"},
        {"bare CR at the end", SPAN("a\r"), "a \r\n.\r\n"},
        {"bare CR, then a dot", SPAN("\r.\r\n"), " .\r\n.\r\n"},
        {"CR CR LF", SPAN("a\r\r\nb\r\n"), "a \r\nb\r\n.\r\n"},
        {"LF CR", SPAN("a\n\rb\r\n"), "a\r\n b\r\n.\r\n"},
        {"empty lines", SPAN("\r\n\r\n"), "\r\n\r\n.\r\n"},
        {"smuggled end", SPAN("a\n.\r\nMAIL FROM:<x>\r\n"), "a\r\n..\r\nMAIL FROM:<x>\r\n.\r\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct stage st;
        open_stage(&st, "", NULL);
        st.mail.bytes = cases[i].bytes.p;
        st.mail.nbytes = cases[i].bytes.n;
        run(&st);
        const char *data = strstr(transcript(&st), "DATA\r\n") + 6;
        size_t n = strlen(cases[i].wire);
        if (strncmp(data, cases[i].wire, n) != 0 || strcmp(data + n, "QUIT\r\n") != 0)
            fail_msg("%s: %s", cases[i].name, data);
        close_stage(&st);
    }
}

/* reliability.md's list of ends that are none: one message arrives, with lawful line ends only. */
static void nothing_can_be_smuggled(void **state)
{
    (void)state;
    const struct span ends[] = {
        SPAN("\n.\n"),         SPAN("\n.\r\n"),    SPAN("\r\n.\n"),       SPAN("\r\n.\r\r\n"),
        SPAN("\r\r\n.\r\r\n"), SPAN("\r\n.\r"),    SPAN("\r\n\0.\r\n"),   SPAN("\r\n.\0\r\n"),
        SPAN("\r\n.\t\r\n"),   SPAN("\r\n. \r\n"), SPAN("\n.\r"),         SPAN("\r.\n"),
        SPAN("\r.\r"),         SPAN("\r.\r\n"),    SPAN("\x0b\n.\x0b\n"), SPAN("\xc2\x85.\xc2\x85"),
        SPAN("\r\n.\r\n"),
    };
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        uint8_t bytes[256];
        struct span after = SPAN("MAIL FROM:<evil@x>\r\nRCPT TO:<b@b>\r\nDATA\r\nhi\r\n");
        struct stage st;
        memcpy(bytes, "Subject: x\r\n\r\nfirst", 19);
        memcpy(bytes + 19, ends[i].p, ends[i].n);
        memcpy(bytes + 19 + ends[i].n, after.p, after.n);
        open_stage(&st, NULL, NULL);
        st.mail.bytes = bytes;
        st.mail.nbytes = 19 + ends[i].n + after.n;
        run(&st);
        assert_int_equal(st.rcpts[0].code, 250);
        assert_int_equal(st.delivered, 1);
        assert_int_equal(st.stray, 0);
        close_stage(&st);
    }
}

static void the_extra_field_comes_first(void **state)
{
    (void)state;
    struct stage st;
    open_stage(&st, NULL, NULL);
    st.mail.extra_field = SPAN("X-Breakwater-Release: v1");
    run(&st);
    assert_int_equal(st.ndata, 26 + 21);
    assert_int_equal(memcmp(st.data, "X-Breakwater-Release: v1\r\nSubject: x\r\n\r\nhello\r\n", 47),
                     0);
    assert_non_null(strstr(transcript(&st), " SIZE=47\r\n"));
    close_stage(&st);
}

/* Lines of all lengths, each made of what is special; byte for byte. */
static void a_large_message_arrives_exactly(void **state)
{
    (void)state;
    enum { SIZE = 6 << 20 };
    uint8_t *bytes = malloc(SIZE);
    size_t n = 0;
    uint32_t x = 1;
    for (size_t line = 0; n + 1100000 < SIZE; line++) {
        size_t len = line < 1000 ? line : line % 37 == 0 ? 65536 + line : line * 7 % 80;
        len = line == 1500 ? 1000000 : len;
        for (size_t i = 0; i < len; i++) {
            uint8_t c = (uint8_t)((x = x * 1664525 + 1013904223) >> 24);
            bytes[n++] = c == '\r' || c == '\n' || i < line % 4 ? '.' : c;
        }
        bytes[n++] = '\r';
        bytes[n++] = '\n';
    }
    struct stage st;
    open_stage(&st, NULL, NULL);
    st.mail.bytes = bytes;
    st.mail.nbytes = n;
    run(&st);
    assert_int_equal(st.rcpts[0].code, 250);
    assert_int_equal(st.ndata, n);
    assert_int_equal(memcmp(st.data, bytes, n), 0);
    close_stage(&st);
    free(bytes);
}

static void where_it_connects_to(void **state)
{
    (void)state;
    static const struct {
        const char *to, *reply;
    } cases[] = {
        {"", "is not an address and port"},
        {"localhost:25", "is not an address and port"},
        {"127.0.0.1", "is not an address and port"},
        {"127.0.0.1:0", "is not an address and port"},
        {"unix:", "is not an address and port"},
        {"unix:/nonexistent/socket", "cannot connect to unix:/nonexistent/socket: No such file"},
        {"127.0.0.1:1", "cannot connect to 127.0.0.1:1: Connection refused"},
    };
    struct stage st;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        open_stage(&st, NULL, NULL);
        st.mail.to = cases[i].to;
        run(&st);
        assert_int_equal(st.rcpts[0].code, 0);
        if (!strstr(st.rcpts[0].reply, cases[i].reply))
            fail_msg("%s: %s", cases[i].to, st.rcpts[0].reply);
        close_stage(&st);
    }
    char path[64];
    snprintf(path, sizeof path, "unix:/tmp/outbound_test.%ld", (long)getpid());
    open_stage(&st, NULL, NULL);
    struct sink *local = sink_new(st.base, path);
    st.mail.to = path;
    send_it(&st);
    event_base_dispatch(st.base);
    assert_int_equal(st.rcpts[0].code, 250);
    while (local->connections)
        event_base_loop(st.base, EVLOOP_ONCE);
    evconnlistener_free(local->listener);
    free(local);
    unlink(path + 5);
    close_stage(&st);
}

static void a_reply_longer_than_allowed(void **state)
{
    (void)state;
    struct stage st;
    char *rule = malloc(100000);
    memset(rule, 'x', 100000);
    memcpy(rule, "dot=250 ", 8); /* an echo of a long Message-ID: still a delivery */
    rule[2000] = '\0';
    open_stage(&st, NULL, (const char *const[]){rule, NULL});
    run(&st);
    assert_int_equal(st.rcpts[0].code, 250);
    assert_true(strlen(st.rcpts[0].reply) < sizeof st.rcpts[0].reply);
    close_stage(&st);

    memset(rule, 'x', 100000);
    memcpy(rule, "mail=250 ", 9);
    rule[99999] = '\0';
    open_stage(&st, NULL, (const char *const[]){rule, NULL});
    run(&st);
    assert_string_equal(st.rcpts[0].reply, "what came at MAIL is not SMTP");
    close_stage(&st);

    strcpy(rule, "mail=250-x"); /* 100 lines are a reply, 101 are not */
    for (int i = 2; i < 100; i++)
        strcat(rule, "|250-x");
    strcat(rule, "|250 x");
    open_stage(&st, NULL, (const char *const[]){rule, NULL});
    run(&st);
    assert_int_equal(st.rcpts[0].code, 250);
    close_stage(&st);
    rule[strlen(rule) - 2] = '-';
    strcat(rule, "|250 x");
    open_stage(&st, NULL, (const char *const[]){rule, NULL});
    run(&st);
    assert_int_equal(st.rcpts[0].code, 0);
    close_stage(&st);
    free(rule);
}

static void cancelled_means_not_done(void **state)
{
    (void)state;
    static const char *const events[] = {NULL, "connect", "mail", "dot"};
    for (size_t i = 0; i < sizeof events / sizeof *events; i++) {
        struct stage st;
        char rule[32];
        snprintf(rule, sizeof rule, "%s=mute", events[i] ? events[i] : "quit");
        open_stage(&st, NULL, (const char *const[]){events[i] ? rule : NULL, NULL});
        send_it(&st);
        if (events[i]) {
            while (!st.sink->nrules || !st.sink->seen[st.sink->rules[0].event])
                event_base_loop(st.base, EVLOOP_ONCE);
        }
        outbound_cancel(&st.running);
        assert_null(st.running);
        outbound_cancel(&st.running);
        event_base_loop(st.base, EVLOOP_NONBLOCK);
        while (st.sink->connections)
            event_base_loop(st.base, EVLOOP_ONCE);
        assert_int_equal(st.done, 0);
        close_stage(&st);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_said),
        cmocka_unit_test(what_is_made_of_replies),
        cmocka_unit_test(paths_that_cannot_be_written),
        cmocka_unit_test(text_on_the_wire),
        cmocka_unit_test(the_extra_field_comes_first),
        cmocka_unit_test(nothing_can_be_smuggled),
        cmocka_unit_test(a_large_message_arrives_exactly),
        cmocka_unit_test(where_it_connects_to),
        cmocka_unit_test(a_reply_longer_than_allowed),
        cmocka_unit_test(slowness_does_not_matter),
        cmocka_unit_test(silence_ends_at_the_deadline),
        cmocka_unit_test(cancelled_means_not_done),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
