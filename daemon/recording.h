/*
 * recording.h - one recorded message: what a door would have handed over, and when. For mail that
 * was stored (mbox, .eml) that is read from its header:
 *
 *   Return-Path: <a@a.example>              reverse-path  } written by the final delivery,
 *   Delivered-To: b@b.example               recipient     } after the door: not part of the message
 *   Received: from a.example (a.example [192.0.2.7]) by ...;   client, HELO, name, time: likewise
 *   Received: ...                           the message as it came begins here
 */
#ifndef RECORDING_H
#define RECORDING_H

#include "arena.h"
#include "keys.h"

/* Everything lies in an arena of whoever read it. */
struct recording {
    int64_t time; /* ms since 1970; < 0: unknown */
    double t;     /* the same in seconds, as written */
    struct span client, helo, name, queue_id, from, label;
    struct span *rcpts;
    size_t nrcpts;
    struct span data; /* the message */
    bool cut;         /* it was larger than RECORDING_BYTES */
};

enum { RECORDING_BYTES = 64 << 20 }; /* of one message */

/*
 * Fills r from a stored message. from_line: of an mbox, without "From "; may be empty.
 *   reverse-path  Return-Path; else the From_ line's sender; else Sender or From
 *   recipients    Delivered-To, X-Original-To or Envelope-To above the top Received, else its
 *                 `for`, else such a field below it, else To, Cc and Bcc; each once
 *   client        the top Received, which is cut off with what the final delivery put above it
 *   time          the top Received's, else the From_ line's, else Date
 */
void recording_of_mail(struct recording *, struct arena *, const struct keys *,
                       struct span from_line, struct span message);

/* The bytes of a file, at most RECORDING_BYTES; 0, or -1 and errno. */
int recording_file(struct arena *, const char *path, struct span *out, bool *cut) MUSTCHECK;

#endif
