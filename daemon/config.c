/*
 * config.c - breakwater.conf. One table holds every key; libconfuse reads the file into it.
 *
 * Defaults and the file's values go through the same setter, so that a default is checked like
 * anything else. libconfuse sees only texts and lists of texts: what a value may be is said here,
 * with the line it stands on. The first mistake ends the reading; nothing half-read is ever used.
 */
#include <confuse.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/un.h>
#include <unistd.h>

#include "config.h"
#include "place.h"
#include "sitekey.h"

enum { FILE_BYTES = 1 << 20, LINE_BYTES = 512, SECTION_KEYS = 32 };

enum key_type {
    KEY_NAME,       /* host name, lower case */
    KEY_PATH,       /* made absolute: relative ones start at the file's directory */
    KEY_TARGET,     /* "127.0.0.1:25", "[::1]:25", "unix:/path" */
    KEY_SOCKET,     /* "inet:PORT@ADDRESS", "inet6:PORT@ADDRESS", "unix:/path" */
    KEY_DURATION,   /* int64_t ms */
    KEY_SIZE,       /* uint64_t bytes */
    KEY_COUNT,      /* unsigned */
    KEY_FACTOR,     /* double */
    KEY_OCTAL,      /* int: permissions */
    KEY_CHOICE,     /* int: index of a word in `words` */
    KEY_SWITCH,     /* bool: the second of two words is true */
    KEY_WORD,       /* char *: one of `words` */
    KEY_HOSTS,      /* list of host names */
    KEY_NETS,       /* list of networks */
    KEY_RELAYS,     /* list of either: offset and count of names; the networks go to trusted_nets */
    KEY_RECIPIENTS, /* list of addresses, with * for a side */
};

struct key_row {
    const char *section; /* "": top level; "milter": of a listener */
    const char *name;
    enum key_type type;
    const char *value; /* default as it would be written; NULL: none; lists: blank-separated */
    size_t offset;     /* in struct config, or struct listener */
    size_t count;      /* lists: offset of the number of elements */
    double min, max;
    const char *words; /* KEY_CHOICE and KEY_SWITCH and KEY_WORD: "a|b|c" */
    const char *sentence;
};

#define AT(field) offsetof(struct config, field)
#define RANGE(least, most) 0, least, most, NULL
#define PLAIN RANGE(0, 0)
#define WORDS(words) 0, 0, 0, words
#define LIST(count) AT(count), 0, 0, NULL
#define TINY 1e-3
#define DAY 86400e3
#define GB (1024.0 * 1024 * 1024)

