/*
 * clients.h - how many connections there are, of whom: global and per client address (IPv6: /64).
 * Any thread. Trusted upstreams are counted, never limited (incident 001).
 */
#ifndef CLIENTS_H
#define CLIENTS_H

#include "site.h"

struct clients;
struct clients *clients_new(unsigned most, unsigned most_each);
void clients_free(struct clients **);
/* NULL: it may come in, clients_leave() when it goes; else the reply: "421 4.7.0 ...". */
const char *clients_enter(struct clients *, const struct ipaddr *, bool trusted);
void clients_leave(struct clients *, const struct ipaddr *);
void clients_limits(struct clients *, unsigned most, unsigned most_each); /* after a reload */
/* The guard allows fewer than that; 0: as many as configured. */
void clients_govern(struct clients *, unsigned most);
unsigned clients_count(struct clients *); /* connections open now */

#endif
