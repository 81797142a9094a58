/*
 * config.h - breakwater.conf: parsed by libconfuse, checked whole, immutable, reference-counted.
 *
 * One table (config_table.c) holds every key: section, name, type, default, one sentence; the
 * parser, the manual check (tests/options.sh) and `breakwaterd -t` use it.
 */
#ifndef CONFIG_H
#define CONFIG_H

#include <stdio.h>

#include "config_table.h"

/*
 * Reads and checks a file, the policy it names included. NULL after writing one sentence
 * "file:line: ..." into error. Where there is no site key (CHECK: it is missing; READ: always) the
 * test key takes its place. Main thread only: libconfuse's scanner is one per process.
 */
struct config *config_load(const char *file, enum config_use, char error[512]);
/* The same from text; `file` names it in errors and is where relative paths start. */
struct config *config_parse(const char *file, struct span text, enum config_use, char error[512]);
/* Defaults only, built-in policy, a fixed test key: for replay and tests. */
struct config *config_builtin(void);
struct config *config_hold(struct config *); /* one more reference */
void config_drop(struct config **);

#endif
