/*
 * smtp_tls_test.c - TLS on both sides of the SMTP door, AUTH under it, and the PROXY header. The
 * certificate is made here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "smtp_stage.h"

#include "outbound.h"

static char dir[] = "/tmp/smtp_tls_test.XXXXXX";
static struct tls *behind; /* the MTA's */
static SSL_CTX *ours;      /* the client's */

static char *path(const char *name)
{
    static char out[8][128];
    static unsigned turn;
    char *p = out[turn++ % 8];
    snprintf(p, sizeof out[0], "%s/%s", dir, name);
    return p;
}

/* A certificate that signs itself, and its key. */
static void make_certificate(const char *name, const char *cert, const char *key)
{
    EVP_PKEY *pkey = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    X509V3_CTX ctx;
    char alt[128];
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_set_version(x, 2);
    X509_gmtime_adj(X509_getm_notBefore(x), -60);
    X509_gmtime_adj(X509_getm_notAfter(x), 3600);
    X509_set_pubkey(x, pkey);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                               (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(x));
    X509V3_set_ctx(&ctx, x, x, NULL, NULL, 0);
    snprintf(alt, sizeof alt, "DNS:%s", name);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, NID_subject_alt_name, alt);
    X509_add_ext(x, e, -1);
    X509_EXTENSION_free(e);
    assert_true(X509_sign(x, pkey, EVP_sha256()) > 0);
    FILE *f = fopen(path(cert), "w");
    assert_non_null(f);
    PEM_write_X509(f, x);
    fclose(f);
    f = fopen(path(key), "w");
    assert_non_null(f);
    PEM_write_PrivateKey(f, pkey, NULL, NULL, 0, NULL, NULL);
    fclose(f);
    X509_free(x);
    EVP_PKEY_free(pkey);
}

static int setup(void **state)
{
    char text[4096], error[512];
    (void)state;
    if (!mkdtemp(dir))
        return -1;
    make_certificate("gw.example", "our.pem", "our.key");
    make_certificate("behind.example", "their.pem", "their.key");
    struct tls_settings theirs = {.cert = path("their.pem"), .key = path("their.key")};
    behind = tls_server_new(&theirs, error);
    ours = SSL_CTX_new(TLS_client_method());
    if (!behind || !ours)
        return -1;
#define DOWN "socket = \"inet:1@127.0.0.1\" downstream = %% "
    snprintf(text, sizeof text,
             "smtp tls { " DOWN "certificate = \"%s\" key = \"%s\" }\n"
             "smtp implicit { " DOWN "certificate = \"%s\" key = \"%s\" implicit = yes }\n"
             "smtp may { " DOWN "downstream_tls = may }\n"
             "smtp must { " DOWN "downstream_tls = must }\n"
             "smtp known { " DOWN "downstream_tls = must downstream_ca = \"%s\" "
             "downstream_name = behind.example }\n"
             "smtp other { " DOWN "downstream_tls = must downstream_ca = \"%s\" "
             "downstream_name = gw.example }\n"
             "smtp unknown { " DOWN "downstream_tls = must downstream_ca = \"%s\" }\n"
             "smtp proxied { " DOWN "proxy_protocol = yes upstreams = { 192.0.2.0/24 } }\n"
             "smtp tells1 { " DOWN "downstream_proxy = 1 }\n",
             path("our.pem"), path("our.key"), path("our.pem"), path("our.key"), path("their.pem"),
             path("their.pem"), path("our.pem"));
    world_open(&world, text);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    static const char *const files[] = {"our.pem", "our.key", "their.pem", "their.key"};
    world_close(&world);
    tls_drop(&behind);
    SSL_CTX_free(ours);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        unlink(path(files[i]));
    return rmdir(dir);
}

/* ---- a client that speaks TLS ---- */

static SSL *ssl;

static bool shake(int most)
{
    ssl = SSL_new(ours);
    SSL_set_max_proto_version(ssl, most);
    if (most < TLS1_2_VERSION) {
        SSL_set_min_proto_version(ssl, most);
        SSL_set_security_level(ssl, 0);
        SSL_set_cipher_list(ssl, "ALL:@SECLEVEL=0");
    }
    SSL_set_fd(ssl, client.fd);
    SSL_set_connect_state(ssl);
    int flags = fcntl(client.fd, F_GETFL);
    (void)fcntl(client.fd, F_SETFL, flags | O_NONBLOCK);
    for (int i = 0; i < 50; i++) {
        ERR_clear_error();
        if (SSL_do_handshake(ssl) == 1)
            return true;
        for (int k = 0; k < 5; k++)
            event_base_loop(world.worker.base, EVLOOP_NONBLOCK);
    }
    return false;
}

