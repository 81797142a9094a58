/* config_test.c - every mistake in breakwater.conf is one sentence with its line. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "config.h"

static char dir[] = "/tmp/config_test.XXXXXX";

static char *path(const char *name)
{
    static char out[256];
    snprintf(out, sizeof out, "%s/%s", dir, name);
    return out;
}

static void put_file(const char *name, const char *text, mode_t mode)
{
    FILE *f = fopen(path(name), "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    assert_int_equal(chmod(path(name), mode), 0);
}

#define KEY64 "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"

static int make_directory(void **state)
{
    (void)state;
    log_open("stderr", LOG_LEVEL_ERROR);
    if (!mkdtemp(dir))
        return -1;
    put_file("good.key", KEY64 "\n", 0600);
    put_file("open.key", KEY64 "\n", 0644);
    put_file("short.key", "0011", 0600);
    put_file("odd.key", "zz112233445566778899aabbccddeeff00112233445566778899aabbccddeeff", 0600);
    put_file("good.policy", "rule x { when true do tag }", 0644);
    put_file("sets.policy",
             "set a file \"a.set\"\nset b file \"b.set\"\nrule x { when relay.name in @a do tag }",
             0644);
    put_file("a.set", "# ours\na.example\n.b.example\n", 0644);
    put_file("b.set", "# theirs\n192.0.2.0/24\n192.0.2.0/33\n", 0644);
    put_file("bad.policy", "rule x {\n  when loop.vists > 3\n  do tag }", 0644);
    return 0;
}

static int remove_directory(void **state)
{
    (void)state;
    static const char *const names[] = {"good.key",    "open.key",   "short.key", "odd.key",
                                        "good.policy", "bad.policy", "a.conf",    "new.key",
                                        "sets.policy", "a.set",      "b.set"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlink(path(names[i]));
    return rmdir(dir);
}

/* Everything a configuration needs but one line. */
#define KEYS "node { site_key = good.key }\nhold { path = . }\n"
#define REST                                                                                       \
    "\nnode { site_key = good.key }\nhold { path = . }\ncontrol { socket = c.sock }\n"             \
    "milter in { socket = \"inet:8895@127.0.0.1\" }\n"

#define SMTP "smtp a { socket = \"inet:25@127.0.0.1\" downstream = \"127.0.0.1:26\""

static struct config *parse(const char *text, char error[512])
{
    char file[256];
    snprintf(file, sizeof file, "%s", path("a.conf"));
    return config_parse(file, span_str(text), CONFIG_CHECK, error);
}

static struct config *accept(const char *text)
{
    char error[512] = "";
    struct config *c = parse(text, error);
    if (!c)
        fail_msg("%s", error);
    return c;
}

