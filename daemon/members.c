/* members.c - see members.h. */
#include <stdio.h>
#include <stdlib.h>

#include "members.h"

/* ---- documents ---- */

static json_t *hex(uint64_t v, int digits)
{
    char text[17];
    snprintf(text, sizeof text, "%0*llx", digits, (unsigned long long)v);
    return json_string(text);
}

static bool read_hex(const json_t *o, const char *name, size_t digits, uint64_t *out)
{
    const char *text = json_get_str(o, name);
    uint64_t v = 0;
    if (strlen(text) != digits)
        return false;
    for (; *text; text++) {
        int d = byte_hex((uint8_t)*text);
        if (d < 0)
            return false;
        v = v << 4 | (uint64_t)d;
    }
    *out = v;
    return true;
}

char *member_print(const struct member *m)
{
    json_t *o = json_object();
    json_object_set_new(o, "boot", hex(m->boot, 16));
    json_object_set_new(o, "number", json_integer(m->number));
    json_object_set_new(o, "version", json_text_of(m->version));
    json_object_set_new(o, "mode", json_text_of(m->mode));
    json_object_set_new(o, "key", hex(m->key, 8));
    json_object_set_new(o, "parameters", hex(m->parameters, 16));
    json_object_set_new(o, "events", json_integer(m->events));
    json_object_set_new(o, "started", json_time(m->started));
    json_object_set_new(o, "since", json_time(m->since));
    json_object_set_new(o, "seen", json_time(m->seen));
    json_object_set_new(o, "left", json_boolean(m->left));
    if (m->figures)
        json_object_set(o, "figures", m->figures);
    char *text = json_line(o);
    json_decref(o);
    return text;
}

static bool plain(struct span s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] <= ' ' || s.p[i] >= 0x7f)
            return false;
    return s.n > 0;
}

static bool read_members(struct member *m, const json_t *o)
{
    uint64_t key, number = json_get_num(o, "number"), events = json_get_num(o, "events");
    if (!read_hex(o, "boot", 16, &m->boot) || !read_hex(o, "key", 8, &key) ||
        !read_hex(o, "parameters", 16, &m->parameters) || number >= MEMBER_NUMBERS ||
        events > UINT32_MAX)
        return false;
    m->number = (uint16_t)number;
    m->key = (uint32_t)key;
    m->events = (uint32_t)events;
    span_show(span_str(json_get_str(o, "version")), m->version, sizeof m->version);
    span_show(span_str(json_get_str(o, "mode")), m->mode, sizeof m->mode);
    m->started = json_ms(json_object_get(o, "started"));
    m->since = json_ms(json_object_get(o, "since"));
    m->seen = json_ms(json_object_get(o, "seen"));
    m->left = json_get_yes(o, "left");
    return m->seen > 0;
}

bool member_read(struct member *m, struct span name, struct span document)
{
    *m = (struct member){0};
    if (name.n >= sizeof m->name || !plain(name) || document.n > MEMBER_DOCUMENT)
        return false;
    json_t *o = json_loadb((const char *)document.p, document.n, 0, NULL);
    bool good = json_is_object(o) && read_members(m, o);
    json_t *figures = json_object_get(o, "figures");
    if (good && json_is_object(figures))
        m->figures = json_incref(figures);
    span_show(name, m->name, sizeof m->name);
    json_decref(o);
    return good;
}

void member_clear(struct member *m)
{
    json_decref(m->figures);
    *m = (struct member){0};
}

void members_clear(struct members *ms)
{
    for (size_t i = 0; i < ms->n; i++)
        member_clear(&ms->m[i]);
    ms->n = 0;
}

/* ---- who is like whom ---- */

bool member_alive(const struct member *m, int64_t now)
{
    return !m->left && now - m->seen < MEMBER_ALIVE;
}

uint64_t member_likeness(const struct member *m)
{
    uint64_t v = m->parameters ^ (uint64_t)m->key << 32 ^ m->key ^ m->events;
    return (v ^ v >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
}

const char *member_differs(const struct member *a, const struct member *b)
{
    if (a->key != b->key)
        return "its site key is another one";
    if (a->events != b->events)
        return "its version of breakwater judges in another way";
    if (a->parameters != b->parameters)
        return "its section detect is another one";
    return NULL;
}

bool member_elder(const struct member *a, const struct member *b)
{
    return a->started != b->started ? a->started < b->started : a->boot < b->boot;
}

static bool longer_in_force(const struct member *a, const struct member *b)
{
    return a->since != b->since ? a->since < b->since : member_elder(a, b);
}

/* Its own entry in the registry is older than it. */
static bool other(const struct member *m, const struct member *me, int64_t now)
{
    return member_alive(m, now) && strcmp(m->name, me->name) != 0;
}

const struct member *members_model(const struct members *ms, const struct member *me, int64_t now)
{
    const struct member *model = me;
    for (size_t i = 0; i < ms->n; i++)
        if (other(&ms->m[i], me, now) && longer_in_force(&ms->m[i], model))
            model = &ms->m[i];
    return model;
}

const struct member *members_namesake(const struct members *ms, const struct member *me,
                                      int64_t now)
{
    for (size_t i = 0; i < ms->n; i++)
        if (other(&ms->m[i], me, now) && ms->m[i].number == me->number &&
            member_elder(&ms->m[i], me))
            return &ms->m[i];
    return NULL;
}

uint16_t members_free_number(const struct members *ms, const struct member *me)
{
    for (unsigned step = 1; step < MEMBER_NUMBERS; step++) {
        uint16_t n = (uint16_t)((me->number + step) % MEMBER_NUMBERS);
        size_t i = 0;
        while (i < ms->n && ms->m[i].number != n)
            i++;
        if (i == ms->n)
            return n;
    }
    return me->number;
}
