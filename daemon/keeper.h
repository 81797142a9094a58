/*
 * keeper.h - the keeper thread: the only writer of the hold database. Jobs that arrive together are
 * committed together; only after the commit their done functions run, in the thread that sent them.
 */
#ifndef KEEPER_H
#define KEEPER_H

#include "hold.h"
#include "mailbox.h"

struct keeper;

/*
 * One piece of writing. run happens on the keeper thread inside the group's transaction (each job
 * in a savepoint of its own; a job that returns -1 is undone alone). done is posted to `home` after
 * the commit, with result = what run returned, or -1 when the group could not be made durable. home
 * NULL: done is called on the keeper thread. The job is the caller's again when done runs. When
 * some job of a group fails, the others are run once more: run must not mind.
 */
struct job {
    struct letter letter; /* must be first; private */
    int (*run)(struct hold *, struct job *);
    void (*done)(struct job *);
    struct mailbox *home;
    int result;
    struct job *next; /* private */
};

/* Locks dir, which no other process may then use, and starts the thread on it. NULL after a
 * sentence in error. */
struct keeper *keeper_start(const char *dir, char error[512]);
void keeper_submit(struct keeper *, struct job *);
/* Finishes what is queued, joins the thread. From here on only a tick may still submit. */
void keeper_stop(struct keeper **);
/* Called on the keeper thread about four times a second (journal writing and the like); set before
 * traffic. */
void keeper_on_tick(struct keeper *, void (*fn)(void *), void *arg);
/* Makes the next tick come at once: what it writes must not wait. Any thread; never waits. */
void keeper_hurry(struct keeper *);
/* Figures: jobs waiting, commits so far, last commit's microseconds; any thread. */
struct keeper_figures {
    uint64_t waiting, jobs, commits, failures, last_commit_us;
    bool damaged; /* a damaged database was set aside at start */
};
void keeper_figures(struct keeper *, struct keeper_figures *);

#endif
