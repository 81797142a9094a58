/*
 * api_figures.h - the routes about figures: the balance, and what rules did by day.
 *
 *   GET balance?minutes=60   {"even":true,"doors":[..since the start..],"minutes":[..]}
 *   GET report?from=2026-11-01&until=2026-11-30
 *                            {"days":[{"day","listener","mode","rule","copies","would","firsts",
 *                            "done"}]}
 */
#ifndef API_FIGURES_H
#define API_FIGURES_H

#include "days.h"
#include "http.h"
#include "recall.h"
#include "store_redis.h"

/* For status. */
json_t *api_figures_counters(struct figures *);
json_t *api_figures_latency(struct figures *, int64_t now);
json_t *api_figures_keeper(struct keeper *);
json_t *api_figures_store(struct store *);
json_t *api_figures_recall(struct recall *);
/* What rules did, and would have done, in the last 24 hours; null: unreadable. */
json_t *api_figures_last_day(struct days *, struct hold *view, int64_t now);

void api_figures_balance(struct figures *, struct http_request *);
void api_figures_report(struct days *, struct hold *view, struct http_request *);

#endif
