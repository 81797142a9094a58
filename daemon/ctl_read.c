/* ctl_read.c - the commands that only look: status, storms, show, held, explain. */
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "ctl.h"

enum { SUBJECT_SHOWN = 48, ADDRESS_SHOWN = 40, PAGE = 100, PAGE_MAX = 1000 };

static int get(const struct ctl *ctl, const char *path, struct ctl_reply *r)
{
    struct ctl_target t;
    ctl_target(&t, ctl->arena, path);
    return ctl_ask(ctl, &t, NULL, r);
}

static int64_t when(const json_t *o, const char *name)
{
    return json_ms(json_object_get(o, name));
}

/* A reverse-path: the null one is shown as <>. */
static const char *sender(const struct ctl *ctl, const json_t *o, size_t max)
{
    return *json_get_str(o, "sender") ? ctl_text(ctl, o, "sender", max) : "<>";
}

/* ---- status ---- */

static void print_mode(const struct ctl *ctl, const json_t *m)
{
    const char *mode = json_get_str(m, "mode");
    bool enforce = strcmp(mode, "enforce") == 0;
    const char *means = enforce                        ? "further copies of a storm are held"
                        : strcmp(mode, "monitor") == 0 ? "nothing is held, only recorded"
                                                       : "mail passes unjudged";
    printf("Mode %s: %s.", print_paint(ctl->arena, ctl->colour, PAINT_BOLD, mode), means);
    if (when(m, "since"))
        printf(" Since %s, by %s: %s", ctl_time(ctl, m, "since"), ctl_text(ctl, m, "by", 64),
               ctl_text(ctl, m, "reason", 200));
    putchar('\n');
    const json_t *listeners = json_object_get(m, "listeners");
    for (size_t i = 0; i < json_array_size(listeners); i++) {
        const json_t *l = json_array_get(listeners, i);
        if (strcmp(json_get_str(l, "mode"), mode) != 0)
            printf("Listener %s has a mode of its own: %s.\n", ctl_text(ctl, l, "name", 64),
                   print_paint(ctl->arena, ctl->colour, PAINT_BOLD, ctl_text(ctl, l, "mode", 16)));
    }
}

/* "(rule duplicate 29, loop-own 2)" */
static const char *rules_told(const struct ctl *ctl, const json_t *rules)
{
    const char *text = NULL;
    for (size_t i = 0; i < json_array_size(rules); i++) {
        const json_t *r = json_array_get(rules, i);
        text = arena_printf(ctl->arena, "%s%s%s %s", text ? text : "", text ? ", " : "",
                            ctl_text(ctl, r, "rule", 32), ctl_count(ctl, r, "copies"));
    }
    if (!text)
        return "";
    return arena_printf(ctl->arena, " (rule%s %s)", json_array_size(rules) > 1 ? "s" : "", text);
}

/* What a postmaster wants to know before enforcing. */
static void print_would(const struct ctl *ctl, const json_t *s)
{
    const json_t *d = json_object_get(s, "last_day");
    uint64_t would = json_get_num(d, "would_hold"), firsts = json_get_num(d, "would_hold_firsts");
    bool monitor = strcmp(json_get_str(json_object_get(s, "mode"), "mode"), "monitor") == 0;
    if (!json_is_object(d) || (!monitor && !would))
        return;
    printf("In the last 24 hours enforce mode would have held %s and %s%s.\n",
           print_some(ctl->arena, would - firsts, "further copy", "further copies"),
           print_some(ctl->arena, firsts, "first copy", "first copies"),
           rules_told(ctl, json_object_get(d, "rules")));
}

static void print_balance(const struct ctl *ctl, const json_t *counters)
{
    json_int_t n = json_integer_value(json_object_get(counters, "unaccounted"));
    if (n)
        printf("%s: %lld copies are unaccounted for; see: breakwaterctl balance\n",
               print_paint(ctl->arena, ctl->colour, PAINT_ALARM, "ALARM"), (long long)n);
}

static void print_policy(const struct ctl *ctl, const json_t *p)
{
    uint64_t version = json_get_num(p, "version"), part = json_get_num(p, "trial");
    if (!json_is_object(p))
        return;
    printf("Rules: %s", version
                            ? arena_printf(ctl->arena, "version %llu", (unsigned long long)version)
                            : "not a stored version");
    if (part)
        printf(", on a part of the mail version %llu", (unsigned long long)part);
    if (json_get_num(p, "unconfirmed"))
        printf("; version %s is reverted in %s unless somebody confirms it",
               ctl_count(ctl, p, "unconfirmed"),
               print_span_of_time(ctl->arena, (int64_t)json_get_num(p, "seconds_left") * 1000));
    puts(".");
}

static void print_safety(const struct ctl *ctl, const json_t *s)
{
    const json_t *b = json_object_get(s, "counters"), *h = json_object_get(s, "hold");
    struct arena *a = ctl->arena;
    int64_t oldest = when(h, "oldest");
    uint64_t failed = json_get_num(b, "hold_failed");
    printf("%s seen since the start: %s passed, %s passed with a tag, %s held.\n",
           print_some(a, json_get_num(b, "received"), "copy", "copies"),
           ctl_count(ctl, b, "passed"), ctl_count(ctl, b, "tagged"), ctl_count(ctl, b, "held"));
    print_would(ctl, s);
    if (json_get_num(b, "refused"))
        printf("%s not taken by the servers behind the SMTP doors; the clients were told.\n",
               print_some(a, json_get_num(b, "refused"), "copy was", "copies were"));
    printf("%s in the hold queue", print_some(a, json_get_num(h, "held"), "copy is", "copies are"));
    if (oldest)
        printf(", the oldest for %s", print_span_of_time(a, when(s, "now") - oldest));
    printf("; %s on the way out.\n", ctl_count(ctl, h, "releasing"));
    if (failed)
        printf("%s: %s could not be held and passed or was refused instead.\n",
               print_paint(a, ctl->colour, PAINT_ALARM, "ALARM"),
               print_some(a, failed, "copy", "copies"));
    print_balance(ctl, b);
    if (json_is_true(json_object_get(h, "full")))
        printf("%s: the hold queue has reached hold.max_bytes.\n",
               print_paint(a, ctl->colour, PAINT_ALARM, "ALARM"));
    if (json_get_num(s, "journal_lost"))
        printf("%s: %s of the journal were lost; the disk does not keep up.\n",
               print_paint(a, ctl->colour, PAINT_ALARM, "ALARM"),
               print_some(a, json_get_num(s, "journal_lost"), "row", "rows"));
}

