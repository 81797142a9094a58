/*
 * fellows.c - see fellows.h: the wires, calls of ours and their answers. What others want of us is
 * in fellows_serve.c.
 *
 *   a parcel is one batch of the fleet:
 *   ask, do   {"id","to","path","query"|"body","who","until"}
 *   answer    {"id","to","status","piece","of"} LF bytes of the answer's body
 *   storms    an incident's whole document
 *
 * Invariant: a parcel is in one list; the lists are bounded in bytes.
 */
#include <stdio.h>
#include <stdlib.h>

#include "fellows.h"
#include "fellows_own.h"
#include "log.h"

enum { OUT_MAX = 8 << 20, IN_MAX = 32 << 20, ANSWER_MAX = 8 << 20, PASSING_MS = 60000 };

static const char *const wire_names[FELLOWS_WIRES] = {"ask", "answer", "do", "storms"};

/* ---- parcels ---- */

static struct parcel *parcel_new(struct span bytes)
{
    struct parcel *p = malloc(sizeof *p + bytes.n);
    if (!p)
        abort();
    *p = (struct parcel){.n = bytes.n};
    if (bytes.n)
        memcpy(p->bytes, bytes.p, bytes.n);
    return p;
}

static struct parcel *list_take(struct parcels *l)
{
    struct parcel *p = l->first;
    if (!p)
        return NULL;
    l->first = p->next;
    if (!l->first)
        l->end = &l->first;
    l->bytes -= p->n;
    return p;
}

static void list_add(struct parcels *l, struct parcel *p)
{
    if (!l->end)
        l->end = &l->first;
    p->next = NULL;
    *l->end = p;
    l->end = &p->next;
    l->bytes += p->n;
}

/* The oldest go for want of room; returns how many. */
static unsigned list_bound(struct parcels *l, size_t most)
{
    unsigned gone = 0;
    for (; l->bytes > most; gone++)
        free(list_take(l));
    return gone;
}

static void list_free(struct parcels *l)
{
    struct parcel *p;
    while ((p = list_take(l)))
        free(p);
}

/* Takes it out again, if it has not left. */
static bool list_withdraw(struct parcels *l, const char *id)
{
    for (struct parcel **at = &l->first; *at; at = &(*at)->next) {
        struct parcel *p = *at;
        if (strcmp(p->id, id) != 0)
            continue;
        *at = p->next;
        if (!*at)
            l->end = at;
        l->bytes -= p->n;
        free(p);
        return true;
    }
    return false;
}

/* ---- the wires: the fleet's thread ---- */

/* What cannot be told yet stays here, where it can be withdrawn. */
static size_t collect(void *arg, bool last, uint8_t **bytes)
{
    (void)last;
    struct wire *w = arg;
    struct fellows *f = w->fellows;
    if (!f->setup.shares(f->setup.arg))
        return 0;
    pthread_mutex_lock(&f->lock);
    struct parcel *p = list_take(&w->out);
    pthread_mutex_unlock(&f->lock);
    size_t n = p ? p->n : 0;
    if (!p)
        return 0;
    if (!(*bytes = malloc(n + 1)))
        abort();
    memcpy(*bytes, p->bytes, n);
    free(p);
    return n;
}

static void wake(struct letter *letter)
{
    struct incoming *in = (struct incoming *)letter;
    struct fellows *f = in->fellows;
    free(in);
    pthread_mutex_lock(&f->lock);
    struct parcels all = f->in;
    f->in = (struct parcels){0};
    f->woken = false;
    pthread_mutex_unlock(&f->lock);
    struct parcel *p;
    if (!all.first)
        return;
    while ((p = list_take(&all))) {
        if (f->desk.home)
            fellows_open(f, p);
        free(p);
    }
}

/* With the lock held. */
static void call_desk(struct fellows *f)
{
    if (f->woken || !f->desk.home || !f->in.first)
        return;
    struct incoming *in = calloc(1, sizeof *in);
    if (!in)
        abort();
    in->letter.open = wake;
    in->fellows = f;
    f->woken = true;
    mailbox_post(f->desk.home, &in->letter);
}

