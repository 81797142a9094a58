/* fact_pack.c - see fact_pack.h. */
#include <stdio.h>

#include "fact_pack.h"

/* What ordinary mail has: not packed. */
struct usual {
    const char *text; /* NULL: "" */
    uint8_t same_as;  /* as that fact, + 1; 0: none */
    double number;
};
static const struct usual usuals[FACT_COUNT] = {
    [FACT_MESSAGE_FROM] = {.same_as = FACT_ENVELOPE_FROM + 1},
    [FACT_RELAY_HELO] = {.same_as = FACT_RELAY_NAME + 1},
    [FACT_ENVELOPE_RECIPIENTS] = {.number = 1},
    [FACT_LOOP_VISITS] = {.number = 1},
    [FACT_LOOP_EDGES] = {.number = 1},
    [FACT_REPLICATION_TOTAL] = {.number = 1},
    [FACT_REPLICATION_ADVICE] = {.text = "pass"},
    [FACT_REPLICATION_RULE] = {.text = "R1"},
    [FACT_REPLICATION_JOIN] = {.text = "own"},
    [FACT_REPLYALL_STATE] = {.text = "quiet"},
    [FACT_PINGPONG_ADVICE] = {.text = "pass"},
    [FACT_FLOOD_LEVEL] = {.text = "none"},
};

/* ---- packing ---- */

/* At most 10 bytes, none of them NUL. */
static uint8_t *put_varint(uint8_t *p, uint64_t n)
{
    for (n++; n > 0x7f; n >>= 7)
        *p++ = (uint8_t)(n | 0x80);
    *p++ = (uint8_t)n;
    return p;
}

/* Whole numbers as they are, others in thousandths; the lowest bit says which. */
static uint64_t number_code(double n)
{
    static const double most = 9007199254740992.0; /* 2^53 */
    if (!(n > 0))
        return 0;
    if (n >= most)
        return (uint64_t)most << 1;
    uint64_t whole = (uint64_t)n;
    if ((double)whole == n || n >= most / 1000)
        return whole << 1;
    return (uint64_t)(n * 1000 + 0.5) << 1 | 1;
}

static double number_of(uint64_t code)
{
    double n = (double)(code >> 1);
    return code & 1 ? n / 1000 : n;
}

static uint8_t *put_text(uint8_t *p, struct span s)
{
    s = span_head(s, FACT_PACK_TEXT);
    p = put_varint(p, s.n);
    if (s.n)
        memcpy(p, s.p, s.n);
    for (uint8_t *nul = p; (nul = memchr(nul, 0, s.n - (size_t)(nul - p)));)
        *nul = '?';
    return p + s.n;
}

static bool as_usual(const struct facts *facts, enum fact fact)
{
    const struct fact_value *v = &facts->value[fact];
    const struct usual *u = &usuals[fact];
    switch (v->type) {
    case TYPE_BOOL:
        return !v->yes;
    case TYPE_NUMBER:
        return !(v->number < u->number) && !(v->number > u->number);
    case TYPE_STRING:
        return span_eq(v->text, u->same_as ? facts->value[u->same_as - 1].text
                                : u->text  ? span_str(u->text)
                                           : SPAN(""));
    case TYPE_ADDRESS: /* kept aside */
    case TYPE_NONE:
        break;
    }
    return true;
}

size_t facts_pack(const struct facts *facts, bool per_recipient, uint8_t *out)
{
    const size_t most = per_recipient ? FACT_PACK_COPY : FACT_PACK_MESSAGE;
    uint8_t *p = out;
    for (unsigned i = 0; i < FACT_COUNT; i++) {
        const struct fact_value *v = &facts->value[i];
        if (fact_table[i].per_recipient != per_recipient || FACTS_NOT_PACKED >> i & 1 ||
            as_usual(facts, (enum fact)i))
            continue;
        size_t text = v->type == TYPE_STRING ? span_head(v->text, FACT_PACK_TEXT).n : 0;
        if ((size_t)(p - out) + 12 + text > most)
            return SIZE_MAX;
        *p++ = (uint8_t)(i + 1);
        if (v->type == TYPE_NUMBER)
            p = put_varint(p, number_code(v->number));
        else if (v->type == TYPE_STRING)
            p = put_text(p, v->text);
    }
    return (size_t)(p - out);
}

/* ---- the description ---- */

static char type_letter(enum fact_type type)
{
    static const char letters[] = "-bns-";
    return letters[type];
}

size_t facts_describe(char out[FACT_DESCRIPTION])
{
    size_t at = 0;
    for (unsigned i = 0; i < FACT_COUNT; i++) {
        const struct fact_entry *e = &fact_table[i];
        const struct usual *u = &usuals[i];
        char usual[48] = "";
        if (u->same_as)
            snprintf(usual, sizeof usual, "=%s", fact_table[u->same_as - 1].name);
        else if (u->text)
            snprintf(usual, sizeof usual, "%s", u->text);
        else if (u->number > 0)
            snprintf(usual, sizeof usual, "%.0f", u->number);
        int n = snprintf(out + at, FACT_DESCRIPTION - at, "%s %c %s\n", e->name,
                         FACTS_NOT_PACKED >> i & 1 ? '-' : type_letter(e->type), usual);
        if (n < 0 || (size_t)n >= FACT_DESCRIPTION - at)
            break; /* what is not described is not understood */
        at += (size_t)n;
    }
    out[at] = '\0';
    return at;
}

