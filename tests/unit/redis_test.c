/*
 * redis_test.c - calls to servers that can misbehave, all in one loop. A rule says what a server
 * answers to a command; PING, ROLE and CLUSTER SLOTS it knows by itself. Nothing here measures
 * time; a test that hangs is ended by a watchdog.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <hiredis/hiredis.h>
#include <netinet/in.h>

#include "id.h"
#include "log.h"
#include "redis.h"

enum { SERVERS = 2, CALLS = 300, HEARD = 1 << 16 };
static const char silent[] = "(nothing)", hang_up[] = "(close)";

struct rule {
    const char *word, *reply;
    unsigned times; /* 0: always */
};
struct stage;
struct server {
    struct stage *stage;
    struct evconnlistener *listener;
    struct bufferevent *bev; /* the last connection */
    redisReader *reader;
    char address[64];
    unsigned port, accepted, reads;
    struct rule rules[8];
    char heard[HEARD]; /* "GET a;SET a b;" */
    bool replica;
};
struct result {
    struct stage *stage;
    struct redis_call *call;
    unsigned done;
    int type; /* 0: no reply */
    char text[256];
};
struct stage {
    struct event_base *base;
    struct event *watchdog, *pulse;
    struct server servers[SERVERS];
    struct redis_settings settings;
    struct span addresses[SERVERS];
    struct redis *redis;
    struct result results[CALLS];
    unsigned nresults, ended;
    bool inside;
};

/* ---- the servers ---- */

static void say(struct server *s, const char *bytes, size_t n)
{
    if (s->bev)
        bufferevent_write(s->bev, bytes, n);
}

static void drop(struct server *s)
{
    if (s->bev)
        bufferevent_free(s->bev);
    if (s->reader)
        redisReaderFree(s->reader);
    s->bev = NULL;
    s->reader = NULL;
}

static const char *own_reply(struct server *s, const char *word, const char *second)
{
    static char out[256];
    const struct server *all = s->stage->servers;
    if (strcmp(word, "PING") == 0)
        return "+PONG\r\n";
    if (strcmp(word, "ROLE") == 0)
        return s->replica ? "*1\r\n$5\r\nslave\r\n" : "*1\r\n$6\r\nmaster\r\n";
    if (strcmp(word, "SENTINEL") == 0) {
        char port[8];
        int n = snprintf(port, sizeof port, "%u", all[1].port);
        snprintf(out, sizeof out, "*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%s\r\n", n, port);
        return out;
    }
    if (strcmp(word, "CLUSTER") != 0 || strcmp(second, "SLOTS") != 0)
        return "+OK\r\n";
    snprintf(out, sizeof out,
             "*2\r\n*3\r\n:0\r\n:8191\r\n*2\r\n$9\r\n127.0.0.1\r\n:%u\r\n"
             "*3\r\n:8192\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:%u\r\n",
             all[0].port, all[1].port);
    return out;
}

static const char *reply_to(struct server *s, const char *word, const char *second)
{
    for (size_t i = 0; i < 8 && s->rules[i].word; i++) {
        struct rule *r = &s->rules[i];
        if (strcmp(r->word, word) != 0 && strcmp(r->word, "*") != 0)
            continue;
        const char *reply = r->reply;
        if (r->times && --r->times == 0)
            r->word = "(used up)";
        return reply;
    }
    return own_reply(s, word, second);
}

static void serve(struct server *s, const redisReply *command)
{
    size_t n = strlen(s->heard);
    assert_int_equal(command->type, REDIS_REPLY_ARRAY);
    for (size_t i = 0; i < command->elements && n + 200 < HEARD; i++)
        n += (size_t)snprintf(s->heard + n, HEARD - n, "%s%.100s", i ? " " : "",
                              command->element[i]->str);
    if (n + 200 < HEARD)
        strcpy(s->heard + n, ";");
    const char *reply = reply_to(s, command->element[0]->str,
                                 command->elements > 1 ? command->element[1]->str : "");
    if (reply == hang_up)
        drop(s);
    else if (reply != silent)
        say(s, reply, strlen(reply));
}

static void on_read(struct bufferevent *bev, void *arg)
{
    struct server *s = arg;
    char bytes[4096];
    size_t n;
    void *command;
    s->reads++;
    while ((n = bufferevent_read(bev, bytes, sizeof bytes)) > 0)
        redisReaderFeed(s->reader, bytes, n);
    while (s->reader && redisReaderGetReply(s->reader, &command) == REDIS_OK && command) {
        serve(s, command);
        freeReplyObject(command);
    }
}

