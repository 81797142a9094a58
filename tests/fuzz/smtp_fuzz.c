/*
 * smtp_fuzz.c - the lines of SMTP. The first byte says what the rest is: commands, as clients say
 * them, or replies and EHLO keywords, as the MTA behind does.
 *
 * What a command gives out can be written into a command of ours as it is; what a reply gives out
 * ends no line of ours; nothing is longer than it may be.
 */
#include <stdlib.h>

#include "smtp_proto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool good)
{
    if (!good)
        abort();
}

/* No byte that ends or bends a command line. */
static bool is_clean(struct span s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((s.p[i] < ' ' && s.p[i] != '\t') || s.p[i] == 127)
            return false;
    return true;
}

/* Written between < and >, it ends where it should, whether or not a backslash means something
 * outside of quotes. */
static bool is_whole(struct span path, bool outside)
{
    bool quoted = false;
    for (size_t i = 0; i < path.n; i++) {
        uint8_t c = path.p[i];
        if (c == '\\' && (quoted || outside)) {
            if (++i == path.n)
                return false;
        } else if (c == '"') {
            quoted = !quoted;
        } else if (!quoted && (c == '<' || c == '>' || c == ' ' || c == '\t')) {
            return false;
        }
    }
    return !quoted;
}

static void command(struct span line, const struct smtp_offer *offer)
{
    struct smtp_command c;
    smtp_command_read(&c, line, offer);
    must(c.verb < VERBS);
    must(!c.wrong || (c.wrong[0] >= '4' && c.wrong[0] <= '5' && !strpbrk(c.wrong, "\r\n")));
    if (c.wrong || (c.verb != VERB_MAIL && c.verb != VERB_RCPT))
        return;
    must(is_clean(c.path) && is_clean(c.params));
    must(is_whole(c.path, true) && is_whole(c.path, false));
    must(c.path.n <= LIMIT_ADDRESS && (c.path.n || c.verb == VERB_MAIL));
    must(!span_case_starts(c.params, SPAN("SIZE=")) || offer->size);
    must(c.size <= offer->size_max || !offer->size_max);
}

static bool reply(struct smtp_reply *r, struct arena *arena, struct span line)
{
    bool whole = smtp_reply_line(r, arena, line);
    must(r->lines <= SMTP_REPLY_LINES + 1);
    must(!whole || r->code == -1 || (r->code >= 200 && r->code <= 599));
    for (size_t i = 0; i < r->text.n; i++) {
        uint8_t c = r->text.p[i], next = i + 1 < r->text.n ? r->text.p[i + 1] : 0;
        must(c != '\r' || next == '\n');
        must(c != '\n' || (i && r->text.p[i - 1] == '\r'));
        must(c >= ' ' || c == '\r' || c == '\n');
    }
    return whole;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *arena = arena_new();
    struct span rest = span_of(data, size);
    struct smtp_reply r = {0};
    struct smtp_offer offer = {0}, theirs = {0};
    if (size) {
        offer = (struct smtp_offer){.size = data[0] & 1,
                                    .eightbit = data[0] & 2,
                                    .utf8 = data[0] & 4,
                                    .dsn = data[0] & 8,
                                    .auth = data[0] & 16,
                                    .size_max = data[0] & 32 ? 1000000 : 0};
        rest = span_from(rest, 1);
    }
    while (rest.n) {
        size_t n = span_find(rest, '\n');
        struct span line = span_head(rest, n);
        if (line.n && line.p[line.n - 1] == '\r')
            line.n--;
        rest = span_from(rest, n + 1);
        if (!(data[0] & 64)) {
            command(line, &offer);
            continue;
        }
        smtp_offer_keyword(&theirs, arena, line);
        must(is_clean(theirs.mechanisms) && theirs.auth == (theirs.mechanisms.n > 0));
        if (reply(&r, arena, line))
            r = (struct smtp_reply){0};
    }
    arena_free(&arena);
    return 0;
}
