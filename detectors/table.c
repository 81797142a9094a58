/*
 * table.c - the detectors, in the order they judge.
 */
#include "loop.h"
#include "replication.h"

const struct detector *const detectors[] = {&loop_detector, &replication_detector, NULL};
