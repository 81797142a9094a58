/*
 * alarm.c - see alarm.h. Two queues of notes under one lock, one for each way out. The command is
 * the main thread's, the mail is the desk's; neither waits for the other.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "alarm.h"
#include "id.h"
#include "outbound.h"

enum {
    QUEUE_MAX = 16,         /* notes waiting on one way; the oldest goes first */
    COMMAND_MS = 30 * 1000, /* and it is killed */
    BURST = 10,             /* commands at once ... */
    REFILL_MS = 120 * 1000, /* ... and one more each two minutes */
    MAIL_DEADLINE = 120 * 1000,
    MAIL_TRIES = 12,
    LINE_MAX_BYTES = 900,
    SUBJECT_MAX = 300,
    FACTS_MAX = 32
};

/* ms until the next try; the last one is for all that follow. */
static const int64_t pauses[] = {30e3, 120e3, 600e3, 1800e3, 3600e3};

/* Something to be told on one way. */
struct note {
    struct note *next;
    char *subject, *text;
    char *env[FACTS_MAX + 6]; /* NAME=value; NULL-ended */
    int64_t at;               /* ms, wall clock */
    int64_t due;              /* monotonic: mail, not before */
    unsigned tries;
};

struct queue {
    struct note *first;
    unsigned n;
};

struct alarm {
    pthread_mutex_t lock;
    struct config *config;
    struct queue commands, mails;
    struct alarm_figures figures;

    /* main thread */
    pid_t pid; /* running; 0: none */
    int64_t until;
    bool killed;
    double tokens;
    int64_t refilled;

    /* desk thread; base and home under the lock */
    struct event_base *base;
    struct mailbox *home;
    struct letter poke;
    bool poked; /* the letter is on its way */
    struct event *timer;
    struct note *sending;
    struct config *with; /* what it is sent with */
    struct tls *tls;
    char *bytes;
    struct outbound_mail mail;
    struct outbound_rcpt rcpt;
    struct outbound *outbound;
};

/* ---- notes ---- */

static char *text_copy(const char *s)
{
    char *copy = strdup(s);
    if (!copy)
        abort();
    return copy;
}

static char *env_of(const char *name, const char *value)
{
    char *text;
    if (asprintf(&text, "BREAKWATER_%s=%s", name, value) < 0)
        abort();
    return text;
}

