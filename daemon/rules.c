/* rules.c - see rules.h. Two locks: one for the pointer, one for those who change it. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "rules.h"

struct rulebook {
    pthread_mutex_t lock;   /* guards rules: held for a pointer and a count */
    pthread_mutex_t change; /* held from reading to writing by whoever changes them */
    struct rules *rules;
};

static void *room(size_t n, size_t size)
{
    void *p = calloc(n + 1, size);
    if (!p)
        abort();
    return p;
}

static char *text_copy(const char *s)
{
    char *copy = strdup(s);
    if (!copy)
        abort();
    return copy;
}

/* ---- one value ---- */

static void clear_trial(struct rules *r)
{
    for (size_t i = 0; i < r->nlisteners; i++)
        free(r->listeners[i]);
    for (size_t i = 0; i < r->ndomains; i++)
        free((void *)(uintptr_t)r->domains[i].p);
    free(r->listeners);
    free(r->domains);
    r->listeners = NULL;
    r->domains = NULL;
    r->nlisteners = r->ndomains = 0;
    policy_free(&r->trial);
    r->trial_version = 0;
}

void rules_drop(struct rules **place)
{
    struct rules *r = *place;
    *place = NULL;
    if (!r || atomic_fetch_sub(&r->references, 1) != 1)
        return;
    clear_trial(r);
    policy_free(&r->policy);
    entries_drop(&r->entries);
    for (size_t i = 0; i < r->ndoors; i++)
        free(r->doors[i].listener);
    free(r->doors);
    free(r);
}

static struct span lower_copy(struct span s)
{
    uint8_t *p = room(s.n, 1);
    for (size_t i = 0; i < s.n; i++)
        p[i] = byte_lower(s.p[i]);
    return span_of(p, s.n);
}

static void copy_trial(struct rules *to, const struct rules *from)
{
    to->trial = from->trial ? policy_hold(from->trial) : NULL;
    to->trial_version = from->trial_version;
    to->listeners = room(from->nlisteners, sizeof *to->listeners);
    to->domains = room(from->ndomains, sizeof *to->domains);
    for (size_t i = 0; i < from->nlisteners; i++)
        to->listeners[to->nlisteners++] = text_copy(from->listeners[i]);
    for (size_t i = 0; i < from->ndomains; i++)
        to->domains[to->ndomains++] = lower_copy(from->domains[i]);
}

struct rules *rules_copy(const struct rules *from)
{
    struct rules *r = room(0, sizeof *r);
    atomic_init(&r->references, 1);
    if (!from)
        return r;
    r->mode = from->mode;
    r->policy = from->policy ? policy_hold(from->policy) : NULL;
    r->version = from->version;
    r->entries = from->entries ? entries_hold(from->entries) : NULL;
    r->doors = room(from->ndoors, sizeof *r->doors);
    for (size_t i = 0; i < from->ndoors; i++)
        r->doors[r->ndoors++] = (struct door_mode){.listener = text_copy(from->doors[i].listener),
                                                   .mode = from->doors[i].mode};
    copy_trial(r, from);
    return r;
}

void rules_set_mode(struct rules *r, const char *listener, enum mode mode)
{
    size_t i = 0;
    while (i < r->ndoors && strcmp(r->doors[i].listener, listener) != 0)
        i++;
    if (mode == MODE_COUNT) {
        if (i == r->ndoors)
            return;
        free(r->doors[i].listener);
        r->doors[i] = r->doors[--r->ndoors];
        return;
    }
    if (i == r->ndoors) {
        r->doors = realloc(r->doors, (r->ndoors + 1) * sizeof *r->doors);
        if (!r->doors)
            abort();
        r->doors[r->ndoors++].listener = text_copy(listener);
    }
    r->doors[i].mode = mode;
}

void rules_set_trial(struct rules *r, struct policy *policy, uint64_t version,
                     const char *const *listeners, size_t nlisteners, const char *const *domains,
                     size_t ndomains)
{
    clear_trial(r);
    if (!policy)
        return;
    r->trial = policy;
    r->trial_version = version;
    r->listeners = room(nlisteners, sizeof *r->listeners);
    r->domains = room(ndomains, sizeof *r->domains);
    for (size_t i = 0; i < nlisteners; i++)
        r->listeners[r->nlisteners++] = text_copy(listeners[i]);
    for (size_t i = 0; i < ndomains; i++)
        r->domains[r->ndomains++] = lower_copy(span_str(domains[i]));
}

enum mode rules_mode(const struct rules *r, const char *listener)
{
    for (size_t i = 0; i < r->ndoors; i++)
        if (strcmp(r->doors[i].listener, listener) == 0)
            return r->doors[i].mode;
    return r->mode;
}

void rules_ruling(const struct rules *r, const char *listener, struct ruling *out)
{
    *out = (struct ruling){
        .mode = rules_mode(r, listener), .policy = r->policy, .entries = r->entries};
    if (!r->trial)
        return;
    for (size_t i = 0; i < r->nlisteners; i++)
        if (strcmp(r->listeners[i], listener) == 0) {
            out->policy = r->trial;
            out->on_trial = true;
            return;
        }
    out->trial = r->trial;
    out->domains = r->domains;
    out->ndomains = r->ndomains;
}

/* ---- the book ---- */

struct rulebook *rulebook_new(struct rules *rules)
{
    struct rulebook *b = room(0, sizeof *b);
    pthread_mutex_init(&b->lock, NULL);
    pthread_mutex_init(&b->change, NULL);
    b->rules = rules;
    return b;
}

void rulebook_free(struct rulebook **place)
{
    struct rulebook *b = *place;
    *place = NULL;
    if (!b)
        return;
    rules_drop(&b->rules);
    pthread_mutex_destroy(&b->change);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

struct rules *rulebook_take(struct rulebook *b)
{
    pthread_mutex_lock(&b->lock);
    struct rules *r = b->rules;
    atomic_fetch_add_explicit(&r->references, 1, memory_order_relaxed);
    pthread_mutex_unlock(&b->lock);
    return r;
}

void rulebook_put(struct rulebook *b, struct rules *fresh)
{
    pthread_mutex_lock(&b->lock);
    struct rules *old = b->rules;
    b->rules = fresh;
    pthread_mutex_unlock(&b->lock);
    rules_drop(&old);
}

void rulebook_lock(struct rulebook *b)
{
    pthread_mutex_lock(&b->change);
}

bool rulebook_trylock(struct rulebook *b)
{
    return pthread_mutex_trylock(&b->change) == 0;
}

void rulebook_unlock(struct rulebook *b)
{
    pthread_mutex_unlock(&b->change);
}
