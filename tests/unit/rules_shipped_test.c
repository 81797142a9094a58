/*
 * rules_shipped_test.c - what stands in contrib/rules is taken, has nothing odd, and decides as its
 * comments say. Read from the top of the sources.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "lint.h"

/* One message to one recipient; what is not said is as in an ordinary first copy. */
struct story {
    const char *what;
    const char *from, *to, *subject, *auth, *name, *client;
    bool list, automatic, answers, connector, inside;
    unsigned visible;
    struct copy_signal copy;
    int64_t rested;
    struct loop_signals loop;
    struct replyall_signals replyall;
    struct pingpong_signals pingpong;
    struct flood_signals flood;
    enum disposition disposition;
    const char *rule;  /* "": none */
    const char *reply; /* its beginning; NULL: none */
};

static struct policy *load(const char *name)
{
    static char text[64 << 10];
    char path[100];
    struct policy_error error;
    snprintf(path, sizeof path, "contrib/rules/%s.conf", name);
    FILE *f = fopen(path, "r");
    if (!f)
        fail_msg("%s cannot be opened", path);
    size_t n = fread(text, 1, sizeof text, f);
    fclose(f);
    struct policy *p = policy_load(span_of(text, n), NULL, &error);
    if (!p) {
        char said[500];
        policy_error_print(&error, path, said, sizeof said);
        fail_msg("%s", said);
    }
    return p;
}

static struct span or_else(const char *given, const char *otherwise)
{
    return span_str(given ? given : otherwise);
}

static void judge(const struct policy *p, struct story *s, struct arena *arena, struct verdict *v)
{
    static struct netmask inside;
    static struct span ours = SPAN_INIT("company.example");
    assert_true(netmask_parse(&inside, SPAN("203.0.113.0/24")));
    struct site site;
    site_defaults(&site);
    site.own_nets = &inside;
    site.nown_nets = 1;
    site.own_domains = &ours;
    site.nown_domains = 1;
    struct recipient rcpt = {.address = or_else(s->to, "bert@company.example")};
    struct envelope e = {.recipients = &rcpt,
                         .nrecipients = 1,
                         .reversepath = or_else(s->from, "anna@sender.example"),
                         .auth = or_else(s->auth, ""),
                         .client_name = or_else(s->name, "mx.sender.example")};
    assert_true(ipaddr_parse(&e.client,
                             s->inside ? SPAN("203.0.113.9") : or_else(s->client, "198.51.100.7")));
    struct subject subject = {
        .arena = arena,
        .site = &site,
        .envelope = &e,
        .message = message_new(arena),
        .visible = {.n = s->visible},
        .fp = {.list_marked = s->list, .subject = or_else(s->subject, "Hello")},
        .talk = {.automatic = s->automatic, .reply = s->answers}};
    subject.visible.connector = s->connector ? SPAN("x@mspop3connector.example") : SPAN("");
    struct signals signals = {.replication = {.copy = &s->copy, .rested = s->rested},
                              .loop = s->loop,
                              .replyall = s->replyall,
                              .pingpong = s->pingpong,
                              .flood = s->flood};
    policy_judge(&(struct ruling){.mode = MODE_ENFORCE, .policy = p}, &subject, &signals, v);
}

static void play(const char *name, const struct story *stories, size_t n)
{
    struct policy *p = load(name);
    for (size_t i = 0; i < n; i++) {
        struct arena *arena = arena_new();
        struct story s = stories[i];
        struct verdict v;
        judge(p, &s, arena, &v);
        const struct copy_verdict *c = &v.copy[0];
        const char *rule = c->rule ? c->rule_name : "", *reply = c->reply ? c->reply : "";
        if (c->disposition != s.disposition || strcmp(rule, s.rule) != 0)
            fail_msg("%s: %s: %s by '%s'", name, s.what, disposition_name(c->disposition), rule);
        if (s.reply ? strncmp(reply, s.reply, strlen(s.reply)) != 0 : *reply != '\0')
            fail_msg("%s: %s: '%s'", name, s.what, reply);
        arena_free(&arena);
    }
    policy_free(&p);
}

