/*
 * policy_own.h - the inside of struct policy, shared by policy.c (how it is read) and
 * policy_judge.c (what it says). Include it after policy.h.
 */
#ifndef POLICY_OWN_H
#define POLICY_OWN_H

#include <stdatomic.h>

#include "expr.h"

enum { RULES_MAX = 256, SETS_MAX = 100 };

/* A text with placeholders, as written. */
struct phrase {
    const char *text; /* NULL: none */
    uint64_t facts;
    bool per_recipient; /* differs between recipients */
};

struct rule {
    const char *name;
    const struct expr *when;
    bool per_recipient; /* `when` must be asked for each */
    bool has_do;
    enum disposition disposition;
    const char *code;     /* "451 4.7.0": of throttle and reject */
    struct phrase reason; /* there is one in a loaded policy */
    struct phrase reply;
    size_t at; /* of its name in the text */
    unsigned line;
};

struct policy {
    struct arena *arena;
    _Atomic unsigned references;
    struct rule rules[RULES_MAX];
    size_t n;
    uint64_t facts; /* all `when` ask for */
    struct set *set[SETS_MAX];
    size_t nsets;
};

/* The fact whose placeholder "{name}" begins at text[0] == '{'; *n: its length with braces.
 * FACT_COUNT if it is none. */
enum fact policy_placeholder(struct span text, size_t *n);

#endif
