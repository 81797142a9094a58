/* config_fuzz.c - any bytes as breakwater.conf: a configuration or one printable sentence. Reads
 * with `check`, so nothing is made on disk; files the bytes happen to name are only read. */
#include <stdlib.h>

#include "config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char error[512] = "";
    log_open("stderr", LOG_NOTHING);
    struct config *c =
        config_parse("/nonexistent/fuzz.conf", span_of(data, size), CONFIG_CHECK, error);
    if (!c && !*error)
        abort();
    for (const char *p = error; *p; p++)
        if ((uint8_t)*p < 0x20 || *p == 0x7f)
            abort();
    config_drop(&c);
    return 0;
}
