/*
 * tx_account.c - what is written down about a verdict: the tag in the message, the balance, the
 * incident, the journal and the log. Nothing here changes what happens to the message. Every
 * message that came to its end gets one row for each recipient, whichever way it went.
 */
#include <assert.h>

#include "tx.h"
#include "tx_own.h"

/* The recipient whose verdict says most: the highest disposition advised. */
static size_t telling(const struct tx *tx)
{
    size_t best = 0;
    for (size_t i = 1; i < tx->verdict.n; i++)
        if (tx->verdict.copy[i].advised > tx->verdict.copy[best].advised)
            best = i;
    return best;
}

/* X-Breakwater, in enforce mode only: monitor and bypass add nothing to a message. */
void tx_make_tag(struct tx *tx)
{
    const struct verdict *v = &tx->verdict;
    if (!v->count[DISP_TAG] || tx->mode != MODE_ENFORCE)
        return;
    size_t i = 0;
    while (v->copy[i].disposition != DISP_TAG)
        i++;
    const struct copy_signal *c = &tx->signals.replication.copy[i];
    char id[ID_TEXT], via[200];
    id_print(tx->id, id);
    escape_text(via, sizeof via, span_head(tx->signals.replication.blamed, 100));
    const char *rule = tx_rule_name(tx, &v->copy[i]);
    tx->tag = arena_printf(tx->arena, "act=%s; rule=%s; rel=%s; k=%u%s%s%s%s; id=%s",
                           tx->failure ? "hold-failed" : "tag", rule ? rule : "none",
                           relation_name(c->relation), c->copies, *via ? "; via=" : "", via,
                           tx->incident[0] ? "; storm=" : "", tx->incident, id);
}

/* First copies are nobody's fault. */
static void row_blame(const struct tx *tx, struct journal_row *row)
{
    const struct replication_signals *r = &tx->signals.replication;
    bool further = row->copies > 0;
    row->blamed = further ? r->blamed : SPAN("");
    row->conviction = span_str(further ? r->conviction : NULL);
    row->joined = span_str(further ? r->join_why : NULL);
}

/* The client was gone before it heard of it: it has the message still. */
static bool aborted(const struct tx *tx, size_t i)
{
    return !tx->judged ||
           (!tx->committed && !tx->refused && tx->verdict.copy[i].disposition <= DISP_TAG);
}

/* What became of one copy, and why. */
static void row_end(const struct tx *tx, size_t i, struct journal_row *row)
{
    const struct copy_verdict *c = i < tx->verdict.n ? &tx->verdict.copy[i] : NULL;
    bool gone = !c || aborted(tx, i);
    row->disposition = gone ? JOURNAL_ABORTED : (uint8_t)c->disposition;
    row->advised = c ? (uint8_t)c->advised : JOURNAL_ABORTED;
    row->rule = gone           ? SPAN("gone before the reply")
                : tx->refused  ? span_str(tx->refused)
                : tx->released ? SPAN("released")
                               : span_str(tx_rule_name(tx, c));
}

/* What a rule may ask about, for a backtest. That of the message is packed once. */
struct packing {
    struct facts *facts;
    bool judged;
    uint8_t of_message[FACT_PACK_MESSAGE];
    size_t n;
};

static void pack_message(const struct tx *tx, struct packing *p)
{
    p->judged = tx->judged && !tx->unjudged && !tx->refused;
    if (!p->judged)
        return;
    p->facts = tx->verdict.facts;
    if (p->facts) {
        facts_of_relay(p->facts, &tx->subject, FACTS_PACKED);
    } else {
        p->facts = arena_alloc(tx->arena, sizeof *p->facts);
        facts_of_message(p->facts, &tx->subject, &tx->signals, FACTS_PACKED);
    }
    p->n = facts_pack(p->facts, false, p->of_message);
    p->judged = p->n <= sizeof p->of_message;
}

static void pack_copy(const struct tx *tx, struct packing *p, size_t i, struct journal_row *row,
                      uint8_t of_copy[FACT_PACK_COPY])
{
    row->facts = JOURNAL_UNJUDGED;
    if (!p->judged || aborted(tx, i))
        return;
    facts_of_recipient(p->facts, &tx->subject, &tx->signals, i);
    size_t n = facts_pack(p->facts, true, of_copy);
    if (n > FACT_PACK_COPY)
        return;
    row->facts = JOURNAL_FACTS;
    row->of_message = span_of(p->of_message, p->n);
    row->of_copy = span_of(of_copy, n);
}

