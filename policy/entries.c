/*
 * entries.c - see entries.h. One hash table over what the entries are about, each in its plain form
 * (form, bytes); entries about the same thing hang in one chain, the latest made first. Of a
 * message every form it could be named in is looked up: its address cut to each prefix length in
 * use, its name and what is above it, its sender in four ways.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "entries.h"

enum form {
    FORM_NET,    /* 16 bytes of address; bits says how many count */
    FORM_HOST,   /* mail.a.example */
    FORM_BELOW,  /* a.example: hosts below it */
    FORM_SENDER, /* anna@a.example; empty: the null reverse-path */
    FORM_DOMAIN, /* a.example: its senders */
    FORM_UNDER,  /* a.example: senders of domains below it */
    FORM_LOCAL,  /* anna: of any domain */
    FORM_STORM,
    FORMS
};
enum { NAME = 255, WHO = 64, WHY = 500, BITS = 129 };

struct entries {
    _Atomic unsigned references;
    struct entry **entry; /* the latest made first */
    size_t n;
    uint32_t *slot; /* index + 1 of the first of a chain; 0: free */
    uint32_t *next; /* index + 1 of the next in the chain of entry i */
    size_t mask;
    size_t count[FORMS]; /* entries of each form */
    uint8_t bits[BITS];  /* prefix lengths in use, */
    size_t nbits;        /* the longest first */
};

static void *room(size_t n, size_t size)
{
    void *p = calloc(n + 1, size);
    if (!p)
        abort();
    return p;
}

static const char *const kinds[ENTRY_KINDS] = {"relay", "sender", "storm"};

const char *entry_kind_name(enum entry_kind kind)
{
    return kind < ENTRY_KINDS ? kinds[kind] : "unknown";
}

enum entry_kind entry_kind_find(const char *name)
{
    unsigned k = 0;
    while (k < ENTRY_KINDS && strcmp(kinds[k], name) != 0)
        k++;
    return (enum entry_kind)k;
}

/* ---- what people write ---- */

static bool refuse(char error[200], const char *sentence)
{
    snprintf(error, 200, "%s", sentence);
    return false;
}

static void set_key(struct entry *e, enum form form, struct span bytes)
{
    e->form = (uint8_t)form;
    e->key = room(bytes.n, 1);
    e->nkey = bytes.n;
    if (bytes.n)
        memcpy(e->key, bytes.p, bytes.n);
}

static void set_text(struct entry *e, enum form form, struct span text)
{
    set_key(e, form, text);
    for (size_t i = 0; i < text.n; i++)
        e->key[i] = byte_lower(text.p[i]);
}

/* Labels of letters, digits, - and _ with dots between; nothing at its ends. */
static bool is_host(struct span s)
{
    if (s.n == 0 || s.n > NAME - 8 || s.p[s.n - 1] == '.')
        return false;
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = s.p[i];
        bool dot = c == '.' && i && s.p[i - 1] != '.';
        if (!byte_letter(c) && !byte_digit(c) && c != '-' && c != '_' && !dot && c < 0x80)
            return false;
    }
    return true;
}

/* What is below a top-level domain is too much. */
static bool is_parent(struct span s)
{
    return is_host(s) && span_find(s, '.') < s.n;
}

/* The address with the bits beyond the first n cleared. */
static void cut_address(uint8_t out[16], const struct ipaddr *a, unsigned n)
{
    for (unsigned i = 0; i < 16; i++) {
        unsigned left = n > 8 * i ? n - 8 * i : 0;
        out[i] = (uint8_t)(a->byte[i] & (left >= 8 ? 0xff : 0xff00 >> left));
    }
}

static void print_net(struct entry *e, const struct ipaddr *a)
{
    char text[IPADDR_TEXT];
    unsigned least = a->family == 4 ? 96 : 0;
    ipaddr_print(a, text);
    if (e->bits == 128)
        snprintf(e->what, sizeof e->what, "%s", text);
    else
        snprintf(e->what, sizeof e->what, "%s/%u", text, e->bits - least);
}

