/*
 * release.c - the release engine (DESIGN.md 6).
 *
 *   due -> [keeper: attempt n] -> bytes, SHA-256 -> token -> outbound -> [keeper: mark] -> over
 *
 * One delivery is one attempt for one mail: its copies that were due travel in one transaction. The
 * attempt is durable before the first byte leaves, what the MTA said is durable before the copies
 * are looked at again. Between the MTA's 250 and our mark lies the one gap nobody can close: a
 * crash there delivers a second time.
 *
 * Invariant: a mail has at most one delivery. A delivery is either with the keeper (asked), or with
 * outbound (sending), or waits for its retry timer; and in release->first as long as there is an
 * engine.
 */
#include <stdio.h>
#include <stdlib.h>

#include "failpoint.h"
#include "id.h"
#include "outbound.h"
#include "release.h"
#include "token.h"

enum { INFLIGHT_MAX = 4, ROWS = 1000 };
static const int64_t look_pause = 1000, mark_pause = 5000, more_pause = 1000; /* ms */
static const int64_t pause_first = 60 * 1000, pause_most = 3600 * 1000;
/* The token outlives the transaction, the attempt's claim on the copies, too. */
static const int64_t send_deadline = 20 * 60 * 1000, claim = 25 * 60 * 1000,
                     token_life = 3600 * 1000;

struct release {
    struct event_base *base;
    struct config *config;
    struct keeper *keeper;
    struct mailbox *home;
    struct hold *view;
    struct tls *tls; /* NULL: release.tls is never */
    struct event *timer;
    struct delivery *first;
    int64_t pause_first;
    double bucket;  /* messages that may be sent now */
    int64_t filled; /* when it was, clock_mono() */
    bool resumed, said_off, failing;
    struct release_figures figures;
};

struct delivery {
    struct job job; /* must be first */
    struct delivery *next;
    struct release *release; /* NULL: the engine is gone, we end when the keeper gives us back */
    uint64_t mail;
    uint32_t attempt;
    int64_t now; /* of the attempt, later of its result */
    struct arena *arena;
    uint64_t *copies, *hashes; /* ids, recipient hashes; as many as rcpts */
    size_t cap;
    struct outbound_rcpt *rcpts;
    uint8_t sha256[32];
    uint8_t *bytes;
    struct outbound_mail out;
    struct outbound *sending;
    struct event *retry;
    size_t delivered;
    int64_t *after; /* of each copy: not before, ms; 0: taken */
    bool asked, damaged;
};

static void look(struct release *);

/* ---- a delivery's life ---- */

static void delivery_free(struct delivery *d)
{
    struct release *r = d->release;
    for (struct delivery **p = r ? &r->first : NULL; p && *p; p = &(*p)->next)
        if (*p == d) {
            *p = d->next;
            r->figures.inflight--;
            break;
        }
    outbound_cancel(&d->sending);
    if (d->retry)
        event_free(d->retry);
    free(d->bytes);
    arena_free(&d->arena);
    free(d);
}

static void ask_keeper(struct delivery *d, int (*run)(struct hold *, struct job *),
                       void (*done)(struct job *))
{
    struct release *r = d->release;
    d->job = (struct job){.run = run, .done = done, .home = r->home};
    d->asked = true;
    keeper_submit(r->keeper, &d->job);
}

/* Back from the keeper. NULL: the engine has gone meanwhile. */
static struct delivery *back(struct job *job)
{
    struct delivery *d = (struct delivery *)job;
    d->asked = false;
    if (d->release)
        return d;
    delivery_free(d);
    return NULL;
}

static void log_delivery(const struct delivery *d, enum log_level level, const char *what,
                         const char *reply)
{
    char id[ID_TEXT];
    struct logline l;
    id_print(d->mail, id);
    log_begin(&l, level, "mail", span_str(id));
    log_str(&l, "release", what);
    log_num(&l, "attempt", d->attempt);
    log_num(&l, "copies", (long long)d->out.nrcpts);
    log_num(&l, "sent", (long long)d->delivered);
    log_str(&l, "to", d->release->config->release_to);
    log_str(&l, "reply", reply);
    log_end(&l);
}

/* ---- the last step: what the MTA said becomes durable ---- */

/* How long a copy that was not taken waits, in ms. */
static int64_t pause_after(const struct delivery *d, const struct outbound_rcpt *rcpt)
{
    if (d->damaged || rcpt->code >= 500)
        return pause_most;
    if (rcpt->code == 452 && d->delivered) /* RFC 5321 4.5.3.1.10: too many at once */
        return more_pause;
    int64_t pause = d->release->pause_first;
    for (uint32_t n = 1; n < d->attempt && pause < pause_most; n++)
        pause *= 2;
    return pause < pause_most ? pause : pause_most;
}

