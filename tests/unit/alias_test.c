/* alias_test.c - messages that come back under another name, and those that only look like it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "past.h"
#include "stamp.h"

/*
 * Stories of whole messages. Each copy arrives `after` seconds; its header is written out, its
 * body is one of the texts below. `expect` has two letters: F first, S same, D detour, R resend,
 * K fork, L list; + pass, t tag, h hold. `join`: how it was known; NULL: by its own name.
 */
struct copy {
    int after;
    const char *client; /* "HELO ADDRESS" */
    const char *head;   /* without Subject, which is the story's, and To: */
    const char *to;     /* value of To */
    char body;
    const char *rcpt;
    const char *expect, *join;
};
struct story {
    const char *name, *subject;
    struct copy copy[8];
};

#define TEXT "The county invites all suppliers to an evening at the harbour on Thursday.\n" REST
#define REST                                                                                       \
    "Please tell the office how many of you will come and what you would like to eat.\n"           \
    "There will be short talks about the new quay, the railway and the market hall.\n"             \
    "Parking is free behind the museum; the doors open at six and close at ten.\n"

static const char *body_of(char which)
{
    switch (which) {
    case 'a':
        return TEXT;
    case 'f':
        return TEXT "-- \nThis mail was checked by the gateway of firm one and found clean.\n";
    case 'b':
        return "[EXTERNAL] This mail comes from outside, take care with links.\n" TEXT;
    case 'n': /* nearly: a template with another number */
        return "The county invites all suppliers to an evening at the harbour on Friday.\n" REST;
    case 'o':
        return "Something quite different: the lift in the town hall is out of order until Monday, "
               "please use the stairs, and mind the wet paint on the second floor landing.\n";
    default:
        return "Yes, that suits me.\n";
    }
}

#define TEN                                                                                        \
    "a0@p0.example, a1@p1.example, a2@p2.example, a3@p3.example, a4@p4.example, a5@p5.example, "   \
    "a6@p6.example, office@firm.example, b@us.example"
#define NINE TEN
#define SHOWN NINE ", c@us.example"
#define OTHERS                                                                                     \
    "z0@p0.example, z1@p1.example, z2@p2.example, z3@p3.example, z4@p4.example, z5@p5.example, "   \
    "z6@p6.example, z7@p7.example, z8@p8.example, b@us.example"
#define PEOPLE "mary@county.example"
#define FROM                                                                                       \
    "From: Mary <" PEOPLE                                                                          \
    ">\nDate: Mon, 23 Jan 2006 17:20:00 +0000\nMessage-ID: <1@county.example>\n"
#define AGAIN(n)                                                                                   \
    "From: \"Mary\" <" PEOPLE ">\nDate: Mon, 23 Jan 2006 17:4" n ":00 +0000\nMessage-ID: <00" n    \
    "$0300a8c0@intra.firm.example>\n"
#define LINE(from, ip, by, id)                                                                     \
    "Received: from " from " (" from " [" ip "]) by " by " with ESMTP id " id                      \
    "; Mon, 23 Jan 2006 17:20:05 +0000\n"
#define PICKUP(by, n)                                                                              \
    "Received: from mail pickup service by " by " with Microsoft SMTPSVC; Mon, 23 Jan 2006 17:4" n \
    ":00 +0000\n"

#define ORIGINAL                                                                                   \
    {                                                                                              \
        0, "relay.countyisp.example 192.0.2.1",                                                    \
            LINE("pc", "198.51.100.1", "mail.county.example", "A1") FROM, SHOWN, 'a',              \
            "b@us.example", "F+", NULL                                                             \
    }
#define FIRM "smtp.firmisp.example 203.0.113.9"
#define SBS(n) LINE("sbs.firm.example", "203.0.113.5", "smtp.firmisp.example", "B" n)

/* Machines that an installation has named, behind one relay; and the Date of the original. */
#define BOX(n, id) LINE("box" n ".local", "203.0.113.2" n, "smtp.firmisp.example", id)
#define OLD_DATE(n)                                                                                \
    "From: Mary <" PEOPLE ">\nDate: Mon, 23 Jan 2006 17:20:00 +0000\nMessage-ID: <00" n            \
    "@server.local>\n"
