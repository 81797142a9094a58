/*
 * ownwords.h - what the writer of a reply says himself: without quotes, the line that introduces
 * them, forwarded headers and signatures.
 */
#ifndef OWNWORDS_H
#define OWNWORDS_H

#include "fingerprint.h"

struct ownwords {
    unsigned n;       /* words, as far as they were looked at */
    bool unknown;     /* none were found, but not all of the text was looked at */
    const char *stop; /* a phrase that asks to be left alone, or "reply all"; NULL: none */
};

/* Of the opening of a message (fingerprint.h). A line that is quoted ends nothing: people answer
 * below as well. */
void ownwords_read(struct ownwords *, const struct fingerprints *);

#endif
