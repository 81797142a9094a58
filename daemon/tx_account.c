/*
 * tx_account.c - what is written down about a verdict: the tag in the message, the balance, the
 * incident, the journal and the log. Nothing here changes what happens to the message.
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

static void write_journal(struct tx *tx)
{
    struct journal *journal = tx->pipeline->journal;
    if (!journal)
        return;
    const struct verdict *v = &tx->verdict;
    char client[IPADDR_TEXT];
    struct journal_row row = {
        .tx = tx->id,
        .time = tx->now,
        .k = tx->unjudged ? tx->fp.k : tx->signals.replication.k,
        .mode = (uint8_t)tx->mode,
        .door = span_str(tx->door),
        .client = span_of(client, ipaddr_print(&tx->envelope.client, client)),
        .from = tx->envelope.reversepath,
        .queue_id = tx->envelope.queue_id,
        .message_id = tx->fp.message_id,
        .incident = span_str(tx->incident),
    };
    for (size_t i = 0; i < v->n; i++) {
        row.rcpt = tx->envelope.recipients[i].address;
        row.disposition = (uint8_t)v->copy[i].disposition;
        row.advised = (uint8_t)v->copy[i].advised;
        row.rule = tx->refused    ? span_str(tx->refused)
                   : tx->released ? SPAN("released")
                                  : span_str(tx_rule_name(tx, &v->copy[i]));
        if (!tx->unjudged) {
            row.relation = (uint8_t)tx->signals.replication.copy[i].relation;
            row.copies = tx->signals.replication.copy[i].copies;
        }
        row_blame(tx, &row);
        journal_add(journal, &row);
    }
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
static void keep_count(struct tx *tx)
{
    struct pipeline_counters *c = tx->pipeline->counters;
    tx_tally(&c->messages, 1);
    tx_tally(&c->received, tx->verdict.n);
    if (tx->beyond)
        tx_tally(&c->too_large, 1);
    if (tx->observed && tx->signals.replication.degraded)
        tx_tally(&c->degraded, 1);
}

static void keep_balance(struct tx *tx)
{
    struct pipeline_counters *c = tx->pipeline->counters;
    keep_count(tx);
    for (unsigned d = 0; d < DISP_COUNT; d++) {
        if (tx->verdict.count[d])
            tx_tally(&c->disposition[d], tx->verdict.count[d]);
        if (tx->verdict.advised[d])
            tx_tally(&c->advised[d], tx->verdict.advised[d]);
    }
    if (tx->released)
        tx_tally(&c->released_through, 1);
}

void tx_account(struct tx *tx)
{
    const struct replication_signals *r = &tx->signals.replication;
    assert(!tx->accounted);
    tx->accounted = true;
    if (tx->pipeline->relays && r->duplicates && r->blamed_id)
        relays_blame(tx->pipeline->relays, r->blamed_id, tx->now);
    keep_balance(tx);
    tx_incident_note(tx);
    write_journal(tx);
    write_log(tx);
}

static void log_refusal(struct tx *tx, int code)
{
    const struct verdict *v = &tx->verdict;
    enum log_level level = v->count[DISP_HOLD] ? LOG_LEVEL_NOTICE : LOG_LEVEL_INFO;
    if (!log_wants(level))
        return;
    struct logline l;
    char id[ID_TEXT];
    id_print(tx->id, id);
    log_begin(&l, level, "tx", span_str(id));
    log_str(&l, "event", tx->refused);
    log_num(&l, "code", code);
    log_span(&l, "from", tx->envelope.reversepath);
    if (v->n)
        log_span(&l, "to", tx->envelope.recipients[0].address);
    log_num(&l, "rcpts", (long long)v->n);
    if (v->count[DISP_HOLD])
        log_num(&l, "taken-back", v->count[DISP_HOLD]);
    log_end(&l);
}

/* Where is my mail? With the client, who will come again, or was told. It is no part of a storm
 * before it does: neither the incident nor the relay it came from are told of it. */
void tx_account_refusal(struct tx *tx, int code)
{
    struct pipeline_counters *c = tx->pipeline->counters;
    struct verdict *v = &tx->verdict;
    enum disposition d = code / 100 == 5 ? DISP_REJECT : DISP_THROTTLE;
    assert(!tx->accounted);
    tx->accounted = true;
    keep_count(tx);
    tx_tally(&c->aborted, v->n);
    tx_tally(&c->refused, v->n);
    log_refusal(tx, code);
    for (size_t i = 0; i < v->n; i++)
        v->copy[i].disposition = v->copy[i].advised = d;
    write_journal(tx);
}