#define ALARM(n)                                                                                   \
    LINE("app", "10.0.0.1", "noc.county.example", "14.3.123.3")                                    \
    "From: alarm@county.example\nDate: Mon, 23 Jan 2006 17:41:00 +0000\nMessage-ID: <" n           \
    "@noc.county.example>\n"
#define NOC "noc.county.example 198.51.100.7"

static const struct story stories[] = {
    {"a re-issue out of the pickup of a small business server is the first message's copy",
     "Invitation",
     {ORIGINAL,
      {900, FIRM, SBS("1") PICKUP("sbs.firm.example", "1") AGAIN("1"),
       SHOWN ", mspop3connector.office@firm.example", 'a', "b@us.example", "Kh", "text"},
      {1800, FIRM, SBS("2") PICKUP("sbs.firm.example", "2") AGAIN("2"),
       SHOWN ", mspop3connector.office@firm.example", 'a', "b@us.example", "Kh", "text"},
      {1900, FIRM, SBS("3") PICKUP("sbs.firm.example", "2") AGAIN("3"), SHOWN, 'a', "c@us.example",
       "F+", "text"}}},
    {"with a footer as well",
     "Invitation",
     {ORIGINAL,
      {900, FIRM, SBS("1") PICKUP("sbs.firm.example", "1") AGAIN("1"), SHOWN, 'f', "b@us.example",
       "Kh", "theme"},
      {1800, FIRM, SBS("2") PICKUP("sbs.firm.example", "2") AGAIN("2"), SHOWN, 'f', "b@us.example",
       "Kh", "theme"}}},
    {"the trace lost altogether: the server of an addressee sends it to those it shows",
     "Invitation",
     {ORIGINAL,
      {900, "sbs.firm.example 203.0.113.5", AGAIN("1"), SHOWN, 'a', "b@us.example", "Kt", "text"},
      {1800, "sbs.firm.example 203.0.113.5", AGAIN("2"), SHOWN, 'a', "b@us.example", "Kh",
       "text"}}},
    {"the shape of 2005: To is unreadable, and the connector's address was added",
     "Re: [PATCH] a driver",
     {{0, "mx.list.example 192.0.2.1",
       LINE("ba3pi", "198.51.100.1", "mail.comcast.example", "A1") FROM
       "In-Reply-To: <0@author.example>\nCc: dev@list.example, one@p1.example\n",
       "unlisted-recipients:; (no To-header on input)", 'a', "b@us.example", "F+", NULL},
      {410, "lex.example 192.0.2.7",
       PICKUP("lex.example", "1")
           AGAIN("1") "In-Reply-To: <0@author.example>\nCc: <dev@list.example>, <one@p1.example>\n",
       "<unlisted-recipients:>, <no To-header on input>, \"IMB Recipient 1\" "
       "<mspop3connector.box@lex.example>",
       'a', "b@us.example", "Kh", "text"}}},
    {"an outbound relay in front of one faulty server, which never saw the original",
     "Invitation",
     {{0, "sbs.firm.example 203.0.113.5", PICKUP("sbs.firm.example", "0") AGAIN("0"), SHOWN, 'a',
       "b@us.example", "F+", NULL},
      {900, "sbs.firm.example 203.0.113.5", PICKUP("sbs.firm.example", "1") AGAIN("1"), SHOWN, 'a',
       "b@us.example", "Kh", "text"},
      {1800, "sbs.firm.example 203.0.113.5", PICKUP("sbs.firm.example", "2") AGAIN("2"), SHOWN, 'a',
       "b@us.example", "Kh", "text"},
      {1801, "sbs.firm.example 203.0.113.5", PICKUP("sbs.firm.example", "2") AGAIN("2"), SHOWN, 'a',
       "a3@p3.example", "F+", "text"}}},
    {"the same with a name that anybody could have",
     "Invitation",
     {{0, "server.local 203.0.113.5", PICKUP("server.local", "0") AGAIN("0"), SHOWN, 'a',
       "b@us.example", "F+", NULL},
      {900, "server.local 203.0.113.5", PICKUP("server.local", "1") AGAIN("1"), SHOWN, 'a',
       "b@us.example", "Kh", "text"}}},

    /* --- a few words --- */
    {"four words with the connector's address",
     "Invitation",
     {{0, "relay.countyisp.example 192.0.2.1",
       LINE("pc", "198.51.100.1", "mail.county.example", "A1") FROM, SHOWN, 'y', "b@us.example",
       "F+", NULL},
      {900, FIRM, SBS("1") PICKUP("sbs.firm.example", "1") AGAIN("1"),
       SHOWN ", mspop3connector.office@firm.example", 'y', "b@us.example", "Kh", "text"},
      {1800, FIRM, SBS("2") PICKUP("sbs.firm.example", "2") AGAIN("2"),
       SHOWN ", mspop3connector.office@firm.example", 'y', "b@us.example", "Kh", "text"}}},
    {"or without it, by the pickup of an addressee's server to the same ten",
     "Invitation",
     {{0, "relay.countyisp.example 192.0.2.1",
       LINE("pc", "198.51.100.1", "mail.county.example", "A1") FROM, SHOWN, 'y', "b@us.example",
       "F+", NULL},
      {900, FIRM, SBS("1") PICKUP("sbs.firm.example", "1") AGAIN("1"), SHOWN, 'y', "b@us.example",
       "Kh", "text"}}},
    {"but not to nine, nor without a pickup, nor a day later",
     "Invitation",
     {{0, "relay.countyisp.example 192.0.2.1",
       LINE("pc", "198.51.100.1", "mail.county.example", "A1") FROM, SHOWN, 'y', "b@us.example",
       "F+", NULL},
      {900, FIRM, SBS("1") PICKUP("sbs.firm.example", "1") AGAIN("1"), NINE, 'y', "b@us.example",
       "F+", NULL},
      {1000, FIRM, SBS("2") AGAIN("2"), SHOWN, 'y', "b@us.example", "F+", NULL},
      {25 * 3600, FIRM, SBS("3") PICKUP("sbs.firm.example", "3") AGAIN("3"), SHOWN, 'y',
       "b@us.example", "F+", NULL}}},
    {"nor what a machine says every hour to the same ten, out of its pickup",
     "Backup",
     {{0, FIRM, BOX("1", "B1") PICKUP("box1.local", "0") AGAIN("0"), SHOWN, 'y', "b@us.example",
       "F+", NULL},
      {3600, FIRM, BOX("1", "B2") PICKUP("box1.local", "1") AGAIN("1"), SHOWN, 'y', "b@us.example",
       "F+", NULL},
      {7200, FIRM, BOX("1", "B3") PICKUP("box1.local", "2") AGAIN("2"), SHOWN, 'y', "b@us.example",
       "F+", NULL}}},
    {"nor what the machines of two branches say",
     "Backup",
     {{0, FIRM, BOX("1", "B1") PICKUP("box1.local", "0") AGAIN("0"), SHOWN, 'y', "b@us.example",
       "F+", NULL},
      {60, "relay.countyisp.example 192.0.2.1",
       LINE("box2.local", "203.0.113.77", "relay.countyisp.example", "C1") PICKUP("box2.local", "0")
           AGAIN("1"),
       SHOWN, 'y', "b@us.example", "F+", NULL}}},
    {"nor what comes out of the author's own pickup",
     "Backup",
     {{0, "relay.countyisp.example 192.0.2.1",
       LINE("pc", "198.51.100.1", "mail.county.example", "A1") FROM, SHOWN, 'y', "b@us.example",
       "F+", NULL},
      {900, FIRM,
       LINE("www.county.example", "203.0.113.5", "smtp.firmisp.example", "B9")
           PICKUP("www.county.example", "1") AGAIN("1"),
       SHOWN, 'y', "b@us.example", "F+", NULL}}},

    /* --- a relay that writes a new Message-ID and keeps the trace --- */
    {"a new Message-ID, the oldest line kept: a copy on another path",
     "Invitation",
     {ORIGINAL,
      {60, FIRM, SBS("1") LINE("pc", "198.51.100.1", "mail.county.example", "A1") AGAIN("1"), SHOWN,
       'a', "b@us.example", "Dt", "chain"},
      {90, FIRM, SBS("2") LINE("pc", "198.51.100.1", "mail.county.example", "A1") AGAIN("2"), SHOWN,
       'f', "b@us.example", "Dh", "chain"},
      {95, FIRM, SBS("3") LINE("pc", "198.51.100.1", "mail.county.example", "A1") AGAIN("3"), SHOWN,
       'b', "c@us.example", "F+", "chain"}}},
    {"an alarm raised again within the second, by a pickup that writes no ids, is another message",
     "Alarm",
     {{0, FIRM, PICKUP("app.firm.example", "1") FROM, "b@us.example", 'a', "b@us.example", "F+",
       NULL},
      {0, FIRM, PICKUP("app.firm.example", "1") AGAIN("1"), "b@us.example", 'a', "b@us.example",
       "F+", NULL},
      {1, FIRM, PICKUP("app.firm.example", "1") AGAIN("2"), "b@us.example", 'a', "b@us.example",
       "F+", NULL}}},
    {"another text with the same oldest line is another message",
     "Alarm",
     {{0, FIRM, PICKUP("app.firm.example", "1") FROM, "b@us.example", 'a', "b@us.example", "F+",
       NULL},
      {1, FIRM, PICKUP("app.firm.example", "1") AGAIN("1"), "b@us.example", 'n', "b@us.example",
       "F+", NULL},
      {1, FIRM, PICKUP("app.firm.example", "1") AGAIN("2"), "b@us.example", 'o', "b@us.example",
       "F+", NULL}}},
    {"nearly the same text under one queue id is one message",
     "Invitation",
     {ORIGINAL,
      {60, FIRM, SBS("1") LINE("pc", "198.51.100.1", "mail.county.example", "A1x99") AGAIN("1"),
       "b@us.example", 'n', "b@us.example", "F+", NULL},
      {90, FIRM, SBS("2") LINE("pc", "198.51.100.1", "mail.county.example", "A1x99") AGAIN("2"),
       "b@us.example", 'f', "b@us.example", "Rt", "chain"}}},
    {"but not under the version of a program",
     "Invitation",
     {{0, FIRM, LINE("pc", "198.51.100.1", "mail.county.example", "14.3.123.3") FROM,
       "b@us.example", 'n', "b@us.example", "F+", NULL},
      {90, FIRM, LINE("pc", "198.51.100.1", "mail.county.example", "14.3.123.3") AGAIN("2"),
       "b@us.example", 'f', "b@us.example", "F+", NULL}}},
    {"a line without date and id stands for nothing",
     "Report",
     {{0, FIRM, "Received: from pc by mail.county.example\n" FROM, "b@us.example", 'a',
       "b@us.example", "F+", NULL},
      {60, FIRM, "Received: from pc by mail.county.example\n" AGAIN("1"), "b@us.example", 'a',
       "b@us.example", "F+", NULL}}},
    {"the chain is forgotten after six hours",
     "Invitation",
     {ORIGINAL,
      {6 * 3600, FIRM, SBS("1") LINE("pc", "198.51.100.1", "mail.county.example", "A1") AGAIN("1"),
       "b@us.example", 'a', "a3@p3.example", "F+", "chain"},
      {12 * 3600 + 1, FIRM,
       SBS("2") LINE("pc", "198.51.100.1", "mail.county.example", "A1") AGAIN("2"), "b@us.example",
       'a', "a4@p4.example", "F+", NULL}}},

    /* --- what is sent again by those who may --- */
    {"cron sends the same every day",
     "Cron <root@county> backup",
     {{0, "mail.county.example 192.0.2.1", LINE("db", "10.0.0.1", "mail.county.example", "A1") FROM,
       SHOWN, 'a', "b@us.example", "F+", NULL},
      {3600, "mail.county.example 192.0.2.1",
       LINE("db", "10.0.0.1", "mail.county.example", "A2") AGAIN("1"), SHOWN, 'a', "b@us.example",
       "F+", NULL},
      {7200, "mail.county.example 192.0.2.1",
       LINE("db", "10.0.0.1", "mail.county.example", "A3") AGAIN("2"), SHOWN, 'a', "b@us.example",
       "F+", NULL}}},
    {"a monitor on Windows sends the same to its customer out of its pickup",
     "Disk is full",
     {{0, "watch.firm.example 203.0.113.5",
       PICKUP("watch.firm.example", "1") "From: alarm@monitor.example\nMessage-ID: <1@monitor>\n",
       "admin@firm.example, b@us.example", 'a', "b@us.example", "F+", NULL},
      {300, "watch.firm.example 203.0.113.5",
       PICKUP("watch.firm.example", "2") "From: alarm@monitor.example\nMessage-ID: <2@monitor>\n",
       "admin@firm.example, b@us.example", 'a', "b@us.example", "F+", NULL},
      {600, "watch.firm.example 203.0.113.5",
       PICKUP("watch.firm.example", "3") "From: alarm@monitor.example\nMessage-ID: <3@monitor>\n",
       "admin@firm.example, b@us.example", 'a', "b@us.example", "F+", NULL}}},
    {"a person sends it again from the same network",
     "Invitation",
     {ORIGINAL,
      {600, "relay.countyisp.example 192.0.2.1",
       LINE("pc", "198.51.100.1", "mail.county.example", "A2") AGAIN("1"), SHOWN, 'a',
       "b@us.example", "F+", NULL},
      {900, "relay.countyisp.example 192.0.2.1",
       LINE("pc", "198.51.100.1", "mail.county.example", "A3") AGAIN("2"), SHOWN, 'a',
       "b@us.example", "F+", NULL}}},
    {"a person sends it again from home, to nine that it shows",
     "Invitation",
     {{0, "relay.countyisp.example 192.0.2.1",
       LINE("pc", "198.51.100.1", "mail.county.example", "A1") FROM, NINE, 'a', "b@us.example",
       "F+", NULL},
      {600, "smtp.homeisp.example 203.0.113.50",
       LINE("laptop", "203.0.113.77", "smtp.homeisp.example", "H1") AGAIN("1"), NINE, 'a',
       "b@us.example", "F+", NULL},
      {900, "smtp.homeisp.example 203.0.113.50",
       LINE("laptop", "203.0.113.77", "smtp.homeisp.example", "H2") AGAIN("2"), NINE, 'a',
       "b@us.example", "F+", NULL}}},
    {"a person sends it again from home, to ten: tagged, not held",
     "Invitation",
     {ORIGINAL,
      {600, "smtp.homeisp.example 203.0.113.50",
       LINE("laptop", "203.0.113.77", "smtp.homeisp.example", "H1") AGAIN("1"), SHOWN, 'a',
       "b@us.example", "Kt", "text"}}},
    {"a person sends it again from the server of his own",
     "Invitation",
     {{0, "smtp.homeisp.example 203.0.113.50",
       LINE("laptop", "203.0.113.77", "smtp.homeisp.example", "H1") FROM, SHOWN, 'a',
       "b@us.example", "F+", NULL},
      {600, "mail.county.example 192.0.2.1",
       LINE("pc", "198.51.100.1", "mail.county.example", "A1") AGAIN("1"), SHOWN, 'a',
       "b@us.example", "F+", NULL}}},
    {"a newsletter through two providers",
     "News",
     {{0, "mta.one.example 192.0.2.1", LINE("app", "10.0.0.1", "mta.one.example", "N1") FROM,
       "b@us.example", 'a', "b@us.example", "F+", NULL},
      {600, "mta.two.example 203.0.113.50",
       LINE("app", "10.0.0.1", "mta.two.example", "N2") AGAIN("1"), "b@us.example", 'a',
       "b@us.example", "F+", NULL},
      {900, "mta.two.example 203.0.113.50", PICKUP("mta.two.example", "2") AGAIN("2"),
       "b@us.example", 'a', "b@us.example", "F+", NULL}}},
    {"an exploder of somebody's own does not show its members",
     "Invitation",
     {{0, "relay.countyisp.example 192.0.2.1",
       LINE("pc", "198.51.100.1", "mail.county.example", "A1") FROM,
       "club@firm.example, b@us.example", 'a', "b@us.example", "F+", NULL},
      {60, "sbs.firm.example 203.0.113.5",
       LINE("x", "10.0.0.1", "sbs.firm.example", "E1") AGAIN("1"),
       "club@firm.example, b@us.example", 'a', "b@us.example", "F+", NULL}}},
    {"mail of a list never joins by its text",
     "Invitation",
     {ORIGINAL,
      {60, FIRM, SBS("1") PICKUP("sbs.firm.example", "1") "List-Id: <l.firm.example>\n" AGAIN("1"),
       SHOWN, 'a', "b@us.example", "F+", NULL}}},
    {"a template with another number is another message, if few are shown",
     "Reservation",
     {{0, "mta.one.example 192.0.2.1", LINE("app", "10.0.0.1", "mta.one.example", "N1") FROM,
       "guest1@p1.example, b@us.example", 'a', "b@us.example", "F+", NULL},
      {60, "mta.two.example 203.0.113.50", PICKUP("mta.two.example", "1") AGAIN("1"),
       "guest2@p2.example, b@us.example", 'n', "b@us.example", "F+", NULL}}},
    {"a day later the text says nothing any more",
     "Invitation",
     {ORIGINAL,
      {24 * 3600 + 1, FIRM, SBS("1") PICKUP("sbs.firm.example", "1") AGAIN("1"), SHOWN, 'a',
       "b@us.example", "F+", NULL}}},
    {"an alarm raised twice in one second, on a server whose lines have a version for an id",
     "Alarm",
     {{0, NOC, ALARM("1"), SHOWN, 'a', "b@us.example", "F+", NULL},
      {0, NOC, ALARM("2"), SHOWN, 'a', "b@us.example", "F+", NULL},
      {1, NOC, ALARM("3"), SHOWN, 'a', "b@us.example", "F+", NULL}}},
    {"another machine behind the same relay, under the old Date; but alarms of one second pass",
     "Invitation",
     {{0, FIRM, BOX("1", "B1") OLD_DATE("1"), SHOWN, 'a', "b@us.example", "F+", NULL},
      {59, FIRM, BOX("2", "B2") OLD_DATE("2"), SHOWN, 'a', "c@us.example", "F+", NULL},
      {60, FIRM, BOX("3", "B3") OLD_DATE("3"), SHOWN, 'a', "b@us.example", "Kt", "text"},
      {120, FIRM, BOX("3", "B4") OLD_DATE("4"), SHOWN, 'a', "b@us.example", "Kh", "text"},
      {180, FIRM, BOX("4", "B5") AGAIN("1"), SHOWN, 'a', "b@us.example", "F+", NULL}}},
    {"with a footer as well",
     "Invitation",
     {{0, FIRM, BOX("1", "B1") OLD_DATE("1"), SHOWN, 'a', "b@us.example", "F+", NULL},
      {60, FIRM, BOX("3", "B3") OLD_DATE("3"), SHOWN, 'f', "b@us.example", "Kt", "theme"}}},
    {"nine people and the old Date are a message of its own",
     "Invitation",
     {{0, FIRM, BOX("1", "B1") OLD_DATE("1"), NINE, 'a', "b@us.example", "F+", NULL},
      {900, FIRM, BOX("2", "B2") OLD_DATE("2"), NINE, 'a', "b@us.example", "F+", NULL}}},
    {"other people and the old Date: a serial letter in parts",
     "Invitation",
     {{0, FIRM, BOX("1", "B1") OLD_DATE("1"), SHOWN, 'a', "b@us.example", "F+", NULL},
      {900, FIRM, BOX("2", "B2") OLD_DATE("2"), OTHERS, 'a', "b@us.example", "F+", NULL}}},
    {"a client that tries again and again under new Message-IDs has three more tries",
     "Invitation",
     {{0, "box1.local 203.0.113.21", OLD_DATE("1"), SHOWN, 'a', "b@us.example", "F+", NULL},
      {599, "box1.local 203.0.113.21", OLD_DATE("2"), SHOWN, 'a', "c@us.example", "F+", NULL},
      {600, "box1.local 203.0.113.21", OLD_DATE("3"), SHOWN, 'a', "b@us.example", "St", "date"},
      {1200, "box1.local 203.0.113.21", OLD_DATE("4"), SHOWN, 'a', "b@us.example", "St", "date"},
      {1800, "box1.local 203.0.113.21", OLD_DATE("5"), SHOWN, 'a', "b@us.example", "St", "date"},
      {2400, "box1.local 203.0.113.21", OLD_DATE("6"), SHOWN, 'a', "b@us.example", "Sh", "date"},
      {2500, "box1.local 203.0.113.21", AGAIN("7"), SHOWN, 'a', "b@us.example", "F+", NULL}}},
    {"a script whose Date stands still, on the author's own server, is never held",
     "Invitation",
     {{0, "mail.county.example 192.0.2.1", OLD_DATE("1"), SHOWN, 'a', "b@us.example", "F+", NULL},
      {3600, "mail.county.example 192.0.2.1", OLD_DATE("2"), SHOWN, 'a', "b@us.example", "F+",
       NULL},
      {7200, "relay.countyisp.example 192.0.2.7",
       LINE("cron.county.example", "192.0.2.1", "relay.countyisp.example", "A1") OLD_DATE("3"),
       SHOWN, 'a', "b@us.example", "F+", NULL},
      {10800, "relay.countyisp.example 192.0.2.7",
       LINE("cron.county.example", "192.0.2.1", "relay.countyisp.example", "A2") OLD_DATE("4"),
       SHOWN, 'a', "b@us.example", "F+", NULL}}},
    {"in a storm another machine behind the author's relay is one more; the author himself is not",
     "Invitation",
     {{0, FIRM, BOX("1", "B1") FROM, SHOWN, 'a', "b@us.example", "F+", NULL},
      {600, "sbs.p1.example 198.51.100.31", PICKUP("sbs.p1.example", "1") AGAIN("2"),
       SHOWN ", mspop3connector.a1@p1.example", 'a', "b@us.example", "Kh", "text"},
      {700, "sbs.p2.example 198.51.100.32", PICKUP("sbs.p2.example", "2") AGAIN("3"),
       SHOWN ", mspop3connector.a2@p2.example", 'a', "b@us.example", "Kh", "text"},
      {800, FIRM, BOX("1", "B3") AGAIN("4"), SHOWN, 'a', "b@us.example", "F+", NULL},
      {900, FIRM, BOX("3", "B4") AGAIN("5"), SHOWN, 'a', "b@us.example", "Kh", "text"}}},
    {"a day later to the second it does",
     "Invitation",
     {ORIGINAL,
      {24 * 3600, FIRM, SBS("1") PICKUP("sbs.firm.example", "1") AGAIN("1"), SHOWN, 'a',
       "b@us.example", "Kh", "text"}}},
};

