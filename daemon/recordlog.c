/* recordlog.c - see recordlog.h. */
#include "recordlog.h"

struct span recordlog_frame(struct arena *a, struct span event, uint64_t id)
{
    uint8_t *bytes = arena_alloc(a, event.n + RECORDLOG_FRAME);
    uint8_t *p = bytes_put(bytes, event.n, 4);
    memcpy(p, event.p, event.n);
    bytes_put(p + event.n, id, 8);
    return span_of(bytes, event.n + RECORDLOG_FRAME);
}

bool recordlog_next(struct span *rest, struct frame *f)
{
    if (rest->n < RECORDLOG_FRAME)
        return false;
    size_t n = (size_t)bytes_get(rest->p, 4);
    if (n > rest->n - RECORDLOG_FRAME)
        return false;
    f->event = span_of(rest->p + 4, n);
    f->id = bytes_get(rest->p + 4 + n, 8);
    *rest = span_from(*rest, n + RECORDLOG_FRAME);
    return true;
}
