/*
 * config.c - breakwater.conf. libconfuse reads the file into it, key by key of config_table.
 *
 * libconfuse sees only texts and lists of texts: what a value may be is said by config_value, with
 * the line it stands on. The first mistake ends the reading; nothing half-read is ever used.
 */
#include <confuse.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "config.h"
#include "config_value.h"
#include "place.h"
#include "sitekey.h"
#include "tls.h"

enum { FILE_BYTES = 1 << 20, SECTION_KEYS = 64 };

/* libconfuse's callbacks have no argument of ours. */
static _Thread_local struct loading *now_loading;

/* ---- defaults ---- */

static int set_defaults(struct loading *l)
{
    /* site_defaults' exempt: the table has it too */
    value_clear(l, &config_table[key_find("", "exempt")], l->config);
    for (size_t i = 0; i < config_rows; i++)
        if (!key_of_listener(&config_table[i]) && value_default(l, &config_table[i], l->config) < 0)
            return -1;
    return 0;
}

/* ---- reading the file: libconfuse's callbacks ---- */

static const char *section_of(const cfg_t *cfg)
{
    return strcmp(cfg->name, "root") == 0 ? "" : cfg->name;
}

static const char *const open_end = "ends inside a list, a comment or a quoted text";

/* The listener of this section and title; made, with defaults, if it is new. */
static struct listener *listener_of(struct loading *l, const char *section, const char *title)
{
    struct config *c = l->config;
    enum door_kind kind = strcmp(section, "smtp") == 0 ? DOOR_SMTP : DOOR_MILTER;
    for (size_t i = 0; i < c->nlisteners; i++)
        if (c->listeners[i].kind == kind && strcmp(c->listeners[i].name, title) == 0)
            return &c->listeners[i];
    struct listener *made = loading_append(l, &c->listeners, &c->nlisteners, sizeof *made);
    *made = (struct listener){.name = loading_keep(l, span_str(title)), .kind = kind};
    for (size_t i = 0; i < config_rows; i++)
        if (strcmp(config_table[i].section, section) == 0) {
            l->line[i] = l->taken[i] = 0; /* its lists are its own */
            (void)value_default(l, &config_table[i], made);
        }
    return made;
}

/*
 * Called at each element and again at the closing brace; `=` starts anew, `+=` goes on. When there
 * are not more elements than taken, the list began anew or nothing was added: the last is taken
 * (again).
 */
static int take_list(struct loading *l, unsigned line, size_t i, cfg_opt_t *opt, void *base)
{
    if (l->line[i] == 0 || opt->nvalues < l->taken[i])
        value_clear(l, &config_table[i], base), l->taken[i] = 0;
    l->line[i] = line;
    if (l->taken[i] == opt->nvalues)
        return 0;
    for (; l->taken[i] < opt->nvalues; l->taken[i]++)
        if (value_add(l, line, &config_table[i], cfg_opt_getnstr(opt, l->taken[i]), base) < 0)
            return -1;
    return 0;
}

static int take_key(cfg_t *cfg, cfg_opt_t *opt)
{
    struct loading *l = now_loading;
    unsigned line = (unsigned)cfg->line;
    size_t i = key_find(section_of(cfg), opt->name);
    if (i == config_rows)
        return 0; /* the end mark */
    l->settings++;
    bool of_listener = key_of_listener(&config_table[i]);
    void *base = l->config;
    if (of_listener)
        base = listener_of(l, cfg->name, cfg->title);
    if (key_is_list(&config_table[i]))
        return take_list(l, line, i, opt, base);
    char key[64];
    if (of_listener)
        return value_set(l, line, &config_table[i], cfg_opt_getnstr(opt, 0), base);
    if (l->line[i])
        return loading_refuse(l, line, "%s is set twice: first on line %u",
                              key_name(&config_table[i], key), l->line[i]);
    l->line[i] = line;
    return value_set(l, line, &config_table[i], cfg_opt_getnstr(opt, 0), l->config);
}

/* Can a file be made at this path, which `key` names? */
static int check_place(struct loading *l, unsigned line, const char *key, const char *path)
{
    char why[PLACE_ERROR];
    if (l->use == CONFIG_READ || place_file(path, why) == 0)
        return 0;
    return loading_refuse(l, line, "%s: %s", key, why);
}

