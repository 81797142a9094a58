/* incident_test.c - storms in memory: what opens one, what joins one, what a document says, bounds,
 * and that a restart knows them all again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/thread.h>

#include "incident.h"
#include "log.h"

enum { HOUR = 3600 * 1000 };
static const int64_t DAY = 24 * (int64_t)HOUR;
static const int64_t T = 1140000000000; /* February 2006 */

static struct key key_of(uint32_t n)
{
    struct key k = {{0}};
    memcpy(k.byte, &n, sizeof n);
    k.byte[11] = 1;
    return k;
}

/* A storm's note: the common case, to be varied. */
static struct incident_note note(uint32_t k)
{
    return (struct incident_note){.k = key_of(k),
                                  .now = T,
                                  .passed = 1,
                                  .held = 3,
                                  .recipients_visible = 630,
                                  .from = SPAN("sales@a.example"),
                                  .subject = SPAN("offer")};
}

/* Notes it; the events it told. */
static unsigned noted(struct incidents *t, const struct incident_note *n)
{
    struct incident_news news = {0};
    return incidents_note(t, n, &news) ? news.events : 0;
}

enum {
    OPENED = 1 << INCIDENT_OPENED,
    JOINED = 1 << INCIDENT_JOINED,
    STORM = 1 << INCIDENT_STORM,
    RESURFACED = 1 << INCIDENT_RESURFACED
};

/* A store that knows one message. */
static struct report known;
static bool knows;
static bool answer(struct store *s, const struct key *k, struct arena *a, struct report *out)
{
    (void)s;
    (void)k;
    (void)a;
    *out = known;
    return knows;
}
static const struct store_ops ops = {.name = "test", .report = answer};
static struct store store = {&ops};

static void id_of(uint32_t k, char out[INCIDENT_TEXT])
{
    struct key key = key_of(k);
    incident_print(&key, out);
}

static json_t *read_document(struct incidents *t, uint32_t k, int64_t now)
{
    char id[INCIDENT_TEXT];
    id_of(k, id);
    return incident_document(t, id, now);
}

static void what_opens(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        struct incident_note n;
        bool opens;
    } cases[] = {
        {"further copies that pass open nothing", {.passed = 5}, false},
        {"tagged ones neither", {.tagged = 5}, false},
        {"a held copy does", {.held = 1}, true},
        {"one that would be held does, in monitor mode", {.passed = 1, .would_hold = 1}, true},
        {"a storm does, though all copies pass", {.passed = 1, .storm = true}, true},
        {"an alarm does, though nothing is held",
         {.kind = INCIDENT_REPLYALL, .about = 7, .passed = 1, .alert = true},
         true},
        {"evidence alone does not",
         {.kind = INCIDENT_LOOP, .passed = 1, .evidence = "a b a"},
         false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct incidents *t = incidents_new(NULL, NULL);
        struct incident_note n = cases[i].n;
        n.k = key_of(1);
        n.now = T;
        char id[INCIDENT_TEXT] = "";
        if (incidents_place(t, &n, id) != cases[i].opens || (*id != 0) != cases[i].opens)
            fail_msg("placed: %s", cases[i].name);
        if (incidents_open(t, T) != 0) /* not shown before it is counted */
            fail_msg("shown: %s", cases[i].name);
        if (((noted(t, &n) & OPENED) != 0) != cases[i].opens ||
            incidents_open(t, T) != cases[i].opens)
            fail_msg("%s", cases[i].name);
        incidents_free(&t);
    }
}

static void news_once(void **state)
{
    (void)state;
    struct incidents *t = incidents_new(NULL, NULL);
    struct incident_note n = note(1);
    assert_int_equal(noted(t, &n), OPENED);
    assert_int_equal(noted(t, &n), 0);
    n.storm = true;
    assert_int_equal(noted(t, &n), STORM);
    assert_int_equal(noted(t, &n), 0);
    incidents_free(&t);
    assert_null(t);
}

