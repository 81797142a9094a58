/*
 * place.h - what a configuration may point at: sockets, by their text, and directories that files
 * can be made in.
 */
#ifndef PLACE_H
#define PLACE_H

#include "span.h"

enum { PLACE_ERROR = 320 };

/* Is s "inet:PORT@ADDRESS", "inet6:PORT@ADDRESS" or "unix:/path"? */
bool place_listen(struct span s);
/* Is s "127.0.0.1:25", "[::1]:25" or "unix:/path"? */
bool place_target(struct span s);

/* Can this process make files in the directory? -1: no, with a sentence in error. */
int place_directory(const char *path, char error[PLACE_ERROR]);
/* The same of the directory in which the file at path is, or would be. */
int place_file(const char *path, char error[PLACE_ERROR]);

#endif
