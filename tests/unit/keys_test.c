/* keys_test.c - our hashing against OpenSSL's and against values computed by another program. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <openssl/core_names.h>
#include <openssl/evp.h>

#include "keys.h"

static struct keys keys;

static int open_keys(void **state)
{
    (void)state;
    uint8_t site[32];
    for (unsigned i = 0; i < 32; i++)
        site[i] = (uint8_t)i;
    return keys_open(&keys, site);
}

static int close_keys(void **state)
{
    (void)state;
    keys_close(&keys);
    return 0;
}

static uint64_t openssl_sip(enum sip_use use, const void *p, size_t n)
{
    struct sip_key k = keys.sip[use];
    bool bulk = use <= SIP_PART;
    unsigned c = bulk ? 1 : 2, d = bulk ? 3 : 4;
    uint8_t key[16], out[8];
    for (unsigned i = 0; i < 8; i++) {
        key[i] = (uint8_t)(k.k0 >> 8 * i);
        key[8 + i] = (uint8_t)(k.k1 >> 8 * i);
    }
    size_t size = sizeof out, got = 0;
    OSSL_PARAM params[] = {OSSL_PARAM_construct_size_t(OSSL_MAC_PARAM_SIZE, &size),
                           OSSL_PARAM_construct_uint(OSSL_MAC_PARAM_C_ROUNDS, &c),
                           OSSL_PARAM_construct_uint(OSSL_MAC_PARAM_D_ROUNDS, &d),
                           OSSL_PARAM_construct_end()};
    EVP_MAC *mac = EVP_MAC_fetch(NULL, "SIPHASH", NULL);
    EVP_MAC_CTX *ctx = EVP_MAC_CTX_new(mac);
    assert_int_equal(EVP_MAC_init(ctx, key, sizeof key, params), 1);
    assert_int_equal(EVP_MAC_update(ctx, p, n), 1);
    assert_int_equal(EVP_MAC_final(ctx, out, &got, sizeof out), 1);
    EVP_MAC_CTX_free(ctx);
    EVP_MAC_free(mac);
    uint64_t h = 0;
    for (unsigned i = 0; i < 8; i++)
        h |= (uint64_t)out[i] << 8 * i;
    return h;
}

static void sip_is_openssls_siphash(void **state)
{
    (void)state;
    uint8_t data[65];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 37 + 11);
    for (enum sip_use use = SIP_WORD; use < SIP_USES; use++) {
        for (size_t n = 0; n <= 64; n++) {
            uint64_t want = openssl_sip(use, data, n);
            assert_int_equal(sip_hash(&keys, use, span_of(data, n)), want);
            for (size_t cut = 0; cut <= n; cut += use == SIP_WORD || use == SIP_EVENT ? 1 : 9) {
                struct sip s;
                sip_begin(&s, &keys, use);
                sip_add(&s, data, cut);
                assert_int_equal(sip_end(&s), sip_hash(&keys, use, span_of(data, cut)));
                sip_add(&s, data + cut, n - cut);
                assert_int_equal(sip_end(&s), want);
            }
        }
        struct sip s;
        sip_begin(&s, &keys, use);
        for (size_t i = 0; i < 64; i++)
            sip_add(&s, data + i, 1);
        assert_int_equal(sip_end(&s), openssl_sip(use, data, 64));
    }
}

static void many_short_strings_hash_like_each_one(void **state)
{
    (void)state;
    enum { N = 37, ROOM = N + SIP_LANES };
    uint8_t data[N + 16];
    uint64_t first[ROOM] = {0}, last[ROOM] = {0}, out[ROOM];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 41 + 7);
    for (size_t n = 0; n <= N; n++)
        for (int two = 0; two < 2; two++) {
            for (size_t i = 0; i < n; i++) {
                size_t rest = i % 8;
                first[i] = sip_load(data + i);
                last[i] = (two ? 8 + rest : rest) << 56;
                for (size_t j = 0; j < rest; j++)
                    last[i] |= (uint64_t)data[i + (two ? 8 : 0) + j] << 8 * j;
            }
            sip_many(&keys, SIP_WORD, two ? first : NULL, last, out, n);
            for (size_t i = 0; i < n; i++)
                assert_int_equal(
                    out[i], sip_hash(&keys, SIP_WORD, span_of(data + i, (two ? 8 : 0) + i % 8)));
        }
}

static void sip_of_a_pair_and_of_lower_case(void **state)
{
    (void)state;
    const uint8_t pair[16] = {1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 3};
    assert_int_equal(sip_pair(&keys, SIP_EVENT, 1, 2 + (UINT64_C(3) << 56)),
                     openssl_sip(SIP_EVENT, pair, 16));
    assert_int_equal(sip_lower(&keys, SIP_HOST, SPAN("Mail.EXAMPLE.org")),
                     sip_hash(&keys, SIP_HOST, SPAN("mail.example.org")));
    char upper[200], lower[200];
    memset(upper, 'A', sizeof upper);
    memset(lower, 'a', sizeof lower);
    for (size_t n = 0; n <= sizeof upper; n++)
        assert_int_equal(sip_lower(&keys, SIP_HOST, span_of(upper, n)),
                         sip_hash(&keys, SIP_HOST, span_of(lower, n)));
}

static void every_use_has_a_key_of_its_own(void **state)
{
    (void)state;
    for (int i = 0; i < SIP_USES; i++)
        for (int j = 0; j < i; j++)
            assert_true(sip_hash(&keys, (enum sip_use)i, SPAN("x")) !=
                        sip_hash(&keys, (enum sip_use)j, SPAN("x")));
    for (int i = 0; i < 3; i++)
        assert_int_equal(keys.mix[i] & 1, 1);
}

/* Values of Python's hashlib.blake2b(key=bytes(range(32)), digest_size=32), lengths included. */
static void mac_is_keyed_blake2b(void **state)
{
    (void)state;
    static const uint8_t want[32] = {0x42, 0x49, 0xef, 0x55, 0xa7, 0x68, 0x3a, 0x1f,
                                     0xb0, 0xa3, 0xfc, 0xd2, 0x48, 0x13, 0xbd, 0xb2,
                                     0xe1, 0xc1, 0x70, 0x67, 0xd5, 0x58, 0xa5, 0x02,
                                     0xe8, 0xdd, 0x33, 0x5e, 0x3c, 0x22, 0x86, 0x02};
    const struct span parts[] = {SPAN("a"), SPAN(""), SPAN("xyz")};
    for (int again = 0; again < 3; again++) { /* the context starts afresh each time */
        uint8_t out[32];
        keys_mac(&keys, "M1", parts, 3, out, sizeof out);
        assert_memory_equal(out, want, sizeof out);
        keys_mac(&keys, "other", parts, 2, out, 12);
    }
    assert_int_equal(keys.id, 0xe75fcddc);
}