static void on_end(struct bufferevent *bev, short what, void *arg)
{
    struct server *s = arg;
    (void)what;
    if (s->bev == bev)
        drop(s);
}

static void on_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *sa, int n,
                      void *arg)
{
    struct server *s = arg;
    (void)l, (void)sa, (void)n;
    drop(s);
    s->accepted++;
    s->reader = redisReaderCreate();
    s->bev = bufferevent_socket_new(s->stage->base, fd, BEV_OPT_CLOSE_ON_FREE);
    bufferevent_setcb(s->bev, on_read, NULL, on_end, s);
    bufferevent_enable(s->bev, EV_READ | EV_WRITE);
}

static void open_server(struct stage *st, struct server *s)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof in;
    s->stage = st;
    s->listener = evconnlistener_new_bind(st->base, on_accept, s, LEV_OPT_CLOSE_ON_FREE, -1,
                                          (struct sockaddr *)&in, sizeof in);
    assert_non_null(s->listener);
    getsockname(evconnlistener_get_fd(s->listener), (struct sockaddr *)&in, &n);
    s->port = ntohs(in.sin_port);
    snprintf(s->address, sizeof s->address, "127.0.0.1:%u", s->port);
}

/* ---- the stage ---- */

static void bark(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what, (void)arg;
    fail_msg("hangs");
}

static void beat(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what, (void)arg;
}

static struct stage *open_stage(void)
{
    struct stage *st = calloc(1, sizeof *st);
    st->base = event_base_new();
    st->watchdog = evtimer_new(st->base, bark, NULL);
    st->pulse = event_new(st->base, -1, EV_PERSIST, beat, NULL); /* so that conditions are seen */
    event_add(st->watchdog, &(struct timeval){20, 0});
    event_add(st->pulse, &(struct timeval){0, 5000});
    for (size_t i = 0; i < SERVERS; i++) {
        open_server(st, &st->servers[i]);
        st->addresses[i] = span_str(st->servers[i].address);
    }
    st->settings = (struct redis_settings){.servers = st->addresses,
                                           .nservers = 1,
                                           .deadline = 5000,
                                           .in_flight = 256,
                                           .prefix = (char[]){"bw"}};
    return st;
}

static void close_stage(struct stage *st)
{
    redis_close(&st->redis);
    for (unsigned i = 0; i < st->nresults; i++)
        assert_int_equal(st->results[i].done, 1);
    for (size_t i = 0; i < SERVERS; i++) {
        drop(&st->servers[i]);
        evconnlistener_free(st->servers[i].listener);
    }
    event_free(st->watchdog);
    event_free(st->pulse);
    event_base_free(st->base);
    free(st);
}

#define UNTIL(st, condition)                                                                       \
    while (!(condition))                                                                           \
    assert_int_equal(event_base_loop((st)->base, EVLOOP_ONCE), 0)

static void open_redis(struct stage *st)
{
    st->redis = redis_open(st->base, &st->settings);
    UNTIL(st, redis_up(st->redis));
}

static void done(void *arg, const struct redisReply *r, const char *why)
{
    struct result *x = arg;
    assert_false(x->stage->inside);
    assert_true((r == NULL) == (why != NULL));
    x->done++;
    x->call = NULL;
    x->stage->ended++;
    x->type = r ? r->type : 0;
    const char *text = !r || !r->str ? why : r->str;
    snprintf(x->text, sizeof x->text, "%s", text ? text : "");
    if (r && r->type == REDIS_REPLY_INTEGER)
        snprintf(x->text, sizeof x->text, "%lld", r->integer);
}

/* Sends the words of a text, key its second. */
static struct result *send_within(struct stage *st, const char *text, int64_t deadline)
{
    struct span words[16], rest = span_str(text);
    size_t n = 0;
    struct result *x = &st->results[st->nresults++];
    x->stage = st;
    while (rest.n) {
        size_t blank = span_find(rest, ' ');
        words[n++] = span_head(rest, blank);
        rest = span_from(rest, blank + 1);
    }
    st->inside = true;
    x->call =
        redis_send(st->redis, n > 1 ? words[1] : span_of(NULL, 0), words, n, deadline, done, x);
    st->inside = false;
    assert_non_null(x->call);
    return x;
}

static struct result *call(struct stage *st, const char *text)
{
    struct result *x = send_within(st, text, 0);
    UNTIL(st, x->done);
    return x;
}