/* Certificates and keys can be read and belong together. */
static int check_tls(struct loading *l, unsigned line, const struct listener *door)
{
    char why[512];
    struct tls_settings ours = {.cert = door->certificate, .key = door->key};
    struct tls_settings theirs = {.ca = door->downstream_ca, .name = door->downstream_name};
    if (l->use == CONFIG_READ)
        return 0;
    struct tls *server = door->certificate ? tls_server_new(&ours, why) : NULL;
    struct tls *client = door->downstream_ca ? tls_client_new(&theirs, why) : NULL;
    bool good = (server || !door->certificate) && (client || !door->downstream_ca);
    tls_drop(&server);
    tls_drop(&client);
    return good ? 0 : loading_refuse(l, line, "smtp %s: %s", door->name, why);
}

static int check_release(struct loading *l, unsigned line)
{
    const struct config *c = l->config;
    char why[512];
    struct tls_settings theirs = {.ca = c->release_ca, .name = c->release_name};
    if (c->release_name && !c->release_ca)
        return loading_refuse(l, line, "release.name needs release.ca to verify it with");
    if (c->release_ca && c->release_tls == TLS_NEVER)
        return loading_refuse(l, line, "release.ca is set, but release.tls is never");
    if (!c->release_ca || l->use == CONFIG_READ)
        return 0;
    struct tls *client = tls_client_new(&theirs, why);
    bool good = client != NULL;
    tls_drop(&client);
    return good ? 0 : loading_refuse(l, line, "release.ca: %s", why);
}

/* What waits for nobody is confirmed by nobody. */
static int check_policy(struct loading *l, unsigned line)
{
    if (!l->config->policy_second || l->config->policy_confirm)
        return 0;
    return loading_refuse(l, line,
                          "policy.second_person is of use only if policy.confirm is not 0s");
}

/* What is wrong with where Redis is; NULL: nothing. */
static const char *wrong_redis(const struct redis_settings *r)
{
    return !r->nservers && !r->nsentinels ? "needs store.servers: say where Redis is, as in "
                                            "servers = { \"127.0.0.1:6379\" }"
           : r->nservers > REDIS_SERVERS || r->nsentinels > REDIS_SERVERS
               ? "has too many store.servers or store.sentinels: at most 32 of each"
           : r->nsentinels && (r->cluster || r->nservers)
               ? "takes store.sentinels or store.servers or a cluster's, not both"
           : !r->nsentinels != !r->master
               ? "needs both of store.sentinels and store.master, or none"
           : r->nservers > 1 && !r->cluster
               ? "has several store.servers: this needs store.cluster = yes"
           : r->cluster && r->database    ? "has store.database: a cluster has only database 0"
           : r->user && !r->password_file ? "has a store.user, but no store.password_file"
           : !r->tls && (r->ca || r->name || r->certificate || r->key)
               ? "has certificates, but store.tls is no"
           : r->name && !r->ca ? "has a store.name, but no store.ca to verify it with"
           : !r->certificate != !r->key
               ? "has only one of store.certificate and store.key: both are needed"
               : NULL;
}

static int load_password(struct loading *l, unsigned line)
{
    struct redis_settings *r = &l->config->redis;
    char password[REDIS_PASSWORD], why[REDIS_SETTINGS_ERROR];
    if (!r->password_file || l->use == CONFIG_READ)
        return 0;
    if (redis_password_read(r->password_file, password, why) < 0)
        return loading_refuse(l, line, "store.password_file: %s", why);
    r->password = loading_keep(l, span_str(password));
    return 0;
}

static int check_store(struct loading *l, unsigned line)
{
    const struct redis_settings *r = &l->config->redis;
    struct tls_settings ours = {.cert = r->certificate, .key = r->key, .ca = r->ca};
    char why[512] = "";
    if (l->config->store_backend != STORE_REDIS)
        return 0;
    if (wrong_redis(r))
        return loading_refuse(l, line, "store.backend = redis %s", wrong_redis(r));
    if (load_password(l, line) < 0)
        return -1;
    struct tls *client = r->tls && l->use != CONFIG_READ ? tls_client_new(&ours, why) : NULL;
    tls_drop(&client);
    return *why ? loading_refuse(l, line, "store.tls: %s", why) : 0;
}

