/* fleetclock.c - see fleetclock.h. */
#include <stdlib.h>

#include "fleetclock.h"

enum { SLOW = 1000, BELIEVED = 3, BACK = 500, AHEAD = 1000 /* ms */ };

static int64_t median(const int64_t v[FLEETCLOCK_ASKS])
{
    int64_t a = v[0], b = v[1], c = v[2];
    if ((a >= b) == (a <= c))
        return a;
    return (b >= a) == (b <= c) ? b : c;
}

static bool near(int64_t a, int64_t b)
{
    return a - b <= FLEETCLOCK_JUMP && b - a <= FLEETCLOCK_JUMP;
}

static enum fleetclock_said round_over(struct fleetclock *c, int64_t measured)
{
    if (!c->known) {
        c->known = true;
        c->target = c->offset = measured;
        return FLEETCLOCK_FIRST;
    }
    if (near(measured, c->target)) {
        c->target = measured;
        c->rounds = 0;
        return FLEETCLOCK_GOOD;
    }
    c->rounds = c->rounds && near(measured, c->doubted) ? c->rounds + 1 : 1;
    c->doubted = measured;
    if (c->rounds < BELIEVED)
        return FLEETCLOCK_DOUBT;
    c->target = measured;
    c->rounds = 0;
    return FLEETCLOCK_JUMPED;
}

enum fleetclock_said fleetclock_hear(struct fleetclock *c, int64_t asked, int64_t took,
                                     int64_t theirs)
{
    if (took < 0 || took > SLOW || theirs <= 0)
        return FLEETCLOCK_MORE;
    c->ask[c->nasks++] = theirs - (asked + took / 2);
    if (c->nasks < FLEETCLOCK_ASKS)
        return FLEETCLOCK_MORE;
    c->nasks = 0;
    return round_over(c, median(c->ask));
}

void fleetclock_again(struct fleetclock *c)
{
    c->nasks = 0;
}

bool fleetclock_step(struct fleetclock *c)
{
    int64_t way = c->target - c->offset;
    if (way > AHEAD)
        way = AHEAD;
    if (way < -BACK)
        way = -BACK;
    c->offset += way;
    return way != 0;
}
