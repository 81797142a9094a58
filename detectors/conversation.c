/*
 * conversation.c - a message among others: what it answers, and who or what wrote it.
 *
 *   References: <root> <a> <b>      root; reference[]: root, In-Reply-To, b, a
 *   In-Reply-To: <b>
 *
 * Called once for every message: what only few of them need (the writer's own words) is left out
 * where it cannot matter.
 */
#include "conversation.h"

#include "ownwords.h"
#include "topic.h"
#include "transfer.h"

enum {
    INDEX_HEAD = 22,       /* bytes of a Thread-Index that all of a conversation share */
    INDEX_BASE64 = 64,     /* characters of it looked at: more than one answer deep */
    NOISE_WORDS = 12,      /* of its own, at most */
    MANY_ENVELOPE = 20,    /* recipients from which on its own words are looked at, */
    MANY_VISIBLE = 6 * 20, /* or so many bytes of To and Cc */
};

/* ---- Message-IDs ---- */

/* Cuts the next Message-ID off s: what stands inside <>, or, where nothing does, a word (old
 * clients). Empty: there is no more. */
static struct span id_next(struct span *s, bool bare)
{
    struct span id = {NULL, 0};
    while (s->n && id.n == 0) {
        struct span rest = bare ? span_trim(*s) : span_from(*s, span_find(*s, '<') + 1);
        size_t end = bare ? 0 : span_find(rest, '>');
        while (bare && end < rest.n && !byte_space(rest.p[end]))
            end++;
        id = span_head(rest, end);
        *s = rest.n ? span_from(rest, end + 1) : rest;
        if (bare && span_find(id, '@') == id.n)
            id.n = 0; /* "Your message of Monday" */
    }
    return id;
}

/* Is there a byte in it that does not belong to a Message-ID? A folded one has. */
static bool id_littered(struct span id)
{
    static const uint8_t litter[] = {' ', '\t', '\n', '\r', '<'};
    for (size_t i = 0; i < sizeof litter; i++)
        if (span_find(id, litter[i]) < id.n)
            return true;
    return false;
}

/* The same as of the Message-ID field: without blanks and <. */
static uint64_t id_hash(struct arena *a, const struct keys *k, struct span id)
{
    if (id_littered(id)) {
        uint8_t *p = arena_alloc(a, id.n);
        size_t n = 0;
        for (size_t i = 0; i < id.n; i++)
            if (!byte_space(id.p[i]) && id.p[i] != '<')
                p[n++] = id.p[i];
        id = span_of(p, n);
    }
    return id.n ? sip_hash(k, SIP_MISC, id) : 0;
}

/* What a message refers to, with the bytes of each: most are named twice. */
struct reader {
    struct conversation *c;
    struct arena *arena;
    const struct keys *keys;
    struct span id[CONVERSATION_REFERENCES];
};

static void reference_add(struct reader *r, struct span id)
{
    struct conversation *c = r->c;
    if (c->nreferences == CONVERSATION_REFERENCES)
        return;
    for (size_t i = 0; i < c->nreferences; i++)
        if (span_eq(r->id[i], id))
            return;
    uint64_t hash = id_hash(r->arena, r->keys, id);
    for (size_t i = 0; i < c->nreferences; i++)
        if (c->reference[i] == hash)
            return;
    if (hash == 0)
        return;
    r->id[c->nreferences] = id;
    c->reference[c->nreferences++] = hash;
}

/* The ids of all fields of a kind: the first one, and the last so many in a ring. */
struct ids {
    struct span first, last[CONVERSATION_REFERENCES];
    size_t n;
};

static void ids_read(struct ids *ids, const struct message *m, enum field_name name)
{
    ids->n = 0;
    for (const struct field *f = message_first(m, name); f; f = message_next(m, f)) {
        struct span s = f->value, id;
        bool bare = span_find(s, '<') == s.n;
        while ((id = id_next(&s, bare)).n) {
            if (ids->n == 0)
                ids->first = id;
            ids->last[ids->n++ % CONVERSATION_REFERENCES] = id;
        }
    }
}

static void references_read(struct conversation *c, struct arena *a, const struct keys *k,
                            const struct message *m)
{
    struct ids in_reply_to, references;
    struct reader r = {.c = c, .arena = a, .keys = k};
    if (!m->first[FIELD_REFERENCES] && !m->first[FIELD_IN_REPLY_TO])
        return;
    ids_read(&references, m, FIELD_REFERENCES);
    ids_read(&in_reply_to, m, FIELD_IN_REPLY_TO);
    if (references.n)
        reference_add(&r, references.first);
    if (in_reply_to.n)
        reference_add(&r, in_reply_to.first);
    size_t n = references.n;
    for (size_t i = 0; i < n && i < CONVERSATION_REFERENCES; i++)
        reference_add(&r, references.last[(n - 1 - i) % CONVERSATION_REFERENCES]);
}

/* ---- Thread-Index ([MS-OXOMSG] 2.2.1.3) ---- */

struct index {
    uint8_t p[INDEX_BASE64];
    size_t n;
};

static void index_bytes(void *arg, struct span s)
{
    struct index *x = arg;
    s = span_head(s, sizeof x->p - x->n);
    if (s.n)
        memcpy(x->p + x->n, s.p, s.n);
    x->n += s.n;
}

