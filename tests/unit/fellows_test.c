/* fellows_test.c - two desks and the wires between them: questions, answers in pieces, commands
 * that are done once, and what nobody should believe. The fleet is played by carry(). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

#include <event2/thread.h>

#include "fellows.h"
#include "hold_fellow.h"
#include "id.h"

/* A desk, what its handler was asked and what it answers. */
struct side {
    const char *name;
    struct fellows *fellows;
    struct keeper *keeper;
    struct hold *view;
    char dir[64];
    bool shares;
    unsigned asked, storms;
    int status;
    size_t padding; /* bytes of its answers */
    char path[128], who[160], command[ID_TEXT];
};
static struct event_base *base;
static struct mailbox *home;
static struct side a = {.name = "mx1"}, b = {.name = "mx2"};
static bool b_alive;
static struct fellow_answer got[4];
static char got_text[4][64];
static size_t ngot;
static unsigned dones;

static void handle(void *arg, struct http_request *r)
{
    struct side *s = arg;
    s->asked++;
    snprintf(s->path, sizeof s->path, "%s", http_path(r));
    snprintf(s->who, sizeof s->who, "%s", http_who(r));
    snprintf(s->command, sizeof s->command, "%s", http_command(r) ? http_command(r) : "");
    json_t *j = json_object();
    char *pad = calloc(1, s->padding + 1);
    memset(pad, 'x', s->padding);
    json_object_set_new(j, "by", json_string(s->name));
    json_object_set_new(j, "padding", json_string(pad));
    free(pad);
    http_reply(r, s->status, j);
}

static void storm(void *arg, const char *node, json_t *document)
{
    struct side *s = arg;
    (void)node, (void)document;
    s->storms++;
}

static json_t *nodes(void *arg)
{
    (void)arg;
    json_t *list = json_array();
    json_array_append_new(
        list, json_pack("{ss sb sb si}", "name", "mx1", "alive", 1, "shared", 1, "number", 1));
    json_array_append_new(list, json_pack("{ss sb sb si}", "name", "mx2", "alive", (int)b_alive,
                                          "shared", (int)b_alive, "number", 2));
    return list;
}

static void hurry(void *arg)
{
    (void)arg;
}

static bool shares(void *arg)
{
    return ((struct side *)arg)->shares;
}

static void side_open(struct side *s)
{
    char error[512];
    bool damaged;
    strcpy(s->dir, "/tmp/fellows_test.XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    assert_non_null(s->keeper = keeper_start(s->dir, error));
    assert_non_null(s->view = hold_open(s->dir, false, &damaged, error));
    const struct fellows_setup setup = {
        .node = s->name, .number = 1, .arg = s, .nodes = nodes, .hurry = hurry, .shares = shares};
    s->fellows = fellows_new(&setup);
    const struct fellows_desk desk = {.home = home,
                                      .keeper = s->keeper,
                                      .view = s->view,
                                      .handler = handle,
                                      .arg = s,
                                      .storm = storm,
                                      .storm_arg = s};
    fellows_join(s->fellows, &desk);
    s->shares = true;
    s->status = 200;
    s->asked = s->storms = 0;
    s->padding = 0;
}

static void side_close(struct side *s)
{
    static const char *const files[] = {"hold.db", "hold.db-wal", "hold.db-shm"};
    char path[128];
    fellows_leave(s->fellows);
    keeper_stop(&s->keeper);
    mailbox_open(home);
    fellows_free(&s->fellows);
    hold_close(&s->view);
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", s->dir, files[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(s->dir), 0);
}

static int make(void **state)
{
    (void)state;
    assert_non_null(base = event_base_new());
    home = mailbox_new(base);
    b_alive = true;
    dones = 0;
    ngot = 0;
    side_open(&a);
    side_open(&b);
    return 0;
}

static int unmake(void **state)
{
    (void)state;
    side_close(&a);
    side_close(&b);
    mailbox_free(&home);
    event_base_free(base);
    return 0;
}

/* What one side has to tell goes to the other; returns how many batches. */
static unsigned carry(struct side *from, struct side *to, bool past)
{
    unsigned n = 0;
    for (unsigned w = 0; w < FELLOWS_WIRES; w++) {
        void *out, *in;
        const struct fleet_topic *topic = fellows_topic(from->fellows, (enum fellows_wire)w, &out);
        (void)fellows_topic(to->fellows, (enum fellows_wire)w, &in);
        uint8_t *bytes;
        size_t size;
        while ((size = topic->collect(out, false, &bytes))) {
            assert_true(size <= FLEET_BATCH);
            const struct fleet_batch batch = {
                .node = span_str(from->name), .past = past, .bytes = span_of(bytes, size)};
            topic->apply(in, &batch);
            free(bytes);
            n++;
        }
    }
    return n;
}

static void turn(void)
{
    event_base_loop(base, EVLOOP_NONBLOCK);
    event_base_loop(base, EVLOOP_NONBLOCK);
}

static void talk(void)
{
    for (unsigned i = 0; i < 4; i++) {
        carry(&a, &b, false);
        turn();
        carry(&b, &a, false);
        turn();
    }
}

static void done(void *arg, const struct fellow_answer *answers, size_t n)
{
    (void)arg;
    dones++;
    ngot = n;
    for (size_t i = 0; i < n; i++) {
        got[i] = answers[i];
        snprintf(got_text[i], sizeof got_text[i], "%s", json_get_str(answers[i].json, "by"));
        got[i].json = NULL;
        if (answers[i].json)
            b.asked += strlen(json_get_str(answers[i].json, "padding")) != b.padding ? 100 : 0;
    }
}

static void send_one(const char *path, bool command, bool away, int64_t deadline)
{
    json_t *query = json_pack("{ss}", "limit", "5"), *body = json_pack("{ss}", "reason", "r");
    const struct fellow_letter l = {.node = "mx2",
                                    .path = path,
                                    .query = command ? NULL : query,
                                    .body = command ? body : NULL,
                                    .away = away};
    fellows_send(a.fellows, &l, 1, command, "anna", deadline, done, NULL);
    json_decref(query);
    json_decref(body);
}

static void wait_done(void)
{
    for (unsigned i = 0; i < 5000 && !dones; i++) {
        turn();
        usleep(1000);
    }
    assert_int_equal(dones, 1);
}

static void a_question_is_answered_by_the_node_it_is_for(void **state)
{
    (void)state;
    send_one("held", false, false, 60000);
    talk();
    assert_int_equal(dones, 1);
    assert_int_equal(got[0].status, 200);
    assert_string_equal(got_text[0], "mx2");
    assert_string_equal(b.path, "/api/v1/held");
    assert_string_equal(b.who, "anna at mx1");
    assert_string_equal(b.command, "");
    assert_int_equal(b.asked, 1);
    assert_int_equal(a.asked, 0);
}

static void an_answer_larger_than_a_batch_comes_whole(void **state)
{
    static const size_t sizes[] = {1, FLEET_BATCH - 600, FLEET_BATCH, 3 * FLEET_BATCH + 17};
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        b.padding = sizes[i];
        b.asked = dones = 0;
        send_one("held", false, false, 60000);
        talk();
        assert_int_equal(dones, 1);
        assert_int_equal(got[0].status, 200);
        assert_int_equal(b.asked, 1); /* done() adds when it is not whole */
    }
}

