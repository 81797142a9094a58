/* ctl_setup.c - breakwaterctl setup: breakwaterd is put before an MTA, or taken away. */
#include <string.h>

#include "setup.h"

static const struct {
    const char *name;
    int (*run)(const struct setup *);
    int (*undo)(const struct setup *);
} mtas[] = {
    {"postfix", setup_postfix, setup_postfix_undo},
};

int ctl_setup(const struct ctl *ctl)
{
    char error[512];
    const char *file = ctl->conf ? ctl->conf : "/etc/breakwater/breakwater.conf";
    size_t i = 0;
    while (i < sizeof mtas / sizeof *mtas && strcmp(mtas[i].name, ctl->args[0]) != 0)
        i++;
    if (i == sizeof mtas / sizeof *mtas) {
        ctl_complain("setup knows: postfix; \"%s\" is not known to it",
                     print_text(ctl->arena, ctl->args[0], 32));
        return CTL_USAGE;
    }
    struct config *config = config_load(file, CONFIG_READ, error);
    if (!config) {
        ctl_complain("%s", error);
        return CTL_REFUSED;
    }
    const struct setup setup = {.ctl = ctl, .config = config};
    int rc = ctl->undo ? mtas[i].undo(&setup) : mtas[i].run(&setup);
    config_drop(&config);
    return rc;
}
