/*
 * config_value.h - a configuration being read: what each type of value accepts, and the first
 * mistake. Defaults and the file's values go through the same setters, so that a default is checked
 * like anything else.
 */
#ifndef CONFIG_VALUE_H
#define CONFIG_VALUE_H

#include "config_table.h"

enum { CONFIG_ERROR = 512 };

struct loading {
    struct config *config;
    const char *file;
    enum config_use use;
    char *error;     /* CONFIG_ERROR bytes; empty: nothing wrong so far */
    unsigned *line;  /* of each row: where it was set last; 0: not in the file */
    unsigned *taken; /* of each row, lists: elements taken */
    size_t settings; /* how many keys and sections the file has */
};

/* Notes the first mistake, "file:line: ...", and returns -1. line 0: the file as a whole. */
int loading_refuse(struct loading *, unsigned line, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* A copy in the configuration's arena. */
char *loading_keep(struct loading *, struct span);
/* Room for one more element of `size` in the list at *list, of *n so far. */
void *loading_append(struct loading *, void *list, size_t *n, size_t size);

bool value_host_name(struct span);
/* Sets one key, not a list, in the struct at base. -1: refused. */
int value_set(struct loading *, unsigned line, const struct key_row *, const char *value,
              void *base);
/* One more element of a list in the struct at base; all of its elements away. */
int value_add(struct loading *, unsigned line, const struct key_row *, const char *value,
              void *base);
void value_clear(struct loading *, const struct key_row *, void *base);
/* The row's default, in the struct at base. */
int value_default(struct loading *, const struct key_row *, void *base);

#endif
