/*
 * outcome.c - see outcome.h. Members of JSON objects stand in a fixed order; what a rule's number
 * means is known by the policy.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "json.h"
#include "log.h"
#include "outcome.h"
#include "replyall.h"

void outcome_begin(struct outcome *o, const struct policy *policy, enum mode mode,
                   enum outcome_form form)
{
    *o = (struct outcome){.policy = policy, .mode = mode, .form = form};
    o->rule = calloc(policy_rules(policy) + 1, sizeof *o->rule);
    if (!o->rule)
        abort();
}

void outcome_end(struct outcome *o)
{
    free(o->rule);
    o->rule = NULL;
}

static void print_json(json_t *value)
{
    char *line = json_line(value);
    puts(line);
    free(line);
    json_decref(value);
}

/* ---- one message ---- */

static void put_text(json_t *o, const char *name, const char *text)
{
    if (text)
        json_object_set_new(o, name, json_text(span_str(text)));
}

static void put_number(json_t *o, const char *name, uint64_t n)
{
    json_object_set_new(o, name, json_integer((json_int_t)n));
}

/* Rates and counts that decay, to three places: more is noise. */
static void put_real(json_t *o, const char *name, double v)
{
    double cut =
        v < 1e12 && v > -1e12 ? (double)(long long)(v * 1000 + (v < 0 ? -.5 : .5)) / 1000 : 0;
    json_object_set_new(o, name, json_real(cut));
}

/* A keyed hash: to be compared, not to be counted with. */
static void put_hash(json_t *o, const char *name, uint64_t hash)
{
    char text[17];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)hash);
    json_object_set_new(o, name, hash ? json_string(text) : json_null());
}

static json_t *replication_json(const struct replication_signals *r, size_t n)
{
    json_t *o = json_object();
    bool seen_before = false;
    for (size_t i = 0; r->copy && i < n; i++)
        seen_before |= r->copy[i].seen_before;
    put_number(o, "copies", r->copies);
    put_number(o, "duplicates", r->duplicates);
    json_object_set_new(o, "storm", json_boolean(r->storm));
    put_number(o, "convicted", r->convicted);
    put_number(o, "variant", r->variant);
    json_object_set_new(o, "known", json_boolean(r->known));
    json_object_set_new(o, "seen_before", json_boolean(seen_before));
    if (r->blamed.n)
        json_object_set_new(o, "blamed", json_text(r->blamed));
    put_text(o, "conviction", r->conviction);
    put_text(o, "join", r->join);
    put_text(o, "join_why", r->join_why);
    return o;
}

static json_t *loop_json(const struct loop_signals *l)
{
    json_t *o = json_object();
    put_number(o, "visits", l->visits);
    put_number(o, "edges", l->edges);
    put_number(o, "own_visits", l->own_visits);
    put_number(o, "delivered_to", l->delivered_to);
    put_number(o, "hops", l->hops);
    if (l->relay.n)
        json_object_set_new(o, "relay", json_text(l->relay));
    put_text(o, "evidence", l->evidence);
    return o;
}

static json_t *replyall_json(const struct replyall_signals *r)
{
    json_t *o = json_object();
    put_hash(o, "conversation", r->conversation);
    json_object_set_new(o, "state", json_string(replyall_state_name(r->state)));
    json_object_set_new(o, "to_all", json_boolean(r->to_all));
    put_real(o, "replies", r->replies);
    put_real(o, "senders", r->senders);
    put_real(o, "noise", r->noise);
    put_real(o, "need", r->need);
    put_number(o, "audience", r->audience);
    put_text(o, "evidence", r->evidence);
    return o;
}

static json_t *pingpong_json(const struct pingpong_signals *p)
{
    static const char *const advice[] = {"pass", "tag", "hold"};
    json_t *o = json_object(), *advices = json_array();
    for (size_t i = 0; i < p->n && i < sizeof p->advice; i++)
        json_array_append_new(advices, json_string(advice[p->advice[i] % ADVICE_COUNT]));
    json_object_set_new(o, "automatic", json_boolean(p->automatic));
    json_object_set_new(o, "advice", advices);
    put_real(o, "flips", p->flips);
    put_number(o, "same", p->same);
    put_text(o, "evidence", p->evidence);
    return o;
}

