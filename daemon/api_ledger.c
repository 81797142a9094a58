/* api_ledger.c - see api_ledger.h. */
#include "api_ledger.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "id.h"
#include "log.h"

enum { PAGE = 100, PAGE_MAX = 1000, RCPTS_SHOWN = 20 };
#define DAY 86400000LL /* ms */

static void set(json_t *j, const char *name, json_t *value)
{
    json_object_set_new(j, name, value);
}

static json_t *json_id(uint64_t id)
{
    char text[ID_TEXT];
    id_print(id, text);
    return json_string(text);
}

/* ---- refusals ---- */

static json_t *rcpts_json(const char *lines)
{
    json_t *list = json_array();
    for (struct span s = span_trim(span_str(lines)); s.n && json_array_size(list) < RCPTS_SHOWN;) {
        size_t n = span_find(s, '\n');
        json_array_append_new(list, json_text(span_head(s, n)));
        s = span_from(s, n + 1);
    }
    return list;
}

static json_t *refusal_json(const struct refusal_row *r, int64_t now)
{
    bool gone = r->outcome == REFUSAL_WAITING && now - r->last >= LEDGER_GONE;
    json_t *j = json_object();
    set(j, "id", json_id(r->id));
    set(j, "times", json_integer(r->times));
    set(j, "first", json_time(r->first));
    set(j, "last", json_time(r->last));
    set(j, "outcome", json_string(gone ? "given up" : refusal_outcome_name(r->outcome)));
    set(j, "settled", json_time(r->settled));
    set(j, "sender", json_text_of(r->sender));
    set(j, "rcpts", rcpts_json(r->rcpts));
    set(j, "recipients", json_integer(r->recipients));
    set(j, "rule", json_text_of(r->rule));
    set(j, "reason", json_text_of(r->reason));
    set(j, "door", json_text_of(r->door));
    set(j, "client", json_text_of(r->client));
    set(j, "client_name", json_text_of(r->client_name));
    set(j, "queue_id", json_text_of(r->queue_id));
    set(j, "message_id", json_text_of(r->message_id));
    return j;
}

struct page {
    json_t *list;
    int64_t now;
    uint64_t last;
};

static int add_refusal(void *arg, const struct refusal_row *r)
{
    struct page *p = arg;
    json_array_append_new(p->list, refusal_json(r, p->now));
    p->last = r->id;
    return 0;
}

json_t *api_refusals_of(struct hold *view, const json_t *rows, const char *rcpt, const char *sender,
                        int64_t since)
{
    struct page p = {.list = json_array(), .now = clock_now()};
    struct refusal_filter f = {.rcpt = rcpt, .sender = sender, .since = since, .limit = PAGE};
    const json_t *row = json_array_get(rows, 0);
    if (rows && !row)
        return p.list;
    if (row)
        f = (struct refusal_filter){.rcpt = json_get_str(row, "rcpt"),
                                    .sender = json_get_str(row, "sender"),
                                    .message_id = json_get_str(row, "message_id"),
                                    .limit = PAGE};
    if (hold_each_refusal(view, &f, add_refusal, &p) == 0)
        return p.list;
    json_decref(p.list);
    return NULL;
}

/* An address without <>, malloc'd; NULL stays NULL. */
static char *bare(const char *text)
{
    if (!text)
        return NULL;
    struct span s = span_bare(span_trim(span_str(text)), '<', '>');
    char *copy = strndup((const char *)s.p, s.n);
    if (!copy)
        abort();
    return copy;
}

/* Fills limit, since and after; false: refused. */
static bool read_page(struct http_request *r, struct refusal_filter *f)
{
    const char *limit = http_query(r, "limit"), *since = http_query(r, "since"),
               *after = http_query(r, "after");
    uint64_t n = PAGE, seconds = 0;
    if (limit && !(span_number(span_str(limit), PAGE_MAX, &n) && n)) {
        http_problem(r, 400, "limit is a number from 1 to %d.", PAGE_MAX);
        return false;
    }
    if (since && !(span_number(span_str(since), UINT64_C(1) << 40, &seconds) && seconds)) {
        http_problem(r, 400, "since is a time in seconds since 1970.");
        return false;
    }
    if (after && !id_parse(&f->after, span_str(after))) {
        http_problem(r, 400, "after is the id of a refusal.");
        return false;
    }
    f->limit = n;
    f->since = (int64_t)seconds * 1000;
    return true;
}

