/*
 * sink.c - an SMTP server that takes everything and remembers it, for tests and the demo; it can be
 * told to misbehave. Nothing is ever sent on.
 *
 *   sink [-l ADDRESS] [-e KEYWORD,...] [-r RULE]... [-o FILE] [-d DIR]
 *
 *   -l  where to listen: 127.0.0.1:0 (default: a free port), [::1]:PORT, unix:/path
 *   -e  what EHLO offers (default PIPELINING,8BITMIME,SMTPUTF8,SIZE,DSN); "-": nothing
 *   -r  EVENT[:WHICH]=ACTION, the first that fits counts
 *         EVENT   connect ehlo helo mail rcpt data text dot (text: first line after DATA)
 *         WHICH   N: the N-th such event of all; N+: it and all later ones; else: text that the
 *                 command contains; without it: every one
 *         ACTION  "450 4.2.1 later" any reply ('|' begins its next line; 421 ends the connection);
 *                 close; mute (no reply ever); wait=MS (then the usual reply)
 *   -o  one JSON line for each delivered recipient (default: standard output)
 *   -d  each message as a file there
 *
 * The first line of standard output says where it listens. A dot that is answered 2xx or with close
 * or mute is a delivery. Only CRLF . CRLF ends a message; other CR and LF are counted as stray.
 *
 * tests/unit includes this file (with SINK_NO_MAIN) and runs it in the loop of the test.
 */
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <fcntl.h>
#include <jansson.h>
#include <netinet/in.h>
#include <openssl/sha.h>
#include <search.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "log.h"
#include "span.h"

enum sink_event {
    SINK_CONNECT,
    SINK_EHLO,
    SINK_HELO,
    SINK_MAIL,
    SINK_RCPT,
    SINK_DATA,
    SINK_TEXT,
    SINK_DOT,
    SINK_EVENTS /* must be last */
};
static const char *const sink_events[SINK_EVENTS] = {"connect", "ehlo", "helo", "mail",
                                                     "rcpt",    "data", "text", "dot"};

struct sink_rule {
    enum sink_event event;
    unsigned long nth; /* 0: every, or those containing text */
    bool onwards;
    const char *text;
    const char *action;
};

struct sink_message {
    const char *from; /* what followed "MAIL FROM:", parameters included */
    char **rcpts;     /* what followed "RCPT TO:" */
    size_t nrcpts;
    struct span data; /* without dot-stuffing */
    unsigned stray;
};
typedef void sink_fn(void *arg, const struct sink_message *);

struct sink {
    struct event_base *base;
    struct evconnlistener *listener;
    char address[128]; /* where it really listens */
    const char *offers;
    struct sink_rule *rules;
    size_t nrules;
    unsigned long seen[SINK_EVENTS], connections, messages;
    struct evbuffer *transcript; /* if there: every line that came in */
    sink_fn *deliver;
    void *arg;
};

struct sink_session {
    struct sink *sink;
    struct bufferevent *bev;
    struct event *waiting; /* a reply held back */
    char *reply;
    bool text, ending, mute;
    struct sink_message message;
    char *from;
    uint8_t *data;
    size_t ndata, capdata;
};

/* ---- what to answer ---- */

/* "rcpt:2=450 later"; the text must live. false: not a rule. */
static bool sink_rule_add(struct sink *s, char *rule)
{
    struct sink_rule r = {0};
    char *action = strchr(rule, '='), *which, *end;
    if (!action)
        return false;
    *action++ = '\0';
    if ((which = strchr(rule, ':')))
        *which++ = '\0';
    while (r.event < SINK_EVENTS && strcmp(sink_events[r.event], rule) != 0)
        r.event++;
    r.action = action;
    if (which && byte_digit((uint8_t)*which)) {
        r.nth = strtoul(which, &end, 10);
        r.onwards = *end == '+';
    } else {
        r.text = which;
    }
    s->rules = reallocarray(s->rules, s->nrules + 1, sizeof *s->rules);
    s->rules[s->nrules++] = r;
    return r.event < SINK_EVENTS;
}

