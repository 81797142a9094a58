/* crc.h - CRC-32 (IEEE 802.3): was this written whole? Against accidents, not against people. */
#ifndef CRC_H
#define CRC_H

#include "span.h"

/* Of p after what gave crc; begin with 0. Any thread. */
uint32_t crc32_add(uint32_t crc, const uint8_t *p, size_t n);

#endif
