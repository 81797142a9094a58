/* redis_reader.c - hiredis' reader, with bounds. */
#include <stdlib.h>

#include "redis_link.h"

enum {
    REPLY_BYTES = 64 << 20,
    REPLY_LINE = 64 << 10, /* of a status, an error, a number */
    REPLY_ELEMENTS = 1000 * 1000,
};

/* hiredis takes the number of elements from the server and allocates room for as many at once. */
static void *bounded_array(const redisReadTask *task, int n)
{
    struct redis_reader *r = task->privdata;
    if (n > 0 && (size_t)n > REPLY_ELEMENTS - r->elements)
        return NULL;
    r->elements += n > 0 ? (size_t)n : 0;
    return r->array(task, n);
}

void redis_reader_open(struct redis_reader *r)
{
    redisReader *h = redisReaderCreate();
    if (!h)
        abort();
    *r = (struct redis_reader){.hiredis = h, .make = *h->fn, .array = h->fn->createArray};
    r->make.createArray = bounded_array;
    h->fn = &r->make;
    h->privdata = r;
}

void redis_reader_close(struct redis_reader *r)
{
    if (r->hiredis)
        redisReaderFree(r->hiredis);
    *r = (struct redis_reader){0};
}

bool redis_reader_feed(struct redis_reader *r, struct span s)
{
    r->bytes += s.n;
    return redisReaderFeed(r->hiredis, (const char *)s.p, s.n) == REDIS_OK;
}

/* Does what has come of a reply stay within bounds? */
static bool bounded(const struct redis_reader *r)
{
    const redisReader *h = r->hiredis;
    int type = h->ridx >= 0 ? h->rstack[h->ridx].type : -1;
    bool line =
        type == REDIS_REPLY_STATUS || type == REDIS_REPLY_ERROR || type == REDIS_REPLY_INTEGER;
    return r->bytes <= REPLY_BYTES && !(line && h->len - h->pos > REPLY_LINE);
}

bool redis_reader_next(struct redis_reader *r, redisReply **reply)
{
    void *made = NULL;
    *reply = NULL;
    if (redisReaderGetReply(r->hiredis, &made) != REDIS_OK)
        return false;
    if (!made)
        return bounded(r);
    *reply = made;
    r->elements = 0;
    r->bytes = r->hiredis->len - r->hiredis->pos;
    return true;
}