/* Says it under TLS; returns all that came back, as codes. */
static const char *tls_say(const char *text)
{
    client.nsaid = 0;
    client.said[0] = 0;
    if (*text)
        (void)SSL_write(ssl, text, (int)strlen(text));
    for (int i = 0; i < 30; i++) {
        event_base_loop(world.worker.base, EVLOOP_NONBLOCK);
        int n =
            SSL_read(ssl, client.said + client.nsaid, (int)(sizeof client.said - 1 - client.nsaid));
        if (n > 0)
            client.nsaid += (size_t)n, i = 0;
        client.said[client.nsaid] = 0;
    }
    ERR_clear_error();
    return client_codes(&client);
}

static void tls_end(void)
{
    SSL_free(ssl);
    ssl = NULL;
    client_close(&client);
}

#define E "EHLO c.example\r\n"

static void a_message_under_tls(void **state)
{
    (void)state;
    open_client("tls");
    client_say(&client, E);
    assert_non_null(strstr(client.said, "250-STARTTLS\r\n"));
    client_say(&client, "STARTTLS\r\n");
    codes_are("220 250 220");
    assert_true(shake(TLS1_3_VERSION));
    assert_string_equal(tls_say("MAIL FROM:<a@b>\r\n"), "503"); /* A127: EHLO again */
    assert_string_equal(tls_say(E), "250");
    assert_null(strstr(client.said, "STARTTLS"));
    assert_string_equal(tls_say("STARTTLS\r\n"), "503"); /* A122 */
    assert_string_equal(tls_say("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"), "250 250 354");
    assert_string_equal(tls_say("x\r\n.\r\nQUIT\r\n"), "250 221");
    assert_int_equal(world.mta.messages, 1);
    tls_end();
}

/* Words that have to wait: they are taken up to a point, cost no work meanwhile (the loop comes to
 * rest), and are obeyed in the end, to the last that came. */
static void who_says_more_than_is_obeyed_yet(void **state)
{
    (void)state;
    static const size_t sizes[] = {1000, 70000, 400000};
    static char all[400000];
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        fresh(NULL);
        verdict.wait = true;
        open_client("implicit");
        assert_true(shake(TLS1_3_VERSION));
        tls_say(E "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
        tls_say("x\r\n.\r\n");
        memset(all, 'x', sizes[i]);
        for (size_t k = 99; k < sizes[i]; k += 100)
            memcpy(all + k - 1, "\r\n", 2);
        SSL_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        size_t said = 0;
        for (int idle = 0; idle < 20 && said < sizes[i]; idle++) {
            int n = SSL_write(ssl, all + said, (int)(sizes[i] - said));
            said += n > 0 ? (size_t)n : 0;
            idle = n > 0 ? 0 : idle;
            event_base_loop(world.worker.base, EVLOOP_NONBLOCK);
        }
        assert_int_equal(said == sizes[i], sizes[i] < 200000);
        waiting->done(waiting->arg, waiting);
        const char *codes = tls_say("");
        if (i == 0)
            assert_string_equal(codes, "250 502 502 502 502 502 502 502 502 502 502");
        else
            assert_memory_equal(codes, "250 502 502 502", 15);
        assert_int_equal(strstr(codes, "421") != NULL, i > 0); /* twenty are enough */
        tls_end();
    }
}

static void tls_from_the_first_byte(void **state)
{
    (void)state;
    open_client("implicit");
    codes_are("");
    assert_true(shake(TLS1_2_VERSION));
    assert_string_equal(tls_say(""), "220");
    assert_string_equal(tls_say(E "QUIT\r\n"), "250 221");
    tls_end();
}

