/*
 * token.c - the release header (DESIGN.md 6).
 *
 *   v1; 01JD5K3V7Q2MA; 3; 1138037000250; 9f86d081884c7d659a2feaa0c55ad015
 *
 * Only the text that token_print() would write is a token: parsing prints what it read and
 * compares. What the MAC covers has one reading only: every part is of fixed length, the recipients
 * come last, after their number.
 */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>

#include "id.h"
#include "token.h"

static const char purpose[] = "breakwater release v1"; /* its NUL goes along */

static int number_order(const void *a, const void *b)
{
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

static void token_mac(const struct token *t, const uint8_t site_key[32], const uint8_t sha256[32],
                      const uint64_t *rcpts, size_t n, uint8_t mac[16])
{
    size_t size = sizeof purpose + 3 * 8 + 32 + 8 + 8 * n;
    uint8_t *text = malloc(size), *p = text;
    uint64_t *sorted = malloc(n ? n * sizeof *sorted : 1);
    if (!text || !sorted)
        abort();
    if (n) {
        memcpy(sorted, rcpts, n * sizeof *sorted);
        qsort(sorted, n, sizeof *sorted, number_order);
    }
    memcpy(p, purpose, sizeof purpose);
    p = bytes_put(p + sizeof purpose, t->mail, 8);
    p = bytes_put(p, t->attempt, 8);
    p = bytes_put(p, (uint64_t)t->expiry, 8);
    memcpy(p, sha256, 32);
    p = bytes_put(p + 32, n, 8);
    for (size_t i = 0; i < n; i++)
        p = bytes_put(p, sorted[i], 8);

    uint8_t whole[EVP_MAX_MD_SIZE];
    if (!HMAC(EVP_sha256(), site_key, 32, text, size, whole, NULL))
        abort();
    memcpy(mac, whole, 16);
    free(sorted);
    free(text);
}

void token_make(struct token *t, const uint8_t site_key[32], const uint8_t sha256[32],
                const uint64_t *rcpts, size_t n)
{
    token_mac(t, site_key, sha256, rcpts, n, t->mac);
}

bool token_good(const struct token *t, const uint8_t site_key[32], const uint8_t sha256[32],
                const uint64_t *rcpts, size_t n, int64_t now)
{
    uint8_t mac[16];
    token_mac(t, site_key, sha256, rcpts, n, mac);
    return CRYPTO_memcmp(mac, t->mac, sizeof mac) == 0 && now <= t->expiry;
}

void token_print(const struct token *t, char out[TOKEN_TEXT])
{
    char id[ID_TEXT], mac[33];
    id_print(t->mail, id);
    hex_print(span_of(t->mac, sizeof t->mac), mac);
    snprintf(out, TOKEN_TEXT, "v1; %s; %lu; %lld; %s", id, (unsigned long)t->attempt,
             (long long)t->expiry, mac);
}

/* Up to the next "; " or the end. */
static struct span next_part(struct span *rest)
{
    size_t at = span_find(*rest, ';');
    struct span part = span_head(*rest, at);
    *rest = span_from(*rest, at + 2);
    return part;
}

static bool parse_mac(struct span s, uint8_t mac[16])
{
    if (s.n != 32)
        return false;
    for (size_t i = 0; i < 16; i++) {
        int high = byte_hex(s.p[2 * i]), low = byte_hex(s.p[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        mac[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

bool token_parse(struct token *t, struct span value)
{
    struct span whole = span_trim(value), rest = whole;
    uint64_t attempt, expiry;
    char text[TOKEN_TEXT];
    if (whole.n >= TOKEN_TEXT)
        return false;
    *t = (struct token){0};
    next_part(&rest); /* "v1", compared below */
    if (!id_parse(&t->mail, next_part(&rest)) ||
        !span_number(next_part(&rest), UINT32_MAX, &attempt) ||
        !span_number(next_part(&rest), INT64_MAX, &expiry) || !parse_mac(rest, t->mac))
        return false;
    t->attempt = (uint32_t)attempt;
    t->expiry = (int64_t)expiry;
    token_print(t, text);
    return span_eq(whole, span_str(text));
}
