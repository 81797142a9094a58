/* aliases.c - a set-associative table, like tallies.c. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "aliases.h"

enum { SHARDS = 64, WAYS = 8 };

struct slot {
    struct key k;
    uint32_t used; /* s since 1970 */
    uint8_t worth; /* enum alias_worth */
    uint8_t join;  /* enum join */
    bool weak;
};

struct row {
    uint64_t alias[WAYS]; /* 0: free */
    struct slot slot[WAYS];
};

struct aliases {
    size_t nrows; /* a power of two, >= SHARDS */
    struct row *row;
    pthread_mutex_t lock[SHARDS]; /* of the rows with this number modulo SHARDS */
};

struct aliases *aliases_new(uint64_t bytes)
{
    struct aliases *a = calloc(1, sizeof *a);
    if (!a)
        abort();
    a->nrows = SHARDS;
    while (a->nrows * 2 * sizeof(struct row) <= bytes)
        a->nrows *= 2;
    a->row = calloc(a->nrows, sizeof *a->row); /* untouched pages cost nothing */
    if (!a->row)
        abort();
    for (unsigned i = 0; i < SHARDS; i++)
        pthread_mutex_init(&a->lock[i], NULL);
    return a;
}

void aliases_free(struct aliases **ap)
{
    struct aliases *a = *ap;
    *ap = NULL;
    if (!a)
        return;
    for (unsigned i = 0; i < SHARDS; i++)
        pthread_mutex_destroy(&a->lock[i]);
    free(a->row);
    free(a);
}

static struct row *row_lock(struct aliases *a, uint64_t alias)
{
    size_t at = alias & (a->nrows - 1);
    pthread_mutex_lock(&a->lock[at % SHARDS]);
    return &a->row[at];
}

static void row_unlock(struct aliases *a, uint64_t alias)
{
    pthread_mutex_unlock(&a->lock[(alias & (a->nrows - 1)) % SHARDS]);
}

size_t aliases_find(struct aliases *a, uint64_t alias, struct alias_found out[ALIAS_CANDIDATES])
{
    uint32_t used[ALIAS_CANDIDATES];
    size_t n = 0;
    if (!alias)
        return 0;
    struct row *row = row_lock(a, alias);
    for (unsigned i = 0; i < WAYS && n < ALIAS_CANDIDATES; i++) {
        if (row->alias[i] != alias)
            continue;
        const struct slot *s = &row->slot[i];
        size_t at = n++;
        for (; at && used[at - 1] < s->used; at--) {
            used[at] = used[at - 1];
            out[at] = out[at - 1];
        }
        used[at] = s->used;
        out[at] = (struct alias_found){s->k, (enum join)s->join, s->weak};
    }
    row_unlock(a, alias);
    return n;
}

/* Is slot i to be given up rather than slot j? */
static bool lesser(const struct row *row, unsigned i, unsigned j)
{
    const struct slot *a = &row->slot[i], *b = &row->slot[j];
    if (!row->alias[i] || !row->alias[j])
        return !row->alias[i] && row->alias[j];
    return a->worth != b->worth ? a->worth < b->worth : a->used < b->used;
}

/* The slot to take: the same pointer's; else the least of this alias's if it has enough of them;
 * else the least of the row. */
static unsigned slot_for(const struct row *row, uint64_t alias, const struct key *k)
{
    unsigned of_alias = WAYS, of_row = 0, n = 0;
    for (unsigned i = 0; i < WAYS; i++) {
        if (lesser(row, i, of_row))
            of_row = i;
        if (row->alias[i] != alias)
            continue;
        if (memcmp(&row->slot[i].k, k, sizeof *k) == 0)
            return i;
        n++;
        if (of_alias == WAYS || lesser(row, i, of_alias))
            of_alias = i;
    }
    return n >= ALIAS_CANDIDATES ? of_alias : of_row;
}

void aliases_put(struct aliases *a, uint64_t alias, const struct alias_found *to,
                 enum alias_worth worth, int64_t now)
{
    if (!alias)
        return;
    struct row *row = row_lock(a, alias);
    unsigned i = slot_for(row, alias, &to->k);
    if (!row->alias[i] || row->slot[i].worth <= worth) {
        row->alias[i] = alias;
        row->slot[i] = (struct slot){.k = to->k,
                                     .used = (uint32_t)(now / 1000),
                                     .worth = (uint8_t)worth,
                                     .join = (uint8_t)to->join,
                                     .weak = to->weak};
    }
    row_unlock(a, alias);
}

void aliases_put_record(struct aliases *a, const struct key *k, const struct origin *o,
                        enum alias_worth worth, int64_t now)
{
    const struct alias_found chain = {*k, JOIN_CHAIN, false}, text = {*k, JOIN_TEXT, false},
                             theme = {*k, JOIN_THEME, false};
    aliases_put(a, o->chain, &chain, worth, now);
    aliases_put(a, o->text, &text, worth, now);
    aliases_put(a, o->theme, &theme, worth, now);
}
