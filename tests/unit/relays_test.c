/* relays_test.c - the table of relays: who gets in, who has to go, what a person's word does, what
 * the store is told, and that all of it outlives the process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/thread.h>

#include "past.h"
#include "relays.h"

enum { SECOND = 1000, HOUR = 3600 * SECOND };
static const int64_t DAY = 24LL * HOUR;
static const int64_t T = 1140000000000; /* February 2006 */
#define SBS "sbs.a.example[192.0.2.9]"

struct bed {
    struct past past;
    struct store *store;
    struct relays *relays;
};

static struct bed *begin_bed(void)
{
    struct bed *b = calloc(1, sizeof *b);
    past_open(&b->past);
    b->store = store_memory_open(&b->past.site, 4 << 20);
    b->relays = relays_new(b->store, &b->past.keys, &standing_defaults);
    return b;
}

static void end_bed(struct bed *b)
{
    relays_free(&b->relays);
    store_close(&b->store);
    past_close(&b->past);
    free(b);
}

/* A convicted and named culprit of one storm: the common case, to be varied. */
static struct relay_note note(const char *relay, int64_t until, uint64_t detours)
{
    return (struct relay_note){.relay = span_str(relay),
                               .incident = "SAAAAAAAA",
                               .began = T,
                               .convicted = true,
                               .named = true,
                               .storm = true,
                               .since = T + 60 * SECOND,
                               .until = until,
                               .detours = detours,
                               .grade = "seen directly",
                               .why = "replays the message to every To: address"};
}

static void take(struct bed *b, struct relay_note n)
{
    relays_note(b->relays, &n, n.until);
}

static json_t *find_row(struct bed *b, const char *relay)
{
    json_t *list = relays_list(b->relays), *found = NULL;
    for (size_t i = 0; i < json_array_size(list); i++)
        if (strcmp(json_get_str(json_array_get(list, i), "relay"), relay) == 0)
            found = json_incref(json_array_get(list, i));
    json_decref(list);
    return found;
}

static void state_is(struct bed *b, const char *relay, const char *state)
{
    json_t *j = find_row(b, relay);
    assert_string_equal(j ? json_get_str(j, "state") : "none", state);
    json_decref(j);
}

static uint64_t number(struct bed *b, const char *relay, const char *member)
{
    json_t *j = find_row(b, relay);
    uint64_t n = json_get_num(j, member);
    json_decref(j);
    return n;
}

static double ask(struct bed *b, struct tally t, int64_t now)
{
    struct tallies q = {.t = &t, .n = 1, .cap = 1};
    struct store_op *op = NULL;
    b->store->ops->tally_read(b->store, &q, now, NULL, NULL, &op);
    return t.answer;
}

static bool known_server(struct bed *b, uint32_t server, int64_t now)
{
    return ask(b, replication_known_tally(server, 0), now) > 0;
}

static bool known(struct bed *b, const char *relay, int64_t now)
{
    return known_server(b, (uint32_t)sip_hash(&b->past.keys, SIP_HOST, span_str(relay)), now);
}

/* Ordinary mail came through a host. */
static void mail(struct bed *b, const char *host, int64_t now)
{
    struct tally t = replication_ordinary_tally(sip_hash(&b->past.keys, SIP_HOST, span_str(host)));
    struct tallies adds = {.t = &t, .n = 1, .cap = 1};
    t.amount = 1;
    b->store->ops->tally_add(b->store, &adds, now);
}

static void say(struct bed *b, const char *relay, bool fixed, int64_t now, const char *refusal)
{
    char error[256] = "";
    int rc = relays_say_fixed(b->relays, span_str(relay), fixed, "anna", "patched", now, error);
    assert_int_equal(rc, refusal ? -1 : 0);
    if (refusal && !strstr(error, refusal))
        fail_msg("\"%s\" has no \"%s\"", error, refusal);
}

/* ---- getting in ---- */

