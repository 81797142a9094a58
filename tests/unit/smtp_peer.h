/*
 * smtp_peer.h - both ends of the SMTP door in a test: a client, and an MTA behind that obeys a
 * script. One event loop, no threads; everything that can happen has happened when a call returns.
 */
#ifndef SMTP_PEER_H
#define SMTP_PEER_H

#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "smtp.h"
#include "smtp_door.h"

/* ---- the MTA behind ---- */

/* The nth time (from 1; 0: always) a line begins with `at`, `say` is said instead of the usual. "":
 * nothing is said; NULL: it hangs up. at "dot": the final reply; "banner"; "text": as soon as 100
 * bytes of text are there. */
struct line_of_play {
    const char *at;
    unsigned nth;
    const char *say;
    unsigned met;
};

enum { MTA_HEARD = 1 << 18, MTA_TEXT = 4 << 20 };
struct mta {
    struct event_base *base;
    struct evconnlistener *listener;
    uint16_t port;
    const char *offers; /* EHLO keywords, one a line: "PIPELINING\nSIZE 1000\n" */
    struct line_of_play play[8];
    bool hangs_up_after; /* closes after it has said a 421 */
    bool deaf;           /* reads nothing after its 354 */
    struct tls *tls;
    unsigned connections;
    unsigned long activity;
    char heard[MTA_HEARD]; /* its lines, each with a bar after it; ^ begins a connection, $ ends it
                            */
    size_t nheard;
    char text[MTA_TEXT]; /* of the last message, with its dot */
    size_t ntext;
    unsigned messages; /* to which it said 2xx */
    struct mta_session {
        struct mta_session *next;
        struct mta *mta;
        struct bufferevent *bev;
        bool data, early;
    } * sessions;
};

static inline void mta_note(struct mta *m, const char *s, size_t n)
{
    if (m->nheard + n + 2 > sizeof m->heard)
        return;
    memcpy(m->heard + m->nheard, s, n);
    m->nheard += n;
    m->heard[m->nheard] = 0;
}

static inline void mta_end(struct mta_session *s)
{
    struct mta_session **at = &s->mta->sessions;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    bufferevent_free(s->bev);
    free(s);
}

/* false: it hung up. */
static inline bool mta_say(struct mta_session *s, const char *at, const char *usual)
{
    struct mta *m = s->mta;
    for (size_t i = 0; i < sizeof m->play / sizeof *m->play; i++) {
        struct line_of_play *p = &m->play[i];
        if (!p->at || strncasecmp(at, p->at, strlen(p->at)) != 0)
            continue;
        if (++p->met != p->nth && p->nth)
            continue;
        usual = p->say;
        break;
    }
    m->activity++;
    if (!usual) {
        mta_end(s);
        return false;
    }
    bufferevent_write(s->bev, usual, strlen(usual));
    if (m->hangs_up_after && strncmp(usual, "421", 3) == 0) {
        bufferevent_flush(s->bev, EV_WRITE, BEV_FLUSH);
        (void)!send(bufferevent_getfd(s->bev), usual, strlen(usual), MSG_NOSIGNAL);
        mta_end(s);
        return false;
    }
    if (usual[0] == '2' && strcmp(at, "dot") == 0)
        m->messages++;
    return true;
}

static inline bool mta_ehlo(struct mta_session *s, const char *line)
{
    char out[4096] = "250-behind.example\r\n";
    const char *o = s->mta->offers ? s->mta->offers : "PIPELINING\n8BITMIME\nSIZE 1000000\n";
    while (*o) {
        size_t n = strcspn(o, "\n");
        snprintf(out + strlen(out), sizeof out - strlen(out), "250-%.*s\r\n", (int)n, o);
        o += n + (o[n] != 0);
    }
    strcat(out, "250 XUNKNOWN\r\n");
    return mta_say(s, line, out);
}

static inline void mta_callbacks(struct mta_session *);