/* A network of more than a /8 (IPv6: a /16) is a slip. */
static bool read_net(struct entry *e, struct span s)
{
    struct netmask m;
    struct ipaddr cut;
    if (!netmask_parse(&m, s) || m.bits < (m.addr.family == 4 ? 96 + 8 : 16))
        return false;
    cut.family = m.addr.family;
    cut_address(cut.byte, &m.addr, m.bits);
    e->bits = m.bits;
    print_net(e, &cut);
    set_key(e, FORM_NET, span_of(cut.byte, sizeof cut.byte));
    return true;
}

static void say_what(struct entry *e, const char *before)
{
    snprintf(e->what, sizeof e->what, "%s%.*s", before, (int)e->nkey, (const char *)e->key);
}

static bool read_relay(struct entry *e, struct span s, char error[200])
{
    size_t open = span_find(s, '[');
    struct span in = span_bare(span_from(s, open), '[', ']');
    bool wild = span_starts(s, SPAN("*."));
    if (open < s.n && s.p[s.n - 1] == ']' && read_net(e, in))
        return true;
    if (read_net(e, s))
        return true;
    if (span_starts(s, SPAN(".")) || wild) {
        struct span below = span_from(s, wild ? 2 : 1);
        if (is_parent(below)) {
            set_text(e, FORM_BELOW, below);
            say_what(e, ".");
            return true;
        }
    } else if (is_host(s) && span_find(s, '/') == s.n && !byte_digit(s.p[s.n - 1])) {
        set_text(e, FORM_HOST, s);
        say_what(e, "");
        return true;
    }
    return refuse(error,
                  "A relay is an address (192.0.2.7), a network (192.0.2.0/24), a host's name "
                  "(mail.a.example), or all hosts below one (.a.example).");
}

static bool read_domain(struct entry *e, struct span domain)
{
    bool under = span_starts(domain, SPAN(".")) || span_starts(domain, SPAN("*."));
    if (under)
        domain = span_from(domain, domain.p[0] == '.' ? 1 : 2);
    if (under ? !is_parent(domain) : !is_host(domain))
        return false;
    set_text(e, under ? FORM_UNDER : FORM_DOMAIN, domain);
    say_what(e, under ? "@." : "@");
    return true;
}

/* Could this be the left side of an address? Not a pattern, and nothing invisible. */
static bool is_local(struct span s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] <= ' ' || s.p[i] == 0x7f || s.p[i] == '*')
            return false;
    return s.n > 0;
}

static bool read_sender(struct entry *e, struct span s, char error[200])
{
    bool null = span_eq(s, SPAN("<>"));
    s = span_bare(s, '<', '>');
    size_t at = span_rfind(s, '@');
    struct span local = span_head(s, at), domain = span_from(s, at + 1);
    if (null) {
        set_text(e, FORM_SENDER, SPAN(""));
        say_what(e, "<>");
        return true;
    }
    if (s.n <= NAME && at < s.n) {
        if ((local.n == 0 || span_eq(local, SPAN("*"))) && read_domain(e, domain))
            return true;
        if (is_local(local) && span_eq(domain, SPAN("*"))) {
            set_text(e, FORM_LOCAL, local);
            snprintf(e->what, sizeof e->what, "%.*s@*", (int)e->nkey, (const char *)e->key);
            return true;
        }
        if (is_local(local) && is_host(domain)) {
            set_text(e, FORM_SENDER, s);
            say_what(e, "");
            return true;
        }
    }
    return refuse(error,
                  "A sender is an address (anna@a.example), a domain (@a.example), the domains "
                  "below one (@.a.example), a name anywhere (anna@*), or <> for none.");
}

/* 'S' and 8 letters or digits; which storms there are is not known here. */
static bool read_storm(struct entry *e, struct span s, char error[200])
{
    bool good = s.n == 9 && byte_lower(s.p[0]) == 's';
    for (size_t i = 1; good && i < s.n; i++)
        good = byte_letter(s.p[i]) || (s.p[i] >= '2' && s.p[i] <= '7');
    if (!good)
        return refuse(error, "A storm's id is S and 8 letters or digits.");
    set_text(e, FORM_STORM, s);
    for (size_t i = 0; i < s.n; i++)
        e->what[i] = (char)(byte_letter(s.p[i]) ? s.p[i] & ~0x20 : s.p[i]);
    return true;
}

