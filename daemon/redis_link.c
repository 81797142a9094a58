/* redis_link.c - one connection: see redis_link.h. */
#include <errno.h>
#include <event2/bufferevent_ssl.h>
#include <event2/util.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "id.h"
#include "log.h"
#include "place.h"
#include "redis_link.h"

enum {
    BACKOFF_LEAST = 100, /* ms */
    BACKOFF_MOST = 10 * 1000,
    GREET_LIMIT = 2 * 1000, /* ms until READY */
    STABLE = 1000,          /* ms READY after which the next try comes soon again */
    WATCH = 250,            /* ms between looks at what is late */
    TOO_LATE = 1000,
    ROW = 3, /* failures that open the breaker: in a row, in a second */
    NUMBER = 20,
    SECOND = 1000,
    INPUT_MOST = 1 << 20,
    COMPLAIN = 60 * 1000,
};

/* ---- greeting: our own commands ---- */

enum greeting { GREET_AUTH, GREET_SELECT, GREET_ROLE, GREET_PING, GREET_PROBE };

struct greeting_wait {
    struct redis_wait wait; /* must be first */
    struct redis_link *link;
    enum greeting kind;
};

static void greeted(struct redis_wait *, const redisReply *);

static void say(struct redis_link *l, enum greeting kind, size_t n, const char *const *words)
{
    const char *argv[4];
    size_t lens[4];
    char *bytes;
    struct greeting_wait *w = calloc(1, sizeof *w);
    if (!w)
        abort();
    for (size_t i = 0; i < n; i++) {
        argv[i] = words[i];
        lens[i] = strlen(words[i]);
    }
    int len = redisFormatCommandArgv(&bytes, (int)n, argv, lens);
    if (len < 0)
        abort();
    w->link = l;
    w->kind = kind;
    w->wait.answer = greeted;
    w->wait.due = clock_mono() + l->settings->deadline;
    redis_link_send(l, &w->wait, bytes, (size_t)len);
    redisFreeCommand(bytes);
}

static void greet(struct redis_link *l)
{
    const struct redis_settings *s = l->settings;
    char number[16];
    l->state = REDIS_GREETING;
    if (s->password && s->user)
        say(l, GREET_AUTH, 3, (const char *[]){"AUTH", s->user, s->password});
    else if (s->password)
        say(l, GREET_AUTH, 2, (const char *[]){"AUTH", s->password});
    if (s->database && !l->sentinel) {
        snprintf(number, sizeof number, "%u", s->database);
        say(l, GREET_SELECT, 2, (const char *[]){"SELECT", number});
    }
    if (l->master)
        say(l, GREET_ROLE, 1, (const char *[]){"ROLE"});
    say(l, GREET_PING, 1, (const char *[]){"PING"});
    redis_link_flush(l);
}

static bool is_status(const redisReply *r, const char *word)
{
    return r->type == REDIS_REPLY_STATUS && strcmp(r->str, word) == 0;
}

static bool is_master(const redisReply *r)
{
    return r->type == REDIS_REPLY_ARRAY && r->elements > 0 &&
           r->element[0]->type == REDIS_REPLY_STRING && strcmp(r->element[0]->str, "master") == 0;
}

void redis_complain(_Atomic int64_t *said, const char *address, const char *sentence)
{
    int64_t now = clock_mono() + 1, last = atomic_load(said);
    if ((last && now - last < COMPLAIN) || !atomic_compare_exchange_strong(said, &last, now))
        return;
    log_say(LOG_LEVEL_ERROR, "redis %s: %s", address, sentence);
}

static void __attribute__((format(printf, 2, 3)))
give_up(struct redis_link *l, const char *fmt, ...)
{
    char why[160];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    redis_link_fail(l, why);
}

static void refused(struct redis_link *l, const char *command, const redisReply *r)
{
    static _Atomic int64_t said_so;
    char said[100];
    escape_text(said, sizeof said,
                r->type == REDIS_REPLY_ERROR ? span_of(r->str, r->len) : SPAN("no error"));
    bool denied = r->type == REDIS_REPLY_ERROR &&
                  (strncmp(r->str, "NOAUTH", 6) == 0 || strncmp(r->str, "WRONGPASS", 9) == 0 ||
                   strncmp(r->str, "NOPERM", 6) == 0 || strcmp(command, "AUTH") == 0);
    give_up(l, "%s was refused (%s)%s", command, said,
            denied ? ": check store.user and store.password_file" : "");
    if (denied)
        redis_complain(&said_so, l->address, l->trouble);
}

