/* json.c - see json.h. Allocation failure aborts, as everywhere outside a tx. */
#include <math.h>
#include <stdlib.h>

#include "json.h"

static bool continues(struct span s, size_t from, size_t n)
{
    for (size_t i = from; i < from + n; i++)
        if (i >= s.n || (s.p[i] & 0xc0) != 0x80)
            return false;
    return true;
}

/* Bytes of the UTF-8 sequence (RFC 3629 4) at s[i]; 0: none begins there. */
static size_t sequence(struct span s, size_t i)
{
    uint8_t c = s.p[i];
    uint8_t d = i + 1 < s.n ? s.p[i + 1] : 0;
    if (c < 0x80)
        return c ? 1 : 0;
    if (c >= 0xc2 && c <= 0xdf)
        return continues(s, i + 1, 1) ? 2 : 0;
    if ((c == 0xe0 && d < 0xa0) || (c == 0xed && d > 0x9f))
        return 0;
    if (c >= 0xe0 && c <= 0xef)
        return continues(s, i + 1, 2) ? 3 : 0;
    if ((c == 0xf0 && d < 0x90) || (c == 0xf4 && d > 0x8f) || c < 0xf0 || c > 0xf4)
        return 0;
    return continues(s, i + 1, 3) ? 4 : 0;
}

json_t *json_text(struct span s)
{
    char *out = malloc(3 * s.n + 1);
    if (!out)
        abort();
    size_t n = 0;
    for (size_t i = 0; i < s.n;) {
        size_t take = sequence(s, i);
        memcpy(out + n, take ? (const char *)s.p + i : "\xef\xbf\xbd", take ? take : 3);
        n += take ? take : 3;
        i += take ? take : 1;
    }
    json_t *text = json_stringn_nocheck(out, n);
    free(out);
    if (!text)
        abort();
    return text;
}

bool json_is_utf8(struct span s)
{
    for (size_t i = 0, n; i < s.n; i += n)
        if ((n = sequence(s, i)) == 0)
            return false;
    return true;
}

json_t *json_text_of(const char *s)
{
    return s ? json_text(span_str(s)) : json_null();
}

json_t *json_time(int64_t ms)
{
    return ms ? json_real((double)ms / 1000.0) : json_null();
}

int64_t json_ms(const json_t *t)
{
    double s = json_number_value(t);
    return s > 0 && s < 1e12 ? llround(s * 1000.0) : 0;
}

const char *json_get_str(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));
    return s ? s : "";
}

uint64_t json_get_num(const json_t *o, const char *name)
{
    double d = json_number_value(json_object_get(o, name));
    return d > 0 && d < 1e18 ? (uint64_t)d : 0;
}

bool json_get_yes(const json_t *o, const char *name)
{
    return json_is_true(json_object_get(o, name));
}

/* DEL, which jansson leaves as it is, as \u007f; it can only stand in a string. */
static char *without_del(char *text)
{
    size_t n = 0;
    for (const char *t = text; *t; t++)
        n += *t == 0x7f;
    if (n == 0)
        return text;
    char *out = malloc(strlen(text) + 5 * n + 1), *p = out;
    if (!out)
        abort();
    for (const char *t = text; *t; t++) {
        if (*t == 0x7f)
            p = stpcpy(p, "\\u007f");
        else
            *p++ = *t;
    }
    *p = '\0';
    free(text);
    return out;
}

const char *json_body_fault(json_t *body, const char *const *members)
{
    if (!body)
        return "A JSON object is wanted.";
    for (void *m = json_object_iter(body); m; m = json_object_iter_next(body, m)) {
        size_t i = 0;
        while (members[i] && strcmp(members[i], json_object_iter_key(m)) != 0)
            i++;
        if (!members[i])
            return "The body has a member that is not known here.";
    }
    const json_t *dry = json_object_get(body, "dry_run");
    if (dry && !json_is_boolean(dry))
        return "dry_run is true or false.";
    return strlen(json_get_str(body, "reason")) > JSON_REASON
               ? "reason is a text of at most 500 bytes."
               : NULL;
}

char *json_line(const json_t *j)
{
    /* 13 digits: milliseconds of our century, without the noise of the 17th digit */
    char *text =
        json_dumps(j, JSON_COMPACT | JSON_ENCODE_ANY | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(13));
    if (!text)
        abort();
    return without_del(text);
}
