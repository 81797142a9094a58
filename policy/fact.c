/*
 * fact.c - the table of facts, how each is read, and the words for our enumerations.
 */
#include "fact.h"
#include "replyall.h"

#define MESSAGE(type, unit, text) type, unit, false, text
#define EACH(type, unit, text) type, unit, true, text

const struct fact_entry fact_table[FACT_COUNT] = {
    {"message.bytes", MESSAGE(TYPE_NUMBER, UNIT_BYTES, "Size of header and body.")},
    {"message.words", MESSAGE(TYPE_NUMBER, UNIT_NONE, "Words of decoded text that were read.")},
    {"message.visible", MESSAGE(TYPE_NUMBER, UNIT_NONE, "Different addresses in To and Cc.")},
    {"message.list",
     MESSAGE(TYPE_BOOL, UNIT_NONE, "It has a List-* field, or Precedence says list or bulk.")},
    {"message.automatic",
     MESSAGE(TYPE_BOOL, UNIT_NONE, "It says that a machine wrote it (RFC 3834 and customs).")},
    {"message.reply", MESSAGE(TYPE_BOOL, UNIT_NONE, "It answers another message.")},
    {"message.noise",
     MESSAGE(TYPE_BOOL, UNIT_NONE,
             "It adds at most 12 words, or one of the phrases such as remove me.")},
    {"message.from", MESSAGE(TYPE_STRING, UNIT_NONE, "First address of the From field.")},
    {"message.subject", MESSAGE(TYPE_STRING, UNIT_NONE, "The Subject field, not decoded.")},
    {"envelope.from",
     MESSAGE(TYPE_STRING, UNIT_NONE, "The reverse-path; an empty text is the null reverse-path.")},
    {"envelope.recipients", MESSAGE(TYPE_NUMBER, UNIT_NONE, "Recipients of this transaction.")},
    {"recipient.address", EACH(TYPE_STRING, UNIT_NONE, "This recipient.")},
    {"recipient.domain", EACH(TYPE_STRING, UNIT_NONE, "What follows the @ of this recipient.")},
    {"relay.address",
     MESSAGE(TYPE_ADDRESS, UNIT_NONE, "Network address of the relay that brought the message.")},
    {"relay.name", MESSAGE(TYPE_STRING, UNIT_NONE, "Its host name, as the MTA resolved it.")},
    {"relay.helo", MESSAGE(TYPE_STRING, UNIT_NONE, "What it said in HELO or EHLO.")},
    {"relay.trusted",
     MESSAGE(TYPE_BOOL, UNIT_NONE, "It is one of own or trusted in breakwater.conf.")},
    {"loop.visits",
     MESSAGE(TYPE_NUMBER, UNIT_NONE, "Most separate visits of the message to one host.")},
    {"loop.edges", MESSAGE(TYPE_NUMBER, UNIT_NONE,
                           "Most times it took the same step from one host to the next.")},
    {"loop.own_visits", MESSAGE(TYPE_NUMBER, UNIT_NONE, "Visits to our own hosts (own.hosts).")},
    {"loop.delivered_to",
     MESSAGE(TYPE_NUMBER, UNIT_NONE, "Most times one address stands in a Delivered-To field.")},
    {"loop.hops", MESSAGE(TYPE_NUMBER, UNIT_NONE, "Received fields.")},
    {"loop.relay", MESSAGE(TYPE_STRING, UNIT_NONE, "The host visited most often.")},
    {"loop.evidence", MESSAGE(TYPE_STRING, UNIT_NONE, "The circle in a sentence.")},
    {"replication.advice",
     EACH(TYPE_STRING, UNIT_NONE, "What the replication detector advises: pass, tag or hold.")},
    {"replication.relation",
     EACH(TYPE_STRING, UNIT_NONE,
          "How this copy relates to earlier ones: first, same, detour, late, resend, fork, list, "
          "internal or exempt.")},
    {"replication.copies",
     EACH(TYPE_NUMBER, UNIT_NONE, "Copies of the message this recipient had before this one.")},
    {"replication.passed",
     EACH(TYPE_NUMBER, UNIT_NONE, "Copies that were passed on to this recipient for good.")},
    {"replication.rule",
     EACH(TYPE_STRING, UNIT_NONE, "Which rule of the detector decided: R0 to R6.")},
    {"replication.storm", MESSAGE(TYPE_BOOL, UNIT_NONE, "The message is a storm by now.")},
    {"replication.convicted",
     MESSAGE(TYPE_NUMBER, UNIT_NONE, "Servers convicted of replicating this message.")},
    {"replication.duplicates",
     MESSAGE(TYPE_NUMBER, UNIT_NONE, "Recipients of this transaction who had it before.")},
    {"replication.blamed",
     MESSAGE(TYPE_STRING, UNIT_NONE, "The server this transaction's detours point at.")},
    {"replication.join",
     MESSAGE(TYPE_STRING, UNIT_NONE,
             "What it was recognised by: own (its Message-ID, Date and From; a new message too), "
             "name, stamp, chain, text or theme; see breakwater-detectors(7).")},
    {"replication.seen_before",
     EACH(TYPE_BOOL, UNIT_NONE,
          "A first copy, but the long memory thinks that this recipient had it (1 error in "
          "1000).")},
    {"replication.rested",
     MESSAGE(TYPE_NUMBER, UNIT_TIME, "Time since the copy before this one; 0: there was none.")},
    {"replyall.state",
     MESSAGE(TYPE_STRING, UNIT_NONE, "Of its conversation: quiet, watch, storm or cooldown.")},
    {"replyall.to_all",
     MESSAGE(TYPE_BOOL, UNIT_NONE, "It is a reply to at least 80 % of the audience.")},
    {"replyall.replies",
     MESSAGE(TYPE_NUMBER, UNIT_NONE, "Replies to the audience in the last hour.")},
    {"replyall.senders", MESSAGE(TYPE_NUMBER, UNIT_NONE, "Different people who wrote them.")},
    {"replyall.audience",
     MESSAGE(TYPE_NUMBER, UNIT_NONE, "People the conversation goes to, the most seen.")},
    {"replyall.need",
     MESSAGE(TYPE_NUMBER, UNIT_NONE, "Replies in an hour at which such an audience has a storm.")},
    {"replyall.evidence",
     MESSAGE(TYPE_STRING, UNIT_NONE, "The numbers of the conversation in a sentence.")},
    {"pingpong.advice",
     EACH(TYPE_STRING, UNIT_NONE, "What the ping-pong detector advises: pass, tag or hold.")},
    {"pingpong.flips", MESSAGE(TYPE_NUMBER, UNIT_NONE,
                               "Answers to each other in the last hour, of the slower side.")},
    {"pingpong.automatic",
     MESSAGE(TYPE_BOOL, UNIT_NONE, "It says that a machine wrote it, to one of its recipients.")},
    {"pingpong.evidence",
     MESSAGE(TYPE_STRING, UNIT_NONE, "What the two addresses do, in a sentence.")},
    {"flood.level",
     MESSAGE(TYPE_STRING, UNIT_NONE, "Of the relay that brought it: none, alert or throttle.")},
    {"flood.rate",
     MESSAGE(TYPE_NUMBER, UNIT_NONE, "Its messages in the last 5 minutes, as messages a minute.")},
    {"flood.baseline",
     MESSAGE(TYPE_NUMBER, UNIT_NONE, "Its usual messages a minute at this hour of the day.")},
    {"flood.hour", MESSAGE(TYPE_NUMBER, UNIT_NONE, "Its messages in the last 60 minutes.")},
    {"flood.defer",
     MESSAGE(TYPE_BOOL, UNIT_NONE,
             "A message that should wait: a first copy from a relay at level throttle, beyond "
             "thrice its baseline, not deferred for 30 minutes yet.")},
    {"flood.replicating",
     MESSAGE(TYPE_BOOL, UNIT_NONE, "The relay brings further copies far beyond what is usual.")},
    {"flood.evidence", MESSAGE(TYPE_STRING, UNIT_NONE, "The numbers of the relay in a sentence.")},
    {"store.degraded",
     MESSAGE(TYPE_BOOL, UNIT_NONE, "Judged without memory of the past: every copy looks first.")},
    {"envelope.from_domain",
     MESSAGE(TYPE_STRING, UNIT_NONE, "What follows the @ of the reverse-path.")},
    {"envelope.auth",
     MESSAGE(TYPE_STRING, UNIT_NONE, "The user the client is logged in as; an empty text: none.")},
    {"message.from_domain",
     MESSAGE(TYPE_STRING, UNIT_NONE, "What follows the @ of the first address of the From field.")},
    {"message.connector",
     MESSAGE(TYPE_BOOL, UNIT_NONE,
             "To or Cc names a POP3 connector of Small Business Server, as in mspop3connector.")},
    {"relay.listener",
     MESSAGE(TYPE_STRING, UNIT_NONE,
             "Name of the listener in breakwater.conf(5) that the message came through.")},
    {"replication.total",
     MESSAGE(TYPE_NUMBER, UNIT_NONE,
             "Copies of the message so far, of all its recipients, with this transaction's.")},
    {"flood.learned",
     MESSAGE(TYPE_BOOL, UNIT_NONE, "Its baseline rests on a day of its mail at least.")},
    {"flood.duplicates",
     MESSAGE(TYPE_NUMBER, UNIT_SHARE, "Share of further copies among its messages.")},
    {"flood.one_content",
     MESSAGE(TYPE_NUMBER, UNIT_SHARE, "Share of the commonest text among its messages.")},
};

