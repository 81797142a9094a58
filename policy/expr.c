/*
 * expr.c - `when`: recursive descent into a flat program of tests and jumps.
 *
 *   a and (b or c)      0  test a
 *                       1  jump to 5 if false
 *                       2  test b
 *                       3  jump to 5 if true
 *                       4  test c
 *                       5  (end)
 *
 * Running it keeps one truth value and nothing else: every step is one test, `not` or a jump
 * forward, so it ends after at most as many steps as it has, and there is no stack to overflow.
 */
#include <stdarg.h>
#include <stdio.h>

#include "expr.h"

enum { DEPTH_MAX = 32, STEPS_MAX = 2000, LIST_MAX = 1000, PATTERN_MAX = 256, HOST_BYTES = 253 };

enum step_kind {
    STEP_TEST, /* the value is a truth itself */
    STEP_COMPARE,
    STEP_IN,
    STEP_NETWORKS, /* is relay.address one of these? */
    STEP_SET,
    STEP_SITE_SET,
    STEP_MATCHES,
    STEP_NOT,
    STEP_IF_FALSE, /* jump, keeping the truth value */
    STEP_IF_TRUE,
};

enum comparison { EQUAL, UNEQUAL, LESS, AT_MOST, MORE, AT_LEAST };

/* A fact to look up, or a value that stands in the text. */
struct operand {
    enum fact fact; /* FACT_COUNT: the literal */
    struct fact_value literal;
    enum unit unit;
    struct netmask network; /* of a literal TYPE_ADDRESS */
};

/* Sets of breakwater.conf. */
enum site_set { SET_OURS, SET_OWN_HOSTS, SET_OWN_NETS, SET_TRUSTED, SET_EXEMPT, SITE_SETS };

static const struct {
    const char *name;
    bool hosts, mailboxes, networks; /* what may be in it */
    const char *has;
} site_sets[SITE_SETS] = {
    [SET_OURS] = {"ours", true, true, false, "domains"},
    [SET_OWN_HOSTS] = {"own_hosts", true, false, false, "host names"},
    [SET_OWN_NETS] = {"own_nets", false, false, true, "networks"},
    [SET_TRUSTED] = {"trusted", true, false, true, "host names and networks"},
    [SET_EXEMPT] = {"exempt", false, true, false, "mail addresses"},
};

struct step {
    enum step_kind kind;
    enum comparison comparison;
    struct operand left, right;
    const struct operand *list; /* STEP_IN, STEP_NETWORKS */
    size_t nlist;
    const struct set *set;
    enum site_set site_set;
    size_t target; /* jumps */
};

struct expr {
    struct step *steps;
    size_t n;
    uint64_t facts;
};

struct parser {
    struct arena *arena;
    const struct sets *sets; /* NULL: none */
    struct span text;
    size_t at; /* of the next token */
    unsigned depth;
    struct expr *expr;
    size_t cap;
    struct expr_error *error;
};

/* ---- words ---- */

void expr_error_at(struct expr_error *error, struct span text, size_t at, const char *fmt, ...)
{
    error->line = error->column = 1;
    for (size_t i = 0; i < at && i < text.n; i++) {
        error->column++;
        if (text.p[i] == '\n')
            error->line++, error->column = 1;
    }
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(error->text, sizeof error->text, fmt, ap);
    va_end(ap);
    for (char *c = error->text; *c; c++)
        if (*c < 0x20 || *c > 0x7e)
            *c = '?';
}

#define REFUSE(p, at, ...) (expr_error_at((p)->error, (p)->text, (at), __VA_ARGS__), false)

size_t expr_blank(struct span s)
{
    size_t n = 0;
    while (n < s.n && (byte_space(s.p[n]) || s.p[n] == '#')) {
        if (s.p[n] == '#')
            while (n < s.n && s.p[n] != '\n')
                n++;
        else
            n++;
    }
    return n;
}

