/* http_test.c - the desk on its control socket, with a real keeper and hold database: guards,
 * routes, changes, two people at once, start and stop. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/thread.h>

#include "ctl_client.h"
#include "desk.h"

static const int64_t T = 1740000000000;
static char storm[INCIDENT_TEXT];
static const char message[] = "From: j@a.example\r\nSubject: offer\r\n\r\nbuy\r\n.\r\n";

struct house {
    char dir[64], socket[96];
    struct config *config;
    struct pipeline pipeline;
    struct desk *desk;
    struct arena *arena;
    uint64_t next;
};

/* ---- a house with a desk ---- */

static struct key the_key(void)
{
    return (struct key){{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}};
}

static void start(struct house *h)
{
    char error[512];
    h->pipeline.keeper = keeper_start(h->dir, error);
    assert_non_null(h->pipeline.keeper);
    h->pipeline.incidents = incidents_new(h->pipeline.store, &h->config->site);
    bool damaged;
    struct hold *view = hold_open(h->dir, false, &damaged, error);
    assert_non_null(view);
    assert_int_equal(incidents_load(h->pipeline.incidents, view, clock_now()), 0);
    hold_close(&view);
    h->desk = desk_start(h->config, &h->pipeline, NULL, error);
    if (!h->desk)
        fail_msg("%s", error);
}

static void stop(struct house *h)
{
    desk_stop(&h->desk);
    assert_null(h->desk);
    keeper_stop(&h->pipeline.keeper);
    incidents_free(&h->pipeline.incidents);
}

static int begin(void **state)
{
    struct house *h = calloc(1, sizeof *h);
    struct key k = the_key();
    strcpy(h->dir, "/tmp/http_test.XXXXXX");
    assert_non_null(mkdtemp(h->dir));
    snprintf(h->socket, sizeof h->socket, "%s/control", h->dir);
    incident_print(&k, storm);
    h->config = config_builtin();
    h->config->hold_path = h->dir;
    h->config->control_socket = h->socket;
    h->config->control_mode = 0600;
    h->config->release_to = (char *)(uintptr_t) "127.0.0.1:1"; /* nobody answers */
    h->pipeline.store = store_none_open();
    h->pipeline.figures = figures_new(h->config);
    h->pipeline.days = days_new(h->pipeline.figures);
    h->arena = arena_new();
    h->next = id_next(1, T);
    start(h);
    *state = h;
    return 0;
}

static int end(void **state)
{
    struct house *h = *state;
    char command[128];
    if (h->desk)
        stop(h);
    store_close(&h->pipeline.store);
    days_free(&h->pipeline.days);
    figures_free(&h->pipeline.figures);
    config_drop(&h->config);
    arena_free(&h->arena);
    snprintf(command, sizeof command, "rm -rf %s", h->dir);
    int rc = system(command);
    free(h);
    return rc;
}

/* ---- mail to be held ---- */

struct put {
    struct job job; /* must be first */
    struct held_mail mail;
    _Atomic bool over;
};

static int put_run(struct hold *hold, struct job *job)
{
    return hold_put(hold, &((struct put *)job)->mail);
}

static void put_done(struct job *job)
{
    atomic_store(&((struct put *)job)->over, true);
}

/* Holds one mail for n recipients r0@b.example ...; returns the first copy's id, the rest follow.
 */
static uint64_t hold_mail(struct house *h, size_t n, bool first, enum relation relation)
{
    struct held_copy copies[16] = {0};
    uint64_t id = h->next;
    for (size_t i = 0; i < n; i++) {
        char *rcpt = arena_printf(h->arena, "r%zu@b.example", i);
        copies[i] = (struct held_copy){.id = id + 1 + i,
                                       .rcpt = span_str(rcpt),
                                       .rcpt_hash = 1000 + i,
                                       .relation = (uint8_t)relation,
                                       .number = 2,
                                       .first = first};
    }
    h->next += n + 1;
    struct body *body = body_new(NULL, 1 << 20, 1 << 24);
    body_add(body, SPAN("buy\r\n.\r\n"));
    body_seal(body);
    struct put p = {.job = {.run = put_run, .done = put_done},
                    .mail = {.id = id,
                             .arrival = T,
                             .door = SPAN("milter"),
                             .client = SPAN("192.0.2.7"),
                             .reversepath = SPAN("j@a.example"),
                             .k = the_key(),
                             .incident = span_str(storm),
                             .rule = SPAN("duplicate"),
                             .reason = SPAN("copy 2"),
                             .from = SPAN("j@a.example"),
                             .subject = SPAN("of\xff\x1b[2Jfer"),
                             .head = span_of(message, sizeof message - 1 - 8),
                             .body = body,
                             .copies = copies,
                             .ncopies = n}};
    keeper_submit(h->pipeline.keeper, &p.job);
    while (!atomic_load(&p.over))
        usleep(1000);
    assert_int_equal(p.job.result, 0);
    body_drop(&body);
    return id + 1;
}

static const char *id_text(struct house *h, uint64_t id)
{
    char text[ID_TEXT];
    id_print(id, text);
    return arena_str(h->arena, span_str(text));
}