static void expect(const struct result *x, int type, const char *text)
{
    if (x->type != type || strcmp(x->text, text) != 0)
        fail_msg("type %d \"%s\", expected %d \"%s\"", x->type, x->text, type, text);
}

static struct redis_figures figures(struct stage *st)
{
    struct redis_figures f;
    redis_figures(st->redis, &f);
    return f;
}

/* ---- one server ---- */

static void test_calls_of_one_turn_leave_in_one_write(void **state)
{
    struct stage *st = open_stage();
    (void)state;
    open_redis(st);
    struct server *s = &st->servers[0];
    s->rules[0] = (struct rule){"GET", "$1\r\nx\r\n", 0};
    unsigned before = s->reads;
    for (int i = 0; i < 50; i++)
        send_within(st, "GET a", 0);
    UNTIL(st, st->ended == 50);
    assert_int_equal(s->reads, before + 1);
    for (int i = 0; i < 50; i++)
        expect(&st->results[i], REDIS_REPLY_STRING, "x");
    struct redis_figures f = figures(st);
    assert_int_equal(f.calls, 50);
    assert_int_equal(f.replies, 50);
    assert_int_equal(f.connections, 1);
    uint64_t times = 0;
    for (int i = 0; i < REDIS_TIMES; i++)
        times += f.time[i];
    assert_int_equal(times, 50);
    assert_null(redis_trouble(st->redis));
    close_stage(st);
}

static void test_greeting(void **state)
{
    struct stage *st = open_stage();
    (void)state;
    st->settings.user = (char[]){"u"};
    st->settings.password = (char[]){"p w"};
    st->settings.database = 3;
    open_redis(st);
    assert_string_equal(st->servers[0].heard, "AUTH u p w;SELECT 3;PING;");
    close_stage(st);
}

static void test_greeting_that_is_refused(void **state)
{
    static const struct rule t[] = {
        {"AUTH", "-WRONGPASS invalid username-password pair\r\n", 0},
        {"AUTH", "+QUEUED\r\n", 0},
        {"SELECT", "-ERR DB index is out of range\r\n", 0},
        {"PING", "-LOADING Redis is loading the dataset in memory\r\n", 0},
        {"PING", "-NOAUTH Authentication required.\r\n", 0},
        {"PING", "$4\r\nPONG\r\n", 0},
        {"PING", "+PONG\r\n+PONG\r\n+PONG\r\n", 3}, /* one more than asked for */
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct stage *st = open_stage();
        st->settings.password = (char[]){"p"};
        st->settings.database = 3;
        st->servers[0].rules[0] = t[i];
        st->redis = redis_open(st->base, &st->settings);
        UNTIL(st, st->servers[0].accepted == 3); /* it is tried again */
        assert_non_null(redis_trouble(st->redis));
        struct result *x = call(st, "GET a");
        if (!redis_up(st->redis))
            expect(x, 0, "not connected");
        close_stage(st);
    }
}

static void test_bytes_that_are_no_reply_end_the_connection(void **state)
{
    static char line[200 << 10];
    const char *const t[] = {
        "garbage\r\n",
        "\r\n",
        "*2147483648\r\n",
        "*2147483647\r\n",
        "*1000001\r\n",
        "*1000000\r\n*1000000\r\n*1000000\r\n",
        "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
        "_\r\n",
        ">1\r\n+x\r\n",
        "%1\r\n+a\r\n+b\r\n",
        "#t\r\n",
        "$-2\r\n",
        "$99999999999999999999\r\n",
        "*-7\r\n",
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        line,
    };
    (void)state;
    memset(line, 'x', sizeof line - 1);
    line[0] = '+';
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct stage *st = open_stage();
        open_redis(st);
        st->servers[0].rules[0] = (struct rule){"GET", t[i], 1};
        const struct result *x = send_within(st, "GET a", 0), *y = send_within(st, "DEL a", 0);
        UNTIL(st, st->ended == 2);
        expect(x, 0, "connection lost");
        expect(y, 0, "connection lost");
        assert_false(redis_up(st->redis));
        assert_string_equal(redis_trouble(st->redis) + strlen(st->servers[0].address),
                            ": sent bytes that are no reply");
        UNTIL(st, redis_up(st->redis));
        expect(call(st, "DEL a"), REDIS_REPLY_STATUS, "OK");
        assert_int_equal(figures(st).broken, 1);
        assert_int_equal(figures(st).connections, 2);
        close_stage(st);
    }
}