static void only_what_is_named_misbehaves(void **state)
{
    (void)state;
    static const struct {
        bool convicted, named, storm;
        const char *becomes;
    } t[] = {{0, 0, 0, "suspect"},     {1, 0, 0, "suspect"},     {0, 1, 0, "suspect"},
             {0, 0, 1, "suspect"},     {1, 1, 0, "misbehaving"}, {1, 0, 1, "suspect"},
             {0, 1, 1, "misbehaving"}, {1, 1, 1, "misbehaving"}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct bed *b = begin_bed();
        struct relay_note n = note(SBS, T + HOUR, 3);
        n.convicted = t[i].convicted;
        n.named = t[i].named;
        n.storm = t[i].storm;
        take(b, n);
        state_is(b, SBS, t[i].becomes);
        end_bed(b);
    }
}

static void only_a_server_gets_in(void **state)
{
    (void)state;
    static char longest[400];
    static const struct {
        const char *relay, *row;
    } t[] = {{SBS, SBS},
             {"sbs", "sbs"},
             {"perhaps " SBS, SBS},
             {"one of a[192.0.2.1] -> b", NULL},
             {"perhaps ", NULL},
             {"", NULL},
             {longest, NULL}};
    memset(longest, 'x', sizeof longest - 1);
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct bed *b = begin_bed();
        take(b, note(t[i].relay, T + HOUR, 3));
        json_t *list = relays_list(b->relays);
        assert_int_equal(json_array_size(list), t[i].row ? 1 : 0);
        json_decref(list);
        if (t[i].row)
            state_is(b, t[i].row, "misbehaving");
        end_bed(b);
    }
}

static void looking_again_changes_nothing(void **state)
{
    (void)state;
    struct bed *b = begin_bed();
    for (int i = 0; i < 5; i++)
        take(b, note(SBS, T + HOUR, 30));
    assert_int_equal(number(b, SBS, "detours"), 30);
    take(b, note(SBS, T + HOUR + SECOND, 33));
    assert_int_equal(number(b, SBS, "detours"), 33);
    struct relay_note other = note(SBS, T + 2 * HOUR, 5);
    other.incident = "SBBBBBBBB";
    take(b, other);
    assert_int_equal(number(b, SBS, "detours"), 38);
    take(b, note(SBS, T + 3 * HOUR, 2)); /* the first incident forgot, and counts anew */
    assert_int_equal(number(b, SBS, "detours"), 40);
    json_t *j = find_row(b, SBS);
    assert_int_equal(json_array_size(json_object_get(j, "incidents")), 2);
    assert_int_equal(json_ms(json_object_get(j, "first")), T + 60 * SECOND);
    assert_int_equal(json_ms(json_object_get(j, "last")), T + 3 * HOUR);
    json_decref(j);
    end_bed(b);
}

static void who_comes_a_day_later_is_late(void **state)
{
    (void)state;
    struct bed *b = begin_bed();
    struct relay_note n = note(SBS, T + 3 * DAY, 3);
    n.since = T + DAY;
    take(b, n);
    json_t *j = find_row(b, SBS);
    assert_true(json_is_false(json_object_get(j, "late")));
    json_decref(j);
    n = note("new.a.example[192.0.2.10]", T + 3 * DAY, 3);
    n.since = T + DAY + 1;
    take(b, n);
    j = find_row(b, "new.a.example[192.0.2.10]");
    assert_true(json_is_true(json_object_get(j, "late")));
    json_decref(j);
    end_bed(b);
}

/* ---- a person's word ---- */

