/*
 * milter_test.c - the milter door against a transaction that only takes notes: what the door tells
 * the tx, what it tells the MTA, and when. Real verdicts are tested through the real tx
 * (law_test.c) and the real daemon (tests/e2e).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "milter_peer.h"

#include "tx_notes.h"

/* ---- the door on its loop ---- */

static struct worker worker;
static const struct listener listener = {.name = (char *)"in"};

static int setup(void **state)
{
    (void)state;
    worker.base = event_base_new();
    log_open("stderr", LOG_NOTHING);
    return worker.base ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    event_base_free(worker.base);
    return 0;
}

/* Nothing is left of the test before. */
static int fresh(void **state)
{
    (void)state;
    memset(&verdict, 0, sizeof verdict);
    nstory = 0;
    story[0] = 0;
    judgements = commits = 0;
    waiting = NULL;
    return 0;
}

static int nothing_left(void **state)
{
    (void)state;
    return living == 0 && worker.sessions == 0 ? 0 : -1;
}

enum { V6_STEPS = 0x1fffff, V6_ACTIONS = 0x1ff };

/*
 * One frame per letter, as Postfix would send it: O offer of version 6, o of version 2, m macros
 * with a queue id for the command that follows, h the empty macro packet Postfix sends for HELO;
 * r another recipient, e end of message with a last piece of body.
 */
static void add_frames(struct wire *w, const char *letters)
{
    for (const char *l = letters; *l; l++) {
        char macros[] = "Ri\0004T7Qid";
        switch (*l) {
        case ' ':
            break;
        case 'O':
            wire_offer(w, 6, V6_ACTIONS, V6_STEPS);
            break;
        case 'o':
            wire_offer(w, 2, 0x3f, 0x7f);
            break;
        case 'm':
            macros[0] = l[1];
            wire_frame(w, 'D', macros, sizeof macros);
            break;
        case 'h':
            WIRE(w, 'D', "H");
            break;
        case 'C':
            WIRE(w, 'C',
                 "mx.example\0004\x9c\x40"
                 "192.0.2.7\0");
            break;
        case 'H':
            WIRE(w, 'H', "helo.example\0");
            break;
        case 'M':
            WIRE(w, 'M', "<a@a.example>\0SIZE=1000\0BODY=8BITMIME\0");
            break;
        case 'R':
            WIRE(w, 'R', "<b@b.example>\0");
            break;
        case 'r':
            WIRE(w, 'R', "<c@c.example>\0NOTIFY=NEVER\0");
            break;
        case 'L':
            WIRE(w, 'L', "Subject\0 hello\n\tworld\0");
            break;
        case 'B':
            WIRE(w, 'B', "a body\r\n");
            break;
        case 'e':
            WIRE(w, 'E', "the rest\r\n");
            break;
        case 'U':
            WIRE(w, 'U', "XFOO\0\xff\0");
            break;
        default: /* T N E A Q K */
            wire_frame(w, *l, NULL, 0);
        }
    }
}

static void session(struct peer *p, const char *letters)
{
    struct wire w = {0};
    add_frames(&w, letters);
    peer_open(p, &worker, &listener);
    peer_send(p, w.p, w.n);
    wire_free(&w);
}

static void says(const struct peer *p, const char *expected)
{
    char got[1024];
    peer_commands(p, got, sizeof got);
    assert_string_equal(got, expected);
}

/* ---- sessions ---- */

static void a_message_of_postfix(void **state)
{
    (void)state;
    struct peer p;
    session(&p, "O mC hH mM mR r mT L mL N B mE");
    says(&p, "Oc");
    assert_string_equal(story,
                        "begin(in) from(<a@a.example>|SIZE=1000 BODY=8BITMIME) "
                        "client(192.0.2.7 mx.example helo.example) auth() to(<b@b.example>|) "
                        "to(<c@c.example>|NOTIFY=NEVER) field(Subject: hello\n\tworld) "
                        "field(Subject: hello\n\tworld) eoh body(8) judge(4T7Qid) commit end\n");
    peer_close(&p);
}