static void a120_what_follows_starttls_in_the_clear_is_not_obeyed(void **state)
{
    (void)state;
    open_client("tls");
    client_say(&client, E "STARTTLS\r\nEHLO x\r\nMAIL FROM:<evil@x>\r\n");
    codes_are("220 250 220");
    assert_true(shake(TLS1_3_VERSION));
    assert_string_equal(tls_say(""), "");
    assert_string_equal(tls_say("RCPT TO:<c@d>\r\n"), "503");
    assert_null(strstr(world.mta.heard, "evil"));
    tls_end();
}

static void a123_starttls_in_mid_message(void **state)
{
    (void)state;
    open_client("tls");
    client_say(&client, E "MAIL FROM:<a@b>\r\nSTARTTLS\r\n");
    codes_are("220 250 250 503");
    client_close(&client);
}

static void a125_old_versions_are_refused(void **state)
{
    (void)state;
    open_client("tls");
    client_say(&client, E "STARTTLS\r\n");
    assert_false(shake(TLS1_1_VERSION));
    client_turn(&client);
    assert_true(client.closed);
    tls_end();
}

static void a124_a_handshake_that_does_not_go_on(void **state)
{
    (void)state;
    static const struct {
        const char *listener, *say;
        size_t n;
        const char *codes;
    } stalls[] = {{"tls", SAY(E "STARTTLS\r\n"), "220 250 220"},
                  {"implicit", SAY(""), ""},
                  {"implicit", SAY("\x16\x03\x01\x02\x00\x01\x00"), ""}};
    for (size_t i = 0; i < sizeof stalls / sizeof *stalls; i++) {
        fresh(NULL);
        open_client(stalls[i].listener);
        client_send(&client, stalls[i].say, stalls[i].n);
        codes_are(stalls[i].codes);
        pass(30 * 1000 - 10);
        assert_false(client.closed);
        pass(20);
        assert_true(client.closed);
        assert_int_equal(world.worker.sessions, 0);
        client_close(&client);
    }
}

/* A ClientHello as OpenSSL would not make it: TLS 1.2, one cipher, a name of so many bytes. */
static size_t make_hello(uint8_t out[1024], unsigned cipher, size_t name)
{
    static const uint8_t rest[] = {0, 10, 0, 4, 0, 2, 0, 23, /* P-256 */
                                   0, 13, 0, 4, 0, 2, 4, 3,  /* ECDSA with SHA-256 */
                                   0, 11, 0, 2, 1, 0};       /* uncompressed points */
    size_t n = 9, length = name ? name + 9 + sizeof rest : sizeof rest;
    const uint8_t head[] = {3, 3};
    memcpy(out + n, head, 2), n += 2;
    memset(out + n, 7, 32), n += 32; /* random */
    out[n++] = 0;                    /* no session */
    out[n++] = 0, out[n++] = 2, out[n++] = (uint8_t)(cipher >> 8), out[n++] = (uint8_t)cipher;
    out[n++] = 1, out[n++] = 0; /* no compression */
    out[n++] = (uint8_t)(length >> 8), out[n++] = (uint8_t)length;
    for (size_t k = name ? name + 5 : 0, i = 0; name && i < 3; i++, k -= i == 1 ? 2 : 3) {
        if (i == 0)
            out[n++] = 0, out[n++] = 0; /* server_name */
        if (i == 2)
            out[n++] = 0; /* a host's */
        out[n++] = (uint8_t)(k >> 8), out[n++] = (uint8_t)k;
    }
    memset(out + n, 'a', name), n += name;
    memcpy(out + n, rest, sizeof rest), n += sizeof rest;
    const uint8_t record[] = {22,
                              3,
                              1,
                              (uint8_t)((n - 5) >> 8),
                              (uint8_t)(n - 5),
                              1,
                              0,
                              (uint8_t)((n - 9) >> 8),
                              (uint8_t)(n - 9)};
    memcpy(out, record, sizeof record);
    return n;
}

