/*
 * policy.h - rules that people can read, and the verdict they give each recipient.
 *
 *   # comment
 *   set NAME ("@example.org", "anna@a.example")     or networks: (192.0.2.0/24, 2001:db8::7)
 *   set NAME file "path"                            one entry a line
 *   rule NAME {
 *       when EXPR                       # ... recipient.address in @NAME
 *       do hold                         # pass | tag | throttle | hold | reject
 *       reason "text with {replication.copies} placeholders"
 *   }
 *   rule NAME { when EXPR  do throttle code 451 4.7.1  reply "what the sender reads" }
 *
 * First match wins, per recipient; no match: pass. A set stands before the rules that use it.
 */
#ifndef POLICY_H
#define POLICY_H

#include "expr.h"

struct policy; /* immutable, counted */

struct policy_error {
    unsigned line, column; /* column 0: of a set file, only the line is known */
    char text[240];
    char file[200]; /* the set file the mistake is in; empty: the policy itself */
};
/* "FILE:LINE:COL: sentence"; file: what the policy is called. A set's file is said as it lies
 * beside that one. */
void policy_error_print(const struct policy_error *, const char *file, char *out, size_t size);

/* Where the files a policy names (sets) come from: the daemon reads the disk, a stored version
 * brings what they held. false: a sentence in why. The text need live during the call only. */
struct policy_source {
    bool (*read)(void *arg, struct arena *, struct span path, struct span *text, char why[200]);
    void *arg;
};

/* Compiles text; NULL and *error on a mistake (nothing half-loaded). source NULL: a policy that
 * names a file is refused. policy_hold: one reference more; policy_free drops one and nulls. */
struct policy *policy_load(struct span text, const struct policy_source *, struct policy_error *);
struct policy *policy_hold(struct policy *);
void policy_free(struct policy **);
size_t policy_rules(const struct policy *);
const char *policy_rule_name(const struct policy *, size_t i);
/* Of rule i < policy_rules(): what it asks, what it does, the line of its name. */
const struct expr *policy_rule_when(const struct policy *, size_t i);
enum disposition policy_rule_does(const struct policy *, size_t i);
unsigned policy_rule_line(const struct policy *, size_t i);
/* The rules a daemon without a policy file uses: the text of contrib/policy.conf's defaults. */
extern const char policy_default[];

struct entries;

/* What decides about the messages of one listener at this moment. Whoever judges with it keeps what
 * it points to alive. */
struct ruling {
    enum mode mode;
    const struct policy *policy; /* NULL: all pass */
    bool on_trial;               /* it is a version on trial, for all of this listener */
    const struct policy *trial;  /* a version on trial for some recipients; NULL: none */
    const struct span *domains;  /* of those recipients; lower case */
    size_t ndomains;
    const struct entries *entries; /* what people decided for a while; NULL: nothing */
};

struct entry;

/* What becomes of one recipient's copy. */
struct copy_verdict {
    enum disposition disposition; /* to be done */
    enum disposition advised;     /* what enforce mode would do: differs in monitor and bypass */
    uint16_t rule;                /* index + 1 in its policy; 0: no rule matched */
    bool trial;                   /* the policy on trial judged it */
    const struct entry *entry;    /* a person's, which decided instead of a rule; NULL: none */
    const char *rule_name;        /* lives as long as the policy or entry; NULL: no rule matched */
    const char *reason;           /* expanded, in the arena; NULL if no rule */
    const char *reply;            /* throttle, reject: "451 4.7.0 text"; NULL: none */
};
struct verdict {
    struct copy_verdict *copy; /* one per recipient */
    size_t n;
    enum mode mode;
    uint32_t count[DISP_COUNT]; /* dispositions to be done */
    uint32_t advised[DISP_COUNT];
    struct facts *facts; /* of the message, but for costly ones nobody asked for; in the arena;
                          * NULL: no policy judged all of it */
};
/* Judges every recipient. Arena: the subject's. An exempt recipient gets the copy, at most tagged.
 */
void policy_judge(const struct ruling *, const struct subject *, const struct signals *,
                  struct verdict *out);

/* The same for facts that were recorded: what enforce mode would do with a copy of these, the list
 * of exempt recipients left aside. Fills advised and disposition, rule and rule_name; no reason. */
void policy_judge_facts(const struct policy *, const struct facts *, struct copy_verdict *out);
/* The reason rule i (from 0) gives for these facts, in the arena. */
const char *policy_reason(const struct policy *, size_t i, struct arena *, const struct facts *);
/* The facts its conditions ask for: bits 1 << FACT_X. */
uint64_t policy_facts(const struct policy *);
/* Does recipient r get the copy whatever is decided, at most tagged? */
bool policy_exempt(const struct subject *, const struct signals *, size_t r);

/* Text with {fact.name} placeholders expanded; unknown ones are refused when loaded. Control
 * characters and bytes over 0x7e of facts are replaced by '?', each fact cut at 200 bytes. */
char *reason_expand(struct arena *, const char *text, const struct facts *);

#endif
