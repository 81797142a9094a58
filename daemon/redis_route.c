/* redis_route.c - looking for servers: see redis_route.h. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "id.h"
#include "redis_route.h"

enum {
    LOOK_LEAST = 100, /* ms between looks at the map, or at the Sentinels, while something lacks */
    LOOK_MOST = 2000,
    LOOK_LIMIT = 1000,   /* ms one of them may take */
    TROUBLE = 60 * 1000, /* ms a complaint is told */
};

static void arm(struct event *timer, int64_t ms)
{
    struct timeval tv = clock_timeval(ms > 0 ? ms : 0);
    if (evtimer_add(timer, &tv))
        abort();
}

/* ---- servers ---- */

static struct redis_link *link_at(struct redis_route *r, const char *address)
{
    for (unsigned i = 0; i < r->nlinks; i++)
        if (strcmp(r->links[i]->address, address) == 0)
            return r->links[i];
    return NULL;
}

static struct redis_link *new_link(struct redis_route *r)
{
    return redis_link_new(r->base, r->settings, r->tls, r->owner, r->arg);
}

struct redis_link *redis_route_to(struct redis_route *r, const char *address)
{
    struct redis_link *l = link_at(r, address);
    for (unsigned i = 0; !l && r->nlinks == REDIS_LINKS && i < REDIS_LINKS; i++)
        if (!r->links[i]->used && r->links[i]->nwaits == 0)
            l = r->links[i];
    if (!l && r->nlinks == REDIS_LINKS)
        return NULL;
    if (!l) {
        l = new_link(r);
        l->number = (uint8_t)r->nlinks;
        r->links[r->nlinks++] = l;
    }
    redis_link_connect(l, address);
    return l;
}

struct redis_link *redis_route_any(struct redis_route *r)
{
    for (unsigned i = 0; i < r->nlinks; i++) {
        struct redis_link *l = r->links[++r->last % r->nlinks];
        if (redis_link_up(l) && (l->used || r->gaps == REDIS_SLOTS))
            return l;
    }
    return NULL;
}

struct redis_link *redis_route_of(const struct redis_route *r, uint16_t slot)
{
    unsigned number = r->settings->cluster ? r->slots[slot] : r->nlinks > 0;
    return number ? r->links[number - 1] : NULL;
}

void redis_route_moved(struct redis_route *r, uint16_t slot, struct redis_link *l)
{
    r->gaps -= r->slots[slot] == 0;
    r->slots[slot] = (uint8_t)(l->number + 1);
    l->used = l->persistent = true;
    redis_route_doubt(r);
}

void redis_route_complain(struct redis_route *r, const char *address, const char *sentence)
{
    snprintf(r->trouble, sizeof r->trouble, "%s: %.180s", address, sentence);
    r->trouble_until = clock_mono() + TROUBLE;
}

/* ---- the map of a cluster ---- */

static bool connected(const struct redis_route *r)
{
    for (unsigned i = 0; i < r->nlinks; i++)
        if (r->links[i]->used && r->links[i]->state != REDIS_READY)
            return false;
    return r->nlinks > 0;
}

static void map_range(void *arg, uint16_t from, uint16_t to, const char *address)
{
    struct redis_route *r = arg;
    struct redis_link *l = redis_route_to(r, address);
    if (!l)
        return;
    l->used = l->persistent = true;
    for (size_t i = from; i <= to; i++) {
        r->gaps -= r->slots[i] == 0;
        r->slots[i] = (uint8_t)(l->number + 1);
    }
}

/* Servers that have no slots any more are left alone: some call may still wait there. */
static void take_map(struct redis_route *r, const redisReply *reply)
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
    struct redis_route *r =
        (struct redis_route *)(void *)((char *)w - offsetof(struct redis_route, map));
    if (reply)
        take_map(r, reply);
    r->map_of = NULL;
}

/* The servers that the configuration names, when nobody else can be asked. */
static void connect_seeds(struct redis_route *r)
{
    char address[REDIS_ADDRESS];
    for (size_t i = 0; i < r->settings->nservers; i++) {
        snprintf(address, sizeof address, "%.*s", SPAN_ARG(r->settings->servers[i]));
        (void)redis_route_to(r, address);
    }
}

static void ask_map(struct redis_route *r, struct redis_link *l)
{
    static const char bytes[] = "*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n";
    r->map_of = l;
    r->map = (struct redis_wait){.answer = on_map, .due = clock_mono() + LOOK_LIMIT};
    redis_link_send(l, &r->map, bytes, sizeof bytes - 1);
}

static void look_at_cluster(struct redis_route *r)
{
    struct redis_link *l = redis_route_any(r);
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

static void next_sentinel(struct redis_route *r, const char *why)
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
    struct redis_route *r =
        (struct redis_route *)(void *)((char *)w - offsetof(struct redis_route, master));
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

static void ask_sentinel(struct redis_route *r)
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

static void look_at_sentinels(struct redis_route *r)
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

static bool make_tls(struct redis_route *r)
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
static void begin(struct redis_route *r)
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

static void look(struct redis_route *r)
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

void redis_route_doubt(struct redis_route *r)
{
    if (!r->settings->cluster && !r->sentinel)
        return;
    r->stale = true;
    r->look_in = LOOK_LEAST;
    arm(r->look, r->looked + LOOK_LEAST - clock_mono());
}

/* ---- what becomes of connections ---- */

bool redis_route_ready(struct redis_route *r, struct redis_link *l)
{
    if (l == r->sentinel) {
        ask_sentinel(r);
        return false;
    }
    if (r->sentinel)
        evtimer_del(r->look);
    r->look_in = LOOK_LEAST;
    if (r->settings->cluster && r->stale)
        arm(r->look, 0);
    return true;
}

bool redis_route_lost(struct redis_route *r, struct redis_link *l)
{
    if (l == r->sentinel) {
        next_sentinel(r, l->trouble);
        return false;
    }
    if (l->ready_since)
        redis_route_doubt(r);
    else if (r->sentinel)
        arm(r->look, r->look_in);
    return true;
}

void redis_route_begin(struct redis_route *r, struct event_base *base,
                       const struct redis_settings *settings, const struct redis_link_owner *owner,
                       void *arg)
{
    *r = (struct redis_route){.base = base,
                              .settings = settings,
                              .owner = owner,
                              .arg = arg,
                              .look_in = LOOK_LEAST,
                              .stale = true,
                              .gaps = REDIS_SLOTS};
    r->look = evtimer_new(base, on_look, r);
    if (!r->look)
        abort();
    look(r);
}

void redis_route_end(struct redis_route *r)
{
    for (unsigned i = 0; i < r->nlinks; i++)
        redis_link_free(&r->links[i]);
    redis_link_free(&r->sentinel);
    event_free(r->look);
    tls_drop(&r->tls);
}

/* ---- how it is ---- */

bool redis_route_up(const struct redis_route *r)
{
    if (r->nlinks == 0 || (r->settings->cluster && r->gaps))
        return false;
    for (unsigned i = 0; i < r->nlinks; i++)
        if (r->links[i]->used && !redis_link_up(r->links[i]))
            return false;
    return true;
}

const char *redis_route_trouble(const struct redis_route *r)
{
    static _Thread_local char text[REDIS_ADDRESS + 200];
    bool mapped = r->gaps < REDIS_SLOTS;
    bool complaint = r->trouble[0] && clock_mono() < r->trouble_until;
    if (redis_route_up(r))
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
