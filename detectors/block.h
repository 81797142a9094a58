/*
 * block.h - text looked at 64 bytes at a time: a bit for every byte that matters to a line. Bit i
 * is byte i. In an instruction or two each where the processor can (AVX-512, AVX2, SSE2).
 */
#ifndef BLOCK_H
#define BLOCK_H

#include "span.h"

enum { BLOCK = 64, BLOCKS = 16 };

struct block {
    uint64_t cr, lf, control, other; /* control: below a blank; other: what was asked for */
};

/* Looks at the first blocks of s, at most `most` (1 to BLOCKS) of them. Returns how many, at least
 * one; only if it is the only one it may be filled up, with `fill`. s is not empty. */
size_t block_look(struct block out[BLOCKS], struct span s, size_t most, uint8_t other,
                  uint8_t fill);

#endif
