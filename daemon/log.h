/*
 * log.h - one line per event: id, verb, key=value. To syslog (mail facility) or stderr.
 *
 *   tx=01JD.. verdict=hold rule=duplicate copies=212 relay=sbs.example[192.0.2.7] qid="a b"
 *
 * Values are quoted when they are empty or hold anything but letters, digits and _.:@/+-[]<>, ;
 * bytes outside printable ASCII, '"' and '\' are written \xNN. A value is cut at 512 bytes, a line
 * at 4 KiB. Thread-safe.
 */
#ifndef LOG_H
#define LOG_H

#include <stdarg.h>

#include "span.h"

enum log_level {
    LOG_NOTHING,
    LOG_LEVEL_ERROR,  /* somebody must act */
    LOG_LEVEL_NOTICE, /* holds, storms, mode changes, start and stop */
    LOG_LEVEL_INFO,   /* every message */
    LOG_LEVEL_DEBUG,
};

/* to: "stderr" or "syslog". Until called: stderr, notice. */
void log_open(const char *to, enum log_level);
bool log_wants(enum log_level);

struct logline {
    size_t n;
    enum log_level level;
    char text[4096];
};
void log_begin(struct logline *, enum log_level, const char *idkey, struct span id);
void log_span(struct logline *, const char *key, struct span value);
void log_str(struct logline *, const char *key, const char *value); /* NULL: nothing */
void log_num(struct logline *, const char *key, long long);
void log_end(struct logline *);
/* One sentence about the daemon itself: id is "daemon", the text goes to msg=. */
void log_say(enum log_level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same and exit(1). */
void log_die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Hostile text for a terminal, log or header: copy with escapes into out (always NUL-terminated).
 */
size_t escape_text(char *out, size_t cap, struct span);

#endif