static void print_doors(const struct ctl *ctl, const json_t *s)
{
    const json_t *doors = json_object_get(s, "doors");
    for (size_t i = 0; i < json_array_size(doors); i++) {
        const json_t *d = json_array_get(doors, i);
        print_fact(stdout, i ? "" : "Doors",
                   arena_printf(ctl->arena, "%s \"%s\" at %s", json_get_str(d, "kind"),
                                ctl_text(ctl, d, "name", 64), ctl_text(ctl, d, "address", 0)));
    }
    print_fact(stdout, "Sessions", ctl_count(ctl, s, "sessions"));
}

/* Whom what was delivered to is known since, and what is wrong with that. */
static void print_memory(const struct ctl *ctl, const json_t *s)
{
    const json_t *m = json_object_get(s, "memory");
    struct arena *a = ctl->arena;
    if (!json_is_object(m))
        return;
    int64_t since = when(m, "since");
    const char *far = since ? print_span_of_time(a, when(s, "now") - since) : "nothing";
    print_fact(stdout, "Remembered",
               json_is_true(json_object_get(m, "reading"))
                   ? arena_printf(a, "still reading: %s back so far", far)
                   : arena_printf(a, "%s, in %s", far, print_size(a, json_get_num(m, "bytes"))));
    if (json_get_num(m, "freed_early"))
        printf("store.memory is too small for all of detect.bloom_days: the oldest days were "
               "forgotten early.\n");
    if (json_get_num(m, "damaged"))
        printf("%s of the long memory were damaged on disk and are forgotten.\n",
               print_some(a, json_get_num(m, "damaged"), "block", "blocks"));
    if (json_get_num(m, "lost") || json_get_num(m, "unsaved"))
        printf("%s: memory cannot be written: a restart would forget. See the log.\n",
               print_paint(a, ctl->colour, PAINT_ALARM, "ALARM"));
}

static void print_latency(const struct ctl *ctl, const json_t *s)
{
    const json_t *l = json_object_get(s, "latency");
    if (json_get_num(l, "messages"))
        print_fact(
            stdout, "Last 10 minutes",
            arena_printf(ctl->arena,
                         "%s; our own time %.1f ms on average, %.1f ms for 99 %%; with "
                         "the servers behind %.1f ms",
                         print_some(ctl->arena, json_get_num(l, "messages"), "message", "messages"),
                         json_number_value(json_object_get(l, "own_average_ms")),
                         json_number_value(json_object_get(l, "own_p99_ms")),
                         json_number_value(json_object_get(l, "added_average_ms"))));
}

/* Of a past that several nodes share. */
static void print_shared(const struct ctl *ctl, const json_t *st)
{
    struct arena *a = ctl->arena;
    if (!json_object_get(st, "up"))
        return;
    print_fact(stdout, "Shared past",
               arena_printf(a, "%s: %s judged with it, %s without; %s waiting",
                            json_get_yes(st, "up") ? "there" : "away",
                            print_some(a, json_get_num(st, "asked"), "message", "messages"),
                            ctl_count(ctl, st, "degraded"),
                            print_some(a, json_get_num(st, "waiting"), "event", "events")));
    if (!json_get_yes(st, "up"))
        printf("%s: Redis is away: this node judges by what it knows itself.\n",
               print_paint(a, ctl->colour, PAINT_ALARM, "ALARM"));
}

static void print_engine(const struct ctl *ctl, const json_t *s)
{
    const json_t *h = json_object_get(s, "hold"), *st = json_object_get(s, "store");
    const json_t *r = json_object_get(s, "release"), *k = json_object_get(s, "keeper");
    struct arena *a = ctl->arena;
    print_latency(ctl, s);
    print_fact(stdout, "Storms open", ctl_count(ctl, s, "storms_open"));
    const json_t *relays = json_object_get(s, "relays");
    print_fact(stdout, "Relays",
               arena_printf(a, "%s misbehaving, %s said to be fixed, %s on probation",
                            ctl_count(ctl, relays, "misbehaving"),
                            ctl_count(ctl, relays, "said-fixed"),
                            ctl_count(ctl, relays, "probation")));
    print_fact(stdout, "Hold database",
               arena_printf(a, "%s of %s", print_size(a, json_get_num(h, "file_bytes")),
                            print_size(a, json_get_num(h, "max_bytes"))));
    print_fact(stdout, "Keeper",
               arena_printf(a, "%s, last one took %s us, %s failed",
                            print_some(a, json_get_num(k, "commits"), "commit", "commits"),
                            ctl_count(ctl, k, "last_commit_us"), ctl_count(ctl, k, "failures")));
    print_fact(stdout, "Memory",
               arena_printf(a, "%s in %s (backend %s)",
                            print_some(a, json_get_num(st, "records"), "message", "messages"),
                            print_size(a, json_get_num(st, "bytes")),
                            ctl_text(ctl, st, "backend", 16)));
    print_shared(ctl, st);
    print_memory(ctl, s);
    const char *to = json_get_str(r, "to");
    print_fact(stdout, "Release",
               *to ? arena_printf(a, "to %s: %s sent, %s deferred", ctl_text(ctl, r, "to", 0),
                                  ctl_count(ctl, r, "sent"), ctl_count(ctl, r, "deferred"))
                   : "off: the configuration has no release { to = ... }");
}

