/*
 * fingerprint_bench.c - microseconds a message, from raw bytes to fingerprints, on one thread.
 *
 *   fingerprint_bench [messages]
 */
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "fingerprint.h"

enum kind { TEXT, QUOTED, BASE64, HTML, ALTERNATIVE, CYRILLIC, KINDS };

static const char *const names[KINDS] = {"text", "quoted",      "base64",
                                         "html", "alternative", "cyrillic"};

static const char head[] =
    "Received: from a.example (a.example [192.0.2.1]) by b.example (Postfix) with ESMTP id "
    "1A2B3C\r\n"
    "\tfor <someone@b.example>; Mon, 23 Jan 2006 10:00:00 +0000 (GMT)\r\n"
    "Received: from [10.0.0.1] by a.example with SMTP; Mon, 23 Jan 2006 09:59:00 +0000\r\n"
    "Message-ID: <43D4A1B2.1010101@a.example>\r\n"
    "Date: Mon, 23 Jan 2006 10:00:00 +0000\r\n"
    "From: \"A. Person\" <a.person@a.example>\r\n"
    "To: someone@b.example, \"Else\" <else@c.example>\r\n"
    "Subject: the usual subject of a message\r\n"
    "MIME-Version: 1.0\r\n";

static const char *const headers[KINDS] = {
    "Content-Type: text/plain; charset=us-ascii\r\n\r\n",
    "Content-Type: text/plain; charset=utf-8\r\n"
    "Content-Transfer-Encoding: quoted-printable\r\n\r\n",
    "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n",
    "Content-Type: text/html; charset=utf-8\r\n\r\n",
    "Content-Type: multipart/alternative; boundary=\"=_b\"\r\n\r\n--=_b\r\n"
    "Content-Type: text/plain\r\n\r\n",
    "Content-Type: text/plain; charset=utf-8\r\n\r\n",
};

static uint32_t seed = 7;
static uint32_t next(void)
{
    seed = seed * 1664525u + 1013904223u;
    return seed >> 8;
}

static size_t word(char *to, enum kind kind)
{
    size_t n = 0, letters = 2 + next() % 7;
    for (size_t i = 0; i < letters; i++) {
        if (kind == CYRILLIC) {
            to[n++] = (char)0xd0;
            to[n++] = (char)(0xb0 + next() % 16);
        } else if (kind == QUOTED && next() % 20 == 0) {
            n += (size_t)sprintf(to + n, "=C3=A9");
        } else {
            to[n++] = (char)('a' + next() % 26);
        }
    }
    if (kind == HTML && next() % 12 == 0)
        n += (size_t)sprintf(to + n, "</p><p class=\"x\">");
    return n;
}

/* A body of about `size` bytes in lines of about 72. */
static size_t text(char *to, enum kind kind, size_t size)
{
    size_t n = 0, column = 0;
    while (n < size) {
        size_t more = word(to + n, kind);
        to[n + more++] = ' ';
        n += more;
        column += more;
        if (column >= 72) {
            to[n++] = '\r';
            to[n++] = '\n';
            column = 0;
        }
    }
    return n;
}

/* The same in base64, in lines of 76. */
static size_t base64(char *to, size_t size)
{
    char *plain = malloc(size + 64);
    size_t length = text(plain, TEXT, size * 3 / 4), n = 0;
    for (size_t at = 0; at < length; at += 57) {
        size_t take = length - at < 57 ? length - at : 57;
        n += (size_t)EVP_EncodeBlock((uint8_t *)to + n, (uint8_t *)plain + at, (int)take);
        n += (size_t)sprintf(to + n, "\r\n");
    }
    free(plain);
    return n;
}

static size_t mail(char *to, enum kind kind, size_t size)
{
    size_t n = (size_t)sprintf(to, "%s%s", head, headers[kind]);
    if (kind == BASE64)
        n += base64(to + n, size);
    else
        n += text(to + n, kind, kind == ALTERNATIVE ? size / 3 : size);
    if (kind == ALTERNATIVE) {
        n += (size_t)sprintf(to + n, "\r\n--=_b\r\nContent-Type: text/html\r\n\r\n");
        n += text(to + n, HTML, 2 * size / 3);
        n += (size_t)sprintf(to + n, "\r\n--=_b--\r\n");
    }
    return n;
}

static struct fingerprints read_mail(const struct keys *k, struct span raw)
{
    struct arena *a = arena_new();
    struct message *m = message_new(a);
    struct span body = message_add_raw(m, raw);
    struct fingerprinter *f = fingerprint_begin(a, k, m);
    struct fingerprints fp;
    fingerprint_body(f, span_from(body, m->blank));
    fingerprint_end(f, &fp);
    arena_free(&a);
    return fp;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void measure(const struct keys *k, enum kind kind, size_t size, size_t bytes)
{
    char *raw = malloc(3 * size + 4096);
    size_t n = mail(raw, kind, size), times = bytes / n + 1;
    struct fingerprints fp = read_mail(k, span_of(raw, n));
    double best = 1e12;
    for (int round = 0; round < 5; round++) {
        double begin = now();
        for (size_t i = 0; i < times; i++)
            fp = read_mail(k, span_of(raw, n));
        double each = (now() - begin) / (double)times;
        best = each < best ? each : best;
    }
    printf("%-12s %7zu bytes %6u words %9.2f us/message %8.1f MB/s\n", names[kind], n, fp.nwords,
           best, (double)n / best);
    free(raw);
}

int main(int argc, char **argv)
{
    struct keys k;
    const uint8_t site[32] = {1};
    size_t bytes = (argc > 1 ? strtoul(argv[1], NULL, 10) : 2000) * 4096;
    if (keys_open(&k, site) != 0)
        return 1;
    static const size_t sizes[] = {1 << 10, 4 << 10, 20 << 10, 100 << 10};
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            measure(&k, (enum kind)kind, sizes[i], bytes);
    keys_close(&k);
    return 0;
}