static struct fact_value yes_or_no(bool yes)
{
    return (struct fact_value){.type = TYPE_BOOL, .yes = yes};
}

static struct fact_value number(double n)
{
    return (struct fact_value){.type = TYPE_NUMBER, .number = n};
}

static struct fact_value text(struct span s)
{
    return (struct fact_value){.type = TYPE_STRING, .text = span_head(s, FACT_TEXT_MAX)};
}

/* NULL: an empty text. */
static struct fact_value word(const char *s)
{
    return text(s ? span_str(s) : (struct span){NULL, 0});
}

static void read_message(struct fact_value *v, const struct subject *s)
{
    const struct envelope *e = s->envelope;
    size_t head = s->message ? s->message->nhead : 0;
    v[FACT_MESSAGE_BYTES] = number((double)head + (double)s->fp.body_bytes);
    v[FACT_MESSAGE_WORDS] = number(s->fp.nwords);
    v[FACT_MESSAGE_VISIBLE] = number((double)s->visible.n);
    v[FACT_MESSAGE_LIST] = yes_or_no(s->fp.list_marked);
    v[FACT_MESSAGE_AUTOMATIC] = yes_or_no(s->talk.automatic);
    v[FACT_MESSAGE_REPLY] = yes_or_no(s->talk.reply);
    v[FACT_MESSAGE_NOISE] = yes_or_no(s->talk.noise);
    v[FACT_MESSAGE_FROM] = text(s->fp.from);
    v[FACT_MESSAGE_SUBJECT] = text(s->fp.subject);
    v[FACT_ENVELOPE_FROM] = text(e->reversepath);
    v[FACT_ENVELOPE_RECIPIENTS] = number((double)e->nrecipients);
    v[FACT_MESSAGE_FROM_DOMAIN] = text(address_domain(s->fp.from));
    v[FACT_MESSAGE_CONNECTOR] = yes_or_no(s->visible.connector.n > 0);
    v[FACT_ENVELOPE_FROM_DOMAIN] = text(address_domain(e->reversepath));
    v[FACT_ENVELOPE_AUTH] = text(e->auth);
    v[FACT_RELAY_NAME] = text(e->client_name);
    v[FACT_RELAY_HELO] = text(e->helo);
    v[FACT_RELAY_LISTENER] = text(s->listener);
}

