/*
 * letter.h - the messages smtpload sends and smtpsink checks byte for byte.
 *
 *   head: Received, Message-ID, Date, From, To, Subject, "X-Bench: NUMBER LINES" (hexadecimal)
 *   body: "Message NUMBER", then LINES lines of 78 bytes out of one long text; where they begin
 * follows from NUMBER. No line begins with a dot.
 *
 * Every message has a number, a recipient and (but for one in 50,000) lines of its own.
 */
#ifndef LETTER_H
#define LETTER_H
#include "bench.h"

enum { LINE = 78, BEGINNINGS = 50000, LINES_MAX = 20000, FIRST_LINE = 26 };

static char *letter_text;

static inline void letter_make(void)
{
    size_t n = (size_t)(BEGINNINGS + LINES_MAX) * LINE;
    letter_text = xcalloc(n, 1);
    fill_text(letter_text, n, 42);
}

/* The lines of message `number`. */
static inline const char *letter_lines(uint64_t number)
{
    return letter_text + number * 7919 % BEGINNINGS * LINE;
}

static inline size_t letter_head(char out[1024], uint64_t number, size_t lines)
{
    unsigned long long n = number;
    int len = snprintf(out, 1024,
                       "Received: from client.bench.example (client.bench.example [192.0.2.1])\r\n"
                       "\tby relay.bench.example (Postfix) with ESMTP id %016llx\r\n"
                       "\tfor <user%016llx@rcpt.example>; Mon, 23 Jan 2006 10:00:00 +0000\r\n"
                       "Message-ID: <%016llx@bench.example>\r\n"
                       "Date: Mon, 23 Jan 2006 10:00:00 +0000\r\n"
                       "From: Someone <someone@bench.example>\r\n"
                       "To: <user%016llx@rcpt.example>\r\n"
                       "Subject: Message %016llx\r\n"
                       "X-Bench: %016llx %08zx\r\n"
                       "\r\n"
                       "Message %016llx\r\n",
                       n, n, n, n, n, n, lines, n);
    return (size_t)len;
}

/* How many lines make a message of about `size` bytes. */
static inline size_t letter_lines_of(size_t size)
{
    char head[1024];
    size_t n = letter_head(head, 0, 0), lines = size > n ? (size - n + LINE / 2) / LINE : 0;
    return lines < 1 ? 1 : lines > LINES_MAX ? LINES_MAX : lines;
}
#endif
