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
        t->t = arena_grow(a, t->t, t->cap * sizeof *t->t, cap * sizeof *t->t);
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

/*
 * Without Message-ID and Date only content tells two messages apart, and content alone never
 * identifies: a printer that says "paper is out" each day sends a new message each day. Such a
 * message is bound to its oldest acceptance; where nobody wrote one, it is new each time.
 */
static void bind_anonymous(struct subject *s)
{
    const struct trace *t = &s->trace;
    uint64_t event = t->nhops ? t->hops[t->nhops - 1].event : (uint64_t)s->now;
    uint8_t bytes[8];
    bytes_put(bytes, event, sizeof bytes);
    struct key k = s->fp.k;
    const struct span parts[] = {span_of(k.byte, sizeof k.byte), span_of(bytes, sizeof bytes)};
    keys_mac(s->keys, "M0e", parts, 2, s->fp.k.byte, sizeof s->fp.k.byte);
}

void subject_read(struct subject *s, struct arena *a, const struct site *site,
                  const struct keys *keys, struct envelope *e, const struct message *m,
                  const struct fingerprints *fp, int64_t now)
{
    *s = (struct subject){
        .arena = a, .site = site, .keys = keys, .envelope = e, .message = m, .fp = *fp, .now = now};
    trace_parse(&s->trace, a, keys, m);
    path_build(&s->path, a, keys, site, &s->trace, &e->client, e->helo);
    if (fp->message_id.n == 0 && fp->date.n == 0)
        bind_anonymous(s);
    visible_read(&s->visible, m, keys);
    conversation_read(&s->talk, a, keys, m, fp, e);
    s->client_host = client_name(a, e);
    s->client_org = host_org(s->client_host);
    for (size_t i = 0; i < e->nrecipients; i++) {
        struct recipient *r = &e->recipients[i];
        r->hash = keys_address(keys, r->address, &r->domain);
    }
}