void facts_of_relay(struct facts *facts, const struct subject *s, uint64_t set)
{
    const struct ipaddr *client = &s->envelope->client;
    struct fact_value *v = facts->value;
    facts->client = *client;
    facts->site = s->site;
    v[FACT_RELAY_ADDRESS] = (struct fact_value){.type = TYPE_ADDRESS};
    v[FACT_RELAY_TRUSTED] = yes_or_no(false);
    if (set >> FACT_RELAY_ADDRESS & 1)
        v[FACT_RELAY_ADDRESS].text = span_of(facts->address, ipaddr_print(client, facts->address));
    if (set >> FACT_RELAY_TRUSTED & 1)
        v[FACT_RELAY_TRUSTED] = yes_or_no(site_trusts_addr(s->site, client) ||
                                          site_trusts_host(s->site, s->client_host));
}

static void read_signals(struct fact_value *v, const struct signals *signals)
{
    const struct loop_signals *l = &signals->loop;
    const struct replication_signals *r = &signals->replication;
    v[FACT_LOOP_VISITS] = number(l->visits);
    v[FACT_LOOP_EDGES] = number(l->edges);
    v[FACT_LOOP_OWN_VISITS] = number(l->own_visits);
    v[FACT_LOOP_DELIVERED_TO] = number(l->delivered_to);
    v[FACT_LOOP_HOPS] = number(l->hops);
    v[FACT_LOOP_RELAY] = text(l->relay);
    v[FACT_LOOP_EVIDENCE] = word(l->evidence);
    v[FACT_REPLICATION_STORM] = yes_or_no(r->storm);
    v[FACT_REPLICATION_CONVICTED] = number(r->convicted);
    v[FACT_REPLICATION_DUPLICATES] = number(r->duplicates);
    v[FACT_REPLICATION_TOTAL] = number((double)r->copies);
    v[FACT_REPLICATION_BLAMED] = text(r->blamed);
    v[FACT_REPLICATION_JOIN] = word(r->join ? r->join : "own");
    v[FACT_REPLICATION_RESTED] = number((double)r->rested);
    v[FACT_STORE_DEGRADED] = yes_or_no(r->degraded);
}