void api_refusals(struct hold *view, struct http_request *r)
{
    struct refusal_filter f = {.relay = http_query(r, "relay"),
                               .message_id = http_query(r, "message_id")};
    struct page p = {.now = clock_now()};
    if (!read_page(r, &f))
        return;
    char *rcpt = bare(http_query(r, "rcpt")), *sender = bare(http_query(r, "from"));
    f.rcpt = rcpt;
    f.sender = sender;
    p.list = json_array();
    json_t *j = json_object();
    int rc = hold_each_refusal(view, &f, add_refusal, &p);
    set(j, "next", json_array_size(p.list) == f.limit ? json_id(p.last) : json_null());
    set(j, "refusals", p.list);
    free(rcpt);
    free(sender);
    if (rc == 0) {
        http_reply(r, 200, j);
        return;
    }
    json_decref(j);
    http_problem(r, 500, "The hold database could not be read; the log says why.");
}

json_t *api_ledger_count(struct ledger *l)
{
    struct ledger_figures f;
    if (!l)
        return json_null();
    ledger_figures(l, &f);
    json_t *j = json_object();
    set(j, "refused", json_integer((json_int_t)f.refused));
    set(j, "settled", json_integer((json_int_t)f.settled));
    set(j, "waiting", json_integer((json_int_t)f.waiting));
    set(j, "lost", json_integer((json_int_t)f.lost));
    return j;
}

/* ---- entries ---- */

static json_t *entry_json(const char *id, const struct entry_terms *t, int64_t now)
{
    json_t *j = json_object();
    set(j, "id", json_string(id));
    set(j, "do", json_string(t->hold ? "hold" : "allow"));
    set(j, "kind", json_string(entry_kind_name(t->kind)));
    set(j, "what", json_text_of(t->what));
    set(j, "by", json_text_of(t->who));
    set(j, "reason", json_text_of(t->why));
    set(j, "at", json_time(t->at));
    set(j, "until", json_time(t->until));
    set(j, "in_force", json_boolean(t->until > now));
    set(j, "used", json_integer((json_int_t)t->used));
    set(j, "last", json_time(t->last));
    return j;
}

struct listing {
    const struct entries *live;
    json_t *list;
    int64_t now;
};

/* What was used since it was saved last is known only in memory. */
static void add_use(const struct entries *live, const char *id, struct entry_terms *t)
{
    for (size_t i = 0; i < entries_count(live); i++) {
        struct entry *e = entries_at(live, i);
        if (strcmp(e->id, id) != 0)
            continue;
        t->used = atomic_load_explicit(&e->used, memory_order_relaxed);
        t->last = atomic_load_explicit(&e->last, memory_order_relaxed);
        return;
    }
}

static int add_entry(void *arg, const struct entry_row *row)
{
    struct listing *l = arg;
    struct entry_terms t = row->terms;
    char id[ID_TEXT];
    id_print(row->id, id);
    add_use(l->live, id, &t);
    json_t *j = entry_json(id, &t, l->now);
    set(j, "ended_by", *row->ended_by ? json_text_of(row->ended_by) : json_null());
    set(j, "ended_why", *row->ended_by ? json_text_of(row->ended_why) : json_null());
    json_array_append_new(l->list, j);
    return 0;
}

void api_entries(struct rulebook *book, struct hold *view, struct http_request *r)
{
    struct rules *rules = rulebook_take(book);
    struct listing l = {.live = rules->entries, .list = json_array(), .now = clock_now()};
    int rc = hold_each_entry(view, http_query(r, "all") ? 0 : l.now, PAGE_MAX, add_entry, &l);
    rules_drop(&rules);
    json_t *j = json_object();
    set(j, "entries", l.list);
    if (rc == 0) {
        http_reply(r, 200, j);
        return;
    }
    json_decref(j);
    http_problem(r, 500, "The hold database could not be read; the log says why.");
}