/* On the keeper's thread: touches nothing that release_free() does. */
static int mark_run(struct hold *hold, struct job *job)
{
    struct delivery *d = (struct delivery *)job;
    for (size_t i = 0; i < d->out.nrcpts; i++) {
        const struct outbound_rcpt *rcpt = &d->rcpts[i];
        int n = d->after[i] ? hold_deferred(hold, d->copies[i], rcpt->reply, d->after[i])
                            : hold_released(hold, d->copies[i], rcpt->reply, d->now);
        if (n < 0)
            return -1;
    }
    return 0;
}

static void mark(struct delivery *d);

static void mark_again(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    mark(arg);
}

static void mark_done(struct job *job)
{
    struct delivery *d = back(job);
    if (!d)
        return;
    if (d->job.result < 0) {
        log_delivery(d, LOG_LEVEL_ERROR, "not-marked",
                     "the hold database cannot be written; again soon");
        if (!d->retry && !(d->retry = evtimer_new(d->release->base, mark_again, d)))
            abort();
        struct timeval tv = clock_timeval(mark_pause);
        evtimer_add(d->retry, &tv);
        return;
    }
    (void)FAILPOINT("release.marked");
    struct release *r = d->release;
    r->figures.sent += d->delivered;
    r->figures.deferred += d->out.nrcpts - d->delivered;
    delivery_free(d);
    look(r);
}

static void mark(struct delivery *d)
{
    ask_keeper(d, mark_run, mark_done);
}

/* Every recipient has a reply. */
static void conclude(struct delivery *d)
{
    const char *refusal = NULL;
    d->now = clock_now();
    for (size_t i = 0; i < d->out.nrcpts; i++)
        d->delivered += d->rcpts[i].code / 100 == 2;
    for (size_t i = 0; i < d->out.nrcpts; i++) {
        bool taken = d->rcpts[i].code / 100 == 2;
        d->after[i] = taken ? 0 : d->now + pause_after(d, &d->rcpts[i]);
        if (!taken && !refusal)
            refusal = d->rcpts[i].reply;
    }
    log_delivery(d, d->damaged ? LOG_LEVEL_ERROR : LOG_LEVEL_NOTICE, refusal ? "deferred" : "sent",
                 refusal ? refusal : d->rcpts[0].reply);
    mark(d);
}

static void conclude_all(struct delivery *d, const char *reply)
{
    for (size_t i = 0; i < d->out.nrcpts; i++) {
        d->rcpts[i].code = 0;
        snprintf(d->rcpts[i].reply, sizeof d->rcpts[i].reply, "%s", reply);
    }
    conclude(d);
}

/* ---- the step before: sending ---- */

static void sent(void *arg, struct outbound_mail *mail)
{
    struct delivery *d = arg;
    (void)mail;
    d->sending = NULL;
    (void)FAILPOINT("release.after_250");
    conclude(d);
}

/* A copy of this attempt, if it is one. */
static int add_copy(void *arg, const struct copy_row *row)
{
    struct delivery *d = arg;
    size_t n = d->out.nrcpts;
    if (row->attempts != d->attempt)
        return 0;
    if (n == d->cap) {
        size_t cap = n * 2 + 16;
        d->rcpts = arena_grow(d->arena, d->rcpts, n * sizeof *d->rcpts, cap * sizeof *d->rcpts);
        d->copies = arena_grow(d->arena, d->copies, n * sizeof *d->copies, cap * sizeof *d->copies);
        d->hashes = arena_grow(d->arena, d->hashes, n * sizeof *d->hashes, cap * sizeof *d->hashes);
        d->cap = cap;
    }
    if (n == 0) {
        struct span path = span_bare(span_str(row->reversepath), '<', '>');
        d->out.reversepath = arena_span(d->arena, path);
        d->out.reversepath_params = arena_span(d->arena, span_str(row->reversepath_params));
    }
    d->copies[n] = row->id;
    d->hashes[n] = row->rcpt_hash;
    d->rcpts[n] = (struct outbound_rcpt){
        .path = arena_span(d->arena, span_bare(span_str(row->rcpt), '<', '>')),
        .params = arena_span(d->arena, span_str(row->params)),
    };
    d->out.nrcpts++;
    return 0;
}

struct page {
    copy_fn *fn;
    void *arg;
    uint64_t last;
    size_t n;
};

static int turn_page(void *arg, const struct copy_row *row)
{
    struct page *p = arg;
    p->last = row->id;
    p->n++;
    return p->fn(p->arg, row);
}

