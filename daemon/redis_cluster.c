/* redis_cluster.c - slots, and what servers say about them. */
#include <hiredis/hiredis.h>
#include <stdio.h>

#include "place.h"
#include "redis_cluster.h"

/* CRC-16/XMODEM, four bits at a time. */
static uint16_t crc16(struct span s)
{
    static const uint16_t table[16] = {0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5,
                                       0x60c6, 0x70e7, 0x8108, 0x9129, 0xa14a, 0xb16b,
                                       0xc18c, 0xd1ad, 0xe1ce, 0xf1ef};
    uint16_t crc = 0;
    for (size_t i = 0; i < s.n; i++) {
        crc = (uint16_t)(crc << 4 ^ table[crc >> 12 ^ s.p[i] >> 4]);
        crc = (uint16_t)(crc << 4 ^ table[crc >> 12 ^ (s.p[i] & 15)]);
    }
    return crc;
}

uint16_t redis_slot(struct span key)
{
    size_t open = span_find(key, '{');
    struct span rest = span_from(key, open + 1);
    size_t close = span_find(rest, '}');
    if (open < key.n && close > 0 && close < rest.n)
        key = span_head(rest, close);
    return crc16(key) % REDIS_SLOTS;
}

/* "10.0.0.1" of "10.0.0.1:7000", "::1" of "[::1]:7000"; empty: a unix socket. */
static struct span host_of(struct span address)
{
    if (span_starts(address, SPAN("unix:")))
        return span_of(NULL, 0);
    return span_bare(span_head(address, span_rfind(address, ':')), '[', ']');
}

bool redis_address(struct span host, uint64_t port, struct span said_by, char out[REDIS_ADDRESS])
{
    if (host.n == 0)
        host = host_of(said_by);
    if (host.n == 0 || host.n > 64)
        return false;
    bool six = span_find(host, ':') < host.n;
    snprintf(out, REDIS_ADDRESS, six ? "[%.*s]:%llu" : "%.*s:%llu", SPAN_ARG(host),
             (unsigned long long)port);
    return place_target(span_str(out));
}

bool redis_redirection(struct span error, struct span said_by, struct redis_redirection *out)
{
    uint64_t slot, port;
    struct span rest = span_from(error, span_find(error, ' ') + 1);
    size_t blank = span_find(rest, ' ');
    struct span where = span_from(rest, blank + 1);
    size_t colon = span_rfind(where, ':');
    if (!span_number(span_head(rest, blank), REDIS_SLOTS - 1, &slot) || colon == where.n ||
        !span_number(span_from(where, colon + 1), 65535, &port))
        return false;
    out->slot = (uint16_t)slot;
    return redis_address(span_head(where, colon), port, said_by, out->address);
}

static struct span text_of(const redisReply *r)
{
    return r->type == REDIS_REPLY_STRING ? span_of(r->str, (size_t)r->len) : span_of(NULL, 0);
}

/*
 * A server: [preferred name or address, port, id, [name, value ...]]. The preferred one may be a
 * host name, if the operators want that; then the address stands behind "ip".
 */
static bool server_address(const redisReply *r, struct span said_by, char out[REDIS_ADDRESS])
{
    if (r->type != REDIS_REPLY_ARRAY || r->elements < 2 ||
        r->element[1]->type != REDIS_REPLY_INTEGER || r->element[1]->integer <= 0)
        return false;
    uint64_t port = (uint64_t)r->element[1]->integer;
    if (redis_address(text_of(r->element[0]), port, said_by, out))
        return true;
    const redisReply *more = r->elements > 3 ? r->element[3] : NULL;
    if (!more || more->type != REDIS_REPLY_ARRAY)
        return false;
    for (size_t i = 0; i + 1 < more->elements; i += 2)
        if (span_eq(text_of(more->element[i]), SPAN("ip")))
            return redis_address(text_of(more->element[i + 1]), port, said_by, out);
    return false;
}

/* [from, to, master, replica ...] */
static bool read_range(const redisReply *r, struct span said_by, redis_range_fn *each, void *arg)
{
    char address[REDIS_ADDRESS];
    if (r->type != REDIS_REPLY_ARRAY || r->elements < 3 ||
        r->element[0]->type != REDIS_REPLY_INTEGER || r->element[1]->type != REDIS_REPLY_INTEGER)
        return false;
    long long from = r->element[0]->integer, to = r->element[1]->integer;
    if (from < 0 || to < from || to >= REDIS_SLOTS)
        return false;
    if (server_address(r->element[2], said_by, address))
        each(arg, (uint16_t)from, (uint16_t)to, address);
    return true;
}

bool redis_slots_read(const struct redisReply *r, struct span said_by, redis_range_fn *each,
                      void *arg)
{
    if (r->type != REDIS_REPLY_ARRAY)
        return false;
    for (size_t i = 0; i < r->elements; i++)
        if (!read_range(r->element[i], said_by, each, arg))
            return false;
    return true;
}
