/* fake_redis.h - redis.h answered in process: one server in memory for all who open it, which can
 * be away, deaf, or lose a reply. Include it in one test program: it defines the functions of
 * redis.c. */
#ifndef FAKE_REDIS_H
#define FAKE_REDIS_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <hiredis/hiredis.h>

#include <event2/event.h>

#include "id.h"
#include "redis.h"

enum { FAKE_ENTRIES = 4096, FAKE_KEYS = 16, FAKE_WORDS = 24, FAKE_FIELDS = 64 };

struct fake_entry {
    char key[64], id[40];
    uint8_t *word[FAKE_WORDS];
    size_t n[FAKE_WORDS], words;
};

static struct {
    pthread_mutex_t lock;
    bool away;     /* nobody is connected */
    bool deaf;     /* takes commands and never answers */
    unsigned lose; /* replies to so many XADDs are lost, though they are carried out */
    int64_t ahead; /* ms its clock is ahead of ours */
    uint64_t last; /* ms, number of the last id */
    unsigned number;
    struct fake_entry entry[FAKE_ENTRIES]; /* of all streams */
    size_t entries;
    struct {
        char name[256], value[4096];
    } node[FAKE_FIELDS]; /* of the only hash */
    size_t nodes;
    struct {
        char key[160];
        uint8_t value[4096];
        size_t n;
    } string[FAKE_FIELDS];
    size_t strings;
    unsigned gets, sets;  /* of strings */
    char wrong[64];       /* a key with something else under it */
    char renamed[2][128]; /* the last RENAME */
} fake = {.lock = PTHREAD_MUTEX_INITIALIZER};

struct redis {
    struct event_base *base;
    struct redis_call *calls;
};
struct redis_call {
    struct redis_call *next;
    struct redis *redis;
    struct event *event;
    redisReply *reply; /* NULL: none */
    redis_done_fn *done;
    void *arg;
};

/* ---- answers, as they come over the wire ---- */

struct wire {
    char *text;
    size_t n, cap;
};

static void wire_add(struct wire *w, const void *p, size_t n)
{
    while (w->n + n > w->cap)
        w->text = realloc(w->text, w->cap = w->cap ? 2 * w->cap : 4096);
    if (n)
        memcpy(w->text + w->n, p, n);
    w->n += n;
}

static void wire_head(struct wire *w, char kind, size_t n)
{
    char text[32];
    wire_add(w, text, (size_t)snprintf(text, sizeof text, "%c%zu\r\n", kind, n));
}

static void wire_bulk(struct wire *w, const void *p, size_t n)
{
    wire_head(w, '$', n);
    wire_add(w, p, n);
    wire_add(w, "\r\n", 2);
}

static void wire_str(struct wire *w, const char *s)
{
    wire_bulk(w, s, strlen(s));
}

static int64_t fake_time(void)
{
    return clock_own() + fake.ahead;
}

static void fake_clock(struct wire *w)
{
    char s[32], us[32];
    int64_t t = fake_time();
    snprintf(s, sizeof s, "%lld", (long long)(t / 1000));
    snprintf(us, sizeof us, "%lld", (long long)(t % 1000 * 1000));
    wire_head(w, '*', 2);
    wire_str(w, s);
    wire_str(w, us);
}

/* XADD key MAXLEN ~ n * field value ... */
static void fake_xadd(struct wire *w, const struct span *argv, size_t argc)
{
    struct fake_entry *e = &fake.entry[fake.entries++];
    uint64_t now = (uint64_t)fake_time();
    fake.number = now > fake.last ? 0 : fake.number + 1;
    fake.last = now > fake.last ? now : fake.last;
    span_show(argv[1], e->key, sizeof e->key);
    snprintf(e->id, sizeof e->id, "%llu-%u", (unsigned long long)fake.last, fake.number);
    for (size_t i = 6; i < argc; i++) {
        e->word[e->words] = malloc(argv[i].n + 1);
        memcpy(e->word[e->words], argv[i].p, argv[i].n);
        e->n[e->words++] = argv[i].n;
    }
    wire_str(w, e->id);
}

static bool fake_after(const char *id, const char *last)
{
    unsigned long long a, b, c, d;
    sscanf(id, "%llu-%llu", &a, &b);
    sscanf(last, "%llu-%llu", &c, &d);
    return a != c ? a > c : b > d;
}

