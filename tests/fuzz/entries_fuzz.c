/* entries_fuzz.c - any words as what an entry is about: refused with a sentence, or read so that
 * what is said of it is read as the same again; and any words as the message it is asked about. */
#include <stdlib.h>

#include "entries.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct entry *make(enum entry_kind kind, const char *what)
{
    char error[200] = "";
    const struct entry_terms t = {
        .id = "A", .kind = kind, .hold = true, .what = what, .who = what, .why = what, .until = 9};
    struct entry *e = entry_new(&t, error);
    if (!e && !*error)
        abort();
    return e;
}

static void ask(struct entry *e, struct span text)
{
    struct entries *t = entries_new(&e, 1);
    struct entry_question q = {
        .client_name = text, .helo = text, .sender = text, .incident = text, .now = 1};
    (void)ipaddr_parse(&q.client, text);
    (void)entries_find(t, &q);
    q = (struct entry_question){.sender = span_bare(span_str(e->what), '<', '>'),
                                .incident = span_str(e->what),
                                .client_name = span_str(e->what),
                                .now = 1};
    (void)ipaddr_parse(&q.client, span_str(e->what));
    bool pattern = strpbrk(e->what, "*/") || e->what[0] == '@' || e->what[0] == '.';
    if (!pattern && !entries_find(t, &q))
        abort();
    entries_drop(&t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span text = span_of(data + 1, size ? size - 1 : 0);
    if (size == 0)
        return 0;
    char *what = calloc(size + 1, 1);
    if (!what)
        abort();
    memcpy(what, data + 1, size - 1);
    struct entry *e = make((enum entry_kind)(data[0] % ENTRY_KINDS), what);
    if (e) {
        struct entry *again = make(e->kind, e->what);
        if (!again || strcmp(again->what, e->what) != 0)
            abort();
        entry_drop(&again);
        ask(e, text);
    }
    free(what);
    return 0;
}