/* ---- asking ---- */

/* Asks and returns the status; the JSON of the answer in *out (to be freed) if not NULL. */
static int ask(struct house *h, const char *path, const char *body, json_t **out)
{
    struct ctl_target t;
    struct ctl_reply r;
    json_t *j = body ? json_loads(body, 0, NULL) : NULL;
    assert_true(!body || j);
    ctl_target(&t, h->arena, path);
    ctl_call(h->socket, &t, j, &r);
    int status = r.status;
    if (out)
        *out = json_incref(r.json);
    ctl_reply_free(&r);
    json_decref(j);
    return status;
}

static json_t *ask_ok(struct house *h, const char *path, const char *body)
{
    json_t *j = NULL;
    int status = ask(h, path, body, &j);
    if (status != 200 || !j)
        fail_msg("%s: %d %s", path, status, json_get_str(j, "detail"));
    return j;
}

/* How many copies are in a state, as /held tells. */
static size_t in_state(struct house *h, const char *state)
{
    json_t *j = ask_ok(h, arena_printf(h->arena, "held?limit=1000&state=%s", state), NULL);
    size_t n = json_array_size(json_object_get(j, "copies"));
    json_decref(j);
    return n;
}

static uint64_t post(struct house *h, const char *path, const char *body)
{
    json_t *j = ask_ok(h, path, body);
    uint64_t changed = json_get_num(j, "changed");
    json_decref(j);
    return changed;
}

/* Bytes as they are; returns the status of the reply, 0: none. */
static int ask_raw(struct house *h, const char *bytes, size_t n)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct timeval wait = {20, 0};
    char reply[4096];
    size_t got = 0;
    ssize_t r;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0), status = 0;
    strcpy(un.sun_path, h->socket);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    assert_int_equal(connect(fd, (struct sockaddr *)&un, sizeof un), 0);
    (void)!send(fd, bytes, n, MSG_NOSIGNAL);
    shutdown(fd, SHUT_WR);
    while (got < sizeof reply - 1 && (r = recv(fd, reply + got, sizeof reply - 1 - got, 0)) > 0)
        got += (size_t)r;
    close(fd);
    reply[got] = '\0';
    return sscanf(reply, "HTTP/1.%*d %d", &status) == 1 ? status : 0;
}

/* ---- tests ---- */

