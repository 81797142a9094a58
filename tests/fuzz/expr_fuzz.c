/* expr_fuzz.c - any bytes as an expression: refused with a place in them, or compiled to something
 * that can be asked. */
#include <stdlib.h>

#include "expr.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Facts of every type with something in them; texts take the input itself. */
static void some_facts(struct facts *f, struct span text)
{
    for (size_t i = 0; i < FACT_COUNT; i++) {
        struct fact_value *v = &f->value[i];
        *v = (struct fact_value){.type = fact_table[i].type, .number = (double)i};
        if (v->type >= TYPE_STRING)
            v->text = text;
        if (v->type == TYPE_BOOL)
            v->yes = i % 2;
    }
    f->client = (struct ipaddr){4, {[10] = 0xff, [11] = 0xff, 192, 0, 2, 7}};
}

/* The site and three sets: @a of texts, @b of mail addresses, @n of networks. */
static void some_sets(struct arena *arena, struct site *site, struct set *set[3])
{
    static struct span ours[] = {SPAN_INIT("b.example")};
    static struct netmask nets[] = {{{4, {[10] = 0xff, [11] = 0xff, 192}}, 104}};
    char why[SET_WHY];
    site_defaults(site);
    site->own_domains = site->own_hosts = site->trusted = ours;
    site->nown_domains = site->nown_hosts = site->ntrusted = 1;
    site->own_nets = site->trusted_nets = nets;
    site->nown_nets = site->ntrusted_nets = 1;
    set[0] = set_new(arena, "a");
    set[1] = set_new(arena, "b");
    set[2] = set_new(arena, "n");
    if (set_read(set[0], SPAN("x\n.b.example\ny"), why) ||
        set_read(set[1], SPAN("@b.example\n@.c.example\na@*\n<>"), why) ||
        set_read(set[2], SPAN("192.0.2.0/24\n::/7"), why))
        abort();
    for (int i = 0; i < 3; i++)
        set_seal(set[i]);
}

/* The input as a set's file: what is taken once is in the set, each entry of it. */
static void read_as_set(struct arena *arena, struct span text)
{
    char why[SET_WHY] = "";
    struct set *set = set_new(arena, "it");
    unsigned line = set_read(set, text, why);
    if (line > text.n + 1 || !line != !*why)
        abort();
    set_seal(set);
    struct ipaddr a;
    struct span first = span_trim(span_head(text, span_find(text, '\n')));
    if (!line && set_kind(set) == SET_NETWORKS && ipaddr_parse(&a, first) &&
        !set_has_address(set, &a))
        abort();
    for (int shape = SHAPE_TEXT; shape <= SHAPE_HOST; shape++)
        (void)set_has_text(set, (enum shape)shape, first);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span text = span_of(data, size);
    struct arena *arena = arena_new();
    struct expr_error error = {0};
    struct facts facts;
    size_t used = 0;
    struct site site;
    struct set *set[3];
    some_sets(arena, &site, set);
    read_as_set(arena, text);
    struct expr *e = expr_compile(arena, &(struct sets){set, 3}, text, &used, &error);
    if (e) {
        facts.site = &site;
        some_facts(&facts, span_head(text, FACT_TEXT_MAX));
        bool truth = expr_true(e, &facts);
        if (used > size || expr_true(e, &facts) != truth)
            abort();
    } else if (error.line == 0 || error.column == 0 || error.line > size + 1 ||
               error.column > size + 1 || !*error.text) {
        abort();
    }
    arena_free(&arena);
    return 0;
}