static const struct key_row rows[] = {
    {"", "mode", KEY_CHOICE, "monitor", AT(mode), WORDS("monitor|enforce|bypass"),
     "Mode of a fresh install; afterwards the hold database remembers it."},
    {"", "workers", KEY_COUNT, "0", AT(workers), RANGE(0, 256),
     "Mail threads; 0: as many as processors."},
    {"", "exempt", KEY_RECIPIENTS, "postmaster@* abuse@*", AT(site.exempt), LIST(site.nexempt),
     "Recipients who are counted but never held."},

    {"node", "name", KEY_NAME, NULL, AT(site.node), PLAIN,
     "Name of this machine in evidence and ids; default: its host name."},
    {"node", "site_key", KEY_PATH, "/var/lib/breakwater/site.key", AT(site_key_file), PLAIN,
     "File with the secret all hashes are keyed with; made if missing."},

    {"own", "hosts", KEY_HOSTS, NULL, AT(site.own_hosts), LIST(site.nown_hosts),
     "Our mail servers, by the names they write into Received fields."},
    {"own", "nets", KEY_NETS, NULL, AT(site.own_nets), LIST(site.nown_nets),
     "Our networks: their hosts are never blamed."},
    {"own", "domains", KEY_HOSTS, NULL, AT(site.own_domains), LIST(site.nown_domains),
     "Our domains: a host below one is ours."},
    {"trusted", "relays", KEY_RELAYS, NULL, AT(site.trusted), LIST(site.ntrusted),
     "Hosts, domains and networks of relays that are never blamed."},

    {"milter", "socket", KEY_SOCKET, NULL, offsetof(struct listener, socket), PLAIN,
     "Where the MTA connects to."},
    {"milter", "mode", KEY_OCTAL, "0660", offsetof(struct listener, socket_mode), PLAIN,
     "Permissions of a unix socket."},

    {"detect", "a_extra", KEY_COUNT, "1", AT(site.a_extra), RANGE(0, 1000),
     "Unexplained further copies that pass, per recipient and message."},
    {"detect", "a_same", KEY_COUNT, "3", AT(site.a_same), RANGE(0, 1000),
     "Repeated deliveries of one queue entry that pass."},
    {"detect", "a_resend", KEY_COUNT, "1", AT(site.a_resend), RANGE(0, 1000),
     "Second deliveries by one server to the next that pass."},
    {"detect", "a_list", KEY_COUNT, "5", AT(site.a_list), RANGE(0, 1000),
     "Mailing lists one message may come through."},
    {"detect", "a_internal", KEY_COUNT, "2", AT(site.a_internal), RANGE(0, 1000),
     "Passes through our own hosts that are no loop."},
    {"detect", "quick_rcpts", KEY_COUNT, "3", AT(site.quick_rcpts), RANGE(1, 10000),
     "Recipients a server must serve again to be convicted at once."},
    {"detect", "quick_domains", KEY_COUNT, "2", AT(site.quick_domains), RANGE(1, 10000),
     "Domains these recipients must be in."},
    {"detect", "quick_visible", KEY_FACTOR, "0.9", AT(site.quick_visible), RANGE(0, 1),
     "Share of the recipients that must stand in To or Cc."},
    {"detect", "storm_dups", KEY_COUNT, "10", AT(site.storm_dups), RANGE(1, 1000000),
     "Further copies that make a convicted message a storm."},
    {"detect", "ttl_plain", KEY_DURATION, "24h", AT(site.ttl_plain), RANGE(60e3, 180 * DAY),
     "How long a message without further copies is remembered."},
    {"detect", "ttl_dup", KEY_DURATION, "7d", AT(site.ttl_dup), RANGE(60e3, 180 * DAY),
     "How long one with further copies is."},
    {"detect", "ttl_storm", KEY_DURATION, "45d", AT(site.ttl_storm), RANGE(60e3, 180 * DAY),
     "How long a storm is."},
    {"detect", "known_server", KEY_DURATION, "7d", AT(site.known_server), RANGE(0, 180 * DAY),
     "How long a convicted server is known for the next storm."},
    {"detect", "name_min_detours", KEY_COUNT, "3", AT(site.name_min_detours), RANGE(1, 10000),
     "Detours needed before a server is named."},
    {"detect", "name_min_score", KEY_FACTOR, "3", AT(site.name_min_score), RANGE(0, 1000),
     "Score needed before a server is named."},
    {"detect", "name_margin", KEY_FACTOR, "1", AT(site.name_margin), RANGE(0, 1000),
     "Lead in score over the next suspect needed."},

    {"release", "to", KEY_TARGET, NULL, AT(release_to), PLAIN,
     "MTA that released mail is given to; without it nothing can be released."},
    {"release", "helo", KEY_NAME, NULL, AT(release_helo), PLAIN,
     "Name said in EHLO there; default: node.name."},
    {"release", "rate", KEY_FACTOR, "10", AT(release_rate), RANGE(TINY, 100000),
     "Released messages per second."},
    {"release", "token", KEY_SWITCH, "yes", AT(release_token), WORDS("no|yes"),
     "That MTA asks a breakwater milter, which lets marked mail pass once."},

    {"hold", "path", KEY_PATH, "/var/lib/breakwater", AT(hold_path), PLAIN,
     "Directory of the hold queue and the journal."},
    {"hold", "max_bytes", KEY_SIZE, "10GB", AT(hold_max_bytes), RANGE(1 << 20, 1e6 * GB),
     "Size of the hold queue at which holding stops."},
    {"hold", "deadline", KEY_DURATION, "10s", AT(hold_deadline), RANGE(100, 60e3),
     "How long a message waits for its hold to be durable."},
    {"hold", "refuse_max", KEY_COUNT, "3", AT(refuse_max), RANGE(0, 100),
     "When holding fails: refusals (4xx) of a further copy before it passes."},
    {"hold", "message_memory", KEY_SIZE, "1MB", AT(message_memory), RANGE(64 << 10, GB),
     "Bytes of one message kept in memory; the rest goes to a file."},
    {"hold", "total_memory", KEY_SIZE, "256MB", AT(total_memory), RANGE(1 << 20, 1024 * GB),
     "Bytes of all messages kept in memory."},
    {"hold", "journal_keep", KEY_DURATION, "30d", AT(journal_keep), RANGE(3600e3, 3660 * DAY),
     "How long the journal of verdicts is kept."},

    {"store", "backend", KEY_SWITCH, "memory", AT(store_none), WORDS("memory|none"),
     "Where the past is remembered; none: nowhere, for tests."},
    {"store", "memory", KEY_SIZE, "256MB", AT(store_memory), RANGE(1 << 20, 1024 * GB),
     "Bytes the past may use; the oldest is forgotten first."},

    {"control", "socket", KEY_PATH, "/run/breakwater/control", AT(control_socket), PLAIN,
     "Unix socket of breakwaterctl."},
    {"control", "mode", KEY_OCTAL, "0660", AT(control_mode), PLAIN,
     "Its permissions: who may write to it may release and discard."},

    {"log", "to", KEY_WORD, "syslog", AT(log_to), WORDS("syslog|stderr"), "Where log lines go."},
    {"log", "level", KEY_CHOICE, "notice", AT(log_level), WORDS("nothing|error|notice|info|debug"),
     "How much is logged; info: every message."},

    {"policy", "file", KEY_PATH, NULL, AT(policy_file), PLAIN,
     "Rules, see policy.conf(5); default: the built-in ones."},
};
enum { ROWS = sizeof rows / sizeof *rows };

