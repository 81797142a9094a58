/*
 * flood.h - a relay that sends many times what it usually does (detection.md 9). One state per
 * peer address and one per its network (IPv4 /24, IPv6 /48): what is usual at each hour of the day,
 * and a CUSUM of what exceeds it. Only an address is ever to be deferred.
 */
#ifndef FLOOD_H
#define FLOOD_H

#include "detector.h"

extern const struct detector flood_detector;

/* What is known of one relay's rate; all zero: nothing. For flood.c, and for its tests. */
enum { RATE_MINUTES = 60, RATE_HOURS = 24, RATE_LEARNED = 24 };
struct rate {
    double base[RATE_HOURS]; /* messages a minute that are usual in this hour of the day (UTC) */
    double phi;              /* how much more they scatter than Poisson's law says */
    double excess;           /* CUSUM of log-likelihood ratios: usual against ten times as many */
    double usual;            /* of the minute closed last */
    uint32_t sum, last5, further; /* of the last 60 minutes; of the last 5; further copies in 60 */
    uint16_t weight[RATE_HOURS];  /* minutes that base rests on */
    uint16_t count[RATE_MINUTES], duplicates[RATE_MINUTES]; /* by minute modulo 60 */
    bool alarm;
    uint8_t hours; /* in which it sent mail, up to a day of them: then it is learned */
    int64_t hour;  /* the latest of these */
};
void rate_begin(struct rate *);
/* Closes a minute (since 1970) in which x messages came, `duplicates` of them further copies. Once
 * the rate is learned, an alarm teaches nothing. */
enum flood_level rate_minute(struct rate *, int64_t minute, uint32_t x, uint32_t duplicates);
/* Closes n minutes from `minute` on in which nothing came. Bounded work, however long it was:
 * exact for the first hour, then by whole hours; silence of more than a day is absence, and says
 * nothing about the rate. */
void rate_idle(struct rate *, int64_t minute, int64_t n);

#endif
