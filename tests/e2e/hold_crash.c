/*
 * hold_crash.c - kills the keeper at every failpoint and looks at what is left.
 *
 *   hold_crash [REPEAT]
 *       the parent: for each failpoint, REPEAT times (or from the environment; default 3) but no
 *       new round after 10 minutes (default: 3 seconds), runs a child, lets it die, checks what it
 *       left
 *   hold_crash work DIR FROM
 *       the child: puts messages FROM, FROM+1 ... through a keeper, releases, discards and takes
 *       out some, and writes a line for every deed whose done said that it is durable
 *
 * What is checked after each death: everything acknowledged is there, with its exact bytes and in
 * the state acknowledged; what was not acknowledged is whole or not there; every reference and
 * count is right. One directory goes through many deaths, so that each start also opens what the
 * one before left. Failures injected (not kills) must be answered -1 and leave nothing.
 *
 * Needs a build with -DBREAKWATER_FAILPOINTS.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "failpoint.h"
#include "keeper.h"
#include "log.h"

enum { PER_RUN = 200, WINDOW = 40, LARGE = (8 << 20) + 1 };
enum { SHORT_SECONDS = 3, LONG_SECONDS = 600 };
#define ID(n) ((UINT64_C(1138037000000) << 22) + (uint64_t)(n)*8)
#define NOW INT64_C(1138037000000)
#define DAY INT64_C(86400000)

static void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
static void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("hold_crash: ", stderr);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(1);
}

/* The message of a number: one of seven storms, now and then with a body of its own or a large one.
 * malloc'd; *head is the size of its header. */
static uint8_t *message(unsigned n, size_t *head, size_t *size)
{
    char text[2048];
    bool large = n % PER_RUN == 5 && n / PER_RUN % 7 == 2; /* content.piece strikes there */
    *head = (size_t)snprintf(text, sizeof(text),
                             "Received: from r%u.example by mx.example id %08X\r\n"
                             "Message-ID: <%u@x>\r\nSubject: storm %u\r\n"
                             "To: a@x.example, b@x.example, c@x.example, d@x.example\r\n\r\n",
                             n % 5, n * 2654435761u, n, n % 7);
    size_t small = *head + (size_t)snprintf(text + *head, sizeof(text) - *head,
                                            "The text of storm %u\r\n.\r\nfooter %u\r\n", n % 7,
                                            n % 11 ? 0 : n);
    *size = small + (large ? LARGE : 0);
    uint8_t *out = malloc(*size);
    if (!out)
        die("out of memory");
    memcpy(out, text, small);
    for (size_t i = small; i < *size; i++)
        out[i] = (uint8_t)(i * (n | 1) >> 9);
    return out;
}

static unsigned copies_of(unsigned n)
{
    return 1 + n % 3;
}

/* The child. */

struct deed {
    struct job job; /* must be first */
    char what; /* P put, R release, A attempt, T token, L released, D discard, U unput, G purge */
    unsigned n;
};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static unsigned waiting;

static int put(struct hold *hold, unsigned n)
{
    char rcpt[3][32];
    struct held_copy copies[3];
    size_t head, size;
    uint8_t *text = message(n, &head, &size);
    struct body *body = body_new(NULL, UINT64_C(1) << 30, UINT64_C(1) << 30);
    body_add(body, span_of(text + head, size - head));
    body_seal(body);
    for (unsigned i = 0; i < copies_of(n); i++) {
        snprintf(rcpt[i], sizeof(rcpt[i]), "<r%u@x.example>", (n + i) % 50);
        copies[i] = (struct held_copy){
            .id = ID(n) + 1 + i, .rcpt = span_str(rcpt[i]), .rcpt_hash = (n + i) % 50, .number = 2};
    }
    struct held_mail m = {.id = ID(n),
                          .arrival = NOW,
                          .door = SPAN("postfix"),
                          .rule = SPAN("duplicate"),
                          .k = {{(uint8_t)(n % 7 + 1)}},
                          .incident = SPAN("SAAAAAAAA"),
                          .head = span_of(text, head),
                          .body = body,
                          .copies = copies,
                          .ncopies = copies_of(n)};
    int rc = hold_put(hold, &m);
    body_drop(&body);
    free(text);
    return rc;
}

static int run_deed(struct hold *hold, struct job *job)
{
    const struct deed *d = (struct deed *)job;
    switch (d->what) { /* the letters of the ledger */
    case 'P':
        return put(hold, d->n);
    case 'R':
        return hold_release_id(hold, ID(d->n) + 1, "me", NOW);
    case 'A':
        return hold_attempt(hold, ID(d->n), NOW, NOW);
    case 'T':
        return hold_token_use(hold, ID(d->n), 1);
    case 'L':
        return hold_released(hold, ID(d->n) + 1, "250 ok", NOW);
    case 'D':
        return hold_discard_id(hold, ID(d->n) + 1, "me", "why", d->n % 2 ? NOW : NOW + DAY);
    case 'U':
        return hold_unput(hold, ID(d->n));
    default:
        return hold_purge(hold, NOW + 30 * DAY);
    }
}

