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
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "id.h"
#include "log.h"
#include "redis.h"
#include "redis_link.h"

enum {
    LINKS = 128,      /* servers of a cluster that we know, replicas and gone ones included */
    HOPS = 5,         /* redirections of one call */
    AGAIN = 5,        /* ms until TRYAGAIN is tried again */
    LOOK_LEAST = 100, /* ms between looks at the map, or at the Sentinels, while something lacks */
    LOOK_MOST = 2000,
    LOOK_LIMIT = 1000,   /* ms one of them may take */
    TROUBLE = 60 * 1000, /* ms a complaint is told */
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

/* What all calls share. In a cluster `links` are its servers, else the first is the only one. */
struct redis {
    struct event_base *base;
    const struct redis_settings *settings;
    struct tls *tls; /* NULL: plain, or not usable yet */
    bool closing;
    struct redis_link *links[LINKS];
    unsigned nlinks, last; /* last: that any_up() chose */
    struct redis_calls refused, held, again, due;
    struct event *turn;        /* at the end of this turn of the loop: flush */
    struct event *refusals;    /* in the next one */
    struct event *deadlines;   /* of the first call of due */
    struct event *again_timer; /* TRYAGAIN */
    /* looking at the map of the cluster, or at the Sentinels */
    struct event *look;
    int64_t looked, look_in;    /* clock_mono(): the last one; ms from that until the next */
    bool stale;                 /* the map is, or there is none */
    uint8_t slots[REDIS_SLOTS]; /* number of the link + 1; 0: nobody */
    unsigned gaps;              /* slots of nobody */
    struct redis_wait map;      /* waits for CLUSTER SLOTS */
    struct redis_link *map_of;  /* who was asked; NULL: nobody */
    struct redis_link *sentinel;
    size_t sentinel_next;
    struct redis_wait master; /* waits for the master's address */
    bool demoted;             /* the master says that it is none any more */
    char trouble[320];        /* until trouble_until, clock_mono() */
    int64_t trouble_until;
    struct redis_figures figures;
};

static void start(struct redis_call *);
static void look_soon(struct redis *);
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
    while ((c = TAILQ_FIRST(&r->due)) && c->wait.due <= now)
        miss(c);
    if (c)
        arm(r->deadlines, c->wait.due - now);
}

/* ---- where to ---- */

static struct redis_link *link_at(struct redis *r, const char *address)
{
    for (unsigned i = 0; i < r->nlinks; i++)
        if (strcmp(r->links[i]->address, address) == 0)
            return r->links[i];
    return NULL;
}

static const struct redis_link_owner owner;

static struct redis_link *new_link(struct redis *r)
{
    return redis_link_new(r->base, r->settings, r->tls, &owner, r);
}

/* The one to this server, connected to it or about to be; NULL: there are too many already. */
static struct redis_link *link_to(struct redis *r, const char *address)
{
    struct redis_link *l = link_at(r, address);
    for (unsigned i = 0; !l && r->nlinks == LINKS && i < LINKS; i++)
        if (!r->links[i]->used && r->links[i]->nwaits == 0)
            l = r->links[i];
    if (!l && r->nlinks == LINKS)
        return NULL;
    if (!l) {
        l = new_link(r);
        l->number = (uint8_t)r->nlinks;
        r->links[r->nlinks++] = l;
    }
    redis_link_connect(l, address);
    return l;
}

static struct redis_link *any_up(struct redis *r)
{
    for (unsigned i = 0; i < r->nlinks; i++) {
        struct redis_link *l = r->links[++r->last % r->nlinks];
        if (redis_link_up(l))
            return l;
    }
    return NULL;
}

static struct redis_link *shard(const struct redis *r, uint16_t slot)
{
    return r->slots[slot] ? r->links[r->slots[slot] - 1] : NULL;
}

/* Bytes into the line of c's server. */
static void send_bytes(struct redis_call *c)
{
    c->place = PLACE_LINE;
    redis_link_send(c->link, &c->wait, c->bytes, c->n);
}