struct town {
    struct past past;
    struct store *store;
    struct subject s;
    struct replication_signals out;
};

static void read_message(struct town *sc, const char *subject, const struct copy *c)
{
    struct arena *a = sc->past.arena;
    struct message *m = message_new(a);
    struct envelope *e = arena_zero(a, sizeof(*e));
    struct span client = span_str(c->client);
    size_t blank = span_find(client, ' ');
    char *text = arena_printf(a, "%sSubject: %s\nTo: %s\n\n", c->head, subject, c->to);
    struct fingerprints fp;
    struct fingerprinter *f;

    message_add_raw(m, span_str(text));
    message_end_header(m);
    f = fingerprint_begin(a, &sc->past.keys, m);
    fingerprint_body(f, span_str(body_of(c->body)));
    fingerprint_end(f, &fp);
    e->helo = e->client_name = span_head(client, blank);
    assert_true(ipaddr_parse(&e->client, span_from(client, blank + 1)));
    e->recipients = arena_zero(a, sizeof(*e->recipients));
    e->recipients->address = e->recipients->raw = span_str(c->rcpt);
    e->nrecipients = 1;
    e->arrival = INT64_C(1138036800000) + c->after * 1000LL;
    subject_read(&sc->s, a, &sc->past.site, &sc->past.keys, e, m, &fp, e->arrival);
}

