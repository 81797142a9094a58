/* token_test.c - a token opens the door for one mail, one attempt, its recipients, its time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "id.h"
#include "token.h"

static const uint8_t key[32] = "the site's key, thirty-two bytes", other_key[32] = "another";
static const uint8_t sha[32] = "a message's digest of 32 bytes..", other_sha[32] = "another";
static const uint64_t rcpts[] = {7, 3, UINT64_MAX, 3};
enum { N = 4 };

static struct token made(void)
{
    struct token t = {.mail = 0x123456789abcdef, .attempt = 3, .expiry = 1138037000250};
    token_make(&t, key, sha, rcpts, N);
    return t;
}

static void good_until_it_expires(void **state)
{
    (void)state;
    struct token t = made();
    assert_true(token_good(&t, key, sha, rcpts, N, 0));
    assert_true(token_good(&t, key, sha, rcpts, N, t.expiry));
    assert_false(token_good(&t, key, sha, rcpts, N, t.expiry + 1));
}

static void bound_to_everything(void **state)
{
    (void)state;
    struct token t = made(), x;
    const uint64_t shuffled[] = {3, UINT64_MAX, 3, 7}, other[] = {7, 3, UINT64_MAX, 4};
    assert_true(token_good(&t, key, sha, shuffled, N, 0)); /* order does not matter */
    assert_false(token_good(&t, key, sha, other, N, 0));
    assert_false(token_good(&t, key, sha, rcpts, N - 1, 0)); /* one of a pair missing */
    assert_false(token_good(&t, key, sha, NULL, 0, 0));
    assert_false(token_good(&t, other_key, sha, rcpts, N, 0));
    assert_false(token_good(&t, key, other_sha, rcpts, N, 0));
    x = t, x.mail++;
    assert_false(token_good(&x, key, sha, rcpts, N, 0));
    x = t, x.attempt++;
    assert_false(token_good(&x, key, sha, rcpts, N, 0));
    x = t, x.expiry++;
    assert_false(token_good(&x, key, sha, rcpts, N, 0));
    for (size_t i = 0; i < 8 * sizeof t.mac; i++) {
        x = t, x.mac[i / 8] ^= (uint8_t)(1 << i % 8);
        assert_false(token_good(&x, key, sha, rcpts, N, 0));
    }
}

/* Doors of several nodes and versions must agree: the text is fixed. */
static void text_is_as_documented(void **state)
{
    (void)state;
    struct token t = {.mail = 1, .attempt = 2, .expiry = 3}, back;
    char text[TOKEN_TEXT], id[ID_TEXT], want[TOKEN_TEXT];
    id_print(1, id);
    snprintf(want, sizeof want, "v1; %s; 2; 3; 00000000000000000000000000000000", id);
    token_print(&t, text);
    assert_string_equal(text, want);

    t = made();
    token_print(&t, text);
    assert_true(token_parse(&back, span_str(text)));
    assert_memory_equal(&back.mac, &t.mac, sizeof t.mac);
    assert_true(token_good(&back, key, sha, rcpts, N, 0));

    t = (struct token){.mail = UINT64_MAX, .attempt = UINT32_MAX, .expiry = INT64_MAX};
    memset(t.mac, 0xff, sizeof t.mac);
    token_print(&t, text);
    assert_true(strlen(text) < TOKEN_TEXT - 1);
    assert_true(token_parse(&back, span_str(text)));
    assert_true(back.mail == t.mail && back.attempt == t.attempt && back.expiry == t.expiry);
}

static void only_that_text_is_a_token(void **state)
{
    (void)state;
#define MAC "0123456789abcdef0123456789abcdef"
#define ID "AAAAAAAAAAAAC"
    static const struct {
        const char *name, *text;
        bool good;
    } cases[] = {
        {"as printed", "v1; " ID "; 2; 3; " MAC, true},
        {"space around it, as a header leaves it", " v1; " ID "; 2; 3; " MAC "\r\n", true},
        {"zero attempt and expiry", "v1; " ID "; 0; 0; " MAC, true},
        {"largest attempt", "v1; " ID "; 4294967295; 3; " MAC, true},
        {"attempt one too large", "v1; " ID "; 4294967296; 3; " MAC, false},
        {"largest expiry", "v1; " ID "; 2; 9223372036854775807; " MAC, true},
        {"expiry one too large", "v1; " ID "; 2; 9223372036854775808; " MAC, false},
        {"expiry of 20 digits", "v1; " ID "; 2; 18446744073709551617; " MAC, false},
        {"nothing", "", false},
        {"only the version", "v1", false},
        {"another version", "v2; " ID "; 2; 3; " MAC, false},
        {"leading zero", "v1; " ID "; 02; 3; " MAC, false},
        {"a sign", "v1; " ID "; +2; 3; " MAC, false},
        {"negative expiry", "v1; " ID "; 2; -3; " MAC, false},
        {"hexadecimal", "v1; " ID "; 0x2; 3; " MAC, false},
        {"lower-case id", "v1; aaaaaaaaaaaac; 2; 3; " MAC, false},
        {"id too short", "v1; AAAAAAAAAAAA; 2; 3; " MAC, false},
        {"id with an alien letter", "v1; AAAAAAAAAAAA1; 2; 3; " MAC, false},
        {"upper-case MAC", "v1; " ID "; 2; 3; 0123456789ABCDEF0123456789abcdef", false},
        {"MAC too short", "v1; " ID "; 2; 3; 0123456789abcdef0123456789abcde", false},
        {"MAC too long", "v1; " ID "; 2; 3; " MAC "0", false},
        {"no space after a semicolon", "v1;" ID "; 2; 3; " MAC, false},
        {"two spaces", "v1; " ID ";  2; 3; " MAC, false},
        {"a part too many", "v1; " ID "; 2; 3; 4; " MAC, false},
        {"a part missing", "v1; " ID "; 2; " MAC, false},
        {"something after it", "v1; " ID "; 2; 3; " MAC "; x", false},
        {"a comment", "v1; " ID "; 2; 3; " MAC " (hi)", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct token t;
        if (token_parse(&t, span_str(cases[i].text)) != cases[i].good)
            fail_msg("%s: %s", cases[i].name, cases[i].text);
    }
    struct token t;
    assert_false(token_parse(&t, SPAN("v1; " ID "; 2; 3; 0123456789abcdef\0"
                                      "123456789abcdef")));
    static uint8_t flood[100000];
    assert_false(token_parse(&t, span_of(memset(flood, ';', sizeof flood), sizeof flood)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_until_it_expires),
        cmocka_unit_test(bound_to_everything),
        cmocka_unit_test(text_is_as_documented),
        cmocka_unit_test(only_that_text_is_a_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