/* Where the quoted text at the start of s ends: its closing quote, or s.n. */
static size_t string_end(struct span s)
{
    size_t n = 1;
    while (n < s.n && s.p[n] != '"' && s.p[n] != '\n')
        n += s.p[n] == '\\' && n + 1 < s.n && s.p[n + 1] != '\n' ? 2 : 1;
    return n < s.n && s.p[n] == '"' ? n : s.n;
}

size_t expr_string(struct arena *arena, struct span whole, size_t at, struct span *value,
                   struct expr_error *error)
{
    struct span s = span_from(whole, at);
    size_t end = string_end(s), n = 0;
    if (end == s.n) {
        expr_error_at(error, whole, at, "this text has no closing quote on its line");
        return 0;
    }
    uint8_t *out = arena_alloc(arena, end);
    for (size_t i = 1; i < end; i++) {
        if (s.p[i] == '\\')
            i++;
        out[n++] = s.p[i];
    }
    *value = span_of(out, n);
    return end + 1;
}

static bool word_byte(uint8_t c)
{
    return byte_letter(c) || byte_digit(c) || c == '_' || c == '.';
}

/* The word at the parser's place; empty if there is none. */
static struct span peek_word(struct parser *p)
{
    p->at += expr_blank(span_from(p->text, p->at));
    struct span s = span_from(p->text, p->at);
    size_t n = 0;
    while (n < s.n && word_byte(s.p[n]))
        n++;
    return span_of(s.p, n);
}

static bool take_word(struct parser *p, const char *word)
{
    struct span s = peek_word(p);
    if (!span_eq(s, span_str(word)))
        return false;
    p->at += s.n;
    return true;
}

static bool take_sign(struct parser *p, const char *sign)
{
    p->at += expr_blank(span_from(p->text, p->at));
    if (!span_starts(span_from(p->text, p->at), span_str(sign)))
        return false;
    p->at += strlen(sign);
    return true;
}

/* ---- the program ---- */

static bool add_step(struct parser *p, struct step step)
{
    struct expr *e = p->expr;
    if (e->n == STEPS_MAX)
        return REFUSE(p, p->at, "this expression is too long (more than %d parts)", STEPS_MAX);
    if (e->n == p->cap) {
        size_t cap = p->cap ? p->cap * 2 : 8;
        e->steps =
            arena_grow(p->arena, e->steps, p->cap * sizeof *e->steps, cap * sizeof *e->steps);
        p->cap = cap;
    }
    e->steps[e->n++] = step;
    return true;
}

/* ---- operands ---- */

static bool unknown_word(struct parser *p, struct span word)
{
    struct nearest near = {.word = word};
    for (size_t i = 0; i < FACT_COUNT; i++)
        nearest_try(&near, fact_table[i].name);
    nearest_try(&near, "true");
    nearest_try(&near, "false");
    word = span_head(word, 60);
    if (near.name)
        return REFUSE(p, p->at, "there is no fact '%.*s': did you mean '%s'?", SPAN_ARG(word),
                      near.name);
    return REFUSE(p, p->at, "there is no fact '%.*s': policy.conf(5) lists them", SPAN_ARG(word));
}

static bool parse_number(struct parser *p, struct operand *o)
{
    struct span word = peek_word(p);
    size_t n = quantity_read(span_from(p->text, p->at), &o->literal.number, &o->unit);
    struct span rest = span_from(p->text, p->at + n);
    if (n == 0 || (rest.n && word_byte(rest.p[0])))
        return REFUSE(p, p->at,
                      "'%.*s' is no number: expected digits, with ms s m h d KB MB GB or %% behind",
                      SPAN_ARG(span_head(word, 40)));
    o->literal.type = TYPE_NUMBER;
    p->at += n;
    return true;
}

struct span expr_network(struct span s)
{
    size_t n = 0, dots = 0, colons = 0, slashes = 0;
    for (; n < s.n && (byte_hex(s.p[n]) >= 0 || memchr(".:/", s.p[n], 3)); n++) {
        dots += s.p[n] == '.';
        colons += s.p[n] == ':';
        slashes += s.p[n] == '/';
    }
    bool four = n && byte_digit(s.p[0]) && (dots >= 3 || slashes);
    return span_head(s, colons || four ? n : 0);
}