static void mistakes_are_one_sentence_with_the_line(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        unsigned line; /* 0: of the file as a whole */
        const char *says;
    } t[] = {
        /* keys */
        {"mod = enforce" REST, 1, "did you mean 'mode'"},
        {"\n\nhlod { path = x }", 3, "did you mean 'hold'"},
        {"detect {\n  a_extra = 1\n  a_sane = 1\n}" REST, 3, "did you mean 'a_same'"},
        {"detect { qqqqqqqqqqqq = 1 }" REST, 1, "breakwater.conf(5) lists them"},
        {"mode = monitor\nmode = enforce" REST, 2, "mode is set twice: first on line 1"},
        {"log { level = info }\nlog { level = debug }" REST, 2, "log.level is set twice"},
        /* numbers, times and sizes, on both sides of their borders */
        {"workers = 257" REST, 1, "at least 0 and at most 256"},
        {"workers = -1" REST, 1, "found '-1', expected a whole number"},
        {"workers = 1.5" REST, 1, "a whole number"},
        {"workers = four" REST, 1, "a whole number"},
        {"workers = 4MB" REST, 1, "a whole number"},
        {"detect { ttl_plain = 24 }" REST, 1, "a time with its unit"},
        {"detect { ttl_plain = 24MB }" REST, 1, "a time with its unit"},
        {"detect { ttl_plain = 24 h }" REST, 1, "a time with its unit"},
        {"detect { ttl_plain = 24hours }" REST, 1, "a time with its unit"},
        {"detect { ttl_storm = 801d }" REST, 1, "at least 1m and at most 800d"},
        {"detect { bloom_days = 0 }" REST, 1, "at least 1 and at most 400"},
        {"detect { bloom_days = 40d }" REST, 1, "a whole number"},
        {"detect { bloom_error = 0 }" REST, 1, "at least 1e-06 and at most 0.1"},
        {"detect { relay_probation = 59m }" REST, 1, "at least 1h and at most 400d"},
        {"detect { ttl_plain = 59s }" REST, 1, "at least 1m and at most 180d"},
        {"detect { ttl_storm = 801d }" REST, 1, "at most 800d"},
        {"detect { known_server = 181d }" REST, 1, "at least 0 and at most 180d"},
        {"hold { deadline = 99ms }", 1, "at least 100ms and at most 1m"},
        {"detect { quick_visible = 1.1 }" REST, 1, "at most 1"},
        {"detect { quick_visible = 101% }" REST, 1, "at most 1"},
        {"detect { name_margin = 5% }" REST, 1, "expected a number"},
        {"hold { max_bytes = 10 }" REST, 1, "a size with its unit"},
        {"hold { max_bytes = 10G }" REST, 1, "a size with its unit"},
        {"hold { max_bytes = 1023KB }" REST, 1, "at least 1MB"},
        {"release { rate = 0 }" REST, 1, "at least 0.001"},
        /* words */
        {"mode = on" REST, 1, "one of monitor|enforce|bypass"},
        {"store { backend = redis }" REST, 1, "needs store.servers"},
        {"store { backend = redis\n servers = { \"redis.example:6379\" } }" REST, 2,
         "expected ADDRESS:PORT"},
        {"store { backend = redis\n servers = { \"1.1.1.1:1\", \"1.1.1.1:2\" } }" REST, 1,
         "needs store.cluster = yes"},
        {"store { backend = redis\n sentinels = { \"1.1.1.1:1\" } }" REST, 1,
         "needs both of store.sentinels and store.master"},
        {"store { backend = redis\n sentinels = { \"1.1.1.1:1\" } servers = { \"1.1.1.1:2\" } "
         "}" REST,
         1, "not both"},
        {"store { backend = redis\n servers = { \"unix:/r\" } database = 3 cluster = yes }" REST, 1,
         "only database 0"},
        {"store { backend = redis\n servers = { \"unix:/r\" } user = a }" REST, 1,
         "no store.password_file"},
        {"store { backend = redis\n servers = { \"unix:/r\" } password_file = none }" REST, 1,
         "store.password_file: cannot read"},
        {"store { backend = redis\n servers = { \"unix:/r\" } ca = c }" REST, 1, "store.tls is no"},
        {"store { backend = redis\n servers = { \"unix:/r\" } tls = yes name = c }" REST, 1,
         "no store.ca"},
        {"store { backend = redis\n servers = { \"unix:/r\" } tls = yes key = c }" REST, 1,
         "only one of store.certificate and store.key"},
        {"store { backend = redis\n servers = { \"1.1.1.1:1\" } tls = yes ca = none }" REST, 1,
         "store.tls: the CA certificates cannot be read"},
        {"store { prefix = \"b w\" }" REST, 1, "letters, digits"},
        {"store { deadline = 1ms }" REST, 1, "at least 5ms and at most 2s"},
        {"store { backend = disk }" REST, 1, "one of memory|redis|none"},
        {"release { token = maybe }" REST, 1, "one of no|yes"},
        {"log { to = \"/var/log/x\" }" REST, 1, "one of syslog|stderr"},
        {"control { mode = 888 socket = c }\n" KEYS, 1, "octal"},
        {"control { mode = 1777 socket = c }\n" KEYS, 1, "octal"},
        {"control { mode = 66 socket = c }\n" KEYS, 1, "octal"},
        /* names and addresses */
        {"node { name = \"a b\" }", 1, "a host name"},
        {"node { name = \"\" }", 1, "a host name"},
        {"own { nets = { 192.0.2.0/24,\n 192.0.2.0/33 } }" REST, 2, "an address or network"},
        {"own { nets = { example.org } }" REST, 1, "an address or network"},
        {"own { hosts = { \"a..b\" } }" REST, 1, "a host name or domain"},
        {"trusted { relays = { 192.0.2.256 } }" REST, 1, "a host name, a domain or a network"},
        {"trusted { relays = { \"*.example.org\" } }" REST, 1, "a host name, a domain"},
        {"exempt = { postmaster }" REST, 1, "an address; '*'"},
        {"exempt = { \"@x\" }" REST, 1, "an address; '*'"},
        {"exempt = { \"a@\" }" REST, 1, "an address; '*'"},
        {"exempt = { \"*@*.example\" }" REST, 1, "an address; '*'"},
        {"release { to = \"mail.example.org:25\" }" REST, 1, "ADDRESS:PORT"},
        {"release { to = 127.0.0.1 }" REST, 1, "ADDRESS:PORT"},
        {"release { to = \"127.0.0.1:0\" }" REST, 1, "ADDRESS:PORT"},
        {"release { to = \"127.0.0.1:65536\" }" REST, 1, "ADDRESS:PORT"},
        {"release { to = \"unix:relative\" }" REST, 1, "ADDRESS:PORT"},
        {"hold { path = \"\" }", 1, "a path"},
        /* listeners */
        {"milter a { socket = \"inet:0@127.0.0.1\" }", 1, "inet:PORT@ADDRESS"},
        {"milter a { socket = \"inet:25@::1\" }", 1, "inet:PORT@ADDRESS"},
        {"milter a { socket = \"inet6:25@127.0.0.1\" }", 1, "inet:PORT@ADDRESS"},
        {"milter a { socket = \"inet:25\" }", 1, "inet:PORT@ADDRESS"},
        {"milter a { socket = \"/run/x\" }", 1, "inet:PORT@ADDRESS"},
        {"milter a { socket = \"unix:x\" }", 1, "inet:PORT@ADDRESS"},
        {"milter a {\n}", 2, "milter a has no socket"},
        {"milter a { mode = 0600 }", 1, "milter a has no socket"},
        {"milter a { sokcet = x }", 1, "did you mean 'socket'"},
        {"milter { socket = \"unix:/x\" }", 1, "wants a name"},
        {"milter in { socket = \"unix:/tmp/x\" }" REST, 5, "duplicate"},
        {"smtp a { downstream = \"127.0.0.1:26\" }" REST, 1, "smtp a has no socket"},
        {"smtp a {\nsocket = \"inet:25@127.0.0.1\" }" REST, 2, "smtp a has no downstream"},
        {SMTP " certificate = a.pem }" REST, 1, "only one of certificate and key"},
        {SMTP " implicit = yes }" REST, 1, "is implicit, but has no certificate"},
        {SMTP " certificate = a.pem\nkey = b.pem }" REST, 2, "certificate cannot be used"},
        {SMTP " downstream_name = mx }" REST, 1, "no downstream_ca"},
        {SMTP " downstream_ca = ca.pem }" REST, 1, "downstream_tls is not must"},
        {SMTP " downstream_tls = may\ndownstream_ca = ca.pem }" REST, 2,
         "downstream_tls is not must"},
        {SMTP " downstream_tls = must\ndownstream_ca = ca.pem }" REST, 2, "CA certificates"},
        {SMTP " downstream_proxy = 3 }" REST, 1, "at most 2"},
        {SMTP " upstreams = { host } }" REST, 1, "expected an address or network"},
        {SMTP " bare = keep }" REST, 1, "one of normalise|refuse"},
        {"release { name = mx }" REST, 1, "release.name needs release.ca"},
        {"release { ca = ca.pem }" REST, 1, "release.tls is never"},
        {"release { tls = must\nca = ca.pem }" REST, 2, "CA certificates cannot be read"},
        {"limits { idle = 300 }" REST, 1, "limits.idle"},
        {"limits { recipients = 10 }" REST, 1, "at least 100"},
        {"guard { holds = -1 }" REST, 1, "guard.holds"},
        {"guard { own_reply = 0 }" REST, 1, "a time with its unit"},
        {"guard { hold_share = 101% }" REST, 1, "at most 1"},
        {"guard { mail_to = postmaster }" REST, 1, "an address"},
        {"guard { mail_to = \"*@a.example\" }" REST, 1, "an address"},
        {"guard {\nmail_to = a@a.example\n}" REST, 2, "release.to, which is not set"},
        {"policy {\nsecond_person = yes\nconfirm = 0s\n}" REST, 2, "policy.confirm is not 0s"},
        {"guard {\nalarm = missing\n}" REST, 2, "guard.alarm: cannot run"},
        /* shape */
        {"", 0, "is empty"},
        {"# nothing\n\n", 0, "is empty"},
        {"hold { path = .", 0, "'hold' is not closed"},
        {"log { to = \"syslog", 0, "a quoted text"},
        {"own { hosts = { a.example\n", 0, NULL},
        {"log { to = \"syslog\n" REST, 0, NULL},
        {"/* mode = monitor" REST, 0, NULL},
        {"mode monitor" REST, 1, "missing equal sign"},
        {"mode = monitor }" REST, 1, "closing brace"},
        {"mode = { monitor }" REST, 1, "unexpected token"},
        {"mode += monitor" REST, 1, "append"},
        /* what the file names */
        {"policy { file = missing }" REST, 1, "cannot read"},
        {"node { site_key = open.key }\nhold { path = . }", 1, "chmod 600"},
        {"node { site_key = short.key }\nhold { path = . }", 1, "4 bytes, expected 64 hex"},
        {"node { site_key = odd.key }\nhold { path = . }", 1, "expected 64 hex"},
        {"node { site_key = \".\" }\nhold { path = . }", 1, "directory"},
        {"mode = monitor\nhold { path = missing }", 2, "hold.path"},
        {"mode = monitor\nhold { path = good.key }", 2, "is not a directory"},
        {"node { site_key = missing/key }\nhold { path = . }\ncontrol { socket = c }", 1,
         "site_key"},
        {KEYS "control { socket = missing/c }", 3, "control.socket"},
        {KEYS "control { socket = good.key/c }", 3, "is not a directory"},
        {"milter a { socket = \"unix:/nonexistent/x\" }" REST, 1,
         "milter.socket: /nonexistent: No"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char error[512] = "", place[300];
        if (parse(t[i].text, error))
            fail_msg("taken: %s", t[i].text);
        snprintf(place, sizeof place, t[i].line ? "%s:%u: " : "%s: ", path("a.conf"), t[i].line);
        bool there = t[i].says ? strncmp(error, place, strlen(place)) == 0 &&
                                     strstr(error, t[i].says) != NULL
                               : strncmp(error, path("a.conf"), strlen(path("a.conf"))) == 0;
        if (!there || strchr(error, '\n'))
            fail_msg("case %zu '%s': %s", i, t[i].text, error);
    }
}