static void close_breaker(struct redis_link *l)
{
    if (l->breaker.open)
        log_say(LOG_LEVEL_INFO, "redis %s: answers in time again", l->address);
    l->breaker = (struct redis_breaker){0};
}

static void now_ready(struct redis_link *l)
{
    l->state = REDIS_READY;
    l->ready_since = clock_mono();
    l->breaker = (struct redis_breaker){0};
    l->trouble[0] = '\0';
    evtimer_del(l->timer);
    log_say(LOG_LEVEL_INFO, "redis %s: connected", l->address);
    l->owner->ready(l->arg, l);
}

static void probed(struct redis_link *l, const redisReply *r, int64_t due)
{
    l->breaker.probing = false;
    if (is_status(r, "PONG") && clock_mono() <= due)
        close_breaker(l);
}

static void greeted(struct redis_wait *wait, const redisReply *r)
{
    struct greeting_wait *w = (struct greeting_wait *)wait;
    struct redis_link *l = w->link;
    enum greeting kind = w->kind;
    int64_t due = wait->due;
    free(w);
    if (!r)
        return;
    /* a Sentinel without a password refuses every one */
    if (kind == GREET_AUTH && !is_status(r, "OK") && !l->sentinel)
        refused(l, "AUTH", r);
    else if (kind == GREET_SELECT && !is_status(r, "OK"))
        refused(l, "SELECT", r);
    else if (kind == GREET_ROLE && !is_master(r))
        give_up(l, "is no master: ROLE says something else");
    else if (kind == GREET_PING && !is_status(r, "PONG"))
        refused(l, "PING", r);
    else if (kind == GREET_PING)
        now_ready(l);
    else if (kind == GREET_PROBE)
        probed(l, r, due);
}

/* ---- the breaker, and what is late ---- */

static void arm(struct redis_link *l, int64_t ms)
{
    struct timeval tv = clock_timeval(ms);
    if (evtimer_add(l->timer, &tv))
        abort();
}

static void open_breaker(struct redis_link *l, int64_t now)
{
    l->breaker.open = true;
    l->breaker.probe_at = now + SECOND;
    l->openings++;
    snprintf(l->trouble, sizeof l->trouble, "does not answer in time");
    log_say(LOG_LEVEL_INFO,
            "redis %s: does not answer in time; it is asked each second whether it "
            "does again",
            l->address);
}

void redis_link_bad(struct redis_link *l)
{
    struct redis_breaker *b = &l->breaker;
    int64_t now = clock_mono();
    if (l->state != REDIS_READY)
        return;
    if (now - b->second >= SECOND) {
        b->second = now;
        b->number = 0;
    }
    b->row++;
    b->number++;
    if (!b->open && (b->row >= ROW || b->number >= NUMBER))
        open_breaker(l, now);
    if (!evtimer_pending(l->timer, NULL))
        arm(l, WATCH);
}

static void watch(struct redis_link *l)
{
    struct redis_breaker *b = &l->breaker;
    int64_t now = clock_mono();
    const struct redis_wait *first = TAILQ_FIRST(&l->waits);
    if (first && now - first->due >= TOO_LATE) {
        redis_link_fail(l, "a reply is more than a second late");
        return;
    }
    if (b->open && !b->probing && now >= b->probe_at) {
        b->probing = true;
        b->probe_at = now + SECOND;
        say(l, GREET_PROBE, 1, (const char *[]){"PING"});
        redis_link_flush(l);
    }
    if (b->open || (first && now > first->due))
        arm(l, WATCH);
}

/* ---- the connection ---- */

/* Nothing of it is left; whoever waited is told. */
static void disconnect(struct redis_link *l)
{
    struct redis_waits told = TAILQ_HEAD_INITIALIZER(told);
    struct redis_wait *w;
    l->state = REDIS_DOWN;
    evtimer_del(l->timer);
    prompt_end(&l->prompt);
    if (l->bev)
        bufferevent_free(l->bev);
    l->bev = NULL;
    redis_reader_close(&l->reader);
    evbuffer_drain(l->out, evbuffer_get_length(l->out));
    TAILQ_CONCAT(&told, &l->waits, next);
    l->nwaits = 0;
    while ((w = TAILQ_FIRST(&told))) {
        TAILQ_REMOVE(&told, w, next);
        w->answer(w, NULL);
    }
}