static bool parse_network(struct parser *p, struct operand *o, struct span word)
{
    struct span rest = span_from(p->text, p->at + word.n);
    if ((rest.n && word_byte(rest.p[0])) || !netmask_parse(&o->network, word))
        return REFUSE(p, p->at,
                      "'%.*s' is no network address: expected one as 192.0.2.7, 192.0.2.0/24 or "
                      "2001:db8::/32",
                      SPAN_ARG(span_head(word, 60)));
    o->literal.type = TYPE_ADDRESS;
    p->at += word.n;
    return true;
}

static bool parse_string(struct parser *p, struct operand *o)
{
    size_t n = expr_string(p->arena, p->text, p->at, &o->literal.text, p->error);
    o->literal.type = TYPE_STRING;
    p->at += n;
    return n > 0;
}

static bool parse_name(struct parser *p, struct operand *o, struct span word)
{
    if (span_eq(word, SPAN("true")) || span_eq(word, SPAN("false"))) {
        o->literal = (struct fact_value){.type = TYPE_BOOL, .yes = word.n == 4};
        p->at += word.n;
        return true;
    }
    o->fact = fact_find(word);
    if (o->fact == FACT_COUNT)
        return unknown_word(p, word);
    o->unit = fact_table[o->fact].unit;
    p->expr->facts |= UINT64_C(1) << o->fact;
    p->at += word.n;
    return true;
}

static bool parse_operand(struct parser *p, struct operand *o)
{
    struct span word = peek_word(p);
    struct span s = span_from(p->text, p->at), network = expr_network(s);
    *o = (struct operand){.fact = FACT_COUNT};
    if (s.n == 0)
        return REFUSE(p, p->at,
                      "the text ends where a fact, number, text, true or false should be");
    if (s.p[0] == '"')
        return parse_string(p, o);
    if (network.n)
        return parse_network(p, o, network);
    if (byte_digit(s.p[0]))
        return parse_number(p, o);
    if (span_starts(s, SPAN("!")))
        return REFUSE(p, p->at, "found '!': write 'not'");
    if (word.n == 0)
        return REFUSE(p, p->at, "found '%c' where a fact, number, text, true or false should be",
                      s.p[0]);
    return parse_name(p, o, word);
}

static enum fact_type operand_type(const struct operand *o)
{
    return o->fact == FACT_COUNT ? o->literal.type : fact_table[o->fact].type;
}

/* "loop.visits", or what the literal is. */
static const char *operand_name(const struct operand *o)
{
    return o->fact == FACT_COUNT ? "the value" : fact_table[o->fact].name;
}

static bool check_types(struct parser *p, size_t at, const struct operand *a,
                        const struct operand *b)
{
    static const char *const units[] = {"a plain number", "a time", "a size in bytes", "a share"};
    enum fact_type left = operand_type(a), right = operand_type(b);
    bool texts = left >= TYPE_STRING && right >= TYPE_STRING; /* the text of an address */
    if (left != right && !texts)
        return REFUSE(p, at, "%s is %s and cannot be compared with %s", operand_name(a),
                      fact_type_name(left), fact_type_name(right));
    if (a->unit == b->unit || b->unit == UNIT_NONE || left != TYPE_NUMBER)
        return true;
    if (a->unit == UNIT_NONE && a->fact == FACT_COUNT)
        return true;
    return REFUSE(p, at, "%s is %s and cannot be compared with %s", operand_name(a), units[a->unit],
                  units[b->unit]);
}

/* ---- network addresses ---- */