#define PLAY(name, stories) play(name, stories, sizeof(stories) / sizeof *(stories))
#define FLOOD .level = FLOOD_THROTTLE, .rate = 500, .baseline = 3, .defer = true

static const char *const shipped[] = {"smb-exchange", "isp-outbound", "isp-inbound", "list-server",
                                      "known-faults"};

/* What is common to all of them, as in the built-in rules. */
static void each_has_the_built_in_rules(void **state)
{
    (void)state;
    static const struct story stories[] = {
        {.what = "ordinary mail passes", .rule = ""},
        {.what = "a machine's mail passes", .automatic = true, .from = "", .rule = ""},
        {.what = "a list's mail passes", .list = true, .rule = ""},
        {.what = "30 hops pass", .loop = {.hops = 30}, .rule = ""},
        {.what = "31 hops are a loop",
         .loop = {.hops = 31},
         .disposition = DISP_HOLD,
         .rule = "loop-own"},
        {.what = "3 visits of ours pass", .loop = {.own_visits = 3}, .rule = ""},
        {.what = "4 visits of ours are a loop",
         .loop = {.own_visits = 4},
         .disposition = DISP_HOLD,
         .rule = "loop-own"},
        {.what = "a further copy in a circle is held",
         .loop = {.visits = 3},
         .copy = {.copies = 1},
         .disposition = DISP_HOLD,
         .rule = "loop-again"},
        {.what = "a first one is tagged",
         .loop = {.visits = 3},
         .disposition = DISP_TAG,
         .rule = "loop-seen"},
        {.what = "a duplicate is held",
         .copy = {.advice = ADVICE_HOLD, .copies = 1, .relation = REL_DETOUR},
         .disposition = DISP_HOLD,
         .rule = "duplicate"},
        {.what = "an explained further copy is tagged",
         .copy = {.advice = ADVICE_TAG, .copies = 1, .relation = REL_LIST},
         .disposition = DISP_TAG,
         .rule = "extra-copy"},
        {.what = "a reply to all in a storm is held",
         .replyall = {.state = REPLYALL_STORM, .to_all = true},
         .disposition = DISP_HOLD,
         .rule = "reply-all"},
        {.what = "a reply to one is not", .replyall = {.state = REPLYALL_STORM}, .rule = ""},
        {.what = "machines that answer each other are held",
         .pingpong = {.advice = {ADVICE_HOLD}, .n = 1, .flips = 3},
         .disposition = DISP_HOLD,
         .rule = "ping-pong"},
        {.what = "people who do are tagged",
         .pingpong = {.advice = {ADVICE_TAG}, .n = 1, .flips = 9},
         .disposition = DISP_TAG,
         .rule = "ping-pong-seen"},
        {.what = "a flood waits",
         .flood = {FLOOD},
         .disposition = DISP_THROTTLE,
         .rule = "flood",
         .reply = "450 4.7.1 Too much mail at once"},
        {.what = "a first copy the long memory knows is tagged",
         .copy = {.seen_before = true},
         .disposition = DISP_TAG,
         .rule = "seen-before"},
        {.what = "100 visible addresses pass", .visible = 100, .rule = ""},
        {.what = "101 are tagged", .visible = 101, .disposition = DISP_TAG, .rule = "visible"},
        {.what = "the postmaster gets his",
         .to = "postmaster@company.example",
         .copy = {.advice = ADVICE_HOLD, .copies = 1},
         .disposition = DISP_TAG,
         .rule = "duplicate"},
    };
    for (size_t i = 0; i < sizeof shipped / sizeof *shipped; i++)
        PLAY(shipped[i], stories);
}