static json_t *flood_json(const struct flood_signals *f)
{
    static const char *const level[] = {"none", "alert", "throttle"};
    json_t *o = json_object();
    put_hash(o, "relay", f->relay);
    json_object_set_new(o, "level", json_string(level[f->level]));
    put_real(o, "rate", f->rate);
    put_real(o, "baseline", f->baseline);
    put_real(o, "hour", f->hour);
    put_real(o, "duplicates", f->duplicates);
    put_real(o, "one_content", f->one_content);
    json_object_set_new(o, "learned", json_boolean(f->learned));
    json_object_set_new(o, "defer", json_boolean(f->defer));
    json_object_set_new(o, "replicating", json_boolean(f->replicating));
    put_text(o, "evidence", f->evidence);
    return o;
}

static json_t *signals_json(const struct signals *s, size_t n)
{
    json_t *o = json_object();
    json_object_set_new(o, "replication", replication_json(&s->replication, n));
    json_object_set_new(o, "loop", loop_json(&s->loop));
    json_object_set_new(o, "replyall", replyall_json(&s->replyall));
    json_object_set_new(o, "pingpong", pingpong_json(&s->pingpong));
    json_object_set_new(o, "flood", flood_json(&s->flood));
    return o;
}

/* The mildest disposition of all recipients: "hold" only when nobody gets it. */
static enum disposition overall(const uint32_t count[DISP_COUNT])
{
    for (unsigned d = 0; d < DISP_COUNT; d++)
        if (count[d])
            return (enum disposition)d;
    return DISP_PASS;
}

/* Recipients' addresses are a stranger's bytes, and may come twice: JSON then has them once. */
static void print_message(const struct outcome *o, struct tx *tx, const struct recording *rec)
{
    const struct verdict *v = tx_verdict(tx);
    const struct signals *s = tx_signals(tx);
    const struct copy_signal *copy = s->replication.copy; /* NULL: passed unjudged */
    json_t *rcpt = json_object(), *relation = json_object(), *advised = json_object();
    const char *rule = NULL;
    for (size_t i = 0; i < v->n; i++) {
        json_t *name = json_text(rec->rcpts[i]);
        const char *address = json_string_value(name);
        json_object_set_new(rcpt, address, json_string(disposition_name(v->copy[i].disposition)));
        json_object_set_new(advised, address, json_string(disposition_name(v->copy[i].advised)));
        if (copy)
            json_object_set_new(relation, address, json_string(relation_name(copy[i].relation)));
        if (!rule && v->copy[i].rule)
            rule = v->copy[i].rule_name;
        json_decref(name);
    }
    char fp[2 * sizeof s->replication.k.byte + 1];
    hex_print(span_of(s->replication.k.byte, sizeof s->replication.k.byte), fp);
    json_t *line =
        json_pack("{s:I,s:f,s:o,s:s,s:o,s:o,s:s?,s:s?,s:s}", "n", (json_int_t)o->messages, "t",
                  rec->t, "label", rec->label.n ? json_text(rec->label) : json_null(), "verdict",
                  disposition_name(overall(v->count)), "rcpt", rcpt, "relations", relation, "rule",
                  rule, "incident", tx_incident(tx), "fp", fp);
    if (o->mode == MODE_ENFORCE)
        json_decref(advised);
    else
        json_object_set_new(line, "advised", advised);
    json_object_set_new(line, "signals", copy ? signals_json(s, v->n) : json_object());
    print_json(line);
}

void outcome_message(struct outcome *o, struct tx *tx, const struct recording *rec)
{
    const struct verdict *v = tx_verdict(tx);
    const struct copy_signal *copy = tx_signals(tx)->replication.copy;
    o->messages++;
    for (size_t i = 0; i < v->n; i++) {
        struct rule_count *r = &o->rule[v->copy[i].rule];
        r->copies[v->copy[i].advised]++;
        r->first_held += v->copy[i].advised == DISP_HOLD && copy && copy[i].relation == REL_FIRST;
    }
    if (o->form == OUTCOME_JSON)
        print_message(o, tx, rec);
    if (o->at_once)
        fflush(stdout);
}