static void said_fixed_then_mail_then_probation_then_relapse(void **state)
{
    (void)state;
    struct bed *b = begin_bed();
    int64_t now = T + HOUR;
    take(b, note(SBS, now, 3));
    say(b, SBS, false, now, "Nobody has said");
    mail(b, "sbs.a.example", now);
    say(b, SBS, true, now += HOUR, NULL);
    say(b, SBS, true, now, "already");
    relays_tick(b->relays, now);
    take(b, note(SBS, now - 1, 4)); /* it was before the word, but is seen only now */
    state_is(b, SBS, "said-fixed");
    relays_tick(b->relays, now += SECOND);
    state_is(b, SBS, "said-fixed");
    mail(b, "sbs.a.example", now);
    relays_tick(b->relays, now += SECOND);
    state_is(b, SBS, "probation");
    assert_true(known(b, SBS, now));
    take(b, note(SBS, now, 5));
    state_is(b, SBS, "misbehaving");
    assert_int_equal(number(b, SBS, "relapses"), 1);
    end_bed(b);
}

static void a_word_is_taken_back(void **state)
{
    (void)state;
    struct bed *b = begin_bed();
    take(b, note(SBS, T + HOUR, 3));
    say(b, SBS, true, T + 2 * HOUR, NULL);
    say(b, SBS, false, T + 3 * HOUR, NULL);
    state_is(b, SBS, "misbehaving");
    assert_int_equal(number(b, SBS, "relapses"), 0);
    end_bed(b);
}

static void part_of_a_name_is_enough_if_it_is_one(void **state)
{
    (void)state;
    struct bed *b = begin_bed();
    take(b, note(SBS, T + HOUR, 3));
    take(b, note("server.local[192.0.2.10]", T + HOUR, 3));
    take(b, note("server.local[192.0.2.11]", T + HOUR, 3));
    take(b, note("server.local", T + HOUR, 3));
    say(b, "sbs", true, T + 2 * HOUR, "No such relay");
    say(b, "192.0.2.12", true, T + 2 * HOUR, "No such relay");
    say(b, "SERVER.local", true, T + 2 * HOUR, "3 relays");
    say(b, "server.local", true, T + 2 * HOUR, NULL); /* one is called exactly that */
    state_is(b, "server.local", "said-fixed");
    state_is(b, "server.local[192.0.2.10]", "misbehaving");
    say(b, "192.0.2.10", true, T + 2 * HOUR, NULL);
    state_is(b, "server.local[192.0.2.10]", "said-fixed");
    say(b, "Sbs.A.Example", true, T + 2 * HOUR, NULL);
    state_is(b, SBS, "said-fixed");
    end_bed(b);
}

static void only_who_misbehaves_can_be_fixed(void **state)
{
    (void)state;
    struct bed *b = begin_bed();
    struct relay_note n = note(SBS, T + HOUR, 1);
    n.convicted = n.named = false;
    take(b, n);
    say(b, SBS, true, T + 2 * HOUR, "only suspected");
    relays_tick(b->relays, T + 8 * DAY);
    state_is(b, SBS, "clean");
    say(b, SBS, true, T + 8 * DAY, "clean");
    end_bed(b);
}

/* ---- what the store is told ---- */

static void the_known_are_marked_until_they_are_clean(void **state)
{
    (void)state;
    struct bed *b = begin_bed();
    struct relay_note suspect = note("perhaps.a.example", T + HOUR, 1);
    suspect.convicted = suspect.named = false;
    take(b, suspect);
    take(b, note(SBS, T + HOUR, 3));
    assert_false(known(b, SBS, T + HOUR));
    relays_tick(b->relays, T + HOUR);
    assert_true(known(b, SBS, T + HOUR));
    assert_false(known(b, "perhaps.a.example", T + HOUR));
    int64_t now = T + HOUR;
    for (int i = 0; i < 300; i++) /* told again and again, it stays known */
        relays_tick(b->relays, now += 60 * SECOND);
    assert_true(known(b, SBS, now));
    say(b, SBS, true, now, NULL);
    relays_tick(b->relays, now += SECOND);
    mail(b, "sbs.a.example", now);
    relays_tick(b->relays, now += SECOND);
    assert_true(known(b, SBS, now));
    relays_tick(b->relays, now += 30 * DAY);
    state_is(b, SBS, "clean");
    assert_false(known(b, SBS, now));
    end_bed(b);
}

