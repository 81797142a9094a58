/*
 * address.c - addr-specs out of address lists (RFC 5322 3.4, 4.4).
 *
 *   Harbour: "Doe, J." <j.doe@a.example>, k@b.example (K), <@r1,@r2:l@c.example>;
 *   \group/   phrase     \__ addr-spec _/  \addr-spec/        \_ route _/
 *
 * One walk over the bytes. Outside of <> a word with an @ is only a candidate: it is a display name
 * if <> follows, an address if a comma does. What is opened and never closed (comment, quotes,
 * literal) is taken as ordinary bytes; that it is never closed is found out once, so the walk stays
 * linear.
 */
#include <stdlib.h>

#include "address.h"

#define NEVER SIZE_MAX

struct walk {
    struct arena *arena;
    struct span value;
    size_t at;
    bool no_paren, no_quote, no_bracket; /* none of these is closed in the rest of value */
    bool angle;                          /* between < and > */
    bool blank;                          /* blank or comment since the last byte of the word */
    bool stopped;
    address_fn *fn;
    void *arg;
    /* the word being read */
    uint8_t word[LIMIT_ADDRESS];
    size_t n;     /* NEVER: too long to be an address */
    size_t begin; /* in value */
    size_t sign;  /* where its last unquoted @ is; NEVER: none */
    /* an address outside of <>, waiting for what follows */
    struct span candidate;
};

static void word_clear(struct walk *w)
{
    w->n = 0;
    w->sign = NEVER;
    w->blank = false;
}

static void word_add(struct walk *w, uint8_t c)
{
    if (w->n == 0)
        w->begin = w->at;
    if (w->n == NEVER)
        return;
    if (w->n == sizeof w->word)
        w->n = NEVER;
    else
        w->word[w->n++] = c;
}

/* The word as a span that stays: a stretch of value where it is one. Empty if no address. */
static struct span word_address(struct walk *w)
{
    if (w->n == NEVER || w->sign == NEVER || w->sign == 0 || w->sign + 1 >= w->n)
        return span_of(NULL, 0);
    struct span as_written = span_head(span_from(w->value, w->begin), w->n);
    struct span word = span_of(w->word, w->n);
    return span_eq(as_written, word) ? as_written : arena_span(w->arena, word);
}

static void candidate_emit(struct walk *w)
{
    if (w->candidate.n && !w->stopped)
        w->stopped = !w->fn(w->arg, w->candidate);
    w->candidate.n = 0;
}

/* A word outside of <> is over: it waits, if it may be an address. */
static void word_ends(struct walk *w)
{
    struct span address = word_address(w);
    word_clear(w);
    if (address.n == 0)
        return;
    candidate_emit(w);
    w->candidate = address;
}

static void mailbox_ends(struct walk *w)
{
    word_ends(w);
    candidate_emit(w);
    w->angle = false;
}

/* Where what opens at `at` is closed, or NEVER. Backslash quotes the next byte. */
static size_t closing(struct span s, size_t at, uint8_t open, uint8_t close)
{
    size_t depth = 0;
    for (; at < s.n; at++) {
        if (s.p[at] == '\\')
            at++;
        else if (s.p[at] == close && (open != close || depth))
            depth--;
        else if (s.p[at] == open)
            depth++;
        if (depth == 0)
            return at < s.n ? at : NEVER;
    }
    return NEVER;
}

static bool atom_byte(uint8_t c)
{
    return c > ' ' && c != 127 && strchr("()<>[]:;@\\,\"", c) == NULL;
}

/* Does the content of a quoted local part need its quotes (RFC 5322 3.2.3 dot-atom)? */
static bool needs_quotes(struct span s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!atom_byte(s.p[i]) || (s.p[i] == '.' && (i == 0 || i + 1 == s.n || s.p[i - 1] == '.')))
            return true;
    return s.n == 0;
}

/* Adds value from w->at to end (both quotes included) to the word. */
static void quoted_add(struct walk *w, size_t end)
{
    struct span content = span_of(w->value.p + w->at + 1, end - w->at - 1);
    bool bare = !needs_quotes(content);
    size_t from = bare ? w->at + 1 : w->at, to = bare ? end : end + 1;
    for (size_t i = from; i < to; i++)
        word_add(w, w->value.p[i]);
}

/* Comments, quoted strings and domain literals: takes a whole one, or returns false. */
static bool enclosed_take(struct walk *w, uint8_t c)
{
    bool *none = c == '(' ? &w->no_paren : c == '"' ? &w->no_quote : &w->no_bracket;
    if (*none)
        return false;
    size_t end = closing(w->value, w->at, c, c == '(' ? ')' : c == '"' ? '"' : ']');
    if (end == NEVER) {
        *none = true;
        return false;
    }
    if (c == '(')
        w->blank = true;
    else if (c == '"')
        quoted_add(w, end);
    else
        for (size_t i = w->at; i <= end; i++)
            word_add(w, w->value.p[i]);
    w->at = end;
    return true;
}

/* Blanks end a word outside of <>, unless a dot or @ stands beside them (RFC 5322 4.4). */
static void blank_settle(struct walk *w, uint8_t next)
{
    if (!w->blank)
        return;
    w->blank = false;
    if (w->angle || w->n == 0 || w->n == NEVER || next == '.' || next == '@')
        return;
    uint8_t before = w->word[w->n - 1];
    if (before != '.' && before != '@')
        word_ends(w);
}

