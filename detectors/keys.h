/*
 * keys.h - keyed hashing (detection.md 2.1). Nothing that strangers choose is ever hashed unkeyed.
 *
 * Identities (K, and the aliases to come) are BLAKE2b MACs through OpenSSL, 96 bits. Everything on
 * the hot path is SipHash, inline, 64 bits, with keys derived from the site key; each use has a key
 * of its own, so that equal bytes in different roles do not hash alike:
 *
 *   SipHash-1-3  the text and bytes of bodies: words, F, F_raw, attachments. Many bytes, and no
 *                hash of them is ever shown to anybody: all a stranger can aim at are collisions,
 *                for which no better way than guessing is known (Aumasson gave 1-3 for just this;
 *                Rust and Ruby hash their tables with it). Twice as fast.
 *   SipHash-2-4  all else: few bytes, and what names a recipient, a host, an event
 *
 * This choice is persisted in records and cannot change.
 */
#ifndef KEYS_H
#define KEYS_H

#include "span.h"

enum sip_use {
    SIP_WORD,    /* words of the text */
    SIP_TEXT,    /* F: the sequence of word hashes */
    SIP_RAW,     /* F_raw: relaxed body */
    SIP_PART,    /* attachment digests; the last one with SipHash-1-3 */
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

/* BLAKE2b-256 MAC over tag and parts, each after its 4-byte little-endian length; the first n <= 32
 * bytes of it go to out. The context is changed and put back: keys are const, but one thread's. */
void keys_mac(const struct keys *, const char *tag, const struct span *parts, size_t nparts,
              uint8_t *out, size_t n);

/* SipHash (Aumasson and Bernstein, 2012), streaming. */
struct sip {
    uint64_t v0, v1, v2, v3, tail;
    uint64_t len;
    bool bulk; /* SipHash-1-3 */
};

static inline uint64_t sip_load(const uint8_t *p)
{
    uint64_t w;
    memcpy(&w, p, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    w = __builtin_bswap64(w);
#endif
    return w;
}

/* One round on four words, or on four vectors of them. */
#define SIP_ROTATE(x, by) ((x) << (by) | (x) >> (64 - (by)))
#define SIP_ROUND(v0, v1, v2, v3)                                                                  \
    do {                                                                                           \
        v0 += v1;                                                                                  \
        v2 += v3;                                                                                  \
        v1 = SIP_ROTATE(v1, 13) ^ v0;                                                              \
        v3 = SIP_ROTATE(v3, 16) ^ v2;                                                              \
        v0 = SIP_ROTATE(v0, 32);                                                                   \
        v2 += v1;                                                                                  \
        v0 += v3;                                                                                  \
        v1 = SIP_ROTATE(v1, 17) ^ v2;                                                              \
        v3 = SIP_ROTATE(v3, 21) ^ v0;                                                              \
        v2 = SIP_ROTATE(v2, 32);                                                                   \
    } while (0)

static inline void sip_round(struct sip *s)
{
    SIP_ROUND(s->v0, s->v1, s->v2, s->v3);
}

/* Eight bytes as one little-endian word. */
static inline void sip_word(struct sip *s, uint64_t w)
{
    s->v3 ^= w;
    sip_round(s);
    if (!s->bulk)
        sip_round(s);
    s->v0 ^= w;
}

static inline struct sip sip_keyed(struct sip_key k, bool bulk)
{
    return (struct sip){.v0 = k.k0 ^ UINT64_C(0x736f6d6570736575),
                        .v1 = k.k1 ^ UINT64_C(0x646f72616e646f6d),
                        .v2 = k.k0 ^ UINT64_C(0x6c7967656e657261),
                        .v3 = k.k1 ^ UINT64_C(0x7465646279746573),
                        .bulk = bulk};
}

/* tail: the last len % 8 bytes, little-endian. */
static inline uint64_t sip_finish(struct sip s, uint64_t tail, uint64_t len)
{
    sip_word(&s, tail | len << 56);
    s.v2 ^= 0xff;
    sip_round(&s);
    sip_round(&s);
    sip_round(&s);
    if (!s.bulk)
        sip_round(&s);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

static inline void sip_begin(struct sip *s, const struct keys *k, enum sip_use use)
{
    *s = sip_keyed(k->sip[use], use <= SIP_PART);
}

void sip_add(struct sip *, const void *, size_t);

/* May be asked in mid-stream; the stream goes on afterwards. */
static inline uint64_t sip_end(const struct sip *s)
{
    return sip_finish(*s, s->tail, s->len);
}

/* One-shot SipHash of a span. */
static inline uint64_t sip_hash(const struct keys *k, enum sip_use use, struct span data)
{
    struct sip s;
    sip_begin(&s, k, use);
    size_t at = 0, whole = data.n & ~(size_t)7;
    for (; at < whole; at += 8)
        sip_word(&s, sip_load(data.p + at));
    uint64_t tail = 0;
    for (unsigned shift = 0; at < data.n; at++, shift += 8)
        tail |= (uint64_t)data.p[at] << shift;
    return sip_finish(s, tail, data.n);
}

/* SipHash-1-3 of n short strings of the same use, side by side. Of string i last[i] is what is left
 * after its whole words, with its length in the top byte; first[i] is the one whole word before
 * that, or first is NULL: none. out may be last. n is rounded up to a multiple of SIP_LANES: there
 * has to be room. */
enum { SIP_LANES = 4 };
void sip_many(const struct keys *, enum sip_use, const uint64_t *first, const uint64_t *last,
              uint64_t *out, size_t n);

/* The same over ASCII-lower-cased bytes. */
uint64_t sip_lower(const struct keys *, enum sip_use, struct span);

/* SipHash of two words: for chains (id_i = Sip(id_{i-1} || event_i)). */
static inline uint64_t sip_pair(const struct keys *k, enum sip_use use, uint64_t a, uint64_t b)
{
    struct sip s;
    sip_begin(&s, k, use);
    sip_word(&s, a);
    sip_word(&s, b);
    return sip_finish(s, 0, 16);
}

/* Keyed hash of an address (without or with <>) normalised as local@domain in ASCII lower case,
 * without a final dot; domain16: 16 bits of the hash of its domain, may be NULL. */
uint64_t keys_address(const struct keys *, struct span address, uint16_t *domain16);

#endif