static void guards(void **state)
{
    struct house *h = *state;
    static const struct {
        const char *name, *request;
        int status;
    } cases[] = {
        {"a plain request", "GET /api/v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
         200},
        {"HTTP/1.0 needs no Host", "GET /api/v1/mode HTTP/1.0\r\n\r\n", 200},
        {"HTTP/1.1 does", "GET /api/v1/mode HTTP/1.1\r\n\r\n", 400},
        {"two Hosts", "GET /api/v1/mode HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400},
        {"two different lengths",
         "POST /api/v1/undo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n"
         "{} ",
         400},
        {"the same length twice",
         "POST /api/v1/undo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\ncontent-length: "
         "2\r\n\r\n{}",
         400},
        {"both framings",
         "POST /api/v1/undo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: "
         "chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
         400},
        {"a length of a gigabyte",
         "POST /api/v1/undo HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n", 413},
        {"a negative length", "POST /api/v1/undo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
         400},
        {"a change by GET", "GET /api/v1/release HTTP/1.0\r\n\r\n", 405},
        {"a look by POST", "POST /api/v1/status HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}", 405},
        {"DELETE", "DELETE /api/v1/mode HTTP/1.0\r\n\r\n", 405},
        {"not ours", "GET / HTTP/1.0\r\n\r\n", 404},
        {"dots", "GET /api/v1/../../etc/passwd HTTP/1.0\r\n\r\n", 404},
        {"written dots", "GET /api/v1/%2e%2e/status HTTP/1.0\r\n\r\n", 404},
        {"two slashes", "GET /api/v1//status HTTP/1.0\r\n\r\n", 404},
        {"a trailing slash", "GET /api/v1/status/ HTTP/1.0\r\n\r\n", 404},
        {"a NUL in the path", "GET /api/v1/status%00 HTTP/1.0\r\n\r\n", 404},
        {"a NUL in the query", "GET /api/v1/held?rcpt=a%00b HTTP/1.0\r\n\r\n", 400},
        {"a parameter nobody knows", "GET /api/v1/held?recipient=a HTTP/1.0\r\n\r\n", 400},
        {"a parameter twice", "GET /api/v1/held?rcpt=a&rcpt=b HTTP/1.0\r\n\r\n", 400},
        {"a parameter without a value", "GET /api/v1/held?rcpt HTTP/1.0\r\n\r\n", 400},
        {"limit 0", "GET /api/v1/held?limit=0 HTTP/1.0\r\n\r\n", 400},
        {"limit 1", "GET /api/v1/held?limit=1 HTTP/1.0\r\n\r\n", 200},
        {"limit 1000", "GET /api/v1/held?limit=1000 HTTP/1.0\r\n\r\n", 200},
        {"limit 1001", "GET /api/v1/held?limit=1001 HTTP/1.0\r\n\r\n", 400},
        {"limit 1e3", "GET /api/v1/held?limit=1e3 HTTP/1.0\r\n\r\n", 400},
        {"limit 2^64+1", "GET /api/v1/held?limit=18446744073709551617 HTTP/1.0\r\n\r\n", 400},
        {"a state there is none of", "GET /api/v1/held?state=gone HTTP/1.0\r\n\r\n", 400},
        {"a storm's id that is none", "GET /api/v1/held?storm=42 HTTP/1.0\r\n\r\n", 400},
        {"the null sender", "GET /api/v1/held?sender=%3c%3e HTTP/1.0\r\n\r\n", 200},
        {"an id of another alphabet", "GET /api/v1/copies/1e9 HTTP/1.0\r\n\r\n", 404},
        {"a negative id", "GET /api/v1/copies/-1 HTTP/1.0\r\n\r\n", 404},
        {"2^63 as an id", "GET /api/v1/copies/9223372036854775808 HTTP/1.0\r\n\r\n", 404},
        {"an id nobody has", "GET /api/v1/copies/AAAAAAAAAAAAA HTTP/1.0\r\n\r\n", 404},
        {"its message", "GET /api/v1/copies/AAAAAAAAAAAAA/message HTTP/1.0\r\n\r\n", 404},
        {"a storm nobody knows", "GET /api/v1/storms/SAAAAAAAA HTTP/1.0\r\n\r\n", 404},
        {"a search for nothing", "GET /api/v1/messages HTTP/1.0\r\n\r\n", 400},
        {"a time that is none", "GET /api/v1/messages?rcpt=a&since=now HTTP/1.0\r\n\r\n", 400},
        {"a good search", "GET /api/v1/messages?rcpt=a&since=1140000000 HTTP/1.0\r\n\r\n", 200},
        {"no HTTP", "EHLO there\r\n\r\n", 400},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int status = ask_raw(h, cases[i].request, strlen(cases[i].request));
        if (status != cases[i].status)
            fail_msg("%s: %d, not %d", cases[i].name, status, cases[i].status);
    }
}

/* A request with a header of n bytes beside the usual, or a body of n blanks in an object. */
static int ask_large(struct house *h, size_t header, size_t body)
{
    char *fill = malloc(header + body + 512);
    assert_non_null(fill);
    int n = sprintf(fill, "POST /api/v1/undo HTTP/1.0\r\nContent-Length: %zu\r\nX: ", body);
    memset(fill + n, 'x', header);
    n += (int)header;
    n += sprintf(fill + n, "\r\n\r\n");
    memset(fill + n, ' ', body);
    fill[n] = '{';
    fill[n + (int)body - 1] = '}';
    int status = ask_raw(h, fill, (size_t)n + body);
    free(fill);
    return status;
}

static void sizes(void **state)
{
    struct house *h = *state;
    assert_int_equal(ask_large(h, 10, 64 << 10), 400); /* read, but an empty object */
    assert_int_equal(ask_large(h, 10, (64 << 10) + 1), 413);
    assert_int_equal(ask_large(h, 15 << 10, 2), 400);
    assert_int_equal(ask_large(h, 17 << 10, 2), 400);
}

static void chunks_are_counted_together(void **state)
{
    struct house *h = *state;
    enum { CHUNK = 4096, CHUNKS = 17 };
    static char request[CHUNKS * (CHUNK + 16) + 256];
    int n = sprintf(request, "POST /api/v1/undo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                             "Transfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < CHUNKS; i++)
        n += sprintf(request + n, "1000\r\n%*s\r\n", CHUNK, "");
    n += sprintf(request + n, "0\r\n\r\n");
    assert_int_equal(ask_raw(h, request, (size_t)n), 413);
}

static void bodies(void **state)
{
    struct house *h = *state;
    hold_mail(h, 2, true, REL_FIRST);
    static const struct {
        const char *name, *path, *body;
        int status;
    } cases[] = {
        {"nothing", "release", "", 400},
        {"no object", "release", "[]", 400},
        {"no JSON", "release", "{\"ids\":[NaN]}", 400},
        {"a member twice", "release", "{\"all\":true,\"all\":false,\"storm\":\"@\"}", 400},
        {"broken UTF-8", "release", "{\"rcpt\":\"\xff\"}", 400},
        {"a NUL", "release", "{\"rcpt\":\"a\\u0000b\"}", 400},
        {"behind the object", "release", "{} x", 400},
        {"nobody named", "release", "{}", 400},
        {"no ids", "release", "{\"ids\":[]}", 400},
        {"numbers for ids", "release", "{\"ids\":[1]}", 400},
        {"a float for an id", "release", "{\"ids\":[\"1e9\"]}", 400},
        {"digits of another script", "release", "{\"ids\":[\"\xd9\xa1\xd9\xa2\"]}", 400},
        {"ids and a storm", "release", "{\"ids\":[\"AAAAAAAAAAAAA\"],\"storm\":\"@\"}", 400},
        {"a storm, but which copies?", "release", "{\"storm\":\"@\"}", 400},
        {"both kinds", "release", "{\"storm\":\"@\",\"all\":true,\"one_per_recipient\":true}", 400},
        {"one each without a storm", "release",
         "{\"rcpt\":\"r0@b.example\",\"one_per_recipient\":true}", 400},
        {"a misspelt dry_run", "release", "{\"storm\":\"@\",\"all\":true,\"dryrun\":true}", 400},
        {"dry_run as a text", "release", "{\"storm\":\"@\",\"all\":true,\"dry_run\":\"true\"}",
         400},
        {"a storm without copies", "release", "{\"storm\":\"SAAAAAAAA\",\"all\":true}", 404},
        {"no reason", "discard", "{\"storm\":\"@\",\"all\":true}", 400},
        {"an empty reason", "discard", "{\"storm\":\"@\",\"all\":true,\"reason\":\"\"}", 400},
        {"one each for the bin", "discard",
         "{\"storm\":\"@\",\"one_per_recipient\":true,\"reason\":\"x\"}", 400},
        {"undo of a storm", "undo", "{\"storm\":\"@\"}", 400},
        {"no mode", "mode", "{\"reason\":\"x\"}", 400},
        {"a mode there is none of", "mode", "{\"mode\":\"off\",\"reason\":\"x\"}", 400},
        {"a mode without a reason", "mode", "{\"mode\":\"enforce\"}", 400},
        {"same for all", "mode", "{\"mode\":\"same\",\"reason\":\"x\"}", 400},
        {"the mode of no name", "mode", "{\"mode\":\"enforce\",\"reason\":\"x\",\"only\":\"\"}",
         400},
        {"the mode of an unknown listener", "mode",
         "{\"mode\":\"enforce\",\"reason\":\"x\",\"only\":\"nowhere\"}", 404},
        {"a listener of copies", "undo", "{\"ids\":[\"0000000000000\"],\"only\":\"main\"}", 400},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char body[512] = "", request[1024];
        const char *at =
            strchr(cases[i].body, '@'); /* stands for the storm, unless in an address */
        if (at && at[1] == '"')
            snprintf(body, sizeof body, "%.*s%s%s", (int)(at - cases[i].body), cases[i].body, storm,
                     at + 1);
        else
            snprintf(body, sizeof body, "%s", cases[i].body);
        int n = snprintf(request, sizeof request,
                         "POST /api/v1/%s HTTP/1.0\r\nContent-Length: %zu\r\n\r\n%s", cases[i].path,
                         strlen(body), body);
        int status = ask_raw(h, request, (size_t)n);
        if (status != cases[i].status)
            fail_msg("%s: %d, not %d", cases[i].name, status, cases[i].status);
    }
    assert_int_equal(in_state(h, "held"), 2);
    assert_int_equal(h->pipeline.mode, MODE_MONITOR);
}

static void deep_json_is_refused(void **state)
{
    struct house *h = *state;
    static char request[30000];
    enum { DEEP = 10000 };
    int n = sprintf(request, "POST /api/v1/undo HTTP/1.0\r\nContent-Length: %d\r\n\r\n",
                    5 * DEEP + DEEP / 2 + 2);
    n = sprintf(request,
                "POST /api/v1/undo HTTP/1.0\r\nContent-Length: %d\r\n\r\n{\"a\":", 2 * DEEP + 6);
    memset(request + n, '[', DEEP);
    memset(request + n + DEEP, ']', DEEP);
    request[n + 2 * DEEP] = '}';
    assert_int_equal(ask_raw(h, request, (size_t)n + 2 * DEEP + 1), 400);
}

static void status_is_complete(void **state)
{
    struct house *h = *state;
    struct gauge *g = figures_gauge(h->pipeline.figures, "in");
    struct passing lost;
    gauge_add(g, FIGURE_RECEIVED, 9);
    gauge_add(g, FIGURE_DONE + DISP_PASS, 7);
    gauge_add(g, FIGURE_DONE + DISP_HOLD, 2);
    gauge_add(g, FIGURE_ANSWERED, 9);
    passing_begun(&lost, g, 1);
    passing_replied(&lost, REPLY_ACCEPTED); /* and no row */
    hold_mail(h, 2, true, REL_FIRST);
    json_t *j = ask_ok(h, "status", NULL);
    const json_t *counters = json_object_get(j, "counters");
    assert_string_equal(json_get_str(json_object_get(j, "mode"), "mode"), "monitor");
    assert_string_equal(json_get_str(j, "version"), BREAKWATER_VERSION);
    assert_int_equal(json_get_num(json_object_get(j, "hold"), "held"), 2);
    assert_int_equal(json_get_num(counters, "passed"), 7);
    assert_int_equal(json_get_num(counters, "unaccounted"), 1);
    assert_string_equal(json_get_str(json_object_get(j, "store"), "backend"), "none");
    assert_string_equal(json_get_str(json_object_get(j, "release"), "to"), "127.0.0.1:1");
    json_decref(j);
}

static void balance_tells_what_is_missing_and_where(void **state)
{
    struct house *h = *state;
    struct gauge *g = figures_gauge(h->pipeline.figures, "in");
    struct passing p;
    passing_begun(&p, g, 4);
    gauge_add(g, FIGURE_DONE + DISP_PASS, 1);
    gauge_add(g, FIGURE_REFUSED, 3);
    passing_replied(&p, REPLY_ACCEPTED);
    json_t *j = ask_ok(h, "balance?minutes=5", NULL);
    assert_true(json_get_yes(j, "even"));
    json_t *row = json_array_get(json_object_get(j, "minutes"), 0);
    assert_int_equal(json_get_num(row, "received"), 4);
    assert_int_equal(json_get_num(row, "passed"), 1);
    assert_int_equal(json_get_num(row, "refused"), 3);
    json_decref(j);
    passing_begun(&p, g, 2);
    passing_replied(&p, REPLY_ACCEPTED);
    j = ask_ok(h, "balance", NULL);
    assert_false(json_get_yes(j, "even"));
    row = json_array_get(json_object_get(j, "doors"), 0);
    assert_int_equal(json_get_num(row, "unaccounted"), 2);
    json_decref(j);
    assert_int_equal(ask(h, "balance?minutes=0", NULL, &j), 400);
    json_decref(j);
    assert_int_equal(ask(h, "balance?minutes=71", NULL, &j), 400);
    json_decref(j);
}

static void report_wants_days(void **state)
{
    struct house *h = *state;
    static const char *const bad[] = {"report?from=yesterday", "report?from=2026-11-31",
                                      "report?until=2026-1-1", "report?from=2026-11-01x",
                                      "report?day=2026-11-01"};
    json_t *j;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (ask(h, bad[i], NULL, &j) != 400)
            fail_msg("%s is taken", bad[i]);
        json_decref(j);
    }
    struct day_row r = {.listener = "in",
                        .rule = "duplicate",
                        .mode = MODE_MONITOR,
                        .done = DISP_PASS,
                        .advised = DISP_HOLD,
                        .copies = 30,
                        .firsts = 1};
    days_add(h->pipeline.days, &r);
    r.rule = "loop-own";
    r.copies = 2;
    r.firsts = 0;
    days_add(h->pipeline.days, &r);
    j = ask_ok(h, "report", NULL);
    json_t *list = json_object_get(j, "days"), *row = json_array_get(list, 0);
    assert_int_equal(json_array_size(list), 2);
    bool swapped = strcmp(json_get_str(row, "rule"), "duplicate") != 0;
    row = json_array_get(list, swapped ? 1 : 0);
    assert_string_equal(json_get_str(row, "mode"), "monitor");
    assert_int_equal(json_get_num(json_object_get(row, "would"), "hold"), 30);
    assert_int_equal(json_get_num(json_object_get(row, "firsts"), "hold"), 1);
    assert_int_equal(json_get_num(json_object_get(row, "done"), "pass"), 30);
    json_decref(j);
    j = ask_ok(h, "status", NULL);
    row = json_object_get(j, "last_day");
    assert_int_equal(json_get_num(row, "would_hold"), 32);
    assert_int_equal(json_get_num(row, "would_hold_firsts"), 1);
    assert_int_equal(json_array_size(json_object_get(row, "rules")), 2);
    json_decref(j);
}

