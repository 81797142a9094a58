/* conversation_test.c - subjects, references, marks of machines and own words: one case a line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "conversing.h"
#include "ownwords.h"
#include "topic.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static struct fingerprints read_all(struct conversation *c, const char *raw, struct envelope *e)
{
    struct message *m = message_new(arena);
    struct span body = message_add_raw(m, span_str(raw));
    message_end_header(m);
    struct fingerprinter *f = fingerprint_begin(arena, &keys, m);
    struct fingerprints fp;
    fingerprint_body(f, span_from(body, m->blank));
    fingerprint_end(f, &fp);
    conversation_read(c, arena, &keys, m, &fp, e);
    return fp;
}

static struct conversation read_raw(const char *raw)
{
    struct envelope e = {.reversepath = SPAN("a@a.example")};
    struct conversation c;
    read_all(&c, raw, &e);
    return c;
}

static uint64_t id(const char *text)
{
    return sip_hash(&keys, SIP_MISC, span_str(text));
}

static void test_subjects(void **state)
{
    (void)state;
    static const struct {
        const char *subject, *base;
        unsigned prefixes;
        bool reply, automatic;
    } cases[] = {
        {"Quarterly  Figures", "quarterly figures", 0, false, false},
        {"Re: Quarterly figures", "quarterly figures", 1, true, false},
        {"RE: AW: Re: sv: Antw: VS: odp: figures", "figures", 7, true, false},
        {"Re[2]: figures", "figures", 1, true, false},
        {"Re (3): figures", "figures", 1, true, false},
        {"Re^4: figures", "figures", 1, true, false},
        {"Re : figures", "figures", 1, true, false},
        {"R: I: figures", "figures", 2, true, false},
        {"Fwd: FW: WG: Tr: figures", "figures", 4, false, false},
        {"Re\xef\xbc\x9a figures", "figures", 1, true, false},
        {"\xe5\x9b\x9e\xe5\xa4\x8d: figures", "figures", 1, true, false},
        {"[list] Re: [other] figures", "figures", 1, true, false},
        {"***SPAM*** Re: figures", "figures", 1, true, false},
        {"[list] ***UNCHECKED*** figures", "figures", 0, false, false},
        {"*** figures", "*** figures", 0, false, false},
        {"***figures** and more", "***figures** and more", 0, false, false},
        {"***figures***", "***figures***", 0, false, false},
        {"[a tag that is all there is]", "[a tag that is all there is]", 0, false, false},
        {"Regarding: figures", "regarding: figures", 0, false, false},
        {"Re figures", "re figures", 0, false, false},
        {"Reading: chapter 2", "reading: chapter 2", 0, false, false},
        {"Re[x]: figures", "re[x]: figures", 0, false, false},
        {"Automatic reply: figures", "figures", 1, true, true},
        {"Out of Office AutoReply: figures", "figures", 1, true, true},
        {"Abwesenheitsnotiz: Re: figures", "figures", 2, true, true},
        {"Out of office tomorrow, lunch on Friday?", "out of office tomorrow, lunch on friday?", 0,
         false, false},
        {"Vacation plans", "vacation plans", 0, false, false},
        {"Re: Automatic reply: figures", "figures", 2, true, false},
        {"Undeliverable: figures", "figures", 1, true, true},
        {"Undelivered Mail Returned to Sender", "undelivered mail returned to sender", 1, true,
         true},
        {"Delivery Status Notification (Failure)", "(failure)", 1, true, true},
        {"failure noticed", "failure noticed", 0, false, false},
        {"=?utf-8?q?Re=3A_figures?=", "figures", 1, true, false},
        {"=?UTF-8?B?UmU6IGZpZ3VyZXM=?=", "figures", 1, true, false},
        {"=?iso-8859-1?q?Gr=FC=DFe?=",
         "gr\xc3\xbc\xc3\x9f"
         "e",
         0, false, false},
        {"=?us-ascii*en?q?fig?= =?us-ascii?q?ures?=", "figures", 0, false, false},
        {"=?utf-8?q?a?= plain =?utf-8?q?b?=", "a plain b", 0, false, false},
        {"=?utf-8?q?R=C3=A9ponse_automatique?= : figures", "figures", 1, true, true},
        {"=?utf-8?x?odd?=", "=?utf-8?x?odd?=", 0, false, false},
        {"=?utf-8?q?no end", "=?utf-8?q?no end", 0, false, false},
        {"=?=?=?", "=?=?=?", 0, false, false},
        {"Re:", "", 1, true, false},
        {"", "", 0, false, false},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct topic t;
        topic_read(&t, arena, span_str(cases[i].subject));
        if (!span_eq(t.base, span_str(cases[i].base)) || t.prefixes != cases[i].prefixes ||
            t.reply != cases[i].reply || t.automatic != cases[i].automatic)
            fail_msg("\"%s\": \"%.*s\", %u prefixes, reply %d, automatic %d", cases[i].subject,
                     SPAN_ARG(t.base), t.prefixes, t.reply, t.automatic);
    }
}

static void test_long_subjects_are_cut(void **state)
{
    (void)state;
    static char subject[3 * TOPIC_BYTES];
    struct topic t;
    for (size_t i = 0; i < sizeof subject; i++)
        subject[i] = "Re: "[i % 4];
    topic_read(&t, arena, span_of(subject, sizeof subject));
    assert_int_equal(t.prefixes, TOPIC_BYTES / 4);
    assert_int_equal(t.base.n, 0);
}

static void test_references(void **state)
{
    (void)state;
    struct conversation c = read_raw("Message-ID: <own@x>\nSubject: s\n\nbody");
    assert_true(c.own == id("own@x") && c.root == c.own && c.nreferences == 0 && !c.reply);
    c = read_raw(
        "Message-ID: <own@x>\nReferences: <root@x> <a@x>\n\t<b@x>\nIn-Reply-To: <b@x>\n\n");
    assert_true(c.root == id("root@x") && c.nreferences == 3 && c.reply);
    assert_true(c.reference[1] == id("b@x") && c.reference[2] == id("a@x"));
    c = read_raw("In-Reply-To: Your message of Monday <m@x> and <n@x>\n\n");
    assert_true(c.root == id("m@x") && c.nreferences == 1 && c.own == 0);
    c = read_raw("In-Reply-To: Your message m@x of Monday\n\n");
    assert_true(c.root == id("m@x"));
    c = read_raw("In-Reply-To: your message of Monday\n\n");
    assert_true(c.root == 0 && !c.reply);
    c = read_raw("References: <ro ot@x\n\n");
    assert_true(c.root == id("root@x"));
    c = read_raw("References: <> < >\n\n");
    assert_true(c.root == 0 && !c.reply);
}

static void test_deep_references_keep_both_ends(void **state)
{
    (void)state;
    char raw[2048];
    size_t n = (size_t)snprintf(raw, sizeof raw, "References:");
    for (int i = 0; i < 40; i++)
        n += (size_t)snprintf(raw + n, sizeof raw - n, " <id%d@x>", i);
    snprintf(raw + n, sizeof raw - n, "\nIn-Reply-To: <other@x>\n\n");
    struct conversation c = read_raw(raw);
    assert_int_equal(c.nreferences, CONVERSATION_REFERENCES);
    assert_true(c.root == id("id0@x") && c.reference[1] == id("other@x"));
    assert_true(c.reference[2] == id("id39@x"));
    assert_true(c.reference[CONVERSATION_REFERENCES - 1] == id("id26@x"));
}

static void test_thread_index(void **state)
{
    (void)state;
    struct conversation first = read_raw("Thread-Index: AcYgAbCdEfGhIjKlMnOpQrStUvWxYz==\n\n");
    struct conversation answer = read_raw("Thread-Index: AcYgAbCdEfGhIjKlMnOpQrStUvWxYwAAAAE5\n\n");
    struct conversation other = read_raw("Thread-Index: AcYhAbCdEfGhIjKlMnOpQrStUvWxYz==\n\n");
    assert_true(first.index && first.index == answer.index && first.index != other.index);
    assert_true(!first.reply && answer.reply);
    assert_true(read_raw("Thread-Index: AcYgAbCd\n\n").index == 0);
    assert_true(read_raw("Subject: s\n\n").index == 0);
}

static void test_machines(void **state)
{
    (void)state;
    static const struct {
        const char *head, *why; /* NULL: a person */
    } cases[] = {
        {"Subject: s", NULL},
        {"Auto-Submitted: no", NULL},
        {"Auto-Submitted: No (a person)", NULL},
        {"Auto-Submitted: auto-replied", "Auto-Submitted: auto-replied"},
        {"Auto-Submitted: auto-generated; x=1", "Auto-Submitted: auto-generated"},
        {"Auto-Submitted: \x01\xff", "Auto-Submitted: \?\?"},
        {"Auto-Submitted:", NULL},
        {"Precedence: list", NULL},
        {"From: A@a.example\nPrecedence: bulk", "Precedence: bulk"},
        {"From: a@a.example\nPrecedence: JUNK", "Precedence: junk"},
        {"From: writer@b.example\nPrecedence: bulk", NULL}, /* a list's own reverse-path */
        {"From: a@a.example\nList-Id: <l.a.example>\nPrecedence: bulk", NULL},
        {"From: a@a.example\nList-Post: <mailto:l@a.example>\nPrecedence: bulk", NULL},
        {"Precedence: auto_reply", "Precedence: auto_reply"},
        {"X-Auto-Response-Suppress: All", NULL},
        {"X-Autoreply: yes", "X-Autoreply"},
        {"X-Autoreply: no", NULL},
        {"X-Autorespond: figures", "X-Autoreply"},
        {"Content-Type: multipart/report; boundary=x", "multipart/report"},
        {"Content-Type: multipart/mixed; boundary=x", NULL},
        {"Subject: Out of office: figures", "its subject"},
        {"Subject: Re: Out of office: figures", NULL},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char raw[256];
        snprintf(raw, sizeof raw, "%s\n\nbody", cases[i].head);
        struct conversation c = read_raw(raw);
        const char *why = cases[i].why;
        if (c.automatic != (why != NULL) || (why && strcmp(why, c.automatic_why) != 0))
            fail_msg("%s: %s", cases[i].head, c.automatic ? c.automatic_why : "a person");
    }
    struct envelope null = {0};
    struct conversation c;
    read_all(&c, "Subject: s\n\n", &null);
    assert_true(c.automatic);
    assert_string_equal(c.automatic_why, "null reverse-path");
}

