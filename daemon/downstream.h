/*
 * downstream.h - one SMTP session with the MTA behind the SMTP door: long-lived, pipelined where
 * it may, several messages; every wait has a deadline. It never decides, it carries.
 *
 *   open: connect -> [PROXY] -> 220 -> EHLO -> [STARTTLS -> EHLO] -> [XCLIENT -> EHLO] -> ready
 *                                      |            +-- fails, but need not be: connect, without it
 *                                      +-- 500, 502: HELO, nothing is offered
 *   command ... command -> reply each, in order
 *   message: [XFORWARD] MAIL RCPT.. are commands; DATA -> 354 -> body -> final reply
 *
 * Lost (421, reset, timeout) while nothing of a message was promised: the caller opens a new one
 * and says the transaction again. After the final dot nothing is said again: 451 to the client.
 */
#ifndef DOWNSTREAM_H
#define DOWNSTREAM_H

#include <event2/event.h>

#include "body.h"
#include "site.h"
#include "smtp_proto.h"
#include "tls.h"

struct downstream;

/* Who the client is, for XCLIENT, XFORWARD or PROXY. */
struct downstream_client {
    struct ipaddr address;
    uint16_t port;
    struct span name, helo, login;
    bool esmtp;
};
struct downstream_settings {
    const char *to;   /* "127.0.0.1:25", "unix:/path" */
    const char *helo; /* ours, where the client's is not to be told */
    struct tls *tls;  /* NULL: never; else STARTTLS when offered */
    bool tls_required;
    unsigned proxy_protocol; /* 0, 1 or 2: header we send first */
    bool xclient, xforward;  /* use them where offered */
    int64_t connect_deadline, command_deadline, final_deadline; /* ms */
};

/* All replies come through here, one per command, from the loop, never from inside a call below.
 * code 0: the session is lost (closed, 421, too late), `text` says why; nothing more comes. The
 * text is good during the call. A reply that comes before the end of the text is its final reply,
 * and the session is no longer alive then. */
typedef void downstream_reply_fn(void *arg, int code, struct span text);

struct downstream *downstream_open(struct event_base *, const struct downstream_settings *,
                                   const struct downstream_client *, downstream_reply_fn *,
                                   void *arg); /* first reply: 220 when ready, or why not */
const struct smtp_offer *downstream_offer(const struct downstream *);
/* A line without CRLF; may be sent before the reply to the one before (pipelining, if offered; else
 * it waits here). */
void downstream_command(struct downstream *, struct span line);
/* Says XFORWARD for the message to come, where it is offered; the reply comes like any other's. */
void downstream_forward(struct downstream *, const struct downstream_client *);
/* After a 354: the message, dot-stuffed; `fields` is put in front of it (tag, Received), may be
 * empty. The body is held until the final reply. */
void downstream_data(struct downstream *, struct span fields, struct body *);
/* During a reply: another line of it, or another reply, is here and comes next. */
bool downstream_speaks(const struct downstream *);
/* What was said so far goes out now; else it goes when the loop comes by. */
void downstream_push(struct downstream *);
bool downstream_alive(const struct downstream *);
void downstream_close(struct downstream **); /* QUIT if it is between messages, else just gone */

#endif
