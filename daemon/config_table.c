/*
 * config_table.c - every key of breakwater.conf: its type, default, limits and one sentence.
 *
 * Parser, `breakwaterd -k`, manual and sample are made from this table or checked against it.
 */
#include "config_table.h"

#define AT(field) offsetof(struct config, field)
#define DOOR(field) offsetof(struct listener, field)
#define RANGE(least, most) 0, least, most, NULL
#define PLAIN RANGE(0, 0)
#define WORDS(words) 0, 0, 0, words
#define LIST(count) AT(count), 0, 0, NULL
#define TINY 1e-3
#define DAY 86400e3
#define GB (1024.0 * 1024 * 1024)

const struct key_row config_table[] = {
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
    {"node", "stamp", KEY_SWITCH, "no", AT(stamp), WORDS("no|yes"),
     "Mail that passes gets a mark by which it is known again when it was rewritten."},

    {"own", "hosts", KEY_HOSTS, NULL, AT(site.own_hosts), LIST(site.nown_hosts),
     "Our mail servers, by the names they write into Received fields."},
    {"own", "nets", KEY_NETS, NULL, AT(site.own_nets), LIST(site.nown_nets),
     "Our networks: their hosts are never blamed."},
    {"own", "domains", KEY_HOSTS, NULL, AT(site.own_domains), LIST(site.nown_domains),
     "Our domains: a host below one is ours."},
    {"trusted", "relays", KEY_RELAYS, NULL, AT(site.trusted), LIST(site.ntrusted),
     "Hosts, domains and networks of relays that are never blamed."},

    {"milter", "socket", KEY_SOCKET, NULL, DOOR(socket), PLAIN, "Where the MTA connects to."},
    {"milter", "mode", KEY_OCTAL, "0660", DOOR(socket_mode), PLAIN,
     "Permissions of a unix socket."},

    {"smtp", "socket", KEY_SOCKET, NULL, DOOR(socket), PLAIN, "Where clients connect to."},
    {"smtp", "mode", KEY_OCTAL, "0660", DOOR(socket_mode), PLAIN, "Permissions of a unix socket."},
    {"smtp", "downstream", KEY_TARGET, NULL, DOOR(downstream), PLAIN,
     "The MTA behind, which gets all mail that passes."},
    {"smtp", "downstream_tls", KEY_CHOICE, "never", DOOR(downstream_tls), WORDS("never|may|must"),
     "STARTTLS with it: not, where it offers it, or nothing without it."},
    {"smtp", "downstream_ca", KEY_PATH, NULL, DOOR(downstream_ca), PLAIN,
     "File of CA certificates its certificate is verified with; default: not verified."},
    {"smtp", "downstream_name", KEY_NAME, NULL, DOOR(downstream_name), PLAIN,
     "Name its certificate must have; needs downstream_ca."},
    {"smtp", "downstream_proxy", KEY_COUNT, "0", DOOR(downstream_proxy), RANGE(0, 2),
     "Version of the PROXY header it expects from us; 0: none."},
    {"smtp", "xclient", KEY_SWITCH, "yes", DOOR(xclient), WORDS("no|yes"),
     "Tell it by XCLIENT who the client is, where it offers that."},
    {"smtp", "xforward", KEY_SWITCH, "yes", DOOR(xforward), WORDS("no|yes"),
     "Tell it by XFORWARD whose message it is, where it offers that."},
    {"smtp", "certificate", KEY_PATH, NULL, DOOR(certificate), PLAIN,
     "Our certificate and its chain (PEM); without it no TLS is offered."},
    {"smtp", "key", KEY_PATH, NULL, DOOR(key), PLAIN, "The certificate's key (PEM)."},
    {"smtp", "implicit", KEY_SWITCH, "no", DOOR(implicit), WORDS("no|yes"),
     "TLS from the first byte, as on port 465."},
    {"smtp", "proxy_protocol", KEY_SWITCH, "no", DOOR(proxy_protocol), WORDS("no|yes"),
     "Every connection begins with a PROXY header (version 1 or 2)."},
    {"smtp", "upstreams", KEY_NETS, NULL, DOOR(upstreams), DOOR(nupstreams), 0, 0, NULL,
     "Relays of ours before us: not limited, and their XCLIENT and XFORWARD count."},
    {"smtp", "bare", KEY_SWITCH, "normalise", DOOR(refuse_bare), WORDS("normalise|refuse"),
     "Bare CR and LF in messages: made into blanks and line ends, or refused."},
    {"smtp", "received", KEY_CHOICE, "auto", DOOR(received), WORDS("auto|never|always"),
     "Add a Received field in mode enforce; auto: where the MTA behind cannot learn who the client "
     "is."},

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
    {"detect", "ttl_storm", KEY_DURATION, "400d", AT(site.ttl_storm), RANGE(60e3, 800 * DAY),
     "How long a storm is."},
    {"detect", "known_server", KEY_DURATION, "7d", AT(site.known_server), RANGE(0, 180 * DAY),
     "How long a convicted server is known for the next storm."},
    {"detect", "name_min_detours", KEY_COUNT, "3", AT(site.name_min_detours), RANGE(1, 10000),
     "Detours needed before a server is named."},
    {"detect", "name_min_score", KEY_FACTOR, "3", AT(site.name_min_score), RANGE(0, 1000),
     "Score needed before a server is named."},
    {"detect", "name_margin", KEY_FACTOR, "1", AT(site.name_margin), RANGE(0, 1000),
     "Lead in score over the next suspect needed."},
    {"detect", "bloom_days", KEY_COUNT, "40", AT(site.bloom_days), RANGE(1, 400),
     "Days the long memory knows who had which message; it only ever tags."},
    {"detect", "bloom_error", KEY_FACTOR, "0.001", AT(site.bloom_error), RANGE(1e-6, 0.1),
     "Share of its answers that are wrong."},
    {"detect", "relay_probation", KEY_DURATION, "30d", AT(site.relay_probation),
     RANGE(3600e3, 400 * DAY),
     "How long a relay that is said to be fixed gets no allowance for further copies."},
    {"detect", "replyall_audience", KEY_COUNT, "30", AT(site.replyall_audience), RANGE(2, 10000),
     "People from which on replies to all of them are counted."},
    {"detect", "replyall_lasts", KEY_DURATION, "4h", AT(site.replyall_lasts), RANGE(600e3, 2 * DAY),
     "How long replies to all are held at most; as long after that the next storm needs half."},
    {"detect", "pingpong_marked", KEY_COUNT, "3", AT(site.pingpong_marked), RANGE(2, 1000),
     "Answers an hour of each of two that are marked as machines; twice as many if one is."},
    {"detect", "pingpong_same", KEY_COUNT, "4", AT(site.pingpong_same), RANGE(2, 1000),
     "Answers in a row in which one says the same again, and the other one once less."},
    {"detect", "pingpong_plain", KEY_COUNT, "20", AT(site.pingpong_plain), RANGE(2, 1000),
     "Answers an hour of each to the other, whatever they say, from which on mail is tagged."},

    {"release", "to", KEY_TARGET, NULL, AT(release_to), PLAIN,
     "MTA that released mail is given to; without it nothing can be released."},
    {"release", "helo", KEY_NAME, NULL, AT(release_helo), PLAIN,
     "Name said in EHLO there; default: node.name."},
    {"release", "tls", KEY_CHOICE, "never", AT(release_tls), WORDS("never|may|must"),
     "STARTTLS with it: not, where it offers it, or nothing without it."},
    {"release", "ca", KEY_PATH, NULL, AT(release_ca), PLAIN,
     "File of CA certificates its certificate is verified with; default: not verified."},
    {"release", "name", KEY_NAME, NULL, AT(release_name), PLAIN,
     "Name its certificate must have; needs release.ca."},
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

    {"store", "backend", KEY_CHOICE, "memory", AT(store_backend), WORDS("memory|redis|none"),
     "Where the past is remembered; redis: shared by many relays; none: nowhere, for tests."},
    {"store", "memory", KEY_SIZE, "256MB", AT(store_memory), RANGE(1 << 20, 1024 * GB),
     "Bytes the past may use; the oldest is forgotten first."},
    {"store", "servers", KEY_TARGETS, NULL, AT(redis.servers), LIST(redis.nservers),
     "The Redis server; of a cluster some of its servers."},
    {"store", "cluster", KEY_SWITCH, "no", AT(redis.cluster), WORDS("no|yes"),
     "They are a Redis Cluster."},
    {"store", "sentinels", KEY_TARGETS, NULL, AT(redis.sentinels), LIST(redis.nsentinels),
     "Redis Sentinels, which say who the server is; instead of servers."},
    {"store", "master", KEY_TEXT, NULL, AT(redis.master), PLAIN, "What they call it."},
    {"store", "user", KEY_TEXT, NULL, AT(redis.user), PLAIN,
     "User of Redis' access control list; default: Redis' own default user."},
    {"store", "password_file", KEY_PATH, NULL, AT(redis.password_file), PLAIN,
     "File whose first line is the password."},
    {"store", "database", KEY_COUNT, "0", AT(redis.database), RANGE(0, 65535),
     "Number of the database; a cluster has only 0."},
    {"store", "tls", KEY_SWITCH, "no", AT(redis.tls), WORDS("no|yes"),
     "TLS with every server that is reached over the network."},
    {"store", "ca", KEY_PATH, NULL, AT(redis.ca), PLAIN,
     "File of CA certificates theirs are verified with; default: not verified."},
    {"store", "name", KEY_NAME, NULL, AT(redis.name), PLAIN,
     "Name their certificates must have; needs store.ca."},
    {"store", "certificate", KEY_PATH, NULL, AT(redis.certificate), PLAIN,
     "Our certificate and its chain (PEM), where they ask for one."},
    {"store", "key", KEY_PATH, NULL, AT(redis.key), PLAIN, "The certificate's key (PEM)."},
    {"store", "deadline", KEY_DURATION, "50ms", AT(redis.deadline), RANGE(5, 2000),
     "How long mail waits for Redis at most."},
    {"store", "in_flight", KEY_COUNT, "4096", AT(redis.in_flight), RANGE(1, 65536),
     "Calls one mail thread has open with one server, beyond which it does without."},
    {"store", "prefix", KEY_TEXT, "bw", AT(redis.prefix), PLAIN,
     "What the names of all our keys begin with."},

    {"limits", "connections", KEY_COUNT, "2000", AT(smtp_connections), RANGE(0, 1000000),
     "SMTP clients at the same time; 0: no limit."},
    {"limits", "connections_each", KEY_COUNT, "50", AT(smtp_connections_each), RANGE(0, 1000000),
     "Of these from one address (IPv6: one /64); 0: no limit."},
    {"limits", "recipients", KEY_COUNT, "1000", AT(smtp_recipients), RANGE(100, 5000),
     "Recipients of one message."},
    {"limits", "messages", KEY_COUNT, "1000", AT(smtp_messages), RANGE(1, 1000000),
     "Messages of one connection."},
    {"limits", "junk", KEY_COUNT, "20", AT(smtp_junk), RANGE(1, 10000),
     "Lines that are no command, before a connection is closed."},
    {"limits", "message_size", KEY_SIZE, "50MB", AT(smtp_message_size), RANGE(64 << 10, 4 * GB),
     "Size of one message."},
    {"limits", "min_rate", KEY_COUNT, "500", AT(smtp_min_rate), RANGE(0, 1000000),
     "Bytes a second a client has to send of a message, over a minute."},
    {"limits", "idle", KEY_DURATION, "5m", AT(smtp_idle), RANGE(1000, 3600e3),
     "How long a client may take for its next command."},
    {"limits", "session", KEY_DURATION, "1h", AT(smtp_session), RANGE(10e3, DAY),
     "Age of a connection at which no new message is begun."},
    {"limits", "connect", KEY_DURATION, "30s", AT(smtp_connect), RANGE(100, 600e3),
     "How long the MTA behind may take to accept a connection."},
    {"limits", "command", KEY_DURATION, "5m", AT(smtp_command), RANGE(1000, 3600e3),
     "How long it may take for a reply."},
    {"limits", "final", KEY_DURATION, "10m", AT(smtp_final), RANGE(1000, 3600e3),
     "How long it may take for the reply to a whole message."},

    {"guard", "added_latency", KEY_DURATION, "1m", AT(guard.added), RANGE(0, DAY),
     "Time added to mail on average of 10 minutes, from which on the guard steps back; 0s: any."},
    {"guard", "queue", KEY_COUNT, "10000", AT(guard.queue), RANGE(0, 1e9),
     "Copies in the hold queue from which on its growth counts; 0: never."},
    {"guard", "growth", KEY_COUNT, "1000", AT(guard.growth), RANGE(0, 1e9),
     "Copies more in 5 minutes, besides those of confirmed storms, that are too many then."},
    {"guard", "holds", KEY_COUNT, "50", AT(guard.holds), RANGE(0, 1e9),
     "Copies that are no further copies which may be held in 10 minutes; 0: any number."},
    {"guard", "hold_share", KEY_FACTOR, "0.01", AT(guard.hold_share), RANGE(0, 1),
     "The same as a share of all mail, beyond the first 10; 0: any."},
    {"guard", "loops", KEY_COUNT, "200", AT(guard.loops), RANGE(0, 1e9),
     "Messages that run in circles which may be held in 10 minutes, more pass; 0: any number."},
    {"guard", "replyall", KEY_COUNT, "1000", AT(guard.replyall), RANGE(0, 1e9),
     "Replies to all that may be held in 10 minutes, more pass; 0: any number."},
    {"guard", "pingpong", KEY_COUNT, "200", AT(guard.pingpong), RANGE(0, 1e9),
     "Answers of machines to each other that may be held so, more pass; 0: any number."},
    {"guard", "refused_share", KEY_FACTOR, "0.05", AT(guard.refused_share), RANGE(0, 1),
     "Share of mail we may refuse (4xx, 5xx) in 10 minutes; 0: any."},
    {"guard", "downstream_factor", KEY_FACTOR, "2", AT(guard.downstream_factor), RANGE(0, 1000),
     "Times the usual share of refusals by the MTA behind that are too many; 0: any."},
    {"guard", "downstream_share", KEY_FACTOR, "0.05", AT(guard.downstream_share), RANGE(0, 1),
     "Share of its replies that they must be at least."},
    {"guard", "least", KEY_COUNT, "20", AT(guard.least), RANGE(0, 1000000),
     "Refusals in 10 minutes, ours or those of the MTA behind, from which on their share counts."},
    {"guard", "own_reply", KEY_DURATION, "2s", AT(guard.own), RANGE(0, 600e3),
     "Time until our own reply that one message in 100 may take, for a minute; 0s: any."},
    {"guard", "alarm", KEY_PATH, NULL, AT(guard_alarm), PLAIN,
     "Command that is run for each alarm; the text is its standard input."},
    {"guard", "mail_to", KEY_ADDRESS, NULL, AT(guard_mail_to), PLAIN,
     "Address alarms and reports are mailed to, through release.to."},

    {"control", "socket", KEY_PATH, "/run/breakwater/control", AT(control_socket), PLAIN,
     "Unix socket of breakwaterctl."},
    {"control", "mode", KEY_OCTAL, "0660", AT(control_mode), PLAIN,
     "Its permissions: who may write to it may release and discard."},

    {"log", "to", KEY_WORD, "syslog", AT(log_to), WORDS("syslog|stderr"), "Where log lines go."},
    {"log", "level", KEY_CHOICE, "notice", AT(log_level), WORDS("nothing|error|notice|info|debug"),
     "How much is logged; info: every message."},
    {"log", "daily", KEY_DURATION, "7h", AT(log_daily), RANGE(0, DAY),
     "When, after local midnight, the last day is summed up, in the log and where alarms go; 24h: "
     "never."},

    {"policy", "file", KEY_PATH, NULL, AT(policy_file), PLAIN,
     "Rules, see policy.conf(5); default: the built-in ones."},
    {"policy", "confirm", KEY_DURATION, "10m", AT(policy_confirm), RANGE(0, 7 * DAY),
     "Time in which somebody must confirm new rules, else they are reverted; 0s: no need."},
    {"policy", "second_person", KEY_SWITCH, "no", AT(policy_second), WORDS("no|yes"),
     "Somebody else than their author has to confirm them."},
    {"policy", "refusals", KEY_COUNT, "3", AT(policy_refusals), RANGE(0, 100),
     "Refusals (4xx) of one message by rules; then further copies are held, first ones pass. 0: "
     "any "
     "number."},
    {"policy", "defer_max", KEY_DURATION, "30m", AT(policy_defer_max), RANGE(1000, 4 * 3600e3),
     "How long one message may be refused by rules in all."},
};
const size_t config_rows = sizeof config_table / sizeof *config_table;