static void a_node_that_says_nothing_is_silent(void **state)
{
    (void)state;
    send_one("held", false, false, 20);
    assert_int_equal(carry(&a, &b, true), 1); /* b was not there then */
    wait_done();
    assert_int_equal(got[0].status, FELLOW_SILENT);
    assert_int_equal(b.asked, 0);
}

static void a_node_that_is_away_is_not_waited_for(void **state)
{
    (void)state;
    send_one("held", false, true, 3600000);
    wait_done();
    assert_int_equal(got[0].status, FELLOW_SILENT);
    assert_int_equal(carry(&a, &b, false), 0);
    dones = 0;
    send_one("release", true, true, 3600000);
    assert_int_equal(carry(&a, &b, true), 1); /* but it will read what it is to do */
    wait_done();
    assert_int_equal(got[0].status, FELLOW_SILENT);
    assert_int_equal(b.asked, 1);
}

static void what_cannot_be_told_is_withdrawn(void **state)
{
    (void)state;
    a.shares = false;
    send_one("release", true, false, 20);
    assert_int_equal(carry(&a, &b, false), 0);
    wait_done();
    assert_int_equal(got[0].status, FELLOW_UNTOLD);
    a.shares = true;
    assert_int_equal(carry(&a, &b, false), 0);
}

/* As a change does it, on the keeper thread. */
struct take {
    struct job job; /* must be first */
    char id[ID_TEXT];
    bool done;
};
static int take_run(struct hold *hold, struct job *job)
{
    return hold_command_take(hold, ((struct take *)job)->id, "anna at mx1", 1000);
}
static void take_done(struct job *job)
{
    ((struct take *)job)->done = true;
}

static int take(const char *id)
{
    struct take t = {.job = {.run = take_run, .done = take_done, .home = home}};
    memcpy(t.id, id, sizeof t.id);
    keeper_submit(b.keeper, &t.job);
    for (unsigned i = 0; i < 5000 && !t.done; i++) {
        turn();
        usleep(1000);
    }
    assert_true(t.done);
    return t.job.result;
}

static void a_command_that_was_done_is_not_done_again(void **state)
{
    (void)state;
    void *out, *in;
    const struct fleet_topic *topic = fellows_topic(a.fellows, FELLOWS_DO, &out);
    uint8_t *bytes;
    (void)fellows_topic(b.fellows, FELLOWS_DO, &in);
    send_one("release", true, false, 60000);
    size_t n = topic->collect(out, false, &bytes);
    const struct fleet_batch batch = {
        .node = span_str("mx1"), .past = true, .bytes = span_of(bytes, n)};
    topic->apply(in, &batch);
    turn();
    assert_int_equal(b.asked, 1);
    assert_int_equal(strlen(b.command), ID_TEXT - 1);
    assert_int_equal(take(b.command), 1);
    assert_int_equal(take(b.command), 0);
    topic->apply(in, &batch);
    turn();
    assert_int_equal(b.asked, 1);
    free(bytes);
}