static struct note *note_new(const struct config *c, const char *subject, const char *text,
                             const struct alarm_fact *facts, int64_t now)
{
    struct note *n = calloc(1, sizeof *n);
    size_t e = 0;
    char at[32];
    if (!n)
        abort();
    snprintf(at, sizeof at, "%lld", (long long)now / 1000);
    n->at = now;
    if (!(n->subject = strndup(subject, SUBJECT_MAX)))
        abort();
    n->text = text_copy(text);
    n->env[e++] = text_copy("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    n->env[e++] = env_of("SUBJECT", subject);
    n->env[e++] = env_of("NODE", c->site.node.n ? (const char *)c->site.node.p : "localhost");
    n->env[e++] = env_of("TIME", at);
    for (size_t i = 0; facts && facts[i].name && i < FACTS_MAX; i++)
        n->env[e++] = env_of(facts[i].name, facts[i].value ? facts[i].value : "");
    return n;
}

static void note_free(struct note *n)
{
    if (!n)
        return;
    for (size_t i = 0; n->env[i]; i++)
        free(n->env[i]);
    free(n->subject);
    free(n->text);
    free(n);
}

/* Locked. The oldest makes room. */
static void queue_add(struct alarm *a, struct queue *q, struct note *n)
{
    struct note **end = &q->first;
    if (q->n == QUEUE_MAX) {
        struct note *oldest = q->first;
        q->first = oldest->next;
        q->n--;
        a->figures.dropped++;
        note_free(oldest);
    }
    while (*end)
        end = &(*end)->next;
    *end = n;
    q->n++;
}

/* Locked. */
static struct note *queue_take(struct queue *q, struct note *n)
{
    struct note **at = &q->first;
    while (*at && *at != n)
        at = &(*at)->next;
    if (!*at)
        return NULL;
    *at = n->next;
    n->next = NULL;
    q->n--;
    return n;
}

static void queue_free(struct queue *q)
{
    while (q->first)
        note_free(queue_take(q, q->first));
}

/* ---- sending ---- */

static void look(struct alarm *);

static void poked(struct letter *letter)
{
    struct alarm *a = (struct alarm *)((char *)letter - offsetof(struct alarm, poke));
    pthread_mutex_lock(&a->lock);
    a->poked = false;
    pthread_mutex_unlock(&a->lock);
    look(a);
}

/* Locked. */
static void poke(struct alarm *a)
{
    if (!a->home || a->poked)
        return;
    a->poked = true;
    a->poke.open = poked;
    mailbox_post(a->home, &a->poke);
}

static void send_note(struct alarm *a, const char *subject, const char *text,
                      const struct alarm_fact *facts, bool alarm)
{
    int64_t now = clock_now();
    int first_line = (int)strcspn(text, "\n");
    log_say(alarm ? LOG_LEVEL_ERROR : LOG_LEVEL_NOTICE, "%s: %.*s", alarm ? "alarm" : "report",
            first_line, text);
    if (!a)
        return;
    pthread_mutex_lock(&a->lock);
    const struct config *c = a->config;
    a->figures.sent += alarm;
    if (c->guard_alarm)
        queue_add(a, &a->commands, note_new(c, subject, text, facts, now));
    if (c->guard_mail_to && c->release_to) {
        queue_add(a, &a->mails, note_new(c, subject, text, facts, now));
        poke(a);
    }
    pthread_mutex_unlock(&a->lock);
}

void alarm_send(struct alarm *a, const char *subject, const char *text,
                const struct alarm_fact *facts)
{
    send_note(a, subject, text, facts, true);
}

void alarm_report(struct alarm *a, const char *subject, const char *text,
                  const struct alarm_fact *facts)
{
    send_note(a, subject, text, facts, false);
}

/* ---- the command: main thread ---- */

/* The text as a file to be read from the start; -1. */
static int text_file(const char *text)
{
    size_t n = strlen(text);
    int fd = memfd_create("alarm", MFD_CLOEXEC);
    if (fd >= 0 && (write(fd, text, n) != (ssize_t)n || lseek(fd, 0, SEEK_SET) != 0)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* Its own group, so that what it starts is killed with it; no descriptor, signal mask or ignored
 * signal of ours. */
static int spawn(pid_t *pid, const char *path, int text, char **env)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t how;
    sigset_t none, all;
    char *argv[] = {(char *)(uintptr_t)path, NULL};
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&how);
    posix_spawn_file_actions_adddup2(&files, text, 0);
    posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&files, 2, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addclosefrom_np(&files, 3);
    posix_spawnattr_setsigmask(&how, &none);
    posix_spawnattr_setsigdefault(&how, &all);
    posix_spawnattr_setpgroup(&how, 0);
    posix_spawnattr_setflags(&how, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                       POSIX_SPAWN_SETPGROUP);
    int rc = posix_spawn(pid, path, &files, &how, argv, env);
    posix_spawnattr_destroy(&how);
    posix_spawn_file_actions_destroy(&files);
    return rc;
}

static void count_command(struct alarm *a, bool good)
{
    pthread_mutex_lock(&a->lock);
    a->figures.commands += good;
    a->figures.command_failures += !good;
    pthread_mutex_unlock(&a->lock);
}

static void begin_command(struct alarm *a, const char *path, struct note *n, int64_t mono)
{
    int fd = text_file(n->text);
    int rc = fd < 0 ? errno : spawn(&a->pid, path, fd, n->env);
    if (fd >= 0)
        close(fd);
    if (rc == 0) {
        a->until = mono + COMMAND_MS;
        a->killed = false;
        return;
    }
    a->pid = 0;
    log_say(LOG_LEVEL_ERROR, "guard.alarm: cannot run %s: %s", path, strerror(rc));
    count_command(a, false);
}

static void look_at_command(struct alarm *a, int64_t mono)
{
    int status;
    pid_t pid = waitpid(a->pid, &status, WNOHANG);
    if (pid == 0 && !a->killed && mono >= a->until) {
        a->killed = true;
        kill(-a->pid, SIGKILL);
        log_say(LOG_LEVEL_ERROR, "guard.alarm: it ran for 30 seconds and was killed");
    }
    if (pid == 0)
        return;
    a->pid = 0;
    bool good = pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (!good && !a->killed)
        log_say(LOG_LEVEL_ERROR, "guard.alarm: it failed (%s %d)",
                pid > 0 && WIFSIGNALED(status) ? "signal" : "status",
                pid > 0 && WIFSIGNALED(status) ? WTERMSIG(status)
                : pid > 0                      ? WEXITSTATUS(status)
                                               : -1);
    count_command(a, good);
}

/* May one more be run? */
static bool take_token(struct alarm *a, int64_t mono)
{
    if (!a->refilled)
        a->tokens = BURST;
    else
        a->tokens += (double)(mono - a->refilled) / REFILL_MS;
    if (a->tokens > BURST)
        a->tokens = BURST;
    a->refilled = mono;
    if (a->tokens < 1)
        return false;
    a->tokens -= 1;
    return true;
}

void alarm_tick(struct alarm *a, int64_t mono)
{
    if (a->pid) {
        look_at_command(a, mono);
        return;
    }
    struct note *n = NULL;
    char *path = NULL;
    pthread_mutex_lock(&a->lock);
    if (a->commands.first && !a->config->guard_alarm)
        queue_free(&a->commands); /* taken out of the configuration */
    if (a->commands.first && take_token(a, mono)) {
        n = queue_take(&a->commands, a->commands.first);
        path = text_copy(a->config->guard_alarm);
    }
    pthread_mutex_unlock(&a->lock);
    if (n)
        begin_command(a, path, n, mono);
    free(path);
    note_free(n);
}

/* ---- the mail: desk thread ---- */

/* One line of printable ASCII, for a header. */
static void write_line(FILE *f, const char *text)
{
    for (; *text; text++)
        fputc(*text >= 0x20 && *text < 0x7f ? *text : '?', f);
    fputs("\r\n", f);
}

/* Printable ASCII, a line at most LINE_MAX_BYTES long: RFC 5322 2.1.1, no MIME needed. */
static void write_text(FILE *f, const char *text)
{
    size_t column = 0;
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '\n' || column == LINE_MAX_BYTES) {
            fputs("\r\n", f);
            column = 0;
            if (c == '\n')
                continue;
        }
        fputc(c >= 0x20 && c < 0x7f ? c : '?', f);
        column++;
    }
    if (column)
        fputs("\r\n", f);
}