static void a125_odd_hellos(void **state)
{
    (void)state;
    static const struct {
        unsigned cipher;
        size_t name;
        bool good;
    } hellos[] = {{0xc02b, 0, true},    {0xc02b, 10, true},   {0xc02b, 255, true},
                  {0xc02b, 256, false}, {0xc02b, 300, false}, {0x0001, 10, false},
                  {0x0005, 10, false}};
    for (size_t i = 0; i < sizeof hellos / sizeof *hellos; i++)
        for (int split = 0; split < 2; split++) {
            uint8_t hello[1024];
            size_t n = make_hello(hello, hellos[i].cipher, hellos[i].name);
            fresh(NULL);
            open_client("implicit");
            for (size_t k = 0; split && k < n; k++)
                client_send(&client, hello + k, 1);
            if (!split)
                client_send(&client, hello, n);
            if (client.closed == hellos[i].good || (hellos[i].good && client.said[0] != 22))
                fail_msg("cipher %x, name %zu: %d bytes, closed %d", hellos[i].cipher,
                         hellos[i].name, (int)client.nsaid, client.closed);
            client_close(&client);
        }
}

static void a125_renegotiation_is_refused(void **state)
{
    (void)state;
    open_client("implicit");
    assert_true(shake(TLS1_2_VERSION));
    assert_string_equal(tls_say(E), "220 250");
    for (int i = 0; i < 1000; i++) {
        if (SSL_renegotiate(ssl) != 1 || SSL_do_handshake(ssl) != 1) {
            ERR_clear_error();
            event_base_loop(world.worker.base, EVLOOP_NONBLOCK);
        }
        assert_int_equal(SSL_num_renegotiations(ssl) > 0 && SSL_in_init(ssl) == 0, 0);
    }
    tls_end();
    assert_int_equal(world.worker.sessions, 0);
}

static void a128_garbage_for_a_handshake(void **state)
{
    (void)state;
    open_client("implicit");
    client_say(&client, "EHLO x\r\nMAIL FROM:<a@b>\r\n");
    assert_true(client.closed);
    client_close(&client);
}

