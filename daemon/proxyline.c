/*
 * proxyline.c - see proxyline.h.
 *
 *   1  "PROXY TCP4 192.0.2.7 198.51.100.1 51000 25\r\n"       at most 107 bytes
 *   2  12 bytes of signature, version and command, family, length (2 bytes, big-endian), addresses,
 *      TLVs (skipped, but their lengths must add up; a CRC32C among them is checked)
 *
 * Invariant: a header is taken whole and exactly, or the connection is closed.
 */
#include <stdio.h>
#include <string.h>

#include "proxyline.h"

enum {
    TEXT_MAX = 107, /* of version 1, CRLF included */
    SIGNATURE = 12,
    HEAD = 16, /* of version 2 */
    TLV_CRC32C = 3,
};
static const char signature[SIGNATURE + 1] = "\r\n\r\n\0\r\nQUIT\n";

/* ---- version 1 ---- */

/* Digits without a leading zero, at most 65535; -1: they are none. */
static long read_port(struct span s)
{
    long n = 0;
    if (s.n == 0 || s.n > 5 || (s.n > 1 && s.p[0] == '0'))
        return -1;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return -1;
        n = 10 * n + (s.p[i] - '0');
    }
    return n <= 65535 ? n : -1;
}

/* Only the plain form of an address counts: no zero in front, no "IPv6:", no brackets. */
static bool read_address(struct span s, uint8_t family, struct ipaddr *out)
{
    bool zero = true; /* at the beginning of a number */
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = s.p[i];
        bool digit = c >= '0' && c <= '9';
        if (family == 4 && !digit && c != '.')
            return false;
        if (family == 4 && zero && c == '0' && i + 1 < s.n && s.p[i + 1] != '.')
            return false;
        if (family == 6 && !digit && !(c >= 'a' && c <= 'f') && !(c >= 'A' && c <= 'F') &&
            c != ':' && c != '.')
            return false;
        zero = c == '.';
    }
    return ipaddr_parse(out, s) && (family == 6 ? span_find(s, ':') < s.n : out->family == 4);
}

/* The next word, which ends at exactly one blank or at the end. */
static struct span next_word(struct span *rest)
{
    size_t n = span_find(*rest, ' ');
    struct span word = span_head(*rest, n);
    *rest = span_from(*rest, n + 1);
    return word;
}

static enum proxyline_state read_text(struct proxyline *p, struct span line)
{
    struct span rest = line, kind;
    if (!span_eq(next_word(&rest), SPAN("PROXY")))
        return PROXYLINE_BAD;
    kind = next_word(&rest);
    if (span_eq(kind, SPAN("UNKNOWN")))
        return PROXYLINE_GOOD;
    uint8_t family = span_eq(kind, SPAN("TCP4")) ? 4 : span_eq(kind, SPAN("TCP6")) ? 6 : 0;
    struct ipaddr server;
    if (!family || !read_address(next_word(&rest), family, &p->client) ||
        !read_address(next_word(&rest), family, &server))
        return PROXYLINE_BAD;
    long from = read_port(next_word(&rest)), to = read_port(rest);
    if (from < 0 || to < 0)
        return PROXYLINE_BAD;
    p->port = (uint16_t)from;
    p->known = true;
    return PROXYLINE_GOOD;
}

static enum proxyline_state read_1(struct proxyline *p, struct span in)
{
    static const char start[] = "PROXY ";
    size_t n = in.n < sizeof start - 1 ? in.n : sizeof start - 1;
    if (memcmp(in.p, start, n) != 0)
        return PROXYLINE_BAD;
    struct span window = span_head(in, TEXT_MAX);
    size_t lf = span_find(window, '\n');
    size_t cr = span_find(window, '\r');
    if (cr + 1 < window.n && cr + 1 != lf)
        return PROXYLINE_BAD; /* a CR alone */
    if (lf == window.n)
        return in.n >= TEXT_MAX ? PROXYLINE_BAD : PROXYLINE_MORE;
    if (cr + 1 != lf)
        return PROXYLINE_BAD;
    p->used = lf + 1;
    return read_text(p, span_head(in, cr));
}

/* ---- version 2 ---- */

/* CRC32C of bytes in which those from zero on for four count as 0 (RFC 3720 appendix B.4). */
static uint32_t crc32c(struct span s, size_t zero)
{
    uint32_t crc = ~0u;
    for (size_t i = 0; i < s.n; i++) {
        crc ^= i - zero < 4 ? 0 : s.p[i];
        for (unsigned bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0x82f63b78u & -(crc & 1));
    }
    return ~crc;
}

static size_t be16(const uint8_t *p)
{
    return (size_t)p[0] << 8 | p[1];
}

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)be16(p) << 16 | (uint32_t)be16(p + 2);
}

