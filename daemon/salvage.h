/*
 * salvage.h - what can be read of a damaged hold database is carried into a new one; the damaged
 * one is set aside as hold.db.damaged-TIME. A crash in between is finished at the next start.
 */
#ifndef SALVAGE_H
#define SALVAGE_H

#include "db.h"

/* A write-ahead log without its database: opening that would throw the log away. */
bool salvage_wanted(const char *path);
/* Ends an interrupted salvage. -1 after a sentence in error. */
int salvage_finish(const char *path, char error[512]) MUSTCHECK;
/* -1 after a sentence in error; the damaged file is where it was then. */
int salvage(const char *path, char error[512]) MUSTCHECK;

#endif
