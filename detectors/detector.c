/*
 * detector.c - what all detectors are given to read, and how they ask.
 */
#include "detector.h"

size_t tallies_add(struct tallies *t, struct arena *a, struct tally tally)
{
    if (t->n == TALLIES_MAX)
        return t->n;
    if (t->n == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 16;
        t->t = arena_grow(a, t->t, t->cap * sizeof(*t->t), cap * sizeof(*t->t));
        t->cap = cap;
    }
    t->t[t->n] = tally;
    return t->n++;
}

/* The name our client goes by: what its address resolves to, else what it said. */
static struct span client_name(struct arena *a, const struct envelope *e)
{
    struct span name = span_trim(e->client_name);
    if (name.n == 0 || name.p[0] == '[' || span_case_eq(name, SPAN("unknown")))
        name = e->helo;
    return host_comparable(a, name);
}

void subject_read(struct subject *s, struct arena *a, const struct site *site,
                  const struct keys *keys, struct envelope *e, const struct message *m,
                  const struct fingerprints *fp, int64_t now)
{
    *s = (struct subject){
        .arena = a, .site = site, .keys = keys, .envelope = e, .message = m, .fp = *fp, .now = now};
    trace_parse(&s->trace, a, keys, m);
    path_build(&s->path, a, keys, site, &s->trace, &e->client, e->helo);
    visible_read(&s->visible, m, keys);
    s->client_host = client_name(a, e);
    s->client_org = host_org(s->client_host);
    for (size_t i = 0; i < e->nrecipients; i++) {
        struct recipient *r = &e->recipients[i];
        r->hash = keys_address(keys, r->address, &r->domain);
    }
}
