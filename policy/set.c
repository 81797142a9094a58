/*
 * set.c - see set.h. Texts lie in three sorted lists: what is looked for as it stands, ends of host
 * names that begin with a dot, and local parts. Networks are ranges that do not overlap, so one
 * search finds the only one that can have an address.
 */
#include <stdio.h>
#include <stdlib.h>

#include "set.h"

enum { HOST_BYTES = 253, HOST_DOTS = 126 }; /* of a host name (RFC 1035 2.3.4) */

struct texts {
    struct span *p;
    size_t n, cap;
};

struct range {
    uint8_t family;
    uint8_t first[16], last[16];
};

struct set {
    struct arena *arena;
    const char *name;
    enum set_kind kind;
    size_t n;
    struct texts whole; /* texts; "anna@example.org", "@example.org", "" */
    struct texts below; /* ".example.org" */
    struct texts local; /* "anna" of anna@* */
    struct range *range;
    size_t nranges, cap;
};

const char *set_kind_name(enum set_kind kind)
{
    static const char *const names[SET_KINDS] = {"nothing", "texts", "mail addresses", "networks"};
    return kind < SET_KINDS ? names[kind] : "unknown";
}

struct set *set_new(struct arena *arena, const char *name)
{
    struct set *set = arena_zero(arena, sizeof *set);
    set->arena = arena;
    set->name = name;
    return set;
}

const char *set_label(const struct set *set)
{
    return set->name;
}

enum set_kind set_kind(const struct set *set)
{
    return set->kind;
}

size_t set_size(const struct set *set)
{
    return set->n;
}

/* ---- reading ---- */

#define REFUSE(why, ...) (snprintf((why), SET_WHY, __VA_ARGS__), false)

static void put_text(struct set *set, struct texts *t, struct span s)
{
    if (t->n == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 16;
        t->p = arena_grow(set->arena, t->p, t->cap * sizeof *t->p, cap * sizeof *t->p);
        t->cap = cap;
    }
    t->p[t->n++] = s;
}

static void put_network(struct set *set, const struct netmask *m)
{
    struct range r = {.family = m->addr.family};
    for (unsigned i = 0; i < 16; i++) {
        unsigned bits = m->bits <= 8 * i ? 0 : m->bits - 8 * i;
        unsigned fixed = bits >= 8 ? 0xff : ~(0xffu >> bits) & 0xff;
        r.first[i] = (uint8_t)(m->addr.byte[i] & fixed);
        r.last[i] = (uint8_t)(m->addr.byte[i] | (~fixed & 0xff));
    }
    if (set->nranges == set->cap) {
        size_t cap = set->cap ? 2 * set->cap : 16;
        set->range = arena_grow(set->arena, set->range, set->cap * sizeof r, cap * sizeof r);
        set->cap = cap;
    }
    set->range[set->nranges++] = r;
}

/* Digits and dots alone, or a number behind a slash: meant as a network. */
static bool like_network(struct span s)
{
    size_t dots = 0;
    struct span address = span_head(s, span_find(s, '/'));
    for (size_t i = 0; i < address.n; i++) {
        if (byte_hex(address.p[i]) < 0 && address.p[i] != '.' && address.p[i] != ':')
            return false;
        dots += address.p[i] == '.' || address.p[i] == ':';
    }
    return dots && byte_digit(s.p[0]) && (dots >= 3 || address.n < s.n);
}

static bool find_kind(struct span s, enum set_kind *kind, struct netmask *net, char why[SET_WHY])
{
    if (s.n == 0)
        return REFUSE(why, "an empty text can be in no set");
    if (s.n > SET_ENTRY_BYTES)
        return REFUSE(why, "this entry is longer than %d bytes", SET_ENTRY_BYTES);
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < 0x20 || s.p[i] == 0x7f)
            return REFUSE(why, "byte %zu of this entry is a control character", i + 1);
    if (netmask_parse(net, s))
        *kind = SET_NETWORKS;
    else if (like_network(s))
        return REFUSE(why, "'%.*s' is no network", SPAN_ARG(span_head(s, 60)));
    else
        *kind = span_find(s, '@') < s.n || span_eq(s, SPAN("<>")) ? SET_ADDRESSES : SET_TEXTS;
    return true;
}