static bool read_what(struct entry *e, struct span s, char error[200])
{
    if (e->kind == ENTRY_RELAY)
        return read_relay(e, s, error);
    if (e->kind == ENTRY_SENDER)
        return read_sender(e, s, error);
    if (e->kind == ENTRY_STORM)
        return read_storm(e, s, error);
    return refuse(error, "An entry is about a relay, a sender or a storm.");
}

/* ---- an entry ---- */

/* FNV-1a from the last byte to the first, so that one pass hashes all domains above a name; who
 * asks cannot choose what is in the table. */
#define HASH_BEGIN UINT64_C(0xcbf29ce484222325)

static uint64_t hash_byte(uint64_t h, uint8_t byte)
{
    return (h ^ byte) * UINT64_C(0x100000001b3);
}

static uint64_t hash_end(uint64_t h, enum form form, unsigned bits)
{
    h = hash_byte(hash_byte(h, (uint8_t)form), (uint8_t)bits);
    return h ^ h >> 29;
}

static uint64_t hash_of(enum form form, unsigned bits, struct span s)
{
    uint64_t h = HASH_BEGIN;
    for (size_t i = s.n; i > 0; i--)
        h = hash_byte(h, s.p[i - 1]);
    return hash_end(h, form, bits);
}

/* "2026-11-28 10:00" (Howard Hinnant's civil_from_days). */
static void print_date(char *out, size_t size, int64_t ms)
{
    int64_t minutes = ms / 60000, days = minutes / 1440 + 719468, era = days / 146097;
    int64_t doe = days - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
    int64_t month = mp < 10 ? mp + 3 : mp - 9, year = yoe + era * 400 + (month <= 2);
    snprintf(out, size, "%04d-%02d-%02d %02d:%02d", (int)year, (int)month,
             (int)(doy - (153 * mp + 2) / 5 + 1), (int)(minutes % 1440 / 60), (int)(minutes % 60));
}

static char *text_copy(const char *text, size_t most)
{
    size_t n = text ? strnlen(text, most) : 0;
    char *copy = room(n, 1);
    if (n)
        memcpy(copy, text, n);
    return copy;
}

/* What the recipient's helpdesk reads; people's words, made harmless for a log line. */
static char *reason_of(const struct entry *e)
{
    size_t size = WHO + WHY + 80;
    char *out = room(size, 1), until[40];
    print_date(until, sizeof until, e->until);
    snprintf(out, size, "%s by %s until %s UTC: %s", e->hold ? "held" : "allowed", e->who, until,
             e->why);
    for (char *c = out; *c; c++)
        if ((uint8_t)*c < 0x20 || (uint8_t)*c > 0x7e)
            *c = '?';
    return out;
}

struct entry *entry_new(const struct entry_terms *t, char error[200])
{
    struct entry *e = room(1, sizeof *e);
    atomic_init(&e->references, 1);
    e->kind = t->kind;
    e->hold = t->hold;
    e->at = t->at;
    e->until = t->until;
    snprintf(e->id, sizeof e->id, "%s", t->id);
    snprintf(e->rule, sizeof e->rule, ENTRY_RULE "%s", e->id);
    atomic_init(&e->used, t->used);
    atomic_init(&e->last, t->last);
    e->saved = t->used;
    e->who = text_copy(t->who, WHO);
    e->why = text_copy(t->why, WHY);
    e->reason = reason_of(e);
    if (!read_what(e, span_trim(span_str(t->what)), error))
        entry_drop(&e);
    else
        e->hash = hash_of((enum form)e->form, e->bits, span_of(e->key, e->nkey));
    return e;
}

void entry_drop(struct entry **place)
{
    struct entry *e = *place;
    *place = NULL;
    if (!e || atomic_fetch_sub(&e->references, 1) != 1)
        return;
    free(e->who);
    free(e->why);
    free(e->reason);
    free(e->key);
    free(e);
}

/* ---- a table ---- */

static bool about(const struct entry *e, enum form form, unsigned bits, struct span key)
{
    return e->form == form && e->bits == bits && span_eq(span_of(e->key, e->nkey), key);
}

/* The slot of a chain, or the free one where it would begin. */
static size_t slot_of(const struct entries *t, uint64_t hash, enum form form, unsigned bits,
                      struct span key)
{
    size_t s = (size_t)hash & t->mask;
    while (t->slot[s] && !(t->entry[t->slot[s] - 1]->hash == hash &&
                           about(t->entry[t->slot[s] - 1], form, bits, key)))
        s = (s + 1) & t->mask;
    return s;
}