static void angle_opens(struct walk *w)
{
    w->candidate.n = 0; /* it was a display name */
    word_clear(w);
    w->angle = true;
}

static void byte_take(struct walk *w, uint8_t c)
{
    if (c == '<') {
        angle_opens(w);
    } else if (c == '>' || c == ';') {
        mailbox_ends(w);
    } else if (c == ',') {
        bool route = w->angle && w->n != NEVER && w->n && w->word[0] == '@';
        if (route)
            word_clear(w);
        else
            mailbox_ends(w);
    } else if (c == ':') {
        word_clear(w); /* a route, or the name of a group */
    } else {
        blank_settle(w, c);
        if (c == '@' && w->n != NEVER)
            w->sign = w->n;
        word_add(w, c);
    }
}

void address_each(struct arena *a, struct span value, address_fn *fn, void *arg)
{
    struct walk w;
    w.arena = a;
    w.value = value;
    w.fn = fn;
    w.arg = arg;
    w.no_paren = w.no_quote = w.no_bracket = w.angle = w.stopped = false;
    w.candidate = span_of(NULL, 0);
    w.begin = 0;
    word_clear(&w);
    for (w.at = 0; w.at < value.n && !w.stopped; w.at++) {
        uint8_t c = value.p[w.at];
        if (byte_space(c))
            w.blank = true;
        else if (c == '"' || c == '[')
            blank_settle(&w, c);
        if (byte_space(c) || ((c == '(' || c == '"' || c == '[') && enclosed_take(&w, c)))
            continue;
        byte_take(&w, c);
    }
    mailbox_ends(&w);
}

struct first {
    struct arena *arena;
    struct span address;
};

static bool first_keep(void *arg, struct span addr_spec)
{
    struct first *f = arg;
    f->address = arena_lower(f->arena, addr_spec);
    return false;
}

struct span address_first(struct arena *a, struct span value)
{
    struct first f = {a, span_of(NULL, 0)};
    address_each(a, value, first_keep, &f);
    return f.address;
}

struct span address_domain(struct span address)
{
    return span_from(address, span_rfind(address, '@') + 1);
}

/* Open addressing on the keyed hash itself; never more than half full. */
struct seen {
    uint64_t hash;
    struct span address; /* n = 0: empty slot */
};

struct gathering {
    struct arena *arena;
    const struct keys *keys;
    struct visible *v;
    struct seen *slot;
    size_t nslots;
};

static struct seen *slot_of(struct seen *slot, size_t nslots, uint64_t hash)
{
    size_t at = (size_t)hash & (nslots - 1);
    while (slot[at].address.n && slot[at].hash != hash)
        at = (at + 1) & (nslots - 1);
    return &slot[at];
}

static void gathering_grow(struct gathering *g)
{
    size_t nslots = g->nslots ? g->nslots * 4 : 64;
    struct seen *slot = arena_zero(g->arena, nslots * sizeof *slot);
    for (size_t i = 0; i < g->nslots; i++)
        if (g->slot[i].address.n)
            *slot_of(slot, nslots, g->slot[i].hash) = g->slot[i];
    g->slot = slot;
    g->nslots = nslots;
}

static bool gather(void *arg, struct span addr_spec)
{
    struct gathering *g = arg;
    g->v->total++;
    uint64_t hash = keys_address(g->keys, addr_spec, NULL);
    if (2 * (g->v->n + 1) > g->nslots)
        gathering_grow(g);
    struct seen *s = slot_of(g->slot, g->nslots, hash);
    if (s->address.n || g->v->n == LIMIT_VISIBLE)
        return true;
    *s = (struct seen){hash, arena_lower(g->arena, addr_spec)};
    g->v->n++;
    if (g->v->connector.n == 0 && span_case_has(s->address, SPAN("mspop3connector.")))
        g->v->connector = s->address;
    return true;
}

static int seen_compare(const void *a, const void *b)
{
    const struct seen *x = a, *y = b;
    return (x->hash > y->hash) - (x->hash < y->hash);
}

void visible_read(struct visible *v, const struct message *m, const struct keys *k)
{
    memset(v, 0, sizeof *v);
    struct gathering g = {m->arena, k, v, NULL, 0};
    static const enum field_name fields[] = {FIELD_TO, FIELD_CC};
    for (size_t i = 0; i < 2; i++)
        for (const struct field *f = message_first(m, fields[i]); f; f = message_next(m, f))
            address_each(m->arena, f->value, gather, &g);
    size_t n = 0;
    for (size_t i = 0; i < g.nslots; i++)
        if (g.slot[i].address.n)
            g.slot[n++] = g.slot[i];
    if (n)
        qsort(g.slot, n, sizeof *g.slot, seen_compare);
    v->hash = arena_alloc(m->arena, n * sizeof *v->hash);
    v->address = arena_alloc(m->arena, n * sizeof *v->address);
    for (size_t i = 0; i < n; i++) {
        v->hash[i] = g.slot[i].hash;
        v->address[i] = g.slot[i].address;
    }
}

long visible_find(const struct visible *v, uint64_t hash)
{
    size_t low = 0, high = v->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (v->hash[middle] < hash)
            low = middle + 1;
        else
            high = middle;
    }
    return low < v->n && v->hash[low] == hash ? (long)low : -1;
}