/* A text between quotes is read as an address where one is expected; "" is the unknown one. */
static bool as_network(struct parser *p, size_t at, struct operand *o)
{
    if (o->fact != FACT_COUNT)
        return REFUSE(p, at, "%s cannot stand here: expected an address as 192.0.2.7",
                      operand_name(o));
    if (o->literal.type == TYPE_ADDRESS)
        return true;
    if (o->literal.type != TYPE_STRING)
        return REFUSE(p, at, "a network address cannot be compared with %s",
                      fact_type_name(o->literal.type));
    o->network = (struct netmask){.bits = 128};
    if (o->literal.text.n && !netmask_parse(&o->network, o->literal.text))
        return REFUSE(p, at, "'%.*s' is no network address",
                      SPAN_ARG(span_head(o->literal.text, 60)));
    o->literal.type = TYPE_ADDRESS;
    return true;
}

/* Is it relay.address against a value? With another fact it is compared as texts are. */
static bool networks_compared(const struct operand *a, const struct operand *b)
{
    enum fact_type left = operand_type(a), right = operand_type(b);
    return (left == TYPE_ADDRESS || right == TYPE_ADDRESS) &&
           (a->fact == FACT_COUNT || b->fact == FACT_COUNT);
}

/* relay.address == 192.0.2.7, either way round; != as well. */
static bool check_networks(struct parser *p, size_t at, struct step *step)
{
    if (step->left.fact == FACT_COUNT) {
        struct operand left = step->left;
        step->left = step->right;
        step->right = left;
    }
    if (step->left.fact == FACT_COUNT || operand_type(&step->left) != TYPE_ADDRESS)
        return REFUSE(p, at, "%s is %s and cannot be compared with a network address",
                      operand_name(&step->left), fact_type_name(operand_type(&step->left)));
    if (!as_network(p, at, &step->right))
        return false;
    if (step->comparison > UNEQUAL)
        return REFUSE(p, at, "%s is a network address: only numbers are less or more than another",
                      operand_name(&step->left));
    if (step->right.network.bits != 128)
        return REFUSE(p, at, "this is a network, not one address: write 'in' instead of '=='");
    struct operand *one = arena_alloc(p->arena, sizeof *one);
    *one = step->right;
    step->kind = STEP_NETWORKS;
    step->list = one;
    step->nlist = 1;
    return true;
}

/* ---- sets ---- */

bool expr_site_set(struct span name)
{
    for (unsigned i = 0; i < SITE_SETS; i++)
        if (span_eq(name, span_str(site_sets[i].name)))
            return true;
    return false;
}

/* "a mail address": what a fact is, for a message about sets. */
static const char *fact_is(enum fact fact)
{
    static const char *const shapes[] = {"a text", "a mail address",
                                         "the name of a host or domain"};
    enum fact_type type = fact_table[fact].type;
    return type == TYPE_STRING ? shapes[fact_shape(fact)] : fact_type_name(type);
}

static bool misfit(struct parser *p, size_t at, enum fact fact, const char *name, const char *has)
{
    const char *hint = "";
    if (fact_table[fact].type == TYPE_STRING && fact_shape(fact) == SHAPE_MAILBOX)
        hint = ": @example.org in a set is all of a domain";
    return REFUSE(p, at, "%s is %s, and @%s has %s%s", fact_table[fact].name, fact_is(fact), name,
                  has, hint);
}

static bool use_set(struct parser *p, size_t at, struct step *step, const struct set *set)
{
    enum fact fact = step->left.fact;
    enum set_kind kind = set_kind(set), wanted = SET_TEXTS;
    if (fact_table[fact].type == TYPE_ADDRESS)
        wanted = SET_NETWORKS;
    else if (fact_shape(fact) == SHAPE_MAILBOX)
        wanted = SET_ADDRESSES;
    step->kind = STEP_SET;
    step->set = set;
    return kind == SET_EMPTY || kind == wanted ||
           misfit(p, at, fact, set_label(set), set_kind_name(kind));
}

