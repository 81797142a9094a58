/*
 * smtp_door.h - what the sessions of one SMTP listener share: where the MTA behind is,
 * certificates, limits. Read again at a reload; a session keeps what it began with.
 */
#ifndef SMTP_DOOR_H
#define SMTP_DOOR_H

#include "clients.h"
#include "config.h"
#include "downstream.h"

struct smtp_door {
    _Atomic unsigned references;
    struct config *config; /* pinned: the listener lies in it */
    const struct listener *listener;
    struct downstream_settings down;
    struct tls *tls; /* ours; NULL: none */
};

struct smtp_doors;
/* NULL after a sentence in error. */
struct smtp_doors *smtp_doors_new(struct config *, char error[512]);
/* 0; -1 after a sentence in error: nothing is changed. */
int smtp_doors_reload(struct smtp_doors *, struct config *, char error[512]);
void smtp_doors_free(struct smtp_doors **);
/* The door of a listener's name as it is now; NULL: it is gone from the configuration. Any thread.
 */
struct smtp_door *smtp_door_take(struct smtp_doors *, const char *listener);
void smtp_door_drop(struct smtp_door **);
struct clients *smtp_doors_clients(struct smtp_doors *);

#endif
