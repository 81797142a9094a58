/*
 * event.c - what it costs to make an event and to fold it, beside observing directly.
 *
 * usage: event [SECONDS]. SECONDS for each cell of the table, one thread. Every mail has four
 * Received fields, a text of 4 KB and one recipient:
 *
 *   new     nobody had it, it shows one address: FIRST into an empty record
 *   storm   it comes again and again by another way, it shows one address: AGAIN
 *   shown   the same, and it shows 630 addresses
 *   whole   the same as storm, in the form that fits any record
 *
 * observe: replication_observe() alone. pack: event_observation(). apply: event_apply().
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "alias.h"
#include "event.h"

enum { MAILS = 256, CROWD = 630, TEXT = 4096 };

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

struct mail {
    struct subject s;
    struct observation o;
    struct guise g;
    struct span event;
};

struct bench {
    struct keys keys;
    struct site site;
    struct arena *arena, *scratch;
    struct mail mail[MAILS];
    enum event_kind form;
    double seconds;
};

/* Mail i as it came over its own way; of a storm all are one message. */
static char *compose(unsigned i, bool storm, unsigned shown)
{
    char *out = malloc(4096 + TEXT + 40 * CROWD), *p = out;
    unsigned id = storm ? 7 : i, way = i % 50;
    if (!out)
        abort();
    p +=
        sprintf(p,
                "Received: from relay%u.hoster.example (relay%u.hoster.example [203.0.113.%u])\r\n"
                "\tby mail.customer.example (Postfix) with ESMTP id 4T%08X; "
                "Mon, 23 Jan 2006 10:00:03 +0000\r\n"
                "Received: from mx-out%u.isp.example (mx-out%u.isp.example [198.51.100.%u])\r\n"
                "\tby relay%u.hoster.example with ESMTP id 3T%08X; "
                "Mon, 23 Jan 2006 10:00:02 +0000\r\n"
                "Received: from mail.firm%u.example (mail.firm%u.example [192.0.2.%u])\r\n"
                "\tby mx-out%u.isp.example with ESMTP id 2T%08X; "
                "Mon, 23 Jan 2006 10:00:01 +0000\r\n"
                "Received: from pc17 (unknown [192.168.1.7])\r\n"
                "\tby mail.firm%u.example with ESMTP id 5T%08X;\r\n"
                "\tMon, 23 Jan 2006 10:00:00 +0000\r\n",
                way, way, way + 1, i, way, way, way + 1, way, i, way, way, way + 1, way, i, way, i);
    p += sprintf(p,
                 "Message-ID: <%u@sender.example>\r\nDate: Mon, 23 Jan 2006 10:00:00 +0000\r\n"
                 "From: <a@sender.example>\r\nSubject: report %u\r\nTo: b@customer.example",
                 id, id);
    for (unsigned k = 1; k < shown; k++)
        p += sprintf(p, ",\r\n user%u@customer%u.example", k, k);
    p += sprintf(p, "\r\n\r\n");
    for (unsigned k = 0; k < TEXT / 8; k++)
        p += sprintf(p, "w%06x%s", (id * 7919 + k * 104729) & 0xffffff, k % 9 ? " " : "\r\n");
    return out;
}

static void read_mail(struct bench *b, struct mail *m, const char *text)
{
    struct arena *a = b->arena;
    struct message *msg = message_new(a);
    struct span body = message_add_raw(msg, span_str(text));
    message_end_header(msg);
    struct fingerprinter *f = fingerprint_begin(a, &b->keys, msg);
    struct fingerprints fp;
    fingerprint_body(f, span_from(body, msg->blank));
    fingerprint_end(f, &fp);
    struct envelope *e = arena_zero(a, sizeof *e);
    e->recipients = arena_zero(a, sizeof *e->recipients);
    e->nrecipients = 1;
    e->recipients[0].address = SPAN("b@customer.example");
    e->client = (struct ipaddr){4, {[10] = 0xff, [11] = 0xff, 203, 0, 113, 200}};
    e->helo = e->client_name = SPAN("mail.customer.example");
    subject_read(&m->s, a, &b->site, &b->keys, e, msg, &fp, INT64_C(1138010404000));
    replication_observation(&m->o, &m->s, NULL);
    guise_read(&m->g, &m->o);
}

