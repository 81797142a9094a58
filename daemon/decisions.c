/* decisions.c - see decisions.h. */
#include "decisions.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "id.h"
#include "log.h"

/* ---- reading ---- */

struct reading {
    struct entry *entry[DECISIONS_MAX];
    size_t n;
};

/* One that cannot be read is left out: it was written by another version, or is damaged. */
static int read_entry(void *arg, const struct entry_row *row)
{
    struct reading *r = arg;
    struct entry_terms terms = row->terms;
    char id[ID_TEXT], error[200];
    id_print(row->id, id);
    terms.id = id;
    struct entry *e = entry_new(&terms, error);
    if (e)
        r->entry[r->n++] = e;
    else
        log_say(LOG_LEVEL_ERROR, "entry %s is not in force: %s", id, error);
    return 0;
}

struct entries *decisions_load(struct hold *view, int64_t now)
{
    struct reading *r = calloc(1, sizeof *r);
    if (!r)
        abort();
    bool good = hold_each_entry(view, now, DECISIONS_MAX, read_entry, r) == 0;
    struct entries *entries = entries_new(r->entry, r->n);
    free(r);
    if (!good)
        entries_drop(&entries);
    return entries;
}

/* ---- changing ---- */

void decisions_change(struct rulebook *book, int64_t now, const char *without, struct entry *more)
{
    rulebook_lock(book);
    struct rules *old = rulebook_take(book), *fresh = rules_copy(old);
    entries_drop(&fresh->entries);
    fresh->entries = entries_change(old->entries, now, without, more);
    rulebook_put(book, fresh);
    rules_drop(&old);
    rulebook_unlock(book);
}

size_t decisions_count(struct rulebook *book, int64_t now)
{
    struct rules *rules = rulebook_take(book);
    size_t n = 0;
    for (size_t i = 0; i < entries_count(rules->entries); i++)
        n += entries_at(rules->entries, i)->until > now;
    rules_drop(&rules);
    return n;
}

/* ---- how often they were used ---- */

struct use {
    uint64_t id, used;
    int64_t last;
};
struct save {
    struct job job; /* must be first */
    struct use *use;
    size_t n;
};

static int save_run(struct hold *hold, struct job *job)
{
    const struct save *s = (const struct save *)job;
    for (size_t i = 0; i < s->n; i++)
        if (hold_entry_used(hold, s->use[i].id, s->use[i].used, s->use[i].last) < 0)
            return -1;
    return 0;
}

/* What is lost now is made good with the next use. */
static void save_done(struct job *job)
{
    struct save *s = (struct save *)job;
    free(s->use);
    free(s);
}

void decisions_save(struct rulebook *book, struct keeper *keeper, struct mailbox *home)
{
    struct rules *rules = rulebook_take(book);
    size_t n = entries_count(rules->entries);
    struct save *s = NULL;
    for (size_t i = 0; i < n; i++) {
        struct entry *e = entries_at(rules->entries, i);
        uint64_t id, used = atomic_load_explicit(&e->used, memory_order_relaxed);
        if (used == e->saved || !id_parse(&id, span_str(e->id)))
            continue;
        if (!s && (!(s = calloc(1, sizeof *s)) || !(s->use = calloc(n, sizeof *s->use))))
            abort();
        e->saved = used;
        s->use[s->n++] =
            (struct use){id, used, atomic_load_explicit(&e->last, memory_order_relaxed)};
    }
    rules_drop(&rules);
    if (!s)
        return;
    s->job = (struct job){.run = save_run, .done = save_done, .home = home};
    keeper_submit(keeper, &s->job);
}
