/*
 * mbox.h - mailboxes of the mbox family (RFC 4155 and its relatives), message by message.
 *
 *   From sender Thu May  9 23:34:45 2012         <- after an empty line, or first in the file
 *   header, empty line, body                     <- ">From " in the body was "From " (mboxrd,
 * mboxo) (empty line)
 *
 * A Content-Length that leads exactly to the next From_ line or to the end is believed (mboxcl);
 * any other is not. Line ends may be LF or CRLF. There is no wrong mbox: only other messages.
 */
#ifndef MBOX_H
#define MBOX_H

#include "arena.h"
#include "lines.h"

struct mbox;

/* One message, in an arena. */
struct mbox_mail {
    struct span from;    /* the From_ line, without "From " and line end */
    struct span message; /* at most so many bytes as were asked for */
    off_t at;            /* where its From_ line stands */
    bool cut;            /* there was more of it */
};

/* The file begins with a From_ line. NULL, and errno. */
struct mbox *mbox_open(const char *path);
void mbox_close(struct mbox **);
/* The next message, its first `most` bytes kept; false: no more, or lines_error(). */
bool mbox_next(struct mbox *, struct arena *, size_t most, struct mbox_mail *);
void mbox_seek(struct mbox *, off_t at); /* to a mail's `at` */
off_t mbox_at(const struct mbox *);      /* behind the mail read last */
int mbox_error(const struct mbox *);

/* Does a line begin like the From_ line of a message, with a date? date: behind the sender. */
bool mbox_from_line(struct span line, struct span *sender, struct span *date);

#endif
