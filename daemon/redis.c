/*
 * redis.c - calls: to which server, by when, and what an error means.
 *
 *   redis_send -> [held: its server is being connected to] -> on a connection's line -> reply
 *                 [again: TRYAGAIN, in some ms           ]    |  deadline: done(NULL), the call
 *                 [refused: done(NULL) in this turn      ]    |  stays in line until the reply
 * comes
 *
 * Invariant: a call is in exactly one of these places until it is freed, and its done is called, or
 * it was forgotten, before that.
 */
#include <assert.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

#include "id.h"
#include "log.h"
#include "redis.h"
#include "redis_route.h"

enum {
    HOPS = 5,  /* redirections of one call */
    AGAIN = 5, /* ms until TRYAGAIN is tried again */
};

enum place { PLACE_REFUSED, PLACE_HELD, PLACE_AGAIN, PLACE_LINE };

struct redis_call {
    struct redis_wait wait; /* must be first */
    TAILQ_ENTRY(redis_call) next;
    TAILQ_ENTRY(redis_call) later; /* by deadline */
    struct redis *redis;
    struct redis_link *link; /* held, in line: whose */
    redis_done_fn *done;     /* NULL: nobody wants to know */
    void *arg;
    const struct redis_script *script; /* whose text was not sent yet; NULL: none */
    char *bytes;
    size_t n;
    int64_t sent;     /* clock_micros() */
    enum place place; /* where it is */
    enum redis_fault fault;
    uint16_t slot;
    uint8_t hops;
    bool keyed, asking;
    bool told; /* done was called, or is not to be */
};
TAILQ_HEAD(redis_calls, redis_call);

struct redis {
    const struct redis_settings *settings;
    struct redis_route route;
    bool closing;
    bool demoted; /* the only server says that it is no master any more */
    struct redis_calls refused, held, again, due;
    struct event *turn;        /* at the end of this turn of the loop: flush */
    struct event *refusals;    /* in the next one */
    struct event *deadlines;   /* of the first call of due */
    struct event *again_timer; /* TRYAGAIN */
    struct redis_figures figures;
};

static void start(struct redis_call *);
static void answered(struct redis_wait *, const redisReply *);

const char *redis_fault_name(enum redis_fault f)
{
    static const char *const names[REDIS_FAULTS] = {
        [REDIS_NO_FAULT] = "none",
        [REDIS_NOT_CONNECTED] = "not connected",
        [REDIS_BUSY] = "busy",
        [REDIS_DEADLINE] = "deadline",
        [REDIS_LOST] = "connection lost",
        [REDIS_LOADING] = "loading or down",
        [REDIS_READONLY] = "read-only",
        [REDIS_DENIED] = "denied",
        [REDIS_FULL] = "takes no writes",
        [REDIS_ASTRAY] = "redirected astray",
    };
    return f < REDIS_FAULTS ? names[f] : "unknown";
}

/* ---- the end of a call ---- */

static void arm(struct event *timer, int64_t ms)
{
    struct timeval tv = clock_timeval(ms > 0 ? ms : 0);
    if (evtimer_add(timer, &tv))
        abort();
}

static void free_call(struct redis_call *c)
{
    redisFreeCommand(c->bytes);
    free(c);
}

/* Tells the owner, once. The call stays where it is. */
static void tell(struct redis_call *c, const redisReply *reply, enum redis_fault fault)
{
    struct redis *r = c->redis;
    redis_done_fn *done = c->done;
    if (c->told)
        return;
    c->told = true;
    c->done = NULL;
    TAILQ_REMOVE(&r->due, c, later);
    if (!reply)
        r->figures.faults[fault]++;
    if (done)
        done(c->arg, reply, reply ? NULL : r->closing ? "closed" : redis_fault_name(fault));
}

static void end_call(struct redis_call *c, const redisReply *reply, enum redis_fault fault)
{
    tell(c, reply, fault);
    free_call(c);
}

static struct redis_calls *list_of(struct redis_call *c)
{
    struct redis *r = c->redis;
    return c->place == PLACE_REFUSED ? &r->refused : c->place == PLACE_HELD ? &r->held : &r->again;
}

static void put(struct redis_call *c, enum place place)
{
    c->place = place;
    TAILQ_INSERT_TAIL(list_of(c), c, next);
}

static void refuse(struct redis_call *c, enum redis_fault fault)
{
    c->fault = fault;
    put(c, PLACE_REFUSED);
    if (!evtimer_pending(c->redis->refusals, NULL))
        arm(c->redis->refusals, 0);
}