/* ---- bounds ---- */

static void the_table_gives_up_who_matters_least(void **state)
{
    (void)state;
    enum { ROWS = 1024 };
    struct bed *b = begin_bed();
    char name[64];
    for (int i = 0; i < 10; i++) {
        snprintf(name, sizeof name, "bad%d.a.example[192.0.2.%d]", i, i);
        take(b, note(name, T + HOUR, 3));
    }
    say(b, "bad0.a.example", true, T + HOUR, NULL);
    for (int i = 0; i < 3 * ROWS; i++) { /* invented ones */
        snprintf(name, sizeof name, "x%d.a.example", i);
        struct relay_note n = note(name, T + 2 * HOUR + i, 1);
        n.convicted = n.named = false;
        take(b, n);
    }
    json_t *list = relays_list(b->relays);
    assert_int_equal(json_array_size(list), ROWS);
    json_decref(list);
    state_is(b, "bad9.a.example[192.0.2.9]", "misbehaving");
    state_is(b, "x0.a.example", "none");
    state_is(b, "x3071.a.example", "suspect");
    for (int i = 0; i < 2 * ROWS; i++) { /* convicted ones */
        snprintf(name, sizeof name, "y%d.a.example", i);
        take(b, note(name, T + 3 * HOUR + i, 1));
    }
    struct relay_note n = note("z.a.example", T + DAY, 1);
    n.convicted = n.named = false;
    take(b, n);
    state_is(b, "z.a.example", "none");
    state_is(b, "bad0.a.example[192.0.2.0]", "said-fixed");
    state_is(b, "y2047.a.example", "misbehaving");
    end_bed(b);
}

/* ---- the disk ---- */

struct disk {
    struct bed *bed;
    char dir[64];
    struct event_base *base;
    struct mailbox *home;
    struct keeper *keeper;
};

static void begin_disk(struct disk *d)
{
    char error[512];
    evthread_use_pthreads();
    d->bed = begin_bed();
    strcpy(d->dir, "/tmp/relays_test.XXXXXX");
    assert_non_null(mkdtemp(d->dir));
    d->base = event_base_new();
    d->home = mailbox_new(d->base);
    d->keeper = keeper_start(d->dir, error);
    assert_non_null(d->keeper);
}

static void end_disk(struct disk *d)
{
    char command[128];
    keeper_stop(&d->keeper);
    mailbox_free(&d->home);
    event_base_free(d->base);
    snprintf(command, sizeof command, "rm -rf %s", d->dir);
    assert_int_equal(system(command), 0);
    end_bed(d->bed);
}

static int nothing(struct hold *h, struct job *j)
{
    (void)h, (void)j;
    return 0;
}

static bool back;
static void is_back(struct job *j)
{
    (void)j;
    back = true;
}

/* Saves, and waits until all that was asked for has been done. */
static void save(struct disk *d)
{
    struct job last = {.run = nothing, .done = is_back, .home = d->home};
    back = false;
    relays_save(d->bed->relays, d->keeper, d->home);
    keeper_submit(d->keeper, &last);
    while (!back)
        event_base_loop(d->base, EVLOOP_ONCE);
}

static int count_row(void *arg, const char *name, const char *document)
{
    (void)name, (void)document;
    ++*(size_t *)arg;
    return 0;
}

static struct hold *open_view(struct disk *d)
{
    char error[512];
    bool damaged;
    struct hold *view = hold_open(d->dir, false, &damaged, error);
    assert_non_null(view);
    return view;
}

static size_t rows_on_disk(struct disk *d)
{
    size_t n = 0;
    struct hold *view = open_view(d);
    assert_int_equal(hold_each_relay(view, 100000, count_row, &n), 0);
    hold_close(&view);
    return n;
}

