/*
 * config_value.c - values of breakwater.conf: what a value may be is said here, with the line it
 * stands on.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <sys/un.h>

#include "config_value.h"
#include "place.h"

#define DAY 86400e3
#define GB (1024.0 * 1024 * 1024)

/* ---- errors ---- */

int loading_refuse(struct loading *l, unsigned line, const char *fmt, ...)
{
    if (*l->error)
        return -1;
    int n = line ? snprintf(l->error, CONFIG_ERROR, "%s:%u: ", l->file, line)
                 : snprintf(l->error, CONFIG_ERROR, "%s: ", l->file);
    if (n < 0 || n >= CONFIG_ERROR)
        return -1;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(l->error + n, (size_t)(CONFIG_ERROR - n), fmt, ap);
    va_end(ap);
    for (char *c = l->error; *c; c++)
        if ((uint8_t)*c < 0x20 || *c == 0x7f)
            *c = '?';
    return -1;
}

/* "key: found 'x', expected y" */
static int refuse_value(struct loading *l, unsigned line, const struct key_row *row,
                        const char *value, const char *expected)
{
    char key[64];
    return loading_refuse(l, line, "%s: found '%.80s', expected %s", key_name(row, key), value,
                          expected);
}

/* ---- values ---- */

char *loading_keep(struct loading *l, struct span s)
{
    return arena_str(l->config->arena, s);
}

bool value_host_name(struct span s)
{
    if (s.n == 0 || s.n > 253 || s.p[0] == '-' || s.p[0] == '.')
        return false;
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = s.p[i];
        bool dot = c == '.' && i + 1 < s.n && s.p[i + 1] != '.';
        if (!dot && !byte_letter(c) && !byte_digit(c) && c != '-' && c != '_')
            return false;
    }
    return true;
}

static bool is_word(struct span s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!byte_letter(s.p[i]) && !byte_digit(s.p[i]) && !memchr("._:@-", s.p[i], 5))
            return false;
    return s.n > 0 && s.n <= 64;
}

/* "*", or a text without stars, blanks and brackets */
static bool recipient_part(struct span s)
{
    if (span_eq(s, SPAN("*")))
        return true;
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] <= ' ' || s.p[i] == 0x7f || strchr("*<>", s.p[i]))
            return false;
    return s.n > 0 && s.n <= LIMIT_ADDRESS;
}

/* local@domain */
static bool recipient(struct span s)
{
    size_t at = span_rfind(s, '@');
    return at < s.n && recipient_part(span_head(s, at)) && recipient_part(span_from(s, at + 1));
}

/* Which of "a|b|c" value is, or -1. */
static int choice(const char *words, const char *value)
{
    struct span rest = span_str(words);
    for (int i = 0; rest.n; i++) {
        size_t bar = span_find(rest, '|');
        if (span_case_eq(span_head(rest, bar), span_str(value)))
            return i;
        rest = span_from(rest, bar + 1);
    }
    return -1;
}

/* ---- setters: `at` is the place of the value in the struct ---- */

/* A limit as it would be written: "180d", "64KB", "0.9". */
static const char *limit(const struct key_row *row, double value, char out[32])
{
    static const struct {
        enum key_type type;
        const char *name;
        double times;
    } units[] = {{KEY_DURATION, "d", DAY},  {KEY_DURATION, "h", 3600e3}, {KEY_DURATION, "m", 60e3},
                 {KEY_DURATION, "s", 1000}, {KEY_DURATION, "ms", 1},     {KEY_SIZE, "GB", GB},
                 {KEY_SIZE, "MB", 1 << 20}, {KEY_SIZE, "KB", 1 << 10}};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        double n = value / units[i].times;
        if (units[i].type != row->type || n < 1 || n > (double)(int64_t)n)
            continue;
        snprintf(out, 32, "%.15g%s", n, units[i].name);
        return out;
    }
    snprintf(out, 32, "%.15g", value);
    return out;
}

