/*
 * keys.c - everything secret is derived here from the one site key.
 *
 *   MAC(tag, parts...) = BLAKE2b-256(key = site key; len32(tag) tag len32(part) part ...)
 *   id  = MAC("id")                   4 bytes
 *   sip = MAC("sip", len32 use)      16 bytes for each use
 *   mix = MAC("mix")                 three words, made odd
 *
 * All of it is persisted in what it hashes: it cannot change without a new key id.
 */
#include <assert.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <stdlib.h>

#include "keys.h"

enum { MAC_SIZE = 32 };

/* A BLAKE2b MAC context keyed with the site key, or NULL. */
static EVP_MAC_CTX *mac_keyed(const uint8_t site[32])
{
    EVP_MAC *mac = EVP_MAC_fetch(NULL, "BLAKE2BMAC", NULL);
    EVP_MAC_CTX *ctx = mac ? EVP_MAC_CTX_new(mac) : NULL;
    EVP_MAC_free(mac); /* the context holds a reference of its own */
    if (ctx == NULL)
        return NULL;
    size_t size = MAC_SIZE;
    OSSL_PARAM params[] = {OSSL_PARAM_construct_size_t(OSSL_MAC_PARAM_SIZE, &size),
                           OSSL_PARAM_construct_end()};
    if (EVP_MAC_init(ctx, site, 32, params) == 1)
        return ctx;
    EVP_MAC_CTX_free(ctx);
    return NULL;
}

static void store32(uint8_t out[4], uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        out[i] = (uint8_t)(v >> 8 * i);
}

static void mac_part(EVP_MAC_CTX *ctx, struct span part)
{
    uint8_t length[4];
    assert(part.n <= UINT32_MAX);
    store32(length, (uint32_t)part.n);
    if (EVP_MAC_update(ctx, length, 4) != 1 || (part.n && EVP_MAC_update(ctx, part.p, part.n) != 1))
        abort();
}

void keys_mac(const struct keys *k, const char *tag, const struct span *parts, size_t nparts,
              uint8_t *out, size_t n)
{
    assert(n <= MAC_SIZE);
    EVP_MAC_CTX *ctx = k->mac;
    /* Without a key argument OpenSSL 3 starts again with the key it has (blake2_mac_init). */
    if (EVP_MAC_init(ctx, NULL, 0, NULL) != 1)
        abort();
    mac_part(ctx, span_str(tag));
    for (size_t i = 0; i < nparts; i++)
        mac_part(ctx, parts[i]);
    uint8_t full[MAC_SIZE];
    size_t got;
    if (EVP_MAC_final(ctx, full, &got, sizeof full) != 1 || got != sizeof full)
        abort();
    memcpy(out, full, n);
}

int keys_open(struct keys *k, const uint8_t site[32])
{
    memset(k, 0, sizeof *k);
    memcpy(k->site, site, sizeof k->site);
    k->mac = mac_keyed(site);
    if (k->mac == NULL)
        return -1;
    uint8_t out[24];
    keys_mac(k, "id", NULL, 0, out, 4);
    k->id = (uint32_t)(out[0] | out[1] << 8 | out[2] << 16) | (uint32_t)out[3] << 24;
    for (uint32_t use = 0; use < SIP_USES; use++) {
        uint8_t number[4];
        store32(number, use);
        struct span part = span_of(number, 4);
        keys_mac(k, "sip", &part, 1, out, 16);
        k->sip[use] = (struct sip_key){sip_load(out), sip_load(out + 8)};
    }
    keys_mac(k, "mix", NULL, 0, out, 24);
    for (unsigned i = 0; i < 3; i++)
        k->mix[i] = sip_load(out + (size_t)8 * i) | 1;
    return 0;
}

void keys_close(struct keys *k)
{
    EVP_MAC_CTX_free(k->mac);
    memset(k, 0, sizeof *k);
}

