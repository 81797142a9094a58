/* crc.c - see crc.h. */
#include <pthread.h>

#include "crc.h"

/* CRC-32 (IEEE 802.3), eight bytes at a time: what a byte does to it with i bytes behind it. */
static uint32_t crc_slice[8][256];

static void crc_prepare(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
        crc_slice[0][byte] = crc;
    }
    for (int i = 1; i < 8; i++)
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t crc = crc_slice[i - 1][byte];
            crc_slice[i][byte] = crc >> 8 ^ crc_slice[0][crc & 255];
        }
}

uint32_t crc32_add(uint32_t crc, const uint8_t *p, size_t n)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, crc_prepare);
    crc = ~crc;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t w = bytes_get(p, 8) ^ crc;
        crc = 0;
        for (int i = 0; i < 8; i++)
            crc ^= crc_slice[7 - i][w >> 8 * i & 255];
    }
    for (; n; n--, p++)
        crc = crc >> 8 ^ crc_slice[0][(crc ^ *p) & 255];
    return ~crc;
}