/* ---- a person decides ---- */

struct deed {
    struct job job; /* must be first */
    struct rulebook *book;
    struct http_request *request;
    struct entry *entry; /* to be made; NULL: one is ended */
    uint64_t id;
    char text[ID_TEXT];
    char *who, *why;
    int64_t now;
};

static struct entry_terms terms_of(const struct entry *e)
{
    return (struct entry_terms){.id = e->id,
                                .kind = e->kind,
                                .hold = e->hold,
                                .what = e->what,
                                .who = e->who,
                                .why = e->why,
                                .at = e->at,
                                .until = e->until};
}

static void deed_free(struct deed *d)
{
    entry_drop(&d->entry);
    free(d->who);
    free(d->why);
    free(d);
}

static int add_run(struct hold *hold, struct job *job)
{
    const struct deed *d = (const struct deed *)job;
    const struct entry_row row = {.id = d->id, .terms = terms_of(d->entry)};
    char what[480];
    snprintf(what, sizeof what, "%s %s=%s for=%llds id=%s", d->entry->hold ? "hold" : "allow",
             entry_kind_name(d->entry->kind), d->entry->what,
             (long long)(d->entry->until - d->now) / 1000, d->text);
    if (hold_entry_add(hold, &row) < 0)
        return -1;
    return hold_audit(hold, d->now, d->who, what, d->why);
}

/* 0: none of this id is in force any more. */
static int end_run(struct hold *hold, struct job *job)
{
    const struct deed *d = (const struct deed *)job;
    char what[64];
    snprintf(what, sizeof what, "entries end id=%s", d->text);
    int n = hold_entry_end(hold, d->id, d->now, d->who, d->why);
    return n > 0 && hold_audit(hold, d->now, d->who, what, d->why) < 0 ? -1 : n;
}

static void log_deed(const struct deed *d)
{
    struct logline l;
    log_begin(&l, LOG_LEVEL_NOTICE, "change",
              !d->entry        ? SPAN("entries end")
              : d->entry->hold ? SPAN("hold")
                               : SPAN("allow"));
    log_str(&l, "by", d->who);
    log_str(&l, "entry", d->text);
    if (d->entry)
        log_str(&l, entry_kind_name(d->entry->kind), d->entry->what);
    log_str(&l, "reason", d->why);
    log_end(&l);
}

static json_t *ended_json(const char *id, bool dry)
{
    json_t *j = json_object();
    set(j, "id", json_string(id));
    set(j, "in_force", json_boolean(dry));
    set(j, "dry_run", json_boolean(dry));
    return j;
}

static json_t *added_json(const struct entry *e, int64_t now, bool dry)
{
    const struct entry_terms t = terms_of(e);
    json_t *j = entry_json(e->id, &t, now);
    set(j, "dry_run", json_boolean(dry));
    return j;
}

static void deed_done(struct job *job)
{
    struct deed *d = (struct deed *)job;
    if (job->result < 0) {
        http_problem(d->request, 503,
                     "The hold database did not take it; nothing was changed. The log says why.");
    } else if (!d->entry && job->result == 0) {
        http_problem(d->request, 404,
                     "No such entry is in force; breakwaterctl entries lists them.");
    } else {
        log_deed(d);
        json_t *j = d->entry ? added_json(d->entry, d->now, false) : ended_json(d->text, false);
        struct entry *more = d->entry;
        d->entry = NULL; /* the table's now */
        decisions_change(d->book, d->now, more ? NULL : d->text, more);
        http_reply(d->request, 200, j);
    }
    deed_free(d);
}

/* What is over, or ended now, leaves the table: how often it was used is written before. */
static void submit(struct deed *d, struct keeper *keeper, struct mailbox *home)
{
    decisions_save(d->book, keeper, home);
    d->job = (struct job){.run = d->entry ? add_run : end_run, .done = deed_done, .home = home};
    keeper_submit(keeper, &d->job);
}

/* What is wrong with members that both bodies have, or with one that neither knows; NULL: nothing.
 */
static const char *body_fault(json_t *body, const char *const *known)
{
    const char *fault = json_body_fault(body, known);
    if (fault || *json_get_str(body, "reason"))
        return fault;
    return "It wants a reason: who looks at it next week has to know why.";
}