static const char *sink_action(struct sink *s, enum sink_event event, const char *line)
{
    unsigned long n = ++s->seen[event];
    for (size_t i = 0; i < s->nrules; i++) {
        const struct sink_rule *r = &s->rules[i];
        if (r->event == event && (!r->text || strstr(line, r->text)) &&
            (!r->nth || r->nth == n || (r->onwards && n > r->nth)))
            return r->action;
    }
    return NULL;
}

static void session_free(struct sink_session *c)
{
    for (size_t i = 0; i < c->message.nrcpts; i++)
        free(c->message.rcpts[i]);
    free(c->message.rcpts);
    free(c->from);
    free(c->data);
    free(c->reply);
    if (c->waiting)
        event_free(c->waiting);
    bufferevent_free(c->bev);
    c->sink->connections--;
    free(c);
}

static void session_say(struct sink_session *c, const char *reply)
{
    struct evbuffer *out = bufferevent_get_output(c->bev);
    for (const char *end; (end = strchr(reply, '|')); reply = end + 1)
        evbuffer_add_printf(out, "%.*s\r\n", (int)(end - reply), reply);
    evbuffer_add_printf(out, "%s\r\n", reply);
    c->ending |= strncmp(reply, "421", 3) == 0 || strncmp(reply, "221", 3) == 0;
}

static void session_read(struct bufferevent *bev, void *arg);

static void session_resume(evutil_socket_t fd, short what, void *arg)
{
    struct sink_session *c = arg;
    (void)fd, (void)what;
    event_free(c->waiting);
    c->waiting = NULL;
    char *reply = c->reply;
    c->reply = NULL;
    session_say(c, reply);
    free(reply);
    session_read(c->bev, c);
}

/* Answers an event as the rules or custom want. true: with 2xx or 3xx, or not at all. */
static bool session_answer(struct sink_session *c, enum sink_event event, const char *line,
                           const char *usual)
{
    const char *action = sink_action(c->sink, event, line);
    if (action && strncmp(action, "wait=", 5) == 0) {
        long ms = strtol(action + 5, NULL, 10);
        struct timeval tv = {ms / 1000, ms % 1000 * 1000};
        c->reply = strdup(usual);
        c->waiting = evtimer_new(c->sink->base, session_resume, c);
        evtimer_add(c->waiting, &tv);
        return true;
    }
    if (action && strcmp(action, "mute") == 0)
        return c->mute = true;
    if (action && strcmp(action, "close") == 0)
        return c->mute = c->ending = true;
    session_say(c, action ? action : usual);
    return !action || *action < '4';
}

/* ---- one message ---- */

static void message_forget(struct sink_session *c)
{
    for (size_t i = 0; i < c->message.nrcpts; i++)
        free(c->message.rcpts[i]);
    free(c->message.rcpts);
    free(c->from);
    c->from = NULL;
    c->message = (struct sink_message){0};
    c->ndata = 0;
}

static void message_end(struct sink_session *c)
{
    char usual[64];
    struct sink *s = c->sink;
    c->text = false;
    snprintf(usual, sizeof usual, "250 2.0.0 Ok: swallowed as %lu", s->messages + 1);
    c->message.from = c->from;
    c->message.data = span_of(c->data, c->ndata);
    if (session_answer(c, SINK_DOT, "", usual)) {
        s->messages++;
        if (s->deliver)
            s->deliver(s->arg, &c->message);
    }
    message_forget(c);
}

static void message_line(struct sink_session *c, struct span line)
{
    if (span_eq(line, SPAN("."))) {
        message_end(c);
        return;
    }
    for (size_t i = 0; i < line.n; i++)
        c->message.stray += line.p[i] == '\r' || line.p[i] == '\n';
    if (line.n && line.p[0] == '.')
        line = span_from(line, 1);
    if (c->ndata + line.n + 2 > c->capdata)
        c->data = realloc(c->data, c->capdata = (c->ndata + line.n + 2) * 2);
    memcpy(c->data + c->ndata, line.p, line.n);
    memcpy(c->data + c->ndata + line.n, "\r\n", 2);
    c->ndata += line.n + 2;
}

