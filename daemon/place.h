/*
 * place.h - what a configuration points at: sockets, by their text, and directories that files can
 * be made in.
 */
#ifndef PLACE_H
#define PLACE_H

#include <sys/socket.h>

#include "span.h"

enum { PLACE_ERROR = 320 };

/* Is s "inet:PORT@ADDRESS", "inet6:PORT@ADDRESS" or "unix:/path"? */
bool place_listen(struct span s);
/* Is s "127.0.0.1:25", "[::1]:25" or "unix:/path"? */
bool place_target(struct span s);

/* Any of these as the address of a socket (a unix path may be relative here); false: it is none. */
bool place_address(struct span s, struct sockaddr_storage *, socklen_t *);
/* Opens a listening socket at such an address; mode: permissions of a unix socket, whose file is
 * replaced if nobody answers behind it. -1 after a sentence in error. */
int place_open(const char *socket, int mode, char error[PLACE_ERROR]);

/* Can this process make files in the directory? -1: no, with a sentence in error. */
int place_directory(const char *path, char error[PLACE_ERROR]);
/* The same of the directory in which the file at path is, or would be. */
int place_file(const char *path, char error[PLACE_ERROR]);

#endif
