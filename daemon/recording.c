/*
 * recording.c - the envelope of stored mail, as far as its header tells. A field that makes no
 * sense is as good as none.
 */
#include "recording.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "date.h"
#include "mbox.h"
#include "trace.h"

/* A stored message while its envelope is looked for. */
struct stored {
    struct arena *arena;
    const struct keys *keys;
    const struct message *m;
    const struct field *top; /* the top Received, or NULL */
    struct recording *r;
    struct addressees {
        struct span *address;
        uint64_t *hash;
        size_t n, cap;
    } to;
};

/* Fields that the final delivery writes. */
static const struct {
    struct span name;
    bool recipient;
} final_delivery[] = {
    {{(const uint8_t *)"delivered-to", 12}, true},   {{(const uint8_t *)"x-original-to", 13}, true},
    {{(const uint8_t *)"envelope-to", 11}, true},    {{(const uint8_t *)"return-path", 11}, false},
    {{(const uint8_t *)"delivery-date", 13}, false},
};
enum { FINAL_FIELDS = sizeof final_delivery / sizeof *final_delivery };

static const struct field *field_named(const struct message *m, struct span name)
{
    for (size_t i = 0; i < m->nfields; i++)
        if (span_case_eq(m->fields[i].name, name))
            return &m->fields[i];
    return NULL;
}

/* ---- recipients ---- */

/* Once each, however often it is named: a second one would look like a further copy. */
static bool add_recipient(void *arg, struct span address)
{
    struct stored *s = arg;
    struct addressees *to = &s->to;
    if (span_find(address, '@') == address.n)
        return true;
    uint64_t hash = keys_address(s->keys, address, NULL);
    for (size_t i = 0; i < to->n; i++)
        if (to->hash[i] == hash)
            return true;
    if (to->n == to->cap) {
        size_t cap = to->cap ? 2 * to->cap : 8, was = to->cap;
        to->address =
            arena_grow(s->arena, to->address, was * sizeof *to->address, cap * sizeof *to->address);
        to->hash = arena_grow(s->arena, to->hash, was * sizeof *to->hash, cap * sizeof *to->hash);
        to->cap = cap;
    }
    to->hash[to->n] = hash;
    to->address[to->n++] = arena_span(s->arena, address);
    return to->n < LIMIT_RECIPIENTS;
}

/* Of the first field of this name that stands above (or not above) the top Received. */
static bool delivered_to(struct stored *s, struct span name, bool above)
{
    for (size_t i = 0; i < s->m->nfields; i++) {
        const struct field *f = &s->m->fields[i];
        if (!span_case_eq(f->name, name) || (s->top ? f < s->top : true) != above)
            continue;
        address_each(s->arena, f->value, add_recipient, s);
        return s->to.n > 0;
    }
    return false;
}

static bool delivered_to_any(struct stored *s, bool above)
{
    for (size_t i = 0; i < FINAL_FIELDS; i++)
        if (final_delivery[i].recipient && delivered_to(s, final_delivery[i].name, above))
            return true;
    return false;
}

static void recipients(struct stored *s, struct span received_for)
{
    static const struct span shown[] = {
        {(const uint8_t *)"to", 2}, {(const uint8_t *)"cc", 2}, {(const uint8_t *)"bcc", 3}};
    if (delivered_to_any(s, true))
        return;
    if (received_for.n)
        add_recipient(s, received_for);
    if (s->to.n || delivered_to_any(s, false))
        return;
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++)
        for (size_t k = 0; k < s->m->nfields && s->to.n < LIMIT_RECIPIENTS; k++)
            if (span_case_eq(s->m->fields[k].name, shown[i]))
                address_each(s->arena, s->m->fields[k].value, add_recipient, s);
}

/* ---- reverse-path, client, time ---- */

static struct span reversepath(const struct stored *s, struct span from_line)
{
    const struct field *f = field_named(s->m, SPAN("return-path"));
    if (f)
        return span_eq(span_trim(f->value), SPAN("<>")) ? span_of(NULL, 0)
                                                        : address_first(s->arena, f->value);
    struct span sender, date;
    struct span line = arena_join(s->arena, SPAN("From "), from_line, span_of(NULL, 0));
    if (from_line.n && mbox_from_line(line, &sender, &date)) {
        if (span_case_eq(sender, SPAN("MAILER-DAEMON")) || span_eq(sender, SPAN("<>")))
            return span_of(NULL, 0); /* how mailboxes write the null reverse-path */
        if (span_find(sender, '@') < sender.n)
            return sender;
    }
    f = field_named(s->m, SPAN("sender"));
    f = f ? f : message_first(s->m, FIELD_FROM);
    return f ? address_first(s->arena, f->value) : span_of(NULL, 0);
}