static bool use_site_set(struct parser *p, size_t at, struct step *step, enum site_set set)
{
    enum fact fact = step->left.fact;
    bool address = fact_table[fact].type == TYPE_ADDRESS;
    bool fits = address ? site_sets[set].networks
                        : (fact_shape(fact) == SHAPE_HOST && site_sets[set].hosts) ||
                              (fact_shape(fact) == SHAPE_MAILBOX && site_sets[set].mailboxes);
    step->kind = STEP_SITE_SET;
    step->site_set = set;
    return fits || misfit(p, at, fact, site_sets[set].name, site_sets[set].has);
}

static bool unknown_set(struct parser *p, size_t at, struct span name)
{
    struct nearest near = {.word = name};
    for (size_t i = 0; p->sets && i < p->sets->n; i++)
        nearest_try(&near, set_label(p->sets->set[i]));
    for (size_t i = 0; i < SITE_SETS; i++)
        nearest_try(&near, site_sets[i].name);
    name = span_head(name, 60);
    if (near.name)
        return REFUSE(p, at, "there is no set '@%.*s': did you mean '@%s'?", SPAN_ARG(name),
                      near.name);
    return REFUSE(p, at,
                  "there is no set '@%.*s': declare it before the rules, as in: set %.*s (...)",
                  SPAN_ARG(name), SPAN_ARG(name));
}

/* The name behind the @ at the parser's place. */
static struct span take_set_name(struct parser *p)
{
    struct span s = span_from(p->text, p->at + 1);
    size_t n = 0;
    while (n < s.n && (byte_letter(s.p[n]) || byte_digit(s.p[n]) || s.p[n] == '_' || s.p[n] == '-'))
        n++;
    p->at += 1 + n;
    return span_head(s, n);
}

static bool parse_set(struct parser *p, struct step *step)
{
    size_t at = p->at;
    struct span name = take_set_name(p);
    enum fact_type type = operand_type(&step->left);
    if (step->left.fact == FACT_COUNT || (type != TYPE_STRING && type != TYPE_ADDRESS))
        return REFUSE(p, at,
                      "%s is %s: only a fact that is a text or a network address is in a set",
                      operand_name(&step->left), fact_type_name(type));
    for (size_t i = 0; p->sets && i < p->sets->n; i++)
        if (span_eq(name, span_str(set_label(p->sets->set[i]))))
            return use_set(p, at, step, p->sets->set[i]);
    for (unsigned i = 0; i < SITE_SETS; i++)
        if (span_eq(name, span_str(site_sets[i].name)))
            return use_site_set(p, at, step, (enum site_set)i);
    return unknown_set(p, at, name);
}

/* ---- the grammar, loosest first ---- */

static bool parse_or(struct parser *);

/* A value of a list, of the type that what is asked about has. */
static bool parse_item(struct parser *p, const struct step *step, struct operand *item)
{
    size_t at = (peek_word(p), p->at);
    if (!parse_operand(p, item))
        return false;
    if (operand_type(&step->left) == TYPE_ADDRESS)
        return as_network(p, at, item);
    return check_types(p, at, &step->left, item);
}

static bool parse_list_items(struct parser *p, struct step *step)
{
    struct operand *list = NULL;
    size_t n = 0, cap = 0;
    do {
        if (n == LIST_MAX)
            return REFUSE(p, p->at, "this list is too long (more than %d values)", LIST_MAX);
        if (n == cap) {
            size_t more = cap ? cap * 2 : 8;
            list = arena_grow(p->arena, list, cap * sizeof *list, more * sizeof *list);
            cap = more;
        }
        if (!parse_item(p, step, &list[n]))
            return false;
        n++;
    } while (take_sign(p, ","));
    step->list = list;
    step->nlist = n;
    return true;
}

/* A network without parentheses. */
static bool parse_one(struct parser *p, struct step *step)
{
    struct operand *one = arena_alloc(p->arena, sizeof *one);
    step->list = one;
    step->nlist = 1;
    return parse_item(p, step, one);
}

