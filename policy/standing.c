/*
 * standing.c - see standing.h. One table says where each event leads; time is the only event that
 * asks a clock.
 *
 * Invariant: from "misbehaving" only a person's word or a long silence leads away, and one further
 * copy leads back.
 */
#include <string.h>

#include "standing.h"

enum { DAY = 86400 * 1000 }; /* ms */
const struct standing_times standing_defaults = {
    .probation = 30LL * DAY, .suspect = 7LL * DAY, .memory = 400LL * DAY};

static const char *const names[STANDING_STATES] = {"clean", "suspect", "misbehaving", "said-fixed",
                                                   "probation"};

/* Where an event leads; time is for resting() to say. */
static const uint8_t leads[STANDING_STATES][STANDING_EVENTS] = {
    [STANDING_CLEAN] = {[STANDING_BLAMED] = STANDING_SUSPECT,
                        [STANDING_CONVICTED] = STANDING_MISBEHAVING,
                        [STANDING_SAID] = STANDING_CLEAN,
                        [STANDING_UNSAID] = STANDING_CLEAN,
                        [STANDING_MAIL] = STANDING_CLEAN,
                        [STANDING_TIME] = STANDING_CLEAN},
    [STANDING_SUSPECT] = {[STANDING_BLAMED] = STANDING_SUSPECT,
                          [STANDING_CONVICTED] = STANDING_MISBEHAVING,
                          [STANDING_SAID] = STANDING_SUSPECT,
                          [STANDING_UNSAID] = STANDING_SUSPECT,
                          [STANDING_MAIL] = STANDING_SUSPECT,
                          [STANDING_TIME] = STANDING_CLEAN},
    [STANDING_MISBEHAVING] = {[STANDING_BLAMED] = STANDING_MISBEHAVING,
                              [STANDING_CONVICTED] = STANDING_MISBEHAVING,
                              [STANDING_SAID] = STANDING_SAID_FIXED,
                              [STANDING_UNSAID] = STANDING_MISBEHAVING,
                              [STANDING_MAIL] = STANDING_MISBEHAVING,
                              [STANDING_TIME] = STANDING_CLEAN},
    [STANDING_SAID_FIXED] = {[STANDING_BLAMED] = STANDING_MISBEHAVING,
                             [STANDING_CONVICTED] = STANDING_MISBEHAVING,
                             [STANDING_SAID] = STANDING_SAID_FIXED,
                             [STANDING_UNSAID] = STANDING_MISBEHAVING,
                             [STANDING_MAIL] = STANDING_PROBATION,
                             [STANDING_TIME] = STANDING_CLEAN},
    [STANDING_PROBATION] = {[STANDING_BLAMED] = STANDING_MISBEHAVING,
                            [STANDING_CONVICTED] = STANDING_MISBEHAVING,
                            [STANDING_SAID] = STANDING_PROBATION,
                            [STANDING_UNSAID] = STANDING_MISBEHAVING,
                            [STANDING_MAIL] = STANDING_PROBATION,
                            [STANDING_TIME] = STANDING_CLEAN},
};

/* Has it been in its state, without a sign of it, as long as that takes? */
static bool over(const struct standing *s, int64_t now, const struct standing_times *t)
{
    switch (s->state) {
    case STANDING_SUSPECT:
        return now - s->seen >= t->suspect;
    case STANDING_MISBEHAVING:
        return now - s->seen >= t->memory;
    case STANDING_SAID_FIXED:
        return now - s->since >= t->memory;
    case STANDING_PROBATION:
        return now - s->since >= t->probation;
    default:
        return false;
    }
}

/* Is this the same fault again: after it was said to be fixed, or had been forgotten? */
static bool relapsed(const struct standing *s, enum standing_event e)
{
    if (s->state == STANDING_SAID_FIXED || s->state == STANDING_PROBATION)
        return e == STANDING_BLAMED || e == STANDING_CONVICTED;
    return s->was && e == STANDING_CONVICTED && s->state != STANDING_MISBEHAVING;
}

bool standing_step(struct standing *s, enum standing_event e, int64_t now,
                   const struct standing_times *t)
{
    if (e == STANDING_TIME && !over(s, now, t))
        return false;
    if ((e == STANDING_BLAMED || e == STANDING_CONVICTED) && now > s->seen)
        s->seen = now;
    enum standing_state to = (enum standing_state)leads[s->state][e];
    if (to == s->state)
        return false;
    if (relapsed(s, e))
        s->relapses++;
    if (e == STANDING_SAID)
        s->said = now;
    s->was |= to == STANDING_MISBEHAVING;
    s->state = to;
    s->since = now;
    return true;
}

bool standing_known(const struct standing *s)
{
    return s->state >= STANDING_MISBEHAVING;
}

const char *standing_name(enum standing_state state)
{
    return names[state];
}

bool standing_find(const char *name, enum standing_state *out)
{
    for (unsigned i = 0; i < STANDING_STATES; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (enum standing_state)i;
            return true;
        }
    return false;
}