static void a129_a_message_cut_off_under_tls(void **state)
{
    (void)state;
    open_client("implicit");
    assert_true(shake(TLS1_3_VERSION));
    tls_say(E "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
    tls_say("Subject: x\r\n\r\nhalf");
    assert_int_equal(living, 1);
    tls_end();
    assert_int_equal(world.mta.messages, 0);
}

/* ---- AUTH ---- */

static void auth_is_relayed_under_tls(void **state)
{
    (void)state;
    world.mta.offers = "PIPELINING\nAUTH PLAIN LOGIN NTLM GSSAPI\n";
    open_client("tls");
    client_say(&client, E "AUTH PLAIN AGFubmEAYg==\r\n");
    codes_are("220 250 502");
    client_say(&client, "STARTTLS\r\n");
    assert_true(shake(TLS1_3_VERSION));
    tls_say(E);
    assert_non_null(strstr(client.said, "250-AUTH PLAIN LOGIN\r\n"));
    assert_string_equal(tls_say("AUTH NTLM\r\n"), "504");
    assert_string_equal(tls_say("AUTH LOGIN\r\n"), "334");
    assert_string_equal(tls_say("*\r\n"), "501"); /* A056 */
    assert_string_equal(tls_say("AUTH LOGIN\r\n"), "334");
    assert_string_equal(tls_say("a\rRSET\r\n"), "501");
    assert_null(strstr(world.mta.heard, "RSET"));
    assert_string_equal(tls_say("AUTH PLAIN AGFubmEAYg==\r\n"), "235");
    assert_string_equal(tls_say("AUTH PLAIN AGFubmEAYg==\r\n"), "503"); /* A058 */
    assert_string_equal(tls_say("MAIL FROM:<a@b> AUTH=<>\r\n"), "250");
    assert_string_equal(tls_say("AUTH PLAIN AGFubmEAYg==\r\n"), "503"); /* A057 */
    assert_non_null(strstr(story, "c.example) auth(anna)"));
    mta_end(world.mta.sessions); /* who it was is lost with it */
    assert_string_equal(tls_say(""), "421");
    tls_end();
}

/* Wherever it is lost: no later message goes under another name, and none is said again. */
static void who_is_logged_in_begins_anew_when_the_server_behind_is_lost(void **state)
{
    (void)state;
    static const struct {
        const char *at;
        unsigned nth;
        const char *say, *codes; /* the last command, and what comes of it */
    } kinds[] = {
        {"MAIL", 1, "MAIL FROM:<a@b>\r\n", "451 421"},
        {"RCPT", 1, "RCPT TO:<c@d>\r\n", "451 421"},
        {"RSET", 1, "RSET\r\n", "250 421"},
        {"DATA", 1, "x\r\n.\r\n", "451"},
        {"dot", 1, "x\r\n.\r\n", "451"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        fresh(NULL);
        world.mta.offers = "PIPELINING\nAUTH PLAIN\n";
        world.mta.play[0] = (struct line_of_play){kinds[i].at, kinds[i].nth, NULL, 0};
        open_client("implicit");
        assert_true(shake(TLS1_3_VERSION));
        tls_say(E "AUTH PLAIN AGFubmEAYg==\r\n");
        if (kinds[i].say[0] == 'x')
            assert_string_equal(tls_say("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"),
                                "250 250 354");
        else if (strncmp(kinds[i].say, "RCPT", 4) == 0)
            assert_string_equal(tls_say("MAIL FROM:<a@b>\r\n"), "250");
        const char *codes = tls_say(kinds[i].say);
        if (strcmp(codes, kinds[i].codes) != 0)
            fail_msg("%s: %s", kinds[i].at, codes);
        if (kinds[i].say[0] == 'x')
            assert_string_equal(tls_say("MAIL FROM:<a@b>\r\n"), "421");
        assert_int_equal(world.mta.connections, 1);
        assert_int_equal(world.mta.messages, 0);
        tls_end();
    }
}

static void passwords_are_guessed_as_often_as_errors_are_made(void **state)
{
    (void)state;
    world.mta.offers = "AUTH PLAIN\n";
    world.mta.play[0] = (struct line_of_play){"AUTH", 0, "535 5.7.8 no\r\n", 0};
    open_client("implicit");
    assert_true(shake(TLS1_3_VERSION));
    tls_say(E);
    for (int i = 0; i < 20; i++)
        assert_string_equal(tls_say("AUTH PLAIN AGFubmEAYg==\r\n"), "535");
    assert_string_equal(tls_say("AUTH PLAIN AGFubmEAYg==\r\n"), "421");
    assert_null(strstr(story, "anna"));
    tls_end();
}

static void a055_an_auth_of_12_kib(void **state)
{
    (void)state;
    static char line[16384];
    world.mta.offers = "AUTH PLAIN\n";
    open_client("implicit");
    assert_true(shake(TLS1_3_VERSION));
    tls_say(E);
    memset(line, 'A', sizeof line);
    memcpy(line, "AUTH PLAIN ", 11);
    strcpy(line + 12000, "\r\n");
    assert_string_equal(tls_say(line), "235");
    memset(line + 12000, 'A', 2000);
    strcpy(line + 14000, "\r\n");
    assert_string_equal(tls_say(line), "500");
    tls_end();
}

/* ---- TLS with the MTA behind ---- */

static void tls_behind(void **state)
{
    (void)state;
    static const struct {
        const char *listener;
        bool offered;
        const char *codes;
    } kinds[] = {
        {"may", false, "220 250"},      {"may", true, "220 250"},   {"must", true, "220 250"},
        {"must", false, "220 421 x"},   {"known", true, "220 250"}, {"other", true, "220 421 x"},
        {"unknown", true, "220 421 x"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        fresh(NULL);
        world.mta.tls = behind;
        world.mta.offers = kinds[i].offered ? "PIPELINING\nSTARTTLS\n" : "PIPELINING\n";
        open_client(kinds[i].listener);
        client_say(&client, E);
        if (strcmp(client_codes(&client), kinds[i].codes) != 0)
            fail_msg("%s, %d: %s", kinds[i].listener, kinds[i].offered, client_codes(&client));
        assert_int_equal(kinds[i].offered, strstr(world.mta.heard, "STARTTLS|") != NULL);
        if (!client.closed) {
            client_say(&client, "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
            client_say(&client, "x\r\n.\r\nQUIT\r\n");
            codes_are("220 250 250 250 354 250 221 x");
            assert_non_null(strstr(world.mta.heard, "|QUIT|"));
        }
        client_close(&client);
    }
}

static void a126_what_downstream_says_before_its_handshake_is_not_heard(void **state)
{
    (void)state;
    world.mta.offers = "STARTTLS\n";
    world.mta.play[0] =
        (struct line_of_play){"STARTTLS", 1, "220 go\r\n250-injected\r\n250 AUTH PLAIN\r\n", 0};
    open_client("must");
    client_say(&client, E);
    assert_null(strstr(client.said, "AUTH"));
    assert_true(strcmp(client_codes(&client), "220") == 0 || client.closed);
    mta_fresh(&world.mta);
    client_turn(&client);
    codes_are("220 421 x");
    client_close(&client);
}

/* Without TLS, once, where that may be. */
static void tls_that_fails_is_gone_on_without(void **state)
{
    (void)state;
    static const struct {
        const char *listener, *how;
        unsigned connections;
        const char *codes;
    } kinds[] = {
        {"may", "it hangs up", 2, "220 250 250 250 354 250"},
        {"may", "it talks", 2, "220 250 250 250 354 250"},
        {"may", "it is silent", 2, "220 250 250 250 354 250"},
        {"may", "it refuses", 1, "220 250 250 250 354 250"},
        {"must", "it hangs up", 1, "220 421 x"},
        {"must", "it talks", 1, "220 421 x"},
        {"must", "it is silent", 1, "220 421 x"},
        {"must", "it refuses", 1, "220 421 x"},
        {"must", "it knows no EHLO", 1, "220 421 x"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        fresh(NULL);
        const char *how = kinds[i].how;
        world.mta.offers = "PIPELINING\nSTARTTLS\n";
        world.mta.play[0] = (struct line_of_play){
            "STARTTLS", 1, strcmp(how, "it refuses") ? "220 go\r\n" : "454 no\r\n", 0};
        if (strcmp(how, "it knows no EHLO") == 0)
            world.mta.play[1] = (struct line_of_play){"EHLO", 0, "502 what?\r\n", 0};
        open_client(kinds[i].listener);
        client_say(&client, E);
        if (strcmp(how, "it hangs up") == 0)
            mta_end(world.mta.sessions);
        else if (strcmp(how, "it talks") == 0)
            bufferevent_write(world.mta.sessions->bev, "250 and TLS?\r\n", 14);
        else if (strcmp(how, "it is silent") == 0)
            pass(30 * 1000 + 10);
        client_turn(&client);
        if (!client.closed) {
            client_say(&client, "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
            client_say(&client, "x\r\n.\r\n");
        }
        if (strcmp(client_codes(&client), kinds[i].codes) != 0 ||
            world.mta.connections != kinds[i].connections)
            fail_msg("%s, %s: %s, %u connections", kinds[i].listener, how, client_codes(&client),
                     world.mta.connections);
        assert_int_equal(world.mta.messages, strstr(kinds[i].codes, "354") != NULL);
        client_close(&client);
    }
}

/* ---- TLS of the release client ---- */

static void released(void *arg, struct outbound_mail *mail)
{
    (void)mail;
    *(bool *)arg = true;
}

static void released_mail_goes_under_tls(void **state)
{
    (void)state;
    static const struct {
        const char *name, *offers, *starttls; /* NULL: as usual */
        const char *wanted;                   /* the certificate's name; NULL: any */
        bool required;
        int code;
        const char *reply;
    } kinds[] = {
        {"where it is offered", "STARTTLS\n", NULL, NULL, false, 250, "250 2.0.0 queued behind"},
        {"not where it is not", "SIZE\n", NULL, NULL, false, 250, "250 2.0.0 queued behind"},
        {"must, and is", "STARTTLS\n", NULL, NULL, true, 250, "250 2.0.0 queued behind"},
        {"must, and is not", "SIZE\n", NULL, NULL, true, 0, "the server offers no STARTTLS"},
        {"must, to the right server", "STARTTLS\n", NULL, "behind.example", true, 250, "250"},
        {"must, to another", "STARTTLS\n", NULL, "gw.example", true, 0, "connection lost at TLS"},
        {"refused", "STARTTLS\n", "454 no\r\n", NULL, false, 250, "250"},
        {"refused, and must", "STARTTLS\n", "454 no\r\n", NULL, true, 454, "454 no"},
        {"with more behind it", "STARTTLS\n", "220 go\r\n250 injected\r\n", NULL, false, 0,
         "the server spoke out of turn before TLS"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char to[32], error[512];
        bool done = false;
        fresh(NULL);
        struct tls_settings settings = {.ca = kinds[i].wanted ? path("their.pem") : NULL,
                                        .name = kinds[i].wanted};
        struct tls *tls = tls_client_new(&settings, error);
        struct outbound_rcpt rcpt = {.path = SPAN("c@d.example")};
        struct outbound_mail mail = {.to = to,
                                     .helo = "us.example",
                                     .tls = tls,
                                     .tls_required = kinds[i].required,
                                     .reversepath = SPAN("a@b.example"),
                                     .bytes = (const uint8_t *)"x: y\r\n",
                                     .nbytes = 6,
                                     .rcpts = &rcpt,
                                     .nrcpts = 1,
                                     .deadline = 20000};
        snprintf(to, sizeof to, "127.0.0.1:%u", world.mta.port);
        world.mta.offers = kinds[i].offers;
        world.mta.tls = kinds[i].starttls ? NULL : behind;
        if (kinds[i].starttls)
            world.mta.play[0] = (struct line_of_play){"STARTTLS", 1, kinds[i].starttls, 0};
        outbound_send(world.worker.base, &mail, released, &done);
        while (!done)
            event_base_loop(world.worker.base, EVLOOP_ONCE);
        if (rcpt.code != kinds[i].code ||
            strncmp(rcpt.reply, kinds[i].reply, strlen(kinds[i].reply)) != 0)
            fail_msg("%s: %d %s", kinds[i].name, rcpt.code, rcpt.reply);
        tls_drop(&tls);
    }
}

/* ---- certificates that change ---- */

static void a_reload_takes_a_new_certificate_and_keeps_the_old_if_it_is_bad(void **state)
{
    (void)state;
    char error[512];
    open_client("tls");
    client_say(&client, E "STARTTLS\r\n");
    FILE *f = fopen(path("our.pem"), "w");
    fputs("none\n", f);
    fclose(f);
    assert_int_equal(smtp_doors_reload(world.pipeline.doors, world.config, error), -1);
    assert_non_null(strstr(error, "certificate cannot be used"));
    assert_true(shake(TLS1_3_VERSION)); /* of a session from before */
    tls_end();
    make_certificate("new.example", "our.pem", "our.key");
    assert_int_equal(smtp_doors_reload(world.pipeline.doors, world.config, error), 0);
    open_client("implicit");
    assert_true(shake(TLS1_3_VERSION));
    X509 *x = SSL_get1_peer_certificate(ssl);
    char name[64] = "";
    X509_NAME_get_text_by_NID(X509_get_subject_name(x), NID_commonName, name, sizeof name);
    assert_string_equal(name, "new.example");
    X509_free(x);
    tls_end();
}

/* ---- PROXY ---- */

#define V2 "\r\n\r\n\0\r\nQUIT\n"

#define LONG_PROXY                                                                                 \
    "PROXY UNKNOWN "                                                                               \
    "01234567890123456789012345678901234567890123456789012345678901234567890123456789"             \
    "012"

static void proxy_headers(void **state)
{
    (void)state;
    static const struct {
        const char *name, *say;
        size_t n;
        const char *codes, *client;
    } cases[] = {
        {"A130 a bare LF", SAY("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n"), "x", NULL},
        {"A131 a leading zero", SAY("PROXY TCP4 01.2.3.4 5.6.7.8 1 2\r\n"), "x", NULL},
        {"A132 unknown", SAY("PROXY UNKNOWN\r\n"), "220", ""},
        {"A134 a port beyond any", SAY("PROXY TCP6 ::1 ::1 99999 1\r\n"), "x", NULL},
        {"version 1", SAY("PROXY TCP4 203.0.113.4 5.6.7.8 1 2\r\n"), "220", "203.0.113.4"},
        {"version 1, IPv6", SAY("PROXY TCP6 2001:db8::4 ::1 1 2\r\n"), "220", "2001:db8::4"},
        {"version 2", SAY(V2 "\x21\x11\0\x0c\xcb\0\x71\x05\x7f\0\0\1\0\1\0\2"), "220",
         "203.0.113.5"},
        {"A136 version 2, LOCAL", SAY(V2 "\x20\0\0\4abcd"), "220", ""},
        {"A135 version 3", SAY(V2 "\x31\x11\0\x0c\xcb\0\x71\x05\x7f\0\0\1\0\1\0\2"), "x", NULL},
        {"A135 command 2", SAY(V2 "\x22\x11\0\x0c\xcb\0\x71\x05\x7f\0\0\1\0\1\0\2"), "x", NULL},
        {"A135 too short for its family", SAY(V2 "\x21\x11\0\x04\xcb\0\x71\x05"), "x", NULL},
        {"A133 108 bytes without an end", SAY(LONG_PROXY "01234567890"), "x", NULL},
        {"A133 105 bytes may go on", SAY(LONG_PROXY "01234567"), "", NULL},
        {"no header", SAY("EHLO x\r\n"), "x", NULL},
        {"TLS instead", SAY("\x16\x03\x01\0\1"), "x", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int split = 0; split < 2; split++) {
            fresh(NULL);
            open_client("proxied");
            codes_are("");
            for (size_t at = 0; split && at < cases[i].n; at++)
                client_send(&client, cases[i].say + at, 1);
            if (!split)
                client_send(&client, cases[i].say, cases[i].n);
            const char *codes = client_codes(&client);
            if (strcmp(codes + (*codes == ' '), cases[i].codes) != 0)
                fail_msg("%s: %s", cases[i].name, codes);
            if (cases[i].client) {
                char expected[64];
                snprintf(expected, sizeof expected, "client(%s ", cases[i].client);
                client_say(&client, E "MAIL FROM:<a@b>\r\n");
                if (!strstr(story, *cases[i].client ? expected : "client("))
                    fail_msg("%s: %s", cases[i].name, story);
            }
            client_close(&client);
        }
}

static void who_comes_through_a_proxy_is_trusted_for_himself_only(void **state)
{
    (void)state;
    open_client("proxied");
    client_say(&client, "PROXY TCP4 192.0.2.9 5.6.7.8 1 2\r\n");
    client_say(&client, E "XCLIENT ADDR=1.2.3.4\r\n");
    codes_are("220 250 220");
    client_close(&client);
    open_client("proxied");
    client_say(&client, "PROXY TCP4 203.0.113.9 5.6.7.8 1 2\r\n");
    client_say(&client, E "XCLIENT ADDR=1.2.3.4\r\n");
    codes_are("220 250 550");
    client_close(&client);
}

static void a51_who_speaks_before_the_greeting_through_a_proxy(void **state)
{
    (void)state;
    open_client("proxied");
    client_say(&client, "PROXY TCP4 203.0.113.9 5.6.7.8 1 2\r\nEHLO x\r\n");
    codes_are("554 x");
    client_close(&client);
}

static void the_mta_behind_gets_a_header(void **state)
{
    (void)state;
    client_open(&client, &world.worker, &world.mta, world_listener(&world, "tells1"), true, NULL);
    client_say(&client, E);
    assert_non_null(strstr(world.mta.heard, "^PROXY TCP4 127.0.0.1 127.0.0.1 "));
    client_close(&client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DOOR(a_message_under_tls),
        DOOR(who_says_more_than_is_obeyed_yet),
        DOOR(tls_from_the_first_byte),
        DOOR(a120_what_follows_starttls_in_the_clear_is_not_obeyed),
        DOOR(a123_starttls_in_mid_message),
        DOOR(a125_old_versions_are_refused),
        DOOR(a124_a_handshake_that_does_not_go_on),
        DOOR(a125_odd_hellos),
        DOOR(a125_renegotiation_is_refused),
        DOOR(a128_garbage_for_a_handshake),
        DOOR(a129_a_message_cut_off_under_tls),
        DOOR(auth_is_relayed_under_tls),
        DOOR(passwords_are_guessed_as_often_as_errors_are_made),
        DOOR(who_is_logged_in_begins_anew_when_the_server_behind_is_lost),
        DOOR(a055_an_auth_of_12_kib),
        DOOR(tls_behind),
        DOOR(a126_what_downstream_says_before_its_handshake_is_not_heard),
        DOOR(tls_that_fails_is_gone_on_without),
        DOOR(released_mail_goes_under_tls),
        DOOR(a_reload_takes_a_new_certificate_and_keeps_the_old_if_it_is_bad),
        DOOR(proxy_headers),
        DOOR(who_comes_through_a_proxy_is_trusted_for_himself_only),
        DOOR(a51_who_speaks_before_the_greeting_through_a_proxy),
        DOOR(the_mta_behind_gets_a_header),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
