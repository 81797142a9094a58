/*
 * proxyline.h - the PROXY protocol, versions 1 and 2, of a load balancer before us
 * (haproxy doc/proxy-protocol.txt). Read only on listeners configured for it; anything else there
 * than a right header closes the connection.
 */
#ifndef PROXYLINE_H
#define PROXYLINE_H

#include "site.h"

enum proxyline_state {
    PROXYLINE_MORE, /* not all here yet */
    PROXYLINE_GOOD, /* `used` bytes were the header */
    PROXYLINE_BAD
};
struct proxyline {
    bool known;           /* false: LOCAL or UNKNOWN: the real peer counts */
    struct ipaddr client; /* where known */
    uint16_t port;
    size_t used;
};
enum { PROXYLINE_MAX = 16 + 65535 };
enum proxyline_state proxyline_read(struct proxyline *, struct span bytes);
/* Writes a version 1 or 2 header; bytes written, 0: no room. For downstreams that want it. */
size_t proxyline_write(uint8_t *out, size_t cap, int version, const struct ipaddr *client,
                       uint16_t client_port, const struct ipaddr *server, uint16_t server_port);

#endif