static void deed_done(struct job *job)
{
    (void)FAILPOINT("done.before"); /* the keeper passes it only for jobs of other threads */
    struct deed *d = (struct deed *)job;
    char line[64];
    int n = snprintf(line, sizeof(line), "%c %u %d\n", d->what, d->n, job->result);
    if (write(STDOUT_FILENO, line, (size_t)n) != n)
        _exit(3);
    free(d);
    pthread_mutex_lock(&lock);
    waiting--;
    pthread_cond_signal(&wake);
    pthread_mutex_unlock(&lock);
}

static void submit(struct keeper *k, char what, unsigned n)
{
    struct deed *d = calloc(1, sizeof(*d));
    if (!d)
        die("out of memory");
    *d = (struct deed){.job = {.run = run_deed, .done = deed_done}, .what = what, .n = n};
    pthread_mutex_lock(&lock);
    while (waiting >= WINDOW)
        pthread_cond_wait(&wake, &lock);
    waiting++;
    pthread_mutex_unlock(&lock);
    keeper_submit(k, &d->job);
}

static int work(const char *dir, unsigned from)
{
    char error[512];
    struct keeper *k = keeper_start(dir, error);
    if (!k)
        die("%s", error);
    for (unsigned n = from; n < from + PER_RUN; n++) {
        submit(k, 'P', n);
        if (n % 5 == 1) {
            submit(k, 'R', n);
            submit(k, 'A', n);
            submit(k, 'T', n);
            submit(k, 'L', n);
        }
        if (n % 5 == 2)
            submit(k, 'D', n);
        if (n % 5 == 3)
            submit(k, 'U', n);
        if (n % 50 == 49)
            submit(k, 'G', 0);
    }
    keeper_stop(&k);
    return 0;
}

/* The parent. */

/* What has been acknowledged of each message. */
struct known {
    bool put, failed, unput, released, releasing, discarded;
};
static struct known *ledger;
static unsigned numbers;

static void acknowledge(const char *line)
{
    char what;
    unsigned n;
    int result;
    if (sscanf(line, "%c %u %d", &what, &n, &result) != 3 || n >= numbers)
        die("the child wrote: %s", line);
    struct known *w = &ledger[n];
    w->put |= what == 'P' && result == 0;
    w->failed |= what == 'P' && result == -1;
    w->unput |= what == 'U' && result == 0;
    w->releasing |= what == 'R' && result == 1;
    w->released |= what == 'L' && result == 1;
    w->discarded |= what == 'D' && result == 1;
}

/* Runs the child with a failpoint. True: it was killed; false: it ended by itself. */
static bool run_child(const char *self, const char *dir, unsigned from, const char *point)
{
    int ends[2];
    char number[16], line[64];
    if (pipe(ends))
        die("pipe: %s", strerror(errno));
    snprintf(number, sizeof(number), "%u", from);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        setenv("BREAKWATER_FAILPOINT", point, 1);
        execl(self, self, "work", dir, number, (char *)NULL);
        _exit(4);
    }
    close(ends[1]);
    FILE *in = fdopen(ends[0], "r");
    while (pid > 0 && in && fgets(line, sizeof(line), in))
        acknowledge(line);
    if (in)
        fclose(in);
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        die("the child cannot be run");
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return true;
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        die("%s: the child ended with status %d", point, status);
    return false;
}

/* Bytes of a mail of which a copy is there; let_go: they may have been let go of. */
static void check_bytes(struct hold *h, unsigned n, bool let_go, const char *point)
{
    uint8_t *bytes, sha[32];
    size_t size, head, want;
    int rc = hold_bytes(h, ID(n), &bytes, &size, sha);
    if (rc == -1 && let_go)
        return;
    if (rc)
        die("%s: message %u: its bytes cannot be read: %d", point, n, rc);
    uint8_t *text = message(n, &head, &want);
    if (size != want || memcmp(bytes, text, size) != 0)
        die("%s: message %u came back otherwise", point, n);
    free(text);
    free(bytes);
}

static enum copy_state state_of(struct hold *h, uint64_t id)
{
    struct arena *a = arena_new();
    struct copy_row row;
    enum copy_state state = hold_copy(h, a, id, &row) == 0 ? row.state : COPY_NONE;
    arena_free(&a);
    return state;
}

/* May the first copy of message n be in this state, given what has been acknowledged? */
static bool allowed(unsigned n, enum copy_state s)
{
    const struct known *w = &ledger[n];
    if (w->failed || w->unput)
        return s == COPY_NONE;
    if (s == COPY_NONE)
        return !w->put || n % 5 == 3 || (n % 5 == 2 && n % 2);
    if (n % 5 == 1)
        return s == COPY_RELEASED || (s == COPY_RELEASING && !w->released) ||
               (s == COPY_HELD && !w->releasing);
    if (n % 5 == 2)
        return s == COPY_DISCARDED || (s == COPY_HELD && !w->discarded);
    return s == COPY_HELD;
}

