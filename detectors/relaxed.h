/* relaxed.h - a hash of the body in the relaxed form of RFC 6376 3.4.4: blanks at line ends, runs
 * of blanks and empty lines at the end do not matter; LF alone ends a line too. */
#ifndef RELAXED_H
#define RELAXED_H

#include "keys.h"

struct relaxed {
    struct sip sip;
    uint64_t ends; /* line ends not hashed yet: they count when something follows */
    bool blank;    /* a run of blanks, not hashed yet */
    bool cr;       /* a CR, which may be half a line end */
    bool middle;   /* of a line */
    uint16_t n;    /* bytes in out */
    uint8_t out[1024];
};

void relaxed_begin(struct relaxed *, const struct keys *);
void relaxed_add(struct relaxed *, struct span);
uint64_t relaxed_end(struct relaxed *);

#endif