/* ---- the summary ---- */

/* {"replication-storm":{"hold":12,"tag":1}}: rules that decided something. */
static json_t *rules_json(const struct outcome *o)
{
    json_t *rules = json_object();
    for (size_t i = 0; i < policy_rules(o->policy); i++) {
        json_t *counts = json_object();
        for (unsigned d = 0; d < DISP_COUNT; d++)
            if (o->rule[i + 1].copies[d])
                put_number(counts, disposition_name((enum disposition)d), o->rule[i + 1].copies[d]);
        if (json_object_size(counts))
            json_object_set_new(rules, policy_rule_name(o->policy, i), counts);
        else
            json_decref(counts);
    }
    return rules;
}

static json_t *first_held_json(const struct outcome *o)
{
    json_t *held = json_object();
    for (size_t i = 0; i < policy_rules(o->policy); i++)
        if (o->rule[i + 1].first_held)
            put_number(held, policy_rule_name(o->policy, i), o->rule[i + 1].first_held);
    return held;
}

static uint64_t done(const struct outcome_end *e, enum disposition d)
{
    return figures_total(e->figures, FIGURE_DONE + (unsigned)d);
}

static uint64_t passed(const struct outcome_end *e)
{
    return done(e, DISP_PASS) + done(e, DISP_TAG);
}

static void print_summary(const struct outcome *o, const struct outcome_end *e)
{
    uint64_t received = figures_total(e->figures, FIGURE_RECEIVED);
    uint64_t advised = figures_total(e->figures, FIGURE_ADVISED + DISP_HOLD);
    json_t *s = json_object();
    put_number(s, "messages", o->messages);
    put_number(s, "copies", received);
    put_number(s, "pass", passed(e));
    for (unsigned d = DISP_TAG; d < DISP_COUNT; d++)
        put_number(s, disposition_name((enum disposition)d), done(e, d));
    if (o->mode != MODE_ENFORCE)
        put_number(s, "would_hold", advised);
    json_object_set_new(s, "rules", rules_json(o));
    json_object_set_new(s, "first_held", first_held_json(o));
    put_number(s, "skipped", e->skipped);
    put_number(s, "cut", e->cut);
    put_number(s, "clamped", e->clamped);
    put_number(s, "left_out", e->left_out);
    json_object_set(s, "incidents", (json_t *)(uintptr_t)e->incidents);
    json_object_set(s, "relays", (json_t *)(uintptr_t)e->relays);
    json_object_set_new(s, "seconds", json_real(e->seconds));
    json_object_set_new(s, "messages_per_second",
                        json_real(e->seconds > 0 ? (double)o->messages / e->seconds : 0));
    print_json(json_pack("{s:o}", "summary", s));
}

/* ---- the same for people ---- */

static const char *shown(char out[400], const json_t *o, const char *name)
{
    escape_text(out, 400, span_str(json_get_str(o, name)));
    return out;
}

static unsigned long long number(const json_t *o, const char *name)
{
    return json_get_num(o, name);
}

static const char *moment(char out[32], const json_t *o, const char *name)
{
    time_t t = (time_t)(json_ms(json_object_get(o, name)) / 1000);
    struct tm tm;
    if (!localtime_r(&t, &tm) || !strftime(out, 32, "%Y-%m-%d %H:%M", &tm))
        snprintf(out, 32, "?");
    return out;
}

static void print_sentences(const json_t *o, const char *indent)
{
    size_t i;
    const json_t *sentence;
    json_array_foreach(json_object_get(o, "evidence"), i, sentence)
    {
        char text[600];
        const char *s = json_string_value(sentence);
        escape_text(text, sizeof text, span_str(s ? s : ""));
        printf("%s- %s\n", indent, text);
    }
}

