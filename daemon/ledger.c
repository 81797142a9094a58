/*
 * ledger.c - see ledger.h. Who waits lies in sets of eight, by key: of a full set the one not seen
 * longest is forgotten, its row stays as it is. The table in the database is bounded, too: what
 * somebody sends us to be refused must not fill the hold queue's disk.
 */
#include "ledger.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "log.h"

enum {
    WAYS = 8,
    SETS = 8192,
    QUEUE_BYTES = 4 << 20,
    ROWS_MAX = 100000,
    BYTES_MAX = 64 << 20,
    CUT = 512 /* bytes of a text */
};

/* A message that waits. times 0: free. */
struct waiting {
    uint64_t key, id;
    int64_t first, last;
    uint32_t times;
};

/* Something to be written. */
struct note {
    struct note *next;
    bool settled; /* only outcome and time of row.id */
    struct refusal_row row;
};

struct ledger {
    pthread_mutex_t lock; /* guards what follows */
    struct waiting (*set)[WAYS];
    struct arena *arena; /* what waits to be written lies in it; NULL: nothing does */
    struct note *first, **last;
    struct ledger_figures figures;
    _Atomic uint64_t waiting;
    bool sized; /* the keeper's: rows and bytes are known */
    uint64_t rows, bytes;
};

struct ledger *ledger_new(void)
{
    struct ledger *l = calloc(1, sizeof *l);
    if (!l || !(l->set = calloc(SETS, sizeof *l->set)))
        abort();
    pthread_mutex_init(&l->lock, NULL);
    l->last = &l->first;
    return l;
}

void ledger_free(struct ledger **place)
{
    struct ledger *l = *place;
    *place = NULL;
    if (!l)
        return;
    arena_free(&l->arena);
    pthread_mutex_destroy(&l->lock);
    free(l->set);
    free(l);
}

/* ---- which message ---- */

/* Where the field after f begins in the head; its end if there is none. */
static size_t after(const struct message *m, const struct field *f)
{
    return f + 1 < m->fields + m->nfields ? f[1].at : m->nhead;
}

static uint64_t key_of(const struct keys *keys, struct span head, uint64_t recipients)
{
    struct sip s;
    sip_begin(&s, keys, SIP_MISC);
    sip_add(&s, head.p, head.n);
    uint64_t key = sip_pair(keys, SIP_MISC, sip_end(&s), recipients);
    return key ? key : 1;
}

/* Where the header begins that reached the first of our own hosts. */
static size_t below_ours(const struct message *m, const struct trace *t, const struct site *site)
{
    size_t at = 0;
    const struct field *f = message_first(m, FIELD_RECEIVED);
    for (size_t i = 0; f && i < t->nhops && site_owns_host(site, t->hops[i].by); i++) {
        at = after(m, f);
        f = message_next(m, f);
    }
    return at;
}

void ledger_keys(struct ledger_keys *out, const struct keys *keys, const struct site *site,
                 const struct message *m, const struct trace *trace, const struct envelope *e)
{
    struct span head = span_of(m->head, m->nhead);
    const struct field *top = message_first(m, FIELD_RECEIVED);
    const struct field *second = top ? message_next(m, top) : NULL;
    uint64_t recipients = 452 + e->nrecipients;
    for (size_t i = 0; i < e->nrecipients; i++) /* in any order */
        recipients += keys_address(keys, e->recipients[i].address, NULL);
    out->key[0] = key_of(keys, top ? span_from(head, after(m, top)) : head, recipients);
    out->key[1] = second ? key_of(keys, span_from(head, after(m, second)), recipients) : 0;
    out->copy = key_of(keys, span_from(head, below_ours(m, trace, site)), recipients + 1);
}

/* ---- who waits ---- */

static struct waiting *set_of(struct ledger *l, uint64_t key)
{
    return l->set[key % SETS];
}

static void forget(struct ledger *l, struct waiting *w)
{
    *w = (struct waiting){0};
    atomic_fetch_sub_explicit(&l->waiting, 1, memory_order_relaxed);
}

/* Who has not come again for a day is gone. */
static struct waiting *find_key(struct ledger *l, uint64_t key, int64_t now)
{
    struct waiting *set = set_of(l, key);
    for (struct waiting *w = set; w < set + WAYS; w++) {
        if (w->times && now - w->last >= LEDGER_GONE)
            forget(l, w);
        if (w->times && w->key == key)
            return w;
    }
    return NULL;
}