void sip_add(struct sip *to, const void *data, size_t n)
{
    const uint8_t *p = data;
    struct sip s = *to; /* in registers, not in memory */
    unsigned have = (unsigned)(s.len & 7);
    s.len += n;
    for (; have && n; n--, p++) {
        s.tail |= (uint64_t)*p << 8 * have;
        have = (have + 1) & 7;
        if (have == 0) {
            sip_word(&s, s.tail);
            s.tail = 0;
        }
    }
    for (; n >= 8; n -= 8, p += 8)
        sip_word(&s, sip_load(p));
    for (; n; n--, p++, have++)
        s.tail |= (uint64_t)*p << 8 * have;
    *to = s;
}

#if defined(__x86_64__) && !defined(BREAKWATER_PLAIN)
typedef uint64_t lanes __attribute__((vector_size(8 * SIP_LANES)));
#define LANES(x)                                                                                   \
    {                                                                                              \
        x, x, x, x                                                                                 \
    }

/* SIP_LANES strings at once; becomes code for whatever processor the caller is compiled for. */
static inline __attribute__((always_inline)) void
many(struct sip_key key, const uint64_t *first, const uint64_t *last, uint64_t *out, size_t n)
{
    const struct sip begin = sip_keyed(key, true);
    for (size_t at = 0; at < n; at += SIP_LANES) {
        lanes v0 = LANES(begin.v0), v1 = LANES(begin.v1), v2 = LANES(begin.v2),
              v3 = LANES(begin.v3), w;
        if (first) {
            memcpy(&w, first + at, sizeof w);
            v3 ^= w;
            SIP_ROUND(v0, v1, v2, v3);
            v0 ^= w;
        }
        memcpy(&w, last + at, sizeof w);
        v3 ^= w;
        SIP_ROUND(v0, v1, v2, v3);
        v0 ^= w;
        v2 ^= 0xff;
        SIP_ROUND(v0, v1, v2, v3);
        SIP_ROUND(v0, v1, v2, v3);
        SIP_ROUND(v0, v1, v2, v3);
        w = v0 ^ v1 ^ v2 ^ v3;
        memcpy(out + at, &w, sizeof w);
    }
}

__attribute__((target("avx2"))) static void many_avx2(struct sip_key key, const uint64_t *first,
                                                      const uint64_t *last, uint64_t *out, size_t n)
{
    many(key, first, last, out, n);
}

__attribute__((target("avx512vl"))) static void many_avx512(struct sip_key key,
                                                            const uint64_t *first,
                                                            const uint64_t *last, uint64_t *out,
                                                            size_t n)
{
    many(key, first, last, out, n);
}
#undef LANES
#endif

void sip_many(const struct keys *k, enum sip_use use, const uint64_t *first, const uint64_t *last,
              uint64_t *out, size_t n)
{
    assert(use <= SIP_PART);
#if defined(__x86_64__) && !defined(BREAKWATER_PLAIN)
    if (__builtin_cpu_supports("avx512vl")) {
        many_avx512(k->sip[use], first, last, out, n);
        return;
    }
    if (__builtin_cpu_supports("avx2")) {
        many_avx2(k->sip[use], first, last, out, n);
        return;
    }
#endif
    for (size_t i = 0; i < n; i++) {
        struct sip s;
        sip_begin(&s, k, use);
        if (first)
            sip_word(&s, first[i]);
        out[i] = sip_finish(s, last[i], 0);
    }
}

uint64_t sip_lower(const struct keys *k, enum sip_use use, struct span data)
{
    struct sip s;
    sip_begin(&s, k, use);
    uint8_t piece[64];
    for (size_t at = 0; at < data.n;) {
        size_t n = 0;
        for (; n < sizeof piece && at < data.n; n++, at++)
            piece[n] = byte_lower(data.p[at]);
        sip_add(&s, piece, n);
    }
    return sip_end(&s);
}

uint64_t keys_address(const struct keys *k, struct span address, uint16_t *domain16)
{
    address = span_trim(address);
    if (address.n >= 2 && address.p[0] == '<' && address.p[address.n - 1] == '>')
        address = span_trim(span_of(address.p + 1, address.n - 2));
    if (address.n && address.p[address.n - 1] == '.')
        address.n--;
    if (domain16) {
        struct span domain = span_from(address, span_rfind(address, '@') + 1);
        *domain16 = (uint16_t)sip_lower(k, SIP_ADDRESS, domain);
    }
    return sip_lower(k, SIP_ADDRESS, address);
}