/* The part of *line before the next blank, which is taken away too. */
static struct span take_part(struct span *line)
{
    size_t n = span_find(*line, ' ');
    struct span part = span_head(*line, n);
    *line = span_from(*line, n + 1);
    return part;
}

static void read_usual(struct fact_map *map, enum fact fact, struct span usual)
{
    uint64_t n = 0;
    struct fact_value *v = &map->usual[fact];
    if (v->type == TYPE_STRING && usual.n && usual.p[0] == '=')
        map->same_as[fact] = (uint8_t)fact_find(span_from(usual, 1));
    else if (v->type == TYPE_STRING)
        v->text = usual;
    else if (v->type == TYPE_NUMBER && usual.n && span_number(usual, UINT32_MAX, &n))
        v->number = (double)n;
}

void fact_map_read(struct fact_map *map, struct span description)
{
    size_t number = 1;
    *map = (struct fact_map){.known = FACTS_KEPT_ASIDE};
    memset(map->fact, FACT_COUNT, sizeof map->fact);
    memset(map->same_as, FACT_COUNT, sizeof map->same_as);
    for (unsigned i = 0; i < FACT_COUNT; i++)
        map->usual[i].type = fact_table[i].type;
    description = span_head(description, sizeof map->text);
    if (description.n)
        memcpy(map->text, description.p, description.n);
    struct span rest = span_of(map->text, description.n);
    for (; rest.n && number < 256; number++) {
        size_t n = span_find(rest, '\n');
        struct span line = span_head(rest, n);
        rest = span_from(rest, n + 1);
        enum fact fact = fact_find(take_part(&line));
        struct span type = take_part(&line);
        map->type[number] = type.n == 1 && memchr("bns", type.p[0], 3) ? (char)type.p[0] : 0;
        if (fact == FACT_COUNT || map->type[number] != type_letter(fact_table[fact].type))
            continue;
        map->fact[number] = (uint8_t)fact;
        map->known |= UINT64_C(1) << fact;
        read_usual(map, fact, line);
    }
    if (map->known >> FACT_MESSAGE_FROM & 1)
        map->known |= UINT64_C(1) << FACT_MESSAGE_FROM_DOMAIN;
}

/* ---- unpacking ---- */

/* false: there is none. */
static bool take_varint(struct span *s, uint64_t *n)
{
    *n = 0;
    for (size_t i = 0; i < 10 && i < s->n; i++) {
        *n |= (uint64_t)(s->p[i] & 0x7f) << (7 * i);
        if (s->p[i] & 0x80)
            continue;
        *s = span_from(*s, i + 1);
        return (*n)-- > 0;
    }
    return false;
}

static bool unpack(const struct fact_map *map, struct span s, bool per_recipient,
                   struct facts *facts)
{
    struct fact_value ignored, *v;
    uint64_t n;
    while (s.n) {
        unsigned number = s.p[0];
        enum fact fact = (enum fact)map->fact[number];
        bool ours = fact != FACT_COUNT && fact_table[fact].per_recipient == per_recipient;
        v = ours ? &facts->value[fact] : &ignored;
        s = span_from(s, 1);
        switch (map->type[number]) {
        case 'b':
            v->yes = true;
            break;
        case 'n':
            if (!take_varint(&s, &n))
                return false;
            v->number = number_of(n);
            break;
        case 's':
            if (!take_varint(&s, &n) || n > s.n)
                return false;
            v->text = span_head(s, (size_t)n);
            s = span_from(s, (size_t)n);
            break;
        default:
            return false;
        }
    }
    return true;
}

bool facts_unpack(const struct fact_map *map, struct span of_message, struct span of_copy,
                  struct facts *facts)
{
    struct fact_value *v = facts->value;
    static const struct span unsaid = {(const uint8_t *)"\0", 0};
    for (unsigned i = 0; i < FACT_COUNT; i++) {
        if (FACTS_KEPT_ASIDE >> i & 1)
            continue;
        v[i] = map->usual[i];
        if (map->same_as[i] != FACT_COUNT)
            v[i].text = unsaid;
    }
    if (!unpack(map, of_message, false, facts) || !unpack(map, of_copy, true, facts))
        return false;
    for (unsigned i = 0; i < FACT_COUNT; i++)
        if (map->same_as[i] != FACT_COUNT && v[i].type == TYPE_STRING && v[i].text.p == unsaid.p)
            v[i].text = v[map->same_as[i]].text;
    facts_derive(facts);
    return true;
}