/* "from helo (name [192.0.2.7]) by ...": the name that the server looked up, if it did. */
static struct span reverse_name(const struct hop *h)
{
    struct span s = h->line;
    s = span_from(s, span_find(s, '(') + 1);
    struct span name = span_head(s, span_find(s, ' '));
    s = span_from(s, name.n);
    bool looked_up = span_starts(s, SPAN(" [")) && span_find(name, '.') < name.n &&
                     span_find(name, '[') == name.n && span_find(name, '=') == name.n;
    return looked_up ? name : span_of(NULL, 0);
}

static void client(struct stored *s, const struct hop *h)
{
    char ip[IPADDR_TEXT];
    s->r->helo = h->helo;
    s->r->name = reverse_name(h);
    s->r->queue_id = h->id;
    if (h->ip.family)
        s->r->client = arena_span(s->arena, span_of(ip, ipaddr_print(&h->ip, ip)));
}

static void when(struct stored *s, int64_t received, struct span from_line)
{
    int64_t t = received;
    struct span sender = span_head(from_line, span_find(from_line, ' '));
    const struct field *date = message_first(s->m, FIELD_DATE);
    s->r->time = -1;
    if (t == 0 && !date_parse(span_from(from_line, sender.n), &t) &&
        !(date && date_parse(date->value, &t)))
        return;
    if (t < 0)
        return;
    s->r->time = t * 1000;
    s->r->t = (double)t;
}

/* ---- what came in at the door ---- */

static bool of_final_delivery(const struct field *f)
{
    for (size_t i = 0; i < FINAL_FIELDS; i++)
        if (span_case_eq(f->name, final_delivery[i].name))
            return true;
    return false;
}

/* Where a field ends in the head: where the next begins. */
static size_t field_end(const struct message *m, const struct field *f)
{
    return f + 1 < &m->fields[m->nfields] ? f[1].at : m->nhead;
}

/* The message without the top Received and what the final delivery wrote above it; without any
 * Received, only the Return-Path is known to be of the final delivery. */
static struct span as_it_came(const struct stored *s, struct span message)
{
    const struct message *m = s->m;
    const struct field *last = s->top ? s->top : field_named(m, SPAN("return-path"));
    if (!last)
        return message;
    struct span rest = span_from(message, field_end(m, last));
    uint8_t *kept = last > m->fields ? arena_alloc(s->arena, last->at) : NULL;
    size_t n = 0;
    for (const struct field *f = m->fields; f < last; f++) {
        size_t bytes = field_end(m, f) - f->at;
        if (s->top && of_final_delivery(f))
            continue;
        memcpy(kept + n, m->head + f->at, bytes);
        n += bytes;
    }
    return n ? arena_join(s->arena, span_of(kept, n), rest, span_of(NULL, 0)) : rest;
}

void recording_of_mail(struct recording *r, struct arena *arena, const struct keys *keys,
                       struct span from_line, struct span message)
{
    *r = (struct recording){0};
    struct message *m = message_new(arena);
    message_add_raw(m, span_head(message, LIMIT_HEAD));
    message_end_header(m);
    struct hop hop = {0};
    struct stored s = {.arena = arena, .keys = keys, .m = m, .r = r};
    s.top = message_first(m, FIELD_RECEIVED);
    if (s.top)
        trace_parse_hop(&hop, arena, keys, s.top->value);
    r->from = reversepath(&s, from_line);
    recipients(&s, hop.for_);
    r->rcpts = s.to.address;
    r->nrcpts = s.to.n;
    client(&s, &hop);
    when(&s, hop.date, from_line);
    r->data = as_it_came(&s, message);
}

int recording_file(struct arena *arena, const char *path, struct span *out, bool *cut)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0)
        return -1;
    if (fstat(fd, &st) < 0) {
        close(fd);
        return -1;
    }
    size_t most = (uint64_t)st.st_size < RECORDING_BYTES ? (size_t)st.st_size : RECORDING_BYTES;
    uint8_t *p = arena_alloc(arena, most + 1);
    size_t n = 0;
    ssize_t got = 1;
    while (n < most && (got = read(fd, p + n, most - n)) != 0) {
        if (got < 0 && errno != EINTR)
            break;
        n += got > 0 ? (size_t)got : 0;
    }
    int error = errno;
    close(fd);
    errno = error;
    *out = span_of(p, n);
    *cut = st.st_size > RECORDING_BYTES;
    return got < 0 ? -1 : 0;
}