/* Do the TLVs from `at` on fill the header exactly? */
static bool tlvs_good(struct span header, size_t at)
{
    while (at < header.n) {
        if (header.n - at < 3)
            return false;
        size_t n = be16(header.p + at + 1);
        if (n > header.n - at - 3)
            return false;
        if (header.p[at] == TLV_CRC32C &&
            (n != 4 || be32(header.p + at + 3) != crc32c(header, at + 3)))
            return false;
        at += 3 + n;
    }
    return true;
}

static void client_of(struct proxyline *p, const uint8_t *address, unsigned family)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    p->known = true;
    p->client.family = family == 4 || memcmp(address, mapped, sizeof mapped) == 0 ? 4 : 6;
    if (family == 4) {
        memcpy(p->client.byte, mapped, sizeof mapped);
        memcpy(p->client.byte + 12, address, 4);
        p->port = (uint16_t)be16(address + 8);
    } else {
        memcpy(p->client.byte, address, 16);
        p->port = (uint16_t)be16(address + 32);
    }
}

static enum proxyline_state read_2(struct proxyline *p, struct span in)
{
    size_t n = in.n < SIGNATURE ? in.n : SIGNATURE;
    if (memcmp(in.p, signature, n) != 0)
        return PROXYLINE_BAD;
    if (in.n < HEAD)
        return PROXYLINE_MORE;
    uint8_t command = in.p[12], family = in.p[13];
    size_t length = be16(in.p + 14);
    if (command != 0x20 && command != 0x21)
        return PROXYLINE_BAD;
    if (in.n < HEAD + length)
        return PROXYLINE_MORE;
    struct span header = span_head(in, HEAD + length);
    p->used = header.n;
    if (command == 0x20)
        return PROXYLINE_GOOD; /* LOCAL: the balancer itself; what follows is skipped */
    size_t addresses = family == 0x11 ? 12 : family == 0x21 ? 36 : 0;
    if (family != 0x00 && !addresses)
        return PROXYLINE_BAD; /* neither TCP over IPv4 or IPv6, nor unspecified */
    if (length < addresses || (addresses && !tlvs_good(header, HEAD + addresses)))
        return PROXYLINE_BAD;
    if (addresses)
        client_of(p, in.p + HEAD, family == 0x11 ? 4 : 6);
    return PROXYLINE_GOOD;
}

enum proxyline_state proxyline_read(struct proxyline *p, struct span in)
{
    *p = (struct proxyline){0};
    if (in.n == 0)
        return PROXYLINE_MORE;
    enum proxyline_state state = in.p[0] == '\r' ? read_2(p, in) : read_1(p, in);
    if (state != PROXYLINE_GOOD)
        *p = (struct proxyline){0};
    return state;
}

/* ---- writing ---- */

static size_t write_1(uint8_t *out, size_t cap, const struct ipaddr *client, uint16_t client_port,
                      const struct ipaddr *server, uint16_t server_port)
{
    char from[IPADDR_TEXT], to[IPADDR_TEXT], text[TEXT_MAX + 1];
    ipaddr_print(client, from);
    ipaddr_print(server, to);
    int n = client->family && client->family == server->family
                ? snprintf(text, sizeof text, "PROXY TCP%u %s %s %u %u\r\n", client->family, from,
                           to, client_port, server_port)
                : snprintf(text, sizeof text, "PROXY UNKNOWN\r\n");
    if (n < 0 || (size_t)n > cap)
        return 0;
    memcpy(out, text, (size_t)n);
    return (size_t)n;
}

static size_t put_address(uint8_t *out, const struct ipaddr *a)
{
    size_t n = a->family == 4 ? 4 : 16;
    memcpy(out, a->byte + 16 - n, n);
    return n;
}

static void put_be16(uint8_t *out, size_t n)
{
    out[0] = (uint8_t)(n >> 8);
    out[1] = (uint8_t)n;
}

static size_t write_2(uint8_t *out, size_t cap, const struct ipaddr *client, uint16_t client_port,
                      const struct ipaddr *server, uint16_t server_port)
{
    bool known = client->family && client->family == server->family;
    size_t length = !known ? 0 : client->family == 4 ? 12 : 36;
    if (cap < HEAD + length)
        return 0;
    memcpy(out, signature, SIGNATURE);
    out[12] = known ? 0x21 : 0x20;
    out[13] = !known ? 0 : client->family == 4 ? 0x11 : 0x21;
    put_be16(out + 14, length);
    if (!known)
        return HEAD;
    size_t at = HEAD;
    at += put_address(out + at, client);
    at += put_address(out + at, server);
    put_be16(out + at, client_port);
    put_be16(out + at + 2, server_port);
    return HEAD + length;
}

size_t proxyline_write(uint8_t *out, size_t cap, int version, const struct ipaddr *client,
                       uint16_t client_port, const struct ipaddr *server, uint16_t server_port)
{
    return (version == 2 ? write_2 : write_1)(out, cap, client, client_port, server, server_port);
}