static void a_document_adds_up(void **state)
{
    (void)state;
    struct incidents *t = incidents_new(NULL, NULL);
    struct incident_note n = note(7);
    noted(t, &n);
    n.now += 5000;
    n.subject = SPAN("another subject must not replace the first");
    noted(t, &n);
    json_t *j = read_document(t, 7, T + 6000);
    assert_string_equal(json_get_str(j, "kind"), "replication");
    assert_string_equal(json_get_str(j, "subject"), "offer");
    assert_int_equal(json_get_num(j, "copies"), 8);
    assert_int_equal(json_get_num(j, "held"), 6);
    assert_int_equal(json_get_num(j, "visible"), 630);
    assert_int_equal(json_ms(json_object_get(j, "first")), T);
    assert_int_equal(json_ms(json_object_get(j, "last")), T + 5000);
    assert_int_equal(json_array_size(json_object_get(j, "culprits")), 0);
    json_decref(j);
    assert_null(read_document(t, 8, T));
    incidents_free(&t);
}

static void a_flood_names_its_relay(void **state)
{
    (void)state;
    struct incidents *t = incidents_new(NULL, NULL);
    struct incident_note n = {.k = key_of(1),
                              .kind = INCIDENT_FLOOD,
                              .about = 7,
                              .now = T,
                              .passed = 2,
                              .alert = true,
                              .relay = SPAN("mail.a.example[192.0.2.1]"),
                              .evidence = "40 messages a minute where 2 are usual"};
    char id[INCIDENT_TEXT];
    assert_true(incidents_place(t, &n, id));
    for (int named = 0; named < 2; named++) {
        noted(t, &n);
        json_t *j = incident_document(t, id, T);
        const json_t *list = json_object_get(j, "culprits"), *c = json_array_get(list, 0);
        assert_int_equal(json_array_size(list), 1);
        assert_string_equal(json_get_str(c, "relay"), "mail.a.example[192.0.2.1]");
        assert_string_equal(json_get_str(c, "grade"), "seen directly");
        assert_string_equal(json_string_value(json_array_get(json_object_get(c, "evidence"), 0)),
                            n.evidence);
        assert_int_equal(json_get_yes(c, "named"), named);
        assert_int_equal(json_get_num(c, "copies"), 2);
        assert_int_equal(json_get_num(j, "copies"), 2); /* deferred ones come again */
        assert_int_equal(json_get_num(j, "deferred"), 5 * named);
        json_decref(j);
        n.passed = 0;
        n.deferred = 5;
        n.named = true;
        n.now++;
    }
    incidents_free(&t);
}

static void states_follow_the_last_copy(void **state)
{
    (void)state;
    static const struct {
        int64_t later;
        const char *state;
        size_t open;
    } cases[] = {
        {0, "open", 1},           {HOUR - 1, "open", 1},
        {HOUR, "quiet", 0},       {24 * HOUR - 1, "quiet", 0},
        {24 * HOUR, "closed", 0}, {-HOUR, "open", 1}, /* a clock that ran back */
    };
    struct incidents *t = incidents_new(NULL, NULL);
    struct incident_note n = note(1);
    noted(t, &n);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *j = read_document(t, 1, T + cases[i].later);
        assert_string_equal(json_get_str(j, "state"), cases[i].state);
        assert_int_equal(incidents_open(t, T + cases[i].later), cases[i].open);
        json_object_set_new(j, "state", json_string("stale"));
        incident_restate(j, T + cases[i].later);
        assert_string_equal(json_get_str(j, "state"), cases[i].state);
        json_decref(j);
    }
    incidents_free(&t);
}

static void the_store_is_merged_and_outlived(void **state)
{
    (void)state;
    const char *evidence[] = {"1", "2", "3", "4"};
    static const uint8_t names[] = "abcdefghijklmnopqrstuvwxyz";
    struct culprit culprits[CULPRITS_MAX];
    for (size_t i = 0; i < CULPRITS_MAX; i++)
        culprits[i] = (struct culprit){.relay = span_of(names + i, 1),
                                       .named = i == 0,
                                       .score = 14.04,
                                       .detours = 504,
                                       .grade = "seen directly",
                                       .evidence = evidence,
                                       .nevidence = 4};
    known = (struct report){.first = T - 9000,
                            .copies = 4769,
                            .passed = 6,
                            .recipients = 3,
                            .without = 1,
                            .storm = true,
                            .culprits = culprits,
                            .nculprits = CULPRITS_MAX};
    struct incidents *t = incidents_new(&store, NULL);
    struct incident_note n = note(1);
    noted(t, &n);
    for (knows = true;; knows = false) { /* the second time the store has forgotten */
        json_t *j = read_document(t, 1, T);
        json_t *list = json_object_get(j, "culprits"), *c = json_array_get(list, 0);
        assert_int_equal(json_get_num(j, "recipients"), 3);
        assert_int_equal(json_get_num(j, "without"), 1);
        assert_int_equal(json_array_size(list), CULPRITS_MAX);
        assert_true(json_get_yes(c, "named"));
        assert_int_equal(json_get_num(c, "copies"), 504);
        assert_int_equal(json_array_size(json_object_get(c, "evidence")), 4);
        assert_true(json_is_null(json_object_get(c, "conviction")));
        assert_int_equal(json_get_num(j, "copies"), 4769);
        assert_int_equal(json_get_num(j, "copies"), json_get_num(j, "passed") +
                                                        json_get_num(j, "tagged") +
                                                        json_get_num(j, "held"));
        json_decref(j);
        if (!knows)
            break;
    }
    incidents_free(&t);
}

