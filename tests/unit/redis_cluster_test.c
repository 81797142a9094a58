/* redis_cluster_test.c - slots of keys, and what servers say about slots. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>
#include <hiredis/hiredis.h>

#include "redis_cluster.h"

static void test_slots_are_those_of_redis(void **state)
{
    static const struct {
        const char *key;
        uint16_t slot; /* as CLUSTER KEYSLOT of Redis 7.0.15 says */
    } t[] = {
        {"", 0},
        {"foo", 12182},
        {"123456789", 12739},
        {"{foo}", 12182},
        {"a{foo}b{bar}", 12182},
        {"{user1000}.following", 3443},
        {"{user1000}.followers", 3443},
        {"foo{}{bar}", 8363}, /* an empty tag is none: the whole key */
        {"foo{{bar}}zap", 4015},
        {"foo{bar", 15278},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++)
        if (redis_slot(span_str(t[i].key)) != t[i].slot)
            fail_msg("%s: %u, expected %u", t[i].key, redis_slot(span_str(t[i].key)), t[i].slot);
}

static void test_redirections(void **state)
{
    static const struct {
        const char *error, *said_by, *address; /* NULL: none */
        uint16_t slot;
    } t[] = {
        {"MOVED 3999 127.0.0.1:6381", "10.0.0.1:7000", "127.0.0.1:6381", 3999},
        {"ASK 0 10.0.0.2:7001", "10.0.0.1:7000", "10.0.0.2:7001", 0},
        {"MOVED 16383 ::1:7001", "10.0.0.1:7000", "[::1]:7001", 16383},
        {"MOVED 1 :7001", "10.0.0.1:7000", "10.0.0.1:7001", 1},
        {"MOVED 1 :7001", "[::1]:7000", "[::1]:7001", 1},
        {"MOVED 1 :7001", "unix:/run/redis", NULL, 0},
        {"MOVED 16384 127.0.0.1:6381", "10.0.0.1:7000", NULL, 0},
        {"MOVED -1 127.0.0.1:6381", "10.0.0.1:7000", NULL, 0},
        {"MOVED 1 127.0.0.1:0", "10.0.0.1:7000", NULL, 0},
        {"MOVED 1 127.0.0.1:65536", "10.0.0.1:7000", NULL, 0},
        {"MOVED 1 127.0.0.1", "10.0.0.1:7000", NULL, 0},
        {"MOVED 1 redis.example:6379", "10.0.0.1:7000", NULL, 0},
        {"MOVED 1 ?:6379", "10.0.0.1:7000", NULL, 0},
        {"MOVED 1 unix:/etc/passwd:1", "10.0.0.1:7000", NULL, 0},
        {"MOVED 1", "10.0.0.1:7000", NULL, 0},
        {"MOVED", "10.0.0.1:7000", NULL, 0},
        {"MOVED 1 %s%n:1", "10.0.0.1:7000", NULL, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct redis_redirection r;
        bool good = redis_redirection(span_str(t[i].error), span_str(t[i].said_by), &r);
        if (good != (t[i].address != NULL))
            fail_msg("%s: %s", t[i].error, good ? r.address : "none");
        if (good) {
            assert_string_equal(r.address, t[i].address);
            assert_int_equal(r.slot, t[i].slot);
        }
    }
}

static void note(void *arg, uint16_t from, uint16_t to, const char *address)
{
    char *out = arg;
    size_t n = strlen(out);
    snprintf(out + n, 512 - n, "%u-%u %s;", from, to, address);
}

static void test_map_of_slots(void **state)
{
    static const struct {
        const char *reply, *map; /* NULL: refused */
    } t[] = {
        {"*2\r\n"
         "*4\r\n:0\r\n:99\r\n*3\r\n$8\r\n10.0.0.1\r\n:7000\r\n$1\r\na\r\n*3\r\n$8\r\n10.0.0.9\r\n:"
         "7009\r\n$"
         "1\r\nb\r\n"
         "*3\r\n:100\r\n:16383\r\n*3\r\n$8\r\n10.0.0.2\r\n:7001\r\n$1\r\nc\r\n",
         "0-99 10.0.0.1:7000;100-16383 10.0.0.2:7001;"},
        {"*0\r\n", ""},
        {"*1\r\n*3\r\n:5\r\n:5\r\n*4\r\n$-1\r\n:7000\r\n$1\r\na\r\n*0\r\n", "5-5 192.0.2.1:7000;"},
        {"*1\r\n*3\r\n:5\r\n:5\r\n*4\r\n$4\r\nname\r\n:7000\r\n$1\r\na\r\n*2\r\n$2\r\nip\r\n$"
         "8\r\n10.0.0."
         "3\r\n",
         "5-5 10.0.0.3:7000;"},
        /* a name alone: nobody has these slots, as far as we can tell */
        {"*1\r\n*3\r\n:5\r\n:5\r\n*2\r\n$4\r\nname\r\n:7000\r\n", ""},
        {"*1\r\n*3\r\n:5\r\n:4\r\n*2\r\n$8\r\n10.0.0.1\r\n:7000\r\n", NULL},
        {"*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n$8\r\n10.0.0.1\r\n:7000\r\n", NULL},
        {"*1\r\n*3\r\n:-1\r\n:9\r\n*2\r\n$8\r\n10.0.0.1\r\n:7000\r\n", NULL},
        {"*1\r\n*2\r\n:0\r\n:9\r\n", NULL},
        {"*1\r\n*3\r\n$1\r\n0\r\n:9\r\n*2\r\n$8\r\n10.0.0.1\r\n:7000\r\n", NULL},
        {"*1\r\n*3\r\n:0\r\n:9\r\n:3\r\n", ""},
        {"*1\r\n*3\r\n:0\r\n:9\r\n*2\r\n$8\r\n10.0.0.1\r\n:-7\r\n", ""},
        {"+OK\r\n", NULL},
        {"$2\r\nab\r\n", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        redisReader *reader = redisReaderCreate();
        void *reply = NULL;
        char map[512] = "";
        redisReaderFeed(reader, t[i].reply, strlen(t[i].reply));
        assert_int_equal(redisReaderGetReply(reader, &reply), REDIS_OK);
        assert_non_null(reply);
        bool good = redis_slots_read(reply, SPAN("192.0.2.1:7777"), note, map);
        if (good != (t[i].map != NULL) || (good && strcmp(map, t[i].map) != 0))
            fail_msg("reply %zu: %s %s", i, good ? "taken" : "refused", map);
        freeReplyObject(reply);
        redisReaderFree(reader);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slots_are_those_of_redis),
        cmocka_unit_test(test_redirections),
        cmocka_unit_test(test_map_of_slots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
