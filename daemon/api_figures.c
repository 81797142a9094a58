/* api_figures.c - see api_figures.h. Days are days of UTC, as they are stored. */
#include "api_figures.h"

#include <stdio.h>
#include <time.h>

#include "fact.h"
#include "id.h"
#include "json.h"

enum { MINUTES = 60, MINUTES_MAX = 70, REPORT_DAYS = 7, DATE = 11 };

static void set_num(json_t *o, const char *name, uint64_t n)
{
    json_object_set_new(o, name, json_integer((json_int_t)n));
}

static void add_num(json_t *o, const char *name, uint64_t n)
{
    if (n)
        set_num(o, name, json_get_num(o, name) + n);
}

/* ---- status ---- */

json_t *api_figures_counters(struct figures *f)
{
    static const char *const names[DISP_COUNT] = {"passed", "tagged", "throttled", "held",
                                                  "rejected"};
    static const struct {
        const char *name;
        enum figure figure;
    } others[] = {
        {"messages", FIGURE_JUDGED},
        {"received", FIGURE_RECEIVED},
        {"refused", FIGURE_REFUSED},
        {"aborted", FIGURE_ABORTED},
        {"aborted_messages", FIGURE_ABORTED_MESSAGES},
        {"given_up", FIGURE_GIVEN_UP},
        {"hold_failed", FIGURE_HOLD_FAILED},
        {"released_through", FIGURE_RELEASED_THROUGH},
        {"too_large", FIGURE_TOO_LARGE},
        {"degraded", FIGURE_DEGRADED},
    };
    struct balance b;
    json_t *j = json_object(), *advised = json_object();
    figures_balance(f, NULL, clock_now(), &b);
    for (unsigned d = 0; d < DISP_COUNT; d++) {
        set_num(j, names[d], figures_total(f, FIGURE_DONE + d));
        set_num(advised, names[d], figures_total(f, FIGURE_ADVISED + d));
    }
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        set_num(j, others[i].name, figures_total(f, others[i].figure));
    set_num(j, "under_way", b.after);
    json_object_set_new(j, "unaccounted", json_integer(b.unaccounted));
    json_object_set_new(j, "advised", advised);
    return j;
}

static double ms(double us)
{
    return (double)(int64_t)(us + 0.5) / 1000;
}

json_t *api_figures_latency(struct figures *f, int64_t now)
{
    struct latency l;
    figures_latency(f, now, 10 * 60000, &l);
    return json_pack("{s:I,s:f,s:f,s:f,s:f,s:f,s:f}", "messages", (json_int_t)l.messages,
                     "own_average_ms", ms(l.own_average), "own_p50_ms", ms(l.own_p50), "own_p99_ms",
                     ms(l.own_p99), "added_average_ms", ms(l.added_average), "added_p50_ms",
                     ms(l.added_p50), "added_p99_ms", ms(l.added_p99));
}

json_t *api_figures_keeper(struct keeper *keeper)
{
    struct keeper_figures f = {0};
    keeper_figures(keeper, &f);
    json_t *j = json_object();
    set_num(j, "waiting", f.waiting);
    set_num(j, "jobs", f.jobs);
    set_num(j, "commits", f.commits);
    set_num(j, "failures", f.failures);
    set_num(j, "last_commit_us", f.last_commit_us);
    json_object_set_new(j, "damaged_set_aside", json_boolean(f.damaged));
    return j;
}

/* Of a past that is shared. */
static void add_shared(json_t *j, struct store *store)
{
    struct store_redis_figures f;
    if (!store_redis_figures(store, &f))
        return;
    json_object_set_new(j, "up", json_boolean(!f.away));
    set_num(j, "asked", f.asked);
    set_num(j, "degraded", f.degraded);
    set_num(j, "waiting", f.waiting);
    set_num(j, "waiting_bytes", f.waiting_bytes);
    set_num(j, "lost", f.lost);
    set_num(j, "handed_in", f.handed_in);
    set_num(j, "joined", f.joined);
    set_num(j, "compacted", f.compacted);
    set_num(j, "remade", f.remade);
    set_num(j, "full", f.full);
    set_num(j, "calls", f.redis.calls);
    set_num(j, "replies", f.redis.replies);
    set_num(j, "errors", f.redis.errors);
    set_num(j, "late", f.redis.late);
    set_num(j, "connections", f.redis.connections);
    set_num(j, "breaker_openings", f.redis.openings);
    json_t *faults = json_object();
    for (unsigned i = REDIS_NOT_CONNECTED; i < REDIS_FAULTS; i++)
        if (f.redis.faults[i])
            set_num(faults, redis_fault_name((enum redis_fault)i), f.redis.faults[i]);
    json_object_set_new(j, "faults", faults);
}

