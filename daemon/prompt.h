/*
 * prompt.h - a bufferevent over a socket that writes at once: what is said goes to the kernel when
 * the callback ends, not a round of the loop later. Spares an epoll_wait() and two epoll_ctl() for
 * every reply, which is a third of what a small message costs.
 *
 * EV_WRITE is off while nothing waits, on while the loop has to go on with it. Over TLS it is
 * always on and all of this does nothing.
 */
#ifndef PROMPT_H
#define PROMPT_H

#include <event2/bufferevent.h>
#include <stdbool.h>

/* To be called when reading and writing begins, and in the write callback, whose EV_WRITE may be
 * off now. */
void prompt_rest(struct bufferevent *);
/* Writes what waits in the output. true: something did and all of it is written, for which no write
 * callback will come. */
bool prompt_write(struct bufferevent *);

#endif