/* ---- deadlines ---- */

/* Mostly all have the same deadline: it comes last. */
static void set_deadline(struct redis_call *c, int64_t ms)
{
    struct redis *r = c->redis;
    struct redis_call *before = TAILQ_LAST(&r->due, redis_calls);
    c->wait.due = clock_mono() + ms;
    while (before && before->wait.due > c->wait.due)
        before = TAILQ_PREV(before, redis_calls, later);
    if (before)
        TAILQ_INSERT_AFTER(&r->due, before, c, later);
    else
        TAILQ_INSERT_HEAD(&r->due, c, later);
    if (TAILQ_FIRST(&r->due) == c)
        arm(r->deadlines, ms);
}

static void miss(struct redis_call *c)
{
    if (c->place != PLACE_LINE) {
        TAILQ_REMOVE(list_of(c), c, next);
        end_call(c, NULL, c->place == PLACE_REFUSED ? c->fault : REDIS_DEADLINE);
        return;
    }
    redis_link_bad(c->link);
    tell(c, NULL, REDIS_DEADLINE);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    struct redis *r = arg;
    int64_t now = clock_mono();
    struct redis_call *c;
    (void)fd;
    (void)what;
    /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): tell() has taken the last one out of due */
    while ((c = TAILQ_FIRST(&r->due)) && c->wait.due <= now)
        miss(c);
    if (c)
        arm(r->deadlines, c->wait.due - now);
}

/* ---- where to ---- */

/* Bytes into the line of c's server. */
static void send_bytes(struct redis_call *c)
{
    c->place = PLACE_LINE;
    redis_link_send(c->link, &c->wait, c->bytes, c->n);
}

static void start(struct redis_call *c)
{
    struct redis *r = c->redis;
    bool any = r->settings->cluster && !c->keyed;
    struct redis_link *l = any ? redis_route_any(&r->route) : redis_route_of(&r->route, c->slot);
    c->link = l;
    c->asking = false;
    if (!l || !redis_link_up(l))
        refuse(c, REDIS_NOT_CONNECTED);
    else if (l->nwaits >= r->settings->in_flight)
        refuse(c, REDIS_BUSY);
    else
        send_bytes(c);
}

/* ---- what stays wrong ---- */

enum complaint { CLUSTERED, DENIED, FULL, COMPLAINTS };

static void complain(struct redis_link *l, enum complaint which, const char *sentence)
{
    static _Atomic int64_t said[COMPLAINTS];
    struct redis *r = l->arg;
    redis_route_complain(&r->route, l->address, sentence);
    redis_complain(&said[which], l->address, sentence);
}

/* ---- redirections ---- */

static void asked(struct redis_wait *w, const redisReply *reply)
{
    (void)reply; /* the command behind it says how it went */
    free(w);
}

static void say_asking(struct redis_call *c)
{
    static const char bytes[] = "*1\r\n$6\r\nASKING\r\n";
    struct redis_wait *w = calloc(1, sizeof *w);
    if (!w)
        abort();
    w->answer = asked;
    w->due = c->wait.due;
    redis_link_send(c->link, w, bytes, sizeof bytes - 1);
}

/* To a server that we may only get to know now. */
static void follow(struct redis_call *c)
{
    if (c->link->state != REDIS_READY) {
        put(c, PLACE_HELD);
        return;
    }
    if (c->link->breaker.open) {
        refuse(c, REDIS_NOT_CONNECTED);
        return;
    }
    if (c->asking)
        say_asking(c);
    send_bytes(c);
}

static void redirect(struct redis_call *c, const redisReply *reply, bool asking)
{
    struct redis *r = c->redis;
    struct redis_redirection to;
    struct redis_link *l = NULL;
    if (r->settings->cluster && c->hops++ < HOPS &&
        redis_redirection(span_of(reply->str, reply->len), span_str(c->link->address), &to))
        l = redis_route_to(&r->route, to.address);
    if (!r->settings->cluster)
        complain(c->link, CLUSTERED, "is part of a cluster: set store.cluster");
    if (!asking && l)
        redis_route_moved(&r->route, to.slot, l);
    if (!l) {
        end_call(c, NULL, REDIS_ASTRAY);
        return;
    }
    r->figures.redirections++;
    c->link = l;
    c->asking = asking;
    follow(c);
}

static void try_again(struct redis_call *c)
{
    struct redis *r = c->redis;
    r->figures.redirections++;
    put(c, PLACE_AGAIN);
    if (!evtimer_pending(r->again_timer, NULL))
        arm(r->again_timer, AGAIN);
}