/* 22 bytes of the first message, then five for each answer. */
static void index_read(struct conversation *c, const struct keys *k, const struct message *m)
{
    const struct field *f = message_first(m, FIELD_THREAD_INDEX);
    if (!f)
        return;
    struct index x;
    struct transfer t = {.encoding = TRANSFER_BASE64};
    x.n = 0;
    transfer_add(&t, span_head(span_trim(f->value), INDEX_BASE64), index_bytes, &x);
    transfer_end(&t, index_bytes, &x);
    if (x.n < INDEX_HEAD)
        return;
    c->index = sip_hash(k, SIP_MISC, span_of(x.p, INDEX_HEAD));
    c->reply |= x.n > INDEX_HEAD;
}

/* ---- written by a machine? (RFC 3834 5, 2; RFC 2076 3.9) ---- */

/* The first word of a value, without comment and parameters. */
static struct span keyword(struct span value)
{
    size_t n = 0;
    value = span_trim(value);
    while (n < value.n && !byte_space(value.p[n]) && value.p[n] != ';' && value.p[n] != '(')
        n++;
    return span_head(value, n);
}

static const char *auto_submitted(struct arena *a, const struct message *m)
{
    const struct field *f = message_first(m, FIELD_AUTO_SUBMITTED);
    struct span word = f ? keyword(f->value) : span_of(NULL, 0);
    char shown[32];
    if (word.n == 0 || span_case_eq(word, SPAN("no")))
        return NULL;
    span_show(word, shown, sizeof shown);
    return arena_printf(a, "Auto-Submitted: %s", shown);
}

/* What the mail of a list says as well, which people wrote: a list marks itself, or sends by an
 * address of its own. */
static const char *precedence(const struct message *m, const struct fingerprints *fp,
                              const struct envelope *e)
{
    const struct field *f = message_first(m, FIELD_PRECEDENCE);
    struct span word = f ? keyword(f->value) : span_of(NULL, 0);
    if (span_case_eq(word, SPAN("auto_reply")))
        return "Precedence: auto_reply";
    if (m->first[FIELD_LIST_ID] || m->first[FIELD_LIST_OTHER] ||
        !span_case_eq(e->reversepath, fp->from))
        return NULL;
    if (span_case_eq(word, SPAN("bulk")))
        return "Precedence: bulk";
    return span_case_eq(word, SPAN("junk")) ? "Precedence: junk" : NULL;
}

static bool autoreply(const struct message *m)
{
    const struct field *f = message_first(m, FIELD_AUTOREPLY);
    return f && !span_case_eq(keyword(f->value), SPAN("no"));
}

static bool report(const struct message *m)
{
    const struct field *f = message_first(m, FIELD_CONTENT_TYPE);
    return f && span_case_eq(keyword(f->value), SPAN("multipart/report"));
}

static const char *machine(struct arena *a, const struct message *m, const struct fingerprints *fp,
                           const struct envelope *e, const struct topic *topic)
{
    const char *why = auto_submitted(a, m);
    if (!why && e->reversepath.n == 0)
        why = "null reverse-path";
    if (!why)
        why = precedence(m, fp, e);
    if (!why && autoreply(m))
        why = "X-Autoreply";
    if (!why && report(m))
        why = "multipart/report";
    if (!why && topic->automatic)
        why = "its subject";
    return why;
}

/* ---- does it say anything? ---- */

/* May it go to many? Before addresses are compared, so by bytes. */
static bool to_many(const struct message *m, const struct envelope *e)
{
    static const enum field_name names[] = {FIELD_TO, FIELD_CC};
    size_t bytes = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (const struct field *f = message_first(m, names[i]); f; f = message_next(m, f))
            bytes += f->value.n;
    return e->nrecipients >= MANY_ENVELOPE || bytes >= MANY_VISIBLE;
}

static bool says_little(const struct fingerprints *fp)
{
    struct ownwords own;
    if (fp->nwords <= NOISE_WORDS)
        return true;
    if (fp->opening.n == 0)
        return false;
    ownwords_read(&own, fp);
    return own.stop || (own.n <= NOISE_WORDS && !own.unknown);
}

void conversation_read(struct conversation *c, struct arena *a, const struct keys *keys,
                       const struct message *m, const struct fingerprints *fp,
                       const struct envelope *e)
{
    struct topic topic;
    *c = (struct conversation){0};
    topic_read(&topic, a, fp->subject);
    c->base = topic.base;
    c->base_hash = topic.base.n ? sip_hash(keys, SIP_MISC, topic.base) : 0;
    c->prefixes = topic.prefixes;
    c->own = fp->message_id.n ? sip_hash(keys, SIP_MISC, fp->message_id) : 0;
    references_read(c, a, keys, m);
    c->root = c->nreferences ? c->reference[0] : c->own;
    c->reply = c->nreferences || topic.reply;
    index_read(c, keys, m);
    c->automatic_why = machine(a, m, fp, e, &topic);
    c->automatic = c->automatic_why != NULL;
    c->noise = c->reply && to_many(m, e) && says_little(fp);
}