static void read_replyall(struct fact_value *v, const struct replyall_signals *r)
{
    v[FACT_REPLYALL_STATE] = word(replyall_state_name(r->state));
    v[FACT_REPLYALL_TO_ALL] = yes_or_no(r->to_all);
    v[FACT_REPLYALL_REPLIES] = number(r->replies);
    v[FACT_REPLYALL_SENDERS] = number(r->senders);
    v[FACT_REPLYALL_AUDIENCE] = number(r->audience);
    v[FACT_REPLYALL_NEED] = number(r->need);
    v[FACT_REPLYALL_EVIDENCE] = word(r->evidence);
}

static void read_pingpong(struct fact_value *v, const struct pingpong_signals *p)
{
    v[FACT_PINGPONG_FLIPS] = number(p->flips);
    v[FACT_PINGPONG_AUTOMATIC] = yes_or_no(p->automatic);
    v[FACT_PINGPONG_EVIDENCE] = word(p->evidence);
}

static void read_flood(struct fact_value *v, const struct flood_signals *f)
{
    v[FACT_FLOOD_LEVEL] = word(flood_level_name(f->level));
    v[FACT_FLOOD_RATE] = number(f->rate);
    v[FACT_FLOOD_BASELINE] = number(f->baseline);
    v[FACT_FLOOD_HOUR] = number(f->hour);
    v[FACT_FLOOD_LEARNED] = yes_or_no(f->learned);
    v[FACT_FLOOD_DUPLICATES] = number(f->duplicates);
    v[FACT_FLOOD_ONE_CONTENT] = number(f->one_content);
    v[FACT_FLOOD_DEFER] = yes_or_no(f->defer);
    v[FACT_FLOOD_REPLICATING] = yes_or_no(f->replicating);
    v[FACT_FLOOD_EVIDENCE] = word(f->evidence);
}

/* Ping-pong looks at the first few recipients only. */
static enum advice pingpong_advice(const struct pingpong_signals *p, size_t i)
{
    bool looked = i < p->n && i < sizeof p->advice / sizeof *p->advice;
    return looked ? (enum advice)p->advice[i] : ADVICE_PASS;
}

static void read_copy(struct fact_value *v, const struct copy_signal *c)
{
    static const char rules[][3] = {"R0", "R1", "R2", "R3", "R4", "R5", "R6"};
    v[FACT_REPLICATION_ADVICE] = word(advice_name(c->advice));
    v[FACT_REPLICATION_RELATION] = word(relation_name(c->relation));
    v[FACT_REPLICATION_COPIES] = number(c->copies);
    v[FACT_REPLICATION_PASSED] = number(c->passed);
    v[FACT_REPLICATION_SEEN_BEFORE] = yes_or_no(c->seen_before);
    v[FACT_REPLICATION_RULE] = word(c->rule < sizeof rules / sizeof *rules ? rules[c->rule] : "");
}