#define LONG                                                                                       \
    "the second offer is the better one because it is cheaper and the delivery would be faster"

static void test_own_words(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        unsigned n;
        const char *stop;
    } cases[] = {
        {"ok agreed", 2, NULL},
        {"I agree.\n\nOn Mon, 23 Jan 2006, A. Person wrote:\n> " LONG "\n> " LONG, 2, NULL},
        {"I agree.\nOn Mon, 23 Jan 2006 at ten A. Person\n<a@a.example> wrote:\n> x", 2, NULL},
        {"On Mon, 23 Jan 2006, A. Person wrote:\n> " LONG "\nI agree.", 2, NULL},
        {"A. Person wrote:\n> " LONG "\nI agree.\n> x\nAnd this too", 5, NULL},
        {"I have three questions, which are the following:\n> x", 0, NULL},
        {"See below\nThree things:\nOne\nTwo\n\n> x", 6, NULL},
        {"Thanks\n-- \nA. Person\nHead of " LONG, 1, NULL},
        {"Thanks\n-----Original Message-----\nFrom: x\n" LONG, 1, NULL},
        {"Thanks\n________________________________\nFrom: x\n" LONG, 1, NULL},
        {"Thanks\n\nVon: A. Person\nGesendet: Montag\n" LONG, 1, NULL},
        {"Thanks\n\nSent from my telephone", 1, NULL},
        {"Please REMOVE\tme, from this!", 5, "remove me"},
        {"stop the reply-all please", 5, "reply all"},
        {"she unsubscribed", 2, "unsubscribe"},
        {"> please remove me\nno", 1, NULL},
        {"it came to someone too", 5, NULL},
        {LONG, 17, NULL},
        {"", 0, NULL},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct fingerprints fp = {.opening = span_str(cases[i].text)};
        struct ownwords w;
        ownwords_read(&w, &fp);
        bool same =
            w.stop && cases[i].stop ? !strcmp(w.stop, cases[i].stop) : !w.stop == !cases[i].stop;
        if (w.n != cases[i].n || !same || w.unknown)
            fail_msg("\"%s\": %u words, %s", cases[i].text, w.n, w.stop ? w.stop : "no phrase");
    }
}

