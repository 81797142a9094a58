/*
 * prompt.h - a bufferevent over a socket, without the loop's detours.
 *
 * Writing: what is said goes to the kernel when the callback ends, not a round of the loop later.
 * Spares an epoll_wait() and two epoll_ctl() for every reply. EV_WRITE is off while nothing waits,
 * on while the loop has to go on with it.
 *
 * Reading: all that is there, up to PROMPT_ROOM bytes, with one recv(); a bufferevent asks how much
 * there is and takes 4 KiB of it. Its EV_READ stays off, an event of ours calls its callbacks.
 *
 * Over TLS the bufferevent does both; it is only told when to stop reading. A watermark is not used
 * for that: while the input is at it libevent (2.1.12) calls the read callback over and over, and
 * it may leave a part of a TLS record behind that no event tells of.
 */
#ifndef PROMPT_H
#define PROMPT_H

#include <event2/bufferevent.h>
#include <stdbool.h>

#include "span.h"

/* To be called when writing begins, and in the write callback, whose EV_WRITE may be off now. */
void prompt_rest(struct bufferevent *);
/* Writes what waits in the output. true: something did and all of it is written, for which no write
 * callback will come. */
bool prompt_write(struct bufferevent *);

enum { PROMPT_ROOM = 64 << 10 };

/* Takes what it can of the bytes that came, before they are copied into the input, which is empty;
 * returns how many. It must not end the bufferevent. */
typedef size_t prompt_taste_fn(void *arg, struct span);

struct prompt {
    struct bufferevent *bev;
    struct event *readable; /* NULL: not begun, or over TLS */
    prompt_taste_fn *taste; /* may be NULL */
    size_t most;            /* bytes of input that wait, before no more are read */
    bool on, over;          /* it is read; nothing more comes, or is wanted */
};
/* Begins to read for a bufferevent whose callbacks are set. */
void prompt_begin(struct prompt *, struct bufferevent *, size_t most, prompt_taste_fn *);
/* Goes on reading if the input has room again: to be called when a callback that may have taken
 * from it ends. */
void prompt_go_on(struct prompt *);
/* No more is read. */
void prompt_stop(struct prompt *);
/* Before the bufferevent is freed or goes over to TLS. */
void prompt_end(struct prompt *);

#endif
