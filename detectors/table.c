/*
 * table.c - the detectors, in the order they judge.
 */
#include "flood.h"
#include "loop.h"
#include "pingpong.h"
#include "replication.h"
#include "replyall.h"

const struct detector *const detectors[] = {&loop_detector,     &replication_detector,
                                            &replyall_detector, &pingpong_detector,
                                            &flood_detector,    NULL};
