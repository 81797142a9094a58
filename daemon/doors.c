/*
 * doors.c - the doors there are. To add one: a file, and a line here.
 */
#include "milter.h"
#include "smtp.h"

door_accept_fn *const door_accepts[] = {[DOOR_MILTER] = milter_accept, [DOOR_SMTP] = smtp_accept};
