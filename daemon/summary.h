/*
 * summary.h - once a day, what a postmaster wants to have read: what came, what was held or would
 * have been, storms and who brought them, the guard, the balance. The first line is a log line; all
 * of it goes where alarms go (alarm.h).
 */
#ifndef SUMMARY_H
#define SUMMARY_H

#include "json.h"

enum { SUMMARY_NEVER = 24 * 3600 * 1000 }; /* ms: log.daily from which on there is none */

/* The first time of day after `last`; daily: ms after local midnight. When the clock is set forward
 * over it, an hour later; when it is set back, once. */
int64_t summary_next(int64_t last, int64_t daily);

/* What is told, each as the API tells it; any may be null. */
struct summary {
    const char *mode;
    const json_t *last_day; /* api_figures_last_day() */
    const json_t *storms;   /* documents, the latest first */
    const json_t *relays;   /* relays_list() */
    const json_t *guard;    /* watch_document() */
    int64_t unaccounted;    /* copies */
    int64_t now;
};
/* Lines, malloc'd. Words of strangers are escaped. */
char *summary_text(const struct summary *);

#endif
