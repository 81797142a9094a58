/*
 * tx_notes.h - a tx that takes notes instead of judging: what a door tells it, in order, and
 * verdicts as the test wants them. Included once, by a test of a door.
 */
#ifndef TX_NOTES_H
#define TX_NOTES_H

#include "tx.h"

struct tx {
    struct arena *arena;
    struct envelope envelope;
    struct verdict verdict;
    struct body *body;
    bool judged, ended;
    tx_done_fn *done;
    void *arg;
};

/* What the next verdicts shall be. */
static struct {
    const char *held; /* held recipients: their address must be in here */
    const char *reply, *tag, *stamp;
    unsigned strip;
    bool wait, no_room;
} verdict;

static char story[1 << 20];
static size_t nstory;
static int living, judgements, commits, refusals;
static struct tx *waiting;

static void note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void note(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(story + nstory, sizeof story - nstory, fmt, ap);
    va_end(ap);
    nstory += (size_t)n;
    if (nstory + 4096 >= sizeof story)
        nstory = 0; /* of a long test only the end is kept */
}

struct tx *tx_begin(struct pipeline *p, struct config *c, const struct keys *k, struct mailbox *m,
                    const char *door)
{
    (void)p, (void)c, (void)k, (void)m;
    struct arena *arena = arena_new();
    struct tx *tx = arena_zero(arena, sizeof *tx);
    tx->arena = arena;
    living++;
    note("begin(%s) ", door);
    return tx;
}

void tx_end(struct tx **txp)
{
    struct tx *tx = *txp;
    *txp = NULL;
    if (!tx)
        return;
    if (waiting == tx)
        waiting = NULL;
    living--;
    note("end\n");
    body_drop(&tx->body);
    struct arena *arena = tx->arena;
    arena_free(&arena);
}

struct arena *tx_arena(struct tx *tx)
{
    return tx->arena;
}

struct envelope *tx_envelope(struct tx *tx)
{
    return &tx->envelope;
}

void tx_keep(struct tx *tx)
{
    tx->body = body_new(NULL, verdict.no_room ? 1 : 64 << 20, 256 << 20);
}

void tx_reversepath(struct tx *tx, struct span raw, struct span params)
{
    struct envelope *e = &tx->envelope;
    char client[IPADDR_TEXT];
    ipaddr_print(&e->client, client);
    e->reversepath = arena_span(tx->arena, raw);
    e->reversepath_params = arena_span(tx->arena, params);
    note("from(%.*s|%.*s) client(%s %.*s %.*s) auth(%.*s) ", SPAN_ARG(raw), SPAN_ARG(params),
         client, SPAN_ARG(e->client_name), SPAN_ARG(e->helo), SPAN_ARG(e->auth));
}

int tx_recipient(struct tx *tx, struct span raw, struct span params)
{
    struct envelope *e = &tx->envelope;
    note("to(%.*s|%.*s) ", SPAN_ARG(raw), SPAN_ARG(params));
    e->recipients = arena_grow(tx->arena, e->recipients, e->nrecipients * sizeof *e->recipients,
                               (e->nrecipients + 1) * sizeof *e->recipients);
    struct recipient *r = &e->recipients[e->nrecipients++];
    *r = (struct recipient){.raw = arena_span(tx->arena, raw),
                            .params = arena_span(tx->arena, params)};
    r->address = span_bare(r->raw, '<', '>');
    return 0;
}

void tx_raw(struct tx *tx, struct span s)
{
    body_add(tx->body, s);
}

bool tx_bytes(struct tx *tx, struct span *head, struct body **body)
{
    *head = span_of(NULL, 0);
    *body = tx->body;
    body_seal(tx->body);
    return !body_lost(tx->body);
}

static void decide(struct tx *tx)
{
    struct verdict *v = &tx->verdict;
    v->n = tx->envelope.nrecipients;
    v->mode = verdict.held || verdict.tag ? MODE_ENFORCE : MODE_MONITOR;
    v->copy = arena_zero(tx->arena, v->n * sizeof *v->copy + 1);
    for (size_t i = 0; i < v->n; i++) {
        const char *address = arena_str(tx->arena, tx->envelope.recipients[i].address);
        bool held = verdict.held && strstr(verdict.held, address);
        v->copy[i].disposition = held ? DISP_HOLD : DISP_PASS;
        v->count[v->copy[i].disposition]++;
    }
    tx->judged = true;
}

enum tx_state tx_judge(struct tx *tx, tx_done_fn *done, void *arg)
{
    judgements++;
    note("judge(%.*s) ", SPAN_ARG(tx->envelope.queue_id));
    tx->done = done;
    tx->arg = arg;
    decide(tx);
    if (verdict.wait)
        waiting = tx;
    return verdict.wait ? TX_WAIT : TX_DONE;
}

const struct verdict *tx_verdict(const struct tx *tx)
{
    if (!tx->judged)
        abort();
    return &tx->verdict;
}

uint64_t tx_id(const struct tx *tx)
{
    (void)tx;
    return 1;
}

struct gauge *tx_gauge(const struct tx *tx)
{
    (void)tx;
    return NULL;
}

const char *tx_tag(const struct tx *tx)
{
    (void)tx;
    return verdict.tag;
}

const char *tx_stamp(const struct tx *tx)
{
    (void)tx;
    return verdict.stamp;
}

const char *tx_reply(const struct tx *tx)
{
    (void)tx;
    return verdict.reply;
}

void tx_refused(struct tx *tx, int code, const char *why)
{
    (void)why;
    if (tx->ended)
        abort();
    tx->ended = true;
    refusals++;
    note("refused(%d) ", code);
}

void tx_field(struct tx *tx, struct span name, struct span value)
{
    (void)tx;
    note("field(%.*s:%.*s) ", SPAN_ARG(name), SPAN_ARG(span_head(value, 40)));
}

void tx_header_end(struct tx *tx)
{
    (void)tx;
    note("eoh ");
}

void tx_body(struct tx *tx, struct span s)
{
    (void)tx;
    note("body(%zu) ", s.n);
}

void tx_indivisible(struct tx *tx)
{
    (void)tx;
    note("indivisible ");
}

unsigned tx_strip(const struct tx *tx)
{
    (void)tx;
    return verdict.strip;
}

void tx_commit(struct tx *tx)
{
    if (!tx->judged || tx->ended)
        abort();
    tx->ended = true;
    commits++;
    note("commit ");
}

#endif
