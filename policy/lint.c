/* lint.c - see lint.h. */
#include "lint.h"

/* ---- ordinary mail ---- */

static void set_text(struct facts *f, enum fact fact, const char *text)
{
    f->value[fact].text = span_str(text);
}

static void set_number(struct facts *f, enum fact fact, double n)
{
    f->value[fact].number = n;
}

static void set_yes(struct facts *f, enum fact fact)
{
    f->value[fact].yes = true;
}

/* A letter from one person to another, through a stranger's server; its first copy. */
static void letter(struct arena *arena, struct facts *f, const struct site *site)
{
    static const struct {
        enum fact fact;
        const char *text;
    } texts[] = {
        {FACT_MESSAGE_FROM, "anna@sender.example"},
        {FACT_MESSAGE_SUBJECT, "Minutes of Monday"},
        {FACT_ENVELOPE_FROM, "anna@sender.example"},
        {FACT_RELAY_ADDRESS, "192.0.2.10"},
        {FACT_RELAY_NAME, "mx.sender.example"},
        {FACT_RELAY_HELO, "mx.sender.example"},
        {FACT_REPLICATION_ADVICE, "pass"},
        {FACT_REPLICATION_RELATION, "first"},
        {FACT_REPLICATION_RULE, "R0"},
        {FACT_REPLICATION_JOIN, "own"},
        {FACT_REPLYALL_STATE, "quiet"},
        {FACT_PINGPONG_ADVICE, "pass"},
        {FACT_FLOOD_LEVEL, "none"},
    };
    memset(f, 0, sizeof *f);
    f->site = site;
    for (size_t i = 0; i < FACT_COUNT; i++)
        f->value[i].type = fact_table[i].type;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        set_text(f, texts[i].fact, texts[i].text);
    set_text(f, FACT_RECIPIENT_ADDRESS,
             arena_printf(arena, "bert@%.*s", SPAN_ARG(site->own_domains[0])));
    facts_derive(f);
    set_number(f, FACT_MESSAGE_BYTES, 6000);
    set_number(f, FACT_MESSAGE_WORDS, 200);
    set_number(f, FACT_MESSAGE_VISIBLE, 1);
    set_number(f, FACT_ENVELOPE_RECIPIENTS, 1);
    set_number(f, FACT_LOOP_HOPS, 3);
    set_number(f, FACT_FLOOD_RATE, 1);
    set_number(f, FACT_FLOOD_BASELINE, 1);
}

static void as_it_is(struct facts *f)
{
    (void)f;
}

static void reply(struct facts *f)
{
    set_yes(f, FACT_MESSAGE_REPLY);
    set_text(f, FACT_MESSAGE_SUBJECT, "Re: Minutes of Monday");
}

static void newsletter(struct facts *f)
{
    set_yes(f, FACT_MESSAGE_LIST);
    set_number(f, FACT_MESSAGE_BYTES, 80000);
    set_text(f, FACT_ENVELOPE_FROM, "bounces@list.example");
}

static void notice(struct facts *f)
{
    set_yes(f, FACT_MESSAGE_AUTOMATIC);
    set_text(f, FACT_ENVELOPE_FROM, "");
}

static void large(struct facts *f)
{
    set_number(f, FACT_MESSAGE_BYTES, 20.0 * 1024 * 1024);
}

static void to_many(struct facts *f)
{
    set_number(f, FACT_MESSAGE_VISIBLE, 50);
    set_number(f, FACT_ENVELOPE_RECIPIENTS, 50);
}

static void trusted(struct facts *f)
{
    set_yes(f, FACT_RELAY_TRUSTED);
    set_number(f, FACT_LOOP_HOPS, 6);
}

static void wordless(struct facts *f)
{
    set_yes(f, FACT_MESSAGE_NOISE);
    set_number(f, FACT_MESSAGE_WORDS, 0);
    set_text(f, FACT_MESSAGE_SUBJECT, "");
}

static void forgetful(struct facts *f)
{
    set_yes(f, FACT_STORE_DEGRADED);
}

/* The letter comes first. */
static const struct {
    const char *name;
    void (*make)(struct facts *);
} samples[] = {
    {"an ordinary letter", as_it_is},
    {"an answer to a letter", reply},
    {"a newsletter", newsletter},
    {"a notice from a machine", notice},
    {"a mail of 20 MB", large},
    {"a letter to 50 people", to_many},
    {"a letter through a trusted server", trusted},
    {"a mail without words", wordless},
    {"a letter while the memory of the past is away", forgetful},
};
enum { SAMPLES = sizeof samples / sizeof *samples };

/* ---- findings ---- */

static void find(struct arena *arena, const struct policy *p, size_t rule, bool fault,
                 const char *detail, struct lint *out)
{
    struct lint_finding f = {.fault = fault,
                             .line = policy_rule_line(p, rule),
                             .rule = policy_rule_name(p, rule),
                             .detail = detail};
    out->found = arena_grow(arena, out->found, out->n * sizeof f, (out->n + 1) * sizeof f);
    size_t at = fault ? out->faults++ : out->n;
    memmove(&out->found[at + 1], &out->found[at], (out->n - at) * sizeof f);
    out->found[at] = f;
    out->n++;
}