/* A configuration being read. */
struct loading {
    struct config *config;
    const char *file;
    enum config_use use;
    char *error;          /* LINE_BYTES; empty: nothing wrong so far */
    unsigned line[ROWS];  /* where each key was set last; 0: not in the file */
    unsigned taken[ROWS]; /* lists: elements taken */
    size_t settings;      /* how many keys and sections the file has */
};

/* libconfuse's callbacks have no argument of ours. */
static _Thread_local struct loading *now_loading;

/* ---- errors ---- */

/* Notes the first mistake and returns -1. line 0: the file as a whole. */
static int refuse(struct loading *l, unsigned line, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static int refuse(struct loading *l, unsigned line, const char *fmt, ...)
{
    if (*l->error)
        return -1;
    int n = line ? snprintf(l->error, LINE_BYTES, "%s:%u: ", l->file, line)
                 : snprintf(l->error, LINE_BYTES, "%s: ", l->file);
    if (n < 0 || n >= LINE_BYTES)
        return -1;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(l->error + n, (size_t)(LINE_BYTES - n), fmt, ap);
    va_end(ap);
    for (char *c = l->error; *c; c++)
        if ((uint8_t)*c < 0x20 || *c == 0x7f)
            *c = '?';
    return -1;
}

/* "hold.path", or "mode" */
static const char *key_name(const struct key_row *row, char out[64])
{
    snprintf(out, 64, "%s%s%s", row->section, *row->section ? "." : "", row->name);
    return out;
}

/* "key: found 'x', expected y" */
static int refuse_value(struct loading *l, unsigned line, const struct key_row *row,
                        const char *value, const char *expected)
{
    char key[64];
    return refuse(l, line, "%s: found '%.80s', expected %s", key_name(row, key), value, expected);
}

/* ---- values ---- */

static char *keep(struct loading *l, struct span s)
{
    return arena_str(l->config->arena, s);
}

static bool host_name(struct span s)
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
    if (i < 0 && at == &l->config->store_none && strcmp(value, "redis") == 0)
        return refuse(l, line, "store.backend: redis comes in a later version; expected memory");
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
        *(char **)at = keep(l, span_str(value));
    return 0;
}

static int set_path(struct loading *l, unsigned line, const struct key_row *row, const char *value,
                    char **at)
{
    if (!*value)
        return refuse_value(l, line, row, value, "a path");
    const char *slash = strrchr(l->file, '/');
    if (*value == '/' || !slash)
        *at = keep(l, span_str(value));
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
    if (!host_name(span_str(value)))
        return refuse_value(l, line, row, value, "a host name");
    struct span name = arena_lower(l->config->arena, span_str(value));
    if (at == &l->config->site.node)
        *(struct span *)at = name;
    else
        *(char **)at = keep(l, name);
    return 0;
}

