/* trace_test.c - Received lines and the paths they make: one case a line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "trace.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static struct keys keys;
static struct arena *arena;
static struct site site;

static int begin(void **state)
{
    (void)state;
    static const uint8_t key[32] = {7};
    site_defaults(&site);
    arena = arena_new();
    return keys_open(&keys, key);
}

static int end(void **state)
{
    (void)state;
    arena_free(&arena);
    keys_close(&keys);
    return 0;
}

static struct hop hop_of(const char *line)
{
    struct hop h;
    trace_parse_hop(&h, arena, &keys, span_str(line));
    return h;
}

static bool is(struct span got, const char *want)
{
    return span_eq(got, span_str(want));
}

static void lines(void **state)
{
    (void)state;
    enum { NO, REINJ = 1, LOCAL = 2, FETCHED = 4 };
    static const struct {
        const char *name, *line, *helo, *ip, *by, *with, *id, *for_;
        int flags;
        bool dated;
    } cases[] = {
        {"Postfix",
         "from mail.a.example (mx.a.example [192.0.2.7])\r\n\tby MX.B.example (Postfix) with "
         "ESMTPS id 4AbC\r\n\tfor <Joe@B.example>; Mon, 2 Sep 2002 08:30:35 +0100 (IST)",
         "mail.a.example", "192.0.2.7", "mx.b.example", "esmtps", "4AbC", "joe@b.example", NO,
         true},
        {"Postfix, the HELO is a literal of its own",
         "from [10.0.0.153] (host.a.example [192.0.2.7]) by mx.b.example (Postfix) with ESMTP id 1",
         "10.0.0.153", "192.0.2.7", "mx.b.example", "esmtp", "1", "", NO, false},
        {"Postfix, from a local user",
         "by mx.b.example (Postfix, from userid 500) id 17; Mon, 2 Sep "
         "2002 08:30:35 +0100",
         "", "", "mx.b.example", "", "17", "", NO, true},
        {"Sendmail",
         "from a.example (root@mx.a.example [192.0.2.7] (may be forged)) by mx.b.example "
         "(8.11.6/8.11.6) with ESMTP id g8CC for <joe@b.example>; Thu, 12 Sep 2002 12:19:30 GMT",
         "a.example", "192.0.2.7", "mx.b.example", "esmtp", "g8CC", "joe@b.example", NO, true},
        {"Sendmail, a local user", "(from root@localhost)\n\tby mx.b.example (8.11.6/8.11.1) id q0",
         "", "", "mx.b.example", "", "q0", "", NO, false},
        {"Exim, HELO beside the address",
         "from [192.0.2.7] (helo=User) by mx.b.example with esmtp (Exim 4.89) (envelope-from "
         "<x@[198.51.100.1]>) id 1iA-2R-6X for joe@b.example; Tue, 17 Sep 2019 03:31:22 +0000",
         "user", "192.0.2.7", "mx.b.example", "esmtp", "1iA-2R-6X", "joe@b.example", NO, true},
        {"Exim, HELO is a private literal, a port",
         "from h7.a.example ([192.0.2.7]:35862 helo=[192.168.1.4]) by mx.b.example with esmtpsa "
         "(TLS1.2) tls X (Exim 4.93) id 1",
         "192.168.1.4", "192.0.2.7", "mx.b.example", "esmtpsa", "1", "", NO, false},
        {"the port inside the brackets",
         "from [192.0.2.7] ([192.0.2.7:7322] helo=h.example) by mx.b.example (ecelerity) with "
         "ESMTP id 77/71",
         "h.example", "192.0.2.7", "mx.b.example", "esmtp", "77/71", "", NO, false},
        {"qmail",
         "from unknown (HELO mail.a.example) (192.0.2.7) by mx.b.example with SMTP; 16 Aug "
         "2002 10:38:02 -0000",
         "mail.a.example", "192.0.2.7", "mx.b.example", "smtp", "", "", NO, true},
        {"qmail, empty HELO", "from unknown (HELO ) (joe@192.0.2.7) by mx.b.example with SMTP",
         "unknown", "192.0.2.7", "mx.b.example", "smtp", "", "", NO, false},
        {"qmail, inside", "(qmail 1715 invoked by uid 501); 16 Aug 2002 10:38:02 -0000", "", "", "",
         "", "", "", NO, true},
        {"EHLO is a literal",
         "from h7.a.example (EHLO [192.168.0.103]) ([192.0.2.7]) by mx.b.example "
         "with ESMTPA ID 8830bf",
         "192.168.0.103", "192.0.2.7", "mx.b.example", "esmtpa", "8830bf", "", NO, false},
        {"a host that is called helo",
         "from helo (helo.a.example [192.0.2.7]) by mx.b.example with SMTP id 1", "helo",
         "192.0.2.7", "mx.b.example", "smtp", "1", "", NO, false},
        {"IPv6", "from a.example (a.example [IPv6:2001:DB8::7]) by mx.b.example with ESMTP id 1",
         "a.example", "2001:db8::7", "mx.b.example", "esmtp", "1", "", NO, false},
        {"IPv6 in parentheses, no name",
         "from (2001:db8::7) by mx.b.example (2001:db8::8) with "
         "Microsoft SMTP Server (version=TLS1_2) id 15.20",
         "", "2001:db8::7", "mx.b.example", "microsoft smtp server", "15.20", "", NO, false},
        {"IPv6 HELO", "from [IPV6:2001:db8::9] (unknown [IPv6:2001:db8::7]) by mx.b.example id 1",
         "ipv6:2001:db8::9", "2001:db8::7", "mx.b.example", "", "1", "", NO, false},
        {"a bare address", "from a.example [192.0.2.7] by mx.b.example with SMTP", "a.example",
         "192.0.2.7", "mx.b.example", "smtp", "", "", NO, false},
        {"a comment in brackets", "from a.example [(192.0.2.7)] by mx.b.example", "a.example",
         "192.0.2.7", "mx.b.example", "", "", "", NO, false},
        {"no blank before the bracket", "from a.example (unknown[192.0.2.7]) by mx.b.example",
         "a.example", "192.0.2.7", "mx.b.example", "", "", "", NO, false},
        {"a name that looks like an address",
         "from a.example (dsl-192.0.2.1.isp.example [192.0.2.7]) by mx.b.example", "a.example",
         "192.0.2.7", "mx.b.example", "", "", "", NO, false},
        {"what the client wrote into its certificate is not its address",
         "from a.example (a.example [192.0.2.7]) (Client CN \"[198.51.100.1]\", Issuer \"x\" (not "
         "verified)) (Authenticated sender: 198.51.100.2) by mx.b.example (Postfix) id 1",
         "a.example", "192.0.2.7", "mx.b.example", "", "1", "", NO, false},
        {"nobody knows the client", "from a.example (unknown []) by mx.b.example", "a.example", "",
         "mx.b.example", "", "", "", NO, false},
        {"Gmail", "by 2002:a05:6402:508:0:0:0:0 with HTTP; Mon, 2 Dec 2019 21:38:35 -0800 (PST)",
         "", "", "2002:a05:6402:508:0:0:0:0", "http", "", "", NO, true},
        {"Exchange over MAPI",
         "from EX1.a.example ([fe80::1]) by EX1.a.example ([fe80::1%3]) with "
         "mapi id 15.20; Thu, 2 May 2019 07:54:34 +0000",
         "ex1.a.example", "fe80::1", "ex1.a.example", "mapi", "15.20", "", LOCAL, true},
        {"a content filter",
         "from localhost (localhost [127.0.0.1]) by mx.b.example (Postfix) with "
         "ESMTP id 1",
         "localhost", "127.0.0.1", "mx.b.example", "esmtp", "1", "", LOCAL, false},
        {"a content filter over IPv6", "from mx (localhost [IPv6:::1]) by mx.b.example id 1", "mx",
         "::1", "mx.b.example", "", "1", "", LOCAL, false},
        {"delivered by LMTP", "from mx.b.example ([192.0.2.7]) by mb.b.example with LMTP id 1",
         "mx.b.example", "192.0.2.7", "mb.b.example", "lmtp", "1", "", LOCAL, false},
        {"HELO localhost alone is not local",
         "from localhost (h.a.example [192.0.2.7]) by "
         "mx.b.example with ESMTP id 1",
         "localhost", "192.0.2.7", "mx.b.example", "esmtp", "1", "", NO, false},
        {"the pick-up folder",
         "from mail pickup service by SBS.b.example with Microsoft SMTPSVC; "
         "Mon, 2 Sep 2002 08:30:35 +0100",
         "sbs.b.example", "", "sbs.b.example", "microsoft smtpsvc", "", "", REINJ, true},
        {"the pick-up folder of Exchange",
         "from Pickup by MBX.b.example with Microsoft SMTP Server id\r\n 15.1.2507.17; "
         "Mon, 2 Sep 2002 08:30:35 +0100",
         "mbx.b.example", "", "mbx.b.example", "microsoft smtp server", "15.1.2507.17", "", REINJ,
         true},
        {"a client that calls itself pickup",
         "from pickup (192.0.2.7) by MBX.b.example (192.0.2.8) with Microsoft SMTP Server id "
         "15.1.2507.17",
         "pickup", "192.0.2.7", "mbx.b.example", "microsoft smtp server", "15.1.2507.17", "", NO,
         false},
        {"or to whom another server gives no address", "from pickup by mx.b.example with SMTP id 7",
         "pickup", "", "mx.b.example", "smtp", "7", "", NO, false},
        {"fetchmail",
         "from pop.a.example [192.0.2.7] by localhost with POP3 (fetchmail-6.3.9) for "
         "<joe@localhost> (single-drop); Mon, 2 Sep 2002 08:30:35 +0100",
         "pop.a.example", "192.0.2.7", "localhost", "pop3", "", "joe@localhost",
         REINJ | LOCAL | FETCHED, true},
        {"getmail", "from unknown by joe.b.example with POP3", "unknown", "", "joe.b.example",
         "pop3", "", "", REINJ, false},
        {"the POP3 Connector names itself",
         "from a by sbs.b.example (Microsoft POP3 Connector) id 1", "a", "", "sbs.b.example", "",
         "1", "", REINJ, false},
        {"a client that calls itself fetchmail is not",
         "from fetchmail (pop3.getmail.example [192.0.2.7]) by mx.b.example with ESMTP id 1",
         "fetchmail", "192.0.2.7", "mx.b.example", "esmtp", "1", "", NO, false},
        {"a server that is called imap1 is not",
         "from a.example ([192.0.2.7]) by imap1.b.example with "
         "ESMTP id 1",
         "a.example", "192.0.2.7", "imap1.b.example", "esmtp", "1", "", NO, false},
        {"no date, a semicolon in a comment",
         "from a.example ([192.0.2.7]) by mx.b.example (Post; fix) with ESMTP id 1 for "
         "<j@b.example>",
         "a.example", "192.0.2.7", "mx.b.example", "esmtp", "1", "j@b.example", NO, false},
        {"a semicolon before the end of the words",
         "from a.example by mx.b.example (x) id <q1>; Mon, 2 "
         "Sep 2002 08:30:35 +0100",
         "a.example", "", "mx.b.example", "", "q1", "", NO, true},
        {"a broken date", "from a.example by mx.b.example id 1; yesterday", "a.example", "",
         "mx.b.example", "", "1", "", NO, false},
        {"trailing dots", "from a.example. by mx.b.example. id 1", "a.example", "", "mx.b.example",
         "", "1", "", NO, false},
        {"nested comments and quoted parentheses",
         "from a (x (y \\) by z) [192.0.2.7]) by mx.b.example (p(q(r))) id 1", "a", "192.0.2.7",
         "mx.b.example", "", "1", "", NO, false},
        {"a stray ( hides nothing",
         "from ( (h.a.example [192.0.2.7]) by mx.b.example (Postfix) with "
         "ESMTP id 1",
         "h.a.example", "192.0.2.7", "mx.b.example", "esmtp", "1", "", NO, false},
        {"a stray ) hides nothing", "from a) ) [192.0.2.7] by mx.b.example id 1", "a", "192.0.2.7",
         "mx.b.example", "", "1", "", NO, false},
        {"only the first clause of a kind counts",
         "from a [192.0.2.7] by mx.b.example from x [198.51.100.1] by y.example id 1 id 2", "a",
         "192.0.2.7", "mx.b.example", "", "1", "", NO, false},
        {"for for", "from a by mx.b.example id 1 for for", "a", "", "mx.b.example", "", "1", "for",
         NO, false},
        {"keywords alone", "from by via with id for", "", "", "", "", "", "", NO, false},
        {"no words", "", "", "", "", "", "", "", NO, false},
        {"only blanks", " \r\n\t ", "", "", "", "", "", "", NO, false},
        {"only a semicolon", ";", "", "", "", "", "", "", NO, false},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct hop h = hop_of(cases[i].line);
        char ip[48];
        ipaddr_print(&h.ip, ip);
        int flags = (h.reinjected ? REINJ : 0) | (h.local ? LOCAL : 0) | (h.fetched ? FETCHED : 0);
        if (!is(h.helo, cases[i].helo) || strcmp(ip, cases[i].ip) != 0 || !is(h.by, cases[i].by) ||
            !is(h.with, cases[i].with) || !is(h.id, cases[i].id) || !is(h.for_, cases[i].for_) ||
            flags != cases[i].flags || (h.date != 0) != cases[i].dated)
            fail_msg("%s:\n helo %.*s ip %s by %.*s with %.*s id %.*s for %.*s flags %d date %lld",
                     cases[i].name, SPAN_ARG(h.helo), ip, SPAN_ARG(h.by), SPAN_ARG(h.with),
                     SPAN_ARG(h.id), SPAN_ARG(h.for_), flags, (long long)h.date);
        assert_int_equal(h.for_hash != 0, *cases[i].for_ != 0);
    }
}

static void events(void **state)
{
    (void)state;
    static const struct {
        const char *name, *a, *b;
        bool same;
    } cases[] = {
        {"folding does not matter", "from a by b\r\n\tid 1", " from a  by b id 1 ", true},
        {"case does", "from a by b id 1", "from A by b id 1", false},
        {"the date does", "from a by b; 2 Sep 2002 08:30:35 +0100",
         "from a by b; 2 Sep 2002 08:30:36 +0100", false},
        {"a line nobody understands has one too", "))((", "))(((", false},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        if ((hop_of(cases[i].a).event == hop_of(cases[i].b).event) != cases[i].same)
            fail_msg("%s", cases[i].name);
    assert_true(is(hop_of(" from\ta\r\n\tby  B ").line, "from a by B"));
    struct hop h = hop_of("by b for <Joe@B.example>");
    assert_int_equal(h.for_hash, keys_address(&keys, SPAN("joe@b.example"), NULL));
}

static void abuse_is_bounded(void **state)
{
    (void)state;
    static uint8_t line[100 << 10];
    static const uint8_t fill[] = "(); \\[]<@=\0\xff:";
    for (size_t f = 0; f < sizeof(fill); f++) {
        memset(line, fill[f], sizeof(line));
        memcpy(line, "from a ", 7);
        struct hop h;
        trace_parse_hop(&h, arena, &keys, span_of(line, sizeof(line)));
        assert_true(h.line.n <= LIMIT_HOP_BYTES);
        assert_true(h.helo.n == 1 && h.helo.p[0] == 'a');
    }
    /* 10,000 open comments, and a server behind them that is out of reach */
    memset(line, '(', sizeof(line));
    struct hop h;
    trace_parse_hop(&h, arena, &keys, span_of(line, 10000));
    assert_int_equal(h.by.n, 0);
    /* within reach it is found */
    memcpy(line + 1000, " by mx.b.example ", 17);
    trace_parse_hop(&h, arena, &keys, span_of(line, 10000));
    assert_true(is(h.by, "mx.b.example"));
    /* names are cut to what a name can be */
    memset(line, 'x', sizeof(line));
    memcpy(line, "by ", 3);
    trace_parse_hop(&h, arena, &keys, span_of(line, 2000));
    assert_int_equal(h.by.n, 255);
}