/* All copies that are releasing, of one mail or (0) of all. */
static int each_releasing(struct hold *view, uint64_t mail, copy_fn *fn, void *arg)
{
    struct hold_filter filter = {.state = COPY_RELEASING, .mail = mail, .limit = ROWS};
    struct page page = {.fn = fn, .arg = arg};
    do {
        page.n = 0;
        if (hold_each(view, &filter, turn_page, &page))
            return -1;
        filter.after = page.last;
    } while (page.n == ROWS);
    return 0;
}

/* The message and all about it into d->out. NULL, or why it cannot be sent. */
static const char *fetch(struct delivery *d)
{
    struct release *r = d->release;
    struct config *c = r->config;
    size_t n;
    int found = hold_bytes(r->view, d->mail, &d->bytes, &n, d->sha256);
    if (found) {
        d->damaged = true;
        return found == -2
                   ? "not sent: the message in the hold database is damaged (its SHA-256 is "
                     "not what it was when it was held)"
                   : "not sent: the message is no longer in the hold database";
    }
    d->out.bytes = d->bytes;
    d->out.nbytes = n;
    d->out.to = c->release_to;
    d->out.helo = c->release_helo;
    d->out.tls = r->tls;
    d->out.tls_required = c->release_tls == TLS_MUST;
    d->out.deadline = send_deadline;
    if (!c->release_token)
        return NULL;
    struct token t = {.mail = d->mail, .attempt = d->attempt, .expiry = clock_now() + token_life};
    char text[TOKEN_TEXT];
    token_make(&t, c->site_key, d->sha256, d->hashes, d->out.nrcpts);
    token_print(&t, text);
    d->out.extra_field = span_str(arena_printf(d->arena, TOKEN_FIELD ": %s", text));
    return NULL;
}

/* The attempt is durable: from here on it must come to a result. */
static void attempt_done(struct job *job)
{
    struct delivery *d = back(job);
    if (!d)
        return;
    struct release *r = d->release;
    d->attempt = d->job.result > 0 ? (uint32_t)d->job.result : 0;
    if (!d->attempt || each_releasing(r->view, d->mail, add_copy, d) || d->out.nrcpts == 0) {
        /* undone meanwhile, or the database is in trouble: due again when the claim ends */
        delivery_free(d);
        return;
    }
    r->figures.attempts++;
    d->out.rcpts = d->rcpts;
    d->after = arena_alloc(d->arena, d->out.nrcpts * sizeof *d->after);
    const char *problem = fetch(d);
    if (!problem && FAILPOINT("release.before_send"))
        problem = "not sent: a test said so";
    if (problem)
        conclude_all(d, problem);
    else
        d->sending = outbound_send(r->base, &d->out, sent, d);
}

/* ---- the first step: a mail is due ---- */

static int attempt_run(struct hold *hold, struct job *job)
{
    struct delivery *d = (struct delivery *)job;
    return hold_attempt(hold, d->mail, d->now, d->now + claim);
}

static void begin(struct release *r, uint64_t mail)
{
    struct delivery *d = calloc(1, sizeof *d);
    if (!d)
        abort();
    d->release = r;
    d->mail = mail;
    d->now = clock_now();
    d->arena = arena_new();
    d->next = r->first;
    r->first = d;
    r->figures.inflight++;
    ask_keeper(d, attempt_run, attempt_done);
}

static bool under_way(const struct release *r, uint64_t mail)
{
    for (const struct delivery *d = r->first; d; d = d->next)
        if (d->mail == mail)
            return true;
    return false;
}

/* At most a second's worth is saved up, but always one message. */
static double bucket_size(const struct release *r)
{
    return r->config->release_rate > 1 ? r->config->release_rate : 1;
}

/* Adds what the rate allows since the last time. */
static void fill_bucket(struct release *r)
{
    int64_t now = clock_mono();
    r->bucket += (double)(now - r->filled) / 1000 * r->config->release_rate;
    if (r->bucket > bucket_size(r))
        r->bucket = bucket_size(r);
    r->filled = now;
}

static void look_in(struct release *r, int64_t ms)
{
    struct timeval tv = clock_timeval(ms);
    if (evtimer_add(r->timer, &tv))
        abort();
}

/* Begins as many due mails as may be, and sees to it that we look again. */
static void begin_due(struct release *r)
{
    uint64_t mails[2 * INFLIGHT_MAX]; /* those under way may still seem due */
    int n = hold_due(r->view, clock_now(), mails, 2 * INFLIGHT_MAX);
    if (n < 0 && !r->failing)
        log_say(LOG_LEVEL_ERROR, "release: the hold database cannot be read; trying on");
    r->failing = n < 0;
    fill_bucket(r);
    for (int i = 0; i < n && r->figures.inflight < INFLIGHT_MAX; i++) {
        if (under_way(r, mails[i]))
            continue;
        if (r->bucket < 1) {
            int64_t wait = (int64_t)((1 - r->bucket) / r->config->release_rate * 1000) + 1;
            look_in(r, wait < look_pause ? wait : look_pause);
            return;
        }
        r->bucket--;
        begin(r, mails[i]);
    }
}

