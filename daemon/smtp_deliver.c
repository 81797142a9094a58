/*
 * smtp_deliver.c - from the verdict to the one final reply.
 *
 *   all held, refused by rule --> our reply; downstream forgets the transaction (RSET)
 *   all pass ------------------------------------------------> DATA -> text -> downstream's reply
 *   some held --> RSET, MAIL, RCPT for the rest, said again --^
 *   downstream lost before the text --> a new session, said again, once; after it: 451
 *
 * Invariant: 250 leaves only after downstream's 2xx for all that pass, and after the hold of all
 * that do not is durable. If downstream refuses, what was held is taken back.
 *
 * The envelope, said again, may be accepted in part, though all of these recipients were accepted
 * before and the client knows no better. Then nobody gets the message, and the client is asked to
 * come again: it will hear the refusal where it belongs, after its RCPT.
 */
#include <stdio.h>
#include <time.h>

#include "smtp_own.h"
#include "stamp.h"

static void final(struct session *s, struct span text)
{
    s->messages++;
    s->idled = s->turned = 0;
    smtp_end(s, smtp_reply_kind(s, text));
    s->forwarded = false;
    if (s->gone)
        smtp_note(s, LOG_LEVEL_NOTICE, "the client is gone before the reply", span_head(text, 3));
    smtp_reply(s, text);
    smtp_stage(s, STAGE_COMMAND);
}

static void reset(struct session *s)
{
    if (!smtp_down_alive(s))
        return;
    smtp_turn(s, TURN_SILENT);
    downstream_command(s->down, SPAN("RSET"));
}

/* We answer, downstream forgets. */
static void answer(struct session *s, const char *line)
{
    char text[600];
    int n = snprintf(text, sizeof text, "%.500s\r\n", line);
    reset(s);
    final(s, span_of(text, (size_t)n));
}

static void refused(struct session *s, int code, struct span text)
{
    gauge_downstream(tx_gauge(s->tx), code);
    tx_refused(s->tx, code, code ? "refused downstream" : "lost downstream");
    final(s, text);
}

static void lost(struct session *s)
{
    downstream_close(&s->down);
    refused(s, 0, SPAN("451 4.4.2 the mail server behind was lost; please try again later\r\n"));
}

/* ---- the envelope, said again ---- */

static bool passes(const struct verdict *v, size_t i)
{
    return v->copy[i].disposition == DISP_PASS || v->copy[i].disposition == DISP_TAG;
}

static void ask(struct session *s, const char *verb, struct span path, struct span params)
{
    char line[SMTP_COMMAND_MAX + 32];
    int n = snprintf(line, sizeof line, "%s:<%.*s>%s%.*s", verb, SPAN_ARG(path),
                     params.n ? " " : "", SPAN_ARG(params));
    downstream_command(s->down, span_of(line, (size_t)n));
    s->now->delivery.expected++;
}

static void say_envelope(struct session *s, bool reset)
{
    struct delivery *d = &s->now->delivery;
    const struct envelope *e = tx_envelope(s->tx);
    const struct verdict *v = tx_verdict(s->tx);
    d->step = DELIVER_ENVELOPE;
    d->code = 0;
    d->accepted = 0;
    d->mail = false;
    if (reset)
        downstream_command(s->down, SPAN("RSET"));
    d->aside = d->expected = (unsigned)reset + smtp_say_origin(s);
    struct span params = e->reversepath_params;
    if (!downstream_offer(s->down)->size)
        params = smtp_without_size(tx_arena(s->tx), params);
    ask(s, "MAIL FROM", e->reversepath, params);
    for (size_t i = 0; i < e->nrecipients; i++)
        if (passes(v, i))
            ask(s, "RCPT TO", e->recipients[i].address, e->recipients[i].params);
}

static void say_data(struct session *s)
{
    s->now->delivery.step = DELIVER_DATA;
    downstream_command(s->down, SPAN("DATA"));
}

/* Downstream is gone and has nothing of the text: once, all is said to a new session. */
static void open_again(struct session *s)
{
    struct delivery *d = &s->now->delivery;
    if (d->again || s->authed) {
        lost(s);
        return;
    }
    d->again = true;
    d->step = DELIVER_OPEN;
    smtp_open_downstream(s);
}

/* ---- the text ---- */

/* Received, where downstream cannot learn who the client is (RFC 5321 4.4). */
static struct span received(struct session *s)
{
    const struct listener *l = s->door->listener;
    const struct envelope *e = tx_envelope(s->tx);
    const struct smtp_offer *o = downstream_offer(s->down);
    char address[IPADDR_TEXT], date[64];
    bool told =
        l->downstream_proxy || (l->xclient && o->xclient.p) || (l->xforward && o->xforward.p);
    if (tx_verdict(s->tx)->mode != MODE_ENFORCE || l->received == RECEIVED_NEVER ||
        (l->received == RECEIVED_AUTO && told))
        return span_of(NULL, 0);
    bool v6 = e->client.family == 6;
    ipaddr_print(&e->client, address);
    time_t now = (time_t)(clock_now() / 1000);
    struct tm tm;
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S +0000", gmtime_r(&now, &tm));
    return span_str(arena_printf(
        tx_arena(s->tx), "Received: from %.*s ([%s%s])\r\n\tby %s (breakwater) with %s%s%s; %s\r\n",
        SPAN_ARG(e->helo), v6 ? "IPv6:" : "", address, s->door->down.helo,
        s->client.esmtp ? "ESMTP" : "SMTP", s->secure ? "S" : "", s->authed ? "A" : "", date));
}