static void hostile_text_is_still_json(void **state)
{
    (void)state;
    struct incidents *t = incidents_new(NULL, NULL);
    struct incident_note n = note(1);
    char longer[5000];
    memset(longer, 0xc3, sizeof longer);
    n.subject = span_of(longer, sizeof longer);
    n.from = SPAN("\"\\\x1b[2J\xff\xc0\x80\xed\xa0\x80\xf5\n");
    noted(t, &n);
    json_t *j = read_document(t, 1, T);
    char *text = json_line(j);
    json_t *again = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(again);
    assert_null(strchr(text, '\n'));
    assert_null(strchr(text, 0x1b));
    assert_true(strlen(text) < 4096);
    json_decref(again);
    free(text);
    json_decref(j);
    incidents_free(&t);
}

static void evidence_is_bounded_and_distinct(void **state)
{
    (void)state;
    struct incidents *t = incidents_new(NULL, NULL);
    struct incident_note n = note(1);
    n.kind = INCIDENT_LOOP;
    for (int i = 0; i < 100; i++) {
        char sentence[32];
        snprintf(sentence, sizeof sentence, "turn %d", i / 10);
        n.evidence = sentence;
        noted(t, &n);
    }
    json_t *j = read_document(t, 1, T);
    json_t *list = json_object_get(j, "evidence");
    assert_int_equal(json_array_size(list), 5); /* room is kept for the figures of detectors */
    assert_string_equal(json_string_value(json_array_get(list, 4)), "turn 4");
    json_decref(j);
    incidents_free(&t);
}