static void start(struct redis_call *c)
{
    struct redis *r = c->redis;
    struct redis_link *l = !r->settings->cluster ? r->nlinks ? r->links[0] : NULL
                           : c->keyed            ? shard(r, c->slot)
                                                 : any_up(r);
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
    snprintf(r->trouble, sizeof r->trouble, "%s: %s", l->address, sentence);
    r->trouble_until = clock_mono() + TROUBLE;
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
        l = link_to(r, to.address);
    if (!r->settings->cluster)
        complain(c->link, CLUSTERED, "is part of a cluster: set store.cluster");
    if (!asking && l) {
        r->gaps -= r->slots[to.slot] == 0;
        r->slots[to.slot] = (uint8_t)(l->number + 1);
        l->used = l->persistent = true;
        look_soon(r);
    }
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
        look_soon(r);
    if (fault == REDIS_READONLY && r->sentinel) {
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
    for (unsigned i = 0; i < r->nlinks; i++)
        if (r->links[i]->state == REDIS_READY)
            redis_link_flush(r->links[i]);
    if (r->demoted)
        redis_link_fail(r->links[0], "is no master any more");
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

static void ask_sentinel(struct redis *);
static void next_sentinel(struct redis *, const char *why);

static void on_ready(void *arg, struct redis_link *l)
{
    struct redis *r = arg;
    struct redis_calls held = TAILQ_HEAD_INITIALIZER(held);
    struct redis_call *c;
    if (l == r->sentinel) {
        ask_sentinel(r);
        return;
    }
    if (r->sentinel)
        evtimer_del(r->look);
    r->look_in = LOOK_LEAST;
    take_held(r, l, &held);
    while ((c = TAILQ_FIRST(&held))) {
        TAILQ_REMOVE(&held, c, next);
        follow(c);
    }
    if (r->settings->cluster && r->stale)
        arm(r->look, 0);
}

static void on_lost(void *arg, struct redis_link *l)
{
    struct redis *r = arg;
    struct redis_calls held = TAILQ_HEAD_INITIALIZER(held);
    if (r->closing)
        return;
    if (l == r->sentinel) {
        next_sentinel(r, l->trouble);
        return;
    }
    take_held(r, l, &held);
    end_all(&held, REDIS_LOST);
    if (l->ready_since)
        look_soon(r);
    else if (r->sentinel)
        arm(r->look, r->look_in);
}

static void on_written(void *arg, struct redis_link *l)
{
    struct redis *r = arg;
    (void)l;
    event_active(r->turn, EV_TIMEOUT, 0);
}

static const struct redis_link_owner owner = {on_ready, on_lost, on_written};

/* ---- the map of a cluster ---- */

static bool connected(const struct redis *r)
{
    for (unsigned i = 0; i < r->nlinks; i++)
        if (r->links[i]->used && r->links[i]->state != REDIS_READY)
            return false;
    return r->nlinks > 0;
}

static void map_range(void *arg, uint16_t from, uint16_t to, const char *address)
{
    struct redis *r = arg;
    struct redis_link *l = link_to(r, address);
    if (!l)
        return;
    l->used = l->persistent = true;
    for (size_t i = from; i <= to; i++) {
        r->gaps -= r->slots[i] == 0;
        r->slots[i] = (uint8_t)(l->number + 1);
    }
}

/* Servers that have no slots any more are left alone: some call may still wait there. */
static void take_map(struct redis *r, const redisReply *reply)
{
    struct span said_by = span_str(r->map_of->address);
    for (unsigned i = 0; i < r->nlinks; i++)
        r->links[i]->used = r->links[i]->persistent = false;
    memset(r->slots, 0, sizeof r->slots);
    r->gaps = REDIS_SLOTS;
    r->stale = !redis_slots_read(reply, said_by, map_range, r) || r->gaps > 0;
}

static void on_map(struct redis_wait *w, const redisReply *reply)
{
    struct redis *r = (struct redis *)(void *)((char *)w - offsetof(struct redis, map));
    if (reply)
        take_map(r, reply);
    r->map_of = NULL;
}

/* The servers that the configuration names, when nobody else can be asked. */
static void connect_seeds(struct redis *r)
{
    char address[REDIS_ADDRESS];
    for (size_t i = 0; i < r->settings->nservers; i++) {
        snprintf(address, sizeof address, "%.*s", SPAN_ARG(r->settings->servers[i]));
        (void)link_to(r, address);
    }
}

static void ask_map(struct redis *r, struct redis_link *l)
{
    static const char bytes[] = "*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n";
    r->map_of = l;
    r->map = (struct redis_wait){.answer = on_map, .due = clock_mono() + LOOK_LIMIT};
    redis_link_send(l, &r->map, bytes, sizeof bytes - 1);
}

static void look_at_cluster(struct redis *r)
{
    struct redis_link *l = any_up(r);
    if (r->map_of)
        redis_link_bad(r->map_of);
    else if (!r->stale && connected(r))
        return;
    else if (l)
        ask_map(r, l);
    else
        connect_seeds(r);
    arm(r->look, r->look_in);
    r->look_in = r->look_in * 2 < LOOK_MOST ? r->look_in * 2 : LOOK_MOST;
}

/* ---- Sentinels ---- */

static void next_sentinel(struct redis *r, const char *why)
{
    snprintf(r->trouble, sizeof r->trouble, "Sentinel %s: %s", r->sentinel->address, why);
    r->trouble_until = clock_mono() + TROUBLE;
    redis_link_rest(r->sentinel);
    bool all = ++r->sentinel_next % r->settings->nsentinels == 0;
    arm(r->look, all ? r->look_in : 0);
    if (all)
        r->look_in = r->look_in * 2 < LOOK_MOST ? r->look_in * 2 : LOOK_MOST;
}

static bool is_text(const redisReply *r)
{
    return r->type == REDIS_REPLY_STRING;
}

/* [address, port] */
static bool read_master(const redisReply *reply, char out[REDIS_ADDRESS])
{
    uint64_t port;
    return reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 && is_text(reply->element[0]) &&
           is_text(reply->element[1]) && reply->element[0]->len > 0 &&
           span_number(span_of(reply->element[1]->str, reply->element[1]->len), 65535, &port) &&
           redis_address(span_of(reply->element[0]->str, reply->element[0]->len), port,
                         span_of(NULL, 0), out);
}

static void on_master(struct redis_wait *w, const redisReply *reply)
{
    struct redis *r = (struct redis *)(void *)((char *)w - offsetof(struct redis, master));
    char address[REDIS_ADDRESS];
    if (!reply)
        return; /* on_lost() goes on */
    if (!read_master(reply, address)) {
        next_sentinel(r, reply->type == REDIS_REPLY_NIL ? "knows no master of this name"
                                                        : "does not say who the master is");
        return;
    }
    redis_link_rest(r->sentinel);
    evtimer_del(r->look);
    redis_link_connect(r->links[0], address);
}

static void ask_sentinel(struct redis *r)
{
    static const char *const words[] = {"SENTINEL", "get-master-addr-by-name"};
    const char *argv[] = {words[0], words[1], r->settings->master};
    size_t lens[] = {strlen(argv[0]), strlen(argv[1]), strlen(argv[2])};
    char *bytes;
    int n = redisFormatCommandArgv(&bytes, 3, argv, lens);
    if (n < 0)
        abort();
    r->master = (struct redis_wait){.answer = on_master, .due = clock_mono() + LOOK_LIMIT};
    redis_link_send(r->sentinel, &r->master, bytes, (size_t)n);
    redisFreeCommand(bytes);
    redis_link_flush(r->sentinel);
}

static void look_at_sentinels(struct redis *r)
{
    const struct redis_settings *s = r->settings;
    char address[REDIS_ADDRESS];
    if (r->sentinel->state != REDIS_DOWN) {
        next_sentinel(r, "does not answer");
        return;
    }
    if (r->links[0]->state != REDIS_DOWN)
        return;
    snprintf(address, sizeof address, "%.*s",
             SPAN_ARG(s->sentinels[r->sentinel_next % s->nsentinels]));
    redis_link_connect(r->sentinel, address);
    arm(r->look, LOOK_LIMIT);
}

/* ---- looking ---- */

static bool make_tls(struct redis *r)
{
    const struct redis_settings *s = r->settings;
    struct tls_settings t = {.cert = s->certificate, .key = s->key, .ca = s->ca, .name = s->name};
    static _Atomic int64_t said;
    char why[512];
    r->tls = tls_client_new(&t, why);
    if (!r->tls) {
        snprintf(r->trouble, sizeof r->trouble, "%.300s", why);
        r->trouble_until = clock_mono() + TROUBLE;
        redis_complain(&said, "TLS", why);
    }
    return r->tls;
}

/* The connections there are from the beginning. */
static void begin(struct redis *r)
{
    const struct redis_settings *s = r->settings;
    char address[REDIS_ADDRESS];
    if (s->cluster)
        return;
    struct redis_link *l = r->links[r->nlinks++] = new_link(r);
    l->used = true;
    l->master = s->nsentinels > 0;
    l->persistent = !l->master;
    if (s->nsentinels) {
        r->sentinel = new_link(r);
        r->sentinel->sentinel = true;
        return;
    }
    snprintf(address, sizeof address, "%.*s", SPAN_ARG(s->servers[0]));
    redis_link_connect(l, address);
}

static void look(struct redis *r)
{
    if (r->settings->tls && !r->tls && !make_tls(r)) {
        arm(r->look, TROUBLE);
        return;
    }
    r->looked = clock_mono();
    if (r->nlinks == 0)
        begin(r);
    if (r->settings->cluster)
        look_at_cluster(r);
    else if (r->sentinel)
        look_at_sentinels(r);
}

static void on_look(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    look(arg);
}

static void look_soon(struct redis *r)
{
    if (!r->settings->cluster && !r->sentinel)
        return;
    r->stale = true;
    r->look_in = LOOK_LEAST;
    arm(r->look, r->looked + LOOK_LEAST - clock_mono());
}

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
    r->base = base;
    r->settings = settings;
    r->look_in = LOOK_LEAST;
    r->stale = true;
    r->gaps = REDIS_SLOTS;
    TAILQ_INIT(&r->refused);
    TAILQ_INIT(&r->held);
    TAILQ_INIT(&r->again);
    TAILQ_INIT(&r->due);
    r->turn = event_new(base, -1, 0, on_turn, r);
    r->refusals = evtimer_new(base, on_refusals, r);
    r->deadlines = evtimer_new(base, on_deadline, r);
    r->again_timer = evtimer_new(base, on_again, r);
    r->look = evtimer_new(base, on_look, r);
    if (!r->turn || !r->refusals || !r->deadlines || !r->again_timer || !r->look)
        abort();
    look(r);
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
    for (unsigned i = 0; i < r->nlinks; i++)
        redis_link_free(&r->links[i]);
    redis_link_free(&r->sentinel);
    struct event *events[] = {r->turn, r->refusals, r->deadlines, r->again_timer, r->look};
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        event_free(events[i]);
    tls_drop(&r->tls);
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
                             .bytes = bytes,
                             .n = n,
                             .sent = clock_micros(),
                             .keyed = key.n > 0};
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
    if (r->nlinks == 0 || (r->settings->cluster && r->gaps))
        return false;
    for (unsigned i = 0; i < r->nlinks; i++)
        if (r->links[i]->used && !redis_link_up(r->links[i]))
            return false;
    return true;
}

