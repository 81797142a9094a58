/*
 * mime.h - the parts of a message (RFC 2045, 2046), pushed through piece by piece.
 *
 *   header of the message ----> kind of the body
 *   body bytes -> lines that may be boundaries -> part headers -> leaf bytes, decoded -> sink
 *
 * Linear and bounded: no more than LIMIT_MIME_DEPTH containers are looked into (a deeper one is one
 * opaque leaf), no more than LIMIT_MIME_PARTS leaves; what follows is passed over. Cut points never
 * matter. Broken MIME is mail: missing ends, odd boundaries and bad encodings give less text, never
 * an error.
 */
#ifndef MIME_H
#define MIME_H

#include "charset.h"
#include "message.h"

enum mime_kind {
    MIME_TEXT, /* text/plain and all text that is no HTML; not marked as attachment */
    MIME_HTML,
    MIME_ATTACHMENT,
};

struct mime_leaf {
    enum mime_kind kind;
    enum charset charset; /* of text */
    bool plain;           /* text/plain itself */
    bool exact;           /* bytes stood in base64: line ends are content */
};

/* Who gets the parts. Calls are balanced: a container's leaves come between open and close. */
struct mime_sink {
    void *arg;
    void (*open)(void *arg, bool alternative); /* a multipart or an enclosed message begins */
    void (*close)(void *arg);
    bool (*leaf)(void *arg, const struct mime_leaf *); /* false: its bytes are not wanted */
    void (*bytes)(void *arg, struct span decoded);     /* of the leaf begun last */
    void (*leaf_end)(void *arg);
};

struct mime; /* in the arena */

/* Begins with the fields of the message, which must be complete. The sink must outlive it. */
struct mime *mime_begin(struct arena *, const struct message *, const struct mime_sink *);
/* Body bytes after the empty line. */
void mime_body(struct mime *, struct span);
/* No more: closes what is open. */
void mime_end(struct mime *);

/* A Content-Type or Content-Disposition value. All spans in the arena or empty. */
struct mime_value {
    struct span type;    /* "multipart/mixed", "attachment": as written, without comments */
    struct span charset; /* parameters, unquoted */
    struct span boundary;
};
void mime_value_parse(struct mime_value *, struct arena *, struct span value);

#endif