static void a_loop_that_hands_out_copies_is_replication(void **state)
{
    (void)state;
    static const struct {
        enum incident_kind first, second;
        const char *kind;
    } cases[] = {
        {INCIDENT_LOOP, INCIDENT_LOOP, "loop"},
        {INCIDENT_LOOP, INCIDENT_REPLICATION, "replication"},
        {INCIDENT_REPLICATION, INCIDENT_LOOP, "replication"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct incidents *t = incidents_new(NULL, NULL);
        struct incident_note n = note(1);
        n.kind = cases[i].first;
        noted(t, &n);
        n.kind = cases[i].second;
        noted(t, &n);
        json_t *j = read_document(t, 1, T);
        assert_string_equal(json_get_str(j, "kind"), cases[i].kind);
        json_decref(j);
        incidents_free(&t);
    }
}

/* ---- joining ---- */

/* The first message of a storm, with all that others may be joined by. */
static struct incidents *joinable(void)
{
    static const struct incident_server convicted[] = {{.id = 0xbad}};
    struct incidents *t = incidents_new(NULL, NULL);
    struct incident_note n = note(1);
    n.storm = true;
    n.content = 0xc0;
    n.own = 0x11;
    n.visible = 0x630;
    n.convicted = convicted;
    n.nconvicted = 1;
    assert_int_equal(noted(t, &n), OPENED | STORM);
    return t;
}

static const uint64_t to_first[] = {0x99, 0x11}, to_others[] = {0x99, 0x98};
static const struct incident_server guilty[] = {{.id = 0x600d}, {.id = 0xbad}},
                                    innocent[] = {{.id = 0x600d}};
static const struct joins {
    const char *name;
    int64_t later; /* than the storm's last copy */
    enum incident_kind kind;
    uint64_t content, visible;
    const uint64_t *reference;
    const struct incident_server *server, *convicted;
    bool passes; /* all copies pass and nothing alarms */
    bool joins;
} joins[] = {
    {"nothing in common is a storm of its own", .later = 0},
    {"the same content", .content = 0xc0, .joins = true},
    {"the same content after 28 days", .later = 28 * 24 * (int64_t)HOUR, .content = 0xc0,
     .joins = true},
    {"another content", .content = 0xc1},
    {"a copy by the server convicted there", .server = guilty, .joins = true},
    {"one that convicts the same server", .convicted = guilty, .joins = true},
    {"a copy by another server", .server = innocent},
    {"by that server within 7 days", .later = 7 * 24 * (int64_t)HOUR, .server = guilty,
     .joins = true},
    {"by that server after 7 days", .later = 7 * 24 * (int64_t)HOUR + 1, .server = guilty},
    {"the same recipients", .visible = 0x630, .joins = true},
    {"the same recipients within 7 days", .later = 7 * 24 * (int64_t)HOUR, .visible = 0x630,
     .joins = true},
    {"the same recipients after 7 days", .later = 7 * 24 * (int64_t)HOUR + 1, .visible = 0x630},
    {"other recipients", .visible = 0x631},
    {"an answer", .reference = to_first, .joins = true},
    {"an answer to others", .reference = to_others},
    {"an answer after 7 days", .later = 7 * 24 * (int64_t)HOUR + 1, .reference = to_first},
    {"a loop that answers", .kind = INCIDENT_LOOP, .reference = to_first, .joins = true},
    {"two machines are a case of their own", .kind = INCIDENT_PINGPONG, .content = 0xc0,
     .visible = 0x630, .reference = to_first},
    {"a relay that floods as well", .kind = INCIDENT_FLOOD, .content = 0xc0, .server = guilty},
    {"an answer that passes belongs to none", .reference = to_first, .passes = true},
};

static void check_join(struct incidents *t, const struct joins *c, uint32_t k)
{
    char id[INCIDENT_TEXT] = "", own[INCIDENT_TEXT], first[INCIDENT_TEXT];
    struct incident_note n = {.k = key_of(k),
                              .kind = c->kind,
                              .now = T + c->later,
                              .held = !c->passes,
                              .content = c->content,
                              .visible = c->visible,
                              .reference = c->reference,
                              .nreferences = c->reference ? 2 : 0,
                              .server = c->server,
                              .nservers = c->server ? (c->server == guilty ? 2 : 1) : 0,
                              .convicted = c->convicted,
                              .nconvicted = c->convicted ? 2 : 0};
    id_of(1, first);
    id_of(k, own);
    bool placed = incidents_place(t, &n, id);
    if (placed == c->passes || strcmp(id, c->passes ? "" : c->joins ? first : own) != 0)
        fail_msg("%s: %s", c->name, id);
}

static void what_joins(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof joins / sizeof *joins; i++) {
        struct incidents *t = joinable();
        check_join(t, &joins[i], 2);
        incidents_free(&t);
    }
}

/* The one message a rule has held comes again: a storm of its own. Of several they stay the rule's.
 */
static void what_a_rule_holds_is_one_incident(void **state)
{
    (void)state;
    for (uint32_t messages = 1; messages <= 2; messages++) {
        struct incidents *t = incidents_new(NULL, NULL);
        char first[INCIDENT_TEXT], id[INCIDENT_TEXT], next[INCIDENT_TEXT];
        struct incident_note n = {.k = key_of(1),
                                  .kind = INCIDENT_RULE,
                                  .about = 42,
                                  .now = T,
                                  .held = 1,
                                  .evidence = "Rule x."};
        incidents_place(t, &n, first);
        noted(t, &n);
        n.k = key_of(2);
        if (messages == 2)
            noted(t, &n);
        struct incident_note again = {
            .k = key_of(1), .kind = INCIDENT_REPLICATION, .now = T + 1, .held = 5};
        incidents_place(t, &again, id);
        assert_string_equal(id, first);
        noted(t, &again);
        json_t *j = incident_document(t, id, T + 1);
        assert_string_equal(json_get_str(j, "kind"), messages == 1 ? "replication" : "rule");
        json_decref(j);
        n.k = key_of(3);
        incidents_place(t, &n, next);
        assert_int_equal(strcmp(next, first) == 0, messages == 2);
        incidents_free(&t);
    }
}