static bool parse_in(struct parser *p, struct step *step)
{
    bool address = operand_type(&step->left) == TYPE_ADDRESS;
    peek_word(p);
    if (address && step->left.fact == FACT_COUNT)
        return REFUSE(p, p->at, "only relay.address can be in a network");
    step->kind = address ? STEP_NETWORKS : STEP_IN;
    if (span_starts(span_from(p->text, p->at), SPAN("@")))
        return parse_set(p, step);
    if (address && expr_network(span_from(p->text, p->at)).n)
        return parse_one(p, step);
    if (!take_sign(p, "("))
        return REFUSE(p, p->at,
                      "expected '(' or a set after 'in', as in: in (\"a\", \"b\") or in @ours");
    if (!parse_list_items(p, step))
        return false;
    if (!take_sign(p, ")"))
        return REFUSE(p, p->at, "expected ',' or ')' in the list after 'in'");
    return true;
}

static bool parse_matches(struct parser *p, struct step *step, size_t at)
{
    step->kind = STEP_MATCHES;
    if (operand_type(&step->left) != TYPE_STRING && step->left.fact != FACT_RELAY_ADDRESS)
        return REFUSE(p, at, "%s is %s: only a text can match a pattern", operand_name(&step->left),
                      fact_type_name(operand_type(&step->left)));
    size_t here = (peek_word(p), p->at);
    if (!parse_operand(p, &step->right))
        return false;
    if (step->right.fact != FACT_COUNT || operand_type(&step->right) != TYPE_STRING)
        return REFUSE(p, here, "expected a pattern after 'matches', as in: \"*@example.org\"");
    if (step->right.literal.text.n > PATTERN_MAX)
        return REFUSE(p, here, "this pattern is longer than %d bytes", PATTERN_MAX);
    return true;
}

/* 1: took a comparison sign, 0: there is none, -1: refused. */
static int take_comparison(struct parser *p, enum comparison *c)
{
    static const struct {
        const char *sign;
        enum comparison comparison;
    } signs[] = {{"==", EQUAL},    {"!=", UNEQUAL}, {"<=", AT_MOST},
                 {">=", AT_LEAST}, {"<", LESS},     {">", MORE}};
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++)
        if (take_sign(p, signs[i].sign)) {
            *c = signs[i].comparison;
            return 1;
        }
    if (!span_starts(span_from(p->text, p->at), SPAN("=")))
        return 0;
    (void)REFUSE(p, p->at, "found '=': write '==' to compare");
    return -1;
}

static bool check_compared(struct parser *p, struct step *step, size_t at)
{
    if (networks_compared(&step->left, &step->right))
        return check_networks(p, at, step);
    if (!check_types(p, at, &step->left, &step->right))
        return false;
    if (step->comparison > UNEQUAL && operand_type(&step->left) != TYPE_NUMBER)
        return REFUSE(p, at, "%s is %s: only numbers are less or more than another",
                      operand_name(&step->left), fact_type_name(operand_type(&step->left)));
    return true;
}

static bool parse_compare(struct parser *p, struct step *step, size_t at)
{
    step->kind = STEP_COMPARE;
    if (!parse_operand(p, &step->right) || !check_compared(p, step, at))
        return false;
    enum comparison again;
    size_t end = (peek_word(p), p->at);
    int chained = take_comparison(p, &again);
    if (chained > 0)
        return REFUSE(p, end, "comparisons cannot be chained: write 'a < b and b < c'");
    return chained == 0;
}

static bool parse_test(struct parser *p)
{
    struct step step = {.kind = STEP_TEST};
    size_t at = (peek_word(p), p->at);
    if (!parse_operand(p, &step.left))
        return false;
    int compared = take_comparison(p, &step.comparison);
    if (compared < 0)
        return false;
    if (compared > 0)
        return parse_compare(p, &step, at) && add_step(p, step);
    if (take_word(p, "in"))
        return parse_in(p, &step) && add_step(p, step);
    if (take_word(p, "matches"))
        return parse_matches(p, &step, at) && add_step(p, step);
    if (operand_type(&step.left) != TYPE_BOOL)
        return REFUSE(p, at, "%s is %s: expected a comparison after it", operand_name(&step.left),
                      fact_type_name(operand_type(&step.left)));
    return add_step(p, step);
}

