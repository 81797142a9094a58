/*
 * days.h - what each rule did, and would have done in enforce mode, counted for people who compare
 * days and modes: "enforce would have held 31 further copies today, and no first copy".
 *
 *   mail threads --days_add--> a table in memory --once a minute--> keeper -> table `day`
 *
 * Copies that no rule was about are taken from the figures. Invariant: adding never waits and never
 * allocates; a restart loses nothing, a crash a minute.
 */
#ifndef DAYS_H
#define DAYS_H

#include "figures.h"
#include "hold_day.h"
#include "keeper.h"

struct days;

/* figures: borrowed. */
struct days *days_new(struct figures *);
/* After the keeper and whoever's mailbox was given to days_save. */
void days_free(struct days **);

/* Copies a rule was about; listener and rule are copied, cut at DAY_NAME. days NULL: nothing. */
void days_add(struct days *, const struct day_row *);

/* The desk: at each second, and with `all` when there is no next one. */
void days_save(struct days *, struct keeper *, struct mailbox *, int64_t now, bool all);
/* What is saved and what is not yet, in no order; the same row may come twice: add them up. Hours
 * and by_day as hold_day_each. 0, or -1: unreadable. The desk. */
int days_each(struct days *, struct hold *view, int64_t from, int64_t until, bool by_day, day_fn *,
              void *arg) MUSTCHECK;
/* Copies that came with so many rules that they could not be told apart. */
uint64_t days_left_out(const struct days *);

#endif
