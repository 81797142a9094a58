/*
 * fellows_serve.c - what the desks of other nodes want of ours: questions, commands, documents.
 *
 *   command -> done before? -> a request from inside, its id with it -> answer
 *                                 |  503: the disk did not take it: again in 10 s
 *                                 '- refused: that is written down, too
 *
 * Invariant: a command is never answered with success before it is committed.
 */
#include <stdio.h>
#include <stdlib.h>

#include "fellows.h"
#include "fellows_own.h"
#include "hold_fellow.h"
#include "log.h"

enum { AGAIN_MS = 10 * 1000, HEAD_ROOM = 512, WHO_MAX = 100 };

/* What can be wanted: of commands nothing else, of questions nothing with a message's text. */
static const char *const may_do[] = {"release", "discard", "undo", "mode", "relays", NULL};
static const char *const may_ask[] = {
    "status", "storms/", "held",     "copies/", "messages", "release", "discard", "undo",
    "mode",   "relays",  "refusals", "guard",   "balance",  "needs/",  "passed",  NULL};

/* One request of another node, until it is answered. */
struct errand {
    struct errand *next, **at; /* while it waits for our disk */
    struct fellows *fellows;
    bool command;
    char id[ID_TEXT], node[FELLOW_NAME], who[FELLOW_NAME + WHO_MAX];
    char path[128];
    int64_t until;
    json_t *query, *body;
    struct event *again;
};

static void errand_free(struct errand *e)
{
    if (e->at && (*e->at = e->next))
        e->next->at = e->at;
    if (e->again)
        event_free(e->again);
    json_decref(e->query);
    json_decref(e->body);
    free(e);
}

/* ---- answers ---- */

static void answer(const struct errand *e, int status, struct span body)
{
    enum { PIECE = FLEET_BATCH - HEAD_ROOM };
    char *text = malloc(FLEET_BATCH);
    size_t of = body.n ? (body.n + PIECE - 1) / PIECE : 1;
    if (!text)
        abort();
    for (size_t i = 0; i < of; i++) {
        struct span piece = span_head(span_from(body, i * PIECE), PIECE);
        json_t *j = json_pack("{ss ss si sI sI}", "id", e->id, "to", e->node, "status", status,
                              "piece", (json_int_t)i, "of", (json_int_t)of);
        char *head = json_line(j);
        int n = snprintf(text, FLEET_BATCH, "%s\n", head);
        if (n > 0 && (size_t)n + piece.n <= FLEET_BATCH) {
            if (piece.n)
                memcpy(text + n, piece.p, piece.n);
            (void)fellows_post(e->fellows, FELLOWS_ANSWER, "", span_of(text, (size_t)n + piece.n));
        }
        free(head);
        json_decref(j);
    }
    free(text);
}

/* ---- commands ---- */

static void run(struct errand *e);

static void try_again(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    struct errand *e = arg;
    if (clock_now() < e->until) {
        run(e);
        return;
    }
    log_say(LOG_LEVEL_ERROR, "%s of %s was not done: the disk did not take it for a week", e->path,
            e->who);
    errand_free(e);
}

static void wait_for_disk(struct errand *e)
{
    struct fellows *f = e->fellows;
    if (!e->at) {
        e->at = &f->errands;
        e->next = f->errands;
        if (e->next)
            e->next->at = &e->next;
        f->errands = e;
    }
    if (!e->again && !(e->again = evtimer_new(mailbox_base(f->desk.home), try_again, e)))
        abort();
    struct timeval later = clock_timeval(AGAIN_MS);
    event_add(e->again, &later);
}

/* What was refused is not tried again at our next start. */
struct noting {
    struct job job; /* must be first */
    char id[ID_TEXT], who[FELLOW_NAME + WHO_MAX];
};

static int noting_run(struct hold *hold, struct job *job)
{
    const struct noting *n = (const struct noting *)job;
    return hold_command_take(hold, n->id, n->who, clock_now()) < 0 ? -1 : 0;
}

static void noting_done(struct job *job)
{
    free(job);
}

static void note(const struct errand *e)
{
    struct noting *n = calloc(1, sizeof *n);
    if (!n)
        abort();
    n->job = (struct job){.run = noting_run, .done = noting_done, .home = e->fellows->desk.home};
    memcpy(n->id, e->id, sizeof n->id);
    memcpy(n->who, e->who, sizeof n->who);
    keeper_submit(e->fellows->desk.keeper, &n->job);
}