/* ", shared", or why it is not. */
static const char *sharing(const struct ctl *ctl, const json_t *n, int64_t now)
{
    if (json_get_yes(n, "left"))
        return arena_printf(ctl->arena, "stopped %s ago",
                            print_span_of_time(ctl->arena, now - when(n, "seen")));
    if (!json_get_yes(n, "alive"))
        return arena_printf(ctl->arena, "%s: not seen for %s",
                            print_paint(ctl->arena, ctl->colour, PAINT_ALARM, "away"),
                            print_span_of_time(ctl->arena, now - when(n, "seen")));
    const char *up = print_span_of_time(ctl->arena, now - when(n, "started"));
    if (json_get_yes(n, "shared"))
        return arena_printf(ctl->arena, "up %s", up);
    return arena_printf(ctl->arena, "up %s, %s: %s", up,
                        print_paint(ctl->arena, ctl->colour, PAINT_ALARM, "does not share"),
                        ctl_text(ctl, n, "why", 300));
}

/* ", 12 copies held, its guard has stepped back" */
static const char *doing(const struct ctl *ctl, const json_t *n)
{
    const json_t *f = json_object_get(n, "figures");
    if (!json_is_object(f) || !json_get_yes(n, "alive") || json_get_yes(n, "left"))
        return "";
    bool tripped = strcmp(json_get_str(f, "guard"), "tripped") == 0;
    return arena_printf(
        ctl->arena, ", %s held%s",
        print_some(ctl->arena, json_get_num(f, "held"), "copy", "copies"),
        tripped ? print_paint(ctl->arena, ctl->colour, PAINT_ALARM, ", its guard has stepped back")
                : "");
}

/* One line a node. */
static void print_fleet(const struct ctl *ctl, const json_t *s)
{
    const json_t *f = json_object_get(s, "fleet"), *nodes = json_object_get(f, "nodes");
    if (!json_is_object(f))
        return;
    if (strcmp(json_get_str(f, "state"), "away") == 0)
        printf("%s: Redis is away: this node judges by what it knows itself (%s).\n",
               print_paint(ctl->arena, ctl->colour, PAINT_ALARM, "ALARM"),
               ctl_text(ctl, f, "why", 200));
    for (size_t i = 0; i < json_array_size(nodes); i++) {
        const json_t *n = json_array_get(nodes, i);
        print_fact(stdout, i ? "" : "Nodes",
                   arena_printf(ctl->arena, "%s%s, version %s, mode %s, %s%s",
                                ctl_text(ctl, n, "name", 64),
                                json_get_yes(n, "self") ? " (this one)" : "",
                                ctl_text(ctl, n, "version", 32), ctl_text(ctl, n, "mode", 16),
                                sharing(ctl, n, when(s, "now")), doing(ctl, n)));
    }
}

int ctl_status(const struct ctl *ctl)
{
    struct ctl_reply r;
    int rc = get(ctl, "status", &r);
    if (rc == CTL_OK && ctl->json)
        ctl_json(r.json);
    if (rc == CTL_OK && !ctl->json) {
        int64_t up = when(r.json, "now") - when(r.json, "started");
        ctl_guard_brief(ctl, json_object_get(r.json, "guard"));
        printf("breakwaterd %s, up %s\n", ctl_text(ctl, r.json, "version", 32),
               print_span_of_time(ctl->arena, up));
        print_mode(ctl, json_object_get(r.json, "mode"));
        print_policy(ctl, json_object_get(r.json, "policy"));
        print_safety(ctl, r.json);
        print_doors(ctl, r.json);
        print_fleet(ctl, r.json);
        print_engine(ctl, r.json);
    }
    ctl_reply_free(&r);
    return rc;
}

int ctl_mode_now(const struct ctl *ctl)
{
    struct ctl_reply r;
    int rc = get(ctl, "mode", &r);
    if (rc == CTL_OK && ctl->json)
        ctl_json(r.json);
    else if (rc == CTL_OK)
        print_mode(ctl, r.json);
    ctl_reply_free(&r);
    return rc;
}

/* ---- storms ---- */

static bool is_named(const json_t *culprit)
{
    return json_get_yes(culprit, "named");
}

/* "open", "resurfaced after 28 days" ... */
static const char *storm_state(const struct ctl *ctl, const json_t *s)
{
    const char *state = json_get_str(s, "state");
    const char *after = json_get_str(json_object_get(s, "resurfaced"), "after");
    if (strcmp(state, "resurfaced") != 0 || !*after)
        return ctl_text(ctl, s, "state", 16);
    return arena_printf(ctl->arena, "%s after %s", state, print_text(ctl->arena, after, 32));
}

static bool storm_is_on(const json_t *s)
{
    const char *state = json_get_str(s, "state");
    return strcmp(state, "open") == 0 || strcmp(state, "resurfaced") == 0;
}

static void print_storms(const struct ctl *ctl, const json_t *storms)
{
    static const char *const heads[] = {"STORM",   "STATE", "KIND",      "LAST COPY",
                                        ">COPIES", ">HELD", ">DEFERRED", "FROM",
                                        "SUBJECT", "RELAY", NULL};
    struct table t;
    table_begin(&t, ctl->arena, ctl->colour, heads);
    for (size_t i = 0; i < json_array_size(storms); i++) {
        const json_t *s = json_array_get(storms, i);
        const json_t *c = json_array_get(json_object_get(s, "culprits"), 0);
        struct cell *row = table_row(&t);
        row[0].text = ctl_text(ctl, s, "id", 0);
        row[1] = (struct cell){storm_state(ctl, s), storm_is_on(s) ? PAINT_ALARM : PAINT_NONE};
        row[2].text = ctl_text(ctl, s, "kind", 16);
        row[3].text = ctl_time(ctl, s, "last");
        row[4].text = ctl_count(ctl, s, "copies");
        row[5].text = ctl_count(ctl, s, "held");
        row[6].text = ctl_count(ctl, s, "deferred");
        row[7].text = ctl_text(ctl, s, "from", ADDRESS_SHOWN);
        row[8].text = ctl_text(ctl, s, "subject", SUBJECT_SHOWN);
        row[9].text = is_named(c) ? ctl_text(ctl, c, "relay", 64) : ctl_text(ctl, s, "relay", 64);
    }
    table_print(&t, stdout);
}

