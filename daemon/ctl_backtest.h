/* ctl_backtest.h - `breakwaterctl backtest`: new rules tried on recorded decisions. */
#ifndef CTL_BACKTEST_H
#define CTL_BACKTEST_H

#include <stdbool.h>

/* argv[0] is for complaints; json and conf (NULL: none) are options that stood before it. Returns
 * the exit status: 0; 1 the policy would hold or reject new mail, or nothing could be compared, or
 * a file could not be read; 2 usage. */
int backtest_main(int argc, char **argv, bool json, const char *conf);

#endif