bool redis_reaches(const struct redis *r, struct span key)
{
    const struct redis_link *l =
        !r->settings->cluster ? r->nlinks ? r->links[0] : NULL : shard(r, redis_slot(key));
    return l && redis_link_up(l);
}

const char *redis_trouble(const struct redis *r)
{
    static _Thread_local char text[REDIS_ADDRESS + 200];
    bool mapped = r->gaps < REDIS_SLOTS;
    bool complaint = r->trouble[0] && clock_mono() < r->trouble_until;
    if (redis_up(r))
        return complaint ? r->trouble : NULL;
    for (unsigned i = 0; i < r->nlinks; i++) {
        const struct redis_link *l = r->links[i];
        if (redis_link_up(l) || !l->trouble[0] || (mapped && !l->used))
            continue;
        snprintf(text, sizeof text, "%s: %s", l->address, l->trouble);
        return text;
    }
    if (r->settings->cluster && mapped && r->gaps) {
        snprintf(text, sizeof text, "%u of the cluster's slots have no server", r->gaps);
        return text;
    }
    return complaint ? r->trouble : "not connected yet";
}

void redis_figures(const struct redis *r, struct redis_figures *out)
{
    *out = r->figures;
    for (unsigned i = 0; i < r->nlinks; i++) {
        const struct redis_link *l = r->links[i];
        out->servers += l->used;
        out->up += l->used && redis_link_up(l);
        out->connections += l->connections;
        out->openings += l->openings;
        out->broken += l->broken;
    }
}