static void test_reply_that_is_too_long(void **state)
{
    struct stage *st = open_stage();
    size_t n = 66 << 20;
    char *much = malloc(n + 1);
    (void)state;
    assert_non_null(much);
    memset(much, 'x', n);
    much[n] = '\0';
    memcpy(much, "$100000000\r\n", 12);
    st->settings.deadline = 60000; /* it is not about time */
    open_redis(st);
    st->servers[0].rules[0] = (struct rule){"GET", much, 1};
    expect(call(st, "GET a"), 0, "connection lost");
    assert_int_equal(figures(st).broken, 1);
    close_stage(st);
    free(much);
}

static void test_reply_that_nobody_asked_for(void **state)
{
    struct stage *st = open_stage();
    (void)state;
    open_redis(st);
    st->servers[0].rules[0] = (struct rule){"GET", "+OK\r\n+OK\r\n", 1};
    expect(call(st, "GET a"), REDIS_REPLY_STATUS, "OK");
    UNTIL(st, st->servers[0].accepted == 2 && redis_up(st->redis));
    say(&st->servers[0], "+OK\r\n", 5); /* while nothing is asked at all */
    UNTIL(st, st->servers[0].accepted == 3 && redis_up(st->redis));
    assert_int_equal(figures(st).broken, 2);
    expect(call(st, "GET a"), REDIS_REPLY_STATUS, "OK");
    close_stage(st);
}

static void test_half_a_reply_then_the_deadline_then_the_rest(void **state)
{
    struct stage *st = open_stage();
    (void)state;
    open_redis(st);
    st->servers[0].rules[0] = (struct rule){"GET", "$5\r\nhal", 1};
    const struct result *x = send_within(st, "GET a", 30);
    UNTIL(st, x->done);
    expect(x, 0, "deadline");
    struct result *y = send_within(st, "DEL a", 0);
    say(&st->servers[0], "fx\r\n", 4); /* before the reply to DEL */
    UNTIL(st, y->done);
    expect(y, REDIS_REPLY_STATUS, "OK");
    assert_int_equal(figures(st).late, 1);
    assert_int_equal(figures(st).faults[REDIS_DEADLINE], 1);
    assert_int_equal(figures(st).connections, 1);
    close_stage(st);
}

static void test_connection_closed_in_the_middle(void **state)
{
    struct stage *st = open_stage();
    (void)state;
    open_redis(st);
    st->servers[0].rules[0] = (struct rule){"GET", hang_up, 1};
    send_within(st, "DEL a", 0);
    send_within(st, "GET a", 0);
    send_within(st, "DEL a", 0);
    UNTIL(st, st->ended == 3);
    expect(&st->results[1], 0, "connection lost");
    expect(&st->results[2], 0, "connection lost");
    expect(call(st, "GET a"), 0, "not connected");
    UNTIL(st, redis_up(st->redis));
    expect(call(st, "GET a"), REDIS_REPLY_STATUS, "OK");
    close_stage(st);
}

static void test_errors_mean_what_they_mean(void **state)
{
    static const struct {
        const char *reply, *text; /* text with a blank: the error goes to the caller */
        int type;
    } t[] = {
        {"-LOADING Redis is loading\r\n", "loading or down", 0},
        {"-MASTERDOWN Link with MASTER is down\r\n", "loading or down", 0},
        {"-CLUSTERDOWN The cluster is down\r\n", "loading or down", 0},
        {"-READONLY You can't write against a read only replica.\r\n", "read-only", 0},
        {"-NOAUTH Authentication required.\r\n", "denied", 0},
        {"-NOPERM this user has no permissions\r\n", "denied", 0},
        {"-OOM command not allowed\r\n", "takes no writes", 0},
        {"-MISCONF Redis is configured to save RDB snapshots\r\n", "takes no writes", 0},
        {"-NOREPLICAS Not enough good replicas to write.\r\n", "takes no writes", 0},
        {"-ERR Error running script (call to f_1): @user_script:1: -OOM command not allowed\r\n",
         "takes no writes", 0},
        {"-ERR Error running script (call to f_1): @user_script:1: no\r\n",
         "ERR Error running script (call to f_1): @user_script:1: no", REDIS_REPLY_ERROR},
        {"-WRONGTYPE Operation against a key\r\n", "WRONGTYPE Operation against a key",
         REDIS_REPLY_ERROR},
        {"-NOSCRIPT No matching script.\r\n", "NOSCRIPT No matching script.", REDIS_REPLY_ERROR},
        {"-\r\n", "", REDIS_REPLY_ERROR},
        {"-OOMPH\r\n", "OOMPH", REDIS_REPLY_ERROR},
        {"-MOVED 1 127.0.0.1:1\r\n", "redirected astray", 0}, /* this is not a cluster's */
        {":7\r\n", "7", REDIS_REPLY_INTEGER},
        {"$-1\r\n", "", REDIS_REPLY_NIL},
    };
    struct stage *st = open_stage();
    (void)state;
    open_redis(st);
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        st->servers[0].rules[0] = (struct rule){"GET", t[i].reply, 1};
        expect(call(st, "GET a"), t[i].type, t[i].text);
        expect(call(st, "DEL a"), REDIS_REPLY_STATUS, "OK"); /* it goes on */
    }
    assert_int_equal(figures(st).connections, 1);
    assert_non_null(strstr(redis_trouble(st->redis), "set store.cluster"));
    close_stage(st);
}

