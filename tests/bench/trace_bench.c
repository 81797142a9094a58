/*
 * trace_bench.c - what reading the trace of one ordinary message costs, in ns.
 *
 *   trace_bench [rounds]
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "loop.h"

static const char header[] =
    "Received: from mail-out7.list.example (mail-out7.list.example [192.0.2.27])\r\n"
    "\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits))\r\n"
    "\t(No client certificate requested)\r\n"
    "\tby mx1.isp.example (Postfix) with ESMTPS id 4AbCdEfGhIj\r\n"
    "\tfor <joe@b.example>; Mon,  2 Sep 2002 08:30:41 +0100 (IST)\r\n"
    "Received: from localhost (localhost [127.0.0.1])\r\n"
    "\tby mail-out7.list.example (Postfix) with ESMTP id 3F9167FC40\r\n"
    "\tfor <joe@b.example>; Mon,  2 Sep 2002 08:30:39 +0100 (IST)\r\n"
    "Received: from [198.51.100.7] (helo=smtp.a.example)\r\n"
    "\tby lists.list.example with esmtps (TLS1.2) tls TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\r\n"
    "\t(Exim 4.93) (envelope-from <ann@a.example>)\r\n"
    "\tid 1lei0n-005md5-4q for all@list.example; Mon, 02 Sep 2002 08:30:35 +0100\r\n"
    "Received: by smtp.a.example with SMTP id 32so3000604qyk.0\r\n"
    "\tfor <all@list.example>; Mon, 02 Sep 2002 00:30:33 -0700 (PDT)\r\n"
    "Subject: hello\r\n";

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
    long rounds = argc > 1 ? strtol(argv[1], NULL, 10) : 100000;
    static const uint8_t key[32] = {1};
    struct keys keys;
    struct site site;
    struct arena *a = arena_new();
    struct message *m = message_new(a);
    struct ipaddr client;
    if (keys_open(&keys, key) != 0 || !ipaddr_parse(&client, SPAN("203.0.113.5")))
        return 1;
    site_defaults(&site);
    message_add_raw(m, SPAN(header));
    message_end_header(m);

    double parse = 0, build = 0, judge = 0;
    size_t nodes = 0;
    for (long i = 0; i < rounds; i++) {
        struct arena *tx = arena_new();
        struct subject s = {.arena = tx, .site = &site};
        struct signals out = {0};
        double t0 = now_ns();
        trace_parse(&s.trace, tx, &keys, m);
        double t1 = now_ns();
        path_build(&s.path, tx, &keys, &site, &s.trace, &client, SPAN("mx1.isp.example"));
        double t2 = now_ns();
        loop_detector.judge(&s, NULL, &out);
        double t3 = now_ns();
        parse += t1 - t0;
        build += t2 - t1;
        judge += t3 - t2;
        nodes += s.path.n + out.loop.visits;
        arena_free(&tx);
    }
    printf("4 hops: trace_parse %.0f ns, path_build %.0f ns, loop %.0f ns (%zu)\n",
           parse / (double)rounds, build / (double)rounds, judge / (double)rounds, nodes);
    arena_free(&a);
    keys_close(&keys);
    return 0;
}