static void test_own_words_of_html(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        unsigned n;
        const char *stop;
    } cases[] = {
        {"<html><head><style>p { margin: 0; color: red }</style></head><body><p>me&nbsp;too</p>"
         "<blockquote>" LONG "</blockquote></body></html>",
         2, "me too"},
        {"<div>I agree</div><div class=\"gmail_quote\">On Monday A wrote:<br>" LONG "</div>", 2,
         NULL},
        {"<p>I agree</p><div style='border-top:solid #E1E1E1 1.0pt'>From: A</div>" LONG, 2, NULL},
        {"I agree<br>-- <br>A. Person, " LONG, 2, NULL},
        {"<!-- " LONG " > --><b>I</b> agree", 2, NULL},
        {"I agree <a href=\"", 2, NULL},
        {"<style> no end " LONG, 0, NULL},
        {"1 &lt; 2 & 3", 3, NULL},
        {"<p>" LONG "</p>", 17, NULL},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct fingerprints fp = {.opening = span_str(cases[i].text), .opening_html = true};
        struct ownwords w;
        ownwords_read(&w, &fp);
        bool same =
            w.stop && cases[i].stop ? !strcmp(w.stop, cases[i].stop) : !w.stop == !cases[i].stop;
        if (w.n != cases[i].n || !same)
            fail_msg("\"%s\": %u words, %s", cases[i].text, w.n, w.stop ? w.stop : "no phrase");
    }
}

