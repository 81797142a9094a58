/*
 * api_relays.h - the routes about relays: who misbehaves, and a person's word that one is fixed.
 *
 *   GET  relays?all=1    {"relays":[..]}: those that are not clean, or all
 *   POST relays          {"relay","fixed":true or false,"reason","dry_run"}
 */
#ifndef API_RELAYS_H
#define API_RELAYS_H

#include "http.h"
#include "relays.h"

void api_relays_list(struct relays *, struct http_request *);
/* The word and its audit row are committed together; then it counts, then the answer goes. */
void api_relays_word(struct relays *, struct keeper *, struct mailbox *home, struct http_request *);
/* For status: {"suspect":n,"misbehaving":n,"said-fixed":n,"probation":n}. */
json_t *api_relays_count(struct relays *);

#endif