/* One row a recipient, so many at a time. */
static void write_rows(struct tx *tx, struct journal_row row)
{
    enum { ROWS = 16 };
    struct journal_row rows[ROWS];
    uint8_t of_copy[ROWS][FACT_PACK_COPY];
    struct packing packing;
    size_t n = 0, all = tx->envelope.nrecipients;
    pack_message(tx, &packing);
    for (size_t i = 0; i < all; i++) {
        row.rcpt = tx->envelope.recipients[i].address;
        row_end(tx, i, &row);
        if (tx->signals.replication.copy) {
            row.relation = (uint8_t)tx->signals.replication.copy[i].relation;
            row.copies = tx->signals.replication.copy[i].copies;
        }
        row_blame(tx, &row);
        pack_copy(tx, &packing, i, &row, of_copy[n]);
        rows[n++] = row;
        if (n < ROWS && i + 1 < all)
            continue;
        journal_add_all(tx->pipeline->journal, rows, n);
        n = 0;
    }
}

static void write_journal(struct tx *tx)
{
    char client[IPADDR_TEXT];
    if (!tx->pipeline->journal)
        return;
    write_rows(tx, (struct journal_row){
                       .tx = tx->id,
                       .time = tx->now,
                       .k = tx->signals.replication.copy ? tx->signals.replication.k : tx->fp.k,
                       .mode = (uint8_t)tx->mode,
                       .door = span_str(tx->door),
                       .client = span_of(client, ipaddr_print(&tx->envelope.client, client)),
                       .from = tx->envelope.reversepath,
                       .queue_id = tx->envelope.queue_id,
                       .message_id = tx->fp.message_id,
                       .incident = span_str(tx->incident),
                   });
}

static void write_log(struct tx *tx)
{
    const struct verdict *v = &tx->verdict;
    bool plain = v->advised[DISP_PASS] == v->n && !tx->failure && !tx->released && !tx->beyond;
    enum log_level level = tx->failure ? LOG_LEVEL_ERROR
                           : plain     ? LOG_LEVEL_INFO
                                       : LOG_LEVEL_NOTICE;
    if (!log_wants(level))
        return;
    struct logline l;
    char id[ID_TEXT];
    id_print(tx->id, id);
    size_t i = v->n ? telling(tx) : 0;
    log_begin(&l, level, "tx", span_str(id));
    if (v->n) {
        log_str(&l, "verdict", disposition_name(v->copy[i].disposition));
        if (v->copy[i].advised != v->copy[i].disposition)
            log_str(&l, "advised", disposition_name(v->copy[i].advised));
        log_str(&l, "rule", tx->released ? "released" : tx_rule_name(tx, &v->copy[i]));
    }
    log_str(&l, "mode", mode_name(tx->mode));
    log_span(&l, "qid", tx->envelope.queue_id);
    log_span(&l, "from", tx->envelope.reversepath);
    if (v->n)
        log_span(&l, "to", tx->envelope.recipients[i].address);
    log_num(&l, "rcpts", (long long)v->n);
    if (v->count[DISP_HOLD])
        log_num(&l, "held", v->count[DISP_HOLD]);
    if (!plain && !tx->unjudged) {
        log_str(&l, "relation", relation_name(tx->signals.replication.copy[i].relation));
        log_num(&l, "copies", (long long)tx->signals.replication.copies);
        if (tx->signals.replication.blamed.n)
            log_span(&l, "relay", tx->signals.replication.blamed);
        if (tx->incident[0])
            log_span(&l, "incident", span_str(tx->incident));
    }
    log_str(&l, "hold-failed", tx->failure);
    if (tx->beyond)
        log_str(&l, "unjudged", "more recipients, or a larger header, than is judged");
    log_end(&l);
}

/* What a message counts for, whatever became of it. */
static void count_message(struct tx *tx)
{
    struct gauge *g = tx->gauge;
    gauge_add(g, FIGURE_JUDGED, 1);
    if (tx->beyond)
        gauge_add(g, FIGURE_TOO_LARGE, 1);
    if (tx->observed && tx->signals.replication.degraded)
        gauge_add(g, FIGURE_DEGRADED, 1);
}

static void count_holds(struct tx *tx)
{
    unsigned n[HOLD_KINDS] = {0};
    for (size_t i = 0; i < tx->verdict.n; i++)
        if (tx->verdict.copy[i].disposition == DISP_HOLD)
            n[tx_hold_kind(tx, i)]++;
    for (unsigned kind = 0; kind < HOLD_KINDS; kind++)
        gauge_add(tx->gauge, FIGURE_HOLDS + kind, n[kind]);
}