static void a_mistake_in_the_policy_names_the_policy(void **state)
{
    (void)state;
    char error[512], place[300];
    assert_null(parse("policy { file = bad.policy }" REST, error));
    snprintf(place, sizeof place, "%s:2:8: ", path("bad.policy"));
    if (strncmp(error, place, strlen(place)) != 0)
        fail_msg("%s", error);
    /* what a policy names lies beside it */
    assert_null(parse("policy { file = sets.policy }" REST, error));
    snprintf(place, sizeof place, "%s:3: '192.0.2.0/33' is no network", path("b.set"));
    assert_string_equal(error, place);
    put_file("b.set", "# theirs\n192.0.2.0/24\n", 0644);
    struct config *c = parse("policy { file = sets.policy }" REST, error);
    if (!c)
        fail_msg("%s", error);
    config_drop(&c);
}

static void values_arrive(void **state)
{
    (void)state;
    struct config *c =
        accept("mode = enforce workers = 4\n"
               "node { name = \"MX1.Example.NET\" site_key = good.key }\n"
               "own { hosts = { A.example, b.example } hosts += { c.example }\n"
               "  nets = { 192.0.2.0/24, 2001:db8::/32, 198.51.100.1 }\n"
               "  domains = example.net }\n"
               "trusted { relays = { Backup.example.org, 203.0.113.0/24 } }\n"
               "milter in { socket = \"inet6:8895@::1\" }\n"
               "milter out { socket = \"unix:/tmp/x\" mode = 600 }\n"
               "detect { a_extra = 0 quick_visible = 95% ttl_plain = 36h }\n"
               "detect { bloom_days = 90 bloom_error = 0.0001 relay_probation = 7d }\n"
               "exempt = { \"Postmaster@*\" }\n"
               "release { to = \"[::1]:10025\" rate = 2.5 token = no }\n"
               "hold { path = . max_bytes = 2GB deadline = 1500ms }\n"
               "store { backend = none }\n"
               "control { socket = c.sock mode = 0600 }\n"
               "log { to = stderr level = debug }\n"
               "policy { file = good.policy }\n");
    assert_int_equal(c->mode, MODE_ENFORCE);
    assert_int_equal(c->workers, 4);
    assert_true(span_eq(c->site.node, SPAN("mx1.example.net")));
    assert_string_equal(c->release_helo, "mx1.example.net");
    assert_true(c->node_number < 1024);
    assert_int_equal(c->site.nown_hosts, 3);
    assert_true(span_eq(c->site.own_hosts[0], SPAN("a.example")));
    assert_true(span_eq(c->site.own_hosts[2], SPAN("c.example")));
    assert_int_equal(c->site.nown_nets, 3);
    assert_int_equal(c->site.own_nets[0].bits, 120);
    assert_int_equal(c->site.own_nets[2].bits, 128);
    assert_int_equal(c->site.nown_domains, 1);
    assert_int_equal(c->site.ntrusted, 1);
    assert_int_equal(c->site.ntrusted_nets, 1);
    assert_int_equal(c->nlisteners, 2);
    assert_string_equal(c->listeners[0].name, "in");
    assert_string_equal(c->listeners[0].socket, "inet6:8895@::1");
    assert_int_equal(c->listeners[0].socket_mode, 0660);
    assert_int_equal(c->listeners[1].socket_mode, 0600);
    assert_int_equal(c->site.a_extra, 0);
    assert_int_equal(c->site.a_same, 3);
    assert_true(c->site.quick_visible > 0.9499 && c->site.quick_visible < 0.9501);
    assert_int_equal(c->site.ttl_plain, 36 * 3600 * 1000);
    assert_int_equal(c->site.bloom_days, 90);
    assert_true(c->site.bloom_error > 0.99e-4 && c->site.bloom_error < 1.01e-4);
    assert_int_equal(c->site.relay_probation, 7 * 86400 * 1000);
    assert_int_equal(c->site.nexempt, 1);
    assert_true(span_eq(c->site.exempt[0], SPAN("postmaster@*")));
    assert_string_equal(c->release_to, "[::1]:10025");
    assert_true(c->release_rate > 2.49 && c->release_rate < 2.51);
    assert_false(c->release_token);
    assert_int_equal(c->store_backend, STORE_NONE);
    assert_int_equal(c->hold_max_bytes, UINT64_C(2) << 30);
    assert_int_equal(c->hold_deadline, 1500);
    assert_string_equal(c->control_socket, path("c.sock"));
    assert_int_equal(c->control_mode, 0600);
    assert_string_equal(c->log_to, "stderr");
    assert_int_equal(c->log_level, LOG_LEVEL_DEBUG);
    assert_string_equal(c->policy_file, path("good.policy"));
    assert_string_equal(policy_rule_name(c->policy, 0), "x");
    assert_int_equal(c->site_key[0], 0);
    assert_int_equal(c->site_key[31], 0xff);
    config_drop(&c);
    assert_null(c);
}