static void mac_parts_do_not_run_together(void **state)
{
    (void)state;
    const struct span ab_c[] = {SPAN("ab"), SPAN("c")}, a_bc[] = {SPAN("a"), SPAN("bc")};
    uint8_t x[12], y[12];
    keys_mac(&keys, "M1", ab_c, 2, x, 12);
    keys_mac(&keys, "M1", a_bc, 2, y, 12);
    assert_memory_not_equal(x, y, 12);
    keys_mac(&keys, "M0", ab_c, 2, y, 12);
    assert_memory_not_equal(x, y, 12);
}

static void another_site_key_gives_other_hashes(void **state)
{
    (void)state;
    struct keys other;
    uint8_t site[32] = {1};
    assert_int_equal(keys_open(&other, site), 0);
    assert_true(sip_hash(&other, SIP_WORD, SPAN("x")) != sip_hash(&keys, SIP_WORD, SPAN("x")));
    assert_true(other.id != keys.id && other.mix[0] != keys.mix[0]);
    keys_close(&other);
}

static void addresses_are_hashed_in_one_form(void **state)
{
    (void)state;
    uint16_t domain, same;
    uint64_t h = keys_address(&keys, SPAN("user@a.example"), &domain);
    static const char *const equal[] = {"User@A.EXAMPLE", "<user@a.example>", " <user@a.example.> ",
                                        "user@a.example."};
    for (size_t i = 0; i < sizeof equal / sizeof *equal; i++) {
        assert_int_equal(keys_address(&keys, span_str(equal[i]), &same), h);
        assert_int_equal(same, domain);
    }
    keys_address(&keys, SPAN("else@A.example"), &same);
    assert_int_equal(same, domain);
    assert_true(keys_address(&keys, SPAN("user2@a.example"), NULL) != h);
    keys_address(&keys, SPAN(""), &same);
    keys_address(&keys, span_of(NULL, 0), NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sip_is_openssls_siphash),
        cmocka_unit_test(many_short_strings_hash_like_each_one),
        cmocka_unit_test(sip_of_a_pair_and_of_lower_case),
        cmocka_unit_test(every_use_has_a_key_of_its_own),
        cmocka_unit_test(mac_is_keyed_blake2b),
        cmocka_unit_test(mac_parts_do_not_run_together),
        cmocka_unit_test(another_site_key_gives_other_hashes),
        cmocka_unit_test(addresses_are_hashed_in_one_form),
    };
    return cmocka_run_group_tests(tests, open_keys, close_keys);
}