static void a_conversation_is_one_incident(void **state)
{
    (void)state;
    static const enum incident_kind kinds[] = {INCIDENT_REPLYALL, INCIDENT_PINGPONG, INCIDENT_FLOOD,
                                               INCIDENT_RULE};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct incidents *t = incidents_new(NULL, NULL);
        char id[INCIDENT_TEXT], other[INCIDENT_TEXT];
        for (uint32_t k = 1; k <= 3; k++) {
            char figures[32];
            snprintf(figures, sizeof figures, "%u replies", k);
            struct incident_note n = {.k = key_of(k),
                                      .kind = kinds[i],
                                      .about = 42,
                                      .now = T + k,
                                      .held = k,
                                      .evidence = figures,
                                      .alert = true};
            incidents_place(t, &n, id);
            assert_int_equal(noted(t, &n), k == 1 ? OPENED : 0);
            n.k = key_of(100 + k);
            n.about = 43;
            incidents_place(t, &n, other);
            assert_string_not_equal(id, other);
        }
        json_t *j = incident_document(t, id, T);
        json_t *said = json_object_get(j, "evidence");
        assert_int_equal(json_get_num(j, "held"), 6);
        bool adds = kinds[i] == INCIDENT_RULE; /* others replace their figures by the latest */
        assert_int_equal(json_array_size(said), adds ? 3 : 1);
        assert_string_equal(json_string_value(json_array_get(said, adds ? 2 : 0)), "3 replies");
        assert_int_equal(json_array_size(json_object_get(j, "members")),
                         kinds[i] == INCIDENT_FLOOD ? 0 : 3);
        json_decref(j);
        incidents_free(&t);
    }
}

static void a_reply_all_storm_belongs_to_the_replication_storm(void **state)
{
    (void)state;
    struct incidents *t = joinable();
    struct incident_note n = {.k = key_of(2),
                              .kind = INCIDENT_REPLYALL,
                              .about = 42,
                              .now = T + 1,
                              .passed = 630,
                              .alert = true,
                              .reference = to_first,
                              .nreferences = 2,
                              .evidence = "20 people answered everybody"};
    assert_int_equal(noted(t, &n), JOINED);
    n.k = key_of(3); /* another answer, which does not say to what */
    n.nreferences = 0;
    assert_int_equal(noted(t, &n), 0);
    json_t *j = read_document(t, 1, T);
    assert_string_equal(json_get_str(j, "kind"), "replication");
    assert_int_equal(json_get_num(j, "copies"), 4 + 1260);
    assert_int_equal(json_array_size(json_object_get(j, "members")), 3);
    char *text = json_line(json_object_get(j, "evidence"));
    assert_non_null(strstr(text, "20 people answered everybody"));
    assert_non_null(strstr(text, "it answers a message of this storm"));
    free(text);
    json_decref(j);
    incidents_free(&t);
}