int ctl_storms(const struct ctl *ctl)
{
    struct ctl_reply r;
    struct ctl_target t;
    ctl_target(&t, ctl->arena, "storms");
    ctl_query(&t, "limit", ctl->limit);
    ctl_query(&t, "node", ctl->node);
    int rc = ctl_ask(ctl, &t, NULL, &r);
    const json_t *storms = json_object_get(r.json, "storms");
    uint64_t known = json_get_num(r.json, "known"), shown = json_array_size(storms);
    if (rc == CTL_OK && ctl->json)
        ctl_json_each(storms);
    else if (rc == CTL_OK && shown == 0)
        puts("No storms: neither the live table nor the hold database knows of one.");
    else if (rc == CTL_OK)
        print_storms(ctl, storms);
    if (rc == CTL_OK && !ctl->json && known > shown)
        printf("%s more; --limit shows more.\n", print_count(ctl->arena, known - shown));
    ctl_reply_free(&r);
    return rc;
}

/* ---- show: a storm ---- */

/* Arrivals beyond the first for each recipient. */
static uint64_t further(const json_t *s)
{
    uint64_t copies = json_get_num(s, "copies"), rcpts = json_get_num(s, "recipients");
    return rcpts && copies > rcpts ? copies - rcpts : copies;
}

/* The relays that are named: "a", "a and b", "a, b and c"; NULL: none. */
static const char *named_relays(const struct ctl *ctl, const json_t *culprits)
{
    const char *list = NULL, *last = NULL;
    for (size_t i = 0; i < json_array_size(culprits); i++) {
        const json_t *c = json_array_get(culprits, i);
        if (!is_named(c))
            continue;
        if (last)
            list = list ? arena_printf(ctl->arena, "%s, %s", list, last) : last;
        last = ctl_text(ctl, c, "relay", 0);
    }
    return list ? arena_printf(ctl->arena, "%s and %s", list, last) : last;
}

/* New mail of people, machines or a relay, not further copies of one message. */
static bool is_new_mail(const json_t *s)
{
    const char *kind = json_get_str(s, "kind");
    return strcmp(kind, "reply-all") == 0 || strcmp(kind, "ping-pong") == 0 ||
           strcmp(kind, "flood") == 0 || strcmp(kind, "rule") == 0;
}

static void say_new_mail(const struct ctl *ctl, const json_t *s)
{
    const char *kind = json_get_str(s, "kind"), *since = ctl_time(ctl, s, "first");
    const char *copies = print_some(ctl->arena, json_get_num(s, "copies"), "copy", "copies");
    if (strcmp(kind, "reply-all") == 0)
        printf("People answer everybody: %s of their answers since %s. The first was from %s.",
               copies, since, ctl_text(ctl, s, "from", 64));
    else if (strcmp(kind, "ping-pong") == 0)
        printf("Two machines answer each other: %s of their answers since %s. One of them is %s.",
               copies, since, ctl_text(ctl, s, "from", 64));
    else if (strcmp(kind, "rule") == 0)
        printf("A rule holds new mail: %s since %s. The first was from %s.", copies, since,
               ctl_text(ctl, s, "from", 64));
    else
        printf("%s sends far more than it usually does: %s since %s.", ctl_text(ctl, s, "relay", 0),
               copies, since);
}

static void say_what_happened(const struct ctl *ctl, const json_t *s)
{
    struct arena *a = ctl->arena;
    if (is_new_mail(s)) {
        say_new_mail(ctl, s);
        return;
    }
    const char *relays = named_relays(ctl, json_object_get(s, "culprits"));
    const char *copies = print_some(a, further(s), "further copy", "further copies");
    const char *to = print_some(a, json_get_num(s, "visible"), "address", "addresses");
    const char *from = ctl_text(ctl, s, "from", 64), *since = ctl_time(ctl, s, "first");
    bool loop = strcmp(json_get_str(s, "kind"), "loop") == 0;
    if (loop)
        printf("A message from %s runs in a circle: %s since %s.", from, copies, since);
    else if (relays)
        printf("%s re-sent one message from %s to %s: %s since %s.", relays, from, to, copies,
               since);
    else
        printf("One message from %s to %s came again: %s since %s. Which relay re-sends it is not "
               "clear%s.",
               from, to, copies, since, *json_get_str(s, "relay") ? " beyond doubt" : " yet");
}

static void say_who_got_it(const struct ctl *ctl, const json_t *s)
{
    uint64_t rcpts = json_get_num(s, "recipients"), without = json_get_num(s, "without");
    uint64_t monitored = json_get_num(s, "would_hold");
    bool several = json_array_size(json_object_get(s, "members")) > 1;
    if (is_new_mail(s))
        printf(" %s passed, %s held.",
               print_count(ctl->arena, json_get_num(s, "passed") + json_get_num(s, "tagged")),
               ctl_count(ctl, s, "held"));
    else if (monitored && json_get_num(s, "held") == 0)
        printf(" Every copy was passed on.");
    else if (rcpts && without == 0)
        printf(" Each recipient got at least one copy%s.", several ? " of each message" : "");
    else if (rcpts && several)
        printf(" %s still due: a recipient got none of a message yet%s.",
               print_some(ctl->arena, without, "copy is", "copies are"),
               monitored ? ", but for what passed in monitor mode" : "");
    else if (rcpts)
        printf(" %s of %s got none yet%s.", print_count(ctl->arena, without),
               print_some(ctl->arena, rcpts, "recipient", "recipients"),
               monitored ? ", but for what passed in monitor mode" : "");
    puts(" Nothing was lost.");
    if (monitored)
        printf("In monitor mode %s passed that enforce mode would have held.\n",
               print_some(ctl->arena, monitored, "copy", "copies"));
}

static void print_evidence(const struct ctl *ctl, const json_t *list, size_t most)
{
    for (size_t i = 0; i < json_array_size(list) && i < most; i++) {
        const char *sentence = json_string_value(json_array_get(list, i));
        printf("    - %s\n", print_text(ctl->arena, sentence ? sentence : "", 0));
    }
}

