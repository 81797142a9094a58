/*
 * count.h - numbers the hold database keeps so that nobody has to count rows: references to a
 * content, copies of a storm by state, mails, bytes.
 *
 * In a storm the same few numbers change with every copy; the changes are added up in memory and
 * written before the commit, before a savepoint, and before anybody reads them.
 */
#ifndef COUNT_H
#define COUNT_H

#include "db.h"

enum count_what {
    COUNT_REFERENCES,               /* of content id */
    COUNT_COPIES,                   /* of storm id, and of all: id 0; + enum copy_state */
    COUNT_MAILS = COUNT_COPIES + 8, /* of storm id, and of all: id 0 */
    COUNT_CONTENTS,                 /* id 0 */
    COUNT_BYTES,                    /* stored bytes of contents; id 0 */
};
enum { COUNT_PENDING = 256 };

struct counts {
    struct db *db;
    struct {
        int what;
        int64_t id, change;
    } pending[COUNT_PENDING];
    unsigned n;
};

/* Storms' are added to the sums of all as well. */
int count_add(struct counts *, int what, int64_t id, int64_t change) MUSTCHECK;
int counts_flush(struct counts *) MUSTCHECK;
void counts_forget(struct counts *); /* what was pending was rolled back */

#endif