static void members_are_bounded(void **state)
{
    (void)state;
    struct incidents *t = joinable();
    char id[INCIDENT_TEXT], first[INCIDENT_TEXT];
    id_of(1, first);
    for (uint32_t k = 2; k <= 200; k++) {
        struct incident_note n = note(k);
        n.content = 0xc0;
        n.own = k;
        noted(t, &n);
    }
    json_t *j = read_document(t, 1, T);
    assert_int_equal(json_array_size(json_object_get(j, "members")), 64);
    assert_int_equal(json_get_num(j, "copies"), 4 * 200);
    json_decref(j);
    const struct {
        uint32_t k;
        bool known;
    } cases[] = {{1, true}, {2, false}, {137, false}, {138, true}, {200, true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct incident_note n = {.k = key_of(cases[i].k), .now = T};
        assert_int_equal(incidents_place(t, &n, id), cases[i].known);
        if (cases[i].known)
            assert_string_equal(id, first);
    }
    incidents_free(&t);
}

static void a_storm_that_comes_back_is_resurfaced(void **state)
{
    (void)state;
    static const struct {
        int64_t after;
        const char *state, *slept;
    } cases[] = {
        {DAY - 1, "open", NULL},
        {DAY, "resurfaced", "24 hours"},
        {47 * (int64_t)HOUR, "resurfaced", "47 hours"},
        {2 * DAY, "resurfaced", "2 days"},
        {28 * DAY, "resurfaced", "28 days"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct incidents *t = joinable();
        struct incident_note n = note(1);
        char id[INCIDENT_TEXT];
        n.now += cases[i].after;
        incidents_place(t, &n, id);
        struct incident_news news;
        assert_true(incidents_note(t, &n, &news));
        assert_int_equal(news.events, cases[i].slept ? RESURFACED : 0);
        if (cases[i].slept)
            assert_string_equal(news.slept, cases[i].slept);
        assert_int_equal(noted(t, &n), 0); /* told once */
        json_t *j = read_document(t, 1, n.now), *r = json_object_get(j, "resurfaced");
        assert_string_equal(json_get_str(j, "state"), cases[i].state);
        if (cases[i].slept)
            assert_string_equal(json_get_str(r, "after"), cases[i].slept);
        json_decref(j);
        j = read_document(t, 1, n.now + 2 * DAY); /* stays marked */
        assert_string_equal(json_get_str(j, "state"), "closed");
        assert_int_equal(json_is_object(json_object_get(j, "resurfaced")), cases[i].slept != NULL);
        json_decref(j);
        incidents_free(&t);
    }
    struct incidents *t = incidents_new(NULL, NULL); /* only the store knew of it */
    struct incident_note n = note(1);
    n.storm = true;
    n.rested = 28 * DAY;
    assert_int_equal(noted(t, &n), OPENED | STORM | RESURFACED);
    n.k = key_of(2);
    n.storm = false; /* somebody sends an old mail once more */
    assert_int_equal(noted(t, &n), OPENED);
    incidents_free(&t);
}

/* ---- culprits ---- */

/* What a store says of each message. */
static struct report of_message[4];
static bool answer_each(struct store *s, const struct key *k, struct arena *a, struct report *out)
{
    (void)s;
    (void)a;
    *out = of_message[k->byte[0]];
    return out->copies > 0;
}
static const struct store_ops each_ops = {.name = "test", .report = answer_each};
static struct store each_store = {&each_ops};

static void culprits_of_several_messages_are_merged(void **state)
{
    (void)state;
    struct culprit first[] = {
        {.relay = SPAN("a[192.0.2.1]"),
         .named = true,
         .score = 9,
         .detours = 10,
         .since = T + 1,
         .until = T + 500,
         .grade = "claimed by one relay only"},
        {.relay = SPAN("perhaps b"), .score = 2, .detours = 3, .since = T + 2, .until = T + 3},
    };
    struct culprit second[] = {
        {.relay = SPAN("c[192.0.2.3]"),
         .named = true,
         .score = 7,
         .detours = 4,
         .since = T + DAY + 1,
         .until = T + DAY + 2},
        {.relay = SPAN("a[192.0.2.1]"),
         .named = true,
         .score = 11,
         .detours = 5,
         .since = T + 400,
         .until = T + 900,
         .grade = "seen directly"},
    };
    memset(of_message, 0, sizeof of_message);
    of_message[1] = (struct report){
        .first = T, .copies = 40, .recipients = 3, .without = 1, .culprits = first, .nculprits = 2};
    of_message[2] = (struct report){.first = T + 300,
                                    .copies = 30,
                                    .recipients = 2,
                                    .without = 2,
                                    .culprits = second,
                                    .nculprits = 2};
    struct incidents *t = incidents_new(&each_store, NULL);
    struct incident_note n = note(1);
    n.content = 1;
    noted(t, &n);
    n.k = key_of(2);
    n.now = T + DAY + 5;
    noted(t, &n);
    json_t *j = read_document(t, 1, T), *c = json_object_get(j, "culprits");
    assert_int_equal(json_get_num(j, "copies"), 70);
    assert_int_equal(json_get_num(j, "recipients"), 3);
    assert_int_equal(json_get_num(j, "without"), 3);
    assert_int_equal(json_array_size(c), 3);
    static const struct {
        const char *relay;
        uint64_t copies;
        int64_t since, until;
        bool named, late;
    } want[] = {{"a[192.0.2.1]", 15, 1, 900, true, false},
                {"c[192.0.2.3]", 4, 24 * HOUR + 1, 24 * HOUR + 2, true, true},
                {"perhaps b", 3, 2, 3, false, false}};
    for (size_t i = 0; i < 3; i++) {
        const json_t *one = json_array_get(c, i);
        assert_string_equal(json_get_str(one, "relay"), want[i].relay);
        assert_int_equal(json_get_num(one, "copies"), want[i].copies);
        assert_int_equal(json_ms(json_object_get(one, "since")), T + want[i].since);
        assert_int_equal(json_ms(json_object_get(one, "until")), T + want[i].until);
        assert_int_equal(json_get_yes(one, "named"), want[i].named);
        assert_int_equal(json_get_yes(one, "late"), want[i].late);
    }
    assert_string_equal(json_get_str(json_array_get(c, 0), "grade"), "seen directly");
    json_decref(j);
    /* Another wave, of which the store knows one server only: those of the first stay named. */
    n.now = T + 28 * DAY;
    noted(t, &n);
    of_message[1].nculprits = 0;
    second[0] = (struct culprit){.relay = SPAN("d[192.0.2.4]"),
                                 .named = true,
                                 .score = 20,
                                 .detours = 8,
                                 .since = n.now,
                                 .until = n.now};
    of_message[2].nculprits = 1;
    j = read_document(t, 1, n.now);
    c = json_object_get(j, "culprits");
    assert_int_equal(json_array_size(c), 3);
    assert_string_equal(json_get_str(json_array_get(c, 0), "relay"), "d[192.0.2.4]");
    assert_true(json_get_yes(json_array_get(c, 0), "late"));
    json_decref(j);
    /* Within the wave the store may find that it was somebody else: nobody stays named for it. */
    second[0].relay = SPAN("e[192.0.2.5]");
    j = read_document(t, 1, n.now);
    c = json_object_get(j, "culprits");
    assert_int_equal(json_array_size(c), 3);
    assert_string_equal(json_get_str(json_array_get(c, 0), "relay"), "e[192.0.2.5]");
    json_decref(j);
    incidents_free(&t);
}

static void the_table_is_bounded(void **state)
{
    (void)state;
    struct incidents *t = incidents_new(NULL, NULL);
    incidents_limit(t, 256);
    for (uint32_t k = 0; k < 300; k++) {
        struct incident_note n = note(k);
        n.storm = k == 2;
        n.now = T + (k == 0 ? 1000 : k);
        noted(t, &n);
    }
    json_t *list = incidents_list(t, T);
    assert_int_equal(json_array_size(list), 256);
    assert_int_equal(incidents_forgotten(t), 44);
    int64_t before = INT64_MAX;
    for (size_t i = 0; i < json_array_size(list); i++) {
        int64_t last = json_ms(json_object_get(json_array_get(list, i), "last"));
        assert_true(last <= before);
        before = last;
    }
    json_decref(list);
    json_t *kept = read_document(t, 0, T); /* the oldest, but not the longest quiet */
    assert_non_null(kept);
    json_decref(kept);
    kept = read_document(t, 2, T); /* a storm */
    assert_non_null(kept);
    json_decref(kept);
    assert_null(read_document(t, 1, T));
    incidents_free(&t);
}

/* ---- saving ---- */

struct saving {
    char dir[64];
    struct event_base *base;
    struct mailbox *home;
    struct keeper *keeper;
};

static int begin(void **state)
{
    struct saving *s = calloc(1, sizeof *s);
    char error[512];
    evthread_use_pthreads();
    strcpy(s->dir, "/tmp/incident_test.XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    s->base = event_base_new();
    s->home = mailbox_new(s->base);
    s->keeper = keeper_start(s->dir, error);
    assert_non_null(s->keeper);
    *state = s;
    return 0;
}

static int end(void **state)
{
    struct saving *s = *state;
    char command[128];
    keeper_stop(&s->keeper);
    mailbox_free(&s->home);
    event_base_free(s->base);
    snprintf(command, sizeof command, "rm -rf %s", s->dir);
    int rc = system(command);
    free(s);
    return rc;
}

static int nothing(struct hold *h, struct job *j)
{
    (void)h;
    (void)j;
    return 0;
}

static bool back;
static void is_back(struct job *j)
{
    (void)j;
    back = true;
}

/* Saves, and waits until all that was asked for has been done. */
static void save_all(struct saving *s, struct incidents *t, int64_t now)
{
    struct job last = {.run = nothing, .done = is_back, .home = s->home};
    back = false;
    incidents_save(t, s->keeper, s->home, now);
    keeper_submit(s->keeper, &last);
    while (!back)
        event_base_loop(s->base, EVLOOP_ONCE);
}

static int collect(void *arg, const char *id, const char *json)
{
    json_object_set_new(arg, id, json_loads(json, 0, NULL));
    return 0;
}

static json_t *saved(struct saving *s)
{
    char error[512];
    bool damaged;
    struct hold *view = hold_open(s->dir, false, &damaged, error);
    assert_non_null(view);
    json_t *all = json_object();
    assert_int_equal(hold_each_incident(view, 0, SIZE_MAX, collect, all), 0);
    hold_close(&view);
    return all;
}

static void only_changed_ones_are_saved(void **state)
{
    struct saving *s = *state;
    struct keeper_figures before, after;
    struct incidents *t = incidents_new(NULL, NULL);
    struct incident_note n = note(1);
    noted(t, &n);
    save_all(s, t, T);
    json_t *all = saved(s);
    assert_int_equal(json_object_size(all), 1);
    json_decref(all);
    keeper_figures(s->keeper, &before);
    save_all(s, t, T);
    keeper_figures(s->keeper, &after);
    assert_int_equal(after.jobs, before.jobs + 1); /* the one that waits */
    incidents_free(&t);
}

/* A new process on the same disk. */
static struct incidents *restart(struct saving *s, struct incidents *t, int64_t now)
{
    char error[512];
    bool damaged;
    save_all(s, t, now);
    incidents_free(&t);
    struct hold *view = hold_open(s->dir, false, &damaged, error);
    assert_non_null(view);
    t = incidents_new(NULL, NULL);
    assert_int_equal(incidents_load(t, view, now), 0);
    hold_close(&view);
    return t;
}

static void a_restart_takes_the_past_in(void **state)
{
    struct saving *s = *state;
    char id[INCIDENT_TEXT];
    id_of(1, id);
    struct incidents *t = incidents_new(NULL, NULL);
    for (int life = 1; life <= 3; life++) {
        struct incident_note n = note(1);
        n.now = T + life * 28 * DAY;
        n.storm = life == 1;
        assert_int_equal(noted(t, &n), life == 1 ? OPENED | STORM : RESURFACED);
        noted(t, &n);
        t = restart(s, t, n.now);
        json_t *all = saved(s), *j = json_object_get(all, id), *now = read_document(t, 1, n.now);
        json_object_del(j, "memory"); /* people are not shown that */
        assert_true(json_equal(j, now));
        assert_int_equal(json_get_num(j, "held"), 6 * life);
        assert_int_equal(json_ms(json_object_get(j, "first")), T + 28 * DAY);
        assert_int_equal(json_ms(json_object_get(j, "last")), n.now);
        assert_true(json_get_yes(j, "storm"));
        json_decref(all);
        json_decref(now);
    }
    incidents_free(&t);
}

/* All a joined message was found by is found again, whichever process it was told to. */
static void a_restart_keeps_the_one_id(void **state)
{
    struct saving *s = *state;
    struct incidents *t = joinable();
    struct incident_note second = note(2);
    second.now += HOUR;
    second.content = 0xc0;
    second.own = 0x77;
    assert_int_equal(noted(t, &second), JOINED);
    t = restart(s, t, second.now);
    for (size_t i = 0; i < sizeof joins / sizeof *joins; i++)
        if (joins[i].joins) /* they share one table here */
            check_join(t, &joins[i], (uint32_t)i + 10);
    struct incident_note answer = note(3);
    answer.now += HOUR;
    answer.reference = &second.own;
    answer.nreferences = 1;
    char id[INCIDENT_TEXT], first[INCIDENT_TEXT];
    id_of(1, first);
    assert_true(incidents_place(t, &second, id));
    assert_string_equal(id, first);
    assert_true(incidents_place(t, &answer, id));
    assert_string_equal(id, first);
    incidents_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_opens),
        cmocka_unit_test(news_once),
        cmocka_unit_test(a_document_adds_up),
        cmocka_unit_test(a_flood_names_its_relay),
        cmocka_unit_test(states_follow_the_last_copy),
        cmocka_unit_test(the_store_is_merged_and_outlived),
        cmocka_unit_test(hostile_text_is_still_json),
        cmocka_unit_test(evidence_is_bounded_and_distinct),
        cmocka_unit_test(a_loop_that_hands_out_copies_is_replication),
        cmocka_unit_test(what_joins),
        cmocka_unit_test(what_a_rule_holds_is_one_incident),
        cmocka_unit_test(a_conversation_is_one_incident),
        cmocka_unit_test(a_reply_all_storm_belongs_to_the_replication_storm),
        cmocka_unit_test(members_are_bounded),
        cmocka_unit_test(a_storm_that_comes_back_is_resurfaced),
        cmocka_unit_test(culprits_of_several_messages_are_merged),
        cmocka_unit_test(the_table_is_bounded),
        cmocka_unit_test_setup_teardown(only_changed_ones_are_saved, begin, end),
        cmocka_unit_test_setup_teardown(a_restart_takes_the_past_in, begin, end),
        cmocka_unit_test_setup_teardown(a_restart_keeps_the_one_id, begin, end),
    };
    log_open("stderr", LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
