/* loop.h - mail running in a circle, seen in one message's own trace (detection.md 3.3b, 15). */
#ifndef LOOP_H
#define LOOP_H

#include "detector.h"

extern const struct detector loop_detector;

#endif