static int latest_first(const void *a, const void *b)
{
    const struct entry *x = *(struct entry *const *)a, *y = *(struct entry *const *)b;
    if (x->at != y->at)
        return x->at < y->at ? 1 : -1;
    return -strcmp(x->id, y->id); /* ids rise */
}

static void note_bits(struct entries *t, uint8_t bits)
{
    size_t i = 0;
    while (i < t->nbits && t->bits[i] > bits)
        i++;
    if (i < t->nbits && t->bits[i] == bits)
        return;
    memmove(t->bits + i + 1, t->bits + i, t->nbits++ - i);
    t->bits[i] = bits;
}

/* From the oldest on, so that each chain has the latest made at its head. */
static void index_all(struct entries *t)
{
    size_t cap = 16;
    while (cap < 2 * t->n)
        cap *= 2;
    t->mask = cap - 1;
    t->slot = room(cap, sizeof *t->slot);
    t->next = room(t->n, sizeof *t->next);
    for (size_t i = t->n; i > 0; i--) {
        const struct entry *e = t->entry[i - 1];
        size_t s = slot_of(t, e->hash, (enum form)e->form, e->bits, span_of(e->key, e->nkey));
        t->next[i - 1] = t->slot[s];
        t->slot[s] = (uint32_t)i;
        t->count[e->form]++;
        if (e->form == FORM_NET)
            note_bits(t, e->bits);
    }
}

struct entries *entries_new(struct entry *const *entry, size_t n)
{
    struct entries *t = room(1, sizeof *t);
    atomic_init(&t->references, 1);
    t->entry = room(n, sizeof(struct entry *));
    t->n = n;
    if (n)
        memcpy(t->entry, entry, n * sizeof(struct entry *));
    qsort(t->entry, n, sizeof(struct entry *), latest_first);
    index_all(t);
    return t;
}

struct entries *entries_change(const struct entries *from, int64_t now, const char *without,
                               struct entry *more)
{
    size_t n = 0;
    struct entry **kept = room(entries_count(from) + 1, sizeof(struct entry *));
    for (size_t i = 0; i < entries_count(from); i++) {
        struct entry *e = from->entry[i];
        if (e->until <= now || (without && strcmp(e->id, without) == 0))
            continue;
        atomic_fetch_add(&e->references, 1);
        kept[n++] = e;
    }
    if (more)
        kept[n++] = more;
    struct entries *t = entries_new(kept, n);
    free(kept);
    return t;
}

struct entries *entries_hold(struct entries *t)
{
    atomic_fetch_add(&t->references, 1);
    return t;
}

void entries_drop(struct entries **place)
{
    struct entries *t = *place;
    *place = NULL;
    if (!t || atomic_fetch_sub(&t->references, 1) != 1)
        return;
    for (size_t i = 0; i < t->n; i++)
        entry_drop(&t->entry[i]);
    free(t->entry);
    free(t->slot);
    free(t->next);
    free(t);
}

size_t entries_count(const struct entries *t)
{
    return t ? t->n : 0;
}

struct entry *entries_at(const struct entries *t, size_t i)
{
    return t->entry[i];
}

/* ---- asking ---- */

/* The best so far of one question. */
struct hunt {
    const struct entries *t;
    int64_t now;
    struct entry *found;
    size_t at;  /* its place; the smaller, the later made */
    bool claim; /* what is looked up is only a claim: it lets nothing pass */
};

static void look_at(struct hunt *h, uint64_t hash, enum form form, unsigned bits, struct span key)
{
    const struct entries *t = h->t;
    size_t i = t->slot[slot_of(t, hash, form, bits, key)];
    for (; i && i <= h->at; i = t->next[i - 1]) {
        struct entry *e = t->entry[i - 1];
        if (e->until <= h->now || (h->claim && !e->hold))
            continue;
        h->found = e;
        h->at = i;
        return;
    }
}

static void look_up(struct hunt *h, enum form form, unsigned bits, struct span key)
{
    look_at(h, hash_of(form, bits, key), form, bits, key);
}