/* Appends room for one element of `size` to the list at *list and returns it. */
static void *append(struct loading *l, void *list, size_t *n, size_t size)
{
    void *old;
    memcpy(&old, list, sizeof old);
    uint8_t *grown = arena_grow(l->config->arena, old, *n * size, (*n + 1) * size);
    memcpy(list, &grown, sizeof old);
    return grown + size * (*n)++;
}

static void add_net(struct loading *l, const struct key_row *row, struct netmask net)
{
    struct site *site = &l->config->site;
    struct netmask *place = row->type == KEY_NETS
                                ? append(l, &site->own_nets, &site->nown_nets, sizeof net)
                                : append(l, &site->trusted_nets, &site->ntrusted_nets, sizeof net);
    *place = net;
}

/* May this be the name of a host or domain in a list of this type? */
static bool listed_name(const struct key_row *row, struct span s)
{
    if (row->type == KEY_RECIPIENTS)
        return recipient(s);
    if (row->type == KEY_RELAYS && strspn((const char *)s.p, "0123456789./:") == s.n)
        return false; /* 192.0.2.0/33 or 192.0.2.256: meant to be an address */
    return row->type != KEY_NETS && host_name(s);
}

static int add_element(struct loading *l, unsigned line, const struct key_row *row,
                       const char *value)
{
    static const char *const expected[] = {
        [KEY_HOSTS] = "a host name or domain",
        [KEY_NETS] = "an address or network, such as 192.0.2.0/24",
        [KEY_RELAYS] = "a host name, a domain or a network",
        [KEY_RECIPIENTS] = "an address; '*' may stand for either side of the @",
    };
    uint8_t *base = (uint8_t *)l->config;
    struct span s = span_str(value);
    struct netmask net;
    if ((row->type == KEY_NETS || row->type == KEY_RELAYS) && netmask_parse(&net, s)) {
        add_net(l, row, net);
        return 0;
    }
    if (!listed_name(row, s))
        return refuse_value(l, line, row, value, expected[row->type]);
    s = arena_lower(l->config->arena, s);
    struct span *place =
        append(l, base + row->offset, (size_t *)(void *)(base + row->count), sizeof s);
    *place = s;
    return 0;
}

static void clear_list(struct loading *l, const struct key_row *row)
{
    struct site *site = &l->config->site;
    memset((uint8_t *)l->config + row->offset, 0, sizeof(void *));
    memset((uint8_t *)l->config + row->count, 0, sizeof(size_t));
    if (row->type == KEY_RELAYS) {
        site->trusted_nets = NULL;
        site->ntrusted_nets = 0;
    }
}

static bool is_list(const struct key_row *row)
{
    return row->type >= KEY_HOSTS;
}