void redis_link_rest(struct redis_link *l)
{
    l->backoff = BACKOFF_LEAST;
    disconnect(l);
}

/* Half of it for certain, so that many do not come at once. */
static int64_t jitter(int64_t ms)
{
    uint32_t r;
    evutil_secure_rng_get_bytes(&r, sizeof r);
    return ms / 2 + (int64_t)(r % (uint32_t)(ms / 2 + 1));
}

void redis_link_fail(struct redis_link *l, const char *why)
{
    if (l->state == REDIS_DOWN)
        return;
    if (l->state == REDIS_READY && clock_mono() - l->ready_since >= STABLE)
        l->backoff = BACKOFF_LEAST;
    snprintf(l->trouble, sizeof l->trouble, "%s", why);
    log_say(LOG_LEVEL_INFO, "redis %s: %s", l->address, why);
    disconnect(l);
    if (l->persistent && !evtimer_pending(l->timer, NULL)) {
        arm(l, jitter(l->backoff));
        l->backoff = l->backoff * 2 < BACKOFF_MOST ? l->backoff * 2 : BACKOFF_MOST;
    }
    l->owner->lost(l->arg, l);
}

static void broken(struct redis_link *l, const char *why)
{
    l->broken++;
    redis_link_fail(l, why);
}

/* All replies that are complete. */
static void answer(struct redis_link *l)
{
    redisReply *r = NULL;
    while (l->bev) {
        if (!redis_reader_next(&l->reader, &r)) {
            broken(l, "sent bytes that are no reply");
            return;
        }
        if (!r)
            return;
        struct redis_wait *w = TAILQ_FIRST(&l->waits);
        if (!w) {
            freeReplyObject(r);
            broken(l, "sent a reply that nobody asked for");
            return;
        }
        TAILQ_REMOVE(&l->waits, w, next);
        l->nwaits--;
        w->answer(w, r);
        freeReplyObject(r);
    }
}

/* Straight from the socket into the reader. */
static size_t on_taste(void *arg, struct span s)
{
    struct redis_link *l = arg;
    return redis_reader_feed(&l->reader, s) ? s.n : 0;
}

static void on_read(struct bufferevent *bev, void *arg)
{
    struct redis_link *l = arg;
    struct evbuffer *in = bufferevent_get_input(bev);
    struct evbuffer_iovec piece;
    while (evbuffer_peek(in, -1, NULL, &piece, 1) > 0 && piece.iov_len > 0) {
        if (!redis_reader_feed(&l->reader, span_of(piece.iov_base, piece.iov_len)))
            break; /* answer() finds out */
        evbuffer_drain(in, piece.iov_len);
    }
    answer(l);
    if (l->bev == bev) {
        (void)prompt_write(bev);
        prompt_go_on(&l->prompt);
    }
}

static void on_write(struct bufferevent *bev, void *arg)
{
    (void)arg;
    prompt_rest(bev);
}

static void on_event(struct bufferevent *, short what, void *);

static void set_callbacks(struct redis_link *l)
{
    bufferevent_setcb(l->bev, on_read, on_write, on_event, l);
}

static void begin(struct redis_link *l)
{
    l->connections++;
    set_callbacks(l);
    redis_reader_open(&l->reader);
    bufferevent_enable(l->bev, EV_WRITE);
    prompt_begin(&l->prompt, l->bev, INPUT_MOST, on_taste);
    prompt_rest(l->bev);
    greet(l);
}

static void connected(struct redis_link *l)
{
    bool local = strncmp(l->address, "unix:", 5) == 0;
    struct bufferevent *secure = NULL;
    if (!l->tls || local || bufferevent_openssl_get_ssl(l->bev)) {
        begin(l);
        return;
    }
    secure = tls_start(l->tls, l->bev, false);
    if (!secure) {
        redis_link_fail(l, "TLS could not be begun");
        return;
    }
    l->bev = secure;
    set_callbacks(l);
    bufferevent_enable(l->bev, EV_READ | EV_WRITE);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct redis_link *l = arg;
    int error = errno;
    if (what & BEV_EVENT_CONNECTED) {
        connected(l);
        return;
    }
    const char *tls = bufferevent_openssl_get_ssl(bev) ? tls_trouble(bev) : NULL;
    if (l->state == REDIS_CONNECTING && tls)
        give_up(l, "no TLS: %s", tls);
    else if (l->state == REDIS_CONNECTING)
        give_up(l, "cannot connect: %s", strerror(error));
    else
        redis_link_fail(l, what & BEV_EVENT_EOF ? "closed the connection"
                                                : "the connection broke off");
}

