/* loop_test.c - circles in one trace, honest mail beside them: one case a line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "loop.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static struct keys keys;
static struct site site;
static struct span own[2];

static int begin(void **state)
{
    (void)state;
    static const uint8_t key[32] = {7};
    site_defaults(&site);
    own[0] = SPAN("mx.ours.example");
    own[1] = SPAN("hub");
    site.own_hosts = own;
    site.nown_hosts = COUNT(own);
    return keys_open(&keys, key);
}

static int end(void **state)
{
    (void)state;
    keys_close(&keys);
    return 0;
}

/* Writes one Received line for each word of way, the last word on top: "from a by b" for "a>b";
 * "b" alone says no from. Minute i for the i-th. "D:x" writes Delivered-To: x. */
static size_t header_of(char *out, size_t cap, const char *way)
{
    const char *word[128];
    size_t n = 0, used = 0;
    char copy[4096], *save = NULL;
    assert_true(strlen(way) < sizeof(copy));
    memcpy(copy, way, strlen(way) + 1);
    for (char *w = strtok_r(copy, " ", &save); w && n < COUNT(word); w = strtok_r(NULL, " ", &save))
        word[n++] = w;
    while (n--) {
        const char *w = word[n], *by = strchr(w, '>');
        int done;
        if (w[0] == 'D' && w[1] == ':')
            done = snprintf(out + used, cap - used, "Delivered-To: %s\r\n", w + 2);
        else if (by)
            done = snprintf(out + used, cap - used,
                            "Received: from %.*s (x [192.0.2.1]) by %s id 1; Mon, 2 Sep 2002 "
                            "%02zu:%02zu:00 +0000\r\n",
                            (int)(by - w), w, by + 1, 8 + n / 60, n % 60);
        else
            done = snprintf(out + used, cap - used, "Received: by %s id 1\r\n", w);
        used += (size_t)done;
        assert_true(used < cap);
    }
    return used;
}

static struct loop_signals judged(struct arena *a, struct span header)
{
    struct message *m = message_new(a);
    message_add_raw(m, header);
    message_end_header(m);
    struct subject s = {.arena = a, .site = &site, .keys = &keys, .message = m};
    struct signals out = {0};
    trace_parse(&s.trace, a, &keys, m);
    loop_detector.judge(&s, NULL, &out);
    return out.loop;
}

