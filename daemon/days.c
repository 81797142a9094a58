/*
 * days.c - see days.h. The table in memory is open addressing over a hash of the row's names and
 * numbers; a row once taken is never given back, so that nobody needs a lock: who finds a free one
 * takes it by compare-and-swap, writes the names, and says that they are there.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "days.h"
#include "id.h"

enum { ROWS = 2048, TRIES = 64, SAVE_MS = 60000, PLAIN = MODE_COUNT + 2 };

/* What was added since the start, and how much of it is in the database. */
struct amount {
    uint64_t saved, sent; /* sent: on its way there */
};

struct row {
    _Atomic uint64_t key; /* 0: free */
    _Atomic bool named;
    uint8_t mode, done, advised;
    char listener[DAY_NAME], rule[DAY_NAME];
    _Atomic uint64_t copies, firsts;
    struct amount copies_at, firsts_at; /* the desk's */
};

struct save;

struct days {
    struct row row[ROWS];
    _Atomic uint64_t left_out;
    struct figures *figures;
    struct amount *plain;          /* of each gauge, PLAIN of them */
    int64_t looked, saved, tidied; /* ms */
    bool busy;                     /* a save is under way */
};

/* Rows on their way to the database. */
struct save {
    struct job job; /* must be first */
    struct days *days;
    int64_t now;
    bool tidy;
    struct day_row *row;
    size_t n, cap;
};

struct days *days_new(struct figures *figures)
{
    size_t gauges = 0;
    struct days *d = calloc(1, sizeof *d);
    if (!d)
        abort();
    while (figures_at(figures, gauges))
        gauges++;
    d->figures = figures;
    d->plain = calloc(gauges * PLAIN + 1, sizeof *d->plain);
    if (!d->plain)
        abort();
    return d;
}

void days_free(struct days **d)
{
    if (*d)
        free((*d)->plain);
    free(*d);
    *d = NULL;
}

uint64_t days_left_out(const struct days *d)
{
    return atomic_load_explicit(&d->left_out, memory_order_relaxed);
}

/* ---- adding: mail threads ---- */

static uint64_t mix(uint64_t h, const char *s)
{
    for (size_t i = 0; i < DAY_NAME - 1 && s[i]; i++)
        h = (h ^ (uint8_t)s[i]) * UINT64_C(0x100000001b3);
    return (h ^ 0xff) * UINT64_C(0x100000001b3);
}

/* FNV-1a: the names are the operator's own. */
static uint64_t key_of(const struct day_row *r)
{
    uint64_t h =
        UINT64_C(0xcbf29ce484222325) ^ (uint64_t)(r->mode << 16 | r->done << 8 | r->advised);
    h = mix(mix(h, r->listener), r->rule);
    h ^= h >> 32;
    return h ? h : 1;
}

static void name(struct row *row, const struct day_row *r)
{
    row->mode = r->mode;
    row->done = r->done;
    row->advised = r->advised;
    memcpy(row->listener, r->listener, strnlen(r->listener, DAY_NAME - 1));
    memcpy(row->rule, r->rule, strnlen(r->rule, DAY_NAME - 1));
    atomic_store_explicit(&row->named, true, memory_order_release);
}

static struct row *find(struct days *d, const struct day_row *r)
{
    uint64_t key = key_of(r);
    for (unsigned i = 0; i < TRIES; i++) {
        struct row *row = &d->row[(key + i) % ROWS];
        uint64_t there = atomic_load_explicit(&row->key, memory_order_relaxed);
        if (there == 0 && atomic_compare_exchange_strong(&row->key, &there, key)) {
            name(row, r);
            return row;
        }
        if (there == key)
            return row;
    }
    return NULL;
}

void days_add(struct days *d, const struct day_row *r)
{
    struct row *row = d ? find(d, r) : NULL;
    if (!d)
        return;
    if (!row) {
        atomic_fetch_add_explicit(&d->left_out, r->copies, memory_order_relaxed);
        return;
    }
    atomic_fetch_add_explicit(&row->copies, r->copies, memory_order_relaxed);
    if (r->firsts)
        atomic_fetch_add_explicit(&row->firsts, r->firsts, memory_order_relaxed);
}

/* ---- what is not saved yet ---- */

/* Figures that are rows of no rule. Aborted and refused mail was not given to a mode. */
static enum figure plain_figure(unsigned i, struct day_row *r)
{
    if (i < MODE_COUNT) {
        r->mode = (uint8_t)i;
        r->done = r->advised = DISP_PASS;
        return FIGURE_PLAIN + i;
    }
    r->mode = 0;
    r->done = r->advised = i == MODE_COUNT ? DAY_REFUSED : DAY_ABORTED;
    return i == MODE_COUNT ? FIGURE_REFUSED : FIGURE_ABORTED;
}

