/*
 * mailbox.h - how threads talk: a letter is posted to a thread's mailbox and its function runs in
 * that thread's event loop. No other way leads from one thread into another.
 */
#ifndef MAILBOX_H
#define MAILBOX_H

#include <event2/event.h>

#include "breakwater.h"

/* Embed it at the start of what is sent; ownership passes with the posting. */
struct letter {
    struct letter *next;
    void (*open)(struct letter *);
};
struct mailbox;

struct mailbox *mailbox_new(struct event_base *);
/* The loop its letters are opened in. */
struct event_base *mailbox_base(const struct mailbox *);
/* Any thread. Never blocks, never fails. Letters arrive in order. */
void mailbox_post(struct mailbox *, struct letter *);
/* Opens the letters that wait, for an owner whose loop has ended; false: there were none. */
bool mailbox_open(struct mailbox *);
/* Frees it; letters inside are opened first. */
void mailbox_free(struct mailbox **);

#endif
