/*
 * setup_postfix.c - see setup.h. One parameter of main.cf, smtpd_milters, gets one more milter, the
 * last: { inet:..., default_action=accept }. That is: when breakwaterd is not there, mail flows as
 * before (MILTER_README of Postfix; per-milter settings exist since 3.0).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "place.h"
#include "program.h"
#include "setup.h"

enum { PATIENCE = 30000 /* ms for one call of a program of Postfix's */ };

static const char parameter[] = "smtpd_milters";

struct postfix {
    const struct setup *setup;
    const struct ctl *ctl;
    struct arena *arena;
    const char *dir;    /* its configuration */
    const char *file;   /* its main.cf, links followed */
    const char *milter; /* "inet:127.0.0.1:8895" */
    const char *value;  /* of the parameter, as it is */
    const struct listener *listener;
};

/* ---- asking Postfix ---- */

static int run(struct postfix *p, const char *const *argv, char **out)
{
    char *said;
    int rc = program_run(p->arena, argv, PATIENCE, out, &said);
    if (rc != 0)
        ctl_complain("%s: %s", argv[0],
                     *said ? print_text(p->arena, said, 400) : "it failed without a word");
    return rc;
}

static int postconf(struct postfix *p, const char *option, const char *what, char **out)
{
    const char *const argv[] = {"postconf", "-c", p->dir, option, what, NULL};
    return run(p, argv, out);
}

/* The address breakwaterd listens on as Postfix writes it; NULL: not one that it can reach. */
static const char *milter_address(struct arena *a, const char *socket)
{
    struct span s = span_str(socket);
    size_t at = span_find(s, '@'), colon = span_find(s, ':');
    bool six = span_starts(s, SPAN("inet6:"));
    if (span_starts(s, SPAN("unix:")))
        return socket;
    struct span port = span_of(s.p + colon + 1, at - colon - 1);
    struct span host = span_from(s, at + 1);
    if (span_eq(host, SPAN("0.0.0.0")))
        host = SPAN("127.0.0.1");
    if (span_eq(host, SPAN("::")))
        host = SPAN("::1");
    return arena_printf(a, six ? "inet:[%.*s]:%.*s" : "inet:%.*s:%.*s", SPAN_ARG(host),
                        SPAN_ARG(port));
}

static const struct listener *find_listener(const struct config *c)
{
    for (size_t i = 0; i < c->nlisteners; i++)
        if (c->listeners[i].kind == DOOR_MILTER)
            return &c->listeners[i];
    return NULL;
}

/* Everything that can be known before anything is changed. */
static int look(struct postfix *p, const struct setup *setup)
{
    char *out, real[4096];
    const char *const where[] = {"postconf", "-h", "config_directory", NULL};
    *p = (struct postfix){.setup = setup, .ctl = setup->ctl, .arena = setup->ctl->arena};
    p->dir = setup->ctl->config_dir;
    if (!p->dir) {
        if (run(p, where, &out) != 0)
            return CTL_REFUSED;
        p->dir = out;
    }
    const char *file = arena_printf(p->arena, "%s/main.cf", p->dir);
    if (!realpath(file, real)) {
        ctl_complain("%s: %s", file, strerror(errno));
        return CTL_REFUSED;
    }
    p->file = arena_str(p->arena, span_str(real));
    p->listener = find_listener(setup->config);
    if (!p->listener) {
        ctl_complain(
            "%s has no section milter NAME { socket = ... }: there is nothing that Postfix "
            "could ask",
            setup->config->file ? setup->config->file : "the configuration");
        return CTL_REFUSED;
    }
    p->milter = milter_address(p->arena, p->listener->socket);
    if (postconf(p, "-h", parameter, &out) != 0)
        return CTL_REFUSED;
    p->value = out;
    return CTL_OK;
}

/* What is added: a milter that is not there is no reason to stop mail. */
static const char *element(const struct postfix *p)
{
    return arena_printf(p->arena,
                        "{ %s, connect_timeout=2s, command_timeout=30s, content_timeout=60s, "
                        "default_action=accept }",
                        p->milter);
}

/* Not as the beginning of another address. */
static bool present(const struct postfix *p)
{
    struct span milter = span_str(p->milter);
    for (struct span s = span_str(p->value); s.n >= milter.n; s = span_from(s, 1))
        if (span_case_eq(span_head(s, milter.n), milter) &&
            (s.n == milter.n || memchr(" \t,}", s.p[milter.n], 4)))
            return true;
    return false;
}

