/*
 * lines.h - a file read line by line, however large it is and however it ends its lines; where each
 * line stands is known. On a pipe a line is there as soon as it was written.
 */
#ifndef LINES_H
#define LINES_H

#include <sys/types.h>

#include "span.h"

struct lines;

/* "-" is standard input. A line longer than most bytes comes in pieces of that size. NULL, and
 * errno, when it cannot be opened. */
struct lines *lines_open(const char *path, size_t most);
void lines_close(struct lines **);

/* The next line with its line end (only the last of a file, or a piece, has none), valid until the
 * next call; false: end of the file, or an error: then lines_error() is not 0. */
bool lines_next(struct lines *, struct span *line);
/* The line last read will be read again. */
void lines_back(struct lines *);
void lines_seek(struct lines *, off_t);
off_t lines_at(const struct lines *); /* where the next line begins */
off_t lines_size(const struct lines *);
int lines_error(const struct lines *); /* an errno */
/* Bytes at another place of the file; 0 at its end and where there is no other place (a pipe). */
size_t lines_peek(const struct lines *, off_t at, void *out, size_t n);

#endif