/* A copy nobody judged: the first of its message. */
static const struct copy_signal unjudged = {.relation = REL_FIRST, .rule = 1};

void facts_of_message(struct facts *facts, const struct subject *s, const struct signals *signals,
                      uint64_t set)
{
    read_message(facts->value, s);
    facts_of_relay(facts, s, set);
    read_signals(facts->value, signals);
    read_replyall(facts->value, &signals->replyall);
    read_pingpong(facts->value, &signals->pingpong);
    read_flood(facts->value, &signals->flood);
    facts->value[FACT_RECIPIENT_ADDRESS] = text((struct span){NULL, 0});
    facts->value[FACT_RECIPIENT_DOMAIN] = text((struct span){NULL, 0});
    facts->value[FACT_PINGPONG_ADVICE] = word(advice_name(ADVICE_PASS));
    read_copy(facts->value, &unjudged);
}

void facts_of_recipient(struct facts *facts, const struct subject *s, const struct signals *signals,
                        size_t i)
{
    struct span address = s->envelope->recipients[i].address;
    const struct copy_signal *copies = signals->replication.copy;
    size_t at = span_rfind(address, '@');
    facts->value[FACT_RECIPIENT_ADDRESS] = text(address);
    facts->value[FACT_RECIPIENT_DOMAIN] = text(span_from(address, at + 1));
    facts->value[FACT_PINGPONG_ADVICE] = word(advice_name(pingpong_advice(&signals->pingpong, i)));
    read_copy(facts->value, copies ? &copies[i] : &unjudged);
}

void facts_derive(struct facts *facts)
{
    static const enum fact pairs[][2] = {{FACT_MESSAGE_FROM, FACT_MESSAGE_FROM_DOMAIN},
                                         {FACT_ENVELOPE_FROM, FACT_ENVELOPE_FROM_DOMAIN},
                                         {FACT_RECIPIENT_ADDRESS, FACT_RECIPIENT_DOMAIN}};
    struct fact_value *v = facts->value;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        v[pairs[i][1]] = text(address_domain(v[pairs[i][0]].text));
    v[FACT_RELAY_ADDRESS].type = TYPE_ADDRESS;
    (void)ipaddr_parse(&facts->client, v[FACT_RELAY_ADDRESS].text); /* else: the unknown one */
}

enum shape fact_shape(enum fact fact)
{
    switch (fact) {
    case FACT_MESSAGE_FROM:
    case FACT_ENVELOPE_FROM:
    case FACT_RECIPIENT_ADDRESS:
        return SHAPE_MAILBOX;
    case FACT_MESSAGE_FROM_DOMAIN:
    case FACT_ENVELOPE_FROM_DOMAIN:
    case FACT_RECIPIENT_DOMAIN:
    case FACT_RELAY_NAME:
    case FACT_RELAY_HELO:
    case FACT_LOOP_RELAY:
    case FACT_REPLICATION_BLAMED:
        return SHAPE_HOST;
    default:
        return SHAPE_TEXT;
    }
}

enum fact fact_find(struct span name)
{
    for (unsigned i = 0; i < FACT_COUNT; i++)
        if (span_eq(name, span_str(fact_table[i].name)))
            return (enum fact)i;
    return FACT_COUNT;
}

const char *fact_type_name(enum fact_type type)
{
    static const char *const names[] = {"nothing", "true or false", "a number", "a text",
                                        "a network address"};
    return names[type];
}

enum { NEAREST_MAX = 64 }; /* bytes of a word worth guessing about */

static bool same_letter(uint8_t a, uint8_t b)
{
    return byte_lower(a) == byte_lower(b);
}

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Letters to insert, remove, change, or swap with their neighbour to make one of the other (optimal
 * string alignment). */
