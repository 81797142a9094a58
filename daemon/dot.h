/*
 * dot.h - the message data of SMTP: what ends it, and how it is written (RFC 5321 4.5.2).
 *
 * Reading: only CRLF "." CRLF ends the data. A bare LF becomes CRLF, a bare CR a space (or the data
 * is marked as foul, where the operator wants to refuse it); neither ever ends the data or begins a
 * line for the dot rule. NUL and all else is data. Writing: every line begins with a doubled dot
 * where it has one, ends in CRLF, and the end is ours. Both take pieces of any size; where they are
 * cut never matters.
 */
#ifndef DOT_H
#define DOT_H

#include "span.h"

typedef void dot_fn(void *arg, struct span);

struct dot_reader {
    uint8_t state; /* zero: at the beginning of the data */
    bool done;
    uint64_t bare_lf, bare_cr; /* counted */
};
/* Reads from `in` until the data ends; gives what it means to fn, in order, whole message included
 * its last CRLF, without the dot. Returns how many bytes of `in` were used: what follows the end
 * is the next command's. */
size_t dot_read(struct dot_reader *, struct span in, dot_fn *, void *arg);

struct dot_writer {
    uint8_t state; /* zero: at the beginning of a line */
};
void dot_write(struct dot_writer *, struct span, dot_fn *, void *arg);
/* A last CRLF if it is missing; and after it ".\r\n". */
void dot_end_line(struct dot_writer *, dot_fn *, void *arg);
void dot_end(struct dot_writer *, dot_fn *, void *arg);

#endif