/* By rule and day. Copies of one outcome that stand together are added at once. */
static void count_rules(struct tx *tx)
{
    const struct verdict *v = &tx->verdict;
    const struct copy_signal *copy = tx->signals.replication.copy;
    struct day_row r = {.listener = tx->door, .mode = (uint8_t)tx->mode};
    const char *rule = NULL;
    uint64_t plain = 0;
    for (size_t i = 0; i < v->n; i++) {
        const struct copy_verdict *c = &v->copy[i];
        if (aborted(tx, i))
            continue;
        if (!c->rule_name && !c->advised && !c->disposition) {
            plain++;
            continue;
        }
        if (r.copies &&
            (rule != c->rule_name || r.done != c->disposition || r.advised != c->advised)) {
            days_add(tx->pipeline->days, &r);
            r.copies = r.firsts = 0;
        }
        rule = c->rule_name;
        r.rule = rule ? rule : "";
        r.done = (uint8_t)c->disposition;
        r.advised = (uint8_t)c->advised;
        r.copies++;
        r.firsts += copy && copy[i].passed == 0;
    }
    if (r.copies)
        days_add(tx->pipeline->days, &r);
    gauge_add(tx->gauge, FIGURE_PLAIN + (unsigned)tx->mode, plain);
}

/* Takes the aborted copies out of the verdict's counts; how many there are. */
static size_t take_aborted(struct tx *tx)
{
    struct verdict *v = &tx->verdict;
    size_t n = 0;
    if (tx->committed)
        return 0;
    for (size_t i = 0; i < v->n; i++) {
        if (!aborted(tx, i))
            continue;
        v->count[v->copy[i].disposition]--;
        v->advised[v->copy[i].advised]--;
        n++;
    }
    return v->n ? n : tx->envelope.nrecipients;
}

static void count_copies(struct tx *tx, size_t gone)
{
    const struct verdict *v = &tx->verdict;
    struct gauge *g = tx->gauge;
    for (unsigned d = 0; d < DISP_COUNT; d++) {
        gauge_add(g, FIGURE_DONE + d, v->count[d]);
        gauge_add(g, FIGURE_ADVISED + d, v->advised[d]);
    }
    gauge_add(g, FIGURE_ABORTED, gone);
    count_rules(tx);
    if (v->count[DISP_HOLD])
        count_holds(tx);
    if (v->count[DISP_THROTTLE] + v->count[DISP_REJECT] && tx_refusal_kind(tx) == WATCH_REFUSALS)
        gauge_add(g, FIGURE_DEFERRED, 1); /* it is refused as a whole */
    if (tx->released && !gone)
        gauge_add(g, FIGURE_RELEASED_THROUGH, 1);
}

/* An end that is no verdict. */
static void log_end_of(const struct tx *tx, const char *event, enum log_level level, int code,
                       size_t taken_back)
{
    if (!log_wants(level))
        return;
    struct logline l;
    char id[ID_TEXT];
    id_print(tx->id, id);
    log_begin(&l, level, "tx", span_str(id));
    log_str(&l, "event", event);
    if (tx->refused)
        log_num(&l, "code", code);
    log_span(&l, "from", tx->envelope.reversepath);
    if (tx->envelope.nrecipients)
        log_span(&l, "to", tx->envelope.recipients[0].address);
    log_num(&l, "rcpts", (long long)tx->envelope.nrecipients);
    if (taken_back)
        log_num(&l, "taken-back", (long long)taken_back);
    log_end(&l);
}

/* Where is my mail? Still with the client, who will come again. */
static void account_aborted(struct tx *tx, size_t gone)
{
    gauge_add(tx->gauge, FIGURE_ABORTED_MESSAGES, 1);
    gauge_add(tx->gauge, FIGURE_ABORTED, gone);
    log_end_of(tx, "gone before the reply", LOG_LEVEL_NOTICE, 0, 0);
    write_journal(tx);
}

void tx_account(struct tx *tx)
{
    const struct replication_signals *r = &tx->signals.replication;
    assert(!tx->accounted);
    tx->accounted = true;
    size_t gone = take_aborted(tx);
    if (!tx->judged || (gone && gone == tx->verdict.n)) {
        account_aborted(tx, gone);
        return;
    }
    if (tx->pipeline->relays && r->duplicates && r->blamed_id)
        relays_blame(tx->pipeline->relays, r->blamed_id, tx->now);
    count_message(tx);
    count_copies(tx, gone);
    tx_incident_note(tx);
    tx_note_refusal(tx);
    write_journal(tx);
    write_log(tx);
}

/* Where is my mail? With the client, who will come again, or was told. It is no part of a storm
 * before it does: neither the incident nor the relay it came from are told of it. */
void tx_account_refusal(struct tx *tx, int code)
{
    struct verdict *v = &tx->verdict;
    enum disposition d = code / 100 == 5 ? DISP_REJECT : DISP_THROTTLE;
    assert(!tx->accounted);
    tx->accounted = true;
    count_message(tx);
    gauge_add(tx->gauge, FIGURE_REFUSED, v->n);
    log_end_of(tx, tx->refused, v->count[DISP_HOLD] ? LOG_LEVEL_NOTICE : LOG_LEVEL_INFO, code,
               v->count[DISP_HOLD]);
    for (size_t i = 0; i < v->n; i++)
        v->copy[i].disposition = v->copy[i].advised = d;
    tx_note_refusal_behind(tx, code);
    write_journal(tx);
}
