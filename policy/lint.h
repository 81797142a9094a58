/*
 * lint.h - what is odd about rules that compile: ones that ordinary mail would be caught in, and
 * ones that can do nothing.
 *
 * The rules are asked about a handful of invented first copies nothing is odd about: a letter, a
 * reply, a newsletter and so on. A policy that does not let the letter through is a fault (it would
 * stop everybody's mail), all else is a warning.
 */
#ifndef LINT_H
#define LINT_H

#include "policy.h"

struct lint_finding {
    bool fault; /* false: a warning */
    unsigned line;
    const char *rule;   /* its name; lives as long as the policy */
    const char *detail; /* a sentence */
};
struct lint {
    struct lint_finding *found; /* in the arena, faults first */
    size_t n, faults;
};

/* domain: one of ours, which the invented recipient has; empty: none is known. */
void lint_policy(struct arena *, const struct policy *, struct span domain, struct lint *out);

#endif
