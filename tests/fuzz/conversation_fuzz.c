/*
 * conversation_fuzz.c - any message into topic, ownwords and conversation; what must hold of them.
 */
#include <stdlib.h>

#include "conversation.h"
#include "ownwords.h"
#include "topic.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
    if (!ok)
        abort();
}

static void topic_holds(struct arena *a, struct span subject)
{
    struct topic t, again;
    topic_read(&t, a, subject);
    must(t.base.n <= TOPIC_BYTES && t.prefixes <= TOPIC_BYTES);
    must(!t.automatic || t.prefixes);
    for (size_t i = 0; i < t.base.n; i++)
        must(t.base.p[i] == byte_lower(t.base.p[i]));
    if (memmem(t.base.p ? t.base.p : (const uint8_t *)"", t.base.n, "=?", 2))
        return;
    topic_read(&again, a, t.base); /* the base of a base is itself */
    must(span_eq(t.base, again.base));
}

static void own_holds(struct span text, bool html)
{
    struct fingerprints fp = {.opening = span_head(text, html ? OPENING_HTML : OPENING_PLAIN),
                              .opening_html = html};
    struct ownwords w;
    ownwords_read(&w, &fp);
    must(w.n <= fp.opening.n && (!w.unknown || !w.n));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t key[32] = {3};
    static struct keys keys;
    static bool opened;
    if (!opened)
        must(keys_open(&keys, key) == 0);
    opened = true;
    struct span all = span_of(data, size);
    struct arena *a = arena_new();
    topic_holds(a, all);
    own_holds(all, false);
    own_holds(all, true);

    struct message *m = message_new(a);
    struct span body = message_add_raw(m, all);
    message_end_header(m);
    struct fingerprinter *f = fingerprint_begin(a, &keys, m);
    struct fingerprints fp;
    fingerprint_body(f, body);
    fingerprint_end(f, &fp);
    must(fp.opening.n <= (fp.opening_html ? OPENING_HTML : OPENING_PLAIN));
    struct envelope e = {.reversepath = span_head(all, 1), .nrecipients = size % 40};
    struct conversation c;
    conversation_read(&c, a, &keys, m, &fp, &e);
    must(c.nreferences <= CONVERSATION_REFERENCES && c.automatic == (c.automatic_why != NULL));
    must(c.nreferences == 0 || (c.reply && c.root == c.reference[0]));
    for (size_t i = 0; i < c.nreferences; i++)
        for (size_t k = 0; k < i; k++)
            must(c.reference[i] && c.reference[i] != c.reference[k]);
    for (const char *p = c.automatic_why ? c.automatic_why : ""; *p; p++)
        must(*p >= ' ' && *p < 0x7f);
    arena_free(&a);
    return 0;
}