static void defaults_are_those_of_the_detectors(void **state)
{
    (void)state;
    struct site s;
    site_defaults(&s);
    struct config *parsed = accept(REST), *builtin = config_builtin();
    const struct config *const both[] = {parsed, builtin};
    for (size_t i = 0; i < 2; i++) {
        const struct site *d = &both[i]->site;
        assert_int_equal(d->a_extra, s.a_extra);
        assert_int_equal(d->a_same, s.a_same);
        assert_int_equal(d->a_resend, s.a_resend);
        assert_int_equal(d->a_list, s.a_list);
        assert_int_equal(d->a_internal, s.a_internal);
        assert_int_equal(d->quick_rcpts, s.quick_rcpts);
        assert_int_equal(d->quick_domains, s.quick_domains);
        assert_true(d->quick_visible >= s.quick_visible && d->quick_visible <= s.quick_visible);
        assert_int_equal(d->storm_dups, s.storm_dups);
        assert_int_equal(d->ttl_plain, s.ttl_plain);
        assert_int_equal(d->ttl_dup, s.ttl_dup);
        assert_int_equal(d->ttl_storm, s.ttl_storm);
        assert_int_equal(d->known_server, s.known_server);
        assert_int_equal(d->name_min_detours, s.name_min_detours);
        assert_true(d->name_min_score >= s.name_min_score && d->name_min_score <= s.name_min_score);
        assert_true(d->name_margin >= s.name_margin && d->name_margin <= s.name_margin);
        assert_int_equal(d->bloom_days, s.bloom_days);
        assert_true(d->bloom_error >= s.bloom_error && d->bloom_error <= s.bloom_error);
        assert_int_equal(d->relay_probation, s.relay_probation);
        assert_int_equal(d->replyall_audience, s.replyall_audience);
        assert_int_equal(d->replyall_lasts, s.replyall_lasts);
        assert_int_equal(d->pingpong_marked, s.pingpong_marked);
        assert_int_equal(d->pingpong_same, s.pingpong_same);
        assert_int_equal(d->pingpong_plain, s.pingpong_plain);
        assert_int_equal(d->nexempt, s.nexempt);
        for (size_t j = 0; j < s.nexempt; j++)
            assert_true(span_eq(d->exempt[j], s.exempt[j]));
        assert_int_equal(both[i]->mode, MODE_MONITOR);
        assert_int_equal(both[i]->hold_deadline, 10000);
        assert_int_equal(both[i]->refuse_max, 3);
        assert_int_equal(both[i]->message_memory, 1 << 20);
        assert_int_equal(both[i]->total_memory, 256 << 20);
        assert_int_equal(both[i]->journal_keep, INT64_C(30) * 86400 * 1000);
        assert_true(both[i]->release_token);
        assert_null(both[i]->release_to);
        assert_int_equal(policy_rules(both[i]->policy), 11);
    }
    assert_int_equal(builtin->nlisteners, 0);
    assert_null(builtin->file);
    config_drop(&parsed);
    config_drop(&builtin);
}

