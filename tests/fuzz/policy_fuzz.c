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
    }
    arena_free(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span text = span_of(data, size);
    struct policy_error error = {0};
    struct policy *policy = policy_load(text, NULL, &error);
    if (policy)
        judge(policy, text);
    else if (error.line == 0 || error.column == 0 || !*error.text)
        abort();
    policy_free(&policy);
    return 0;
}