/* Questions and answers are for now. */
static bool passing(enum fellows_wire what)
{
    return what == FELLOWS_ASK || what == FELLOWS_ANSWER;
}

static void apply(void *arg, const struct fleet_batch *b)
{
    struct wire *w = arg;
    struct fellows *f = w->fellows;
    if ((b->past && passing(w->what)) || !b->node.n || b->node.n >= FELLOW_NAME)
        return;
    struct parcel *p = parcel_new(b->bytes);
    p->wire = w->what;
    memcpy(p->node, b->node.p, b->node.n);
    pthread_mutex_lock(&f->lock);
    list_add(&f->in, p);
    unsigned lost = list_bound(&f->in, IN_MAX);
    call_desk(f);
    pthread_mutex_unlock(&f->lock);
    if (lost)
        log_say(LOG_LEVEL_ERROR, "%u messages of other nodes' desks were too many for ours", lost);
}

const struct fleet_topic *fellows_topic(struct fellows *f, enum fellows_wire what, void **arg)
{
    static const unsigned keep[FELLOWS_WIRES] = {256, 256, 8192, 2048};
    struct wire *w = &f->wire[what];
    w->topic = (struct fleet_topic){.name = wire_names[what],
                                    .keep = keep[what],
                                    .lasts = passing(what) ? PASSING_MS : 0,
                                    .quick = what != FELLOWS_STORMS,
                                    .collect = collect,
                                    .apply = apply};
    *arg = w;
    return &w->topic;
}

bool fellows_post(struct fellows *f, enum fellows_wire what, const char *id, struct span bytes)
{
    if (bytes.n > FLEET_BATCH)
        return false;
    struct parcel *p = parcel_new(bytes);
    snprintf(p->id, sizeof p->id, "%s", id);
    pthread_mutex_lock(&f->lock);
    list_add(&f->wire[what].out, p);
    list_bound(&f->wire[what].out, OUT_MAX);
    pthread_mutex_unlock(&f->lock);
    f->setup.hurry(f->setup.arg);
    return true;
}

bool fellows_post_json(struct fellows *f, enum fellows_wire what, const char *id, const json_t *j)
{
    char *text = json_line(j);
    bool sent = fellows_post(f, what, id, span_str(text));
    free(text);
    return sent;
}

void fellows_tell_storm(struct fellows *f, const json_t *document)
{
    const char *id = json_get_str(document, "id");
    pthread_mutex_lock(&f->lock);
    (void)list_withdraw(&f->wire[FELLOWS_STORMS].out, id); /* what it was before */
    pthread_mutex_unlock(&f->lock);
    (void)fellows_post_json(f, FELLOWS_STORMS, id, document);
}

/* ---- calls of ours ---- */

struct slot {
    char id[ID_TEXT];
    char node[FELLOW_NAME];
    bool waits, sent;
    uint64_t pieces; /* that came */
    uint8_t *bytes;
    size_t n;
    struct fellow_answer answer;
};
struct fellows_call {
    struct fellows_call *next;
    struct fellows *fellows;
    struct event *timer;
    enum fellows_wire wire;
    fellows_done_fn *done;
    void *arg;
    size_t n, waiting;
    struct slot slots[];
};

static void call_free(struct fellows_call *c)
{
    for (size_t i = 0; i < c->n; i++) {
        json_decref(c->slots[i].answer.json);
        free(c->slots[i].bytes);
    }
    event_free(c->timer);
    free(c);
}