static void print_culprits(const json_t *incident)
{
    size_t i;
    const json_t *c;
    char text[400];
    bool floods = strcmp(json_get_str(incident, "kind"), "flood") == 0;
    json_array_foreach(json_object_get(incident, "culprits"), i, c)
    {
        printf("  %s %s",
               !json_get_yes(c, "named") ? "where: "
               : floods                  ? "floods:"
                                         : "faulty:",
               shown(text, c, "relay"));
        printf(", %llu copies", number(c, "copies"));
        if (*json_get_str(c, "grade"))
            printf(", %s", shown(text, c, "grade"));
        puts("");
        if (*json_get_str(c, "conviction"))
            printf("      convicted: %s\n", shown(text, c, "conviction"));
        print_sentences(c, "      ");
    }
}

static void print_incident(const json_t *o)
{
    char text[400], first[32], last[32];
    printf("\n%s  %s", json_get_str(o, "id"), shown(text, o, "kind"));
    printf(", %s to %s\n", moment(first, o, "first"), moment(last, o, "last"));
    printf("  \"%s\"", shown(text, o, "subject"));
    printf(" from %s\n", *json_get_str(o, "from") ? shown(text, o, "from") : "<>");
    printf("  %llu copies to %llu recipient%s: %llu passed, %llu held", number(o, "copies"),
           number(o, "recipients"), number(o, "recipients") == 1 ? "" : "s",
           number(o, "passed") + number(o, "tagged"), number(o, "held"));
    if (number(o, "deferred"))
        printf(", deferred %llu times", number(o, "deferred"));
    if (number(o, "would_hold"))
        printf(" (enforce mode: %llu)", number(o, "would_hold"));
    puts("");
    print_sentences(o, "  ");
    print_culprits(o);
}

static void print_rules(const struct outcome *o)
{
    puts("");
    printf("%-32s %10s %10s %10s %12s\n", "rule", "held", "deferred", "tagged", "first held");
    bool any = false;
    for (size_t i = 0; i < policy_rules(o->policy); i++) {
        const struct rule_count *r = &o->rule[i + 1];
        uint64_t all = 0;
        for (unsigned d = 0; d < DISP_COUNT; d++)
            all += r->copies[d];
        if (!all)
            continue;
        any = true;
        printf("%-32s %10llu %10llu %10llu %12llu\n", policy_rule_name(o->policy, i),
               (unsigned long long)r->copies[DISP_HOLD],
               (unsigned long long)r->copies[DISP_THROTTLE] + r->copies[DISP_REJECT],
               (unsigned long long)r->copies[DISP_TAG], (unsigned long long)r->first_held);
    }
    if (!any)
        puts("(no rule had anything to decide)");
}

static void print_people(const struct outcome *o, const struct outcome_end *e)
{
    uint64_t received = figures_total(e->figures, FIGURE_RECEIVED);
    uint64_t advised = figures_total(e->figures, FIGURE_ADVISED + DISP_HOLD);
    printf("%llu %s, %llu %s: %llu passed, %llu held, %llu deferred, %llu rejected\n",
           (unsigned long long)o->messages, o->messages == 1 ? "message" : "messages",
           (unsigned long long)received, received == 1 ? "copy" : "copies",
           (unsigned long long)passed(e), (unsigned long long)done(e, DISP_HOLD),
           (unsigned long long)done(e, DISP_THROTTLE), (unsigned long long)done(e, DISP_REJECT));
    if (o->mode != MODE_ENFORCE)
        printf("Enforce mode would have held %llu.\n", (unsigned long long)advised);
    if (e->skipped)
        printf("%llu could not be read and were skipped\n", (unsigned long long)e->skipped);
    if (e->cut)
        printf("%llu were larger than %d MB and cut there\n", (unsigned long long)e->cut,
               RECORDING_BYTES >> 20);
    if (e->clamped)
        printf("%llu came with a time before that of the message before, and were given its time\n",
               (unsigned long long)e->clamped);
    if (e->left_out)
        printf("%llu were before --from or after --until\n", (unsigned long long)e->left_out);
    print_rules(o);
    size_t i;
    const json_t *incident;
    json_array_foreach(e->incidents, i, incident)
    {
        print_incident(incident);
    }
}

void outcome_summary(const struct outcome *o, const struct outcome_end *e)
{
    if (o->form == OUTCOME_PEOPLE)
        print_people(o, e);
    else
        print_summary(o, e);
    if (o->at_once)
        fflush(stdout);
}
