/*
 * config_table.h - the configuration, and the keys of breakwater.conf that fill it: one table holds
 * each with its section, name, type, default and one sentence.
 *
 * A new key is a row in config_table.c, a field in struct config or struct site, its paragraph in
 * breakwater.conf(5) and its line in contrib/breakwater.conf (tests/options.sh compares them).
 */
#ifndef CONFIG_TABLE_H
#define CONFIG_TABLE_H

#include <stdio.h>

#include "guard.h"
#include "log.h"
#include "redis_settings.h"
#include "setfile.h"
#include "site.h"

enum door_kind { DOOR_MILTER, DOOR_SMTP };

/* How a choice of three is written in breakwater.conf: the words stand in config_table.c. */
enum { TLS_NEVER, TLS_MAY, TLS_MUST };
enum { RECEIVED_AUTO, RECEIVED_NEVER, RECEIVED_ALWAYS };
enum { STORE_MEMORY, STORE_REDIS, STORE_NONE };

struct listener {
    char *name;
    enum door_kind kind;
    char *socket;    /* "inet:8895@127.0.0.1", "inet6:8895@::1", "unix:/path" */
    int socket_mode; /* unix: permissions, default 0660 */
    /* smtp */
    char *downstream;          /* the MTA behind: "127.0.0.1:10025" */
    int downstream_tls;        /* TLS_NEVER, TLS_MAY, TLS_MUST */
    char *downstream_ca;       /* file of CAs to verify it with; NULL: not verified */
    char *downstream_name;     /* name its certificate must have */
    unsigned downstream_proxy; /* PROXY header it wants: 0 none, 1, 2 */
    bool xclient, xforward;    /* tell it who the client is, where it offers that */
    char *certificate, *key;   /* ours; NULL: no TLS */
    bool implicit;             /* TLS from the first byte */
    bool proxy_protocol;       /* a PROXY header comes first */
    struct netmask *upstreams; /* whose XCLIENT and XFORWARD count, and who is not limited */
    size_t nupstreams;
    bool refuse_bare; /* bare CR and LF in the data: refuse instead of normalising */
    int received;     /* RECEIVED_AUTO, RECEIVED_NEVER, RECEIVED_ALWAYS */
};

struct config {
    struct arena *arena; /* everything below lies here */
    _Atomic unsigned references;
    char *file; /* where it came from; NULL: built in */
    struct site site;
    uint8_t site_key[32];
    char *site_key_file;
    bool stamp;               /* mail that passes gets X-Breakwater-Trace */
    uint16_t node_number;     /* 10 bits, from the node's name */
    struct policy *policy;    /* what -t and replay judge by; the daemon: versions.h */
    char *policy_file;        /* NULL: built-in rules */
    struct span policy_text;  /* of the file, or the built-in rules */
    json_t *policy_sets;      /* what the files it names held: {path: text}; NULL: none */
    char *policy_fault;       /* CONFIG_START: why there is no policy; NULL: there is */
    int64_t policy_confirm;   /* ms in which a new version must be confirmed; 0: never */
    bool policy_second;       /* by another person than its author */
    unsigned policy_refusals; /* 4xx by rules for one message; 0: no limit by count; default 3 */
    int64_t policy_defer_max; /* ms from the first to the last of them; default 30 min */
    enum mode mode;           /* of a fresh install; afterwards the hold database says */

    struct listener *listeners;
    size_t nlisteners;
    unsigned workers; /* mail threads; 0: as many as processors */

    char *hold_path; /* directory */
    uint64_t hold_max_bytes;
    int64_t hold_deadline;   /* ms a transaction waits for its hold to be durable; default 10 s */
    unsigned refuse_max;     /* 4xx for one copy before it passes, when holding fails; default 3 */
    uint64_t message_memory; /* bytes of one message kept in memory; default 1 MiB */
    uint64_t total_memory;   /* of all messages; default 256 MiB */
    int64_t journal_keep;    /* ms; default 30 d */

    char *release_to;    /* "127.0.0.1:25", "unix:/path"; NULL: release is off */
    char *release_helo;  /* EHLO name; default the node's name */
    double release_rate; /* messages per second; default 10 */
    int release_tls;     /* TLS_NEVER, TLS_MAY, TLS_MUST */
    char *release_ca;    /* file of CAs to verify release.to with; NULL: not verified */
    char *release_name;  /* name its certificate must have */
    bool release_token;  /* false: release.to has no breakwater in front */

    int store_backend;           /* STORE_MEMORY, STORE_REDIS, STORE_NONE: remembers nothing */
    uint64_t store_memory;       /* bytes; default 256 MiB */
    struct redis_settings redis; /* of STORE_REDIS */

    /* limits of the SMTP door */
    unsigned smtp_connections, smtp_connections_each; /* 0: no limit */
    unsigned smtp_recipients;                         /* of one message; default 1000 */
    unsigned smtp_messages;                           /* of one connection; default 1000 */
    unsigned smtp_junk;         /* commands that are none, before it is closed; default 20 */
    uint64_t smtp_message_size; /* bytes; default 50 MB */
    unsigned smtp_min_rate;     /* bytes a second of data; default 500 */
    int64_t smtp_idle, smtp_session, smtp_connect, smtp_command, smtp_final; /* ms: deadlines */

    struct guard_limits guard; /* connections: 0 here */
    char *guard_alarm;         /* command; NULL: none */
    char *guard_mail_to;       /* address; NULL: none */

    char *control_socket; /* unix path */
    int control_mode;

    char *log_to;
    enum log_level log_level;
    int64_t log_daily; /* ms after local midnight; a day: never */
};

/* What a configuration is read for. */
enum config_use {
    CONFIG_RUN,   /* to work with: a missing site key file is made, 0600 */
    CONFIG_START, /* the same, but a broken policy is no mistake: there may be a stored one */
    CONFIG_CHECK, /* -t: the same checks of directories and files, but nothing is made */
    CONFIG_READ,  /* to judge recorded mail anywhere (replay): no site key, no directories */
};
enum key_type {
    KEY_NAME,       /* host name, lower case */
    KEY_TEXT,       /* a name that is not a host's: case matters */
    KEY_ADDRESS,    /* local@domain */
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
    KEY_TARGETS,    /* list of targets */
};

struct key_row {
    const char *section; /* "": top level; "milter", "smtp": of a listener */
    const char *name;
    enum key_type type;
    const char *value; /* default as it would be written; NULL: none; lists: blank-separated */
    size_t offset;     /* in struct config, or struct listener */
    size_t count;      /* lists: offset of the number of elements, in the same */
    double min, max;
    const char *words; /* KEY_CHOICE and KEY_SWITCH and KEY_WORD: "a|b|c" */
    const char *sentence;
};

extern const struct key_row config_table[];
extern const size_t config_rows;

/* The index of a row; config_rows: there is none. */
size_t key_find(const char *section, const char *name);
/* "hold.path", or "mode" */
const char *key_name(const struct key_row *, char out[64]);
bool key_is_list(const struct key_row *);
bool key_of_listener(const struct key_row *);

/* The table of keys, one a line: section.key TAB type TAB default TAB sentence. */
void config_print_keys(FILE *);

#endif