static void check_one(struct hold *h, unsigned n, const char *point)
{
    enum copy_state first = state_of(h, ID(n) + 1);
    if (!allowed(n, first))
        die("%s: message %u is %s", point, n, copy_state_name(first));
    bool purged = first == COPY_NONE && n % 5 == 2;
    unsigned there = 0;
    for (unsigned i = 1; i < copies_of(n); i++)
        there += state_of(h, ID(n) + 1 + i) == COPY_HELD;
    unsigned want = first == COPY_NONE && !purged ? 0 : copies_of(n) - 1;
    if (purged && there == 0 && !ledger[n].put)
        want = 0;
    if (there != want)
        die("%s: message %u has %u further copies, not %u", point, n, there, want);
    if (first != COPY_NONE || there)
        check_bytes(h, n, first == COPY_RELEASED && copies_of(n) == 1, point);
}

static void check(const char *dir, unsigned from, unsigned to, const char *point)
{
    char error[512], problem[512];
    bool damaged;
    struct hold *h = hold_open(dir, true, &damaged, error);
    if (!h)
        die("%s: %s", point, error);
    if (damaged)
        die("%s: the database counts as damaged", point);
    int rc = hold_check(h, problem);
    if (rc)
        die("%s: %s", point, problem);
    for (unsigned n = from; n < to; n++)
        check_one(h, n, point);
    hold_close(&h);
}

/* Where to strike, and how late at most. */
static const struct strike {
    const char *point, *how;
    unsigned span;
} strikes[] = {
    {"put.begin", "kill", 150},   {"content.add", "kill", 100},    {"content.piece", "kill", 1},
    {"put.content", "kill", 150}, {"put.mail", "kill", 150},       {"put.copy", "kill", 250},
    {"state.change", "kill", 50}, {"release.attempt", "kill", 20}, {"release.mark", "kill", 20},
    {"token.use", "kill", 20},    {"purge.copy", "kill", 6},       {"content.collect", "kill", 10},
    {"commit.before", "kill", 6}, {"commit.after", "kill", 6},     {"done.before", "kill", 6},
    {"put.begin", "fail", 150},   {"put.mail", "fail", 150},       {"put.copy", "fail", 250},
    {"content.add", "fail", 100}, {"commit.before", "fail", 6},    {"put.content", "delay=5", 150},
};
enum { STRIKES = sizeof(strikes) / sizeof(strikes[0]) };

static void clean(const char *dir)
{
    static const char *const names[] = {"hold.db", "hold.db-wal", "hold.db-shm"};
    char path[256];
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
}

static uint32_t draw(void)
{
    static uint32_t x = 2006;
    x = x * 1664525u + 1013904223u;
    return x >> 8;
}

/* Every strike once, all on one database. The first is on a disk; a kill leaves the same in memory,
 * so the others are there, where they are faster. */
static void round_of(const char *self, bool first, unsigned kills[STRIKES])
{
    char dir[64], spec[96];
    snprintf(dir, sizeof(dir), "%s/hold_crash.XXXXXX",
             first || access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!mkdtemp(dir))
        die("mkdtemp: %s", strerror(errno));
    memset(ledger, 0, numbers * sizeof(*ledger));
    for (unsigned i = 0; i < STRIKES; i++) {
        const struct strike *s = &strikes[i];
        snprintf(spec, sizeof(spec), "%s:%s:%u%s", s->point, s->how, 1 + draw() % s->span,
                 strcmp(s->how, "fail") == 0 ? "+" : "");
        kills[i] += run_child(self, dir, i * PER_RUN, spec);
        check(dir, i * PER_RUN, (i + 1) * PER_RUN, spec);
    }
    check(dir, 0, numbers, "at the end");
    clean(dir);
}

static time_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "work") == 0)
        return work(argv[2], (unsigned)atoi(argv[3]));
    const char *repeat = argc > 1 ? argv[1] : getenv("REPEAT");
    unsigned rounds = repeat ? (unsigned)atoi(repeat) : 3, kills[STRIKES] = {0}, r = 0;
    time_t end = now() + (repeat ? LONG_SECONDS : SHORT_SECONDS);
    numbers = STRIKES * PER_RUN;
    ledger = calloc(numbers, sizeof(*ledger));
    if (!ledger || rounds == 0)
        die("usage: hold_crash [REPEAT]");
    for (; r < rounds && (r == 0 || now() < end); r++)
        round_of("/proc/self/exe", r == 0, kills);
    for (unsigned i = 0; i < STRIKES; i++)
        if (strcmp(strikes[i].how, "kill") == 0 && kills[i] == 0)
            die("%s never struck", strikes[i].point);
    printf("hold_crash: %u rounds of %d strikes, nothing lost\n", r, STRIKES);
    free(ledger);
    return 0;
}