static void held_pages(void **state)
{
    struct house *h = *state;
    char after[64] = "";
    size_t seen = 0, pages = 0;
    for (int i = 0; i < 3; i++)
        hold_mail(h, 10, false, REL_DETOUR);
    for (bool more = true; more; pages++) {
        json_t *j = ask_ok(h, arena_printf(h->arena, "held?limit=7%s", after), NULL);
        json_t *copies = json_object_get(j, "copies");
        seen += json_array_size(copies);
        more = !json_is_null(json_object_get(j, "next"));
        snprintf(after, sizeof after, "&after=%s", json_get_str(j, "next"));
        json_decref(j);
    }
    assert_int_equal(seen, 30);
    assert_int_equal(pages, 5);
    json_t *j = ask_ok(h, "held?rcpt=%3CR3@B.example%3E", NULL);
    assert_int_equal(json_array_size(json_object_get(j, "copies")), 3);
    json_decref(j);
}

static void a_copy_and_its_bytes(void **state)
{
    struct house *h = *state;
    uint64_t id = hold_mail(h, 1, true, REL_FIRST);
    const char *text = id_text(h, id);
    json_t *j = ask_ok(h, arena_printf(h->arena, "copies/%s?headers=1&text=1", text), NULL);
    assert_string_equal(json_get_str(j, "id"), text);
    assert_string_equal(json_get_str(j, "rcpt"), "r0@b.example");
    assert_string_equal(json_get_str(j, "subject"), "of\xef\xbf\xbd\x1b[2Jfer");
    assert_string_equal(json_get_str(j, "headers"), "From: j@a.example\r\nSubject: offer\r\n\r\n");
    assert_string_equal(json_get_str(j, "text"), "buy\r\n.\r\n");
    assert_true(json_get_yes(j, "may_be_only"));
    json_decref(j);
    struct ctl_target t;
    struct ctl_reply r;
    ctl_target(&t, h->arena, arena_printf(h->arena, "copies/%s/message", text));
    ctl_call(h->socket, &t, NULL, &r);
    assert_int_equal(r.status, 200);
    assert_true(span_eq(r.body, span_of(message, sizeof message - 1)));
    ctl_reply_free(&r);
}

