/*
 * breakwater.h - the words of the house: types every floor uses, and the limits.
 *
 * Types only. One message flows through them in one direction:
 *   bytes -> message -> trace + fingerprints -> signals -> verdict -> action
 */
#ifndef BREAKWATER_H
#define BREAKWATER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BREAKWATER_VERSION "0.1.0"

#define MUSTCHECK __attribute__((warn_unused_result))

/* Limits. Every parser stops reading (never fails) at its limit. */
enum limit {
    LIMIT_HEAD = 1 << 20,         /* bytes of header kept contiguous and indexed */
    LIMIT_FIELDS = 2000,          /* header fields indexed */
    LIMIT_TEXT = 64 << 10,        /* bytes of decoded text fingerprinted */
    LIMIT_WORDS = LIMIT_TEXT / 2, /* words of that text: each is a byte and what ends it */
    LIMIT_MIME_DEPTH = 8,         /* nested multiparts and message/rfc822 looked into */
    LIMIT_MIME_PARTS = 64,        /* leaf parts looked at */
    LIMIT_ATTACHMENTS = 8,        /* attachment digests that enter F */
    LIMIT_HOPS = 64,              /* Received fields read: 16 newest + 48 oldest */
    LIMIT_HOP_BYTES = 2 << 10,    /* bytes of one Received field looked at */
    LIMIT_VISIBLE = 2000,         /* distinct To/Cc addresses remembered of one message */
    LIMIT_RECIPIENTS = 10000,     /* envelope recipients judged in one transaction */
    LIMIT_ADDRESS = 512,          /* bytes of one address looked at */
};

/* A stretch of somebody else's bytes; never NUL-terminated, never owned. */
struct span {
    const uint8_t *p; /* may be NULL only if n is 0 */
    size_t n;
};

/* An IP address; IPv4 is kept as ::ffff:a.b.c.d. family 0: unknown (local, pipe). */
struct ipaddr {
    uint8_t family; /* 0, 4 or 6 */
    uint8_t byte[16];
};

/* Identity of a message: 96 bits, see detection.md 2.3. All zero: none. */
struct key {
    uint8_t byte[12];
};

enum mode {
    MODE_MONITOR, /* record what would be done; change nothing */
    MODE_ENFORCE,
    MODE_BYPASS, /* doors pass without judging */
    MODE_COUNT   /* must be last */
};

/* What becomes of one copy. There is no "drop". */
enum disposition {
    DISP_PASS,
    DISP_TAG,      /* pass with a header */
    DISP_THROTTLE, /* 4xx */
    DISP_HOLD,     /* accepted, durable, recoverable */
    DISP_REJECT,   /* 5xx, only where an operator's rule says so */
    DISP_COUNT     /* must be last */
};

/* One envelope recipient (RFC 5321 forward-path), as the door saw it. */
struct recipient {
    struct span raw;     /* exactly as received, with <> if it had them: DELRCPT needs it */
    struct span address; /* without <> */
    struct span params;  /* ESMTP parameters, blank-separated ("NOTIFY=NEVER"), may be empty */
    uint64_t hash;       /* keyed hash of the normalised address; set by the tx */
    uint16_t domain;     /* 16 bits of the keyed hash of its domain */
};

/* The envelope of one transaction. All spans lie in the tx's arena. */
struct envelope {
    struct ipaddr client;
    struct span client_name; /* as the MTA resolved it; may be empty or "[1.2.3.4]" */
    struct span helo;
    struct span reversepath; /* without <>; empty: null reverse-path */
    struct span reversepath_params;
    struct span queue_id; /* the MTA's, may be empty */
    struct span auth;     /* authenticated user, may be empty */
    struct recipient *recipients;
    size_t nrecipients, caprecipients;
    int64_t arrival; /* wall-clock ms at MAIL */
    bool acked;      /* the client is known to have seen our 250 for the former copy */
};

#endif
