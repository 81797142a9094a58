/*
 * smtp.h - the SMTP door: a before-queue proxy (RFC 5321). Takes a client, relays EHLO (by
 * allow-list), AUTH, MAIL and RCPT live to the MTA behind it, answers DATA itself, has the message
 * judged, then delivers it downstream or holds it.
 *
 * 250 leaves only after downstream's 2xx or our own durable hold. Exactly one final reply per
 * command. Per-message state is the tx, nothing else.
 */
#ifndef SMTP_H
#define SMTP_H

#include "worker.h"

/* A door_accept_fn. */
void smtp_accept(struct worker *, int fd, const struct listener *);

#endif
