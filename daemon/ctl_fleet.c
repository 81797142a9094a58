/*
 * ctl_fleet.c - what breakwaterctl says of several nodes: who did not answer, what became of each
 * one's part, and who there is. With one node alone it says nothing.
 */
#include "ctl.h"

int ctl_silent(const struct ctl *ctl, const json_t *reply, const char *missing)
{
    const json_t *silent = json_object_get(reply, "silent");
    for (size_t i = 0; i < json_array_size(silent); i++)
        ctl_complain("%s did not answer: %s",
                     print_text(ctl->arena, json_string_value(json_array_get(silent, i)), 64),
                     missing);
    return json_array_size(silent) ? CTL_PARTIAL : CTL_OK;
}

/* "3 copies on mx2", "mx2": the part it was to do. */
static const char *part_of(const struct ctl *ctl, const json_t *n)
{
    const char *node = ctl_text(ctl, n, "node", 64);
    uint64_t asked = json_get_num(n, "asked");
    return asked ? arena_printf(ctl->arena, "%s on %s",
                                print_some(ctl->arena, asked, "copy", "copies"), node)
                 : node;
}

int ctl_nodes(const struct ctl *ctl, const json_t *reply)
{
    const json_t *nodes = json_object_get(reply, "nodes");
    int rc = CTL_OK;
    for (size_t i = 0; i < json_array_size(nodes); i++) {
        const json_t *n = json_array_get(nodes, i);
        const char *state = json_get_str(n, "state"), *part = part_of(ctl, n);
        if (strcmp(state, "done") == 0) {
            if (json_get_num(n, "changed") && !ctl->json)
                printf("  on %s: %s\n", ctl_text(ctl, n, "node", 64), ctl_count(ctl, n, "changed"));
            continue;
        }
        rc = CTL_PARTIAL;
        if (strcmp(state, "later") == 0)
            ctl_complain("%s: it did not answer, it will do it when it is back", part);
        else if (strcmp(state, "silent") == 0)
            ctl_complain("%s did not answer: its part is not known", part);
        else if (strcmp(state, "untold") == 0)
            ctl_complain("%s: it could not be told, for Redis is away; it will not be done", part);
        else
            ctl_complain("%s: %s", part, ctl_text(ctl, n, "detail", 0));
    }
    return rc;
}

bool ctl_answered(const json_t *reply)
{
    const json_t *nodes = json_object_get(reply, "nodes");
    for (size_t i = 0; i < json_array_size(nodes); i++)
        if (strcmp(json_get_str(json_array_get(nodes, i), "state"), "done") == 0)
            return true;
    return json_array_size(nodes) == 0;
}