static void test_script_is_sent_where_it_is_not_known(void **state)
{
    struct redis_script script = {.text = "return 1"};
    struct span argv[] = {SPAN("x"), SPAN("")};
    struct stage *st = open_stage();
    (void)state;
    redis_script_ready(&script);
    assert_string_equal(script.sha, "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
    open_redis(st);
    struct server *s = &st->servers[0];
    s->rules[0] = (struct rule){"EVALSHA", "-NOSCRIPT No matching script.\r\n", 1};
    s->heard[0] = '\0';
    for (int i = 0; i < 2; i++) {
        struct result *x = &st->results[st->nresults++];
        x->stage = st;
        x->call =
            redis_run(st->redis, &script, i ? span_of(NULL, 0) : SPAN("k"), argv, 2, 0, done, x);
        UNTIL(st, x->done);
        expect(x, REDIS_REPLY_STATUS, "OK");
    }
    assert_string_equal(s->heard, "EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 1 k x ;"
                                  "EVAL return 1 1 k x ;"
                                  "EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0 x ;");
    assert_int_equal(figures(st).scripts, 1);
    close_stage(st);
}

static void test_too_many_in_flight(void **state)
{
    struct stage *st = open_stage();
    (void)state;
    st->settings.in_flight = 4;
    open_redis(st);
    for (int i = 0; i < 6; i++)
        send_within(st, "GET a", 0);
    UNTIL(st, st->ended == 6);
    for (int i = 0; i < 6; i++)
        expect(&st->results[i], i < 4 ? REDIS_REPLY_STATUS : 0, i < 4 ? "OK" : "busy");
    expect(call(st, "GET a"), REDIS_REPLY_STATUS, "OK");
    close_stage(st);
}

static void test_breaker_opens_and_a_ping_closes_it(void **state)
{
    struct stage *st = open_stage();
    (void)state;
    open_redis(st);
    st->servers[0].rules[0] = (struct rule){"GET", silent, 3};
    for (int i = 0; i < 3; i++) {
        assert_true(redis_up(st->redis));
        send_within(st, "GET a", 10);
        UNTIL(st, st->ended == (unsigned)i + 1);
        expect(&st->results[i], 0, "deadline");
    }
    assert_false(redis_up(st->redis));
    assert_false(redis_reaches(st->redis, SPAN("a")));
    expect(call(st, "DEL a"), 0, "not connected");
    assert_int_equal(figures(st).openings, 1);
    say(&st->servers[0], ":1\r\n:2\r\n:3\r\n", 12); /* late, but in time for the connection */
    UNTIL(st, redis_up(st->redis));
    assert_int_equal(figures(st).late, 3);
    assert_int_equal(figures(st).connections, 1);
    expect(call(st, "DEL a"), REDIS_REPLY_STATUS, "OK");
    close_stage(st);
}

static void test_two_deadlines_and_a_reply_do_not_open_it(void **state)
{
    struct stage *st = open_stage();
    (void)state;
    open_redis(st);
    for (int i = 0; i < 4; i++) {
        st->servers[0].rules[0] = (struct rule){"GET", silent, 2};
        send_within(st, "GET a", 10);
        send_within(st, "GET a", 10);
        UNTIL(st, st->ended == 3 * (unsigned)i + 2);
        say(&st->servers[0], ":1\r\n:2\r\n", 8);
        expect(call(st, "DEL a"), REDIS_REPLY_STATUS, "OK");
        assert_true(redis_up(st->redis));
    }
    close_stage(st);
}

static void test_reply_late_by_more_than_a_second_ends_the_connection(void **state)
{
    struct stage *st = open_stage();
    (void)state;
    open_redis(st);
    st->servers[0].rules[0] = (struct rule){"GET", silent, 1};
    const struct result *x = send_within(st, "GET a", 10);
    UNTIL(st, st->servers[0].accepted == 2 && redis_up(st->redis));
    expect(x, 0, "deadline");
    assert_int_equal(figures(st).connections, 2);
    close_stage(st);
}

static void test_who_forgets_is_not_told(void **state)
{
    struct stage *st = open_stage();
    (void)state;
    open_redis(st);
    struct result *x = send_within(st, "GET a", 0), *y = send_within(st, "GET b", 0);
    redis_forget(&x->call);
    assert_null(x->call);
    redis_forget(&x->call);
    UNTIL(st, y->done);
    assert_int_equal(x->done, 0);
    x->done = 1;
    st->servers[0].rules[0] = (struct rule){"GET", silent, 0};
    struct result *z = send_within(st, "GET c", 10); /* forgotten, then late */
    redis_forget(&z->call);
    z->done = 1;
    UNTIL(st, figures(st).faults[REDIS_DEADLINE] == 1);
    assert_int_equal(z->done, 1);
    close_stage(st);
}

static unsigned insisted;
static void insist(void *arg, const struct redisReply *r, const char *why)
{
    struct stage *st = arg;
    struct span word = SPAN("GET");
    assert_null(r);
    if (strcmp(why, "closed") == 0)
        assert_null(redis_send(st->redis, word, &word, 1, 0, insist, st));
    else if (++insisted)
        redis_send(st->redis, word, &word, 1, 0, insist, st);
}

static void test_who_insists_does_not_stop_the_loop(void **state)
{
    struct stage *st = open_stage();
    struct span word = SPAN("GET");
    (void)state;
    st->servers[0].rules[0] = (struct rule){"PING", silent, 0};
    st->redis = redis_open(st->base, &st->settings);
    redis_send(st->redis, word, &word, 1, 0, insist, st);
    UNTIL(st, st->servers[0].accepted == 1 && insisted > 10); /* others are served meanwhile */
    struct redis *r = st->redis;
    redis_close(&r);
    st->redis = NULL;
    close_stage(st);
}

static void test_close_tells_everybody(void **state)
{
    struct stage *st = open_stage();
    (void)state;
    open_redis(st);
    st->servers[0].rules[0] = (struct rule){"GET", silent, 0};
    struct result *x = send_within(st, "GET a", 0), *y = send_within(st, "GET a", 10);
    UNTIL(st, y->done);
    struct result *z = send_within(st, "GET a", 0);
    redis_close(&st->redis);
    expect(x, 0, "closed");
    expect(y, 0, "deadline");
    expect(z, 0, "closed");
    close_stage(st);
}

static void test_server_that_is_not_there(void **state)
{
    struct stage *st = open_stage();
    (void)state;
    st->addresses[0] = SPAN("unix:/nonexistent/redis.sock");
    st->redis = redis_open(st->base, &st->settings);
    expect(call(st, "GET a"), 0, "not connected");
    UNTIL(st, strstr(redis_trouble(st->redis), "cannot connect: No such file or directory"));
    close_stage(st);
}

/* ---- a cluster: keys of slots 0-8191 are the first server's; b: 3300, a: 15495 ---- */

static struct stage *open_cluster(void)
{
    struct stage *st = open_stage();
    st->settings.cluster = true;
    open_redis(st);
    for (size_t i = 0; i < SERVERS; i++)
        st->servers[i].heard[0] = '\0';
    return st;
}

static const char *to(const struct server *s, const char *word, const char *key_slot)
{
    static char out[4][80];
    static unsigned turn;
    char *p = out[turn++ % 4];
    snprintf(p, sizeof out[0], "-%s %s %s\r\n", word, key_slot, s->address);
    return p;
}

static void test_key_picks_the_shard(void **state)
{
    struct stage *st = open_cluster();
    (void)state;
    call(st, "GET a");
    call(st, "GET b");
    call(st, "GET x{a}");
    assert_string_equal(st->servers[0].heard, "GET b;");
    assert_string_equal(st->servers[1].heard, "GET a;GET x{a};");
    assert_int_equal(figures(st).servers, 2);
    close_stage(st);
}

static void test_moved_is_followed_and_remembered(void **state)
{
    struct stage *st = open_cluster();
    (void)state;
    st->servers[1].rules[0] = (struct rule){"GET", to(&st->servers[0], "MOVED", "15495"), 1};
    st->servers[0].rules[0] = (struct rule){"CLUSTER", silent, 0};
    st->servers[1].rules[1] = (struct rule){"CLUSTER", silent, 0};
    expect(call(st, "GET a"), REDIS_REPLY_STATUS, "OK");
    expect(call(st, "GET a"), REDIS_REPLY_STATUS, "OK");
    assert_string_equal(st->servers[0].heard, "GET a;GET a;");
    assert_string_equal(st->servers[1].heard, "GET a;");
    close_stage(st);
}

static void test_ask_is_followed_once_and_not_remembered(void **state)
{
    struct stage *st = open_cluster();
    (void)state;
    st->servers[1].rules[0] = (struct rule){"GET", to(&st->servers[0], "ASK", "15495"), 1};
    expect(call(st, "GET a"), REDIS_REPLY_STATUS, "OK");
    expect(call(st, "GET a"), REDIS_REPLY_STATUS, "OK");
    assert_string_equal(st->servers[0].heard, "ASKING;GET a;");
    assert_string_equal(st->servers[1].heard, "GET a;GET a;");
    close_stage(st);
}

static void test_redirections_in_a_circle_end(void **state)
{
    static const char *const words[] = {"MOVED", "ASK"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct stage *st = open_cluster();
        st->servers[0].rules[0] = (struct rule){"GET", to(&st->servers[1], words[i], "15495"), 0};
        st->servers[1].rules[0] = (struct rule){"GET", to(&st->servers[0], words[i], "15495"), 0};
        expect(call(st, "GET a"), 0, "redirected astray");
        assert_int_equal(figures(st).redirections, 5);
        expect(call(st, "DEL a"), REDIS_REPLY_STATUS, "OK");
        close_stage(st);
    }
}

static void test_redirection_to_nowhere(void **state)
{
    static const struct {
        const char *reply, *text;
    } t[] = {
        {"-MOVED 15495 redis.example:6379\r\n", "redirected astray"},
        {"-MOVED 99999 127.0.0.1:6379\r\n", "redirected astray"},
        {"-ASK\r\n", "redirected astray"},
        {"-ASK 15495 127.0.0.1:1\r\n", "connection lost"}, /* nobody is there */
    };
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct stage *st = open_cluster();
        st->servers[1].rules[0] = (struct rule){"GET", t[i].reply, 1};
        expect(call(st, "GET a"), 0, t[i].text);
        assert_true(redis_reaches(st->redis, SPAN("b")));
        close_stage(st);
    }
}

