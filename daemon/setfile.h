/*
 * setfile.h - the files that a policy names for its sets: read from the disk and remembered as they
 * were read, so that a version can be stored with them; or given as they were stored.
 */
#ifndef SETFILE_H
#define SETFILE_H

#include "json.h"
#include "policy.h"

enum { SETFILES_BYTES = 4 << 20 }; /* of all files of one policy */

struct setfiles {
    const char *directory; /* relative paths start here; NULL: nothing is read from the disk */
    /* {path: text}, for what cannot be read, or what others than root and we may change; NULL: none
     */
    const json_t *stored;
    json_t *read; /* {path as the policy writes it: text}: what was given, from either */
    size_t bytes;
};

/* A source for policy_load that keeps book in the struct; both must live until it is done. */
struct policy_source setfiles_source(struct setfiles *);
/* A policy's own text from a file, at most as large as all sets; UTF-8. false: a sentence in why.
 */
bool setfile_text(struct arena *, const char *path, struct span *text, char why[200]);
/* Forgets what was read. */
void setfiles_clear(struct setfiles *);

#endif
