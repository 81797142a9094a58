/*
 * milter_proto.c - frames of the milter protocol, read and written.
 *
 * Reading never looks behind the span it was given and never fails on content. Everything written
 * is one line of printable text per string: what strangers chose cannot end a header or a reply.
 */
#include <arpa/inet.h>
#include <stdlib.h>

#include "milter_proto.h"
#include "site.h"

enum { VERSION_OLDEST = 2, VERSION_OURS = 6 };

static const uint32_t wanted_actions = ACT_ADDHDRS | ACT_CHGHDRS | ACT_DELRCPT | ACT_SETSYMLIST;
static const uint32_t wanted_steps = STEP_NOUNKNOWN | STEP_NR_UNKN | STEP_NR_CONN | STEP_NR_HELO |
                                     STEP_NR_MAIL | STEP_NR_RCPT | STEP_NR_DATA | STEP_NR_HDR |
                                     STEP_NR_EOH | STEP_NR_BODY | STEP_LEADSPC;

/* The macros we want, by stage (SMFIM_*): Postfix would repeat the queue id before every field. */
static const char *const wanted_macros[] = {
    "",                /* connect */
    "",                /* HELO */
    "i {auth_authen}", /* MAIL */
    "i",               /* RCPT */
    "i",               /* DATA */
    "i",               /* end of message */
    "",                /* end of header */
};

static uint32_t read_u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

enum frame_state milter_frame(struct span in, struct milter_frame *out)
{
    if (in.n < 4)
        return FRAME_PART;
    uint32_t n = read_u32(in.p);
    if (n == 0 || n > 1 + LIMIT_HEAD)
        return FRAME_BAD;
    if (in.n < MILTER_FRAME)
        return FRAME_PART;
    if (n > 1 + MILTER_CHUNK && in.p[4] != 'L')
        return FRAME_BAD;
    if (in.n - 4 < n)
        return FRAME_PART;
    out->command = in.p[4];
    out->data = span_of(in.p + MILTER_FRAME, n - 1);
    out->size = 4 + (size_t)n;
    return FRAME_WHOLE;
}

bool milter_agree(struct span offer, struct milter_terms *out)
{
    if (offer.n < 12)
        return false;
    uint32_t version = read_u32(offer.p);
    if (version < VERSION_OLDEST)
        return false;
    out->version = version < VERSION_OURS ? version : VERSION_OURS;
    out->actions = read_u32(offer.p + 4) & wanted_actions;
    out->steps = read_u32(offer.p + 8) & wanted_steps;
    return true;
}

const char *milter_missing(const struct milter_terms *t)
{
    static const char *const names[8] = {
        NULL,
        "SMFIF_ADDHDRS",
        "SMFIF_DELRCPT",
        "SMFIF_ADDHDRS SMFIF_DELRCPT",
        "SMFIF_CHGHDRS",
        "SMFIF_ADDHDRS SMFIF_CHGHDRS",
        "SMFIF_DELRCPT SMFIF_CHGHDRS",
        "SMFIF_ADDHDRS SMFIF_DELRCPT SMFIF_CHGHDRS",
    };
    unsigned missing = (t->actions & ACT_ADDHDRS ? 0 : 1u) | (t->actions & ACT_DELRCPT ? 0 : 2u) |
                       (t->actions & ACT_CHGHDRS ? 0 : 4u);
    return names[missing];
}

struct span milter_string(struct span *rest)
{
    size_t n = span_find(*rest, 0);
    struct span s = span_head(*rest, n);
    *rest = span_from(*rest, n + 1);
    return s;
}

struct span milter_macro(struct span data, uint8_t command, struct span name)
{
    if (!data.n || data.p[0] != command)
        return span_of(NULL, 0);
    struct span rest = span_from(data, 1);
    while (rest.n) {
        struct span key = milter_string(&rest);
        struct span value = milter_string(&rest);
        if (span_eq(span_bare(key, '{', '}'), name))
            return value;
    }
    return span_of(NULL, 0);
}

