/*
 * store_script.h - the scripts that run inside Redis: daemon/lua, put into the program when it is
 * built. None of them decides anything about mail.
 */
#ifndef STORE_SCRIPT_H
#define STORE_SCRIPT_H

#include "redis.h"

/* Each file says in its head what it takes and answers. */
extern struct redis_script script_observe, script_compact, script_unmake;
/* Before they are run, once; main thread. */
void store_scripts_ready(void);

#endif
