/*
 * alarm.h - something a person should know now: a log line, and if they are configured a command
 * and a mail.
 *
 *   any thread: alarm_send -+-> log line (error), counter
 *                           +-> queue -> command   (main thread, one at a time, killed after 30 s)
 *                           +-> queue -> mail      (desk thread, through release.to, tried again)
 *
 * The command (guard.alarm) gets the text on its standard input and the facts in its environment;
 * there is no shell. The mail (guard.mail_to) has a null reverse-path and says that a machine wrote
 * it. Invariant: alarm_send never waits, and the queues are bounded.
 */
#ifndef ALARM_H
#define ALARM_H

#include "config.h"
#include "mailbox.h"

struct alarm;

/* Name and value of something the text says; the command sees BREAKWATER_NAME=value. */
struct alarm_fact {
    const char *name; /* capital letters, digits, _; NULL ends a list */
    const char *value;
};

struct alarm *alarm_new(struct config *);
void alarm_free(struct alarm **);
/* After a reload: command and address of the new configuration. */
void alarm_reload(struct alarm *, struct config *);

/* All is copied; facts may be NULL. subject: one line, without a final period. text: sentences,
 * lines ended by \n; ASCII or UTF-8 of ours, words of strangers escaped. alarm NULL: only the log
 * line. Any thread. */
void alarm_send(struct alarm *, const char *subject, const char *text,
                const struct alarm_fact *facts);
/* The same without the alarm: a report that was asked for, such as a daily summary. No log line of
 * level error, and it does not count. */
void alarm_report(struct alarm *, const char *subject, const char *text,
                  const struct alarm_fact *facts);

/* Main thread, some times a second: begins, reaps and kills commands. */
void alarm_tick(struct alarm *, int64_t mono);
/* Desk thread: mail is sent in its loop from now on, until alarm_leave (also desk thread, before
 * its mailbox is freed). */
void alarm_join(struct alarm *, struct event_base *, struct mailbox *);
void alarm_leave(struct alarm *);

/* What became of them; any thread. */
struct alarm_figures {
    uint64_t sent, commands, command_failures, mails, mail_failures, dropped;
};
void alarm_figures(struct alarm *, struct alarm_figures *);

#endif