/* "*" stands at the start only, for what follows it to be looked for. */
static bool no_star(struct span s, struct span entry, char why[SET_WHY])
{
    if (span_find(s, '*') == s.n)
        return true;
    return REFUSE(why,
                  "'%.*s': in a set * stands only for all before or all behind the @, or for all "
                  "before a dot; 'matches' knows other patterns",
                  SPAN_ARG(span_head(entry, 60)));
}

/* ".example.org" or "*.example.org": what is below it, in *name with its dot. */
static bool is_below(struct span s, struct span *name)
{
    *name = span_starts(s, SPAN("*.")) ? span_from(s, 1) : s;
    return name->n > 1 && name->p[0] == '.';
}

static bool add_text(struct set *set, struct span s, char why[SET_WHY])
{
    struct span name;
    bool below = is_below(s, &name);
    if (!no_star(below ? name : s, s, why))
        return false;
    put_text(set, below ? &set->below : &set->whole, below ? name : s);
    return true;
}

static bool add_address(struct set *set, struct span s, char why[SET_WHY])
{
    if (span_eq(s, SPAN("<>"))) {
        put_text(set, &set->whole, span_of(s.p, 0));
        return true;
    }
    size_t at = span_rfind(s, '@');
    struct span local = span_head(s, at), domain = span_from(s, at + 1), name;
    bool all = local.n == 0 || span_eq(local, SPAN("*"));
    bool everywhere = span_eq(domain, SPAN("*")), below = is_below(domain, &name);
    for (size_t i = 0; i < s.n; i++)
        if (byte_space(s.p[i]))
            return REFUSE(why, "'%.*s' has a blank in it, and is no mail address",
                          SPAN_ARG(span_head(s, 60)));
    if (domain.n == 0 || (all && everywhere) || (below && !all))
        return REFUSE(why,
                      "'%.*s' is none of anna@example.org, @example.org, @.example.org and anna@*",
                      SPAN_ARG(span_head(s, 60)));
    if (!no_star(all ? SPAN("") : local, s, why) ||
        !no_star(everywhere ? SPAN("") : (below ? name : domain), s, why))
        return false;
    if (everywhere)
        put_text(set, &set->local, local);
    else if (below)
        put_text(set, &set->below, name);
    else
        put_text(set, &set->whole, all ? span_from(s, at) : s);
    return true;
}

/* s: lower case, and as long-lived as the set. */
static bool add(struct set *set, struct span s, char why[SET_WHY])
{
    struct netmask net;
    enum set_kind kind;
    if (!find_kind(s, &kind, &net, why))
        return false;
    if (set->kind != SET_EMPTY && kind != set->kind)
        return REFUSE(why, "'%.*s' is one of %s, and the set began with %s",
                      SPAN_ARG(span_head(s, 60)), set_kind_name(kind), set_kind_name(set->kind));
    if (set->n == SET_ENTRIES)
        return REFUSE(why, "the set has more than %d entries", SET_ENTRIES);
    set->kind = kind;
    set->n++;
    if (kind == SET_TEXTS)
        return add_text(set, s, why);
    if (kind == SET_ADDRESSES)
        return add_address(set, s, why);
    put_network(set, &net);
    return true;
}

bool set_add(struct set *set, struct span entry, char why[SET_WHY])
{
    return add(set, arena_lower(set->arena, span_trim(entry)), why);
}

static struct span without_comment(struct span line)
{
    for (size_t i = 0; i < line.n; i++)
        if (line.p[i] == '#' && (i == 0 || byte_space(line.p[i - 1])))
            return span_head(line, i);
    return line;
}

