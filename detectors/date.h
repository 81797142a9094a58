/*
 * date.h - the date-time of header fields (RFC 5322 3.3, its obsolete forms and common slips).
 *
 * For identity (the same instant written in two zones is one date) and for display. Never evidence:
 * clocks are wrong far too often.
 */
#ifndef DATE_H
#define DATE_H

#include "span.h"

/* Reads "Thu, 9 May 2012 23:34:45 +0900 (JST)" and asctime's "Thu May  9 23:34:45 2012" into
 * seconds since 1970, UTC. A missing or unknown zone counts as UTC (RFC 5322 4.3). False, and
 * *seconds untouched, when there is no day, month, year and time in it. */
bool date_parse(struct span, int64_t *seconds);

#endif