/* "faulty since A, latest B; joined late; misbehaving". */
static const char *culprit_times(const struct ctl *ctl, const json_t *c)
{
    struct arena *a = ctl->arena;
    const char *state = ctl_text(ctl, c, "state", 32);
    if (!when(c, "since"))
        return *json_get_str(c, "state") ? arena_printf(a, "now %s", state) : NULL;
    return arena_printf(
        a, "since %s, latest %s%s%s%s", ctl_time(ctl, c, "since"), ctl_time(ctl, c, "until"),
        json_get_yes(c, "late") ? "; joined a storm that was on for a day" : "",
        *json_get_str(c, "state") ? "; now " : "", *json_get_str(c, "state") ? state : "");
}

static void print_culprit(const struct ctl *ctl, const json_t *c)
{
    const char *times = culprit_times(ctl, c);
    printf("  %s: %s, %s, score %.1f%s%s\n",
           print_paint(ctl->arena, ctl->colour, is_named(c) ? PAINT_ALARM : PAINT_NONE,
                       ctl_text(ctl, c, "relay", 0)),
           print_some(ctl->arena, json_get_num(c, "copies"), "copy", "copies"),
           ctl_text(ctl, c, "grade", 0), json_number_value(json_object_get(c, "score")),
           *json_get_str(c, "conviction") ? "; convicted: " : "",
           *json_get_str(c, "conviction") ? ctl_text(ctl, c, "conviction", 0) : "");
    if (times)
        printf("    %s\n", times);
    print_evidence(ctl, json_object_get(c, "evidence"), SIZE_MAX);
}

static void print_culprits(const struct ctl *ctl, const json_t *s)
{
    const json_t *list = json_object_get(s, "culprits"), *own = json_object_get(s, "evidence");
    bool loop = strcmp(json_get_str(s, "kind"), "loop") == 0;
    if (json_array_size(list))
        printf("\nWho %s it%s\n", is_new_mail(s) ? "sends" : "re-sends",
               json_array_size(list) > 1 ? " (a copy that went through several counts for each)"
                                         : "");
    for (size_t i = 0; i < json_array_size(list); i++)
        print_culprit(ctl, json_array_get(list, i));
    if (json_array_size(own)) {
        puts(loop ? "\nThe circle it runs in" : "\nEvidence");
        print_evidence(ctl, own, 3);
    }
    if (json_array_size(own) > 3)
        printf("    and %zu more like it, see --json\n", json_array_size(own) - 3);
}

/* The messages of a storm that has several: the first, and the latest few. */
static void print_members(const struct ctl *ctl, const json_t *s)
{
    enum { SHOWN = 10 };
    const json_t *list = json_object_get(s, "members");
    size_t n = json_array_size(list), skip = n > SHOWN ? n - SHOWN : 0;
    if (n < 2)
        return;
    printf("\nIts messages%s\n",
           skip ? arena_printf(ctl->arena, " (%zu older ones left out, see --json)", skip) : "");
    for (size_t i = 0; i < n; i++) {
        const json_t *m = json_array_get(list, i);
        const char *why = json_get_str(m, "joined");
        if (i && i <= skip)
            continue;
        printf("  %s: %s since %s%s%s\n", ctl_text(ctl, m, "message_id", 0),
               print_some(ctl->arena, json_get_num(m, "copies"), "copy", "copies"),
               ctl_time(ctl, m, "first"), *why ? "; here because " : "",
               *why ? ctl_text(ctl, m, "joined", 0) : "");
    }
}

static void print_next(const struct ctl *ctl, const json_t *s)
{
    const char *id = ctl_text(ctl, s, "id", 0);
    uint64_t held = json_get_num(json_object_get(s, "queue"), "held");
    if (held)
        printf("\nWhat can be done\n"
               "  See what is held:          breakwaterctl held --storm %s\n"
               "  See who would get a copy:  breakwaterctl release --storm %s --one-per-recipient "
               "-n\n"
               "  Send one copy to each recipient who got none:\n"
               "                             breakwaterctl release --storm %s --one-per-recipient\n"
               "  Put the rest in the bin:   breakwaterctl discard --storm %s --all --reason "
               "\"...\"\n",
               id, id, id, id);
    else if (json_get_num(s, "would_hold"))
        printf("\nWhat can be done\n"
               "  Hold further copies:       breakwaterctl mode enforce --reason \"storm %s\"\n",
               id);
}

static const char *times(const struct ctl *ctl, const json_t *s, const char *name)
{
    return print_some(ctl->arena, json_get_num(s, name), "time", "times");
}

/* "mx1 1,204 copies, mx2 3 copies": who saw it, if there are several. */
static void print_seen(const struct ctl *ctl, const json_t *s)
{
    const json_t *nodes = json_object_get(s, "nodes");
    for (size_t i = 0; i < json_array_size(nodes); i++) {
        const json_t *n = json_array_get(nodes, i);
        print_fact(stdout, i ? "" : "Seen by",
                   arena_printf(ctl->arena, "%s: %s noted, %s held; latest %s",
                                ctl_text(ctl, n, "node", 64),
                                print_some(ctl->arena, json_get_num(n, "copies"), "copy", "copies"),
                                ctl_count(ctl, n, "held"), ctl_time(ctl, n, "last")));
    }
}