/* What is put in front of the message: nothing, except in mode enforce. */
static struct span added(struct session *s)
{
    struct arena *a = tx_arena(s->tx);
    const char *tag = tx_tag(s->tx), *stamp = tx_stamp(s->tx);
    struct span fields = received(s);
    if (tag)
        fields =
            arena_join(a, fields, span_str(arena_printf(a, "X-Breakwater: %s\r\n", tag)), SPAN(""));
    if (stamp)
        fields = arena_join(a, fields, span_str(arena_printf(a, STAMP_FIELD ": %s\r\n", stamp)),
                            SPAN(""));
    return fields;
}

static void say_text(struct session *s)
{
    struct span head, fields = added(s);
    struct body *body;
    if (!tx_bytes(s->tx, &head, &body)) { /* smtp_judged() has looked */
        lost(s);
        return;
    }
    s->now->delivery.step = DELIVER_TEXT;
    if (fields.n)
        head = arena_join(tx_arena(s->tx), fields, head, SPAN(""));
    downstream_data(s->down, head, body);
}

/* ---- replies ---- */

static void keep_refusal(struct delivery *d, int code, struct span text)
{
    if (d->code)
        return;
    d->code = code;
    struct span last = text; /* one line of it, the last */
    for (size_t n; (n = span_find(last, '\n')) + 1 < last.n;)
        last = span_from(last, n + 1);
    last = span_trim(last);
    snprintf(d->text, sizeof d->text, "%.*s\r\n", SPAN_ARG(span_head(last, 420)));
}

static void envelope_reply(struct session *s, int code, struct span text)
{
    struct delivery *d = &s->now->delivery;
    if (d->aside)
        d->aside--;
    else if (code / 100 != 2)
        keep_refusal(d, code, text);
    else if (d->mail)
        d->accepted++;
    else
        d->mail = !d->code; /* MAIL is answered first */
    if (--d->expected)
        return;
    if (!d->code) {
        say_data(s);
        return;
    }
    if (d->code < 400) {
        lost(s); /* neither yes nor no */
        return;
    }
    bool some = d->code >= 500 && d->accepted;
    int its_code = some ? 451 : d->code;
    char reply[sizeof d->text + 80]; /* d goes with the message */
    snprintf(reply, sizeof reply, "%s%s",
             some ? "451 4.5.0 please send it again; a recipient is refused now: " : "", d->text);
    reset(s);
    refused(s, its_code, span_str(reply));
}

void smtp_delivery_reply(struct session *s, int code, struct span text)
{
    struct delivery *d = &s->now->delivery;
    if (code == 0 && d->step != DELIVER_TEXT) {
        open_again(s);
    } else if (code == 0) {
        lost(s); /* it may have the message or not: the client tries again */
    } else if (d->step == DELIVER_OPEN) {
        say_envelope(s, false);
    } else if (d->step == DELIVER_ENVELOPE) {
        envelope_reply(s, code, text);
    } else if (d->step == DELIVER_DATA && code == 354) {
        say_text(s);
    } else if (code >= 400) {
        if (d->step == DELIVER_DATA)
            reset(s); /* its transaction is still open */
        refused(s, code, text);
    } else if (d->step == DELIVER_DATA || code / 100 != 2) {
        lost(s); /* neither yes nor no */
    } else {
        gauge_downstream(tx_gauge(s->tx), code);
        tx_commit(s->tx);
        final(s, text);
    }
}

/* ---- the verdict ---- */

static void held(struct session *s)
{
    char line[64], id[ID_TEXT];
    id_print(tx_id(s->tx), id);
    snprintf(line, sizeof line, "250 2.0.0 held as %s", id);
    tx_commit(s->tx);
    answer(s, line);
}

void smtp_judged(struct session *s)
{
    const struct verdict *v = tx_verdict(s->tx);
    struct span head;
    struct body *body;
    const char *reply = tx_reply(s->tx);
    size_t passing = v->count[DISP_PASS] + v->count[DISP_TAG];
    passing_judged(&s->now->passing);
    if (reply) {
        answer(s, reply);
        return;
    }
    if (passing == 0) {
        held(s);
        return;
    }
    if (!tx_bytes(s->tx, &head, &body)) {
        tx_refused(s->tx, 452, "no room for it");
        answer(s, "452 4.3.1 there is no room for the message; please try again later");
        return;
    }
    smtp_stage(s, STAGE_DELIVER);
    if (!smtp_down_alive(s))
        open_again(s);
    else if (passing < v->n)
        say_envelope(s, true);
    else
        say_data(s);
}