/* Its address is numbers, so nothing is looked up. 0; -1 and errno. */
static int open_socket(struct redis_link *l)
{
    struct sockaddr_storage ss;
    socklen_t len;
    int one = 1, idle = 30, every = 10, times = 3;
    errno = EINVAL;
    if (!place_address(span_str(l->address), &ss, &len))
        return -1;
    int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (ss.ss_family != AF_UNIX) {
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
        (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
        (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof every);
        (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &times, sizeof times);
    }
    if (connect(fd, (struct sockaddr *)&ss, len) < 0 && errno != EINPROGRESS) {
        int why = errno;
        close(fd);
        errno = why;
        return -1;
    }
    l->bev = bufferevent_socket_new(l->base, fd, BEV_OPT_CLOSE_ON_FREE);
    if (!l->bev)
        abort();
    set_callbacks(l);
    return bufferevent_socket_connect(l->bev, NULL, 0);
}

/* A failure here is told from the loop, as every other. */
static void start(struct redis_link *l)
{
    l->state = REDIS_CONNECTING;
    l->ready_since = 0;
    if (open_socket(l) == 0) {
        arm(l, GREET_LIMIT);
        return;
    }
    snprintf(l->trouble, sizeof l->trouble, "cannot connect: %s", strerror(errno));
    if (l->bev)
        bufferevent_free(l->bev);
    l->bev = NULL;
    arm(l, 0);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct redis_link *l = arg;
    (void)fd;
    (void)what;
    if (l->state == REDIS_DOWN)
        start(l);
    else if (l->state == REDIS_READY)
        watch(l);
    else if (!l->bev)
        give_up(l, "%s", l->trouble);
    else
        redis_link_fail(l, l->state == REDIS_CONNECTING ? "cannot connect: no answer"
                                                        : "does not answer the greeting");
}

void redis_link_connect(struct redis_link *l, const char *address)
{
    if (strcmp(l->address, address) != 0) {
        redis_link_rest(l);
        snprintf(l->address, sizeof l->address, "%s", address);
    }
    if (l->state == REDIS_DOWN && !evtimer_pending(l->timer, NULL))
        start(l);
}

struct redis_link *redis_link_new(struct event_base *base, const struct redis_settings *settings,
                                  struct tls *tls, const struct redis_link_owner *owner, void *arg)
{
    struct redis_link *l = calloc(1, sizeof *l);
    if (!l)
        abort();
    *l = (struct redis_link){.base = base,
                             .settings = settings,
                             .tls = tls_hold(tls),
                             .owner = owner,
                             .arg = arg,
                             .backoff = BACKOFF_LEAST,
                             .out = evbuffer_new()};
    l->timer = evtimer_new(base, on_timer, l);
    if (!l->out || !l->timer)
        abort();
    TAILQ_INIT(&l->waits);
    return l;
}

void redis_link_free(struct redis_link **at)
{
    struct redis_link *l = *at;
    *at = NULL;
    if (!l)
        return;
    disconnect(l);
    event_free(l->timer);
    evbuffer_free(l->out);
    tls_drop(&l->tls);
    free(l);
}

void redis_link_send(struct redis_link *l, struct redis_wait *w, const char *bytes, size_t n)
{
    bool first = evbuffer_get_length(l->out) == 0;
    if (evbuffer_add(l->out, bytes, n))
        abort();
    TAILQ_INSERT_TAIL(&l->waits, w, next);
    l->nwaits++;
    if (first)
        l->owner->written(l->arg, l);
}

void redis_link_flush(struct redis_link *l)
{
    if (!l->bev || evbuffer_get_length(l->out) == 0)
        return;
    if (bufferevent_write_buffer(l->bev, l->out))
        abort();
    (void)prompt_write(l->bev);
}