static int set_quantity(struct loading *l, unsigned line, const struct key_row *row,
                        const char *value, void *at)
{
    static const char *const expected[] = {
        [KEY_DURATION] = "a time with its unit (ms s m h d), such as 24h",
        [KEY_SIZE] = "a size with its unit (KB MB GB), such as 256MB",
        [KEY_COUNT] = "a whole number",
        [KEY_FACTOR] = "a number",
    };
    static const enum unit units[] = {
        [KEY_DURATION] = UNIT_TIME, [KEY_SIZE] = UNIT_BYTES, [KEY_FACTOR] = UNIT_NONE};
    double number;
    enum unit unit;
    size_t n = quantity_read(span_str(value), &number, &unit);
    bool share = row->type == KEY_FACTOR && unit == UNIT_SHARE && row->max <= 1;
    if (n == 0 || value[n] || (unit != units[row->type] && !share) ||
        (row->type == KEY_COUNT && strchr(value, '.')))
        return refuse_value(l, line, row, value, expected[row->type]);
    if (number < row->min || number > row->max) {
        char limits[96], min[32], max[32];
        snprintf(limits, sizeof limits, "at least %s and at most %s", limit(row, row->min, min),
                 limit(row, row->max, max));
        return refuse_value(l, line, row, value, limits);
    }
    if (row->type == KEY_DURATION)
        *(int64_t *)at = (int64_t)number;
    else if (row->type == KEY_SIZE)
        *(uint64_t *)at = (uint64_t)number;
    else if (row->type == KEY_COUNT)
        *(unsigned *)at = (unsigned)number;
    else
        *(double *)at = number;
    return 0;
}

static int set_octal(struct loading *l, unsigned line, const struct key_row *row, const char *value,
                     int *at)
{
    size_t n = strlen(value);
    if (n < 3 || n > 4 || strspn(value, "01234567") != n || (n == 4 && *value != '0'))
        return refuse_value(l, line, row, value, "permissions in octal, such as 0660");
    *at = (int)strtoul(value, NULL, 8);
    return 0;
}

static int set_choice(struct loading *l, unsigned line, const struct key_row *row,
                      const char *value, void *at)
{
    int i = choice(row->words, value);
    if (i < 0) {
        char expected[128];
        snprintf(expected, sizeof expected, "one of %s", row->words);
        return refuse_value(l, line, row, value, expected);
    }
    if (row->type == KEY_SWITCH)
        *(bool *)at = i == 1;
    else if (row->type == KEY_CHOICE)
        *(int *)at = i;
    else
        *(char **)at = loading_keep(l, span_str(value));
    return 0;
}

static int set_path(struct loading *l, unsigned line, const struct key_row *row, const char *value,
                    char **at)
{
    if (!*value)
        return refuse_value(l, line, row, value, "a path");
    const char *slash = strrchr(l->file, '/');
    if (*value == '/' || !slash)
        *at = loading_keep(l, span_str(value));
    else
        *at = arena_printf(l->config->arena, "%.*s/%s", (int)(slash - l->file), l->file, value);
    if (strlen(*at) >= sizeof((struct sockaddr_un *)0)->sun_path &&
        (void *)at == &l->config->control_socket)
        return refuse_value(l, line, row, value, "a shorter path: sockets have at most 107 bytes");
    return 0;
}

static int set_name(struct loading *l, unsigned line, const struct key_row *row, const char *value,
                    void *at)
{
    if (!value_host_name(span_str(value)))
        return refuse_value(l, line, row, value, "a host name");
    struct span name = arena_lower(l->config->arena, span_str(value));
    if (at == &l->config->site.node)
        *(struct span *)at = name;
    else
        *(char **)at = loading_keep(l, name);
    return 0;
}

/* Appends room for one element of `size` to the list at *list and returns it. */
void *loading_append(struct loading *l, void *list, size_t *n, size_t size)
{
    void *old;
    memcpy(&old, list, sizeof old);
    uint8_t *grown = arena_grow(l->config->arena, old, *n * size, (*n + 1) * size);
    memcpy(list, &grown, sizeof old);
    return grown + size * (*n)++;
}

static void add_net(struct loading *l, const struct key_row *row, struct netmask net, uint8_t *base)
{
    struct site *site = &l->config->site;
    size_t *count = (size_t *)(void *)(base + row->count);
    struct netmask *place =
        row->type == KEY_NETS
            ? loading_append(l, base + row->offset, count, sizeof net)
            : loading_append(l, &site->trusted_nets, &site->ntrusted_nets, sizeof net);
    *place = net;
}