/* Sets one key, not a list, in the struct at base. */
static int set_value(struct loading *l, unsigned line, const struct key_row *row, const char *value,
                     void *base)
{
    void *at = (uint8_t *)base + row->offset;
    switch (row->type) {
    case KEY_NAME:
        return set_name(l, line, row, value, at);
    case KEY_PATH:
        return set_path(l, line, row, value, at);
    case KEY_TARGET:
        if (!place_target(span_str(value)))
            return refuse_value(l, line, row, value,
                                "ADDRESS:PORT, such as 127.0.0.1:25 or [::1]:25, or unix:/path");
        *(char **)at = keep(l, span_str(value));
        return 0;
    case KEY_SOCKET:
        if (!place_listen(span_str(value)))
            return refuse_value(l, line, row, value,
                                "inet:PORT@ADDRESS, such as inet:8895@127.0.0.1, "
                                "inet6:PORT@ADDRESS or unix:/path");
        *(char **)at = keep(l, span_str(value));
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

static int set_default(struct loading *l, const struct key_row *row, void *base)
{
    if (!row->value)
        return 0;
    if (!is_list(row))
        return set_value(l, 0, row, row->value, base);
    struct span rest = span_str(row->value);
    while (rest.n) {
        size_t end = span_find(rest, ' ');
        if (add_element(l, 0, row, keep(l, span_head(rest, end))) < 0)
            return -1;
        rest = span_from(rest, end + 1);
    }
    return 0;
}

static bool of_listener(const struct key_row *row)
{
    return strcmp(row->section, "milter") == 0;
}

static int set_defaults(struct loading *l)
{
    clear_list(l, &rows[2]); /* site_defaults' exempt: the table has it too */
    for (size_t i = 0; i < ROWS; i++)
        if (!of_listener(&rows[i]) && set_default(l, &rows[i], l->config) < 0)
            return -1;
    return 0;
}

/* ---- reading the file: libconfuse's callbacks ---- */

static const char *section_of(const cfg_t *cfg)
{
    return strcmp(cfg->name, "root") == 0 ? "" : cfg->name;
}

static size_t find_row(const char *section, const char *name)
{
    for (size_t i = 0; i < ROWS; i++)
        if (strcmp(rows[i].section, section) == 0 && strcmp(rows[i].name, name) == 0)
            return i;
    return ROWS;
}

static const char *const open_end = "ends inside a list, a comment or a quoted text";
static const char *const no_smtp =
    "smtp listeners come in a later version: use milter NAME { socket = ... }";

/* The listener of this title; made, with defaults, if it is new. */
static struct listener *listener_of(struct loading *l, const char *title)
{
    struct config *c = l->config;
    for (size_t i = 0; i < c->nlisteners; i++)
        if (strcmp(c->listeners[i].name, title) == 0)
            return &c->listeners[i];
    struct listener *made = append(l, &c->listeners, &c->nlisteners, sizeof *made);
    *made = (struct listener){.name = keep(l, span_str(title)), .kind = DOOR_MILTER};
    for (size_t i = 0; i < ROWS; i++)
        if (of_listener(&rows[i]))
            (void)set_default(l, &rows[i], made);
    return made;
}

/*
 * Called at each element and again at the closing brace; `=` starts anew, `+=` goes on. When there
 * are not more elements than taken, the list began anew or nothing was added: the last is taken
 * (again).
 */
static int take_list(struct loading *l, unsigned line, size_t i, cfg_opt_t *opt)
{
    if (l->line[i] == 0 || opt->nvalues < l->taken[i])
        clear_list(l, &rows[i]), l->taken[i] = 0;
    l->line[i] = line;
    if (l->taken[i] == opt->nvalues)
        return 0;
    for (; l->taken[i] < opt->nvalues; l->taken[i]++)
        if (add_element(l, line, &rows[i], cfg_opt_getnstr(opt, l->taken[i])) < 0)
            return -1;
    return 0;
}

static int take_key(cfg_t *cfg, cfg_opt_t *opt)
{
    struct loading *l = now_loading;
    unsigned line = (unsigned)cfg->line;
    size_t i = find_row(section_of(cfg), opt->name);
    if (i == ROWS)
        return 0; /* the end mark */
    l->settings++;
    if (is_list(&rows[i]))
        return take_list(l, line, i, opt);
    char key[64];
    if (of_listener(&rows[i]))
        return set_value(l, line, &rows[i], cfg_opt_getnstr(opt, 0), listener_of(l, cfg->title));
    if (l->line[i])
        return refuse(l, line, "%s is set twice: first on line %u", key_name(&rows[i], key),
                      l->line[i]);
    l->line[i] = line;
    return set_value(l, line, &rows[i], cfg_opt_getnstr(opt, 0), l->config);
}

/* Can a file be made at this path, which `key` names? */
static int check_place(struct loading *l, unsigned line, const char *key, const char *path)
{
    char why[PLACE_ERROR];
    if (l->use == CONFIG_READ || place_file(path, why) == 0)
        return 0;
    return refuse(l, line, "%s: %s", key, why);
}

/* A listener's section is complete. */
static int take_listener(cfg_t *cfg, cfg_opt_t *opt)
{
    struct loading *l = now_loading;
    unsigned line = (unsigned)cfg->line;
    if (strcmp(opt->name, "smtp") == 0)
        return refuse(l, line, "%s", no_smtp);
    const char *title = cfg_title(cfg_opt_getnsec(opt, cfg_opt_size(opt) - 1));
    l->settings++;
    if (!host_name(span_str(title)))
        return refuse(l, line, "milter: found the name '%.60s', expected letters and digits",
                      title);
    const char *socket = listener_of(l, title)->socket;
    if (!socket)
        return refuse(l, line,
                      "milter %s has no socket: say where the MTA connects to, as in "
                      "socket = \"inet:8895@127.0.0.1\"",
                      title);
    if (*socket == 'u')
        return check_place(l, line, "milter.socket", socket + strlen("unix:"));
    return 0;
}

static int take_section(cfg_t *cfg, cfg_opt_t *opt)
{
    (void)cfg;
    (void)opt;
    now_loading->settings++;
    return 0;
}

static const char *const sections[] = {"node",    "own",  "trusted", "milter",  "smtp", "detect",
                                       "release", "hold", "store",   "control", "log",  "policy"};
enum { SECTIONS = sizeof sections / sizeof *sections };
static const char end_mark[] = "end-of-breakwater.conf";

static void unknown_key(struct loading *l, const cfg_t *cfg, const char *found)
{
    const char *section = section_of(cfg);
    unsigned line = (unsigned)cfg->line;
    struct nearest near = {.word = span_str(found)};
    if (strcmp(found, end_mark) == 0) {
        (void)refuse(l, 0, "section '%s' is not closed: a '}' is missing", section);
        return;
    }
    for (size_t i = 0; i < ROWS; i++)
        if (strcmp(rows[i].section, section) == 0)
            nearest_try(&near, rows[i].name);
    for (size_t i = 0; !*section && i < SECTIONS; i++)
        nearest_try(&near, sections[i]);
    if (near.name)
        (void)refuse(l, line, "%s%sthere is no key '%.60s': did you mean '%s'?", section,
                     *section ? ": " : "", found, near.name);
    else
        (void)refuse(l, line, "%s%sthere is no key '%.60s': breakwater.conf(5) lists them", section,
                     *section ? ": " : "", found);
}

/* libconfuse's own complaints. */
static void complain(cfg_t *cfg, const char *fmt, va_list ap)
{
    struct loading *l = now_loading;
    char text[256];
    if (strcmp(cfg->name, "smtp") == 0) {
        (void)refuse(l, (unsigned)cfg->line, "%s", no_smtp);
        return;
    }
    if (strstr(fmt, "no such option")) {
        unknown_key(l, cfg, va_arg(ap, const char *));
        return;
    }
    if (strstr(fmt, "missing title")) {
        (void)refuse(l, (unsigned)cfg->line, "a milter section wants a name: milter NAME { ... }");
        return;
    }
    if (strstr(fmt, "premature end")) {
        (void)refuse(l, 0, "%s", open_end);
        return;
    }
    vsnprintf(text, sizeof text, fmt, ap);
    (void)refuse(l, (unsigned)cfg->line, "%s", text);
}

static cfg_opt_t key_option(const struct key_row *row)
{
    cfg_opt_t text = CFG_STR(0, 0, CFGF_NODEFAULT);
    cfg_opt_t list = CFG_STR_LIST(0, 0, CFGF_NODEFAULT);
    cfg_opt_t o = is_list(row) ? list : text;
    o.name = row->name;
    o.validcb = take_key;
    return o;
}

static void section_options(cfg_opt_t *out, const char *section)
{
    const cfg_opt_t end = CFG_END();
    size_t n = 0;
    for (size_t i = 0; i < ROWS; i++)
        if (strcmp(rows[i].section, section) == 0)
            out[n++] = key_option(&rows[i]);
    out[n] = end;
}

/* The parser's table of options, made from ours. */
struct options {
    cfg_opt_t root[SECTIONS + SECTION_KEYS];
    cfg_opt_t section[SECTIONS][SECTION_KEYS];
};

static void make_options(struct options *o)
{
    size_t n = 0;
    section_options(o->root, "");
    while (o->root[n].name)
        n++;
    for (size_t i = 0; i < SECTIONS; i++) {
        bool door = strcmp(sections[i], "milter") == 0 || strcmp(sections[i], "smtp") == 0;
        cfg_opt_t one = CFG_SEC(0, 0, CFGF_NONE);
        cfg_opt_t many = CFG_SEC(0, 0, CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES);
        section_options(o->section[i], sections[i]);
        o->root[n] = door ? many : one;
        o->root[n].name = sections[i];
        o->root[n].subopts = o->section[i];
        o->root[n++].validcb = door ? take_listener : take_section;
    }
    cfg_opt_t mark = CFG_STR(0, 0, CFGF_NODEFAULT), end = CFG_END();
    o->root[n] = mark;
    o->root[n++].name = end_mark;
    o->root[n] = end;
}

/* Lists written as {}: libconfuse tells nobody. */
static void clear_empty_lists(struct loading *l, cfg_t *cfg)
{
    for (size_t i = 0; i < ROWS; i++) {
        if (!is_list(&rows[i]))
            continue;
        cfg_t *section = *rows[i].section ? cfg_getsec(cfg, rows[i].section) : cfg;
        const cfg_opt_t *opt = section ? cfg_getopt(section, rows[i].name) : NULL;
        if (opt && opt->nvalues == 0 && (opt->flags & (CFGF_MODIFIED | CFGF_RESET)))
            clear_list(l, &rows[i]);
    }
}

/*
 * libconfuse takes the end of the file for the end of a section. So a last setting is added that
 * only the top level knows: in an open section it is an unknown key, in an open text or comment
 * it is not seen at all.
 */
static int read_text(struct loading *l, struct span text)
{
    if (memchr(text.p ? text.p : (const uint8_t *)"", '\0', text.n))
        return refuse(l, 0, "has a NUL byte: this is not a text file");
    char *marked = arena_printf(l->config->arena, "%.*s\n%s = seen\n", SPAN_ARG(text), end_mark);
    struct options *o = arena_alloc(l->config->arena, sizeof *o);
    make_options(o);
    cfg_t *cfg = cfg_init(o->root, CFGF_NONE);
    if (!cfg)
        abort();
    now_loading = l;
    cfg_set_error_function(cfg, complain);
    int rc = cfg_parse_buf(cfg, marked);
    if (rc != CFG_SUCCESS)
        (void)refuse(l, (unsigned)cfg->line, "cannot be read");
    else if (cfg_size(cfg, end_mark) == 0)
        (void)refuse(l, 0, "%s", open_end);
    else
        clear_empty_lists(l, cfg);
    now_loading = NULL;
    cfg_free(cfg);
    if (!*l->error && l->settings == 0)
        return refuse(l, 0, "is empty: it needs at least milter NAME { socket = ... }");
    return *l->error ? -1 : 0;
}

/* ---- what the file names: key, policy, directory ---- */

/* The whole of a file of at most FILE_BYTES into the arena. NULL and errno. */
static uint8_t *slurp(struct arena *arena, const char *path, size_t *n)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    uint8_t *bytes = arena_alloc(arena, FILE_BYTES + 1);
    ssize_t got;
    *n = 0;
    while (*n <= FILE_BYTES && (got = read(fd, bytes + *n, FILE_BYTES + 1 - *n)) > 0)
        *n += (size_t)got;
    int why = *n > FILE_BYTES ? EFBIG : got < 0 ? errno : 0;
    close(fd);
    errno = why;
    return why ? NULL : bytes;
}

static const uint8_t test_key[32] = "breakwater: a key for tests only";

static int load_key(struct loading *l, unsigned line)
{
    struct config *c = l->config;
    char why[SITEKEY_ERROR];
    memcpy(c->site_key, test_key, sizeof test_key);
    if (l->use == CONFIG_READ)
        return 0;
    int rc = sitekey_read(c->site_key_file, c->site_key, why);
    if (rc == 0)
        return 0;
    if (rc > 0 && check_place(l, line, "node.site_key", c->site_key_file) < 0)
        return -1;
    if (rc > 0 && l->use == CONFIG_CHECK)
        return 0;
    if (rc < 0 || sitekey_make(c->site_key_file, c->site_key, why) < 0)
        return refuse(l, line, "node.site_key: %s", why);
    log_say(LOG_LEVEL_NOTICE, "made a new site key: %s", c->site_key_file);
    return 0;
}

static int load_policy(struct loading *l, unsigned line)
{
    struct config *c = l->config;
    struct policy_error e;
    struct span text = span_str(policy_default);
    size_t n;
    if (c->policy_file) {
        const uint8_t *bytes = slurp(c->arena, c->policy_file, &n);
        if (!bytes)
            return refuse(l, line, "policy.file: cannot read %s: %s", c->policy_file,
                          strerror(errno));
        text = span_of(bytes, n);
    }
    c->policy = policy_load(text, &e);
    if (c->policy)
        return 0;
    l->file = c->policy_file ? c->policy_file : "built-in policy";
    return refuse(l, e.line, "column %u: %s", e.column, e.text);
}

static int check_hold_path(struct loading *l, unsigned line)
{
    char why[PLACE_ERROR];
    if (l->use == CONFIG_READ || place_directory(l->config->hold_path, why) == 0)
        return 0;
    return refuse(l, line, "hold.path: %s", why);
}

/* ---- the whole ---- */

/* 10 bits of the FNV-1a hash of the name. */
static uint16_t number_of_node(struct span name)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < name.n; i++)
        h = (h ^ name.p[i]) * 16777619u;
    return (uint16_t)((h ^ h >> 10 ^ h >> 20) & 1023);
}

