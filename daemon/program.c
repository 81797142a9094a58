/* program.c - see program.h. Both pipes are read as they fill, so the program never waits for us.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "id.h"
#include "program.h"

/* One of its outputs. */
struct stream {
    int fd; /* -1: at its end */
    char *text;
    size_t n;
};

static void close_stream(struct stream *s)
{
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
}

/* More than is kept is read all the same. */
static void read_stream(struct stream *s)
{
    char bytes[4096];
    ssize_t n = read(s->fd, bytes, sizeof bytes);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) {
        close_stream(s);
        return;
    }
    size_t room = PROGRAM_OUTPUT - s->n, take = (size_t)n < room ? (size_t)n : room;
    memcpy(s->text + s->n, bytes, take);
    s->n += take;
}

/* false: the deadline has come. */
static bool read_both(struct stream *s, int64_t until)
{
    while (s[0].fd >= 0 || s[1].fd >= 0) {
        struct pollfd p[2] = {{.fd = s[0].fd, .events = POLLIN}, {.fd = s[1].fd, .events = POLLIN}};
        int64_t left = until - clock_mono();
        if (left <= 0)
            return false;
        if (poll(p, 2, (int)left) < 0 && errno != EINTR)
            return false;
        for (int i = 0; i < 2; i++)
            if (p[i].fd >= 0 && p[i].revents)
                read_stream(&s[i]);
    }
    return true;
}

/* Its end, before the deadline; false: not. */
static bool reap(pid_t pid, int64_t until, int *status)
{
    for (;;) {
        pid_t got = waitpid(pid, status, WNOHANG);
        if (got == pid)
            return true;
        if ((got < 0 && errno != EINTR) || clock_mono() >= until)
            return false;
        usleep(5000);
    }
}

static int start(const char *const *argv, struct stream *s, pid_t *pid)
{
    static const char *const places[] = {"", "/usr/sbin/", "/sbin/"};
    int out[2], err[2], why = ENOENT;
    posix_spawn_file_actions_t actions;
    if (pipe2(out, O_CLOEXEC) < 0)
        return errno;
    if (pipe2(err, O_CLOEXEC) < 0) {
        why = errno;
        close(out[0]);
        close(out[1]);
        return why;
    }
    if (posix_spawn_file_actions_init(&actions))
        abort();
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    posix_spawn_file_actions_adddup2(&actions, err[1], 2);
    for (size_t i = 0; i < sizeof places / sizeof *places && why == ENOENT; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s%s", places[i], argv[0]);
        why = posix_spawnp(pid, path, &actions, NULL, (char *const *)(uintptr_t)argv, environ);
        if (strchr(argv[0], '/'))
            break;
    }
    posix_spawn_file_actions_destroy(&actions);
    close(out[1]);
    close(err[1]);
    s[0].fd = out[0];
    s[1].fd = err[0];
    return why;
}

static char *ended(struct stream *s)
{
    while (s->n && s->text[s->n - 1] == '\n')
        s->n--;
    s->text[s->n] = '\0';
    return s->text;
}

int program_run(struct arena *arena, const char *const *argv, int64_t ms, char **out, char **said)
{
    struct stream s[2] = {{.fd = -1}, {.fd = -1}};
    int64_t until = clock_mono() + ms;
    pid_t pid;
    int status = 0;
    for (int i = 0; i < 2; i++)
        s[i].text = arena_alloc(arena, PROGRAM_OUTPUT + 1);
    int why = start(argv, s, &pid);
    bool done = !why && read_both(s, until) && reap(pid, until, &status);
    if (!why && !done) {
        kill(pid, SIGKILL);
        (void)waitpid(pid, &status, 0);
    }
    close_stream(&s[0]);
    close_stream(&s[1]);
    *out = ended(&s[0]);
    *said = ended(&s[1]);
    if (why)
        *said = arena_printf(arena, "%s cannot be run: %s", argv[0], strerror(why));
    else if (!done)
        *said = arena_printf(arena, "%s did not end within %lld seconds and was killed", argv[0],
                             (long long)(ms / 1000));
    else if (WIFSIGNALED(status))
        *said = arena_printf(arena, "%s was killed by signal %d", argv[0], WTERMSIG(status));
    return !why && done && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