/* XREAD COUNT n STREAMS key id */
static void fake_xread(struct wire *w, const struct span *argv)
{
    char key[64], last[64];
    size_t found[FAKE_ENTRIES], n = 0, most = (size_t)strtoul((const char *)argv[2].p, NULL, 10);
    span_show(argv[4], key, sizeof key);
    span_show(argv[5], last, sizeof last);
    for (size_t i = 0; i < fake.entries && n < most; i++)
        if (strcmp(fake.entry[i].key, key) == 0 && fake_after(fake.entry[i].id, last))
            found[n++] = i;
    if (!n) {
        wire_add(w, "*-1\r\n", 5);
        return;
    }
    wire_head(w, '*', 1);
    wire_head(w, '*', 2);
    wire_str(w, key);
    wire_head(w, '*', n);
    for (size_t i = 0; i < n; i++) {
        const struct fake_entry *e = &fake.entry[found[i]];
        wire_head(w, '*', 2);
        wire_str(w, e->id);
        wire_head(w, '*', e->words);
        for (size_t k = 0; k < e->words; k++)
            wire_bulk(w, e->word[k], e->n[k]);
    }
}

static void fake_hset(struct span name, struct span value)
{
    size_t i = 0;
    while (i < fake.nodes && !span_eq(span_str(fake.node[i].name), name))
        i++;
    if (i == fake.nodes)
        fake.nodes++;
    span_show(name, fake.node[i].name, sizeof fake.node[i].name);
    span_show(value, fake.node[i].value, sizeof fake.node[i].value);
}

static void fake_hdel(struct span name)
{
    for (size_t i = 0; i < fake.nodes; i++)
        if (span_eq(span_str(fake.node[i].name), name))
            fake.node[i] = fake.node[--fake.nodes];
}

/* Where a string is, or the first free place. */
static size_t fake_string(struct span key)
{
    size_t i = 0;
    while (i < fake.strings && !span_eq(span_str(fake.string[i].key), key))
        i++;
    return i;
}

static void fake_get(struct wire *w, struct span key)
{
    size_t i = fake_string(key);
    fake.gets++;
    if (i < fake.strings)
        wire_bulk(w, fake.string[i].value, fake.string[i].n);
    else
        wire_add(w, "$-1\r\n", 5);
}

/* The only script there is: compare and set. ARGV: version, value, life. */
static void fake_cas(struct wire *w, struct span key, const struct span *argv)
{
    size_t i = fake_string(key);
    struct span version =
        span_of(fake.string[i].value, fake.string[i].n < 8 ? fake.string[i].n : 8);
    if (!span_eq(i < fake.strings ? version : span_of(NULL, 0), argv[0])) {
        fake_get(w, key);
        return;
    }
    if (i == fake.strings)
        fake.strings++;
    memcpy(fake.string[i].key, key.p, key.n);
    fake.string[i].key[key.n] = '\0';
    memcpy(fake.string[i].value, argv[1].p, argv[1].n);
    fake.string[i].n = argv[1].n;
    fake.sets++;
    wire_add(w, ":1\r\n", 4);
}

static void fake_answer(struct wire *w, const struct span *argv, size_t argc)
{
    struct span key = argc > 1 ? argv[1] : span_of(NULL, 0);
    if (span_eq(argv[0], SPAN("XREAD")))
        key = argv[4];
    if (span_eq(argv[0], SPAN("RENAME"))) {
        span_show(argv[1], fake.renamed[0], sizeof fake.renamed[0]);
        span_show(argv[2], fake.renamed[1], sizeof fake.renamed[1]);
        fake.wrong[0] = '\0';
        wire_add(w, "+OK\r\n", 5);
    } else if (fake.wrong[0] && span_eq(key, span_str(fake.wrong))) {
        wire_add(w, "-WRONGTYPE no\r\n", 15);
    } else if (span_eq(argv[0], SPAN("GET"))) {
        fake_get(w, argv[1]);
    } else if (span_eq(argv[0], SPAN("CAS"))) {
        fake_cas(w, argv[1], argv + 2);
    } else if (span_eq(argv[0], SPAN("TIME"))) {
        fake_clock(w);
    } else if (span_eq(argv[0], SPAN("XADD"))) {
        fake_xadd(w, argv, argc);
    } else if (span_eq(argv[0], SPAN("XREAD"))) {
        fake_xread(w, argv);
    } else if (span_eq(argv[0], SPAN("HSET"))) {
        fake_hset(argv[2], argv[3]);
        wire_add(w, ":1\r\n", 4);
    } else if (span_eq(argv[0], SPAN("HDEL"))) {
        fake_hdel(argv[2]);
        wire_add(w, ":1\r\n", 4);
    } else if (span_eq(argv[0], SPAN("HGETALL"))) {
        wire_head(w, '*', 2 * fake.nodes);
        for (size_t i = 0; i < fake.nodes; i++) {
            wire_str(w, fake.node[i].name);
            wire_str(w, fake.node[i].value);
        }
    } else {
        wire_add(w, "-ERR unknown command\r\n", 22);
    }
}

/* ---- redis.h ---- */