/* ---- one session ---- */

static void session_ehlo(struct sink_session *c, const char *line)
{
    char usual[512] = "250-sink";
    const char *p = c->sink->offers;
    if (!*p)
        strcpy(usual, "250 sink");
    while (*p) {
        size_t n = strcspn(p, ","), at = strlen(usual);
        snprintf(usual + at, sizeof usual - at, "|250%c%.*s", p[n] ? '-' : ' ', (int)n, p);
        p += n + (p[n] == ',');
    }
    session_answer(c, SINK_EHLO, line, usual);
}

static void session_rcpt(struct sink_session *c, const char *line)
{
    struct sink_message *m = &c->message;
    if (!c->from) {
        session_say(c, "503 5.5.1 MAIL first");
        return;
    }
    if (!session_answer(c, SINK_RCPT, line, "250 2.1.5 Ok"))
        return;
    m->rcpts = reallocarray(m->rcpts, m->nrcpts + 1, sizeof *m->rcpts);
    m->rcpts[m->nrcpts++] = strdup(line + 8);
}

static void session_command(struct sink_session *c, const char *line)
{
    if (strncasecmp(line, "EHLO", 4) == 0) {
        session_ehlo(c, line);
    } else if (strncasecmp(line, "HELO", 4) == 0) {
        session_answer(c, SINK_HELO, line, "250 sink");
    } else if (strncasecmp(line, "MAIL FROM:", 10) == 0) {
        message_forget(c);
        if (session_answer(c, SINK_MAIL, line, "250 2.1.0 Ok"))
            c->from = strdup(line + 10);
    } else if (strncasecmp(line, "RCPT TO:", 8) == 0) {
        session_rcpt(c, line);
    } else if (strcasecmp(line, "DATA") == 0) {
        if (!c->message.nrcpts)
            session_say(c, "554 5.5.1 no valid recipients");
        else
            c->text = session_answer(c, SINK_DATA, line, "354 go ahead");
    } else if (strcasecmp(line, "RSET") == 0 || strcasecmp(line, "NOOP") == 0) {
        message_forget(c);
        session_say(c, "250 2.0.0 Ok");
    } else if (strcasecmp(line, "QUIT") == 0) {
        session_say(c, "221 2.0.0 Bye");
    } else {
        session_say(c, "502 5.5.2 not here");
    }
}

static void session_line(struct sink_session *c, char *line, size_t n)
{
    bool first = c->text && c->ndata == 0;
    if (c->sink->transcript) {
        evbuffer_add(c->sink->transcript, line, n);
        evbuffer_add(c->sink->transcript, "\r\n", 2);
    }
    if (!c->text) {
        session_command(c, line);
        return;
    }
    if (first) {
        const char *action = sink_action(c->sink, SINK_TEXT, line);
        if (action && strcmp(action, "close") != 0)
            session_say(c, action);
        c->ending |= action != NULL;
    }
    if (!c->ending)
        message_line(c, span_of(line, n));
}

static void session_flushed(struct bufferevent *bev, void *arg)
{
    struct sink_session *c = arg;
    if (c->ending && evbuffer_get_length(bufferevent_get_output(bev)) == 0)
        session_free(c);
}

static void session_read(struct bufferevent *bev, void *arg)
{
    struct sink_session *c = arg;
    struct evbuffer *in = bufferevent_get_input(bev);
    size_t n;
    char *line;
    while (!c->waiting && !c->ending &&
           (line = evbuffer_readln(in, &n, EVBUFFER_EOL_CRLF_STRICT))) {
        if (!c->mute)
            session_line(c, line, n);
        free(line);
    }
    session_flushed(bev, c);
}

static void session_gone(struct bufferevent *bev, short what, void *arg)
{
    (void)bev, (void)what;
    session_free(arg);
}