static void finish_names(struct loading *l)
{
    struct config *c = l->config;
    char host[256] = "";
    if (!c->site.node.n) {
        if (gethostname(host, sizeof host - 1) < 0 || !host_name(span_str(host)))
            strcpy(host, "localhost");
        c->site.node = arena_lower(c->arena, span_str(host));
    }
    c->node_number = number_of_node(c->site.node);
    if (!c->release_helo)
        c->release_helo = keep(l, c->site.node);
}

static struct config *new_config(struct loading *l, const char *file, enum config_use use,
                                 char error[LINE_BYTES])
{
    struct arena *arena = arena_new();
    struct config *c = arena_zero(arena, sizeof *c);
    c->arena = arena;
    atomic_init(&c->references, 1);
    site_defaults(&c->site);
    *error = '\0';
    *l = (struct loading){.config = c, .file = file, .use = use, .error = error};
    return c;
}

static unsigned line_of(const struct loading *l, const char *section, const char *name)
{
    return l->line[find_row(section, name)];
}

struct config *config_parse(const char *file, struct span text, enum config_use use,
                            char error[LINE_BYTES])
{
    struct loading l;
    struct config *c = new_config(&l, file, use, error);
    c->file = keep(&l, span_str(file));
    if (set_defaults(&l) < 0 || read_text(&l, text) < 0)
        goto fail;
    finish_names(&l);
    if (load_policy(&l, line_of(&l, "policy", "file")) < 0)
        goto fail;
    if (check_hold_path(&l, line_of(&l, "hold", "path")) < 0 ||
        load_key(&l, line_of(&l, "node", "site_key")) < 0 ||
        check_place(&l, line_of(&l, "control", "socket"), "control.socket", c->control_socket) < 0)
        goto fail;
    return c;
fail:
    config_drop(&c);
    return NULL;
}

