/*
 * keys.h - keyed hashing (detection.md 2.1). Nothing that strangers choose is ever hashed unkeyed.
 *
 * Identities (K, and the aliases to come) are BLAKE2b MACs through OpenSSL, 96 bits. Everything on
 * the hot path (words, hops, recipients, hosts) is SipHash-2-4, inline, 64 bits, with keys derived
 * from the site key; each purpose has a key of its own, so that equal bytes in different roles do
 * not hash alike. This choice is persisted in records and cannot change.
 */
#ifndef KEYS_H
#define KEYS_H

#include "span.h"

enum sip_use {
    SIP_WORD,    /* words of the text */
    SIP_TEXT,    /* F: the sequence of word hashes */
    SIP_RAW,     /* F_raw: relaxed body */
    SIP_PART,    /* attachment digests */
    SIP_EVENT,   /* Received lines; path prefixes */
    SIP_HOST,    /* servers, hosts, organisations */
    SIP_ADDRESS, /* recipients and visible addresses, domains */
    SIP_MISC,    /* list ids, tallies, hash tables */
    SIP_USES     /* must be last */
};

struct sip_key {
    uint64_t k0, k1;
};

/* One per thread: holds a MAC context that is not shared. */
struct keys {
    uint8_t site[32];
    uint32_t id; /* first 4 bytes of MAC("id"): goes with persisted records */
    struct sip_key sip[SIP_USES];
    uint64_t mix[3]; /* odd secret multipliers that make a shingle of three word hashes */
    void *mac;       /* EVP_MAC_CTX, keyed */
};

/* Derives everything from the 32-byte site key. 0, or -1 if OpenSSL has no BLAKE2b MAC. */
int keys_open(struct keys *, const uint8_t site[32]) MUSTCHECK;
void keys_close(struct keys *);

/* BLAKE2b MAC over tag and parts, each with a 4-byte little-endian length; n <= 32 bytes to out. */
void keys_mac(const struct keys *, const char *tag, const struct span *parts, size_t nparts,
              uint8_t *out, size_t n);

/* One-shot SipHash-2-4 of a span. */
uint64_t sip_hash(const struct keys *, enum sip_use, struct span);
/* The same over ASCII-lower-cased bytes. */
uint64_t sip_lower(const struct keys *, enum sip_use, struct span);
/* SipHash-2-4 of two words: for chains (id_i = Sip(id_{i-1} || event_i)). */
uint64_t sip_pair(const struct keys *, enum sip_use, uint64_t a, uint64_t b);

/* Streaming SipHash-2-4. */
struct sip {
    uint64_t v0, v1, v2, v3, tail;
    uint64_t len;
};
void sip_begin(struct sip *, const struct keys *, enum sip_use);
void sip_add(struct sip *, const void *, size_t);
uint64_t sip_end(const struct sip *); /* may be asked in mid-stream */

/* Keyed hash of an address normalised as local@domain in ASCII lower case; domain16 may be NULL. */
uint64_t keys_address(const struct keys *, struct span address, uint16_t *domain16);

#endif
