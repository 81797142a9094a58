/* pingpong.c - see pingpong.h. */
#include "pingpong.h"

const struct detector pingpong_detector = {.name = "pingpong"};