static void a_list_can_be_emptied_and_set_again(void **state)
{
    (void)state;
    struct config *c = accept("exempt = {}\nown { hosts = { a, b } hosts = { c } }" REST);
    assert_int_equal(c->site.nexempt, 0);
    assert_int_equal(c->site.nown_hosts, 1);
    assert_true(span_eq(c->site.own_hosts[0], SPAN("c")));
    config_drop(&c);
}

static void a_missing_site_key_is_made_once(void **state)
{
    (void)state;
    char error[512] = "", file[256];
    struct stat st;
    put_file("a.conf", "node { site_key = new.key }\nhold { path = . }\ncontrol { socket = c }\n",
             0644);
    snprintf(file, sizeof file, "%s", path("a.conf"));
    struct config *c = config_load(file, CONFIG_CHECK, error);
    assert_non_null(c);
    assert_int_equal(stat(path("new.key"), &st), -1); /* -t changes nothing */
    config_drop(&c);
    c = config_load(file, CONFIG_RUN, error);
    if (!c)
        fail_msg("%s", error);
    assert_int_equal(stat(path("new.key"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_string_equal(c->file, file);
    struct config *again = config_load(file, CONFIG_RUN, error);
    assert_non_null(again);
    assert_memory_equal(again->site_key, c->site_key, sizeof c->site_key);
    struct config *builtin = config_builtin();
    assert_memory_not_equal(builtin->site_key, c->site_key, sizeof c->site_key);
    config_drop(&builtin);
    config_drop(&again);
    config_drop(&c);
}

static void a_configuration_can_be_read_without_its_machine(void **state)
{
    (void)state;
    char error[512] = "";
    struct span text = SPAN("node { site_key = open.key }\nhold { path = /nonexistent }\n");
    struct config *c = config_parse(path("a.conf"), text, CONFIG_READ, error);
    if (!c)
        fail_msg("%s", error);
    config_drop(&c);
    assert_null(config_parse(path("a.conf"), text, CONFIG_CHECK, error));
    text = SPAN("policy { file = bad.policy }");
    assert_null(config_parse(path("a.conf"), text, CONFIG_READ, error));
}

static void files_that_are_none(void **state)
{
    (void)state;
    char error[512];
    assert_null(config_load("/nonexistent/breakwater.conf", CONFIG_CHECK, error));
    assert_string_equal(error,
                        "/nonexistent/breakwater.conf: cannot be read: No such file or directory");
    assert_null(config_load(dir, CONFIG_CHECK, error));
    assert_non_null(strstr(error, "directory"));
    assert_null(config_parse("x", SPAN("mode = monitor\0"), CONFIG_CHECK, error));
    assert_string_equal(error, "x: has a NUL byte: this is not a text file");
}

static void *hold_and_drop(void *arg)
{
    for (int i = 0; i < 20000; i++) {
        struct config *mine = config_hold(arg);
        config_drop(&mine);
    }
    return NULL;
}

static void references_are_counted_across_threads(void **state)
{
    (void)state;
    struct config *c = config_builtin();
    pthread_t thread[4];
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, hold_and_drop, c), 0);
    for (size_t i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    assert_int_equal(c->references, 1);
    config_drop(&c);
    config_drop(&c); /* nothing left to drop is fine */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_arrive),
        cmocka_unit_test(defaults_are_those_of_the_detectors),
        cmocka_unit_test(a_list_can_be_emptied_and_set_again),
        cmocka_unit_test(mistakes_are_one_sentence_with_the_line),
        cmocka_unit_test(a_mistake_in_the_policy_names_the_policy),
        cmocka_unit_test(a_missing_site_key_is_made_once),
        cmocka_unit_test(a_configuration_can_be_read_without_its_machine),
        cmocka_unit_test(files_that_are_none),
        cmocka_unit_test(references_are_counted_across_threads),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
