/* flood.h - a relay that sends many times what it usually does (detection.md 9). One state per
 * relay: its baseline by the hour of the day, and a CUSUM of what exceeds it. */
#ifndef FLOOD_H
#define FLOOD_H

#include "detector.h"

extern const struct detector flood_detector;

#endif
