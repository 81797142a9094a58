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
        if (v->type == TYPE_STRING)
            v->text = text;
        if (v->type == TYPE_BOOL)
            v->yes = i % 2;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span text = span_of(data, size);
    struct arena *arena = arena_new();
    struct expr_error error = {0};
    struct facts facts;
    size_t used = 0;
    struct expr *e = expr_compile(arena, NULL, text, &used, &error);
    if (e) {
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