/* ---- changing it ---- */

static int set_value(struct postfix *p, const char *value)
{
    char *out;
    if (!*value)
        return postconf(p, "-X", parameter, &out);
    return postconf(p, "-e", arena_printf(p->arena, "%s = %s", parameter, value), &out);
}

/* 0; -1: it runs with its old configuration until somebody reloads it. */
static int reload(struct postfix *p)
{
    char *out, *said, *why;
    const char *const argv[] = {"postfix", "-c", p->dir, "reload", NULL};
    const char *const status[] = {"postfix", "-c", p->dir, "status", NULL};
    const char *done = "Postfix has read it again.";
    if (program_run(p->arena, argv, PATIENCE, &out, &why) != 0) {
        if (program_run(p->arena, status, PATIENCE, &out, &said) == 0) {
            ctl_complain("Postfix could not be told (%s): postfix reload does it",
                         print_text(p->arena, why, 400));
            return -1;
        }
        done = "Postfix does not run now: it will read this when it starts.";
    }
    if (!p->ctl->json)
        puts(done);
    return 0;
}

static bool answers(const struct listener *l)
{
    struct sockaddr_storage address;
    socklen_t n;
    if (!place_address(span_str(l->socket), &address, &n))
        return false;
    int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool yes = fd >= 0 && connect(fd, (struct sockaddr *)&address, n) == 0;
    if (fd >= 0)
        close(fd);
    return yes;
}

static void tell_change(const struct postfix *p, const char *to, const char *how)
{
    json_t *j;
    if (!p->ctl->json) {
        printf("%s%s:\n", p->file, p->ctl->dry ? ", would be changed" : "");
        printf("  - %s = %s\n", parameter, print_text(p->arena, p->value, 0));
        printf("  + %s = %s\n", parameter, print_text(p->arena, to, 0));
        return;
    }
    j = json_pack("{s:s,s:s,s:s,s:s,s:b,s:b}", "file", p->file, "parameter", parameter, "before",
                  p->value, "after", to, "changed", !p->ctl->dry, how, true);
    ctl_json(j);
    json_decref(j);
}

static void tell_rest(const struct postfix *p)
{
    if (!answers(p->listener))
        printf("breakwaterd does not answer at %s now. Until it does mail flows as before.\n",
               p->listener->socket);
    if (span_starts(span_str(p->milter), SPAN("unix:")))
        puts("A chrooted smtpd looks for the socket's path below the queue directory; an inet: "
             "socket "
             "is the simple way.");
    if (!p->setup->config->release_to)
        puts("For held mail to be released, release { to = \"127.0.0.1:25\" } has to be in "
             "breakwater.conf.");
    printf("To take it back, byte for byte: breakwaterctl setup postfix --undo%s%s\n",
           p->ctl->config_dir ? " --config-dir " : "",
           p->ctl->config_dir ? p->ctl->config_dir : "");
}

static int cannot(const char *path)
{
    ctl_complain("%s: %s%s", path, strerror(errno),
                 errno == EACCES || errno == EPERM ? "; setup has to be run as root" : "");
    return CTL_REFUSED;
}

static int keep_before(struct postfix *p)
{
    struct span bytes;
    const char *before = setup_before(p->arena, p->file);
    if (access(before, F_OK) == 0) {
        ctl_complain("%s is of a former setup: look what it is about, then move it away", before);
        return CTL_REFUSED;
    }
    if (!setup_read(p->arena, p->file, &bytes))
        return cannot(p->file);
    return setup_write(before, bytes, p->file) < 0 ? cannot(before) : CTL_OK;
}

static int keep_after(struct postfix *p)
{
    struct span bytes;
    const char *after = setup_after(p->arena, p->file);
    if (!setup_read(p->arena, p->file, &bytes))
        return cannot(p->file);
    return setup_write(after, bytes, p->file) < 0 ? cannot(after) : CTL_OK;
}

/* Back to the copy; the file is as it was before setup was called. */
static int put_back(struct postfix *p)
{
    struct span bytes;
    const char *before = setup_before(p->arena, p->file);
    if (!setup_read(p->arena, before, &bytes))
        return cannot(before);
    if (setup_write(p->file, bytes, p->file) < 0)
        return cannot(p->file);
    unlink(before);
    unlink(setup_after(p->arena, p->file));
    return CTL_OK;
}