/* ---- replies ---- */

/* The word that says what is wrong. Before Redis 7 a script's errors are wrapped into one. */
static struct span error_word(const redisReply *reply)
{
    struct span s = span_of(reply->str, reply->len);
    const uint8_t *inner =
        span_starts(s, SPAN("ERR Error running script")) ? memmem(s.p, s.n, ": -", 3) : NULL;
    if (inner)
        s = span_from(s, (size_t)(inner - s.p) + 3);
    return span_head(s, span_find(s, ' '));
}

static enum redis_fault fault_of(struct span word)
{
    static const struct {
        struct span word;
        enum redis_fault fault;
    } faults[] = {
        {SPAN_INIT("LOADING"), REDIS_LOADING},    {SPAN_INIT("CLUSTERDOWN"), REDIS_LOADING},
        {SPAN_INIT("MASTERDOWN"), REDIS_LOADING}, {SPAN_INIT("READONLY"), REDIS_READONLY},
        {SPAN_INIT("NOAUTH"), REDIS_DENIED},      {SPAN_INIT("WRONGPASS"), REDIS_DENIED},
        {SPAN_INIT("NOPERM"), REDIS_DENIED},      {SPAN_INIT("OOM"), REDIS_FULL},
        {SPAN_INIT("MISCONF"), REDIS_FULL},       {SPAN_INIT("NOREPLICAS"), REDIS_FULL},
    };
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        if (span_eq(word, faults[i].word))
            return faults[i].fault;
    return REDIS_NO_FAULT;
}

/* The server cannot do it: what follows from that beside this call. */
static void note_fault(struct redis_call *c, enum redis_fault fault, const redisReply *reply)
{
    struct redis *r = c->redis;
    char said[100], sentence[160];
    escape_text(said, sizeof said, span_of(reply->str, reply->len));
    snprintf(sentence, sizeof sentence, "%s (%s)",
             fault == REDIS_DENIED ? "refuses us: check store.user and store.password_file"
                                   : "takes no writes: check its maxmemory and its disk",
             said);
    if (fault == REDIS_DENIED || fault == REDIS_FULL)
        complain(c->link, fault == REDIS_DENIED ? DENIED : FULL, sentence);
    if (fault == REDIS_LOADING)
        redis_link_bad(c->link);
    if ((fault == REDIS_LOADING || fault == REDIS_READONLY) && r->settings->cluster)
        redis_route_doubt(&r->route);
    if (fault == REDIS_READONLY && r->settings->nsentinels) {
        r->demoted = true;
        event_active(r->turn, EV_TIMEOUT, 0);
    }
}

static void count_reply(struct redis_call *c, bool error)
{
    struct redis_figures *f = &c->redis->figures;
    uint64_t us = (uint64_t)(clock_micros() - c->sent);
    unsigned i = 0;
    while (i + 1 < REDIS_TIMES && us >> i)
        i++;
    f->time[i]++;
    f->replies++;
    f->errors += error;
}

/* The bytes of EVALSHA become those of EVAL: what follows the first two words stays. */
static void send_text(struct redis_call *c)
{
    static const char word[] = "$7\r\nEVALSHA\r\n$40\r\n";
    size_t number = span_find(span_of(c->bytes, c->n), '\n') + 1;
    size_t tail = number + sizeof word - 1 + 40 + 2, n = strlen(c->script->text);
    char *bytes = malloc(number + n + 64 + c->n - tail);
    if (!bytes)
        abort();
    memcpy(bytes, c->bytes, number);
    size_t at = number + (size_t)sprintf(bytes + number, "$4\r\nEVAL\r\n$%zu\r\n", n);
    memcpy(bytes + at, c->script->text, n);
    memcpy(bytes + at + n, "\r\n", 2);
    memcpy(bytes + at + n + 2, c->bytes + tail, c->n - tail);
    c->n = at + n + 2 + c->n - tail;
    free(c->bytes);
    c->bytes = bytes;
    c->script = NULL;
    c->redis->figures.scripts++;
    follow(c);
}

static void answered_error(struct redis_call *c, const redisReply *reply)
{
    struct span word = error_word(reply);
    enum redis_fault fault = fault_of(word);
    if (fault != REDIS_LOADING)
        redis_link_good(c->link);
    if (span_eq(word, SPAN("MOVED")) || span_eq(word, SPAN("ASK"))) {
        redirect(c, reply, word.p[0] == 'A');
        return;
    }
    if (span_eq(word, SPAN("TRYAGAIN"))) {
        try_again(c);
        return;
    }
    if (c->script && span_eq(word, SPAN("NOSCRIPT"))) {
        send_text(c);
        return;
    }
    if (fault)
        note_fault(c, fault, reply);
    else
        count_reply(c, true);
    end_call(c, fault ? NULL : reply, fault);
}

