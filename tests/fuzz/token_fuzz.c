/* token_fuzz.c - whatever parses prints back as itself, and is not good. */
#include <stdlib.h>

#include "token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t key[32] = "a key the fuzzer has not", sha[32] = "a digest";
    static const uint64_t rcpts[] = {1, 2};
    struct token t;
    char text[TOKEN_TEXT];
    if (!token_parse(&t, span_of(data, size)))
        return 0;
    token_print(&t, text);
    if (!span_eq(span_trim(span_of(data, size)), span_str(text)))
        abort();
    if (t.expiry < 0 || token_good(&t, key, sha, rcpts, 2, 0))
        abort();
    return 0;
}
