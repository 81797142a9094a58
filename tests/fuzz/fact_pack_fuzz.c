/*
 * fact_pack_fuzz.c - a description and two packs from anywhere: what comes out are facts of their
 * types, whose texts can be read; packed again and read again they are the same.
 */
#include <stdlib.h>

#include "fact_pack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t sum_of(const struct facts *f)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < FACT_COUNT; i++) {
        const struct fact_value *v = &f->value[i];
        if (v->type != fact_table[i].type && !(FACTS_KEPT_ASIDE >> i & 1))
            abort();
        for (size_t k = 0; v->type == TYPE_STRING && k < v->text.n; k++)
            sum = sum * 31 + v->text.p[k];
        if (v->type == TYPE_BOOL)
            sum = sum * 31 + v->yes;
        if (v->type == TYPE_NUMBER)
            sum = sum * 31 + (uint64_t)v->number;
    }
    return sum;
}

static void keep_aside(struct facts *f)
{
    *f = (struct facts){0};
    for (unsigned i = 0; i < FACT_COUNT; i++)
        f->value[i].type = FACTS_KEPT_ASIDE >> i & 1 ? fact_table[i].type : TYPE_NONE;
}

static void again(const struct facts *f)
{
    static uint8_t of_message[FACT_PACK_MESSAGE], of_copy[FACT_PACK_COPY];
    static struct fact_map map;
    char text[FACT_DESCRIPTION];
    struct facts back;
    size_t m = facts_pack(f, false, of_message), c = facts_pack(f, true, of_copy);
    if (m == SIZE_MAX || c == SIZE_MAX)
        return;
    fact_map_read(&map, span_of(text, facts_describe(text)));
    keep_aside(&back);
    if (!facts_unpack(&map, span_of(of_message, m), span_of(of_copy, c), &back))
        abort();
    for (unsigned i = 0; i < FACT_COUNT; i++)
        if (!(FACTS_NOT_PACKED >> i & 1) && f->value[i].type == TYPE_BOOL &&
            f->value[i].yes != back.value[i].yes)
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fact_map own, map;
    char text[FACT_DESCRIPTION];
    struct facts f;
    struct span s = span_of(data, size);
    size_t n = span_find(s, 0);
    struct span description = span_head(s, n), rest = span_from(s, n + 1);
    n = span_find(rest, 0);
    struct span of_message = span_head(rest, n), of_copy = span_from(rest, n + 1);
    fact_map_read(&own, span_of(text, facts_describe(text)));
    fact_map_read(&map, description);
    for (int i = 0; i < 2; i++) {
        keep_aside(&f);
        if (!facts_unpack(i ? &map : &own, of_message, of_copy, &f))
            continue;
        sum_of(&f);
        again(&f);
    }
    return 0;
}
