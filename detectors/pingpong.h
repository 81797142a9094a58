/* pingpong.h - machines that answer each other (detection.md 9). One state per pair of addresses.
 */
#ifndef PINGPONG_H
#define PINGPONG_H

#include "detector.h"

extern const struct detector pingpong_detector;

#endif
