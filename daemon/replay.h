/* replay.h - `breakwaterctl replay`: the whole engine offline, on virtual time, over recorded mail.
 */
#ifndef REPLAY_H
#define REPLAY_H

/* argv[0] is "replay". Prints to stdout; returns the exit status: 0, 1 (a file could not be read),
 * 2 usage. */
int replay_main(int argc, char **argv);

#endif