/* RFC 5322, RFC 3834 5: a machine wrote it, nobody may answer. */
static void make_message(struct alarm *a, const struct config *c, const struct note *n)
{
    char date[64], id[ID_TEXT];
    struct tm tm;
    time_t at = (time_t)(n->at / 1000);
    size_t size;
    const char *node = c->site.node.n ? (const char *)c->site.node.p : "localhost";
    FILE *f = open_memstream(&a->bytes, &size);
    if (!f)
        abort();
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S +0000", gmtime_r(&at, &tm));
    id_print(id_next(c->node_number, clock_now()), id);
    fprintf(f, "From: breakwater <breakwater@%s>\r\nTo: <%s>\r\nSubject: [breakwater %.60s] ", node,
            c->guard_mail_to, node);
    write_line(f, n->subject);
    fprintf(f, "Date: %s\r\nMessage-ID: <%s@%s>\r\nAuto-Submitted: auto-generated\r\n\r\n", date,
            id, node);
    write_text(f, n->text);
    if (fclose(f))
        abort();
    a->mail.bytes = (const uint8_t *)a->bytes;
    a->mail.nbytes = size;
}

static void end_mail(struct alarm *a)
{
    a->sending = NULL;
    free(a->bytes);
    a->bytes = NULL;
    tls_drop(&a->tls);
    config_drop(&a->with);
}

static void mailed(void *arg, struct outbound_mail *mail)
{
    struct alarm *a = arg;
    struct note *n = a->sending;
    bool good = mail->rcpts[0].code / 100 == 2, over = good;
    a->outbound = NULL;
    end_mail(a);
    if (!good) {
        size_t last = sizeof pauses / sizeof *pauses - 1;
        n->due = clock_mono() + pauses[n->tries < last ? n->tries : last];
        over = ++n->tries >= MAIL_TRIES || mail->rcpts[0].code / 100 == 5;
        log_say(over ? LOG_LEVEL_ERROR : LOG_LEVEL_NOTICE,
                "guard.mail_to: an alarm could not be mailed%s: %s",
                over ? ", it is given up" : ", it is tried again", mail->rcpts[0].reply);
    }
    pthread_mutex_lock(&a->lock);
    a->figures.mails += good;
    a->figures.mail_failures += !good;
    if (!over) {
        queue_add(a, &a->mails, n);
        n = NULL;
    }
    pthread_mutex_unlock(&a->lock);
    note_free(n);
    look(a);
}