static void released_by_id_once(void **state)
{
    struct house *h = *state;
    uint64_t id = hold_mail(h, 2, true, REL_FIRST);
    char *body = arena_printf(h->arena, "{\"ids\":[\"%s\",\"%s\",\"AAAAAAAAAAAAA\"]}",
                              id_text(h, id), id_text(h, id));
    json_t *j = ask_ok(h, "release", body);
    json_t *refused = json_object_get(j, "refused");
    assert_int_equal(json_get_num(j, "asked"), 3);
    assert_int_equal(json_get_num(j, "changed"), 1);
    assert_int_equal(json_array_size(refused), 2);
    assert_string_equal(json_get_str(json_array_get(refused, 1), "detail"),
                        "There is no such copy.");
    json_decref(j);
    assert_int_equal(in_state(h, "releasing"), 1);
    assert_int_equal(in_state(h, "held"), 1);
}

struct racer {
    struct house *house;
    struct arena *arena;
    const char *body;
    uint64_t changed;
    pthread_t thread;
};

static void *race(void *arg)
{
    struct racer *r = arg;
    struct ctl_target t;
    struct ctl_reply reply;
    json_t *body = json_loads(r->body, 0, NULL);
    ctl_target(&t, r->arena, "release");
    ctl_call(r->house->socket, &t, body, &reply);
    r->changed = reply.status == 200 ? json_get_num(reply.json, "changed") : 99;
    ctl_reply_free(&reply);
    json_decref(body);
    return NULL;
}

