/* ctl.c - see ctl.h. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ctl.h"

void ctl_complain(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("breakwaterctl: ", stderr);
    vfprintf(stderr, fmt, ap);
    putc('\n', stderr);
    va_end(ap);
}

int ctl_ask(const struct ctl *ctl, const struct ctl_target *t, const json_t *body,
            struct ctl_reply *r)
{
    ctl_call(ctl->socket, t, body, r);
    if (r->status == 0) {
        ctl_complain("%s. Is breakwaterd running, and may you use its socket?", r->error);
        return CTL_UNREACHABLE;
    }
    if (r->status == 200)
        return CTL_OK;
    const char *detail = json_get_str(r->json, "detail");
    if (*detail)
        ctl_complain("%s", print_text(ctl->arena, detail, 0));
    else
        ctl_complain("the daemon answered %d", r->status);
    return CTL_REFUSED;
}

const char *ctl_since(const struct ctl *ctl)
{
    if (!ctl->since)
        return NULL;
    static const char units[] = "smhd";
    static const long seconds[] = {1, 60, 3600, 86400};
    char *end;
    long n = strtol(ctl->since, &end, 10);
    const char *unit = *end ? strchr(units, *end) : NULL;
    if (end != ctl->since && unit && !end[1] && n > 0 && n < 100000)
        return arena_printf(ctl->arena, "%lld", (long long)time(NULL) - n * seconds[unit - units]);
    struct tm tm = {.tm_isdst = -1};
    const char *rest = strptime(ctl->since, "%Y-%m-%d", &tm);
    if (rest && *rest)
        rest = strptime(rest, " %H:%M", &tm);
    if (!rest || *rest)
        return NULL;
    return arena_printf(ctl->arena, "%lld", (long long)mktime(&tm));
}

bool ctl_since_good(const struct ctl *ctl)
{
    if (!ctl->since || ctl_since(ctl))
        return true;
    ctl_complain("--since wants an age (90m, 2h, 3d) or a date (2026-11-20, \"2026-11-20 10:00\")");
    return false;
}

void ctl_json(const json_t *j)
{
    char *line = json_line(j);
    puts(line);
    free(line);
}

void ctl_json_each(const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        ctl_json(json_array_get(list, i));
}

const char *ctl_count(const struct ctl *ctl, const json_t *o, const char *name)
{
    return print_count(ctl->arena, json_get_num(o, name));
}

const char *ctl_text(const struct ctl *ctl, const json_t *o, const char *name, size_t max)
{
    return print_text(ctl->arena, json_get_str(o, name), max);
}

const char *ctl_time(const struct ctl *ctl, const json_t *o, const char *name)
{
    return print_time(ctl->arena, json_ms(json_object_get(o, name)));
}
