/*
 * trace_fuzz.c - any header into trace, path and loop; what must hold of all of them.
 */
#include <stdlib.h>

#include "loop.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
    if (!ok)
        abort();
}

/* Inside the line's own memory: the line and its lower-case twin. */
static void within(const struct hop *h, struct span s)
{
    must(s.n <= LIMIT_HOP_BYTES);
    if (s.n)
        must(s.p >= h->line.p && s.p + s.n <= h->line.p + 2 * LIMIT_HOP_BYTES);
}

static void hop_holds(const struct hop *h)
{
    must(h->line.n <= LIMIT_HOP_BYTES);
    must(!h->for_hash == !h->for_.n);
    must(h->ip.family == 0 || h->ip.family == 4 || h->ip.family == 6);
    within(h, h->by);
    within(h, h->helo);
    within(h, h->with);
    within(h, h->id);
    within(h, h->for_);
    for (size_t i = 0; i < h->by.n; i++)
        must(h->by.p[i] == byte_lower(h->by.p[i]));
    for (size_t i = 1; i < h->line.n && !h->gap; i++) { /* blanks are collapsed */
        must(!byte_space(h->line.p[i]) || h->line.p[i] == ' ');
        must(h->line.p[i] != ' ' || h->line.p[i - 1] != ' ');
    }
}

static void way_holds(const struct trace *t, const struct path *p)
{
    must(t->nhops <= LIMIT_HOPS + 1 && t->nhops <= t->total + 1);
    must(p->n >= 1 && p->n <= PATH_MAX_NODES && p->n >= t->nhops);
    for (size_t i = 0; i < p->n; i++) {
        const struct node *n = &p->node[i];
        must(n->host.n > 0 && n->host.n <= 255);
        must(n->server.n > 0 && n->server.n <= SERVER_NAME);
        for (size_t k = 0; k < n->server.n; k++)
            must(n->server.p[k] > ' ' && n->server.p[k] <= '~');
        must(host_org(n->host).n <= n->host.n);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t key[32] = {3};
    static struct keys keys;
    static struct site site;
    static struct span own[1];
    if (!site.exempt) {
        site_defaults(&site);
        own[0] = SPAN("mx.ours.example");
        site.own_hosts = own;
        site.nown_hosts = 1;
        must(keys_open(&keys, key) == 0);
    }
    struct arena *a = arena_new();
    struct message *m = message_new(a);
    struct hop one;
    trace_parse_hop(&one, a, &keys, span_of(data, size));
    hop_holds(&one);
    message_add_raw(m, span_of(data, size));
    message_end_header(m);

    struct subject s = {.arena = a, .site = &site, .keys = &keys, .message = m};
    struct ipaddr client = {0};
    if (size)
        ipaddr_parse(&client, span_head(span_of(data, size), data[size - 1]));
    trace_parse(&s.trace, a, &keys, m);
    for (size_t i = 0; i < s.trace.nhops; i++)
        hop_holds(&s.trace.hops[i]);
    path_build(&s.path, a, &keys, &site, &s.trace, &client, span_head(span_of(data, size), 300));
    way_holds(&s.trace, &s.path);

    struct signals out = {0};
    loop_detector.judge(&s, NULL, &out);
    must(out.loop.visits <= s.trace.nhops && out.loop.edges <= s.trace.nhops);
    must(!out.loop.evidence || strlen(out.loop.evidence) < 1024);
    for (const char *p = out.loop.evidence ? out.loop.evidence : ""; *p; p++)
        must(*p >= ' ' && *p < 0x7f);
    arena_free(&a);
    return 0;
}