static void a_command_the_disk_did_not_take_is_not_answered(void **state)
{
    (void)state;
    b.status = 503;
    send_one("release", true, false, 20);
    talk();
    wait_done();
    assert_int_equal(b.asked, 1);
    assert_int_equal(got[0].status, FELLOW_SILENT);
}

static void what_is_not_to_be_believed_is_not_done(void **state)
{
    static const struct {
        const char *what, *bytes;
        enum fellows_wire wire;
        unsigned asked;
    } table[] = {
#define ID "\"id\":\"AAAAAAAAAAAAC\",\"until\":99999999999"
        {"a good command", "{" ID ",\"to\":\"mx2\",\"path\":\"undo\",\"body\":{}}", FELLOWS_DO, 1},
        {"for another node", "{" ID ",\"to\":\"mx3\",\"path\":\"undo\",\"body\":{}}", FELLOWS_DO,
         0},
        {"of another path", "{" ID ",\"to\":\"mx2\",\"path\":\"policy/apply\",\"body\":{}}",
         FELLOWS_DO, 0},
        {"of a longer path", "{" ID ",\"to\":\"mx2\",\"path\":\"undo-rule\",\"body\":{}}",
         FELLOWS_DO, 0},
        {"without a body", "{" ID ",\"to\":\"mx2\",\"path\":\"undo\"}", FELLOWS_DO, 0},
        {"whose body is no object", "{" ID ",\"to\":\"mx2\",\"path\":\"undo\",\"body\":[]}",
         FELLOWS_DO, 0},
        {"whose time is over",
         "{\"id\":\"AAAAAAAAAAAAC\",\"until\":1,\"to\":\"mx2\",\"path\":\"undo\",\"body\":{}}",
         FELLOWS_DO, 0},
        {"whose id is none",
         "{\"id\":\"x\",\"until\":99999999999,\"to\":\"mx2\",\"path\":\"undo\",\"body\":{}}",
         FELLOWS_DO, 0},
        {"a good question", "{" ID ",\"to\":\"mx2\",\"path\":\"held\"}", FELLOWS_ASK, 1},
        {"what would be done",
         "{" ID ",\"to\":\"mx2\",\"path\":\"undo\",\"body\":{\"dry_run\":true}}", FELLOWS_ASK, 1},
        {"a question that would do it", "{" ID ",\"to\":\"mx2\",\"path\":\"undo\",\"body\":{}}",
         FELLOWS_ASK, 0},
        {"for the text of a mail",
         "{" ID ",\"to\":\"mx2\",\"path\":\"copies/A\",\"query\":{\"text\":\"1\"}}", FELLOWS_ASK,
         0},
        {"for a whole mail", "{" ID ",\"to\":\"mx2\",\"path\":\"copies/A/message\"}", FELLOWS_ASK,
         0},
        {"no JSON", "{", FELLOWS_ASK, 0},
        {"another JSON", "[]", FELLOWS_DO, 0},
        {"an answer nobody waits for", "{" ID ",\"to\":\"mx2\"}\nx", FELLOWS_ANSWER, 0},
        {"an answer without a line", "x", FELLOWS_ANSWER, 0},
        {"a storm that is none", "1", FELLOWS_STORMS, 0},
#undef ID
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        void *in;
        const struct fleet_topic *topic = fellows_topic(b.fellows, table[i].wire, &in);
        const struct fleet_batch batch = {.node = span_str("mx1"),
                                          .bytes = span_str(table[i].bytes)};
        b.asked = b.storms = 0;
        topic->apply(in, &batch);
        turn();
        if (b.asked != table[i].asked || b.storms)
            fail_msg("%s: asked %u", table[i].what, b.asked);
    }
}

static void of_one_storm_only_the_latest_document_is_told(void **state)
{
    (void)state;
    json_t *one = json_pack("{ss}", "id", "SAAAAAAAA"), *two = json_pack("{ss}", "id", "SBBBBBBBB");
    fellows_tell_storm(a.fellows, one);
    fellows_tell_storm(a.fellows, two);
    fellows_tell_storm(a.fellows, one);
    assert_int_equal(carry(&a, &b, false), 2);
    turn();
    assert_int_equal(b.storms, 2);
    json_decref(one);
    json_decref(two);
}

int main(void)
{
    evthread_use_pthreads();
    const struct CMUnitTest tests[] = {
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, make, unmake)
        CASE(a_question_is_answered_by_the_node_it_is_for),
        CASE(an_answer_larger_than_a_batch_comes_whole),
        CASE(a_node_that_says_nothing_is_silent),
        CASE(a_node_that_is_away_is_not_waited_for),
        CASE(what_cannot_be_told_is_withdrawn),
        CASE(a_command_that_was_done_is_not_done_again),
        CASE(a_command_the_disk_did_not_take_is_not_answered),
        CASE(what_is_not_to_be_believed_is_not_done),
        CASE(of_one_storm_only_the_latest_document_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