typedef void fresh_fn(void *arg, const struct day_row *, struct amount *copies,
                      struct amount *firsts);

static void each_fresh(struct days *d, int64_t hour, fresh_fn *fn, void *arg)
{
    struct gauge *g;
    for (size_t i = 0; i < ROWS; i++) {
        struct row *row = &d->row[i];
        if (!atomic_load_explicit(&row->named, memory_order_acquire))
            continue;
        struct day_row r = {
            .hour = hour,
            .listener = row->listener,
            .rule = row->rule,
            .mode = row->mode,
            .done = row->done,
            .advised = row->advised,
            .copies = atomic_load(&row->copies) - row->copies_at.saved - row->copies_at.sent,
            .firsts = atomic_load(&row->firsts) - row->firsts_at.saved - row->firsts_at.sent};
        if (r.copies || r.firsts)
            fn(arg, &r, &row->copies_at, &row->firsts_at);
    }
    for (size_t i = 0; (g = figures_at(d->figures, i)); i++)
        for (unsigned p = 0; p < PLAIN; p++) {
            struct amount *at = &d->plain[i * PLAIN + p];
            struct day_row r = {.hour = hour, .listener = gauge_door(g), .rule = ""};
            r.copies = gauge_total(g, plain_figure(p, &r)) - at->saved - at->sent;
            if (r.copies)
                fn(arg, &r, at, NULL);
        }
}

/* ---- saving: the desk, and the keeper ---- */

static void put_row(void *arg, const struct day_row *r, struct amount *copies,
                    struct amount *firsts)
{
    struct save *s = arg;
    if (s->n == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 32;
        s->row = realloc(s->row, s->cap * sizeof *s->row);
        if (!s->row)
            abort();
    }
    s->row[s->n++] = *r;
    copies->sent = r->copies;
    if (firsts)
        firsts->sent = r->firsts;
}

static int save_run(struct hold *hold, struct job *job)
{
    const struct save *s = (const struct save *)job;
    for (size_t i = 0; i < s->n; i++)
        if (hold_day_add(hold, &s->row[i]) < 0)
            return -1;
    return s->tidy ? hold_day_tidy(hold, s->now) : 0;
}

static void settle(struct amount *a, bool good)
{
    a->saved += good ? a->sent : 0;
    a->sent = 0;
}

static void save_done(struct job *job)
{
    struct save *s = (struct save *)job;
    struct days *d = s->days;
    bool good = job->result >= 0;
    for (size_t i = 0; i < ROWS; i++) {
        settle(&d->row[i].copies_at, good);
        settle(&d->row[i].firsts_at, good);
    }
    for (size_t i = 0; figures_at(d->figures, i); i++)
        for (unsigned p = 0; p < PLAIN; p++)
            settle(&d->plain[i * PLAIN + p], good);
    if (good && s->tidy)
        d->tidied = s->now;
    d->busy = false;
    free(s->row);
    free(s);
}

void days_save(struct days *d, struct keeper *keeper, struct mailbox *home, int64_t now, bool all)
{
    int64_t hour = (d->looked ? d->looked : now) / DAY_HOUR; /* what was counted until now was in */
    bool over = hour != now / DAY_HOUR;
    if (!d->saved)
        d->saved = now;
    if (d->busy || (!all && !over && now - d->saved < SAVE_MS)) {
        d->looked = over && d->busy ? d->looked : now;
        return;
    }
    d->looked = d->saved = now;
    struct save *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->days = d;
    s->now = now;
    s->tidy = now / DAY_HOUR / 24 != d->tidied / DAY_HOUR / 24;
    s->job = (struct job){.run = save_run, .done = save_done, .home = home};
    each_fresh(d, hour, put_row, s);
    if (!s->n && !s->tidy) {
        free(s);
        return;
    }
    d->busy = true;
    keeper_submit(keeper, &s->job);
}

/* ---- reading: the desk ---- */

struct reader {
    day_fn *fn;
    void *arg;
};

static void tell_fresh(void *arg, const struct day_row *r, struct amount *copies,
                       struct amount *firsts)
{
    const struct reader *reader = arg;
    (void)copies, (void)firsts;
    reader->fn(reader->arg, r);
}

int days_each(struct days *d, struct hold *view, int64_t from, int64_t until, bool by_day,
              day_fn *fn, void *arg)
{
    struct reader reader = {fn, arg};
    int64_t hour = (d->looked ? d->looked : clock_now()) / DAY_HOUR;
    if (hold_day_each(view, from, until, by_day, fn, arg) < 0)
        return -1;
    if (hour >= from && hour < until)
        each_fresh(d, by_day ? hour / 24 * 24 : 0, tell_fresh, &reader);
    return 0;
}