static void nothing_is_odd_about_them(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shipped / sizeof *shipped; i++) {
        struct arena *arena = arena_new();
        struct policy *p = load(shipped[i]);
        struct lint lint;
        lint_policy(arena, p, SPAN("company.example"), &lint);
        if (lint.n)
            fail_msg("%s: rule %s: %s", shipped[i], lint.found[0].rule, lint.found[0].detail);
        arena_free(&arena);
        policy_free(&p);
    }
}

/* Whatever is known, a copy nobody had before is not held by a rule about copies. */
static void no_first_copy_is_held_for_copies(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shipped / sizeof *shipped; i++) {
        struct policy *p = load(shipped[i]);
        for (unsigned bits = 0; bits < 64; bits++) {
            struct arena *arena = arena_new();
            struct verdict v;
            struct story s = {.connector = bits & 1,
                              .list = bits & 2,
                              .inside = bits & 4,
                              .rested = bits & 8 ? INT64_C(30) * 86400 * 1000 : 0,
                              .copy = {.seen_before = bits & 16, .rule = 1},
                              .flood = {.replicating = bits & 32, .one_content = 1},
                              .to = bits & 2 ? "all@company.example" : NULL};
            judge(p, &s, arena, &v);
            if (v.copy[0].disposition > DISP_TAG)
                fail_msg("%s: %x by %s", shipped[i], bits, v.copy[0].rule_name);
            arena_free(&arena);
        }
        policy_free(&p);
    }
}

static void smb_exchange_decides(void **state)
{
    (void)state;
    static const struct story stories[] = {
        {.what = "a mail from a POP3 connector passes once", .connector = true, .rule = ""},
        {.what = "its further copy is held, whatever explains it",
         .connector = true,
         .copy = {.advice = ADVICE_TAG, .copies = 1},
         .disposition = DISP_HOLD,
         .rule = "pop3-connector"},
        {.what = "a machine of ours may answer machines",
         .from = "Scanner@company.example",
         .pingpong = {.advice = {ADVICE_HOLD}, .n = 1},
         .disposition = DISP_TAG,
         .rule = "our-machines"},
        {.what = "so may all of a domain",
         .from = "disk7@alerts.company.example",
         .pingpong = {.advice = {ADVICE_TAG}, .n = 1},
         .disposition = DISP_TAG,
         .rule = "our-machines"},
        {.what = "another may not",
         .from = "printer@company.example",
         .pingpong = {.advice = {ADVICE_HOLD}, .n = 1},
         .disposition = DISP_HOLD,
         .rule = "ping-pong"},
        {.what = "a flood from inside is tagged",
         .inside = true,
         .flood = {FLOOD},
         .disposition = DISP_TAG,
         .rule = "flood-inside"},
        {.what = "so is one of somebody logged in",
         .auth = "anna",
         .flood = {FLOOD},
         .disposition = DISP_TAG,
         .rule = "flood-inside"},
    };
    PLAY("smb-exchange", stories);
}

static void isp_outbound_decides(void **state)
{
    (void)state;
    static const struct story stories[] = {
        {.what = "a first copy of a replicating server passes",
         .flood = {.replicating = true},
         .rule = ""},
        {.what = "its further copy is held",
         .flood = {.replicating = true},
         .copy = {.advice = ADVICE_TAG, .copies = 1},
         .disposition = DISP_HOLD,
         .rule = "replicating-customer"},
        {.what = "bulk mail by contract goes on, by network",
         .client = "192.0.2.15",
         .flood = {FLOOD},
         .disposition = DISP_TAG,
         .rule = "bulk-agreed"},
        {.what = "the address beyond it does not",
         .client = "192.0.2.16",
         .flood = {FLOOD},
         .disposition = DISP_THROTTLE,
         .rule = "flood",
         .reply = "450 4.7.1"},
        {.what = "by network, IPv6",
         .client = "2001:db8:b::1",
         .flood = {FLOOD},
         .disposition = DISP_TAG,
         .rule = "bulk-agreed"},
        {.what = "by login",
         .auth = "shop-company",
         .flood = {FLOOD},
         .disposition = DISP_TAG,
         .rule = "bulk-agreed"},
        {.what = "one text is said to the customer",
         .flood = {FLOOD, .learned = true, .one_content = 0.8},
         .disposition = DISP_THROTTLE,
         .rule = "one-text-flood",
         .reply = "450 4.7.1 Too many copies of one text from your connection"},
        {.what = "many texts are a flood",
         .flood = {FLOOD, .learned = true, .one_content = 0.79},
         .disposition = DISP_THROTTLE,
         .rule = "flood",
         .reply = "450 4.7.1 Too much mail at once"},
    };
    PLAY("isp-outbound", stories);
}

