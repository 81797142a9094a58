/*
 * outcome.h - what a replay says: a JSON line for each message, and at the end the summary, as JSON
 * or as text for people. The same input gives the same bytes, but for "seconds" and
 * "messages_per_second".
 *
 *   {"n":1,"t":1138010400.5,"label":"x","verdict":"hold","rcpt":{"b@b.example":"hold"},
 *    "relations":{"b@b.example":"detour"},"rule":"replication-storm","incident":"S4K7QZ2MA",
 *    "fp":"...","signals":{...}}
 */
#ifndef OUTCOME_H
#define OUTCOME_H

#include "recording.h"
#include "tx.h"

enum outcome_form { OUTCOME_PEOPLE, OUTCOME_JSON, OUTCOME_SUMMARY_JSON };

/* Counts of one replay. */
struct outcome {
    const struct policy *policy;
    enum outcome_form form;
    enum mode mode;
    bool at_once; /* somebody waits for each line: flush it */
    uint64_t messages;
    struct rule_count {
        uint64_t copies[DISP_COUNT]; /* it would give these dispositions in enforce mode */
        uint64_t first_held;         /* first copies among those held */
    } * rule;                        /* by number; 0: no rule */
};

/* What the summary tells besides. */
struct outcome_end {
    struct figures *figures;
    const json_t *incidents, *relays;         /* as incidents_list(), relays_list() make them */
    uint64_t skipped, cut, clamped, left_out; /* messages, see replay.c */
    double seconds;
};

void outcome_begin(struct outcome *, const struct policy *, enum mode, enum outcome_form);
/* A judged message. */
void outcome_message(struct outcome *, struct tx *, const struct recording *);
void outcome_summary(const struct outcome *, const struct outcome_end *);
void outcome_end(struct outcome *);

#endif