static void print_storm(const struct ctl *ctl, const json_t *s)
{
    const json_t *q = json_object_get(s, "queue");
    struct arena *a = ctl->arena;
    printf("Storm %s, %s, %s\n\n", ctl_text(ctl, s, "id", 0), ctl_text(ctl, s, "kind", 16),
           print_paint(a, ctl->colour, PAINT_BOLD, storm_state(ctl, s)));
    say_what_happened(ctl, s);
    say_who_got_it(ctl, s);
    putchar('\n');
    print_fact(stdout, "Subject", ctl_text(ctl, s, "subject", 0));
    print_fact(stdout, "Message-ID", ctl_text(ctl, s, "message_id", 0));
    print_fact(stdout, "First, last",
               arena_printf(a, "%s, %s", ctl_time(ctl, s, "first"), ctl_time(ctl, s, "last")));
    const json_t *back = json_object_get(s, "resurfaced");
    if (json_is_object(back))
        print_fact(stdout, "Resurfaced",
                   arena_printf(a, "%s, after %s", ctl_time(ctl, back, "at"),
                                ctl_text(ctl, back, "after", 32)));
    print_fact(stdout, "Copies",
               arena_printf(a, "%s seen, %s passed (%s with a tag), %s held%s%s",
                            ctl_count(ctl, s, "copies"),
                            print_count(a, json_get_num(s, "passed") + json_get_num(s, "tagged")),
                            ctl_count(ctl, s, "tagged"), ctl_count(ctl, s, "held"),
                            json_get_num(s, "deferred") ? "; deferred " : "",
                            json_get_num(s, "deferred") ? times(ctl, s, "deferred") : ""));
    print_fact(stdout, "In the queue",
               arena_printf(a, "%s held, %s on the way out, %s released, %s in the bin",
                            ctl_count(ctl, q, "held"), ctl_count(ctl, q, "releasing"),
                            ctl_count(ctl, q, "released"), ctl_count(ctl, q, "discarded")));
    print_seen(ctl, s);
    print_members(ctl, s);
    print_culprits(ctl, s);
    print_next(ctl, s);
}

/* ---- show: a copy ---- */

/* What came of the last attempt to release it: a reply, or why there was none. */
static const char *outcome(const struct ctl *ctl, const json_t *c)
{
    const char *reply = json_get_str(c, "reply");
    return arena_printf(ctl->arena, "%s: %s",
                        byte_digit((uint8_t)*reply) ? "the MTA said" : "the last one failed",
                        ctl_text(ctl, c, "reply", 0));
}

static void print_copy_state(const struct ctl *ctl, const json_t *c)
{
    const char *state = json_get_str(c, "state");
    print_fact(stdout, "State",
               arena_printf(ctl->arena, "%s since %s",
                            print_paint(ctl->arena, ctl->colour, PAINT_BOLD, state),
                            ctl_time(ctl, c, "changed")));
    if (*json_get_str(c, "by"))
        print_fact(stdout, "By",
                   arena_printf(ctl->arena, "%s%s%s", ctl_text(ctl, c, "by", 64),
                                *json_get_str(c, "why") ? ": " : "",
                                *json_get_str(c, "why") ? ctl_text(ctl, c, "why", 0) : ""));
    if (json_get_num(c, "attempts"))
        print_fact(
            stdout, "Attempts",
            arena_printf(ctl->arena, "%s; %s", ctl_count(ctl, c, "attempts"), outcome(ctl, c)));
}

/* Lines of somebody's message, each made harmless. */
static void print_lines(const struct ctl *ctl, const char *title, const char *lines)
{
    printf("\n%s\n", title);
    while (*lines) {
        size_t n = strcspn(lines, "\n"), cut = n && lines[n - 1] == '\r' ? n - 1 : n;
        const char *line = arena_str(ctl->arena, span_of(lines, cut));
        printf("  %s\n", *line ? print_text(ctl->arena, line, 0) : "");
        lines += n + (lines[n] == '\n');
    }
}

static void print_copy(const struct ctl *ctl, const json_t *c)
{
    struct arena *a = ctl->arena;
    const char *id = ctl_text(ctl, c, "id", 0);
    printf("Copy %s of a message from %s, for %s\n\n", id, ctl_text(ctl, c, "from", 0),
           ctl_text(ctl, c, "rcpt", 0));
    print_copy_state(ctl, c);
    print_fact(stdout, "Arrived", ctl_time(ctl, c, "arrival"));
    print_fact(stdout, "Sender", sender(ctl, c, 0));
    print_fact(stdout, "Subject", ctl_text(ctl, c, "subject", 0));
    print_fact(stdout, "Message-ID", ctl_text(ctl, c, "message_id", 0));
    print_fact(stdout, "From relay",
               arena_printf(a, "%s [%s], HELO %s", ctl_text(ctl, c, "client_name", 0),
                            ctl_text(ctl, c, "client", 0), ctl_text(ctl, c, "helo", 0)));
    print_fact(stdout, "Queue id", ctl_text(ctl, c, "queue_id", 0));
    print_fact(stdout, "Size", print_size(a, json_get_num(c, "size")));
    print_fact(stdout, "Why held",
               arena_printf(a, "%s (rule %s; copy %s for this recipient, relation %s)",
                            ctl_text(ctl, c, "reason", 0), ctl_text(ctl, c, "rule", 0),
                            ctl_count(ctl, c, "number"), ctl_text(ctl, c, "relation", 0)));
    print_fact(stdout, "Brought by", ctl_text(ctl, c, "blamed", 0));
    print_fact(stdout, "Storm", ctl_text(ctl, c, "storm", 0));
    if (json_get_yes(c, "may_be_only"))
        puts("This may be the only copy: whether an earlier one arrived is not known for certain.");
    if (json_object_get(c, "headers"))
        print_lines(ctl, "Header", json_get_str(c, "headers"));
    if (json_object_get(c, "text"))
        print_lines(ctl, "Text, undecoded", json_get_str(c, "text"));
    const char *state = json_get_str(c, "state");
    if (strcmp(state, "held") == 0)
        printf("\nWhat can be done\n"
               "  Send it to %s:  breakwaterctl release %s\n"
               "  Put it in the bin:  breakwaterctl discard %s --reason \"...\"\n",
               ctl_text(ctl, c, "rcpt", 0), id, id);
    if (strcmp(state, "releasing") == 0)
        printf("\nWhat can be done\n"
               "  Wait: it is tried again by itself. Or stop that:  breakwaterctl undo %s\n",
               id);
    if (strcmp(state, "discarded") == 0)
        printf("\nWhat can be done\n"
               "  Bring it back:  breakwaterctl undo %s\n",
               id);
}

