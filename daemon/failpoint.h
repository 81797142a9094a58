/*
 * failpoint.h - places where tests make things go wrong. Compiled in only with
 * -DBREAKWATER_FAILPOINTS (the test build); otherwise nothing, at no cost.
 *
 * BREAKWATER_FAILPOINT="name:action[:n][,name:action...]": at the n-th passing (default 1).
 * action: kill (SIGKILL oneself), fail (the call site takes its error path), delay=MS, off,
 * value=MS (at every passing: the call site adds it, such as to a clock).
 */
#ifndef FAILPOINT_H
#define FAILPOINT_H

#ifdef BREAKWATER_FAILPOINTS
/* Nonzero: behave as if the operation had failed. */
int failpoint(const char *name);
#define FAILPOINT(name) failpoint(name)
long failpoint_value(const char *name); /* 0: none */
#define FAILPOINT_MS(name) failpoint_value(name)
#else
#define FAILPOINT(name) 0
#define FAILPOINT_MS(name) 0
#endif

#endif