static bool parse_group(struct parser *p)
{
    size_t at = p->at;
    if (!take_sign(p, "("))
        return parse_test(p);
    if (!parse_or(p))
        return false;
    if (!take_sign(p, ")"))
        return REFUSE(p, at, "this '(' is not closed");
    return true;
}

static bool parse_not(struct parser *p)
{
    peek_word(p);
    if (p->depth == DEPTH_MAX)
        return REFUSE(p, p->at, "nested deeper than %d", DEPTH_MAX);
    p->depth++;
    bool negated = take_word(p, "not");
    bool done =
        negated ? parse_not(p) && add_step(p, (struct step){.kind = STEP_NOT}) : parse_group(p);
    p->depth--;
    return done;
}

/* One or more terms joined by a word; each but the last may jump over the rest. */
static bool parse_joined(struct parser *p, const char *word, const char *wrong, enum step_kind jump,
                         bool (*term)(struct parser *))
{
    size_t chain = SIZE_MAX; /* jumps to be aimed, linked through target */
    for (;;) {
        if (!term(p))
            return false;
        peek_word(p);
        if (span_starts(span_from(p->text, p->at), span_str(wrong)))
            return REFUSE(p, p->at, "found '%s': write '%s'", wrong, word);
        if (!take_word(p, word))
            break;
        if (!add_step(p, (struct step){.kind = jump, .target = chain}))
            return false;
        chain = p->expr->n - 1;
    }
    while (chain != SIZE_MAX) {
        size_t next = p->expr->steps[chain].target;
        p->expr->steps[chain].target = p->expr->n;
        chain = next;
    }
    return true;
}

static bool parse_and(struct parser *p)
{
    return parse_joined(p, "and", "&", STEP_IF_FALSE, parse_not);
}

static bool parse_or(struct parser *p)
{
    return parse_joined(p, "or", "|", STEP_IF_TRUE, parse_and);
}

struct expr *expr_compile(struct arena *arena, const struct sets *sets, struct span text,
                          size_t *used, struct expr_error *error)
{
    struct expr *e = arena_zero(arena, sizeof *e);
    struct parser p = {.arena = arena, .sets = sets, .text = text, .expr = e, .error = error};
    if (!parse_or(&p))
        return NULL;
    *used = p.at;
    return e;
}

/* ---- running ---- */

static const struct fact_value *value_of(const struct operand *o, const struct facts *facts)
{
    return o->fact == FACT_COUNT ? &o->literal : &facts->value[o->fact];
}

static bool same(const struct fact_value *a, const struct fact_value *b)
{
    if (a->type == TYPE_NUMBER)
        return a->number >= b->number && a->number <= b->number;
    return a->type == TYPE_BOOL ? a->yes == b->yes : span_case_eq(a->text, b->text);
}

static bool compare(enum comparison c, const struct fact_value *a, const struct fact_value *b)
{
    switch (c) {
    case EQUAL:
        return same(a, b);
    case UNEQUAL:
        return !same(a, b);
    case LESS:
        return a->number < b->number;
    case AT_MOST:
        return a->number <= b->number;
    case MORE:
        return a->number > b->number;
    case AT_LEAST:
        return a->number >= b->number;
    }
    return false;
}

/* Does pattern match all of s? Returns to the last * only: at most s.n * pattern.n steps, and both
 * are bounded (FACT_TEXT_MAX, PATTERN_MAX). */
