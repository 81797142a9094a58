/*
 * incident_union.c - one storm as several nodes of one past know it.
 *
 *   a message's copies   sum of what each node noted itself, but not less than the largest record:
 *                        the record is one for all nodes, and each of them sees it as of some time
 *   copies               of all messages; passed + tagged + held, as ever
 *
 * Documents come from other nodes: what is missing or odd in one is taken as not said.
 */
#include <stdlib.h>

#include "incident.h"
#include "incident_own.h"

/* What one document says. */
struct told {
    const json_t *j, *members, *memory;
    uint64_t extra; /* only the record tells: of its messages, and of those that had to go */
    uint64_t gone;
};

static void set(json_t *j, const char *name, json_t *value)
{
    json_object_set_new(j, name, value);
}

static void set_count(json_t *j, const char *name, uint64_t n)
{
    set(j, name, json_integer((json_int_t)n));
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

static uint64_t noted_of(const struct told *t, size_t m)
{
    uint64_t copies = json_get_num(json_array_get(t->members, m), "copies");
    const json_t *noted = json_object_get(json_array_get(t->memory, m), "noted");
    uint64_t n = json_is_integer(noted) ? (uint64_t)json_integer_value(noted) : copies;
    return n < copies ? n : copies;
}

static struct told read_told(const json_t *j)
{
    const json_t *memory = json_object_get(j, "memory");
    struct told t = {.j = j,
                     .members = json_object_get(j, "members"),
                     .memory = json_object_get(memory, "members"),
                     .gone = json_get_num(memory, "gone")};
    t.extra = t.gone;
    for (size_t m = 0; m < json_array_size(t.members); m++)
        t.extra += json_get_num(json_array_get(t.members, m), "copies") - noted_of(&t, m);
    return t;
}

/* ---- messages ---- */

/* A message in the union: "members" gets what is shown, beside it what was noted. */
static json_t *one_member(json_t *by_k, const char *k)
{
    json_t *m = json_object_get(by_k, k);
    if (m)
        return m;
    m = json_object();
    json_object_set_new(by_k, k, m);
    return m;
}

static void add_member(json_t *by_k, const struct told *t, size_t n)
{
    const json_t *out = json_array_get(t->members, n);
    const char *k = json_get_str(json_array_get(t->memory, n), "k");
    json_t *m = one_member(by_k, *k ? k : json_get_str(out, "message_id"));
    uint64_t copies = json_get_num(out, "copies"), noted = noted_of(t, n);
    int64_t first = json_ms(json_object_get(out, "first"));
    int64_t known = json_ms(json_object_get(m, "first"));
    if (!*json_get_str(m, "message_id"))
        json_object_set(m, "message_id", json_object_get(out, "message_id"));
    if (!*json_get_str(m, "joined"))
        json_object_set(m, "joined", json_object_get(out, "joined"));
    if (!known || (first && first < known))
        set(m, "first", json_time(first));
    if (copies > json_get_num(m, "record"))
        set_count(m, "record", copies);
    set_count(m, "noted", json_get_num(m, "noted") + noted);
}

/* The list to show; *extra: copies nobody noted himself. */
static json_t *members_of(const struct told *told, size_t n, uint64_t *extra)
{
    json_t *by_k = json_object(), *list = json_array();
    for (size_t i = 0; i < n; i++)
        for (size_t m = 0; m < json_array_size(told[i].members); m++)
            add_member(by_k, &told[i], m);
    for (void *it = json_object_iter(by_k); it; it = json_object_iter_next(by_k, it)) {
        json_t *m = json_object_iter_value(it);
        uint64_t record = json_get_num(m, "record"), noted = json_get_num(m, "noted");
        *extra += less(record, noted);
        set_count(m, "copies", record > noted ? record : noted);
        json_object_del(m, "record");
        json_object_del(m, "noted");
        json_array_append(list, m);
    }
    json_decref(by_k);
    return list;
}

/* ---- counts ---- */

static void add_up(json_t *out, const struct told *told, size_t n, uint64_t extra)
{
    static const char *const sums[] = {"tagged", "deferred", "held", "would_hold"};
    static const char *const largest[] = {"recipients", "visible"};
    uint64_t copies = 0, passed = 0, gone = 0;
    for (size_t i = 0; i < n; i++) {
        copies += less(json_get_num(told[i].j, "copies"), told[i].extra);
        passed += less(json_get_num(told[i].j, "passed"), told[i].extra);
        gone = told[i].gone > gone ? told[i].gone : gone;
    }
    set_count(out, "copies", copies + extra + gone);
    set_count(out, "passed", passed + extra + gone);
    for (size_t k = 0; k < sizeof sums / sizeof *sums; k++) {
        uint64_t sum = 0;
        for (size_t i = 0; i < n; i++)
            sum += json_get_num(told[i].j, sums[k]);
        set_count(out, sums[k], sum);
    }
    for (size_t k = 0; k < sizeof largest / sizeof *largest; k++) {
        uint64_t most = 0;
        for (size_t i = 0; i < n; i++) {
            uint64_t v = json_get_num(told[i].j, largest[k]);
            most = v > most ? v : most;
        }
        set_count(out, largest[k], most);
    }
}

/* ---- words and names ---- */

static void gather_words(json_t *out, const struct told *told, size_t n)
{
    json_t *culprits = json_array(), *evidence = json_array();
    for (size_t i = 0; i < n; i++) {
        const json_t *list = json_object_get(told[i].j, "culprits");
        for (size_t k = 0; k < json_array_size(list); k++)
            incident_blame(culprits, json_array_get(list, k));
        list = json_object_get(told[i].j, "evidence");
        for (size_t k = 0; k < json_array_size(list); k++) {
            json_t *sentence = json_array_get(list, k);
            bool said = json_array_size(evidence) >= SENTENCES;
            for (size_t e = 0; !said && e < json_array_size(evidence); e++)
                said = json_equal(json_array_get(evidence, e), sentence);
            if (!said)
                json_array_append(evidence, sentence);
        }
    }
    set(out, "culprits", incident_blamed(culprits));
    set(out, "evidence", evidence);
}

static json_t *part_json(const struct told *t, const char *node)
{
    json_t *j = json_object();
    set(j, "node", json_text_of(node));
    set_count(j, "copies", less(json_get_num(t->j, "copies"), t->extra));
    set_count(j, "passed", less(json_get_num(t->j, "passed"), t->extra));
    set_count(j, "held", json_get_num(t->j, "held"));
    json_object_set(j, "first", json_object_get(t->j, "first"));
    json_object_set(j, "last", json_object_get(t->j, "last"));
    return j;
}

static int64_t time_of(const struct told *t, const char *name)
{
    return json_ms(json_object_get(t->j, name));
}

/* From whom what is not counted is taken: the first to see it knows best what it was, the last how
 * it stands. */
static void take_times(json_t *out, const struct told *told, size_t n)
{
    const struct told *latest = &told[0];
    int64_t first = time_of(&told[0], "first");
    for (size_t i = 1; i < n; i++) {
        int64_t f = time_of(&told[i], "first");
        first = f && f < first ? f : first;
        if (time_of(&told[i], "last") > time_of(latest, "last"))
            latest = &told[i];
    }
    set(out, "first", json_time(first));
    json_object_set(out, "last", json_object_get(latest->j, "last"));
    json_object_set(out, "without", json_object_get(latest->j, "without"));
    for (size_t i = 0; i < n; i++) {
        json_t *back = json_object_get(told[i].j, "resurfaced");
        if (json_ms(json_object_get(back, "at")) >
            json_ms(json_object_get(json_object_get(out, "resurfaced"), "at")))
            json_object_set(out, "resurfaced", back);
        if (json_get_yes(told[i].j, "storm"))
            set(out, "storm", json_true());
    }
}

static const json_t *first_seen(json_t *const *documents, size_t n)
{
    const json_t *first = documents[0];
    for (size_t i = 1; i < n; i++)
        if (json_ms(json_object_get(documents[i], "first")) <
            json_ms(json_object_get(first, "first")))
            first = documents[i];
    return first;
}

json_t *incident_union(json_t *const *documents, const char *const *nodes, size_t n)
{
    struct told *told = calloc(n, sizeof *told);
    uint64_t extra = 0;
    if (!told)
        abort();
    for (size_t i = 0; i < n; i++)
        told[i] = read_told(documents[i]);
    json_t *out = json_deep_copy(first_seen(documents, n)), *parts = json_array();
    set(out, "members", members_of(told, n, &extra));
    add_up(out, told, n, extra);
    gather_words(out, told, n);
    take_times(out, told, n);
    for (size_t i = 0; i < n; i++)
        json_array_append_new(parts, part_json(&told[i], nodes[i]));
    set(out, "nodes", parts);
    free(told);
    return out;
}