/* ---- whole headers ---- */

static struct message *message_of(const char *header)
{
    struct message *m = message_new(arena);
    message_add_raw(m, span_str(header));
    message_end_header(m);
    return m;
}

struct way {
    struct trace trace;
    struct path path;
};

static struct way way_of(const char *header, const char *client, const char *helo)
{
    struct way w;
    struct ipaddr ip = {0};
    ipaddr_parse(&ip, span_str(client));
    trace_parse(&w.trace, arena, &keys, message_of(header));
    path_build(&w.path, arena, &keys, &site, &w.trace, &ip, span_str(helo));
    return w;
}

/* The servers of a path, "a -> b"; in capitals the ours. */
static const char *path_text(const struct path *p)
{
    static char text[4096];
    size_t n = 0;
    for (size_t i = 0; i < p->n; i++) {
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s%.*s", i ? " -> " : "",
                              p->node[i].own ? "*" : "", SPAN_ARG(p->node[i].server));
    }
    return text;
}

static void paths(void **state)
{
    (void)state;
    struct span own[] = {SPAN("hub.ours.example"), SPAN("mx.ours.example")};
    struct netmask net;
    assert_true(netmask_parse(&net, SPAN("203.0.113.0/24")));
    site.own_hosts = own;
    site.nown_hosts = COUNT(own);
    site.own_nets = &net;
    site.nown_nets = 1;
    static const struct {
        const char *name, *header, *client, *helo, *want;
        unsigned cycle;
        bool reinjected;
    } cases[] = {
        {"no Received at all", "Subject: x\r\n", "192.0.2.1", "Mail.A.example.",
         "mail.a.example[192.0.2.1]", 0, false},
        {"no Received, a literal HELO, a private client", "Subject: x\r\n", "10.0.0.1",
         "[10.0.0.1]", "10.0.0.1", 0, false},
        {"no Received and nothing known", "", "", "", "?", 0, false},
        {"a HELO that cannot be shown is known by what is shown", "Subject: x\r\n", "192.0.2.1",
         "m\xc3\xa4il.a.example", "m??il.a.example[192.0.2.1]", 0, false},
        {"the same at a private address", "Subject: x\r\n", "10.0.0.1", "m\xc3\xa4il.a.example",
         "m??il.a.example", 0, false},
        {"of a very long HELO the end", "Subject: x\r\n", "192.0.2.1",
         "x23456789.123456789.123456789.123456789.123456789.123456789.123456789.123456.a.example",
         "89.123456789.123456789.123456789.123456789.123456789.123456789.123456.a.example"
         "[192.0.2.1]",
         0, false},
        {"one hop", "Received: from pc.a.example ([192.0.2.9]) by mx.a.example id 1\r\n",
         "192.0.2.1", "mx.a.example", "pc.a.example[192.0.2.9] -> mx.a.example[192.0.2.1]", 0,
         false},
        {"the egress is what the next server saw",
         "Received: from mx.a.example ([192.0.2.1]) by hub.b.example id 2\r\n"
         "Received: from pc ([10.0.0.9]) by mx.a.example id 1\r\n",
         "192.0.2.2", "hub.b.example", "pc -> mx.a.example[192.0.2.1] -> hub.b.example[192.0.2.2]",
         0, false},
        {"a private egress says nothing",
         "Received: from server.local ([192.168.0.2]) by gw.local id 2\r\n"
         "Received: from pc ([192.0.2.9]) by server.local id 1\r\n",
         "192.0.2.2", "gw.local", "pc[192.0.2.9] -> server.local -> gw.local[192.0.2.2]", 0, false},
        {"a hop without a server", "Received: (qmail 1 invoked by uid 7)\r\n", "192.0.2.1", "a",
         "? -> ?[192.0.2.1]", 0, false},
        {"the oldest line is a pick-up: no source, no re-injection",
         "Received: from mail pickup service by sbs.b.example with Microsoft SMTPSVC\r\n",
         "192.0.2.1", "sbs", "sbs.b.example[192.0.2.1]", 0, false},
        {"a pick-up on the way",
         "Received: from mail pickup service by sbs.b.example with Microsoft SMTPSVC\r\n"
         "Received: from a.example ([192.0.2.9]) by mx.isp.example id 1\r\n",
         "192.0.2.1", "sbs", "a.example[192.0.2.9] -> mx.isp.example -> sbs.b.example[192.0.2.1]",
         0, true},
        {"our own servers by name and, seen by ourselves, by address",
         "Received: from filter ([203.0.113.7]) by mx.ours.example id 3\r\n"
         "Received: from mx.ours.example ([192.0.2.3]) by filter.local id 2\r\n"
         "Received: from a.example ([203.0.113.9]) by fake.example id 1\r\n",
         "203.0.113.2", "mx.ours.example",
         "a.example[203.0.113.9] -> fake.example[192.0.2.3] -> *filter.local[203.0.113.7] -> "
         "*mx.ours.example[203.0.113.2]",
         0, false},
        {"a stranger's word about our address is not believed",
         "Received: from x ([203.0.113.7]) by evil.example id 2\r\n"
         "Received: from y ([203.0.113.8]) by victim.example id 1\r\n",
         "192.0.2.66", "evil.example",
         "y[203.0.113.8] -> victim.example[203.0.113.7] -> evil.example[192.0.2.66]", 0, false},
        {"a circle of organisations",
         "Received: from b ([192.0.2.2]) by mx.a.example id 5\r\n"
         "Received: from a ([192.0.2.1]) by mx.b.example id 4\r\n"
         "Received: from a ([192.0.2.1]) by gw.a.example id 3\r\n"
         "Received: from b ([192.0.2.2]) by mx.a.example id 2\r\n"
         "Received: from pc.a.example ([192.0.2.9]) by mx.b.example id 1\r\n",
         "192.0.2.1", "mx.a.example",
         "pc.a.example[192.0.2.9] -> mx.b.example[192.0.2.2] -> mx.a.example[192.0.2.1] -> "
         "gw.a.example[192.0.2.1] -> mx.b.example[192.0.2.2] -> mx.a.example[192.0.2.1]",
         2, false},
        {"out to a list and back is none",
         "Received: from list ([192.0.2.2]) by mx.a.example id 3\r\n"
         "Received: from a ([192.0.2.1]) by list.l.example id 2\r\n"
         "Received: from pc.a.example ([192.0.2.9]) by mx.a.example id 1\r\n",
         "192.0.2.1", "mx.a.example",
         "pc.a.example[192.0.2.9] -> mx.a.example[192.0.2.1] -> list.l.example[192.0.2.2] -> "
         "mx.a.example[192.0.2.1]",
         0, false},
        {"a content filter is none",
         "Received: from localhost (localhost [127.0.0.1]) by mx.a.example id 4\r\n"
         "Received: from mx.a.example ([127.0.0.1]) by localhost (amavis) id 3\r\n"
         "Received: from localhost (localhost [127.0.0.1]) by mx.a.example id 2\r\n"
         "Received: from c.example ([192.0.2.9]) by mx.a.example id 1\r\n",
         "192.0.2.1", "mx.a.example",
         "c.example[192.0.2.9] -> mx.a.example -> mx.a.example -> localhost -> "
         "mx.a.example[192.0.2.1]",
         0, false},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct way w = way_of(cases[i].header, cases[i].client, cases[i].helo);
        if (strcmp(path_text(&w.path), cases[i].want) != 0 || w.path.cycle != cases[i].cycle ||
            w.path.reinjected != cases[i].reinjected)
            fail_msg("%s:\n %s cycle %u", cases[i].name, path_text(&w.path), w.path.cycle);
        for (size_t j = 0; j < w.path.n; j++) {
            const struct node *n = &w.path.node[j];
            assert_int_equal(n->host_hash, sip_hash(&keys, SIP_HOST, n->host));
            assert_int_equal(n->server_id, (uint32_t)sip_hash(&keys, SIP_HOST, n->server));
            assert_true(n->server.n <= SERVER_NAME);
        }
    }
}

