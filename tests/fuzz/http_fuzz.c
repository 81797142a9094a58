/*
 * http_fuzz.c - whatever bytes arrive at the control socket: every request that passes the guards
 * is handed on once and answered once, what the routes read of it (path, query, body as a change)
 * harms nothing, and breakwaterctl's reply parser agrees with the server about every reply.
 */
#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "change.h"
#include "ctl_client.h"
#include "http.h"
#include "log.h"

static struct event_base *base;
static char path[64];
static unsigned handled;

static void handle(void *arg, struct http_request *r)
{
    static const char *const known[] = {"rcpt", "limit", NULL};
    (void)arg;
    handled++;
    assert(http_path(r) && *http_who(r));
    struct change *c = change_new((enum change_kind)(handled % CHANGE_KINDS));
    const char *fault = change_read(c, http_body(r));
    bool scope = c->nids || c->storm || c->rcpt || c->kind == CHANGE_MODE;
    assert(fault || scope); /* a complete change says what it is about */
    change_free(&c);
    char *rcpt = change_address(http_query(r, "rcpt"));
    free(rcpt);
    if (http_method(r) == HTTP_OTHER)
        http_method_refused(r, "GET");
    else if (http_query_unknown(r, known) || fault)
        http_problem(r, 400, "%s", fault ? fault : "unknown");
    else
        http_reply(r, 200, json_pack("{sb}", "ok", 1));
}

static void clean_up(void)
{
    unlink(path);
}

static void begin(void)
{
    char error[512];
    signal(SIGPIPE, SIG_IGN);
    log_open("stderr", LOG_NOTHING);
    base = event_base_new();
    snprintf(path, sizeof path, "/tmp/http_fuzz.%ld", (long)getpid());
    atexit(clean_up);
    if (!base || !http_open(base, path, 0600, handle, NULL, error))
        abort();
}

static int dial(void)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    snprintf(un.sun_path, sizeof un.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&un, sizeof un) < 0)
        abort();
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char reply[1 << 18];
    if (!base)
        begin();
    if (size > 100000)
        return 0;
    handled = 0;
    int fd = dial();
    size_t n = 0;
    (void)!send(fd, data, size, MSG_NOSIGNAL);
    shutdown(fd, SHUT_WR);
    for (int turns = 0; turns < 1000; turns++) {
        event_base_loop(base, EVLOOP_NONBLOCK);
        ssize_t got = recv(fd, reply + n, sizeof reply - n, 0);
        if (got == 0 || n == sizeof reply)
            break;
        n += got > 0 ? (size_t)got : 0;
    }
    close(fd);
    event_base_loop(base, EVLOOP_NONBLOCK);
    assert(!handled || n); /* answered */
    int status = 0;
    struct span body;
    if (handled == 1 && ctl_parse(span_of(reply, n), &status, &body))
        assert(status == 200 || status == 400 || status == 405);
    return 0;
}