static void sink_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *sa, int n,
                        void *arg)
{
    struct sink *s = arg;
    struct sink_session *c = calloc(1, sizeof *c);
    (void)l, (void)sa, (void)n;
    c->sink = s;
    s->connections++;
    c->bev = bufferevent_socket_new(s->base, fd, BEV_OPT_CLOSE_ON_FREE);
    bufferevent_setcb(c->bev, session_read, session_flushed, session_gone, c);
    bufferevent_enable(c->bev, EV_READ | EV_WRITE);
    session_answer(c, SINK_CONNECT, "", "220 sink ESMTP");
    session_flushed(c->bev, c);
}

/* NULL: cannot listen there. Afterwards set offers, rules, transcript, deliver as wished. */
static struct sink *sink_new(struct event_base *base, const char *address)
{
    struct sink *s = calloc(1, sizeof *s);
    struct sockaddr_storage sa = {0};
    struct sockaddr_un *un = (struct sockaddr_un *)&sa;
    int n = sizeof sa;
    s->base = base;
    s->offers = "PIPELINING,8BITMIME,SMTPUTF8,SIZE,DSN";
    if (strncmp(address, "unix:", 5) == 0) {
        un->sun_family = AF_UNIX;
        snprintf(un->sun_path, sizeof un->sun_path, "%s", address + 5);
        n = sizeof *un;
    } else {
        char host[64]; /* port 0 is said by leaving it away */
        size_t len = strlen(address);
        snprintf(host, sizeof host, "%s", address);
        if (len > 2 && len < sizeof host && strcmp(address + len - 2, ":0") == 0)
            host[len - 2] = '\0';
        if (evutil_parse_sockaddr_port(host, (struct sockaddr *)&sa, &n)) {
            free(s);
            return NULL;
        }
    }
    unsigned flags = LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE | LEV_OPT_CLOSE_ON_EXEC;
    s->listener = evconnlistener_new_bind(base, sink_accept, s, flags, 128, (void *)&sa, n);
    if (!s->listener) {
        free(s);
        return NULL;
    }
    snprintf(s->address, sizeof s->address, "%s", address);
    socklen_t len = sizeof sa;
    getsockname(evconnlistener_get_fd(s->listener), (struct sockaddr *)&sa, &len);
    if (sa.ss_family == AF_INET)
        snprintf(s->address, sizeof s->address, "127.0.0.1:%u",
                 ntohs(((struct sockaddr_in *)&sa)->sin_port));
    if (sa.ss_family == AF_INET6)
        snprintf(s->address, sizeof s->address, "[::1]:%u",
                 ntohs(((struct sockaddr_in6 *)&sa)->sin6_port));
    return s;
}

#ifndef SINK_NO_MAIN

/* ---- the program ---- */

static FILE *report;
static const char *directory;
static struct sink *the_sink;

struct delivery {
    char *key; /* recipient, newline, Message-ID */
    unsigned long n;
};
static void *deliveries;

static int delivery_order(const void *a, const void *b)
{
    return strcmp(((const struct delivery *)a)->key, ((const struct delivery *)b)->key);
}

/* The how manieth copy of this message is it for the recipient? */
static unsigned long delivery_number(const char *rcpt, const char *id)
{
    struct delivery *d = calloc(1, sizeof *d);
    if (asprintf(&d->key, "%s\n%s", rcpt, id) < 0)
        abort();
    struct delivery *known = *(struct delivery **)tsearch(d, &deliveries, delivery_order);
    if (known != d) {
        free(d->key);
        free(d);
    }
    return ++known->n;
}

/* Message-ID, and the fields that are breakwater's. */
static void look_at_fields(struct span data, char id[1024], json_t *ours)
{
    char text[2048];
    id[0] = '\0';
    while (data.n) {
        struct span line = span_head(data, span_find(data, '\n') + 1);
        data = span_from(data, line.n);
        while (data.n && (data.p[0] == ' ' || data.p[0] == '\t')) { /* folded */
            size_t more = span_find(data, '\n') + 1;
            line.n += more;
            data = span_from(data, more);
        }
        if (span_trim(line).n == 0)
            return;
        escape_text(text, sizeof text, span_trim(line));
        if (span_case_starts(line, SPAN("Message-ID:")))
            escape_text(id, 1024, span_trim(span_from(line, 11)));
        if (span_case_starts(line, SPAN("X-Breakwater")))
            json_array_append_new(ours, json_string(text));
    }
}