/* Who is told when the guard steps back must be there now, not only then. */
static int check_guard(struct loading *l, unsigned command, unsigned mail)
{
    const struct config *c = l->config;
    if (c->guard_mail_to && !c->release_to)
        return loading_refuse(l, mail,
                              "guard.mail_to is mailed through release.to, which is not set");
    if (c->guard_alarm && l->use != CONFIG_READ && access(c->guard_alarm, X_OK) < 0)
        return loading_refuse(l, command, "guard.alarm: cannot run %s: %s", c->guard_alarm,
                              strerror(errno));
    return 0;
}

/* What an SMTP door needs besides its socket. */
static int check_smtp(struct loading *l, unsigned line, const struct listener *door)
{
    const char *wrong =
        !door->downstream ? "has no downstream: say where the MTA behind is, as in downstream = "
                            "\"127.0.0.1:10025\""
        : !door->certificate != !door->key ? "has only one of certificate and key: both are needed"
        : door->implicit && !door->key     ? "is implicit, but has no certificate and key"
        : door->downstream_name && !door->downstream_ca
            ? "has a downstream_name, but no downstream_ca to verify it with"
        : door->downstream_ca && door->downstream_tls != TLS_MUST
            ? "has a downstream_ca, but downstream_tls is not must: whoever takes STARTTLS away "
              "needs no certificate"
            : NULL;
    if (wrong)
        return loading_refuse(l, line, "smtp %s %s", door->name, wrong);
    return check_tls(l, line, door);
}

/* A listener's section is complete. */
static int take_listener(cfg_t *cfg, cfg_opt_t *opt)
{
    struct loading *l = now_loading;
    unsigned line = (unsigned)cfg->line;
    bool smtp = strcmp(opt->name, "smtp") == 0;
    const char *title = cfg_title(cfg_opt_getnsec(opt, cfg_opt_size(opt) - 1));
    l->settings++;
    if (!value_host_name(span_str(title)))
        return loading_refuse(l, line, "%s: found the name '%.60s', expected letters and digits",
                              opt->name, title);
    const struct listener *door = listener_of(l, opt->name, title);
    if (!door->socket)
        return loading_refuse(l, line,
                              "%s %s has no socket: say where %s, as in socket = \"inet:%s\"",
                              opt->name, title, smtp ? "clients connect to" : "the MTA connects to",
                              smtp ? "25@0.0.0.0" : "8895@127.0.0.1");
    if (*door->socket == 'u' && check_place(l, line, smtp ? "smtp.socket" : "milter.socket",
                                            door->socket + strlen("unix:")) < 0)
        return -1;
    return smtp ? check_smtp(l, line, door) : 0;
}

static int take_section(cfg_t *cfg, cfg_opt_t *opt)
{
    (void)cfg;
    (void)opt;
    now_loading->settings++;
    return 0;
}

static const char *const sections[] = {"node",   "own",     "trusted", "milter", "smtp",
                                       "detect", "release", "hold",    "store",  "limits",
                                       "guard",  "control", "log",     "policy"};
enum { SECTIONS = sizeof sections / sizeof *sections };
static const char end_mark[] = "end-of-breakwater.conf";

static void unknown_key(struct loading *l, const cfg_t *cfg, const char *found)
{
    const char *section = section_of(cfg);
    unsigned line = (unsigned)cfg->line;
    struct nearest near = {.word = span_str(found)};
    if (strcmp(found, end_mark) == 0) {
        (void)loading_refuse(l, 0, "section '%s' is not closed: a '}' is missing", section);
        return;
    }
    for (size_t i = 0; i < config_rows; i++)
        if (strcmp(config_table[i].section, section) == 0)
            nearest_try(&near, config_table[i].name);
    for (size_t i = 0; !*section && i < SECTIONS; i++)
        nearest_try(&near, sections[i]);
    if (near.name)
        (void)loading_refuse(l, line, "%s%sthere is no key '%.60s': did you mean '%s'?", section,
                             *section ? ": " : "", found, near.name);
    else
        (void)loading_refuse(l, line, "%s%sthere is no key '%.60s': breakwater.conf(5) lists them",
                             section, *section ? ": " : "", found);
}