static const char *const forked[] = {
    "Received: from x ([192.0.2.3]) by c.example id 3\r\n"
    "Received: from b.example ([192.0.2.2]) by x.example id 2\r\n"
    "Received: from a.example ([192.0.2.1]) by b.example id 1\r\n",
    "Received: from y ([192.0.2.4]) by c.example id 3\r\n"
    "Received: from b.example ([192.0.2.2]) by x.example id 2\r\n"
    "Received: from a.example ([192.0.2.1]) by b.example id 1\r\n",
    "Received: from x ([192.0.2.3]) by c.example id 3\r\n"
    "Received: from b.example ([192.0.2.2]) by x.example id 2\r\n"
    "Received: from a.example ([192.0.2.1]) by b.example id 9\r\n",
};

static void copies_share_a_prefix_as_far_as_they_share_acceptances(void **state)
{
    (void)state;
    static const size_t shared[COUNT(forked)][COUNT(forked)] = {{4, 3, 1}, {3, 4, 1}, {1, 1, 4}};
    for (size_t a = 0; a < COUNT(forked); a++)
        for (size_t b = 0; b < COUNT(forked); b++) {
            struct way p = way_of(forked[a], "192.0.2.5", "c"),
                       q = way_of(forked[b], "192.0.2.5", "c");
            assert_int_equal(p.path.n, 4);
            size_t n = 0;
            for (size_t i = 0; i < 4; i++)
                n += p.path.node[i].prefix_id == q.path.node[i].prefix_id;
            assert_int_equal(n, shared[a][b]);
        }
}

