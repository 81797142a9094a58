/*
 * transfer.h - Content-Transfer-Encoding undone (RFC 2045 6), in pieces of any size.
 *
 * What is not of the encoding is passed over (base64) or stands for itself (quoted-printable).
 */
#ifndef TRANSFER_H
#define TRANSFER_H

#include "span.h"

enum transfer_encoding {
    TRANSFER_IDENTITY, /* 7bit, 8bit, binary and whatever we do not know */
    TRANSFER_BASE64,
    TRANSFER_QUOTED,
};

enum quoted_state {
    QUOTED_TEXT,
    QUOTED_EQUALS, /* after = */
    QUOTED_HEX,    /* after = and a hexadecimal digit */
    QUOTED_BLANK,  /* after = and blanks: a soft line break, if the line ends here */
    QUOTED_CR,     /* after = and CR */
};

/* Zero but for the encoding is a fresh one. */
struct transfer {
    enum transfer_encoding encoding;
    enum quoted_state quoted;
    uint8_t hex;   /* the digit after = */
    uint8_t nbits; /* base64: bits not written yet */
    uint32_t bits;
};

typedef void transfer_fn(void *arg, struct span decoded);

enum transfer_encoding transfer_named(struct span name);
/* Decodes a piece; calls fn with stretches of what it says, which may lie in the piece itself. */
void transfer_add(struct transfer *, struct span, transfer_fn *, void *arg);
void transfer_end(struct transfer *, transfer_fn *, void *arg);

#endif
