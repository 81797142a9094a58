/*
 * schema.h - the tables of the hold database, their version, and how a connection is set up.
 *
 * application_id and user_version are set before the first table is made, so that a file is ours
 * from its first page. Version 1 is the first; schema.c has the table of steps from each version
 * to the next.
 */
#ifndef SCHEMA_H
#define SCHEMA_H

#include "db.h"

enum { SCHEMA_APPLICATION = 0x42574831 }; /* "BWH1" */

enum schema_state {
    SCHEMA_READY,
    SCHEMA_REFUSED, /* somebody else's, or newer than this program, or not writable */
    SCHEMA_DAMAGED,
};
/* Opens path, sets the connection up; when writing, makes or migrates the tables. Not SCHEMA_READY:
 * after a sentence in error, nothing is open. */
enum schema_state schema_open(struct db *, const char *path, bool write, char error[512]) MUSTCHECK;
/* Is an SQLite result a sign of a damaged file (rather than of a full or failing disk)? */
bool schema_damage(int code);

#endif
