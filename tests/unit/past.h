/*
 * past.h - subjects made of words, for tests of the past.
 *
 * A path is written oldest first, "origin isp mx1/q7 sbs[192.0.2.9]^": blank-separated nodes, each
 * HOST or HOST[EGRESS], then /EVENT (another acceptance by the same host), ^ (taken out of a
 * mailbox), ~ (the same by fetchmail), = (ours), @ADDRESS (accepted "for" it). Recipients are
 * blank-separated addresses.
 */
#ifndef PAST_H
#define PAST_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store.h"

struct past {
    struct arena *arena;
    struct keys keys;
    struct site site;
};

static inline void past_open(struct past *p)
{
    static const uint8_t key[32] = "a site key for the tests only ..";

    p->arena = arena_new();
    site_defaults(&p->site);
    if (keys_open(&p->keys, key))
        abort();
}

static inline void past_close(struct past *p)
{
    keys_close(&p->keys);
    arena_free(&p->arena);
}

static inline struct span past_word(struct span *rest)
{
    struct span word;

    *rest = span_trim(*rest);
    word = span_head(*rest, span_find(*rest, ' '));
    *rest = span_from(*rest, word.n);
    return word;
}

/* Cuts the mark and what follows it off s. */
static inline struct span past_cut(struct span *s, char mark)
{
    size_t at = span_find(*s, (uint8_t)mark);
    struct span tail = span_from(*s, at + 1);

    *s = span_head(*s, at);
    return tail;
}

static inline void past_node(struct past *p, struct path *path, struct span word, uint64_t before)
{
    struct node *n = &path->node[path->n];
    struct hop *hop = arena_zero(p->arena, sizeof(*hop));
    struct span whole = word;
    struct span to = past_cut(&word, '@');

    hop->for_ = to;
    hop->for_hash = to.n ? keys_address(&p->keys, to, NULL) : 0;
    n->own = span_find(word, '=') < word.n;
    past_cut(&word, '=');
    hop->fetched = span_find(word, '~') < word.n;
    hop->reinjected = span_find(word, '^') < word.n || hop->fetched;
    past_cut(&word, '^');
    past_cut(&word, '~');
    past_cut(&word, '/');
    hop->line = hop->reinjected && !hop->fetched ? SPAN("from mail pickup service by x") : whole;
    hop->by = n->server = word;
    n->host = span_head(word, span_find(word, '['));
    n->host_hash = sip_hash(&p->keys, SIP_HOST, n->host);
    n->server_id = (uint32_t)sip_hash(&p->keys, SIP_HOST, n->server);
    n->prefix_id =
        (uint32_t)sip_pair(&p->keys, SIP_EVENT, before, sip_hash(&p->keys, SIP_EVENT, whole));
    n->hop = path->n || hop->reinjected ? hop : NULL; /* of a source nobody wrote a line */
    path->reinjected |= path->n && hop->reinjected;
    path->n++;
}

static inline void past_path(struct past *p, struct subject *s, const char *text)
{
    struct span rest = span_str(text);

    s->path = (struct path){.node = arena_zero(p->arena, PATH_MAX_NODES * sizeof(struct node))};
    while (span_trim(rest).n)
        past_node(p, &s->path, past_word(&rest),
                  s->path.n ? s->path.node[s->path.n - 1].prefix_id : 0);
    for (size_t i = 1; i + 1 < s->path.n; i++) {
        struct hop *next = arena_zero(p->arena, sizeof(*next));

        *next = *s->path.node[i + 1].hop;
        next->helo = s->path.node[i].host;
        s->path.node[i + 1].hop = next;
    }
    s->client_host = s->path.node[s->path.n - 1].host;
    s->client_org = host_org(s->client_host);
}

static inline void past_recipients(struct past *p, struct subject *s, const char *text)
{
    struct envelope *e = arena_zero(p->arena, sizeof(*e));
    struct span rest = span_str(text);

    e->recipients = arena_zero(p->arena, (strlen(text) / 2 + 1) * sizeof(*e->recipients));
    while (span_trim(rest).n) {
        struct recipient *r = &e->recipients[e->nrecipients++];

        r->address = r->raw = past_word(&rest);
        r->hash = keys_address(&p->keys, r->address, &r->domain);
    }
    e->helo = s->client_host;
    s->envelope = e;
}

static inline void past_visible(struct past *p, struct subject *s, const char *text)
{
    struct visible *v = &s->visible;
    struct span rest = span_str(text);
    size_t cap = strlen(text) / 2 + 1;

    v->hash = arena_zero(p->arena, cap * sizeof(*v->hash));
    v->address = arena_zero(p->arena, cap * sizeof(*v->address));
    while (span_trim(rest).n) {
        struct span word = past_word(&rest);
        uint64_t hash = keys_address(&p->keys, word, NULL);
        size_t at = v->n++;

        for (; at && v->hash[at - 1] > hash; at--) {
            v->hash[at] = v->hash[at - 1];
            v->address[at] = v->address[at - 1];
        }
        v->hash[at] = hash;
        v->address[at] = word;
    }
    v->total = v->n;
}

/* A subject with the content `f`, its K made of `k`. */
static inline void past_subject(struct past *p, struct subject *s, uint64_t k, uint64_t f,
                                const char *path, const char *rcpts, const char *visible)
{
    *s = (struct subject){
        .arena = p->arena, .site = &p->site, .keys = &p->keys, .now = 1000000000000};
    uint64_t word = sip_pair(&p->keys, SIP_MISC, k, 7);
    memcpy(s->fp.k.byte, &word, sizeof(word));
    s->fp.f = f;
    s->fp.nwords = 100;
    past_path(p, s, path);
    past_recipients(p, s, rcpts);
    past_visible(p, s, visible);
}

#endif