static void two_people_release_one_copy(void **state)
{
    struct house *h = *state;
    enum { PEOPLE = 2, COPIES = 30 };
    for (int i = 0; i < COPIES; i++) {
        struct racer r[PEOPLE];
        uint64_t sum = 0, id = hold_mail(h, 1, true, REL_FIRST);
        for (int p = 0; p < PEOPLE; p++) {
            r[p] = (struct racer){h, arena_new(), NULL, 0, 0};
            r[p].body = arena_printf(r[p].arena, "{\"ids\":[\"%s\"]}", id_text(h, id));
            pthread_create(&r[p].thread, NULL, race, &r[p]);
        }
        for (int p = 0; p < PEOPLE; p++) {
            pthread_join(r[p].thread, NULL);
            arena_free(&r[p].arena);
            sum += r[p].changed;
        }
        assert_int_equal(sum, 1);
    }
}

static void one_each_to_those_who_got_none(void **state)
{
    struct house *h = *state;
    char *body = arena_printf(h->arena, "{\"storm\":\"%s\",\"one_per_recipient\":true}", storm);
    char *dry = arena_printf(
        h->arena, "{\"storm\":\"%s\",\"one_per_recipient\":true,\"dry_run\":true}", storm);
    hold_mail(h, 3, true, REL_FIRST);   /* r0 r1 r2 got none */
    hold_mail(h, 5, false, REL_DETOUR); /* r3 r4 got one */
    assert_int_equal(post(h, "release", dry), 3);
    assert_int_equal(in_state(h, "releasing"), 0);
    assert_int_equal(post(h, "release", body), 3);
    assert_int_equal(post(h, "release", body), 0);
    assert_int_equal(in_state(h, "releasing"), 3);
    assert_int_equal(in_state(h, "held"), 5);
}

/* A store in which r1 has got the message by now. */
static bool r1_passed(struct store *s, const struct key *k, uint64_t rcpt)
{
    struct key want = the_key();
    (void)s;
    return memcmp(k, &want, sizeof want) == 0 && rcpt == 1001;
}

static void the_store_may_veto(void **state)
{
    struct house *h = *state;
    struct store_ops ops = *h->pipeline.store->ops;
    struct store vetoing = {&ops}, *own = h->pipeline.store;
    ops.passed = r1_passed;
    hold_mail(h, 3, true, REL_FIRST);
    stop(h);
    h->pipeline.store = &vetoing;
    start(h);
    char *body = arena_printf(h->arena, "{\"storm\":\"%s\",\"one_per_recipient\":true}", storm);
    assert_int_equal(post(h, "release", body), 2);
    stop(h);
    h->pipeline.store = own;
}

static void the_bin_and_back(void **state)
{
    struct house *h = *state;
    uint64_t id = hold_mail(h, 3, false, REL_DETOUR);
    hold_mail(h, 1, false, REL_SAME); /* may be the only one: stays */
    char *body =
        arena_printf(h->arena, "{\"storm\":\"%s\",\"all\":true,\"reason\":\"junk\"}", storm);
    json_t *j = ask_ok(h, "discard", body);
    assert_int_equal(json_get_num(j, "changed"), 3);
    assert_int_equal(json_get_num(j, "left_out"), 1);
    json_decref(j);
    j = ask_ok(h, arena_printf(h->arena, "copies/%s", id_text(h, id)), NULL);
    assert_string_equal(json_get_str(j, "state"), "discarded");
    assert_string_equal(json_get_str(j, "why"), "junk");
    assert_true(*json_get_str(j, "by"));
    json_decref(j);
    body = arena_printf(h->arena, "{\"ids\":[\"%s\"]}", id_text(h, id));
    assert_int_equal(post(h, "release", body), 0);
    assert_int_equal(post(h, "undo", body), 1);
    assert_int_equal(post(h, "undo", body), 0);
    assert_int_equal(in_state(h, "discarded"), 2);
    assert_int_equal(in_state(h, "held"), 2);
}

