/* message_fuzz.c - any header, in any pieces, gives the same fields; nothing is lost. */
#include <stdlib.h>

#include "message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
    if (!ok)
        abort();
}

static bool inside(const struct message *m, struct span s)
{
    for (size_t i = 0; i < s.n; i++) /* touches every byte: the sanitizer looks */
        if (s.p[i] == '\n' && i + 1 < s.n && s.p[i + 1] != ' ' && s.p[i + 1] != '\t')
            return false;
    return s.n <= m->nhead;
}

/* Fields are in order, linked by kind, and each within the header. */
static void check_index(const struct message *m)
{
    uint32_t seen[FIELD_NAMES] = {0};
    for (size_t i = 0; i < m->nfields; i++) {
        const struct field *f = &m->fields[i];
        must(inside(m, f->name) && inside(m, f->value) && f->name.n > 0);
        must(seen[f->id]++ || m->first[f->id] == i + 1);
        must(f->next == 0 || (f->next > i + 1 && m->fields[f->next - 1].id == f->id));
    }
    for (int id = 0; id < FIELD_NAMES; id++) {
        must(m->count[id] >= seen[id]);
        struct span v = message_value(m, (enum field_name)id);
        must(v.n <= m->nhead);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    size_t step = data[0] % 17 + 1;
    struct span raw = span_of(data + 1, size - 1);
    struct arena *a = arena_new();
    struct message *whole = message_new(a), *cut = message_new(a), *again = message_new(a);
    struct span body = message_add_raw(whole, raw), pieces = SPAN("");
    message_end_header(whole);
    for (size_t at = 0; at < raw.n; at += step)
        pieces = arena_join(a, pieces, message_add_raw(cut, span_head(span_from(raw, at), step)),
                            SPAN(""));
    message_end_header(cut);
    check_index(whole);
    must(whole->nhead + body.n == raw.n && span_eq(body, pieces));
    must(span_eq(span_of(whole->head, whole->nhead), span_of(cut->head, cut->nhead)));
    must(whole->nfields == cut->nfields && whole->blank == cut->blank && body.n >= whole->blank);
    for (size_t i = 0; i < whole->nfields; i++)
        must(span_eq(whole->fields[i].value, cut->fields[i].value));
    /* the milter's way: name and value are arbitrary, and still one field each */
    size_t middle = span_find(raw, ':');
    message_add_field(again, span_head(raw, middle), span_from(raw, middle + 1));
    message_add_field(again, SPAN("Subject"), raw);
    check_index(again);
    must(again->count[FIELD_SUBJECT] >= 1 && again->nfields == (middle > 0) + 1u);
    struct message *read = message_new(a);
    must(message_add_raw(read, span_of(again->head, again->nhead)).n == 0 || middle == 0);
    message_end_header(read);
    must(middle == 0 || read->nfields == again->nfields);
    arena_free(&a);
    return 0;
}