json_t *api_figures_store(struct store *store)
{
    json_t *j = json_object();
    json_object_set_new(j, "backend", json_string(store ? store->ops->name : "none"));
    if (!store || strcmp(store->ops->name, "none") == 0)
        return j;
    struct store_figures f = {0};
    store_memory_figures(store, &f);
    set_num(j, "records", f.records);
    set_num(j, "tallies", f.tallies);
    set_num(j, "bytes", f.bytes);
    set_num(j, "evicted", f.evicted);
    set_num(j, "expired", f.expired);
    add_shared(j, store);
    return j;
}

/* What is remembered beyond this process. */
json_t *api_figures_recall(struct recall *recall)
{
    if (!recall)
        return json_null();
    struct recall_figures f = {0};
    recall_figures(recall, &f);
    json_t *j = json_object();
    json_object_set_new(j, "since", json_time(f.since));
    json_object_set_new(j, "reading", json_boolean(f.reading));
    set_num(j, "bytes", f.bytes);
    set_num(j, "freed_early", f.early);
    set_num(j, "read", f.digests);
    set_num(j, "damaged", f.damaged);
    set_num(j, "lost", f.lost);
    set_num(j, "unsaved", f.unsaved);
    json_object_set_new(j, "snapshot", json_time(f.snapshot));
    return j;
}

/* ---- the balance ---- */

static json_t *balance_json(const char *door, const struct balance *b)
{
    json_t *j = json_object();
    json_object_set_new(j, "door", json_text_of(door));
    json_object_set_new(j, "from", json_time(b->from));
    json_object_set_new(j, "until", json_time(b->until));
    set_num(j, "received", b->received);
    set_num(j, "passed", b->passed);
    set_num(j, "held", b->held);
    set_num(j, "throttled", b->throttled);
    set_num(j, "rejected", b->rejected);
    set_num(j, "refused", b->refused);
    set_num(j, "aborted", b->aborted);
    set_num(j, "before", b->before);
    set_num(j, "under_way", b->after);
    json_object_set_new(j, "unaccounted", json_integer(b->unaccounted));
    return j;
}

static void add_minute(void *list, const char *door, const struct balance *b)
{
    if (b->received || b->before || b->after || b->unaccounted)
        json_array_append_new(list, balance_json(door, b));
}

void api_figures_balance(struct figures *f, struct http_request *r)
{
    const char *text = http_query(r, "minutes");
    uint64_t minutes = MINUTES;
    struct gauge *g;
    bool even = true;
    if (text && !(span_number(span_str(text), MINUTES_MAX, &minutes) && minutes)) {
        http_problem(r, 400, "minutes is a number from 1 to %d.", MINUTES_MAX);
        return;
    }
    json_t *j = json_object(), *doors = json_array(), *list = json_array();
    int64_t now = clock_now();
    for (size_t i = 0; (g = figures_at(f, i)); i++) {
        struct balance b;
        figures_balance(f, g, now, &b);
        even &= b.unaccounted == 0;
        if (b.received || b.unaccounted || figures_at(f, i + 1))
            json_array_append_new(doors, balance_json(gauge_door(g), &b));
    }
    figures_each_minute(f, now, (unsigned)minutes, add_minute, list);
    json_object_set_new(j, "even", json_boolean(even));
    json_object_set_new(j, "doors", doors);
    json_object_set_new(j, "minutes", list);
    http_reply(r, 200, j);
}

/* ---- what rules did ---- */

static void print_day(int64_t hour, char out[DATE])
{
    time_t t = (time_t)(hour * 3600);
    struct tm tm;
    if (!gmtime_r(&t, &tm) || !strftime(out, DATE, "%Y-%m-%d", &tm))
        out[0] = '\0';
}

static const char *done_name(unsigned done)
{
    if (done == DAY_REFUSED)
        return "refused";
    if (done == DAY_ABORTED)
        return "aborted";
    return done < DISP_COUNT ? disposition_name((enum disposition)done) : "unknown";
}

/* The object of one day, listener, mode and rule. */
static json_t *line_of(json_t *lines, const struct day_row *r)
{
    char key[2 * DAY_NAME + 64], day[DATE];
    bool judged = r->done < DISP_COUNT;
    print_day(r->hour, day);
    snprintf(key, sizeof key, "%s %d %s %s", day, judged ? r->mode : -1, r->listener, r->rule);
    json_t *j = json_object_get(lines, key);
    if (j)
        return j;
    j = json_object();
    json_object_set_new(j, "day", json_string(day));
    json_object_set_new(j, "listener", json_text_of(r->listener));
    json_object_set_new(j, "mode",
                        judged ? json_string(mode_name((enum mode)r->mode)) : json_null());
    json_object_set_new(j, "rule", json_text_of(*r->rule ? r->rule : NULL));
    set_num(j, "copies", 0);
    json_object_set_new(j, "would", json_object());
    json_object_set_new(j, "firsts", json_object());
    json_object_set_new(j, "done", json_object());
    json_object_set_new(lines, key, j);
    return j;
}