static void restart(struct disk *d)
{
    struct bed *b = d->bed;
    relays_free(&b->relays);
    store_close(&b->store);
    b->store = store_memory_open(&b->past.site, 4 << 20);
    b->relays = relays_new(b->store, &b->past.keys, &standing_defaults);
    struct hold *view = open_view(d);
    assert_int_equal(relays_load(b->relays, view), 0);
    hold_close(&view);
}

/* What a snapshot would keep: at most 4 documents. */
struct shelf {
    char name[4][160];
    char text[4][2000];
    size_t n;
};

static int put_text(void *to, struct span name, struct span text)
{
    struct shelf *s = to;
    assert_true(s->n < 4 && text.n < sizeof s->text[0]);
    snprintf(s->name[s->n], sizeof s->name[0], "%.*s", SPAN_ARG(name));
    snprintf(s->text[s->n++], sizeof s->text[0], "%.*s", SPAN_ARG(text));
    return 0;
}

static void they_can_be_as_they_were(void **state)
{
    (void)state;
    struct disk d;
    struct shelf shelf = {.n = 0};
    begin_disk(&d);
    const struct snapshot_texts *texts = relays_texts(d.bed->relays);
    take(d.bed, note(SBS, T + HOUR, 30));
    save(&d);
    json_t *before = find_row(d.bed, SBS);
    texts->each(texts->arg, put_text, &shelf);
    assert_int_equal(shelf.n, 1);
    take(d.bed, note("innocent.example[192.0.2.99]", T + 2 * HOUR, 50)); /* by a wrong rule, say */
    struct relay_note other = note(SBS, T + 2 * HOUR, 90);
    other.incident = "SBBBBBBBB";
    take(d.bed, other);
    save(&d);
    assert_int_equal(rows_on_disk(&d), 2);
    texts->begin(texts->arg);
    for (size_t i = 0; i < shelf.n; i++)
        texts->take(texts->arg, span_str(shelf.name[i]), span_str(shelf.text[i]));
    texts->take(texts->arg, SPAN("broken"), SPAN("{\"state\":"));
    texts->end(texts->arg);
    json_t *after = find_row(d.bed, SBS);
    assert_true(json_equal(before, after));
    json_decref(before);
    json_decref(after);
    state_is(d.bed, "innocent.example[192.0.2.99]", "none");
    save(&d);
    assert_int_equal(rows_on_disk(&d), 1);
    restart(&d);
    state_is(d.bed, SBS, "misbehaving");
    end_disk(&d);
}

static void a_restart_forgets_nothing(void **state)
{
    (void)state;
    struct disk d;
    begin_disk(&d);
    take(d.bed, note(SBS, T + HOUR, 30));
    struct relay_note other = note(SBS, T + 2 * HOUR, 5);
    other.incident = "SBBBBBBBB";
    take(d.bed, other);
    save(&d);
    say(d.bed, SBS, true, T + 3 * HOUR, NULL);
    save(&d);
    json_t *before = find_row(d.bed, SBS);
    restart(&d);
    json_t *after = find_row(d.bed, SBS);
    assert_true(json_equal(before, after));
    json_decref(before);
    json_decref(after);
    relays_tick(d.bed->relays, T + 4 * HOUR);
    assert_true(known(d.bed, SBS, T + 4 * HOUR));
    mail(d.bed, "sbs.a.example", T + 4 * HOUR);
    relays_tick(d.bed->relays, T + 4 * HOUR + SECOND);
    state_is(d.bed, SBS, "probation");
    take(d.bed, note(SBS, T + 2 * HOUR, 30)); /* what was seen before is no news */
    state_is(d.bed, SBS, "probation");
    assert_int_equal(number(d.bed, SBS, "detours"), 35);
    take(d.bed, note(SBS, T + 5 * HOUR, 31));
    state_is(d.bed, SBS, "misbehaving");
    assert_int_equal(number(d.bed, SBS, "detours"), 36);
    end_disk(&d);
}

