/*
 * conversation.h - which conversation a message belongs to, and whether a machine wrote it
 * (RFC 5322 3.6.4, RFC 3834, [MS-OXOMSG] 2.2.1.3; detection.md 8 and 9).
 */
#ifndef CONVERSATION_H
#define CONVERSATION_H

#include "fingerprint.h"

enum { CONVERSATION_REFERENCES = 16 };

/* All hashes are keyed (SIP_MISC of the Message-ID without <> and blanks); 0: none. */
struct conversation {
    uint64_t own;   /* this message's own Message-ID */
    uint64_t root;  /* first of References, else In-Reply-To, else own */
    uint64_t index; /* the 22-byte head of Thread-Index */
    uint64_t reference[CONVERSATION_REFERENCES]; /* distinct: the first of References, In-Reply-To,
                                                    then the last of References */
    size_t nreferences;
    struct span base;   /* the subject without "Re:", "Fwd:", "[tag]" ..., see topic.h */
    uint64_t base_hash; /* of base; 0: base is empty */
    unsigned prefixes;  /* how many reply, forward and auto-reply prefixes were taken off */
    bool reply;         /* References, In-Reply-To, a grown Thread-Index, or a reply prefix */
    bool automatic;     /* a machine says it wrote this (not X-Auto-Response-Suppress) */
    const char *automatic_why; /* "Auto-Submitted: auto-replied", "null reverse-path" ...; NULL: it
                                  is not */
    bool noise; /* a reply to many with at most 12 words of its own, or a stop phrase ("remove me",
                   "reply all" ...); not looked at where it goes to few */
};

void conversation_read(struct conversation *, struct arena *, const struct keys *,
                       const struct message *, const struct fingerprints *,
                       const struct envelope *);

#endif
