/* json.h - what we add to jansson: hostile text, times, one-line printing, and reading members
 * that may be missing. Times are seconds since 1970 with milliseconds, as in traces. */
#ifndef JSON_H
#define JSON_H

#include <jansson.h>

#include "span.h"

/* A string of somebody else's bytes: what is not UTF-8, and NUL, becomes U+FFFD. Never NULL. */
json_t *json_text(struct span);
bool json_is_utf8(struct span);     /* RFC 3629, and no NUL */
json_t *json_text_of(const char *); /* NULL: null */
json_t *json_time(int64_t ms);      /* 0: null */
int64_t json_ms(const json_t *);    /* of such a time; 0 if it is none */

/* Members of an object, whatever it really is. */
const char *json_get_str(const json_t *, const char *name); /* "" if it is no string */
uint64_t json_get_num(const json_t *, const char *name);    /* 0 if it is no number >= 0 */
bool json_get_yes(const json_t *, const char *name);        /* is it true? */

enum { JSON_REASON = 500 }; /* bytes of why somebody wants something */
/* What is wrong with the body of a request: it is no object, has a member that is not one of these
 * (NULL-ended), a dry_run that is no boolean, too long a reason. NULL: nothing. */
const char *json_body_fault(json_t *body, const char *const *members);

/* Compact, one line of printable ASCII, without a newline; free() it. Never NULL. */
char *json_line(const json_t *);

#endif