/* May this be the name of a host or domain in a list of this type? */
static bool listed_name(const struct key_row *row, struct span s)
{
    if (row->type == KEY_TARGETS)
        return place_target(s);
    if (row->type == KEY_RECIPIENTS)
        return recipient(s);
    if (row->type == KEY_RELAYS && strspn((const char *)s.p, "0123456789./:") == s.n)
        return false; /* 192.0.2.0/33 or 192.0.2.256: meant to be an address */
    return row->type != KEY_NETS && value_host_name(s);
}

int value_add(struct loading *l, unsigned line, const struct key_row *row, const char *value,
              void *into)
{
    static const char *const expected[] = {
        [KEY_HOSTS] = "a host name or domain",
        [KEY_NETS] = "an address or network, such as 192.0.2.0/24",
        [KEY_RELAYS] = "a host name, a domain or a network",
        [KEY_RECIPIENTS] = "an address; '*' may stand for either side of the @",
        [KEY_TARGETS] = "ADDRESS:PORT, such as 127.0.0.1:6379 or [::1]:6379, or unix:/path",
    };
    uint8_t *base = into;
    struct span s = span_str(value);
    struct netmask net;
    if ((row->type == KEY_NETS || row->type == KEY_RELAYS) && netmask_parse(&net, s)) {
        add_net(l, row, net, base);
        return 0;
    }
    if (!listed_name(row, s))
        return refuse_value(l, line, row, value, expected[row->type]);
    if (row->type == KEY_TARGETS)
        s = span_str(loading_keep(l, s));
    else
        s = arena_lower(l->config->arena, s);
    struct span *place =
        loading_append(l, base + row->offset, (size_t *)(void *)(base + row->count), sizeof s);
    *place = s;
    return 0;
}

void value_clear(struct loading *l, const struct key_row *row, void *base)
{
    struct site *site = &l->config->site;
    memset((uint8_t *)base + row->offset, 0, sizeof(void *));
    memset((uint8_t *)base + row->count, 0, sizeof(size_t));
    if (row->type == KEY_RELAYS) {
        site->trusted_nets = NULL;
        site->ntrusted_nets = 0;
    }
}

/* Sets one key, not a list, in the struct at base. */
int value_set(struct loading *l, unsigned line, const struct key_row *row, const char *value,
              void *base)
{
    void *at = (uint8_t *)base + row->offset;
    switch (row->type) {
    case KEY_NAME:
        return set_name(l, line, row, value, at);
    case KEY_TEXT:
        if (!is_word(span_str(value)))
            return refuse_value(l, line, row, value,
                                "at most 64 letters, digits and any of . _ : @ -");
        *(char **)at = loading_keep(l, span_str(value));
        return 0;
    case KEY_ADDRESS:
        if (!recipient(span_str(value)) || strchr(value, '*'))
            return refuse_value(l, line, row, value, "an address, such as postmaster@example.net");
        *(char **)at = loading_keep(l, span_str(value));
        return 0;
    case KEY_PATH:
        return set_path(l, line, row, value, at);
    case KEY_TARGET:
        if (!place_target(span_str(value)))
            return refuse_value(l, line, row, value,
                                "ADDRESS:PORT, such as 127.0.0.1:25 or [::1]:25, or unix:/path");
        *(char **)at = loading_keep(l, span_str(value));
        return 0;
    case KEY_SOCKET:
        if (!place_listen(span_str(value)))
            return refuse_value(l, line, row, value,
                                "inet:PORT@ADDRESS, such as inet:8895@127.0.0.1, "
                                "inet6:PORT@ADDRESS or unix:/path");
        *(char **)at = loading_keep(l, span_str(value));
        return 0;
    case KEY_OCTAL:
        return set_octal(l, line, row, value, at);
    case KEY_CHOICE:
    case KEY_SWITCH:
    case KEY_WORD:
        return set_choice(l, line, row, value, at);
    default:
        return set_quantity(l, line, row, value, at);
    }
}

/* ---- defaults ---- */

int value_default(struct loading *l, const struct key_row *row, void *base)
{
    if (!row->value)
        return 0;
    if (!key_is_list(row))
        return value_set(l, 0, row, row->value, base);
    struct span rest = span_str(row->value);
    while (rest.n) {
        size_t end = span_find(rest, ' ');
        if (value_add(l, 0, row, loading_keep(l, span_head(rest, end)), base) < 0)
            return -1;
        rest = span_from(rest, end + 1);
    }
    return 0;
}