/* A header of n Received fields, the newest first, numbered n-1 ... 0. */
static char *header_of(unsigned n)
{
    char *text = malloc((size_t)n * 96 + 1);
    size_t used = 0;
    assert_non_null(text);
    text[0] = 0;
    while (n--)
        used += (size_t)sprintf(
            text + used, "Received: from h%u.example ([192.0.2.%u]) by s%u.example id %u\r\n", n,
            n % 250, n, n);
    return text;
}

static void a_long_header_keeps_both_ends(void **state)
{
    (void)state;
    static const struct {
        unsigned lines;
        size_t hops, nodes;
        const char *newest, *oldest;
    } cases[] = {
        {63, 63, 64, "s62.example", "s0.example"},
        {64, 64, 65, "s63.example", "s0.example"},
        {65, 65, 66, "s64.example", "s0.example"},
        {1000, 65, 66, "s999.example", "s0.example"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *header = header_of(cases[i].lines);
        struct way w = way_of(header, "192.0.2.1", "s");
        free(header);
        assert_int_equal(w.trace.total, cases[i].lines);
        assert_int_equal(w.trace.nhops, cases[i].hops);
        assert_int_equal(w.path.n, cases[i].nodes);
        assert_true(w.path.n <= PATH_MAX_NODES);
        assert_true(is(w.trace.hops[0].by, cases[i].newest));
        assert_true(is(w.trace.hops[w.trace.nhops - 1].by, cases[i].oldest));
        bool gap = cases[i].lines > LIMIT_HOPS;
        assert_int_equal(w.trace.hops[16].gap, gap);
        if (gap) { /* nothing is inferred across it */
            const struct node *n = &w.path.node[w.path.n - 1 - 16];
            assert_true(is(n->server, "(gap)") && n->own);
            assert_true(span_eq(n[-1].server, n[-1].host));
            assert_true(is(n[-1].host, "s47.example"));
        }
    }
}

static void the_lines_left_out_still_count(void **state)
{
    (void)state;
    char *a = header_of(70), *b = header_of(70);
    *strstr(b, "id 50") = 'I';
    struct way p = way_of(a, "192.0.2.1", "s"), q = way_of(b, "192.0.2.1", "s");
    free(a);
    free(b);
    assert_int_equal(p.path.node[48].prefix_id, q.path.node[48].prefix_id);
    assert_int_not_equal(p.path.node[49].prefix_id, q.path.node[49].prefix_id);
}

static void delivered_to(void **state)
{
    (void)state;
    struct way w = way_of("Delivered-To: Joe@B.example\r\nDelivered-To:\r\n"
                          "Delivered-To:  joe@b.example \r\n",
                          "192.0.2.1", "s");
    assert_int_equal(w.trace.ndelivered_to, 2);
    assert_true(is(w.trace.delivered_to[0], "joe@b.example"));
    assert_true(is(w.trace.delivered_to[1], "joe@b.example"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lines, begin, end),
        cmocka_unit_test_setup_teardown(events, begin, end),
        cmocka_unit_test_setup_teardown(abuse_is_bounded, begin, end),
        cmocka_unit_test_setup_teardown(paths, begin, end),
        cmocka_unit_test_setup_teardown(copies_share_a_prefix_as_far_as_they_share_acceptances,
                                        begin, end),
        cmocka_unit_test_setup_teardown(a_long_header_keeps_both_ends, begin, end),
        cmocka_unit_test_setup_teardown(the_lines_left_out_still_count, begin, end),
        cmocka_unit_test_setup_teardown(delivered_to, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