static void answered(struct redis_wait *w, const redisReply *reply)
{
    struct redis_call *c = (struct redis_call *)w;
    if (c->told || !reply) {
        c->redis->figures.late += reply != NULL;
        end_call(c, NULL, REDIS_LOST);
        return;
    }
    if (reply->type == REDIS_REPLY_ERROR) {
        answered_error(c, reply);
        return;
    }
    redis_link_good(c->link);
    count_reply(c, false);
    end_call(c, reply, REDIS_NO_FAULT);
}

/* ---- the turns of the loop ---- */

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
    struct redis *r = arg;
    (void)fd;
    (void)what;
    for (unsigned i = 0; i < r->route.nlinks; i++)
        if (r->route.links[i]->state == REDIS_READY)
            redis_link_flush(r->route.links[i]);
    if (r->demoted)
        redis_link_fail(r->route.links[0], "is no master any more");
    r->demoted = false;
}

static void end_all(struct redis_calls *calls, enum redis_fault fault)
{
    struct redis_call *c;
    while ((c = TAILQ_FIRST(calls))) {
        TAILQ_REMOVE(calls, c, next);
        end_call(c, NULL, fault ? fault : c->fault);
    }
}

/* What is refused meanwhile is told in the next turn: who insists does not stop the loop. */
static void on_refusals(evutil_socket_t fd, short what, void *arg)
{
    struct redis *r = arg;
    struct redis_call *last = TAILQ_LAST(&r->refused, redis_calls), *c;
    (void)fd;
    (void)what;
    do {
        if (!(c = TAILQ_FIRST(&r->refused)))
            return;
        TAILQ_REMOVE(&r->refused, c, next);
        bool end = c == last;
        end_call(c, NULL, c->fault);
        if (end)
            break;
    } while (true);
}

/* ---- what becomes of connections ---- */

/* Those who wait for this server, redirected there. */
static void take_held(struct redis *r, const struct redis_link *l, struct redis_calls *out)
{
    struct redis_call *c, *next;
    for (c = TAILQ_FIRST(&r->held); c; c = next) {
        next = TAILQ_NEXT(c, next);
        if (c->link != l)
            continue;
        TAILQ_REMOVE(&r->held, c, next);
        TAILQ_INSERT_TAIL(out, c, next);
    }
}

static void on_ready(void *arg, struct redis_link *l)
{
    struct redis *r = arg;
    struct redis_calls held = TAILQ_HEAD_INITIALIZER(held);
    struct redis_call *c;
    if (!redis_route_ready(&r->route, l))
        return;
    take_held(r, l, &held);
    while ((c = TAILQ_FIRST(&held))) {
        TAILQ_REMOVE(&held, c, next);
        follow(c);
    }
}

static void on_lost(void *arg, struct redis_link *l)
{
    struct redis *r = arg;
    struct redis_calls held = TAILQ_HEAD_INITIALIZER(held);
    if (r->closing || !redis_route_lost(&r->route, l))
        return;
    take_held(r, l, &held);
    end_all(&held, REDIS_LOST);
}

static void on_written(void *arg, struct redis_link *l)
{
    struct redis *r = arg;
    (void)l;
    event_active(r->turn, EV_TIMEOUT, 0);
}

static const struct redis_link_owner owner = {on_ready, on_lost, on_written};

static void on_again(evutil_socket_t fd, short what, void *arg)
{
    struct redis *r = arg;
    struct redis_calls now = TAILQ_HEAD_INITIALIZER(now);
    struct redis_call *c;
    (void)fd;
    (void)what;
    TAILQ_CONCAT(&now, &r->again, next);
    while ((c = TAILQ_FIRST(&now))) {
        TAILQ_REMOVE(&now, c, next);
        start(c);
    }
}

/* ---- what others call ---- */

struct redis *redis_open(struct event_base *base, const struct redis_settings *settings)
{
    struct redis *r = calloc(1, sizeof *r);
    if (!r)
        abort();
    r->settings = settings;
    TAILQ_INIT(&r->refused);
    TAILQ_INIT(&r->held);
    TAILQ_INIT(&r->again);
    TAILQ_INIT(&r->due);
    r->turn = event_new(base, -1, 0, on_turn, r);
    r->refusals = evtimer_new(base, on_refusals, r);
    r->deadlines = evtimer_new(base, on_deadline, r);
    r->again_timer = evtimer_new(base, on_again, r);
    if (!r->turn || !r->refusals || !r->deadlines || !r->again_timer)
        abort();
    redis_route_begin(&r->route, base, settings, &owner, r);
    return r;
}

