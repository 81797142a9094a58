/*
 * tracefile.c - reads .jsonl traces a line at a time; a wrong line is one sentence with file and
 * line.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <jansson.h>
#include <openssl/evp.h>

#include "tracefile.h"

struct tracefile {
    FILE *file;
    char *path;
    char *text; /* the line */
    size_t cap;
    unsigned line;
    long long size;
};

struct tracefile *tracefile_open(const char *path, char error[512])
{
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    struct stat st;
    if (!file || fstat(fileno(file), &st)) {
        snprintf(error, 512, "%.300s: %s", path, strerror(errno));
        if (file)
            fclose(file);
        return NULL;
    }
    struct tracefile *t = calloc(1, sizeof *t);
    if (!t || !(t->path = strdup(path)))
        abort();
    t->file = file;
    t->size = st.st_size;
    return t;
}

void tracefile_close(struct tracefile **tp)
{
    struct tracefile *t = *tp;
    *tp = NULL;
    if (!t)
        return;
    fclose(t->file);
    free(t->path);
    free(t->text);
    free(t);
}

double tracefile_progress(const struct tracefile *t)
{
    return t->size > 0 ? (double)ftell(t->file) / (double)t->size : 0;
}

static struct span text_of(struct arena *arena, const json_t *value)
{
    if (!json_is_string(value))
        return span_of(NULL, 0);
    return arena_span(arena, span_of(json_string_value(value), json_string_length(value)));
}

static int base64(struct arena *arena, const json_t *value, struct span *out)
{
    size_t n = json_string_length(value);
    const char *in = json_string_value(value);
    uint8_t *p = arena_alloc(arena, n / 4 * 3 + 4);
    int len = n % 4 || n > INT32_MAX ? -1 : EVP_DecodeBlock(p, (const uint8_t *)in, (int)n);
    if (len < 0)
        return -1;
    for (size_t k = 1; k <= 2 && k <= n && in[n - k] == '='; k++)
        len--;
    *out = span_of(p, (size_t)len);
    return 0;
}

/* The message of "eml": a path relative to the trace. */
static int file_bytes(struct arena *arena, const char *trace, const char *name, struct span *out)
{
    const char *slash = strrchr(trace, '/');
    char *path = *name == '/' || !slash
                     ? arena_printf(arena, "%s", name)
                     : arena_printf(arena, "%.*s/%s", (int)(slash - trace), trace, name);
    FILE *f = fopen(path, "rb");
    if (!f)
        return -1;
    uint8_t *p = NULL;
    size_t n = 0, cap = 0, got;
    do {
        if (cap - n < 65536) {
            p = arena_grow(arena, p, cap, cap + (cap < 65536 ? 65536 : cap));
            cap += cap < 65536 ? 65536 : cap;
        }
        n += got = fread(p + n, 1, cap - n, f);
    } while (got);
    int rc = ferror(f) ? -1 : 0;
    fclose(f);
    *out = span_of(p, n);
    return rc;
}

static const char *read_data(struct tracefile *t, struct arena *arena, const json_t *o,
                             struct span *out)
{
    const json_t *v;
    if (json_is_string(v = json_object_get(o, "data"))) {
        *out = text_of(arena, v);
        return NULL;
    }
    if (json_is_string(v = json_object_get(o, "data_b64")))
        return base64(arena, v, out) < 0 ? "\"data_b64\" is not base64" : NULL;
    if (json_is_string(v = json_object_get(o, "eml")))
        return file_bytes(arena, t->path, json_string_value(v), out) < 0
                   ? "the file that \"eml\" names cannot be read"
                   : NULL;
    return "none of \"data\", \"data_b64\" and \"eml\" is there";
}

/* What is wrong with the line, or NULL. */
static const char *read_object(struct tracefile *t, struct arena *arena, const json_t *o,
                               struct recording *r)
{
    const json_t *time = json_object_get(o, "t"), *rcpt = json_object_get(o, "rcpt");
    if (!json_is_number(time))
        return "\"t\" (seconds since 1970) is missing";
    if (!json_is_array(rcpt))
        return "\"rcpt\" (a list of addresses) is missing";
    r->t = json_number_value(time);
    if (!(r->t >= 0 && r->t < 1e11))
        return "\"t\" is no time in seconds since 1970";
    r->time = (int64_t)(r->t * 1000);
    r->client = text_of(arena, json_object_get(o, "client"));
    r->helo = text_of(arena, json_object_get(o, "helo"));
    r->name = text_of(arena, json_object_get(o, "name"));
    r->queue_id = text_of(arena, json_object_get(o, "queue_id"));
    r->from = text_of(arena, json_object_get(o, "from"));
    r->label = text_of(arena, json_object_get(o, "label"));
    r->nrcpts = json_array_size(rcpt);
    r->rcpts = arena_zero(arena, (r->nrcpts + 1) * sizeof *r->rcpts);
    for (size_t i = 0; i < r->nrcpts; i++) {
        if (!json_is_string(json_array_get(rcpt, i)))
            return "\"rcpt\" holds something that is no address";
        r->rcpts[i] = text_of(arena, json_array_get(rcpt, i));
    }
    return read_data(t, arena, o, &r->data);
}

int tracefile_next(struct tracefile *t, struct arena *arena, struct recording *r, char error[512])
{
    ssize_t n;
    do {
        n = getline(&t->text, &t->cap, t->file);
        t->line++;
    } while (n > 0 && span_trim(span_of(t->text, (size_t)n)).n == 0);
    if (n < 0 && !ferror(t->file))
        return 0;
    json_error_t wrong;
    json_t *o = n < 0 ? NULL : json_loadb(t->text, (size_t)n, JSON_ALLOW_NUL, &wrong);
    memset(r, 0, sizeof *r);
    const char *why = n < 0               ? strerror(errno)
                      : !o                ? wrong.text
                      : json_is_object(o) ? read_object(t, arena, o, r)
                                          : "not a JSON object";
    json_decref(o);
    if (!why)
        return 1;
    snprintf(error, 512, "%.300s:%u: %.150s", t->path, t->line, why);
    return -1;
}