static void isp_inbound_decides(void **state)
{
    (void)state;
    static const struct story stories[] = {
        {.what = "a large provider does not wait",
         .name = "mail-ej1-f51.google.com",
         .flood = {FLOOD},
         .disposition = DISP_TAG,
         .rule = "large-provider"},
        {.what = "one that looks like it does",
         .name = "mail.google.com.example",
         .flood = {FLOOD},
         .disposition = DISP_THROTTLE,
         .rule = "flood",
         .reply = "450 4.7.1"},
        {.what = "delivery reports wait",
         .from = "",
         .flood = {FLOOD},
         .disposition = DISP_THROTTLE,
         .rule = "backscatter",
         .reply = "450 4.7.1 Too many delivery reports"},
        {.what = "two rounds of a forwarding are tagged",
         .loop = {.delivered_to = 2},
         .disposition = DISP_TAG,
         .rule = "loop-seen"},
        {.what = "the third is held",
         .loop = {.delivered_to = 3},
         .disposition = DISP_HOLD,
         .rule = "forwarding-loop"},
    };
    PLAY("isp-inbound", stories);
}

static void list_server_decides(void **state)
{
    (void)state;
    static const struct story stories[] = {
        {.what = "mail to a list passes", .to = "devel@lists.company.example", .rule = ""},
        {.what = "a list's first mail to a list passes",
         .to = "devel@lists.company.example",
         .list = true,
         .loop = {.own_visits = 1},
         .rule = ""},
        {.what = "one that was here twice is held",
         .to = "devel@lists.company.example",
         .list = true,
         .loop = {.own_visits = 2},
         .disposition = DISP_HOLD,
         .rule = "list-to-list"},
        {.what = "one the list had is held",
         .to = "all@company.example",
         .list = true,
         .copy = {.copies = 1},
         .disposition = DISP_HOLD,
         .rule = "list-to-list"},
        {.what = "an automatic answer to a list is held",
         .to = "all@company.example",
         .automatic = true,
         .answers = true,
         .pingpong = {.automatic = true},
         .disposition = DISP_HOLD,
         .rule = "machine-to-list"},
        {.what = "one to a person passes",
         .automatic = true,
         .answers = true,
         .pingpong = {.automatic = true},
         .rule = ""},
        {.what = "what we send to a member of two lists passes",
         .list = true,
         .inside = true,
         .copy = {.relation = REL_LIST, .advice = ADVICE_TAG, .copies = 1},
         .rule = "members"},
        {.what = "what comes round is held",
         .list = true,
         .inside = true,
         .copy = {.relation = REL_DETOUR, .advice = ADVICE_HOLD, .copies = 1},
         .disposition = DISP_HOLD,
         .rule = "duplicate"},
        {.what = "a lively discussion on a list goes on",
         .to = "all@company.example",
         .replyall = {.state = REPLYALL_STORM, .to_all = true, .senders = 19},
         .rule = ""},
        {.what = "20 people are too many",
         .to = "all@company.example",
         .replyall = {.state = REPLYALL_STORM, .to_all = true, .senders = 20},
         .disposition = DISP_HOLD,
         .rule = "reply-all"},
    };
    PLAY("list-server", stories);
}