int setup_postfix(const struct setup *setup)
{
    struct postfix p;
    int rc = look(&p, setup);
    if (rc != CTL_OK)
        return rc;
    if (present(&p)) {
        if (!p.ctl->json)
            printf("Postfix asks %s already; nothing to do.\n", p.milter);
        return CTL_OK;
    }
    const char *add = element(&p);
    const char *to = *p.value ? arena_printf(p.arena, "%s, %s", p.value, add) : add;
    if (!p.ctl->json || p.ctl->dry)
        tell_change(&p, to, "dry_run");
    if (p.ctl->dry)
        return CTL_OK;
    if ((rc = setup_agreed(p.ctl, "Change it?")) != CTL_OK || (rc = keep_before(&p)) != CTL_OK)
        return rc;
    if (set_value(&p, to) != 0 || keep_after(&p) != CTL_OK) {
        (void)put_back(&p);
        return CTL_REFUSED;
    }
    if (p.ctl->json)
        tell_change(&p, to, "done");
    rc = reload(&p) < 0 ? CTL_PARTIAL : CTL_OK;
    if (!p.ctl->json)
        tell_rest(&p);
    return rc;
}

/* ---- and back ---- */

/* The parameter's value without what setup added; NULL: that is not in it. */
static const char *without(const struct postfix *p)
{
    const char *add = element(p), *at = strstr(p->value, add);
    if (!at)
        return NULL;
    struct span head = span_trim(span_of(p->value, (size_t)(at - p->value)));
    struct span tail = span_trim(span_str(at + strlen(add)));
    while (head.n && (head.p[head.n - 1] == ',' || byte_space(head.p[head.n - 1])))
        head.n--;
    if (!head.n)
        while (tail.n && (tail.p[0] == ',' || byte_space(tail.p[0])))
            tail = span_from(tail, 1);
    return arena_printf(p->arena, "%.*s%s%.*s", SPAN_ARG(head),
                        head.n && tail.n && tail.p[0] != ',' ? " " : "", SPAN_ARG(tail));
}

/* main.cf has been changed since, or no copy is there: only what setup added is taken out. */
static int take_out(struct postfix *p)
{
    const char *to = without(p);
    int rc;
    if (!to) {
        ctl_complain(
            "%s was changed by hand since: remove %s from %s with postconf -e, then postfix "
            "reload",
            p->file, p->milter, parameter);
        return CTL_REFUSED;
    }
    tell_change(p, to, "edited_since");
    if (p->ctl->dry)
        return CTL_OK;
    if ((rc = setup_agreed(p->ctl, "Change it?")) != CTL_OK)
        return rc;
    if (set_value(p, to) != 0)
        return CTL_REFUSED;
    if (!p->ctl->json)
        printf("%s had been changed since setup: only %s was put back.\n", p->file, parameter);
    unlink(setup_before(p->arena, p->file));
    unlink(setup_after(p->arena, p->file));
    return reload(p) < 0 ? CTL_PARTIAL : CTL_OK;
}

int setup_postfix_undo(const struct setup *setup)
{
    struct postfix p;
    struct span now, after, before;
    int rc = look(&p, setup);
    if (rc != CTL_OK)
        return rc;
    bool kept = setup_read(p.arena, setup_before(p.arena, p.file), &before) &&
                setup_read(p.arena, setup_after(p.arena, p.file), &after);
    if (!kept && !present(&p)) {
        if (!p.ctl->json)
            printf("Postfix does not ask %s; nothing to undo.\n", p.milter);
        return CTL_OK;
    }
    if (!kept || !setup_read(p.arena, p.file, &now) || !span_eq(now, after))
        return take_out(&p);
    const char *to = without(&p);
    tell_change(&p, to ? to : "as before", "byte_for_byte");
    if (p.ctl->dry)
        return CTL_OK;
    if ((rc = setup_agreed(p.ctl, "Put the file back as it was?")) != CTL_OK ||
        (rc = put_back(&p)) != CTL_OK)
        return rc;
    if (!p.ctl->json)
        printf("%s is as it was before setup, byte for byte.\n", p.file);
    return reload(&p) < 0 ? CTL_PARTIAL : CTL_OK;
}
