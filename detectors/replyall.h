/* replyall.h - too many people answer everybody (detection.md 8). One state per conversation. */
#ifndef REPLYALL_H
#define REPLYALL_H

#include "detector.h"

extern const struct detector replyall_detector;

const char *replyall_state_name(enum replyall_state); /* "quiet", "watch", "storm", "cooldown" */

#endif
