/* replay.h - `breakwaterctl replay`: the whole engine offline, on virtual time, over recorded mail.
 */
#ifndef REPLAY_H
#define REPLAY_H

#include <stdbool.h>

/* argv[0] is for complaints; json and conf (NULL: none) are options that stood before it. Prints to
 * stdout; returns the exit status: 0, 1 (a file could not be read), 2 usage. */
int replay_main(int argc, char **argv, bool json, const char *conf);

#endif
