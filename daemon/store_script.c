/* store_script.c - see store_script.h; lua/NAME.h is made from daemon/lua/NAME.lua by the Makefile.
 */
#include "store_script.h"

struct redis_script script_observe = {.text =
#include <lua/observe.h>
};
struct redis_script script_compact = {.text =
#include <lua/compact.h>
};
struct redis_script script_unmake = {.text =
#include <lua/unmake.h>
};

void store_scripts_ready(void)
{
    redis_script_ready(&script_observe);
    redis_script_ready(&script_compact);
    redis_script_ready(&script_unmake);
}
