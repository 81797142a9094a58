/*
 * failpoint.c - the table of armed failpoints, read from the environment once. A specification
 * that cannot be read ends the process: a test must not believe it tested something.
 */
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "failpoint.h"
#include "log.h"

#ifdef BREAKWATER_FAILPOINTS

enum { POINTS_MAX = 32, NAME_MAX_BYTES = 48 };

enum failure { FAILURE_OFF, FAILURE_KILL, FAILURE_FAIL, FAILURE_DELAY, FAILURE_VALUE };

struct point {
    char name[NAME_MAX_BYTES];
    enum failure failure;
    unsigned long delay; /* ms */
    long value;          /* ms; may be negative */
    unsigned long nth;   /* acts at this passing, 1-based */
    bool onwards;        /* and at every later one */
    _Atomic unsigned long passed;
};

static struct point points[POINTS_MAX];
static size_t npoints;

/* A whole decimal number; false: something else. */
static bool number(const char *text, unsigned long *out)
{
    char *end;
    if (*text < '0' || *text > '9')
        return false;
    *out = strtoul(text, &end, 10);
    return *end == '\0';
}

static bool parse_failure(struct point *p, const char *text)
{
    static const struct {
        const char *name;
        enum failure failure;
    } plain[] = {{"off", FAILURE_OFF}, {"kill", FAILURE_KILL}, {"fail", FAILURE_FAIL}};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (strcmp(text, plain[i].name) == 0) {
            p->failure = plain[i].failure;
            return true;
        }
    if (strncmp(text, "value=", 6) == 0) {
        bool negative = text[6] == '-';
        p->failure = FAILURE_VALUE;
        if (!number(text + 6 + negative, &p->delay) || p->delay > LONG_MAX)
            return false;
        p->value = negative ? -(long)p->delay : (long)p->delay;
        return true;
    }
    p->failure = FAILURE_DELAY;
    return strncmp(text, "delay=", 6) == 0 && number(text + 6, &p->delay);
}

/* "3": the third passing; "3+": the third and all after it. */
static bool parse_nth(struct point *p, char *text)
{
    size_t n = strlen(text);
    p->onwards = n > 0 && text[n - 1] == '+';
    if (p->onwards)
        text[n - 1] = '\0';
    return number(text, &p->nth) && p->nth > 0;
}

/* One "name:action[:n]"; text is cut up. */
static bool parse_point(struct point *p, char *text)
{
    char *rest = text;
    const char *name = strsep(&rest, ":");
    const char *failure = strsep(&rest, ":");
    if (!*name || strlen(name) >= sizeof p->name || !failure)
        return false;
    memcpy(p->name, name, strlen(name) + 1);
    p->nth = 1;
    return parse_failure(p, failure) && (!rest || parse_nth(p, rest));
}

/* Arms what a specification says; false: it cannot be read. */
static bool arm(const char *specification)
{
    char text[1024];
    size_t n = strlen(specification);
    if (n >= sizeof text)
        return false;
    memcpy(text, specification, n + 1);
    char *rest = text, *one;
    while ((one = strsep(&rest, ",")) != NULL) {
        if (npoints == POINTS_MAX || !parse_point(&points[npoints], one))
            return false;
        npoints++;
    }
    return true;
}

static void arm_from_environment(void)
{
    const char *specification = getenv("BREAKWATER_FAILPOINT");
    if (specification && *specification && !arm(specification))
        log_die("BREAKWATER_FAILPOINT: cannot read '%s': expected name:kill|fail|delay=MS|off[:n]",
                specification);
}

static int act(const struct point *p)
{
    struct timespec wait = {(time_t)(p->delay / 1000), (long)(p->delay % 1000) * 1000000};
    switch (p->failure) {
    case FAILURE_OFF:
        return 0;
    case FAILURE_KILL:
        kill(getpid(), SIGKILL);
        return 0;
    case FAILURE_FAIL:
        return 1;
    case FAILURE_DELAY:
        nanosleep(&wait, NULL);
        return 0;
    case FAILURE_VALUE:
        return 0;
    }
    return 0;
}

static pthread_once_t once = PTHREAD_ONCE_INIT;

long failpoint_value(const char *name)
{
    pthread_once(&once, arm_from_environment);
    for (size_t i = 0; i < npoints; i++)
        if (points[i].failure == FAILURE_VALUE && strcmp(points[i].name, name) == 0)
            return points[i].value;
    return 0;
}

int failpoint(const char *name)
{
    pthread_once(&once, arm_from_environment);
    int failed = 0;
    for (size_t i = 0; i < npoints; i++) {
        struct point *p = &points[i];
        if (strcmp(p->name, name) != 0)
            continue;
        unsigned long passing = atomic_fetch_add(&p->passed, 1) + 1;
        if (passing == p->nth || (p->onwards && passing > p->nth))
            failed |= act(p);
    }
    return failed;
}

#endif
