/*
 * breakwaterctl.c - the command line: options, and a table of commands (ctl_read.c, ctl_change.c).
 */
#include <getopt.h>
#include <stdlib.h>
#include <unistd.h>

#include "config.h"
#include "ctl.h"
#include "ctl_backtest.h"
#include "replay.h"

/* Options that only some commands take. */
enum uses {
    USES_JSON = 1 << 0,
    USES_ASK = 1 << 1, /* -n, -y */
    USES_STORM = 1 << 2,
    USES_RCPT = 1 << 3,
    USES_SENDER = 1 << 4,
    USES_STATE = 1 << 5,
    USES_LIMIT = 1 << 6,
    USES_AFTER = 1 << 7,
    USES_ALL = 1 << 8,
    USES_ONE_EACH = 1 << 9,
    USES_FROM = 1 << 10,
    USES_PARTS = 1 << 11, /* --headers, --text, --message */
    USES_ONLY = 1 << 12,
    USES_REASON = 1 << 13,
    USES_DRY = USES_ASK | USES_REASON, /* what changes something here */
    USES_SETUP = 1 << 14,              /* --undo, --config-dir */
    USES_RULE = 1 << 15,
    USES_SINCE = 1 << 16,
    USES_FIRST = 1 << 17,
    USES_LEARNED = 1 << 18, /* --keep-learned */
    USES_RELAY = 1 << 19,
    USES_FOR = 1 << 20,
    USES_POLICY = 1 << 21, /* --strict, --confirm-within */
    USES_NODE = 1 << 22,
    USES_EVERYWHERE = 1 << 23,
};

/* ---- the table ---- */

static int run_version(const struct ctl *ctl)
{
    if (ctl->json)
        puts("{\"version\":\"" BREAKWATER_VERSION "\"}");
    else
        puts("breakwaterctl " BREAKWATER_VERSION);
    return CTL_OK;
}

static int run_help(const struct ctl *ctl);