/* Whoever has not answered by now will not be heard. */
static void call_end(struct fellows_call *c)
{
    struct fellows *f = c->fellows;
    struct fellows_call **at = &f->calls;
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    struct fellow_answer *answers = calloc(c->n + 1, sizeof *answers);
    if (!answers)
        abort();
    for (size_t i = 0; i < c->n; i++) {
        struct slot *s = &c->slots[i];
        pthread_mutex_lock(&f->lock);
        bool kept = s->sent && s->answer.status == FELLOW_SILENT &&
                    list_withdraw(&f->wire[c->wire].out, s->id);
        pthread_mutex_unlock(&f->lock);
        if (kept)
            s->answer.status = FELLOW_UNTOLD;
        answers[i] = s->answer;
    }
    c->done(c->arg, answers, c->n);
    free(answers);
    call_free(c);
}

static void call_over(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    call_end(arg);
}

static void slot_send(struct fellows_call *c, struct slot *s, const struct fellow_letter *l,
                      const char *who)
{
    bool command = c->wire == FELLOWS_DO;
    int64_t now = clock_now();
    id_print(id_next(c->fellows->number, now), s->id);
    snprintf(s->node, sizeof s->node, "%s", l->node);
    if (l->away && !command)
        return;
    json_t *j = json_object();
    json_object_set_new(j, "id", json_string(s->id));
    json_object_set_new(j, "to", json_text_of(l->node));
    json_object_set_new(j, "path", json_text_of(l->path));
    if (l->query)
        json_object_set(j, "query", l->query);
    if (l->body)
        json_object_set(j, "body", l->body);
    json_object_set_new(j, "who", json_text_of(who));
    json_object_set_new(j, "until", json_time(now + (command ? FELLOWS_WEEK : FELLOWS_SOON)));
    s->sent = fellows_post_json(c->fellows, c->wire, s->id, j);
    s->waits = s->sent && !l->away;
    if (!s->sent)
        s->answer.status = FELLOW_UNTOLD;
    json_decref(j);
}

/* We are stopping. */
static void nobody_told(size_t n, fellows_done_fn *done, void *arg)
{
    struct fellow_answer *answers = calloc(n + 1, sizeof *answers);
    if (!answers)
        abort();
    for (size_t i = 0; i < n; i++)
        answers[i].status = FELLOW_UNTOLD;
    done(arg, answers, n);
    free(answers);
}

void fellows_send(struct fellows *f, const struct fellow_letter *letters, size_t n, bool command,
                  const char *who, int64_t deadline_ms, fellows_done_fn *done, void *arg)
{
    if (!f->desk.home) {
        nobody_told(n, done, arg);
        return;
    }
    struct fellows_call *c = calloc(1, sizeof *c + n * sizeof c->slots[0]);
    if (!c || !(c->timer = evtimer_new(mailbox_base(f->desk.home), call_over, c)))
        abort();
    c->fellows = f;
    c->wire = command ? FELLOWS_DO : FELLOWS_ASK;
    c->done = done;
    c->arg = arg;
    c->n = n;
    for (size_t i = 0; i < n; i++) {
        slot_send(c, &c->slots[i], &letters[i], who);
        c->waiting += c->slots[i].waits;
    }
    c->next = f->calls;
    f->calls = c;
    struct timeval later = clock_timeval(c->waiting ? deadline_ms : 0);
    event_add(c->timer, &later);
}

/* ---- their answers ---- */

static struct slot *slot_find(struct fellows *f, const char *id, const char *node,
                              struct fellows_call **call)
{
    for (struct fellows_call *c = f->calls; c; c = c->next)
        for (size_t i = 0; i < c->n; i++)
            if (c->slots[i].waits && strcmp(c->slots[i].id, id) == 0 &&
                strcmp(c->slots[i].node, node) == 0) {
                *call = c;
                return &c->slots[i];
            }
    return NULL;
}

