/* api_relays.c - see api_relays.h. */
#include <stdio.h>
#include <stdlib.h>

#include "api_relays.h"
#include "hold_fellow.h"
#include "log.h"

void api_relays_list(struct relays *t, struct http_request *r)
{
    json_t *all = relays_list(t), *list = json_array(), *j = json_object();
    bool clean_too = http_query(r, "all");
    for (size_t i = 0; i < json_array_size(all); i++) {
        json_t *row = json_array_get(all, i);
        if (clean_too || strcmp(json_get_str(row, "state"), "clean") != 0)
            json_array_append(list, row);
    }
    json_decref(all);
    json_object_set_new(j, "relays", list);
    http_reply(r, 200, j);
}

json_t *api_relays_count(struct relays *t)
{
    size_t n[STANDING_STATES] = {0};
    json_t *j = json_object();
    if (t)
        relays_count(t, n);
    for (unsigned s = STANDING_SUSPECT; s < STANDING_STATES; s++)
        json_object_set_new(j, standing_name((enum standing_state)s),
                            json_integer((json_int_t)n[s]));
    return j;
}

/* ---- a person's word ---- */

struct word_job {
    struct job job; /* must be first */
    struct relays *relays;
    struct http_request *request;
    char *name, *document, *who, *why;
    const char *command; /* borrowed; NULL: none */
    bool fixed, repeated;
    int64_t now, last;
};

static int word_run(struct hold *hold, struct job *job)
{
    struct word_job *w = (struct word_job *)job;
    char what[300];
    int take = w->command ? hold_command_take(hold, w->command, w->who, w->now) : 1;
    w->repeated = take == 0;
    if (take <= 0)
        return take;
    snprintf(what, sizeof what, "relays %s relay=%.200s", w->fixed ? "said-fixed" : "not-fixed",
             w->name);
    if (hold_save_relay(hold, w->name, w->last, w->document) < 0)
        return -1;
    return hold_audit(hold, w->now, w->who, what, w->why);
}

static void word_free(struct word_job *w)
{
    free(w->name);
    free(w->document);
    free(w->who);
    free(w->why);
    free(w);
}

static json_t *answer(const struct word_job *w, bool dry)
{
    json_t *j = json_object();
    json_object_set_new(j, "relay", json_text_of(w->name));
    json_object_set_new(j, "state", json_string(w->fixed ? "said-fixed" : "misbehaving"));
    json_object_set_new(j, "dry_run", json_boolean(dry));
    return j;
}

static void word_done(struct job *job)
{
    struct word_job *w = (struct word_job *)job;
    char error[256] = "";
    if (job->result < 0) {
        http_problem(w->request, 503,
                     "The hold database did not take it; nothing was changed. The log says why.");
    } else if (w->repeated) {
        http_reply(w->request, 200, answer(w, false));
    } else if (relays_say_fixed(w->relays, span_str(w->name), w->fixed, w->who, w->why, w->now,
                                error) < 0) {
        http_problem(w->request, 409, "%s", error); /* it relapsed at this moment, say */
    } else {
        struct logline l;
        log_begin(&l, LOG_LEVEL_NOTICE, "change",
                  w->fixed ? SPAN("said-fixed") : SPAN("not-fixed"));
        log_str(&l, "by", w->who);
        log_str(&l, "relay", w->name);
        log_str(&l, "reason", w->why);
        log_end(&l);
        http_reply(w->request, 200, answer(w, false));
    }
    word_free(w);
}

/* What is wrong with a body; NULL: nothing. */
static const char *body_fault(json_t *body)
{
    static const char *const members[] = {"relay", "fixed", "reason", "dry_run", NULL};
    const char *fault = json_body_fault(body, members);
    if (fault)
        return fault;
    if (!*json_get_str(body, "relay"))
        return "relay is a relay's name: host[address].";
    if (!json_is_boolean(json_object_get(body, "fixed")))
        return "fixed is true or false.";
    return *json_get_str(body, "reason") ? NULL
                                         : "That a relay is fixed, or is not, wants a reason.";
}

void api_relays_word(struct relays *t, struct keeper *keeper, struct mailbox *home,
                     struct http_request *r)
{
    json_t *body = http_body(r);
    const char *fault = body_fault(body);
    char error[256] = "";
    if (fault) {
        http_problem(r, 400, "%s", fault);
        return;
    }
    struct word_job *w = calloc(1, sizeof *w);
    if (!w)
        abort();
    w->job = (struct job){.run = word_run, .done = word_done, .home = home};
    w->relays = t;
    w->request = r;
    w->command = http_command(r);
    w->fixed = json_get_yes(body, "fixed");
    w->why = str_copy(json_get_str(body, "reason"));
    w->who = str_copy(http_who(r));
    w->now = w->last = clock_now();
    bool dry = json_get_yes(body, "dry_run");
    int rc = relays_ask_fixed(t, span_str(json_get_str(body, "relay")), w->fixed, w->who, w->why,
                              w->now, &w->name, &w->document, error);
    if (rc == 0 && !dry) {
        keeper_submit(keeper, &w->job);
        return;
    }
    if (rc < 0)
        http_problem(r, 409, "%s", error);
    else
        http_reply(r, 200, answer(w, true));
    word_free(w);
}