static void fake_unlink(struct redis_call *c)
{
    struct redis_call **at = &c->redis->calls;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    event_free(c->event);
}

static void fake_deliver(evutil_socket_t fd, short what, void *arg)
{
    struct redis_call *c = arg;
    (void)fd, (void)what;
    fake_unlink(c);
    if (c->done)
        c->done(c->arg, c->reply, c->reply ? NULL : "deadline");
    freeReplyObject(c->reply);
    free(c);
}

struct redis *redis_open(struct event_base *base, const struct redis_settings *settings)
{
    struct redis *r = calloc(1, sizeof *r);
    (void)settings;
    r->base = base;
    return r;
}

void redis_close(struct redis **rp)
{
    struct redis *r = *rp;
    *rp = NULL;
    while (r && r->calls) {
        struct redis_call *c = r->calls;
        fake_unlink(c);
        if (c->done)
            c->done(c->arg, NULL, "closed");
        freeReplyObject(c->reply);
        free(c);
    }
    free(r);
}

static void fake_carry_out(struct redis_call *c, const struct span *argv, size_t argc)
{
    struct wire w = {0};
    redisReader *reader = redisReaderCreate();
    void *reply = NULL;
    fake_answer(&w, argv, argc);
    redisReaderFeed(reader, w.text, w.n);
    redisReaderGetReply(reader, &reply);
    redisReaderFree(reader);
    free(w.text);
    if (span_eq(argv[0], SPAN("XADD")) && fake.lose) {
        fake.lose--;
        freeReplyObject(reply);
        return;
    }
    c->reply = reply;
}

struct redis_call *redis_send(struct redis *r, struct span key, const struct span *argv,
                              size_t argc, int64_t deadline_ms, redis_done_fn *done, void *arg)
{
    struct redis_call *c = calloc(1, sizeof *c);
    struct timeval now = {0, 0}, late = clock_timeval(deadline_ms ? deadline_ms : 50);
    (void)key;
    *c = (struct redis_call){.next = r->calls, .redis = r, .done = done, .arg = arg};
    r->calls = c;
    pthread_mutex_lock(&fake.lock);
    bool silent = fake.deaf;
    if (!fake.away && !fake.deaf)
        fake_carry_out(c, argv, argc);
    pthread_mutex_unlock(&fake.lock);
    c->event = evtimer_new(r->base, fake_deliver, c);
    evtimer_add(c->event, silent ? &late : &now);
    return c;
}

void redis_script_ready(struct redis_script *script)
{
    script->sha[0] = '-';
}

struct redis_call *redis_run(struct redis *r, const struct redis_script *script, struct span key,
                             const struct span *argv, size_t argc, int64_t deadline_ms,
                             redis_done_fn *done, void *arg)
{
    struct span words[8] = {SPAN("CAS"), key};
    if (script->sha[0] != '-' || argc > 6)
        abort();
    memcpy(words + 2, argv, argc * sizeof *argv);
    return redis_send(r, key, words, argc + 2, deadline_ms, done, arg);
}

bool redis_reaches(const struct redis *r, struct span key)
{
    (void)key;
    return redis_up(r);
}

void redis_forget(struct redis_call **cp)
{
    struct redis_call *c = *cp;
    *cp = NULL;
    if (c)
        c->done = NULL;
}

bool redis_up(const struct redis *r)
{
    (void)r;
    pthread_mutex_lock(&fake.lock);
    bool up = !fake.away;
    pthread_mutex_unlock(&fake.lock);
    return up;
}

const char *redis_trouble(const struct redis *r)
{
    return redis_up(r) ? NULL : "it is not there";
}

static inline void fake_set(bool *what, bool is)
{
    pthread_mutex_lock(&fake.lock);
    *what = is;
    pthread_mutex_unlock(&fake.lock);
}

static inline size_t fake_entries(void)
{
    pthread_mutex_lock(&fake.lock);
    size_t n = fake.entries;
    pthread_mutex_unlock(&fake.lock);
    return n;
}

static void fake_clear(void)
{
    pthread_mutex_lock(&fake.lock);
    for (size_t i = 0; i < fake.entries; i++)
        for (size_t k = 0; k < fake.entry[i].words; k++)
            free(fake.entry[i].word[k]);
    memset(fake.entry, 0, sizeof fake.entry);
    fake.entries = fake.nodes = fake.strings = 0;
    fake.gets = fake.sets = 0;
    fake.away = fake.deaf = false;
    fake.lose = fake.number = 0;
    fake.ahead = 0;
    fake.last = 0;
    fake.wrong[0] = fake.renamed[0][0] = fake.renamed[1][0] = '\0';
    pthread_mutex_unlock(&fake.lock);
}

#endif