static inline bool mta_command(struct mta_session *s, const char *line)
{
    static const struct {
        const char *verb, *reply;
    } usual[] = {{"MAIL", "250 2.1.0 ok sender\r\n"},
                 {"RCPT TO:<bad", "550 5.1.1 no such user\r\n"},
                 {"RCPT TO:<later", "450 4.2.0 not now\r\n"},
                 {"RCPT", "250 2.1.5 ok recipient\r\n"},
                 {"DATA", "354 go on\r\n"},
                 {"RSET", "250 2.0.0 reset\r\n"},
                 {"NOOP", "250 2.0.0 behind\r\n"},
                 {"VRFY", "252 2.0.0 perhaps\r\n"},
                 {"XCLIENT", "220 again\r\n"},
                 {"XFORWARD", "250 2.0.0 forward\r\n"},
                 {"AUTH PLAIN ", "235 2.7.0 welcome\r\n"},
                 {"AUTH", "334 \r\n"},
                 {"STARTTLS", "220 2.0.0 go\r\n"},
                 {"HELO", "250 behind.example\r\n"},
                 {"QUIT", "221 2.0.0 bye\r\n"}};
    if (strncasecmp(line, "EHLO", 4) == 0)
        return mta_ehlo(s, line);
    const char *reply = "500 5.5.2 what?\r\n";
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
        if (strncasecmp(line, usual[i].verb, strlen(usual[i].verb)) == 0) {
            reply = usual[i].reply;
            break;
        }
    if (strcmp(line, "*") == 0)
        reply = "501 5.7.0 cancelled\r\n";
    if (strncasecmp(line, "STARTTLS", 8) == 0 && s->mta->tls) {
        (void)!send(bufferevent_getfd(s->bev), reply, strlen(reply), MSG_NOSIGNAL);
        s->bev = tls_start(s->mta->tls, s->bev, true);
        mta_callbacks(s);
        return false;
    }
    if (!mta_say(s, line, reply))
        return false;
    s->data = strncasecmp(line, "DATA", 4) == 0 && reply[0] == '3';
    for (size_t i = 0; s->data && i < sizeof s->mta->play / sizeof *s->mta->play; i++) {
        const struct line_of_play *p = &s->mta->play[i];
        if (p->at && strcmp(p->at, "DATA") == 0 && (p->nth == 0 || p->met == p->nth) &&
            p->say[0] != '3')
            s->data = false;
    }
    if (s->data)
        s->mta->ntext = 0;
    if (s->data && s->mta->deaf)
        bufferevent_disable(s->bev, EV_READ);
    return true;
}

/* True when a whole line was there. */
static inline bool mta_line(struct mta_session *s)
{
    struct mta *m = s->mta;
    size_t n;
    char *line = evbuffer_readln(bufferevent_get_input(s->bev), &n, EVBUFFER_EOL_CRLF_STRICT);
    bool go_on = line != NULL;
    if (!line)
        return false;
    m->activity++;
    if (!s->data) {
        mta_note(m, line, n);
        mta_note(m, "|", 1);
        go_on = mta_command(s, line);
    } else {
        if (m->ntext + n + 3 > sizeof m->text)
            abort();
        memcpy(m->text + m->ntext, line, n);
        memcpy(m->text + m->ntext + n, "\r\n", 3);
        m->ntext += n + 2;
        if (n == 1 && line[0] == '.') {
            s->data = false;
            mta_note(m, "dot|", 4);
            go_on = mta_say(s, "dot", "250 2.0.0 queued behind\r\n");
        } else if (m->ntext > 100 && !s->early) {
            s->early = true;
            go_on = mta_say(s, "text", "");
        }
    }
    free(line);
    return go_on;
}

static inline void mta_read(struct bufferevent *bev, void *arg)
{
    (void)bev;
    while (mta_line(arg))
        ;
}

static inline void mta_event(struct bufferevent *bev, short what, void *arg)
{
    struct mta_session *s = arg;
    (void)bev;
    s->mta->activity++;
    if (what & BEV_EVENT_CONNECTED)
        return;
    mta_note(s->mta, "$", 1);
    mta_end(s);
}

static inline void mta_callbacks(struct mta_session *s)
{
    bufferevent_setcb(s->bev, mta_read, NULL, mta_event, s);
    bufferevent_enable(s->bev, EV_READ | EV_WRITE);
}

static inline void mta_accepted(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *sa,
                                int n, void *arg)
{
    struct mta *m = arg;
    struct mta_session *s = calloc(1, sizeof *s);
    (void)l, (void)sa, (void)n;
    if (!s)
        abort();
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    m->connections++;
    s->mta = m;
    s->next = m->sessions;
    m->sessions = s;
    s->bev = bufferevent_socket_new(m->base, fd, BEV_OPT_CLOSE_ON_FREE);
    mta_callbacks(s);
    mta_note(m, "^", 1);
    (void)mta_say(s, "banner", "220 behind.example ESMTP\r\n");
}

static inline void mta_open(struct mta *m, struct event_base *base)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof sa;
    m->base = base;
    m->listener = evconnlistener_new_bind(base, mta_accepted, m, LEV_OPT_CLOSE_ON_FREE, 16,
                                          (struct sockaddr *)&sa, sizeof sa);
    if (!m->listener || getsockname(evconnlistener_get_fd(m->listener), (struct sockaddr *)&sa, &n))
        abort();
    m->port = ntohs(sa.sin_port);
}

/* Nothing is left of what was said, and there is no script. */
static inline void mta_fresh(struct mta *m)
{
    while (m->sessions)
        mta_end(m->sessions);
    memset(m->play, 0, sizeof m->play);
    m->offers = NULL;
    m->hangs_up_after = m->deaf = false;
    m->nheard = m->ntext = 0;
    m->heard[0] = m->text[0] = 0;
    m->tls = NULL;
    m->connections = m->messages = 0;
}

static inline void mta_close(struct mta *m)
{
    mta_fresh(m);
    evconnlistener_free(m->listener);
}

/* ---- the client ---- */

struct client {
    struct worker *worker;
    struct mta *mta;
    int fd;
    bool closed; /* by the door */
    char said[1 << 18];
    size_t nsaid;
};