/* The next that is due; NULL: none, *wait says how long until one is (ms; -1: there is none). */
static struct note *next_mail(struct alarm *a, int64_t *wait)
{
    int64_t mono = clock_mono();
    struct note *next = NULL;
    *wait = -1;
    for (struct note *n = a->mails.first; n; n = n->next)
        if (!next || n->due < next->due)
            next = n;
    if (!next)
        return NULL;
    *wait = next->due > mono ? next->due - mono : 0;
    return *wait ? NULL : queue_take(&a->mails, next);
}

static void begin_mail(struct alarm *a, struct config *c, struct note *n)
{
    char error[512];
    struct tls_settings theirs = {.ca = c->release_ca, .name = c->release_name};
    if (c->release_tls != TLS_NEVER && !(a->tls = tls_client_new(&theirs, error)))
        log_say(LOG_LEVEL_ERROR, "guard.mail_to: %s", error);
    a->sending = n;
    a->with = config_hold(c);
    a->rcpt = (struct outbound_rcpt){.path = span_str(c->guard_mail_to)};
    a->mail = (struct outbound_mail){.to = c->release_to,
                                     .helo = c->release_helo,
                                     .tls = a->tls,
                                     .tls_required = c->release_tls == TLS_MUST,
                                     .rcpts = &a->rcpt,
                                     .nrcpts = 1,
                                     .deadline = MAIL_DEADLINE};
    make_message(a, c, n);
    a->outbound = outbound_send(a->base, &a->mail, mailed, a);
}

static void look(struct alarm *a)
{
    int64_t wait;
    pthread_mutex_lock(&a->lock);
    struct config *c = config_hold(a->config);
    bool here = a->home != NULL, able = c->guard_mail_to && c->release_to;
    struct note *n = here && able && !a->sending ? next_mail(a, &wait) : NULL;
    if (here && !able)
        queue_free(&a->mails); /* taken out of the configuration */
    bool later = here && able && !a->sending && !n && wait > 0;
    pthread_mutex_unlock(&a->lock);
    if (n)
        begin_mail(a, c, n);
    else if (later) {
        struct timeval tv = clock_timeval(wait + 1);
        evtimer_add(a->timer, &tv);
    }
    config_drop(&c);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    look(arg);
}

void alarm_join(struct alarm *a, struct event_base *base, struct mailbox *home)
{
    a->timer = evtimer_new(base, on_timer, a);
    if (!a->timer)
        abort();
    pthread_mutex_lock(&a->lock);
    a->base = base;
    a->home = home;
    if (a->mails.first)
        poke(a);
    pthread_mutex_unlock(&a->lock);
}

void alarm_leave(struct alarm *a)
{
    pthread_mutex_lock(&a->lock);
    a->home = NULL;
    pthread_mutex_unlock(&a->lock);
    outbound_cancel(&a->outbound);
    if (a->timer)
        event_free(a->timer);
    a->timer = NULL;
    pthread_mutex_lock(&a->lock);
    if (a->sending)
        queue_add(a, &a->mails, a->sending);
    pthread_mutex_unlock(&a->lock);
    end_mail(a);
}

/* ---- beginning and end ---- */

struct alarm *alarm_new(struct config *config)
{
    struct alarm *a = calloc(1, sizeof *a);
    if (!a)
        abort();
    pthread_mutex_init(&a->lock, NULL);
    a->config = config_hold(config);
    return a;
}

void alarm_reload(struct alarm *a, struct config *config)
{
    struct config *fresh = config_hold(config);
    pthread_mutex_lock(&a->lock);
    struct config *old = a->config;
    a->config = fresh;
    pthread_mutex_unlock(&a->lock);
    config_drop(&old);
}

void alarm_free(struct alarm **place)
{
    struct alarm *a = *place;
    *place = NULL;
    if (!a)
        return;
    if (a->mails.n || a->commands.n)
        log_say(LOG_LEVEL_ERROR, "alarms not told by mail: %u, by the command: %u", a->mails.n,
                a->commands.n);
    queue_free(&a->commands);
    queue_free(&a->mails);
    config_drop(&a->config);
    pthread_mutex_destroy(&a->lock);
    free(a);
}

void alarm_figures(struct alarm *a, struct alarm_figures *out)
{
    pthread_mutex_lock(&a->lock);
    *out = a->figures;
    pthread_mutex_unlock(&a->lock);
}
