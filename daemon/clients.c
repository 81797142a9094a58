/*
 * clients.c - a small open-addressing table of addresses under one lock: entering and leaving are
 * rare beside everything else a connection does.
 *
 * Invariant: an address is in the table as long as it has a connection.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "clients.h"

enum { SLOTS_FIRST = 64 };

struct slot {
    uint8_t address[16]; /* IPv6: the first 64 bits */
    unsigned n;          /* 0: free */
};
struct clients {
    pthread_mutex_t lock;
    unsigned most, most_each; /* 0: no limit */
    unsigned governed;        /* the guard's, if it is lower; 0: none */
    unsigned total;
    struct slot *slot;
    size_t nslots, used; /* nslots: a power of two */
    uint64_t secret;
};

struct clients *clients_new(unsigned most, unsigned most_each)
{
    struct clients *c = calloc(1, sizeof *c);
    if (!c || !(c->slot = calloc(SLOTS_FIRST, sizeof *c->slot)))
        abort();
    if (getrandom(&c->secret, sizeof c->secret, 0) != sizeof c->secret)
        abort();
    c->nslots = SLOTS_FIRST;
    c->most = most;
    c->most_each = most_each;
    pthread_mutex_init(&c->lock, NULL);
    return c;
}

void clients_free(struct clients **c)
{
    if (!*c)
        return;
    pthread_mutex_destroy(&(*c)->lock);
    free((*c)->slot);
    free(*c);
    *c = NULL;
}

void clients_limits(struct clients *c, unsigned most, unsigned most_each)
{
    pthread_mutex_lock(&c->lock);
    c->most = most;
    c->most_each = most_each;
    pthread_mutex_unlock(&c->lock);
}

void clients_govern(struct clients *c, unsigned most)
{
    pthread_mutex_lock(&c->lock);
    c->governed = most;
    pthread_mutex_unlock(&c->lock);
}

unsigned clients_count(struct clients *c)
{
    pthread_mutex_lock(&c->lock);
    unsigned n = c->total;
    pthread_mutex_unlock(&c->lock);
    return n;
}

static struct slot key_of(const struct ipaddr *ip)
{
    struct slot s = {.n = 1};
    memcpy(s.address, ip->byte, ip->family == 6 ? 8 : 16);
    return s;
}

static uint64_t mix(uint64_t h)
{
    h = (h ^ h >> 32) * 0xd6e8feb86659fd93;
    h = (h ^ h >> 32) * 0xd6e8feb86659fd93;
    return h ^ h >> 32;
}

/* Strangers choose their addresses, but do not know the secret: they cannot make long chains. */
static size_t place_of(const struct clients *c, const uint8_t *address)
{
    uint64_t high, low;
    memcpy(&high, address, 8);
    memcpy(&low, address + 8, 8);
    return (size_t)mix(mix(high ^ c->secret) + low) & (c->nslots - 1);
}

static struct slot *find(const struct clients *c, const uint8_t *address)
{
    size_t at = place_of(c, address);
    while (c->slot[at].n && memcmp(c->slot[at].address, address, 16) != 0)
        at = (at + 1) & (c->nslots - 1);
    return &c->slot[at];
}

static void grow(struct clients *c)
{
    struct slot *old = c->slot;
    size_t n = c->nslots;
    c->nslots *= 2;
    if (!(c->slot = calloc(c->nslots, sizeof *c->slot)))
        abort();
    for (size_t i = 0; i < n; i++)
        if (old[i].n)
            *find(c, old[i].address) = old[i];
    free(old);
}

/* Takes a slot out and moves those after it that were displaced by it. */
static void vacate(struct clients *c, struct slot *s)
{
    size_t mask = c->nslots - 1, at = (size_t)(s - c->slot);
    s->n = 0;
    c->used--;
    for (size_t i = (at + 1) & mask; c->slot[i].n; i = (i + 1) & mask) {
        struct slot moved = c->slot[i];
        c->slot[i].n = 0;
        *find(c, moved.address) = moved;
    }
}

const char *clients_enter(struct clients *c, const struct ipaddr *ip, bool trusted)
{
    const char *why = NULL;
    struct slot key = key_of(ip);
    pthread_mutex_lock(&c->lock);
    struct slot *s = find(c, key.address);
    bool full = (c->most && c->total >= c->most) || (c->governed && c->total >= c->governed);
    if (!trusted && full)
        why = "421 4.3.2 too many connections; please try again later";
    else if (!trusted && c->most_each && s->n >= c->most_each)
        why = "421 4.7.0 too many connections from your address; please try again later";
    if (!why) {
        c->total++;
        if (s->n++ == 0) {
            memcpy(s->address, key.address, sizeof s->address);
            if (++c->used > c->nslots / 2)
                grow(c);
        }
    }
    pthread_mutex_unlock(&c->lock);
    return why;
}

void clients_leave(struct clients *c, const struct ipaddr *ip)
{
    struct slot key = key_of(ip);
    pthread_mutex_lock(&c->lock);
    struct slot *s = find(c, key.address);
    if (s->n) {
        c->total--;
        if (--s->n == 0)
            vacate(c, s);
    }
    pthread_mutex_unlock(&c->lock);
}