static void add_line(void *lines, const struct day_row *r)
{
    json_t *j = line_of(lines, r);
    const char *would = done_name(r->advised);
    add_num(j, "copies", r->copies);
    add_num(json_object_get(j, "would"), would, r->copies);
    add_num(json_object_get(j, "firsts"), would, r->firsts);
    add_num(json_object_get(j, "done"), done_name(r->done), r->copies);
}

/* "2026-11-21" as hours since 1970; -1: it is no day. */
static int64_t hour_of_day(const char *text)
{
    struct tm tm = {0};
    char again[DATE];
    const char *end = strptime(text, "%Y-%m-%d", &tm);
    if (!end || *end)
        return -1;
    int64_t hour = (int64_t)timegm(&tm) / 3600;
    print_day(hour, again); /* no 31st of November */
    return strcmp(again, text) == 0 ? hour : -1;
}

void api_figures_report(struct days *days, struct hold *view, struct http_request *r)
{
    const char *from_text = http_query(r, "from"), *until_text = http_query(r, "until");
    int64_t today = clock_now() / DAY_HOUR / 24 * 24;
    int64_t from = from_text ? hour_of_day(from_text) : today - (REPORT_DAYS - 1) * 24;
    int64_t until = until_text ? hour_of_day(until_text) : today;
    if (from < 0 || until < 0) {
        http_problem(r, 400, "from and until are days of UTC: 2026-11-21.");
        return;
    }
    json_t *lines = json_object(), *list = json_array(), *j = json_object();
    int rc = days_each(days, view, from, until + 24, true, add_line, lines);
    for (void *m = json_object_iter(lines); m; m = json_object_iter_next(lines, m))
        json_array_append(list, json_object_iter_value(m));
    json_decref(lines);
    json_object_set_new(j, "days", list);
    set_num(j, "left_out", days_left_out(days));
    if (rc == 0) {
        http_reply(r, 200, j);
        return;
    }
    json_decref(j);
    http_problem(r, 500, "The hold database could not be read; the log says why.");
}

/* ---- the last 24 hours ---- */

struct last_day {
    uint64_t done[DISP_COUNT], refused, aborted; /* copies */
    uint64_t would, firsts; /* held, had monitor been enforce; first copies among them */
    uint64_t held_firsts;   /* first copies that were held */
    json_t *rules;          /* name -> {"copies","firsts"}: of what would have been held */
};

static void add_last(void *arg, const struct day_row *r)
{
    struct last_day *d = arg;
    if (r->done >= DISP_COUNT) {
        *(r->done == DAY_REFUSED ? &d->refused : &d->aborted) += r->copies;
        return;
    }
    d->done[r->done] += r->copies;
    if (r->done == DISP_HOLD)
        d->held_firsts += r->firsts;
    if (r->mode != MODE_MONITOR || r->advised != DISP_HOLD)
        return;
    d->would += r->copies;
    d->firsts += r->firsts;
    json_t *rule = json_object_get(d->rules, r->rule);
    if (!rule) {
        rule = json_pack("{s:s}", "rule", r->rule);
        if (!rule)
            return; /* a name that is not UTF-8 */
        json_object_set_new(d->rules, r->rule, rule);
    }
    set_num(rule, "copies", json_get_num(rule, "copies") + r->copies);
    set_num(rule, "firsts", json_get_num(rule, "firsts") + r->firsts);
}

json_t *api_figures_last_day(struct days *days, struct hold *view, int64_t now)
{
    struct last_day d = {.rules = json_object()};
    int64_t hour = now / DAY_HOUR;
    json_t *list = json_array(), *j = json_object();
    int rc = days ? days_each(days, view, hour - 23, hour + 1, false, add_last, &d) : -1;
    for (void *m = json_object_iter(d.rules); m; m = json_object_iter_next(d.rules, m))
        json_array_append(list, json_object_iter_value(m));
    json_decref(d.rules);
    uint64_t judged = 0;
    for (unsigned i = 0; i < DISP_COUNT; i++)
        judged += d.done[i];
    set_num(j, "judged", judged);
    set_num(j, "passed", d.done[DISP_PASS] + d.done[DISP_TAG]);
    set_num(j, "throttled", d.done[DISP_THROTTLE]);
    set_num(j, "rejected", d.done[DISP_REJECT]);
    set_num(j, "refused", d.refused);
    set_num(j, "aborted", d.aborted);
    set_num(j, "held", d.done[DISP_HOLD]);
    set_num(j, "held_firsts", d.held_firsts);
    set_num(j, "would_hold", d.would);
    set_num(j, "would_hold_firsts", d.firsts);
    json_object_set_new(j, "rules", list);
    if (rc == 0)
        return j;
    json_decref(j);
    return json_null();
}