/* Lets everybody work until nobody has anything to do. */
static inline void client_turn(struct client *c)
{
    for (int quiet = 0; quiet < 3;) {
        unsigned long before = c->mta ? c->mta->activity : 0;
        event_base_loop(c->worker->base, EVLOOP_NONBLOCK);
        ssize_t n = c->closed ? -1
                              : recv(c->fd, c->said + c->nsaid, sizeof c->said - 1 - c->nsaid,
                                     MSG_DONTWAIT);
        if (n > 0)
            c->nsaid += (size_t)n;
        else if (!c->closed && (n == 0 || (errno != EAGAIN && errno != EINTR)))
            c->closed = true;
        c->said[c->nsaid] = 0;
        quiet = n > 0 || (c->mta && c->mta->activity != before) ? 0 : quiet + 1;
    }
}

/* early: bytes that are there before the door has a look. tcp: from 127.0.0.1, else from nowhere.
 */
static inline void client_open(struct client *c, struct worker *w, struct mta *mta,
                               const struct listener *l, bool tcp, const char *early)
{
    int fd[2];
    c->worker = w;
    c->mta = mta;
    c->nsaid = 0;
    c->closed = false;
    if (tcp) {
        struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
        socklen_t n = sizeof sa;
        int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (s < 0 || bind(s, (struct sockaddr *)&sa, n) || listen(s, 1) ||
            getsockname(s, (struct sockaddr *)&sa, &n) || connect(fd[0], (struct sockaddr *)&sa, n))
            abort();
        fd[1] = accept4(s, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        close(s);
        setsockopt(fd[0], IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        setsockopt(fd[1], IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    } else if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd)) {
        abort();
    }
    (void)fcntl(fd[1], F_SETFL, O_NONBLOCK);
    c->fd = fd[0];
    if (early)
        (void)!send(c->fd, early, strlen(early), MSG_NOSIGNAL);
    smtp_accept(w, fd[1], l);
    client_turn(c);
}

static inline void client_send(struct client *c, const void *data, size_t n)
{
    for (const char *at = data; n && !c->closed;) {
        ssize_t w = send(c->fd, at, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (w > 0) {
            at += w;
            n -= (size_t)w;
        } else if (errno != EAGAIN) {
            c->closed = true;
        }
        if (n)
            client_turn(c);
    }
    client_turn(c);
}

static inline void client_say(struct client *c, const char *text)
{
    client_send(c, text, strlen(text));
}

/* Hangs up; all notice. */
static inline void client_close(struct client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->closed = true;
    client_turn(c);
}

/* The codes of all its replies: "220 250 354 250", and " x" if the door closed. */
static inline const char *client_codes(const struct client *c)
{
    static char out[1 << 14];
    size_t n = 0;
    out[0] = 0;
    for (const char *line = c->said; *line && n + 8 < sizeof out;) {
        const char *end = strstr(line, "\r\n");
        if (!end)
            return "half a line";
        if (end - line < 3 || strspn(line, "2345") < 1)
            return "not a reply";
        if (line[3] != '-')
            n += (size_t)snprintf(out + n, sizeof out - n, "%s%.3s", n ? " " : "", line);
        line = end + 2;
    }
    if (c->closed)
        snprintf(out + n, sizeof out - n, " x");
    return out;
}

/* ---- the door between them ---- */

struct world {
    struct worker worker;
    struct pipeline pipeline;
    struct config *config;
    struct mta mta;
};

/* text: smtp sections, with % for the address of the MTA behind. */
static inline void world_open(struct world *w, const char *text)
{
    char error[512], all[8192] = "node { name = gw.example }\n";
    size_t n = strlen(all);
    signal(SIGPIPE, SIG_IGN); /* as the daemon does */
    log_open("stderr", LOG_NOTHING);
    w->worker.base = event_base_new();
    mta_open(&w->mta, w->worker.base);
    for (const char *c = text; *c && n + 64 < sizeof all; c++)
        n += *c == '%' ? (size_t)snprintf(all + n, 64, "\"127.0.0.1:%u\"", w->mta.port)
                       : (size_t)snprintf(all + n, 64, "%c", *c);
    w->config = config_parse("/test/breakwater.conf", span_str(all), CONFIG_READ, error);
    if (!w->config || !(w->pipeline.doors = smtp_doors_new(w->config, error))) {
        fprintf(stderr, "%s\n", error);
        abort();
    }
    w->pipeline.figures = figures_new(w->config);
    w->worker.pipeline = &w->pipeline;
    w->worker.config = w->config;
    w->worker.mailbox = mailbox_new(w->worker.base);
    if (keys_open(&w->worker.keys, w->config->site_key) < 0)
        abort();
}

static inline const struct listener *world_listener(const struct world *w, const char *name)
{
    for (size_t i = 0; i < w->config->nlisteners; i++)
        if (strcmp(w->config->listeners[i].name, name) == 0)
            return &w->config->listeners[i];
    abort();
}

static inline void world_close(struct world *w)
{
    mta_close(&w->mta);
    smtp_doors_free(&w->pipeline.doors);
    mailbox_free(&w->worker.mailbox);
    keys_close(&w->worker.keys);
    figures_free(&w->pipeline.figures);
    config_drop(&w->config);
    event_base_free(w->worker.base);
}

#endif
