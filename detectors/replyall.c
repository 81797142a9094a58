/* replyall.c - see replyall.h. */
#include "replyall.h"

const struct detector replyall_detector = {.name = "replyall"};