static void known_faults_decide(void **state)
{
    (void)state;
    const int64_t week = INT64_C(7) * 86400 * 1000;
    const struct story stories[] = {
        {.what = "the POP3 connector's further copy is held",
         .connector = true,
         .copy = {.copies = 1},
         .disposition = DISP_HOLD,
         .rule = "sbs-pop3-connector"},
        {.what = "two resends may be a slow network",
         .copy = {.relation = REL_RESEND, .advice = ADVICE_TAG, .copies = 2},
         .disposition = DISP_TAG,
         .rule = "extra-copy"},
        {.what = "the third is a fault",
         .copy = {.relation = REL_RESEND, .advice = ADVICE_TAG, .copies = 3},
         .disposition = DISP_HOLD,
         .rule = "never-hears-250"},
        {.what = "a client may try thrice",
         .copy = {.relation = REL_SAME, .advice = ADVICE_TAG, .copies = 3},
         .disposition = DISP_TAG,
         .rule = "extra-copy"},
        {.what = "a stuck one is held",
         .copy = {.relation = REL_SAME, .advice = ADVICE_TAG, .copies = 4},
         .disposition = DISP_HOLD,
         .rule = "stuck-client"},
        {.what = "a copy after a week passes",
         .copy = {.relation = REL_FORK, .advice = ADVICE_TAG, .copies = 1},
         .rested = week,
         .disposition = DISP_TAG,
         .rule = "extra-copy"},
        {.what = "one after more is an old queue",
         .copy = {.relation = REL_FORK, .advice = ADVICE_TAG, .copies = 1},
         .rested = week + 1,
         .disposition = DISP_HOLD,
         .rule = "old-queue"},
        {.what = "a list's is not",
         .copy = {.relation = REL_LIST, .advice = ADVICE_TAG, .copies = 1},
         .rested = 2 * week,
         .disposition = DISP_TAG,
         .rule = "extra-copy"},
        {.what = "absence answers absence",
         .pingpong = {.advice = {ADVICE_TAG}, .n = 1, .flips = 4, .automatic = true},
         .disposition = DISP_HOLD,
         .rule = "out-of-office"},
        {.what = "thrice is not held yet",
         .pingpong = {.advice = {ADVICE_TAG}, .n = 1, .flips = 3, .automatic = true},
         .disposition = DISP_TAG,
         .rule = "ping-pong-seen"},
        {.what = "tickets open tickets",
         .subject = "Re: [Support #4711] received",
         .answers = true,
         .pingpong = {.advice = {ADVICE_TAG}, .n = 1, .flips = 10},
         .disposition = DISP_HOLD,
         .rule = "ticket-systems"},
        {.what = "nine answers are not held yet",
         .subject = "Re: [Support #4711] received",
         .answers = true,
         .pingpong = {.advice = {ADVICE_TAG}, .n = 1, .flips = 9},
         .disposition = DISP_TAG,
         .rule = "ping-pong-seen"},
        {.what = "people may write that often",
         .subject = "Re: lunch",
         .answers = true,
         .pingpong = {.advice = {ADVICE_TAG}, .n = 1, .flips = 10},
         .disposition = DISP_TAG,
         .rule = "ping-pong-seen"},
        {.what = "what repeats itself is said to",
         .flood = {FLOOD, .one_content = 0.9},
         .disposition = DISP_THROTTLE,
         .rule = "same-alarm",
         .reply = "450 4.7.1 Too many copies of one text"},
        {.what = "a forwarding's third round is held",
         .loop = {.delivered_to = 3},
         .disposition = DISP_HOLD,
         .rule = "forwarding-loop"},
    };
    PLAY("known-faults", stories);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_has_the_built_in_rules),
        cmocka_unit_test(nothing_is_odd_about_them),
        cmocka_unit_test(no_first_copy_is_held_for_copies),
        cmocka_unit_test(smb_exchange_decides),
        cmocka_unit_test(isp_outbound_decides),
        cmocka_unit_test(isp_inbound_decides),
        cmocka_unit_test(list_server_decides),
        cmocka_unit_test(known_faults_decide),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
