/*
 * expr.h - the small typed language of `when`. Checked and compiled when loaded; evaluation is
 * pure, bounded and allocates nothing.
 *
 *   or < and < not < comparison; literals: numbers with units (60s 10m 4h 28d 20MB 5%), "strings",
 *   true, false; facts by name; == != < <= > >=; `in ("a", "b")`; `matches "*@example.org"`; ( )
 */
#ifndef EXPR_H
#define EXPR_H

#include "arena.h"
#include "fact.h"

struct expr;

/* Where and why text was refused. */
struct expr_error {
    unsigned line, column; /* 1-based, relative to the text given */
    char text[200];        /* one sentence, with "did you mean" where something is near */
};

/*
 * Compiles text into the arena. The expression must be a bool. *used is set to the bytes taken:
 * parsing stops before the first token that cannot continue the expression (so that `when EXPR do`
 * works). NULL and *error on a mistake.
 */
struct expr *expr_compile(struct arena *, struct span text, size_t *used, struct expr_error *error);
bool expr_true(const struct expr *, const struct facts *);
/* Does it ask about the recipient (so must be evaluated for each)? */
bool expr_per_recipient(const struct expr *);

#endif