static unsigned distance(struct span a, struct span b)
{
    unsigned rows[3][NEAREST_MAX + 1];
    for (unsigned j = 0; j <= b.n; j++)
        rows[0][j] = j;
    for (unsigned i = 1; i <= a.n; i++) {
        unsigned *row = rows[i % 3], *last = rows[(i + 2) % 3];
        const unsigned *before = rows[(i + 1) % 3];
        row[0] = i;
        for (unsigned j = 1; j <= b.n; j++) {
            row[j] = least(least(row[j - 1], last[j]) + 1,
                           last[j - 1] + !same_letter(a.p[i - 1], b.p[j - 1]));
            if (i > 1 && j > 1 && same_letter(a.p[i - 1], b.p[j - 2]) &&
                same_letter(a.p[i - 2], b.p[j - 1]))
                row[j] = least(row[j], before[j - 2] + 1);
        }
    }
    return rows[a.n % 3][b.n];
}

void nearest_try(struct nearest *near, const char *name)
{
    struct span other = span_str(name);
    if (near->word.n == 0 || near->word.n > NEAREST_MAX || other.n > NEAREST_MAX)
        return;
    unsigned d = distance(near->word, other);
    size_t most = near->word.n < 5 ? 1 : near->word.n / 3 + 1;
    if (d > most || d >= other.n || (near->name && d >= near->distance))
        return;
    near->name = name;
    near->distance = d;
}

static const struct {
    const char *name;
    enum unit unit;
    double times;
} units[] = {
    {"ms", UNIT_TIME, 1},
    {"s", UNIT_TIME, 1000},
    {"m", UNIT_TIME, 60e3},
    {"h", UNIT_TIME, 3600e3},
    {"d", UNIT_TIME, 86400e3},
    {"KB", UNIT_BYTES, 1024},
    {"MB", UNIT_BYTES, 1024.0 * 1024},
    {"GB", UNIT_BYTES, 1024.0 * 1024 * 1024},
    {"%", UNIT_SHARE, 0.01},
};

static bool unit_byte(uint8_t c)
{
    return c == '%' || c == '_' || byte_letter(c);
}

/* Digits at the start of s as a number; returns how many. */
static size_t read_digits(struct span s, double *value)
{
    size_t n = 0;
    for (*value = 0; n < s.n && byte_digit(s.p[n]); n++)
        *value = *value * 10 + (s.p[n] - '0');
    return n;
}

size_t quantity_read(struct span s, double *value, enum unit *unit)
{
    double fraction = 0, scale = 1;
    size_t n = read_digits(s, value);
    if (n == 0 || n > 15)
        return 0;
    if (n + 1 < s.n && s.p[n] == '.' && byte_digit(s.p[n + 1])) {
        size_t digits = read_digits(span_from(s, n + 1), &fraction);
        if (digits > 15)
            return 0;
        for (size_t i = 0; i < digits; i++)
            scale *= 10;
        n += 1 + digits;
    }
    *value += fraction / scale;
    *unit = UNIT_NONE;
    size_t end = n;
    while (end < s.n && unit_byte(s.p[end]))
        end++;
    if (end == n)
        return n;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (span_eq(span_of(s.p + n, end - n), span_str(units[i].name))) {
            *value *= units[i].times;
            *unit = units[i].unit;
            return end;
        }
    return 0;
}

const char *relation_name(enum relation r)
{
    static const char *const names[REL_COUNT] = {"first", "same", "detour",   "late",  "resend",
                                                 "fork",  "list", "internal", "exempt"};
    return r < REL_COUNT ? names[r] : "unknown";
}

const char *advice_name(enum advice a)
{
    static const char *const names[ADVICE_COUNT] = {"pass", "tag", "hold"};
    return a < ADVICE_COUNT ? names[a] : "unknown";
}

const char *flood_level_name(enum flood_level level)
{
    static const char *const names[] = {"none", "alert", "throttle"};
    return level < sizeof names / sizeof *names ? names[level] : "unknown";
}

const char *disposition_name(enum disposition d)
{
    static const char *const names[DISP_COUNT] = {"pass", "tag", "throttle", "hold", "reject"};
    return d < DISP_COUNT ? names[d] : "unknown";
}

const char *mode_name(enum mode m)
{
    static const char *const names[MODE_COUNT] = {"monitor", "enforce", "bypass"};
    return m < MODE_COUNT ? names[m] : "unknown";
}

bool mode_find(const char *name, enum mode *mode)
{
    for (int m = 0; m < MODE_COUNT; m++)
        if (strcmp(name, mode_name((enum mode)m)) == 0) {
            *mode = (enum mode)m;
            return true;
        }
    return false;
}
