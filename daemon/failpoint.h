/*
 * failpoint.h - places where tests make things go wrong. Compiled in only with
 * -DBREAKWATER_FAILPOINTS (the test build); otherwise nothing, at no cost.
 *
 * BREAKWATER_FAILPOINT="name:action[:n][,name:action...]": at the n-th passing (default 1).
 * action: kill (SIGKILL oneself), fail (the call site takes its error path), delay=MS, off.
 */
#ifndef FAILPOINT_H
#define FAILPOINT_H

#ifdef BREAKWATER_FAILPOINTS
/* Nonzero: behave as if the operation had failed. */
int failpoint(const char *name);
#define FAILPOINT(name) failpoint(name)
#else
#define FAILPOINT(name) 0
#endif

#endif
