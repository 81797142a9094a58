/* flood.c - see flood.h. */
#include "flood.h"

const struct detector flood_detector = {.name = "flood"};