static void test_try_again_is_tried_until_the_deadline(void **state)
{
    struct stage *st = open_cluster();
    (void)state;
    st->servers[0].rules[0] = (struct rule){"GET", "-TRYAGAIN Multiple keys\r\n", 3};
    expect(call(st, "GET b"), REDIS_REPLY_STATUS, "OK");
    assert_string_equal(st->servers[0].heard, "GET b;GET b;GET b;GET b;");
    st->servers[0].rules[0] = (struct rule){"GET", "-TRYAGAIN Multiple keys\r\n", 0};
    const struct result *x = send_within(st, "GET b", 30);
    UNTIL(st, x->done);
    expect(x, 0, "deadline");
    close_stage(st);
}

static void test_shard_that_is_lost_is_looked_for(void **state)
{
    struct stage *st = open_cluster();
    (void)state;
    st->servers[0].rules[0] = (struct rule){"GET", hang_up, 1};
    expect(call(st, "GET b"), 0, "connection lost");
    assert_false(redis_up(st->redis));
    assert_true(redis_reaches(st->redis, SPAN("a")));
    assert_false(redis_reaches(st->redis, SPAN("b")));
    UNTIL(st, redis_up(st->redis));
    expect(call(st, "GET b"), REDIS_REPLY_STATUS, "OK");
    UNTIL(st, strstr(st->servers[1].heard, "CLUSTER SLOTS;") ||
                  strstr(st->servers[0].heard, "CLUSTER SLOTS;"));
    close_stage(st);
}