static struct waiting *find(struct ledger *l, const struct ledger_keys *k, int64_t now)
{
    struct waiting *w = k->copy ? find_key(l, k->copy, now) : NULL;
    w = w ? w : find_key(l, k->key[0], now);
    return w || !k->key[1] ? w : find_key(l, k->key[1], now);
}

static struct waiting *open_place(struct ledger *l, uint64_t key)
{
    struct waiting *set = set_of(l, key), *oldest = set;
    for (struct waiting *w = set; w < set + WAYS; w++)
        if (w->times == 0 || (oldest->times && w->last < oldest->last))
            oldest = w;
    if (oldest->times == 0)
        atomic_fetch_add_explicit(&l->waiting, 1, memory_order_relaxed);
    *oldest = (struct waiting){.key = key};
    return oldest;
}

bool ledger_waiting(const struct ledger *l)
{
    return atomic_load_explicit(&l->waiting, memory_order_relaxed) > 0;
}

bool ledger_known(struct ledger *l, const struct ledger_keys *k, int64_t now, uint32_t *times,
                  int64_t *first)
{
    if (!ledger_waiting(l))
        return false;
    pthread_mutex_lock(&l->lock);
    const struct waiting *w = find(l, k, now);
    if (w) {
        *times = w->times;
        *first = w->first;
    }
    pthread_mutex_unlock(&l->lock);
    return w;
}

static int read_waiting(void *arg, const struct refusal_row *r)
{
    struct ledger *l = arg;
    struct waiting *w = open_place(l, r->key);
    w->id = r->id;
    w->first = r->first;
    w->last = r->last;
    w->times = r->times ? r->times : 1;
    return 0;
}

int ledger_load(struct ledger *l, struct hold *view, int64_t now)
{
    const struct refusal_filter f = {
        .waiting = true, .since = now - LEDGER_GONE + 1, .limit = WAYS * SETS};
    pthread_mutex_lock(&l->lock);
    int rc = hold_each_refusal(view, &f, read_waiting, l);
    pthread_mutex_unlock(&l->lock);
    return rc;
}

/* ---- what is to be written ---- */

/* One more at the end of the queue, under the lock; NULL: it is full. */
static struct note *note_new(struct ledger *l)
{
    if (l->arena && arena_used(l->arena) >= QUEUE_BYTES) {
        l->figures.lost++;
        return NULL;
    }
    if (!l->arena)
        l->arena = arena_new();
    struct note *n = arena_zero(l->arena, sizeof *n);
    *l->last = n;
    l->last = &n->next;
    return n;
}

/* A stranger's words as one line of text. */
static const char *line_of(struct arena *a, struct span s)
{
    s = span_head(s, CUT);
    char *out = arena_str(a, s);
    for (size_t i = 0; i < s.n; i++)
        if ((uint8_t)out[i] < 0x20 || out[i] == 0x7f)
            out[i] = '?';
    return out;
}

static const char *recipients_of(struct arena *a, const struct envelope *e)
{
    size_t size = 2, used = 1, n = 0;
    for (; n < e->nrecipients; n++) {
        size_t more = span_head(e->recipients[n].address, CUT).n + 1;
        if (size + more > REFUSAL_RCPTS)
            break;
        size += more;
    }
    char *out = arena_alloc(a, size);
    out[0] = '\n';
    for (size_t i = 0; i < n; i++) {
        struct span s = arena_lower(a, span_head(e->recipients[i].address, CUT));
        const char *line = line_of(a, s);
        memcpy(out + used, line, s.n);
        out[used + s.n] = '\n';
        used += s.n + 1;
    }
    out[used] = '\0';
    return out;
}

static void fill_row(struct refusal_row *row, struct arena *a, const struct refusal *r,
                     const struct waiting *w)
{
    const struct envelope *e = r->envelope;
    char client[IPADDR_TEXT];
    *row = (struct refusal_row){
        .id = w->id,
        .key = w->key,
        .first = w->first,
        .last = w->last,
        .times = w->times,
        .outcome = r->final ? REFUSAL_REJECTED : REFUSAL_WAITING,
        .settled = r->final ? r->now : 0,
        .door = line_of(a, span_str(r->door)),
        .client = arena_str(a, span_of(client, ipaddr_print(&e->client, client))),
        .client_name = line_of(a, e->client_name),
        .sender = line_of(a, e->reversepath),
        .rcpts = recipients_of(a, e),
        .recipients = (uint32_t)e->nrecipients,
        .queue_id = line_of(a, e->queue_id),
        .message_id = line_of(a, r->message_id),
        .rule = line_of(a, span_str(r->rule)),
        .reason = line_of(a, span_str(r->reason)),
    };
}

