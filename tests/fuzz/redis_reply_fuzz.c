/*
 * redis_reply_fuzz.c - what a Redis server says, in pieces: the first byte is how long these are.
 *
 * Whatever comes whole is a reply whose parts are there and whose texts end; what it says about
 * slots and redirections stays within bounds; the pieces do not matter.
 */
#include <hiredis/hiredis.h>
#include <stdlib.h>

#include "place.h"
#include "redis_link.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool good)
{
    if (!good)
        abort();
}

static void range(void *arg, uint16_t from, uint16_t to, const char *address)
{
    (void)arg;
    must(from <= to && to < REDIS_SLOTS && strlen(address) < REDIS_ADDRESS);
    must(place_target(span_str(address)));
}

static void look(const redisReply *r, unsigned depth)
{
    struct redis_redirection to;
    must(depth <= 8 && r->type >= REDIS_REPLY_STRING && r->type <= REDIS_REPLY_ERROR);
    if (r->str)
        must(r->str[r->len] == '\0');
    if (r->type == REDIS_REPLY_ERROR &&
        redis_redirection(span_of(r->str, r->len), SPAN("10.0.0.1:7000"), &to))
        must(to.slot < REDIS_SLOTS && place_target(span_str(to.address)));
    for (size_t i = 0; r->type == REDIS_REPLY_ARRAY && i < r->elements; i++)
        look(r->element[i], depth + 1);
}

/* How many replies there are; -1 - as many: then bytes that are none. */
static int read_all(struct span s, size_t piece)
{
    struct redis_reader reader;
    redisReply *reply;
    int n = 0;
    bool good = true;
    redis_reader_open(&reader);
    for (; good && s.n; s = span_from(s, piece)) {
        good = redis_reader_feed(&reader, span_head(s, piece));
        while (good && (good = redis_reader_next(&reader, &reply)) && reply) {
            look(reply, 0);
            (void)redis_slots_read(reply, SPAN("unix:/r"), range, NULL);
            freeReplyObject(reply);
            n++;
        }
    }
    redis_reader_close(&reader);
    return good ? n : -1 - n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    struct span s = span_of(data + 1, size - 1);
    must(read_all(s, (size_t)data[0] + 1) == read_all(s, s.n));
    return 0;
}