static void say_off(struct release *r)
{
    uint64_t mail;
    if (!r->said_off && hold_due(r->view, clock_now(), &mail, 1) > 0) {
        log_say(LOG_LEVEL_ERROR, "release: mail waits to be released, but release.to is not set");
        r->said_off = true;
    }
}

/* ---- after a crash or a stop ---- */

/* Copies whose attempt never came to a result are due now: nobody is sending them. */
struct interrupted {
    struct job job; /* must be first */
    uint64_t *copies;
    size_t n, cap;
    int64_t now;
    struct arena *arena;
};

static int add_interrupted(void *arg, const struct copy_row *row)
{
    struct interrupted *in = arg;
    if (row->attempts == 0 || row->next_attempt <= in->now || (row->reply && *row->reply))
        return 0;
    if (in->n == in->cap) {
        in->cap = in->cap * 2 + 16;
        in->copies = arena_grow(in->arena, in->copies, in->n * sizeof *in->copies,
                                in->cap * sizeof *in->copies);
    }
    in->copies[in->n++] = row->id;
    return 0;
}

static int interrupted_run(struct hold *hold, struct job *job)
{
    struct interrupted *in = (struct interrupted *)job;
    for (size_t i = 0; i < in->n; i++)
        if (hold_deferred(hold, in->copies[i],
                          "interrupted by a stop of breakwater; it may have been delivered",
                          in->now) < 0)
            return -1;
    return 0;
}

static void interrupted_done(struct job *job)
{
    struct interrupted *in = (struct interrupted *)job;
    arena_free(&in->arena);
    free(in);
}

static void resume(struct release *r)
{
    struct interrupted *in = calloc(1, sizeof *in);
    if (!in)
        abort();
    in->arena = arena_new();
    in->now = clock_now();
    r->resumed = true;
    if (each_releasing(r->view, 0, add_interrupted, in) || in->n == 0) {
        interrupted_done(&in->job);
        return;
    }
    log_say(LOG_LEVEL_NOTICE, "release: %zu copies were being sent when breakwater stopped; again",
            in->n);
    in->job = (struct job){.run = interrupted_run, .done = interrupted_done, .home = r->home};
    keeper_submit(r->keeper, &in->job);
}

/* ---- the engine ---- */

static void look(struct release *r)
{
    look_in(r, look_pause);
    if (!r->config->release_to) {
        say_off(r);
        return;
    }
    if (!r->resumed)
        resume(r);
    begin_due(r);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    look(arg);
}

/* Its file was read when the configuration was checked. */
static struct tls *open_tls(const struct config *c)
{
    char error[512];
    struct tls_settings theirs = {.ca = c->release_ca, .name = c->release_name};
    if (c->release_tls == TLS_NEVER)
        return NULL;
    struct tls *tls = tls_client_new(&theirs, error);
    if (!tls)
        log_die("release: %s", error);
    return tls;
}

struct release *release_new(struct event_base *base, struct config *config, struct keeper *keeper,
                            struct mailbox *home, struct hold *view)
{
    struct release *r = calloc(1, sizeof *r);
    if (!r || !(r->timer = evtimer_new(base, on_timer, r)))
        abort();
    r->base = base;
    r->config = config_hold(config);
    r->keeper = keeper;
    r->home = home;
    r->view = view;
    r->tls = open_tls(config);
    r->bucket = bucket_size(r);
    r->filled = clock_mono();
    r->pause_first = pause_first;
#ifdef BREAKWATER_FAILPOINTS
    const char *ms = getenv("BREAKWATER_RELEASE_PAUSE"); /* tests cannot wait a minute */
    if (ms)
        r->pause_first = strtol(ms, NULL, 10);
#endif
    look_in(r, 0);
    return r;
}

void release_kick(struct release *r)
{
    look_in(r, 0);
}

void release_free(struct release **rp)
{
    struct release *r = *rp;
    *rp = NULL;
    if (!r)
        return;
    while (r->first) {
        struct delivery *d = r->first;
        r->first = d->next;
        d->release = NULL;
        if (!d->asked)
            delivery_free(d);
    }
    event_free(r->timer);
    tls_drop(&r->tls);
    config_drop(&r->config);
    free(r);
}

void release_figures(const struct release *r, struct release_figures *f)
{
    *f = r->figures;
}