/* One copy through the store; what it was takes two letters in got. */
static void arrive(struct town *sc, const char *subject, const struct copy *c, char got[3])
{
    static const uint32_t ordinary[PATH_MAX_NODES];
    static const bool known[PATH_MAX_NODES];
    struct observation o = {.subject = &sc->s, .ordinary = ordinary, .known = known};
    struct store_op *op = NULL;
    enum fate fate;

    read_message(sc, subject, c);
    assert_int_equal(sc->store->ops->observe(sc->store, &o, &sc->out, NULL, NULL, &op), STORE_DONE);
    fate = sc->out.copy[0].advice == ADVICE_HOLD ? FATE_HELD : FATE_PASSED;
    sc->store->ops->settle(sc->store, &sc->out.k, &sc->s.envelope->recipients[0].hash, &fate, 1);
    got[0] = "FSDARKLIX"[sc->out.copy[0].relation];
    got[1] = "+th"[sc->out.copy[0].advice];
    got[2] = 0;
}

static void town_open(struct town *sc)
{
    past_open(&sc->past);
    sc->store = store_memory_open(&sc->past.site, 16 << 20);
}

static void town_close(struct town *sc)
{
    store_close(&sc->store);
    past_close(&sc->past);
}

static const char *word(const char *join)
{
    return join ? join : "own";
}