void redis_close(struct redis **at)
{
    struct redis *r = *at;
    *at = NULL;
    if (!r)
        return;
    r->closing = true;
    end_all(&r->refused, REDIS_NO_FAULT);
    end_all(&r->held, REDIS_LOST);
    end_all(&r->again, REDIS_LOST);
    redis_route_end(&r->route);
    event_free(r->turn);
    event_free(r->refusals);
    event_free(r->deadlines);
    event_free(r->again_timer);
    free(r);
}

/* Takes bytes, and sends them. */
static struct redis_call *send_call(struct redis *r, struct span key, char *bytes, size_t n,
                                    const struct redis_script *script, int64_t deadline_ms,
                                    redis_done_fn *done, void *arg)
{
    struct redis_call *c = calloc(1, sizeof *c);
    if (!c)
        abort();
    *c = (struct redis_call){.wait = {.answer = answered},
                             .redis = r,
                             .done = done,
                             .arg = arg,
                             .script = script,
                             .n = n,
                             .sent = clock_micros(),
                             .keyed = key.n > 0};
    c->bytes = bytes;
    if (c->keyed && r->settings->cluster)
        c->slot = redis_slot(key);
    r->figures.calls++;
    set_deadline(c, deadline_ms ? deadline_ms : r->settings->deadline);
    start(c);
    return c;
}

static char *format(const struct span *words, size_t n, size_t *len)
{
    const char *argv[REDIS_ARGS];
    size_t lens[REDIS_ARGS];
    char *bytes;
    for (size_t i = 0; i < n; i++) {
        argv[i] = words[i].n ? (const char *)words[i].p : "";
        lens[i] = words[i].n;
    }
    int total = redisFormatCommandArgv(&bytes, (int)n, argv, lens);
    if (total < 0)
        abort();
    *len = (size_t)total;
    return bytes;
}

struct redis_call *redis_send(struct redis *r, struct span key, const struct span *argv,
                              size_t argc, int64_t deadline_ms, redis_done_fn *done, void *arg)
{
    size_t n;
    assert(argc > 0 && argc <= REDIS_ARGS);
    if (r->closing)
        return NULL;
    char *bytes = format(argv, argc, &n);
    return send_call(r, key, bytes, n, NULL, deadline_ms, done, arg);
}

void redis_script_ready(struct redis_script *s)
{
    uint8_t sum[EVP_MAX_MD_SIZE];
    if (!EVP_Digest(s->text, strlen(s->text), sum, NULL, EVP_sha1(), NULL))
        abort();
    hex_print(span_of(sum, 20), s->sha);
}

struct redis_call *redis_run(struct redis *r, const struct redis_script *s, struct span key,
                             const struct span *argv, size_t argc, int64_t deadline_ms,
                             redis_done_fn *done, void *arg)
{
    struct span words[REDIS_ARGS] = {SPAN("EVALSHA"), span_str(s->sha), SPAN("0")};
    size_t n = 3, len;
    assert(argc + 4 <= REDIS_ARGS && s->sha[0]);
    if (r->closing)
        return NULL;
    if (key.n) {
        words[2] = SPAN("1");
        words[n++] = key;
    }
    if (argc)
        memcpy(words + n, argv, argc * sizeof *argv);
    char *bytes = format(words, n + argc, &len);
    return send_call(r, key, bytes, len, s, deadline_ms, done, arg);
}

void redis_forget(struct redis_call **at)
{
    if (*at)
        (*at)->done = NULL;
    *at = NULL;
}

bool redis_up(const struct redis *r)
{
    return redis_route_up(&r->route);
}

bool redis_reaches(const struct redis *r, struct span key)
{
    const struct redis_link *l = redis_route_of(&r->route, redis_slot(key));
    return l && redis_link_up(l);
}

const char *redis_trouble(const struct redis *r)
{
    return redis_route_trouble(&r->route);
}

void redis_figures(const struct redis *r, struct redis_figures *out)
{
    *out = r->figures;
    for (unsigned i = 0; i < r->route.nlinks; i++) {
        const struct redis_link *l = r->route.links[i];
        out->servers += l->used;
        out->up += l->used && redis_link_up(l);
        out->connections += l->connections;
        out->openings += l->openings;
        out->broken += l->broken;
    }
}
