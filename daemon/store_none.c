/*
 * store_none.c - no past: everything looks FIRST, nothing is remembered. For bench, for the law
 * that a session leaks nothing, and for those who only want the loop detector.
 */
#include <stdlib.h>
#include <string.h>

#include "store.h"

static enum store_state none_read(struct store *s, struct tallies *t, int64_t now,
                                  store_done_fn *done, void *arg, struct store_op **op)
{
    (void)s, (void)now, (void)done, (void)arg, (void)op;
    for (size_t i = 0; i < t->n; i++)
        t->t[i].answer = 0;
    return STORE_DONE;
}

static void none_add(struct store *s, const struct tallies *t, int64_t now)
{
    (void)s, (void)t, (void)now;
}

static enum store_state none_observe(struct store *s, const struct observation *o,
                                     struct replication_signals *out, store_done_fn *done,
                                     void *arg, struct store_op **op)
{
    (void)s, (void)done, (void)arg, (void)op;
    struct record *r = record_new(o->subject->now);
    replication_observe(r, o, out); /* a new record takes any content */
    out->degraded = true;
    record_free(&r);
    return STORE_DONE;
}

/* Every state is as if nothing was known. */
static enum store_state none_step(struct store *st, const struct subject *s,
                                  struct signals *signals, store_done_fn *done, void *arg,
                                  struct store_op **op)
{
    (void)st, (void)done, (void)arg, (void)op;
    _Alignas(16) uint8_t state[STATE_BYTES_MAX];
    struct about about[ABOUT_MAX];
    for (size_t i = 0; detectors[i]; i++) {
        size_t n = detectors[i]->about ? detectors[i]->about(s, signals, about) : 0;
        for (size_t k = 0; k < n; k++) {
            memset(state, 0, sizeof state);
            detectors[i]->step(state, s, &about[k], signals);
        }
    }
    return STORE_DONE;
}

static void none_settle(struct store *s, const struct key *k, const uint64_t *rcpt,
                        const enum fate *fate, size_t n)
{
    (void)s, (void)k, (void)rcpt, (void)fate, (void)n;
}

static bool none_report(struct store *s, const struct key *k, struct arena *a, struct report *out)
{
    (void)s, (void)k, (void)a, (void)out;
    return false;
}

static bool none_passed(struct store *s, const struct key *k, uint64_t rcpt)
{
    (void)s, (void)k, (void)rcpt;
    return false;
}

static void none_tick(struct store *s, int64_t now)
{
    (void)s, (void)now;
}

static void none_cancel(struct store *s, struct store_op **op)
{
    (void)s;
    *op = NULL;
}

static void none_close(struct store *s)
{
    free(s);
}

struct store *store_none_open(void)
{
    static const struct store_ops ops = {
        .name = "none",
        .tally_read = none_read,
        .tally_add = none_add,
        .observe = none_observe,
        .step = none_step,
        .settle = none_settle,
        .report = none_report,
        .passed = none_passed,
        .tick = none_tick,
        .cancel = none_cancel,
        .close = none_close,
    };
    struct store *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->ops = &ops;
    return s;
}