static void answered(void *arg, int status, struct span body)
{
    struct errand *e = arg;
    if (!e->fellows->desk.home) { /* we are stopping; a command is read again when we are back */
        errand_free(e);
        return;
    }
    if (e->command && status == 503) {
        wait_for_disk(e);
        return;
    }
    if (e->command && status != 200)
        note(e);
    answer(e, status, body);
    errand_free(e);
}

static void run(struct errand *e)
{
    struct fellows *f = e->fellows;
    char path[160];
    snprintf(path, sizeof path, "/api/v1/%s", e->path);
    const struct http_inner in = {.method = e->body ? HTTP_POST : HTTP_GET,
                                  .path = path,
                                  .who = e->who,
                                  .query = e->query,
                                  .body = e->body,
                                  .command = e->command ? e->id : NULL,
                                  .answered = answered,
                                  .arg = e};
    http_inner(f->desk.handler, f->desk.arg, &in);
}

/* Whatever it may have been: true: it is not to be done any more. */
static bool is_over(struct errand *e)
{
    if (e->until < clock_now())
        return true;
    int known = e->command ? hold_command_known(e->fellows->desk.view, e->id) : 0;
    if (known == 1)
        answer(e, 200, SPAN("{\"repeated\":true,\"asked\":0,\"changed\":0}"));
    if (known < 0)
        wait_for_disk(e);
    return known == 1;
}

/* ---- what comes in ---- */

static bool may(const char *const *paths, const char *path)
{
    for (; *paths; paths++) {
        size_t n = strlen(*paths);
        if (strncmp(path, *paths, n) == 0 && ((*paths)[n - 1] == '/' || !path[n]))
            return strstr(path, "/message") == NULL;
    }
    return false;
}

static bool is_id(const char *text)
{
    uint64_t id;
    return strlen(text) == ID_TEXT - 1 && id_parse(&id, span_str(text));
}

static struct errand *errand_read(struct fellows *f, const struct parcel *p, const json_t *j)
{
    bool command = p->wire == FELLOWS_DO;
    const char *path = json_get_str(j, "path"), *id = json_get_str(j, "id");
    json_t *query = json_object_get(j, "query"), *body = json_object_get(j, "body");
    if (!is_id(id) || strlen(path) >= sizeof((struct errand *)0)->path ||
        !may(command ? may_do : may_ask, path) || (query && !json_is_object(query)) ||
        (body && !json_is_object(body)) || (command && !body) || json_object_get(query, "text") ||
        (body && !command && !json_get_yes(body, "dry_run")))
        return NULL;
    struct errand *e = calloc(1, sizeof *e);
    if (!e)
        abort();
    e->fellows = f;
    e->command = command;
    snprintf(e->id, sizeof e->id, "%s", id);
    snprintf(e->node, sizeof e->node, "%s", p->node);
    snprintf(e->path, sizeof e->path, "%s", path);
    snprintf(e->who, sizeof e->who, "%.*s at %s", WHO_MAX - 8, json_get_str(j, "who"), p->node);
    e->until = json_ms(json_object_get(j, "until"));
    e->query = json_incref(query);
    e->body = json_incref(body);
    return e;
}

static void serve(struct fellows *f, const struct parcel *p, const json_t *j)
{
    if (strcmp(json_get_str(j, "to"), f->setup.node) != 0)
        return;
    struct errand *e = errand_read(f, p, j);
    if (!e) {
        log_say(LOG_LEVEL_ERROR, "node %.64s wants something that is not understood here", p->node);
        return;
    }
    if (is_over(e))
        errand_free(e);
    else if (!e->at) /* it does not wait for the disk */
        run(e);
}

void fellows_open(struct fellows *f, const struct parcel *p)
{
    if (p->wire == FELLOWS_ANSWER) {
        fellows_answered(f, p->node, span_of(p->bytes, p->n));
        return;
    }
    json_t *j = json_loadb((const char *)p->bytes, p->n, JSON_REJECT_DUPLICATES, NULL);
    bool ours = strcmp(p->node, f->setup.node) == 0; /* of a former life: we know better */
    if (json_is_object(j) && p->wire == FELLOWS_STORMS && !ours)
        f->desk.storm(f->desk.storm_arg, p->node, j);
    else if (json_is_object(j) && p->wire != FELLOWS_STORMS)
        serve(f, p, j);
    json_decref(j);
}

void fellows_serve_end(struct fellows *f)
{
    while (f->errands)
        /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what is in the list has its place, at */
        errand_free(f->errands);
}