static struct span lower(uint8_t out[NAME], struct span s)
{
    for (size_t i = 0; i < s.n; i++)
        out[i] = byte_lower(s.p[i]);
    return span_of(out, s.n);
}

/* The domains above a name: of "mx.b.a.example" example, a.example, b.a.example. */
static void look_above(struct hunt *h, enum form form, struct span name)
{
    uint64_t hash = HASH_BEGIN;
    for (size_t i = name.n; i > 0; i--) {
        if (name.p[i - 1] == '.')
            look_at(h, hash_end(hash, form, 0), form, 0, span_from(name, i));
        hash = hash_byte(hash, name.p[i - 1]);
    }
}

static void look_up_host(struct hunt *h, struct span name)
{
    uint8_t text[NAME + 1]; /* one more: gcc -O3 sees itself write 16 at a time past 255 */
    if (name.n && name.p[name.n - 1] == '.')
        name.n--;
    if (name.n == 0 || name.n > NAME)
        return;
    name = lower(text, name);
    if (h->t->count[FORM_HOST])
        look_up(h, FORM_HOST, 0, name);
    if (h->t->count[FORM_BELOW])
        look_above(h, FORM_BELOW, name);
}

static void look_up_relay(struct hunt *h, const struct entry_question *q)
{
    const struct entries *t = h->t;
    uint8_t cut[16];
    for (size_t i = 0; q->client.family && i < t->nbits; i++) {
        cut_address(cut, &q->client, t->bits[i]);
        look_up(h, FORM_NET, t->bits[i], span_of(cut, sizeof cut));
    }
    if (!t->count[FORM_HOST] && !t->count[FORM_BELOW])
        return;
    look_up_host(h, q->client_name);
    if (span_case_eq(q->helo, q->client_name))
        return;
    h->claim = true;
    look_up_host(h, q->helo);
    h->claim = false;
}

static void look_up_sender(struct hunt *h, struct span sender)
{
    const struct entries *t = h->t;
    uint8_t text[NAME];
    if (sender.n > NAME)
        return;
    sender = lower(text, sender);
    size_t at = span_rfind(sender, '@');
    if (t->count[FORM_SENDER])
        look_up(h, FORM_SENDER, 0, sender);
    if (at == sender.n)
        return;
    struct span domain = span_from(sender, at + 1);
    if (t->count[FORM_LOCAL])
        look_up(h, FORM_LOCAL, 0, span_head(sender, at));
    if (t->count[FORM_DOMAIN])
        look_up(h, FORM_DOMAIN, 0, domain);
    if (t->count[FORM_UNDER])
        look_above(h, FORM_UNDER, domain);
}

struct entry *entries_find(const struct entries *t, const struct entry_question *q)
{
    if (!t || !t->n)
        return NULL;
    struct hunt h = {.t = t, .now = q->now, .at = t->n};
    uint8_t text[NAME];
    look_up_relay(&h, q);
    if (t->count[FORM_SENDER] || t->count[FORM_LOCAL] || t->count[FORM_DOMAIN] ||
        t->count[FORM_UNDER])
        look_up_sender(&h, q->sender);
    if (t->count[FORM_STORM] && q->incident.n && q->incident.n <= NAME)
        look_up(&h, FORM_STORM, 0, lower(text, q->incident));
    return h.found;
}

/* ---- doing ---- */

void entry_apply(struct entry *e, const struct subject *subject, const struct signals *signals,
                 struct verdict *v)
{
    memset(v->count, 0, sizeof v->count);
    memset(v->advised, 0, sizeof v->advised);
    for (size_t r = 0; r < v->n; r++) {
        struct copy_verdict *c = &v->copy[r];
        bool exempt = e->hold && policy_exempt(subject, signals, r);
        c->advised = !e->hold ? DISP_PASS : exempt ? DISP_TAG : DISP_HOLD;
        c->disposition = v->mode == MODE_ENFORCE ? c->advised : DISP_PASS;
        c->rule = 0;
        c->entry = e;
        c->rule_name = e->rule;
        c->reason = e->reason;
        v->count[c->disposition]++;
        v->advised[c->advised]++;
    }
    atomic_fetch_add_explicit(&e->used, v->n, memory_order_relaxed);
    atomic_store_explicit(&e->last, subject->now, memory_order_relaxed);
}