static void ways(void **state)
{
    (void)state;
    static const struct {
        const char *name, *way;
        unsigned visits, edges, own, delivered, hops;
        const char *relay, *evidence;
    } cases[] = {
        {"no trace at all", "", 0, 0, 0, 0, 0, "", NULL},
        {"an ordinary way", "pc>a.x a.x>b.x b.x>c.x", 1, 1, 0, 0, 3, "", NULL},
        {"out to a list and back", "pc>a.x a.x>l.x l.x>a.x", 2, 1, 0, 0, 3, "a.x", NULL},
        {"the third visit", "pc>a.x a.x>l.x l.x>a.x a.x>m.x m.x>a.x", 3, 1, 0, 0, 5, "a.x",
         "a.x was visited 3 times: a.x -> m.x -> a.x; turns took 2 min, 2 min; 5 Received fields"},
        {"adjacent repeats are one visit", "pc>a.x a.x>a.x a.x>a.x a.x>a.x", 1, 1, 0, 0, 4, "",
         NULL},
        {"a content filter over loopback is no visit",
         "pc>a.x localhost>a.x a.x>localhost localhost>a.x b>a.x 127.0.0.1>a.x", 1, 1, 0, 0, 6, "",
         NULL},
        {"servers without a name do not count",
         "a>mail b>other a>mail b>other a>mail a>192.0.2.9 b>c.x a>192.0.2.9 b>d.x a>192.0.2.9", 1,
         1, 0, 0, 10, "", NULL},
        {"an edge again, not adjacent", "pc>a.x a.x>b.x b.x>c.x c.x>a.x a.x>b.x", 2, 2, 0, 0, 5,
         "b.x",
         "b.x was visited 2 times: b.x -> c.x -> a.x -> b.x; turns took 3 min; a.x handed it to "
         "b.x "
         "2 times; 5 Received fields"},
        {"the same edge twice in a row is once", "pc>a.x a.x>b.x a.x>b.x", 1, 1, 0, 0, 3, "", NULL},
        {"lines without a from make no edge", "a.x b.x a.x b.x", 2, 0, 0, 0, 4, "b.x", NULL},
        {"our own hosts, twice", "pc>mx.ours.example mx.ours.example>l.x l.x>hub", 1, 1, 2, 0, 3,
         "", NULL},
        {"our own hosts in a row are one visit", "pc>mx.ours.example x>hub y>mx.ours.example", 2, 1,
         1, 0, 3, "mx.ours.example", NULL},
        {"our own hosts, three times", "pc>mx.ours.example a>l.x l.x>hub a>m.x m.x>mx.ours.example",
         2, 1, 3, 0, 5, "mx.ours.example", "it came to our own hosts 3 times; 5 Received fields"},
        {"one delivery", "D:j@a.x pc>a.x", 1, 1, 0, 1, 1, "", NULL},
        {"two of them to others", "D:j@a.x pc>a.x D:k@a.x", 1, 1, 0, 1, 1, "", NULL},
        {"delivered there before", "D:j@a.x pc>a.x D:J@a.x", 1, 1, 0, 2, 1, "",
         "it was delivered to j@a.x 2 times before; 1 Received fields"},
        {"24 hops",
         "a.x b.x c.x d.x e.x f.x g.x h.x i.x j.x k.x l.x m.x n.x o.x p.x q.x r.x s.x "
         "t.x u.x v.x w.x y.x",
         1, 0, 0, 0, 24, "", NULL},
        {"25 hops",
         "a.x b.x c.x d.x e.x f.x g.x h.x i.x j.x k.x l.x m.x n.x o.x p.x q.x r.x s.x "
         "t.x u.x v.x w.x y.x z.x",
         1, 0, 0, 0, 25, "", "25 Received fields"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct arena *a = arena_new();
        char header[8192];
        size_t n = header_of(header, sizeof(header), cases[i].way);
        struct loop_signals l = judged(a, span_of(header, n));
        const char *got = l.evidence ? l.evidence : "", *want = cases[i].evidence;
        if (l.visits != cases[i].visits || l.edges != cases[i].edges ||
            l.own_visits != cases[i].own || l.delivered_to != cases[i].delivered ||
            l.hops != cases[i].hops || !span_eq(l.relay, span_str(cases[i].relay)) ||
            (l.evidence != NULL) != (want != NULL) || strcmp(got, want ? want : "") != 0)
            fail_msg("%s: visits %u edges %u own %u delivered %u hops %u relay %.*s\n %s",
                     cases[i].name, l.visits, l.edges, l.own_visits, l.delivered_to, l.hops,
                     SPAN_ARG(l.relay), got);
        arena_free(&a);
    }
}

/* A loop of three with names of 300 bytes that are not fit to print, 1,000 lines long. */
static void evidence_is_bounded_and_printable(void **state)
{
    (void)state;
    struct arena *a = arena_new();
    struct message *m = message_new(a);
    uint8_t name[300];
    memset(name, '\x1b', sizeof(name));
    for (unsigned i = 0; i < 1000; i++) {
        char line[512];
        name[0] = (uint8_t)('a' + i % 3);
        name[100] = '.';
        int n = snprintf(line, sizeof(line), "Received: from x by %.300s id %u\r\n",
                         (const char *)name, i);
        message_add_raw(m, span_of(line, (size_t)n));
    }
    message_end_header(m);
    struct subject s = {.arena = a, .site = &site, .keys = &keys, .message = m};
    struct signals out = {0};
    trace_parse(&s.trace, a, &keys, m);
    loop_detector.judge(&s, NULL, &out);
    assert_int_equal(out.loop.hops, 1000);
    assert_true(out.loop.visits >= 20);
    assert_non_null(out.loop.evidence);
    assert_true(strlen(out.loop.evidence) < 1024);
    for (const char *p = out.loop.evidence; *p; p++)
        assert_true(*p >= ' ' && *p < 0x7f);
    arena_free(&a);
}

static void a_long_turn_is_cut(void **state)
{
    (void)state;
    struct arena *a = arena_new();
    char header[8192];
    size_t n = header_of(header, sizeof(header),
                         "a.x b.x c.x d.x e.x f.x g.x h.x i.x j.x a.x b.x c.x d.x e.x f.x g.x h.x "
                         "i.x j.x a.x");
    struct loop_signals l = judged(a, span_of(header, n));
    assert_int_equal(l.visits, 3);
    assert_string_equal(l.evidence,
                        "a.x was visited 3 times: a.x -> b.x -> c.x -> d.x -> e.x -> f.x -> g.x "
                        "-> h.x -> (2 more) -> a.x; 21 Received fields");
    n = header_of(header, sizeof(header),
                  "a.x b.x c.x d.x e.x f.x g.x h.x a.x b.x c.x d.x e.x f.x g.x h.x a.x");
    l = judged(a, span_of(header, n));
    assert_non_null(strstr(l.evidence, "g.x -> h.x -> a.x; 17 Received fields"));
    arena_free(&a);
}

static void implausible_times_are_not_told(void **state)
{
    (void)state;
    static const char *const times[] = {"Mon, 2 Sep 2002 08:00:00 +0000",
                                        "Mon, 2 Sep 2002 07:00:00 +0000", /* backwards */
                                        "Mon, 2 Sep 2003 07:00:00 +0000", /* a year later */
                                        "Mon, 2 Sep 2003 10:00:00 +0000", /* 3 hours */
                                        "nonsense",
                                        "Fri, 5 Sep 2003 10:00:00 +0000"};
    struct arena *a = arena_new();
    char header[4096];
    size_t used = 0;
    for (size_t i = COUNT(times); i-- > 0;)
        used +=
            (size_t)snprintf(header + used, sizeof(header) - used,
                             "Received: by b%zu.x\r\nReceived: by a.x id 1; %s\r\n", i, times[i]);
    struct loop_signals l = judged(a, span_of(header, used));
    assert_int_equal(l.visits, 6);
    assert_string_equal(l.evidence, "a.x was visited 6 times: a.x -> b4.x -> a.x; turns took 3 h; "
                                    "12 Received fields");
    arena_free(&a);
}

/* The borders of the rules loop-own, loop-again and forwarding-loop. */
static void it_speaks(void **state)
{
    static const struct {
        const char *name;
        struct loop_signals l;
        bool first, again;
    } cases[] = {
        {"nothing odd", {.visits = 1, .edges = 1, .hops = 5}, false, false},
        {"30 servers", {.hops = 30}, false, false},
        {"31 servers", {.hops = 31}, true, true},
        {"three times at our own", {.own_visits = 3}, false, false},
        {"four times at our own", {.own_visits = 4}, true, true},
        {"two visits", {.visits = 2, .edges = 1, .delivered_to = 1}, false, false},
        {"three visits", {.visits = 3}, false, true},
        {"the same way twice", {.edges = 2}, false, true},
        {"delivered twice", {.delivered_to = 2}, false, true},
        {"delivered three times", {.delivered_to = 3}, true, true},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        if (loop_speaks(&cases[i].l, false) != cases[i].first ||
            loop_speaks(&cases[i].l, true) != cases[i].again)
            fail_msg("%s", cases[i].name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ways),
        cmocka_unit_test(evidence_is_bounded_and_printable),
        cmocka_unit_test(a_long_turn_is_cut),
        cmocka_unit_test(it_speaks),
        cmocka_unit_test(implausible_times_are_not_told),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