static void a_message_of_an_old_mta_gets_an_answer_to_every_command(void **state)
{
    (void)state;
    struct peer p;
    session(&p, "o C H M R L N B E");
    says(&p, "Occcccccc");
    assert_string_equal(strstr(story, "field("),
                        "field(Subject:  hello\n\tworld) eoh body(8) judge() commit end\n");
    peer_close(&p);
}

static void an_offer_of_symbols_is_taken(void **state)
{
    (void)state;
    struct peer p;
    struct span data = {NULL, 0};
    size_t at = 0;
    session(&p, "O");
    assert_int_equal(peer_frame(&p, &at, &data), 'O');
    static const char expected[] = "\0\0\0\6\0\0\1\x19\0\x1f\xf1\x80"
                                   "\0\0\0\0\0\0\0\0\1\0\0\0\0\2i {auth_authen}\0\0\0\0\3i\0"
                                   "\0\0\0\4i\0\0\0\0\5i\0\0\0\0\6";
    assert_int_equal(data.n, sizeof expected);
    assert_memory_equal(data.p, expected, sizeof expected);
    peer_close(&p);
}

/* What may follow what (A144-A167): letters sent, letters answered, is the session closed then? */
static void orders(void **state)
{
    (void)state;
    static const struct {
        const char *letters, *answers;
        bool closed;
    } cases[] = {
        {"", "", false},
        {"O", "O", false},
        {"OO", "O", true},
        {"C", "", true},
        {"M", "", true},
        {"E", "", true},
        {"Q", "", true},
        {"A", "", false},
        {"AAAAAAO", "O", false},
        {"hO", "O", false},
        {"OC", "O", false},
        {"OCC", "O", true},
        {"OCH", "O", false},
        {"OCHH", "O", false},
        {"OM", "O", false},
        {"OCM", "O", false},
        {"OCR", "O", true},
        {"OCT", "O", true},
        {"OCL", "O", true},
        {"OCN", "O", true},
        {"OCB", "O", true},
        {"OCE", "O", true},
        {"OCMR", "O", false},
        {"OCMRM", "O", false},
        {"OCMRH", "O", false},
        {"OCMRHR", "O", true},
        {"OCMRE", "O", true},
        {"OCMRB", "O", true},
        {"OCMRTR", "O", true},
        {"OCMRTE", "O", true},
        {"OCMRTLR", "O", true},
        {"OCMRTLT", "O", true},
        {"OCMRTLB", "O", true},
        {"OCMRTLE", "O", true},
        {"OCMRTLNN", "O", true},
        {"OCMRTLNL", "O", true},
        {"OCMRTLNE", "Oc", false},
        {"OCMRNE", "Oc", false},
        {"OCMRTLNe", "Oc", false},
        {"OCMRTLNBBBe", "Oc", false},
        {"OCMRTLNBEB", "Oc", true},
        {"OCMRTLNBEE", "Oc", true},
        {"OCMRTLNBEA", "Oc", false},
        {"OCMRTLNBEAAA", "Oc", false},
        {"OCMRTLNBEMRTLNBE", "Occ", false},
        {"OCMRTLNBEMAMRTLNBE", "Occ", false},
        {"OCMRTLNBEQ", "Oc", true},
        {"OCMRTLNBQ", "O", true},
        {"OCMRTLNBEK", "Oc", false},
        {"OCMRTLNBEKM", "Oc", false},
        {"OCMRTLNBEKCMRTLNBE", "Occ", false},
        {"OCMRKCHMRTLNBE", "Oc", false},
        {"OCMRTLNBAMRTLNBE", "Oc", false},
        {"OCMRAR", "O", true},
        {"OCUUUMU", "O", false},
        {"OCz", "O", true},
        {"oCUz", "Occ", true},
        {"oCHMRAMRLNBE", "Occcccccccc", false},
        {"OhHmM", "O", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct peer p;
        char got[64];
        session(&p, cases[i].letters);
        peer_commands(&p, got, sizeof got);
        if (strcmp(got, cases[i].answers) != 0 || p.closed != cases[i].closed)
            fail_msg("%s: answers %s, %s", cases[i].letters, got, p.closed ? "closed" : "open");
        peer_close(&p);
        assert_int_equal(living, 0);
        assert_int_equal(worker.sessions, 0);
    }
}

/* Bytes no MTA would send (A140-A162), after the letters of a good beginning. */
static void abuse(void **state)
{
    (void)state;
    static const struct {
        const char *what, *before;
        struct span bytes;
        const char *after, *answers;
        bool closed;
    } cases[] = {
#define D(literal) {(const uint8_t *)(literal), sizeof(literal) - 1}
        {"length 0", "OC", D("\0\0\0\0"), "", "O", true},
        {"length 2^32-1", "OC", D("\xff\xff\xff\xff"), "", "O", true},
        {"a short offer", "", D("\0\0\0\1O"), "", "", true},
        {"an offer of 11 bytes", "", D("\0\0\0\14O\0\0\0\6\0\0\1\xff\0\0\0"), "", "", true},
        {"an offer with something after it", "", D("\0\0\0\16O\0\0\0\6\0\0\1\xff\0\x1f\xff\xffx"),
         "CMRTNBE", "Oc", false},
        {"telnet", "", D("EHLO x\r\n"), "", "", true},
        {"command NUL", "OC", D("\0\0\0\1\0"), "", "O", true},
        {"command Z", "OC", D("\0\0\0\1Z"), "", "O", true},
        {"command 0xff", "OC", D("\0\0\0\1\xff"), "", "O", true},
        {"macros for nothing", "OC", D("\0\0\0\1D"), "MRTNBE", "Oc", false},
        {"macros with an odd count", "OC", D("\0\0\0\4DMi\0"), "MRTNBE", "Oc", false},
        {"macros without NUL", "OC", D("\0\0\0\4DMix"), "MRTNBE", "Oc", false},
        {"macros for an unknown stage", "OC", D("\0\0\0\2Dz"), "MRTNBE", "Oc", false},
        {"a client without NUL", "O", D("\0\0\0\2Cx"), "MRTNBE", "Oc", false},
        {"a client of nothing", "O", D("\0\0\0\1C"), "MRTNBE", "Oc", false},
        {"HELO of nothing", "OC", D("\0\0\0\1H"), "MRTNBE", "Oc", false},
        {"MAIL of nothing", "OC", D("\0\0\0\1M"), "", "O", true},
        {"MAIL of an empty string", "OC", D("\0\0\0\2M\0"), "RTNBE", "Oc", false},
        {"MAIL without <>", "OC", D("\0\0\0\5Ma@b\0"), "RTNBE", "Oc", false},
        {"RCPT of nothing", "OCM", D("\0\0\0\1R"), "", "O", true},
        {"RCPT of an empty string", "OCM", D("\0\0\0\2R\0"), "TNBE", "Oc", false},
        {"a field of nothing", "OCMRT", D("\0\0\0\1L"), "NBE", "Oc", false},
        {"a field without a name", "OCMRT", D("\0\0\0\4L\0v\0"), "NBE", "Oc", false},
        {"a field with ':' and blank", "OCMRT", D("\0\0\0\7La: \0v\0"), "NBE", "Oc", false},
        {"a field without NUL", "OCMRT", D("\0\0\0\2La"), "NBE", "Oc", false},
        {"a field with a bare LF", "OCMRT", D("\0\0\0\7La\0x\ny\0"), "NBE", "Oc", false},
        {"an empty body frame", "OCMRTN", D("\0\0\0\1B"), "E", "Oc", false},
        {"an unknown command with NUL", "OC", D("\0\0\0\4U\0\xff\0"), "MRTNBE", "Oc", false},
#undef D
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int bytewise = 0; bytewise < 2; bytewise++) {
            struct wire w = {0};
            struct peer p;
            char got[64];
            add_frames(&w, cases[i].before);
            wire_add(&w, cases[i].bytes.p, cases[i].bytes.n);
            add_frames(&w, cases[i].after);
            peer_open(&p, &worker, &listener);
            for (size_t at = 0; at < w.n; at += bytewise ? 1 : w.n)
                peer_send(&p, w.p + at, bytewise ? 1 : w.n);
            peer_commands(&p, got, sizeof got);
            if (strcmp(got, cases[i].answers) != 0 || p.closed != cases[i].closed)
                fail_msg("%s: answers %s, %s", cases[i].what, got, p.closed ? "closed" : "open");
            peer_close(&p);
            wire_free(&w);
            assert_int_equal(living, 0);
            assert_int_equal(worker.sessions, 0);
        }
}

/* Frames of a size that must be taken, and of the first that must not. */
static void large_frames(void **state)
{
    (void)state;
    static const struct {
        const char *before;
        char command;
        size_t bytes;
        const char *after, *answers;
        bool closed;
    } cases[] = {
        {"OCMRTLN", 'B', 65535, "E", "Oc", false},
        {"OCMRTLN", 'B', 65536, "E", "O", true},
        {"OCMRTL", 'L', 65536, "NE", "Oc", false},
        {"OCMRTL", 'L', 1 << 20, "NE", "Oc", false},
        {"OCMRTL", 'L', (1 << 20) + 1, "NE", "O", true},
        {"OC", 'D', 65535, "MRTNE", "Oc", false},
        {"OC", 'D', 65536, "MRTNE", "O", true},
        {"OC", 'M', 65535, "RTNE", "Oc", false},
        {"OCM", 'R', 65535, "TNE", "Oc", false},
        {"O", 'C', 65535, "MRTNE", "Oc", false},
        {"OC", 'H', 65535, "MRTNE", "Oc", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct wire w = {0};
        struct peer p;
        char got[64];
        char *data = calloc(1, cases[i].bytes);
        memset(data, 'x', cases[i].bytes / 2);
        add_frames(&w, cases[i].before);
        wire_frame(&w, cases[i].command, data, cases[i].bytes);
        add_frames(&w, cases[i].after);
        nstory = 0;
        peer_open(&p, &worker, &listener);
        peer_send(&p, w.p, w.n);
        peer_commands(&p, got, sizeof got);
        if (strcmp(got, cases[i].answers) != 0 || p.closed != cases[i].closed)
            fail_msg("%c of %zu bytes: answers %s, %s", cases[i].command, cases[i].bytes, got,
                     p.closed ? "closed" : "open");
        peer_close(&p);
        wire_free(&w);
        free(data);
    }
}

/* ---- verdicts ---- */

static void verdicts(void **state)
{
    (void)state;
    static const struct {
        const char *what, *held, *reply, *tag;
        unsigned strip;
        const char *offer, *answers;
        struct span last; /* data of the first answer after the offer's */
    } cases[] = {
#define D(literal) {(const uint8_t *)(literal), sizeof(literal) - 1}
        {"all pass", NULL, NULL, NULL, 0, "O", "Oc", D("")},
        {"all held", "<b@b.example> <c@c.example>", NULL, "t", 2, "O", "Od", D("")},
        {"one of two held", "<b@b.example>", NULL, NULL, 0, "O", "O-c", D("<b@b.example>\0")},
        {"the other held", "<c@c.example>", NULL, NULL, 0, "O", "O-c", D("<c@c.example>\0")},
        {"refused for now", NULL, "451 4.7.0 50% of it", NULL, 0, "O", "Oy",
         D("451 4.7.0 50%% of it\0")},
        {"rejected", NULL, "550 5.4.6 no", "t", 1, "O", "Oy", D("550 5.4.6 no\0")},
        {"tagged", NULL, NULL, "act=tag", 0, "O", "Ohc", D("X-Breakwater\0 act=tag\0")},
        {"tagged, hostile", NULL, NULL, "a\r\nBcc: x", 0, "O", "Ohc",
         D("X-Breakwater\0 a??Bcc: x\0")},
        {"a release header", NULL, NULL, NULL, 1, "O", "Omc",
         D("\0\0\0\1X-Breakwater-Release\0\0")},
        {"three release headers, the last first", NULL, NULL, NULL, 3, "O", "Ommmc",
         D("\0\0\0\3X-Breakwater-Release\0\0")},
        {"all at once", "<b@b.example>", NULL, "t", 1, "O", "O-mhc", D("<b@b.example>\0")},
#undef D
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct peer p;
        char got[64];
        size_t at = 0;
        struct span data = {NULL, 0};
        verdict.held = cases[i].held;
        verdict.reply = cases[i].reply;
        verdict.tag = cases[i].tag;
        verdict.strip = cases[i].strip;
        commits = 0;
        session(&p, "OCMRrTLNBE");
        peer_commands(&p, got, sizeof got);
        if (strcmp(got, cases[i].answers) != 0)
            fail_msg("%s: answers %s", cases[i].what, got);
        peer_frame(&p, &at, &data);
        peer_frame(&p, &at, &data);
        if (!span_eq(data, cases[i].last))
            fail_msg("%s: said %.*s", cases[i].what, SPAN_ARG(data));
        assert_int_equal(commits, 1);
        peer_close(&p);
    }
}

static void a_stamp_is_added_after_the_tag(void **state)
{
    (void)state;
    struct peer p;
    size_t at = 0;
    struct span data = {NULL, 0};
    verdict.tag = "act=tag";
    verdict.stamp = "v=1; k=0";
    session(&p, "OCMRLNBE");
    says(&p, "Ohhc");
    for (int i = 0; i < 3; i++)
        peer_frame(&p, &at, &data);
    assert_true(span_eq(data, SPAN("X-Breakwater-Trace\0 v=1; k=0\0")));
    verdict.stamp = NULL;
    peer_close(&p);
}

/* A175: without the functions we wanted, the mail still gets through. */
static void an_mta_that_grants_nothing(void **state)
{
    (void)state;
    struct wire w = {0};
    struct peer p;
    verdict.tag = "act=tag";
    verdict.strip = 2;
    wire_offer(&w, 6, 0, V6_STEPS);
    add_frames(&w, "CMRTLNBE");
    peer_open(&p, &worker, &listener);
    peer_send(&p, w.p, w.n);
    says(&p, "Oc");
    assert_non_null(strstr(story, "indivisible"));
    peer_close(&p);
    wire_free(&w);
}

static void without_leading_blanks_the_tag_has_none(void **state)
{
    (void)state;
    struct peer p;
    size_t at = 0;
    struct span data = {NULL, 0};
    verdict.tag = "act=tag";
    session(&p, "oCMRLNBE");
    says(&p, "Occcccchc");
    for (int i = 0; i < 8; i++)
        peer_frame(&p, &at, &data);
    assert_true(span_eq(data, SPAN("X-Breakwater\0act=tag\0")));
    peer_close(&p);
}

/* ---- waiting ---- */

static void nothing_is_read_before_the_verdict(void **state)
{
    (void)state;
    struct peer p;
    verdict.wait = true;
    session(&p, "OCMRTLNBE mMRTLNBE");
    says(&p, "O");
    assert_int_equal(judgements, 1);
    assert_non_null(waiting);
    waiting->done(waiting->arg, waiting);
    peer_turn(&p);
    says(&p, "Oc");
    assert_int_equal(judgements, 2);
    waiting->done(waiting->arg, waiting);
    peer_turn(&p);
    says(&p, "Occ");
    assert_int_equal(commits, 2);
    peer_close(&p);
}

static void an_mta_that_leaves_while_we_judge_gets_nothing(void **state)
{
    (void)state;
    struct peer p;
    verdict.wait = true;
    session(&p, "OCMRTLNBE");
    assert_non_null(waiting);
    peer_close(&p);
    assert_int_equal(living, 0);
    assert_int_equal(commits, 0);
}

/* While we judge no more than one buffer is read, however much is sent. */
static void an_mta_that_talks_on_is_not_listened_to(void **state)
{
    (void)state;
    struct peer p;
    char noise[4096] = {0};
    ssize_t sent = 0, r;
    verdict.wait = true;
    session(&p, "OCMRTLNBE");
    int small = 1 << 16;
    setsockopt(p.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    for (int idle = 0; idle < 3; idle++)
        while ((r = send(p.fd, noise, sizeof noise, MSG_NOSIGNAL)) > 0) {
            idle = 0;
            sent += r;
            assert_true(sent < 1 << 20);
            event_base_loop(worker.base, EVLOOP_NONBLOCK);
        }
    waiting->done(waiting->arg, waiting);
    peer_turn(&p);
    says(&p, "Oc");
    assert_true(p.closed); /* noise: frames of length 0 */
    peer_close(&p);
}

/* A170: a reply that cannot be written stays, the tx with it, and nothing more is read. */
static void a_reader_that_never_reads(void **state)
{
    (void)state;
    struct wire w = {0};
    struct peer p;
    enum { RECIPIENTS = 2000, LENGTH = 600 };
    char rcpt[LENGTH], all[LENGTH + 1];
    memset(rcpt, 'x', sizeof rcpt);
    rcpt[LENGTH - 1] = 0;
    memcpy(all, rcpt, LENGTH);
    verdict.held = all;
    add_frames(&w, "OCMR");
    for (int i = 0; i < RECIPIENTS; i++)
        wire_frame(&w, 'R', rcpt, sizeof rcpt);
    add_frames(&w, "TNBE MRTNBE");
    peer_open(&p, &worker, &listener);
    nstory = 0;
    for (size_t at = 0; at < w.n;) { /* writes without ever reading */
        ssize_t r = send(p.fd, w.p + at, w.n - at, MSG_NOSIGNAL);
        at += r > 0 ? (size_t)r : 0;
        event_base_loop(worker.base, EVLOOP_NONBLOCK);
        nstory = 0;
        if (judgements)
            break;
    }
    assert_int_equal(judgements, 1);
    assert_int_equal(commits, 0);
    assert_int_equal(living, 1);
    peer_turn(&p); /* now it reads */
    assert_int_equal(commits, judgements);
    assert_int_equal(living, 0);
    peer_close(&p);
    wire_free(&w);
}

/* ---- every byte ---- */

static const char two_messages[] =
    "O mC hH mM mR r mT L L N B B mE A mM R A MR mT L N e K C M r T L N B E Q";

static void split_at_every_byte_says_the_same(void **state)
{
    (void)state;
    struct wire w = {0};
    struct peer p;
    add_frames(&w, two_messages);
    verdict.held = "<b@b.example>";
    peer_open(&p, &worker, &listener);
    peer_send(&p, w.p, w.n);
    assert_true(p.closed);
    char *whole = strdup(story);
    char answers[64];
    peer_commands(&p, answers, sizeof answers);
    assert_string_equal(answers, "O-cdc");
    struct wire said = {0};
    wire_add(&said, p.answer.p, p.answer.n);
    peer_close(&p);
    for (size_t cut = 0; cut < w.n; cut++) { /* in two pieces; last, every byte by itself */
        nstory = 0;
        peer_open(&p, &worker, &listener);
        if (cut == 0) {
            for (size_t i = 0; i < w.n; i++)
                peer_send(&p, w.p + i, 1);
        } else {
            peer_send(&p, w.p, cut);
            peer_send(&p, w.p + cut, w.n - cut);
        }
        assert_string_equal(story, whole);
        assert_int_equal(p.answer.n, said.n);
        assert_memory_equal(p.answer.p, said.p, said.n);
        peer_close(&p);
    }
    wire_free(&said);
    wire_free(&w);
    free(whole);
}

/* F37, A168: wherever the MTA hangs up, nothing is left and nothing is passed that it did not
 * hear of. */
static void hung_up_after_every_byte(void **state)
{
    (void)state;
    struct wire w = {0};
    add_frames(&w, two_messages);
    for (size_t cut = 0; cut <= w.n; cut++)
        for (int wait = 0; wait < 2; wait++) {
            struct peer p;
            char answers[64];
            nstory = 0;
            judgements = commits = 0;
            verdict.wait = wait;
            peer_open(&p, &worker, &listener);
            peer_send(&p, w.p, cut);
            peer_commands(&p, answers, sizeof answers);
            int heard = 0;
            for (const char *a = answers; *a; a++)
                heard += *a == 'c';
            assert_int_equal(commits, heard);
            peer_close(&p);
            assert_int_equal(living, 0);
            assert_int_equal(worker.sessions, 0);
        }
    wire_free(&w);
}

/* Hanging up in the same breath as the end of the message: the reply reaches nobody. */
static void hung_up_before_the_reply(void **state)
{
    (void)state;
    struct wire w = {0};
    struct peer p;
    add_frames(&w, "OCMRTLNBE");
    peer_open(&p, &worker, &listener);
    assert_int_equal(send(p.fd, w.p, w.n, MSG_NOSIGNAL), (ssize_t)w.n);
    peer_close(&p);
    assert_int_equal(judgements, 1);
    assert_int_equal(commits, 0);
    assert_int_equal(living, 0);
    wire_free(&w);
}

static void macros_belong_to_one_message(void **state)
{
    (void)state;
    struct peer p;
    session(&p, "OC mM R T N E M R T N E mA M R T N E");
    assert_non_null(strstr(story, "judge(4T7Qid)"));
    const char *second = strchr(story, '\n');
    assert_null(strstr(second, "4T7Qid"));
    assert_int_equal(judgements, 3);
    peer_close(&p);
}

static void the_next_client_is_somebody_else(void **state)
{
    (void)state;
    struct wire w = {0};
    struct peer p;
    add_frames(&w, "OCHMRTNE K");
    WIRE(&w, 'C', "\0U");
    add_frames(&w, "MRTNE");
    peer_open(&p, &worker, &listener);
    peer_send(&p, w.p, w.n);
    says(&p, "Occ");
    assert_non_null(strstr(story, "client(192.0.2.7 mx.example helo.example)"));
    assert_non_null(strstr(strchr(story, '\n'), "client(  )"));
    peer_close(&p);
    wire_free(&w);
}

/* A169, in small. */
static void many_idle_sessions(void **state)
{
    (void)state;
    enum { MANY = 200 };
    static struct peer p[MANY];
    for (int i = 0; i < MANY; i++)
        session(&p[i], "OC");
    assert_int_equal(worker.sessions, MANY);
    for (int i = 0; i < MANY; i++) {
        says(&p[i], "O");
        peer_close(&p[i]);
    }
}

/* F42: between messages a session ends at once, within one after its reply. */
static void asked_to_leave(void **state)
{
    (void)state;
    static const struct {
        const char *before;
        bool at_once;
        const char *after, *answers;
    } cases[] = {
        {"", true, "", ""},
        {"O", true, "", "O"},
        {"OC", true, "", "O"},
        {"OCMRTLNBE", true, "", "Oc"},
        {"OCMRTLNBA", true, "", "O"},
        {"OCM", false, "RTLNBE", "Oc"},
        {"OCMRTLNB", false, "E", "Oc"},
        {"OCMR", false, "A", "O"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct wire w = {0};
        struct peer p;
        worker.leaving = false;
        session(&p, cases[i].before);
        worker.leaving = true;
        worker.connections->leave(worker.connections, false);
        peer_turn(&p);
        assert_int_equal(p.closed, cases[i].at_once);
        add_frames(&w, cases[i].after);
        peer_send(&p, w.p, w.n);
        says(&p, cases[i].answers);
        assert_true(p.closed);
        assert_null(worker.connections);
        peer_close(&p);
        wire_free(&w);
    }
    worker.leaving = false;
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, fresh, nothing_left)
    const struct CMUnitTest tests[] = {
        T(a_message_of_postfix),
        T(a_message_of_an_old_mta_gets_an_answer_to_every_command),
        T(an_offer_of_symbols_is_taken),
        T(orders),
        T(abuse),
        T(large_frames),
        T(verdicts),
        T(an_mta_that_grants_nothing),
        T(a_stamp_is_added_after_the_tag),
        T(without_leading_blanks_the_tag_has_none),
        T(macros_belong_to_one_message),
        T(the_next_client_is_somebody_else),
        T(nothing_is_read_before_the_verdict),
        T(an_mta_that_leaves_while_we_judge_gets_nothing),
        T(an_mta_that_talks_on_is_not_listened_to),
        T(a_reader_that_never_reads),
        T(hung_up_before_the_reply),
        T(split_at_every_byte_says_the_same),
        T(hung_up_after_every_byte),
        T(asked_to_leave),
        T(many_idle_sessions),
    };
#undef T
    return cmocka_run_group_tests(tests, setup, teardown);
}