void milter_client(struct span data, struct span *name, struct ipaddr *addr)
{
    *name = milter_string(&data);
    *addr = (struct ipaddr){0};
    if (data.n < 3 || (data.p[0] != '4' && data.p[0] != '6'))
        return;
    data = span_from(data, 3); /* family, port */
    if (!ipaddr_parse(addr, milter_string(&data)))
        *addr = (struct ipaddr){0};
}

/* ---- writing ---- */

static void make_room(struct milter_out *o, size_t n)
{
    if (o->cap - o->n >= n)
        return;
    o->cap = (o->n + n) * 2 < 256 ? 256 : (o->n + n) * 2;
    o->p = realloc(o->p, o->cap);
    if (!o->p)
        abort();
}

void milter_put(struct milter_out *o, uint8_t command, const struct span *parts, size_t nparts)
{
    size_t n = 0;
    for (size_t i = 0; i < nparts; i++)
        n += parts[i].n;
    make_room(o, n + MILTER_FRAME);
    uint32_t length = htonl((uint32_t)n + 1);
    memcpy(o->p + o->n, &length, 4);
    o->p[o->n + 4] = command;
    o->n += MILTER_FRAME;
    for (size_t i = 0; i < nparts; i++)
        if (parts[i].n) {
            memcpy(o->p + o->n, parts[i].p, parts[i].n);
            o->n += parts[i].n;
        }
}

void milter_put_terms(struct milter_out *o, const struct milter_terms *t)
{
    enum { STAGES = sizeof wanted_macros / sizeof wanted_macros[0] };
    uint32_t terms[3] = {htonl(t->version), htonl(t->actions), htonl(t->steps)};
    uint32_t stage[STAGES];
    struct span parts[1 + 2 * STAGES] = {span_of(terms, sizeof terms)};
    size_t n = 1;
    for (uint32_t i = 0; i < STAGES && t->actions & ACT_SETSYMLIST; i++) {
        stage[i] = htonl(i);
        parts[n++] = span_of(&stage[i], sizeof stage[i]);
        parts[n++] = span_of(wanted_macros[i], strlen(wanted_macros[i]) + 1);
    }
    milter_put(o, 'O', parts, n);
}

/* One line of printable ASCII, cut at cap - 1 bytes, NUL-terminated; '%' doubled if asked for, and
 * never cut in two. Returns its length. */
static size_t one_line(char *out, size_t cap, const char *text, bool percent)
{
    size_t n = 0;
    for (; *text; text++) {
        bool twice = percent && *text == '%';
        if (n + 1 + twice >= cap)
            break;
        out[n++] = *text >= ' ' && *text <= '~' ? *text : '?';
        if (twice)
            out[n++] = '%';
    }
    out[n] = 0;
    return n;
}

void milter_put_addheader(struct milter_out *o, const struct milter_terms *t, struct span name,
                          const char *value)
{
    char line[MILTER_VALUE];
    size_t n = one_line(line, sizeof line, value, false);
    /* With SMFIP_HDR_LEADSPC the MTA adds no blank after the colon. */
    struct span blank = t->steps & STEP_LEADSPC ? SPAN(" ") : SPAN("");
    struct span parts[] = {name, SPAN("\0"), blank, span_of(line, n + 1)};
    milter_put(o, 'h', parts, sizeof parts / sizeof parts[0]);
}

void milter_put_delheader(struct milter_out *o, struct span name, uint32_t index)
{
    uint32_t at = htonl(index);
    struct span parts[] = {span_of(&at, sizeof at), name, SPAN("\0\0")};
    milter_put(o, 'm', parts, sizeof parts / sizeof parts[0]);
}

void milter_put_delrcpt(struct milter_out *o, struct span raw)
{
    struct span parts[] = {raw, SPAN("\0")};
    milter_put(o, '-', parts, sizeof parts / sizeof parts[0]);
}

void milter_put_reply(struct milter_out *o, const char *text)
{
    char line[SMTP_REPLY];
    struct span part = span_of(line, one_line(line, sizeof line, text, true) + 1);
    milter_put(o, 'y', &part, 1);
}

void milter_out_free(struct milter_out *o)
{
    free(o->p);
    *o = (struct milter_out){0};
}