/* libconfuse's own complaints. */
static void complain(cfg_t *cfg, const char *fmt, va_list ap)
{
    struct loading *l = now_loading;
    char text[256];
    if (strstr(fmt, "no such option")) {
        unknown_key(l, cfg, va_arg(ap, const char *));
        return;
    }
    if (strstr(fmt, "missing title")) {
        (void)loading_refuse(l, (unsigned)cfg->line,
                             "a milter or smtp section wants a name: milter NAME { ... }");
        return;
    }
    if (strstr(fmt, "premature end")) {
        (void)loading_refuse(l, 0, "%s", open_end);
        return;
    }
    vsnprintf(text, sizeof text, fmt, ap);
    (void)loading_refuse(l, (unsigned)cfg->line, "%s", text);
}

static cfg_opt_t key_option(const struct key_row *row)
{
    cfg_opt_t text = CFG_STR(0, 0, CFGF_NODEFAULT);
    cfg_opt_t list = CFG_STR_LIST(0, 0, CFGF_NODEFAULT);
    cfg_opt_t o = key_is_list(row) ? list : text;
    o.name = row->name;
    o.validcb = take_key;
    return o;
}

static void section_options(cfg_opt_t *out, const char *section)
{
    const cfg_opt_t end = CFG_END();
    size_t n = 0;
    for (size_t i = 0; i < config_rows; i++)
        if (strcmp(config_table[i].section, section) == 0)
            out[n++] = key_option(&config_table[i]);
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
    for (size_t i = 0; i < config_rows; i++) {
        if (!key_is_list(&config_table[i]) || key_of_listener(&config_table[i]))
            continue;
        cfg_t *section = *config_table[i].section ? cfg_getsec(cfg, config_table[i].section) : cfg;
        const cfg_opt_t *opt = section ? cfg_getopt(section, config_table[i].name) : NULL;
        if (opt && opt->nvalues == 0 && (opt->flags & (CFGF_MODIFIED | CFGF_RESET)))
            value_clear(l, &config_table[i], l->config);
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
        return loading_refuse(l, 0, "has a NUL byte: this is not a text file");
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
        (void)loading_refuse(l, (unsigned)cfg->line, "cannot be read");
    else if (cfg_size(cfg, end_mark) == 0)
        (void)loading_refuse(l, 0, "%s", open_end);
    else
        clear_empty_lists(l, cfg);
    now_loading = NULL;
    cfg_free(cfg);
    if (!*l->error && l->settings == 0)
        return loading_refuse(
            l, 0, "is empty: it needs at least milter NAME { socket = ... } or smtp NAME { ... }");
    return *l->error ? -1 : 0;
}

/* ---- what the file names: key, policy, directory ---- */

/* Where relative paths in the policy start; NULL: the built-in one names no files. */
static const char *directory_of(const struct config *c)
{
    const char *slash = c->policy_file ? strrchr(c->policy_file, '/') : NULL;
    return slash ? arena_str(c->arena, span_of(c->policy_file, (size_t)(slash - c->policy_file)))
                 : NULL;
}

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
        return loading_refuse(l, line, "node.site_key: %s", why);
    log_say(LOG_LEVEL_NOTICE, "made a new site key: %s", c->site_key_file);
    return 0;
}

/* The policy's text, and the files it names, beside it. */
static int compile_policy(struct loading *l, struct span text)
{
    struct config *c = l->config;
    struct policy_error e;
    struct setfiles sets = {.directory = directory_of(c)};
    struct policy_source source = setfiles_source(&sets);
    c->policy_text = text;
    c->policy = policy_load(text, &source, &e);
    c->policy_sets = sets.read;
    if (c->policy)
        return 0;
    if (!*l->error)
        policy_error_print(&e, c->policy_file ? c->policy_file : "built-in policy", l->error,
                           CONFIG_ERROR);
    return -1;
}