static void nothing_can_be_released_to_nowhere(void **state)
{
    struct house *h = *state;
    uint64_t id = hold_mail(h, 1, true, REL_FIRST);
    stop(h);
    h->config->release_to = NULL;
    start(h);
    char *body = arena_printf(h->arena, "{\"ids\":[\"%s\"]}", id_text(h, id));
    assert_int_equal(ask(h, "release", body, NULL), 409);
    assert_int_equal(in_state(h, "held"), 1);
}

static void the_mode_is_remembered(void **state)
{
    struct house *h = *state;
    assert_int_equal(post(h, "mode", "{\"mode\":\"enforce\",\"reason\":\"x\",\"dry_run\":true}"),
                     1);
    assert_int_equal(h->pipeline.mode, MODE_MONITOR);
    assert_int_equal(post(h, "mode", "{\"mode\":\"enforce\",\"reason\":\"a storm\"}"), 1);
    assert_int_equal(h->pipeline.mode, MODE_ENFORCE);
    stop(h);
    start(h);
    json_t *j = ask_ok(h, "mode", NULL);
    assert_string_equal(json_get_str(j, "mode"), "enforce");
    assert_string_equal(json_get_str(j, "reason"), "a storm");
    assert_true(json_ms(json_object_get(j, "since")) > T);
    json_decref(j);
}

static void storms_outlive_the_process(void **state)
{
    struct house *h = *state;
    struct incident_note n = {
        .k = the_key(), .now = clock_now(), .held = 2, .from = SPAN("j@a.example"), .storm = true};
    char *path = arena_printf(h->arena, "storms/%s", storm);
    struct incident_news news;
    assert_true(incidents_note(h->pipeline.incidents, &n, &news));
    hold_mail(h, 2, false, REL_DETOUR);
    for (int life = 0; life < 2; life++) { /* live, then saved */
        json_t *j = ask_ok(h, path, NULL);
        assert_string_equal(json_get_str(j, "from"), "j@a.example");
        assert_string_equal(json_get_str(j, "state"), "open");
        assert_int_equal(json_get_num(json_object_get(j, "queue"), "held"), 2);
        json_decref(j);
        j = ask_ok(h, "storms", NULL);
        assert_int_equal(json_array_size(json_object_get(j, "storms")), 1);
        json_decref(j);
        j = ask_ok(h, "status", NULL);
        assert_int_equal(json_get_num(j, "storms_open"), 1);
        json_decref(j);
        stop(h);
        start(h);
    }
}