void ledger_refused(struct ledger *l, const struct ledger_keys *k, const struct refusal *r)
{
    pthread_mutex_lock(&l->lock);
    struct waiting *w = find(l, k, r->now);
    if (!w) {
        w = open_place(l, k->key[0]);
        w->id = r->tx;
        w->first = r->now;
    }
    w->last = r->now;
    w->times++;
    struct note *n = note_new(l);
    if (n)
        fill_row(&n->row, l->arena, r, w);
    if (r->final)
        forget(l, w);
    l->figures.refused++;
    pthread_mutex_unlock(&l->lock);
}

void ledger_settled(struct ledger *l, const struct ledger_keys *k, enum refusal_outcome outcome,
                    int64_t now)
{
    pthread_mutex_lock(&l->lock);
    struct waiting *w = find(l, k, now);
    struct note *n = w ? note_new(l) : NULL;
    if (n) {
        n->settled = true;
        n->row = (struct refusal_row){.id = w->id, .outcome = outcome, .settled = now};
        l->figures.settled++;
    }
    if (w)
        forget(l, w);
    pthread_mutex_unlock(&l->lock);
}

void ledger_figures(struct ledger *l, struct ledger_figures *out)
{
    pthread_mutex_lock(&l->lock);
    *out = l->figures;
    pthread_mutex_unlock(&l->lock);
    out->waiting = atomic_load_explicit(&l->waiting, memory_order_relaxed);
}

/* ---- writing ---- */

void ledger_recount(struct ledger *l)
{
    l->sized = false;
}

struct writing {
    struct job job; /* must be first */
    struct ledger *ledger;
    struct arena *arena; /* the notes lie in it */
    struct note *notes;
    uint64_t n;
};

/* The oldest go when there are too many. */
static int make_room(struct ledger *l, struct hold *hold)
{
    while (l->rows > ROWS_MAX || l->bytes > BYTES_MAX)
        if (hold_refusal_drop(hold, &l->rows, &l->bytes) < 0)
            return -1;
    return 0;
}

/* Counted as new even if it is there: too much is put right by the next ledger_recount. */
static int write_note(struct ledger *l, struct hold *hold, const struct note *n)
{
    const struct refusal_row *r = &n->row;
    if (n->settled)
        return hold_refusal_settle(hold, r->id, r->outcome, r->settled);
    if (hold_refusal_put(hold, r) < 0)
        return -1;
    if (r->times > 1)
        return 0;
    l->rows++;
    l->bytes += 200 + strlen(r->rcpts) + strlen(r->sender) + strlen(r->reason) +
                strlen(r->message_id) + strlen(r->client_name);
    return make_room(l, hold);
}

static int write_run(struct hold *hold, struct job *job)
{
    struct writing *w = (struct writing *)job;
    struct ledger *l = w->ledger;
    if (!l->sized && hold_refusal_size(hold, &l->rows, &l->bytes) < 0)
        return -1;
    l->sized = true;
    for (const struct note *n = w->notes; n; n = n->next)
        if (write_note(l, hold, n) < 0) {
            l->sized = false; /* what was written is taken back */
            return -1;
        }
    return 0;
}

static void write_done(struct job *job)
{
    struct writing *w = (struct writing *)job;
    if (job->result < 0) {
        log_say(LOG_LEVEL_ERROR,
                "the ledger lost %llu refusals: the hold database did not take them",
                (unsigned long long)w->n);
        pthread_mutex_lock(&w->ledger->lock);
        w->ledger->figures.lost += w->n;
        pthread_mutex_unlock(&w->ledger->lock);
        w->ledger->sized = false;
    }
    arena_free(&w->arena);
    free(w);
}

void ledger_flush(struct ledger *l, struct keeper *keeper)
{
    pthread_mutex_lock(&l->lock);
    struct arena *arena = l->arena;
    struct note *notes = l->first;
    l->arena = NULL;
    l->first = NULL;
    l->last = &l->first;
    pthread_mutex_unlock(&l->lock);
    if (!arena)
        return;
    struct writing *w = calloc(1, sizeof *w);
    if (!w)
        abort();
    *w = (struct writing){.ledger = l, .arena = arena, .notes = notes};
    w->job = (struct job){.run = write_run, .done = write_done};
    for (const struct note *n = notes; n; n = n->next)
        w->n++;
    keeper_submit(keeper, &w->job);
}
