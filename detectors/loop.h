/* loop.h - mail running in a circle, seen in one message's own trace (detection.md 3.3b, 15). */
#ifndef LOOP_H
#define LOOP_H

#include "detector.h"

extern const struct detector loop_detector;

/* Does it say of this message that it runs in a circle: its path alone tells so, or the recipient
 * had it before (again) and the path is odd? What the default rules loop-own and
 * loop-again hold, and forwarding-loop of contrib/rules. */
bool loop_speaks(const struct loop_signals *, bool again);

#endif