static void test_map_that_makes_no_sense_is_asked_for_again(void **state)
{
    struct stage *st = open_stage();
    (void)state;
    st->settings.cluster = true;
    st->servers[0].rules[0] = (struct rule){"CLUSTER", "*1\r\n:1\r\n", 1};
    st->servers[0].rules[1] = (struct rule){"CLUSTER", "-ERR no\r\n", 1};
    st->servers[0].rules[2] = (struct rule){"CLUSTER", "*0\r\n", 1};
    st->redis = redis_open(st->base, &st->settings);
    UNTIL(st, figures(st).connections == 1 && strstr(st->servers[0].heard, "CLUSTER"));
    expect(call(st, "GET b"), 0, "not connected");
    UNTIL(st, redis_up(st->redis));
    close_stage(st);
}

/* ---- Sentinel: the first server is one, the second the master ---- */

static void test_sentinel_names_the_master_and_role_confirms(void **state)
{
    struct stage *st = open_stage();
    (void)state;
    st->settings.sentinels = st->addresses;
    st->settings.nsentinels = 1;
    st->settings.nservers = 0;
    st->settings.master = (char[]){"m"};
    st->servers[1].replica = true;
    st->redis = redis_open(st->base, &st->settings);
    UNTIL(st, st->servers[1].accepted == 2); /* it is none: not used, asked again */
    assert_false(redis_up(st->redis));
    st->servers[1].replica = false;
    UNTIL(st, redis_up(st->redis));
    assert_non_null(strstr(st->servers[0].heard, "PING;SENTINEL get-master-addr-by-name m;"));
    expect(call(st, "GET a"), REDIS_REPLY_STATUS, "OK");
    st->servers[1].rules[0] = (struct rule){"SET", "-READONLY You can't write\r\n", 1};
    unsigned before = st->servers[0].accepted;
    expect(call(st, "SET a"), 0, "read-only");
    UNTIL(st, st->servers[0].accepted > before && redis_up(st->redis));
    close_stage(st);
}

