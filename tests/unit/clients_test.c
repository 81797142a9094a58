/* clients_test.c - how many connections there are, of whom. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "clients.h"

static struct ipaddr address(const char *text)
{
    struct ipaddr ip = {0};
    assert_true(ipaddr_parse(&ip, span_str(text)));
    return ip;
}

static bool enter(struct clients *c, const char *text)
{
    struct ipaddr ip = address(text);
    return clients_enter(c, &ip, false) == NULL;
}

static void leave(struct clients *c, const char *text)
{
    struct ipaddr ip = address(text);
    clients_leave(c, &ip);
}

static void each_address_has_its_share(void **state)
{
    (void)state;
    struct clients *c = clients_new(0, 2);
    assert_true(enter(c, "192.0.2.1"));
    assert_true(enter(c, "192.0.2.1"));
    assert_false(enter(c, "192.0.2.1"));
    assert_true(enter(c, "192.0.2.2"));
    leave(c, "192.0.2.1");
    assert_true(enter(c, "192.0.2.1"));
    assert_false(enter(c, "192.0.2.1"));
    clients_free(&c);
    assert_null(c);
}

static void a_slash_64_is_one_client(void **state)
{
    (void)state;
    struct clients *c = clients_new(0, 2);
    assert_true(enter(c, "2001:db8::1"));
    assert_true(enter(c, "2001:db8::2"));
    assert_false(enter(c, "2001:db8::3"));
    assert_true(enter(c, "2001:db8:0:1::1"));
    clients_free(&c);
}

static void all_together_have_a_limit(void **state)
{
    (void)state;
    struct clients *c = clients_new(2, 0);
    struct ipaddr trusted = address("198.51.100.1");
    assert_true(enter(c, "192.0.2.1"));
    assert_true(enter(c, "192.0.2.2"));
    assert_false(enter(c, "192.0.2.3"));
    assert_null(clients_enter(c, &trusted, true)); /* counted, never limited */
    leave(c, "192.0.2.1");
    assert_false(enter(c, "192.0.2.3"));
    clients_limits(c, 3, 0);
    assert_true(enter(c, "192.0.2.3"));
    clients_free(&c);
}

/* The table grows, and what is displaced in it is found again when others have left. */
static void thousands_come_and_go(void **state)
{
    (void)state;
    struct clients *c = clients_new(0, 1);
    char text[32];
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < 5000; i++) {
            snprintf(text, sizeof text, "10.0.%u.%u", i >> 8, i & 255);
            assert_true(enter(c, text));
        }
        for (unsigned i = 0; i < 5000; i += 3) {
            snprintf(text, sizeof text, "10.0.%u.%u", i >> 8, i & 255);
            leave(c, text);
        }
        for (unsigned i = 0; i < 5000; i++) {
            snprintf(text, sizeof text, "10.0.%u.%u", i >> 8, i & 255);
            assert_int_equal(enter(c, text), i % 3 == 0);
            leave(c, text);
        }
    }
    clients_free(&c);
}

static void *come_and_go(void *arg)
{
    struct clients *c = arg;
    for (unsigned i = 0; i < 20000; i++) {
        struct ipaddr ip = {.family = 4, .byte = {[15] = (uint8_t)(i & 7)}};
        if (!clients_enter(c, &ip, false))
            clients_leave(c, &ip);
    }
    return NULL;
}

static void from_many_threads(void **state)
{
    (void)state;
    struct clients *c = clients_new(1, 0);
    pthread_t thread[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&thread[i], NULL, come_and_go, c);
    for (int i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    assert_true(enter(c, "192.0.2.1")); /* all have left */
    clients_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_address_has_its_share), cmocka_unit_test(a_slash_64_is_one_client),
        cmocka_unit_test(all_together_have_a_limit),  cmocka_unit_test(thousands_come_and_go),
        cmocka_unit_test(from_many_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