/* The rule that decides about a sample; policy_rules(): none does. */
static size_t decides(const struct policy *p, const struct facts *f)
{
    size_t i = 0;
    while (i < policy_rules(p) && !expr_true(policy_rule_when(p, i), f))
        i++;
    return i;
}

static const char *done_to_it(enum disposition d)
{
    return d == DISP_HOLD ? "held" : d == DISP_REJECT ? "rejected" : "refused for a time";
}

/* The samples a rule keeps from their recipients, by their names; NULL: none. */
static const char *names_of(struct arena *arena, unsigned caught)
{
    const char *text = NULL;
    for (unsigned i = 0; i < SAMPLES; i++)
        if (caught >> i & 1)
            text = text ? arena_printf(arena, "%s, %s", text, samples[i].name) : samples[i].name;
    return text;
}

static void look_at_samples(struct arena *arena, const struct policy *p, const struct site *site,
                            struct lint *out)
{
    struct facts f;
    size_t n = policy_rules(p);
    unsigned *caught = arena_zero(arena, (n + 1) * sizeof *caught);
    for (unsigned i = 0; i < SAMPLES; i++) {
        letter(arena, &f, site);
        samples[i].make(&f);
        facts_derive(&f);
        caught[decides(p, &f)] |= 1u << i;
    }
    for (size_t i = 0; i < n; i++) {
        const char *names = names_of(arena, caught[i]);
        bool fault = caught[i] & 1;
        if (policy_rule_does(p, i) < DISP_THROTTLE || !names)
            continue;
        find(arena, p, i, fault,
             fault ? arena_printf(arena,
                                  "This would stop everybody's mail: the first copy of an ordinary "
                                  "letter, which nothing is odd about, would be %s",
                                  done_to_it(policy_rule_does(p, i)))
                   : arena_printf(arena,
                                  "This catches first copies that nothing is odd about: %s would "
                                  "be %s",
                                  names, done_to_it(policy_rule_does(p, i))),
             out);
    }
}

/* `when true`, or what comes to the same: it asks for nothing. */
static bool constant(const struct policy *p, size_t i, const struct facts *any, bool *yes)
{
    *yes = expr_facts(policy_rule_when(p, i)) == 0 && expr_true(policy_rule_when(p, i), any);
    return expr_facts(policy_rule_when(p, i)) == 0;
}

static void look_at_order(struct arena *arena, const struct policy *p, const struct site *site,
                          struct lint *out)
{
    struct facts any;
    bool yes;
    size_t always = policy_rules(p);
    letter(arena, &any, site);
    for (size_t i = 0; i < policy_rules(p); i++) {
        if (always < i)
            find(arena, p, i, false,
                 arena_printf(arena,
                              "This rule is never asked: %s before it decides about all mail",
                              policy_rule_name(p, always)),
                 out);
        else if (constant(p, i, &any, &yes) && !yes)
            find(arena, p, i, false, "This rule never matches", out);
        else if (yes)
            always = i;
    }
}

/* Does a name begin with a word and a dot? */
static bool is_of(const char *name, const char *word)
{
    size_t n = strlen(word);
    return strncmp(name, word, n) == 0 && name[n] == '.';
}

/* Does it ask what became of earlier copies, or who brought this one? */
static bool asks_past(const struct expr *when)
{
    static const char *const words[] = {"replication", "loop",  "replyall",
                                        "pingpong",    "flood", "relay"};
    for (size_t f = 0; f < FACT_COUNT; f++)
        for (size_t w = 0; w < sizeof words / sizeof *words; w++)
            if (expr_facts(when) >> f & 1 && is_of(fact_table[f].name, words[w]))
                return true;
    return false;
}

static void look_at_holds(struct arena *arena, const struct policy *p, struct lint *out)
{
    for (size_t i = 0; i < policy_rules(p); i++)
        if (policy_rule_does(p, i) >= DISP_HOLD && !asks_past(policy_rule_when(p, i)))
            find(arena, p, i, false,
                 policy_rule_does(p, i) == DISP_HOLD
                     ? "This holds first copies too: it asks nothing about replication, loops, "
                       "replies, floods or the relay"
                     : "This rejects first copies too: it asks nothing about replication, loops, "
                       "replies, floods or the relay",
                 out);
}

void lint_policy(struct arena *arena, const struct policy *p, struct span domain, struct lint *out)
{
    struct span ours = domain.n ? domain : SPAN("recipient.example");
    struct site site = {.own_domains = &ours, .nown_domains = 1};
    *out = (struct lint){0};
    look_at_samples(arena, p, &site, out);
    look_at_order(arena, p, &site, out);
    look_at_holds(arena, p, out);
}