static void test_sentinel_that_does_not_know(void **state)
{
    static const char *const t[] = {"*-1\r\n",
                                    "$-1\r\n",
                                    "-IDONTKNOW\r\n",
                                    "*1\r\n$1\r\na\r\n",
                                    "*2\r\n$4\r\nname\r\n$2\r\n12\r\n",
                                    "garbage\r\n",
                                    hang_up};
    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct stage *st = open_stage();
        struct span both[] = {st->addresses[0], st->addresses[0]};
        st->settings.sentinels = both;
        st->settings.nsentinels = 2;
        st->settings.nservers = 0;
        st->settings.master = (char[]){"m"};
        st->servers[0].rules[0] = (struct rule){"SENTINEL", t[i], 3};
        st->redis = redis_open(st->base, &st->settings);
        UNTIL(st, redis_up(st->redis));
        assert_int_equal(st->servers[0].accepted, 4);
        close_stage(st);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls_of_one_turn_leave_in_one_write),
        cmocka_unit_test(test_greeting),
        cmocka_unit_test(test_greeting_that_is_refused),
        cmocka_unit_test(test_bytes_that_are_no_reply_end_the_connection),
        cmocka_unit_test(test_reply_that_is_too_long),
        cmocka_unit_test(test_reply_that_nobody_asked_for),
        cmocka_unit_test(test_half_a_reply_then_the_deadline_then_the_rest),
        cmocka_unit_test(test_connection_closed_in_the_middle),
        cmocka_unit_test(test_errors_mean_what_they_mean),
        cmocka_unit_test(test_script_is_sent_where_it_is_not_known),
        cmocka_unit_test(test_too_many_in_flight),
        cmocka_unit_test(test_breaker_opens_and_a_ping_closes_it),
        cmocka_unit_test(test_two_deadlines_and_a_reply_do_not_open_it),
        cmocka_unit_test(test_reply_late_by_more_than_a_second_ends_the_connection),
        cmocka_unit_test(test_who_forgets_is_not_told),
        cmocka_unit_test(test_who_insists_does_not_stop_the_loop),
        cmocka_unit_test(test_close_tells_everybody),
        cmocka_unit_test(test_server_that_is_not_there),
        cmocka_unit_test(test_key_picks_the_shard),
        cmocka_unit_test(test_moved_is_followed_and_remembered),
        cmocka_unit_test(test_ask_is_followed_once_and_not_remembered),
        cmocka_unit_test(test_redirections_in_a_circle_end),
        cmocka_unit_test(test_redirection_to_nowhere),
        cmocka_unit_test(test_try_again_is_tried_until_the_deadline),
        cmocka_unit_test(test_shard_that_is_lost_is_looked_for),
        cmocka_unit_test(test_map_that_makes_no_sense_is_asked_for_again),
        cmocka_unit_test(test_sentinel_names_the_master_and_role_confirms),
        cmocka_unit_test(test_sentinel_that_does_not_know),
    };
    log_open("stderr", LOG_NOTHING);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