static int show_message(const struct ctl *ctl, const char *id)
{
    struct ctl_reply r;
    if (isatty(STDOUT_FILENO)) {
        ctl_complain("a stranger's bytes may drive your terminal: write them to a file");
        return CTL_USAGE;
    }
    int rc = get(ctl, arena_printf(ctl->arena, "copies/%s/message", id), &r);
    if (rc == CTL_OK)
        fwrite(r.body.p, 1, r.body.n, stdout);
    ctl_reply_free(&r);
    return rc;
}

int ctl_show(const struct ctl *ctl)
{
    struct ctl_target t;
    struct ctl_reply r;
    char storm[INCIDENT_TEXT], id[ID_TEXT];
    uint64_t copy;
    bool is_copy = id_parse(&copy, span_str(ctl->args[0]));
    if (!is_copy && !incident_parse(span_str(ctl->args[0]), storm)) {
        ctl_complain("\"%s\" is neither the id of a storm (S...) nor of a copy",
                     print_text(ctl->arena, ctl->args[0], 64));
        return CTL_USAGE;
    }
    if (is_copy)
        id_print(copy, id);
    if (is_copy && ctl->message)
        return show_message(ctl, id);
    ctl_target(&t, ctl->arena,
               arena_printf(ctl->arena, is_copy ? "copies/%s" : "storms/%s", is_copy ? id : storm));
    ctl_query(&t, "headers", is_copy && ctl->headers ? "1" : NULL);
    ctl_query(&t, "text", is_copy && ctl->text ? "1" : NULL);
    ctl_query(&t, "node", is_copy ? NULL : ctl->node);
    int rc = ctl_ask(ctl, &t, NULL, &r);
    if (rc == CTL_OK && ctl->json)
        ctl_json(r.json);
    else if (rc == CTL_OK && is_copy)
        print_copy(ctl, r.json);
    else if (rc == CTL_OK)
        print_storm(ctl, r.json);
    if (rc == CTL_OK)
        rc = ctl_silent(ctl, r.json, "what it has in its queue is not counted");
    ctl_reply_free(&r);
    return rc;
}

/* ---- held ---- */

static void add_held_rows(const struct ctl *ctl, struct table *t, const json_t *copies)
{
    for (size_t i = 0; i < json_array_size(copies); i++) {
        const json_t *c = json_array_get(copies, i);
        struct cell *row = table_row(t);
        row[0].text = ctl_text(ctl, c, "id", 0);
        row[1].text = arena_printf(ctl->arena, "%s%s", json_get_str(c, "state"),
                                   json_get_yes(c, "may_be_only") ? "*" : "");
        row[2].text = ctl_time(ctl, c, "arrival");
        row[3].text = sender(ctl, c, ADDRESS_SHOWN);
        row[4].text = ctl_text(ctl, c, "rcpt", ADDRESS_SHOWN);
        row[5].text = ctl_count(ctl, c, "number");
        row[6].text = ctl_text(ctl, c, "storm", 0);
        row[7].text = ctl_text(ctl, c, "subject", SUBJECT_SHOWN);
        if (t->ncolumns > 8)
            row[8].text = ctl_text(ctl, c, "node", 64);
    }
}

static void held_target(const struct ctl *ctl, struct ctl_target *t, const char *after, size_t n)
{
    ctl_target(t, ctl->arena, "held");
    ctl_query(t, "storm", ctl->storm);
    ctl_query(t, "rcpt", ctl->rcpt);
    ctl_query(t, "sender", ctl->sender);
    ctl_query(t, "state", ctl->state);
    ctl_query(t, "rule", ctl->rule);
    ctl_query(t, "since", ctl_since(ctl));
    ctl_query(t, "after", after);
    ctl_query(t, "node", ctl->node);
    ctl_query(t, "limit", arena_printf(ctl->arena, "%zu", n));
}

static void end_held(const struct ctl *ctl, const struct table *t, const char *next)
{
    bool filtered = ctl->storm || ctl->rcpt || ctl->sender || ctl->state || ctl->rule ||
                    ctl->since || ctl->after;
    if (ctl->json)
        return;
    if (t->nrows == 0) {
        puts(filtered ? "Nothing in the hold queue matches." : "The hold queue is empty.");
        return;
    }
    table_print(t, stdout);
    for (size_t r = 0; r < t->nrows; r++)
        if (strchr(t->cells[r * t->ncolumns + 1].text, '*')) {
            puts("* may be the only copy its recipient could get");
            break;
        }
    if (next)
        printf("There are more: add --after %s\n", next);
}

int ctl_held(const struct ctl *ctl)
{
    static const char *const heads[] = {"COPY",    "STATE", "ARRIVED", "SENDER", "RECIPIENT",
                                        ">NUMBER", "STORM", "SUBJECT", NULL,     NULL};
    static const char *const all_heads[] = {"COPY",    "STATE", "ARRIVED", "SENDER", "RECIPIENT",
                                            ">NUMBER", "STORM", "SUBJECT", "NODE",   NULL};
    struct table t;
    struct ctl_reply r;
    int silent = CTL_OK;
    size_t want = ctl->limit ? strtoul(ctl->limit, NULL, 10) : PAGE;
    const char *after = ctl->after;
    int rc = CTL_OK;
    if (!ctl_since_good(ctl))
        return CTL_USAGE;
    table_begin(&t, ctl->arena, ctl->colour, heads);
    for (bool more = true; more && want;) {
        struct ctl_target target;
        size_t n = want < PAGE_MAX ? want : PAGE_MAX;
        held_target(ctl, &target, after, n);
        rc = ctl_ask(ctl, &target, NULL, &r);
        const json_t *copies = json_object_get(r.json, "copies");
        const char *next = json_get_str(r.json, "next");
        if (!t.nrows && json_object_get(r.json, "silent"))
            table_begin(&t, ctl->arena, ctl->colour, all_heads);
        if (rc == CTL_OK && silent == CTL_OK)
            silent = ctl_silent(ctl, r.json, "its copies are not shown");
        if (rc == CTL_OK && ctl->json)
            ctl_json_each(copies);
        else if (rc == CTL_OK)
            add_held_rows(ctl, &t, copies);
        more = rc == CTL_OK && *next;
        after = more ? arena_str(ctl->arena, span_str(next)) : NULL;
        want -= n;
        ctl_reply_free(&r);
    }
    if (rc == CTL_OK)
        end_held(ctl, &t, after);
    return rc == CTL_OK ? silent : rc;
}

