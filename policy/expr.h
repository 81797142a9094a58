/*
 * expr.h - the small typed language of `when`. Checked and compiled when loaded; evaluation is
 * pure, bounded and allocates nothing.
 *
 *   or < and < not < comparison; literals: numbers with units (60s 10m 4h 28d 20MB 5%), "strings",
 *   network addresses, true, false; facts by name; == != < <= > >=; `matches "*@example.org"`; ( )
 *   in ("a", "b"), in 192.0.2.0/24, in (192.0.2.7, 2001:db8::/32), in @set
 *
 * `#` to the end of the line is a comment. Texts compare ASCII case-insensitively; in `matches` *
 * stands for any bytes, ? for one. A set is one the policy declares, or one of breakwater.conf:
 * @ours, @own_hosts, @own_nets, @trusted, @exempt.
 */
#ifndef EXPR_H
#define EXPR_H

#include "set.h"

struct expr;

/* Where and why text was refused. */
struct expr_error {
    unsigned line, column; /* 1-based, relative to the text given */
    char text[200];        /* one sentence, with "did you mean" where something is near */
};

/* The sets a policy declared so far; they live as long as what is compiled. */
struct sets {
    struct set *const *set;
    size_t n;
};
/* Is this (without @) the name of a set of breakwater.conf? */
bool expr_site_set(struct span name);

/*
 * Compiles text into the arena; sets NULL: there are none but those of breakwater.conf. The
 * expression must be a bool. *used is set to the bytes taken: parsing stops before the first token
 * that cannot continue the expression (so that `when EXPR do` works). NULL and *error on a mistake.
 */
struct expr *expr_compile(struct arena *, const struct sets *, struct span text, size_t *used,
                          struct expr_error *error);
bool expr_true(const struct expr *, const struct facts *);
/* Does it ask about the recipient (so must be evaluated for each)? */
bool expr_per_recipient(const struct expr *);
/* The facts it asks for: bits 1 << FACT_X. */
uint64_t expr_facts(const struct expr *);
/* The network address that stands at the start of text ("192.0.2.0/24", "::1"), as far as it looks
 * like one; empty: something else stands there. */
struct span expr_network(struct span text);

/* Fills error for the byte at offset `at` of text. */
void expr_error_at(struct expr_error *, struct span text, size_t at, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Blanks, line ends and # comments at the start of text: how many bytes. Shared with policy.conf.
 */
size_t expr_blank(struct span text);
/*
 * A quoted text at offset `at` of `whole`, its value unescaped (a backslash makes the next byte
 * plain) into the arena. Returns the bytes taken, quotes included; 0 and *error if it is not closed
 * on its line.
 */
size_t expr_string(struct arena *, struct span whole, size_t at, struct span *value,
                   struct expr_error *);

#endif