unsigned set_read(struct set *set, struct span text, char why[SET_WHY])
{
    if (text.n > SET_BYTES) {
        snprintf(why, SET_WHY, "the file is larger than %d MB", SET_BYTES >> 20);
        return 1;
    }
    unsigned number = 1;
    struct span rest = arena_lower(set->arena, text);
    if (span_starts(rest, SPAN("\xef\xbb\xbf"))) /* some editors begin UTF-8 so */
        rest = span_from(rest, 3);
    for (; rest.n; number++) {
        size_t n = span_find(rest, '\n');
        struct span line = span_trim(without_comment(span_head(rest, n)));
        rest = span_from(rest, n + 1);
        if (line.n && line.p[0] == '"') {
            snprintf(why, SET_WHY, "in a file entries stand without quotes");
            return number;
        }
        if (line.n && !add(set, line, why))
            return number;
    }
    return 0;
}

/* ---- order ---- */

static int compare_texts(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    if (x->n != y->n)
        return x->n < y->n ? -1 : 1;
    return x->n ? memcmp(x->p, y->p, x->n) : 0;
}

static int compare_ranges(const void *a, const void *b)
{
    const struct range *x = a, *y = b;
    if (x->family != y->family)
        return x->family < y->family ? -1 : 1;
    return memcmp(x->first, y->first, sizeof x->first);
}

/* Ranges with something in common become one. */
static void join_ranges(struct set *set)
{
    size_t n = 0;
    for (size_t i = 0; i < set->nranges; i++) {
        const struct range *r = &set->range[i];
        struct range *before = n ? &set->range[n - 1] : NULL;
        if (!before || before->family != r->family ||
            memcmp(r->first, before->last, sizeof r->first) > 0)
            set->range[n++] = *r;
        else if (memcmp(r->last, before->last, sizeof r->last) > 0)
            memcpy(before->last, r->last, sizeof r->last);
    }
    set->nranges = n;
}

static void sort_texts(struct texts *t)
{
    if (t->n)
        qsort(t->p, t->n, sizeof *t->p, compare_texts);
}

void set_seal(struct set *set)
{
    sort_texts(&set->whole);
    sort_texts(&set->below);
    sort_texts(&set->local);
    if (set->nranges)
        qsort(set->range, set->nranges, sizeof *set->range, compare_ranges);
    join_ranges(set);
}

/* ---- asking ---- */

static bool has(const struct texts *t, struct span s)
{
    return t->n && bsearch(&s, t->p, t->n, sizeof *t->p, compare_texts);
}

/* Is the host below one of those with a dot before them? */
static bool has_below(const struct texts *t, struct span host)
{
    unsigned dots = 0;
    if (t->n == 0 || host.n > HOST_BYTES)
        return false;
    for (size_t i = 1; i < host.n && dots < HOST_DOTS; i++)
        if (host.p[i] == '.' && (dots++, has(t, span_from(host, i))))
            return true;
    return false;
}

bool set_has_text(const struct set *set, enum shape shape, struct span s)
{
    uint8_t lower[SET_ENTRY_BYTES];
    if (s.n > sizeof lower)
        return false;
    for (size_t i = 0; i < s.n; i++)
        lower[i] = byte_lower(s.p[i]);
    s = span_of(lower, s.n);
    if (has(&set->whole, s))
        return true;
    if (shape == SHAPE_HOST)
        return has_below(&set->below, s);
    if (shape != SHAPE_MAILBOX || s.n == 0)
        return false;
    size_t at = span_rfind(s, '@');
    return has(&set->local, span_head(s, at)) ||
           (at < s.n &&
            (has(&set->whole, span_from(s, at)) || has_below(&set->below, span_from(s, at + 1))));
}

bool set_has_address(const struct set *set, const struct ipaddr *a)
{
    struct range r = {.family = a->family};
    memcpy(r.first, a->byte, sizeof r.first);
    size_t low = 0, high = set->nranges; /* those before low begin at the address or before it */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare_ranges(&set->range[middle], &r) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0 || a->family == 0)
        return false;
    const struct range *nearest = &set->range[low - 1];
    return nearest->family == a->family && memcmp(a->byte, nearest->last, sizeof a->byte) <= 0;
}

bool network_has(const struct netmask *m, const struct ipaddr *a)
{
    return m->addr.family == a->family && (a->family == 0 || netmask_has(m, a));
}