/* A raw reply to n people. */
static bool noise_of(size_t n, const char *head, const char *body)
{
    static char raw[16384];
    size_t used = (size_t)snprintf(raw, sizeof raw, "%s\nTo: a@a.example", head);
    for (size_t i = 0; i < n; i++)
        used += (size_t)snprintf(raw + used, sizeof raw - used, ", p%zu@a.example", i);
    snprintf(raw + used, sizeof raw - used, "\n\n%s", body);
    return read_raw(raw).noise;
}

static void test_noise(void **state)
{
    (void)state;
    static char quote[3 * OPENING_PLAIN];
    assert_true(noise_of(40, "Subject: Re: s", "me too"));
    assert_true(noise_of(40, "Subject: s\nReferences: <a@x>", "me too\n> " LONG));
    assert_true(noise_of(40, "Subject: Re: s", "one two three four five six seven 8 9 10 11 12"));
    assert_false(noise_of(40, "Subject: Re: s", "1 2 3 4 5 6 7 8 9 10 11 12 13"));
    assert_true(noise_of(40, "Subject: Re: s", LONG ", so stop replying to it"));
    assert_false(noise_of(40, "Subject: s", "me too"));    /* no reply */
    assert_false(noise_of(2, "Subject: Re: s", "me too")); /* to few */
    assert_true(noise_of(40, "Subject: Re: s\nIn-Reply-To: <a@x>\nContent-Type: text/html",
                         "<p>me too</p><blockquote>" LONG "</blockquote>"));
    for (size_t i = 0; i + 4 < sizeof quote; i += 4)
        memcpy(quote + i, "> x\n", 4);
    assert_false(noise_of(40, "Subject: Re: s", quote)); /* perhaps below, where nobody looks */
}

static void test_opening_does_not_depend_on_cuts(void **state)
{
    (void)state;
    static const char body[] =
        "--x\nContent-Type: text/plain\n\n \n--x\nContent-Type: text/html\n"
        "Content-Transfer-Encoding: quoted-printable\n\n<p>me t=6Fo</p>\n--x--\n";
    struct message *m = message_new(arena);
    message_add_raw(m, SPAN("Content-Type: multipart/alternative; boundary=x\n"
                            "In-Reply-To: <a@x>\n\n"));
    for (size_t step = 1; step < sizeof body; step++) {
        struct fingerprinter *f = fingerprint_begin(arena, &keys, m);
        struct fingerprints fp;
        for (size_t at = 0; at < sizeof body - 1; at += step)
            fingerprint_body(f, span_head(span_from(SPAN(body), at), step));
        fingerprint_end(f, &fp);
        assert_true(fp.opening_html);
        assert_int_equal(fp.opening.n, 14);
        assert_memory_equal(fp.opening.p, "<p>me too</p>", 13);
    }
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, fresh, forget)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_subjects),     CASE(test_long_subjects_are_cut),
        CASE(test_references),   CASE(test_deep_references_keep_both_ends),
        CASE(test_thread_index), CASE(test_machines),
        CASE(test_own_words),    CASE(test_own_words_of_html),
        CASE(test_noise),        CASE(test_opening_does_not_depend_on_cuts),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
