/*
 * log.c - one line per event, to syslog or stderr.
 *
 * A line is built whole in the caller's struct logline and leaves in one call, so that lines of
 * several threads never mix. Nothing unprintable gets into it, whatever the value holds.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <syslog.h>
#include <unistd.h>

#include "log.h"

enum { VALUE_MAX = 512, ESCAPED = 4 };

static _Atomic int wanted = LOG_LEVEL_NOTICE;
static _Atomic bool to_syslog;

void log_open(const char *to, enum log_level level)
{
    bool sys = to && strcmp(to, "syslog") == 0;
    if (sys)
        openlog("breakwaterd", LOG_PID, LOG_MAIL);
    atomic_store(&to_syslog, sys);
    atomic_store(&wanted, (int)level);
}

bool log_wants(enum log_level level)
{
    return level != LOG_NOTHING &&
           (int)level <= atomic_load_explicit(&wanted, memory_order_relaxed);
}

/* Is c written as it is? '"' and '\' are not, so that an escape cannot be forged. */
static bool harmless(uint8_t c)
{
    return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

/* May c stand in a value without quotes? */
static bool bare(uint8_t c)
{
    return byte_letter(c) || byte_digit(c) || (c && strchr("_.:@/+-[]<>,", c));
}

/* Writes c as itself or as \xNN; returns how many bytes that took. */
static size_t escape_byte(char *out, uint8_t c)
{
    static const char hex[] = "0123456789abcdef";
    if (harmless(c)) {
        out[0] = (char)c;
        return 1;
    }
    out[0] = '\\';
    out[1] = 'x';
    out[2] = hex[c >> 4];
    out[3] = hex[c & 15];
    return ESCAPED;
}

size_t escape_text(char *out, size_t cap, struct span s)
{
    if (cap == 0)
        return 0;
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        size_t need = harmless(s.p[i]) ? 1 : ESCAPED;
        if (n + need >= cap)
            break;
        n += escape_byte(out + n, s.p[i]);
    }
    out[n] = '\0';
    return n;
}

/* Room left in the line; one byte is kept for the newline. */
static size_t room(const struct logline *l)
{
    return sizeof l->text - 1 - l->n;
}

static void put(struct logline *l, const char *s, size_t n)
{
    memcpy(l->text + l->n, s, n);
    l->n += n;
}

/* " key=" with room for two quotes behind it; false when the line is full. */
static bool put_key(struct logline *l, const char *key)
{
    size_t n = strlen(key);
    if (room(l) < n + 4)
        return false;
    if (l->n)
        put(l, " ", 1);
    put(l, key, n);
    put(l, "=", 1);
    return true;
}

static bool needs_quotes(struct span value)
{
    for (size_t i = 0; i < value.n; i++)
        if (!bare(value.p[i]))
            return true;
    return value.n == 0;
}

void log_span(struct logline *l, const char *key, struct span value)
{
    if (l->level == LOG_NOTHING || !put_key(l, key))
        return;
    value = span_head(value, VALUE_MAX);
    bool quoted = needs_quotes(value);
    if (quoted)
        put(l, "\"", 1);
    for (size_t i = 0; i < value.n && room(l) > ESCAPED; i++)
        l->n += escape_byte(l->text + l->n, value.p[i]);
    if (quoted)
        put(l, "\"", 1);
}

void log_begin(struct logline *l, enum log_level level, const char *idkey, struct span id)
{
    l->n = 0;
    l->level = log_wants(level) ? level : LOG_NOTHING;
    log_span(l, idkey, id);
}

void log_str(struct logline *l, const char *key, const char *value)
{
    if (value)
        log_span(l, key, span_str(value));
}

void log_num(struct logline *l, const char *key, long long value)
{
    char text[24];
    snprintf(text, sizeof text, "%lld", value);
    log_span(l, key, span_str(text));
}

static int syslog_priority(enum log_level level)
{
    static const int priority[] = {LOG_DEBUG, LOG_ERR, LOG_NOTICE, LOG_INFO, LOG_DEBUG};
    return priority[level];
}

void log_end(struct logline *l)
{
    if (l->level == LOG_NOTHING)
        return;
    if (atomic_load(&to_syslog)) {
        syslog(syslog_priority(l->level), "%.*s", (int)l->n, l->text);
        return;
    }
    int before = errno;
    l->text[l->n] = '\n';
    /* A log that cannot be written must not stop mail: a full or closed stderr loses the line. */
    ssize_t done = write(STDERR_FILENO, l->text, l->n + 1);
    (void)done;
    errno = before;
}

static void vsay(enum log_level level, const char *fmt, va_list ap)
{
    char text[VALUE_MAX + 1];
    vsnprintf(text, sizeof text, fmt, ap);
    struct logline l;
    log_begin(&l, level, "id", SPAN("daemon"));
    log_str(&l, "msg", text);
    log_end(&l);
}

void log_say(enum log_level level, const char *fmt, ...)
{
    if (!log_wants(level))
        return;
    va_list ap;
    va_start(ap, fmt);
    vsay(level, fmt, ap);
    va_end(ap);
}

void log_die(const char *fmt, ...)
{
    va_list ap;
    if (atomic_load(&to_syslog)) { /* who started it by hand looks at the terminal */
        char text[VALUE_MAX + 1];
        va_start(ap, fmt);
        vsnprintf(text, sizeof text, fmt, ap);
        va_end(ap);
        fprintf(stderr, "breakwaterd: %s\n", text);
    }
    va_start(ap, fmt);
    vsay(LOG_LEVEL_ERROR, fmt, ap);
    va_end(ap);
    exit(1);
}
