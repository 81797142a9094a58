/*
 * policy.h - rules that people can read, and the verdict they give each recipient.
 *
 *   # comment
 *   rule NAME {
 *       when EXPR
 *       do hold            # pass | tag | throttle | hold | reject
 *       reason "text with {replication.copies} placeholders"
 *   }
 * First match wins, per recipient; no match: pass.
 */
#ifndef POLICY_H
#define POLICY_H

#include "expr.h"

struct policy; /* immutable */

struct policy_error {
    unsigned line, column;
    char text[240];
};

/* Compiles text; NULL and *error on a mistake (nothing half-loaded). policy_free nulls. */
struct policy *policy_load(struct span text, struct policy_error *error);
void policy_free(struct policy **);
size_t policy_rules(const struct policy *);
const char *policy_rule_name(const struct policy *, size_t i);
/* The rules a daemon without a policy file uses: the text of contrib/policy.conf's defaults. */
extern const char policy_default[];

/* What becomes of one recipient's copy. */
struct copy_verdict {
    enum disposition disposition; /* to be done */
    enum disposition advised;     /* what enforce mode would do: differs in monitor and bypass */
    uint16_t rule;                /* index + 1 in the policy; 0: no rule matched */
    const char *reason;           /* expanded, in the arena; NULL if no rule */
};
struct verdict {
    struct copy_verdict *copy; /* one per recipient */
    size_t n;
    enum mode mode;
    uint32_t count[DISP_COUNT]; /* dispositions to be done */
    uint32_t advised[DISP_COUNT];
};
/* Judges every recipient. Arena: the subject's. policy NULL: all pass. An exempt recipient gets
 * the copy, at most tagged. */
void policy_judge(const struct policy *, enum mode, const struct subject *, const struct signals *,
                  struct verdict *out);

/* Text with {fact.name} placeholders expanded; unknown ones are refused when loaded. Control
 * characters and bytes over 0x7e of facts are replaced by '?', each fact cut at 200 bytes. */
char *reason_expand(struct arena *, const char *text, const struct facts *);

#endif