static bool matches(struct span s, struct span pattern)
{
    size_t i = 0, j = 0, star = SIZE_MAX, resume = 0;
    while (i < s.n) {
        if (j < pattern.n && pattern.p[j] == '*') {
            star = j++;
            resume = i;
        } else if (j < pattern.n &&
                   (pattern.p[j] == '?' || byte_lower(pattern.p[j]) == byte_lower(s.p[i]))) {
            i++;
            j++;
        } else if (star != SIZE_MAX) {
            j = star + 1;
            i = ++resume;
        } else {
            return false;
        }
    }
    while (j < pattern.n && pattern.p[j] == '*')
        j++;
    return j == pattern.n;
}

static bool in_list(const struct step *s, const struct facts *facts)
{
    const struct fact_value *left = value_of(&s->left, facts);
    for (size_t i = 0; i < s->nlist; i++)
        if (same(left, value_of(&s->list[i], facts)))
            return true;
    return false;
}

static bool in_networks(const struct step *s, const struct facts *facts)
{
    for (size_t i = 0; i < s->nlist; i++)
        if (network_has(&s->list[i].network, &facts->client))
            return true;
    return false;
}

static bool in_set(const struct step *s, const struct facts *facts)
{
    enum fact fact = s->left.fact;
    if (fact_table[fact].type == TYPE_ADDRESS)
        return set_has_address(s->set, &facts->client);
    return set_has_text(s->set, fact_shape(fact), facts->value[fact].text);
}

static bool host_in_site_set(const struct site *site, enum site_set set, struct span host)
{
    uint8_t lower[HOST_BYTES];
    if (host.n > sizeof lower)
        return false;
    for (size_t i = 0; i < host.n; i++)
        lower[i] = byte_lower(host.p[i]);
    host = span_of(lower, host.n);
    switch (set) {
    case SET_OURS:
        return site_has_domain(site, host);
    case SET_OWN_HOSTS:
        return site_has_host(site, host);
    case SET_TRUSTED:
        return site_has_trusted(site, host);
    default:
        return false;
    }
}

static bool in_site_set(const struct step *s, const struct facts *facts)
{
    const struct site *site = facts->site;
    struct span text = facts->value[s->left.fact].text;
    if (!site)
        return false;
    if (s->site_set == SET_EXEMPT)
        return site_exempt(site, text);
    if (fact_table[s->left.fact].type != TYPE_ADDRESS)
        return host_in_site_set(site, s->site_set,
                                fact_shape(s->left.fact) == SHAPE_MAILBOX ? address_domain(text)
                                                                          : text);
    return s->site_set == SET_TRUSTED ? site_has_trusted_addr(site, &facts->client)
                                      : site_has_addr(site, &facts->client);
}

bool expr_true(const struct expr *e, const struct facts *facts)
{
    bool truth = false;
    for (size_t i = 0; i < e->n; i++) {
        const struct step *s = &e->steps[i];
        switch (s->kind) {
        case STEP_TEST:
            truth = value_of(&s->left, facts)->yes;
            break;
        case STEP_COMPARE:
            truth = compare(s->comparison, value_of(&s->left, facts), value_of(&s->right, facts));
            break;
        case STEP_IN:
            truth = in_list(s, facts);
            break;
        case STEP_NETWORKS:
            truth = in_networks(s, facts) != (s->comparison == UNEQUAL);
            break;
        case STEP_SET:
            truth = in_set(s, facts);
            break;
        case STEP_SITE_SET:
            truth = in_site_set(s, facts);
            break;
        case STEP_MATCHES:
            truth = matches(value_of(&s->left, facts)->text, s->right.literal.text);
            break;
        case STEP_NOT:
            truth = !truth;
            break;
        case STEP_IF_FALSE:
            if (!truth)
                i = s->target - 1;
            break;
        case STEP_IF_TRUE:
            if (truth)
                i = s->target - 1;
            break;
        }
    }
    return truth;
}

bool expr_per_recipient(const struct expr *e)
{
    for (unsigned i = 0; i < FACT_COUNT; i++)
        if ((e->facts >> i & 1) && fact_table[i].per_recipient)
            return true;
    return false;
}

uint64_t expr_facts(const struct expr *e)
{
    return e->facts;
}
