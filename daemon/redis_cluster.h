/*
 * redis_cluster.h - which of the 16384 slots of a Redis Cluster a key is in, and what its servers
 * say about where slots are (redis.io, "Redis cluster specification").
 *
 * Nothing here asks anybody; bytes that make no sense are refused.
 */
#ifndef REDIS_CLUSTER_H
#define REDIS_CLUSTER_H

#include "span.h"

struct redisReply;

enum { REDIS_SLOTS = 16384, REDIS_ADDRESS = 128 };

/* By CRC16 of the key, or of what its first {} holds, if that is not empty. */
uint16_t redis_slot(struct span key);

/* "[::1]:6379" of "::1" and 6379; without a host that of the server which said so
 * ("10.0.0.1:7000"). false: no address. */
bool redis_address(struct span host, uint64_t port, struct span said_by, char out[REDIS_ADDRESS]);

struct redis_redirection {
    uint16_t slot;
    char address[REDIS_ADDRESS];
};
/* Reads "MOVED 3999 127.0.0.1:6381" or "ASK ...". */
bool redis_redirection(struct span error, struct span said_by, struct redis_redirection *);

/* Tells the address of the master of each range of slots, from the reply to CLUSTER SLOTS. false:
 * this is none; some ranges may have been told. */
typedef void redis_range_fn(void *arg, uint16_t from, uint16_t to, const char *address);
bool redis_slots_read(const struct redisReply *, struct span said_by, redis_range_fn *, void *arg);

#endif