size_t key_find(const char *section, const char *name)
{
    for (size_t i = 0; i < config_rows; i++)
        if (strcmp(config_table[i].section, section) == 0 &&
            strcmp(config_table[i].name, name) == 0)
            return i;
    return config_rows;
}

/* "hold.path", or "mode" */
const char *key_name(const struct key_row *row, char out[64])
{
    snprintf(out, 64, "%s%s%s", row->section, *row->section ? "." : "", row->name);
    return out;
}

bool key_is_list(const struct key_row *row)
{
    return row->type >= KEY_HOSTS;
}

bool key_of_listener(const struct key_row *row)
{
    return strcmp(row->section, "milter") == 0 || strcmp(row->section, "smtp") == 0;
}

void config_print_keys(FILE *out)
{
    static const char *const types[] = {"name",     "word",   "address",    "path",     "address",
                                        "socket",   "time",   "size",       "count",    "number",
                                        "octal",    "choice", "choice",     "choice",   "hosts",
                                        "networks", "relays", "recipients", "addresses"};
    for (size_t i = 0; i < config_rows; i++) {
        char key[64];
        fprintf(out, "%s\t%s\t%s\t%s\n", key_name(&config_table[i], key),
                config_table[i].words ? config_table[i].words : types[config_table[i].type],
                config_table[i].value ? config_table[i].value : "-", config_table[i].sentence);
    }
}