static int load_policy(struct loading *l, unsigned line)
{
    struct config *c = l->config;
    struct span text = span_str(policy_default);
    size_t n;
    if (c->policy_file) {
        const uint8_t *bytes = slurp(c->arena, c->policy_file, &n);
        if (!bytes)
            return loading_refuse(l, line, "policy.file: cannot read %s: %s", c->policy_file,
                                  strerror(errno));
        text = span_of(bytes, n);
    }
    return compile_policy(l, text);
}

static int check_hold_path(struct loading *l, unsigned line)
{
    char why[PLACE_ERROR];
    if (l->use == CONFIG_READ || place_directory(l->config->hold_path, why) == 0)
        return 0;
    return loading_refuse(l, line, "hold.path: %s", why);
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
        if (gethostname(host, sizeof host - 1) < 0 || !value_host_name(span_str(host)))
            strcpy(host, "localhost");
        c->site.node = arena_lower(c->arena, span_str(host));
    }
    c->node_number = number_of_node(c->site.node);
    if (!c->release_helo)
        c->release_helo = loading_keep(l, c->site.node);
}

static struct config *new_config(struct loading *l, const char *file, enum config_use use,
                                 char error[CONFIG_ERROR])
{
    struct arena *arena = arena_new();
    struct config *c = arena_zero(arena, sizeof *c);
    c->arena = arena;
    atomic_init(&c->references, 1);
    site_defaults(&c->site);
    *error = '\0';
    *l = (struct loading){.config = c,
                          .file = file,
                          .use = use,
                          .error = error,
                          .line = arena_zero(arena, config_rows * sizeof *l->line),
                          .taken = arena_zero(arena, config_rows * sizeof *l->taken)};
    return c;
}

static unsigned line_of(const struct loading *l, const char *section, const char *name)
{
    return l->line[key_find(section, name)];
}

/* At the start a stored version may do; main says so if there is none. */
static bool forgive_policy(struct loading *l)
{
    if (l->use != CONFIG_START)
        return false;
    l->config->policy_fault = arena_str(l->config->arena, span_str(l->error));
    l->file = l->config->file;
    *l->error = '\0';
    return true;
}

struct config *config_parse(const char *file, struct span text, enum config_use use,
                            char error[CONFIG_ERROR])
{
    struct loading l;
    struct config *c = new_config(&l, file, use, error);
    c->file = loading_keep(&l, span_str(file));
    if (set_defaults(&l) < 0 || read_text(&l, text) < 0)
        goto fail;
    finish_names(&l);
    if (load_policy(&l, line_of(&l, "policy", "file")) < 0 && !forgive_policy(&l))
        goto fail;
    if (check_release(&l, line_of(&l, "release", c->release_ca ? "ca" : "name")) < 0 ||
        check_guard(&l, line_of(&l, "guard", "alarm"), line_of(&l, "guard", "mail_to")) < 0 ||
        check_policy(&l, line_of(&l, "policy", "second_person")) < 0 ||
        check_hold_path(&l, line_of(&l, "hold", "path")) < 0 ||
        check_store(&l, line_of(&l, "store", "backend")) < 0 ||
        load_key(&l, line_of(&l, "node", "site_key")) < 0 ||
        check_place(&l, line_of(&l, "control", "socket"), "control.socket", c->control_socket) < 0)
        goto fail;
    return c;
fail:
    config_drop(&c);
    return NULL;
}

struct config *config_load(const char *file, enum config_use use, char error[CONFIG_ERROR])
{
    struct arena *arena = arena_new();
    struct config *c = NULL;
    size_t n;
    const uint8_t *bytes = slurp(arena, file, &n);
    if (bytes)
        c = config_parse(file, span_of(bytes, n), use, error);
    else
        snprintf(error, CONFIG_ERROR, "%.300s: cannot be read: %s", file, strerror(errno));
    arena_free(&arena);
    return c;
}

struct config *config_builtin(void)
{
    struct loading l;
    char error[CONFIG_ERROR];
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
    json_decref(c->policy_sets);
    struct arena *arena = c->arena; /* c itself lies in it */
    arena_free(&arena);
}
