/*
 * config.h - breakwater.conf: parsed by libconfuse, checked whole, immutable, reference-counted.
 *
 * One table (config.c) holds every key: section, name, type, default, one sentence; the parser, the
 * manual check (tests/options.sh) and `breakwaterd -t` use it.
 */
#ifndef CONFIG_H
#define CONFIG_H

#include <stdio.h>

#include "log.h"
#include "policy.h"
#include "site.h"

enum door_kind {
    DOOR_MILTER,
    DOOR_SMTP /* a later issue */
};

struct listener {
    char *name;
    enum door_kind kind;
    char *socket;    /* "inet:8895@127.0.0.1", "inet6:8895@::1", "unix:/path" */
    int socket_mode; /* unix: permissions, default 0660 */
};

struct config {
    struct arena *arena; /* everything below lies here */
    _Atomic unsigned references;
    char *file; /* where it came from; NULL: built in */
    struct site site;
    uint8_t site_key[32];
    char *site_key_file;
    uint16_t node_number; /* 10 bits, from the node's name */
    struct policy *policy;
    char *policy_file; /* NULL: built-in rules */
    enum mode mode;    /* of a fresh install; afterwards the hold database says */

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
    bool release_token;  /* false: release.to has no breakwater in front */

    bool store_none;       /* backend = none: remembers nothing */
    uint64_t store_memory; /* bytes; default 256 MiB */

    char *control_socket; /* unix path */
    int control_mode;

    char *log_to;
    enum log_level log_level;
};

/* What a configuration is read for. */
enum config_use {
    CONFIG_RUN,   /* to work with: a missing site key file is made, 0600 */
    CONFIG_CHECK, /* -t: the same checks of directories and files, but nothing is made */
    CONFIG_READ,  /* to judge recorded mail anywhere (replay): no site key, no directories */
};
/*
 * Reads and checks a file, the policy it names included. NULL after writing one sentence
 * "file:line: ..." into error. Where there is no site key (CHECK: it is missing; READ: always) the
 * test key takes its place. Main thread only: libconfuse's scanner is one per process.
 */
struct config *config_load(const char *file, enum config_use, char error[512]);
/* The same from text; `file` names it in errors and is where relative paths start. */
struct config *config_parse(const char *file, struct span text, enum config_use, char error[512]);
/* Defaults only, built-in policy, a fixed test key: for replay and tests. */
struct config *config_builtin(void);
struct config *config_hold(struct config *); /* one more reference */
void config_drop(struct config **);
/* The table of keys, one a line: section.key TAB type TAB default TAB sentence. */
void config_print_keys(FILE *);

#endif