struct config *config_load(const char *file, enum config_use use, char error[LINE_BYTES])
{
    struct arena *arena = arena_new();
    struct config *c = NULL;
    size_t n;
    const uint8_t *bytes = slurp(arena, file, &n);
    if (bytes)
        c = config_parse(file, span_of(bytes, n), use, error);
    else
        snprintf(error, LINE_BYTES, "%.300s: cannot be read: %s", file, strerror(errno));
    arena_free(&arena);
    return c;
}

struct config *config_builtin(void)
{
    struct loading l;
    char error[LINE_BYTES];
    struct config *c = new_config(&l, "built-in", CONFIG_READ, error);
    if (set_defaults(&l) < 0 || load_policy(&l, 0) < 0)
        log_die("the built-in configuration is wrong: %s", error);
    c->site.node = SPAN("breakwater");
    finish_names(&l);
    memcpy(c->site_key, test_key, sizeof test_key);
    return c;
}

struct config *config_hold(struct config *c)
{
    atomic_fetch_add(&c->references, 1);
    return c;
}

void config_drop(struct config **place)
{
    struct config *c = *place;
    *place = NULL;
    if (!c || atomic_fetch_sub(&c->references, 1) != 1)
        return;
    policy_free(&c->policy);
    struct arena *arena = c->arena; /* c itself lies in it */
    arena_free(&arena);
}

void config_print_keys(FILE *out)
{
    static const char *const types[] = {
        "name",  "path",   "address", "socket", "time",  "size",     "count",  "number",
        "octal", "choice", "choice",  "choice", "hosts", "networks", "relays", "recipients"};
    for (size_t i = 0; i < ROWS; i++) {
        char key[64];
        fprintf(out, "%s\t%s\t%s\t%s\n", key_name(&rows[i], key),
                rows[i].words ? rows[i].words : types[rows[i].type],
                rows[i].value ? rows[i].value : "-", rows[i].sentence);
    }
}