static void test_stories(void **state)
{
    int wrong = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(stories) / sizeof(*stories); i++) {
        struct town sc;

        town_open(&sc);
        for (const struct copy *c = stories[i].copy; c->head; c++) {
            char got[3];

            arrive(&sc, stories[i].subject, c, got);
            if (strcmp(got, c->expect) != 0 || strcmp(word(sc.out.join), word(c->join)) != 0)
                wrong++,
                    print_error("%s: copy %td: %s by %s, expected %s by %s (%s)\n", stories[i].name,
                                c - stories[i].copy + 1, got, word(sc.out.join), c->expect,
                                word(c->join), sc.out.join_why ? sc.out.join_why : "");
            assert_true(!sc.out.join == !sc.out.join_why);
        }
        town_close(&sc);
    }
    assert_int_equal(wrong, 0);
}

/* Rewritten in all that names it, but it carries our stamp; and a stamp on other mail says nothing.
 */
static void test_stamp(void **state)
{
    static const struct {
        const char *name;
        char body;
        const char *expect, *join;
    } cases[] = {
        {"other mail with the stamp", 'o', "F+", NULL},
        {"the same text", 'a', "Kt", "stamp"},
        {"with a footer", 'f', "Kh", "stamp"},
    };
    struct copy copy = {
        0, "relay.countyisp.example 192.0.2.1", FROM, SHOWN, 'a', "b@us.example", NULL, NULL};
    struct town sc;
    char got[3], stamp[STAMP_TEXT];

    (void)state;
    town_open(&sc);
    arrive(&sc, "Invitation", &copy, got);
    stamp_print(&sc.past.keys, SPAN("mx1"), 1, &sc.out.k, stamp);
    copy.client = "gw.gateway.example 192.0.2.9";
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        copy.head = arena_printf(sc.past.arena,
                                 "X-Breakwater-Trace: %s\nFrom: robot@gateway.example\n"
                                 "Date: Tue, 24 Jan 2006 00:00:00 +0000\nMessage-ID: <%zu@gw>\n",
                                 stamp, i);
        copy.body = cases[i].body;
        arrive(&sc, "Nothing alike", &copy, got);
        if (strcmp(got, cases[i].expect) != 0 ||
            strcmp(word(sc.out.join), word(cases[i].join)) != 0)
            fail_msg("%s: %s by %s", cases[i].name, got, word(sc.out.join));
    }
    town_close(&sc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stories),
        cmocka_unit_test(test_stamp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
