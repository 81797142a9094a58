/* incident_union_test.c - the same storm as two or three nodes tell it. A document is built from a
 * few numbers: what the node noted of its one message, and how large it knew the record to be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "incident.h"

/* One node's view of one message. */
struct view {
    const char *k;
    int noted, record; /* record: 0: none, or smaller than noted */
    int held, gone;
    int first, last;
};

static json_t *document(const struct view *v)
{
    int extra = v->record > v->noted ? v->record - v->noted : 0;
    json_t *j = json_pack(
        "{ss ss sb si si si si si si si si s[{ss si si}] s[{ss sb si sf si si s[s]}] "
        "s{s[{ss si}] si}}",
        "id", "SAAAAAAAA", "from", v->k, "storm", v->held > 0, "first", v->first, "last", v->last,
        "copies", v->noted + extra + v->gone, "passed", v->noted - v->held + extra + v->gone,
        "tagged", 0, "held", v->held, "recipients", v->record, "without", v->last, "members",
        "message_id", v->k, "first", v->first, "copies", v->noted + extra, "culprits", "relay",
        "bad.example", "named", v->held > 0, "copies", v->held, "score", (double)v->held, "since",
        v->first, "until", v->last, "evidence", "seen", "memory", "members", "k", v->k, "noted",
        v->noted, "gone", v->gone);
    assert_non_null(j);
    return j;
}

static const struct {
    const char *what;
    struct view view[3];
    size_t n;
    unsigned copies, held, members, first, last, culprit;
} table[] = {
    {"one node alone", {{"a", 5, 6, 4, 0, 10, 20}}, 1, 6, 4, 1, 10, 20, 4},
    {"the record is of both, and counted once",
     {{"a", 5, 11, 4, 0, 10, 20}, {"a", 5, 11, 5, 0, 12, 30}},
     2,
     11,
     9,
     1,
     10,
     30,
     5},
    {"one of them has seen less of the record",
     {{"a", 5, 11, 4, 0, 10, 20}, {"a", 5, 7, 5, 0, 9, 15}},
     2,
     11,
     9,
     1,
     9,
     20,
     5},
    {"what was noted is more than any of them knows of the record",
     {{"a", 5, 5, 4, 0, 10, 20}, {"a", 6, 6, 5, 0, 9, 15}},
     2,
     11,
     9,
     1,
     9,
     20,
     5},
    {"a node that knows it by the record only",
     {{"a", 5, 6, 4, 0, 10, 20}, {"a", 0, 6, 0, 0, 10, 11}},
     2,
     6,
     4,
     1,
     10,
     20,
     4},
    {"two messages of one storm",
     {{"a", 5, 6, 4, 0, 10, 20}, {"b", 3, 3, 3, 0, 15, 25}},
     2,
     9,
     7,
     2,
     10,
     25,
     4},
    {"copies of messages that had to go are of the record, too",
     {{"a", 5, 6, 4, 7, 10, 20}, {"a", 1, 6, 1, 3, 10, 25}},
     2,
     13,
     5,
     1,
     10,
     25,
     4},
    {"three nodes",
     {{"a", 5, 15, 4, 0, 10, 20}, {"a", 5, 15, 5, 0, 11, 21}, {"a", 4, 15, 4, 0, 12, 22}},
     3,
     15,
     13,
     1,
     10,
     22,
     5},
};

static void counts_are_those_of_all_nodes(void **state)
{
    (void)state;
    static const char *const names[] = {"mx1", "mx2", "mx3"};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        json_t *documents[3];
        for (size_t n = 0; n < table[i].n; n++)
            documents[n] = document(&table[i].view[n]);
        json_t *u = incident_union(documents, names, table[i].n);
        uint64_t copies = json_get_num(u, "copies"), held = json_get_num(u, "held");
        const json_t *culprits = json_object_get(u, "culprits");
        if (copies != table[i].copies || held != table[i].held ||
            json_get_num(u, "passed") != copies - held ||
            json_array_size(json_object_get(u, "members")) != table[i].members ||
            json_ms(json_object_get(u, "first")) != 1000 * (int64_t)table[i].first ||
            json_ms(json_object_get(u, "last")) != 1000 * (int64_t)table[i].last ||
            json_array_size(culprits) != 1 ||
            json_get_num(json_array_get(culprits, 0), "copies") != table[i].culprit ||
            json_array_size(json_object_get(u, "nodes")) != table[i].n || !json_get_yes(u, "storm"))
            fail_msg("%s: %s", table[i].what, json_line(u));
        json_decref(u);
        for (size_t n = 0; n < table[i].n; n++)
            json_decref(documents[n]);
    }
}

static void what_is_odd_is_not_said(void **state)
{
    static const char *const odd[] = {
        "{}",
        "{\"members\":[{\"copies\":-4}],\"memory\":{\"members\":[{\"noted\":9}]}}",
        "{\"copies\":1,\"passed\":0,\"members\":[{\"copies\":3}],\"memory\":{\"members\":[]}}",
        "{\"members\":7,\"memory\":[],\"culprits\":{\"a\":1},\"evidence\":\"x\",\"first\":\"y\"}",
        "{\"members\":[1,[],{}],\"memory\":{\"members\":[1,[],{}]},\"culprits\":[1,{}]}",
        "{\"members\":[1,[],{}],\"memory\":{\"gone\":-1},\"culprits\":[{}]}",
        "{\"copies\":1,\"members\":[{\"copies\":5}],\"memory\":{\"members\":[{\"noted\":-5}]}}",
    };
    static const char *const names[] = {"mx1", "mx2"};
    (void)state;
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        json_t *two[] = {document(&table[0].view[0]), json_loads(odd[i], 0, NULL)};
        json_t *u = incident_union(two, names, 2);
        assert_true(json_get_num(u, "copies") < 100);
        assert_int_equal(json_get_num(u, "held"), 4);
        incident_restate(u, 1000);
        json_decref(u);
        json_decref(two[0]);
        json_decref(two[1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_are_those_of_all_nodes),
        cmocka_unit_test(what_is_odd_is_not_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
