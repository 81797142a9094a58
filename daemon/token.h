/*
 * token.h - the release header: lets one released mail pass our doors once (DESIGN.md 6).
 *
 *   X-Breakwater-Release: v1; MAIL; ATTEMPT; EXPIRY; MAC
 * MAC = HMAC-SHA256(site key, "release" v1 mail attempt expiry sha256 recipients), 32 hex digits.
 */
#ifndef TOKEN_H
#define TOKEN_H

#include "span.h"

#define TOKEN_FIELD "X-Breakwater-Release"
enum { TOKEN_TEXT = 128 };
struct token {
    uint64_t mail;
    uint32_t attempt;
    int64_t expiry; /* ms */
    uint8_t mac[16];
};
/* rcpts: keyed hashes of the recipients of this attempt, in any order (sorted inside). */
void token_make(struct token *, const uint8_t site_key[32], const uint8_t sha256[32],
                const uint64_t *rcpts, size_t n);
bool token_good(const struct token *, const uint8_t site_key[32], const uint8_t sha256[32],
                const uint64_t *rcpts, size_t n, int64_t now);
void token_print(const struct token *, char out[TOKEN_TEXT]);
bool token_parse(struct token *, struct span value);

#endif