/* Fills what, kind and hold; NULL, or what is wrong. */
static const char *read_terms(json_t *body, struct entry_terms *t)
{
    const char *verb = json_get_str(body, "do");
    unsigned found = 0;
    for (unsigned k = 0; k < ENTRY_KINDS; k++) {
        const json_t *what = json_object_get(body, entry_kind_name((enum entry_kind)k));
        if (!what)
            continue;
        t->kind = (enum entry_kind)k;
        t->what = json_string_value(what);
        found++;
    }
    if (strcmp(verb, "allow") != 0 && strcmp(verb, "hold") != 0)
        return "do is allow or hold.";
    if (found != 1 || !t->what)
        return "Say what it is about: one of relay, sender and storm.";
    t->hold = *verb == 'h';
    uint64_t seconds = json_get_num(body, "for");
    if (json_object_get(body, "for") &&
        (seconds < 1 || seconds > (uint64_t)DECISION_DAYS_MAX * DAY / 1000))
        return "for is how long, in seconds: 1 second to 400 days.";
    t->until = t->at + (seconds ? (int64_t)seconds * 1000 : DECISION_DAYS * DAY);
    return NULL;
}

static struct deed *deed_new(struct rulebook *book, struct http_request *r, json_t *body)
{
    struct deed *d = calloc(1, sizeof *d);
    if (!d)
        abort();
    d->book = book;
    d->request = r;
    d->now = clock_now();
    d->who = str_copy(http_who(r));
    d->why = str_copy(json_get_str(body, "reason"));
    return d;
}

void api_entry_add(struct rulebook *book, struct keeper *keeper, struct mailbox *home,
                   uint16_t node, struct http_request *r)
{
    static const char *const known[] = {"do",  "relay",  "sender",  "storm",
                                        "for", "reason", "dry_run", NULL};
    json_t *body = http_body(r);
    const char *fault = body_fault(body, known);
    struct entry_terms t = {.at = clock_now()};
    char error[200];
    if (!fault)
        fault = read_terms(body, &t);
    if (fault) {
        http_problem(r, 400, "%s", fault);
        return;
    }
    struct deed *d = deed_new(book, r, body);
    d->id = id_next(node, d->now);
    id_print(d->id, d->text);
    t.id = d->text;
    t.who = d->who;
    t.why = d->why;
    d->entry = entry_new(&t, error);
    if (!d->entry)
        http_problem(r, 400, "%s", error);
    else if (decisions_count(book, d->now) >= DECISIONS_MAX)
        http_problem(r, 409, "There are %d entries in force: end some of them first.",
                     DECISIONS_MAX);
    else if (json_get_yes(body, "dry_run"))
        http_reply(r, 200, added_json(d->entry, d->now, true));
    else {
        submit(d, keeper, home);
        return;
    }
    deed_free(d);
}

static bool in_force(struct rulebook *book, const char *id, int64_t now)
{
    struct rules *rules = rulebook_take(book);
    bool found = false;
    for (size_t i = 0; !found && i < entries_count(rules->entries); i++) {
        const struct entry *e = entries_at(rules->entries, i);
        found = e->until > now && strcmp(e->id, id) == 0;
    }
    rules_drop(&rules);
    return found;
}

void api_entry_end(struct rulebook *book, struct keeper *keeper, struct mailbox *home,
                   struct http_request *r, const char *id)
{
    static const char *const known[] = {"reason", "dry_run", NULL};
    json_t *body = http_body(r);
    const char *fault = body_fault(body, known);
    if (fault) {
        http_problem(r, 400, "%s", fault);
        return;
    }
    struct deed *d = deed_new(book, r, body);
    if (id_parse(&d->id, span_str(id)))
        id_print(d->id, d->text);
    if (!in_force(book, d->text, d->now))
        http_problem(r, 404, "No such entry is in force; breakwaterctl entries lists them.");
    else if (json_get_yes(body, "dry_run"))
        http_reply(r, 200, ended_json(d->text, true));
    else {
        submit(d, keeper, home);
        return;
    }
    deed_free(d);
}