static void where_is_my_mail(void **state)
{
    struct house *h = *state;
    char error[512];
    struct journal *journal = journal_open(h->dir, INT64_MAX, error);
    assert_non_null(journal);
    uint64_t copy = hold_mail(h, 1, true, REL_FIRST), tx = copy - 1;
    struct journal_row row = {.tx = tx,
                              .time = T,
                              .disposition = DISP_HOLD,
                              .advised = DISP_HOLD,
                              .from = SPAN("j@a.example"),
                              .rcpt = SPAN("r0@b.example"),
                              .queue_id = SPAN("4QX1")};
    journal_add(journal, &row);
    row.tx = id_next(1, T + 5000);
    row.queue_id = SPAN("4QX2");
    row.rcpt = SPAN("other@b.example");
    row.disposition = 200; /* from another version */
    journal_add(journal, &row);
    journal_flush(journal, T);
    struct {
        const char *query;
        size_t rows, copies;
    } cases[] = {
        {arena_printf(h->arena, "tx=%s", id_text(h, tx)), 1, 1},
        {arena_printf(h->arena, "tx=%s", id_text(h, copy)), 1, 1},
        {"queue_id=4QX1", 1, 1},
        {"queue_id=4QX2", 1, 0},
        {"queue_id=4QX", 0, 0},
        {"rcpt=R0%40b.example", 1, 1},
        {"from=%3Cj%40a.example%3E", 2, 1},
        {"from=j%40a.example&rcpt=other%40b.example", 1, 0},
        {arena_printf(h->arena, "from=j%%40a.example&since=%lld", (long long)(T / 1000 + 60)), 0,
         0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *j = ask_ok(h, arena_printf(h->arena, "messages?%s", cases[i].query), NULL);
        size_t rows = json_array_size(json_object_get(j, "rows"));
        size_t copies = json_array_size(json_object_get(j, "copies"));
        if (rows != cases[i].rows || copies != cases[i].copies)
            fail_msg("%s: %zu rows, %zu copies", cases[i].query, rows, copies);
        json_decref(j);
    }
    journal_close(&journal);
}

static void the_socket_is_ours_alone(void **state)
{
    struct house *h = *state;
    char error[512] = "";
    struct stat st;
    assert_int_equal(stat(h->socket, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_null(desk_start(h->config, &h->pipeline, NULL, error)); /* somebody answers there */
    assert_true(*error);
    assert_int_equal(ask(h, "mode", NULL, NULL), 200);
    stop(h);
    assert_int_equal(stat(h->socket, &st), -1);
    struct sockaddr_un un = {.sun_family = AF_UNIX}; /* left over from a crash */
    strcpy(un.sun_path, h->socket);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
    close(fd);
    start(h);
    assert_int_equal(ask(h, "mode", NULL, NULL), 200);
    stop(h);
    FILE *file = fopen(h->socket, "w"); /* not a socket at all */
    assert_non_null(file);
    fclose(file);
    assert_null(desk_start(h->config, &h->pipeline, NULL, error));
    assert_int_equal(stat(h->socket, &st), 0);
}

/* Clients that hang up before, while and after they are answered. */
static void who_hangs_up_harms_nobody(void **state)
{
    struct house *h = *state;
    uint64_t id = hold_mail(h, 1, true, REL_FIRST);
    char *body = arena_printf(h->arena, "{\"ids\":[\"%s\"],\"reason\":\"x\"}", id_text(h, id));
    char *request =
        arena_printf(h->arena, "POST /api/v1/discard HTTP/1.0\r\nContent-Length: %zu\r\n\r\n%s",
                     strlen(body), body);
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    strcpy(un.sun_path, h->socket);
    for (size_t n = 0; n <= strlen(request); n += 7) {
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        assert_int_equal(connect(fd, (struct sockaddr *)&un, sizeof un), 0);
        assert_int_equal(send(fd, request, n, MSG_NOSIGNAL), (ssize_t)n);
        close(fd);
    }
    assert_int_equal(ask_raw(h, request, strlen(request)), 200);
    assert_int_equal(in_state(h, "discarded"), 1);
}

/* ---- the client's own parser ---- */

static void replies(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text;
        int status; /* 0: none */
        const char *body;
    } cases[] = {
        {"whole", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", 200, "{}"},
        {"any case", "HTTP/1.0 404 No\r\ncontent-length:2\r\n\r\nno", 404, "no"},
        {"no length: to the end", "HTTP/1.0 200 OK\r\n\r\nall", 200, "all"},
        {"cut short", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", 0, ""},
        {"too long", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{}", 0, ""},
        {"a length that is none", "HTTP/1.1 200 OK\r\nContent-Length: 2x\r\n\r\n{}", 0, ""},
        {"a huge length", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", 0, ""},
        {"no end of the header", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", 0, ""},
        {"no status", "HTTP/1.1 2x0 OK\r\n\r\n", 0, ""},
        {"a short line", "HTTP/1.1\r\n\r\n", 0, ""},
        {"another protocol", "220 mx ESMTP\r\n\r\n", 0, ""},
        {"nothing", "", 0, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int status;
        struct span body;
        bool good = ctl_parse(span_str(cases[i].text), &status, &body);
        if (good != (cases[i].status != 0) ||
            (good && (status != cases[i].status || !span_eq(body, span_str(cases[i].body)))))
            fail_msg("%s", cases[i].name);
    }
}

static void queries_are_encoded(void **state)
{
    (void)state;
    struct arena *a = arena_new();
    struct ctl_target t;
    ctl_target(&t, a, "held");
    ctl_query(&t, "storm", NULL);
    ctl_query(&t, "rcpt", "a+b&c=d@x.example \xc3\xbc\n");
    ctl_query(&t, "sender", "");
    assert_string_equal(t.text, "/api/v1/held?rcpt=a%2Bb%26c%3Dd%40x.example%20%C3%BC%0A&sender=");
    arena_free(&a);
}

#define WITH_DESK(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replies),
        cmocka_unit_test(queries_are_encoded),
        WITH_DESK(guards),
        WITH_DESK(sizes),
        WITH_DESK(chunks_are_counted_together),
        WITH_DESK(bodies),
        WITH_DESK(deep_json_is_refused),
        WITH_DESK(status_is_complete),
        WITH_DESK(balance_tells_what_is_missing_and_where),
        WITH_DESK(report_wants_days),
        WITH_DESK(held_pages),
        WITH_DESK(a_copy_and_its_bytes),
        WITH_DESK(released_by_id_once),
        WITH_DESK(two_people_release_one_copy),
        WITH_DESK(one_each_to_those_who_got_none),
        WITH_DESK(the_store_may_veto),
        WITH_DESK(the_bin_and_back),
        WITH_DESK(nothing_can_be_released_to_nowhere),
        WITH_DESK(the_mode_is_remembered),
        WITH_DESK(storms_outlive_the_process),
        WITH_DESK(where_is_my_mail),
        WITH_DESK(the_socket_is_ours_alone),
        WITH_DESK(who_hangs_up_harms_nobody),
    };
    if (evthread_use_pthreads() < 0)
        return 1;
    signal(SIGPIPE, SIG_IGN); /* as main.c does */
    log_open("stderr", LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