static const struct command {
    const char *name, *args, *sentence;
    int (*run)(const struct ctl *);
    unsigned uses;
    size_t least, most; /* arguments */
} commands[] = {
    {"status", "", "the daemon at a glance: mode, what is held, alarms", ctl_status, USES_JSON, 0,
     0},
    {"storms", "[--limit N] [--node NAME]", "storms, the latest first", ctl_storms,
     USES_JSON | USES_LIMIT | USES_NODE, 0, 0},
    {"show", "ID [--headers] [--text] [--message] [--node NAME]",
     "one storm, or one held copy, and what can be done", ctl_show,
     USES_JSON | USES_PARTS | USES_NODE, 1, 1},
    {"held",
     "[--storm S] [--rcpt A] [--sender A] [--rule R] [--since 2h|DATE] [--state S]\n"
     "         [--limit N] [--after ID] [--node NAME]",
     "the hold queue", ctl_held,
     USES_JSON | USES_NODE | USES_RULE | USES_SINCE | USES_STORM | USES_RCPT | USES_SENDER |
         USES_STATE | USES_LIMIT | USES_AFTER,
     0, 0},
    {"release",
     "ID... | --storm S --one-per-recipient | --storm S --all | --rcpt A |\n"
     "         --rule R [--since 2h|DATE] [--first]   [--node NAME]",
     "send held copies to their recipients", ctl_release,
     USES_JSON | USES_NODE | USES_RULE | USES_SINCE | USES_FIRST | USES_DRY | USES_STORM |
         USES_RCPT | USES_ONE_EACH | USES_ALL,
     0, 4096},
    {"discard", "ID... | --storm S --all | --rcpt A   [--node NAME] --reason TEXT",
     "put held copies in the bin, for 30 days", ctl_discard,
     USES_JSON | USES_NODE | USES_DRY | USES_STORM | USES_RCPT | USES_ALL, 0, 4096},
    {"undo", "ID...", "back to held: what is in the bin, or not yet sent", ctl_undo,
     USES_JSON | USES_DRY, 1, 4096},
    {"undo-rule", "NAME --since 2h|DATE [--first] [--keep-learned] --reason TEXT",
     "take back what a wrong rule did: release what it held, unlearn what was learned",
     ctl_undo_rule, USES_JSON | USES_DRY | USES_SINCE | USES_FIRST | USES_LEARNED, 1, 1},
    {"explain", "ID | --rcpt A | --from A [--since 2h|DATE] [--node NAME]",
     "where is my mail? ID: of a transaction, a copy, or the MTA's queue id", ctl_explain,
     USES_JSON | USES_RCPT | USES_FROM | USES_SINCE | USES_NODE, 0, 1},
    {"balance", "[--limit MINUTES]",
     "is every message that came in accounted for? by door and minute", ctl_balance,
     USES_JSON | USES_LIMIT, 0, 0},
    {"report", "[DAY | --since DAY|7d]",
     "what each rule did, and what it would have done in enforce mode, by day", ctl_report,
     USES_JSON | USES_SINCE, 0, 1},
    {"mode",
     "[monitor|enforce|bypass|same --reason TEXT [--only LISTENER]\n"
     "         [--everywhere | --node NAME]]",
     "the mode in force, or change it; same: a listener has the mode of all others", ctl_mode,
     USES_JSON | USES_DRY | USES_ONLY | USES_NODE | USES_EVERYWHERE, 0, 1},
    {"guard", "", "what makes the guard step back, how near that is, and when it did", ctl_guard,
     USES_JSON, 0, 0},
    {"policy",
     "[check FILE [--strict] | diff [FILE | A [B]] |\n"
     "         apply FILE --reason TEXT [--only node=N|listener=L|domain=D]... "
     "[--confirm-within 10m] |\n"
     "         confirm [VERSION] | rollback [VERSION] --reason TEXT | history | show [VERSION]]",
     "the rules in force and their versions; new ones are reverted unless confirmed", ctl_policy,
     USES_JSON | USES_DRY | USES_ONLY | USES_LIMIT | USES_POLICY, 0, 3},
    {"relays", "[--all] | said-fixed RELAY --reason TEXT | not-fixed RELAY --reason TEXT",
     "relays that misbehave or did; RELAY: host[address], or what of it names one only", ctl_relays,
     USES_JSON | USES_DRY | USES_ALL, 0, 2},
    {"refusals", "[--rcpt A] [--sender A] [--relay R] [--since 2h|DATE] [--limit N] [--after ID]",
     "messages that were refused, and what became of them", ctl_refusals,
     USES_JSON | USES_RCPT | USES_SENDER | USES_RELAY | USES_SINCE | USES_LIMIT | USES_AFTER, 0, 0},
    {"allow", "--relay R | --sender A | --storm S   [--for 7d] --reason TEXT",
     "let all mail of a relay, sender or storm pass for a while", ctl_allow,
     USES_JSON | USES_DRY | USES_RELAY | USES_SENDER | USES_STORM | USES_FOR, 0, 0},
    {"hold", "--relay R | --sender A | --storm S   [--for 7d] --reason TEXT",
     "hold all mail of a relay, sender or storm for a while, first copies too", ctl_hold,
     USES_JSON | USES_DRY | USES_RELAY | USES_SENDER | USES_STORM | USES_FOR, 0, 0},
    {"entries", "[--all] | end ID --reason TEXT", "what people allowed or held for a while",
     ctl_entries, USES_JSON | USES_DRY | USES_ALL, 0, 2},
    {"setup", "postfix [--undo] [--config-dir DIR]",
     "put breakwaterd before an MTA, or take it away again, byte for byte", ctl_setup,
     USES_JSON | USES_ASK | USES_SETUP, 1, 1},
    {"replay",
     "[--json] [--summary-only] [--in-order] [--mode M] [--from T] [--until T]\n"
     "         [--conf F] [--policy F] FILE|DIRECTORY|- ...",
     "run the engine over recorded mail, offline", NULL, 0, 0, 0},
    {"backtest",
     "--policy FILE [--since 7d|DATE] [--until 1h|DATE] [--conf F] [--dir DIR]\n"
     "         [--examples N] [--json]",
     "what new rules would have done to the mail of the last days", NULL, 0, 0, 0},
    {"version", "", "print the version", run_version, USES_JSON, 0, 0},
    {"help", "[COMMAND]", "this", run_help, 0, 0, 1},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static void usage(FILE *to)
{
    fputs("usage: breakwaterctl [-s SOCKET | -f CONF] COMMAND ...\n\n", to);
    for (size_t i = 0; i < COMMANDS; i++)
        fprintf(to, "  %-8s %s\n", commands[i].name, commands[i].sentence);
    fputs("\nbreakwaterctl help COMMAND tells more; breakwaterctl(8) tells all.\n", to);
}

static int run_help(const struct ctl *ctl)
{
    const struct command *c = ctl->nargs ? find_command(ctl->args[0]) : NULL;
    if (ctl->nargs && !c) {
        ctl_complain("there is no command \"%s\"", print_text(ctl->arena, ctl->args[0], 32));
        return CTL_USAGE;
    }
    if (!c) {
        usage(stdout);
        return CTL_OK;
    }
    printf("breakwaterctl %s %s\n  %s.\n", c->name, c->args, c->sentence);
    if (c->uses & USES_REASON)
        puts("  -n says what would change and changes nothing; --reason TEXT is written down.");
    else if (c->uses & USES_ASK)
        puts("  -n says what would change and changes nothing; -y answers yes.");
    if ((c->uses & USES_ALL) && (c->uses & USES_STORM))
        puts("  --all asks before it acts; -y answers yes.");
    if (c->uses & USES_JSON)
        puts("  --json prints JSON, one object a line.");
    return CTL_OK;
}

/* ---- the command line ---- */

enum {
    OPT_REASON = 256,
    OPT_STORM,
    OPT_RCPT,
    OPT_SENDER,
    OPT_STATE,
    OPT_LIMIT,
    OPT_AFTER,
    OPT_ALL,
    OPT_ONE_EACH,
    OPT_FROM,
    OPT_SINCE,
    OPT_HEADERS,
    OPT_TEXT,
    OPT_MESSAGE,
    OPT_ONLY,
    OPT_RELAY,
    OPT_FOR,
    OPT_STRICT,
    OPT_WITHIN,
    OPT_RULE,
    OPT_FIRST,
    OPT_KEEP_LEARNED,
    OPT_UNDO,
    OPT_CONFIG_DIR,
    OPT_NODE,
    OPT_EVERYWHERE,
};
static const struct option options[] = {
    {"socket", required_argument, NULL, 's'},
    {"conf", required_argument, NULL, 'f'},
    {"json", no_argument, NULL, 'j'},
    {"dry-run", no_argument, NULL, 'n'},
    {"yes", no_argument, NULL, 'y'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {"reason", required_argument, NULL, OPT_REASON},
    {"storm", required_argument, NULL, OPT_STORM},
    {"rcpt", required_argument, NULL, OPT_RCPT},
    {"sender", required_argument, NULL, OPT_SENDER},
    {"state", required_argument, NULL, OPT_STATE},
    {"limit", required_argument, NULL, OPT_LIMIT},
    {"after", required_argument, NULL, OPT_AFTER},
    {"all", no_argument, NULL, OPT_ALL},
    {"one-per-recipient", no_argument, NULL, OPT_ONE_EACH},
    {"from", required_argument, NULL, OPT_FROM},
    {"since", required_argument, NULL, OPT_SINCE},
    {"headers", no_argument, NULL, OPT_HEADERS},
    {"text", no_argument, NULL, OPT_TEXT},
    {"message", no_argument, NULL, OPT_MESSAGE},
    {"only", required_argument, NULL, OPT_ONLY},
    {"relay", required_argument, NULL, OPT_RELAY},
    {"for", required_argument, NULL, OPT_FOR},
    {"strict", no_argument, NULL, OPT_STRICT},
    {"confirm-within", required_argument, NULL, OPT_WITHIN},
    {"rule", required_argument, NULL, OPT_RULE},
    {"first", no_argument, NULL, OPT_FIRST},
    {"keep-learned", no_argument, NULL, OPT_KEEP_LEARNED},
    {"undo", no_argument, NULL, OPT_UNDO},
    {"config-dir", required_argument, NULL, OPT_CONFIG_DIR},
    {"node", required_argument, NULL, OPT_NODE},
    {"everywhere", no_argument, NULL, OPT_EVERYWHERE},
    {NULL, 0, NULL, 0},
};

/* Where an option goes, and which commands take it; 0: all. */
struct place {
    int option;
    unsigned uses;
    const char **value;
    bool *yes;
};

static bool put_option(struct ctl *ctl, int o, unsigned *used)
{
    const struct place places[] = {
        {'s', 0, &ctl->socket, NULL},
        {'f', 0, &ctl->conf, NULL},
        {'j', USES_JSON, NULL, &ctl->json},
        {'n', USES_ASK, NULL, &ctl->dry},
        {'y', USES_ASK, NULL, &ctl->yes},
        {OPT_REASON, USES_REASON, &ctl->reason, NULL},
        {OPT_STORM, USES_STORM, &ctl->storm, NULL},
        {OPT_RCPT, USES_RCPT, &ctl->rcpt, NULL},
        {OPT_SENDER, USES_SENDER, &ctl->sender, NULL},
        {OPT_STATE, USES_STATE, &ctl->state, NULL},
        {OPT_LIMIT, USES_LIMIT, &ctl->limit, NULL},
        {OPT_AFTER, USES_AFTER, &ctl->after, NULL},
        {OPT_ALL, USES_ALL, NULL, &ctl->all},
        {OPT_ONE_EACH, USES_ONE_EACH, NULL, &ctl->one_each},
        {OPT_FROM, USES_FROM, &ctl->from, NULL},
        {OPT_SINCE, USES_SINCE, &ctl->since, NULL},
        {OPT_HEADERS, USES_PARTS, NULL, &ctl->headers},
        {OPT_TEXT, USES_PARTS, NULL, &ctl->text},
        {OPT_MESSAGE, USES_PARTS, NULL, &ctl->message},
        {OPT_RELAY, USES_RELAY, &ctl->relay, NULL},
        {OPT_FOR, USES_FOR, &ctl->lasts, NULL},
        {OPT_RULE, USES_RULE, &ctl->rule, NULL},
        {OPT_FIRST, USES_FIRST, NULL, &ctl->first},
        {OPT_KEEP_LEARNED, USES_LEARNED, NULL, &ctl->keep_learned},
        {OPT_STRICT, USES_POLICY, NULL, &ctl->strict},
        {OPT_WITHIN, USES_POLICY, &ctl->within, NULL},
        {OPT_UNDO, USES_SETUP, NULL, &ctl->undo},
        {OPT_CONFIG_DIR, USES_SETUP, &ctl->config_dir, NULL},
        {OPT_NODE, USES_NODE, &ctl->node, NULL},
        {OPT_EVERYWHERE, USES_EVERYWHERE, NULL, &ctl->everywhere},
    };
    if (o == OPT_ONLY && ctl->nonly < CTL_ONLY) {
        ctl->only[ctl->nonly++] = optarg;
        *used |= USES_ONLY;
        return true;
    }
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        if (places[i].option != o)
            continue;
        if (places[i].value)
            *places[i].value = optarg;
        else
            *places[i].yes = true;
        *used |= places[i].uses;
        return true;
    }
    return false;
}

/* The socket: -s, or the one a configuration names, or the usual one. */
static bool find_socket(struct ctl *ctl)
{
    char error[512];
    if (ctl->socket)
        return true;
    if (!ctl->conf) {
        ctl->socket = "/run/breakwater/control";
        return true;
    }
    struct config *c = config_load(ctl->conf, CONFIG_READ, error);
    if (!c) {
        ctl_complain("%s", error);
        return false;
    }
    ctl->socket = arena_str(ctl->arena, span_str(c->control_socket));
    config_drop(&c);
    return true;
}

static int run_command(struct ctl *ctl, const struct command *c, unsigned used)
{
    if (used & ~c->uses) {
        ctl_complain("%s does not take all of these options; see: breakwaterctl help %s", c->name,
                     c->name);
        return CTL_USAGE;
    }
    if (ctl->nargs < c->least || ctl->nargs > c->most) {
        ctl_complain("%s takes %s arguments; see: breakwaterctl help %s", c->name,
                     ctl->nargs < c->least ? "more" : "fewer", c->name);
        return CTL_USAGE;
    }
    if (ctl->limit && (strspn(ctl->limit, "0123456789") != strlen(ctl->limit) ||
                       strtoul(ctl->limit, NULL, 10) == 0)) {
        ctl_complain("--limit wants a number, 1 or more");
        return CTL_USAGE;
    }
    ctl->colour = isatty(STDOUT_FILENO) && !getenv("NO_COLOR");
    return find_socket(ctl) ? c->run(ctl) : CTL_USAGE;
}

/* Reads options up to the next word ("+") or all of them, from optind on. -1: go on; else exit. */
static int read_options(struct ctl *ctl, int argc, char **argv, const char *shorts, unsigned *used)
{
    int o;
    while ((o = getopt_long(argc, argv, shorts, options, NULL)) != -1) {
        if (o == 'V')
            return run_version(ctl);
        if (o == 'h') {
            usage(stdout);
            return CTL_OK;
        }
        if (!put_option(ctl, o, used)) { /* getopt has said what is wrong */
            ctl_complain("see: breakwaterctl help");
            return CTL_USAGE;
        }
    }
    return -1;
}

static int run(struct ctl *ctl, int argc, char **argv)
{
    static char program[] = "breakwaterctl";
    unsigned used = 0;
    int rc = read_options(ctl, argc, argv, "+s:f:jnyhV", &used);
    if (rc >= 0)
        return rc;
    argc -= optind;
    argv += optind;
    const struct command *c = argc ? find_command(argv[0]) : NULL;
    if (!argc) {
        usage(stderr);
        return CTL_USAGE;
    }
    if (!c) {
        ctl_complain("there is no command \"%s\"; see: breakwaterctl help",
                     print_text(ctl->arena, argv[0], 32));
        return CTL_USAGE;
    }
    argv[0] = program; /* getopt's complaints begin with it */
    optind = 0;        /* glibc: begin afresh, from here on with options between the words too */
    if (!c->run)       /* these have options of their own */
        return (strcmp(c->name, "replay") == 0 ? replay_main : backtest_main)(argc, argv, ctl->json,
                                                                              ctl->conf);
    if ((rc = read_options(ctl, argc, argv, "s:f:jnyhV", &used)) >= 0)
        return rc;
    ctl->args = argv + optind;
    ctl->nargs = (size_t)(argc - optind);
    return run_command(ctl, c, used);
}

int main(int argc, char **argv)
{
    struct ctl ctl = {.arena = arena_new()};
    int rc = run(&ctl, argc, argv);
    arena_free(&ctl.arena);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        ctl_complain("the output could not be written");
        return CTL_REFUSED;
    }
    return rc;
}
