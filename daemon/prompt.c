/* prompt.c - the loop's part is taken over as long as the socket takes everything. */
#include <event2/buffer.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>

#include "prompt.h"

void prompt_rest(struct bufferevent *bev)
{
    if (evbuffer_get_length(bufferevent_get_output(bev)) == 0 && !bufferevent_openssl_get_ssl(bev))
        bufferevent_disable(bev, EV_WRITE);
}

bool prompt_write(struct bufferevent *bev)
{
    struct evbuffer *out = bufferevent_get_output(bev);
    if (evbuffer_get_length(out) == 0 || bufferevent_get_enabled(bev) & EV_WRITE)
        return false;
    evbuffer_unfreeze(out, 1);
    (void)evbuffer_write(out, bufferevent_getfd(bev)); /* what fails here fails in the loop too */
    evbuffer_freeze(out, 1);
    if (evbuffer_get_length(out) == 0)
        return true;
    bufferevent_enable(bev, EV_WRITE);
    return false;
}
