/*
 * id.h - identifiers people see. 64 bits (42 time in ms, 10 node, 12 sequence) as 13 base32
 * characters (RFC 4648 alphabet, upper case); incidents are 'S' + 8 base32 digits of the K of their
 * first message.
 */
#ifndef ID_H
#define ID_H

#include <sys/time.h>

#include "span.h"

enum { ID_TEXT = 14, INCIDENT_TEXT = 10 }; /* with NUL */

/* A new id; unique and rising in this process, whatever the clock does. Thread-safe. */
uint64_t id_next(uint16_t node, int64_t now_ms);
/* From now on ids are of this node, whatever id_next is told: another node of the fleet has the
 * number that our name stands for. */
void id_use_node(uint16_t node);
/* The first that can be of this time: whatever was made before it is less. */
uint64_t id_of_time(int64_t ms);
void id_print(uint64_t id, char out[ID_TEXT]);
bool id_parse(uint64_t *id, struct span text); /* any case */
void incident_print(const struct key *, char out[INCIDENT_TEXT]);
bool incident_parse(struct span text, char out[INCIDENT_TEXT]); /* normalises; false: not one */

/* Bytes as lower-case hexadecimal digits, two each, and a NUL. */
void hex_print(struct span, char *out);

/* Wall-clock ms, never running backwards in this process; replaceable for tests and replay. */
int64_t clock_now(void);
void clock_set(int64_t (*fn)(void)); /* NULL: the real one; no shift */
/* The clock of several nodes is one: ms that clock_now() is ahead of this machine's own clock. It
 * still never runs backwards: a lesser shift makes it stand still for as long. first: before
 * anything was dated, so it may. */
void clock_shift(int64_t ms, bool first);
int64_t clock_own(void);    /* without that shift, and as often as the machine's is set */
int64_t clock_mono(void);   /* monotonic ms, for deadlines */
int64_t clock_micros(void); /* monotonic us, for figures */

/* ms, not negative, as libevent wants them. */
static inline struct timeval clock_timeval(int64_t ms)
{
    return (struct timeval){.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
}

#endif