/* One more piece. true: the answer is whole, or will never be. */
static bool slot_piece(struct slot *s, const json_t *head, struct span bytes)
{
    uint64_t piece = json_get_num(head, "piece"), of = json_get_num(head, "of");
    if (piece != s->pieces || s->n + bytes.n > ANSWER_MAX)
        return true;
    s->bytes = realloc(s->bytes, s->n + bytes.n + 1);
    if (!s->bytes)
        abort();
    if (bytes.n)
        memcpy(s->bytes + s->n, bytes.p, bytes.n);
    s->n += bytes.n;
    if (++s->pieces < of)
        return false;
    s->answer.json = json_loadb((const char *)s->bytes, s->n, JSON_REJECT_DUPLICATES, NULL);
    s->answer.status = json_is_object(s->answer.json) ? (int)json_get_num(head, "status") : 0;
    if (!s->answer.status) {
        json_decref(s->answer.json);
        s->answer.json = NULL;
    }
    return true;
}

void fellows_answered(struct fellows *f, const char *node, struct span parcel)
{
    const uint8_t *lf = memchr(parcel.p, '\n', parcel.n);
    size_t n = lf ? (size_t)(lf - parcel.p) : 0;
    json_t *head = n ? json_loadb((const char *)parcel.p, n, JSON_REJECT_DUPLICATES, NULL) : NULL;
    struct fellows_call *c;
    struct slot *s = NULL;
    if (strcmp(json_get_str(head, "to"), f->setup.node) == 0)
        s = slot_find(f, json_get_str(head, "id"), node, &c);
    if (s && slot_piece(s, head, span_from(parcel, n + 1))) {
        s->waits = false;
        if (--c->waiting == 0)
            event_active(c->timer, EV_TIMEOUT, 0);
    }
    json_decref(head);
}

/* ---- who there is ---- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct fellow *)a)->name, ((const struct fellow *)b)->name);
}

size_t fellows_list(struct fellows *f, struct fellow out[FELLOWS_MAX])
{
    size_t n = 0;
    if (!f)
        return 0;
    json_t *all = f->setup.nodes(f->setup.arg);
    for (size_t i = 0; i < json_array_size(all) && n < FELLOWS_MAX; i++) {
        const json_t *j = json_array_get(all, i);
        const char *name = json_get_str(j, "name");
        if (!*name || strlen(name) >= FELLOW_NAME || strcmp(name, f->setup.node) == 0)
            continue;
        struct fellow *x = &out[n++];
        snprintf(x->name, sizeof x->name, "%s", name);
        x->number = (uint16_t)json_get_num(j, "number");
        x->alive = json_get_yes(j, "alive") && json_get_yes(j, "shared");
    }
    json_decref(all);
    qsort(out, n, sizeof *out, by_name);
    return n;
}

const char *fellows_self(const struct fellows *f)
{
    return f->setup.node;
}

/* ---- beginning and end ---- */

struct fellows *fellows_new(const struct fellows_setup *setup)
{
    struct fellows *f = calloc(1, sizeof *f);
    if (!f)
        abort();
    f->setup = *setup;
    f->number = setup->number;
    pthread_mutex_init(&f->lock, NULL);
    for (unsigned i = 0; i < FELLOWS_WIRES; i++)
        f->wire[i] = (struct wire){.fellows = f, .what = (enum fellows_wire)i};
    return f;
}

void fellows_join(struct fellows *f, const struct fellows_desk *desk)
{
    pthread_mutex_lock(&f->lock);
    f->desk = *desk;
    call_desk(f);
    pthread_mutex_unlock(&f->lock);
}

void fellows_leave(struct fellows *f)
{
    while (f->calls)
        /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): call_end() takes it out of calls */
        call_end(f->calls);
    fellows_serve_end(f);
    pthread_mutex_lock(&f->lock);
    f->desk.home = NULL; /* letters on their way find nobody */
    pthread_mutex_unlock(&f->lock);
}

void fellows_free(struct fellows **fp)
{
    struct fellows *f = *fp;
    *fp = NULL;
    if (!f)
        return;
    list_free(&f->in);
    for (unsigned i = 0; i < FELLOWS_WIRES; i++)
        list_free(&f->wire[i].out);
    pthread_mutex_destroy(&f->lock);
    free(f);
}