/* ---- explain ---- */

static const char *story(const struct ctl *ctl, const json_t *row)
{
    const char *did = json_get_str(row, "disposition"), *advised = json_get_str(row, "advised");
    const char *would = strcmp(did, advised) != 0 && *advised
                            ? arena_printf(ctl->arena, " (enforce: %s)", advised)
                            : "";
    return arena_printf(ctl->arena, "%s%s", did, would);
}

static void print_rows(const struct ctl *ctl, const json_t *rows)
{
    static const char *const heads[] = {"WHEN", "TRANSACTION", "VERDICT", "SENDER",   "RECIPIENT",
                                        "RULE", ">BEFORE",     "STORM",   "QUEUE ID", NULL};
    struct table t;
    table_begin(&t, ctl->arena, ctl->colour, heads);
    if (json_array_size(rows) == 0)
        puts("No verdicts in the journal (it is written within a second).");
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *w = json_array_get(rows, i);
        struct cell *row = table_row(&t);
        row[0].text = ctl_time(ctl, w, "time");
        row[1].text = ctl_text(ctl, w, "tx", 0);
        row[2].text = story(ctl, w);
        row[3].text = sender(ctl, w, ADDRESS_SHOWN);
        row[4].text = ctl_text(ctl, w, "rcpt", ADDRESS_SHOWN);
        row[5].text = ctl_text(ctl, w, "rule", 32);
        row[6].text = ctl_count(ctl, w, "copies");
        row[7].text = ctl_text(ctl, w, "storm", 0);
        row[8].text = ctl_text(ctl, w, "queue_id", 32);
    }
    if (t.nrows)
        table_print(&t, stdout);
}

/* How the further copies among them came about. */
static void print_ways(const struct ctl *ctl, const json_t *rows)
{
    bool first = true;
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *w = json_array_get(rows, i);
        const char *convicted = json_get_str(w, "conviction"), *joined = json_get_str(w, "joined");
        if (!*json_get_str(w, "blamed") && !*joined)
            continue;
        if (first)
            puts("\nHow further copies came");
        first = false;
        printf("  %s for %s: relation %s, brought by %s%s%s (mode %s)\n", ctl_text(ctl, w, "tx", 0),
               ctl_text(ctl, w, "rcpt", 0), ctl_text(ctl, w, "relation", 16),
               ctl_text(ctl, w, "blamed", 0), *convicted ? ", which " : "",
               *convicted ? ctl_text(ctl, w, "conviction", 0) : "", ctl_text(ctl, w, "mode", 16));
        if (*joined)
            printf("    known under another name: %s\n", ctl_text(ctl, w, "joined", 0));
    }
}

/* What became of the copies that were held. */
static void print_fates(const struct ctl *ctl, const json_t *copies)
{
    if (json_array_size(copies))
        puts("\nHeld copies");
    for (size_t i = 0; i < json_array_size(copies); i++) {
        const json_t *c = json_array_get(copies, i);
        const char *state = ctl_text(ctl, c, "state", 16);
        bool over = strcmp(state, "released") == 0 || strcmp(state, "discarded") == 0;
        printf("  %s for %s: %s %s %s", ctl_text(ctl, c, "id", 0), ctl_text(ctl, c, "rcpt", 0),
               state, over ? "on" : "since", ctl_time(ctl, c, "changed"));
        if (*json_get_str(c, "by"))
            printf(", by %s", ctl_text(ctl, c, "by", 64));
        if (*json_get_str(c, "reply"))
            printf("; %s", outcome(ctl, c));
        printf("\n    held because: %s\n", ctl_text(ctl, c, "reason", 0));
    }
}

static void explain_target(const struct ctl *ctl, struct ctl_target *t, const char *since)
{
    uint64_t id;
    const char *arg = ctl->nargs ? ctl->args[0] : NULL;
    bool ours = arg && id_parse(&id, span_str(arg));
    ctl_target(t, ctl->arena, "messages");
    ctl_query(t, ours ? "tx" : "queue_id", arg);
    ctl_query(t, "rcpt", ctl->rcpt);
    ctl_query(t, "from", ctl->from);
    ctl_query(t, "since", since);
    ctl_query(t, "node", ctl->node);
}

int ctl_explain(const struct ctl *ctl)
{
    struct ctl_target t;
    struct ctl_reply r;
    if (!ctl->nargs && !ctl->rcpt && !ctl->from) {
        ctl_complain("explain: say which message: an ID, or --rcpt ADDRESS, or --from ADDRESS");
        return CTL_USAGE;
    }
    if (!ctl_since_good(ctl))
        return CTL_USAGE;
    explain_target(ctl, &t, ctl_since(ctl));
    int rc = ctl_ask(ctl, &t, NULL, &r);
    const json_t *rows = json_object_get(r.json, "rows"),
                 *copies = json_object_get(r.json, "copies"),
                 *refusals = json_object_get(r.json, "refusals");
    if (rc == CTL_OK && ctl->json) {
        ctl_json_each(rows);
        ctl_json_each(refusals);
        ctl_json_each(copies);
    } else if (rc == CTL_OK &&
               json_array_size(rows) + json_array_size(copies) + json_array_size(refusals) == 0) {
        puts("No such message: neither the journal nor the hold queue knows of one. The journal "
             "is written within a second and kept for hold.journal_keep.");
    } else if (rc == CTL_OK) {
        print_rows(ctl, rows);
        if (json_get_yes(r.json, "more"))
            puts("There are more: narrow the search with --since or a second address.");
        print_ways(ctl, rows);
        ctl_tell_refusals(ctl, refusals);
        print_fates(ctl, copies);
    }
    if (rc == CTL_OK)
        rc = ctl_silent(ctl, r.json, "what it knows is not shown");
    ctl_reply_free(&r);
    return rc;
}