static void read_mails(struct bench *b, bool storm, unsigned shown)
{
    arena_free(&b->arena);
    b->arena = arena_new();
    for (unsigned i = 0; i < MAILS; i++) {
        char *text = compose(i, storm, shown);
        struct mail *m = &b->mail[i];
        uint8_t *bytes;
        read_mail(b, m, arena_str(b->arena, span_str(text)));
        m->o.origin = b->form == EVENT_FIRST ? &m->g.origin : NULL;
        size_t n = event_observation(b->arena, &m->o, b->form, i, 1, &bytes);
        m->event = span_of(bytes, n);
        free(text);
    }
}

enum work { OBSERVE, PACK, APPLY, WORKS };

static void one(struct bench *b, enum work work, struct mail *m, struct record *r)
{
    struct replication_signals out;
    uint8_t *bytes;
    m->s.arena = b->scratch;
    if (work == PACK)
        (void)event_observation(b->scratch, &m->o, b->form, 1, 1, &bytes);
    else if (work == OBSERVE && replication_observe(r, &m->o, &out) != OBSERVED_OK)
        abort();
    else if (work == APPLY &&
             event_apply(r, m->event, &b->site, &b->keys, b->scratch, &out) != EVENT_OK)
        abort();
}

/* us for one mail. A new mail has a new record; those of a storm the same. */
static double measure(struct bench *b, enum work work)
{
    double begin = seconds(), took = 0;
    unsigned long n = 0;
    struct record *r = record_new(0);
    struct replication_signals out;
    b->mail[0].s.arena = b->arena;
    if (b->form != EVENT_FIRST && replication_observe(r, &b->mail[0].o, &out) != OBSERVED_OK)
        abort();
    for (; took < b->seconds; took = seconds() - begin)
        for (unsigned i = 0; i < MAILS; i++, n++) {
            b->scratch = arena_new();
            if (b->form == EVENT_FIRST) {
                record_free(&r);
                r = record_new(0);
            }
            one(b, work, &b->mail[i], r);
            arena_free(&b->scratch);
        }
    record_free(&r);
    return took * 1e6 / (double)n;
}

int main(int argc, char **argv)
{
    static struct bench b;
    static const struct mix {
        const char *name;
        bool storm;
        unsigned shown;
        enum event_kind form;
    } mix[] = {{"new", false, 1, EVENT_FIRST},
               {"storm", true, 1, EVENT_AGAIN},
               {"shown", true, CROWD, EVENT_AGAIN},
               {"whole", true, 1, EVENT_WHOLE}};
    static const uint8_t key[32] = {1};
    b.seconds = argc > 1 ? strtod(argv[1], NULL) : 0.5;
    site_defaults(&b.site);
    if (keys_open(&b.keys, key) != 0)
        abort();
    printf("%8s %8s %12s %9s %9s\n", "", "bytes", "observe us", "pack us", "apply us");
    for (unsigned i = 0; i < sizeof mix / sizeof *mix; i++) {
        double us[WORKS];
        b.form = mix[i].form;
        read_mails(&b, mix[i].storm, mix[i].shown);
        for (unsigned w = 0; w < WORKS; w++)
            us[w] = measure(&b, (enum work)w);
        printf("%8s %8zu %12.2f %9.2f %9.2f\n", mix[i].name, b.mail[9].event.n, us[OBSERVE],
               us[PACK], us[APPLY]);
    }
    arena_free(&b.arena);
    keys_close(&b.keys);
    return 0;
}