/* Its name may be what it calls itself, and not what its id was made of. */
static void a_server_is_known_by_its_id_whatever_it_is_called(void **state)
{
    (void)state;
    struct disk d;
    begin_disk(&d);
    struct relay_note n = note(SBS, T + HOUR, 30);
    n.server = 4711;
    take(d.bed, n);
    for (int life = 0; life < 2; life++) {
        relays_tick(d.bed->relays, T + 2 * HOUR);
        assert_true(known_server(d.bed, 4711, T + 2 * HOUR));
        assert_false(known(d.bed, SBS, T + 2 * HOUR));
        save(&d);
        restart(&d);
    }
    say(d.bed, SBS, true, T + 3 * HOUR, NULL);
    relays_tick(d.bed->relays, T + 3 * HOUR);
    relays_blame(d.bed->relays, 4712, T + 4 * HOUR);
    state_is(d.bed, SBS, "said-fixed");
    relays_blame(d.bed->relays, 4711, T + 4 * HOUR);
    state_is(d.bed, SBS, "misbehaving");
    end_disk(&d);
}

static void the_disk_has_what_the_table_has(void **state)
{
    (void)state;
    struct disk d;
    char name[64];
    begin_disk(&d);
    for (int i = 0; i < 1500; i++) {
        snprintf(name, sizeof name, "y%d.a.example", i);
        take(d.bed, note(name, T + 3 * HOUR + i, 1));
        if (i % 500 == 499)
            save(&d);
    }
    assert_int_equal(rows_on_disk(&d), 1024);
    take(d.bed, note("y0.a.example", T + DAY, 1)); /* pushed out, and back */
    save(&d);
    restart(&d);
    assert_int_equal(rows_on_disk(&d), 1024);
    state_is(d.bed, "y0.a.example", "misbehaving");
    for (int64_t days = 0; days < 802; days += 100)
        relays_tick(d.bed->relays, T + days * DAY); /* silent: clean, then nothing */
    save(&d);
    assert_int_equal(rows_on_disk(&d), 0);
    end_disk(&d);
}

static void a_word_is_on_disk_before_it_counts(void **state)
{
    (void)state;
    struct bed *b = begin_bed();
    char error[256], *name = NULL, *document = NULL;
    take(b, note(SBS, T + HOUR, 30));
    assert_int_equal(relays_ask_fixed(b->relays, SPAN("192.0.2.9"), true, "anna", "patched",
                                      T + 2 * HOUR, &name, &document, error),
                     0);
    state_is(b, SBS, "misbehaving");
    assert_string_equal(name, SBS);
    assert_non_null(strstr(document, "\"state\":\"said-fixed\""));
    assert_non_null(strstr(document, "\"by\":\"anna\""));
    free(name);
    free(document);
    end_bed(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_what_is_named_misbehaves),
        cmocka_unit_test(only_a_server_gets_in),
        cmocka_unit_test(looking_again_changes_nothing),
        cmocka_unit_test(who_comes_a_day_later_is_late),
        cmocka_unit_test(said_fixed_then_mail_then_probation_then_relapse),
        cmocka_unit_test(a_word_is_taken_back),
        cmocka_unit_test(part_of_a_name_is_enough_if_it_is_one),
        cmocka_unit_test(only_who_misbehaves_can_be_fixed),
        cmocka_unit_test(the_known_are_marked_until_they_are_clean),
        cmocka_unit_test(the_table_gives_up_who_matters_least),
        cmocka_unit_test(they_can_be_as_they_were),
        cmocka_unit_test(a_restart_forgets_nothing),
        cmocka_unit_test(a_server_is_known_by_its_id_whatever_it_is_called),
        cmocka_unit_test(the_disk_has_what_the_table_has),
        cmocka_unit_test(a_word_is_on_disk_before_it_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
