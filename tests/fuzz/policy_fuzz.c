/* policy_fuzz.c - any bytes as a policy: refused with a place in them, or rules that judge. */
#include <stdlib.h>

#include "policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What a loaded policy says of a message with two recipients. */
static void judge(const struct policy *policy, struct span text)
{
    struct arena *arena = arena_new();
    struct site site;
    site_defaults(&site);
    struct recipient rcpt[2] = {{.address = SPAN("a@b.example")}, {.address = text}};
    struct copy_signal copy[2] = {{.rule = 1}, {.rule = 6, .copies = 3, .advice = ADVICE_HOLD}};
    struct envelope envelope = {.recipients = rcpt, .nrecipients = 2, .reversepath = text};
    struct subject subject = {.arena = arena,
                              .site = &site,
                              .envelope = &envelope,
                              .message = message_new(arena),
                              .fp = {.subject = text}};
    struct signals signals = {.replication = {.copy = copy, .blamed = text}};
    struct verdict v;
    policy_judge(&(struct ruling){.mode = MODE_ENFORCE, .policy = policy}, &subject, &signals, &v);
    for (size_t i = 0; i < v.n; i++) {
        if (v.copy[i].rule > policy_rules(policy) || !v.copy[i].rule != !v.copy[i].reason)
            abort();
        for (const char *c = v.copy[i].reason; c && *c; c++)
            if (*c < 0x20 || *c > 0x7e)
                abort();
        const char *reply = v.copy[i].reply;
        for (const char *c = reply; c && *c; c++)
            if (*c < 0x20 || *c > 0x7e)
                abort();
        bool refuses = v.copy[i].advised == DISP_THROTTLE || v.copy[i].advised == DISP_REJECT;
        if ((refuses && !reply) || (reply && strlen(reply) > 490))
            abort();
        if (refuses && *reply != (v.copy[i].advised == DISP_REJECT ? '5' : '4'))
            abort();
    }
    arena_free(&arena);
}

/* A set's file is what follows the first NUL of the input. */
static bool read_file(void *arg, struct arena *arena, struct span path, struct span *text,
                      char why[200])
{
    const struct span *all = arg;
    *text = arena_span(arena, span_from(*all, span_find(*all, 0)));
    memcpy(why, "no such file", 13);
    return path.n && path.p[0] != '/';
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span all = span_of(data, size), text = span_head(all, span_find(all, 0));
    struct policy_source source = {.read = read_file, .arg = &all};
    struct policy_error error = {0};
    char said[600];
    struct policy *policy = policy_load(text, &source, &error);
    if (policy)
        judge(policy, text);
    else if (error.line == 0 || (error.column == 0) != (*error.file != 0) || !*error.text)
        abort();
    else
        policy_error_print(&error, "f", said, sizeof said);
    policy_free(&policy);
    return 0;
}