static char *keep_file(const struct sink_message *m)
{
    char *path;
    if (!directory || asprintf(&path, "%s/%08lu.eml", directory, the_sink->messages) < 0)
        return NULL;
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(m->data.p, 1, m->data.n, f) != m->data.n || fclose(f))
        abort();
    return path;
}

/* The path between < and >, escaped; what follows goes to params. */
static void split_path(const char *text, char path[2048], char params[1024])
{
    struct span s = span_trim(span_str(text));
    size_t end = span_rfind(s, '>');
    struct span inner = span_head(s, end);
    escape_text(params, 1024, span_trim(span_from(s, end + 1)));
    escape_text(path, 2048, inner.n && inner.p[0] == '<' ? span_from(inner, 1) : inner);
}

static void print_delivery(void *arg, const struct sink_message *m)
{
    char id[1024], from[2048], from_params[1024], sha[65];
    uint8_t digest[32];
    json_t *ours = json_array();
    (void)arg;
    SHA256(m->data.p, m->data.n, digest);
    for (size_t i = 0; i < 32; i++)
        snprintf(sha + 2 * i, 3, "%02x", digest[i]);
    look_at_fields(m->data, id, ours);
    split_path(m->from, from, from_params);
    char *file = keep_file(m);
    for (size_t i = 0; i < m->nrcpts; i++) {
        char rcpt[2048], params[1024];
        split_path(m->rcpts[i], rcpt, params);
        json_t *line =
            json_pack("{ss ss ss ss sI sI ss ss sI sO ss*}", "rcpt", rcpt, "params", params, "from",
                      from, "from_params", from_params, "n", (json_int_t)delivery_number(rcpt, id),
                      "bytes", (json_int_t)m->data.n, "sha256", sha, "message_id", id, "stray",
                      (json_int_t)m->stray, "breakwater", ours, "file", file);
        json_dumpf(line, report, JSON_COMPACT | JSON_PRESERVE_ORDER);
        fputc('\n', report);
        json_decref(line);
    }
    fflush(report);
    json_decref(ours);
    free(file);
}

static void stop(evutil_socket_t sig, short what, void *base)
{
    (void)sig, (void)what;
    event_base_loopbreak(base);
}

static void usage(void)
{
    fputs("usage: sink [-l ADDRESS] [-e KEYWORD,...] [-r EVENT[:WHICH]=ACTION]... [-o FILE] "
          "[-d DIR]\n",
          stderr);
    exit(2);
}

int main(int argc, char **argv)
{
    struct sink wish = {0};
    const char *address = "127.0.0.1:0", *offers = NULL;
    report = stdout;
    for (int c; (c = getopt(argc, argv, "l:e:r:o:d:")) != -1;) {
        if (c == 'l')
            address = optarg;
        else if (c == 'e')
            offers = strcmp(optarg, "-") == 0 ? "" : optarg;
        else if (c == 'd')
            directory = optarg;
        else if (c == 'o' && !(report = fopen(optarg, "a")))
            usage();
        else if ((c == 'r' && !sink_rule_add(&wish, optarg)) || c == '?')
            usage();
    }
    signal(SIGPIPE, SIG_IGN);
    struct event_base *base = event_base_new();
    struct sink *s = the_sink = sink_new(base, address);
    if (!s) {
        fprintf(stderr, "sink: cannot listen at %s: %s\n", address, strerror(errno));
        return 1;
    }
    s->rules = wish.rules;
    s->nrules = wish.nrules;
    if (offers)
        s->offers = offers;
    s->deliver = print_delivery;
    printf("listening %s\n", s->address);
    fflush(stdout);
    event_add(evsignal_new(base, SIGTERM, stop, base), NULL);
    event_add(evsignal_new(base, SIGINT, stop, base), NULL);
    event_base_dispatch(base);
    return 0;
}
#endif
